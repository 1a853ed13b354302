"""Enhanced images: OpenCV's own results with parameters said here, known answers, and an independent equalisation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from infra.errors import UsageError
from streams.imaging.display import display
from streams.imaging.enhance import blur, clahe, edges, equalise
from tests.imaging_files import opened

NAMES = ("CT_small.dcm", "MR_small.dcm", "693_UNCI.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm")
COLOURED = ("US1_UNCR.dcm", "examples_rgb_color.dcm")


def shown(name: str) -> NDArray[np.uint8]:
    pixels = opened(name)
    return display(pixels.frame(0), pixels.attributes(0))


def equalised(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """By the textbook (Gonzalez and Woods): the cumulated share of what is not the darkest, to 0..255."""
    counts = np.bincount(grey.ravel(), minlength=256)
    darkest = int(np.flatnonzero(counts)[0])
    share = (np.cumsum(counts) - counts[darkest]) / (grey.size - counts[darkest])
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)[grey]


@pytest.mark.parametrize("name", NAMES)
def test_grey_images_are_as_opencv_makes_them(name: str) -> None:
    grey = shown(name)
    assert np.array_equal(equalise(grey), cv2.equalizeHist(grey))
    assert np.abs(equalise(grey).astype(int) - equalised(grey)).max() <= 1  # single precision there
    assert np.array_equal(clahe(grey, 3.0, 4), cv2.createCLAHE(3.0, (4, 4)).apply(grey))
    assert np.array_equal(blur(grey, 1.7), cv2.GaussianBlur(grey, ksize=(0, 0), sigmaX=1.7, sigmaY=1.7))
    assert np.array_equal(edges(grey, 50, 120), cv2.Canny(grey, 50, 120, apertureSize=3, L2gradient=False))


@pytest.mark.parametrize("name", NAMES)
def test_another_parameter_gives_another_image(name: str) -> None:
    grey = shown(name)
    assert not np.array_equal(clahe(grey, 3.0, 4), clahe(grey, 3.0, 8))
    assert not np.array_equal(blur(grey, 1.7), blur(grey, 2.7))
    assert edges(grey, 20, 60).sum() > edges(grey, 100, 300).sum()


@pytest.mark.parametrize("name", COLOURED)
def test_of_colour_the_luminance_changes_and_the_hue_stays(name: str) -> None:
    rgb = shown(name)
    parts = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)
    made = np.stack([cv2.equalizeHist(np.ascontiguousarray(parts[..., 0])), parts[..., 1], parts[..., 2]], axis=-1)
    assert np.array_equal(equalise(rgb), cv2.cvtColor(made, cv2.COLOR_YCrCb2RGB))
    assert not np.array_equal(equalise(rgb), cv2.equalizeHist(rgb[..., 0])[..., None].repeat(3, 2))
    assert clahe(rgb).shape == rgb.shape
    assert np.array_equal(blur(rgb, 2.0)[..., 1], cv2.GaussianBlur(rgb[..., 1].copy(), (0, 0), 2.0))
    assert np.array_equal(edges(rgb), cv2.Canny(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 100, 200))


def test_a_grey_image_in_three_channels_stays_grey() -> None:
    grey = shown("CT_small.dcm")
    made = equalise(np.stack([grey] * 3, axis=-1))
    assert np.array_equal(made[..., 0], cv2.equalizeHist(grey))
    assert np.array_equal(made[..., 0], made[..., 2])


def test_small_images_are_known_by_hand() -> None:
    four = np.array([[10, 10], [20, 30]], np.uint8)  # half 10, a quarter each 20 and 30: (3-2)/2, (4-2)/2
    assert equalise(four).tolist() == [[0, 0], [128, 255]]
    step = np.zeros((9, 9), np.uint8)
    step[:, 5:] = 200
    assert np.array_equal(edges(step), np.where(np.arange(9) == 4, 255, 0) * np.ones((9, 1), int))
    point = np.zeros((31, 31), np.uint8)
    point[15, 15] = 255
    spread = blur(point, 1.5).astype(float)
    assert np.unravel_index(spread.argmax(), spread.shape) == (15, 15)
    assert abs(spread[15, 15] - 255 / (2 * np.pi * 1.5**2)) < 1
    assert np.array_equal(spread, spread.T)


def test_images_of_one_grey_stay_so() -> None:
    flat = np.full((16, 16), 77, np.uint8)
    assert np.ptp(equalise(flat)) == np.ptp(blur(flat)) == 0
    assert not edges(flat).any()


@pytest.mark.parametrize("sigma", [0, -1, 51, float("nan")])
def test_a_blur_out_of_range_is_refused(sigma: float) -> None:
    with pytest.raises(UsageError):
        blur(np.zeros((4, 4), np.uint8), sigma)


def test_other_parameters_out_of_range_are_refused() -> None:
    grey = np.zeros((16, 16), np.uint8)
    for clip, tiles in ((0, 8), (-1, 8), (2, 0), (2, 65), (float("nan"), 8)):
        with pytest.raises(UsageError):
            clahe(grey, clip, tiles)
    for low, high in ((200, 100), (-1, 5), (float("nan"), 5)):
        with pytest.raises(UsageError):
            edges(grey, low, high)
