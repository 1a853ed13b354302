"""Outcome models at the command, on the index that the real stack has filled with simulated cases."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_from_simulated_cases_to_a_model(command: Command, stack: Path, tmp_path: Path) -> None:
    told = tmp_path / "cases.ndjson"
    done = command("simulate", "--cases", "1600", "--out", str(told), "--corrections", "0.02", "--repeats", "0.02")
    assert done.returncode == 0, done.stderr
    done = command("produce", "operations", str(told), "--json")
    assert done.returncode == 0, done.stderr
    said = ("--algorithm", "decision_tree", "--algorithm", "logistic_regression", "--json")
    done = command("models", "train", "death_in_hospital", *said)
    assert done.returncode == 0, done.stderr
    cards = json.loads(done.stdout)
    assert {card["algorithm"] for card in cards} == {"decision_tree", "logistic_regression"}
    best = cards[-1]
    assert best["name"] == "quality-death_in_hospital"
    assert best["figures"]["auc"]["value"] > 0.65
    assert {"unit=CARD", "sex=F"} <= best["subgroups"].keys()
    assert best["holdout"]["first"] > best["data"]["last"]
    checked = command("models", "check", best["name"], best["version"], "--json")
    assert checked.returncode == 0, checked.stderr
    promoted = command("models", "promote", best["name"], best["version"])
    assert promoted.returncode == 0, promoted.stderr
    wrong = command("models", "train", "wound_infektion", "--json")
    assert wrong.returncode == 2
    assert "wound_infection" in wrong.stderr
