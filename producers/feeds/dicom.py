"""A DICOM node (PS3.4, PS3.7, PS3.8): images in over associations, each answered once it is durable.

0000H says that the object is on the disk and that the broker has confirmed its event. Whatever is refused stays with
its sender: `schemas.wire.dimse.REFUSALS` has the status of each reason, and the answer's Error Comment (0000,0902) its
word. A data set goes from the socket into the store by 1 MiB: an association holds twice that, however large the image.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from ipaddress import ip_address, ip_network

from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from infra import metrics, tls
from infra.audit import Act
from infra.errors import AuditUnavailable, BadMessage, UsageError, WardstreamError
from infra.settings import settings
from producers.feeds import commitment
from producers.imaging import PIECE, PIXEL_LENGTH, Images, Incoming, Received, syntaxes
from schemas.wire import dimse
from schemas.wire.dicom_elements import IMPLEMENTATION, VERSION
from schemas.wire.dimse import Command

FEED = "dicom"
SEALED_AT_ONCE = 1 << 20  # bytes; most images are sealed in one go, since a change of threads costs as much as 100 KB
SLOWEST = 16_384  # bytes a second
CONNECTIONS_EACH = 4  # for each association that there may be: those beyond are not even greeted
REJECTED_SECONDS = 60.0  # the same rejection of the same host is audited once in this
REMEMBERED = 1000  # rejections
STOP_SECONDS = 3.0  # what is left for answers when the node has to end
CLOSE_SECONDS = 2.0  # left to a peer to close after a release or an abort (PS3.8: ARTIM)
PUBLIC = "1.2.840.10008."
STORAGE = "1.2.840.10008.5.1.4.1.1."  # the root of images' classes, retired ones too


@dataclass(frozen=True, slots=True)
class Clients:
    """Who may associate: patterns AE@host; the host is one, `*`, or a network such as 10.1.0.0/16.

    An AE title is what a peer says it is, and a host can be shared: neither proves anything as a certificate does.
    """

    patterns: tuple[str, ...]

    @classmethod
    def of(cls, said: list[str], host: str) -> Clients:
        """Raises UsageError for a list that is none, and for none where others than this machine can connect."""
        for one in said:
            title, at, place = one.rpartition("@")
            if not (title and at and place):
                raise UsageError("WARDSTREAM_DICOM_CALLING lists AE@host, such as CT1@10.0.0.7 or MR*@10.1.0.0/16")
        if not (said or tls.loopback(host) or settings().tls_client_ca):
            raise UsageError("beyond loopback say who may associate: WARDSTREAM_DICOM_CALLING, or certificates")
        return cls(tuple(said) or ("*@*",))

    def admit(self, title: str, host: str) -> bool:
        return any(
            fnmatchcase(title, pattern) and _within(host, place)
            for pattern, _, place in (one.rpartition("@") for one in self.patterns)
        )


def _within(host: str, place: str) -> bool:
    if place in ("*", host):
        return True
    try:
        return ip_address(host) in ip_network(place)
    except ValueError:
        return False


class Node:
    """An application entity. `title` is what it must be called; `*` answers to any."""

    images: Images

    def __init__(self, images: Callable[[], AbstractContextManager[Images]], title: str, clients: Clients) -> None:
        self._open, self.title, self.clients = images, title, clients
        self.syntaxes = syntaxes()
        self.stopping = False
        self.established = 0
        self._associations: dict[asyncio.Task[None], Association] = {}
        self._rejected: dict[tuple[str, str], float] = {}

    async def serve(self, host: str, port: int, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Listen until `stop`; then answer what has come whole, and abort the rest."""
        with self._open() as self.images:
            await self._serve(host, port, ready, stop)

    async def _serve(self, host: str, port: int, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        async with tls.serving(FEED, tls.streams(self._connected, PIECE), host, port) as at:
            ready(at)
            await commitment.deliver(self.images, stop)
        self.stopping = True
        for task, one in self._associations.items():
            if not one.answering:
                task.cancel()
        if self._associations:
            _, late = await asyncio.wait(self._associations, timeout=STOP_SECONDS)
            for task in late:  # the broker is away: unanswered, and so the peer's to send again
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._associations) >= CONNECTIONS_EACH * settings().dicom_associations:
            writer.close()
            return
        self._associations[task] = one = Association(self, reader, writer)
        metrics.CONNECTIONS.labels(FEED).set(len(self._associations))
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await one.run()
        finally:
            del self._associations[task]
            metrics.CONNECTIONS.labels(FEED).set(len(self._associations))

    async def refused(self, reason: str, calling: str, host: str) -> None:
        """Count and audit a rejection: whoever knocks on and on fills no disk."""
        metrics.ANSWERED.labels(FEED, "A-ASSOCIATE-RJ", reason).inc()
        now = time.monotonic()
        if now - self._rejected.get((host, reason), -REJECTED_SECONDS) < REJECTED_SECONDS:
            return
        if len(self._rejected) >= REMEMBERED:
            self._rejected.clear()
        self._rejected[host, reason] = now
        act = Act("association", "E", who=_plain(calling), outcome="4", why=reason, detail={"host": host})
        with contextlib.suppress(AuditUnavailable):  # refused it is in any case
            await self.images.aside(self.images.audit.write, act)


