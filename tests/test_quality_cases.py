"""What became of patients: outcomes of cases, in whatever order they were told; and the charts that count them."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.envelope import rfc3339
from streams.quality import cases
from streams.quality.cases import (
    DEATH_FIRST,
    DIED_30D,
    DIED_IN_HOSPITAL,
    NEGATIVE,
    NO_BEGINNING,
    NO_UNIT,
    READMITTED_30D,
    Case,
    Measured,
    Person,
    Risk,
    follow_up,
    measured,
    trouble,
    unit_of,
)
from streams.quality.charts import points
from streams.quality.units import STAGES, UNIT, Key, Units, Wanted, find, mix_of

MEASURES = (DIED_IN_HOSPITAL, DIED_30D, READMITTED_30D)


def day(number: float) -> str:
    return rfc3339(datetime.fromisoformat("2026-03-01T08:00:00Z") + timedelta(days=number))


def case(record: str, begun: float, ended: float | None = None, **more: Any) -> Case:
    return replace(
        Case(
            record=record,
            person="p",
            site="EAST",
            unit="CARD",
            procedure="",
            service="",
            begun=day(begun),
            ended=day(ended) if ended is not None else "",
            disposition="",
            planned=False,
            known=day(ended if ended is not None else begun),
            expected={name: Risk(0.1) for name in MEASURES},
        ),
        **more,
    )


def found(of: Person) -> dict[tuple[str, str], Measured]:
    return {(one.record, one.measure): one for one in measured(of)}


def test_a_stay_that_ends_well() -> None:
    made = found(Person((case("a", 0, 5),)))
    assert {name: (one.event, one.at, one.due) for (_, name), one in made.items()} == {
        DIED_IN_HOSPITAL: (False, day(5), day(5)),
        DIED_30D: (False, day(0), "2026-04-01T00:00:00.000Z"),  # the whole thirtieth day is waited for
        READMITTED_30D: (False, day(5), "2026-04-06T00:00:00.000Z"),
    }


@pytest.mark.parametrize(
    ("one", "died", "events"),
    [
        (case("a", 0, 5, disposition="20"), "", {DIED_IN_HOSPITAL: True, DIED_30D: True}),
        (case("a", 0), day(3), {DIED_IN_HOSPITAL: True, DIED_30D: True}),  # never discharged
        (case("a", 0, 5), day(12), {DIED_IN_HOSPITAL: False, DIED_30D: True}),  # nobody can come back
        (case("a", 0, 5), day(33), {DIED_IN_HOSPITAL: False, DIED_30D: False}),
        (case("a", 0, 40, disposition="20"), "", {DIED_IN_HOSPITAL: True, DIED_30D: False}),
        (case("a", 0, 5), day(50), {DIED_IN_HOSPITAL: False, DIED_30D: False, READMITTED_30D: False}),
        (case("a", 0), "", {DIED_30D: False}),  # still in
    ],
)
def test_deaths(one: Case, died: str, events: dict[str, bool]) -> None:
    assert {name: made.event for (_, name), made in found(Person((one,), died)).items()} == events


@pytest.mark.parametrize(
    ("second", "back"),
    [
        (case("b", 20, 22), True),
        (case("b", 34, 36), True),
        (case("b", 36, 40), False),
        (case("b", 20, 22, planned=True), False),
    ],
)
def test_who_comes_back_within_thirty_days(second: Case, back: bool) -> None:
    made = found(Person((case("a", 0, 5), second)))
    assert made["a", READMITTED_30D].event is back
    assert made["b", READMITTED_30D].event is False


@pytest.mark.parametrize(
    ("some", "died", "in_hospital"),
    [
        ((case("a", 0),), day(150), False),  # nobody has said a word of it for months
        ((case("a", 0), case("b", 100, 105, disposition="20")), day(105), False),  # its end was never told
        ((case("a", 0, 5),), day(5.4), False),  # at home, on the day of the discharge
        ((case("a", 0, 5),), day(4.9), True),
        ((case("a", 0, 5, disposition="42"),), "", False),  # a hospice knows not where
    ],
)
def test_a_death_is_in_the_stay_that_it_ended(some: tuple[Case, ...], died: str, in_hospital: bool) -> None:
    deaths = [one for one in measured(Person(some, died)) if one.measure == DIED_IN_HOSPITAL and one.event]
    assert len(deaths) <= 1
    assert ("a" in {one.record for one in deaths}) is in_hospital


def test_a_date_of_death_is_a_midnight_somewhere() -> None:
    """Berlin's 5 March begins at 23:00 of the 4th in UTC; whoever was admitted that afternoon did not die before."""
    one = replace(case("a", 0), begun="2026-03-05T13:30:00.000Z", known="2026-03-05T13:30:00.000Z")
    assert trouble(one, "2026-03-04T23:00:00.000Z") == ""
    assert found(Person((one,), "2026-03-04T23:00:00.000Z"))["a", DIED_30D].event is True
    assert trouble(one, "2026-03-04T13:00:00.000Z") == DEATH_FIRST


