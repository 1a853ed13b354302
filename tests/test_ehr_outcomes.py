"""What ADT and Encounters say of stays and deaths, as events of the domain quality."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.peers import Peers
from schemas.wire.hl7v2 import Message, control
from streams.ehr import hl7v2, outcomes

NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)


def said(trigger: str, *more: str, at: str = "20260309113000", pid: str = "", pv1: str = "") -> list[dict[str, Any]]:
    body = "\r".join(
        (
            f"MSH|^~\\&|A|EAST|B|C|20260309120000||ADT^{trigger}|1|P|2.5",
            f"EVN|{trigger}|{at}",
            f"PID|1||P1^^^EAST^MR||Nn^Nn||19550301|F{pid}",
            pv1 or "PV1|1|I|CARD^1^1^EAST|E||||||CAR|||||||||V77" + "|" * 25 + "20260301090000",
            *more,
        )
    )
    message = Message.read(body.encode(), None)
    header = control(message)
    record = hl7v2.read(message, Peers().of(header.sending_application, header.sending_facility), NOW)
    return [one.body | {"site": one.site} for one in outcomes.derive(record)]


def test_an_admission_with_all_that_its_risk_hangs_on() -> None:
    (made,) = said(
        "A01",
        "DG1|1||I21.9^Infarct^I10",
        "DG1|2||E11.9^Diabetes^I10",
        "PR1|1||36.10^Bypass^I9C",
        "OBX|1|NM|8480-6^Systolic^LN||148|mm[Hg]|||||F",
        at="20260301090000",
    )
    assert made == {
        "type": "case",
        "action": "set",
        "id": "V77",
        "site": "EAST",
        "unit": "CARD",
        "hospital_service": "CAR",
        "patient_class": "I",
        "admission_type": "E",
        "admitted_at": "2026-03-01T09:00:00.000Z",
        "sex": "F",
        "age": 71,
        "diagnoses": ["I21.9", "E11.9"],
        "diabetes": True,
        "systolic": 148.0,
        "procedure": "36.10",
    }


def test_a_discharge_tells_no_ward() -> None:
    (made,) = said("A03", pv1="PV1|1|I|CARD^1^1^EAST|||||||CAR|||||||||V77|" + "|" * 16 + "20")
    assert "unit" not in made
    assert (made["discharged_at"], made["discharge_disposition"]) == ("2026-03-09T11:30:00.000Z", "20")


@pytest.mark.parametrize(
    ("trigger", "more", "wanted"),
    [
        ("A11", "", {"action": "cancel"}),
        ("A13", "", {"discharged_at": None, "discharge_disposition": None}),
        ("A02", "", {"unit": "CARD"}),
    ],
)
def test_steps(trigger: str, more: str, wanted: dict[str, Any]) -> None:
    (made,) = said(trigger, *([more] if more else []))
    assert {name: made[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("trigger", "pv1"),
    [
        ("A01", "PV1|1|O|CARD^1|||||||||||||||||V77"),  # an outpatient
        ("A01", "PV1|1|I|CARD^1"),  # no number
        ("A05", "PV1|1|I|CARD^1|||||||||||||||||V77"),  # not in yet
        ("A08", "PV1|1|I|CARD^1|||||||||||||||||V77"),  # nothing that a risk hangs on
    ],
)
def test_what_is_no_case(trigger: str, pv1: str) -> None:
    assert said(trigger, pv1=pv1) == []


def test_a_death_and_one_that_was_none() -> None:
    dead = said("A08", pid="|" * 21 + "20260305024000|Y")
    assert [(one["type"], one["died_at"]) for one in dead] == [("death", "2026-03-05T02:40:00.000Z")]
    undone = said("A08", pid="|" * 21 + '""|N')
    assert [(one["type"], one["action"]) for one in undone] == [("death", "cancel")]
    assert said("A08", pid="|" * 22 + "N") == []


def test_a_discharge_before_the_admission_leaves_the_stay_open() -> None:
    (made,) = said("A03", at="20260228090000")
    assert "discharged_at" not in made
