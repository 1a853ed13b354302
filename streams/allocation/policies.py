"""The rules of thumb that a plan has to beat: what bed managers do without one. Pure.

Both look at one patient after the other and give the first bed that breaks no rule, of the own service if there is one,
else the one whose features are wasted least. Somebody whose bed no longer serves comes before all others. Whoever lies
in a bed of another service goes home to the own one when a bed there is left over.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from streams.allocation.history import Assignments, Policy, forbidden
from streams.allocation.rules import off_service
from streams.allocation.site import CLOSED, FREE, HOUSEKEEPING, OCCUPIED, Bed, Need, Request, Site, Stay

EXPECTED = 2  # of a service, whoever asked last: free beds are kept fit for patients like them
ROUNDS = 1  # of the planner: by effort and not by the clock, so that a seed has one end
_NEXT, _HOME = "next ", "home "  # before the reference of a patient who is only expected, and of one who may go home


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

    def room(self, ref: str) -> tuple[str, str]:
        """Unit and room of a stay; of nobody who lies here: none."""
        return self._lies.get(ref, ("", ""))

    def free(self, bed: Bed) -> bool:
        return bed.id in self._free

    def take_over(self, wanted: Assignments, site: Site) -> None:
        """What of a plan is lawful at once, moves first, again and again, since one may be what the next waits for."""
        needs = {stay.need.ref: stay.need for stay in site.stays} | {one.need.ref: one.need for one in site.requests}
        todo = {ref: wanted[ref] for ref in sorted(wanted, key=lambda ref: ref not in self._lies) if ref in needs}
        done = True
        while done:
            done = False
            for ref, name in list(todo.items()):
                bed = self._free.get(name)
                if ref in self.given or bed is None or self.breaks(needs[ref], bed):
                    continue
                self._put(needs[ref], bed)
                del todo[ref]
                done = True

    def give(self, need: Need, home: bool = False) -> None:
        fitting = [
            (off_service(need, bed), len(bed.features - need.needs), bed.id)
            for bed in self._free.values()
            if need.needs <= bed.features and not (home and off_service(need, bed)) and not self.breaks(need, bed)
        ]
        if not fitting:
            return
        self._put(need, self._free[min(fitting)[2]])

    def _put(self, need: Need, bed: Bed) -> None:
        del self._free[bed.id]
        if need.ref in self._lies:
            self._rooms[self._lies[need.ref]].remove(need)
        self._rooms[bed.unit, bed.room].append(need)
        self.given[need.ref] = bed.id


class Planned:
    """The planner, carried out as far as it can be at once.

    At each look all who wait are matched to the beds that are free (start.py), together with some who are expected:
    copies of the last of each service, at a lower price. So nobody is given the bed that the next will need while
    another serves. Where one of those finds no bed, as many who lie in beds of that service go home to their own.
    Whoever waits still is planned for with moves (assign.py), among the rooms that may help. A bed that nobody takes at
    once by plan is held for nobody. A policy sees no more than the others do: it remembers whom it saw.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._recent: dict[str, list[Request]] = defaultdict(list)  # by service
        self._tried: frozenset[str] = frozenset()

    def __call__(self, site: Site) -> Assignments:
        self._remember(site.requests)
        board = _Board(site)
        wrong = [
            stay.need for stay in site.stays if (bed := site.beds.get(stay.bed or "")) and board.breaks(stay.need, bed)
        ]
        rooms = {board.room(need.ref) for need in wrong}
        given, short = self._matched(site, rooms, ())
        if home := [stay for stay in site.stays if _in_the_way(site, stay, short)]:
            given = _few(site, self._matched(site, rooms, home)[0], home, short)
        board.take_over(given, site)
        need = frozenset(one.ref for one in wrong) | {one.need.ref for one in site.requests}
        left = need - board.given.keys()
        if left - self._tried:
            board.take_over(_with_moves(site, board, left), site)
        self._tried = left
        for one in wrong:
            if one.ref not in board.given:
                board.give(one)
        for request in sorted(site.requests, key=lambda one: (one.priority, -one.waits)):
            if request.need.ref not in board.given:
                board.give(request.need)
        return board.given

    def _remember(self, requests: Iterable[Request]) -> None:
        for one in requests:
            if one.need.ref not in self._known:
                self._known.add(one.need.ref)
                self._recent[one.need.service] = [*self._recent[one.need.service], one][-EXPECTED:]

    def _matched(
        self, site: Site, rooms: set[tuple[str, str]], home: Iterable[Stay]
    ) -> tuple[dict[str, str], Counter[str]]:
        """(who comes into which free bed, services whose next patients would find no bed)."""
        from streams.allocation.ground import NOWHERE, Ground  # their arrays take a second of every start
        from streams.allocation.start import begin

        rooms = rooms | {(bed.unit, bed.room) for bed in site.beds.values() if bed.status == FREE}
        beds = _clean({bed.id: bed for bed in site.beds.values() if (bed.unit, bed.room) in rooms})
        ask = [replace(one, due=None) for one in site.requests]
        ask += [Request(replace(stay.need, ref=f"{_HOME}{stay.need.ref}"), 4) for stay in home]
        ask += [
            Request(replace(one.need, ref=f"{_NEXT}{one.need.ref}"), 3 + one.priority)
            for some in self._recent.values()
            for one in some
        ]
        stays = tuple(stay for stay in site.stays if stay.bed in beds)
        placing = begin(ground := Ground(replace(site, beds=beds, stays=stays, requests=tuple(ask))))
        given: dict[str, str] = {}
        short: Counter[str] = Counter()
        for n, need in enumerate(ground.needs):
            bed = None if placing.place[n] == NOWHERE or placing.hour(n) > 0 else ground.beds[placing.place[n]]
            if need.ref.startswith(_NEXT):
                if bed is None:
                    short[need.service] += 1
            elif bed is not None and placing.place[n] != ground.own[n]:
                given[need.ref.removeprefix(_HOME)] = bed.id
        return given, short


