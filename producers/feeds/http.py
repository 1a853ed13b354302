"""FHIR R4 over HTTP (http://hl7.org/fhir/R4/http.html): bundles and single resources in, OperationOutcomes out.

2xx only once the broker has confirmed every event: it means "durably accepted". A transaction is accepted whole or
not at all; in every other bundle each entry has its own answer. Nothing is ever deleted, and nothing can be read here.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice
from typing import Any

import orjson
from aiohttp import web

from infra import metrics, tls
from infra.errors import BadMessage, Overloaded, WardstreamError
from infra.settings import settings
from producers.fhir import location
from producers.publish import Arrival, Publisher
from schemas.wire.bundle import Bundle, Event, single
from schemas.wire.fhir import CONTENT_TYPE, Focus, known, refusal

FEED = "fhir"
JSON_TYPES = frozenset((CONTENT_TYPE, "application/json", "text/json"))
VERSIONS = frozenset(("4.0", "4.0.1", "4.3", "4.3.0"))  # R4 and R4B
AT_ONCE = 64  # entries of one bundle that wait for the broker together
ISSUES = 100  # told of one bundle
PIECE = 1 << 20
SLOWEST = 16_384  # bytes a second
STOP_SECONDS = 3.0  # what is left for answers when a listener has to end
RETRY_SECONDS = 5
LOOK_SECONDS = 1.0
# Those whose fields are searchable; every other type of R4 is taken too.
READ = (
    ("AllergyIntolerance", "Appointment", "Composition", "Condition", "DiagnosticReport", "DocumentReference")
    + ("Encounter", "Immunization", "Location", "MedicationAdministration", "MedicationDispense", "MedicationRequest")
    + ("MedicationStatement", "Observation", "Organization", "Patient", "Practitioner", "PractitionerRole")
    + ("Procedure", "ServiceRequest")
)  # fmt: skip

Json = dict[str, Any]
Taker = Callable[[Focus, datetime], Arrival]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one event."""

    position: int
    location: str = ""
    event_id: str = ""
    new: bool = False
    problem: BadMessage | None = None

    @property
    def status(self) -> int:
        if self.problem is not None:
            return refusal(self.problem.reason)[0]
        return 201 if self.new else 200


