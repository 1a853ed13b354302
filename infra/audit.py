"""Who did what, to whom, why and when: FHIR R4 AuditEvents in a signed chain (`infra/chain.py`), heads kept elsewhere.

An entry is on the disk, and its head in the second place, before anything is shown or done; where either cannot be
written, nothing is. Entries name persons by reference, never by name or number: whoever reads them learns who looked,
not what was seen. docs/audit.md has the format, and what it proves.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import hashlib
import os
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from infra import chain
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
_CODES = "http://terminology.hl7.org/CodeSystem"
_REST = {"system": f"{_CODES}/audit-event-type", "code": "rest", "display": "RESTful Operation"}
_RECIPIENT = {"system": f"{_CODES}/v3-ParticipationType", "code": "IRCP", "display": "information recipient"}
_INTERACTIONS = {"C": "create", "R": "read", "U": "update", "D": "delete", "E": "operation"}
_SECURITY_RESOURCE = {"system": f"{_CODES}/object-role", "code": "13", "display": "Security Resource"}


LONGEST = 1 << 24  # bytes at a file's end among which its last line is looked for; a search that hits 10,000 is 2 MB


def _dicom(code: str, display: str) -> dict[str, str]:
    return {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": code, "display": display}


# By kind, or by kind and action; what is not here is `rest`. Types and subtypes of DICOM, PS3.16 CID 400, 401 and 403,
# used as in PS3.15 A.5.3.
_ALERT = _dicom("110113", "Security Alert")
_TYPES = {
    "login": (_dicom("110114", "User Authentication"), _dicom("110122", "Login")),
    "login D": (_dicom("110114", "User Authentication"), _dicom("110123", "Logout")),
    "account": (_ALERT, _dicom("110137", "User security Attributes Changed")),
    "policy": (_ALERT, _dicom("110136", "Security Roles Changed")),
    "key": (_ALERT, _dicom("110129", "Security Configuration")),
    "break_glass C": (_ALERT, _dicom("110127", "Emergency Override Started")),  # the others are its review
    "association": (_ALERT, _dicom("110126", "Node Authentication")),
    "image": (_dicom("110104", "DICOM Instances Transferred"), None),
    "image R": (_dicom("110103", "DICOM Instances Accessed"), None),  # somebody looked
    "export": (_dicom("110106", "Export"), None),
    "audit": (_dicom("110101", "Audit Log Used"), None),
}


@dataclass(frozen=True, slots=True)
class Act:
    """One thing somebody did or tried. Only references, ids, names of fields and codes: never a value, never a query.

    `kind`: search, reveal, dead_letter, replay, login, account, policy, consent, hold, erasure, key, break_glass,
    export, retention, model, plan, association, image, audit. `outcome` is FHIR's: 0 done, 4 refused, 8 failed; `why`
    a reason code with it. `detail["query"]` is a keyed hash of what was asked.
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
    """The log, `<home>/audit/audit.jsonl`, and its heads in the second place, `heads.jsonl`; both mode 0600.

    Several processes and threads write at once: each takes the lock of the log for an entry and its head.
    """

    def __init__(self, home: Path, anchor: Path, key: Ed25519PrivateKey) -> None:
        self.path, self.heads, self.public = log_of(home), anchor / "heads.jsonl", anchor / "audit.pub"
        self._key = key
        self._observer = hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()[:16]

    @classmethod
    def local(cls) -> Audit:
        return cls(settings().home, anchor(), Keyring.local().signing_key())

    def write(self, act: Act) -> None:
        """Record an act, durably and in both places, before anything is shown or done. Raises AuditUnavailable.

        Where the second place fails, the entry stays: it says what was tried. The next writer anchors it first, so
        that never more than one entry lacks its head.
        """
        try:
            with _alone(self.path):
                self._append(act)
        except OSError as error:
            raise AuditUnavailable(f"the audit cannot be written: {error.strerror}") from None

    def public_key(self) -> Ed25519PublicKey:
        return self._key.public_key()

    def _append(self, act: Act) -> None:
        entry, ended = _last(self.path, chain.ENTRY, self.public_key())
        head, _ = _last(self.heads, chain.HEAD, self.public_key())
        seq, digest = (head.seq, head.link) if head else (0, chain.GENESIS)
        if entry is not None and entry.seq > seq:  # a crash came between the two
            seq, digest = entry.seq, entry.digest
            self._anchor(seq, digest)
        line = chain.entry(self._key, seq + 1, digest, orjson.dumps(_event(act, self._observer)))
        _write(self.path, line if ended else b"\n" + line)
        self._anchor(seq + 1, chain.digest(line))

    def _anchor(self, seq: int, digest: str) -> None:
        self.heads.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.public.exists():
            _write(self.public, pem(self.public_key()))
        _, ended = _last(self.heads, chain.HEAD, self.public_key())
        line = chain.head(self._key, seq, digest, _now())
        _write(self.heads, line if ended else b"\n" + line)


def anchor() -> Path:
    """The second place of this installation."""
    return settings().anchor or settings().home / "anchor"


def log_of(home: Path) -> Path:
    return home / "audit" / "audit.jsonl"


def pem(key: Ed25519PublicKey) -> bytes:
    """A public key as everybody's tools read it (RFC 8410)."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def lines(path: Path, until: int | None = None) -> Iterator[bytes]:
    """Lines of a file with their newlines, none where there is no file; as far as byte `until`."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size if until is None else until
        for line in file:
            if left <= 0:
                return
            yield line[:left]
            left -= len(line)


