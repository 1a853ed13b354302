"""FHIR over HTTP and from files, up to the broker: what is accepted is there, what is refused says why.

The broker is a stand-in that confirms or fails as told; everything before it is the real thing.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from infra import tls
from infra.crypto import open_payload
from infra.errors import BadMessage
from infra.keyring import Keyring
from infra.keystore import KeyStore
from infra.settings import settings
from producers import ehr, fhir
from producers.feeds import folder
from producers.feeds.http import Listener
from producers.publish import Arrival, Publisher, Receipt
from producers.seen import Seen
from schemas.envelope import Envelope
from schemas.peers import Peers
from schemas.record import Record
from schemas.wire.fhir import CONTENT_TYPE, Focus, validate
from streams import ehr as stage
from tests.broker import Broker
from tests.certificates import Authority

PEERS = Peers()
URN = "urn:uuid:5b8d2f0e-0000-4000-8000-000000000001"


def patient(number: str = "1", **more: Any) -> dict[str, Any]:
    identifier = {"system": "urn:oid:1.2.3", "value": f"MRN{number}", "type": {"coding": [MR]}}
    return {"resourceType": "Patient", "id": f"p{number}", "identifier": [identifier], "gender": "female"} | more


MR = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}


def observation(subject: str = "Patient/p1", **more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
    made = {"resourceType": "Observation", "status": "final", "code": code, "subject": {"reference": subject}}
    return made | {"effectiveDateTime": "2026-03-01T10:00:00Z", "valueInteger": 5} | more


def bundle(*resources: dict[str, Any], kind: str = "transaction", requests: bool = True) -> dict[str, Any]:
    entries = []
    for one in resources:
        entry: dict[str, Any] = {"resource": one}
        if requests:
            entry["request"] = {"method": "POST", "url": one["resourceType"]}
        entries.append(entry)
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


@dataclass
class Edge:
    broker: Broker
    publisher: Publisher
    keys: KeyStore
    keyring: Keyring

    def records(self) -> list[Record]:
        """What the agent reads of what was sent."""
        found = []
        for one in self.broker.sent:
            assert one.value is not None
            envelope = Envelope.read(one.headers)
            keys = self.keys.of_tokens(envelope.subjects)
            mine = [key for token in envelope.subjects if (key := keys[token]) is not None]
            body = open_payload(mine, envelope.event_id, envelope.sealed(one.value))
            record = stage.read(body, envelope, PEERS)
            assert not record.subjects or len(record.subjects) == len(mine)
            found.append(record)
        return found


@pytest.fixture
async def edge(tmp_path: Path, home: Path) -> AsyncIterator[Edge]:
    keyring = Keyring.open(tmp_path / "keyring.json")
    keys = KeyStore(f"sqlite:///{tmp_path / 'keystore.sqlite'}", keyring)
    broker = Broker(is_open=True)
    async with Publisher(broker, keyring, keys, Seen(tmp_path / "seen.sqlite")) as publisher:  # type: ignore[arg-type]
        yield Edge(broker, publisher, keys, keyring)


def take(focus: Focus, received_at: datetime) -> Arrival:
    return fhir.arrival(focus, "test", PEERS, received_at)


class Client:
    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self.session, self.port = session, port

    async def __call__(
        self, body: Any, path: str = "/", method: str = "POST", **headers: str
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        sent = {"Content-Type": CONTENT_TYPE} | {name.replace("_", "-"): value for name, value in headers.items()}
        at = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(method, at, data=data, headers=sent) as answer:
            text = await answer.read()
            return answer.status, json.loads(text) if text else None, answer


@asynccontextmanager
async def listening(edge: Edge) -> AsyncIterator[int]:
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(Listener(edge.publisher, take).serve("127.0.0.1", 0, ready.set_result, stop))
    yield await ready
    stop.set()
    await asyncio.wait_for(serving, 10)


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[Client]:
    async with listening(edge) as port, aiohttp.ClientSession(auto_decompress=False) as session:
        yield Client(session, port)


def issue(body: Any) -> tuple[str, str]:
    assert body["resourceType"] == "OperationOutcome"
    first = body["issue"][0]
    return first["details"]["text"], (first.get("expression") or [""])[0]


# ------------------------------------------------------------------------------------------------------------ accepted


async def test_a_single_resource(client: Client, edge: Edge) -> None:
    status, body, answer = await client(patient(), "/Patient")
    assert (status, body) == (201, None)
    assert answer.headers["Location"].startswith("/Patient/p1/_history/")
    again, _, repeat = await client(patient(), "/Patient")
    assert again == 200
    assert repeat.headers["Location"] == answer.headers["Location"]
    put, _, _ = await client(patient(gender="male"), "/Patient/p1", "PUT")
    assert put == 201
    conditional, _, _ = await client(patient(), "/Patient?identifier=urn:oid:1.2.3|MRN1", "PUT")
    assert conditional == 200
    assert [record.parts[0].kind for record in edge.records()] == ["event", "event"]


async def test_a_transaction(client: Client, edge: Edge) -> None:
    made = bundle(patient(), observation(URN), observation(URN, valueInteger=6))
    made["entry"][0]["fullUrl"] = URN
    status, body, _ = await client(made)
    assert status == 200
    assert body["type"] == "transaction-response"
    assert [one["response"]["status"] for one in body["entry"]] == ["201 Created"] * 3
    _, again, _ = await client(made)
    assert [one["response"]["status"] for one in again["entry"]] == ["200 OK"] * 3
    for first, second in zip(body["entry"], again["entry"], strict=True):
        assert first["response"]["location"] == second["response"]["location"]
    records = edge.records()
    assert len({record.subjects[0] for record in records}) == 1, "one patient, by number and by context"
    assert len({one.key for one in edge.broker.sent}) == 1


@pytest.mark.parametrize("kind", ["batch", "collection", "searchset", "history", "document", "message"])
async def test_of_any_other_bundle_each_entry_has_its_answer(client: Client, edge: Edge, kind: str) -> None:
    made = bundle(patient(), {"resourceType": "Nonsense"}, observation(), kind=kind, requests=kind == "batch")
    status, body, _ = await client(made, Prefer="return=OperationOutcome")
    assert (status, body["type"]) == (200, "batch-response")
    answers = [one["response"] for one in body["entry"]]
    assert [one["status"] for one in answers] == ["201 Created", "400 Bad Request", "201 Created"]
    assert issue(answers[1]["outcome"]) == ("unknown_resource", "Bundle.entry[1].resource")
    assert answers[0]["outcome"]["issue"][0]["severity"] == "information"
    assert len(edge.broker.sent) == 2


async def test_the_same_resource_in_another_bundle_is_a_repeat(client: Client, edge: Edge) -> None:
    await client(bundle(patient(), observation()))
    _, body, _ = await client(bundle(observation(), kind="collection", requests=False))
    assert body["entry"][0]["response"]["status"] == "200 OK"
    assert len(edge.broker.sent) == 2


async def test_several_patients(client: Client, edge: Edge) -> None:
    many = [patient(str(n)) for n in range(4)] + [observation(f"Patient/p{n}") for n in range(4)]
    status, _, _ = await client(bundle(*many))
    assert status == 200
    assert len({one.key for one in edge.broker.sent}) == 4
    meeting = {"resourceType": "Appointment", "status": "booked"}
    meeting["participant"] = [{"actor": {"reference": f"Patient/p{n}"}, "status": "accepted"} for n in range(2)]  # type: ignore[assignment]
    await client(bundle(*many[:2], meeting))
    assert len(edge.records()[-1].subjects) == 2


async def test_metadata_and_gzip(client: Client) -> None:
    status, body, _ = await client(None, "/metadata", "GET")
    assert (status, body["resourceType"], body["fhirVersion"]) == (200, "CapabilityStatement", "4.0.1")
    validate(body)
    status, _, _ = await client(gzip.compress(json.dumps(patient()).encode()), "/Patient", Content_Encoding="gzip")
    assert status == 201


async def test_three_scripts_and_a_long_note(client: Client, edge: Edge) -> None:
    texts = ["胸痛三天，无发热。", "Patientin mit Übelkeit", "لا يوجد ألم في الصدر", "x" * 5_000_000]
    notes = [observation(note=[{"text": text}]) for text in texts]
    status, _, _ = await client(bundle(*notes))
    assert status == 200
    assert len(edge.broker.sent) == 4


async def test_a_bundle_of_50_mb(client: Client, edge: Edge) -> None:
    made = bundle(patient(), *(observation(valueInteger=n, note=[{"text": "x" * 100_000}]) for n in range(500)))
    assert len(json.dumps(made)) > 50_000_000
    status, body, _ = await client(made)
    assert status == 200
    assert len(body["entry"]) == len(edge.broker.sent) == 501


async def test_mutual_tls(edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "tls")
    for name, path in zip(("tls_cert", "tls_key"), authority.sign("server"), strict=True):
        monkeypatch.setattr(settings(), name, path)
    monkeypatch.setattr(settings(), "tls_client_ca", authority.ca)
    async with listening(edge) as port, aiohttp.ClientSession() as session:
        at, body = f"https://127.0.0.1:{port}/Patient", json.dumps(patient())
        for shown, wanted in (((None, None), 0), (authority.sign("sender"), 201)):
            context = tls.client_context(authority.ca, *shown)
            try:
                async with session.post(at, data=body, headers={"Content-Type": CONTENT_TYPE}, ssl=context) as answer:  # type: ignore[arg-type]
                    status = answer.status
            except aiohttp.ClientError:
                status = 0
            assert status == wanted
    assert len(edge.broker.sent) == 1


async def test_what_was_received_is_answered_at_the_end(edge: Edge) -> None:
    edge.broker.open.clear()
    async with aiohttp.ClientSession() as session:
        async with listening(edge) as port:
            waiting = asyncio.create_task(Client(session, port)(patient(), "/Patient"))
            await asyncio.sleep(0.3)
            asyncio.get_running_loop().call_later(0.5, edge.broker.open.set)
        assert (await waiting)[0] == 201


# ------------------------------------------------------------------------------------------------------------- refused


REFUSED = {
    "not JSON": (b"<Patient/>", "/", {}, 400, "bad_json"),
    "XML": (b"<Patient/>", "/", {"Content_Type": "application/fhir+xml"}, 415, "bad_media_type"),
    "R5 by name": (b"{}", "/", {"Content_Type": "application/fhir+json; fhirVersion=5.0"}, 400, "fhir_version"),
    "charset": (b"{}", "/", {"Content_Type": "application/json; charset=gb18030"}, 400, "bad_charset"),
    "GB18030": ('{"a":"张"}'.encode("gb18030"), "/", {}, 400, "bad_charset"),
    "wants XML": (b"{}", "/", {"Accept": "application/fhir+xml"}, 406, "not_acceptable"),
    "asks for XML": (b"{}", "/Patient?_format=application/fhir+xml", {}, 406, "not_acceptable"),
    "no such type": (b"{}", "/Nonsense", {}, 404, "no_such_path"),
    "no such path": (b"{}", "/Patient/1/x", {}, 404, "no_such_path"),
    "other type": (patient(), "/Observation", {}, 400, "bad_resource"),
    "R5": ({"resourceType": "Encounter", "status": "completed"}, "/Encounter", {}, 400, "fhir_version"),
    "dangling": (observation(URN), "/Observation", {}, 400, "bad_reference"),
    "bomb of depth": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "/", {}, 400, "json_too_deep"),
    "broken gzip": (b"xx", "/", {"Content_Encoding": "gzip"}, 415, "bad_media_type"),
    "cut gzip": (gzip.compress(b"{}")[:-4], "/", {"Content_Encoding": "gzip"}, 415, "bad_media_type"),
    "brotli": (b"xx", "/", {"Content_Encoding": "br"}, 415, "bad_media_type"),
    "empty": (b"", "/", {}, 400, "bad_json"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(client: Client, edge: Edge, name: str) -> None:
    body, path, headers, wanted, reason = REFUSED[name]
    status, outcome, _ = await client(body, path, **headers)
    assert (status, issue(outcome)[0]) == (wanted, reason)
    assert not edge.broker.sent


@pytest.mark.parametrize("said", ["application/fhir+json", "application/fhir%2Bjson", "json", "text/json"])
async def test_json_may_be_asked_for_in_the_query(client: Client, said: str) -> None:
    """With Accept for XML, which `_format` goes before (http.html#parameters)."""
    status, _, _ = await client(patient(), f"/Patient?_format={said}", Accept="application/fhir+xml")
    assert status == 201


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", "/Patient/1", "PUT"), ("DELETE", "/Patient/1", "PUT"), ("PATCH", "/Patient/1", "PUT")]
    + [("GET", "/Patient", "POST, PUT"), ("GET", "/", "POST"), ("POST", "/metadata", "GET, HEAD")],
)
async def test_not_allowed(client: Client, method: str, path: str, allow: str) -> None:
    status, outcome, answer = await client(None, path, method)
    assert (status, issue(outcome)[0], answer.headers["Allow"]) == (405, "not_supported", allow)


