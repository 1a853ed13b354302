"""Plans on the real stack: from events to a proposal, accepted, kept to, told, and gone with an erasure."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.elastic import client
from infra.kafka import Reader, headers
from infra.keystore import KeyStore
from schemas.envelope import rfc3339
from schemas.signal import SignalEnvelope
from schemas.sites import ALIAS, EXPECTED, RAISED, number
from schemas.topics import SIGNALS
from streams.allocation import proposal
from tests.test_allocation_stack import settled
from tests.test_promises import pages

Run = Callable[..., Any]
SITE = "PLANHOUSE"
NOW = datetime.now(UTC)
ABOVE = {("overload", "beds"), ("rule_breach", "sex P|1"), ("imminent_shortage", "forecast")}


def at(hours: float) -> str:
    return rfc3339(NOW + timedelta(hours=hours))


def produce(command: Run, folder: Path, *said: dict[str, Any], site: str = SITE) -> None:
    path = folder / f"{time.monotonic_ns()}.ndjson"
    path.write_text("".join(json.dumps({"at": at(-1)} | one) + "\n" for one in said))
    done = command("produce", "operations", str(path), "--site", site, "--json")
    assert json.loads(done.stdout)["outcomes"] == {"indexed": len(said)}, done.stdout + done.stderr


def bed(unit: str, room: int, bed: int, **more: Any) -> dict[str, Any]:
    return {"type": "location", "unit": unit, "room": str(room), "bed": str(bed), **more}


def asks(patient: str, **more: Any) -> dict[str, Any]:
    return {"type": "request", "id": f"PR-{patient}", "patient_number": f"PP-{patient}", **more}


def step(patient: str, trigger: str, unit: str = "", room: str = "", bed: str = "", **more: Any) -> dict[str, Any]:
    head = {"type": "placement", "id": f"PV-{patient}", "patient_number": f"PP-{patient}", "trigger": trigger}
    return head | {"unit": unit, "room": room, "bed": bed, **more}


def shown(command: Run, *more: str) -> dict[str, Any]:
    done = command("plan", "show", "--site", SITE, "--json", *more)
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["plans"]
    return one  # type: ignore[no-any-return]


def until(holds: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


def planned(command: Run, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        done = command("plan", "show", "--site", SITE, "--json")
        plans = json.loads(done.stdout)["plans"] if done.returncode == 0 else []
        return plans[0] if plans and wanted(plans[0]) else None

    return until(look)  # type: ignore[no-any-return]


def beds_of(plan: dict[str, Any]) -> set[tuple[str, str]]:
    """Who, by reference, is to go where."""
    return {(one["patient_ref"], one["to"]) for one in plan["lines"] if one["assignment"] == "bed" and one["action"]}


@pytest.fixture(scope="module")
def proposed(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two rooms of two beds; a woman lies in one, a man and a woman wait."""
    folder = tmp_path_factory.mktemp("plan")
    beds = [bed("P", room, number) for room in (1, 2) for number in (1, 2)]
    woman = step("lies", "A01", "P", "1", "1", sex="F")
    produce(command, folder, *beds, woman, asks("man", sex="M", priority=1), asks("woman", sex="F", priority=2))
    settled()
    return folder, planned(command, lambda one: len(beds_of(one)) == 2)


def test_events_make_a_plan_with_its_reasons(proposed: tuple[Path, dict[str, Any]], command: Run) -> None:
    _, plan = proposed
    places = {to for _, to in beds_of(plan)}
    assert "P|1|2" in places  # the woman beside the woman
    assert places & {"P|2|1", "P|2|2"}
    assert (plan["state"], plan["status"], plan["waiting"]) == ("proposed", "optimal", 0)
    assert all(one["decided"] and one["next_cost"] is not None for one in plan["lines"] if one["action"])
    said = command("plan", "show", "--site", SITE).stdout
    assert plan["plan"] in said
    assert "PP-" not in said + json.dumps(plan)


