"""Beds: no plan breaks a rule, small ones are the best there is, and whoever need not move does not."""

from __future__ import annotations

import importlib.util
import random
import statistics
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.allocation import baselines
from streams.allocation.assign import Effort, assign, patterns
from streams.allocation.bound import relaxed
from streams.allocation.ground import Ground, broken
from streams.allocation.plan import BED, INFEASIBLE, OPTIMAL, Assignment, Plan
from streams.allocation.rules import HORIZON, TURNOVER, check
from streams.allocation.site import CLOSED, OCCUPIED, Bed, Need, Request, Site, Stay, Weights
from streams.allocation.start import begin

AT = "2026-03-01T08:00:00Z"
FEW = Effort(seconds=30.0, rounds=6)


def bench() -> ModuleType:
    """The bench's own sites and events."""
    path = Path(__file__).parent / "bench" / "plan.py"
    spec = importlib.util.spec_from_file_location("bench_plan", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_plan"] = module
    spec.loader.exec_module(module)
    return module


BENCH = bench()


def sound(site: Site, plan: Plan, before: Plan | None = None) -> None:
    """What the plan says of itself is what the checker finds."""
    breaches, costs = check(site, plan, before)
    assert breaches == plan.breaches
    assert costs == plan.costs
    assert {one.rule for one in breaches} <= {"placed", "due"}
    assert (plan.status == INFEASIBLE) == bool(breaches)
    assert plan.bound <= plan.cost + 0.01
    refs = [stay.need.ref for stay in site.stays] + [one.need.ref for one in site.requests]
    assert sorted(plan.beds()) == sorted(refs)


# ------------------------------------------------------------------------------------------------- against brute force

_needs = st.builds(
    lambda sex, age, kind, wants, leaves, service: {
        "sex": sex,
        "age": age,
        "isolation": kind,
        "needs": wants,
        "leaves": leaves,
        "service": service,
    },
    st.sampled_from(["M", "F", ""]),
    st.sampled_from([None, 20, 45, 90]),
    st.sampled_from(["", "", "MRSA"]),
    st.sampled_from([frozenset(), frozenset(), frozenset({"oxygen"})]),
    st.sampled_from([0.5, 3.0, 40.0]),
    st.sampled_from(["", "MED", "SUR"]),
)
_beds = st.tuples(
    st.sampled_from(["1", "2"]),
    st.sampled_from(["U", "U", "U", "C"]),
    st.sampled_from([frozenset(), frozenset({"oxygen"})]),
    st.sampled_from([frozenset(), frozenset({"MED"})]),
)


@st.composite
def sites(draw: st.DrawFn) -> Site:
    made: dict[str, Bed] = {}
    for number, (room, status, features, services) in enumerate(draw(st.lists(_beds, min_size=1, max_size=3))):
        one = Bed(f"A|{room}|{number}", "A", room, status, services, features, (10.0 * number, 0.0))
        made[one.id] = one
    places = draw(st.lists(st.sampled_from([*made, None]), max_size=2))
    stays = tuple(Stay(Need(f"s{n}", f"p{n}", **draw(_needs)), place) for n, place in enumerate(places))
    requests = tuple(
        Request(
            Need(f"r{n}", f"q{n}", **draw(_needs)),
            draw(st.sampled_from([1, 3, 5])),
            draw(st.sampled_from([0.0, 9.0])),
            draw(st.sampled_from([None, None, 2.0])),
        )
        for n in range(draw(st.integers(0, 2)))
    )  # fmt: skip
    return Site("S", AT, made, stays, requests)


def every(site: Site) -> tuple[int, float]:
    """(price of the rules broken, cost) of the best plan there is, by trying all in which nobody waits for more than a
    bed."""
    hours = {0.0} | {
        hour for stay in site.stays if (hour := max(stay.need.leaves, TURNOVER)) <= HORIZON and stay.bed is not None
    }
    stays = [[(stay.need.ref, bed, 0.0) for bed in [None, *site.beds]] for stay in site.stays]
    requests = [
        [(one.need.ref, None, 0.0)] + [(one.need.ref, bed, hour) for bed in site.beds for hour in sorted(hours)]
        for one in site.requests
    ]
    best = (1 << 60, 0.0)
    for chosen in product(*stays, *requests):
        place = {ref: bed for ref, bed, _ in chosen}
        free = dict.fromkeys(site.beds, 0.0)
        for stay in site.stays:
            if stay.bed is not None and place[stay.need.ref] in (stay.bed, None):
                free[stay.bed] = max(free[stay.bed], stay.need.leaves, TURNOVER)
        if any(bed is not None and at != free[bed] for _, bed, at in chosen[len(site.stays) :]):
            continue
        plan = Plan(site.id, site.at, tuple(Assignment(BED, ref, bed, at) for ref, bed, at in chosen), {})
        breaches, costs = check(site, plan)
        if {one.rule for one in breaches} <= {"placed", "due"}:
            best = min(best, (broken(breaches), round(sum(costs.values()), 2)))
    return best


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sites())
def test_small_plans_are_the_best_there_is(site: Site) -> None:
    price, cost = every(site)
    plan = assign(site, effort=FEW)
    sound(site, plan)
    assert (broken(plan.breaches), plan.cost) == (price, cost)
    assert plan.status == (INFEASIBLE if price else OPTIMAL)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sites())
