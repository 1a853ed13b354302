"""A DICOM data set followed as its bytes come: bounded, iterative, and the header kept. Pure.

pydicom recurses into sequences without a limit, inflates without one and holds values of any size; so a stranger's data
set is walked by `Elements` before pydicom may parse what it kept. Nothing here is held but the header and a few bytes.

    elements = Elements(syntax)
    for piece in pieces: elements.feed(piece)     # raises BadMessage as soon as it is clear
    elements.finish()
    ds = dataset(elements.header, syntax)
"""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Generator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

from infra.errors import BadMessage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

IMPLICIT, EXPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
# JPIP references have no pixels, and are deflated likewise (PS3.5 A.7, A.12).
INFLATED = frozenset((DEFLATED, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"))
IMPLEMENTATION = "2.25.253176498735209283177893476281230471127"  # ours (PS3.7 D.3.3.2)
VERSION = "WARDSTREAM_1"
LARGEST_VALUE = 64 << 10  # of a top-level element that is kept
LARGEST_HEADER = 1 << 20
CONTENT = 0x0040A730  # of a structured report: its text is what it is for
DEEPEST = 32  # sequences in sequences; enhanced objects have six, structured reports some twenty
MOST_TOP = 1 << 16  # top-level elements; the standard has not 6,000 attributes
MOST_ELEMENTS = 1_000_000  # of all before the pixels: 20,000 frames of an enhanced object have half of that
# A deflated data set may grow this much, beyond what any may: a bomb grows 1,000 times, masks of segments 100.
MOST_TIMES, FREE = 200, 64_000_000
MOST_ITEMS = 32_768  # in a header: pydicom needs more than 1 KB for one, however small it is
PIXELS, PIXEL_GROUP = (0x7FE00008, 0x7FE00009, 0x7FE00010), 0x7FE0
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
PIECE = 1 << 20
_UID = re.compile(r"[0-9A-Za-z]+([._-][0-9A-Za-z]+)*", re.ASCII)
_ITEMS = tuple(struct.pack(f"{order}HH", ITEM >> 16, ITEM & 0xFFFF) for order in "<>")
Walk = Generator[int, bytes, None]


@dataclass(slots=True)
class _Open:
    """A sequence, an item, or the fragments of encapsulated pixels, whose end is not reached."""

    kind: str  # sequence, item, fragments
    end: int | None  # position; None: a delimiter ends it
    implicit: bool | None  # of its elements; None: not known before the first of them


class Elements:
    """`header`: the top-level elements before the pixels, as they came (of a deflated data set as inflated)."""

    def __init__(self, syntax: str) -> None:
        self.size = 0  # bytes that were fed
        self.pixel_bytes: int | None = None  # of native pixel data, as its element says
        self.encapsulated = False
        self.fragments = 0  # of encapsulated pixel data, its offset table among them
        self._implicit: bool | None = None
        self._order = ">" if syntax == BIG else "<"
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if syntax in INFLATED else None
        self._kept = bytearray()
        self._left_out: list[str] = []
        self._held: bytearray | None = None  # the top-level element that is being read, where it is kept
        self._limit = LARGEST_VALUE
        self._tag = 0
        self._position = 0  # in the data set, as inflated
        self._count = self._top = self._items = 0
        self._between = True  # whether the data set may end here
        self._ended = False  # what follows is padding
        self._skip = 0
        self._rest = bytearray()
        self._walk = self._elements()
        self._want = next(self._walk)

    @property
    def header(self) -> bytes:
        return bytes(self._kept)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Tags (GGGGEEEE) of the top-level elements before the pixels that are too large for the header."""
        return tuple(self._left_out)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Raises BadMessage: too_deep, too_many_elements, bad_length, bad_sequence, inflates_too_much, bad_deflate."""
        self.size += len(data)
        if self._inflater is None:
            self._follow(data)
            return
        left: bytes | memoryview = bytes(data)
        try:
            while left and not self._inflater.eof:
                piece = self._inflater.decompress(left, PIECE)
                left = self._inflater.unconsumed_tail
                if self._position + len(piece) > max(FREE, MOST_TIMES * self.size):
                    raise BadMessage("inflates_too_much")
                self._follow(piece)
        except zlib.error:
            raise BadMessage("bad_deflate") from None

    def finish(self) -> None:
        """Raises BadMessage("truncated") where the data set cannot end here, and ("empty") for none."""
        if self._inflater is not None:
            try:
                self._follow(self._inflater.flush())
            except zlib.error:
                raise BadMessage("bad_deflate") from None
            if not self._inflater.eof:
                raise BadMessage("truncated")
        if not self._count:
            raise BadMessage("truncated" if any(self._rest) or not (self._between or self._ended) else "empty")
        if self._ended:
            return
        if self._skip or not self._between or any(self._rest):  # a few zeros are padding too
            raise BadMessage("truncated")

    def _follow(self, data: bytes | bytearray | memoryview) -> None:
        if self._ended:
            self._pad(data)
            return
        if self._skip:
            taken = min(self._skip, len(data))
            self._skip -= taken
            self._position += taken
            if self._skip:
                return
            data = memoryview(data)[taken:]
        self._rest += data
        at = 0
        while True:
            if self._skip:
                taken = min(self._skip, len(self._rest) - at)
                self._skip -= taken
                self._position += taken
                at += taken
                if self._skip:
                    break
            if self._ended or len(self._rest) - at < self._want:
                break
            taken_bytes = bytes(self._rest[at : at + self._want])
            at += self._want
            self._position += self._want
            self._want = self._walk.send(taken_bytes)
        del self._rest[:at]
        if self._ended:
            self._pad(self._rest)
            self._rest.clear()

    def _pad(self, data: bytes | bytearray | memoryview) -> None:
        """Zeros, or a length before them was a lie: what stands here would be overlooked."""
        if bytes(data).strip(b"\0"):
            raise BadMessage("bad_length")

    # ------------------------------------------------------------------------------------------------------- the walk

    def _elements(self) -> Walk:
        """Top-level elements. Yields how many bytes it wants next; a value that nobody wants goes into `_skip`."""
        while True:
            self._between = True
            head = yield 8
            self._between = False
            tag = self._tag_of(head)
            if tag == 0:  # padding behind a data set that was written into blocks
                self._ended = True
                self._pad(head)
                yield 1
            self._held, self._tag, self._limit = (
                bytearray(head),
                tag,
                LARGEST_HEADER if tag == CONTENT else LARGEST_VALUE,
            )
            self._top += 1
            if self._top > MOST_TOP:
                raise BadMessage("too_many_elements")
            if self._implicit is None:
                self._implicit = _implicit(head)
            vr, length = yield from self._rest_of_head(head, self._implicit)
            group = tag >> 16
            if group == PIXEL_GROUP:
                self._held = None
                yield from self._pixels(tag, length)
            elif group > PIXEL_GROUP:  # digital signatures, padding: behind the pixels, and no business of a header
                self._held = None
                yield from self._value(vr, length, self._implicit)
            else:
                yield from self._value(vr, length, self._implicit)
                self._keep()

    def _keep(self) -> None:
        if self._held is not None and len(self._kept) + len(self._held) <= LARGEST_HEADER:
            self._kept += self._held
        else:
            self._left_out.append(f"{self._tag:08X}")
        self._held = None

    def _value(self, vr: bytes, length: int, implicit: bool) -> Walk:
        if length == UNDEFINED:
            if vr in (b"OB", b"OW"):
                yield from self._nested(_Open("fragments", None, implicit))
            elif vr in (b"SQ", b"UN", b""):  # UN of undefined length is a sequence (PS3.5 6.2.2)
                yield from self._nested(_Open("sequence", None, implicit))
            else:
                raise BadMessage("bad_length", f"{self._tag:08X}")
        elif vr == b"SQ" and length <= self._limit:
            yield from self._nested(_Open("sequence", self._position + length, implicit))
        else:
            yield from self._plain(length)

    def _nested(self, first: _Open) -> Walk:
        """Everything in a sequence, however deep, without recursion."""
        stack, depth = [first], 1
        while stack:
            top = stack[-1]
            if top.end is not None and self._position >= top.end:
                if self._position > top.end:
                    raise BadMessage("bad_length", f"{self._tag:08X}")
                stack.pop()
                continue
            head = yield from self._take(8)
            tag = self._tag_of(head)
            if tag in (ITEM, ITEM_END, SEQUENCE_END):
                length = struct.unpack_from(f"{self._order}I", head, 4)[0]
                if tag == ITEM and top.kind == "sequence":
                    self._items += 1
                    if self._items > MOST_ITEMS:
                        self._held = None
                    end = None if length == UNDEFINED else self._position + length
                    stack.append(_Open("item", end, top.implicit or None))  # explicit may hold implicit, as in UN
                elif tag == ITEM and top.kind == "fragments" and length != UNDEFINED:
                    yield from self._plain(length)
                elif (tag == SEQUENCE_END and top.kind != "item") or (tag == ITEM_END and top.kind == "item"):
                    if top.end is None:
                        stack.pop()
                else:
                    raise BadMessage("bad_sequence", f"{self._tag:08X}")
            elif top.kind != "item":
                raise BadMessage("bad_sequence", f"{self._tag:08X}")
            else:
                if top.implicit is None:
                    top.implicit = _implicit(head)
                vr, length = yield from self._rest_of_head(head, top.implicit)
                if length == UNDEFINED and vr in (b"OB", b"OW"):
                    stack.append(_Open("fragments", None, top.implicit))
                elif length == UNDEFINED and vr in (b"SQ", b"UN", b""):
                    stack.append(_Open("sequence", None, top.implicit))
                elif length == UNDEFINED:
                    raise BadMessage("bad_length", f"{self._tag:08X}")
                elif vr == b"SQ":
                    stack.append(_Open("sequence", self._position + length, top.implicit))
                else:
                    yield from self._plain(length)
                depth = sum(one.kind == "sequence" for one in stack)
                if depth > DEEPEST:
                    raise BadMessage("too_deep", f"{self._tag:08X}")

    def _pixels(self, tag: int, length: int) -> Walk:
        if length != UNDEFINED:
            if tag in PIXELS:
                self.pixel_bytes = length
            yield from self._plain(length)
            return
        self.encapsulated = True
        while True:
            head = yield 8
            found = self._tag_of(head)
            size = struct.unpack_from(f"{self._order}I", head, 4)[0]
            if found == SEQUENCE_END:
                return
            if found != ITEM or size == UNDEFINED:
                raise BadMessage("bad_fragment", "PixelData")
            self.fragments += 1
            yield from self._plain(size)

    def _plain(self, length: int) -> Walk:
        """A value: kept with its element where that has room for it, else passed over."""
        if self._held is not None and len(self._held) + length <= self._limit:
            if length:
                yield from self._take(length)
            return
        self._held = None
        self._skip = length
        yield 0  # so that positions count it

    def _take(self, count: int) -> Generator[int, bytes, bytes]:
        taken = yield count
        if self._held is not None:
            self._held += taken
            if len(self._held) > self._limit:
                self._held = None
        return taken

    def _rest_of_head(self, head: bytes, implicit: bool) -> Generator[int, bytes, tuple[bytes, int]]:
        """VR and length; no VR of an implicit one, and of one in which none stands, as some write them."""
        self._count += 1
        if self._count > MOST_ELEMENTS:
            raise BadMessage("too_many_elements")
        vr = head[4:6]
        if implicit or not b"AA" <= vr <= b"ZZ":
            return b"", struct.unpack_from(f"{self._order}I", head, 4)[0]
        if vr in LONG:
            more = yield from self._take(4)
            return vr, struct.unpack(f"{self._order}I", more)[0]
        return vr, struct.unpack_from(f"{self._order}H", head, 6)[0]

    def _tag_of(self, head: bytes) -> int:
        group, element = struct.unpack_from(f"{self._order}HH", head)
        return int(group << 16 | element)


def _implicit(head: bytes) -> bool:
    """Whether an element has no VR, by what stands there: senders err, also against their own transfer syntax."""
    return not (head[4:6].isalpha() and head[4:6].isupper())


# ----------------------------------------------------------------------------------------------------------- to pydicom


def dataset(header: bytes, syntax: str) -> Dataset:
    """A header that `Elements` kept, whose values are decoded when they are asked for.

    Raises BadMessage: bad_header, too_deep, too_many_elements.

    What pydicom takes for a sequence by its dictionary alone, `Elements` passed over as a value: it is read here, level
    by level, so that nobody falls into it later. What cannot be read as the sequence it should be is taken out.
    """
    from pydicom.filereader import read_dataset

    quiet()
    try:
        ds = read_dataset(io.BytesIO(header), syntax == IMPLICIT, syntax != BIG)
    except Exception:  # its text may hold a value
        raise BadMessage("bad_header") from None
    level, items = [ds], 0
    for _ in range(DEEPEST + 1):
        level = [item for one in level for item in _items(one)]
        items += len(level)
        if items > MOST_ITEMS:
            raise BadMessage("too_many_elements")
    if level:
        raise BadMessage("too_deep")
    return ds


def _items(ds: Dataset) -> list[Dataset]:
    """The items of all sequences of a data set. Only what may be one is decoded."""
    from pydicom.dataelem import RawDataElement

    found: list[Dataset] = []
    for one in list(ds.elements()):
        if isinstance(one, RawDataElement) and not (
            one.VR in (None, "SQ", "UN") and (one.value or b"").startswith(_ITEMS)
        ):
            continue
        try:
            element = ds[one.tag]
        except RecursionError:
            raise BadMessage("too_deep") from None
        except Exception:  # its text may hold a value
            del ds[one.tag]
            continue
        if element.VR == "SQ":
            found += element.value
    return found


@cache
def quiet() -> None:
    """pydicom warns of values that are not as they should be, and says them: patients' names in a log. Never again."""
    from pydicom import config

    config.settings.reading_validation_mode = config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="pydicom")


# ---------------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True, slots=True)
class Part10:
    """A file (PS3.10 7): where its data set begins, and what its meta information says."""

    syntax: str
    offset: int
    sop_class: str = ""
    sop_instance: str = field(default="", repr=False)

    @property
    def directory(self) -> bool:
        """Whether it is a DICOMDIR (PS3.10 8): names of files, and no image."""
        return self.sop_class == DICOMDIR


MOST_META = 64 << 10
PREAMBLE = 128
DICOMDIR = "1.2.840.10008.1.3.10"
_META = {0x00020002: "sop_class", 0x00020003: "sop_instance", 0x00020010: "syntax"}


def part10(file: BinaryIO) -> Part10:
    """With preamble and meta information, with either alone, or with none (then by what the first element looks like).

    Raises BadMessage: not_dicom, bad_meta, unknown_syntax.
    """
    file.seek(0)
    data = file.read(PREAMBLE + 4 + MOST_META)
    offset = PREAMBLE + 4 if data[PREAMBLE : PREAMBLE + 4] == b"DICM" else 0
    said, end = _meta_of(data, offset)
    syntax = said.get("syntax", "") or _guess(data[end : end + 8])
    if not known(syntax):
        raise BadMessage("unknown_syntax")
    return Part10(syntax, end, said.get("sop_class", ""), said.get("sop_instance", ""))


def _meta_of(data: bytes, at: int) -> tuple[dict[str, str], int]:
    """What of group 0002 we look at, and where it ends: explicit VR little endian, whatever follows."""
    said: dict[str, str] = {}
    stated = -1  # end by (0002,0000): often a lie, but what is deflated may look as if it went on
    while data[at : at + 2] == b"\x02\x00" and not (at == stated and said.get("syntax") in INFLATED):
        vr = data[at + 4 : at + 6]
        head = 12 if vr in LONG else 8
        if not b"AA" <= vr <= b"ZZ" or len(data) < at + head:
            raise BadMessage("bad_meta")
        length = int.from_bytes(data[at + 8 : at + 12] if head == 12 else data[at + 6 : at + 8], "little")
        value = data[at + head : at + head + length]
        if len(value) < length:
            raise BadMessage("bad_meta")
        tag = 0x00020000 | int.from_bytes(data[at + 2 : at + 4], "little")
        if tag in _META:
            text = value.decode("ascii", "replace").strip("\0 ")
            if text and not uid(text):
                raise BadMessage("bad_meta", f"{tag:08X}")
            said[_META[tag]] = text
        at += head + length
        if tag == 0x00020000 and length == 4:
            stated = at + int.from_bytes(value, "little")
    return said, at


def _guess(head: bytes) -> str:
    """The syntax of a data set of which nothing is said: it begins with a low group, and mostly with 0008."""
    if len(head) < 8:
        raise BadMessage("not_dicom")
    little, big = int.from_bytes(head[:2], "little"), int.from_bytes(head[:2], "big")
    spoken = head[4:6].isalpha() and head[4:6].isupper()
    if 0 < little <= 0x0020 and spoken:
        return EXPLICIT
    if 0 < big <= 0x0020 and spoken:
        return BIG
    if 0 < little <= 0x0020 and int.from_bytes(head[4:8], "little") <= LARGEST_VALUE:
        return IMPLICIT
    raise BadMessage("not_dicom")


def known(syntax: str) -> bool:
    """Whether pydicom knows a transfer syntax."""
    from pydicom.uid import UID

    return bool(uid(syntax)) and UID(syntax).is_transfer_syntax


def uid(text: str) -> bool:
    """Whether it is one (PS3.5 9.1), or what stands for one: devices put zeros in front of components, de-identifiers
    write hashes. Never a path, nor anything that is not printed.
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def meta(sop_class: str, sop_instance: str, syntax: str, calling: str = "") -> bytes:
    """Preamble and file meta information of a file that we write (PS3.10 7.1)."""
    body = _element(0x0001, b"OB", b"\0\1")
    for element, value in ((0x0002, sop_class), (0x0003, sop_instance), (0x0010, syntax), (0x0012, IMPLEMENTATION)):
        body += _element(element, b"UI", value.encode() + b"\0" * (len(value) % 2))
    body += _element(0x0013, b"SH", VERSION.encode())
    if calling:
        body += _element(0x0016, b"AE", calling.encode("ascii", "replace") + b" " * (len(calling) % 2))
    return bytes(PREAMBLE) + b"DICM" + _element(0x0000, b"UL", struct.pack("<I", len(body))) + body


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    head = struct.pack("<HH2s", 2, element, vr)
    return head + (struct.pack("<xxI", len(value)) if vr in LONG else struct.pack("<H", len(value))) + value
