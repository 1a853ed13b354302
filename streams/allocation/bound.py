"""A bound within milliseconds: what the site costs at least, whatever is planned.

A relaxation of the problem to one least-cost assignment: everybody to a bed, where a bed in which somebody lies is two
(now, and from the hour he leaves), without what those in one room do to each other. What a room's ages cost while all
stay in it is kept, against a share of the price of moving away: of a room, either all stay and it is paid, or somebody
moves and pays his share (a Lagrangian split; any share is valid, the best of a few is taken).
"""

from __future__ import annotations

from itertools import combinations
from math import isinf

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from streams.allocation.ground import CLOSED, NOWHERE, Ground

_SHARES = (0.5, 0.9)


def relaxed(ground: Ground) -> int:
    """Hundredths that no placing costs less than."""
    if not ground.needs:
        return 0
    return max(_relaxed(ground, share) for share in _SHARES)


def _relaxed(ground: Ground, share: float) -> int:
    price = ground.price.copy()
    move = int(ground.site.weights.move * 100 * share)
    rooms = 0
    for room in range(len(ground.rooms)):
        rooms += _ages(ground, room, move)
    for n in range(ground.stays):
        open_ = price[n] < CLOSED
        if ground.own[n] != NOWHERE:
            open_[ground.own[n]] = False
        price[n, open_] -= move
    later = _later(ground)
    size = len(ground.needs)
    out = np.full((size, size), CLOSED, dtype=np.int64)
    costs_out = np.array(ground.out)
    costs_out[: ground.stays] -= move  # who has no lawful place counts in no room either
    np.fill_diagonal(out, costs_out)
    whole = np.hstack([price, later, out])
    rows, columns = linear_sum_assignment(whole)
    return int(whole[rows, columns].sum()) + rooms


def _later(ground: Ground) -> NDArray[np.int64]:
    """(needs, beds that are promised for later): of a request in the bed of somebody who stays until then."""
    beds = [b for b, lying in enumerate(ground.lying) if lying and ground.usable[b] and not isinf(ground.hour[b])]
    costs = np.full((len(ground.needs), len(beds)), CLOSED, dtype=np.int64)
    for n in range(ground.stays, len(ground.needs)):
        for column, bed in enumerate(beds):
            if ground.price[n, bed] < CLOSED:
                costs[n, column] = ground.price[n, bed] + ground.waits(n, float(ground.hour[bed]))
    return costs


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
