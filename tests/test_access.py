"""Accounts, roles, refusals and emergencies, as a person meets them at the command."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql

from infra.accounts import FREE_FAILURES, LONGEST_WAIT, SESSION_SECONDS, Accounts, _wait
from infra.audit import events
from infra.database import Database
from infra.errors import Denied, UsageError
from infra.kafka import Reader
from infra.keystore import KeyStore
from schemas.signal import SignalEnvelope
from schemas.topics import SIGNALS
from tests.command import wardstream

Run = Callable[..., subprocess.CompletedProcess[str]]
PASSWORD = "correct horse battery staple"
SEEN = (
    "MSH|^~\\&|ACCESS|ER|US|HERE|20260301120000||ORU^R01|{control}|P|2.5\r"
    "PID|1||{number}^^^HOSP^MR||{name}^Ilse||19800101|F|||||||||||555-12-3456\r"
    "PV1|1|I|ACCESSWARD^2^1\r"
    "OBR|1||L1|24331-1^Lipid panel^LN\r"
    "OBX|1|TX|NOTE||Wombatsign positive after exercise||||||F\r"
    "OBX|2|NM|2093-3^Cholesterol^LN||240|mg/dL|<200|H|||F|||20260301113000\r"
)
ROLES = ("clinician", "bed_manager", "quality_officer", "researcher", "privacy_officer", "operator", "data_scientist")


# ---------------------------------------------------------------------------------------------------------- accounts


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    made = Accounts(f"sqlite:///{tmp_path / 'accounts.sqlite'}")
    made.add("anna", ["clinician"], PASSWORD)
    return made


def at(accounts: Accounts, statement: str, **values: Any) -> None:
    with accounts._db.writing() as db:
        db.execute(sql.text(statement), values)


def test_a_session_is_known_by_its_hash_alone(accounts: Accounts, tmp_path: Path) -> None:
    token = accounts.login("anna", PASSWORD)
    found = accounts.of_session(token)
    assert found is not None
    assert (found.name, found.roles) == ("anna", ("clinician",))
    held = b"".join(path.read_bytes() for path in tmp_path.glob("accounts.sqlite*"))
    assert token.encode() not in held
    assert PASSWORD.encode() not in held
    assert b"$argon2id$v=19$m=65536,t=3,p=4$" in held
    accounts.close(token)
    assert accounts.of_session(token) is None


def test_a_session_ends(accounts: Accounts) -> None:
    token = accounts.login("anna", PASSWORD)
    at(accounts, "UPDATE session SET expires_at = expires_at - :passed", passed=SESSION_SECONDS)
    assert accounts.of_session(token) is None
    assert accounts.of_session("") is None


@pytest.mark.parametrize("end", ["disable", "change_password"])
def test_what_ends_all_sessions(accounts: Accounts, end: str) -> None:
    token = accounts.login("anna", PASSWORD)
    accounts.disable("anna") if end == "disable" else accounts.change_password("anna", PASSWORD + "r")
    assert accounts.of_session(token) is None
    with pytest.raises(Denied):
        accounts.login("anna", PASSWORD)


def test_roles_change_under_a_session(accounts: Accounts) -> None:
    token = accounts.login("anna", PASSWORD)
    accounts.change_roles("anna", ["operator"])
    found = accounts.of_session(token)
    assert found is not None
    assert found.roles == ("operator",)


@pytest.mark.parametrize("name", ["anna", "nobody"])
def test_too_many_attempts_wait(accounts: Accounts, name: str) -> None:
    """The right password waits as well, in the same words, and not for longer than a quarter of an hour."""
    said = set()
    for _ in range(FREE_FAILURES):
        with pytest.raises(Denied) as refused:
            accounts.login(name, "wrong")
        said.add(str(refused.value))
    with pytest.raises(Denied) as refused:
        accounts.login(name, PASSWORD)
    assert said == {str(refused.value)}
    assert [_wait(tries) for tries in (4, 5, 6, 14, 15, 1000)] == [0, 1, 2, 512, LONGEST_WAIT, LONGEST_WAIT]
    at(accounts, "UPDATE login_failure SET at = at - :passed", passed=LONGEST_WAIT)
    if name == "anna":
        assert accounts.login(name, PASSWORD)


def test_an_unknown_name_takes_as_long(accounts: Accounts) -> None:
    """Both hash once; without that an unknown name answers in a few milliseconds, a twentieth."""

    def seconds(name: str) -> float:
        taken = []
        for _ in range(4):
            began = time.perf_counter()
            with pytest.raises(Denied):
                accounts.login(name, "wrong")
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    known, unknown = seconds("anna"), seconds("nobody")
    assert 0.3 < unknown / known < 3


@pytest.mark.parametrize(
    ("name", "password"), [("anna", PASSWORD), ("a b", PASSWORD), ("bo", "short"), ("bo", "x" * 257)]
)
def test_accounts_that_cannot_be(accounts: Accounts, name: str, password: str) -> None:
    with pytest.raises(UsageError):
        accounts.add(name, ["clinician"], password)


def test_only_one_is_first(accounts: Accounts) -> None:
    with pytest.raises(Denied):
        accounts.add("second", ["operator"], PASSWORD, only_first=True)


# ------------------------------------------------------------------------------------------------------- the command


def as_(home: Path, token: str, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"WARDSTREAM_HOME": str(home), "WARDSTREAM_TOKEN": token}
    return wardstream(*arguments, environment=environment, typed=typed)


def audit(home: Path) -> list[dict[str, Any]]:
    return list(events(home / "audit" / "audit.jsonl"))


@pytest.fixture(scope="module")
def sent(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Event ids by patient number: AC1, AC2."""
    folder = tmp_path_factory.mktemp("access")
    for number, name in (("AC1", "Vandenakker"), ("AC2", "Oosterlinck")):
        body = SEEN.format(control=f"C{number}", number=number, name=name)
        (folder / f"{number}.hl7").write_text(body, newline="")
    command("produce", "files", str(folder), "--manifest", str(folder / "out.jsonl"))
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert {row["outcome"] for row in rows} == {"indexed"}
    return {Path(row["file"]).stem: row["event_id"] for row in rows}


