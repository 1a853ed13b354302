"""What a prediction may know of one event of a bed or a piece of equipment: what it says, and how the thing was used
until then. Pure.

The same function serves training and scoring on the stream, as in streams/ehr/features.py, whose kinds of names it
keeps: `price` is a number, `type=monitor` is 1 where it holds. What a thing is called is no feature: a model shall know
of things that it has never seen.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise, takewhile
from typing import Any

Features = dict[str, float | str]
Entries = dict[tuple[str, str], Any]
Document = Mapping[str, Any]

STATUS = "status"  # what the status is one hour later
TARGETS = (STATUS,)
STATUSES = "statuses"  # the history: time of telling -> status; "" from when on the thing is no longer there
TOLD = {"resource_event": "resource_status", "location_event": "bed_status"}
IN_USE = frozenset(("in-use", "O"))  # of equipment; of a bed, HL7 table 0116
_RECENT = timedelta(hours=24)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def features(target: str, documents: Sequence[Document], history: Mapping[str, Any], at: str) -> Features | None:
    """The features of one event for a target, None where it is none to be scored.

    `documents` are the clear documents of the event, each with its `kind`; `history` is what the thing's entity keeps
    (see `entries`). What the history has from `at` on counts for nothing, so it may be folded before or after.
    """
    if target != STATUS:
        raise ValueError(f"there is no target {target!r}")
    if (one := told(documents)) is None or not (status := _status(one)):
        return None
    now, kind = datetime.fromisoformat(at), _type(one)
    made: Features = {
        f"type={kind}": 1.0,
        f"now={status}": 1.0,
        f"hour={now.hour}": 1.0,
        f"weekday={_DAYS[now.weekday()]}": 1.0,
    }
    if unit := one.get("unit"):
        made[f"unit={unit}"] = 1.0
    for feature in one.get("features", ()):
        made[f"feature={feature}"] = 1.0
    for word in (kind, *one.get("features", ())):  # how long it stays as it is hangs on what it is
        made[f"now_of={word}|{status}"] = 1.0
    for name in ("price", "position_x", "position_y"):
        if (value := one.get(name)) is not None:
            made[name] = float(value)
        else:
            made[name] = 0.0
            made[f"missing={name}"] = 1.0
    return made | _before(history, at, now)


def entries(documents: Sequence[Document], at: str) -> Entries:
    """What one event puts into the thing's history."""
    if (one := told(documents)) is None:
        return {}
    gone = one.get("action", "set") != "set"
    return {(STATUSES, at): "" if gone else _status(one)} if gone or _status(one) else {}


def remember(history: MutableMapping[str, Any], documents: Sequence[Document], at: str) -> None:
    """Take one event's entries into a history, as the fold does."""
    for (name, key), value in entries(documents, at).items():
        history.setdefault(name, {})[key] = value


def told(documents: Sequence[Document]) -> Document | None:
    """The document that tells of one bed or one piece of equipment; a room or a unit is none."""
    for one in documents:
        if one.get("kind") in TOLD and (one.get("bed") or one.get("resource_id")):
            return one
    return None


def thing(one: Document) -> str:
    """What tells it from every other: the parts that its entity is numbered by."""
    names = (
        ("site", "unit", "room", "bed") if one["kind"] == "location_event" else ("site", "resource_type", "resource_id")
    )
    return "|".join(("bed" if one["kind"] == "location_event" else "resource", *(one.get(name, "") for name in names)))


def _before(history: Mapping[str, Any], at: str, now: datetime) -> Features:
    """Of the last 24 hours: the share in which it was in use, how often it changed; what it was before, how long."""
    past = sorted((when, status) for when, status in history.get(STATUSES, {}).items() if when < at)
    if not past:
        return {"missing=before": 1.0, "used": 0.0, "changes": 0.0, "hours_before": 0.0}
    begin = now - _RECENT
    used, changes = timedelta(0), 0
    for (since, status), (until, after) in pairwise([*past, (at, "")]):
        ended = datetime.fromisoformat(until)
        if ended <= begin:
            continue
        if status in IN_USE:
            used += ended - max(begin, datetime.fromisoformat(since))
        changes += until != at and after != status
    last = past[-1][1]
    run = takewhile(lambda one: one[1] == last, reversed(past))
    hours = min(_RECENT, now - datetime.fromisoformat([when for when, _ in run][-1])) / timedelta(hours=1)
    return {f"before={last}": 1.0, "used": used / _RECENT, "changes": float(changes), "hours_before": hours}


def _status(one: Document) -> str:
    return str(one.get(TOLD[one["kind"]], "")) if one.get("action", "set") == "set" else ""


def _type(one: Document) -> str:
    return "bed" if one["kind"] == "location_event" else str(one.get("resource_type", ""))
