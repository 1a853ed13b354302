"""Batches off a stream, bounded in number, bytes and time.

Faust's own `noack_take` counts messages alone: five hundred documents of ten megabytes are five gigabytes, the process
is killed for its memory, and the next one takes the same five hundred.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any


async def take(events: AsyncIterator[Any], count: int, size: int, within: float) -> AsyncIterator[list[Any]]:
    """Lists of at most `count` events, ended by the one that brings them over `size` bytes, or `within` seconds after
    the first came. Ends with the events.

    The next batch is collected while the last one is worked on, and no more than it. One task collects: one an event
    cost as much as reading it.
    """
    loop = asyncio.get_running_loop()
    waiting: list[Any] = []
    held, since = 0, 0.0
    some, full, room = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def collect() -> None:
        nonlocal held, since
        async for event in events:
            since = since if waiting else loop.time()
            waiting.append(event)
            held += len(event.message.value or b"")
            some.set()
            if len(waiting) >= count or held >= size:
                full.set()
                room.clear()
                await room.wait()

    def ended(_: Any) -> None:
        some.set()
        full.set()

    collecting = asyncio.ensure_future(collect())
    collecting.add_done_callback(ended)
    try:
        while True:
            await some.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(since + within):
                    await full.wait()
            if not waiting:
                await collecting
                return
            batch, waiting, held = waiting, [], 0
            if not collecting.done():
                some.clear()
                full.clear()
            room.set()
            yield batch
    finally:
        collecting.cancel()
