"""What a worker does with plans when something fails: on a site in memory, an index that remembers, and a broker that
takes everything. The same with real servers: test_plan_stack.py."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from infra import metrics
from infra.crypto import DataKey
from infra.elastic import CONFLICT, NEW
from infra.kafka import Outgoing
from schemas.signal import SignalEnvelope
from schemas.sites import ACCEPTED, PROPOSED, RAISED, number
from streams import planning
from streams.allocation import proposal
from streams.allocation.live import Live
from streams.beside import Beside, BesideFailed
from streams.planning import Planning, Why
from tests.entities import SITE, Said, asks, at, bed, entities, shift, step

HOUSE: tuple[Said, ...] = (
    *(bed(f"W {room} {number}") for room in (1, 2) for number in (1, 2)),
    step("anna", "A01", 1, "W 1 1", sex="F"),
    asks("R1", "bert", 2, sex="M"),
)


class Documents:
    """The index of sites, in memory: compare-and-set as Elasticsearch does it."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[dict[str, Any], int]] = {}
        self.written: list[dict[str, Any]] = []
        self.count = 0

    async def get(self, ids: Any) -> dict[str, Any]:
        return {id: (self.held[id][0], ("i", self.held[id][1], 1)) for id in ids if id in self.held}

    async def bulk(self, writes: Sequence[Any], places: dict[str, Any]) -> dict[str, str]:
        for one in writes:
            there = ("i", self.held[one.id][1], 1) if one.id in self.held else NEW
            if one.over != there:
                return {one.id: CONFLICT}
            self.put(one.id, json.loads(one.source))
            self.written.append(json.loads(one.source))
            places[one.id] = ("i", self.count, 1)
        return {}

    def put(self, id: str, said: dict[str, Any]) -> None:
        self.count += 1
        self.held[id] = said, self.count

    async def remove_of(self, query: dict[str, Any]) -> int:
        (refs,) = (
            one["terms"]["patient_ref"] for one in query["bool"]["should"] if "patient_ref" in one.get("terms", {})
        )
        gone = [id for id, (said, _) in self.held.items() if set(refs) & set(said.get("patient_ref", ()))]
        for id in gone:
            del self.held[id]
        return len(gone)

    def of(self, state: str, site: str = SITE) -> dict[str, Any]:
        return self.held[number(state, site)][0]


class Keys:
    """Of everybody but the erased."""

    def __init__(self) -> None:
        self.gone: set[str] = set()

    def merged(self) -> dict[str, str]:
        return {}

    def erased(self, refs: set[str]) -> set[str]:
        return self.gone & set(refs)

    def living(self, ref: str) -> DataKey:
        return DataKey(ref, f"t-{ref}", 1, ref.encode().ljust(32, b".")[:32])


class Sites:
    """Followed sites."""

    def __init__(self, *said: Said, site: str = SITE) -> None:
        self.live = Live()
        self.there = {site}
        self.live.follow(site, entities(said or HOUSE))

    def follows(self, site: str) -> bool:
        return site in self.there

    def forget(self) -> None:
        self.live.forget()

    def hear(self, *said: Said) -> None:
        self.live.take(entities(said))


class Stage:
    def __init__(self, *said: Said) -> None:
        self.sites, self.keys, self.documents, self.sent = Sites(*said), Keys(), Documents(), list[Outgoing]()
        self.planning = self.successor()

    def successor(self) -> Planning:
        async def send(messages: Sequence[Outgoing]) -> None:
            self.sent += messages

        made = Planning(self.sites, self.keys, self.documents, send)  # type: ignore[arg-type]
        made._beside = made._deep = Here()  # type: ignore[assignment]
        self.planning = made
        return made

    async def plan(self, why: Why = Why.CHANGED, site: str = SITE) -> Any:
        self.planning._next(time.monotonic())
        await self.planning._work(site, why)
        return self.planning._states.get(site)

    def signals(self) -> list[str]:
        return [SignalEnvelope.read(one.headers).signal for one in self.sent]

    def lines(self, ref: str) -> list[str]:
        """States told of one person, in order."""
        keys = self.keys
        told = [(SignalEnvelope.read(one.headers), one.value or b"") for one in self.sent]
        return [head.opened([keys.living(ref)], value)["state"] for head, value in told if head.subject == f"t-{ref}"]


