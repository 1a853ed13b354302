"""`run.py --idioms`: the harness and its checker over idioms that lose data, so that a green run means something."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from checker import gather, judge
from cluster import ROOT, Cluster, Program
from rich.console import Console
from rich.table import Table
from workload import Message, Workload

from infra.kafka import lag
from infra.keyring import Keyring
from schemas.registry import DOMAINS

IDIOMS = {
    "each": "async for event in stream",
    "take": "stream.take(100)",
    "noack_take": "noack_take without noack()",
    "ours": "noack().noack_take(), crash, restart",
}
COUNT = 1000
QUIET_SECONDS = 12.0
TOPIC = DOMAINS["ehr"].raw.name


async def show(cluster: Cluster, seed: int, visible_of: Any, address: Any) -> dict[str, Any]:
    """Under each idiom one exception among `COUNT` messages: what never came, and what came only with our worker.

    `ok` is that each of Faust's own loses or stalls, and ours does neither.
    """
    await cluster.start()
    for worker in cluster.workers:
        await worker.stop()
    address(cluster)
    key = Keyring.open(cluster.home / "keys" / "keyring.json").event
    visible = await asyncio.to_thread(visible_of)
    every: list[Message] = []
    rows: dict[str, dict[str, int]] = {}
    for number, idiom in enumerate(IDIOMS):
        workload = Workload(key, seed + number, [link.port for link in cluster.mllp], 0, tag=idiom, limit=COUNT)
        await workload.run()
        every += workload.messages
        worker = _program(cluster, idiom)
        cluster.workers.append(worker)
        worker.start()
        stalled = await _until_quiet(visible, workload.answered)
        stuck = await worker.stop()
        cluster.workers.remove(worker)
        cluster.workers[0].start()  # ours takes what Kafka still holds for the group
        while sum(one.events for one in (await asyncio.to_thread(lag, TOPIC)).values()):
            await asyncio.sleep(0.5)
        await cluster.workers[0].stop()
        lost = [one for one in judge(await asyncio.to_thread(gather, every, cluster.home))["lost"] if idiom in one]
        rows[idiom] = {"stalled": stalled, "stuck": int(stuck), "lost": len(lost)}
    table = Table("idiom", "not seen", "stuck on SIGTERM", "lost for good", title=f"one exception in {COUNT} messages")
    for idiom, row in rows.items():
        table.add_row(IDIOMS[idiom], str(row["stalled"]), str(row["stuck"]), str(row["lost"]))
    Console(stderr=True).print(table)
    good = rows.pop("ours")
    ok = not any(good.values()) and all(any(row.values()) for row in rows.values())
    return {"idioms": rows | {"ours": good}, "ok": ok}


async def _until_quiet(visible: Any, messages: list[Message]) -> int:
    """Wait until nothing more becomes visible; gives how many are not."""
    missing, since = len(messages) + 1, time.monotonic()
    while missing and time.monotonic() - since < QUIET_SECONDS:
        await asyncio.sleep(0.5)
        now = len(await asyncio.to_thread(visible.missing, messages))
        if now < missing:
            missing, since = now, time.monotonic()
    return missing


def _program(cluster: Cluster, idiom: str) -> Program:
    command = [sys.executable, str(ROOT / "tests" / "faults" / "idioms.py"), idiom]
    log = cluster.home / "logs" / f"idiom-{idiom}.log"
    return Program(f"idiom-{idiom}", command, cluster.environment | {"PYTHONPATH": str(ROOT)}, log, ours=True)
