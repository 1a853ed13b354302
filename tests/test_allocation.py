"""Operations events: what each says, what is refused and why, and what health records say of beds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadMessage
from producers import operations
from producers.feeds import folder
from producers.publish import Arrival
from schemas import derived
from schemas.allocation import LocationEvent, PlacementEvent, PriceEvent, RequestEvent, ResourceEvent, ShiftEvent
from schemas.derived import Derived
from schemas.document import Document
from schemas.envelope import Envelope, rfc3339
from schemas.peers import Peer, Peers
from schemas.record import Record
from schemas.wire import operations as events
from schemas.wire.hl7v2 import Message
from streams import allocation, ehr
from streams.ehr import fhir, hl7v2
from streams.fold import Change

SAMPLES = Path(__file__).resolve().parent / "samples" / "allocation"
SOURCE = "operations:x"
NOW = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)
AT = "2026-03-01T12:00:00Z"
HEAD = {"site": "NORTH", "at": AT}
BED = {"type": "location", "unit": "ICU", "room": "2", "bed": "1", **HEAD}
SHIFT = {
    "type": "shift", "id": "S1", "staff_number": "N1", "staff_name": "Okonkwo Ada", "role": "nurse",
    "starts_at": "2026-03-01T06:00:00+01:00", "ends_at": "2026-03-01T14:00:00+01:00", **HEAD,
}  # fmt: skip
PUMP = {"type": "resource", "id": "P1", "resource_type": "equipment", "price": 12.5, "currency": "EUR", **HEAD}
PRICE = {"type": "price", "code": "99213", "amount": "92.05", "currency": "USD", "site": "NORTH"}
PLACED = {"type": "placement", "id": "V1", "patient_number": "7001", "unit": "ICU", "room": "2", "bed": "1", **HEAD}
ASKED = {"type": "request", "id": "R1", "patient_number": "7001", "priority": 2, **HEAD}


def analysed(said: Record) -> list[Change]:
    return allocation.analyse(said, allocation.document(said), AT)


def envelope(content_type: str = events.CONTENT_TYPE) -> Envelope:
    return Envelope("e1", "operations:x", "*|*", content_type, "", rfc3339(NOW), "", "t", ("s",), (1,), (), b"")


def record(said: Mapping[str, Any], content_type: str = events.CONTENT_TYPE) -> Record:
    return allocation.read(json.dumps(said).encode(), envelope(content_type), Peers(), None)


def problem(said: Mapping[str, Any]) -> tuple[str, str]:
    with pytest.raises(BadMessage) as caught:
        events.read(said, SOURCE)
    return caught.value.reason, caught.value.where


# -------------------------------------------------------------------------------------------------------------- reading


def test_a_bed() -> None:
    event = events.read(
        BED | {"bed_status": "U", "services": "MED;CAR", "features": ["oxygen"], "price": "310.50"}, SOURCE
    )
    part = event.part
    assert isinstance(part, LocationEvent)
    assert (part.site, part.unit, part.room, part.bed, part.bed_status) == ("NORTH", "ICU", "2", "1", "U")
    assert (part.services, part.features, part.price, part.declared) == (("MED", "CAR"), ("oxygen",), 310.5, True)
    assert event.at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert event.subjects == ()


def test_a_shift() -> None:
    part = events.read(SHIFT | {"rooms": ["1", 2], "skill": 3}, SOURCE).part
    assert isinstance(part, ShiftEvent)
    assert (part.starts_at, part.ends_at) == tuple(datetime(2026, 3, 1, hour, tzinfo=UTC) for hour in (5, 13))
    assert (part.rooms, part.skill, part.shift_number) == (("1", "2"), 3, "S1")
    (member,) = part.member
    assert member.identifier is not None
    assert (member.identifier.authority, member.identifier.value, member.name) == ("NORTH", "N1", "Okonkwo Ada")
    (whose,) = events.read(SHIFT, SOURCE).subjects
    assert (whose.kind, whose.identifiers) == ("staff", (member.identifier,)), "sealed under the member's own key"


def test_a_resource_and_what_is_cleared() -> None:
    part = events.read(PUMP | {"room": None}, SOURCE).part
    assert isinstance(part, ResourceEvent)
    assert (part.resource_id, part.resource_type, part.price, part.nulls) == ("P1", "equipment", 12.5, ("room",))
    (change,) = analysed(record(PUMP | {"room": None}))
    assert change.clear["room"] is None
    assert change.subject is None, "it is nobody's"


def test_a_price_needs_neither_id_nor_time() -> None:
    event = events.read(PRICE | {"valid_from": "2026-01-01", "valid_to": "2026-12-31"}, SOURCE)
    part = event.part
    assert isinstance(part, PriceEvent)
    assert event.at is None
    assert part.valid_from == datetime(2026, 1, 1, tzinfo=UTC)
    assert part.valid_to == datetime(2027, 1, 1, tzinfo=UTC), "to the end of its last day"


def test_a_placement_and_a_request() -> None:
    placed, asked = events.read(PLACED | {"age": 94}, SOURCE), events.read(ASKED | {"surgeon_name": "Who"}, SOURCE)
    assert isinstance(placed.part, PlacementEvent)
    assert (placed.part.trigger, placed.part.visit_number, placed.part.age) == ("A02", "V1", 90)
    assert placed.subjects[0].identifiers[0].value == "7001"
    assert isinstance(asked.part, RequestEvent)
    assert (asked.part.placer_number, asked.part.priority, asked.part.surgeon[0].name) == ("R1", 2, "Who")


@pytest.mark.parametrize(("action", "trigger"), [("set", "A02"), ("cancel", "A12"), ("delete", "A11")])
def test_an_action_stands_for_a_trigger(action: str, trigger: str) -> None:
    part = events.read(PLACED | {"action": action}, SOURCE).part
    assert isinstance(part, PlacementEvent)
    assert part.trigger == trigger


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "no type": (HEAD, ("unknown_type", "type")),
    "another type": (BED | {"type": "bed"}, ("unknown_type", "type")),
    "a type that is no word": (BED | {"type": ["location"]}, ("unknown_type", "type")),
    "an unknown field": (BED | {"colour": "blue"}, ("unknown_field", "location")),
    "a field of another type": (BED | {"starts_at": AT}, ("unknown_field", "location")),
    "what only derived events say": (BED | {"told_at": AT}, ("unknown_field", "location")),
    "what nobody may say": (BED | {"declared": True}, ("unknown_field", "location")),
    "a negative price": (PUMP | {"price": -1}, ("negative_price", "price")),
    "a negative price, as text": (PUMP | {"price": "-0.01"}, ("negative_price", "price")),
    "a negative amount": (PRICE | {"amount": -5}, ("negative_price", "amount")),
    "a price that is none": (PUMP | {"price": "cheap"}, ("bad_number", "price")),
    "a price without end": (PUMP | {"price": "1e999"}, ("bad_number", "price")),
    "a number that is none": (PUMP | {"quantity": "nan"}, ("bad_number", "quantity")),
    "a truth as a number": (PUMP | {"quantity": True}, ("bad_number", "quantity")),
    "half a level of skill": (SHIFT | {"skill": 1.5}, ("bad_number", "skill")),
    "ends before it begins": (SHIFT | {"ends_at": "2026-03-01T05:00:00+01:00"}, ("bad_interval", "ends_at")),
    "ends as it begins": (SHIFT | {"ends_at": SHIFT["starts_at"]}, ("bad_interval", "ends_at")),
    "a price that ends first": (
        PRICE | {"valid_from": "2026-02-01", "valid_to": "2026-01-01"},
        ("bad_interval", "valid_to"),
    ),
    "no zone": (BED | {"at": "2026-03-01T12:00:00"}, ("bad_date", "at")),
    "a date alone": (BED | {"at": "2026-03-01"}, ("bad_date", "at")),
    "a day that is not": (BED | {"at": "2026-02-30T12:00:00Z"}, ("bad_date", "at")),
    "a time that is a number": (BED | {"at": 1772366400}, ("bad_date", "at")),
    "no time": ({**BED, "at": ""}, ("missing_field", "at")),
    "no site": ({**BED, "site": ""}, ("missing_field", "site")),
    "a site of control characters": (BED | {"site": "NO\x07RTH"}, ("bad_value", "site")),
    "no unit": ({**BED, "unit": None}, ("missing_field", "unit")),
    "another action": (BED | {"action": "upsert"}, ("bad_value", "action")),
    "another status": (BED | {"bed_status": "free"}, ("bad_value", "bed_status")),
    "another kind of resource": (PUMP | {"resource_type": "bed"}, ("bad_value", "resource_type")),
    "a currency by name": (PUMP | {"currency": "euro"}, ("bad_value", "currency")),
    "a word that is an object": (BED | {"room": {"number": 2}}, ("bad_value", "room")),
    "a word without end": (BED | {"room": "x" * 201}, ("bad_value", "room")),
    "a list without end": (BED | {"features": [str(n) for n in range(300)]}, ("bad_value", "features")),
    "a trigger of something else": (PLACED | {"trigger": "A40"}, ("bad_value", "trigger")),
    "a snapshot from outside": (PLACED | {"trigger": "Encounter"}, ("bad_value", "trigger")),
    "nobody": ({**PLACED, "patient_number": ""}, ("missing_field", "patient_number")),
    "a shift of nobody": ({**SHIFT, "staff_number": "", "staff_name": ""}, ("missing_field", "staff_number")),
    "a shift without an end": ({**SHIFT, "ends_at": ""}, ("missing_field", "ends_at")),
    "a request without a number": ({**ASKED, "id": ""}, ("missing_field", "id")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    said, expected = REFUSED[name]
    assert problem(said) == expected
    assert expected[0] in events.REFUSALS, "each reason has its status"


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_tells_no_value(name: str) -> None:
    said, _ = REFUSED[name]
    with pytest.raises(BadMessage) as caught:
        events.read(said, SOURCE)
    assert not {"blue", "cheap", "7001", "euro"} & set(str(caught.value).split())


def test_a_shift_is_called_off_by_its_number_alone() -> None:
    (change,) = analysed(record({"type": "shift", "id": "S1", "action": "cancel", **HEAD}))
    assert change.clear == {"site": "NORTH", "state": "cancelled"}


def test_a_clock_an_hour_ahead_is_capped_and_flagged() -> None:
    ahead = record(BED | {"at": rfc3339(NOW + timedelta(hours=1))})
    assert ahead.event_time == NOW
    assert ahead.parts[0].flags == ("future_time",)  # type: ignore[attr-defined]
    late = record(BED | {"at": rfc3339(NOW - timedelta(hours=1))})
    assert late.event_time == NOW - timedelta(hours=1), "a clock behind cannot be told from an event that comes late"


def test_the_patients_number_is_sealed_and_the_place_is_not() -> None:
    (made,) = allocation.document(record(PLACED | {"sex": "F", "isolation": "MRSA"}))
    assert isinstance(made, Document)
    assert made.clear["unit"] == "ICU"
    assert set(made.identifying) == {"identifiers", "visit_number"}
    assert not {"7001", "V1"} & {str(value) for value in made.clear.values()}


@pytest.mark.parametrize(
    ("said", "field", "kept"),
    [
        (PLACED | {"patient_number": "700123", "needs": ["monitor", "ask 700-123"]}, "needs", ["monitor"]),
        (PLACED | {"patient_number": "QX77", "unit": "qx77 home"}, "unit", None),
        (PLACED | {"patient_number": "700123", "isolation": "MRSA 700123"}, "isolation", None),
        (PLACED | {"patient_number": "700123", "isolation": "MRSA 1700123"}, "isolation", "MRSA 1700123"),
        (ASKED | {"surgeon_name": "Quetzal Ilse", "hospital_service": "Quetzal, Ilse"}, "hospital_service", None),
        (SHIFT | {"staff_number": "N90417", "role": "nurse N90417"}, "role", None),
        (SHIFT, "role", "nurse"),
    ],
)
def test_a_coded_word_that_names_the_event_s_own_person_is_none(said: Any, field: str, kept: Any) -> None:
    (made,) = allocation.document(record(said))
    assert made.clear.get(field) == kept
    gone = kept != said[field]
    assert made.clear.get("flags") == ([f"not_a_code:{field}"] if gone else None)
    (change,) = analysed(record(said))
    assert change.clear.get(field) == kept


def test_the_staff_s_name_is_sealed_under_its_own_key() -> None:
    (made,) = allocation.document(record(SHIFT))
    assert made.staff["member"][0].name == "Okonkwo Ada"
    assert "Okonkwo" not in json.dumps(made.clear)
    (change,) = analysed(record(SHIFT))
    assert change.staff["member"] == made.staff["member"]
    assert "Okonkwo" not in json.dumps(change.clear)


# ---------------------------------------------------------------------------------------------------------------- files


def take(said: Mapping[str, Any], at: datetime) -> Arrival:
    return operations.arrival(said, "x", {}, at)


def ends(*paths: Path, defaults: Mapping[str, str] | None = None) -> list[tuple[str, int, str]]:
    def taken(said: Mapping[str, Any], at: datetime) -> Arrival:
        return operations.arrival(said, "x", defaults or {}, at)

    return [
        (item.file.name, item.position, item.made.reason if isinstance(item.made, BadMessage) else "")
        for item in operations.items(paths, taken)
    ]


def test_samples_are_read() -> None:
    found = folder.files([SAMPLES], operations.ENDINGS)
    reasons = [reason for _, _, reason in ends(*found) if reason]
    assert reasons == ["negative_price", "bad_interval", "unknown_type", "unknown_field", "bad_json"]
    assert len(ends(*found)) > 60


def test_a_row_and_an_object_that_say_the_same_are_one_event(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("type,site,at,unit,room,bed\nlocation,NORTH,2026-03-01T12:00:00Z,ICU,2,1\n")
    (tmp_path / "b.ndjson").write_text(json.dumps(BED) + "\n")
    made = [item.made for item in operations.items([tmp_path / "a.csv", tmp_path / "b.ndjson"], take)]
    assert isinstance(made[0], Arrival)
    assert isinstance(made[1], Arrival)
    assert (made[0].body, made[0].ids, made[0].site) == (made[1].body, made[1].ids, "NORTH")


def test_a_price_list_of_an_insurer(tmp_path: Path) -> None:
    """Rows that name neither type nor site: the command does."""
    (tmp_path / "list.csv").write_text(
        "\ufeffcode,display,amount,currency,valid_from,valid_to,payer\r\n"
        '0120,"Room, semi-private",1480,USD,2026-01-01,,ACME\r\n'
    )
    assert ends(tmp_path / "list.csv", defaults={"type": "price", "site": "NORTH"}) == [("list.csv", 0, "")]
    assert ends(tmp_path / "list.csv", defaults={"type": "price"}) == [("list.csv", 0, "missing_field")]


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (b"type,type\nlocation,location\n", ["bad_csv"]),
        (b"type,,site\nlocation,,N\n", ["bad_csv"]),
        (b"", ["bad_csv"]),
        (b"type,site\nlocation,N,extra\nprice,N\n", ["bad_csv", "missing_field"]),
        (b'type,site\n"location,N\n', ["bad_csv"]),
        (b"type,site\n\xff\xfe,N\n", ["bad_charset"]),
    ],
)
def test_bad_csv(tmp_path: Path, text: bytes, reasons: list[str]) -> None:
    (tmp_path / "x.csv").write_bytes(text)
    made = [reason for _, _, reason in ends(tmp_path / "x.csv")]
    assert made == reasons


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("[]", ["no_event"]),
        ("[1, 2]", ["bad_json"]),
        ('"location"', ["bad_json"]),
        ('{"type": "location", "type": "shift"}', ["bad_json"]),
        ("[" * 70 + "]" * 70, ["json_too_deep"]),
        (json.dumps([BED, {"type": "?"}, BED]), ["", "unknown_type", ""]),
    ],
)
def test_bad_json(tmp_path: Path, text: str, reasons: list[str]) -> None:
    (tmp_path / "x.json").write_text(text)
    assert [reason for _, _, reason in ends(tmp_path / "x.json")] == reasons


# -------------------------------------------------------------------------------------------------------------- derived


PID = "PID|1||7001^^^HOSP^MR||Vant^Ilse^M||19800102|F"
PV1 = "PV1|1|I|ICU^2^1^HOSP|U||||||MED|||||||||V77"


def hl7(kind: str, *segments: str) -> list[Derived]:
    header = f"MSH|^~\\&|APP|FAC|US|HERE|20260301120000||{kind}|C1|P|2.5"
    raw = ("\r".join((header, *segments)) + "\r").encode()
    made = ehr.derive(hl7v2.read(Message.read(raw), Peer.model_validate({}), NOW))
    return [one for one in made if isinstance(one, Derived) and one.domain == "allocation"]


@pytest.mark.parametrize("trigger", sorted(events.TRIGGERS))
def test_each_step_of_a_stay_is_told_on(trigger: str) -> None:
    (one,) = hl7(f"ADT^{trigger}", PID, PV1, "PV2|||||||||20260304")
    assert (one.domain, one.subject, one.site) == ("allocation", 0, "HOSP")
    part = record(one.body | HEAD, derived.CONTENT_TYPE).parts[0]
    assert isinstance(part, PlacementEvent)
    assert (part.trigger, part.visit_number, part.unit, part.room, part.bed) == (trigger, "V77", "ICU", "2", "1")
    assert (part.sex, part.age, part.hospital_service, part.patient_class) == ("F", 46, "MED", "I")
    assert part.expected_discharge_at == datetime(2026, 3, 4, tzinfo=UTC)
    assert "Vant" not in json.dumps(one.body), "the body names nobody"
    assert "7001" not in json.dumps(one.body)


def test_a_place_that_holds_the_patient_s_number_is_not_told_on() -> None:
    pid = PID.replace("7001", "700123").replace("Vant", "North")
    (one,) = hl7("ADT^A01", pid, "PV1|1|I|NORTH^700123^1^HOSP")
    assert {name: one.body.get(name) for name in ("unit", "room", "bed")} == {"unit": "NORTH", "room": None, "bed": "1"}


def test_the_house_is_the_sender_s_where_the_place_names_none() -> None:
    (one,) = hl7("ADT^A01", PID, "PV1|1|I|ICU^2^1")
    assert one.site == "FAC"


@pytest.mark.parametrize("kind", ["ADT^A16", "ADT^A31", "ORU^R01", "ORM^O01"])
def test_others_move_nobody(kind: str) -> None:
    assert hl7(kind, PID, PV1) == []


def test_the_status_of_a_bed() -> None:
    (one,) = hl7("ADT^A20", "EVN|A20|20260301115900", "NPU|ICU^2^1^HOSP|H")
    assert (one.subject, one.site) == (None, "HOSP")
    part = record(one.body | HEAD, derived.CONTENT_TYPE).parts[0]
    assert isinstance(part, LocationEvent)
    assert (part.unit, part.room, part.bed, part.bed_status, part.declared) == ("ICU", "2", "1", "H", None)
    assert hl7("ADT^A20", "EVN|A20|20260301115900", "NPU|ICU^2^1^HOSP|?") == [], "a status of no table"


def test_adt_without_a_patient_is_still_refused() -> None:
    with pytest.raises(BadMessage, match="missing_segment at PID"):
        hl7("ADT^A08", "NPU|ICU^2^1^HOSP|H")


def fhir_events(resource: dict[str, Any], *context: dict[str, Any]) -> list[Derived]:
    first = {"fullUrl": "urn:x", "resource": resource}
    others = [{"fullUrl": f"{one['resourceType']}/{one['id']}", "resource": one} for one in context]
    body = json.dumps({"resourceType": "Bundle", "type": "collection", "entry": [first, *others]}).encode()
    made = ehr.derive(fhir.read(body, Peer.model_validate({}), NOW, "fhir:x"))
    return [one for one in made if isinstance(one, Derived) and one.domain == "allocation"]


def place(id: str, kind: str, name: str, parent: str = "", **more: Any) -> dict[str, Any]:
    made = {
        "resourceType": "Location", "id": id, "name": name, "status": "active",
        "physicalType": {"coding": [{"code": kind}]}, **more,
    }  # fmt: skip
    return made | ({"partOf": {"reference": f"Location/{parent}"}} if parent else {})


WARD = (place("s", "si", "HOSP"), place("w", "wa", "ICU", "s"), place("r", "ro", "2", "w"))
PLACES = (*WARD, place("b", "bd", "1", "r"))


def test_an_encounter_s_place_and_status() -> None:
    encounter = {
        "resourceType": "Encounter", "id": "e", "status": "in-progress", "class": {"code": "IMP"},
        "subject": {"reference": "Patient/p"}, "period": {"start": "2026-03-01T08:00:00Z"},
        "meta": {"lastUpdated": "2026-03-01T11:00:00Z"},
        "location": [
            {"location": {"reference": f"Location/{id}"}, "status": status, "period": {"start": begins}}
            for id, status, begins in (
                ("x", "completed", "2026-03-01T08:00:00Z"), ("b", "active", "2026-03-01T10:00:00Z"),
            )
        ],
    }  # fmt: skip
    patient = {"resourceType": "Patient", "id": "p", "identifier": [{"system": "urn:s", "value": "7001"}]}
    (one,) = fhir_events(encounter, patient, *PLACES)
    assert one.site == "HOSP"
    part = record(one.body | HEAD, derived.CONTENT_TYPE).parts[0]
    assert isinstance(part, PlacementEvent)
    assert (part.trigger, part.status, part.unit, part.room, part.bed) == ("Encounter", "in-progress", "ICU", "2", "1")
    assert one.body["told_at"] == "2026-03-01T11:00:00.000Z"


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"gender": "female", "birthDate": "1980-03-02"}, ("F", 45)),
        ({"gender": "unknown", "birthDate": "1901"}, ("U", 90)),
        ({}, ("", None)),
        (None, ("", None)),
    ],
)
def test_an_encounter_s_sex_and_age_are_those_of_the_patient_beside_it(
    known: dict[str, Any] | None, said: tuple[str, int | None]
) -> None:
    encounter = {
        "resourceType": "Encounter", "id": "e", "status": "in-progress", "class": {"code": "IMP"},
        "subject": {"reference": "Patient/p"}, "period": {"start": "2026-03-01T08:00:00Z"},
    }  # fmt: skip
    patient = {"resourceType": "Patient", "id": "p", "name": [{"family": "Quetzal"}]}
    (one,) = fhir_events(encounter, *([patient | known] if known is not None else []))
    part = record(one.body | HEAD, derived.CONTENT_TYPE).parts[0]
    assert isinstance(part, PlacementEvent)
    assert (part.sex, part.age) == said
    assert "Quetzal" not in json.dumps(one.body)
    assert "1980" not in json.dumps(one.body)


def test_a_location_s_status() -> None:
    bed = place("b", "bd", "1", "r", operationalStatus={"code": "K"})
    (one,) = fhir_events(bed, *WARD)
    assert {name: one.body[name] for name in ("unit", "room", "bed", "bed_status")} == {
        "unit": "ICU", "room": "2", "bed": "1", "bed_status": "K",
    }  # fmt: skip
    (closed,) = fhir_events(bed | {"status": "suspended"}, *WARD)
    assert closed.body["bed_status"] == "C"
    assert fhir_events(place("b", "bd", "1", "r"), *WARD) == [], "which says nothing of its state"


def test_every_field_and_reason_is_documented() -> None:
    docs = Path(__file__).resolve().parents[1] / "docs"
    page = (docs / "operations.md").read_text() + (docs / "quality.md").read_text()
    for kind, fields in events.FIELDS.items():
        section = page.split(f"\n### {kind}\n")[1].split("\n## ")[0].split("\n### ")[0]
        missing = {field for field in fields - events.COMMON if f"`{field}`" not in section}
        assert not missing, kind
    assert not {reason for reason in events.REFUSALS if f"`{reason}`" not in page and reason != "internal_error"}
