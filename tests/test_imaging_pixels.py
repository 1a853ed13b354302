"""Frames: every real file as pydicom decodes it, or a reason; a hostile one a reason, in the memory of a frame."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from infra.errors import BadMessage, SealBroken
from infra.objects import Objects
from streams.imaging import pixels as module
from streams.imaging.pixels import Pixels
from tests.imaging_files import files, header, opened, path, read, saved

UNREADABLE = {  # reason of each that nobody decodes
    "JPEG2000-embedded-sequence-delimiter.dcm": "bad_pixels",  # its codestream claims 1,024 x 3,722,445,056
    "MR_truncated.dcm": "bad_pixels",
    "badVR.dcm": "bad_pixels",
    "meta_missing_tsyntax.dcm": "bad_pixels",
    "nested_priv_SQ.dcm": "bad_pixels",
}
ONLY_HERE = {"OT-PAL-8-face.dcm", "emri_small_jpeg_2k_lossless_too_short.dcm"}  # no file meta; an empty last frame


def reason(file: io.BytesIO, frame: int = 0) -> str:
    try:
        Pixels(file).frame(frame)
    except BadMessage as error:
        return error.reason
    return "read"


@pytest.mark.parametrize("name", files())
def test_every_real_file_is_read_as_pydicom_reads_it_or_gives_a_reason(name: str) -> None:
    last = name.rpartition("/")[2]
    try:
        wanted = dcmread(files()[name], force=True).pixel_array
    except Exception:
        wanted = None
    data = io.BytesIO(files()[name].read_bytes())
    if wanted is None and last not in ONLY_HERE:
        assert reason(data) == UNREADABLE.get(last, "no_pixels")
        return
    pixels = Pixels(data)
    numbers = sorted({0, pixels.count // 2, pixels.count - 1})
    got = [pixels.frame(number) for number in numbers]
    assert all(one.dtype.isnative and one.flags.c_contiguous for one in got)
    if wanted is not None:
        every = wanted if pixels.count > 1 else wanted[None]
        assert all(np.array_equal(every[number], one) for number, one in zip(numbers, got, strict=True))


def test_a_value_that_differs_would_be_seen() -> None:
    data = bytearray(path("CT_small.dcm").read_bytes())
    before = Pixels(io.BytesIO(data)).frame(0)
    data[-200] ^= 1
    assert not np.array_equal(before, Pixels(io.BytesIO(data)).frame(0))


@pytest.mark.skipif(shutil.which("dcmdjpeg") is None, reason="DCMTK's dcmdjpeg is not installed")
@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "JPGExtended.dcm"])
def test_jpeg_extended_of_12_bits_is_as_dcmtk_has_it(name: str, tmp_path: Path) -> None:
    subprocess.run(["dcmdjpeg", "+cn", str(path(name)), str(tmp_path / "out.dcm")], check=True, capture_output=True)
    assert np.array_equal(opened(name).frame(0), dcmread(tmp_path / "out.dcm").pixel_array)


def test_htj2k_is_decoded_where_the_codestream_is_named_so() -> None:
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    stream = bytes(encode_array(values, photometric_interpretation=2, use_mct=False))
    ds = header(64, 64, HTJ2KLossless, PixelData=encapsulate([stream]))
    ds["PixelData"].VR = "OB"
    assert np.array_equal(Pixels(saved(ds)).frame(0), values)  # OpenJPEG reads both by what the stream says


def test_a_sealed_object_is_read_in_pieces_and_left_open(tmp_path: Path) -> None:
    store = Objects(str(tmp_path))
    with store.create() as writer:
        writer.write(path("693_UNCI.dcm").read_bytes())
        claim = writer.finish()
    reader = store.open(claim)
    assert np.array_equal(Pixels(reader).frame(0), read("693_UNCI.dcm").pixel_array)
    reader.seek(128)
    assert reader.read(4) == b"DICM"
    stored = next(one for one in tmp_path.rglob(claim.name))
    broken = bytearray(stored.read_bytes())
    broken[-100_000] ^= 1
    stored.write_bytes(broken)
    with pytest.raises(SealBroken):
        Pixels(store.open(claim)).frame(0)


def frames(count: int, rows: int = 16, columns: int = 16) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [rng.integers(0, 1 << 16, (rows, columns), np.uint16) for _ in range(count)]


@pytest.mark.parametrize("table", ["basic", "extended", "none", "pieces", "pieces_with_table", "wrong"])
def test_frames_are_found_by_whatever_tells_where_they_are(table: str) -> None:
    wanted = frames(5, 64, 64)
    streams = [bytes(encode_array(one, photometric_interpretation=2, use_mct=False)) for one in wanted]
    ds = header(64, 64, HTJ2KLossless, NumberOfFrames=5)
    if table == "extended":
        ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(streams)
    else:
        pieces = 3 if table.startswith("pieces") else 1
        ds.PixelData = encapsulate(streams, pieces, has_bot=table in ("basic", "pieces_with_table", "wrong"))
    if table == "wrong":
        ds.PixelData = ds.PixelData[:12] + struct.pack("<I", 4) + ds.PixelData[16:]
    ds["PixelData"].VR = "OB"
    pixels = Pixels(saved(ds))
    for number in (4, 0, 2):
        assert np.array_equal(pixels.frame(number), wanted[number])


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_what_pydicom_compresses_comes_back(syntax: str) -> None:
    wanted = frames(3)
    ds = header(16, 16, NumberOfFrames=3, PixelData=b"".join(one.tobytes() for one in wanted))
    ds.compress(syntax)
    assert np.array_equal(Pixels(saved(ds)).frame(1), wanted[1])


@pytest.mark.parametrize("count", [1, 3])
def test_bits_of_one_frame_begin_within_a_byte_of_another(count: int) -> None:
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2, (count, 7, 9), np.uint8)
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    ds = header(
        7,
        9,
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        NumberOfFrames=count,
        PixelData=packed + b"\0" * (len(packed) % 2),
    )
    ds["PixelData"].VR = "OB"
    pixels = Pixels(saved(ds))
    assert all(np.array_equal(pixels.frame(number), bits[number]) for number in range(count))


@pytest.mark.parametrize(("keyword", "kind"), [("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")])
def test_numbers_with_fractions_are_read(keyword: str, kind: str) -> None:
    values = np.linspace(-1, 1, 64).astype(kind).reshape(8, 8)
    ds = header(BitsAllocated=8 * values.itemsize, **{keyword: values.tobytes()})
    del ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    assert np.array_equal(Pixels(saved(ds)).frame(0), values)


def test_deflated_data_is_read_and_a_bomb_of_it_is_not() -> None:
    values = frames(1)[0]
    ds = header(16, 16, DeflatedExplicitVRLittleEndian, PixelData=values.tobytes())
    file = saved(ds)
    assert np.array_equal(Pixels(file).frame(0), values)
    raw = file.getvalue()
    start = 144 + struct.unpack("<I", raw[140:144])[0]  # behind the group of the file meta
    inflated = zlib.decompress(raw[start:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(inflated[:-512] + b"\0" * (module.INFLATED_BYTES + 1)) + packer.flush()
    assert len(bomb) < 500_000
    assert reason(io.BytesIO(raw[:start] + bomb)) == "too_large"


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, "read"),
        ({"Rows": 9}, "bad_pixels"),
        ({"Rows": 65535, "Columns": 65535}, "too_large"),
        ({"Rows": 8000, "Columns": 8000}, "bad_pixels"),
        ({"Rows": 0}, "bad_pixels"),
        ({"Rows": None}, "bad_pixels"),
        ({"NumberOfFrames": 20000}, "read"),  # the first is there
        ({"NumberOfFrames": -1}, "bad_pixels"),
        ({"BitsAllocated": 12, "BitsStored": 12}, "bad_pixels"),
        ({"BitsAllocated": 65535}, "bad_pixels"),
        ({"BitsAllocated": 0}, "bad_pixels"),
        ({"BitsStored": 17}, "bad_pixels"),
        ({"SamplesPerPixel": 4}, "bad_pixels"),
        ({"SamplesPerPixel": 65535}, "bad_pixels"),
        ({"PixelRepresentation": 7}, "bad_pixels"),
        ({"PhotometricInterpretation": "NONSENSE"}, "bad_pixels"),
        ({"PixelData": b""}, "no_pixels"),
        ({"PixelData": None}, "no_pixels"),
        ({"PixelData": b"\0" * 126}, "bad_pixels"),
    ],
)
def test_what_the_header_claims_is_compared_with_what_is_there(change: dict[str, object], wanted: str) -> None:
    ds = header(**{"PixelData": bytes(128)} | change)
    assert reason(saved(ds)) == wanted


def test_the_frame_that_is_not_there_is_not_given() -> None:
    file = saved(header(NumberOfFrames=20000, PixelData=bytes(128)))
    assert [reason(file, frame) for frame in (0, 1, 10_000, 20_000, -1)] == ["read"] + ["bad_pixels"] * 4


@pytest.mark.parametrize("name", ["SR-report.dcm", "test-SR.dcm", "reportsi.dcm", "rtplan.dcm", "DICOMDIR"])
def test_what_has_no_pixels_is_said_to_have_none(name: str) -> None:
    found = [one for key, one in files().items() if key.endswith(f"/{name}")]
    for one in found:
        assert reason(io.BytesIO(one.read_bytes())) == "no_pixels"
    assert found or name in ("SR-report.dcm",)


def test_a_video_is_an_unknown_syntax() -> None:
    ds = header(syntax=MPEG2MPML, PixelData=encapsulate([b"\0\0\1\xb3" * 16]))
    ds["PixelData"].VR = "OB"
    assert reason(saved(ds)) == "unknown_syntax"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.02, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_jpeg_dcmtk.dcm", "image_dfl.dcm"]
)
def test_a_file_that_was_cut_off_gives_a_reason(name: str, share: float) -> None:
    data = path(name).read_bytes()
    assert reason(io.BytesIO(data[: int(share * len(data))])) in ("bad_pixels", "no_pixels")


def test_a_codestream_of_another_size_is_not_decoded() -> None:
    big = np.zeros((4096, 4096), np.uint8)
    stream = bytes(encode_array(big, photometric_interpretation=2, use_mct=False))
    ds = header(16, 16, HTJ2KLossless, BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=encapsulate([stream]))
    ds["PixelData"].VR = "OB"
    assert reason(saved(ds)) == "bad_pixels"


def test_a_frame_of_a_thousand_times_its_size_is_not_joined() -> None:
    ds = header(16, 16, JPEGBaseline8Bit, BitsAllocated=8, BitsStored=8, HighBit=7)
    ds.PixelData = encapsulate([b"\xff\xd8" + bytes(8 << 20)])
    ds["PixelData"].VR = "OB"
    assert reason(saved(ds)) == "too_large"


def test_a_million_fragments_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRAGMENTS", 1000)
    ds = header(16, 16, JPEGBaseline8Bit, BitsAllocated=8, BitsStored=8, HighBit=7, NumberOfFrames=2)
    ds.PixelData = encapsulate([b"\0\0"] * 3000, has_bot=False)
    ds["PixelData"].VR = "OB"
    assert reason(saved(ds)) == "too_large"


def test_one_frame_of_two_gigabytes_takes_the_memory_of_one(tmp_path: Path) -> None:
    """20,000 frames of 512 x 100, native, in a file that is mostly a hole; the middle one is not."""
    count, size = 20_000, 512 * 100 * 2
    start = saved(header(512, 100, NumberOfFrames=count, PixelData=b"\1\2")).getvalue()[:-2]
    start = start[:-4] + struct.pack("<I", count * size)
    wanted = frames(1, 512, 100)[0]
    with open(tmp_path / "large.dcm", "wb") as file:
        file.write(start)
        file.seek(len(start) + count // 2 * size)
        file.write(wanted.tobytes())
        file.truncate(len(start) + count * size)
    with open(tmp_path / "large.dcm", "rb", buffering=0) as raw:
        assert os.fstat(raw.fileno()).st_size > 2_000_000_000
        tracemalloc.start()
        got = Pixels(raw).frame(count // 2)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert np.array_equal(got, wanted)
    assert most < 10 * size


def test_big_endian_words_of_an_odd_frame_are_turned() -> None:
    values = np.arange(9, dtype=np.uint8).reshape(3, 3)
    swapped = np.frombuffer(values.tobytes() + b"\0", "u2").byteswap().tobytes()
    ds = header(3, 3, ExplicitVRBigEndian, BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=swapped)
    ds["PixelData"].VR = "OW"
    assert np.array_equal(Pixels(saved(ds)).frame(0), values)


def test_colour_that_says_it_is_subsampled_and_is_not_is_read_as_it_is() -> None:
    ds = read("SC_ybr_full_uncompressed.dcm")
    wanted = ds.pixel_array
    ds.PhotometricInterpretation = "YBR_FULL_422"
    with pytest.raises(ValueError, match="third larger"):
        pydicom.pixels.pixel_array(ds)
    assert np.array_equal(Pixels(saved(ds)).frame(0), wanted)


def test_functional_groups_tell_of_one_frame() -> None:
    ds = header(NumberOfFrames=3, PixelData=bytes(3 * 128))
    shared, spacing = Dataset(), Dataset()
    spacing.PixelSpacing = [0.5, 0.25]
    shared.PixelMeasuresSequence = [spacing]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for number in range(3):
        group, window = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = 100 * number, 50
        group.FrameVOILUTSequence = [window]
        ds.PerFrameFunctionalGroupsSequence.append(group)
    pixels = Pixels(saved(ds))
    told = [pixels.attributes(number) for number in range(3)]
    assert [one.WindowCenter for one in told] == [0, 100, 200]
    assert all(list(one.PixelSpacing) == [0.5, 0.25] and one.Modality == "CT" and one.Rows == 8 for one in told)
    assert "WindowCenter" not in pixels.header


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["MR_small.dcm", "MR_small_RLE.dcm", "SC_rgb_small_odd_big_endian.dcm", "rtdose_rle.dcm"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_bytes_that_were_altered_are_read_or_give_a_reason(name: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(path(name).read_bytes())
    for where, value in changes:
        data[min(len(data) - 1, 128 + int(where * (len(data) - 128)))] = value
    assert reason(io.BytesIO(data)) in ("read", "bad_pixels", "no_pixels", "too_large", "unknown_syntax")
