"""No bound is above the best plan there is, on small sites with all that goes wrong in one."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.allocation.assign import Effort, assign
from streams.allocation.bound import relaxed
from streams.allocation.columns import Floats, Pricer, generate, of_placing, pattern
from streams.allocation.ground import CLOSED, Ground, Placing, broken
from streams.allocation.rules import check
from streams.allocation.site import Bed, Need, Request, Site, Stay, Weights
from streams.allocation.start import begin
from tests.plan_sites import AT, accepted, drawn, optimum

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def generated(ground: Ground, placing: Placing, first: Floats) -> float:
    whole = range(len(ground.rooms)), range(len(ground.needs))
    return generate(ground, of_placing(placing), float("inf"), *whole, first)[1]


@settings(SLOW, max_examples=50)
@given(st.integers(0, 1 << 32))
def test_no_bound_is_above_the_optimum(seed: int) -> None:
    chance = random.Random(seed)
    site = drawn(chance, 7)
    before = accepted(chance, site)
    ground = Ground(site, before)
    best = optimum(ground)
    bound, worth = relaxed(ground)
    assert bound <= best + 1
    placing = begin(ground, before)
    assert placing.cost >= best
    assert generated(ground, placing, worth) <= best + 1
    any_prices = np.array([chance.random() * min(out, 50_000) for out in ground.out])
    assert generated(ground, placing, any_prices) <= best + 1


@settings(SLOW, max_examples=15)
@given(st.integers(0, 1 << 32))
def test_a_plan_is_not_above_its_bound_nor_below_the_optimum(seed: int) -> None:
    chance = random.Random(seed)
    site = drawn(chance, 6)
    before = accepted(chance, site)
    best = optimum(Ground(site, before))
    plan = assign(site, before, Effort(30.0, rounds=3))
    breaches, costs = check(site, plan, before)
    assert (breaches, costs) == (plan.breaches, plan.costs)
    assert round(plan.cost * 100) + broken(breaches) >= best
    if not breaches:
        assert plan.bound * 100 <= best + 1


@settings(SLOW, max_examples=50)
@given(st.integers(0, 1 << 32))
def test_a_room_wins_no_less_than_its_best_pattern(seed: int) -> None:
    """Against all patterns of the room, at any prices."""
    chance = random.Random(seed)
    site = drawn(chance, 5)
    ground = Ground(site, accepted(chance, site))
    pricer = Pricer(ground, range(len(ground.needs)))
    for room in range(len(ground.rooms)):
        worth = np.array([chance.choice((0, 100, 3000, 12_000, 90_000)) * chance.random() for _ in ground.needs])
        if (best := every(ground, room, worth)) is not None:
            assert pricer.best(room, worth)[0] >= best - 0.01


def every(ground: Ground, room: int, worth: Floats, most: int = 4000) -> float | None:
    """What the best pattern wins, by trying all; None where they are too many."""
    ways, count = [], 1
    for bed in ground.of_room[room]:
        stay = [None, *(n for n in ground.lying[bed] if ground.price[n, bed] < CLOSED)]
        fits = np.flatnonzero(ground.price[:, bed] < CLOSED).tolist()
        comes = [None, *(n for n in fits if ground.own[n] != bed)]
        ways.append([[(n, bed) for n in pair if n is not None] for pair in product(stay, comes)])
        count *= len(ways[-1])
    if count > most:
        return None
    best = 0.0
    for chosen in product(*ways):
        beds = [one for some in chosen for one in some]
        if len({n for n, _ in beds}) == len(beds) and (made := pattern(ground, room, beds)):
            best = max(best, sum(float(worth[n]) for n, _ in beds) - made.cost)
    return best


# ----------------------------------------------------------------------------------------------- what was once mistaken


def rooms(*sizes: int) -> dict[str, Bed]:
    names = [(room, bed) for room, size in enumerate(sizes, 1) for bed in range(1, size + 1)]
    return {f"A|{room}|{bed}": Bed(f"A|{room}|{bed}", "A", str(room)) for room, bed in names}


KEPT_ALONE = Site(  # who comes into the last bed costs more years than he is worth: that nobody comes is a choice
    "S", AT, rooms(2), (Stay(Need("s1", "p1", age=90), "A|1|1"),), (Request(Need("r1", "p2", age=1)),),
    weights=Weights(age_mix=10.0),
)  # fmt: skip
NEITHER_SEX = Site(  # beside a woman who leaves somebody of neither sex, then a man
    "S", AT, rooms(2), (Stay(Need("s1", "p1", sex="F", leaves=3.0), "A|1|1"),),
    (Request(Need("r1", "p2")), Request(Need("r2", "p3", sex="M"))),
)  # fmt: skip
NO_LAWFUL_BED = Site(  # has no bed, and pays neither a move nor the years of his room
    "S", AT, rooms(2),
    (Stay(Need("s1", "p1", age=1, needs=frozenset({"oxygen"})), "A|1|1"), Stay(Need("s2", "p2", age=90), "A|1|2")),
)  # fmt: skip
TAKES_NO_BED = Site(  # has no bed in truth, and may have none: takes none from those who wait
    "S", AT, rooms(1), (Stay(Need("s1", "p1", needs=frozenset({"oxygen"})), None),),
    (Request(Need("r1", "p2")), Request(Need("r2", "p3"))),
)  # fmt: skip


@pytest.mark.parametrize("site", [KEPT_ALONE, NEITHER_SEX, NO_LAWFUL_BED, TAKES_NO_BED])
def test_what_a_bound_once_forgot(site: Site) -> None:
    ground = Ground(site)
    best, placing = optimum(ground), begin(ground)
    bound, worth = relaxed(ground)
    assert bound <= best
    assert generated(ground, placing, worth) <= best + 1
    for room in range(len(ground.rooms)):
        for prices in product((0.0, 7000.0, 50_000.0, 100_000.0), repeat=len(ground.needs)):
            won = every(ground, room, np.array(prices))
            assert won is not None
            assert Pricer(ground, range(len(ground.needs))).best(room, np.array(prices))[0] >= won - 0.01


def test_years_are_priced_in_whole_hundredths_everywhere() -> None:
    stays = (Stay(Need("s1", "p1", age=20), "A|1|1"), Stay(Need("s2", "p2", age=70), "A|1|2"))
    site = Site("S", AT, rooms(2), stays, weights=Weights(age_mix=0.006, move=500.0))
    plan = assign(site, effort=Effort(rounds=1))
    assert check(site, plan)[1] == plan.costs == {"age_mix": 0.5}
    assert plan.bound <= 0.5
    assert assign(replace(site, weights=Weights(age_mix=0.004)), effort=Effort(rounds=1)).costs == {}
