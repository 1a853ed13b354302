"""Heavy work on what strangers sent, in a bounded number of processes: a job that hangs, swells or crashes takes its
own process with it, and nothing else.

    pool = Pool(processes=2, memory_bytes=2_000_000_000, seconds=30)
    found = await pool.run(look, claim)      # raises PoolFailed, or the BadMessage that `look` raised over there
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from infra import metrics
from infra.errors import BadMessage, UsageError
from streams.beside import Beside, BesideFailed

P = ParamSpec("P")
T = TypeVar("T")
JOBS = 1000  # of one process: decoders leak, and a new one takes half a second
START_SECONDS = 60.0  # on a busy machine a process and its imports take that long, before the job begins
REASONS = {"TimeoutError": "timed_out", "BrokenProcessPool": "crashed", "MemoryError": "out_of_memory"}


class PoolFailed(Exception):
    """A job that gave nothing; `reason` is timed_out, out_of_memory, crashed, or failed: by an error of its own, whose
    text may hold a value and stays over there."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Pool:
    """Processes start when they are first needed. `memory_bytes`: what a job may take beyond its imports."""

    def __init__(self, processes: int, memory_bytes: int, seconds: float, nice: int = 0) -> None:
        self._memory, self._seconds = memory_bytes, seconds
        self._slots = [_Slot(Beside(nice)) for _ in range(processes)]
        self._free: asyncio.LifoQueue[_Slot] = asyncio.LifoQueue()
        for slot in self._slots:
            self._free.put_nowait(slot)
        self._waiting = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function of some module's top level gives, over there."""
        self._count(1)
        try:
            slot = await self._free.get()
        finally:
            self._count(-1)
        try:
            return await self._run(slot, function, *args, **kwargs)
        except asyncio.CancelledError:  # nobody waits for it any more: nobody may pay for it either
            slot.end()
            raise
        finally:
            self._free.put_nowait(slot)

    async def _run(self, slot: _Slot, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            if not slot.jobs:
                await slot.beside.ask(START_SECONDS, limit, self._memory, function.__module__)
            slot.jobs += 1
            done: Any = await slot.beside.ask(self._seconds, attempt, function, args, kwargs)
        except BesideFailed as failed:
            slot.end()
            raise PoolFailed(REASONS.get(str(failed), "failed")) from None
        if slot.jobs >= JOBS:
            slot.end()
        if isinstance(done, Refused):
            raise UsageError(done.reason) if done.usage else BadMessage(done.reason, done.where)
        return cast(T, done)

    def _count(self, more: int) -> None:
        self._waiting += more
        metrics.POOL_WAITING.set(self._waiting)

    def close(self) -> None:
        for slot in self._slots:
            slot.end()


class _Slot:
    """One process, and how many jobs it has had."""

    def __init__(self, beside: Beside) -> None:
        self.beside, self.jobs = beside, 0

    def end(self) -> None:
        self.beside.close()
        self.jobs = 0


# ------------------------------------------------------------------------------------------ in the process


class Refused:
    """An error that may be told, since it is made of our own words."""

    def __init__(self, reason: str, where: str = "", *, usage: bool = False) -> None:
        self.reason, self.where, self.usage = reason, where, usage


def limit(memory_bytes: int, module: str) -> None:
    """From here on this process may take so much more than it has. `module` is imported by now: unpickling did it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm") as file:
        present = int(file.read().split()[0]) * resource.getpagesize()
    most = present + memory_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def attempt(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T | Refused:
    try:
        return function(*args, **kwargs)
    except BadMessage as bad:
        return Refused(bad.reason, bad.where)
    except UsageError as error:
        return Refused(str(error), usage=True)
