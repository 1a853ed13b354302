"""Figures of quality: near what was put in, and going the way it goes. Background and padding do not count."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from streams.imaging.quality import Quality, quality
from tests.imaging_files import header, image, opened

SIGMAS = (2.0, 5.0, 12.0, 30.0)


def ct(**more: object) -> Dataset:
    return header(256, 256, **{"RescaleSlope": 1, "RescaleIntercept": -1024} | more)


def body(seed: int = 0, sigma: float = 0.0) -> NDArray[np.uint16]:
    """An ellipse of tissue with inserts, in air; stored values of a CT, with noise within the body and without."""
    down, right = np.mgrid[:256, :256]
    hu = np.full((256, 256), -1000.0)
    hu[((down - 128) / 90) ** 2 + ((right - 128) / 110) ** 2 < 1] = 40
    for row, column, size, value in ((100, 90, 20, -700), (100, 170, 15, 300), (160, 128, 25, 90)):
        hu[(down - row) ** 2 + (right - column) ** 2 < size**2] = value
    hu = cv2.GaussianBlur(hu, (0, 0), 0.7)
    noisy = hu + np.random.default_rng(seed).normal(0, sigma, hu.shape)
    return np.clip(np.rint(noisy + 1024), 0, 65535).astype(np.uint16)


def of(values: NDArray[np.generic], ds: Dataset | None = None) -> Quality:
    return quality(values, ds or ct())


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("seed", range(3))
def test_noise_is_near_what_was_added(sigma: float, seed: int) -> None:
    found = of(body(seed, sigma)).noise
    assert found == pytest.approx(sigma, rel=0.08, abs=0.3)


def test_noise_of_none_is_none_and_slopes_are_no_noise() -> None:
    assert of(body()).noise == 0
    slope = np.add.outer(np.arange(256) * 3, np.arange(256) * 5).astype(np.uint16)
    assert of(slope).noise == 0


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "693_UNCI.dcm", "explicit_VR-UN.dcm"])
def test_noise_added_to_a_real_image_adds_up(name: str) -> None:
    values = image(name)
    spread = float(np.subtract(*np.percentile(values, (99, 1))))
    ds = header(*values.shape)
    del ds.BitsStored
    found = []
    for share in (0.0, 0.02, 0.05, 0.1):
        noisy = values + np.random.default_rng(1).normal(0, share * spread, values.shape)
        found.append(of(noisy, ds))
    assert [one.noise for one in found] == sorted(one.noise for one in found)
    assert [one.noise_ratio for one in found] == sorted(one.noise_ratio for one in found)
    for share, one in zip((0.02, 0.05, 0.1), found[1:], strict=True):
        assert one.noise == pytest.approx(np.hypot(share * spread, found[0].noise), rel=0.15)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "693_UNCI.dcm", "RG3_UNCI.dcm", "MR2_UNCI.dcm"])
def test_blur_takes_sharpness(name: str) -> None:
    values = image(name)
    ds = header(*values.shape)
    found = [of(cv2.GaussianBlur(values, (0, 0), sigma) if sigma else values, ds).sharpness for sigma in (0, 1, 2, 4)]
    assert all(before > after for before, after in pairwise(found))
    assert min(found) >= 0
    assert max(found) <= 1


def test_noise_is_not_taken_for_sharpness() -> None:
    sharp = [of(body(1, sigma)).sharpness for sigma in (0, 5, 12)]
    soft = cv2.GaussianBlur(body(1), (0, 0), 3)
    noisy = [soft + np.random.default_rng(2).normal(0, sigma, soft.shape) for sigma in (0, 5, 12)]
    assert max(of(one).sharpness for one in noisy) < min(sharp)


def test_clipping_is_counted_within_the_body_only() -> None:
    ds = ct(BitsStored=12, HighBit=11)
    clean = of(np.minimum(body(), 4095), ds)
    assert clean.clipped_low == clean.clipped_high == 0
    shares = []
    for size in (5, 10, 20):
        values = body()
        values[120 : 120 + size, 120 : 120 + size] = 4095
        values[140 : 140 + size, 60 : 60 + size] = 0
        found = of(values, ds)
        shares.append((found.clipped_high, found.clipped_low))
        assert found.clipped_high == pytest.approx(size**2 / (np.pi * 90 * 110), rel=0.05)
    assert shares == sorted(shares)
    air = body()
    air[air < 200] = 0  # around the body: as low as can be stored, and not of it
    assert of(air, ds).clipped_low == 0


def test_contrast_is_of_what_is_shown() -> None:
    values = body(0, 5)
    wide, narrow = (of(values, ct(WindowCenter=40, WindowWidth=width)).contrast for width in (4000, 300))
    assert 0 < wide < narrow <= 1


@pytest.mark.parametrize("kind", ["padding", "circle", "air"])
def test_what_is_not_the_body_changes_nothing(kind: str) -> None:
    values = body(4, 10).astype(np.int32)
    ds = ct(PixelRepresentation=1, RescaleIntercept=0)
    plain = of(values - 1024, ds)
    down, right = np.mgrid[:256, :256]
    outside = (down - 128) ** 2 + (right - 128) ** 2 > 126**2
    changed = values - 1024
    if kind == "air":
        changed[outside] = -1024
    else:
        changed[outside] = -2000
    if kind == "padding":
        ds.PixelPaddingValue = -2000
    found = of(changed, ds)
    assert found.noise == pytest.approx(plain.noise, rel=0.02)
    assert found.sharpness == pytest.approx(plain.sharpness, rel=0.05)


def ghosted(share: float) -> tuple[NDArray[np.uint16], Dataset]:
    """A head of an MR whose ghosts lie half a field above and below it, as of motion in the phase direction."""
    down, right = np.mgrid[:256, :256]
    head = 600.0 * (((down - 128) / 60) ** 2 + ((right - 128) / 60) ** 2 < 1)
    head[(down - 120) ** 2 + (right - 125) ** 2 < 15**2] = 900
    values = head + share * np.roll(head, 128, axis=0) + np.abs(np.random.default_rng(0).normal(0, 8, head.shape))
    return values.astype(np.uint16), header(256, 256, Modality="MR")


def test_ghosts_are_seen() -> None:
    found = [of(*ghosted(share)).motion for share in (0.0, 0.05, 0.1, 0.2)]
    assert found == sorted(found)
    assert found[0] < 0.1
    assert found[2] - found[0] > 0.15
    values, ds = ghosted(0.2)
    turned = of(values.T.copy(), ds).motion
    assert turned == pytest.approx(found[3], abs=0.1)


@pytest.mark.parametrize(
    "name", ["RG1_UNCI.dcm", "J2K_pixelrep_mismatch.dcm", "explicit_VR-UN.dcm", "bad_sequence.dcm"]
)
def test_smear_is_seen_whatever_its_direction(name: str) -> None:
    values = image(name)
    ds = header(*values.shape)
    still = of(values, ds).motion
    even = of(cv2.GaussianBlur(values, (0, 0), 2), ds).motion
    for size in ((11, 1), (1, 11)):
        assert of(cv2.blur(values, size), ds).motion > max(still, even) + 0.15


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((64, 64), np.uint16),
        np.full((64, 64), 65535, np.uint16),
        np.zeros((1, 1), np.uint16),
        np.zeros((3, 4000), np.uint16),
        np.full((64, 64), np.nan, np.float32),
        np.where(np.eye(64) > 0, np.inf, 1.0).astype(np.float32),
        np.random.default_rng(0).integers(0, 65536, (64, 64), np.uint16),
        np.zeros((64, 64, 3), np.uint8),
    ],
)
def test_images_of_nothing_have_figures_or_none(values: NDArray[np.generic]) -> None:
    ds = header(*values.shape[:2], PhotometricInterpretation="RGB" if values.ndim == 3 else "MONOCHROME2")
    found = of(values, ds)
    for field in ("noise", "noise_ratio", "sharpness", "contrast", "clipped_low", "clipped_high", "motion"):
        value = getattr(found, field)
        assert value is None or np.isfinite(value)
        assert value is None or field == "noise" or 0 <= value <= 1.5


def test_real_images_have_figures() -> None:
    pixels = opened("CT_small.dcm")
    found = quality(pixels.frame(0), pixels.attributes(0))
    assert 3 < found.noise < 8  # HU
    assert 0.4 < found.sharpness < 0.7
    assert found.clipped_low == found.clipped_high == 0
