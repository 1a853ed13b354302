"""From a placing to a plan that a person can read: each line with what it costs, what decided, and the next best."""

from __future__ import annotations

import numpy as np

from streams.allocation.ground import CLOSED, MUST, NOWHERE, Costs, Ground, Placing, broken
from streams.allocation.plan import BED, FEASIBLE, INFEASIBLE, OPTIMAL, Assignment, Plan, Reason, total
from streams.allocation.rules import alike, check, left_out, off_service
from streams.allocation.site import Site

_CLOSE = 1  # hundredths: a bound this near is the cost


def report(placing: Placing, bound: int, seconds: float, site: Site, before: Plan | None) -> Plan:
    """`bound` in hundredths, of the cost with the broken rules' price, which a plan does not show."""
    ground = placing.ground
    lines = tuple(_line(placing, n) for n in range(len(ground.needs)))
    bare = Plan(site.id, site.at, lines, {})
    breaches, costs = check(site, bare, before)
    cost = placing.cost
    least = min(cost, bound) - broken(breaches)
    status = INFEASIBLE if breaches else OPTIMAL if cost - bound <= _CLOSE else FEASIBLE
    return Plan(site.id, site.at, lines, costs, max(0, least) / 100, round(seconds, 3), status, breaches)


def _line(placing: Placing, n: int) -> Assignment:
    ground = placing.ground
    need, bed = ground.needs[n], placing.place[n]
    prior = ground.site.stays[n].bed if n < ground.stays else None
    to = None if bed == NOWHERE else ground.beds[bed].id
    at = 0.0 if bed == NOWHERE else placing.hour(n)
    if n < ground.stays and bed == ground.own[n] != NOWHERE:
        return Assignment(BED, need.ref, to, at, prior, reason=Reason(_costs(ground, n, bed, at)))
    return Assignment(BED, need.ref, to, at, prior, reason=_reason(placing, n))


def _costs(ground: Ground, n: int, bed: int, at: float) -> dict[str, float]:
    """Of one line alone, by component; what ages in a room cost is the room's."""
    site, need, weights = ground.site, ground.needs[n], ground.site.weights
    items: list[tuple[str, float]] = []
    if bed == NOWHERE:
        items += left_out(site, site.requests[n - ground.stays]) if n >= ground.stays else ()
    else:
        off = weights.service if off_service(need, ground.beds[bed]) else 0.0
        items.append(("service", off))
        if n >= ground.stays:
            items.append(("waiting", ground.rate[n] * at))
        elif bed != ground.own[n]:
            items.append(("move", weights.move))
    promise = ground.promise.get(need.ref)
    if promise is not None and (bed == NOWHERE or ground.rooms[ground.room[bed]] != promise):
        items.append(("change", weights.change))
    if bed != NOWHERE and n < ground.stays and bed != ground.own[n]:
        rest = int(ground.price[n, bed]) / 100 - sum(cost for _, cost in items)
        items.append(("metre", rest))
    return total(items)


def _reason(placing: Placing, n: int) -> Reason:
    """All others staying where the plan has them: what each other bed would cost, and what forbids the cheaper ones."""
    ground, bed = placing.ground, placing.place[n]
    at = 0.0 if bed == NOWHERE else placing.hour(n)
    mine = _costs(ground, n, bed, at)
    placing.take(n)
    costs = placing.costs(n)
    aged = costs - ground.price[n]
    cost = ground.out[n] if bed == NOWHERE else int(costs[bed])
    others = costs.copy()
    if bed != NOWHERE:
        room = ground.room[bed]
        others[(ground.room == room) & (costs == costs[bed])] = CLOSED  # the bed beside it is no other choice
    best = int(others.argmin()) if len(others) else NOWHERE
    least = int(others[best]) if best != NOWHERE else CLOSED
    if bed != NOWHERE and ground.out[n] < min(least, MUST):
        best, least = NOWHERE, ground.out[n]
    decided = _forbids(placing, n, costs, cost)
    if bed != NOWHERE:
        placing.put(n, bed)
    if least >= MUST:
        return Reason(mine, decided)
    there = None if best == NOWHERE else ground.beds[best].id
    if not decided and bed != NOWHERE and least > cost:
        decided = _dearer(ground, n, best, mine, aged)
    return Reason(mine, decided, there, least / 100)


def _dearer(ground: Ground, n: int, best: int, mine: dict[str, float], aged: Costs) -> str:
    """The component by which the next best costs most more."""
    if best == NOWHERE:
        return "unplaced"
    at = 0.0
    theirs = _costs(ground, n, best, at)
    theirs["age_mix"] = int(aged[best]) / 100
    more = {name: cost - mine.get(name, 0.0) for name, cost in theirs.items()}
    return max(sorted(more), key=lambda name: more[name]) if more else ""


def _forbids(placing: Placing, n: int, costs: Costs, cost: int) -> str:
    """The rule that closes the bed which would have cost least, if it would have cost less."""
    ground, need = placing.ground, placing.ground.needs[n]
    wished = np.where(costs < CLOSED, CLOSED, _wished(placing, n))
    bed = int(wished.argmin()) if len(wished) else NOWHERE
    if bed == NOWHERE or wished[bed] >= cost:
        return ""
    if not ground.usable[bed]:
        return "usable"
    if not need.needs <= ground.beds[bed].features:
        return "features"
    if not placing.open[bed] or (n < ground.stays and placing.at[bed] > 0):
        return "one_per_bed"
    there = placing.occupants(int(ground.room[bed]))
    rules = [rule for m, _, end in there if end > placing.at[bed] and (rule := alike(need, ground.needs[m]))]
    return rules[0] if rules else "one_per_bed"


def _wished(placing: Placing, n: int) -> Costs:
    """What each bed would cost if no rule closed it."""
    ground, need = placing.ground, placing.ground.needs[n]
    off = np.array([off_service(need, bed) for bed in ground.beds], dtype=np.int64)
    waiting: Costs = np.rint(ground.rate[n] * placing.at * 100).astype(np.int64)
    return off * round(ground.site.weights.service * 100) + waiting
