"""Who comes to a hospital, when and with what needs, and what the hospital has: the part of a history that no policy
changes. Pure; times are hours since the history's beginning, prices and loads as in `site.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from streams.allocation.site import Bed, Nurse, Theatre, Weights

SHORTEST = 1.0  # hours of a stay, and what a ward expects at least of somebody who is still there


@dataclass(frozen=True, slots=True)
class Phase:
    """What a patient needs from `at` hours after the first bed on: intensive care ends, a swab is positive."""

    at: float
    service: str  # PV1-10
    needs: frozenset[str] = frozenset()
    isolation: str = ""
    load: float = 1.0
    skill: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One patient, with everything that will be true of the stay wherever it is spent.

    The stay lasts `hours` from its first bed on, to the nearest `leaves_at` o'clock (None: exactly). `expected` is the
    length of stay as the ward expects it on day 0, 1, ... of it, its last value from then on: no policy sees `hours`.
    """

    ref: str
    patient: str
    at: float
    hours: float
    phases: tuple[Phase, ...]  # the first from 0.0
    expected: tuple[float, ...]
    priority: int = 3  # 1 to 3
    sex: str = ""
    age: int | None = None
    due: float | None = None  # hours after `at`
    leaves_at: float | None = None  # hour of the day
    elective: bool = False
    surgeon: str = ""
    minutes: int = 0

    def ends(self, placed: float) -> float:
        """When the stay that got its bed at `placed` is over."""
        end = placed + self.hours
        if self.leaves_at is None:
            return end
        end = math.floor((end - self.leaves_at) / 24 + 0.5) * 24 + self.leaves_at
        return end if end >= placed + SHORTEST else end + 24


@dataclass(frozen=True, slots=True)
class House:
    """What a site is made of, whoever lies in it. `nurses` are all shifts, by their beginning."""

    id: str
    beds: tuple[Bed, ...]
    nurses: tuple[Nurse, ...] = ()
    theatres: tuple[Theatre, ...] = ()
    weights: Weights = field(default_factory=Weights)
    cleaning: float = 0.75  # hours after a patient has left a bed
    cleaning_isolated: float = 2.0
