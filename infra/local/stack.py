"""`wardstream up`, `down` and `status`: both servers and the workers under one supervisor.

supervisord restarts what exits; a crash loop ends as FATAL and `status` says so. Its children outlive a kill -9 of
it, hold ports and the node lock, and are found by a mark in their environment before anything new starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from elasticsearch import Elasticsearch
from rich.console import Console
from supervisor.xmlrpc import SupervisorTransport

from infra.errors import DeadLetterLimit, StackDown
from infra.local import elasticsearch
from infra.local.kafka import Broker
from infra.settings import settings

ROOT = Path(__file__).resolve().parents[2]
MARK = "WARDSTREAM_SUPERVISED"
HEALTHY_SECONDS = 90.0
STOP_SECONDS = 30.0
SOCKET_PATH_LIMIT = 100  # AF_UNIX paths end at 108 bytes, and supervisord adds a suffix while it starts
SERVERS = ("kafka", "elasticsearch")


class Stack:
    """The embedded stack of one home folder."""

    def __init__(self) -> None:
        self.home = settings().home.absolute()
        self._console = Console(stderr=True)

    def up(self, prepare: Callable[[], None], workers: int) -> None:
        """Start what does not run yet; returns when all of it is healthy. Raises StackDown with the log's last words.

        `prepare` makes topics and indices: after the servers answer, before a worker asks for them.
        """
        for folder in (self.home, self.home / "logs", self.home / "supervisor"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._alone():
            if not self._running():
                self._stop_orphans()
                self._start(workers)
            for server in SERVERS:
                self._await(server)
            prepare()
            self._start_workers()

    def down(self) -> bool:
        """Stop workers, then servers, then the supervisor; gives whether anything ran."""
        with self._alone():
            ran = self._running()
            if ran:
                with contextlib.suppress(OSError, xmlrpc.client.Fault):
                    self._rpc().supervisor.stopProcessGroup("worker", True)
                    for server in SERVERS:
                        self._rpc().supervisor.stopProcess(server, True)
                with contextlib.suppress(OSError, xmlrpc.client.Fault):
                    self._rpc().supervisor.shutdown()
                deadline = time.monotonic() + STOP_SECONDS
                while self._ours() and time.monotonic() < deadline:
                    time.sleep(0.1)
            return self._stop_orphans() or ran

    def status(self) -> dict[str, Any]:
        """State of every program, and whether all of it is healthy."""
        if not self._running():
            return {"healthy": False, "home": str(self.home), "programs": []}
        programs = [self._program(row) for row in self._rpc().supervisor.getAllProcessInfo()]
        healthy = bool(programs) and all(program["healthy"] for program in programs)
        return {"healthy": healthy, "home": str(self.home), "programs": programs}

    def _program(self, row: dict[str, Any]) -> dict[str, Any]:
        name = row["name"]
        running = row["statename"] == "RUNNING"
        program = {
            "name": name,
            "state": row["statename"],
            "pid": row["pid"],
            "uptime_seconds": max(0, row["now"] - row["start"]) if running else 0,
            "log": str(self.home / "logs" / f"{name}.log"),
            "healthy": running and (name not in SERVERS or self._healthy(name)),
        }
        if name in SERVERS:
            program["address"] = self._stack()[name]
        return program

    def _start(self, workers: int) -> None:
        ports = self._ports()
        broker = Broker(self.home / "kafka", ports["kafka"], ports["controller"])
        folder = self.home / "elasticsearch"
        node = ["-m", "infra.local.elasticsearch", str(folder), str(ports["http"]), str(ports["transport"])]
        elasticsearch.prepare(folder, self._console)
        commands = {"kafka": broker.command(self._console), "elasticsearch": [sys.executable, *node]}
        configuration = self.home / "supervisor" / "supervisord.conf"
        configuration.write_text(self._configuration(commands, workers))
        stack = {
            "kafka": f"127.0.0.1:{ports['kafka']}",
            "elasticsearch": f"http://127.0.0.1:{ports['http']}",
            "ports": ports,
        }
        partial = settings().stack_file().with_suffix(".partial")
        partial.write_text(json.dumps(stack, indent=2))
        partial.rename(settings().stack_file())
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]
        # An environment of our own: a JAVA_HOME or PYTHONPATH of the user's must not reach the servers.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAVA", "JDK_", "PYTHON"))}
        environment = kept | {MARK: str(self.home), "WARDSTREAM_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise StackDown(f"the supervisor does not start: {done.stderr[-400:]}")

    def _configuration(self, commands: dict[str, list[str]], workers: int) -> str:
        logs, place = self.home / "logs", self.home / "supervisor"
        rotated = "redirect_stderr=true\nstdout_logfile_maxbytes=20MB\nstdout_logfile_backups=3"
        programs = [
            f"[supervisord]\nlogfile={logs}/supervisord.log\nlogfile_maxbytes=5MB\npidfile={place}/supervisord.pid\n"
            f"childlogdir={logs}\nidentifier=wardstream\numask=077",
            f"[unix_http_server]\nfile={self._socket()}\nchmod=0700",
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        ]
        for name, command in commands.items():
            programs.append(
                f"[program:{name}]\ncommand={_quoted(command)}\ndirectory={ROOT}\nautorestart=true\nstartsecs=1\n"
                f"startretries=5\npriority=10\nstopwaitsecs=20\nstdout_logfile={logs}/{name}.log\n{rotated}"
            )
        if workers:
            worker = [sys.executable, str(ROOT / "wardstream.py"), "worker"]
            programs.append(
                f"[program:worker]\ncommand={_quoted(worker)}\ndirectory={ROOT}\nautostart=false\n"
                f"autorestart=unexpected\nexitcodes={DeadLetterLimit.exit_code}\n"
                f"startsecs=3\nstartretries=10\npriority=20\nstopwaitsecs=15\nnumprocs={workers}\n"
                f"process_name=worker-%(process_num)d\nstdout_logfile={logs}/worker-%(process_num)d.log\n{rotated}"
            )
        return "\n\n".join(programs) + "\n"

    def _start_workers(self) -> None:
        supervisor = self._rpc().supervisor
        rows = [row for row in supervisor.getAllProcessInfo() if row["group"] == "worker"]
        for row in rows:
            if row["statename"] not in ("RUNNING", "STARTING"):
                supervisor.startProcess(f"worker:{row['name']}", False)  # a first failure is tried again, not ours
        for row in rows:
            self._await(row["name"])

    def _await(self, program: str) -> None:
        deadline = time.monotonic() + HEALTHY_SECONDS
        full_name = program if program in SERVERS else f"worker:{program}"
        with self._console.status(f"waiting for {program}"):
            while True:
                state = self._rpc().supervisor.getProcessInfo(full_name)["statename"]
                if state == "RUNNING" and (program not in SERVERS or self._healthy(program)):
                    return
                if state == "FATAL" or time.monotonic() > deadline:
                    raise StackDown(f"{program} is {state} and does not answer: {self._last_words(program)}")
                time.sleep(0.2)

    def _healthy(self, server: str) -> bool:
        address = self._stack()[server]
        if server == "kafka":
            admin = AdminClient({"bootstrap.servers": address, "log_level": 0, "socket.timeout.ms": 2000})
            try:
                return bool(admin.list_topics(timeout=2).brokers)
            except KafkaException:
                return False
        with contextlib.suppress(Exception), Elasticsearch(address, request_timeout=2, max_retries=0) as server_client:
            return server_client.cluster.health()["status"] in ("yellow", "green")
        return False

    def _last_words(self, program: str) -> str:
        log = self.home / "logs" / f"{program}.log"
        lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
        return f"see {log}\n" + "\n".join(lines)

    def _ports(self) -> dict[str, int]:
        """Ports of the last run where they are free again, else the preferred ones or the next free."""
        last: dict[str, int] = self._stack().get("ports", {}) if settings().stack_file().exists() else {}
        of = settings()
        wanted = {
            "kafka": of.kafka_port,
            "controller": of.kafka_port + 1,
            "http": of.elasticsearch_port,
            "transport": of.elasticsearch_port + 100,
        }
        taken: set[int] = set()
        for name, preferred in wanted.items():
            port = last.get(name, preferred)
            while port in taken or not _free(port):
                port += 1
            taken.add(port)
            wanted[name] = port
        return wanted

    def _stack(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(settings().stack_file().read_text())
        return found

    def _socket(self) -> Path:
        near = self.home / "supervisor" / "supervisor.sock"
        if len(str(near).encode()) <= SOCKET_PATH_LIMIT:
            return near
        name = hashlib.sha256(str(self.home).encode()).hexdigest()[:16]
        place = Path(tempfile.gettempdir()) / f"wardstream-{os.getuid()}-{name}"
        place.mkdir(mode=0o700, exist_ok=True)
        if place.stat().st_uid != os.getuid():
            raise StackDown(f"{place} belongs to somebody else")
        return place / "supervisor.sock"

    def _rpc(self) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._socket()}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)

    def _running(self) -> bool:
        try:
            return bool(self._rpc().supervisor.getState()["statename"])
        except (OSError, xmlrpc.client.Error):
            return False

    def _ours(self) -> list[psutil.Process]:
        """Every process that this home's supervisor started, itself included."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.uids().real == os.getuid() and process.environ().get(MARK) == str(self.home):
                    found.append(process)
        return [process for process in found if process.pid != os.getpid()]

    def _stop_orphans(self) -> bool:
        orphans = self._ours()
        for process in orphans:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        for process in psutil.wait_procs(orphans, timeout=STOP_SECONDS / 2)[1]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(orphans, timeout=5)
        return bool(orphans)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One `up` or `down` of a home at a time."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _quoted(command: list[str]) -> str:
    """A command line as supervisord reads it: quoted for the shell-like split, % doubled for its templates."""
    return " ".join(f'"{word}"' for word in command).replace("%", "%%")
