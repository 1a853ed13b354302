"""Operations events over HTTP: POST / takes one event, an array of them, or one a line (application/x-ndjson).

200 only once the broker has confirmed every event: durably accepted. Otherwise the status is the worst of all, and the
answer says event by event which were accepted; sent again, those are duplicates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from infra.errors import BadMessage, WardstreamError
from producers.feeds import http
from producers.operations import listed
from producers.publish import Arrival, Publisher, Receipt
from schemas.wire.fhir import load
from schemas.wire.operations import REFUSALS

LINES = "application/x-ndjson"
TYPES = frozenset((LINES, "application/json", "text/json"))
UNAVAILABLE = 503  # of a reason that is not the event's: send it again, unchanged
Json = dict[str, Any]


class Listener(http.Endpoint):
    """`take` makes an arrival of an object and raises BadMessage where it is not ours to take."""

    feed = "operations"

    def __init__(self, publisher: Publisher, take: Callable[[Mapping[str, Any], datetime], Arrival]) -> None:
        super().__init__(publisher)
        self._take = take

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path.strip("/"):
            raise BadMessage("no_such_path")
        if request.method != "POST":
            response = self._refused([BadMessage("not_supported")])
            response.headers["Allow"] = "POST"
            return response
        if request.content_type not in TYPES:
            raise BadMessage("bad_media_type", "Content-Type")
        if (request.charset or "utf-8").lower().replace("-", "") != "utf8":
            raise BadMessage("bad_charset")
        with self._holding() as hold:
            body = await self._body(request, hold)
            said: Sequence[Json | BadMessage]
            said = await asyncio.to_thread(_lines if request.content_type == LINES else listed, body)
            done: list[Receipt | BadMessage] = []
            for at in range(0, len(said), http.AT_ONCE):
                done += await asyncio.gather(*(self._event(one) for one in said[at : at + http.AT_ONCE]))
        return _told(done)

    async def _event(self, said: Json | BadMessage) -> Receipt | BadMessage:
        """The end of an event, once it is durable."""
        if isinstance(said, BadMessage):
            return said
        try:
            return await self._publisher.publish(self._take(said, datetime.now(UTC)))
        except BadMessage as bad:
            return bad
        except WardstreamError as error:  # ours, not the event's: it may come again unchanged
            return BadMessage(error.reason)
        except Exception as error:  # a fault of ours that one event brings out; the rest goes on. Its text may tell
            return BadMessage("internal_error", type(error).__name__)

    def _refused(self, problems: list[BadMessage]) -> web.Response:
        return _told(list(problems))


def _lines(body: bytes) -> list[Json | BadMessage]:
    found: list[Json | BadMessage] = []
    for line in body.splitlines():
        if line.strip():
            try:
                found.append(load(line))
            except BadMessage as bad:
                found.append(bad)
    return found


def _told(done: list[Receipt | BadMessage]) -> web.Response:
    rows = [_row(one) for one in done]
    status = max((_status(one) for one in done), default=200)
    response = web.Response(status=status, body=orjson.dumps({"events": rows}), content_type="application/json")
    if status in (429, UNAVAILABLE):
        response.headers["Retry-After"] = str(http.RETRY_SECONDS)
    return response


def _row(one: Receipt | BadMessage) -> Json:
    if isinstance(one, BadMessage):
        return {"outcome": "refused", "reason": one.reason, "where": one.where}
    return {"outcome": "duplicate" if one.duplicate else "accepted", "event_id": one.event_id}


def _status(one: Receipt | BadMessage) -> int:
    return REFUSALS.get(one.reason, UNAVAILABLE) if isinstance(one, BadMessage) else 200
