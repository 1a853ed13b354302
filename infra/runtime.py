"""How a long-running process of ours runs: on uvloop, and looking for garbage seldom."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


def less_garbage_collection() -> None:
    """Records are trees, not cycles: looking for garbage among a batch's million objects took a fifth of the time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def run(main: Coroutine[Any, Any, None]) -> None:
    less_garbage_collection()
    uvloop.run(main)


def run_to_end(main: Coroutine[Any, Any, T]) -> T:
    """SIGTERM ends it as Ctrl-C does: what it has begun is put right first."""

    async def until_ended() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await main

    try:
        return asyncio.run(until_ended())
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None
