"""What a worker does with outcomes when something happens meanwhile: on an index that remembers, and a broker that
takes everything. The same with real servers: test_quality_stack.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from infra.crypto import DataKey
from infra.kafka import Outgoing
from schemas.envelope import rfc3339
from schemas.outcome_charts import CHART, RAISED, WITHDRAWN, number
from schemas.signal import SignalEnvelope
from streams import surveillance
from streams.beside import Beside, BesideFailed
from streams.fold import Entity
from streams.models import Card, Data
from streams.quality.cases import measured
from streams.quality.units import UNIT
from streams.state import Held, Put
from streams.surveillance import Surveillance, Watched

SITE, MEASURE = "EAST", "complication"
BEGIN = datetime.fromisoformat("2026-01-05T08:00:00Z")


def case(record: int, event: bool, risk: float | None = 0.1, **more: Any) -> tuple[str, Entity]:
    """The entity of a stay of one day, a day after the one before."""
    begun, ended = BEGIN + timedelta(days=record), BEGIN + timedelta(days=record + 1)
    return f"case-{record:03}", {
        "kind": "case", "part": -1, "state": "active", "site": SITE, "unit": "ORTH", "patient_ref": f"p{record}",
        "event_time": rfc3339(ended), "received_at": rfc3339(ended), "admitted_at": rfc3339(begun),
        "discharged_at": rfc3339(ended), "age": 70,
        "history": {"units": {rfc3339(begun): "ORTH"}, "outcomes": {MEASURE: {"event": event, "risk": risk}}},
    } | more  # fmt: skip


class Entities:
    """The domain's index, in memory, which tells of each write."""

    def __init__(self) -> None:
        self.held: dict[str, Entity] = {}
        self.told: Callable[[str, Entity], None] = lambda *_: None
        self.meanwhile: Callable[[], None] = lambda: None

    async def read(self, ids: Collection[str]) -> Mapping[str, Held]:
        return {one: Held(self.held[one], 1) for one in ids if one in self.held}

    async def write(self, puts: Collection[Put]) -> set[str]:
        for one in puts:
            self.put(one.id, one.entity)
        return set()

    def put(self, name: str, entity: Entity) -> None:
        self.held[name] = entity
        self.told(name, entity)

    async def find(self, query: Any) -> dict[str, Entity]:
        found = dict(self.held)
        self.meanwhile()
        await asyncio.sleep(0)
        return found

    async def behind(self) -> str:
        return "quality-v1"


