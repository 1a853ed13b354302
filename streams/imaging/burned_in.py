"""Text that is burned into pixels: looked for, blanked, looked for again. Pure; for a process of the pool.

    boxes = find(image)                     of an 8-bit image
    cleaned = clean(values, ds)             of a frame's stored values: cleaned.values, cleaned.clean, cleaned.boxes

Text is found by OCR (RapidOCR: PP-OCRv4, whose weights are in its package), which is loaded once a process and at the
first use: half a second. A single letter is no text: a marker of the side stays, and so does the C that a vessel looks
like. What was read is used here and goes nowhere.

Nothing found is no proof: of 309 words (names, dates, numbers; 10 to 40 pixels high; white, black, boxed, outlined,
faint, upright and turned) drawn into 14 images of pydicom's files, 93.9% were covered, of the faint ones 73.8%, and
in 6 of 84 pictures a word stayed less than half covered though nothing was found at the last look
(tests/bench/burned_in.py, seed 20261; views and thresholds were chosen on the same images).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from schemas.wire.dicom_header import items, number
from streams.imaging.display import Image, Values, display, inverted, luminance, modality, palette

READ_AGAIN = 3  # times that a frame is blanked and looked at again, at most
LEAST_SCORE = 0.4  # of the recogniser: below it the letters are vessels and ribs
LETTERS = 2  # of a text, at least
SURE, LARGE = 0.8, 1 / 8  # of what is higher than so much of the image it must be surer: organs are large
SIGN = "\u2e80"  # and of a single Chinese sign, which may be half a name; here they begin
GROWN = 0.6  # of its height a box is made larger on each side, since the ends of words are lost
GROWN_PIXELS = 2
SMALLEST = 8  # pixels: no letter is legible in less
LARGEST_UPSCALING = 6.0
FINE, COARSE = 1024, 736  # an image is read at so many pixels squared: small letters need the first
TILE, OVERLAP = 1024, 128  # pixels: what is larger is also read in pieces, as it is
REGIONS = 64  # of one ultrasound image


@dataclass(frozen=True, slots=True)
class Box:
    """Where a text stands, in pixels from the top left corner, and how sure the recogniser was, 0 to 1."""

    x: int
    y: int
    width: int
    height: int
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`clean`: the last look found nothing. `values` has the type and the shape that it had before."""

    values: Values = field(repr=False)
    boxes: tuple[Box, ...]
    clean: bool


def find(image: Image, whole: NDArray[Any] | None = None) -> tuple[Box, ...]:
    """Text in an image of 8 bits, rows x columns or rows x columns x 3 (RGB).

    It is read upright and fine, turned by 90 degrees and inverted, and with its contrast levelled: each finds what the
    others miss. `whole`: the same as 8 or 16 bits over the whole range of its values, where the image shows a window.
    """
    if min(image.shape[:2]) < SMALLEST:
        return ()
    grey = luminance(image)
    found = [
        *_read(image, FINE),
        *_turned_back(_read(np.rot90(255 - grey), COARSE), image.shape[1]),
        *_read(_levelled(grey if whole is None else whole), COARSE),
    ]
    if max(image.shape[:2]) > TILE + OVERLAP:
        for x, y, tile in _tiles(image):
            found += [Box(box.x + x, box.y + y, box.width, box.height, box.score) for box in _read(tile, FINE)]
    return tuple(_grown(box, image.shape) for box in found)


def blank(values: Values, boxes: Iterable[Box], fill: int | float | tuple[int, ...]) -> Values:
    """A copy of the stored values with the boxes filled."""
    made = values.copy()
    for box in boxes:
        made[max(0, box.y) : box.y + box.height, max(0, box.x) : box.x + box.width] = fill
    return made


def black(values: Values, ds: Dataset) -> int | float:
    """What a blanked box is filled with: the darkest stored value of the frame, so that no window changes by it.

    Of MONOCHROME1 and of an inverse presentation the largest one is dark (PS3.3 C.7.6.3.1.2); colour is RGB here.
    """
    if values.ndim == 3:
        return 0
    if str(ds.get("PhotometricInterpretation", "")) == "PALETTE COLOR":
        present = np.unique(values)
        return int(present[luminance(palette(present[np.newaxis], ds))[0].argmin()])
    some = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not some.size:
        return 0
    dark: int | float = (some.max() if inverted(ds) else some.min()).item()
    return dark


def clean(values: Values, ds: Dataset) -> Cleaned:
    """Blank the text of a frame (`Pixels.frame`) by what is seen of it, and look again, until nothing is found.

    Around the regions of an ultrasound everything goes: there its text stands. Raises BadMessage as `display` does.
    """
    fill = black(values, ds)
    boxes = list(around_regions(ds, values.shape))
    values = blank(values, boxes, fill)
    for _ in range(READ_AGAIN + 1):
        found = find(display(values, ds), _whole(values, ds))
        if not found:
            return Cleaned(values, tuple(boxes), clean=True)
        boxes += found
        values = blank(values, found, fill)
    return Cleaned(values, tuple(boxes), clean=False)


