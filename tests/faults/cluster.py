"""The servers and our own processes: children that are started again when they end, until told to be down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from proxy import Link, Node
from rich.console import Console

from infra.local import elasticsearch
from infra.local.artifacts import JAVA_HOME, install
from infra.local.stack import _free

ROOT = Path(__file__).resolve().parents[2]
BROKERS, WORKERS, LISTENERS = 3, 2, 2
STUCK_SECONDS = 10.0
LIMIT_EXIT = 8  # dead-letter limit: a supervisor leaves it down


class Program:
    """One process under our eyes."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path, ours: bool) -> None:
        self.name, self.command, self.environment, self.log, self.ours = name, command, environment, log, ours
        self.wanted = False
        self.process: subprocess.Popen[bytes] | None = None
        self.exits: list[int] = []

    def start(self) -> None:
        self.wanted = True
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.running:
            self.process.send_signal(number)

    def look(self) -> None:
        """Start again what ended by itself."""
        if self.wanted and self.process is not None and self.process.poll() is not None:
            self.exits.append(self.process.returncode)
            if self.process.returncode == LIMIT_EXIT:
                self.wanted = False
            else:
                self.start()

    async def stop(self) -> bool:
        """SIGTERM, and SIGKILL after a while; gives whether it had to be killed."""
        self.wanted = False
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        patience = STUCK_SECONDS if self.ours else 20.0
        deadline = time.monotonic() + patience
        while self.running and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        stuck = self.running
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.exits.append(await asyncio.to_thread(self.process.wait))
        return stuck and self.ours


