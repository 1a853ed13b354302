"""How full a unit or a site will be in the next hours, with intervals, judged against the seasonal naive. Pure.

A series is a census at every full hour, UTC; an hour of which nobody knows anything is NaN. Each horizon h has a linear
model of its own (the direct method: Ben Taieb et al., Expert Systems with Applications 39, 2012). It speaks of
deviations d(t) = y(t) - u(t) from what is usual at that hour of the week:

    d(t+h)  =  a  +  b1 d(t)  +  b2 d(day)  +  b3 d(week)  +  b4 mean of d over 24 h  +  b5 over 168 h

d(day) and d(week): the newest deviation a whole number of days, of weeks, before t+h. Intervals are quantiles of the
residuals of hours later than what was fitted (split conformal: Lei et al., JASA 113, 2018): no distribution is assumed.

The yardstick is MASE (Hyndman and Koehler, International Journal of Forecasting 22, 2006): the mean absolute error over
that which the seasonal naive has in training. Its season is 24 or 168 hours, whichever does better there.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from infra.errors import Untrainable

Floats = NDArray[np.float64]

HORIZONS = (1, 4, 24, 72)
LEVELS = (0.8, 0.95)
DAY, WEEK = 24, 168
SEASONS = (DAY, WEEK)
LEAST_HOURS = 14 * DAY  # of a history that says anything of a week
CUTS = (0.4, 0.55, 0.7, 0.85)  # of the history: fitted up to each, residuals are those of the hours until the next
RIDGE = 1.0
SHRINK = 2.0  # weeks: an hour of the week is worth that of the day until there are as many of it
JUDGED_DAYS = 28
STEP = 6  # hours between the origins that are judged
REFIT = WEEK
RESAMPLES = 400
SEED = 20_171
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Placed:
    """Somebody in a unit for some time; `until` None: still there."""

    unit: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Series:
    """`values[i]`: how many were there at `start` + i hours; NaN where that is not known."""

    start: datetime  # a full hour, UTC
    values: Floats


@dataclass(frozen=True, slots=True)
class Interval:
    level: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """What is expected `hours` after the last known hour."""

    hours: int
    at: datetime
    expected: float
    intervals: tuple[Interval, ...]

    def chance_above(self, limit: float) -> float:
        """Roughly how likely it is that there will be more than `limit`: the normal distribution whose 80% are ours."""
        low, high = next((one.low, one.high) for one in self.intervals if one.level == LEVELS[0])
        spread = max((high - low) / (2 * 1.2815515655446004), 1e-9)  # the 90th percentile of the standard normal
        return 0.5 * math.erfc((limit + 0.5 - (low + high) / 2) / (spread * math.sqrt(2)))  # counts: half a bed up


@dataclass(frozen=True, slots=True)
class Judged:
    """One horizon on origins later than what was fitted. `gain`: MASE of the naive less ours, with 95%; above 0 is
    better. `coverage` and `width`: by level, the share of hours within the interval, and its mean width in patients."""

    hours: int
    origins: int
    mae: float
    mase: float
    naive: Mapping[int, float]  # MASE by season
    season: int  # of the better naive, with which `gain` compares
    gain: tuple[float, float, float]
    coverage: Mapping[float, float]
    width: Mapping[float, float]

    @property
    def beats(self) -> bool:
        return self.gain[1] > 0


@dataclass(frozen=True, slots=True)
class _Case:
    """One origin: errors, and by level whether what came lay within, and how wide that was."""

    origin: int
    error: float
    naive: Mapping[int, float]  # by season
    within: Mapping[float, bool]
    width: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model of one series. `usual`: 168 hours of the week from Monday 00:00 UTC; by horizon: weights, and residuals'
    quantiles by level."""

    usual: Floats
    weights: Mapping[int, Floats]
    errors: Mapping[int, Mapping[float, tuple[float, float]]]


# --------------------------------------------------------------------------------------------------------------- series


