"""The same job under other loops: `python tests/bench/peers.py aiokafka|quix`.

Both run the very stages of our agent (reading, sealing, documents, entities, sealed records, letters), and commit what
is durable. The bare aiokafka loop has our three stages side by side too, so that Faust alone is the difference; Quix
Streams takes batches one after the other, as its sinks do.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from infra.kafka import GROUP
from infra.settings import settings
from schemas.registry import DOMAINS
from streams.process import Incoming

DOMAIN = DOMAINS["ehr"]
TOPIC = DOMAIN.raw.name


def group(worker: str) -> str:
    """Consumer group of a kind of worker: their protocols cannot share one."""
    return GROUP if worker == "ours" else f"{GROUP}-{worker}"


@dataclass(slots=True)
class Event:
    """What `Agent.run` wants of an event: its message, and a place to acknowledge it."""

    message: Any
    done: dict[Any, int]

    def ack(self) -> None:
        self.done[self.message.partition] = self.message.offset + 1


@dataclass(slots=True)
class Message:
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Any
    timestamp: float


def _message(one: Any) -> Message:
    return Message(TOPIC, one.partition, one.offset, one.key, one.value, one.headers, one.timestamp / 1000)


def _incoming(batch: Any, one: Any) -> Incoming:
    return Incoming(batch.topic, batch.partition, one.offset, one.key, one.value, list(one.headers or ()))


async def aiokafka() -> None:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(
        TOPIC, bootstrap_servers=settings().kafka_servers(), group_id=group("aiokafka"), enable_auto_commit=False,
        auto_offset_reset="earliest", max_partition_fetch_bytes=4 * 1024 * 1024,
    )  # fmt: skip
    await consumer.start()
    done: dict[int, int] = {}

    async def batches() -> AsyncIterator[list[Event]]:
        committed = time.monotonic()
        while True:
            got = await consumer.getmany(timeout_ms=50, max_records=settings().worker_batch)
            if events := [Event(_message(one), done) for some in got.values() for one in some]:
                yield events
            if done and time.monotonic() - committed > 0.5:
                await consumer.commit({TopicPartition(TOPIC, number): offset for number, offset in done.items()})
                done.clear()
                committed = time.monotonic()

    from streams.agent import Agent

    await Agent(DOMAIN).run(batches())


def quix() -> None:
    from quixstreams import Application
    from quixstreams.sinks import BatchingSink, SinkBatch

    from streams.agent import Agent

    loop = asyncio.new_event_loop()

    async def made() -> Agent:
        return Agent(DOMAIN)

    agent = loop.run_until_complete(made())

    async def handle(incoming: list[Incoming]) -> None:
        batch = await agent._read(incoming)
        await agent.index(batch)
        await agent.fold(batch)
        await agent.score([batch])
        await agent.finish(batch)
        agent._received.popleft()

    class Sink(BatchingSink):
        def write(self, batch: SinkBatch) -> None:
            items = list(batch)
            for at in range(0, len(items), settings().worker_batch):
                some = items[at : at + settings().worker_batch]
                loop.run_until_complete(handle([_incoming(batch, one) for one in some]))

    app = Application(
        broker_address=settings().kafka_servers(), consumer_group=group("quix"), auto_offset_reset="earliest",
        commit_interval=0.2, commit_every=settings().worker_batch, loglevel="WARNING",
    )  # fmt: skip
    topic = app.topic(TOPIC, value_deserializer="bytes", key_deserializer="bytes")
    app.dataframe(topic).sink(Sink())
    app.run()


if __name__ == "__main__":
    if sys.argv[1] == "quix":
        quix()
    else:
        import uvloop

        uvloop.run(aiokafka())
