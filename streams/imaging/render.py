"""A frame as a picture that a person looks at: windowed, and improved as asked. Pure; for a process of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from infra.errors import UsageError
from streams.imaging.describe import preview
from streams.imaging.display import Image, display, window_of
from streams.imaging.enhance import blur, clahe, edges, equalise
from streams.imaging.pixels import Pixels

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
