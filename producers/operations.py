"""Operations events at the edge: files of JSON, NDJSON and CSV, each object or row one event (docs/operations.md,
docs/quality.md)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.errors import BadMessage
from infra.settings import settings
from producers.feeds.folder import Item, first_byte, of_each, read_lines
from producers.publish import Arrival
from schemas.wire import operations as events
from schemas.wire.fhir import canonical, load

DOMAINS = tuple(dict.fromkeys(one.domain for one in events.TYPES.values()))
JSON = (".json",)
LINES = (".ndjson", ".jsonl")
CSV = (".csv",)
PRICED = ("payer", "code_system", "code", "valid_from")  # which price it is: the one event that needs no time
ENDINGS = JSON + LINES + CSV
Take = Callable[[Mapping[str, Any], datetime], Arrival]


def arrival(said: Mapping[str, Any], name: str, defaults: Mapping[str, str], received_at: datetime) -> Arrival:
    """`name` stands for the sending system; `defaults` are fields (type, site) that the event need not repeat.

    Raises BadMessage: an event that cannot be read stays with the sender.
    """
    said = {**defaults, **{field: value for field, value in said.items() if value != ""}}
    source = f"operations:{name}"
    event = events.read(said, source)
    body = canonical(said)
    if len(body) > settings().mllp_max_bytes:
        raise BadMessage("too_large")
    at = said.get("at", "")
    return Arrival(
        domain=events.TYPES[event.type].domain,
        source=source,
        peer="*|*",
        content_type=events.CONTENT_TYPE,
        charset="",
        ids=(event.site, event.type, event.id, str(at)) if event.id and at else (),
        body=body,
        received_at=received_at,
        event_time=event.at,
        subjects=event.subjects,
        site=event.site,
        latest_of=() if at else (event.site, *(str(said.get(name, "")) for name in ("type", *PRICED))),
    )


def items(found: Iterable[Path], take: Take) -> Iterator[Item]:
    """Everything in files, in order: by ending, and where that tells nothing by the first byte."""
    return of_each(found, lambda path: _of(path, take), "no_event")


def _of(path: Path, take: Take) -> Iterator[Item]:
    suffix = path.suffix.lower()
    if suffix in LINES:
        yield from _lines(path, take)
    elif suffix in JSON or (suffix not in CSV and first_byte(path) in (b"{", b"[")):
        yield from _document(path, take)
    else:
        yield from _rows(path, take)


def listed(body: bytes) -> list[dict[str, Any]]:
    """The events of a JSON document: one object, or an array of them. Raises BadMessage."""
    if not body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return [load(body)]
    found = load(b'{"events":' + body.removeprefix(b"\xef\xbb\xbf") + b"}")["events"]
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadMessage("bad_json")
    return found


def _document(path: Path, take: Take) -> Iterator[Item]:
    if path.stat().st_size > settings().fhir_max_bytes:
        raise BadMessage("too_large")
    for position, one in enumerate(listed(path.read_bytes())):
        yield _item(path, position, one, take)


def _lines(path: Path, take: Take) -> Iterator[Item]:
    """One event a line; a bad line is refused, and the next is read."""
    for position, line in enumerate(read_lines(path, settings().mllp_max_bytes)):
        if line is None:
            yield Item(path, position, "", BadMessage("too_large"))
        elif line.strip():
            try:
                said = load(line)
            except BadMessage as bad:
                yield Item(path, position, "", bad)
                continue
            yield _item(path, position, said, take)


def _rows(path: Path, take: Take) -> Iterator[Item]:
    """One event a row under a header that names its fields; an empty value says nothing."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            names = [name.strip() for name in next(rows, [])]
            if not names or not all(names) or len(set(names)) != len(names):
                raise BadMessage("bad_csv", "header")
            for position, row in enumerate(row for row in rows if any(row)):
                if len(row) > len(names):
                    yield Item(path, position, "", BadMessage("bad_csv", "row"))
                    continue
                said = {name: value.strip() for name, value in zip(names, row, strict=False)}
                yield _item(path, position, {name: value for name, value in said.items() if value}, take)
    except UnicodeDecodeError:
        raise BadMessage("bad_charset") from None
    except csv.Error:
        raise BadMessage("bad_csv", "row") from None


def _item(path: Path, position: int, said: Mapping[str, Any], take: Take) -> Item:
    kind = said.get("type")
    made: Arrival | BadMessage
    try:
        made = take(said, datetime.now(UTC))
    except BadMessage as bad:
        made = bad
    except Exception as error:  # a fault of ours that one row brings out; the rest goes on. Its text may tell
        made = BadMessage("unexpected", type(error).__name__)
    return Item(path, position, kind if isinstance(kind, str) and kind in events.TYPES else "", made)
