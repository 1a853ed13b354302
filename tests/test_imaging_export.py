"""A whole file without its patient: header, overlays and pixels; what cannot be known to be clean is refused."""

from __future__ import annotations

import io
import re
from datetime import date
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file, get_testdata_files
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from infra.errors import BadMessage
from streams.imaging.deidentify import Option
from streams.imaging.display import display
from streams.imaging.export import Exported, export
from streams.imaging.pixels import Pixels
from tests import images

SECRET = b"0123456789abcdef" * 2
PATIENT = "4711"
TOLD = (
    "Meridian",
    "Paula4711",
    "IM4711",
    "A4711",
    "19610412",
    "Elm Street 7",
    "Referrer",
    "North Hospital",
    "SN-47110815",
)
BURNED = ("MERIDIAN PAULA", "12.04.1961", "IM4711")
Values = np.ndarray[Any, Any]


def exported(data: bytes, options: frozenset[Option] = frozenset(), **said: Any) -> tuple[Exported, Dataset]:
    out = io.BytesIO()
    done = export(io.BytesIO(data), out, SECRET, options, **said)
    return done, dcmread(io.BytesIO(out.getvalue()))


def refusal(data: bytes) -> str:
    out = io.BytesIO()
    with pytest.raises(BadMessage) as caught:
        export(io.BytesIO(data), out, SECRET)
    assert out.getvalue() == b"", "nothing was written"
    return str(caught.value)


def picture(ds: Dataset) -> Values:
    values = ds.pixel_array
    return display(values if values.ndim == 2 or ds.SamplesPerPixel == 3 else values[0], ds)


@cache
def reader() -> Any:
    from rapidocr_onnxruntime import RapidOCR

    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)


def words(image: Values) -> str:
    """What somebody else's eyes read: the reader as it comes, and not as the export uses it."""
    colour = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image[..., ::-1].copy()
    return " ".join(text for _, text, _ in reader()(colour)[0] or ())


