"""Charts of one unit's outcomes: risk-adjusted CUSUM, plain CUSUM and VLAD, as one fold that can be revised. Pure.

The CUSUM is that of Steiner, Cook, Farewell and Treasure (Biostatistics 1, 2000): it adds up the log-likelihood ratio
of odds R times as high against odds as the model expects,

    w = event log R - log(1 - p + R p),    upper = max(0, upper + w with R),    lower = max(0, lower + w with 1/R)

and begins again at 0 after it has reached its limit. The VLAD (Lovegrove et al., Lancet 350, 1997) adds up p - event:
lives beyond what was expected. streams/quality/limits.py tells where the limits lie.

A chart is a function of its outcomes, one for each record, in order of event time, and of nothing else: an outcome that
comes late, again or corrected ends in the chart that a clean pass ends in, to the last bit. So outcomes are held by
day, each day with the level at its end, and a change folds again from its own day on. Whoever keeps charts keeps
outcomes (streams/quality/units.py), and says from which day on they count.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from infra.errors import BadOutcome, UsageError

LEAST_RISK = 1e-6  # a model that is certain is taken at this, and counted: one death would be proof of anything
WORSE = frozenset(("cusum_upper", "vlad_low"))  # kinds of signals; the others say better
MOST_DRIVERS = 50  # of one signal
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record (a stay, an operation). `record` is a keyed hash, so a chart identifies nobody."""

    record: str
    unit: str
    at: str  # event time, RFC 3339 in UTC with milliseconds, so text order is time order
    told: str  # position of the event that told it (`streams.fold.position`): the latest stands
    risk: float  # expected probability, by the model that was in force
    event: bool | None  # died, came back, ...; None: withdrawn, or another unit's by now

    @property
    def place(self) -> tuple[str, str]:
        return self.at, self.record

    @property
    def day(self) -> str:
        return self.at[:10]


