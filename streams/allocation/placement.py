"""A stay as a history of steps, and where it leads: events may come late, twice and in any order. Pure.

Each step (table 0003) is one entry of the stay's history; so is each cancel. The place is told by going through all of
them in the order in which they happened, so no order of arrival matters. A08 comes for any correction of a record, and
a history keeps its latest entries alone: those that name a place are a history of their own, so that however many come
push out no step, and the others are none.

    A01 A04 A06 A07         somebody comes, or comes as another class of patient
    A02 A17                 moves; A08 that names another place moves too (of those the latest HELD are known)
    A03                     goes
    A05 A14                 will come
    A11 A12 A13 A27 A38     take back the last coming, move, going, plan before them
    Encounter               FHIR tells the stay whole: everything before it is only how it came to that
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.allocation import SNAPSHOT, PlacementEvent
from streams.fold import History

MOVES, CORRECTIONS = "moves", "corrections"
CORRECTION = "A08"
# Encounter.status of R5
PLANNED, IN, GONE, CANCELLED, UNKNOWN = "planned", "in-progress", "discharged", "cancelled", "unknown"

COMES = frozenset(("A01", "A04", "A06", "A07"))
MOVED = frozenset(("A02", "A17"))
PLANS = frozenset(("A05", "A14"))
# What a cancel takes back.
CANCELS = {
    "A11": frozenset(("A01", "A04")),
    "A12": MOVED,
    "A13": frozenset(("A03",)),
    "A27": frozenset(("A14",)),
    "A38": frozenset(("A05",)),
}
SNAPSHOTS = {  # Encounter.status of R4
    "planned": PLANNED,
    **dict.fromkeys(("arrived", "triaged", "in-progress", "onleave", "unknown", ""), IN),
    "finished": GONE,
    **dict.fromkeys(("cancelled", "entered-in-error"), CANCELLED),
}
ORDER = (SNAPSHOT, "A05", "A14", "A04", "A01", "A06", "A07", "A17", "A02", "A08", "A03")
RANK = {trigger: number for number, trigger in enumerate(ORDER)}
DISCHARGE_FIRST = "discharge_before_admission"
Place = tuple[str, str, str]  # unit, room, bed
NOWHERE: Place = ("", "", "")


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a stay is, and since when; `trail` are its places that were not taken back, each with when it began."""

    state: str
    place: Place
    since: str = ""
    troubles: tuple[str, ...] = ()
    trail: tuple[tuple[str, Place], ...] = ()


@dataclass(slots=True)
class _Step:
    trigger: str
    state: str
    place: Place
    since: str


@dataclass(slots=True)
class _Walk:
    steps: list[_Step] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    gone_first: bool = False  # somebody went of whom no coming is known
    cancelled: bool = False

    @property
    def now(self) -> _Step | None:
        return self.steps[-1] if self.steps else None


def entry(part: PlacementEvent, at: str, since: str) -> dict[tuple[str, str], Any]:
    """The step that an event adds: ordered `at`, true `since`. Its key is all it says, so that told twice it is one.

    Of one instant what begins comes first, and what takes back comes last. Nothing, of a correction without a place.
    """
    if part.trigger == CORRECTION and (part.unit, part.room, part.bed) == NOWHERE:
        return {}
    move = {"at": at, "trigger": part.trigger, "unit": part.unit, "room": part.room, "bed": part.bed}
    if part.trigger == SNAPSHOT:
        move |= {"status": part.status, "since": since}
    order = RANK.get(part.trigger, len(RANK))
    history = CORRECTIONS if part.trigger == CORRECTION else MOVES
    return {(history, "|".join((at, f"{order:02}", *list(move.values())[1:]))): move}


def steps(of: History) -> dict[str, Mapping[str, str]]:
    """All steps of a stay's history, by their keys, whose order is theirs."""
    return of.get(MOVES, {}) | of.get(CORRECTIONS, {})


def placed(moves: Mapping[str, Mapping[str, str]], until: str = "") -> Placed:
    """Where the steps of a stay lead, or led `until` a time (RFC 3339, UTC, milliseconds)."""
    walk = _Walk()
    for key in sorted(moves):
        if until and moves[key]["at"] > until:
            break
        _step(walk, moves[key])
    now = walk.now
    if now is None:
        return Placed(CANCELLED if walk.cancelled else UNKNOWN, NOWHERE, "", tuple(walk.troubles))
    trail = tuple((step.since, step.place) for step in walk.steps if step.state != PLANNED)
    return Placed(now.state, now.place, now.since, tuple(walk.troubles), trail)


def way(moves: Mapping[str, Mapping[str, str]]) -> list[tuple[Place, str, str]]:
    """Where somebody lay, since when and until when ("": still), as all that was told since has it."""
    walk = _Walk()
    for key in sorted(moves):
        _step(walk, moves[key])
    ends = [*(step.since for step in walk.steps[1:]), ""]
    lain = ((one.place, one.since, end) for one, end in zip(walk.steps, ends, strict=False) if one.state == IN)
    return [one for one in lain if one[1] != one[2]]  # a change of class alone is no other place


def _step(walk: _Walk, move: Mapping[str, str]) -> None:
    trigger, at, place = move["trigger"], move["at"], (move["unit"], move["room"], move["bed"])
    now = walk.now
    if trigger in CANCELS:
        _cancel(walk, CANCELS[trigger], place, trigger, at)
    elif trigger == SNAPSHOT:
        state = SNAPSHOTS.get(move["status"], IN)
        same = now is not None and (now.state, now.place) == (state, place)
        walk.steps = [_Step(trigger, state, place, now.since if now and same else move["since"])]
    elif trigger in PLANS:
        if now is None:
            walk.steps.append(_Step(trigger, PLANNED, place, at))
    elif trigger == "A03":
        if now is None or now.state != GONE:  # a going that is told again is no second one
            walk.gone_first |= now is None
            walk.steps.append(_Step(trigger, GONE, now.place if now and place == NOWHERE else place, at))
    elif trigger == CORRECTION:
        if place != NOWHERE and (now is None or (now.state == IN and place != now.place)):
            walk.steps.append(_Step(trigger, IN, place, at))
    else:
        if trigger in COMES and walk.gone_first:
            walk.troubles.append(DISCHARGE_FIRST)
            walk.gone_first = False
        here = now if now is not None and now.state == IN else None
        if place == NOWHERE and here:
            place = here.place  # a change of class alone
        walk.steps.append(_Step(trigger, IN, place, here.since if here and here.place == place else at))


def _cancel(walk: _Walk, what: frozenset[str], place: Place, trigger: str, at: str) -> None:
    """Take back the last step of these kinds, and what followed from it; without one there is nothing to take back.

    Where the place before is not known, the cancel's own counts: it is where the patient is again (HL7 v2.5.1, 3.3.12);
    and after a cancelled discharge in any case, since the bed may have gone to somebody else (3.3.13).
    """
    for number in range(len(walk.steps) - 1, -1, -1):
        if walk.steps[number].trigger in what:
            del walk.steps[number:]
            walk.cancelled = True
            break
    now = walk.now
    if place == NOWHERE:
        return
    if (trigger in ("A12", "A13") and now is None) or (trigger == "A13" and now is not None and now.place != place):
        walk.steps.append(_Step(trigger, IN, place, at))


def resolve(history: History) -> dict[str, Any]:
    """What a stay's entity says in clear of its history: so that open stays can be asked for."""
    found = placed(steps(history))
    unit, room, bed = found.place
    told = {"unit": unit, "room": room, "bed": bed, "placed_at": found.since}
    return {"state": found.state} | {name: value or None for name, value in told.items()}
