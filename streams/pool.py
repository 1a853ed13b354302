"""A bounded number of processes for what decodes a stranger's bytes: each with limits, each replaced when it dies.

A hostile file kills at most its own process and its own job. One executor a process, since the executor of the library
gives up all its processes when one of them dies.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from infra import metrics
from infra.errors import BadMessage, UsageError, WardstreamError
from streams.beside import Beside, BesideFailed, held_bytes

P = ParamSpec("P")
T = TypeVar("T")
START_SECONDS = 120.0  # until a process has its imports; no part of its first job
JOBS = 1000  # of one process; decoders leak
REASONS = {"TimeoutError": "timed_out", "MemoryError": "out_of_memory"}


class PoolFailed(WardstreamError):
    """A job that came to nothing: `timed_out`, `out_of_memory` or `crashed`; `error` is the type of what it raised."""

    def __init__(self, reason: str, error: str = "") -> None:
        super().__init__(f"{reason}: {error}" if error else reason)
        self.reason = reason
        self.error = error


class Pool:
    """Never more jobs at once than `processes`; others wait in the order they came, counted under `domain`.

    A job may map `memory_bytes` above what its process has after importing `modules`, and take `seconds`. Processes
    are started when they are needed first, and end with this one however it ends. What they write to a terminal is
    lost: decoders tell of values there.
    """

    def __init__(
        self,
        processes: int,
        memory_bytes: int,
        seconds: float,
        nice: int = 0,
        *,
        modules: Sequence[str] = (),
        domain: str = "imaging",
    ) -> None:
        self._seconds = seconds
        self._turn = asyncio.Semaphore(processes)
        self._idle = [_Process(nice, memory_bytes, (__name__, *modules)) for _ in range(processes)]
        self._all = tuple(self._idle)
        self._waiting = metrics.POOL_WAITING.labels(domain)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function of some module's top level gives, over there. Raises PoolFailed, BadMessage, UsageError."""
        self._waiting.inc()
        try:
            await self._turn.acquire()
        finally:
            self._waiting.dec()
        process = self._idle.pop()  # the one used last: it has its imports
        try:
            done, value = await process.run(self._seconds, function, args, kwargs)
        finally:
            self._idle.append(process)
            self._turn.release()
        if done:
            return value  # type: ignore[no-any-return]
        raise value

    def close(self) -> None:
        for process in self._all:
            process.close()


class _Process:
    def __init__(self, nice: int, memory_bytes: int, modules: Sequence[str]) -> None:
        self._beside = Beside(nice, memory_bytes, modules)
        self._memory_bytes = memory_bytes
        self._jobs = 0
        self._first = 0  # bytes it had before its first job

    async def run(self, seconds: float, *job: Any) -> tuple[bool, Any]:
        """Whether it was done, with the value or the error."""
        try:
            await self._ready()
            self._jobs += 1
            return await self._beside.ask(seconds, _work, seconds, *job)
        except BesideFailed as error:
            self.close()
            return False, PoolFailed(REASONS.get(str(error), "crashed"))
        except asyncio.CancelledError:  # it would go on over there, and the next job wait for it
            self.close()
            raise

    async def _ready(self) -> None:
        """A process that answers and has memory left for a job, the one that is there or a new one."""
        if self._jobs >= JOBS:
            self.close()
        if self._beside.started:
            try:
                if await self._beside.ask(START_SECONDS, held_bytes) - self._first <= self._memory_bytes // 2:
                    return
            except BesideFailed:  # it died after its last job was done: no fault of the next one
                pass
            self.close()
        self._first = await self._beside.ask(START_SECONDS, _quiet)

    def close(self) -> None:
        self._beside.close()
        self._jobs = 0


def _quiet() -> int:
    """Nothing that this process writes is read from here on; gives what it has before its first job."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    return held_bytes()


def _work(seconds: float, function: Callable[..., T], args: Any, kwargs: Any) -> tuple[bool, Any]:
    """An error goes back as a reason, never as itself: its text, its cause and its traceback may hold values.

    A job that holds the interpreter for ever is not told that the parent has died: the kernel's limit ends it.
    """
    limit = math.ceil(time.process_time() + 2 * seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
    try:
        return True, function(*args, **kwargs)
    except BadMessage as error:
        return False, BadMessage(error.reason, error.where)
    except UsageError as error:  # our own words about what a person asked for
        return False, UsageError(str(error))
    except MemoryError:
        return False, PoolFailed("out_of_memory")
    except Exception as error:
        if "bad_alloc" in str(error) or "nsufficient memory" in str(error):  # ONNX's and OpenCV's words for it
            return False, PoolFailed("out_of_memory")
        return False, PoolFailed("crashed", type(error).__name__)
