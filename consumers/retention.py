"""How long things are kept: topics as their table says, and no document whose event is older than its index keeps.

An expired event leaves everywhere at once, or a replay would bring it back. The order makes a run that was ended good
to repeat: first the tombstone of the sealed record, then the patient's profile and what the event gave to the patient's
history and the objects that they name, then the documents. Whoever is ended between them still finds the documents,
and so event and patient. An old event that comes late goes with the next run. All else of an entity (patient,
encounter) stays; a replay folds it from the events that are left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, cast

from elasticsearch import ApiError, AsyncElasticsearch, ConnectionTimeout
from elasticsearch import ConnectionError as ConnectionLost
from elasticsearch.helpers import async_scan

from consumers.hold import Holds
from infra.audit import Act, Audit
from infra.elastic import Index, async_client
from infra.errors import StackDown, UsageError
from infra.kafka import Outgoing, Producer, change_topics, headers, read_whole, topic_settings
from infra.keystore import KeyStore
from infra.objects import Objects
from infra.settings import settings
from schemas.document import of_persons
from schemas.envelope import rfc3339
from schemas.registry import DOMAINS, TOPICS, Domain
from schemas.similar import ALIAS, OF
from schemas.topics import Topic
from streams.fold import without
from streams.process import entity_id
from streams.state import Indexed, advance

KEPT_BY = ("cleanup.policy", "retention.ms")
BY_NOBODY = partial(Act, "retention")  # the audit's words where no caller is known
AT_ONCE = 200_000  # documents of a round: some 60 MB of ids, and one reading of the sealed topic
REMOVED_AT_ONCE = 1000
READ_AT_ONCE = 200  # entities, of some 50 KB where a history is full
RETRIES = 5
ORPHANS_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a topic: what the table says and what the broker does."""

    topic: str
    name: str
    wanted: str
    present: str

    @property
    def drifted(self) -> bool:
        return self.wanted != self.present


@dataclass(frozen=True, slots=True)
class Expiry:
    """What an index should not hold any more: documents of events before `before` (RFC 3339)."""

    index: str
    days: int | None  # None: everything is kept
    before: str
    documents: int


@dataclass(frozen=True, slots=True)
class Plan:
    settings: list[Setting]
    expiries: list[Expiry]


@dataclass(slots=True)
class Applied:
    """What was changed: settings, and by index how many documents and sealed records went."""

    settings: list[Setting]
    documents: dict[str, int] = field(default_factory=dict)
    sealed: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    swept: int = 0  # objects that nothing names


async def plan(domains: Sequence[Domain] = (*DOMAINS.values(),), topics: Sequence[Topic] = TOPICS) -> Plan:
    """What `apply` would change. Raises UsageError for a setting of an unknown domain, and StackDown."""
    if unknown := settings().index_retention_days.keys() - DOMAINS.keys():
        raise UsageError(f"WARDSTREAM_INDEX_RETENTION_DAYS names no domain: {', '.join(sorted(unknown))}")
    present = await asyncio.to_thread(topic_settings, [topic.name for topic in topics])
    drifts = [
        Setting(topic.name, name, topic.config()[name], present[topic.name][name])
        for topic in topics
        for name in KEPT_BY
    ]
    server = async_client(RETRIES)
    try:
        return Plan(drifts, [await _expiry(server, of) for of in domains])
    except (ConnectionLost, ConnectionTimeout, ApiError) as error:
        raise _down(error) from None
    finally:
        await server.close()


async def apply(
    on_progress: Callable[[int], None],
    domains: Sequence[Domain] = (*DOMAINS.values(),),
    topics: Sequence[Topic] = TOPICS,
    act: Callable[..., Act] = BY_NOBODY,
) -> Applied:
    """Change what differs from the plan, each change in the audit first; gives what was changed.

    Documents of persons under a legal hold stay. `act` makes the audit's words for the caller.

    Again, after an end at any moment, it does what is left; and nothing once all is done. Raises as `plan` does.
    """
    wanted = await plan(domains, topics)
    done = Applied([one for one in wanted.settings if one.drifted])
    await asyncio.to_thread(_mend, done.settings, act)
    server, producer = async_client(RETRIES), Producer()
    try:
        for of, expiry in zip(domains, wanted.expiries, strict=True):
            if expiry.documents:
                Audit.local().write(act("D", entities=(f"{of.alias} before {expiry.before}",)))
                await _expire(server, producer, of, expiry.before, done, on_progress)
        done.swept = await _sweep(server, domains)
    except (ConnectionLost, ConnectionTimeout, ApiError) as error:
        raise _down(error) from None
    finally:
        await asyncio.to_thread(producer.close)
        await server.close()
    return done


def _mend(drifted: Sequence[Setting], act: Callable[..., Act]) -> None:
    changes: dict[str, dict[str, str]] = {}
    for one in drifted:
        Audit.local().write(act("U", entities=(one.topic,), fields=(one.name,)))
        changes.setdefault(one.topic, {})[one.name] = one.wanted
    change_topics(changes)


async def _expiry(server: AsyncElasticsearch, of: Domain) -> Expiry:
    days = settings().index_retention_days.get(of.name, of.retention_days)
    if days is None:
        return Expiry(of.alias, None, "", 0)
    before = rfc3339(datetime.now(UTC) - timedelta(days=days))
    await server.indices.refresh(index=of.alias)
    return Expiry(of.alias, days, before, (await server.count(index=of.alias, query=_older(before)))["count"])


