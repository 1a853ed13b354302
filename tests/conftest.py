"""One embedded stack a run, on a home of its own, and the real listener in front of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.settings import settings
from tests.command import wardstream
from tests.ports import free_port
from tests.postgres import server

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "samples"
WARDSTREAM = [sys.executable, str(ROOT / "wardstream.py")]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder for this run; every setting of the developer's own environment is left out."""
    made = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("WARDSTREAM_")]:
        del os.environ[name]
    os.environ["WARDSTREAM_HOME"] = str(made)
    os.environ["WARDSTREAM_STUDY_QUIET_SECONDS"] = "3"
    os.environ["WARDSTREAM_PLAN_IMPROVE_SECONDS"] = "5"  # the sites of earlier tests are thought about all the while
    settings.cache_clear()
    yield made
    settings.cache_clear()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the files that need the servers, so that `make test` can run all others beside them. Whole files, since the
    tests of one may build on each other."""
    need = {item.path for item in items if "home" in getattr(item, "fixturenames", ())}
    for item in items:
        if item.path in need:
            item.add_marker("servers")


@pytest.fixture(scope="session")
def command(home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command as a person would."""
    return wardstream


@pytest.fixture(scope="session")
def stack(home: Path) -> Iterator[Path]:
    """Kafka, Elasticsearch and one worker, up; gives their home."""
    done = wardstream("up", "--detach")
    assert done.returncode == 0, done.stdout + done.stderr
    yield home
    wardstream("down")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a running PostgreSQL with an empty database."""
    with server() as url:
        yield url


@contextmanager
def listening(*arguments: str) -> Iterator[int]:
    """Port of a listener, `wardstream produce ...`, that runs meanwhile."""
    port = free_port()
    command = [*WARDSTREAM, "produce", *arguments, "--port", str(port)]
    listener = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and listener.poll() is None:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield port
    listener.send_signal(signal.SIGTERM)
    assert listener.wait(timeout=30) == 0


@pytest.fixture(scope="session")
def mllp(stack: Path) -> Iterator[int]:
    """Port of a running MLLP listener."""
    with listening("mllp") as port:
        yield port


@pytest.fixture(scope="session")
def manifest(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[dict[str, Any]]]:
    """Publishes a folder and gives one row a message, files relative to it; each folder once a run."""
    known: dict[Path, list[dict[str, Any]]] = {}

    def produce(folder: Path) -> list[dict[str, Any]]:
        if folder not in known:
            out = tmp_path_factory.mktemp("manifest") / "out.jsonl"
            feed = "operations" if folder.name in ("allocation", "quality") else "files"
            done = wardstream("produce", feed, str(folder), "--manifest", str(out), "--json")
            known[folder] = rows = [json.loads(line) for line in out.read_text().splitlines()]
            assert json.loads(done.stdout)["messages"] == len(rows)
            assert done.returncode == (0 if {row["outcome"] for row in rows} <= {"indexed", "duplicate"} else 1)
            for row in rows:
                row["file"] = str(Path(row["file"]).relative_to(folder))
        return known[folder]

    return produce
