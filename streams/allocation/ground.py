"""A site as arrays, and a placing of its patients that is changed step by step: what greedy, assignment, neighbourhoods
and bounds work on. All costs are whole hundredths, so that sums are exact and CP-SAT sees the same numbers.

Needs are numbered stays first, then requests; beds in order of name, so that the same site gives the same plan.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import combinations
from math import inf

import numpy as np
from numpy.typing import NDArray

from streams.allocation.plan import Breach, Plan
from streams.allocation.rules import (
    HORIZON,
    alike,
    centres,
    cents,
    free_at,
    late,
    left_out,
    off_service,
    promised,
    room_of,
    rooms,
    urgency,
    usable,
)
from streams.allocation.site import Bed, Need, Site

Costs = NDArray[np.int64]

MUST = 10_000_000  # hundredths, of a rule that is broken: above whatever a plan saves by breaking it
EVICTED = 10 * MUST  # of somebody who is in and is left without a bed: nobody makes room by lying nowhere
CLOSED = 1 << 50  # a bed that is not lawful
NOWHERE = -1
ALL = slice(None)
_OLD, _YOUNG = -1_000, 1_000  # of nobody: no age is above or below
_NO_KIND, _MANY_KINDS = -1, -2


def broken(breaches: Iterable[Breach]) -> int:
    """Hundredths that rules which a plan can break have cost in a placing, and that a plan does not show."""
    price = {"placed": EVICTED, "due": MUST}
    return sum(price.get(one.rule, 0) for one in breaches)


class Ground:
    """What does not change while a plan is sought. `barred`: requests that may have no bed (no theatre for them)."""

    def __init__(self, site: Site, before: Plan | None = None, barred: frozenset[str] = frozenset()) -> None:
        self.site = site
        by_room = rooms(site)
        self.rooms = list(by_room)
        self.beds = [bed for beds in by_room.values() for bed in beds]
        number = {bed.id: i for i, bed in enumerate(self.beds)}
        self.room_number = {room: i for i, room in enumerate(self.rooms)}
        self.room = np.array([self.room_number[room_of(bed)] for bed in self.beds], dtype=np.int64)
        self.of_room = [[number[bed.id] for bed in beds] for beds in by_room.values()]
        self.stays, self.requests = len(site.stays), len(site.requests)
        self.needs = [stay.need for stay in site.stays] + [request.need for request in site.requests]
        self.own = [number.get(stay.bed or "", NOWHERE) for stay in site.stays] + [NOWHERE] * self.requests
        lying: list[list[int]] = [[] for _ in self.beds]
        for n, bed in enumerate(self.own):
            if bed != NOWHERE:
                lying[bed].append(n)
        self.lying = lying
        self.end = [free_at([stay]) for stay in site.stays]
        self.hour = np.array([self._hour(there) for there in lying])
        self.usable = np.array([usable(bed, bool(there)) for bed, there in zip(self.beds, lying, strict=True)], bool)
        self.age_price = cents(site.weights.age_mix)
        self.rate = np.array(
            [0.0] * self.stays + [site.weights.waiting * urgency(one.priority) for one in site.requests]
        )
        dues = [max(one.due or 0.0, 0.0) if late(one, inf) else inf for one in site.requests]
        self.due = np.array([inf] * self.stays + dues)  # hours; later breaks a rule
        self.age = np.array([-1 if need.age is None else need.age for need in self.needs], dtype=np.int64)
        self.sex = np.array([{"F": 0, "M": 1}.get(need.sex, -1) for need in self.needs], dtype=np.int64)
        self.kinds = {kind: i for i, kind in enumerate(sorted({need.isolation for need in self.needs}))}
        self.kind = [self.kinds[need.isolation] for need in self.needs]
        self.kind_of = np.array(self.kind, dtype=np.int64)
        self.promise = promised(before, site)
        self.out = self._out(barred)
        self.price = self._price(barred)
        self.classes = self._classes()

    def _hour(self, there: list[int]) -> float:
        """When a bed can have the next, if who lies in it stays there: infinite where none is promised."""
        if len(there) != 1:
            return inf if there else 0.0
        return self.end[there[0]] if self.end[there[0]] <= HORIZON else inf

    def must(self, n: int) -> bool:
        return n < self.stays or late(self.site.requests[n - self.stays], inf)

    def _out(self, barred: frozenset[str]) -> list[int]:
        """Of leaving somebody without a bed."""
        change = cents(self.site.weights.change)
        costs = [EVICTED] * self.stays
        for request in self.site.requests:
            must = MUST if late(request, inf) and request.need.ref not in barred else 0
            costs.append(sum(cents(cost) for _, cost in left_out(self.site, request)) + must)
        return [
            cost + (change if need.ref in self.promise else 0) for cost, need in zip(costs, self.needs, strict=True)
        ]

    def _price(self, barred: frozenset[str]) -> Costs:
        """(needs, beds): of a bed, without what depends on the hour or on others. CLOSED where a rule forbids it."""
        weights = self.site.weights
        price = self._by_kind([(need.service, need) for need in self.needs], off_service) * cents(weights.service)
        fits = self._by_kind([(need.needs, need) for need in self.needs], lambda need, bed: need.needs <= bed.features)
        own = np.array(self.own[: self.stays], dtype=np.int64)
        lies = np.flatnonzero(own != NOWHERE)
        stay = price[lies, own[lies]]
        where = centres(self.site)
        at = np.array([where[room] for room in self.rooms]).reshape(-1, 2)
        way = np.hypot(at[:, None, 0] - at[None, :, 0], at[:, None, 1] - at[None, :, 1])
        price[: self.stays] += cents(weights.move)
        metres = np.rint(way * weights.metre * 100).astype(np.int64)
        price[lies] += metres[self.room[own[lies]]][:, self.room]
        price[lies, own[lies]] = stay
        for n, need in enumerate(self.needs):
            if (room := self.promise.get(need.ref)) is not None:
                price[n] += (self.room != self.room_number[room]) * cents(weights.change)
            if need.ref in barred:
                price[n] = CLOSED
        price[(fits == 0) | ~self.usable] = CLOSED
        return price

    def _by_kind(self, some: Sequence[tuple[Hashable, Need]], of: Callable[[Need, Bed], bool]) -> Costs:
        """(needs, beds), 1 where `of` holds, asked once for all needs with the same key."""
        number: dict[Hashable, int] = {}
        rows: list[list[bool]] = []
        for key, need in some:
            if key not in number:
                number[key] = len(rows)
                rows.append([of(need, bed) for bed in self.beds])
        table = np.array(rows, dtype=np.int64).reshape(len(rows), len(self.beds))
        return np.asarray(table[[number[key] for key, _ in some]])

    def _classes(self) -> list[list[list[int]]]:
        """Room -> groups of usable beds between which no rule and no cost tells a difference."""
        classes = []
        for beds in self.of_room:
            groups: dict[tuple[frozenset[str], frozenset[str]], list[int]] = {}
            for bed in beds:
                if self.usable[bed]:
                    groups.setdefault((self.beds[bed].services, self.beds[bed].features), []).append(bed)
            classes.append(list(groups.values()))
        return classes

    def waits(self, n: int, hour: float) -> int:
        """Of a bed for a request at that hour, beside its price."""
        overdue = MUST if n >= self.stays and late(self.site.requests[n - self.stays], hour) else 0
        return round(float(self.rate[n]) * hour * 100) + overdue


class Placing:
    """Who lies where in a plan under way. `place[n]` is a bed or NOWHERE; `cost` is of the whole, always up to date.

    For each bed there is what somebody would meet who came into it as things stand: the hour, the span of ages, sexes
    and kinds of isolation of those in the room from that hour on.
    """

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.place = [NOWHERE] * len(ground.needs)
        self.newcomer = [NOWHERE] * len(ground.beds)  # who comes into a bed
        size = len(ground.beds)
        self.at = np.zeros(size)
        self.open = np.zeros(size, dtype=bool)
        self.low, self.high = np.full(size, _YOUNG), np.full(size, _OLD)
        self.sexes = np.zeros((size, 2), dtype=bool)  # women, men
        self.kind = np.full(size, _NO_KIND)
        self.span = np.zeros(len(ground.rooms), dtype=np.int64)
        self.breaks = [0] * len(ground.rooms)
        for room in range(len(ground.rooms)):
            self.refresh(room)

    def remaining(self, bed: int) -> list[int]:
        """Stays that lie in a bed and go on doing so: by plan, or because no rule lets them lie anywhere."""
        return [n for n in self.ground.lying[bed] if self.place[n] in (bed, NOWHERE)]

    def hour(self, n: int) -> float:
        """When a need comes into its bed."""
        bed = self.place[n]
        return float(self.ground.hour[bed]) if n >= self.ground.stays and self.remaining(bed) else 0.0

    def occupants(self, room: int) -> list[tuple[int, float, float]]:
        """(need, from, until) of who lies in a room lawfully."""
        there = []
        for bed in self.ground.of_room[room]:
            there += [(n, 0.0, self.ground.end[n]) for n in self.ground.lying[bed] if self.place[n] == bed]
            if (n := self.newcomer[bed]) != NOWHERE:
                there.append((n, self.hour(n), inf))
        return there

    def refresh(self, room: int) -> None:
        ground, needs = self.ground, self.ground.needs
        there = self.occupants(room)
        span = broken = 0
        for (one, start, end), (other, begins, ends) in combinations(there, 2):
            if max(start, begins) < min(end, ends):
                broken += bool(alike(needs[one], needs[other]))
                if (a := needs[one].age) is not None and (b := needs[other].age) is not None:
                    span = max(span, abs(a - b))
        self.span[room] = span
        for bed in ground.of_room[room]:
            remaining = self.remaining(bed)
            if len(remaining) > 1:
                broken += sum(self.place[n] == bed for n in remaining) > 1
            at = float(ground.hour[bed]) if remaining else 0.0
            self.open[bed] = ground.usable[bed] and self.newcomer[bed] == NOWHERE and at <= HORIZON
            self.at[bed] = min(at, HORIZON)
            meets = [n for n, _, end in there if end > at]
            ages = [age for n in meets if (age := needs[n].age) is not None]
            self.low[bed], self.high[bed] = min(ages, default=_YOUNG), max(ages, default=_OLD)
            self.sexes[bed] = any(needs[n].sex == "F" for n in meets), any(needs[n].sex == "M" for n in meets)
            kinds = {ground.kind[n] for n in meets}
            self.kind[bed] = _MANY_KINDS if len(kinds) > 1 else next(iter(kinds), _NO_KIND)
        self.breaks[room] = broken

    def put(self, n: int, bed: int) -> None:
        """Somebody who has no place comes into a bed, or stays in his own."""
        self.place[n] = bed
        if bed != self.ground.own[n]:
            self.newcomer[bed] = n
        self._touch(n, bed)

    def take(self, n: int) -> None:
        bed = self.place[n]
        if bed == NOWHERE:
            return
        if bed != self.ground.own[n]:
            self.newcomer[bed] = NOWHERE
        self.place[n] = NOWHERE
        self._touch(n, bed)

    def _touch(self, n: int, bed: int) -> None:
        self.refresh(int(self.ground.room[bed]))
        if (own := self.ground.own[n]) != NOWHERE and self.ground.room[own] != self.ground.room[bed]:
            self.refresh(int(self.ground.room[own]))

    def restore(self, place: list[int]) -> None:
        self.place = list(place)
        self.newcomer = [NOWHERE] * len(self.ground.beds)
        for n, bed in enumerate(place):
            if bed not in (NOWHERE, self.ground.own[n]):
                self.newcomer[bed] = n
        for room in range(len(self.ground.rooms)):
            self.refresh(room)

    def joined(self, rooms: set[int]) -> set[int]:
        """Who lies in some rooms, by plan or in truth; rooms that a move joins with these are added to them."""
        ground, needs, todo = self.ground, set[int](), list(rooms)
        while todo:
            for bed in ground.of_room[todo.pop()]:
                new = self.newcomer[bed]
                for n in [*ground.lying[bed], *([new] if new != NOWHERE else [])]:
                    needs.add(n)
                    for other in (ground.own[n], self.place[n]):
                        if other != NOWHERE and (room := int(ground.room[other])) not in rooms:
                            rooms.add(room)
                            todo.append(room)
        return needs

    def matrix(self, some: Sequence[int], beds: NDArray[np.int64] | slice = ALL) -> Costs:
        """(some, beds): of putting each request alone into each bed, as things stand; CLOSED where not lawful."""
        ground, rows = self.ground, np.asarray(some, dtype=np.int64)
        at, kind, age = self.at[beds], self.kind[beds], ground.age[rows, None]
        costs = ground.price[rows][:, beds]
        costs += np.rint(ground.rate[rows, None] * at * 100).astype(np.int64)
        costs += MUST * (ground.due[rows, None] < at)
        apart = np.maximum(self.high[beds] - age, age - self.low[beds]) - self.span[ground.room[beds]]
        costs += ground.age_price * np.where(age < 0, 0, np.maximum(apart, 0))
        closed = ~self.open[beds] | ((kind != _NO_KIND) & (kind != ground.kind_of[rows, None]))
        for sex in (0, 1):
            closed |= (ground.sex[rows, None] == sex) & self.sexes[beds, 1 - sex]
        costs[closed | (costs >= CLOSED)] = CLOSED
        return costs

    def costs(self, n: int) -> Costs:
        """Of putting somebody who has no place into each bed, as things stand; CLOSED where that is not lawful.

        A stay's own bed counts as empty: that he lies there is what the price of his own bed says.
        """
        ground = self.ground
        costs: Costs = self.matrix([n])[0]
        if n < ground.stays:
            costs[self.at > 0] = CLOSED  # a patient moves now, or not
            if (own := ground.own[n]) != NOWHERE:
                costs[own] = self.own_cost(n)
        return costs

    def own_cost(self, n: int) -> int:
        """Of staying: tried out, since the hours of a successor depend on it."""
        own = self.ground.own[n]
        if (
            own == NOWHERE
            or self.ground.price[n, own] >= CLOSED
            or any(self.place[m] == own for m in self.ground.lying[own] if m != n)
        ):
            return CLOSED
        if self.newcomer[own] != NOWHERE and self.newcomer[own] < self.ground.stays:
            return CLOSED
        room = int(self.ground.room[own])
        span, broken = int(self.span[room]), self.breaks[room]
        self.put(n, own)
        more, worse = int(self.span[room]) - span, self.breaks[room] - broken
        self.take(n)
        return CLOSED if worse > 0 else int(self.ground.price[n, own]) + self.ground.age_price * more

    def lawful(self) -> bool:
        return not any(self.breaks)

    @property
    def cost(self) -> int:
        ground, sum_ = self.ground, self.ground.age_price * int(self.span.sum())
        for n, bed in enumerate(self.place):
            if bed == NOWHERE:
                sum_ += ground.out[n]
            else:
                sum_ += int(ground.price[n, bed]) + (ground.waits(n, self.hour(n)) if n >= ground.stays else 0)
        return sum_
