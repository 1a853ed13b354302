"""Signals of a site: each once until it is over, at two levels, and never about anybody by name or reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest

from streams.allocation import signals
from streams.allocation.forecast import Interval, Point
from streams.allocation.signals import Alert, Raised
from streams.allocation.site import CLOSED, FREE, OCCUPIED, Bed, Need, Nurse, Request, Site, Stay


def site(minute: int, lying: int, *, beds: int = 20, unit: str = "A", **more: object) -> Site:
    """One unit with so many in it."""
    all_of = {f"{unit}|1|{n}": Bed(f"{unit}|1|{n}", unit, f"{unit}|1") for n in range(beds)}
    stays = tuple(Stay(Need(f"s{n}", f"patient-{n}"), f"{unit}|1|{n}") for n in range(lying))
    return replace(Site("GH", f"2026-01-01T00:{minute:02}:00.000Z", all_of, stays), **more)  # type: ignore[arg-type]


def run(sites: Sequence[Site]) -> tuple[Raised, list[Alert]]:
    raised, told = Raised(), list[Alert]()
    for one in sites:
        raised, some = signals.step(raised, one)
        told += some
    return raised, told


def said(told: Sequence[Alert]) -> list[tuple[str, str, str]]:
    return [(one.signal, one.state, one.of) for one in told]


# ----------------------------------------------------------------------------------------------------------- hysteresis


def test_overload_is_told_once_until_it_is_over() -> None:
    """Raised at 95%, over below 90%: of 20 beds, 19 and 17."""
    raised, told = run([site(minute, lying) for minute, lying in enumerate((18, 19, 18, 19, 20, 18))])
    assert said(told) == [("overload", "raised", "beds")]
    assert told[0].reasons == ("19 of 20 usable beds are occupied",)
    assert (told[0].value, told[0].limit, told[0].unit) == (0.95, 0.95, "A")
    raised, told = signals.step(raised, site(10, 17))
    assert said(told) == [("overload", "cleared", "beds")]
    assert told[0].since == "2026-01-01T00:01:00.000Z"
    assert raised.since == {}


def test_idle_falls_and_rises_again() -> None:
    _, told = run([site(minute, lying) for minute, lying in enumerate((12, 8, 9, 10, 11, 9, 8))])
    assert [(one.signal, one.state, one.at[14:16]) for one in told] == [
        ("idle", "raised", "01"),
        ("idle", "cleared", "04"),
        ("idle", "raised", "06"),
    ]


def test_few_beds_are_neither() -> None:
    assert run([site(0, 0, beds=3), site(1, 3, beds=3)])[1] == []


def test_a_closed_bed_is_no_bed() -> None:
    half = site(1, 10)
    beds = {id: replace(bed, status=CLOSED) if int(id.split("|")[2]) >= 10 else bed for id, bed in half.beds.items()}
    assert said(run([replace(half, beds=beds)])[1]) == [("overload", "raised", "beds")]


def test_a_unit_that_is_closed_is_over_too() -> None:
    raised, _ = run([site(0, 20)])
    _, told = signals.step(raised, site(1, 0, beds=0))
    assert said(told) == [("overload", "cleared", "beds")]
    assert told[0].reasons == ("it is no longer there",)


def test_a_moment_that_comes_late_changes_nothing() -> None:
    """A clock that went back, or the same site twice."""
    raised, _ = run([site(5, 20)])
    for minute in (5, 3):
        assert signals.step(raised, site(minute, 10)) == (raised, [])
    assert signals.step(raised, site(6, 10))[1] != []


def test_the_same_sites_make_the_same_alerts() -> None:
    sites = [site(minute, lying) for minute, lying in enumerate((19, 12, 20, 5))]
    assert [one.id for one in run(sites)[1]] == [one.id for one in run(sites)[1]]
    ids = [one.id for one in run(sites)[1]]
    assert len(set(ids)) == len(ids)


# --------------------------------------------------------------------------------------------------------------- staff


def test_staff_whose_load_is_too_much() -> None:
    nurse = Nurse("n1", -1.0, 7.0, load=10.0, units=frozenset(("A",)))
    off = replace(nurse, ref="n2", starts=1.0)
    _, told = run([site(0, 11, nurses=(nurse, off)), site(1, 11, nurses=(nurse, replace(off, starts=0.0)))])
    assert said(told) == [("overload", "raised", "staff"), ("overload", "cleared", "staff")]
    assert told[0].reasons == ("load 11.0, and the shift takes 10.0",)


def test_who_works_in_two_units_is_half_in_each() -> None:
    both = Nurse("n1", 0.0, 8.0, load=10.0, units=frozenset(("A", "B")))
    assert said(run([site(0, 10, nurses=(both,))])[1]) == [("overload", "raised", "staff")]
    assert run([site(0, 10, nurses=(replace(both, rooms=frozenset(("A|1",))),))])[1] != []  # 10 of 10
    assert run([site(0, 9, nurses=(replace(both, rooms=frozenset(("A|1",))),))])[1] == []


def test_a_nurse_who_takes_nothing() -> None:
    none = Nurse("n1", 0.0, 8.0, load=0.0, units=frozenset(("A",)))
    (one,) = run([site(0, 10, nurses=(none,))])[1]
    assert one.signal == "overload"
    orjson.loads(orjson.dumps(one.said()))


# ------------------------------------------------------------------------------------------------------------- shortage


def waiting(count: int, due: float | None = None) -> tuple[Request, ...]:
    return tuple(Request(Need(f"r{n}", f"patient-r{n}"), due=due) for n in range(count))


def test_more_wait_than_there_will_be_beds() -> None:
    """Ten beds, nine occupied, one of those free within four hours: two beds for three who wait."""
    full = site(0, 9, beds=10)
    soon = replace(full, stays=(replace(full.stays[0], need=replace(full.stays[0].need, leaves=3.0)), *full.stays[1:]))
    assert run([replace(soon, requests=waiting(2))])[1] == []
    (one,) = run([replace(soon, requests=waiting(3))])[1]
    assert (one.signal, one.of, one.unit) == ("imminent_shortage", "waiting", "")
    assert one.reasons == ("3 wait for a bed within 4 h; 1 are free and 1 are expected to be",)
    assert run([replace(soon, requests=waiting(3, due=30.0))])[1] == []  # they may wait until tomorrow


def test_nothing_free_at_all() -> None:
    told = run([site(0, 12, beds=20, requests=waiting(1)), site(1, 20, requests=waiting(1))])[1]
    assert ("imminent_shortage", "raised", "waiting") in said(told)
    for one in told:
        orjson.loads(orjson.dumps(one.said()))


def test_an_occupied_bed_of_nobody_is_not_free() -> None:
    one = site(0, 5, beds=8)
    beds = {id: replace(bed, status=OCCUPIED if int(id.split("|")[2]) > 5 else FREE) for id, bed in one.beds.items()}
    told = run([replace(one, beds=beds, requests=waiting(2))])[1]
    assert ("imminent_shortage", "raised", "waiting") in said(told)


def point(hours: int, low: float, high: float) -> Point:
    at = datetime(2026, 1, 1, hours, tzinfo=UTC)
    return Point(hours, at, (low + high) / 2, (Interval(0.8, low, high),))


def test_a_shortage_that_is_forecast() -> None:
    here = site(0, 12, beds=20)
    raised, told = signals.step(Raised(), here, {"A": [point(1, 11, 13), point(4, 18, 26)], "B": [point(1, 99, 99)]})
    (one,) = told
    assert (one.signal, one.of, one.unit, one.state) == ("imminent_shortage", "forecast", "A", "raised")
    assert one.value == pytest.approx(0.684, abs=0.001)  # (22 - 20.5) / 3.12 standard deviations
    assert one.reasons == ("in 4 h 22.0 patients are expected for 20 usable beds", "chance of too few beds 68%")
    raised, told = signals.step(raised, replace(here, at="2026-01-01T00:01:00.000Z"), {"A": [point(4, 16, 24)]})
    assert told == []  # 44%: not over yet
    raised, told = signals.step(raised, replace(here, at="2026-01-01T00:02:00.000Z"))
    assert told == []  # no forecast is no good news
    raised, told = signals.step(raised, replace(here, at="2026-01-01T00:03:00.000Z"), {"A": [point(4, 12, 20)]})
    assert [(each.state, each.of) for each in told] == [("cleared", "forecast")]


def test_a_shortage_of_the_whole_site() -> None:
    here = site(0, 12, beds=20)
    (one,) = signals.step(Raised(), here, {"": [point(4, 22, 30)]})[1]
    assert (one.unit, one.of) == ("", "forecast")


# ------------------------------------------------------------------------------------------------------------- breaches


def test_a_broken_rule_is_told_until_it_is_kept() -> None:
    here = site(0, 12)
    broken = [("sex", "A|1"), ("one_per_bed", "A|1|3"), ("sex", "A|1")]
    raised, told = signals.step(Raised(), here, broken=broken)
    assert [(one.signal, one.of, one.unit, one.value) for one in told] == [
        ("rule_breach", "one_per_bed A|1|3", "A", 1.0),
        ("rule_breach", "sex A|1", "A", 2.0),
    ]
    assert told[1].reasons == ("sex is broken at A|1, 2 times",)
    raised, told = signals.step(raised, replace(here, at="2026-01-01T00:01:00.000Z"), broken=broken[:1])
    assert [(one.state, one.of) for one in told] == [("cleared", "one_per_bed A|1|3")]
    assert signals.active(raised) == {("A", "rule_breach"): 1}


# --------------------------------------------------------------------------------------------------------------- people


def test_no_patient_is_in_a_signal() -> None:
    here = replace(site(0, 20), requests=waiting(9))
    _, told = signals.step(Raised(), here, {"A": [point(4, 30, 40)]}, [("sex", "A|1")])
    assert {one.signal for one in told} == {"overload", "imminent_shortage", "rule_breach"}
    text = orjson.dumps([one.said() for one in told]).decode()
    assert "patient-" not in text
    assert '"s1' not in text
