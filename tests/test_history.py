"""A history of demand under any policy: counted by hand, conserved, and no hard rule broken by anybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from infra.errors import UsageError
from producers.simulate.demand import Demand
from producers.simulate.wards import SETTLED_DAYS, premises
from streams.allocation.compare import compare, interval, paired
from streams.allocation.demand import Arrival, House, Phase
from streams.allocation.history import Figures, Happening, Policy, Run, replay
from streams.allocation.policies import POLICIES, Planned, by_priority, first_come
from streams.allocation.site import CLOSED, Bed, Need, Nurse, Site

DAYS = 6
SEEDS, CROWDED = (1001, 1002), 1.1  # of the trial in the suite
WHERE = premises("small", -SETTLED_DAYS, DAYS)
PATIENTS = tuple(one for one in Demand(WHERE, 5, DAYS).arrivals() if one.at > -72)
WARD = replace(WHERE.house, beds=tuple(one for one in WHERE.house.beds if one.unit in ("MED1", "ICU1")), nurses=())
FEW = tuple(one for one in PATIENTS if one.phases[0].service in ("MED", "ICU"))[:120]


def arrival(ref: str, at: float, hours: float, *phases: Phase, **more: object) -> Arrival:
    return Arrival(ref, f"patient-{ref}", at, hours, phases or (Phase(0.0, "MED"),), (hours,), **more)  # type: ignore[arg-type]


def house(*beds: Bed, **more: object) -> House:
    return House("HARBOUR", beds, **{"cleaning": 1.0, "cleaning_isolated": 2.0, **more})  # type: ignore[arg-type]


def bed(name: str, *features: str, room: str = "", service: str = "MED", **more: object) -> Bed:
    unit, _, letter = name.partition("-")
    return Bed(name, unit, room or letter, services=frozenset((service,)), features=frozenset(features), **more)  # type: ignore[arg-type]


def always(assignments: Mapping[str, str]) -> Policy:
    """Whoever waits goes where the assignments say."""
    return lambda site: {one.need.ref: assignments[one.need.ref] for one in site.requests}


# --- by hand


def test_first_come_by_hand() -> None:
    """One bed; three come at 0, 1 and 2 and stay 4 hours; an hour of cleaning between, and looks on the hour.

    0 to 4 the first, 5 to 9 the second, 10 to 14 the third: waits 0, 4, 8.
    """
    three = [arrival("a", 0, 4, priority=3), arrival("b", 1, 4, priority=3), arrival("c", 2, 4, priority=1)]
    figures = replay(house(bed("W-1")), three, first_come, 24, every=1.0)
    assert (figures.came, figures.placed, figures.left, figures.waiting, figures.inside) == (3, 3, 3, 0, 0)
    assert figures.wait == pytest.approx(4.0)
    assert figures.wait_by_priority == {1: 8.0, 2: 0.0, 3: 2.0}
    assert figures.wait_p95 == {1: 8.0, 2: 0.0, 3: 4.0}
    assert figures.occupancy == pytest.approx(12 / 24)
    assert figures.moves == 0


def test_priority_by_hand() -> None:
    three = [arrival("a", 0, 4, priority=3), arrival("b", 1, 4, priority=3), arrival("c", 2, 4, priority=1)]
    figures = replay(house(bed("W-1")), three, by_priority, 24, every=1.0)
    assert figures.wait_by_priority == {1: 3.0, 2: 0.0, 3: 4.5}


def test_who_waits_at_the_end_counts_until_then() -> None:
    figures = replay(house(bed("W-1")), [arrival("a", 0, 48), arrival("b", 4, 48)], first_come, 24, every=1.0)
    assert (figures.waiting, figures.inside, figures.wait) == (1, 1, 10.0)


def test_late_is_behind_due() -> None:
    some = [arrival("a", 0, 4, due=1.0), arrival("b", 0, 4, due=6.0), arrival("c", 0, 40, due=5.0)]
    figures = replay(house(bed("W-1")), some, first_come, 9.0, every=1.0)
    assert figures.late == 1  # a at 0, b at 5; c still waits at 9


def test_off_service_and_the_way_home() -> None:
    """A patient of surgery lies in medicine until its own bed is clean, and goes home: one move of 5 metres."""
    beds = bed("W-1", position=(0.0, 0.0)), bed("V-1", service="SUR", position=(3.0, 4.0))
    some = [arrival("a", 0, 4, Phase(0, "SUR")), arrival("b", 0, 12, Phase(0, "SUR"))]
    figures = replay(house(*beds), some, first_come, 24, every=1.0)
    assert figures.off_service == pytest.approx(5 / 16)
    assert (figures.moves, figures.moves_needed, figures.metres) == (1, 1, 5.0)
    assert figures.moves_per_patient == 0.5
    weights = house().weights
    assert figures.cost == pytest.approx(weights.move + 5 * weights.metre + weights.service * 5 / 24)


def test_overload_by_hand() -> None:
    """Two patients of a load of 3 on a nurse who carries 4, from 2 to 10 o'clock; nobody is there before."""
    beds = bed("W-1"), bed("W-2")
    some = [arrival("a", 0, 10, Phase(0, "MED", load=3.0)), arrival("b", 4, 10, Phase(0, "MED", load=3.0))]
    nurses = (Nurse("n", 2.0, 10.0, load=4.0, units=frozenset({"W"})),)
    figures = replay(house(*beds, nurses=nurses), some, first_come, 24, every=1.0)
    # 0 to 2 without a nurse, 4 to 10 too much for her, 10 to 14 again nobody
    assert figures.overload_hours == pytest.approx(2 + 6 + 4)


