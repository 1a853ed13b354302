"""Why there is no plan: a set of rules that cannot all be kept, and of which none is too many.

Each rule that somebody could give up is an assumption of one CP-SAT model; the solver names some that contradict each
other, and by leaving out one after the other they become irreducible: without any one of them there is a plan. Another
set may exist beside it, and once this one is mended, be explained next.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from ortools.sat.python import cp_model

from streams.allocation.plan import Breach
from streams.allocation.rules import HORIZON, RULES, TURNOVER, bed_of, late, room_of, usable
from streams.allocation.site import Bed, Need, Site

SECONDS = 30.0  # of one explanation
_SECONDS = 5.0  # of one question to the solver


@dataclass(frozen=True, slots=True)
class Conflict:
    """`rules`: irreducible, in order; `minimal` is False where the solver ran out of time while leaving out."""

    rules: tuple[Breach, ...]
    minimal: bool = True

    @property
    def sentence(self) -> str:
        """In plain words, persons by reference alone."""
        return "These cannot all be kept: " + "; ".join(_words(one) for one in self.rules) + "."


def _words(rule: Breach) -> str:
    refs = ", ".join(rule.refs[:5]) + (f" and {len(rule.refs) - 5} more" if len(rule.refs) > 5 else "")
    where = f" ({rule.where})" if rule.where else ""
    return f"{RULES[rule.rule]}{where}" + (f": {refs}" if refs else "")


def explain(site: Site, seconds: float = SECONDS) -> Conflict | None:
    """None where everybody who must have a bed can have one, or where the time does not suffice to say."""
    return explain_without(site, (), seconds)


def explain_without(site: Site, given_up: Iterable[Breach], seconds: float = SECONDS) -> Conflict | None:
    """The same where some rules are given up already."""
    ends = time.monotonic() + seconds
    model = _Model(site, frozenset(given_up))
    status, core = model.ask(model.rules, ends)
    if status != cp_model.INFEASIBLE:
        return None
    kept, minimal = list(core), True
    for rule in list(kept):
        fewer = [one for one in kept if one != rule]
        status, core = model.ask(fewer, ends)
        if status == cp_model.INFEASIBLE:
            kept = [one for one in fewer if one in set(core)]
        elif status == cp_model.UNKNOWN:
            minimal = False
    return Conflict(tuple(sorted(kept, key=lambda one: (one.rule, one.refs, one.where))), minimal)


class _Model:
    """Beds for those who must have one; whoever may wait, waits. One bed has one patient: that nobody gives up."""

    def __init__(self, site: Site, given_up: frozenset[Breach]) -> None:
        self.site, self.given_up = site, given_up
        self.cp = cp_model.CpModel()
        self.literal: dict[Breach, cp_model.IntVar] = {}
        self.room: dict[str, list[tuple[Need, cp_model.IntVar, float, float]]] = defaultdict(list)
        self.taken: dict[str, list[tuple[cp_model.IntVar, float, float]]] = defaultdict(list)
        self.lying: dict[str, list[Need]] = defaultdict(list)
        for stay in site.stays:
            if bed := bed_of(site, stay.bed):
                self.lying[bed.id].append(stay.need)
        beds = sorted(site.beds.values(), key=lambda one: one.id)
        for stay in site.stays:
            self._must(Breach("placed", (stay.need.ref,)), stay.need, stay.bed, 0.0, beds)
        for request in site.requests:
            if late(request, inf):
                self._must(Breach("due", (request.need.ref,)), request.need, None, max(request.due or 0.0, 0.0), beds)
        self._together()

    @property
    def rules(self) -> list[Breach]:
        return sorted(self.literal, key=lambda one: (one.rule, one.refs, one.where))

    def ask(self, rules: Sequence[Breach], ends: float) -> tuple[cp_model.CpSolverStatus, list[Breach]]:
        """(status, rules that contradict each other)."""
        if time.monotonic() >= ends:
            return cp_model.UNKNOWN, []
        self.cp.clear_assumptions()
        self.cp.add_assumptions([self.literal[rule] for rule in rules])
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.max_time_in_seconds = min(_SECONDS, max(0.05, ends - time.monotonic()))
        status = solver.solve(self.cp)
        if status != cp_model.INFEASIBLE:
            return status, []
        named = set(solver.sufficient_assumptions_for_infeasibility())
        return status, [rule for rule in rules if self.literal[rule].index in named]

    def _rule(self, rule: Breach) -> cp_model.IntVar | None:
        """Its literal; None where it is given up."""
        if rule in self.given_up:
            return None
        if rule not in self.literal:
            self.literal[rule] = self.cp.new_bool_var("")
        return self.literal[rule]

    def _must(self, rule: Breach, need: Need, own: str | None, by: float, beds: Sequence[Bed]) -> None:
        ways = []
        for bed in beds:
            mine = bed.id == own
            conditions = []
            if not usable(bed, bool(self.lying[bed.id])):
                conditions.append(Breach("usable", (), bed.id))
            if not need.needs <= bed.features:
                conditions.append(Breach("features", (need.ref,)))
            literals = [self._rule(condition) for condition in conditions]
            hours = {0.0}
            others = self.lying[bed.id]
            if not mine and by > 0 and len(others) == 1:
                hours |= {hour for hour in [max(others[0].leaves, TURNOVER)] if hour <= min(by, HORIZON)}
            for hour in sorted(hours):
                way = self.cp.new_bool_var("")
                ways.append(way)
                for literal in literals:
                    if literal is not None:
                        self.cp.add_implication(way, ~literal)
                end = max(need.leaves, TURNOVER) if mine else inf
                self.room[room_of(bed)].append((need, way, hour, end))
                self.taken[bed.id].append((way, hour, end))
        literal = self._rule(rule)
        if literal is not None:
            self.cp.add_bool_or([*ways, ~literal])
        self.cp.add_at_most_one(ways)

    def _together(self) -> None:
        for ways in self.taken.values():
            for hour in sorted({start for _, start, _ in ways}):
                self.cp.add_at_most_one([way for way, start, end in ways if start <= hour < end])
        for there in self.room.values():
            for hour in sorted({start for _, _, start, _ in there}):
                now = [(need, way) for need, way, start, end in there if start <= hour < end]
                self._mix("sex", [(way, need.sex) for need, way in now if need.sex in ("M", "F")])
                self._mix("isolation", [(way, need.isolation) for need, way in now])

    def _mix(self, name: str, ways: Sequence[tuple[cp_model.IntVar, str]]) -> None:
        values = sorted({value for _, value in ways})
        literal = self._rule(Breach(name, ())) if len(values) > 1 else None
        if literal is None:
            return
        chosen = {value: self.cp.new_bool_var("") for value in values}
        self.cp.add_exactly_one(chosen.values())
        for way, value in ways:
            self.cp.add_bool_or([~way, chosen[value], ~literal])
