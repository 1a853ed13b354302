"""What a prediction may know of one event: its own documents and the patient's history up to it. Pure.

The same function serves training, from the index, and scoring, on the stream, so that the two cannot drift apart.
Names of features: `age` is a number; `diagnosis=I50` and `text=syncope` are 1 where they hold; `missing=pulse` says
that the number of that name is a stand-in. Race, ethnic group, language, religion and payer are left out on purpose: a
model must not learn whom a hospital has treated worse before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from streams.ehr.news2 import CODES, news2, vital

TELLING = frozenset(
    ("event", "visit", "diagnosis", "observation", "observation_component")
)  # kinds that a history takes from
OBSERVED = frozenset(("observation", "observation_component"))
Features = dict[str, float | str]
Entries = dict[tuple[str, str], Any]
Vitals = dict[str, float | str]
Document = Mapping[str, Any]

DEPARTMENT, READMISSION, STAY, DETERIORATION = "department", "readmission", "length_of_stay", "deterioration"
TARGETS = (DEPARTMENT, READMISSION, STAY, DETERIORATION)

# Trigger events, HL7 table 0003, and Encounter.status of FHIR R4 for the same.
ADMITS, ENTERS = frozenset(("A01", "A06")), frozenset(("A01", "A04", "A05"))
BEGUN, FINISHED = frozenset(("planned", "arrived", "triaged", "in-progress")), frozenset(("finished",))
CANCELLED = frozenset(("cancelled", "entered-in-error"))
INPATIENT, EMERGENCY, PREADMIT = "I", "E", "P"  # table 0004
GONE = frozenset(("20", "40", "41", "42", "exp"))  # PV1-36 (UB-04 patient discharge status), FHIR's: died
ADULT = 16  # NEWS2 is for nobody younger
WITHDRAWN = frozenset(("D", "W", "X", "entered-in-error", "cancelled"))  # OBX-11, table 0085; FHIR's of other feeds
REFUTED = frozenset(("refuted", "entered-in-error"))  # FHIR Condition.verificationStatus

_INTENSIVE = re.compile(r"ICU|ITU|INTENSIV", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{3,}")
_FRESH = timedelta(hours=12)  # vital signs older than this tell of another state
_YEAR = timedelta(days=365)
# What stands for a number that nobody measured: the middle of NEWS2's row of 0 points, else a usual value.
_STANDS_FOR: dict[str, float] = {
    "respiration_rate": 16.0,
    "oxygen_saturation": 98.0,
    "systolic": 125.0,
    "pulse": 75.0,
    "temperature": 37.0,
    "news2": 0.0,
    "age": 60.0,
    "days_since_discharge": 365.0,
}
# By target: fields of the event's visit that are known then. Of the department none may tell where the patient lies.
_VISIT = {
    DEPARTMENT: ("patient_class", "admission_type", "admit_source", "mode_of_arrival"),
    STAY: ("admission_type", "admit_source", "mode_of_arrival", "hospital_service", "unit"),
    READMISSION: ("admission_type", "admit_source", "hospital_service", "unit", "discharge_disposition"),
    DETERIORATION: (),
}


def features(target: str, documents: Sequence[Document], history: Mapping[str, Any], at: str) -> Features | None:
    """The features of one event for a target, None where it is none to be scored.

    `documents` are the clear documents of the event, each with its `kind`; `history` is what the patient's entity keeps
    (see `entries`); `at` is the event's time. What the history has from after `at`, or from this very event, counts
    for nothing, so that it may have been folded before or after.
    """
    visit = _first(documents, "visit")
    person = history.get("person", {}) | _person(documents)
    if not _scored(target, visit, documents, person.get("age")):
        return None
    measured = _measured(documents, at)
    now = _time(at)
    made: Features = {}
    _word(made, "sex", person.get("sex"))
    _number(made, "age", person.get("age"))
    for name in _VISIT[target]:
        _word(made, name, visit.get(name))
    _vitals(made, measured, history, at)
    _before(made, history, at, now, visit)
    if target != DETERIORATION:
        for code in {_category(one["code"]) for one in documents if _diagnosed(one)}:
            made[f"diagnosis={code}"] = 1.0
        for term in _terms(documents):
            made[f"text={term}"] = 1.0
    if target == READMISSION:
        _number(made, "days_in_hospital", _days(visit.get("admitted_at") or _open_stay(history, at), now))
    if target == DETERIORATION:
        _number(made, "days_in_hospital", _days(_open_stay(history, at), now))
    return made


def _scored(target: str, visit: Document, documents: Sequence[Document], age: int | None) -> bool:
    trigger, patient_class = visit.get("trigger"), visit.get("patient_class", "")
    fhir = visit.get("status") if visit.get("message_type") == "Encounter" else None
    match target:
        case "department":
            return (trigger in ENTERS or fhir in BEGUN) and patient_class in ("", INPATIENT, EMERGENCY, PREADMIT)
        case "length_of_stay":
            return (trigger in ADMITS or fhir in BEGUN - {"planned"}) and patient_class in ("", INPATIENT)
        case "readmission":
            ends = trigger == "A03" or fhir in FINISHED
            return ends and patient_class in ("", INPATIENT) and visit.get("discharge_disposition") not in GONE
        case "deterioration":
            if not any(value is not None for value in _measured(documents, "").values()):
                return False
            one = next(one for one in documents if one.get("kind") in OBSERVED and one.get("code") in CODES)
            return (age is None or age >= ADULT) and not intensive(one.get("unit")) and _lies_here(one)
    raise ValueError(f"there is no target {target!r}")


def _lies_here(one: Document) -> bool:
    """Whether somebody is in a bed, or in the emergency department, as far as the message tells."""
    return one.get("patient_class", "") in ("", INPATIENT, EMERGENCY)


# ------------------------------------------------------------------------------------------------------------- history


def entries(documents: Sequence[Document], at: str) -> Entries:
    """What one event puts into its patient's history; a value of None takes an entry away.

    person: age and sex, for events that do not tell them. admissions: time of admission to a bed -> of discharge, ""
    while the stay goes on. ended: times of discharges that do not say which stay they end. diagnoses: code|day on which
    it was told. vitals: name (streams/ehr/news2.py)|time of observation -> value; None of one that was withdrawn.

    Nothing that a later event tells takes the place of what an earlier one was scored by: so a score that is made
    again, after a crash or for a new index, is what it was.
    """
    made: Entries = {("person", name): value for name, value in _person(documents).items()}
    visit = _first(documents, "visit")
    if visit.get("message_type") in ("ADT", "Encounter"):
        made |= _stay(visit, at)
    for one in documents:
        if _diagnosed(one):
            made["diagnoses", f"{one['code']}|{at[:10]}"] = True
    for (name, observed), value in _measured(documents, at).items():
        made["vitals", f"{name}|{observed}"] = value
    return made


def remember(history: MutableMapping[str, Any], documents: Sequence[Document], at: str) -> None:
    """Take one event's entries into a history, as the fold does. Events come in the order of their times."""
    for (name, key), value in entries(documents, at).items():
        if value is None:
            history.get(name, {}).pop(key, None)
        else:
            history.setdefault(name, {})[key] = value


