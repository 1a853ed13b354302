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

from ortools.sat.python import cp_model

from streams.allocation.bound import relaxed
from streams.allocation.ground import MUST, NOWHERE, Ground, Placing
from streams.allocation.model import build, hint, read
from streams.allocation.plan import Plan
from streams.allocation.report import report
from streams.allocation.site import Site
from streams.allocation.start import begin

SECONDS = 0.5  # of a plan that is made anew after an event
WHOLE = 20.0  # seconds from which on the last part goes to the whole problem at once
_SHARE = 0.3  # of the time for neighbourhoods, where the whole is solved as well
_BEDS = 36  # of a neighbourhood at first
_WAITING = 24  # requests of a neighbourhood at most that have no bed
_STALE = 60  # neighbourhoods in a row without any gain, after which nothing more is expected
_DETERMINISTIC = 0.15  # of a neighbourhood, in CP-SAT's own unit, so that the same seed finds the same


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
    effort: Effort = Effort(),  # noqa: B008  frozen
    barred: frozenset[str] = frozenset(),
    better: Callable[[Plan], None] | None = None,
) -> Plan:
    """Beds for all. `before` is the plan that is accepted, or else the last: begun from, and changed at a price.
    `barred`: requests that may have none. `better` gets the first plan and, about each second, one that costs less.
    """
    started = time.monotonic()
    ends = started + effort.seconds
    ground = Ground(site, before, barred)
    placing = begin(ground, before)
    search = Search(placing, random.Random(effort.seed))  # noqa: S311
    bound = relaxed(ground)
    told = started

    def tell() -> Plan:
        return report(placing, bound, time.monotonic() - started, site, before)

    if better:
        better(tell())
    near = started + effort.seconds * _SHARE if effort.seconds >= WHOLE and effort.rounds is None else ends
    while not search.exhausted and placing.cost > bound:
        if time.monotonic() >= near if effort.rounds is None else search.rounds >= effort.rounds:
            break
        gained = search.step(ends)
        if better and gained and time.monotonic() - told >= 1.0:
            told = time.monotonic()
            better(tell())
    if effort.seconds >= WHOLE and effort.rounds is None and placing.cost > bound:
        bound = max(bound, whole(placing, ends - time.monotonic(), effort))
    return tell()


class Search:
    """Neighbourhoods of a placing, the most promising first, larger while they are solved with ease."""

    def __init__(self, placing: Placing, chance: random.Random) -> None:
        self.placing, self.chance = placing, chance
        self.cost = placing.cost
        self.rounds = self.idle = 0
        self.beds = _BEDS

    @property
    def exhausted(self) -> bool:
        return self.idle >= _STALE or not self.placing.ground.rooms

    def step(self, ends: float) -> bool:
        """Solve one neighbourhood; True if the placing costs less now."""
        self.rounds += 1
        rooms, needs = self._whole_of(self._rooms())
        ground = self.placing.ground
        model = build(ground, rooms, needs)
        hint(ground, model, self.placing)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = self.chance.randrange(1 << 30)
        solver.parameters.max_deterministic_time = _DETERMINISTIC
        solver.parameters.max_time_in_seconds = max(0.01, ends - time.monotonic())
        status = solver.solve(model.cp)
        self.beds = min(self.beds + 4, 120) if status == cp_model.OPTIMAL else max(self.beds - 8, 12)
        gained = False
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            gained = accept(self.placing, read(ground, model, solver, self.placing.place), self.cost)
        self.cost = self.placing.cost
        self.idle = 0 if gained else self.idle + 1
        return gained

    def _rooms(self) -> set[int]:
        """Around a request without a bed, a room of mixed ages, or anywhere."""
        ground, placing = self.placing.ground, self.placing
        size = lambda rooms: sum(len(ground.of_room[room]) for room in rooms)  # noqa: E731
        waiting = [n for n, bed in enumerate(placing.place) if bed == NOWHERE]
        turn = self.rounds % 3
        rooms: set[int] = set()
        order = list(range(len(ground.rooms)))
        self.chance.shuffle(order)
        if turn == 0 and waiting:
            n = self.chance.choices(waiting, [float(min(ground.out[m], MUST)) for m in waiting])[0]
            order.sort(key=lambda room: self._hinders(n, room))
        elif turn == 1:
            order.sort(key=lambda room: -int(placing.span[room]) * self.chance.random())
        with_space = [room for room in order if any(placing.open[bed] for bed in ground.of_room[room])]
        for room in order:
            if size(rooms) >= self.beds // 2:
                break
            rooms.add(room)
        for room in with_space + order:
            if size(rooms) >= self.beds:
                break
            rooms.add(room)
        return rooms

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
        needs: set[int] = set()
        todo = list(rooms)
        while todo:
            for bed in ground.of_room[todo.pop()]:
                here = [*ground.lying[bed], *([placing.newcomer[bed]] if placing.newcomer[bed] != NOWHERE else [])]
                for n in here:
                    needs.add(n)
                    for other in (ground.own[n], placing.place[n]):
                        if other != NOWHERE and (room := int(ground.room[other])) not in rooms:
                            rooms.add(room)
                            todo.append(room)
        beds = [bed for room in rooms for bed in ground.of_room[room]]
        waiting = [n for n, bed in enumerate(placing.place) if bed == NOWHERE and n not in needs]
        fit = [n for n in waiting if ground.own[n] == NOWHERE and int(ground.price[n, beds].min()) < ground.out[n]]
        fit.sort(key=lambda n: -ground.out[n] * (0.5 + self.chance.random()))
        return sorted(rooms), sorted(needs.union(fit[:_WAITING]))


def accept(placing: Placing, place: list[int], cost: int) -> bool:
    """Take over a placing if it is lawful and costs less; else leave everything as it was."""
    if place == placing.place:
        return False
    was = list(placing.place)
    placing.restore(place)
    if placing.lawful() and placing.cost < cost:
        return True
    placing.restore(was)
    return False


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
    status = solver.solve(model.cp)
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        accept(placing, read(ground, model, solver, placing.place), placing.cost)
    return round(solver.best_objective_bound)