def test_who_is_moved_to_another_house_does_not_come_back() -> None:
    assert found(Person((case("a", 0, 5), case("b", 5.02, 20))))["a", READMITTED_30D].event is False


def test_a_readmission_that_ends_in_death() -> None:
    made = found(Person((case("a", 0, 5), case("b", 10, 12, disposition="20")), day(12)))
    assert made["a", READMITTED_30D].event is True
    assert ("b", READMITTED_30D) not in made


@pytest.mark.parametrize(
    ("one", "died", "why"),
    [
        (case("a", 0, 5), day(-2), DEATH_FIRST),
        (case("a", 5, 0), "", NEGATIVE),
        (case("a", 0, 5, unit=""), "", NO_UNIT),
        (replace(case("a", 0, 5), begun=""), "", NO_BEGINNING),
        (case("a", 0, 5), day(0)[:10] + "T00:00:00.000Z", ""),  # a date without a time, on the day of admission
    ],
)
def test_what_cannot_be_is_counted_nowhere(one: Case, died: str, why: str) -> None:
    assert trouble(one, died) == why
    assert bool(measured(Person((one,), died))) is not bool(why)
    assert (follow_up(one, died, day(60)) is None) is bool(why)


def test_follow_up_is_days_lived() -> None:
    assert follow_up(case("a", 0, 5), "", day(60)) == (60, False)
    assert follow_up(case("a", 0, 5), day(12), day(60)) == (12, True)
    assert follow_up(case("a", 0, 5), day(12), day(10)) == (10, False)  # not known by then
    assert follow_up(case("a", 0, 5, disposition="20"), "", day(60)) == (5, True)


def test_a_stay_belongs_to_where_the_patient_lay_longest() -> None:
    units = {day(0): "ED", day(0.2): "CARD", day(4): "ICU"}
    assert unit_of(units, day(6), "") == "CARD"
    assert unit_of(units, "", day(20)) == "ICU"
    assert unit_of(units | {day(7): "ORTH"}, day(6), "") == "ORTH"  # told afterwards: a correction
    assert unit_of({}, day(6), "") == ""


def test_a_case_of_two_references_is_one() -> None:
    """Admitted under one number, discharged under another, which were joined later."""
    common = {"kind": "case", "site": "EAST", "stay": "s", "state": "active"}
    one = common | {"patient_ref": "a", "admitted_at": day(0), "unit": "CARD", "event_time": day(0), "event_id": "1"}
    two = common | {"patient_ref": "b", "discharged_at": day(3), "event_time": day(3), "event_id": "2"}
    one["folded"] = {"*": f"{day(0)}|1", "state": f"{day(0)}|1", "site": f"{day(0)}|1", "admitted_at": f"{day(0)}|1"}
    one["folded"] |= {f"history/units/{day(0)}": f"{day(0)}|1"}
    one["history"] = {"units": {day(0): "CARD"}}
    two["folded"] = {"*": f"{day(3)}|2", "state": f"{day(3)}|2", "site": f"{day(3)}|2", "discharged_at": f"{day(3)}|2"}
    apart = cases.people([("x", one), ("y", two)], {})
    assert {of: len(person.cases) for of, person in apart.items()} == {("EAST", "a"): 1, ("EAST", "b"): 1}
    ((of, person),) = cases.people([("x", one), ("y", two)], {"a": "b"}).items()
    (made,) = person.cases
    assert (of, made.begun, made.ended, made.unit, person.known) == (("EAST", "b"), day(0), day(3), "CARD", day(3))


# --------------------------------------------------------------------------------------------------------------- charts


KEY = Key("EAST", UNIT, "CARD", DIED_IN_HOSPITAL)


def hospital(count: int, seed: int) -> dict[tuple[str, str], Person]:
    """Made-up people; some die, some come back, some of what is told cannot be."""
    drawn = random.Random(seed)
    made = {}
    for number in range(count):
        begun = drawn.uniform(-300, 90)
        ended = begun + drawn.expovariate(0.2)
        some = [case(f"{number}a", begun, ended, unit=drawn.choice(("CARD", "ORTH", "")), procedure=drawn.choice("XY"))]
        if drawn.random() < 0.2:
            some.append(case(f"{number}b", ended + drawn.uniform(0, 60), None))
        died = day(begun + drawn.uniform(-5, 60)) if drawn.random() < 0.2 else ""
        risk = {name: Risk(drawn.uniform(0.02, 0.4)) for name in MEASURES}
        some = [replace(one, expected=risk if drawn.random() < 0.95 else {}) for one in some]
        made["EAST", f"p{number}"] = Person(tuple(some), died, max(one.known for one in some))
    return made


