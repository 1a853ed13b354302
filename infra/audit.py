"""Who was shown what, why and when: one JSON line an act, in the shape of FHIR AuditEvent (IHE BALP PatientRead).

A line is on the disk before anything is shown. It names persons by reference, never by name or number. Entities are
the patient and the document; whoever reads the file learns who looked, not what was seen.
"""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

# HL7 v3 PurposeOfUse: what a person may say why he or she looks.
PURPOSES = {
    "TREAT": "treatment",
    "ETREAT": "emergency treatment",
    "BTG": "break the glass",
    "HPAYMT": "healthcare payment",
    "HOPERAT": "healthcare operations",
    "HRESCH": "healthcare research",
    "PUBHLTH": "public health",
    "PATRQT": "patient requested",
    "HSYSADMIN": "health system administration",
    "HCOMPL": "health compliance",
}
_PURPOSE_SYSTEM = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_TYPE_SYSTEM = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_ENTITY_SYSTEM = "http://terminology.hl7.org/CodeSystem/audit-entity-type"


class Audit:
    """Appends to `<home>/audit/audit.jsonl`, mode 0600. Several processes may: each line is one write."""

    def __init__(self, home: Path) -> None:
        self._path = home / "audit" / "audit.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    def write(self, action: str, purpose: str, patient_ref: str | None, document: str, fields: list[str]) -> None:
        """Record an act, durably. `action` is FHIR's AuditEvent.action: R read, E execute. Raises OSError."""
        line = orjson.dumps(_event(action, purpose, patient_ref, document, fields), option=orjson.OPT_APPEND_NEWLINE)
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)


def _event(action: str, purpose: str, patient_ref: str | None, document: str, fields: list[str]) -> dict[str, Any]:
    entities = [
        {
            "what": {"identifier": {"value": document}},
            "type": {"system": _ENTITY_SYSTEM, "code": "2", "display": "System Object"},
            "detail": [{"type": "field", "valueString": name} for name in fields],
        }
    ]
    if patient_ref is not None:
        who = {"system": _ENTITY_SYSTEM, "code": "1", "display": "Person"}
        entities.insert(0, {"what": {"identifier": {"value": patient_ref}}, "type": who})
    return {
        "resourceType": "AuditEvent",
        "type": {"system": _TYPE_SYSTEM, "code": "rest", "display": "RESTful Operation"},
        "action": action,
        "recorded": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "outcome": "0",
        "purposeOfEvent": [{"coding": [{"system": _PURPOSE_SYSTEM, "code": purpose}]}],
        "agent": [{"who": {"identifier": {"value": _who()}}, "requestor": True}],
        "source": {"observer": {"display": "wardstream"}},
        "entity": entities,
    }


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
