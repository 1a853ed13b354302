"""What health records say of beds, as events of the domain allocation: who lies where (ADT, Encounter), how a bed is
(ADT A20, Location). Pure. The fields are those of docs/operations.md.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from schemas.derived import Derived
from schemas.ehr import Event, Resource, Visit
from schemas.envelope import rfc3339
from schemas.record import Record
from schemas.scrub import Scrubber

DOMAIN = "allocation"
STEPS = frozenset(  # table 0003; pending discharges (A16) and transfers (A15) change where nobody is yet
    ("A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08", "A11", "A12", "A13", "A14", "A17", "A27", "A38")
)
SAID = ("unit", "room", "bed", "patient_class", "hospital_service", "expected_discharge_at", "expected_admit_at")
CODED = frozenset(("unit", "room", "bed", "patient_class", "hospital_service"))
STATUS = frozenset("UOCHKI")  # table 0116
SUSPENDED = {"suspended": "C", "inactive": "C"}  # Location.status: not in use, whatever it was last


def derive(record: Record) -> list[Derived]:
    events = {part.subject: part for part in record.parts if isinstance(part, Event)}
    told = {"told_at": rfc3339(record.told_at)} if record.told_at else {}
    # Of words alone none is left out: patients are called North and Rose, as wards are. FHIR's codes were looked at.
    numbers = Scrubber(term for term in record.terms if any(map(str.isdigit, term)))
    made: list[Derived] = []
    for part in record.parts:
        if isinstance(part, Visit) and part.subject is not None and _tells(part):
            said = _placement(part, events.get(part.subject))
            said |= {name: value for name in ("sex", "age") if (value := getattr(record, name)) not in (None, "")}
            body = {name: value for name, value in said.items() if not (name in CODED and numbers.holds(value))}
            made.append(Derived(DOMAIN, part.subject, part.facility, body | told))
        elif isinstance(part, Resource) and part.resource_type == "Location" and (status := _status(part)):
            where = {name: value for name in ("unit", "room", "bed") if (value := getattr(part, name))}
            body = {"type": "location", "action": "set", "bed_status": status}
            made.append(Derived(DOMAIN, None, part.facility, body | where | told))
    return made


def number_of(visit: Visit, event: Event | None) -> str:
    """What tells the visit from others of its patient: PV1-19, else an account; empty without either."""
    return visit.visit_number or visit.visit_account or (event.account_number if event else "")


def _tells(part: Visit) -> bool:
    return part.message_type == "Encounter" or (part.message_type == "ADT" and part.trigger in STEPS)


def _placement(part: Visit, event: Event | None) -> dict[str, Any]:
    said = {name: value for name in SAID if (value := getattr(part, name)) not in (None, "")}
    if event is not None:
        said |= {name: value for name in ("sex", "age") if (value := getattr(event, name)) not in (None, "")}
        if event.planned_at and part.trigger in ("A05", "A14"):
            said.setdefault("expected_admit_at", event.planned_at)
    body = {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in said.items()}
    if number := number_of(part, event):
        body["id"] = number
    if part.message_type == "Encounter":
        return body | {"type": "placement", "action": "set", "trigger": "Encounter", "status": part.status}
    return body | {"type": "placement", "action": "set", "trigger": part.trigger}


def _status(part: Resource) -> str:
    """How a place that can be named is; empty where nothing is told."""
    status = SUSPENDED.get(part.status, part.bed_status)
    return status if part.unit and status in STATUS else ""
