"""Operations events over HTTP: 200 once all is durable, else event by event what became of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from infra.keyring import Keyring
from infra.keystore import KeyStore
from infra.settings import settings
from producers import operations
from producers.feeds.operations import LINES, Listener
from producers.publish import Arrival, Publisher
from producers.seen import Seen
from tests.broker import Broker
from tests.entities import SITE, bed

GOOD = {"site": SITE, **bed("ICU 1 1")}
COSTLY = {**GOOD, "price": -1}


class Client:
    def __init__(self, session: aiohttp.ClientSession, port: int, broker: Broker) -> None:
        self.session, self.port, self.broker = session, port, broker

    async def __call__(
        self, body: bytes | object, kind: str = "application/json", path: str = "/", method: str = "POST"
    ) -> tuple[int, list[dict[str, Any]]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        at = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(method, at, data=data, headers={"Content-Type": kind}) as answer:
            return answer.status, (await answer.json())["events"]


@pytest.fixture
async def client(tmp_path: Path, home: Path) -> AsyncIterator[Client]:
    keyring = Keyring.open(tmp_path / "keyring.json")
    keys = KeyStore(f"sqlite:///{tmp_path / 'keystore.sqlite'}", keyring)
    broker, stop, ready = Broker(is_open=True), asyncio.Event(), asyncio.get_running_loop().create_future()

    def take(said: Mapping[str, Any], at: datetime) -> Arrival:
        return operations.arrival(said, "x", {}, at)

    async with Publisher(broker, keyring, keys, Seen(tmp_path / "seen.sqlite")) as publisher:  # type: ignore[arg-type]
        serving = asyncio.create_task(Listener(publisher, take).serve("127.0.0.1", 0, ready.set_result, stop))
        async with aiohttp.ClientSession() as session:
            yield Client(session, await ready, broker)
        stop.set()
        await asyncio.wait_for(serving, 10)


async def test_accepted_once_durable(client: Client) -> None:
    status, (one,) = await client(GOOD)
    assert (status, one["outcome"], len(client.broker.sent)) == (200, "accepted", 1)
    status, (again,) = await client(GOOD)
    assert (status, again) == (200, {"outcome": "duplicate", "event_id": one["event_id"]})
    assert len(client.broker.sent) == 1


async def test_an_array_tells_event_by_event(client: Client) -> None:
    status, said = await client([GOOD, COSTLY, {**GOOD, "bed": "2"}])
    assert status == 400
    assert [one["outcome"] for one in said] == ["accepted", "refused", "accepted"]
    assert (said[1]["reason"], said[1]["where"]) == ("negative_price", "price")
    assert len(client.broker.sent) == 2


async def test_lines(client: Client) -> None:
    status, said = await client(json.dumps(GOOD).encode() + b"\n\n{not json\n", LINES)
    assert (status, [one["outcome"] for one in said]) == (400, ["accepted", "refused"])


async def test_a_broker_that_is_away(client: Client) -> None:
    client.broker.failures = 1
    status, (one,) = await client(GOOD)
    assert (status, one["outcome"]) == (503, "refused")
    assert (await client(GOOD))[0] == 200, "sent again it is taken"


@pytest.mark.parametrize(
    ("body", "how", "expected"),
    [
        (b"{}", {}, (400, "unknown_type")),
        (b"[1]", {}, (400, "bad_json")),
        (b"nothing", {}, (400, "bad_json")),
        (b"\xff{}", {}, (400, "bad_charset")),
        (b"{}", {"kind": "text/csv"}, (415, "bad_media_type")),
        (b"{}", {"kind": "application/json; charset=latin-1"}, (400, "bad_charset")),
        (b"{}", {"path": "/beds"}, (404, "no_such_path")),
        (b"{}", {"method": "PUT"}, (405, "not_supported")),
    ],
)
async def test_refused(client: Client, body: bytes, how: dict[str, str], expected: tuple[int, str]) -> None:
    status, (one,) = await client(body, **how)
    assert (status, one["reason"]) == expected
    assert client.broker.sent == []


async def test_too_large(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "fhir_max_bytes", 100)
    status, (one,) = await client([GOOD] * 10)
    assert (status, one["reason"]) == (413, "too_large")
