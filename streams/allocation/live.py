"""Which entities a board is made of: as a query to the index, and kept in a worker's memory. Pure.

A worker that follows its sites in memory has a board at once; whoever comes from outside asks the index. Both mean the
same entities: places, shifts that are not over, requests, stays that are open, and closed stays where they count: of
those who asked for a bed, since they tell whether they got one; and of merged patients, since a stay may be open under
one reference and have ended under another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.envelope import rfc3339
from streams.allocation.board import ACTIVE, BEDDED, STAY, Board, as_one, board, person_of, stays
from streams.allocation.placement import IN, PLANNED
from streams.fold import Entity

KINDS = ("location", "shift", "resource", "placement", "request")
LONGEST_WAIT = timedelta(days=2 * 365)  # a request that nobody has told again since does not count
KEPT = timedelta(days=2)  # closed stays in a worker's memory: a discharge may be taken back
Query = dict[str, Any]


def wanted(at: datetime, kinds: Collection[str] = KINDS, site: str = "") -> Query:
    """Entities that may count at a time; `closed` tells what is to be asked for beside them."""
    now = rfc3339(at)
    of_kind: dict[str, list[Query]] = {
        "shift": [{"range": {"ends_at": {"gte": now}}}],
        "request": [{"term": {"state": ACTIVE}}, {"range": {"event_time": {"gte": rfc3339(at - LONGEST_WAIT)}}}],
        "placement": [_any({"term": {"state": PLANNED}}, _lies(), {"range": {"event_time": {"gte": now}}})],
    }
    some = [{"bool": {"filter": [{"term": {"kind": kind}}, *of_kind.get(kind, ())]}} for kind in kinds]
    return _entities(_any(*some), site)


def closed(found: Collection[Entity], site: str = "", merged: Mapping[str, str] | None = None) -> Query | None:
    """The stays of everybody who asks for a bed or was merged, closed ones included; None where there is nobody.

    `merged` gives the survivor of each reference that is an alias. A merged patient's are those of any site: a
    discharge may not say where from.
    """
    merged = merged or {}
    asked = set(asking(found))
    persons = {person_of(one, merged) for one in found if one["kind"] in ("placement", "request")}
    family = _families(persons, merged)
    some: list[Query] = []
    if asked - family:
        here = [{"term": {"site": site}}] if site else []
        some.append({"bool": {"filter": [{"terms": {"patient_ref": sorted(asked - family)}}, *here]}})
    if family:
        some.append({"terms": {"patient_ref": sorted(family)}})
    return _entities({"bool": {"filter": [{"term": {"kind": "placement"}}, _any(*some)]}}, "") if some else None


def elsewhere(site: str, held: Mapping[str, Entity], merged: Mapping[str, str]) -> Query | None:
    """What is held of a site and is another site's by now, and all stays of those who were merged; None for nothing.

    An event of the other site moves a stay, and whoever follows this one alone does not hear of it. A merge may join a
    stay with one that was over long before and is held no more.
    """
    told = {name: one for name, one in held.items() if one["kind"] == "placement"}
    if not told:
        return None
    here = [{"term": {"site": site}}]
    some: list[Query] = [{"bool": {"filter": [{"ids": {"values": sorted(told)}}], "must_not": here}}]
    if family := _families({person_of(one, merged) for one in told.values()}, merged):
        some.append({"terms": {"patient_ref": sorted(family)}})
    return _entities({"bool": {"filter": [{"term": {"kind": "placement"}}, _any(*some)]}}, "")


def _families(persons: Collection[str], merged: Mapping[str, str]) -> set[str]:
    """All references of those among these who were merged."""
    families: dict[str, set[str]] = defaultdict(set)
    for ref, survivor in merged.items():
        families[survivor] |= {ref, survivor}
    return set[str]().union(*(families[one] for one in persons if one in families))


def asking(found: Iterable[Entity]) -> list[str]:
    """References of those who have an open request."""
    return sorted({one["patient_ref"] for one in found if one["kind"] == "request" and one.get("state") == ACTIVE})


def _entities(query: Query, site: str) -> Query:
    return {"bool": {"filter": [{"term": {"part": -1}}, query] + ([{"term": {"site": site}}] if site else [])}}


def _lies() -> Query:
    bedded = _any({"exists": {"field": "bed"}}, {"terms": {"patient_class": sorted(BEDDED)}})
    return {"bool": {"filter": [{"term": {"state": IN}}, bedded]}}


def _any(*some: Query) -> Query:
    return {"bool": {"should": list(some), "minimum_should_match": 1}}


class Live:
    """The sites of one worker, in its memory: `take` what was written, ask for a board at any moment."""

    def __init__(self) -> None:
        self._sites: dict[str, dict[str, Entity]] = {}
        self._where: dict[str, str] = {}  # site of each entity: a patient may move from one to another
        self._versions: dict[str, int] = {}
        self._count = 0  # of all changes: a version never comes again, even of a site that was forgotten
        self._beside: dict[str, dict[str, Entity]] = {}  # of merged patients: what joins with stays here

    def __contains__(self, site: str) -> bool:
        return site in self._sites

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._sites))

    def version(self, site: str) -> int:
        """Another number once anything of the site has changed: whoever acts on changes keeps the one it has seen."""
        return self._versions.get(site, 0)

    def _changed(self, site: str) -> None:
        self._count += 1
        self._versions[site] = self._count

    def follow(self, site: str, found: Mapping[str, Entity]) -> None:
        """Begin with what the index holds."""
        self._sites.setdefault(site, {})
        self._beside[site] = {name: one for name, one in found.items() if one.get("site") != site}
        self.take({name: one for name, one in found.items() if one.get("site") == site})
        self._changed(site)

    def held(self, site: str) -> Mapping[str, Entity]:
        """What is in memory of a site that is followed."""
        return self._sites[site]

    def declared(self, site: str) -> bool:
        """Whether operations events have told of beds there, one by one."""
        return any(one.get("declared") for one in self._sites[site].values() if one["kind"] == "location")

    def beside(self, site: str, found: Mapping[str, Entity]) -> None:
        """What `elsewhere` found: what moved is this site's no longer; of the rest counts what is of a stay here."""
        own = self._sites[site]
        moved = [name for name, one in found.items() if name in own and one.get("site") != site]
        for name in moved:
            del own[name]
            del self._where[name]
        mine = {one.get(STAY) for one in own.values() if one["kind"] == "placement"}
        kept = {name: one for name, one in found.items() if name not in own and one.get(STAY) in mine}
        if moved or kept != self._beside[site]:
            self._beside[site] = kept
            self._changed(site)

    def forget(self, sites: Collection[str] | None = None) -> None:
        """Follow these no longer, or none: their partition went to another worker, or somebody was erased."""
        for site in tuple(self._sites if sites is None else sites):
            self._beside.pop(site, None)
            self._versions.pop(site, None)
            for name in self._sites.pop(site, {}):
                del self._where[name]

    def take(self, written: Mapping[str, Entity]) -> None:
        """Entities as they are now, of sites that are followed."""
        for name, entity in written.items():
            if entity.get("kind") not in KINDS:
                continue
            site = entity.get("site", "")
            if (before := self._where.get(name)) is not None and before != site:
                self._sites[before].pop(name, None)
                self._where.pop(name)
                self._changed(before)
            if site in self._sites:
                self._sites[site][name] = entity
                self._where[name] = site
                self._changed(site)

    def board(self, site: str, at: datetime | None = None, merged: Mapping[str, str] | None = None) -> Board:
        """The site as it is. Raises KeyError for one that is not followed."""
        at = at or datetime.now(UTC)
        self._prune(site, at, merged or {})
        return board(site, self._beside[site] | self._sites[site], at, merged)

    def _prune(self, site: str, at: datetime, merged: Mapping[str, str]) -> None:
        """Drop what no board can hold any more: memory does not grow with the past."""
        own, beside = self._sites[site], self._beside[site]
        held = beside | own
        past, now = rfc3339(at - KEPT), rfc3339(at)
        waiting = {merged.get(ref, ref) for ref in asking(held.values())}
        over = [
            name
            for name, one in own.items()
            if (one["kind"] == "shift" and one.get("ends_at", now) < past)
            or (one["kind"] == "request" and one["state"] != ACTIVE and one["event_time"] < past)
        ]
        for some in stays(held, merged):  # whole: what is left of one would be open
            one = as_one([held[name] for name in some])
            if (_closed(one, past) or _nowhere(one)) and person_of(one, merged) not in waiting:
                over += some
        for name in over:
            beside.pop(name, None)
            if own.pop(name, None) is not None:
                del self._where[name]


def _closed(one: Entity, past: str) -> bool:
    return one.get("state") not in (IN, PLANNED) and one["event_time"] < past


def _nowhere(one: Entity) -> bool:
    """Somebody who is in, in no bed and of a class that has none: an outpatient, whom most feeds never discharge."""
    return one.get("state") == IN and not one.get("bed") and one.get("patient_class") not in BEDDED
