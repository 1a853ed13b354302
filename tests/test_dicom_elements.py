"""A data set followed as it comes: what pydicom reads of it is kept, and nothing a stranger sends is held or obeyed."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_files
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from infra.errors import BadMessage
from schemas.wire.dicom_elements import (
    BIG,
    DEEPEST,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    LARGEST_HEADER,
    LARGEST_VALUE,
    Elements,
    dataset,
    meta,
    part10,
    uid,
)
from tests import images

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted({Path(one) for one in get_testdata_files() if Path(one).is_file()})


def followed(data: bytes, syntax: str = EXPLICIT, pieces: int = 1000) -> Elements:
    made = Elements(syntax)
    for at in range(0, len(data), pieces):
        made.feed(data[at : at + pieces])
    made.finish()
    return made


def refused(data: bytes, syntax: str = EXPLICIT) -> str:
    with pytest.raises(BadMessage) as bad:
        followed(data, syntax)
    assert str(bad.value).startswith(bad.value.reason)
    return bad.value.reason


def body(ds: Any = None, syntax: str = ExplicitVRLittleEndian) -> bytes:
    data = images.part10(images.ct() if ds is None else ds, syntax)
    return data[part10(io.BytesIO(data)).offset :]


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    count = len(value) if length is None else length
    if vr in (b"SQ", b"UN", b"OB", b"OW", b"UT"):
        return struct.pack("<HH2sxxI", group, number, vr, count) + value
    return struct.pack("<HH2sH", group, number, vr, count) + value


def item(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


ITEM_END, SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
UNDEFINED = 0xFFFFFFFF
CLASS = element(0x0008, 0x0016, b"UI", b"1.2\0")


@pytest.mark.parametrize("path", FILES, ids=[one.name for one in FILES])
def test_what_is_kept_is_what_pydicom_reads(path: Path) -> None:
    """Every file of pydicom and of pydicom-data: the same attributes before the pixels, value by value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            whole = pydicom.dcmread(path, defer_size=None)
            readable = len(whole) > 2
        except Exception:
            readable = False
        data = path.read_bytes()
        try:
            found = part10(io.BytesIO(data))
            made = followed(data[found.offset :], found.syntax, 777)
        except BadMessage:
            broken = any(word in path.name for word in ("truncated", "too_short", "nooffset", "missing_tsyntax"))
            assert broken or not readable
            return
        if not readable:
            return
        kept = dataset(made.header, found.syntax)
        wanted = {tag for tag in whole.keys() if 0 < tag.group < 0x7FE0}  # noqa: SIM118 - tags, not elements
        assert {f"{tag:08X}" for tag in wanted} == {f"{tag:08X}" for tag in kept.keys()} | set(made.left_out)  # noqa: SIM118
        for tag in kept.keys():  # noqa: SIM118
            assert kept[tag].VR == whole[tag].VR
            assert repr(kept[tag].value) == repr(whole[tag].value), f"{tag:08X}"


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=30), st.sampled_from([EXPLICIT, IMPLICIT]))
@settings(max_examples=40, deadline=None)
def test_however_it_is_cut_it_is_the_same(sizes: list[int], syntax: str) -> None:
    data = body(images.dose_report(), ImplicitVRLittleEndian if syntax == IMPLICIT else ExplicitVRLittleEndian)
    made, at, turn = Elements(syntax), 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        made.feed(memoryview(data)[at : at + size])
        at, turn = at + size, turn + 1
    made.finish()
    assert made.header == data
    assert made.size == len(data)


def test_the_pixels_are_measured_and_not_kept() -> None:
    ds = images.ct()
    made = followed(body(ds))
    assert made.pixel_bytes == 32 * 32 * 2
    assert not made.encapsulated
    assert b"\xe0\x7f\x10\x00" not in made.header
    compressed = followed(body(images.mr(), images.JPEGLSLossless))
    assert (compressed.pixel_bytes, compressed.encapsulated, compressed.fragments) == (None, True, 2)


@pytest.mark.parametrize("syntax", [BIG, DEFLATED])
def test_other_encodings(syntax: str) -> None:
    ds = images.ct()
    data = body(ds)
    if syntax == DEFLATED:
        packer = zlib.compressobj(wbits=-15)
        sent = packer.compress(data) + packer.flush()
        made = followed(sent, syntax, 100)
        assert made.size == len(sent)
    else:
        out = io.BytesIO()
        del ds.PixelData
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        pydicom.dcmwrite(out, ds, implicit_vr=False, little_endian=False)
        made = followed(out.getvalue(), syntax)
    assert dataset(made.header, syntax).PatientID == "IM4711"
    assert dataset(made.header, syntax).Rows == 32


