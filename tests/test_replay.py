"""Replay: the rebuilt index equals the live one, and a search at any moment of it misses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elasticsearch.helpers import scan

from infra.crypto import field_key_version, open_field
from infra.elastic import client
from infra.kafka import Outgoing, Producer, Reader, lag
from infra.keystore import KeyStore
from schemas.registry import DOMAINS
from schemas.topics import SIGNALS

Run = Callable[..., Any]
Manifest = Callable[[Path], list[dict[str, Any]]]
ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "samples"
DOMAIN = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)


def opened(index: str, domain: str) -> dict[str, Any]:
    """All documents by id, with every seal of a patient opened: nonces differ, contents may not."""
    _, keys = KeyStore.local()
    found: dict[str, Any] = {}
    with client() as server:
        server.indices.refresh(index=index)
        for hit in scan(server, index=index, size=2000):
            source, made = hit["_source"], hit["_id"]
            ref = source.get("patient_ref") or source.get("sealed_by")
            for name, value in source.get("sealed", {}).items():
                for one in value if isinstance(value, list) else [{"ref": ref, "seal": value}]:
                    key = keys.of_ref(one["ref"], field_key_version(one["seal"]))
                    one["seal"] = open_field(key, domain, made, name, one["seal"])
                    source["sealed"][name] = one if not isinstance(value, list) else value
            found[made] = source
    return found


def live_index(alias: str) -> str:
    with client() as server:
        (index,) = server.indices.get_alias(name=alias).body
    return str(index)


def settled(topic: str) -> None:
    deadline = time.monotonic() + 60
    while sum(one.events for one in lag(topic).values()):
        assert time.monotonic() < deadline
        time.sleep(0.3)


class Searching:
    """Counts one sender's documents over and over, as a dashboard would; a count may never fall."""

    def __init__(self, alias: str, source: str) -> None:
        self.counts: list[int] = []
        self._ended = threading.Event()
        self._query = {"term": {"source": source}}
        self._thread = threading.Thread(target=self._run, args=(alias,))

    def _run(self, alias: str) -> None:
        with client() as server:
            while not self._ended.is_set():
                self.counts.append(server.count(index=alias, query=self._query)["count"])

    def __enter__(self) -> Searching:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def bodies(count: int, first: int) -> list[str]:
    return [
        f"MSH|^~\\&|RE|PLAY|US|HERE|20260301{n % 24:02}{n % 60:02}00||ADT^A08|R{n}|P|2.5\r"
        f"PID|1||RP{n % 97}^^^HOSP^MR||A{n}^B\rPV1|1|I|W{n % 7}^{n % 5}^1\rDG1|1||R07.4^Chest pain^I10\r"
        for n in range(first, first + count)
    ]


def test_a_reader_that_goes_on_misses_nothing(stack: Path) -> None:
    """Messages that arrive while it reads to an earlier end are its own or the next call's, never nobody's."""
    producer, key = Producer(), b"a reader goes on"
    producer.send_now(Outgoing(SIGNALS.name, b"%d" % number, b"before") for number in range(50))
    reader = Reader(SIGNALS.name, from_end=True)

    def send(first: int) -> None:
        producer.send_now(Outgoing(SIGNALS.name, key, b"%d" % number) for number in range(first, first + 50))

    send(0)
    earlier = reader.to_end()  # its end is fixed here
    send(50)
    seen = [message.value() for message in earlier if message.key() == key]
    seen += [message.value() for message in reader.to_end() if message.key() == key]
    producer.close()
    reader.close()
    assert seen == [b"%d" % number for number in range(100)]


@DOMAIN
@pytest.mark.timeout(240)
def test_rebuilt_equals_live_and_no_result_is_missing(
    manifest: Manifest, command: Run, stack: Path, domain: Any, tmp_path: Path
) -> None:
    manifest(SAMPLES / domain.name)
    (tmp_path / "before.hl7").write_text("".join(bodies(1500, 0)), newline="")
    assert command("produce", "files", str(tmp_path / "before.hl7"), "--json").returncode == 0
    (tmp_path / "during.hl7").write_text("".join(bodies(3000, 1500)), newline="")
    old, new = live_index(domain.alias), f"{domain.name}-replayed"
    send = [sys.executable, str(ROOT / "wardstream.py"), "produce", "files", str(tmp_path / "during.hl7"), "--json"]
    with Searching(domain.alias, "hl7v2:RE|PLAY") as searching:
        live = subprocess.Popen(send, cwd=ROOT, stdout=subprocess.PIPE)
        time.sleep(2)
        done = command("replay", "--domain", domain.name, "--into", new, "--json")
        assert done.returncode == 0, done.stderr
        figures = json.loads(done.stdout)
        assert live.wait(timeout=120) == 0
    settled(domain.raw.name)
    assert figures["swapped"]
    assert figures["left_out"] == {}
    assert live_index(domain.alias) == new
    assert searching.counts == sorted(searching.counts)
    assert searching.counts[0] > 0
    with client() as server:
        kinds = {"bool": {"filter": [{"term": {"source": "hl7v2:RE|PLAY"}}, {"term": {"kind": "diagnosis"}}]}}
        server.indices.refresh(index=domain.alias)
        assert server.count(index=domain.alias, query=kinds)["count"] == 4500
    # Once more, with nothing under way: document by document.
    again = f"{domain.name}-again"
    assert command("replay", "--domain", domain.name, "--into", again).returncode == 0
    assert live_index(domain.alias) == again
    before, after = opened(new, domain.name), opened(again, domain.name)
    assert len(before) > 4500
    assert before.keys() == after.keys()
    assert [name for name, one in before.items() if after[name] != one] == []
    with client() as server:
        server.indices.delete(index=[old, new])


def test_a_window_leaves_the_alias_alone(stack: Path, command: Run) -> None:
    before = live_index("ehr")
    done = command("replay", "--into", "ehr-window", "--from", "2030-01-01", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["records"], figures["swapped"]) == (0, False)
    assert live_index("ehr") == before
    taken = command("replay", "--into", "ehr-window")
    assert taken.returncode == 2
    assert "already" in taken.stderr
    assert command("replay", "--into", "other").returncode == 2
    with client() as server:
        server.indices.delete(index="ehr-window")
