"""Text in pixels: found whatever its size and colour, blanked in any kind of image, and images without it untouched."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_files
from pydicom.dataset import Dataset

from streams.imaging import burned_in
from streams.imaging.burned_in import Box, around_regions, black, blank, clean, find
from streams.imaging.display import display
from streams.imaging.pixels import Pixels
from tests import images

WORD = "MERIDIAN PAULA"
Values = np.ndarray[Any, Any]


def written(image: Values, value: Any, size: int = 16, at: tuple[int, int] = (12, 60), word: str = WORD) -> Values:
    """Where the letters are; they are drawn into the image, `size` pixels high."""
    ink = np.zeros(image.shape[:2], np.uint8)
    cv2.putText(ink, word, at, cv2.FONT_HERSHEY_SIMPLEX, size / 22, 255, 1 if size < 24 else 2)
    image[ink > 127] = value
    return ink > 127


def covered(boxes: tuple[Box, ...], letters: Values) -> float:
    """Share of the letters' pixels that stand in a box."""
    return float(blank(letters.astype(np.uint8), boxes, 2)[letters].astype(float).mean() - 1)


def grey(size: int = 256) -> Values:
    return np.asarray(np.clip((images.body(size, 5) + 1000) / 8, 0, 255), np.uint8)


def slice_of(size: int = 256) -> Dataset:
    return images.ct(size=size)


def stored(ds: Dataset) -> Values:
    return np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns).copy()


@pytest.mark.parametrize("size", [10, 14, 20, 32])
@pytest.mark.parametrize("value", [255, 0])
def test_sizes(size: int, value: int) -> None:
    image = np.full((320, 420), 90, np.uint8)
    image[100:, 100:] = np.resize(grey(320), (220, 320))
    letters = written(image, value, size, word=WORD if size < 30 else "MERIDIAN")
    assert covered(find(image), letters) > 0.95


def test_turned() -> None:
    image = grey()
    for turned in (np.rot90(image), np.rot90(image, 3), image[::-1, ::-1]):
        assert not find(np.ascontiguousarray(turned))
    letters = written(image, 255)
    for quarters in (1, 2, 3):
        turned, there = np.ascontiguousarray(np.rot90(image, quarters)), np.rot90(letters, quarters)
        assert covered(find(turned), there) > 0.95


def test_colour() -> None:
    image = np.dstack([grey()] * 3)
    letters = written(image, (255, 220, 0))
    assert covered(find(image), letters) > 0.95


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "693_J2KR.dcm", "MR2_J2KI.dcm", "explicit_VR-UN.dcm"])
def test_organs_are_no_text(name: str) -> None:
    with open(get_testdata_files(name)[0], "rb") as file:
        pixels = Pixels(file)
        values, ds = pixels.frame(0), pixels.attributes(0)
    cleaned = clean(values, ds)
    assert cleaned.clean
    assert np.array_equal(cleaned.values, values)


def test_a_marker_of_the_side_stays() -> None:
    image = grey()
    written(image, 255, 24, word="L")
    assert find(image) == ()


@pytest.mark.parametrize("name", ["US1_J2KR.dcm", "gdcm-US-ALOKA-16.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm"])
def test_ultrasound_of_others(name: str) -> None:
    with open(get_testdata_files(name)[0], "rb") as file:
        pixels = Pixels(file)
        values, ds = pixels.frame(0), pixels.attributes(0)
    assert len(find(display(values, ds))) > 3
    cleaned = clean(values, ds)
    assert cleaned.clean
    assert find(display(cleaned.values, ds)) == ()


def test_clean_and_what_is_left() -> None:
    ds = slice_of()
    values = stored(ds)
    before = values.copy()
    letters = written(values, 4095)
    cleaned = clean(values, ds)
    assert cleaned.clean
    assert (cleaned.values[letters] == before.min()).mean() > 0.95
    outside = blank(np.zeros_like(values), cleaned.boxes, 1) == 0
    assert np.array_equal(cleaned.values[outside], values[outside])
    assert outside.mean() > 0.8
    assert cleaned.values.dtype == values.dtype


def test_not_clean_until_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ds, values = slice_of(), stored(slice_of())
    written(values, 4095)
    monkeypatch.setattr(burned_in, "READ_AGAIN", 0)
    assert not clean(values, ds).clean


