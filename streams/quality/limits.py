"""Where the limits of charts lie: by simulation, for a stated rate of false alarms, beside a Markov chain. Pure.

A mix is the risks of a reference population, each as likely as any other to be the next one's. In control everybody has
that risk; out of control everybody has `odds` times its odds. The run length is the number of outcomes from 0 to the
first signal, its mean is the ARL. A limit depends on the mix, so it is the limit of the unit whose mix it was.

The chain (Brook and Evans, Biometrika 59, 1972) puts the CUSUM on a grid. A weight that falls between two points goes
to both, in shares that keep its mean (Knoth, Wittenberg and Gan, Statistics in Medicine 38, 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, optimize

from infra.errors import BadOutcome, UsageError
from streams.quality.charts import LEAST_RISK, VladLimits

Floats = NDArray[np.float64]

SEED = 20_171
PATHS = 10_000
GRID = 400
LEAST_LIMIT = 1e-3
VLAD_FLOOR = 0.1  # share of a period's variance: a limit for two patients would be left by one death
_BLOCK = 64
_MOST_STEPS = 2_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit, the mean run length that it was seen to have, and the standard error of that."""

    value: float
    arl: float
    error: float


def checked(mix: ArrayLike) -> Floats:
    """Risks as the charts take them: 0 and 1 a little inside. Raises BadOutcome: `no_cases`, `bad_risk`."""
    risks = np.asarray(mix, dtype=np.float64).ravel()
    if not len(risks):
        raise BadOutcome("no_cases")
    if not bool(np.all((risks >= 0) & (risks <= 1))):
        raise BadOutcome("bad_risk")
    return np.clip(risks, LEAST_RISK, 1 - LEAST_RISK)


def shifted(risks: Floats, odds: float) -> Floats:
    """Risks whose odds are `odds` times as high."""
    return odds * risks / (1 - risks + odds * risks)


def weights(risks: Floats, odds_ratio: float) -> tuple[Floats, Floats]:
    """The weights of (no event, event) at each risk, as `charts.weight` gives them."""
    none = -np.log1p((odds_ratio - 1) * risks)
    return none, none + math.log(odds_ratio)


def run_lengths(
    mix: ArrayLike,
    odds_ratio: float,
    limit: float,
    *,
    odds: float = 1.0,
    baseline: float | None = None,
    paths: int = PATHS,
    seed: int = SEED,
) -> NDArray[np.int64]:
    """Outcomes until the CUSUM reaches `limit`, on each of `paths` ways. `baseline`: the chart is a plain one.

    Raises UsageError where a way of two million outcomes does not get there: no use can be made of such a limit.
    """
    risks = checked(mix)
    believed = risks if baseline is None else np.full_like(risks, baseline)
    none, event = weights(believed, odds_ratio)
    happens = shifted(risks, odds)
    rng = np.random.default_rng(seed)
    lengths = np.zeros(paths, dtype=np.int64)
    running, level, done = np.arange(paths), np.zeros(paths), 0
    while len(running):
        if done >= _MOST_STEPS:
            raise UsageError("the limit is out of reach for these risks")
        drawn = rng.integers(len(risks), size=(_BLOCK, len(running)))
        gained = np.where(rng.random(drawn.shape) < happens[drawn], event[drawn], none[drawn])
        crossed = np.zeros(len(running), dtype=np.int64)
        for number, gain in enumerate(gained, 1):
            level = np.maximum(0.0, level + gain)
            crossed[(level >= limit) & (crossed == 0)] = number
        over = crossed > 0
        lengths[running[over]] = done + crossed[over]
        running, level, done = running[~over], level[~over], done + _BLOCK
    return lengths


