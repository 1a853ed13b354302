"""Survival, models and rules of what the real stack has read, and refits until Ctrl-C."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.kafka import lag
from schemas.registry import DOMAINS
from tests.conftest import ROOT, WARDSTREAM

Command = Callable[..., Any]
SITE = "CURVEHOUSE"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def at(day: float) -> str:
    return f"{BEGIN + timedelta(days=day):%Y-%m-%dT%H:%M:%SZ}"


def events(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Twelve are admitted a day. Of diabetics two in three die within 30 days, of others one in five; at TINY are five,
    and one is dead before he is admitted."""
    drawn, made = random.Random(first + 1), []
    for number in range(first, first + count):
        day, diabetic = number / 12, drawn.random() < 0.4
        person = {"site": SITE, "patient_number": f"CH{number}"}
        unit = "TINY" if number in range(5) else ("CARD", "ORTH", "SURG")[number % 3]
        told = {"sex": "MF"[drawn.random() < 0.5], "age": drawn.randint(40, 85), "diabetes": diabetic, "unit": unit}
        made.append({"type": "case", **person, "id": f"CC{number}", "at": at(day), "admitted_at": at(day), **told})
        if drawn.random() < (0.67 if diabetic else 0.2):
            died = day - 3 if number == 10 else day + drawn.uniform(0.5, 29)
            made.append({"type": "death", **person, "died_at": at(died), "at": at(died)})
    made.append({"type": "death", "site": SITE, "patient_number": "CH10", "died_at": at(-3), "at": at(90)})
    return made


def produce(command: Command, folder: Path, said: list[dict[str, Any]]) -> None:
    path = folder / f"{time.monotonic_ns()}.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in said))
    done = command("produce", "operations", str(path), "--json")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    deadline = time.monotonic() + 90
    while sum(one.events for one in lag(DOMAINS["quality"].raw.name).values()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    time.sleep(1.5)  # until the index has refreshed


@pytest.fixture(scope="module")
def known(stack: Path, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curves")
    produce(command, folder, events(240))
    return folder


def asked(command: Command, *said: str) -> Any:
    done = command("quality", *said, "--site", SITE, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_survival(command: Command, known: Path) -> None:
    report = asked(command, "survival", "--by", "diabetes", "--at", "30")
    no, yes = report["groups"]
    assert (no["group"], yes["group"]) == ("no", "yes")
    assert yes["at"][0]["survival"] < 0.5 < no["at"][0]["survival"]
    assert report["log_rank"]["p"] < 1e-4
    assert report["refused"] == {"death_before_admission": 1}
    assert report["rows"] == 239
    by_unit = asked(command, "survival", "--by", "unit")
    assert [one["group"] for one in by_unit["groups"]] == ["CARD", "ORTH", "SURG"]
    assert "TINY" not in json.dumps(by_unit)


def test_cox_and_frailty(command: Command, known: Path, tmp_path: Path) -> None:
    picture = tmp_path / "forest.svg"
    report = asked(command, "cox", "--covariates", "age,diabetes", "--strata", "unit", "--out", str(picture))
    assert {one["name"]: one["low"] > 1 for one in report["coefficients"]} == {"age": False, "diabetes=yes": True}
    assert picture.exists()
    shared = asked(command, "frailty", "--covariates", "age,diabetes")
    assert {one["cluster"] for one in shared["clusters"]} == {"CARD", "ORTH", "SURG"}
    done = command("quality", "cox", "--site", SITE, "--covariates", "bmi")
    assert done.returncode == 18
    assert "missing_column: bmi" in done.stderr


def test_rules(command: Command, known: Path) -> None:
    report = asked(command, "rules", "--outcome", "death_30d", "--until", "2026-03-01")
    assert "diabetes=yes" in report["rules"][0]["if"]
    chains = asked(command, "rules", "--method", "sequence", "--support", "0.1", "--confidence", "0.1")
    assert {tuple(one["then"]) for one in chains["rules"]} == {("death",)}


def test_who_may_not(command: Command, known: Path) -> None:
    assert command("quality", "cox", "--role", "operator").returncode == 10


def test_refits_until_ctrl_c(command: Command, known: Path) -> None:
    of = ["quality", "cox", "--site", SITE, "--covariates", "age,diabetes", "--every", "1", "--json"]
    running = subprocess.Popen(
        [*WARDSTREAM, *of], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert running.stdout is not None
        first = json.loads(running.stdout.readline())
        produce(command, known, events(24, 240))
        told = (json.loads(line) for line in running.stdout)
        second = next(one for one in told if one["rows"] > first["rows"])  # events may come in several pieces
        assert second["rows"] <= first["rows"] + 24
        running.send_signal(signal.SIGINT)
        try:
            _, errors = running.communicate(timeout=20)
        except subprocess.TimeoutExpired:  # one that fell into a library that eats it: a person presses it again
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=20)
        assert (running.returncode, errors) == (0, "")
    finally:
        running.kill()