@pytest.fixture(scope="module")
def tokens(stack: Path, command: Run) -> dict[str, str]:
    """A session of an account of each role alone; the home's own session stays whose it was."""
    accounts, made = Accounts.local(), {}
    for role in ROLES:
        done = as_(stack, "", "users", "add", f"only-{role}", "--role", role, "--password-stdin", typed=PASSWORD)
        assert done.returncode == 0, done.stderr
        made[role] = accounts.login(f"only-{role}", PASSWORD)
    return made


def test_up_lets_the_owner_in(stack: Path, command: Run) -> None:
    """What ran without a login before runs on: every role, the clinician first."""
    me = json.loads(command("whoami", "--json").stdout)
    assert tuple(me["roles"]) == ROLES
    assert (stack / "session").stat().st_mode & 0o777 == 0o600


def test_login_and_logout(tokens: dict[str, str], stack: Path, tmp_path: Path) -> None:
    """On a home of its own beside the same database: a session is the home's, an account the installation's."""
    environment = {"WARDSTREAM_DATABASE": f"sqlite:///{stack / 'keys' / 'keystore.sqlite'}"}

    def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        given = os.environ | environment | {"WARDSTREAM_HOME": str(tmp_path)}
        return wardstream(*arguments, environment=given, typed=typed)

    assert run("whoami").returncode == 10
    wrong = run("login", "only-clinician", "--password-stdin", typed="a wrong one\n")
    nobody = run("login", "no-such-person", "--password-stdin", typed="a wrong one\n")
    assert (wrong.returncode, nobody.returncode) == (10, 10)
    assert wrong.stderr == nobody.stderr
    assert not (tmp_path / "session").exists()
    refused = audit(tmp_path)[-2:]
    assert [one["outcome"] for one in refused] == ["4", "4"]
    assert "no-such-person" not in json.dumps(refused), "what was typed as a name may be a password"
    assert run("login", "only-clinician", "--password-stdin", typed=f"{PASSWORD}\n").returncode == 0
    assert run("whoami").stdout.splitlines()[0] == "only-clinician"
    assert run("logout").returncode == 0
    assert run("whoami").returncode == 10


def test_the_first_account_looks_after_others(tmp_path: Path) -> None:
    """On an external stack nobody has an account until somebody makes the first, who has to be able to make more."""
    add = ("users", "add", "--password-stdin", "--role")
    assert as_(tmp_path, "", *add, "clinician", "anna", typed=PASSWORD).returncode == 2
    assert as_(tmp_path, "", *add, "nurse", "anna", typed=PASSWORD).returncode == 2
    assert as_(tmp_path, "", *add, "privacy_officer", "anna", typed=PASSWORD).returncode == 0
    assert as_(tmp_path, "", *add, "operator", "bo", typed=PASSWORD).returncode == 10, "the second needs a login"
    assert [one["outcome"] for one in audit(tmp_path)] == ["0", "4"]


