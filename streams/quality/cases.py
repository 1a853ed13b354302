"""What became of patients: cases as entities keep them, to outcomes that charts count and times that curves take. Pure.

An outcome is measured on one case, and counts once nothing can change it but a correction: `death_in_hospital` when the
stay is over, `death_30d` and `readmission_30d` when thirty days have passed in the site's own event time. To count
deaths at once and survivors a month later would make every unit look worse than it is. What follows is a function of a
person's cases, whichever order they were told in.

A readmission is one to the same site, more than a day and at most 30 days after a discharge alive, and not a planned
one (table 0007: elective, routine, newborn, labour). A stay belongs to the ward in which the patient lay longest, an
operation to the unit that told it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import zip_longest
from typing import Any

from schemas.envelope import later
from schemas.quality import MEASURES
from streams.fold import HISTORY, LATEST, Entity

CASE, DEATH = "case", "death"  # entities
OUTCOMES, UNITS = "outcomes", "units"  # histories of a case: by measure; by when the patient came there
STAY = "stay"  # of a case: a keyed hash of its number, equal under all references
EXPECTED = "expected"  # of a case: risk by measure, as models have it
ACTIVE = "active"  # state
DIED_IN_HOSPITAL, DIED_30D, READMITTED_30D = DERIVED = MEASURES  # others are told
HORIZON = timedelta(days=30)
EXPIRED = frozenset(("20", "41", "exp"))  # PV1-36: died, in a medical facility (UB-04 discharge status); FHIR's
PLANNED = frozenset(("C", "R", "N", "L", "3", "4", "elective"))  # PV1-4 (table 0007; UB-04: elective, newborn)
MOVED = timedelta(hours=24)  # who is admitted again sooner has been moved
OPEN = timedelta(days=30)  # without a word of it a stay is no longer taken to go on
DAY = timedelta(days=1)  # a date of death is its midnight somewhere

# What a risk may hang on, known when the case begins. Words and yes or no are categories.
NUMBERS = (
    ("age", "systolic", "diastolic", "heart_rate", "bmi", "creatinine", "ejection_fraction", "risk_score")
)  # fmt: skip
WORDS = ("sex", "admission_type", "procedure", "hospital_service", "diabetes", "hypertension", "smoker")
FACTORS = NUMBERS + WORDS
KEPT = (  # of an entity, what is looked at here
    ("kind", "state", "site", "patient_ref", "event_time", "event_id", "received_at", "admitted_at", "discharged_at")
    + ("discharge_disposition", "died_at", STAY, HISTORY, "folded", EXPECTED, *FACTORS)
)  # fmt: skip

# Why a case is counted nowhere, or not in some measure.
DEATH_FIRST = "death_before_admission"
NEGATIVE = "negative_time"  # over before it began
NO_UNIT = "unknown_unit"
NO_BEGINNING = "no_admission"
Factor = float | str


@dataclass(frozen=True, slots=True)
class Risk:
    """Of one measure. `version` is empty where the sender has told it. `shadow`: of the model that is only watched."""

    risk: float
    version: str = ""
    reasons: tuple[str, ...] = ()
    factors: str = ""  # a digest of what it was worked out of
    shadow: float | None = None
    shadow_version: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One stay or operation by now. `record` is a keyed hash, `person` a reference. Times are RFC 3339 in UTC."""

    record: str
    person: str = field(repr=False)
    site: str
    unit: str
    procedure: str
    service: str
    begun: str
    ended: str
    disposition: str
    planned: bool
    known: str  # time of the latest event that told of it
    received: str = ""  # when that came in
    told: Mapping[str, bool] = field(default_factory=dict)  # outcomes as somebody has found, by measure
    expected: Mapping[str, Risk] = field(default_factory=dict)  # by measure
    factors: Mapping[str, Factor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Person:
    """One person's cases at one site, in order, and when he or she died; empty: nobody has said so."""

    cases: tuple[Case, ...]
    died: str = ""
    known: str = ""  # time of the latest event that told of him or her


@dataclass(frozen=True, slots=True)
class Measured:
    """The outcome of a case in one measure, which counts from `due` on, at its place in time `at`."""

    measure: str
    record: str
    at: str
    due: str
    event: bool


def wanted(site: str) -> dict[str, Any]:
    """The query for cases of a site, or of all, and for every death: whoever died did so for each site."""
    cases = {"bool": {"filter": [{"term": {"kind": CASE}}, *([{"term": {"site": site}}] if site else [])]}}
    some = {"bool": {"should": [cases, {"term": {"kind": DEATH}}], "minimum_should_match": 1}}
    return {"bool": {"filter": [{"term": {"part": -1}}, some]}}


def people(found: Iterable[tuple[str, Entity]], merged: Mapping[str, str]) -> dict[tuple[str, str], Person]:
    """Everybody whom entities tell of, by site and reference; `merged` gives the survivor of each alias. A death is
    one's at every site.

    A case that was told under several references is one, and each field of it what the latest event has said.
    """
    cases: dict[tuple[str, str], dict[str, list[tuple[str, Entity]]]] = defaultdict(lambda: defaultdict(list))
    deaths: dict[str, list[Entity]] = defaultdict(list)
    told: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, one in found:
        ref = one.get("patient_ref", "")
        person = one.get("site", ""), merged.get(ref, ref)
        if one.get("kind") == DEATH:
            deaths[person[1]].append(one)
        elif one.get("kind") == CASE:
            told[person].append(one.get("event_time", ""))
            cases[person][one.get(STAY, name)].append((name, one))
    made = {}
    for person in cases:
        known = []
        for some in cases[person].values():
            one = as_one([entity for _, entity in sorted(some, key=lambda each: each[0])]) | {"patient_ref": person[1]}
            if (case := case_of(min(name for name, _ in some), one)) is not None:
                known.append(case)
        told[person] += [one.get("event_time", "") for one in deaths[person[1]] if one.get("site") == person[0]]
        latest = max(told[person], default="")
        made[person] = Person(
            tuple(sorted(known, key=lambda one: (one.begun, one.record))), died_at(deaths[person[1]]), latest
        )
    return made


def as_one(some: Sequence[Entity]) -> Entity:
    """Entities of one case as one: of each field and each entry the latest position holds; risks are the first's."""
    if len(some) == 1:
        return some[0]
    made: Entity = {"kind": CASE} | ({EXPECTED: some[0][EXPECTED]} if EXPECTED in some[0] else {})
    told: dict[str, tuple[str, Entity]] = {}
    for one in some:
        for place, at in one.get("folded", {}).items():
            if at > told.get(place, ("", one))[0]:
                told[place] = at, one
    for place, (_, one) in told.items():
        if place == LATEST:
            made |= {name: one[name] for name in ("event_time", "event_id", "received_at") if name in one}
        elif place.startswith(f"{HISTORY}/"):
            _, name, key = place.split("/", 2)
            if key in (held := one.get(HISTORY, {}).get(name, {})):
                made.setdefault(HISTORY, {}).setdefault(name, {})[key] = held[key]
        elif place in one:
            made[place] = one[place]
    return made


def case_of(record: str, entity: Entity) -> Case | None:
    """The case that an entity keeps; None for one that was cancelled."""
    if entity.get("kind") != CASE or entity.get("state") != ACTIVE:
        return None
    history = entity.get(HISTORY, {})
    outcomes: Mapping[str, Mapping[str, Any]] = history.get(OUTCOMES, {})
    expected = {name: Risk(one["risk"]) for name, one in outcomes.items() if one.get("risk") is not None}
    for name, one in entity.get(EXPECTED, {}).items():
        if "risk" in one:
            expected[name] = Risk(**one | {"reasons": tuple(one["reasons"])})
    ended = entity.get("discharged_at", "")
    return Case(
        record=record,
        person=entity.get("patient_ref", ""),
        site=entity.get("site", ""),
        unit=unit_of(history.get(UNITS, {}), ended, entity.get("event_time", "")),
        procedure=entity.get("procedure", ""),
        service=entity.get("hospital_service", ""),
        begun=entity.get("admitted_at", ""),
        ended=ended,
        disposition=entity.get("discharge_disposition", ""),
        planned=entity.get("admission_type", "") in PLANNED,
        known=entity.get("event_time", ""),
        received=entity.get("received_at", ""),
        told={name: bool(one["event"]) for name, one in outcomes.items()},
        expected=expected,
        factors=factors(entity),
    )


def factors(entity: Entity) -> dict[str, Factor]:
    """What is known of a case that its risk may hang on."""
    made: dict[str, Factor] = {}
    for name in NUMBERS:
        if (value := entity.get(name)) is not None:
            made[name] = float(value)
    for name in WORDS:
        if (value := entity.get(name)) not in (None, ""):
            made[name] = ("no", "yes")[value] if isinstance(value, bool) else str(value)
    return made


def unit_of(units: Mapping[str, str], ended: str, now: str) -> str:
    """The unit where a patient lay longest, of `units` by when he or she came there; of equals the first.

    What is told of a place after the stay was over is a correction, and the last one holds.
    """
    if ended and (corrected := [at for at in units if at > ended]):
        return units[max(corrected)]
    if len(units) == 1:
        return next(iter(units.values()))
    lain: dict[str, timedelta] = {}
    begins = sorted(units)
    for begin, end in zip(begins, [*begins[1:], max(ended or now, begins[-1])] if begins else (), strict=True):
        lain[units[begin]] = lain.get(units[begin], timedelta()) + (_time(end) - _time(begin))
    return max(lain, key=lambda unit: lain[unit], default="")


def died_at(entities: Iterable[Entity]) -> str:
    """When a person died, by his or her `death` entities; empty while nobody has said so."""
    told = (one.get("died_at", "") for one in entities if one.get("kind") == DEATH and one.get("state") == ACTIVE)
    return min((one for one in told if one), default="")


def trouble(case: Case, died: str) -> str:
    """Why a case cannot be counted at all; empty for one that can."""
    if not case.begun:
        return NO_BEGINNING
    if case.ended and case.ended < case.begun:
        return NEGATIVE
    if died and later(died, DAY) <= case.begun:
        return DEATH_FIRST
    return "" if case.unit else NO_UNIT


def measured(of: Person) -> list[Measured]:
    """All outcomes of one person at one site, those included that are not due yet."""
    died, sound = of.died, [one for one in of.cases if not trouble(one, of.died)]
    made: list[Measured] = []
    for one, after in zip_longest(sound, sound[1:]):
        gone = _gone(one, after, died)
        over = one.ended or (died if gone else "")  # who died and was never discharged has left all the same
        if over:
            made.append(Measured(DIED_IN_HOSPITAL, one.record, over, over, gone))
        within, due = _within(one.begun)
        dead = bool(died) and died <= within
        made.append(Measured(DIED_30D, one.record, one.begun, due, dead or (gone and one.ended <= within)))
        if one.ended and not gone:
            within, due = _within(one.ended)
            again = _back(one, sound, within)
            if again or not (died and died <= within):
                made.append(Measured(READMITTED_30D, one.record, one.ended, due, again))
        at = one.ended or one.begun
        made += [Measured(name, one.record, at, at, event) for name, event in one.told.items()]
    return made


@lru_cache(maxsize=10_000)
def _within(at: str) -> tuple[str, str]:
    """The end of the thirty days, and of its day: a death on it may have no time."""
    return later(at, HORIZON), later(f"{at[:10]}T00:00:00.000Z", HORIZON + timedelta(days=1))


def _gone(case: Case, after: Case | None, died: str) -> bool:
    """Whether the patient died in the stay: by how it ended, or before it did. One that nobody has ended ends where
    the next one begins, and goes on for thirty days after the last word of it."""
    if case.disposition in EXPIRED:
        return True
    if not died or (after is not None and not case.ended and after.begun <= died):
        return False
    return died <= (case.ended or later(max(case.known, case.begun), OPEN))


def _back(case: Case, others: Sequence[Case], within: str) -> bool:
    soonest = later(case.ended, MOVED)
    return any(soonest < one.begun <= within and not one.planned for one in others if one.record != case.record)


def follow_up(case: Case, died: str, until: str) -> tuple[float, bool] | None:
    """Days from the beginning to death, and True; or to `until`, where the person was last known to live, and False.

    None of a case that cannot be counted, or that begins after `until`.
    """
    if trouble(case, died) or case.begun > until:
        return None
    if not died and case.disposition in EXPIRED:
        died = case.ended
    end = died if died and died <= until else until
    return max(0.0, (_time(end) - _time(case.begun)) / timedelta(days=1)), bool(died) and died <= until


def _time(said: str) -> datetime:
    return datetime.fromisoformat(said)
