"""Retention: topics set as the table says, and expired events gone from index and sealed topic, never to come back."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from consumers import replay, retention
from consumers.replay import Window
from infra.audit import events
from infra.elastic import client, create_index
from infra.errors import AuditUnavailable
from infra.kafka import (
    Outgoing,
    Producer,
    Reader,
    TopicSpec,
    change_topics,
    create_topics,
    headers,
    lag,
    topic_settings,
)
from infra.settings import settings
from schemas.registry import DOMAINS, TOPICS, Domain
from schemas.topics import SIGNALS
from streams.stages import STAGES

Run = Callable[..., Any]
YEAR = 365
OLD, YOUNG, SENDER = 4, 3, "hl7v2:RETAIN|HERE"


def message(number: int, days: int) -> str:
    at = datetime.now(UTC) - timedelta(days=days)
    return (
        f"MSH|^~\\&|RETAIN|HERE|US|X|{at:%Y%m%d}080000+0000||ADT^A08|RT{number}|P|2.5\r"
        f"PID|1||RT{number % 3}^^^HOSP^MR||Q{number}^R\rPV1|1|I|W1^{number}^1\rDG1|1||R07.4^Chest pain^I10\r"
    )


# Events of three years ago and of yesterday, of the same patients.
MESSAGES = "".join(message(number, 3 * YEAR if number < OLD else 1) for number in range(OLD + YOUNG))
NUMBERS = count(1)


def sealed_of(topic: str) -> dict[bytes, list[Any]]:
    """Messages of a sealed topic by event id, in order."""
    found: dict[bytes, list[Any]] = {}
    reader = Reader(topic)
    for one in reader.until_end():
        found.setdefault(one.key() or b"", []).append(one)
    reader.close()
    return found


@pytest.fixture
def domain(stack: Path, command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Domain]:
    """A domain of this test's own, kept for a year: what others have in theirs may be old, and must stay.

    Its sealed records are those that the worker made of our messages; its index is rebuilt from them.
    """
    made = dataclasses.replace(DOMAINS["ehr"], name=f"retain{next(NUMBERS)}", retention_days=YEAR)
    monkeypatch.setitem(STAGES, made.name, STAGES["ehr"])
    (tmp_path / "some.hl7").write_text(MESSAGES, newline="")
    assert command("produce", "files", str(tmp_path / "some.hl7"), "--json").returncode == 0
    deadline = time.monotonic() + 60
    while sum(one.events for one in lag(DOMAINS["ehr"].raw.name).values()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    create_topics([TopicSpec(made.sealed.name, made.sealed.partitions, made.sealed.config())])
    create_index(made.alias, made.index, made.mapping())
    records = [some[-1] for some in sealed_of(DOMAINS["ehr"].sealed.name).values()]
    producer = Producer()
    producer.send_now(
        Outgoing(made.sealed.name, one.key(), one.value(), list(one.headers()), one.partition())
        for one in records
        if headers(one).get("source", b"").decode() == SENDER
    )
    producer.close()
    yield made
    with client() as server:
        server.indices.delete(index=list(server.indices.get(index=f"{made.name}-*").body))
    broker = AdminClient({"bootstrap.servers": settings().kafka_servers()})
    broker.delete_topics([made.sealed.name])[made.sealed.name].result(timeout=30)


async def rebuilt(of: Domain, version: int) -> int:
    """Rebuild the index from the sealed topic and swap it in; gives the number of records."""
    done = await replay.rebuild(of, f"{of.name}-v{version}", Window(), lambda _: None)
    assert done.swapped
    return done.records


async def applied(of: Domain) -> retention.Applied:
    return await retention.apply(lambda _: None, [of], [])


def counted(of: Domain, **terms: str) -> int:
    with client() as server:
        server.indices.refresh(index=of.alias)
        filters = [{"term": {name: value}} for name, value in terms.items()]
        parts = {"range": {"part": {"gte": 0}}}
        return int(server.count(index=of.alias, query={"bool": {"filter": [*filters, parts]}})["count"])


def entities(of: Domain) -> int:
    with client() as server:
        return int(server.count(index=of.alias, query={"term": {"part": -1}})["count"])


def histories(of: Domain) -> list[dict[str, Any]]:
    """What patients' entities keep of earlier events, and where each entry comes from."""
    with client() as server:
        server.indices.refresh(index=of.alias)
        hits = server.search(index=of.alias, query={"term": {"kind": "patient"}}, size=100)["hits"]["hits"]
    return sorted(
        (
            {
                "history": one["_source"].get("history", {}),
                "from": {place: at for place, at in one["_source"]["folded"].items() if place.startswith("history/")},
            }
            for one in hits
        ),
        key=repr,
    )


def audited() -> list[dict[str, Any]]:
    path = settings().home / "audit" / "audit.jsonl"
    return [one for one in events(path) if one["subtype"][0]["code"] == "retention"]


