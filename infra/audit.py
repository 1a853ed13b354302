"""Who did what, to whom, why and when: FHIR R4 AuditEvents (IHE BALP), in a chain that shows where it was altered.

An entry is on the disk before anything is shown or done. It names persons by reference, never by name or number;
whoever reads the file learns who looked, not what was seen. One line of JSON each, in `<home>/audit/audit.jsonl`:

    {"seq": 1, "prev": SHA-256 of the line before in hex, "event": AuditEvent, "signature": Ed25519 in hex}

signed over "wardstream audit 1\n", seq, "\n", prev, "\n" and the event's bytes as they stand in the line. A chain alone
cannot show that its end was cut off, so each head {"seq", "line": SHA-256 of the line, "signature"} goes to a second
place as well (`WARDSTREAM_ANCHOR`), signed over "wardstream head 1\n", seq, "\n" and line.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from infra.errors import AuditUnavailable
from infra.keyring import Keyring
from infra.settings import settings

# HL7 v3 PurposeOfUse: what a person may say why he or she looks.
PURPOSES = {
    "TREAT": "treatment",
    "ETREAT": "emergency treatment",
    "BTG": "break the glass",
    "HPAYMT": "healthcare payment",
    "HOPERAT": "healthcare operations",
    "HRESCH": "healthcare research",
    "PUBHLTH": "public health",
    "PATRQT": "patient requested",
    "HSYSADMIN": "health system administration",
    "HCOMPL": "health compliance",
}
_PURPOSE_SYSTEM = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_TYPE_SYSTEM = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_REST_SYSTEM = "http://hl7.org/fhir/restful-interaction"
_DICOM_SYSTEM = "http://dicom.nema.org/resources/ontology/DCM"  # PS3.16 CID 400 and 401
_ROLE_SYSTEM = "http://terminology.hl7.org/CodeSystem/object-role"
GENESIS = ""
_REST = {"system": _TYPE_SYSTEM, "code": "rest", "display": "RESTful Operation"}


def _dicom(code: str, display: str) -> dict[str, str]:
    return {"system": _DICOM_SYSTEM, "code": code, "display": display}


def _rest(code: str) -> dict[str, str]:
    return {"system": _REST_SYSTEM, "code": code}


_ALERT = _dicom("110113", "Security Alert")
# AuditEvent.type and .subtype of each kind of act.
_TYPES = {
    "search": (_REST, _rest("search-type")),
    "reveal": (_REST, _rest("read")),
    "dead_letter": (_REST, _rest("read")),
    "replay": (_REST, _rest("operation")),
    "consent": (_REST, _rest("create")),
    "hold": (_REST, _rest("create")),
    "erasure": (_REST, _rest("delete")),
    "retention": (_REST, _rest("delete")),
    "login": (_dicom("110114", "User Authentication"), _dicom("110122", "Login")),
    "account": (_ALERT, _dicom("110137", "User Security Attributes Changed")),
    "policy": (_ALERT, _dicom("110136", "Security Roles Changed")),
    "key": (_ALERT, _dicom("110131", "Security Configuration")),
    "break_glass": (_ALERT, _dicom("110127", "Emergency Override Started")),
    "export": (_dicom("110106", "Export"), _rest("operation")),
    "audit": (_dicom("110101", "Audit Log Used"), _rest("read")),
}
_ENTITY_SYSTEM = "http://terminology.hl7.org/CodeSystem/audit-entity-type"


@dataclass(frozen=True, slots=True)
class Act:
    """One thing somebody did or tried. Only references, ids, names of fields and codes: never a value, never a query.

    `kind`: search, reveal, dead_letter, replay, login, account, policy, consent, hold, erasure, key, break_glass,
    export, retention, audit. `outcome` is FHIR's: 0 done, 4 refused, 8 failed; `why` a reason code with it.
    """

    kind: str
    action: str  # FHIR AuditEvent.action: C create, R read, U update, D delete, E execute
    who: str = ""  # account; empty: the user of the operating system
    role: str = ""
    purpose: str = ""  # HL7 v3 PurposeOfUse
    patients: tuple[str, ...] = ()  # references
    entities: tuple[str, ...] = ()  # ids of documents, events, erasures, accounts, keys
    fields: tuple[str, ...] = ()
    outcome: str = "0"
    why: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)


class Audit:
    """Appends entries and anchors their heads. Several processes may at once: each takes the file's lock."""

    def __init__(self, home: Path, anchor: Path, key: Ed25519PrivateKey) -> None:
        self.path, self.heads = home / "audit" / "audit.jsonl", anchor / "heads.jsonl"
        self._key = key

    @classmethod
    def local(cls) -> Audit:
        of = settings()
        return cls(of.home, of.anchor or of.home / "anchor", Keyring.local().signing_key())

    def write(self, act: Act) -> None:
        """Record an act, durably, before anything is shown or done. Raises AuditUnavailable."""
        try:
            event = orjson.dumps(_event(act))
            with _locked(self.path) as log, _locked(self.heads) as heads:
                seq, prev, torn = _tail(log)
                self._anchor(heads, seq, prev)
                _append(log, self._line(seq + 1, prev, event, torn))
                seq, prev, _ = _tail(log)
                self._anchor(heads, seq, prev)
        except OSError as error:
            raise AuditUnavailable(f"the audit cannot be written: {error.strerror}") from None

    def public_key(self) -> Ed25519PublicKey:
        return self._key.public_key()

    def _line(self, seq: int, prev: str, event: bytes, torn: bool) -> bytes:
        signature = self._key.sign(_signed(seq, prev, event)).hex()
        line = b'{"seq":%d,"prev":"%b","event":%b,"signature":"%b"}\n'
        return (b"\n" if torn else b"") + line % (seq, prev.encode(), event, signature.encode())

    def _anchor(self, heads: int, seq: int, line: str) -> None:
        """Write the head of the log to the second place, unless it is there: a crash may have come between."""
        last = _last_line(heads)[0]
        if seq and (not last or orjson.loads(last)["seq"] < seq):
            signature = self._key.sign(_signed_head(seq, line)).hex()
            torn = b"" if _last_line(heads)[1] else b"\n"
            head = orjson.dumps({"seq": seq, "line": line, "signature": signature}, option=orjson.OPT_APPEND_NEWLINE)
            _append(heads, torn + head)


