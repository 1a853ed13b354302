"""One person is erased everywhere, whatever is killed meanwhile; old events stay out, new ones start somebody new."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from elasticsearch.helpers import scan

from consumers.erase import erase
from infra.crypto import field_key_version, open_field, open_payload
from infra.elastic import client
from infra.errors import KeyShredded, LedgerBroken
from infra.kafka import Reader, headers
from infra.keyring import Keyring
from infra.keystore import KeyStore
from infra.ledger import Ledger
from infra.settings import settings
from schemas.envelope import Envelope
from schemas.registry import DOMAINS
from schemas.signal import SignalEnvelope
from schemas.stores import STORES
from schemas.topics import SIGNALS
from tests import killed
from tests.command import wardstream
from tests.test_promises import found_in

Run = Callable[..., Any]
EHR = DOMAINS["ehr"]
STEPS = ("keys", "caches", "drained", "objects", "index", "tombstones", "verified", "finished")
IDENTIFYING = {"name": "Velociraptora", "number": "ERASEME417", "other": "ERASEALSO417", "street": "Flugsaurierallee"}
CLINICAL = {"word": "Zebrawortitis", "code": "88417-5", "ward": "ERASEDWARD", "letter": "Letterwortosis"}
WORDS = IDENTIFYING | CLINICAL
KEPT = "Keepwortitis"


def message(
    control: str, number: str, word: str, *, at: datetime | None = None, extra: str = "", born: str = "19800101"
) -> str:
    when = (at or datetime.now(UTC) - timedelta(days=3)).strftime("%Y%m%d%H%M%S+0000")
    return (
        f"MSH|^~\\&|ERASE|HERE|US|X|{when}||ORU^R01|{control}|P|2.5\r"
        f"PID|1||{number}^^^HOSP^MR||Velociraptora^Ann||{born}|F|||Flugsaurierallee 7^^Ulm\r"
        f"PV1|1|I|{'ERASEDWARD' if number.startswith('ERASE') else 'KEPTWARD'}^2^1\r"
        f"OBR|1||L1|24331-1^Lipids^LN\rOBX|1|TX|NOTE||Seen: {word}.||||||F\r"
        f"OBX|2|NM|88417-5^Marker^LN||9|mg||HH|||F\r"
    )  # fmt: skip


MERGE = (
    "MSH|^~\\&|ERASE|HERE|US|X|20260301120000||ADT^A40|ER3|P|2.5\r"
    "PID|1||ERASEME417^^^HOSP^MR||Velociraptora^Ann\rMRG|ERASEALSO417^^^HOSP^MR\r"
)


def produce(command: Run, folder: Path, *messages: str) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    (folder / "some.hl7").write_text("".join(messages), newline="")
    command("produce", "files", str(folder / "some.hl7"), "--manifest", str(folder / "out.jsonl"), "--json")
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


@dataclass
class Kept:
    """Ciphertexts of the person, kept from before; and a backup of then."""

    refs: frozenset[str]
    payloads: list[tuple[str, tuple[str, ...], Any, bytes]] = field(default_factory=list)
    signals: list[tuple[SignalEnvelope, bytes]] = field(default_factory=list)
    fields: list[tuple[str, str, str, str]] = field(default_factory=list)  # ref, document, name, seal
    backup: Path = Path()


def keep(refs: frozenset[str]) -> Kept:
    _, keys = KeyStore.local()
    kept = Kept(refs)
    tokens = {keys.token(ref) for ref in refs}
    for topic in (EHR.raw.name, EHR.dead_letters.name, EHR.sealed.name):
        reader = Reader(topic)
        for one in reader.until_end():
            if one.value() and "replayed_at" not in headers(one):
                envelope = Envelope.read(headers(one).items())
                if tokens & set(envelope.subjects):
                    kept.payloads.append((topic, envelope.subjects, envelope, one.value() or b""))
        reader.close()
    reader = Reader(SIGNALS.name)
    for one in reader.until_end():
        if "signal" in headers(one) and (said := SignalEnvelope.read(headers(one).items())).subject in tokens:
            kept.signals.append((said, one.value() or b""))
    reader.close()
    with client() as server:
        for hit in scan(server, index=EHR.alias, query={"query": {"terms": {"patient_ref": sorted(refs)}}}):
            for name, seal in hit["_source"].get("sealed", {}).items():
                if isinstance(seal, str):
                    kept.fields.append((hit["_source"]["patient_ref"], hit["_id"], name, seal))
    return kept


def opening(kept: Kept, keys: KeyStore) -> int:
    """How many of the kept ciphertexts open; the others must say that the person was erased."""
    opened = 0
    for _, subjects, envelope, body in kept.payloads:
        found = keys.of_tokens(subjects)
        if all(found.values()):
            open_payload([key for key in found.values() if key], envelope.event_id, envelope.sealed(body))
            opened += 1
    for said, value in kept.signals:
        (key,) = keys.of_tokens([said.subject]).values()
        if key is not None:
            said.opened([key], value)
            opened += 1
    for ref, document, name, seal in kept.fields:
        try:
            open_field(keys.of_ref(ref, field_key_version(seal)), "ehr", document, name, seal)
            opened += 1
        except KeyShredded:
            pass
    return opened


Erased = tuple[Kept, dict[str, Any]]


@pytest.fixture(scope="module")
def erased(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> Erased:
    """A person with an alias, a dead letter and a signal, erased with kill -9 at both sides of every step."""
    folder = tmp_path_factory.mktemp("erase")
    rows = produce(
        command, folder / "in",
        message("ER1", "ERASEME417", "Zebrawortitis"),
        message("ER2", "ERASEALSO417", "Zebrawortitis"),
        MERGE,
        message("ER4", "ERASEME417", "Letterwortosis", born="19801399"),
        message("ER5", "KEEP417", KEPT),
    )  # fmt: skip
    assert [row["outcome"] for row in rows] == ["indexed"] * 3 + ["dead_lettered", "indexed"]
    _, keys = KeyStore.local()
    deadline = time.monotonic() + 20
    while len(refs := frozenset().union(*map(keys.family, keys.refs_of([("HOSP", "MR", "ERASEME417")])))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    time.sleep(1.5)
    kept = keep(frozenset(refs))
    assert min(len(kept.payloads), len(kept.signals), len(kept.fields)) >= 2
    assert {topic for topic, *_ in kept.payloads} == {EHR.raw.name, EHR.dead_letters.name, EHR.sealed.name}
    assert opening(kept, keys) == len(kept.payloads) + len(kept.signals) + len(kept.fields)
    kept.backup = folder / "backup"
    assert command("backup", str(kept.backup)).returncode == 0
    shutil.rmtree(folder / "in")
    found = {store.name for store in STORES if found_in(store, stack, CLINICAL)}
    assert {"ehr", "elasticsearch"} <= found, "the words are there, and the search sees them"

    refused = command("hold", "place", "--patient", "ERASEME417", "--basis", "retention", "--json")
    (hold,) = json.loads(refused.stdout)
    done = command("erase", "--patient", "ERASEME417", "--reason", "asked for")
    assert (done.returncode, "retention" in done.stderr) == (11, True)
    assert opening(kept, keys)
    assert command("hold", "release", hold["id"]).returncode == 0
    dry = json.loads(command("erase", "--patient", "HOSP|MR|ERASEALSO417", "--dry-run", "--json").stdout)
    assert dry["references"] == 2
    assert sum(dry["documents"].values()) >= 6
    assert dry["records"][EHR.sealed.name] == 3
    assert opening(kept, keys), "a dry run changes nothing"

    kills = [(step, when) for step in ("requested", *STEPS) for when in ("before", "after")]
    for step, when in kills:
        assert killed.exit_code("HOSP|MR|ERASEME417", step, when) == -9, (step, when)
        if (step, when) == ("requested", "before"):
            assert opening(kept, KeyStore.local()[1]), "nothing was asked for yet"
        else:
            assert opening(kept, KeyStore.local()[1]) == 0, (step, when)
    done = command("erase", "--patient", "HOSP|MR|ERASEME417", "--reason", "ERASEME417 asked for it", "--json")
    assert done.returncode == 0, done.stderr
    (proof,) = json.loads(done.stdout)
    return kept, proof


pytestmark = pytest.mark.timeout(280)


def test_the_proof_says_what_and_where_and_is_signed(erased: Erased, stack: Path, command: Run) -> None:
    kept, proof = erased
    said = proof["said"]
    assert set(said["references"]) == kept.refs
    assert set(said["steps"]) >= {"requested", *STEPS} - {"finished"}
    assert sum(said["steps"]["requested"]["documents"].values()) >= 6
    assert said["stores"].keys() == {store.name for store in STORES}
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(proof["public_key"]))
    assert key.public_bytes_raw() == Keyring.local().signing_key().public_key().public_bytes_raw()
    key.verify(
        bytes.fromhex(proof["signature"]), b"wardstream proof 1\n" + orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    )
    (mine,) = [one for one in Ledger.local(Keyring.local()).erasures() if one.refs == kept.refs]
    assert set(mine.steps) == {"requested", *STEPS}
    again = command("erase", "--patient", "HOSP|MR|ERASEME417", "--reason", "again", "--json")
    assert json.loads(again.stdout)[0]["signature"] == proof["signature"]


def test_no_ciphertext_opens(erased: Erased) -> None:
    assert opening(erased[0], KeyStore.local()[1]) == 0


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_nothing_of_the_person_is_left(erased: Erased, stack: Path, store: Any) -> None:
    words = {name: word for name, word in WORDS.items() if name != "code"}  # 88417-5 is the other patient's too
    assert found_in(store, stack, words) == set()


def test_others_are_untouched(erased: Erased, command: Run) -> None:
    hits = json.loads(command("search", KEPT, "--json").stdout)["hits"]
    assert hits
    assert command("reveal", hits[0]["event_id"], "--field", "name", "--purpose", "TREAT").returncode == 0


def test_nobody_is_an_error(stack: Path, command: Run) -> None:
    done = command("erase", "--patient", "HOSP|MR|NOBODY", "--reason", "x")
    assert (done.returncode, "nobody" in done.stderr) == (2, True)


def test_a_backup_restored_the_documented_way_opens_nothing_of_the_person(
    erased: Erased, stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, _ = erased
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True, mode=0o700)
    shutil.copy(stack / "keys" / "keyring.json", home / "keys" / "keyring.json")
    addresses = {
        "WARDSTREAM_KAFKA": settings().kafka_servers(),
        "WARDSTREAM_ELASTICSEARCH": settings().elasticsearch_url(),
    }
    environment = os.environ | {"WARDSTREAM_HOME": str(home)} | addresses
    restore = ("restore", str(kept.backup))
    done = wardstream(*restore, environment=environment)
    assert (done.returncode, "ledger" in done.stderr) == (2, True), "without the ledger nothing is restored"
    environment["WARDSTREAM_LEDGER"] = str(stack / "ledger")
    done = wardstream(*restore, "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["there"] > 0
    assert counts["restored"] == 0
    for name, value in environment.items():
        if name.startswith("WARDSTREAM_"):
            monkeypatch.setenv(name, value)
    settings.cache_clear()
    try:
        _, keys = KeyStore.local()
        assert opening(kept, keys) == 0
        assert keys.resolve([]) == []
        living = keys.refs_of([("HOSP", "MR", "KEEP417")])
        assert keys.of_ref(living.pop()).secret
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    for path in kept.backup.iterdir():
        assert not any(word.encode() in path.read_bytes() for word in WORDS.values() if word != "88417-5"), path.name


def test_by_hand_too_an_old_key_store_obeys_the_ledger(erased: Erased, stack: Path, tmp_path: Path) -> None:
    """Not the documented way: the file opens with the keyring, until the key-encryption key of then is destroyed."""
    kept, _ = erased
    shutil.copy(kept.backup / "keystore.sqlite", tmp_path / "old.sqlite")
    keyring = Keyring.open(stack / "keys" / "keyring.json")
    old = KeyStore(f"sqlite:///{tmp_path / 'old.sqlite'}", keyring)
    assert opening(kept, old) > 0, "the window that docs/security.md tells of"
    old.obey(Ledger.local(keyring).erasures())
    assert opening(kept, KeyStore(f"sqlite:///{tmp_path / 'old.sqlite'}", keyring)) == 0


def test_old_events_stay_out_and_new_ones_are_somebody_new(
    erased: Erased, stack: Path, command: Run, tmp_path: Path
) -> None:
    reader = Reader(SIGNALS.name, from_end=True)
    late = message("ER8", "ERASEALSO417", "Latewort", at=datetime.now(UTC) - timedelta(hours=5))
    (row,) = produce(command, tmp_path, late)
    assert (row["outcome"], row["reason"]) == ("refused", "erased")
    alerts = [one for _ in range(20) for one in reader.poll(0.2)]
    reader.close()
    assert [headers(one)["signal"] for one in alerts] == [b"event_of_erased_person"]
    assert json.loads(command("search", "Latewort", "--json").stdout)["total"] == 0
    back = message("ER9", "ERASEME417", "Backwortitis", at=datetime.now(UTC) + timedelta(seconds=1))
    (row,) = produce(command, tmp_path, back)
    assert row["outcome"] == "indexed"
    time.sleep(1.5)
    hits = json.loads(command("search", "Backwortitis", "--json").stdout)["hits"]
    assert hits
    assert {hit["patient_ref"] for hit in hits}.isdisjoint(erased[0].refs)
    assert command("reveal", hits[0]["event_id"], "--field", "name", "--purpose", "TREAT").returncode == 0


def test_a_moved_or_altered_ledger_stops_everything(tmp_path: Path, erased: Erased, stack: Path) -> None:
    keyring = Keyring.open(stack / "keys" / "keyring.json")
    lines = (stack / "ledger" / "erasures.jsonl").read_bytes().splitlines(keepends=True)
    for wrong in (lines[1:], [*lines[:1], *lines[2:]], [lines[0].replace(b'"at":1', b'"at":2'), *lines[1:]]):
        (tmp_path / "erasures.jsonl").write_bytes(b"".join(wrong))
        with pytest.raises(LedgerBroken):
            Ledger(tmp_path, keyring.signing_key()).erasures()


async def test_what_a_worker_still_had_in_hand_is_taken_back(stack: Path, command: Run, tmp_path: Path) -> None:
    """It has read an event, and somebody is erased before it writes: no document, no entity of theirs stays."""
    from streams.agent import Agent  # needs the broker's address when it is imported
    from streams.process import Incoming

    rows = produce(command, tmp_path, message("ER10", "INHAND417", "Inhandwort"), message("ER11", "OUTOFHAND417", KEPT))
    assert [row["outcome"] for row in rows] == ["indexed"] * 2
    events = {row["event_id"] for row in rows}
    reader = Reader(EHR.raw.name)
    taken = [one for one in reader.until_end() if headers(one)["event_id"].decode() in events]
    reader.close()
    agent = Agent(EHR)
    batch = agent.read(
        [
            Incoming(one.topic(), one.partition(), one.offset(), one.key(), one.value(), list(one.headers()))
            for one in taken
        ]
    )
    assert len(batch.ready) == 2
    _, keys = KeyStore.local()
    gone, stays = (keys.refs_of([("HOSP", "MR", number)]) for number in ("INHAND417", "OUTOFHAND417"))
    erase(frozenset(gone), "a test", "tester", keys, lambda told: None)
    take_back, held_back = agent._take_back, []
    agent._take_back = lambda batch: asyncio.sleep(0, held_back.append(batch))
    await agent.index(batch)
    await agent.fold(batch)
    await agent.finish(batch)
    with client() as server:
        server.indices.refresh(index=EHR.alias)
        query = {"terms": {"patient_ref": sorted(gone)}}
        assert server.count(index=EHR.alias, query=query)["count"], "without the last step it would be back"
        await take_back(held_back[0])
        server.indices.refresh(index=EHR.alias)
        assert server.count(index=EHR.alias, query=query)["count"] == 0
        assert server.count(index=EHR.alias, query={"terms": {"patient_ref": sorted(stays)}})["count"] >= 4
    again = agent.read(
        [
            Incoming(one.topic(), one.partition(), one.offset(), one.key(), one.value(), list(one.headers()))
            for one in taken
        ]
    )
    assert [why for _, why in again.dropped] == ["erased"]


def test_keys_rotate_while_everything_runs(stack: Path, command: Run, tmp_path: Path) -> None:
    """By the commands: what wraps keys, then what the blind index is made with; searches go on to find."""
    (row,) = produce(command, tmp_path, message("ER12", "ROTATE417", KEPT))
    before = {one["version"] for one in json.loads(command("keys", "status", "--json").stdout)}
    done = json.loads(command("keys", "rotate", "--kept-days", "0", "--json").stdout)
    assert [one["wraps"] > 0 for one in done] == [False] * len(before) + [True]
    assert all(one["destroyed_at"] for one in done[:-1])
    assert command("reveal", row["event_id"], "--field", "name", "--purpose", "TREAT").returncode == 0
    (row,) = produce(command, tmp_path, message("ER13", "ROTATED417", KEPT))
    assert row["outcome"] == "indexed", "workers wrap by the new key"
    done = command("keys", "rotate-blind", "--as", "v417", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["destroyed"] == [1]
    for query in ("id:ROTATE417", "identifiers:ROTATED417", 'name:"Velociraptora Ann 1980-01-01"'):
        assert json.loads(command("search", query, "--kind", "event", "--json").stdout)["total"] >= 1, query
    (row,) = produce(command, tmp_path, message("ER14", "ROTATEDTWICE417", KEPT))
    time.sleep(1.5)
    assert json.loads(command("search", "id:ROTATEDTWICE417", "--kind", "event", "--json").stdout)["total"] == 1
    assert command("audit", "verify").returncode == 0
