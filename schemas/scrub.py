"""Removing what identifies somebody from free text, before the text is searchable in clear.

A record's own identifiers go however they are spelt: in any case, with any separators between words or digits, split,
in either order, without their accents. What `schemas.deidentify` finds goes as well, whosever it is. What is removed
leaves `[removed]`, so that a reader sees that something was there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from schemas.deidentify import identifiers
from schemas.span import REMOVED, Span, redact

__all__ = ["REMOVED", "Scrubber"]

_BETWEEN = re.compile(r"[\W_]+")
_ASCII_BETWEEN = {code: None for code in range(128) if not chr(code).isalnum()}
_WORD = re.compile(r"[^\W_]+")
_SHORTEST_NUMBER = 4
_SHORTEST_WORD, _LONG_NUMBER = 3, 6  # in a code: a post code of five digits is a procedure's, too (CPT)
_SHORTEST_SPLIT = 5  # letters: "Ana" is not looked for in "a Na of 130"
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_SENTENCE = re.compile(r"[.,;:!?]\s")
_BEFORE = re.compile(r"(?<!\w)(?:[^\W\d_]\.[ -]?){1,3}\Z")  # A. Meier
_AFTER = re.compile(r",? ?[^\W\d_]\.(?=[\s,;)]|\Z)")  # Meier, A.
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "æ": "ae", "œ": "oe"})


class Scrubber:
    """Made once a record, since most texts contain none of its terms: those cost a look, not a substitution."""

    def __init__(self, terms: Iterable[str]) -> None:
        squeezed = {short: term for term in terms for short in _spellings(term)}
        self._terms = [
            (short, squeezed[short])
            for short in sorted(squeezed, key=len, reverse=True)
            if short and not (short.isdigit() and len(short) < _SHORTEST_NUMBER)
        ]

    def clean(self, text: str) -> str:
        normal = text if text.isascii() else unicodedata.normalize("NFKC", text)
        spans = self.spans(normal)
        return redact(normal, spans) if spans else text

    def clean_own(self, text: str) -> str:
        """Without the record's own terms alone: for a word of a vocabulary, in which a maker's name is no person's."""
        normal = text if text.isascii() else unicodedata.normalize("NFKC", text)
        spans = self._own_spans(normal)
        return redact(normal, spans) if spans else text

    def holds(self, code: str) -> bool:
        """Whether one of the record's own terms stands in a code: a word, or a number long enough to be no accident."""
        squeezed = _squeeze(code)
        hits = [
            (short, term)
            for short, term in self._terms
            if short in squeezed
            and (len(short) >= (_LONG_NUMBER if short.isdigit() else _SHORTEST_WORD) or _HAN.search(short))
        ]
        return bool(hits) and any(_own(code, hits))

    def spans(self, text: str) -> list[Span]:
        """What of a text, in NFKC, identifies: the record's own terms, and what does so by itself."""
        return identifiers(text) + self._own_spans(text)

    def _own_spans(self, text: str) -> list[Span]:
        squeezed = _squeeze(text)
        hits = [(short, term) for short, term in self._terms if short in squeezed]
        return list(_own(text, hits)) if hits else []


def _squeeze(text: str) -> str:
    """Letters and digits alone, case levelled, accents off: spaces and dashes hide nothing here."""
    if text.isascii():
        return text.lower() if text.isalnum() else text.lower().translate(_ASCII_BETWEEN)
    return _BETWEEN.sub("", unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text)).casefold())


def _spellings(term: str) -> Iterator[str]:
    yield _squeeze(term)
    if not term.isascii():  # Müller is also written Mueller
        yield _squeeze(unicodedata.normalize("NFKC", term).casefold().translate(_UMLAUTS))


def _own(text: str, hits: Iterable[tuple[str, str]]) -> Iterator[Span]:
    """Where the terms stand in the text as written."""
    letters: list[str] = []
    places: list[int] = []
    for place, char in enumerate(text):
        for letter in _squeeze(char):
            letters.append(letter)
            places.append(place)
    squeezed = "".join(letters)
    for short, term in hits:
        words = [_squeeze(word) for word in _WORD.findall(unicodedata.normalize("NFKC", term))]
        at = squeezed.find(short)
        while at >= 0:
            start, end = places[at], places[at + len(short) - 1] + 1
            if stands := _stands(text, start, end, short, words):
                yield stands
            at = squeezed.find(short, at + (len(short) if stands else 1))


def _stands(text: str, start: int, end: int, short: str, words: list[str]) -> Span | None:
    """The span of a term, where it is one: not within a longer word or number, and not put together from words."""
    before, after = text[start - 1 : start], text[end : end + 1]
    if short.isdigit():
        if before.isdecimal() or after.isdecimal():
            return None
        return Span(start - (before == "+"), end, "own")
    if _HAN.search(short):  # these scripts put no space between words
        return Span(start, end, "own")
    if len(short) >= _SHORTEST_NUMBER and after in ("s", "S") and not text[end + 1 : end + 2].isalnum():  # Meiers
        end, after = end + 1, ""
    if _joins(before) or _joins(after):
        return None
    written = [_squeeze(word) for word in _WORD.findall(text, start, end)]
    whole = len(written) == 1 or written == words or all(len(word) == 1 for word in written)
    if not whole and (len(short) < _SHORTEST_SPLIT or _SENTENCE.search(text, start, end)):
        return None
    if initials := _BEFORE.search(text, max(0, start - 12), start):
        start = initials.start()
    if initial := _AFTER.match(text, end):
        end = initial.end()
    return Span(start, end, "own")


def _joins(char: str) -> bool:
    return char.isalnum() and not _HAN.match(char)
