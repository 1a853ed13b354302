"""The sites that a worker follows: what their gauges say, and what becomes of them when a partition goes elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import generate_latest

from streams import occupancy
from streams.fold import Change, Entity
from streams.occupancy import Sites
from tests.entities import SITE, bed, entities, found, step

MINE, OTHERS = {0, 1}, {2}


@dataclass
class Held:
    """An index and a key store that answer from memory."""

    found: dict[str, Entity]
    gone: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    meanwhile: Callable[[], None] = lambda: None

    async def find(self, query: dict[str, Any]) -> dict[str, Entity]:
        self.asked += 1
        made = found(self.found, query)
        await asyncio.sleep(0)
        self.meanwhile()
        return made

    def erased(self, refs: set[str]) -> set[str]:
        return refs & self.gone

    def merged(self) -> dict[str, str]:
        return self.aliases


def event(site: str = SITE, partition: int = 0, *, declared: bool = False) -> Any:
    clear = {"site": site} | ({"declared": True} if declared else {})
    return SimpleNamespace(
        changes=[Change("location", "x", None, clear)], incoming=SimpleNamespace(partition=partition)
    )


def shown(word: str) -> set[str]:
    return {line for line in generate_latest().decode().splitlines() if word in line and not line.startswith("#")}


@pytest.fixture
def made() -> tuple[Sites, Held]:
    said = [bed("ICU 1 1"), bed("ICU 1 2"), bed("ICU 1 3", bed_status="C"), step("P", "A01", 7, "ICU 1 1")]
    held = Held(entities(said))
    return Sites(held, held), held  # type: ignore[arg-type]


def occupied() -> set[str]:
    return shown(f'wardstream_bed_occupancy_ratio{{site="{SITE}"')


async def test_gauges_follow_a_site(made: tuple[Sites, Held]) -> None:
    sites, held = made
    await sites.follow([event()])
    await sites.watch(MINE)
    assert occupied() == {f'wardstream_bed_occupancy_ratio{{site="{SITE}",unit="ICU"}} 0.5'}
    told = shown(f'wardstream_beds{{site="{SITE}"')
    assert {line.split("status=")[1].split(",")[0] for line in told} == {'"C"', '"O"', '"U"'}
    for name, entity in entities([step("P", "A01", 7, "ICU 1 1"), step("P", "A03", 9)]).items():
        sites.take(name, entity)
    await sites.watch(MINE)
    assert occupied() == {f'wardstream_bed_occupancy_ratio{{site="{SITE}",unit="ICU"}} 0.0'}
    assert '"O"' not in str(shown(f'wardstream_beds{{site="{SITE}"')), "a status without beds is no longer shown"
    await sites.follow([event()])
    assert held.asked == 1, "once a site, and not once an event"
    await sites.watch(OTHERS)
    assert occupied() == set(), "its partition is another worker's"
    assert list(sites.live) == []


async def test_units_that_a_message_names_get_no_gauge(made: tuple[Sites, Held]) -> None:
    sites, _ = made
    for name, entity in entities([step("Q", "A01", 7, "Quetzalcoatlus 1 1")]).items():
        sites._index.found[name] = entity  # type: ignore[attr-defined]
    await sites.follow([event()])
    await sites.watch(MINE)
    assert shown("Quetzalcoatlus") == set()
    await sites.watch(OTHERS)


async def test_whoever_was_erased_is_not_followed(made: tuple[Sites, Held]) -> None:
    sites, held = made
    await sites.follow([event()])
    assert len(sites.live.board(SITE, datetime(2026, 3, 1, 12, tzinfo=UTC)).stays) == 1
    held.gone = {"P"}
    sites.forget()
    await sites.follow([event()])
    assert sites.live.board(SITE, datetime(2026, 3, 1, 12, tzinfo=UTC)).stays == {}
    await sites.watch(OTHERS)


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COME, GONE = step("P", "A01", 7, "ICU 1 1"), step("P", "A03", 9)


async def test_a_quiet_site_s_gauges_forget_whoever_was_erased(made: tuple[Sites, Held]) -> None:
    sites, held = made
    await sites.follow([event()])
    await sites.watch(MINE)
    assert occupied() == {f'wardstream_bed_occupancy_ratio{{site="{SITE}",unit="ICU"}} 0.5'}
    held.gone = {"P"}
    sites.forget()
    await sites.watch(MINE)
    assert occupied() == {f'wardstream_bed_occupancy_ratio{{site="{SITE}",unit="ICU"}} 0.0'}, "without any event"
    await sites.watch(OTHERS)


async def test_what_another_worker_wrote_is_read_once_the_partition_is_back(made: tuple[Sites, Held]) -> None:
    """It was away for less time than from one look at the partitions to the next."""
    sites, held = made
    await sites.follow([event()])
    held.found |= entities([COME, GONE])
    sites.forget()  # as the agent does when partitions are revoked
    await sites.follow([event()])
    assert sites.live.board(SITE, NOON).stays == {}
    await sites.watch(OTHERS)


async def test_a_stay_that_moved_to_another_worker_s_site_leaves(made: tuple[Sites, Held]) -> None:
    sites, held = made
    await sites.follow([event()])
    for name in entities([COME]):
        held.found[name] = held.found[name] | {"site": "SOUTH"}
    for _ in range(occupancy.MOVED_EVERY):
        await sites.watch(MINE)
    assert sites.live.board(SITE, NOON).stays == {}
    assert occupied() == {f'wardstream_bed_occupancy_ratio{{site="{SITE}",unit="ICU"}} 0.0'}
    for name in entities([COME]):  # and comes back
        held.found[name] = held.found[name] | {"site": SITE}
        sites.take(name, held.found[name])
    assert len(sites.live.board(SITE, NOON).stays) == 1
    await sites.watch(OTHERS)


@pytest.mark.parametrize("site", [SITE, "FAC"])
async def test_a_merge_that_is_told_late_joins_what_is_held_no_more(made: tuple[Sites, Held], site: str) -> None:
    """The survivor's discharge from the same visit was forgotten before anybody knew that the two are one."""
    sites, held = made
    (name,) = ends = entities([{**step("Q", "A03", 9, "", "VP"), "site": site}])
    held.found |= ends
    await sites.follow([event()])
    assert name not in sites.live.held(SITE)
    held.aliases = {"P": "Q"}
    for _ in range(occupancy.MOVED_EVERY):
        await sites.watch(MINE)
    assert occupied() == {f'wardstream_bed_occupancy_ratio{{site="{SITE}",unit="ICU"}} 0.0'}
    version = sites.live.version(SITE)
    for _ in range(2 * occupancy.MOVED_EVERY):
        await sites.watch(MINE)
    assert sites.live.version(SITE) == version, "nothing more has changed"
    await sites.watch(OTHERS)


