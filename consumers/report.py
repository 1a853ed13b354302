"""What a report of one unit says, counted so that it tells of nobody: consumers/page.py makes a page of it.

Everything here has passed streams/quality/shown.py: the page need not know what may be shown. Times are months or
quarters in which 11 people or more were counted.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from consumers import cases as held
from consumers import figures, unit_plots
from consumers import units as charts_of
from consumers.access import Caller
from consumers.plots import Plot
from consumers.search import answered
from infra import elastic
from infra.audit import Audit
from infra.errors import BadOutcome, Inestimable, UsageError
from infra.keystore import KeyStore
from schemas.safe_harbor import SMALLEST
from streams.quality import limits, shown, survival
from streams.quality.cases import follow_up, trouble
from streams.quality.charts import Chart
from streams.quality.funnel import Ratio, ratio
from streams.quality.riskset import cases as at_risk
from streams.quality.shown import FEW, Block
from streams.quality.units import UNIT, Key, Units

REPORTED = (
    ("kind", "site", "unit", "patient_ref", "event_time", "action", "reporter", "instrument", "item", "score")
    + ("decision", "amount", "currency")
)  # fmt: skip
STAFFED = ("kind", "site", "unit", "event_time", "action", "staffing", "role", "starts_at", "planned", "present")
Row = dict[str, Any]
Cells = list[list[str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """`tone`: worse, better, quiet, unknown. `chance`: how sure that is."""

    tone: str
    sentence: str
    chance: str


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Of one measure. `over` is None where events are of too few people; then there are no figures either."""

    measure: str
    answer: Answer
    cases: int | None
    over: Ratio | None
    blocks: Sequence[Block]
    plots: Sequence[Plot]
    funnel: Plot | None
    funnel_rows: Sequence[Row]
    left_out: int
    place: str  # of the unit in the funnel, in words
    waiting: tuple[str, str]  # not due yet; without an expected risk


@dataclass(frozen=True, slots=True)
class Table:
    head: Sequence[str]
    rows: Cells
    said: str  # in words


@dataclass(frozen=True, slots=True)
class Report:
    site: str
    unit: str
    known: str  # month
    odds_ratio: float
    run_length: float
    period: int
    alarms: float
    outcomes: Sequence[Outcomes]
    survival: tuple[Plot, Table] | str  # why there is none
    mix: Table
    reports: Table
    staffing: Table
    troubles: Table


def collect(caller: Caller, units: Units, keys: Sequence[Key]) -> Report:
    """The report of one unit at one site. Raises Denied, StackDown; UsageError for keys of several."""
    if len({(key.site, key.name) for key in keys}) != 1:
        raise UsageError("a report is of one unit at one site")
    caller.require(held.OF, "see", {*REPORTED, *STAFFED})
    site, of = keys[0].site, {"term": {"site": keys[0].site}}
    reports = _events([of, {"term": {"kind": "report_event"}}, caller.persons().clause()], REPORTED)
    mine = {"term": {"unit": keys[0].name}}
    staffing = _events([of, mine, {"term": {"kind": "staffing_event"}}], STAFFED)
    merged = KeyStore.local()[1].merged()
    reports = [one | {"patient_ref": merged.get(one["patient_ref"], one["patient_ref"])} for one in reports]
    said = {"use": "outcome_report", "total": str(len(reports))}
    Audit.local().write(caller.act("E", fields=(*REPORTED, *STAFFED), entities=(site,), detail=said))
    return report(units, keys, reports, staffing)


def _events(wanted: list[Row], fields: Sequence[str]) -> list[Row]:
    with answered(held.OF):
        return [one for page in elastic.scan(held.OF.alias, {"bool": {"filter": wanted}}, fields) for one in page]


def report(units: Units, keys: Sequence[Key], reports: Iterable[Row], staffing: Iterable[Row]) -> Report:
    """`reports` are of all units of the site, so that this one is beside the others; `staffing` of this one."""
    site, unit, design = keys[0].site, keys[0].name, units.design
    return Report(
        site,
        unit,
        shown.month(units.known(site)),
        design.odds_ratio,
        design.run_length,
        design.period,
        design.alarms,
        [_outcomes(units, key) for key in keys],
        _survival(units, site, unit),
        _mix(units, keys[0]),
        _reported(reports, unit),
        _staffed(staffing),
        _troubles(units, site),
    )


# ------------------------------------------------------------------------------------------------------------- outcomes