def test_a_plan_is_told_by_line_under_each_ones_key(proposed: tuple[Path, dict[str, Any]]) -> None:
    _, plan = proposed
    _, keys = KeyStore.local()
    reader = Reader(SIGNALS.name)
    told = [(SignalEnvelope.read(one.headers() or []), one.value() or b"") for one in reader.until_end()]
    reader.close()
    assert plan["plan"] in {json.loads(value)["plan"] for head, value in told if head.signal == "plan"}
    lines = [
        head.opened([keys.of_ref(ref)], value)
        for ref, _ in beds_of(plan)
        for head, value in told
        if head.subject == keys.token(ref) and head.signal == "bed_assignment"
    ]
    last = {one["patient_ref"]: one for one in sorted(lines, key=lambda one: str(one["since"]))}
    assert {(ref, one["to"]) for ref, one in last.items()} == beds_of(plan)
    assert {one["state"] for one in last.values()} == {"proposed"}


def test_accepted_and_kept_to(proposed: tuple[Path, dict[str, Any]], command: Run) -> None:
    folder, plan = proposed
    assert command("plan", "accept", "0" * 12, "--site", SITE).returncode == 19
    assert command("plan", "accept", plan["plan"], "--site", "NOPLAN").returncode == 2
    assert command("plan", "accept", plan["plan"], "--site", SITE, "--role", "clinician").returncode == 10
    done = command("plan", "accept", plan["plan"], "--site", SITE, "--json")
    assert json.loads(done.stdout)["actions"] == 2, done.stderr
    assert shown(command, "--accepted")["accepted_by"]
    (apart,) = json.loads(command("plan", "diff", "--site", SITE, "--json").stdout)["plans"]
    assert (apart["accepted_plan"], apart["new"], apart["gone"]) == (plan["plan"], [], [])
    audit = json.loads(command("audit", "list", "--json").stdout)
    mine = [one for one in audit if plan["plan"] in json.dumps(one)]
    assert mine
    assert all(ref in json.dumps(mine[-1]) for ref, _ in beds_of(plan))
    # somebody else comes for whom the man's bed would do as well: he keeps it
    produce(command, folder, asks("other", sex="M", priority=1))
    more = planned(command, lambda one: len(beds_of(one)) == 3)
    assert beds_of(plan) < beds_of(more)
    (apart,) = json.loads(command("plan", "diff", "--site", SITE, "--json").stdout)["plans"]
    assert [one["to"] for one in apart["new"]] == [to for _, to in beds_of(more) - beds_of(plan)]


def test_what_cannot_be_kept_is_told(proposed: tuple[Path, dict[str, Any]], command: Run) -> None:
    """More must have a bed by now than there are beds: who has none, and which rules say so."""
    folder, _ = proposed
    some = [asks(f"due{number}", sex="M", priority=1, due_at=at(0)) for number in range(4)]
    produce(command, folder, *some)
    plan = planned(command, lambda one: one["status"] == "infeasible" and one["conflict"])
    assert "due" in {one["rule"] for one in plan["breaches"]}
    assert {one["rule"] for one in plan["conflict"]["rules"]} <= {"due", "sex", "usable", "features", "placed"}
    assert "cannot all be kept" in command("plan", "show", "--site", SITE).stdout
    produce(command, folder, *({"action": "cancel", "at": at(-0.5)} | one for one in some))
    planned(command, lambda one: one["status"] != "infeasible")


