"""Rooms that change whom they are for. What a matching cannot find, as it moves nobody: three women who move to other
rooms of women make a room for four men who wait. Each try is judged by a matching of all who wait to all beds."""

from __future__ import annotations

import random
import time
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from streams.allocation.ground import CLOSED, MUST, NOWHERE, Costs, Placing
from streams.allocation.start import match, matched, urgent

_TOP = 12  # tries before the ranking is made anew
_TIRED = 20_000  # hundredths by which a try that gained nothing ranks lower


class Converter:
    """Tries of one placing, the most promising first. `bare` is the same without those who wait."""

    def __init__(self, placing: Placing, chance: random.Random) -> None:
        self.placing, self.chance = placing, chance
        self.ground = ground = placing.ground
        self.requests = list(range(ground.stays, len(ground.needs)))
        self.out = np.array([ground.out[n] for n in self.requests], dtype=np.int64)
        self.tired: dict[tuple[int, int, int], int] = defaultdict(int)
        self.tried = 0
        self._strip()

    def _strip(self) -> None:
        ground = self.ground
        self.bare = Placing(ground)
        self.bare.restore([bed if n < ground.stays else NOWHERE for n, bed in enumerate(self.placing.place)])
        self.costs = self.bare.matrix(self.requests)
        self.spans = ground.age_price * int(self.bare.span.sum())
        self.level = self._judge(self.costs)

    def _judge(self, costs: Costs) -> int:
        """What all who wait would cost, matched."""
        open_ = np.flatnonzero(self.bare.open)
        return matched(costs[:, open_], self.out)[0] if self.requests else 0

    def improve(self, ends: float, most: int | None = None) -> bool:
        """Try until something is gained or nothing promising is left, time is up, or so many were tried in all; False
        then. With `most` the clock does not count."""
        while (time.monotonic() < ends) if most is None else self.tried < most:
            tries = self._ranked()[:_TOP]
            if not tries:
                return False
            for _, room, sex, kind in tries:
                self.tried += 1
                if self._try(room, sex, kind):
                    self.tired.clear()
                    return True
                self.tired[room, sex, kind] += _TIRED
                if most is None and time.monotonic() >= ends:
                    return False
        return False

    def keepers(self, room: int) -> list[int]:
        ground = self.ground
        return [n for bed in ground.of_room[room] for n in ground.lying[bed] if self.placing.place[n] == bed]

    def _ranked(self) -> list[tuple[int, int, int, int]]:
        """(what might be gained, room, sex, kind), best first, from what those who wait would cost."""
        ground, place = self.ground, self.placing.place
        waiting: dict[tuple[int, int], list[int]] = defaultdict(list)
        placed: dict[tuple[int, int], list[int]] = defaultdict(list)
        for n in urgent(ground, self.requests):
            group = int(ground.sex[n]), ground.kind[n]
            (waiting if place[n] == NOWHERE else placed)[group].append(ground.out[n])
        tops = {group: np.cumsum(out[:16]) for group, out in waiting.items() if group[0] >= 0}
        lows = {group: np.cumsum(out[::-1][:16]) for group, out in placed.items()}
        none = np.zeros(1, dtype=np.int64)
        found = []
        for room, beds in enumerate(ground.of_room):
            keepers = self.keepers(room)
            size = int(ground.usable[beds].sum())
            comers = [n for bed in beds if (n := self.placing.newcomer[bed]) != NOWHERE]
            if size == 0 or any(n < ground.stays for n in comers):
                continue
            there = keepers[0] if keepers else comers[0] if comers else NOWHERE
            group = (int(ground.sex[there]), ground.kind[there]) if there != NOWHERE else (-1, -1)
            low = lows.get(group, none)
            loss = int(low[min(len(keepers) + len(comers), len(low)) - 1]) if keepers or comers else 0
            loss += len(keepers) * round(ground.site.weights.move * 100)
            for other, top in tops.items():
                if other != group or keepers:
                    gain = int(top[min(size, len(top)) - 1]) - loss - self.tired[room, *other]
                    if gain > 0:
                        found.append((gain, room, *other))
        found.sort(reverse=True)
        return found

    def _try(self, room: int, sex: int, kind: int) -> bool:
        ground, bare = self.ground, self.bare
        was = list(bare.place)
        keepers = self.keepers(room)
        touched = {room}
        for n in sorted(keepers, key=lambda one: int((ground.price[one] < CLOSED).sum())):
            bare.take(n)
            costs = bare.costs(n)
            costs[ground.of_room[room]] = CLOSED
            costs = np.where(costs < CLOSED, costs + self._worth(n), CLOSED)
            bed = int(costs.argmin())
            if costs[bed] >= CLOSED:
                self._back(was, touched)
                return False
            bare.put(n, bed)
            touched.add(int(ground.room[bed]))
        self._refresh(touched)
        others = (ground.sex[self.requests] == 1 - sex) | (ground.kind_of[self.requests] != kind)
        forced = self.costs.copy()
        forced[np.ix_(others, ground.of_room[room])] = CLOSED
        spent = self._spent(bare.place) - self._spent(was)
        if self._judge(forced) + spent >= self.level:
            self._back(was, touched)
            return False
        return self._apply(was, touched, room, others)

    def _spent(self, place: list[int]) -> int:
        """What stays cost, and the ages of rooms without those who wait."""
        ground = self.ground
        lie = sum(ground.out[n] if place[n] == NOWHERE else int(ground.price[n, place[n]]) for n in range(ground.stays))
        return lie + (ground.age_price * int(self.bare.span.sum()) if place is self.bare.place else self.spans)

    def _worth(self, n: int) -> Costs:
        """That a bed with more features is missed more, and whom it is taken from."""
        ground = self.ground
        worth = np.array([100 * len(bed.features) for bed in ground.beds], dtype=np.int64)
        for bed, other in enumerate(self.placing.newcomer):
            if other >= ground.stays:
                worth[bed] += ground.out[other] if ground.out[other] < MUST else CLOSED // 4
        return worth

    def _refresh(self, rooms: set[int]) -> None:
        beds = np.array([bed for room in sorted(rooms) for bed in self.ground.of_room[room]], dtype=np.int64)
        self.costs[:, beds] = self.bare.matrix(self.requests, beds)

    def _back(self, was: list[int], touched: set[int]) -> None:
        for n in range(self.ground.stays):
            if self.bare.place[n] != was[n]:
                self.bare.take(n)
        for n in range(self.ground.stays):
            if self.bare.place[n] != was[n]:
                self.bare.put(n, was[n])
        self._refresh(touched)

    def _apply(self, was: list[int], touched: set[int], room: int, others: NDArray[np.bool_]) -> bool:
        """For good, if the real cost is less as well."""
        ground, placing = self.ground, self.placing
        before, cost = list(placing.place), placing.cost
        placing.restore([bed if n < ground.stays else NOWHERE for n, bed in enumerate(self.bare.place)])
        first = [n for n, other in zip(self.requests, others, strict=True) if not other]
        for n in urgent(ground, first):
            beds = np.array(ground.of_room[room])
            row = placing.matrix([n], beds)[0]
            if row.min() < ground.out[n]:
                placing.put(n, int(beds[row.argmin()]))
        rest = [n for n in self.requests if placing.place[n] == NOWHERE]
        match(placing, rest)
        if placing.lawful() and placing.cost < cost:
            self._strip()
            return True
        placing.restore(before)
        self._back(was, touched)
        return False
