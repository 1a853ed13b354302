"""Operations to theatres, surgeons and minutes, for the day ahead: who of the waiting list comes in (CP-SAT).

An operation is an interval that is there or not; intervals of a theatre and of a surgeon do not overlap.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ortools.sat.python import cp_model

from streams.allocation.plan import THEATRE, Assignment, Reason, total
from streams.allocation.rules import cents, left_out, surgeon_hours
from streams.allocation.site import Request, Site

_MOST = 60  # operations that are looked at: those that cost most to leave out


@dataclass(frozen=True, slots=True)
class Operations:
    """Lines of theatres, those who get none, what opening theatres costs, and a bound in the unit of the weights on
    the sum of that and of what it costs to leave out who gets none."""

    lines: tuple[Assignment, ...]
    left: frozenset[str]  # requests
    cost: float
    bound: float


def operate(
    site: Site, wanted: frozenset[str] | None = None, seconds: float = 1.0, workers: int = 1, seed: int = 1
) -> Operations:
    """`wanted`: requests whose operation may be today; all that have minutes if None."""
    started = time.monotonic()
    some = [one for one in site.requests if one.minutes > 0 and (wanted is None or one.need.ref in wanted)]
    left = {one.need.ref: cents(sum(cost for _, cost in left_out(site, one))) for one in some}
    looked = sorted(some, key=lambda one: (-left[one.need.ref], one.need.ref))[:_MOST]
    if not looked or not site.theatres:
        return Operations((), frozenset(one.need.ref for one in some), 0.0, sum(left.values()) / 100)
    cp = cp_model.CpModel()
    slots: dict[tuple[str, str], tuple[cp_model.IntVar, cp_model.IntVar]] = {}
    by_surgeon: dict[str, list[cp_model.IntervalVar]] = {}
    opened, costs = {}, []
    for theatre in site.theatres:
        opened[theatre.id] = cp.new_bool_var("")
        costs.append((cents(theatre.price), opened[theatre.id]))
        intervals, load = [], []
        for request in looked:
            if (made := _slot(cp, site, request, theatre.minutes)) is None:
                continue
            here, start, interval = made
            slots[request.need.ref, theatre.id] = here, start
            intervals.append(interval)
            load.append((request.minutes, here))
            by_surgeon.setdefault(request.surgeon, []).append(interval)
            cp.add_implication(here, opened[theatre.id])
        cp.add_no_overlap(intervals)
        cp.add(sum(minutes * here for minutes, here in load) <= theatre.minutes)
    for surgeon, intervals in by_surgeon.items():
        if surgeon:
            cp.add_no_overlap(intervals)
    for request in looked:
        none = cp.new_bool_var("")
        costs.append((left[request.need.ref], none))
        cp.add_exactly_one([none] + [here for (ref, _), (here, _) in slots.items() if ref == request.need.ref])
    # at equal cost early: an operation that may begin later is one that may fail
    early = cp_model.LinearExpr.weighted_sum([start for _, start in slots.values()], [1] * len(slots))
    most = 1 + len(slots) * max(theatre.minutes for theatre in site.theatres)
    whole = cp_model.LinearExpr.weighted_sum([var for _, var in costs], [cost * most for cost, _ in costs])
    cp.minimize(whole + early)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers, solver.parameters.random_seed = workers, seed
    solver.parameters.max_time_in_seconds = max(0.05, seconds - (time.monotonic() - started))
    if solver.solve(cp) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Operations((), frozenset(left), 0.0, 0.0)
    chosen = {ref: (room, start) for (ref, room), (here, start) in slots.items() if solver.boolean_value(here)}
    lines = tuple(
        _line(site, one, chosen[one.need.ref][0], solver.value(chosen[one.need.ref][1]) / 60)
        for one in looked
        if one.need.ref in chosen
    )
    paid = sum(theatre.price for theatre in site.theatres if solver.boolean_value(opened[theatre.id]))
    unseen = sum(cost for ref, cost in left.items() if ref not in {one.need.ref for one in looked})
    bound = max(0.0, solver.best_objective_bound / most + unseen * 0) / 100
    return Operations(lines, frozenset(left) - set(chosen), float(paid), round(bound, 2))


def _slot(
    cp: cp_model.CpModel, site: Site, request: Request, minutes: int
) -> tuple[cp_model.IntVar, cp_model.IntVar, cp_model.IntervalVar] | None:
    """(is it here, its start in minutes, the interval); None where it cannot be."""
    starts = [
        [int(-(-start * 60 // 1)), int(min(end * 60, minutes)) - request.minutes]
        for start, end in surgeon_hours(site, request.surgeon)
    ]
    fits = [[first, last] for first, last in starts if first <= last]
    if not fits:
        return None
    here = cp.new_bool_var("")
    start = cp.new_int_var_from_domain(cp_model.Domain.from_intervals([[0, 0], *fits]), "")
    at = cp.new_int_var_from_domain(cp_model.Domain.from_intervals(fits), "")
    cp.add(start == at).only_enforce_if(here)
    cp.add(start == 0).only_enforce_if(~here)
    return here, start, cp.new_optional_fixed_size_interval_var(at, request.minutes, here, "")


def _line(site: Site, request: Request, theatre: str, start: float) -> Assignment:
    rest = sum(cost for _, cost in left_out(site, request))
    prices = {one.id: one.price for one in site.theatres}
    reason = Reason(total([("theatre", prices[theatre])]), "unplaced", None, rest)
    return Assignment(THEATRE, request.need.ref, theatre, start, None, start + request.minutes / 60, reason)
