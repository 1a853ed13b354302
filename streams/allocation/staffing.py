"""Nurses to rooms, for each shift ahead, by skill, load and continuity (CP-SAT).

Every room with patients has somebody at every hour at which anybody works. Rooms are of a nurse for the whole shift.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ortools.sat.python import cp_model

from streams.allocation.plan import FEASIBLE, INFEASIBLE, NURSE, OPTIMAL, Assignment, Breach, Plan, Reason, total
from streams.allocation.rules import TURNOVER, cents, check, may_work, nurse_costs, present, segments
from streams.allocation.site import Need, Nurse, Site

_UNSTAFFED = 10_000_000  # hundredths, of a room without a nurse for one stretch of hours
_SCALE = 1000  # of costs, so that one more nurse to a room than is needed costs something, and never decides


def staff(
    site: Site, plan: Plan, seconds: float = 2.0, workers: int = 1, seed: int = 1, before: Plan | None = None
) -> Plan:
    """The plan with nurses; `plan` says who lies where. Rooms that nobody may work in are breaches of "staffed". Of
    equal ones it is the one that has most in common with `before`."""
    started = time.monotonic()
    nurses = [nurse for nurse in site.nurses if nurse.ends > 0]
    stretches = segments(nurses)
    shifts = {(max(nurse.starts, 0.0), nurse.ends) for nurse in nurses}
    there = {shift: present(site, plan, *shift) for shift in shifts}
    cp = cp_model.CpModel()
    works: dict[tuple[int, str], cp_model.IntVar] = {}
    last = {(one.ref, one.to, round(one.until or 0.0)) for one in (before.assignments if before else ())}
    costs: list[tuple[int, cp_model.IntVar]] = []
    for i, nurse in enumerate(nurses):
        rooms = there[max(nurse.starts, 0.0), nurse.ends]
        for room, needs in rooms.items():
            if not may_work(nurse, room):
                continue
            works[i, room] = var = cp.new_bool_var("")
            cost = cents(nurse_costs(site, nurse, needs))
            if room in nurse.rooms:
                cost -= cents(site.weights.continuity)
            kept = (nurse.ref, room, round(nurse.ends)) in last
            costs.append((cost * _SCALE + (1 if kept else 2), var))
            cp.add_hint(var, kept if last else room in nurse.rooms)
        _overload(cp, site, nurse, {room: works[i, room] for room in rooms if (i, room) in works}, rooms, costs)
    for start, end in stretches:
        for room in present(site, plan, start, end):
            some = [
                works[i, room]
                for i, nurse in enumerate(nurses)
                if (i, room) in works and nurse.starts <= start and end <= nurse.ends
            ]
            some.append(missing := cp.new_bool_var(""))
            costs.append((_UNSTAFFED * _SCALE, missing))
            cp.add_at_least_one(some)
    cp.minimize(cp_model.LinearExpr.weighted_sum([var for _, var in costs], [cost for cost, _ in costs]))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers, solver.parameters.random_seed = workers, seed
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.linearization_level = 2
    found = solver.solve(cp) in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    chosen = {key for key, var in works.items() if found and solver.boolean_value(var)} if works else set()
    lines = tuple(_lines(site, nurses, there, chosen))
    made = replace(plan, assignments=tuple(one for one in plan.assignments if one.kind != NURSE) + lines)
    if not lines:
        # a plan without nurses is not looked at: nobody works at all
        where = sorted({room for start, end in stretches for room in present(site, plan, start, end)})
        made = replace(made, breaches=plan.breaches + tuple(Breach("staffed", (), room) for room in where))
        return replace(made, status=INFEASIBLE if where else plan.status)
    breaches, sums = check(site, made)
    staffed = tuple(one for one in breaches if one.rule in ("staffed", "shift"))
    own = {name: sums.get(name, 0.0) for name in ("skill", "overload", "continuity")}
    least = 0.0 if staffed or plan.breaches else least_skill(site)
    best = sum(own.values()) - least < 0.02 and not staffed and plan.status == OPTIMAL
    return replace(
        made,
        costs=total([*plan.costs.items(), *own.items()]),
        bound=round(plan.bound + least, 2),
        seconds=round(plan.seconds + time.monotonic() - started, 3),
        status=INFEASIBLE if staffed or plan.status == INFEASIBLE else OPTIMAL if best else FEASIBLE,
        breaches=plan.breaches + staffed,
    )


def least_skill(site: Site) -> float:
    """What the nurses of any plan cost at least, whoever lies where: at the hours at which least skill is on duty the
    most skilled look after each who is in. A bound of the nurses for one placing would be none for another."""
    nurses = [nurse for nurse in site.nurses if nurse.ends > 0]
    duty = [
        (start, max(nurse.skill for nurse in nurses if nurse.starts <= start and end <= nurse.ends))
        for start, end in segments(nurses)
    ]
    lacks = [
        max((need.skill - skill for start, skill in duty if start < max(need.leaves, TURNOVER)), default=0)
        for need in (stay.need for stay in site.stays)
    ]
    return round(site.weights.skill * sum(max(lack, 0) for lack in lacks), 2)


def _overload(
    cp: cp_model.CpModel,
    site: Site,
    nurse: Nurse,
    works: Mapping[str, cp_model.IntVar],
    rooms: Mapping[str, Sequence[Need]],
    costs: list[tuple[int, cp_model.IntVar]],
) -> None:
    """Load above the most, in hundredths of its unit."""
    loads = {room: cents(sum(need.load for need in rooms[room])) for room in works}
    above = cp.new_int_var(0, max(0, sum(loads.values())), "")
    cp.add(above >= sum(loads[room] * works[room] for room in works) - cents(nurse.load))
    costs.append((round(site.weights.overload * _SCALE), above))


def _lines(
    site: Site,
    nurses: Sequence[Nurse],
    there: Mapping[tuple[float, float], Mapping[str, Sequence[Need]]],
    chosen: set[tuple[int, str]],
) -> list[Assignment]:
    lines = []
    for i, room in sorted(chosen, key=lambda one: (one[1], nurses[one[0]].starts, nurses[one[0]].ref)):
        nurse = nurses[i]
        shift = max(nurse.starts, 0.0), nurse.ends
        others = [
            (nurse_costs(site, other, there[shift][room]) + (0 if room in other.rooms else site.weights.continuity), j)
            for j, other in enumerate(nurses)
            if j != i and (max(other.starts, 0.0), other.ends) == shift and may_work(other, room)
        ]
        skill = nurse_costs(site, nurse, there[shift][room])
        best = min(others, default=None)
        decided = "shift" if best is None else "continuity" if room in nurse.rooms else "overload"
        reason = Reason(
            total([("skill", skill)]), decided, nurses[best[1]].ref if best else None, best[0] if best else None
        )
        prior = room if room in nurse.rooms else None
        lines.append(Assignment(NURSE, nurse.ref, room, shift[0], prior, nurse.ends, reason))
    return lines