def test_a_need_that_changes_is_a_breach_until_somebody_moves() -> None:
    """Two in a room; at 3 o'clock the one is found to be infectious. The other room is free from 6 on."""
    beds = bed("W-1", room="1"), bed("W-2", room="1"), bed("W-3", room="2")
    some = [
        arrival("a", 0, 20, Phase(0, "MED"), Phase(3, "MED", isolation="MRSA")),
        arrival("b", 0, 20),
        arrival("c", 0, 5),
    ]
    figures = replay(house(*beds), some, first_come, 12, every=1.0)
    assert figures.breach_hours == pytest.approx(2 * 3)  # both, from 3 to 6
    assert (figures.moves, figures.moves_needed) == (1, 1)


def test_hours_before_zero_are_in_no_figure() -> None:
    some = [arrival("a", -9, 12), arrival("b", -8, 6), arrival("c", 1, 6)]
    figures = replay(house(bed("W-1")), some, by_priority, 24, settle=first_come, every=1.0)
    assert (figures.came, figures.placed, figures.wait) == (1, 2, 10.0)  # b gets its bed at 4, c at 11
    assert figures.occupancy == pytest.approx((3 + 6 + 6) / 24)


def test_a_stay_ends_at_the_nearest_hour_of_leaving() -> None:
    assert arrival("a", 0, 30, leaves_at=14.0).ends(10.0) == 38.0  # 40 o'clock, and 14 is nearest to 16
    assert arrival("a", 0, 2, leaves_at=14.0).ends(14.5) == 38.0  # not before somebody is there
    assert arrival("a", 0, 30).ends(10.0) == 40.0


def test_nobody_sees_how_long_a_stay_is() -> None:
    seen: list[float] = []

    def look(site: Site) -> Mapping[str, str]:
        seen.extend(stay.need.leaves for stay in site.stays)
        return first_come(site)

    patient = Arrival("a", "p", 0, 60.0, (Phase(0, "MED"),), (10.0, 90.0))
    others = [arrival("b", 8, 2), arrival("c", 20, 1), arrival("d", 30, 1)]
    replay(house(bed("W-1"), bed("W-2")), [patient, *others], look, 40)
    assert seen[0] == 2.0  # at 8 of 10 expected hours
    assert min(seen) == 1.0  # overdue on the first day
    assert 60.0 in seen  # the second day's expectation, at 30 of 90


# --- rules


