"""The rules of thumb that a plan has to beat: what bed managers do without one. Pure.

Both look at one patient after the other and give the first bed that breaks no rule, of the own service if there is one,
else the one whose features are wasted least. Somebody whose bed no longer serves comes before all others. Whoever lies
in a bed of another service goes home to the own one when a bed there is left over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from streams.allocation.history import Assignments, Policy, forbidden
from streams.allocation.plan import Plan
from streams.allocation.rules import off_service
from streams.allocation.site import FREE, Bed, Need, Request, Site

ROUNDS = 3  # of the planner: by effort and not by the clock, so that a seed has one end


def first_come(site: Site) -> Assignments:
    """Whoever waits longest gets the first bed."""
    return _one_by_one(site, sorted(site.requests, key=lambda one: -one.waits))


def by_priority(site: Site) -> Assignments:
    """The most urgent first; among these, whoever waits longest."""
    return _one_by_one(site, sorted(site.requests, key=lambda one: (one.priority, -one.waits)))


def _one_by_one(site: Site, requests: Iterable[Request]) -> Assignments:
    board = _Board(site)
    stays = [(stay, bed) for stay in site.stays if (bed := site.beds.get(stay.bed or ""))]
    wrong = [(stay.need, bed) for stay, bed in stays if board.breaks(stay.need, bed)]
    for need, _ in wrong:
        board.give(need)
    for request in requests:
        board.give(request.need)
    for stay, bed in stays:
        if stay.need.ref not in board.given and off_service(stay.need, bed):
            board.give(stay.need, home=True)
    return board.given


class _Board:
    """Free beds and who lies beside them, as assignments are made. A bed that is left is free only after cleaning."""

    def __init__(self, site: Site) -> None:
        self.given: dict[str, str] = {}
        self._rooms: dict[tuple[str, str], list[Need]] = defaultdict(list)
        self._free = {bed.id: bed for bed in site.beds.values() if bed.status == FREE}
        self._lies: dict[str, tuple[str, str]] = {}
        for stay in site.stays:
            if bed := site.beds.get(stay.bed or ""):
                self._rooms[bed.unit, bed.room].append(stay.need)
                self._lies[stay.need.ref] = bed.unit, bed.room

    def breaks(self, need: Need, bed: Bed) -> str:
        return forbidden(bed, need, (one for one in self._rooms[bed.unit, bed.room] if one.ref != need.ref))

    def give(self, need: Need, home: bool = False) -> None:
        fitting = [
            (off_service(need, bed), len(bed.features - need.needs), bed.id)
            for bed in self._free.values()
            if need.needs <= bed.features and not (home and off_service(need, bed)) and not self.breaks(need, bed)
        ]
        if not fitting:
            return
        bed = self._free.pop(min(fitting)[2])
        if need.ref in self._lies:
            self._rooms[self._lies[need.ref]].remove(need)
        self._rooms[bed.unit, bed.room].append(need)
        self.given[need.ref] = bed.id


class Planned:
    """The planner, carried out as far as it can be at once; each plan begins from the one before."""

    def __init__(self) -> None:
        self._before: Plan | None = None

    def __call__(self, site: Site) -> Assignments:
        from streams.allocation.assign import Effort, assign  # its solver takes a second of every start

        self._before = assign(site, self._before, Effort(rounds=ROUNDS))
        return self._before.now()


# A policy may remember what it planned, so each run has one of its own.
POLICIES: Mapping[str, Callable[[], Policy]] = {
    "fcfs": lambda: first_come,
    "greedy": lambda: by_priority,
    "plan": Planned,
}
