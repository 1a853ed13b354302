"""The charts of all units and procedures, as a function of people and what became of them. Pure.

An outcome is on the chart of its unit and on that of its procedure once it is due and has an expected risk. Time is the
site's own: an outcome is due when any event of the site is later. Charts begin with the year before the one that the
site is in, so that whoever makes them anew, from whatever is kept, makes the same.

Limits depend on the mix of risks, so each chart has its own, of the first 16, 64, 256, ... outcomes: from each of these
numbers on limits hold that were found on the mix up to there (streams/quality/limits.py). What was raised before
stands. The mix is counted in steps of a quarter of log odds, which moves a limit by less than a hundredth, so that
charts of one mix share a limit and a correction seldom asks for another.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from streams.quality import limits
from streams.quality.cases import Case, Measured, Person, measured, trouble
from streams.quality.charts import LEAST_RISK, Chart, Limits, Outcome, Spec, VladLimits, drawn, steps

UNIT, PROCEDURE = "unit", "procedure"  # scopes
STAGES = (16, 64, 256, 1024, 4096, 16384)
MOST_CHARTS = 2000  # of all sites: messages may name any unit
FINE = limits.GRID // 2
_STEPS = 4  # of log odds, in one
Mix = tuple[tuple[int, int], ...]  # step of log odds, and how many outcomes are on it
Of = tuple[str, str]  # site and reference of a person
Place = tuple[str, str]  # of an outcome in its chart: when, and which record


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which chart. `name` is that of the unit or the procedure."""

    site: str
    scope: str
    name: str
    measure: str


@dataclass(frozen=True, slots=True)
class Design:
    """How charts are drawn. `run_length`: outcomes from one false alarm of a CUSUM to the next, each way, in the mean.
    `alarms`: share of a VLAD's periods of `period` outcomes with a false alarm."""

    odds_ratio: float = 2.0
    run_length: float = 5000.0
    period: int = 100
    alarms: float = 0.02


@dataclass(frozen=True, slots=True)
class Wanted:
    """Limits that are to be found: `found` finds them, in a tenth of a second or two."""

    mix: Mix
    design: Design


@dataclass(frozen=True, slots=True)
class _Item:
    """An outcome of one case, due or not. `risk` is None while nobody has said any."""

    at: str
    due: str
    event: bool
    risk: float | None


@dataclass(slots=True)
class _State:
    chart: Chart
    items: dict[str, _Item] = field(default_factory=dict)  # by record
    counted: dict[str, _Item] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)  # records that may count otherwise by now
    told: int = 0
    where: dict[str, str] = field(default_factory=dict)  # the day of every record that the chart has
    mixes: list[tuple[Mix, Place]] = field(default_factory=list)  # of each stage that was reached, and its last outcome


