"""Files and folders of HL7 v2 messages: one a file, many, framed or in a batch envelope."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from infra.errors import BadMessage, UsageError, WardstreamError
from infra.settings import settings
from producers.publish import Arrival, Publisher, Receipt
from schemas.wire.hl7v2 import split_batch

SUFFIXES = (".hl7", ".hl7v2", ".er7")
AHEAD = 256  # messages that may wait for the broker


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a file; `position` counts from 0."""

    file: Path
    position: int
    body: bytes = field(repr=False)

    @property
    def patient(self) -> str:
        """What keeps its order when many are sent at once: a file does."""
        return str(self.file)


@dataclass(frozen=True, slots=True)
class Published:
    """What the broker or the reader said: a receipt, or a refusal under a reason."""

    message: Message
    receipt: Receipt | None
    problem: BadMessage | None


def files(paths: Iterable[Path]) -> list[Path]:
    """The message files under paths, in order. A file named outright is taken whatever its name.

    Raises UsageError for a path that is not there, and where no file is found.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            found += sorted(one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file())
        else:
            raise UsageError(f"there is no {path}")
    if not found:
        raise UsageError(f"no {', '.join(SUFFIXES)} file in there")
    return found


def messages(found: Iterable[Path]) -> Iterator[Message]:
    for path in found:
        for position, body in enumerate(split_batch(path.read_bytes())):
            yield Message(path, position, body)


async def publish(
    publisher: Publisher,
    found: Iterable[Message],
    read: Callable[[bytes, datetime, BadMessage | None], Arrival],
    on_done: Callable[[Published], None],
) -> None:
    """Publish all messages, in order, AHEAD at once; each is done when the broker has confirmed it."""
    slots = asyncio.Semaphore(AHEAD)

    async def one(message: Message) -> None:
        try:
            if len(message.body) > settings().mllp_max_bytes:
                raise BadMessage("too_large")
            receipt = await publisher.publish(read(message.body, datetime.now(UTC), None))
            on_done(Published(message, receipt, None))
        except BadMessage as bad:
            on_done(Published(message, None, bad))
        except WardstreamError as error:
            on_done(Published(message, None, BadMessage(error.reason)))
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        for message in found:
            await slots.acquire()
            group.create_task(one(message))
