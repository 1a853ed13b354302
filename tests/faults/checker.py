"""What became of every message: gathered from topics, index, key store, logs and audit at the end, then judged.

Judging is pure. What a user would call doubled is doubled: more documents than parts, two entities for one person or
visit, two different sealed payloads or signals for one event. A record or a signal that comes twice and says the same
is not: both topics are written at least once, since a worker that dies before its acknowledgement sends again. The
sealed topic is compacted by event id, and a signal carries the event id for whoever reads it to know it by.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elasticsearch.helpers import scan
from steps import Done, Look
from workload import IDENTIFYING, SOURCE, Message

from infra.audit import events
from infra.crypto import open_payload
from infra.elastic import client
from infra.errors import WardstreamError
from infra.kafka import Reader, headers
from infra.keystore import KeyStore
from schemas.dead_letter import DeadLetter
from schemas.envelope import Envelope, document_id
from schemas.registry import DOMAINS
from schemas.signal import SignalEnvelope
from schemas.topics import SIGNALS

DOMAIN = DOMAINS["ehr"]
PARTS = {"move": 2, "result": 3}  # documents of a message: event and visit; event, order, observation
OBSERVATION = 2  # the part of a result that its signal speaks of
LETTERS = {"poison": "bad_date", "refused": "missing_segment"}
NEVER = "9999"  # event time of one that nothing tells of: later than all that is known
VERDICTS = ("lost", "doubled", "wrong", "out_of_order", "unseen", "stuck", "clear", "idle")


@dataclass(slots=True)
class Evidence:
    """What there was in the end, by event id where it belongs to one."""

    messages: list[Message]
    intruded: set[str] = field(default_factory=set)  # events that the node had a planted reason to refuse
    raw: list[str] = field(default_factory=list)  # in order within each partition, as all lists here
    sealed: list[str] = field(default_factory=list)
    payloads: dict[str, set[bytes]] = field(default_factory=dict)  # of sealed records, opened
    kept: set[str] = field(default_factory=set)  # whose last sealed record is no tombstone
    signals: list[dict[str, Any]] = field(default_factory=list)
    letters: dict[str, list[str]] = field(default_factory=dict)  # reasons
    documents: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    entities: list[dict[str, Any]] = field(default_factory=list)
    audit: list[dict[str, Any]] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    steps: list[Done] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # what a step has found by itself
    in_clear: list[str] = field(default_factory=list)  # places where something identifying was found

    def excused(self, event: str) -> bool:
        """Whether an event may be missing: refused by the index, and for the reason that we planted in it."""
        return event in self.intruded and "index_refused" in self.letters.get(event, ())


def judge(seen: Evidence) -> dict[str, list[str]]:
    """Verdicts of an end: what is named there went wrong."""
    found: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    _date(seen)
    for name in ("unseen", "stuck", "wrong"):
        found[name] += getattr(seen, name)
    found["clear"] += seen.in_clear
    found["idle"] += [f"step {done.step}: {done.fault}" for done in seen.steps if done.idle()]
    signals: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for signal in seen.signals:
        signals[signal["event_id"]].append(signal)
    known = {one.event_id: one for one in seen.messages}
    for one in seen.messages:
        if one.kind in LETTERS:
            _judge_refused(one, seen, signals.keys(), found)
        else:
            _judge_message(one, seen, found)
            _judge_signals(one, seen, signals[one.event_id], found)
    for name, order in (
        ("raw", seen.raw),
        ("sealed", seen.sealed),
        ("signals", [one["event_id"] for one in seen.signals]),
    ):
        found["out_of_order"] += [f"{name} {control}" for control in _out_of_order(order, known)]
        found["wrong"] += [f"nobody sent {event} of {name}" for event in set(order) - known.keys()]
    found["wrong"] += [f"nobody sent {event}" for event in (seen.documents.keys() | seen.letters.keys()) - known.keys()]
    controls = Counter(one.control for one in seen.messages)
    found["doubled"] += [control for control, count in controls.items() if count > 1]
    _judge_entities(seen, found)
    _judge_audit(seen, found)
    return found


def _date(seen: Evidence) -> None:
    """Whoever was ahead of the time counts as of the arrival, which its documents tell, and say so."""
    for one in seen.messages:
        if not one.at:
            documents = seen.documents.get(one.event_id, [])
            arrived = {d["received_at"] for d in documents if d["event_time"] == d["received_at"]}
            flagged = any("future_time" in d.get("flags", ()) for d in documents)
            one.at = arrived.pop() if flagged and len(arrived) == 1 else NEVER


def _judge_refused(one: Message, seen: Evidence, signalled: Iterable[str], found: dict[str, list[str]]) -> None:
    reasons = seen.letters.get(one.event_id, [])
    if one.answer and not reasons:
        found["lost"].append(one.control)
    if set(reasons) - {LETTERS[one.kind]}:
        found["wrong"].append(f"{one.control} has a letter: {reasons}")
    if one.event_id in seen.documents or one.event_id in seen.payloads or one.event_id in signalled:
        found["wrong"].append(f"{one.control} was indexed, kept or signalled")
    if one.answer not in ("", "AE" if one.kind == "refused" else "AA"):
        found["wrong"].append(f"{one.control} was answered {one.answer}")


def _judge_message(one: Message, seen: Evidence, found: dict[str, list[str]]) -> None:
    documents, excused = seen.documents.get(one.event_id, []), seen.excused(one.event_id)
    reasons, payloads = seen.letters.get(one.event_id, []), seen.payloads.get(one.event_id, set())
    if one.answer not in ("", "AA"):
        found["wrong"].append(f"{one.control} was answered {one.answer}")
    if set(reasons) - ({"index_refused"} if excused else set()):
        found["wrong"].append(f"{one.control} has a letter: {reasons}")
    if len(payloads) > 1:
        found["doubled"].append(f"{one.control} has {len(payloads)} sealed payloads")
    if payloads - {one.body}:
        found["wrong"].append(f"{one.control} is sealed otherwise than sent")
    if not documents:
        if one.answer and not excused:
            found["lost"].append(one.control)
        elif excused and one.event_id in seen.kept:
            found["wrong"].append(f"{one.control} was refused, and a replay would bring it back")
        return
    parts = [document["part"] for document in documents]
    if len(parts) > PARTS[one.kind] or len(set(parts)) < len(parts):
        found["doubled"].append(f"{one.control} has {len(parts)} documents")
    elif len(parts) < PARTS[one.kind]:
        found["lost"].append(f"{one.control} in part")
    if one.event_id not in seen.kept and not excused:
        found["lost"].append(f"{one.control} has no sealed record")
    said = {d["room"] for d in documents if d["kind"] == "visit"}
    said |= {str(int(d["value_number"])) for d in documents if d["kind"] == "observation"}
    said |= {d["language"].removeprefix("L") for d in documents if d["kind"] == "event"}
    if said - {str(one.number)} or {d["event_time"] for d in documents} != {one.at}:
        found["wrong"].append(f"{one.control} says {said}")


def _judge_signals(one: Message, seen: Evidence, signals: list[dict[str, Any]], found: dict[str, list[str]]) -> None:
    """One critical result, one signal, however often it was sent: each must say the same, and what is so."""
    if one.kind == "result" and one.answer and not signals and not seen.excused(one.event_id):
        found["lost"].append(f"{one.control} has no signal")
    if any(signal != signals[0] for signal in signals):
        found["doubled"].append(f"{one.control} has different signals")
    for signal in signals[:1]:
        documents = seen.documents.get(one.event_id, [])
        person = {document.get("patient_ref") for document in documents} or {signal["patient_ref"]}
        said = (signal["signal"], signal["document"], signal["event_time"], signal["detail"])
        wanted = {"code": "2823-3", "flag": "HH"}
        if one.kind != "result" or said != (
            "critical_result", document_id(one.event_id, OBSERVATION), one.at, wanted
        ) or {signal["patient_ref"]} != person:  # fmt: skip
            found["wrong"].append(f"{one.control} signals {said}")


def _out_of_order(order: Iterable[str], known: dict[str, Message]) -> list[str]:
    """Messages whose first occurrence comes after that of a later one of their patient."""
    latest: dict[str, int] = {}
    seen: set[str] = set()
    wrong = []
    for event in order:
        if event in seen or event not in known:
            continue
        seen.add(event)
        one = known[event]
        if one.number < latest.get(one.patient, 0):
            wrong.append(one.control)
        latest[one.patient] = max(one.number, latest.get(one.patient, 0))
    return wrong


def _judge_entities(seen: Evidence, found: dict[str, list[str]]) -> None:
    """Each person is one patient with one encounter, both the fold of his or her events by (event time, event id)."""
    events: dict[str, list[Message]] = defaultdict(list)
    refs: dict[str, set[str]] = defaultdict(set)
    for one in seen.messages:
        if one.kind in PARTS:
            events[one.patient].append(one)
            refs[one.patient] |= {d.get("patient_ref", "nobody") for d in seen.documents.get(one.event_id, ())}
    owners: dict[str, str] = {}
    for patient, theirs in refs.items():
        if len(theirs) > 1:
            found["doubled"].append(f"person {patient} has {len(theirs)} references")
        for ref in theirs:
            if owners.setdefault(ref, patient) != patient:
                found["wrong"].append(f"persons {owners[ref]} and {patient} are one")
    entities: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for entity in seen.entities:
        entities[entity["kind"], entity["patient_ref"]].append(entity)
        if entity["kind"] not in ("patient", "encounter"):
            found["wrong"].append(f"there is an entity of kind {entity['kind']}")
    hidden = sum(not theirs and any(seen.excused(one.event_id) for one in events[p]) for p, theirs in refs.items())
    if len({ref for _, ref in entities} - owners.keys()) > hidden:  # the only event of a person was refused, and folded
        found["wrong"].append("there are entities of nobody")
    for ref, patient in owners.items():
        moves = [one for one in events[patient] if one.kind == "move"]
        for kind, name, mark, some in (("patient", "language", "L", events[patient]), ("encounter", "room", "", moves)):
            ends = {(one.event_id, f"{mark}{one.number}") for one in _last(some, seen)}
            have = [(entity["event_id"], entity.get(name)) for entity in entities[kind, ref]]
            if len(have) > 1:
                found["doubled"].append(f"person {patient} is {len(have)} times a {kind}")
            elif set(have) - ends or (not have and _sure(some, seen)):
                found["wrong"].append(f"{kind} of person {patient}: {have} and not one of {sorted(ends)}")


def _sure(some: Iterable[Message], seen: Evidence) -> list[Message]:
    """Events that must have been folded. One that was excused may have been, by a worker that met no refusal."""
    return [one for one in some if one.answer and one.event_id in seen.documents and not seen.excused(one.event_id)]


def _last(some: list[Message], seen: Evidence) -> list[Message]:
    """Events that may be the latest of an entity: of the sure ones the last, and any unsure one after it."""
    sure = _sure(some, seen)
    end = max(sure, key=_position, default=None)
    unsure = [one for one in some if one.event_id in seen.documents or seen.excused(one.event_id)]
    later = [one for one in unsure if end is None or _position(one) > _position(end)]
    return later + ([end] if end is not None else [])


def _position(one: Message) -> tuple[str, str]:
    return one.at, one.event_id


def _judge_audit(seen: Evidence, found: dict[str, list[str]]) -> None:
    """Whatever was shown was written down, under its purpose, and nothing that nobody looked at."""
    written: Counter[tuple[str, str, str]] = Counter()
    for act in seen.audit:
        if act["subtype"][0]["code"] not in ("reveal", "dead_letter"):
            continue
        system = act["entity"][-1]
        document, purpose = system["what"]["identifier"]["value"], act["purposeOfEvent"][0]["coding"][0]["code"]
        for detail in system["detail"]:
            written[document, detail["valueString"], purpose] += 1
        if not any(look.event_id in document for look in seen.looks):
            found["wrong"].append(f"nobody looked at {document}")
    shown = Counter((name, look.field, look.purpose) for look in seen.looks for name in look.shown)
    found["lost"] += [f"the audit of {document} {name}" for document, name, _ in (shown - written).elements()]


def gather(messages: list[Message], home: Path, intruded: set[str]) -> Evidence:
    """Read everything there is. The workers must be down."""
    seen = Evidence(messages, intruded)
    _, keys = KeyStore.local()
    for message in _all(DOMAIN.raw.name, seen):
        seen.raw.append(_event(message))
    for message in _all(DOMAIN.sealed.name, seen):
        event = _event(message)
        seen.sealed.append(event)
        if message.value():
            seen.kept.add(event)
            seen.payloads.setdefault(event, set()).add(_opened(message, event, keys))
        else:
            seen.kept.discard(event)
    for message in _all(SIGNALS.name, seen):
        seen.signals.append(_signal(message, keys))
    for message in _all(DOMAIN.dead_letters.name, seen):
        seen.letters.setdefault(_event(message), []).append(DeadLetter.read(headers(message).items()).reason)
    for source in _documents(seen):
        if source["part"] < 0:
            seen.entities.append(source)
        else:
            seen.documents.setdefault(source["event_id"], []).append(source)
    audit = home / "audit" / "audit.jsonl"
    seen.audit = list(events(audit))
    for path in [*(home / "logs").iterdir(), *home.glob("*.sqlite*"), *(home / "keys").iterdir(), audit]:
        if path.exists() and _clear(path.read_bytes()):
            seen.in_clear.append(path.name)
    return seen


def _opened(message: Any, event: str, keys: KeyStore) -> bytes:
    """The body of a sealed record; where it does not open, the reason in its place."""
    try:
        envelope = Envelope.read(message.headers())
        mine = [key for key in keys.of_tokens(envelope.subjects).values() if key is not None]
        return open_payload(mine, event, envelope.sealed(message.value()))
    except WardstreamError as error:
        return error.reason.encode()


def _signal(message: Any, keys: KeyStore) -> dict[str, Any]:
    """What a signal says, opened."""
    envelope = SignalEnvelope.read(message.headers())
    mine = [key for key in keys.of_tokens([envelope.subject]).values() if key is not None]
    named = ("signal", "domain", "event_id", "document", "event_time")
    return {name: getattr(envelope, name) for name in named} | envelope.opened(mine, message.value())


def _clear(content: bytes) -> bool:
    return any(word in content for word in IDENTIFYING)


def _all(topic: str, seen: Evidence) -> list[Any]:
    """A topic, partition by partition."""
    reader = Reader(topic)
    messages = list(reader.until_end())
    reader.close()
    for one in messages:
        if any(map(_clear, (one.key() or b"", one.value() or b"", *headers(one).values()))):
            seen.in_clear.append(topic)
    return sorted(messages, key=lambda one: (one.partition(), one.offset()))


def _event(message: Any) -> str:
    return headers(message)["event_id"].decode()


def _documents(seen: Evidence) -> list[dict[str, Any]]:
    """From all indices behind the alias: a document that is in two of them is there twice."""
    with client() as server:
        server.indices.refresh(index=DOMAIN.alias)
        found = list(scan(server, index=DOMAIN.alias, query={"query": {"term": {"source": SOURCE}}}))
    seen.in_clear += [f"document {hit['_id']}" for hit in found if _clear(json.dumps(hit).encode())]
    return [hit["_source"] for hit in found]
