"""Frames of a DICOM file as arrays of stored values, one at a time: memory holds one however many there are. Pure.

pydicom's decoders turn a frame into values; where it lies is found here. pydicom's own way reads all fragments before
the wanted one, or all of them, and believes every length: here a frame of 2 GB of frames is a few reads, and what the
header claims is compared with what is there before anything is allocated.

Errors, everywhere: BadMessage of `no_pixels` (reports, documents, empty pixel data), `unknown_syntax`, `too_large`,
else `bad_pixels`, with the attribute that is wrong.
"""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from infra.errors import BadMessage, WardstreamError
from streams.imaging import decoders

FRAME_BYTES = 256 << 20  # of one frame, decoded
INFLATED_BYTES = 320 << 20  # of a deflated data set, which cannot be read but as a whole
HEADER_BYTES = 1 << 20  # of one element of the header: the largest tables have 128 KiB
FRAGMENTS = 1 << 20  # of one object; a frame has one, seldom two
SLACK_BYTES = 1 << 20  # what a compressed frame may hold beside its samples: colour profile, thumbnails
UNDEFINED = 0xFFFFFFFF
KEYWORDS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
ITEM, DELIMITER = (
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\xdd\xe0",
)  # (FFFE,E000), (FFFE,E0DD): little endian wherever there are any
END_OF_IMAGE = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # its texts quote what a header holds
warnings.filterwarnings("ignore", module="pydicom")
decoders.register()


@dataclass(frozen=True, slots=True)
class Opened:
    """A Part 10 file up to its pixels, and where those lie. `keyword` is empty where it has none, as a report."""

    syntax: UID
    header: Dataset = field(repr=False)
    keyword: str  # PixelData, FloatPixelData, DoubleFloatPixelData
    vr: str
    bytes: int  # of the value, as its element says: UNDEFINED of encapsulated pixels
    start: int
    end: int  # of the file
    file: BinaryIO = field(repr=False)  # of a deflated one as inflated

    def fragments(self) -> Iterator[tuple[int, int]]:
        """Start and length of each item of encapsulated pixels (PS3.5 A.4), the offset table first."""
        at = self.start
        while found := _item(self.file, at, self.end):
            yield found
            at = sum(found)


def opened(file: BinaryIO | io.RawIOBase, header_bytes: int = HEADER_BYTES) -> Opened:
    """`file` is left open. An element of the header that is larger than `header_bytes` is there without its value."""
    with bad("header"):
        syntax, implicit, body = _data_set(_Lent(file) if isinstance(file, io.RawIOBase) else file)
        if syntax == DeflatedExplicitVRLittleEndian:
            body = _inflated(body)
        header = read_dataset(
            body,
            is_implicit_VR=implicit,
            is_little_endian=syntax.is_little_endian,
            stop_when=lambda tag, vr, length: tag in KEYWORDS,
            defer_size=header_bytes,
        )
        keyword, vr, size = _pixel_element(body, implicit, syntax.is_little_endian)
        start = body.tell()
        return Opened(syntax, header, keyword, vr, size, start, body.seek(0, io.SEEK_END), body)