class Units:
    """All charts. `take` tells what is known of a person by now; `charts` brings forward what that has changed."""

    def __init__(self, design: Design = Design()) -> None:
        self.design = design
        self._people: dict[Of, Person] = {}
        self._of: dict[str, Of] = {}  # by record
        self._on: dict[Of, dict[tuple[Key, str], _Item]] = {}
        self._states: dict[Key, _State] = {}
        self._known: dict[str, str] = {}
        self._since: dict[str, str] = {}
        self._found: dict[Mix, Limits] = {}
        self._changed: set[Key] = set()
        self._pending: dict[str, list[tuple[str, Key, str, Of]]] = defaultdict(list)  # heaps, first due first
        self.fresh: set[Of] = set()  # of whom something is new, or due now: their risks may be lacking

    def take(self, of: Of, one: Person | None) -> None:
        """What is known of a person at a site by now; None: nothing any more."""
        site, _ = of
        if one is None:
            self._people.pop(of, None)
        else:
            self._people[of] = one
            self._pass(site, one.known)
        made = dict(self._items(site, one)) if one is not None else {}
        before = self._on.get(of, {})
        for (key, record), item in made.items():
            if before.get((key, record)) != item:
                self._touch(of, key, record, item)
        for key, record in before.keys() - made.keys():
            self._touch(of, key, record, None)
        if made:
            self._on[of] = made
            self.fresh.add(of)
        else:
            self._on.pop(of, None)

    def _items(self, site: str, one: Person) -> Iterator[tuple[tuple[Key, str], _Item]]:
        cases = {case.record: case for case in one.cases}
        for found in measured(one):
            case = cases[found.record]
            expected = case.expected.get(found.measure)
            item = _Item(found.at, found.due, found.event, expected.risk if expected is not None else None)
            for scope, name in ((UNIT, case.unit), (PROCEDURE, case.procedure)):
                if name:
                    yield (Key(site, scope, name, found.measure), case.record), item

    def _touch(self, of: Of, key: Key, record: str, item: _Item | None) -> None:
        if key not in self._states:
            if key.scope == PROCEDURE and (item is None or item.risk is None):
                return  # there are hundreds: those that nobody expects anything of have no chart
            if len(self._states) >= MOST_CHARTS:
                return
            self._states[key] = _State(Chart(key.name, Spec(self.design.odds_ratio)))
        state = self._states[key]
        if item is None:
            state.items.pop(record, None)
        else:
            state.items[record] = item
            self._of[record] = of
            if item.due > self._known[key.site]:
                heappush(self._pending[key.site], (item.due, key, record, of))
        state.touched.add(record)
        self._changed.add(key)

    def _pass(self, site: str, known: str) -> None:
        """Time goes on at a site, never back."""
        before = self._known.get(site, "")
        if known <= before:
            return
        self._known[site] = known
        since, pending = f"{int(known[:4]) - 1:04}-01-01T00:00:00.000Z", self._pending[site]
        while pending and pending[0][0] <= known:
            _, key, record, of = heappop(pending)
            self.fresh.add(of)
            self._states[key].touched.add(record)
            self._changed.add(key)
        if since != self._since.get(site):
            self._since[site] = since
            for key in (one for one in self._states if one.site == site):
                self._states[key].touched |= self._states[key].items.keys()
                self._changed.add(key)

    def charts(self) -> Mapping[Key, Chart]:
        """All charts that have an outcome, or had one."""
        self.changed()
        return {key: state.chart for key, state in self._states.items() if state.chart.days or state.told}

    def have(self, key: Key) -> None:
        """A chart of this key, with or without outcomes."""
        self._states.setdefault(key, _State(Chart(key.name, Spec(self.design.odds_ratio))))
        self._known.setdefault(key.site, "")
        self._since.setdefault(key.site, "")
        self._changed.add(key)

    def changed(self, most: int = MOST_CHARTS) -> set[Key]:
        """Charts that may be others than when this was asked last: so many, the others when it is asked again."""
        touched = set(sorted(self._changed)[:most])
        self._changed -= touched
        for key in touched:
            self._states[key].chart = self._advanced(key, self._states[key])
        return touched

    @property
    def any_changed(self) -> bool:
        return bool(self._changed)

    def chart(self, key: Key) -> Chart:
        return self._states[key].chart

    def whose(self, record: str) -> str:
        """The reference of the person whose case a record is; empty for one that nobody has any more."""
        return self._of[record][1] if record in self._of else ""

    def _advanced(self, key: Key, state: _State) -> Chart:
        known, since = self._known[key.site], self._since[key.site]
        told: list[Outcome] = []
        first: Place | None = None  # from where on the chart is another
        for record in state.touched:
            item, was = state.items.get(record), state.counted.get(record)
            if item is not None and not (item.due <= known and item.at >= since and item.risk is not None):
                item = None
            if item == was:
                continue
            state.told += 1
            for one in (item, was):
                if one is not None and (first is None or (one.at, record) < first):
                    first = one.at, record
            if item is not None:
                state.counted[record] = item
                told.append(_outcome(key, record, item, state.told, item.event))
            elif was is not None:
                del state.counted[record]
                told.append(_outcome(key, record, was, state.told, None))
        state.touched = set()
        chart = steps(state.chart, told, state.where) if told else state.chart
        state.where |= {one.record: one.day for one in told}
        self._mix(state, first)
        known_mixes = ((number, mix) for number, (mix, _) in zip(STAGES, state.mixes, strict=False))
        stages = tuple((number, self._found[mix]) for number, mix in known_mixes if mix in self._found)
        return chart if stages == chart.spec.stages else drawn(chart, replace(chart.spec, stages=stages))

    def _mix(self, state: _State, first: Place | None) -> None:
        """Count again the mix of stages whose outcomes have changed, or that are reached now."""
        if first is not None:
            state.mixes = [one for one in state.mixes if one[1] < first]
        wanted = [number for number in STAGES if number <= len(state.counted)]
        if len(state.mixes) >= len(wanted):
            return
        ordered = sorted(((one.at, record), one.risk or 0.0) for record, one in state.counted.items())
        state.mixes = [(mix_of(risk for _, risk in ordered[:number]), ordered[number - 1][0]) for number in wanted]

    def wanted(self, keys: Iterable[Key]) -> set[Wanted]:
        """Limits that charts lack; `found` is to be told of each."""
        mixes = {mix for key in keys for mix, _ in self._states[key].mixes}
        return {Wanted(mix, self.design) for mix in mixes - self._found.keys()}

    def limits(self, key: Key) -> list[tuple[Mix, Limits]]:
        """The limits of a chart that are known, with the mix that each was found on."""
        return [(mix, self._found[mix]) for mix, _ in self._states[key].mixes if mix in self._found]

    def found(self, one: Wanted, limits: Limits) -> None:
        self._found[one.mix] = limits
        self._changed |= {key for key, state in self._states.items() if any(mix == one.mix for mix, _ in state.mixes)}

    def find(self, keys: Iterable[Key] | None = None, told: Callable[[int, int], None] = lambda *_: None) -> None:
        """Limits that these charts lack, or all, here and now; `told` hears how many are done, of how many."""
        self.changed()
        lacking = sorted(self.wanted(self._states if keys is None else keys), key=lambda one: one.mix)
        for number, one in enumerate(lacking):
            told(number, len(lacking))
            self.found(one, find(one))
        self.changed()

    def waiting(self, key: Key) -> tuple[int, int]:
        """Outcomes that are not due yet, and those that are and have no expected risk; of the time that counts."""
        known, since = self.known(key.site), self.since(key.site)
        items = [one for one in self._states[key].items.values() if one.at >= since]
        late = sum(one.due > known for one in items)
        return late, sum(one.due <= known and one.risk is None for one in items)

    def outcomes(self, of: Of) -> list[tuple[Case, Measured]]:
        """What is due of a person's cases, by whatever risk or none."""
        site, _ = of
        if (one := self._people.get(of)) is None:
            return []
        cases = {case.record: case for case in one.cases}
        due = (found for found in measured(one) if found.due <= self._known[site] and found.at >= self._since[site])
        return [(cases[found.record], found) for found in due]

    @property
    def people(self) -> Mapping[Of, Person]:
        return self._people

    def since(self, site: str) -> str:
        """From when on outcomes of the site count."""
        return self._since.get(site, "")

    def known(self, site: str) -> str:
        """The latest moment that an event of the site has told of."""
        return self._known.get(site, "")

    @property
    def troubles(self) -> Counter[tuple[str, str]]:
        """Cases that cannot be counted, by site and reason."""
        made: Counter[tuple[str, str]] = Counter()
        for (site, _), one in self._people.items():
            made.update((site, why) for case in one.cases if (why := trouble(case, one.died)))
        return made


