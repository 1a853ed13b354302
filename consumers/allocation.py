"""The live state of sites, as a person asks for it: beds, staff, resources; as much as the caller may see.

Read from the index, half a second behind the stream at most. Everything is computed by streams/allocation/board.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from elasticsearch import helpers

from consumers.access import Caller
from consumers.search import answered
from infra.audit import Audit
from infra.elastic import client
from infra.errors import UsageError
from infra.keystore import KeyStore
from schemas.envelope import rfc3339
from schemas.registry import DOMAINS
from streams.allocation import board as boards
from streams.allocation import live
from streams.allocation.board import Board, Conflict, board
from streams.allocation.site import FREE, Bed, Need, Request
from streams.fold import Entity

OF = DOMAINS["allocation"]
PAGE = 2000
BED_FIELDS = ("unit", "room", "bed", "bed_status", "services", "features", "price")
PATIENT_FIELDS = ("patient_ref", "sex", "age", "hospital_service", "isolation")
STAFF_FIELDS = ("staff_ref", "role", "unit", "rooms", "skill", "load", "starts_at", "ends_at")
RESOURCE_FIELDS = (
    ("resource_type", "resource_id", "resource_status", "display", "unit", "room", "features", "price", "currency")
    + ("quantity", "units", "minutes", "position_x", "position_y")
)  # fmt: skip
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Near:
    """A unit, or a point on the site's plan in metres."""

    unit: str = ""
    point: tuple[float, float] | None = None


def near(said: str) -> Near:
    """Raises UsageError for what is neither."""
    x, comma, y = said.partition(",")
    if not comma:
        return Near(unit=said)
    try:
        point = float(x), float(y)
    except ValueError:
        point = math.nan, math.nan
    if not all(map(math.isfinite, point)):
        raise UsageError("--near takes a unit, or X,Y in metres")
    return Near(point=point)


def moment(said: str | None) -> datetime:
    """The time asked for: now, or RFC 3339 with a zone. Raises UsageError."""
    if said is None:
        return datetime.now(UTC)
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        raise UsageError("--at takes a time as RFC 3339 writes it: 2026-03-01T07:30:00+01:00") from None
    if at.tzinfo is None:
        raise UsageError("--at needs its zone: 2026-03-01T07:30:00+01:00, or Z")
    return at.astimezone(UTC)


# -------------------------------------------------------------------------------------------------------------- reading


def entities(site: str, at: datetime, *kinds: str, merged: Mapping[str, str] | None = None) -> dict[str, Entity]:
    """Everything that may count at that time, by id. Raises StackDown."""
    with answered(OF), client() as server:
        server.indices.refresh(index=OF.alias)

        def found(query: live.Query | None) -> dict[str, Entity]:
            if query is None:
                return {}
            hits = helpers.scan(server, index=OF.alias, query={"query": query}, size=PAGE)
            return {hit["_id"]: hit["_source"] for hit in hits}

        made = found(live.wanted(at, kinds, site))
        return made | found(live.closed(made.values(), site, merged))


def sites(found: Mapping[str, Entity]) -> list[str]:
    return sorted({one["site"] for one in found.values()})


def read(site: str, at: datetime, *kinds: str) -> list[Board]:
    """The boards of one site, or of all. Raises UsageError for a site that nothing is known of."""
    _, keys = KeyStore.local()
    merged = keys.merged()
    found = entities(site, at, *kinds, merged=merged)
    if site and not found:
        raise UsageError(f"nothing is known of a site {site!r}")
    return [board(one, found, at, merged) for one in ([site] if site else sites(found))]


# ----------------------------------------------------------------------------------------------------------------- beds


def beds(caller: Caller, site: str, unit: str, free: bool, at: datetime) -> list[Row]:
    """One row a site: its beds with who lies in them, who waits, and what cannot be so.

    Who lies in a bed is left out where the patient has denied the purpose; that somebody does is not.
    """
    caller.require(OF, "see", (*BED_FIELDS, *PATIENT_FIELDS))
    made = read(site, at, "location", "placement", "request")
    persons = caller.persons()
    rows: list[Row] = []
    for one in made:
        some = [bed for bed in one.site.beds.values() if unit in ("", bed.unit) and (not free or bed.status == FREE)]
        some.sort(key=lambda bed: bed.id)
        rows.append(
            {
                "site": one.site.id,
                "at": one.site.at,
                "beds": [_bed(bed, one, persons.permits) for bed in some],
                "waiting": [_request(request, persons.permits) for request in one.site.requests],
                "conflicts": [_conflict(conflict) for conflict in one.conflicts],
                "occupied": len(one.lying),
                "total": len(one.site.beds),
            }
        )
    refs = sorted({bed["patient_ref"] for row in rows for bed in (*row["beds"], *row["waiting"]) if bed["patient_ref"]})
    Audit.local().write(
        caller.act("E", patients=tuple(refs), entities=_named(made), fields=BED_FIELDS + PATIENT_FIELDS)
    )
    return rows


def _named(made: list[Board]) -> tuple[str, ...]:
    return tuple(one.site.id for one in made)


