"""Live state: what events lead to whatever their order, and what in them cannot be so."""

from __future__ import annotations

import random
import time
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.allocation.board import Board, Conflict, board
from streams.allocation.live import KEPT, Live, closed, wanted
from streams.allocation.placement import placed
from streams.allocation.placement import steps as steps_of
from streams.fold import HELD
from tests.entities import SITE, Said, asks, at, bed, entities, folded, found, sent, shift, shown, step

BEDS = [bed(name) for name in ("ICU 1 1", "ICU 1 2", "MED 1 1", "MED 1 2")]


def where(*steps: Said) -> tuple[str, str, str]:
    """State, bed, and since when, of the one stay that these steps are of."""
    (stay,) = entities(steps).values()
    name = " ".join(filter(None, (stay.get(part) for part in ("unit", "room", "bed"))))
    return stay["state"], name, stay.get("placed_at", "")


def kinds(of: Board) -> list[str]:
    return [one.kind for one in of.conflicts]


def lying(of: Board) -> dict[str, str]:
    """Patients by bed, as the planner sees them."""
    return {stay.bed: stay.need.patient for stay in of.site.stays if stay.bed}


# ------------------------------------------------------------------------------------------------------ steps of a stay


def test_comes_moves_goes() -> None:
    coming, moving, going = step("P", "A01", 7, "ICU 1 1"), step("P", "A02", 9, "MED 1 1"), step("P", "A03", 11)
    assert where(coming) == ("in-progress", "ICU 1 1", at(7))
    assert where(coming, moving) == ("in-progress", "MED 1 1", at(9))
    assert where(coming, moving, going) == ("discharged", "MED 1 1", at(11))


