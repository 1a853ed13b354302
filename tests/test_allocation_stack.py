"""Beds on the real stack: ADT over MLLP and operations events to what a bed manager sees."""

from __future__ import annotations

import json
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.elastic import Index, async_client, client
from infra.kafka import Reader, headers, lag
from infra.keystore import KeyStore
from schemas.registry import DOMAINS
from streams.allocation.live import elsewhere
from streams.fold import Change
from streams.occupancy import Sites
from tests.conftest import listening
from tests.entities import entities, step
from tests.test_promises import pages

Run = Callable[..., Any]
SITE = "STACKHOUSE"
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = [f"U{n // 20} {n // 2 % 10} {n % 2 + 1}" for n in range(60)]


def settled() -> None:
    """Until everything was taken by the agents, what follows from records too."""
    for domain in (DOMAINS["ehr"], DOMAINS["allocation"]):
        deadline = time.monotonic() + 90
        while sum(one.events for one in lag(domain.raw.name).values()):
            assert time.monotonic() < deadline
            time.sleep(0.3)


def beds(command: Run, *more: str) -> dict[str, Any]:
    done = command("beds", "--site", SITE, "--json", *more)
    assert done.returncode == 0, done.stderr
    (site,) = json.loads(done.stdout)["sites"]
    return site  # type: ignore[no-any-return]


