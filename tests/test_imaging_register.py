"""Known turns and shifts of real slices are found; what is not the same is not taken for it."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from infra.errors import BadMessage
from streams.imaging.register import Spacing, apply, register, register_stacks
from tests.imaging_files import image, opened

SLICES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "693_UNCI.dcm",
    "bad_sequence.dcm",
    "explicit_VR-UN.dcm",
    "MR-SIEMENS-DICOM-WithOverlays.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "eCT_Supplemental.dcm",
)
MOVES = ((0.0, 0.0, 0.0), (2.0, 3.0, -2.0), (-5.0, 5.0, 4.0), (8.0, -6.0, 3.0), (15.0, 0.0, 7.0))  # degrees, pixels
OTHERS = (*SLICES[:5], "MR2_UNCI.dcm", "RG1_UNCI.dcm", "JPEG2000_UNC.dcm")  # CT, MR, radiograph, scintigram


def spacing(name: str) -> Spacing:
    pixels = opened(name)
    row, column = pixels.attributes(0).get("PixelSpacing") or (1.0, 1.0)
    return float(row), float(column)


def moved(values: NDArray[Any], of: Spacing, to: Spacing, angle: float, right: float, down: float) -> NDArray[Any]:
    """The follow-up, in pixels of `to`, of a patient who turned by `angle` and moved by mm."""
    turn = np.radians(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shape = round(values.shape[0] * of[0] / to[0]), round(values.shape[1] * of[1] / to[1])
    here, there = (np.array([size[1] - 1, size[0] - 1]) / 2 for size in (values.shape, shape))
    linear = np.diag([1 / of[1], 1 / of[0]]) @ rotation.T @ np.diag([to[1], to[0]])  # from the follow-up to the prior
    shift = here - linear @ there - np.diag([1 / of[1], 1 / of[0]]) @ rotation.T @ np.array([right, down])
    return cv2.warpAffine(
        values,
        np.column_stack([linear, shift]),
        (shape[1], shape[0]),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=float(np.percentile(values, 1)),
    )


def noisy(values: NDArray[Any], share: float = 0.02) -> NDArray[Any]:
    spread = np.ptp(np.percentile(values, (1, 99)))
    return values + np.random.default_rng(7).normal(0, share * spread, values.shape)


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("name", SLICES)
def test_a_known_move_is_found(name: str, move: tuple[float, float, float]) -> None:
    prior, mm = image(name), spacing(name)
    angle, right, down = move[0], move[1] * mm[1], move[2] * mm[0]
    follow_up = noisy(moved(prior, mm, mm, angle, right, down))
    found = register(prior, follow_up, mm, mm)
    assert abs(found.angle - angle) < 0.3
    assert np.hypot(found.shift[0] - right, found.shift[1] - down) < 0.5 * mm[0]
    assert found.after.correlation > 0.95
    if angle:
        assert found.after.correlation > found.before.correlation
        assert found.after.mutual_information > found.before.mutual_information


@pytest.mark.parametrize("name", ["693_UNCI.dcm", "explicit_VR-UN.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_pixels_of_another_size_are_respected(name: str) -> None:
    prior, mm = image(name), spacing(name)
    other = mm[0] * 1.3, mm[1] * 1.3
    follow_up = noisy(moved(prior, mm, other, 6, 4, -5))
    found = register(prior, follow_up, mm, other)
    assert abs(found.angle - 6) < 0.3
    assert np.hypot(found.shift[0] - 4, found.shift[1] + 5) < 0.5 * other[0]
    laid = apply(follow_up, found, mm, other, prior.shape)
    middle = tuple(slice(size // 4, -size // 4) for size in prior.shape)
    before = np.corrcoef(prior[middle].ravel(), cv2.resize(follow_up, prior.shape[::-1])[middle].ravel())[0, 1]
    after = np.corrcoef(prior[middle].ravel(), laid[middle].ravel())[0, 1]
    assert after > 0.95
    assert after > before
    with pytest.raises(BadMessage):  # a size that lies does not fit
        register(prior, follow_up, mm, (other[0] * 1.5, other[1] * 1.5))


def test_a_small_finding_that_is_new_does_not_disturb() -> None:
    prior, mm = image("explicit_VR-UN.dcm"), spacing("explicit_VR-UN.dcm")
    follow_up = moved(prior, mm, mm, 4, 5, 5)
    cv2.circle(follow_up, (230, 260), 18, 300.0, -1)
    found = register(prior, follow_up, mm, mm)
    assert abs(found.angle - 4) < 0.3
    assert np.hypot(found.shift[0] - 5, found.shift[1] - 5) < 0.5 * mm[0]
    laid = apply(follow_up, found, mm, mm, prior.shape)
    changed = np.abs(laid - prior) > 100
    assert changed[prior.shape[0] // 3 : -prior.shape[0] // 3, prior.shape[1] // 3 : -prior.shape[1] // 3].any()


def test_different_images_are_not_taken_for_the_same() -> None:
    for one, other in combinations(OTHERS, 2):
        with pytest.raises(BadMessage, match="not_registered"):
            register(image(one), image(other), spacing(one), spacing(other))


@pytest.mark.parametrize(
    ("prior", "follow_up", "mm"),
    [
        (np.zeros((64, 64)), np.zeros((64, 64)), (1, 1)),
        (np.random.default_rng(0).normal(size=(64, 64)), np.random.default_rng(1).normal(size=(64, 64)), (1, 1)),
        (np.eye(64), np.eye(64), (0, 1)),
        (np.eye(64), np.eye(64), (float("nan"), 1)),
        (np.eye(64), np.eye(64), (1e9, 1)),
        (np.eye(8), np.eye(8), (1, 1)),
        (np.zeros((64, 64, 3)), np.zeros((64, 64, 3)), (1, 1)),
        (np.full((64, 64), np.nan), np.eye(64), (1, 1)),
    ],
)
def test_what_cannot_be_registered_says_so(prior: Any, follow_up: Any, mm: Spacing) -> None:
    with pytest.raises(BadMessage, match="not_registered"):
        register(prior, follow_up, mm, mm)


def volume(across: float = 0, right: float = 0, down: float = 0, angle: float = 0) -> NDArray[np.float64]:
    """40 slices of an ellipsoid with balls in it, 1 pixel a unit, turned and shifted."""
    z, y, x = np.mgrid[:40, :96, :96].astype(float) - np.array([19.5, 47.5, 47.5])[:, None, None, None]
    turn = np.radians(angle)
    x, y, z = x - right, y - down, z - across
    x, y = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    made = 100.0 * ((x / 36) ** 2 + (y / 28) ** 2 + (z / 17) ** 2 < 1)
    rng = np.random.default_rng(3)
    for _ in range(25):
        right_, down_, deep, size = rng.uniform(-24, 24), rng.uniform(-18, 18), rng.uniform(-12, 12), rng.uniform(3, 7)
        made += rng.uniform(-60, 100) * ((x - right_) ** 2 + (y - down_) ** 2 + (z - deep) ** 2 < size**2)
    return np.asarray(ndimage.gaussian_filter(made, 1))


@pytest.mark.parametrize("move", [(0, 0, 0, 0), (4, 0, 0, 0), (-5, 3, -4, 0), (3, 2, 3, 6), (2.5, -5, 4, -10)])
def test_stacks_are_found_across_their_slices_too(move: tuple[float, float, float, float]) -> None:
    prior = volume() + np.random.default_rng(0).normal(0, 3, (40, 96, 96))
    follow_up = volume(*move) + np.random.default_rng(1).normal(0, 3, (40, 96, 96))
    found, across = register_stacks(prior, follow_up, (2.0, 1.0, 1.0), (2.0, 1.0, 1.0))
    assert abs(across - 2 * move[0]) < 0.8  # mm, of slices of 2
    assert np.hypot(found.shift[0] - move[1], found.shift[1] - move[2]) < 0.5
    assert abs(found.angle - move[3]) < 0.3


def test_stacks_of_different_things_are_not_taken_for_the_same() -> None:
    noise = np.random.default_rng(0).normal(size=(40, 96, 96))
    for other in (noise, volume()[:, ::-1].transpose(0, 2, 1) * (1 + noise)):
        with pytest.raises(BadMessage, match="not_registered"):
            register_stacks(volume(), other, (2, 1, 1), (2, 1, 1))
    with pytest.raises(BadMessage, match="not_registered"):
        register_stacks(volume()[0], volume()[0], (2, 1, 1), (2, 1, 1))
