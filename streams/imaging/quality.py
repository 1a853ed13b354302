"""How good an image is, as numbers that can be searched by: noise, sharpness, contrast, clipping, motion. Pure.

Only what was measured counts: no padding, and no background, which is what is dark and hangs together with the border
(air around a body, the corners outside of a circular field).

    noise         standard deviation in units of the modality: the median of the response to a mask that cancels slopes
                  and curves (Immerkaer, Computer Vision and Image Understanding 64, 1996), which edges hardly move.
                  Noise that a reconstruction kernel has smoothed is taken for less than it is.
    noise_ratio   the same as a share of the spread from the 1st to the 99th percentile
    sharpness     0 to 1: what share of the steps between neighbours goes when the image is blurred (Crete, Dolmiere,
                  Ladret and Nicolas 2007), of steps beyond the noise
    contrast      0 to 1: root mean square contrast of the image as shown (Peli 1990)
    clipped_low   share of pixels at the lowest value that can be stored, `clipped_high` at the highest
    motion        0 to 1: the larger of two hints. Ghosts, of MR: what lies beside the body along one axis is
                  brighter than along the other (percent signal ghosting of the ACR's MRI phantom test, as a share of
                  10 %). Smear: fine detail is missing in one direction only.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from pydicom import Dataset

from streams.imaging.display import Image, Values, display, inverted, luminance, modality, padded

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
MEDIAN = 0.6745  # of the absolute values of a normal distribution, in standard deviations
MOST_SIDE = 2560  # pixels: of a larger image (a mammogram) so much is looked at
DIRECTIONS = 8
MOST_DETAIL = 1024  # pixels a side that the directions are looked for in
DETAIL = 0.08, 0.3  # cycles a pixel: above what anatomy prefers a direction in, below what noise is all of
SMEARED = 0.3  # of the power across it: more in 11 of 16 real images, less in 14 smeared by 11 pixels
LEAST_SHARE = 0.05  # of the pixels: a body smaller than this is none, and everything counts
GHOSTS = 0.1  # signal beside the body, as a share of the body's, that is motion beyond doubt


@dataclass(frozen=True, slots=True)
class Quality:
    noise: float | None = None
    noise_ratio: float | None = None
    sharpness: float | None = None
    contrast: float | None = None
    clipped_low: float | None = None
    clipped_high: float | None = None
    motion: float | None = None


def quality(stored: Values, ds: Dataset, shown: Image | None = None) -> Quality:
    """Of one frame's stored values (colour: of its luminance). None where there is nothing to tell from.

    `shown`: the image as `display` has it, where it is there already.
    """
    shown = display(stored, ds) if shown is None else shown
    where = _part(shown)
    stored, shown = stored[where], shown[where]
    if stored.ndim == 3:
        shown = luminance(shown)
        stored, values, empty = shown, shown.astype(np.float32), np.zeros(shown.shape, np.bool_)
        low, high = 0.0, 255.0
    elif shown.ndim == 3:  # palette colour
        return quality(shown, ds, shown)
    else:
        values = np.asarray(modality(stored, ds), np.float32)
        empty = padded(stored, ds) | ~np.isfinite(values)
        values[~np.isfinite(values)] = 0
        low, high = _storable(stored, ds)
    empty = empty | _field(stored)
    body = _body(-values if inverted(ds) else values, empty)
    inside = _shrunk(body)
    clipped = (stored <= low) | (stored >= high)
    count = int(body.sum())
    if min(values.shape) < 8 or not inside.any():
        return Quality()
    spread = float(np.subtract(*np.percentile(values[body], (99, 1))))
    sigma = noise(values, inside & _shrunk(~clipped))
    return Quality(
        noise=sigma,
        noise_ratio=sigma / spread if spread else None,
        sharpness=sharpness(values, inside, sigma),
        contrast=float(min(1.0, shown[body].std() / 127.5)),
        clipped_low=float((body & (stored <= low)).sum() / count),
        clipped_high=float((body & (stored >= high)).sum() / count),
        motion=max(_ghosts(values, body, empty) if ds.get("Modality") == "MR" else 0.0, _smear(values, inside, sigma)),
    )


def noise(values: Floats, where: Mask) -> float:
    """Standard deviation of the noise, in units of `values`."""
    if not where.any():
        return 0.0
    response = cv2.filter2D(values, cv2.CV_32F, IMMERKAER)
    return float(np.median(np.abs(response[where])) / (MEDIAN * 6))  # the mask's weights have length 6


def sharpness(values: Floats, where: Mask, sigma: float = 0.0) -> float:
    """0 to 1. Steps within three standard deviations of the noise are left out."""
    calm = cv2.GaussianBlur(values, (0, 0), 0.8)
    least = 3 * sigma * 0.5  # what is left of the noise in a step between smoothed neighbours
    kept = total = 0.0
    for axis, size in ((0, (1, 9)), (1, (9, 1))):
        steps = np.abs(np.diff(calm, axis=axis))
        blurred = np.abs(np.diff(cv2.blur(calm, size), axis=axis))
        inside = where[1:] & where[:-1] if axis == 0 else where[:, 1:] & where[:, :-1]
        inside &= steps > least
        total += float(steps[inside].sum())
        kept += float(np.minimum(steps, blurred)[inside].sum())
    return (total - kept) / total if total else 0.0


def _part(shown: Image) -> tuple[slice, slice]:
    """All of an image, or MOST_SIDE x MOST_SIDE of a larger one, around the middle of what is bright."""
    height, width = shown.shape[:2]
    if max(height, width) <= MOST_SIDE:
        return slice(None), slice(None)
    small = luminance(np.ascontiguousarray(shown[::8, ::8]))
    rows, columns = np.nonzero(small > small.mean())
    places = (rows.mean() * 8, columns.mean() * 8) if len(rows) else (height / 2, width / 2)
    down, right = (
        min(max(0, int(place) - MOST_SIDE // 2), max(0, side - MOST_SIDE))
        for place, side in zip(places, (height, width), strict=True)
    )
    return slice(down, down + MOST_SIDE), slice(right, right + MOST_SIDE)


def _storable(stored: Values, ds: Dataset) -> tuple[float, float]:
    """The lowest and the highest value that the header's bits can hold."""
    if stored.dtype.kind == "f":
        return -np.inf, np.inf
    bits = int(ds.get("BitsStored") or 8 * stored.dtype.itemsize)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if stored.dtype.kind == "i" else (0, 2**bits - 1)


