"""Where an image lies among others: 128 numbers by which similar ones are found. Pure.

Classical features of the 8-bit image, made a square of 96 pixels: nothing is learnt, so nothing leaks from the images
that a model was taught with, and every machine gives the same numbers. Four groups, each of length 1, times its weight:

    64  how edges run, 4 orientations in 4 x 4 cells (histograms of oriented gradients, Dalal and Triggs 2005)
    36  where it is bright, 6 x 6 cells, less their mean
    16  how often each grey occurs
    10  texture: uniform local binary patterns, whatever their rotation (Ojala, Pietikaeinen and Maeenpaeae 2002)
     2  colour or none; a constant, so that the vector is never all zero

Groups of length 1, less their mean, take most of what another window would change; greys spread evenly first
(equalised) were worse, for noise is then spread as well.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.imaging import DIMENSIONS
from streams.imaging.display import Image, luminance

Floats = NDArray[np.float64]
SIDE, CELLS, ORIENTATIONS, LAYOUT, GREYS = 96, 4, 4, 6, 16
EDGES, BRIGHT, GREY, TEXTURE, COLOUR, CONSTANT = 1.0, 0.5, 0.5, 0.8, 0.5, 0.05  # weights, by measurement
DECIMALS = 5  # what is beyond them differs between machines


def embed(image: Image) -> tuple[float, ...]:
    """128 numbers of length 1, of an 8-bit image, grey or RGB, of any size."""
    grey = luminance(image)
    small = _small(grey)
    colour = float(np.mean(np.ptp(image.astype(int), axis=2)) / 255) if image.ndim == 3 else 0.0
    groups = [
        EDGES * _unit(_edges(small)),
        BRIGHT * _unit(_layout(small)),
        GREY * _unit(_histogram(grey)),
        TEXTURE * _unit(_patterns(small)),
        np.array([COLOUR * min(1.0, 4 * colour), CONSTANT]),
    ]
    vector = np.concatenate(groups)
    return tuple(round(float(one), DECIMALS) + 0.0 for one in vector / np.linalg.norm(vector))


def _small(grey: Image) -> Floats:
    side = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(side.astype(np.float64), (0, 0), 1.0) / 255)


def _edges(small: Floats) -> Floats:
    dx, dy = cv2.Sobel(small, cv2.CV_64F, 1, 0), cv2.Sobel(small, cv2.CV_64F, 0, 1)
    size, turn = np.hypot(dx, dy), np.arctan2(dy, dx) % np.pi * (ORIENTATIONS / np.pi)
    low = np.floor(turn).astype(int)
    share = turn - low
    cells = []
    for one in range(ORIENTATIONS):
        weight = np.where(low % ORIENTATIONS == one, 1 - share, 0) + np.where((low + 1) % ORIENTATIONS == one, share, 0)
        cells.append(_cells(size * weight, CELLS))
    return np.asarray(np.sqrt(np.stack(cells, axis=-1)).reshape(-1))


def _layout(small: Floats) -> Floats:
    cells = _cells(small, LAYOUT).reshape(-1)
    return np.asarray(cells - cells.mean())


def _histogram(grey: Image) -> Floats:
    counts = np.bincount(grey.reshape(-1) >> 4, minlength=GREYS).astype(np.float64)
    return np.asarray(np.sqrt(counts / counts.sum()))


def _patterns(small: Floats) -> Floats:
    """Each of eight neighbours at least as bright as the middle or not, around it; at most two changes is uniform."""
    middle = small[1:-1, 1:-1]
    around = [(0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0)]
    height, width = middle.shape
    bits = np.stack([small[y : y + height, x : x + width] >= middle + 0.01 for y, x in around]).astype(int)
    changes = np.abs(bits - np.roll(bits, 1, axis=0)).sum(axis=0)
    codes = np.where(changes <= 2, bits.sum(axis=0), 9)
    return np.asarray(np.sqrt(np.bincount(codes.reshape(-1), minlength=10) / codes.size))


def _cells(values: Floats, side: int) -> Floats:
    """Means over side x side cells that overlap a little: a pixel that moves does not jump into another."""
    soft = cv2.GaussianBlur(values, (0, 0), SIDE / side / 4)
    return np.asarray(cv2.resize(soft, (side, side), interpolation=cv2.INTER_AREA))


def _unit(values: Floats) -> Floats:
    length = float(np.linalg.norm(values))
    return values / length if length > 1e-9 else np.zeros_like(values)


assert CELLS**2 * ORIENTATIONS + LAYOUT**2 + GREYS + 10 + 2 == DIMENSIONS