DENIED: dict[str, tuple[str, tuple[str, ...]]] = {
    "no session": ("", ("search", "wombatsign")),
    "a session that is none": ("stolen", ("search", "wombatsign")),
    "a role that one has not": ("clinician", ("search", "*", "--role", "operator")),
    "a role that searches nothing": ("operator", ("search", "*")),
    "a purpose of others": ("clinician", ("search", "*", "--purpose", "HRESCH")),
    "words without text": ("quality_officer", ("search", "wombatsign")),
    "a field": ("bed_manager", ("search", "code:2093-3")),
    "a field behind a minus": ("bed_manager", ("search", "unit:ACCESSWARD -code:2093-3")),
    "a filter": ("bed_manager", ("search", "*", "--filter", "code=2093-3")),
    "an order": ("bed_manager", ("search", "*", "--sort", "-value_number")),
    "a number": ("quality_officer", ("search", "id:AC1")),
    "a number in one field": ("researcher", ("search", "identifiers:AC1")),
    "a person": ("researcher", ("search", 'name:"Ilse Vandenakker 1980-01-01"')),
    "a time, in research": ("researcher", ("search", "observed_at:2026-03-01")),
    "a place, in research": ("researcher", ("search", 'unit:"Springfield, IL 62701"')),
    "a place by filter, in research": ("researcher", ("search", "*", "--filter", "department=62701")),
    "figures of a place, in research": ("researcher", ("stats", "prior_unit:62701")),
    "a span, in research": ("researcher", ("search", "*", "--since", "2w")),
    "an order by time, in research": ("researcher", ("search", "*", "--sort", "observed_at")),
    "a reveal without the right": ("quality_officer", ("reveal", "AC1", "--field", "name", "--purpose", "HOPERAT")),
    "a reveal of another field": ("bed_manager", ("reveal", "AC1", "--field", "ssn", "--purpose", "HOPERAT")),
    "a reveal in research": ("researcher", ("reveal", "AC1", "--field", "name", "--purpose", "HRESCH")),
    "an emergency without a grant": ("clinician", ("search", "*", "--purpose", "ETREAT")),
    "a reveal without a grant": ("clinician", ("reveal", "AC1", "--field", "name", "--purpose", "ETREAT")),
    "dead letters": ("clinician", ("dlq", "list")),
    "a dead letter": ("privacy_officer", ("dlq", "show", "0-0", "--purpose", "HCOMPL")),
    "a dead letter again": ("clinician", ("dlq", "replay", "0-0")),
    "a rebuilt index": ("clinician", ("replay", "--into", "ehr-mine")),
    "accounts": ("clinician", ("users", "list")),
    "roles of one's own": ("operator", ("users", "roles", "only-operator", "--role", "clinician")),
    "consent": ("clinician", ("consent", "deny", "--patient", "HOSP|MR|AC1", "--purpose", "TREAT")),
    "the review list": ("clinician", ("breakglass", "review")),
    "an emergency of others": ("bed_manager", ("breakglass", "--patient", "HOSP|MR|AC1", "--reason", "collapse")),
}


@pytest.mark.parametrize("name", DENIED)
def test_denied_and_audited(sent: dict[str, str], tokens: dict[str, str], stack: Path, name: str) -> None:
    """Exit code 10, nothing shown, and one line in the audit with FHIR's outcome 4 and a reason code."""
    role, arguments = DENIED[name]
    before = len(audit(stack))
    given = tokens.get(role, role) or "none"
    done = as_(stack, given, *(sent.get(one, one) for one in arguments))
    assert done.returncode == 10, done.stderr
    assert not done.stdout
    assert "Traceback" not in done.stderr
    (refused,) = audit(stack)[before:]
    assert refused["outcome"] == "4"
    if role in tokens:
        assert refused["agent"][0]["who"]["identifier"]["value"] == f"only-{role}"


