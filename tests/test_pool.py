"""A bounded pool: whatever a job does to its process, the others go on."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.errors import BadMessage, UsageError
from streams.pool import Pool, PoolFailed

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 1_000_000


def who(_: int = 0) -> int:
    return os.getpid()


def double(number: int) -> int:
    return 2 * number


def crash() -> None:
    ctypes.string_at(0)


def swell() -> int:
    return len(bytearray(2000 * MEGABYTE))


def hang() -> None:
    time.sleep(600)


def refuse() -> None:
    raise BadMessage("bad_pixels", "PixelData")


def mistype() -> None:
    raise UsageError("there is no such window")


def tell() -> None:
    raise ValueError("a patient's value")


def leave(where: str) -> None:
    Path(where).write_text(str(os.getpid()))
    time.sleep(600)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool(2, 500 * MEGABYTE, 20.0)
    yield made
    made.close()


async def test_more_callers_than_processes(pool: Pool) -> None:
    assert await asyncio.gather(*(pool.run(double, one) for one in range(50))) == [2 * one for one in range(50)]
    assert len(set(await asyncio.gather(*(pool.run(who, one) for one in range(20))))) <= 2


@pytest.mark.parametrize(("job", "reason"), [(crash, "crashed"), (swell, "out_of_memory"), (tell, "failed")])
async def test_a_bad_job_takes_its_own_process_at_most(pool: Pool, job: object, reason: str) -> None:
    before = {await pool.run(who)}
    ends = await asyncio.gather(
        pool.run(job),  # type: ignore[arg-type]
        *(pool.run(double, one) for one in range(20)),
        return_exceptions=True,
    )
    assert isinstance(ends[0], PoolFailed)
    assert (ends[0].reason, str(ends[0])) == (reason, reason), "and nothing of its text"
    assert ends[1:] == [2 * one for one in range(20)]
    assert await pool.run(double, 4) == 8
    assert before


async def test_a_job_that_hangs_is_ended() -> None:
    pool = Pool(1, 500 * MEGABYTE, 1.0)
    first = await pool.run(who)
    with pytest.raises(PoolFailed, match="timed_out"):
        await pool.run(hang)
    assert await pool.run(who) != first
    for _ in range(100):
        if not alive(first):
            break
        await asyncio.sleep(0.1)
    assert not alive(first)
    pool.close()


async def test_reasons_come_back_as_they_were(pool: Pool) -> None:
    with pytest.raises(BadMessage) as bad:
        await pool.run(refuse)
    assert (bad.value.reason, bad.value.where) == ("bad_pixels", "PixelData")
    with pytest.raises(UsageError, match="no such window"):
        await pool.run(mistype)


async def test_a_caller_who_leaves_frees_the_process(pool: Pool) -> None:
    waiting = [asyncio.create_task(pool.run(hang)) for _ in range(2)]
    await asyncio.sleep(2)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await pool.run(double, 4) == 8


def test_processes_end_with_whoever_started_them(tmp_path: Path) -> None:
    left = tmp_path / "left"
    code = (
        "import asyncio; from streams.pool import Pool; from tests.test_pool import leave\n"
        f"if __name__ == '__main__': asyncio.run(Pool(1, 10**9, 600).run(leave, {str(left)!r}))"
    )
    (tmp_path / "parent.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], env=environment)
    try:
        for _ in range(600):
            if left.exists() and left.read_text():
                break
            time.sleep(0.1)
        child = int(left.read_text())
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    for _ in range(100):
        if not alive(child):
            break
        time.sleep(0.1)
    assert not alive(child)
