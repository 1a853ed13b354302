"""From messages to what is durable: what is derived from ADT, under whose keys, and what an erasure leaves."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.crypto import open_payload
from infra.errors import KeyShredded
from infra.kafka import Outgoing
from infra.keyring import Keyring
from infra.keystore import KeyStore
from producers import ehr as ehr_feed
from producers import operations
from producers.publish import Arrival, Publisher
from producers.seen import Seen
from schemas import derived
from schemas.envelope import Envelope
from schemas.peers import Peer, Peers
from schemas.registry import DOMAINS
from streams.allocation.board import board
from streams.fold import Entity
from streams.process import Batch, Incoming, Processor
from streams.stages import STAGES
from tests.broker import Broker
from tests.entities import SITE, Said, at, bed, shift, step

NOW = datetime(2026, 3, 1, 18, tzinfo=UTC)
RAW = DOMAINS["allocation"].raw.name


@dataclass
class House:
    """An edge, a key store and the two agents' processors, without a server."""

    keys: KeyStore
    broker: Broker
    publisher: Publisher
    ehr: Processor
    beds: Processor

    async def publish(self, *arrivals: Arrival) -> list[Outgoing]:
        before = len(self.broker.sent)
        for one in arrivals:
            await self.publisher.publish(one)
        return self.broker.sent[before:]


@pytest.fixture
async def house(tmp_path: Path, home: Path) -> Any:
    keyring = Keyring.open(tmp_path / "keyring.json")
    keys = KeyStore(f"sqlite:///{tmp_path / 'keystore.sqlite'}", keyring)
    broker = Broker(is_open=True)
    peers = Peers((Peer(match="*|SOUTH", visit_authority="SOUTH"),))
    made = {name: Processor(DOMAINS[name], STAGES[name], peers, keyring, keys) for name in ("ehr", "allocation")}
    async with Publisher(broker, keyring, keys, Seen(tmp_path / "seen.sqlite")) as publisher:  # type: ignore[arg-type]
        yield House(keys, broker, publisher, made["ehr"], made["allocation"])


def incoming(sent: Iterable[Outgoing]) -> list[Incoming]:
    return [Incoming(one.topic, 0, n, one.key, one.value or b"", list(one.headers)) for n, one in enumerate(sent)]


def operation(said: Said) -> Arrival:
    return operations.arrival({"site": SITE} | dict(said), "x", {}, NOW)


def adt(
    trigger: str,
    visit: str = "V1",
    place: str = "ICU^1^1",
    patient: str = "7001",
    more: str = "",
    site: str = SITE,
    hour: int = 8,
) -> Arrival:
    lines = (
        f"MSH|^~\\&|APP|{site}|US|HERE|20260301{hour:02}0000||ADT^{trigger}|{trigger}{visit}{patient}|P|2.5",
        f"PID|1||{patient}^^^HOSP^MR||Quetzal^Ilse||19800102|F",
        more or f"PV1|1|I|{place}|||||||MED|||||||||{visit}",
    )
    return ehr_feed.arrival(("\r".join(lines) + "\r").encode(), Peers(), NOW)


def following(house: House, sent: Iterable[Outgoing]) -> list[Outgoing]:
    """What the agent of health records sends to beds."""
    return [one for one in house.ehr.outgoing(house.ehr.read(incoming(sent))) if one.topic == RAW]


def folded(house: House, batch: Batch, held: dict[str, Entity]) -> dict[str, Entity]:
    made = {name: run(held.get(name)) for name, run in house.beds.folds(batch.ready).items()}
    return held | {name: one for name, one in made.items() if one is not None}


async def test_adt_becomes_an_event_of_beds(house: House) -> None:
    sent = await house.publish(adt("A01"))
    (one,) = following(house, sent)
    envelope, original = (Envelope.read(some.headers) for some in (one, sent[0]))
    assert envelope.content_type == derived.CONTENT_TYPE
    assert (envelope.subjects, envelope.source) == (original.subjects, original.source)
    assert envelope.trace_id == original.trace_id, "one way, one trace"
    assert one.key == house.keys.order(SITE), "one site has one order"
    assert (await house.publish(operation(bed("ICU 1 1"))))[0].key == one.key
    batch = house.beds.read(incoming([one]))
    (ready,) = batch.ready
    (write,) = ready.writes
    source = json.loads(write.source)
    assert (source["kind"], source["unit"], source["patient_ref"]) == ("placement_event", "ICU", ready.keys[0].ref)
    for word in (b"Quetzal", b"7001"):
        assert word not in write.source
        assert word not in (one.value or b"")
    (stay,) = folded(house, batch, {}).values()
    assert (stay["state"], stay["unit"], stay["sex"], stay["age"]) == ("in-progress", "ICU", "F", 46)


