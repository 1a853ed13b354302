"""The simulated hospitals' wards, beds, rosters, theatres and prices: `small` and `large`, the same on every day.

Every number here is made up; none is a real hospital's. Service codes are PV1-10's (HL7 table 0069 as it suggests, and
in its manner), features are words of our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from infra.errors import UsageError
from producers.simulate.people import Staff, make_staff
from streams.allocation.demand import House
from streams.allocation.site import Bed, Nurse, Theatre, Weights

CURRENCY = "USD"
# unit -> service, beds
_SMALL = (
    ("ICU1", "ICU", 12), ("MED1", "MED", 36), ("MED2", "MED", 36), ("CAR1", "CAR", 28), ("SUR1", "SUR", 36),
    ("ORT1", "ORT", 28), ("PED1", "PED", 24),
)  # fmt: skip
_LARGE = (
    *((f"ICU{index}", "ICU", 16) for index in (1, 2, 3)),
    *((f"MED{index}", "MED", 36) for index in range(1, 8)),
    *((f"CAR{index}", "CAR", 36) for index in (1, 2, 3)),
    *((f"PUL{index}", "PUL", 36) for index in (1, 2)),
    *((f"SUR{index}", "SUR", 36) for index in range(1, 5)),
    *((f"ORT{index}", "ORT", 36) for index in (1, 2, 3)),
    *((f"NEU{index}", "NEU", 36) for index in (1, 2)),
    ("URO1", "URO", 36), ("GYN1", "GYN", 28), ("ONC1", "ONC", 34), ("ONC2", "ONC", 34), ("GER1", "GER", 40),
    ("PED1", "PED", 24),
)  # fmt: skip
LAYOUTS = {"small": _SMALL, "large": _LARGE}
_STAFF = {"small": (96, 12, 12), "large": (480, 60, 60)}  # nurses, surgeons, porters
_THEATRES = {"small": 4, "large": 18}
# A nurse's days by turns: early, late, night, free. Two free days follow the night; nobody works early after late.
_ROTA = "EELLN--"
_SHIFTS = {"E": (6.5, 8.0, 10.0), "L": (14.5, 8.0, 10.0), "N": (22.5, 8.0, 18.0)}  # begins, hours, most load
_PRICES = {"ICU": 2400.0, "CAR": 620.0, "ONC": 640.0, "NEU": 580.0}  # a bed day
_PRICE = 480.0  # of all others
# An hour without a bed is worth more here than a move, and who shares a room with whom is told by the rules alone.
WEIGHTS = Weights(waiting=100.0, age_mix=0.0)
SETTLED_DAYS = 21  # before hour zero, in which the house fills
EQUIPMENT = (("monitor", 0.05, 35.0), ("ventilator", 0.02, 220.0), ("infusion pump", 0.1, 12.0))  # a bed; a day
TRANSPORTS = (("patient transport", 18.0),)  # a journey
_INTENSIVE = 3.0  # of a ward patient's load


@dataclass(frozen=True, slots=True)
class Member:
    """A member of staff: reference, role, unit (empty: the house), skill."""

    ref: str
    person: Staff
    role: str
    unit: str
    skill: int = 0


@dataclass(frozen=True, slots=True)
class Premises:
    """A hospital's standing parts. `house.nurses` has the shifts of the days that were asked for."""

    name: str
    house: House
    staff: tuple[Member, ...]
    services: dict[str, int]  # beds by service

    def surgeons(self) -> tuple[Member, ...]:
        return tuple(one for one in self.staff if one.role == "surgeon")


