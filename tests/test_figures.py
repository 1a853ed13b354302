"""Figures of one cohort and of two, against published examples and scipy."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from consumers.figures import (
    MOST_BINS,
    compare_categories,
    compare_numbers,
    compare_shares,
    counts,
    edges,
    medians,
    modes,
    numbers,
    shift,
    sparkline,
)

# Hollander and Wolfe, Nonparametric Statistical Methods (2nd edition 1999), table 4.1: permeability of the human
# chorioamnion at term and at 12 to 26 weeks. Its exact p, shift and interval are those of R's package coin.
TERM = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
EARLY = np.array([1.15, 0.88, 0.90, 0.74, 1.21])
# Student (1908), the additional hours of sleep of ten patients under two drugs; R's `sleep`, t.test(extra ~ group).
SLEEP_1 = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP_2 = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
SAMPLES = arrays(np.float64, st.integers(2, 40), elements=st.integers(-20, 20).map(lambda n: n / 4))


def test_numbers() -> None:
    found = numbers(np.arange(1.0, 102.0))
    assert (found.n, found.mean, found.minimum, found.maximum) == (101, 51.0, 1.0, 101.0)
    assert found.quantiles == pytest.approx({"p5": 6, "q1": 26, "median": 51, "q3": 76, "p95": 96})
    assert found.sd == pytest.approx(stats.tstd(np.arange(1.0, 102.0)))
    assert numbers(np.array([5.0])).sd is None


def test_mann_whitney_and_the_shift_as_published() -> None:
    found = compare_numbers(TERM, EARLY)
    assert found.p == pytest.approx(0.2544, abs=5e-5)
    assert found.beside["hodges_lehmann"] == pytest.approx(0.305)
    assert found.beside["hodges_lehmann_interval"] == pytest.approx((-0.15, 0.76))
    assert found.size == pytest.approx(2 * 35 / 50 - 1), "U is 35, of 50 pairs"


def test_welch_as_published() -> None:
    """R's documentation of t.test: t = -1.8608, p = 0.07939, interval -3.3654832 to 0.2054832."""
    found = compare_numbers(SLEEP_1, SLEEP_2).beside
    assert found["welch_t"] == pytest.approx(-1.8608, abs=5e-5)
    assert found["welch_p"] == pytest.approx(0.07939, abs=5e-6)
    assert found["difference_of_means_interval"] == pytest.approx((-3.3654832, 0.2054832), abs=5e-8)
    d = (SLEEP_1.mean() - SLEEP_2.mean()) / np.sqrt((SLEEP_1.var(ddof=1) + SLEEP_2.var(ddof=1)) / 2)
    assert found["hedges_g"] == pytest.approx(d * (1 - 3 / (4 * 18 - 1)))


@given(SAMPLES, SAMPLES)
def test_the_shift_is_the_median_of_all_differences(a: np.ndarray, b: np.ndarray) -> None:
    every = np.sort(np.subtract.outer(a, b).ravel())
    middle, low, high = shift(a, b)
    assert middle == pytest.approx(float(np.median(every)))
    assert low <= middle <= high
    assert min(abs(every - low)) < 1e-9
    assert min(abs(every - high)) < 1e-9


@given(SAMPLES, SAMPLES)
def test_the_effect_is_how_much_oftener_one_is_above(a: np.ndarray, b: np.ndarray) -> None:
    found = compare_numbers(a, b)
    assert found.size == pytest.approx(float(np.sign(np.subtract.outer(a, b)).mean()), abs=1e-12)
    assert 0 <= found.p <= 1


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        _, low, high = shift(rng.normal(1, 1, 25), rng.normal(0, 1, 30))
        held += low <= 1 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_large_shift_is_looked_for_and_not_made() -> None:
    """200,000 by 150,000 differences would be 240 GB."""
    rng = np.random.default_rng(2)
    middle, low, high = shift(rng.normal(0.1, 1, 200_000), rng.normal(0, 1, 150_000))
    assert low < 0.1 < high
    assert abs(middle - 0.1) < 0.01


