"""Images at the edge: a data set into the object store as it comes, and what the publisher needs to know of it.

The object is a DICOM file (PS3.10): file meta information written by us, always the same for the same class, instance
and transfer syntax, then the data set exactly as it was received. So one instance has one digest, whoever sends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import pydicom.uid

from infra.audit import Act, Audit
from infra.crypto import keyed_hash
from infra.errors import BadMessage, ErasedPerson, KeyStoreBusy, Overloaded, WardstreamError
from infra.kafka import NotSent
from infra.keyring import Keyring
from infra.objects import Claim, Objects
from infra.settings import settings
from producers.instances import Instances, Kept
from producers.publish import Arrival, Publisher, Receipt
from schemas.peers import Peers
from schemas.record import Subject
from schemas.wire import dicom, dicom_header
from schemas.wire.dicom_elements import Elements, dataset, meta, uid

DOMAIN = "imaging"
SOURCE = "dicom"  # one for all: a SOP instance is the same whoever sends it
THREADS = 16  # of sealing and of waiting for disks
PIECE = 1 << 18  # bytes that are read at once
REFUSE, KEEP = "refuse", "keep"
CONFLICT = "instance_conflict"
UNSENT = (BadMessage, ErasedPerson, KeyStoreBusy, NotSent, Overloaded)  # what says that no event was published
NO_STUDY = "no_study_uid"
PIXEL_LENGTH = "pixel_length"
T = TypeVar("T")


class OutOfStorage(WardstreamError):
    """The object store cannot take it: the disk is full, the bucket is away."""

    exit_code = 3
    reason = "out_of_storage"


@dataclass(frozen=True, slots=True)
class Received:
    """One instance whose object is durable and whose event is yet to be published."""

    claim: Claim
    sop_class: str
    sop_instance: str = field(repr=False)
    study: str = field(repr=False)
    series: str = field(repr=False)
    syntax: str
    header: bytes = field(repr=False)
    left_out: tuple[str, ...]
    calling: str
    called: str
    flags: tuple[str, ...]
    subjects: tuple[Subject, ...] = field(repr=False)
    event_time: datetime | None
    received_at: datetime


class Incoming:
    """A data set on its way into the store: sealed and walked piece by piece, held nowhere. Calls block: use a thread.

    Raises BadMessage for what the data set is, OutOfStorage for what we are. Either way, and whenever it is given up,
    `abandon` leaves nothing behind.
    """

    def __init__(
        self, objects: Objects, peers: Peers, sop_class: str, sop_instance: str, syntax: str, ends: tuple[str, str]
    ) -> None:
        self.sop_class, self.sop_instance = sop_class, sop_instance
        self._syntax, self._peers, self._ends = syntax, peers, ends
        self._elements = Elements(syntax)
        self._objects = objects
        with _storage():
            self._writer = objects.create()
            self._writer.write(meta(sop_class, sop_instance, syntax, ""))

    def write(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._elements.feed(piece)
            with _storage():
                self._writer.write(piece)

    def finish(self) -> Received:
        """Whole and durable when this returns."""
        self._elements.finish()
        ds = dataset(self._elements.header, self._syntax)
        if required(ds, "SOPClassUID") != self.sop_class:
            raise BadMessage("other_class", "SOPClassUID")
        if required(ds, "SOPInstanceUID") != self.sop_instance:
            raise BadMessage("other_instance", "SOPInstanceUID")
        calling, called = self._ends
        peer = self._peers.of(calling, dicom_header.text(ds, "InstitutionName"))
        study = dicom_header.uid(ds, "StudyInstanceUID")
        with _storage():
            claim = self._writer.finish()
        return Received(
            claim=claim,
            sop_class=self.sop_class,
            sop_instance=self.sop_instance,
            study=study or self.sop_instance,
            series=dicom_header.uid(ds, "SeriesInstanceUID") or study or self.sop_instance,
            syntax=self._syntax,
            header=self._elements.header,
            left_out=tuple(self._elements.left_out),
            calling=calling,
            called=called,
            flags=tuple(_flags(ds, self._elements)),
            subjects=dicom_header.subjects(ds, peer, calling),
            event_time=dicom_header.event_time(ds, peer),
            received_at=datetime.now(UTC),
        )

    def abandon(self) -> None:
        self._writer.abandon()
        with suppress(OSError):
            self._objects.remove([self._writer.name])


def arrival(one: Received, key: bytes, flags: tuple[str, ...] = (), anew: bool = False) -> Arrival:
    """`key` is the keyring's for events. `anew`: it was told before, of an object that is no more."""

    def hashed(what: str, of: str) -> str:
        return keyed_hash(key, what.encode(), of.encode())[:16].hex()

    body = dicom.pack(
        dicom.Arrived(
            claim=one.claim,
            study=hashed("study", one.study),
            series=hashed("series", one.series),
            instance=hashed("instance", one.sop_instance),
            syntax=one.syntax,
            header=one.header,
            left_out=one.left_out,
            calling=one.calling,
            called=one.called,
            flags=one.flags + flags,
        )
    )
    return Arrival(
        domain=DOMAIN,
        source=SOURCE,
        peer="*|*",
        content_type=dicom.CONTENT_TYPE,
        charset="",
        ids=(one.sop_instance,),
        body=body,
        received_at=one.received_at,
        event_time=one.event_time,
        subjects=one.subjects,
        told=bytes.fromhex(one.claim.digest) + (one.claim.name.encode() if anew else b""),
        object=one.claim.name,
    )