def stays(history: Mapping[str, Any]) -> dict[str, str]:
    """Admissions with their discharges; an open one ends with the first discharge behind it that names no stay."""
    ended = sorted(history.get("ended", ()))
    return {
        begun: done or next((one for one in ended if one > begun), "")
        for begun, done in sorted(history.get("admissions", {}).items())
    }


def _stay(visit: Document, at: str) -> Entries:
    trigger, status = visit.get("trigger", ""), visit.get("status", "")
    if visit.get("patient_class", "") not in ("", INPATIENT):
        return {}
    fhir = visit.get("message_type") == "Encounter"
    begins = trigger in ADMITS or (fhir and status in BEGUN - {"planned"})
    ends = trigger == "A03" or (fhir and status in FINISHED)
    admitted, discharged = visit.get("admitted_at"), visit.get("discharged_at") or at
    if trigger == "A11" or (fhir and status in CANCELLED):
        return {("admissions", admitted): None} if admitted else {}
    if trigger == "A13":
        return {("admissions", admitted): ""} if admitted else {}
    if ends:
        return {("admissions", admitted): discharged} if admitted else {("ended", discharged): True}
    return {("admissions", admitted or at): ""} if begins else {}


# -------------------------------------------------------------------------------------------------- what it is made of


def intensive(unit: Any) -> bool:
    """Whether a ward is an intensive care unit, by its name: no table of the standard tells."""
    return bool(unit) and _INTENSIVE.search(str(unit)) is not None


def _person(documents: Iterable[Document]) -> dict[str, Any]:
    event = _first(documents, "event")
    return {name: event[name] for name in ("age", "sex") if event.get(name) is not None}


def vital_signs(documents: Sequence[Document], history: Mapping[str, Any], at: str) -> Vitals | None:
    """The newest vital signs at an event that brought one, of an adult who is known to be one; else None."""
    age = (history.get("person", {}) | _person(documents)).get("age")
    if age is None or age < ADULT or not (measured := _measured(documents, at)):
        return None
    return _known(measured, history, at)


