"""What patients decide: the latest decision of a person and a purpose, through merges, in search and in reveal."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from consumers.consent import TERMS, Consents, Persons
from infra.audit import events
from infra.keyring import Keyring
from infra.keystore import KeyStore, Wanted

Run = Callable[..., subprocess.CompletedProcess[str]]
BODY = (
    "MSH|^~\\&|CONSENT|ER|US|HERE|20260301120000||ADT^A01|{number}|P|2.5\r"
    "PID|1||{number}^^^HOSP^MR||Claes^Ilse||19800101|F\rPV1|1|I|CONSENTWARD^2^1\r"
)


@pytest.fixture
def consents(tmp_path: Path) -> Consents:
    url = f"sqlite:///{tmp_path / 'keystore.sqlite'}"
    return Consents(url, KeyStore(url, Keyring.open(tmp_path / "keyring.json")))


def person(consents: Consents, number: str) -> str:
    (key,) = consents._keys.resolve([Wanted("patient", (("HOSP", "MR", number),))])
    assert key is not None
    return key.ref


def test_silence_is_what_the_policy_says(consents: Consents) -> None:
    ref = person(consents, "1")
    assert consents.persons("HRESCH", True).permits(ref)
    assert not consents.persons("HRESCH", False).permits(ref)


def test_the_latest_decision_holds(consents: Consents) -> None:
    ref, other = person(consents, "1"), person(consents, "2")
    for permit in (False, True, False):
        consents.decide(ref, "HRESCH", permit, None, "anna")
    assert consents.persons("HRESCH", True) == Persons(True, frozenset({ref}))
    assert consents.persons("TREAT", True).permits(ref), "of one purpose alone"
    consents.decide(ref, "HRESCH", True, None, "anna")
    assert consents.persons("HRESCH", True).permits(ref)
    assert consents.persons("HRESCH", False) == Persons(False, frozenset({ref}))
    assert not consents.persons("HRESCH", False).permits(other)


def test_a_decision_that_has_ended_gives_way_to_the_one_before(consents: Consents) -> None:
    ref = person(consents, "1")
    consents.decide(ref, "HRESCH", False, None, "anna")
    consents.decide(ref, "HRESCH", True, time.time() + 0.3, "anna")
    assert consents.persons("HRESCH", True).permits(ref)
    time.sleep(0.4)
    assert not consents.persons("HRESCH", True).permits(ref)


@pytest.mark.parametrize("last", ["prior", "survivor"])
def test_a_decision_follows_a_merge(consents: Consents, last: str) -> None:
    """Under whichever number it was made: the person's latest holds for all of the person's numbers."""
    refs = {"prior": person(consents, "1"), "survivor": person(consents, "2")}
    first = {"prior": "survivor", "survivor": "prior"}[last]
    consents.decide(refs[first], "HRESCH", True, None, "anna")
    consents.decide(refs[last], "HRESCH", False, None, "anna")
    consents._keys.alias(refs["prior"], refs["survivor"])
    assert consents.persons("HRESCH", True) == Persons(True, frozenset(refs.values()))
    assert [one.permit for one in consents.of_person(refs["prior"])] == [True, False]


def test_the_filter_says_the_same() -> None:
    some = frozenset({"a", "b"})
    terms = {"terms": {"patient_ref": ["a", "b"]}}
    assert Persons(True, some).clause() == {"bool": {"must_not": [terms]}}
    assert Persons(False, some).clause() == {"bool": {"should": [terms]}}
    assert Persons(False).clause() == {"bool": {"should": [{"terms": {"patient_ref": []}}]}}, "nobody, not everybody"
    assert Persons(True).permits(None)
    assert not Persons(False).permits(None)
    many = Persons(True, frozenset(map(str, range(TERMS + 1)))).clause()["bool"]["must_not"]
    assert [len(one["terms"]["patient_ref"]) for one in many] == [TERMS, 1]


# ------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def sent(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Event ids by number."""
    folder = tmp_path_factory.mktemp("consent")
    for number in ("CN1", "CN2"):
        (folder / f"{number}.hl7").write_text(BODY.format(number=number), newline="")
    assert command("produce", "files", str(folder), "--manifest", str(folder / "out.jsonl")).returncode == 0
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return {Path(row["file"]).stem: row["event_id"] for row in rows}


def found(command: Run, *more: str) -> set[str]:
    done = command("search", "unit:CONSENTWARD", "--kind", "event", *more, "--json")
    assert done.returncode == 0, done.stderr
    return {hit["event_id"] for hit in json.loads(done.stdout)["hits"]}