class Pixels:
    """The frames of one Part 10 file. `file` is read at any place, and left open.

    `header` is the data set up to the pixels, `count` the number of frames as the header has it.
    """

    def __init__(self, file: BinaryIO | io.RawIOBase | Opened) -> None:
        one = file if isinstance(file, Opened) else opened(file)
        self.syntax, self.header, self._file = one.syntax, one.header, one.file
        self._keyword, self._vr, self._bytes, self._start, self._end = (
            one.keyword,
            one.vr,
            one.bytes,
            one.start,
            one.end,
        )
        if not self._keyword or not self._bytes:
            raise BadMessage("no_pixels", "PixelData")
        try:
            self._decoder = get_decoder(self.syntax)
        except NotImplementedError:
            raise BadMessage("unknown_syntax", "TransferSyntaxUID") from None
        with bad("Image Pixel Module"):
            self._options = _options(self.header)
        self.count = int(self._options["number_of_frames"])
        if self.samples * self._sample_bytes > FRAME_BYTES:
            raise BadMessage("too_large", "Rows")
        self._fragments: tuple[array[int], array[int]] | None = None

    @property
    def samples(self) -> int:
        """Numbers in one frame."""
        options = self._options
        return int(options["rows"] * options["columns"] * options["samples_per_pixel"])

    def frame(self, number: int) -> NDArray[Any]:
        """Stored values of a frame, counted from 0: rows x columns, or rows x columns x 3 as RGB whatever lay there.

        Palette colour stays the index that it is (`display.palette` has the colours).
        """
        if not 0 <= number < self.count:
            raise BadMessage("bad_pixels", "NumberOfFrames")
        with bad(self._keyword):
            values = self._encapsulated(number) if self.syntax.is_encapsulated else self._native(number)
            values = values.astype(values.dtype.newbyteorder("="), copy=False)
            return np.ascontiguousarray(values)

    def frames(self) -> Iterator[NDArray[Any]]:
        for number in range(self.count):
            yield self.frame(number)

    def attributes(self, number: int) -> Dataset:
        """The header, and what the functional groups (PS3.3 C.7.6.16) say of this frame: its window, its spacing."""
        shared = self.header.get("SharedFunctionalGroupsSequence")
        each = self.header.get("PerFrameFunctionalGroupsSequence")
        if not shared and not each:
            return self.header
        with bad("Functional Groups"):
            said = self.header.group_dataset(0x0028)
            for keyword in ("Modality", "PresentationLUTShape"):
                if keyword in self.header:
                    said[keyword] = self.header[keyword]
            groups = [*(shared or [])[:1], *(each or [])[number : number + 1]]
            macros = [element.value[0] for group in groups for element in group if element.VR == "SQ" and element.value]
            for element in (element for macro in macros for element in macro):
                said[element.tag] = element
            said.set_original_encoding(*self.header.original_encoding)
        return said

    @property
    def _sample_bytes(self) -> int:
        floats = {"FloatPixelData": 4, "DoubleFloatPixelData": 8}
        return floats.get(self._keyword) or max(1, int(self._options["bits_allocated"]) // 8)

    def _native(self, number: int) -> NDArray[Any]:
        """PS3.5 8.1.1: frames follow one another without padding, those of 1 bit within a byte."""
        if self._bytes == UNDEFINED:
            raise BadMessage("bad_pixels", self._keyword)
        options = dict(self._options)
        bits = self.samples * (1 if options["bits_allocated"] == 1 else 8 * self._sample_bytes)
        there = 8 * min(self._bytes, self._end - self._start)
        if options["photometric_interpretation"] == "YBR_FULL_422":
            if there < bits * self.count:
                bits = bits * 2 // 3  # PS3.3 C.7.6.3.1.2
            else:  # not subsampled, whatever it says
                options["photometric_interpretation"] = "YBR_FULL"
        if bits * (number + 1) > there:
            raise BadMessage("bad_pixels", self._keyword)
        if options["bits_allocated"] == 1 and options["samples_per_pixel"] == 1:
            first, past = bits * number, bits * (number + 1)
            packed = np.frombuffer(_read(self._file, self._start + first // 8, -(-past // 8) - first // 8), np.uint8)
            one = np.unpackbits(packed, bitorder="little")[first % 8 : first % 8 + bits]
            return one.reshape(options["rows"], options["columns"])
        self._file.seek(self._start)
        return self._decoded(self._file, number, **options, pixel_vr=self._vr)

    def _encapsulated(self, number: int) -> NDArray[Any]:
        """PS3.5 A.4: the frame's own fragments, joined, given to the decoder as an object of one frame."""
        if self._bytes != UNDEFINED:
            raise BadMessage("bad_pixels", self._keyword)
        frame = self._joined(number)
        rows, columns = self._options["rows"], self._options["columns"]
        if (_claimed(frame) or (rows, columns)) != (
            rows,
            columns,
        ):  # the decoder would allocate what the codestream says
            raise BadMessage("bad_pixels", "Rows")
        return self._decoded(encapsulate([frame], has_bot=False), 0, **self._options | {"number_of_frames": 1})

    def _decoded(self, source: Any, number: int, **options: Any) -> NDArray[Any]:
        options = options | {"pixel_keyword": self._keyword}
        values: NDArray[Any] = self._decoder.as_array(source, index=number, validate=True, **options)[0]
        return values

    def _joined(self, number: int) -> bytes:
        pieces, size = [], 0
        most = 2 * self.samples * self._sample_bytes + SLACK_BYTES  # noise that grew by its compression
        for start, length in self._lies(number):
            size += length
            if size > most:
                raise BadMessage("too_large", self._keyword)
            pieces.append(_read(self._file, start, length))
        if not size:
            raise BadMessage("bad_pixels", self._keyword)
        return b"".join(pieces)

    def _lies(self, number: int) -> list[tuple[int, int]]:
        """Where the fragments of a frame are, (start, bytes): by the offset tables, else by a walk through all."""
        table = _item(self._file, self._start, self._end)
        if table is None:
            raise BadMessage("bad_pixels", self._keyword)
        first = table[0] + table[1]
        if found := self._by_offsets(number, first, table):
            return found
        if self._fragments is None:
            self._fragments = self._walk(first)
        starts, lengths = self._fragments
        if len(starts) == self.count:
            return [(starts[number], lengths[number])]
        every = zip(starts, lengths, strict=True)
        return list(every) if self.count == 1 else self._by_ends(number, every)

    def _by_offsets(self, number: int, first: int, table: tuple[int, int]) -> list[tuple[int, int]]:
        """Nothing where there is no table, or one that does not point at fragments."""
        extended = self.header.get("ExtendedOffsetTable"), self.header.get("ExtendedOffsetTableLengths")
        if all(isinstance(one, bytes) and len(one) >= 8 * self.count for one in extended):  # PS3.3 C.7.6.3.1.8
            offset, length = (int.from_bytes(one[8 * number : 8 * number + 8], "little") for one in extended)
            item = _item(self._file, first + offset, self._end)
            return [(item[0], min(item[1], length))] if item else []
        if table[1] != 4 * self.count:
            return []
        at, entry = table[0] + 4 * number, 8 if number + 1 < self.count else 4
        bounds = np.frombuffer(_read(self._file, at, entry), "<u4").tolist()
        at, end = first + bounds[0], first + bounds[1] if len(bounds) == 2 else self._end
        found: list[tuple[int, int]] = []
        while at < end and len(found) < FRAGMENTS and (item := _item(self._file, at, self._end)):
            found.append(item)
            at = item[0] + item[1]
        return found if at == end or len(bounds) == 1 else []

    def _by_ends(self, number: int, every: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
        """Several fragments a frame and no table: a frame ends with the fragment that ends its codestream."""
        found: list[tuple[int, int]] = []
        seen = 0
        for start, length in every:
            if seen == number:
                found.append((start, length))
            last = min(10, length)
            if END_OF_IMAGE in _read(self._file, start + length - last, last):
                seen += 1
                if seen > number:
                    break
        return found

    def _walk(self, at: int) -> tuple[array[int], array[int]]:
        starts, lengths = array("Q"), array("Q")
        while item := _item(self._file, at, self._end):
            if len(starts) == FRAGMENTS:
                raise BadMessage("too_large", self._keyword)
            starts.append(item[0])
            lengths.append(item[1])
            at = item[0] + item[1]
        return starts, lengths


class _Lent(io.BufferedReader):
    """Reads whole what a raw file gives in pieces, and leaves that file open."""

    def close(self) -> None:
        with suppress(ValueError):
            self.detach()


@contextmanager
def bad(where: str) -> Iterator[None]:
    """What pydicom and its decoders raise is `bad_pixels`: their texts hold values. Lack of memory is not theirs."""
    try:
        yield
    except (WardstreamError, MemoryError):
        raise
    except Exception:
        raise BadMessage("bad_pixels", where) from None


def _data_set(file: BinaryIO) -> tuple[UID, bool, BinaryIO]:
    """Transfer syntax, whether elements are without VR, and the file at the first byte of its data set."""
    file.seek(0)
    read_preamble(file, force=True)
    start = file.tell()
    meta = Dataset()
    if _read(file, start, 2) == b"\x02\x00":
        file.seek(start)
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        start = file.tell()
    said = UID(meta.get("TransferSyntaxUID") or "")
    explicit = (
        said == DeflatedExplicitVRLittleEndian or _read(file, start + 4, 2).isalpha()
    )  # some are not what they say
    file.seek(start)
    return said or (ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian), not explicit, file


def _inflated(file: BinaryIO) -> BinaryIO:
    """PS3.5 A.5: raw deflate (RFC 1951)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    out = io.BytesIO()
    while not inflater.eof and (data := file.read(1 << 16)):
        while data:
            out.write(inflater.decompress(data, 1 << 20))
            if out.tell() > INFLATED_BYTES:
                raise BadMessage("too_large", "Deflated")
            data = inflater.unconsumed_tail
    out.seek(0)
    return out


def _pixel_element(file: BinaryIO, implicit: bool, little: bool) -> tuple[str, str, int]:
    """Keyword, value representation and length of the element that stands here, and the file behind them."""
    order: Literal["little", "big"] = "little" if little else "big"
    head = file.read(8)
    if len(head) < 8:
        return "", "", 0
    group, element = int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order)
    vr, length = ("OW", head[4:]) if implicit else (head[4:6].decode("ascii"), file.read(4))
    return KEYWORDS.get(group << 16 | element, ""), vr, int.from_bytes(length, order)


def _options(header: Dataset) -> dict[str, Any]:
    """The Image Pixel Module (PS3.3 C.7.6.3) as the decoders take it."""
    options = as_pixel_options(header)
    options.pop("extended_offsets", None)
    photometric = str(options.pop("photometric_interpretation"))
    numbers = {name: int(value) for name, value in options.items()}
    for name in ("rows", "columns", "samples_per_pixel", "bits_allocated", "number_of_frames"):
        if numbers[name] < 1:
            raise BadMessage("bad_pixels", name)
    return numbers | {"photometric_interpretation": photometric}


def _item(file: BinaryIO, at: int, end: int) -> tuple[int, int] | None:
    """Start and length of the item (PS3.5 7.5) at a place; None at the delimiter, at the end, at anything else."""
    head = _read(file, at, 8) if at + 8 <= end else b""
    length = int.from_bytes(head[4:], "little")
    if head[:4] != ITEM:
        return None
    if at + 8 + length > end:  # UNDEFINED too
        raise BadMessage("bad_pixels", "PixelData")
    return at + 8, length


def _read(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(at)
    return file.read(length)


def _claimed(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns by the codestream: SIZ of JPEG 2000 (15444-1 A.5.1), SOF of JPEG and JPEG-LS (10918-1 B.2.2)."""
    if (at := frame[:4096].find(b"\xff\x4f\xff\x51")) >= 0:
        x, y, x0, y0 = (int.from_bytes(frame[at + skip : at + skip + 4]) for skip in (8, 12, 16, 20))
        return y - y0, x - x0
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 9 < len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = int.from_bytes(frame[at + 5 : at + 7]), int.from_bytes(frame[at + 7 : at + 9])
            return (rows, columns) if rows else None  # 0: told at the end (DNL)
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    return None