async def test_a_put_names_its_own_id(client: Client) -> None:
    status, outcome, _ = await client(patient(), "/Patient/p2", "PUT")
    assert (status, issue(outcome)) == (400, ("bad_resource", "Patient.id"))


BAD_ENTRIES = {
    "bad resource": {"resource": patient(birthDate="soon"), "request": {"method": "POST", "url": "Patient"}},
    "dangling": {"resource": observation(URN), "request": {"method": "POST", "url": "Observation"}},
    "delete": {"request": {"method": "DELETE", "url": "Patient/p1"}},
    "two many patients": {
        "resource": {"resourceType": "Group", "type": "person", "actual": True}
        | {"member": [{"entity": {"reference": f"Patient/g{n}"}} for n in range(1001)]},
        "request": {"method": "POST", "url": "Group"},
    },
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
async def test_a_transaction_is_refused_whole(client: Client, edge: Edge, name: str) -> None:
    made = bundle(*(observation(valueInteger=n) for n in range(200)))
    made["entry"].insert(150, BAD_ENTRIES[name])
    status, outcome, _ = await client(made)
    assert status in (400, 405)
    assert issue(outcome)[1].startswith("Bundle.entry[150]")
    assert not edge.broker.sent


async def test_sizes(client: Client, edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "fhir_max_bytes", 100_000)
    status, outcome, _ = await client(b" " * 100_001)
    assert (status, issue(outcome)[0]) == (413, "too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" " * 1000

    at = f"http://127.0.0.1:{client.port}/"
    async with client.session.post(at, data=chunks(), headers={"Content-Type": CONTENT_TYPE}) as answer:
        assert answer.status == 413
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(bomb.compress(b" " * 1_000_000) for _ in range(60)) + bomb.flush()
    assert len(packed) < 100_000
    status, outcome, _ = await client(packed, Content_Encoding="gzip")
    assert (status, issue(outcome)[0]) == (413, "too_large")
    monkeypatch.setattr(settings(), "fhir_max_bytes", 20_000_000)
    status, outcome, _ = await client(observation(note=[{"text": "x" * 10_000_000}]), "/Observation")
    assert (status, issue(outcome)[0]) == (413, "too_large")
    assert not edge.broker.sent


async def test_a_slow_body_and_a_silent_connection(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "fhir_body_seconds", 0.3)
    monkeypatch.setattr(settings(), "fhir_idle_seconds", 1.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
    assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(b"POST / HTTP/1.1\r\nHos")
    assert await asyncio.wait_for(reader.read(), 8) == b""
    writer.close()


async def test_memory_at_the_edge_is_bounded(client: Client, edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "edge_bytes", 3_000_000)
    monkeypatch.setattr(settings(), "edge_patience_seconds", 0.2)
    edge.broker.open.clear()
    large = observation(note=[{"text": "x" * 2_000_000}])
    waiting = asyncio.create_task(client(large, "/Observation"))
    await asyncio.sleep(0.3)
    status, outcome, answer = await client(observation(note=[{"text": "y" * 2_000_000}]), "/Observation")
    assert (status, issue(outcome)[0]) == (429, "overloaded")
    assert answer.headers["Retry-After"]
    edge.broker.open.set()
    assert (await waiting)[0] == 201


async def test_2xx_only_after_the_confirmation(client: Client, edge: Edge) -> None:
    edge.broker.open.clear()
    waiting = asyncio.create_task(client(patient(), "/Patient"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    edge.broker.failures = 1
    edge.broker.open.set()
    status, outcome, answer = await waiting
    assert (status, issue(outcome)[0]) == (503, "broker_unavailable")
    assert answer.headers["Retry-After"]
    assert (await client(patient(), "/Patient"))[0] == 201
    edge.broker.failures = 1
    status, _, _ = await client(bundle(observation(), observation(valueInteger=7)))
    assert status == 503
    status, _, _ = await client(bundle(observation(), observation(valueInteger=7)))
    assert status == 200


async def test_an_erased_patient(client: Client, edge: Edge) -> None:
    await client(patient(), "/Patient")
    gone = edge.keys.refs_of([("1.2.3", "MR", "MRN1")])
    edge.keys.mark_erased(gone, datetime.now(UTC).timestamp())
    edge.keys.destroy(gone)
    await asyncio.sleep(0.3)  # the longest time that a cache may be behind
    status, outcome, _ = await client(bundle(patient(), observation(), kind="collection", requests=False))
    answers = [one["response"]["status"] for one in outcome["entry"]]
    assert answers[1] == "422 Unprocessable Entity", "it happened before the erasure"
    status, outcome, _ = await client(observation(), "/Observation")
    assert (status, issue(outcome)[0]) == (422, "erased")


# --------------------------------------------------------------------------------------------------------------- files

READERS = folder.Readers(partial(lambda raw, at, bad: ehr.arrival(raw, PEERS, at, bad)), take)


def read(path: Path) -> list[tuple[int, str, str]]:
    """Position, type and reason of everything under a path."""
    items = folder.items(folder.files([path]), READERS)
    return [(one.position, one.kind, one.made.reason if isinstance(one.made, BadMessage) else "") for one in items]


def test_a_bad_line_is_one_refusal(tmp_path: Path) -> None:
    lines = [json.dumps(observation(valueInteger=n)) for n in range(20_000)]
    lines[777] = lines[777][:-5]
    lines[9000] = ""
    (tmp_path / "Observation.ndjson").write_text("\n".join(lines))
    found = read(tmp_path)
    assert len(found) == 19_999
    assert [one for one in found if one[2]] == [(777, "", "bad_json")]
    assert found[-1] == (19_999, "Observation", "")


def test_lines_of_all_sorts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "mllp_max_bytes", 2000)
    lines = [json.dumps(patient()).encode(), json.dumps(bundle(patient("2"), observation())).encode(), b"[1]"]
    lines += [json.dumps(observation(note=[{"text": "x" * 5000}])).encode(), b"\xff", json.dumps(patient("3")).encode()]
    (tmp_path / "a.jsonl").write_bytes(b"\r\n".join(lines))
    wanted = [(0, "Patient", ""), (1, "Patient", ""), (1, "Observation", ""), (2, "", "bad_json")]
    wanted += [(3, "", "too_large"), (4, "", "bad_charset"), (5, "Patient", "")]
    assert read(tmp_path) == wanted
    (tmp_path / "a.jsonl").rename(tmp_path / "a.json")
    assert read(tmp_path) == wanted, "by its first lines"


def test_documents(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps(bundle(patient(), {"resourceType": "X"}, observation()), indent=1))
    (tmp_path / "c.json").write_text(json.dumps(patient(), indent=1))
    (tmp_path / "d.json").write_text(json.dumps(bundle(patient(), observation()))[:-20])
    (tmp_path / "e.json").write_text("MSH|^~\\&|")
    (tmp_path / "f.txt").write_text("not looked at")
    wanted = [(0, "Patient", ""), (1, "", "unknown_resource"), (2, "Observation", ""), (0, "Patient", "")]
    assert read(tmp_path) == [*wanted, (0, "", "bad_json"), (0, "", "bad_json")]
    (tmp_path / "f.txt").write_text("  " + json.dumps(patient()))
    assert read(tmp_path / "f.txt") == [(0, "Patient", "")]
    (tmp_path / "f.txt").write_text("MSH|^~\\&|A|B|C|D|2026||ADT^A01|1|P|2.5\rPID|1||1^^^H^MR\r")
    assert read(tmp_path / "f.txt") == [(0, "ADT^A01", "")]


def test_a_bundle_on_a_line_is_cut(tmp_path: Path) -> None:
    """One bad entry is one row, as in a file of its own."""
    made = bundle(patient(), {"resourceType": "X"}, observation())
    cut_off = json.dumps(bundle(patient()))[:-9]
    (tmp_path / "a.ndjson").write_text(f"{json.dumps(made)}\n{cut_off}\n{json.dumps(patient('2'))}")
    wanted = [(0, "Patient", ""), (0, "", "unknown_resource"), (0, "Observation", ""), (1, "", "bad_json")]
    assert read(tmp_path) == [*wanted, (2, "Patient", "")]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r\n\r\n \t\n"])
@pytest.mark.parametrize("name", ["a.ndjson", "a.json"])
def test_blank_lines_and_byte_order_marks_are_nothing(tmp_path: Path, name: str, ending: str) -> None:
    lines = [json.dumps(patient(str(n))) for n in range(2)]
    for start in ("\ufeff", "\ufeff" + ending, ending):
        (tmp_path / name).write_text(start + ending.join(lines) + ending, encoding="utf-8", newline="")
        assert [one[1:] for one in read(tmp_path)] == [("Patient", "")] * 2, repr(start)


@pytest.mark.parametrize("name", ["a.ndjson.gz", "a.JSONL.GZ", "a.json.gz", "a.gz"])
def test_gzip_is_read_as_what_is_in_it(tmp_path: Path, name: str) -> None:
    lines = [json.dumps(patient(str(n))) for n in range(3)] + ["{"]
    packed = gzip.compress("\n".join(lines[:2]).encode() + b"\n") + gzip.compress("\n".join(lines[2:]).encode())
    (tmp_path / name).write_bytes(packed)  # of two members, as parallel writers make it
    path = tmp_path if name != "a.gz" else tmp_path / name
    assert read(path) == [*((n, "Patient", "") for n in range(3)), (3, "", "bad_json")]
    (tmp_path / name).write_bytes(gzip.compress(json.dumps(bundle(patient(), observation()), indent=1).encode()))
    if name in ("a.json.gz", "a.gz"):
        assert read(path) == [(0, "Patient", ""), (1, "Observation", "")]


def test_gzip_that_is_cut_off_or_grows_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "\n".join(json.dumps(observation(valueInteger=n)) for n in range(20_000))
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(lines.encode())[:-2000])
    found = read(tmp_path)
    assert found[-1][1:] == ("", "bad_gzip")
    assert len(found) > 10_000
    assert {one[1:] for one in found[:-1]} == {("Observation", "")}
    (tmp_path / "a.ndjson.gz").write_bytes(lines.encode())
    assert read(tmp_path) == [(0, "", "bad_gzip")]
    monkeypatch.setattr(folder, "FREE", 1_000_000)
    for name in ("a.ndjson.gz", "a.json.gz"):
        (tmp_path / "a.ndjson.gz").unlink(missing_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(b"{" + b" " * 200_000_000))  # 1,000 times as much
        before = peak()
        assert {one[1:] for one in read(tmp_path)} == {("", "too_large")}
        assert peak() - before < 60_000, "KB: inflated piece by piece, and given up"


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_no_named_file_is_silent(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").touch()
    (tmp_path / "b.hl7.gz").write_bytes(gzip.compress(b"MSH|^~\\&|A"))
    (tmp_path / "c.xml").write_text("<Patient xmlns='http://hl7.org/fhir'/>")
    (tmp_path / "d.ndjson").write_text(json.dumps(patient()))
    paths = folder.files([tmp_path / name for name in ("a.ndjson", "b.hl7.gz", "c.xml", "d.ndjson")])
    (tmp_path / "d.ndjson").unlink()  # after it was found
    rows = [(one.file.name, one.made) for one in folder.items(paths, READERS)]
    told = {name: (made.reason, made.where) for name, made in rows if isinstance(made, BadMessage)}
    assert told["a.ndjson"] == ("no_resource", "")
    assert told["b.hl7.gz"] == ("bad_media_type", "")
    assert "c.xml" in {name for name, _ in rows}, "no HL7 v2: a dead letter, by the same reader as on the wire"
    assert told["d.ndjson"] == ("unreadable_file", "ENOENT")


def test_other_endings_are_told(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("a.ndjson", "b.json.gz", "c.xml", "more/d.csv", "more/e", "f.hl7"):
        (tmp_path / name).touch()
    assert [one.name for one in folder.skipped([tmp_path])] == ["c.xml", "d.csv", "e"]
    assert [one.name for one in folder.files([tmp_path])] == ["a.ndjson", "b.json.gz", "f.hl7"]


def test_patients_of_a_bulk_export_come_first(tmp_path: Path) -> None:
    for name in ("Condition", "1.Encounter", "Observation.000", "Patient.000", "Practitioner", "Organization"):
        (tmp_path / f"{name}.ndjson{'.gz' * name.startswith('P')}").touch()
    found = [path.name.removesuffix(".gz").removesuffix(".ndjson") for path in folder.files([tmp_path])]
    assert found[:4] == ["Patient.000", "Organization", "Practitioner", "1.Encounter"]


async def test_files_wait_for_room(tmp_path: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "edge_bytes", 1_000_000)
    monkeypatch.setattr(settings(), "edge_patience_seconds", 0.05)
    lines = [json.dumps(observation(valueInteger=n, note=[{"text": "x" * 100_000}])) for n in range(100)]
    path = tmp_path / "a.ndjson"
    path.write_text("\n".join(lines))
    edge.broker.open.clear()
    asyncio.get_running_loop().call_later(0.5, edge.broker.open.set)
    done = await folder.publish(edge.publisher, folder.items([path], READERS))
    assert Counter(type(one.end) for one in done) == {Receipt: 100}
    assert [one.position for one in done] == [*range(100)]
