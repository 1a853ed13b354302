"""Synthea runs on the embedded Java from verified jars, and the same seed tells the same lives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jgo.maven import MavenContext
from rich.console import Console

from infra.errors import StackDown, TamperedArtifact, UsageError
from infra.local import synthea
from infra.local.artifacts import locked

QUIET = Console(quiet=True)


def cached() -> bool:
    maven = MavenContext()
    artifacts = (
        maven.project(jar.group, jar.artifact).at_version(jar.version).artifact(jar.classifier)
        for jar in locked("synthea")
    )
    return all((path := artifact.cached_path) and path.exists() for artifact in artifacts)


FETCHED = pytest.mark.skipif(not cached(), reason="200 MB of optional jars: `make synthea` fetches them")


def test_bundles_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "fhir").mkdir()
    (tmp_path / "fhir" / "somebody.json").touch()
    with pytest.raises(UsageError):
        synthea.generate(tmp_path, 1, 7, QUIET)


@FETCHED
def test_the_same_seed_the_same_bundles(tmp_path: Path) -> None:
    first, second = (synthea.generate(tmp_path / name, 1, 11, QUIET) for name in ("first", "second"))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    kinds = [entry["resource"]["resourceType"] for path in first for entry in json.loads(path.read_bytes())["entry"]]
    assert kinds.count("Patient") == len(first) - 2  # beside the hospitals and the practitioners
    assert {"Encounter", "Observation", "Condition", "Organization", "Practitioner"} <= set(kinds)


@FETCHED
def test_an_altered_jar_is_not_run(tmp_path: Path) -> None:
    synthea.generate(tmp_path, 1, 11, QUIET)
    with (tmp_path / "jars" / "synthea-3.3.0.jar").open("ab") as jar:
        jar.write(b"\0")
    for bundle in (tmp_path / "fhir").iterdir():
        bundle.unlink()
    with pytest.raises(TamperedArtifact):
        synthea.generate(tmp_path, 1, 11, QUIET)


@FETCHED
def test_a_failure_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthea, "TODAY", "someday")
    with pytest.raises(StackDown):
        synthea.generate(tmp_path, 1, 11, QUIET)
