"""What the audit tells: who looked at whom, when and why; and whether it can be believed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from consumers import query
from infra import audit, chain
from infra.errors import UsageError
from infra.keyring import Keyring
from infra.settings import settings

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_OUTCOMES = {"0": "done", "4": "refused", "8": "failed", "12": "failed"}  # FHIR audit-event-outcome


@dataclass(frozen=True, slots=True)
class Row:
    """One AuditEvent as a person reads it."""

    id: str
    when: str  # RFC 3339, UTC
    who: str
    role: str
    purpose: str
    kind: str
    outcome: str  # done, refused, failed
    why: str  # reason code of what was not done
    fields: tuple[str, ...]
    patients: tuple[str, ...]
    entities: tuple[str, ...]


def entries(
    *,
    kind: str | None = None,
    who: str | None = None,
    since: str | None = None,
    patients: Collection[str] | None = None,
) -> Iterator[Row]:
    """Rows, oldest first: of a kind, of an account, of the last 30m, 24h or 7d, about any of these references.

    Raises UsageError for a span of time that is none.
    """
    start = _start(since) if since else ""
    for event in audit.events(audit.log_of(settings().home)):
        row = _row(event)
        if kind not in (None, row.kind) or who not in (None, row.who) or row.when < start:
            continue
        if patients is None or not set(patients).isdisjoint(row.patients):
            yield row


def export(to: Path) -> int:
    """Every AuditEvent as FHIR NDJSON into a new file, mode 0600; gives how many. Raises UsageError."""
    try:
        with open(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            count = 0
            for event in audit.events(audit.log_of(settings().home)):
                file.write(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))
                count += 1
            return count
    except OSError as error:
        raise UsageError(f"the file cannot be made: {error.strerror}") from None


def verify(key: Path | None, advance: Callable[[int, int], None]) -> tuple[chain.Verdict, Ed25519PublicKey]:
    """Judge the log by its heads, under the public key in `key`, else under our own; gives the key as well.

    With a key given nothing secret is read, so that an outsider can do it on copies of the two folders. `advance` is
    told bytes done and bytes in all. Raises UsageError for a file that holds no such key.
    """
    log, anchor = audit.log_of(settings().home), audit.anchor()
    heads, public = anchor / "heads.jsonl", anchor / "audit.pub"
    judge = _public_key(key) if key else Keyring.local().signing_key().public_key()
    bounds = audit.sizes(log, heads)
    done = 0

    def told(lines: Iterable[bytes]) -> Iterator[bytes]:
        nonlocal done
        for line in lines:
            done += len(line)
            advance(done, sum(bounds))
            yield line

    found = chain.verify(told(audit.lines(log, bounds[0])), told(audit.lines(heads, bounds[1])), judge)
    if public.exists() and public.read_bytes() != audit.pem(judge):
        found.faults.append(chain.Fault("heads", "another_key", 1, found.anchored))
    return found, judge


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError):
        raise UsageError("--key names a file with an Ed25519 public key in PEM, such as audit.pub") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError("--key holds a key of another kind than Ed25519")
    return key


def _start(span: str) -> str:
    query.since(span)
    ago = timedelta(**{_UNITS[span[-1]]: int(span[:-1])})
    return (datetime.now(UTC) - ago).isoformat(timespec="milliseconds")


def _row(event: dict[str, Any]) -> Row:
    agent = event["agent"][0]
    entities = [one for one in event.get("entity", ()) if "what" in one]
    patients = [one for one in entities if one["type"]["code"] == "1"]
    details = [said for one in event.get("entity", ()) for said in one.get("detail", ())]
    return Row(
        id=event["id"],
        when=event["recorded"],
        who=agent["who"]["identifier"]["value"],
        role="".join(one["text"] for one in agent.get("role", ())),
        purpose="".join(one["coding"][0]["code"] for one in event.get("purposeOfEvent", ())),
        kind=event["subtype"][0]["code"],
        outcome=_OUTCOMES[event["outcome"]],
        why=event.get("outcomeDesc", ""),
        fields=tuple(dict.fromkeys(said["valueString"] for said in details if said["type"] == "field")),
        patients=tuple(one["what"]["identifier"]["value"] for one in patients),
        entities=tuple(one["what"]["identifier"]["value"] for one in entities if one not in patients),
    )
