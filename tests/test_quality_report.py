"""What charts, tables and the report of a unit show, and that nothing in them stands for fewer than 11 people."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers import page, plots, report, unit_plots
from consumers import units as charts_of
from infra.errors import Inestimable, UsageError
from schemas.envelope import rfc3339
from schemas.safe_harbor import SMALLEST
from streams.quality import funnel, shown
from streams.quality.cases import DIED_30D, Case, Person, Risk
from streams.quality.charts import Chart, Limits, Outcome, Spec, VladLimits, fixed, steps
from streams.quality.units import UNIT, Key, Units

SITE, HOSTILE = "EAST", "<script>alert('x')</script>\"><img src=x onerror=y>"
LIMITS = Limits(2.5, 2.3, VladLimits(2.6, 2.4, 0.6, 100))  # of another mix: what is tested here is what is shown
BEGIN = datetime.fromisoformat("2025-01-02T08:17:31.250Z")
UNITS = {"CARD": 260, "ORTH": 180, "NEUR": 150, "GAST": 130, HOSTILE: 140, "ONE": 1, "WELL": 60}
CARD = Key(SITE, UNIT, "CARD", DIED_30D)


def people() -> dict[tuple[str, str], Person]:
    """In CARD odds are three times as high in the second half; in WELL five of sixty die, in ONE the only patient."""
    drawn, made = random.Random(7), {}
    number = 0
    for unit, count in UNITS.items():
        for place in range(count):
            number += 1
            begun = BEGIN + timedelta(days=420 * place / count, minutes=drawn.randrange(1000))
            risk = drawn.choice((0.05, 0.1, 0.2, 0.3))
            odds = (3.0 if unit == "CARD" and place > count / 2 else 1.0) * risk / (1 - risk)
            dies = place < 5 if unit in ("ONE", "WELL") else drawn.random() < odds / (1 + odds)
            died = rfc3339(begun + timedelta(days=drawn.randrange(1, 25))) if dies else ""
            ref = f"ref{number:05}"
            case = Case(
                f"record{number:05}", ref, SITE, unit, "HIP" if number % 2 else "CABG", "", rfc3339(begun),
                rfc3339(begun + timedelta(days=40)), "", number % 3 == 0, rfc3339(begun + timedelta(days=41)),
                expected={DIED_30D: Risk(risk)}, factors={"age": float(drawn.randrange(40, 90))},
            )  # fmt: skip
            made[SITE, ref] = Person((case,), died, case.known)
    return made


def charted(some: Mapping[tuple[str, str], Person]) -> Units:
    units = Units()
    for of, one in some.items():
        units.take(of, one)
    for wanted in units.wanted(units.charts()):
        units.found(wanted, LIMITS)
    units.charts()
    return units


def told() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Reports and staffing: EQ-5D of twenty people, of whom ten are told of twice, a claim of five; words that hurt."""
    common = {"reporter": "patient", "action": "set", "unit": "CARD", "event_time": "2026-02-03T04:05:06.789Z"}
    reports = [
        common | {"patient_ref": f"ref{n % 20:05}", "instrument": "EQ-5D-5L", "item": HOSTILE, "score": 0.5 + n / 100}
        for n in range(30)
    ]
    reports += [common | {"patient_ref": f"ref{n:05}", "instrument": "claim", "decision": "denied"} for n in range(5)]
    shift = {"staffing": "present", "role": HOSTILE, "action": "set", "event_time": "2026-02-03T06:07:08.901Z"}
    staffing = [
        shift | {"starts_at": f"2026-02-{day:02}T06:00:00.000Z", "planned": 6, "present": 5} for day in range(1, 21)
    ]
    return reports, staffing


@pytest.fixture(scope="module")
def units() -> Units:
    return charted(people())


def made(units: Units, unit: str) -> str:
    keys = charts_of.chosen(units, unit=unit, measure=DIED_30D)
    return page.page(report.report(units, keys, *told()))