def test_a_lady_tasting_tea() -> None:
    """Fisher, The Design of Experiments (1935): 3 of 4 right. R: p = 0.4857, odds ratio 6.408309."""
    found = compare_categories({"milk": 3, "tea": 1}, {"milk": 1, "tea": 3})
    assert found is not None
    assert (found.test, found.effect) == ("Fisher exact", "odds ratio")
    assert found.p == pytest.approx(0.4857, abs=5e-5)
    assert found.size == pytest.approx(6.408309, rel=1e-5)
    assert found.interval == pytest.approx((0.2117329, 621.9337505), rel=1e-2), "scipy and R end their search apart"


def test_chi_square_as_published() -> None:
    """Agresti, Categorical Data Analysis (2nd edition 2002), p. 38; R's documentation of chisq.test: 30.07, 2 df."""
    found = compare_categories(
        {"Democrat": 762, "Independent": 327, "Republican": 468},
        {"Democrat": 484, "Independent": 239, "Republican": 477},
    )
    assert found is not None
    assert (found.test, found.effect) == ("chi-square", "Cramer's V")
    assert found.p == pytest.approx(2.954e-07, rel=1e-3)
    assert found.size == pytest.approx((30.070149 / 2757) ** 0.5, rel=1e-6)


def test_of_three_small_categories_the_same_answer_twice() -> None:
    first = compare_categories({"a": 3, "b": 1, "c": 2}, {"a": 1, "b": 3})
    assert first is not None
    assert first.test == "Fisher exact, Monte Carlo"
    assert first == compare_categories({"a": 3, "b": 1, "c": 2}, {"a": 1, "b": 3})


def test_what_cannot_be_compared() -> None:
    assert compare_categories({"a": 3}, {"a": 9}) is None
    assert compare_categories({"a": 3, "b": 1}, {}) is None
    assert compare_categories({str(n): 1 for n in range(51)}, {"1": 4}) is None
    assert compare_shares(0, 5, 0, 9) is None
    assert compare_shares(5, 5, 9, 9) is None
    assert compare_shares(0, 0, 3, 9) is None


def test_risk_ratio_as_published() -> None:
    """Steering Committee of the Physicians' Health Study, NEJM 1989;321:129: 139 of 11,037 infarctions under aspirin,
    239 of 11,034 under placebo; the crude ratio is 0.58, of 0.47 to 0.72."""
    found = compare_shares(139, 11_037, 239, 11_034)
    assert found is not None
    assert found.size == pytest.approx(0.58, abs=0.005)
    assert found.interval == pytest.approx((0.47, 0.72), abs=0.006)


# -------------------------------------------------------------------------------------------------------------- shape


@given(arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e9, 1e9)))
def test_every_value_is_in_a_bin(values: np.ndarray) -> None:
    at = edges(values)
    assert 2 <= len(at) <= MOST_BINS + 1
    assert counts(values, at).sum() == len(values)


def test_bins_are_as_wide_as_the_rule_says() -> None:
    values = np.random.default_rng(3).normal(size=1000)
    ours, numpys = edges(values), np.histogram_bin_edges(values, "fd")
    assert ours == pytest.approx(numpys)
    assert len(edges(np.array([1.0] * 90 + [5.0] * 10))) == 9, "no spread between the quartiles: Sturges' 8 bins"


def test_sparkline() -> None:
    assert sparkline([0, None, 7, 3.5]) == "\u2581 \u2588\u2585"
    assert sparkline([2, 2]) == "\u2581\u2581"
    assert sparkline([]) == sparkline([None]) == ""


# ------------------------------------------------------------------------------------------------- one value a patient


@given(st.lists(st.tuples(st.integers(-1, 5), st.integers(-9, 9)), max_size=60))
def test_one_median_a_patient(pairs: list[tuple[int, int]]) -> None:
    values, whose = medians(np.array([float(v) for _, v in pairs]), np.array([p for p, _ in pairs], dtype=np.int64))
    wanted = {p: float(np.median([v for q, v in pairs if q == p])) for p in {p for p, _ in pairs} - {-1}}
    assert dict(zip(whose.tolist(), values.tolist(), strict=True)) == wanted


def test_one_word_a_patient() -> None:
    assert modes([(0, "b"), (0, "a"), (0, "b"), (1, "z"), (1, "y"), (-1, "x")]) == {0: "b", 1: "y"}


def test_a_report_is_json() -> None:
    found = compare_shares(3, 10, 0, 12)
    assert found is not None
    assert found.size == float("inf"), "made null where a report is made of it"
    with pytest.raises(ValueError, match="JSON"):
        json.dumps(found.size, allow_nan=False)
