"""What makes a domain whole: rows, samples, mapping and stores that match; and that reading twice changes nothing."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from elasticsearch.helpers import scan

from infra.elastic import client
from infra.kafka import Outgoing, Producer, Reader, lag
from infra.settings import settings
from schemas.registry import DOMAINS, TOPICS, Domain
from schemas.stores import STORES
from streams.stages import STAGES

Run = Callable[..., Any]
Manifest = Callable[[Path], list[dict[str, Any]]]
ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "samples"
DOMAIN = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
OURS = {"lock", "stack.json"}  # files of the home itself that hold no record


def test_each_domain_has_a_stage() -> None:
    assert STAGES.keys() == DOMAINS.keys()


@DOMAIN
def test_samples(domain: Domain) -> None:
    folder = SAMPLES / domain.name
    assert any(path.suffix != ".md" for path in folder.rglob("*") if path.is_file())
    assert (folder / "LICENCES.md").is_file()


@DOMAIN
def test_mapping_is_strict(domain: Domain) -> None:
    """A field that nobody marked is refused by the index, and so becomes a dead letter instead of a leak."""
    mapping = domain.mapping()
    assert mapping["dynamic"] == "strict"
    assert mapping["properties"]["sealed"] == {"type": "object", "enabled": False}


@DOMAIN
def test_topics_and_index_are_stores(domain: Domain) -> None:
    stores = {store.name for store in STORES}
    assert {domain.raw.name, domain.dead_letters.name, domain.sealed.name, domain.alias} <= stores


def test_every_topic_on_the_broker_is_registered(stack: Path) -> None:
    there = AdminClient({"bootstrap.servers": settings().kafka_servers()}).list_topics(timeout=10).topics
    assert {name for name in there if not name.startswith("__")} == {topic.name for topic in TOPICS}


def test_every_index_on_the_node_is_registered(stack: Path) -> None:
    with client() as server:
        there = set(server.indices.get(index="*", expand_wildcards="all"))
    assert {name.rsplit("-", 1)[0] for name in there} == {store.name for store in STORES if store.kind == "index"}


def test_every_file_of_the_home_is_registered(stack: Path) -> None:
    stores = {Path(store.name).parts[0] for store in STORES if store.kind in ("files", "sqlite")}
    there = {path.name.removesuffix("-wal").removesuffix("-shm") for path in stack.iterdir()}
    assert there <= stores | OURS


def documents(alias: str) -> dict[str, Any]:
    """All documents by id with their versions; of sealed values the names alone, since each seal has its own nonce."""
    found: dict[str, Any] = {}
    with client() as server:
        server.indices.refresh(index=alias)
        for hit in scan(server, index=alias, query={"version": True}, size=2000):
            source = hit["_source"]
            if "sealed" in source:
                source["sealed"] = sorted(source["sealed"])
            found[hit["_id"]] = (hit["_version"], source)
    return found


def taken(topic: str) -> list[Outgoing]:
    reader = Reader(topic)
    try:
        return [
            Outgoing(topic, one.key() or b"", one.value() or b"", list(one.headers() or ()), one.partition())
            for one in reader.until_end()
        ]
    finally:
        reader.close()


def finished(domain: Domain) -> None:
    """Wait until the workers have acknowledged everything."""
    deadline = time.monotonic() + 60
    while waiting := sum(one.events for one in lag(domain.raw.name).values()):
        assert time.monotonic() < deadline, waiting
        time.sleep(0.3)


@DOMAIN
def test_reading_again_changes_nothing(manifest: Manifest, command: Run, domain: Domain) -> None:
    """Every event once more, in another order: documents, entities, versions and letters stay what they were."""
    manifest(SAMPLES / domain.name)
    letters = json.loads(command("dlq", "list", "--domain", domain.name, "--json").stdout)
    events = taken(domain.raw.name)
    finished(domain)
    before = documents(domain.alias)
    assert len(before) > 50
    assert letters or domain.name != "ehr", "whose feeds refuse at once what they cannot read"
    random.Random(7).shuffle(events)
    producer = Producer()
    producer.send_now(events)
    producer.close()
    finished(domain)
    after = documents(domain.alias)
    assert after.keys() == before.keys()
    changed = [(name, one, after[name]) for name, one in before.items() if after[name] != one]
    # Text of somebody who was known by no name then, and is by now: docs/fhir-fields.md.
    assert [one for one in changed if "names_unknown" not in one[1][1].get("flags", ())] == []
    again = json.loads(command("dlq", "list", "--domain", domain.name, "--json").stdout)
    assert {(one["event_id"], one["reason"]) for one in again} == {(one["event_id"], one["reason"]) for one in letters}
