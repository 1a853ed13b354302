"""The cohort says what it knows: outcomes that its messages show, drawn with the chances that its truth gives."""

from __future__ import annotations

import json
import math
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from sklearn.metrics import roc_auc_score

from infra.errors import UsageError
from producers.feeds import folder
from producers.simulate import risks
from producers.simulate.cohort import Cohort, Story
from schemas.ehr import Diagnosis, Event, Note, Observation, Visit
from schemas.peers import Peer
from schemas.record import Record
from schemas.wire.hl7v2 import Message
from streams.ehr import hl7v2
from streams.ehr.news2 import VITALS, news2, vital

NOW = datetime(2025, 3, 1, tzinfo=UTC)
RECEIVED = NOW + timedelta(days=1)
DAY = timedelta(days=1)
TARGETS = ("department", "length_of_stay", "readmission", "deterioration")


@pytest.fixture(scope="module")
def story() -> Story:
    return Cohort(7, 120, NOW).tell()


@pytest.fixture(scope="module")
def large() -> Story:
    return Cohort(11, 1_000, NOW).tell()


@dataclass
class Read:
    """One message as our own reader takes it."""

    patient: str
    at: datetime
    record: Record

    @property
    def event(self) -> Event:
        return next(part for part in self.record.parts if isinstance(part, Event))

    @property
    def visit(self) -> Visit:
        return next(part for part in self.record.parts if isinstance(part, Visit))

    def vitals(self) -> dict[str, float | str]:
        found = (
            vital(part.code, part.value_code or part.value_number or 0, part.units)
            for part in self.record.parts
            if isinstance(part, Observation)
        )
        return dict(one for one in found if one)


@pytest.fixture(scope="module")
def reads(story: Story) -> list[Read]:
    return [
        Read(one.patient, one.at, hl7v2.read(Message.read(one.body), Peer.model_validate({}), RECEIVED))
        for one in story.messages
    ]


# --- the story as a whole


def test_same_arguments_same_bytes_and_fewer_patients_a_part_of_them(story: Story) -> None:
    again = Cohort(7, 120, NOW).tell()
    assert again == story
    bodies = {one.body for one in story.messages}
    few = Cohort(7, 10, NOW).tell()
    assert {one.body for one in few.messages} == {one.body for one in story.messages if one.patient < "p000010"}
    assert not bodies & {one.body for one in Cohort(8, 30, NOW).tell().messages}


def test_sending_order_and_message_ids(story: Story, reads: list[Read]) -> None:
    assert [one.sent for one in story.messages] == sorted(one.sent for one in story.messages)
    assert all(NOW - 731 * DAY <= one.at <= NOW for one in story.messages)
    ids = [one.event.control_id for one in reads]
    assert len(set(ids)) == len(ids)
    assert all(len(one) <= 20 for one in ids)
    # The same people at another end of time: other bodies, so other ids.
    assert not set(ids) & {truth.control_id for truth in Cohort(7, 30, NOW + DAY).tell().truths}


def test_every_message_reads_without_a_flag(reads: list[Read]) -> None:
    assert not any(part.flags for one in reads for part in one.record.parts)
    assert not any(one.event.unread_segments for one in reads)
    assert {f"{one.event.message_type}^{one.event.trigger}" for one in reads} == {
        "ADT^A01", "ADT^A02", "ADT^A03", "ADT^A04", "ADT^A05", "ORU^R01", "MDM^T02",
    }  # fmt: skip


def test_a_complete_parser_agrees(story: Story) -> None:
    """Oracle: hl7apy, on one of each kind and of each system."""
    seen = set()
    for one in story.messages:
        head = one.body.split(b"|", 12)
        if (key := (one.message_type, head[2])) not in seen and head[11].startswith(b"2.5.1"):
            seen.add(key)
            text = one.body.decode("latin-1" if head[2] == b"LABCORE" else "utf-8")
            parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT).validate()
    assert len(seen) >= 6