@pytest.mark.parametrize("looks", [False, True])
async def test_what_was_written_while_the_index_was_read_is_newer(made: tuple[Sites, Held], looks: bool) -> None:
    sites, held = made
    (name,) = entities([COME])

    def written() -> None:
        held.meanwhile = lambda: None
        sites.take(name, entities([COME, GONE, step("P", "A13", 10, "ICU 1 2")])[name])

    if looks:
        await sites.follow([event()])
        held.found[name] = held.found[name] | {"site": "SOUTH"}
        held.meanwhile = written
        for _ in range(occupancy.MOVED_EVERY):
            await sites.watch(MINE)
    else:
        held.meanwhile = written
        await sites.follow([event()])
    assert list(sites.live.board(SITE, NOON).lying) == ["ICU|1|2"]
    await sites.watch(OTHERS)


async def test_whoever_is_erased_while_the_index_is_read_is_not_followed(made: tuple[Sites, Held]) -> None:
    sites, held = made

    def erase() -> None:
        held.meanwhile = lambda: None
        del held.found[next(iter(entities([COME])))]
        sites.forget()

    held.meanwhile = erase
    await sites.follow([event()])
    assert sites.live.board(SITE, NOON).stays == {}
    await sites.watch(OTHERS)


async def test_sites_are_bounded(made: tuple[Sites, Held], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occupancy, "MOST_SITES", 2)
    sites, held = made
    await sites.follow([event(f"S{n}") for n in range(5)])
    assert len(list(sites.live)) == 2
    assert held.asked == 2
    assert shown("wardstream_sites_left_out_total{") == {'wardstream_sites_left_out_total{domain="allocation"} 3.0'}
    await sites.watch(OTHERS)


async def test_a_site_that_nobody_declared_gives_way(made: tuple[Sites, Held], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occupancy, "MOST_SITES", 3)
    sites, _ = made
    await sites.follow([event("X1"), event(), event("X2"), event("X1")])
    await sites.follow([event("Y")])
    assert set(sites.live) == {SITE, "X1", "X2"}, "made-up names that come all the time are not read one by one"
    await sites.follow([event("Y", declared=True)])
    assert set(sites.live) == {SITE, "X1", "Y"}, "the one without an event for longest goes"
    monkeypatch.setattr(occupancy, "QUIET_SECONDS", 0.0)
    await sites.follow([event("Z"), event("X3"), event("X4")])
    assert SITE in sites.live, "its beds were declared"
    assert "X4" in sites.live
    assert len(sites.live._versions) == len(sites._shown.keys() | sites._partitions) == 3, (
        "nothing is kept of the others"
    )
    await sites.watch(OTHERS)
