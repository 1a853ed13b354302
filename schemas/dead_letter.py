"""A dead letter: the event as it came, still sealed, with the reason it could not go on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

from schemas.envelope import Headers


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Headers beside the Envelope's. `where` is a place in the standard's words, never a content."""

    reason: str  # a code from our own tables
    where: str  # PID-3, MSH-18; empty where the whole message is meant
    stage: str  # edge: refused by a feed with AE; agent: refused after its AA
    topic: str  # where it was read from; empty at the edge
    partition: str
    offset: str
    failed_at: str  # RFC 3339

    def headers(self) -> Headers:
        return [(f"dlq_{name}", value.encode()) for name, value in zip(_NAMES, astuple(self), strict=True)]

    @classmethod
    def read(cls, headers: Iterable[tuple[str, bytes]]) -> DeadLetter:
        found = dict(headers)
        return cls(*(found.get(f"dlq_{name}", b"").decode() for name in _NAMES))

    def place(self, event_id: str) -> str:
        """What makes two dead letters the same one: where it was read from, or the event where an edge refused it."""
        return f"{self.topic}/{self.partition}/{self.offset}" if self.topic else event_id


_NAMES = tuple(field.name for field in fields(DeadLetter))
