"""Kaplan-Meier, medians and log-rank: published figures, tables by hand, invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import Inestimable
from streams.quality.riskset import cases
from streams.quality.survival import by_group, kaplan_meier, log_rank
from tests.trials import drawn, leukaemia


def test_leukaemia_as_published() -> None:
    """Medians 23 and 8, log-rank 16.793 (Freireich et al. 1963; Kleinbaum and Klein, Survival Analysis, 2012, 2.V)."""
    data, treated = leukaemia()
    curves = by_group(data, treated)
    assert (curves[1.0].median.time, curves[0.0].median.time) == (23, 8)
    tested = log_rank(data, treated)
    assert tested.test.statistic == pytest.approx(16.793, abs=5e-4)
    assert tested.test.df == 1
    assert tested.observed == {0.0: 21, 1.0: 9}
    assert tested.expected == pytest.approx({0.0: 10.75, 1.0: 19.25}, abs=5e-3)


def test_leukaemia_curve_and_its_intervals() -> None:
    """Of 6-MP (Klein and Moeschberger, Survival Analysis, 2003, table 4.1): error by Greenwood."""
    data, treated = leukaemia()
    curve = kaplan_meier(data.take(treated == 1))
    assert curve.time.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert curve.at_risk.tolist() == [21, 17, 15, 12, 11, 7, 6]
    assert curve.survival == pytest.approx([0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], abs=5e-4)
    assert curve.error == pytest.approx([0.0764, 0.0869, 0.0963, 0.1068, 0.1141, 0.1282, 0.1346], abs=5e-5)
    spread = 1.959964 * curve.error[0] / (curve.survival[0] * abs(np.log(curve.survival[0])))
    assert curve.low[0] == pytest.approx(curve.survival[0] ** np.exp(spread))
    assert curve.high[0] == pytest.approx(curve.survival[0] ** np.exp(-spread))
    assert (curve.median.low, curve.median.high) == (13, None)


def test_a_flat_stretch_at_one_half_has_its_median_in_the_middle() -> None:
    """As R's `quantile.survfit`: of 4 the second dies at 2, the third at 5."""
    assert kaplan_meier(cases([1, 2, 5, 6], [1, 1, 1, 1])).median.time == 3.5
    assert kaplan_meier(cases([1, 2, 5, 6], [1, 1, 0, 0])).median.time == 2
    assert kaplan_meier(cases([1, 2, 5, 6], [1, 0, 0, 0])).median.time is None


def test_the_curve_ends_at_zero_without_an_interval() -> None:
    curve = kaplan_meier(cases([1, 2, 3], [1, 1, 1]))
    assert curve.survival[-1] == 0
    assert np.isnan([curve.low[-1], curve.high[-1], curve.error[-1]]).all()
    assert np.isfinite([curve.low[:-1], curve.high[:-1]]).all()


def test_whoever_comes_late_counts_from_then_on() -> None:
    curve = kaplan_meier(cases([2, 4, 6], [1, 1, 1], start=[0, 2, 3]))
    assert curve.at_risk.tolist() == [1, 2, 1]


def test_strata_compare_like_with_like() -> None:
    """Two strata of the same two groups, by hand: sums of differences and of variances over both."""
    alone = drawn(3, 80)
    groups = np.arange(80) % 2
    one = log_rank(alone, groups)
    twice = cases(
        np.tile(alone.stop, 2), np.tile(alone.event, 2), strata=np.repeat([0, 1], 80)
    )  # the same again, apart: twice the difference, twice the variance
    both = log_rank(twice, np.tile(groups, 2))
    assert both.test.statistic == pytest.approx(2 * one.test.statistic)


def test_log_rank_of_three_groups_by_hand() -> None:
    """One death after the other: the variance of indicators in the risk set."""
    stop, event, group = (
        np.array([1, 2, 3, 4, 5, 6.0, 7]),
        np.array([1, 1, 0, 1, 1, 1, 0]),
        np.array([0, 1, 2, 0, 1, 2, 2]),
    )
    difference, variance = np.zeros(2), np.zeros((2, 2))
    for time in stop[event == 1]:
        share = np.array([(group[stop >= time] == one).mean() for one in (0, 1)])
        difference += (group[stop == time][0] == np.array([0, 1])) - share
        variance += np.diag(share) - np.outer(share, share)
    tested = log_rank(cases(stop, event), group)
    assert tested.test.df == 2
    assert tested.test.statistic == pytest.approx(difference @ np.linalg.solve(variance, difference))


@pytest.mark.parametrize(
    ("reason", "stop", "event", "more"),
    [
        ("no_rows", [], [], {}),
        ("negative_time", [-1, 2], [1, 1], {}),
        ("negative_time", [1, 2], [1, 1], {"start": [-1, 0]}),
        ("stop_not_after_start", [1, 2], [1, 1], {"start": [0, 2]}),
        ("not_finite", [1, float("nan")], [1, 1], {}),
        ("bad_event", [1, 2], [1, 2], {}),
        ("unequal_lengths", [1, 2], [1], {}),
        ("bad_weight", [1, 2], [1, 1], {"weights": [1, 0]}),
    ],
)
def test_bad_rows_are_refused_with_a_reason(reason: str, stop: list[float], event: list[int], more: dict) -> None:
    with pytest.raises(Inestimable) as error:
        cases(stop, event, **more)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("reason", "event", "groups"),
    [
        ("all_censored", [0, 0, 0, 0], ["a", "a", "b", "b"]),
        ("one_case", [1, 1, 1, 1], ["a", "a", "a", "b"]),
        ("one_group", [1, 1, 1, 1], ["a"] * 4),
    ],
)
def test_groups_that_cannot_be_compared(reason: str, event: list[int], groups: list[str]) -> None:
    with pytest.raises(Inestimable) as error:
        log_rank(cases([1, 2, 3, 4], event), groups)
    assert error.value.reason == reason


def test_a_group_without_an_event_is_named() -> None:
    with pytest.raises(Inestimable, match="all_censored: group b"):
        by_group(cases([1, 2, 3, 4], [1, 1, 0, 0]), ["a", "a", "b", "b"])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1 / 365.25, 24.0, 1e6]))
def test_no_unit_of_time_and_no_order_of_rows_matters(seed: int, scale: float) -> None:
    data = drawn(seed)
    order = np.random.default_rng(seed).permutation(len(data))
    groups = np.arange(len(data)) % 3
    one, other = kaplan_meier(data), kaplan_meier(cases(data.stop[order] * scale, data.event[order]))
    assert other.time == pytest.approx(one.time * scale)
    assert other.survival == pytest.approx(one.survival)
    assert other.high == pytest.approx(one.high, nan_ok=True)
    again = log_rank(cases(data.stop[order] * scale, data.event[order]), groups[order])
    assert again.test.statistic == pytest.approx(log_rank(data, groups).test.statistic)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_weight_of_two_is_the_row_twice(seed: int) -> None:
    data, times = drawn(seed), np.random.default_rng(seed).integers(1, 4, 60)
    twice = kaplan_meier(cases(np.repeat(data.stop, times), np.repeat(data.event, times)))
    weighted = kaplan_meier(cases(data.stop, data.event, weights=times))
    assert weighted.survival == pytest.approx(twice.survival)
    assert weighted.error == pytest.approx(twice.error, nan_ok=True)
