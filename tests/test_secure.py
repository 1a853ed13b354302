"""Servers of somebody else's: Kafka with TLS, SCRAM and rights, Elasticsearch with TLS, a listener with mutual TLS.

Settings alone change, never code; and what crosses the wire on that path tells nobody who the patient is.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient

from infra.elastic import client
from infra.errors import StackDown
from infra.kafka import GROUP, Reader, TopicSpec, connection, create_topics
from infra.local.artifacts import JAVA_HOME
from infra.settings import Settings, settings
from schemas.identities import identities
from schemas.registry import DOMAINS, TOPICS
from schemas.topics import PREFIX
from tests.capture import Scanner
from tests.certificates import Authority
from tests.command import wardstream
from tests.ports import free_port
from tests.test_tls import ask, until

ROOT = Path(__file__).resolve().parents[1]
WARDSTREAM = [sys.executable, str(ROOT / "wardstream.py")]
USERS = ("broker", "wardstream-admin", "wardstream-edge", "wardstream-worker", "wardstream-reader", "stranger")
PASSWORD = "not-a-secret"
RAW = DOMAINS["ehr"].raw.name


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A home whose servers are all secured; `environment` of one identity there."""

    authority: Authority
    settings: dict[str, str]

    def environment(self, identity: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WARDSTREAM_")}
        return clean | self.settings | {"WARDSTREAM_KAFKA_USERNAME": identity}

    def of(self, identity: str) -> Settings:
        given = self.settings | {"WARDSTREAM_KAFKA_USERNAME": identity}
        return Settings(**{name.removeprefix("WARDSTREAM_").lower(): value for name, value in given.items()})  # type: ignore[arg-type]

    def run(self, identity: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment(identity) | more
        return wardstream(*arguments, environment=environment)


def properties(folder: Path, port: int, controller: int, store: Path, ca: Path) -> str:
    users = " ".join(("required", 'username="broker"', f'password="{PASSWORD}"'))
    return "\n".join(
        (
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@127.0.0.1:{controller}",
            f"listeners=SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            f"advertised.listeners=SASL_SSL://127.0.0.1:{port}",
            "controller.listener.names=CONTROLLER",
            "listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:SSL",
            "listener.name.controller.ssl.client.auth=required",
            "inter.broker.listener.name=SASL_SSL",
            "sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512",
            "sasl.enabled.mechanisms=SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config="
            f"org.apache.kafka.common.security.scram.ScramLoginModule {users};",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found=false",
            "super.users=User:broker;User:CN=broker;User:wardstream-admin",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={store}",
            "ssl.truststore.type=PEM",
            f"ssl.truststore.location={ca}",
            f"log.dirs={folder / 'data'}",
            "auto.create.topics.enable=false",
            "offsets.topic.replication.factor=1",
            "offsets.topic.num.partitions=3",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "group.initial.rebalance.delay.ms=0",
            "message.max.bytes=14000000",
            "log.cleaner.dedupe.buffer.size=33554432",
            "",
        )
    )


@contextmanager
def kafka(folder: Path, libraries: Path, authority: Authority, port: int) -> Iterator[None]:
    certificate, key = authority.sign("broker")
    store = folder / "store.pem"
    store.write_bytes(key.read_bytes() + certificate.read_bytes())
    written = folder / "server.properties"
    written.write_text(properties(folder, port, free_port(), store, authority.ca))
    java = [str(JAVA_HOME / "bin" / "java"), "-Xmx256m", "-cp", str(libraries / "*")]
    users = [one for name in USERS for one in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={PASSWORD}]")]
    tool = ["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(written)]
    subprocess.run([*java, *tool, *users], check=True, capture_output=True)
    with (folder / "kafka.log").open("w") as log:
        broker = subprocess.Popen([*java, "kafka.Kafka", str(written)], stdout=log, stderr=log)
    try:
        yield
    finally:
        broker.kill()
        broker.wait()


@contextmanager
def tls_in_front(to: int, authority: Authority) -> Iterator[int]:
    """A proxy that ends mutual TLS, as many an Elasticsearch has one; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("proxy"))
    context.load_verify_locations(authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    port, stop, loop = free_port(), asyncio.Event(), asyncio.new_event_loop()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(pipe(reader, forth), pipe(back, writer))

    async def serve() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=context)
        await stop.wait()
        server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    yield port
    loop.call_soon_threadsafe(stop.set)
    thread.join()


@pytest.fixture(scope="module")
def elsewhere(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    folder = tmp_path_factory.mktemp("secure")
    authority, port = Authority(folder / "authority"), free_port()
    index = int(settings().elasticsearch_url().rpartition(":")[2])
    with kafka(folder, stack / "kafka" / "libs", authority, port), tls_in_front(index, authority) as proxy:
        certificate, key = authority.sign("listener")
        ours, our_key = authority.sign("wardstream")
        made = Elsewhere(
            authority,
            {
                "WARDSTREAM_HOME": str(folder / "home"),
                "WARDSTREAM_ELASTICSEARCH": f"https://127.0.0.1:{proxy}",
                "WARDSTREAM_ELASTICSEARCH_CA": str(authority.ca),
                "WARDSTREAM_ELASTICSEARCH_CERT": str(ours),
                "WARDSTREAM_ELASTICSEARCH_KEY": str(our_key),
                "WARDSTREAM_KAFKA": f"127.0.0.1:{port}",
                "WARDSTREAM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "WARDSTREAM_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
                "WARDSTREAM_KAFKA_PASSWORD": PASSWORD,
                "WARDSTREAM_KAFKA_CA": str(authority.ca),
                "WARDSTREAM_TLS_CERT": str(certificate),
                "WARDSTREAM_TLS_KEY": str(key),
                "WARDSTREAM_TLS_CLIENT_CA": str(authority.ca),
            },
        )
        deadline = time.monotonic() + 40
        while (done := made.run("wardstream-admin", "setup", "--acls")).returncode and time.monotonic() < deadline:
            time.sleep(1)
        assert done.returncode == 0, done.stderr
        login = [sys.executable, "-c", "from consumers.access import bootstrap; bootstrap()"]
        subprocess.run(login, env=made.environment("wardstream-reader"), cwd=ROOT, check=True)
        yield made


@contextmanager
def capture(sought: list[str]) -> Iterator[dict[str, Any]]:
    """Looks for these in all that crosses loopback (tests/capture.py); what was seen is there once it has ended.

    Whoever may not look goes the way all the same, and is skipped at its end.
    """
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        yield {}
        pytest.skip("the wire was not looked at: a raw socket needs CAP_NET_RAW")
    seen: dict[str, Any] = {}
    command = [sys.executable, str(ROOT / "tests" / "capture.py")]
    looking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert looking.stdin is not None
    assert looking.stdout is not None
    looking.stdin.write(json.dumps(sought) + "\n")
    looking.stdin.flush()
    assert looking.stdout.readline() == "ready\n"
    try:
        yield seen
    finally:
        seen |= json.loads(looking.communicate(timeout=60)[0])


@contextmanager
def process(environment: dict[str, str], log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as out:
        one = subprocess.Popen([*WARDSTREAM, *arguments], env=environment, cwd=ROOT, stdout=out, stderr=out)
    try:
        yield one
    finally:
        one.send_signal(signal.SIGTERM)
        one.wait(30)


@contextmanager
def listener(environment: dict[str, str], log: Path) -> Iterator[int]:
    port = free_port()
    with process(environment, log, "produce", "mllp", "--port", str(port)) as one:
        assert until(lambda: "metrics on" in log.read_text() or one.poll() is not None)
        assert one.poll() is None, log.read_text()
        yield port


def planted() -> tuple[list[str], list[str], str]:
    """Identifiers of nobody, new in each run; the segments that carry them; and a code to find their event by."""
    name = "Z" + "".join(secrets.choice("bcdfghjklmnpqrstvwxz") for _ in range(12))
    number, phone = (str(secrets.randbelow(9 * 10**10) + 10**10) for _ in range(2))
    code = f"T{secrets.token_hex(6)}"
    header = f"MSH|^~\\&|TLS|SCRAM|US|HERE|20260301120000||ORU^R01|{code}|P|2.5"
    patient = f"PID|1||{number}^^^HOSP^MR||{name}^Ann||19800101|F|||||{phone}"
    segments = [header, patient, "OBR|1|||2093-3^Cholesterol^LN", f"OBX|1|NM|{code}^X^L||5|mmol/L|||||F"]
    return [name, number, phone], segments, code


def send(line: socket.socket, segments: list[str]) -> str:
    return ask(line, "\r".join(segments) + "\r")


def indexed(code: str) -> bool:
    with client() as server:
        found = server.search(index="ehr", query={"query_string": {"query": code}}, size=1)
        return bool(found["hits"]["total"]["value"])


@pytest.mark.timeout(200)
def test_whole_way_and_nobody_named_on_the_wire(elsewhere: Elsewhere, tmp_path: Path) -> None:
    identifiers, segments, code = planted()
    context = ssl.create_default_context(cafile=elsewhere.authority.ca)
    context.load_cert_chain(*elsewhere.authority.sign("hospital"))
    edge, worker = (elsewhere.environment(f"wardstream-{name}") for name in ("edge", "worker"))
    with (
        capture([*identifiers, code]) as seen,
        process(worker, tmp_path / "worker.log", "worker"),
        listener(edge, tmp_path / "edge.log") as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as line,
    ):
        assert send(line, segments) == "AA"
        deadline = time.monotonic() + 60
        while not (there := indexed(code)) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert there, (tmp_path / "worker.log").read_text()
        done = elsewhere.run("wardstream-reader", "search", f"id:{identifiers[1]}", "--kind", "event", "--json")
        assert json.loads(done.stdout)["total"] == 1, done.stderr
        event = json.loads(done.stdout)["hits"][0]["event_id"]
        done = elsewhere.run("wardstream-reader", "reveal", event, "--field", "name", "--purpose", "TREAT", "--json")
        assert identifiers[0].lower() in done.stdout.lower()
    assert seen["dropped"] == 0
    assert seen["found"] == [code]  # the index's answer to its proxy, in clear: it did look at the wire


def test_the_capture_trips(mllp: int) -> None:
    identifiers, segments, _ = planted()
    with capture(identifiers) as seen, socket.create_connection(("127.0.0.1", mllp), timeout=20) as line:
        assert send(line, segments) == "AA"
    assert set(seen["found"]) == set(identifiers)


@pytest.mark.parametrize("spelled", ["plain", "UPPER", "utf-16-le", "utf-16-be", "base64", "hex"])
@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("cut", [False, True])
def test_the_capture_knows_every_spelling(spelled: str, before: int, cut: bool) -> None:
    """Wherever it begins, and whether or not the network cuts it in two."""
    text = "." * before + "Quillonde, Ann"
    body = {
        "plain": text.encode(),
        "UPPER": text.upper().encode(),
        "utf-16-le": text.encode("utf-16-le"),
        "utf-16-be": text.encode("utf-16-be"),
        "base64": b64encode(text.encode()),
        "hex": text.encode().hex().encode(),
    }[spelled]
    scanner = Scanner(["Quillonde"])
    for piece in [body[: len(body) // 3], body[len(body) // 3 :]] if cut else [body]:
        scanner.feed(frame(piece))
    assert scanner.found == {"Quillonde"}
    for _ in range(50):
        scanner.feed(frame(os.urandom(60_000)))
    assert scanner.found == {"Quillonde"}


def frame(payload: bytes) -> bytes:
    """As loopback carries it: Ethernet, IPv4, TCP without options."""
    ip = bytes([0x45]) + bytes(8) + bytes([socket.IPPROTO_TCP, 0, 0]) + socket.inet_aton("127.0.0.1") * 2
    tcp = (40000).to_bytes(2, "big") + (2575).to_bytes(2, "big") + bytes(8) + bytes([0x50]) + bytes(7)
    return bytes(12) + b"\x08\x00" + ip + tcp + payload


def refused(done: subprocess.CompletedProcess[str]) -> bool:
    """Exit code 3, a sentence about Kafka, and nothing that is nobody's business."""
    plain = "Kafka" in done.stderr and "Traceback" not in done.stderr and PASSWORD not in done.stderr
    return done.returncode == 3 and plain


@pytest.mark.parametrize("identity", ["wardstream-worker", "wardstream-edge", "wardstream-reader", "stranger"])
def test_no_other_identity_sets_up(elsewhere: Elsewhere, identity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = elsewhere.run(identity, "setup", "--acls")
    assert refused(done), done.stderr
    assert "CLUSTER_AUTHORIZATION_FAILED" in done.stderr
    monkeypatch.setattr("infra.kafka.settings", lambda: elsewhere.of(identity))
    with pytest.raises(StackDown, match="TOPIC_AUTHORIZATION_FAILED"):
        create_topics([TopicSpec(f"{PREFIX}new.v1", 1, {})])


def test_a_stranger_publishes_nothing(elsewhere: Elsewhere) -> None:
    done = elsewhere.run("stranger", "produce", "mllp", "--port", "0")
    assert refused(done), done.stderr
    assert "permit" in done.stderr


@pytest.mark.parametrize("identity", [*identities(GROUP), "stranger"])
def test_who_reads_what(elsewhere: Elsewhere, identity: str) -> None:
    """Asked of the broker for every topic: read are those that the table says, and no other."""
    rights = identities(GROUP).get(identity, ())
    may = {right.name for right in rights if (right.operation, right.resource) == ("READ", "TOPIC")}
    if identity == "admin":
        may = {topic.name for topic in TOPICS}
    user = identity if identity == "stranger" else f"wardstream-{identity}"
    # To give a partition back is to commit what was read of it, in a group that nobody permits: the next would wait.
    asking = {"group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": True, "fetch.wait.max.ms": 20}
    reader = Consumer(connection(elsewhere.of(user)) | asking)
    try:
        assert {topic.name for topic in TOPICS if reads(reader, topic.name)} == may
    finally:
        reader.close()


def reads(reader: Consumer, topic: str) -> bool:
    """Whether the broker gives a message of it, or its end; else it has to say that it does not."""
    if (unseen := reader.list_topics(topic, timeout=10).topics[topic].error) is not None:
        assert unseen.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        return False
    reader.assign([TopicPartition(topic, 0, 0)])
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if (message := reader.poll(0.5)) is None or message.topic() not in (topic, None):
            continue
        error = message.error()
        if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return False
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            return True
    raise AssertionError(f"no word of {topic}")


def test_a_reader_of_ours_reads_or_says_why(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.kafka.settings", lambda: elsewhere.of("wardstream-reader"))
    sealed = Reader(DOMAINS["ehr"].sealed.name)
    assert list(sealed.until_end())  # what the whole way has left there
    sealed.close()
    raw = Reader(RAW)
    with pytest.raises(StackDown, match="TOPIC_AUTHORIZATION_FAILED"):
        list(raw.until_end())
    raw.close()


WRONG = {
    "password": ({"WARDSTREAM_KAFKA_PASSWORD": "x"}, "Kafka does not know this user"),
    "protocol": ({"WARDSTREAM_KAFKA_SECURITY_PROTOCOL": "SSL"}, "Kafka"),
    "authority of Kafka": ({"WARDSTREAM_KAFKA_CA": "{other}"}, "Kafka and we have no TLS"),
    "name of Kafka": ({"WARDSTREAM_KAFKA": "localhost:{kafka}"}, "Kafka and we have no TLS"),
    "authority of Elasticsearch": ({"WARDSTREAM_ELASTICSEARCH_CA": "{other}"}, "no TLS with Elasticsearch"),
    "name of Elasticsearch": ({"WARDSTREAM_ELASTICSEARCH": "https://localhost:{proxy}"}, "no TLS with Elasticsearch"),
    "certificate for Elasticsearch": (
        {"WARDSTREAM_ELASTICSEARCH_CERT": "{cert}", "WARDSTREAM_ELASTICSEARCH_KEY": "{key}"},
        "Elasticsearch",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_refused_is_said_plainly(elsewhere: Elsewhere, what: str, tmp_path: Path) -> None:
    changed, said = WRONG[what]
    other = Authority(tmp_path)
    certificate, key = other.sign("wardstream")
    kafka, proxy = (elsewhere.settings[f"WARDSTREAM_{one}"].rpartition(":")[2] for one in ("KAFKA", "ELASTICSEARCH"))
    values = {"other": other.ca, "cert": certificate, "key": key, "kafka": kafka, "proxy": proxy}
    wrong = {name: value.format(**values) for name, value in changed.items()}
    done = elsewhere.run("wardstream-admin", "setup", **wrong)
    assert said in " ".join(done.stderr.split())
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr


def test_certificates_want_https(elsewhere: Elsewhere) -> None:
    done = elsewhere.run("wardstream-admin", "setup", WARDSTREAM_ELASTICSEARCH="http://127.0.0.1:1")
    assert (done.returncode, "https://" in done.stderr) == (2, True)


IMPLIED = {"READ": {"DESCRIBE"}, "WRITE": {"DESCRIBE"}}  # Kafka's own rule


@pytest.mark.parametrize("identity", ["edge", "worker", "reader", "stranger"])
def test_each_may_what_the_table_says_and_no_more(elsewhere: Elsewhere, identity: str) -> None:
    """Every operation on every topic, as the broker's own authorizer has it."""
    wanted: dict[str, set[str]] = {topic.name: set() for topic in TOPICS}
    for right in identities(GROUP).get(identity, ()):
        if right.resource == "TOPIC":
            wanted[right.name] |= {right.operation} | IMPLIED.get(right.operation, set())
    user = identity if identity == "stranger" else f"wardstream-{identity}"
    admin = AdminClient(connection(elsewhere.of(user)))
    asked = admin.describe_topics(TopicCollection(list(wanted)), include_authorized_operations=True, request_timeout=20)
    assert {name: operations(future) for name, future in asked.items()} == wanted


def operations(described: Any) -> set[str]:
    try:
        return {AclOperation(one).name for one in described.result(30).authorized_operations}
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return set()
        raise