def sizes(log: Path, heads: Path) -> tuple[int, int]:
    """Bytes in both files at one moment, between two writers."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            file = stack.enter_context(log.open("rb"))
            fcntl.flock(file, fcntl.LOCK_SH)
        first, second = (path.stat().st_size if path.exists() else 0 for path in (log, heads))
        return first, second


def events(log: Path) -> Iterator[dict[str, Any]]:
    """AuditEvents as they were written, oldest first; what cannot be read is for `verify` to tell."""
    for line in lines(log):
        try:
            entry = orjson.loads(line)
            event = entry["event"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue
        if isinstance(event, dict):
            yield event


# ------------------------------------------------------------------------------------------------------------- files


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, data: bytes) -> None:
    """Append in one write, on the disk when it returns. Raises OSError, also where the disk took only a part."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fresh = os.fstat(handle).st_size == 0
        if os.write(handle, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle)
    finally:
        os.close(handle)
    if fresh:  # the file's own name must survive as well
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _last(path: Path, use: bytes, key: Ed25519PublicKey) -> tuple[chain.Line | None, bool]:
    """The last line that holds, and whether the file ends with a newline. Reads from the end, however long it is."""
    try:
        with path.open("rb") as file:
            ended = True
            for number, raw in enumerate(_backwards(file)):
                if number == 0:
                    ended = not raw  # what stands behind the last newline
                if (line := chain.read(raw, use, key)) is not None:
                    return line, ended
            return None, ended
    except FileNotFoundError:
        return None, True


def _backwards(file: BinaryIO, block: int = 1 << 16) -> Iterator[bytes]:
    """Pieces between newlines, the last first; none that lies behind LONGEST bytes of something else.

    Blocks double, so that a piece is put together in time linear in its length; and there is an end to it, or whoever
    appends a gigabyte would stop all work.
    """
    at, rest = file.seek(0, os.SEEK_END), b""
    end = max(0, at - LONGEST)
    while at > end:
        step = min(at, block)
        at, block = at - step, block * 2
        file.seek(at)
        rest, *others = (file.read(step) + rest).split(b"\n")
        yield from reversed(others)
    yield rest


# ------------------------------------------------------------------------------------------------------------- event


def _event(act: Act, observer: str) -> dict[str, Any]:
    """A FHIR R4 AuditEvent: type, recorded, agent.requestor and source.observer are required."""
    purpose = [{"coding": [{"system": f"{_CODES}/v3-ActReason", "code": act.purpose}]}] if act.purpose else []
    code, subtype = _TYPES.get(f"{act.kind} {act.action}") or _TYPES.get(act.kind) or (_REST, None)
    if code is _REST:
        name = "search" if act.kind == "search" else _INTERACTIONS[act.action]
        subtype = {"system": "http://hl7.org/fhir/restful-interaction", "code": name}
    agent: dict[str, Any] = {"who": {"identifier": {"value": act.who or _who()}}, "requestor": True}
    if act.action == "R" or act.kind == "search":
        agent["type"] = {"coding": [_RECIPIENT]}
    if act.role:
        agent["role"] = [{"text": act.role}]
    if purpose:
        agent["purposeOfUse"] = purpose
    made: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": str(uuid.uuid4()),
        "type": code,
        "subtype": [{"system": "urn:wardstream:act", "code": act.kind}, *([subtype] if subtype else [])],
        "action": act.action,
        "recorded": _now(),
        "outcome": act.outcome,
        "agent": [agent],
        "source": {"observer": {"identifier": {"value": observer}, "display": "wardstream"}},
    }
    if act.why:
        made["outcomeDesc"] = act.why
    if purpose:
        made["purposeOfEvent"] = purpose
    if entities := [*map(_patient, act.patients), *_things(act, code is _REST)]:
        made["entity"] = entities
    return made


def _patient(ref: str) -> dict[str, Any]:
    return {
        "what": {"type": "Patient", "identifier": {"value": ref}},
        "type": {"system": f"{_CODES}/audit-entity-type", "code": "1", "display": "Person"},
        "role": {"system": f"{_CODES}/object-role", "code": "1", "display": "Patient"},
    }


def _things(act: Act, rest: bool) -> Iterator[dict[str, Any]]:
    """What it was done to: one entity each; a search is an entity itself (BALP Query), by a hash of its words."""
    said = sorted((name, value) for name, value in act.detail.items() if value and name != "query")
    about = [("field", name) for name in act.fields] + said
    thing: dict[str, Any] = {"type": {"system": f"{_CODES}/audit-entity-type", "code": "2", "display": "System Object"}}
    if about:
        thing["detail"] = [{"type": name, "valueString": value} for name, value in about]
    if act.kind == "search":
        query = {"query": b64encode(act.detail["query"].encode()).decode()} if "query" in act.detail else {}
        yield {**query, "role": {"system": f"{_CODES}/object-role", "code": "24", "display": "Query"}, **thing}
    thing["role"] = {"system": f"{_CODES}/object-role", "code": "4", "display": "Domain Resource"}
    if not rest:
        thing["role"] = _SECURITY_RESOURCE
    if act.kind == "audit":  # PS3.15 A.5.3.2: ParticipantObjectName
        yield {"name": "Security Audit Log", **thing}
    elif about and not act.entities and act.kind != "search":
        yield thing
    for one in act.entities:
        yield {"what": {"identifier": {"value": one}}, **thing}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
