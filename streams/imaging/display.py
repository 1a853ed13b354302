"""Stored values as a person is to see them (PS3.3 C.11): modality LUT, VOI LUT or window, then 8 bits. Pure.

    values = modality(stored, ds)     units of the modality, for CT Hounsfield units
    image = display(stored, ds)       uint8, rows x columns, or rows x columns x 3 (RGB)

`ds` is the header that `Pixels.attributes(frame)` gives. Errors: BadMessage of `bad_pixels` for tables that are none,
UsageError for a window that a person mistyped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from infra.errors import BadMessage, UsageError

Values = NDArray[Any]
Image = NDArray[np.uint8]
DARKEST, BRIGHTEST = 1.0, 99.0  # percentiles that are shown, where no window is given
ROWS = 256  # of an image at a time
ENOUGH = 1 << 22  # values that tell the percentiles of all
TABLE = 1 << 17  # stored values are few: what becomes of each is worked out once, up to so many of them
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")  # (0028,1056)


@dataclass(frozen=True, slots=True)
class Window:
    """What is shown of the values, centre and width in units of the modality (PS3.3 C.11.2.1.2)."""

    centre: float  # (0028,1050)
    width: float  # (0028,1051), at least 1 of LINEAR, more than 0 of the others
    function: str = "LINEAR"  # (0028,1056)
    explanation: str = ""  # (0028,1055)

    @property
    def valid(self) -> bool:
        least = self.width >= 1 if self.function == "LINEAR" else self.width > 0
        return self.function in FUNCTIONS and bool(np.isfinite([self.centre, self.width]).all()) and least


PRESETS = {  # CT, in HU, as radiology teaches them (Radiopaedia, "Windowing (CT)", rID 52108)
    "brain": Window(40, 80),
    "subdural": Window(75, 215),
    "stroke": Window(40, 40),
    "temporal_bones": Window(600, 2800),
    "soft_tissue": Window(40, 375),
    "lung": Window(-600, 1500),
    "mediastinum": Window(50, 350),
    "abdomen": Window(50, 400),
    "liver": Window(30, 150),
    "spine": Window(50, 250),
    "bone": Window(400, 1800),
}


def window_of(text: str) -> Window:
    """A preset by its name, or `centre/width`. Raises UsageError."""
    if text.lower() in PRESETS:
        return PRESETS[text.lower()]
    if found := re.fullmatch(r"(-?\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", text.strip()):
        window = Window(float(found[1]), float(found[2]))
        if window.valid:
            return window
    raise UsageError(f"a window is centre/width (40/400), or one of {', '.join(PRESETS)}")


def window_values(ds: Dataset) -> tuple[Window, ...]:
    """The windows that a header offers, in its order, without those that mean nothing."""
    centres, widths = _many(ds, "WindowCenter"), _many(ds, "WindowWidth")
    function = str(ds.get("VOILUTFunction") or "LINEAR").upper()
    said = ds.get("WindowCenterWidthExplanation") or []
    names = [said] if isinstance(said, str) else [str(one) for one in said]
    names += [""] * len(centres)
    found = [Window(centre, width, function, name) for centre, width, name in zip(centres, widths, names, strict=False)]
    return tuple(window for window in found if window.valid)


def modality(values: Values, ds: Dataset) -> Values:
    """Units of the modality (C.11.1): a table, or slope and intercept; as they are where the header has neither."""
    if sequence := _sequence(ds, "ModalityLUTSequence"):
        return _looked_up(values, sequence[0], ds)
    slope, intercept = _many(ds, "RescaleSlope"), _many(ds, "RescaleIntercept")
    return values * slope[0] + intercept[0] if slope and intercept else values


def windowed(values: Values, window: Window, low: float, high: float) -> NDArray[np.float64]:
    """Values of the modality between `low` and `high`, as the window's function has it (C.11.2.1.2, C.11.2.1.3)."""
    if not window.valid:
        raise BadMessage("bad_pixels", "WindowWidth")
    x, centre, width = np.asarray(values, float), window.centre, window.width
    if window.function == "SIGMOID":
        with np.errstate(over="ignore"):
            return np.asarray((high - low) / (1 + np.exp(-4 * (x - centre) / width)) + low)
    if window.function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        y = ((x - centre) / width + 0.5) * (high - low) + low
    return np.select([x <= centre - width / 2, x > centre + width / 2], [low, high], y)


def voi_lut(values: Values, ds: Dataset, index: int = 0) -> Values:
    """Values of the modality through a table of the VOI LUT Sequence (0028,3010)."""
    sequence = _sequence(ds, "VOILUTSequence")
    if index >= len(sequence):
        raise BadMessage("bad_pixels", "VOILUTSequence")
    return _looked_up(values, sequence[index], ds)


