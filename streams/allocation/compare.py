"""Two policies on the same histories: what the one does better, and how sure that is. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from infra.errors import UsageError
from streams.allocation.history import PRIORITIES, Figures

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it lies with 95% confidence, by Student's t. Of equal values it has no width."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """Of two values at least, each of another seed. Raises UsageError."""
    if len(values) < 2:
        raise UsageError("one seed gives no interval: take two at least")
    given = np.array(values, dtype=np.float64)
    mean = float(given.mean())
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(given) - 1) * given.std(ddof=1) / math.sqrt(len(given)))
    return Interval(mean, mean - half, mean + half)


def paired(one: Sequence[float], other: Sequence[float]) -> Interval:
    """Of `one` less `other`, seed by seed: what the seeds share falls out (Law and Kelton, ch. 10.2.1)."""
    return interval([first - second for first, second in zip(one, other, strict=True)])


def measures(figures: Figures) -> Mapping[str, float]:
    """What policies are compared by. Less is better, but for the occupancy, which says how full the house was."""
    return {
        "wait_hours": figures.wait,
        **{f"wait_hours_{one}": figures.wait_by_priority[one] for one in PRIORITIES},
        **{f"wait_p95_{one}": figures.wait_p95[one] for one in PRIORITIES},
        "late_share": figures.late / max(1, figures.came),
        "moves_per_patient": figures.moves_per_patient,
        "breach_hours": figures.breach_hours,
        "overload_hours": figures.overload_hours,
        "off_service_share": figures.off_service,
        "cost": figures.cost,
        "bed_cost": figures.bed_cost,
        "occupancy": figures.occupancy,
        "refused": float(sum(figures.refused.values())),
    }


@dataclass(frozen=True, slots=True)
class Line:
    """One measure: the mean of each policy, and the paired difference of the first policy to each other one."""

    measure: str
    means: Mapping[str, Interval]
    differences: Mapping[str, Interval]

    def as_dict(self) -> dict[str, dict[str, dict[str, float]]]:
        return {
            "means": {name: asdict(one) for name, one in self.means.items()},
            "differences": {name: asdict(one) for name, one in self.differences.items()},
        }


def compare(runs: Mapping[str, Sequence[Figures]]) -> list[Line]:
    """`runs`: by policy, the one in question first, the figures of the same seeds in the same order."""
    names = list(runs)
    values = {name: [measures(one) for one in figures] for name, figures in runs.items()}
    lines = []
    for measure in values[names[0]][0]:
        of = {name: [one[measure] for one in found] for name, found in values.items()}
        lines.append(
            Line(
                measure,
                {name: interval(found) for name, found in of.items()},
                {name: paired(of[names[0]], of[name]) for name in names[1:]},
            )
        )
    return lines
