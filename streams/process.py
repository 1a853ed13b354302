"""One batch of sealed events to everything that must become durable because of it. No I/O but key look-ups.

Whatever a single message does wrong ends in `letters` or `dropped` under a reason; only a fault of ours that no
message can be blamed for (a key store that does not know a key) is raised, and then nothing is acknowledged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from infra.crypto import (
    DataKey,
    blind_term,
    field_key_version,
    keyed_hash,
    open_field,
    open_payload,
    seal_field,
    seal_fields,
    seal_payload,
)
from infra.elastic import Write, dump
from infra.errors import BadMessage, ErasedPerson, KeyShredded, SealBroken
from infra.kafka import Outgoing
from infra.keyring import Keyring
from infra.keystore import KeyStore, Wanted
from schemas import derived
from schemas.dead_letter import DeadLetter
from schemas.derived import Derived
from schemas.document import Document, clear
from schemas.envelope import Envelope, document_id, event_id, rfc3339
from schemas.peers import Peers
from schemas.record import Part, Record, StaffMember
from schemas.registry import DOMAINS, Domain
from schemas.signal import ERASED_PERSON, Signal
from schemas.signal import message as signal_message
from schemas.topics import SIGNALS
from streams import fold
from streams.fold import Entity
from streams.stages import Stage
from streams.state import Fold

# What a score tells of its event beside itself: so that the ward, or the machine, can be asked for.
WHERE = ("unit", "facility", "patient_class", "site", "room", "bed", "resource_type", "resource_id")


@dataclass(frozen=True, slots=True)
class Incoming:
    """A Kafka message as the agent got it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes = field(repr=False)
    headers: list[tuple[str, bytes]] = field(repr=False)
    timestamp: float = 0.0  # seconds since 1970, when the broker took it


@dataclass(slots=True)
class Ready:
    """An event that was read: its documents and what else follows from it. `keys` are the newest of its subjects."""

    incoming: Incoming
    envelope: Envelope
    keys: list[DataKey]
    patients: bool  # the keys are patients' and not the source's week
    record: Record
    event_time: str
    documents: list[Document]
    changes: list[fold.Change]
    follows: list[Signal | Derived]
    staff: Mapping[Wanted, DataKey | None] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    # By subject its patient, by None the bed or the machine: as folded with this event, and its position.
    folded: dict[int | None, tuple[Entity, str]] = field(default_factory=dict)

    @property
    def derived(self) -> list[Derived]:
        return [one for one in self.follows if isinstance(one, Derived)]

    @property
    def signals(self) -> list[Signal]:
        return [one for one in self.follows if isinstance(one, Signal)]

    def key_of(self, subject: int | None) -> DataKey:
        return self.keys[subject or 0]


@dataclass(slots=True)
class Batch:
    epoch: int = 0  # of the key store, before any key was looked up
    tokens: frozenset[str] = frozenset()  # of everybody in it
    ready: list[Ready] = field(default_factory=list)
    unnamed: list[Ready] = field(default_factory=list)  # text was left out: read again once the entities are known
    unindexed: list[Ready] = field(default_factory=list)  # read, but the index refused them: each has a letter
    letters: list[tuple[Incoming, DeadLetter]] = field(default_factory=list)
    dropped: list[tuple[Incoming, str]] = field(default_factory=list)

    def refusals(self) -> list[bool]:
        """Whether each event became a letter, for the limit. A letter of what we derived ourselves is our own fault,
        and must not stop the records that it follows from."""
        derived_type = derived.CONTENT_TYPE.encode()
        letters = sum(dict(one.headers).get("content_type") != derived_type for one, _ in self.letters)
        return [False] * (len(self.ready) + len(self.unnamed)) + [True] * letters

    def take_in(self, named: Batch) -> None:
        """What waited for a name is as all others, in the order in which it came."""
        self.unnamed = []
        self.unindexed += named.unindexed
        self.letters += named.letters
        self.ready += named.ready
        self.ready.sort(key=lambda event: (event.incoming.partition, event.incoming.offset))


