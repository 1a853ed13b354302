"""Batches: bounded in number, bytes and time; nothing left out, nothing reordered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from streams.batches import take


@dataclass(frozen=True)
class Message:
    value: bytes | None


@dataclass(frozen=True)
class Event:
    number: int
    message: Message


async def events(*sizes: int | None, pause: float = 0.0) -> AsyncIterator[Event]:
    for number, size in enumerate(sizes):
        if pause:
            await asyncio.sleep(pause)
        yield Event(number, Message(None if size is None else b"x" * size))


async def taken(
    source: AsyncIterator[Any], count: int = 100, size: int = 10**9, within: float = 1.0
) -> list[list[int]]:
    return [[event.number for event in batch] async for batch in take(source, count, size, within)]


async def test_bounded_in_number() -> None:
    assert await taken(events(*[1] * 7), count=3) == [[0, 1, 2], [3, 4, 5], [6]]


async def test_bounded_in_bytes() -> None:
    """The one that brings it over is the last: a message larger than the bound still goes through."""
    assert await taken(events(4, 4, 4, 50, 1, None, 1), size=10) == [[0, 1, 2], [3], [4, 5, 6]]


async def test_bounded_in_time() -> None:
    assert await taken(events(*[1] * 4, pause=0.05), within=0.01) == [[0], [1], [2], [3]]
    assert await taken(events(*[1] * 4, pause=0.01), within=5.0) == [[0, 1, 2, 3]]


async def test_a_failure_of_the_stream_comes_through() -> None:
    async def broken() -> AsyncIterator[Event]:
        yield Event(0, Message(b"x"))
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await taken(broken())


async def test_a_slow_taker_gets_all_in_order() -> None:
    numbers = []
    async for batch in take(events(*[1] * 50), 7, 10**9, 0.01):
        await asyncio.sleep(0.002)
        numbers += [event.number for event in batch]
    assert numbers == list(range(50))


async def test_the_next_is_collected_meanwhile_and_no_more() -> None:
    given = 0

    async def counted() -> AsyncIterator[Event]:
        nonlocal given
        async for event in events(*[1] * 50):
            given += 1
            yield event

    batches = take(counted(), 7, 10**9, 5.0)
    assert [event.number for event in await anext(batches)] == list(range(7))
    await asyncio.sleep(0.05)
    assert given == 14
    assert [event.number for event in await anext(batches)] == list(range(7, 14))
    await batches.aclose()  # type: ignore[attr-defined]


async def test_closed_it_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    batches = take(events(*[1] * 50, pause=0.01), 7, 10**9, 5.0)
    await anext(batches)
    await batches.aclose()  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