def test_deaths_are_the_end(reads: list[Read]) -> None:
    died = {one.patient: one for one in reads if one.event.deceased}
    assert died
    for patient, last in died.items():
        assert last.event.trigger == "A03"
        assert last.visit.discharge_disposition == "20"
        assert last.event.died_at == last.at
        assert max(one.at for one in reads if one.patient == patient) == last.at


def test_notes_tell_what_is_there_what_is_not_and_what_runs_in_the_family(reads: list[Read]) -> None:
    notes = [part.body for one in reads for part in one.record.parts if isinstance(part, Note)]
    for words in ("FAMILY HISTORY: ", "Denies ", "Possible ", "Reports ", "No ", "Lives alone", "(MRN "):
        assert sum(words in note for note in notes) > 5, words


def test_long_illnesses_are_named_at_every_admission(reads: list[Read]) -> None:
    codes: dict[str, list[set[str]]] = defaultdict(list)
    for one in reads:
        if one.event.trigger in ("A01", "A03") and one.visit.patient_class == "I":
            said = [part.code for part in one.record.parts if isinstance(part, Diagnosis)]
            codes[one.patient].append(set(said[1:]))
    assert sum(map(len, codes.values())) > 100
    for said in codes.values():  # the first is the reason, which may be a long illness itself
        assert all(len(one ^ other) <= 2 for one in said for other in said)


def test_every_set_of_vital_signs_is_whole(reads: list[Read]) -> None:
    sets = [found for one in reads if (found := one.vitals())]
    assert len(sets) > 2_000
    scores = [news2(found) for found in sets if set(found) == set(VITALS)]
    assert len(scores) == len(sets)
    totals = [score.total for score in scores if score]
    assert len(totals) == len(sets)
    assert min(totals) == 0
    assert max(totals) > 12


# --- the truth is what the messages show


def test_outcomes_follow_from_the_messages_alone(story: Story, reads: list[Read]) -> None:
    """Counted anew from what our own reader takes from the wire, knowing nothing of the generator."""
    of_patient: dict[str, list[Read]] = defaultdict(list)
    for one in reads:
        of_patient[one.patient].append(one)
    by_id = {one.event.control_id: one for one in reads}
    seen = dict.fromkeys(TARGETS, 0)
    for truth in story.truths:
        one = by_id[truth.control_id]
        later = [other for other in of_patient[one.patient] if other.at > one.at]
        outcome: bool | str | None
        if truth.target == "department":
            assert one.event.trigger in ("A01", "A04", "A05")
            outcome = one.visit.hospital_service
        elif truth.target == "length_of_stay":
            assert (one.event.trigger, one.visit.patient_class) == ("A01", "I")
            left = [other for other in later if other.event.trigger == "A03"][:1]
            days = (left[0].at - one.at).days if left else None
            outcome = None if days is None else "0-2" if days < 3 else "3-7" if days < 8 else "8+"
        elif truth.target == "readmission":
            assert (one.event.trigger, one.visit.patient_class) == ("A03", "I")
            assert one.visit.discharge_disposition != "20"
            known = one.at + 30 * DAY <= NOW
            back = any(other.event.trigger == "A01" and other.at - one.at <= 30 * DAY for other in later)
            outcome = back if known else None
        else:
            assert one.visit.unit not in ("ED", "ICU")
            moved = any(
                other.event.trigger == "A02" and other.visit.unit == "ICU" and other.at - one.at <= DAY
                for other in later
            )
            outcome = moved if moved or one.at + DAY <= NOW else None
        assert truth.outcome == outcome, (truth, one.at)
        seen[truth.target] += outcome is not None
    assert all(count > 100 for count in seen.values()), seen


def test_days_are_the_same_by_the_clock_and_by_nights(reads: list[Read]) -> None:
    stays = [one.visit for one in reads if one.event.trigger == "A03" and one.visit.patient_class == "I"]
    assert len(stays) > 100
    for stay in stays:
        assert stay.admitted_at
        assert stay.discharged_at
        nights = stay.discharged_at.astimezone(UTC).date() - stay.admitted_at.astimezone(UTC).date()
        assert nights.days == (stay.discharged_at - stay.admitted_at).days