def _bed(bed: Bed, of: Board, permits: Any) -> Row:
    row: Row = {
        "unit": bed.unit,
        "room": bed.room,
        "bed": bed.id.rsplit("|", 1)[1],
        "status": bed.status,
        "services": sorted(bed.services),
        "features": sorted(bed.features),
        "price": bed.price,
        "patients": len(of.lying.get(bed.id, ())),
        "patient_ref": "",
    }
    if stay := next((of.stays[one] for one in of.lying.get(bed.id, ())), None):
        row["since_hours"] = -stay.since
        if permits(stay.need.patient):
            row |= _person(stay.need)
            row["leaves_hours"] = stay.need.leaves
    return row


def _person(need: Need) -> Row:
    return {
        "patient_ref": need.patient,
        "sex": need.sex,
        "age": need.age,
        "service": need.service,
        "isolation": need.isolation,
    }


def _request(request: Request, permits: Any) -> Row:
    row: Row = {"priority": request.priority, "waits_hours": request.waits, "due_hours": request.due, "patient_ref": ""}
    return row | (_person(request.need) if permits(request.need.patient) else {})


def _conflict(one: Conflict) -> Row:
    return {"kind": one.kind, "bed": one.bed, "refs": list(one.refs)}


# ------------------------------------------------------------------------------------------------------------ staff


def staff(caller: Caller, site: str, unit: str, at: datetime) -> list[Row]:
    """One row a site: who works at that time, by reference, and shifts that overlap."""
    caller.require(OF, "see", STAFF_FIELDS)
    made = read(site, at, "shift", "location", "placement", "request")
    rows = []
    for one in made:
        working = [shift for shift in one.shifts if shift.starts_at <= at < shift.ends_at and unit in ("", shift.unit)]
        rows.append(
            {
                "site": one.site.id,
                "at": one.site.at,
                "staff": [
                    {
                        "staff_ref": shift.ref,
                        "role": shift.role,
                        "unit": shift.unit,
                        "rooms": [room.split("|", 1)[1] for room in shift.rooms],
                        "skill": shift.skill,
                        "load": shift.load,
                        "starts_at": rfc3339(shift.starts_at),
                        "ends_at": rfc3339(shift.ends_at),
                    }
                    for shift in working
                ],
                "conflicts": [_conflict(c) for c in one.conflicts if c.kind == boards.SHIFT_OVERLAP],
            }
        )
    Audit.local().write(caller.act("E", entities=_named(made), fields=STAFF_FIELDS))
    return rows


# ------------------------------------------------------------------------------------------------------------ resources


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which resources are asked for."""

    type: str = ""
    near: Near | None = None
    max_price: float | None = None
    free: bool = False


def resources(caller: Caller, site: str, wanted: Wanted) -> list[Row]:
    """One row a resource, the nearest first where a place is given, else the cheapest. Raises UsageError."""
    caller.require(OF, "see", RESOURCE_FIELDS)
    found = entities(site, datetime.now(UTC), "resource", "location")
    rows = []
    for one in sites(found):
        mine = [entity for entity in found.values() if entity["site"] == one and entity["state"] == boards.ACTIVE]
        where = _point(wanted.near, mine) if wanted.near else None
        rows += [
            _resource(entity, where) for entity in mine if entity["kind"] == "resource" and _is_wanted(entity, wanted)
        ]
    if wanted.near is not None:
        if wanted.near.point is None and not any("metres" in row for row in rows) and rows:
            raise UsageError(f"no place on the plan is known for the unit {wanted.near.unit!r}")
        rows.sort(key=lambda row: (row.get("metres", math.inf), row.get("price", math.inf), row["resource_id"]))
    else:
        rows.sort(key=lambda row: (row["site"], row["resource_type"], row.get("price", math.inf), row["resource_id"]))
    Audit.local().write(caller.act("E", entities=tuple(sites(found)), fields=RESOURCE_FIELDS))
    return rows


def _is_wanted(one: Entity, wanted: Wanted) -> bool:
    if wanted.type and one["resource_type"] != wanted.type:
        return False
    if wanted.max_price is not None and one.get("price", math.inf) > wanted.max_price:
        return False
    return not wanted.free or is_free(one)


def is_free(one: Entity) -> bool:
    """Whether it could be used now; of a stock, whether some of it is left."""
    left = all(one.get(name, 1) > 0 for name in ("quantity", "minutes"))
    return left and one.get("resource_status", "available") == "available"


def _point(near: Near, mine: list[Entity]) -> tuple[float, float] | None:
    """The middle of a unit, by its beds and, without any, by whatever stands there."""
    if near.point is not None:
        return near.point
    there = [one for one in mine if one.get("unit") == near.unit and "position_x" in one and "position_y" in one]
    there = [one for one in there if one["kind"] == "location"] or there
    if not there:
        return None
    return (
        sum(one["position_x"] for one in there) / len(there),
        sum(one["position_y"] for one in there) / len(there),
    )


def _resource(one: Entity, where: tuple[float, float] | None) -> Row:
    row: Row = {"site": one["site"]} | {name: one[name] for name in RESOURCE_FIELDS if name in one}
    if where is not None and "position_x" in one and "position_y" in one:
        row["metres"] = round(math.dist(where, (one["position_x"], one["position_y"])), 1)
    return row