def _outcome(key: Key, record: str, item: _Item, told: int, event: bool | None) -> Outcome:
    return Outcome(record, key.name, item.at, f"{told:012}", item.risk or 0.0, event)


def mix_of(risks: Iterable[float]) -> Mix:
    """Risks in steps of log odds."""
    inside = (min(max(risk, LEAST_RISK), 1 - LEAST_RISK) for risk in risks)
    return tuple(sorted(Counter(round(_STEPS * math.log(risk / (1 - risk))) for risk in inside).items()))


def find(one: Wanted) -> Limits:
    """The limits of a chart whose outcomes have this mix. Rounded, since the last bits vary by machine."""
    mix = [1 / (1 + math.exp(-step / _STEPS)) for step, count in one.mix for _ in range(count)]
    design = one.design
    upper, lower = (
        limits.chain_limit(mix, ratio, design.run_length, grid=FINE)
        for ratio in (design.odds_ratio, 1 / design.odds_ratio)
    )
    vlad = limits.vlad_limits(mix, design.period, design.alarms)
    vlad = VladLimits(round(vlad.low, 6), round(vlad.high, 6), round(vlad.floor, 9), vlad.cases)
    return Limits(round(upper, 6), round(lower, 6), vlad)


def grouped(keys: Iterable[Key]) -> dict[tuple[str, str, str], list[Key]]:
    """Charts that stand side by side: of one site, scope and measure."""
    made: dict[tuple[str, str, str], list[Key]] = defaultdict(list)
    for key in sorted(keys):
        made[key.site, key.scope, key.measure].append(key)
    return made
