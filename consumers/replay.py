"""Rebuild an index beside the live one from the sealed topic, then move the alias without a missing search result.

The order makes it safe, with workers writing all the while:

1. An agent keeps an event's sealed record before it indexes anything of it. So whatever can be found is in the topic.
2. The new index is filled until it has nearly caught up.
3. The live index is blocked for writing. Elasticsearch answers once no write is under way any more; agents wait, as
   in any outage, and nothing is acknowledged.
4. The rest of the topic is read: now the new index has everything that the live one has. It is refreshed.
5. The alias moves, in one step. The agents' waiting writes find the new index behind it; an entity that was read from
   the old one cannot be written there (it names the index it was read from), so it is read and folded again.

The partitions are read as one, in the order in which records were sealed: the score of a patient who was merged looks
at what lies in two of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from confluent_kafka import KafkaException
from elasticsearch import ApiError, AsyncElasticsearch, ConnectionTimeout
from elasticsearch import ConnectionError as ConnectionLost

from infra.elastic import SETTINGS, Index, async_client
from infra.errors import BadMessage, StackDown, UsageError
from infra.kafka import OrderedReader, Producer, read_whole
from infra.keystore import KeyStore
from infra.settings import settings
from schemas.document import of_persons
from schemas.envelope import Envelope
from schemas.peers import Peers
from schemas.registry import Domain
from schemas.similar import ALIAS
from streams.models import Models
from streams.pixels import Pixels
from streams.process import Batch, Incoming, Processor
from streams.scoring import Scorer
from streams.stages import STAGES
from streams.state import Indexed, advance, known

BATCH = 500
RETRIES = 5
SETTLE_SECONDS = 300.0  # patience for a server that has gone away while an index is blocked
NAMED = 20  # records that could not be rebuilt and are named
NEAR = 200  # records behind which the live index is blocked: well under a second of work


@dataclass(slots=True)
class Rebuilt:
    """What became of the sealed records. `left_out`: not rebuilt, by reason; `erased` is as it must be."""

    records: int = 0
    documents: int = 0
    entities: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)  # event ids of the first that could not be rebuilt
    swapped: bool = False
    blocked_seconds: float = 0.0  # how long the agents had to wait

    def complete(self) -> bool:
        return not set(self.left_out) - {"erased", "outside"}


@dataclass(frozen=True, slots=True)
class Window:
    """Which records, by time of reception: from `since`, before `until`; None is no bound."""

    since: datetime | None = None
    until: datetime | None = None

    @property
    def whole(self) -> bool:
        return self.since is None and self.until is None

    def holds(self, message: Incoming) -> bool:
        if self.whole:
            return True
        try:
            at = Envelope.read(message.headers).received()
        except BadMessage:
            return True  # counted under its reason
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


async def rebuild(of: Domain, into: str, window: Window, on_progress: Callable[[int], None]) -> Rebuilt:
    """Fill `into`, and move the alias to it when the whole topic was asked for and all of it could be rebuilt.

    However it ends, the live index takes writes again, and a half-filled `into` is gone. Raises UsageError where
    `into` is there already or the live index is blocked, StackDown where a server is away or goes away.
    """
    server = async_client(RETRIES)
    try:
        work = _Rebuild(of, server, into, window, on_progress)
        try:
            await _look(server, of, into)
            try:
                await _create(server, of, into)
                while await work.catch_up() > NEAR:
                    pass
                if window.whole and work.done.complete():
                    await _swap(server, of, into, work)
                else:
                    await server.indices.refresh(index=into)
            except UsageError:  # not ours to delete
                raise
            except BaseException:
                await _discard(server, of, into)
                raise
        finally:
            work.close()
        return work.done
    except (ConnectionLost, ConnectionTimeout):
        raise StackDown("Elasticsearch does not answer") from None
    except ApiError as error:
        raise StackDown(f"Elasticsearch answers {error.status_code}") from None
    except KafkaException as error:
        raise StackDown(f"Kafka: {error.args[0].name()}") from None
    finally:
        await server.close()


@dataclass(slots=True)
class Derived:
    """What came of records that were read for what follows from them. `left_out`: records, by reason."""

    records: int = 0
    events: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def complete(self) -> bool:
        return not set(self.left_out) - {"erased", "outside"}


async def derive(of: Domain, window: Window, on_progress: Callable[[int], None]) -> Derived:
    """Send again, to the domains that they are of, the events that follow from sealed records; no index is made.

    For records that were read before anything followed from them. An event's id is made of its record's: one that was
    sent before changes nothing. Raises StackDown and PublishFailed; what was sent by then stays.
    """
    keyring, keys = KeyStore.local()
    processor = Processor(of, STAGES[of.name], Peers.load(settings().peers), keyring, keys)
    removed, done = _removed(of), Derived()
    server, producer, reader = async_client(RETRIES), Producer(), OrderedReader(of.sealed.name)
    try:
        messages = reader.to_end()
        while some := await asyncio.to_thread(lambda: list(islice(messages, BATCH))):
            standing = [one for one in _incoming(some) if one.value and not _is_removed(one, removed)]
            wanted = [one for one in standing if window.holds(one)]
            batch = await asyncio.to_thread(processor.read, wanted)
            if batch.unnamed:
                families = await asyncio.to_thread(processor.families, batch)
                entities = await known(families, Index(server, of.alias))
                batch.take_in(await asyncio.to_thread(processor.name, batch, families, entities))
            events = processor.derived(batch)
            await producer.send(events)
            done.records += len(batch.ready)
            done.events += len(events)
            done.left_out["outside"] += len(standing) - len(wanted)
            done.left_out.update(reason.reason for _, reason in batch.letters)
            done.left_out.update(why for _, why in batch.dropped)
            on_progress(len(some))
        done.left_out = +done.left_out
        return done
    except KafkaException as error:
        raise StackDown(f"Kafka: {error.args[0].name()}") from None
    finally:
        reader.close()
        producer.close()
        await server.close()


async def abandon(of: Domain, into: str) -> bool:
    """Put right what a killed replay has left: the live index takes writes again, `into` is deleted.

    Gives whether the alias had moved before the kill: then `into` is the live index, and stays. Not for while a
    replay is at work. Raises UsageError for a name that is no index of this domain's, and StackDown.
    """
    _check_name(of, into)
    server = async_client(RETRIES)
    try:
        (live,) = (await server.indices.get_alias(name=of.alias)).body
        await _settle(server, of, live)
        if live != into:
            await server.indices.delete(index=into, ignore_unavailable=True)
        return bool(live == into)
    except (ConnectionLost, ConnectionTimeout):
        raise StackDown("Elasticsearch does not answer") from None
    finally:
        await server.close()


class _Rebuild:
    def __init__(
        self, of: Domain, server: AsyncElasticsearch, into: str, window: Window, on_progress: Callable[[int], None]
    ) -> None:
        keyring, keys = KeyStore.local()
        self._processor = Processor(of, STAGES[of.name], Peers.load(settings().peers), keyring, keys, rebuilding=True)
        self._keys = keys
        self._server, self._window, self._on_progress = server, window, on_progress
        self._index = Index(server, into, is_alias=False)
        self._entities, self._live = Indexed(self._index), Index(server, of.alias)
        self._scorer = Scorer(self._processor, Models.local(), self._index.get)
        self._pixels = Pixels(self._processor) if STAGES[of.name].has_images and settings().images else None
        self._removed = _removed(of)
        self._reader = OrderedReader(of.sealed.name)
        self.done = Rebuilt()

    def close(self) -> None:
        self._reader.close()
        self._scorer.close()
        if self._pixels is not None:
            self._pixels.close()

    async def catch_up(self) -> int:
        """Rebuild what lies in the topic up to its present end; gives how many records that were."""
        count = 0
        messages = self._reader.to_end()
        while batch := await asyncio.to_thread(lambda: list(islice(messages, BATCH))):
            count += len(batch)
            await self._rebuild(list(_incoming(batch)))
            self._on_progress(len(batch))
        return count

    async def _rebuild(self, incoming: list[Incoming]) -> None:
        latest = {message.key: message for message in incoming}
        wanted: list[Incoming] = []
        for message in latest.values():
            if _is_removed(message, self._removed):
                continue  # the tombstone that we know of, or what it removed
            if not message.value:
                await self._remove(message.key or b"")
            elif not self._window.holds(message):
                self.done.left_out["outside"] += 1
            else:
                wanted.append(message)
        batch = await asyncio.to_thread(self._processor.read, wanted)
        await self._write(batch)
        if batch.unnamed:  # whoever is known by now, there or here, is known to what came before, too
            families = await asyncio.to_thread(self._processor.families, batch)
            entities = await known(families, self._live, self._index)
            named = await asyncio.to_thread(self._processor.name, batch, families, entities)
            await self._write(named)
            batch.take_in(named)
        kept = batch.ready
        scores = await self._scorer.writes(kept) if settings().scoring else []
        if self._pixels is not None:
            scores += await self._pixels.writes(kept)
        for refused_score in (await self._index.bulk(scores)).values():
            raise StackDown(f"Elasticsearch refuses a score: {refused_score}")
        if self._scorer.failed:  # such an index would miss what was told: WARDSTREAM_SCORING=false makes one without
            self.done.left_out["scores"] = self._scorer.failed
        await self._take_back(batch)
        self.done.records += len(kept)
        self.done.documents += sum(len(event.writes) for event in kept) + len(scores)
        for message, reason in batch.letters:
            self._leave_out(reason.reason, message)
        self.done.left_out.update(why for _, why in batch.dropped)

    async def _write(self, batch: Batch) -> None:
        """Documents, then entities, of what the index takes."""
        refused = await self._index.bulk([write for event in batch.ready for write in event.writes])
        if refused:
            read, batch.ready = batch.ready, []
            for event in read:
                if any(write.id in refused for write in event.writes):
                    await self._index.remove([write.id for write in event.writes])
                    self._leave_out("index_refused", event.incoming)
                else:
                    batch.ready.append(event)
        self.done.entities += await advance(self._entities, self._processor.folds(batch.ready))

    async def _take_back(self, batch: Batch) -> None:
        """Somebody may have been erased since the batch was read, by an erasure that found nothing of it here yet."""
        if await asyncio.to_thread(self._keys.epoch) != batch.epoch:
            keys = await asyncio.to_thread(self._keys.of_tokens, batch.tokens)
            gone = await asyncio.to_thread(self._keys.refs_of_tokens, [one for one, key in keys.items() if key is None])
            await self._index.remove_of(of_persons(gone))

    def _leave_out(self, reason: str, message: Incoming) -> None:
        self.done.left_out[reason] += 1
        if len(self.done.unread) < NAMED:
            self.done.unread.append((message.key or b"").decode("ascii", "replace"))

    async def _remove(self, event_id: bytes) -> None:
        """Take back the documents of an event whose tombstone came while we were at it."""
        of_event = [{"term": {"event_id": event_id.decode()}}, {"range": {"part": {"gte": 0}}}]
        await self._server.indices.refresh(index=self._index.name)
        found = await self._server.search(
            index=self._index.name, query={"bool": {"filter": of_event}}, size=10_000, source=False
        )
        await self._index.remove([hit["_id"] for hit in found["hits"]["hits"]])


def _removed(of: Domain) -> dict[bytes, tuple[int, int]]:
    """Where each event's last tombstone stands: partition and offset. What comes after it counts again."""
    removed: dict[bytes, tuple[int, int]] = {}
    for message in read_whole(of.sealed.name):
        if not message.value():
            key: Any = message.key()
            removed[key] = (message.partition() or 0, message.offset() or 0)
    return removed


