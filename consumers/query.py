"""The search language: what a person types becomes an Elasticsearch query. Pure.

chest pain              both words, in any text
"chest pain"            the phrase; words of Chinese are one without quotes
has:diabetes            said of the patient or a relative, as it may be: affirmed, denied, doubted
has:"chest pain" -negated -uncertain -family     the same, but for what is only denied, doubted, or said of relatives
affirmed:"chest pain"   in what a note affirms of the patient; so negated:, uncertain:, family:
unit:ICU                a field; several words of text in it as unit:"..."
value_number:>=5        a range: < <= > >= or from..to, on numbers and times
-pneumonia  -unit:ED    without it
id:00471199             exact look-up of a number (patient, visit, account, order, control id), by its keyed hash
visit_number:4711       the same in one field alone
name:"Anna Meier 1980-01-02"   a person, by name and date of birth together

Typed in a word processor it means the same: any double quotes, any dash for the minus, Unit: ICU. What looks like
more of a language than there is (OR, diab*, unit=ICU, -negatd) is an error: as words it would find something else.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from math import isfinite
from typing import Any

from infra.errors import UsageError
from schemas.blind import person_keys, split_person
from streams.ehr.notes import ASSERTIONS, expand

IDENTIFIER = "id"
HAS = "has"
TEXT = ("text", "display^2")  # what plain words are looked for in; a name of a thing counts twice
_QUOTES = '"\u201c\u201d\u201e\u201f\u00ab\u00bb\uff02'  # as word processors make them, in several languages
_DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212"
_NAME = r"(?:[^\W\d][\w.-]*)"
_TOKEN = re.compile(
    rf"""\s*(?P<minus>[{_DASHES}])?(?:(?P<field>{_NAME})[:\uff1a](?P<blank>\s*))?"""
    rf"""(?:[{_QUOTES}](?P<phrase>[^{_QUOTES}]*)[{_QUOTES}]|(?P<word>[^\s{_QUOTES}]+))(?=\s|$)"""
)
_FIELD = re.compile(rf"[{_DASHES}]?{_NAME}[:\uff1a].*", re.DOTALL)
_EMPTY = re.compile(rf"({_NAME})[:\uff1a]")
_COMPARED = re.compile(r"([a-z_]+)(?:[<>]=?|[=\u2264\u2265]).*")
_OPERATORS = {
    "AND": "all words are wanted anyway",
    "OR": "there is none: ask twice",
    "NOT": "write -word",
}
_RANGE = re.compile(r"(>=|<=|>|<)(.+)|(.+?)\.\.(.+)")
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_WRITTEN = str.maketrans({"\u2264": "<=", "\u2265": ">=", "\u2026": "..", **dict.fromkeys(_DASHES[1:], "-")})
_DAY = re.compile(r"\d{4}(?:-\d\d){0,2}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d(?::\d\d(?::\d\d(?:\.\d{1,9})?)?)?(?:Z|[+-]\d\d:\d\d)?")
_STEP = re.compile(r"([+-]\d{1,6})([yMwdhHms])")
_DAYS = {"y": 365.2425, "M": 30.436875, "w": 7, "d": 1, "h": 1 / 24, "H": 1 / 24, "m": 1 / 1440, "s": 1 / 86_400}
_NOW = re.compile(r"now(?:[+-]\d{1,6}[yMwdhHms])*(?:/[yMwdhHms])?")
_NUMERIC = frozenset(("integer", "double", "long"))
_HAN = re.compile(r"[\u3040-\u309f\u3400-\u9fff\uf900-\ufaff]")  # a token a character in the index
_SINCE = re.compile(r"(\d{1,5})([smhdw])")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the mapping as a query meets it."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a query: what is asked, of which field (in small letters; empty for words), with or without."""

    value: str
    field: str = ""
    minus: bool = False
    phrase: bool = False


