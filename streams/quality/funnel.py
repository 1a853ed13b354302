"""Observed against expected: the ratio with its interval, and all units in one funnel with overdispersion. Pure.

Observed events are Poisson with the expected number as their mean. The funnel is Spiegelhalter's (Statistics in
Medicine 24, 2005): a unit's ratio stands against its expected events, between limits that narrow with them. Where
units differ by more than chance for reasons that no model knows, those limits flag far too many. How much more is
estimated from z-scores whose tails are winsorised, so that the units which are looked for do not hide themselves:

    z = 2 (sqrt O - sqrt E),   phi = mean of z^2,   tau^2 = (I phi - (I - 1)) / (sum w - sum w^2 / sum w),  w = 4 E

On the square-root scale the variance of a ratio is 1 / 4E. Multiplicative limits take phi / 4E, additive ones
1 / 4E + tau^2, which stay apart however large a unit is: the ones to take when units truly differ. Winsorising takes
from the variance that it measures: with a tenth at each end, phi of chance alone is 0.68 (of the normal distribution),
so the limits are narrower than the units' whole variance would have them. The method is kept as it was published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from infra.errors import BadOutcome, UsageError

Floats = NDArray[np.float64]
Method = Literal["exact", "byar", "mid_p"]
Overdispersion = Literal["none", "multiplicative", "additive"]

LEVELS = (0.95, 0.998)  # two and three standard deviations: look at it, and act on it
WINSORISED = 0.1  # at each end
LEAST_UNITS = 5  # of fewer nobody can tell how much units differ


@dataclass(frozen=True, slots=True)
class Ratio:
    observed: int
    expected: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """One unit in the funnel. `limits`: low and high by level. `z` allows for overdispersion; `beyond` is the highest
    level whose limits the ratio leaves, with its sign, or 0."""

    unit: str
    ratio: Ratio
    limits: Mapping[float, tuple[float, float]]
    z: float
    beyond: float


@dataclass(frozen=True, slots=True)
class Funnel:
    """`phi`: winsorised variance, 1 being that of chance; `tau2`: variance between units, on the square-root scale.
    `adjusted` is `none` where units do not differ by more than chance, or are too few to tell."""

    points: tuple[Point, ...]
    phi: float
    tau2: float
    adjusted: Overdispersion


def ratio(observed: int, expected: float, *, level: float = 0.95, method: Method = "exact") -> Ratio:
    """O/E with its interval: Garwood's exact one (Biometrika 28, 1936), Byar's approximation of it (Breslow and Day,
    IARC 82, 1987, equation 2.13), or mid-P, which is not exact and as wide as it should be in the mean.

    Raises BadOutcome: `nothing_expected`, `bad_count`.
    """
    if not (math.isfinite(expected) and expected > 0):
        raise BadOutcome("nothing_expected")
    if observed < 0 or observed != int(observed):
        raise BadOutcome("bad_count")
    if not 0 < level < 1:
        raise UsageError("a level is between 0 and 1")
    tail = (1 - level) / 2
    low, high = {"exact": _exact, "byar": _byar, "mid_p": _mid_p}[method](int(observed), tail)
    return Ratio(int(observed), expected, observed / expected, low / expected, high / expected)


def funnel(
    units: Mapping[str, tuple[int, float]],
    *,
    overdispersion: Overdispersion = "additive",
    winsorised: float = WINSORISED,
) -> Funnel:
    """All units, each with (observed, expected). Raises BadOutcome as `ratio` does, and `no_cases`."""
    if not units:
        raise BadOutcome("no_cases")
    if not 0 <= winsorised < 0.5:
        raise UsageError("less than half is winsorised at each end")
    ratios = {unit: ratio(*counted) for unit, counted in units.items()}
    observed = np.array([one.observed for one in ratios.values()], dtype=np.float64)
    expected = np.array([one.expected for one in ratios.values()])
    phi, tau2 = dispersion(observed, expected, winsorised)
    more = len(units) >= LEAST_UNITS and phi > 1 and (overdispersion != "additive" or tau2 > 0)
    adjusted: Overdispersion = overdispersion if more else "none"
    spread = _spread(expected, phi, tau2, adjusted)
    limits = {level: _limits(expected, np.sqrt(spread), level, adjusted) for level in LEVELS}
    z = (np.sqrt(observed / expected) - 1) / np.sqrt(spread)
    points = []
    for place, (unit, one) in enumerate(ratios.items()):
        own = {level: (float(low[place]), float(high[place])) for level, (low, high) in limits.items()}
        out = [level for level, (low, high) in own.items() if not low <= one.ratio <= high]
        beyond = math.copysign(max(out), one.ratio - 1) if out else 0.0
        points.append(Point(unit, one, own, float(z[place]), beyond))
    return Funnel(tuple(points), phi, tau2, adjusted)


def lines(made: Funnel, expected: Floats) -> dict[float, tuple[Floats, Floats]]:
    """The limits of a funnel at other numbers of expected events, low and high by level: what a picture draws."""
    spread = _spread(expected, made.phi, made.tau2, made.adjusted)
    return {level: _limits(expected, np.sqrt(spread), level, made.adjusted) for level in LEVELS}


def _spread(expected: Floats, phi: float, tau2: float, adjusted: Overdispersion) -> Floats:
    """The variance of a ratio, on the square-root scale."""
    chance = 1 / (4 * expected)
    return {"none": chance, "multiplicative": chance * phi, "additive": chance + tau2}[adjusted]


def dispersion(observed: Floats, expected: Floats, winsorised: float = WINSORISED) -> tuple[float, float]:
    """(phi, tau^2) of units' counts, shape (units,) each."""
    z = 2 * (np.sqrt(observed) - np.sqrt(expected))
    low, high = np.quantile(z, (winsorised, 1 - winsorised))
    phi, count, weights = float((np.clip(z, low, high) ** 2).mean()), len(z), 4 * expected
    between = float(weights.sum() - (weights**2).sum() / weights.sum())
    return phi, max(0.0, (count * phi - (count - 1)) / between) if between > 0 else 0.0


