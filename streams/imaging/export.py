"""A Part 10 file without its patient: data set by PS3.15 Annex E, pixels without burned-in text. Pure, for the pool.

    done = export(file, out, secret, options)       done.clean, done.frames, done.blanked, done.instance

What is written is explicit VR little endian, native, whatever came: colour and palettes as RGB. A frame is decoded
twice, once to look for text and once to be written: so it is known before the first byte whether the object is clean,
and memory holds one frame. Looking is what takes time: half a second a frame of 512 x 512 without text.

PatientIdentityRemoved is YES where every frame was decoded, and nothing was found at the last look, or where there are
no pixels. It is NO, and the object is refused unless the caller asks for it, where that cannot be known: pixels that
nobody here decodes (video), documents and recorded voices in an object, text that does not go away, and a header that
says there is burned-in text where none was found. Faces in a head of CT or MR are not looked for.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from pydicom import DataElement, Dataset, dcmwrite
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from infra.errors import BadMessage
from schemas.wire import dicom_elements
from schemas.wire import dicom_header as header
from streams.imaging.burned_in import Box, black, blank, clean
from streams.imaging.deidentify import Option, SafePrivate, deidentify
from streams.imaging.display import Values, palette
from streams.imaging.pixels import DELIMITER, ITEM, UNDEFINED, Opened, Pixels, bad, opened

HEADER_BYTES = 64 << 20  # of one element: functional groups of many thousand frames; what is larger is left out
LARGEST = 0xFFFFFFFE  # bytes of a native value
BLOCK = 1 << 20
NOT_CLEAN = "pixels_not_clean"
UNREAD = ("EncapsulatedDocument", "PixelDataProviderURL")  # nobody looks into these
VOICES = "1.2.840.10008.5.1.4.1.1.9.4."  # Basic Voice, General Audio Waveform
COLOURS = range(0x00281100, 0x00281230)  # (0028,11xx), (0028,12xx): palettes
OFFSETS = (0x7FE00001, 0x7FE00002, 0x7FE00003)  # of fragments
WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}  # bytes
VRS = {"FloatPixelData": "OF", "DoubleFloatPixelData": "OD"}


@dataclass(frozen=True, slots=True)
class Exported:
    """`clean`: PatientIdentityRemoved is YES. `blanked`: boxes, of all frames. `instance`: its SOP Instance UID now."""

    instance: str
    clean: bool
    frames: int = 0
    blanked: int = 0


def export(
    file: BinaryIO | io.RawIOBase,
    out: BinaryIO,
    secret: bytes,
    options: frozenset[Option] = frozenset(),
    *,
    allow_unclean: bool = False,
    safe_private: SafePrivate = frozenset(),
) -> Exported:
    """`file` is read at any place and left open, `out` is written from front to back, at the end if at all.

    `allow_unclean`: what is not known to be clean is written too, and says so; pixels that cannot be decoded as they
    came, a document as a dummy. Other arguments are those of `deidentify`.

    Raises BadMessage: pixels_not_clean, directory, missing_uid, too_large, bad_pixels of a header that is none.
    """
    one = opened(file, HEADER_BYTES)
    if "DirectoryRecordSequence" in one.header:
        raise BadMessage("directory", "DirectoryRecordSequence")
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        header.required_uid(one.header, keyword)
    there = bool(one.keyword and one.bytes)
    try:
        pixels = Pixels(one) if there else None
        looked = _Looked.at(pixels) if pixels else _Looked([], clean=True)
    except BadMessage:
        pixels = looked = None
    known = looked is not None and looked.clean and not _more(one.header, looked.boxes)
    if not known and not allow_unclean:
        raise BadMessage(NOT_CLEAN, one.keyword or "SOPClassUID")
    with bad("header"):
        made = _header(one, secret, options, safe_private, known)
    instance = header.uid(made, "SOPInstanceUID")
    if pixels is not None and looked is not None:
        _write_frames(out, made, pixels, one.keyword, looked.boxes)
        return Exported(instance, known, pixels.count, sum(map(len, looked.boxes)))
    if there:
        _write_undecoded(out, made, one)
    else:
        out.write(_encoded(made, ExplicitVRLittleEndian))
    return Exported(instance, known)


@dataclass(frozen=True, slots=True)
class _Looked:
    """What is to be blanked, frame by frame, and whether nothing is left then."""

    boxes: list[tuple[Box, ...]]
    clean: bool

    @classmethod
    def at(cls, pixels: Pixels) -> _Looked:
        boxes, all_clean = [], True
        for number in range(pixels.count):
            found = clean(_frame(pixels, number), pixels.attributes(number))
            boxes.append(found.boxes)
            all_clean &= found.clean
        return cls(boxes, all_clean)


def _more(ds: Dataset, boxes: list[tuple[Box, ...]]) -> bool:
    """Whether there is something else that may tell of the patient: what nobody read, or what nobody found."""
    said = header.text(ds, "BurnedInAnnotation") == "YES"
    unread = any(keyword in ds for keyword in UNREAD) or header.uid(ds, "SOPClassUID").startswith(VOICES)
    return unread or (said and not any(boxes))


def _header(
    one: Opened, secret: bytes, options: frozenset[Option], safe_private: SafePrivate, pixels_clean: bool
) -> Dataset:
    """All but the pixels, in the order of bytes that is written."""
    if one.keyword:
        setattr(one.header, one.keyword, b"")  # for what is said of an object that has pixels
    made = deidentify(one.header, secret, options, pixels_clean=pixels_clean, safe_private=safe_private)
    for tag in OFFSETS:
        made.pop(tag, None)
    if one.keyword:
        made.pop(Tag(one.keyword), None)
        made.BurnedInAnnotation = "NO" if pixels_clean else "YES"
    if not one.syntax.is_little_endian:
        _swap(made)
    return made


def _frame(pixels: Pixels, number: int) -> Values:
    """Stored values without the overlays that older objects keep in bits above them (PS3.5 8.1.2)."""
    values, ds = pixels.frame(number), pixels.header
    stored = int(header.number(ds, "BitsStored") or 0)
    within = any(0x6000 <= tag.group <= 0x60FF and tag.elem == 0x0102 and ds[tag].value for tag in ds.keys())  # noqa: SIM118
    spare = 8 * values.dtype.itemsize - stored
    if not within or values.dtype.kind not in "iu" or not stored or spare <= 0:
        return values
    return np.asarray((values << spare) >> spare, values.dtype)


def _write_frames(out: BinaryIO, made: Dataset, pixels: Pixels, keyword: str, boxes: list[tuple[Box, ...]]) -> None:
    bits = int(header.number(pixels.header, "BitsAllocated") or 0)
    colours = header.text(pixels.header, "PhotometricInterpretation") == "PALETTE COLOR"

    def frame(number: int) -> Values:
        values, ds = _frame(pixels, number), pixels.attributes(number)
        cleaned = blank(values, boxes[number], black(values, ds))
        return palette(cleaned, ds) if colours else cleaned

    first = frame(0)
    size = (first.size * pixels.count + 7) // 8 if bits == 1 else first.nbytes * pixels.count
    if size + size % 2 > LARGEST:
        raise BadMessage("too_large", keyword)
    _describe(made, first, bits, colours)
    out.write(_encoded(made, ExplicitVRLittleEndian))
    vr = VRS.get(keyword, "OB" if first.itemsize == 1 else "OW")
    out.write(_element(keyword, vr, size + size % 2))
    frames = (first if number == 0 else frame(number) for number in range(pixels.count))
    for piece in _packed(frames) if bits == 1 else map(_little, frames):
        out.write(piece)
    out.write(bytes(size % 2))


def _describe(made: Dataset, frame: Values, bits: int, colours: bool) -> None:
    """The Image Pixel Module (PS3.3 C.7.6.3) of what is written."""
    if frame.ndim == 3:
        made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    if colours:
        made.PixelRepresentation = 0
        for tag in [tag for tag in made.keys() if tag in COLOURS]:  # noqa: SIM118 - a data set iterates over elements
            del made[tag]
    if frame.dtype.kind in "iu" and bits != 1:
        most = 8 * frame.itemsize
        stored = 8 if colours else min(most, int(header.number(made, "BitsStored") or most))
        made.BitsAllocated, made.BitsStored, made.HighBit = most, stored, stored - 1


def _packed(frames: Iterator[Values]) -> Iterator[bytes]:
    """One bit a value, the next frame within the last byte of the one before (PS3.5 8.1.1)."""
    rest = np.zeros(0, np.uint8)
    for frame in frames:
        bits = np.concatenate([rest, (frame.reshape(-1) != 0).astype(np.uint8)])
        whole = len(bits) // 8 * 8
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
        rest = bits[whole:]
    yield np.packbits(rest, bitorder="little").tobytes()


def _little(frame: Values) -> bytes:
    return frame.astype(frame.dtype.newbyteorder("<"), copy=False).tobytes()


def _write_undecoded(out: BinaryIO, made: Dataset, one: Opened) -> None:
    """Pixels as they came: fragments with nothing that stands behind them."""
    if one.bytes != UNDEFINED:
        size = min(one.bytes, one.end - one.start)
        if not one.syntax.is_little_endian or one.syntax.is_encapsulated:
            raise BadMessage("bad_pixels", one.keyword)
        out.write(_encoded(made, ExplicitVRLittleEndian))
        out.write(_element(one.keyword, VRS.get(one.keyword, "OW"), size + size % 2))
        _copy(out, one, one.start, size)
        out.write(bytes(size % 2))
        return
    fragments = list(one.fragments())
    out.write(_encoded(made, str(one.syntax) if one.syntax.is_encapsulated else str(ExplicitVRLittleEndian)))
    out.write(_element(one.keyword, "OB", UNDEFINED))
    for start, length in fragments:
        out.write(ITEM + length.to_bytes(4, "little"))
        _copy(out, one, start, length)
    out.write(DELIMITER + bytes(4))


def _copy(out: BinaryIO, one: Opened, start: int, length: int) -> None:
    one.file.seek(start)
    while length and (data := one.file.read(min(BLOCK, length))):
        out.write(data)
        length -= len(data)


def _encoded(made: Dataset, syntax: str) -> bytes:
    """File meta of our own, and the data set in explicit VR little endian, which encapsulated syntaxes have as well."""
    buffer = io.BytesIO()
    with bad("header"):
        dcmwrite(buffer, made, implicit_vr=False, little_endian=True, force_encoding=True)
    sop_class, instance = (header.uid(made, keyword) for keyword in ("SOPClassUID", "SOPInstanceUID"))
    return dicom_elements.meta(sop_class, instance, syntax) + buffer.getvalue()


def _element(keyword: str, vr: str, length: int) -> bytes:
    tag = Tag(keyword)
    head = tag.group.to_bytes(2, "little") + tag.elem.to_bytes(2, "little") + vr.encode() + bytes(2)
    return head + length.to_bytes(4, "little")


def _swap(made: Dataset) -> None:
    """pydicom leaves words in bytes as they came: they were big endian. Elements are the ones of the original: new."""
    waiting = [made]
    while waiting:
        ds = waiting.pop()
        for element in list(ds):
            if element.VR == "SQ":
                waiting += element.value
            elif isinstance(element.value, bytes) and (width := WORDS.get(element.VR)):
                swapped = np.frombuffer(element.value, f"u{width}").byteswap().tobytes()
                ds[element.tag] = DataElement(element.tag, element.VR, swapped)