async def test_read_again_it_is_the_same_event(house: House) -> None:
    sent = await house.publish(adt("A01"), adt("A03"))
    first, again = following(house, sent), following(house, sent)
    ids = [Envelope.read(one.headers).event_id for one in first]
    assert ids == [Envelope.read(one.headers).event_id for one in again]
    assert len(set(ids)) == 2
    batch = house.beds.read(incoming([*first, *again]))
    assert len({write.id for event in batch.ready for write in event.writes}) == 2
    held = folded(house, house.beds.read(incoming(first)), {})
    assert folded(house, house.beds.read(incoming(again)), held) == held, "and changes nothing"


async def test_after_a_merge_one_stay_is_told_under_two_references(house: House) -> None:
    """A01 of one number, A40, A03 of the other."""
    sent = await house.publish(adt("A01", patient="7002"))
    came = following(house, sent)
    merge = house.ehr.read(incoming(await house.publish(adt("A40", more="MRG|7002^^^HOSP^MR"))))
    for one in house.ehr.merges(merge.ready):
        assert house.keys.alias(*one)
    went = following(house, await house.publish(adt("A03")))
    held: dict[str, Entity] = {}
    for some in (came, went):
        held = folded(house, house.beds.read(incoming(some)), held)
    first, second = held.values()
    assert first["patient_ref"] != second["patient_ref"]
    assert first["stay"] == second["stay"]
    assert "V1" not in first["stay"]
    merged = house.keys.merged()
    again = folded(house, house.beds.read(incoming([*went, *came])), {})
    assert again.keys() == held.keys()
    for order in (held, dict(reversed(held.items())), again):
        assert board(SITE, order, NOW, merged).stays == {}
    assert board(SITE, held, NOW).stays != {}, "undone, the merge leaves each with what was told of it"


async def test_a_replay_of_records_sends_nothing(house: House) -> None:
    """consumers/replay.py takes documents, entities and scores of a batch; what follows leaves by `outgoing` alone."""
    batch = house.ehr.read(incoming(await house.publish(adt("A01"))))
    assert any(isinstance(one, derived.Derived) for one in batch.ready[0].follows)
    assert all(one.topic != RAW for one in house.ehr.sealed(batch))


async def test_what_follows_from_records_may_be_sent_again(house: House) -> None:
    """`replay --derive`: the same events as the agent sent, so a board that has them stays, and an empty one fills."""
    sent = await house.publish(adt("A01"), adt("A02", place="MED^1^1", hour=9))
    first, again = following(house, sent), house.ehr.derived(house.ehr.read(incoming(sent)))
    again = [one for one in again if one.topic == RAW]
    ids, once_more = ([Envelope.read(one.headers).event_id for one in some] for some in (first, again))
    assert ids == once_more
    held = folded(house, house.beds.read(incoming(first)), {})
    assert folded(house, house.beds.read(incoming(again)), held) == held
    (stay,) = folded(house, house.beds.read(incoming(again)), {}).values()
    assert (stay["state"], stay["unit"]) == ("in-progress", "MED")


async def test_a_bed_is_nobody_s(house: House) -> None:
    """Its entity has one id whichever week's key its events were sealed under, and no reference of anybody."""
    first, second = await house.publish(operation(bed("ICU 1 1")), operation(bed("ICU 1 1", 9)))
    held = folded(house, house.beds.read(incoming([first, second])), {})
    (one,) = held.values()
    assert "patient_ref" not in one
    assert one["sealed"] == {}
    assert one["event_time"] == at(9)


async def test_a_price_that_goes_back_is_told_anew(house: House) -> None:
    """Lists without a time count as of their arrival: 100, then 120 by mistake, then 100 again, each sent twice."""
    price = {"type": "price", "site": SITE, "code": "0120", "currency": "USD"}
    sent: list[Outgoing] = []
    for minute, amount in enumerate((100, 100, 120, 120, 100, 100, 120)):
        before = len(house.broker.sent)
        said = operations.arrival(price | {"amount": amount}, "x", {}, NOW.replace(minute=minute))
        receipt = await house.publisher.publish(said)
        other = operations.arrival(price | {"amount": 100, "payer": "ACME"}, "x", {}, NOW.replace(minute=minute))
        assert (await house.publisher.publish(other)).duplicate is (minute > 0), "another price is none of this one's"
        new = [one for one in house.broker.sent[before:] if Envelope.read(one.headers).event_id == receipt.event_id]
        assert (len(new), receipt.duplicate) == ((0, True) if minute in (1, 3, 5) else (1, False))
        sent += new
    assert len({Envelope.read(one.headers).event_id for one in sent}) == len(sent) == 4
    for count, amount in enumerate((100, 120, 100, 120), 1):
        for some in (sent[:count], sent[:count][::-1]):
            (entity,) = folded(house, house.beds.read(incoming(some)), {}).values()
            assert entity["amount"] == amount