def _plain(title: str) -> str:
    """An AE title as the audit may say it."""
    return "".join(one if one.isalnum() or one in "_-. " else "?" for one in title)[:16] or "?"


class Association:
    """One association as its acceptor: PS3.8's states are where `run` waits."""

    def __init__(self, node: Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._node, self._reader, self._writer = node, reader, writer
        self._images = node.images
        self._host = str((writer.get_extra_info("peername") or ("",))[0])
        self._left = 0  # bytes of the P-DATA-TF unit that is being read
        self._syntax: dict[int, tuple[str, str]] = {}  # abstract and transfer syntax by context
        self.calling = self.called = ""
        self._most_pdu = 0
        self.answering = False
        self._reports: dict[int, int] = {}  # numbers of commitments by the message id of their report

    # ------------------------------------------------------------------------------------------------------ upper layer

    async def run(self) -> None:
        """To the end of the association, whoever ends it."""
        try:
            async with asyncio.timeout(settings().dicom_acse_seconds):
                established = await self._negotiate()
            if established:
                self._node.established += 1
                try:
                    async with asyncio.timeout(None) as self._patience:
                        while await self._message() and not self._node.stopping:
                            pass
                finally:
                    self._node.established -= 1
                    for number in self._reports.values():  # it ended without a word: its address is tried
                        await self._images.aside(self._images.instances.later, number, 0.0)
                if self._node.stopping:
                    self._writer.write(dimse.abort())
        except (asyncio.IncompleteReadError, OSError):  # the peer is gone; TimeoutError is an OSError too
            self._writer.write(dimse.abort())
        except BadMessage as bad:
            metrics.ANSWERED.labels(FEED, "A-ABORT", bad.reason).inc()
            self._writer.write(dimse.abort(2 if bad.reason == "unexpected_pdu" else 6))
        except asyncio.CancelledError:
            self._writer.write(dimse.abort())
            raise
        finally:
            self._writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._writer.wait_closed()

    async def _negotiate(self) -> bool:
        """Answer the request for an association; False where it is refused. Raises BadMessage where it is none."""
        kind, size = await self._unit()
        if kind != dimse.ASSOCIATE_RQ or size > dimse.MOST_REQUEST:
            raise BadMessage("unexpected_pdu")
        asked = dimse.request(await self._reader.readexactly(size))
        if reason := self._rejection(asked):
            self._writer.write(dimse.reject(reason))
            await self._writer.drain()
            await self._node.refused(reason, asked.calling, self._host)
            return False
        self.calling, self.called, self._most_pdu = asked.calling, asked.called, asked.most_pdu
        answers = [self._judge(one) for one in asked.contexts]
        self._writer.write(dimse.accept(asked, answers, IMPLEMENTATION, VERSION))
        return True

    def _rejection(self, asked: dimse.Request) -> str:
        if not asked.version & 1:
            return "protocol_version"
        if asked.application != dimse.CONTEXT_NAME:
            return "application_context"
        if self._node.title not in ("*", asked.called):
            return "called_ae"
        if not self._node.clients.admit(asked.calling, self._host):
            return "calling_ae"
        if self._node.established >= settings().dicom_associations or self._node.stopping:
            return "congestion"
        return ""

    def _judge(self, one: dimse.Context) -> tuple[int, int, str]:
        """A context's result, and of its transfer syntaxes the first that we know: whatever the peer likes best."""
        syntax = next((said for said in one.syntaxes if said in self._node.syntaxes), "")
        if not storage(one.abstract):
            if one.abstract not in (dimse.VERIFICATION, dimse.COMMITMENT):
                return one.number, dimse.NO_ABSTRACT_SYNTAX, dimse.IMPLICIT
            syntax = next((said for said in one.syntaxes if said in (dimse.IMPLICIT, dimse.EXPLICIT)), "")
        if not syntax:
            return one.number, dimse.NO_TRANSFER_SYNTAX, dimse.IMPLICIT
        self._syntax[one.number] = one.abstract, syntax
        return one.number, dimse.ACCEPTED, syntax

    async def _unit(self) -> tuple[int, int]:
        """Type and length of the next protocol data unit."""
        kind, size = dimse.HEAD.unpack(await self._reader.readexactly(dimse.HEAD.size))
        return kind, size

    async def _fragment(self) -> tuple[int, int, int] | None:
        """Context, control header and length of the next fragment; None where the peer has ended the association."""
        while not self._left:
            kind, size = await self._unit()
            if kind == dimse.RELEASE_RQ:
                self._writer.write(dimse.pdu(dimse.RELEASE_RP, bytes(4)))
                return None
            if kind == dimse.ABORT:
                return None
            if kind != dimse.P_DATA:
                raise BadMessage("unexpected_pdu")
            self._left = size
        if self._left < dimse.FRAGMENT.size:
            raise BadMessage("bad_pdu")
        size, context, control = dimse.FRAGMENT.unpack(await self._reader.readexactly(dimse.FRAGMENT.size))
        self._left -= 4 + size
        if size < 2 or self._left < 0 or context not in self._syntax:
            raise BadMessage("bad_pdu")
        return context, control, size - 2

    # --------------------------------------------------------------------------------------------------------- messages

    async def _message(self) -> bool:
        """Read a message and answer it; False where there is none any more."""
        now = asyncio.get_running_loop().time
        self._patience.reschedule(now() + settings().dicom_idle_seconds)
        said = bytearray()
        while True:
            if (head := await self._fragment()) is None:
                return False
            context, control, size = head
            if not control & dimse.COMMAND or len(said) + size > dimse.MOST_COMMAND:
                raise BadMessage("bad_pdu")
            said += await self._reader.readexactly(size)
            if control & dimse.LAST:
                break
        self._started, self._bytes = now(), 0
        command = dimse.command(bytes(said))
        if command.field == dimse.C_STORE:
            return await self._store(context, command)
        if command.field & dimse.ANSWER or command.field == dimse.C_CANCEL:
            await self._skip(context, command)
            if command.field == dimse.N_EVENT_REPORT | dimse.ANSWER:
                await self._reported(command)
            return True
        if command.field == dimse.C_ECHO:
            return await self._answer(context, command, dimse.SUCCESS)
        if command.field == dimse.N_ACTION:
            return await self._commit(context, command)
        await self._skip(context, command)
        return await self._answer(context, command, dimse.UNRECOGNISED)

    async def _data(self, context: int) -> AsyncIterator[bytes]:
        """The pieces of the data set that belongs to a command, as they come."""
        last = False
        while not last:
            if (head := await self._fragment()) is None:
                raise ConnectionResetError
            of, control, size = head
            if control & dimse.COMMAND or of != context:
                raise BadMessage("bad_pdu")
            last = bool(control & dimse.LAST)
            self._bytes += size
            self._patience.reschedule(self._started + settings().dicom_message_seconds + self._bytes / SLOWEST)
            while size:
                if not (piece := await self._reader.read(min(size, PIECE))):
                    raise ConnectionResetError
                size -= len(piece)
                yield piece

    async def _skip(self, context: int, command: Command) -> None:
        if command.has_data:
            async for _ in self._data(context):
                pass

    async def _answer(self, context: int, command: Command, status: int, reason: str = "") -> bool:
        said = dimse.answer(command, status, reason)
        for unit in dimse.fragments(context, said, dimse.COMMAND, self._most_pdu):
            self._writer.write(unit)
        await self._writer.drain()
        return True

    # ----------------------------------------------------------------------------------------------- storage commitment

    async def _commit(self, context: int, command: Command) -> bool:
        """An N-ACTION (PS3.4 J.3.2): remembered, answered, reported."""
        data = bytearray()
        if command.has_data:
            async for piece in self._data(context):
                if len(data) + len(piece) <= commitment.MOST_BYTES:
                    data += piece
        abstract, syntax = self._syntax[context]
        if abstract != dimse.COMMITMENT or command.sop_class != dimse.COMMITMENT:
            return await self._answer(context, command, dimse.REFUSALS["class_not_supported"])
        if command.sop_instance != dimse.COMMITMENT_INSTANCE:
            return await self._answer(context, command, dimse.NO_SUCH_INSTANCE)
        if command.number(dimse.ACTION_TYPE) != 1:
            return await self._answer(context, command, dimse.NO_SUCH_ACTION)
        self._patience.reschedule(None)
        try:
            asked = await self._images.aside(commitment.read, bytes(data), syntax)
        except BadMessage as bad:
            return await self._answer(context, command, dimse.INVALID_ARGUMENT, bad.reason)
        try:
            number = await self._images.aside(commitment.remember, asked, self._images, self.calling, self.called)
        except WardstreamError as error:  # nothing is promised
            return await self._answer(context, command, dimse.REFUSALS["internal_error"], error.reason)
        await self._answer(context, command, dimse.SUCCESS)
        try:
            event, said = await self._images.aside(commitment.report, asked, self._images)
        except WardstreamError:  # the store is away: it is told later
            return True
        self._reports[number % 0xFFFF + 1] = number
        for payload, kind in (
            (dimse.event_report(number % 0xFFFF + 1, event), dimse.COMMAND),
            (commitment.encoded(said, syntax), 0),
        ):
            for unit in dimse.fragments(context, payload, kind, self._most_pdu):
                self._writer.write(unit)
        await self._writer.drain()
        return True

    async def _reported(self, command: Command) -> None:
        """The peer's answer to a report; one that it did not take is sent to its address."""
        number = self._reports.pop(command.number(dimse.ANSWERED), None)
        if number is not None:
            taken = command.number(dimse.STATUS) == dimse.SUCCESS
            metrics.ANSWERED.labels(FEED, "N-EVENT-REPORT", "" if taken else "not_taken").inc()
            instances = self._images.instances
            await self._images.aside(*((instances.answered, number) if taken else (instances.later, number, 0.0)))

    # ---------------------------------------------------------------------------------------------------------- C-STORE

    async def _store(self, context: int, command: Command) -> bool:
        """One instance: into the store while it comes, then published, then answered (PS3.4 B.2)."""
        metrics.RECEIVED.labels(FEED).inc()
        receiving = _Receiving(self._images)
        try:
            try:
                receiving.begin(command, *self._syntax[context], (self.calling, self.called))
            except BadMessage as bad:
                receiving.problem = bad
            if command.has_data:
                async for piece in self._data(context):
                    await receiving.take(piece)
            started = time.perf_counter()
            self._patience.reschedule(None)
            self.answering = True  # a node that has to end waits for it
            status, reason = await receiving.publish()
            await receiving.abandon()
            metrics.ANSWER_SECONDS.labels(FEED).observe(time.perf_counter() - started)
            metrics.ANSWERED.labels(FEED, f"{status:04X}", reason).inc()
            return await self._answer(context, command, status, reason)
        finally:
            self.answering = False
            await receiving.abandon()


class _Receiving:
    """One C-STORE: its object, as far as it has come, or why it will not be taken. Then the rest is read past."""

    _make: Callable[[], Incoming]
    _sop_instance: str

    def __init__(self, images: Images) -> None:
        self._images = images
        self._incoming: Incoming | None = None
        self._pieces: list[bytes] = []
        self._held = 0
        self._writing: asyncio.Future[None] | None = None
        self.problem: WardstreamError | None = None

    def begin(self, command: Command, abstract: str, syntax: str, ends: tuple[str, str]) -> None:
        """Raises BadMessage for what can be refused before a byte of it has come."""
        if command.sop_class != abstract or not storage(abstract):
            raise BadMessage("class_not_supported")
        if not command.has_data:
            raise BadMessage("empty")
        self._sop_instance = command.sop_instance
        self._make = partial(self._images.incoming, command.sop_class, command.sop_instance, syntax, ends)

    async def take(self, piece: bytes) -> None:
        """Hold it; a piece that is large enough is sealed in a thread while the next one comes."""
        if self.problem is None:
            self._pieces.append(piece)
            self._held += len(piece)
            if self._held >= SEALED_AT_ONCE:
                await self._written()
                self._write()

    def _write(self) -> None:
        pieces, self._pieces, self._held = self._pieces, [], 0
        if self.problem is None:
            self._writing = asyncio.ensure_future(self._images.aside(self._seal, pieces))

    def _seal(self, pieces: list[bytes]) -> None:
        if self._incoming is None:
            self._incoming = self._make()
        self._incoming.write(pieces)

    async def _written(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                await writing
            except WardstreamError as error:
                self.problem = error
                self._pieces, self._held = [], 0

    async def publish(self) -> tuple[int, str]:
        """Status and reason."""
        await self._written()
        try:
            if self.problem is not None:
                raise self.problem
            received, _ = await self._images.take(self._sop_instance, partial(self._finish, self._pieces))
        except WardstreamError as error:
            return dimse.refusal(error.reason, ours=not isinstance(error, BadMessage)), error.reason
        except Exception:  # never a silent drop, and never the error's text, which may quote a patient
            return dimse.refusal("internal_error"), "internal_error"
        if PIXEL_LENGTH in received.flags:
            return dimse.PIXEL_LENGTH, PIXEL_LENGTH
        return dimse.SUCCESS, ""

    def _finish(self, pieces: list[bytes]) -> Received:
        self._seal(pieces)
        assert self._incoming is not None
        made = self._incoming.finish()
        self._incoming = None  # from here on its object is not ours to remove
        return made

    async def abandon(self) -> None:
        """Leave nothing of what was not published; may be called at any time."""
        await self._written()
        if self._incoming is not None:
            incoming, self._incoming = self._incoming, None
            await self._images.aside(incoming.abandon)


def storage(abstract: str) -> bool:
    """Whether an abstract syntax is an image's or its like: every storage class that pynetdicom knows, retired ones,
    and whatever a vendor calls its own. Classes without a patient (hanging protocols, palettes) are none of ours.
    """
    service = uid_to_service_class(abstract)
    if service is not ServiceClass:
        return service is StorageServiceClass
    return bool(abstract) and (abstract.startswith(STORAGE) or not abstract.startswith(PUBLIC))