def _is_removed(message: Incoming, removed: Mapping[bytes, tuple[int, int]]) -> bool:
    partition, offset = removed.get(message.key or b"", (-1, -1))
    return message.partition == partition and message.offset <= offset


def _check_name(of: Domain, into: str) -> None:
    """Raises UsageError for a name that is no index of this domain's: neither made nor deleted here."""
    if not into.startswith(f"{of.name}-") or into.startswith(ALIAS):
        raise UsageError(f"--into is a name such as {of.name}-v2: every index of {of.name} starts with {of.name}-")


async def _look(server: AsyncElasticsearch, of: Domain, into: str) -> None:
    """Raises UsageError where a rebuild cannot begin."""
    _check_name(of, into)
    for live, found in (await server.indices.get_settings(index=of.alias, flat_settings=True)).body.items():
        if found["settings"].get("index.blocks.write") == "true":
            raise UsageError(
                f"{live} is blocked for writing: another replay is at work, or one was killed; "
                f"`wardstream replay --domain {of.name} --into NAME --abandon` puts that right"
            )
    if await server.indices.exists(index=into):
        raise UsageError(f"{into} is there already: a rebuild starts with a new index")


async def _create(server: AsyncElasticsearch, of: Domain, into: str) -> None:
    try:
        await server.indices.create(index=into, mappings=of.mapping(), settings=SETTINGS | of.settings())
    except ApiError as error:
        raise UsageError(f"{into} cannot be made: {error.error}") from None


