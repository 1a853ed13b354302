"""Modality and VOI: equal to pydicom's on real files and over a grid; the 8-bit image known by hand."""

from __future__ import annotations

import io
import itertools
import struct

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing

from infra.errors import BadMessage, UsageError
from streams.imaging.display import (
    PRESETS,
    Window,
    display,
    modality,
    padded,
    palette,
    voi_lut,
    window_of,
    window_values,
    windowed,
)
from streams.imaging.pixels import Pixels
from tests.imaging_files import files, header, opened


def stored_range(ds: Dataset) -> tuple[float, float]:
    """Between which values pydicom's windowing spreads: what can be stored, in units of the modality."""
    if ds.get("ModalityLUTSequence"):
        return 0, 2 ** ds.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    bits = ds.BitsStored
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if ds.PixelRepresentation else (0, 2**bits - 1)
    slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept


def test_every_real_file_equals_pydicom_before_it_is_made_8_bits() -> None:
    seen = {"modality": 0, "window": 0, "voi_lut": 0, "palette": 0}
    for path in files().values():
        try:
            pixels = Pixels(io.BytesIO(path.read_bytes()))
            values, ds = pixels.frame(pixels.count // 2), pixels.attributes(pixels.count // 2)
        except BadMessage:
            continue
        image = display(values, ds)
        assert image.dtype == np.uint8
        assert image.shape[:2] == values.shape[:2]
        if values.ndim == 3:
            continue
        if ds.PhotometricInterpretation == "PALETTE COLOR":
            if pixels.syntax != "1.2.840.10008.1.2.2":  # pydicom does not turn the words of a big endian palette
                wanted = apply_color_lut(values, ds)[..., :3]
                assert np.array_equal(image, wanted >> 8 if wanted.dtype == np.uint16 else wanted)
                seen["palette"] += 1
            continue
        units = apply_modality_lut(values, ds)
        assert np.array_equal(modality(values, ds), units)
        seen["modality"] += 1
        for index, window in enumerate(window_values(ds)):
            wanted = apply_windowing(units, ds, index)
            assert np.allclose(windowed(units, window, *stored_range(ds)), wanted, rtol=1e-12, atol=1e-9)
            seen["window"] += 1
        if ds.get("VOILUTSequence"):
            assert np.array_equal(voi_lut(units, ds), apply_voi(units, ds))
            seen["voi_lut"] += 1
    assert all(seen.values())
    assert seen["window"] > 60


def test_a_palette_shows_the_same_in_both_byte_orders() -> None:
    for little, big in (("OBXXXX1A.dcm", "OBXXXX1A_expb.dcm"), ("gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm")):
        images = [display(one.frame(0), one.attributes(0)) for one in (opened(little), opened(big))]
        assert np.array_equal(*images)
        assert images[0].std() > 10


GRID = list(
    itertools.product(
        ("LINEAR", "LINEAR_EXACT", "SIGMOID"), (-600.0, 0.0, 40.5, 1900.0), (1.0, 2.0, 400.0, 4096.0), (0, 1), (12, 16)
    )
)


@pytest.mark.parametrize(("function", "centre", "width", "signed", "bits"), GRID)
def test_windows_equal_pydicom(function: str, centre: float, width: float, signed: int, bits: int) -> None:
    ds = header(BitsStored=bits, PixelRepresentation=signed, RescaleSlope="1.5", RescaleIntercept="-1024")
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = centre, width, function
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.linspace(low, low + 2**bits - 1, 4096).astype("i4" if signed else "u4")
    units = apply_modality_lut(values, ds)
    (window,) = window_values(ds)
    assert window == Window(centre, width, function)
    with np.errstate(all="ignore"):
        wanted = apply_windowing(units, ds)
    assert np.allclose(windowed(units, window, *stored_range(ds)), wanted, rtol=1e-12, atol=1e-7)
    other = windowed(units, Window(centre - 300, width, function), *stored_range(ds))
    assert not np.allclose(other, wanted, rtol=1e-12, atol=1e-7)


def test_the_standards_own_example_of_a_linear_window() -> None:
    """PS3.3 C.11.2.1.2.1: centre 2048, width 4096, to 0..255."""
    x = np.array([0, 2047, 2048, 4095])
    wanted = [0, (2047 - 2047.5) / 4095 * 255 + 127.5, (2048 - 2047.5) / 4095 * 255 + 127.5, 255]
    assert np.allclose(windowed(x, Window(2048, 4096), 0, 255), wanted)


def test_several_windows_have_their_explanations_and_nonsense_is_none() -> None:
    ds = header(WindowCenter=[40, -600, 5], WindowWidth=[400, 1500, 0])
    ds.WindowCenterWidthExplanation = ["MEDIASTINUM", "LUNG", "BAD"]
    assert window_values(ds) == (Window(40, 400, "LINEAR", "MEDIASTINUM"), Window(-600, 1500, "LINEAR", "LUNG"))
    assert window_values(header()) == ()
    ds.VOILUTFunction = "NONSENSE"
    assert window_values(ds) == ()


def test_8_bits_of_a_ct_are_known_by_hand() -> None:
    ds = header(RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=81)
    values = np.array([[0, 1024, 1064, 1104, 1105, 4095]], np.uint16)  # -1024, 0, 40, 80, 81, 3071 HU
    assert display(values, ds).tolist() == [[0, 2, 129, 255, 255, 255]]  # (0 - 39.5) / 80 + 0.5 = 0.00625 of 255
    assert display(values, ds, Window(0, 2000, "LINEAR_EXACT")).tolist() == [[0, 128, 133, 138, 138, 255]]
    assert display(values, ds, 0).tolist() == display(values, ds).tolist()
    ds.PhotometricInterpretation = "MONOCHROME1"
    assert display(values, ds).tolist() == [[255, 253, 126, 0, 0, 0]]
    ds.PhotometricInterpretation, ds.PresentationLUTShape = "MONOCHROME2", "INVERSE"
    assert display(values, ds).tolist() == [[255, 253, 126, 0, 0, 0]]


def test_the_table_of_stored_values_gives_what_each_pixel_would() -> None:
    pixels = opened("CT_small.dcm")
    values, ds = pixels.frame(0), pixels.attributes(0)
    wide = values.astype(np.float64)  # takes the other way
    for window in (PRESETS["brain"], Window(0, 3000, "SIGMOID"), None):
        assert np.array_equal(display(values, ds, window), display(wide, ds, window))


def test_without_a_window_the_percentiles_span_it_and_padding_does_not_count() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(1000, 2000, (64, 64)).astype(np.int16)
    values[:20] = -2000
    ds = header(PixelRepresentation=1, PixelPaddingValue=-2000 & 0xFFFF)
    image = display(values, ds)
    assert not image[:20].any()
    assert padded(values, ds)[:20].all()
    assert abs(float(np.median(image[20:])) - 127.5) < 12
    del ds.PixelPaddingValue
    assert np.median(display(values, ds)[20:]) > 200


def test_values_that_are_no_numbers_are_dark() -> None:
    values = np.linspace(0, 1, 64).reshape(8, 8)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -np.inf
    ds = header()
    image = display(values, ds)
    assert image[0, 0] == 0
    assert image[7, 7] == 255
    assert not display(np.full((8, 8), np.nan), ds).any()


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_an_image_of_one_value_has_one_grey(value: int) -> None:
    assert np.ptp(display(np.full((8, 8), value, np.uint16), header())) == 0


def table(first: int = 0, entries: int = 4, bits: int = 16) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US" if first >= 0 else "SS", [entries, first, bits])
    item.add_new(0x00283006, "US", [10, 20, 30, 40])
    return item


def test_tables_hold_at_their_ends() -> None:
    ds = header(ModalityLUTSequence=[table(5)])
    assert modality(np.array([0, 5, 6, 8, 9, 65535]), ds).tolist() == [10, 10, 20, 40, 40, 40]
    ds = header(VOILUTSequence=[table(-1)])
    assert voi_lut(np.array([-7, -1, 0, 2, 3]), ds).tolist() == [10, 10, 20, 40, 40]
    with pytest.raises(BadMessage, match="bad_pixels"):
        voi_lut(np.array([0]), ds, 1)


@pytest.mark.parametrize("entries", [5, 0])  # 0 stands for 65,536
def test_a_table_that_is_shorter_than_it_says_is_bad(entries: int) -> None:
    with pytest.raises(BadMessage, match="bad_pixels at LUTData"):
        modality(np.array([0]), header(ModalityLUTSequence=[table(entries=entries)]))


def coloured(entries: int, first: int, **data: bytes) -> Dataset:
    ds = header(BitsAllocated=8, BitsStored=8, HighBit=7, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [entries, first, 16])
        for kind, value in data.items():
            setattr(ds, f"{kind}{colour}PaletteColorLookupTableData", value)
    ds.set_original_encoding(False, True)
    return ds


def test_an_index_out_of_the_palette_has_the_colour_at_its_end() -> None:
    words = np.array([0, 0x4000, 0x8000, 0xFF00], "<u2").tobytes()
    ds = coloured(4, 2, **{"": words})
    image = palette(np.array([[0, 2, 3, 5, 6, 255]], np.uint8), ds)
    assert image[0, :, 0].tolist() == [0, 0, 0x40, 0xFF, 0xFF, 0xFF]
    with pytest.raises(BadMessage, match="RedPaletteColorLookupTableData"):
        palette(np.zeros((1, 1), np.uint8), coloured(5, 2, **{"": words}))
    with pytest.raises(BadMessage, match="Descriptor"):
        palette(np.zeros((1, 1), np.uint8), header(PhotometricInterpretation="PALETTE COLOR"))


def test_segments_of_a_palette_are_expanded_no_further_than_it_is_long() -> None:
    """PS3.3 C.7.9.2: two as they are, a line of four, then both once more."""
    words = [0, 2, 0x0100, 0x0200, 1, 4, 0x0600, 2, 2, 0, 0]
    ds = coloured(12, 0, Segmented=struct.pack(f"<{len(words)}H", *words))
    image = palette(np.arange(12, dtype=np.uint8)[None], ds)
    assert image[0, :, 1].tolist() == [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]
    bomb = [0, 1, 0x0100] + [1, 65535, 0x0200] * 20_000
    many = coloured(256, 0, Segmented=struct.pack(f"<{len(bomb)}H", *bomb))
    assert palette(np.full((1, 1), 255, np.uint8), many)[0, 0, 0] == 1


@pytest.mark.parametrize(
    "words",
    [
        [1, 4, 5],  # a line from nowhere
        [2, 1, 0, 0],  # the repetition of nothing
        [3, 1, 1],
        [0, 9, 1],  # more than there is
        [0, 0, 1, 0],
        [0, 1, 1, 2, 1, 6, 0],  # the repetition of itself
    ],
)
def test_segments_that_are_none_are_bad(words: list[int]) -> None:
    ds = coloured(12, 0, Segmented=struct.pack(f"<{len(words)}H", *words))
    with pytest.raises(BadMessage, match="bad_pixels"):
        palette(np.zeros((1, 1), np.uint8), ds)


def test_colour_of_16_bits_is_shown_by_its_upper_8() -> None:
    values = np.full((2, 2, 3), 0xAB12, np.uint16)
    assert (display(values, header(SamplesPerPixel=3, PhotometricInterpretation="RGB")) == 0xAB).all()


def test_a_window_is_named_or_given() -> None:
    assert window_of("lung") == Window(-600, 1500)
    assert window_of("40/400") == Window(40, 400)
    assert window_of("-600/1500.5") == Window(-600, 1500.5)
    for wrong in ("", "40", "40/0", "40/-1", "a/b", "heart", "1e9/1e9", "40/400/4"):
        with pytest.raises(UsageError):
            window_of(wrong)
