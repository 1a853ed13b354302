"""How the cohort's outcomes come about: explicit logistic models of what its messages show, and nothing else.

So a perfect model is known: its probability is the one that each outcome was drawn with. The only thing it knows that
no message says outright is the level of illness (0 well to 4 critical) behind the vital signs, which they show with
noise.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from random import Random

from producers.simulate.complaints import (
    CANCER,
    COPD,
    DEMENTIA,
    DEPARTMENTS,
    HEART_FAILURE,
    HYPERTENSION,
    KIDNEY,
    NEUR,
    ORTH,
    SUR,
    Chronic,
    Complaint,
)

BANDS = ("0-2", "3-7", "8+")  # whole days
STEP_HOURS = 8.0  # between two sets of vital signs
STEPS_A_DAY = 3
LEVELS = 5
_ELSEWHERE = -3.0
_UP, _DOWN = (0.05, 0.10, 0.14, 0.18, 0.0), (0.0, 0.25, 0.25, 0.15, 0.10)  # chances of another level after a step


def logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def has(chronic: Chronic, age: int) -> float:
    """Chance of a long illness at an age."""
    return logistic(chronic.at_60 + chronic.per_decade * (age - 60) / 10)


def department(complaint: Complaint, age: int, conditions: Collection[str]) -> dict[str, float]:
    """Chance of each department: multinomial logit of complaint, age and long illnesses."""
    logits = {name: complaint.departments.get(name, _ELSEWHERE) for name in DEPARTMENTS}
    about = {*conditions, *(("old",) if age >= 75 else ()), *(("young",) if age < 40 else ())}
    for what, where, by in complaint.shifts:
        if what in about:
            logits[where] += by
    total = sum(math.exp(logit) for logit in logits.values())
    return {name: math.exp(logit) / total for name, logit in logits.items()}


def length_of_stay(service: str, planned: bool, score: int, age: int, conditions: Collection[str]) -> dict[str, float]:
    """Chance of each band of days: proportional odds of NEWS2 at the door (0 where planned), age and the rest."""
    x = (
        -0.9 + 0.24 * min(score, 10) + 0.022 * (age - 60) + 0.3 * min(len(conditions), 4)
        + {ORTH: 0.9, NEUR: 0.6, SUR: -0.2}.get(service, 0.2) + (0.7 if DEMENTIA in conditions else 0)
        - (0.5 if planned else 0)
    )  # fmt: skip
    three, eight = logistic(x), logistic(x - 2.1)
    return {"0-2": 1 - three, "3-7": three - eight, "8+": eight}


def readmission(age: int, conditions: Collection[str], before: int, days: int, disposition: str, home: float) -> float:
    """Chance of another inpatient stay within 30 days. `before`: stays that ended in the 365 days before this one's
    end; `disposition` is PV1-36 (03 nursing home, 07 against advice); `home` what the discharge nurse's words weigh.
    """
    return logistic(
        -3.1 + home + 0.5 * min(before, 4) + 0.9 * (HEART_FAILURE in conditions) + 0.6 * (COPD in conditions)
        + 0.5 * (KIDNEY in conditions) + 0.7 * (CANCER in conditions) + 0.3 * (age >= 75) + 0.35 * (days >= 8)
        + {"03": 0.4, "07": 1.0}.get(disposition, 0.0)
    )  # fmt: skip


def dying(age: int, burden: float) -> float:
    """Chance that a stay that went to intensive care ends in death."""
    return logistic(-1.9 + 0.035 * (age - 65) + 0.5 * burden)


# ---------------------------------------------------------------------------------------------------- deterioration


@dataclass(frozen=True, slots=True)
class Signs:
    """One set of vital signs as it is printed."""

    respiration_rate: int
    oxygen_saturation: int
    flow: int  # of oxygen, L/min
    systolic: int
    pulse: int
    consciousness: str  # A, C, V, P, U
    temperature: float

    def vitals(self) -> dict[str, float | str]:
        """In the names of NEWS2."""
        return {
            "respiration_rate": self.respiration_rate,
            "oxygen_saturation": self.oxygen_saturation,
            "oxygen": "oxygen" if self.flow else "air",
            "systolic": self.systolic,
            "pulse": self.pulse,
            "consciousness": self.consciousness,
            "temperature": self.temperature,
        }


# Level -> means of respiration, saturation, systolic, pulse and temperature; chances of oxygen and of not being alert.
_MEANS = (
    (16.0, 97.0, 126.0, 76.0, 36.8), (18.0, 96.0, 122.0, 84.0, 37.1), (21.0, 94.0, 115.0, 95.0, 37.6),
    (25.0, 91.0, 103.0, 110.0, 38.2), (30.0, 87.0, 88.0, 125.0, 38.6),
)  # fmt: skip
_SPREAD = (2.0, 1.3, 11.0, 9.0, 0.4)
_ON_OXYGEN = (0.02, 0.08, 0.35, 0.75, 0.97)
_NOT_ALERT = (0.005, 0.02, 0.06, 0.2, 0.5)
# What is normal for some: their saturation lies lower, their pressure higher, and that alone is no risk to them.
_LOWER_SATURATION, _HIGHER_PRESSURE = 5, 16


def signs(rng: Random, level: int, conditions: Collection[str]) -> Signs:
    """What a patient of that level shows."""
    respiration, saturation, systolic, pulse, temperature = (
        rng.gauss(mean, spread) for mean, spread in zip(_MEANS[level], _SPREAD, strict=True)
    )
    flow = rng.choice((1, 2, 2, 4, 6)) + 2 * (level > 2) if rng.random() < _ON_OXYGEN[level] else 0
    state = rng.choice("CCVVP" if level < 4 else "CVVPU") if rng.random() < _NOT_ALERT[level] else "A"
    return Signs(
        respiration_rate=max(6, round(respiration)),
        oxygen_saturation=min(100, round(saturation)) - (_LOWER_SATURATION if COPD in conditions else 0),
        flow=flow,
        systolic=max(55, round(systolic)) + (_HIGHER_PRESSURE if HYPERTENSION in conditions else 0),
        pulse=max(35, round(pulse)),
        consciousness=state,
        temperature=round(temperature, 1),
    )


def burden(age: int, conditions: Collection[str]) -> float:
    """What age and long illnesses add to the logit of deterioration."""
    return (
        0.02 * (age - 65)
        + 0.5 * (HEART_FAILURE in conditions)
        + 0.4 * (KIDNEY in conditions)
        + 0.6 * (CANCER in conditions)
    )


def hazard(shown: Signs, conditions: Collection[str], weighs: float) -> float:
    """Chance of going to intensive care before the next set of vital signs, from this one and the patient's burden."""
    saturation = shown.oxygen_saturation + (_LOWER_SATURATION if COPD in conditions else 0)
    systolic = shown.systolic - (_HIGHER_PRESSURE if HYPERTENSION in conditions else 0)
    return logistic(_strain(shown, saturation, systolic) + weighs)


