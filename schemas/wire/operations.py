"""Operations events: one flat object on the wire (JSON, or a row of CSV) to one part, checked. Pure.

Of two domains, told apart by their type: resources (docs/operations.md) and service quality (docs/quality.md). The same
function serves the edge, which refuses, and the agents, which read what the edge has let in or what was derived from
records. The documents have every field; the tables below are their source.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args, get_origin

from infra.errors import BadMessage
from schemas import allocation, derived, quality
from schemas.allocation import (
    SNAPSHOT,
    AllocationPart,
    LocationEvent,
    PlacementEvent,
    PriceEvent,
    RequestEvent,
    ResourceEvent,
    ShiftEvent,
)
from schemas.envelope import Envelope
from schemas.marks import Clinical, Staffed
from schemas.quality import CaseEvent, DeathEvent, OutcomeEvent, QualityPart, ReportEvent, StaffingEvent
from schemas.record import Identifier, Record, StaffMember, Subject
from schemas.scrub import Scrubber
from schemas.wire.fhir import load

CONTENT_TYPE = "application/x-wardstream-operation+json"
ALLOCATION, QUALITY = "allocation", "quality"  # domains
OperationsPart = AllocationPart | QualityPart
CLOCK_SKEW = timedelta(minutes=10)  # an event further ahead of its arrival has a wrong clock
LONGEST = 200  # characters of a word
MOST = 200  # words of a list
OLDEST_AGE = 90  # stands for all above (45 CFR 164.514(b)(2)(i)(C))
LARGEST = 1e12

# Why an event is refused, and the HTTP status that says so. The sender must mend it; what is not here is ours to mend.
REFUSALS: dict[str, int] = {
    "bad_json": 400,  # no object, or no JSON
    "bad_charset": 400,
    "no_event": 400,  # a file without any
    "bad_csv": 400,  # no header, a name twice in it, more values than names
    "json_too_deep": 400,
    "json_too_wide": 400,
    "too_large": 413,
    "unknown_type": 400,
    "unknown_field": 400,  # of this type; its name is left out, since it may be anything
    "missing_field": 400,
    "bad_value": 400,  # not a word, or not one of the table's
    "bad_number": 400,
    "bad_date": 400,  # not RFC 3339 with a zone
    "negative_price": 400,
    "bad_interval": 400,  # ends before it begins
    "bad_risk": 400,  # no probability
    "no_such_path": 404,
    "not_supported": 405,
    "slow_body": 408,
    "bad_media_type": 415,
    "erased": 422,
    "overloaded": 429,
    "internal_error": 500,
}

STATES = {"set": "active", "cancel": "cancelled", "delete": "deleted"}  # of a thing, by the action that was told
ACTIONS = frozenset(STATES)
# Steps of a stay (table 0003) that an event may name; without one it is what its action says.
TRIGGERS = frozenset(
    ("A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08", "A11", "A12", "A13", "A14", "A17", "A27", "A38")
)
BY_ACTION = {"set": "A02", "cancel": "A12", "delete": "A11"}

COMMON = frozenset(("type", "id", "site", "at", "action"))
PATIENT = frozenset(("patient_number", "patient_number_type", "patient_authority"))
WITHHELD = frozenset(("site", "action", "flags", "nulls", "declared", "placed_at", "requested_at", "identifiers"))


def _staff(name: str) -> frozenset[str]:
    return frozenset((f"{name}_number", f"{name}_name", f"{name}_authority"))


@dataclass(frozen=True, slots=True)
class Type:
    """A type of event: its part, what `id` is called there, and what a `set` and what any action must say."""

    part: type[OperationsPart]
    id: str = ""
    set: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    patient: bool = False
    member: tuple[str, str] = ("", "")  # what a member of staff is called on the wire, and in the part
    domain: str = ALLOCATION

    def fields(self) -> frozenset[str]:
        own = self.part.marks.keys() - WITHHELD - {self.id, self.member[1]}
        return (
            COMMON | own | (PATIENT if self.patient else set()) | (_staff(self.member[0]) if self.member[0] else set())
        )


TYPES: dict[str, Type] = {
    "location": Type(LocationEvent, any=("unit",)),
    "shift": Type(ShiftEvent, "shift_number", ("starts_at", "ends_at"), ("id",), member=("staff", "member")),
    "resource": Type(ResourceEvent, "resource_id", (), ("id", "resource_type")),
    "price": Type(PriceEvent, "", ("amount", "currency"), ("code",)),
    "placement": Type(PlacementEvent, "visit_number", (), (), patient=True),
    "request": Type(RequestEvent, "placer_number", (), ("id",), patient=True, member=("surgeon", "surgeon")),
    "case": Type(CaseEvent, "case_number", (), ("id",), patient=True, domain=QUALITY),
    "death": Type(DeathEvent, "case_number", ("died_at",), (), patient=True, domain=QUALITY),
    "outcome": Type(OutcomeEvent, "case_number", ("event",), ("id", "measure"), patient=True, domain=QUALITY),
    "report": Type(ReportEvent, "case_number", ("reporter",), ("instrument",), patient=True, domain=QUALITY),
    "staffing": Type(StaffingEvent, "", ("staffing", "starts_at", "ends_at"), ("unit",), domain=QUALITY),
}
FIELDS = {name: one.fields() for name, one in TYPES.items()}
TABLES: dict[str, frozenset[str]] = {
    "bed_status": allocation.BED_STATUS,
    "resource_type": allocation.RESOURCE_TYPES,
    "resource_status": allocation.RESOURCE_STATUS,
    "price_source": allocation.PRICE_SOURCES,
    "reporter": quality.REPORTERS,
    "staffing": quality.STAFFING,
}
TRUE, FALSE = frozenset(("true", "yes", "1")), frozenset(("false", "no", "0"))  # of a row of CSV
MONEY = frozenset(("price", "amount"))
SIGNED = frozenset(("position_x", "position_y", "score", "risk_score"))
INTERVALS = (("starts_at", "ends_at"), ("valid_from", "valid_to"))
WHOLE_DAYS = frozenset(("valid_from", "valid_to", "died_at"))  # a date alone will do: from its beginning, to its end
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_SITE = re.compile(r"[^\x00-\x1f\x7f]{1,64}")


@dataclass(frozen=True, slots=True)
class Event:
    """What one event says. `id` is the sender's own number of the thing, `told_at` when a version was told."""

    type: str
    id: str
    site: str
    at: datetime | None  # None: as of its arrival (a price list)
    part: OperationsPart
    subjects: tuple[Subject, ...]
    told_at: datetime | None = None


