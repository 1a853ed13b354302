"""Limits of charts: simulated, by the Markov chain, and as published; run lengths in control and out of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from infra.errors import BadOutcome, UsageError
from streams.quality import limits
from streams.quality.charts import Chart, Limits, Spec, step
from streams.quality.limits import chain_arl, chain_limit, find_limit, run_lengths, vlad_limits
from tests.quality_data import cardiac, case_mix, outcome

MIX = case_mix()
ARL = 370.0


@pytest.mark.parametrize(("ratio", "baseline"), [(2.0, None), (0.5, None), (2.0, float(MIX.mean()))])
def test_a_limit_keeps_its_run_length(ratio: float, baseline: float | None) -> None:
    """Within 10% of what is stated, on ways that the limit was not found on, and by the chain."""
    found = find_limit(MIX, ratio, ARL, baseline=baseline, paths=4000)
    assert found.arl == pytest.approx(ARL, rel=0.02)
    again = run_lengths(MIX, ratio, found.value, baseline=baseline, paths=4000, seed=8)
    assert again.mean() == pytest.approx(ARL, rel=0.1)
    assert chain_arl(MIX, ratio, found.value, baseline=baseline) == pytest.approx(ARL, rel=0.05)
    assert chain_limit(MIX, ratio, ARL, baseline=baseline) == pytest.approx(found.value, rel=0.03)


def test_the_chart_runs_as_long_as_its_simulation() -> None:
    """The fold itself, 250 runs to the first signal: within three standard errors of the chain."""
    limit, rng, runs = chain_limit(MIX, 2.0, 60), np.random.default_rng(2), []
    for _ in range(250):
        chart, length = Chart("ICU", Spec(stages=((0, Limits(upper=limit)),))), 0
        while not chart.signals:
            risk = float(rng.choice(MIX))
            chart = step(
                chart, outcome(f"r{length}", length // 50, risk, bool(rng.random() < risk), second=length % 50)
            )
            length += 1
        runs.append(length)
    assert np.mean(runs) == pytest.approx(60, abs=3 * np.std(runs) / math.sqrt(len(runs)))


def test_a_simple_chain_by_hand() -> None:
    """Nothing but ups of log 2 (a risk near 0 whose odds are beyond all bounds): three reach 2."""
    assert set(run_lengths([1e-6], 2.0, 2.0, odds=1e12, paths=50)) == {3}
    assert chain_arl([1e-6], 2.0, 2.0, odds=1e12) == pytest.approx(3, abs=0.01)


def delays(mix: limits.Floats) -> tuple[float, float]:
    """Outcomes until doubled odds are seen, by the adjusted and by the plain chart of the same false alarms."""
    mean = float(mix.mean())
    adjusted, plain = chain_limit(mix, 2.0, ARL), chain_limit(mix, 2.0, ARL, baseline=mean)
    made = run_lengths(mix, 2.0, adjusted, odds=2.0, paths=3000).mean()
    exact = chain_arl(mix, 2.0, adjusted, odds=2.0)
    assert made == pytest.approx(exact, rel=0.05)
    return exact, chain_arl(mix, 2.0, plain, odds=2.0, baseline=mean)


def test_doubled_odds_are_seen_sooner_than_by_a_plain_cusum() -> None:
    """By little, and by more where risks differ more: 71 outcomes against 73, in a mix of two 82 against 113."""
    adjusted, plain = delays(MIX)
    assert adjusted < plain < 0.25 * ARL
    adjusted, plain = delays(np.array([0.02] * 8 + [0.6] * 2))
    assert adjusted < 0.9 * plain


def test_doubled_odds_in_the_cardiac_data() -> None:
    """74.8 outcomes against 80.3."""
    data = cardiac()
    adjusted, plain = delays(data.risks()[data.first])
    assert (adjusted, plain) == (pytest.approx(74.8, abs=0.5), pytest.approx(80.3, abs=0.5))


def test_sicker_patients_are_no_worse_care() -> None:
    """Odds 1.6 times as high, care the same: the plain chart cries wolf three times as often, the adjusted one 1.4
    times, since its outcomes tell more: its limit too is of its mix."""
    mean, sicker = float(MIX.mean()), limits.shifted(MIX, 1.6)
    adjusted, plain = chain_limit(MIX, 2.0, ARL), chain_limit(MIX, 2.0, ARL, baseline=mean)
    assert chain_arl(sicker, 2.0, adjusted) > 0.7 * ARL
    assert chain_arl(sicker, 2.0, plain, baseline=mean) < 0.35 * ARL


def test_a_vlad_in_control_alarms_as_often_as_stated() -> None:
    """In 20 of 100 periods, by the fold, over 300 periods that the limits were not found on (three errors: 7%)."""
    held, rng, cases = vlad_limits(MIX, 100, 0.2), np.random.default_rng(6), 300 * 100
    chart, signals = Chart("ICU", Spec(stages=((0, Limits(vlad=held)),))), 0
    drawn = rng.choice(MIX, cases)
    for number, (risk, event) in enumerate(zip(drawn, rng.random(cases) < drawn, strict=True)):
        one = outcome(f"r{number}", number // 100, float(risk), bool(event), second=number % 100)
        chart = step(replace(chart, days=chart.days[-1:]) if not number % 100 else chart, one)
        raised = chart.days[-1].signals
        signals += bool(raised) and raised[-1].record == one.record
    assert signals / 300 == pytest.approx(0.2, abs=0.07)
    assert held.low > held.high  # deaths come in whole lives, survivals in small shares


def test_the_same_seed_gives_the_same_limit() -> None:
    assert vlad_limits(MIX, 50, 0.05, paths=500) == vlad_limits(MIX, 50, 0.05, paths=500)
    assert find_limit(MIX, 2.0, 50, paths=500) == find_limit(MIX, 2.0, 50, paths=500)
    assert find_limit(MIX, 2.0, 50, paths=500) != find_limit(MIX, 2.0, 50, paths=500, seed=3)


def test_the_published_limit_of_the_cardiac_data() -> None:
    """R package vlad, test-racusum_crit_mc.R: 1.8592 for an ARL of 370 in phase I, by a chain with paired rounding."""
    data = cardiac()
    mix = data.risks()[data.first]
    assert chain_limit(mix, 2.0, ARL) == pytest.approx(1.8592, abs=0.005)
    assert chain_arl(mix, 2.0, 1.8592, grid=800) == pytest.approx(ARL, rel=0.002)
    assert find_limit(mix, 2.0, ARL).value == pytest.approx(1.8592, rel=0.03)


def test_mixes_that_cannot_be() -> None:
    with pytest.raises(BadOutcome, match=r"^no_cases$"):
        chain_arl([], 2.0, 1.0)
    with pytest.raises(BadOutcome, match=r"^bad_risk$"):
        run_lengths([0.1, math.nan], 2.0, 1.0)
    with pytest.raises(UsageError):
        find_limit(MIX, 2.0, 1.0)
    with pytest.raises(UsageError):
        vlad_limits(MIX, 100, 0.0)


def test_a_limit_out_of_reach_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MOST_STEPS", 1000)
    with pytest.raises(UsageError, match="out of reach"):
        run_lengths([0.0], 2.0, 5.0, paths=10)


def test_a_unit_of_one_case_has_a_limit() -> None:
    assert chain_arl([0.1], 2.0, chain_limit([0.1], 2.0, 100)) == pytest.approx(100, rel=0.01)