def _outcomes(units: Units, key: Key) -> Outcomes:
    chart, whose = units.chart(key), charts_of.owners(units, units.chart(key))
    counted = shown.counted_on(chart, whose)
    over = ratio(chart.level.events, chart.level.expected) if counted.enough else None
    blocks = shown.blocks(chart, whose) if over is not None else []
    plots = [unit_plots.cusum(key, blocks), unit_plots.vlad(key, blocks)] if blocks else []
    peers = [one for one in units.charts() if (one.site, one.scope, one.measure) == (key.site, UNIT, key.measure)]
    plot, rows, left_out, place = None, [], 0, "Nothing is expected of any unit yet, so there is no funnel."
    try:
        made, points, left_out = charts_of.funnel(units, sorted(peers))
    except BadOutcome:
        pass
    else:
        place = _place([one.beyond for of, one in points if of == key], key.name)
        if points:
            plot = unit_plots.funnel_plot(made, points, key.measure, key.name, left_out)
            rows = charts_of.funnel_rows(points)
    cases = chart.level.cases if counted.people >= SMALLEST else None
    late, unscored = (_few(one) for one in units.waiting(key))
    answer = _answer(units, key, cases, over)
    return Outcomes(key.measure, answer, cases, over, blocks, plots, plot, rows, left_out, place, (late, unscored))


def _few(count: int) -> str:
    return str(count) if count >= SMALLEST or not count else FEW


def _place(beyond: Sequence[float], unit: str) -> str:
    if not beyond:
        return f"{unit} has events of too few people to be shown among its peers."
    if not beyond[0]:
        return f"{unit} lies within the limits of 95%: what chance and the usual difference between units allow."
    side = "above" if beyond[0] > 0 else "below"
    limit = f"{100 * abs(beyond[0]):g}%"
    return f"{unit} lies {side} the limit of {limit}: further than chance and the usual difference allow."


def _answer(units: Units, key: Key, cases: int | None, over: Ratio | None) -> Answer:
    chart, whose = units.chart(key), charts_of.owners(units, units.chart(key))
    words, design = unit_plots.words(key.measure), units.design
    if cases is None or not chart.spec.stages:
        return Answer("unknown", f"There are too few outcomes yet to judge {words} in {key.name}.", "")
    whole = f" {_ratio_said(over)}" if over is not None else ""
    if not chart.signals:
        delay = _delay(chart)
        notice = f" Had the odds become {design.odds_ratio:g} times as high, the chart would signal after about " + (
            f"{_round(delay)} outcomes in the mean." if delay else ""
        )
        sentence = f"There is no sign that {words} in {key.name} differ from what was expected."
        return Answer("quiet", sentence, f"No signal among {cases:,} outcomes.{notice if delay else ''}{whole}")
    worse, run = shown.run(chart)
    last = run[-1]
    since, raised = (shown.about(chart, whose, day) for day in (run[0].since[0], last.at))
    begun = f"Since {since} {words}" if since else words.capitalize()
    sentence = f"{begun} in {key.name} are {'above' if worse else 'below'} what was expected."
    if any(one.kind.startswith("cusum") for one in run):
        chance = 1 - math.exp(-cases / design.run_length)
        often = (
            f"When nothing is wrong, such a signal comes once in about {design.run_length:,.0f} outcomes: among the "
            f"{cases:,} here with a chance of about {chance:.0%}."
        )
    else:
        often = (
            f"When nothing is wrong, about one in {1 / design.alarms:.0f} periods of {design.period} outcomes has a "
            "signal of this chart."
        )
    times = {1: "once,", 2: "twice, last"}.get(len(run), f"{len(run)} times, last")
    told = f"The charts signalled {times} in {raised}. " if raised and not raised.isdigit() else ""
    after = [one for one in shown.outcomes(chart) if one.place > (last.at, last.record)]
    people = len({whose[one.record] for one in after})
    quiet = f" {len(after):,} outcomes have followed without another signal." if people >= SMALLEST else ""
    return Answer("worse" if worse else "better", sentence, f"{told}{often}{quiet}{whole}")


def _ratio_said(over: Ratio) -> str:
    apart = "so chance alone may explain it" if over.low <= 1 <= over.high else "which chance alone hardly explains"
    return (
        f"Over the whole time {over.observed:,} were observed and {over.expected:.1f} expected, {over.ratio:.2f} times "
        f"as many (95% interval {over.low:.2f} to {over.high:.2f}), {apart}."
    )


def _delay(chart: Chart) -> float | None:
    """Mean number of outcomes until a signal where the odds are what the chart looks for."""
    held_now = chart.spec.limits(chart.level.cases)
    if held_now.upper is None:
        return None
    mix, odds = [one.risk for one in shown.outcomes(chart)], chart.spec.odds_ratio
    return limits.chain_arl(mix, odds, held_now.upper, odds=odds)


