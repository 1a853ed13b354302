"""From a message off the wire to an event the broker has confirmed: identify, seal, send, remember.

Arrivals from all connections are taken together: one look-up of keys, one send, one note, however many there are.
The next batch is prepared while the broker still confirms the last.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from infra import metrics
from infra.crypto import DataKey, keyed_hash, seal_payload
from infra.errors import BadMessage, ErasedPerson, Overloaded
from infra.kafka import NotSent, Outgoing, Producer, PublishFailed
from infra.keyring import Keyring
from infra.keystore import KeyStore, Wanted
from infra.retry import Target
from infra.settings import settings
from producers.seen import Answer, Seen
from schemas.dead_letter import DeadLetter
from schemas.envelope import Envelope, event_id, rfc3339
from schemas.record import Subject
from schemas.registry import DOMAINS
from schemas.signal import ERASED_PERSON
from schemas.signal import message as signal_message
from schemas.topics import SIGNALS

BATCH = 500
IN_FLIGHT = 2  # batches under way at once: more would be smaller, and cost more for each message
HELD_EVENTS = 4 * BATCH
LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message as a feed read it. `refused` says why it cannot be accepted: it becomes a dead letter."""

    domain: str
    source: str
    peer: str
    content_type: str
    charset: str
    ids: tuple[str, ...]  # the source's own ids of the message; empty where it has none
    body: bytes = field(repr=False)
    received_at: datetime
    event_time: datetime | None
    subjects: tuple[Subject, ...] = field(repr=False)
    refused: BadMessage | None = None
    told: bytes = field(default=b"", repr=False)  # what makes it one event, where that is not the whole body
    site: str = ""  # whose order it keeps, where that is not the patient's
    object: str = ""  # name of the object that it is of
    # The thing that it tells of as of its arrival: then it repeats the last telling of that thing alone, and what was
    # told before another is told anew.
    latest_of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an arrival: durable in every case. `reason` is empty for an accepted one."""

    event_id: str
    duplicate: bool
    reason: str = ""
    where: str = ""


class Publisher:
    """Shared by all connections of a process. Use as `async with`."""

    def __init__(self, producer: Producer, keyring: Keyring, keys: KeyStore, seen: Seen) -> None:
        self._producer, self._keyring, self._keys, self._seen = producer, keyring, keys, seen
        self._waiting: asyncio.Queue[tuple[Arrival, asyncio.Future[Receipt]]] = asyncio.Queue()
        self._held_events = self._held_bytes = 0
        self.broker = Target("kafka")
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._underway: dict[str, asyncio.Future[Receipt]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._noting: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Publisher:
        self._loop = asyncio.create_task(self._run(), name="publish")
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in (self._loop, *self._tasks):  # nobody is left who waits for an answer
            one.cancel()
        await asyncio.gather(self._loop, *self._tasks, return_exceptions=True)
        await asyncio.gather(*self._noting)  # what was answered is remembered, or a repeat is published once more

    async def publish(self, arrival: Arrival) -> Receipt:
        """Gives the receipt once the broker has confirmed.

        Raises PublishFailed where it did not, or has not lately, and Overloaded where no room came free: answer AR.
        """
        await self._room()
        if not self.broker.admits():
            raise NotSent("Kafka counts as away")
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._hold(1, len(arrival.body))
        try:
            self._waiting.put_nowait((arrival, receipt))
            return await receipt
        finally:
            self._hold(-1, -len(arrival.body))

    @property
    def full(self) -> bool:
        """Whether no more should be read off the wire for now."""
        return self._held_events >= HELD_EVENTS or self._held_bytes >= settings().edge_bytes

    def _hold(self, events: int, size: int) -> None:
        self._held_events += events
        self._held_bytes += size
        metrics.HELD_BYTES.set(self._held_bytes)

    async def _room(self) -> None:
        deadline = time.monotonic() + settings().edge_patience_seconds
        while self.full:
            if time.monotonic() > deadline:
                raise Overloaded("too much is waiting for the broker")
            await asyncio.sleep(LOOK_SECONDS)

    async def _run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            await self._slots.acquire()
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            sends = await self._prepare(batch)
            task = asyncio.create_task(self._confirm(sends))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _prepare(self, batch: list[tuple[Arrival, asyncio.Future[Receipt]]]) -> list[_Send]:
        """Sort out repeats and seal the rest. A failure here fails the batch's arrivals, never the loop."""
        fresh: dict[str, _Send] = {}
        for arrival, receipt in batch:
            event = event_id(self._keyring.event, arrival.source, arrival.ids, arrival.told or arrival.body)
            first = self._underway.get(event) or (fresh[event].receipt if event in fresh else None)
            if first is not None:  # the same bytes twice before the first were confirmed
                _follow(first, receipt)
                continue
            named = arrival.ids or arrival.latest_of
            control = keyed_hash(self._keyring.event, arrival.source.encode(), *(one.encode() for one in named))
            fresh[event] = _Send(event, control[:16].hex() if named else event, arrival, receipt)
        try:
            return await asyncio.to_thread(self._seal, list(fresh.values()))
        except Exception as error:  # every arrival of the batch learns of it
            for send in fresh.values():
                _settle(send.receipt, error)
            return []
        finally:
            self._underway |= {event: send.receipt for event, send in fresh.items() if send.message}

    def _seal(self, sends: list[_Send]) -> list[_Send]:
        """Look up what was answered, then keys, all at once; seal. Runs in a thread: it waits for disks."""
        new: list[_Send] = []
        controls: set[str] = set()
        latest: dict[str, str] = {}
        for send in sends:
            send.before = self._seen.before(send.event_id)
            if send.arrival.latest_of:
                last = latest.get(send.control) or self._seen.latest(send.control)
                if send.before is not None and last != send.event_id:
                    send.before, send.anew = None, self._anew(send)
                latest[send.control] = send.event_id
            if send.before is None:
                if send.arrival.ids and (send.control in controls or self._seen.reused(send.control)):
                    send.flags = ("control_id_reused",)
                controls.add(send.control)
                new.append(send)
        wanted = [_wanted(send) for send in new]
        found = iter(self._keys.resolve([person for persons in wanted for person in persons]))
        for send, persons in zip(new, wanted, strict=True):
            theirs = list(islice(found, len(persons)))
            keys = [key for key in theirs if key is not None]
            if len(keys) == len(theirs):
                send.message = self._message(send, keys)
                self._keys.count(keys)
            else:
                send.erased = True
                send.message = _alert(send)
        return sends

    def _anew(self, send: _Send) -> str:
        """The id of an event that was told before, and something else since."""
        at = rfc3339(send.arrival.received_at)
        return event_id(self._keyring.event, send.arrival.source, ("anew", send.event_id, at), b"")

    def _message(self, send: _Send, keys: Sequence[DataKey]) -> Outgoing:
        arrival = send.arrival
        patients = bool(keys)
        if not patients:
            keys = [self._keys.of_source(arrival.source, arrival.received_at.timestamp())]
            self._keys.count(keys)
        payload = seal_payload(keys, send.id, arrival.body)
        headers = Envelope(
            event_id=send.id,
            source=arrival.source,
            peer=arrival.peer,
            content_type=arrival.content_type,
            charset=arrival.charset,
            received_at=rfc3339(arrival.received_at),
            event_time=rfc3339(arrival.event_time) if arrival.event_time else "",
            trace_id=os.urandom(16).hex(),
            subjects=tuple(key.token for key in keys),
            key_versions=tuple(key.version for key in keys),
            flags=send.flags,
            content_key=payload.wrapped_key,
            object=arrival.object,
        ).headers()
        domain = DOMAINS[arrival.domain]
        if arrival.refused is None:
            key = (keys[0].token if patients else arrival.source).encode()
            if arrival.site:
                key = self._keys.order(arrival.site)
            return Outgoing(domain.raw.name, key, payload.body, headers)
        letter = DeadLetter(
            arrival.refused.reason, arrival.refused.where, "edge", "", "", "", rfc3339(arrival.received_at)
        )
        return Outgoing(domain.dead_letters.name, send.id.encode(), payload.body, headers + letter.headers())

    async def _confirm(self, sends: list[_Send]) -> None:
        try:
            new = [send for send in sends if send.message is not None]
            for send in sends:
                if send.before is not None:
                    metrics.DUPLICATES.labels(send.arrival.domain).inc()
                    before = send.before
                    _settle(send.receipt, Receipt(send.event_id, True, before.reason, before.where))
            try:
                await self._producer.send(send.message for send in new if send.message is not None)
            except Exception as error:
                self.broker.failed("send")
                for send in new:
                    _settle(send.receipt, error)
                return
            if not new:
                return
            self.broker.succeeded()
            for send in [send for send in new if send.erased]:
                metrics.PROCESSED.labels(send.arrival.domain, "dropped", ErasedPerson.reason).inc()
                _settle(send.receipt, ErasedPerson("a person in this message was erased after it happened"))
                new.remove(send)
            for send in new:
                metrics.PUBLISHED.labels(send.arrival.domain).inc()
                if send.flags:
                    metrics.REUSED_IDS.labels(send.arrival.domain).inc()
                answer = _answer(send)
                _settle(send.receipt, Receipt(send.id, False, answer.reason, answer.where))
            noting = asyncio.ensure_future(asyncio.to_thread(self._seen.note, [_answer(send) for send in new]))
            self._noting.add(noting)
            noting.add_done_callback(self._noting.discard)
            await asyncio.shield(noting)  # a repeat meets `_underway` yet
        finally:
            for send in sends:
                self._underway.pop(send.event_id, None)
            self._slots.release()


