"""The faults, one row each: what is done, undone, and what shows that it was. A step is one fault, or two at once."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from cluster import LIMIT_EXIT, Cluster, Program, failures
from confluent_kafka.admin import AdminClient
from workload import NAME, Message, Workload

from infra.elastic import client
from infra.kafka import connection, lag
from infra.settings import settings
from schemas.registry import DOMAINS

DOMAIN = DOMAINS["ehr"]
SESSION_SECONDS = 10  # of the consumer group: who is silent for longer has lost its partitions
DOWN_SECONDS = 12.0  # all brokers


@dataclass(frozen=True, slots=True)
class Look:
    """A person who asked for something in clear; `shown` are the documents that the answer names."""

    event_id: str
    field: str
    purpose: str
    shown: list[str]


@dataclass(frozen=True, slots=True)
class Done:
    """One fault of a step, and what it did."""

    step: int
    fault: str
    did: dict[str, int]

    def idle(self) -> bool:
        """Whether it had not the effect that it is for: then a green run says nothing of it."""
        _, effect = FAULTS[self.fault]
        return not any(count and re.fullmatch(effect, name) for name, count in self.did.items())


@dataclass(slots=True)
class Scene:
    """What a fault may touch."""

    cluster: Cluster
    workload: Workload
    seed: int
    random: random.Random = field(default_factory=random.Random)  # of one fault of one step
    did: Counter[str] = field(default_factory=Counter)  # what neither processes nor proxies can count
    done: list[Done] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def one(self, programs: list[Program]) -> Program:
        return self.random.choice(programs)

    def so_far(self) -> Counter[str]:
        poison = sum(one.kind == "poison" for one in self.workload.messages)
        return self.cluster.did() + self.did + Counter(poison=poison)


Fault = Callable[[Scene], Awaitable[None]]


async def killed(scene: Scene, *programs: Program) -> None:
    for program in programs:
        program.send(signal.SIGKILL)
    await asyncio.sleep(2)


async def ended(scene: Scene, *programs: Program) -> None:
    """SIGTERM, down for a moment, up again."""
    await asyncio.gather(*(program.stop() for program in programs))
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
    await third.stop()
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


async def brokers_down(scene: Scene) -> None:
    """All of them, for longer than any of ours may take to end."""
    for broker in scene.cluster.brokers:
        broker.wanted = False
        broker.send(signal.SIGKILL)
    await asyncio.sleep(DOWN_SECONDS)
    for broker in scene.cluster.brokers:
        broker.start()


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
    """The write goes through; its answer never comes, and the client's patience ends first."""
    await _answering(scene, "after", 6)


async def index_slow(scene: Scene) -> None:
    await _answering(scene, "slow", 5)


async def index_refuses(scene: Scene) -> None:
    """One event in forty has a document that the real node refuses by its strict mapping."""
    await _answering(scene, "refuse", 5)


async def index_half_open(scene: Scene) -> None:
    """Nothing moves until the client has gone; then what it had sent is written after all."""
    await _answering(scene, "stall", 6)


async def index_read_only(scene: Scene) -> None:
    def block(value: bool | None) -> None:
        with client() as server:
            server.indices.put_settings(index=DOMAIN.alias, settings={"index.blocks.write": value})

    await asyncio.to_thread(block, True)
    await asyncio.sleep(5)
    await asyncio.to_thread(block, None)


async def kafka_half_open(scene: Scene) -> None:
    """For longer than a producer tries (infra/kafka.py DELIVERY_SECONDS): what is answered then is no AA."""
    link = scene.cluster.kafka[scene.random.choice(await asyncio.to_thread(_leaders))]
    async with _felt(scene, "broker_unavailable"):
        link.mode = "stall"
        await asyncio.sleep(18)
        link.mode = "pass"
        link.reset()


@asynccontextmanager
async def _felt(scene: Scene, reason: str) -> AsyncIterator[None]:
    """Count how often ours failed for this reason meanwhile. Their metrics tell, since a peer may have hung up by then;
    those of a process that is new begin at nothing."""
    before = await scene.cluster.pages()
    yield
    for name, page in (await scene.cluster.pages()).items():
        now, then = failures(page, reason), failures(before.get(name, b""), reason)
        scene.did[reason] += int(now - then if now >= then else now)


def _leaders() -> list[int]:
    """Brokers that lead a partition of the raw topic; one that came back lately may lead none."""
    partitions = AdminClient(connection(settings())).list_topics(DOMAIN.raw.name, timeout=10).topics[DOMAIN.raw.name]
    return sorted({one.leader for one in partitions.partitions.values() if one.leader >= 0})


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
    """For longer than anybody waits (infra/keystore.py BUSY_SECONDS). WAL lets all read meanwhile; new persons wait."""
    async with _felt(scene, "key_store_busy"):
        await _locked(scene, "keys/keystore.sqlite", 9)


async def memory_locked(scene: Scene) -> None:
    before = len(scene.workload.answered)
    await _locked(scene, "seen.sqlite", 5)
    scene.did["not remembered"] += len(scene.workload.answered) - before


