"""The sites that a worker follows: in memory, with the gauges of their beds.

Memory is what the index holds, as long as nobody else writes: so a site is read again once its partition may have been
another worker's, and a stay that moves to a site of another worker is looked for where it is now.
"""

from __future__ import annotations

import asyncio
import time
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
QUIET_SECONDS = 60.0  # without an event, until a site that nobody declared gives way to another
MOST_UNITS = 500  # of all sites, with gauges of their own
MOVED_EVERY = 12  # looks at the gauges, from one look for stays that went elsewhere to the next
Labels = tuple[str, ...]


class Sites:
    """A site is followed from its first event on, for as long as its partition is this worker's."""

    def __init__(self, index: Index, keys: KeyStore) -> None:
        self.live = Live()
        self._index, self._keys = index, keys
        self._partitions: dict[str, int] = {}
        self._seen: dict[str, float] = {}  # time.monotonic() of each one's last event, the longest ago first
        self._shown: dict[str, int] = {}  # version that the gauges show
        self._gauges: dict[str, dict[tuple[Any, Labels], float]] = {}
        self._looks = 0
        self._begun = 0  # how often all was forgotten: what was read before is not taken in after
        self._reading = asyncio.Lock()
        self._written: dict[str, Entity] = {}  # while the index is read: what it answers may be older

    def take(self, name: str, entity: Entity) -> None:
        """An entity that was written."""
        self.live.take({name: entity})
        if self._reading.locked():
            self._written[name] = entity

    async def follow(self, ready: Sequence[Ready]) -> None:
        """Begin with what the index holds, for the sites that these events are the first of."""
        for event in ready:
            for change in event.changes:
                if (site := change.clear.get("site")) is None:
                    continue
                if site not in self._partitions and not self._room(_declares(change.clear)):
                    metrics.SITES_LEFT_OUT.labels("allocation").inc()
                    continue
                self._partitions[site] = event.incoming.partition
                self._seen.pop(site, None)
                self._seen[site] = time.monotonic()
                await self._begin(site)

    def _room(self, declared: bool) -> bool:
        """Whether one more can be followed, `declared` by this event; for it a site that nobody declared may go.

        Not every time: made-up sites without end would have the index read for each.
        """
        if len(self._partitions) < MOST_SITES:
            return True
        quiet = time.monotonic() - (0 if declared else QUIET_SECONDS)
        for site, at in self._seen.items():
            if at <= quiet and site in self.live and not self.live.declared(site):
                self._drop([site])
                return True
        return False

    def _drop(self, sites: Collection[str]) -> None:
        for site in sites:
            del self._partitions[site]
            self._seen.pop(site, None)
            self._shown.pop(site, None)
            self._set(site, {})
        self.live.forget(sites)

    async def _begin(self, site: str) -> None:
        """Follow a site as the index has it, with what was written since it was asked."""
        if site in self.live:
            return
        async with self._reading:
            while site in self._partitions and site not in self.live:
                self._written, begun = {}, self._begun
                found = await self._read(site)
                newer = {name: one for name, one in self._written.items() if name in found or one.get("site") == site}
                if begun == self._begun and site in self._partitions:
                    self.live.follow(site, found | newer)

    async def _look_elsewhere(self, site: str) -> None:
        """Stays of a followed site that another site's events have moved, or told on under another reference."""
        async with self._reading:
            if site not in self.live:
                return
            self._written, begun = {}, self._begun
            query = live.elsewhere(site, self.live.held(site), await asyncio.to_thread(self._keys.merged))
            found = await self._found(query) if query else {}
            if begun == self._begun and site in self.live:
                self.live.beside(site, {name: one for name, one in found.items() if name not in self._written})

    async def _read(self, site: str) -> dict[str, Entity]:
        merged = await asyncio.to_thread(self._keys.merged)
        found = await self._found(live.wanted(datetime.now(UTC), site=site))
        if (query := live.closed(found.values(), site, merged)) is not None:
            found |= await self._found(query)
        return found

    async def _found(self, query: live.Query) -> dict[str, Entity]:
        """Whoever was erased may still be in the index, and not here."""
        found = await self._index.find(query)
        about = {
            name: {one["patient_ref"]} if "patient_ref" in one else set(one.get("staff_ref", ()))
            for name, one in found.items()
        }
        erased = await asyncio.to_thread(self._keys.erased, set().union(*about.values()))
        return {name: one for name, one in found.items() if about[name].isdisjoint(erased)}

    def follows(self, site: str) -> bool:
        """Also while it is being read."""
        return site in self._partitions

    def forget(self) -> None:
        """Begin again: somebody was erased, and might be among them, or a partition was another worker's."""
        self.live.forget()
        self._begun += 1

    async def watch(self, partitions: Collection[int]) -> None:
        """Drop the sites of partitions that went elsewhere, and bring the gauges of changed ones forward."""
        self._drop([site for site, partition in self._partitions.items() if partition not in partitions])
        self._looks += 1
        try:
            for site in tuple(self._partitions):  # also where no event comes: its gauges would stand still
                await self._begin(site)
                if self._looks % MOVED_EVERY == 0:
                    await self._look_elsewhere(site)
        except KeyStoreBusy:
            return  # the next look will do
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


def _declares(one: Mapping[str, Any]) -> bool:
    """Whether somebody vouches for a site: by a bed that an operations event has told."""
    return bool(one.get("declared"))


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
