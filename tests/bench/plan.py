"""Plan latency and gap against size, beside greedy and a bare CP-SAT model without a warm start.

Sites are drawn, not recorded: four beds to a ward room and two of ten rooms single, units meant for one service each,
nine beds of ten taken, ages as of hospital patients, one patient of twelve isolated. Events are single: somebody
leaves, somebody comes, a patient is isolated, a bed is closed.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

from streams.allocation import baselines
from streams.allocation.assign import Effort, assign
from streams.allocation.plan import INFEASIBLE, Plan
from streams.allocation.rules import rooms
from streams.allocation.site import CLOSED, FREE, OCCUPIED, Bed, Need, Request, Site, Stay

SERVICES = ("MED", "SUR", "CAR", "PUL", "URO", "NEU", "GER")
KINDS = ("MRSA", "FLU", "CDIFF")
SIZES = {50: 20, 200: 80, 500: 200, 1000: 400}  # beds: requests
QUICK = {50: 20, 200: 80}
EVENTS = {50: 60, 200: 60, 500: 60, 1000: 30}


def site(beds: int, waiting: int, seed: int = 1, occupancy: float = 0.9) -> Site:
    chance = random.Random(seed)
    made: dict[str, Bed] = {}
    unit = room = 0
    while len(made) < beds:
        unit += 1
        service = SERVICES[unit % len(SERVICES)]
        for _ in range(9):
            room += 1
            size = min(1 if chance.random() < 0.2 else 4, beds - len(made))
            features = frozenset({"oxygen"} if chance.random() < 0.6 else ()) | ({"isolation"} if size == 1 else set())
            for number in range(size):
                more = {"monitor"} if chance.random() < 0.2 else set()
                one = Bed(
                    f"U{unit:02}|{room:03}|{number + 1}",
                    f"U{unit:02}",
                    f"{room:03}",
                    services=frozenset({service}),
                    features=features | more,
                    position=(20.0 * (room % 9) + 2.0 * number, 60.0 * unit),
                )
                made[one.id] = one
    stays: list[Stay] = []
    for room_beds in rooms(Site("S", "", made)).values():
        sex, kind = chance.choice("MF"), chance.choice(KINDS) if chance.random() < 0.08 else ""
        for bed in room_beds:
            if chance.random() < occupancy:
                need = person(chance, f"s{len(stays)}", sex, kind, bed.features, next(iter(bed.services)))
                stays.append(Stay(need, bed.id, -chance.expovariate(1 / 60)))
                made[bed.id] = replace(bed, status=OCCUPIED)
    return Site(
        "S", "2026-03-01T08:00:00Z", made, tuple(stays), tuple(request(chance, f"r{n}") for n in range(waiting))
    )


def person(chance: random.Random, ref: str, sex: str, kind: str, features: frozenset[str] | None, service: str) -> Need:
    wanted = {name for name in ("oxygen", "monitor") if chance.random() < 0.12}
    needs = frozenset(wanted & features if features is not None else wanted)
    age = min(90, max(1, round(chance.gauss(62, 19))))
    return Need(ref, f"p-{ref}", service, sex, age, needs, kind, chance.expovariate(1 / 70))


def request(chance: random.Random, ref: str) -> Request:
    kind = chance.choice(KINDS) if chance.random() < 0.08 else ""
    need = person(chance, ref, chance.choice("MF"), kind, None, chance.choice(SERVICES))
    return Request(need, chance.choice((1, 2, 2, 3, 3, 3)), chance.expovariate(1 / 5))


def event(chance: random.Random, now: Site, number: int) -> Site:
    """One thing happens."""
    what = chance.random()
    if what < 0.4 and now.stays:
        gone = chance.randrange(len(now.stays))
        bed = now.stays[gone].bed
        beds = {**now.beds, bed: replace(now.beds[bed], status=FREE)} if bed in now.beds else now.beds
        return replace(now, beds=beds, stays=now.stays[:gone] + now.stays[gone + 1 :])
    if what < 0.8 or not now.stays:
        return replace(now, requests=(*now.requests, request(chance, f"n{number}")))
    if what < 0.9:
        who = chance.randrange(len(now.stays))
        stay = now.stays[who]
        ill = replace(stay, need=replace(stay.need, isolation=chance.choice(KINDS)))
        return replace(now, stays=(*now.stays[:who], ill, *now.stays[who + 1 :]))
    free = sorted(set(now.beds) - {stay.bed for stay in now.stays})
    if not free:
        return now
    bed = chance.choice(free)
    return replace(now, beds={**now.beds, bed: replace(now.beds[bed], status=CLOSED)})


def rows(sizes: dict[int, int] = SIZES, bare_seconds: float = 10.0) -> Iterator[tuple[str, float]]:
    """Rows of the bench. A gap is to the bound that the first plan of that site proves in its own time."""
    assign(site(50, 20, seed=9), effort=Effort(rounds=1))  # a planner is a process that goes on
    for beds, waiting in sizes.items():
        start = site(beds, waiting)
        began = time.perf_counter()
        plan = assign(start, effort=Effort(seconds=0.7))
        yield f"plan_{beds}_first_seconds", time.perf_counter() - began
        yield f"plan_{beds}_first_gap", plan.gap
        taken, gaps = replanned(start, plan, EVENTS[beds])
        yield f"plan_{beds}_p50_seconds", statistics.median(taken)
        yield f"plan_{beds}_p99_seconds", sorted(taken)[max(0, round(len(taken) * 0.99) - 1)]
        yield f"plan_{beds}_gap", statistics.median(gaps) if gaps else 1.0
        for name, policy in (("greedy", baselines.greedy), ("first_come", baselines.first_come)):
            began = time.perf_counter()
            other = policy(start)
            yield f"plan_{beds}_{name}_seconds", time.perf_counter() - began
            yield f"plan_{beds}_{name}_gap", (other.cost - plan.bound) / other.cost if other.cost else 0.0
        began = time.perf_counter()
        bare = baselines.bare(start, bare_seconds)
        yield f"plan_{beds}_bare_seconds", time.perf_counter() - began
        yield f"plan_{beds}_bare_gap", (bare.cost - plan.bound) / bare.cost if bare.cost else 0.0


def replanned(start: Site, plan: Plan, events: int, seed: int = 2) -> tuple[list[float], list[float]]:
    """(seconds, gaps) of a new plan after each of so many single events, each planned before the next happens. Where
    somebody who must have a bed can have none, there is a plan but no gap."""
    chance, now, taken, gaps = random.Random(seed), start, [], []
    for number in range(events):
        now = event(chance, now, number)
        began = time.perf_counter()
        plan = assign(now, plan)
        taken.append(time.perf_counter() - began)
        gaps += [plan.gap] if plan.status != INFEASIBLE else []
    return taken, gaps