@dataclass(frozen=True, slots=True)
class Fault:
    """Where the audit was altered: `entry` is the number that an entry should have, 0 for the whole."""

    entry: int
    what: str


@dataclass(slots=True)
class Verdict:
    entries: int = 0
    anchored: int = 0  # the last entry whose head is in the second place
    torn: int = 0  # broken off by a crash: nothing was shown for them
    faults: list[Fault] = field(default_factory=list)


def verify(log: Path, heads: Path, public: Ed25519PublicKey) -> Verdict:
    """Check every entry against the one before it and against its head. Needs no secret."""
    found = Verdict()
    anchors = _anchors(heads, public, found)
    prev, expected = GENESIS, 1
    lines = log.read_bytes().split(b"\n") if log.exists() else []
    for line in filter(None, lines):
        entry = _entry(line)
        if entry is None:
            if line.rstrip().endswith(b"}"):
                found.faults.append(Fault(expected, "edited: it cannot be read"))
            else:
                found.torn += 1
            continue
        seq, given, event, signature = entry
        digest = hashlib.sha256(line).hexdigest()
        found.entries += 1
        if not _vouched(public, signature, _signed(seq, given, event)):
            found.faults.append(Fault(expected, "edited or forged: its signature does not hold"))
        elif seq < expected:
            found.faults.append(Fault(expected, f"entry {seq} stands here again, or out of its order"))
            continue
        elif seq > expected:
            found.faults.append(Fault(expected, f"removed or out of order: entry {seq} stands in its place"))
        elif given != prev:
            found.faults.append(Fault(seq, "it does not follow the entry before it"))
        if anchors.get(expected, digest) != digest:
            found.faults.append(Fault(expected, "another entry was anchored under this number"))
        prev, expected = digest, max(seq, expected) + 1
    if anchors and max(anchors) >= expected:
        found.faults.append(Fault(expected, f"truncated: {max(anchors)} entries were anchored"))
    if anchors and expected - 1 > max(anchors) + 1:
        found.faults.append(Fault(max(anchors) + 1, "the heads end before the entries"))
    if not anchors and found.entries > 1:
        found.faults.append(Fault(0, "there are no heads"))
    if not anchors and not heads.exists() and found.entries:
        found.faults.append(Fault(0, "the file of the heads is gone"))
    found.anchored = max(anchors, default=0)
    return found


def events(log: Path) -> Iterator[dict[str, Any]]:
    """AuditEvents as they were written, oldest first; what cannot be read is `verify`'s to tell."""
    for line in log.read_bytes().split(b"\n") if log.exists() else ():
        if (entry := _entry(line)) is not None:
            yield orjson.loads(entry[2])