def occupancy(
    placed: Iterable[Placed], first: datetime, last: datetime, silent: Iterable[tuple[datetime, datetime]] = ()
) -> dict[str, Series]:
    """Census of each unit at every full hour from `first` to `last`, and of all of them under "".

    Whoever leaves before coming, by a clock that jumped, is not counted; hours within `silent` are NaN.
    """
    start = _ceil(first)
    hours = max(0, int((last - start) // _HOUR) + 1)
    changes: dict[str, Floats] = defaultdict(lambda: np.zeros(hours + 1))
    changes[""] = np.zeros(hours + 1)
    for one in placed:
        begun = min(hours, max(0, _hours(one.since, start)))
        ended = hours if one.until is None else min(hours, max(0, _hours(one.until, start)))
        if one.until is not None and one.until <= one.since:
            continue
        for unit in {one.unit, ""}:
            changes[unit][begun] += 1
            changes[unit][ended] -= 1
    unknown = np.zeros(hours, bool)
    for since, until in silent:
        unknown[min(hours, max(0, _hours(since, start))) : min(hours, max(0, _hours(until, start)))] = True
    made = {}
    for unit, change in changes.items():
        values = np.cumsum(change[:-1])
        values[unknown] = np.nan
        made[unit] = Series(start, values)
    return made


def silences(
    times: Sequence[datetime], least: timedelta = timedelta(hours=6), times_usual: float = 4.0
) -> list[tuple[datetime, datetime]]:
    """Spans without any event of a site that are much longer than its longest usual ones: a feed that was away.

    Much: `times_usual` times the 99th percentile of the site's own pauses, and `least` at least, so that a small
    house's quiet night is none.
    """
    told = np.array(sorted(one.timestamp() for one in times))
    pauses = np.diff(told)
    if not len(pauses):
        return []
    limit = max(least.total_seconds(), times_usual * float(np.quantile(pauses, 0.99)))
    return [
        (datetime.fromtimestamp(told[at], UTC), datetime.fromtimestamp(told[at + 1], UTC))
        for at in np.flatnonzero(pauses > limit)
    ]


# ------------------------------------------------------------------------------------------------------------------ fit


def fit(series: Series, horizons: Sequence[int] = HORIZONS) -> Fitted:
    """Raises Untrainable (`too_little_history`) for less than two weeks of known hours."""
    known = int(np.isfinite(series.values).sum())
    if known < LEAST_HOURS:
        raise Untrainable("too_little_history", f"{known} hours are known, and a forecast wants {LEAST_HOURS}")
    values, n = series.values, len(series.values)
    week = _hours_of_week(series.start, n)
    missed: dict[int, list[Floats]] = {h: [] for h in horizons}
    cuts = [int(n * part) for part in CUTS]
    for cut, end in zip(cuts, [*cuts[1:], n], strict=True):
        early = _regressed(values[:cut], week, horizons)
        for h in horizons:
            last = min(end, n - h)  # of the origins whose hour has come
            expected = _predicted(values[:end], week, early, h, cut)[: max(0, last - cut)]
            missed[h].append(values[cut + h : last + h] - expected if last > cut else np.empty(0))
    usual, weights = _regressed(values, week, horizons)
    errors = {h: _errors(np.concatenate(residuals)) for h, residuals in missed.items()}
    return Fitted(usual, weights, errors)


def _regressed(values: Floats, week: NDArray[np.int64], horizons: Sequence[int]) -> tuple[Floats, dict[int, Floats]]:
    usual = _usual(values, week[: len(values)])
    return usual, {h: _weights(values, week, usual, h) for h in horizons}


def _usual(values: Floats, week: NDArray[np.int64]) -> Floats:
    """The mean of each hour of the week, drawn towards that of the hour of the day while there are few weeks of it."""
    known = np.isfinite(values)
    counts = np.bincount(week[known], minlength=WEEK)
    sums = np.bincount(week[known], weights=values[known], minlength=WEEK)
    by_day, day_counts = sums.reshape(7, DAY).sum(0), counts.reshape(7, DAY).sum(0)
    overall = sums.sum() / max(1, counts.sum())
    daily = np.where(day_counts > 0, by_day / np.maximum(day_counts, 1), overall)
    return np.asarray((sums + SHRINK * np.tile(daily, 7)) / (counts + SHRINK))


def _weights(values: Floats, week: NDArray[np.int64], usual: Floats, h: int) -> Floats:
    x = _signs(values - usual[week[: len(values)]], h)[: len(values) - h]
    y = (values - usual[week[: len(values)]])[h:]
    known = np.isfinite(y)
    x, y = x[known], y[known]
    penalty = RIDGE * np.eye(x.shape[1])
    penalty[0, 0] = 1e-9  # never the constant
    return np.asarray(np.linalg.solve(x.T @ x + penalty, x.T @ y))


def _signs(deviations: Floats, h: int) -> Floats:
    """What is known at each origin t, one row each: constant, d(t), d(day), d(week), means. Unknown ones count 0."""
    n = len(deviations)
    known = np.nan_to_num(deviations)
    sums = np.concatenate(([0.0], np.cumsum(known)))
    counts = np.concatenate(([0.0], np.cumsum(np.isfinite(deviations))))
    at = np.arange(n)
    columns = [np.ones(n), known]
    for season in SEASONS:
        back = at + h - season * math.ceil(h / season)
        columns.append(np.where(back >= 0, known[np.maximum(back, 0)], 0.0))
    for span in SEASONS:
        begin = np.maximum(0, at + 1 - span)
        columns.append((sums[at + 1] - sums[begin]) / np.maximum(1, counts[at + 1] - counts[begin]))
    return np.column_stack(columns)


def _predicted(
    values: Floats, week: NDArray[np.int64], model: tuple[Floats, Mapping[int, Floats]], h: int, since: int
) -> Floats:
    """From each origin at or after `since`: what is expected h hours later, never less than nobody."""
    usual, weights = model
    now = week[: len(values)]
    later = (now[since:] + h) % WEEK
    made = usual[later] + _signs(values - usual[now], h)[since:] @ weights[h]
    return np.asarray(np.maximum(0.0, made))


def _errors(residuals: Floats) -> dict[float, tuple[float, float]]:
    known = residuals[np.isfinite(residuals)]
    return {level: _quantiles(known, level) for level in LEVELS}


def _quantiles(residuals: Floats, level: float) -> tuple[float, float]:
    """Between which `level` of the residuals lie, each tail alike, with the correction for few (rank of n + 1)."""
    if not len(residuals):
        return (-math.inf, math.inf)
    n, tail = len(residuals), (1 - level) / 2
    ranked = np.sort(residuals)
    low, high = math.floor((n + 1) * tail) - 1, math.ceil((n + 1) * (1 - tail)) - 1
    return float(ranked[max(0, low)]), float(ranked[min(n - 1, high)])


# ------------------------------------------------------------------------------------------------------------- forecast


def forecast(series: Series, model: Fitted) -> list[Point]:
    """From the last hour of the series that is known, for each horizon of the model."""
    n = 1 + int(np.flatnonzero(np.isfinite(series.values))[-1])
    values, week = series.values[:n], _hours_of_week(series.start, n)
    last = series.start + (n - 1) * _HOUR
    made = []
    for h in sorted(model.weights):
        expected = float(_predicted(values, week, (model.usual, model.weights), h, n - 1)[0])
        intervals = tuple(
            Interval(level, max(0.0, expected + low), max(0.0, expected + high))
            for level, (low, high) in model.errors[h].items()
        )
        made.append(Point(h, last + h * _HOUR, expected, intervals))
    return made


def naive(values: Floats, h: int, season: int) -> Floats:
    """At each origin t, for t + h: what was there a whole number of seasons before; NaN where that is not known."""
    back = np.arange(len(values)) + h - season * math.ceil(h / season)
    return np.where(back >= 0, values[np.maximum(back, 0)], np.nan)


def scale(values: Floats, season: int) -> float:
    """Mean absolute error of the seasonal naive within the series: what MASE divides by. NaN where it has none."""
    errors = np.abs(values[season:] - values[:-season])
    errors = errors[np.isfinite(errors)]
    return float(errors.mean()) if len(errors) else math.nan


def mase(errors: Floats, scaled_by: float) -> float:
    """NaN for a series in which nothing ever changes: no error can be told from another there."""
    return float(np.mean(np.abs(errors))) / scaled_by if scaled_by > 0 and len(errors) else math.nan


def judge(series: Series, horizons: Sequence[int] = HORIZONS) -> list[Judged]:
    """Rolling origin: fitted on what came before, asked every six hours of the last four weeks, fitted anew each week.

    Raises Untrainable where nothing is left to fit on before the hours that are judged.
    """
    values, n = series.values, len(series.values)
    week = _hours_of_week(series.start, n)
    begin = n - min(JUDGED_DAYS * DAY, n // 2)
    scales = {season: scale(values[:begin], season) for season in SEASONS}
    scaled_by = min((one for one in scales.values() if one > 0), default=math.nan)
    cases: dict[int, list[_Case]] = defaultdict(list)
    for since in range(begin, n, REFIT):
        model = fit(Series(series.start, values[:since]), horizons)
        for h in horizons:
            expected = _predicted(values, week, (model.usual, model.weights), h, since)
            naives = {one: naive(values, h, one) for one in SEASONS}
            for origin in range(since, min(since + REFIT, n - h), STEP):
                came, said = values[origin + h], float(expected[origin - since])
                theirs = {one: float(came - naives[one][origin]) for one in SEASONS}
                if not np.isfinite([came, values[origin], *theirs.values()]).all():
                    continue
                spans = {
                    level: (max(0.0, said + low), max(0.0, said + high))
                    for level, (low, high) in model.errors[h].items()
                }
                within = {level: low <= came <= high for level, (low, high) in spans.items()}
                width = {level: high - low for level, (low, high) in spans.items()}
                cases[h].append(_Case(origin, float(came - said), theirs, within, width))
    return [_judged(h, cases[h], scaled_by) for h in horizons if cases[h]]


def _judged(h: int, cases: Sequence[_Case], scaled_by: float) -> Judged:
    ours = np.array([one.error for one in cases])
    theirs = {one: np.array([case.naive[one] for case in cases]) for one in SEASONS}
    days = np.array([one.origin // DAY for one in cases])
    season = min(SEASONS, key=lambda one: float(np.abs(theirs[one]).mean()))  # the harder of the two to beat
    return Judged(
        h,
        len(cases),
        float(np.abs(ours).mean()),
        mase(ours, scaled_by),
        {one: mase(errors, scaled_by) for one, errors in theirs.items()},
        season,
        _gain(np.abs(theirs[season]) - np.abs(ours), days, h, scaled_by),
        {level: float(np.mean([one.within[level] for one in cases])) for level in LEVELS},
        {level: float(np.mean([one.width[level] for one in cases])) for level in LEVELS},
    )


def _gain(differences: Floats, days: NDArray[np.int64], h: int, scaled_by: float) -> tuple[float, float, float]:
    """Mean with 95% over resamples of blocks of days as long as the horizon, since neighbours err alike
    (Künsch, Annals of Statistics 17, 1989)."""
    if not scaled_by > 0:
        return (math.nan, math.nan, math.nan)
    block = max(1, math.ceil(h / DAY))
    names, of = np.unique(days // block, return_inverse=True)
    sums, counts = np.bincount(of, weights=differences), np.bincount(of)
    drawn = np.random.default_rng(SEED).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    resampled = (drawn @ sums) / np.maximum(1, drawn @ counts)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return tuple(float(one) / scaled_by for one in (differences.mean(), low, high))  # type: ignore[return-value]


# ----------------------------------------------------------------------------------------------------------------- time


def _hours_of_week(start: datetime, count: int) -> NDArray[np.int64]:
    return (start.weekday() * DAY + start.hour + np.arange(count)) % WEEK


def _hours(at: datetime, start: datetime) -> int:
    """The first full hour at or after `at`, counted from `start`."""
    return -int((start - at) // _HOUR)


def _ceil(at: datetime) -> datetime:
    floor = at.replace(minute=0, second=0, microsecond=0)
    return floor if floor == at else floor + _HOUR
