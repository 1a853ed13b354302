"""What became of every message: gathered from topics, index and key store at the end, then judged. Judging is pure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elasticsearch.helpers import scan
from workload import NAME, SOURCE, Message

from infra.crypto import open_payload
from infra.elastic import client
from infra.errors import WardstreamError
from infra.kafka import Reader, headers
from infra.keystore import KeyStore
from schemas.dead_letter import DeadLetter
from schemas.envelope import Envelope
from schemas.registry import DOMAINS
from schemas.topics import SIGNALS

DOMAIN = DOMAINS["ehr"]
PARTS = {"move": 2, "result": 3}  # documents of a message: event and visit; event, order, observation
VERDICTS = ("lost", "doubled", "wrong", "out_of_order", "unseen", "stuck", "clear")


@dataclass(slots=True)
class Evidence:
    """Everything that is at rest in the end, by event id where it belongs to one."""

    messages: list[Message]
    raw: list[str] = field(default_factory=list)  # in order within each partition, as all lists here
    sealed: list[str] = field(default_factory=list)
    kept: dict[str, bytes] = field(
        default_factory=dict
    )  # sealed records, opened; without those that a tombstone removed
    signals: list[str] = field(default_factory=list)
    letters: dict[str, list[str]] = field(default_factory=dict)  # reasons
    documents: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    entities: list[dict[str, Any]] = field(default_factory=list)
    in_clear: list[str] = field(default_factory=list)  # places where a patient's name was found


def judge(seen: Evidence) -> dict[str, list[str]]:
    """Verdicts of an end: what is named there went wrong."""
    found: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    found["clear"] = seen.in_clear
    for one in seen.messages:
        _judge_message(one, seen, found)
    known = {one.event_id: one for one in seen.messages}
    for name, order in (("raw", seen.raw), ("sealed", seen.sealed), ("signals", seen.signals)):
        found["out_of_order"] += [f"{name} {control}" for control in _out_of_order(order, known)]
    controls = Counter(one.control for one in seen.messages)
    found["doubled"] += [control for control, count in controls.items() if count > 1]
    found["wrong"] += _wrong_entities(seen)
    strangers = (seen.documents.keys() | seen.letters.keys()) - known.keys()
    found["wrong"] += [f"nobody sent {event}" for event in strangers]
    return found


def _judge_message(one: Message, seen: Evidence, found: dict[str, list[str]]) -> None:
    documents, reasons = seen.documents.get(one.event_id, []), seen.letters.get(one.event_id, [])
    refused = "index_refused" in reasons
    if one.kind in ("poison", "refused"):
        if one.answer and not reasons:
            found["lost"].append(one.control)
        if documents:
            found["wrong"].append(f"{one.control} was indexed")
        return
    if one.answer == "AA" and not documents and not refused:
        found["lost"].append(one.control)
    if reasons and not refused:
        found["wrong"].append(f"{one.control} has a letter: {reasons}")
    if documents:
        parts = sorted(document["part"] for document in documents)
        if len(set(parts)) < len(parts) or len(parts) > PARTS[one.kind]:
            found["doubled"].append(one.control)
        elif len(parts) < PARTS[one.kind]:
            found["lost"].append(f"{one.control} in part")
        if one.event_id not in seen.kept and not refused:
            found["lost"].append(f"{one.control} has no sealed record")
        if one.event_id in seen.kept and seen.kept[one.event_id] != one.body:
            found["wrong"].append(f"{one.control} is sealed otherwise than sent")
        said = {str(one.number)}
        values = {str(int(d["value_number"])) for d in documents if d["kind"] == "observation"} | {
            d["room"] for d in documents if d["kind"] == "visit"
        }
        if values - said:
            found["wrong"].append(f"{one.control} says {values}")


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


def _wrong_entities(seen: Evidence) -> list[str]:
    """Encounters that are not the fold of their events: the last room by (event time, event id)."""
    last: dict[str, tuple[tuple[str, str], str]] = {}
    refused = {event for event, reasons in seen.letters.items() if "index_refused" in reasons}
    unsure = set()
    for documents in seen.documents.values():
        for one in documents:
            if one["kind"] == "visit" and "patient_ref" in one:
                if one["event_id"] in refused:  # indexed in the end, by chance: the fold may have come before
                    unsure.add(one["patient_ref"])
                at = (one["event_time"], one["event_id"])
                last[one["patient_ref"]] = max(last.get(one["patient_ref"], (("", ""), "")), (at, one["room"]))
    folded = defaultdict(list)
    for entity in seen.entities:
        if entity["kind"] == "encounter":
            folded[entity["patient_ref"]].append(entity["room"])
    return [
        f"encounter of {ref}: {folded[ref]} and not {room}"
        for ref, (_, room) in last.items()
        if folded[ref] != [room] and ref not in unsure
    ]


def gather(messages: list[Message], home: Path) -> Evidence:
    """Read everything there is. The workers must be down."""
    seen = Evidence(messages)
    _, keys = KeyStore.local()
    last: dict[str, Any] = {}
    for name, events in ((DOMAIN.raw.name, seen.raw), (DOMAIN.sealed.name, seen.sealed), (SIGNALS.name, seen.signals)):
        for message in _all(name, seen):
            event = _event(message)
            events.append(event)
            if name == DOMAIN.sealed.name:
                last[event] = message
    for event, message in last.items():
        if message.value():
            envelope = Envelope.read(message.headers())
            mine = [key for key in keys.of_tokens(envelope.subjects).values() if key is not None]
            try:
                seen.kept[event] = open_payload(mine, event, envelope.sealed(message.value()))
            except WardstreamError as error:
                seen.kept[event] = error.reason.encode()
    for message in _all(DOMAIN.dead_letters.name, seen):
        given = headers(message)
        seen.letters.setdefault(given["event_id"].decode(), []).append(DeadLetter.read(given.items()).reason)
    for source in _documents(seen):
        if source["part"] < 0:
            seen.entities.append(source)
        else:
            seen.documents.setdefault(source["event_id"], []).append(source)
    for path in [*(home / "logs").glob("*.log"), *home.glob("*.sqlite*"), *(home / "keys").glob("*")]:
        if NAME.encode() in path.read_bytes():
            seen.in_clear.append(path.name)
    return seen


def _all(topic: str, seen: Evidence) -> list[Any]:
    """A topic, partition by partition."""
    reader = Reader(topic)
    messages = list(reader.until_end())
    reader.close()
    clear = [one for one in messages if NAME.encode() in (one.value() or b"")]
    seen.in_clear += [topic] * len(clear)
    return sorted(messages, key=lambda one: (one.partition(), one.offset()))


def _event(message: Any) -> str:
    if message.topic() == SIGNALS.name:
        return str(json.loads(message.value())["event_id"])
    return headers(message)["event_id"].decode()


def _documents(seen: Evidence) -> list[dict[str, Any]]:
    with client() as server:
        server.indices.refresh(index=DOMAIN.alias)
        found = list(scan(server, index=DOMAIN.alias, query={"query": {"term": {"source": SOURCE}}}))
    seen.in_clear += [f"document {hit['_id']}" for hit in found if NAME in json.dumps(hit)]
    return [hit["_source"] for hit in found]
