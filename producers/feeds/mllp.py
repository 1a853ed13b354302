"""HL7 v2 over MLLP (HL7 implementation guide for transport, release 1): frames in, answers out.

A frame is 0B, message, 1C 0D. An answer says AA, or CA, only once the broker has confirmed the event: our AA means
"durably accepted". Messages of one connection are answered in their order, however many the peer sends ahead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from infra import metrics, tls
from infra.errors import BadMessage, WardstreamError
from infra.settings import settings
from producers.publish import Arrival, Publisher, Receipt
from schemas.wire.hl7v2 import acknowledge, conditions, refusal

START, END = b"\x0b", b"\x1c"
BLANK = b" \t\r\n"
FEED = "mllp"
AHEAD = 64  # messages of one connection that may wait for their answers
STOP_SECONDS = 3.0  # what is left for answers when a listener has to end
HEADER_BYTES = 4096  # what is kept of a message that is too large: enough to answer it


@dataclass(frozen=True, slots=True)
class Frame:
    """What stood between two marks. `problem` says why it is no message, where the framing alone shows it."""

    body: bytes = field(repr=False)
    problem: BadMessage | None = None


class Frames:
    """Cuts a stream of bytes into frames, however the network cut it. Pure: bytes in, frames out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._inside = False  # after 0B
        self._searched = 0
        self._head: bytes | None = None  # of a frame that grew too large and is being skipped

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    def end(self) -> Iterator[Frame]:
        """What is left when the peer has gone."""
        if self._inside:
            body = self._head if self._head is not None else bytes(self._buffer)
            if self._head is None and body.endswith(END):
                yield Frame(body[:-1])
            else:
                yield Frame(body, BadMessage("truncated_frame"))
        elif self._buffer.strip(BLANK):
            yield Frame(bytes(self._buffer), BadMessage("no_frame"))
        self._buffer.clear()
        self._inside, self._head = False, None

    def _next(self) -> Frame | None:
        return self._inside_frame() if self._inside else self._outside_frame()

    def _outside_frame(self) -> Frame | None:
        start = self._buffer.find(START)
        noise = bytes(self._buffer if start < 0 else self._buffer[:start])
        if start >= 0:
            del self._buffer[: start + 1]
            self._inside, self._searched = True, 0
            if noise.strip(BLANK + END):
                return Frame(noise, BadMessage("no_frame"))
            return self._inside_frame()
        if len(noise) > self._limit:
            self._buffer.clear()
            return Frame(noise[:HEADER_BYTES], BadMessage("too_large"))
        return None

    def _inside_frame(self) -> Frame | None:
        buffer = self._buffer
        while True:
            end = buffer.find(END, self._searched)
            again = buffer.find(START + b"MSH", max(0, self._searched - 4), end if end >= 0 else len(buffer))
            if again >= 0:  # the peer broke off and began anew; a lone 0B is data, and the reader's to judge
                body = self._take(again, 1)
                self._inside = True
                return Frame(body, BadMessage("truncated_frame"))
            if end < 0 or end + 1 >= len(buffer):
                self._searched = len(buffer) if end < 0 else end
                self._skip_if_too_large(end)
                return None
            if buffer[end + 1] in b"\r\n\x0b":  # the CR that some forget: the next frame's 0B ends this one as well
                head, body = self._head, self._take(end, 1 if buffer[end + 1] == START[0] else 2)
                if head is not None or len(body) > self._limit:
                    self._head = None
                    return Frame((head or body)[:HEADER_BYTES], BadMessage("too_large"))
                return Frame(body)
            self._searched = end + 1

    def _skip_if_too_large(self, end: int) -> None:
        if len(self._buffer) > self._limit:
            self._head = self._head or bytes(self._buffer[:HEADER_BYTES])
            keep = 4 if end < 0 else len(self._buffer) - end
            del self._buffer[:-keep]
            self._searched = 0

    def _take(self, end: int, mark: int) -> bytes:
        body = bytes(self._buffer[:end])
        del self._buffer[: end + mark]
        self._inside, self._searched = False, 0
        return body


