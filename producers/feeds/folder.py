"""Files and folders of messages: HL7 v2, one a file, many, framed or in a batch envelope; FHIR, as JSON or NDJSON,
each also in gzip; DICOM, whatever a file is called, and the files that a DICOMDIR names.

FHIR is read as a stream: a bulk export of any size takes no more memory than its largest resource.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from errno import errorcode
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from infra.errors import BadMessage, UsageError, WardstreamError
from infra.settings import settings
from producers.publish import Arrival, Receipt
from schemas.wire.bundle import Bundle, Event, single
from schemas.wire.fhir import Focus
from schemas.wire.hl7v2 import message_type, split_batch

if TYPE_CHECKING:
    from producers.imaging import Received

HL7 = (".hl7", ".hl7v2", ".er7")
LINES = (".ndjson", ".jsonl")
JSON = (".json", *LINES)
DICOM = (".dcm", ".ima", ".dicom")
GZIP = ".gz"
FHIR = (*JSON, *(one + GZIP for one in JSON))
ALL = HL7 + FHIR + DICOM
PREAMBLE_BYTES, PREFIX = 128, b"DICM"  # PS3.10 7.1
AHEAD = 256  # messages that may wait for the broker
PIECE = 1 << 20
FIRST_LINES = 100  # of which two tell NDJSON from a document
# A gzip file may grow this much (zlib's format allows 1,032 times), beyond what any file may: exports grow 10 to 30
# times, and what grows more is a bomb.
MOST_TIMES, FREE = 200, 64_000_000
BOM = b"\xef\xbb\xbf"
BUNDLE = b'"Bundle"'
# Whom others are about comes first, then where and by whom: a bulk export has a file or more of each type.
FIRST = ("Patient", "Organization", "Location", "Practitioner", "PractitionerRole", "Encounter")


@dataclass(frozen=True, slots=True)
class Message:
    """One HL7 v2 message of a file; `position` counts from 0."""

    file: Path
    position: int
    body: bytes = field(repr=False)

    @property
    def patient(self) -> str:
        """What keeps its order when many are sent at once: a file does."""
        return str(self.file)


@dataclass(frozen=True, slots=True)
class Item:
    """One message or resource, ready to be published or refused.

    `position` counts from 0: of the message in its file, of the event in its bundle, of the line in an NDJSON file.
    """

    file: Path
    position: int
    kind: str  # MSH-9, or the type of the resource; empty where it cannot be told
    made: Arrival | Received | BadMessage = field(repr=False)


@dataclass(frozen=True, slots=True)
class Published:
    """What the broker or the reader said: a receipt, or a refusal under a reason."""

    file: Path
    position: int
    kind: str
    end: Receipt | BadMessage


def no_dicom(path: Path) -> Iterator[Item]:
    """Where no images are read."""
    raise BadMessage("bad_media_type")


@dataclass(frozen=True, slots=True)
class Readers:
    """How arrivals are made, each raising BadMessage for what is not ours to take."""

    hl7: Callable[[bytes, datetime, BadMessage | None], Arrival]
    fhir: Callable[[Focus, datetime], Arrival]
    dicom: Callable[[Path], Iterator[Item]] = no_dicom


class Publishes(Protocol):
    """A publisher of whatever the items are made of."""

    @property
    def full(self) -> bool: ...

    async def publish(self, one: Any) -> Receipt: ...


def files(paths: Iterable[Path], suffixes: tuple[str, ...] = ALL) -> list[Path]:
    """The message files under paths, in order; of a bulk export, patients first. A file named outright is taken
    whatever its name, and of a folder every DICOM file where those are among the suffixes.

    Raises UsageError for a path that is not there, and where no file is found.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            found += sorted(one for one in path.rglob("*") if one.is_file() and _of_kind(one, suffixes))
        else:
            raise UsageError(f"there is no {path}")
    if not found:
        raise UsageError(f"no {', '.join(suffixes)} file in there")
    return sorted(found, key=_rank)


def skipped(paths: Iterable[Path], suffixes: tuple[str, ...] = ALL) -> list[Path]:
    """The files of other endings that lie in folders: they are not read."""
    inside = (one for path in paths if path.is_dir() for one in path.rglob("*"))
    return sorted(one for one in inside if one.is_file() and not _of_kind(one, suffixes))


