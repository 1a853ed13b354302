"""What health records say of stays and of deaths, as events of the domain quality. Pure.

The fields are those of docs/quality.md. Of inpatients alone, and of visits that have a number: without one, two stays
of a patient cannot be told apart. What a stay's risk hangs on is what the same message says: sex, age, diagnoses, vital
signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from schemas.derived import Derived
from schemas.ehr import Diagnosis, Event, Observation, ObservationComponent, Procedure, Visit
from schemas.envelope import rfc3339
from schemas.record import Part, Record
from schemas.scrub import Scrubber
from streams.ehr.beds import number_of
from streams.ehr.features import CANCELLED, INPATIENT
from streams.ehr.news2 import vital

DOMAIN = "quality"
ADMITS = frozenset(("A01", "A06"))  # table 0003
MOVES = frozenset(("A02", "A12", "A17"))  # A12: back where the patient was
DISCHARGES = "A03"
UNDISCHARGED = "A13"
UNADMITTED = frozenset(("A11", "A07"))  # A07: an inpatient becomes an outpatient
ADDS = "A08"
STEPS = ADMITS | MOVES | UNADMITTED | {DISCHARGES, UNDISCHARGED, ADDS}
# ICD-10 E10 to E14, and E08 and E09 of ICD-10-CM; SNOMED CT: diabetes mellitus, type 1, type 2.
DIABETES = tuple(f"E{number:02}" for number in (8, 9, 10, 11, 12, 13, 14))
DIABETES_SNOMED = frozenset(("73211009", "46635009", "44054006"))
CODED = ("unit", "hospital_service", "patient_class", "admission_type", "discharge_disposition")
VITAL = {"systolic": "systolic", "pulse": "heart_rate"}  # NEWS2's names, and ours
RUNS = frozenset(("in-progress", "onleave", "finished"))  # Encounter.status of R4
NEWS = frozenset(("diagnoses", "procedure", "discharged_at", "discharge_disposition"))
MOST_DIAGNOSES = 50


def derive(record: Record) -> list[Derived]:
    told = {"told_at": rfc3339(record.told_at)} if record.told_at else {}
    numbers = Scrubber(term for term in record.terms if any(map(str.isdigit, term)))
    names = Scrubber(record.terms)  # wards and services may be called as a patient is; codes are not
    made: list[Derived] = []
    for subject in sorted({part.subject for part in record.parts if part.subject is not None}):
        parts = [part for part in record.parts if part.subject == subject]
        event = next((part for part in parts if isinstance(part, Event)), None)
        for visit in (part for part in parts if isinstance(part, Visit)):
            if (body := _case(visit, event, parts, record)) is not None:
                kept = {
                    name: value
                    for name, value in body.items()
                    if name not in CODED or not isinstance(value, str) or not numbers.holds(value)
                }
                if isinstance(kept.get("procedure"), str) and names.holds(kept["procedure"]):
                    del kept["procedure"]
                if "diagnoses" in kept:
                    kept["diagnoses"] = [one for one in kept["diagnoses"] if not names.holds(one)]
                made.append(Derived(DOMAIN, subject, visit.facility, kept | told))
        if (death := _death(event)) is not None:
            facility = next((part.facility for part in parts if isinstance(part, Event | Visit)), "")
            made.append(Derived(DOMAIN, subject, facility, death | told))
    return made


def _case(visit: Visit, event: Event | None, parts: Sequence[Part], record: Record) -> dict[str, Any] | None:
    number = number_of(visit, event)
    fhir = visit.message_type == "Encounter"
    if not number or visit.patient_class not in ("", INPATIENT):
        return None
    if fhir and visit.status not in RUNS | CANCELLED:
        return None
    if not fhir and (visit.message_type != "ADT" or visit.trigger not in STEPS):
        return None
    body: dict[str, Any] = {"type": "case", "id": number, "action": "set"}
    if visit.status in CANCELLED if fhir else visit.trigger in UNADMITTED:
        return body | {"action": "cancel"}
    if visit.trigger == UNDISCHARGED:
        return body | {"discharged_at": None, "discharge_disposition": None}
    body |= _factors(event, parts, record, begins=fhir or visit.trigger in ADMITS)
    adds = not fhir and visit.trigger == ADDS
    for name in ("hospital_service", "patient_class", "admission_type", *(() if adds else ("admitted_at",))):
        body |= _said(name, getattr(visit, name))
    if fhir or visit.trigger in ADMITS | MOVES:
        body |= _said("unit", visit.unit)
    if visit.trigger in ADMITS:
        body.setdefault("admitted_at", _at(record))
    if visit.trigger == DISCHARGES:
        body["discharged_at"] = _at(record)
    if fhir or adds or visit.trigger == DISCHARGES:
        for name in ("discharged_at", "discharge_disposition"):
            body |= _said(name, getattr(visit, name))
    if adds and not body.keys() & NEWS:
        return None  # what most of them have is known since the stay began
    if body.get("discharged_at") and body["discharged_at"] < body.get("admitted_at", ""):
        del body["discharged_at"]  # one of the two is wrong; as long as nobody says which, the stay is open
    return {name: value for name, value in body.items() if value is not None}


def _factors(event: Event | None, parts: Sequence[Part], record: Record, begins: bool) -> dict[str, Any]:
    """`begins`: vital signs count as the stay begins, and not later, or whoever gets worse in it was expected to."""
    made: dict[str, Any] = {}
    for name in ("sex", "age"):
        value = getattr(event, name) if event is not None else None
        made |= _said(name, value if value not in (None, "") else getattr(record, name))
    codes = [part.code for part in parts if isinstance(part, Diagnosis) and part.code]
    if codes:
        made["diagnoses"] = list(dict.fromkeys(codes))[:MOST_DIAGNOSES]
    if any(code in DIABETES_SNOMED or code.upper().startswith(DIABETES) for code in codes):
        made["diabetes"] = True
    for part in parts:
        if begins and isinstance(part, Observation | ObservationComponent) and part.value_number is not None:
            sign = vital(part.code, part.value_number, part.units)
            if sign is not None and sign[0] in VITAL:
                made[VITAL[sign[0]]] = sign[1]
        elif isinstance(part, Procedure) and part.code:
            made.setdefault("procedure", part.code)
    return made


def _death(event: Event | None) -> dict[str, Any] | None:
    if event is None:
        return None
    if event.died_at is not None:
        return {"type": "death", "action": "set", "died_at": rfc3339(event.died_at)}
    return {"type": "death", "action": "cancel"} if "PID-29" in event.nulls else None


def _said(name: str, value: Any) -> dict[str, Any]:
    if value in (None, "", ()):
        return {}
    return {name: rfc3339(value) if isinstance(value, datetime) else value}


def _at(record: Record) -> str | None:
    return rfc3339(record.event_time) if record.event_time else None