CANCELS = {
    "a move": (("A01", 7, "ICU 1 1"), ("A02", 9, "MED 1 1"), ("A12", 10, "ICU 1 1"), "in-progress", "ICU 1 1", 7),
    "the last of two moves": (
        ("A01", 7, "ICU 1 1"), ("A02", 8, "MED 1 1"), ("A02", 9, "MED 1 2"), ("A12", 10, ""),
        "in-progress", "MED 1 1", 8,
    ),
    "a coming": (("A01", 7, "ICU 1 1"), ("A11", 8, ""), "cancelled", "", None),
    "an admission of somebody who was there": (
        ("A04", 6, "ED 1 1"), ("A01", 7, "ICU 1 1"), ("A11", 8, ""), "in-progress", "ED 1 1", 6,
    ),
    "a going": (("A01", 7, "ICU 1 1"), ("A03", 9, ""), ("A13", 10, "ICU 1 1"), "in-progress", "ICU 1 1", 7),
    "a going, into another bed": (
        ("A01", 7, "ICU 1 1"), ("A03", 9, ""), ("A13", 10, "MED 1 1"), "in-progress", "MED 1 1", 10,
    ),
    "a plan": (("A05", 7, ""), ("A38", 8, ""), "cancelled", "", None),
    "a pending coming": (("A14", 7, ""), ("A27", 8, ""), "cancelled", "", None),
    "a move that nobody told": (("A12", 10, "ICU 1 1"), "in-progress", "ICU 1 1", 10),
    "nothing": (("A01", 7, "ICU 1 1"), ("A12", 10, "ICU 1 1"), "in-progress", "ICU 1 1", 7),
    "a going that was told twice": (
        ("A01", 7, "ICU 1 1"), ("A03", 9, ""), ("A03", 9.5, ""), ("A13", 10, ""), "in-progress", "ICU 1 1", 7,
    ),
    "a move, and the correction that followed it": (
        ("A01", 7, "ICU 1 1"), ("A02", 8, "MED 1 1"), ("A08", 9, "MED 1 2"), ("A12", 10, ""),
        "in-progress", "ICU 1 1", 7,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CANCELS)
def test_cancels_take_back_what_was_before_them(name: str) -> None:
    *steps, state, there, since = CANCELS[name]
    made = [step("P", trigger, hour, place) for trigger, hour, place in steps]  # type: ignore[misc]
    for _ in range(5):
        random.Random(3).shuffle(made)
        assert where(*made) == (state, there, at(since) if since is not None else "")  # type: ignore[arg-type]


def test_a_class_changes_and_the_place_stays() -> None:
    assert where(step("P", "A04", 6, "ED 1 1"), step("P", "A06", 8)) == ("in-progress", "ED 1 1", at(6))


def test_a_correction_moves_and_does_not_bring_back() -> None:
    coming = step("P", "A01", 7, "ICU 1 1")
    assert where(coming, step("P", "A08", 8, "MED 1 1")) == ("in-progress", "MED 1 1", at(8))
    assert where(coming, step("P", "A08", 8, "ICU 1 1")) == ("in-progress", "ICU 1 1", at(7))
    assert where(coming, step("P", "A03", 9), step("P", "A08", 10, "ICU 1 1"))[0] == "discharged"
    assert where(step("P", "A08", 8)) == ("unknown", "", "")


@pytest.mark.parametrize("name", ["", "ICU 1 1"])
def test_corrections_however_many_push_out_no_step(name: str) -> None:
    told = [step("P", "A08", 8 + n / 1000, name) for n in range(HELD + 1)]
    made = [step("P", "A01", 7, "ICU 1 1"), step("P", "A02", 7.5, "MED 1 1"), step("P", "A12", 7.6), *told]
    assert where(*made) == where(*reversed(made)) == ("in-progress", "ICU 1 1", at(7))
    assert where(*made, step("P", "A11", 9)) == ("cancelled", "", "")
    assert len(next(iter(entities(made).values()))["history"].get("corrections", ())) == (HELD if name else 0)


def test_a_request_told_however_often_waits_since_the_first() -> None:
    told = [asks("R1", "P", 6 + n / 200) for n in range(HELD + 2)]
    for some in (told, list(reversed(told)), [*told[1:], told[0]]):
        (one,) = shown(some).site.requests
        assert one.waits == 6.0


def test_two_swap_beds() -> None:
    made = shown([*BEDS, step("P", "A01", 7, "ICU 1 1"), step("Q", "A01", 7, "ICU 1 2"), step("P", "A17", 8, "ICU 1 2"),
                  step("Q", "A17", 8, "ICU 1 1")])  # fmt: skip
    assert lying(made) == {"ICU|1|1": "Q", "ICU|1|2": "P"}
    assert made.conflicts == ()


def snapshot(patient: str, status: str, hour: float, told: float, name: str = "") -> Said:
    return step(patient, "Encounter", hour, name, status=status, told_at=at(told))


def test_fhir_tells_a_stay_whole() -> None:
    begin, moved = snapshot("P", "in-progress", 7, 7, "ICU 1 1"), snapshot("P", "in-progress", 9, 9.5, "MED 1 1")
    assert where(begin, moved) == where(moved, begin) == ("in-progress", "MED 1 1", at(9))
    corrected = snapshot("P", "in-progress", 6, 10, "ICU 1 2")  # of an earlier time, told later
    assert where(begin, moved, corrected) == ("in-progress", "ICU 1 2", at(6))
    assert where(moved, snapshot("P", "finished", 9, 12, "MED 1 1"), begin)[0] == "discharged"


# ------------------------------------------------------------------------------------------------------- order, repeats

PATIENTS, PLACES = ("P", "Q", "R"), ("ICU 1 1", "ICU 1 2", "MED 1 1", "MED 9 9", "")
TRIGGERS = ("A01", "A02", "A03", "A04", "A05", "A06", "A08", "A11", "A12", "A13", "A14", "A17", "A38")
HOURS = st.integers(0, 6).map(float)  # few, so that many are at once
steps = st.builds(
    step, st.sampled_from(PATIENTS), st.sampled_from(TRIGGERS), HOURS, st.sampled_from(PLACES),
    st.sampled_from(["V1", "V2"]), sex=st.sampled_from(["F", "M", None]), patient_class=st.just("I"),
)  # fmt: skip
snapshots = st.builds(
    snapshot, st.sampled_from(PATIENTS), st.sampled_from(["planned", "in-progress", "finished", "cancelled"]), HOURS,
    HOURS, st.sampled_from(PLACES),
)  # fmt: skip
beds = st.builds(
    bed, st.sampled_from(PLACES[:4]), HOURS, action=st.sampled_from(["set", "set", "delete"]),
    bed_status=st.sampled_from(["U", "O", "C", None]), features=st.sampled_from([["oxygen"], ["monitor"], None]),
)  # fmt: skip
shifts = st.builds(
    lambda n, who, begin, hour: shift(f"S{n}", who, begin, begin + 8) | {"at": at(hour)},
    st.integers(1, 3), st.sampled_from(["N1", "N2"]), HOURS, HOURS,
)  # fmt: skip
requests = st.builds(
    asks, st.sampled_from(["R1", "R2"]), st.sampled_from(PATIENTS), HOURS, priority=st.integers(1, 4),
    action=st.sampled_from(["set", "set", "cancel"]), unit=st.sampled_from(["ICU", "MED", None]),
)  # fmt: skip
stories = st.lists(st.one_of(steps, steps, snapshots, beds, shifts, requests), min_size=1, max_size=14)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(stories, st.randoms(use_true_random=False))
def test_any_order_and_repetition_is_the_same_site(said: list[Said], mixed: random.Random) -> None:
    changes = [one for number, event in enumerate(said) for one in sent(event, number)]
    clean = folded(sorted(changes, key=lambda one: one[1]))
    again = changes + mixed.sample(changes, len(changes) // 2)
    mixed.shuffle(again)
    made = folded(again)
    assert made == clean
    now = datetime.fromisoformat(at(12))
    assert board(SITE, made, now) == board(SITE, dict(reversed(clean.items())), now)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(stories)
def test_the_planner_gets_a_site_that_can_be(said: list[Said]) -> None:
    """Whatever was told: one patient a bed, one stay a patient, each in a bed that there is."""
    site = shown(said).site
    taken = [stay.bed for stay in site.stays if stay.bed is not None]
    patients = [stay.need.patient for stay in site.stays]
    assert len(set(taken)) == len(taken)
    assert len(set(patients)) == len(patients)
    assert set(taken) <= site.beds.keys()


# ------------------------------------------------------------------------------------------------------------ conflicts


def test_two_patients_in_a_bed() -> None:
    made = shown([*BEDS, step("P", "A01", 7, "ICU 1 1"), step("Q", "A01", 8, "ICU 1 1")])
    assert kinds(made) == ["two_patients_in_a_bed"]
    assert made.conflicts[0].bed == "ICU|1|1"
    assert len(made.conflicts[0].refs) == 2
    assert lying(made) == {"ICU|1|1": "Q"}, "the last to come is there; the other has to be found a bed"
    assert {stay.need.patient: stay.bed for stay in made.site.stays}["P"] is None


def test_a_patient_in_two_beds() -> None:
    made = shown([*BEDS, step("P", "A01", 7, "ICU 1 1", "V1"), step("P", "A01", 8, "MED 1 1", "V2")])
    assert kinds(made) == ["patient_in_two_beds"]
    assert lying(made) == {"MED|1|1": "P"}
    assert made.site.beds["ICU|1|1"].status == "O", "somebody may lie there: nobody is put in until it is cleared up"


def test_an_unknown_bed() -> None:
    made = shown([*BEDS, step("P", "A01", 7, "ICU 1 7")])
    assert made.conflicts == (Conflict("unknown_bed", made.conflicts[0].refs, "ICU|1|7"),)
    assert made.site.stays[0].bed is None
    gone = shown([*BEDS, step("P", "A01", 7, "ICU 1 1"), bed("ICU 1 1", 8, action="delete")])
    assert kinds(gone) == ["unknown_bed"]


def test_beds_that_nobody_declares_are_known_by_who_lies_in_them() -> None:
    made = shown([step("P", "A01", 7, "ICU 1 7")])
    assert made.conflicts == ()
    assert made.site.beds["ICU|1|7"].status == "O"
    assert made.declared == frozenset()


def test_a_discharge_before_the_admission() -> None:
    made = shown([*BEDS, step("P", "A03", 6), step("P", "A01", 7, "ICU 1 1")])
    assert kinds(made) == ["discharge_before_admission"]
    assert lying(made) == {"ICU|1|1": "P"}, "as their times say; a person has to look"


def test_a_discharge_that_only_came_first_is_none() -> None:
    assert shown([step("P", "A03", 9), step("P", "A01", 7, "ICU 1 1"), *BEDS]).conflicts == ()


def test_shifts_overlap() -> None:
    made = shown([shift("S1", "N1", 6, 14), shift("S2", "N1", 13, 20), shift("S3", "N2", 13, 20)], 10)
    assert kinds(made) == ["shift_overlap"]
    assert len(made.site.nurses) == 3
    after = shown([shift("S1", "N1", 6, 14), shift("S2", "N1", 14, 20)], 10)
    assert after.conflicts == (), "one begins as the other ends"
    off = shown([shift("S1", "N1", 6, 14), shift("S2", "N1", 13, 20), {"type": "shift", "id": "S2", "at": at(1),
                 "action": "cancel"}], 10)  # fmt: skip
    assert off.conflicts == ()


def test_somebody_lies_in_a_closed_bed() -> None:
    made = shown([bed("ICU 1 1", bed_status="C"), step("P", "A01", 7, "ICU 1 1")])
    assert kinds(made) == ["closed_bed_occupied"]
    assert made.site.beds["ICU|1|1"].status == "C"


def test_a_clock_an_hour_ahead_does_not_hold_the_bed() -> None:
    """It is capped at its arrival, 18:00, so the true events after that win again."""
    ahead, true = step("P", "A02", 19, "MED 1 1"), step("P", "A02", 18.1, "ICU 1 2")
    made = shown([*BEDS, step("P", "A01", 7, "ICU 1 1"), ahead, true], 18.5)
    assert lying(made) == {"ICU|1|2": "P"}


# --------------------------------------------------------------------------------------------------------------- boards


def test_a_room_s_closure_and_features_are_its_beds() -> None:
    said = [
        bed("MED 1 1", features=["oxygen"]), bed("MED 2 1", services=["SUR"]), bed("MED 1", bed_status="C"),
        bed("MED", services=["MED"], features=["quiet"]),
    ]  # fmt: skip
    made = shown(said).site.beds
    assert (made["MED|1|1"].status, made["MED|2|1"].status) == ("C", "U")
    assert made["MED|1|1"].features == {"oxygen", "quiet"}
    assert (made["MED|1|1"].services, made["MED|2|1"].services) == ({"MED"}, {"SUR"})


def test_hours_count_from_now() -> None:
    coming = step("P", "A01", 7, "ICU 1 1", expected_discharge_at=at(20), age=67, sex="F", isolation="MRSA")
    (stay,) = shown([*BEDS, coming]).site.stays
    assert (stay.since, stay.need.leaves) == (-5.0, 8.0)
    assert (stay.need.age, stay.need.sex, stay.need.isolation) == (67, "F", "MRSA")
    (late,) = shown([*BEDS, coming], 23).site.stays
    assert late.need.leaves == 1.0, "overdue: any hour now"


def test_outpatients_have_no_place() -> None:
    made = shown([step("P", "A04", 7, "CLINIC", patient_class="O"), step("Q", "A04", 7, "ED", patient_class="E")])
    assert [stay.need.patient for stay in made.site.stays] == ["Q"]


def test_who_waits() -> None:
    said = [
        asks("R1", "P", 8, priority=2, due_at=at(15), stay_hours=72), asks("R2", "Q", 9, priority=1),
        step("R", "A05", 10, expected_admit_at=at(20)), asks("R3", "S", 9), asks("R3", "S", 10, action="cancel"),
    ]  # fmt: skip
    made = shown(said).site.requests
    assert [(one.need.patient, one.priority, one.waits, one.due) for one in made] == [
        ("Q", 1, 3.0, None), ("P", 2, 4.0, 3.0), ("R", 3, 2.0, 8.0),
    ]  # fmt: skip
    assert made[1].need.leaves == 72.0


def test_a_request_told_again_waits_since_the_first() -> None:
    (one,) = shown([asks("R1", "P", 10, priority=1), asks("R1", "P", 8)]).site.requests
    assert (one.waits, one.priority) == (4.0, 1)


def test_a_request_is_answered_by_a_bed_of_another_unit() -> None:
    emergency = [bed("ED 1 1"), bed("ED 1 2"), *BEDS, step("P", "A04", 6, "ED 1 1", patient_class="E")]
    asked = asks("R1", "P", 7)
    assert len(shown([*emergency, asked]).site.requests) == 1
    assert len(shown([*emergency, asked, step("P", "A02", 8, "ED 1 2")]).site.requests) == 1
    moved = [*emergency, asked, step("P", "A02", 9, "MED 1 1")]
    assert shown(moved).site.requests == ()
    assert len(shown([*moved, step("P", "A12", 10, "ED 1 1")]).site.requests) == 1, "the move was taken back"
    assert shown([*moved, step("P", "A03", 11)]).site.requests == (), "gone, and answered all the same"
    only = [*emergency, asks("R1", "P", 7, unit="ICU"), step("P", "A02", 9, "MED 1 1")]
    assert len(shown(only).site.requests) == 1, "in another unit than was asked for"


def test_whoever_asks_stands_once() -> None:
    waiting = [
        *BEDS,
        step("P", "A05", 6),
        asks("R1", "P", 7),
        step("Q", "A04", 6, "ED", patient_class="E"),
        asks("R2", "Q", 7),
    ]
    site = shown(waiting).site
    assert [one.need.patient for one in site.requests] == ["P", "Q"]
    assert site.stays == ()


def test_a_merged_patient_lies_once() -> None:
    """What came before the merge is told on under the survivor's reference, in a stay of its own."""
    said = [*BEDS, step("OLD", "A01", 7, "ICU 1 1", "V1")]
    alone = shown(said, merged={"OLD": "NEW"})
    assert lying(alone) == {"ICU|1|1": "NEW"}
    later = shown([*said, step("NEW", "A02", 9, "MED 1 1", "V1")], merged={"OLD": "NEW"})
    assert (lying(later), later.conflicts) == ({"MED|1|1": "NEW"}, ())
    gone = shown([*said, step("NEW", "A03", 9, "", "V1")], merged={"OLD": "NEW"})
    assert gone.site.stays == ()


def asked(said: list[Said], hour: float, merged: dict[str, str], *without: str) -> Board:
    """The board of what the index is asked for, as `wardstream beds` and a new worker do."""
    held = {name: {k: v for k, v in one.items() if k not in without} for name, one in entities(said).items()}
    now = datetime.fromisoformat(at(hour))
    made = found(held, wanted(now, site=SITE))
    return board(SITE, made | found(held, closed(made.values(), SITE, merged)), now, merged)


MERGED = {"OLD": "NEW", "OLDER": "NEW"}
OPEN = [*BEDS, step("OLD", "A01", 7, "ICU 1 1", "V1", patient_class="I", sex="F")]


def test_a_merged_patient_s_stay_ends_under_the_survivor() -> None:
    assert lying(asked(OPEN, 12, MERGED)) == {"ICU|1|1": "NEW"}
    gone = [*OPEN, step("NEW", "A03", 9, "", "V1")]
    assert asked(gone, 12, MERGED).stays == {}
    assert asked(gone, 12, MERGED).site.beds["ICU|1|1"].status == "U"
    assert lying(asked(gone, 8, MERGED)) == {"ICU|1|1": "NEW"}, "at a time before"
    elsewhere = [*OPEN, {**step("NEW", "A03", 9, "", "V1"), "site": "FAC"}]
    assert asked(elsewhere, 12, MERGED).stays == {}, "a discharge without a place is told of the sender's house"


def test_a_merged_patient_s_stay_survives_the_survivor_s_other_visits() -> None:
    said = [*OPEN, step("NEW", "A04", 9, "CLINIC", "V2", patient_class="O"), step("NEW", "A03", 10, "", "V2")]
    assert lying(asked(said, 12, MERGED)) == lying(shown(said, 12, MERGED)) == {"ICU|1|1": "NEW"}


def test_a_merged_patient_s_steps_are_one_history() -> None:
    said = [*OPEN, step("OLDER", "A02", 8, "ICU 1 2", "V1"), step("NEW", "A02", 9, "MED 1 1", "V1")]
    moved = asked(said, 12, MERGED)
    assert (lying(moved), moved.conflicts, moved.site.stays[0].need.sex) == ({"MED|1|1": "NEW"}, (), "F")
    back = asked([*said, step("NEW", "A12", 10, "ICU 1 2", "V1")], 12, MERGED)
    assert (lying(back), back.site.stays[0].since) == ({"ICU|1|2": "NEW"}, -4.0), "since it was told under another"
    assert lying(asked([*said, step("NEW", "A11", 10, "", "V1")], 12, MERGED)) == {}


def test_a_request_told_before_a_merge_is_answered_after_it() -> None:
    said = [*BEDS, asks("R1", "OLD", 7), step("NEW", "A01", 9, "MED 1 1", "V1"), step("NEW", "A03", 11, "", "V1")]
    assert len(asked(said[:-2], 12, MERGED).site.requests) == 1
    assert asked(said, 12, MERGED).site.requests == ()


def test_stays_that_an_earlier_version_told() -> None:
    """Without a keyed hash of the visit number nothing says which stay it was: told on is told on."""
    assert lying(asked(OPEN, 12, MERGED, "stay")) == {"ICU|1|1": "NEW"}
    assert lying(asked([*OPEN, step("NEW", "A03", 9, "", "V1")], 12, MERGED, "stay")) == {}


def test_live_forgets_a_merged_stay_as_one() -> None:
    """With its end alone forgotten it would be open again."""
    for site in (SITE, "FAC"):
        held = entities([*OPEN, {**step("NEW", "A03", 9, "", "V1"), "site": site}])
        live = Live()
        live.follow(SITE, held)
        for days in (0, 3, 6):
            made = live.board(SITE, datetime.fromisoformat(at(12 + 24 * days)), MERGED)
            assert (made.stays, len(made.site.beds)) == ({}, 4)
        assert {one["kind"] for one in live._sites[SITE].values()} == {"location"}


def test_as_it_was() -> None:
    said = [*BEDS, step("P", "A01", 7, "ICU 1 1"), step("P", "A02", 9, "MED 1 1"), step("P", "A03", 11)]
    assert [lying(shown(said, hour)) for hour in (6, 8, 10, 12)] == [{}, {"ICU|1|1": "P"}, {"MED|1|1": "P"}, {}]


def test_as_beds_were() -> None:
    said = [
        bed("ICU 1 1", 1), bed("ICU 1 1", 8, bed_status="H"), bed("ICU 1 1", 9, bed_status="U"),
        bed("ICU 1 1", 10, features=["oxygen"]), bed("ICU 1 2", 1, bed_status="K"), bed("ICU 1 2", 9, action="delete"),
        bed("ICU 1 3", 1), bed("ICU 1 -", 8.5, bed_status="C"), bed("ICU 1 -", 11, bed_status="U"), bed("ICU 1 4", 1),
        bed("ICU 1 4", 2, bed_status="C"), {**bed("ICU 1 4", 10), "bed_status": None},
        step("P", "A01", 7, "ICU 1 1"), step("P", "A03", 8),
    ]  # fmt: skip
    for _ in range(3):
        random.Random(5).shuffle(said)
        then = {
            hour: "".join(one.status for _, one in sorted(shown(said, hour).site.beds.items()))
            for hour in (7, 8, 8.7, 9, 10.5, 12)
        }
        assert then == {7: "OKUC", 8: "HKUC", 8.7: "CCCC", 9: "CCC", 10.5: "CCC", 12: "UUU"}


def test_theatres_and_nurses() -> None:
    theatre = {"type": "resource", "id": "OR-1", "resource_type": "theatre", "minutes": 240, "price": 1200, "at": at(0)}
    made = shown([theatre, theatre | {"id": "OR-2", "resource_status": "unavailable"},
                  shift("S1", "N1", 6, 14, unit="ICU", rooms=["1"], float_units=["MED"], skill=3, load=8),
                  shift("S2", "D1", 6, 14, role="doctor")], 10).site  # fmt: skip
    assert [(one.id, one.minutes, one.price) for one in made.theatres] == [("OR-1", 240, 1200.0)]
    (nurse,) = made.nurses
    assert (nurse.ref, nurse.starts, nurse.ends, nurse.skill, nurse.load) == ("N1", -4.0, 4.0, 3, 8.0)
    assert (nurse.units, nurse.rooms) == ({"ICU", "MED"}, {"ICU|1"})


# ------------------------------------------------------------------------------------------------- in a worker's memory


def test_live_is_the_board_of_all_entities() -> None:
    said = [*BEDS, step("P", "A01", 7, "ICU 1 1"), asks("R1", "Q", 8), shift("S1", "N1", 6, 14)]
    live, held = Live(), entities(said[:5])
    live.follow(SITE, held)
    before = live.version(SITE)
    live.take(entities(said))
    assert live.version(SITE) > before
    now = datetime.fromisoformat(at(12))
    assert live.board(SITE, now) == shown(said)
    before = live.version(SITE)
    live.take({"elsewhere": {"kind": "location", "site": "SOUTH"}, "price": {"kind": "price", "site": SITE}})
    assert live.version(SITE) == before
    assert live.board(SITE, now) == shown(said)
    live.forget()
    assert list(live) == []


def test_live_follows_who_moves_to_another_site() -> None:
    live = Live()
    for site in (SITE, "SOUTH"):
        live.follow(site, {})
    there = entities([step("P", "A01", 7, "ICU 1 1")])
    live.take(there)
    live.take({name: one | {"site": "SOUTH"} for name, one in there.items()})
    now = datetime.fromisoformat(at(12))
    assert (live.board(SITE, now).stays, len(live.board("SOUTH", now).stays)) == ({}, 1)


def test_live_does_not_grow_with_the_past() -> None:
    over = (("A01", 7), ("A03", 8))
    said = [step(f"P{n}", trigger, hour, f"MED 1 {n}") for n in range(50) for trigger, hour in over]
    live = Live()
    live.follow(SITE, entities([*said, asks("R1", "P3", 9), shift("S1", "N1", 6, 11)]))
    live.board(SITE, datetime.fromisoformat(at(12)) + KEPT)
    assert len(live._sites[SITE]) == 2, "who still asks, with the stay that tells whether he or she got a bed"


def test_live_keeps_no_outpatients() -> None:
    """Whom most feeds never discharge. Whoever gets a bed after all is there."""
    live = Live()
    live.follow(SITE, entities([step(f"P{n}", "A04", 7, "CLINIC", patient_class="O") for n in range(50)]))
    assert live.board(SITE, datetime.fromisoformat(at(8))).stays == {}
    assert live._sites[SITE] == {}
    said = [bed("MED 1 1"), step("P1", "A04", 7, "CLINIC", patient_class="O"), step("P1", "A06", 9, "MED 1 1")]
    live.take(entities(said))
    assert list(live.board(SITE, datetime.fromisoformat(at(10))).lying) == ["MED|1|1"]


def test_what_is_asked_of_the_index() -> None:
    query = wanted(datetime.fromisoformat(at(12)), ("location", "placement"), SITE)
    assert {"term": {"site": SITE}} in query["bool"]["filter"]
    assert closed(entities([step("P", "A03", 7)]).values()) is None
    assert "'P'" in str(closed(entities([asks("R1", "P", 7)]).values()))


# ---------------------------------------------------------------------------------------------------------------- storm


def storm(count: int) -> list[Said]:
    """`count` events of one second: 500 beds, patients that come, move, go and are corrected; late, twice, mixed."""
    rng = random.Random(11)
    names = [f"U{n // 20} {n // 2 % 10} {n % 2}" for n in range(500)]
    said: list[Said] = [bed(name) for name in names]
    for number in range(count - len(said)):
        patient, trigger = f"P{number % 400}", rng.choice(("A01", "A02", "A02", "A08", "A12", "A03", "A13"))
        said.append(step(patient, trigger, 7 + rng.random(), rng.choice(names)))
    rng.shuffle(said)
    return said


def test_a_storm_of_5000_events_keeps_the_state_right() -> None:
    said = storm(5000)
    changes = [one for number, event in enumerate(said) for one in sent(event, number)]
    clean = folded(sorted(changes, key=lambda one: one[1]))
    started = time.perf_counter()
    made = folded(changes)
    folding = time.perf_counter() - started
    now = datetime.fromisoformat(at(12))
    live = Live()
    live.follow(SITE, made)
    started = time.perf_counter()
    of = live.board(SITE, now)
    boarding = time.perf_counter() - started
    assert made == clean
    assert of == board(SITE, clean, now)
    assert len(of.site.beds) == 500
    for stay in of.site.stays:  # each where its own history says
        unit, room, name = placed(steps_of(made[stay.need.ref]["history"])).place
        assert stay.bed in (f"{unit}|{room}|{name}", None)
    print(f"folded 5,000 in {folding:.2f} s, board of 500 beds in {boarding * 1000:.0f} ms")
    assert folding < 5, "a storm of a second is over in a few"