def _strain(shown: Signs, saturation: int, systolic: int) -> float:
    return (
        -6.5 + 0.16 * max(0, shown.respiration_rate - 18) + 0.14 * max(0, 95 - saturation)
        + 0.02 * max(0, shown.pulse - 90) + 0.03 * max(0, 110 - systolic) + 0.9 * (shown.consciousness != "A")
        + 0.5 * (shown.flow > 0)
    )  # fmt: skip


def step(rng: Random, level: int) -> int:
    """The level at the next set of vital signs."""
    chance = rng.random()
    if chance < _UP[level]:
        return level + 1
    return level - 1 if chance < _UP[level] + _DOWN[level] else level


def within_a_day(level: int, now: float, steps: int, weighs: float) -> float:
    """Chance of going to intensive care within 24 hours of a set of vital signs, at its level and with its hazard
    `now`: `steps` (3 at most) sets from this one on at which it can happen.
    """
    return 1 - (1 - now) * _spared(round(weighs, 1), steps - 1)[level] if steps else 0.0


@cache
def _spared(weighs: float, steps: int) -> tuple[float, ...]:
    """By level now, the chance that none of the next `steps` sets of vital signs leads to intensive care."""
    if steps <= 0:
        return (1.0,) * LEVELS
    mean = [
        sum(1 - logistic(strain + weighs) for strain in _strains(level)) / len(_strains(level))
        for level in range(LEVELS)
    ]
    later = _spared(weighs, steps - 1)
    return tuple(
        _UP[level] * mean[min(level + 1, LEVELS - 1)] * later[min(level + 1, LEVELS - 1)]
        + _DOWN[level] * mean[max(level - 1, 0)] * later[max(level - 1, 0)]
        + (1 - _UP[level] - _DOWN[level]) * mean[level] * later[level]
        for level in range(LEVELS)
    )


@cache
def _strains(level: int) -> tuple[float, ...]:
    """What vital signs of a level add up to, 2,000 times."""
    rng = Random(f"wardstream strains {level}")  # noqa: S311 - a model, no secret
    drawn = (signs(rng, level, ()) for _ in range(2_000))
    return tuple(_strain(one, one.oxygen_saturation, one.systolic) for one in drawn)