def palette(values: Values, ds: Dataset) -> Image:
    """Colours of an image of indices (C.7.6.3.1.5): one below the first entry has the first, one beyond the last the
    last."""
    entries, first, bits = _descriptor(ds, "RedPaletteColorLookupTableDescriptor")
    if bits not in (8, 16):
        raise BadMessage("bad_pixels", "RedPaletteColorLookupTableDescriptor")
    index = np.clip(values.astype(np.int64) - first, 0, entries - 1)
    tables = []
    for colour in ("Red", "Green", "Blue"):
        whole, parts = (ds.get(f"{kind}{colour}PaletteColorLookupTableData") for kind in ("", "Segmented"))
        table = _unsegmented(_words(parts, ds, wide=bits == 16), entries) if parts else _entries(whole, ds, entries)
        if len(table) < entries:
            raise BadMessage("bad_pixels", f"{colour}PaletteColorLookupTableData")
        tables.append(table[:entries])
    rgb = np.stack(tables, axis=-1)
    return np.asarray(rgb >> 8 if rgb.max() > 255 else rgb, np.uint8)[index]


def display(values: Values, ds: Dataset, window: Window | int | None = None) -> Image:
    """8 bits to look at, of a frame's stored values.

    `window`: one of one's own, or the number of one of the header's. Without it the header's VOI LUT counts, then its
    first window, then what the values themselves span. Colour is shown as it is.
    """
    if values.ndim == 3:
        return _eight_bits(values, ds)
    if str(ds.get("PhotometricInterpretation", "")) == "PALETTE COLOR":
        return palette(values, ds)
    shown = measured(values, ds)
    if not shown.size:
        return np.zeros(values.shape, np.uint8)
    inverse = inverted(ds)

    def grey(stored: Values) -> Image:
        made = _grey(stored, shown, ds, window)
        return np.asarray(255 - made if inverse else made, np.uint8)

    low, high = (int(values.min()), int(values.max())) if values.dtype.kind in "iu" else (0, TABLE)
    of_each = grey(np.arange(low, high + 1, dtype=np.int64)) if high - low < TABLE else None
    image = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), ROWS):  # in between a value takes 8 bytes and more
        part = values[row : row + ROWS]
        image[row : row + ROWS] = grey(np.nan_to_num(part)) if of_each is None else of_each[part.astype(np.int64) - low]
    image[padded(values, ds)] = 0
    return image


def inverted(ds: Dataset) -> bool:
    """Whether the lowest values are the brightest (C.7.6.3.1.2, C.11.6)."""
    return str(ds.get("PhotometricInterpretation")) == "MONOCHROME1" or str(ds.get("PresentationLUTShape")) == "INVERSE"