class Here:
    """The process beside, in this one: what is asked is done at once, or fails as told."""

    started = True

    def __init__(self) -> None:
        self.failing: str = ""
        self.meanwhile: Any = lambda: None

    async def ask(self, patience: float, function: Any, *args: Any) -> Any:
        if self.failing:
            raise BesideFailed(self.failing)
        made = function(*args)
        self.meanwhile()
        return made

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_leaving", lambda site: site)
    monkeypatch.setattr(Planning, "_think_longer", lambda self, now: None)


async def test_a_plan_is_kept_and_told() -> None:
    stage = Stage()
    state = await stage.plan()
    kept = stage.documents.of(PROPOSED)
    assert kept["plan"] == state.document["plan"]
    assert stage.lines("bert") == ["proposed"]
    assert stage.signals()[-1] != "bed_assignment"


async def test_who_was_killed_before_telling_has_a_successor_who_tells() -> None:
    """The document is written, and nothing was sent: the next worker sends the same messages under the same ids."""
    stage = Stage()
    await stage.plan()
    ids = {SignalEnvelope.read(one.headers).document for one in stage.sent}
    stage.sent.clear()
    stage.successor()
    await stage.plan()
    assert ids <= {SignalEnvelope.read(one.headers).document for one in stage.sent}


async def test_what_fails_beside_stops_nothing_and_rests_longer_each_time() -> None:
    stage = Stage()
    stage.planning._beside.failing = "MemoryError"  # type: ignore[attr-defined]
    rests = []
    for _ in range(3):
        state = await stage.plan()
        rests.append(state.due.rest - time.monotonic())
    assert [round(one) for one in rests] == [2, 4, 8]
    assert stage.documents.held == {}
    assert stage.planning._next(time.monotonic()) is None  # others have their turn
    stage.planning._beside.failing = ""  # type: ignore[attr-defined]
    state.due.rest = 0.0
    state = await stage.plan()
    assert state.failures == 0
    assert stage.documents.of(PROPOSED)["actions"] == 1


async def test_a_site_that_never_gets_a_plan_is_missed() -> None:
    """The gauge that the alert looks at is there from the first moment on."""
    stage = Stage()
    stage.planning._beside.failing = "TimeoutError"  # type: ignore[attr-defined]
    await stage.plan()
    assert metrics.PLAN_TIME.labels(SITE)._value.get() > time.time() - 60


async def test_a_quiet_site_is_planned_on() -> None:
    """Each five minutes; its gauge and the document's moment go with it."""
    stage = Stage()
    await stage.plan()
    first = stage.documents.of(PROPOSED)["event_time"]
    await asyncio.sleep(0.01)
    await stage.plan(Why.STALE)
    assert stage.documents.of(PROPOSED)["event_time"] > first
    assert stage.lines("bert") == ["proposed"]


async def test_an_erasure_between_takes_the_plan_away_and_leaves_others() -> None:
    stage = Stage()
    await stage.plan()
    stage.documents.put(number(RAISED, SITE), {"site": SITE, "event_time": at(1), "raised": [], "untold": []})
    stage.keys.gone.add("bert")
    await stage.plan(Why.STALE)
    assert number(PROPOSED, SITE) not in stage.documents.held
    assert number(RAISED, SITE) in stage.documents.held
    assert list(stage.sites.live) == []  # it is read again, without the person


async def test_who_is_withdrawn_is_found_by_an_erasure_and_who_was_erased_is_in_no_line() -> None:
    stage = Stage()
    await stage.plan()
    cancelled = {"action": "cancel"} | dict(asks("R1", "bert", 3, sex="M"))
    stage.sites.hear(asks("R1", "bert", 2, sex="M"), cancelled)
    await stage.plan()
    kept = stage.documents.of(PROPOSED)
    assert [one["state"] for one in kept["untold"]] == ["withdrawn"]
    assert "bert" in kept["patient_ref"]
    stage.sites.hear(asks("R2", "carl", 3, sex="M"))
    await stage.plan()
    stage.keys.gone.add("carl")
    stage.sites.hear(asks("R2", "carl", 3, sex="M"), {"action": "cancel"} | dict(asks("R2", "carl", 4, sex="M")))
    await stage.plan()
    assert "carl" not in json.dumps(stage.documents.of(PROPOSED))