def _older(before: str) -> dict[str, Any]:
    """Documents of events whose patient is under no legal hold; an entity has no part."""
    past = [{"range": {"event_time": {"lt": before}}}, {"range": {"part": {"gte": 0}}}]
    return {"bool": {"filter": past, "must_not": [{"terms": {"patient_ref": _held()}}]}}


def _held() -> list[str]:
    """References of everybody whose record a law wants kept, aliases included."""
    _, keys = KeyStore.local()
    return sorted({ref for one in Holds.local().of() if one.holds() for ref in keys.family(one.ref)})


async def _expire(
    server: AsyncElasticsearch,
    producer: Producer,
    of: Domain,
    before: str,
    done: Applied,
    on_progress: Callable[[int], None],
) -> None:
    index = Index(server, of.alias)
    while found := await _found(server, of, before):
        events = {event.encode() for event, _, _ in found.values()}
        tombstones = await asyncio.to_thread(_tombstones, of, events)
        await producer.send(tombstones)
        done.sealed[of.alias] = done.sealed.get(of.alias, 0) + len(tombstones)
        if of.alias == OF.alias:  # before the documents, which say whose: a run that was ended finds them again
            await _forget(server, {ref for _, ref, _ in found.values() if ref})
        await _shorten(index, {(event, ref) for event, ref, _ in found.values() if ref})
        names = {name for _, _, name in found.values() if name}
        if names:
            await asyncio.to_thread(Objects.local().remove, names)
            done.objects[of.alias] = done.objects.get(of.alias, 0) + len(names)
        ids = iter(found)
        while some := list(islice(ids, REMOVED_AT_ONCE)):
            await index.remove(some)
            done.documents[of.alias] = done.documents.get(of.alias, 0) + len(some)
            on_progress(len(some))
        await server.indices.refresh(index=of.alias)


async def _sweep(server: AsyncElasticsearch, domains: Sequence[Domain]) -> int:
    """Remove objects that neither a document nor a record names: their receiver was killed before it had told of them.

    Of long ago alone, since one that was just written will be told of in a moment.
    """
    some = [of for of in domains if of.has_objects()]
    if not some:
        return 0
    store = Objects.local()
    loose = set(await asyncio.to_thread(lambda: list(store.names(ORPHANS_SECONDS))))
    for of in some:
        for topic in (of.raw, of.dead_letters, of.sealed) if loose else ():
            loose -= await asyncio.to_thread(_named, topic.name)
        rest = sorted(loose)
        for at in range(0, len(rest), READ_AT_ONCE):
            query = {"terms": {"object": rest[at : at + READ_AT_ONCE]}}
            found = await server.search(index=of.alias, query=query, size=2 * READ_AT_ONCE, source_includes=["object"])
            loose -= {hit["_source"]["object"] for hit in found["hits"]["hits"]}
    return await asyncio.to_thread(store.remove, loose)


def _named(topic: str) -> set[str]:
    """The objects that records of a topic name, those that were erased or expired since left out."""
    return {headers(one).get("object", b"").decode() for one in read_whole(topic) if one.value() is not None}


async def _forget(server: AsyncElasticsearch, refs: AbstractSet[str]) -> None:
    """Remove the profiles of patients, which tell of all their documents; a fit makes them anew of what is left."""
    merged = (await asyncio.to_thread(KeyStore.local))[1].merged()
    rest = iter({merged.get(ref, ref) for ref in refs})
    while some := list(islice(rest, REMOVED_AT_ONCE)):
        await Index(server, ALIAS).remove_of(of_persons(some))


async def _shorten(index: Index, expired: AbstractSet[tuple[str, str]]) -> None:
    """Take what expired events gave out of patients' histories, by compare-and-set as workers change them."""
    keyring, _ = await asyncio.to_thread(KeyStore.local)
    events: dict[str, set[str]] = {}
    for event, ref in expired:
        events.setdefault(entity_id(keyring, "patient", ref, ""), set()).add(event)
    ids = iter(events)
    while some := list(islice(ids, READ_AT_ONCE)):
        await advance(Indexed(index, 0), {one: partial(without, events=events[one]) for one in some})


async def _found(server: AsyncElasticsearch, of: Domain, before: str) -> dict[str, tuple[str, str | None, str]]:
    """Expired documents, at most AT_ONCE: event, patient and object of each id."""
    found: dict[str, tuple[str, str | None, str]] = {}
    query = {"query": _older(before)}
    scan = async_scan(server, query, index=of.alias, size=2000, _source=["event_id", "patient_ref", "object"])
    async with aclosing(cast(AsyncGenerator[dict[str, Any], None], scan)) as hits:
        async for hit in hits:
            said = hit["_source"]
            found[hit["_id"]] = (said["event_id"], said.get("patient_ref"), said.get("object", ""))
            if len(found) == AT_ONCE:
                break
    return found


def _tombstones(of: Domain, events: AbstractSet[bytes]) -> list[Outgoing]:
    """One for each sealed record of these events that is still there, in its own partition."""
    there: dict[tuple[bytes, int], bool] = {}
    for message in read_whole(of.sealed.name):
        key: Any = message.key()
        if key in events:
            there[key, message.partition() or 0] = bool(message.value())
    return [
        Outgoing(of.sealed.name, key, None, [("event_id", key)], partition)
        for (key, partition), live in there.items()
        if live
    ]


def _down(error: Exception) -> StackDown:
    if isinstance(error, ApiError):
        return StackDown(f"Elasticsearch answers {error.status_code}")
    return StackDown("Elasticsearch does not answer")
