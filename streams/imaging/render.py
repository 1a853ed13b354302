"""A frame as a picture that a person looks at: windowed, and improved as asked. Pure; for a process of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from infra.errors import UsageError
from schemas.wire.dicom_header import numbers
from streams.imaging.describe import preview
from streams.imaging.display import Image, display, luminance, window_of
from streams.imaging.enhance import blur, clahe, edges, equalise
from streams.imaging.pixels import Pixels
from streams.imaging.register import Registration, Spacing, apply, register

STEPS = {"equalise": equalise, "clahe": clahe, "blur": blur, "edges": edges}


def render(file: BinaryIO, frame: int | None = None, window: str = "", steps: Sequence[str] = ()) -> bytes:
    """A PNG of the frame, counted from 1, by default the middle one. Raises BadMessage and UsageError."""
    image = picture(Pixels(file), frame, window, steps)
    return preview(image, max(image.shape[:2]))


def picture(pixels: Pixels, frame: int | None = None, window: str = "", steps: Sequence[str] = ()) -> Image:
    number = pixels.count // 2 if frame is None else frame - 1
    if not 0 <= number < pixels.count:
        raise UsageError(f"there are frames 1 to {pixels.count}")
    found = display(pixels.frame(number), pixels.attributes(number), window_of(window) if window else None)
    for step in steps:
        if step not in STEPS:
            raise UsageError(f"there is no {step}: take {', '.join(STEPS)}")
        found = STEPS[step](found)
    return found


def overlaid(prior: BinaryIO, follow_up: BinaryIO, frames: tuple[int | None, int | None]) -> tuple[Registration, bytes]:
    """A follow-up laid on its prior, and both in one picture: what is the same is grey. Raises BadMessage."""
    fixed, moving = (_measured(Pixels(file), frame) for file, frame in zip((prior, follow_up), frames, strict=True))
    found = register(fixed.image, moving.image, fixed.spacing, moving.spacing)
    shape = fixed.image.shape[0], fixed.image.shape[1]
    there = apply(moving.image, found, fixed.spacing, moving.spacing, shape)
    both = np.dstack([fixed.image, there, there]).astype(np.uint8)
    return found, preview(both, max(shape))


@dataclass(frozen=True, slots=True)
class _Measured:
    image: Image
    spacing: Spacing


def _measured(pixels: Pixels, frame: int | None) -> _Measured:
    number = pixels.count // 2 if frame is None else frame - 1
    if not 0 <= number < pixels.count:
        raise UsageError(f"there are frames 1 to {pixels.count}")
    ds = pixels.attributes(number)
    given = numbers(ds, "PixelSpacing") or numbers(ds, "ImagerPixelSpacing")
    spacing = (given[0], given[1]) if len(given) == 2 else (1.0, 1.0)
    return _Measured(luminance(display(pixels.frame(number), ds)), spacing)
