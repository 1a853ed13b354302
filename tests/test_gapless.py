"""Offsets that the consumer left out: shown to end the process, whatever the rebalance; nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from streams.gapless import Gapless, MessagesSkipped


class Place(NamedTuple):
    topic: str
    partition: int


A, B = Place("t", 0), Place("t", 1)


@dataclass(frozen=True)
class Message:
    tp: Place
    offset: int


@dataclass(frozen=True)
class Event:
    message: Message


@dataclass
class Kafka:
    committed: dict[Place, int | None] = field(default_factory=dict)
    earliest: dict[Place, int] = field(default_factory=dict)

    def gapless(self) -> Gapless:
        async def earliest(place: Place) -> int:
            return self.earliest.get(place, 0)

        return Gapless(self.committed.get, earliest)


def given(gapless: Gapless, *offsets: tuple[Place, int]) -> None:
    async def run() -> None:
        async def batches() -> AsyncIterator[list[Any]]:
            yield [Event(Message(place, offset)) for place, offset in offsets]

        async for _ in gapless.check(batches()):
            pass

    asyncio.run(run())


def test_a_partition_from_its_beginning() -> None:
    gapless = Kafka().gapless()
    given(gapless, (A, 0), (B, 0), (A, 1))
    given(gapless, (A, 2), (B, 1))
    assert gapless.wanted == {A: 3, B: 2}


@pytest.mark.parametrize("skipped", [1, 2, 100])
def test_a_gap_in_the_middle(skipped: int) -> None:
    gapless = Kafka({A: 5}).gapless()
    given(gapless, (A, 5), (A, 6))
    with pytest.raises(MessagesSkipped, match=f"partition 0: {skipped} messages"):
        given(gapless, (A, 7 + skipped))


def test_a_gap_right_after_the_committed_offset() -> None:
    """The very one that Faust's commit passes over."""
    with pytest.raises(MessagesSkipped):
        given(Kafka({A: 5}).gapless(), (A, 6))


def test_the_first_one_ever_is_missing() -> None:
    with pytest.raises(MessagesSkipped):
        given(Kafka().gapless(), (A, 1))


def test_read_again_after_a_rebalance() -> None:
    gapless = Kafka({A: 2}).gapless()
    given(gapless, (A, 2), (A, 3), (A, 4), (A, 2), (A, 3), (A, 4), (A, 5))
    assert gapless.wanted == {A: 6}


def test_read_again_does_not_hide_a_gap() -> None:
    gapless = Kafka({A: 2}).gapless()
    given(gapless, (A, 2), (A, 3), (A, 2))
    with pytest.raises(MessagesSkipped):
        given(gapless, (A, 5))


def test_another_worker_had_the_partition_meanwhile() -> None:
    kafka = Kafka({A: 0})
    gapless = kafka.gapless()
    given(gapless, (A, 0), (A, 1))
    kafka.committed[A] = 70
    given(gapless, (A, 70))
    assert gapless.wanted == {A: 71}


def test_what_retention_deleted_was_not_skipped() -> None:
    gapless = Kafka({A: 5}, {A: 30}).gapless()
    given(gapless, (A, 30))
    with pytest.raises(MessagesSkipped):
        given(gapless, (A, 32))