def read(said: Mapping[str, Any], source: str, *, derived: bool = False) -> Event:
    """The event in an object from `source`. Raises BadMessage, with the name of the field, never its content.

    `derived`: from a record, whose patient is known by the seal, and not by a number.
    """
    name = said.get("type")
    if not isinstance(name, str) or name not in TYPES:
        raise BadMessage("unknown_type", "type")
    kind = TYPES[name]
    allowed = FIELDS[name] | {"told_at"} if derived else FIELDS[name]
    if said.keys() - allowed:
        raise BadMessage("unknown_field", name)
    given = {field: value for field, value in said.items() if value not in (None, "", [])}
    site, action = _site(given), given.get("action", "set")
    if not isinstance(action, str) or action not in ACTIONS:
        raise BadMessage("bad_value", "action")
    wanted = kind.any + (kind.set if action == "set" else ())
    if kind.patient and not derived:
        wanted += ("patient_number",)
    if name != "price":
        wanted += ("at",)
    for field in wanted:
        if field not in given:
            raise BadMessage("missing_field", field)
    fields = {field: READERS[name][field](field, value) for field, value in given.items() if field in READERS[name]}
    _check(fields)
    number = _word("id", given.get("id", ""))
    if kind.id and number:
        fields[kind.id] = number
    if name == "placement":
        fields["trigger"] = _trigger(fields.get("trigger", ""), action, derived)
    if name == "location":
        fields |= _place(fields) | ({} if derived else {"declared": True})
    if "age" in fields:
        fields["age"] = min(fields["age"], OLDEST_AGE)
    if kind.member[0]:
        fields |= _member(kind.member, given, site, required=name == "shift" and action == "set")
    subjects: tuple[Subject, ...] = ()
    if kind.patient:
        subjects = (_patient(given, site),)
        fields["subject"] = 0
        fields["identifiers"] = tuple(one.value for one in subjects[0].identifiers)
    elif "member" in fields:
        subjects = (_of_staff(fields["member"][0], source),)
    nulls = tuple(sorted(field for field, value in said.items() if value is None and field in READERS[name]))
    return Event(
        name,
        number,
        site,
        _time("at", given["at"]) if "at" in given else None,
        kind.part(site=site, action=action, nulls=nulls, **fields),
        subjects,
        _time("told_at", given["told_at"]) if "told_at" in given else None,
    )


