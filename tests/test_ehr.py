"""From messages to records and documents: what each family says, whose it is, and what never stands in clear."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from infra.errors import BadMessage
from schemas.document import documents
from schemas.ehr import PARTS
from schemas.envelope import rfc3339
from schemas.peers import Peer
from schemas.record import Record
from schemas.wire.hl7v2 import Message, Segment, split_batch
from streams import ehr
from streams.ehr import hl7v2, person
from streams.fold import Change

SAMPLES = Path(__file__).resolve().parent / "samples" / "ehr"
NOW = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)
PID = "PID|1||7001^^^HOSP^MR~111223333^^^USA^SS||Vant^Ilse^M||19800102|F|||Elm Road 5^^Ulm^^89073||5550101"
PV1 = "PV1|1|I|ICU^2^1^HOSP|U|||1234^House^Greg^^^^^^HOSP||||||||||||V77"


def record(kind: str, *segments: str, peer: Peer | None = None, sent: str = "20260301120000") -> Record:
    header = f"MSH|^~\\&|APP|FAC|US|HERE|{sent}||{kind}|C1|P|2.5"
    raw = ("\r".join((header, *segments)) + "\r").encode()
    return hl7v2.read(Message.read(raw), peer or Peer.model_validate({}), NOW)


def parts(made: Record, kind: str) -> list[dict[str, Any]]:
    return [{name: value for name, _, value in one.fields()} for one in made.parts if one.kind == kind]


def kinds(made: Record) -> list[str]:
    return [one.kind for one in made.parts]


def problem(kind: str, *segments: str) -> tuple[str, str]:
    with pytest.raises(BadMessage) as caught:
        record(kind, *segments)
    return caught.value.reason, caught.value.where


# ------------------------------------------------------------------------------------------------------------ families


CLINICAL = ("DG1|1||R07.4^Chest pain^I10|||A", "AL1|1|DA|1^Nuts^L|SV|hives")


def test_admission() -> None:
    made = record(
        "ADT^A01^ADT_A01",
        "EVN|A01|20260301115900",
        PID,
        PV1,
        "DG1|1||R07.4^Chest pain^I10|||A",
        "AL1|1|DA|1^Nuts^L|SV|hives",
    )
    assert kinds(made) == ["event", "visit", "diagnosis", "allergy"]
    (event,), (visit,), (diagnosis,) = (parts(made, kind) for kind in ("event", "visit", "diagnosis"))
    assert event["age"] == 46
    assert event["unit"] == visit["unit"] == diagnosis["unit"] == "ICU"
    assert (visit["bed"], visit["admission_type"], visit["visit_number"]) == ("1", "U", "V77")
    assert visit["attending"][0].identifier.value == "1234"
    assert (diagnosis["code"], diagnosis["display"], diagnosis["code_system"]) == ("R07.4", "Chest pain", "I10")
    assert made.event_time == datetime(2026, 3, 1, 11, 59, tzinfo=UTC)


def test_results() -> None:
    made = record(
        "ORU^R01", PID, "OBR|1|P1|F1|24331-1^Lipids^LN|||20260301080000|||||||||||||||||F",
        "OBX|1|NM|2093-3^Cholesterol^LN||240|mg/dL|<200|H|||F|||20260301083000",
        "OBX|2|SN|X^Y^L||>^100", "OBX|3|CWE|L^M^L||260385009^Negative^SCT",
        "OBX|4|TX|N^Note^L||one", "OBX|5|TX|N^Note^L||two",
    )  # fmt: skip
    assert kinds(made) == ["event", "order", "observation", "observation", "observation", "observation"]
    number, structured, coded, text = parts(made, "observation")
    assert (number["value_number"], number["units"], number["abnormal_flags"]) == (240.0, "mg/dL", ("H",))
    assert number["observed_at"] == datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
    assert number["panel"] == "24331-1"
    assert (structured["comparator"], structured["value_number"]) == (">", 100.0)
    assert (coded["value_code"], coded["value_text"]) == ("260385009", "Negative")
    assert text["value_text"] == "one\ntwo"
    assert text["observed_at"] == datetime(2026, 3, 1, 8, tzinfo=UTC)


OBR = "OBR|1|P1||71020^Chest X-ray^C4|||||||||||||||||||||||||||^Pain"


@pytest.mark.parametrize("kind", ["ORM^O01", "OMG^O19", "OML^O21"])
def test_orders(kind: str) -> None:
    made = record(
        kind,
        PID,
        "ORC|NW|P1||||||||||9^Who^Doc",
        "OBR|1|P1||71020^Chest X-ray^C4|||||||||||||||||||||||||||^Pain",
        "NTE|1||fasting",
    )
    (order,), (note,) = parts(made, "order"), parts(made, "note")
    assert (order["order_control"], order["code"], order["placer_number"], order["reason"]) == (
        "NW",
        "71020",
        "P1",
        "Pain",
    )
    assert order["ordering"][0].name == "Doc Who"
    assert (note["about"], note["body"], note["code"]) == ("order", "fasting", "71020")


def test_cancelled_order() -> None:
    (order,) = parts(record("ORM^O01", PID, "ORC|CA|P1", "OBR|1|P1||X"), "order")
    assert order["flags"] == ("cancel",)


def test_document() -> None:
    made = record(
        "MDM^T02", PID, "TXA|1|DS|TX|20260301||20260301100000||||||D1|||||AU",
        "OBX|1|TX|1||First line", "OBX|2|TX|1||Second line", "OBX|3|ED|PDF||SRC^AP^PDF^Base64^JVBERi0xLjQ=",
    )  # fmt: skip
    (note,) = parts(made, "note")
    assert (note["body"], note["document_number"], note["code"]) == ("First line\nSecond line", "D1", "DS")
    assert (note["attachment_subtype"], note["attachment_encoding"]) == ("PDF", "Base64")
    assert "JVBERi0xLjQ" not in orjson.dumps([one.clear for one in documents(made)]).decode()


def test_appointment() -> None:
    made = record(
        "SIU^S12", "SCH|A1|B1|||||^Check-up|FOLLOWUP|30|MIN|^^^20260305090000^20260305093000||||||||||||||BOOKED", PID,
        "RGS|1", "AIS|1||CT^CT head", "AIL|1||ROOM^7", "AIP|1||5^Rad^Ann",
    )  # fmt: skip
    (one,) = parts(made, "appointment")
    assert (one["minutes"], one["status"], one["services"], one["rooms"]) == (30.0, "BOOKED", ("CT",), ("ROOM-7",))
    assert one["starts_at"] == datetime(2026, 3, 5, 9, tzinfo=UTC)
    assert one["resource_staff"][0].name == "Ann Rad"
    assert made.parts[-1].subject == 0


def test_vaccination() -> None:
    made = record(
        "VXU^V04",
        PID,
        "ORC|RE|P9",
        "RXA|0|1|20260201||08^HepB^CVX|0.5|mL^^UCUM||00^New^NIP001||||||LOT7||MSD",
        "RXR|IM|LA",
    )
    assert "order" not in kinds(made)
    (one,) = parts(made, "immunization")
    assert (one["code"], one["amount"], one["units"], one["lots"], one["route"]) == ("08", 0.5, "mL", ("LOT7",), "IM")
    assert one["placer_number"] == "P9"


def test_pharmacy_order() -> None:
    made = record("RDE^O11", PID, "ORC|NW|P5", "RXE||00378-1^Aspirin^NDC|100||mg|TAB|^Once daily|||30||2", "RXR|PO")
    (one,) = parts(made, "medication")
    assert (one["stage"], one["code"], one["amount"], one["units"], one["route"]) == (
        "ordered",
        "00378-1",
        100.0,
        "mg",
        "PO",
    )
    assert (one["directions"], one["refills"]) == (("Once daily",), 2.0)


def test_charge() -> None:
    made = record("DFT^P03", PID, "FT1|1|T1||20260301||CG|99213^Visit^C4|||1||150^USD|CARD")
    (one,) = parts(made, "charge")
    assert (one["code"], one["amount"], one["price"], one["department"]) == ("99213", 1.0, 150.0, "CARD")


def test_unknown_types_and_segments_are_indexed_and_counted() -> None:
    made = record("QBP^Q22", "QPD|Q22|1", "ZAB|1|Vant|secret")
    (event,) = parts(made, "event")
    assert event["unread_segments"] == ("QPD:1:9", "ZAB:1:17")
    assert "secret" not in orjson.dumps([one.clear for one in documents(made)]).decode()


# ------------------------------------------------------------------------------------------------------------ patients


def test_missing_and_too_many_patients() -> None:
    assert problem("ADT^A01", PV1) == ("missing_segment", "PID")
    assert problem("ADT^A01", *[PID] * 5) == ("repeated_segment", "PID")


def test_several_patients_of_a_result() -> None:
    other = PID.replace("7001", "7002").replace("Vant", "Quill")
    made = record("ORU^R01", PID, "OBR|1|||A", "OBX|1|NM|A||1", other, "OBR|1|||A", "OBX|1|NM|A||2")
    assert [subject.identifiers[0].value for subject in made.subjects] == ["7001", "7002"]
    assert [one.subject for one in made.parts if one.kind == "observation"] == [0, 1]
    assert parts(made, "event")[1]["name"] == ("Ilse M Quill",)


def test_merge() -> None:
    made = record("ADT^A40", PID, "MRG|6999^^^HOSP^MR||||||Vant^I")
    assert [subject.identifiers[0].value for subject in made.subjects] == ["7001", "6999"]
    assert [(one.prior, one.survivor) for one in made.merges] == [(1, 0)]
    assert "merge" in parts(made, "event")[0]["flags"]


def test_a_moved_visit_merges_nobody() -> None:
    assert record("ADT^A45", PID, "MRG|6999^^^HOSP^MR").merges == ()


def test_identifiers_in_the_peers_order_never_a_shared_one_first() -> None:
    made = record("ADT^A08", PID.replace("7001^^^HOSP^MR~111223333^^^USA^SS", "111223333^^^USA^SS~7001^^^HOSP^MR"))
    assert [one.type for one in made.subjects[0].identifiers] == ["MR", "SS"]
    assert [one.type for one in made.subjects[0].linking()] == ["MR"]


def test_an_identifier_without_authority_is_the_facilitys() -> None:
    made = record("ADT^A08", "PID|1||7001||A^B")
    assert made.subjects[0].identifiers[0].authority == "FAC"


@pytest.mark.parametrize("value", ["", "000-00-0000", "999999999", "UNKNOWN", "N/A"])
def test_a_number_of_nobody(value: str) -> None:
    assert record("ADT^A08", f"PID|1||{value}^^^HOSP^MR||A^B").subjects[0].identifiers == ()


# --------------------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("kind", "segments", "where"),
    [
        ("ADT^A01", ("EVN|A01|2026x", PID), "EVN-2"),
        ("ADT^A01", (PID.replace("19800102", "19801302"),), "PID-7"),
        ("ADT^A01", (PID, PV1 + "|" * 25 + "20260230"), "PV1-44"),
        ("ORU^R01", (PID, "OBR|1|||A|||2026x"), "OBR-7"),
        ("ORU^R01", (PID, "OBX|1|NM|A||1||||||F|||2026x"), "OBX-14"),
    ],
)  # fmt: skip
def test_dates_that_decide_refuse(kind: str, segments: tuple[str, ...], where: str) -> None:
    assert problem(kind, *segments) == ("bad_date", where)


def test_other_dates_are_flagged() -> None:
    (diagnosis,) = parts(record("ADT^A01", PID, "DG1|1||X||2026x"), "diagnosis")
    assert diagnosis["flags"] == ("bad_date:DG1-5",)


def test_a_time_ahead_of_arrival_is_capped() -> None:
    made = record("ADT^A01", PID, sent="20260301121600")
    assert made.event_time == NOW
    assert "future_time" in parts(made, "event")[0]["flags"]


def test_a_peers_zone() -> None:
    made = record("ADT^A01", PID, peer=Peer(zone="Europe/Berlin"))
    assert made.event_time == datetime(2026, 3, 1, 11, tzinfo=UTC)


# ------------------------------------------------------------------------------------------------------------- privacy


def test_the_patient_leaves_the_text() -> None:
    made = record(
        "ORU^R01", PID, "OBR|1|||A", "OBX|1|TX|N||Mrs Vant (7001) of Elm Road 5 called 555-0101; aspirin 100 mg"
    )
    (text,) = [one.clear["value_text"] for one in documents(made) if one.kind == "observation"]
    for word in ("Vant", "7001", "Elm", "555"):
        assert word not in text
    assert "aspirin 100 mg" in text


def test_every_field_has_one_mark() -> None:
    for part in PARTS:
        assert part.marks.keys() == part.model_fields.keys() - {"subject"}


IDENTIFYING = {
    "PID": (3, 5, 11, 13, 14, 18, 19),
    "NK1": (2, 4, 5),
    "GT1": (3, 5, 6),
    "MRG": (1, 7),
    "IN1": (16, 19, 36),
}


def identifying(message: Message) -> set[str]:
    """What the segments say of persons, as it stands, but for words that are no name: codes, states, types."""
    found: set[str] = set()
    for segment in message.segments():
        for field in IDENTIFYING.get(segment.name, ()):
            for repetition in segment.repetitions(field):
                first = (1, 2) if field in (5, 2, 7, 16) or (segment.name, field) == ("GT1", 3) else (1,)
                found |= {person.pick(repetition, message.dialect, component) for component in first}
    return {one for one in found if len(one) > 4 and not one.isalpha()} | {
        one for one in found if len(one) > 5 and one.isalpha() and one.lower() not in COMMON_WORDS
    }


COMMON_WORDS = {"patient", "unknown", "hospital", "testing", "family", "father", "mother", "spouse", "insurance"}


@pytest.mark.parametrize("path", sorted(SAMPLES.rglob("*.hl7")), ids=lambda path: path.stem[:4])
def test_no_sample_shows_a_person(path: Path) -> None:
    for body in split_batch(path.read_bytes()):
        try:
            message = Message.read(body)
            made = hl7v2.read(message, Peer.model_validate({}), NOW)
        except BadMessage:
            continue
        clear = orjson.dumps([one.clear for one in documents(made)]).decode().lower()
        systems = " ".join(message.header().fields).lower()  # one vendor's sample patient has the vendor's name
        assert [word for word in identifying(message) if word.lower() in clear and word.lower() not in systems] == []


# ------------------------------------------------------------------------------------------------- entities and signals


def analyse(made: Record) -> list[Change]:
    at = rfc3339(made.event_time or NOW)
    return ehr.analyse(made, ehr.document(made), at)


def test_only_admissions_move_a_patient() -> None:
    changes = analyse(record("ADT^A01", PID, PV1))
    assert [(one.kind, one.number) for one in changes] == [("patient", ""), ("encounter", "V77")]
    assert changes[1].clear["state"] == "in-progress"
    assert [one.kind for one in analyse(record("ORU^R01", PID, PV1, "OBR|1|||A"))] == ["patient"]


def test_a_null_clears_a_field() -> None:
    (change,) = analyse(record("ADT^A08", PID.replace("|5550101", '|""')))
    assert change.identifying["phones"] is None


def test_a_critical_result_is_told() -> None:
    made = record("ORU^R01", PID, "OBR|1|||A", "OBX|1|NM|2823-3^K^LN||7.1|mmol/L||HH|||F", "OBX|2|NM|X||1||||||F")
    (signal,) = ehr.derive(made)
    assert (signal.name, signal.part, signal.detail) == ("critical_result", 2, {"code": "2823-3", "flag": "HH"})


def test_staff_have_names_and_numbers() -> None:
    segment = Segment("PV1|1|I|||||1234^House^Greg^^^Dr^^^HOSP~^Wilson^James", Message.read(b"MSH|^~\\&|A\r").dialect)
    members, terms = person.staff(segment, 7, "attending", "FAC")
    assert [(one.name, one.identifier.value if one.identifier else None) for one in members] == [
        ("Greg House", "1234"),
        ("James Wilson", None),
    ]
    assert {"House", "Greg", "1234", "Wilson", "James"} <= set(terms)
