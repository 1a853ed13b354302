"""Imports point one way, and our flat package names are ours alone."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("infra", "schemas", "streams", "producers", "consumers")

# What each package may import. `streams` stands for its pure part; app, agent and worker are nobody's to import.
ALLOWED = {
    "infra": {"infra"},
    "schemas": {"infra", "schemas"},
    "streams": {"infra", "schemas", "streams"},
    "producers": {"infra", "schemas", "streams", "producers"},
    "consumers": {"infra", "schemas", "streams", "consumers"},
}
PURE = ("schemas", "streams/ehr", "streams/fold.py", "streams/quality", "streams/imaging")
EFFECTS = ("infra.kafka", "infra.elastic", "infra.keystore", "infra.settings", "infra.metrics", "asyncio", "socket")
IMPURE_STREAMS = {"streams.app", "streams.agent", "streams.worker"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def wrong(path: Path) -> list[str]:
    package = path.relative_to(ROOT).parts[0]
    bad = []
    for name in imports(path):
        top = name.split(".")[0]
        if top in PACKAGES and top not in ALLOWED[package]:
            bad.append(name)
        if name in IMPURE_STREAMS and path.name not in ("agent.py", "worker.py"):
            bad.append(name)
        if top == "wardstream":
            bad.append(name)
    return bad


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    found = {str(path): names for path in (ROOT / package).rglob("*.py") if (names := wrong(path))}
    assert not found


@pytest.mark.parametrize("pure", PURE)
def test_the_centre_does_no_io(pure: str) -> None:
    place = ROOT / pure
    for path in [place] if place.is_file() else place.rglob("*.py"):
        assert not set(EFFECTS) & set(imports(path)), path


def test_the_check_trips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "producers").mkdir()
    bad = tmp_path / "producers" / "bad.py"
    bad.write_text("from consumers import search\nfrom streams import agent\n")
    assert wrong(bad) == ["consumers", "consumers.search", "streams.agent"]


@pytest.mark.parametrize("name", [*PACKAGES, "wardstream"])
def test_each_name_is_ours(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve().is_relative_to(ROOT)
    owners = set(importlib.metadata.packages_distributions().get(name, ["wardstream"]))
    assert owners == {"wardstream"}


def test_no_command_waits_for_what_it_does_not_use() -> None:
    """scikit-learn and its like take a second of every start; whoever needs them imports them in the command."""
    heavy = ("sklearn", "scipy", "numpy", "matplotlib", "skops", "fhir", "pydicom", "cv2")
    code = f"import sys, wardstream; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
