"""Keyed state that survives: entities folded from events, each its own snapshot, changed by compare-and-set.

The snapshot of a key is one document in the store, sealed field by field under its person's key. It covers every
event below the consumer group's committed offset, since an agent acknowledges only after the document is written;
what comes after is read from Kafka again. Being read again changes nothing, because a fold keeps per field the
position of the event that gave it (streams/fold.py) and a fold that changes nothing is not written.

Compare-and-set, because a worker that was stopped and wakes after its partition went to another is still writing:
the loser reads again and folds again, so no order of the two loses a field.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from infra.cache import Cache
from infra.elastic import CONFLICT, NEW, Index, Place, Write, dump
from infra.errors import WardstreamError
from streams.fold import TERMS, Entity

Fold = Callable[[Entity | None], Entity | None]  # what is stored to what shall be; None: it stays as it is


@dataclass(frozen=True, slots=True)
class Held:
    """An entity as it was read. `mark` is the store's own: a write succeeds only while it still holds."""

    entity: Entity
    mark: Any


@dataclass(frozen=True, slots=True)
class Put:
    """An entity to write in place of what was held; None: of nothing."""

    id: str
    entity: Entity
    held: Held | None


class Store(Protocol):
    """Where entities live: the index in a worker, a dictionary in tests."""

    async def read(self, ids: Collection[str]) -> Mapping[str, Held]: ...

    async def write(self, puts: Collection[Put]) -> set[str]:
        """Gives the ids whose held state was no longer the current one: those were not written."""
        ...


async def advance(store: Store, folds: Mapping[str, Fold]) -> int:
    """Bring every entity forward, durably; gives how many were written. `folds` are by entity id."""
    written = 0
    waiting: Collection[str] = folds.keys()
    while waiting:
        held = await store.read(waiting)
        puts = [
            Put(one, entity, held.get(one))
            for one in waiting
            if (entity := folds[one](held[one].entity if one in held else None)) is not None
        ]
        waiting = await store.write(puts) if puts else ()
        written += len(puts) - len(waiting)
    return written


async def known(families: Mapping[str, Mapping[str, str]], *where: Index) -> list[tuple[str, Entity]]:
    """What entities of these persons keep of their names, by the entity's id, as last written: nothing remembered."""
    ids = sorted({made for family in families.values() for made in family.values()})
    names = ("sealed.name", f"sealed.{TERMS}")
    return [(one, held) for index in where for one, (held, _) in (await index.get(ids, names)).items()]


class Indexed:
    """Entities as documents of an index; the latest used are remembered, so that a busy ward is not read each time.

    What is remembered may be old. Then the write conflicts and the entity is read; and a fold that finds its event in
    an old state would find it in the new one too, since states only ever take events in.
    """

    def __init__(
        self, index: Index, remembered: int = 5000, told: Callable[[str, Entity], None] = lambda *_: None
    ) -> None:
        """`told` hears of each entity that was written, or read since somebody else may have written it, by its id."""
        self._index, self._told = index, told
        self._held: Cache[str, Held] = Cache(remembered)

    def forget(self) -> None:
        """Remember nothing: somebody was erased, and might be among what is remembered."""
        self._held.clear()

    async def read(self, ids: Collection[str]) -> dict[str, Held]:
        found: dict[str, Held] = {one: held for one in ids if (held := self._held.get(one)) is not None}
        if unknown := [one for one in ids if one not in found]:
            for one, stored in (await self._index.get(unknown)).items():
                found[one] = self._held.keep(one, Held(*stored))
                self._told(one, found[one].entity)
        return found

    async def write(self, puts: Collection[Put]) -> set[str]:
        """Raises WardstreamError where the index refuses an entity: a fault of ours, since its events were fine."""
        places: dict[str, Place] = {}
        writes = [Write(put.id, dump(put.entity), put.held.mark if put.held else NEW) for put in puts]
        refused = await self._index.bulk(writes, places)
        for put in puts:
            if put.id in places:
                self._held.keep(put.id, Held(put.entity, places[put.id]))
                self._told(put.id, put.entity)
            else:
                self._held.pop(put.id, None)
        if other := set(refused.values()) - {CONFLICT}:
            raise WardstreamError(f"the index refuses {len(refused)} entities: {sorted(other)}")
        return set(refused)