@dataclass(slots=True)
class _Send:
    event_id: str
    control: str
    arrival: Arrival
    receipt: asyncio.Future[Receipt]
    before: Answer | None = None
    flags: tuple[str, ...] = ()
    erased: bool = False  # of a person erased since it happened: its message is the alert
    message: Outgoing | None = None
    anew: str = ""

    @property
    def id(self) -> str:
        """Of the event; `event_id` tells whether it came before."""
        return self.anew or self.event_id


def _wanted(send: _Send) -> list[Wanted]:
    """The persons of an arrival. One without any number is a person known by this event alone."""
    happened = send.arrival.event_time or send.arrival.received_at
    return [
        Wanted(
            subject.kind,
            tuple((one.authority, one.type, one.value) for one in subject.linking())
            or (("wardstream", "event", f"{send.event_id}-{position}"),),
            happened.timestamp(),
        )
        for position, subject in enumerate(send.arrival.subjects)
    ]


def _alert(send: _Send) -> Outgoing:
    """What a privacy officer should hear of: somebody's system still sends what was erased. It names nobody."""
    happened = send.arrival.event_time or send.arrival.received_at
    key, value, headers = signal_message(
        ERASED_PERSON, send.arrival.domain, send.event_id, "", rfc3339(happened), {"source": send.arrival.source}, None
    )
    return Outgoing(SIGNALS.name, key, value, headers)


def _answer(send: _Send) -> Answer:
    refused = send.arrival.refused
    return Answer(send.event_id, send.control, refused.reason if refused else "", refused.where if refused else "")


def _follow(first: asyncio.Future[Receipt], second: asyncio.Future[Receipt]) -> None:
    """Give a repeat that came before the first was confirmed the same end, as a duplicate."""

    def finish(done: asyncio.Future[Receipt]) -> None:
        if done.cancelled():  # the first peer is gone, the event is not: the repeat may be sent again
            _settle(second, PublishFailed("the first sender left before the confirmation"))
        elif error := done.exception():
            _settle(second, error)
        else:
            receipt = done.result()
            _settle(second, Receipt(receipt.event_id, True, receipt.reason, receipt.where))

    first.add_done_callback(finish)


def _settle(receipt: asyncio.Future[Receipt], end: Receipt | BaseException) -> None:
    """End a receipt, unless nobody waits for it any more: its connection was dropped."""
    if receipt.done():
        return
    if isinstance(end, Receipt):
        receipt.set_result(end)
    else:
        receipt.set_exception(end)