async def _swap(server: AsyncElasticsearch, of: Domain, into: str, work: _Rebuild) -> None:
    (live,) = (await server.indices.get_alias(name=of.alias)).body
    started = time.monotonic()
    try:
        blocked = await server.indices.add_block(index=live, block="write")
        if not (blocked["acknowledged"] and blocked["shards_acknowledged"]):  # a write may still be under way
            raise StackDown(f"{live} could not be blocked for writing")
        await work.catch_up()
        if work.done.complete():
            await server.indices.refresh(index=into)
            move: list[dict[str, Any]] = [
                {"remove": {"index": live, "alias": of.alias}},
                {"add": {"index": into, "alias": of.alias, "is_write_index": True}},
            ]
            with contextlib.suppress(ConnectionLost, ConnectionTimeout, ApiError):  # done or not: the next line knows
                await server.indices.update_aliases(actions=move)
    finally:
        work.done.swapped = await _settle(server, of, live)
        work.done.blocked_seconds = round(time.monotonic() - started, 3)
    if work.done.complete() and not work.done.swapped:
        raise StackDown("Elasticsearch did not move the alias")


async def _settle(server: AsyncElasticsearch, of: Domain, live: str) -> bool:
    """Whether the alias has left `live`, whatever our last request was answered. If not, `live` takes writes again.

    An index that the alias has left stays blocked: no late write may lie where nobody looks.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            await server.cluster.health(wait_for_events="languid")  # so that no change of the alias is on its way
            if live not in (await server.indices.get_alias(name=of.alias)).body:
                return True
            await server.indices.put_settings(index=live, settings={"index.blocks.write": None})
            return False
        except (ConnectionLost, ConnectionTimeout, ApiError):
            if time.monotonic() > deadline:
                raise StackDown(
                    f"Elasticsearch does not answer, and {live} may still be blocked for writing: "
                    f"`wardstream replay --domain {of.name} --into NAME --abandon` once it does"
                ) from None
            await asyncio.sleep(1)


async def _discard(server: AsyncElasticsearch, of: Domain, into: str) -> None:
    """Delete a half-filled index, so that the same command can be given again."""
    with contextlib.suppress(ConnectionLost, ConnectionTimeout, ApiError):
        if into not in (await server.indices.get_alias(name=of.alias)).body:
            await server.indices.delete(index=into, ignore_unavailable=True)


def _incoming(batch: list[Any]) -> Iterator[Incoming]:
    for message in batch:
        headers = list(message.headers() or ())
        yield Incoming(
            message.topic(), message.partition(), message.offset(), message.key(), message.value() or b"", headers
        )
