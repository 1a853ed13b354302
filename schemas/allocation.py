"""Resources of a hospital as events tell them: places, staff in shifts, equipment, prices, who lies where, who waits.

One event is one part and one document (`*_event`); what a thing is by now is the entity of the plain name. Fields have
HL7 v2's words where it has them (PL, PV1, NPU), FHIR's (Location, Schedule, ServiceRequest) where not. `site` is the
house (PL.4), `unit` the ward (PL.1). docs/operations.md has the wire format, field by field.
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
    Score,
    Secret,
    Sought,
    Soughts,
    Staff,
    Text,
    Time,
    Word,
    Words,
    properties,
)
from schemas.record import Part

# What is wanted of a bed and of a nurse, in the same words for those who lie and those who wait.
BED_STATUS = frozenset("UOCHKI")  # HL7 table 0116: unoccupied, occupied, closed, housekeeping, contaminated, isolated
RESOURCE_TYPES = frozenset(("equipment", "theatre", "transport", "stock", "budget"))
RESOURCE_STATUS = frozenset(("available", "in-use", "unavailable"))
PRICE_SOURCES = frozenset(("insurer", "government"))
SNAPSHOT = "Encounter"  # in place of a trigger: a state that FHIR tells whole


class AllocationPart(Part):
    """What every part carries: whose house, and what becomes of the thing."""

    site: Word = ""  # PL.4, else MSH-4
    action: Word = ""  # set, cancel, delete
    flags: Words = ()  # future_time
    nulls: Words = ()  # fields that the sender clears


class LocationEvent(AllocationPart):
    """A bed; or, without one, a room or a unit whose status and features all its beds share (FHIR Location)."""

    kind: ClassVar[str] = "location_event"

    unit: Coded = ""  # PL.1
    room: Coded = ""  # PL.2
    bed: Coded = ""  # PL.3
    bed_status: Coded = ""  # NPU-2, Location.operationalStatus: table 0116
    services: Codes = ()  # PV1-10 codes that it is meant for
    features: Codes = ()  # isolation, monitor, oxygen, bariatric, ... (Location.characteristic)
    position_x: Number = None  # metres on the site's own plan
    position_y: Number = None
    price: Number = None  # a day
    currency: Coded = ""  # ISO 4217
    declared: Flag = None  # by an operations event, and not by an ADT message on the way


class ShiftEvent(AllocationPart):
    """A member of staff at work from one time to another."""

    kind: ClassVar[str] = "shift_event"

    unit: Coded = ""
    role: Coded = ""  # nurse, doctor, ... (FHIR practitioner-role)
    float_units: Codes = ()  # other units that he or she may work in
    rooms: Codes = ()  # of `unit`, as assigned now
    skill: Count = None
    load: Number = None  # most that he or she takes in this shift, in the site's own score
    starts_at: Time = None
    ends_at: Time = None

    shift_number: Secret = ""

    member: Staff = ()


class ResourceEvent(AllocationPart):
    """A piece of equipment, a theatre, a transport, a stock, a budget."""

    kind: ClassVar[str] = "resource_event"

    resource_type: Word = ""
    resource_id: Word = ""
    resource_status: Word = ""  # available, in-use, unavailable
    display: Text = ""
    unit: Coded = ""
    room: Coded = ""
    features: Codes = ()
    position_x: Number = None
    position_y: Number = None
    price: Number = None  # a use, or of opening a theatre
    currency: Coded = ""
    quantity: Number = None  # of a stock, a budget, a fleet
    units: Coded = ""  # of `quantity`
    minutes: Number = None  # of a theatre or transport that are left today


class PriceEvent(AllocationPart):
    """One row of an insurer's or a government's price list."""

    kind: ClassVar[str] = "price_event"

    code: Coded = ""
    code_system: Coded = ""
    display: Text = ""
    amount: Number = None
    currency: Coded = ""
    valid_from: Time = None
    valid_to: Time = None
    payer: Coded = ""
    price_source: Word = ""  # insurer, government


class NeedPart(AllocationPart):
    """What a patient needs, and how he or she may lie beside others."""

    unit: Coded = ""
    sex: Coded = ""  # PID-8
    age: Count = None  # years; 90 stands for all above (45 CFR 164.514)
    hospital_service: Coded = ""  # PV1-10
    isolation: Coded = ""  # organism or kind of precaution
    needs: Codes = ()  # features that the bed must have
    load: Number = None  # of nursing, per shift
    skill: Count = None  # least of a nurse
    priority: Count = None  # 1 first
    expected_discharge_at: Time = None  # PV2-9

    identifiers: Soughts = ()  # PID-3


class PlacementEvent(NeedPart):
    """A patient comes, moves or goes: one step of a stay (table 0003), or a correction of one."""

    kind: ClassVar[str] = "placement_event"

    trigger: Word = ""  # A01, A02, A03, ...; Encounter for a state that FHIR tells whole
    patient_class: Coded = ""  # PV1-2
    room: Coded = ""
    bed: Coded = ""
    status: Coded = ""  # Encounter.status
    expected_admit_at: Time = None  # PV2-8, EVN-3
    visit_authority: Coded = ""  # PV1-19.4, where houses that share patient numbers number visits each by itself
    placed_at: Time = None  # of the entity: since when there

    visit_number: Sought = ""  # PV1-19


class RequestEvent(NeedPart):
    """Somebody waits for a bed, an operation or a transfer. `unit` is the one asked for, where one is."""

    kind: ClassVar[str] = "request_event"

    due_at: Time = None
    requested_at: Time = None  # of the entity: when it was first told
    stay_hours: Number = None  # how long the stay is expected to be
    minutes: Number = None  # of theatre

    placer_number: Sought = ""  # ORC-2

    surgeon: Staff = ()


PARTS: tuple[type[Part], ...] = (
    LocationEvent,
    ShiftEvent,
    ResourceEvent,
    PriceEvent,
    PlacementEvent,
    RequestEvent,
    Score,
)

# What says the unit of a number.
MEASURED: dict[str, tuple[str, ...]] = {"price": ("currency",), "amount": ("currency",), "quantity": ("units",)}


def mapping() -> dict[str, Any]:
    """The strict mapping of the one index that holds every kind of part, and the entities."""
    return {"dynamic": "strict", "properties": dict(_PROPERTIES)}


_PROPERTIES = properties(PARTS, COMMON | {"stay": {"type": "keyword"}})  # streams/allocation/board.py joins stays by it