def test_what_is_too_large_is_left_out_and_said() -> None:
    large = element(0x0009, 0x1010, b"UN", b"x" * (LARGEST_VALUE + 1))
    after = element(0x0010, 0x0020, b"LO", b"IM12")
    made = followed(CLASS + large + after)
    assert made.left_out == ("00091010",)
    assert made.header == CLASS + after
    deep = element(0x0009, 0x1011, b"SQ", item(large) + SEQUENCE_END, UNDEFINED)
    assert followed(CLASS + deep + after).header == CLASS + after
    report = element(0x0040, 0xA730, b"SQ", item(element(0x0040, 0xA160, b"UT", b"t" * 4 * LARGEST_VALUE)))
    assert followed(CLASS + report).left_out == (), "the text of a structured report is kept"
    many = b"".join(element(0x0009, 0x1000 + n, b"UN", b"x" * (LARGEST_VALUE - 20)) for n in range(64))
    made = followed(CLASS + many + after)
    assert len(made.header) <= LARGEST_HEADER
    assert made.header.endswith(after), "small ones that come later still have room"


def nested(depth: int, undefined: bool) -> bytes:
    inner = CLASS
    for _ in range(depth):
        one = item(inner + ITEM_END * undefined, UNDEFINED if undefined else None)
        inner = element(0x0008, 0x1140, b"SQ", one + SEQUENCE_END * undefined, UNDEFINED if undefined else None)
    return CLASS + inner


@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_in_sequences_end_somewhere(undefined: bool) -> None:
    assert followed(nested(DEEPEST, undefined)).header == nested(DEEPEST, undefined)
    assert refused(nested(DEEPEST + 1, undefined)) == "too_deep"
    assert refused(nested(240, undefined)) == "too_deep"


def plain(group: int, number: int, value: bytes, length: int | None = None) -> bytes:
    """An element of implicit VR."""
    return struct.pack("<HHI", group, number, len(value) if length is None else length) + value


def hidden(depth: int, undefined: bool) -> bytes:
    """Sequences in implicit VR that say their length: only a dictionary tells that they are sequences."""
    inner = plain(0x0008, 0x1150, b"1.2\0")
    for _ in range(depth):
        one = item(inner + ITEM_END * undefined, UNDEFINED if undefined else None)
        inner = plain(0x0008, 0x1140, one + SEQUENCE_END * undefined, UNDEFINED if undefined else None)
    return inner


@pytest.mark.parametrize("depth", [DEEPEST, 240, 1500])
@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_sequences_that_are_none_before_a_dictionary_is_asked(syntax: str, undefined: bool, depth: int) -> None:
    inner = hidden(depth, undefined)
    one = plain(0x0008, 0x1140, item(inner)) if syntax == IMPLICIT else element(0x0008, 0x1140, b"UN", item(inner))
    made = followed(CLASS * (syntax == EXPLICIT) + one, syntax)
    assert one in made.header, "a value like any other"
    with pytest.raises(BadMessage, match="too_deep"):
        dataset(made.header, syntax)


def test_a_sequence_that_cannot_be_read_as_one_is_taken_out() -> None:
    broken = element(0x0008, 0x1140, b"UN", item(b"\x08\x00\x50\x11", 400))
    ds = dataset(followed(CLASS + broken + element(0x0010, 0x0010, b"PN", b"A^B ")).header, EXPLICIT)
    assert {one.tag for one in ds} >= {0x00080016, 0x00100010}


@pytest.mark.parametrize("inner", [CLASS, plain(0x0008, 0x0016, b"1.2\0"), plain(0x0008, 0x0016, b"1" * 66)])
@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("vr", [b"UN", b"SQ"])
def test_items_are_read_in_the_vr_in_which_they_are_written(vr: bytes, undefined: bool, inner: bytes) -> None:
    """UN of undefined length has items of implicit VR (PS3.5 6.2.2), and devices write the other thing in both."""
    one = item(inner + ITEM_END * undefined, UNDEFINED if undefined else None) + item(b"") + SEQUENCE_END
    data = CLASS + element(0x0008, 0x1140, vr, one, UNDEFINED) + element(0x0010, 0x0010, b"PN", b"A^B ")
    made = followed(data)
    assert made.header == data
    ds = dataset(made.header, EXPLICIT)
    assert [len(one) for one in ds.ReferencedImageSequence] == [1, 0]
    assert ds.ReferencedImageSequence[0].SOPClassUID.startswith("1")
    assert ds.PatientName == "A^B"


