"""Alive, ready, and the watchdog: shown to trip."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from infra import health as module
from infra.health import SILENT_EXIT, SILENT_SECONDS, STARVED_SECONDS, Health, Pulse
from infra.retry import LONGEST_SECONDS, TRIPS, Target


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as page:
            return page.status, page.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_endpoints(home: Path) -> None:
    one = Health()
    wrong = {"is": ""}
    one.ready["broker"] = lambda: wrong["is"]
    port = one.serve()
    assert get(port, "/livez")[0] == 200
    assert get(port, "/readyz")[0] == 200
    wrong["is"] = "Kafka counts as away"
    status, body = get(port, "/readyz")
    assert (status, json.loads(body)) == (503, {"ok": False, "trouble": {"broker": "Kafka counts as away"}})
    assert get(port, "/livez")[0] == 200
    assert "wardstream_received_total" in get(port, "/metrics")[1]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(module, "LOOP_SECONDS", 0.3)


def test_watchdog_ends_a_stuck_loop(impatient: None) -> None:
    """A loop that somebody blocks, as a careless `time.sleep` would."""
    one, ended = Health(), threading.Event()
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    async def run() -> None:
        watching = asyncio.create_task(one.watch_loop())
        await asyncio.sleep(0)
        one.watchdog(end)
        await asyncio.sleep(0.2)
        assert not ended.is_set()
        await asyncio.sleep(0)
        ended.wait(3)  # blocks the loop
        watching.cancel()

    asyncio.run(run())
    assert codes == [SILENT_EXIT]


def test_watchdog_forgives_one_look(impatient: None) -> None:
    """A process that was stopped and goes on finds itself late once."""
    one, looks, ended = Health(), iter(("late", "", "late", "")), threading.Event()
    one.live["agent"] = lambda: next(looks, "")
    one.watchdog(lambda code: ended.set())
    time.sleep(0.5)
    assert not ended.is_set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """One element: the time."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_an_agent_with_work_has_to_move(clock: list[float]) -> None:
    pulse = Pulse("agent")
    clock[0] += SILENT_SECONDS - 1
    assert not pulse.trouble(busy=True)
    clock[0] += 2
    assert pulse.trouble(busy=True) == "agent stopped moving"
    assert not pulse.trouble(busy=True, answered=clock[0] - 5)  # it waits for a server that says no
    pulse.moved()
    assert not pulse.trouble(busy=True)


def test_an_agent_has_to_be_given_its_events(clock: list[float]) -> None:
    pulse = Pulse("agent")
    for _ in range(int(STARVED_SECONDS)):
        clock[0] += 1
        pulse.waits_for(5)
        assert not pulse.trouble(busy=False)
    clock[0] += 1
    assert pulse.trouble(busy=False) == "agent is not given what is on its topic"
    pulse.waits_for(0)
    assert not pulse.trouble(busy=False)


def test_an_agent_that_is_busy_may_let_events_wait(clock: list[float]) -> None:
    pulse = Pulse("agent")
    for _ in range(60):
        clock[0] += 1
        pulse.waits_for(5)
        assert not pulse.trouble(busy=True, answered=clock[0])
    pulse.moved()
    assert not pulse.trouble(busy=False)


async def test_circuit_opens_and_lets_one_probe_through() -> None:
    target = Target("test")
    for _ in range(TRIPS):
        assert target.admits()
        assert 0 < target.failed("503") <= 1.5 * LONGEST_SECONDS
    assert target.open
    assert not target.admits()
    await target.admitted()  # after its pause: this is the probe
    assert not target.admits()
    target.succeeded()
    assert target.admits()


def test_retries_have_a_budget() -> None:
    """A server that refuses every second request is asked again slowly: retries stay a tenth of what succeeds."""
    target = Target("test")
    pauses = []
    for _ in range(40):
        target.succeeded()
        pauses.append(target.failed("429"))
    assert max(pauses[:5]) < 0.1
    assert min(pauses[20:]) >= LONGEST_SECONDS / 2
    assert not target.open