@dataclass(frozen=True, slots=True)
class VladLimits:
    """Beyond `-low` or `high` times the square root of the variance, `floor` at least, in one period of `cases`."""

    low: float
    high: float
    floor: float
    cases: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a CUSUM that goes up, of one that goes down, of a VLAD. None raises no signal."""

    upper: float | None = None
    lower: float | None = None
    vlad: VladLimits | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """How a chart is drawn. `stages`: limits, each from that many cases on; the mix of the first cases tells where
    they lie, and what was raised by earlier ones stands. `baseline`: one risk for everybody, a plain CUSUM."""

    odds_ratio: float = 2.0
    stages: tuple[tuple[int, Limits], ...] = ()
    baseline: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.odds_ratio) and self.odds_ratio > 1):
            raise UsageError("the odds ratio of a chart is above 1; the lower CUSUM takes its inverse")
        given = (limit for _, one in self.stages for limit in (one.upper, one.lower))
        if any(limit is not None and not limit > 0 for limit in given):
            raise UsageError("a limit of a CUSUM is above 0")
        if self.baseline is not None and not 0 < self.baseline < 1:
            raise UsageError("the baseline of a plain CUSUM is between 0 and 1")

    def limits(self, cases: int) -> Limits:
        """Those that hold for the next case after so many."""
        held = Limits()
        for begins, one in self.stages:
            if begins > cases:
                break
            held = one
        return held


@dataclass(frozen=True, slots=True)
class Level:
    """Where a chart stands after an outcome. `upper` and `lower` are both 0 or more; the lower one is drawn below.

    `upper_since`, `lower_since`: place of the outcome with which the CUSUM left 0, where a change most likely began.
    """

    cases: int = 0
    events: int = 0
    expected: float = 0.0
    variance: float = 0.0
    certain: int = 0  # risks of 0 or 1
    upper: float = 0.0
    lower: float = 0.0
    upper_since: tuple[str, str] = ("", "")
    lower_since: tuple[str, str] = ("", "")
    vlad: float = 0.0
    vlad_variance: float = 0.0
    vlad_cases: int = 0
    vlad_since: tuple[str, str] = ("", "")
    vlad_out: bool = False  # it has signalled in this period


@dataclass(frozen=True, slots=True)
class Signal:
    """`kind`: cusum_upper (worse), cusum_lower (better), vlad_low (worse), vlad_high (better)."""

    kind: str
    at: str
    record: str
    value: float
    limit: float
    since: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Day:
    """The outcomes of one day in their order, and the level at its end."""

    day: str
    outcomes: tuple[Outcome, ...]
    end: Level
    signals: tuple[Signal, ...]
    known: frozenset[str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Chart:
    unit: str
    spec: Spec = Spec()
    days: tuple[Day, ...] = ()

    @property
    def level(self) -> Level:
        return self.days[-1].end if self.days else Level()

    @property
    def signals(self) -> tuple[Signal, ...]:
        return tuple(one for day in self.days for one in day.signals)


def fixed(
    upper: float | None = None, lower: float | None = None, vlad: VladLimits | None = None
) -> tuple[tuple[int, Limits], ...]:
    """Stages of limits that hold from the first case on."""
    return ((0, Limits(upper, lower, vlad)),)


def weight(risk: float, event: bool, odds_ratio: float) -> float:
    """The log-likelihood ratio that one outcome adds (Steiner et al. 2000, equation 2.3)."""
    return (math.log(odds_ratio) if event else 0.0) - math.log1p((odds_ratio - 1) * risk)


def step(chart: Chart, outcome: Outcome) -> Chart:
    """The chart after one outcome; the same object where nothing changes (told again, or told better already).

    Raises BadOutcome: `unknown_unit`, `bad_time`, `bad_position`, `bad_risk`.
    """
    _check(chart, outcome)
    held = _held(chart, outcome.record)
    return steps(chart, (outcome,), {outcome.record: held.day} if held is not None else {})


def steps(chart: Chart, outcomes: Iterable[Outcome], where: Mapping[str, str] | None = None) -> Chart:
    """As `step` with each, in one fold from the earliest day that changes. Raises BadOutcome, and then takes none.

    `where` gives the day of every record of the chart, where somebody keeps that: else each day is looked through.
    """
    latest: dict[str, Outcome] = {}
    for one in outcomes:
        _check(chart, one)
        if one.record not in latest or latest[one.record].told < one.told:
            latest[one.record] = one
    if where is not None and not latest.keys() & where.keys():
        told = sorted(latest.values(), key=lambda one: one.place)
        if told and chart.days and told[0].place > chart.days[-1].outcomes[-1].place:
            return replace(chart, days=_longer(chart, told))  # the usual case: nothing that was is another
    days = {day.day: day for day in chart.days}
    changed: dict[str, dict[str, Outcome]] = {}

    def of(day: str) -> dict[str, Outcome]:
        if day not in changed:
            changed[day] = {one.record: one for one in days[day].outcomes} if day in days else {}
        return changed[day]

    for record, one in latest.items():
        if where is None:
            before = _held(chart, record)
        else:
            day = days.get(where.get(record, ""))
            before = next((one for one in day.outcomes if one.record == record), None) if day is not None else None
        if before is not None:
            if before.told >= one.told:
                continue
            del of(before.day)[record]
        of(one.day)[record] = one
    if not changed:
        return chart
    first = min(changed)
    made = list(chart.days[: bisect_left([day.day for day in chart.days], first)])
    level = made[-1].end if made else Level()
    for name in sorted({name for name in days if name >= first} | set(changed)):
        held = sorted(of(name).values(), key=lambda one: one.place) if name in changed else days[name].outcomes
        if held:
            made.append(_fold(name, held, level, chart.spec))
            level = made[-1].end
    return replace(chart, days=tuple(made))


def drawn(chart: Chart, spec: Spec) -> Chart:
    """The same outcomes, drawn otherwise."""
    return steps(Chart(chart.unit, spec), (one for day in chart.days for one in day.outcomes))


def points(chart: Chart) -> Iterator[tuple[Outcome, Level]]:
    """Each outcome that is held and counted, with the level after it: what a picture is drawn of."""
    level = Level()
    for day in chart.days:
        for one in day.outcomes:
            if one.event is not None:
                level, _ = _advance(level, one, chart.spec)
                yield one, level


def drivers(chart: Chart, signal: Signal) -> tuple[str, ...]:
    """The records that drove a signal, heaviest first: those since `since` that moved it towards its limit."""
    ratio = chart.spec.odds_ratio if signal.kind == "cusum_upper" else 1 / chart.spec.odds_ratio

    def pull(one: Outcome) -> float:
        risk, event = _risk(one, chart.spec), bool(one.event)
        if signal.kind.startswith("vlad"):
            gain = risk - event
            return gain if signal.kind == "vlad_high" else -gain
        return weight(risk, event, ratio)

    until = (signal.at, signal.record)
    some = (day for day in chart.days if signal.since[0][:10] <= day.day <= signal.at[:10])
    held = (one for day in some for one in day.outcomes if one.event is not None)
    moved = [(pull(one), one) for one in held if signal.since <= one.place <= until]
    heaviest = sorted((one for one in moved if one[0] > 0), key=lambda one: (-one[0], one[1].place))
    return tuple(one.record for _, one in heaviest[:MOST_DRIVERS])


def compare(before: Chart, after: Chart) -> tuple[tuple[Signal, ...], tuple[Signal, ...]]:
    """(raised, withdrawn): what an outcome, or a correction, has changed in what people were told.

    A signal is the same while the same record raises it; its value may have moved.
    """
    was, now = ({(one.kind, one.record): one for one in chart.signals} for chart in (before, after))
    raised = tuple(one for name, one in now.items() if name not in was)
    return raised, tuple(one for name, one in was.items() if name not in now)


def _check(chart: Chart, one: Outcome) -> None:
    if one.unit != chart.unit:
        raise BadOutcome("unknown_unit")
    if not _is_time(one.at):
        raise BadOutcome("bad_time")
    if not (one.record and one.told):
        raise BadOutcome("bad_position")
    if not 0 <= one.risk <= 1:  # NaN too
        raise BadOutcome("bad_risk")


def _is_time(text: str) -> bool:
    """One form alone, or text order would not be time order; and a day that there is."""
    try:
        return _TIME.fullmatch(text) is not None and datetime.fromisoformat(text) is not None
    except ValueError:
        return False


def _held(chart: Chart, record: str) -> Outcome | None:
    for day in reversed(chart.days):
        if record in day.known:
            return next(one for one in day.outcomes if one.record == record)
    return None


def _longer(chart: Chart, told: Iterable[Outcome]) -> tuple[Day, ...]:
    """The days of a chart with later outcomes, which are in order."""
    made = list(chart.days)
    for name, some in groupby(told, key=lambda one: one.day):
        last = made[-1]
        one = _fold(name, some, last.end, chart.spec)
        if last.day == name:
            both = last.outcomes + one.outcomes
            made[-1] = Day(name, both, one.end, last.signals + one.signals, last.known | one.known)
        else:
            made.append(one)
    return tuple(made)


def _fold(day: str, outcomes: Iterable[Outcome], level: Level, spec: Spec) -> Day:
    held, signals = tuple(outcomes), []
    for one in held:
        if one.event is not None:
            level, raised = _advance(level, one, spec)
            signals += raised
    return Day(day, held, level, tuple(signals), frozenset(one.record for one in held))


def _risk(one: Outcome, spec: Spec) -> float:
    return min(max(one.risk, LEAST_RISK), 1 - LEAST_RISK) if spec.baseline is None else spec.baseline


def _advance(was: Level, one: Outcome, spec: Spec) -> tuple[Level, list[Signal]]:
    """One outcome further. A CUSUM that stands at its limit has signalled, and begins again at 0."""
    risk, event, signals, limits = _risk(one, spec), bool(one.event), [], spec.limits(was.cases)
    spread = risk * (1 - risk)

    def cusum(kind: str, value: float, since: tuple[str, str], ratio: float, limit: float | None) -> Any:
        before = 0.0 if limit is not None and value >= limit else value
        value = max(0.0, before + weight(risk, event, ratio))
        since = (since if before > 0 else one.place) if value > 0 else ("", "")
        if limit is not None and value >= limit:
            signals.append(Signal(kind, one.at, one.record, value, limit, since))
        return value, since

    upper, upper_since = cusum("cusum_upper", was.upper, was.upper_since, spec.odds_ratio, limits.upper)
    lower, lower_since = cusum("cusum_lower", was.lower, was.lower_since, 1 / spec.odds_ratio, limits.lower)
    begins = was.vlad_cases == 0 or (limits.vlad is not None and was.vlad_cases >= limits.vlad.cases)
    vlad = (0.0 if begins else was.vlad) + risk - event
    vlad_variance = (0.0 if begins else was.vlad_variance) + spread
    vlad_since = one.place if begins else was.vlad_since
    out = was.vlad_out and not begins
    if limits.vlad is not None and not out:
        unit = math.sqrt(max(vlad_variance, limits.vlad.floor))
        if not -limits.vlad.low * unit <= vlad <= limits.vlad.high * unit:
            out = True
            kind, limit = ("vlad_low", -limits.vlad.low * unit) if vlad < 0 else ("vlad_high", limits.vlad.high * unit)
            signals.append(Signal(kind, one.at, one.record, vlad, limit, vlad_since))
    return Level(
        was.cases + 1,
        was.events + event,
        was.expected + risk,
        was.variance + spread,
        was.certain + (one.risk in (0, 1)),
        upper,
        lower,
        upper_since,
        lower_since,
        vlad,
        vlad_variance,
        1 if begins else was.vlad_cases + 1,
        vlad_since,
        out,
    ), signals
