"""The embedded servers: verified before they run, back after kill -9 with all they had."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from infra.elastic import client
from infra.local.artifacts import Jar, install, locked
from infra.local.stack import MARK
from tests.command import wardstream

Run = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[1]


def in_home(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WARDSTREAM_")}
    environment["WARDSTREAM_HOME"] = str(home)
    return wardstream(*arguments, environment=environment)


def test_status_of_nothing(tmp_path: Path) -> None:
    done = in_home(tmp_path, "status", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout) == {"healthy": False, "home": str(tmp_path), "programs": []}
    assert in_home(tmp_path, "down").stdout.strip() == "nothing was running"


def test_commands_without_a_stack_say_so(tmp_path: Path) -> None:
    for arguments in (("search", "x"), ("dlq", "list"), ("produce", "files", str(ROOT / "tests/samples/ehr"))):
        done = in_home(tmp_path, *arguments)
        assert done.returncode == 3, arguments
        assert "wardstream up" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("server", ["kafka", "elasticsearch", "synthea"])
def test_every_locked_jar_has_a_digest(server: str) -> None:
    jars = locked(server)
    assert len(jars) > 40
    assert all(len(jar.sha256) == 64 for jar in jars)


def test_an_altered_jar_trips(stack: Path, tmp_path: Path) -> None:
    """One byte more in one jar, and nothing is started: exit code 4, which names it."""

    def place(jar: Jar) -> Path:
        return tmp_path / "kafka" / "libs" / jar.name

    jars = install("kafka", place, Console(stderr=True))
    altered = next(path for path in jars if path.name.startswith("kafka-clients"))
    with altered.open("ab") as file:
        file.write(b"\0")
    done = in_home(tmp_path, "up", "--detach")
    assert done.returncode == 4
    assert altered.name in done.stderr
    assert json.loads(in_home(tmp_path, "status", "--json").stdout)["programs"] == []


def ours(stack: Path, word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(stack) and any(word in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.3)
    assert condition()


def healthy(command: Run) -> bool:
    return bool(json.loads(command("status", "--json").stdout)["healthy"])


def count() -> int:
    with client() as server:
        server.indices.refresh(index="ehr")
        return int(server.count(index="ehr")["count"])


def message(number: int) -> str:
    return f"MSH|^~\\&|LOCAL|KILL|US|HERE|20260301120000||ADT^A08|LK{number}|P|2.5\rPID|1||LK{number}^^^HOSP^MR||A^B\r"


@pytest.mark.timeout(200)
@pytest.mark.parametrize("server", ["kafka.Kafka", "infra.local.elasticsearch"])
def test_killed_server_comes_back_with_its_data(stack: Path, command: Run, tmp_path: Path, server: str) -> None:
    first, second = tmp_path / "first.hl7", tmp_path / "second.hl7"
    first.write_text(message(hash(server) % 10**9), newline="")
    second.write_text(message(hash(server) % 10**9 + 1), newline="")
    assert command("produce", "files", str(first)).returncode == 0
    before = count()
    (process,) = ours(stack, server)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    wait_until(lambda: bool(ours(stack, server)) and healthy(command), 60)
    assert count() == before
    assert command("produce", "files", str(second)).returncode == 0


@pytest.mark.timeout(200)
def test_killed_supervisor(stack: Path, command: Run) -> None:
    """Its children live on, hold ports and locks; the next `up` ends them and starts anew, with the same data."""
    before = count()
    (process,) = ours(stack, "supervisor.supervisord")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert command("status", "--json").returncode == 3
    done = command("up", "--detach")
    assert done.returncode == 0, done.stderr
    assert healthy(command)
    assert count() == before
    assert len(ours(stack, "infra.local.elasticsearch")) == 1
