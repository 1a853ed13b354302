"""The faults, one row each: what is done, and undone. A step is one fault, or two at once."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cluster import LIMIT_EXIT, Cluster, Program
from workload import Workload

from infra.elastic import client
from infra.kafka import lag
from schemas.registry import DOMAINS

DOMAIN = DOMAINS["ehr"]
SESSION_SECONDS = 10  # of the consumer group: who is silent for longer has lost its partitions


@dataclass(slots=True)
class Scene:
    """What a fault may touch."""

    cluster: Cluster
    workload: Workload
    random: random.Random
    stuck: list[str]
    wrong: list[str]

    def one(self, programs: list[Program]) -> Program:
        return self.random.choice(programs)


Fault = Callable[[Scene], Awaitable[None]]


async def killed(scene: Scene, *programs: Program) -> None:
    for program in programs:
        program.send(signal.SIGKILL)
    await asyncio.sleep(2)


async def ended(scene: Scene, *programs: Program) -> None:
    """SIGTERM, down for a moment, up again."""
    gone = await asyncio.gather(*(program.stop() for program in programs))
    scene.stuck += [program.name for program, stuck in zip(programs, gone, strict=True) if stuck]
    await asyncio.sleep(1)
    for program in programs:
        program.start()


async def stopped(scene: Scene, program: Program, seconds: float) -> None:
    program.send(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    program.send(signal.SIGCONT)


async def worker_killed(scene: Scene) -> None:
    await killed(scene, scene.one(scene.cluster.workers))


async def workers_killed(scene: Scene) -> None:
    await killed(scene, *scene.cluster.workers)


async def worker_ended(scene: Scene) -> None:
    await ended(scene, scene.one(scene.cluster.workers))


async def worker_zombie(scene: Scene) -> None:
    """Stopped until its partitions are another's; then it goes on with what it had in its hands."""
    await stopped(scene, scene.one(scene.cluster.workers), SESSION_SECONDS + 3)


async def worker_wedged(scene: Scene) -> None:
    await stopped(scene, scene.one(scene.cluster.workers), 3)


async def worker_storm(scene: Scene) -> None:
    for _ in range(4):
        scene.one(scene.cluster.workers).send(scene.random.choice((signal.SIGKILL, signal.SIGTERM)))
        await asyncio.sleep(1.5)


async def worker_joins_in_outage(scene: Scene) -> None:
    """A third worker comes and goes while the index is away."""
    scene.cluster.node.mode = "503"
    third = scene.cluster.worker(9)
    third.start()
    await asyncio.sleep(6)
    if await third.stop():
        scene.stuck.append(third.name)
    scene.cluster.node.mode = "pass"


async def listener_killed(scene: Scene) -> None:
    await killed(scene, scene.one(scene.cluster.listeners))


async def listener_ended(scene: Scene) -> None:
    await ended(scene, scene.one(scene.cluster.listeners))


async def listener_wedged(scene: Scene) -> None:
    await stopped(scene, scene.one(scene.cluster.listeners), 3)


async def broker_killed(scene: Scene) -> None:
    await killed(scene, scene.one(scene.cluster.brokers))


async def broker_ended(scene: Scene) -> None:
    await ended(scene, scene.one(scene.cluster.brokers))


async def broker_wedged(scene: Scene) -> None:
    await stopped(scene, scene.one(scene.cluster.brokers), 5)


async def controller_killed(scene: Scene) -> None:
    await killed(scene, await asyncio.to_thread(_controller, scene.cluster))


async def brokers_killed(scene: Scene) -> None:
    await killed(scene, *scene.cluster.brokers)


async def index_killed(scene: Scene) -> None:
    await killed(scene, scene.cluster.elastic)


async def index_wedged(scene: Scene) -> None:
    await stopped(scene, scene.cluster.elastic, 5)


async def _answering(scene: Scene, mode: str, seconds: float, share: float = 1.0) -> None:
    node = scene.cluster.node
    node.mode, node.share, node.delay = mode, share, 1.0
    await asyncio.sleep(seconds)
    node.mode = "pass"


async def index_429(scene: Scene) -> None:
    await _answering(scene, "429", 5, 0.5)


async def index_503(scene: Scene) -> None:
    await _answering(scene, "503", 5)


async def index_answer_lost(scene: Scene) -> None:
    """The write goes through; its answer never comes."""
    await _answering(scene, "after", 4)


async def index_slow(scene: Scene) -> None:
    await _answering(scene, "slow", 5)


async def index_refuses(scene: Scene) -> None:
    """One event in forty has a document that the real node refuses by its strict mapping."""
    await _answering(scene, "refuse", 5)


async def index_half_open(scene: Scene) -> None:
    await _answering(scene, "stall", 5)


async def index_read_only(scene: Scene) -> None:
    def block(value: bool | None) -> None:
        with client() as server:
            server.indices.put_settings(index=DOMAIN.alias, settings={"index.blocks.write": value})

    await asyncio.to_thread(block, True)
    await asyncio.sleep(5)
    await asyncio.to_thread(block, None)


async def kafka_half_open(scene: Scene) -> None:
    link = scene.random.choice(scene.cluster.kafka)
    link.mode = "stall"
    await asyncio.sleep(6)
    link.mode = "pass"
    link.reset()


