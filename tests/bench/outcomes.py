"""From the wire to the chart that counts an outcome, at a steady pace."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from infra.elastic import async_client
from schemas.envelope import rfc3339
from schemas.outcome_charts import ALIAS, CHART, number
from streams.quality.units import UNIT

MEASURE = "complication"
UNITS = tuple(f"WARD{n}" for n in range(20))
AT_ONCE = 10  # events of one request
Said = dict[str, Any]


def cases(site: str, count: int) -> Iterator[Said]:
    """Stays that are over, a second apart, and end with today."""
    drawn, end = random.Random(1), datetime.now(UTC) - timedelta(hours=1)
    for one in range(count):
        ended = end - timedelta(seconds=count - one)
        yield _who(site, one, ended) | {
            "type": "case", "unit": UNITS[one % len(UNITS)], "procedure": f"P{one % 7}", "age": drawn.randint(20, 89),
            "admitted_at": rfc3339(ended - timedelta(days=3)), "discharged_at": rfc3339(ended),
        }  # fmt: skip


def found(site: str, count: int) -> Iterator[Said]:
    """What became of each."""
    drawn, end = random.Random(2), datetime.now(UTC) - timedelta(hours=1)
    for one in range(count):
        expected = drawn.choice((0.02, 0.05, 0.1, 0.2))
        event = drawn.random() < expected
        yield _who(site, one, end) | {
            "type": "outcome", "measure": MEASURE, "event": event, "expected_risk": expected
        }  # fmt: skip


def _who(site: str, one: int, at: datetime) -> Said:
    return {"site": site, "id": f"B{one}", "patient_number": f"BP{one}", "at": rfc3339(at)}


async def charted(site: str, count: int, pace: float, port: int) -> list[float]:
    """Seconds from an outcome's request to the chart of its unit, in the index, that counts it."""
    sent: dict[str, list[float]] = defaultdict(list)
    seen: list[float] = []
    done = asyncio.Event()

    async def watch() -> None:
        server = async_client()
        ids = {unit: number(CHART, site, UNIT, unit, MEASURE) for unit in UNITS}
        counted = dict.fromkeys(UNITS, 0)
        try:
            while len(seen) < count:
                answer = await server.mget(index=ALIAS, ids=list(ids.values()), source_includes=["cases", "name"])
                now = time.perf_counter()
                for one in (doc["_source"] for doc in answer["docs"] if doc.get("found")):
                    unit = one["name"]
                    seen.extend(now - at for at in sent[unit][counted[unit] : one["cases"]])
                    counted[unit] = max(counted[unit], min(one["cases"], len(sent[unit])))
                if done.is_set() and time.perf_counter() - started > 2 * count / pace + 60:
                    raise TimeoutError(f"{count - len(seen)} outcomes are on no chart")
                await asyncio.sleep(0.02)
        finally:
            await server.close()

    async def post(session: aiohttp.ClientSession, some: list[Said]) -> None:
        async with session.post(f"http://127.0.0.1:{port}/", data=json.dumps(some), headers=JSON) as answer:
            if answer.status != 200:
                raise RuntimeError(f"refused: {answer.status}")

    started = time.perf_counter()
    watching = asyncio.create_task(watch())
    rows = list(found(site, count))
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for at in range(0, count, AT_ONCE):
            await asyncio.sleep(max(0.0, started + at / pace - time.perf_counter()))
            some, now = rows[at : at + AT_ONCE], time.perf_counter()
            for place in range(at, at + len(some)):
                sent[UNITS[place % len(UNITS)]].append(now)
            group.create_task(post(session, some))
    done.set()
    await watching
    return seen


JSON = {"Content-Type": "application/json"}