@pytest.mark.parametrize("window", [(40, 80), (-600, 200), (3000, 200)])
def test_what_no_window_shows_is_found(window: tuple[int, int]) -> None:
    """White on bone, and both are white in the window."""
    ds = slice_of()
    values = stored(ds)
    values[:90] = 2400
    ds.WindowCenter, ds.WindowWidth = window
    letters = written(values, 3600)
    assert np.ptp(display(values, ds)[40:80].astype(int)) == 0, "nobody sees it"
    assert covered(clean(values, ds).boxes, letters) > 0.95


def test_what_is_black() -> None:
    ds, values = slice_of(), np.array([[3, 9], [5, 7]], np.int16)
    assert black(values, ds) == 3
    ds.PhotometricInterpretation = "MONOCHROME1"
    assert black(values, ds) == 9
    assert black(np.array([[np.nan, 2.5]]), slice_of()) == 2.5
    assert black(np.zeros((2, 2, 3), np.uint8), images.us()) == 0


def test_black_of_a_palette() -> None:
    ds = Dataset()
    ds.PhotometricInterpretation = "PALETTE COLOR"
    for colour, table in (("Red", [255, 0, 9]), ("Green", [255, 0, 0]), ("Blue", [255, 200, 0])):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [3, 0, 8])
        setattr(ds, f"{colour}PaletteColorLookupTableData", bytes([*table, 0]))
    ds.set_original_encoding(False, True)
    assert black(np.array([[0, 1], [2, 0]], np.uint8), ds) == 2
    assert black(np.array([[0, 1], [1, 0]], np.uint8), ds) == 1


def test_inverse_grey() -> None:
    ds = images.cr(size=256)
    values = stored(ds)
    letters = written(values, 0)
    cleaned = clean(values, ds)
    assert cleaned.clean
    assert (cleaned.values[letters] == values.max()).mean() > 0.95
    assert display(cleaned.values, ds)[letters].max() <= 5


def test_blank_at_the_edges() -> None:
    made = blank(np.ones((4, 5), np.uint8), [Box(-2, -2, 4, 3), Box(4, 3, 9, 9)], 0)
    assert made.tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]


def region(x0: int, y0: int, x1: int, y1: int, form: int = 1) -> Dataset:
    ds = Dataset()
    ds.RegionSpatialFormat, ds.RegionDataType = form, 1
    ds.RegionLocationMinX0, ds.RegionLocationMinY0, ds.RegionLocationMaxX1, ds.RegionLocationMaxY1 = x0, y0, x1, y1
    return ds


def test_around_the_regions() -> None:
    ds = images.us()
    ds.SequenceOfUltrasoundRegions = [region(1, 1, 2, 3), region(4, 2, 4, 2, form=3)]
    made = blank(np.ones((5, 6), np.uint8), around_regions(ds, (5, 6)), 0)
    wanted = np.zeros((5, 6), np.uint8)
    wanted[1:4, 1:3] = wanted[2, 4] = 1
    assert np.array_equal(made, wanted)


@pytest.mark.parametrize("one", [region(1, 1, 2, 3, form=3), region(90, 90, 99, 99), Dataset()])
def test_regions_that_say_nothing(one: Dataset) -> None:
    ds = images.us()
    ds.SequenceOfUltrasoundRegions = [one]
    assert around_regions(ds, (32, 32)) == ()


@pytest.mark.parametrize("shape", [(1, 1), (7, 4000), (8, 8), (9, 6000), (3000, 12), (2, 2, 3), (40, 40, 3)])
@pytest.mark.parametrize("value", [0, 255])
def test_shapes(shape: tuple[int, ...], value: int) -> None:
    assert find(np.full(shape, value, np.uint8)) == ()


def test_small_text_in_a_large_image() -> None:
    image = np.full((2200, 2600), 40, np.uint8)
    letters = written(image, 235, 14, at=(1990, 2100))
    assert covered(find(image), letters) > 0.95


def test_what_was_read_stays_here(capfd: pytest.CaptureFixture[str]) -> None:
    image = grey()
    written(image, 255)
    boxes = find(image)
    assert boxes
    said = capfd.readouterr()
    assert not [one for one in (repr(boxes), said.out, said.err) if "MERID" in one.upper() or "PAULA" in one.upper()]


def test_only_who_looks_for_text_loads_the_reader() -> None:
    code = "import sys, streams.imaging.export; print('rapidocr_onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"
