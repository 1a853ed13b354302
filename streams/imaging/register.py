"""A follow-up laid over its prior: the turn and the shift between two images of one patient, rigid. Pure.

Both are brought to pixels of the same size in mm around their middles. The turn is looked for in the spectra, which a
shift does not move (log-polar phase correlation, Reddy and Chatterji 1996), the shift by phase correlation, both are
refined by the enhanced correlation coefficient (Evangelidis and Psarakis 2008). What is found counts only if the images
are alike afterwards, in their values and in their edges: otherwise BadMessage("not_registered"), and nobody looks at a
comparison that is none. Images are of one modality; what turns out of the plane is not found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from infra.errors import BadMessage

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]  # 2 x 3, from a pixel of the one to a pixel of the other
Spacing = tuple[float, float]  # (0028,0030), mm: from row to row, from column to column
Volume = tuple[float, float, float]  # mm: from slice to slice, from row to row, from column to column
SIDE = 512  # pixels at most: more costs time and gains no accuracy that shows
STACK_SIDE, MOST_SLICES = 96, 256  # pixels of a stack, where the shift across it is looked for
STACK_SLICES = 7  # that are registered, of a stack
LEAST = 16
WHOLLY, NO_BLUR = 0.99, 1e-3
BINS = 32  # greys a histogram tells apart
MOST_TURN = 60.0  # degrees: nobody lies further from how he lay before
ALIKE, ALIKE_EDGES = 0.6, 0.4  # correlation of values and of their gradients, afterwards, at least
STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-7)


@dataclass(frozen=True, slots=True)
class Similarity:
    correlation: float  # normalised cross-correlation, -1 to 1
    mutual_information: float  # bits


@dataclass(frozen=True, slots=True)
class Registration:
    """A point of the prior, in mm from the middle of its image (right, down), turned by `angle` and then shifted, is
    the same point of the follow-up, in mm from the middle of that one."""

    angle: float  # degrees, clockwise as one looks at the image
    shift: tuple[float, float]  # mm to the right, down
    before: Similarity
    after: Similarity
    edges: float  # correlation of the gradients afterwards


def register(prior: NDArray[np.generic], follow_up: NDArray[np.generic], of: Spacing, to: Spacing) -> Registration:
    """Of two grey images, `of` and `to` the pixel spacing of the prior and of the follow-up.

    Raises BadMessage("not_registered").
    """
    for image, spacing in ((prior, of), (follow_up, to)):
        if image.ndim != 2 or min(image.shape) < LEAST or not all(0 < mm < 100 for mm in spacing):
            raise BadMessage("not_registered", "PixelSpacing")
    extents = [(image.shape[0] * mm[0], image.shape[1] * mm[1]) for image, mm in ((prior, of), (follow_up, to))]
    field = tuple(max(extent[axis] for extent in extents) for axis in (0, 1))
    step = max(min(*of, *to), max(field) / SIDE)
    size = round(field[1] / step), round(field[0] / step)
    if min(size) < LEAST:
        raise BadMessage("not_registered", "PixelSpacing")
    (fixed, inside), (moving, seen) = _resampled(prior, of, step, size), _resampled(follow_up, to, step, size)
    start = _start(fixed, moving)
    found = _refined(fixed, moving, start, inside, seen)
    angle = float(np.degrees(np.arctan2(found[1, 0], found[0, 0])))
    centre = np.array([(size[0] - 1) / 2, (size[1] - 1) / 2])
    shift = (found[:, :2] @ centre + found[:, 2] - centre) * step
    moved, kept = _moved(moving, found, size), _moved(seen, found, size) * inside > WHOLLY
    both = inside * seen > WHOLLY
    before, after = _similarity(fixed, moving, both), _similarity(fixed, moved, kept)
    alike = _correlation(_gradient(fixed), _gradient(moved), kept)
    gained = after.correlation >= before.correlation - 1e-3 or after.mutual_information > before.mutual_information
    enough = kept.sum() >= 0.25 * min(inside.sum(), seen.sum())
    if not (gained and enough and after.correlation >= ALIKE and alike >= ALIKE_EDGES and abs(angle) <= MOST_TURN):
        raise BadMessage("not_registered", "similarity")
    return Registration(angle, (float(shift[0]), float(shift[1])), before, after, alike)


def register_stacks(prior: Any, follow_up: Any, of: Volume, to: Volume) -> tuple[Registration, float]:
    """Of two stacks (slices x rows x columns) that lie the same way: the turn and the shift within the slices, and the
    shift across them, in mm: a slice of the prior at z is that of the follow-up at z plus it, each from its middle.

    The shift across is looked for by phase correlation of the whole, the rest on slices that then match, of which the
    median counts. Raises BadMessage("not_registered"), also where fewer than half of them can be registered.
    """
    if any(stack.ndim != 3 or len(stack) < 2 for stack in (prior, follow_up)) or not all(
        0 < mm < 100 for mm in (*of, *to)
    ):
        raise BadMessage("not_registered", "PixelSpacing")
    across = _across(prior, follow_up, of, to)
    found: list[Registration | None] = []
    for number in np.unique(np.linspace(0, len(prior) - 1, STACK_SLICES + 2).round().astype(int))[1:-1]:
        place = ((number - (len(prior) - 1) / 2) * of[0] + across) / to[0] + (len(follow_up) - 1) / 2
        if not 0 <= place <= len(follow_up) - 1:
            continue
        low = min(int(place), len(follow_up) - 2)
        slice_ = follow_up[low] * (1 - (place - low)) + follow_up[low + 1] * (place - low)
        try:
            found.append(register(prior[number], slice_, of[1:], to[1:]))
        except BadMessage:
            found.append(None)
    known = sorted((one for one in found if one), key=lambda one: one.angle)
    if not known or 2 * len(known) < len(found):
        raise BadMessage("not_registered", "slices")
    middle = known[len(known) // 2]
    shift = float(np.median([one.shift[0] for one in known])), float(np.median([one.shift[1] for one in known]))
    return replace(middle, shift=shift), across


def _across(prior: Any, follow_up: Any, of: Volume, to: Volume) -> float:
    """Shift in mm from slice to slice: the peak of the phase correlation of both stacks, brought to the same pixels."""
    field = [max(a * m, b * n) for a, m, b, n in zip(prior.shape, of, follow_up.shape, to, strict=True)]
    plane = max(*field[1:]) / STACK_SIDE
    deep = max(min(of[0], to[0]), field[0] / MOST_SLICES)
    size = max(LEAST, round(field[2] / plane)), max(LEAST, round(field[1] / plane))
    count = max(4, round(field[0] / deep))
    stacks = []
    for stack, mm in ((prior, of), (follow_up, to)):
        slices = np.stack([_resampled(one, mm[1:], plane, size, alone=False)[0] for one in stack])
        low, high = np.percentile(slices, (1, 99))
        places = (np.arange(count) - (count - 1) / 2) * deep / mm[0] + (len(stack) - 1) / 2
        below = np.clip(places.astype(int), 0, len(stack) - 2)
        share = np.clip(places - below, 0, 1)[:, None, None]
        whole = np.clip((slices[below] * (1 - share) + slices[below + 1] * share - low) / max(high - low, 1e-9), 0, 1)
        whole[(places < -0.5) | (places > len(stack) - 0.5)] = 0
        window = np.hanning(count + 2)[1:-1, None, None] * np.outer(np.hanning(size[1]), np.hanning(size[0]))
        stacks.append(np.fft.fftn((whole - whole.mean()) * window))
    cross = stacks[1] * np.conj(stacks[0])
    peaks = np.fft.ifftn(cross / np.maximum(np.abs(cross), 1e-9)).real.max(axis=(1, 2))
    best = int(peaks.argmax())
    before, at, after = peaks[best - 1], peaks[best], peaks[(best + 1) % count]
    bent = before - 2 * at + after
    bend = 0.5 * float(before - after) / float(bent) if bent < 0 else 0.0
    return ((best - count if best > count // 2 else best) + bend) * float(deep)


def apply(
    follow_up: NDArray[np.generic], found: Registration, of: Spacing, to: Spacing, shape: tuple[int, int]
) -> NDArray[np.generic]:
    """The follow-up as it lies on the prior's pixels (`shape` rows and columns); 0 where it shows nothing."""
    turn = np.radians(found.angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    from_prior, to_follow = np.diag([of[1], of[0]]), np.diag([1 / to[1], 1 / to[0]])
    middle = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    other = np.array([(follow_up.shape[1] - 1) / 2, (follow_up.shape[0] - 1) / 2])
    linear = to_follow @ rotation @ from_prior
    matrix = np.column_stack([linear, to_follow @ np.array(found.shift) + other - linear @ middle])
    made = cv2.warpAffine(
        follow_up.astype(np.float32), matrix, (shape[1], shape[0]), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    return np.asarray(made if follow_up.dtype.kind == "f" else np.rint(made)).astype(follow_up.dtype)


def _resampled(
    image: Any, spacing: Spacing, step: float, size: tuple[int, int], *, alone: bool = True
) -> tuple[Floats, Floats]:
    """The image in pixels of `step` mm around its middle, and 1 where it is. `alone`: spread from 0 to 1."""
    values = np.nan_to_num(np.asarray(image, np.float32))
    if alone:
        low, high = np.percentile(values, (1, 99))
        if high <= low:
            raise BadMessage("not_registered", "contrast")
        values = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    down, right = (0.5 * step / mm if step > 1.5 * mm else NO_BLUR for mm in spacing)  # detail that fits
    values = np.asarray(cv2.GaussianBlur(values, (0, 0), sigmaX=right, sigmaY=down), np.float32)
    matrix: Matrix = np.array([[step / spacing[1], 0, 0], [0, step / spacing[0], 0]])
    middle, target = np.array([image.shape[1] - 1, image.shape[0] - 1]) / 2, np.array([size[0] - 1, size[1] - 1]) / 2
    matrix[:, 2] = middle - matrix[:, :2] @ target
    return _moved(values, matrix, size), _moved(np.ones_like(values), matrix, size)


def _moved(image: Floats, matrix: Matrix, size: tuple[int, int]) -> Floats:
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.float32)


def _start(fixed: Floats, moving: Floats) -> Matrix:
    """The best of no turn and the turn that the spectra tell, each with the shift that then fits, and with none."""
    height, width = fixed.shape
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    polar = [_polar(image * window) for image in (fixed, moving)]
    turn = cv2.phaseCorrelate(*polar)[0][1] * 180 / len(polar[0])
    best: Matrix = np.eye(2, 3)
    most = -2.0
    for angle in (0.0, turn, -turn):
        middle = (width - 1) / 2, (height - 1) / 2
        matrix = np.asarray(cv2.getRotationMatrix2D(middle, -angle, 1.0), np.float64)
        shift = cv2.phaseCorrelate(fixed * window, _moved(moving, matrix, (width, height)) * window)[0]
        for one in (shift, (0.0, 0.0)):
            tried = matrix.copy()
            tried[:, 2] += matrix[:, :2] @ np.array(one)
            like = _correlation(fixed, _moved(moving, tried, (width, height)), np.ones(fixed.shape, np.bool_))
            if like > most:
                best, most = tried, like
    return best


def _polar(image: Floats) -> Floats:
    """Logarithm of the spectrum, angle down (180 degrees), radius to the right, without the lowest frequencies."""
    side, longest = 256, max(image.shape)
    whole = np.zeros((longest, longest), np.float32)
    whole[: image.shape[0], : image.shape[1]] = image
    spectrum = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(cv2.resize(whole, (side, side)))))).astype(np.float32)
    angles = (np.arange(360) * np.pi / 360)[:, None]
    radii = np.linspace(6, side / 3, 128)[None, :]
    right = (side / 2 + radii * np.cos(angles)).astype(np.float32)
    down = (side / 2 + radii * np.sin(angles)).astype(np.float32)
    made = np.asarray(cv2.remap(spectrum, right, down, cv2.INTER_LINEAR), np.float32)
    return np.asarray(made - made.mean(axis=0, keepdims=True), np.float32)


