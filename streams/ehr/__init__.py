"""Health records on the stream: `read` makes a record of a message, `document` its documents, `analyse` tells what
patients and encounters become by it, `derive` what somebody should hear of. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from schemas.derived import Derived
from schemas.document import Document, documents, sealable
from schemas.ehr import Event, Observation, Score, Visit
from schemas.envelope import Envelope, rfc3339
from schemas.peers import Peers
from schemas.record import Record
from schemas.signal import Signal
from schemas.wire.fhir import CONTENT_TYPE as FHIR
from schemas.wire.hl7v2 import Message, control
from streams.ehr import beds, features, fhir, hl7v2, notes, outcomes, person
from streams.ehr.news2 import news2
from streams.fold import Change

PATIENT_CLEAR = ("sex", "race", "ethnic_group", "language", "marital_status", "died_at", "deceased")
PATIENT_SEALED = {
    "name": "PID-5",
    "birth_date": "PID-7",
    "addresses": "PID-11",
    "phones": "PID-13",
    "mails": "PID-13",
    "identifiers": "PID-3",
    "ssn": "PID-19",
}
PATIENT_NULLS = {
    "sex": "PID-8",
    "race": "PID-10",
    "marital_status": "PID-16",
    "died_at": "PID-29",
    "deceased": "PID-30",
}
ENCOUNTER_CLEAR = (
    ("unit", "room", "bed", "facility", "patient_class", "hospital_service", "admission_type", "financial_class")
    + ("discharge_disposition", "admitted_at", "discharged_at", "expected_discharge_at")
)  # fmt: skip
# What an encounter is by trigger (table 0003), in the words of Encounter.status of FHIR R5; others leave it as it is.
STATES = {
    **dict.fromkeys(("A05", "A14", "A38"), "planned"),
    **dict.fromkeys(("A01", "A02", "A04", "A06", "A07", "A10", "A12", "A13", "A22"), "in-progress"),
    **dict.fromkeys(("A21",), "on-hold"),
    **dict.fromkeys(("A03",), "discharged"),
    **dict.fromkeys(("A11", "A23", "A27"), "cancelled"),
}
# The same by Encounter.status of R4, which has other words for some.
STATES_R4 = {
    "planned": "planned",
    **dict.fromkeys(("arrived", "triaged", "in-progress"), "in-progress"),
    "onleave": "on-hold",
    "finished": "discharged",
    "cancelled": "cancelled",
    "entered-in-error": "entered-in-error",
}
CRITICAL = frozenset(("HH", "LL", "AA"))  # table 0078: beyond panic limits, very abnormal


def read(body: bytes, envelope: Envelope, peers: Peers, known: Collection[str] | None = None) -> Record:
    """`known`: words that give its patients away, for a FHIR resource that was sent without them. Raises BadMessage."""
    if envelope.content_type == FHIR:
        peer = peers.of(envelope.source.removeprefix(fhir.SOURCE), "")
        return fhir.read(body, peer, envelope.received(), envelope.source, known)
    message = Message.read(body, envelope.charset or None)
    header = control(message)
    peer = peers.of(header.sending_application, header.sending_facility)
    return hl7v2.read(message, peer, envelope.received())


def document(record: Record) -> list[Document]:
    """One document a part, with what its text affirms, denies, doubts, or says of relatives: of clear text alone."""
    made = documents(record)
    for one in made:
        notes.tell(one)
    return made


def analyse(record: Record, made: Sequence[Document], at: str) -> list[Change]:
    """One change a patient, one a numbered visit. Only ADT and Encounter move anybody: others copy it late.

    What a patient's history takes from the event, which happened `at`, is told by its documents `made`, as training
    tells it from the index.
    """
    changes: list[Change] = []
    entries = _entries(made, at)
    told = rfc3339(record.told_at) if record.told_at else ""
    accounts: dict[int | None, str] = {}
    for part in record.parts:
        if part.subject is None:
            continue
        if isinstance(part, Event):
            clear = _said(part, PATIENT_CLEAR) | {name: None for name, at in PATIENT_NULLS.items() if at in part.nulls}
            sealed: dict[str, str | None] = {n: sealable(v) for n in PATIENT_SEALED if (v := getattr(part, n))}
            sealed |= {name: None for name, at in PATIENT_SEALED.items() if at in part.nulls}
            into, terms = entries.pop(part.subject, {}), frozenset(person.known_terms(part))
            if clear or sealed or into or terms:
                changes.append(Change("patient", "", part.subject, clear, sealed, into, told, terms=terms))
            accounts[part.subject] = part.account_number
        elif isinstance(part, Visit) and part.message_type in ("ADT", "Encounter"):
            number = part.visit_number or part.visit_account or accounts.get(part.subject, "")
            if number:
                clear = _said(part, ENCOUNTER_CLEAR)
                if state := STATES_R4.get(part.status) if told else STATES.get(part.trigger):
                    clear["state"] = state
                if part.trigger == "A13" or (told and state == "in-progress" and part.discharged_at is None):
                    clear |= {"discharged_at": None, "discharge_disposition": None}
                changes.append(Change("encounter", number, part.subject, clear, {"visit_number": number}, at=told))
    changes += [Change("patient", "", one, {}, {}, into, told) for one, into in entries.items()]
    return changes


def _entries(made: Sequence[Document], at: str) -> dict[int, features.Entries]:
    """Entries of each patient of an event, where there are any."""
    of: dict[int, list[dict[str, Any]]] = {}
    for one in made:
        if one.subject is not None and one.kind in features.TELLING:
            of.setdefault(one.subject, []).append({"kind": one.kind, **one.clear})
    return {one: into for one, said in of.items() if (into := features.entries(said, at))}


def early_warning(said: Sequence[Mapping[str, Any]], history: Mapping[str, Any], at: str) -> Score | None:
    """NEWS2 of an event that brought a vital sign, where all seven are known and none is older than twelve hours."""
    known = features.vital_signs(said, history, at)
    if known is None or (found := news2(known)) is None:
        return None
    most = sorted(found.parts.items(), key=lambda one: (-one[1], one[0]))
    reasons = tuple(f"{name} +{points}" for name, points in most if points)
    return Score(
        model="news2", model_version="2017", points=found.total, predicted=found.band, reasons=reasons, shadow=False
    )


def derive(record: Record) -> list[Signal | Derived]:
    """A critical result of a patient, so that somebody hears of it at once; what the record says of beds and stays."""
    critical = [
        Signal("critical_result", part.subject, number, {"code": part.code, "flag": ",".join(part.abnormal_flags)})
        for number, part in enumerate(record.parts)
        if isinstance(part, Observation) and part.subject is not None and CRITICAL.intersection(part.abnormal_flags)
    ]
    return [*critical, *beds.derive(record), *outcomes.derive(record)]


def _said(part: Event | Visit, names: tuple[str, ...]) -> dict[str, Any]:
    """Fields that carry something, as the index takes them."""
    clear: dict[str, Any] = {}
    for name in names:
        value = getattr(part, name)
        if value not in (None, "", ()):
            clear[name] = rfc3339(value) if isinstance(value, datetime) else value
    return clear
