"""Events of the domain quality to people, as the stream and the index would have them, in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schemas.document import documents
from schemas.envelope import rfc3339
from schemas.record import Record
from schemas.wire import operations
from streams import quality
from streams.fold import Entity, fold, position
from streams.quality import cases
from streams.quality.cases import Person


def people(events: Iterable[dict[str, Any]]) -> list[Person]:
    """By the functions of the stream, without its seals: a reference is the number that it stands for."""
    held: dict[str, Entity] = {}
    for number, said in enumerate(events):
        event = operations.read(said, "operations:test")
        assert event.at is not None
        record = Record(subjects=event.subjects, parts=(event.part,), terms=(), event_time=event.at)
        at, patient = rfc3339(event.at), said["patient_number"]
        for change in quality.analyse(record, documents(record), at):
            name = f"{change.kind}|{change.number}|{patient}"
            common = {"patient_ref": patient, "site": event.site}
            held[name] = fold(held.get(name), change, position(at, f"{number:07}"), common, lambda _, value: value)
    return list(cases.people(held.items(), {}).values())