def produce(command: Run, folder: Path, said: list[dict[str, Any]]) -> dict[str, int]:
    path = folder / f"{time.monotonic_ns()}.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in said))
    done = command("produce", "operations", str(path), "--site", SITE, "--json")
    return json.loads(done.stdout)["outcomes"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def declared(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's beds, two shifts and some equipment."""
    folder = tmp_path_factory.mktemp("operations")
    at = "2026-03-01T00:00:00Z"
    said: list[dict[str, Any]] = []
    for number, name in enumerate(NAMES):
        unit, room, bed = name.split()
        said.append({"type": "location", "at": at, "unit": unit, "room": room, "bed": bed, "position_x": number * 4,
                     "position_y": 0})  # fmt: skip
    now = datetime.now(UTC)
    for number, member in enumerate(("N1", "N2")):
        said.append({
            "type": "shift", "id": f"S{number}", "at": at, "staff_number": member, "staff_name": "Zwetschge Bo",
            "role": "nurse", "unit": "U0", "starts_at": (now - timedelta(hours=1)).isoformat(),
            "ends_at": (now + timedelta(hours=7)).isoformat(),
        })  # fmt: skip
    for name, x, price, status in (("P1", 10, 50, "available"), ("P2", 200, 20, "available"), ("P3", 12, 9, "in-use")):
        said.append({"type": "resource", "id": name, "resource_type": "equipment", "resource_status": status, "at": at,
                     "position_x": x, "position_y": 0, "price": price, "currency": "EUR"})  # fmt: skip
    assert produce(command, folder, said) == {"indexed": len(said)}
    settled()
    return folder


def stories(rng: random.Random) -> Iterator[tuple[datetime, str, str, str]]:
    """Time, visit, trigger and place of the steps of 150 stays; some taken back."""
    for number in range(150):
        hour = rng.random() * 8
        yield BEGIN + timedelta(hours=hour), f"{number}", "A01", rng.choice(NAMES)
        for trigger in rng.sample(("A02", "A02", "A08", "A12", "A03", "A13", "A11"), rng.randint(0, 5)):
            hour += rng.random() + 0.01
            yield BEGIN + timedelta(hours=hour), f"{number}", trigger, rng.choice(NAMES)


def test_adt_over_mllp_to_beds(declared: Path, mllp: int, command: Run) -> None:
    """Sent out of order: the beds are those that the same steps lead to in a model without any server."""
    rng = random.Random(5)
    told = list(stories(rng))
    said = []
    messages = []
    for count, (when, number, trigger, name) in enumerate(told):
        hour = (when - BEGIN).total_seconds() / 3600
        place = name if trigger in ("A01", "A02", "A08") else ""
        said.append(step(f"SP{number}", trigger, round(hour * 3600) / 3600, place, f"SV{number}"))
        unit, room, bed = (place or "- - -").replace("-", "").split(" ")
        messages.append(
            f"MSH|^~\\&|STACK|{SITE}|US|HERE|{when:%Y%m%d%H%M%S}||ADT^{trigger}|SC{count}|P|2.5\r"
            f"EVN|{trigger}|{BEGIN + timedelta(seconds=round(hour * 3600)):%Y%m%d%H%M%S}\r"
            f"PID|1||SP{number}^^^{SITE}^MR||Wolpertinger^{count}||19700101|F\r"
            f"PV1|1|I|{unit}^{room}^{bed}|||||||MED|||||||||SV{number}\r"
        )
    rng.shuffle(messages)
    path = declared / "adt.hl7"
    path.write_text("".join(messages), newline="")
    assert command("send", str(path), "--port", str(mllp)).returncode == 0
    settled()
    expected = {
        (one["unit"], one["room"], one["bed"])
        for one in entities(said).values()
        if one["state"] == "in-progress" and "bed" in one
    }
    made = beds(command)
    assert {(one["unit"], one["room"], one["bed"]) for one in made["beds"] if one["patients"]} == expected
    assert (made["total"], made["occupied"]) == (60, len(expected))
    assert {one["kind"] for one in made["conflicts"]} <= {"two_patients_in_a_bed", "discharge_before_admission"}
    free = beds(command, "--free", "--unit", "U0")["beds"]
    assert {one["unit"] for one in free} == {"U0"}
    assert not {(one["unit"], one["room"], one["bed"]) for one in free} & expected
    before = beds(command, "--at", "2026-02-28T00:00:00Z")
    assert before["occupied"] == 0
    shown = command("beds", "--site", SITE).stdout
    assert f"{len(expected)} of 60 beds occupied" in shown
    assert "Wolpertinger" not in shown + json.dumps(made)


def test_a_merged_patient_s_bed_is_free_after_the_survivor_s_discharge(
    declared: Path, mllp: int, command: Run, tmp_path: Path
) -> None:
    """Another visit of the survivor hides the stay as little as the discharge leaves it."""

    def told(*some: tuple[str, str, str, str]) -> list[dict[str, Any]]:
        lines = [
            f"MSH|^~\\&|STACK|MERGEHOUSE|US|HERE|202603011{hour}0000||ADT^{trigger}|M{hour}{trigger}|P|2.5\r"
            f"PID|1||{patient}^^^MERGEHOUSE^MR||Wolpertinger||19700101|F\r{rest}\r"
            for trigger, hour, patient, rest in some
        ]
        path = tmp_path / f"{some[0][1]}.hl7"
        path.write_text("".join(lines), newline="")
        assert command("send", str(path), "--port", str(mllp)).returncode == 0
        settled()
        done = command("beds", "--site", "MERGEHOUSE", "--json")
        assert done.returncode == 0, done.stderr
        return [one for site in json.loads(done.stdout)["sites"] for one in site["beds"] if one["patients"]]

    def visit(number: str, place: str = "", kind: str = "I") -> str:
        return f"PV1|1|{kind}|{place}|||||||MED|||||||||{number}"

    told(("A01", "0", "MERGED1", visit("MV1", "M^1^1")))
    (merged,) = told(("A40", "1", "MERGED2", "MRG|MERGED1^^^MERGEHOUSE^MR"))
    assert (merged["unit"], merged["since_hours"] > 0) == ("M", True)
    (beside,) = told(("A04", "2", "MERGED2", visit("MV2", "CLINIC", "O")), ("A03", "3", "MERGED2", visit("MV2")))
    assert beside["patient_ref"] == merged["patient_ref"]
    assert told(("A03", "4", "MERGED2", visit("MV1"))) == []


def test_a_replay_of_records_derives_nothing_again(declared: Path, command: Run) -> None:
    def sent() -> int:
        reader = Reader(DOMAINS["allocation"].raw.name)
        try:
            return sum(1 for _ in reader.until_end())
        finally:
            reader.close()

    before = sent()
    assert command("replay", "--into", f"ehr-beds{time.time_ns()}").returncode == 0
    assert sent() == before


def test_what_follows_from_records_is_sent_again_where_asked_for(declared: Path, command: Run) -> None:
    def sent() -> Counter[bytes]:
        made = Counter[bytes]()
        for name in ("allocation", "quality"):
            reader = Reader(DOMAINS[name].raw.name)
            try:
                made.update(headers(one).get("event_id", b"") for one in reader.until_end())
            finally:
                reader.close()
        return made

    before, board = sent(), beds(command)
    with client() as server:
        server.indices.refresh(index="allocation")
        documents = server.count(index="allocation")["count"]
    done = command("replay", "--derive", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    after = sent()
    assert 0 < figures["events"] == sum((after - before).values())
    assert after.keys() == before.keys(), "no event is new"
    settled()
    with client() as server:
        server.indices.refresh(index="allocation")
        assert server.count(index="allocation")["count"] == documents
    same = {name: value for name, value in beds(command).items() if name in ("occupied", "total", "conflicts")}
    assert same == {name: board[name] for name in same}
    none = json.loads(command("replay", "--derive", "--to", "2001-01-01", "--json").stdout)
    assert (none["records"], none["events"], set(none["left_out"])) == (0, 0, {"outside"})
    for wrong in (("--derive", "--into", "ehr-x"), (), ("--derive", "--abandon")):
        assert command("replay", *wrong).returncode == 2, wrong


async def test_a_worker_s_memory_is_what_a_person_is_told(declared: Path, command: Run) -> None:
    """The same queries to the same index; and the one for stays that are another site's by now."""
    index = Index(async_client(), "allocation")
    try:
        sites = Sites(index, KeyStore.local()[1])
        change = Change("location", "", None, {"site": SITE})
        await sites.follow([SimpleNamespace(changes=[change], incoming=SimpleNamespace(partition=0))])  # type: ignore[list-item]
        held = dict(sites.live.held(SITE))
        lying = sites.live.board(SITE).lying
        told = {"|".join((one["unit"], one["room"], one["bed"])) for one in beds(command)["beds"] if one["patients"]}
        assert set(lying) == told
        assert await index.find(elsewhere(SITE, held, {}) or {}) == {}
        stays = {name for name, one in held.items() if one["kind"] == "placement"}
        ref = next(held[name]["patient_ref"] for name in stays)
        for merged in ({}, {ref: "somebody"}):
            assert set(await index.find(elsewhere("ANOTHER", held, merged) or {})) == stays != set()
        assert {one["patient_ref"] for one in (await index.find(elsewhere(SITE, held, {ref: "x"}) or {})).values()} == {
            ref
        }
    finally:
        await index._server.close()


async def test_at_a_rebalance_every_followed_site_is_forgotten(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streams import agent, worker  # needs the broker's address when it is imported

    of = agent.Agent(DOMAINS["allocation"])
    try:
        assert of._sites is not None
        of._sites.live.follow(SITE, {})
        monkeypatch.setitem(agent.AGENTS, "allocation", of)
        await worker.app.on_partitions_revoked.send(set())
        assert list(of._sites.live) == []
    finally:
        of._producer.close()
        of._scorer.close()
        await of._index._server.close()


def test_beds_have_gauges(declared: Path, stack: Path) -> None:
    deadline = time.monotonic() + 30
    wanted = f'wardstream_bed_occupancy_ratio{{site="{SITE}",unit="U0"}}'.encode()
    while not any(wanted in page for page in pages(stack)):
        assert time.monotonic() < deadline
        time.sleep(1)


def test_staff_by_reference(declared: Path, command: Run) -> None:
    (site,) = json.loads(command("staff", "--site", SITE, "--unit", "U0", "--json").stdout)["sites"]
    assert [one["role"] for one in site["staff"]] == ["nurse", "nurse"]
    assert len({one["staff_ref"] for one in site["staff"]}) == 2
    assert "Zwetschge" not in json.dumps(site)
    later = (datetime.now(UTC) + timedelta(hours=20)).isoformat()
    (empty,) = json.loads(command("staff", "--site", SITE, "--at", later, "--json").stdout)["sites"]
    assert empty["staff"] == []


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), ["P3", "P2", "P1"]),
        (("--near", "0,0"), ["P1", "P3", "P2"]),
        (("--near", "U2", "--type", "equipment"), ["P2", "P3", "P1"]),
        (("--max-price", "30"), ["P3", "P2"]),
        (("--free",), ["P2", "P1"]),
        (("--type", "theatre"), []),
    ],
)
def test_resources(declared: Path, command: Run, options: tuple[str, ...], found: list[str]) -> None:
    done = command("resources", "--site", SITE, "--json", *options)
    assert [one["resource_id"] for one in json.loads(done.stdout)["resources"]] == found


