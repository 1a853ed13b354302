"""Real messages of public projects, each with one outcome, against a kept list that a reader has agreed with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SAMPLES

Run = Callable[..., Any]
GOLDEN = Path(__file__).parent / "golden"
SHARED = ROOT.parent / "shared" / "data" / "hl7"
COMPARED = ("file", "position", "message_type", "outcome", "reason", "where")


def rows(command: Run, folder: Path, manifest: Path) -> list[dict[str, Any]]:
    done = command("produce", "files", str(folder), "--manifest", str(manifest), "--json")
    made = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert json.loads(done.stdout)["messages"] == len(made)
    assert done.returncode == (0 if {row["outcome"] for row in made} <= {"indexed", "duplicate"} else 1)
    for row in made:
        row["file"] = str(Path(row["file"]).relative_to(folder))
    return made


def compared(row: dict[str, Any]) -> dict[str, Any]:
    """A message that another test sent before is a duplicate here: the same outcome, told again."""
    kept = {name: row[name] for name in COMPARED}
    if kept["outcome"] == "duplicate":
        kept["outcome"] = "dead_lettered" if kept["reason"] else "indexed"
    return kept


def check(made: list[dict[str, Any]], golden: Path) -> None:
    kept = [json.loads(line) for line in golden.read_text().splitlines()]
    assert [compared(row) for row in made] == kept


@pytest.mark.parametrize(("folder", "name"), [(SAMPLES / "ehr", "samples.jsonl"), (SHARED, "hl7.jsonl")])
def test_golden_manifest(stack: Path, command: Run, tmp_path: Path, folder: Path, name: str) -> None:
    if not folder.is_dir():
        pytest.skip("the shared data folder is not beside this repository")
    made = rows(command, folder, tmp_path / "out.jsonl")
    check(made, GOLDEN / name)
    well_formed = [row for row in made if row["reason"] not in ("no_msh", "bad_separators", "no_control_id")]
    well_formed = [row for row in well_formed if row["reason"] != "bad_message_type"]
    indexed = [row for row in well_formed if compared(row)["outcome"] == "indexed"]
    assert len(indexed) >= 0.95 * len(well_formed)


def test_the_same_files_again_are_duplicates(stack: Path, command: Run, tmp_path: Path) -> None:
    first = rows(command, SAMPLES / "ehr", tmp_path / "first.jsonl")
    again = rows(command, SAMPLES / "ehr", tmp_path / "again.jsonl")
    for one, other in zip(first, again, strict=True):
        assert other["outcome"] == ("refused" if one["outcome"] == "refused" else "duplicate")
        assert other["event_id"] == one["event_id"]


def test_no_file(command: Run, tmp_path: Path) -> None:
    assert command("produce", "files", str(tmp_path / "none")).returncode == 2
    assert command("produce", "files", str(tmp_path)).returncode == 2
