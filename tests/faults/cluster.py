"""The servers and our own processes: children that are started again when they end, until told to be down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from proxy import Link, Node
from rich.console import Console

from infra.local import elasticsearch
from infra.local.artifacts import JAVA_HOME, install
from infra.local.stack import _free

ROOT = Path(__file__).resolve().parents[2]
BROKERS, WORKERS, LISTENERS = 3, 2, 2
STUCK_SECONDS = 10.0  # from a SIGTERM to the end of one of ours
SERVER_SECONDS = 20.0  # the same of a server, which is not on trial
LIMIT_EXIT = 8  # dead-letter limit: a supervisor leaves it down


class Program:
    """One process under our eyes. `did` counts what became of it: killed, ended, crashed, at its limit, stopped."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path, ours: bool) -> None:
        self.name, self.command, self.environment, self.log, self.ours = name, command, environment, log, ours
        self.role = name.partition("-")[0]
        self.wanted = False
        self.process: subprocess.Popen[bytes] | None = None
        self.exits: list[int] = []
        self.did: Counter[str] = Counter()
        self.stuck = 0  # times it did not go within STUCK_SECONDS of a SIGTERM
        self._asked: float | None = None  # when the process that is there was first sent SIGTERM

    def start(self) -> None:
        self.wanted, self._asked = True, None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.running:
            if number == signal.SIGTERM:
                self._asked = self._asked or time.monotonic()
            if number == signal.SIGSTOP:
                self.did[f"{self.role} stopped"] += 1
            self.process.send_signal(number)

    def look(self) -> None:
        """Note an end, and start again what is wanted. Whoever stays after a SIGTERM is stuck, and is killed."""
        if self.process is None:
            return
        if self.running:
            patience = STUCK_SECONDS if self.ours else SERVER_SECONDS
            if self._asked is not None and time.monotonic() - self._asked > patience:
                self._asked = None
                self.stuck += self.ours
                self.send(signal.SIGKILL)
            return
        code, self.process = self.process.returncode, None
        self.exits.append(code)
        end = "killed" if code == -signal.SIGKILL else "at its limit" if code == LIMIT_EXIT else "crashed"
        self.did[f"{self.role} {'ended' if self._asked is not None and end == 'crashed' else end}"] += 1
        if self.wanted and code != LIMIT_EXIT:
            self.start()
        else:
            self.wanted = False

    async def stop(self) -> bool:
        """SIGTERM, and SIGKILL after a while; gives whether it had to be killed."""
        self.wanted, before = False, self.stuck
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        while self.process is not None:
            self.look()
            await asyncio.sleep(0.05)
        return self.stuck > before


class Cluster:
    """Three brokers (replication 3, min.insync.replicas 2), one node, workers and listeners, all behind proxies."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home = home
        self._console = Console(stderr=True)
        self._ports = ports = free_ports()
        self.kafka = [Link("kafka", next(ports), next(ports)) for _ in range(BROKERS)]
        self.node = Node(next(ports), next(ports), seed)
        self.http, transport = int(self.node._target.rsplit(":", 1)[1]), next(ports)
        self.mllp = [Link("mllp", next(ports), next(ports)) for _ in range(LISTENERS)]
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
            "WARDSTREAM_ELASTICSEARCH_TIMEOUT": "2",  # below what index_answer_lost and index_half_open last
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
        self.every = [*self.brokers, self.elastic]  # whoever there was, for the account
        self.workers = [self.worker(n) for n in range(WORKERS)]
        self.listeners = [
            self._program(f"listener-{n}", "produce", "mllp", "--port", str(link.target))
            for n, link in enumerate(self.mllp)
        ]

    def worker(self, number: int) -> Program:
        return self._program(f"worker-{number}", "worker")

    def _program(self, name: str, *arguments: str) -> Program:
        """One of ours, with a metrics endpoint that the harness can find."""
        environment = self.environment | {"WARDSTREAM_METRICS_PORT": str(next(self._ports))}
        made = Program(name, self._ours(*arguments), environment, self.home / "logs" / f"{name}.log", ours=True)
        self.every.append(made)
        return made

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
        await self._log_in()
        for program in (*self.workers, *self.listeners):
            program.start()
        self._nanny = asyncio.create_task(self._watch())

    async def command(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        run, out = self._ours(*arguments), subprocess.PIPE
        return await asyncio.to_thread(
            subprocess.run,
            run,
            env=self.environment,
            cwd=ROOT,
            input=typed,
            stdout=out,
            stderr=out,
            text=True,
            timeout=120,
        )

    async def _log_in(self) -> None:
        """An account for whoever looks at patients and letters."""
        password, roles = secrets.token_urlsafe(24), ("--role", "clinician", "--role", "operator")
        for arguments in (("users", "add", "looker", *roles), ("login", "looker")):
            done = await self.command(*arguments, "--password-stdin", typed=password)
            if done.returncode:
                raise SystemExit(done.stderr)

    async def _watch(self) -> None:
        while True:
            for program in self.programs:
                program.look()
            await asyncio.sleep(0.3)

    def did(self) -> Counter[str]:
        """What the faults have done so far, counted where it happened: at the processes and in the proxies."""
        total: Counter[str] = Counter()
        for one in (*self.every, *self.kafka, self.node, *self.mllp):
            total.update(one.did)
        return total

    async def pages(self) -> dict[str, bytes]:
        """The metrics of each of ours that shows any now, by its name."""
        shown: dict[str, bytes] = {}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            for program in (*self.listeners, *self.workers):
                port = program.environment["WARDSTREAM_METRICS_PORT"]
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                        shown[program.name] = await answer.read()
        return shown

    async def keep_pages(self) -> list[str]:
        """All of them, into the logs' folder; gives who shows none, even after a while to start in."""
        silent = {program.name for program in (*self.listeners, *self.workers)}
        deadline = time.monotonic() + 20
        while silent and time.monotonic() < deadline:
            for name, page in (await self.pages()).items():
                (self.home / "logs" / f"{name}.metrics").write_bytes(page)
                silent.discard(name)
            await asyncio.sleep(0.5)
        return [f"no metrics of {name}" for name in sorted(silent)]

    async def stop_ours(self) -> None:
        """SIGTERM to all listeners, then to all workers."""
        for program in (*self.listeners, *self.workers):
            await program.stop()

    def stuck(self) -> list[str]:
        """Who did not go on a SIGTERM, whoever sent it and when."""
        return [program.name for program in self.every for _ in range(program.stuck)]

    async def close(self) -> None:
        with contextlib.suppress(AttributeError):
            self._nanny.cancel()
        programs = {*self.every, *self.programs}
        for program in programs:
            program.wanted = False
            program.send(signal.SIGCONT)
            program.send(signal.SIGKILL)
        for program in programs:
            if program.process is not None:
                program.process.wait()
        for proxy in (*self.kafka, self.node, *self.mllp):
            with contextlib.suppress(AttributeError):
                await proxy.close()


def failures(page: bytes, reason: str) -> float:
    """How often a process has failed for this reason, by its metrics: told a peer so, or tried again."""
    found = re.findall(rb'^wardstream_\w+_total\{.*reason="%b".*\} (\S+)$' % reason.encode(), page, re.MULTILINE)
    return sum(map(float, found))


def free_ports() -> Iterator[int]:
    """Ports below the ephemeral range, so that nobody's outgoing connection takes one meanwhile."""
    return (port for port in range(20_000 + os.getpid() % 5000, 30_000) if _free(port))
