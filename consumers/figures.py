"""The figures of a cohort and of two: what they are is published, and each function names where. Pure.

Arrays are one-dimensional float64 without NaN. Where values of one patient would count more than once, `one_a_person`
comes first: tests here take their values for independent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]
LEVELS = {"p5": 0.05, "q1": 0.25, "median": 0.5, "q3": 0.75, "p95": 0.95}
MOST_BINS = 40  # what a terminal holds; one outlier would make millions of the rule's width
MOST_CATEGORIES = 50
SEED = 20260301  # of the Monte Carlo test, so that a question asked twice has one answer
_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Numbers:
    """Of n values; `sd` has n - 1 below (None for one value); quantiles by level."""

    n: int
    mean: float
    sd: float | None
    minimum: float
    maximum: float
    quantiles: dict[str, float]


def numbers(values: Values) -> Numbers:
    """Of one value at least. Quantiles interpolate as R's type 7 does (Hyndman and Fan 1996, doi:10.2307/2684934)."""
    found = np.quantile(values, list(LEVELS.values()))
    return Numbers(
        len(values),
        float(values.mean()),
        float(values.std(ddof=1)) if len(values) > 1 else None,
        float(values.min()),
        float(values.max()),
        dict(zip(LEVELS, map(float, found), strict=True)),
    )


def quantile_over(values: Values, share: float, persons: int) -> float | None:
    """A quantile that is nobody's own value: the mean of an odd number of order statistics about its place.

    The kernel quantile estimator with a uniform kernel (Sheather and Marron 1990, doi:10.2307/2289777), interpolated
    as type 7. None where there are fewer than `persons` values on either side.
    """
    if min(share, 1 - share) * len(values) < persons:
        return None
    order, place, beside = np.sort(values), (len(values) - 1) * share, persons // 2
    low = order[floor(place) - beside : floor(place) + beside + 1].mean()
    high = order[ceil(place) - beside : ceil(place) + beside + 1].mean()
    return float(low + (high - low) * (place - floor(place)))


def edges(values: Values) -> Values:
    """Edges of equal bins, one more than bins, of the width 2 IQR / n^(1/3) (Freedman and Diaconis 1981).

    Where half of the values are one, and the rule has no width, as many bins as Sturges (1926) gives.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low - 0.5, high + 0.5])
    q1, q3 = np.quantile(values, [0.25, 0.75])
    width = 2 * (q3 - q1) / len(values) ** (1 / 3)
    wanted = (high - low) / width if width > 0 else np.log2(len(values)) + 1
    return np.linspace(low, high, min(MOST_BINS, ceil(wanted)) + 1)


def counts(values: Values, at: Values) -> NDArray[np.int64]:
    return np.histogram(values, at)[0]


def sparkline(values: Sequence[float | None]) -> str:
    """One block a value, from the least to the greatest; a space where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    step = (high - low) / (len(_BLOCKS) - 1) or 1.0
    return "".join(" " if value is None else _BLOCKS[round((value - low) / step)] for value in values)


def significant(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits}g}")


# ------------------------------------------------------------------------------------------------- one value a patient


