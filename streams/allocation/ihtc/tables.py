"""An instance and a state of its solution as flat arrays, for compiled code.

Every count that a move's price needs is kept beside the decisions, so that a move costs as much as it touches: a stay
of seven days 21 shifts, a nurse of one room and shift the four persons in it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.allocation.ihtc.instance import COSTS, UNSCHEDULED, Instance, Ints

Longs = npt.NDArray[np.int64]
Random = npt.NDArray[np.uint64]


MANDATORY_PRICE = 10**12  # above anything else that a patient may cost
MOST_MOVED = 6  # patients in one move


class Problem(NamedTuple):
    """Shapes as of `Instance`; lists are padded rows with a count beside them."""

    days: int
    shifts: int
    per_day: int
    stay: Ints  # (Q,)
    gender: Ints  # (Q,)
    age_group: Ints  # (Q,)
    workload: Ints  # (Q, K)
    skill_required: Ints  # (Q, K)
    mandatory: Ints  # (P,)
    release: Ints  # (P,)
    due: Ints  # (P,)
    minutes: Ints  # (P,)
    surgeon: Ints  # (P,)
    rooms: Ints  # (P, R) compatible rooms
    room_count: Ints  # (P,)
    compatible: Ints  # (P, R)
    capacity: Ints  # (R,)
    nurse_skill: Ints  # (N,)
    max_load: Ints  # (N, S)
    on_duty: Ints  # (S, N) nurses who work in a shift
    duty_count: Ints  # (S,)
    weights: Longs  # by COSTS, then the price of a mandatory patient left out


class State(NamedTuple):
    day: Ints  # (Q,) of admission, or UNSCHEDULED
    room: Ints  # (Q,)
    theatre: Ints  # (P,)
    nurse: Ints  # (R, S)
    lying: Ints  # (R, D, most beds) persons
    persons: Ints  # (R, D) how many
    genders: Ints  # (R, D, 2) persons
    ages: Ints  # (R, D, age groups) persons
    load: Ints  # (N, S)
    caring: Ints  # (Q, N) shifts in which a nurse cares for a person
    theatre_left: Ints  # (T, D) minutes
    theatre_count: Ints  # (T, D) operations
    surgeon_left: Ints  # (G, D) minutes
    surgeon_at: Ints  # (G, D, T) operations
    surgeon_theatres: Ints  # (G, D) theatres in use
    cost: Longs  # (1,) with the price of mandatory patients left out
    old: Ints  # (S,) of a move: nurses before it
    moved: Ints  # (MOST_MOVED, 4) of a move: patient, and day, room, theatre before it
    target: Ints  # (MOST_MOVED, 3) day, room, theatre after it


class Best(NamedTuple):
    """Decisions of the cheapest state seen."""

    day: Ints
    room: Ints
    theatre: Ints
    nurse: Ints
    cost: Longs  # (1,)


def problem(instance: Instance) -> Problem:
    patients, rooms = instance.compatible.shape
    room_list = np.zeros((patients, rooms), np.int32)
    for patient in range(patients):
        fitting = np.flatnonzero(instance.compatible[patient])
        room_list[patient, : len(fitting)] = fitting
    nurses, shifts = instance.max_load.shape
    on_duty = np.zeros((shifts, nurses), np.int32)
    for shift in range(shifts):
        working = np.flatnonzero(instance.max_load[:, shift] >= 0)
        on_duty[shift, : len(working)] = working
    weights = [instance.weights[name] for name in COSTS]
    return Problem(
        days=instance.days,
        shifts=shifts,
        per_day=len(instance.shift_types),
        stay=instance.stay,
        gender=instance.gender,
        age_group=instance.age_group,
        workload=instance.workload,
        skill_required=instance.skill_required,
        mandatory=instance.mandatory.astype(np.int32),
        release=instance.release,
        due=instance.due,
        minutes=instance.surgery_minutes,
        surgeon=instance.surgeon,
        rooms=room_list,
        room_count=instance.compatible.sum(axis=1).astype(np.int32),
        compatible=instance.compatible.astype(np.int32),
        capacity=instance.capacity,
        nurse_skill=instance.nurse_skill,
        max_load=instance.max_load,
        on_duty=on_duty,
        duty_count=(instance.max_load >= 0).sum(axis=0).astype(np.int32),
        weights=np.array([*weights, MANDATORY_PRICE], np.int64),
    )


def empty(instance: Instance) -> State:
    """Nobody in, nobody on duty; `moves.fill` puts a solution into it."""
    persons, patients = len(instance.stay), len(instance.patients)
    rooms, days, shifts = len(instance.rooms), instance.days, instance.shifts
    nurses, theatres, surgeons = len(instance.nurses), len(instance.theatres), len(instance.surgeons)
    beds = max(int(instance.capacity.max(initial=0)), 1) + len(instance.occupants)

    def zeros(*shape: int) -> Ints:
        return np.zeros(shape, np.int32)

    return State(
        day=np.full(persons, UNSCHEDULED, np.int32),
        room=np.full(persons, UNSCHEDULED, np.int32),
        theatre=np.full(patients, UNSCHEDULED, np.int32),
        nurse=zeros(rooms, shifts),
        lying=zeros(rooms, days, beds),
        persons=zeros(rooms, days),
        genders=zeros(rooms, days, 2),
        ages=zeros(rooms, days, int(instance.age_group.max(initial=0)) + 1),
        load=zeros(nurses, shifts),
        caring=zeros(persons, nurses),
        theatre_left=instance.theatre_minutes.copy(),
        theatre_count=zeros(theatres, days),
        surgeon_left=instance.surgeon_minutes.copy(),
        surgeon_at=zeros(surgeons, days, theatres),
        surgeon_theatres=zeros(surgeons, days),
        cost=np.zeros(1, np.int64),
        old=zeros(shifts),
        moved=zeros(MOST_MOVED, 4),
        target=zeros(MOST_MOVED, 3),
    )
