"""Search: a query to a domain's index, ranked by BM25, with the places where it hit; as much as the caller may see."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from elasticsearch import ApiError
from elasticsearch import ConnectionError as ConnectionLost

from consumers import query as language
from consumers.access import Caller
from consumers.explain import Weight, weights
from infra.audit import Audit
from infra.crypto import blind_term, keyed_hash
from infra.elastic import away, client
from infra.errors import StackDown, UsageError
from infra.keyring import Keyring
from infra.keystore import KeyStore
from schemas import safe_harbor
from schemas.registry import DOMAINS, Domain
from schemas.safe_harbor import AGED, AGES, BESIDES, IN_A_YEAR, OLDEST, VALUES, WARDS

MARK = ("«", "»")
LARGEST = 10_000  # Elasticsearch's own bound on from + size
COUNTED = 100  # references looked at to see whether a group has as many persons as may be shown


@dataclass(frozen=True, slots=True)
class Hits:
    total: int | str  # "<11" for a group that a Safe Harbor view does not show
    hits: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Narrow:
    """What narrows a query: `filters` are field=value, exact; one kind; `since` is a span of time, such as 24h."""

    filters: Sequence[str] = ()
    kind: str | None = None
    since: str | None = None


EVERYTHING = Narrow()


def domain(name: str) -> Domain:
    """Raises UsageError for a domain that is not there."""
    if name not in DOMAINS:
        raise UsageError(f"there is no domain {name!r}: take one of {', '.join(DOMAINS)}")
    return DOMAINS[name]


def search(
    caller: Caller,
    text: str,
    of: Domain,
    narrow: Narrow = EVERYTHING,
    *,
    size: int = 20,
    sort: str | None = None,
    explain: bool = False,
    newest: bool = False,
) -> Hits:
    """Find documents. Newest first among equals; `sort` names a field, -field turns.

    Only fields that the caller may search count, only those that he or she may see come back, of patients who have not
    denied the purpose. Written into the audit before it is given. `explain` gives each hit the weights of its score.
    `newest` leaves out what was told again since.

    Raises UsageError for what cannot be asked, Denied for what may not be, and StackDown where no index answers.
    """
    if not 0 <= size <= LARGEST:
        raise UsageError(f"--size goes from 0 to {LARGEST}")
    if explain and caller.safe_harbor:
        caller.refuse("explain", "an explanation tells how many documents have a word: not in a Safe Harbor view")
    properties, may = of.mapping()["properties"], caller.fields(of, "see")
    wanted, asked = question(caller, text, of, narrow)
    # An order by time tells times; event ids are random, and so a fair choice among equals.
    order: list[Any] = ["_score", {"event_id": "asc"} if caller.safe_harbor else {"event_time": "desc"}]
    if sort is not None:
        order = [{language.field(sort.lstrip("-"), properties).name: "desc" if sort[0] == "-" else "asc"}]
        asked.add(_base(sort.lstrip("-")))
    caller.require(of, "search", asked)
    allowed = permitted(caller, wanted, asked)
    if newest:
        from consumers.versions import newest as without_older  # it asks as everybody does: by this file

        allowed = without_older(of, allowed)
    answer = ask(
        of,
        query=allowed,
        sort=order,
        size=size,
        track_total_hits=True,
        explain=explain,
        track_scores=explain,  # under an order of another kind too
        source_includes=sorted(may | BESIDES if caller.safe_harbor else may | {"patient_ref"}),
        highlight={
            "pre_tags": [MARK[0]],
            "post_tags": [MARK[1]],
            "require_field_match": False,
            "fields": {name: {} for name, one in properties.items() if one.get("copy_to") and name in may},
        },
        aggs={"persons": {"terms": {"field": "patient_ref", "size": COUNTED}}} if caller.safe_harbor else None,
    )
    found = Hits(answer["hits"]["total"]["value"], [_hit(one) for one in answer["hits"]["hits"]])
    refs = tuple(sorted({one["patient_ref"] for one in found.hits if "patient_ref" in one}))
    if caller.safe_harbor:
        found = _de_identified(found, answer["aggregations"]["persons"]["buckets"], of, may)
    elif "patient_ref" not in may:
        for one in found.hits:
            one.pop("patient_ref", None)
    said = {"query": hashed("query", text), "total": str(found.total)}
    Audit.local().write(caller.act("E", patients=refs if found.hits else (), fields=tuple(sorted(asked)), detail=said))
    return found


def question(caller: Caller, text: str, of: Domain, narrow: Narrow = EVERYTHING) -> tuple[dict[str, Any], set[str]]:
    """What is asked, as Elasticsearch takes it, and the fields that it asks about. Raises UsageError.

    `Caller.require` says whether the fields may be asked, `permitted` of whom. Here only what a Safe Harbor role may
    not ask whatever the field: a ward that reads like a place, which the view hides. Raises Denied.
    """
    properties = of.mapping()["properties"]
    wanted, asked = _wanted(caller, text, of)
    filters = [_filter(one, properties) for one in narrow.filters]
    exact = [(_base(name), value) for name, _, value in (one.partition("=") for one in narrow.filters)]
    asked |= {name for name, _ in exact}
    places = [name for name, value in (*language.pairs(text), *exact) if name in WARDS and safe_harbor.placed(value)]
    if caller.safe_harbor and places:
        caller.refuse("field", f"as {caller.role} you may not ask for a place", fields=tuple(places))
    if narrow.kind is not None:
        filters.append({"term": {"kind": narrow.kind}})
        asked.add("kind")
    if narrow.since is not None:
        filters.append({"range": {"event_time": {"gte": language.since(narrow.since)}}})
        asked.add("event_time")
    return {"bool": {"must": [wanted], "filter": filters}}, asked


def permitted(caller: Caller, wanted: dict[str, Any], asked: Collection[str]) -> dict[str, Any]:
    """A question, of those patients alone whom the caller may look at.

    A question for a value would tell, in a Safe Harbor view, what the view changes: those documents are left out.
    """
    hidden = _changed() if caller.safe_harbor and VALUES.intersection(asked) else []
    return {"bool": {"must": [wanted], "filter": [caller.persons().clause()], "must_not": hidden}}


def _changed() -> list[dict[str, Any]]:
    """At least the documents whose values `safe_harbor.view` changes: ages above 89, spans as long, and days."""
    numbers = [name for name in sorted(VALUES) if name != "value_code"]

    def above(limit: float, *also: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"bool": {"filter": [*also, {"range": {name: {"gt": limit}}}]}} for name in numbers]

    def exactly(name: str, words: Iterable[str]) -> dict[str, Any]:
        return {"bool": {"should": [{"term": {name: {"value": one, "case_insensitive": True}}} for one in words]}}

    aged = {"bool": {"should": [{"terms": {name: sorted(AGES)}} for name in ("code", "alternate_code")]}}
    named = [exactly("code", AGED), *({"match_phrase": {"display": one}} for one in AGED)]
    bare = {"bool": {"should": named, "must_not": [{"exists": {"field": "units"}}]}}
    by_length: dict[float, list[str]] = {}
    for unit, in_a_year in IN_A_YEAR.items():
        by_length.setdefault(in_a_year, []).append(unit)
    return [
        *above(OLDEST, aged),
        *above(OLDEST, bare),
        {"bool": {"filter": [{"bool": {"should": [aged, bare]}}, {"exists": {"field": "value_code"}}]}},
        *(one for n, units in by_length.items() for one in above(OLDEST * n, exactly("units", units))),
        *above(18_000_000, {"bool": {"must_not": [{"exists": {"field": "units"}}]}}),  # 20260301
        {"regexp": {"value_code": r"(18|19|20)[0-9]{6}.*|[0-9]{1,4}(\.|/|-)[0-9]{1,2}(\.|/|-)[0-9]{1,4}"}},
    ]


def _wanted(caller: Caller, text: str, of: Domain) -> tuple[dict[str, Any], set[str]]:
    """A query as Elasticsearch takes it, and the fields that it asks about. Numbers are looked for where one may."""
    may, blinds = caller.fields(of, "search"), Keyring.local().blinds.values()

    def terms(name: str, value: str) -> list[str]:
        return [blind_term(key, name, value) for key in blinds if name in may]

    sought = language.Sought(of.sought(), of.sought_together(), terms)
    wanted, asked = language.parse(text, of.mapping()["properties"], sought), language.asked(text)
    return wanted, asked - {language.IDENTIFIER} if may.intersection(of.sought()) else asked


@contextmanager
def answered(of: Domain) -> Iterator[None]:
    """What a person should hear where the index gives no answer. Raises StackDown, and UsageError for a bad value."""
    try:
        yield
    except ConnectionLost as error:
        raise away(error) from None
    except ApiError as error:
        if error.status_code == 404:
            raise StackDown(f"there is no index {of.alias}: run `wardstream up`") from None
        if error.status_code == 400:
            raise UsageError("Elasticsearch cannot run this query: is a value wrong for its field?") from None
        raise StackDown(f"Elasticsearch answers {error.status_code}") from None


def ask(of: Domain, **body: Any) -> Any:
    with answered(of), client() as server:
        return server.search(index=of.alias, **body)


def _de_identified(found: Hits, buckets: list[dict[str, Any]], of: Domain, may: Collection[str]) -> Hits:
    """Safe Harbor views, without ids and scores: a score tells how many documents have a value, to the last one."""
    _, keys = KeyStore.local()
    persons = {keys.survivor(one["key"]) for one in buckets}  # no fewer than 11 of at most COUNTED references
    assert isinstance(found.total, int)
    total = safe_harbor.total(found.total, len(persons))
    if isinstance(total, str):
        return Hits(total, [])
    marks = of.marks()
    views = (
        safe_harbor.view(one, marks, lambda ref: hashed("pseudonym", keys.survivor(ref))) for one in found.hits[:total]
    )
    return Hits(total, [{name: value for name, value in one.items() if name in may} for one in views])


def hashed(use: str, text: str) -> str:
    """128 bits of a keyed hash: tells equal ones, and nothing else without the key."""
    return keyed_hash(Keyring.local().identity, use.encode(), text.encode())[:16].hex()


def _base(name: str) -> str:
    return name.partition(".")[0]  # of display.keyword


def _filter(text: str, properties: dict[str, Any]) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise UsageError(f"a filter is field=value, and {text!r} is not")
    return language.field_clause(language.field(name, properties), value)


def _hit(one: dict[str, Any]) -> dict[str, Any]:
    made = {"id": one["_id"], "score": one["_score"], **one["_source"]}
    if "highlight" in one:
        made["highlight"] = one["highlight"]
    if "_explanation" in one:
        made["explanation"] = [weight.row() for weight in weights(one["_explanation"])]
    return made


def why(hit: dict[str, Any]) -> list[str]:
    """The lines of an explained score."""
    return [Weight(**row).line() for row in hit.get("explanation", ())]


def line(hit: dict[str, Any]) -> str:
    """What a hit says, on one line: where it hit, else its most telling fields."""
    if found := hit.get("highlight"):
        return " … ".join(piece for name in sorted(found) for piece in found[name])
    value = hit.get("value_number", hit.get("value_text") or hit.get("value_code"))
    image = (hit.get(name) for name in ("modality", "body_part", "study_description", "series_description"))
    parts = (
        *image,
        hit.get("display") or hit.get("code"),
        value,
        hit.get("units"),
        hit.get("body"),
        hit.get("state"),
        hit.get("processing"),
    )
    return " ".join(str(part) for part in parts if part not in (None, ""))