def shown(home: Path, token: str, *arguments: str) -> dict[str, Any]:
    done = as_(home, token, "search", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_each_role_sees_its_fields(sent: dict[str, str], tokens: dict[str, str], stack: Path) -> None:
    query = ("unit:ACCESSWARD kind:observation", "--sort", "event_id")
    texts = {role: json.dumps(shown(stack, tokens[role], *query)["hits"]) for role in ("clinician", "bed_manager")}
    texts["quality_officer"] = json.dumps(shown(stack, tokens["quality_officer"], *query)["hits"])
    assert {role for role, text in texts.items() if "Wombatsign" in text} == {"clinician"}
    assert {role for role, text in texts.items() if "2093-3" in text} == {"clinician", "quality_officer"}
    assert {role for role, text in texts.items() if "ACCESSWARD" in text} == set(texts)


def test_words_are_not_highlighted_where_they_are_not_seen(
    sent: dict[str, str], tokens: dict[str, str], stack: Path
) -> None:
    hit = shown(stack, tokens["clinician"], "wombatsign")["hits"][0]
    assert "«Wombatsign»" in hit["highlight"]["value_text"][0]
    hits = shown(stack, tokens["privacy_officer"], "id:AC1")["hits"]
    assert hits
    assert all("highlight" not in one for one in hits)


def test_a_search_is_audited_before_it_is_shown(sent: dict[str, str], tokens: dict[str, str], stack: Path) -> None:
    found = shown(stack, tokens["clinician"], "wombatsign", "--filter", "unit=ACCESSWARD")
    line = audit(stack)[-1]
    refs = {hit["patient_ref"] for hit in found["hits"]}
    assert (line["subtype"][0]["code"], line["action"], line["outcome"]) == ("search", "E", "0")
    assert line["purposeOfEvent"][0]["coding"][0]["code"] == "TREAT"
    assert refs <= {one["what"]["identifier"]["value"] for one in line["entity"] if "what" in one}  # a query has none
    assert "wombatsign" not in json.dumps(line).lower()
    path = stack / "audit" / "audit.jsonl"
    path.rename(path.with_suffix(".away"))
    path.mkdir()
    try:
        done = as_(stack, tokens["clinician"], "search", "wombatsign", "--json")
    finally:
        path.rmdir()
        path.with_suffix(".away").rename(path)
    assert (done.returncode, done.stdout) == (12, "")


# ----------------------------------------------------------------------------------------------------------- research


@pytest.fixture(scope="module")
def cohort(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    """13 patients with one code, two ages and a day; one of them with 12 results of another."""
    folder = tmp_path_factory.mktemp("cohort")
    for n in range(13):
        body = SEEN.format(control=f"CO{n}", number=f"CO{n}", name="Adriaans").replace("ACCESSWARD", "COHORT")
        results = "".join(f"OBX|{3 + m}|NM|9999-{m}^Rare^LN||{m}|mg|||||F\r" for m in range(12)) if n == 0 else ""
        results += "OBX|20|NM|21612-7^Age^LN||93|a|||||F\rOBX|21|NM|PTAGE^Age of patient^L||94||||||F\r"
        results += "OBX|22|CE|DUE^Due^L||20260301^Day^L||||||F\r"
        (folder / f"{n}.hl7").write_text(body + results, newline="")
    assert command("produce", "files", str(folder)).returncode == 0


def test_research_sees_a_safe_harbor_view(cohort: None, tokens: dict[str, str], stack: Path) -> None:
    found = shown(stack, tokens["researcher"], "unit:COHORT code:2093-3")
    assert (found["total"], len(found["hits"])) == (10, 10), "13, rounded down; and no more shown than said"
    clear = {one["patient_ref"] for one in shown(stack, tokens["clinician"], "unit:COHORT code:2093-3")["hits"]}
    for hit in found["hits"]:
        assert hit["observed_at"] == 2026
        assert not {"id", "score", "event_id", "room", "highlight", "display"} & hit.keys()
        assert hit["patient_ref"] not in clear
    assert len({hit["patient_ref"] for hit in found["hits"]}) == 10


AGES = {"code:21612-7": "value_number:>=90", "code:PTAGE": "value_number:94", "code:DUE": "value_code:20260301"}


@pytest.mark.parametrize("query", AGES)
def test_research_sees_and_finds_no_age_above_89_and_no_day(
    cohort: None, tokens: dict[str, str], stack: Path, query: str
) -> None:
    found = shown(stack, tokens["researcher"], f"unit:COHORT {query}")
    assert {hit.get("value_number", hit.get("value_code")) for hit in found["hits"]} <= {90.0, 2026}
    assert len(found["hits"]) == 10
    asked = f"unit:COHORT {query} {AGES[query]}"
    assert shown(stack, tokens["clinician"], asked)["total"] == 13
    assert shown(stack, tokens["researcher"], asked) == {"total": "<11", "hits": []}


@pytest.mark.parametrize("query", ["unit:COHORT code:9999-1", "unit:COHORT units:mg -code:2093-3", "unit:NOWHERE"])
def test_research_sees_no_small_group(cohort: None, tokens: dict[str, str], stack: Path, query: str) -> None:
    """One result, twelve results of one patient, and none at all look alike."""
    assert shown(stack, tokens["researcher"], query) == {"total": "<11", "hits": []}


# --------------------------------------------------------------------------------------------------------- emergencies


def test_an_emergency(sent: dict[str, str], tokens: dict[str, str], stack: Path) -> None:
    """One patient and no other, for the fields that the policy adds; signalled, reviewed, closed by somebody else."""
    token, privacy = tokens["clinician"], tokens["privacy_officer"]
    reveal = ("--field", "account_number", "--purpose", "ETREAT", "--json")
    assert as_(stack, token, "breakglass", "--patient", "HOSP|MR|AC1").returncode == 2, "no reason"
    assert as_(stack, token, "breakglass", "--patient", "HOSP|MR|NOBODY", "--reason", "x").returncode == 2
    reason = "Vandenakker collapsed in the lobby"
    done = as_(stack, token, "breakglass", "--patient", "HOSP|MR|AC1", "--reason", reason, "--json")
    assert done.returncode == 0, done.stderr
    grant = json.loads(done.stdout)
    hits = shown(stack, token, "*", "--purpose", "ETREAT", "--kind", "event")["hits"]
    assert {hit["patient_ref"] for hit in hits} == {grant["patient_ref"]}
    assert as_(stack, token, "reveal", sent["AC1"], "--field", "name", "--purpose", "ETREAT").returncode == 0
    assert as_(stack, token, "reveal", sent["AC2"], "--field", "name", "--purpose", "ETREAT").returncode == 10
    assert as_(stack, token, "reveal", sent["AC1"], "--field", "ssn", "--purpose", "ETREAT").returncode == 10
    assert as_(stack, token, "reveal", sent["AC1"], *reveal).returncode == 2, "permitted; there is none"

    reader = Reader(SIGNALS.name)
    messages = [(SignalEnvelope.read(one.headers() or ()), one.value() or b"") for one in reader.until_end()]
    reader.close()
    ((envelope, value),) = [one for one in messages if one[0].event_id == grant["id"]]
    assert envelope.signal == "break_glass"
    assert grant["patient_ref"].encode() not in value
    _, keys = KeyStore.local()
    (key,) = keys.of_tokens([envelope.subject]).values()
    assert key is not None
    said = envelope.opened([key], value)
    assert said["patient_ref"] == grant["patient_ref"]
    assert "Vandenakker" not in json.dumps(said)
    held = b"".join(path.read_bytes() for path in (stack / "keys").glob("keystore.sqlite*"))
    assert b"lobby" not in held

    listed = json.loads(as_(stack, privacy, "breakglass", "review", "--json").stdout)
    (row,) = [one for one in listed if one["id"] == grant["id"]]
    assert (row["account"], row["reason"], row["closed_at"]) == ("only-clinician", reason, None)
    assert as_(stack, privacy, "breakglass", "review", "--close", grant["id"]).returncode == 0
    (row,) = [
        one
        for one in json.loads(as_(stack, privacy, "breakglass", "review", "--json").stdout)
        if one["id"] == grant["id"]
    ]
    assert row["closed_by"] == "only-privacy_officer"

    database = Database(f"sqlite:///{stack / 'keys' / 'keystore.sqlite'}")
    with database.writing() as db:
        db.execute(sql.text("UPDATE break_glass SET expires_at = :now"), {"now": time.time()})
    assert as_(stack, token, "search", "*", "--purpose", "ETREAT").returncode == 10, "an hour later it is over"


def test_an_emergency_waits_for_no_broker(
    sent: dict[str, str], tokens: dict[str, str], stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Kafka away the grant holds, says that its signal waits, and the next review sends it."""
    monkeypatch.setenv("WARDSTREAM_KAFKA", "127.0.0.1:1")
    given = ("breakglass", "--patient", "HOSP|MR|AC2", "--reason", "unconscious", "--json")
    done = as_(stack, tokens["clinician"], *given)
    grant = json.loads(done.stdout)
    assert done.returncode == 0
    assert "the signal waits" in done.stderr
    monkeypatch.delenv("WARDSTREAM_KAFKA")
    assert shown(stack, tokens["clinician"], "*", "--purpose", "ETREAT")["hits"]
    assert as_(stack, tokens["privacy_officer"], "breakglass", "review").returncode == 0
    reader = Reader(SIGNALS.name)
    assert grant["id"] in {SignalEnvelope.read(one.headers() or ()).event_id for one in reader.until_end()}
    reader.close()