def around_regions(ds: Dataset, shape: tuple[int, ...]) -> tuple[Box, ...]:
    """All that is in none of the Sequence of Ultrasound Regions (0018,6011), PS3.3 C.8.5.5; nothing without a 2D one:
    a calibrated ECG alone does not say where the image is."""
    regions = [region for one in items(ds, "SequenceOfUltrasoundRegions")[:REGIONS] if (region := _region(one, shape))]
    if not any(number(one, "RegionSpatialFormat") == 1 for one in items(ds, "SequenceOfUltrasoundRegions")[:REGIONS]):
        return ()
    if not regions:
        return ()
    rows, columns = shape[:2]
    xs = sorted({0, columns, *(edge for x0, _, x1, _ in regions for edge in (x0, x1))})
    ys = sorted({0, rows, *(edge for _, y0, _, y1 in regions for edge in (y0, y1))})
    return tuple(
        Box(left, top, right - left, bottom - top)
        for top, bottom in pairwise(ys)
        for left, right in pairwise(xs)
        if not any(x0 <= left and right <= x1 and y0 <= top and bottom <= y1 for x0, y0, x1, y1 in regions)
    )


def _region(one: Dataset, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom; the last two are behind it. None where it has no extent in the frame."""
    said = [number(one, f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
    if any(edge is None for edge in said):
        return None
    x0, y0, x1, y1 = (int(edge or 0) for edge in said)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(shape[1], x1 + 1), min(shape[0], y1 + 1)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _whole(values: Values, ds: Dataset) -> NDArray[np.uint16] | None:
    """Grey over all its values, so that what no window shows is seen as well: text may be whiter than bone."""
    if values.ndim == 3 or str(ds.get("PhotometricInterpretation", "")) == "PALETTE COLOR":
        return None
    some = np.nan_to_num(np.asarray(modality(values, ds), np.float64))
    low, high = some.min(), some.max()
    return np.asarray((some - low) / ((high - low) or 1.0) * 65535, np.uint16)


def _levelled(grey: NDArray[Any]) -> Image:
    made = np.asarray(cv2.createCLAHE(3.0, (8, 8)).apply(np.ascontiguousarray(grey)))
    return np.asarray(made // 256 if made.dtype == np.uint16 else made, np.uint8)


def _tiles(image: Image) -> Iterator[tuple[int, int, Image]]:
    rows, columns = image.shape[:2]
    for y in range(0, max(1, rows - OVERLAP), TILE - OVERLAP):
        for x in range(0, max(1, columns - OVERLAP), TILE - OVERLAP):
            yield x, y, image[y : y + TILE, x : x + TILE]


def _read(image: Image, side: int) -> list[Box]:
    """Boxes of the text in an image that is made about `side` pixels squared for it."""
    rows, columns = image.shape[:2]
    scale = min(LARGEST_UPSCALING, side / (rows * columns) ** 0.5)
    size = max(SMALLEST, round(columns * scale)), max(SMALLEST, round(rows * scale))
    colour = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR)
    resized = cv2.resize(colour, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    read, _ = _reader()(resized, box_thresh=LEAST_SCORE, text_score=LEAST_SCORE)
    found = []
    for corners, text, score in read or ():
        points = np.asarray(corners) * (columns / size[0], rows / size[1])
        large = bool(np.ptp(points, 0).min() > LARGE * min(rows, columns))
        if not _is_text(text, float(score), large):
            continue
        (left, top), (right, bottom) = np.floor(points.min(0)).astype(int), np.ceil(points.max(0)).astype(int)
        found.append(Box(int(left), int(top), int(right - left), int(bottom - top), round(float(score), 3)))
    return found


def _is_text(text: str, score: float, large: bool) -> bool:
    letters = [one for one in text if one.isalnum()]
    if len(letters) < LETTERS:
        return score >= SURE and not large and any(one >= SIGN for one in letters)
    return score >= SURE or not large


def _turned_back(boxes: list[Box], columns: int) -> list[Box]:
    """Boxes of numpy's `rot90` as they are in the image that it turned."""
    return [Box(columns - box.y - box.height, box.x, box.height, box.width, box.score) for box in boxes]


def _grown(box: Box, shape: tuple[int, ...]) -> Box:
    more = GROWN_PIXELS + round(GROWN * min(box.width, box.height))
    left, top = max(0, box.x - more), max(0, box.y - more)
    right, bottom = min(shape[1], box.x + box.width + more), min(shape[0], box.y + box.height + more)
    return Box(left, top, right - left, bottom - top, box.score)


@cache
def _reader() -> Any:
    """One thread: a pool has a process for each core."""
    from rapidocr_onnxruntime import RapidOCR  # it and ONNX Runtime take half a second to import

    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL + 1)
    sides = {"det_limit_side_len": 32, "det_limit_type": "min", "max_side_len": 1 << 16}  # images come as they are read
    sides["width_height_ratio"] = -1  # else it makes 6000 x 9 a thousand times larger
    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1, **sides)
