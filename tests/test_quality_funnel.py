"""O/E ratios with intervals, and funnels with overdispersion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from infra.errors import BadOutcome, UsageError
from streams.quality.funnel import LEVELS, dispersion, funnel, ratio


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0, 3.689), (1, 0.0253, 5.572), (5, 1.623, 11.668), (10, 4.795, 18.390)]
)
def test_exact_intervals_are_the_tables(count: int, low: float, high: float) -> None:
    """Garwood (1936), as tables of the Poisson distribution have it: of 10 events 4.795 to 18.390."""
    found = ratio(count, 1.0)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_mid_p_is_that_of_its_test() -> None:
    """OpenEpi's example (Soe and Sullivan 2006): 4 against 3.3, ratio 1.212, mid-P 0.6571. So 1 is the lower end of the
    interval of level 1 - 0.6571."""
    found = ratio(4, 3.3, level=1 - 0.6571, method="mid_p")
    assert found.ratio == pytest.approx(1.212, abs=5e-4)
    assert found.low == pytest.approx(1.0, abs=2e-4)


@given(st.integers(1, 200), st.floats(0.5, 300), st.sampled_from((0.9, 0.95, 0.998)))
@settings(deadline=None)
def test_byar_is_near_the_exact_one_and_mid_p_within(count: int, expected: float, level: float) -> None:
    exact = ratio(count, expected, level=level)
    byar = ratio(count, expected, level=level, method="byar")
    mid = ratio(count, expected, level=level, method="mid_p")
    assert exact.low < mid.low < exact.ratio < mid.high < exact.high
    assert byar.high == pytest.approx(exact.high, rel=0.02)
    if count >= 10:
        assert byar.low == pytest.approx(exact.low, rel=0.03)


def test_an_exact_interval_holds_what_it_says() -> None:
    """Over all counts: the true ratio lies inside at least 95 times of 100; for mid-P 90 at least."""
    counts = np.arange(60)
    for mean in (0.8, 3.0, 11.5):
        chance = stats.poisson.pmf(counts, mean)
        held = {
            method: sum(p for n, p in zip(counts, chance, strict=True) if _holds(int(n), mean, method))
            for method in ("exact", "mid_p")
        }
        assert held["exact"] >= 0.95 - 1e-9
        assert 0.9 < held["mid_p"] <= held["exact"]


def _holds(count: int, mean: float, method: str) -> bool:
    found = ratio(count, mean, method=method)  # type: ignore[arg-type]
    return found.low <= 1 <= found.high


def drawn(units: int, between: float, seed: int) -> dict[str, tuple[int, float]]:
    """Units of 20 to 400 expected events whose true ratio has a standard deviation of `between`, square-root scale."""
    rng = np.random.default_rng(seed)
    expected = rng.uniform(20, 400, units)
    truth = np.maximum(0, 1 + between * rng.standard_normal(units)) ** 2
    return {f"u{n}": (int(rng.poisson(e * t)), float(e)) for n, (e, t) in enumerate(zip(expected, truth, strict=True))}


def test_without_overdispersion_limits_are_those_of_chance() -> None:
    """1,500 units that do not differ: one in 20 beyond 95%, one in 500 beyond 99.8%."""
    points = funnel(drawn(1500, 0.0, 1), overdispersion="none").points
    out = [sum(abs(one.beyond) >= level for one in points) / len(points) for level in LEVELS]
    assert out[0] == pytest.approx(0.05, abs=0.015)
    assert out[1] == pytest.approx(0.002, abs=0.003)


def test_variance_between_units_is_found_again() -> None:
    """Within 10% with nothing winsorised; a tenth winsorised at each end leaves 0.58 of it, as the method has it."""
    units = drawn(2000, 0.1, 2)
    observed, expected = np.array(list(units.values())).T
    assert dispersion(observed, expected, 0.0)[1] == pytest.approx(0.01, rel=0.1)
    assert dispersion(observed, expected)[1] == pytest.approx(0.0058, rel=0.05)
    assert dispersion(*np.array(list(drawn(2000, 0.0, 3).values())).T)[1] == 0


@pytest.mark.parametrize("overdispersion", ["additive", "multiplicative"])
def test_units_that_differ_are_not_all_flagged(overdispersion: str) -> None:
    """200 units that differ: of chance alone half would be flagged; the one that is truly high still is."""
    units = drawn(200, 0.1, 4) | {"high": (400, 150.0)}
    plain = funnel(units, overdispersion="none")
    found = funnel(units, overdispersion=overdispersion)  # type: ignore[arg-type]
    flagged = [sum(one.beyond != 0 for one in made.points) for made in (plain, found)]
    assert flagged[0] > 90
    assert flagged[1] < 30
    assert {one.unit: one.beyond for one in found.points}["high"] == LEVELS[1]
    assert found.adjusted == overdispersion
    assert found.phi > 2


def test_additive_limits_stay_apart() -> None:
    units = drawn(200, 0.1, 4) | {"huge": (1_000_000, 1_000_000.0)}
    (huge,) = (one for one in funnel(units).points if one.unit == "huge")
    assert huge.limits[0.95][0] < 0.85 < 1.15 < huge.limits[0.95][1]


def test_a_unit_of_one_case_and_few_units() -> None:
    """One death where 0.04 were expected: a chance of 0.039, which is no signal; two units tell no overdispersion."""
    found = funnel({"ICU": (1, 0.04), "MED": (40, 20.0)})
    assert found.adjusted == "none"
    one, other = found.points
    assert one.beyond == 0.0
    assert 1 - math.exp(-0.04) > 0.025
    assert other.beyond == LEVELS[1]
    assert funnel({"ICU": (0, 0.01)}).points[0].beyond == 0


@pytest.mark.parametrize(
    ("counted", "reason"),
    [((1, 0.0), "nothing_expected"), ((1, math.nan), "nothing_expected"), ((-1, 2.0), "bad_count")],
)
def test_what_has_no_ratio(counted: tuple[int, float], reason: str) -> None:
    with pytest.raises(BadOutcome, match=rf"^{reason}$"):
        ratio(*counted)
    with pytest.raises(BadOutcome, match=rf"^{reason}$"):
        funnel({"ICU": counted, "MED": (1, 1.0)})
    with pytest.raises(BadOutcome, match=r"^no_cases$"):
        funnel({})
    with pytest.raises(UsageError):
        ratio(1, 1.0, level=1.0)