@pytest.mark.parametrize(
    ("rule", "beds", "need", "to"),
    [
        ("features", (bed("W-1"),), Phase(0, "MED", frozenset({"oxygen"})), "W-1"),
        ("usable", (bed("W-1", status=CLOSED),), Phase(0, "MED"), "W-1"),
        ("known", (bed("W-1"),), Phase(0, "MED"), "W-2"),
    ],
)
def test_a_rule_is_refused_and_counted(rule: str, beds: tuple[Bed, ...], need: Phase, to: str) -> None:
    figures = replay(house(*beds), [arrival("a", 0, 5, need)], always({"a": to}), 5)
    assert figures.refused == {rule: 1}
    assert figures.placed == 0


@pytest.mark.parametrize(("rule", "sex", "isolation"), [("sex", "M", ""), ("isolation", "F", "MRSA")])
def test_a_room_is_shared_by_the_like(rule: str, sex: str, isolation: str) -> None:
    beds = bed("W-1", room="1"), bed("W-2", room="1")
    some = [arrival("a", 0, 9, sex="F"), arrival("b", 1, 9, Phase(0, "MED", isolation=isolation), sex=sex)]
    figures = replay(house(*beds), some, always({"a": "W-1", "b": "W-2"}), 5)
    assert figures.refused == {rule: 1}
    assert (figures.placed, figures.waiting) == (1, 1)


def test_a_bed_has_one_patient() -> None:
    figures = replay(house(bed("W-1")), [arrival("a", 0, 9), arrival("b", 1, 9)], always({"a": "W-1", "b": "W-1"}), 5)
    assert figures.refused == {"one_per_bed": 1}


def test_a_bed_that_is_not_clean_yet_is_no_breach() -> None:
    some = [arrival("a", 0, 2), arrival("b", 2, 9)]
    figures = replay(house(bed("W-1")), some, always({"a": "W-1", "b": "W-1"}), 9, every=0.0)
    assert (figures.refused, figures.later, figures.placed) == ({}, 1, 2)
    assert figures.wait == pytest.approx(0.5)  # b waits for an hour of cleaning


def test_who_moves_makes_room_first() -> None:
    """In one answer a leaves the room, so that b of the other sex may come in beside nobody."""
    beds = bed("W-1", room="1"), bed("W-2", room="1"), bed("W-3", room="2")
    wanted = iter([{"a": "W-1"}, {"b": "W-2", "a": "W-3"}])
    some = [arrival("a", 0, 20, sex="F"), arrival("b", 1, 20, sex="M")]
    figures = replay(house(*beds), some, lambda site: next(wanted, {}), 2.5)
    assert (figures.refused, figures.placed, figures.moves, figures.moves_needed) == ({}, 2, 1, 0)


class Oracle:
    """The house as a second reading of what happened: who lies where, and whether anybody was put against a rule."""

    def __init__(self, of: House) -> None:
        self.beds = {one.id: one for one in of.beds}
        self.lies: dict[str, tuple[str, Need]] = {}
        self.waits: set[str] = set()
        self.tally: Counter[str] = Counter()

    def hear(self, one: Happening) -> None:
        ref = one.arrival.ref
        self.tally[one.what] += 1
        if one.what == "arrived":
            self.waits.add(ref)
        elif one.what in ("placed", "moved"):
            if one.what == "placed":
                self.waits.remove(ref)
            else:
                assert self.lies.pop(ref)[0] == one.prior
            self.put(one)
        elif one.what == "changed":
            self.lies[ref] = self.lies[ref][0], one.need
        elif one.what == "left":
            assert self.lies.pop(ref)[0] == one.bed

    def put(self, one: Happening) -> None:
        here = self.beds[one.bed]
        assert one.need.needs <= here.features
        assert one.bed not in {where for where, _ in self.lies.values()}
        for where, need in self.lies.values():
            if (self.beds[where].unit, self.beds[where].room) == (here.unit, here.room):
                assert need.isolation == one.need.isolation
                assert {need.sex, one.need.sex} != {"M", "F"}
        self.lies[one.arrival.ref] = one.bed, one.need


