"""The competition's instances are read, judged and solved: the judge against the ten given solutions, and planted
violations, each of one kind; the solver against the judge.
"""

from __future__ import annotations

import copy
import itertools
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from infra.errors import BadProblem, NoPlan
from streams.allocation.ihtc.anneal import anneal
from streams.allocation.ihtc.instance import COSTS, UNSCHEDULED, Instance, read_instance
from streams.allocation.ihtc.judge import VIOLATIONS, Verdict, judge
from streams.allocation.ihtc.moves import fill
from streams.allocation.ihtc.solution import Solution, read_solution, solution_file
from streams.allocation.ihtc.solve import IMPROVING, PLACING, Worker, cumulative, solve
from streams.allocation.ihtc.tables import Best, State, empty, problem

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("IHTC_DATA", ROOT.parent / "shared/data/allocation/ihtc2024"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the instances of IHTC-2024 are not here: set IHTC_DATA")

# How the solution files name a component, in their own comment.
WRITTEN = {
    "AgeMix": "room_mixed_age",
    "Skill": "room_nurse_skill",
    "Continuity": "continuity_of_care",
    "Excess": "nurse_eccessive_workload",
    "OpenOT": "open_operating_theater",
    "SurgeonTransfer": "surgeon_transfer",
    "Delay": "patient_delay",
    "Unscheduled": "unscheduled_optional",
}

File = dict[str, Any]


def person(gender: str, age: str, stay: int, load: int = 1, skill: int = 0) -> File:
    return {
        "gender": gender,
        "age_group": age,
        "length_of_stay": stay,
        "workload_produced": [load] * 3 * stay,
        "skill_level_required": [skill] * 3 * stay,
    }


def patient(name: str, mandatory: bool, release: int, minutes: int, *, person: File) -> File:
    made = {
        "id": name,
        "mandatory": mandatory,
        "surgery_release_day": release,
        "surgery_duration": minutes,
        "surgeon_id": "s0",
        "incompatible_room_ids": ["r1"],
        **person,
    }
    return made | ({"surgery_due_day": 2} if mandatory else {})


def small() -> File:
    """Four days, two rooms of two beds, two theatres, one surgeon, two nurses who work all shifts but one."""
    shifts = [{"day": day, "shift": shift, "max_load": 2} for day in range(4) for shift in ("early", "late", "night")]
    return {
        "days": 4,
        "skill_levels": 3,
        "shift_types": ["early", "late", "night"],
        "age_groups": ["infant", "adult", "elderly"],
        "weights": {name: 1 + number for number, name in enumerate(COSTS)},
        "occupants": [{"id": "a0", "room_id": "r1", **person("B", "adult", 2)}],
        "patients": [
            patient("p0", True, 0, 60, person=person("A", "infant", 2)),
            patient("p1", True, 1, 60, person=person("A", "adult", 9)),
            patient("p2", False, 2, 60, person=person("B", "adult", 1)),
        ],
        "surgeons": [{"id": "s0", "max_surgery_time": [120, 120, 60, 60]}],
        "operating_theaters": [
            {"id": "t0", "availability": [60, 120, 120, 120]},
            {"id": "t1", "availability": [120, 60, 60, 60]},
        ],
        "rooms": [{"id": "r0", "capacity": 2}, {"id": "r1", "capacity": 2}],
        "nurses": [
            {"id": "n0", "skill_level": 0, "working_shifts": shifts},
            {"id": "n1", "skill_level": 2, "working_shifts": shifts[1:]},
        ],
    }


def plan() -> File:
    """Keeps every rule of `small`: p0 and p1 in r0, overlapping on day 1, n0 for all."""
    duties = [
        {"day": day, "shift": shift, "rooms": ["r0", "r1"]} for day in range(4) for shift in ("early", "late", "night")
    ]
    return {
        "patients": [
            {"id": "p0", "admission_day": 0, "room": "r0", "operating_theater": "t0"},
            {"id": "p1", "admission_day": 1, "room": "r0", "operating_theater": "t0"},
            {"id": "p2", "admission_day": "none"},
        ],
        "nurses": [{"id": "n0", "assignments": duties}, {"id": "n1", "assignments": []}],
    }


def judged(instance: File, solution: File) -> Verdict:
    read = read_instance(orjson.dumps(instance))
    return judge(read, read_solution(read, orjson.dumps(solution)))


@needs_data
@pytest.mark.parametrize("number", range(1, 11))
def test_the_judge_agrees_with_a_given_solution(number: int) -> None:
    instance = read_instance((DATA / f"test{number:02}.json").read_bytes())
    body = (DATA / f"sol_test{number:02}.json").read_bytes()
    listed = dict(re.findall(r"(\w+): *(\d+)", orjson.loads(body)["costs"][0]))
    solution = read_solution(instance, body)
    verdict = judge(instance, solution)
    assert verdict.violations == dict.fromkeys(VIOLATIONS, 0)
    assert verdict.costs == {WRITTEN[name]: int(cost) for name, cost in listed.items() if name != "Cost"}
    assert verdict.cost == int(listed["Cost"])
    written = orjson.dumps(solution_file(instance, solution))
    assert judge(instance, read_solution(instance, written)) == verdict


def test_each_cost_by_hand() -> None:
    verdict = judged(small(), plan())
    assert verdict.violations == dict.fromkeys(VIOLATIONS, 0)
    counted = {name: cost // small()["weights"][name] for name, cost in verdict.costs.items()}
    assert counted == {
        "room_mixed_age": 1,  # infant and adult, on day 1
        "room_nurse_skill": 0,
        "continuity_of_care": 3,
        "nurse_eccessive_workload": 3,  # day 1, a load of 3 in each shift
        "open_operating_theater": 2,
        "surgeon_transfer": 0,
        "patient_delay": 0,
        "unscheduled_optional": 1,
    }


def test_costs_of_skill_delay_and_transfer() -> None:
    instance, solution = small(), plan()
    instance["patients"][1] |= person("A", "adult", 9, skill=2)
    instance["surgeons"][0]["max_surgery_time"] = [120] * 4
    solution["patients"][1] |= {"admission_day": 2}
    solution["patients"][2] = {"id": "p2", "admission_day": 2, "room": "r1", "operating_theater": "t1"}
    instance["patients"][2]["incompatible_room_ids"] = []
    verdict = judged(instance, solution)
    counted = {name: cost // instance["weights"][name] for name, cost in verdict.costs.items()}
    assert verdict.broken == 0
    assert counted["room_nurse_skill"] == 12  # two days that are left of nine, three shifts, two levels
    assert counted["patient_delay"] == 1
    assert counted["surgeon_transfer"] == 1
    assert counted["open_operating_theater"] == 3
    assert counted["unscheduled_optional"] == 0


PLANTED: dict[str, tuple[Callable[[File, File], object], int]] = {
    "room_gender_mix": (lambda instance, _: instance["patients"][1].update(gender="B"), 1),
    "incompatible_room": (lambda instance, _: instance["patients"][0].update(incompatible_room_ids=["r0"]), 1),
    "surgeon_overtime": (lambda instance, _: instance["surgeons"][0].update(max_surgery_time=[50, 60, 0, 0]), 10),
    "theatre_overtime": (
        lambda instance, _: instance["operating_theaters"][0].update(availability=[60, 45, 0, 0]),
        15,
    ),
    "mandatory_unscheduled": (
        lambda _, solution: solution["patients"].__setitem__(0, {"id": "p0", "admission_day": "none"}),
        1,
    ),
    "admission_day": (lambda instance, _: instance["patients"][0].update(surgery_release_day=1), 1),
    "room_capacity": (lambda instance, _: instance["rooms"][0].update(capacity=1), 1),
    "nurse_presence": (lambda instance, _: instance["nurses"][0].update(working_shifts=working_but_first()), 2),
    "uncovered_room": (lambda _, solution: solution["nurses"][0]["assignments"].pop(0), 2),
}


def working_but_first() -> Any:
    return small()["nurses"][1]["working_shifts"]


@pytest.mark.parametrize("kind", VIOLATIONS)
def test_a_planted_violation_trips_its_kind_and_no_other(kind: str) -> None:
    instance, solution = small(), plan()
    plant, count = PLANTED[kind]
    plant(instance, solution)
    assert judged(instance, solution).violations == dict.fromkeys(VIOLATIONS, 0) | {kind: count}


def set_at(file: File, path: str, value: Any) -> File:
    changed = copy.deepcopy(file)
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
    node: Any = changed
    for step in steps:
        node = node[step]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "reason", "where"),
    [
        ("days", 0, "out_of_range", "days"),
        ("days", "four", "bad_type", "days"),
        ("weights.patient_delay", None, "missing", "weights.patient_delay"),
        ("weights.patient_delay", -1, "out_of_range", "weights.patient_delay"),
        ("shift_types", [], "wrong_length", "shift_types"),
        ("rooms.1.id", "r0", "repeated", "rooms[1].id"),
        ("rooms.0.capacity", -1, "out_of_range", "rooms[0].capacity"),
        ("patients", {}, "bad_type", "patients"),
        ("patients.0.mandatory", 1, "bad_type", "patients[0].mandatory"),
        ("patients.0.surgery_due_day", None, "missing", "patients[0].surgery_due_day"),
        ("patients.1.surgery_due_day", 0, "out_of_range", "patients[1].surgery_due_day"),
        ("patients.0.surgeon_id", "s9", "unknown_id", "patients[0].surgeon_id"),
        ("patients.0.gender", "C", "unknown_id", "patients[0].gender"),
        ("patients.0.incompatible_room_ids", ["r9"], "unknown_id", "patients[0].incompatible_room_ids[0]"),
        ("patients.0.workload_produced", [1], "wrong_length", "patients[0].workload_produced"),
        ("patients.0.skill_level_required", [3] * 6, "out_of_range", "patients[0].skill_level_required[0]"),
        ("occupants.0.room_id", "r9", "unknown_id", "occupants[0].room_id"),
        ("surgeons.0.max_surgery_time", [1], "wrong_length", "surgeons[0].max_surgery_time"),
        ("nurses.0.working_shifts.0.day", 4, "out_of_range", "nurses[0].working_shifts[0].day"),
        ("nurses.0.working_shifts.0.shift", "noon", "unknown_id", "nurses[0].working_shifts[0].shift"),
        ("nurses.0.working_shifts.1.shift", "early", "repeated", "nurses[0].working_shifts[1]"),
    ],
)
def test_a_bad_instance_is_refused_with_its_place(path: str, value: Any, reason: str, where: str) -> None:
    with pytest.raises(BadProblem) as caught:
        read_instance(orjson.dumps(set_at(small(), path, value)))
    assert (caught.value.reason, caught.value.where) == (reason, where)


@pytest.mark.parametrize(
    ("path", "value", "reason", "where"),
    [
        ("patients.0.id", "p9", "unknown_id", "patients[0].id"),
        ("patients.1.id", "p0", "repeated", "patients[1]"),
        ("patients.0.admission_day", 4, "out_of_range", "patients[0].admission_day"),
        ("patients.0.room", None, "missing", "patients[0].room"),
        ("patients.0.operating_theater", "t9", "unknown_id", "patients[0].operating_theater"),
        ("nurses.0.assignments.0.rooms", ["r0", "r0"], "repeated", "nurses[0].assignments[0].rooms[1]"),
        ("nurses", None, "missing", "nurses"),
    ],
)
def test_a_bad_solution_is_refused_with_its_place(path: str, value: Any, reason: str, where: str) -> None:
    instance = read_instance(orjson.dumps(small()))
    with pytest.raises(BadProblem) as caught:
        read_solution(instance, orjson.dumps(set_at(plan(), path, value)))
    assert (caught.value.reason, caught.value.where) == (reason, where)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(BadProblem, match="bad_json"):
        read_instance(b"{")
    with pytest.raises(BadProblem, match="bad_json"):
        read_solution(read_instance(orjson.dumps(small())), b"")


def filled(instance: Instance, seed: int = 1) -> tuple[Worker, Best, State]:
    """Occupants in their rooms and nurses by chance, priced."""
    worker = Worker(instance, problem(instance), seed)
    best, state = worker.nobody(), empty(instance)
    fill(worker.pr, state, best)
    best.cost[0] = state.cost[0]
    return worker, best, state


def everything(days: int = 12, patients: int = 40) -> File:
    """An instance of every kind of trouble, by chance: three rooms too few, occupants, skills, all weights alike."""
    chance = random.Random(7)
    rooms, theatres, surgeons = 4, 3, 3
    shifts = [(day, shift) for day in range(days) for shift in ("early", "late", "night")]

    def anybody() -> File:
        stay = chance.randint(1, 6)
        made = person(chance.choice("AB"), chance.choice(("infant", "adult", "elderly")), stay)
        made["workload_produced"] = [chance.randint(1, 3) for _ in range(3 * stay)]
        made["skill_level_required"] = [chance.randint(0, 2) for _ in range(3 * stay)]
        return made

    waiting = []
    for number in range(patients):
        one = patient(
            f"p{number}", number % 4 == 0, chance.randrange(days - 3), chance.randint(2, 8) * 15, person=anybody()
        )
        one["surgeon_id"] = f"s{chance.randrange(surgeons)}"
        one["incompatible_room_ids"] = [f"r{chance.randrange(rooms)}"]
        if one["mandatory"]:
            one["surgery_due_day"] = days - 1
        waiting.append(one)
    return {
        "days": days,
        "skill_levels": 3,
        "shift_types": ["early", "late", "night"],
        "age_groups": ["infant", "adult", "elderly"],
        "weights": {name: 1 + 3 * number for number, name in enumerate(COSTS)},
        "occupants": [{"id": f"a{room}", "room_id": f"r{room}", **anybody()} for room in range(2)],
        "patients": waiting,
        "surgeons": [{"id": f"s{n}", "max_surgery_time": [240] * days} for n in range(surgeons)],
        "operating_theaters": [{"id": f"t{n}", "availability": [300] * days} for n in range(theatres)],
        "rooms": [{"id": f"r{n}", "capacity": 3} for n in range(rooms)],
        "nurses": [
            {
                "id": f"n{n}",
                "skill_level": n % 3,
                "working_shifts": [
                    {"day": day, "shift": shift, "max_load": chance.randint(3, 8)}
                    for number, (day, shift) in enumerate(shifts)
                    if number % 4 == n % 4
                ],
            }
            for n in range(8)
        ],
    }


@pytest.mark.parametrize("temperature", [0.5, 30.0])
def test_what_the_search_counts_is_what_it_holds(temperature: float) -> None:
    """After any moves each count beside the decisions is the one that the decisions alone give."""
    worker, best, state = filled(read_instance(orjson.dumps(everything())))
    for moves in (IMPROVING, PLACING):
        tally = np.zeros((len(moves), 2), np.int64)
        for _ in range(40):
            anneal(worker.pr, state, best, worker.random, cumulative(moves), temperature, temperature, 500, tally)
            fresh = empty(worker.instance)
            fill(worker.pr, fresh, Best(state.day, state.room, state.theatre, state.nurse, np.zeros(1, np.int64)))
            for name in set(State._fields) - {"lying", "room", "theatre", "old", "moved", "target"}:
                assert (getattr(fresh, name) == getattr(state, name)).all(), name
        if temperature > 1:
            assert [taken > 0 for taken in tally[:, 1]] == [chance > 0 for chance in moves]


def test_the_search_never_breaks_a_rule_and_its_sum_is_the_judges() -> None:
    instance = read_instance(orjson.dumps(everything()))
    solved = list(solve(instance, 4.0, workers=1, every=0.05))
    costs = [step.cost for step in solved if step.cost is not None]
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) > 2
    for step in solved:
        if step.solution is not None:
            verdict = judge(instance, step.solution)
            assert (verdict.broken, verdict.cost) == (0, step.cost)


