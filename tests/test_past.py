"""What stays and uses are made of, before anything is forecast or grouped: by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import permutations

import pytest

from consumers.past import WARM_UP, Lain, census
from schemas.allocation import PlacementEvent
from streams.allocation import clusters
from streams.allocation.placement import entry, way
from tests.wards import HOUR, START


def at(hours: float) -> datetime:
    return START + hours * HOUR


def moves(*steps: tuple[str, str, str]) -> dict[str, dict[str, str]]:
    made: dict[str, dict[str, str]] = {}
    for trigger, unit, when in steps:
        part = PlacementEvent(trigger=trigger, unit=unit, room="1", bed="2")
        made |= {key: value for (_, key), value in entry(part, when, when).items()}
    return made


def test_where_somebody_lay() -> None:
    """In A from 1, moved to B at 5, the move taken back at 6, moved to C at 7, gone at 9; told in any order."""
    steps = (("A01", "A", "01"), ("A02", "B", "05"), ("A12", "A", "06"), ("A02", "C", "07"), ("A03", "C", "09"))
    for some in permutations(steps):
        assert way(moves(*some)) == [(("A", "1", "2"), "01", "07"), (("C", "1", "2"), "07", "09")]


def test_a_change_of_class_is_no_other_place_and_an_open_stay_has_no_end() -> None:
    assert way(moves(("A04", "A", "01"), ("A06", "A", "03"))) == [(("A", "1", "2"), "01", "")]


def test_a_stay_that_was_cancelled_or_only_planned_is_none() -> None:
    assert way(moves(("A01", "A", "01"), ("A11", "A", "02"))) == []
    assert way(moves(("A05", "A", "01"))) == []


def lain(begun: float, ended: float | None) -> Lain:
    until = None if ended is None else at(ended)
    return Lain("GH", "p", "MED", 50, (("A", "A|1|2", at(begun), until),))


def test_the_census_begins_a_week_after_the_first_event() -> None:
    made = census([lain(0, 200), lain(3, None), *(lain(n, n + 1) for n in range(0, 240, 5))], at(240))
    assert made[""].start == START + WARM_UP
    assert len(made[""].values) == 240 - 168 + 1
    assert made["A"].values[:3].tolist() == [2.0, 2.0, 3.0]  # at 170 somebody comes for an hour
    assert census([], at(1)) == {}
    assert census([lain(99_999, None)], at(1)) == {}


def test_use_of_each_hour_of_the_day_by_hand() -> None:
    """Two days: from 08:30 to 10 on the first, all of hour 9 on the second, and something before and after."""
    spans = [(at(8.5), at(10)), (at(33), at(34)), (at(-5), at(0.5)), (at(47.75), at(60))]
    used = clusters.use(spans, at(0), at(48))
    assert {hour: one for hour, one in enumerate(used) if one} == pytest.approx({0: 0.25, 8: 0.25, 9: 1.0, 23: 0.125})
    assert clusters.use([], at(0), at(0) + timedelta(days=1)) == (0.0,) * 24