def _limits(expected: Floats, deviation: Floats, level: float, adjusted: Overdispersion) -> tuple[Floats, Floats]:
    """Ratios from low to high are inside. Of chance alone they are whole events: exact for the smallest unit too."""
    tail = (1 - level) / 2
    if adjusted == "none":
        return stats.poisson.ppf(tail, expected) / expected, stats.poisson.ppf(1 - tail, expected) / expected
    z = float(special.ndtri(1 - tail))
    return np.maximum(0.0, 1 - z * deviation) ** 2, (1 + z * deviation) ** 2


def _exact(count: int, tail: float) -> tuple[float, float]:
    low = float(special.gammaincinv(count, tail)) if count else 0.0
    return low, float(special.gammainccinv(count + 1, tail))


def _byar(count: int, tail: float) -> tuple[float, float]:
    z, more = -float(special.ndtri(tail)), count + 1
    low = count * (1 - 1 / (9 * count) - z / (3 * math.sqrt(count))) ** 3 if count else 0.0
    return max(0.0, low), more * (1 - 1 / (9 * more) + z / (3 * math.sqrt(more))) ** 3


def _mid_p(count: int, tail: float) -> tuple[float, float]:
    def below(mean: float) -> float:  # the chance of fewer, and half of that of as many
        return float(special.pdtr(count, mean) + special.pdtr(count - 1, mean)) / 2 if count else math.exp(-mean) / 2

    widest = _exact(count, tail)[1] + 1
    low = float(optimize.brentq(lambda mean: below(mean) - (1 - tail), 0.0, widest)) if count else 0.0
    return low, float(optimize.brentq(lambda mean: below(mean) - tail, low, widest))