def test_no_bound_is_above_the_best(site: Site) -> None:
    price, cost = every(site)
    if price:
        return
    ground = Ground(site)
    placing = begin(ground)
    bound, worth = relaxed(ground)
    assert bound <= round(cost * 100)
    assert patterns(placing, worth, float("inf"), Effort(1.0)) <= round(cost * 100) + 1
    if placing.lawful():
        assert placing.cost >= round(cost * 100)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sites())
def test_rules_of_thumb_keep_the_rules(site: Site) -> None:
    for policy in (baselines.first_come, baselines.greedy):
        sound(site, policy(site))
    sound(site, baselines.bare(site, 2.0))


# ------------------------------------------------------------------------------------------------------ as a site lives


def test_a_plan_of_a_hospital_is_sound_and_better_than_rules_of_thumb() -> None:
    site = BENCH.site(120, 50)
    plan = assign(site, effort=Effort(rounds=3))
    sound(site, plan)
    assert plan.cost < baselines.greedy(site).cost < baselines.first_come(site).cost * 1.05


def test_the_same_seed_gives_the_same_plan() -> None:
    site = BENCH.site(80, 30, seed=5)
    one, other = (assign(site, effort=Effort(rounds=4, seed=3)) for _ in range(2))
    assert (one.assignments, one.costs, one.bound) == (other.assignments, other.costs, other.bound)


def test_a_plan_is_kept_after_an_event_but_for_what_it_touches() -> None:
    site = BENCH.site(120, 40, seed=2)
    plan = assign(site, effort=Effort(rounds=6))
    chance, now, shares = random.Random(4), site, []
    for number in range(3):
        now = BENCH.event(chance, now, number)
        after = assign(now, plan, Effort(rounds=2))
        sound(now, after, plan)
        before, new = plan.beds(), after.beds()
        promised = {ref for ref, line in before.items() if line.action and ref in new}
        shares.append(sum(new[ref].to != before[ref].to for ref in promised) / len(promised))
        plan = after
    assert statistics.mean(shares) < 0.2, shares


def test_a_promise_is_kept_until_breaking_it_pays() -> None:
    beds = {f"A|{n}|1": Bed(f"A|{n}|1", "A", str(n)) for n in (1, 2)}
    site = Site("S", AT, beds, (), (Request(Need("r1", "p1")),))
    before = Plan("S", AT, (Assignment(BED, "r1", "A|2|1"),), {})
    assert assign(site, before, FEW).beds()["r1"].to == "A|2|1"
    meant = replace(beds["A|2|1"], services=frozenset({"SUR"}))
    other = replace(site, beds={**beds, "A|2|1": meant}, requests=(Request(Need("r1", "p1", service="MED")),))
    changed = assign(other, before, FEW)  # 25 to change, 30 to lie off service
    assert changed.beds()["r1"].to == "A|1|1"
    assert changed.costs == {"change": 25.0}
    dear = replace(other, weights=Weights(change=31.0))
    assert assign(dear, before, FEW).beds()["r1"].to == "A|2|1"


def test_better_plans_are_told_as_they_come() -> None:
    told: list[Plan] = []
    site = BENCH.site(60, 25)
    last = assign(site, effort=Effort(rounds=2), better=told.append)
    assert told
    assert told[0].cost >= last.cost
    sound(site, told[0])


def test_who_may_have_no_bed_gets_none() -> None:
    site = Site(
        "S", AT, {"A|1|1": Bed("A|1|1", "A", "1")}, (), (Request(Need("r1", "p1"), 1), Request(Need("r2", "p2")))
    )
    assert assign(site, effort=FEW).now() == {"r1": "A|1|1"}
    assert assign(site, effort=FEW, barred=frozenset({"r1"})).now() == {"r2": "A|1|1"}


