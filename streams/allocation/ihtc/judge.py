"""What a solution breaks and what it costs, counted anew from the rules: no solver's own sums are believed.

Rules as of ihtc2024.github.io ("The problem"); H1 to H7 and S1 to S8 are the numbers there.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from streams.allocation.ihtc.instance import COSTS, UNSCHEDULED, Instance
from streams.allocation.ihtc.solution import NOBODY, Solution

VIOLATIONS = (
    "room_gender_mix",  # H1: per room and day, persons of the smaller group
    "incompatible_room",  # H2
    "surgeon_overtime",  # H3: minutes
    "theatre_overtime",  # H4: minutes
    "mandatory_unscheduled",  # H5
    "admission_day",  # H6: outside release and due day
    "room_capacity",  # H7: persons above it
    "nurse_presence",  # in a shift that the nurse does not work
    "uncovered_room",  # somebody in it, and no nurse
)


@dataclass(frozen=True, slots=True)
class Verdict:
    violations: dict[str, int]  # by VIOLATIONS
    costs: dict[str, int]  # by COSTS, weighted

    @property
    def broken(self) -> int:
        return sum(self.violations.values())

    @property
    def cost(self) -> int:
        return sum(self.costs.values())


def judge(instance: Instance, solution: Solution) -> Verdict:
    broken, counted = dict.fromkeys(VIOLATIONS, 0), dict.fromkeys(COSTS, 0)
    lying = _lying(instance, solution)
    _admissions(instance, solution, broken, counted)
    _theatres(instance, solution, broken, counted)
    for (room, _), persons in lying.items():
        genders = [int(instance.gender[person]) for person, _ in persons]
        ages = [int(instance.age_group[person]) for person, _ in persons]
        broken["room_gender_mix"] += min(genders.count(0), genders.count(1))
        broken["room_capacity"] += max(0, len(persons) - int(instance.capacity[room]))
        counted["room_mixed_age"] += max(ages) - min(ages)  # S1
    _nurses(instance, solution, lying, broken, counted)
    return Verdict(broken, {name: count * instance.weights[name] for name, count in counted.items()})


Lying = dict[tuple[int, int], list[tuple[int, int]]]


def _lying(instance: Instance, solution: Solution) -> Lying:
    """By room and day: who lies there, and the day of his or her admission."""
    count = len(instance.patients)
    admitted = [
        (patient, int(solution.room[patient]), int(solution.admission_day[patient]))
        for patient in range(count)
        if solution.admission_day[patient] != UNSCHEDULED
    ]
    admitted += [(count + number, int(room), 0) for number, room in enumerate(instance.occupant_room)]
    lying: Lying = defaultdict(list)
    for person, room, admission in admitted:
        for day in range(admission, min(instance.days, admission + int(instance.stay[person]))):
            lying[room, day].append((person, admission))
    return lying


def _admissions(instance: Instance, solution: Solution, broken: dict[str, int], counted: dict[str, int]) -> None:
    for patient in range(len(instance.patients)):
        day, release = int(solution.admission_day[patient]), int(instance.release[patient])
        if day == UNSCHEDULED:
            if instance.mandatory[patient]:
                broken["mandatory_unscheduled"] += 1
            else:
                counted["unscheduled_optional"] += 1  # S8
            continue
        broken["admission_day"] += not release <= day <= instance.due[patient]
        broken["incompatible_room"] += not instance.compatible[patient, solution.room[patient]]
        counted["patient_delay"] += max(0, day - release)  # S7


def _theatres(instance: Instance, solution: Solution, broken: dict[str, int], counted: dict[str, int]) -> None:
    operated: dict[tuple[int, int], int] = defaultdict(int)  # theatre and day: minutes
    operates: dict[tuple[int, int], int] = defaultdict(int)  # surgeon and day: minutes
    where: dict[tuple[int, int], set[int]] = defaultdict(set)  # surgeon and day: theatres
    for patient in range(len(instance.patients)):
        day = int(solution.admission_day[patient])
        if day != UNSCHEDULED:
            theatre, surgeon = int(solution.theatre[patient]), int(instance.surgeon[patient])
            minutes = int(instance.surgery_minutes[patient])
            operated[theatre, day] += minutes
            operates[surgeon, day] += minutes
            where[surgeon, day].add(theatre)
    for place, minutes in operated.items():
        broken["theatre_overtime"] += max(0, minutes - int(instance.theatre_minutes[place]))
    for place, minutes in operates.items():
        broken["surgeon_overtime"] += max(0, minutes - int(instance.surgeon_minutes[place]))
    counted["open_operating_theater"] = len(operated)  # S5
    counted["surgeon_transfer"] = sum(len(theatres) - 1 for theatres in where.values())  # S6


def _nurses(
    instance: Instance, solution: Solution, lying: Lying, broken: dict[str, int], counted: dict[str, int]
) -> None:
    per_day = len(instance.shift_types)
    carers: dict[int, set[int]] = defaultdict(set)
    load = np.zeros(instance.max_load.shape, np.int64)
    for (room, day), persons in lying.items():
        for shift in range(day * per_day, (day + 1) * per_day):
            nurse = int(solution.nurse[room, shift])
            if nurse == NOBODY:
                broken["uncovered_room"] += 1
                continue
            for person, admission in persons:
                of_stay = shift - admission * per_day
                load[nurse, shift] += instance.workload[person, of_stay]
                missing = int(instance.skill_required[person, of_stay]) - int(instance.nurse_skill[nurse])
                counted["room_nurse_skill"] += max(0, missing)  # S2
                carers[person].add(nurse)
    assigned, shifts = np.nonzero(solution.nurse != NOBODY)
    absent = instance.max_load[solution.nurse[assigned, shifts], shifts] < 0
    broken["nurse_presence"] = int(absent.sum())
    counted["continuity_of_care"] = sum(len(nurses) for nurses in carers.values())  # S3
    working = instance.max_load >= 0
    counted["nurse_eccessive_workload"] = int(np.maximum(0, load - instance.max_load)[working].sum())  # S4
