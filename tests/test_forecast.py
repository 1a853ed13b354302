"""Forecasts of occupancy: the census and MASE by hand, the model beside the seasonal naive where it wins or not."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.errors import Untrainable
from streams.allocation import forecast as f
from streams.allocation.forecast import Placed, Point, Series
from tests.wards import START, stays

HOUR = timedelta(hours=1)
WEEKLY = np.tile(30 + 10 * np.sin(np.arange(168) / 168 * 14 * math.pi) + np.arange(168) / 84, 20)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def simulated(days: int, seed: int = 1) -> dict[str, Series]:
    placed = [one.placed for one in stays(days, seed, per_day=60)]
    return f.occupancy(placed, at(7 * 24), at((days - 1) * 24))  # the first week fills the beds


def series(values: NDArray[np.float64]) -> Series:
    return Series(START, values.astype(float))


# --------------------------------------------------------------------------------------------------------------- census


def test_census_by_hand() -> None:
    placed = [
        Placed("A", at(-5), at(1)),  # gone at 01:00, as the patient of 01:00 sees it
        Placed("A", at(0.5), at(2.5)),
        Placed("B", at(2), None),
        Placed("A", at(2.2), at(2.8)),  # between two full hours: in no census
        Placed("B", at(3), at(1)),  # left before coming: a clock that jumped
        Placed("B", at(99), None),  # not yet
    ]
    found = f.occupancy(placed, at(0), at(4))
    assert found["A"].values.tolist() == [1, 1, 1, 0, 0]
    assert found["B"].values.tolist() == [0, 0, 1, 1, 1]
    assert found[""].values.tolist() == [1, 1, 2, 1, 1]
    assert found["A"].start == START


def test_census_begins_at_a_full_hour_and_may_be_empty() -> None:
    assert f.occupancy([], at(0.1), at(3.9))[""] == Series(at(1), pytest.approx(np.zeros(3)))
    assert len(f.occupancy([], at(5), at(1))[""].values) == 0


def test_hours_of_which_nobody_knows() -> None:
    found = f.occupancy([Placed("A", at(0), None)], at(0), at(5), [(at(1.5), at(3.5))])
    assert np.isnan(found["A"].values).tolist() == [False, False, True, True, False, False]


def test_a_silence_is_longer_than_the_usual_pauses() -> None:
    busy = [at(number / 4) for number in range(400) if not 200 < number < 260]
    assert f.silences(busy) == [(at(50), at(65))]
    quiet = [at(number * 5.0) for number in range(100)]  # a small house: five hours are nothing
    assert f.silences(quiet) == []
    assert f.silences([]) == f.silences([at(0)]) == []


# ----------------------------------------------------------------------------------------------------------------- MASE


def test_mase_by_hand() -> None:
    """Season 3: |4-1|, |2-2|, |2-5| are 3, 0, 3, mean 2. Errors of 1, -3: mean 2 and so 1.0."""
    assert f.scale(np.array([1.0, 2, 5, 4, 2, 2]), 3) == 2.0
    assert f.mase(np.array([1.0, -3.0]), 2.0) == 1.0


def test_mase_of_a_series_that_never_changes_is_none() -> None:
    assert f.scale(np.ones(10), 3) == 0
    assert math.isnan(f.mase(np.array([1.0]), 0.0))
    assert math.isnan(f.scale(np.ones(3), 3))


def test_the_naive_looks_back_whole_seasons() -> None:
    values = np.arange(10.0)
    assert f.naive(values, 2, 3).tolist()[3:5] == [2.0, 3.0]  # 3 + 2 - 3, 4 + 2 - 3
    assert f.naive(values, 4, 3).tolist()[5] == 3.0  # 5 + 4 - 6
    assert np.isnan(f.naive(values, 2, 3)[0])


# ---------------------------------------------------------------------------------------------------------------- model


def test_a_pattern_without_noise_is_met() -> None:
    """All but what the hour of the week shares with the hour of the day while there are few weeks of it."""
    whole = series(WEEKLY)
    told = Series(START, WEEKLY[: -72 - 5])
    for point in f.forecast(told, f.fit(told)):
        place = len(told.values) - 1 + point.hours
        assert point.at == START + place * HOUR
        assert point.expected == pytest.approx(whole.values[place], abs=0.5)


def test_beats_the_seasonal_naive_on_the_simulated_hospital() -> None:
    for unit, one in simulated(180).items():
        judged = f.judge(one)
        assert [each.hours for each in judged] == [1, 4, 24, 72]
        for each in judged:
            assert each.beats or (unit and each.hours == 72), (unit, each.hours)  # a small unit's 72 h are near chance
            assert each.mase < min(each.naive.values())
            assert each.mae > 0
            assert each.width[0.95] > each.width[0.8] > 0
        assert judged[0].mase < judged[1].mase < judged[2].mase < judged[3].mase


def test_intervals_hold_what_they_promise() -> None:
    """Over twelve simulated half years; neighbours err alike, so a single one may be far off."""
    judged = [each for seed in range(4) for one in simulated(180, seed).values() for each in f.judge(one)]
    for level in f.LEVELS:
        for h in f.HORIZONS:
            held = np.mean([each.coverage[level] for each in judged if each.hours == h])
            assert level - 0.08 < held < level + 0.1, (h, level)


def test_says_so_where_it_does_not_beat_the_naive() -> None:
    """Each hour is that of last week and a step: nobody can know more than the naive does."""
    rng = np.random.default_rng(3)
    steps = rng.normal(0, 3, (30, 168))
    walk = 100 + np.cumsum(steps, axis=0).ravel()
    for each in f.judge(series(walk)):
        assert each.season == 168
        assert not each.beats, each.hours


def test_never_less_than_nobody() -> None:
    few = series(np.maximum(0, np.random.default_rng(4).poisson(0.3, 24 * 60)))
    for point in f.forecast(few, f.fit(few)):
        assert point.expected >= 0
        assert all(0 <= each.low <= each.high for each in point.intervals)


def test_gaps_are_no_zeros() -> None:
    whole = simulated(120)[""]
    gone = whole.values.copy()
    gone[1000:1072] = np.nan
    gone[1500:1504] = np.nan
    with_gaps, without = (f.forecast(one, f.fit(one)) for one in (Series(whole.start, gone), whole))
    for one, other in zip(with_gaps, without, strict=True):
        assert one.expected == pytest.approx(other.expected, rel=0.05)
    assert all(each.beats for each in f.judge(Series(whole.start, gone))[:3])


def test_a_feed_that_is_away_now_is_forecast_from_what_was_known_last() -> None:
    whole = simulated(60)[""]
    away = Series(whole.start, np.concatenate((whole.values, np.full(9, np.nan))))
    model = f.fit(whole)
    assert f.forecast(away, model) == f.forecast(whole, model)


def test_no_history() -> None:
    for values in (np.empty(0), np.full(1000, np.nan), np.ones(13 * 24)):
        with pytest.raises(Untrainable, match="too_little_history") as caught:
            f.fit(series(values))
        assert caught.value.reason == "too_little_history"
    with pytest.raises(Untrainable):
        f.judge(series(np.ones(20 * 24)))  # enough to fit, not to judge as well


def test_a_ward_that_never_changes_is_no_error() -> None:
    flat = series(np.full(24 * 80, 12.0))
    assert [point.expected for point in f.forecast(flat, f.fit(flat))] == pytest.approx([12.0] * 4)
    for each in f.judge(flat):
        assert math.isnan(each.mase)
        assert not each.beats


def test_the_same_history_gives_the_same_figures() -> None:
    one = simulated(60)[""]
    assert f.judge(one) == f.judge(one)


# --------------------------------------------------------------------------------------------------------------- chance


def test_chance_of_more_than_there_is_room_for() -> None:
    """Half where the limit is the middle (and half a bed), a tenth at the upper end of the 80%."""
    point = Point(
        4, datetime(2026, 1, 1, tzinfo=UTC), 20.0, (f.Interval(0.8, 16.0, 24.0), f.Interval(0.95, 14.0, 26.0))
    )
    assert point.chance_above(19.5) == pytest.approx(0.5)
    assert point.chance_above(23.5) == pytest.approx(0.1, abs=1e-6)
    sure = Point(1, point.at, 20.0, (f.Interval(0.8, 20.0, 20.0),))
    assert (sure.chance_above(20), sure.chance_above(19)) == pytest.approx((0.0, 1.0))