class Documents:
    """The index of charts, in memory."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}

    async def find(self, query: Any) -> dict[str, dict[str, Any]]:
        kind = next(one["term"]["kind"] for one in query["bool"]["filter"] if "kind" in one.get("term", {}))
        return {id: one for id, one in self.held.items() if one["kind"] == kind}

    async def bulk(self, writes: Sequence[Any]) -> dict[str, str]:
        self.held |= {one.id: json.loads(one.source) for one in writes}
        return {}

    async def remove_of(self, query: Any) -> int:
        (refs,) = (
            one["terms"]["patient_ref"] for one in query["bool"]["should"] if "patient_ref" in one.get("terms", {})
        )
        self.held = {id: one for id, one in self.held.items() if not set(refs) & set(one.get("patient_ref", ()))}
        return 0

    def chart(self) -> dict[str, Any]:
        return self.held.get(number(CHART, SITE, UNIT, "ORTH", MEASURE), {})


class Keys:
    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.aliases: dict[str, str] = {}

    def merged(self) -> dict[str, str]:
        return dict(self.aliases)

    def epoch(self) -> int:
        return len(self.gone)

    def erased(self, refs: Collection[str]) -> set[str]:
        return self.gone & set(refs)

    def living(self, ref: str) -> DataKey | None:
        return None if ref in self.gone else DataKey(ref, f"t-{ref}", 1, ref.encode().ljust(32, b".")[:32])


class Models:
    """A store without a model."""

    def names(self) -> list[str]:
        return []

    def changed(self) -> tuple[()]:
        return ()


class Ward:
    def __init__(self) -> None:
        self.entities, self.documents, self.keys = Entities(), Documents(), Keys()
        self.sent: list[Outgoing] = []
        self.begin()

    def begin(self) -> None:
        """A worker: the first, or one after a kill -9."""
        self.of = Surveillance(
            self.entities, self.documents, self.keys, Models(), self.send  # type: ignore[arg-type]
        )  # fmt: skip
        self.of._partitions[SITE] = 0
        self.of._assigned = frozenset((0,))
        self.entities.told = self.of.take

    async def send(self, messages: Sequence[Outgoing]) -> None:
        self.sent += messages

    async def until(self, done: Callable[[], bool]) -> None:
        running = asyncio.create_task(self.of.run(self.entities))
        try:
            async with asyncio.timeout(60):
                while not done():
                    await asyncio.sleep(0.02)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def told(self) -> list[dict[str, Any]]:
        found = [SignalEnvelope.read(one.headers).opened([], one.value or b"") for one in self.sent]
        return [one for one in found if one["scope"] == UNIT]


@pytest.fixture
def ward(monkeypatch: pytest.MonkeyPatch) -> Ward:
    async def ask(self: Beside, patience: float, function: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.to_thread(function, *given)

    monkeypatch.setattr(Beside, "ask", ask)
    monkeypatch.setattr(surveillance, "DRAW_SECONDS", 0.01)
    return Ward()


def run(wanted: Awaitable[None]) -> None:
    asyncio.run(wanted)  # type: ignore[arg-type]


def test_what_is_written_while_a_site_is_read_is_counted(ward: Ward) -> None:
    """More than one pause long, so that events come in between: before the answer, and while it is taken in."""
    for record in range(1200):
        ward.entities.held |= dict([case(record % 350, False, None)]) if record < 350 else {}
    late = dict(case(record, True) for record in range(350))

    async def goes_on() -> None:
        ward.entities.meanwhile = lambda: ward.entities.put(*case(0, True))
        running = asyncio.create_task(ward.until(lambda: ward.documents.chart().get("cases") == 350))
        while not ward.of._reading.locked():
            await asyncio.sleep(0)
        for name, entity in late.items():
            ward.entities.put(name, entity)
            await asyncio.sleep(0)
        await running

    run(goes_on())
    assert ward.documents.chart()["events"] == 350


def test_signals_are_told_once_and_by_whoever_comes_after_a_kill(ward: Ward) -> None:
    for record in range(60):
        ward.entities.held |= dict([case(record, record > 30)])
    run(ward.until(lambda: bool(ward.sent)))
    first = ward.told()
    assert {one["state"] for one in first} == {RAISED}
    assert all(one["drivers"] for one in first)
    ward.sent = []
    ward.begin()  # killed after the chart was kept, before it could forget what it had told
    run(ward.until(lambda: bool(ward.sent)))
    assert [one["at"] for one in ward.told()] == [one["at"] for one in first]
    ward.sent = []
    ward.entities.put(*case(60, False))
    run(ward.until(lambda: ward.documents.chart().get("cases") == 61))
    assert ward.documents.chart()["untold"] == []
    ward.begin()
    ward.sent = []
    ward.entities.put(*case(61, False))
    run(ward.until(lambda: ward.documents.chart().get("cases") == 62))
    assert ward.sent == []


def test_a_new_year_is_no_news(ward: Ward) -> None:
    """A chart then begins elsewhere: what was raised is neither withdrawn nor raised anew."""
    for record in range(330, 400):
        ward.entities.held |= dict([case(record, record > 350)])
    run(ward.until(lambda: bool(ward.sent)))
    ward.sent, before = [], ward.documents.chart()
    ward.begin()
    ward.entities.held |= dict([case(800, False)])
    run(ward.until(lambda: ward.documents.chart().get("since") != before["since"]))
    assert [one for one in ward.told() if one["at"] <= before["event_time"][:10] and one["state"] == WITHDRAWN] == []


def test_levels_are_kept_while_limits_are_looked_for(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asyncio.Event()

    async def ask(self: Beside, patience: float, function: Callable[..., Any], *given: Any) -> Any:
        await found.wait()
        return await asyncio.to_thread(function, *given)

    monkeypatch.setattr(Beside, "ask", ask)
    for record in range(60):
        ward.entities.held |= dict([case(record, record > 30)])

    async def both() -> None:
        running = asyncio.create_task(ward.until(lambda: bool(ward.sent)))
        while ward.documents.chart().get("cases") != 60:
            await asyncio.sleep(0.02)
        assert (ward.documents.chart()["raised"], ward.sent) == (0, [])
        found.set()
        await running

    run(both())
    assert ward.documents.chart()["raised"] > 0


def test_one_chart_without_limits_stops_no_other(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    for record in range(60):
        ward.entities.held |= dict([case(record, record > 30)])
        name, entity = case(record, False, 0.3, unit="MED")
        entity["history"]["units"] = dict.fromkeys(entity["history"]["units"], "MED")
        ward.entities.held[f"{name}m"] = entity

    async def ask(self: Beside, patience: float, function: Callable[..., Any], *given: Any) -> Any:
        if given and any(step == -3 for step, _ in given[0].mix):  # log odds of 0.3 in quarters
            raise BesideFailed("ValueError")
        return await asyncio.to_thread(function, *given)

    monkeypatch.setattr(Beside, "ask", ask)
    run(ward.until(lambda: bool(ward.sent)))
    other = number(CHART, SITE, UNIT, "MED", MEASURE)
    run(ward.until(lambda: ward.documents.held.get(other, {}).get("cases") == 60))
    assert ward.documents.held[other]["upper_limit"] is None


def test_a_chart_that_has_lost_its_cases_says_so(ward: Ward) -> None:
    """Moved to another unit while nobody looked: they are not counted twice."""
    for record in range(20):
        ward.entities.held |= dict([case(record, False)])
    run(ward.until(lambda: ward.documents.chart().get("cases") == 20))
    for entity in ward.entities.held.values():
        entity["history"]["units"] = dict.fromkeys(entity["history"]["units"], "CARD")
    ward.begin()
    run(ward.until(lambda: ward.documents.chart().get("cases") == 0))


def test_a_correction_withdraws(ward: Ward) -> None:
    for record in range(60):
        ward.entities.held |= dict([case(record, record > 30)])
    run(ward.until(lambda: bool(ward.sent)))
    ward.sent = []

    async def corrected() -> None:
        running = asyncio.create_task(ward.until(lambda: bool(ward.sent)))
        while SITE not in ward.of._read:
            await asyncio.sleep(0.01)
        for record in range(31, 60):
            ward.entities.put(*case(record, False))
        await running

    run(corrected())
    assert {one["state"] for one in ward.told() if one["chart"] == "cusum_upper"} == {WITHDRAWN}


def test_an_erased_person_is_in_no_chart_and_no_document(ward: Ward) -> None:
    for record in range(60):
        ward.entities.held |= dict([case(record, record > 30)])
    run(ward.until(lambda: bool(ward.sent)))
    assert "p40" in ward.documents.chart()["patient_ref"]

    async def erased() -> None:
        ward.keys.gone.add("p40")  # its case is still in the index: the erasure has not come there yet
        await ward.of.watch({0})
        await ward.until(lambda: ward.documents.chart().get("raised", 0) > 0 and "p40" not in str(ward.documents.held))

    run(erased())
    assert ward.documents.chart()["cases"] == 59
    assert ward.documents.chart()["patient_ref"]


def test_a_model_that_drifts_is_told_once() -> None:
    """Of 400 outcomes twice as many came as it said; then as many as it said, and then not again."""
    card = Card(
        algorithm="forest", target="x", trained_at="2026-01-01T00:00:00Z", trained_by="x",
        data=Data.model_construct(), name="quality-x", version="1", scores={"yes": (0.0, 1.0, 0.0, 0.0, 0.0)},
    )  # fmt: skip
    watched, told = Watched(), []
    for turn in range(400):
        told += watched.look(card, [(0.25, turn % 2 == 0)])
    (one,) = told
    said = SignalEnvelope.read(one.headers).opened([], one.value or b"")
    assert (said["model"], said["drift"]) == ("quality-x", "calibration")
    assert said["value"] > 1.5
    for turn in range(2000):
        assert watched.look(card, [(0.25, turn % 4 == 0)]) == []
    (moved,) = [one for turn in range(900) for one in watched.look(card, [(0.85, turn % 20 < 17)])]
    assert SignalEnvelope.read(moved.headers).opened([], moved.value or b"")["drift"] == "scores"


def test_two_references_of_one_person_are_joined_when_they_are_merged(ward: Ward) -> None:
    """A readmission is seen once it is known that both are the same."""
    (one, first), (two, second) = case(0, False), case(10, False)
    ward.entities.held |= {one: first, two: second}
    ward.entities.held |= dict([case(60, False)])

    def back() -> int:
        return sum(
            found.measure == "readmission_30d" and found.event
            for person in ward.of._units.people.values()
            for found in measured(person)
        )

    async def merged() -> None:
        running = asyncio.create_task(ward.until(lambda: back() == 1))
        while SITE not in ward.of._read:
            await asyncio.sleep(0.01)
        assert back() == 0
        ward.keys.aliases["p10"] = "p0"
        await ward.of.watch({0})
        await running
        ward.keys.aliases.clear()
        await ward.of.watch({0})
        assert back() == 0

    run(merged())
