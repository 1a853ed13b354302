"""Nurses, theatres, divisible resources, and why there is no plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from infra.errors import UsageError
from streams.allocation.assign import Effort, assign
from streams.allocation.conflict import explain, explain_without
from streams.allocation.divide import Demand, divide
from streams.allocation.plan import BED, INFEASIBLE, NURSE, OPTIMAL, THEATRE, Assignment, Breach, Plan
from streams.allocation.planner import plan
from streams.allocation.rules import check
from streams.allocation.site import CLOSED, Bed, Need, Nurse, Request, Site, Stay, Theatre
from streams.allocation.staffing import staff
from streams.allocation.theatres import operate

AT = "2026-03-01T08:00:00Z"


def beds(*names: str, **more: object) -> dict[str, Bed]:
    return {name: Bed(name, *name.split("|")[:2], **more) for name in names}  # type: ignore[arg-type]


def stay(ref: str, bed: str | None, **more: object) -> Stay:
    return Stay(Need(ref, f"p-{ref}", **more), bed)  # type: ignore[arg-type]


def kept(site: Site) -> Plan:
    lines = tuple(Assignment(BED, one.need.ref, one.bed, 0.0, one.bed) for one in site.stays)
    return Plan(site.id, site.at, lines, check(site, Plan(site.id, site.at, lines, {}))[1], status=OPTIMAL)


# --------------------------------------------------------------------------------------------------------------- nurses

WARD = Site(
    "S", AT, beds("A|1|1", "A|2|1", "A|3|1"),
    (stay("s1", "A|1|1", skill=2, load=4.0), stay("s2", "A|2|1", load=4.0), stay("s3", "A|3|1", load=4.0)),
    nurses=(
        Nurse("n1", -2.0, 6.0, skill=2, load=8.0, rooms=frozenset({"A|2"})),
        Nurse("n2", -2.0, 6.0, skill=0, load=8.0),
        Nurse("n3", 6.0, 14.0, skill=1, load=12.0),
    ),
)  # fmt: skip


def test_nurses_by_skill_load_and_continuity() -> None:
    made = staff(WARD, kept(WARD))
    breaches, costs = check(WARD, made)
    assert breaches == ()
    assert costs == made.costs == {"skill": 20.0}  # of n3 alone at night
    day = {one.to: one.ref for one in made.assignments if one.kind == NURSE and one.at == 0.0}
    assert day == {"A|1": "n1", "A|2": "n1", "A|3": "n2"}
    assert (made.status, made.bound) == (OPTIMAL, 20.0)


def test_too_much_load_costs_and_is_shared() -> None:
    alone = replace(WARD, nurses=(Nurse("n1", 0.0, 8.0, skill=2, load=8.0),))
    assert staff(alone, kept(alone)).costs == {"overload": 40.0}
    two = replace(alone, nurses=(*alone.nurses, Nurse("n2", 0.0, 8.0, load=8.0)))
    assert staff(two, kept(two)).costs == {}


def test_a_room_nobody_may_work_in_is_named() -> None:
    site = replace(WARD, nurses=(Nurse("n1", 0.0, 8.0, units=frozenset({"B"})), Nurse("n2", 0.0, 4.0)))
    made = staff(site, kept(site))
    assert made.status == INFEASIBLE
    assert {(one.rule, one.where) for one in made.breaches} == {("staffed", f"A|{n}") for n in (1, 2, 3)}
    nobody = replace(WARD, nurses=(Nurse("n1", 0.0, 8.0, units=frozenset({"B"})),))
    assert {one.where for one in staff(nobody, kept(nobody)).breaches} == {"A|1", "A|2", "A|3"}


def test_a_hand_over_is_covered_from_both_sides() -> None:
    site = replace(WARD, nurses=(Nurse("n1", 0.0, 8.0, load=20.0), Nurse("n2", 7.0, 15.0, load=20.0)))
    made = staff(site, kept(site))
    assert made.breaches == check(site, made)[0] == ()
    assert sum(one.kind == NURSE for one in made.assignments) == 6


def test_a_bound_is_of_any_placing_not_of_this_one() -> None:
    """Beds cost the same in both wards, and are chosen before nurses: the other ward would have had the skill."""
    nurses = (Nurse("n1", 0.0, 8.0, units=frozenset({"A"})), Nurse("n2", 0.0, 8.0, skill=2, units=frozenset({"B"})))
    site = Site("S", AT, beds("A|1|1", "B|1|1"), (), (Request(Need("r1", "p1", skill=2)),), nurses)
    made = plan(site, seconds=1.0)
    other = Plan("S", AT, (Assignment(BED, "r1", "B|1|1"), Assignment(NURSE, "n2", "B|1", 0.0, None, 8.0)), {})
    assert check(site, other) == ((), {})
    assert made.bound == 0.0
    assert made.status == OPTIMAL or made.cost > 0


def test_nobody_works_is_nothing_to_plan() -> None:
    site = replace(WARD, nurses=())
    assert staff(site, kept(site)).status == OPTIMAL


# ------------------------------------------------------------------------------------------------------------- theatres


def surgical(ref: str, minutes: int, surgeon: str, priority: int = 3) -> Request:
    return Request(Need(ref, f"p-{ref}"), priority, surgeon=surgeon, minutes=minutes)


LIST = Site(
    "S", AT, beds("A|1|1", "A|2|1", "A|3|1"), (),
    (surgical("r1", 120, "d1"), surgical("r2", 120, "d1", 1), surgical("r3", 120, "d2"), surgical("r4", 200, "d3")),
    theatres=(Theatre("T1", 240, 50.0), Theatre("T2", 120, 50.0)),
)  # fmt: skip


def test_operations_fit_theatres_and_surgeons() -> None:
    made = operate(LIST)
    whole = Plan("S", AT, made.lines, {})
    assert check(LIST, whole)[0] == ()
    assert {one.ref for one in made.lines} == {"r1", "r2", "r3"}
    assert made.left == {"r4"}
    assert made.cost == 100.0
    assert made.bound == pytest.approx(500.0)  # 400 for r4, two theatres


def test_a_surgeon_off_duty_operates_on_nobody() -> None:
    site = replace(LIST, nurses=(Nurse("d1", 1.0, 3.5), Nurse("d2", -9.0, 0.0)))
    made = operate(site)
    assert {one.ref: one.at for one in made.lines if one.ref in ("r1", "r2")} == {"r2": 1.0}
    assert "r1" in made.left


def test_a_theatre_that_costs_more_than_it_saves_stays_closed() -> None:
    site = replace(LIST, requests=LIST.requests[:1], theatres=(Theatre("T1", 240, 401.0),))
    assert operate(site).lines == ()


def test_who_has_no_theatre_gets_no_bed_and_who_has_no_bed_no_theatre() -> None:
    made = plan(LIST, seconds=2.0)
    assert check(LIST, made)[0] == made.breaches == ()
    assert set(made.now()) == {"r1", "r2", "r3"}
    assert {one.ref for one in made.assignments if one.kind == THEATRE and one.to} == {"r1", "r2", "r3"}
    one_bed = replace(LIST, beds=beds("A|1|1"))
    made = plan(one_bed, seconds=2.0)
    assert check(one_bed, made)[0] == made.breaches == ()
    assert set(made.now()) == {"r2"}
    assert {one.ref for one in made.assignments if one.kind == THEATRE and one.to} == {"r2"}


def test_a_bound_is_of_whoever_is_operated_on() -> None:
    """The theatre goes to the dearer one, whom no bed suits: the best plan operates on the other."""
    needy = Request(Need("r1", "p1", needs=frozenset({"oxygen"})), 1, surgeon="d1", minutes=120)
    site = Site(
        "S", AT, beds("A|1|1"), (), (needy, surgical("r2", 120, "d1")), theatres=(Theatre("T1", 120, 50.0),)
    )  # fmt: skip
    made = plan(site, seconds=1.0)
    best = Plan("S", AT, (Assignment(BED, "r2", "A|1|1"), Assignment(THEATRE, "r2", "T1", 0.0, None, 2.0)), {})
    breaches, costs = check(site, best)
    assert breaches == ()
    assert made.bound <= sum(costs.values()) == 1250.0


# ------------------------------------------------------------------------------------------------------------- division


def test_a_division_by_hand() -> None:
    """max 3x + 5y, x <= 4, 2y <= 12, 3x + 2y <= 18: 36 at (2, 6), duals 0, 3/2, 1 (Hillier and Lieberman, Introduction
    to Operations Research, the Wyndor Glass example)."""
    made = divide(
        {"plant1": 4.0, "plant2": 12.0, "plant3": 18.0},
        [
            Demand("x", 3.0, 100.0, {"plant1": 1.0, "plant3": 3.0}),
            Demand("y", 5.0, 100.0, {"plant2": 2.0, "plant3": 2.0}),
        ],
    )
    assert made.value == 36.0
    assert made.granted == {"x": 2.0, "y": 6.0}
    assert made.prices == {"plant1": 0.0, "plant2": 1.5, "plant3": 1.0}
    assert made.worth == made.prices
    assert made.left == {"plant1": 2.0, "plant2": 0.0, "plant3": 0.0}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=5
    ),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_prices_are_slopes_and_worth_is_of_one_unit(rows: list[tuple[int, int, int, int]], a: int, b: int) -> None:
    demands = [Demand(f"d{i}", v, most, {"a": x, "b": y}) for i, (v, most, x, y) in enumerate(rows)]
    made = divide({"a": a, "b": b}, demands)
    step = 1e-4
    more = divide({"a": a + step, "b": b}, demands).value - made.value
    assert more - 1e-6 <= made.prices["a"] * step
    if a:
        less = made.value - divide({"a": a - step, "b": b}, demands).value
        assert made.prices["a"] * step <= less + 1e-6
    assert made.worth["a"] == pytest.approx(divide({"a": a + 1, "b": b}, demands).value - made.value, abs=1e-6)
    done = linprog(
        [-v for v, *_ in rows], A_ub=[[x for *_, x, _ in rows], [y for *_, y in rows]], b_ub=[a, b],
        bounds=[(0, most) for _, most, *_ in rows],
    )  # fmt: skip
    assert made.value == pytest.approx(-done.fun, abs=1e-6)


def test_what_must_be_and_cannot_is_named() -> None:
    made = divide({"minutes": 10.0}, [Demand("d", 1.0, 9.0, {"minutes": 4.0}, least=3.0)])
    assert (made.feasible, made.short, made.value) == (False, {"minutes": 2.0}, 0.0)


@pytest.mark.parametrize(
    ("supply", "demand"),
    [
        ({"a": -1.0}, Demand("d", 1.0, 1.0, {"a": 1.0})),
        ({"a": 1.0}, Demand("d", 1.0, -1.0, {"a": 1.0})),
        ({"a": 1.0}, Demand("d", 1.0, 1.0, {"a": -1.0})),
        ({"a": 1.0}, Demand("d", 1.0, 1.0, {"b": 1.0})),
    ],
)
def test_amounts_that_cannot_be_are_refused(supply: dict[str, float], demand: Demand) -> None:
    with pytest.raises(UsageError):
        divide(supply, [demand])


# ------------------------------------------------------------------------------------------------------------ conflicts

TWO_SEXES = Site("S", AT, beds("A|1|1", "A|1|2"), (stay("s1", "A|1|1", sex="M"), stay("s2", "A|1|2", sex="F")))
NO_OXYGEN = Site("S", AT, beds("A|1|1", "A|1|2"), (stay("s1", "A|1|1", needs=frozenset({"oxygen"})),))
CLOSED_BEDS = Site("S", AT, beds("A|1|1", status=CLOSED) | beds("A|1|2"), (stay("s1", "A|1|1"), stay("s2", "A|1|2")))
TOO_MANY = Site("S", AT, beds("A|1|1"), (stay("s1", "A|1|1"),), (Request(Need("r1", "p"), due=0.0),))
ISOLATED = Site("S", AT, beds("A|1|1", "A|1|2"), (stay("s1", "A|1|1"), stay("s2", "A|1|2", isolation="MRSA")))


@pytest.mark.parametrize(
    ("site", "rules"),
    [
        (TWO_SEXES, {("placed", "s1"), ("placed", "s2"), ("sex", "")}),
        (NO_OXYGEN, {("placed", "s1"), ("features", "s1")}),
        (CLOSED_BEDS, {("placed", "s1"), ("placed", "s2"), ("usable", "")}),
        (TOO_MANY, {("placed", "s1"), ("due", "r1")}),
        (ISOLATED, {("placed", "s1"), ("placed", "s2"), ("isolation", "")}),
    ],
)
def test_a_conflict_is_explained_by_no_rule_too_many(site: Site, rules: set[tuple[str, str]]) -> None:
    assert assign(site, effort=Effort(rounds=3)).status == INFEASIBLE
    found = explain(site)
    assert found is not None
    assert found.minimal
    assert {(one.rule, *one.refs) if one.refs else (one.rule, "") for one in found.rules} == rules
    for rule in found.rules:
        assert explain_without(site, [rule]) is None, f"{rule} is one too many"
    for rule in found.rules:
        assert set(rule.refs) <= {"s1", "s2", "r1"}
    assert found.sentence.startswith("These cannot all be kept: ")


def test_a_feasible_site_has_no_conflict() -> None:
    assert explain(replace(TOO_MANY, requests=())) is None
    assert (
        explain(
            replace(TOO_MANY, stays=(stay("s1", "A|1|1", leaves=2.0),), requests=(Request(Need("r", "p"), due=3.0),))
        )
        is None
    )


def test_a_conflict_says_no_more_than_references() -> None:
    found = explain(TWO_SEXES)
    assert found is not None
    assert found.sentence == (
        "These cannot all be kept: who is in has a bed: s1; who is in has a bed: s2; men and women do not share a room."
    )
    assert Breach("sex", ()) in found.rules
