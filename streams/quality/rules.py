"""Association rules of what stands together in one stay, and which of them came or went between two windows. Pure.

Item sets are found by FP-growth (Han, Pei and Yin, SIGMOD 2000). A rule A -> B of n transactions, of which a have A, b
have B and k have both, has

    support = k/n,    confidence = k/a,    lift = (k/n) / (a/n b/n),    leverage = k/n - a/n b/n

and p, the chance of k or more if A and B had nothing to do with each other (Fisher's exact test, one-sided: the
hypergeometric distribution). q is p adjusted by Benjamini and Hochberg (1995) over every rule that was tried, not over
those alone that were confident enough to be told: thousands are tried.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from infra.errors import UsageError

Items = frozenset[str]
A = TypeVar("A")
B = TypeVar("B")

MOST_SETS = 100_000  # or rules: a support too low for its data would fill the memory
LONGEST = 5  # items of one set: nobody reads a longer rule


@dataclass(frozen=True, slots=True)
class Rule(Generic[A, B]):
    """`count` transactions, or sequences, of `of` have `antecedent` and `consequent` both."""

    antecedent: A
    consequent: B
    count: int
    of: int
    support: float
    confidence: float
    lift: float
    leverage: float
    p: float
    q: float


@dataclass(frozen=True, slots=True)
class Change:
    """A rule in two windows. `before`, `after`: None where it was not a rule there: too rare, or not confident enough.

    `counts`: (both, antecedent, transactions) of each window, whether it was a rule or not.
    """

    antecedent: Items
    consequent: Items
    before: Rule[Items, Items] | None
    after: Rule[Items, Items] | None
    counts: tuple[tuple[int, int, int], tuple[int, int, int]]
    p: float
    q: float

    @property
    def kind(self) -> str:
        if self.before is None:
            return "appeared"
        return "vanished" if self.after is None else "stayed"


class _Node:
    """A place in an FP-tree: an item, how many transactions go through it, and the way up."""

    __slots__ = ("below", "count", "item", "up")

    def __init__(self, item: str, up: _Node | None) -> None:
        self.item, self.up, self.count = item, up, 0
        self.below: dict[str, _Node] = {}


def item_sets(transactions: Iterable[Collection[str]], support: float, longest: int = LONGEST) -> dict[Items, int]:
    """Every set of up to `longest` items that stands in a share of `support` of the transactions, with its count.

    Raises UsageError for a support that is none, and for one that leaves more than MOST_SETS.
    """
    held = [frozenset(one) for one in transactions]
    least = least_count(support, len(held))
    found: dict[Items, int] = {}
    for items, count in _grow([(tuple(one), 1) for one in held], least, frozenset(), longest):
        found[items] = count
        if len(found) > MOST_SETS:
            raise UsageError("too many item sets: ask for a higher support")
    return found


def rules(
    transactions: Iterable[Collection[str]],
    *,
    support: float,
    confidence: float = 0.0,
    lift: float = 0.0,
    longest: int = LONGEST,
) -> list[Rule[Items, Items]]:
    """Rules that are frequent and confident enough, those most surely not by chance first. Raises UsageError."""
    held = [frozenset(one) for one in transactions]
    counts = item_sets(held, support, longest)
    tried = [
        (antecedent, items - antecedent, count)
        for items, count in counts.items()
        for antecedent in _parts(items)
    ]  # fmt: skip
    _few_enough(len(tried))
    n = len(held)
    made = told([(a, b, (count, counts[a], counts[b], n)) for a, b, count in tried])
    kept = (one for one in made if one.confidence >= confidence - 1e-12 and one.lift >= lift - 1e-12)
    return sorted(kept, key=lambda one: (one.q, one.p, -one.lift, sorted(one.antecedent), sorted(one.consequent)))


class Measures(NamedTuple):
    support: float
    confidence: float
    lift: float
    leverage: float


def measures(both: int, first: int, second: int, n: int) -> Measures:
    """Of `n`, with antecedent and consequent, with the antecedent, with the consequent."""
    share, expected = both / n, first / n * second / n
    return Measures(share, both / first, share / expected, share - expected)


def told(tried: Sequence[tuple[A, B, tuple[int, int, int, int]]]) -> list[Rule[A, B]]:
    """Rules by antecedent, consequent and the four counts of `measures`; q is over all of them."""
    chances = by_chance([counts for _, _, counts in tried])
    return [
        Rule(a, b, counts[0], counts[3], *measures(*counts), p, q)
        for (a, b, counts), p, q in zip(tried, chances, adjusted(chances), strict=True)
    ]


def changes(
    before: Sequence[Collection[str]],
    after: Sequence[Collection[str]],
    *,
    support: float,
    confidence: float,
    longest: int = LONGEST,
) -> list[Change]:
    """Rules of either window: which appeared, vanished or stayed, the surest change first. Raises UsageError.

    Fisher's exact test, two-sided, once on how many transactions have both and once on how many of those with the
    antecedent have the consequent; p is twice the smaller. q is over every rule of a set that is frequent in either
    window: a rule that only just missed its threshold in one of them has changed its name, not its share.
    """
    windows = [[frozenset(one) for one in window] for window in (before, after)]
    frequent = [item_sets(window, support, longest) for window in windows]
    held = []
    for window in windows:
        found = rules(window, support=support, confidence=confidence, longest=longest)
        held.append({(one.antecedent, one.consequent): one for one in found})
    tried = sorted(
        {(part, items - part) for sets in frequent for items in sets for part in _parts(items)},
        key=lambda one: (sorted(one[0]), sorted(one[1])),
    )
    _few_enough(len(tried))
    seen = [_counter(window, sets) for window, sets in zip(windows, frequent, strict=True)]
    counts = [
        tuple((count(a | b), count(a), len(window)) for count, window in zip(seen, windows, strict=True))
        for a, b in tried
    ]
    table = np.array(counts, dtype=np.int64).reshape(-1, 2, 3)
    chances = [float(p) for p in _changed(table[:, 0], table[:, 1])]
    made = [
        Change(*pair, held[0].get(pair), held[1].get(pair), (both[0], both[1]), p, q)
        for pair, both, p, q in zip(tried, counts, chances, adjusted(chances), strict=True)
        if pair in held[0] or pair in held[1]
    ]
    return sorted(made, key=lambda one: (one.q, one.p))


def by_chance(counts: Sequence[tuple[int, int, int, int]]) -> list[float]:
    """The chance of at least as many with both, for each (both, first, second, all)."""
    if not counts:
        return []
    both, first, second, n = np.array(counts).T
    return [float(p) for p in np.minimum(1.0, stats.hypergeom.sf(both - 1, n, first, second))]


def adjusted(chances: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg (1995): the least rate of false discoveries at which each would be one."""
    return [float(q) for q in stats.false_discovery_control(list(chances))] if chances else []