def test_the_cheapest_plan_of_a_small_instance_is_found() -> None:
    """Against every plan there is, of patients and nurses, one by one."""
    file = small()
    file["days"] = 2
    file["surgeons"][0]["max_surgery_time"] = [120, 120]
    for theatre in file["operating_theaters"]:
        theatre["availability"] = [120, 60]
    file["occupants"] = [{"id": "a0", "room_id": "r1", **person("B", "adult", 1)}]
    for one in file["patients"]:
        one |= {"surgery_release_day": 0, "incompatible_room_ids": []}
        if one["mandatory"]:
            one["surgery_due_day"] = 1
    for nurse in file["nurses"]:
        nurse["working_shifts"] = [duty for duty in nurse["working_shifts"] if duty["day"] < 2]
    instance = read_instance(orjson.dumps(file))
    *_, last = solve(instance, 2.0, workers=1)
    assert last.cost == cheapest(instance)


def cheapest(instance: Instance) -> int:
    """One nurse for all is never dearer but for the load, since nobody here needs a skill: a bound for each placing."""
    places = [None, *itertools.product(range(2), range(2), range(2))]
    lowest = 10**9
    for chosen in itertools.product(places, repeat=3):
        columns = np.array([place or (UNSCHEDULED,) * 3 for place in chosen], np.int32).T
        nurse = np.zeros((2, instance.shifts), np.int32)
        nurse[:, 0] = 0
        plain = judge(instance, Solution(*columns, nurse))
        if plain.broken or plain.cost - plain.costs["nurse_eccessive_workload"] >= lowest:
            continue
        for pairs in itertools.product(itertools.product(range(2), repeat=2), repeat=instance.shifts - 1):
            nurse[:, 1:] = np.array(pairs).T
            lowest = min(lowest, judge(instance, Solution(*columns, nurse)).cost)
    return lowest


