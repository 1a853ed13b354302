"""The fault harness: each verdict of its checker is shown to trip; and a short seeded run against real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAULTS = ROOT / "tests" / "faults"
sys.path.append(str(FAULTS))

from checker import Evidence, judge  # noqa: E402
from steps import FAULTS as KNOWN  # noqa: E402
from steps import PAIRS, schedule  # noqa: E402
from workload import Message  # noqa: E402

REF = "r1"


def message(number: int, kind: str = "move") -> Message:
    return Message(f"F1-{number}", "1", number, kind, b"body%d" % number, f"e{number}", "AA")


def documents(one: Message) -> list[dict[str, Any]]:
    common = {"event_id": one.event_id, "event_time": f"T{one.number}", "patient_ref": REF}
    return [
        {**common, "part": 0, "kind": "event"},
        {**common, "part": 1, "kind": "visit", "room": str(one.number)},
    ]


@pytest.fixture
def clean() -> Evidence:
    messages = [message(1), message(2), message(3)]
    order = [one.event_id for one in messages]
    return Evidence(
        messages, order, list(order), {one.event_id: one.body for one in messages}, [], {},
        {one.event_id: documents(one) for one in messages},
        [{"kind": "encounter", "patient_ref": REF, "room": "3"}],
    )  # fmt: skip


def verdicts(seen: Evidence) -> set[str]:
    return {name for name, found in judge(seen).items() if found}


def test_a_clean_run_is_clean(clean: Evidence) -> None:
    assert verdicts(clean) == set()


def poisoned(seen: Evidence) -> None:
    seen.messages[1] = replace(seen.messages[1], kind="poison")
    del seen.documents["e2"]


PLANTED: list[tuple[str, Callable[[Evidence], Any]]] = [
    ("lost", lambda seen: seen.documents.pop("e1")),
    ("lost", lambda seen: seen.documents["e1"].pop()),
    ("lost", lambda seen: seen.kept.pop("e2")),
    ("lost", poisoned),
    ("doubled", lambda seen: seen.documents["e1"].append(seen.documents["e1"][0])),
    ("doubled", lambda seen: seen.messages.append(replace(seen.messages[0], event_id="e1b", answer=""))),
    ("wrong", lambda seen: seen.kept.update(e1=b"otherwise")),
    ("wrong", lambda seen: seen.documents["e1"][1].update(room="9")),
    ("wrong", lambda seen: seen.entities[0].update(room="2")),
    ("wrong", lambda seen: seen.entities.clear()),
    ("wrong", lambda seen: seen.letters.update(e1=["bad_date"])),
    ("wrong", lambda seen: seen.letters.update(stranger=["bad_date"])),
    ("out_of_order", lambda seen: seen.raw.reverse()),
    ("out_of_order", lambda seen: seen.sealed.reverse()),
    ("out_of_order", lambda seen: seen.signals.extend(["e2", "e1"])),
    ("clear", lambda seen: seen.in_clear.append("worker.log")),
]


@pytest.mark.parametrize(("verdict", "plant"), PLANTED)
def test_each_verdict_trips(clean: Evidence, verdict: str, plant: Callable[[Evidence], Any]) -> None:
    plant(clean)
    assert verdict in verdicts(clean)


def test_repeats_are_no_disorder(clean: Evidence) -> None:
    """Read again after a crash: only first occurrences have an order."""
    clean.sealed = ["e1", "e2", "e1", "e2", "e3"]
    assert verdicts(clean) == set()


def test_an_unanswered_message_may_be_absent(clean: Evidence) -> None:
    clean.messages.append(replace(message(4), answer=""))
    assert verdicts(clean) == set()


def test_schedule_is_the_seeds() -> None:
    assert schedule(3, 70) == schedule(3, 70) != schedule(4, 70)
    assert {name for names in schedule(3, 60) for name in names} == set(KNOWN)
    assert {name for pair in PAIRS for name in pair} <= set(KNOWN)


SHORT = (
    "worker_killed", "index_503+worker_killed", "broker_killed", "worker_zombie", "key_store_locked",
    "index_answer_lost", "poison_some", "listener_killed", "index_refuses",
)  # fmt: skip


@pytest.mark.timeout(400)
def test_three_minutes_of_faults() -> None:
    done = subprocess.run(
        [sys.executable, str(FAULTS / "run.py"), "--seed", "11", "--json", "--only", *SHORT],
        cwd=ROOT, capture_output=True, text=True, timeout=380,
    )  # fmt: skip
    assert done.stdout, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert {name: found[:5] for name, found in result["verdicts"].items() if found} == {}
    assert done.returncode == 0
    assert result["answered"] > 1000