async def kafka_slow(scene: Scene) -> None:
    for link in scene.cluster.kafka:
        link.mode, link.delay = "slow", 0.1
    await asyncio.sleep(5)
    for link in scene.cluster.kafka:
        link.mode = "pass"


async def kafka_reset(scene: Scene) -> None:
    for _ in range(3):
        for link in scene.cluster.kafka:
            link.reset()
        await asyncio.sleep(1)


async def mllp_half_open(scene: Scene) -> None:
    """Answers that never come: the sender hangs up and sends again."""
    link = scene.random.choice(scene.cluster.mllp)
    link.mode = "stall"
    await asyncio.sleep(8)
    link.mode = "pass"


async def mllp_reset(scene: Scene) -> None:
    for _ in range(4):
        for link in scene.cluster.mllp:
            link.reset()
        await asyncio.sleep(0.7)


async def _locked(scene: Scene, name: str, seconds: float) -> None:
    def lock() -> None:
        with sqlite3.connect(scene.cluster.home / name, timeout=10, isolation_level=None) as db:
            db.execute("BEGIN EXCLUSIVE")
            held.set()
            over.wait(seconds)
            db.execute("ROLLBACK")

    held, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=lock)
    thread.start()
    await asyncio.to_thread(held.wait, 10)
    await asyncio.to_thread(thread.join)


async def key_store_locked(scene: Scene) -> None:
    await _locked(scene, "keys/keystore.sqlite", 8)


async def memory_locked(scene: Scene) -> None:
    await _locked(scene, "seen.sqlite", 5)


async def poison_all(scene: Scene) -> None:
    """Nothing but poison, as after a bad deploy: the workers stop at their limit, and what is left waits."""
    scene.workload.poison = 1.0
    workers = scene.cluster.workers
    deadline = time.monotonic() + 60
    while any(worker.wanted for worker in workers) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    scene.workload.poison = 0.01
    if [worker.name for worker in workers if worker.exits[-1:] != [LIMIT_EXIT]]:
        scene.wrong.append("a worker went on above its dead-letter limit")
    if not await asyncio.to_thread(_waiting):
        scene.wrong.append("the poison was drained into the dead letters")
    # A person has looked, and lets it through.
    for worker in workers:
        await worker.stop()
        worker.environment["WARDSTREAM_DEAD_LETTER_LIMIT"] = "1.0"
        worker.start()
    deadline = time.monotonic() + 45
    while await asyncio.to_thread(_waiting) > 50 and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
    for worker in workers:
        if await worker.stop():
            scene.stuck.append(worker.name)
        del worker.environment["WARDSTREAM_DEAD_LETTER_LIMIT"]
        worker.start()


async def poison_some(scene: Scene) -> None:
    scene.workload.poison = 0.15
    await asyncio.sleep(5)
    scene.workload.poison = 0.01


def _waiting() -> int:
    return sum(one.events for one in lag(DOMAIN.raw.name).values())


def _controller(cluster: Cluster) -> Program:
    """The broker that leads the metadata quorum: whose log last said so, in the highest epoch."""
    return max(cluster.brokers, key=lambda broker: _epoch(broker.log.read_text(errors="replace")))


def _epoch(log: str) -> int:
    """The epoch in which a log last says that it became leader."""
    line = log[log.rfind("Completed transition to Leader") :][:300] if "Completed transition to Leader" in log else ""
    return int(line.split("epoch=")[1].split(",")[0]) if "epoch=" in line else -1


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        worker_killed, workers_killed, worker_ended, worker_zombie, worker_wedged, worker_storm,
        worker_joins_in_outage, listener_killed, listener_ended, listener_wedged, broker_killed, broker_ended,
        broker_wedged, controller_killed, brokers_killed, index_killed, index_wedged, index_429, index_503,
        index_answer_lost, index_slow, index_refuses, index_half_open, index_read_only, kafka_half_open, kafka_slow,
        kafka_reset, mllp_half_open, mllp_reset, key_store_locked, memory_locked, poison_all, poison_some,
    )
}  # fmt: skip
# At once: the second begins while the first is on.
PAIRS = (
    ("index_503", "worker_killed"),
    ("index_answer_lost", "workers_killed"),
    ("index_read_only", "worker_zombie"),
    ("index_killed", "broker_killed"),
    ("kafka_reset", "listener_killed"),
    ("key_store_locked", "worker_ended"),
    ("index_half_open", "worker_ended"),
    ("index_refuses", "worker_killed"),
    ("controller_killed", "worker_storm"),
    ("mllp_reset", "index_slow"),
    ("brokers_killed", "worker_ended"),
    ("memory_locked", "listener_killed"),
)
RARE = ("poison_all",)  # once a run: it takes a minute


def schedule(seed: int, count: int) -> list[tuple[str, ...]]:
    """So many steps: every fault and every pair in a seeded order, and again in another."""
    shuffler = random.Random(seed)
    made: list[tuple[str, ...]] = []
    while len(made) < count:
        some: list[tuple[str, ...]] = [(name,) for name in FAULTS if not made or name not in RARE] + list(PAIRS)
        shuffler.shuffle(some)
        made += some
    return made[:count]


async def run(scene: Scene, names: tuple[str, ...]) -> None:
    """One step; healed when this returns."""
    await asyncio.gather(*(_run(scene, name, after * 1.0) for after, name in enumerate(names)))


async def _run(scene: Scene, name: str, after: float) -> None:
    await asyncio.sleep(after)
    await FAULTS[name](scene)
