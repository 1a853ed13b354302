"""A Kafka of somebody else's: TLS, SCRAM and no right for strangers. Settings alone change, never code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.local.artifacts import JAVA_HOME
from infra.settings import settings

ROOT = Path(__file__).resolve().parents[1]
WARDSTREAM = [sys.executable, str(ROOT / "wardstream.py")]
USER, PASSWORD = "wardstream", "not-a-secret"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1: one PEM for the broker (key and chain), one for those who trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "broker.pem").write_bytes(secret + chain)
    (folder / "ca.pem").write_bytes(chain)
    return folder / "broker.pem", folder / "ca.pem"


@pytest.fixture(scope="module")
def elsewhere(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of a home whose Kafka wants TLS and SCRAM-SHA-512; its Elasticsearch is the run's."""
    from infra.local.stack import _free

    folder = tmp_path_factory.mktemp("secure")
    pem, ca = certificate(folder)
    port, controller = (next(p for p in range(first, first + 500) if _free(p)) for first in (19092, 19693))
    properties = folder / "server.properties"
    properties.write_text(
        f"process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n"
        f"listeners=SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n"
        f"advertised.listeners=SASL_SSL://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n"
        "listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT\n"
        "inter.broker.listener.name=SASL_SSL\nsasl.mechanism.inter.broker.protocol=SCRAM-SHA-512\n"
        "sasl.enabled.mechanisms=SCRAM-SHA-512\nlistener.name.sasl_ssl.scram-sha-512.sasl.jaas.config="
        "org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username="{USER}" password="{PASSWORD}";\n'
        f"ssl.keystore.type=PEM\nssl.keystore.location={pem}\nssl.truststore.type=PEM\nssl.truststore.location={ca}\n"
        f"log.dirs={folder / 'data'}\nauto.create.topics.enable=false\noffsets.topic.replication.factor=1\n"
        "offsets.topic.num.partitions=3\ntransaction.state.log.replication.factor=1\n"
        "transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\nmessage.max.bytes=14000000\n"
        "log.cleaner.dedupe.buffer.size=33554432\n"
    )
    java = [str(JAVA_HOME / "bin" / "java"), "-Xmx256m", "-cp", str(stack / "kafka" / "libs" / "*")]
    scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
    tool = ["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(properties)]
    subprocess.run([*java, *tool, "--add-scram", scram], check=True, capture_output=True)
    with (folder / "kafka.log").open("w") as log:
        broker = subprocess.Popen([*java, "kafka.Kafka", str(properties)], stdout=log, stderr=log)
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith("WARDSTREAM_")},
        "WARDSTREAM_HOME": str(folder / "home"),
        "WARDSTREAM_ELASTICSEARCH": settings().elasticsearch_url(),
        "WARDSTREAM_KAFKA": f"127.0.0.1:{port}",
        "WARDSTREAM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "WARDSTREAM_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "WARDSTREAM_KAFKA_USERNAME": USER,
        "WARDSTREAM_KAFKA_PASSWORD": PASSWORD,
        "WARDSTREAM_KAFKA_CA": str(ca),
    }
    broker.kill()
    broker.wait()


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WARDSTREAM, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100
    )


@pytest.mark.timeout(200)
def test_whole_way_over_tls_and_scram(elsewhere: dict[str, str], tmp_path: Path) -> None:
    deadline = time.monotonic() + 40
    while (done := run(elsewhere, "setup")).returncode and time.monotonic() < deadline:
        time.sleep(1)
    assert done.returncode == 0, done.stderr
    (tmp_path / "one.hl7").write_text(
        "MSH|^~\\&|TLS|SCRAM|US|HERE|20260301120000||ADT^A08|TLS1|P|2.5\rPID|1||TLS1^^^HOSP^MR||A^B\r", newline=""
    )
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen([*WARDSTREAM, "worker"], env=elsewhere, cwd=ROOT, stdout=log, stderr=log)
        try:
            done = run(elsewhere, "produce", "files", str(tmp_path), "--json")
        finally:
            worker.terminate()
            worker.wait(30)
    assert done.returncode == 0, done.stderr + (tmp_path / "worker.log").read_text()
    assert json.loads(done.stdout)["outcomes"] == {"indexed": 1}


@pytest.mark.parametrize("wrong", [{"WARDSTREAM_KAFKA_PASSWORD": "x"}, {"WARDSTREAM_KAFKA_SECURITY_PROTOCOL": "SSL"}])
def test_refused_is_said_plainly(elsewhere: dict[str, str], wrong: dict[str, str]) -> None:
    done = run(elsewhere | wrong, "setup")
    assert done.returncode == 3
    assert "Kafka" in done.stderr
    assert PASSWORD not in done.stderr
    assert "Traceback" not in done.stderr