class Cluster:
    """Three brokers (replication 3, min.insync.replicas 2), one node, workers and listeners, all behind proxies."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._console = Console(stderr=True)
        ports = iter(free_ports(5 * BROKERS + 4 + 2 * LISTENERS))
        self.kafka = [Link(next(ports), next(ports)) for _ in range(BROKERS)]
        self.node = Node(next(ports), next(ports))
        self.http, transport = int(self.node._target.rsplit(":", 1)[1]), next(ports)
        self.mllp = [Link(next(ports), next(ports)) for _ in range(LISTENERS)]
        logs = home / "logs"
        logs.mkdir(parents=True)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("WARDSTREAM", "JAVA", "PYTHON"))
        }
        self.environment = kept | {
            "WARDSTREAM_HOME": str(home),
            "WARDSTREAM_KAFKA": ",".join(f"127.0.0.1:{link.port}" for link in self.kafka),
            "WARDSTREAM_KAFKA_REPLICATION": "3",
            "WARDSTREAM_ELASTICSEARCH": f"http://127.0.0.1:{self.node.port}",
            "PYTHONUNBUFFERED": "1",
        }
        inner = [(next(ports), next(ports)) for _ in range(BROKERS)]
        self.brokers = [
            Program(f"broker-{n}", self._broker(n, inner), kept, logs / f"broker-{n}.log", ours=False)
            for n in range(BROKERS)
        ]
        elastic = ["-m", "infra.local.elasticsearch", str(home / "elasticsearch"), str(self.http), str(transport)]
        self.elastic = Program(
            "elasticsearch", [sys.executable, *elastic], kept, logs / "elasticsearch.log", ours=False
        )
        self.workers = [self.worker(n) for n in range(WORKERS)]
        self.listeners = [
            Program(f"listener-{n}", self._ours("produce", "mllp", "--port", str(link.target)), self.environment,
                    logs / f"listener-{n}.log", ours=True)
            for n, link in enumerate(self.mllp)
        ]  # fmt: skip

    def worker(self, number: int, **environment: str) -> Program:
        log = self.home / "logs" / f"worker-{number}.log"
        return Program(f"worker-{number}", self._ours("worker"), self.environment | environment, log, ours=True)

    def _ours(self, *arguments: str) -> list[str]:
        return [sys.executable, str(ROOT / "wardstream.py"), *arguments]

    @property
    def programs(self) -> list[Program]:
        return [*self.listeners, *self.workers, *self.brokers, self.elastic]

    def _broker(self, number: int, inner: list[tuple[int, int]]) -> list[str]:
        """Lay one broker out, also a controller; clients reach it through its link alone."""
        folder = self.home / "kafka" / str(number)
        folder.mkdir(parents=True)
        link, (internal, controller) = self.kafka[number], inner[number]
        voters = ",".join(f"{n}@127.0.0.1:{ports[1]}" for n, ports in enumerate(inner))
        properties = folder / "server.properties"
        properties.write_text(
            f"process.roles=broker,controller\nnode.id={number}\ncontroller.quorum.voters={voters}\n"
            f"listeners=CLIENTS://127.0.0.1:{link.target},INTERNAL://127.0.0.1:{internal},"
            f"CONTROLLER://127.0.0.1:{controller}\n"
            f"advertised.listeners=CLIENTS://127.0.0.1:{link.port},INTERNAL://127.0.0.1:{internal}\n"
            "controller.listener.names=CONTROLLER\ninter.broker.listener.name=INTERNAL\n"
            "listener.security.protocol.map=CLIENTS:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
            f"log.dirs={folder / 'data'}\nauto.create.topics.enable=false\nmin.insync.replicas=2\n"
            "unclean.leader.election.enable=false\noffsets.topic.replication.factor=3\n"
            "offsets.topic.num.partitions=6\ntransaction.state.log.replication.factor=3\n"
            "transaction.state.log.min.isr=2\ngroup.initial.rebalance.delay.ms=0\nmessage.max.bytes=14000000\n"
            "replica.fetch.max.bytes=14000000\nbroker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\n"
            "replica.lag.time.max.ms=5000\nlog.cleaner.dedupe.buffer.size=4194304\n"
        )
        jars = install("kafka", lambda jar: self.home / "kafka" / "libs" / jar.name, self._console)
        java = [str(JAVA_HOME / "bin" / "java"), "-XX:TieredStopAtLevel=1", "-cp", os.pathsep.join(map(str, jars))]
        tool = ["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(properties)]
        subprocess.run([*java, *tool], check=True, capture_output=True)
        return [java[0], "-Xmx128m", "-Xms128m", *java[1:], "kafka.Kafka", str(properties)]

    async def start(self) -> None:
        elasticsearch.prepare(self.home / "elasticsearch", self._console)
        for program in (*self.brokers, self.elastic):
            program.start()
        for proxy in (*self.kafka, self.node, *self.mllp):
            await proxy.start()
        deadline = time.monotonic() + 90
        while (await self.command("setup")).returncode:
            if time.monotonic() > deadline:
                raise SystemExit(f"the servers do not start: see {self.home / 'logs'}")
            await asyncio.sleep(1)
        for program in (*self.workers, *self.listeners):
            program.start()
        self._nanny = asyncio.create_task(self._watch())

    async def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        run = self._ours(*arguments)
        return await asyncio.to_thread(
            subprocess.run, run, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=120
        )

    async def _watch(self) -> None:
        while True:
            for program in self.programs:
                program.look()
            await asyncio.sleep(0.3)

    async def stop_ours(self) -> list[str]:
        """SIGTERM to all listeners and workers; gives those that did not go."""
        stuck = [program.name for program in (*self.listeners, *self.workers) if await program.stop()]
        return stuck

    async def close(self) -> None:
        with contextlib.suppress(AttributeError):
            self._nanny.cancel()
        for program in self.programs:
            program.wanted = False
            program.send(signal.SIGCONT)
            program.send(signal.SIGKILL)
        for program in self.programs:
            if program.process is not None:
                program.process.wait()
        for proxy in (*self.kafka, self.node, *self.mllp):
            with contextlib.suppress(AttributeError):
                await proxy.close()


def free_ports(count: int) -> Iterator[int]:
    """Ports below the ephemeral range, so that nobody's outgoing connection takes one meanwhile."""
    candidates = (port for port in range(20_000 + os.getpid() % 5000, 30_000) if _free(port))
    return islice(candidates, count)
