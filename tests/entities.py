"""Operations events folded to entities without any server, as an agent would: for tests of boards."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas import derived
from schemas.envelope import Envelope, rfc3339
from schemas.peers import Peers
from schemas.wire import operations as events
from streams import allocation
from streams.allocation.board import Board, board
from streams.fold import Change, Entity, fold, position

SITE = "NORTH"
RECEIVED = datetime(2026, 3, 1, 18, tzinfo=UTC)
Said = Mapping[str, Any]
Sent = tuple[str, str, Change, str]  # id of the entity, position, change, patient


def at(hour: float) -> str:
    """That hour of the day of the tests."""
    return rfc3339(datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=hour))


def sent(said: Said, number: int) -> list[Sent]:
    """The changes of one event, each with the entity that it is of."""
    of_record = "told_at" in said or said.get("trigger") == "Encounter"
    content = derived.CONTENT_TYPE if of_record else events.CONTENT_TYPE
    head = Envelope("e", "operations:x", "*|*", content, "", rfc3339(RECEIVED), "", "t", ("s",), (1,), (), b"")
    record = allocation.read(json.dumps({"site": SITE} | dict(said)).encode(), head, Peers(), None)
    when = rfc3339(record.event_time or RECEIVED)
    made = []
    for change in allocation.analyse(record, allocation.document(record), when):
        who = record.subjects[change.subject].identifiers[0].value if change.subject is not None else ""
        if change.staff:
            refs = [one.identifier.value for some in change.staff.values() for one in some if one.identifier]
            change = replace(change, clear=change.clear | {"staff_ref": refs})
        name = f"{change.kind}-{who}-{change.number}"
        made.append((name, position(change.at or when, f"e{number:05}"), change, who))
    return made


def folded(changes: Iterable[Sent]) -> dict[str, Entity]:
    """The entities after all of them, in their order."""
    made: dict[str, Entity] = {}
    for name, where, change, who in changes:
        common: dict[str, Any] = {"source": "operations:x", "part": -1} | ({"patient_ref": who} if who else {})
        if change.alike:
            common[change.alike] = f"hash of {change.number}"
        made[name] = fold(made.get(name), change, where, common, lambda _, value: value)
    return made


def entities(said: Iterable[Said]) -> dict[str, Entity]:
    return folded(one for number, event in enumerate(said) for one in sent(event, number))


def shown(said: Iterable[Said], hour: float = 12, merged: Mapping[str, str] | None = None) -> Board:
    return board(SITE, entities(said), datetime.fromisoformat(at(hour)), merged)


def bed(name: str, hour: float = 0, **more: Any) -> Said:
    """`name` is unit, room and bed: "ICU 2 1"."""
    return {"type": "location", "at": at(hour), **place(name), **more}


def place(name: str) -> dict[str, str]:
    return {part: value for part, value in zip(("unit", "room", "bed"), name.split(), strict=False) if value != "-"}


def step(patient: str, trigger: str, hour: float, name: str = "", visit: str = "", **more: Any) -> Said:
    head = {"type": "placement", "id": visit or f"V{patient}", "patient_number": patient, "trigger": trigger}
    return head | {"at": at(hour), **place(name), **more}


def shift(number: str, member: str, begin: float, end: float, **more: Any) -> Said:
    return {
        "type": "shift", "id": number, "staff_number": member, "role": "nurse", "at": at(0), "starts_at": at(begin),
        "ends_at": at(end), **more,
    }  # fmt: skip


def asks(number: str, patient: str, hour: float, **more: Any) -> Said:
    return {"type": "request", "id": number, "patient_number": patient, "at": at(hour), **more}


def found(held: Mapping[str, Entity], query: Mapping[str, Any] | None) -> dict[str, Entity]:
    """What the index would find of these: the queries of streams/allocation/live.py, and no others."""
    return {name: one for name, one in held.items() if query is not None and _matches(name, one, query)}


def _matches(name: str, one: Entity, query: Mapping[str, Any]) -> bool:
    ((what, said),) = query.items()
    if what == "bool":
        assert said.keys() <= {"filter", "should", "minimum_should_match", "must_not"}
        return (
            all(_matches(name, one, each) for each in said.get("filter", ()))
            and ("should" not in said or any(_matches(name, one, each) for each in said["should"]))
            and not any(_matches(name, one, each) for each in said.get("must_not", ()))
        )
    if what == "ids":
        return name in said["values"]
    if what == "exists":
        return one.get(said["field"]) is not None
    ((field, wanted),) = said.items()
    value = one.get(field)
    if what == "range":
        assert wanted.keys() == {"gte"}
        return value is not None and value >= wanted["gte"]
    values: Collection[Any] = value if isinstance(value, list) else (value,)
    return not set(values).isdisjoint([wanted] if what == "term" else wanted)