async def person_looks(scene: Scene) -> None:
    """Somebody asks for a name and for a dead letter, with a purpose; of each the audit must tell in the end."""
    old = scene.workload.messages[: len(scene.workload.messages) // 2]
    fine = [one for one in old if one.answer == "AA" and one.event_id not in scene.cluster.node.intruded]
    good = [one for one in fine if one.kind in ("move", "result")]
    await _look(scene, scene.random.choice(good), "name", "TREAT", "reveal", "--field", "name")
    if poison := [one for one in fine if one.kind == "poison"]:
        await _look(scene, scene.random.choice(poison), "message", "HSYSADMIN", "dlq", "show")


async def _look(scene: Scene, one: Message, field: str, purpose: str, *command: str) -> None:
    given = await scene.cluster.command(*command, one.event_id, "--purpose", purpose, "--json")
    shown: list[str] = []
    if given.returncode == 0:
        scene.did["person shown"] += 1
        answer = json.loads(given.stdout)
        rows = answer if isinstance(answer, list) else [{"id": f"{DOMAIN.name} dead letter {one.event_id}"}]
        shown = [row["id"] for row in rows]
        if f"{NAME}{one.patient}" not in given.stdout:
            scene.wrong.append(f"of {one.control} somebody else was shown")
    scene.looks.append(Look(one.event_id, field, purpose, shown))


async def poison_all(scene: Scene) -> None:
    """Nothing but poison, as after a bad deploy: the workers stop at their limit, and what is left waits."""
    scene.workload.poison = 1.0
    workers = scene.cluster.workers
    await _at_their_limit(scene)
    scene.workload.poison = 0.01
    # A person has looked, and lets it through.
    for worker in workers:
        await worker.stop()
        worker.environment["WARDSTREAM_DEAD_LETTER_LIMIT"] = "1.0"
        worker.start()
    deadline = time.monotonic() + 45
    while await asyncio.to_thread(_waiting) > 50 and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
    for worker in workers:
        await worker.stop()
        del worker.environment["WARDSTREAM_DEAD_LETTER_LIMIT"]
        worker.start()


async def index_refuses_all(scene: Scene) -> None:
    """A deploy whose documents the index does not take: the workers stop, and what is left waits for a better one."""
    scene.cluster.node.mode = "refuse_all"
    await _at_their_limit(scene)
    scene.cluster.node.mode = "pass"
    for worker in scene.cluster.workers:
        worker.start()


async def _at_their_limit(scene: Scene) -> None:
    """Wait until the workers have stopped at the dead-letter limit, with events left that nobody drains."""
    workers = scene.cluster.workers
    deadline = time.monotonic() + 60
    while any(worker.wanted for worker in workers) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    if [worker.name for worker in workers if worker.exits[-1:] != [LIMIT_EXIT]]:
        scene.wrong.append("a worker went on above its dead-letter limit")
    if not await asyncio.to_thread(_waiting):
        scene.wrong.append("what cannot go on was drained into the dead letters")


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


# Name: the fault, and what of all that was counted shows that it was one.
FAULTS: dict[str, tuple[Fault, str]] = {
    fault.__name__: (fault, effect)
    for fault, effect in (
        (worker_killed, "worker killed"),
        (workers_killed, "worker killed"),
        (worker_ended, "worker ended"),
        (worker_zombie, "worker stopped"),
        (worker_wedged, "worker stopped"),
        (worker_storm, "worker (killed|ended)"),
        (worker_joins_in_outage, "worker ended"),
        (listener_killed, "listener killed"),
        (listener_ended, "listener ended"),
        (listener_wedged, "listener stopped"),
        (broker_killed, "broker killed"),
        (broker_ended, "broker (killed|ended)"),  # a server may need more than SIGTERM
        (broker_wedged, "broker stopped"),
        (controller_killed, "broker killed"),
        (brokers_killed, "broker killed"),
        (brokers_down, "broker killed"),
        (index_killed, "elasticsearch killed"),
        (index_wedged, "elasticsearch stopped"),
        (index_429, "index 429"),
        (index_503, "index 503"),
        (index_answer_lost, "index after given up"),
        (index_slow, "index slow"),
        (index_refuses, "index refuse"),
        (index_half_open, "index stall given up"),
        (index_read_only, "index blocked"),
        (kafka_half_open, "broker_unavailable"),
        (kafka_slow, "kafka slowed"),
        (kafka_reset, "kafka reset"),
        (mllp_half_open, "mllp stalled"),
        (mllp_reset, "mllp reset"),
        (key_store_locked, "key_store_busy"),
        (memory_locked, "not remembered"),
        (poison_all, "worker at its limit"),
        (index_refuses_all, "worker at its limit"),
        (poison_some, "poison"),
        (person_looks, "person shown"),
    )
}
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
    ("key_store_locked", "listener_ended"),
    ("brokers_down", "listener_ended"),
    ("brokers_down", "worker_ended"),
    ("mllp_reset", "index_slow"),
    ("index_slow", "person_looks"),
    ("brokers_killed", "worker_ended"),
    ("memory_locked", "listener_killed"),
)
RARE = ("poison_all", "index_refuses_all")  # once a run: each takes a while


def schedule(seed: int, count: int) -> list[tuple[str, ...]]:
    """So many steps: every fault and every pair in a seeded order, and again in another."""
    shuffler = random.Random(seed)
    made: list[tuple[str, ...]] = []
    while len(made) < count:
        some: list[tuple[str, ...]] = [(name,) for name in FAULTS if not made or name not in RARE] + list(PAIRS)
        shuffler.shuffle(some)
        made += some
    return made[:count]


async def run(scene: Scene, step: int, names: tuple[str, ...]) -> None:
    """One step; healed when this returns."""
    await asyncio.gather(*(_run(scene, step, name, after * 1.0) for after, name in enumerate(names)))


async def _run(scene: Scene, step: int, name: str, after: float) -> None:
    await asyncio.sleep(after)
    before = scene.so_far()
    fault, _ = FAULTS[name]
    await fault(replace(scene, random=random.Random(f"{scene.seed}-{step}-{name}")))
    scene.done.append(Done(step, name, dict(scene.so_far() - before)))