def test_alerts_are_raised_once_and_over_once(proposed: tuple[Path, dict[str, Any]], command: Run, stack: Path) -> None:
    folder, _ = proposed
    point = {"hours": 4, "at": at(4), "expected": 9.0, "intervals": [{"level": 0.8, "low": 8.0, "high": 10.0}]}
    expected = proposal.forecast_document(SITE, at(0), [{"unit": "P", "beds": 4, "forecast": [point]}])
    with client() as server:
        server.index(index=ALIAS, id=number(EXPECTED, SITE), document=expected)
    produce(command, folder, *(step(f"full{bed}", "A01", "P", "2", str(bed), sex="M") for bed in (1, 2)),
            step("mixed", "A01", "P", "1", "2", sex="M"))  # fmt: skip

    def raised() -> set[tuple[str, str]]:
        with client() as server:
            found = server.options(ignore_status=404).get(index=ALIAS, id=number(RAISED, SITE)).body
        return {(one["signal"], one["of"]) for one in found.get("_source", {}).get("raised", ())}

    until(lambda: raised() >= ABOVE)
    wanted = f'wardstream_site_signals{{signal="rule_breach",site="{SITE}",unit="P"}} 1.0'.encode()
    until(lambda: any(wanted in page for page in pages(stack)))
    produce(command, folder, step("mixed", "A03") | {"at": at(-0.2)})
    until(lambda: ("rule_breach", "sex P|1") not in raised())
    told: list[str] = []
    reader = Reader(SIGNALS.name)
    for one in reader.until_end():
        if headers(one)["signal"] == b"rule_breach":
            said = json.loads(one.value() or b"{}")
            told += [said["state"]] if (said["site"], said["of"]) == (SITE, "sex P|1") else []
    reader.close()
    assert told == ["raised", "cleared"]


def test_a_storm_is_planned_now_and_then_and_the_state_does_not_lag(command: Run, stack: Path, tmp_path: Path) -> None:
    """5,000 events of one site at once: beds are what the last of each says, and a few plans were made meanwhile."""
    site = "STORMHOUSE"

    def plans() -> float:
        lines = [line for page in pages(stack) for line in page.decode().splitlines()]
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("wardstream_plans_total{"))

    before = plans()
    said = [bed("S", number % 50, 1, bed_status="UOCH"[number // 50 % 4]) | {"at": at(-1 + number / 10_000)}
            for number in range(5000)]  # fmt: skip
    began = time.monotonic()
    produce(command, tmp_path, *said, site=site)
    settled()
    taken = time.monotonic() - began
    done = command("beds", "--site", site, "--json")
    (found,) = json.loads(done.stdout)["sites"]
    assert [one["status"] for one in found["beds"]] == ["UOCH"[4999 // 50 % 4]] * 50
    until(lambda: plans() > before)
    assert plans() - before <= 20 + taken * 2


def test_a_killed_worker_plans_on(proposed: tuple[Path, dict[str, Any]], command: Run, stack: Path) -> None:
    """What was accepted, and what was raised when, is known to its successor; the process beside it ends with it."""
    folder, _ = proposed
    accepted = shown(command, "--accepted")
    with client() as server:
        raised = server.get(index=ALIAS, id=number(RAISED, SITE))["_source"]["raised"]
    assert raised
    (worker,) = [one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [""])[-1] == "worker"
                 and one.environ().get("WARDSTREAM_HOME") == os.environ["WARDSTREAM_HOME"]]  # fmt: skip
    beside = worker.children(recursive=True)
    assert beside
    worker.send_signal(signal.SIGKILL)
    psutil.wait_procs(beside, timeout=20)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in beside)
    last = shown(command)["event_time"]
    produce(command, folder, asks("late", sex="F", priority=3))
    planned(command, lambda one: one["event_time"] > last)
    with client() as server:
        again = server.get(index=ALIAS, id=number(RAISED, SITE))["_source"]["raised"]
    assert {json.dumps(one) for one in raised} <= {json.dumps(one) for one in again}
    assert shown(command, "--accepted") == accepted


def test_an_erased_patient_is_in_no_plan(proposed: tuple[Path, dict[str, Any]], command: Run) -> None:
    ref = next(iter(beds_of(shown(command, "--accepted"))))[0]
    done = command("erase", "--patient", ref, "--reason", "asked for it", "--json")
    assert done.returncode == 0, done.stderr
    with client() as server:
        server.indices.refresh(index=ALIAS)
        assert server.count(index=ALIAS, query={"term": {"patient_ref": ref}})["count"] == 0
    assert command("plan", "show", "--site", SITE, "--accepted").returncode == 2
    folder, _ = proposed
    produce(command, folder, asks("after", sex="F", priority=1))
    later = planned(command, lambda one: bool(beds_of(one)))
    assert ref not in json.dumps(later)
