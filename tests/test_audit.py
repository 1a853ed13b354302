"""The audit shows where it was altered, whoever altered it, and shows nothing that it could not write."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.audit import Act, Audit, Verdict, events, verify
from infra.errors import AuditUnavailable

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
Run = Callable[..., Any]
ENTRIES = 6


def opened(folder: Path, key: Ed25519PrivateKey = KEY) -> Audit:
    return Audit(folder, folder / "anchor", key)


def act(number: int) -> Act:
    return Act(
        "reveal", "R", who="account", role="clinician", purpose="TREAT", patients=(f"p{number}",), fields=("name",)
    )


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    made = opened(tmp_path)
    for number in range(1, ENTRIES + 1):
        made.write(act(number))
    return made


def judged(audit: Audit) -> Verdict:
    return verify(audit.path, audit.heads, KEY.public_key())


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_whole(audit: Audit) -> None:
    assert judged(audit) == Verdict(entries=ENTRIES, anchored=ENTRIES)
    for path in (audit.path, audit.heads):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_shape_is_fhirs(audit: Audit) -> None:
    """AuditEvent 4.0.1: type, recorded, agent.requestor and source.observer are required; BALP wants one patient."""
    event = next(events(audit.path))
    assert event["resourceType"] == "AuditEvent"
    assert (event["type"]["code"], event["subtype"][1]["code"], event["action"]) == ("rest", "read", "R")
    assert event["agent"][0]["requestor"] is True
    assert event["agent"][0]["role"][0]["coding"][0]["code"] == "clinician"
    assert event["source"]["observer"]
    assert event["recorded"]
    assert [one["role"]["code"] for one in event["entity"] if "role" in one] == ["1"]
    assert len(event["entity"]) >= 2


def swap(given: list[bytes]) -> list[bytes]:
    return [*given[:2], given[3], given[2], *given[4:]]


# What is done to the log, and where it is seen.
ATTACKS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "edited": (lambda given: [one.replace(b'"p3"', b'"p9"') for one in given], 3),
    "purpose edited": (lambda given: [*given[:4], given[4].replace(b"TREAT", b"ETREA"), given[5]], 5),
    "first removed": (lambda given: given[1:], 1),
    "one removed": (lambda given: given[:2] + given[3:], 3),
    "two swapped": (swap, 3),
    "last cut off": (lambda given: given[:-1], ENTRIES),
    "three cut off": (lambda given: given[:-3], ENTRIES - 2),
    "all gone": (lambda given: [], 1),
    "one repeated": (lambda given: [*given, given[1]], ENTRIES + 1),
    "one repeated in its place": (lambda given: [*given[:3], given[2], *given[3:]], 4),
    "made a torn line": (lambda given: [*given[:2], given[2][:40] + b"\n", *given[3:]], 3),
}


@pytest.mark.parametrize(("attack", "where"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_seen_and_placed(audit: Audit, attack: Callable[[list[bytes]], list[bytes]], where: int) -> None:
    audit.path.write_bytes(b"".join(attack(lines(audit.path))))
    found = judged(audit)
    assert found.faults
    assert found.faults[0].entry == where, found.faults


def test_no_byte_of_an_entry_can_change(audit: Audit) -> None:
    given = lines(audit.path)
    whole = given[2]
    for at in range(0, len(whole) - 1, 3):
        changed = bytearray(whole)
        changed[at] ^= 1
        audit.path.write_bytes(b"".join([*given[:2], bytes(changed), *given[3:]]))
        assert judged(audit).faults, at


def test_an_older_copy_of_the_log_is_seen(audit: Audit) -> None:
    old = audit.path.read_bytes()
    audit.write(act(9))
    audit.path.write_bytes(old)
    assert [one.what for one in judged(audit).faults] == [f"truncated: {ENTRIES + 1} entries were anchored"]


def test_an_entry_of_somebody_elses_is_seen(tmp_path: Path, audit: Audit) -> None:
    opened(tmp_path, Ed25519PrivateKey.generate()).write(act(9))
    found = judged(audit)
    assert found.faults[0].what.startswith("its head was edited or forged")
    assert any(one.entry == ENTRIES + 1 and "forged" in one.what for one in found.faults)


@pytest.mark.parametrize(
    "attack",
    [
        lambda given: given[:-2],
        lambda given: [],
        lambda given: [*given[:1], *given[2:]],
        lambda given: [*given[:2], given[2].replace(b'"line":"', b'"line":"0'), *given[3:]],
        lambda given: swap(given),
    ],
    ids=["cut", "gone", "one removed", "edited", "swapped"],
)
def test_an_attack_on_the_heads_is_seen(audit: Audit, attack: Callable[[list[bytes]], list[bytes]]) -> None:
    audit.heads.write_bytes(b"".join(attack(lines(audit.heads))))
    assert judged(audit).faults


def test_a_crash_between_entry_and_head_is_no_fault(audit: Audit) -> None:
    audit.heads.write_bytes(b"".join(lines(audit.heads)[:-1]))
    found = judged(audit)
    assert (found.faults, found.anchored) == ([], ENTRIES - 1)
    audit.write(act(9))
    assert judged(audit) == Verdict(entries=ENTRIES + 1, anchored=ENTRIES + 1)


def test_a_line_broken_off_by_a_crash_stays_and_is_told(audit: Audit) -> None:
    with audit.path.open("ab") as file:
        file.write(b'{"seq":7,"prev":"ab')
    audit.write(act(9))
    assert judged(audit) == Verdict(entries=ENTRIES + 1, anchored=ENTRIES + 1, torn=1)


def _write_many(folder: str) -> None:
    made = opened(Path(folder))
    for number in range(50):
        made.write(act(number))


def test_many_processes_make_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    several = [context.Process(target=_write_many, args=(str(tmp_path),)) for _ in range(4)]
    for one in several:
        one.start()
    for one in several:
        one.join()
    assert judged(opened(tmp_path)) == Verdict(entries=200, anchored=200)


def test_killed_anywhere_the_chain_holds(tmp_path: Path) -> None:
    code = "import sys; from tests.test_audit import _write_many\nwhile True: _write_many(sys.argv[1])"
    for wait in (0.9, 1.0, 1.1, 1.2, 1.3, 1.4):
        writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).resolve().parents[1])
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    found = judged(opened(tmp_path))
    assert found.faults == []
    assert found.entries > 20


def test_what_cannot_be_written_is_said(tmp_path: Path, audit: Audit) -> None:
    audit.heads.unlink()
    audit.heads.mkdir()
    with pytest.raises(AuditUnavailable):
        audit.write(act(9))
    assert os.listdir(audit.heads) == []


def test_the_commands(stack: Path, command: Run) -> None:
    """Every look is in it, by person and by account; and the log of the whole run so far holds."""
    sample = stack / "audit-sample"
    sample.mkdir(exist_ok=True)
    (sample / "one.hl7").write_text(
        "MSH|^~\\&|AUDIT|HERE|US|X|20260301120000||ADT^A08|AU1|P|2.5\rPID|1||AUDITED1^^^HOSP^MR||Auditori^Ann\r",
        newline="",
    )
    assert command("produce", "files", str(sample), "--json").returncode == 0
    (sample / "one.hl7").unlink()
    sample.rmdir()
    deadline = time.monotonic() + 20
    while not (hits := json.loads(command("search", "id:AUDITED1", "--json").stdout)["hits"]):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert command("reveal", hits[0]["event_id"], "--field", "name", "--purpose", "TREAT").returncode == 0
    for named in ("HOSP|MR|AUDITED1", "AUDITED1", hits[0]["patient_ref"]):
        told = json.loads(command("audit", "patient", named, "--json").stdout)
        kinds = {one["kind"]: one for one in told}
        assert {"search", "reveal"} <= kinds.keys()
        assert (kinds["reveal"]["purpose"], kinds["reveal"]["fields"]) == ("TREAT", ["name"])
    assert "audit" in {one["kind"] for one in json.loads(command("audit", "list", "--json").stdout)}
    assert command("audit", "patient", "nobody-1").returncode == 2
    done = command("audit", "verify", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["faults"]) == (0, []), found
    again = command("audit", "verify", "--key", found["public_key"])
    assert again.returncode == 0
    assert command("audit", "verify", "--key", "00" * 32).returncode == 13
    assert "Auditori" not in (stack / "audit" / "audit.jsonl").read_text()
