"""What is kept of an image's pixels: numbers, a vector, a small picture. Pure, and for a limited process."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import BinaryIO

import cv2
import numpy as np

from streams.imaging.display import Image, display
from streams.imaging.embedding import embed
from streams.imaging.pixels import Pixels, bad
from streams.imaging.quality import Quality, quality

PREVIEW = 256  # pixels of the longer side, at most


@dataclass(frozen=True, slots=True)
class Described:
    """`quality` has the fields of schemas.imaging.Image that are numbers; `preview` is a PNG."""

    quality: Quality
    embedding: tuple[float, ...] = field(repr=False)
    preview: bytes = field(repr=False)
    frames: int = 1
    processing: str = "done"


def describe(file: BinaryIO | io.RawIOBase) -> Described:
    """Of a Part 10 file, left open. Of many frames the middle one. Raises BadMessage as `Pixels` does."""
    pixels = Pixels(file)
    middle = pixels.count // 2
    stored, ds = pixels.frame(middle), pixels.attributes(middle)
    with bad("header"):  # what is shown depends on attributes that nobody has looked at yet
        image = display(stored, ds)
        figures = quality(stored, ds, image)
    return Described(figures, embed(image), preview(image), pixels.count)


def preview(image: Image, longest: int = PREVIEW) -> bytes:
    """PNG of an 8-bit image, grey or RGB, made smaller where it is larger than `longest`."""
    share = min(1.0, longest / max(image.shape[:2]))
    if share < 1:
        size = max(1, round(image.shape[1] * share)), max(1, round(image.shape[0] * share))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    made: bytes = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()
    return made
