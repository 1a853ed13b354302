"""Policies tried on the simulated hospital: each on the same seeds, spread over the machine's cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

from infra.errors import UsageError
from producers.simulate.demand import BEGIN, Demand
from producers.simulate.wards import SETTLED_DAYS, premises
from streams.allocation.history import Figures, replay
from streams.allocation.policies import POLICIES

ORDER = ("fcfs", "greedy")  # who is tried beside a policy: those that think less


@dataclass(frozen=True, slots=True)
class Trial:
    """One run to make: which hospital, which patients, which policy."""

    hospital: str
    seed: int
    days: int
    policy: str


def run(trial: Trial) -> Figures:
    """From the same full house for every policy: before hour zero the greedy rule has put everybody where they are."""
    where = premises(trial.hospital, -SETTLED_DAYS, trial.days)
    demand = Demand(where, trial.seed, trial.days, BEGIN).arrivals()
    policies = {name: POLICIES[name]() for name in ("greedy", trial.policy)}
    return replay(where.house, demand, policies[trial.policy], trial.days * 24.0, policies["greedy"])


def beside(policy: str) -> tuple[str, ...]:
    """The policy, then those that it is compared with. Raises UsageError where there is none called that."""
    if policy not in POLICIES:
        raise UsageError(f"there is no policy called that: {', '.join(POLICIES)}")
    return (
        (policy, *(one for one in ORDER if one != policy))
        if policy not in ORDER
        else (policy, *ORDER[: ORDER.index(policy)])
    )


def trials(
    hospital: str, policies: Iterable[str], seeds: Iterable[int], days: int, jobs: int, done: Callable[[int], None]
) -> dict[str, list[Figures]]:
    """By policy, in the order of the seeds; `done` hears of each run that has ended."""
    some = [Trial(hospital, seed, days, policy) for seed in seeds for policy in policies]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run, one): one for one in some}
        for future in as_completed(running):
            future.result()
            done(1)
    found = {one: future.result() for future, one in running.items()}
    return {policy: [found[one] for one in some if one.policy == policy] for policy in policies}