def _clean(beds: Mapping[str, Bed]) -> dict[str, Bed]:
    """A bed that is being cleaned takes nobody now, and no plan may think so."""
    return {name: replace(bed, status=CLOSED) if bed.status == HOUSEKEEPING else bed for name, bed in beds.items()}


def _in_the_way(site: Site, stay: Stay, short: Mapping[str, int]) -> bool:
    """Whether somebody lies in a bed that another service will need, as far as can be told."""
    bed = site.beds.get(stay.bed or "")
    if bed is None or stay.need.service in short or not off_service(stay.need, bed):
        return False
    return any(name in short for name in bed.services)


def _few(site: Site, given: Assignments, home: Iterable[Stay], short: Mapping[str, int]) -> dict[str, str]:
    """Of those who may go, as many as beds are short, and each to a bed of the own service."""
    kept, left = dict(given), dict(short)
    for stay in home:
        if stay.need.ref not in given:
            continue
        if off_service(stay.need, site.beds[given[stay.need.ref]]):
            del kept[stay.need.ref]
            continue
        service = next((name for name in sorted(site.beds[stay.bed or ""].services) if left.get(name)), None)
        if service is None:
            del kept[stay.need.ref]
        else:
            left[service] -= 1
    return kept


def _with_moves(site: Site, board: _Board, left: frozenset[str]) -> Assignments:
    """A plan for those who are left, among rooms that have what they need or a bed free; all others stay outside."""
    from streams.allocation.assign import Effort, assign  # its solver takes a second of every start

    some = [one for one in site.requests if one.need.ref in left]
    needs = [one.need for one in some] + [stay.need for stay in site.stays if stay.need.ref in left]
    rooms = {board.room(need.ref) for need in needs} | {
        (bed.unit, bed.room)
        for bed in site.beds.values()
        if board.free(bed) or any(need.needs <= bed.features and not off_service(need, bed) for need in needs)
    }
    beds = {
        bed.id: replace(bed, status=CLOSED) if bed.status == FREE and not board.free(bed) else bed
        for bed in site.beds.values()
        if (bed.unit, bed.room) in rooms
    }
    stays = [replace(stay, bed=board.given.get(stay.need.ref, stay.bed)) for stay in site.stays]
    stays += [Stay(one.need, board.given[one.need.ref]) for one in site.requests if one.need.ref in board.given]
    beds |= {stay.bed: replace(beds[stay.bed], status=OCCUPIED) for stay in stays if stay.bed in beds}
    part = replace(
        site,
        beds=_clean(beds),
        stays=tuple(stay for stay in stays if stay.bed in beds),
        requests=tuple(replace(one, due=None) for one in some),
    )
    return assign(part, None, Effort(rounds=ROUNDS)).now()


# A policy may remember what it planned, so each run has one of its own.
POLICIES: Mapping[str, Callable[[], Policy]] = {
    "fcfs": lambda: first_come,
    "greedy": lambda: by_priority,
    "plan": Planned,
}
