"""A whole plan: operations of the day, beds for those who may come, theatres for those who have beds, then nurses."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from streams.allocation.assign import SECONDS, Effort, assign
from streams.allocation.bound import relaxed
from streams.allocation.ground import Ground, broken
from streams.allocation.plan import FEASIBLE, OPTIMAL, Plan, total
from streams.allocation.rules import left_out
from streams.allocation.site import Site
from streams.allocation.staffing import staff
from streams.allocation.theatres import Operations, operate


def plan(
    site: Site,
    before: Plan | None = None,
    seconds: float = SECONDS,
    workers: int = 1,
    seed: int = 1,
    better: Callable[[Plan], None] | None = None,
) -> Plan:
    """`before`: the plan that is accepted, or else the last. Beds take what theatres and nurses leave of `seconds`,
    each a fifth at most. `better` gets plans of beds alone, as they are found.
    """
    started = time.monotonic()
    share = seconds / 5
    surgical = frozenset(one.need.ref for one in site.requests if one.minutes > 0) if site.theatres else frozenset()
    first = operate(site, surgical, share / 2, workers, seed) if surgical else None
    barred = first.left if first else frozenset()
    others = (share if site.nurses else 0) + (share / 2 if surgical else 0)
    left = max(0.05, seconds - (time.monotonic() - started) - others)
    made = assign(site, before, Effort(left, workers, seed), barred, better)
    if first:
        given = frozenset(ref for ref, line in made.beds().items() if line.to and ref in surgical)
        again = first if given == surgical - first.left else operate(site, given, share / 2, workers, seed)
        if missing := given & again.left:  # cannot be but by lack of time: the first had room for all of them
            again = replace(again, lines=tuple(line for line in first.lines if line.ref in given))
            again = replace(
                again,
                left=frozenset(),
                cost=sum(t.price for t in site.theatres if t.id in {line.to for line in again.lines}),
            )
            assert missing <= given
        made = replace(
            made,
            assignments=made.assignments + again.lines,
            costs=total([*made.costs.items(), ("theatre", again.cost)]),
            bound=_bound(site, before, made, first, surgical),
            status=FEASIBLE if made.status == OPTIMAL else made.status,
        )
    made = staff(site, made, share, workers, 1, before) if site.nurses else made
    return replace(made, seconds=round(time.monotonic() - started, 3))


def _bound(site: Site, before: Plan | None, made: Plan, first: Operations, surgical: frozenset[str]) -> float:
    """Of any plan, whoever is operated on; `made.bound` is of those whom `first` lets in.

    Three that hold: of beds as if everybody had a theatre; of `made`, where each whom `first` leaves would save at most
    what leaving that one out costs; and theatres by themselves beside the beds of everybody else.
    """
    every = max(0, relaxed(Ground(site, before))[0] - broken(made.breaches)) / 100
    if made.breaches:
        return min(every, made.cost)
    change = site.weights.change
    out = {
        one.need.ref: sum(cost for _, cost in left_out(site, one)) + change
        for one in site.requests
        if one.need.ref in surgical
    }
    without = made.bound - sum(out[ref] for ref in first.left)
    apart = made.bound - sum(out.values()) + first.bound
    return round(max(0.0, every, without, apart), 2)
