"""Batches off a stream, bounded in number, bytes and time.

Faust's own `noack_take` counts messages alone: five hundred documents of ten megabytes are five gigabytes, the process
is killed for its memory, and the next one takes the same five hundred.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any


async def take(events: AsyncIterator[Any], count: int, size: int, within: float) -> AsyncIterator[list[Any]]:
    """Lists of at most `count` events, ended by the one that brings them over `size` bytes, or `within` seconds after
    the first came. Ends with the events.
    """
    loop = asyncio.get_running_loop()
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            batch: list[Any] = []
            held, until = 0, 0.0
            while len(batch) < count and held < size:
                if not coming.done():
                    await asyncio.wait({coming}, timeout=until - loop.time() if batch else None)
                if not coming.done():
                    break
                event = coming.result()
                if event is None:
                    break
                coming = asyncio.ensure_future(anext(events, None))
                until = until if batch else loop.time() + within
                batch.append(event)
                held += len(event.message.value or b"")
                await asyncio.sleep(0)  # lets `anext` run: most often the next event is there already
            if not batch:
                return
            yield batch
    finally:
        coming.cancel()