@dataclass(frozen=True, slots=True)
class Sought:
    """Sealed fields that can be looked up, and how: `terms` gives the keyed hashes of a field's value."""

    numbers: Collection[str]
    persons: Collection[str]  # fields of names, each hashed with the date of birth
    terms: Callable[[str, str], list[str]]

    def clause(self, fields: Collection[str], value: str) -> dict[str, Any]:
        return {"terms": {"blind": [term for name in fields for term in self.terms(name, value)], "boost": 10}}

    def person(self, name: str, value: str) -> dict[str, Any]:
        """Raises UsageError where the date is missing: names alone are too few to be hashed safely."""
        said, date = split_person(value)
        if not said or not date:
            raise UsageError(f'{name} is asked for with the date of birth: {name}:"Anna Meier 1980-01-02"')
        terms = [term for key in person_keys(said, date) for term in self.terms(name, key)]
        return {"terms": {"blind": terms, "boost": 10}}


def parse(query: str, properties: Mapping[str, Any], sought: Sought) -> dict[str, Any]:
    """A bool query. Raises UsageError that says what is wrong and where."""
    must: list[dict[str, Any]] = []
    without: list[dict[str, Any]] = []
    query = query.strip()
    if not query:
        raise UsageError('an empty query finds nothing: give a word, "a phrase" or field:value; * is everything')
    if query == "*":
        return {"match_all": {}}
    tokens, said = _meant(_tokens(query))
    for token in tokens:
        (without if token.minus else must).append(_clause(token, properties, sought, said))
    return {"bool": {"must": must, "must_not": without} if must else {"must": {"match_all": {}}, "must_not": without}}


def asked(query: str) -> set[str]:
    """The fields that a query asks about, by name; for plain words those that they are looked for in.

    Raises UsageError as `parse` does for what cannot be read.
    """
    found: set[str] = set()
    tokens, said = _meant(_tokens("" if query.strip() == "*" else query))
    for token in tokens:
        if token.field == HAS:
            found |= set(said)
        else:
            found |= {token.field.partition(".")[0]} if token.field else {one.partition("^")[0] for one in TEXT}
    return found


def pairs(query: str) -> list[tuple[str, str]]:
    """Fields that a query names, sub-fields by their field, each with what is asked of it."""
    return [(one.field.partition(".")[0], one.value) for one in _tokens(query) if one.field]


def _tokens(query: str) -> list[Token]:
    made: list[Token] = []
    query, at = query.rstrip(), 0
    while at < len(query):
        found = _TOKEN.match(query, at)
        if found is None:
            raise UsageError(f"the query cannot be read from its character {at + 1} on: is a quote open?")
        made.append(_token(found))
        at = found.end()
    return made


def _token(found: re.Match[str]) -> Token:
    """Raises UsageError for a field without a value, and for a value that looks like the next field."""
    name, word = (found["field"] or "").lower(), found["word"]
    if word is None:
        return Token(found["phrase"], name, bool(found["minus"]), True)
    if bare := None if name else _EMPTY.fullmatch(word):
        raise UsageError(f"{bare[1]}: has no value")
    if found["blank"] and _FIELD.fullmatch(word):
        raise UsageError(f"{name}: has no value; one with a colon in it goes in quotes")
    return Token(word, name, bool(found["minus"]))


def _meant(tokens: list[Token]) -> tuple[list[Token], list[str]]:
    """What is left without the modifiers of `has:`, and the assertions that they leave to it.

    Without a `has:` beside it -negated is a word as any other.
    """
    if not any(token.field == HAS for token in tokens):
        return tokens, []
    left = [token for token in tokens if _taken(token) is None]
    taken = {_taken(token) for token in tokens}
    return left, [name for name in ASSERTIONS if name not in taken]


def _taken(token: Token) -> str | None:
    """The assertion that a modifier takes away. Raises UsageError for one that is nearly written so."""
    word = token.value.lower()
    if not token.minus or token.field or token.phrase:
        return None
    if word not in ASSERTIONS and (near := get_close_matches(word, ASSERTIONS, n=1, cutoff=0.85)):
        raise UsageError(f'do you mean -{near[0]}? As a word that must not be there: -"{token.value}"')
    return word if word in ASSERTIONS else None


