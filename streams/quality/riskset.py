"""Who was at risk at each death: the sums that Kaplan-Meier, log-rank, Cox and frailty models are made of. Pure.

Rows are put in the order in which they leave. A sum over everybody at risk at a death is then a running sum from the
end, and what a row lived through is the difference of two places in a running sum of hazards: no step looks at pairs.
A Cox information matrix needs no running sum of p x p matrices either: its first part is X' diag(expected deaths) X.
So a fit costs O(n p^2) for each Newton step, and n log n once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from infra.errors import Inestimable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Ties = Literal["efron", "breslow"]


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """Checked rows. A row is at risk in (start, stop]; without `start`, from the beginning.

    Shapes: `stop`, `event`, `start`, `stratum`, `weight` (n,); `x` (n, p), one column a name.
    """

    stop: Floats
    event: NDArray[np.bool_]
    x: Floats
    names: tuple[str, ...]
    start: Floats | None
    stratum: Ints
    strata: tuple[Any, ...]
    weight: Floats | None

    def __len__(self) -> int:
        return len(self.stop)

    def take(self, rows: NDArray[Any]) -> Cases:
        """The rows of an index or a mask."""
        return Cases(
            self.stop[rows],
            self.event[rows],
            self.x[rows],
            self.names,
            None if self.start is None else self.start[rows],
            self.stratum[rows],
            self.strata,
            None if self.weight is None else self.weight[rows],
        )


def _column(values: ArrayLike, name: str, length: int | None = None) -> Floats:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or (length is not None and len(column) != length):
        raise Inestimable("unequal_lengths", name)
    if not np.isfinite(column).all():
        raise Inestimable("not_finite", name)
    return column


def coded(values: ArrayLike, name: str, length: int) -> tuple[Ints, tuple[Any, ...]]:
    """Labels as numbers from 0, and the labels in their order. Raises Inestimable."""
    given = np.asarray(values)
    if given.ndim != 1 or len(given) != length:
        raise Inestimable("unequal_lengths", name)
    labels, codes = np.unique(given, return_inverse=True)
    return codes.astype(np.int64), tuple(labels.tolist())


def cases(
    stop: ArrayLike,
    event: ArrayLike,
    x: ArrayLike | None = None,
    names: Sequence[str] = (),
    *,
    start: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Cases:
    """Raises Inestimable: `no_rows`, `unequal_lengths`, `not_finite`, `bad_event` (neither 0 nor 1), `negative_time`,
    `stop_not_after_start`, `bad_weight` (not above 0).
    """
    stopped = _column(stop, "stop")
    length = len(stopped)
    if not length:
        raise Inestimable("no_rows")
    died = _column(event, "event", length)
    if not np.isin(died, (0.0, 1.0)).all():
        raise Inestimable("bad_event", "event")
    began = None if start is None else _column(start, "start", length)
    if (stopped < 0).any() or (began is not None and (began < 0).any()):
        raise Inestimable("negative_time", "stop" if (stopped < 0).any() else "start")
    if began is not None and (stopped <= began).any():
        raise Inestimable("stop_not_after_start")
    weight = None if weights is None else _column(weights, "weights", length)
    if weight is not None and (weight <= 0).any():
        raise Inestimable("bad_weight", "weights")
    table = np.zeros((length, 0)) if x is None else np.asarray(x, dtype=np.float64)
    if table.ndim != 2 or table.shape != (length, len(names)):
        raise Inestimable("unequal_lengths", "x")
    for number, name in enumerate(names):
        if not np.isfinite(table[:, number]).all():
            raise Inestimable("not_finite", name)
    stratum, labels = (np.zeros(length, np.int64), (None,)) if strata is None else coded(strata, "strata", length)
    return Cases(stopped, died.astype(np.bool_), table, tuple(names), began, stratum, labels, weight)


@dataclass(frozen=True, slots=True, eq=False)
class Hazard:
    """What a linear predictor makes of the risk sets. Units: hazards are per exp(`shift`).

    `relative` (n,) weight times relative risk, `expected` (n,) deaths expected of a row, `total` (steps,) of whoever
    is at risk, `increment` (bins,) of the baseline hazard, `tied` (bins,) the part that those who die then are spared.
    """

    loglik: float
    shift: float
    relative: Floats
    expected: Floats
    total: Floats
    increment: Floats
    tied: Floats | None


class RiskSets:
    """The rows that are at risk at some death, in the order in which they leave, and the deaths.

    A bin is a time of death in a stratum; a row is at risk in the bins [first, last). A step is a bin by Breslow, and
    by Efron one death of it: the k-th of d deaths at once sees the risk set less k/d of those who die.
    """

    def __init__(self, given: Cases, ties: Ties = "efron") -> None:
        if not given.event.any():
            raise Inestimable("all_censored")
        several = len(given.strata) > 1
        if several:  # (stratum, time) as one whole number
            both = given.stop if given.start is None else np.concatenate((given.stop, given.start))
            times, ranks = np.unique(both, return_inverse=True)
            base = given.stratum * len(times)
            stops: NDArray[Any] = base + ranks[: len(given)]
            starts: NDArray[Any] | None = None if given.start is None else base + ranks[len(given) :]
        else:
            stops, starts = given.stop, given.start
        deaths, where = np.unique(stops[given.event], return_index=True)
        died = np.flatnonzero(given.event)[where]
        self.time: Floats = given.stop[died]
        self.stratum: Ints = given.stratum[died]
        self.bins = len(deaths)
        last = np.searchsorted(deaths, stops, "right")
        begins = np.searchsorted(self.stratum, np.arange(len(given.strata) + 1))
        if starts is not None:
            first = np.searchsorted(deaths, starts, "right")
        else:
            first = begins[given.stratum] if several else np.zeros(len(given), np.int64)
        rows = np.flatnonzero(last > first)  # whoever left before the first death tells nothing
        self.rows: Ints = rows[np.argsort(last[rows], kind="stable")]
        self.first: Ints = first[self.rows]
        self.last: Ints = last[self.rows]
        self.event: NDArray[np.bool_] = given.event[self.rows]
        self.weight: Floats | None = None if given.weight is None else given.weight[self.rows]
        self.died: Ints = np.flatnonzero(self.event)
        self.death_bin: Ints = self.last[self.died] - 1
        self._bounds = np.unique(begins)
        self._leave = _summing(self.last - 1, np.arange(len(self.rows)), self.bins)
        self._enter = None
        if starts is not None:
            order = np.argsort(self.first, kind="stable")
            self._enter = _summing(self.first[order], order, self.bins)
        counts = np.bincount(self.death_bin, minlength=self.bins)
        sums = counts.astype(np.float64) if self.weight is None else self.deaths(self.weight)
        self.tied = ties == "efron" and bool((counts > 1).any())
        if self.tied:
            self.step_bin: Ints = np.repeat(np.arange(self.bins), counts)
            self._step_start = np.cumsum(counts) - counts
            self.fraction: Floats = (np.arange(len(self.step_bin)) - self._step_start[self.step_bin]) / counts[
                self.step_bin
            ]
            self.step_weight: Floats = (sums / counts)[self.step_bin]
        else:
            self.step_bin, self.fraction, self.step_weight = np.arange(self.bins), np.zeros(self.bins), sums

    def at_risk(self, values: Floats) -> Floats:
        """Sums over everybody at risk: (n,) or (n, p) to (bins,) or (bins, p)."""
        total = self._from_the_end(self._leave @ values)
        if self._enter is not None:
            coming = self._enter @ values
            total -= self._from_the_end(coming) - coming
        return total

    def deaths(self, values: Floats) -> Floats:
        """Sums over those who die: (n,) or (n, p) to (bins,) or (bins, p)."""
        if values.ndim == 1:
            sums: Floats = np.bincount(self.death_bin, weights=values[self.died], minlength=self.bins).astype(
                np.float64
            )
            return sums
        columns = [np.bincount(self.death_bin, weights=one[self.died], minlength=self.bins) for one in values.T]
        return np.stack(columns, axis=1) if columns else np.zeros((self.bins, 0))

    def lived(self, increments: Floats) -> Floats:
        """Sums over the bins in which a row was at risk: (bins, ...) to (n, ...)."""
        running = np.concatenate((np.zeros((1, *increments.shape[1:])), np.cumsum(increments, axis=0)))
        gone = running[self.last]
        if self._enter is not None or len(self._bounds) > 2:
            gone -= running[self.first]
        return gone

    def by_bin(self, steps: Floats) -> Floats:
        """Sums over the steps of a bin."""
        return np.add.reduceat(steps, self._step_start, axis=0) if self.tied else steps

    def _from_the_end(self, values: Floats) -> Floats:
        made = np.empty_like(values)
        for begin, end in zip(self._bounds[:-1], self._bounds[1:], strict=True):
            made[begin:end] = np.cumsum(values[begin:end][::-1], axis=0)[::-1]
        return made

    def hazard(self, eta: Floats) -> Hazard:
        """`eta` (n,): the linear predictor of `rows`."""
        shift = float(eta.max())
        relative = np.exp(eta - shift)
        if self.weight is not None:
            relative *= self.weight
        total = self.at_risk(relative)
        if self._enter is not None:  # a difference of sums: never less than those who die
            total = np.maximum(total, self.deaths(relative))
        if self.tied:
            total = total[self.step_bin] - self.fraction * self.deaths(relative)[self.step_bin]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # of a step too far, which is halved
            rate = self.step_weight / total
            loglik = float(self._own(eta - shift) - self.step_weight @ np.log(total))
            increment = self.by_bin(rate)
            tied = self.by_bin(rate * self.fraction) if self.tied else None
            expected = relative * self._seen(increment, tied)
        return Hazard(loglik, shift, relative, expected, total, increment, tied)

    def _own(self, values: Floats) -> float:
        mine = values[self.died]
        return float(mine.sum() if self.weight is None else self.weight[self.died] @ mine)

    def _seen(self, increment: Floats, tied: Floats | None) -> Floats:
        seen = self.lived(increment)
        if tied is not None:
            seen[self.died] -= tied[self.death_bin]
        return seen

    def counted(self) -> Floats:
        """Deaths of a row, weighted: (n,)."""
        return self.event.astype(np.float64) if self.weight is None else self.event * self.weight

    def means(self, x: Floats, hazard: Hazard) -> Floats:
        """Of the covariates over the risk set of each step: (steps, p)."""
        sums = self.at_risk(hazard.relative[:, None] * x)
        if self.tied:
            sums = (
                sums[self.step_bin] - self.fraction[:, None] * self.deaths(hazard.relative[:, None] * x)[self.step_bin]
            )
        return sums / hazard.total[:, None]

    def information(self, x: Floats, hazard: Hazard, means: Floats, by: Floats | None = None) -> Floats:
        """(p, p): the sum over steps of the covariance of `x` in the risk set, each times `by` (bins,)."""
        if by is None:
            expected, weight = hazard.expected, self.step_weight
        else:
            weight = self.step_weight * by[self.step_bin]
            rate = weight / hazard.total
            tied = self.by_bin(rate * self.fraction) if self.tied else None
            expected = hazard.relative * self._seen(self.by_bin(rate), tied)
        made: Floats = x.T @ (expected[:, None] * x) - means.T @ (weight[:, None] * means)
        return (made + made.T) / 2

    def seen_means(self, hazard: Hazard, means: Floats) -> Floats:
        """(n, p): what a row lived through of hazard times mean covariate, times its relative risk."""
        rate = (self.step_weight / hazard.total)[:, None] * means
        tied = self.by_bin(rate * self.fraction[:, None]) if self.tied else None
        made: Floats = hazard.relative[:, None] * self._seen(self.by_bin(rate), tied)
        return made


def _summing(bins: Ints, rows: NDArray[Any], length: int) -> sparse.csr_matrix:
    """The matrix that adds rows up by bin; `bins` in order."""
    starts = np.searchsorted(bins, np.arange(length + 1))
    return sparse.csr_matrix((np.ones(len(rows)), rows, starts), shape=(length, len(rows)))
