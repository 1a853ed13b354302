"""Elasticsearch: clients, index creation, and a bulk that tells what became of every document.

Nothing here needs an optional module of the server: the embedded node is the core alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import orjson
from elastic_transport import ConnectionError as ConnectionLost
from elastic_transport import ConnectionTimeout, TlsError, TransportError
from elasticsearch import ApiError, AsyncElasticsearch, BadRequestError, Elasticsearch, OrjsonSerializer
from elasticsearch.helpers import async_scan

from infra.errors import NotTrusted, StackDown, UsageError
from infra.retry import Target
from infra.settings import settings
from infra.tls import client_context

T = TypeVar("T")
# What a bulk request is answered with. Writing again changes nothing, so only after an error is each item asked for.
SHORT = "errors"
WHOLE = "errors,items.*.status,items.*.error.type"
PLACED = f"{WHOLE},items.*._id,items.*._index,items.*._seq_no,items.*._primary_term"
FOUND = "docs._id,docs._index,docs.found,docs._source,docs._seq_no,docs._primary_term"
REMOVE = b'{"delete":{"_id":"%b","version":1,"version_type":"external_gte"}}\n'
REMOVED_AT_ONCE = 1000
SCAN_PAGE, SCAN_ALIVE = 10_000, "2m"
REFUSALS = frozenset({400, 413})  # the document is at fault; anything else may pass later
CONFLICT = "version_conflict_engine_exception"


Place = tuple[str, int, int]  # index, sequence number, primary term: what compare-and-set compares
NEW: Place = ("", -1, -1)  # the place of a document that is not there yet


@dataclass(frozen=True, slots=True)
class Write:
    """One finished document. Without `over` it is immutable and may be written again for ever, as version 1.

    With `over` it goes in the place of what was read, or where nothing was (NEW): of several writers one wins.
    """

    id: str
    source: bytes  # JSON
    over: Place | None = None

    def lines(self) -> bytes:
        if self.over is None:
            action = b'{"index":{"_id":"%b","version":1,"version_type":"external_gte"}}' % self.id.encode()
        elif self.over == NEW:
            action = b'{"create":{"_id":"%b"}}' % self.id.encode()
        else:
            index, number, term = self.over
            named = b'"_index":"%b","require_alias":false' % index.encode()  # as read: the alias may have moved since
            place = b'"if_seq_no":%d,"if_primary_term":%d' % (number, term)
            action = b'{"index":{"_id":"%b",%b,%b}}' % (self.id.encode(), named, place)
        return b"%b\n%b\n" % (action, self.source)


def _options() -> dict[str, Any]:
    of = settings()
    options: dict[str, Any] = {
        "hosts": [of.elasticsearch_url()],
        "request_timeout": of.elasticsearch_timeout,
        "retry_on_timeout": False,
        "serializer": OrjsonSerializer(),
    }
    if key := of.elasticsearch_api_key.get_secret_value():
        options["api_key"] = key
    context = client_context(of.elasticsearch_ca, of.elasticsearch_cert, of.elasticsearch_key)
    if context is not None:
        if not of.elasticsearch_url().startswith("https://"):
            raise UsageError("WARDSTREAM_ELASTICSEARCH_CA and _CERT want https:// in WARDSTREAM_ELASTICSEARCH")
        options["ssl_context"] = context
    return options


def away(error: TransportError) -> StackDown:
    """What a person should hear of a request that was not answered."""
    if isinstance(error, TlsError):
        return NotTrusted("no TLS with Elasticsearch: one side does not trust the other's certificate")
    return StackDown(f"Elasticsearch does not answer: {type(error).__name__}")


def client() -> Elasticsearch:
    return Elasticsearch(**_options())


def async_client(retries: int = 0) -> AsyncElasticsearch:
    """Without retries of its own by default: agents have a budget (infra/retry.py)."""
    options = _options() | {"retry_on_timeout": retries > 0, "retry_on_status": (429, 502, 503, 504)}
    return AsyncElasticsearch(**options, max_retries=retries)


SETTINGS = {
    "number_of_shards": 1,
    "auto_expand_replicas": "0-1",
    "refresh_interval": "500ms",
    # Erasure needs deleted documents to leave the disk: a forced merge must not spare any segment.
    "merge": {"policy": {"expunge_deletes_allowed": 0}},
}


def create_index(alias: str, index: str, mapping: dict[str, Any], more: Mapping[str, Any] | None = None) -> bool:
    """Make an index behind its alias where there is none, and give an existing one its new fields. `more`: settings
    beside SETTINGS.

    Raises StackDown where no server answers, and the server's own error where a field's type was changed: that needs
    a new index and a replay, never a silent change.
    """
    with client() as server:
        try:
            if server.indices.exists_alias(name=alias):
                server.indices.put_mapping(index=alias, properties=mapping["properties"])
                return False
            aliases = {alias: {"is_write_index": True}}
            server.indices.create(index=index, mappings=mapping, aliases=aliases, settings={**SETTINGS, **(more or {})})
        except BadRequestError as error:  # asked twice: the first answer was lost on the way
            if error.error != "resource_already_exists_exception" or not server.indices.exists_alias(name=alias):
                raise
        except (ConnectionLost, ConnectionTimeout) as error:
            raise away(error) from None
        return True


def live(alias: str) -> set[str]:
    """The indices behind an alias. Raises StackDown."""
    with client() as server:
        try:
            return set(server.indices.get_alias(name=alias).body)
        except (ConnectionLost, ConnectionTimeout, TlsError) as error:
            raise StackDown(f"Elasticsearch does not answer: {type(error).__name__}") from None


def scan(alias: str, query: dict[str, Any], fields: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """The fields of every document that a query finds, and its `_id`, a page at a time, as at one point in time.

    Raises what the client raises. A search after the last document of a page costs the same on every page.
    """
    with client() as server:
        pit = server.open_point_in_time(index=alias, keep_alive=SCAN_ALIVE)["id"]
        after: list[Any] | None = None
        try:
            while True:
                answer = server.search(
                    pit={"id": pit, "keep_alive": SCAN_ALIVE},
                    query={"bool": {"filter": [query]}},  # no score is made
                    sort=["_shard_doc"],
                    size=SCAN_PAGE,
                    track_total_hits=False,
                    source_includes=list(fields),
                    search_after=after,
                    filter_path="pit_id,hits.hits._id,hits.hits._source,hits.hits.sort",
                )
                pit = answer["pit_id"]
                if not (hits := answer.get("hits", {}).get("hits", [])):
                    return
                yield [hit.get("_source", {}) | {"_id": hit["_id"]} for hit in hits]
                after = hits[-1]["sort"]
        finally:
            server.close_point_in_time(id=pit)


class Index:
    """One alias as an agent writes it: every call is tried again until the server has answered for each document.

    A lost connection, a time-out, 429, 503 and a write block are waited out: the caller acknowledges nothing
    meanwhile, and repeating a write changes nothing.
    """

    def __init__(self, server: AsyncElasticsearch, name: str, *, is_alias: bool = True) -> None:
        self._server, self.name, self._is_alias = server, name, is_alias
        self.target = Target("elasticsearch")

    async def bulk(self, writes: Sequence[Write], places: dict[str, Place] | None = None) -> dict[str, str]:
        """Write until every document is in or refused; gives the refused ones' ids with the server's error type.

        A document that was to take the place of another and found something else there is refused with CONFLICT.
        `places` is filled with the places that the written ones got, where somebody wants to know.
        """
        if not writes:
            return {}  # nothing was asked, so nothing is known of the server either
        waiting = list(writes)
        refused: dict[str, str] = {}
        wanted = SHORT if places is None else PLACED
        while waiting:
            await self.target.admitted()
            try:
                answer = await self._server.bulk(
                    index=self.name,
                    operations=cast(Any, [write.lines() for write in waiting]),  # NDJSON already; typed as mappings
                    filter_path=wanted,
                    require_alias=self._is_alias,  # a write must not make up a missing one, with a guessed mapping
                )
            except (ConnectionLost, ConnectionTimeout):
                reason = "connection"
            except ApiError as error:
                if error.status_code in REFUSALS:  # an answer, if no good one
                    self.target.succeeded()
                if error.status_code in REFUSALS and len(waiting) > 1:  # the request is at fault, or one document in it
                    half = len(waiting) // 2
                    return refused | await self.bulk(waiting[:half], places) | await self.bulk(waiting[half:], places)
                if error.status_code in REFUSALS:
                    return refused | {write.id: "request_refused" for write in waiting}
                reason = str(error.status_code)
            else:
                if places is not None:
                    places |= _places(answer["items"])
                if not answer["errors"]:
                    break
                if wanted == SHORT:
                    wanted = WHOLE
                    continue
                waiting, reason = _sorted_out(waiting, answer["items"], refused)
                if not reason:
                    break
            await asyncio.sleep(self.target.failed(reason))
        self.target.succeeded()
        return refused

    async def get(
        self, ids: Collection[str], fields: Sequence[str] | None = None
    ) -> dict[str, tuple[dict[str, Any], Place]]:
        """Documents by id, each with its place, as last written, searchable or not; `fields` of them, or all."""
        while True:
            await self.target.admitted()
            try:
                answer = await self._server.mget(
                    index=self.name, ids=list(ids), source_includes=fields, filter_path=FOUND
                )
            except (ConnectionLost, ConnectionTimeout):
                reason = "connection"
            except ApiError as error:
                if error.status_code in REFUSALS:
                    raise
                reason = str(error.status_code)
            else:
                self.target.succeeded()
                return {
                    doc["_id"]: (doc.get("_source", {}), (doc["_index"], doc["_seq_no"], doc["_primary_term"]))
                    for doc in answer["docs"]
                    if doc.get("found")
                }
            await asyncio.sleep(self.target.failed(reason))

    async def behind(self) -> str:
        """The index behind the alias; empty while the server is away."""
        try:
            return ",".join(sorted((await self._server.indices.get_alias(name=self.name)).body))
        except (ConnectionLost, ConnectionTimeout, ApiError):
            return ""

    async def find(self, query: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Every document that a query finds, by id, as last written. Waits for a server that is away."""

        async def scanned() -> dict[str, dict[str, Any]]:
            hits = async_scan(self._server, {"query": query}, index=self.name, size=SCAN_PAGE)
            return {hit["_id"]: hit["_source"] async for hit in hits}

        return await self._refreshed(scanned)

    async def summary(self, query: dict[str, Any], of: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """How many documents a query finds, written by now, and aggregations of them. Waits for a server."""

        async def counted() -> tuple[int, dict[str, Any]]:
            found = await self._server.search(index=self.name, query=query, size=0, aggs=of, track_total_hits=True)
            return found["hits"]["total"]["value"], found["aggregations"]

        return await self._refreshed(counted)

    async def _refreshed(self, ask: Callable[[], Awaitable[T]]) -> T:
        """An answer that knows of all that was written, however long the server is away."""
        while True:
            await self.target.admitted()
            try:
                await self._server.indices.refresh(index=self.name)
                found = await ask()
            except (ConnectionLost, ConnectionTimeout):
                await asyncio.sleep(self.target.failed("connection"))
            except ApiError as error:
                if error.status_code in REFUSALS:
                    raise
                await asyncio.sleep(self.target.failed(str(error.status_code)))
            else:
                self.target.succeeded()
                return found

    async def remove_of(self, query: Mapping[str, Any]) -> int:
        """Delete every document that a query finds, written by now or under way; gives how many.

        Waits for a server that is away, as all calls here do.
        """
        gone = 0
        while True:
            await self.target.admitted()
            try:
                await self._server.indices.refresh(index=self.name)
                found = await self._server.search(index=self.name, query=query, size=REMOVED_AT_ONCE, source=False)
                if not (ids := [hit["_id"] for hit in found["hits"]["hits"]]):
                    self.target.succeeded()
                    return gone
                lines = cast(Any, [b'{"delete":{"_id":"%b"}}\n' % one.encode() for one in ids])
                await self._server.bulk(index=self.name, operations=lines, require_alias=self._is_alias)
                gone += len(ids)
            except (ConnectionLost, ConnectionTimeout):
                await asyncio.sleep(self.target.failed("connection"))
            except ApiError as error:
                await asyncio.sleep(self.target.failed(str(error.status_code)))

    async def remove(self, ids: Collection[str]) -> None:
        """Delete immutable documents by id; one that is not there is gone already.

        As version 1 as well: a delete of the server's own making would be version 2, and for a minute the server would
        take the event, should it come again, for an older state.
        """
        left = list(ids)
        while left:
            await self.target.admitted()
            lines = cast(Any, [REMOVE % one.encode() for one in left])
            try:
                answer = await self._server.bulk(index=self.name, operations=lines, require_alias=self._is_alias)
                left = [item["delete"]["_id"] for item in answer["items"] if item["delete"]["status"] not in (200, 404)]
                reason = "delete"
            except (ConnectionLost, ConnectionTimeout):
                reason = "connection"
            except ApiError as error:
                reason = str(error.status_code)
            if left:
                await asyncio.sleep(self.target.failed(reason))
        self.target.succeeded()


def _places(items: list[dict[str, Any]]) -> dict[str, Place]:
    done = (one for item in items for one in item.values())
    return {one["_id"]: (one["_index"], one["_seq_no"], one["_primary_term"]) for one in done if one["status"] < 300}


def _sorted_out(waiting: list[Write], items: list[dict[str, Any]], refused: dict[str, str]) -> tuple[list[Write], str]:
    """What of a bulk request is to be written again, and why to wait; the refused ones are added to `refused`."""
    left: list[Write] = []
    reason = ""
    for write, item in zip(waiting, items, strict=True):
        (done,) = item.values()
        status = done["status"]
        if status in REFUSALS:
            refused[write.id] = done["error"]["type"]
        elif status == 409:
            if write.over is not None:  # else: a newer one is there, or the same
                refused[write.id] = CONFLICT
        elif status >= 300:
            reason = str(status)
            if status in (403, 404) and write.over is not None:  # blocked, or gone: the alias may have moved meanwhile
                refused[write.id] = CONFLICT
            else:
                left.append(write)
    return left, reason


def dump(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document)
