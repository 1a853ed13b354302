"""Dead letters: what could not go on and why; shown to a person with a purpose; sent again once the cause is mended.

A letter is the event as it came, still sealed. The same failure read twice is one letter (`DeadLetter.place`). A
replay puts the event back on its topic under its own id, so that it can never be indexed twice, and leaves a mark on
the dead-letter topic, so that `list` knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from consumers.access import Caller
from infra.audit import Audit
from infra.crypto import open_payload
from infra.errors import BadMessage, KeyShredded, UsageError
from infra.kafka import Outgoing, Producer, headers, read_whole
from infra.keystore import KeyStore
from schemas.dead_letter import DeadLetter
from schemas.envelope import NAMES, Envelope, rfc3339
from schemas.registry import Domain

REPLAYED = "replayed_at"  # header of a mark: the letter of this event was sent again


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter, sealed. `number` is its place on the dead-letter topic: what `show` and `replay` take."""

    number: str  # partition-offset
    event_id: str
    letter: DeadLetter
    replayed_at: str  # RFC 3339; empty while nobody has
    sealed: bytes = dataclasses.field(repr=False)
    headers: dict[str, bytes] = dataclasses.field(repr=False)

    def row(self) -> dict[str, str]:
        """What may be printed: reasons and places, no content."""
        given = {name: self.headers.get(name, b"").decode() for name in ("source", "received_at", "trace_id")}
        made = {"number": self.number, "event_id": self.event_id, "replayed_at": self.replayed_at}
        return made | dataclasses.asdict(self.letter) | given


def letters(of: Domain) -> list[Letter]:
    """Every letter once, oldest first. Raises StackDown where no broker answers."""
    found: dict[str, Letter] = {}
    marks: dict[str, str] = {}
    for message in read_whole(of.dead_letters.name):
        given = headers(message)
        event_id = given.get("event_id", b"").decode()
        if REPLAYED in given:
            marks[event_id] = max(marks.get(event_id, ""), given[REPLAYED].decode())
            continue
        letter = DeadLetter.read(given.items())
        number = f"{message.partition()}-{message.offset()}"
        body = message.value()
        assert body is None or isinstance(body, bytes)
        found.setdefault(letter.place(event_id), Letter(number, event_id, letter, "", body or b"", given))
    rows = [
        dataclasses.replace(one, replayed_at=at if (at := marks.get(one.event_id, "")) >= one.letter.failed_at else "")
        for one in found.values()
    ]
    return sorted(rows, key=lambda one: one.letter.failed_at)


def one_of(all_of_them: Iterable[Letter], wanted: str) -> Letter:
    """A letter by number, or by the id of its event. Raises UsageError."""
    for one in all_of_them:
        if wanted in (one.number, one.event_id):
            return one
    raise UsageError(f"there is no dead letter {wanted!r}: `wardstream dlq list` gives the numbers")


def show(caller: Caller, one: Letter, of: Domain) -> bytes:
    """The message in clear, written into the audit first.

    Raises Denied where a patient in it has denied the purpose, KeyShredded for an erased person, SealBroken for an
    altered letter.
    """
    try:
        envelope = Envelope.read(one.headers.items())
    except BadMessage:
        raise UsageError("this letter's envelope cannot be read, so nothing tells which keys open it") from None
    _, store = KeyStore.local()
    found = store.of_tokens(envelope.subjects)
    keys = [key for token in envelope.subjects if (key := found[token]) is not None]
    if len(keys) < len(envelope.subjects):
        raise KeyShredded("a person in this message was erased")
    keys = [store.at_version(*one) for one in zip(keys, envelope.key_versions, strict=True)]
    refs = tuple(key.ref for key in keys)
    what = f"{of.name} dead letter {one.event_id}"
    caller.require_persons(refs or [None], entities=(what,), fields=("message",))
    Audit.local().write(caller.act("R", patients=refs, entities=(what,), fields=("message",)))
    return open_payload(keys, envelope.event_id, envelope.sealed(one.sealed))


def replay(caller: Caller, chosen: Iterable[Letter], of: Domain) -> int:
    """Put events back on their topic, then mark them; gives how many. Audited first. Raises PublishFailed.

    A crash between the two leaves letters that look unsent: sending them again changes nothing in the index.
    """
    batch = list(chosen)
    Audit.local().write(caller.act("E", entities=tuple(f"{of.name} dead letter {one.event_id}" for one in batch)))
    producer = Producer()
    try:
        now = rfc3339(datetime.now(UTC)).encode()
        producer.send_now(
            Outgoing(
                of.raw.name,
                (one.headers.get("subjects") or one.headers.get("source", b"")).split(b",")[0],
                one.sealed,
                [(name, one.headers[name]) for name in NAMES if name in one.headers],
                _partition(one, of),
            )
            for one in batch
        )
        producer.send_now(
            Outgoing(
                of.dead_letters.name,
                one.event_id.encode(),
                b"",
                [("event_id", one.event_id.encode()), (REPLAYED, now)],
            )
            for one in batch
        )
    finally:
        producer.close()
    return len(batch)


def _partition(one: Letter, of: Domain) -> int | None:
    """Where it was read, for a domain whose order is not the patient's: nothing in clear tells whose it is."""
    return int(one.letter.partition) if of.ordered_by != "patient" and one.letter.partition else None