def test_nothing_at_all_is_a_plan() -> None:
    empty = assign(Site("S", AT, {}), effort=FEW)
    assert (empty.cost, empty.status, empty.gap) == (0.0, OPTIMAL, 0.0)
    nowhere = assign(Site("S", AT, {}, (), (Request(Need("r1", "p1")),)), effort=FEW)
    assert nowhere.costs == {"unplaced": 400.0}


# ---------------------------------------------------------------------------------------------------- states gone wrong


def one_room(*stays: Stay, beds: int = 2, **changes: str) -> Site:
    made = {f"A|1|{n}": Bed(f"A|1|{n}", "A", "1", **changes) for n in range(1, beds + 1)}  # type: ignore[arg-type]
    return Site("S", AT, made, stays)


def test_two_patients_in_a_bed_get_one_each() -> None:
    site = one_room(Stay(Need("s1", "p1"), "A|1|1"), Stay(Need("s2", "p2"), "A|1|1"))
    plan = assign(site, effort=FEW)
    sound(site, plan)
    assert {line.to for line in plan.beds().values()} == {"A|1|1", "A|1|2"}
    assert plan.costs == {"move": 60.0}


def test_an_unknown_bed_is_no_place() -> None:
    site = one_room(Stay(Need("s1", "p1"), "X|9|9"), Stay(Need("s2", "p2"), None))
    plan = assign(site, effort=FEW)
    sound(site, plan)
    assert {line.to for line in plan.beds().values()} == {"A|1|1", "A|1|2"}


def test_who_has_no_lawful_bed_keeps_others_out_of_his() -> None:
    site = one_room(Stay(Need("s1", "p1", needs=frozenset({"oxygen"})), "A|1|1"), beds=1)
    site = replace(site, requests=(Request(Need("r1", "p9"), 1),))
    plan = assign(site, effort=FEW)
    sound(site, plan)
    assert plan.status == INFEASIBLE
    assert [(one.rule, one.refs) for one in plan.breaches] == [("placed", ("s1",))]
    assert plan.beds()["r1"].to is None


def test_a_closed_bed_is_left() -> None:
    site = one_room(Stay(Need("s1", "p1"), "A|1|1"))
    site = replace(site, beds={**site.beds, "A|1|1": replace(site.beds["A|1|1"], status=CLOSED)})
    assert assign(site, effort=FEW).beds()["s1"].to == "A|1|2"


def test_a_bed_taken_by_somebody_unknown_is_not_free() -> None:
    site = replace(one_room(beds=1, status=OCCUPIED), requests=(Request(Need("r1", "p1")),))
    assert assign(site, effort=FEW).beds()["r1"].to is None


# -------------------------------------------------------------------------------------------------------------- reasons


def test_reasons_name_the_rule_and_the_next_best() -> None:
    beds = {
        "A|1|1": Bed("A|1|1", "A", "1", services=frozenset({"MED"})),
        "A|1|2": Bed("A|1|2", "A", "1", services=frozenset({"MED"})),
        "B|1|1": Bed("B|1|1", "B", "1", services=frozenset({"SUR"})),
    }
    stays = (Stay(Need("s1", "p1", "MED", "F"), "A|1|1"),)
    site = Site("S", AT, beds, stays, (Request(Need("r1", "p2", "MED", "M")),))
    reason = assign(site, effort=FEW).beds()["r1"].reason
    assert reason.costs == {"service": 30.0}
    assert reason.decided == "sex"
    assert (reason.next_best, reason.next_cost) == (None, 400.0)
    free = replace(site, stays=())
    reason = assign(free, effort=FEW).beds()["r1"].reason
    assert reason.costs == {}
    assert (reason.decided, reason.next_best, reason.next_cost) == ("service", "B|1|1", 30.0)


@pytest.mark.parametrize("size", [40, 90])
def test_reasons_of_a_hospital_add_up(size: int) -> None:
    site = BENCH.site(size, size // 3, seed=size)
    plan = assign(site, effort=Effort(rounds=2))
    for part in ("unplaced", "service", "move", "metre", "waiting"):
        lines = sum(one.reason.costs.get(part, 0.0) for one in plan.assignments)
        assert lines == pytest.approx(plan.costs.get(part, 0.0), abs=0.05)
    for one in plan.assignments:
        if one.reason.next_cost is not None and one.action:
            assert one.reason.next_cost >= sum(one.reason.costs.values()) - 100