def test_search_and_reveal_obey(sent: dict[str, str], command: Run, stack: Path) -> None:
    of = ("--patient", "HOSP|MR|CN1", "--purpose", "TREAT")
    reveal = ("reveal", sent["CN1"], "--field", "name", "--purpose")
    assert found(command) == {sent["CN1"], sent["CN2"]}
    assert command("consent", "deny", *of).returncode == 0
    assert found(command) == {sent["CN2"]}
    assert command(*reveal, "TREAT").returncode == 10
    refused = list(events(stack / "audit" / "audit.jsonl"))[-1]
    assert refused["outcome"] == "4"
    assert command(*reveal, "PATRQT").returncode == 0, "what the patient asks for is not denied to the patient"
    assert command("breakglass", "--patient", "HOSP|MR|CN1", "--reason", "unconscious").returncode == 0
    assert command(*reveal, "ETREAT").returncode == 0, "an emergency is stronger"
    assert found(command, "--purpose", "ETREAT") == {sent["CN1"]}
    assert found(command, "--role", "bed_manager") == {sent["CN1"], sent["CN2"]}, "of one purpose alone"
    assert command("consent", "permit", *of).returncode == 0
    assert found(command) == {sent["CN1"], sent["CN2"]}
    listed = json.loads(command("consent", "list", "--patient", "HOSP|MR|CN1", "--json").stdout)
    assert [(one["purpose"], one["decision"]) for one in listed] == [("TREAT", "deny"), ("TREAT", "permit")]


def test_a_dead_letter_obeys(stack: Path, command: Run, tmp_path: Path) -> None:
    body = BODY.format(number="CN9").replace("19800101", "19801399").replace("|CONSENT|", "|CONSENT9|")
    (tmp_path / "bad.hl7").write_text(body, newline="")
    command("produce", "files", str(tmp_path))
    letters = json.loads(command("dlq", "list", "--json").stdout)
    (number,) = [one["number"] for one in letters if "CONSENT9" in one["source"]]
    show = ("dlq", "show", number, "--purpose")
    assert command(*show, "HOPERAT").returncode == 0
    assert command("consent", "deny", "--patient", "HOSP|MR|CN9", "--purpose", "HOPERAT").returncode == 0
    refused = command(*show, "HOPERAT")
    assert (refused.returncode, refused.stdout) == (10, "")
    assert command(*show, "HSYSADMIN").returncode == 0, "to keep the system running is not theirs to decide"


def test_where_research_asks_first(
    stack: Path, command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """PIPL art. 29: with HRESCH = "deny" only those who have permitted it are counted."""
    folder = tmp_path_factory.mktemp("asked")
    numbers = [f"RA{n}" for n in range(12)]
    for number in numbers:
        (folder / f"{number}.hl7").write_text(BODY.format(number=number).replace("CONSENTWARD", "ASKED"), newline="")
    assert command("produce", "files", str(folder)).returncode == 0
    table = (Path(__file__).resolve().parents[1] / "schemas" / "policy.toml").read_text()
    (tmp_path / "policy.toml").write_text(table.replace('HRESCH = "permit"', 'HRESCH = "deny"'))

    def total() -> int | str:
        done = command("search", "unit:ASKED", "--kind", "event", "--role", "researcher", "--json")
        made: int | str = json.loads(done.stdout)["total"]
        return made

    assert total() == 10
    monkeypatch.setenv("WARDSTREAM_POLICY", str(tmp_path / "policy.toml"))
    assert total() == "<11"
    for number in numbers[:11]:
        assert command("consent", "permit", "--patient", f"HOSP|MR|{number}", "--purpose", "HRESCH").returncode == 0
    assert total() == 10


def test_what_is_not_a_patients_to_decide(sent: dict[str, str], command: Run) -> None:
    done = command("consent", "deny", "--patient", "HOSP|MR|CN1", "--purpose", "ETREAT")
    assert done.returncode == 2
    assert "HRESCH" in done.stderr
    assert command("consent", "deny", "--patient", "HOSP|MR|NOBODY", "--purpose", "HRESCH").returncode == 2
    assert command("consent", "deny", "--patient", "0" * 32, "--purpose", "HRESCH").returncode == 2


def test_a_policy_that_cannot_be_meant_stops_all(
    sent: dict[str, str], command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy.toml").write_text("break_glass_minutes = 60\n")
    monkeypatch.setenv("WARDSTREAM_POLICY", str(tmp_path / "policy.toml"))
    done = command("search", "*")
    assert (done.returncode, done.stdout) == (2, "")
    assert "policy" in done.stderr
