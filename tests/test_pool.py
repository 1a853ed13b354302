"""Heavy work in limited processes: whatever a job does, it is its own job that fails, and with the right reason."""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from infra.errors import BadMessage
from streams import pool as pools
from streams.pool import Pool, PoolFailed

ROOT = Path(__file__).resolve().parents[1]
MIB = 1 << 20
LEAK: list[bytes] = []


def double(number: int) -> int:
    return 2 * number


def segfault() -> None:
    ctypes.string_at(0)


def hog(mib: int) -> int:
    return len(b"\1" * (mib * MIB))


def large(mib: int) -> bytes:
    return b"\1" * (mib * MIB)


def leak(mib: int) -> int:
    LEAK.append(b"\1" * (mib * MIB))
    return os.getpid()


def spin() -> None:
    while True:
        pass


def refuse() -> None:
    raise BadMessage("bad_pixels", "7FE0,0010")


def tell() -> None:
    warnings.warn("DOE^JANE", stacklevel=1)
    os.write(2, b"DOE^JANE")
    raise ValueError("DOE^JANE")


def meet(folder: str, mine: str, others: str) -> bool:
    """Whether two jobs are there at once: each waits for the other's mark."""
    Path(folder, mine).touch()
    while not Path(folder, others).exists():
        os.sched_yield()
    return True


def note(path: str, number: int) -> None:
    with open(path, "a") as file:
        file.write(f"{number}\n")


def imported(name: str) -> bool:
    return name in sys.modules


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool(2, 256 * MIB, 30, nice=5)
    yield made
    made.close()


def waiting() -> float:
    return REGISTRY.get_sample_value("wardstream_pool_waiting_jobs", {"domain": "imaging"}) or 0.0


async def test_many_callers_get_their_own_answers_by_two_processes(pool: Pool) -> None:
    assert await asyncio.gather(*(pool.run(double, one) for one in range(200))) == [2 * one for one in range(200)]
    assert len(set(await asyncio.gather(*(pool.run(os.getpid) for _ in range(20))))) == 2
    assert os.getpid() not in {await pool.run(os.getpid)}


async def test_as_many_run_at_once_as_there_are_processes(pool: Pool, tmp_path: Path) -> None:
    both = (pool.run(meet, str(tmp_path), one, other) for one, other in (("a", "b"), ("b", "a")))
    assert await asyncio.gather(*both) == [True, True]


async def test_those_who_wait_are_served_in_order_and_counted(tmp_path: Path) -> None:
    pool, path = Pool(1, 256 * MIB, 30), tmp_path / "order"
    jobs = [asyncio.ensure_future(pool.run(note, str(path), one)) for one in range(20)]
    await asyncio.sleep(0)
    assert waiting() == 19  # one is at work
    await asyncio.gather(*jobs)
    assert path.read_text().split() == [str(one) for one in range(20)]
    assert waiting() == 0
    pool.close()


async def test_a_crash_ends_one_job_and_no_other(pool: Pool) -> None:
    jobs = [pool.run(segfault) if one % 5 == 0 else pool.run(double, one) for one in range(20)]
    ends = await asyncio.gather(*jobs, return_exceptions=True)
    for number, end in enumerate(ends):
        if number % 5:
            assert end == 2 * number
        else:
            assert isinstance(end, PoolFailed)
            assert end.reason == "crashed"


async def test_a_process_that_died_between_two_jobs_fails_neither(pool: Pool) -> None:
    first = await pool.run(os.getpid)
    gone = os.pidfd_open(first)
    os.kill(first, signal.SIGKILL)
    assert select.select([gone], [], [], 60)[0]
    os.close(gone)
    assert await pool.run(os.getpid) != first


async def test_memory_is_limited(pool: Pool) -> None:
    assert await pool.run(hog, 100) == 100 * MIB
    with pytest.raises(PoolFailed) as caught:
        await pool.run(hog, 300)
    assert caught.value.reason == "out_of_memory"
    assert await pool.run(double, 4) == 8


async def test_a_large_result_comes_back(pool: Pool) -> None:
    assert await pool.run(large, 50) == b"\1" * (50 * MIB)


async def test_an_endless_job_is_ended() -> None:
    pool = Pool(1, 256 * MIB, 0.5)
    pid = await pool.run(os.getpid)
    with pytest.raises(PoolFailed) as caught:
        await pool.run(spin)
    assert caught.value.reason == "timed_out"
    assert await pool.run(os.getpid) != pid
    pool.close()


async def test_a_caller_that_gives_up_leaves_no_job_behind(pool: Pool) -> None:
    pid = await pool.run(os.getpid)
    gone = os.pidfd_open(pid)
    job = asyncio.ensure_future(pool.run(spin))
    await asyncio.sleep(0)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert await asyncio.to_thread(select.select, [gone], [], [], 60) != ([], [], [])
    os.close(gone)
    assert await asyncio.gather(pool.run(double, 1), pool.run(double, 2)) == [2, 4]


async def test_a_refusal_comes_back_as_itself(pool: Pool) -> None:
    with pytest.raises(BadMessage) as caught:
        await pool.run(refuse)
    assert (caught.value.reason, caught.value.where) == ("bad_pixels", "7FE0,0010")
    assert await pool.run(double, 4) == 8


async def test_of_an_error_the_type_comes_back_and_nothing_of_its_text(pool: Pool, capfd: object) -> None:
    with pytest.raises(PoolFailed) as caught:
        await pool.run(tell)
    error = caught.value
    assert (error.reason, error.error) == ("crashed", "ValueError")
    assert error.__cause__ is None and error.__context__ is None  # noqa: PT018
    out, err = capfd.readouterr()  # type: ignore[attr-defined]
    assert "DOE" not in out + err + str(error)


async def test_a_process_that_keeps_memory_is_replaced(pool: Pool) -> None:
    first = await pool.run(leak, 100)
    assert await pool.run(leak, 100) == first
    assert await pool.run(leak, 100) != first


async def test_a_process_is_replaced_after_many_jobs(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "JOBS", 3)
    pids = [await pool.run(os.getpid) for _ in range(9)]
    assert [len(set(pids[one : one + 3])) for one in (0, 3, 6)] == [1, 1, 1]
    assert len(set(pids)) == 3


async def test_modules_are_there_before_the_first_job() -> None:
    pool, bare = Pool(1, 256 * MIB, 30, modules=("wave",)), Pool(1, 256 * MIB, 30)
    assert await pool.run(imported, "wave")
    assert not await bare.run(imported, "wave")
    pool.close()
    bare.close()


PARENT = """
import asyncio, os, sys
from streams.pool import Pool
from tests.test_pool import spin, MIB

async def main():
    pool = Pool(1, 256 * MIB, 600)
    print(await pool.run(os.getpid), flush=True)
    await pool.run(spin)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment, cwd=ROOT) as parent:
        assert parent.stdout is not None
        gone = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        assert select.select([gone], [], [], 60)[0]
        os.close(gone)
