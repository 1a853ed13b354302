"""Patients like one, or like a text: an approximate search over reduced vectors, ranked again by the exact cosine.

Beside it Elasticsearch's own more_like_this on the documents, so that a user sees what each of the two finds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from elasticsearch import ApiError, Elasticsearch, NotFoundError
from elasticsearch import ConnectionError as ConnectionLost

from consumers import profiles
from consumers.access import Caller
from consumers.consent import Persons
from consumers.person import family
from consumers.search import hashed
from infra.audit import Audit
from infra.elastic import away, client
from infra.errors import StackDown, UsageError
from infra.keystore import KeyStore
from schemas.similar import OF, version
from streams.ehr import similar

MOST = 100  # patients that one may ask for
CANDIDATES = 2000  # of the approximate search, ranked again; docs/similar.md has what was measured
WIDE = 2500  # places that the search looks at to find them
REASONS = 8
LIKE_CHARACTERS = 100_000  # of a patient's text; more_like_this takes its 25 most telling words
ASKS = ("text", *profiles.FIELDS, "code", "code_system")
TRIES = 3  # a refit may drop what a question has just found
BESIDE = ("sex", "age")


@dataclass(frozen=True, slots=True)
class Found:
    """`similar` by cosine, `more_like_this` by Elasticsearch's score; `waiting`: patients with news not in it yet."""

    version: str
    similar: list[dict[str, Any]]
    more_like_this: list[dict[str, Any]]
    waiting: int


def of_patient(caller: Caller, said: str, k: int = 10) -> Found:
    """Who is most like this patient, as `consumers.person` knows him or her.

    Raises UsageError for nobody, for a patient of whom nothing comparable is told, and before the first fit; Denied.
    """
    _allowed(caller, k)
    _, keys = KeyStore.local()
    refs = family(said, keys, caller)
    caller.require_persons(refs)
    return _found(caller, keys, refs, None, k)


def of_text(caller: Caller, text: str, k: int = 10) -> Found:
    """Whose record reads most like this text. Raises as `of_patient` does."""
    _allowed(caller, k)
    return _found(caller, KeyStore.local()[1], frozenset(), text, k)


def fit(caller: Caller) -> profiles.Fitted:
    """Fit a new vocabulary, and swap it for the live one. Raises UsageError for too few patients; Denied, StackDown."""
    _allowed(caller, 1)
    Audit.local().write(caller.act("E", detail={"step": "fit", "model": "similar"}))
    _, keys = KeyStore.local()
    try:
        with client() as server:
            return profiles.refit(server, keys, caller.persons(), caller.account)
    except ConnectionLost as error:
        raise away(error) from None
    except (NotFoundError, profiles.IndexGone):
        raise UsageError("another fit was under way, and has won") from None
    except ApiError as error:
        raise StackDown(f"Elasticsearch answers {error.status_code}") from None


def _allowed(caller: Caller, k: int) -> None:
    """Raises Denied for who may not read text and codes: whom a record is like tells of both."""
    if not 1 <= k <= MOST:
        raise UsageError(f"--k goes from 1 to {MOST}")
    if caller.safe_harbor:
        caller.refuse("safe_harbor", f"as {caller.role} you may not ask for single patients")
    for verb in ("search", "see"):
        caller.require(OF, verb, ASKS)


def _found(caller: Caller, keys: KeyStore, refs: frozenset[str], text: str | None, k: int) -> Found:
    persons = caller.persons()
    try:
        with client() as server:
            for attempt in range(TRIES):
                try:
                    found = _ask(server, caller, keys, persons, refs, text, k)
                    break
                except (NotFoundError, profiles.IndexGone):
                    if attempt == TRIES - 1:
                        raise StackDown("vocabularies are changing all the time: ask again") from None
    except ConnectionLost as error:
        raise away(error) from None
    except ApiError as error:
        raise StackDown(f"Elasticsearch answers {error.status_code}") from None
    shown = {one["patient_ref"] for one in (*found.similar, *found.more_like_this)}
    said = {"method": f"similar {found.version}", "total": str(len(shown))}
    if text is not None:
        said["query"] = hashed("query", text)
    Audit.local().write(caller.act("E", patients=tuple(sorted(shown | refs)), fields=ASKS, detail=said))
    return found


