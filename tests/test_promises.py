"""The promises, over every registered store: nothing identifying in clear, nothing lost, nothing twice."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from elasticsearch.helpers import scan
from pydicom.dataset import Dataset

from infra.elastic import client
from infra.kafka import Outgoing, Producer, Reader, headers
from infra.local.stack import MARK
from schemas.registry import DOMAINS
from schemas.stores import STORES, Store
from tests import images

Run = Callable[..., Any]
PORT = re.compile(r"metrics and health on port (\d+)")
CANARIES = {
    "name": "Quetzalcoatlus",
    "number": "MRN90417733",
    "phone": "5550199731",
    "street": "Xylophonstrasse",
    "kin_name": "Zzyzxowitz",
    "kin_phone": "5550188642",
    "guarantor_name": "Wojnarowiczka",
    "guarantor_street": "Qwertyweg",
}
STAFFED = {  # of the same words: whose shift it is, and who waits for a bed
    "shift": {"staff_number": CANARIES["number"], "staff_name": CANARIES["name"], "starts_at": "2026-03-01T06:00:00Z",
              "ends_at": "2026-03-01T14:00:00Z"},
    "request": {"patient_number": CANARIES["number"], "surgeon_name": CANARIES["kin_name"]},
}  # fmt: skip
PLANTED = "Canarybird417"
MESSAGE = (
    "MSH|^~\\&|CAN|ARY|US|HERE|20260301120000||ORU^R01|CANARY1|P|2.5\r"
    "PID|1||{number}^^^HOSP^MR||{name}^Ann||19800101|F|||{street} 7^^Ulm||{phone}\r"
    "NK1|1|{kin_name}^Bob|SPO|{street} 7|{kin_phone}\r"
    "PV1|1|I|ICU^2^1\r"
    "GT1|1||{guarantor_name}^Carl||{guarantor_street} 9\r"
    "OBR|1||L1|24331-1^Lipids^LN\r"
    "OBX|1|TX|NOTE||Mrs {name} ({number}), {street} 7, phone {phone}; husband {kin_name} {kin_phone}||||||F\r"
    "NTE|1||{guarantor_name} of {guarantor_street} pays\r"
    "ZPI|1|{name}|{phone}\r"
).format(**CANARIES)


def texts_of(store: Store, home: Path) -> Iterator[bytes]:
    """Everything a store holds: through its own interface, so that no compression hides it."""
    if store.kind == "topic":
        reader = Reader(store.name)
        for message in reader.until_end():
            yield b"\n".join((message.key() or b"", message.value() or b"", *headers(message).values()))
        reader.close()
    elif store.kind == "index":
        with client() as server:
            server.indices.refresh(index=f"{store.name}-*")
            for hit in scan(server, index=f"{store.name}-*"):
                yield json.dumps(hit, ensure_ascii=False).encode()
    elif store.kind == "sqlite":
        with sqlite3.connect(home / store.name) as db:
            yield from ("\n".join(db.iterdump()).encode(),)
    elif store.kind == "metrics":
        yield from pages(home)
    else:
        place = home / store.name
        for path in [place] if place.is_file() else place.rglob("*"):
            if path.is_file() and path.suffix != ".jar":
                yield path.read_bytes()
    if store.kind == "sqlite":
        for path in (home / store.name).parent.glob(f"{Path(store.name).name}*"):
            yield path.read_bytes()


def pages(home: Path) -> Iterator[bytes]:
    """What each process of this home shows to whoever asks for its metrics; one at least."""
    ports = {int(port) for log in (home / "logs").glob("worker-*.log") for port in PORT.findall(log.read_text())}
    shown = []
    for port in ports:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            shown.append(page.read())
    assert shown
    yield from shown


def found_in(store: Store, home: Path, words: dict[str, str]) -> set[str]:
    levelled = {name: word.lower().encode() for name, word in words.items()}
    return {name for text in texts_of(store, home) for name, word in levelled.items() if word in text.lower()}


@pytest.fixture(scope="module")
def canary(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One message with every kind of identifying value, through every store; and one that is refused."""
    folder = tmp_path_factory.mktemp("canary")
    (folder / "good.hl7").write_bytes(MESSAGE.encode())
    (folder / "late.hl7").write_bytes(MESSAGE.replace("19800101", "19801399").replace("CANARY1", "CANARY2").encode())
    (folder / "bad.hl7").write_bytes(MESSAGE.replace("20260301120000", "x").replace("CANARY1", "CANARY3").encode())
    (folder / "adt.hl7").write_bytes(MESSAGE.replace("ORU^R01", "ADT^A01").replace("CANARY1", "CANARY4").encode())
    done = command("produce", "files", str(folder), "--json")
    assert json.loads(done.stdout)["outcomes"] == {"dead_lettered:bad_date": 2, "indexed": 2}
    operations = folder / "operations.ndjson"
    head = {"site": "ARY", "at": "2026-03-01T06:00:00Z", "id": CANARIES["phone"]}
    operations.write_text("".join(json.dumps(head | {"type": kind} | said) + "\n" for kind, said in STAFFED.items()))
    done = command("produce", "operations", str(operations), "--json")
    assert json.loads(done.stdout)["outcomes"] == {"indexed": 2}
    (folder / "images").mkdir()
    (folder / "images" / "good.dcm").write_bytes(images.part10(photographed()))
    (folder / "images" / "broken.dcm").write_bytes(images.part10(photographed())[:-700])
    done = command("produce", "files", str(folder / "images"), "--json")
    assert json.loads(done.stdout)["outcomes"] == {"indexed": 1, "refused:truncated": 1}
    return stack