def _clause(token: Token, properties: Mapping[str, Any], sought: Sought, said: Collection[str]) -> dict[str, Any]:
    name, value = token.field, token.value
    if token.phrase and not value.strip():
        raise UsageError("there is nothing between the quotes")
    if not name:
        return _words(token, properties, sought)
    if name == IDENTIFIER:
        return sought.clause(sought.numbers, value)
    if name in sought.numbers:
        return sought.clause([name], value)
    if name in sought.persons:
        return sought.person(name, value)
    if name == HAS:
        _unsigned(token)
        return _has(value, properties, said)
    target = field(name, properties, (*sought.numbers, *sought.persons, IDENTIFIER, HAS))
    if target.type not in _NUMERIC | {"date"}:
        _unsigned(token)
    return field_clause(target, value, token.phrase)


def _unsigned(token: Token) -> None:
    """Raises UsageError where the minus stands behind the field: has:-fever would find those who have it."""
    if not token.phrase and token.value[0] in _DASHES:
        name, value = token.field, token.value.lstrip(_DASHES)
        raise UsageError(f'the minus stands before the field: -{name}:{value}. As part of the value: {name}:"-{value}"')


def _words(token: Token, properties: Mapping[str, Any], sought: Sought) -> dict[str, Any]:
    value = token.value
    if not token.phrase:
        _plain(token, properties)
    kind = "phrase" if token.phrase or _HAN.search(value) else "cross_fields"
    words = {"multi_match": {"query": value, "fields": list(TEXT), "type": kind, "operator": "and"}}
    if not token.phrase and any(one.isdigit() for one in value):  # may be somebody's number
        return {"bool": {"should": [words, sought.clause(sought.numbers, value)]}}
    return words


def _plain(token: Token, properties: Mapping[str, Any]) -> None:
    """Raises UsageError for what is no word but meant to say something. In quotes all of it is text."""
    word = token.value
    if word in _OPERATORS:
        raise UsageError(f'{word} is no operator here, {_OPERATORS[word]}; the word itself goes in quotes: "{word}"')
    if not any(one.isalnum() for one in word):
        raise UsageError(f"{word!r} has neither letter nor digit; a minus stands right before what must not be there")
    if token.minus and word.startswith("("):
        raise UsageError("there are no brackets: each word that must not be there has a minus of its own")
    if len(word) > 1 and "*" in (word[0], word[-1]):
        raise UsageError(f'{word!r}: there are no wildcards, only whole words; a star itself goes in quotes: "{word}"')
    if (found := _COMPARED.fullmatch(word.lower())) and found[1] in properties:
        value = word[len(found[1]) :].translate(_WRITTEN).lstrip("=")
        raise UsageError(f"a field is asked with a colon: {found[1]}:{value}")


def _has(value: str, properties: Mapping[str, Any], said: Collection[str]) -> dict[str, Any]:
    """Mentioned in any of these assertions, abbreviations written out as they are in the index."""
    if not said:
        raise UsageError("affirmed, negated, uncertain and family are all taken away: nothing is left to look in")
    fields = [field(name, properties).name for name in said]
    return {"multi_match": {"query": expand(value, asked=True), "fields": fields, "type": "phrase"}}


def field(name: str, properties: Mapping[str, Any], others: Collection[str] = ()) -> Field:
    """A searchable field by name. Raises UsageError with the names that are near; `others` are names beside them."""
    base, _, sub = name.partition(".")
    found = properties.get(base)
    if found is None or not found.get("enabled", True) or (sub and sub not in found.get("fields", {})):
        names = [*(one for one, of in properties.items() if of.get("enabled", True)), *others]
        near = list(dict.fromkeys(get_close_matches(base.lower(), names, n=4)))
        hint = f"do you mean {', '.join(near)}?" if near else "`wardstream search --fields` lists them."
        text = " Text with a colon goes in quotes." if others else ""
        raise UsageError(f"there is no searchable field {name!r}: {hint}{text}")
    return Field(name, "keyword" if sub else found["type"])


