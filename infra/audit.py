"""Who was shown what, why and when: one JSON line an act, in the shape of FHIR AuditEvent (IHE BALP PatientRead).

A line is on the disk before anything is shown. It names persons by reference, never by name or number. Entities are
the patient and the document; whoever reads the file learns who looked, not what was seen.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from infra.errors import AuditUnavailable
from infra.settings import settings

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


@dataclass(frozen=True, slots=True)
class Act:
    """One thing somebody did or tried. Only references, ids, names of fields and codes: never a value, never a query.

    `kind`: search, reveal, dead_letter, replay, login, account, policy, consent, hold, erasure, key, break_glass,
    export, retention, audit. `outcome` is FHIR's: 0 done, 4 refused, 8 failed; `why` a reason code with it.
    """

    kind: str
    action: str  # FHIR AuditEvent.action: C create, R read, U update, D delete, E execute
    who: str = ""  # account; empty: the user of the operating system
    role: str = ""
    purpose: str = ""  # HL7 v3 PurposeOfUse
    patients: tuple[str, ...] = ()  # references
    entities: tuple[str, ...] = ()  # ids of documents, events, erasures, accounts, keys
    fields: tuple[str, ...] = ()
    outcome: str = "0"
    why: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)


class Audit:
    """Appends to `<home>/audit/audit.jsonl`, mode 0600. Several processes may: each line is one write."""

    def __init__(self, home: Path) -> None:
        self._path = home / "audit" / "audit.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    @classmethod
    def local(cls) -> Audit:
        return cls(settings().home)

    def write(self, act: Act) -> None:
        """Record an act, durably, before anything is shown or done. Raises AuditUnavailable."""
        line = orjson.dumps(_event(act), option=orjson.OPT_APPEND_NEWLINE)
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, line)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise AuditUnavailable(f"the audit cannot be written: {error.strerror}") from None


def _event(act: Act) -> dict[str, Any]:
    entities: list[dict[str, Any]] = [
        {
            "what": {"identifier": {"value": one}},
            "type": {"system": _ENTITY_SYSTEM, "code": "2", "display": "System Object"},
            "detail": [{"type": "field", "valueString": name} for name in act.fields],
        }
        for one in act.entities
    ]
    who = {"system": _ENTITY_SYSTEM, "code": "1", "display": "Person"}
    entities = [{"what": {"identifier": {"value": one}}, "type": who} for one in act.patients] + entities
    return {
        "resourceType": "AuditEvent",
        "type": {"system": _TYPE_SYSTEM, "code": "rest", "display": "RESTful Operation"},
        "subtype": [{"code": act.kind}],
        "action": act.action,
        "recorded": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "outcome": act.outcome,
        "purposeOfEvent": [{"coding": [{"system": _PURPOSE_SYSTEM, "code": act.purpose}]}],
        "agent": [{"who": {"identifier": {"value": act.who or _who()}}, "requestor": True}],
        "source": {"observer": {"display": "wardstream"}},
        "entity": entities,
    }


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