class Read(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


# ------------------------------------------------------------------------------------------------------------ the page


@pytest.mark.parametrize("unit", UNITS)
def test_a_page_tells_of_nobody(units: Units, unit: str) -> None:
    text = made(units, unit)
    planted = {one for _, ref in units.people for one in (ref,)} | {
        case.record for one in units.people.values() for case in one.cases
    }
    assert not {one for one in planted if one in text}
    assert not re.findall(r"\d{4}-\d\d-\d\d|\d\d:\d\d", text), "a day or an hour"
    days = {one for person in units.people.values() for one in (person.died, person.cases[0].begun) if one}
    assert not {one for one in days if f"{datetime.fromisoformat(one):%d %B %Y}".lstrip("0") in text}


def test_the_answer_comes_first(units: Units) -> None:
    words = " ".join(Read(made(units, "CARD")).words)
    (signal, *_) = (one for one in units.chart(CARD).signals if one.kind == "cusum_upper")
    assert datetime.fromisoformat(signal.since[0]) > BEGIN + timedelta(days=120)
    assert re.search(r"Since \w+ 2025 deaths within 30 days of admission in CARD are above what was expected\.", words)
    assert words.index("above what was expected") < words.index("Did something change")
    assert re.search(r"such a signal comes once in about [\d,]+ outcomes", words)
    assert re.search(r"95% interval \d\.\d\d to \d\.\d\d", words)


def test_a_hostile_name_stays_a_name(units: Units) -> None:
    for unit in ("CARD", HOSTILE):  # of a peer, an item and a role; and of the unit itself
        read = Read(made(units, unit))
        assert HOSTILE in "".join(read.words)
        assert not {"script", "img", "iframe", "link", "a"} & {tag for tag, _ in read.tags}
        assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
        blocks = shown.blocks(units.chart(CARD), charts_of.owners(units, units.chart(CARD)))
        svg = plots.svg(unit_plots.cusum(Key(SITE, UNIT, unit, HOSTILE), blocks), "x", alone=True)
        assert HOSTILE in "".join(ET.fromstring(svg).itertext())


def test_the_same_data_give_the_same_bytes(units: Units) -> None:
    order = list(people().items())
    random.Random(3).shuffle(order)
    again = charted(dict(order))
    assert made(again, "CARD") == made(units, "CARD")
    assert len(made(units, "CARD")) < 200_000


def test_every_figure_has_words_and_a_table(units: Units) -> None:
    read = Read(made(units, "CARD"))
    assert read.count("svg") == 4  # CUSUM and VLAD share a table
    assert read.count("details") == 3
    assert read.count("desc") == 4
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in read.tags:
        if tag == "svg":
            assert set((attributes["aria-labelledby"] or "").split()) <= set(ids)
        assert tag != "th" or attributes["scope"] in ("row", "col")
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_few_events_are_told_in_words_alone(units: Units) -> None:
    """Five of sixty died in WELL: neither the count, nor the expected number, nor a ratio, nor a curve."""
    key = Key(SITE, UNIT, "WELL", DIED_30D)
    of = report.report(units, [key], *told()).outcomes[0]
    assert (of.over, list(of.blocks), list(of.plots), of.cases) == (None, [], [], 60)
    assert "WELL" not in {row["name"] for row in of.funnel_rows}
    assert "observed and" not in of.answer.chance
    with pytest.raises(Inestimable, match="too_few_people"):
        charts_of.enough(units, key)
    one = report.report(units, [Key(SITE, UNIT, "ONE", DIED_30D)], *told()).outcomes[0]
    assert (one.cases, one.answer.tone) == (None, "unknown")


def test_reports_are_of_people_and_not_of_events(units: Units) -> None:
    """Thirty scores of twenty people, the latest of each; five claims are not shown."""
    of = report.report(units, [CARD], *told())
    assert [row[:4] for row in of.reports.rows] == [["patient", "EQ-5D-5L", HOSTILE, "20"]]
    latest = [0.5 + (n + 20 if n < 10 else n) / 100 for n in range(20)]
    assert of.reports.rows[0][4].startswith(f"{np.mean(latest):.4g} (")
    assert of.staffing.rows == [["2026-02", HOSTILE, "20", "120", "100", "83%"]]


def test_whose_risk_changed_is_said(units: Units) -> None:
    assert "The mix of risks has not clearly changed." in report.report(units, [CARD], *told()).mix.said
    some = people()
    for of, one in some.items():
        case = one.cases[0]
        later = case.begun > "2025-08"
        risk = Risk(case.expected[DIED_30D].risk * (2 if later else 1))
        some[of] = Person(
            (Case(**{name: getattr(case, name) for name in Case.__slots__} | {"expected": {DIED_30D: risk}}),),
            one.died,
            one.known,
        )
    assert "Patients became sicker" in report.report(charted(some), [CARD], *told()).mix.said


# ------------------------------------------------------------------------------------------------------- what is shown


def chart(events: list[tuple[str, bool]], period: int = 20) -> tuple[Chart, dict[str, str]]:
    """Of (whose, event), one a day."""
    spec = Spec(stages=fixed(1.5, 1.5, VladLimits(2.0, 2.0, 0.1, period)))
    made = [
        Outcome(f"r{n:04}", "U", rfc3339(BEGIN + timedelta(days=n)), "1", 0.2, event)
        for n, (_, event) in enumerate(events)
    ]
    return steps(Chart("U", spec), made), {f"r{n:04}": who for n, (who, _) in enumerate(events)}


EVENTS = st.lists(st.tuples(st.sampled_from([f"p{n}" for n in range(30)]), st.booleans()), max_size=150)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.sampled_from([7, 20, 100]))
def test_a_block_is_of_11_people_and_blocks_are_the_whole(events: list[tuple[str, bool]], period: int) -> None:
    one, whose = chart(events, period)
    blocks = shown.blocks(one, whose)
    ends = [0, *(block.cases for block in blocks)]
    for begin, end in pairwise(ends):
        assert len({who for who, _ in events[begin:end]}) >= SMALLEST
    if len({who for who, _ in events}) >= SMALLEST:
        assert ends[-1] == len(events)
        assert sum(len(block.signals) for block in blocks) == len(one.signals)
        assert max(block.upper for block in blocks) == max(level.upper for _, level in shown.points(one))
    else:
        assert not blocks


