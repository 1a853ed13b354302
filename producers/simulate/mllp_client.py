"""Sending HL7 messages over MLLP as a careful peer does: in order, one at a time a connection, until each is answered.

The peer's promise that we rely on (HL7 2.5.1, 2.9.2): AA and AE are final, AR means that the same bytes may be sent
again later. A lost answer says nothing, so the message goes out again unchanged; a receiver that knows its exact
repeats takes no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from infra.errors import StackDown, UsageError
from schemas.wire.hl7v2 import conditions

_START, _END = b"\x0b", b"\x1c\r"
_ANSWER_LIMIT = 1 << 20  # bytes; an answer above this is none
UNASKED = "unasked"  # instead of a code: the message asks for no answer (MSH-15 and MSH-16 say NE), and gets none
_QUEUED = 256  # messages waiting for one connection; then the reading of messages waits


class Sendable(Protocol):
    """What can be sent: HL7 bytes without a frame, and the patient whose messages must keep their order."""

    @property
    def body(self) -> bytes: ...

    @property
    def patient(self) -> str: ...


M = TypeVar("M", bound=Sendable)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer that ended a message: `code` is MSA-1, `seconds` from its last sending to the answer."""

    code: str
    body: bytes
    seconds: float


@dataclass(slots=True)
class Sent:
    """What became of everything: sent = acknowledged + errors + refused + lost + unasked.

    `sent` counts messages, not transmissions; those beyond the first of each are `resent`. `lost` are the messages
    that stayed without any answer. `latencies` (seconds) has one sample a final answer, taken from its transmission.
    """

    sent: int = 0
    acknowledged: int = 0  # AA, CA
    errors: int = 0  # AE, CE
    unasked: int = 0  # sent as messages that want no answer
    refused: int = 0  # AR, CR, still after every attempt
    lost: int = 0
    resent: int = 0
    unmatched: int = 0  # answers to something else than what was asked: dropped
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


async def send(
    messages: Iterable[M],
    host: str,
    port: int,
    rate: float = 0.0,
    connections: int = 4,
    on_answer: Callable[[M, Answer | None], None] | None = None,
    *,
    attempts: int = 8,
    timeout: float = 30.0,  # noqa: ASYNC109 - of one answer, not of the call
    backoff: float = 0.1,
    longest_backoff: float = 5.0,
    tls: ssl.SSLContext | None = None,
) -> Sent:
    """Send all messages and answer with what became of them.

    `rate` is messages a second over all connections, on a schedule fixed at the start: a slow moment is caught up
    with, not added; 0 sends as fast as answers come. `on_answer` is called once a message, with None where it is lost.
    A message is transmitted up to `attempts` times, `backoff` seconds apart, doubled up to `longest_backoff`.
    Raises StackDown where no connection could be made so many times in a row, or where the listener's
    certificate is not trusted: the rest is not sent then.
    """
    if rate < 0 or connections < 1 or attempts < 1:
        raise UsageError("rate must not be negative; connections and attempts at least 1")
    total = Sent()
    lines = [
        _Line(host, port, total, on_answer, attempts, timeout, backoff, longest_backoff, tls)
        for _ in range(connections)
    ]
    began = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for line in lines:
                group.create_task(line.run())
            await _feed(messages, lines, rate)
    except BaseExceptionGroup as failed:  # not except*: what is raised in it comes out in a group again
        downs, others = failed.split(StackDown)
        if others is not None or downs is None:
            raise
        raise downs.exceptions[0] from None
    finally:
        for line in lines:
            line.close()
        total.seconds = time.perf_counter() - began
    return total


