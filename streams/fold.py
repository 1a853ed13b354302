"""Entities: what a patient or an encounter is by now, folded from events. Pure.

Each field keeps the position (event time, event id) of the event that gave it, and a later position wins, field by
field. So any order, any repetition and any crash give the state of one clean pass, and an event that does not carry
a field never erases it. A history (stays, diagnoses, vital signs) is folded in the same way, entry by entry, and each
keeps its HELD latest entries: what was left out once stays left out, since positions only grow, so order does not
matter there either. Where the state lives, and how it is changed, is streams/state.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.record import StaffMember

Entity = dict[str, Any]
History = dict[str, dict[str, Any]]
Merge = tuple[str, str, float]  # prior, survivor, and when the message that told it came in
LATEST = "*"  # in `folded`: the position of the latest event, whatever it carried
HISTORY = "history"
HELD = 400  # entries of one history: a person with more of them has one that sends nonsense
TERMS = "terms"  # sealed: every word that ever gave this person away, as a JSON list
MOST_TERMS = 1000  # of one person: who has more is several people (a sender's test patient), and is not known at all


@dataclass(frozen=True, slots=True)
class Change:
    """What one event says of one entity. A value of None clears the field: the sender said so (HL7 null)."""

    kind: str  # patient, encounter, location, ...
    number: str  # what makes it one of its kind within its patient; empty: the patient itself
    subject: int | None  # None: it is nobody's, and `number` alone makes it one
    clear: dict[str, Any]
    identifying: dict[str, str | None] = field(default_factory=dict, repr=False)
    entries: dict[tuple[str, str], Any] = field(default_factory=dict)  # (history, key) and its value; None: not so
    at: str = ""  # when this was so, RFC 3339 as in `position`, where that is not the event's time
    terms: frozenset[str] = field(default=frozenset(), repr=False)  # words that give the person away
    staff: dict[str, tuple[StaffMember, ...]] = field(default_factory=dict, repr=False)  # sealed under their own keys
    resolve: Callable[[History], dict[str, Any]] | None = None  # clear fields that follow from all histories together
    least: dict[str, str] = field(default_factory=dict)  # clear fields that keep the least value of all events
    alike: str = ""  # clear field for a keyed hash of `number` alone: equal under whichever reference it is told of


def position(event_time: str, event_id: str) -> str:
    """Place of an event in time. `event_time` is RFC 3339 in UTC with milliseconds, so text order is time order."""
    return f"{event_time}|{event_id}"


def fold(old: Entity | None, change: Change, at: str, common: Entity, seal: Callable[[str, str], str]) -> Entity:
    """The entity after `change` at position `at`; `old` itself where the event changes nothing any more.

    `seal(name, value)` is called for identifying fields that win, and for them alone.
    """
    known: dict[str, str] = (old or {}).get("folded", {})
    folded = dict(known)
    made: Entity = {**(old or {}), "kind": change.kind}
    if at > folded.get(LATEST, ""):  # what each event says of itself is the latest one's
        made |= common
        folded[LATEST] = at
    sealed: dict[str, str] = dict(made.get("sealed", {}))
    for target, values in ((made, change.clear), (sealed, change.identifying)):
        for name, value in values.items():
            if at <= folded.get(name, ""):
                continue
            folded[name] = at
            if value is None:
                target.pop(name, None)
            else:
                target[name] = seal(name, value) if target is sealed else value
    if change.entries:
        made[HISTORY] = _entered(made.get(HISTORY, {}), change.entries, at, folded)
    if change.resolve is not None:
        for name, value in change.resolve(made.get(HISTORY, {})).items():
            if value is None:
                made.pop(name, None)
            else:
                made[name] = value
    for name, text in change.least.items():
        made[name] = min(made.get(name) or text, text)
    if old is not None and folded == known and all(made[name] == old.get(name) for name in change.least):
        return old
    made["folded"], made["sealed"] = folded, sealed
    made["event_time"], made["event_id"] = folded[LATEST].split("|")
    return made


def joined(known: Iterable[str], terms: Iterable[str]) -> tuple[str, ...]:
    """All words that give a person away: none is ever forgotten, since a text may be older than a name.

    The first MOST_TERMS and one more in their order, so that any order of events ends with the same.
    """
    return tuple(sorted({*known, *terms})[: MOST_TERMS + 1])


def family_at(ref: str, merges: Iterable[Merge], when: float) -> set[str]:
    """A reference with all that were joined with it by merges that had come in by then, seconds since 1970."""
    held = [(prior, survivor) for prior, survivor, told_at in merges if told_at <= when]
    family, grown = {ref}, True
    while grown:
        beside = {one for pair in held if not family.isdisjoint(pair) for one in pair}
        family, grown = family | beside, not beside <= family
    return family


def history_of(own: Entity, others: Sequence[Entity], until: str) -> History:
    """The histories of one person, kept under several references, as one: of an entry the latest position holds.

    Of others nothing counts that has a later position than `until`, that of the event which is looked at: so it does
    not matter how far they have been folded meanwhile.
    """
    if not others:
        return dict(own.get(HISTORY, {}))
    latest: dict[str, tuple[str, Entity]] = {}
    for entity in (own, *others):
        for place, at in entity.get("folded", {}).items():
            counts = place.startswith(f"{HISTORY}/") and (entity is own or at <= until)
            if counts and at > latest.get(place, ("", own))[0]:
                latest[place] = at, entity
    made: History = {}
    for place, (_, entity) in latest.items():
        _, name, key = place.split("/", 2)
        if key in (held := entity.get(HISTORY, {}).get(name, {})):  # else: an entry that is not so
            made.setdefault(name, {})[key] = held[key]
    return made


def without(old: Entity | None, events: Collection[str]) -> Entity | None:
    """The entity without what these events gave to its histories; None where they gave nothing that still holds.

    All else of it stays: it is what the patient is by now. Whoever folds such an event again brings its entries back.
    """
    folded: dict[str, str] = (old or {}).get("folded", {})
    gone = {place for place, at in folded.items() if place.startswith(f"{HISTORY}/") and at.split("|")[1] in events}
    if old is None or not gone:
        return None
    made: Entity = {**old, "folded": {place: at for place, at in folded.items() if place not in gone}}
    kept = {
        name: {key: value for key, value in held.items() if f"{HISTORY}/{name}/{key}" not in gone}
        for name, held in old.get(HISTORY, {}).items()
    }
    made[HISTORY] = {name: held for name, held in kept.items() if held}
    return made


def _entered(old: History, entries: dict[tuple[str, str], Any], at: str, folded: dict[str, str]) -> History:
    """The histories with these entries; `folded` learns where each comes from, an entry that is not so included."""
    made = {name: dict(held) for name, held in old.items()}
    for (name, key), value in entries.items():
        place = f"{HISTORY}/{name}/{key}"
        if at <= folded.get(place, ""):
            continue
        folded[place] = at
        if value is None:
            made.get(name, {}).pop(key, None)
        else:
            made.setdefault(name, {})[key] = value
    for name in {name for name, _ in entries}:
        begin = f"{HISTORY}/{name}/"
        places = [one for one in folded if one.startswith(begin)]
        if len(places) <= HELD:
            continue
        for place in sorted(places, key=lambda one: (folded[one], one))[:-HELD]:
            del folded[place]
            made.get(name, {}).pop(place.removeprefix(begin), None)
    return {name: held for name, held in made.items() if held}