def _refined(fixed: Floats, moving: Floats, start: Matrix, inside: Floats, seen: Floats) -> Matrix:
    """Raises BadMessage where the correlation does not converge, or the images have nothing in common."""
    found = np.asarray(start, np.float32)
    here, there = (inside > WHOLLY).astype(np.uint8), (seen > WHOLLY).astype(np.uint8)
    try:
        for smooth in (11, 5):
            made = cv2.findTransformECCWithMask(fixed, moving, here, there, found, cv2.MOTION_EUCLIDEAN, STEPS, smooth)[
                1
            ]
            found = np.asarray(made, np.float32)
    except cv2.error:
        raise BadMessage("not_registered", "convergence") from None
    if not np.isfinite(found).all():
        raise BadMessage("not_registered", "convergence")
    return np.asarray(found, np.float64)


def _similarity(one: Floats, other: Floats, where: NDArray[np.bool_]) -> Similarity:
    counts, _, _ = np.histogram2d(one[where], other[where], bins=BINS, range=((0, 1), (0, 1)))
    share = counts / max(1.0, counts.sum())
    alone = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
    there = share > 0
    information = float((share[there] * np.log2(share[there] / alone[there])).sum())
    return Similarity(_correlation(one, other, where), information)


def _correlation(one: Floats, other: Floats, where: NDArray[np.bool_]) -> float:
    if where.sum() < 2:
        return 0.0
    a, b = one[where] - one[where].mean(dtype=float), other[where] - other[where].mean(dtype=float)
    length = float(np.sqrt((a.astype(float) ** 2).sum() * (b.astype(float) ** 2).sum()))
    return float((a * b).sum(dtype=float) / length) if length > 0 else 0.0


def _gradient(image: Floats) -> Floats:
    calm = cv2.GaussianBlur(image, (0, 0), 1.0)
    return np.asarray(np.hypot(cv2.Sobel(calm, cv2.CV_32F, 1, 0), cv2.Sobel(calm, cv2.CV_32F, 0, 1)), np.float32)