async def test_a_later_plan_of_another_worker_stays() -> None:
    stage = Stage()
    await stage.plan()
    later = {"site": SITE, "event_time": "2999-01-01T00:00:00.000Z", "lines": [], "plan": "x"}
    stage.documents.put(number(PROPOSED, SITE), later)
    stage.sent.clear()
    stage.sites.hear(asks("R2", "carl", 3, sex="M"))
    await stage.plan()
    assert stage.documents.of(PROPOSED) == later
    assert stage.sent == []


async def test_an_older_one_gives_way() -> None:
    stage = Stage()
    await stage.plan()
    stage.documents.put(number(PROPOSED, SITE), {"site": SITE, "event_time": at(0), "lines": [], "plan": "x"})
    stage.sites.hear(asks("R2", "carl", 3, sex="M"))
    await stage.plan()
    assert stage.documents.of(PROPOSED)["actions"] == 2


async def test_a_site_that_went_elsewhere_while_it_was_planned_is_left_alone() -> None:
    stage = Stage()
    stage.planning._beside.meanwhile = lambda: stage.sites.live.forget([SITE])  # type: ignore[attr-defined]
    await stage.plan()
    assert stage.documents.held == {}
    assert stage.sent == []


async def test_gauges_stay_while_a_site_is_read_again_and_go_with_it() -> None:
    stage = Stage(*HOUSE, *(step(f"m{n}", "A01", 1, f"W 2 {n}", sex="M") for n in (1, 2)),
                  step("eve", "A01", 1, "W 1 2", sex="F"))  # fmt: skip
    await stage.plan()
    assert metrics.SITE_SIGNALS.labels(SITE, "W", "overload")._value.get() == 1
    stage.sites.forget()
    stage.planning._next(time.monotonic())
    assert SITE in stage.planning._states
    stage.sites.there.clear()
    stage.planning._next(time.monotonic())
    assert stage.planning._states == {}
    assert ("W", "overload") not in {labels[1:] for labels in metrics.SITE_SIGNALS._metrics if labels[0] == SITE}


async def test_units_that_nobody_declared_raise_nothing() -> None:
    """They are known by who lies there, and so are always full."""
    stage = Stage(*HOUSE, *(step(f"x{n}", "A01", 1, f"MADEUP 1 {n}") for n in range(5)))
    state = await stage.plan()
    assert {unit for unit, _ in state.gauges} <= {"W", ""}


async def test_a_site_without_declared_beds_is_not_planned() -> None:
    stage = Stage(step("anna", "A01", 1, "W 1 1", sex="F"), asks("R1", "bert", 2))
    await stage.plan()
    assert stage.documents.held == {}