def _round(value: float) -> str:
    digits = max(0, math.floor(math.log10(value)) - 1)
    return f"{round(value / 10**digits) * 10**digits:,}"


# ------------------------------------------------------------------------------------------------------------- survival


def _survival(units: Units, site: str, unit: str) -> tuple[Plot, Table] | str:
    """One case a person: the first in the unit, else the first anywhere, so that the two groups share nobody."""
    stop: list[float] = []
    event: list[bool] = []
    mine: list[bool] = []
    for (of, _), one in units.people.items():
        sound = [case for case in one.cases if of == site and not trouble(case, one.died)]
        first = next((case for case in sound if case.unit == unit), sound[0] if sound else None)
        lived = follow_up(first, one.died, units.known(site)) if first is not None else None
        if first is not None and lived is not None:
            stop.append(lived[0])
            event.append(lived[1])
            mine.append(first.unit == unit)
    times, died, inside = np.array(stop), np.array(event, dtype=bool), np.array(mine, dtype=bool)
    for group in (inside, ~inside):
        if min(int(died[group].sum()), int((~died[group]).sum())) < SMALLEST:
            return "Deaths, or survivors, of the unit or of all others are too few for curves that tell of nobody."
    until = min(float(np.sort(times[group])[-SMALLEST]) for group in (inside, ~inside))
    try:
        rows = at_risk(times, died)
        curves = survival.by_group(rows, inside)
        test = survival.log_rank(rows, inside).test
    except Inestimable:
        return "The curves cannot be estimated."
    own, others = (unit_plots.at_days(curves[group], until) for group in (True, False))
    cells = [
        [str(day), *(f"{share:.0%} ({low:.0%} to {high:.0%})" for share, low, high in (a[1:], b[1:]))]
        for (day, *_), a, b in zip(own, own, others, strict=True)
    ]
    apart = "hardly chance alone" if test.p < 0.05 else "chance alone may explain it"
    said = (
        f"Whether the two differ: log-rank test p = {_p(test.p)}, {apart}. The curves do not allow for who the "
        "patients are; observed over expected does."
    )
    return unit_plots.survival(unit, own, others), Table(("days", unit, "all others"), cells, said)


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


# ------------------------------------------------------------------------------------------------------------------ mix


def _mix(units: Units, key: Key) -> Table:
    """Whether the patients are others than they were: their risks by quarter, and the later half beside the earlier."""
    chart = units.chart(key)
    outcomes, known = shown.outcomes(chart), _cases(units, key.site)
    quarters: dict[str, list[Any]] = defaultdict(list)
    for one in outcomes:
        quarters[f"{one.at[:4]}-Q{(int(one.at[5:7]) + 2) // 3}"].append(one)
    people = {name: len({units.whose(one.record) for one in some}) for name, some in quarters.items()}
    few, rows = shown.hidden(people), []
    for name, some in sorted(quarters.items()):
        if name in few:
            rows.append([name, "not shown", "", "", ""])
            continue
        ages = [float(age) for one in some if isinstance(age := known[one.record].factors.get("age"), float)]
        urgent = sum(not known[one.record].planned for one in some)
        share = f"{urgent / len(some):.0%}" if min(urgent, len(some) - urgent) >= SMALLEST else ""
        age = f"{sum(ages) / len(ages):.0f}" if len(ages) >= SMALLEST else ""
        rows.append([name, f"{len(some):,}", f"{sum(one.risk for one in some) / len(some):.1%}", age, share])
    head = ("quarter", "outcomes", "mean expected risk", "mean age", "not planned")
    half = len(outcomes) // 2
    halves = outcomes[:half], outcomes[half:]
    if min(len({units.whose(one.record) for one in some}) for some in halves) < SMALLEST:
        return Table(head, rows, "Too few outcomes to say whether the patients are others than they were.")
    before, after = (np.array([one.risk for one in some]) for some in halves)
    found = figures.compare_numbers(after, before).beside
    change, interval = found["difference_of_means"], found.get("difference_of_means_interval")
    said = f"Expected risk was {before.mean():.1%} in the mean of the earlier half and {after.mean():.1%} of the later"
    if interval is None:
        return Table(head, rows, f"{said}.")
    low, high = interval
    more = f"{abs(100 * change):.1f} points {'more' if change > 0 else 'less'}"
    span = f"95% interval {100 * low:+.2f} to {100 * high:+.2f}".replace("-", "−")
    sure = (
        "The mix of risks has not clearly changed."
        if low <= 0 <= high
        else "Patients became "
        + (
            "sicker, which the expected numbers allow for."
            if change > 0
            else "less sick, which the expected numbers allow for."
        )
    )
    return Table(head, rows, f"{said}: {more} ({span}). {sure}")