def test_the_syntax_that_is_said_may_not_be_the_one_that_is_used() -> None:
    for said, data in ((IMPLICIT, CLASS), (EXPLICIT, plain(0x0008, 0x0016, b"1.2\0"))):
        assert dataset(followed(data, said).header, said).SOPClassUID == "1.2"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.95", DEFLATED])
def test_what_is_deflated(syntax: str) -> None:
    packed = zlib.compress(CLASS, wbits=-15)
    for padded in (packed, packed + b"\0"):
        assert followed(padded, syntax, 1).header == CLASS
    assert refused(packed[:-3], syntax) == "truncated"
    assert refused(b"\xff" + packed, syntax) == "bad_deflate"


def test_a_bomb() -> None:
    data = CLASS + element(0x0009, 0x1010, b"OB", bytes(200_000_000))
    packed = zlib.compress(data, wbits=-15)
    assert len(packed) < 200_000
    tracemalloc.start()
    try:
        assert refused(packed, DEFLATED) == "inflates_too_much"
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("at", [3, 7, 9, 60, 400, 900, -1, -500])
@pytest.mark.parametrize("make", [images.ct, images.dose_report, images.mr])
def test_cut_off_anywhere_it_says_so(make: Any, at: int) -> None:
    data = body(make(), images.JPEGLSLossless if make is images.mr else ExplicitVRLittleEndian)
    whole = followed(data)
    assert whole.size == len(data)
    cut = data[:at]
    ends = set()
    position = 0
    while position < len(cut):  # a cut between two elements is an end like any other
        head = 12 if cut[position + 4 : position + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT") else 8
        size = cut[position + 8 : position + 12] if head == 12 else cut[position + 6 : position + 8]
        position += head + int.from_bytes(size, "little")
        ends.add(position)
    if at % len(data) not in ends:
        assert refused(cut) == "truncated"


HOSTILE = {
    "a length beyond the end": (CLASS + element(0x0010, 0x0010, b"PN", b"abc", 4000), "truncated"),
    "pixels shorter than they say": (CLASS + element(0x7FE0, 0x0010, b"OW", b"abcd", 400), "truncated"),
    "no element": (b"", "empty"),
    "text without an end": (CLASS + element(0x0010, 0x4000, b"UT", b"abcd", UNDEFINED), "bad_length"),
    "a sequence of no items": (CLASS + element(0x0008, 0x1140, b"SQ", CLASS + SEQUENCE_END, UNDEFINED), "bad_sequence"),
    "an item that ends behind its sequence": (
        CLASS + element(0x0008, 0x1140, b"SQ", item(CLASS, 400), 24) + CLASS * 40,
        "bad_length",
    ),
    "fragments without an end": (
        CLASS + element(0x7FE0, 0x0010, b"OB", item(b"") + item(b"abcd"), UNDEFINED),
        "truncated",
    ),
    "fragments that are none": (CLASS + element(0x7FE0, 0x0010, b"OB", CLASS, UNDEFINED), "bad_fragment"),
    "a fragment of undefined length": (
        CLASS + element(0x7FE0, 0x0010, b"OB", item(b"", UNDEFINED), UNDEFINED),
        "bad_fragment",
    ),
    "very many empty elements": (CLASS * 900_000, "too_many_elements"),
    "zeros only": (bytes(64), "empty"),
    "pixels behind a null": (CLASS + bytes(8) + element(0x7FE0, 0x0010, b"OW", b"abcd"), "bad_length"),
    "a million and more empty elements": (
        CLASS + element(0x0008, 0x1140, b"SQ", item(element(8, 0x18, b"UI", b"") * 1_100_000, UNDEFINED), UNDEFINED),
        "too_many_elements",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str) -> None:
    data, reason = HOSTILE[name]
    assert refused(data) == reason


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_anything_at_all_ends(data: bytes) -> None:
    for syntax in (EXPLICIT, IMPLICIT, BIG, DEFLATED):
        made = Elements(syntax)
        try:
            made.feed(data)
            made.finish()
            dataset(made.header, syntax)
        except BadMessage:
            continue


def test_a_large_image_is_not_held() -> None:
    size = 300_000_000
    made = Elements(EXPLICIT)
    tracemalloc.start()
    try:
        made.feed(CLASS + element(0x7FE0, 0x0010, b"OW", b"", size))
        piece = bytes(1 << 20)
        left = size
        while left:
            made.feed(piece[: min(left, len(piece))])
            left -= min(left, len(piece))
        made.finish()
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert made.pixel_bytes == size


def test_very_many_items_are_left_out() -> None:
    many = [element(0x0009, 0x1000 + n, b"SQ", item(b"") * 8000 + SEQUENCE_END, UNDEFINED) for n in range(9)]
    made = followed(b"".join(many))
    assert made.header == b"".join(many[:4])
    assert len(made.left_out) == 5
    hidden = [element(0x0008, n, b"UN", item(b"") * 8000) for n in (0x1110, 0x1111, 0x1115, 0x1140, 0x114A)]
    made = followed(b"".join(hidden))
    assert len(made.header) == 5 * (12 + 8000 * 8)
    with pytest.raises(BadMessage, match="too_many_elements"):
        dataset(made.header, EXPLICIT)


def test_padding_behind_a_data_set() -> None:
    assert followed(body() + bytes(500)).size
    assert followed(body() + element(0xFFFC, 0xFFFC, b"OB", bytes(40))).left_out == ()


SECRETS = b"".join(
    element(group, number, vr, value)
    for group, number, vr, value in (
        (0x0008, 0x0005, b"CS", b"ISO_IR 9999 Secretname"),
        (0x0008, 0x0020, b"DA", b"Secretname"),
        (0x0010, 0x0010, b"PN", b"Secretname=\xff\xfe=^^^^^^^^^^"),
        (0x0010, 0x1020, b"DS", b"Secretname"),
        (0x0020, 0x000D, b"UI", b"Secretname"),
        (0x0020, 0x0013, b"IS", b"Secretname"),
        (0x0028, 0x0010, b"US", b"Sec"),
    )
)
READ = """
import logging, sys
logging.basicConfig(level="DEBUG")
from schemas.wire.dicom_elements import dataset
ds = dataset(sys.stdin.buffer.read(), "1.2.840.10008.1.2.1")
for tag in list(ds.keys()):
    try:
        ds[tag].value
    except Exception as error:
        print(type(error).__name__)
print("read", len(ds))
"""


def test_nothing_that_a_header_says_reaches_a_log() -> None:
    """In a process of its own, since pytest takes warnings away."""
    done = subprocess.run([sys.executable, "-c", READ], input=SECRETS, capture_output=True, cwd=ROOT, check=True)
    assert b"read 7" in done.stdout
    assert b"Secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("1.2.840.10008.1.2", True),
        ("2.25.1", True),
        ("1.02.3", True),
        ("", False),
        ("1..2", False),
        ("1.2.", False),
        ("../../etc/passwd", False),
        ("1.2/3", False),
        ("1" * 65, False),
        ("१.2", False),
        ("1.2\n", False),
    ],
)
def test_uid(text: str, good: bool) -> None:
    assert uid(text) is good


