"""Small sites drawn at random, with all that goes wrong in one, and the cost of the best plan there is."""

from __future__ import annotations

import random
from dataclasses import replace

from ortools.sat.python import cp_model

from streams.allocation.ground import Ground
from streams.allocation.model import build
from streams.allocation.plan import BED, Assignment, Plan
from streams.allocation.site import CLOSED, FREE, HOUSEKEEPING, OCCUPIED, Bed, Need, Request, Site, Stay, Weights

AT = "2026-03-01T08:00:00Z"
SERVICES = ("MED", "SUR")
FEATURES = ("oxygen", "monitor")


def drawn(chance: random.Random, most: int = 14) -> Site:
    """3 beds and more: rooms of one to four, mixed services and features, closed beds, two in one bed, nobody's beds,
    who leaves soon, ages, sexes, isolation, requests that must have a bed, odd weights."""
    size, beds, room = chance.randint(3, most), dict[str, Bed](), 0
    alike = chance.random() < 0.5
    while len(beds) < size:
        room += 1
        wide = min(chance.choice((1, 1, 2, 2, 3, 4)), size - len(beds))
        services = frozenset(chance.sample(SERVICES, chance.choice((0, 1, 1, 2))))
        for number in range(wide):
            if not alike:
                services = frozenset(chance.sample(SERVICES, chance.choice((0, 1, 1, 2))))
            features = frozenset(name for name in FEATURES if chance.random() < 0.5)
            status = chance.choices((FREE, HOUSEKEEPING, CLOSED, OCCUPIED), (80, 5, 8, 3))[0]
            place = (chance.choice((0.0, 3.3, 7.1)) + 4.0 * number, 10.3 * room)
            one = Bed(f"A|{room}|{number}", "A", str(room), status, services, features, place)
            beds[one.id] = one
    lone = chance.random() < 0.3  # one sex, no isolation: what is left are ages and hours
    taken = (
        list(beds) + chance.choices(list(beds), k=chance.choice((0, 0, 0, 1, 2))) + [None] * chance.choice((0, 0, 1))
    )
    stays = []
    share = chance.uniform(0.2, 1.0)
    for n, bed in enumerate(taken):
        if chance.random() < share:
            stays.append(Stay(_need(chance, f"s{n}", lone), bed))
            if bed is not None and beds[bed].status == FREE:
                beds[bed] = replace(beds[bed], status=OCCUPIED)
    requests = [
        Request(
            _need(chance, f"r{n}", lone),
            chance.choice((1, 2, 3, 5)),
            chance.choice((0.0, 2.5, 30.0)),
            chance.choice((None, None, None, -1.0, 2.0, 5.0, 20.0)),
        )
        for n in range(chance.randint(0, max(2, size // 2)))
    ]
    weights = chance.choice(
        (
            Weights(),
            Weights(),
            Weights(move=5.0, service=3.0, unplaced=20.0),
            Weights(age_mix=10.0),
            Weights(age_mix=0.333, waiting=1.7, metre=0.71, change=0.125),
            Weights(move=0.0, metre=0.0, change=0.0),
            Weights(unplaced=30.0, waiting=40.0),
        )
    )
    return Site("S", AT, beds, tuple(stays), tuple(requests), weights=weights)


def _need(chance: random.Random, ref: str, lone: bool) -> Need:
    return Need(
        ref,
        f"p-{ref}",
        chance.choice(("", *SERVICES)),
        "M" if lone else chance.choice(("M", "M", "F", "F", "")),
        chance.choice((None, 1, 20, 45, 46, 70, 90)),
        frozenset(name for name in FEATURES if chance.random() < 0.2),
        "" if lone else chance.choice(("", "", "", "MRSA", "FLU")),
        chance.choice((0.5, 1.5, 3.0, 4.75, 11.9, 13.0, 40.0)),
    )


def accepted(chance: random.Random, site: Site) -> Plan | None:
    """A plan that was made before, for a state somewhat like this; None half of the time."""
    if chance.random() < 0.5 or not site.beds:
        return None
    lies = {stay.need.ref: stay.bed for stay in site.stays}
    refs = [*lies, *(one.need.ref for one in site.requests), "gone"]
    lines = tuple(
        Assignment(BED, ref, chance.choice([*site.beds, None]), 0.0, lies.get(ref))
        for ref in refs
        if chance.random() < 0.6
    )
    return Plan(site.id, site.at, lines, {})


def optimum(ground: Ground) -> int:
    """Hundredths, of the best plan there is, with broken rules at their price: one programme, solved to the end."""
    model = build(ground, range(len(ground.rooms)), range(len(ground.needs)))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    status = solver.solve(model.cp)
    assert status == cp_model.OPTIMAL
    return round(solver.objective_value)