def test_a_long_chart_is_of_sixty_points() -> None:
    one, whose = chart([(f"p{n}", n % 7 == 0) for n in range(1500)], 100)
    assert shown.MOST_BLOCKS / 2 < len(shown.blocks(one, whose)) <= shown.MOST_BLOCKS


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 30), st.integers(0, 40)))
def test_hidden_cells_are_not_told_by_their_total(counts: dict[int, int]) -> None:
    hidden = shown.hidden(counts)
    assert {key for key, count in counts.items() if count < SMALLEST} <= hidden
    left = sum(counts[key] for key in hidden)
    assert not hidden or left >= SMALLEST or hidden == set(counts)


def test_a_time_is_as_fine_as_eleven_people_allow() -> None:
    one, whose = chart([(f"p{n}", False) for n in range(50)])  # January 2 to February 20
    assert shown.about(one, whose, "2025-01-20") == "January 2025"
    assert shown.about(one, dict.fromkeys(whose, "p"), "2025-01-20") == ""
    few, whose = chart([(f"p{n}", False) for n in range(35)])  # five of February
    assert shown.about(few, whose, "2025-02-03") == "the first quarter of 2025"


def test_rows_show_counts_that_no_sum_tells(units: Units) -> None:
    rows = charts_of.rows(units, sorted(units.charts()))
    true = {(row["scope"], row["name"]): units.chart(Key(SITE, row["scope"], row["name"], DIED_30D)) for row in rows}
    by_name = {row["name"]: row for row in rows if row["measure"] == DIED_30D}
    assert by_name["ONE"]["few"]
    assert by_name["ONE"]["cases"] is by_name["ONE"]["ratio"] is None
    assert by_name["CARD"]["ratio"]["value"] == round(
        units.chart(CARD).level.events / units.chart(CARD).level.expected, 2
    )
    assert by_name["CARD"]["signals"]["cusum_upper"]
    assert by_name["CARD"]["now"]["is"] == "worse"
    assert by_name["CARD"]["now"]["since"].endswith(" 2025")
    for name in ("cases", "events"):
        for scope in ("unit", "procedure"):
            unseen = [
                getattr(true[scope, row["name"]].level, name)
                for row in rows
                if row["scope"] == scope and row["measure"] == DIED_30D and row[name] is None
            ]
            assert not unseen or (len(unseen) > 1 and sum(unseen) >= SMALLEST)


