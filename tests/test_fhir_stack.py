"""FHIR on the running stack: from the wire to what a search finds, beside HL7 v2."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, listening
from tests.test_fhir_feed import MR, URN, bundle, observation, patient
from tests.test_mllp import code, exchange, framed

Run = Callable[..., Any]
Manifest = Callable[[Path], list[dict[str, Any]]]
SHARED = ROOT.parent / "shared" / "data" / "fhir"


@pytest.fixture(scope="module")
def endpoint(stack: Path) -> Iterator[str]:
    """Address of a running FHIR listener."""
    with listening("fhir", "--source", "ward") as port:
        yield f"http://127.0.0.1:{port}"


def post(endpoint: str, body: Any, path: str = "/") -> tuple[int, Any]:
    headers = {"Content-Type": "application/fhir+json"}
    asked = urllib.request.Request(endpoint + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def found(command: Run, query: str, *more: str) -> Any:
    done = command("search", query, "--json", *more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_for(command: Run, query: str, total: int, *more: str) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 30
    while (made := found(command, query, *more))["total"] < total and time.monotonic() < deadline:
        time.sleep(0.3)
    assert made["total"] == total
    hits: list[dict[str, Any]] = made["hits"]
    return hits


def test_what_was_answered_is_found_once(endpoint: str, command: Run) -> None:
    made = bundle(patient("900"), observation(URN, valueInteger=41), observation(URN, valueInteger=42))
    made["entry"][0]["fullUrl"] = URN
    for wanted in ("201 Created", "200 OK"):
        status, body = post(endpoint, made)
        assert status == 200
        assert [one["response"]["status"] for one in body["entry"]] == [wanted] * 3
    (event,) = wait_for(command, "id:MRN900", 1, "--kind", "event")
    hits = wait_for(command, "kind:observation", 2, "--filter", f"patient_ref={event['patient_ref']}")
    assert sorted(hit["value_number"] for hit in hits) == [41, 42]
    assert {hit["source"] for hit in hits} == {"fhir:ward"}
    (one,) = wait_for(command, "*", 1, "--kind", "patient", "--filter", f"patient_ref={event['patient_ref']}")
    assert one["sex"] == "F"


def test_what_came_before_its_patient_is_joined(endpoint: str, command: Run) -> None:
    """By logical id alone first; then the Patient with its number."""
    assert post(endpoint, observation("Patient/p901", valueInteger=901), "/Observation")[0] == 201
    (before,) = wait_for(command, "value_number:901", 1)
    assert post(endpoint, patient("901"), "/Patient")[0] == 201
    (event,) = wait_for(command, "id:MRN901", 1, "--kind", "event")
    assert post(endpoint, observation("Patient/p901", valueInteger=902), "/Observation")[0] == 201
    (after,) = wait_for(command, "value_number:902", 1)
    assert after["patient_ref"] == event["patient_ref"]
    shown = found(command, "*", "--kind", "observation", "--filter", f"patient_ref={event['patient_ref']}")
    assert {before["value_number"], after["value_number"]} == {hit["value_number"] for hit in shown["hits"]}


def test_a_note_sent_alone_is_searchable_once_its_patient_is_known(endpoint: str, command: Run) -> None:
    """Known before it: at once. Known after it: once an index was made anew."""

    def note(word: str) -> dict[str, Any]:
        code = {"coding": [{"system": "http://snomed.info/sct", "code": "904904"}]}
        said = {"resourceType": "Condition", "subject": {"reference": "Patient/p904"}, "code": code}
        return said | {"note": [{"text": f"Quetzalia {word} in the ward"}]}

    assert post(endpoint, note("staggered904"), "/Condition")[0] == 201
    wait_for(command, "code:904904", 1, "--kind", "diagnosis")
    assert post(endpoint, patient("904", name=[{"family": "Quetzalia"}]), "/Patient")[0] == 201
    wait_for(command, "id:MRN904", 1, "--kind", "event")
    assert post(endpoint, note("stumbled904"), "/Condition")[0] == 201
    (known,) = wait_for(command, "stumbled904", 1)
    assert known["body"] == "[removed] stumbled904 in the ward"
    assert found(command, "staggered904")["total"] == 0
    assert command("replay", "--into", "ehr-named").returncode == 0
    (later,) = wait_for(command, "staggered904", 1)
    assert later["body"] == "[removed] staggered904 in the ward"


def test_what_was_corrected_counts_once(endpoint: str, mllp: int, command: Run) -> None:
    """By FHIR and by HL7 v2: all versions are there, the newest alone counts, and nothing is found by what it was."""
    assert post(endpoint, patient("905", name=[{"family": "Quorrelby"}]), "/Patient")[0] == 201
    for day, value in ((1, 9051), (3, 9053), (2, 9052)):  # the last version does not come last
        meta = {"versionId": str(day), "lastUpdated": f"2026-03-0{day}T11:00:00Z"}
        said = observation("Patient/p905", id="o905", meta=meta, valueInteger=value, note=[{"text": f"read {value}"}])
        assert post(endpoint, said, "/Observation")[0] == 201
    for minute, value, status in ((1, 9061, "P"), (2, 9062, "F"), (3, 9063, "C")):
        message = HL7.replace("20260301120000", f"2026030112{minute:02}00").replace("|F1|", "|F905|")
        message = message.replace("7.1|g/dL|12-16|LL|||F", f"{value}|g/dL|12-16|LL|||{status}").replace("S910", "S906")
        (answer,) = exchange(mllp, framed(message.replace("ORU^R01|F905", f"ORU^R01|F905{minute}") + "\r"))
        assert code(answer) == "AA"
    wait_for(command, "value_number:9051..9063", 6, "--kind", "observation")
    assert {one["value_number"] for one in wait_for(command, "value_number:9051..9063", 2, "--newest")} == {9053, 9063}
    assert found(command, "value_number:9051..9052", "--newest")["total"] == 0
    assert found(command, '"read 9051"', "--newest")["total"] == 0, "a note of an older version"
    assert found(command, '"read 9053"', "--newest")["total"] == 1
    done = command("stats", "value_number:9051..9063", "--kind", "observation", "--field", "value_number", "--json")
    report = json.loads(done.stdout)
    assert report["cohort"] == {"documents": 2, "patients": 2}
    assert sorted(row["mean"] for row in report["fields"]) == [9053, 9063]


def test_a_refused_transaction_leaves_nothing(endpoint: str, command: Run) -> None:
    status, outcome = post(endpoint, bundle(patient("902"), observation(URN)))
    assert status == 400
    assert outcome["issue"][0]["expression"] == ["Bundle.entry[1].resource.subject"]
    assert post(endpoint, patient("903"), "/Patient")[0] == 201
    wait_for(command, "id:MRN903", 1, "--kind", "event")
    assert found(command, "id:MRN902")["total"] == 0


HL7 = "\r".join(
    (
        "MSH|^~\\&|LAB|FAC|US|HERE|20260301120000+0000||ORU^R01|F1|P|2.5",
        "PID|1||S910^^^HOSP&1.2.3&ISO^MR||Doe^Jane||19800101|F",
        "PV1|1|I|ICU^2^1",
        "OBR|1|P1|F1|718-7^Hemoglobin^LN|||20260301100000+0000",
        "OBX|1|NM|718-7^Hemoglobin^LN||7.1|g/dL|12-16|LL|||F|||20260301100000+0000",
    )
)
SAME = ("patient_ref", "sex", "code", "code_system", "value_number", "units", "abnormal_flags", "status", "observed_at")


def test_one_stay_by_hl7_v2_and_by_fhir(endpoint: str, mllp: int, command: Run) -> None:
    (answer,) = exchange(mllp, framed(HL7 + "\r"))
    assert code(answer) == "AA"
    identifier = {"system": "urn:oid:1.2.3", "value": "S910", "type": {"coding": [MR]}}
    name = {"family": "Doe", "given": ["Jane"]}
    who = {"resourceType": "Patient", "id": "s910", "identifier": [identifier], "name": [name]}
    who |= {"gender": "female", "birthDate": "1980-01-01"}
    what = observation("Patient/s910", code={"coding": [{"system": "http://loinc.org", "code": "718-7"}]})
    del what["valueInteger"]
    what["valueQuantity"] = {"value": 7.1, "unit": "g/dL"}
    v3 = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
    what["interpretation"] = [{"coding": [{"system": v3, "code": "LL"}]}]
    assert post(endpoint, bundle(who, what))[0] == 200
    wait_for(command, "id:S910", 1, "--kind", "event", "--filter", "source=fhir:ward")
    hits = wait_for(command, "value_number:7.1 code:718-7", 2, "--kind", "observation")
    one, other = ({name: hit.get(name) for name in SAME if name in hit} for hit in hits)
    assert one == other
    assert {"patient_ref", "code", "value_number", "units", "abnormal_flags", "status"} <= set(one)
    assert found(command, "*", "--kind", "patient", "--filter", f"patient_ref={one['patient_ref']}")["total"] == 1


def test_a_long_export_in_windows(stack: Path, command: Run, tmp_path: Path) -> None:
    """More than one window; one bad line among them; rows in order."""
    lines = [json.dumps(observation("Patient/p920", valueInteger=n)) for n in range(10_500)]
    lines[10_200] = "{"
    (tmp_path / "Observation.ndjson").write_text("\n".join(lines))
    (tmp_path / "Patient.ndjson").write_text(json.dumps(patient("920")))
    out = tmp_path / "out.jsonl"
    done = command("produce", "files", str(tmp_path), "--manifest", str(out), "--source", "export", "--json")
    assert done.returncode == 1, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert json.loads(done.stdout)["outcomes"] == {"indexed": 10_500, "refused:bad_json": 1}
    assert [row["message_type"] for row in rows[:2]] == ["Patient", "Observation"]
    assert [row["position"] for row in rows[1:]] == [*range(10_500)]
    assert [row["position"] for row in rows if row["outcome"] == "refused"] == [10_200]
    assert len({row["event_id"] for row in rows}) == 10_501


def test_every_published_example_ends_somewhere(manifest: Manifest) -> None:
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside this repository")
    rows = manifest(SHARED)
    assert {row["file"] for row in rows} == {str(one.relative_to(SHARED)) for one in SHARED.rglob("*.json")}
    ends = Counter((row["outcome"], row["reason"]) for row in rows)
    assert ends["indexed", ""] + ends["duplicate", ""] >= 0.98 * len(rows), ends
    assert all(row["reason"] for row in rows if row["outcome"] in ("refused", "dead_lettered"))


COUNTED = {"Encounter": "visit", "Condition": "diagnosis", "Observation": "observation"}


def test_counts_by_search_are_those_of_the_bundles(manifest: Manifest, command: Run) -> None:
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside this repository")
    manifest(SHARED)
    bundles = [json.loads(path.read_text()) for path in sorted((SHARED / "synthea").glob("*_*.json"))]
    assert len(bundles) == 3
    for one in bundles:
        there = Counter(entry["resource"]["resourceType"] for entry in one["entry"])
        (event,) = found(command, f"id:{one['entry'][0]['resource']['id']}", "--kind", "event")["hits"]
        for kind, part in COUNTED.items():
            only = ("--filter", f"patient_ref={event['patient_ref']}", "--filter", f"message_type={kind}")
            assert found(command, "*", "--kind", part, *only)["total"] == there[kind] > 0
