"""Service quality as events tell it: cases with their risk factors, what became of them, what insurers, patients and
wards report.

A case is a stay or an operation: what is measured. One event is one part and one document (`*_event`); what is known
of a case by now is the entity `case`, and of a patient's death the entity `death`. docs/quality.md has the wire format,
field by field; words are HL7 v2's where it has them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from schemas.ehr import (
    COMMON,
    Coded,
    Codes,
    Count,
    Flag,
    Number,
    Sought,
    Soughts,
    Text,
    Time,
    Word,
    Words,
    properties,
)
from schemas.record import Part

REPORTERS = frozenset(("insurer", "patient"))
MEASURES = ("death_in_hospital", "death_30d", "readmission_30d")  # follow from cases: nobody tells them
STAFFING = frozenset(("present", "absence", "incident", "overtime"))


class QualityPart(Part):
    """What every part carries: whose house, which ward, and what becomes of the thing."""

    site: Word = ""  # PL.4, else MSH-4
    action: Word = ""  # set, cancel, delete
    flags: Words = ()  # future_time, not_a_code:<field>
    nulls: Words = ()  # fields that the sender clears
    unit: Coded = ""  # PL.1


class CasePart(QualityPart):
    """Of a patient; `case_number` tells the patient's cases apart."""

    case_number: Sought = ""  # PV1-19, or the number of an operation
    identifiers: Soughts = ()  # PID-3


class CaseEvent(CasePart):
    """A stay or an operation, and what its risk hangs on. Each event says what it knows; the latest holds."""

    kind: ClassVar[str] = "case_event"

    procedure: Coded = ""  # PR1-3, or the site's own
    hospital_service: Coded = ""  # PV1-10
    patient_class: Coded = ""  # PV1-2
    admission_type: Coded = ""  # PV1-4, table 0007
    admitted_at: Time = None  # PV1-44; of an operation, when it began
    discharged_at: Time = None  # PV1-45
    discharge_disposition: Coded = ""  # PV1-36

    sex: Coded = ""  # PID-8
    age: Count = None  # years; 90 stands for all above (45 CFR 164.514)
    diabetes: Flag = None
    hypertension: Flag = None
    smoker: Flag = None
    systolic: Number = None  # mmHg
    diastolic: Number = None  # mmHg
    heart_rate: Number = None  # a minute
    bmi: Number = None  # kg/m2
    creatinine: Number = None  # umol/L
    ejection_fraction: Number = None  # percent
    risk_score: Number = None  # of the sender's own scale: Parsonnet, EuroSCORE
    diagnoses: Codes = ()  # DG1-3


class DeathEvent(CasePart):
    """A patient died, in hospital or later."""

    kind: ClassVar[str] = "death_event"

    died_at: Time = None  # PID-29


class OutcomeEvent(CasePart):
    """What became of a case, as somebody has found: a complication, an infection, a registry's endpoint."""

    kind: ClassVar[str] = "outcome_event"

    measure: Coded = ""
    event: Flag = None
    expected_risk: Number = None  # probability, where the sender has one


class ReportEvent(CasePart):
    """What an insurer or a patient reports of a case."""

    kind: ClassVar[str] = "report_event"

    reporter: Word = ""  # insurer, patient
    instrument: Coded = ""  # EQ-5D-5L, HCAHPS, claim
    item: Coded = ""
    score: Number = None
    decision: Coded = ""  # of a claim: paid, denied, ...
    amount: Number = None
    currency: Coded = ""  # ISO 4217


class StaffingEvent(QualityPart):
    """Who was there in a shift, as numbers, and what went wrong. It names nobody."""

    kind: ClassVar[str] = "staffing_event"

    staffing: Word = ""  # present, absence, incident, overtime
    role: Coded = ""  # nurse, doctor, ... (FHIR practitioner-role)
    starts_at: Time = None
    ends_at: Time = None
    planned: Number = None  # persons
    present: Number = None
    display: Text = ""  # of an incident, in the site's own words for kinds


PARTS: tuple[type[Part], ...] = (CaseEvent, DeathEvent, OutcomeEvent, ReportEvent, StaffingEvent)
MEASURED: dict[str, tuple[str, ...]] = {"amount": ("currency",), "score": ("instrument", "item")}


def mapping() -> dict[str, Any]:
    """The strict mapping of the one index that holds every kind of part, and the entities."""
    return {"dynamic": "strict", "properties": dict(_PROPERTIES)}


# Of the entity `case` (streams/quality/cases.py): the risk of each measure by model; what all references have equal.
OF_CASE: dict[str, Any] = {"expected": {"type": "object", "enabled": False}, "stay": {"type": "keyword"}}
_PROPERTIES = properties(PARTS, COMMON | OF_CASE)
