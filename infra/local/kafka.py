"""The embedded Kafka: one KRaft node that is broker and controller, on loopback."""

from __future__ import annotations

import os
import subprocess
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from infra.errors import StackDown
from infra.local.artifacts import JAVA_HOME, install

HEAP = "256m"


@dataclass(frozen=True, slots=True)
class Broker:
    folder: Path
    port: int
    controller_port: int

    def command(self, console: Console) -> list[str]:
        """Install, configure and format where needed; gives the command line that runs it."""
        jars = install("kafka", lambda jar: self.folder / "libs" / jar.name, console)
        java = [str(JAVA_HOME / "bin" / "java"), "-cp", os.pathsep.join(map(str, jars))]
        properties = self.folder / "server.properties"
        properties.write_text(self._properties())
        if not (self._data / "meta.properties").exists():
            self._format(java, properties)
        quiet = "-Dorg.slf4j.simpleLogger.showDateTime=true"
        return [java[0], f"-Xmx{HEAP}", f"-Xms{HEAP}", quiet, *java[1:], "kafka.Kafka", str(properties)]

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _format(self, java: list[str], properties: Path) -> None:
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        tool = [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties)]
        done = subprocess.run(tool, capture_output=True, text=True)  # noqa: S603 - our own command line
        if done.returncode:
            raise StackDown(f"Kafka's storage cannot be formatted: {done.stdout[-400:]}{done.stderr[-400:]}")

    def _properties(self) -> str:
        return "\n".join(
            (
                "process.roles=broker,controller",
                "node.id=1",
                f"controller.quorum.voters=1@127.0.0.1:{self.controller_port}",
                f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
                f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}",
                "controller.listener.names=CONTROLLER",
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                f"log.dirs={self._data}",
                "auto.create.topics.enable=false",
                "offsets.topic.replication.factor=1",
                "offsets.topic.num.partitions=6",
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.min.isr=1",
                "group.initial.rebalance.delay.ms=0",
                "message.max.bytes=14000000",
                "replica.fetch.max.bytes=14000000",
                # After kill -9 the old registration must end first: 5 s with these, 12 s with the defaults.
                "broker.session.timeout.ms=3000",
                "broker.heartbeat.interval.ms=500",
                # The default buffer alone is half of this heap.
                "log.cleaner.dedupe.buffer.size=33554432",
                "",
            )
        )
