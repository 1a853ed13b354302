"""The stack that is measured, and the processes on it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.elastic import client
from infra.kafka import connection, lag
from infra.settings import settings
from schemas.registry import DOMAINS, Domain

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(ROOT / "wardstream.py")]
PEERS = [sys.executable, str(ROOT / "tests" / "bench" / "peers.py")]
THEIRS = str(ROOT / ".venv-bench" / "bin" / "python")
WORKERS = {"ours": [*COMMAND, "worker"], "aiokafka": [*PEERS, "aiokafka"], "quix": [THEIRS, *PEERS[1:], "quix"]}
DOMAIN = DOMAINS["ehr"]


def run(*arguments: str) -> None:
    subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_json(*arguments: str) -> Any:
    return json.loads(subprocess.run([*COMMAND, *arguments], check=True, capture_output=True).stdout)


@contextlib.contextmanager
def stack(home: Path) -> Iterator[None]:
    """Kafka and Elasticsearch without a worker."""
    os.environ["WARDSTREAM_HOME"] = str(home)
    settings.cache_clear()
    run("up", "--detach", "--workers", "0")
    try:
        yield
    finally:
        run("down")


@contextlib.contextmanager
def process(home: Path, name: str, command: list[str]) -> Iterator[psutil.Process]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (home / "logs" / f"bench-{name}.log").open("ab") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment)
    try:
        yield psutil.Process(started.pid)
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextlib.contextmanager
def listener(home: Path, feed: str = "mllp") -> Iterator[tuple[int, psutil.Process]]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    with process(home, "listener", [*COMMAND, "produce", feed, "--port", str(port)]) as running:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port, running


def documents() -> int:
    with client() as server:
        server.indices.refresh(index=DOMAIN.alias)
        return int(server.count(index=DOMAIN.alias, query={"range": {"part": {"gte": 0}}})["count"])


def skip_to_end(group: str) -> None:
    """Let a group start with what comes next; tried again while members of an earlier round are still known."""
    consumer = Consumer(connection(settings()) | {"group.id": group, "enable.auto.commit": False})
    deadline = time.monotonic() + 60
    while True:
        places = [TopicPartition(DOMAIN.raw.name, number) for number in range(DOMAIN.raw.partitions)]
        for place in places:
            place.offset = consumer.get_watermark_offsets(place, timeout=10)[1]
        try:
            consumer.commit(offsets=places, asynchronous=False)
            consumer.close()
            return
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def waiting(domain: Domain = DOMAIN) -> int:
    """Events that no worker has finished."""
    return sum(one.events for one in lag(domain.raw.name).values())


def until_idle(patience: float, domain: Domain = DOMAIN) -> float:
    """Seconds until nothing waits. Raises TimeoutError."""
    started = time.monotonic()
    while waiting(domain):
        if time.monotonic() - started > patience:
            raise TimeoutError(f"{waiting(domain)} events still wait")
        time.sleep(0.2)
    return time.monotonic() - started


def servers() -> dict[str, psutil.Process]:
    """Kafka's and Elasticsearch's processes."""
    status = json.loads(subprocess.run([*COMMAND, "status", "--json"], capture_output=True, text=True).stdout)
    return {one["name"]: psutil.Process(one["pid"]) for one in status["programs"]}


def cpu_seconds(one: psutil.Process) -> float:
    times = one.cpu_times()
    return float(times.user + times.system)


def machine() -> dict[str, Any]:
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    model = next((value.strip() for name, _, value in lines if name.strip() == "model name"), platform.processor())
    packages = ("faust-streaming", "aiokafka", "confluent-kafka", "elasticsearch", "cryptography", "pydantic", "uvloop")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }
