"""The audit shows where it was altered, by whoever has no key; and what cannot be written is not shown."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import infra.audit
from infra import chain
from infra.audit import Act, Audit, events, pem
from infra.chain import Verdict
from infra.errors import AuditUnavailable

Run = Callable[..., Any]
Lines = list[bytes]
ROOT = Path(__file__).resolve().parents[1]
KEY, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([one]) * 32) for one in (1, 2))
COUNT = 6
REF = "a" * 32
LOOK = Act(
    "reveal", "R", who="ann", role="nurse", purpose="TREAT", patients=(REF,), entities=("e1-0",), fields=("name",)
)


def made(folder: Path, count: int = COUNT, key: Ed25519PrivateKey = KEY) -> Audit:
    audit = Audit(folder, folder / "anchor", key)
    for _ in range(count):
        audit.write(LOOK)
    return audit


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return made(tmp_path)


def lines(path: Path) -> Lines:
    return path.read_bytes().splitlines(keepends=True)


def judged(audit: Audit) -> Verdict:
    return chain.verify(infra.audit.lines(audit.path), infra.audit.lines(audit.heads), KEY.public_key())


def faults(audit: Audit) -> list[tuple[str, str, int, int]]:
    return [(one.place, one.kind, one.first, one.last) for one in judged(audit).faults]


# ------------------------------------------------------------------------------------------------------------- whole


def test_whole(audit: Audit) -> None:
    found = judged(audit)
    assert (found.entries, found.anchored, found.faults, found.torn, found.unanchored) == (COUNT, COUNT, [], [], [])
    assert found.head == chain.digest(lines(audit.path)[-1])
    for path in (audit.path, audit.heads, audit.public):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert audit.public.read_bytes() == pem(KEY.public_key())


def test_the_tail_is_found_from_the_end(audit: Audit) -> None:
    """However long the log is, and whatever stands at its end, a writer reads a bounded part of it."""
    for _ in range(2):
        with audit.path.open("ab") as file:
            file.truncate(file.tell() + (1 << 30))  # a gigabyte of nothing
        began = time.monotonic()
        audit.write(LOOK)
        audit.write(LOOK)
        assert time.monotonic() - began < 5
    with audit.heads.open("rb") as file:
        for block in (1, 7, 100, 5000):
            assert b"\n".join(reversed(list(infra.audit._backwards(file, block)))) == audit.heads.read_bytes()
    assert chain.read(lines(audit.heads)[-1], chain.HEAD, KEY.public_key()).seq == COUNT + 4  # type: ignore[union-attr]


# ----------------------------------------------------------------------------------------------------------- attacks


def test_no_byte_of_an_entry_can_change(audit: Audit) -> None:
    """Every position of a line, in the middle and at the end: caught, at that entry or at the one it ran into."""
    whole = lines(audit.path)
    for number in (3, COUNT):
        line = whole[number - 1]
        for at in range(len(line)):
            changed = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
            audit.path.write_bytes(b"".join([*whole[: number - 1], changed, *whole[number:]]))
            found = judged(audit).faults
            assert found, at
            assert found[0].first == number, (at, found)


def test_a_signature_has_one_spelling(audit: Audit) -> None:
    """The last letter of its base64 has four bits that decode to nothing."""
    whole = lines(audit.path)
    letter = whole[2][-6:-5]
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = alphabet[alphabet.index(letter) ^ 1 :][:1]
    spelt = whole[2][:-6] + other + whole[2][-5:]
    assert base64.b64decode(spelt[-92:-3]) == base64.b64decode(whole[2][-92:-3])
    audit.path.write_bytes(b"".join([*whole[:2], spelt, *whole[3:]]))
    assert faults(audit) == [("log", "edited", 3, 3)]


def forged(seq: int, whole: Lines, key: Ed25519PrivateKey = STRANGER) -> bytes:
    before = chain.digest(whole[seq - 2]) if seq > 1 else chain.GENESIS
    return chain.entry(key, seq, before, b'{"resourceType":"AuditEvent"}')


ATTACKS: dict[str, tuple[Callable[[Lines], Lines], list[tuple[str, int, int]]]] = {
    "edited": (lambda of: [*of[:2], of[2].replace(b"ann", b"bob"), *of[3:]], [("edited", 3, 3)]),
    "edited first": (lambda of: [of[0].replace(b"ann", b"bob"), *of[1:]], [("edited", 1, 1)]),
    "edited last": (lambda of: [*of[:-1], of[-1].replace(b"ann", b"bob")], [("edited", COUNT, COUNT)]),
    "renumbered": (lambda of: [*of[:2], of[2].replace(b'"seq":3', b'"seq":9'), *of[3:]], [("edited", 3, 3)]),
    "removed": (lambda of: [*of[:2], *of[3:]], [("removed", 3, 3)]),
    "removed first": (lambda of: of[1:], [("removed", 1, 1)]),
    "removed several": (lambda of: [of[0], *of[3:4], *of[5:]], [("removed", 2, 3), ("removed", 5, 5)]),
    "removed behind a torn line": (lambda of: [*of[:2], b'{"seq":3,"pr\n', *of[3:]], [("removed", 3, 3)]),
    "swapped": (lambda of: [*of[:2], of[3], of[2], *of[4:]], [("reordered", 3, 3)]),
    "swapped at the end": (lambda of: [*of[:-2], of[-1], of[-2]], [("reordered", COUNT - 1, COUNT - 1)]),
    "moved far": (lambda of: [*of[1:], of[0]], [("reordered", 1, 1)]),
    "replayed": (lambda of: [*of, of[1]], [("replayed", 2, 2)]),
    "replayed inside": (lambda of: [*of[:4], of[1], *of[4:]], [("replayed", 2, 2)]),
    "replaced by a copy of another": (lambda of: [*of[:2], of[1], *of[3:]], [("replayed", 2, 2), ("removed", 3, 3)]),
    "forged at the end": (lambda of: [*of, forged(COUNT + 1, of)], [("forged", COUNT + 1, COUNT + 1)]),
    "forged in place": (lambda of: [*of[:2], forged(3, of), *of[3:]], [("edited", 3, 3)]),
    "forged between": (lambda of: [*of[:2], forged(3, of), *of[2:]], [("forged", 3, 3)]),
    "rubbish": (lambda of: [*of[:2], b"rubbish\n", *of[2:]], [("forged", 3, 3)]),
    "rewritten by who has the key": (lambda of: [*of[:2], forged(3, of, KEY), *of[3:]], [("rewritten", 3, 3)]),
    "emptied": (lambda of: [], [("missing", 1, COUNT)]),
    **{
        f"truncated by {n}": (lambda of, n=n: of[:-n], [("truncated", COUNT - n + 1, COUNT)])  # type: ignore[misc]
        for n in range(1, COUNT)
    },
    "truncated within a line": (lambda of: [*of[:-2], of[-2][:99]], [("truncated", COUNT - 1, COUNT)]),
}


@pytest.mark.parametrize(("attack", "expected"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_caught_and_placed(
    audit: Audit, attack: Callable[[Lines], Lines], expected: list[tuple[str, int, int]]
) -> None:
    audit.path.write_bytes(b"".join(attack(lines(audit.path))))
    assert faults(audit) == [("log", *one) for one in expected]


@pytest.mark.parametrize(("attack", "expected"), ATTACKS.values(), ids=ATTACKS)
def test_writing_on_does_not_heal_it(
    audit: Audit, attack: Callable[[Lines], Lines], expected: list[tuple[str, int, int]]
) -> None:
    """The next entry goes on behind the last head, whatever was made of the log; what was done stays to be seen."""
    audit.path.write_bytes(b"".join(attack(lines(audit.path))))
    audit.write(LOOK)
    audit.write(LOOK)
    found = judged(audit)
    assert found.anchored == COUNT + 2
    same = {"truncated": "removed", "missing": "removed"}
    assert {(same.get(kind, kind), first) for kind, first, _ in expected} <= {
        (one.kind, one.first) for one in found.faults
    }


def test_the_log_is_gone(audit: Audit) -> None:
    audit.path.unlink()
    assert faults(audit) == [("log", "missing", 1, COUNT)]


def test_an_older_copy_of_the_log(audit: Audit) -> None:
    old = audit.path.read_bytes()
    made(audit.path.parents[1], 3)
    audit.path.write_bytes(old)
    assert faults(audit) == [("log", "truncated", COUNT + 1, COUNT + 3)]


def test_a_log_of_another_key(tmp_path: Path) -> None:
    theirs = made(tmp_path, 2, STRANGER)
    assert {one.kind for one in judged(theirs).faults} == {"forged"}


HEADS: dict[str, tuple[Callable[[Lines], Lines], list[tuple[str, int, int]]]] = {
    "edited": (lambda of: [*of[:2], of[2].replace(b"20", b"21", 1), *of[3:]], [("edited", 3, 3)]),
    "edited last": (lambda of: [*of[:-1], of[-1].replace(b'"at":"2', b'"at":"3')], [("edited", COUNT, COUNT)]),
    "removed": (lambda of: [*of[:2], *of[3:]], [("removed", 3, 3)]),
    "swapped": (lambda of: [*of[:2], of[3], of[2], *of[4:]], [("reordered", 3, 3)]),
    "replayed": (lambda of: [*of, of[0]], [("replayed", 1, 1)]),
    "forged": (
        lambda of: [*of, chain.head(STRANGER, COUNT, "0" * 64, "2026-01-01T00:00:00Z")],
        [("forged", COUNT + 1, COUNT + 1)],
    ),
    "gone": (lambda of: [], [("missing", 1, COUNT)]),
    **{
        f"truncated by {n}": (lambda of, n=n: of[:-n], [("truncated", COUNT - n + 1, COUNT)])  # type: ignore[misc]
        for n in range(2, COUNT)
    },
}


@pytest.mark.parametrize(("attack", "expected"), HEADS.values(), ids=HEADS)
def test_an_attack_on_the_heads(
    audit: Audit, attack: Callable[[Lines], Lines], expected: list[tuple[str, int, int]]
) -> None:
    audit.heads.write_bytes(b"".join(attack(lines(audit.heads))))
    assert faults(audit) == [("heads", *one) for one in expected]


def test_no_byte_of_a_head_can_change(audit: Audit) -> None:
    whole = lines(audit.heads)
    for at in range(len(whole[2])):
        changed = whole[2][:at] + bytes([whole[2][at] ^ 1]) + whole[2][at + 1 :]
        audit.heads.write_bytes(b"".join([*whole[:2], changed, *whole[3:]]))
        assert [one.first for one in judged(audit).faults][:1] == [3], at


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_nothing_but_the_whole_log_passes(audit: Audit, data: st.DataObject) -> None:
    """Lines taken away, doubled and in any order: whole if and only if it is the log as it was written."""
    held = lines(audit.path)
    order = data.draw(st.lists(st.integers(0, COUNT - 1), max_size=COUNT + 2))
    found = chain.verify([held[one] for one in order], lines(audit.heads), KEY.public_key())
    assert (found.faults == []) == (order == list(range(COUNT)))


# ----------------------------------------------------------------------------------------------------------- crashes


def test_a_crash_between_entry_and_head_is_no_fault(audit: Audit) -> None:
    audit.heads.write_bytes(b"".join(lines(audit.heads)[:-1]))
    found = judged(audit)
    assert (found.unanchored, found.faults) == ([COUNT], [])
    audit.write(LOOK)
    found = judged(audit)
    assert (found.unanchored, found.faults, found.anchored) == ([], [], COUNT + 1)


@pytest.mark.parametrize("kept", [1, 8, 60, 400, -2, -1])
def test_a_line_that_a_crash_broke_off(audit: Audit, kept: int) -> None:
    """It stays, and takes no number. A line that wants its newline alone is whole, and counts."""
    line = chain.entry(KEY, COUNT + 1, chain.digest(lines(audit.path)[-1]), b'{"resourceType":"AuditEvent"}' * 20)
    with audit.path.open("ab") as file:
        file.write(line[:kept])
    found = judged(audit)
    torn = [] if kept == -1 else [COUNT + 1]
    assert (found.torn, found.unanchored, found.faults) == (torn, [] if torn else [COUNT + 1], [])
    audit.write(LOOK)
    found = judged(audit)
    assert (found.torn, found.faults, found.entries) == (torn, [], COUNT + (1 if torn else 2))


def test_a_head_that_a_crash_broke_off(audit: Audit) -> None:
    whole = audit.heads.read_bytes()
    audit.heads.write_bytes(whole[:-50])
    found = judged(audit)
    assert (found.torn_heads, found.unanchored, found.faults) == ([COUNT], [COUNT], [])
    audit.write(LOOK)
    found = judged(audit)
    assert (found.torn_heads, found.unanchored, found.faults) == ([COUNT], [], [])


WRITER = """
import sys
from pathlib import Path
from tests.test_audit import made
made(Path(sys.argv[1]), int(sys.argv[2]))
"""


def writer(folder: Path, count: int) -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WRITER}"
    return subprocess.Popen([sys.executable, "-c", code, str(folder), str(count)], cwd=ROOT)


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    processes = [writer(tmp_path, 200) for _ in range(4)]
    assert [one.wait(120) for one in processes] == [0] * 4
    found = judged(made(tmp_path, 0))
    assert (found.entries, found.anchored, found.faults, found.torn) == (800, 800, [], [])


def test_a_killed_writer_breaks_nothing(tmp_path: Path) -> None:
    """kill -9 in a loop: at most one entry without a head each time, and the next writer goes on."""
    audit, dice, before = made(tmp_path, 1), random.Random(3), 0
    for _ in range(12):
        process = writer(tmp_path, 100_000)
        while judged(audit).entries == before and process.poll() is None:
            time.sleep(0.02)
        time.sleep(dice.random() / 5)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = judged(audit)
        assert found.faults == []
        assert len(found.unanchored) <= 1
        assert found.entries > before
        before = found.entries
    audit.write(LOOK)
    found = judged(audit)
    assert (found.faults, found.unanchored, found.entries) == ([], [], before + 1)


# ------------------------------------------------------------------------------------------------------- cannot write


def test_where_the_second_place_fails_the_attempt_stays_and_nothing_is_shown(audit: Audit) -> None:
    """Nobody may write a file over a folder, whoever he or she is: root passes every other obstacle."""
    whole = audit.heads.read_bytes()
    audit.heads.unlink()
    audit.heads.mkdir()
    for _ in range(3):
        with pytest.raises(AuditUnavailable):
            audit.write(LOOK)
    audit.heads.rmdir()
    audit.heads.write_bytes(whole)
    assert judged(audit).faults == []
    audit.write(LOOK)
    assert judged(audit).faults == []


def test_a_full_disk(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second place takes a part of a line: refused, the entry stays without its head, and it heals."""
    write = os.write

    def full(handle: int, data: bytes) -> int:
        name = os.readlink(f"/proc/self/fd/{handle}")
        return write(handle, data[:30] if name.endswith("heads.jsonl") else data)

    monkeypatch.setattr(os, "write", full)
    for _ in range(2):
        with pytest.raises(AuditUnavailable, match="No space left"):
            audit.write(LOOK)
    monkeypatch.undo()
    found = judged(audit)
    assert (found.entries, found.unanchored) == (COUNT + 1, [COUNT + 1]), "the first attempt alone stays"
    audit.write(LOOK)
    found = judged(audit)
    assert (found.entries, found.anchored) == (COUNT + 2, COUNT + 2)
    assert found.faults == []


# ------------------------------------------------------------------------------------------------------------- shape

DCM = "http://dicom.nema.org/resources/ontology/DCM"
HL7 = "http://terminology.hl7.org/CodeSystem"
# Elements of the R4 StructureDefinition of AuditEvent that we use, and those without which there is none.
KNOWN = {
    "": {"resourceType", "id", "type", "subtype", "action", "recorded", "outcome", "outcomeDesc", "purposeOfEvent",
         "agent", "source", "entity"},
    "agent": {"type", "role", "who", "requestor", "purposeOfUse"},
    "entity": {"what", "type", "role", "name", "query", "detail"},
}  # fmt: skip
KINDS = [
    ("search", "E", "rest", "search"),
    ("reveal", "R", "rest", "read"),
    ("dead_letter", "R", "rest", "read"),
    ("replay", "E", "rest", "operation"),
    ("login", "E", "110114", "110122"),
    ("login", "D", "110114", "110123"),
    ("account", "C", "110113", "110137"),
    ("policy", "U", "110113", "110136"),
    ("consent", "C", "rest", "create"),
    ("hold", "D", "rest", "delete"),
    ("erasure", "D", "rest", "delete"),
    ("key", "U", "110113", "110129"),
    ("break_glass", "C", "110113", "110127"),
    ("break_glass", "R", "rest", "read"),
    ("association", "E", "110113", "110126"),
    ("image", "C", "110104", ""),
    ("export", "R", "110106", ""),
    ("retention", "D", "rest", "delete"),
    ("audit", "R", "110101", ""),
]


@pytest.mark.parametrize(("kind", "action", "code", "subtype"), KINDS)
def test_every_kind_is_an_audit_event(tmp_path: Path, kind: str, action: str, code: str, subtype: str) -> None:
    """What FHIR R4 wants of an AuditEvent: required elements, no unknown and no empty one, sev-1, an instant, an id."""
    audit = made(tmp_path, 0)
    audit.write(Act(kind, action, who="ann", purpose="TREAT", patients=(REF,), entities=("x",), detail={"step": ""}))
    audit.write(Act(kind, action, outcome="4", why="wrong_role", fields=("name",), detail={"query": "9f", "n": "1"}))
    for event in events(audit.path):
        assert {"type", "recorded", "agent", "source"} <= set(event) <= KNOWN[""]
        assert event["type"]["code"] == code
        assert event["type"]["system"] == (DCM if code.isdigit() else f"{HL7}/audit-event-type")
        assert [one["code"] for one in event["subtype"]] == [kind, subtype] if subtype else [kind]
        assert event["outcome"] in ("0", "4", "8", "12")
        assert re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", event["id"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", event["recorded"])
        assert event["source"]["observer"]
        (agent,) = event["agent"]
        assert set(agent) <= KNOWN["agent"]
        assert agent["requestor"] is True
        for entity in event["entity"]:
            assert set(entity) <= KNOWN["entity"]
            assert not {"name", "query"} <= set(entity), "sev-1: either a name or a query"
        assert '""' not in json.dumps(event)
        assert "[]" not in json.dumps(event)
        assert os.uname().nodename not in json.dumps(event["source"])
    refused = list(events(audit.path))[-1]
    assert (refused["outcome"], refused["outcomeDesc"]) == ("4", "wrong_role")


def test_patient_read(audit: Audit) -> None:
    """IHE BALP PatientRead: the reader with role and purpose, exactly one patient, and what was read."""
    event = next(events(audit.path))
    (agent,) = event["agent"]
    assert agent["type"]["coding"][0]["code"] == "IRCP"
    assert (agent["role"][0]["text"], agent["purposeOfUse"]) == ("nurse", event["purposeOfEvent"])
    patient, document = event["entity"]
    assert (patient["type"]["code"], patient["role"]["code"], patient["what"]["type"]) == ("1", "1", "Patient")
    assert patient["what"]["identifier"]["value"] == REF
    assert (document["type"]["code"], document["role"]["code"]) == ("2", "4")
    assert document["detail"] == [{"type": "field", "valueString": "name"}]


def test_query(tmp_path: Path) -> None:
    """IHE BALP Query: the query is an entity; of its words there is a keyed hash alone."""
    audit = made(tmp_path, 0)
    audit.write(Act("search", "E", patients=(REF,), fields=("unit",), detail={"query": "9f3a", "total": "4"}))
    patient, query = next(events(audit.path))["entity"]
    assert patient["type"]["code"] == "1"
    assert (query["type"]["code"], query["role"]["code"]) == ("2", "24")
    assert base64.b64decode(query["query"]) == b"9f3a"
    assert query["detail"] == [{"type": "field", "valueString": "unit"}, {"type": "total", "valueString": "4"}]


# ----------------------------------------------------------------------------------------------------------- outsider


def test_an_outsider_with_openssl(audit: Audit, tmp_path: Path) -> None:
    """Without a line of ours, and without a secret: the recipe of docs/audit.md."""
    page = (ROOT / "docs" / "audit.md").read_text()
    (recipe,) = re.findall(r"```sh\n(.*?)```", page, re.S)
    (tmp_path / "copy").mkdir()
    for path in (audit.path, audit.heads, audit.public):
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    done = subprocess.run(["sh", "-ec", recipe], cwd=tmp_path / "copy", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Signature Verified Successfully") == 2
    (tmp_path / "copy" / "audit.jsonl").write_bytes(audit.path.read_bytes().replace(b"ann", b"bob"))
    done = subprocess.run(["sh", "-ec", recipe], cwd=tmp_path / "copy", capture_output=True, text=True)
    assert done.returncode != 0


def test_an_outsider_with_python(audit: Audit, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "audit.md").read_text()
    (recipe,) = re.findall(r"```python\n(.*?)```", page, re.S)
    (tmp_path / "copy").mkdir()
    for path in (audit.path, audit.heads, audit.public):
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", recipe], cwd=tmp_path / "copy", capture_output=True, text=True, timeout=60
        )

    assert run().stdout == f"{COUNT} entries are whole\n"
    for name in ("audit.jsonl", "heads.jsonl"):
        whole = lines(tmp_path / "copy" / name)
        (tmp_path / "copy" / name).write_bytes(b"".join([*whole[:2], *whole[3:]]))
        assert run().returncode != 0
        (tmp_path / "copy" / name).write_bytes(b"".join(whole))


# ------------------------------------------------------------------------------------------------------------ command

BODY = (
    "MSH|^~\\&|AUD|IT|US|HERE|20260301120000||ADT^A01|{id}|P|2.5\r"
    "PID|1||{number}^^^HOSP^MR||Vanderauditus^Ilse||19800101|F\rPV1|1|I|AWARD^2^1\r"
)
MERGE = (
    "MSH|^~\\&|AUD|IT|US|HERE|20260301130000||ADT^A40|AUD9|P|2.5\r"
    "PID|1||AU7001^^^HOSP^MR||Vanderauditus^Ilse||19800101|F\rMRG|AU7002^^^HOSP^MR\r"
)


@pytest.fixture(scope="module")
def looked(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two numbers that turn out to be one person; somebody has looked at each before that was known."""
    folder = tmp_path_factory.mktemp("looked")
    for name, number in (("AUD1", "AU7001"), ("AUD2", "AU7002")):
        (folder / f"{name}.hl7").write_text(BODY.format(id=name, number=number), newline="")
    done = command("produce", "files", str(folder), "--manifest", str(folder / "out.jsonl"), "--json")
    assert json.loads(done.stdout)["outcomes"] == {"indexed": 2}
    for row in map(json.loads, (folder / "out.jsonl").read_text().splitlines()):
        assert command("reveal", row["event_id"], "--field", "name", "--purpose", "TREAT").returncode == 0
    later = tmp_path_factory.mktemp("merge")
    (later / "merge.hl7").write_text(MERGE, newline="")
    assert command("produce", "files", str(later)).returncode == 0
    return stack


@pytest.mark.parametrize("identifier", ["HOSP|MR|AU7001", "HOSP|MR|AU7002", "au-7001"])
def test_who_looked_at_this_person(looked: Path, command: Run, identifier: str) -> None:
    done = command("audit", "patient", identifier, "--purpose", "PATRQT", "--json")
    assert done.returncode == 0, done.stderr
    looks = [row for row in json.loads(done.stdout) if row["kind"] == "reveal"]
    assert [(row["purpose"], row["fields"], row["outcome"]) for row in looks] == [("TREAT", ["name"], "done")] * 2
    assert looks[0]["who"]
    again = json.loads(command("audit", "patient", looks[0]["patients"][0], "--json").stdout)
    assert [row for row in again if row["kind"] == "reveal"] == looks
    assert again[-1]["kind"] == "audit", "whoever asks is written down before the answer"
    assert "Vanderauditus" not in (looked / "audit" / "audit.jsonl").read_text()
    assert "AU7001" not in (looked / "audit" / "audit.jsonl").read_text()


@pytest.mark.parametrize("identifier", ["HOSP|MR|none", "none", "f" * 32, "a|b", ""])
def test_nobody_is_an_error(looked: Path, command: Run, identifier: str) -> None:
    done = command("audit", "patient", identifier)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_number_of_two_persons(looked: Path, command: Run, tmp_path: Path) -> None:
    for name, authority in (("AUD3", "EAST"), ("AUD4", "WEST")):
        body = BODY.format(id=name, number="AU7003").replace("HOSP", authority)
        (tmp_path / f"{name}.hl7").write_text(body, newline="")
    command("produce", "files", str(tmp_path))
    time.sleep(1)
    done = command("audit", "patient", "AU7003")
    assert done.returncode == 2
    assert "2 persons" in done.stderr
    assert "AU7003" not in done.stderr
    assert command("audit", "patient", "EAST|MR|AU7003").returncode == 0


def test_list_and_export(looked: Path, command: Run, tmp_path: Path) -> None:
    shown = json.loads(command("audit", "list", "--kind", "reveal", "--since", "1h", "--json").stdout)
    assert {row["kind"] for row in shown} == {"reveal"}
    assert command("audit", "list", "--since", "soon").returncode == 2
    assert "reveal" in command("audit", "list").stdout
    done = command("audit", "export", str(tmp_path / "out.ndjson"))
    exported = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    assert done.stdout == f"{len(exported)} entries\n"
    assert {one["resourceType"] for one in exported} == {"AuditEvent"}
    assert exported[-1]["type"]["code"] == "110106", "the export itself is in it"
    assert command("audit", "export", str(tmp_path / "out.ndjson")).returncode == 2


def test_verify_says_where(looked: Path, command: Run, tmp_path: Path) -> None:
    done = command("audit", "verify", "--json")
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert (found["faults"], found["entries"]) == ([], found["anchored"])
    kept = tmp_path / "kept.pub"
    kept.write_text(found["public_key"])
    log = looked / "audit" / "audit.jsonl"
    whole = log.read_bytes()
    try:
        log.write_bytes(b"".join(whole.splitlines(keepends=True)[1:]))
        done = command("audit", "verify", "--key", str(kept))
    finally:
        log.write_bytes(whole)
    assert done.returncode == 13
    assert "removed: entry 1" in done.stdout
    assert "audit_broken" in done.stderr
    kept.write_bytes(pem(STRANGER.public_key()))
    assert command("audit", "verify", "--key", str(kept)).returncode == 13
    assert command("audit", "verify", "--key", str(log)).returncode == 2


def test_what_cannot_be_written_is_not_shown(looked: Path, command: Run) -> None:
    """The second place is gone: nobody is shown anything, exit code 12; it comes back, and nothing was broken."""
    heads = looked / "anchor" / "heads.jsonl"
    away = heads.rename(heads.with_name("away"))
    heads.mkdir()
    try:
        done = command("audit", "list")
        assert (done.returncode, done.stdout) == (12, "")
    finally:
        heads.rmdir()
        away.rename(heads)
    assert command("audit", "verify").returncode == 0
