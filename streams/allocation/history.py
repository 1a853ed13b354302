"""A history of demand, played again under any policy: the same patients come at the same hours with the same needs, and
only where they lie, and so how long they wait, is the policy's. Discrete events, pure, no clock and no chance.

Common random numbers (Law and Kelton, Simulation Modeling and Analysis, ch. 11.2): whatever is drawn was drawn before,
and lies in `Arrival`. So a difference between two policies on one history is the policies' alone, and is paired.

Hours before zero are for settling in: they are played under a policy of their own, the same for all, and are in no
figure.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from streams.allocation.demand import SHORTEST, Arrival, House, Phase
from streams.allocation.rules import alike, off_service, urgency
from streams.allocation.site import FREE, HOUSEKEEPING, OCCUPIED, USABLE, Bed, Need, Nurse, Request, Site, Stay

Assignments = Mapping[str, str]  # reference of a stay or request -> id of a bed, to be carried out now
Policy = Callable[[Site], Assignments]
EVERY = 0.5  # hours between two looks of the bed manager, where something has changed
PRIORITIES = (1, 2, 3)
_SHIFT = 8.0  # hours that a unit of load stands for


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened: arrived, placed, moved, changed (what the patient needs), left, cleaned (the bed after
    this patient)."""

    at: float
    what: str
    arrival: Arrival
    need: Need
    bed: str = ""
    prior: str = ""  # bed, of a move


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to, of the hours from zero on.

    Waits (hours to the first bed) are of those who came in that time; who still waits at its end counts with the hours
    until then, so that no policy gains by leaving somebody out. `moves_needed` are of somebody whose bed lacked what
    was needed, broke a rule or was meant for another service. `off_service` is a share of the occupied bed hours.
    `refused`: assignments that would have broken a hard rule and so were not carried out, by rule; `later`: to a bed
    that was not free yet. `breach_hours` are hours of patients who lie against a rule because a need changed;
    `overload_hours` of units whose patients are more load than its nurses can carry. `cost` is in the site's weights:
    waiting, moves and their way, a bed for another service a day, load above the most a shift.
    """

    came: int
    placed: int
    left: int
    waiting: int  # at the end
    inside: int  # at the end
    wait: float  # mean
    wait_by_priority: dict[int, float]
    wait_p95: dict[int, float]  # by priority
    late: int  # no bed by `due`
    moves: int
    moves_needed: int
    moves_per_patient: float
    metres: float
    breach_hours: float
    overload_hours: float
    occupancy: float
    off_service: float
    refused: dict[str, int]
    later: int
    looks: int
    cost: float
    bed_cost: float  # bed days at their price


def forbidden(bed: Bed, need: Need, others: Iterable[Need]) -> str:
    """The hard rule (rules.RULES) that this bed would break, beside the `others` of its room; empty if none."""
    if bed.status not in USABLE:
        return "usable"
    if not need.needs <= bed.features:
        return "features"
    return next((rule for other in others if (rule := alike(need, other))), "")


def replay(
    house: House,
    demand: Iterable[Arrival],
    policy: Policy,
    until: float,
    settle: Policy | None = None,
    every: float = EVERY,
) -> Figures:
    """Play until the hour `until`. `settle` decides before hour zero, or else `policy` does."""
    run = Run(house, demand, policy, until, settle, every)
    for _ in run.play():
        pass
    return run.figures()


@dataclass(slots=True, eq=False)
class _Patient:
    arrival: Arrival
    need: Need  # as of now, but for `leaves`
    bed: Bed | None = None
    placed: float = 0.0
    since: float = 0.0  # in this bed
    mark: float = 0.0  # hours are counted until here
    astray: bool = False
    breach: bool = False

    def leaves(self, now: float) -> float:
        """Hours from now, as expected today; somebody who has stayed longer than expected leaves soon."""
        expected, stayed = self.arrival.expected, now - self.placed if self.bed else 0.0
        return max(SHORTEST, expected[min(int(stayed / 24), len(expected) - 1)] - stayed)

    def needed(self, now: float) -> Need:
        one = self.need  # spelled out: dataclasses.replace takes three times as long, a thousand times a look
        return Need(
            one.ref, one.patient, one.service, one.sex, one.age, one.needs, one.isolation, self.leaves(now), one.load,
            one.skill,
        )  # fmt: skip


@dataclass(slots=True, eq=False)
class _Unit:
    load: float = 0.0
    capacity: float = 0.0
    mark: float = 0.0


class Run:
    """One history under one policy: `play` tells what happens, `figures` what came of it until then."""

    def __init__(
        self,
        house: House,
        demand: Iterable[Arrival],
        policy: Policy,
        until: float,
        settle: Policy | None = None,
        every: float = EVERY,
    ) -> None:
        self.house, self.until = house, until
        self._policy, self._settle, self._every = policy, settle or policy, every
        self._beds = {bed.id: bed for bed in house.beds}  # with their status of now
        self._rooms: dict[tuple[str, str], list[str]] = defaultdict(list)
        for bed in house.beds:
            self._rooms[bed.unit, bed.room].append(bed.id)
        self._lying: dict[str, _Patient] = {}  # by bed
        self._inside: dict[str, _Patient] = {}  # by reference, as they came in
        self._waiting: dict[str, _Patient] = {}
        self._units = {unit: _Unit() for unit in sorted({bed.unit for bed in house.beds})}
        self._starts = [nurse.starts for nurse in house.nurses]
        self._longest = max((nurse.ends - nurse.starts for nurse in house.nurses), default=0.0)
        self._sequence = count()
        self._agenda: list[tuple[float, int, Callable[[float], Iterator[Happening]]]] = []
        self._look_at = -math.inf
        self._now = -math.inf
        self._waits: list[tuple[int, float]] = []
        self._tally: Counter[str] = Counter()
        self._hours: dict[str, float] = defaultdict(float)
        self._refused: Counter[str] = Counter()
        for arrival in demand:
            if arrival.at < until:
                self._when(arrival.at, partial(self._arrive, arrival))
        for hour in sorted({hour for nurse in house.nurses for hour in (nurse.starts, nurse.ends)}):
            self._when(hour, self._shift)

    def play(self) -> Iterator[Happening]:
        while self._agenda and self._agenda[0][0] < self.until:
            self._now, _, act = heapq.heappop(self._agenda)
            yield from act(self._now)
        self._now = self.until
        for patient in self._inside.values():
            self._count(self.until, patient)
        for unit in self._units.values():
            self._overload(self.until, unit)

    def _when(self, at: float, act: Callable[[float], Iterator[Happening]]) -> None:
        heapq.heappush(self._agenda, (at, next(self._sequence), act))

    # --- what comes by itself -----------------------------------------------------------------------------------

    def _arrive(self, arrival: Arrival, at: float) -> Iterator[Happening]:
        patient = _Patient(arrival, _need(arrival, arrival.phases[0]))
        self._waiting[arrival.ref] = patient
        self._tally["came"] += at >= 0
        self._look_soon(at)
        yield Happening(at, "arrived", arrival, patient.needed(at))

    def _change(self, patient: _Patient, phase: Phase, at: float) -> Iterator[Happening]:
        bed = patient.bed
        if bed is None:
            return
        unit = self._units[bed.unit]
        self._overload(at, unit)
        unit.load += phase.load - patient.need.load
        patient.need = _need(patient.arrival, phase)
        self._judge(at, bed)
        self._look_soon(at)
        yield Happening(at, "changed", patient.arrival, patient.needed(at), bed.id)

    def _leave(self, patient: _Patient, at: float) -> Iterator[Happening]:
        bed, need = patient.bed, patient.needed(at)
        if bed is None:
            return
        self._tally["left"] += at >= 0
        self._empty(at, patient, bed)
        del self._inside[patient.arrival.ref]
        yield Happening(at, "left", patient.arrival, need, bed.id)

    def _cleaned(self, patient: _Patient, bed: str, at: float) -> Iterator[Happening]:
        self._beds[bed] = replace(self._beds[bed], status=FREE)
        self._look_soon(at)
        yield Happening(at, "cleaned", patient.arrival, patient.need, bed)

    def _shift(self, at: float) -> Iterator[Happening]:
        capacity = dict.fromkeys(self._units, 0.0)
        for nurse in self._on(at, at):
            places = nurse.units or self._units.keys()
            for name in places:
                capacity[name] += nurse.load / len(places)
        for name, unit in self._units.items():
            self._overload(at, unit)
            unit.capacity = capacity[name]
        yield from ()

    def _on(self, first: float, last: float) -> Iterator[Nurse]:
        """Shifts that overlap the hours from first to last."""
        for index in range(bisect_left(self._starts, first - self._longest), len(self._starts)):
            nurse = self.house.nurses[index]
            if nurse.starts > last:
                return
            if nurse.ends > first:
                yield nurse

    # --- the bed manager looks ----------------------------------------------------------------------------------

    def _look_soon(self, at: float) -> None:
        due = math.ceil(at / self._every - 1e-9) * self._every if self._every else at
        if due > self._look_at:
            self._look_at = due
            self._when(due, self._look)

    def _look(self, at: float) -> Iterator[Happening]:
        self._look_at = -math.inf
        decide = self._settle if at < 0 else self._policy
        self._tally["looks"] += at >= 0
        yield from self._carry_out(at, decide(self.site(at)))

    def site(self, at: float) -> Site:
        """Everything that a policy may know at this hour."""
        return Site(
            id=self.house.id,
            at=f"hour {at:.2f}",
            beds=dict(self._beds),
            stays=tuple(
                Stay(patient.needed(at), patient.bed.id if patient.bed else None, patient.since - at)
                for patient in self._inside.values()
            ),
            requests=tuple(
                Request(
                    patient.needed(at), patient.arrival.priority, at - patient.arrival.at,
                    None if patient.arrival.due is None else patient.arrival.at + patient.arrival.due - at,
                    patient.arrival.surgeon, patient.arrival.minutes,
                )
                for patient in self._waiting.values()
            ),
            nurses=tuple(
                Nurse(nurse.ref, nurse.starts - at, nurse.ends - at, nurse.skill, nurse.load, nurse.units, nurse.rooms)
                for nurse in self._on(at, at + _SHIFT)
            ),
            theatres=self.house.theatres,
            weights=self.house.weights,
        )  # fmt: skip

    def _carry_out(self, at: float, wanted: Assignments) -> Iterator[Happening]:
        """Moves first, since they make room; again and again, since one may be what the next waits for."""
        moving = {ref for ref in wanted if ref in self._inside}
        open_ = [ref for ref in wanted if ref in moving] + [ref for ref in wanted if ref not in moving]
        moving = {ref for ref in moving if (bed := self._inside[ref].bed) is None or bed.id != wanted[ref]}
        done = True
        while done:
            done = False
            for ref in list(open_):
                patient = self._inside.get(ref) or self._waiting.get(ref)
                bed = self._beds.get(wanted[ref])
                if patient is None or bed is None:
                    self._refuse(at, "known")
                elif patient.bed is not None and patient.bed.id == bed.id:
                    pass
                elif rule := self._rule(patient, bed, moving):
                    self._refuse(at, rule)
                elif bed.status == FREE and not self._rule(patient, bed, set()):
                    yield self._put(at, patient, bed)
                    moving.discard(ref)
                    done = True
                else:
                    continue
                open_.remove(ref)
        self._tally["later"] += len(open_) if at >= 0 else 0

    def _refuse(self, at: float, rule: str) -> None:
        if at >= 0:
            self._refused[rule] += 1

    def _rule(self, patient: _Patient, bed: Bed, gone: set[str]) -> str:
        """The rule that this patient would break in this bed, those who are `gone` left out."""
        lies = self._lying.get(bed.id)
        if lies is not None and lies.arrival.ref not in gone:
            return "one_per_bed"
        others = (self._lying.get(other) for other in self._rooms[bed.unit, bed.room])
        return forbidden(
            bed,
            patient.need,
            (one.need for one in others if one and one is not patient and one.arrival.ref not in gone),
        )

    def _put(self, at: float, patient: _Patient, bed: Bed) -> Happening:
        arrival, prior = patient.arrival, patient.bed
        counted = at >= 0
        if prior is not None:
            self._tally["moves"] += counted
            self._tally["moves_needed"] += counted and (patient.astray or patient.breach)
            if counted:
                self._hours["metres"] += math.dist(prior.position, bed.position)
            self._empty(at, patient, prior)
        else:
            del self._waiting[arrival.ref]
            self._inside[arrival.ref] = patient
            patient.placed = at
            self._tally["placed"] += counted
            if arrival.at >= 0:
                self._wait(arrival, at)
            end = arrival.ends(at)
            for phase in arrival.phases[1:]:
                if at + phase.at < end:
                    self._when(at + phase.at, partial(self._change, patient, phase))
            self._when(end, partial(self._leave, patient))
        patient.since = patient.mark = at
        self._beds[bed.id] = patient.bed = replace(bed, status=OCCUPIED)
        self._lying[bed.id] = patient
        unit = self._units[bed.unit]
        self._overload(at, unit)
        unit.load += patient.need.load
        self._judge(at, bed)
        what = "moved" if prior else "placed"
        return Happening(at, what, arrival, patient.needed(at), bed.id, prior.id if prior else "")

    def _empty(self, at: float, patient: _Patient, bed: Bed) -> None:
        """The patient is out of this bed; the cleaners come."""
        self._count(at, patient)
        unit = self._units[bed.unit]
        self._overload(at, unit)
        unit.load -= patient.need.load
        del self._lying[bed.id]
        patient.bed = None
        self._beds[bed.id] = replace(bed, status=HOUSEKEEPING)
        hours = self.house.cleaning_isolated if patient.need.isolation else self.house.cleaning
        self._when(at + hours, partial(self._cleaned, patient, bed.id))
        self._judge(at, bed)

    # --- counting -----------------------------------------------------------------------------------------------

    def _judge(self, at: float, bed: Bed) -> None:
        """Say anew of everybody in this bed's room whether they lie against a rule; count what was until now."""
        there = [one for other in self._rooms[bed.unit, bed.room] if (one := self._lying.get(other))]
        for patient in there:
            self._count(at, patient)
            lies = patient.bed
            if lies is not None:
                patient.astray = off_service(patient.need, lies)
                patient.breach = bool(forbidden(lies, patient.need, (one.need for one in there if one is not patient)))

    def _count(self, at: float, patient: _Patient) -> None:
        hours = at - max(0.0, patient.mark)
        if hours > 0 and patient.bed is not None:
            self._hours["bed"] += hours
            self._hours["price"] += hours / 24 * patient.bed.price
            self._hours["astray"] += hours if patient.astray else 0.0
            self._hours["breach"] += hours if patient.breach else 0.0
        patient.mark = at

    def _overload(self, at: float, unit: _Unit) -> None:
        hours, above = at - max(0.0, unit.mark), unit.load - unit.capacity
        if self.house.nurses and hours > 0 and above > 1e-9:
            self._hours["overload"] += hours
            self._hours["load_above"] += hours / _SHIFT * above
        unit.mark = at

    def _wait(self, arrival: Arrival, at: float) -> None:
        self._waits.append((arrival.priority, at - arrival.at))
        self._tally["late"] += arrival.due is not None and at > arrival.at + arrival.due

    def figures(self) -> Figures:
        """Of what was played; once, at its end."""
        for patient in self._waiting.values():
            if patient.arrival.at >= 0:
                self._wait(patient.arrival, self._now)
        by_priority = {one: sorted(wait for priority, wait in self._waits if priority == one) for one in PRIORITIES}
        tally, hours, weights = self._tally, self._hours, self.house.weights
        return Figures(
            came=tally["came"],
            placed=tally["placed"],
            left=tally["left"],
            waiting=len(self._waiting),
            inside=len(self._inside),
            wait=_mean([wait for _, wait in self._waits]),
            wait_by_priority={one: _mean(waits) for one, waits in by_priority.items()},
            wait_p95={one: _p95(waits) for one, waits in by_priority.items()},
            late=tally["late"],
            moves=tally["moves"],
            moves_needed=tally["moves_needed"],
            moves_per_patient=tally["moves"] / max(1, tally["placed"]),
            metres=hours["metres"],
            breach_hours=hours["breach"],
            overload_hours=hours["overload"],
            occupancy=hours["bed"] / (len(self.house.beds) * self._now) if self._now > 0 else 0.0,
            off_service=hours["astray"] / hours["bed"] if hours["bed"] else 0.0,
            refused=dict(sorted(self._refused.items())),
            later=tally["later"],
            looks=tally["looks"],
            cost=(
                sum(urgency(priority) * wait for priority, wait in self._waits) * weights.waiting
                + tally["moves"] * weights.move
                + hours["metres"] * weights.metre
                + hours["astray"] / 24 * weights.service
                + hours["load_above"] * weights.overload
            ),
            bed_cost=hours["price"],
        )


def _need(arrival: Arrival, phase: Phase) -> Need:
    return Need(
        arrival.ref, arrival.patient, phase.service, arrival.sex, arrival.age, phase.needs, phase.isolation,
        load=phase.load, skill=phase.skill,
    )  # fmt: skip


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _p95(values: list[float]) -> float:
    """The smallest of the sorted values that 95% do not exceed."""
    return values[math.ceil(0.95 * len(values)) - 1] if values else 0.0