def _ask(
    server: Elasticsearch,
    caller: Caller,
    keys: KeyStore,
    persons: Persons,
    refs: frozenset[str],
    text: str | None,
    k: int,
) -> Found:
    name, model = profiles.live(server)
    waiting = profiles.bring_forward(server, keys, name, model)
    told = [{"body": text}] if text is not None else list(profiles.documents(server, refs))
    bags = similar.Bags(profiles.FIELDS)
    for document in told:
        bags.add("", document)
    query = model.weights(model.known(bags.terms, bags.counts())) if told else None
    if query is None or not query.nnz:
        raise UsageError(f"nothing in {'this text' if text is not None else 'this record'} is in the vocabulary")
    others = {"bool": {"must_not": [{"terms": {"patient_ref": sorted(refs)}}], "filter": [persons.clause()]}}
    permitted = _Once(keys, persons, refs, k)
    near = permitted.take(nearest(server, name, model, query, others), "cosine")
    like = permitted.take(_more_like(server, told, others, k), "score")
    beside = _beside(server, keys, {one["patient_ref"] for one in (*near, *like)}, caller.fields(OF, "see"))
    near, like = ([one | beside.get(one["patient_ref"], {}) for one in some] for some in (near, like))
    return Found(version(name), near, like, waiting)


@dataclass(frozen=True, slots=True)
class _Once:
    """Each person once, by the surviving reference, and nobody who may not be shown."""

    keys: KeyStore
    persons: Persons
    without: frozenset[str]
    k: int

    def take(self, ranked: Iterable[tuple[str, float, dict[str, Any]]], figure: str) -> list[dict[str, Any]]:
        made: dict[str, dict[str, Any]] = {}
        for ref, value, more in ranked:
            survivor = self.keys.survivor(ref)
            if survivor in made or survivor in self.without or not self.persons.permits(ref):
                continue
            made[survivor] = {"rank": len(made) + 1, "patient_ref": survivor, figure: value, **more}
            if len(made) == self.k:
                break
        return list(made.values())


def nearest(
    server: Elasticsearch, name: str, model: similar.Model, query: Any, others: dict[str, Any]
) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Candidates by the reduced vector, in the order of their exact cosines, those that share nothing left out."""
    (vector,) = model.vectors(query)
    if vector is None:
        return
    knn = {"field": "vector", "query_vector": vector, "k": CANDIDATES, "num_candidates": WIDE, "filter": others}
    answer = server.search(index=name, knn=knn, size=CANDIDATES, source_includes=["patient_ref", "terms"])
    sources = [hit["_source"] for hit in answer["hits"]["hits"]]
    rows = model.weights(model.matrix([(one["terms"]["ids"], one["terms"]["counts"]) for one in sources]))
    values = similar.cosines(query, rows)
    for at in sorted(range(len(sources)), key=lambda at: (-values[at], sources[at]["patient_ref"])):
        if values[at] > 0:
            reasons = similar.why(query, rows[at], model.terms, REASONS)
            why = [{"term": term, "adds": round(adds, 6)} for term, adds in reasons]
            yield sources[at]["patient_ref"], round(values[at], 6), {"why": why}


def _more_like(
    server: Elasticsearch, told: Iterable[dict[str, Any]], others: dict[str, Any], k: int
) -> list[tuple[str, float, dict[str, Any]]]:
    """The best document of each patient, by more_like_this on all free text."""
    like, left = [], LIKE_CHARACTERS
    for text in _texts(told):
        if left <= 0:
            break
        like.append(text[:left])
        left -= len(text)
    if not like:
        return []
    wanted = {"fields": ["text"], "like": like, "min_term_freq": 1, "min_doc_freq": similar.SMALLEST}
    answer = server.search(
        index=OF.alias,
        query={
            "bool": {"must": [{"more_like_this": wanted}], "filter": [others, {"exists": {"field": "patient_ref"}}]}
        },
        collapse={"field": "patient_ref"},
        size=2 * k,  # aliases of one person are several here
        source_includes=["patient_ref"],
    )
    return [(hit["_source"]["patient_ref"], round(hit["_score"], 3), {}) for hit in answer["hits"]["hits"]]


def _texts(told: Iterable[dict[str, Any]]) -> Iterable[str]:
    for document in told:
        for name in profiles.FIELDS:
            value = document.get(name) or ()
            yield from [value] if isinstance(value, str) else value


def _beside(
    server: Elasticsearch, keys: KeyStore, shown: Collection[str], may: frozenset[str]
) -> dict[str, dict[str, Any]]:
    """Sex and age of each patient as the last event told them, as far as the caller may see them."""
    of = {ref: survivor for survivor in shown for ref in keys.family(survivor)}
    wanted = sorted(may.intersection(BESIDE))
    if not of or not wanted:
        return {}
    told = [{"exists": {"field": name}} for name in wanted]
    answer = server.search(
        index=OF.alias,
        query={"bool": {"filter": [{"terms": {"patient_ref": sorted(of)}}, profiles.EVENTS], "should": told,
                        "minimum_should_match": 1}},
        collapse={"field": "patient_ref"},
        sort=[{"event_time": "desc"}],
        size=len(of),
        source_includes=["patient_ref", *wanted],
    )  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    for hit in answer["hits"]["hits"]:
        source = hit["_source"]
        found.setdefault(of[source.pop("patient_ref")], source)
    return found
