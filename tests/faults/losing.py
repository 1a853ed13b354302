"""`run.py --idioms`: the harness and its checker over idioms that lose data, so that a green run means something."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from checker import gather, judge
from cluster import ROOT, Cluster, Program
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console
from rich.table import Table
from workload import Message, Workload

from infra.kafka import GROUP, connection, lag
from infra.keyring import Keyring
from infra.settings import settings
from schemas.registry import DOMAINS

# (scenario, idiom): what the table calls it
ROWS = {
    ("rebalance", "unmended"): "noack().noack_take() on Faust's own consumer",  # first: nothing is committed yet
    ("rebalance", "ours"): "the same on ours",
    ("exception", "each"): "async for event in stream",
    ("exception", "take"): "stream.take(100)",
    ("exception", "noack_take"): "noack_take without noack()",
    ("exception", "ours"): "noack().noack_take(), crash, restart",
}
COUNT = 1000
QUIET_SECONDS = 12.0
TOPIC = DOMAINS["ehr"].raw.name


async def show(cluster: Cluster, seed: int, visible_of: Any, address: Any) -> dict[str, Any]:
    """Under each idiom one exception among `COUNT` messages, or one rebalance before anything was committed.

    What never came, and what came only with our worker. `ok` is that each of Faust's own idioms loses or stalls, and
    ours does neither.
    """
    await cluster.start()
    for worker in cluster.workers:
        await worker.stop()
    address(cluster)
    key = Keyring.open(cluster.home / "keys" / "keyring.json").event
    visible = await asyncio.to_thread(visible_of)
    every: list[Message] = []
    rows: dict[str, dict[str, int]] = {}
    for number, (scenario, idiom) in enumerate(ROWS):
        tag, ports = f"I{number}-", [link.port for link in cluster.mllp]
        rebalance = scenario == "rebalance"
        workload = Workload(key, seed + number, ports, 120.0 if rebalance else 0.0, tag=tag, limit=COUNT)
        workers = [_program(cluster, scenario, idiom, one) for one in range(3 if rebalance else 1)]
        cluster.workers += workers
        if rebalance:
            await asyncio.to_thread(_forget_commits)
            await _join_and_leave(cluster, workers, workload)
        else:
            await workload.run()
            workers[0].start()
        every += workload.messages
        stalled = await _until_quiet(visible, workload.answered)
        stuck = await asyncio.gather(*(worker.stop() for worker in workers))
        del cluster.workers[-len(workers) :]
        cluster.workers[0].start()  # ours takes what Kafka still holds for the group
        while sum(one.events for one in (await asyncio.to_thread(lag, TOPIC)).values()):
            await asyncio.sleep(0.5)
        await cluster.workers[0].stop()
        lost = judge(await asyncio.to_thread(gather, every, cluster.home, set()))["lost"]
        mine = {one.split()[0] for one in lost if one.startswith(tag)}
        rows[f"{scenario} {idiom}"] = {"stalled": stalled, "stuck": sum(stuck), "lost": len(mine)}
    table = Table("fault", "idiom", "not seen", "stuck on SIGTERM", "lost for good", title=f"among {COUNT} messages")
    for (scenario, idiom), said in ROWS.items():
        row = rows[f"{scenario} {idiom}"]
        table.add_row(scenario, said, str(row["stalled"]), str(row["stuck"]), str(row["lost"]))
    Console(stderr=True).print(table)
    return {"idioms": rows, "ok": all(any(row.values()) != name.endswith(" ours") for name, row in rows.items())}


async def _join_and_leave(cluster: Cluster, workers: list[Program], workload: Workload) -> None:
    """A third worker comes and goes while the index is away, so that nothing can be finished and committed.

    It comes once Faust's buffers hold something to throw out: the agents' own hands take the first seconds' messages.
    """
    first, second, third = workers
    first.start()
    second.start()
    await asyncio.sleep(8)
    cluster.node.mode = "503"
    sending = asyncio.create_task(workload.run())
    await asyncio.sleep(6)
    for _ in range(2):
        third.start()
        await asyncio.sleep(6)
        await third.stop()
    cluster.node.mode = "pass"
    await sending


def _forget_commits() -> None:
    """As if the group had never read the topic. Its members have left by now, or nearly."""
    admin = AdminClient(connection(settings()))
    deadline = time.monotonic() + 30
    while True:
        try:
            admin.delete_consumer_groups([GROUP])[GROUP].result(timeout=10)
            return
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


async def _until_quiet(visible: Any, messages: list[Message]) -> int:
    """Wait until nothing more becomes visible; gives how many are not."""
    missing, since = len(messages) + 1, time.monotonic()
    while missing and time.monotonic() - since < QUIET_SECONDS:
        await asyncio.sleep(0.5)
        now = len(await asyncio.to_thread(visible.missing, messages))
        if now < missing:
            missing, since = now, time.monotonic()
    return missing


def _program(cluster: Cluster, scenario: str, idiom: str, number: int) -> Program:
    command = [sys.executable, str(ROOT / "tests" / "faults" / "idioms.py"), idiom, f"--{scenario}"]
    log = cluster.home / "logs" / f"idiom-{idiom}-{number}.log"
    return Program(f"idiom-{idiom}", command, cluster.environment | {"PYTHONPATH": str(ROOT)}, log, ours=True)