def _of_kind(path: Path, suffixes: tuple[str, ...]) -> bool:
    return _ending(path) in suffixes or (DICOM[0] in suffixes and is_dicom(path))


def is_dicom(path: Path) -> bool:
    """By its ending, else by its prefix: names of DICOM files are mostly UIDs, or numbers."""
    ending = _ending(path)
    if ending in ALL:
        return ending in DICOM
    try:
        with path.open("rb") as file:
            return file.read(PREAMBLE_BYTES + len(PREFIX))[PREAMBLE_BYTES:] == PREFIX
    except OSError:
        return False


def _ending(path: Path) -> str:
    """.ndjson, and .ndjson.gz of what is in gzip."""
    name = path.name.lower().removesuffix(GZIP)
    return Path(name).suffix + GZIP * path.name.lower().endswith(GZIP)


def _rank(path: Path) -> int:
    """Patient.ndjson, 3.Patient.000.ndjson, Patient-example.json, Patient.ndjson.gz."""
    kind = next(iter(re.findall(r"[A-Za-z]+", path.stem)), "") if _ending(path) in FHIR else ""
    return FIRST.index(kind) if kind in FIRST else len(FIRST)


def messages(found: Iterable[Path]) -> Iterator[Message]:
    """The HL7 v2 messages of files."""
    for path in found:
        for position, body in enumerate(split_batch(path.read_bytes())):
            yield Message(path, position, body)


def items(found: Iterable[Path], readers: Readers) -> Iterator[Item]:
    """Everything in files, in order: by ending, and where that tells nothing by the first byte."""
    return of_each(found, lambda path: _of(path, readers), "no_resource")


def of_each(found: Iterable[Path], of: Callable[[Path], Iterator[Item]], empty: str) -> Iterator[Item]:
    """What `of` reads in each file. No file is silent: one with nothing in it is refused as `empty`, and one that
    breaks off, or cannot be read, is refused behind what was read of it.
    """
    for path in found:
        position = -1
        try:
            for item in of(path):
                position = item.position
                yield item
            if position < 0:
                raise BadMessage(empty)
        except BadMessage as bad:
            yield Item(path, position + 1, "", bad)
        except OSError as error:  # its errno's name; its text has the path
            yield Item(path, position + 1, "", BadMessage("unreadable_file", errorcode.get(error.errno or 0, "")))


def _of(path: Path, readers: Readers) -> Iterator[Item]:
    ending = _ending(path).removesuffix(GZIP)
    if ending in LINES:
        yield from _lines(path, readers)
    elif ending in JSON or (ending not in HL7 + DICOM and first_byte(path) in (b"{", b"[")):
        yield from _document(path, readers)
    elif is_dicom(path):
        yield from readers.dicom(path)
    elif path.suffix.lower() == GZIP:
        raise BadMessage("bad_media_type")  # HL7 v2 comes as it is
    else:
        yield from _messages(path, readers)


# --------------------------------------------------------------------------------------------------------------- bytes


class _Inflated(io.RawIOBase):
    """A gzip file as it was before. Raises BadMessage: bad_gzip (broken, cut off), too_large (a bomb)."""

    def __init__(self, path: Path) -> None:
        self._file = gzip.GzipFile(path)
        self._left = MOST_TIMES * path.stat().st_size + FREE

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        try:
            read = self._file.readinto(into)
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise BadMessage("bad_gzip") from None
        self._left -= read
        if self._left < 0:
            raise BadMessage("too_large")
        return read

    def close(self) -> None:
        self._file.close()
        super().close()


def _open(path: Path) -> BinaryIO:
    """A file's bytes, inflated where its name says that it is gzip."""
    if path.suffix.lower() == GZIP:
        return io.BufferedReader(_Inflated(path), PIECE)
    return path.open("rb")


def first_byte(path: Path) -> bytes:
    """The first byte that is no blank; nothing of an empty file."""
    with _open(path) as file:
        return file.read(4096).removeprefix(BOM).lstrip()[:1]


