"""Real messages of public projects, each with one outcome, against a kept list that a reader has agreed with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Manifest = Callable[[Path], list[dict[str, Any]]]
ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "samples" / "ehr"
GOLDEN = ROOT / "tests" / "golden" / "hl7.jsonl"
SHARED = ROOT.parent / "shared" / "data" / "hl7"
COMPARED = ("file", "position", "message_type", "outcome", "reason", "where")
NOT_WELL_FORMED = ("no_msh", "bad_separators", "no_control_id", "bad_message_type")


def golden() -> dict[tuple[str, int], dict[str, Any]]:
    rows = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    return {(row["file"], row["position"]): row for row in rows}


def outcomes(rows: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Of the HL7 v2 messages among them."""
    told = {(row["file"], row["position"]): {name: row[name] for name in COMPARED} for row in rows}
    return {place: row for place, row in told.items() if place[0].endswith(".hl7")}


def test_samples_end_as_kept(manifest: Manifest) -> None:
    kept = golden()
    made = outcomes(manifest(SAMPLES))
    assert made == {place: kept[place] for place in made}


def test_every_fhir_sample_is_indexed(manifest: Manifest) -> None:
    rows = [row for row in manifest(SAMPLES) if row["file"].endswith(".json")]
    assert len({row["file"] for row in rows}) == len(list(SAMPLES.rglob("*.json")))
    assert {row["outcome"] for row in rows} <= {"indexed", "duplicate"}, "some are among the shared examples"


def test_shared_messages_end_as_kept(manifest: Manifest) -> None:
    """Those that are samples too were sent before: told as duplicates here, as they ended there."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside this repository")
    first = outcomes(manifest(SAMPLES))
    made = outcomes(manifest(SHARED))
    made |= {place: first[place] for place, row in made.items() if row["outcome"] == "duplicate" and place in first}
    assert made == golden()


def test_well_formed_messages_are_indexed() -> None:
    well_formed = [row for row in golden().values() if row["reason"] not in NOT_WELL_FORMED]
    assert sum(row["outcome"] == "indexed" for row in well_formed) >= 0.95 * len(well_formed)


def test_the_same_files_again_are_duplicates(manifest: Manifest, command: Run, tmp_path: Path) -> None:
    first = manifest(SAMPLES)
    command("produce", "files", str(SAMPLES), "--manifest", str(tmp_path / "again.jsonl"))
    again = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    for one, other in zip(first, again, strict=True):
        assert other["outcome"] == ("refused" if one["outcome"] == "refused" else "duplicate")
        assert other["event_id"] == one["event_id"]


def test_no_file(command: Run, tmp_path: Path) -> None:
    assert command("produce", "files", str(tmp_path / "none")).returncode == 2
    assert command("produce", "files", str(tmp_path)).returncode == 2
