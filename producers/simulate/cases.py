"""Cases whose truth is known: operations events of type case, death and outcome, drawn from models stated here.

With a = (age - 65) / 10 and s = (systolic - 130) / 20 the log odds are

    death_in_hospital     -4.6 + 0.45 a + 0.3 male + 0.5 diabetes + 0.3 smoker + 0.8 emergency
                          + 0.5 min(s^2, 6)                      low and high pressure are both worse
                          + 1.5 [diabetes and bmi >= 32] + 1.2 [emergency and age >= 80]
    death after discharge -4.2 + 0.5 a + 0.4 diabetes                       within 30 days of the beginning
    readmission           -2.4 + 0.15 a + 0.6 diabetes + 0.4 emergency      within 30 days of a discharge alive
    wound_infection       -2.9 + 0.7 diabetes + 0.8 smoker + 0.08 (bmi - 27)        of operations, told on day 5

The lines of pressure, obesity and age together are what no logistic regression of the factors can say; the other three
outcomes are logistic. In `Worse.unit` the odds of death in hospital are multiplied by `odds_ratio` from `since` on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from schemas.envelope import rfc3339
from streams.quality.cases import DIED_30D, DIED_IN_HOSPITAL, READMITTED_30D

SITE = "SIM"
UNITS = ("CARD", "ORTH", "SURG", "MED")
INFECTION, AFTER = "wound_infection", "death_after_discharge"
PROCEDURES = {"CARD": ("CABG", "VALVE"), "ORTH": ("HIP", "KNEE"), "SURG": ("COLON", "GALLBLADDER")}
MISSING = ("systolic", "bmi", "smoker")  # which a ward at times does not write down
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Worse:
    """A unit in which more die from a day on."""

    unit: str
    since: datetime
    odds_ratio: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """One case: what a hospital tells of it, and the chance that each of its outcomes had."""

    number: str
    truth: dict[str, float]
    events: list[Event] = field(repr=False)

    def lines(self) -> Iterator[Event]:
        """The truth as `simulate --truth` writes it."""
        for measure, chance in self.truth.items():
            yield {"id": self.number, "target": measure, "probability": round(chance, 6)}


def cases(
    n: int,
    seed: int,
    units: Sequence[str],
    since: datetime,
    days: int = 730,
    worse: Worse | None = None,
    corrections: float = 0.0,
    repeats: float = 0.0,
) -> Iterator[Event]:
    """Events of n cases over so many days, in order of their time; see `draw` for those that come late or twice."""
    return in_order(draw(n, seed, units, since, days, worse, corrections, repeats))


def in_order(drawn: Sequence[Drawn]) -> Iterator[Event]:
    yield from sorted((event for one in drawn for event in one.events), key=lambda event: event["at"])


def draw(
    n: int,
    seed: int,
    units: Sequence[str],
    since: datetime,
    days: int = 730,
    worse: Worse | None = None,
    corrections: float = 0.0,
    repeats: float = 0.0,
) -> list[Drawn]:
    """The cases themselves. Of a share `corrections` some ward corrects the age, or whether an infection came, ten days
    after the discharge; a share `repeats` of the events is told twice. A readmission is a case of its own among the n.

    Truth of death_30d: that of dying in hospital within 30 days, or after.
    """
    made: list[Drawn] = []
    patient = 0
    while len(made) < n:
        patient += 1
        # Of each patient, so that a death more changes nobody else's story.
        rng = random.Random(f"wardstream cases {seed} {patient}")  # noqa: S311 - a model, no secret
        known = _factors(rng, rng.choice(list(units)))
        least = since + timedelta(seconds=rng.randrange(days * 86_400))
        begun: datetime | None = least
        while begun is not None and len(made) < n:
            first = begun
            one, begun = _case(rng, f"C{len(made) + 1:06}", f"S{patient:06}", known, begun, least, worse, corrections)
            least = first + timedelta(days=31)
            one.events.extend([event for event in one.events if rng.random() < repeats])
            made.append(one)
            known = known | {"admission_type": "E"}  # if the patient comes back
    return made


def _factors(rng: random.Random, unit: str) -> dict[str, Any]:
    bmi = min(55.0, max(15.0, rng.gauss(27.5, 5)))
    emergency = rng.random() < 0.5
    operated = unit in PROCEDURES and rng.random() < 0.75
    return {
        "unit": unit,
        "procedure": rng.choice(PROCEDURES[unit]) if operated else "",
        "admission_type": "E" if emergency else "C",
        "sex": rng.choice("FM"),
        "age": round(min(90.0, max(18.0, rng.gauss(66, 14)))),
        "diabetes": rng.random() < (0.3 if bmi >= 30 else 0.15),
        "smoker": rng.random() < 0.22,
        "systolic": round(min(240.0, max(65.0, rng.gauss(134, 24)))),
        "bmi": round(bmi, 1),
    }


def chances(known: dict[str, Any]) -> dict[str, float]:
    """The log odds above, as chances; death_30d is not among them, since it hangs on how long the stay was."""
    age, systolic = (known["age"] - 65) / 10, (known["systolic"] - 130) / 20
    diabetes, emergency = known["diabetes"], known["admission_type"] == "E"
    plain = 0.45 * age + 0.3 * (known["sex"] == "M") + 0.5 * diabetes + 0.3 * known["smoker"] + 0.8 * emergency
    bent = (
        0.5 * min(systolic**2, 6) + 1.5 * (diabetes and known["bmi"] >= 32) + 1.2 * (emergency and known["age"] >= 80)
    )
    return {
        DIED_IN_HOSPITAL: _chance(-4.6 + plain + bent),
        AFTER: _chance(-4.2 + 0.5 * age + 0.4 * diabetes),
        READMITTED_30D: _chance(-2.4 + 0.15 * age + 0.6 * diabetes + 0.4 * emergency),
        INFECTION: _chance(-2.9 + 0.7 * diabetes + 0.8 * known["smoker"] + 0.08 * (known["bmi"] - 27)),
    }


def _case(
    rng: random.Random,
    number: str,
    patient: str,
    known: dict[str, Any],
    begun: datetime,
    least: datetime,
    worse: Worse | None,
    corrections: float,
) -> tuple[Drawn, datetime | None]:
    """One case, which ends at `least` or later, and when the patient is back, if so.

    Who came back stays until 31 days after the first admission at least: else a death in the second stay would be one
    within 30 days of the first, and the chance of that would not be what is written here.
    """
    chance = chances(known)
    dying = chance[DIED_IN_HOSPITAL]
    if worse is not None and known["unit"] == worse.unit and begun >= worse.since:
        odds = worse.odds_ratio * dying / (1 - dying)
        dying = odds / (1 + odds)
    stay = max(timedelta(days=min(60.0, 0.5 + rng.expovariate(1 / 6))), least - begun)
    ended, died = begun + stay, rng.random() < dying
    month = timedelta(days=30)
    # A day is kept clear at the end of each month, so that no rounding of dates decides an outcome.
    later = not died and stay < month - timedelta(days=3) and rng.random() < chance[AFTER]
    within = dying if stay <= month else 0.0
    after = (1 - dying) * chance[AFTER] if stay < month - timedelta(days=3) else 0.0
    truth = {DIED_IN_HOSPITAL: dying, DIED_30D: within + after}
    back = None
    if not died and not later:
        truth[READMITTED_30D] = chance[READMITTED_30D]
        if rng.random() < chance[READMITTED_30D]:
            back = ended + timedelta(days=rng.uniform(1, 29))
    events = [_event("case", number, patient, begun, admitted_at=rfc3339(begun), **_told(rng, known))]
    left = {"discharged_at": rfc3339(ended), "discharge_disposition": "20" if died else "01"}
    events.append(_event("case", number, patient, ended, **left))
    if died or later:
        at = ended if died else begun + timedelta(days=rng.uniform(stay / timedelta(days=1) + 1, 29))
        events.append(_event("death", number, patient, at, died_at=rfc3339(at)))
    if known["procedure"]:
        truth[INFECTION] = chance[INFECTION]
        came, told = rng.random() < chance[INFECTION], max(ended, begun + timedelta(days=5))
        corrected = rng.random() < corrections
        events.append(_event("outcome", number, patient, told, measure=INFECTION, event=came is not corrected))
        if corrected:
            at = told + timedelta(days=10)
            events.append(_event("outcome", number, patient, at, measure=INFECTION, event=came))
    elif rng.random() < corrections:
        events[0]["age"] = max(18, known["age"] - 10)
        events.append(_event("case", number, patient, ended + timedelta(days=10), age=known["age"]))
    return Drawn(number, truth, events), back


def _told(rng: random.Random, known: dict[str, Any]) -> dict[str, Any]:
    """What the ward writes down: now and then not all."""
    return {
        name: value for name, value in known.items() if value != "" and not (name in MISSING and rng.random() < 0.05)
    }


def _event(kind: str, number: str, patient: str, at: datetime, **said: Any) -> Event:
    return {"type": kind, "site": SITE, "id": number, "at": rfc3339(at), "patient_number": patient, **said}


def _chance(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