async def test_a_plan_that_is_no_better_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nurses who are all alike: another seed is no reason to deal them out anew."""
    nurses = [shift(f"S{n}", f"nurse{n}", 0, 24 * 400, unit="W") for n in range(4)]
    beds = [bed(f"W {room} {n}") for room in range(6) for n in (1, 2)]
    lies = [step(f"p{room}", "A01", 1, f"W {room} 1", sex="FM"[room % 2]) for room in range(6)]
    stage = Stage(*beds, *lies, *nurses)
    await stage.plan()
    first, count = stage.documents.of(PROPOSED)["plan"], len(stage.sent)
    await stage.plan(Why.STALE)
    assert stage.documents.of(PROPOSED)["plan"] == first
    assert len(stage.sent) == count
    state = stage.planning._states[SITE]
    dealt = {one.ref: one.to for one in state.plan.assignments}
    anew = tuple(replace(one, to="W|9") if dealt[one.ref] == one.to else one for one in state.plan.assignments)
    for cost, kept in ((1.0, True), (-1.0, False)):
        another = replace(state.plan, assignments=anew, costs={"move": state.plan.cost + cost})
        monkeypatch.setattr(planning, "check", lambda _, plan, before=None: ((), plan.costs))
        state.found = stage.sites.live.version(SITE), another
        assert planning._rest(state) is Why.BETTER
        await stage.plan(Why.BETTER)
        assert (stage.documents.of(PROPOSED)["plan"] == first) == kept


async def test_thinking_longer_goes_on_beside_and_is_where_a_quick_plan_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that is not optimal is thought about once a change; what was found is of an earlier state by then."""
    monkeypatch.undo()
    monkeypatch.setattr(planning, "_leaving", lambda site: site)
    stage = Stage()
    state = await stage.plan()
    state.due.first, asked = None, []

    def think(site: Any, before: Any, seconds: float) -> Any:
        asked.append(seconds)
        return state.plan

    monkeypatch.setattr(planning, "_think", think)
    state.plan = replace(state.plan, status="feasible")
    stage.planning._think_longer(time.monotonic())
    assert state.deep is not None
    await state.deep
    assert state.found == (stage.sites.live.version(SITE), state.plan)
    assert stage.planning._deep_rest > 0
    stage.planning._deep_rest = 0.0
    stage.planning._think_longer(time.monotonic())
    assert state.deep is None  # not again before something changes
    stage.sites.hear(asks("R2", "carl", 3, sex="M"))
    await stage.plan(Why.BETTER)
    assert asked == [30.0, planning.SLICE_SECONDS]
    assert state.found is None


async def test_rules_in_conflict_are_sought_once_after_a_change_and_once_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(planning, "_explain", lambda site, seconds: asked.append(seconds))
    stage = Stage(*HOUSE, *(asks(f"D{n}", f"due{n}", 2, sex="M", due_at=at(3)) for n in range(5)))
    state = await stage.plan()
    assert state.plan.status == "infeasible"
    state.due.first = None
    assert planning._rest(state) is Why.EXPLAIN
    await stage.plan(Why.EXPLAIN)
    assert planning._rest(state) is None  # somebody is thinking still
    state.thought = state.due.version
    assert planning._rest(state) is Why.EXPLAIN
    await stage.plan(Why.EXPLAIN)
    assert planning._rest(state) is None
    assert asked == [1.0, 4.0]


async def test_what_was_accepted_is_where_the_next_plan_begins() -> None:
    """Room 2 has two beds for the man that cost the same; he keeps the one that was accepted."""
    stage = Stage()
    await stage.plan()
    kept = stage.documents.of(PROPOSED)
    (line,) = [one for one in kept["lines"] if one.get("patient_ref") == "bert"]
    other = {"W|2|1": "W|2|2", "W|2|2": "W|2|1"}[line["to"]]
    stage.documents.put(number(ACCEPTED, SITE), kept | {"lines": [line | {"to": other}]})
    stage.sites.hear(asks("R2", "carl", 3, sex="M"))
    await stage.plan()
    (now,) = [one for one in stage.documents.of(PROPOSED)["lines"] if one.get("patient_ref") == "bert"]
    assert now["to"] == other


# --- the process beside


def _pid() -> int:
    return os.getpid()


def _end() -> None:
    os._exit(9)


def _raise() -> None:
    raise ValueError("a value that nobody may see")


async def test_a_process_beside_is_followed_by_another() -> None:
    beside = Beside()
    try:
        first = await beside.ask(60, _pid)
        assert first != os.getpid()
        with pytest.raises(BesideFailed, match=r"^BrokenProcessPool$"):
            await beside.ask(60, _end)
        assert await beside.ask(60, _pid) != first
        with pytest.raises(BesideFailed, match=r"^ValueError$"):
            await beside.ask(60, _raise)
        with pytest.raises(BesideFailed, match=r"^TimeoutError$"):
            await beside.ask(0.2, time.sleep, 60)
        assert not beside.started
    finally:
        beside.close()


def test_forecasts_and_moments_are_of_the_same_clock() -> None:
    now = datetime.now(UTC).isoformat()
    assert proposal.forecasts_of(proposal.forecast_document(SITE, now, []), now) == {}
