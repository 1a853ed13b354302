"""From a record's parts to documents: what goes in clear, what is sealed, what is hashed. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from schemas.blind import person_keys
from schemas.envelope import rfc3339
from schemas.marks import Identifying, Staffed
from schemas.record import Part, Record, StaffMember
from schemas.scrub import Scrubber


@dataclass(slots=True)
class Document:
    """One part, sorted by who may see what. `clear` is the searchable body; the rest never leaves unsealed."""

    kind: str
    subject: int | None
    clear: dict[str, Any] = field(default_factory=dict)
    identifying: dict[str, str] = field(default_factory=dict, repr=False)
    staff: dict[str, tuple[StaffMember, ...]] = field(default_factory=dict, repr=False)
    blind: list[tuple[str, str]] = field(default_factory=list, repr=False)  # field and value


def of_persons(refs: Collection[str]) -> dict[str, Any]:
    """The query for documents about these people: a patient's, what their own key closes, a member's shifts, plans."""
    some = sorted(refs)
    staffed = [{"terms": {"kind": ["shift", "plan"]}}, {"terms": {"staff_ref": some}}]
    should = [{"terms": {"patient_ref": some}}, {"terms": {"sealed_by": some}}, {"bool": {"filter": staffed}}]
    return {"bool": {"should": should, "minimum_should_match": 1}}


def documents(record: Record) -> list[Document]:
    """One document a part, in the record's order; the position is part of its id."""
    scrubber = Scrubber(record.terms)
    return [_document(part, scrubber) for part in record.parts]


def _document(part: Part, scrubber: Scrubber) -> Document:
    made = Document(part.kind, part.subject)
    for name, mark, value in part.fields():
        if isinstance(mark, Identifying):
            made.identifying[name] = sealable(value)
            if mark.blind:
                made.blind += [(name, one) for one in ([value] if isinstance(value, str) else value)]
            if mark.together and (date := getattr(part, mark.together)):
                made.blind += [(name, one) for said in value for one in person_keys(said, date)]
        elif isinstance(mark, Staffed):
            made.staff[name] = value
        elif mark.text:
            made.clear[name] = clear(value, scrubber)
        else:
            made.clear[name] = value if isinstance(value, str) else clear(value)
    return made


def sealable(value: Any) -> str:
    """The text that is sealed: a single value as it is, several as a JSON list."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return rfc3339(value)
    return orjson.dumps(value).decode() if isinstance(value, tuple | list) else str(value)


def clear(value: Any, scrubber: Scrubber | None = None) -> Any:
    """A value as the index takes it, without the words that a scrubber removes."""
    if isinstance(value, str):
        return scrubber.clean(value) if scrubber else value
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, tuple | list):
        return [clear(one, scrubber) for one in value]
    return value
