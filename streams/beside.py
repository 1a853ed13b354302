"""A process beside a worker, for what needs a core of its own: started when asked first, and again after it died.

It ends with the worker, however that comes: an orphan would keep its memory for ever.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class BesideFailed(Exception):
    """The process died, gave no answer in time, or what it did failed: the type of the error, whose text may hold a
    value. Whoever asks again after a death or a time-out gets a new one."""


class Beside:
    """One process with one thread. `nice`: how far it steps back behind the worker (nice(2)). `modules` are imported
    over there before it answers anything, `memory_bytes` (0: no limit) is what it may map above what it has then."""

    def __init__(self, nice: int = 0, memory_bytes: int = 0, modules: Sequence[str] = ()) -> None:
        self._begin = (nice, memory_bytes, tuple(modules))
        self._pool: ProcessPoolExecutor | None = None

    @property
    def started(self) -> bool:
        return self._pool is not None

    async def ask(self, patience: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function of some module's top level gives, over there. Raises BesideFailed."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, _begin, self._begin)
        try:
            running = asyncio.wrap_future(self._pool.submit(function, *args, **kwargs))
            return await asyncio.wait_for(running, patience)
        except (BrokenProcessPool, TimeoutError) as error:
            self.close()
            raise BesideFailed(type(error).__name__) from None
        except Exception as error:
            raise BesideFailed(type(error).__name__) from None

    def close(self) -> None:
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def held_bytes() -> int:
    """What this process maps now: what RLIMIT_AS limits."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _begin(nice: int, memory_bytes: int, modules: Sequence[str]) -> None:
    for one in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ[one] = "1"
    for number in (signal.SIGINT, signal.SIGTERM):  # the worker's to decide
        signal.signal(number, signal.SIG_IGN)
    os.nice(nice)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(0)

    threading.Thread(target=follow, daemon=True).start()
    for name in modules:
        importlib.import_module(name)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core is the memory of a process: patients' values in a file
    if memory_bytes:
        limit = held_bytes() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