def test_stock_and_transport_are_divided(declared: Path, command: Run, tmp_path: Path) -> None:
    """The dearer demand comes first, and a unit more would be worth what the other gives for it."""
    at = "2026-03-01T00:00:00Z"
    said = [{"type": "resource", "id": "KITS", "resource_type": "stock", "quantity": 10, "units": "kit", "at": at},
            {"type": "resource", "id": "PORTERS", "resource_type": "transport", "minutes": 120, "at": at}]  # fmt: skip
    assert produce(command, tmp_path, said) == {"indexed": 2}
    settled()
    path = tmp_path / "demands.json"
    path.write_text(json.dumps([
        {"ref": "theatre", "value": 5, "most": 8, "uses": {"KITS": 1, "PORTERS": 5}},
        {"ref": "ward", "value": 3, "most": 8, "uses": {"KITS": 1}},
    ]))  # fmt: skip
    done = command("plan", "divide", str(path), "--site", SITE, "--json")
    made = json.loads(done.stdout)
    assert made["granted"] == {"theatre": 8.0, "ward": 2.0}
    assert made["prices"] == {"KITS": 3.0, "PORTERS": 0.0}
    assert made["left"] == {"KITS": 0.0, "PORTERS": 80.0}
    assert "price of a little more" in command("plan", "divide", str(path), "--site", SITE).stdout
    path.write_text(json.dumps([{"ref": "ward", "value": 3, "most": 80, "least": 11, "uses": {"KITS": 1}}]))
    assert command("plan", "divide", str(path), "--site", SITE).returncode == 1
    for wrong in ("[]]", '[{"ref": "ward"}]', '[{"ref": "a", "value": 1, "most": 1, "uses": {"NONE": 1}}]'):
        path.write_text(wrong)
        assert command("plan", "divide", str(path), "--site", SITE).returncode == 2