class Processor:
    """`rebuilding`: an index is made anew, with the newest blind key alone; live documents carry the terms of all."""

    def __init__(
        self, domain: Domain, stage: Stage, peers: Peers, keyring: Keyring, keys: KeyStore, *, rebuilding: bool = False
    ) -> None:
        self.domain, self.stage, self._rebuilding = domain, stage, rebuilding
        self._peers, self._keyring, self._keys = peers, keyring, keys

    def read(self, incoming: Sequence[Incoming]) -> Batch:
        """Unseal, read, validate, seal again field by field."""
        batch = Batch(self._keys.epoch())
        envelopes: list[tuple[Incoming, Envelope]] = []
        for message in incoming:
            try:
                envelopes.append((message, Envelope.read(message.headers)))
            except BadMessage as bad:
                batch.letters.append((message, letter(message, bad)))
        batch.tokens = frozenset(token for _, envelope in envelopes for token in envelope.subjects)
        keys = self._keys.of_tokens(batch.tokens)
        for message, envelope in envelopes:
            mine = [key for token in envelope.subjects if (key := keys[token]) is not None]
            if len(mine) < len(envelope.subjects):
                batch.dropped.append((message, ErasedPerson.reason))
            else:
                self._take(batch, message, envelope, mine)
        self._seal(batch)
        batch.unnamed = [event for event in batch.ready if event.record.unnamed]
        batch.ready = [event for event in batch.ready if not event.record.unnamed]
        self._keys.count(key for key in keys.values() if key is not None)
        return batch

    def _take(
        self,
        batch: Batch,
        message: Incoming,
        envelope: Envelope,
        keys: list[DataKey],
        known: Collection[str] | None = None,
    ) -> None:
        try:
            batch.ready.append(self._read(message, envelope, keys, known))
        except BadMessage as bad:
            batch.letters.append((message, letter(message, bad)))
        except SealBroken as broken:
            batch.letters.append((message, letter(message, BadMessage(broken.reason))))
        except Exception as error:
            batch.letters.append((message, letter(message, _unexpected(error))))

    def families(self, batch: Batch) -> dict[str, dict[str, str]]:
        """Of every patient whose text was left out: all references of the person, and where each one's entity lies."""
        refs = {key.ref for event in batch.unnamed for key in event.keys}
        return {
            ref: {one: entity_id(self._keyring, "patient", one, "") for one in self._keys.family(ref)} for ref in refs
        }

    def name(
        self, batch: Batch, families: Mapping[str, Mapping[str, str]], entities: Sequence[tuple[str, Entity]]
    ) -> Batch:
        """Read again what left its text out, now with all that is known of its patients; gives what became of it.

        Where somebody is not known by name, nothing could be removed from the text: it stays left out.
        """
        known = {ref: self._known(family, entities) for ref, family in families.items()}
        named = Batch(batch.epoch)
        still: list[Ready] = []
        for event in batch.unnamed:
            terms = [known[key.ref] for key in event.keys]
            if None in terms:
                still.append(event)
            else:
                every = {word for words in terms for word in words or ()}
                self._take(named, event.incoming, event.envelope, event.keys, every)
        self._seal(named)
        named.ready += still
        return named

    def _known(self, family: Mapping[str, str], entities: Sequence[tuple[str, Entity]]) -> set[str] | None:
        """The words that give a person away; None for one who is not known by name."""
        refs = {made: ref for ref, made in family.items()}
        known: set[str] = set()
        named = False
        for made, entity in entities:
            if made in refs and (sealed := entity.get("sealed")):
                terms = self._terms(partial(self._keys.of_ref, refs[made]), made, sealed)
                if len(terms) > fold.MOST_TERMS:
                    return None
                known.update(terms)
                named = named or (bool(terms) and "name" in sealed)
        return known if named else None

    def _terms(self, of_version: Callable[[int], DataKey], made: str, sealed: Mapping[str, str]) -> list[str]:
        """What an entity keeps of its person's words; none of one who is being erased."""
        if (said := sealed.get(fold.TERMS)) is None:
            return []
        try:
            key = of_version(field_key_version(said))
        except KeyShredded:
            return []
        words: list[str] = json.loads(open_field(key, self.domain.name, made, fold.TERMS, said))
        return words

    def _read(self, message: Incoming, envelope: Envelope, keys: list[DataKey], known: Collection[str] | None) -> Ready:
        openers = [self._keys.at_version(*one) for one in zip(keys, envelope.key_versions, strict=True)]
        body = open_payload(openers, envelope.event_id, envelope.sealed(message.value))
        record = self.stage.read(body, envelope, self._peers, known)
        patients = bool(record.subjects)
        if patients and len(record.subjects) != len(keys):
            raise BadMessage("subjects_differ")
        made, at = self.stage.document(record), rfc3339(record.event_time or envelope.received())
        return Ready(
            message,
            envelope,
            keys,
            patients,
            record,
            at,
            made,
            self.stage.analyse(record, made, at),
            self.stage.derive(record),
        )

    def _seal(self, batch: Batch) -> None:
        staff = self._staff_keys(batch.ready)
        self._keys.count(key for key in staff.values() if key is not None)
        read, batch.ready = batch.ready, []
        for event in read:
            event.staff = staff
            try:
                for part, document in enumerate(event.documents):
                    made = document_id(event.envelope.event_id, part)
                    event.writes.append(Write(made, dump(self._source(event, document, part, made))))
                batch.ready.append(event)
            except Exception as error:
                batch.letters.append((event.incoming, letter(event.incoming, _unexpected(error))))

    def _source(self, event: Ready, document: Document, part: int, made: str) -> dict[str, Any]:
        envelope, key, domain = event.envelope, event.key_of(document.subject), self.domain.name
        sealed: dict[str, Any] = dict(seal_fields(key, domain, made, document.identifying))
        refs: list[str] = []
        for name, members in document.staff.items():
            sealed[name] = self._sealed_staff(event, members, made, name)
            refs += [one["ref"] for one in sealed[name]]
        source: dict[str, Any] = {
            "event_id": envelope.event_id,
            "part": part,
            "kind": document.kind,
            "event_time": event.event_time,
            "received_at": envelope.received_at,
            "source": envelope.source,
            "trace_id": envelope.trace_id,
            **document.clear,
        }
        if part < len(event.record.versions) and (version := event.record.versions[part]):
            hashed = keyed_hash(self._keyring.event, envelope.source.encode(), version.encode())
            source["version_of"] = hashed[:16].hex()
            source["told_at"] = rfc3339(event.record.told_at) if event.record.told_at else event.event_time
        if envelope.flags:
            source["flags"] = [*document.clear.get("flags", ()), *envelope.flags]
        if event.patients and document.subject is not None:
            source["patient_ref"] = key.ref
        elif sealed:
            source["sealed_by"] = key.ref
        if document.blind:
            sought = dict.fromkeys(document.blind)
            source["blind"] = [blind_term(key, *one) for key in self._blinds() for one in sought]
        if refs:
            source["staff_ref"] = list(dict.fromkeys(refs))
        if sealed:
            source["sealed"] = sealed
        return source

    def _sealed_staff(self, event: Ready, members: Sequence[StaffMember], made: str, name: str) -> list[dict[str, str]]:
        """Each member under his or her own key; of an erased one nothing is kept, not even who it was."""
        sealed = []
        for member in members:
            theirs = event.staff[_staff_wanted(member, event.envelope.source)]
            if theirs is not None and theirs.since <= _seconds(event):
                text = _staff_text(member)
                sealed.append({"ref": theirs.ref, "seal": seal_field(theirs, self.domain.name, made, name, text)})
        return sealed

    def _blinds(self) -> list[bytes]:
        newest, *older = self._keyring.blinds.values()
        return [newest] if self._rebuilding else [newest, *older]

    def _staff_keys(self, ready: list[Ready]) -> dict[Wanted, DataKey | None]:
        latest: dict[Wanted, float] = {}
        for event in ready:
            at = _seconds(event)
            for document in event.documents:
                for members in document.staff.values():
                    for member in members:
                        wanted = _staff_wanted(member, event.envelope.source)
                        latest[wanted] = max(at, latest.get(wanted, 0.0))
        asked = [replace(one, at=at) for one, at in latest.items()]
        return dict(zip(asked, self._keys.resolve(asked), strict=True))

    def folds(self, ready: Sequence[Ready]) -> dict[str, Fold]:
        """What becomes of each entity that these events touch, by the entity's id."""
        steps: dict[str, list[tuple[Ready, fold.Change]]] = {}
        for event in ready:
            for change in event.changes:
                steps.setdefault(self._entity_id(event, change), []).append((event, change))
        return {made: partial(self._folded, made, some) for made, some in steps.items()}

    def _folded(self, made: str, steps: list[tuple[Ready, fold.Change]], old: Entity | None) -> Entity | None:
        entity = old
        for event, change in steps:
            entity = self._fold(event, change, made, entity)
        return entity if entity is not old else None

    def _fold(self, event: Ready, change: fold.Change, made: str, old: Entity | None) -> Entity:
        key = event.key_of(change.subject)
        at = fold.position(change.at or event.event_time, event.envelope.event_id)

        staff = {name: self._sealed_staff(event, some, made, name) for name, some in change.staff.items()}
        if staff:  # who it is now, and nobody where that one was erased
            refs = [one["ref"] for some in staff.values() for one in some]
            named = {name: "" if some else None for name, some in staff.items()}
            clear = change.clear | {"staff_ref": refs or None}
            change = replace(change, clear=clear, identifying=change.identifying | named)

        def seal(name: str, value: str) -> Any:
            return staff[name] if name in staff else seal_field(key, self.domain.name, made, name, value)

        common = {"source": event.envelope.source, "part": -1}
        if self.stage.follows_outcomes:
            common["received_at"] = event.envelope.received_at
        if change.subject is not None:
            common["patient_ref"] = key.ref
        if change.alike:
            common[change.alike] = keyed_hash(self._keyring.event, change.alike.encode(), change.number.encode())[
                :16
            ].hex()
        entity = fold.fold(old, change, at, common, seal)
        if change.terms:
            sealed = entity.get("sealed", {})
            known = self._terms(partial(self._keys.at_version, key), made, sealed)
            if (terms := fold.joined(known, change.terms)) != tuple(known):
                entity = entity | {"sealed": sealed | {fold.TERMS: seal(fold.TERMS, json.dumps(terms))}}
        if not change.number or change.subject is None:
            event.folded[change.subject] = entity, at
        return entity

    def _entity_id(self, event: Ready, change: fold.Change) -> str:
        """One entity of a kind per patient reference and number; the number itself may identify, so it is hashed."""
        ref = event.key_of(change.subject).ref if change.subject is not None else ""
        return entity_id(self._keyring, change.kind, ref, change.number)

    def relatives(self, ready: Sequence[Ready]) -> dict[tuple[str, int | None], set[str]]:
        """Patient entities of the same person under other references, by event and subject: merges before the event.

        Before, by when both came in, and not by when they happened: so an event that is scored again, after a merge
        that was told later, is scored as it was.
        """
        refs = {event.key_of(subject).ref for event in ready if event.patients for subject in event.folded}
        merges = self._keys.merges_of(refs)
        found: dict[tuple[str, int | None], set[str]] = {}
        for event in ready if merges else ():
            for subject in event.folded if event.patients else ():
                ref, when = event.key_of(subject).ref, event.envelope.received().timestamp()
                if others := fold.family_at(ref, merges, when) - {ref}:
                    ids = {entity_id(self._keyring, "patient", one, "") for one in others}
                    found[event.envelope.event_id, subject] = ids
        return found

    def scored(self, event: Ready, number: int, subject: int | None, score: Part) -> Write:
        """The document of a score; `number` tells the scores of an event apart, always in the same way."""
        part = len(event.documents) + number
        made = document_id(event.envelope.event_id, part)
        where = next((one.clear for one in event.documents if one.subject == subject), {})
        said: dict[str, Any] = {name: where[name] for name in WHERE if name in where}
        document = Document(score.kind, subject, said | {name: clear(value) for name, _, value in score.fields()})
        return Write(made, dump(self._source(event, document, part, made)))

    def merges(self, ready: Sequence[Ready]) -> list[tuple[str, str, float, float]]:
        """References (prior, survivor) of this batch's merges, when each happened, and when it came in."""
        return [
            (
                event.keys[merge.prior].ref,
                event.keys[merge.survivor].ref,
                _seconds(event),
                event.envelope.received().timestamp(),
            )
            for event in ready
            for merge in event.record.merges
        ]

    def sealed(self, batch: Batch) -> list[Outgoing]:
        """Sealed records, for before anything is indexed: what can be found can be rebuilt."""
        return [
            self._sealed(event.incoming, event.envelope.event_id, event.incoming.value)
            for event in (*batch.ready, *batch.unnamed)
        ]

    def _sealed(self, message: Incoming, event_id: str, value: bytes | None) -> Outgoing:
        """A record in the partition that its event was read from; without a value, the tombstone that removes it."""
        headers = message.headers if value is not None else [("event_id", event_id.encode())]
        return Outgoing(self.domain.sealed.name, event_id.encode(), value, headers, message.partition)

    def outgoing(self, batch: Batch) -> list[Outgoing]:
        """What follows from events, dead letters, and tombstones for the sealed records of what the index refused."""
        made = [self._signal(event, signal) for event in batch.ready for signal in event.signals]
        made += self.derived(batch)
        made += [self._alert(message) for message, why in batch.dropped if why == ErasedPerson.reason]
        made += [self._sealed(event.incoming, event.envelope.event_id, None) for event in batch.unindexed]
        for message, reason in batch.letters:
            event_id = dict(message.headers).get("event_id", b"")
            made.append(
                Outgoing(self.domain.dead_letters.name, event_id, message.value, message.headers + reason.headers())
            )
        return made

    def derived(self, batch: Batch) -> list[Outgoing]:
        """Events of other domains that follow from these: the same ones however often they are read."""
        return [self._derived(event, one, number) for event in batch.ready for number, one in enumerate(event.derived)]

    def _signal(self, event: Ready, signal: Signal) -> Outgoing:
        id, made = event.envelope.event_id, document_id(event.envelope.event_id, signal.part)
        key = event.key_of(signal.subject)
        patient = key.ref if event.patients and signal.subject is not None else None
        said = {"patient_ref": patient, "detail": signal.detail}
        return Outgoing(
            SIGNALS.name, *signal_message(signal.name, self.domain.name, id, made, event.event_time, said, key)
        )

    def _derived(self, event: Ready, one: Derived, number: int) -> Outgoing:
        """An event of another domain, as its own edge would publish it; the same one however often this one is read."""
        envelope, key, site = event.envelope, event.key_of(one.subject), one.site or event.envelope.source
        id = event_id(self._keyring.event, envelope.source, ("derived", envelope.event_id, str(number)), b"")
        payload = seal_payload([key], id, dump(one.body | {"site": site, "at": event.event_time}))
        headers = replace(
            envelope,
            event_id=id,
            content_type=derived.CONTENT_TYPE,
            charset="",
            event_time=event.event_time,
            subjects=(key.token,),
            key_versions=(key.version,),
            flags=(),
            content_key=payload.wrapped_key,
        ).headers()
        order = self._keys.order(site)
        return Outgoing(DOMAINS[one.domain].raw.name, order, payload.body, headers)

    def _alert(self, message: Incoming) -> Outgoing:
        """Tell that an erased person's event was dropped. It names nobody."""
        envelope = Envelope.read(message.headers)
        said = (ERASED_PERSON, self.domain.name, envelope.event_id, "", envelope.event_time or envelope.received_at)
        return Outgoing(SIGNALS.name, *signal_message(*said, {"source": envelope.source}, None))