async def test_houses_that_number_visits_each_by_itself(house: House) -> None:
    """One patient number, one visit number, two houses: a stay in each, and of NORTH's own one stay wherever."""
    said = step("7001", "A08", 9, visit="V1", isolation="MRSA", patient_authority="HOSP", visit_authority="SOUTH")
    sent = following(house, await house.publish(adt("A01"), adt("A01", place="MED^1^1", site="SOUTH")))
    sent += await house.publish(operations.arrival({"site": "SOUTH"} | dict(said), "x", {}, NOW))
    held = folded(house, house.beds.read(incoming(sent)), {})
    assert {(one["site"], one["unit"], one.get("isolation")) for one in held.values()} == {
        ("NORTH", "ICU", None), ("SOUTH", "MED", "MRSA"),
    }  # fmt: skip
    assert len({one["stay"] for one in held.values()}) == len({one["patient_ref"] for one in held.values()}) + 1 == 2
    moved = following(house, await house.publish(adt("A02", place="MED^9^9", site="WEST", hour=9)))
    held = folded(house, house.beds.read(incoming(moved)), held)
    assert {(one["site"], one["unit"]) for one in held.values()} == {("WEST", "MED"), ("SOUTH", "MED")}


async def test_a_weeks_key_does_not_change_a_bed(house: House) -> None:
    def arrival(received: datetime, hour: float) -> Arrival:
        return operations.arrival({"site": SITE} | dict(bed("ICU 1 1", hour)), "x", {}, received)

    sent = await house.publish(arrival(NOW, 7), arrival(NOW.replace(day=12), 8))
    batch = house.beds.read(incoming(sent))
    assert len({event.keys[0].ref for event in batch.ready}) == 2
    assert len(folded(house, batch, {})) == 1


def shredded(call: Callable[[], Any]) -> bool:
    try:
        call()
    except KeyShredded:
        return True
    return False


async def test_erasing_a_member_of_staff_takes_the_name_away(house: House) -> None:
    said = shift("S1", "N1", 6, 14, staff_name="Zzyzxowitz Ada", unit="ICU")
    sent = await house.publish(operation(said))
    batch = house.beds.read(incoming(sent))
    (ready,) = batch.ready
    (made,) = folded(house, batch, {}).values()
    (ref,) = made["staff_ref"]
    assert made["sealed"]["member"][0]["ref"] == ref
    assert "patient_ref" not in made
    for place in (ready.writes[0].source, json.dumps(made).encode(), sent[0].value or b""):
        assert b"Zzyzxowitz" not in place
    envelope = Envelope.read(sent[0].headers)
    opened = open_payload(ready.keys, envelope.event_id, envelope.sealed(sent[0].value or b""))
    assert b"Zzyzxowitz" in opened, "under the member's own key, and no other"
    assert [key.ref for key in ready.keys] == [ref]
    now = time.time()
    house.keys.mark_erased({ref}, now)
    house.keys.destroy({ref})
    await asyncio.sleep(0.3)  # until caches are looked at again
    assert shredded(lambda: house.keys.of_ref(ref))
    again = house.beds.read(incoming(sent))
    assert (again.ready, [why for _, why in again.dropped]) == ([], ["erased"])


async def test_the_planner_s_site_out_of_sealed_entities(house: House) -> None:
    sent = await house.publish(
        operation(bed("ICU 1 1")), operation(bed("ICU 1 2")),
        operation(step("P", "A01", 7, "ICU 1 2", sex="M", age=50)), operation(shift("S1", "N1", 6, 22, unit="ICU")),
    )  # fmt: skip
    sent += following(house, await house.publish(adt("A01")))
    held: dict[str, Entity] = {}
    for one in sent:
        held = folded(house, house.beds.read(incoming([one])), held)
    made = board(SITE, held, datetime.fromisoformat(at(12)))
    assert {stay.bed: stay.need.sex for stay in made.site.stays} == {"ICU|1|1": "F", "ICU|1|2": "M"}
    assert made.conflicts == ()
    (nurse,) = made.site.nurses
    assert nurse.ref == next(one["staff_ref"][0] for one in held.values() if one["kind"] == "shift")
