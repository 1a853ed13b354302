"""Replay: the rebuilt index equals the live one, and a search at any moment of it misses nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from elasticsearch.helpers import scan

from infra.crypto import field_key_version, open_field
from infra.elastic import Index, Write, async_client, client, create_index
from infra.kafka import Outgoing, Producer, Reader, headers, lag
from infra.keystore import KeyStore
from schemas.registry import DOMAINS
from schemas.topics import SIGNALS

Run = Callable[..., Any]
Manifest = Callable[[Path], list[dict[str, Any]]]
ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "samples"
FROM_HL7 = [one for one in DOMAINS.values() if one.name != "imaging"]  # whose replay is in tests/test_imaging_stack.py
DOMAIN = pytest.mark.parametrize("domain", FROM_HL7, ids=[one.name for one in FROM_HL7])


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


class Sending:
    """Sends one batch after the other for as long as it is open, so that traffic lasts as long as what it is beside."""

    def __init__(self, command: Run, folder: Path, facility: str, first: int) -> None:
        self.sent = 0  # read it behind the end
        self.failed: list[str] = []
        self._command, self._folder, self._facility, self._first = command, folder, facility, first
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            path = self._folder / f"during-{self.sent}.hl7"
            path.write_text("".join(bodies(100, self._first + self.sent, self._facility)), newline="")
            done = self._command("produce", "files", str(path), "--json")
            self.sent += 100
            if done.returncode:
                self.failed.append(done.stdout + done.stderr)

    def __enter__(self) -> Sending:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


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


def bodies(count: int, first: int, facility: str = "PLAY") -> list[str]:
    visit = "|" * 16 + "RV{}" if facility == "quality" else ""  # a case has a number
    return [
        f"MSH|^~\\&|RE|{facility}|US|HERE|20260301{n % 24:02}{n % 60:02}00||ADT^A08|R{n}|P|2.5\r"
        f"PID|1||RP{n % 97}^^^HOSP^MR||A{n}^B\r"
        f"PV1|1|I|W{n % 7}^{n % 5}^1{visit.format(n)}\rDG1|1||R07.4^Chest pain^I10\r"
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
@pytest.mark.timeout(280)
def test_rebuilt_equals_live_and_no_result_is_missing(
    manifest: Manifest, command: Run, stack: Path, domain: Any, tmp_path: Path
) -> None:
    """Of health records, and of what is derived from the same records."""
    one_each = {"ehr": "diagnosis", "allocation": "placement_event", "quality": "case_event"}[domain.name]
    manifest(SAMPLES / domain.name)
    (tmp_path / "before.hl7").write_text("".join(bodies(600, 0, domain.name)), newline="")
    assert command("produce", "files", str(tmp_path / "before.hl7"), "--json").returncode == 0
    settled(DOMAINS["ehr"].raw.name)
    settled(domain.raw.name)
    # With nothing under way: what workers have written, document by document.
    old, quiet, new = live_index(domain.alias), f"{domain.name}-quiet", f"{domain.name}-busy"
    assert command("replay", "--domain", domain.name, "--into", quiet).returncode == 0
    same(opened(old, domain.name), opened(quiet, domain.name))
    # Beside traffic: no result is ever missing, and the end is the same again.
    with (
        Searching(domain.alias, f"hl7v2:RE|{domain.name}") as searching,
        Sending(command, tmp_path, domain.name, 600) as sending,
    ):
        done = command("replay", "--domain", domain.name, "--into", new, "--json")
    assert done.returncode == 0, done.stderr
    assert sending.failed == []
    figures = json.loads(done.stdout)
    settled(DOMAINS["ehr"].raw.name)
    settled(domain.raw.name)
    assert (figures["swapped"], figures["unread"]) == (True, [])
    assert set(figures["left_out"]) <= {"erased"}
    assert live_index(domain.alias) == new
    assert searching.counts == sorted(searching.counts)
    assert searching.counts[0] > 0
    with client() as server:
        kinds = {"bool": {"filter": [{"term": {"source": f"hl7v2:RE|{domain.name}"}}, {"term": {"kind": one_each}}]}}
        server.indices.refresh(index=domain.alias)
        assert server.count(index=domain.alias, query=kinds)["count"] == 600 + sending.sent
    again = f"{domain.name}-again"
    assert command("replay", "--domain", domain.name, "--into", again).returncode == 0
    same(opened(new, domain.name), opened(again, domain.name))
    # A late write must not bring a deleted index back.
    with client() as server:
        server.indices.delete(index=[old, quiet, new])
    (tmp_path / "after.hl7").write_text("".join(bodies(50, 600 + sending.sent, domain.name)), newline="")
    assert command("produce", "files", str(tmp_path / "after.hl7"), "--json").returncode == 0
    settled(DOMAINS["ehr"].raw.name)
    settled(domain.raw.name)
    with client() as server:
        there = set(server.indices.get(index=f"{domain.name}-*").body)
        assert again in there
        assert not there & {old, quiet, new}


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert len(one) > 1000
    assert one.keys() == other.keys()
    changed = [name for name, document in one.items() if other[name] != document]
    assert [name for name in changed if "names_unknown" not in one[name].get("flags", ())] == []  # docs/fhir-fields.md


def send_sealed(domain: Any, copies: list[tuple[Any, bool]]) -> None:
    """Put sealed records on their topic again, in this order; True: a tombstone."""
    producer = Producer()
    producer.send_now(
        Outgoing(
            domain.sealed.name, one.key(),
            None if tombstone else one.value(),
            [("event_id", one.key())] if tombstone else list(one.headers()),
            one.partition(),
        )
        for one, tombstone in copies
    )  # fmt: skip
    producer.close()


def event_of(source: str) -> Any:
    """Some sealed record of a sender, and its event id."""
    reader = Reader("hospital.ehr.sealed.v1")
    found = [one for one in reader.until_end() if headers(one).get("source", b"").decode() == source and one.value()]
    reader.close()
    return found[-1], found[-1].key().decode()


def count_of(index: str, event: str) -> int:
    with client() as server:
        server.indices.refresh(index=index)
        by_event = [{"term": {"event_id": event}}, {"range": {"part": {"gte": 0}}}]
        return int(server.count(index=index, query={"bool": {"filter": by_event}})["count"])


def test_what_a_tombstone_removed_stays_away_and_what_came_after_counts(
    command: Run, stack: Path, tmp_path: Path
) -> None:
    since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"  # what others have sent has no part in it
    (tmp_path / "some.hl7").write_text("".join(bodies(3, 9000)).replace("|RE|PLAY|", "|RE|TOMB|"), newline="")
    assert command("produce", "files", str(tmp_path / "some.hl7"), "--json").returncode == 0
    settled("hospital.ehr.v1")
    record, event = event_of("hl7v2:RE|TOMB")
    parts = count_of(live_index("ehr"), event)
    assert parts > 1
    send_sealed(DOMAINS["ehr"], [(record, True)])
    assert command("replay", "--into", "ehr-without", "--from", since).returncode == 0
    assert count_of("ehr-without", event) == 0
    send_sealed(DOMAINS["ehr"], [(record, False), (record, True), (record, False)])
    assert command("replay", "--into", "ehr-with", "--from", since).returncode == 0
    assert count_of("ehr-with", event) == parts
    with client() as server:
        server.indices.delete(index=["ehr-with", "ehr-without"])


async def test_a_removed_document_can_come_again_at_once(stack: Path) -> None:
    """The server remembers a delete for a minute, with its version."""
    create_index("again", "again-1", DOMAINS["ehr"].mapping())
    server = async_client()
    try:
        index = Index(server, "again")
        writes = [Write("a", b'{"event_id":"e","part":0,"kind":"event"}')]
        for _ in range(2):
            assert await index.bulk(writes) == {}
            await index.remove(["a", "never there"])
            assert not (await server.exists(index="again", id="a")).body
        assert await index.bulk(writes) == {}
        assert (await server.exists(index="again", id="a")).body
    finally:
        await server.indices.delete(index="again-1")
        await server.close()


async def test_one_refused_document_refuses_no_other(stack: Path) -> None:
    create_index("again", "again-1", DOMAINS["ehr"].mapping())
    server = async_client()
    try:
        good = [Write(str(n), b'{"event_id":"e","part":%d,"kind":"event"}' % n) for n in range(5)]
        refused = await Index(server, "again").bulk([*good[:2], Write("bad", b'{"intruder":1}'), *good[2:]])
        assert refused == {"bad": "strict_dynamic_mapping_exception"}
        await server.indices.refresh(index="again")
        assert (await server.count(index="again"))["count"] == 5
        broken = await Index(server, "again").bulk([*good, Write("torn", b'{"part":\n}')])  # breaks the whole request
        assert set(broken) <= {"torn"}
        assert "torn" in broken
    finally:
        await server.indices.delete(index="again-1")
        await server.close()


def blocked(index: str) -> bool:
    with client() as server:
        of = server.indices.get_settings(index=index, flat_settings=True)[index]["settings"]
    return of.get("index.blocks.write") == "true"


def test_a_replay_that_is_ended_leaves_nothing(command: Run, stack: Path) -> None:
    live = live_index("ehr")
    running = subprocess.Popen(
        [sys.executable, str(ROOT / "wardstream.py"), "replay", "--into", "ehr-ended"], cwd=ROOT, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 30
    with client() as server:
        while not server.indices.exists(index="ehr-ended") and time.monotonic() < deadline:
            time.sleep(0.05)
        running.terminate()
        assert running.wait(timeout=20) == 128 + signal.SIGTERM
        assert not server.indices.exists(index="ehr-ended")
    assert live_index("ehr") == live
    assert not blocked(live)


def test_a_killed_replay_can_be_put_right(command: Run, stack: Path) -> None:
    """As kill -9 leaves it at its worst: the live index blocked, another half filled."""
    live = live_index("ehr")
    create_index("half", "ehr-half", DOMAINS["ehr"].mapping())
    with client() as server:
        server.indices.add_block(index=live, block="write")
    again = command("replay", "--into", "ehr-other")
    assert again.returncode == 2
    assert "--abandon" in again.stderr
    assert command("replay", "--into", "half", "--abandon").returncode == 2, "no index of another domain is deleted"
    done = command("replay", "--into", "ehr-half", "--abandon", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"index": "ehr-half", "live": False})
    assert not blocked(live)
    with client() as server:
        assert not server.indices.exists(index="ehr-half")
        assert not server.indices.exists(index="ehr-other")


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
