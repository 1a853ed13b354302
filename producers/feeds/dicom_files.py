"""DICOM files (PS3.10), and the DICOMDIRs that name them (PS3.3 F): into the object store as the node's images are.

An instance has the same digest whether it comes as a file or over an association.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from errno import errorcode
from pathlib import Path
from typing import BinaryIO

import pydicom.uid

from infra.errors import BadMessage, WardstreamError
from producers.feeds.folder import Item, is_dicom
from producers.imaging import PIECE, Images, Received, required
from schemas.wire import dicom_header
from schemas.wire.dicom_elements import Elements, Part10, dataset, part10

FILE_ID = re.compile(r"(?!\.)[A-Za-z0-9_. -]{1,64}")  # PS3.10 8.2 has capitals, digits and underscores alone
MOST_DIRECTORY = 1 << 26  # bytes of a DICOMDIR, which is held whole


def expand(found: Iterable[Path]) -> tuple[list[Path], list[Item]]:
    """The same files, in place of each DICOMDIR (PS3.3 F) those that it names; and what of them is refused."""
    files: dict[Path, Path] = {}
    refused: list[Item] = []
    for path in found:
        try:
            named = list(_named(path)) if is_dicom(path) else [path]
        except BadMessage as bad:
            refused.append(Item(path, 0, "", bad))
            continue
        except OSError:
            named = [path]  # whoever reads it says why it cannot be read
        for position, one in enumerate(named):
            if isinstance(one, BadMessage):
                refused.append(Item(path, position, "", one))
            else:
                files.setdefault(one.resolve(), one)
    return list(files.values()), refused


def _named(path: Path) -> Iterator[Path | BadMessage]:
    with path.open("rb") as file:
        try:
            head = part10(file)
        except BadMessage:
            head = None
        if head is None or not head.directory:
            yield path
            return
        if path.stat().st_size > MOST_DIRECTORY:
            raise BadMessage("too_large")
        _walked(file, head)  # pydicom recurses
        file.seek(head.offset)
        ds = dataset(file.read(), head.syntax)
    for record in dicom_header.items(ds, "DirectoryRecordSequence"):
        if parts := dicom_header.texts(record, "ReferencedFileID"):
            yield _inside(path.parent, parts)


def items(images: Images, path: Path) -> Iterator[Item]:
    """A DICOM file as an item."""
    yield _item(images, path)


def _item(images: Images, path: Path) -> Item:
    made: Received | BadMessage
    kind = ""
    try:
        made = read(path, images)
        kind = pydicom.uid.UID(made.sop_class).keyword or made.sop_class
    except WardstreamError as error:
        made = error if isinstance(error, BadMessage) else BadMessage(error.reason)
    except OSError as error:  # its errno's name; its text has the path
        made = BadMessage("unreadable_file", errorcode.get(error.errno or 0, ""))
    return Item(path, 0, kind, made)


def read(path: Path, images: Images) -> Received:
    """A DICOM file into the store, walked before anything is written.

    Raises BadMessage, OutOfStorage, and OSError where it cannot be read.
    """
    with path.open("rb") as file:
        head = part10(file)
        if head.directory:
            raise BadMessage("directory")
        ds = dataset(_walked(file, head).header, head.syntax)
        ends = ("", "")
        incoming = images.incoming(required(ds, "SOPClassUID"), required(ds, "SOPInstanceUID"), head.syntax, ends)
        try:
            file.seek(head.offset)
            incoming.write(_pieces(file))
            return incoming.finish()
        except BaseException:
            incoming.abandon()
            raise


def _walked(file: BinaryIO, head: Part10) -> Elements:
    """Raises BadMessage."""
    elements = Elements(head.syntax)
    file.seek(head.offset)
    for piece in _pieces(file):
        elements.feed(piece)
    elements.finish()
    return elements


def _inside(folder: Path, parts: tuple[str, ...]) -> Path | BadMessage:
    """A file that a DICOMDIR names, below its own folder and nowhere else: a tag is no path."""
    if all(FILE_ID.fullmatch(part) for part in parts):
        for one in (folder.joinpath(*parts), folder.joinpath(*(part.lower() for part in parts))):
            if one.is_file():
                if one.resolve().is_relative_to(folder.resolve()):
                    return one
                break  # by a link
        else:
            return BadMessage("missing_file", "ReferencedFileID")
    return BadMessage("outside_folder", "ReferencedFileID")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece
