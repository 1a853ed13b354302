"""`make faults`: a hospital that never stops sending, servers and processes that fail, and an account at the end.

    python tests/faults/run.py [--seed N] [--rate N] [--steps N | --only fault[+fault] ...] [--json] [--keep]
    python tests/faults/run.py --idioms

The same seed gives the same steps on the same messages. Exit code 0 only when nothing was lost, doubled, wrong, out of
order, unseen a minute after healing, stuck on SIGTERM, or in clear, and no step was idle.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import steps
from checker import DOMAIN, VERDICTS, gather, judge
from cluster import ROOT, Cluster
from rich.console import Console
from rich.table import Table
from workload import Message, Workload

from infra.elastic import client
from infra.errors import StackDown
from infra.kafka import Reader, headers, lag
from infra.keyring import Keyring
from infra.settings import settings
from schemas.envelope import document_id

UNSEEN_SECONDS = 60.0
FLOWING = 60  # answers that show that senders are served again
RATE = 60.0  # messages a second by default: two workers, three brokers and a node share two cores with the harness
console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)


class Visible:
    """Which answered messages can be found, or have a letter. Looks at the servers, not through the proxies."""

    def __init__(self) -> None:
        self._done: set[str] = set()
        self._letters = Reader(DOMAIN.dead_letters.name, from_end=True)

    def missing(self, messages: list[Message]) -> list[Message]:
        for letter in self._letters.poll(0.1):
            self._done.add(headers(letter)["event_id"].decode())
        asked = [one for one in messages if one.event_id not in self._done]
        if asked:
            with client() as server:
                ids = [document_id(one.event_id, 0) for one in asked]
                found = server.mget(index=DOMAIN.alias, ids=ids, source=False, realtime=False)["docs"]
            self._done |= {one.event_id for one, doc in zip(asked, found, strict=True) if doc.get("found")}
        return [one for one in asked if one.event_id not in self._done]


async def flowing(workload: Workload) -> bool:
    """Wait until answers come again, so that each fault meets a path at work; whether they do within a minute."""
    deadline, before = time.monotonic() + UNSEEN_SECONDS, len(workload.answered)
    while len(workload.answered) < before + FLOWING:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.2)
    return True


async def settled(visible: Visible, messages: list[Message]) -> list[Message]:
    """Wait until all of them are visible; gives those that are not after a minute."""
    deadline = time.monotonic() + UNSEEN_SECONDS
    while True:
        try:
            missing = await asyncio.to_thread(visible.missing, messages)
        except Exception:  # a server that is still starting
            missing = messages
        if not missing or time.monotonic() > deadline:
            return missing
        await asyncio.sleep(0.3)


async def drained() -> int:
    """Wait until the workers have acknowledged everything, so that none is stopped before it folded what is visible;
    gives how many events they have not acknowledged after a minute."""
    deadline, left = time.monotonic() + UNSEEN_SECONDS, 1
    while left and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        with contextlib.suppress(StackDown):
            left = sum(one.events for one in (await asyncio.to_thread(lag, DOMAIN.raw.name)).values())
    return left


async def faults(cluster: Cluster, seed: int, rate: float, schedule: list[tuple[str, ...]]) -> dict[str, Any]:
    """Run the steps under load, then the account."""
    await cluster.start()
    address(cluster)
    key = Keyring.open(cluster.home / "keys" / "keyring.json").event
    workload = Workload(key, seed, [link.port for link in cluster.mllp], rate)
    scene = steps.Scene(cluster, workload, seed)
    visible = await asyncio.to_thread(Visible)  # never on this loop: it carries the proxies
    unseen: dict[str, Message] = {}  # given up: one lost message must not cost every later step its minute
    sending = asyncio.create_task(workload.run())
    started = time.monotonic()
    while len(workload.answered) < 100:
        await asyncio.sleep(0.2)
    for number, names in enumerate(schedule, 1):
        began = time.monotonic()
        await steps.run(scene, number, names)
        healed = time.monotonic()
        if not await flowing(workload):
            scene.stuck.append(f"the senders after step {number}")
        missing = await settled(visible, [one for one in workload.answered if one.event_id not in unseen])
        unseen |= {one.event_id: one for one in missing}
        console.print(
            f"{number:3}/{len(schedule)}  {'+'.join(names):42} {healed - began:5.1f} s, seen after "
            f"{time.monotonic() - healed:4.1f} s  {len(workload.answered):6} answered"
            f"{f'  [red]{len(missing)} unseen' if missing else ''}"
            f"{'  [red]idle' if any(one.idle() for one in scene.done if one.step == number) else ''}",
            highlight=False,
        )
    workload.stop()
    await asyncio.wait([sending], timeout=90)
    if sending.done():
        await sending
    else:
        scene.stuck.append("the sender")
    missing = await settled(visible, [one for one in workload.answered if one.event_id not in unseen])
    unseen |= {one.event_id: one for one in missing}
    if left := await drained():
        scene.stuck.append(f"{left} events of the raw topic")
    scene.wrong += await cluster.keep_pages()
    await cluster.stop_ours()
    evidence = await asyncio.to_thread(gather, workload.messages, cluster.home, cluster.node.intruded)
    evidence.looks, evidence.steps = scene.looks, scene.done
    evidence.unseen = [one.control for one in unseen.values()]
    evidence.stuck, evidence.wrong = scene.stuck + cluster.stuck(), scene.wrong
    verdicts = judge(evidence)
    return {
        "seed": seed,
        "steps": ["+".join(names) for names in schedule],
        "seconds": round(time.monotonic() - started),
        "messages": len(workload.messages),
        "answered": len(workload.answered),
        "did": [{"step": one.step, "fault": one.fault, **one.did} for one in scene.done],
        "ended": {program.name: dict(Counter(map(str, program.exits))) for program in cluster.every},
        "letters": dict(Counter(reason for reasons in evidence.letters.values() for reason in reasons)),
        "signals": len(evidence.signals),
        "looks": len(scene.looks),
        "audited": len(evidence.audit),
        "read_again": len(evidence.sealed) - len(set(evidence.sealed)),
        "verdicts": verdicts,
        "ok": not any(verdicts.values()),
    }


def address(cluster: Cluster) -> None:
    """Let this process's own look-ups go to the servers themselves."""
    os.environ |= {
        "WARDSTREAM_HOME": str(cluster.home),
        "WARDSTREAM_KAFKA": cluster.environment["WARDSTREAM_KAFKA"],
        "WARDSTREAM_ELASTICSEARCH": f"http://127.0.0.1:{cluster.http}",
    }
    settings.cache_clear()


def show(result: dict[str, Any]) -> None:
    table = Table("verdict", "count", "first of them", title=f"{len(result['steps'])} steps, seed {result['seed']}")
    table.add_row("answered", str(result["answered"]), f"in {result['seconds']} s")
    for name in ("letters", "signals", "looks", "audited", "read_again"):
        table.add_row(name.replace("_", " "), "", str(result[name]))
    ended = ", ".join(f"{name} {sum(codes.values())}" for name, codes in result["ended"].items() if codes)
    table.add_row("ended", "", ended)
    for verdict in VERDICTS:
        named = result["verdicts"][verdict]
        table.add_row(verdict, f"[{'red' if named else 'green'}]{len(named)}", ", ".join(named[:4]))
    console.print(table)


async def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rate", type=float, default=RATE, help="messages a second")
    parser.add_argument("--only", nargs="+", help="these steps and no others: a fault, or two joined by +")
    parser.add_argument("--idioms", action="store_true", help="show which Faust idioms lose data")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the home folder for a look")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="wardstream-faults-"))
    cluster = Cluster(home, given.seed)
    try:
        if given.idioms:
            import losing

            result = await losing.show(cluster, given.seed, Visible, address)
        else:
            only = [tuple(one.split("+")) for one in given.only or ()]
            result = await faults(cluster, given.seed, given.rate, only or steps.schedule(given.seed, given.steps))
            show(result)
    except StackDown as error:
        console.print(f"[red]{error}")
        return 3
    finally:
        await cluster.close()
        if not given.keep:
            shutil.rmtree(home, ignore_errors=True)
    (ROOT / "build").mkdir(exist_ok=True)
    kind = "-idioms" if given.idioms else "-only" if given.only else ""
    (ROOT / "build" / f"faults{kind}.json").write_text(json.dumps(result, indent=2) + "\n")
    if given.json:
        print(json.dumps(result))
    if not result["ok"]:
        console.print(f"again: python tests/faults/run.py {' '.join(sys.argv[1:])} --keep", highlight=False)
        console.print(f"home: {home}" if given.keep else "")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
