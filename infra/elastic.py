"""Elasticsearch: clients, index creation, and a bulk that tells what became of every document.

Nothing here needs an optional module of the server: the embedded node is the core alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson
from elastic_transport import ConnectionError as ConnectionLost
from elastic_transport import ConnectionTimeout, TlsError
from elasticsearch import ApiError, AsyncElasticsearch, Elasticsearch, OrjsonSerializer

from infra import metrics
from infra.errors import StackDown
from infra.settings import settings

RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # then 5 s for ever: the partition waits, nothing is dropped
# What a bulk request is answered with. Writing again changes nothing, so only after an error is each item asked for.
SHORT = "errors"
WHOLE = "errors,items.*.status,items.*.error.type"
REFUSALS = frozenset({400, 413})  # the document is at fault; anything else may pass later


@dataclass(frozen=True, slots=True)
class Write:
    """One finished document. `version`: constant 1 for an immutable event, the fold position for an entity.

    Written with `external_gte`: the same write may be repeated for ever, and an older fold never replaces a newer.
    """

    id: str
    source: bytes  # JSON
    version: int = 1

    def lines(self) -> bytes:
        return b'{"index":{"_id":"%b","version":%d,"version_type":"external_gte"}}\n%b\n' % (
            self.id.encode(),
            self.version,
            self.source,
        )


def _options() -> dict[str, Any]:
    of = settings()
    options: dict[str, Any] = {
        "hosts": [of.elasticsearch_url()],
        "request_timeout": 30,
        "retry_on_timeout": False,
        "serializer": OrjsonSerializer(),
    }
    if key := of.elasticsearch_api_key.get_secret_value():
        options["api_key"] = key
    if of.elasticsearch_ca is not None:
        options["ca_certs"] = str(of.elasticsearch_ca)
    return options


def client() -> Elasticsearch:
    return Elasticsearch(**_options())


def async_client() -> AsyncElasticsearch:
    return AsyncElasticsearch(**_options())


def create_index(alias: str, index: str, mapping: dict[str, Any]) -> bool:
    """Make an index behind its alias where there is none, and give an existing one its new fields.

    Raises StackDown where no server answers, and the server's own error where a field's type was changed: that needs
    a new index and a replay, never a silent change.
    """
    with client() as server:
        try:
            if server.indices.exists_alias(name=alias):
                server.indices.put_mapping(index=alias, properties=mapping["properties"])
                return False
            server.indices.create(
                index=index,
                mappings=mapping,
                aliases={alias: {"is_write_index": True}},
                settings={
                    "number_of_shards": 1,
                    "auto_expand_replicas": "0-1",
                    "refresh_interval": "1s",
                    # Erasure needs deleted documents to leave the disk: a forced merge must not spare any segment.
                    "merge": {"policy": {"expunge_deletes_allowed": 0}},
                },
            )
        except (ConnectionLost, ConnectionTimeout, TlsError) as error:
            raise StackDown(f"Elasticsearch does not answer: {type(error).__name__}") from None
        return True


async def bulk(server: AsyncElasticsearch, domain: str, index: str, writes: Sequence[Write]) -> dict[str, str]:
    """Write until every document is in or refused; gives the refused ones' ids with the server's error type.

    A lost connection, a time-out, 429 and 503 are tried again for ever with growing, jittered waits: the caller
    acknowledges nothing meanwhile, and repeating a write changes nothing. 409 means a newer fold is there: done.
    """
    waiting = list(writes)
    refused: dict[str, str] = {}
    attempt = 0
    wanted = SHORT
    while waiting:
        try:
            answer = await server.bulk(
                index=index,
                operations=cast(Any, [write.lines() for write in waiting]),  # NDJSON already; typed as mappings only
                filter_path=wanted,
            )
        except (ConnectionLost, ConnectionTimeout):
            reason = "connection"
        except ApiError as error:
            if error.status_code == 413 and len(waiting) > 1:  # the request is too large, not a document in it
                half = len(waiting) // 2
                for some in (waiting[:half], waiting[half:]):
                    refused |= await bulk(server, domain, index, some)
                return refused
            if error.status_code in REFUSALS:
                return refused | {write.id: "request_refused" for write in waiting}
            reason = str(error.status_code)
        else:
            if not answer["errors"]:
                return refused
            if wanted == SHORT:
                wanted = WHOLE
                continue
            left: list[Write] = []
            for write, item in zip(waiting, answer["items"], strict=True):
                status = item["index"]["status"]
                if status in REFUSALS:
                    refused[write.id] = item["index"]["error"]["type"]
                elif status >= 300 and status != 409:
                    left.append(write)
                    reason = str(status)
            waiting = left
            if not waiting:
                return refused
        metrics.INDEX_RETRIES.labels(domain, reason).inc()
        pause = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
        attempt += 1
    return refused


async def remove(server: AsyncElasticsearch, index: str, ids: Sequence[str]) -> None:
    """Delete documents by id; one that is not there is gone already."""
    lines = [b'{"delete":{"_id":"%b"}}\n' % one.encode() for one in ids]
    await server.bulk(index=index, operations=cast(Any, lines))


async def get_sources(server: AsyncElasticsearch, index: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Documents by id, as last written, searchable or not; tried again until the server answers."""
    attempt = 0
    while True:
        try:
            answer = await server.mget(index=index, ids=list(ids), filter_path="docs._id,docs.found,docs._source")
        except (ConnectionLost, ConnectionTimeout):
            reason = "connection"
        except ApiError as error:
            if error.status_code in REFUSALS:
                raise
            reason = str(error.status_code)
        else:
            return {doc["_id"]: doc["_source"] for doc in answer["docs"] if doc.get("found")}
        metrics.INDEX_RETRIES.labels("read", reason).inc()
        await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
        attempt += 1


def dump(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document)
