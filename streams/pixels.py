"""Beside an agent: the pixels of what it has indexed, looked at in a bounded pool, become documents of their own.

Whatever an image does to the process that looks at it, its document says so under a reason, and the event goes its way.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence

from infra import metrics
from infra.elastic import Write
from infra.errors import BadMessage
from infra.retry import Target
from infra.settings import settings
from schemas.imaging import Image, Instance
from schemas.wire.dicom import claim_of
from streams.imaging.record import common
from streams.look import look
from streams.pool import Pool, PoolFailed
from streams.process import Processor, Ready

log = logging.getLogger(__name__)
DONE = "done"


class Pixels:
    """`close` ends its processes."""

    def __init__(self, processor: Processor) -> None:
        of = settings()
        self._processor = processor
        modules = ("streams.look", "streams.imaging.describe")
        self._pool = Pool(of.image_processes, of.image_memory_bytes, of.image_seconds, 5, modules=modules)
        self._store = Target("objects")

    async def writes(self, ready: Sequence[Ready]) -> list[Write]:
        """A document for each instance of a batch that has pixels, or would have."""
        found = [
            (event, place, part)
            for event in ready
            for place, part in enumerate(event.record.parts)
            if isinstance(part, Instance)
        ]
        looked = await asyncio.gather(*(self._look(part) for _, _, part in found))
        return [
            self._processor.scored(event, place, part.subject, image)
            for (event, place, part), image in zip(found, looked, strict=True)
        ]

    async def _look(self, part: Instance) -> Image:
        said = {"subject": part.subject} | common(part) | {"object": part.object}
        claim = claim_of(part.claim)
        while True:
            await self._store.admitted()
            try:
                seen = await self._pool.run(look, claim)
            except BadMessage as bad:
                why = bad.reason
            except PoolFailed as failed:
                why = failed.reason
            else:
                if isinstance(seen, str):
                    await asyncio.sleep(self._store.failed("connection"))
                    continue
                self._store.succeeded()
                metrics.IMAGES.labels(DONE).inc()
                figures = dataclasses.asdict(seen.quality)
                return Image(**said, **figures, processing=DONE, preview=True, embedding=seen.embedding)
            self._store.succeeded()
            metrics.IMAGES.labels(why).inc()
            if why != "no_pixels":
                log.warning("an image cannot be looked at: %s", why)
            return Image(**said, processing=why)

    def close(self) -> None:
        self._pool.close()
