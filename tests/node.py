"""A DICOM node in this process, on a stand-in for the broker, and clients for it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association

from infra.audit import Audit, events
from infra.crypto import open_payload
from infra.keyring import Keyring
from infra.keystore import KeyStore
from infra.objects import Objects
from producers.feeds import dicom
from producers.imaging import Images
from producers.instances import Instances
from producers.publish import Publisher
from producers.seen import Seen
from schemas.envelope import Envelope
from schemas.peers import Peers
from schemas.wire import dimse
from schemas.wire.dicom import Arrived, unpack
from tests.broker import Broker

CONTEXT = dimse.CONTEXT_NAME
EXPLICIT = "1.2.840.10008.1.2.1"
TITLE = "WARDSTREAM"


class Running:
    """A node that serves while the context lasts. Its broker can be told to fail."""

    def __init__(self, home: Path, title: str = TITLE, clients: tuple[str, ...] = ("*@*",), peers: Peers | None = None):
        self.home, self.title, self.clients = home, title, dicom.Clients(clients)
        self.peers = peers or Peers()
        self.keyring = Keyring.open(home / "keyring.json")
        self.keys = KeyStore(f"sqlite:///{home / 'keystore.sqlite'}", self.keyring)
        self.objects = Objects(str(home / "objects"))
        self.audit = Audit(home, home / "anchor", self.keyring.signing_key())
        self.port = 0

    def __enter__(self) -> Running:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        assert started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _serve(self, started: threading.Event) -> None:
        self.loop, self._stop, self.broker = asyncio.get_running_loop(), asyncio.Event(), Broker(is_open=True)

        def ready(port: int) -> None:
            self.port = port
            started.set()

        seen = Seen(self.home / "seen.sqlite")
        async with Publisher(self.broker, self.keyring, self.keys, seen) as publisher:  # type: ignore[arg-type]
            node = dicom.Node(partial(self._images, publisher), self.title, self.clients)
            await node.serve("127.0.0.1", 0, ready, self._stop)

    @contextmanager
    def _images(self, publisher: Publisher) -> Iterator[Images]:
        instances = Instances(self.home / "instances.sqlite")
        self.images = Images(publisher, self.keyring, self.peers, instances, self.objects, self.audit)
        try:
            yield self.images
        finally:
            self.images.close()

    def hold(self, closed: bool) -> None:
        """Whether the broker confirms nothing for now."""
        self.loop.call_soon_threadsafe(self.broker.open.clear if closed else self.broker.open.set)

    def events(self) -> list[Arrived]:
        """What was published, opened."""
        found = []
        for one in self.broker.sent:
            if one.topic.startswith("hospital.imaging"):
                envelope = Envelope.read(one.headers)
                keys = [key for key in self.keys.of_tokens(envelope.subjects).values() if key is not None]
                assert one.value is not None
                found.append(unpack(open_payload(keys, envelope.event_id, envelope.sealed(one.value))))
        return found

    def audited(self) -> list[tuple[str, str]]:
        """Kind and reason of every entry."""
        if not self.audit.path.exists():
            return []
        return [(one["subtype"][0]["code"], one.get("outcomeDesc", "")) for one in events(self.audit.path)]

    def stored(self) -> set[str]:
        return {path.name for path in (self.home / "objects").rglob("*") if path.is_file()}

    def content(self, one: Arrived) -> bytes:
        """The object's file."""
        with self.objects.open(one.claim) as file:
            return bytes(file.readall())  # type: ignore[attr-defined]


def client(
    port: int,
    contexts: list[tuple[str, list[str]]],
    calling: str = "MODALITY",
    called: str = TITLE,
    handlers: Any = None,
    tls: Any = None,
) -> Association:
    """pynetdicom as a peer; established or not is the caller's to look at."""
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    for abstract, syntaxes in contexts:
        entity.add_requested_context(abstract, syntaxes)
    return entity.associate(
        "127.0.0.1", port, ae_title=called, evt_handlers=handlers or [], tls_args=(tls, "127.0.0.1") if tls else None
    )


def status(made: Dataset) -> int:
    return int(made.Status) if "Status" in made else -1


class Raw:
    """A peer that says what it likes, byte by byte."""

    def __init__(self, port: int, sop_class: str, syntax: str = EXPLICIT, calling: str = "RAW", called: str = TITLE):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.sop_class = sop_class
        self.socket.sendall(self.request([(1, sop_class, [syntax])], calling, called))
        self.kind, self.body = self.unit()

    @staticmethod
    def request(contexts: list[tuple[int, str, list[str]]], calling: str, called: str, version: int = 1) -> bytes:
        def item(kind: int, value: bytes) -> bytes:
            return struct.pack(">BxH", kind, len(value)) + value

        made = item(0x10, CONTEXT.encode())
        for number, abstract, syntaxes in contexts:
            said = b"".join(item(0x40, one.encode()) for one in syntaxes)
            made += item(0x20, bytes([number, 0, 0, 0]) + item(0x30, abstract.encode()) + said)
        made += item(0x50, item(0x51, bytes([0, 0, 64, 0])) + item(0x52, b"1.2.3"))
        titles = called.encode().ljust(16) + calling.encode().ljust(16)
        return dimse.pdu(dimse.ASSOCIATE_RQ, struct.pack(">H2x", version) + titles + bytes(32) + made)

    def unit(self) -> tuple[int, bytes]:
        """The next protocol data unit; type 0 where the peer has closed."""
        head = self.exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, size = dimse.HEAD.unpack(head)
        return kind, self.exactly(size)

    def exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            try:
                piece = self.socket.recv(size - len(got))
            except ConnectionResetError:
                piece = b""
            if not piece:
                break
            got += piece
        return got

    def fragment(self, payload: bytes, kind: int, context: int = 1) -> None:
        self.socket.sendall(dimse.pdu(dimse.P_DATA, dimse.FRAGMENT.pack(len(payload) + 2, context, kind) + payload))

    def announce(self, instance: str, sop_class: str = "", data: int = 1, message: int = 7) -> None:
        said: dict[int, int | str] = {dimse.AFFECTED_CLASS: sop_class or self.sop_class, dimse.FIELD: dimse.C_STORE}
        said |= {dimse.MESSAGE: message, 0x700: 0, dimse.DATA: data, dimse.AFFECTED_INSTANCE: instance}
        self.fragment(dimse.encode(said), dimse.COMMAND | dimse.LAST)

    def store(self, instance: str, data: bytes, sop_class: str = "") -> tuple[int, str]:
        """Status and comment of a C-STORE of these bytes as they are."""
        self.announce(instance, sop_class)
        for at in range(0, max(1, len(data)), 16_000):
            self.fragment(data[at : at + 16_000], dimse.LAST if at + 16_000 >= len(data) else 0)
        return self.answer()

    def answer(self) -> tuple[int, str]:
        kind, body = self.unit()
        if kind != dimse.P_DATA:
            return -kind, ""
        said = dimse.command(body[6:])
        return said.number(dimse.STATUS), said.text(dimse.COMMENT)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One of DCMTK's."""
    environment = os.environ | {"TCP_NODELAY": "1"}  # DCMTK waits 40 ms an answer for more to send otherwise
    return subprocess.run([name, *arguments], capture_output=True, text=True, timeout=300, env=environment)


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def has(name: str) -> bool:
    return shutil.which(name) is not None
