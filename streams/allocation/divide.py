"""Resources that can be divided: transport minutes, stock, budget. A linear programme, with what one more unit would be
worth (dual prices). Solved by HiGHS (Huangfu and Hall, Mathematical Programming Computation 10, 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from infra.errors import UsageError

Floats = NDArray[np.float64]


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
    """`prices`: dual prices, of a little of a resource; nothing where some is left over. `worth`: of one whole unit
    more of it, which is less where something else runs short before. `feasible` is False where what must be granted is
    more
    than there is: then nothing is."""

    granted: Mapping[str, float]
    prices: Mapping[str, float]
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
        return Division({one.ref: 0.0 for one in demands}, {}, {}, dict(supply), 0.0, False, short)
    if not demands or not names:
        nothing = dict.fromkeys(names, 0.0)
        free = {one.ref: one.most if one.value > 0 else one.least for one in demands}
        value = sum(one.value * free[one.ref] for one in demands)
        return Division(free, nothing, nothing, dict(supply), _tidy(value))
    uses = np.array([[one.uses.get(name, 0.0) for one in demands] for name in names])
    have = np.array([supply[name] for name in names], dtype=float)
    value, granted, prices = _solve(uses, have, demands)
    worth = {}
    for i, name in enumerate(names):
        more = have.copy()
        more[i] += 1.0
        worth[name] = _tidy(_solve(uses, more, demands)[0] - value) if prices[i] > 0 else 0.0
    left = have - uses @ granted
    return Division(
        {one.ref: _tidy(float(units)) for one, units in zip(demands, granted, strict=True)},
        {name: _tidy(float(price)) for name, price in zip(names, prices, strict=True)},
        worth,
        {name: _tidy(float(rest)) for name, rest in zip(names, left, strict=True)},
        _tidy(value),
    )


def _solve(uses: Floats, have: Floats, demands: Sequence[Demand]) -> tuple[float, Floats, Floats]:
    """(value, units granted, dual prices)."""
    done = linprog(
        [-one.value for one in demands],
        A_ub=uses,
        b_ub=have,
        bounds=[(one.least, one.most) for one in demands],
        method="highs",
    )
    return -float(done.fun), np.asarray(done.x), np.maximum(-np.asarray(done.ineqlin.marginals), 0.0)


def _tidy(number: float) -> float:
    """Without what arithmetic leaves behind the ninth digit."""
    return round(number, 9) + 0.0
