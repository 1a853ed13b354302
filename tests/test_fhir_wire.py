"""FHIR bytes to events: bounded JSON, one version, and bundles that refer to themselves in every way there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import BadMessage
from schemas.peers import DEFAULT
from schemas.wire.bundle import Bundle, Cut, Event, single
from schemas.wire.fhir import Focus, dump, focus, load, validate
from streams.ehr import fhir_person

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data" / "fhir"
LIMIT = 10_000_000
PATIENT = {"resourceType": "Patient", "id": "p1", "identifier": [{"system": "urn:oid:1.2", "value": "77"}]}


def observation(subject: str = "Patient/p1", **more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
    made = {"resourceType": "Observation", "status": "final", "code": code, "subject": {"reference": subject}}
    return made | more


def bundle(*entries: dict[str, Any], kind: str = "collection") -> bytes:
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": list(entries)}).encode()


def events(raw: bytes, step: int = 1 << 20, **more: Any) -> list[Event]:
    made = Bundle(lambda: (raw[at : at + step] for at in range(0, len(raw), step)), LIMIT, **more)
    made.survey()
    return list(made.events())


def problem(one: Event) -> tuple[str, str]:
    assert one.problem is not None
    return one.problem.reason, one.problem.where


# ------------------------------------------------------------------------------------------------------- bounded JSON

BAD_JSON = {
    "cut": (b'{"resourceType":"Patient"', "bad_json"),
    "empty": (b"", "bad_json"),
    "array": (b'[{"resourceType":"Patient"}]', "bad_json"),
    "nan": (b'{"a":NaN}', "bad_json"),
    "infinity": (b'{"a":1e999}', "bad_json"),
    "large integer": (b'{"a":123456789012345678901234567890}', "bad_json"),
    "key twice": (b'{"a":1,"b":{"c":1,"c":2}}', "bad_json"),
    "lone surrogate": (b'{"a":"\\ud800"}', "bad_json"),
    "GB18030": ('{"a":"张"}'.encode("gb18030"), "bad_charset"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "bad_charset"),
    "depth": (b'{"a":' * 65 + b"1" + b"}" * 65, "json_too_deep"),
    "bomb of depth": (b'{"a":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}", "json_too_deep"),
    "bomb of width": (b'{"a":[' + b"{}," * 1_000_000 + b"{}]}", "json_too_wide"),
    "many values": (b'{"a":[' + b",".join([b"[" + b"0," * 99_999 + b"0]"] * 11) + b"]}", "json_too_wide"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_bad_json(name: str) -> None:
    raw, reason = BAD_JSON[name]
    with pytest.raises(BadMessage) as bad:
        load(raw)
    assert bad.value.reason == reason


def test_good_json() -> None:
    assert load(b'\xef\xbb\xbf{"a":1.10}') == {"a": Decimal("1.10")}
    assert load(b'{"a":' * 64 + b"1" + b"}" * 64)
    assert load('{"a":"张三 Müller أحمد"}'.encode())["a"] == "张三 Müller أحمد"


def test_a_body_keeps_digits_and_order() -> None:
    value = load(b'{"resourceType":"Observation","valueQuantity":{"value":1.10}}')
    made = Focus(value, {"Patient/2": {"resourceType": "Patient"}, "Patient/1": {"resourceType": "Patient"}}, "urn:x")
    assert b'"value":1.10' in dump(made)
    again = focus(dump(made))
    assert (again.url, [*again.context]) == ("urn:x", ["Patient/1", "Patient/2"])
    assert dump(Focus(value, dict(reversed(made.context.items())), "urn:x")) == dump(made)
    with pytest.raises(BadMessage, match="bad_json"):
        focus(b'{"entry":[]}')


# --------------------------------------------------------------------------------------------------------- validation

BAD_RESOURCES = {
    "no type": ({}, "unknown_resource", ""),
    "typing error": ({"resourceType": "Pateint"}, "unknown_resource", ""),
    "data type": ({"resourceType": "HumanName"}, "unknown_resource", ""),
    "abstract": ({"resourceType": "DomainResource"}, "unknown_resource", ""),
    "hostile type": ({"resourceType": "../os"}, "unknown_resource", ""),
    "missing": ({"resourceType": "Observation", "status": "final"}, "bad_resource", "Observation.code"),
    "wrong type": (PATIENT | {"active": "perhaps"}, "bad_resource", "Patient.active"),
    "bad date": (PATIENT | {"birthDate": "2019-13"}, "bad_resource", "Patient.birthDate"),
    "unknown element": (PATIENT | {"name": [{"famly": "Chalmers"}]}, "bad_resource", "Patient.name[0]"),
    "R5": (
        {"resourceType": "Encounter", "status": "completed", "class": [{"coding": [{"code": "IMP"}]}]},
        "fhir_version",
        "Encounter.class",
    ),
    "R5 only": (
        {"resourceType": "ActorDefinition", "status": "active", "type": "person"},
        "fhir_version",
        "",
    ),
    "STU3": (
        {
            "resourceType": "MedicationRequest",
            "intent": "order",
            "medicationReference": {"reference": "Medication/1"},
            "subject": {"reference": "Patient/p1"},
            "requester": {"agent": {"reference": "Practitioner/1"}},
        },
        "fhir_version",
        "MedicationRequest",
    ),
}


@pytest.mark.parametrize("name", BAD_RESOURCES)
def test_bad_resource(name: str) -> None:
    resource, reason, where = BAD_RESOURCES[name]
    with pytest.raises(BadMessage) as bad:
        validate(resource)
    assert bad.value.reason == reason
    assert bad.value.where.startswith(where)


def test_an_unknown_name_is_not_repeated() -> None:
    """A sender may put anything there: the name of a patient, too."""
    with pytest.raises(BadMessage) as bad:
        validate(PATIENT | {"petersmith": "1"})
    assert "petersmith" not in str(bad.value)


def test_extensions_and_partial_dates_are_r4() -> None:
    deep: dict[str, Any] = {"url": "http://x/leaf", "valueString": "x"}
    for _ in range(20):
        deep = {"url": "http://x/branch", "extension": [deep]}
    validate(
        PATIENT
        | {
            "extension": [deep],
            "modifierExtension": [{"url": "http://x/m", "valueBoolean": True}],
            "birthDate": "1974",
            "_birthDate": {"extension": [{"url": "http://x/t", "valueDateTime": "1974-12"}]},
            "name": [{"given": [None, "B"], "_given": [{"extension": [{"url": "http://x", "valueCode": "n"}]}, None]}],
        }
    )


# ------------------------------------------------------------------------------------------------------------ the cut


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=6),
    st.text(max_size=8),
    st.integers(1, 50),
    st.booleans(),
)
def test_any_cut_gives_the_same_elements(entries: list[dict[str, str]], text: str, step: int, spaced: bool) -> None:
    document = {"a": [[text]], "x": {"entry": [1, {}]}, 'k"entry': [2], "entry": entries, "z": text + '"entry":['}
    raw = json.dumps(document, indent=2 if spaced else None).encode()
    cut = Cut((raw[at : at + step] for at in range(0, len(raw), step)), LIMIT)
    assert [json.loads(one) for one in cut if isinstance(one, bytes)] == entries
    assert json.loads(cut.shell) == document | {"entry": []}


@pytest.mark.parametrize(
    "raw",
    [b'{"entry":[{}', b'{"entry":[{} {}]}', b'{"entry":[{},]}', b'{"entry":[,{}]}', b'{"entry":[1]}', b'{"entry":[[]]}']
    + [b'{"entry":[{}]', b'{"a":"', b'{"a":"\\'],
)
def test_a_broken_document_is_not_cut(raw: bytes) -> None:
    with pytest.raises(BadMessage, match="bad_json"):
        list(Cut([raw], LIMIT))


def test_an_element_too_large_is_skipped() -> None:
    raw = b'{"entry":[{"a":1},{"b":"' + b'\\"x' * 1000 + b'"},{"c":1}]}'
    for step in (7, 100_000):
        first, large, last = Cut((raw[at : at + step] for at in range(0, len(raw), step)), 100)
        assert (first, last) == (b'{"a":1}', b'{"c":1}')
        assert isinstance(large, BadMessage)
    with pytest.raises(BadMessage, match="too_large"):
        list(Cut([b'{"a":"' + b"x" * 200], 100))


# ---------------------------------------------------------------------------------------------------------- references

URN = "urn:uuid:5b8d2f0e-0000-4000-8000-000000000001"
RESOLVED = {
    "urn": ({"fullUrl": URN, "resource": PATIENT}, URN),
    "relative": ({"resource": PATIENT}, "Patient/p1"),
    "of a version": ({"resource": PATIENT}, "Patient/p1/_history/3"),
    "absolute": ({"fullUrl": "http://a/fhir/Patient/p1", "resource": PATIENT}, "http://a/fhir/Patient/p1"),
    "conditional": ({"fullUrl": URN, "resource": PATIENT}, "Patient?identifier=urn:oid:1.2|77"),
    "conditional, escaped": ({"fullUrl": URN, "resource": PATIENT}, "Patient?identifier=urn%3Aoid%3A1.2%7C77"),
}


@pytest.mark.parametrize("name", RESOLVED)
def test_a_reference_finds_its_patient(name: str) -> None:
    entry, reference = RESOLVED[name]
    for raw in (
        bundle(entry, {"resource": observation(reference)}),
        bundle({"resource": observation(reference)}, entry),
    ):
        (made,) = (one.made for one in events(raw, 100) if one.kind == "Observation")
        assert made is not None
        assert made.context == {reference: PATIENT}


def test_a_relative_reference_stays_on_its_server() -> None:
    here, there = PATIENT | {"gender": "female"}, PATIENT | {"gender": "male"}
    raw = bundle(
        {"fullUrl": "http://there/Patient/p1", "resource": there},
        {"fullUrl": "http://here/Patient/p1", "resource": here},
        {"fullUrl": "http://here/Observation/1", "resource": observation()},
    )
    made = events(raw)[2].made
    assert made is not None
    assert made.context["Patient/p1"] == here


BROKEN = {
    "urn of nobody": observation(URN),
    "contained of nobody": observation("#p"),
    "search by name": observation("Patient?name=peter"),
    "prose": observation("the patient in bed 3"),
    "of a task": {"resourceType": "Task", "status": "draft", "intent": "order", "for": {"reference": URN}},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_patient_that_cannot_be_told_is_refused(name: str) -> None:
    resource = BROKEN[name]
    first, second = events(bundle({"resource": resource}, {"resource": observation()}))
    element = "for" if resource["resourceType"] == "Task" else "subject"
    assert problem(first) == ("bad_reference", f"Bundle.entry[0].resource.{element}")
    assert second.made is not None, "the others of a bundle stay"
    with pytest.raises(BadMessage, match="bad_reference"):
        single(json.dumps(resource).encode())


@pytest.mark.parametrize("kind", ["Group", "Device", "Location", "Substance", "HealthcareService"])
@pytest.mark.parametrize("answered", [True, False])
def test_a_subject_that_is_no_patient(kind: str, answered: bool) -> None:
    """Observation.subject and its like may be a group, a device, a place: an event of nobody, and no refusal."""
    more = {"Group": {"type": "person", "actual": True, "member": [{"entity": {"reference": "Patient/p1"}}]}}
    more["Substance"] = {"code": {"text": "water"}}
    thing = {"resourceType": kind, "id": "t1", "text": {"status": "empty", "div": "<div>x</div>"}} | more.get(kind, {})
    raw = bundle({"resource": observation(URN)}, {"fullUrl": URN, "resource": thing}, kind="transaction")
    made = events(raw, answered=answered)[0].made
    assert made is not None
    assert made.context[URN]["resourceType"] == kind
    assert fhir_person.subjects(made, "fhir:test", DEFAULT) == ((), [])
    if kind != "Location":
        assert made.context[URN] == {"resourceType": kind}


def test_another_dangling_urn_is_an_error_in_a_transaction() -> None:
    resource = observation(encounter={"reference": URN})
    raw = bundle({"resource": resource, "request": {"method": "POST", "url": "Observation"}}, kind="transaction")
    assert events(raw)[0].made is not None
    assert problem(events(raw, answered=True)[0])[0] == "bad_reference"


def test_contained_stays_inside() -> None:
    inner = {"resourceType": "Patient", "id": "p", "name": [{"family": "Inner"}]}
    made = single(json.dumps(observation("#p", contained=[inner])).encode())
    assert made.context == {}
    assert made.resource["contained"] == [inner]


def test_context_is_what_is_needed_to_read() -> None:
    """The place and the doctor of the encounter come along; narrative and photograph do not; nothing of others does."""
    at = {"location": {"reference": "Location/l"}}
    by = {"individual": {"reference": "PractitionerRole/r"}}
    encounter = {"resourceType": "Encounter", "id": "e", "status": "finished", "class": {"code": "IMP"}}
    encounter |= {"subject": {"reference": "Patient/p1"}, "location": [at], "participant": [by]}
    photo = {"photo": [{"data": "AAAA"}], "text": {"status": "empty", "div": "<div>x</div>"}}
    role = {"resourceType": "PractitionerRole", "id": "r", "practitioner": {"reference": "Practitioner/d"}}
    others = [role, {"resourceType": "Practitioner", "id": "d"}, {"resourceType": "Location", "id": "l"}]
    others += [PATIENT | photo, PATIENT | {"id": "p2"}, encounter]
    raw = bundle(
        *({"resource": one} for one in others), {"resource": observation(encounter={"reference": "Encounter/e"})}
    )
    made = events(raw)[-1].made
    assert made is not None
    wanted = {"Patient/p1", "Encounter/e", "Location/l", "PractitionerRole/r", "Practitioner/d"}
    assert set(made.context) == wanted
    assert made.context["Patient/p1"] == PATIENT
    patient = events(raw)[3].made
    assert patient is not None
    assert patient.context == {}
    assert "photo" in patient.resource


def test_cycles_end() -> None:
    one = {"resourceType": "Encounter", "id": "a", "status": "finished", "class": {"code": "IMP"}}
    one |= {"subject": {"reference": "Patient/p1"}, "partOf": {"reference": "Encounter/b"}}
    other = one | {"id": "b", "partOf": {"reference": "Encounter/a"}}
    wards = [{"resourceType": "Location", "id": "x", "partOf": {"reference": "Location/x"}}]
    made = events(bundle(*({"resource": some} for some in (one, other, *wards, PATIENT))))
    assert [event.problem for event in made] == [None] * 4
    assert set(made[0].made.context) == {"Patient/p1", "Encounter/b", "Encounter/a"}  # type: ignore[union-attr]


def test_several_patients_each_with_their_own() -> None:
    entries = [{"fullUrl": f"urn:uuid:{n}", "resource": PATIENT | {"id": f"p{n}"}} for n in range(5)]
    entries += [{"resource": observation(f"urn:uuid:{n}")} for n in range(5)]
    made = [event.made for event in events(bundle(*entries))[5:]]
    assert [one.context[f"urn:uuid:{n}"]["id"] for n, one in enumerate(made) if one] == [f"p{n}" for n in range(5)]


# ------------------------------------------------------------------------------------------------------------- entries


def test_requests_without_a_resource() -> None:
    get = {"request": {"method": "GET", "url": "Patient/1"}}
    drop = {"request": {"method": "DELETE", "url": "Patient/1"}}
    patch = {"resource": {"resourceType": "Binary", "contentType": "x"}, "request": {"method": "PATCH", "url": "P/1"}}
    answer = {"response": {"status": "200 OK"}}
    good = {"resource": PATIENT, "request": {"method": "PUT", "url": "Patient/p1"}}
    other = {"resource": PATIENT, "request": {"method": "PUT", "url": "Patient/p2"}}
    made = events(bundle(get, drop, patch, answer, good, other, kind="batch"))
    reasons = [one.problem.reason if one.problem else "" for one in made]
    assert reasons == ["not_supported", "not_supported", "not_supported", "no_resource", "", "bad_resource"]
    (alone,) = events(bundle(get, drop, kind="batch"))
    assert (alone.kind, alone.problem) == ("Bundle", None)
    assert [problem(one)[0] for one in events(bundle(get, drop, kind="batch"), answered=True)] == ["not_supported"] * 2


def test_a_bundle_in_a_bundle() -> None:
    inner = json.loads(bundle({"resource": PATIENT}, {"resource": {"resourceType": "Nonsense"}}, kind="searchset"))
    first, second, third = events(bundle({"resource": inner}, {"resource": observation()}))
    assert first.made is not None
    assert problem(second) == ("unknown_resource", "Bundle.entry[0].resource.entry[1].resource")
    assert third.made is not None
    assert "Patient/p1" in third.made.context
    assert [one.position for one in (first, second, third)] == [0, 0, 1]


def test_a_list_has_entries_too() -> None:
    made = {"resourceType": "List", "status": "current", "mode": "working", "subject": {"reference": "Patient/p1"}}
    raw = json.dumps(made | {"entry": [{"item": {"reference": "Condition/1"}}]}).encode()
    (one,) = events(raw, 10)
    assert one.made is not None
    assert one.made.resource == json.loads(raw)
    (one,) = events(json.dumps(made | {"entry": [{"itm": 1}]}).encode())
    assert problem(one)[0] == "bad_resource"


def test_a_bad_entry_is_alone_in_that() -> None:
    raw = bundle({"resource": PATIENT}, {"resource": observation()}, {"resource": observation()})
    raw = raw.replace(b'"status": "final"', b'"status": "final", "status": "final"', 1)
    assert [one.problem.reason if one.problem else "" for one in events(raw)] == ["", "bad_json", ""]


@pytest.mark.parametrize(
    "raw",
    [b'{"resourceType":"Bundle","entry":[]}', b'{"resourceType":"Bundle","type":"collection","x":1}']
    + [b'{"resourceType":"Bundle","type":"collection","\\u0065ntry":[{"resource":{}}]}'],
)
def test_a_bad_bundle_is_refused_whole(raw: bytes) -> None:
    with pytest.raises(BadMessage):
        events(raw)


# ----------------------------------------------------------------------------------------------------------- real, big


def shared() -> Iterator[Path]:
    yield from sorted(SHARED.rglob("*.json"))


def test_the_published_examples() -> None:
    """Measured: 1,735 events of 342 files, of which 11 entries carry no resource."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside this repository")
    made = [one for path in shared() for one in events(path.read_bytes())]
    refused = [one.problem.reason for one in made if one.problem]
    assert len(made) > 1700
    assert set(refused) <= {"no_resource", "not_supported"}
    assert len(refused) <= 0.02 * len(made)


def test_a_bundle_of_any_size_takes_bounded_memory() -> None:
    """200 MB, made as it is read: the process grows by less than the bundle's fifth."""
    code = """
        import resource
        from schemas.wire.bundle import Bundle
        from tests.test_fhir_wire import observation, PATIENT
        import json
        one = json.dumps({"resource": observation(note=[{"text": "x" * 100_000}])}).encode()
        def chunks():
            yield b'{"resourceType":"Bundle","type":"collection","entry":[' + json.dumps({"resource": PATIENT}).encode()
            for _ in range(2000):
                yield b"," + one
            yield b"]}"
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        list(Bundle(lambda: [one], 10_000_000).events())
        made = Bundle(lambda: [json.dumps(observation()).encode()], 10_000_000); made.survey(); list(made.events())
        before = peak()
        made = Bundle(chunks, 10_000_000)
        made.survey()
        count = sum(event.made is not None for event in made.events())
        print(json.dumps([count, peak() - before]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, grown = json.loads(done.stdout)
    assert count == 2001
    assert grown < 40
