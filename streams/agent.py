"""The one impure loop: takes batches from Kafka, makes every effect of them durable, then acknowledges.

The Faust pattern that loses nothing: a stream without acks, acknowledge each event in offset order after its batch
is durable, crash on any error and let the supervisor start a new process. Reprocessing is harmless: documents are
written by event id, entities fold a repeated event to what they are, letters and sealed records are the same again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, TypeVar

import mode

from infra import metrics
from infra.elastic import Index, Write, async_client
from infra.errors import BadMessage, DeadLetterLimit, ErasedPerson, KeyStoreBusy, ObjectsAway, WardstreamError
from infra.health import Pulse, health
from infra.kafka import Outgoing, Producer, PublishFailed
from infra.keystore import KeyStore
from infra.objects import Objects
from infra.retry import Target
from infra.settings import settings
from schemas import outcome_charts, sites
from schemas.document import of_persons
from schemas.envelope import Envelope
from schemas.peers import Peers
from schemas.registry import Domain
from streams.app import app
from streams.batches import take
from streams.gapless import Gapless
from streams.models import Models
from streams.occupancy import Sites
from streams.pixels import Pixels
from streams.planning import Planning
from streams.process import Batch, Incoming, Processor, letter
from streams.scoring import Scorer
from streams.stages import STAGES
from streams.state import Indexed, advance, known
from streams.studies import Studies
from streams.surveillance import Surveillance

LIMIT_WINDOW = 500
FOLDED = 4  # batches that may wait for their scores
T = TypeVar("T")


class Agent:
    """One domain's effects on the world."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        keyring, self._keys = KeyStore.local()
        peers = Peers.load(settings().peers)
        self._processor = Processor(domain, STAGES[domain.name], peers, keyring, self._keys)
        self._index = Index(async_client(), domain.alias)
        self._sites = Sites(self._index, self._keys) if STAGES[domain.name].follows_sites else None
        self._planning = None
        if self._sites is not None and settings().planning:
            documents = Index(async_client(), sites.ALIAS)
            self._planning = Planning(self._sites, self._keys, documents, self._send)
        self._surveillance = None
        if STAGES[domain.name].follows_outcomes and settings().surveillance:
            kept = Index(async_client(), outcome_charts.ALIAS)
            self._surveillance = Surveillance(self._index, kept, self._keys, Models.local(), self._send)
        self._pixels = self._studies = None
        if STAGES[domain.name].has_images:
            self._pixels = Pixels(self._processor) if settings().images else None
            self._studies = Studies(self._index, self._keys, self._send)
        follower = self._sites or self._surveillance
        self._entities = Indexed(self._index, told=follower.take) if follower else Indexed(self._index)
        self._scorer = Scorer(self._processor, Models.local(), self._index.get)
        self._broker, self._key_store, self._objects = Target("kafka"), Target("keystore"), Target("objects")
        self._producer = Producer(linger_ms=5)
        self._received: deque[float] = deque()  # of each batch under way: when its oldest event came in
        self._pulse = Pulse(f"agent {domain.name}")
        health.live[domain.name] = self._trouble
        health.ready[domain.name] = self._away
        self._refused: deque[bool] = deque(maxlen=LIMIT_WINDOW)
        self._epoch = self._keys.epoch()
        self._keys.join(f"worker {domain.name}")

    async def run(self, batches: AsyncIterator[list[Any]]) -> None:
        """Four stages, each at its own batch: read (in a thread), index documents, fold entities, all the rest.

        Raises (an ExceptionGroup) as soon as a stage fails, whether or not another message comes; what is not durable
        by then was not acknowledged.
        """
        read: asyncio.Queue[tuple[list[Any], Batch]] = asyncio.Queue(1)
        indexed: asyncio.Queue[tuple[list[Any], Batch]] = asyncio.Queue(1)
        folded: asyncio.Queue[tuple[list[Any], Batch]] = asyncio.Queue(FOLDED)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._index_each(read, indexed))
                group.create_task(self._fold_each(indexed, folded))
                group.create_task(self._finish_each(folded))
                if self._planning is not None:
                    group.create_task(self._planning.run())
                if self._surveillance is not None:
                    group.create_task(self._surveillance.run(self._entities))
                if self._studies is not None:
                    group.create_task(self._studies.run())
                async for events in batches:
                    await read.put((events, await self._read([_incoming(event.message) for event in events])))
        except BaseExceptionGroup as failed:  # one reason to end is enough, and tells its exit code
            raise failed.exceptions[0] from None
        finally:
            self._scorer.close()
            if self._pixels is not None:
                self._pixels.close()

    async def _index_each(
        self, read: asyncio.Queue[tuple[list[Any], Batch]], indexed: asyncio.Queue[tuple[list[Any], Batch]]
    ) -> None:
        while True:
            events, batch = await read.get()
            await self.index(batch)
            self._stop_at_limit(batch)  # before a letter is sent
            self._pulse.moved()
            await indexed.put((events, batch))

    async def _fold_each(
        self, indexed: asyncio.Queue[tuple[list[Any], Batch]], folded: asyncio.Queue[tuple[list[Any], Batch]]
    ) -> None:
        while True:
            events, batch = await indexed.get()
            await self.fold(batch)
            self._pulse.moved()
            await folded.put((events, batch))

    async def _finish_each(self, folded: asyncio.Queue[tuple[list[Any], Batch]]) -> None:
        while True:
            taken = [await folded.get()]
            while not folded.empty():  # a request for scores costs much the same for one batch as for four
                taken.append(folded.get_nowait())
            await self.score([batch for _, batch in taken])
            for events, batch in taken:
                await self.finish(batch)
                for event in events:  # in offset order: an acknowledgement stands for everything before it
                    event.ack()
                self._pulse.moved()
                self._received.popleft()

    def oldest_seconds(self) -> float:
        """Age of the oldest event in hand; 0 without one."""
        return max(0.0, time.time() - min(self._received)) if self._received else 0.0

    def waits_for(self, events: int) -> None:
        """Tell, once a second or so, how many events are on the topic that the agent was not given yet."""
        self._pulse.waits_for(events)

    async def watch_sites(self, partitions: Collection[int]) -> None:
        """Once in a while, tell which partitions are this worker's: gauges of sites follow."""
        if self._sites is not None:
            await self._sites.watch(partitions)
        if self._surveillance is not None:
            await self._surveillance.watch(partitions)

    def lost(self) -> None:
        """Partitions were revoked: some may be another worker's for a moment, and their sites change meanwhile."""
        if self._sites is not None:
            self._sites.forget()
        if self._surveillance is not None:
            self._surveillance.lost()
        if self._studies is not None:
            self._studies.forget()

    def _trouble(self) -> str:
        return self._pulse.trouble(bool(self._received), max(target.moved for target in self._targets()))

    def _away(self) -> str:
        return ", ".join(f"{target.name} counts as away" for target in self._targets() if target.open)

    def _targets(self) -> tuple[Target, ...]:
        return self._index.target, self._broker, self._key_store

    async def _read(self, incoming: Sequence[Incoming]) -> Batch:
        """`read` in a thread, waiting for the key store where somebody holds it."""
        self._pulse.moved()
        self._received.append(min(message.timestamp for message in incoming))
        return await self._until_done(self._key_store, lambda: asyncio.to_thread(self.read, incoming), KeyStoreBusy)

    async def _send(self, messages: Sequence[Outgoing]) -> None:
        await self._until_done(self._broker, lambda: self._producer.send(messages), PublishFailed)

    async def _until_done(
        self, target: Target, attempt: Callable[[], Awaitable[T]], passing: type[WardstreamError]
    ) -> T:
        """Try for as long as it takes: the partition waits, and nothing of it was acknowledged."""
        while True:
            await target.admitted()
            try:
                done = await attempt()
            except passing as error:
                await asyncio.sleep(target.failed(error.reason))
            else:
                target.succeeded()
                return done

    def read(self, incoming: Sequence[Incoming]) -> Batch:
        with metrics.READ_SECONDS.labels(self._domain.name).time():
            return self._processor.read(incoming)

    async def index(self, batch: Batch) -> None:
        """Keep sealed records, then index all documents but those of events that wait for a name: `fold` does those."""
        await self._send(self._processor.sealed(batch))
        await self._write(batch)

    async def _write(self, batch: Batch) -> None:
        """Index all documents; an event whose document is refused becomes a letter, whole."""
        writes = [write for event in batch.ready for write in event.writes]
        with metrics.INDEX_SECONDS.labels(self._domain.name).time():
            refused = await self._index.bulk(writes)
        if not refused:
            return
        kept = []
        for event in batch.ready:
            why = next((refused[write.id] for write in event.writes if write.id in refused), None)
            if why is None:
                kept.append(event)
            else:
                await self._index.remove([write.id for write in event.writes])
                batch.unindexed.append(event)
                batch.letters.append((event.incoming, letter(event.incoming, BadMessage("index_refused", why))))
        batch.ready = kept

    async def fold(self, batch: Batch) -> None:
        """Bring entities forward and merge: one batch after the other, as each patient's events came.

        Then whoever is named in this batch or was before is known: texts that came alone lose those words, and are
        indexed.
        """
        if self._sites is not None:
            followed = self._sites
            await self._until_done(self._key_store, lambda: followed.follow(batch.ready), KeyStoreBusy)
        if self._surveillance is not None:
            await self._surveillance.follow(batch.ready)
        if self._studies is not None:
            self._studies.follow(batch.ready)
        await advance(self._entities, self._processor.folds(batch.ready))
        await self._merge(batch)
        if not batch.unnamed:
            return
        look_up = partial(asyncio.to_thread, self._processor.families, batch)
        families = await self._until_done(self._key_store, look_up, KeyStoreBusy)
        entities = await known(families, self._index)
        read = partial(asyncio.to_thread, self._processor.name, batch, families, entities)
        named = await self._until_done(self._key_store, read, KeyStoreBusy)
        await self._write(named)
        await advance(self._entities, self._processor.folds(named.ready))
        batch.take_in(named)

    async def finish(self, batch: Batch) -> None:
        """Send: one batch after the other. Then everything of the batch is durable.

        Last, somebody may have been erased since the batch was read, by an erasure that found nothing of it yet: what
        was written is taken back. One who is killed here has not acknowledged: the event is read again, and dropped.
        """
        await self._send(self._processor.outgoing(batch))
        await self._until_done(self._key_store, lambda: self._take_back(batch), KeyStoreBusy)
        self._count(batch)

    async def score(self, batches: Sequence[Batch]) -> None:
        """After entities and merges, since a score looks back at them. One that the index refuses is our fault."""
        ready = [event for batch in batches for event in batch.ready]
        writes: list[Write] = []
        if settings().scoring:
            writes += await self._until_done(self._key_store, lambda: self._scorer.writes(ready), KeyStoreBusy)
        if self._pixels is not None:
            writes += await self._pixels.writes(ready)
        if refused := await self._index.bulk(writes):
            raise WardstreamError(f"the index refuses {len(refused)} scores: {sorted(set(refused.values()))}")
        metrics.DOCUMENTS.labels(self._domain.name).inc(len(writes))

    async def _take_back(self, batch: Batch) -> None:
        if (epoch := await asyncio.to_thread(self._keys.epoch)) != self._epoch:
            self._epoch = epoch
            self._entities.forget()
            for follower in (self._sites, self._surveillance, self._studies):
                if follower is not None:
                    follower.forget()
        if epoch == batch.epoch and not any(why == ErasedPerson.reason for _, why in batch.dropped):
            return
        keys = await asyncio.to_thread(self._keys.of_tokens, batch.tokens)
        gone = {token for token, key in keys.items() if key is None}
        if gone:
            refs = await asyncio.to_thread(self._keys.refs_of_tokens, gone)
            await self._index.remove_of(of_persons(refs))
        await self._remove_objects(batch, gone)

    async def _remove_objects(self, batch: Batch, gone: AbstractSet[str]) -> None:
        """The objects of whoever was erased, of what was dropped for that as well."""
        read = (event.envelope for event in (*batch.ready, *batch.unindexed))
        dropped = (Envelope.read(one.headers) for one, why in batch.dropped if why == ErasedPerson.reason)
        names = {one.object for one in read if gone & {*one.subjects}} | {one.object for one in dropped}
        if names := names - {""}:
            await self._until_done(self._objects, lambda: asyncio.to_thread(Objects.local().remove, names), ObjectsAway)

    async def _merge(self, batch: Batch) -> None:
        for merge in self._processor.merges(batch.ready):
            alias = partial(asyncio.to_thread, self._keys.alias, *merge)
            if await self._until_done(self._key_store, alias, KeyStoreBusy):
                metrics.MERGES.labels(self._domain.name).inc()

    def _stop_at_limit(self, batch: Batch) -> None:
        self._refused.extend(batch.refusals())
        share = sum(self._refused) / LIMIT_WINDOW
        if share > settings().dead_letter_limit:
            reasons = sorted({reason.reason for _, reason in batch.letters})
            raise DeadLetterLimit(f"{share:.0%} of the last {LIMIT_WINDOW} messages were refused: {reasons}")

    def _count(self, batch: Batch) -> None:
        name, now = self._domain.name, time.time()
        for event in batch.ready:
            metrics.EVENT_SECONDS.labels(name).observe(max(0.0, now - event.envelope.received().timestamp()))
            for signal in event.signals:
                metrics.SIGNALS.labels(name, signal.name).inc()
        metrics.PROCESSED.labels(name, "indexed", "").inc(len(batch.ready))
        metrics.DOCUMENTS.labels(name).inc(sum(len(event.writes) for event in batch.ready))
        for _, reason in batch.letters:
            metrics.PROCESSED.labels(name, "dead_lettered", reason.reason).inc()
        for _, why in batch.dropped:
            metrics.PROCESSED.labels(name, "dropped", why).inc()


