"""The edge: what it holds is bounded, one arrival's trouble is its own, and what it remembers is only a memory."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.errors import ErasedPerson, Overloaded
from infra.kafka import PublishFailed
from infra.keyring import Keyring
from infra.keystore import KeyStore
from infra.settings import settings
from producers.publish import Arrival, Publisher
from producers.seen import Answer, Seen
from schemas.record import Identifier, Subject
from tests.broker import Broker

AUTHORITY = "HOSP"


def arrival(control: str, patient: str = "1", size: int = 100) -> Arrival:
    return Arrival(
        domain="ehr", source="hl7v2:A|B", peer="*", content_type="x", charset="utf-8", ids=("A", "B", control),
        body=control.encode() + b"x" * size, received_at=datetime.now(UTC), event_time=None,
        subjects=(Subject(identifiers=(Identifier(authority=AUTHORITY, type="MR", value=patient),)),),
    )  # fmt: skip


@pytest.fixture
async def broker() -> Broker:
    return Broker(is_open=False)


@pytest.fixture
async def publisher(tmp_path: Path, broker: Broker, home: Path) -> AsyncIterator[Publisher]:
    keyring = Keyring.open(tmp_path / "keyring.json")
    keys = KeyStore(f"sqlite:///{tmp_path / 'keystore.sqlite'}", keyring)
    async with Publisher(broker, keyring, keys, Seen(tmp_path / "seen.sqlite")) as made:  # type: ignore[arg-type]
        yield made


async def test_bytes_at_the_edge_are_bounded(
    publisher: Publisher, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "edge_bytes", 1000)
    monkeypatch.setattr(settings(), "edge_patience_seconds", 0.1)
    held = [asyncio.create_task(publisher.publish(arrival(str(n), size=600))) for n in range(2)]
    await asyncio.sleep(0.05)
    assert publisher.full
    with pytest.raises(Overloaded):
        await publisher.publish(arrival("3"))
    broker.open.set()
    assert [(await one).reason for one in held] == ["", ""]
    assert not publisher.full
    assert (await publisher.publish(arrival("3"))).reason == ""


async def test_a_repeat_before_the_confirmation_is_sent_once(publisher: Publisher, broker: Broker) -> None:
    both = [asyncio.create_task(publisher.publish(arrival("1"))) for _ in range(2)]
    await asyncio.sleep(0.05)
    broker.open.set()
    assert [(await one).duplicate for one in both] == [False, True]
    assert len(broker.sent) == 1


async def test_what_was_not_confirmed_is_not_remembered(publisher: Publisher, broker: Broker) -> None:
    broker.open.set()
    broker.failures = 1
    with pytest.raises(PublishFailed):
        await publisher.publish(arrival("1"))
    assert not (await publisher.publish(arrival("1"))).duplicate
    assert (await publisher.publish(arrival("1"))).duplicate


async def test_an_erased_patient_refuses_nobody_else(publisher: Publisher, broker: Broker, tmp_path: Path) -> None:
    broker.open.set()
    await publisher.publish(arrival("1", patient="gone"))
    keys = KeyStore(f"sqlite:///{tmp_path / 'keystore.sqlite'}", Keyring.open(tmp_path / "keyring.json"))
    gone = keys.refs_of([(AUTHORITY, "MR", "gone")])
    keys.mark_erased(gone, time.time())
    keys.destroy(gone)
    await asyncio.sleep(0.3)  # the longest time that a cache may be behind
    before = datetime.now(UTC) - timedelta(hours=1)
    some = [arrival(str(n), patient="gone" if n == 5 else str(n)) for n in range(2, 10)]
    ends = await asyncio.gather(
        *(publisher.publish(replace(one, event_time=before)) for one in some),
        return_exceptions=True,
    )
    assert [type(one) for one in ends if isinstance(one, BaseException)] == [ErasedPerson]
    assert Counter(one.topic for one in broker.sent) == {"hospital.ehr.v1": 8, "hospital.signals.v1": 1}
    assert (await publisher.publish(arrival("10", patient="gone"))).reason == "", "one who comes back is somebody new"
    (alert,) = (one for one in broker.sent if one.topic == "hospital.signals.v1")
    assert dict(alert.headers)["signal"] == b"event_of_erased_person"
    assert alert.value == b'{"source":"hl7v2:A|B"}'


async def test_it_ends_at_once_while_the_broker_is_away(tmp_path: Path, broker: Broker, home: Path) -> None:
    keyring = Keyring.open(tmp_path / "keyring.json")
    keys = KeyStore(f"sqlite:///{tmp_path / 'keystore.sqlite'}", keyring)
    async with asyncio.timeout(5):
        async with Publisher(broker, keyring, keys, Seen(tmp_path / "seen.sqlite")) as made:  # type: ignore[arg-type]
            waiting = asyncio.create_task(made.publish(arrival("1")))
            await asyncio.sleep(0.1)
            waiting.cancel()


def test_a_broken_memory_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "seen.sqlite"
    memory = Seen(path)
    memory.note([Answer("e1", "c1")])
    assert memory.before("e1") is not None
    memory.close()
    path.write_bytes(b"torn by a power cut" * 500)
    memory = Seen(path)
    assert memory.before("e1") is None
    memory.note([Answer("e2", "c2")])
    assert memory.before("e2") is not None
    memory.close()


def test_a_memory_that_breaks_while_in_use_is_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "seen.sqlite"
    memory = Seen(path)
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE answer")
    assert memory.before("e1") is None
    assert not memory.reused("c1")
    memory.note([Answer("e1", "c1")])
    memory.close()
