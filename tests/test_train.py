"""Training at the command, on the index that the real stack has filled."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.wire.hl7v2 import split_batch
from streams.learn import kept_back

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def truth(command: Command, stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort in the index; gives the file of what its generator knew."""
    folder = tmp_path_factory.mktemp("cohort")
    told, known = folder / "cohort.hl7", folder / "truth.jsonl"
    said = ("--longitudinal", "--patients", "300", "--seed", "5", "--truth", str(known), "--out", str(told))
    assert command("simulate", *said).returncode == 0
    moves = [one for one in split_batch(told.read_bytes()) if b"|ADT^" in one.partition(b"\r")[0]]
    told.write_bytes(b"\r".join(moves))  # a fifth of the messages, with every row that is learned from
    done = command("produce", "files", str(told), "--json")
    assert done.returncode == 0, done.stderr
    return known


@pytest.fixture(scope="module")
def cards(command: Command, truth: Path) -> list[dict[str, Any]]:
    done = command("models", "train", "department", "--truth", str(truth), "--json")
    assert done.returncode == 0, done.stderr
    made: list[dict[str, Any]] = json.loads(done.stdout)
    return made


def test_train_and_check(command: Command, cards: list[dict[str, Any]]) -> None:
    assert {card["algorithm"] for card in cards} == {
        "decision_tree",
        "support_vector_machine",
        "random_forest",
        "logistic_regression",
    }
    best = cards[-1]
    assert best["figures"]["auc"]["value"] > 0.75
    assert best["figures"]["best_possible_auc"]["value"] > best["figures"]["auc"]["value"] - 0.05
    assert best["holdout"]["first"] > best["data"]["last"]
    checked = command("models", "check", best["name"], best["version"], "--json")
    figures = json.loads(checked.stdout)["figures"]
    assert len(figures) > 20
    assert [one for one in figures if not one["same"]] == []
    assert checked.returncode == 0


def test_whoever_has_not_permitted_it_is_not_learned_from(command: Command, cards: list[dict[str, Any]]) -> None:
    """The hold-out has one patient less then, and `check` says so."""
    (card,) = [one for one in cards if one["algorithm"] == "decision_tree"]
    found = command(
        "search", "trigger:A04 patient_class:E", "--kind", "visit", "--since", "90d", "--size", "300", "--json"
    )
    refs = sorted({hit["patient_ref"] for hit in json.loads(found.stdout)["hits"] if kept_back(hit["patient_ref"])})
    decided = command("consent", "deny", "--patient", refs[0], "--purpose", "HOPERAT")
    assert decided.returncode == 0, decided.stderr
    checked = command("models", "check", card["name"], card["version"], "--json")
    figures = {one["figure"]: one for one in json.loads(checked.stdout)["figures"]}
    assert checked.returncode == 1
    assert figures["holdout patients"]["card"] - figures["holdout patients"]["now"] == 1


def test_a_truth_that_is_none(command: Command, stack: Path, tmp_path: Path) -> None:
    bad = tmp_path / "truth.jsonl"
    bad.write_text('{"control_id": "C1", "target": "department"}\n')
    done = command("models", "train", "department", "--truth", str(bad))
    assert done.returncode == 2
    assert "the truth cannot be read: KeyError" in done.stderr
