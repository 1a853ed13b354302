"""Rebuild an index beside the live one from the sealed topic, then move the alias without a missing search result.

The order makes it safe, with workers writing all the while:

1. An agent keeps an event's sealed record before it indexes anything of it. So whatever can be found is in the topic.
2. The new index is filled until it has nearly caught up.
3. The live index is blocked for writing. Elasticsearch answers once no write is under way any more; agents wait, as
   in any outage, and nothing is acknowledged.
4. The rest of the topic is read: now the new index has everything that the live one has. It is refreshed.
5. The alias moves, in one step. The agents' waiting writes find the new index behind it; an entity that was read from
   the old one cannot be written there (it names the index it was read from), so it is read and folded again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from elasticsearch import ApiError, AsyncElasticsearch
from elasticsearch import ConnectionError as ConnectionLost

from infra.elastic import SETTINGS, Index, async_client
from infra.errors import BadMessage, StackDown, UsageError
from infra.kafka import Reader
from infra.keystore import KeyStore
from infra.settings import settings
from schemas.envelope import Envelope
from schemas.peers import Peers
from schemas.registry import Domain
from streams.process import Incoming, Processor
from streams.stages import STAGES
from streams.state import Indexed, advance

BATCH = 500
NEAR = 200  # records behind which the live index is blocked: well under a second of work


@dataclass(slots=True)
class Rebuilt:
    """What became of the sealed records. `left_out`: not rebuilt, by reason; `erased` is as it must be."""

    records: int = 0
    documents: int = 0
    entities: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
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

    Raises UsageError where `into` is there already, StackDown where a server is not.
    """
    server = async_client()
    try:
        await _create(server, of, into)
        work = _Rebuild(of, server, into, window, on_progress)
        try:
            while await work.catch_up() > NEAR:
                pass
            if window.whole and work.done.complete():
                await _swap(server, of, into, work)
            else:
                await server.indices.refresh(index=into)
        finally:
            work.close()
        return work.done
    except ConnectionLost:
        raise StackDown("Elasticsearch does not answer") from None
    except ApiError as error:
        raise StackDown(f"Elasticsearch answers {error.status_code}") from None
    finally:
        await server.close()


class _Rebuild:
    def __init__(
        self, of: Domain, server: AsyncElasticsearch, into: str, window: Window, on_progress: Callable[[int], None]
    ) -> None:
        keyring, keys = KeyStore.local()
        self._processor = Processor(of, STAGES[of.name], Peers.load(settings().peers), keyring, keys)
        self._server, self._window, self._on_progress = server, window, on_progress
        self._index = Index(server, into, is_alias=False)
        self._entities = Indexed(self._index)
        self._removed = _removed(of)
        self._reader = Reader(of.sealed.name)
        self.done = Rebuilt()

    def close(self) -> None:
        self._reader.close()

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
            if not message.value:
                await self._remove(message.key or b"")
            elif not self._window.holds(message):
                self.done.left_out["outside"] += 1
            elif message.key not in self._removed:
                wanted.append(message)
        batch = await asyncio.to_thread(self._processor.read, wanted)
        refused = await self._index.bulk([write for event in batch.ready for write in event.writes])
        kept = [event for event in batch.ready if not any(write.id in refused for write in event.writes)]
        for event in batch.ready if refused else ():
            if event not in kept:
                await self._index.remove([write.id for write in event.writes])
                self.done.left_out["index_refused"] += 1
        self.done.entities += await advance(self._entities, self._processor.folds(kept))
        self.done.records += len(kept)
        self.done.documents += sum(len(event.writes) for event in kept)
        self.done.left_out.update(reason.reason for _, reason in batch.letters)
        self.done.left_out.update(why for _, why in batch.dropped)

    async def _remove(self, event_id: bytes) -> None:
        """Take back the documents of an event whose tombstone came while we were at it."""
        if event_id in self._removed:
            return
        of_event = [{"term": {"event_id": event_id.decode()}}, {"range": {"part": {"gte": 0}}}]
        await self._server.indices.refresh(index=self._index.name)
        found = await self._server.search(
            index=self._index.name, query={"bool": {"filter": of_event}}, size=10_000, source=False
        )
        await self._index.remove([hit["_id"] for hit in found["hits"]["hits"]])


def _removed(of: Domain) -> set[bytes]:
    """Events whose last word in the topic is a tombstone."""
    removed: set[bytes] = set()
    reader = Reader(of.sealed.name)
    for message in reader.until_end():
        key: Any = message.key()
        (removed.discard if message.value() else removed.add)(key)
    reader.close()
    return removed


async def _create(server: AsyncElasticsearch, of: Domain, into: str) -> None:
    if not into.startswith(f"{of.name}-"):
        raise UsageError(f"--into is a name such as {of.name}-v2: every index of {of.name} starts with {of.name}-")
    try:
        await server.indices.create(index=into, mappings=of.mapping(), settings=SETTINGS)
    except ApiError as error:
        if error.status_code == 400 and "exists" in str(error.error):
            raise UsageError(f"{into} is there already: a rebuild starts with a new index") from None
        raise UsageError(f"{into} cannot be made: {error.error}") from None


async def _swap(server: AsyncElasticsearch, of: Domain, into: str, work: _Rebuild) -> None:
    (live,) = (await server.indices.get_alias(name=of.alias)).body
    started = datetime.now(UTC)
    await server.indices.add_block(index=live, block="write")
    try:
        await work.catch_up()
        if work.done.complete():
            await server.indices.refresh(index=into)
            move: list[dict[str, Any]] = [
                {"remove": {"index": live, "alias": of.alias}},
                {"add": {"index": into, "alias": of.alias, "is_write_index": True}},
            ]
            await server.indices.update_aliases(actions=move)
            work.done.swapped = True
    finally:
        if not work.done.swapped:  # swapped, it stays blocked: no late write may lie where nobody looks
            await server.indices.put_settings(index=live, settings={"index.blocks.write": None})
    work.done.blocked_seconds = (datetime.now(UTC) - started).total_seconds()


def _incoming(batch: list[Any]) -> Iterator[Incoming]:
    for message in batch:
        headers = list(message.headers() or ())
        yield Incoming(
            message.topic(), message.partition(), message.offset(), message.key(), message.value() or b"", headers
        )