@needs_data
@pytest.mark.parametrize("name", [*(f"i{n:02}" for n in range(1, 31)), *(f"test{n:02}" for n in range(1, 11)),
                                  *(f"small{n:02}" for n in range(1, 10))])  # fmt: skip
def test_a_first_plan_keeps_every_rule(name: str) -> None:
    instance = read_instance((DATA / f"{name}.json").read_bytes())
    with closing(solve(instance, 60.0, workers=1, every=0.05)) as steps:
        first = next(step for step in steps if step.solution is not None)
    assert first.solution is not None
    verdict = judge(instance, first.solution)
    assert (verdict.broken, verdict.cost) == (0, first.cost)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("patients.0.surgery_duration", 121, r"patients\[0\]"),
        ("patients.0.incompatible_room_ids", ["r0", "r1"], r"patients\[0\]"),
        ("surgeons.0.max_surgery_time", [0] * 4, r"patients\[0\]"),
        ("nurses.0.working_shifts", [], "shift 0"),
        ("rooms.1.capacity", 0, "occupants"),
    ],
)
def test_an_impossible_instance_is_told_at_once(path: str, value: Any, told: str) -> None:
    instance = read_instance(orjson.dumps(set_at(small(), path, value)))
    with pytest.raises(NoPlan, match=told):
        next(solve(instance, 60.0))


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "wardstream.py"), "plan", "solve", *arguments]
    environment = os.environ | {"WARDSTREAM_HOME": str(home)}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=280)


def test_the_command_writes_a_solution_that_the_judge_accepts(tmp_path: Path) -> None:
    file, out = tmp_path / "one.json", tmp_path / "sol.json"
    file.write_bytes(orjson.dumps(small()))
    done = run("--ihtc", str(file), "--seconds", "2", "--out", str(out), "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    told, instance = orjson.loads(done.stdout), read_instance(file.read_bytes())
    verdict = judge(instance, read_solution(instance, out.read_bytes()))
    assert (verdict.broken, verdict.cost, verdict.costs) == (0, told["cost"], told["costs"])
    assert " s  cost " in done.stderr
    assert list((tmp_path / "cache" / "numba").iterdir())

    file.write_bytes(orjson.dumps(set_at(small(), "nurses.0.working_shifts", [])))
    out.unlink()
    refused = run("--ihtc", str(file), "--seconds", "2", "--out", str(out), home=tmp_path)
    assert (refused.returncode, out.exists()) == (1, False)
    assert "no_plan" in refused.stderr

    file.write_bytes(b"[]")
    bad = run("--ihtc", str(file), "--seconds", "2", home=tmp_path)
    assert bad.returncode == 2
    assert "bad_type" in bad.stderr