def premises(name: str, first_day: int, last_day: int, facility: str = "HARBOUR") -> Premises:
    """The hospital called `name`, with the shifts from midnight of the first day to that of the last.

    Raises UsageError where there is no such hospital.
    """
    if name not in LAYOUTS:
        raise UsageError(f"there is no hospital called that: {', '.join(LAYOUTS)}")
    layout = LAYOUTS[name]
    beds = tuple(bed for index, ward in enumerate(layout) for bed in _beds(index, *ward))
    staff = tuple(_staff(name))
    services: dict[str, int] = {}
    for _, service, count in layout:
        services[service] = services.get(service, 0) + count
    house = House(
        id=facility,
        beds=beds,
        nurses=tuple(sorted(_shifts(staff, first_day, last_day), key=lambda one: (one.starts, one.ref))),
        theatres=tuple(Theatre(f"OR{index:02d}", 480, 900.0) for index in range(1, _THEATRES[name] + 1)),
        weights=WEIGHTS,
    )
    return Premises(name, house, staff, services)


def bed_price(service: str) -> float:
    return _PRICES.get(service, _PRICE)


def _beds(index: int, unit: str, service: str, count: int) -> Iterator[Bed]:
    """Single rooms for one bed in six, rooms of four for one in three, the rest in twos; intensive care in single
    rooms. Two single rooms of a ward have an anteroom (airborne precautions); every other room has oxygen, every fourth
    monitors, cardiology's all; one bed carries any weight."""
    x, y = 60.0 * (index % 5), 40.0 * (index // 5)
    singles = count if service == "ICU" else count // 6
    fours = 0 if service == "ICU" else count // 12
    singles += (count - singles) % 2
    sizes = [1] * singles + [2] * ((count - singles - 4 * fours) // 2) + [4] * fours
    for number, size in enumerate(sizes):
        features = set()
        if service == "ICU":
            features |= {"monitor", "oxygen", "ventilator"}
        if number < 2 or (service == "ICU" and number % 4 == 0):
            features.add("airborne")
        if number % 2 == 0:
            features.add("oxygen")
        if service == "CAR" or number % 4 == 1:
            features.add("monitor")
        if service == "PED":
            features.add("child")
        for letter in "ABCD"[:size]:
            room = f"{number + 1:02d}"
            yield Bed(
                id=f"{unit}|{room}|{letter}",
                unit=unit,
                room=room,
                services=frozenset((service,)),
                features=frozenset(features | ({"bariatric"} if number == singles and letter == "A" else set())),
                position=(x + 4.0 * (number // 2), y + 3.0 * (number % 2)),
                price=bed_price(service) * (1.25 if size == 1 and service != "ICU" else 1.0),
            )


def _staff(name: str) -> Iterator[Member]:
    """Nurses go to the wards by the load of their beds, those of intensive care with more skill; the same persons in
    every run."""
    nurses, surgeons, porters = _STAFF[name]
    people = iter(make_staff(Random(f"wardstream staff {name}"), nurses + surgeons + porters, chinese=False))  # noqa: S311
    rng = Random(f"wardstream skills {name}")  # noqa: S311 - a model, no secret
    wards = [(unit, count * (_INTENSIVE if service == "ICU" else 1.0)) for unit, service, count in LAYOUTS[name]]
    total, given, upto = sum(load for _, load in wards), 0, 0.0
    for unit, load in wards:
        upto += load
        until = round(nurses * upto / total)
        for _ in range(given, until):
            skill = 2 if unit.startswith("ICU") else rng.choices((0, 1, 2), (0.3, 0.5, 0.2))[0]
            given += 1
            yield Member(f"N{given:04d}", next(people), "nurse", unit, skill)
    for role, letter, number in (("surgeon", "S", surgeons), ("porter", "P", porters)):
        for index in range(1, number + 1):
            yield Member(f"{letter}{index:04d}", next(people), role, "")


def _shifts(staff: tuple[Member, ...], first_day: int, last_day: int) -> Iterator[Nurse]:
    """Each nurse goes through the rota from a day of his or her own, so that every day has each shift filled."""
    for index, member in enumerate(one for one in staff if one.role == "nurse"):
        for day in range(first_day, last_day):
            kind = _ROTA[(day + index) % len(_ROTA)]
            if kind in _SHIFTS:
                begins, hours, load = _SHIFTS[kind]
                starts = day * 24 + begins
                yield Nurse(member.ref, starts, starts + hours, member.skill, load, frozenset((member.unit,)))