def anything(seed: int) -> Policy:
    """Whatever comes to mind, lawful or not."""
    rng = Random(seed)

    def policy(site: Site) -> dict[str, str]:
        beds = [*site.beds, "nowhere"]
        some = [stay.need.ref for stay in site.stays if rng.random() < 0.05] + [one.need.ref for one in site.requests]
        return {ref: rng.choice(beds) for ref in some}

    return policy


def watched(of: House, patients: tuple[Arrival, ...], policy: Policy) -> Figures:
    """Came = left + in + waiting, by two counts, and nobody is twice anywhere."""
    run, oracle = Run(of, patients, policy, DAYS * 24.0), Oracle(of)
    for one in run.play():
        oracle.hear(one)
    figures, tally = run.figures(), oracle.tally
    assert tally["arrived"] == tally["left"] + len(oracle.lies) + len(oracle.waits) == len(patients)
    assert (figures.inside, figures.waiting) == (len(oracle.lies), len(oracle.waits))
    # the cleaners of a last few beds are not done yet
    assert 0 <= tally["left"] + tally["moved"] - tally["cleaned"] < len(oracle.beds)
    return figures


@pytest.mark.parametrize("name", POLICIES)
def test_policies_break_nothing_and_lose_nobody(name: str) -> None:
    figures = watched(WHERE.house, PATIENTS, POLICIES[name]())
    assert figures.refused == {}
    assert figures.placed > 100


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_no_policy_breaks_a_rule(seed: int) -> None:
    figures = watched(WARD, FEW, anything(seed))
    assert figures.refused.keys() >= {"one_per_bed", "known", "features", "sex"}


# --- the plan


def test_a_bed_that_is_being_cleaned_is_held_for_nobody() -> None:
    """At 4 o'clock the own ward's bed has just been left and is clean at 5; another ward's is free."""
    beds = bed("W-1"), bed("V-1", service="SUR")
    some = [arrival("a", 0, 4), arrival("b", 4, 9)]
    figures = replay(house(*beds), some, Planned(), 24, every=1.0)
    assert (figures.wait, figures.later, figures.placed) == (0.0, 0, 2)


def test_a_bed_is_kept_for_those_who_are_like_the_last() -> None:
    """Somebody needed the monitor, and it is free again. Who needs none gets the other bed, whatever its name."""
    monitored = Phase(0, "MED", frozenset({"monitor"}))
    for first, second in (("W-1", "W-2"), ("W-2", "W-1")):
        some = [arrival("a", 0, 1, monitored), arrival("b", 3, 9), arrival("c", 4, 9, monitored)]
        figures = replay(house(bed(first, "monitor"), bed(second)), some, Planned(), 12, every=1.0)
        assert (figures.wait, figures.moves) == (0.0, 0)


@pytest.mark.parametrize(("policy", "moves"), [(by_priority, 1), (Planned(), 0)])
def test_nobody_goes_home_for_a_bed_that_nobody_needs(policy: Policy, moves: int) -> None:
    """a of surgery lies in medicine when surgery has a bed again; medicine has another one for whoever comes next."""
    beds = bed("W-1"), bed("W-2"), bed("V-1", service="SUR")
    some = [arrival("s", 0, 4, Phase(0, "SUR")), arrival("a", 1, 30, Phase(0, "SUR")), arrival("m", 2, 1)]
    assert replay(house(*beds), some, policy, 24, every=1.0).moves == moves


def test_who_may_go_home_goes_before_the_bed_is_needed() -> None:
    """Intensive care has one bed, in which a needs it no more from 10 on; the next who needs it comes at 20."""
    intensive = frozenset({"ventilator"})
    beds = bed("I-1", "ventilator", service="ICU"), bed("W-1"), bed("W-2")
    some = [
        arrival("a", 0, 40, Phase(0, "ICU", intensive), Phase(10, "MED")),
        arrival("b", 20, 9, Phase(0, "ICU", intensive)),
    ]
    figures = replay(house(*beds), some, Planned(), 30, every=1.0)
    assert (figures.wait, figures.moves, figures.moves_needed) == (0.0, 1, 1)