async def test_expired_events_go_and_no_replay_brings_them_back(domain: Domain) -> None:
    before = len(audited())
    assert await rebuilt(domain, 2) == OLD + YOUNG
    parts, folded = counted(domain), entities(domain)
    made = await retention.plan([domain], [])
    (expiry,) = made.expiries
    cut = expiry.before
    assert any(at < cut for one in histories(domain) for at in one["from"].values()), "there is something to take out"
    assert (expiry.days, expiry.documents) == (YEAR, parts * OLD // (OLD + YOUNG))
    done = await applied(domain)
    assert (done.documents, done.sealed) == ({domain.alias: expiry.documents}, {domain.alias: OLD})
    assert counted(domain) == parts - expiry.documents == counted(domain, source=SENDER) > 0
    assert entities(domain) == folded > 0
    (act,) = audited()[before:]
    said = act["entity"][0]["what"]["identifier"]["value"]
    assert (act["action"], said[: len(domain.alias) + 8]) == ("D", f"{domain.alias} before ")
    # A second run has nothing to do, and says nothing in the audit.
    again = await applied(domain)
    assert (again.settings, again.documents, again.sealed) == ([], {}, {})
    assert len(audited()) == before + 1
    # The sealed records are gone where they lay, and only those.
    ends = {key: some[-1] for key, some in sealed_of(domain.sealed.name).items()}
    assert sorted(one.value() is None for one in ends.values()) == [False] * YOUNG + [True] * OLD
    assert all(len({one.partition() for one in some}) == 1 for some in sealed_of(domain.sealed.name).values())
    left = histories(domain)
    assert all(at >= cut for one in left for at in one["from"].values())
    assert all(day >= cut[:10] for one in left for day in (code[-10:] for code in one["history"]["diagnoses"]))
    assert await rebuilt(domain, 3) == YOUNG
    assert counted(domain) == parts - expiry.documents
    assert histories(domain) == left, "what the others make"


async def test_without_tombstones_a_replay_would_bring_them_back(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rebuilt(domain, 2)
    parts = counted(domain)
    monkeypatch.setattr(retention, "_tombstones", lambda of, events: [])
    await applied(domain)
    assert counted(domain) < parts
    await rebuilt(domain, 3)
    assert counted(domain) == parts


async def test_a_run_that_was_ended_is_given_again(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended after the tombstones, and again among the documents of one event."""
    await rebuilt(domain, 2)
    parts = counted(domain)
    monkeypatch.setattr(retention, "REMOVED_AT_ONCE", 1)
    seen = 0

    def end(removed: int) -> None:
        nonlocal seen
        seen += removed
        if seen in (1, 4):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            await retention.apply(end, [domain], [])
    done = await applied(domain)
    left = parts * OLD // (OLD + YOUNG) - 4
    assert (seen, done.documents, done.sealed) == (4, {domain.alias: left}, {domain.alias: 0})
    assert await rebuilt(domain, 3) == YOUNG


async def test_more_than_fits_in_one_round(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round may end among the documents of one event: the next one finds the rest, and no tombstone twice."""
    await rebuilt(domain, 2)
    parts = counted(domain)
    monkeypatch.setattr(retention, "AT_ONCE", 3)
    done = await applied(domain)
    assert (done.documents, done.sealed) == ({domain.alias: parts * OLD // (OLD + YOUNG)}, {domain.alias: OLD})


async def test_nothing_goes_that_the_audit_cannot_tell(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    await rebuilt(domain, 2)
    parts = counted(domain)

    def full(self: object, act: object) -> None:
        raise AuditUnavailable("the audit cannot be written: No space left on device")

    monkeypatch.setattr(retention.Audit, "write", full)
    with pytest.raises(AuditUnavailable):
        await applied(domain)
    assert counted(domain) == parts
    assert all(one.value() for some in sealed_of(domain.sealed.name).values() for one in some)


def test_a_topic_that_was_changed_is_set_again(stack: Path, command: Run) -> None:
    before = topic_settings([SIGNALS.name])[SIGNALS.name]
    change_topics({SIGNALS.name: {"retention.ms": "86400000", "segment.ms": "7200000"}})
    try:
        drifted = [one for one in json.loads(command("retention", "plan", "--json").stdout)["topics"] if one["drifted"]]
        assert drifted == [
            {
                "topic": SIGNALS.name,
                "name": "retention.ms",
                "wanted": str(SIGNALS.retention_ms),
                "present": "86400000",
                "drifted": True,
            }
        ]
        assert "86400000" in command("retention", "plan").stdout
        done = command("retention", "apply", "--json")
        assert done.returncode == 0, done.stderr
        assert [one["name"] for one in json.loads(done.stdout)["settings"]] == ["retention.ms"]
        assert (audited()[-1]["action"], audited()[-1]["entity"][0]["what"]["identifier"]["value"]) == (
            "U",
            SIGNALS.name,
        )
        present = topic_settings([SIGNALS.name])[SIGNALS.name]
        assert present["retention.ms"] == str(SIGNALS.retention_ms)
        assert present["segment.ms"] == "7200000", "what is not about retention is left alone"
        again = command("retention", "apply", "--json")
        assert again.returncode == 0
        assert not any(json.loads(again.stdout).values())
        assert command("retention", "apply").stdout.strip() == "nothing to change"
    finally:
        change_topics({SIGNALS.name: {"segment.ms": before["segment.ms"]}})


def test_topics_are_made_as_the_table_says(stack: Path, command: Run) -> None:
    rows = json.loads(command("retention", "plan", "--json").stdout)["topics"]
    assert not [one for one in rows if one["drifted"]]
    assert {one["topic"] for one in rows} == {topic.name for topic in TOPICS}


def test_days_can_be_set_without_touching_the_registry(
    stack: Path, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only planned: the index is everybody's. By default nothing of it goes."""
    assert json.loads(command("retention", "plan", "--json").stdout)["indices"] == [
        {"index": name, "days": None, "before": "", "documents": 0} for name in DOMAINS
    ]
    monkeypatch.setenv("WARDSTREAM_INDEX_RETENTION_DAYS", '{"ehr": 365}')
    rows = json.loads(command("retention", "plan", "--json").stdout)["indices"]
    assert {row["index"]: row["days"] for row in rows} == dict.fromkeys(DOMAINS) | {"ehr": YEAR}
    monkeypatch.setenv("WARDSTREAM_INDEX_RETENTION_DAYS", '{"her": 365}')
    unknown = command("retention", "plan")
    assert (unknown.returncode, "her" in unknown.stderr) == (2, True)