def drawn(units: Units) -> dict[Key, list[Any]]:
    """All that a chart shows: who counted, in which order, and how it stood after each; and what was raised."""
    units.find()
    made = {}
    for key, chart in units.charts().items():
        shown = [(one.record, one.at, one.risk, one.event, level) for one, level in points(chart)]
        if shown:
            made[key] = [shown, chart.signals, chart.spec]
    return made


@given(st.integers(0, 1000), st.integers(5, 60))
@settings(max_examples=6, deadline=None)
def test_any_order_any_repetition_any_version_ends_in_the_same_charts(seed: int, count: int) -> None:
    people, order = hospital(count, seed), random.Random(seed)
    clean = Units()
    for of, one in people.items():
        clean.take(of, one)
    told: list[tuple[tuple[str, str], Person]] = []
    for of, one in people.items():
        earlier = [replace(one, died=""), Person(one.cases[:1], "", one.cases[0].known)]
        told += [(of, version) for version in earlier if order.random() < 0.5]
    order.shuffle(told)
    last = list(people.items())
    order.shuffle(last)
    units = Units()
    for number, (of, one) in enumerate([*told, *last, *order.sample(last, len(last) // 2)]):
        units.take(of, one)
        if number == len(told):
            units.find()
    assert drawn(units) == drawn(clean)
    assert units.troubles == clean.troubles


def test_nothing_counts_before_it_is_due() -> None:
    units = Units()
    units.take(("EAST", "p"), Person((case("a", 0, 5),), "", day(5)))
    key = Key("EAST", UNIT, "CARD", DIED_30D)
    units.changed()
    assert (key in units.charts(), units.waiting(key)) == (False, (1, 0))
    units.take(("EAST", "q"), Person((case("b", 40),), "", day(40)))
    assert units.charts()[key].level.cases == 1
    assert units.waiting(key) == (1, 0)


def test_who_has_no_expected_risk_waits() -> None:
    units = Units()
    units.take(("EAST", "p"), Person((case("a", 0, 5, expected={}),), "", day(5)))
    assert (units.charts(), units.waiting(KEY)) == ({}, (0, 1))
    assert [(one.record, found.measure) for one, found in units.outcomes(("EAST", "p"))] == [("a", DIED_IN_HOSPITAL)]


def test_a_correction_a_month_late_moves_a_case_and_an_erasure_takes_it() -> None:
    units = Units()
    units.take(("EAST", "p"), Person((case("a", 0, 5),), "", day(5)))
    units.take(("EAST", "q"), Person((case("b", 1, 6),), "", day(36)))
    assert units.charts()[KEY].level.cases == 2
    units.take(("EAST", "p"), Person((case("a", 0, 5, unit="ORTH"),), "", day(36)))
    moved = units.charts()
    assert (moved[KEY].level.cases, moved[replace(KEY, name="ORTH")].level.cases) == (1, 1)
    units.take(("EAST", "q"), None)
    assert units.charts()[KEY].level.cases == 0


def test_charts_begin_with_the_year_before() -> None:
    units = Units()
    units.take(("EAST", "p"), Person((case("a", 0, 5),), "", day(5)))
    units.take(("EAST", "q"), Person((case("b", 500, 501),), "", day(501)))
    assert units.charts()[KEY].level.cases == 2
    units.take(("EAST", "r"), Person((case("c", 700, 701),), "", day(701)))  # two new years later
    assert units.charts()[KEY].level.cases == 2


def test_a_procedure_that_nobody_expects_anything_of_has_no_chart() -> None:
    units = Units()
    for number in range(50):
        one = case(f"{number}", number, number + 1, procedure=f"P{number}", expected={})
        units.take(("EAST", f"p{number}"), Person((one,), "", one.known))
    units.changed()
    assert {key.scope for key in units._states} == {UNIT}


@pytest.mark.parametrize("risk", [0.00001, 0.0001, 0.99995])
def test_risks_so_low_or_high_that_no_limit_has_the_run_length(risk: float) -> None:
    made = find(Wanted(mix_of([risk] * 16), Units().design))
    assert made.upper is not None
    assert made.upper > 0


def test_limits_are_those_of_the_first_outcomes() -> None:
    units, risks = Units(), [0.05 + 0.3 * (number % 7) / 7 for number in range(STAGES[1])]
    for number, risk in enumerate(risks):
        one = case(f"{number:03}", number, number + 1, expected={DIED_IN_HOSPITAL: Risk(risk)})
        units.take(("EAST", f"p{number}"), Person((one,), "", one.known))
    units.find()
    stages = units.charts()[KEY].spec.stages
    assert [number for number, _ in stages] == list(STAGES[:2])
    assert stages[1][1] == find(Wanted(mix_of(risks), units.design))
    assert stages[0][1] == find(Wanted(mix_of(risks[: STAGES[0]]), units.design))
