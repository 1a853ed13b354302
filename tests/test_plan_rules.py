"""Each hard rule trips in the checker, by name, and a plan costs what its weights say, counted by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from streams.allocation.plan import BED, NURSE, THEATRE, Assignment, Plan
from streams.allocation.rules import RULES, check, urgency
from streams.allocation.site import CLOSED, OCCUPIED, Bed, Need, Nurse, Request, Site, Stay, Theatre


def bed(name: str, **more: object) -> Bed:
    unit, room, _ = name.split("|")
    return Bed(name, unit, room, **more)  # type: ignore[arg-type]


def need(ref: str, **more: object) -> Need:
    return Need(ref, f"p-{ref}", **more)  # type: ignore[arg-type]


BEDS = {one.id: one for one in (bed("A|1|1"), bed("A|1|2"), bed("B|1|1", position=(30.0, 40.0)))}
SITE = Site(
    "S",
    "2026-03-01T08:00:00Z",
    BEDS,
    (Stay(need("s1", sex="F", age=40, leaves=5.0), "A|1|1"),),
    (Request(need("r1", sex="F", age=50)), Request(need("r2", sex="F", age=20), priority=1)),
)


def plan(*lines: Assignment, site: Site = SITE) -> Plan:
    return Plan(site.id, site.at, lines, {})


def beds(places: Mapping[str, str | None], at: Mapping[str, float] | None = None) -> Plan:
    return plan(*(Assignment(BED, ref, to, (at or {}).get(ref, 0.0)) for ref, to in places.items()))


def rules(site: Site, made: Plan) -> set[str]:
    return {one.rule for one in check(site, made)[0]}


GOOD = {"s1": "A|1|1", "r1": "A|1|2", "r2": "B|1|1"}


def test_a_lawful_plan_breaks_nothing() -> None:
    breaches, costs = check(SITE, beds(GOOD))
    assert breaches == ()
    assert costs == {"age_mix": 10.0}


def with_bed(name: str, **changes: object) -> Site:
    return replace(SITE, beds={**BEDS, name: replace(BEDS[name], **changes)})  # type: ignore[arg-type]


def with_request(number: int, request: Request) -> Site:
    requests = list(SITE.requests)
    requests[number] = request
    return replace(SITE, requests=tuple(requests))


@pytest.mark.parametrize(
    ("rule", "site", "made"),
    [
        ("placed", SITE, beds({"s1": None})),
        ("placed", SITE, beds({})),
        ("due", with_request(0, Request(need("r1", sex="F"), due=-3.0)), beds({"s1": "A|1|1"})),
        ("due", with_request(0, Request(need("r1", sex="F"), due=2.0)), beds({**GOOD, "r1": "A|1|1"}, {"r1": 5.0})),
        ("known", SITE, beds({**GOOD, "r9": "B|1|1"})),
        ("known", SITE, beds({**GOOD, "r2": "B|7|1"})),
        ("known", SITE, plan(*beds(GOOD).assignments, Assignment(BED, "r1", "B|1|1"))),
        ("one_per_bed", SITE, beds({**GOOD, "r2": "A|1|2"})),
        ("one_per_bed", SITE, beds({"s1": "A|1|1", "r1": "A|1|1"}, {"r1": 4.9})),
        ("one_per_bed", SITE, beds({"s1": None, "r1": "A|1|1"})),
        ("usable", with_bed("B|1|1", status=CLOSED), beds(GOOD)),
        ("usable", with_bed("B|1|1", status=OCCUPIED), beds(GOOD)),
        ("features", with_request(1, Request(need("r2", sex="F", needs=frozenset({"oxygen"})))), beds(GOOD)),
        ("sex", with_request(0, Request(need("r1", sex="M"))), beds(GOOD)),
        ("isolation", with_request(0, Request(need("r1", sex="F", isolation="MRSA"))), beds(GOOD)),
    ],
)
def test_a_broken_rule_is_named(rule: str, site: Site, made: Plan) -> None:
    assert rule in rules(site, made)
    assert rule in RULES


def test_who_leaves_before_the_next_comes_shares_nothing() -> None:
    site = with_request(0, Request(need("r1", sex="M", isolation="MRSA")))
    assert rules(site, beds({"s1": "A|1|1", "r1": "A|1|1"}, {"r1": 5.0})) == set()
    assert rules(site, beds({"s1": "A|1|1", "r1": "A|1|2"}, {"r1": 5.0})) == set()
    assert rules(site, beds({"s1": "A|1|1", "r1": "A|1|2"}, {"r1": 4.0})) == {"isolation"}


def test_a_bed_with_two_in_it_is_promised_to_nobody() -> None:
    site = replace(SITE, stays=(*SITE.stays, Stay(need("s2", sex="F", leaves=2.0), "A|1|1")))
    assert rules(site, beds({"s1": "A|1|1", "s2": "A|1|2", "r1": "A|1|1"}, {"r1": 6.0})) == {"one_per_bed"}


def test_other_sexes_share_with_anybody() -> None:
    assert rules(with_request(0, Request(need("r1", sex="O"))), beds(GOOD)) == set()


def test_costs_by_hand() -> None:
    _, costs = check(SITE, beds({"s1": "B|1|1"}))
    # a move of 50 metres; r1 and r2 wait: 400 * 1 and 400 * 3
    assert costs == {"move": 60.0, "metre": 2.5, "unplaced": 1600.0}
    _, costs = check(SITE, beds({**GOOD, "r2": "A|1|1"}, {"r2": 5.0}))
    assert costs == {"waiting": 150.0, "age_mix": 30.0}
    off = with_bed("B|1|1", services=frozenset({"SUR"}))
    off = replace(off, requests=(off.requests[0], Request(need("r2", service="MED"))))
    assert check(off, beds(GOOD))[1] == {"age_mix": 10.0, "service": 30.0}


def test_a_broken_promise_costs() -> None:
    before = beds({**GOOD, "r1": "B|1|1", "r2": None})
    assert check(SITE, beds(GOOD), before)[1]["change"] == 25.0
    assert "change" not in check(SITE, beds({**GOOD, "r1": "B|1|1", "r2": None}), before)[1]


def test_waiting_counts_for_a_day_at_most() -> None:
    month = with_request(0, Request(need("r1"), waits=720.0))
    assert check(month, beds({"s1": "A|1|1", "r2": "B|1|1"}))[1] == {"unplaced": 400.0, "waiting": 240.0}


def test_urgency_never_is_nothing() -> None:
    assert [urgency(n) for n in (1, 2, 3, 4, 5)] == [3.0, 2.0, 1.0, 0.5, pytest.approx(1 / 3)]


# -------------------------------------------------------------------------------------------------- nurses and theatres

STAFFED = replace(
    SITE,
    nurses=(
        Nurse("n1", 0.0, 8.0, skill=1, load=1.5, units=frozenset({"A"}), rooms=frozenset({"A|1"})),
        Nurse("n2", 0.0, 8.0),
    ),
)


def nurse(ref: str, to: str, at: float = 0.0, until: float = 8.0) -> Assignment:
    return Assignment(NURSE, ref, to, at, None, until)


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        ("staffed", [nurse("n1", "A|1")]),
        ("shift", [nurse("n1", "A|1"), nurse("n1", "B|1")]),
        ("shift", [nurse("n1", "A|1", 2.0), nurse("n2", "B|1")]),
        ("shift", [nurse("n1", "A|1", 0.0, 9.0), nurse("n2", "B|1")]),
        ("known", [nurse("n9", "A|1"), nurse("n2", "B|1")]),
    ],
)
def test_a_broken_rule_of_nurses_is_named(rule: str, lines: list[Assignment]) -> None:
    assert rule in rules(STAFFED, plan(*beds(GOOD).assignments, *lines))


def test_costs_of_nurses_by_hand() -> None:
    site = replace(STAFFED, stays=(Stay(need("s1", sex="F", skill=2), "A|1|1"),))
    made = plan(
        *beds({"s1": "A|1|1", "r1": "A|1|2", "r2": "B|1|1"}).assignments, nurse("n1", "A|1"), nurse("n2", "B|1")
    )
    breaches, costs = check(site, made)
    assert breaches == ()
    assert costs == {"skill": 20.0, "overload": 5.0}  # lacks one level; 2 units of load on 1.5
    other = plan(*made.assignments[:3], nurse("n2", "A|1"), nurse("n2", "B|1"))
    assert check(site, other)[1] == {"skill": 40.0, "continuity": 15.0}


OPERATING = replace(
    SITE,
    requests=(
        Request(need("r1", sex="F"), surgeon="d1", minutes=120),
        Request(need("r2", sex="F"), surgeon="d1", minutes=60),
    ),
    nurses=(Nurse("d1", 0.0, 4.0),),
    theatres=(Theatre("T1", 180, price=40.0), Theatre("T2", 90)),
)


def operation(ref: str, to: str | None, at: float, until: float) -> Assignment:
    return Assignment(THEATRE, ref, to, at, None, until)


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        ("theatre_minutes", [operation("r1", "T2", 0.0, 2.0), operation("r2", "T1", 2.0, 3.0)]),
        ("theatre_minutes", [operation("r1", "T1", 0.0, 2.0), operation("r2", "T1", 2.5, 3.5)]),
        ("theatre_minutes", [operation("r1", "T1", 0.0, 1.0), operation("r2", "T1", 1.0, 2.0)]),
        ("theatre_minutes", [operation("r1", "T1", 0.0, 2.0), operation("r2", "T1", 1.0, 2.0)]),
        ("surgeon", [operation("r1", "T1", 0.0, 2.0), operation("r2", "T2", 0.0, 1.0)]),
        ("operation", [operation("r1", "T1", 0.0, 2.0)]),
        ("known", [operation("r1", "T9", 0.0, 2.0), operation("r2", "T1", 2.0, 3.0)]),
    ],
)
def test_a_broken_rule_of_theatres_is_named(rule: str, lines: list[Assignment]) -> None:
    assert rule in rules(OPERATING, plan(*beds(GOOD).assignments, *lines))


def test_a_surgeon_operates_within_the_shift() -> None:
    short = replace(OPERATING, nurses=(Nurse("d1", 0.0, 2.5),))
    made = plan(*beds(GOOD).assignments, operation("r1", "T1", 0.0, 2.0), operation("r2", "T1", 2.0, 3.0))
    assert rules(OPERATING, made) == set()
    assert check(OPERATING, made)[1]["theatre"] == 40.0
    assert rules(short, made) == {"surgeon"}


def test_every_rule_is_tested() -> None:
    names = {
        mark
        for one in (
            test_a_broken_rule_is_named,
            test_a_broken_rule_of_nurses_is_named,
            test_a_broken_rule_of_theatres_is_named,
        )
        for case in one.pytestmark[0].args[1]
        for mark in [case[0]]
    }
    assert names == set(RULES)