async def _feed(messages: Iterable[M], lines: list[_Line[M]], rate: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for index, message in enumerate(messages):
        if rate:
            ahead = began + index / rate - loop.time()
            if ahead > 0:
                await asyncio.sleep(ahead)
        # crc32 and not hash(): the same run must use the same connections every time
        queue = lines[zlib.crc32(message.patient.encode()) % len(lines)].queue
        if not index % 64:  # putting into a queue with room does not wait: let the lines have their turn
            await asyncio.sleep(0)
        await queue.put(message)
    for line in lines:
        await line.queue.put(None)


class _Line(Generic[M]):
    """One connection and the messages that go through it."""

    def __init__(
        self,
        host: str,
        port: int,
        total: Sent,
        on_answer: Callable[[M, Answer | None], None] | None,
        attempts: int,
        patience: float,
        backoff: float,
        longest_backoff: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.queue: asyncio.Queue[M | None] = asyncio.Queue(_QUEUED)
        self._host, self._port = host, port
        self._tls = tls
        self._total, self._on_answer = total, on_answer
        self._attempts, self._patience = attempts, patience
        self._backoff, self._longest_backoff = backoff, longest_backoff
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        while (message := await self.queue.get()) is not None:
            answer = await self._settle(message)
            self._count(answer)
            if self._on_answer is not None:
                self._on_answer(message, answer)
        await self._hang_up()

    def close(self) -> None:
        """Let go of the connection without waiting, for the way out of an error."""
        if self._writer is not None:
            self._writer.close()

    def _count(self, answer: Answer | None) -> None:
        total = self._total
        if answer is None:
            total.lost += 1
            return
        if answer.code == UNASKED:
            total.unasked += 1
            return
        total.latencies.append(answer.seconds)
        if answer.code in ("AA", "CA"):
            total.acknowledged += 1
        elif answer.code in ("AE", "CE"):
            total.errors += 1
        else:
            total.refused += 1

    async def _settle(self, message: M) -> Answer | None:
        """Transmit until there is a final answer or no attempt left."""
        frame, control = b"%b%b%b" % (_START, message.body, _END), control_id(message.body)
        refused: Answer | None = None
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(self._pause(attempt))
            reader, writer = await self._connect()
            if attempt:
                self._total.resent += 1
            else:
                self._total.sent += 1
            began = time.perf_counter()
            try:
                async with asyncio.timeout(self._patience):
                    writer.write(frame)
                    await writer.drain()
                    if not conditions(message.body, "AA"):  # MSH-15 and MSH-16 ask for no answer to a good message
                        return Answer(UNASKED, b"", 0.0)
                    code, body = await self._answer_to(control, reader)
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
                # An answer that comes after its time must not meet the next message: a new connection.
                await self._hang_up()
                continue
            answer = Answer(code, body, time.perf_counter() - began)
            if code not in ("AR", "CR"):
                return answer
            refused = answer
        return refused

    async def _answer_to(self, control: bytes, reader: asyncio.StreamReader) -> tuple[str, bytes]:
        """The next answer that names our message. One that names none is ours too: a receiver which cannot read a
        message cannot name it, and nothing else is under way here."""
        while True:
            frame = await reader.readuntil(_END)
            body = frame[frame.rfind(_START, 0, 64) + 1 : -len(_END)]
            code, names = acknowledgement(body)
            if code and names in (control, b""):
                return code, body
            self._total.unmatched += 1

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for attempt in range(self._attempts):
            if self._reader is not None and self._writer is not None:
                if not (self._reader.at_eof() or self._writer.is_closing()):
                    return self._reader, self._writer
                await self._hang_up()
            if attempt:
                await asyncio.sleep(self._pause(attempt))
            try:
                async with asyncio.timeout(self._patience):
                    self._reader, self._writer = await asyncio.open_connection(
                        self._host, self._port, limit=_ANSWER_LIMIT, ssl=self._tls
                    )
                return self._reader, self._writer
            except ssl.SSLError as error:
                raise StackDown(f"no TLS with {self._host}:{self._port}: {error.reason}") from None
            except (OSError, TimeoutError):
                continue
        raise StackDown(f"no MLLP listener answers at {self._host}:{self._port}")

    def _pause(self, attempt: int) -> float:
        return float(min(self._longest_backoff, self._backoff * 2 ** (attempt - 1)))

    async def _hang_up(self) -> None:
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def control_id(body: bytes) -> bytes:
    """MSH-10 as bytes, empty where there is none."""
    fields = body.partition(b"\r")[0].split(body[3:4] or b"|", 10)
    return fields[9] if fields[0] == b"MSH" and len(fields) > 9 else b""


def acknowledgement(body: bytes) -> tuple[str, bytes]:
    """MSA-1 and MSA-2 of an answer; both empty where it is none."""
    separator = body[3:4] or b"|"
    for segment in body.replace(b"\n", b"\r").split(b"\r"):
        if segment.startswith(b"MSA" + separator):
            fields = segment.split(separator, 3)
            return fields[1].decode("ascii", "replace"), fields[2] if len(fields) > 2 else b""
    return "", b""
