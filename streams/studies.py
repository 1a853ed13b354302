"""When a study is whole: beside an agent, whatever was indexed of a study starts its quiet period anew.

What is known lies in the index alone, so nothing is lost by a kill: who begins looks there for studies whose last
instance was never followed by silence. The event's id is made of the study and of what there is of it, so two workers
that tell the same tell one event.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from infra import metrics
from infra.crypto import seal_payload
from infra.elastic import Index
from infra.errors import KeyMissing, KeyShredded, KeyStoreBusy
from infra.kafka import Outgoing
from infra.keystore import KeyStore
from infra.settings import settings
from schemas import derived
from schemas.envelope import Envelope, event_id, later, rfc3339
from schemas.imaging import DOMAIN, Instance, StudyComplete
from schemas.registry import DOMAINS
from streams.imaging import complete
from streams.process import Ready

LOOK_SECONDS = 1.0
BACK = timedelta(days=2)  # how far who begins looks back: a worker that was away for longer tells nothing of before
STUDIES_AT_ONCE = 1000
Send = Callable[[Sequence[Outgoing]], Awaitable[None]]


class Studies:
    """`run` until cancelled; `follow` what was indexed."""

    def __init__(self, index: Index, keys: KeyStore, send: Send) -> None:
        self._index, self._keys, self._send = index, keys, send
        self._due: dict[tuple[str, str], float] = {}  # study and patient: when its quiet period ends (monotonic)
        self._looked = False

    def follow(self, ready: Sequence[Ready]) -> None:
        until = time.monotonic() + settings().study_quiet_seconds
        for event in ready:
            for part in event.record.parts:
                if isinstance(part, Instance) and part.study:
                    self._due.pop((part.study, event.key_of(0).ref), None)
                    self._due[part.study, event.key_of(0).ref] = until  # in the order of their ends

    def forget(self) -> None:
        """Partitions have moved, or somebody was erased: look at the index again."""
        self._due.clear()
        self._looked = False

    async def run(self) -> None:
        while True:
            if not self._looked:
                self._looked = True
                await self._look()
            now = time.monotonic()
            while (first := next(iter(self._due), None)) is not None and self._due[first] <= now:
                if not await self._tell(*first, self._due.pop(first)):
                    break
            metrics.STUDIES_OPEN.set(len(self._due))
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        """Studies whose last instance came lately, and after they were last told to be whole."""
        since = rfc3339(datetime.now(UTC) - BACK)
        until = time.monotonic() + settings().study_quiet_seconds
        after: dict[str, Any] | None = None
        while True:
            of = {"composite": {"size": STUDIES_AT_ONCE, "sources": _KEYS} | ({"after": after} if after else {})}
            query = {"bool": {"filter": [{"range": {"received_at": {"gte": since}}}, {"term": {"kind": "instance"}}]}}
            last = {"last": {"max": {"field": "received_at"}}}
            _, found = await self._index.summary(query, {"studies": of | {"aggs": last}})
            buckets = found["studies"]["buckets"]
            told = await self._told([bucket["key"]["study"] for bucket in buckets])
            for bucket in buckets:
                key = bucket["key"]["study"], bucket["key"]["patient"]
                if bucket["last"]["value"] > told.get(key, 0.0):
                    self._due.setdefault(key, until)
            after = found["studies"].get("after_key")
            if after is None:
                return

    async def _told(self, studies: Sequence[str]) -> dict[tuple[str, str], float]:
        """Until which instance each is known to be whole, in milliseconds since 1970."""
        query = {"bool": {"filter": [{"term": {"kind": "study_complete"}}, {"terms": {"study": list(studies)}}]}}
        of = {"composite": {"size": 2 * STUDIES_AT_ONCE, "sources": _KEYS}}
        _, found = await self._index.summary(query, {"studies": of | {"aggs": {"last": {"max": {"field": "last_at"}}}}})
        return {
            (one["key"]["study"], one["key"]["patient"]): one["last"]["value"] or 0.0
            for one in found["studies"]["buckets"]
        }

    async def _tell(self, study: str, ref: str, due: float) -> bool:
        """Tell that a study is whole, from what the index has of it; False where the key store is busy."""
        whole = await self._whole(study, ref)
        if whole is None:
            return True
        try:
            message = await asyncio.to_thread(self._message, whole, ref)
        except KeyStoreBusy:
            self._due[study, ref] = due
            return False
        except (KeyMissing, KeyShredded):  # erased meanwhile
            return True
        await self._send([message])
        return True

    async def _whole(self, study: str, ref: str) -> StudyComplete | None:
        filters = [{"term": {"kind": "instance"}}, {"term": {"study": study}}, {"term": {"patient_ref": ref}}]
        count, found = await self._index.summary(
            {"bool": {"filter": filters}},
            {
                "series": {"cardinality": {"field": "series", "precision_threshold": 10_000}},
                "modalities": {"terms": {"field": "modality", "size": 20}},
                "facility": {"terms": {"field": "facility", "size": 1}},
                "bytes": {"sum": {"field": "object_bytes"}},
                "first": {"min": {"field": "received_at"}},
                "last": {"max": {"field": "received_at"}},
            },
        )
        if not count:
            return None
        return StudyComplete(
            study=study,
            series_count=found["series"]["value"],
            instance_count=count,
            study_bytes=found["bytes"]["value"],
            modalities=tuple(sorted(one["key"] for one in found["modalities"]["buckets"])),
            facility=next((one["key"] for one in found["facility"]["buckets"]), ""),
            first_at=_at(found["first"]["value"]),
            last_at=_at(found["last"]["value"]),
        )

    def _message(self, whole: StudyComplete, ref: str) -> Outgoing:
        """As its own edge would publish it; the same one whoever tells it. It was received when the silence was."""
        assert whole.last_at is not None
        key, last = self._keys.of_ref(ref), rfc3339(whole.last_at)
        said = ("study_complete", whole.study, ref, str(whole.instance_count), last)
        id = event_id(self._keys.keyring.event, complete.SOURCE, said, b"")
        payload = seal_payload([key], id, complete.body(whole))
        headers = Envelope(
            event_id=id,
            source=complete.SOURCE,
            peer="*|*",
            content_type=derived.CONTENT_TYPE,
            charset="",
            received_at=later(last, timedelta(seconds=settings().study_quiet_seconds)),
            event_time=last,
            trace_id=os.urandom(16).hex(),
            subjects=(key.token,),
            key_versions=(key.version,),
            flags=(),
            content_key=payload.wrapped_key,
        ).headers()
        return Outgoing(DOMAINS[DOMAIN].raw.name, key.token.encode(), payload.body, headers)


_KEYS = [{"study": {"terms": {"field": "study"}}}, {"patient": {"terms": {"field": "patient_ref"}}}]


def _at(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
