"""Mutual TLS at the real listener: who comes in, who does not, and a change of authority under open connections."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509

from infra import tls
from infra.settings import settings
from tests.certificates import Authority
from tests.command import wardstream
from tests.conftest import ROOT, WARDSTREAM
from tests.ports import free_port
from tests.test_mllp import PID, code, framed, message

EXPIRY = "wardstream_certificate_expiry_timestamp_seconds"
FAILURES = "wardstream_tls_failures_total"


@dataclass(frozen=True, slots=True)
class Edge:
    port: int
    metrics: int
    files: Path  # what the listener is told to use: server.pem, server.key, ca.pem
    log: Path

    def use(self, authority: Authority) -> None:
        authority.sign("server")
        for name in ("server.pem", "server.key", "ca.pem"):
            shutil.copy(authority.folder / name, self.files / name)

    def connect(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        return context.wrap_socket(
            socket.create_connection(("127.0.0.1", self.port), timeout=20), server_hostname="127.0.0.1"
        )

    def metric(self, name: str, reason: str = "") -> float:
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics").read().decode()
        labels = f'feed="mllp",reason="{reason}"' if reason else 'feed="mllp"'
        return float(re.findall(rf"^{name}{{{labels}}} (\S+)$", page, re.M)[0])


def client(authority: Authority, name: str | None = "client") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.ca)
    if name is not None:
        context.load_cert_chain(*authority.sign(name))
    return context


def adt(control_id: str) -> str:
    return message(control_id, PID.format("TLS1"))


def ask(line: socket.socket, body: str) -> str:
    """MSA-1 of the answer; empty where the connection ends without one."""
    try:
        line.sendall(framed(body))
        got = b""
        while b"\x1c\r" not in got:
            if not (piece := line.recv(65536)):
                return ""
            got += piece
    except (ssl.SSLError, ConnectionError):
        return ""
    return code(got)


def until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 15
    while not (is_true := true()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return is_true


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("old"), days=1)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("new"), days=9)


@pytest.fixture
def edge(stack: Path, old: Authority, tmp_path: Path) -> Iterator[Edge]:
    """A listener over mutual TLS, with certificates of the old authority."""
    listener_env = {
        "WARDSTREAM_TLS_CERT": str(tmp_path / "server.pem"),
        "WARDSTREAM_TLS_KEY": str(tmp_path / "server.key"),
        "WARDSTREAM_TLS_CLIENT_CA": str(tmp_path / "ca.pem"),
    }
    port, log = free_port(), tmp_path / "log"
    Edge(port, 0, tmp_path, log).use(old)
    with log.open("w") as out:
        listener = subprocess.Popen(
            [*WARDSTREAM, "produce", "mllp", "--port", str(port)], cwd=ROOT, stderr=out, env=os.environ | listener_env
        )
    assert until(lambda: "metrics on" in log.read_text() or listener.poll() is not None)
    (at,) = re.findall(r"metrics on 127\.0\.0\.1:(\d+)", log.read_text())
    yield Edge(port, int(at), tmp_path, log)
    listener.send_signal(signal.SIGTERM)
    assert listener.wait(timeout=30) == 0


@pytest.mark.filterwarnings("ignore:ssl.OP_NO:DeprecationWarning")
def test_who_comes_in(edge: Edge, old: Authority, new: Authority) -> None:
    with edge.connect(client(old)) as line:
        assert line.version() == "TLSv1.3"
        assert ask(line, adt("TLS1")) == "AA"
    stranger = client(old, None)
    stranger.load_cert_chain(*new.sign("client"))
    for reason, context in (("no_certificate", client(old, None)), ("bad_certificate", stranger)):
        with edge.connect(context) as line:  # TLS 1.3: the client learns of it when it reads
            assert ask(line, adt("TLS2")) == ""
        assert edge.metric(FAILURES, reason) == 1
    with socket.create_connection(("127.0.0.1", edge.port), timeout=20) as line:
        assert ask(line, adt("TLS3")) == ""
    assert edge.metric(FAILURES, "not_tls") == 1
    ancient = client(old)
    ancient.set_ciphers("DEFAULT@SECLEVEL=0")
    ancient.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    ancient.options |= ssl.OP_NO_TLSv1_3 | ssl.OP_NO_TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        edge.connect(ancient)
    assert edge.metric(FAILURES, "version") == 1
    assert "Traceback" not in edge.log.read_text()


def test_reload(edge: Edge, old: Authority, new: Authority) -> None:
    def served() -> bytes:
        blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
        with edge.connect(blind) as line:  # a connection that is refused would fail the test
            return line.getpeercert(binary_form=True) or b""

    before = served()
    assert edge.metric(EXPIRY) == x509.load_der_x509_certificate(before).not_valid_after_utc.timestamp()
    with edge.connect(client(old)) as line:
        assert ask(line, adt("RELOAD1")) == "AA"
        edge.use(new)
        assert until(lambda: served() != before)
        after = x509.load_der_x509_certificate(served())
        assert until(lambda: edge.metric(EXPIRY) == after.not_valid_after_utc.timestamp())
        with edge.connect(client(new)) as other:
            assert ask(other, adt("RELOAD2")) == "AA"
        trusting = client(new, None)
        trusting.load_cert_chain(*old.sign("client"))
        with edge.connect(trusting) as other:
            assert ask(other, adt("RELOAD3")) == ""
        assert ask(line, adt("RELOAD4")) == "AA"


def test_broken_files_change_nothing(edge: Edge, old: Authority) -> None:
    expiry = edge.metric(EXPIRY)
    (edge.files / "server.pem").write_text("PID|1||no certificate")
    assert until(lambda: "not usable" in edge.log.read_text())
    with edge.connect(client(old)) as line:
        assert ask(line, adt("BROKEN1")) == "AA"
    assert edge.metric(EXPIRY) == expiry
    assert "PID" not in edge.log.read_text()
    edge.use(old)
    assert until(lambda: "new certificate" in edge.log.read_text())


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """This process cannot open another file or socket meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as lowest:
        free = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("spare", [False, True])  # too few for the files, or just enough for them and none to listen
