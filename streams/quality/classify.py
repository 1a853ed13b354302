"""Classification rules: who has the outcome, in sentences a person can check. Pure.

A pruned decision tree (CART, cost-complexity pruning; Breiman et al. 1984) is grown on one half of the rows, and each
of its leaves becomes a rule. Its figures are those of the other half, which the tree has never seen: on the rows that a
rule was made of, any rule is good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

from infra.errors import Untrainable, UsageError
from streams.quality.rules import adjusted, measures

SEED = 20_171
LEAST_EVENTS = 20  # in either class: ten a half
DEPTH = 4
LEAST_LEAF = 20


@dataclass(frozen=True, slots=True)
class Condition:
    """`low` < field <= `high`; None: no bound."""

    field: str
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None:
            return f"{self.field} <= {self.high:g}"
        if self.high is None:
            return f"{self.field} > {self.low:g}"
        return f"{self.low:g} < {self.field} <= {self.high:g}"


@dataclass(frozen=True, slots=True)
class ClassRule:
    """Of `count` unseen rows under `conditions`, `events` had the outcome: `confidence`, with 95% (Wilson).

    `support` is `count` of all unseen rows; p is Fisher's exact test against the rows outside, q is over the list.
    """

    conditions: tuple[Condition, ...]
    count: int
    events: int
    support: float
    confidence: float
    low: float
    high: float
    lift: float
    leverage: float
    p: float
    q: float

    def __str__(self) -> str:
        said = " and ".join(str(one) for one in self.conditions) or "everybody"
        return f"{said}: {self.events} of {self.count}, {self.confidence:.1%} [{self.low:.1%}, {self.high:.1%}]"


def class_rules(
    rows: ArrayLike,
    outcomes: ArrayLike,
    fields: Sequence[str],
    *,
    depth: int = DEPTH,
    least_leaf: int = LEAST_LEAF,
    seed: int = SEED,
) -> list[ClassRule]:
    """Rules over `rows`, shape (rows, fields), the highest risk first; every row falls under one rule.

    A field of which a row knows nothing is NaN there and goes where the tree sends it: no condition says so. Where the
    fields tell nothing, the answer is one rule of everybody. Raises Untrainable (`one_class`, `too_few_events`),
    UsageError.
    """
    x, y = np.asarray(rows, dtype=np.float64), np.asarray(outcomes, dtype=np.int64)
    if x.ndim != 2 or x.shape != (len(y), len(fields)):
        raise UsageError("one outcome for each row, and one name for each column")
    if len(np.unique(y)) < 2:
        raise Untrainable("one_class", "everybody had the same outcome")
    if min(int(y.sum()), int(len(y) - y.sum())) < LEAST_EVENTS:
        raise Untrainable("too_few_events", f"fewer than {LEAST_EVENTS} rows of one outcome")
    grown = _half(y, seed)
    grower = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=least_leaf, random_state=seed)
    alphas = np.unique(np.append(grower.cost_complexity_pruning_path(x[grown], y[grown]).ccp_alphas.clip(0), 0))
    some = alphas[np.unique(np.linspace(0, len(alphas) - 1, 20).astype(int))]
    search = GridSearchCV(grower, {"ccp_alpha": some}, scoring="neg_log_loss", cv=5).fit(x[grown], y[grown])
    tree, unseen = search.best_estimator_, ~grown
    leaves, truth = tree.apply(x[unseen]), y[unseen]
    ways = _ways(tree.tree_, fields)
    return _told([(way, truth[leaves == leaf]) for leaf, way in ways], len(truth), int(truth.sum()))


def _half(y: np.ndarray, seed: int) -> np.ndarray:
    """Which rows the tree is grown on: half of either class, by chance."""
    chosen, rng = np.zeros(len(y), dtype=bool), np.random.default_rng(seed)
    for value in (0, 1):
        of = rng.permutation(np.flatnonzero(y == value))
        chosen[of[: len(of) // 2]] = True
    return chosen


def _told(groups: Sequence[tuple[tuple[Condition, ...], np.ndarray]], n: int, total: int) -> list[ClassRule]:
    counted = [(way, len(hits), int(hits.sum())) for way, hits in groups if len(hits)]
    chances = [
        float(stats.fisher_exact([[events, count - events], [total - events, n - count - total + events]]).pvalue)
        for _, count, events in counted
    ]
    made = []
    for (way, count, events), p, q in zip(counted, chances, adjusted(chances), strict=True):
        within = stats.binomtest(events, count).proportion_ci(0.95, method="wilson")
        _, sure, lift, leverage = measures(events, count, total, n)
        low, high = float(within.low), float(within.high)
        made.append(ClassRule(way, count, events, count / n, sure, low, high, lift, leverage, p, q))
    return sorted(made, key=lambda one: -one.confidence)


def _ways(tree: object, fields: Sequence[str]) -> list[tuple[int, tuple[Condition, ...]]]:
    """Each leaf with the conditions on its way, one a field: of `age > 50` and `age > 60` the second says all."""
    left, right = tree.children_left, tree.children_right  # type: ignore[attr-defined]
    feature, threshold = tree.feature, tree.threshold  # type: ignore[attr-defined]
    found: list[tuple[int, tuple[Condition, ...]]] = []
    waiting: list[tuple[int, dict[str, tuple[float | None, float | None]]]] = [(0, {})]
    while waiting:
        node, bounds = waiting.pop()
        if left[node] == right[node]:
            found.append((node, tuple(Condition(name, *bound) for name, bound in bounds.items())))
            continue
        name, at = fields[feature[node]], float(threshold[node])
        low, high = bounds.get(name, (None, None))
        waiting.append((int(left[node]), {**bounds, name: (low, at)}))
        waiting.append((int(right[node]), {**bounds, name: (at, high)}))
    return found
