"""What the audit tells: who looked at whom, when and why; and whether the audit itself can be believed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from infra.audit import Audit, events


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as a person reads it."""

    at: str  # RFC 3339
    kind: str
    who: str
    role: str
    purpose: str
    outcome: str  # done, refused, failed
    why: str
    patients: tuple[str, ...]
    things: tuple[str, ...]
    fields: tuple[str, ...]


OUTCOMES = {"0": "done", "4": "refused", "8": "failed"}


def entries(
    patients: Collection[str] | None = None,
    kind: str | None = None,
    who: str | None = None,
    since: datetime | None = None,
) -> Iterator[Entry]:
    """Entries, oldest first: about any of these persons, of a kind, by an account, since a time; None is no limit."""
    for event in events(Audit.local().path):
        one = _entry(event)
        if patients is not None and not set(patients) & set(one.patients):
            continue
        if kind not in (None, one.kind) or who not in (None, one.who):
            continue
        if since is None or datetime.fromisoformat(one.at) >= since:
            yield one


def export(to: Path) -> int:
    """Write every AuditEvent as NDJSON; gives how many."""
    lines = [orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in events(Audit.local().path)]
    to.write_bytes(b"".join(lines))
    return len(lines)


def _entry(event: dict[str, Any]) -> Entry:
    agent = event["agent"][0]
    purposes = [coding["code"] for one in event.get("purposeOfEvent", ()) for coding in one["coding"]]
    persons = [one for one in event["entity"] if one["type"]["code"] == "1"]
    things = [one for one in event["entity"] if one["type"]["code"] != "1"]
    fields = dict.fromkeys(d["valueString"] for one in things for d in one.get("detail", ()) if d["type"] == "field")
    return Entry(
        at=event["recorded"],
        kind=event["subtype"][0]["code"],
        who=agent["who"]["identifier"]["value"],
        role="".join(coding["code"] for one in agent.get("role", ()) for coding in one["coding"]),
        purpose=",".join(purposes),
        outcome=OUTCOMES.get(event["outcome"], event["outcome"]),
        why=event.get("outcomeDesc", ""),
        patients=tuple(one["what"]["identifier"]["value"] for one in persons),
        things=tuple(one["what"]["identifier"]["value"] for one in things),
        fields=tuple(fields),
    )