def test_files() -> None:
    made = meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", EXPLICIT, "CT_SCANNER")
    read = pydicom.dcmread(io.BytesIO(made + CLASS)).file_meta
    assert read.MediaStorageSOPInstanceUID == "1.2.3"
    assert read.SourceApplicationEntityTitle == "CT_SCANNER"
    assert read.FileMetaInformationGroupLength == len(made) - 128 - 4 - 12
    found = part10(io.BytesIO(made + CLASS))
    assert (found.syntax, found.sop_instance, found.offset) == (EXPLICIT, "1.2.3", len(made))
    assert part10(io.BytesIO(made[132:] + CLASS)).offset == len(made) - 132, "without a preamble"
    assert part10(io.BytesIO(CLASS)).syntax == EXPLICIT
    assert part10(io.BytesIO(struct.pack("<HHI", 8, 0x16, 4) + b"1.2\0")).syntax == IMPLICIT
    assert part10(io.BytesIO(struct.pack(">HH2sH", 8, 0x16, b"UI", 4) + b"1.2\0")).syntax == BIG
    packed = b"\x02\x00" + bytes(30)  # deflated data may begin like an element of the meta information
    assert part10(io.BytesIO(meta("1.2", "1.2", DEFLATED) + packed)).offset == len(meta("1.2", "1.2", DEFLATED))
    for data, reason in (
        (b"", "not_dicom"),
        (b"MSH|^~\\&|", "not_dicom"),
        (b"{" * 300, "not_dicom"),
        (made[:150], "bad_meta"),
        (meta("1.2", "1.2", "1.2.3.4") + CLASS, "unknown_syntax"),
        (meta("1.2", "../../x", EXPLICIT) + CLASS, "bad_meta"),
    ):
        with pytest.raises(BadMessage, match=reason):
            part10(io.BytesIO(data))