def entity_id(keyring: Keyring, kind: str, ref: str, number: str) -> str:
    """One entity of a kind per patient reference and number; the number itself may identify, so it is hashed."""
    return f"{kind}-{keyed_hash(keyring.event, ref.encode(), number.encode())[:16].hex()}"


def _seconds(event: Ready) -> float:
    """When it happened."""
    return (event.record.event_time or event.envelope.received()).timestamp()


def letter(message: Incoming, bad: BadMessage) -> DeadLetter:
    return DeadLetter(
        bad.reason,
        bad.where,
        "agent",
        message.topic,
        str(message.partition),
        str(message.offset),
        rfc3339(datetime.now(UTC)),
    )


def _unexpected(error: Exception) -> BadMessage:
    """A fault of ours that one message brings out. Its type tells; its text might hold a patient's value."""
    return BadMessage("unexpected", type(error).__name__)


def _staff_wanted(member: StaffMember, source: str) -> Wanted:
    """A member of staff by number, else by name within the source: as much of a person as the message tells."""
    if (given := member.identifier) is not None:
        return Wanted("staff", ((given.authority, given.type, given.value),))
    return Wanted("staff", ((source, "name", member.name),))


def _staff_text(member: StaffMember) -> str:
    return f"{member.name} ({member.identifier.value})" if member.identifier else member.name
