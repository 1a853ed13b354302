"""Kaplan-Meier curves with their intervals, medians, and the log-rank test. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from infra.errors import Inestimable
from streams.quality.cox import Test
from streams.quality.riskset import Cases, Floats, RiskSets, coded


@dataclass(frozen=True, slots=True)
class Median:
    """The time by which half have had the event; None where the curve, or a limit of it, stays above one half."""

    time: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Steps at the times of events: (times,) each. `error` is Greenwood's, of `survival`."""

    time: Floats
    at_risk: Floats
    events: Floats
    survival: Floats
    error: Floats
    low: Floats
    high: Floats
    median: Median
    rows: int


def kaplan_meier(given: Cases, level: float = 0.95) -> Curve:
    """Of all rows, whatever their stratum. With `start`, whoever comes late counts from then on.

    Intervals by log(-log) of Greenwood's variance (Kalbfleisch and Prentice, 2002, 1.4.1): they stay within 0 and 1.
    Where everybody at risk has had the event there is no variance, and no interval: NaN. Median: Brookmeyer and
    Crowley, Biometrics 38, 1982; where the curve lies at one half, the middle of that stretch, as in R.
    Raises Inestimable: `all_censored`.
    """
    sets, at_risk, events = _table(given)
    share = np.minimum(events / at_risk, 1.0)
    share[np.isclose(events, at_risk, rtol=1e-12)] = 1.0
    survival = np.cumprod(1 - share)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(events / (at_risk * (at_risk - events)))
        spread = stats.norm.ppf((1 + level) / 2) * np.sqrt(greenwood) / np.log(survival)
        low, high = survival ** np.exp(-spread), survival ** np.exp(spread)
        error = survival * np.sqrt(greenwood)
    known = survival > 0
    low, high, error = (np.where(known, one, np.nan) for one in (low, high, error))
    median = Median(_half(sets.time, survival), _half(sets.time, low), _half(sets.time, high))
    return Curve(sets.time, at_risk, events, survival, error, low, high, median, len(given))


def _table(given: Cases) -> tuple[RiskSets, Floats, Floats]:
    whole = Cases(
        given.stop, given.event, given.x[:, :0], (), given.start, np.zeros(len(given), np.int64), (None,), given.weight
    )
    sets = RiskSets(whole, "breslow")
    weight = np.ones(len(sets.rows)) if sets.weight is None else sets.weight
    return sets, sets.at_risk(weight), sets.deaths(weight)


def _half(time: Floats, survival: Floats) -> float | None:
    """Where a falling curve first is at or below one half."""
    below = np.flatnonzero(survival <= 0.5 + 1e-12)
    if not len(below):
        return None
    first = int(below[0])
    if abs(survival[first] - 0.5) < 1e-12 and first + 1 < len(time):
        return float(time[first] + time[first + 1]) / 2
    return float(time[first])


def by_group(given: Cases, groups: ArrayLike, level: float = 0.95) -> dict[Any, Curve]:
    """A curve for each label. A group in which nothing has happened has no curve: `all_censored` with its name."""
    codes, labels = coded(groups, "groups", len(given))
    made = {}
    for number, label in enumerate(labels):
        try:
            made[label] = kaplan_meier(given.take(codes == number), level)
        except Inestimable as error:
            raise Inestimable(error.reason, f"group {label}") from error
    return made


@dataclass(frozen=True, slots=True, eq=False)
class LogRank:
    """Whether k groups share one curve. `observed`, `expected` by label, over all strata."""

    test: Test
    observed: Mapping[Any, float]
    expected: Mapping[Any, float]


def log_rank(given: Cases, groups: ArrayLike) -> LogRank:
    """Mantel's test with the hypergeometric variance, summed over the strata of `given`, of k - 1 degrees of freedom.

    Raises Inestimable: `all_censored`, `one_group`, `one_case` (a group of one row, about which nobody can be sure),
    `weighted`, `never_compared` (no group was ever at risk beside another).
    """
    if given.weight is not None:
        raise Inestimable("weighted")
    codes, labels = coded(groups, "groups", len(given))
    if len(labels) < 2:
        raise Inestimable("one_group")
    sizes = np.bincount(codes)
    if sizes.min() < 2:
        raise Inestimable("one_case", f"group {labels[int(sizes.argmin())]}")
    sets = RiskSets(given, "breslow")
    mine = codes[sets.rows]
    member = (mine[:, None] == np.arange(len(labels))).astype(np.float64)
    at_risk, observed = sets.at_risk(member), sets.deaths(member)
    total, died = at_risk.sum(axis=1), observed.sum(axis=1)
    share = at_risk / total[:, None]
    expected = died[:, None] * share
    factor = died * (total - died) / np.maximum(total - 1, 1)
    variance = np.diag(factor @ share) - share.T @ (factor[:, None] * share)
    difference = (observed - expected).sum(axis=0)
    df = int(np.linalg.matrix_rank(variance, tol=1e-9 * max(1.0, float(np.abs(variance).max()))))
    if not df:
        raise Inestimable("never_compared")
    statistic = float(difference @ np.linalg.pinv(variance, rcond=1e-9, hermitian=True) @ difference)
    return LogRank(
        Test.of(statistic, df),
        dict(zip(labels, observed.sum(axis=0).tolist(), strict=True)),
        dict(zip(labels, expected.sum(axis=0).tolist(), strict=True)),
    )