def burned(ds: Dataset, value: int) -> Dataset:
    """Names and numbers in its pixels."""
    shape = (ds.Rows, ds.Columns, 3) if ds.SamplesPerPixel == 3 else (ds.Rows, ds.Columns)
    values = np.frombuffer(ds.PixelData, "u1" if ds.BitsAllocated == 8 else "<u2").reshape(shape).copy()
    for line, word in enumerate(BURNED):
        ink = np.zeros(shape[:2], np.uint8)
        cv2.putText(ink, word, (10, 40 + 90 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 2)
        values[ink > 127] = value
    ds.PixelData = values.tobytes()
    return ds


def planted(ds: Dataset) -> Dataset:
    """What identifies in places where nobody expects it."""
    ds.PatientAddress = "Elm Street 7"
    ds.ImageComments = "seen with Meridian Paula4711, IM4711"
    ds.add_new(0x00290010, "LO", "ACME 1.1")
    ds.add_new(0x00291010, "UN", b"IM4711 Meridian")
    ds.add_new(0x00291011, "LO", "Meridian")
    nested = Dataset()
    nested.PatientName, nested.PatientID, nested.StudyDescription = "Meridian^Paula4711", "IM4711", "of Meridian"
    nested.add_new(0x00290010, "LO", "ACME 1.1")
    nested.add_new(0x00291012, "LT", "Elm Street 7")
    ds.ReferencedPatientSequence = [nested]
    ds.RequestAttributesSequence = [nested]
    ds.add_new(0x60000010, "US", ds.Rows)
    ds.add_new(0x60000011, "US", ds.Columns)
    ds.add_new(0x60000040, "CS", "G")
    ds.add_new(0x60000050, "SS", [1, 1])
    ds.add_new(0x60000100, "US", 1)
    ds.add_new(0x60000102, "US", 0)
    ds.add_new(0x60003000, "OW", b"Meridian" * (ds.Rows * ds.Columns // 64))
    ds.add_new(0x60004000, "LT", "Meridian")
    icon = images.pixels(Dataset(), np.frombuffer(b"Meridian" * 8, np.uint8).reshape(8, 8), 8)
    ds.IconImageSequence = [icon]
    return ds


def found(data: bytes) -> list[str]:
    return [one for one in TOLD if re.search(re.escape(one.encode()), data, re.IGNORECASE)]


OBJECTS = {
    "ct": lambda: burned(planted(images.ct(size=320)), 4095),
    "cr": lambda: burned(planted(images.cr(patient=PATIENT, size=320)), 0),
    "us": lambda: burned(planted(images.us(patient=PATIENT, size=320)), 255),
}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless])
def test_nothing_of_the_patient_is_left(name: str, syntax: str) -> None:
    ds = OBJECTS[name]()
    data = images.part10(ds, syntax)
    assert set(found(data)) == set(TOLD), "they are there to be found"
    assert "1961" in words(picture(dcmread(io.BytesIO(data))))
    out = io.BytesIO()
    done = export(io.BytesIO(data), out, SECRET)
    assert found(out.getvalue()) == []
    made = dcmread(io.BytesIO(out.getvalue()))
    assert done.clean
    assert (made.PatientIdentityRemoved, made.BurnedInAnnotation) == ("YES", "NO")
    assert [one.CodeValue for one in made.DeidentificationMethodCodeSequence][:2] == ["113100", "113101"]
    assert done.instance == made.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID != ds.SOPInstanceUID
    assert made.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert not [tag for tag in made.keys() if 0x6000 <= tag.group <= 0x60FF or tag.is_private]  # noqa: SIM118
    read = words(picture(made)).upper()
    assert not [part for word in BURNED for part in re.split(r"[ .]", word) if part in read]


def test_pixels_without_text_stay_as_they_are() -> None:
    for ds in (images.ct(), images.mr(), images.cr(), images.us()):
        done, made = exported(images.part10(ds))
        assert (done.clean, done.frames, done.blanked) == (True, 1, 0)
        assert made.PixelData == ds.PixelData
        assert (made.BitsStored, made.HighBit) == (ds.BitsStored, ds.HighBit)


def test_files_of_one_patient_belong_together() -> None:
    options = frozenset({Option.MODIFIED_DATES})
    first, second = images.ct(1), images.ct(2)
    second.StudyDate, second.SeriesInstanceUID = "20260315", images.uid("another")
    made = [exported(images.part10(ds), options)[1] for ds in (first, second)]
    assert made[0].StudyInstanceUID == made[1].StudyInstanceUID != first.StudyInstanceUID
    assert made[0].SeriesInstanceUID != made[1].SeriesInstanceUID
    assert made[0].PatientID == made[1].PatientID != first.PatientID
    days = [date.fromisoformat(ds.StudyDate) for ds in made]
    assert (days[1] - days[0]).days == 14
    assert days[0] != date(2026, 3, 1)


FILES = ["MR_small_bigendian.dcm", "CT_small.dcm", "image_dfl.dcm", "JPEG2000.dcm", "MR_small_jp2klossless.dcm"]
FILES += ["SC_rgb_rle_2frame.dcm", "liver_1frame.dcm", "rtdose_1frame.dcm", "emri_small.dcm"]


@pytest.mark.parametrize("name", FILES)
def test_files_of_others(name: str) -> None:
    with open(get_testdata_files(name)[0], "rb") as file:
        out = io.BytesIO()
        done = export(file, out, SECRET)
        before = list(Pixels(file).frames())
    after = list(Pixels(io.BytesIO(out.getvalue())).frames())
    assert done.clean
    assert done.frames == len(before) == len(after)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    dcmread(io.BytesIO(out.getvalue())).pixel_array  # noqa: B018


def test_palettes_become_colours() -> None:
    with open(get_testdata_files("gdcm-US-ALOKA-16_big.dcm")[0], "rb") as file:
        pixels = Pixels(file)
        before = display(pixels.frame(0), pixels.attributes(0))
        out = io.BytesIO()
        export(file, out, SECRET)
    made = dcmread(io.BytesIO(out.getvalue()))
    assert (made.PhotometricInterpretation, made.SamplesPerPixel, made.BitsStored) == ("RGB", 3, 8)
    assert not [tag for tag in made.keys() if tag.group == 0x0028 and tag.elem >> 8 in (0x11, 0x12)]  # noqa: SIM118
    kept = (made.pixel_array == before).all(axis=-1)
    assert kept.mean() > 0.7
    assert (made.pixel_array[~kept] == made.pixel_array[0, 0]).all(), "what is not as it was is black"


def test_one_bit_a_value_over_the_ends_of_frames() -> None:
    ds = images.ct()
    frames = (np.arange(3 * 7 * 9) % 5 == 0).reshape(3, 7, 9)
    ds.Rows, ds.Columns, ds.NumberOfFrames = 7, 9, 3
    ds.BitsAllocated = ds.BitsStored = 1
    ds.HighBit = 0
    del ds.RescaleSlope, ds.RescaleIntercept, ds.WindowCenter, ds.WindowWidth
    packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    ds.PixelData = packed
    _, made = exported(images.part10(ds))
    assert np.array_equal(made.pixel_array, frames)
    assert made.BitsAllocated == 1


def test_every_frame_is_looked_at() -> None:
    plain, written = images.us(size=256), burned(images.us(size=256), 255)
    ds = images.us(size=256)
    ds.NumberOfFrames = 3
    ds.PixelData = plain.PixelData + written.PixelData + plain.PixelData
    done, made = exported(images.part10(ds))
    assert done.frames == 3
    assert done.blanked >= 3
    assert done.clean
    assert np.array_equal(made.pixel_array[0], made.pixel_array[2])
    assert not np.array_equal(made.pixel_array[0], made.pixel_array[1])
    assert "1961" not in words(made.pixel_array[1])


def test_overlays_in_the_bits_above_the_values() -> None:
    ds = images.ct(size=64)
    values = np.frombuffer(ds.PixelData, "<u2")
    ds.add_new(0x60000010, "US", 64)
    ds.add_new(0x60000011, "US", 64)
    ds.add_new(0x60000102, "US", 15)
    ds.PixelData = (values | (np.arange(values.size) % 2 << 15)).astype("<u2").tobytes()
    _, made = exported(images.part10(ds))
    assert np.array_equal(made.pixel_array.reshape(-1), values)


def test_reports_have_no_pixels() -> None:
    done, made = exported(images.part10(images.dose_report()))
    assert (done.clean, done.frames, made.PatientIdentityRemoved) == (True, 0, "YES")
    assert "PixelData" not in made
    assert "BurnedInAnnotation" not in made


def film() -> bytes:
    """A video that nobody here decodes."""
    ds = images.us()
    data = images.part10(ds)
    made = dcmread(io.BytesIO(data))
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    made.PixelData = encapsulate([b"\0\0\0\1film" * 40])
    made["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    made.save_as(out)
    return out.getvalue()


def document() -> bytes:
    ds = images.header("DOC", "1.2.840.10008.5.1.4.1.1.104.1", 1, PATIENT, "doc")
    ds.MIMETypeOfEncapsulatedDocument, ds.EncapsulatedDocument = "application/pdf", b"%PDF-1.7 Meridian"
    return images.part10(ds)


def cut() -> bytes:
    return images.part10(images.ct(size=64))[:-100]


def voice() -> bytes:
    return images.part10(images.header("AU", "1.2.840.10008.5.1.4.1.1.9.4.1", 1, PATIENT, "voice"))


def said_to_be_burned_in() -> bytes:
    return images.part10(images.ct(BurnedInAnnotation="YES"))


UNKNOWN = [film, document, cut, voice, said_to_be_burned_in]


@pytest.mark.parametrize("make", UNKNOWN)
def test_what_is_not_known_to_be_clean_is_refused(make: Any) -> None:
    assert refusal(make()).startswith("pixels_not_clean")


@pytest.mark.parametrize("make", UNKNOWN)
def test_or_says_so(make: Any) -> None:
    data = make()
    done, made = exported(data, allow_unclean=True)
    assert not done.clean
    assert made.PatientIdentityRemoved == "NO"
    assert "113101" not in [one.CodeValue for one in made.DeidentificationMethodCodeSequence]
    if "PixelData" in made:
        assert made.BurnedInAnnotation == "YES"
    before = dcmread(io.BytesIO(data), force=True)
    if make is film:
        assert made.PixelData == before.PixelData
        assert made.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
    if make is document:
        assert b"Meridian" not in made.EncapsulatedDocument


def test_what_stands_behind_the_pixels_is_not_copied() -> None:
    data = film() + b"\xfc\xff\xfc\xffOB\0\0\x08\0\0\0Meridian"
    assert data.count(b"Meridian") == 2, "the patient's name, and the padding"
    out = io.BytesIO()
    export(io.BytesIO(data), out, SECRET, allow_unclean=True)
    assert b"Meridian" not in out.getvalue()


def test_burned_in_and_found_is_clean() -> None:
    ds = burned(images.us(size=320), 255)
    ds.BurnedInAnnotation = "YES"
    done, made = exported(images.part10(ds))
    assert done.clean
    assert made.BurnedInAnnotation == "NO"


def big_endian(ds: Dataset) -> bytes:
    out = io.BytesIO()
    ds = dcmread(io.BytesIO(images.part10(ds)))
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()
    dcmwrite(out, ds, implicit_vr=False, little_endian=False, force_encoding=True)
    return out.getvalue()


def test_words_in_big_endian() -> None:
    ds = images.ct()
    table = Dataset()
    table.LUTDescriptor, table.LUTExplanation = [4, 0, 16], "steps"
    table.add_new(0x00283006, "OW", np.array([1, 2, 3, 4], ">u2").tobytes())
    ds.VOILUTSequence = [table]
    _, made = exported(big_endian(ds))
    assert np.array_equal(made.pixel_array, np.frombuffer(ds.PixelData, "<u2").reshape(32, 32))
    assert made.VOILUTSequence[0].LUTData == np.array([1, 2, 3, 4], "<u2").tobytes()


def test_deflated() -> None:
    ds = images.ct()
    whole = dcmread(io.BytesIO(images.part10(ds)))
    whole.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    out = io.BytesIO()
    whole.save_as(out)
    _, made = exported(out.getvalue())
    assert made.PixelData == ds.PixelData


def without(keyword: str) -> bytes:
    ds = dcmread(io.BytesIO(images.part10(images.ct())))
    delattr(ds, keyword)
    out = io.BytesIO()
    ds.save_as(out)
    return out.getvalue()


def test_files_that_are_none() -> None:
    assert refusal(without("SOPInstanceUID")) == "missing_uid at SOPInstanceUID"
    assert refusal(without("SOPClassUID")) == "missing_uid at SOPClassUID"
    assert refusal(b"Meridian" * 100) != ""
    with open(get_testdata_file("DICOMDIR-nopatient", download=False) or "", "rb") as file:
        assert refusal(file.read()) == "directory at DirectoryRecordSequence"
