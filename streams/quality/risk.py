"""What an outcome hangs on: rows that a model learns from, and whether what it says still comes true. Pure.

A row is a case as it begins: its factors (streams/quality/cases.py) and, later, whether the outcome came. The unit is
no factor, since a risk that knows the unit would excuse it; it is a group to be judged apart. A factor that nobody has
told is `missing=<name>`, never 0 (streams.learn.Table says what an estimator makes of it).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from infra.errors import BadOutcome
from schemas.envelope import later
from streams.models import drift
from streams.quality import cases
from streams.quality.cases import HORIZON, READMITTED_30D, Case, Person
from streams.rows import MISSING, YES, Features, Row

TARGETS = cases.DERIVED  # besides whatever outcome is told
AGO = timedelta(days=30)  # a case that began later is left out: of those the short stays alone would be known
NO = "no"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")

# Limits of a funnel plot: about 1 in 20 and 1 in 500 by chance (Spiegelhalter, Statistics in Medicine 24, 2005).
WARNING, ACTION = 1.959964, 3.090232
ENOUGH = 5  # expected with the outcome, and without it: below it z is no normal variable (Cochran, Biometrics 10, 1954)
FEW, STEADY, WARN, DRIFTED = "too_few", "steady", "warning", "drifted"


def model_of(measure: str) -> str:
    """The name of a measure's model. An outcome is told in any word, a model has small letters of ASCII."""
    if _NAME.fullmatch(measure):
        return measure
    plain = re.sub(r"[^a-z0-9_-]+", "_", measure.lower()).strip("_")[:32]
    return f"told_{plain}_{hashlib.sha256(measure.encode()).hexdigest()[:8]}"


def told(people: Iterable[Person]) -> list[str]:
    """Every measure that somebody has told of a case."""
    return sorted({name for person in people for case in person.cases for name in case.told})


def features(case: Case) -> dict[str, float | str]:
    """What a model sees of a case: numbers, words as `sex=F`, and `missing=` of each factor that is not known."""
    made: dict[str, float | str] = {}
    for name in cases.FACTORS:
        match case.factors.get(name):
            case None:
                made[f"{MISSING}{name}"] = 1.0
            case str(word):
                made[f"{name}={word}"] = 1.0
            case number:
                made[name] = float(number)
    return made


def rows(measure: str, people: Sequence[Person], until: str) -> list[Row]:
    """A labelled row of each case that the measure counts and whose outcome is due by `until`.

    Cases of the last days are left out whatever their outcome: those that ended early would be counted and others not.
    Of a site that has fallen silent, the last days are those before its last event.
    """
    ends: dict[str, str] = {}
    for case in (case for person in people for case in person.cases):
        ends[case.site] = max(ends.get(case.site, ""), min(case.known, until))
    return [
        Row(features(case), YES if event else NO, case.person, case.begun, groups=groups(case))
        for person in people
        for case, event in _due(measure, person, ends)
    ]


def _due(measure: str, person: Person, ends: Mapping[str, str]) -> Iterator[tuple[Case, bool]]:
    known = {one.record: one for one in person.cases}
    span = AGO + (HORIZON if measure == READMITTED_30D else timedelta())
    for one in cases.measured(person):
        case = known[one.record]
        if one.measure == measure and one.due <= (end := ends[case.site]) and later(case.begun, span) <= end:
            yield case, one.event


def groups(case: Case) -> tuple[str, ...]:
    """What a model is judged apart on, besides sex and age."""
    diabetes = case.factors.get("diabetes")
    return (f"unit={case.unit}", *((f"diabetes={diabetes}",) if diabetes is not None else ()))


# --------------------------------------------------------------------------------------------------------------- drift


@dataclass(frozen=True, slots=True)
class CalibrationDrift:
    """Outcomes that came, to those that were expected. `ratio` is their quotient, with its 95% interval.

    `z` is calibration in the large: how many standard errors more came than expected. `state`: too_few, steady,
    warning, drifted.
    """

    cases: int
    observed: int
    expected: float
    ratio: float | None
    low: float | None
    high: float | None
    z: float | None
    state: str


def calibration_drift(risks: Sequence[float], events: Sequence[bool]) -> CalibrationDrift:
    """Whether the last cases of a model version had their outcome as often as it said.

    z = (O - E) / sqrt(sum p(1 - p)) is the score test of an intercept of 0 in logit(event) = a + logit(p) (Cox,
    Biometrika 45, 1958; Miller et al., Medical Decision Making 13, 1993). The interval holds every ratio r that
    the same test of risks r p lets stand, so it excludes 1 just where |z| > 1.96; of equal risks it is Wilson's (JASA
    22, 1927). Limits are WARNING and ACTION. Whoever looks again with every case will see WARNING often.

    It tells that risks and outcomes part, not why: a ward that got worse looks as a model that grew old. Raises
    BadOutcome for a risk that is none, ValueError for sequences that are not alike.
    """
    if len(risks) != len(events):
        raise ValueError("calibration wants a risk for each outcome")
    if any(not 0 <= one <= 1 for one in risks):  # NaN is not
        raise BadOutcome("bad_risk")
    n, observed, expected = len(risks), sum(map(bool, events)), math.fsum(risks)
    squares = math.fsum(one * one for one in risks)
    spread = math.sqrt(max(0.0, expected - squares))
    ratio = low = high = None
    if expected > 0:
        ratio = observed / expected
        low, high = _interval(observed, expected, squares)
    z = (observed - expected) / spread if spread > 0 else None
    state = STEADY
    if z is None or min(expected, n - expected) < ENOUGH:
        state = FEW
    elif abs(z) > WARNING:
        state = DRIFTED if abs(z) > ACTION else WARN
    return CalibrationDrift(n, observed, expected, ratio, low, high, z, state)


def _interval(observed: int, expected: float, squares: float) -> tuple[float, float]:
    """Both ends of (O - rE)^2 = z^2 (rE - r^2 sum p^2)."""
    z2 = WARNING**2
    a, b, c = expected**2 + z2 * squares, -(2 * observed + z2) * expected, float(observed**2)
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return max(0.0, (-b - root) / (2 * a)), (-b + root) / (2 * a)


def missing_drift(known: Mapping[str, float], seen: Sequence[Features]) -> dict[str, float]:
    """By `missing:<feature>`, how far the share of cases that lack it is from the card's (streams.models.drift).

    Above 0.25 a feed has changed. Raises ValueError where nothing was seen.
    """
    made = {}
    for name in cases.FACTORS:
        share = sum(f"{MISSING}{name}" in one for one in seen) / len(seen) if seen else math.nan
        before = known.get(name, 0.0)
        made[f"missing:{name}"] = drift((before, 1 - before), (share, 1 - share))
    return made