class Endpoint:
    """What takes events over HTTP, of whatever form: connections, bodies within bounds, counted answers."""

    feed: str

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._held = 0  # bytes of bodies that requests may hold at most
        self._asked: dict[Any, float] = {}  # when a connection last asked; endless while it waits for an answer

    async def serve(self, host: str, port: int, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Listen until `stop`; then finish what was received, answer it, and close."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        silent = logging.Logger("aiohttp", logging.CRITICAL + 1)  # its errors quote what was sent
        runner = web.AppRunner(
            app, access_log=None, logger=silent, auto_decompress=False, shutdown_timeout=STOP_SECONDS
        )
        await runner.setup()
        server = runner.server
        assert server is not None
        try:
            async with tls.serving(self.feed, server, host, port) as at:
                ready(at)
                await self._close_idle(server, stop)
        finally:
            await runner.cleanup()

    async def _close_idle(self, server: web.Server, stop: asyncio.Event) -> None:
        """Close connections that ask nothing, or never finish asking, until `stop`."""
        while not stop.is_set():
            now = time.monotonic()
            open = {one.transport for one in server.connections if one.transport is not None}
            metrics.CONNECTIONS.labels(self.feed).set(len(open))
            self._asked = {one: self._asked.get(one, now) for one in open}
            for one, since in self._asked.items():
                if now - since > settings().fhir_idle_seconds:
                    one.close()
            try:
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue

    async def _handle(self, request: web.Request) -> web.Response:
        started = time.perf_counter()
        metrics.RECEIVED.labels(self.feed).inc()
        self._asked[request.transport] = math.inf
        reason = ""
        try:
            response = await self._answer(request)
        except BadMessage as bad:
            reason, response = bad.reason, self._refused([bad])
        except WardstreamError as error:  # ours, not the message's: it may come again unchanged
            reason, response = error.reason, self._refused([BadMessage(error.reason)])
        except Exception as error:  # never the error's text, which may quote a patient
            reason, response = "internal_error", self._refused([BadMessage("internal_error", type(error).__name__)])
        finally:
            self._asked[request.transport] = time.monotonic()
        metrics.ANSWER_SECONDS.labels(self.feed).observe(time.perf_counter() - started)
        metrics.ANSWERED.labels(self.feed, str(response.status), reason).inc()
        return response

    async def _answer(self, request: web.Request) -> web.Response:
        """Raises BadMessage, and WardstreamError for what is ours to mend."""
        raise NotImplementedError

    def _refused(self, problems: list[BadMessage]) -> web.Response:
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------------------- body

    @contextmanager
    def _holding(self) -> Iterator[list[int]]:
        hold = [0]
        try:
            yield hold
        finally:
            self._held -= hold[0]

    async def _reserve(self, hold: list[int], size: int, patience: float) -> None:
        """Hold `size` bytes in all. One request is let in whatever it holds, or the largest would never be."""
        deadline = time.monotonic() + patience
        while self._held > hold[0] and self._held - hold[0] + size > settings().edge_bytes:
            if time.monotonic() >= deadline:
                raise Overloaded("too much is in memory")
            await asyncio.sleep(0.02)
        self._held += size - hold[0]
        hold[0] = size

    async def _body(self, request: web.Request, hold: list[int]) -> bytes:
        """All of it, inflated, within the limit and in time. Raises BadMessage, Overloaded."""
        limit, patience = settings().fhir_max_bytes, settings().edge_patience_seconds
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip"):
            raise BadMessage("bad_media_type", "Content-Encoding")
        inflate = None if encoding == "identity" else zlib.decompressobj(16 + zlib.MAX_WBITS)
        if (request.content_length or 0) > limit:
            raise BadMessage("too_large")
        await self._reserve(hold, request.content_length or PIECE, patience)
        body = bytearray()
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(settings().fhir_body_seconds) as slow:
                async for piece in request.content.iter_any():
                    body += piece if inflate is None else _inflated(inflate, piece, limit + 1 - len(body))
                    if len(body) > limit:
                        raise BadMessage("too_large")
                    if len(body) > hold[0]:
                        await self._reserve(hold, len(body) + PIECE, 0)
                    slow.reschedule(started + settings().fhir_body_seconds + len(body) / SLOWEST)
        except TimeoutError:
            raise BadMessage("slow_body") from None
        if inflate is not None and (not inflate.eof or inflate.unused_data):
            raise BadMessage("bad_media_type", "Content-Encoding")
        return bytes(body)


class Listener(Endpoint):
    """A FHIR endpoint. `take` makes an arrival of a resource and raises BadMessage where it is not ours to take."""

    feed = FEED

    def __init__(self, publisher: Publisher, take: Taker) -> None:
        super().__init__(publisher)
        self._take = take

    def _refused(self, problems: list[BadMessage]) -> web.Response:
        return _refused(problems)

    async def _answer(self, request: web.Request) -> web.Response:
        path = [part for part in request.path.split("/") if part]
        if path == ["metadata"]:
            if request.method not in ("GET", "HEAD"):
                return _not_allowed("GET, HEAD")
            return _response(200, _capabilities())
        if len(path) > 2 or (path and not known(path[0])):
            raise BadMessage("no_such_path")
        kind = path[0] if path else ""
        conditional = len(path) == 1 and bool(request.query_string)
        allowed = "PUT" if len(path) == 2 or (conditional and request.method == "PUT") else "POST"
        if request.method != allowed:
            return _not_allowed("PUT" if len(path) == 2 else "POST, PUT" if kind else "POST")
        _negotiate(request)
        with self._holding() as hold:
            body = await self._body(request, hold)
            if kind in ("", "Bundle"):
                return await self._bundle(body, request)
            made = await asyncio.to_thread(single, body)
            if made.resource["resourceType"] != kind:
                raise BadMessage("bad_resource", "resourceType")
            if len(path) == 2 and made.resource.get("id") != path[1]:
                raise BadMessage("bad_resource", f"{kind}.id")
            return _single(await self._publish(*self._taken(Event(0, kind, "", made))), request)

    async def _bundle(self, body: bytes, request: web.Request) -> web.Response:
        bundle = Bundle(
            lambda: (body[at : at + PIECE] for at in range(0, len(body), PIECE)),
            settings().mllp_max_bytes,
            answered=True,
        )
        await asyncio.to_thread(bundle.survey)
        transaction = bundle.type == "transaction"
        if transaction and (problems := await asyncio.to_thread(self._problems, bundle)):
            return _refused(problems)
        made = map(self._taken, bundle.events(checked=transaction))
        done: list[Done] = []
        while some := await asyncio.to_thread(lambda: list(islice(made, AT_ONCE))):
            done += await asyncio.gather(*(self._publish(*one) for one in some))
            if transaction and (failed := [one.problem for one in done if one.problem is not None]):
                return _refused(failed)
        if bundle.type == "":
            return _single(done[0], request)
        return _response(200, _answers(done, transaction, _wants_outcome(request)))

    def _taken(self, event: Event) -> tuple[Event, Arrival | BadMessage]:
        """What can be published of an event, or why it cannot."""
        if event.made is None:
            assert event.problem is not None
            return event, event.problem
        try:
            return event, self._take(event.made, datetime.now(UTC))
        except BadMessage as bad:
            return event, BadMessage(bad.reason, event.where or bad.where)
        except Exception as error:  # a fault of ours that one entry brings out; the rest goes on. Its text may tell
            return event, BadMessage("unexpected", type(error).__name__)

    def _problems(self, bundle: Bundle) -> list[BadMessage]:
        taken = (self._taken(event)[1] for event in bundle.events())
        return list(islice((one for one in taken if isinstance(one, BadMessage)), ISSUES))

    async def _publish(self, event: Event, taken: Arrival | BadMessage) -> Done:
        """The end of an event, once it is durable."""
        if isinstance(taken, BadMessage):
            return Done(event.position, problem=taken)
        try:
            receipt = await self._publisher.publish(taken)
        except WardstreamError as error:
            return Done(event.position, problem=BadMessage(error.reason, event.where))
        assert event.made is not None
        at = location(event.made.resource, receipt.event_id)
        return Done(event.position, at, receipt.event_id, not receipt.duplicate)


def _inflated(inflate: Any, piece: bytes, most: int) -> bytes:
    """At most `most` bytes: a bomb is found by its size, not by its bang."""
    try:
        made: bytes = inflate.decompress(piece, most)
    except zlib.error:
        raise BadMessage("bad_media_type", "Content-Encoding") from None
    return made


def _negotiate(request: web.Request) -> None:
    """Refuse what is no JSON of R4, and whoever takes none back."""
    if request.content_type not in JSON_TYPES:
        raise BadMessage("bad_media_type", "Content-Type")
    if (request.charset or "utf-8").lower().replace("-", "") != "utf8":
        raise BadMessage("bad_charset")
    given = dict(
        part.strip().split("=", 1) for part in request.headers.get("Content-Type", "").split(";")[1:] if "=" in part
    )
    if given.get("fhirVersion", "4.0").strip('"') not in VERSIONS:
        raise BadMessage("fhir_version", "Content-Type")
    # A plus in a query string stands for a blank, and clients write application/fhir+json there as it is.
    wanted = request.query.get("_format", "").replace(" ", "+") or request.headers.get("Accept", "*/*")
    kinds = {one.split(";")[0].strip().lower() for one in wanted.split(",")}
    if not kinds & (JSON_TYPES | {"*/*", "application/*", "text/*", "json", ""}):
        raise BadMessage("not_acceptable", "Accept")


# ------------------------------------------------------------------------------------------------------------- answers


def _wants_outcome(request: web.Request) -> bool:
    return "return=OperationOutcome" in request.headers.get("Prefer", "").replace(" ", "")


def _single(done: Done, request: web.Request) -> web.Response:
    if done.problem is not None:
        return _refused([done.problem])
    response = _response(done.status, _outcome([]) if _wants_outcome(request) else None)
    response.headers["Location"] = "/" + done.location
    response.headers["ETag"] = f'W/"{done.event_id}"'
    return response


def _answers(done: list[Done], transaction: bool, outcomes: bool) -> Json:
    """One answer an entry. Of a bundle within an entry the first that was refused speaks, else the first."""
    by_entry: dict[int, Done] = {}
    for one in done:
        if one.position not in by_entry or (one.problem and not by_entry[one.position].problem):
            by_entry[one.position] = one
    entries = []
    for position in range(max(by_entry, default=-1) + 1):
        one = by_entry[position]
        answer: Json = {"status": f"{one.status} {HTTPStatus(one.status).phrase}"}
        if one.problem is not None:
            answer["outcome"] = _outcome([one.problem])
        else:
            answer |= {"location": one.location, "etag": f'W/"{one.event_id}"'}
            if outcomes:
                answer["outcome"] = _outcome([])
        entries.append({"response": answer})
    kind = "transaction-response" if transaction else "batch-response"
    return {"resourceType": "Bundle", "type": kind} | ({"entry": entries} if entries else {})


def _outcome(problems: list[BadMessage]) -> Json:
    issues: list[Json] = []
    for one in problems:
        issue: Json = {"severity": "error", "code": refusal(one.reason)[1], "details": {"text": one.reason}}
        if one.where:
            issue["expression"] = [one.where]
        issues.append(issue)
    said = {"severity": "information", "code": "informational", "details": {"text": "durably accepted"}}
    return {"resourceType": "OperationOutcome", "issue": issues or [said]}


def _refused(problems: list[BadMessage]) -> web.Response:
    """The worst status of all: what is ours to mend comes first, since it may go through the next time."""
    status = max(refusal(one.reason)[0] for one in problems)
    if len(problems) > 1 and status < 422:
        status = 400
    response = _response(status, _outcome(problems[:ISSUES]))
    if status in (429, 503):
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


def _not_allowed(allow: str) -> web.Response:
    response = _refused([BadMessage("not_supported")])
    response.headers["Allow"] = allow
    return response


def _response(status: int, body: Json | None) -> web.Response:
    if body is None:
        return web.Response(status=status)
    return web.Response(status=status, body=orjson.dumps(body), content_type=CONTENT_TYPE)


def _capabilities() -> Json:
    """What this endpoint can do (http://hl7.org/fhir/R4/capabilitystatement.html)."""
    written = [{"code": "create"}, {"code": "update"}]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2025-01-01",
        "kind": "instance",
        "software": {"name": "Wardstream"},
        "implementation": {"description": "Takes records in; gives none out. Every other type of R4 is taken too."},
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "rest": [
            {
                "mode": "server",
                "resource": [{"type": kind, "interaction": written, "conditionalUpdate": True} for kind in READ],
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
            }
        ],
    }
