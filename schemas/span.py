"""A stretch of text that identifies somebody, and what is left where it stood."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

REMOVED = "[removed]"
_YEAR = re.compile(r"(?:18|19|20)\d\d")


class Span(NamedTuple):
    start: int
    end: int
    kind: str  # name, address, date, age, phone, mail, id, web, net; own: one of the record's terms


def redact(text: str, spans: Iterable[Span]) -> str:
    """The text with every span replaced; those that overlap get one mark. A date leaves its year, an age "90+"."""
    made: list[str] = []
    last = 0
    for span in _merged(spans):
        made += (text[last : span.start], _mark(span.kind, text[span.start : span.end]))
        last = span.end
    made.append(text[last:])
    return "".join(made)


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start < merged[-1].end:
            before = merged[-1]
            kind = before.kind if before.kind == span.kind else "several"
            merged[-1] = Span(before.start, max(before.end, span.end), kind)
        else:
            merged.append(span)
    return merged


def _mark(kind: str, said: str) -> str:
    if kind == "age":
        return "90+"
    if kind == "date" and (years := _YEAR.findall(said)):
        return f"{REMOVED} {years[0] if said.startswith(years[0]) else years[-1]}"
    return REMOVED
