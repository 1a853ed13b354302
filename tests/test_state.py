"""Keyed state: any kill point, any repetition, any order of two workers gives the state of one clean pass."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.fold import Change, Entity, fold, position, without
from streams.state import Fold, Held, Indexed, Put, advance

KEYS = ("ward", "theatre", "clinic")


@dataclass(frozen=True)
class Event:
    key: str
    at: str
    clear: dict[str, Any]


class Killed(Exception):
    """The process ended here."""


@dataclass
class Memory:
    """A store with compare-and-set, at whose every step the caller may be killed or has to wait for others.

    `steps` are what happens at each: k kill before, K kill after, w let others run, - nothing.
    """

    held: dict[str, Held] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    writes: int = 0

    async def read(self, ids: Collection[str]) -> Mapping[str, Held]:
        found = {one: self.held[one] for one in ids if one in self.held}
        await self._step()
        return found

    async def write(self, puts: Collection[Put]) -> set[str]:
        lost = set()
        for put in puts:  # a bulk request may end in its middle
            step = await self._step()
            if self.held.get(put.id) is put.held:
                self.held[put.id] = Held(put.entity, object())
                self.writes += 1
            else:
                lost.add(put.id)
            if step == "K":
                raise Killed
        return lost

    async def _step(self) -> str:
        step = self.steps.pop() if self.steps else "-"
        if step == "k":
            raise Killed
        if step == "w":
            await asyncio.sleep(0)
        return step

    def state(self) -> dict[str, Entity]:
        return {key: held.entity for key, held in self.held.items()}


def folds(batch: list[Event]) -> dict[str, Fold]:
    def of(key: str) -> Fold:
        def run(old: Entity | None) -> Entity | None:
            entity = old
            for event in batch:
                if event.key == key:
                    change = Change("unit", key, 0, event.clear)
                    entity = fold(entity, change, event.at, {"source": event.at}, lambda name, value: value)
            return entity if entity is not old else None

        return run

    return {event.key: of(event.key) for event in batch}


async def work(log: list[Event], store: Memory, start: int, size: int) -> None:
    """Workers that take batches of the log from `start`, the committed offset; a killed one is followed by another.

    Committed is what was advanced whole: the next worker takes again from there.
    """
    committed = start
    while committed < len(log):
        try:
            while committed < len(log):
                batch = log[committed : committed + size]
                await advance(store, folds(batch))
                committed += len(batch)
        except Killed:
            continue


events = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.integers(0, 4),  # few instants, so that many are late and many at once
        st.dictionaries(st.sampled_from(["beds", "nurses", "state"]), st.one_of(st.none(), st.integers(0, 9))),
    ),
    min_size=1,
    max_size=12,
).map(lambda some: [Event(key, position(f"T{at}", f"e{n}"), clear) for n, (key, at, clear) in enumerate(some)])


def clean(log: list[Event]) -> dict[str, Entity]:
    store = Memory()
    asyncio.run(work(log, store, 0, 1))
    return store.state()


@settings(max_examples=300)
@given(events, st.lists(st.sampled_from("kKw---"), max_size=40), st.integers(1, 5), st.randoms(use_true_random=False))
def test_any_crash_repetition_and_order(log: list[Event], steps: list[str], size: int, random: Any) -> None:
    """Two workers at once, one of them a zombie with old work; repeats in the log; killed anywhere."""
    mixed = log + random.sample(log, k=len(log) // 2)
    random.shuffle(mixed)
    store = Memory(steps=steps)

    async def both() -> None:
        await asyncio.gather(work(mixed, store, 0, size), work(mixed[: len(mixed) // 2], store, 0, size + 1))

    asyncio.run(both())
    assert store.state() == clean(log)


@given(events)
def test_read_again_writes_nothing(log: list[Event]) -> None:
    store = Memory()
    asyncio.run(work(log, store, 0, 3))
    before = store.writes
    asyncio.run(work(log, store, 0, 2))
    assert store.writes == before


def test_who_follows_hears_what_another_worker_wrote() -> None:
    """Both took the same event, and the other was first: nothing is left to be written, and something to be told."""
    (event,) = log = [Event("ward", position("T1", "e1"), {"beds": 3})]
    theirs = clean(log)["ward"]

    class Answers:
        async def get(self, ids: Collection[str]) -> dict[str, Any]:
            return dict.fromkeys(ids, (theirs, ("index", 1, 1)))

    heard: list[tuple[str, Entity]] = []
    store = Indexed(Answers(), told=lambda *one: heard.append(one))  # type: ignore[arg-type]
    assert asyncio.run(advance(store, folds([event]))) == 0
    assert heard == [("ward", theirs)]


def test_without_compare_and_set_a_zombie_wins() -> None:
    """What the property test is for: the same two workers lose a field when the store takes any write."""

    class Careless(Memory):
        async def write(self, puts: Collection[Put]) -> set[str]:
            return await super().write([Put(put.id, put.entity, self.held.get(put.id)) for put in puts])

    log = [Event("ward", "T1|a", {"beds": 3}), Event("ward", "T0|b", {"nurses": 2})]
    store = Careless(steps=["w", "w"])  # both have read before either writes

    async def both() -> None:
        await asyncio.gather(advance(store, folds(log[:1])), advance(store, folds(log[1:])))

    asyncio.run(both())
    assert store.state() != clean(log)


@given(st.lists(st.sampled_from("w-"), max_size=12))
def test_what_is_taken_out_of_a_history_stays_out_beside_a_worker(steps: list[str]) -> None:
    """The worker may hold the state from before: the store refuses what it makes of that, and it folds again."""
    store = Memory()
    old = Change("patient", "", 0, {}, {}, {("diagnoses", "I50|2020"): True})
    young = Change("patient", "", 0, {}, {}, {("diagnoses", "E11|2026"): True})

    def folding(change: Change, at: str) -> Fold:
        def run(entity: Entity | None) -> Entity | None:
            made = fold(entity, change, at, {}, str)
            return made if made is not entity else None

        return run

    asyncio.run(advance(store, {"p": folding(old, "T0|a")}))
    store.steps = steps

    async def both() -> None:
        await asyncio.gather(
            advance(store, {"p": folding(young, "T1|b")}), advance(store, {"p": lambda entity: without(entity, {"a"})})
        )

    asyncio.run(both())
    assert store.state()["p"]["history"] == {"diagnoses": {"E11|2026": True}}