class Images:
    """Publishes instances, each content of each once. Everything else goes to the publisher as it is."""

    def __init__(
        self,
        publisher: Publisher,
        keyring: Keyring,
        peers: Peers,
        instances: Instances,
        objects: Objects,
        audit: Audit,
    ) -> None:
        self._publisher, self.keyring, self.peers = publisher, keyring, peers
        self.instances, self.objects, self.audit = instances, objects, audit
        self._threads = ThreadPoolExecutor(THREADS, "images")
        self._turns: dict[bytes, list[Any]] = {}  # of instances under way: a lock, and how many want it

    @property
    def full(self) -> bool:
        return self._publisher.full

    def close(self) -> None:
        self._threads.shutdown()
        self.instances.close()

    async def aside(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run what waits for a disk in a thread of ours."""
        return await asyncio.wrap_future(self._threads.submit(call, *arguments))

    def incoming(self, sop_class: str, sop_instance: str, syntax: str, ends: tuple[str, str]) -> Incoming:
        """`ends` are the calling and the called AE title. Raises BadMessage("bad_uid"): it may be a path."""
        if not (uid(sop_class) and uid(sop_instance)):
            raise BadMessage("bad_uid")
        return Incoming(self.objects, self.peers, sop_class, sop_instance, syntax, ends)

    def hashed(self, what: str, of: str) -> bytes:
        return keyed_hash(self.keyring.event, what.encode(), of.encode())

    async def publish(self, one: Arrival | Received) -> Receipt:
        """The receipt once the broker has confirmed, as Publisher.publish gives it; an instance that is refused or
        came before leaves no object.

        Raises BadMessage("duplicate_instance") where another content of it is stored and policy refuses that.
        """
        if isinstance(one, Arrival):
            return await self._publisher.publish(one)
        _, receipt = await self.take(one.sop_instance, lambda: one)
        return receipt

    async def take(self, sop_instance: str, finish: Callable[[], Received]) -> tuple[Received, Receipt]:
        """Publish what `finish` makes of an instance. It runs in the thread that then looks for the same one: a change
        of threads costs as much as sealing 100 KB.
        """
        async with self._turn(self.hashed("instance", sop_instance)):
            one, mine, same, lost, others = await self.aside(self._finished, finish)
            try:
                return one, await self._publish(one, mine, same, lost, others)
            except (
                UNSENT
            ):  # after anything else its event may be published: the object stays, and the next try finds it
                await self.aside(self._undo, mine)
                raise

    def _finished(self, finish: Callable[[], Received]) -> tuple[Received, Kept, Kept | None, bool, list[Kept]]:
        one = finish()
        mine = Kept(
            instance=self.hashed("instance", one.sop_instance),
            digest=self.hashed("digest", one.claim.digest),
            name=one.claim.name,
            size=one.claim.size,
            sop_class=self.hashed("class", one.sop_class),
        )
        return one, mine, *self._known(mine)

    async def _publish(self, one: Received, mine: Kept, same: Kept | None, lost: bool, others: list[Kept]) -> Receipt:
        if same and same.event_id and not lost:
            await self.aside(self.objects.remove, [mine.name])
            return Receipt(same.event_id, True)
        flags: tuple[str, ...] = ()
        if others:
            await self._conflict(others[0], one.calling)
            flags = (CONFLICT,)
            if same is None or lost:
                await self.aside(self.instances.note, mine)
        anew = lost and same is not None and bool(same.event_id)
        receipt = await self._publisher.publish(arrival(one, self.keyring.event, flags, anew))
        if receipt.duplicate and same and not lost:  # published by somebody who then died: it names the first object
            await self.aside(self.objects.remove, [mine.name])
            await self.aside(self.instances.note, replace(same, event_id=receipt.event_id))
            return receipt
        if receipt.duplicate:  # what it names nobody finds here any more
            receipt = await self._publisher.publish(arrival(one, self.keyring.event, flags, anew=True))
        await self.aside(self.instances.note, replace(mine, event_id=receipt.event_id))
        if same and not lost:  # of a try of which nobody knew whether it was published: this one is the later
            await self.aside(self.objects.remove, [same.name])
        return receipt

    def _known(self, mine: Kept) -> tuple[Kept | None, bool, list[Kept]]:
        """The same content as it was kept before, whether its object is lost, and other contents of the instance.

        What has neither is noted before it is published, so that whoever comes after a kill can tell.
        """
        known = self.instances.of(mine.instance)
        same = next((kept for kept in known if kept.digest == mine.digest), None)
        lost = same is not None and not self.stored(same)
        others = [kept for kept in known if kept.digest != mine.digest and kept.event_id and self.stored(kept)]
        if not others and (same is None or lost):
            self.instances.note(mine)
        return same, lost, others

    def stored(self, kept: Kept) -> bool:
        with _storage():
            return self.objects.size(kept.name) == kept.size

    def _undo(self, mine: Kept) -> None:
        with suppress(OSError):
            self.objects.remove([mine.name])
        self.instances.forget(mine)

    async def _conflict(self, first: Kept, calling: str) -> None:
        """Another content under a name that is taken. Raises BadMessage where the policy refuses it."""
        refused = settings().dicom_conflict == REFUSE
        act = Act(
            "image",
            "C",
            who=calling,
            entities=(first.event_id,),
            outcome="4" if refused else "0",
            why=CONFLICT,
        )
        await self.aside(self.audit.write, act)
        if refused:
            raise BadMessage("duplicate_instance", "SOPInstanceUID")

    @asynccontextmanager
    async def _turn(self, instance: bytes) -> AsyncIterator[None]:
        """One at a time for each instance: two senders of the same make one event."""
        turn = self._turns.setdefault(instance, [asyncio.Lock(), 0])
        turn[1] += 1
        try:
            async with turn[0]:
                yield
        finally:
            turn[1] -= 1
            if not turn[1]:
                del self._turns[instance]


@contextmanager
def local(publisher: Publisher, peers: Peers) -> Iterator[Images]:
    """With the object store, the instances and the audit of this installation."""
    instances = Instances(settings().home / "instances.sqlite")
    images = Images(publisher, Keyring.local(), peers, instances, Objects.local(), Audit.local())
    try:
        yield images
    finally:
        images.close()


def required(ds: Any, keyword: str) -> str:
    if not (found := dicom_header.uid(ds, keyword)):
        raise BadMessage("missing_uid", keyword)
    return found


def _flags(ds: Any, elements: Elements) -> Iterator[str]:
    if not dicom_header.text(ds, "PatientID"):
        yield dicom_header.NO_PATIENT_ID
    if not dicom_header.uid(ds, "StudyInstanceUID"):
        yield NO_STUDY
    if elements.pixel_bytes is not None and not elements.encapsulated:
        wanted = _pixel_bytes(ds)
        if wanted is not None and elements.pixel_bytes < wanted:
            yield PIXEL_LENGTH


def _pixel_bytes(ds: Any) -> int | None:
    """What native pixel data has at least (PS3.5 8.1.1); None where the header does not say."""
    said = [dicom_header.number(ds, one) for one in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")]
    if not all(said):
        return None
    bits = dicom_header.number(ds, "NumberOfFrames") or 1.0
    for one in said:
        bits *= one or 1.0
    if dicom_header.text(ds, "PhotometricInterpretation") in ("YBR_FULL_422", "YBR_PARTIAL_422"):
        bits = bits * 2 / 3  # PS3.3 C.7.6.3.1.2: two chrominance values for every four of luminance
    return int(bits // 8) if bits < 1e18 else None


@contextmanager
def _storage() -> Iterator[None]:
    """What the operating system or the bucket says becomes a reason of ours."""
    try:
        yield
    except OSError:
        raise OutOfStorage("the object store cannot be used") from None


def syntaxes() -> frozenset[str]:
    """Every transfer syntax that pydicom knows."""
    return frozenset(str(one) for one in pydicom.uid.AllTransferSyntaxes)