def test_a_reload_that_cannot_be_is_tried_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, spare: bool
) -> None:
    """And callers are greeted as before until it can."""
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    shown = tmp_path / "both.pem"
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.02)
    monkeypatch.setenv("WARDSTREAM_TLS_CERT", str(shown))
    settings.cache_clear()

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    def use(of: Authority) -> None:
        certificate, key = of.sign("server")
        shown.write_bytes(certificate.read_bytes() + key.read_bytes())

    async def greeted(port: int, by: Authority) -> None:
        context = ssl.create_default_context(cafile=by.ca)
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.close()
        await asyncio.sleep(0.1)  # until both ends have given their descriptors back

    async def run() -> None:
        greet = tls._greet

        async def crowded(*arguments: Any) -> asyncio.Server:
            with no_more_descriptors():
                return await greet(*arguments)

        async with tls.serving("mllp", tls.streams(hello), "127.0.0.1", 0) as port:
            await greeted(port, first)
            use(second)
            if spare:
                monkeypatch.setattr(tls, "_greet", crowded)
                await asyncio.sleep(0.3)
                monkeypatch.setattr(tls, "_greet", greet)
            else:
                with no_more_descriptors():
                    await asyncio.sleep(0.3)
            assert caplog.text.count("the old certificate stays") == 1
            deadline = time.monotonic() + 5
            while "get the new certificate" not in caplog.text and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            await greeted(port, second)

    use(first)
    uvloop.run(run())
    settings.cache_clear()


def test_commands(edge: Edge, old: Authority, new: Authority) -> None:
    certificate, key = old.sign("sender")
    (edge.files / "one.hl7").write_text(message("SEND1", PID.format("TLS1")), newline="")
    to = ("send", str(edge.files / "one.hl7"), "--port", str(edge.port), "--json")
    shown = ("--tls-cert", str(certificate), "--tls-key", str(key))
    assert wardstream(*to, "--tls-ca", str(old.ca), *shown).returncode == 0
    done = wardstream(*to, "--tls-ca", str(new.ca), *shown)
    assert (done.returncode, "no TLS with" in done.stderr, "Traceback" in done.stderr) == (3, True, False)
    done = wardstream(*to, "--tls-ca", str(old.ca))
    assert (done.returncode, json.loads(done.stdout)["answers"]) == (1, {"none": 1})


def test_beyond_loopback_only_over_tls(home: Path) -> None:
    done = wardstream("produce", "mllp", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2
    assert "--clear" in done.stderr


@pytest.mark.parametrize("wrong", [{"WARDSTREAM_TLS_CLIENT_CA": "ca.pem"}, {"WARDSTREAM_TLS_CERT": "missing.pem"}])
def test_wrong_settings_never_mean_clear(stack: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]) -> None:
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    done = wardstream("produce", "mllp", "--port", "0")
    assert done.returncode == 2
    assert "TLS" in done.stderr