def find_limit(
    mix: ArrayLike,
    odds_ratio: float,
    arl: float,
    *,
    baseline: float | None = None,
    paths: int = PATHS,
    seed: int = SEED,
) -> Limit:
    """The limit at which a CUSUM in control runs for `arl` outcomes in the mean. `odds_ratio` below 1: the lower one.

    The same seed serves every limit that is tried, so that they differ by the limit alone.
    """
    if arl <= 1:
        raise UsageError("a run length is above 1")

    def off(limit: float, count: int = paths) -> float:
        if limit <= 0:
            return -math.log(arl)
        lengths = run_lengths(mix, odds_ratio, limit, baseline=baseline, paths=count, seed=seed)
        return math.log(lengths.mean() / arl)

    high = 0.5
    while off(high, max(200, paths // 20)) < 0.5:
        high *= 1.25
    value = float(optimize.brentq(off, 0.0, high, xtol=1e-3))
    lengths = run_lengths(mix, odds_ratio, value, baseline=baseline, paths=paths, seed=seed)
    return Limit(value, float(lengths.mean()), float(lengths.std(ddof=1) / math.sqrt(paths)))


def chain_arl(
    mix: ArrayLike,
    odds_ratio: float,
    limit: float,
    *,
    odds: float = 1.0,
    baseline: float | None = None,
    grid: int = GRID,
) -> float:
    """The mean run length from 0, by a Markov chain of `grid` states below the limit."""
    risks, counts = np.unique(checked(mix), return_counts=True)
    believed = risks if baseline is None else np.full_like(risks, baseline)
    share, happens = counts / counts.sum(), shifted(risks, odds)
    gains = np.concatenate(weights(believed, odds_ratio)) / (limit / grid)
    chance = np.concatenate((share * (1 - happens), share * happens))
    below = np.floor(gains).astype(np.int64)
    reach = int(np.abs(below).max()) + grid + 2
    step = np.zeros(2 * reach + 1)  # step[reach + k]: the chance of k grid points up
    np.add.at(step, reach + below, chance * (1 - (gains - below)))
    np.add.at(step, reach + below + 1, chance * (gains - below))
    places = np.arange(grid)
    moves = step[reach + places[None, :] - places[:, None]]
    moves[:, 0] = np.cumsum(step)[reach - places]  # to 0 or below
    return float(linalg.solve(np.eye(grid) - moves, np.ones(grid))[0])


def chain_limit(
    mix: ArrayLike, odds_ratio: float, arl: float, *, baseline: float | None = None, grid: int = GRID
) -> float:
    """The limit for a run length of `arl` by the chain; with half of the grid, a fifth of the time, it is 1% longer."""

    def off(limit: float) -> float:
        return math.log(chain_arl(mix, odds_ratio, limit, baseline=baseline, grid=grid) / arl)

    high = 0.5
    while off(high) < 0:
        high *= 1.4
    if off(LEAST_LIMIT) >= 0:  # of so low a risk the first event comes later than that: each is a signal
        return LEAST_LIMIT
    return float(optimize.brentq(off, LEAST_LIMIT, high, xtol=1e-5))


def vlad_limits(mix: ArrayLike, cases: int, alarms: float, *, paths: int = PATHS, seed: int = SEED) -> VladLimits:
    """Limits that a VLAD in control leaves in `alarms` (0.05: one in 20) of its periods of `cases` outcomes.

    Each side has half of the alarms. They widen with the square root of the variance, so that a unit whose patients are
    not those of the mix has limits for its own; below a tenth of a period's variance they stay as they are there.
    """
    if not (0 < alarms < 1 and cases >= 1):
        raise UsageError("a share of alarms is between 0 and 1, a period has one case at least")
    risks, rng = checked(mix), np.random.default_rng(seed)
    floor = VLAD_FLOOR * cases * float((risks * (1 - risks)).mean())
    value, variance = np.zeros(paths), np.zeros(paths)
    least, most = np.zeros(paths), np.zeros(paths)
    for _ in range(cases):
        risk = risks[rng.integers(len(risks), size=paths)]
        value += risk - (rng.random(paths) < risk)
        variance += risk * (1 - risk)
        scaled = value / np.sqrt(np.maximum(variance, floor))
        np.minimum(least, scaled, out=least)
        np.maximum(most, scaled, out=most)
    low, high = np.quantile(-least, 1 - alarms / 2), np.quantile(most, 1 - alarms / 2)
    return VladLimits(float(low), float(high), floor, cases)
