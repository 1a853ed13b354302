"""Patients to beds: a plan within milliseconds, better as long as there is time, never worse than the one before.

First a lawful placing by matching (start.py), then neighbourhoods of rooms solved exactly (model.py) around what is new
and what costs most; the best placing so far is ours to keep, not the solver's. With a long time, the whole as one
programme, begun from there, for its bound.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from streams.allocation.bound import relaxed
from streams.allocation.columns import choose, generate, of_placing
from streams.allocation.convert import Converter
from streams.allocation.ground import CLOSED, MUST, NOWHERE, Ground, Placing
from streams.allocation.model import build, hint, read
from streams.allocation.must import around, make_room, nearest
from streams.allocation.plan import BED, Plan
from streams.allocation.report import report
from streams.allocation.site import Site
from streams.allocation.start import accept, begin

SECONDS = 0.5  # of a plan that is made anew after an event
WHOLE = 20.0  # seconds from which on a part goes to the whole problem at once, for its bound
_ROOM = 0.6  # of the time at most to make room for who must have a bed
_CONVERT = 0.5  # of the time at most for rooms that change whom they are for
_NEAR = 0.4  # of the time for neighbourhoods, where the whole is solved as well
_BEDS, _FEWEST, _MOST = 16, 12, 80  # of a neighbourhood: at first, at least, at most
_EXACT = 12  # beds of a neighbourhood up to which ages are modelled as they are
_LIMIT = 3.0  # seconds of one neighbourhood at most
_ASIDE = 2  # one neighbourhood in so many is not around who waits and where what is in the way could go
_EASY = 0.8  # seconds below which the next may be larger
_STALE = 40  # neighbourhoods in a row without any gain, after which nothing more is expected
_DETERMINISTIC = 2.0  # of one neighbourhood, in CP-SAT's own unit, where the number of rounds is given


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to think. `rounds` ends it by number of neighbourhoods instead: the same seed, the same plan."""

    seconds: float = SECONDS
    workers: int = 1
    seed: int = 1
    rounds: int | None = None


def assign(
    site: Site,
    before: Plan | None = None,
    effort: Effort = Effort(),
    barred: frozenset[str] = frozenset(),
    better: Callable[[Plan], None] | None = None,
) -> Plan:
    """Beds for all. `before` is the plan that is accepted, or else the last: begun from, and changed at a price.
    `barred`: requests that may have none. `better` gets the first plan and, about each second, one that costs less.
    """
    started = time.monotonic()
    fixed = effort.rounds is not None
    ends = float("inf") if fixed else started + effort.seconds
    ground = Ground(site, before, barred)
    placing = begin(ground, before)
    make_room(placing, None if fixed else started + effort.seconds * _ROOM)
    told, (bound, worth) = started, relaxed(ground)

    def tell() -> Plan:
        return report(placing, bound, time.monotonic() - started, site, before)

    if better:
        better(tell())
    chance = random.Random(effort.seed)  # noqa: S311
    converter = Converter(placing, chance)
    while placing.cost > bound and converter.improve(started + effort.seconds * _CONVERT, 60 if fixed else None):
        pass
    search = Search(placing, chance, _focus(ground, before))
    near = started + effort.seconds * _NEAR if effort.seconds >= WHOLE and not fixed else ends
    while not search.exhausted and placing.cost > bound:
        if time.monotonic() >= near if effort.rounds is None else search.rounds >= effort.rounds:
            break
        gained = search.step(near, fixed)
        bound = max(bound, search.proven)
        if better and gained and time.monotonic() - told >= 1.0:
            told = time.monotonic()
            better(tell())
    if effort.seconds >= WHOLE and not fixed and placing.cost > bound:
        bound = max(bound, patterns(placing, worth, ends, effort))
    return tell()


def _focus(ground: Ground, before: Plan | None) -> set[int]:
    """Rooms of those who were in the last plan and are no more."""
    refs = {need.ref for need in ground.needs}
    beds = {bed.id: int(ground.room[i]) for i, bed in enumerate(ground.beds)}
    gone = [one for one in (before.assignments if before else ()) if one.kind == BED and one.ref not in refs]
    return {beds[bed] for one in gone for bed in (one.to, one.prior) if bed in beds}