def _field(stored: Values) -> Mask:
    """Where the same value fills three corners at least, and more than a hundredth: outside of a circular field."""
    corners = np.array([stored[0, 0], stored[0, -1], stored[-1, 0], stored[-1, -1]])
    for value in corners[:2]:
        if (corners == value).sum() >= 3 and (stored == value).mean() > 0.01:
            return np.asarray(stored == value)
    return np.zeros(stored.shape, np.bool_)


def _body(values: Floats, empty: Mask) -> Mask:
    """What is not padding, nor dark and joined to the border (Otsu's threshold of the smoothed image)."""
    there = ~empty
    if not there.any():
        return there
    low, high = np.percentile(values[there], (0.5, 99.5))
    if high <= low:
        return there
    scaled = np.clip((cv2.GaussianBlur(values, (0, 0), 1.5) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    scaled[empty] = 0
    threshold, _ = cv2.threshold(scaled[there].reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    dark = (scaled <= threshold) | empty
    _, labels = cv2.connectedComponents(dark.astype(np.uint8), connectivity=4)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    body = there & ~(np.isin(labels, edge[edge > 0]))
    return body if body.mean() >= LEAST_SHARE else there


def _shrunk(mask: Mask) -> Mask:
    """Without the pixels near its rim, whose masks reach beyond it."""
    padded_mask = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.erode(padded_mask, np.ones((5, 5), np.uint8))[1:-1, 1:-1] > 0)


def _ghosts(values: Floats, body: Mask, empty: Mask) -> float:
    """0 to 1: brightness beside the body along one axis, less that along the other."""
    rows: Mask = np.asarray(body.any(axis=1))
    columns: Mask = np.asarray(body.any(axis=0))
    outside = ~cv2.dilate(body.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool) & ~empty
    beside: Mask = np.logical_and(outside, rows[:, None] & ~columns[None, :])
    above: Mask = np.logical_and(outside, columns[None, :] & ~rows[:, None])
    least = max(16, int(0.01 * body.size))
    if beside.sum() < least or above.sum() < least:
        return 0.0
    dark = float(np.percentile(values[outside], 1))
    signal = float(values[body].mean()) - dark
    if signal <= 0:
        return 0.0
    difference = abs(float(values[beside].mean()) - float(values[above].mean())) / (2 * signal)
    return min(1.0, difference / GHOSTS)


def _smear(values: Floats, inside: Mask, sigma: float) -> float:
    """0 to 1: power of the gradient along one of eight directions as a share of that across it, where it is least."""
    part = tuple(_middle(np.flatnonzero(inside.any(axis=axis))) for axis in (1, 0))
    height, width = inside[part].shape
    if min(height, width) < 16 or not inside[part].any():
        return 0.0
    mask = inside[part].astype(np.float32)
    near = cv2.GaussianBlur(mask, (0, 0), 4)
    mean = cv2.GaussianBlur(values[part] * mask, (0, 0), 4) / np.maximum(near, 1e-3)  # of the body's pixels around
    weights = near * mask * np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    power = np.abs(scipy.fft.rfft2((values[part] - mean) * weights)) ** 2
    down, right = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    squared = (down**2 + right**2).astype(np.float32)
    ring = (squared > DETAIL[0] ** 2) & (squared < DETAIL[1] ** 2)
    turn = np.rint(np.arctan2(down, right)[ring] / np.pi * DIRECTIONS).astype(int) % DIRECTIONS
    noisy = sigma**2 * float((weights**2).sum())  # power of the noise, at each frequency
    counts = np.maximum(np.bincount(turn, minlength=DIRECTIONS), 1)
    energy = np.bincount(turn, (power[ring] - noisy) * squared[ring], DIRECTIONS) / counts
    across = np.roll(energy, DIRECTIONS // 2)
    floor = noisy * float(squared[ring].mean())  # less than the noise tells nothing
    told = across > max(floor, 1e-12)
    if not told.any():
        return 0.0
    least = float((np.maximum(energy, 0)[told] / across[told]).min())
    return max(0.0, 1 - least / SMEARED)


def _middle(places: NDArray[np.intp]) -> slice:
    """From the first to the last, but no more than MOST_DETAIL in the middle, and a number that transforms fast."""
    count = int(places[-1] - places[0]) + 1
    kept = min(MOST_DETAIL, count - count % 16 or count)
    start = int(places[0]) + (count - kept) // 2
    return slice(start, start + kept)