def test_questions_that_cannot_be_asked(declared: Path, command: Run) -> None:
    for wrong in (
        ("beds", "--site", "NOWHERE"), ("beds", "--at", "yesterday"), ("staff", "--at", "2026-03-01T07:00:00"),
        ("resources", "--near", "1,x"), ("resources", "--near", "NOUNIT", "--site", SITE),
        ("resources", "--type", "bed"), ("produce", "operations"), ("produce", "operations", ".", "--type", "bed"),
    ):  # fmt: skip
        assert command(*wrong).returncode == 2, wrong
    assert command("beds", "--role", "researcher").returncode == 10
    assert command("beds", "--role", "bed_manager", "--site", SITE).returncode == 0


def test_over_http(declared: Path, command: Run) -> None:
    """The rest of it: tests/test_operations_feed.py."""
    said = {"type": "location", "site": SITE, "at": "2026-03-02T00:00:00Z", "unit": "U0", "room": "0", "bed": "1",
            "bed_status": "C"}  # fmt: skip
    with listening("operations") as port:
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/", json.dumps(said).encode(), head)
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
    settled()
    (one,) = [one for one in beds(command, "--unit", "U0")["beds"] if (one["room"], one["bed"]) == ("0", "1")]
    assert one["status"] == "C"


def test_an_erased_member_of_staff_leaves_no_shift(declared: Path, command: Run, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    shift = {
        "type": "shift", "id": "S-erased", "at": "2026-03-01T00:00:00Z", "staff_number": "N-erased", "role": "nurse",
        "unit": "U9", "starts_at": (now - timedelta(hours=1)).isoformat(),
        "ends_at": (now + timedelta(hours=7)).isoformat(),
    }  # fmt: skip
    pump = {"type": "resource", "id": "P-phone", "resource_type": "equipment", "resource_status": "available",
            "at": "2026-03-01T00:00:00Z", "display": "Pump, ask 617-555-0134"}  # fmt: skip
    assert produce(command, tmp_path, [shift, pump]) == {"indexed": 2}
    settled()

    def at_work() -> list[dict[str, Any]]:
        done = command("staff", "--site", SITE, "--unit", "U9", "--json")
        return [one for site in json.loads(done.stdout)["sites"] for one in site["staff"]]

    deadline = time.monotonic() + 20
    while not (there := at_work()) and time.monotonic() < deadline:
        time.sleep(0.3)
    (member,) = {one["staff_ref"] for one in there}
    done = command("erase", "--patient", member, "--reason", "asked for it", "--json")
    assert done.returncode == 0, done.stderr
    assert at_work() == []
    with client() as server:
        of_member = {"bool": {"should": [{"term": {"staff_ref": member}}, {"term": {"sealed_by": member}}]}}
        assert server.count(index="allocation", query=of_member)["count"] == 0
        pumps = server.search(index="allocation", query={"term": {"resource_id": "P-phone"}})["hits"]["hits"]
    assert {one["_source"]["kind"] for one in pumps} == {"resource", "resource_event"}
    assert {one["_source"]["display"] for one in pumps} == {"Pump, ask [removed]"}