class Search:
    """Neighbourhoods of a placing, the most promising first, larger while they are solved with ease."""

    def __init__(self, placing: Placing, chance: random.Random, focus: set[int]) -> None:
        self.placing, self.chance, self.focus = placing, chance, focus
        self.cost = placing.cost
        self.rounds = self.idle = 0
        self.proven = 0  # hundredths, once a neighbourhood was the whole site
        self.beds = _BEDS

    @property
    def exhausted(self) -> bool:
        return self.idle >= _STALE or not self.placing.ground.rooms

    def step(self, ends: float, fixed: bool = False) -> bool:
        """Solve one neighbourhood; True if the placing costs less now. `fixed`: by effort and not by the clock."""
        began = time.monotonic()
        rooms, needs = self._whole_of(self._rooms())
        self.rounds += 1
        ground = self.placing.ground
        exact = sum(len(ground.of_room[room]) for room in rooms) <= _EXACT
        model = build(ground, rooms, needs, None if exact else self.placing)
        hint(ground, model, self.placing)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = self.chance.randrange(1 << 30)
        solver.parameters.linearization_level = 2  # without it a room's sex is no bound on anybody
        if fixed:
            solver.parameters.max_deterministic_time = _DETERMINISTIC
        else:
            solver.parameters.max_time_in_seconds = max(0.01, min(_LIMIT, ends - time.monotonic()))
        status = solver.solve(model.cp)
        easy = status == cp_model.OPTIMAL and (fixed or time.monotonic() - began < _EASY)
        self.beds = min(self.beds + 4, _MOST) if easy else max(self.beds - 8, _FEWEST)
        gained = False
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            gained = accept(self.placing, read(ground, model, solver, self.placing.place), self.cost)
        self.cost = self.placing.cost
        self.idle = 0 if gained else self.idle + 1
        whole = len(rooms) == len(ground.rooms) and len(needs) == len(ground.needs)
        if exact and whole and status == cp_model.OPTIMAL:
            self.proven = round(solver.best_objective_bound)
        return gained

    def _rooms(self) -> set[int]:
        """What an event has touched, then by turns: around a request without a bed, rooms of mixed ages, anywhere."""
        ground, placing = self.placing.ground, self.placing
        order = list(range(len(ground.rooms)))
        self.chance.shuffle(order)
        waiting = [
            n
            for n, bed in enumerate(placing.place)
            if bed == NOWHERE and ground.price[n].min(initial=CLOSED) < ground.out[n]  # else no bed ever suits
        ]
        aside = waiting and (self.rounds > 0 or not self.focus) and self.rounds % _ASIDE != _ASIDE - 1
        if aside and (rooms := self._aside(waiting)):
            return rooms
        if self.rounds == 0 and self.focus:
            order.sort(key=lambda room: room not in self.focus)
        elif self.rounds % 4 < 3 and waiting:
            n = self.chance.choices(waiting, [float(min(ground.out[m], MUST)) for m in waiting])[0]
            order.sort(key=lambda room: self._hinders(n, room))
        elif self.rounds % 8 == 3:
            order.sort(key=lambda room: -int(placing.span[room]) * self.chance.random())
        alive = [room for room in order if any(self._alive(bed) for bed in ground.of_room[room])]
        rooms = set[int]()
        for half, some in ((2, order), (1, alive + order)):
            for room in some:
                if sum(len(ground.of_room[one]) for one in rooms) >= self.beds // half:
                    break
                rooms.add(room)
        return rooms

    def _aside(self, waiting: list[int]) -> set[int]:
        """Around who waits: rooms with least in the way, and rooms to which what is in the way could go."""
        ground, placing, rooms = self.placing.ground, self.placing, set[int]()
        n = self.chance.choices(waiting, [float(min(ground.out[m], MUST)) ** 3 for m in waiting])[0]
        ways = nearest(placing, n, 8)
        self.chance.shuffle(ways)
        around(placing, n, ways, rooms, 2 * self.beds)
        return rooms

    def _alive(self, bed: int) -> bool:
        """Whether somebody comes or may come into a bed: where nothing moves nothing is won."""
        return bool(self.placing.newcomer[bed] != NOWHERE or self.placing.open[bed])

    def _hinders(self, n: int, room: int) -> float:
        """How much is in the way of a request in a room; ties are broken by chance."""
        ground, placing = self.placing.ground, self.placing
        beds = ground.of_room[room]
        price = min(int(ground.price[n, bed]) for bed in beds)
        there = [m for bed in beds for m in ground.lying[bed] if placing.place[m] == bed]
        return price + 6000 * len(there) / len(beds) + 3000 * self.chance.random()

    def _whole_of(self, rooms: set[int]) -> tuple[list[int], list[int]]:
        """Rooms with all whose moves join them, and everybody concerned: who is there, and who waits and could be."""
        ground, placing = self.placing.ground, self.placing
        needs = placing.joined(rooms)
        beds = [bed for room in rooms for bed in ground.of_room[room]]
        waiting = [n for n, bed in enumerate(placing.place) if bed == NOWHERE and n not in needs]
        fit = [n for n in waiting if ground.own[n] == NOWHERE and int(ground.price[n, beds].min()) < ground.out[n]]
        fit.sort(key=lambda n: -ground.out[n] * (0.5 + self.chance.random()))
        if len(rooms) == len(ground.rooms) and len(beds) <= _EXACT:
            return sorted(rooms), list(range(len(ground.needs)))
        return sorted(rooms), sorted(needs.union(fit[: len(beds) // 2]))


def whole(placing: Placing, seconds: float, effort: Effort, hinted: bool = True) -> int:
    """The whole problem at once; gives its bound, and takes over what it finds."""
    ground = placing.ground
    model = build(ground, range(len(ground.rooms)), range(len(ground.needs)))
    if hinted:
        hint(ground, model, placing)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = effort.workers
    solver.parameters.random_seed = effort.seed
    solver.parameters.max_time_in_seconds = max(0.1, seconds)
    solver.parameters.linearization_level = 2
    status = solver.solve(model.cp)
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        accept(placing, read(ground, model, solver, placing.place), placing.cost)
    return round(solver.best_objective_bound)


def patterns(placing: Placing, worth: NDArray[np.float64], ends: float, effort: Effort) -> int:
    """The whole problem over patterns of rooms; gives its bound, and takes over what it finds."""
    ground = placing.ground
    half = time.monotonic() + (ends - time.monotonic()) * 0.7
    start = list(of_placing(placing))
    needs = range(len(ground.needs))
    master, bound = generate(ground, start, half, range(len(ground.rooms)), needs, worth)
    chosen = choose(master, max(0.1, ends - time.monotonic()), effort.workers, effort.seed, start, placing.cost - bound)
    place = [NOWHERE] * len(ground.needs)
    for one in chosen:
        for n, bed in one.beds:
            place[n] = bed
    if chosen:
        accept(placing, place, placing.cost)
    return int(bound) if bound > 0 else 0
