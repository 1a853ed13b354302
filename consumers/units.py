"""Charts of units and procedures as a person asks for them, of everybody whom the caller may learn from.

They are drawn anew from cases as the index has them, by the functions that the stream draws with. A patient who denies
the caller's purpose is not among them, so they may be of fewer people than the stream's own.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from consumers import cases
from consumers.access import Caller
from consumers.search import answered
from infra import elastic
from infra.audit import Audit
from infra.errors import Inestimable, UsageError
from infra.settings import settings
from schemas import outcome_charts
from schemas.safe_harbor import SMALLEST
from streams.quality import charts, shown, signals
from streams.quality.cases import DIED_30D, measured
from streams.quality.charts import Chart, Signal
from streams.quality.funnel import Funnel, Point, ratio
from streams.quality.funnel import funnel as funnel_of
from streams.quality.units import PROCEDURE, UNIT, Design, Key, Units, Wanted, grouped

Row = dict[str, Any]
PERIODS = ("month", "quarter")
MOST_LISTED = 40
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


def read(caller: Caller, site: str, use: str) -> Units:
    """All charts, audited under `use`. Limits that the stream has found are taken from it. Raises Denied, StackDown."""
    of = settings()
    units = Units(Design(of.chart_odds_ratio, of.chart_run_length))
    found = cases.by_reference(caller, site)
    for who, one in found.items():
        units.take(who, one)
    for wanted, limits in _kept(site):
        if wanted.design == units.design:
            units.found(wanted, limits)
    units.charts()
    Audit.local().write(caller.act("E", fields=cases.TOLD, detail={"use": use, "total": str(len(found))}))
    return units


def _kept(site: str) -> Iterable[tuple[Wanted, charts.Limits]]:
    wanted: list[Row] = [{"term": {"kind": outcome_charts.CHART}}] + ([{"term": {"site": site}}] if site else [])
    with answered(cases.OF):
        for page in elastic.scan(outcome_charts.ALIAS, {"bool": {"filter": wanted}}, ("design", "stages")):
            for said in page:
                yield from signals.limits_of(said)


def chosen(
    units: Units, *, site: str = "", unit: str = "", procedure: str = "", scope: str = "", measure: str = ""
) -> list[Key]:
    """Charts by name. Raises UsageError where there is none, with the names that there are."""
    scope, name = (UNIT, unit) if unit else (PROCEDURE, procedure) if procedure else (scope, "")
    known = list(units.charts())
    of_site = [key for key in known if site in ("", key.site)]
    if not of_site:
        raise UsageError(f"no chart of outcomes there: sites that have one are {listed(key.site for key in known)}")
    of_scope = [key for key in of_site if scope in ("", key.scope)]
    named = [key for key in of_scope if name in ("", key.name)]
    if not named:
        raise UsageError(f"no chart of such a {scope}: there are {listed(key.name for key in of_scope)}")
    found = [key for key in named if measure in ("", key.measure)]
    if not found:
        raise UsageError(f"no chart of that measure there: there are {listed(key.measure for key in named)}")
    return sorted(found)


def one_site(keys: Sequence[Key]) -> str:
    """Raises UsageError where charts are of several."""
    if len(sites := {key.site for key in keys}) > 1:
        raise UsageError(f"these are charts of several sites: say --site, one of {listed(sites)}")
    return sites.pop()


def one(keys: Sequence[Key]) -> Key:
    one_site(keys)
    return keys[0]


def listed(names: Iterable[str]) -> str:
    held = sorted(set(names))
    more = f" and {len(held) - MOST_LISTED} more" if len(held) > MOST_LISTED else ""
    return (", ".join(held[:MOST_LISTED]) or "none yet") + more


# --------------------------------------------------------------------------------------------------------------- charts


def owners(units: Units, chart: Chart) -> dict[str, str]:
    return {one.record: units.whose(one.record) for day in chart.days for one in day.outcomes}


def rows(units: Units, keys: Sequence[Key]) -> list[Row]:
    """One a chart. Counts are of 11 people or more, and so that no sum over units beside one over procedures tells what
    is not shown: None. `few`: the whole chart is of fewer people, and nothing of it is shown. `now`: what the latest
    signals say, and about when that began."""
    counted = {key: shown.counted_on(units.chart(key), owners(units, units.chart(key))) for key in keys}
    uncounted: set[Key] = set()
    unequal: set[Key] = set()  # events are not shown
    for some in grouped(keys).values():
        uncounted |= shown.hidden({key: counted[key].people for key in some})
        unequal |= shown.hidden({key: min(counted[key].with_event, counted[key].without) for key in some})
    return [
        _row(units, key, counted[key].people < SMALLEST, key in uncounted, key in uncounted | unequal) for key in keys
    ]


def _row(units: Units, key: Key, few: bool, uncounted: bool, unequal: bool) -> Row:
    chart = units.chart(key)
    level, limits = chart.level, chart.spec.limits(chart.level.cases)
    row: Row = {"site": key.site, "scope": key.scope, "name": key.name, "measure": key.measure, "few": few}
    row |= dict.fromkeys(("cases", "events", "expected", "ratio", "upper", "lower", "vlad", "signals", "now"))
    if few:
        return row
    if not uncounted:
        row["cases"] = level.cases
    if not unequal and level.expected > 0:
        over = ratio(level.events, level.expected)
        row |= {"events": level.events, "expected": round(level.expected, 1)}
        row["ratio"] = {"value": round(over.ratio, 2), "low": round(over.low, 2), "high": round(over.high, 2)}
        row["vlad"] = round(level.vlad, 1)
    row["upper"], row["lower"] = _share(level.upper, limits.upper), _share(level.lower, limits.lower)
    row["signals"] = dict(Counter(one.kind for one in chart.signals))
    worse, run = shown.run(chart)
    if run:
        whose = owners(units, chart)
        since, at = (shown.about(chart, whose, day) for day in (run[0].since[0], run[-1].at))
        row["now"] = {"is": "worse" if worse else "better", "since": since, "signalled": at}
    return row


def _share(value: float, limit: float | None) -> float | None:
    """To a tenth: the level itself would tell the outcomes of a small chart."""
    return None if limit is None else round(value / limit, 1)


def told_signals(units: Units, key: Key) -> list[Row]:
    """The signals of a chart with what drove each, by keyed hash: for whoever may see records."""
    chart = units.chart(key)
    return [_told(chart, one) for one in chart.signals]


def _told(chart: Chart, one: Signal) -> Row:
    row: Row = {"kind": one.kind, "at": one.at, "since": one.since[0]}
    row |= {"value": round(one.value, 3), "limit": round(one.limit, 3)}
    return row | {"drivers": list(charts.drivers(chart, one))}


def enough(units: Units, key: Key) -> None:
    """Raises Inestimable where nothing of a chart may be drawn: `too_few_people`."""
    chart = units.chart(key)
    if not shown.counted_on(chart, owners(units, chart)).enough:
        raise Inestimable("too_few_people", f"fewer than {SMALLEST} with the event, or without it")


# --------------------------------------------------------------------------------------------------------------- funnel


def funnel(units: Units, keys: Sequence[Key]) -> tuple[Funnel, list[tuple[Key, Point]], int]:
    """Charts side by side: the funnel of all, the points that may be shown, and how many others there are.

    Raises BadOutcome, `no_cases` where nothing is expected of any.
    """
    held = {key: units.chart(key) for key in keys}
    counts = {str(number): (one.level.events, one.level.expected) for number, one in enumerate(held.values())}
    made = funnel_of({name: one for name, one in counts.items() if one[1] > 0})
    points = [(keys[int(one.unit)], one) for one in made.points]
    visible = [one for one in points if shown.counted_on(held[one[0]], owners(units, held[one[0]])).enough]
    return made, visible, len(points) - len(visible)


def funnel_rows(points: Iterable[tuple[Key, Point]]) -> list[Row]:
    rows = []
    for key, one in points:
        over, figures = one.ratio, {"z": one.z, "beyond": one.beyond}
        row = {"name": key.name, "events": over.observed, "expected": round(over.expected, 1)}
        row |= {"ratio": round(over.ratio, 3), "low": round(over.low, 3), "high": round(over.high, 3)}
        rows.append(row | {name: round(value, 3) for name, value in figures.items()})
    return sorted(rows, key=lambda row: -row["z"])


# ---------------------------------------------------------------------------------------------------------------- cases


@dataclass(frozen=True, slots=True)
class Asked:
    """Which cases: by names, by months of their outcomes (2026-03) from `begin` to `end`, by expected risk."""

    site: str = ""
    unit: str = ""
    procedure: str = ""
    measure: str = DIED_30D
    begin: str = ""
    end: str = ""
    risk_above: float | None = None
    by: str = PERIODS[0]

    def __post_init__(self) -> None:
        if self.by not in PERIODS:
            raise UsageError(f"--by is one of {', '.join(PERIODS)}")
        if any(said and not _MONTH.fullmatch(said) for said in (self.begin, self.end)):
            raise UsageError("--from and --to are months, such as 2026-03: of days there would be too few people")
        if self.begin and self.end and self.end < self.begin:
            raise UsageError("--to is before --from")
        if self.risk_above is not None and not 0 <= self.risk_above < 1:
            raise UsageError("--risk-above is a probability, from 0 to below 1")


def tabled(units: Units, asked: Asked) -> Row:
    """Counts and mean expected risk by month or quarter, of outcomes that are due. Of nobody alone.

    Raises UsageError for a site, unit, procedure or measure of which there is no case.
    """
    names: dict[str, set[str]] = defaultdict(set)
    cells: dict[str, list[tuple[str, bool, float | None]]] = defaultdict(list)
    for (site, who), one in units.people.items():
        known = {case.record: case for case in one.cases}
        for found in measured(one):
            case = known[found.record]
            is_of = {"site": site, "unit": case.unit, "procedure": case.procedure, "measure": found.measure}
            for name, value in is_of.items():
                names[name].add(value)
            if any(getattr(asked, name) not in ("", value) for name, value in is_of.items()):
                continue
            month, expected = found.at[:7], case.expected.get(found.measure)
            risk = expected.risk if expected is not None else None
            if found.due > units.known(site) or month < asked.begin or (asked.end and month > asked.end):
                continue
            if asked.risk_above is None or (risk is not None and risk > asked.risk_above):
                quarter = f"{month[:4]}-Q{(int(month[5:]) + 2) // 3}"
                cells[month if asked.by == PERIODS[0] else quarter].append((who, found.event, risk))
    for name in ("site", "unit", "procedure", "measure"):
        if (wanted := getattr(asked, name)) and wanted not in names[name]:
            raise UsageError(f"no case is of that {name}: there are {listed(names[name] - {''})}")
    counts = {period: shown.counted((who, event) for who, event, _ in some) for period, some in cells.items()}
    few = shown.hidden({period: one.people for period, one in counts.items()})
    unequal = shown.hidden({period: min(one.with_event, one.without) for period, one in counts.items()})
    rows = [_cell(period, cells[period], period in few, period in few | unequal) for period in sorted(cells)]
    every = [one for some in cells.values() for one in some]
    whole = shown.counted((who, event) for who, event, _ in every)
    return {
        "measure": asked.measure,
        "by": asked.by,
        "rows": rows,
        "all": _cell("all", every, whole.people < SMALLEST, not whole.enough),
    }


def _cell(period: str, some: Sequence[tuple[str, bool, float | None]], hidden: bool, unequal: bool) -> Row:
    risks = [(who, risk) for who, _, risk in some if risk is not None]
    mean = round(sum(risk for _, risk in risks) / len(risks), 4) if len({who for who, _ in risks}) >= SMALLEST else None
    return {
        "period": period,
        "cases": None if hidden else len(some),
        "events": None if hidden or unequal else sum(event for _, event, _ in some),
        "mean_risk": None if hidden else mean,
    }