def least_count(support: float, transactions: int) -> int:
    """How many transactions a share is. Raises UsageError."""
    if not 0 < support <= 1:
        raise UsageError("a support is a share above 0")
    return max(1, math.ceil(support * transactions - 1e-9))


def _few_enough(tried: int) -> None:
    if tried > MOST_SETS:
        raise UsageError("too many rules to try: ask for a higher support, or for shorter rules")


def _parts(items: Items) -> Iterator[Items]:
    """Every antecedent that a rule of these items can have."""
    ordered = sorted(items)
    for size in range(1, len(ordered)):
        yield from (frozenset(some) for some in combinations(ordered, size))


def _grow(
    ways: Sequence[tuple[Sequence[str], int]], least: int, suffix: Items, longest: int
) -> Iterator[tuple[Items, int]]:
    """FP-growth: a tree of the frequent items, then for each the tree of what stands above it."""
    totals: Counter[str] = Counter()
    for items, count in ways:
        for item in items:
            totals[item] += count
    order = {item: (-count, item) for item, count in totals.items() if count >= least}
    root, places = _Node("", None), dict[str, list[_Node]]()
    for items, count in ways:
        node = root
        for item in sorted((one for one in items if one in order), key=order.__getitem__):
            if item not in node.below:
                node.below[item] = _Node(item, node)
                places.setdefault(item, []).append(node.below[item])
            node = node.below[item]
            node.count += count
    for item in sorted(order, key=order.__getitem__, reverse=True):
        made = suffix | {item}
        yield made, totals[item]
        if len(made) < longest:
            above = [(_above(node), node.count) for node in places[item]]
            yield from _grow(above, least, made, longest)


def _above(node: _Node) -> list[str]:
    way, here = [], node.up
    while here is not None and here.up is not None:
        way.append(here.item)
        here = here.up
    return way


def _counter(window: Sequence[Items], known: Mapping[Items, int]) -> Callable[[Items], int]:
    """How many transactions have a set: known if it is frequent there, else counted once."""
    counted = dict(known)
    having: dict[str, set[int]] = {}
    for place, one in enumerate(window):
        for item in one:
            having.setdefault(item, set()).add(place)

    def count(items: Items) -> int:
        if items not in counted:
            counted[items] = len(set.intersection(*(having.get(item, set()) for item in items)))
        return counted[items]

    return count


def _changed(before: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.float64]:
    """p of each rule; both have a row a rule: (both, antecedent, transactions)."""
    shares = _two_sided(before[:, 0], before[:, 2], after[:, 0], after[:, 2])
    confidences = _two_sided(before[:, 0], before[:, 1], after[:, 0], after[:, 1])
    return np.asarray(np.minimum(1.0, 2 * np.minimum(shares, confidences)))


def _two_sided(
    hits: NDArray[np.int64], n: NDArray[np.int64], hits_now: NDArray[np.int64], n_now: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Fisher's exact test, two-sided as twice the smaller tail; 1 where one of the two has nobody."""
    total, every = hits + hits_now, n + n_now
    fewer = stats.hypergeom.cdf(hits, every, total, n)
    more = stats.hypergeom.sf(hits - 1, every, total, n)
    return np.asarray(np.where((n > 0) & (n_now > 0), np.minimum(1.0, 2 * np.minimum(fewer, more)), 1.0))