def record(
    body: bytes,
    envelope: Envelope,
    domain: str,
    change: Callable[[OperationsPart], OperationsPart] = lambda part: part,
) -> Record:
    """The record of an event of a domain; `change` what is known of its source. Raises BadMessage."""
    event = read(load(body), envelope.source, derived=envelope.content_type == derived.CONTENT_TYPE)
    if TYPES[event.type].domain != domain:
        raise BadMessage("unknown_type", "type")
    part, at, received = change(event.part), event.at, envelope.received()
    if at is not None and at > received + CLOCK_SKEW:
        at = received
        part = part.model_copy(update={"flags": (*part.flags, "future_time")})
    terms = tuple(one.value for subject in event.subjects for one in subject.identifiers)
    part = _without_names(part, terms)
    return Record(subjects=event.subjects, parts=(part,), terms=terms, event_time=at, told_at=event.told_at)


def _without_names(part: OperationsPart, terms: tuple[str, ...]) -> OperationsPart:
    """The part without coded words in which the event's own patient or member of staff stands: they go in clear.

    Flagged as in FHIR, and not refused, since events that were let in once are read again.
    """
    members = [one for _, mark, value in part.fields() if isinstance(mark, Staffed) for one in value]
    own = {*terms, *(one.name for one in members), *(one.identifier.value for one in members if one.identifier)}
    scrubber = Scrubber(own)
    kept: dict[str, Any] = {}
    for name, mark, value in part.fields() if own else ():
        if isinstance(mark, Clinical) and not mark.text:
            if isinstance(value, str) and scrubber.holds(value):
                kept[name] = ""
            elif isinstance(value, tuple) and (gone := {one for one in value if scrubber.holds(one)}):
                kept[name] = tuple(one for one in value if one not in gone)
    flags = (*part.flags, *(f"not_a_code:{one}" for one in kept))
    return part.model_copy(update=kept | {"flags": flags}) if kept else part


# --------------------------------------------------------------------------------------------------------------- values


def _word(field: str, value: Any) -> str:
    """A word. A number will do, since rooms and beds are numbered; true and false will not."""
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value := value.strip()) > LONGEST or not value.isprintable():
        raise BadMessage("bad_value", field)
    if field in TABLES and value not in TABLES[field]:
        raise BadMessage("bad_value", field)
    if field == "currency" and not _CURRENCY.fullmatch(value):
        raise BadMessage("bad_value", field)
    return value


def _words(field: str, value: Any) -> tuple[str, ...]:
    """A list of words; in one text they are parted by `;`."""
    some = value.split(";") if isinstance(value, str) else value
    if not isinstance(some, list) or len(some) > MOST:
        raise BadMessage("bad_value", field)
    return tuple(dict.fromkeys(word for one in some if (word := _word(field, one))))


def _number(field: str, value: Any) -> float:
    """A finite number, none below 0 but for places on a plan."""
    try:
        made = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        made = math.nan
    if not abs(made) <= LARGEST:  # so that NaN is refused too
        raise BadMessage("bad_number", field)
    if made < 0 and field not in SIGNED:
        raise BadMessage("negative_price" if field in MONEY else "bad_number", field)
    return made


def _count(field: str, value: Any) -> int:
    made = _number(field, value)
    if made != int(made) or made > 1_000_000:
        raise BadMessage("bad_number", field)
    return int(made)


