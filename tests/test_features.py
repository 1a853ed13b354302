"""What a prediction may know, and what became of a patient: features and labels, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from streams.ehr import features, targets
from streams.ehr.targets import Happened
from streams.fold import Change, Entity, family_at, fold, history_of, position

EVENT = {"kind": "event", "sex": "F", "age": 71, "race": ["2106-3"], "language": "de", "payers": ["Acme"]}
LATE = "2026-12-31T00:00:00.000Z"


def visit(trigger: str, **said: Any) -> dict[str, Any]:
    return {"kind": "visit", "message_type": "ADT", "trigger": trigger, "patient_class": "I", "unit": "MED"} | said


def vital(code: str, value: float | str, units: str = "", **said: Any) -> dict[str, Any]:
    name = "value_number" if isinstance(value, float) else "value_text"
    return {"kind": "observation", "code": code, name: value, "units": units, "patient_class": "I"} | said


PULSE = vital("8867-4", 118.0, "/min")
ALL_SEVEN = [
    PULSE,
    vital("9279-1", 22.0, "/min"),
    vital("59408-5", 93.0, "%"),
    vital("8480-6", 105.0, "mm[Hg]"),
    vital("8310-5", 101.3, "[degF]"),
    vital("3151-8", 2.0, "L/min"),
    vital("80288-4", "Alert"),
]


def at(day: int, hour: int = 8, month: int = 3) -> str:
    return f"2026-{month:02}-{day:02}T{hour:02}:00:00.000Z"


def happened(*told: tuple[str, list[dict[str, Any]]]) -> list[Happened]:
    return [Happened(f"e{number}", when, documents) for number, (when, documents) in enumerate(told)]


def labels(target: str, *told: tuple[str, list[dict[str, Any]]], until: str = LATE) -> list[tuple[str, str]]:
    return [(row.at, row.label) for row in targets.rows(target, "p", happened(*told), until)]


# ------------------------------------------------------------------------------------------------------------ features


def test_an_admission() -> None:
    diagnosis = {"kind": "diagnosis", "code": "I50.9"}
    documents = [EVENT, visit("A01", admission_type="E", admit_reason="Short of breath, [removed] says"), diagnosis]
    assert features.features("length_of_stay", documents, {}, at(1)) == {
        "sex=F": 1.0,
        "age": 71.0,
        "admission_type=E": 1.0,
        "unit=MED": 1.0,
        **{f"missing={name}": 1.0 for name in ("respiration_rate", "oxygen_saturation", "systolic", "pulse")},
        **{f"missing={name}": 1.0 for name in ("temperature", "news2", "days_since_discharge")},
        "respiration_rate": 16.0,
        "oxygen_saturation": 98.0,
        "systolic": 125.0,
        "pulse": 75.0,
        "temperature": 37.0,
        "news2": 0.0,
        "stays_last_year": 0.0,
        "days_since_discharge": 365.0,
        "diagnoses_known": 0.0,
        "diagnosis=I50": 1.0,
        **{f"text={word}": 1.0 for word in ("short", "breath", "says")},
    }


def test_the_department_is_not_told_by_where_the_patient_lies() -> None:
    told = visit("A01", room="7", bed="2", hospital_service="CARD", prior_unit="ED", attending="x")
    made = features.features("department", [EVENT, told], {}, at(1)) or {}
    assert not any(name.partition("=")[0] in ("unit", "room", "bed", "hospital_service", "prior_unit") for name in made)
    assert not any("CARD" in name or "MED" in name for name in made)


@pytest.mark.parametrize("target", features.TARGETS)
def test_nobody_is_judged_by_race_language_or_payer(target: str) -> None:
    documents = [EVENT, visit("A03" if target == "readmission" else "A01"), PULSE]
    made = features.features(target, documents, {}, at(1))
    assert made
    assert not any(one in name for name in made for one in ("race", "language", "payer", "2106-3", "Acme"))


@pytest.mark.parametrize(
    ("target", "documents"),
    [
        ("department", [visit("A08")]),
        ("department", [visit("A04", patient_class="O")]),
        ("length_of_stay", [visit("A04", patient_class="E")]),
        ("length_of_stay", [{"kind": "visit", "message_type": "Encounter", "status": "planned"}]),
        ("readmission", [visit("A01")]),
        ("readmission", [visit("A03", patient_class="E")]),
        ("readmission", [visit("A03", discharge_disposition="20")]),
        ("deterioration", [vital("2345-7", 90.0, "mg/dL")]),
        ("deterioration", [vital("8867-4", 90.0, "furlongs")]),
        ("deterioration", [vital("8867-4", 90.0, "/min", unit="SICU")]),
        ("deterioration", [vital("8867-4", 90.0, "/min", patient_class="O")]),
        ("deterioration", [{"kind": "event", "age": 15}, PULSE]),
        ("deterioration", []),
    ],
)
def test_what_is_not_to_be_scored(target: str, documents: list[dict[str, Any]]) -> None:
    assert features.features(target, documents, {}, at(1)) is None


def test_no_such_target() -> None:
    with pytest.raises(ValueError, match="no target"):
        features.features("luck", [], {}, at(1))


def test_a_whole_set_has_its_news2() -> None:
    """By the chart: 22/min 2, 93% 2, oxygen 2, 105 mmHg 1, 118/min 2, alert 0, 38.5 degrees 1."""
    made = features.features("deterioration", [EVENT, *ALL_SEVEN], {}, at(1)) or {}
    assert (made["news2"], made["temperature"], made["oxygen=oxygen"], made["consciousness=A"]) == (
        10.0,
        38.5,
        1.0,
        1.0,
    )
    assert not any(name.startswith("missing=news2") for name in made)


def test_vital_signs_of_before_count_for_twelve_hours() -> None:
    history: dict[str, Any] = {}
    features.remember(history, ALL_SEVEN[1:], at(1, 1))
    assert (features.features("deterioration", [PULSE], history, at(1, 13)) or {})["news2"] == 10.0
    assert "missing=news2" in (features.features("deterioration", [PULSE], history, at(1, 14)) or {})


def test_later_history_counts_for_nothing() -> None:
    history = {
        "admissions": {at(1): at(20), at(10, month=5): ""},
        "diagnoses": {f"I50.9|{at(2)[:10]}": True, f"C80.1|{at(9, month=5)[:10]}": True},
        "vitals": {f"pulse|{at(30)}": 150.0},
    }
    told = [EVENT, visit("A03", admitted_at=at(1))]
    made = features.features("readmission", told, history, at(5)) or {}
    assert (made["stays_last_year"], made["diagnoses_known"], made["days_in_hospital"]) == (0.0, 1.0, 4.0)
    assert "missing=pulse" in made
    assert "known=C80" not in made


@pytest.mark.parametrize("target", features.TARGETS)
def test_whether_the_history_has_the_event_already_changes_nothing(target: str) -> None:
    history: dict[str, Any] = {}
    features.remember(history, [visit("A01"), {"kind": "diagnosis", "code": "J44.9"}], at(1))
    features.remember(history, [visit("A03", admitted_at=at(1))], at(3))
    moves = {"readmission": [visit("A03")], "deterioration": []}.get(target, [visit("A01")])
    told = [EVENT, *moves, *ALL_SEVEN, {"kind": "diagnosis", "code": "N39"}]
    before = features.features(target, told, history, at(9))
    features.remember(history, told, at(9))
    assert before is not None
    assert features.features(target, told, history, at(9)) == before


def test_the_newest_vital_sign_counts_wherever_it_stands() -> None:
    told = [EVENT, *ALL_SEVEN, PULSE | {"value_number": 60.0, "observed_at": at(1, 2)}]
    assert (features.vital_signs(told, {}, at(1)) or {})["pulse"] == 118.0
    late = [EVENT, *ALL_SEVEN[1:], PULSE | {"observed_at": at(1)}]
    assert "pulse" not in (features.vital_signs(late, {}, at(20)) or {})


@pytest.mark.parametrize("status", ["D", "W", "X", "entered-in-error", "cancelled"])
def test_a_vital_sign_that_is_withdrawn_counts_no_more(status: str) -> None:
    history: dict[str, Any] = {}
    sign = PULSE | {"observed_at": at(1)}
    features.remember(history, [sign], at(1))
    withdrawn = [EVENT, sign | {"status": status}]
    assert features.vital_signs(withdrawn, history, at(1, 9)) == {}
    assert features.features("deterioration", withdrawn, history, at(1, 9)) is None
    features.remember(history, withdrawn, at(1, 9))
    assert features.vital_signs([EVENT, *ALL_SEVEN[1:]], history, at(1, 10)).get("pulse") is None


@pytest.mark.parametrize("target", features.TARGETS)
def test_what_is_told_later_changes_no_score_that_is_made_again(target: str) -> None:
    """The history folded from all events, as after a crash, gives what the history in order gave."""
    moves = {"readmission": "A03", "deterioration": ""}.get(target, "A01")
    told = [
        [EVENT, *([visit(moves, admitted_at=at(day))] if moves else []), PULSE | {"value_number": 60.0 + day}]
        + [{"kind": "diagnosis", "code": code} for code in ("I50.9", f"C{day}")]
        for day in range(1, 9)
    ]
    told = [[*some, *ALL_SEVEN[1:]] if number % 3 == 0 else some for number, some in enumerate(told)]
    in_order, history = [], dict[str, Any]()
    for number, some in enumerate(told):
        features.remember(history, some, at(1 + number, 9))
        in_order.append(features.features(target, some, history, at(1 + number, 9)))
    assert None not in in_order
    again = [features.features(target, some, history, at(1 + number, 9)) for number, some in enumerate(told)]
    assert again == in_order


def test_what_is_remembered() -> None:
    history: dict[str, Any] = {}
    features.remember(history, [visit("A01"), {"kind": "diagnosis", "code": "I50.9"}, PULSE], at(1))
    features.remember(history, [visit("A03"), {"kind": "diagnosis", "code": "C80", "confirmation": "refuted"}], at(4))
    features.remember(history, [visit("A01"), {"kind": "diagnosis", "code": "C81", "action": "D"}], at(7))
    features.remember(history, [visit("A11", admitted_at=at(7))], at(8))
    assert features.stays(history) == {at(1): at(4)}
    assert history == {
        "admissions": {at(1): ""},
        "ended": {at(4): True},
        "diagnoses": {f"I50.9|{at(1)[:10]}": True},
        "vitals": {f"pulse|{at(1)}": 118.0},
    }
    features.remember(history, [visit("A03", admitted_at=at(9))], at(12))
    assert features.stays(history)[at(9)] == at(12)
    features.remember(history, [visit("A13", admitted_at=at(9))], at(13))
    assert features.stays(history)[at(9)] == ""


def test_a_fhir_encounter_is_a_stay() -> None:
    history: dict[str, Any] = {}
    told = {"kind": "visit", "message_type": "Encounter", "patient_class": "I", "admitted_at": at(1)}
    features.remember(history, [told | {"status": "in-progress"}], at(1))
    features.remember(history, [told | {"status": "finished", "discharged_at": at(5)}], at(5))
    assert history["admissions"] == {at(1): at(5)}
    assert features.features("readmission", [told | {"status": "finished"}], history, at(5)) is not None


# -------------------------------------------------------------------------------------------------------------- labels


IN, OUT = [visit("A01")], [visit("A03", admitted_at=at(1))]


@pytest.mark.parametrize(
    ("discharged", "band"),
    [(at(1, 20), "0-2"), (at(4, 7), "0-2"), (at(4, 8), "3-7"), (at(9, 7), "3-7"), (at(9, 8), "8+")],
)
def test_length_of_stay(discharged: str, band: str) -> None:
    assert labels("length_of_stay", (at(1), IN), (discharged, OUT)) == [(at(1), band)]


def test_a_stay_that_goes_on_after_eight_days_is_long_and_before_that_unknown() -> None:
    assert labels("length_of_stay", (at(1), IN), until=at(9, 8)) == [(at(1), "8+")]
    assert labels("length_of_stay", (at(1), IN), (at(3), OUT), until=at(9, 7)) == []


def test_a_cancelled_admission_has_no_length() -> None:
    assert labels("length_of_stay", (at(1), IN), (at(1, 9), [visit("A11", admitted_at=at(1))])) == []


@pytest.mark.parametrize(
    ("after", "label"),
    [
        ([(at(31, 8), [visit("A01", admitted_at=at(31, 8))])], "yes"),
        ([(at(3, 7, 4), [visit("A01")])], "yes"),
        ([(at(5, 8, 4), [visit("A01")])], "no"),
        ([(at(20), [visit("A04", patient_class="E")])], "no"),
        ([(at(20), [visit("A01")]), (at(21), [EVENT | {"deceased": True}])], "yes"),
        ([], "no"),
    ],
)
def test_readmission(after: list[tuple[str, list[dict[str, Any]]]], label: str) -> None:
    assert labels("readmission", (at(1), IN), (at(4), OUT), *after) == [(at(4), label)]


def test_who_died_at_home_is_neither_readmitted_nor_spared() -> None:
    died = [EVENT | {"died_at": at(15), "deceased": True}]
    assert labels("readmission", (at(1), IN), (at(4), OUT), (at(15), died)) == []


def test_thirty_days_must_have_passed_whatever_happened_meanwhile() -> None:
    again = (at(10), [visit("A01")])
    assert labels("readmission", (at(1), IN), (at(4), OUT), again, until=at(2, month=4)) == []
    assert labels("readmission", (at(1), IN), (at(4), OUT), again, until=at(3, month=4)) == [(at(4), "yes")]


def test_a_discharge_that_was_cancelled_has_no_label() -> None:
    assert labels("readmission", (at(1), IN), (at(4), OUT), (at(4, 9), [visit("A13", admitted_at=at(1))])) == []


def test_deterioration_is_intensive_care_or_death_within_a_day() -> None:
    told = [(at(day), [PULSE]) for day in (1, 2, 3)]
    moved = (at(3, 7), [visit("A02", unit="ICU")])
    back = (at(3, 7), [visit("A02")])
    assert labels("deterioration", *told, moved) == [(at(1), "no"), (at(2), "yes"), (at(3), "no")]
    died = (at(3, 9), [visit("A03", discharge_disposition="20")])
    assert labels("deterioration", *told, died) == [(at(1), "no"), (at(2), "no"), (at(3), "yes")]
    assert labels("deterioration", *told, back)[1] == (at(2), "no")


def test_moves_within_intensive_care_are_no_new_deterioration() -> None:
    told = ((at(1), [visit("A01", unit="ICU")]), (at(2), [PULSE]), (at(2, 20), [visit("A02", unit="ICU", bed="3")]))
    assert labels("deterioration", *told) == [(at(2), "no")]


def test_department() -> None:
    assert labels("department", (at(1), [visit("A01", hospital_service="CARD")])) == [(at(1), "CARD")]
    assert labels("department", (at(1), [visit("A01")])) == [(at(1), "MED")]
    assert labels("department", (at(1), [visit("A01", unit="")])) == []


def test_the_order_of_reading_is_the_order_of_time() -> None:
    told = happened((at(1), IN), (at(4), OUT), (at(12), [visit("A01")]))
    assert targets.rows("readmission", "p", told, LATE) == targets.rows("readmission", "p", told[::-1], LATE)


def test_a_date_that_stands_for_never_ends_no_training() -> None:
    never = "9999-12-31T00:00:00.000Z"
    told = (at(5), [visit("A03", admitted_at=at(1), discharged_at=never)])
    assert labels("readmission", (at(1), IN), told) in ([(at(5), "no")], [])


def test_a_stay_that_is_told_again_is_one_row() -> None:
    again = [(at(day), [visit("A01", admitted_at=at(1))]) for day in (1, 2, 4)]
    assert labels("length_of_stay", *again, (at(9, 8), OUT)) == [(at(1), "8+")]


def test_intensive_care_from_the_first_day_is_no_deterioration() -> None:
    told = [(at(1), [visit("A01", unit="ICU")]), (at(1, 7), [PULSE])]
    assert [label for _, label in labels("deterioration", *told)] == ["no"]


# ------------------------------------------------------------------------------------------------------ merged persons


def test_a_survivor_knows_the_priors_history_from_the_merge_on() -> None:
    """Of the prior an earlier stay and a diagnosis; the survivor is admitted before the merge and after it."""
    earlier = [EVENT, visit("A01", admitted_at=at(1)), {"kind": "diagnosis", "code": "I50.9"}]
    ended = [EVENT, visit("A03", admitted_at=at(1), discharged_at=at(5))]
    told = [
        Happened("e1", at(1), earlier, ref="prior", received=1.0),
        Happened("e2", at(5), ended, ref="prior", received=2.0),
        Happened("e3", at(8), [EVENT, visit("A01", admitted_at=at(8))], ref="survivor", received=3.0),
        Happened("e4", at(9), [EVENT, visit("A03", admitted_at=at(8), discharged_at=at(9))], (), "survivor", 4.0),
        Happened("e5", at(10), [EVENT], ref="survivor", received=5.0),  # the merge
        Happened("e6", at(12), [EVENT, visit("A01", admitted_at=at(12))], ref="survivor", received=6.0),
    ]
    merges = [("prior", "survivor", 5.0)]
    rows = targets.rows("length_of_stay", "survivor", told, LATE, merges)
    assert [(row.at, row.label) for row in rows] == [(at(1), "3-7"), (at(8), "0-2"), (at(12), "8+")]
    known = [(row.features["stays_last_year"], row.features.get("known=I50", 0.0)) for row in rows]
    assert known == [(0.0, 0.0), (0.0, 0.0), (2.0, 1.0)]
    unmerged = targets.rows("length_of_stay", "survivor", told, LATE)
    assert [row.features["stays_last_year"] for row in unmerged] == [0.0, 0.0, 1.0]


def test_training_and_stream_know_the_same_of_a_merged_patient() -> None:
    """Event by event: what the fold keeps under each reference, joined, gives the features that training makes."""
    told = [
        Happened("e1", at(1, 8), [EVENT, *ALL_SEVEN[:3]], ref="a", received=1.0),
        Happened("e2", at(1, 9), [EVENT, *ALL_SEVEN[3:5], {"kind": "diagnosis", "code": "E11.9"}], (), "b", 2.0),
        Happened("e3", at(1, 10), [EVENT | {"age": 72}, ALL_SEVEN[5]], ref="b", received=4.0),
        Happened("e4", at(1, 11), [{"kind": "event"}, ALL_SEVEN[6]], ref="c", received=6.0),
        Happened("e5", at(2, 9), [EVENT, PULSE], ref="a", received=7.0),
    ]
    merges = [("a", "b", 3.0), ("c", "b", 5.0)]
    rows = {row.at: row.features for row in targets.rows("deterioration", "b", told, LATE, merges)}
    entities: dict[str, Entity] = {}
    for one in told:
        where = position(one.at, one.event_id)
        change = Change("patient", "", 0, {}, {}, features.entries(one.documents, one.at))
        entities[one.ref] = fold(entities.get(one.ref), change, where, {}, str)
        others = sorted(family_at(one.ref, merges, one.received) - {one.ref})
        history = history_of(entities[one.ref], [entities[ref] for ref in others if ref in entities], where)
        assert features.features("deterioration", one.documents, history, one.at) == rows[one.at]
    assert "missing=news2" in rows[at(1, 10)]
    assert rows[at(1, 11)]["news2"] > 0, "six signs of two others, and the seventh"
    assert rows[at(1, 11)]["age"] == 72.0