def field_clause(target: Field, value: str, phrase: bool = False) -> dict[str, Any]:
    """`field:value`. Raises UsageError for a value that the field's type cannot hold, and for a range turned round."""
    if target.type == "text":
        if target.name in ASSERTIONS:
            written = expand(value, asked=True)
            value, phrase = written, phrase or written != value
        kind = "match_phrase" if phrase or _HAN.search(value) else "match"
        return {kind: {target.name: {"query": value}}}
    if target.type in _NUMERIC | {"date"}:
        value = value.translate(_WRITTEN)
        if bounds := None if phrase else _RANGE.fullmatch(value):
            if bounds[1]:
                return {"range": {target.name: {_BOUNDS[bounds[1]]: _typed(target, bounds[2])}}}
            low, high = _typed(target, bounds[3]), _typed(target, bounds[4])
            if _turned(low, high):
                raise UsageError(f"the range is turned round: {target.name}:{bounds[4]}..{bounds[3]}")
            return {"range": {target.name: {"gte": low, "lte": high}}}
    elif not phrase and (bounds := _RANGE.fullmatch(value)) and bounds[2] != "=":  # of a comparator
        raise UsageError(
            f'{target.name} is no number and no time, and has no range; as it stands: {target.name}:"{value}"'
        )
    if target.type == "date":
        value = _typed(target, value)
        return {"range": {target.name: {"gte": value, "lte": value}}}  # a day means all of it
    return {"term": {target.name: {"value": _typed(target, value)}}}


def _typed(target: Field, value: str) -> Any:
    if target.type in _NUMERIC:
        try:
            made = float(value) if target.type == "double" else int(value)
            if not isfinite(made):
                raise ValueError
        except ValueError:
            raise UsageError(f"{target.name} is a number, and {value!r} is none; a range is 5..7 or >=5") from None
        return made
    if target.type == "boolean":
        if value.lower() not in ("true", "false"):
            raise UsageError(f"{target.name} is true or false")
        return value.lower() == "true"
    if target.type == "date" and not _NOW.fullmatch(value):
        if not _DAY.fullmatch(value) and not _INSTANT.fullmatch(value):
            raise UsageError(f"{target.name} is a time, such as 2026-03-01 or 2026-03-01T08:00:00Z")
        try:
            _span(value)
        except ValueError:
            raise UsageError(f"{target.name}: there is no {value}") from None
    return value


def _turned(low: Any, high: Any) -> bool:
    """Whether nothing can be between; False where only a clock would tell."""
    if not isinstance(low, str):
        return bool(low > high)
    if low.startswith("now") or high.startswith("now"):
        first, last = _from_now(low), _from_now(high)
        return first is not None and last is not None and first > last
    return _span(low)[0] > _span(high)[1]


def _from_now(value: str) -> timedelta | None:
    """How far from now, months and years by their mean; None for a day, and for what is rounded to one."""
    if not value.startswith("now") or "/" in value:
        return None
    return sum((int(count) * timedelta(days=_DAYS[unit]) for count, unit in _STEP.findall(value)), timedelta())


def _span(value: str) -> tuple[datetime, datetime]:
    """The first and the last instant of a year, month, day or time; UTC where no zone is said. Raises ValueError."""
    if "T" in value:
        at = datetime.fromisoformat(value)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return at, at
    year, month, day = (int(one) if one else None for one in (*value.split("-"), "", "")[:3])
    assert year is not None
    first = datetime(year, month if month is not None else 1, day if day is not None else 1, tzinfo=UTC)
    until = first.replace(month=12) if month is None else first
    until = until.replace(day=monthrange(year, until.month)[1]) if day is None else until
    return first, until.replace(hour=23, minute=59, second=59, microsecond=999_999)


def since(text: str) -> str:
    """24h, 30m, 7d as Elasticsearch date math. Raises UsageError."""
    if not _SINCE.fullmatch(text):
        raise UsageError(f"{text!r} is no span of time: say 30m, 24h, 7d or 2w")
    return f"now-{text}"