def test_cases_are_counted_by_month_and_no_small_cell_is_told(units: Units) -> None:
    asked = charts_of.Asked(unit="CARD", risk_above=0.15)
    found = charts_of.tabled(units, asked)
    counts: dict[str, Counter[bool]] = defaultdict(Counter)
    for one in units.people.values():
        case = one.cases[0]
        due = f"{datetime.fromisoformat(case.begun) + timedelta(days=31):%Y-%m-%d}T00:00:00.000Z"
        if case.unit == "CARD" and case.expected[DIED_30D].risk > 0.15 and due <= units.known(SITE):
            counts[case.begun[:7]][bool(one.died)] += 1
    assert {row["period"] for row in found["rows"]} == counts.keys()
    assert found["all"]["cases"] == sum(sum(one.values()) for one in counts.values())
    assert found["all"]["events"] == sum(one[True] for one in counts.values())
    for row in found["rows"]:
        count = counts[row["period"]]
        assert row["cases"] in (None, sum(count.values()))
        assert row["cases"] is not None or row["mean_risk"] is None
        assert sum(count.values()) >= SMALLEST or row["cases"] is None
        assert row["events"] is None or min(count[True], count[False]) >= SMALLEST
    by_quarter = charts_of.tabled(units, charts_of.Asked(by="quarter", begin="2025-02", end="2025-06"))
    assert [row["period"] for row in by_quarter["rows"]] == ["2025-Q1", "2025-Q2"]
    assert all(row["events"] for row in by_quarter["rows"])


@pytest.mark.parametrize("wrong", [{"unit": "X"}, {"measure": "X"}, {"procedure": "X"}, {"site": "X"}])
def test_an_unknown_name_is_answered_with_those_there_are(units: Units, wrong: dict[str, str]) -> None:
    there = {"unit": "CARD", "measure": DIED_30D, "procedure": "CABG", "site": SITE}[next(iter(wrong))]
    with pytest.raises(UsageError, match=there):
        charts_of.chosen(units, **wrong)
    with pytest.raises(UsageError, match=there):
        charts_of.tabled(units, charts_of.Asked(**wrong))


@pytest.mark.parametrize(
    "wrong", [{"by": "day"}, {"begin": "2026-03-01"}, {"begin": "2026-03", "end": "2026-02"}, {"risk_above": 1.0}]
)
def test_a_question_that_is_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        charts_of.Asked(**wrong)


# ------------------------------------------------------------------------------------------------------------- figures


def test_lines_of_a_funnel_go_through_its_limits() -> None:
    for counts in (
        {f"u{n}": (n, 8.0 + n) for n in range(6)},  # as chance has it
        {f"u{n}": (5 + 22 * (n % 2), 12.0 + n) for n in range(12)},
    ):
        made = funnel.funnel(counts)
        lines = funnel.lines(made, np.array([one.ratio.expected for one in made.points]))
        for level, (low, high) in lines.items():
            assert [(low[n], high[n]) for n in range(len(low))] == [one.limits[level] for one in made.points]
    assert made.adjusted == "additive"


def test_figures_are_written_for_their_owner(units: Units, tmp_path: Path) -> None:
    blocks = shown.blocks(units.chart(CARD), charts_of.owners(units, units.chart(CARD)))
    drawn = [unit_plots.cusum(CARD, blocks), unit_plots.vlad(CARD, blocks)]
    for name in ("one.svg", "one.png"):
        plots.write(drawn, tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    root = ET.parse(tmp_path / "one.svg").getroot()
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 2
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-2.6, 3.1, [-2, -1, 0, 1, 2, 3]), (7, 23, [10, 15, 20]), (5, 5, [5])],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert plots.ticks(low, high) == ticks