class Listener:
    """An MLLP server. `read` makes an arrival of a message and raises BadMessage where it is not ours to take."""

    def __init__(
        self,
        publisher: Publisher,
        read: Callable[[bytes, datetime, BadMessage | None], Arrival],
        *,
        original: bool = False,
    ) -> None:
        self._publisher, self._read, self._original = publisher, read, original
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, host: str, port: int, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Listen until `stop`; then finish what was received, answer it, and close."""
        async with tls.serving(FEED, tls.streams(self._connected), host, port) as at:
            ready(at)
            await stop.wait()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=STOP_SECONDS)
            for connection in late:  # the broker is away: unanswered, and so the peer's to send again
                connection.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        metrics.CONNECTIONS.labels(FEED).inc()
        answers: asyncio.Queue[asyncio.Task[list[bytes]] | None] = asyncio.Queue(AHEAD)
        answering = asyncio.create_task(_answer_in_order(answers, writer))
        frames = Frames(settings().mllp_max_bytes)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                async with asyncio.timeout(None) as idle:
                    while data := await _read(reader, idle):
                        for frame in frames.feed(data):
                            task = asyncio.create_task(self._answer(frame))
                            await answers.put(task)
                            if self._publisher.full:  # then the peer waits, and its messages in its own memory
                                await asyncio.wait([task])
            for frame in frames.end():
                await answers.put(asyncio.create_task(self._answer(frame)))
            await answers.put(None)
            await answering
        finally:
            answering.cancel()
            metrics.CONNECTIONS.labels(FEED).dec()
            self._connections.discard(connection)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, frame: Frame) -> list[bytes]:
        """The answers to one frame, once it is durable: mostly one."""
        started = time.perf_counter()
        metrics.RECEIVED.labels(FEED).inc()
        charset: str | None = None
        problem: BadMessage | None
        try:
            if frame.problem is not None and refusal(frame.problem.reason)[0] == "AR":
                raise frame.problem
            arrival = self._read(frame.body, datetime.now(UTC), frame.problem)
            charset = arrival.charset or None
            receipt = await self._publisher.publish(arrival)
            problem = _problem(receipt)
        except BadMessage as bad:
            problem = bad
        except WardstreamError as error:  # ours, not the message's: it may come again unchanged
            problem = BadMessage(error.reason)
        except Exception as error:  # never a silent drop, and never the error's text, which may quote a patient
            problem = BadMessage("internal_error", type(error).__name__)
        metrics.ANSWER_SECONDS.labels(FEED).observe(time.perf_counter() - started)
        code = refusal(problem.reason)[0] if problem else "AA"
        answers = []
        for given in [code] if self._original else conditions(frame.body, code):
            metrics.ANSWERED.labels(FEED, given, problem.reason if problem else "").inc()
            answer = acknowledge(frame.body, given, os.urandom(10).hex(), datetime.now(UTC), problem, charset)
            answers.append(START + answer + END + b"\r")
        return answers


async def _read(reader: asyncio.StreamReader, idle: asyncio.Timeout) -> bytes:
    idle.reschedule(asyncio.get_running_loop().time() + settings().mllp_idle_seconds)
    return await reader.read(1 << 18)


def _problem(receipt: Receipt) -> BadMessage | None:
    return BadMessage(receipt.reason, receipt.where) if receipt.reason else None


async def _answer_in_order(
    answers: asyncio.Queue[asyncio.Task[list[bytes]] | None], writer: asyncio.StreamWriter
) -> None:
    """Write answers in the order of the messages. A peer that has gone gets none; its messages stay accepted."""
    while (task := await answers.get()) is not None:
        made = await task
        with contextlib.suppress(OSError):
            for answer in made:
                writer.write(answer)
            await writer.drain()
