"""A worker under one of Faust's own idioms, over the very stages that ours has; if asked, with one exception.

    python tests/faults/idioms.py IDIOM [--exception]

ARCHITECTURE.md says what each loses; `run.py --idioms` shows it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import faust
import mode
from faust.transport.drivers import aiokafka

from infra.settings import settings
from schemas.registry import DOMAINS
from streams.agent import Agent, _incoming, batches
from streams.app import app

DOMAIN = DOMAINS["ehr"]
BEFORE = 200  # messages that go well before the exception
BATCH = 100
BUFFER = 4096  # Faust's own default; ours holds less, and so loses less of it


class Planted(Exception):
    """Once in this home, and never again."""


def planted(agent: Agent, idiom: str) -> None:
    """Make the agent's index stage fail once, with messages in flight."""
    index, seen = agent.index, 0
    flag = settings().home / f"planted-{idiom}"

    async def fail_once(batch: Any) -> None:
        nonlocal seen
        seen += len(batch.ready)
        if seen > BEFORE and not flag.exists():
            flag.touch()
            raise Planted
        await index(batch)

    agent.index = fail_once  # type: ignore[method-assign]


async def handle(agent: Agent, events: list[Any]) -> None:
    batch = await asyncio.to_thread(agent.read, [_incoming(event.message) for event in events])
    await agent.index(batch)
    await agent.fold(batch)
    await agent.finish(batch)


async def each(agent: Agent, stream: Any) -> None:
    async for event in stream.events():
        await handle(agent, [event])


async def take(agent: Agent, stream: Any) -> None:
    async for events in stream.take_events(BATCH, within=0.5):
        await handle(agent, events)


async def noack_take(agent: Agent, stream: Any) -> None:
    async for events in stream.noack_take(BATCH, within=0.5):
        await handle(agent, events)
        for event in events:
            event.ack()


async def unmended(agent: Agent, stream: Any) -> None:
    """Our pattern on Faust's own consumer, which does not go back where nothing was committed yet."""
    await agent.run(stream.noack().noack_take(BATCH, within=0.5))


async def ours(agent: Agent, stream: Any) -> None:
    await agent.run(batches(DOMAIN, stream))


IDIOMS = {one.__name__: one for one in (each, take, noack_take, unmended, ours)}


def main(idiom: str, exception: bool) -> None:
    if idiom != "ours":
        aiokafka.Transport.Consumer = aiokafka.Consumer
        app.conf.stream_buffer_maxsize = BUFFER
    topic = app.topic(DOMAIN.raw.name, key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw")

    async def consume(stream: Any) -> None:
        agent = Agent(DOMAIN)
        if exception:
            planted(agent, idiom)
        await IDIOMS[idiom](agent, stream)

    strategy = {"supervisor_strategy": mode.CrashingSupervisor} if idiom in ("ours", "unmended") else {}
    app.agent(topic, name=DOMAIN.name, concurrency=1, **strategy)(consume)
    faust.Worker(app, loglevel="WARNING", redirect_stdouts=False, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main(sys.argv[1], "--exception" in sys.argv)
