"""The whole problem as rooms that choose among patterns, by column generation: its linear relaxation is nearly exact.

A pattern is who lies in one room: which of those in it stay, who comes in now, who comes when somebody leaves. Each
room takes one pattern, everybody is in one pattern or nowhere (Dantzig and Wolfe, Operations Research 8, 1960). What
ages and sexes in a room cost is inside a pattern, where the compact model (model.py) has only weak inequalities for
it. Prices of the linear programme say which pattern of each room would pay; with no pattern left that pays, it is
solved, and at any time its prices give a bound (Lagrange): what everybody is worth, less what rooms could still win.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import inf

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model
from scipy.optimize import linprog
from scipy.sparse import csc_matrix, csr_matrix, hstack, identity, vstack

from streams.allocation.ground import CLOSED, MUST, NOWHERE, Ground, Placing
from streams.allocation.rules import HORIZON, alike

Floats = NDArray[np.float64]
_SMOOTH = 0.85  # of the best prices so far in those that patterns are sought with (Wentges, 1997): fewer rounds
_MANY = 5000  # patterns in the linear programme, from which on half of them are left out
_TINY = 0.5  # hundredths
_NODES = 20_000  # of a search for the best that may come into a room
_SETTLED, _CLOSE = 0.0005, 0.03  # of the cost: what a round gains, and the gap, below which pricing is exact


@dataclass(frozen=True, slots=True)
class Pattern:
    """Who lies in a room, and in which bed; what that costs in hundredths."""

    room: int
    beds: tuple[tuple[int, int], ...]  # need, bed
    cost: int


def pattern(ground: Ground, room: int, beds: Iterable[tuple[int, int]]) -> Pattern | None:
    """Priced; None if it breaks a rule."""
    given = tuple(sorted(beds))
    kept = {bed for n, bed in given if bed == ground.own[n]}
    cost, there = 0, []
    taken: set[tuple[int, bool]] = set()
    for n, bed in given:
        if (price := int(ground.price[n, bed])) >= CLOSED or (bed, bed == ground.own[n]) in taken:
            return None
        taken.add((bed, bed == ground.own[n]))
        if bed == ground.own[n]:
            there.append((n, 0.0, ground.end[n]))
        else:
            hour = float(ground.hour[bed]) if bed in kept else 0.0
            if hour > HORIZON or (hour and n < ground.stays):
                return None
            price += ground.waits(n, hour) if n >= ground.stays else 0
            there.append((n, hour, inf))
        cost += price
    span = 0
    for (one, start, end), (other, begins, ends) in combinations(there, 2):
        if max(start, begins) < min(end, ends):
            if alike(ground.needs[one], ground.needs[other]):
                return None
            if (a := ground.needs[one].age) is not None and (b := ground.needs[other].age) is not None:
                span = max(span, abs(a - b))
    return Pattern(room, given, cost + ground.age_price * span)


def of_placing(placing: Placing) -> Iterator[Pattern]:
    """The patterns that a placing is made of."""
    ground = placing.ground
    there: list[list[tuple[int, int]]] = [[] for _ in ground.rooms]
    for n, bed in enumerate(placing.place):
        if bed != NOWHERE:
            there[ground.room[bed]].append((n, bed))
    for room, beds in enumerate(there):
        if found := pattern(ground, room, beds):
            yield found


class Master:
    """The linear programme over the patterns so far; those that long did not pay are left out of it, and kept."""

    def __init__(self, ground: Ground, rooms: Sequence[int], needs: Sequence[int]) -> None:
        self.ground, self.rooms, self.needs = ground, list(rooms), list(needs)
        self.out = np.array([ground.out[n] for n in self.needs], dtype=float)
        self.patterns: list[Pattern] = []
        self._known: set[tuple[int, tuple[tuple[int, int], ...]]] = set()
        self._row = {n: i for i, n in enumerate(self.needs)}
        self._room = {room: len(self.needs) + i for i, room in enumerate(self.rooms)}
        self._rows: list[NDArray[np.int64]] = []
        self._active: list[int] = []
        self.prices = np.zeros(len(self.needs) + len(self.rooms))

    def add(self, found: Iterable[Pattern]) -> int:
        added = 0
        for one in found:
            if (key := (one.room, one.beds)) not in self._known:
                self._known.add(key)
                self._active.append(len(self.patterns))
                self.patterns.append(one)
                self._rows.append(np.array([*(self._row[n] for n, _ in one.beds), self._room[one.room]]))
                added += 1
        return added

    def solve(self) -> tuple[float, Floats]:
        """(cost, what each need is worth)."""
        size, rooms = len(self.needs), len(self.rooms)
        whole = self._matrix(self._active)
        matrix = hstack([whole, vstack([identity(size), csr_matrix((rooms, size))])]).tocsr()
        costs = np.concatenate([[float(self.patterns[i].cost) for i in self._active], self.out])
        done = linprog(
            costs,
            A_eq=matrix[:size],
            b_eq=np.ones(size),
            A_ub=matrix[size:],
            b_ub=np.ones(rooms),
            method="highs-ds",
        )
        self.prices = np.concatenate([done.eqlin.marginals, done.ineqlin.marginals])
        if len(self._active) > _MANY:
            more = self.excess(self._active)
            self._active = [self._active[i] for i in np.sort(np.argsort(more, kind="stable")[: _MANY // 2])]
        return float(done.fun), np.minimum(np.asarray(done.eqlin.marginals), self.out)

    def excess(self, some: Sequence[int]) -> Floats:
        """What patterns cost above the prices of the last solution."""
        costs = np.array([float(self.patterns[i].cost) for i in some])
        return np.asarray(costs - self._matrix(some).T @ self.prices)

    def _matrix(self, some: Sequence[int]) -> csc_matrix:
        rows = [self._rows[i] for i in some]
        ends = np.cumsum([0, *(len(one) for one in rows)])
        flat = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        return csc_matrix((np.ones(len(flat)), flat, ends), shape=(len(self.needs) + len(self.rooms), len(rows)))


@dataclass(frozen=True, slots=True)
class _Room:
    """A room at given prices: who may come, what each wins in each bed, and, of each group of those who may come
    together, what the first none, one, two ... win at most."""

    room: int
    beds: list[int]
    comers: NDArray[np.int64]
    value: Floats  # (comers, beds)
    groups: list[tuple[int, int, NDArray[np.bool_]]]  # sex, kind, which comers
    tops: Floats  # (groups, beds + 1)


@dataclass(frozen=True, slots=True)
class _Slot:
    """A bed for one who comes: what each wins there, from which hour, and the ages of those kept who are there then,
    if that is later than now."""

    bed: int
    value: Floats
    hour: float
    there: tuple[int, ...]


class _Exact:
    """Who comes into which slot, by branch and bound: nobody twice, and years as they are. `value` is above `floor`, or
    nothing is; not `complete` where that took too long."""

    def __init__(
        self, slots: Sequence[_Slot], ages: NDArray[np.int64], kept: Sequence[int], price: int, floor: float
    ) -> None:
        self.slots, self.kept, self.price = slots, kept, price
        self.value, self.chosen, self.nodes = floor, list[tuple[int, int]](), 0
        self.ages: list[int] = ages.tolist()
        orders = [np.flatnonzero(slot.value > 0) for slot in slots]
        orders = [some[np.argsort(-slot.value[some], kind="stable")] for some, slot in zip(orders, slots, strict=True)]
        self.orders = [
            list(zip(some.tolist(), slot.value[some].tolist(), strict=True))
            for some, slot in zip(orders, slots, strict=True)
        ]
        tops = [some[0][1] if some else 0.0 for some in self.orders]
        self.rest = [*np.cumsum(tops[::-1])[::-1].tolist(), 0.0]
        self.same = [
            k > 0 and not slot.hour and np.array_equal(slot.value, slots[k - 1].value) for k, slot in enumerate(slots)
        ]
        span = max(kept) - min(kept) if kept else 0
        self._search(0, 0.0, span, (), 0)

    @property
    def complete(self) -> bool:
        return self.nodes <= _NODES

    def _search(self, k: int, won: float, span: int, chosen: tuple[tuple[int, int], ...], first: int) -> None:
        """`first`: of slots between which nothing tells a difference, the order goes on behind the last one."""
        if won - self.price * span > self.value:
            self.value, self.chosen = won - self.price * span, [(c, self.slots[i].bed) for c, i in chosen]
        if k == len(self.slots):
            return
        slot, rest = self.slots[k], self.rest[k + 1]
        come = [self.ages[c] for c, _ in chosen if self.ages[c] >= 0]
        come += slot.there if slot.hour else self.kept
        low, high = (min(come), max(come)) if come else (0, 0)
        for i in range(first if self.same[k] else 0, len(self.orders[k])):
            comer, value = self.orders[k][i]
            self.nodes += 1
            if won + value + rest - self.price * span <= self.value or self.nodes > _NODES:
                break
            age, more = self.ages[comer], span
            if come and age >= 0:
                more = max(span, age - low, high - age)
            if won + value + rest - self.price * more > self.value and all(c != comer for c, _ in chosen):
                self._search(k + 1, won + value, more, (*chosen, (comer, k)), i + 1)
        if won + rest - self.price * span > self.value:  # nobody comes into this one, nor into those like it
            after = k + 1
            while after < len(self.slots) and self.same[after]:
                after += 1
            self._search(after, won, span, chosen, 0)


class Pricer:
    """Seeks, for prices of all needs, the patterns of a room that win most."""

    def __init__(self, ground: Ground, needs: Sequence[int]) -> None:
        self.ground = ground
        self.inside = np.zeros(len(ground.needs), dtype=bool)
        self.inside[list(needs)] = True
        self.exact = False  # slower; until prices have settled what is taken to hinder less than it may is good enough
        self.age, self.sex, self.kind, self.due = ground.age, ground.sex, ground.kind_of, ground.due

    def best(self, room: int, worth: Floats) -> tuple[float, list[Pattern]]:
        """(what the best pattern wins at most, patterns that win). Who comes later, or may have few of the beds, is
        taken to hinder others less than he may: what is won is never too little, so that the bound holds."""
        ground = self.ground
        beds = [bed for bed in ground.of_room[room] if ground.usable[bed]]
        lying = [n for bed in beds for n in ground.lying[bed]]
        value = worth[:, None] - ground.price[:, beds]
        value[~self.inside] = -1.0
        for n in lying:
            value[n, beds.index(ground.own[n])] = -1.0  # staying is no coming
        most = value.max(axis=1, initial=-1.0)
        comers = np.flatnonzero(most > 0)
        at = _Room(room, beds, comers, value[comers], *self._groups(comers, most[comers], len(beds)))
        stays = [n for n in lying if ground.price[n, ground.own[n]] < CLOSED]
        ranked = []
        for size in range(len(stays) + 1):
            for kept in combinations(stays, size):
                if self._together(kept):
                    ranked.append((self._ceiling(at, kept, worth), kept))
        ranked.sort(key=lambda one: -one[0])
        best, winners = 0.0, []
        for ceiling, kept in ranked:
            if ceiling <= best:
                break
            won, made = self._beside(at, kept, worth, best)
            if made is not None and won > _TINY:
                winners.append((won, made))
            best = max(best, won)
        winners.sort(key=lambda one: -one[0])
        return best, [one for _, one in winners[:3]]

    def _together(self, kept: Sequence[int]) -> bool:
        ground = self.ground
        return len({ground.own[n] for n in kept}) == len(kept) and not any(
            alike(ground.needs[a], ground.needs[b]) for a, b in combinations(kept, 2)
        )

    def _groups(
        self, comers: NDArray[np.int64], most: Floats, size: int
    ) -> tuple[list[tuple[int, int, NDArray[np.bool_]]], Floats]:
        """Who may come together, as (sex, kind, which comers); and what the first one, two ... of each group win."""
        groups, tops = [], []
        for sex, kind in product((0, 1), np.unique(self.kind[comers]).tolist() or [0]):
            of = (self.kind[comers] == kind) & (self.sex[comers] != 1 - sex)
            groups.append((sex, kind, of))
            tops.append(np.cumsum([0.0, *np.sort(np.append(most[of], np.zeros(size)))[::-1][:size]]))
        return groups, np.array(tops)

    def _ceiling(self, at: _Room, kept: Sequence[int], worth: Floats) -> float:
        """What may come beside these wins no more."""
        ground = self.ground
        later = sum(bool(ground.hour[ground.own[n]] <= HORIZON) for n in kept)
        base = sum(float(worth[n] - ground.price[n, ground.own[n]]) for n in kept)
        first = at.tops[:, 1] if at.tops.shape[1] > 1 else at.tops[:, 0]
        return base + float((at.tops[:, len(at.beds) - len(kept)] + later * first).max())

    def _beside(self, at: _Room, kept: Sequence[int], worth: Floats, least: float) -> tuple[float, Pattern | None]:
        """The best that may come beside those who are kept; no pattern if it wins no more than `least`."""
        ground, comers = self.ground, at.comers
        held = {ground.own[n]: n for n in kept}
        empty = [i for i, bed in enumerate(at.beds) if bed not in held]
        ages = [age for n in kept if (age := ground.needs[n].age) is not None]
        base = sum(float(worth[n] - ground.price[n, ground.own[n]]) for n in kept)
        paid = ground.age_price * (max(ages) - min(ages)) if ages else 0
        other = np.ones(len(comers), dtype=bool)
        for n in kept:
            other[comers == n] = False
        later = [
            (bed, self._successors(kept, i, bed, comers, at.value, not empty, ages))
            for i, bed in enumerate(at.beds)
            if bed in held and ground.hour[bed] <= HORIZON
        ]
        now = at.value[:, empty].max(axis=1, initial=-1.0)
        sexes = {int(self.sex[n]) for n in kept} - {-1}
        kinds = {int(self.kind[n]) for n in kept}
        best, chosen, group = -inf, np.zeros(0, dtype=np.int64), np.zeros(len(comers), dtype=bool)
        exact: Pattern | None = None
        for (sex, kind, group_of), top in zip(at.groups, at.tops, strict=True):
            floor = max(least - base, best)
            if top[len(empty)] + len(later) * top[min(1, len(top) - 1)] - paid <= floor:
                continue
            of = other & group_of
            after = sum(max(0.0, float(won[of].max(initial=0.0))) for _, won in later)
            ranked = np.zeros(0, dtype=np.int64)
            if kinds <= {kind}:  # beside women, and before men, come those of neither sex
                fit = np.flatnonzero(of & (now > 0) & (True if sexes <= {sex} else self.sex[comers] == -1))
                ranked = fit[np.argsort(-now[fit], kind="stable")]
            if after + float(now[ranked[: len(empty)]].sum()) - paid <= floor:
                continue
            won, who = _ages(now[ranked], self.age[comers[ranked]], ages, len(empty), ground.age_price, floor - after)
            if self.exact and won + after > floor:
                fit = np.zeros(len(comers), dtype=bool)
                fit[ranked] = True
                slots = [_Slot(at.beds[i], np.where(fit, at.value[:, i], -1.0), 0.0, ()) for i in empty]
                slots += [self._after(kept, at, bed, of) for bed, _ in later]
                found = _Exact(slots, self.age[comers], ages, ground.age_price, floor)
                if found.value <= floor:
                    continue
                if found.complete:
                    best, beds = found.value, [(int(comers[c]), bed) for c, bed in found.chosen]
                    exact = pattern(ground, at.room, [*((n, ground.own[n]) for n in kept), *beds])
                    continue
            if won + after > best:
                best, chosen, group, exact = won + after, comers[ranked[who]], of, None
        if base + best <= least:
            return -inf, None
        if exact is not None:
            return base + best, exact
        successors = [
            (int(n), bed)
            for bed, won in later
            for n in comers[group][np.argsort(-won[group], kind="stable")[: 3 + len(chosen)]]
        ]
        empties = [at.beds[i] for i in empty]
        return base + best, _made(ground, at.room, kept, chosen.tolist(), successors, empties)

    def _after(self, kept: Sequence[int], at: _Room, bed: int, of: NDArray[np.bool_]) -> _Slot:
        ground, hour = self.ground, float(self.ground.hour[bed])
        won = self._successors(kept, at.beds.index(bed), bed, at.comers, at.value, False, ())
        there = tuple(int(self.age[n]) for n in kept if ground.end[n] > hour and self.age[n] >= 0)
        return _Slot(bed, np.where(of, won, -1.0), hour, there)

    def _successors(
        self,
        kept: Sequence[int],
        i: int,
        bed: int,
        comers: NDArray[np.int64],
        value: Floats,
        alone: bool,
        ages: Sequence[int],
    ) -> Floats:
        """What each comer wins at most in a bed once it is left."""
        ground, hour = self.ground, float(self.ground.hour[bed])
        won = value[:, i] - np.rint(ground.rate[comers] * hour * 100)
        won -= np.where(self.due[comers] < hour, MUST, 0)
        won[comers < ground.stays] = -1.0
        there = [n for n in kept if ground.end[n] > hour]
        for sex in {int(self.sex[n]) for n in there} - {-1}:
            won[self.sex[comers] == 1 - sex] = -1.0
        for kind in {int(self.kind[n]) for n in there}:
            won[self.kind[comers] != kind] = -1.0
        aged = [self.age[n] for n in there if self.age[n] >= 0]
        beds = [ground.own[n] for n in kept if ground.hour[ground.own[n]] <= HORIZON]
        if alone and aged and ages:  # nobody comes now, so that the room's span is theirs; shared, as the widest counts
            age = self.age[comers]
            reach = np.maximum(max(aged) - age, age - min(aged)) - (max(ages) - min(ages))
            won -= np.where(age >= 0, np.maximum(reach, 0), 0) * ground.age_price / len(beds)
        return np.asarray(won)


def _ages(
    values: Floats, ages: NDArray[np.int64], kept: Sequence[int], most: int, price: int, floor: float = -inf
) -> tuple[float, NDArray[np.int64]]:
    """(value less the price of the years between oldest and youngest, who): the best `most` of those who may come,
    which are given in order of value; -1 is no age. Minus infinity where nothing makes it more than `floor`."""
    none = np.zeros(0, dtype=np.int64)
    low, high = (min(kept), max(kept)) if kept else (-1, -1)
    best, who = -float(price * (high - low)), none  # that nobody comes is a choice as well
    if most == 1 and len(values):
        apart = np.maximum(np.maximum(ages - high, low - ages), 0) if kept else np.zeros_like(ages)
        net = values - price * np.where(ages < 0, 0, apart)
        if net[first := int(net.argmax())] > 0:
            best, who = best + float(net[first]), np.array([first])
    elif most and len(values):
        for some in _likely(values, ages, low, high, most):
            known = [*ages[some][ages[some] >= 0].tolist(), *kept]
            net_of = float(values[some].sum()) - price * (max(known) - min(known) if known else 0)
            if net_of > best:
                best, who = net_of, some
        if better := _windows(values, ages, low, high, most, price, max(best, floor)):
            best, who = better
    return (best, who) if best > floor else (-inf, none)


def _likely(values: Floats, ages: NDArray[np.int64], low: int, high: int, most: int) -> Iterator[NDArray[np.int64]]:
    """Sets that are good as a rule, so that few windows of ages are left to be looked at."""
    aged = ages >= 0
    yield np.flatnonzero(~aged)[:most]
    yield np.arange(min(most, len(values)))
    if aged.any():
        young, old = (low, high) if low >= 0 else (int(ages[aged.argmax()]),) * 2
        for years in (0, 3, 10):
            yield np.flatnonzero(~aged | ((ages >= young - years) & (ages <= old + years)))[:most]


def _windows(
    values: Floats, ages: NDArray[np.int64], low: int, high: int, most: int, price: int, best: float
) -> tuple[float, NDArray[np.int64]] | None:
    """The best of all spans of ages, each from one who comes or from the youngest who is kept; None if none is above
    `best`."""
    far = np.where(ages < 0, 0, np.maximum(np.maximum(ages - high, low - ages), 0)) if low >= 0 else 0
    reach = values + float(values[: most - 1].sum()) - price * (far + high - low)  # with the best of all others
    seen: dict[int, int] = {}
    few: list[tuple[int, float, int]] = []
    for i in np.flatnonzero(reach > best).tolist():  # of one age the first are enough
        age = int(ages[i])
        seen[age] = seen.get(age, 0) + 1
        if seen[age] <= most:
            few.append((age, float(values[i]), i))
    free = sorted((value, i) for age, value, i in few if age < 0)
    aged = sorted(one for one in few if one[0] >= 0)
    ceiling = float(values[:most].sum())  # of nobody's age being counted
    whole, who = sum(value for value, _ in free), None
    starts = sorted({age for age, _, _ in aged if low < 0 or age < low} | ({low} if low >= 0 else set()), reverse=True)
    for start in starts:
        if low >= 0 and ceiling - price * (high - start) <= best:
            break
        top, total = list(free), whole
        for age, value, i in aged[bisect_left(aged, (start,)) :]:
            if ceiling - price * (max(age, high) - start) <= best:
                break
            if len(top) < most:
                insort(top, (value, i))
                total += value
            elif value > top[0][0]:
                total += value - top[0][0]
                top.pop(0)
                insort(top, (value, i))
            else:
                continue
            net = total - price * (max(age, high) - start)
            if net > best:
                best, who = net, [j for _, j in top]
    return None if who is None else (best, np.array(who, dtype=np.int64))


def _made(
    ground: Ground,
    room: int,
    kept: Sequence[int],
    chosen: Sequence[int],
    after: Sequence[tuple[int, int]],
    empty: Sequence[int],
) -> Pattern | None:
    """Beds for those who come: first who may have few."""
    free, given = list(empty), [(n, ground.own[n]) for n in kept]
    may = {n: [bed for bed in free if ground.price[n, bed] < CLOSED and bed != ground.own[n]] for n in chosen}
    for n in sorted(chosen, key=lambda one: len(may[one])):
        bed = min((bed for bed in may[n] if bed in free), key=lambda b: int(ground.price[n, b]), default=NOWHERE)
        if bed == NOWHERE:
            continue
        free.remove(bed)
        given.append((n, bed))
    whole = pattern(ground, room, given)
    for n, bed in after:
        if whole is not None and (more := pattern(ground, room, [*whole.beds, (n, bed)])) is not None:
            whole = more
    return whole


def generate(
    ground: Ground,
    start: Iterable[Pattern],
    ends: float,
    rooms: Sequence[int],
    needs: Sequence[int],
    first: Floats,
) -> tuple[Master, float]:
    """(patterns, bound) until none pays any more, or time is up. `first`: prices to begin with, of all needs."""
    master = Master(ground, rooms, needs)
    master.add(start)
    pricer = Pricer(ground, needs)
    size = len(ground.needs)
    bound, centre = -inf, np.minimum(first[list(needs)], master.out)
    high = float(max((ground.out[n] for n in needs if n >= ground.stays), default=0)) + 30000
    limit = np.where(np.asarray(needs) < ground.stays, high, master.out)
    smooth, last = _SMOOTH, inf
    while time.monotonic() < ends:
        cost, worth = master.solve()
        pricer.exact = pricer.exact or (last - cost < _SETTLED * cost and cost - bound < _CLOSE * cost)
        last = cost
        worth = np.minimum(worth, limit)
        point = smooth * centre + (1 - smooth) * worth
        whole = np.zeros(size)
        whole[master.needs] = point
        won, added = 0.0, 0
        for room in master.rooms:
            best, found = pricer.best(room, whole)
            won += best
            added += master.add(found)
            if time.monotonic() > ends:
                return master, bound
        if point.sum() - won > bound:
            bound, centre = float(point.sum() - won), point
        if cost - bound < _TINY * 100:
            break
        if not added:
            if not smooth and pricer.exact:
                break
            smooth, pricer.exact = 0.0, True
        else:
            smooth = _SMOOTH
    return master, bound


def choose(
    master: Master, seconds: float, workers: int, seed: int, hints: Iterable[Pattern], most: float = inf
) -> list[Pattern]:
    """The best choice of one pattern a room, as an integer programme; `most`: what a pattern may cost above the prices,
    or no choice with it is better than what is known."""
    cp = cp_model.CpModel()
    hint = {(one.room, one.beds) for one in hints}
    above = master.excess(range(len(master.patterns)))
    some = [
        one for one, more in zip(master.patterns, above, strict=True) if more <= most or (one.room, one.beds) in hint
    ]
    taken = [cp.new_bool_var("") for _ in some]
    out = {n: cp.new_bool_var("") for n in master.needs}
    covers: dict[int, list[cp_model.IntVar]] = {n: [out[n]] for n in master.needs}
    by_room: dict[int, list[cp_model.IntVar]] = {room: [] for room in master.rooms}
    for one, var in zip(some, taken, strict=True):
        by_room[one.room].append(var)
        for n, _ in one.beds:
            covers[n].append(var)
        cp.add_hint(var, (one.room, one.beds) in hint)
    for variables in covers.values():
        cp.add_exactly_one(variables)
    for variables in by_room.values():
        cp.add_at_most_one(variables)
    cp.minimize(
        cp_model.LinearExpr.weighted_sum(taken, [one.cost for one in some])
        + cp_model.LinearExpr.weighted_sum(list(out.values()), [master.ground.out[n] for n in out])
    )
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.linearization_level = 2
    if solver.solve(cp) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return []
    return [one for one, var in zip(some, taken, strict=True) if solver.boolean_value(var)]
