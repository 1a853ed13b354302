"""A plan: who should lie where, who should work where, what is operated on where, and why: a proposal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

OPTIMAL, FEASIBLE, INFEASIBLE = "optimal", "feasible", "infeasible"
BED, NURSE, THEATRE = "bed", "nurse", "theatre"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why here. `decided`: the hard rule (rules.RULES) that closes all that would cost less, or the component of the
    cost that makes the next best dearer; empty where nothing else was in question. `next_best`: None for "nowhere"."""

    costs: Mapping[str, float] = field(default_factory=dict)  # what this assignment costs, by component
    decided: str = ""
    next_best: str | None = None
    next_cost: float | None = None  # what the next best would have cost, all others staying; None: nothing else may be


@dataclass(frozen=True, slots=True)
class Assignment:
    """One line of a plan."""

    kind: str  # bed, nurse or theatre
    ref: str  # stay or request (bed); nurse; request (theatre)
    to: str | None  # Bed.id; unit|room; Theatre.id. None: waits, or, of a stay, lies where no rule lets it lie
    at: float = 0.0  # hours from Site.at; of a bed: when it is free; of an operation: its start
    prior: str | None = None  # bed, room or theatre until now
    until: float | None = None  # end of the shift, or of the operation
    reason: Reason = field(default_factory=Reason)

    @property
    def action(self) -> bool:
        """Whether somebody has something to do: all but who stays where he lies, or waits on."""
        return self.to is not None and self.to != self.prior


@dataclass(frozen=True, slots=True)
class Breach:
    """A hard rule that is broken, by whom and where; never by a patient's values."""

    rule: str  # of rules.RULES
    refs: tuple[str, ...]
    where: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Costs are in the unit of `Site.weights`. `bound`: no plan that breaks as few rules costs less.

    `status`: optimal (the cost is the bound), feasible, or infeasible: somebody who must have a place has none in this
    plan, named in `breaches`; `conflict.explain` says whether any plan could do better.
    """

    site: str
    at: str
    assignments: tuple[Assignment, ...]
    costs: Mapping[str, float]
    bound: float = 0.0
    seconds: float = 0.0
    status: str = FEASIBLE
    breaches: tuple[Breach, ...] = ()

    @property
    def cost(self) -> float:
        return round(sum(self.costs.values()), 2)

    @property
    def gap(self) -> float:
        """Share of the cost that is not proven to be needed."""
        return max(0.0, self.cost - self.bound) / self.cost if self.cost > 0 else 0.0

    def beds(self) -> dict[str, Assignment]:
        """By stay or request."""
        return {one.ref: one for one in self.assignments if one.kind == BED}

    def now(self) -> dict[str, str]:
        """Stay or request -> bed: what can be carried out at once."""
        return {one.ref: one.to for one in self.assignments if one.kind == BED and one.action and one.to and not one.at}


def total(items: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Sum by component, in hundredths: the solvers count in whole ones, and both must come to the same."""
    sums: dict[str, int] = {}
    for name, cost in items:
        sums[name] = sums.get(name, 0) + round(cost * 100)
    return {name: cents / 100 for name, cents in sorted(sums.items()) if cents}
