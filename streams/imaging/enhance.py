"""An 8-bit image made easier to read: histogram, local histogram, Gaussian blur, edges. Pure.

Grey (rows x columns) and RGB (rows x columns x 3) alike; of RGB the luminance (Y of Y'CbCr, ITU-R BT.601) is changed,
the colours stay. The results are OpenCV's on the same image. Raises UsageError where a parameter is out of its range.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from infra.errors import UsageError
from streams.imaging.display import Image, luminance

MOST_SIGMA = 50.0  # pixels: beyond it nothing is left to see
MOST_TILES = 64


def equalise(image: Image) -> Image:
    """Greys spread so that each occurs as often as any other."""
    return _of_luminance(image, lambda grey: np.asarray(cv2.equalizeHist(grey), np.uint8))


def clahe(image: Image, clip: float = 2.0, tiles: int = 8) -> Image:
    """The same by tiles x tiles parts, none steeper than `clip` times the mean (Pizer et al. 1987; Zuiderveld 1994)."""
    if not (0 < clip <= 256 and 1 <= tiles <= MOST_TILES):
        raise UsageError(f"clahe: clip above 0 and up to 256, tiles 1 to {MOST_TILES}")
    made = cv2.createCLAHE(clipLimit=clip, tileGridSize=(tiles, tiles))
    return _of_luminance(image, lambda grey: np.asarray(made.apply(grey), np.uint8))


def blur(image: Image, sigma: float = 1.0) -> Image:
    """Gaussian of a standard deviation in pixels; every colour by itself."""
    if not 0 < sigma <= MOST_SIGMA:
        raise UsageError(f"blur: sigma above 0 and up to {MOST_SIGMA:g} pixels")
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def edges(image: Image, low: float = 100.0, high: float = 200.0) -> Image:
    """255 on edges, else 0 (Canny 1986): steeper than `high`, or than `low` and joined to such ones. One channel."""
    if not 0 <= low <= high:
        raise UsageError("edges: 0 <= low <= high")
    return np.asarray(cv2.Canny(luminance(image), low, high), np.uint8)


def _of_luminance(image: Image, change: Callable[[Image], Image]) -> Image:
    if image.ndim == 2:
        return change(np.ascontiguousarray(image))
    parts = np.array(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb), np.uint8)
    parts[..., 0] = change(np.ascontiguousarray(parts[..., 0]))
    return np.asarray(cv2.cvtColor(parts, cv2.COLOR_YCrCb2RGB), np.uint8)