def luminance(image: Image) -> Image:
    """Y of Y'CbCr of an RGB image (ITU-R BT.601); a grey one as it is."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) if image.ndim == 3 else image


def measured(values: Values, ds: Dataset) -> Values:
    """Stored values that were measured, in one row: neither padding nor what is no number; of many every so-manieth."""
    kept = values[~padded(values, ds)]
    kept = kept[:: len(kept) // ENOUGH + 1]
    return kept[np.isfinite(kept)] if kept.dtype.kind == "f" else kept


def padded(values: Values, ds: Dataset) -> NDArray[np.bool_]:
    """Which stored values stand for nothing (C.7.5.1.1.2): (0028,0120), up to (0028,0121) where there is a range."""
    bounds = [*_many(ds, "PixelPaddingValue")[:1], *_many(ds, "PixelPaddingRangeLimit")[:1]]
    if not bounds:
        return np.zeros(values.shape, np.bool_)
    if values.dtype.kind == "i":  # some write it as the unsigned number of the same bits
        bits = 8 * values.dtype.itemsize
        bounds = [one - (1 << bits) if one >= 1 << (bits - 1) else one for one in bounds]
    return np.asarray((values >= min(bounds)) & (values <= max(bounds)))


def _grey(stored: Values, shown: Values, ds: Dataset, window: Window | int | None) -> NDArray[np.float64]:
    values = modality(stored, ds)
    if window is None and (sequence := _sequence(ds, "VOILUTSequence")):
        most = float(2 ** _descriptor(sequence[0], "LUTDescriptor")[2] - 1)
        return np.clip(np.rint(voi_lut(values, ds) * (255 / most)), 0, 255)
    offered = window_values(ds)
    if isinstance(window, int):
        if window >= len(offered):
            raise BadMessage("bad_pixels", "WindowCenter")
        window = offered[window]
    if window is None:
        window = offered[0] if offered else _span(modality(shown, ds))
    return np.rint(windowed(values, window, 0, 255))


def _span(values: Values) -> Window:
    low, high = np.percentile(values, (DARKEST, BRIGHTEST))
    if low == high:
        low, high = values.min(), values.max()
    return Window(float(low / 2 + high / 2), float(high - low) or 1.0, "LINEAR_EXACT")


def _eight_bits(values: Values, ds: Dataset) -> Image:
    if values.dtype.kind == "f":
        raise BadMessage("bad_pixels", "Samples per Pixel")
    bits = _many(ds, "BitsStored")
    shift = max(0, int(bits[0] if bits else 8 * values.dtype.itemsize) - 8)
    return np.asarray(np.clip(values >> shift, 0, 255), np.uint8)


def _looked_up(values: Values, item: Dataset, ds: Dataset) -> Values:
    """Values below the first entry have the first, those beyond the last the last (C.11.1.1)."""
    entries, first, bits = _descriptor(item, "LUTDescriptor")
    table = _entries(item.get("LUTData"), ds, entries)
    if len(table) < entries or not 1 <= bits <= 16:
        raise BadMessage("bad_pixels", "LUTData")
    return np.asarray(table[np.clip(np.floor(values) - first, 0, entries - 1).astype(np.int64)])


def _descriptor(ds: Dataset, keyword: str) -> tuple[int, int, int]:
    """Entries (0 stands for 65,536), first value mapped, bits of an entry (C.11.1.1.1)."""
    said = _many(ds, keyword)
    if len(said) != 3:
        raise BadMessage("bad_pixels", keyword)
    entries, first, bits = (int(one) for one in said)
    return entries % (1 << 16) or 1 << 16, first, bits


def _entries(data: Any, ds: Dataset, entries: int) -> Values:
    """A table's entries, as numbers of 16 bits; of 8 where they are packed so (C.7.6.3.1.6)."""
    packed = isinstance(data, bytes) and len(data) == entries + entries % 2
    return _words(data, ds, wide=not packed)[:entries]


def _words(data: Any, ds: Dataset, *, wide: bool) -> Values:
    """Numbers of a value of US or OW, which is words in the order of the data set even where it holds bytes."""
    try:
        if not isinstance(data, bytes):
            return np.asarray(data, np.int64).reshape(-1).astype(np.uint16)
        words = np.frombuffer(data, "<u2" if ds.original_encoding[1] in (True, None) else ">u2").astype("<u2")
        return words if wide else words.view("u1")
    except (ValueError, TypeError, OverflowError):
        raise BadMessage("bad_pixels", "LUTData") from None


def _unsegmented(words: Values, entries: int) -> Values:
    """The table that discrete, linear and indirect segments make (C.7.9.2), as far as it has entries.

    An indirect segment repeats discrete and linear ones only: so nothing grows beyond the table, whatever they say.
    """
    table = np.zeros(entries, np.uint16)
    at = made = 0
    back: tuple[int, int] | None = None  # where to go on after so many segments that are repeated
    while made < entries and at + 1 < len(words):
        code, count = int(words[at]), int(words[at + 1])
        if not count:
            raise BadMessage("bad_pixels", "SegmentedPaletteColorLookupTableData")
        at += 2
        room = min(count, entries - made)
        if code == 0 and at + count <= len(words):
            table[made : made + room] = words[at : at + room]
            at, made = at + count, made + room
        elif code == 1 and made and at < len(words):
            before, after = int(table[made - 1]), int(words[at])
            steps = np.arange(1, room + 1) / count
            table[made : made + room] = np.rint(before + (after - before) * steps)
            at, made = at + 1, made + room
        elif code == 2 and made and back is None and at + (size := 4 // words.itemsize) <= len(words):
            offset = int.from_bytes(words[at : at + size].tobytes(), "little")
            back, at = (at + size, count + 1), offset // words.itemsize  # it counts itself
        else:
            raise BadMessage("bad_pixels", "SegmentedPaletteColorLookupTableData")
        if back is not None:
            back = back[0], back[1] - 1
            if not back[1]:
                at, back = back[0], None
    return table[:made]


def _many(ds: Dataset, keyword: str) -> list[float]:
    """Numbers of an element; none where one of them is no number."""
    try:
        value = ds.get(keyword)
        if value is None or value == "":
            return []
        numbers = [
            float(one) for one in (value if isinstance(value, list | tuple) or hasattr(value, "append") else [value])
        ]
    except (ValueError, TypeError, OverflowError):
        return []
    return numbers if np.isfinite(numbers).all() else []


def _sequence(ds: Dataset, keyword: str) -> list[Dataset]:
    found = ds.get(keyword)
    return [one for one in found if "LUTDescriptor" in one and "LUTData" in one] if found else []
