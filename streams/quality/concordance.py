"""Harrell's concordance: of two patients, did the one with the higher risk die first? Pure, O(n log n)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import Inestimable
from streams.quality.riskset import Cases, Floats, Ints


@dataclass(frozen=True, slots=True)
class Concordance:
    """Weighted counts of the pairs of which it is known who died first; equal risks count half in `value`."""

    value: float
    concordant: float
    discordant: float
    tied: float


def concordance(given: Cases, risk: Floats) -> Concordance:
    """`risk` (n,), higher is worse. A death is compared with whoever of its stratum was at risk then and did not die.

    Of equal times a death comes before a censoring. Two deaths at the same time are no pair.
    Raises Inestimable: `no_pairs`.
    Source: Harrell, Lee and Mark, Statistics in Medicine 15, 1996; ties as in R's `concordance`.
    """
    _, ranks = np.unique(risk, return_inverse=True)
    order = np.argsort(given.stratum, kind="stable")
    found = np.zeros(3)
    for rows in np.split(order, np.flatnonzero(np.diff(given.stratum[order])) + 1):
        found += _counts(given.take(rows), ranks[rows])
    pairs = float(found.sum())
    if not pairs:
        raise Inestimable("no_pairs")
    return Concordance(float(found[0] + found[2] / 2) / pairs, float(found[0]), float(found[1]), float(found[2]))


def _counts(given: Cases, ranks: NDArray[Any]) -> Floats:
    """Concordant, discordant and tied pairs of one stratum."""
    died = np.flatnonzero(given.event)
    weight = np.ones(len(given)) if given.weight is None else given.weight
    # whoever stays beyond a death: those who leave later or are censored then, without those who come later
    staying = _pairs(died, given.stop, np.where(given.event, 0, 1), np.arange(len(given)), given, ranks, weight)
    if given.start is not None:
        late = np.arange(len(given))
        staying -= _pairs(died, given.start, np.zeros(len(given), np.int64) + 1, late, given, ranks, weight)
    return staying


def _pairs(
    died: Ints, times: Floats, censored: NDArray[Any], rows: Ints, given: Cases, ranks: NDArray[Any], weight: Floats
) -> Floats:
    """Over deaths, weights of `rows` whose (time, censored) is after (stop, 0), of lower, higher and equal rank."""
    at = np.concatenate((times[rows], given.stop[died]))
    # in descending order a death must come before those who die with it, so that they are no pairs
    kind = np.concatenate((np.where(censored[rows] == 1, 0, 2), np.ones(len(died), np.int64)))
    rank = np.concatenate((ranks[rows], ranks[died]))
    point = np.concatenate((weight[rows], np.zeros(len(died))))
    order = np.lexsort((kind, -at))
    rank, point, ask = rank[order], point[order], (np.arange(len(at)) >= len(rows))[order]
    own = np.concatenate((np.zeros(len(rows)), weight[died]))[order]
    below, equal, before = before_below(rank, point)
    above = before - below - equal
    return np.array([own[ask] @ below[ask], own[ask] @ above[ask], own[ask] @ equal[ask]])


def before_below(rank: NDArray[Any], weight: Floats) -> tuple[Floats, Floats, Floats]:
    """For each place of a sequence, the weight before it of lower rank, of equal rank, and of all.

    Halves are merged from the top down: at each level a place in a right half adds what its left half holds.
    """
    length = len(rank)
    before = np.cumsum(weight) - weight
    order = np.argsort(rank, kind="stable")
    sums = np.cumsum(weight[order])
    begins = np.concatenate(([True], np.diff(rank[order]) != 0))
    starts = np.flatnonzero(begins)[np.cumsum(begins) - 1]
    equal = np.empty(length)
    held = np.concatenate(([0.0], sums))
    equal[order] = held[:-1] - held[starts]  # stable: equal ranks are in their own order
    not_above = np.zeros(length)
    bits = max(1, int(length - 1).bit_length())
    for level in range(bits - 1, -1, -1):
        left = (order >> level) & 1 == 0
        block = order >> (level + 1)
        running = np.cumsum(np.where(left, weight[order], 0.0))
        begin = np.concatenate(([True], np.diff(block) != 0))
        base = np.concatenate(([0.0], running))[np.flatnonzero(begin)]
        number = np.cumsum(begin) - 1
        right = ~left
        not_above[order[right]] += (running - base[number])[right]
        # stable partition of each block into its halves
        size = np.cumsum(left)
        ahead = np.concatenate(([0], size))[np.flatnonzero(begin)]
        start = np.flatnonzero(begin)
        lefts = np.diff(np.concatenate((ahead, [size[-1]])))
        inside = np.arange(length) - start[number]
        rank_left = size - ahead[number]
        place = start[number] + np.where(left, rank_left - 1, lefts[number] + inside - rank_left)
        moved = np.empty_like(order)
        moved[place] = order
        order = moved
    return not_above - equal, equal, before
