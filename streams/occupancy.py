"""The sites that a worker follows: in memory, with the gauges of their beds."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from infra import metrics
from infra.elastic import Index
from infra.errors import KeyStoreBusy
from infra.keystore import KeyStore
from streams.allocation import live
from streams.allocation.board import Board
from streams.allocation.live import Live
from streams.fold import Entity
from streams.process import Ready

MOST_SITES = 200  # that one worker follows: messages may name any
MOST_UNITS = 500  # of all sites, with gauges of their own
Labels = tuple[str, ...]


class Sites:
    """A site is followed from its first event on, for as long as its partition is this worker's."""

    def __init__(self, index: Index, keys: KeyStore) -> None:
        self.live = Live()
        self._index, self._keys = index, keys
        self._partitions: dict[str, int] = {}
        self._shown: dict[str, int] = {}  # version that the gauges show
        self._gauges: dict[str, dict[tuple[Any, Labels], float]] = {}

    def take(self, name: str, entity: Entity) -> None:
        """An entity that was written."""
        self.live.take({name: entity})

    async def follow(self, ready: Sequence[Ready]) -> None:
        """Begin with what the index holds, for the sites that these events are the first of."""
        for event in ready:
            for site in {change.clear["site"] for change in event.changes if "site" in change.clear}:
                if site not in self._partitions and len(self._partitions) >= MOST_SITES:
                    continue
                self._partitions[site] = event.incoming.partition
                if site not in self.live:
                    self.live.follow(site, await self._read(site))

    async def _read(self, site: str) -> Mapping[str, Entity]:
        """Whoever was erased may still be in the index, and not here."""
        merged = await asyncio.to_thread(self._keys.merged)
        found = await self._index.find(live.wanted(datetime.now(UTC), site=site))
        if (query := live.closed(found.values(), site, merged)) is not None:
            found |= await self._index.find(query)
        about = {
            name: {one["patient_ref"]} if "patient_ref" in one else set(one.get("staff_ref", ()))
            for name, one in found.items()
        }
        erased = await asyncio.to_thread(self._keys.erased, set().union(*about.values()))
        return {name: one for name, one in found.items() if about[name].isdisjoint(erased)}

    def forget(self) -> None:
        """Somebody was erased, and might be among them: begin again."""
        self.live.forget()

    async def watch(self, partitions: Collection[int]) -> None:
        """Drop the sites of partitions that went elsewhere, and bring the gauges of changed ones forward."""
        gone = [site for site, partition in self._partitions.items() if partition not in partitions]
        for site in gone:
            del self._partitions[site]
            self._set(site, {})
        self.live.forget(gone)
        if changed := [site for site in self.live if self.live.version(site) != self._shown.get(site)]:
            try:
                merged = await asyncio.to_thread(self._keys.merged)
            except KeyStoreBusy:
                return  # the next look will do
            for site in set(changed) & set(self.live):
                self._shown[site] = self.live.version(site)
                self._set(site, _gauges(self.live.board(site, merged=merged)))

    def _set(self, site: str, wanted: dict[tuple[Any, Labels], float]) -> None:
        before = self._gauges.pop(site, {})
        others = sum(gauge is metrics.OCCUPANCY for some in self._gauges.values() for gauge, _ in some)
        if others + sum(gauge is metrics.OCCUPANCY for gauge, _ in wanted) > MOST_UNITS:
            wanted = {}
        for gauge, labels in before.keys() - wanted.keys():
            gauge.remove(*labels)
        for (gauge, labels), value in wanted.items():
            gauge.labels(*labels).set(value)
        if wanted:
            self._gauges[site] = wanted


def _gauges(of: Board) -> dict[tuple[Any, Labels], float]:
    """Values by gauge and labels, of declared units alone: others are named by messages, which may say anything."""
    site = of.site.id
    if not of.declared:
        return {}
    made: dict[tuple[Any, Labels], float] = {}
    for (unit, status), count in of.counts().items():
        if unit in of.declared:
            made[metrics.BEDS, (site, unit, status)] = count
    for unit in of.declared:
        usable = [bed for bed in of.site.beds.values() if bed.unit == unit and bed.status != "C"]
        if usable:
            made[metrics.OCCUPANCY, (site, unit)] = sum(bed.id in of.lying for bed in usable) / len(usable)
    for priority, count in of.waiting().items():
        made[metrics.WAITING, (site, str(min(priority, 9)))] = count
    for conflict in of.conflicts:
        one = metrics.CONFLICTS, (site, conflict.kind)
        made[one] = made.get(one, 0) + 1
    return made
