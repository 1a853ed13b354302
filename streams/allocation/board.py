"""From a site's entities to the site at one moment, and what in them cannot be so. Pure.

Whatever the events say is shown; where they contradict each other, the site that the planner gets is one that can be:
the last to come keeps the bed, and a conflict says the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from schemas.envelope import rfc3339
from streams.allocation.features import STATUSES
from streams.allocation.placement import IN, MOVES, NOWHERE, PLANNED, Place, Placed, placed, resolve, steps
from streams.allocation.site import (
    CLOSED,
    FREE,
    OCCUPIED,
    Bed,
    Need,
    Nurse,
    Request,
    Site,
    Stay,
    Theatre,
    Weights,
)
from streams.fold import HISTORY, LATEST, Entity

ACTIVE = "active"
STAY = "stay"  # keyed hash of the visit number alone: one stay has one, under whichever reference it was told
BEDDED = frozenset(("I", "E", "B"))  # HL7 table 0004: in-, emergency and obstetrics patients have a place, told or not
NURSE = "nurse"  # FHIR practitioner-role
SHIFTS_AHEAD = timedelta(hours=72)
UNKNOWN_STAY = 48.0  # hours that somebody stays of whom nothing is told
OVERDUE = 1.0  # hours that somebody stays whose time is over

TWO_PATIENTS = "two_patients_in_a_bed"
TWO_BEDS = "patient_in_two_beds"
UNKNOWN_BED = "unknown_bed"
CLOSED_BED = "closed_bed_occupied"
SHIFT_OVERLAP = "shift_overlap"
# and placement.DISCHARGE_FIRST


@dataclass(frozen=True, slots=True)
class Conflict:
    """What cannot be so. `refs` are ids of entities: stays, or shifts."""

    kind: str
    refs: tuple[str, ...]
    bed: str = ""


@dataclass(frozen=True, slots=True)
class Shift:
    """A member of staff, of any role, from one time to another."""

    id: str
    ref: str  # of the member; empty where it was erased
    role: str
    unit: str
    units: frozenset[str]  # where he or she may work; empty: anywhere
    rooms: tuple[str, ...]  # unit|room, as assigned now
    skill: int
    load: float
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Board:
    """`stays` are all that the events place, by id; `lying` whoever they place in a bed, last comer first.

    `declared` are the units whose beds operations events have told one by one.
    """

    site: Site
    stays: Mapping[str, Stay]
    lying: Mapping[str, tuple[str, ...]]
    shifts: tuple[Shift, ...]
    conflicts: tuple[Conflict, ...]
    declared: frozenset[str] = frozenset()

    def counts(self) -> dict[tuple[str, str], int]:
        """Beds by unit and status (HL7 table 0116)."""
        made: dict[tuple[str, str], int] = defaultdict(int)
        for bed in self.site.beds.values():
            made[bed.unit, bed.status] += 1
        return dict(made)

    def waiting(self) -> dict[int, int]:
        """Requests by priority."""
        made: dict[int, int] = defaultdict(int)
        for one in self.site.requests:
            made[one.priority] += 1
        return dict(made)


def bed_id(unit: str, room: str, bed: str) -> str:
    return f"{unit}|{room}|{bed}"


def board(
    site: str,
    entities: Mapping[str, Entity],
    at: datetime,
    merged: Mapping[str, str] | None = None,
    weights: Weights | None = None,
) -> Board:
    """`entities` by id, of this site or of several; `merged` gives the survivor of each reference that is an alias."""
    whole = joined(entities, merged or {})
    by_kind: dict[str, dict[str, Entity]] = defaultdict(dict)
    for name in sorted(whole):
        if whole[name].get("site") == site:
            by_kind[whole[name]["kind"]][name] = whole[name]
    work = _Work(site, at, merged or {})
    beds = work.beds(by_kind["location"].values())
    where = {name: (one, work.placed(one)) for name, one in by_kind["placement"].items()}
    stays = work.stays(where, beds)
    shifts = work.shifts(by_kind["shift"])
    lying = work.lying(stays)
    requests = work.requests(by_kind["request"], where)
    asking = {one.need.patient for one in requests}  # each of them stands once: lying, or waiting
    requests += [one for one in work.planned(where) if one.need.patient not in asking]
    bedless = {name for name, one in stays.items() if one.bed is None and one.need.patient in asking}
    placed_stays = work.possible({name: one for name, one in stays.items() if name not in bedless}, lying)
    return Board(
        Site(
            id=site,
            at=rfc3339(at),
            beds={name: work.with_status(bed, lying) for name, bed in beds.items()},
            stays=placed_stays,
            requests=tuple(sorted(requests, key=lambda one: (one.priority, -one.waits, one.need.ref))),
            nurses=tuple(_nurse(one, at) for one in shifts if one.role == NURSE and one.ends_at > at),
            theatres=tuple(_theatres(by_kind["resource"].values())),
            weights=weights or Weights(),
        ),
        stays,
        lying,
        shifts,
        tuple(sorted(work.conflicts, key=lambda one: (one.kind, one.bed, one.refs))),
        frozenset(work.declared),
    )


def person_of(one: Entity, merged: Mapping[str, str]) -> str:
    """The reference under which the patient of an entity is known by now."""
    ref: str = one.get("patient_ref", "")
    return merged.get(ref, ref)


def stays(found: Mapping[str, Entity], merged: Mapping[str, str]) -> list[list[str]]:
    """Names of the placements that are of one stay each, in the order in which they were told last.

    After a merge a stay goes on under the survivor's reference, in another entity. One without STAY, told last by a
    version that did not know it, is a stay of its own.
    """
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, one in found.items():
        if one["kind"] == "placement":
            groups[person_of(one, merged), one.get(STAY, name)].append(name)
    return [sorted(some, key=lambda name: (found[name]["folded"][LATEST], name)) for some in groups.values()]


def as_one(some: Sequence[Entity]) -> Entity:
    """The stay that these are of, in the order in which they were told last: all steps of all, as one history."""
    if len(some) == 1:
        return some[0]
    made: Entity = {}
    moves: dict[str, Any] = {}
    for one in some:
        moves |= steps(one.get(HISTORY, {}))
        made = {name: value for name, value in made.items() if name not in one["folded"]} | one
    made[HISTORY] = {MOVES: moves}
    now = resolve(made[HISTORY])
    return {name: value for name, value in (made | now).items() if value is not None}


def joined(found: Mapping[str, Entity], merged: Mapping[str, str]) -> dict[str, Entity]:
    """The same with one entity a stay, under the name of the one that was told last."""
    made = {name: one for name, one in found.items() if one["kind"] != "placement"}
    return made | {some[-1]: as_one([found[name] for name in some]) for some in stays(found, merged)}


class _Work:
    """One board being made: what it finds wrong on its way."""

    def __init__(self, site: str, at: datetime, merged: Mapping[str, str]) -> None:
        self._site, self._at, self._merged = site, at, merged
        self._until = rfc3339(at)
        self.declared: set[str] = set()
        self.conflicts: list[Conflict] = []

    # ---------------------------------------------------------------------------------------------------------- beds

    def beds(self, locations: Iterable[Entity]) -> dict[str, Bed]:
        """Beds, each with what its room and its unit give it: features, services where it has none, and a closure."""
        there = {
            (one.get("unit", ""), one.get("room", ""), one.get("bed", "")): one
            for told in locations
            if (one := self._then(told)) is not None
        }
        made: dict[str, Bed] = {}
        for (unit, room, bed), one in there.items():
            if not bed:
                continue
            above = [there[place] for place in dict.fromkeys(((unit, room, ""), (unit, "", ""))) if place in there]
            chain = [one, *above]
            status = one.get("bed_status") or FREE
            if any(level.get("bed_status") == CLOSED for level in above):
                status = CLOSED
            name = bed_id(unit, room, bed)
            made[name] = Bed(
                id=name,
                unit=unit,
                room=room,
                status=status,
                services=frozenset(next((level["services"] for level in chain if level.get("services")), ())),
                features=frozenset(word for level in chain for word in level.get("features", ())),
                position=(float(one.get("position_x", 0.0)), float(one.get("position_y", 0.0))),
                price=float(one.get("price", 0.0)),
            )
            if one.get("declared"):
                self.declared.add(unit)
        return made

    def _then(self, one: Entity) -> Entity | None:
        """A place with the status that it had then; None where it was not there.

        What was told before the history of its statuses begins, if anything, is no longer known: then it was free.
        """
        if one["event_time"] <= self._until:
            return one if one.get("state") == ACTIVE else None
        told: dict[str, str] = one.get(HISTORY, {}).get(STATUSES, {})
        status = told.get(max((when for when in told if when <= self._until), default=""))
        if status == "":  # no longer there
            return None
        is_since = one["folded"].get("bed_status", "").split("|")[0] <= self._until  # cleared since then, perhaps
        return one if is_since else one | {"bed_status": status}

    def with_status(self, bed: Bed, lying: Mapping[str, tuple[str, ...]]) -> Bed:
        """Occupied where somebody lies, whatever was told of it; closed stays closed."""
        if bed.id not in lying or bed.status == OCCUPIED:
            return bed
        if bed.status == CLOSED:
            self.conflicts.append(Conflict(CLOSED_BED, lying[bed.id], bed.id))
            return bed
        return replace(bed, status=OCCUPIED)

    # --------------------------------------------------------------------------------------------------------- stays

    def placed(self, one: Entity) -> Placed:
        return placed(steps(one.get(HISTORY, {})), self._until)

    def _person(self, one: Entity) -> str:
        return person_of(one, self._merged)

    def stays(self, steps: Mapping[str, tuple[Entity, Placed]], beds: dict[str, Bed]) -> dict[str, Stay]:
        """Everybody who is in. A bed that nobody has declared is known by who lies in it, where its unit's are not
        told one by one; else it is unknown."""
        newest: dict[str, str] = defaultdict(str)  # of each survivor: the last step told under his or her own name
        for one, _ in steps.values():
            if self._person(one) == one.get("patient_ref"):
                newest[one["patient_ref"]] = max(newest[one["patient_ref"]], _last(one))
        made: dict[str, Stay] = {}
        for name, (one, where) in steps.items():
            person = self._person(one)
            if STAY not in one and person != one.get("patient_ref") and newest[person] > _last(one):
                continue  # told on under the survivor's name, in another entity that cannot be told
            unit, room, bed = where.place
            if where.troubles and one.get("sealed", {}).get("visit_number"):
                self.conflicts += [Conflict(kind, (name,)) for kind in where.troubles]
            if where.state != IN or not (bed or one.get("patient_class") in BEDDED):
                continue
            lies: str | None = bed_id(unit, room, bed) if bed else None
            if lies is not None and lies not in beds:
                if unit in self.declared:
                    self.conflicts.append(Conflict(UNKNOWN_BED, (name,), lies))
                    lies = None
                else:
                    beds[lies] = Bed(lies, unit, room)
            due = one.get("expected_discharge_at")
            came = where.trail[0][0] if where.trail else where.since
            made[name] = Stay(
                self._need(name, one),
                lies,
                self._hours(where.since),
                self._hours(came),
                self._hours(due) if due else None,
            )
        return made

    def lying(self, stays: Mapping[str, Stay]) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name, stay in stays.items():
            if stay.bed is not None:
                found[stay.bed].append(name)
        return {bed: tuple(sorted(names, key=lambda one: (-stays[one].since, one))) for bed, names in found.items()}

    def possible(self, stays: Mapping[str, Stay], lying: Mapping[str, tuple[str, ...]]) -> tuple[Stay, ...]:
        """One stay a patient and one patient a bed: of both the last that began."""
        of_person: dict[str, list[str]] = defaultdict(list)
        for name in sorted(stays, key=lambda one: (stays[one].bed is None, -stays[one].since, one)):
            of_person[stays[name].need.patient].append(name)
        last = {some[0] for some in of_person.values()}
        for some in of_person.values():
            if len({stays[one].bed for one in some} - {None}) > 1:
                self.conflicts.append(Conflict(TWO_BEDS, tuple(some)))
        made = []
        taken: set[str] = set()
        for bed, names in lying.items():
            if len({stays[one].need.patient for one in names}) > 1:
                self.conflicts.append(Conflict(TWO_PATIENTS, names, bed))
            taken.add(next((one for one in names if one in last), ""))
        for name in sorted(last):
            stay = stays[name]
            kept = stay.bed if stay.bed is None or name in taken else None
            made.append(replace(stay, bed=kept))
        return tuple(made)

    def _need(self, name: str, one: Entity) -> Need:
        leaves = self._hours(one.get("expected_discharge_at", ""), UNKNOWN_STAY)
        if "stay_hours" in one:
            leaves = float(one["stay_hours"])
        return Need(
            ref=name,
            patient=self._person(one),
            service=one.get("hospital_service", ""),
            sex=one.get("sex", ""),
            age=one.get("age"),
            needs=frozenset(one.get("needs", ())),
            isolation=one.get("isolation", ""),
            leaves=max(leaves, OVERDUE),
            load=float(one.get("load", 1.0)),
            skill=int(one.get("skill", 0)),
        )

    # ------------------------------------------------------------------------------------------------------ requests

    def planned(self, steps: Mapping[str, tuple[Entity, Placed]]) -> list[Request]:
        """Those whose coming is announced (A05, A14, a planned Encounter)."""
        return [
            self._request(name, one, where.since, one.get("expected_admit_at", ""))
            for name, (one, where) in steps.items()
            if where.state == PLANNED
        ]

    def requests(self, requests: Mapping[str, Entity], steps: Mapping[str, tuple[Entity, Placed]]) -> list[Request]:
        trails: dict[str, list[tuple[str, Place]]] = defaultdict(list)
        for one, where in steps.values():
            trails[self._person(one)] += where.trail
        return [
            self._request(name, one, one.get("requested_at", ""), one.get("due_at", ""))
            for name, one in requests.items()
            if one.get("state") == ACTIVE
            and one.get("requested_at", "") <= self._until
            and not _answered(one, sorted(trails[self._person(one)]))
        ]

    def _request(self, name: str, one: Entity, since: str, due: str) -> Request:
        return Request(
            need=self._need(name, one),
            priority=int(one.get("priority", 3)),
            waits=max(0.0, -self._hours(since)),
            due=self._hours(due) if due else None,
            surgeon=next(iter(one.get("staff_ref", ())), ""),
            minutes=int(one.get("minutes", 0)),
        )

    # --------------------------------------------------------------------------------------------------------- staff

    def shifts(self, entities: Mapping[str, Entity]) -> tuple[Shift, ...]:
        """Shifts that are under way or ahead; two of one person at once are flagged."""
        found = [
            _shift(name, one)
            for name, one in entities.items()
            if one.get("state") == ACTIVE and "starts_at" in one and "ends_at" in one
        ]
        made = [one for one in found if one.ends_at > self._at and one.starts_at < self._at + SHIFTS_AHEAD]
        made.sort(key=lambda one: (one.starts_at, one.ends_at, one.id))
        of_member: dict[str, list[Shift]] = defaultdict(list)
        for one in made:
            for before in of_member[one.ref] if one.ref else ():
                if before.ends_at > one.starts_at:
                    self.conflicts.append(Conflict(SHIFT_OVERLAP, (before.id, one.id)))
            of_member[one.ref].append(one)
        return tuple(made)

    # --------------------------------------------------------------------------------------------------------- times

    def _hours(self, at: str, otherwise: float = 0.0) -> float:
        """Hours from now; negative: ago."""
        if not at:
            return otherwise
        return round((datetime.fromisoformat(at) - self._at).total_seconds() / 3600, 4)


def _answered(request: Entity, trail: list[tuple[str, Place]]) -> bool:
    """Whether somebody has come to a bed of another unit since then: of the unit asked for, where one was."""
    asked, wanted = request.get("requested_at", ""), request.get("unit")
    before = next((place for at, place in reversed(trail) if at <= asked), NOWHERE)
    came = [unit for at, (unit, _, bed) in trail if at > asked and bed]
    return any(unit == wanted if wanted else unit != before[0] for unit in came)


def _last(one: Entity) -> str:
    return max(steps(one.get(HISTORY, {})), default="")


def _shift(name: str, one: Entity) -> Shift:
    unit = one.get("unit", "")
    return Shift(
        id=name,
        ref=next(iter(one.get("staff_ref", ())), ""),
        role=one.get("role", ""),
        unit=unit,
        units=frozenset((unit, *one.get("float_units", ()))) if unit else frozenset(),
        rooms=tuple(f"{unit}|{room}" for room in one.get("rooms", ())),
        skill=int(one.get("skill", 0)),
        load=float(one.get("load", 10.0)),
        starts_at=datetime.fromisoformat(one["starts_at"]),
        ends_at=datetime.fromisoformat(one["ends_at"]),
    )


def _nurse(one: Shift, at: datetime) -> Nurse:
    def hours(when: datetime) -> float:
        return round((when - at).total_seconds() / 3600, 4)

    return Nurse(
        one.ref, hours(one.starts_at), hours(one.ends_at), one.skill, one.load, one.units, frozenset(one.rooms)
    )


def _theatres(resources: Iterable[Entity]) -> Iterable[Theatre]:
    for one in resources:
        usable = one.get("state") == ACTIVE and one.get("resource_status", "available") != "unavailable"
        if one.get("resource_type") == "theatre" and usable:
            yield Theatre(one["resource_id"], int(one.get("minutes", 0)), float(one.get("price", 0.0)))
