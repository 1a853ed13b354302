"""Room is made for who must have a bed, wherever a lawful plan does."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.allocation import must
from streams.allocation.assign import Effort, assign
from streams.allocation.ground import MUST, Ground
from streams.allocation.must import make_room, missing
from streams.allocation.planner import plan
from streams.allocation.rules import check
from streams.allocation.site import Bed, Need, Request, Site, Stay
from streams.allocation.start import begin
from tests.plan_sites import AT, drawn, optimum

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def ward(rooms: int, wide: int, lying: int = 1) -> Site:
    """Rooms of so many beds, women's and men's by turns, with so many patients in each."""
    names = [(f"{room:03}", bed) for room in range(rooms) for bed in range(wide)]
    beds = {
        f"A|{room}|{bed}": Bed(f"A|{room}|{bed}", "A", room, position=(10.0 * int(room), 0.0)) for room, bed in names
    }
    stays = tuple(
        Stay(Need(f"s{room}-{bed}", f"p{room}-{bed}", sex="FM"[room % 2]), f"A|{room:03}|{bed}")
        for room in range(rooms)
        for bed in range(lying)
    )
    return Site("S", AT, beds, stays)


def urgent(ref: str, **need: object) -> Request:
    return Request(Need(ref, f"q-{ref}", **need), 1, due=0.0)  # type: ignore[arg-type]


def one_after_another(rooms: int) -> Site:
    """Each bed suits who lies in it and who lies in the one before; the last is free; who comes needs the first."""
    beds = {
        f"A|{n:02}|1": Bed(f"A|{n:02}|1", "A", f"{n:02}", features=frozenset({f"f{n}", f"f{n + 1}"}))
        for n in range(rooms)
    }
    stays = tuple(Stay(Need(f"s{n}", f"p{n}", needs=frozenset({f"f{n + 1}"})), f"A|{n:02}|1") for n in range(rooms - 1))
    return Site("S", AT, beds, stays, (urgent("r1", needs=frozenset({"f0"})),))


ISOLATED = replace(ward(12, 3), requests=(urgent("r1", sex="M", isolation="MRSA"),))  # each room has one who could move
THREE_KINDS = replace(ward(10, 4), requests=tuple(urgent(f"r{kind}", isolation=kind) for kind in ("MRSA", "FLU", "TB")))
# the only room with beds left is of two women; men come, and women have one bed left elsewhere each
OTHER_SEX = replace(
    ward(3, 4, 0),
    stays=tuple(
        Stay(Need(f"s{room}-{bed}", f"p{room}-{bed}", sex="F"), f"A|{room:03}|{bed}")
        for room, lying in enumerate((2, 3, 3))
        for bed in range(lying)
    ),
    requests=tuple(urgent(f"r{n}", sex="M") for n in range(4)),
)
WAITS_IN_THE_WAY = replace(
    ward(1, 1, 0), requests=(Request(Need("r1", "q1"), 1, 24.0), urgent("r2"))
)  # fmt: skip
SOMEBODY_LEAVES = Site(
    "S", AT, {"A|1|1": Bed("A|1|1", "A", "1")}, (Stay(Need("s1", "p1", leaves=2.0), "A|1|1"),),
    (Request(Need("r1", "q1"), due=3.0),),
)  # fmt: skip
SHARED_BY_MISTAKE = Site(  # men and women in one room, as events tell it, and room elsewhere for one sex alone
    "S", AT, ward(3, 2, 0).beds,
    (
        Stay(Need("s1", "p1", sex="F"), "A|000|0"), Stay(Need("s2", "p2", sex="M"), "A|000|1"),
        Stay(Need("s3", "p3", sex="F"), "A|001|0"), Stay(Need("s4", "p4", sex="F"), "A|002|0"),
    ),
)  # fmt: skip


LAWFUL = {
    "alone in isolation": ISOLATED,
    "three kinds of isolation": THREE_KINDS,
    "a chain of eight": one_after_another(8),
    "a chain of thirty": one_after_another(30),
    "a room changes its sex": OTHER_SEX,
    "men and women in one room": SHARED_BY_MISTAKE,
    "who waits is in the way": WAITS_IN_THE_WAY,
    "somebody leaves in time": SOMEBODY_LEAVES,
}


@pytest.mark.parametrize("site", LAWFUL.values(), ids=LAWFUL)
def test_who_must_have_a_bed_has_one(site: Site) -> None:
    plan = assign(site, effort=Effort(rounds=0))
    assert plan.breaches == check(site, plan)[0] == ()


@pytest.mark.parametrize(
    ("part", "name"),
    [*(("whole", name) for name in LAWFUL), *(("near", name) for name in LAWFUL if "chain" not in name)],
)
def test_either_way_makes_room(part: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbourhoods and the whole site each find it without the other."""
    if part == "whole":
        monkeypatch.setattr(must, "_ROOMS", ())
    else:
        monkeypatch.setattr(must, "_whole", lambda placing, ends: False)
    placing = begin(Ground(LAWFUL[name]))
    make_room(placing, None)
    assert missing(placing) == []
    assert placing.lawful()


@pytest.mark.parametrize("site", LAWFUL.values(), ids=LAWFUL)
def test_room_that_was_made_is_kept(site: Site) -> None:
    before = assign(site, effort=Effort(rounds=0))
    again = begin(Ground(site, before), before)
    assert missing(again) == []
    assert again.lawful()


@settings(SLOW, max_examples=40)
@given(st.integers(0, 1 << 32))
def test_as_few_are_left_out_as_in_the_best_plan(seed: int) -> None:
    chance = random.Random(seed)
    site = drawn(chance, 8)
    pressed = tuple(replace(one, due=chance.choice((None, 0.0, 4.0))) for one in site.requests)
    ground = Ground(replace(site, requests=pressed))
    placing = begin(ground)
    make_room(placing, None)
    assert placing.lawful()
    assert placing.cost // MUST == optimum(ground) // MUST


def test_nobody_who_is_in_makes_room_by_lying_nowhere() -> None:
    """Two men must have a bed, and the only room has a woman in one of its two: she stays, whatever is broken by it."""
    beds = {name: Bed(name, "W", "1") for name in ("W|1|1", "W|1|2")}
    woman = Stay(Need("lies", "p1", sex="F"), "W|1|1")
    men = tuple(Request(Need(f"due{n}", f"m{n}", sex="M"), 1, due=0.0) for n in range(2))
    made = plan(Site("S", "2026-03-01T08:00:00Z", beds, (woman,), men), seconds=0.3)
    assert made.beds()["lies"].to == "W|1|1"
    assert {(one.rule, one.refs) for one in made.breaches} == {("due", ("due0",)), ("due", ("due1",))}