def _anchors(heads: Path, public: Ed25519PublicKey, found: Verdict) -> dict[int, str]:
    """Digests of entries by number. The heads have no chain of their own: each number once, in order, signed."""
    anchors: dict[int, str] = {}
    for line in filter(None, heads.read_bytes().split(b"\n") if heads.exists() else ()):
        try:
            head = orjson.loads(line)
            seq, digest = int(head["seq"]), str(head["line"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            if line.endswith(b"}"):
                found.faults.append(Fault(0, "a head cannot be read"))
            continue
        if not _vouched(public, head.get("signature", ""), _signed_head(seq, digest)):
            found.faults.append(Fault(seq, "its head was edited or forged"))
        elif seq in anchors or (anchors and seq < max(anchors)):
            found.faults.append(Fault(seq, "its head stands twice, or out of order"))
        else:
            anchors[seq] = digest
    if anchors and len(anchors) != max(anchors):
        missing = next(one for one in range(1, max(anchors)) if one not in anchors)
        found.faults.append(Fault(missing, "its head was removed"))
    return anchors


def _entry(line: bytes) -> tuple[int, str, bytes, str] | None:
    """Number, digest of the line before, the event's own bytes, signature."""
    try:
        start, end = line.index(b',"event":') + 9, line.rindex(b',"signature":"')
        read = orjson.loads(line)
        return int(read["seq"]), str(read["prev"]), line[start:end], str(read["signature"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def _vouched(public: Ed25519PublicKey, signature: str, said: bytes) -> bool:
    try:
        public.verify(bytes.fromhex(signature), said)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def _signed(seq: int, prev: str, event: bytes) -> bytes:
    return b"wardstream audit 1\n%d\n%b\n%b" % (seq, prev.encode(), event)


def _signed_head(seq: int, line: str) -> bytes:
    return b"wardstream head 1\n%d\n%b" % (seq, line.encode())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if new:
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        yield handle
    finally:
        os.close(handle)


def _append(handle: int, line: bytes) -> None:
    if os.write(handle, line) != len(line):
        raise OSError(28, "No space left on device")
    os.fsync(handle)


def _tail(log: int) -> tuple[int, str, bool]:
    """Number and digest of the last whole entry, and whether something broken off stands behind it."""
    end = os.fstat(log).st_size
    whole = True
    while end:
        line, start, closed = _line_before(log, end)
        whole = whole and closed
        if (entry := _entry(line)) is not None and closed:
            return entry[0], hashlib.sha256(line).hexdigest(), not whole
        end = start
    return 0, GENESIS, not whole


def _last_line(handle: int) -> tuple[bytes, bool]:
    """The last line that can be read, and whether the file ends with a whole one."""
    end = os.fstat(handle).st_size
    whole = True
    while end:
        line, start, closed = _line_before(handle, end)
        whole = whole and closed
        if closed and line.endswith(b"}"):
            return line, whole
        end = start
    return b"", whole


def _line_before(handle: int, end: int) -> tuple[bytes, int, bool]:
    """The line that ends at `end`, where it starts, and whether a newline closes it."""
    closed = os.pread(handle, 1, end - 1) == b"\n"
    stop, block = end - closed, b""
    at = stop
    while at:
        step = min(at, 4096)
        at -= step
        block = os.pread(handle, step, at) + block
        if (cut := block.rfind(b"\n")) >= 0:
            return block[cut + 1 :], at + cut + 1, closed
    return block, 0, closed


def _event(act: Act) -> dict[str, Any]:
    kind, subtype = _TYPES[act.kind]
    patient = {
        "type": {"system": _ENTITY_SYSTEM, "code": "1", "display": "Person"},
        "role": {"system": _ROLE_SYSTEM, "code": "1", "display": "Patient"},
    }
    thing = {
        "type": {"system": _ENTITY_SYSTEM, "code": "2", "display": "System Object"},
        "detail": [{"type": "field", "valueString": name} for name in act.fields]
        + [{"type": name, "valueString": text} for name, text in sorted(act.detail.items())],
    }
    purpose = [{"coding": [{"system": _PURPOSE_SYSTEM, "code": act.purpose}]}] if act.purpose else []
    agent: dict[str, Any] = {"who": {"identifier": {"value": act.who or _who()}}, "requestor": True}
    if act.role:
        agent["role"] = [{"coding": [{"code": act.role}]}]
    made: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": str(uuid.uuid4()),
        "type": kind,
        "subtype": [{"system": "urn:wardstream:act", "code": act.kind}, subtype],
        "action": act.action,
        "recorded": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "outcome": act.outcome,
        "agent": [agent],
        "source": {"observer": {"display": "wardstream"}},
        "entity": [{"what": {"identifier": {"value": one}}, **patient} for one in act.patients]
        + [{"what": {"identifier": {"value": one}}, **thing} for one in act.entities or (act.kind,)],
    }
    if act.why:
        made["outcomeDesc"] = act.why
    return made | ({"purposeOfEvent": purpose} if purpose else {})


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
