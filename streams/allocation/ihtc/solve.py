"""Anytime: a first plan that keeps every hard rule, then ever cheaper ones until the time is over.

1. Mandatory patients alone, by the same annealing with prices of 1 for each of them left out and for each optional
   patient let in; nurses come by chance, since any nurse on duty keeps the rules.
2. Everything, at the prices of the instance, cooling with the time that has gone.

Each worker is a thread: compiled code runs without the interpreter's lock. Time steers the cooling, so a seed gives
like runs, not the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event

import numpy as np

from infra.errors import NoPlan
from streams.allocation.ihtc.anneal import anneal
from streams.allocation.ihtc.instance import UNSCHEDULED, Instance, Ints
from streams.allocation.ihtc.moves import fill
from streams.allocation.ihtc.solution import Solution
from streams.allocation.ihtc.tables import Best, Longs, Problem, Random, empty, problem

# Chances of the moves in thousandths, in the order of `anneal`.
PLACING = (300, 50, 50, 50, 150, 50, 50, 300, 0, 0, 0)
IMPROVING = (140, 120, 60, 40, 60, 60, 30, 10, 300, 80, 100)
PLACING_TEMPERATURES = (0.07, 0.05, 0.1)  # of a price of 1; a worker whose first try fails goes on with the next
PLACING_STEPS = 10_000_000
FIRST_PLAN_SECONDS = 5.0  # given to the first plan where compiling has eaten the time
HOT, COLD = 50.0, 0.4
CHUNK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Progress:
    seconds: float
    cost: int | None  # None until a plan keeps every hard rule
    solution: Solution | None


@dataclass(slots=True)
class Worker:
    """One search. `best` is written by compiled code; whoever else wants it takes `found`, which is whole."""

    instance: Instance
    pr: Problem
    seed: int
    found: Solution | None = None
    cost: int | None = None
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        mixed = np.random.SeedSequence(self.seed).generate_state(1, np.uint64)
        self.random = np.maximum(mixed, 1)

    def run(self, used: Callable[[], float], stop: Event) -> None:
        """`used` tells the share of the time that is gone."""
        best = self.nobody()
        self._place(best, used, stop)
        state = empty(self.instance)
        fill(self.pr, state, best)
        best.cost[0] = state.cost[0]
        tally, chances = np.zeros((len(IMPROVING), 2), np.int64), cumulative(IMPROVING)
        self._keep(best)
        steps, begun = 10_000, used()
        while not stop.is_set() and (now := used()) < 1:
            temperature = HOT * (COLD / HOT) ** ((now - begun) / (1 - begun))
            start = time.perf_counter()
            anneal(self.pr, state, best, self.random, chances, temperature, temperature, steps, tally)
            taken = max(time.perf_counter() - start, 1e-6)
            steps = int(max(1000, min(2 * steps, steps * CHUNK_SECONDS / taken)))
            self._keep(best)

    def nobody(self) -> Best:
        """Occupants in their rooms, no patient, nurses by chance."""
        instance = self.instance
        patients, persons = len(instance.patients), len(instance.stay)
        day, room = np.full(persons, UNSCHEDULED, np.int32), np.full(persons, UNSCHEDULED, np.int32)
        day[patients:], room[patients:] = 0, instance.occupant_room
        nurse = np.zeros((len(instance.rooms), instance.shifts), np.int32)
        chance = np.random.default_rng(self.seed)
        for shift in range(instance.shifts):
            on_duty = np.flatnonzero(instance.max_load[:, shift] >= 0)
            nurse[:, shift] = chance.choice(on_duty, len(instance.rooms))
        return Best(day, room, np.full(patients, UNSCHEDULED, np.int32), nurse, np.zeros(1, np.int64))

    def _place(self, best: Best, used: Callable[[], float], stop: Event) -> None:
        """Put every mandatory patient somewhere."""
        optional = int((~self.instance.mandatory).sum())
        prices = self.pr._replace(weights=np.array([0] * 7 + [-1, 1], np.int64))
        state = empty(self.instance)
        fill(prices, state, best)
        best.cost[0] = state.cost[0]
        tally, chances, done = np.zeros((len(PLACING), 2), np.int64), cumulative(PLACING), 0
        anneal(prices, state, best, self.random, chances, 1.0, 1.0, 0, tally)  # compiles, where that was never done
        compiled = time.monotonic()
        while best.cost[0] > -optional and not stop.is_set():
            if used() >= 1 and time.monotonic() - compiled > FIRST_PLAN_SECONDS:
                break
            temperature = PLACING_TEMPERATURES[done // PLACING_STEPS % len(PLACING_TEMPERATURES)]
            anneal(prices, state, best, self.random, chances, temperature, temperature, 50_000, tally)
            done += 50_000

    def _keep(self, best: Best) -> None:
        patients = len(self.instance.patients)
        if (best.day[:patients][self.instance.mandatory] == UNSCHEDULED).any():
            return
        if self.cost is None or best.cost[0] < self.cost:
            self.found = Solution(
                best.day[:patients].copy(), best.room[:patients].copy(), best.theatre.copy(), best.nurse.copy()
            )
            self.cost = int(best.cost[0])


def solve(
    instance: Instance, seconds: float, seed: int = 1, workers: int = 2, every: float = 1.0
) -> Iterator[Progress]:
    """Yields the best plan every second, and at the end. Raises NoPlan where the rules leave a single patient or shift
    nothing. Closing the iterator stops the search.
    """
    check(instance)
    pr, stop, start = problem(instance), Event(), time.monotonic()

    def used() -> float:
        return (time.monotonic() - start) / seconds

    searches = [Worker(instance, pr, seed * 1000 + number) for number in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(one.run, used, stop) for one in searches]
        try:
            while waiting := wait(running, timeout=every, return_when=FIRST_EXCEPTION).not_done:
                if failed := [one for one in running if one not in waiting and one.exception()]:
                    failed[0].result()
                yield _best(searches, time.monotonic() - start)
            for one in running:
                one.result()
            yield _best(searches, time.monotonic() - start)
        finally:
            stop.set()


def _best(searches: list[Worker], seconds: float) -> Progress:
    found = [(one.cost, number) for number, one in enumerate(searches) if one.cost is not None]
    if not found:
        return Progress(seconds, None, None)
    cost, number = min(found)
    return Progress(seconds, cost, searches[number].found)


def check(instance: Instance) -> None:
    """What makes a plan impossible without any search. Raises NoPlan."""
    patients = len(instance.patients)
    unstaffed = np.flatnonzero((instance.max_load >= 0).sum(axis=0) == 0)
    if len(unstaffed):
        raise NoPlan(f"no nurse works in shift {unstaffed[0]} of the horizon")
    free = np.repeat(instance.capacity[:, None], instance.days, axis=1)
    genders = np.zeros((len(instance.rooms), instance.days, 2), np.int32)
    for number, room in enumerate(instance.occupant_room):
        stay = slice(0, instance.stay[patients + number])
        free[room, stay] -= 1
        genders[room, stay, instance.gender[patients + number]] += 1
    if (free < 0).any() or (genders.min(axis=2) > 0).any():
        raise NoPlan("the occupants alone break the rules of a room")
    for patient in np.flatnonzero(instance.mandatory).tolist():
        if not any(_fits(instance, patient, day, free, genders) for day in _days(instance, patient)):
            raise NoPlan(f"nothing fits patients[{patient}], who must be admitted")


def _days(instance: Instance, patient: int) -> range:
    return range(int(instance.release[patient]), int(instance.due[patient]) + 1)


def _fits(instance: Instance, patient: int, day: int, free: Ints, genders: Ints) -> bool:
    minutes, stay = instance.surgery_minutes[patient], slice(day, day + instance.stay[patient])
    if instance.surgeon_minutes[instance.surgeon[patient], day] < minutes:
        return False
    if not (instance.theatre_minutes[:, day] >= minutes).any():
        return False
    alone = (free[:, stay] > 0).all(axis=1) & (genders[:, stay, 1 - instance.gender[patient]] == 0).all(axis=1)
    return bool((alone & instance.compatible[patient]).any())


def cumulative(chances: tuple[int, ...]) -> Longs:
    return np.cumsum(chances, dtype=np.int64)
