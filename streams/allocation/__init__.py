"""Resource allocation on the stream: who lies where, who works where, and what should come next.

`read` makes a record of an operations event, or of one derived from a health record; `analyse` tells what places,
staff, stays and requests become by it. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from schemas.allocation import (
    AllocationPart,
    LocationEvent,
    PlacementEvent,
    PriceEvent,
    RequestEvent,
    ResourceEvent,
    ShiftEvent,
)
from schemas.derived import Derived
from schemas.document import Document, documents
from schemas.envelope import Envelope, rfc3339
from schemas.peers import Peers
from schemas.record import Record, StaffMember
from schemas.signal import Signal
from schemas.wire import operations
from streams.allocation import features, placement
from streams.allocation.board import STAY
from streams.fold import Change

MACHINERY = frozenset(("action", "flags", "nulls", "trigger", "status"))  # of the event, not of the thing
PLACE = frozenset(("unit", "room", "bed"))  # of a stay these follow from its history


def read(body: bytes, envelope: Envelope, peers: Peers, known: Collection[str] | None) -> Record:
    """Raises BadMessage. No text here is a patient's, so nobody's words need be `known`."""

    def authority(part: operations.OperationsPart) -> operations.OperationsPart:
        if isinstance(part, PlacementEvent) and (said := peers.of_source(envelope.source).visit_authority):
            return part.model_copy(update={"visit_authority": part.visit_authority or said})
        return part

    return operations.record(body, envelope, operations.ALLOCATION, authority)


def document(record: Record) -> list[Document]:
    return documents(record)


def analyse(record: Record, made: Sequence[Document], at: str) -> list[Change]:
    """What one event says of the one thing that it is about; it happened, or was told, `at`."""
    told = rfc3339(record.told_at) if record.told_at else ""
    parts = zip(record.parts, made, strict=True)
    return [change(part, one.clear, at, told) for part, one in parts if isinstance(part, AllocationPart)]


def change(part: AllocationPart, clear: Mapping[str, Any], at: str, told: str = "") -> Change:
    """The one change that a part makes; `clear` is what its document has in clear, so that an entity says no more."""
    now = _now(part, clear)
    match part:
        case LocationEvent():
            number = _number(part.site, part.unit, part.room, part.bed)
            return Change("location", number, None, now, entries=_statuses(part, told or at), at=told)
        case ShiftEvent():
            number = _number(part.site, part.shift_number)
            return Change("shift", number, None, now, staff=_members("member", part.member), at=told)
        case ResourceEvent():
            number = _number(part.site, part.resource_type, part.resource_id)
            return Change("resource", number, None, now, entries=_statuses(part, told or at), at=told)
        case PriceEvent():
            begins = rfc3339(part.valid_from) if part.valid_from else ""
            number = _number(part.site, part.payer, part.code_system, part.code, begins)
            return Change("price", number, None, now, at=told)
        case RequestEvent():
            number, sealed = _number(part.site, part.placer_number), _sealed(placer_number=part.placer_number)
            made = Change("request", number, part.subject, now, sealed, at=told, least={"requested_at": at})
            return replace(made, staff=_members("surgeon", part.surgeon))
        case PlacementEvent():
            kept = {name: value for name, value in now.items() if name not in PLACE | {"state"}}
            number = part.visit_number or "unnumbered"  # all stays without a number are one after the other
            if part.visit_number and part.visit_authority:
                number = _number(part.visit_authority, number)
            sealed, entries = _sealed(visit_number=part.visit_number), placement.entry(part, told or at, at)
            made = Change("placement", number, part.subject, kept, sealed, entries, told, resolve=placement.resolve)
            return replace(made, alike=STAY)
    raise TypeError(type(part).__name__)


def _number(*parts: str) -> str:
    """One text of several: no part can look like two."""
    return "\x1f".join(parts)


def _now(part: AllocationPart, clear: Mapping[str, Any]) -> dict[str, Any]:
    """What the thing is from now on: fields that were said, those that were cleared, and whether it is there at all."""
    said = {name: value for name, value in clear.items() if name not in MACHINERY}
    return dict.fromkeys(part.nulls) | said | {"state": operations.STATES[part.action]}


def _statuses(part: AllocationPart, at: str) -> dict[tuple[str, str], Any]:
    """What a prediction looks back at, and a board of an earlier time; of a room or a unit that alone."""
    if isinstance(part, LocationEvent) and not part.bed:
        gone = part.action != "set"
        return {(features.STATUSES, at): "" if gone else part.bed_status} if gone or part.bed_status else {}
    said = {name: value for name, _, value in part.fields()}
    return features.entries([{"kind": part.kind, **said}], at)


def _sealed(**said: str) -> dict[str, str | None]:
    return {name: value for name, value in said.items() if value}


def _members(name: str, members: tuple[StaffMember, ...]) -> dict[str, tuple[StaffMember, ...]]:
    return {name: members} if members else {}


def derive(record: Record) -> list[Signal | Derived]:
    """Nothing yet follows from one event alone: overloads and shortages are of a site's whole state."""
    return []
