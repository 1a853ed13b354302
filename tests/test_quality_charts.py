"""Charts of outcomes: published weights, revision in any order, signals and who drove them, bad input."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import BadOutcome, UsageError
from streams.quality import charts
from streams.quality.charts import (
    Chart,
    Limits,
    Outcome,
    Spec,
    VladLimits,
    step,
    steps,
    weight,
)
from tests.quality_data import cardiac, case_mix, outcome

SPEC = Spec(stages=((0, Limits(2.0, 2.0, VladLimits(2.0, 2.0, 0.5, 60))),))
ICU = Chart("ICU", SPEC)


def parsonnet(score: int, intercept: float = -3.68) -> float:
    return 1 / (1 + math.exp(-intercept - 0.077 * score))


def drawn(count: int, seed: int = 1, odds: float = 1.0, per_day: int = 20) -> list[Outcome]:
    rng, mix = random.Random(seed), case_mix()
    made = []
    for number in range(count):
        risk = float(rng.choice(mix))
        happens = odds * risk / (1 - risk + odds * risk)
        day, second = divmod(number, per_day)
        made.append(outcome(f"r{number:06}", day, risk, rng.random() < happens, second=second))
    return made


@pytest.mark.parametrize(
    ("score", "event", "ratio", "published"),
    [
        (0, False, 2, -0.024),
        (0, True, 2, 0.669),
        (50, False, 2, -0.433),
        (50, True, 2, 0.260),
        (0, False, 1 / 2, 0.012),
        (0, True, 1 / 2, -0.681),
        (50, False, 1 / 2, 0.316),
        (50, True, 1 / 2, -0.377),
    ],
)
def test_weights_are_the_published_ones(score: int, event: bool, ratio: float, published: float) -> None:
    """Steiner et al. (2000), p. 446, and Steiner (2014), Statistics in Action, p. 234."""
    assert weight(parsonnet(score), event, ratio) == pytest.approx(published, abs=5e-4)


def test_a_weight_for_half_the_odds() -> None:
    """R package vlad, example of llr_score: intercept -3.67, score 19, survived."""
    assert weight(parsonnet(19, -3.67), False, 1 / 2) == pytest.approx(0.05083, abs=5e-6)


def test_a_chart_is_what_its_definition_says() -> None:
    """Against a plain loop over arrays; without limits nothing begins again."""
    told = drawn(1000, odds=1.5)
    level = steps(Chart("ICU"), told).level
    for ratio, value in ((2.0, level.upper), (0.5, level.lower)):
        gains = [weight(one.risk, bool(one.event), ratio) for one in told]
        assert value == list(accumulate(gains, lambda was, gain: max(0.0, was + gain), initial=0.0))[-1]
    events, expected = sum(bool(one.event) for one in told), math.fsum(one.risk for one in told)
    assert (level.cases, level.events) == (1000, events)
    assert level.expected == pytest.approx(expected)
    assert level.vlad == pytest.approx(expected - events)
    assert level.vlad_cases == 1000


def test_a_plain_cusum_has_one_risk_for_all() -> None:
    told = drawn(300)
    level = steps(Chart("ICU", Spec(baseline=0.1)), told).level
    assert level == steps(Chart("ICU"), [replace(one, risk=0.1) for one in told]).level


def test_a_signal_and_a_new_beginning() -> None:
    """Three deaths in a row of those who hardly ever die: log 2 each, less next to nothing; two reach 1.3."""
    chart = Chart("ICU", Spec(stages=((0, Limits(upper=1.3)),)))
    for number in range(4):
        chart = step(chart, outcome(f"r{number}", number, 0.001, True))
    assert [(one.kind, one.record, one.since[1]) for one in chart.signals] == [
        ("cusum_upper", "r1", "r0"),
        ("cusum_upper", "r3", "r2"),
    ]
    assert chart.signals[0].value == pytest.approx(2 * weight(0.001, True, 2))
    assert charts.drivers(chart, chart.signals[1]) == ("r2", "r3")


def test_who_drove_a_signal() -> None:
    """Survivors are no drivers, nor who came before the CUSUM left 0; the least expected death is first."""
    told = [(0.5, False), (0.3, True), (0.1, False), (0.01, True), (0.02, True)]
    chart = steps(
        Chart("ICU", Spec(stages=((0, Limits(upper=1.5)),))),
        [outcome(f"r{number}", number, *one) for number, one in enumerate(told)],
    )
    (signal,) = chart.signals
    assert charts.drivers(chart, signal) == ("r3", "r4", "r1")


def test_a_vlad_signals_once_a_period_and_begins_again() -> None:
    chart = Chart("ICU", Spec(stages=((0, Limits(vlad=VladLimits(1.0, 9.0, 1.0, 5))),)))
    for number in range(10):
        chart = step(chart, outcome(f"r{number}", number, 0.1, number in (1, 2, 3, 6)))
    (signal,) = chart.signals
    assert (signal.kind, signal.record, signal.since[1]) == ("vlad_low", "r2", "r0")
    assert signal.value == pytest.approx(0.3 - 2)
    assert chart.level.vlad == pytest.approx(0.5 - 1)
    assert charts.drivers(chart, signal) == ("r1", "r2")


def test_points_are_the_levels_on_the_way() -> None:
    chart = steps(ICU, drawn(200, odds=2))
    walked = list(charts.points(chart))
    assert [one.record for one, _ in walked] == [f"r{number:06}" for number in range(200)]
    assert walked[-1][1] == chart.level
    assert walked[99][1] == steps(ICU, drawn(100, odds=2)).level


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Outcome], list[Outcome]]:
    """What is told in the end, and all that was told on the way in any order, some of it twice."""
    final, told = [], []
    for number in range(draw(st.integers(1, 25))):
        versions = [
            outcome(
                f"r{number}",
                draw(st.integers(0, 12)),
                draw(st.sampled_from((0.0, 0.01, 0.2, 0.7, 1.0))),
                draw(st.sampled_from((True, True, False, None))),
                told=version,
                second=draw(st.integers(0, 3)),
            )
            for version in range(draw(st.integers(1, 3)))
        ]
        versions = [replace(one, told=f"2026-02-01T00:00:00.000Z|{place}") for place, one in enumerate(versions)]
        final.append(versions[-1])
        told += versions
    told += draw(st.lists(st.sampled_from(told), max_size=10))
    return final, draw(st.permutations(told))


@given(histories(), st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_any_order_ends_in_the_chart_of_a_clean_pass(history: tuple[list[Outcome], list[Outcome]], size: int) -> None:
    final, told = history
    one_by_one = in_batches = ICU
    for one in told:
        one_by_one = step(one_by_one, one)
    for place in range(0, len(told), size):
        in_batches = steps(in_batches, told[place : place + size])
    clean = ICU
    for one in sorted(final, key=lambda one: one.place):
        clean = step(clean, one)
    assert one_by_one == in_batches == clean == steps(ICU, final)


def test_what_is_told_again_changes_nothing() -> None:
    told = drawn(50)
    chart = steps(ICU, told)
    assert all(step(chart, one) is chart for one in told)
    assert steps(chart, told) is chart


def test_a_correction_a_month_late() -> None:
    """Sixty days, and a death that raised a signal was none: every later level is as if that had been told."""
    told = drawn(1200, odds=2.5)
    worse = (one for one in steps(ICU, told).signals if one.kind == "cusum_upper" and one.at > "2026-01-20")
    signalled = next(worse).record
    wrong = next(one for one in told if one.record == signalled)
    right = replace(wrong, told="2026-03-01T00:00:00.000Z|1", event=False)
    chart = step(steps(ICU, told), right)
    clean = steps(ICU, [right if one is wrong else one for one in told])
    assert chart == clean
    raised, withdrawn = charts.compare(steps(ICU, told), chart)
    assert wrong.record in {one.record for one in withdrawn}
    assert {*raised} <= {*chart.signals}
    assert charts.compare(chart, clean) == ((), ())
    assert step(chart, wrong) is chart  # and the old version does not come back


def test_withdrawn_is_not_counted_and_stays_withdrawn() -> None:
    told = drawn(40)
    gone = replace(told[7], told="2026-03-01T00:00:00.000Z|1", event=None)
    chart = step(steps(ICU, told), gone)
    assert chart.level == steps(ICU, told[:7] + told[8:]).level
    assert step(chart, told[7]) is chart


def test_limits_hold_from_their_stage_on() -> None:
    """What an earlier stage has raised stands, whatever later ones say."""
    told = drawn(600, odds=3)
    low, high = Limits(1.0, 1.0), Limits(50.0, 50.0)
    chart = steps(Chart("ICU", Spec(stages=((0, low), (200, high)))), told)
    early = steps(Chart("ICU", Spec(stages=((0, low),))), told[:200])
    assert early.signals
    assert chart.signals == early.signals
    assert steps(Chart("ICU", Spec(stages=((200, low),))), told[:200]).signals == ()


def test_killed_anywhere_a_chart_counts_nothing_twice() -> None:
    """20,000 outcomes in batches; at six points the worker dies, and Kafka gives again what was not acknowledged."""
    told = drawn(20_000, per_day=60)
    clean = steps(ICU, told)
    rng, chart, place = random.Random(3), ICU, 0
    deaths = set(rng.sample(range(40), 6))
    for number in range(40):
        kept, chart = chart, steps(chart, told[place : place + 500])
        if number in deaths:  # half of its work was kept, none was acknowledged
            chart = steps(steps(kept, told[place : place + 250]), told[max(0, place - 700) : place + 500])
        place += 500
    assert chart == clean
    assert clean.level.cases == 20_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unit": "MED"}, "unknown_unit"),
        ({"risk": math.nan}, "bad_risk"),
        ({"risk": -0.1}, "bad_risk"),
        ({"risk": 1.1}, "bad_risk"),
        ({"at": "2026-01-05"}, "bad_time"),
        ({"at": "2026-01-05T10:00:00+01:00"}, "bad_time"),
        ({"at": "2026-02-30T10:00:00.000Z"}, "bad_time"),
        ({"told": ""}, "bad_position"),
        ({"record": ""}, "bad_position"),
    ],
)
def test_bad_outcomes_are_refused_and_change_nothing(change: dict[str, object], reason: str) -> None:
    good = outcome("r1", 1, 0.2, True)
    bad = replace(outcome("r2", 2, 0.2, True), **change)  # type: ignore[arg-type]
    chart = steps(ICU, (good,))
    with pytest.raises(BadOutcome, match=rf"^{reason}$") as refused:
        step(chart, bad)
    assert refused.value.reason == reason
    with pytest.raises(BadOutcome):
        steps(chart, (outcome("r3", 3, 0.2, True), bad))
    assert chart.level.cases == 1


def test_a_certain_risk_is_counted_and_no_infinity() -> None:
    """A model that was certain and wrong: the weight is that of one in a million, and the chart says so."""
    told = [outcome("r0", 0, 0.0, True), outcome("r1", 1, 1.0, False), outcome("r2", 2, 0.5, True)]
    level = steps(Chart("ICU"), told).level
    assert level.certain == 2
    assert level.upper == pytest.approx(math.log(2) - math.log(2) + weight(0.5, True, 2), abs=1e-5)
    assert 0 < level.variance < 0.26


@pytest.mark.parametrize(
    "wrong",
    [
        {"odds_ratio": 1.0},
        {"baseline": 1.0},
        {"stages": ((9, Limits(upper=0.0)),)},
        {"stages": ((0, Limits(lower=-1.0)),)},
    ],
)
def test_a_spec_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Spec(**wrong)


def test_the_cardiac_data() -> None:
    """Steiner et al. (2000); counts as the R packages spcadjust and vlad have them, the model as in their examples.

    The limits are the paper's; the signals are ours, to be seen here when they change. Day 1 is 2026-01-01.
    """
    data = cardiac()
    assert (len(data.day), int(data.first.sum()), int(data.died.sum())) == (5595, 1766, 361)
    assert data.model() == pytest.approx((-3.790, 0.080), abs=5e-4)
    spec = Spec(stages=((0, Limits(4.5, 4.0)),))
    whole = steps(Chart("ICU", spec), data.outcomes())
    assert whole.level.events == 361
    assert [(one.kind, one.at[:10], one.since[0][:10]) for one in whole.signals] == [
        ("cusum_upper", "2029-08-09", "2029-06-01"),
        ("cusum_lower", "2030-12-01", "2030-09-06"),
    ]
    (first, *_) = whole.signals
    drove = charts.drivers(whole, first)
    died = {one.record for one in data.outcomes() if one.event and first.since[0] <= one.at <= first.at}
    assert set(drove) == died
    signals = {}
    for surgeon in sorted(set(data.surgeon)):
        own = [one for one, by in zip(data.outcomes(), data.surgeon, strict=True) if by == surgeon]
        chart = steps(Chart("ICU", spec), own)
        signals[surgeon] = [(one.kind, one.at[:10]) for one in chart.signals]
    assert signals == {
        "1": [("cusum_upper", "2027-12-25"), ("cusum_upper", "2029-09-20")],
        "2": [("cusum_upper", "2029-12-25")],
        "3": [("cusum_lower", "2031-07-12")],
        "4": [],
        "5": [],
        "6": [("cusum_lower", "2031-04-11")],
        "7": [],
    }
