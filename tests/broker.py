"""A stand-in for the producer, for tests of what comes before it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from infra.kafka import Outgoing, PublishFailed


class Broker:
    """Confirms while `open` is set, or fails as often as told."""

    def __init__(self, *, is_open: bool) -> None:
        self.open = asyncio.Event()
        if is_open:
            self.open.set()
        self.failures = 0
        self.sent: list[Outgoing] = []

    async def send(self, messages: Iterable[Outgoing]) -> None:
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise PublishFailed("planted")
        self.sent += messages
