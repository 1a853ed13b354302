"""Resources that can be divided: transport minutes, stock, budget. A linear programme, with what one more unit would be
worth (dual prices). Solved by HiGHS (Huangfu and Hall, Mathematical Programming Computation 10, 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linprog

from infra.errors import UsageError


@dataclass(frozen=True, slots=True)
class Demand:
    """Something that uses resources. `value`: of each unit that is granted, in the site's unit of cost."""

    ref: str
    value: float
    most: float  # units that are of use
    uses: Mapping[str, float]  # resource -> its units for one of these
    least: float = 0.0  # units that must be granted


@dataclass(frozen=True, slots=True)
class Division:
    """`worth`: of one more unit of a resource, by resource; nothing where some is left over. `feasible` is False where
    what must be granted is more than there is: then nothing is."""

    granted: Mapping[str, float]
    worth: Mapping[str, float]
    left: Mapping[str, float]
    value: float
    feasible: bool = True
    short: Mapping[str, float] = field(default_factory=dict)  # resource -> units that are missing for what must be


def divide(supply: Mapping[str, float], demands: Sequence[Demand]) -> Division:
    """Grant what is worth most. Raises UsageError on a negative amount or a resource that is not supplied."""
    names = sorted(supply)
    if any(supply[name] < 0 for name in names) or any(
        one.most < 0 or one.least < 0 or any(units < 0 for units in one.uses.values()) for one in demands
    ):
        raise UsageError("an amount is negative")
    if unknown := {name for one in demands for name in one.uses} - set(supply):
        raise UsageError(f"not supplied: {', '.join(sorted(unknown))}")
    must = {name: sum(one.least * one.uses.get(name, 0.0) for one in demands) for name in names}
    short = {name: must[name] - supply[name] for name in names if must[name] > supply[name] + 1e-9}
    if short or any(one.least > one.most for one in demands):
        return Division({one.ref: 0.0 for one in demands}, {}, dict(supply), 0.0, False, short)
    if not demands:
        return Division({}, dict.fromkeys(names, 0.0), dict(supply), 0.0)
    uses = np.array([[one.uses.get(name, 0.0) for one in demands] for name in names]).reshape(len(names), len(demands))
    have = np.array([supply[name] for name in names])
    done = linprog(
        [-one.value for one in demands],
        A_ub=uses if names else None,
        b_ub=have if names else None,
        bounds=[(one.least, one.most) for one in demands],
        method="highs",
    )
    marginals = done.ineqlin.marginals if names else []
    worth = {name: _tidy(-float(price)) for name, price in zip(names, marginals, strict=True)}
    left = {name: _tidy(float(rest)) for name, rest in zip(names, have - uses @ done.x, strict=True)}
    granted = {one.ref: _tidy(float(units)) for one, units in zip(demands, done.x, strict=True)}
    return Division(granted, worth, left, _tidy(-float(done.fun)))


def _tidy(number: float) -> float:
    """Without what arithmetic leaves behind the ninth digit."""
    return round(number, 9) + 0.0
