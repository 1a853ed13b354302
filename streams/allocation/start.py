"""A first plan within milliseconds: who is in stays where a rule allows it, promises are kept, and all who wait are
matched to beds at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.optimize import linear_sum_assignment

from streams.allocation.ground import CLOSED, NOWHERE, Costs, Ground, Placing
from streams.allocation.plan import Plan

_ROUNDS = 6  # of matching: each places all but those who came between each other


def keep(placing: Placing) -> list[int]:
    """Let stays lie where they lie, in order of need number; those whom a rule drives away, in the order found."""
    away = []
    for n in range(placing.ground.stays):
        if placing.own_cost(n) >= CLOSED:
            away.append(n)
        else:
            placing.put(n, placing.ground.own[n])
    return away


def insert(placing: Placing, n: int) -> bool:
    """Into the bed that costs least as things stand; False where none is lawful or waiting costs less."""
    costs = placing.costs(n)
    bed = int(costs.argmin()) if len(costs) else NOWHERE
    if bed == NOWHERE or costs[bed] >= min(CLOSED, placing.ground.out[n]):
        return False
    placing.put(n, bed)
    if placing.lawful():
        return True
    placing.take(n)  # who moves away lets a successor come earlier, to whom somebody may still lie then
    return False


def urgent(ground: Ground, some: Iterable[int]) -> list[int]:
    """Dearest to leave out first; of equal ones the first."""
    return sorted(some, key=lambda n: (-ground.out[n], n))


def resume(placing: Placing, before: Plan | None) -> None:
    """Put everybody where the last plan has them, as far as that is lawful still."""
    beds = {bed.id: i for i, bed in enumerate(placing.ground.beds)}
    last = {ref: beds[one.to] for ref, one in (before.beds() if before else {}).items() if one.to in beds}
    _together(placing, last)
    for n, need in enumerate(placing.ground.needs):
        bed = last.get(need.ref, NOWHERE)
        own = placing.ground.own[n]
        if n < placing.ground.stays and bed not in (own, NOWHERE) and placing.place[n] in (own, NOWHERE):
            was = placing.place[n]
            placing.take(n)
            if placing.costs(n)[bed] < CLOSED:
                placing.put(n, bed)
                if placing.lawful():
                    continue
                placing.take(n)
            if was != NOWHERE:
                placing.put(n, was)
        elif (
            n >= placing.ground.stays
            and bed != NOWHERE
            and placing.matrix([n], np.array([bed]))[0, 0] < placing.ground.out[n]
        ):
            placing.put(n, bed)


def _together(placing: Placing, last: dict[str, int]) -> None:
    """Stays as the last plan has them, all at once: one after the other some would wait for others to go."""
    ground, was = placing.ground, list(placing.place)
    place = list(was)
    for n in range(ground.stays):
        bed = last.get(ground.needs[n].ref, NOWHERE)
        if bed != NOWHERE and ground.price[n, bed] < CLOSED:
            place[n] = bed
    moved = [n for n in range(ground.stays) if place[n] not in (NOWHERE, ground.own[n])]
    taken = {place[n] for n in moved}
    held = {bed for bed in taken for m in ground.lying[bed] if place[m] in (bed, NOWHERE)}
    if held or len(taken) < len(moved):
        return
    placing.restore(place)
    if not placing.lawful():
        placing.restore(was)


def matched(costs: Costs, out: Costs) -> tuple[int, list[tuple[int, int]]]:
    """(cost, pairs of row and column) of the least-cost assignment of rows to columns, each of which may stay out."""
    apart = np.full((len(out), len(out)), CLOSED, dtype=np.int64)
    np.fill_diagonal(apart, out)
    whole = np.hstack([costs, apart])
    rows, columns = linear_sum_assignment(whole)
    pairs = [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if c < costs.shape[1]]
    return int(whole[rows, columns].sum()), pairs


def match(placing: Placing, some: Iterable[int]) -> None:
    """Place requests that have no bed, by a least-cost assignment of all to all beds.

    What those in one room do to each other the costs do not know. Of those who may not share a room the group that
    would cost most to leave out comes in; who has come between is matched again.
    """
    ground = placing.ground
    waiting = urgent(ground, some)
    for _ in range(_ROUNDS):
        if not waiting:
            return
        beds = np.flatnonzero(placing.open)
        out = np.array([ground.out[n] for n in waiting])
        _, pairs = matched(placing.matrix(waiting, beds), out)
        weight: dict[tuple[int, int, int], int] = {}
        for row, column in pairs:
            group = (int(ground.room[beds[column]]), int(ground.sex[waiting[row]]), ground.kind[waiting[row]])
            weight[group] = weight.get(group, 0) + ground.out[waiting[row]]
        left = []
        for row, column in sorted(
            pairs,
            key=lambda one: (
                -weight[int(ground.room[beds[one[1]]]), int(ground.sex[waiting[one[0]]]), ground.kind[waiting[one[0]]]],
                one,
            ),
        ):
            n, bed = waiting[row], int(beds[column])
            if placing.matrix([n], np.array([bed]))[0, 0] < out[row]:
                placing.put(n, bed)
            else:
                left.append(n)
        waiting = urgent(ground, left)
    for n in waiting:
        insert(placing, n)


def begin(ground: Ground, before: Plan | None = None) -> Placing:
    """A lawful placing, complete but for whom no lawful bed was found."""
    placing = Placing(ground)
    away = keep(placing)
    resume(placing, before)
    for n in urgent(ground, (n for n in away if placing.place[n] == NOWHERE)):
        insert(placing, n)
    match(placing, (n for n in range(ground.stays, len(ground.needs)) if placing.place[n] == NOWHERE))
    for n in urgent(ground, (n for n, bed in enumerate(placing.place) if bed == NOWHERE)):
        insert(placing, n)
    return placing


def accept(placing: Placing, place: list[int], cost: int) -> bool:
    """Take over a placing if it is lawful and costs less; else leave everything as it was."""
    if place == placing.place:
        return False
    was = list(placing.place)
    placing.restore(place)
    if placing.lawful() and placing.cost < cost:
        return True
    placing.restore(was)
    return False