def _cases(units: Units, site: str) -> dict[str, Any]:
    return {case.record: case for (of, _), one in units.people.items() if of == site for case in one.cases}


# -------------------------------------------------------------------------------------------------------------- reports


def _reported(events: Iterable[Row], unit: str) -> Table:
    """What patients and insurers say, one value a person and item: the latest."""
    latest: dict[tuple[str, ...], Row] = {}
    for one in events:
        of = tuple(str(one.get(name, "")) for name in ("patient_ref", "reporter", "instrument", "item"))
        if one.get("event_time", "") >= latest.get(of, {}).get("event_time", ""):
            latest[of] = one
    scores: dict[tuple[str, str, str], dict[bool, list[float]]] = defaultdict(lambda: {True: [], False: []})
    decisions: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for (_, reporter, instrument, item), one in latest.items():
        if one.get("action", "set") != "set":
            continue
        inside = one.get("unit", "") == unit
        if one.get("score") is not None:
            scores[reporter, instrument, item][inside].append(float(one["score"]))
        if one.get("amount") is not None:
            scores[reporter, instrument, f"amount, {one.get('currency', '')}"][inside].append(float(one["amount"]))
        if inside and one.get("decision"):
            decisions[reporter, instrument][one["decision"]] += 1
    rows: Cells = []
    for (reporter, instrument, item), groups in sorted(scores.items()):
        if len(groups[True]) >= SMALLEST:
            rows.append([reporter, instrument, item, str(len(groups[True])), _mean(groups[True]), _mean(groups[False])])
    for (reporter, instrument), counts in sorted(decisions.items()):
        few, whole = shown.hidden(counts), sum(counts.values())
        if whole >= SMALLEST:
            rows += [
                [reporter, instrument, name, str(count), f"{count / whole:.0%}", ""]
                for name, count in sorted(counts.items())
                if name not in few
            ]
    head = ("reporter", "instrument", "item", "people", f"mean (95%), or share, in {unit}", "all others")
    return Table(head, rows, "" if rows else f"Fewer than {SMALLEST} people have reported anything of {unit}.")


def _mean(values: Sequence[float]) -> str:
    """With Student's interval."""
    if len(values) < SMALLEST:
        return ""
    given = np.array(values)
    off = float(stats.t.ppf(0.975, len(given) - 1) * given.std(ddof=1) / math.sqrt(len(given)))
    return f"{given.mean():.4g} ({given.mean() - off:.4g} to {given.mean() + off:.4g})"


def _staffed(events: Iterable[Row]) -> Table:
    """Who was there of those who were planned, as told last of each shift. It is of staff as numbers, and of nobody."""
    latest: dict[tuple[str, ...], Row] = {}
    for one in events:
        of = one.get("staffing", ""), one.get("role", ""), one.get("starts_at", "")
        if one.get("event_time", "") >= latest.get(of, {}).get("event_time", ""):
            latest[of] = one
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    others: dict[str, int] = defaultdict(int)
    for (what, role, begins), one in latest.items():
        if one.get("action", "set") != "set":
            continue
        if what == "present" and one.get("planned") is not None and one.get("present") is not None:
            for place, value in enumerate((1, one["planned"], one["present"])):
                sums[begins[:7], role][place] += value
        elif what != "present":
            others[what] += 1
    rows = [
        [month, role, f"{shifts:g}", f"{planned:g}", f"{present:g}", f"{present / planned:.0%}" if planned else ""]
        for (month, role), (shifts, planned, present) in sorted(sums.items())
    ]
    planned, present = (sum(one[place] for one in sums.values()) for place in (1, 2))
    said = (
        f"Of those who were planned {present / planned:.0%} were there. " if planned else "Nobody has told of shifts. "
    )
    told = [f"{name} {_few(count)}" for name, count in sorted(others.items())]
    said += f"Also told: {', '.join(told)}." if told else ""
    return Table(("month", "role", "shifts", "planned", "present", "share"), rows, said.strip())


def _troubles(units: Units, site: str) -> Table:
    reasons = {why: count for (of, why), count in units.troubles.items() if of == site}
    rows = [[why.replace("_", " "), _few(count)] for why, count in sorted(reasons.items())]
    none = "Every case of the site could be counted." if not rows else "Cases of the site that are counted nowhere:"
    return Table(("why a case cannot be counted", "cases"), rows, none)
