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
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from infra.errors import UsageError
from schemas.blind import person_keys, split_person
from streams.ehr.notes import ASSERTIONS, expand

IDENTIFIER = "id"
HAS = "has"
TEXT = ("text", "display^2")  # what plain words are looked for in; a name of a thing counts twice
_TOKEN = re.compile(
    r"""\s*(?P<minus>-)?(?:(?P<field>[a-z_]+(?:\.keyword)?):)?(?:"(?P<phrase>[^"]*)"|(?P<word>[^\s"]+))(?=\s|$)"""
)
_RANGE = re.compile(r"(>=|<=|>|<)(.+)|(.+?)\.\.(.+)")
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_NUMERIC = frozenset(("integer", "double", "long"))
_HAN = re.compile(r"[\u3040-\u309f\u3400-\u9fff\uf900-\ufaff]")  # a token a character in the index
_SINCE = re.compile(r"(\d{1,5})([smhdw])")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the mapping as a query meets it."""

    name: str
    type: str


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
        (without if token["minus"] else must).append(_clause(token, properties, sought, said))
    return {"bool": {"must": must, "must_not": without} if must else {"must": {"match_all": {}}, "must_not": without}}


def asked(query: str) -> set[str]:
    """The fields that a query asks about, as it names them; for plain words those that they are looked for in."""
    found: set[str] = set()
    tokens, said = _meant(list(_TOKEN.finditer("" if query.strip() == "*" else query)))
    for token in tokens:
        name = token["field"]
        if name == HAS:
            found |= set(said)
        else:
            found |= {name.partition(".")[0]} if name else {one.partition("^")[0] for one in TEXT}
    return found


def _tokens(query: str) -> list[re.Match[str]]:
    made: list[re.Match[str]] = []
    at = 0
    while at < len(query):
        token = _TOKEN.match(query, at)
        if token is None:
            raise UsageError(f"the query cannot be read from its character {at + 1} on: is a quote open?")
        made.append(token)
        at = token.end()
    return made


def _meant(tokens: list[re.Match[str]]) -> tuple[list[re.Match[str]], list[str]]:
    """What is left without the modifiers of `has:`, and the assertions that they leave to it.

    Without a `has:` beside it -negated is a word as any other.
    """
    if not any(token["field"] == HAS for token in tokens):
        return tokens, []
    left = [token for token in tokens if _taken(token) is None]
    taken = {_taken(token) for token in tokens}
    return left, [name for name in ASSERTIONS if name not in taken]


def _taken(token: re.Match[str]) -> str | None:
    """The assertion that a modifier takes away."""
    bare = token["minus"] and not token["field"] and token["phrase"] is None
    return token["word"] if bare and token["word"] in ASSERTIONS else None


def _clause(
    token: re.Match[str], properties: Mapping[str, Any], sought: Sought, said: Collection[str]
) -> dict[str, Any]:
    name, phrase = token["field"], token["phrase"]
    value = token["word"] if phrase is None else phrase
    if not value.strip():
        raise UsageError("there is nothing between the quotes")
    if name == IDENTIFIER:
        return sought.clause(sought.numbers, value)
    if name == HAS:
        return _has(value, properties, said)
    if name in sought.numbers:
        return sought.clause([name], value)
    if name in sought.persons:
        return sought.person(name, value)
    if name is not None:
        return field_clause(field(name, properties), value, phrase is not None)
    kind = "phrase" if phrase is not None or _HAN.search(value) else "cross_fields"
    words = {"multi_match": {"query": value, "fields": list(TEXT), "type": kind, "operator": "and"}}
    if phrase is None and any(one.isdigit() for one in value):  # may be somebody's number
        return {"bool": {"should": [words, sought.clause(sought.numbers, value)]}}
    return words


def _has(value: str, properties: Mapping[str, Any], said: Collection[str]) -> dict[str, Any]:
    """Mentioned in any of these assertions, abbreviations written out as they are in the index."""
    if not said:
        raise UsageError("affirmed, negated, uncertain and family are all taken away: nothing is left to look in")
    fields = [field(name, properties).name for name in said]
    return {"multi_match": {"query": expand(value, asked=True), "fields": fields, "type": "phrase"}}


def field(name: str, properties: Mapping[str, Any]) -> Field:
    """A searchable field by name. Raises UsageError with the names that are near."""
    base, _, sub = name.partition(".")
    found = properties.get(base)
    if found is None or not found.get("enabled", True) or (sub and sub not in found.get("fields", {})):
        near = get_close_matches(base, properties, n=4)
        hint = f"; do you mean {', '.join(near)}?" if near else "; `wardstream search --fields` lists them"
        raise UsageError(f"there is no searchable field {name!r}{hint}")
    return Field(name, "keyword" if sub else found["type"])


def field_clause(target: Field, value: str, phrase: bool = False) -> dict[str, Any]:
    """`field:value`. Raises UsageError for a value that the field's type cannot hold."""
    if target.type == "text":
        if target.name in ASSERTIONS:
            written = expand(value, asked=True)
            value, phrase = written, phrase or written != value
        kind = "match_phrase" if phrase or _HAN.search(value) else "match"
        return {kind: {target.name: {"query": value}}}
    bounds = None if phrase else _RANGE.fullmatch(value)
    if bounds and target.type in _NUMERIC | {"date"}:
        if bounds[1]:
            limits = {_BOUNDS[bounds[1]]: _typed(target, bounds[2])}
        else:
            limits = {"gte": _typed(target, bounds[3]), "lte": _typed(target, bounds[4])}
        return {"range": {target.name: limits}}
    if target.type == "date":
        value = _typed(target, value)
        return {"range": {target.name: {"gte": value, "lte": value}}}  # a day means all of it
    return {"term": {target.name: {"value": _typed(target, value)}}}


def _typed(target: Field, value: str) -> Any:
    if target.type in _NUMERIC:
        try:
            return float(value) if target.type == "double" else int(value)
        except ValueError:
            raise UsageError(f"{target.name} is a number, and {value!r} is none") from None
    if target.type == "boolean":
        if value not in ("true", "false"):
            raise UsageError(f"{target.name} is true or false")
        return value == "true"
    if target.type == "date" and not re.fullmatch(r"\d{4}(-\d\d){0,2}(T[\d:.]+(Z|[+-]\d\d:\d\d)?)?|now[-+/\w]*", value):
        raise UsageError(f"{target.name} is a time, such as 2026-03-01 or 2026-03-01T08:00:00Z")
    return value


def since(text: str) -> str:
    """24h, 30m, 7d as Elasticsearch date math. Raises UsageError."""
    if not _SINCE.fullmatch(text):
        raise UsageError(f"{text!r} is no span of time: say 30m, 24h, 7d or 2w")
    return f"now-{text}"