AGENTS: dict[str, Agent] = {}
GAPLESS: dict[str, Gapless] = {}
failures: list[WardstreamError] = []  # what ended this process: its exit code tells a supervisor whether to restart


def batches(domain: Domain, stream: Any) -> AsyncIterator[list[Any]]:
    """What a stream brings, for us to acknowledge, with no message left out."""

    async def earliest(place: Any) -> int:
        return int((await app.consumer.earliest_offsets(place))[place])

    of = settings()
    gapless = GAPLESS[domain.name] = Gapless(app.consumer._committed_offset.get, earliest)
    events = aiter(stream.noack().events())
    within = max(of.worker_linger_seconds, domain.refresh_seconds / 10)
    return gapless.check(take(events, of.worker_batch, of.worker_bytes, within))


def register(domain: Domain) -> None:
    """Give a domain its Faust agent."""
    topic = app.topic(domain.raw.name, key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw")

    async def consume(stream: Any) -> None:
        agent = AGENTS[domain.name] = Agent(domain)
        try:
            await agent.run(batches(domain, stream))
        except WardstreamError as error:
            failures.append(error)
            raise

    health.ready[domain.name] = lambda: "the agent has not started"  # until it puts its own here
    app.agent(topic, name=domain.name, concurrency=1, supervisor_strategy=mode.CrashingSupervisor)(consume)


def _incoming(message: Any) -> Incoming:
    headers = list(message.headers or ())
    value, at = message.value or b"", message.timestamp
    return Incoming(message.topic, message.partition, message.offset, message.key, value, headers, at)