def photographed() -> Dataset:
    """An image of the same person, who is named wherever a header has room."""
    ds = images.ct(1, CANARIES["number"], CANARIES["name"], 48)
    ds.PatientName, ds.PatientID = f"{CANARIES['name']}^Ann", CANARIES["number"]
    ds.PatientAddress, ds.PatientTelephoneNumbers = f"{CANARIES['street']} 7", CANARIES["phone"]
    ds.StudyDescription = f"Chest of {CANARIES['name']}, {CANARIES['number']}, {CANARIES['phone']}"
    ds.StationName, ds.BodyPartExamined = CANARIES["name"], CANARIES["number"]
    ds.ReferringPhysicianName = ds.OperatorsName = f"{CANARIES['kin_name']}^Bob"
    ds.PatientComments = ds.ImageComments = f"{CANARIES['guarantor_name']} of {CANARIES['guarantor_street']} pays"
    ds.add_new(0x00091001, "LO", CANARIES["name"])
    ds.add_new(0x00090010, "LO", f"MAKER OF {CANARIES['street']}")
    ds.PixelData = CANARIES["name"].encode().ljust(len(ds.PixelData), b"\0")
    return ds


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_nothing_identifying_in_clear(canary: Path, store: Store) -> None:
    assert found_in(store, canary, CANARIES) == set()


def test_the_canary_is_found_when_planted(canary: Path) -> None:
    """The same search sees one that lies in clear: in a topic, an index, a database and a file."""
    domain = DOMAINS["ehr"]
    producer = Producer()
    producer.send_now([Outgoing(domain.dead_letters.name, b"planted", PLANTED.encode(), [("event_id", b"planted")])])
    producer.close()
    with client() as server:
        server.index(
            index=domain.alias,
            id="planted",
            document={"kind": "note", "part": 0, "event_id": "planted", "body": PLANTED},
            refresh=True,
        )
    with sqlite3.connect(canary / "seen.sqlite") as db:
        db.execute("INSERT OR REPLACE INTO answer VALUES ('planted', ?, '', '', 0)", (PLANTED,))
    (canary / "logs" / "planted.log").write_text(PLANTED)
    holding = {store.name for store in STORES if found_in(store, canary, {"planted": PLANTED})}
    with client() as server:
        server.delete(index=domain.alias, id="planted", refresh=True)
    assert holding >= {domain.dead_letters.name, domain.alias, "seen.sqlite", "logs"}


def test_note_text_is_found_without_the_names(canary: Path, command: Run) -> None:
    time.sleep(1.2)
    hits = json.loads(command("search", "husband phone", "--json").stdout)["hits"]
    assert hits
    assert "patient_ref" in hits[0]
    by_number = json.loads(command("search", f"id:{CANARIES['number']}", "--kind", "event", "--json").stdout)
    assert by_number["total"] == 2
    shown = json.loads(
        command("reveal", by_number["hits"][0]["id"], "--field", "name", "--purpose", "TREAT", "--json").stdout
    )
    assert CANARIES["name"] in shown[0]["values"][0]


@pytest.mark.timeout(280)
def test_killed_worker_loses_and_doubles_nothing(stack: Path, command: Run, tmp_path: Path) -> None:
    """kill -9 of the worker, twice, while 5,000 messages go through: each is indexed exactly once."""
    import subprocess
    import sys

    count, root = 5000, Path(__file__).resolve().parents[1]
    bodies = [
        f"MSH|^~\\&|KILL|NINE|US|HERE|20260301120000||ADT^A08|K{n}|P|2.5\rPID|1||KN{n % 500}^^^HOSP^MR||A^B\r"
        f"PV1|1|I|KILLWARD^1\rDG1|1||R07.4^Chest pain^I10\r"
        for n in range(count)
    ]
    (tmp_path / "all.hl7").write_text("".join(bodies), newline="")
    manifest = tmp_path / "out.jsonl"
    sending = subprocess.Popen(
        [sys.executable, str(root / "wardstream.py"), "produce", "files", str(tmp_path), "--manifest", str(manifest)],
        cwd=root,
    )
    killed = 0
    while sending.poll() is None:
        time.sleep(2.5)
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(MARK) == str(stack) and "worker" in process.cmdline()
            except psutil.Error:
                continue
            if ours and killed < 2:
                process.send_signal(signal.SIGKILL)
                killed += 1
    assert killed
    assert sending.wait() == 0
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert len(rows) == count
    assert {row["outcome"] for row in rows} == {"indexed"}
    with client() as server:
        server.indices.refresh(index="ehr")
        for kind in ("event", "diagnosis"):
            query = {"bool": {"filter": [{"term": {"kind": kind}}, {"term": {"source": "hl7v2:KILL|NINE"}}]}}
            assert server.count(index="ehr", query=query)["count"] == count


def test_what_is_in_clear_in_the_index_is_listed() -> None:
    """docs/security.md names every field that whoever reads the index may read, and no other."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "security.md").read_text()
    section = page.split("## In clear in the index")[1].split("\n## ")[0].split("Kept in a patient's")[0]
    listed = set(re.findall(r"`(\w+)`", section))
    clear = {n for one in DOMAINS.values() for n, p in one.mapping()["properties"].items() if p.get("enabled", True)}
    assert listed == clear
