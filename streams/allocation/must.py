"""Room for who must have a bed and has none: others move first, or a room changes whom it is for.

Neighbourhoods around the rooms that are nearest to having room, larger each time, and then the whole site with those
alone who must have a bed. So a lawful plan is found wherever there is one, if time allows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import inf

import numpy as np
from ortools.sat.python import cp_model

from streams.allocation.ground import CLOSED, MUST, NOWHERE, Placing
from streams.allocation.model import build, build_musts, hint, read, read_musts
from streams.allocation.rules import alike
from streams.allocation.start import accept, match

_FEW = 3  # at once
_ROOMS = (2, 6, 12)  # that are tried for each, before the whole site is
_NEAR = 40  # beds of a neighbourhood at most
_DETERMINISTIC = 3.0  # of one question in CP-SAT's own unit, where the clock does not count
_SECONDS = 0.25  # of one neighbourhood at most


def missing(placing: Placing) -> list[int]:
    """Who must have a bed, has none or one too late, and whom some bed would suit."""
    ground = placing.ground
    return [
        n
        for n, bed in enumerate(placing.place)
        if ground.must(n)
        and (bed == NOWHERE or ground.due[n] < placing.hour(n))
        and ground.price[n].min(initial=CLOSED) < CLOSED
    ]


def make_room(placing: Placing, ends: float | None) -> None:
    """Until nobody is missing, nothing more can be done or time is up; without `ends` the clock does not count."""
    if not missing(placing):
        return
    for rooms in _ROOMS:
        left = missing(placing)
        while left and (ends is None or time.monotonic() < ends):
            some, left = left[:_FEW], left[_FEW:]
            _near(placing, some, rooms, ends)
            left = [n for n in missing(placing) if n in left]
    if missing(placing) and (ends is None or time.monotonic() < ends):
        _whole(placing, ends)


def _solver(ends: float | None, most: float) -> cp_model.CpSolver:
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    if ends is None:
        solver.parameters.max_deterministic_time = _DETERMINISTIC
    else:
        solver.parameters.max_time_in_seconds = max(0.05, min(most, ends - time.monotonic()))
    return solver


class _Enough(cp_model.CpSolverSolutionCallback):
    """That all have a bed is enough: neighbourhoods make it cheap."""

    def on_solution_callback(self) -> None:
        if self.objective_value < MUST:
            self.stop_search()


def _near(placing: Placing, some: Sequence[int], most: int, ends: float | None) -> bool:
    """Solve the rooms that are nearest to having room for these, with rooms to which who lies there could go."""
    ground, rooms = placing.ground, set[int]()
    for n in some:
        around(placing, n, nearest(placing, n, most), rooms, _NEAR)
    needs = placing.joined(rooms).union(some)
    if sum(len(ground.of_room[room]) for room in rooms) > 2 * _NEAR:
        return False
    model = build(ground, sorted(rooms), sorted(needs), placing)
    hint(ground, model, placing)
    solver = _solver(ends, _SECONDS)
    solver.parameters.linearization_level = 2
    if solver.solve(model.cp) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return False
    return accept(placing, read(ground, model, solver, placing.place), placing.cost)


def around(placing: Placing, n: int, ways: Sequence[int], rooms: set[int], most: int) -> None:
    """Add to `rooms`, up to so many beds, where somebody lies and these ways for him, each with rooms to which those
    in it could go."""
    ground = placing.ground
    own = [int(ground.room[ground.own[n]])] if ground.own[n] != NOWHERE else []  # others leave him alone there
    for room in [*own, *ways]:
        there = [m for bed in ground.of_room[room] for m in [*ground.lying[bed], placing.newcomer[bed]]]
        more = {room}.union(*(_refuge(placing, m, room) for m in there if m != NOWHERE and ground.must(m)))
        if sum(len(ground.of_room[one]) for one in rooms | more) <= most:
            rooms |= more


def nearest(placing: Placing, n: int, most: int) -> list[int]:
    """Rooms with a bed that suits, by how many who must have a bed would have to go, then how many others."""
    ground = placing.ground
    fits = np.unique(ground.room[ground.price[n] < CLOSED]).tolist()
    ranked = []
    for room in fits:
        there = [m for m, _, _ in placing.occupants(room) if m != n]
        hinder = [m for m in there if alike(ground.needs[n], ground.needs[m])]
        full = len(there) - len(hinder) >= sum(ground.usable[bed] for bed in ground.of_room[room])
        musts = sum(ground.must(m) for m in hinder)
        ranked.append((musts + full, len(hinder), int(ground.price[n, ground.of_room[room]].min()), room))
    return [room for *_, room in sorted(ranked)[:most]]


def _refuge(placing: Placing, n: int, room: int) -> list[int]:
    """Up to two other rooms to which somebody could move as things stand, cheapest first; an empty room counts."""
    ground = placing.ground
    taken = [bed for bed in range(len(ground.beds)) if placing.newcomer[bed] != NOWHERE and not ground.lying[bed]]
    kind = (placing.kind == -1) | (placing.kind == ground.kind_of[n])
    sex = int(ground.sex[n])
    free = placing.open & (placing.at == 0) & kind & (ground.room != room)
    if sex >= 0:
        free &= ~placing.sexes[:, 1 - sex]
    soft = [bed for bed in taken if not ground.must(placing.newcomer[bed])]  # who waits can wait on
    costs = np.where(free, ground.price[n], CLOSED)
    costs[soft] = np.minimum(costs[soft], np.minimum(ground.price[n, soft] + MUST // 2, CLOSED))
    costs[ground.room == room] = CLOSED
    found: list[int] = []
    for bed in np.argsort(costs, kind="stable")[:8].tolist():
        if costs[bed] < CLOSED and int(ground.room[bed]) not in found:
            found.append(int(ground.room[bed]))
    return found[:2]


def _whole(placing: Placing, ends: float | None) -> bool:
    """The whole site, of those who must have a bed; then all others are matched to what is left."""
    ground = placing.ground
    model, groups = build_musts(ground)
    for n, var in model.stay.items():
        model.cp.add_hint(var, placing.place[n] == ground.own[n])
    solver = _solver(ends, inf)
    solver.parameters.cp_model_probing_level = solver.parameters.symmetry_level = 0  # would take most of the time
    if solver.solve(model.cp, _Enough()) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return False
    was, cost = list(placing.place), placing.cost
    placing.restore(read_musts(ground, model, groups, solver, was))
    if placing.lawful():
        match(placing, (n for n, bed in enumerate(placing.place) if bed == NOWHERE and n >= ground.stays))
    if placing.lawful() and placing.cost < cost:
        return True
    placing.restore(was)
    return False
