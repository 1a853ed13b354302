"""Removing a record's own identifiers from its free text, before the text is searchable in clear.

Found whatever the case, with any separators between the words of a name or the digits of a number. What is removed
leaves `[removed]`, so that a reader sees that something was there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

REMOVED = "[removed]"
_BETWEEN = re.compile(r"[\W_]+")
_ASCII_BETWEEN = {code: None for code in range(128) if not chr(code).isalnum()}
_WORD = re.compile(r"[^\W_]+")
_GAP = r"[\W_]*"
_SHORTEST_NUMBER = 4
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


class Scrubber:
    """Made once a record, since most texts contain none of its terms: those cost a look, not a substitution."""

    def __init__(self, terms: Iterable[str]) -> None:
        squeezed = {_squeeze(term): term for term in terms}
        self._terms = [
            (short, squeezed[short])
            for short in sorted(squeezed, key=len, reverse=True)
            if short and not (short.isdigit() and len(short) < _SHORTEST_NUMBER)
        ]

    def clean(self, text: str) -> str:
        squeezed = _squeeze(text)
        hits = [term for short, term in self._terms if short in squeezed]
        if hits:
            text = unicodedata.normalize("NFKC", text)
            for term in hits:
                text = _pattern(term).sub(REMOVED, text)
        return text


def _squeeze(text: str) -> str:
    """Letters and digits alone, case levelled: spaces and dashes hide nothing here."""
    if text.isascii():
        return text.lower() if text.isalnum() else text.lower().translate(_ASCII_BETWEEN)
    return _BETWEEN.sub("", unicodedata.normalize("NFKC", text).casefold())


def _pattern(term: str) -> re.Pattern[str]:
    if (digits := _squeeze(term)).isdigit():
        return re.compile(r"(?<!\d)\+?" + _GAP.join(digits) + r"(?!\d)")
    normal = unicodedata.normalize("NFKC", term)
    spellings = {normal, normal.casefold()}  # IGNORECASE alone does not take Strasse for Straße
    words = "|".join(_GAP.join(re.escape(word) for word in _WORD.findall(one)) for one in spellings)
    if _HAN.search(normal):  # these scripts put no space between words
        return re.compile(words, re.IGNORECASE)
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)