def test_somebody_moves_so_that_another_gets_a_bed() -> None:
    """A woman lies alone in a room for two, the other bed that is free is a single room. A man who needs what only the
    room for two has comes in once she has gone to the single room."""
    beds = bed("W-1", "oxygen", room="1"), bed("W-2", "oxygen", room="1"), bed("W-3", room="2")
    oxygen = Phase(0, "MED", frozenset({"oxygen"}))
    some = [arrival("x", 0, 1, sex="F"), arrival("f", 0, 30, sex="F"), arrival("m", 6, 30, oxygen, sex="M")]
    lies = {"f": "W-1", "x": "W-3"}
    run = Run(
        house(*beds), some, lambda site: Planned()(site) if "m" in asked(site) else always(lies)(site), 8, every=1.0
    )
    placed = {one.arrival.ref: one.at for one in run.play() if one.what == "placed"}
    assert placed["m"] == 6.0
    assert run.figures().moves == 1


def asked(site: Site) -> set[str]:
    return {one.need.ref for one in site.requests}


def test_the_plan_makes_patients_wait_less_and_move_less_than_the_greedy_rule() -> None:
    """In a crowded house; of seeds that the trial in docs/hospital.md does not have."""
    found = {}
    for name in ("plan", "greedy"):
        figures = []
        for seed in SEEDS:
            some = [one for one in Demand(WHERE, seed, DAYS, occupancy=CROWDED).arrivals() if one.at > -72]
            figures.append(replay(WHERE.house, some, POLICIES[name](), DAYS * 24.0))
        found[name] = sum(one.wait for one in figures), sum(one.moves_per_patient for one in figures)
    assert found["plan"][0] < found["greedy"][0]
    assert found["plan"][1] < found["greedy"][1]


def test_the_same_history_twice() -> None:
    first, second = (replay(WHERE.house, PATIENTS, by_priority, DAYS * 24.0) for _ in range(2))
    assert first == second


def test_a_stay_is_as_long_under_any_policy() -> None:
    """Common random numbers: what differs is where and when, not who, how long, or with what need."""
    lasted: list[dict[str, float]] = []
    for policy in (first_come, anything(1)):
        begun: dict[str, float] = {}
        hours: dict[str, float] = {}
        for one in Run(WHERE.house, PATIENTS, policy, DAYS * 24.0).play():
            if one.what == "placed":
                begun[one.arrival.ref] = one.at
            elif one.what == "left":
                assert one.at == one.arrival.ends(begun[one.arrival.ref])
                hours[one.arrival.ref] = one.at - begun[one.arrival.ref]
        lasted.append(hours)
    both = lasted[0].keys() & lasted[1].keys()
    assert len(both) > 100
    assert all(abs(lasted[0][ref] - lasted[1][ref]) <= 24 for ref in both)


# --- comparing


def test_paired_differences_as_scipy_has_them() -> None:
    one, other = [3.1, 2.7, 4.4, 3.9, 2.2], [3.6, 3.9, 4.1, 5.0, 2.9]
    found = paired(one, other)
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(-0.64)


def test_an_interval_by_hand() -> None:
    """1, 2, 3: mean 2, standard error 1/sqrt(3), and Student's t with two degrees of freedom is 4.3027."""
    found = interval([1.0, 2.0, 3.0])
    assert (found.low, found.high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


def test_one_seed_says_nothing() -> None:
    with pytest.raises(UsageError):
        interval([1.0])


def test_a_difference_is_paired_by_seed() -> None:
    some = [arrival("a", 0, 4), arrival("b", 1, 4)]
    runs = [replay(house(bed("W-1")), some[:count], first_come, 24, every=1.0) for count in (1, 2)]
    line = next(one for one in compare({"one": runs, "other": runs}) if one.measure == "wait_hours")
    assert (line.differences["other"].low, line.differences["other"].high) == (0.0, 0.0)
    assert line.means["one"].mean == pytest.approx(1.0)