def _flag(field: str, value: Any) -> bool:
    """True or false; in a row of CSV yes or no, 1 or 0 as well."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int) and (said := str(value).strip().lower()) in TRUE | FALSE:
        return said in TRUE
    raise BadMessage("bad_value", field)


def _time(field: str, value: Any) -> datetime:
    """RFC 3339 with a zone; where a day is meant, a date as well."""
    days = 1 if field == "valid_to" else 0
    try:
        if isinstance(value, str) and _RFC3339.fullmatch(value):
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        if isinstance(value, str) and field in WHOLE_DAYS and _DATE.fullmatch(value):
            return datetime.fromisoformat(value).replace(tzinfo=UTC) + timedelta(days=days)
    except (ValueError, OverflowError):
        pass
    raise BadMessage("bad_date", field)


def _reader(annotation: Any) -> Callable[[str, Any], Any] | None:
    if get_origin(annotation) is tuple:
        return _words if get_args(annotation)[0] is str else None
    one = next(iter(get_args(annotation)), annotation)
    return {str: _word, float: _number, int: _count, bool: _flag, datetime: _time}.get(one)


READERS: dict[str, dict[str, Callable[[str, Any], Any]]] = {
    name: {
        field: reader
        for field in FIELDS[name] & one.part.marks.keys() - COMMON
        if (reader := _reader(one.part.model_fields[field].annotation))
    }
    for name, one in TYPES.items()
}


# --------------------------------------------------------------------------------------------------------------- checks


def _site(given: Mapping[str, Any]) -> str:
    if "site" not in given:
        raise BadMessage("missing_field", "site")
    if not isinstance(site := given["site"], str) or not _SITE.fullmatch(site.strip()):
        raise BadMessage("bad_value", "site")
    return site.strip()


def _check(fields: Mapping[str, Any]) -> None:
    for begin, end in INTERVALS:
        if begin in fields and end in fields and fields[end] <= fields[begin]:
            raise BadMessage("bad_interval", end)
    if "discharged_at" in fields and fields["discharged_at"] < fields.get("admitted_at", fields["discharged_at"]):
        raise BadMessage("bad_interval", "discharged_at")  # who dies on arrival stays for no time
    if fields.get("measure") in quality.MEASURES:
        raise BadMessage("bad_value", "measure")
    if not 0 <= fields.get("expected_risk", 0) <= 1:
        raise BadMessage("bad_risk", "expected_risk")


def _trigger(given: str, action: str, derived: bool) -> str:
    if not given:
        return BY_ACTION[action]
    if given not in TRIGGERS and not (derived and given == SNAPSHOT):
        raise BadMessage("bad_value", "trigger")
    return given


def _place(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A bed lies in a room or straight in its unit."""
    return {name: fields.get(name, "") for name in ("room", "bed")}


def _member(member: tuple[str, str], given: Mapping[str, Any], site: str, required: bool) -> dict[str, Any]:
    """The member of staff: by number, by name, or both; the number's authority is the site unless another is said."""
    wire, field = member
    number, name = (_word(f"{wire}_{one}", given.get(f"{wire}_{one}", "")) for one in ("number", "name"))
    if not number and not name:
        if required:
            raise BadMessage("missing_field", f"{wire}_number")
        return {}
    authority = _word(f"{wire}_authority", given.get(f"{wire}_authority", "")) or site
    identifier = Identifier(authority=authority, type="", value=number) if number else None
    return {field: (StaffMember(role=field, identifier=identifier, name=name),)}


def _of_staff(member: StaffMember, source: str) -> Subject:
    """A shift is about nobody but the member, and is sealed under his or her key."""
    known = member.identifier or Identifier(authority=source, type="name", value=member.name)
    return Subject(identifiers=(known,), kind="staff")


def _patient(given: Mapping[str, Any], site: str) -> Subject:
    """Known by a number, unless by the seal."""
    if not (number := _word("patient_number", given.get("patient_number", ""))):
        return Subject(identifiers=())
    authority = _word("patient_authority", given.get("patient_authority", "")) or site
    kind = _word("patient_number_type", given.get("patient_number_type", "")) or "MR"
    return Subject(identifiers=(Identifier(authority=authority, type=kind.upper(), value=number),))
