"""An instance of IHTC-2024 as arrays, checked once: whoever holds an `Instance` need not look again.

Persons are numbered patients first, then occupants; shifts are numbered through the horizon, `day * 3 + shift of the
day`. Names are the competition's own (ihtc2024.github.io, "The problem").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from infra.errors import BadProblem

Ints = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

COSTS = (
    "room_mixed_age",
    "room_nurse_skill",
    "continuity_of_care",
    "nurse_eccessive_workload",  # spelled so in the instances
    "open_operating_theater",
    "surgeon_transfer",
    "patient_delay",
    "unscheduled_optional",
)
UNSCHEDULED = -1
GENDERS = ("A", "B")
LARGEST = 1_000_000  # weights, minutes and workloads above this are no hospital's, and their sums might overflow


@dataclass(frozen=True, eq=False, slots=True)
class Instance:
    """Shapes: P patients, Q persons, R rooms, T theatres, G surgeons, N nurses, D days, S shifts."""

    days: int
    shift_types: tuple[str, ...]
    weights: Mapping[str, int]
    patients: tuple[str, ...]
    occupants: tuple[str, ...]
    rooms: tuple[str, ...]
    theatres: tuple[str, ...]
    surgeons: tuple[str, ...]
    nurses: tuple[str, ...]
    gender: Ints  # (Q,) 0 or 1
    age_group: Ints  # (Q,) position in age_groups
    stay: Ints  # (Q,) days: length_of_stay
    workload: Ints  # (Q, longest stay in shifts), 0 behind the stay
    skill_required: Ints  # the same shape
    mandatory: Flags  # (P,)
    release: Ints  # (P,) first day of admission: surgery_release_day
    due: Ints  # (P,) last day: surgery_due_day, of optional patients the last of the horizon
    surgery_minutes: Ints  # (P,) surgery_duration
    surgeon: Ints  # (P,)
    compatible: Flags  # (P, R)
    occupant_room: Ints  # (Q - P,)
    capacity: Ints  # (R,) beds
    theatre_minutes: Ints  # (T, D) availability
    surgeon_minutes: Ints  # (G, D) max_surgery_time
    nurse_skill: Ints  # (N,) skill_level
    max_load: Ints  # (N, S), -1 where the nurse does not work

    @property
    def shifts(self) -> int:
        return self.days * len(self.shift_types)


def read_instance(body: bytes) -> Instance:
    """Raises BadProblem: `bad_json`, `missing`, `bad_type`, `out_of_range`, `wrong_length`, `unknown_id`,
    `repeated`, at the place in the file.
    """
    try:
        file = Node(orjson.loads(body), "")
    except orjson.JSONDecodeError:
        raise BadProblem("bad_json") from None
    days = file.at("days").number(1, 1000)
    shift_types = file.at("shift_types").names()
    per_day = len(shift_types)
    age_groups = file.at("age_groups").names()
    levels = file.at("skill_levels").number(1, 1000)
    weights = {name: file.at("weights").at(name).number(0, LARGEST) for name in COSTS}
    patients, occupants = file.at("patients").items(), file.at("occupants").items()
    rooms, theatres = file.at("rooms").items(), file.at("operating_theaters").items()
    surgeons, nurses = file.at("surgeons").items(), file.at("nurses").items()
    room_ids, surgeon_ids = _ids(rooms), _ids(surgeons)

    persons = patients + occupants
    stay = [person.at("length_of_stay").number(1, 1000) for person in persons]
    shape = (len(persons), max(stay, default=1) * per_day)
    workload, skill_required = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for number, person in enumerate(persons):
        length = stay[number] * per_day
        workload[number, :length] = person.at("workload_produced").numbers(length, LARGEST)
        skill_required[number, :length] = person.at("skill_level_required").numbers(length, levels - 1)

    mandatory = [patient.at("mandatory").flag() for patient in patients]
    release = [patient.at("surgery_release_day").number(0, days - 1) for patient in patients]
    due = [
        patient.at("surgery_due_day").number(release[number], days - 1) if mandatory[number] else days - 1
        for number, patient in enumerate(patients)
    ]
    compatible = np.ones((len(patients), len(rooms)), np.bool_)
    for number, patient in enumerate(patients):
        for room in patient.at("incompatible_room_ids").entries():
            compatible[number, room.one_of(room_ids)] = False

    max_load = np.full((len(nurses), days * per_day), -1, np.int32)
    for number, nurse in enumerate(nurses):
        for working in nurse.at("working_shifts").entries():
            shift = working.at("day").number(0, days - 1) * per_day + working.at("shift").one_of(shift_types)
            if max_load[number, shift] >= 0:
                raise BadProblem("repeated", working.place)
            max_load[number, shift] = working.at("max_load").number(0, LARGEST)

    return Instance(
        days=days,
        shift_types=shift_types,
        weights=weights,
        patients=_ids(patients),
        occupants=_ids(occupants),
        rooms=room_ids,
        theatres=_ids(theatres),
        surgeons=surgeon_ids,
        nurses=_ids(nurses),
        gender=_array(person.at("gender").one_of(GENDERS) for person in persons),
        age_group=_array(person.at("age_group").one_of(age_groups) for person in persons),
        stay=_array(stay),
        workload=workload,
        skill_required=skill_required,
        mandatory=np.array(mandatory, np.bool_),
        release=_array(release),
        due=_array(due),
        surgery_minutes=_array(patient.at("surgery_duration").number(0, LARGEST) for patient in patients),
        surgeon=_array(patient.at("surgeon_id").one_of(surgeon_ids) for patient in patients),
        compatible=compatible,
        occupant_room=_array(occupant.at("room_id").one_of(room_ids) for occupant in occupants),
        capacity=_array(room.at("capacity").number(0, 1000) for room in rooms),
        theatre_minutes=_table((theatre.at("availability").numbers(days, LARGEST) for theatre in theatres), days),
        surgeon_minutes=_table((surgeon.at("max_surgery_time").numbers(days, LARGEST) for surgeon in surgeons), days),
        nurse_skill=_array(nurse.at("skill_level").number(0, levels - 1) for nurse in nurses),
        max_load=max_load,
    )


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a JSON file and its place in it, which an error names; its content no error repeats."""

    value: Any
    place: str

    def at(self, name: str) -> Node:
        if not isinstance(self.value, dict):
            raise BadProblem("bad_type", self.place)
        place = f"{self.place}.{name}" if self.place else name
        if name not in self.value:
            raise BadProblem("missing", place)
        return Node(self.value[name], place)

    def entries(self) -> list[Node]:
        if not isinstance(self.value, list):
            raise BadProblem("bad_type", self.place)
        return [Node(one, f"{self.place}[{number}]") for number, one in enumerate(self.value)]

    def items(self) -> list[Node]:
        """Entries that each have an `id` of their own."""
        entries, seen = self.entries(), set[str]()
        for entry in entries:
            name = entry.at("id")
            if name.text() in seen:
                raise BadProblem("repeated", name.place)
            seen.add(name.text())
        return entries

    def names(self) -> tuple[str, ...]:
        names = tuple(entry.text() for entry in self.entries())
        if not names:
            raise BadProblem("wrong_length", self.place)
        if len(set(names)) < len(names):
            raise BadProblem("repeated", self.place)
        return names

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise BadProblem("bad_type", self.place)
        return self.value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise BadProblem("bad_type", self.place)
        return self.value

    def number(self, lowest: int, highest: int) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise BadProblem("bad_type", self.place)
        if not lowest <= self.value <= highest:
            raise BadProblem("out_of_range", self.place)
        return self.value

    def numbers(self, length: int, highest: int) -> list[int]:
        entries = self.entries()
        if len(entries) != length:
            raise BadProblem("wrong_length", self.place)
        return [entry.number(0, highest) for entry in entries]

    def one_of(self, names: Sequence[str]) -> int:
        """Position of the text among the names."""
        try:
            return names.index(self.text())
        except ValueError:
            raise BadProblem("unknown_id", self.place) from None


def _ids(items: Sequence[Node]) -> tuple[str, ...]:
    return tuple(item.at("id").text() for item in items)


def _array(values: Iterable[int]) -> Ints:
    return np.fromiter(values, np.int32)


def _table(rows: Iterable[list[int]], columns: int) -> Ints:
    return np.array(list(rows), np.int32).reshape(-1, columns)
