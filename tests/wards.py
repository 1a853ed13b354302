"""A small seeded hospital to learn from: people who come by the hour of the week, stay log-normally long and leave by
day; machines whose use has a pattern. Its truth is known, so that what is learned can be held against it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.envelope import rfc3339
from streams.allocation.forecast import Placed
from streams.ehr.targets import Happened

START = datetime(2025, 1, 6, tzinfo=UTC)  # a Monday
HOUR = timedelta(hours=1)

SERVICES = {"MED": (96.0, 0.7), "SUR": (60.0, 0.6), "CAR": (40.0, 0.8)}  # median hours, sigma of the logarithm
UNITS = {"MED": "A", "SUR": "B", "CAR": "C"}


@dataclass(frozen=True)
class Lain:
    """One stay of the made-up hospital. `estimate`: when the ward thought at the beginning that it would end."""

    patient: str
    service: str
    age: int
    since: datetime
    until: datetime
    estimate: datetime | None

    @property
    def placed(self) -> Placed:
        return Placed(UNITS[self.service], self.since, self.until)


def stays(days: int, seed: int = 1, per_day: float = 12.0, *, told: bool = True) -> list[Lain]:
    """More come by day and in the first half of the week; an older person stays longer; nobody leaves at night."""
    rng = random.Random(seed)
    made = []
    for hour in range(days * 24):
        at = START + hour * HOUR
        rate = per_day / 24 * (1 + 0.8 * math.sin((at.hour - 8) / 24 * 2 * math.pi))
        rate *= 1.3 if at.weekday() < 4 else 0.6
        for _ in range(_poisson(rng, rate)):
            service = rng.choice(list(SERVICES))
            median, sigma = SERVICES[service]
            age = rng.randint(18, 95)
            hours = rng.lognormvariate(math.log(median * (0.7 + age / 160)), sigma)
            since = at + timedelta(minutes=rng.randint(0, 59))
            until = _by_day(rng, since + timedelta(hours=hours))
            guess = since + (until - since) * rng.lognormvariate(0, 0.35)
            made.append(Lain(f"p{len(made)}", service, age, since, until, guess if told else None))
    return made


def _by_day(rng: random.Random, at: datetime) -> datetime:
    return at if 9 <= at.hour < 18 else (at + timedelta(days=at.hour >= 18)).replace(hour=rng.randint(9, 17))


def _poisson(rng: random.Random, rate: float) -> int:
    limit, made, p = math.exp(-rate), 0, rng.random()
    while p > limit:
        made, p = made + 1, p * rng.random()
    return made


# ------------------------------------------------------------------------------------------------------------- machines

# Type: how often it is asked for in an hour of the day and of the night, hours of use, price of a use.
MACHINES = {
    "monitor": (0.15, 0.25, 6.0, 20.0),
    "pump": (0.5, 0.1, 1.5, 5.0),
    "ventilator": (0.05, 0.05, 40.0, 300.0),
}


def machines(days: int, each: int = 30, seed: int = 1) -> list[tuple[str, list[Happened]]]:
    """Events of equipment as its documents tell them: free, in use, broken at times. A dear one is used longer."""
    rng = random.Random(seed)
    made = []
    for kind, (by_day, by_night, hours, price) in MACHINES.items():
        for number in range(each):
            unit, own = rng.choice("ABC"), price * rng.uniform(0.5, 2)
            at, status, events = START + timedelta(hours=rng.uniform(0, 24)), "available", list[Happened]()
            while at < START + timedelta(days=days):
                document = {
                    "kind": "resource_event", "site": "GH", "action": "set", "resource_type": "equipment",
                    "resource_id": f"{kind}-{number}", "resource_status": status, "features": [kind], "unit": unit,
                    "price": own,
                }  # fmt: skip
                events.append(Happened(f"e{len(events)}", rfc3339(at), [document]))
                if status == "available":
                    rate = by_day if 8 <= at.hour < 20 else by_night
                    wait, status = rng.expovariate(rate * (2 if unit == "A" else 0.7)), "in-use"
                elif status == "in-use":
                    wait = rng.expovariate(1 / (hours * (own / price)))
                    status = "unavailable" if rng.random() < 0.15 else "available"
                else:
                    wait, status = rng.uniform(0.2, 3), "available"
                at += timedelta(hours=min(wait, 200))
            made.append((f"resource|GH|equipment|{kind}-{number}", events))
    return made
