"""A solution as arrays, and as the file that the competition's judge reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from infra.errors import BadProblem
from streams.allocation.ihtc.instance import UNSCHEDULED, Instance, Ints, Node

NOBODY = -1


@dataclass(frozen=True, eq=False, slots=True)
class Solution:
    """Shapes as of `Instance`. A patient who is left out has UNSCHEDULED in all three."""

    admission_day: Ints  # (P,)
    room: Ints  # (P,)
    theatre: Ints  # (P,)
    nurse: Ints  # (R, S), NOBODY where none is assigned


def read_solution(instance: Instance, body: bytes) -> Solution:
    """Raises BadProblem: reasons of `read_instance`, and `repeated` for a patient or a room's shift given twice."""
    try:
        file = Node(orjson.loads(body), "")
    except orjson.JSONDecodeError:
        raise BadProblem("bad_json") from None
    count = len(instance.patients)
    day, room, theatre = (np.full(count, UNSCHEDULED, np.int32) for _ in range(3))
    for entry in file.at("patients").entries():
        patient = entry.at("id").one_of(instance.patients)
        if entry.at("admission_day").value == "none":
            continue
        if day[patient] != UNSCHEDULED:
            raise BadProblem("repeated", entry.place)
        day[patient] = entry.at("admission_day").number(0, instance.days - 1)
        room[patient] = entry.at("room").one_of(instance.rooms)
        theatre[patient] = entry.at("operating_theater").one_of(instance.theatres)
    nurses = np.full((len(instance.rooms), instance.shifts), NOBODY, np.int32)
    for entry in file.at("nurses").entries():
        nurse = entry.at("id").one_of(instance.nurses)
        for duty in entry.at("assignments").entries():
            shift = duty.at("day").number(0, instance.days - 1) * len(instance.shift_types)
            shift += duty.at("shift").one_of(instance.shift_types)
            for where in duty.at("rooms").entries():
                number = where.one_of(instance.rooms)
                if nurses[number, shift] != NOBODY:
                    raise BadProblem("repeated", where.place)
                nurses[number, shift] = nurse
    return Solution(day, room, theatre, nurses)


def solution_file(instance: Instance, solution: Solution) -> dict[str, Any]:
    """What a file of the solution holds. Of nurses only the rooms that somebody lies in: nothing else is asked."""
    patients: list[dict[str, Any]] = []
    occupied = np.zeros((len(instance.rooms), instance.days), np.bool_)
    for number, room in enumerate(instance.occupant_room):
        occupied[room, : instance.stay[len(instance.patients) + number]] = True
    for number, name in enumerate(instance.patients):
        day, room = int(solution.admission_day[number]), int(solution.room[number])
        if day == UNSCHEDULED:
            patients.append({"id": name, "admission_day": "none"})
            continue
        occupied[room, day : day + instance.stay[number]] = True
        theatre = instance.theatres[solution.theatre[number]]
        patients.append({"id": name, "admission_day": day, "room": instance.rooms[room], "operating_theater": theatre})
    per_day = len(instance.shift_types)
    nurses = []
    for nurse, name in enumerate(instance.nurses):
        duties = []
        for shift in np.flatnonzero(instance.max_load[nurse] >= 0):
            day, of_day = divmod(int(shift), per_day)
            rooms = np.flatnonzero((solution.nurse[:, shift] == nurse) & occupied[:, day])
            names = [instance.rooms[room] for room in rooms]
            duties.append({"day": day, "shift": instance.shift_types[of_day], "rooms": names})
        nurses.append({"id": name, "assignments": duties})
    return {"patients": patients, "nurses": nurses}