def _messages(path: Path, readers: Readers) -> Iterator[Item]:
    for message in messages([path]):
        made: Arrival | BadMessage
        try:
            if len(message.body) > settings().mllp_max_bytes:
                raise BadMessage("too_large")
            made = readers.hl7(message.body, datetime.now(UTC), None)
        except BadMessage as bad:
            made = bad
        yield Item(path, message.position, message_type(message.body), made)


def _document(path: Path, readers: Readers) -> Iterator[Item]:
    """A bundle or a single resource. NDJSON under this name is told by its first lines."""
    if _is_lines(path):
        yield from _lines(path, readers)
        return
    for position, event in enumerate(_events(lambda: _pieces(path))):
        yield _item(path, position, event, readers)


def _events(open: Callable[[], Iterable[bytes]]) -> Iterator[Event]:
    bundle = Bundle(open, settings().mllp_max_bytes)
    bundle.survey()
    yield from bundle.events()


def _pieces(path: Path) -> Iterator[bytes]:
    with _open(path) as file:
        while piece := file.read(PIECE):
            yield piece


def _is_lines(path: Path) -> bool:
    """Whether the first line is one whole object and another begins after it."""
    with _open(path) as file:
        said = (line for _ in range(FIRST_LINES) if (line := file.readline(PIECE).strip().removeprefix(BOM)))
        first, second = next(said, b""), next(said, b"")
    return first[-1:] == b"}" and second[:1] == b"{"


def _lines(path: Path, readers: Readers) -> Iterator[Item]:
    """One resource a line, or a bundle, which is cut as any is; a bad line is refused, and the next is read.

    Blank lines are none, wherever they stand.
    """
    for position, line in enumerate(read_lines(path, settings().mllp_max_bytes)):
        if line is None:
            yield Item(path, position, "", BadMessage("too_large"))
        elif (line.removeprefix(BOM) if position == 0 else line).strip():
            try:
                if BUNDLE in line:
                    for event in _events(lambda line=line: [line]):  # type: ignore[misc]
                        yield _item(path, position, event, readers)
                else:
                    made = single(line)
                    yield _item(path, position, Event(0, made.resource["resourceType"], "", made), readers)
            except BadMessage as bad:
                yield Item(path, position, "", bad)


def read_lines(path: Path, limit: int) -> Iterator[bytes | None]:
    """The lines of a file, None for one above the limit."""
    with _open(path) as file:
        while line := file.readline(limit + 2):
            if line.endswith(b"\n") or len(line) <= limit:
                yield line
                continue
            while (rest := file.readline(PIECE)) and not rest.endswith(b"\n"):
                pass
            yield None


def _item(path: Path, position: int, event: Event, readers: Readers) -> Item:
    made: Arrival | BadMessage
    if event.made is None:
        assert event.problem is not None
        made = event.problem
    else:
        try:
            made = readers.fhir(event.made, datetime.now(UTC))
        except BadMessage as bad:
            made = BadMessage(bad.reason, event.where or bad.where)
        except Exception as error:  # a fault of ours that one entry brings out; the rest goes on. Its text may tell
            made = BadMessage("unexpected", type(error).__name__)
    return Item(path, position, event.kind, made)


async def publish(publisher: Publishes, found: Iterable[Item]) -> list[Published]:
    """Publish in order, AHEAD at once; what became of each, in the same order, once the broker has confirmed all.

    Nothing is read ahead of what the publisher has room for: a file waits where a feed would be told to.
    """
    slots = asyncio.Semaphore(AHEAD)
    ends: list[Receipt | BadMessage] = []
    items: list[tuple[Path, int, str]] = []
    running: set[asyncio.Task[None]] = set()

    async def one(number: int, arrival: Arrival | Received) -> None:
        try:
            ends[number] = await publisher.publish(arrival)
        except WardstreamError as error:
            ends[number] = BadMessage(error.reason)
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        for item in found:
            items.append((item.file, item.position, item.kind))
            if isinstance(item.made, BadMessage):
                ends.append(item.made)
                continue
            ends.append(BadMessage("internal_error"))
            await slots.acquire()
            task = group.create_task(one(len(ends) - 1, item.made))
            running.add(task)
            task.add_done_callback(running.discard)
            del item
            await asyncio.sleep(0)  # so that the publisher holds it before it is asked for room
            while publisher.full and running:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    return [Published(*item, end) for item, end in zip(items, ends, strict=True)]
