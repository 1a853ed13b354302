"""A bound within a fraction of a second: what the site costs at least, whatever is planned.

A relaxation to least-cost assignments of those who wait: to beds that are empty, to beds of those who leave in time,
and, at the price of a move, to beds of all others. As every move takes an empty bed, no more may come in now than
beds are empty; that is priced (a Lagrange multiplier, any is valid, the best of a few is taken). What a room's ages
cost while all stay in it is kept, against a share of the price of moving away: either all stay and it is paid, or
somebody moves and pays his share.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from streams.allocation.ground import CLOSED, MUST, NOWHERE, Costs, Ground
from streams.allocation.rules import HORIZON

_SHARE = 0.5  # of a move, against ages
_ROUNDS = 5  # of the search for the best multiplier


def relaxed(ground: Ground) -> tuple[int, NDArray[np.float64]]:
    """(hundredths that no placing costs less than, what it is worth to each need to have a bed: its dual price)."""
    move = round(ground.site.weights.move * 100 * _SHARE)
    base = sum(_ages(ground, room, move) for room in range(len(ground.rooms)))
    now = ground.price[ground.stays :].copy()
    empty, most = int(ground.usable.sum()), MUST
    worth = np.zeros(len(ground.needs))
    for n in range(ground.stays):
        row, own = ground.price[n], ground.own[n]
        others = np.delete(row, own) if own != NOWHERE else row
        away = min(int(others.min(initial=CLOSED)), ground.out[n]) - (move if own != NOWHERE else 0)
        stay = int(row[own]) if own != NOWHERE and row[own] < CLOSED else away
        worth[n] = min(stay, away)
        if row.min(initial=CLOSED) < CLOSED:
            empty -= 1
            most = min(most, ground.out[n] - int(worth[n]))
        elif own != NOWHERE and ground.usable[own] and len(ground.lying[own]) == 1:
            empty -= 1  # who has no lawful bed takes none, but the one he lies in
        if own != NOWHERE and ground.usable[own]:
            now[:, own] += max(0, away - stay)
    base += int(worth.sum())
    if not ground.requests:
        return base, worth
    out = np.array(ground.out[ground.stays :], dtype=np.int64)
    apart = np.full((len(out), len(out)), CLOSED, dtype=np.int64)
    np.fill_diagonal(apart, out)
    whole = np.hstack([np.minimum(now, CLOSED), _later(ground), apart])
    least, price = _best(whole, now.shape[1], max(empty, 0), out, max(most, 0))
    whole[:, : now.shape[1]] += price
    rows, beds = _duals(whole)
    for n in range(ground.stays):
        worth[n] += price - (beds[ground.own[n]] if ground.own[n] != NOWHERE else 0.0)
    worth[ground.stays :] = rows
    return base + least, worth


def _best(whole: Costs, now: int, empty: int, out: Costs, most: int) -> tuple[int, int]:
    """(the largest over multipliers, its multiplier), by bisection on how many come in now. `most`: of a multiplier,
    above which it would pay to leave somebody without a bed who lies."""
    ranked = np.sort(out[out < MUST])[::-1]  # a bed is worth about what the last to get one would cost without
    low, high = 0, 2 * int(ranked[min(now and empty, len(ranked) - 1)]) if len(ranked) else most
    high = min(high, most)
    best, chosen = 0, 0
    for step in range(_ROUNDS):
        price = 0 if step == 0 else (low + high) // 2
        priced = whole.copy()
        priced[:, :now] += price
        rows, columns = linear_sum_assignment(priced)
        if (cost := int(priced[rows, columns].sum()) - price * empty) > best:
            best, chosen = cost, price
        come = int((columns < now).sum())
        if come > empty:
            low = price
        elif step == 0:
            break  # all who may come in find a bed: nothing to price
        else:
            high = price
    return best, chosen


def _duals(costs: Costs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(of rows, of columns): shortest paths over the assignment (Bellman and Ford); free columns cost none."""
    rows, columns = linear_sum_assignment(costs)
    matched = columns[np.argsort(rows)]
    of_column = np.zeros(costs.shape[1])
    own = costs[np.arange(len(matched)), matched]
    for _ in range(len(matched) + 1):
        of_row = own - of_column[matched]
        less = np.minimum(of_column, (costs - of_row[:, None]).min(axis=0))
        if np.array_equal(less, of_column):
            break
        of_column = less
    return own - of_column[matched], of_column


def _later(ground: Ground) -> Costs:
    """(requests, beds that are promised for later): in the bed of somebody who stays until then."""
    beds = [b for b, there in enumerate(ground.lying) if there and ground.usable[b] and ground.hour[b] <= HORIZON]
    hours = ground.hour[beds]
    costs = ground.price[ground.stays :][:, beds]
    costs = costs + np.rint(ground.rate[ground.stays :, None] * hours * 100).astype(np.int64)
    costs += MUST * (ground.due[ground.stays :, None] < hours)
    return np.asarray(np.minimum(costs, CLOSED))


def _ages(ground: Ground, room: int, move: int) -> int:
    """What the ages of those who lie in a room cost at least, where each who leaves it pays `move`."""
    ages = sorted(
        age for bed in ground.of_room[room] for n in ground.lying[bed] if (age := ground.needs[n].age) is not None
    )
    least = ground.age_price * (ages[-1] - ages[0]) if ages else 0
    for first, last in combinations(range(len(ages)), 2):
        away = len(ages) - (last - first + 1)
        least = min(least, ground.age_price * (ages[last] - ages[first]) + away * move)
    return min(least, max(len(ages) - 1, 0) * move)
