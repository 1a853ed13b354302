"""Who comes to the simulated hospital: emergencies by the hour, weekday, season and a surge; planned stays by weekday;
with how long they stay, what they need, and how wrong everybody is about it.

Emergencies are a non-homogeneous Poisson process, drawn by thinning (Lewis and Shedler 1979,
doi:10.1002/nav.3800260304); stays are log-normal (one of the shapes that fit: Marazzi et al. 1998,
doi:10.1097/00005650-199806000-00014). Every number is made up and no hospital's. Pure: the same arguments give the same
patients, and whoever comes in the first days of a long demand comes in a short one too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import count
from random import Random

from producers.simulate.wards import SETTLED_DAYS, Premises
from streams.allocation.demand import Arrival, Phase

BEGIN = date(2024, 1, 1)  # a Monday in winter
OCCUPANCY = 0.84  # of the beds of each service, on an average day of the year without a surge
_SPARE = {"ICU": 0.72, "PED": 0.7}  # of that where no other ward can help out
SURGE_DAY, SURGE_DAYS, SURGE = 9, 14, 0.25  # begins, lasts, and how much more comes at its height
_MOST_DAYS = 60.0  # a stay
# Of bed requests of an emergency department by hour of the day, and by weekday from Monday; each has the mean 1.
_HOURLY = (
    0.62, 0.52, 0.45, 0.40, 0.38, 0.40, 0.48, 0.62, 0.85, 1.08, 1.28, 1.42, 1.48, 1.48, 1.45, 1.42, 1.40, 1.38, 1.32,
    1.22, 1.10, 0.98, 0.85, 0.72,
)  # fmt: skip
_HOURLY_MEAN = sum(_HOURLY) / 24
_WEEKDAYS = (1.10, 1.03, 1.00, 0.99, 1.00, 0.94, 0.94)
_PLANNED = (1.5, 1.5, 1.4, 1.3, 0.8, 0.1, 0.4)
_DUE = {1: 1.0, 2: 4.0, 3: 12.0}  # hours by which an emergency must have its bed; planned stays have six
_MRSA, _DIARRHOEA, _TB, _FLU, _FLU_OF_SURGE = 0.03, 0.015, 0.003, 0.015, 0.5
_FOUND, _WORSE, _DIES = 0.03, 0.01, 0.12  # a swab is positive on the ward; to intensive care; dies there
_ERROR, _MEMORY = 0.45, 0.8  # log error of what is left of a stay, and how much of it the next day's has
_BEGINS, _ENDS = 7.0, 10.0  # o'clock at which planned stays begin


@dataclass(frozen=True, slots=True)
class Profile:
    """A service: median days and their log's deviation, share planned, share of women, age and its deviation, how much
    more comes in winter than on average, and how far the surge reaches it."""

    median: float
    sigma: float
    planned: float
    women: float
    age: float
    spread: float
    winter: float
    surge: float

    @property
    def mean(self) -> float:
        return self.median * math.exp(self.sigma**2 / 2)


PROFILES = {
    "ICU": Profile(2.2, 0.80, 0.00, 0.42, 63, 16, 0.08, 0.6),
    "MED": Profile(4.0, 0.80, 0.08, 0.50, 66, 17, 0.10, 1.0),
    "CAR": Profile(3.2, 0.75, 0.30, 0.42, 68, 13, 0.08, 0.2),
    "PUL": Profile(4.8, 0.75, 0.10, 0.46, 66, 14, 0.22, 1.0),
    "SUR": Profile(3.0, 0.80, 0.55, 0.48, 58, 18, 0.02, 0.0),
    "ORT": Profile(4.0, 0.70, 0.60, 0.56, 62, 19, 0.04, 0.0),
    "NEU": Profile(4.5, 0.90, 0.20, 0.48, 66, 17, 0.03, 0.0),
    "URO": Profile(2.4, 0.70, 0.60, 0.25, 64, 16, 0.00, 0.0),
    "GYN": Profile(2.0, 0.60, 0.60, 1.00, 47, 17, 0.00, 0.0),
    "ONC": Profile(4.2, 0.90, 0.60, 0.52, 63, 14, 0.00, 0.0),
    "GER": Profile(9.0, 0.60, 0.05, 0.62, 84, 6, 0.10, 0.8),
    "PED": Profile(2.0, 0.80, 0.25, 0.47, 6, 5, 0.18, 0.5),
}


@dataclass(frozen=True, slots=True)
class Demand:
    """The arguments of a demand. `begin` says which weekday and season hour zero is; `occupancy` how many come."""

    premises: Premises
    seed: int
    days: int
    begin: date = BEGIN
    occupancy: float = OCCUPANCY

    def arrivals(self) -> tuple[Arrival, ...]:
        """Everybody, from SETTLED_DAYS before hour zero on, in the order of coming."""
        found: list[Arrival] = []
        for service in self.premises.services:
            rng = Random(f"wardstream demand {self.seed} {service}")  # noqa: S311 - a model, no secret
            found += _emergencies(self, service, rng)
            rng = Random(f"wardstream planned {self.seed} {service}")  # noqa: S311
            found += _planned(self, service, rng)
        found.sort(key=lambda one: (one.at, one.ref))
        return tuple(found)

    def patients(self, service: str) -> float:
        """How many come for this service on an average day, planned or not.

        Some come to intensive care from a ward, and it hands those who live on to the wards: neither come again.
        """
        wards, worse = self.wards(), _WORSE * (1 - _FOUND)
        if service not in ("ICU", *wards):
            return self._full(service)
        to_wards = 1 - _DIES
        intensive = (self._full("ICU") - worse * sum(map(self._full, wards))) / (1 - worse * to_wards)
        if service == "ICU":
            return intensive
        return self._full(service) - intensive * to_wards * wards[service] / sum(wards.values())

    def _full(self, service: str) -> float:
        """Stays a day that fill the beds of a service as far as they should be."""
        return self.occupancy * _SPARE.get(service, 1.0) * self.premises.services[service] / PROFILES[service].mean

    def rate(self, service: str, hour: float) -> float:
        """Emergencies an hour at this hour."""
        return self.patients(service) * (1 - PROFILES[service].planned) / 24 * self.shape(service, hour)

    def shape(self, service: str, hour: float) -> float:
        """How much more or less than on average come at this hour."""
        return self._usual(service, hour) * (1 + self.surge(service, hour))

    def surge(self, service: str, hour: float) -> float:
        """How much more comes: a wave that rises and falls as a raised cosine does."""
        into = (hour / 24 - SURGE_DAY) / SURGE_DAYS
        return SURGE * PROFILES[service].surge * (1 - math.cos(2 * math.pi * into)) / 2 if 0 < into < 1 else 0.0

    def planned(self, service: str, day: int) -> float:
        """Planned stays that begin on this day."""
        return self.patients(service) * PROFILES[service].planned * _PLANNED[(self.begin.weekday() + day) % 7]

    def _usual(self, service: str, hour: float) -> float:
        day = math.floor(hour / 24)
        middle_of_january = (self.begin.timetuple().tm_yday + day - 15) / 365.25
        return (
            _HOURLY[int(hour - day * 24)] / _HOURLY_MEAN
            * _WEEKDAYS[(self.begin.weekday() + day) % 7]
            * (1 + PROFILES[service].winter * math.cos(2 * math.pi * middle_of_january))
        )  # fmt: skip

    def wards(self) -> dict[str, int]:
        """Services that patients of intensive care come from and go to."""
        return {service: beds for service, beds in self.premises.services.items() if service not in ("ICU", "PED")}


def _emergencies(demand: Demand, service: str, rng: Random) -> Iterator[Arrival]:
    profile, hour, number = PROFILES[service], -24.0 * SETTLED_DAYS, count(1)
    most = max(_HOURLY) / _HOURLY_MEAN * max(_WEEKDAYS) * (1 + profile.winter) * (1 + SURGE * profile.surge)
    mean = demand.patients(service) * (1 - profile.planned) / 24
    while (hour := hour + rng.expovariate(mean * most)) < demand.days * 24:
        if rng.random() * most < demand.shape(service, hour):
            surge = demand.surge(service, hour)
            yield _patient(demand, service, f"E{service}{next(number):06d}", hour, False, surge / (1 + surge), rng)


def _planned(demand: Demand, service: str, rng: Random) -> Iterator[Arrival]:
    number = count(1)
    for day in range(-SETTLED_DAYS, demand.days):
        for _ in range(_poisson(rng, demand.planned(service, day))):
            hour = day * 24 + rng.uniform(_BEGINS, _ENDS)
            yield _patient(demand, service, f"W{service}{next(number):06d}", hour, True, 0.0, rng)


def _patient(demand: Demand, service: str, ref: str, at: float, planned: bool, surging: float, rng: Random) -> Arrival:
    """`surging`: the chance that the surge brought this one."""
    profile = PROFILES[service]
    isolation = _isolation(rng, surging)
    phases, hours, dies = _course(demand, service, isolation, rng)
    minutes = round(rng.lognormvariate(math.log(80), 0.5)) if planned and service in ("SUR", "ORT", "URO", "GYN") else 0
    priority = 3 if planned else 1 if service == "ICU" else rng.choices((1, 2, 3), (0.06, 0.54, 0.40))[0]
    least, oldest = (0, 15) if service == "PED" else (65 if service == "GER" else 16, 98)
    return Arrival(
        ref=ref,
        patient=f"patient-{ref}",
        at=at,
        hours=hours,
        phases=phases,
        expected=_expected(rng, hours),
        priority=priority,
        sex="F" if rng.random() < profile.women else "M",
        age=min(90, round(min(oldest, max(least, rng.gauss(profile.age, profile.spread))))),
        due=6.0 if planned else _DUE[priority],
        leaves_at=None if dies else min(20.0, max(8.0, rng.gauss(14.0, 2.2))),
        elective=planned,
        surgeon=rng.choice(demand.premises.surgeons()).ref if minutes else "",
        minutes=minutes,
    )


def _isolation(rng: Random, surging: float) -> str:
    """What a patient is known to have on coming."""
    if rng.random() < surging:
        return "influenza" if rng.random() < _FLU_OF_SURGE else ""
    draw = rng.random()
    for kind, share in (("MRSA", _MRSA), ("CDIFF", _DIARRHOEA), ("TB", _TB), ("influenza", _FLU)):
        if draw < share:
            return kind
        draw -= share
    return ""


def _course(demand: Demand, service: str, isolation: str, rng: Random) -> tuple[tuple[Phase, ...], float, bool]:
    """The phases of a stay, its hours, and whether it ends in death."""
    stay = 24 * _days(rng, service)
    load = round(rng.lognormvariate(0.0, 0.25), 1)
    needs = frozenset(
        name for name, share in (("oxygen", 0.18), ("monitor", 0.10), ("bariatric", 0.01)) if rng.random() < share
    )
    if service != "ICU":
        phases = [_ward(0.0, service, needs, isolation, load)]
        if not isolation and rng.random() < _FOUND:
            phases.append(_ward(min(stay * 0.9, rng.uniform(20, 60)), service, needs, "MRSA", load))
        elif service != "PED" and rng.random() < _WORSE:
            worse, better = stay * 0.3, stay * 0.3 + 24 * _days(rng, "ICU")
            phases += [_intensive(worse, isolation), _ward(better, service, needs, isolation, load)]
            stay += better - worse
        return tuple(phases), stay, False
    if rng.random() < _DIES:
        return (_intensive(0.0, isolation),), stay, True
    wards = demand.wards()
    service = rng.choices(list(wards), list(wards.values()))[0]
    if service == "GYN":  # its patients are women, whoever comes to intensive care is not
        service = "MED"
    phases = [_intensive(0.0, isolation), _ward(stay, service, needs, isolation, load)]
    return tuple(phases), stay + 24 * _days(rng, service), False


def _ward(at: float, service: str, needs: frozenset[str], isolation: str, load: float) -> Phase:
    more = {"child"} if service == "PED" else set()
    if service == "CAR":
        more.add("monitor")
    if isolation == "TB":
        more.add("airborne")
    if service == "PED" or isolation == "TB":  # no bed has all of these at once
        needs = frozenset()
    elif needs >= {"oxygen", "monitor"} or "bariatric" in needs:
        needs = frozenset({"bariatric" if "bariatric" in needs else "monitor"})
    if service == "CAR":
        needs -= {"bariatric"}
    return Phase(at, service, needs | more, isolation, load, 0 if load < 1.3 else 1)


def _intensive(at: float, isolation: str) -> Phase:
    return Phase(at, "ICU", frozenset({"ventilator"}), isolation, 3.0, 2)


def _days(rng: Random, service: str) -> float:
    profile = PROFILES[service]
    return min(_MOST_DAYS, rng.lognormvariate(math.log(profile.median), profile.sigma))


def _expected(rng: Random, hours: float) -> tuple[float, ...]:
    """The length of the stay as the ward expects it on each of its days: what is truly left, wrong by a factor, and
    wrong the next day much as today."""
    error, found = rng.gauss(0, 1), []
    for day in range(math.ceil(hours / 24) + 1):
        found.append(day * 24 + max(2.0, hours - day * 24) * math.exp(_ERROR * error))
        error = _MEMORY * error + math.sqrt(1 - _MEMORY**2) * rng.gauss(0, 1)
    return tuple(found)


def _poisson(rng: Random, mean: float) -> int:
    """Knuth's product of uniforms; means here are below some twenty."""
    limit, product, found = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        found += 1
    return found
