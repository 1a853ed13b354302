"""What Faust hands over must be all of a partition, in order: an offset that was left out ends the process.

Faust 0.15.3 clears its buffers at a rebalance and trusts its own idea of where it was. Where that is wrong, messages
are skipped; when exactly one was, the commit even passes over it (`Consumer._new_offset` compares with `> 1` the
first acknowledged offset to the committed one, which is itself still to be read) and it is lost for good. Our raw
topics have no holes: neither transactions nor compaction make any. So whatever is neither in our hands nor committed
by anybody, nor deleted by the topic's retention, was skipped, and a new process reads it again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from infra.errors import WardstreamError


class MessagesSkipped(WardstreamError):
    """The consumer left messages out: nothing after them may be acknowledged by this process."""

    reason = "messages_skipped"


class Gapless:
    """`committed` gives a partition's committed offset (None: there is none), `earliest` the first that Kafka keeps."""

    def __init__(self, committed: Callable[[Any], int | None], earliest: Callable[[Any], Awaitable[int]]) -> None:
        self._committed, self._earliest = committed, earliest
        self.wanted: dict[Any, int] = {}  # by partition: the offset after the latest that came

    async def check(self, batches: AsyncIterator[list[Any]]) -> AsyncIterator[list[Any]]:
        """The same batches. Raises MessagesSkipped in place of one after a gap."""
        async for events in batches:
            for event in events:
                await self._take(event.message.tp, event.message.offset)
            yield events

    async def _take(self, place: Any, offset: int) -> None:
        wanted = self.wanted.get(place, -1)
        if offset > wanted:  # the first of an assignment, or one after those that another worker has done
            wanted = max(wanted, self._committed(place) or 0)
        if offset > wanted:
            wanted = max(wanted, await self._earliest(place))
        if offset > wanted:
            raise MessagesSkipped(f"partition {place.partition}: {offset - wanted} messages before {offset} never came")
        self.wanted[place] = max(wanted, offset + 1)
