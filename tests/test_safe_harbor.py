"""45 CFR 164.514(b)(2): one test a class, on literal values that stand where a document could carry them."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.registry import DOMAINS
from schemas.safe_harbor import CLASSES, OF_2000, OF_2010, RESTRICTED, age, total, view, zip3

MARKS = DOMAINS["ehr"].marks()
KEPT = {"kind": "observation", "code": "2093-3", "value_number": 240.0, "unit": "MED", "sex": "F"}

# What a document could carry of each class, with the literal that must not come out. Sealed values stand under
# `sealed`, as ciphertext; here in clear, so that their absence shows.
PLANTED: dict[str, list[tuple[dict[str, Any], str]]] = {
    "A": [({"sealed": {"name": "Vantongeren"}}, "Vantongeren"), ({"body": "seen with Vantongeren"}, "Vantongeren")],
    "B": [
        ({"facility": "HARBOUR"}, "HARBOUR"),
        ({"sending_facility": "HARBOUR"}, "HARBOUR"),
        ({"discharged_to": "HARBOUR"}, "HARBOUR"),
        ({"room": "R-17"}, "R-17"),
        ({"department": "12 Main Street Clinic"}, "Main"),
        ({"prior_unit": "Springfield, IL 62701"}, "Springfield"),
        ({"pending_unit": "62701"}, "62701"),
        ({"prior_unit": "4 East, room 136, bed B 4E"}, "136"),  # seen on the wire
        ({"prior_unit": "MERCY-ICU", "facility": "Mercy Hospital"}, "MERCY"),
        ({"department": "icu harbour", "sending_facility": "HARBOUR"}, "harbour"),
        ({"sealed": {"addresses": "Kerkstraat 7"}}, "Kerkstraat"),
    ],
    "C": [
        ({"observed_at": "2026-03-01T08:00:00Z"}, "03-01"),
        ({"died_at": "2026-03-02"}, "03-02"),
        ({"event_time": "2026-03-01T08:00:00Z", "value_time": "1931-05-05T00:00:00Z"}, "1931"),
        ({"age": 90}, "90,"),
        ({"value_code": "20260301"}, "0301"),
        ({"value_code": "202603010815-0500"}, "0301"),
        ({"value_code": "19310505", "event_time": "2026-03-01"}, "1931"),
        ({"value_code": "03/01/2026"}, "03/01"),
        ({"value_code": "01.03.26"}, "01.03"),
        ({"birth_date": "1980-01-01"}, "1980"),
    ],
    "D": [({"sealed": {"phones": "555-0199"}}, "555-0199"), ({"kin_phones": ["555-0199"]}, "555-0199")],
    "E": [({"sealed": {"phones": "fax 555-0100"}}, "555-0100")],
    "F": [({"sealed": {"mails": "ilse@mail.example"}}, "ilse"), ({"value_code": "ilse@mail.example"}, "ilse")],
    "G": [({"ssn": "555-12-3456"}, "3456"), ({"blind": ["9f2c7a"]}, "9f2c7a")],
    "H": [({"identifiers": ["RD7001"]}, "RD7001"), ({"prior_identifiers": ["RD6999"]}, "RD6999")],
    "I": [({"insured_identifiers": ["HP-44"]}, "HP-44")],
    "J": [({"account_number": "AC-9"}, "AC-9"), ({"visit_account": "AC-9"}, "AC-9")],
    "K": [({"drivers_license": "D-123"}, "D-123")],
    "L": [({"value_text": "plate WA 4711"}, "4711")],
    "M": [({"lots": ["LOT-5"]}, "LOT-5"), ({"method": "SN-88812"}, "SN-88812")],
    "N": [
        ({"value_code": "https://clinic.example/ilse"}, "clinic"),
        ({"abnormal_flags": ["www.ilse.example"]}, "ilse"),
    ],
    "O": [({"value_code": "192.0.2.17"}, "192.0"), ({"value_code": "2001:db8:0:0::17"}, "db8")],
    "P": [({"attachment_content": "voice-print"}, "voice-print")],
    "Q": [({"attachment_content": "face.jpg"}, "face")],
    "R": [
        ({"event_id": "e7b1"}, "e7b1"),
        ({"trace_id": "t7b1"}, "t7b1"),
        ({"source": "hl7v2:READ|ER"}, "READ"),
        ({"staff_ref": ["s7b1"]}, "s7b1"),
        ({"patient_ref": "p7b1"}, "p7b1"),
        ({"placer_number": "PL-1"}, "PL-1"),
        ({"a_field_of_tomorrow": "unmarked"}, "unmarked"),
    ],
}


def seen(document: dict[str, Any]) -> dict[str, Any]:
    return view(document, MARKS, lambda ref: f"pseudonym-{len(ref)}")


def test_every_class_has_a_name_and_a_test() -> None:
    assert "".join(CLASSES) == "ABCDEFGHIJKLMNOPQR"
    assert PLANTED.keys() == CLASSES.keys()


@pytest.mark.parametrize("letter", CLASSES)
def test_class(letter: str) -> None:
    for planted, literal in PLANTED[letter]:
        document = KEPT | planted
        assert literal in f"{document},".replace("}", ","), "the literal is there to be found"
        made = seen(document)
        assert literal not in f"{made},".replace("}", ","), planted
        assert made.items() >= (KEPT.items() if "value_code" not in planted else {"kind": "observation"}.items())


def test_dates_become_years_and_ages_stop() -> None:
    made = seen({"event_time": "2026-03-01T08:00:00Z", "observed_at": "2025-12-31", "age": 90, "state": "finished"})
    assert made == {"event_time": 2026, "observed_at": 2025, "age": "90+", "state": "finished"}
    assert [age(years) for years in (0, 89, 90, 104)] == [0, 89, "90+", "90+"]


def test_a_year_that_tells_an_age_above_89_goes() -> None:
    """A span of 89 years fits somebody of 89; of 90 it does not."""
    assert seen({"event_time": "2026-03-01", "value_time": "1937-01-01"})["value_time"] == 1937
    assert "value_time" not in seen({"event_time": "2026-03-01", "value_time": "1936-01-01"})


def test_codes_survive() -> None:
    document = {"code_system": "2.16.840.1.113883.6.1", "version": "2.5.1", "code": "24484000", "services": ["A", "B"]}
    assert seen(document) == document


@pytest.mark.parametrize("code", ["30525-0", "21612-7", "29553-5", "39016-1"])
@pytest.mark.parametrize("name", ["value_number", "value_high"])
def test_ages_by_loinc(code: str, name: str) -> None:
    assert seen({"code": code, name: 93.0, "units": "a"})[name] == 90.0
    assert seen({"code": "AGE-1", "alternate_code": code, name: 93.0})[name] == 90.0
    assert "value_code" not in seen({"code": code, "value_code": "93"})


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        ({"code": "PT-7", "value_number": 93.0, "units": "Years"}, 90.0),  # a code of the house's own
        ({"code": "PT-7", "display": "Age at menarche", "value_number": 93.0}, 90.0),
        ({"code": "AGE", "value_number": 93.0}, 90.0),
        ({"code": "PT-7", "display": "\u5e74\u9f84", "value_number": 93.0}, 90.0),
        ({"code": "PT-7", "value_number": 93.0, "units": "\u5c81"}, 90.0),
        ({"code": "8867-4", "display": "Heart rate", "value_number": 93.0, "units": "/min"}, 93.0),
        ({"code": "PT-8", "display": "Average dosage", "value_number": 93.0}, 93.0),
        ({"code": "PT-9", "display": "Weight-for-age", "value_number": 93.0, "units": "%"}, 93.0),
        ({"code": "18185-9", "display": "Gestational age", "value_number": 40.0, "units": "wk"}, 40.0),
    ],
)
def test_ages_by_unit_and_by_name(document: dict[str, Any], wanted: float) -> None:
    assert seen(document)["value_number"] == wanted


@pytest.mark.parametrize(
    ("value", "units", "wanted"),
    [
        (89.0, "a", 89.0),
        (93.0, "a", 90.0),
        (93.0, "", 90.0),
        (1130.0, "mo", 1080.0),
        (1000.0, "mo", 1000.0),
        (34_000.0, "d", 32_872.5),
        (95.0, "furlongs", None),
    ],
)
def test_an_observed_age_stops(value: float, units: str, wanted: float | None) -> None:
    """45 CFR 164.514(b)(2)(i)(C): a single category of age 90 or older."""
    document = {"kind": "observation", "code": "30525-0", "value_number": value, "units": units}
    assert seen(document).get("value_number") == wanted


def test_a_number_that_reads_like_a_day_becomes_its_year() -> None:
    day = {"code": "11778-8", "value_number": 20260301.0}  # an estimated date of delivery, sent as NM
    assert seen(day)["value_number"] == 2026
    assert seen(day | {"units": "{copies}/mL"})["value_number"] == 20260301.0
    assert seen({"value_number": 20261301.0})["value_number"] == 20261301.0, "no month 13"


@pytest.mark.parametrize("ward", ["MED", "4 EAST", "3WEST", "CARDIO 3", "TraumaCentre", "\u4f4f\u9662\u90e8", "0012"])
def test_a_ward_is_no_subdivision_of_a_state(ward: str) -> None:
    assert seen({"unit": ward, "department": ward}) == {"unit": ward, "department": ward}


def test_a_ward_may_be_called_what_sites_have_in_common() -> None:
    for facility in ("GENERAL HOSPITAL", "University Medical Center", "MH"):
        assert seen({"unit": "General Medical 3", "facility": facility}) == {"unit": "General Medical 3"}


def test_the_reference_becomes_a_pseudonym() -> None:
    assert seen({"patient_ref": "p7b1"}) == {"patient_ref": "pseudonym-4"}


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("90210", "902"),
        ("90210-1234", "902"),
        ("902101234", "902"),
        ("03601", "000"),  # both censuses
        ("06390", "000"),  # 2000 alone: Fishers Island
        ("20201", "000"),  # 2010 alone
        ("89301", "000"),
        ("1017 AB", ""),
        ("", ""),
    ],
)
def test_zip3(code: str, wanted: str) -> None:
    assert zip3(code) == wanted


def test_restricted_prefixes_are_those_of_the_guidance() -> None:
    """HHS guidance of 2012 (census of 2000) has 17; the census of 2010 gives 18; 12 of them are in both."""
    assert (len(OF_2000.split()), len(OF_2010.split()), len(RESTRICTED)) == (17, 18, 23)


@pytest.mark.parametrize(
    ("documents", "persons", "wanted"),
    [(0, 0, "<11"), (10, 10, "<11"), (500, 10, "<11"), (11, 11, 10), (14, 11, 10), (15, 15, 15), (1234, 300, 1230)],
)
def test_small_cells(documents: int, persons: int, wanted: int | str) -> None:
    """CMS: no cell of 1 to 10 is reported; persons count, however many documents each has."""
    assert total(documents, persons) == wanted


def test_two_groups_that_differ_by_one_person_may_tell_the_same() -> None:
    assert total(33, 33) == total(34, 34)


def test_a_score_shows_no_words_and_no_place() -> None:
    score = {"kind": "score", "model": "department", "predicted": "Room 4", "probability": 0.7}
    shown = seen(score | {"reasons": ["text=weinberg +0.100"], "probabilities": ["Room 4=0.700"]})
    assert shown["probability"] == 0.7
    assert not {"reasons", "probabilities", "predicted"} & shown.keys()
