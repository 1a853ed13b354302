"""Service quality on the stream: cases, what became of them, and whether it is chance.

`read` makes a record of an event of the feed, or of one derived from a health record; `analyse` tells what cases become
by it. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from schemas.derived import Derived
from schemas.document import Document, documents
from schemas.envelope import Envelope, rfc3339
from schemas.peers import Peers
from schemas.quality import CaseEvent, CasePart, DeathEvent, OutcomeEvent, QualityPart
from schemas.record import Record
from schemas.signal import Signal
from schemas.wire import operations
from streams.fold import Change
from streams.quality.cases import CASE, DEATH, OUTCOMES, STAY, UNITS

MACHINERY = frozenset(("action", "flags", "nulls"))  # of the event, not of the thing


def read(body: bytes, envelope: Envelope, peers: Peers, known: Collection[str] | None) -> Record:
    """Raises BadMessage. No text here is a patient's, so nobody's words need be `known`."""
    return operations.record(body, envelope, operations.QUALITY)


def document(record: Record) -> list[Document]:
    return documents(record)


def analyse(record: Record, made: Sequence[Document], at: str) -> list[Change]:
    """What one event says of a case or of a death; it happened, or was told, `at`. Reports and staffing stay events."""
    told = rfc3339(record.told_at) if record.told_at else ""
    parts = zip(record.parts, made, strict=True)
    found = (change(part, one.clear, at, told) for part, one in parts if isinstance(part, QualityPart))
    return [one for one in found if one is not None]


def change(part: QualityPart, clear: Mapping[str, Any], at: str, told: str = "") -> Change | None:
    now = {name: value for name, value in clear.items() if name not in MACHINERY}
    state = {"state": operations.STATES[part.action]}
    match part:
        case CaseEvent():
            entries = {(UNITS, at): part.unit} if part.unit and part.action == "set" else {}
            told_whole = part.action != "set" or part.unit or part.admitted_at is not None
            clear_ = dict.fromkeys(part.nulls) | now | (state if told_whole else {})
            if not (part.unit or part.admitted_at is not None):
                clear_.pop("site", None)  # a case is where it began or moved to: a discharge may come from the sender
            return Change(CASE, part.case_number, part.subject, clear_, _sealed(part), entries, told, alike=STAY)
        case DeathEvent():
            return Change(DEATH, "", part.subject, dict.fromkeys(part.nulls) | now | state, at=told)
        case OutcomeEvent():
            found = {"event": part.event, "risk": part.expected_risk} if part.action == "set" else None
            entries_ = {(OUTCOMES, part.measure): found}
            return Change(CASE, part.case_number, part.subject, {}, _sealed(part), entries_, told, alike=STAY)
    return None


def _sealed(part: CasePart) -> dict[str, str | None]:
    return {"case_number": part.case_number} if part.case_number else {}


def derive(record: Record) -> list[Signal | Derived]:
    """Nothing follows from one event alone: signals are of a unit's whole chart."""
    return []