@pytest.mark.parametrize("target", TARGETS)
def test_outcomes_come_as_often_as_their_chances_say(large: Story, target: str) -> None:
    """In all and bin by bin; with wider errors where one outcome counts for several events."""
    pairs = []
    for one in large.truths:
        if one.target == target and one.outcome is not None:
            if isinstance(one.probability, dict):
                assert math.isclose(sum(one.probability.values()), 1)
                pairs += [(chance, one.outcome == name) for name, chance in one.probability.items()]
            else:
                pairs.append((one.probability, bool(one.outcome)))
    overlap = {"deterioration": 3, "department": 2}.get(target, 1)  # three sets a day; A04 and A01 of one stay
    if target in ("readmission", "deterioration"):
        error = math.sqrt(sum(chance * (1 - chance) for chance, _ in pairs) * overlap)
        assert abs(sum(came - chance for chance, came in pairs)) < 3 * error
    bins = [0, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 1.01]
    tested = 0
    for low, high in pairwise(bins):
        chosen = [pair for pair in pairs if low <= pair[0] < high]
        if len(chosen) > 60:
            tested += 1
            mean = sum(chance for chance, _ in chosen) / len(chosen)
            rate = sum(came for _, came in chosen) / len(chosen)
            error = math.sqrt(mean * (1 - mean) / len(chosen) * overlap)
            assert abs(mean - rate) < 4 * error, (low, high, len(chosen), mean, rate)
    assert tested >= 4
    assert 0.7 < roc_auc_score([came for _, came in pairs], [chance for chance, _ in pairs]) < 0.97


@pytest.mark.parametrize(("level", "steps"), [(0, 3), (2, 3), (3, 2), (4, 3), (3, 1)])
def test_the_chance_of_a_day_is_that_of_its_steps(level: int, steps: int) -> None:
    """The chance by recursion against 40,000 days played out."""
    rng, weighs, rounds = Random(1), 0.7, 40_000
    came, said = 0, 0.0
    for _ in range(rounds):
        now = level
        for number in range(steps):
            shown = risks.signs(rng, now, ())
            chance = risks.hazard(shown, (), weighs)
            if number == 0:
                said += risks.within_a_day(now, chance, steps, weighs)
            if rng.random() < chance:
                came += 1
                break
            now = risks.step(rng, now)
    rate = came / rounds
    assert said / rounds == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / rounds) + 0.001)


def test_nobody_is_at_risk_where_nothing_can_happen() -> None:
    assert risks.within_a_day(4, 0.9, 0, 1.0) == 0.0


# --- arguments, command


@pytest.mark.parametrize(
    "wrong",
    [
        {"patients": 0}, {"patients": 100_001}, {"now": NOW.replace(tzinfo=None)}, {"days": 30}, {"facility": "A|B"},
    ],
)  # fmt: skip
def test_impossible_cohorts(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Cohort(**{"seed": 1, "patients": 5, "now": NOW, **wrong})


def test_the_command_writes_messages_and_truth(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out, truth = tmp_path / "cohort.hl7", tmp_path / "truth.jsonl"
    done = command("simulate", "--longitudinal", "--patients", "6", "--out", str(out), "--truth", str(truth), "--json")
    assert done.returncode == 0, done.stderr
    found = list(folder.messages(folder.files([out])))
    assert len(found) == json.loads(done.stdout)["written"] > 50
    rows = [json.loads(line) for line in truth.read_text().splitlines()]
    assert {frozenset(row) for row in rows} == {frozenset(("control_id", "target", "probability"))}
    known = {one.body.split(b"|", 10)[9].decode() for one in found}
    assert {row["control_id"] for row in rows} <= known


def test_the_command_without_a_cohort_has_no_truth(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = command("simulate", "--truth", str(tmp_path / "truth.jsonl"))
    assert done.returncode == 2
    assert "--longitudinal" in done.stderr