def medians(values: Values, persons: NDArray[np.int64]) -> tuple[Values, NDArray[np.int64]]:
    """The median of each person's values, and whose it is. Documents of no patient (-1) are left out."""
    kept = persons >= 0
    values, persons = values[kept], persons[kept]
    order = np.lexsort((values, persons))
    values, persons = values[order], persons[order]
    whose, first, count = np.unique(persons, return_index=True, return_counts=True)
    if not len(whose):
        return values, whose
    return (values[first + (count - 1) // 2] + values[first + count // 2]) / 2, whose


def modes(pairs: Iterable[tuple[int, str]]) -> dict[int, str]:
    """The value that each person has most often; of several the first in order."""
    seen: dict[int, Counter[str]] = defaultdict(Counter)
    for person, value in pairs:
        if person >= 0:
            seen[person][value] += 1
    return {person: min(found, key=lambda value: (-found[value], value)) for person, found in seen.items()}


# -------------------------------------------------------------------------------------------------------- two cohorts


@dataclass(frozen=True, slots=True)
class Compared:
    """One test. `effect` by its own name, with a 95% interval where there is one; the rest is beside."""

    test: str
    p: float
    effect: str
    size: float
    interval: tuple[float, float] | None
    beside: Mapping[str, Any]


def shift(a: Values, b: Values) -> tuple[float, float, float]:
    """How much higher a lies than b, by Hodges and Lehmann (the median of all differences), and a 95% interval.

    The interval is Moses' (Hollander and Wolfe, Nonparametric Statistical Methods, 4.3), by the large-sample
    approximation. Of n x m differences only the few that are asked for are looked for, by bisection.
    """
    a, b = np.sort(a), np.sort(b)
    pairs = len(a) * len(b)
    spread = float(stats.norm.ppf(0.975)) * sqrt(pairs * (len(a) + len(b) + 1) / 12)
    outer = min(max(round(pairs / 2 - spread), 1), (pairs + 1) // 2)
    middle = (_difference(a, b, (pairs + 1) // 2) + _difference(a, b, pairs // 2 + 1)) / 2
    return middle, _difference(a, b, outer), _difference(a, b, pairs + 1 - outer)


def _difference(a: Values, b: Values, k: int) -> float:
    """The k-th smallest of all a[i] - b[j], counted from 1; both are sorted."""
    low, high = float(a[0] - b[-1]), float(a[-1] - b[0])
    if _up_to(a, b, low) >= k:
        return low
    for _ in range(80):  # halves the span to below what a float tells
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if _up_to(a, b, middle) >= k else (middle, high)
    # the difference itself, which bisection came near to: the largest that is not above the bound
    at = np.searchsorted(b, a - high, "left")
    near = np.concatenate([a[at < len(b)] - b[at[at < len(b)]], a[at > 0] - b[at[at > 0] - 1]])
    return float(near[np.argmin(np.abs(near - high))])


def _up_to(a: Values, b: Values, bound: float) -> int:
    """How many pairs have a[i] - b[j] <= bound, told by b[j] >= a[i] - bound."""
    return int(len(a) * len(b) - np.searchsorted(b, a - bound, "left").sum())


def compare_numbers(a: Values, b: Values) -> Compared:
    """Two samples of two values at least, a against b.

    Mann and Whitney's U (1947) with Cliff's delta (1993), which is the rank-biserial correlation: how much oftener a
    value of a is above one of b than below. Beside it the shift of location, and the difference of means with Welch's
    test (1947) and Hedges' g (1981, with the correction 1 - 3 / (4 df - 1)).
    """
    found = stats.mannwhitneyu(a, b, alternative="two-sided")
    delta = 2 * float(found.statistic) / (len(a) * len(b)) - 1
    middle, low, high = shift(a, b)
    beside: dict[str, Any] = {
        "hodges_lehmann": middle,
        "hodges_lehmann_interval": (low, high),
        "difference_of_means": float(a.mean() - b.mean()),
    }
    freedom = len(a) + len(b) - 2
    pooled = sqrt(((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / freedom)
    if pooled > 0:
        welch = stats.ttest_ind(a, b, equal_var=False)
        sure = welch.confidence_interval(0.95)
        beside |= {
            "difference_of_means_interval": (float(sure.low), float(sure.high)),
            "welch_t": float(welch.statistic),
            "welch_p": float(welch.pvalue),
            "hedges_g": float(a.mean() - b.mean()) / pooled * (1 - 3 / (4 * freedom - 1)),
        }
    p = float(found.pvalue)
    return Compared("Mann-Whitney U", p if isfinite(p) else 1.0, "Cliff's delta", delta, None, beside)


def compare_categories(a: Mapping[str, int], b: Mapping[str, int]) -> Compared | None:
    """How many of each category in a and in b. None where there is but one category, or more than 50.

    Chi-square without correction where the table allows it (Cochran 1954: no expected count below 1, and four fifths
    of them 5 or more), else Fisher's exact test: of two categories exact, with the odds ratio; of more by Monte Carlo.
    """
    names = sorted({*a, *b}, key=str)
    table = np.array([[a.get(name, 0) for name in names], [b.get(name, 0) for name in names]])
    if not 2 <= len(names) <= MOST_CATEGORIES or not table.sum(axis=1).all():
        return None
    found = stats.chi2_contingency(table, correction=False)
    expected = found.expected_freq
    v = sqrt(float(found.statistic) / table.sum())  # Cramer's V: two rows make the smaller side 1
    sound = expected.min() >= 1 and (expected >= 5).mean() >= 0.8
    test, p = "chi-square", float(found.pvalue)
    if not sound and len(names) == 2:
        test, p = "Fisher exact", float(stats.fisher_exact(table).pvalue)
    elif not sound:
        method = stats.MonteCarloMethod(n_resamples=9999, rng=np.random.default_rng(SEED))
        test, p = "Fisher exact, Monte Carlo", float(stats.fisher_exact(table, method=method).pvalue)
    if len(names) > 2:
        return Compared(test, p, "Cramer's V", v, None, {})
    ratio = stats.contingency.odds_ratio(table, kind="sample" if sound else "conditional")
    low, high = ratio.confidence_interval(0.95)
    return Compared(test, p, "odds ratio", float(ratio.statistic), (float(low), float(high)), {"cramers_v": v})


def compare_shares(a: int, of_a: int, b: int, of_b: int) -> Compared | None:
    """The share that has something, in a and in b, as a risk ratio (Katz 1978). None where all or none have it."""
    if not of_a or not of_b or a + b in (0, of_a + of_b):
        return None
    found = compare_categories({"with": a, "without": of_a - a}, {"with": b, "without": of_b - b})
    assert found is not None
    ratio = stats.contingency.relative_risk(a, of_a, b, of_b)
    interval = ratio.confidence_interval(0.95) if a and b else None
    bounds = (float(interval.low), float(interval.high)) if interval is not None else None
    size = float(ratio.relative_risk) if b else float("inf")
    return Compared(found.test, found.p, "risk ratio", size, bounds, {})