def _measured(documents: Iterable[Document], at: str) -> dict[tuple[str, str], float | str | None]:
    """NEWS2's vital signs among the observations, by name and time; None for a value that is withdrawn by this."""
    found: dict[tuple[str, str], float | str | None] = {}
    for one in documents:
        if one.get("kind") in OBSERVED and (code := one.get("code")) in CODES:
            when = one.get("observed_at") or at
            if one.get("status") in WITHDRAWN:
                found[CODES[code], when] = None
                continue
            value = one.get("value_number")
            if value is None:
                value = one.get("value_code") or one.get("value_text") or ""
            if (said := vital(code, value, one.get("units", ""))) is not None:
                found[said[0], when] = said[1]
    return found


def _known(measured: Mapping[tuple[str, str], float | str | None], history: Mapping[str, Any], at: str) -> Vitals:
    """The newest of each vital sign, none older than twelve hours, none from after `at`."""
    now = _time(at)
    told: dict[tuple[str, str], float | str | None] = {}
    for place, value in history.get("vitals", {}).items():
        name, _, when = place.partition("|")
        told[name, when] = value
    told |= measured
    known: Vitals = {}
    for (name, when), value in sorted(told.items(), key=lambda one: one[0]):
        if value is not None and when <= at and now - _time(when) <= _FRESH:
            known[name] = value
    return known


def _vitals(made: Features, measured: Mapping[tuple[str, str], Any], history: Mapping[str, Any], at: str) -> None:
    known = _known(measured, history, at)
    score = news2(known)
    for name in ("respiration_rate", "oxygen_saturation", "systolic", "pulse", "temperature"):
        _number(made, name, known.get(name))
    _word(made, "oxygen", known.get("oxygen"))
    _word(made, "consciousness", known.get("consciousness"))
    _number(made, "news2", score and score.total)


def _before(made: Features, history: Mapping[str, Any], at: str, now: datetime, visit: Document) -> None:
    """Earlier stays and diagnoses. The stay of this event is none of them."""
    this = visit.get("admitted_at") or _open_stay(history, at) or at
    earlier = {begun: ended for begun, ended in stays(history).items() if begun < min(this, at)}
    ends = [ended for ended in earlier.values() if ended and ended <= at]
    made["stays_last_year"] = float(sum(now - _time(ended) <= _YEAR for ended in ends))
    ended = max(ends, default=None)
    _number(made, "days_since_discharge", None if ended is None else min(365.0, _days(ended, now) or 0.0))
    told = (place.rpartition("|") for place in history.get("diagnoses", {}))
    known = {_category(code) for code, _, day in told if day < at[:10]}
    made["diagnoses_known"] = float(len(known))
    for code in known:
        made[f"known={code}"] = 1.0


def _open_stay(history: Mapping[str, Any], at: str) -> str:
    """When the stay that goes on at that time began; empty where there is none."""
    told = stays(history).items()
    return max((begun for begun, ended in told if begun <= at and not (ended and ended < at)), default="")


def _terms(documents: Iterable[Document]) -> set[str]:
    """Words of free text, which has been scrubbed, and of diagnoses that have no code."""
    said: list[str] = []
    for one in documents:
        if one.get("kind") == "note":
            said.append(one.get("body", ""))
        elif one.get("kind") == "observation":  # a complaint or a finding that came with the move, in words
            said.append(one.get("value_text", ""))
        elif one.get("kind") == "visit":
            said.append(one.get("admit_reason", ""))
        elif one.get("kind") == "diagnosis" and not one.get("code"):
            said.append(one.get("display", ""))
    return {word for text in said for word in _words(text)}


def _words(text: str) -> Iterator[str]:
    yield from (word for word in _WORD.findall(text.replace("[removed]", " ").casefold()))


def _diagnosed(one: Document) -> bool:
    said = one.get("kind") == "diagnosis" and bool(one.get("code"))
    return said and one.get("action") != "D" and one.get("confirmation") not in REFUTED  # table 0206: D, delete


def _category(code: str) -> str:
    """I50 of I50.9: the category of ICD-10; codes of other systems have no dot and stay whole."""
    return code.partition(".")[0]


def _first(documents: Iterable[Document], kind: str) -> Document:
    return next((one for one in documents if one.get("kind") == kind), {})


def _word(made: Features, name: str, value: Any) -> None:
    if value:
        made[f"{name}={value}"] = 1.0


def _number(made: Features, name: str, value: Any) -> None:
    if value is None or isinstance(value, str):
        made[name] = _STANDS_FOR.get(name, 0.0)
        made[f"missing={name}"] = 1.0
    else:
        made[name] = float(value)


def _days(since: str, now: datetime) -> float | None:
    return max(0.0, (now - _time(since)) / timedelta(days=1)) if since else None


def _time(said: str) -> datetime:
    return datetime.fromisoformat(said)
