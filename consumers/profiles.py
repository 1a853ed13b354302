"""Profiles of patients in their index: made of a domain's documents, kept up with them, made anew by a fit.

No process keeps them up: a question brings the index forward first. How far it has read is a sequence number of the
domain's index: they grow as documents are written, while times of reception do not. Merges move no document, so the
families of the key store are compared as well.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from elasticsearch import Elasticsearch, NotFoundError
from elasticsearch.helpers import scan

from consumers.consent import TERMS, Persons
from infra.elastic import SETTINGS
from infra.errors import StackDown, UsageError
from infra.keystore import KeyStore
from schemas.envelope import rfc3339
from schemas.similar import ALIAS, OF, PLACE, UNFITTED, index, mapping, version
from streams.ehr.similar import SMALLEST, Bags, Model, bag, fit, text_fields
from streams.models import Card, Data, Models

FIELDS = text_fields(OF.marks())
READ = (*FIELDS, "code", "code_system", "patient_ref", "received_at")
AT_ONCE = 500  # patients brought forward by one question, a second or two
WRITTEN_AT_ONCE = 500
SCANNED = 5000
EVENTS = {"range": {"part": {"gte": 0}}}  # entities tell nothing that the events have not told


class IndexGone(Exception):
    """A newer vocabulary has taken this index's place, and it was deleted."""


@dataclass(slots=True)
class Fitted:
    """What a fit has made."""

    version: str
    patients: int  # with a profile
    fitted_on: int  # of them: those who permit the purpose
    terms: int
    dimensions: int
    seconds: float


@dataclass(slots=True)
class _Read:
    """Profiles by survivor as they are read, and when the newest document of each was received."""

    bags: Bags = field(default_factory=lambda: Bags(FIELDS))
    until: dict[str, str] = field(default_factory=dict)

    def add(self, ref: str, document: Mapping[str, Any]) -> None:
        self.bags.add(ref, document)
        self.until[ref] = max(self.until.get(ref, ""), document.get("received_at", ""))


# ---------------------------------------------------------------------------------------------------------------- read


def documents(server: Elasticsearch, refs: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
    """What the domain's index tells of these patients, or of all: the fields that profiles are made of."""
    if refs is None:
        query: dict[str, Any] = {"bool": {"filter": [EVENTS, {"exists": {"field": "patient_ref"}}]}}
        yield from _scan(server, OF.alias, query, READ)
        return
    rest = iter(sorted(refs))
    while some := list(islice(rest, TERMS)):
        query = {"bool": {"filter": [EVENTS, {"terms": {"patient_ref": some}}]}}
        yield from _scan(server, OF.alias, query, READ)


def _scan(
    server: Elasticsearch, where: str, query: dict[str, Any], fields: Sequence[str] | bool
) -> Iterator[dict[str, Any]]:
    for hit in scan(server, index=where, query={"query": query}, size=SCANNED, _source=fields):
        yield hit["_source"]


# ----------------------------------------------------------------------------------------------------------------- fit


def refit(server: Elasticsearch, keys: KeyStore, permitted: Persons, by: str) -> Fitted:
    """Fit a new vocabulary, fill its index beside the live one, then move the alias; the old one goes.

    Vocabulary and weights are learnt from those who permit the purpose; each patient gets a profile in them. Questions
    go on meanwhile, and miss nothing: the index has its own place, and a question brings it forward from there.

    Raises UsageError for too few patients, StackDown.
    """
    began, asked_at = time.monotonic(), _now()
    stands = _stands(server)
    read, merged = _Read(), keys.merged()
    for document in documents(server):
        ref = document["patient_ref"]
        read.add(merged.get(ref, ref), document)
    refs, terms, counts = read.bags.refs, read.bags.terms, read.bags.counts()
    learnt_from = [row for row, ref in enumerate(refs) if permitted.permits(ref)]
    model = fit(terms, counts[learnt_from])
    made = Models.local().add(ALIAS, model.kept(), _card(model, [read.until[refs[row]] for row in learnt_from], by))
    filled = False
    try:
        server.indices.create(index=index(made), mappings=mapping(model.dimensions), settings=SETTINGS)
        known = model.known(terms, counts)
        _fill(server, keys, index(made), model, refs, known, _families(merged), read.until, asked_at)
        _put_place(server, index(made), *stands)
        _take_back(server, keys, index(made), refs)
        _move(server, index(made))
        filled = True
    finally:
        if not filled:
            server.indices.delete(index=index(made), ignore_unavailable=True)
    figures = (len(refs), len(learnt_from), len(model.terms), model.dimensions)
    return Fitted(made, *figures, round(time.monotonic() - began, 1))


def _card(model: Model, until: Sequence[str], by: str) -> Card:
    kinds = Counter("code" if "|" in term else "word" for term in model.terms)
    return Card(
        algorithm="TfidfTransformer, TruncatedSVD",
        target="similar patients",
        trained_at=rfc3339(datetime.now(UTC)),
        trained_by=by,
        data=Data(rows=len(until), patients=len(until), first=min(until), last=max(until)),
        features=dict(kinds),
        notes=(f"terms of at least {SMALLEST} patients; the alias {ALIAS} says which version answers",),
    )


def sources(
    model: Model,
    refs: Sequence[str],
    counts: Any,
    families: Mapping[str, frozenset[str]],
    until: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    """Profiles as the index keeps them: one a row of `counts`, which are in the vocabulary."""
    ends = counts.indptr
    for row, (ref, vector) in enumerate(zip(refs, model.vectors(model.weights(counts)), strict=True)):
        of_row = slice(ends[row], ends[row + 1])
        source = {
            "patient_ref": ref,
            "terms": {"ids": counts.indices[of_row].tolist(), "counts": counts.data[of_row].tolist()},
            "vector": vector,
            "until": until.get(ref),
            "merged": sorted(families.get(ref, ())),
        }
        yield {name: value for name, value in source.items() if value}


def _fill(
    server: Elasticsearch,
    keys: KeyStore,
    into: str,
    model: Model,
    refs: Sequence[str],
    counts: Any,
    families: Mapping[str, frozenset[str]],
    until: Mapping[str, str],
    asked_at: int,
) -> None:
    """Write profiles of what was read from `asked_at` on, those of erased persons left out."""
    for at in range(0, len(refs), WRITTEN_AT_ONCE):
        some = refs[at : at + WRITTEN_AT_ONCE]
        gone = keys.erased(some)
        made = sources(model, some, counts[at : at + WRITTEN_AT_ONCE], families, until)
        write(server, into, [one for one in made if one["patient_ref"] not in gone], asked_at)


def _now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def write(server: Elasticsearch, into: str, written: Sequence[dict[str, Any]], asked_at: int | None = None) -> None:
    """Write profiles; of two writers the one that read later wins. Raises IndexGone, StackDown."""
    if not written:
        return
    at = _now() if asked_at is None else asked_at
    lines: list[dict[str, Any]] = []
    for source in written:
        named = {"_id": source["patient_ref"], "version": at, "version_type": "external_gte"}
        lines += ({"index": named}, source)
    answer = server.bulk(index=into, operations=lines)
    statuses = {item["index"]["status"] for item in answer["items"]}
    if 404 in statuses:  # the index was dropped by another fit meanwhile
        raise IndexGone(into)
    if bad := statuses - {200, 201, 409}:
        raise StackDown(f"Elasticsearch answers {max(bad)}")


def _take_back(server: Elasticsearch, keys: KeyStore, where: str, refs: Collection[str]) -> None:
    """Somebody may have been erased while we wrote, by an erasure that found nothing here yet."""
    if gone := keys.erased(refs):
        _remove(server, where, gone)
    server.indices.refresh(index=where)


def _remove(server: Elasticsearch, where: str, refs: Iterable[str]) -> None:
    server.bulk(index=where, operations=[{"delete": {"_id": one}} for one in sorted(refs)])


def _move(server: Elasticsearch, into: str) -> None:
    old = [name for name in server.indices.get_alias(name=ALIAS).body if name != into]
    moves: list[dict[str, Any]] = [{"remove": {"index": name, "alias": ALIAS}} for name in old]
    server.indices.update_aliases(actions=[*moves, {"add": {"index": into, "alias": ALIAS, "is_write_index": True}}])
    for name in _indices(server):  # those that killed fits have left, too
        if name != into:
            server.indices.delete(index=name, ignore_unavailable=True)


def _indices(server: Elasticsearch) -> list[str]:
    return sorted(server.indices.get(index=f"{ALIAS}-*", filter_path="*.aliases").body)


# ------------------------------------------------------------------------------------------------------------ keep up


def live(server: Elasticsearch) -> tuple[str, Model]:
    """The index behind the alias and its vocabulary. Raises UsageError before the first fit."""
    try:
        (name,) = server.indices.get_alias(name=ALIAS).body
    except NotFoundError:
        raise StackDown(f"there is no index {ALIAS}: run `wardstream up`") from None
    if version(name) == UNFITTED:
        raise UsageError("no vocabulary was fitted yet: `wardstream similar --fit`")
    return name, Model.of(Models.local().load(ALIAS, version(name)))


def bring_forward(server: Elasticsearch, keys: KeyStore, name: str, model: Model) -> int:
    """Make anew the profiles of patients of whom something came, AT_ONCE at most; gives how many still wait."""
    source, reached = _stands(server)
    place = server.get(index=name, id=PLACE, source_includes=["read_index", "read_to"])["_source"]
    read_to = place["read_to"] if place["read_index"] == source else -1  # a rebuilt index counts anew
    families = _families(keys.merged())
    changed = _changed(server, name, families)
    todo, read_to = _came(server, read_to, reached, set(islice(changed, AT_ONCE)))
    if todo:
        _renew(server, keys, name, model, todo)
    if (source, read_to) != (place["read_index"], place["read_to"]):
        _put_place(server, name, source, read_to)
    late = 0 if read_to == reached else _waiting(server, read_to)
    return late + max(0, len(changed) - AT_ONCE)


def _stands(server: Elasticsearch) -> tuple[str, int]:
    """The domain's index, and the sequence number up to which all of it can be found from now on."""
    (name,) = server.indices.get_alias(name=OF.alias).body
    shards = server.indices.stats(index=name, level="shards")["indices"][name]["shards"]
    (shard,) = shards.values()  # one, by SETTINGS: numbers of several would not be one order
    reached = next(copy["seq_no"]["local_checkpoint"] for copy in shard if copy["routing"]["primary"])
    server.indices.refresh(index=name)
    return name, reached


def _put_place(server: Elasticsearch, name: str, source: str, read_to: int) -> None:
    server.index(index=name, id=PLACE, document={"read_index": source, "read_to": read_to})


def _families(merged: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Every merged person's references, by the survivor."""
    found: dict[str, set[str]] = {}
    for ref, survivor in merged.items():
        found.setdefault(survivor, {survivor}).add(ref)
    return {survivor: frozenset(refs) for survivor, refs in found.items()}


def _changed(server: Elasticsearch, name: str, families: Mapping[str, frozenset[str]]) -> list[str]:
    """References whose family is another one than when their profile was made."""
    query = {"exists": {"field": "merged"}}
    there = {
        one["patient_ref"]: frozenset(one["merged"]) for one in _scan(server, name, query, ["patient_ref", "merged"])
    }
    return sorted(
        {ref for one in there.keys() | families.keys() if there.get(one) != families.get(one)
         for ref in there.get(one, frozenset()) | families.get(one, frozenset())}
    )  # fmt: skip


def _came(server: Elasticsearch, read_to: int, reached: int, todo: set[str]) -> tuple[set[str], int]:
    """`todo` with the patients of what was written since `read_to`, until there are enough; and how far that is."""
    while read_to < reached:
        hits = server.search(
            index=OF.alias,
            query={"bool": {"filter": [EVENTS, {"range": {"_seq_no": {"gt": read_to, "lte": reached}}}]}},
            sort=["_seq_no"],
            size=SCANNED,
            source_includes=["patient_ref"],
        )["hits"]["hits"]
        for hit in hits:
            ref = hit["_source"].get("patient_ref")
            if ref is not None and ref not in todo:
                if len(todo) >= AT_ONCE:
                    return todo, read_to
                todo.add(ref)
            read_to = hit["sort"][0]
        if len(hits) < SCANNED:
            return todo, reached
    return todo, read_to


def _waiting(server: Elasticsearch, read_to: int) -> int:
    answer = server.search(
        index=OF.alias,
        query={"bool": {"filter": [EVENTS, {"range": {"_seq_no": {"gt": read_to}}}]}},
        size=0,
        aggs={"persons": {"cardinality": {"field": "patient_ref"}}},
    )
    return int(answer["aggregations"]["persons"]["value"])


def _renew(server: Elasticsearch, keys: KeyStore, name: str, model: Model, touched: Collection[str]) -> None:
    merged, asked_at = keys.merged(), _now()
    families = _families(merged)
    survivors = {merged.get(ref, ref) for ref in touched} - keys.erased(touched)
    read = _Read()
    for ref in sorted(survivors):
        read.bags.add_bag(ref, bag({}, ()))  # a row also for one of whom nothing is left
    members = {ref for one in survivors for ref in families.get(one, {one})}
    for document in documents(server, members):
        ref = document["patient_ref"]
        read.add(merged.get(ref, ref), document)
    refs = read.bags.refs
    known = model.known(read.bags.terms, read.bags.counts())
    _fill(server, keys, name, model, refs, known, families, read.until, asked_at)
    if aliases := {*members, *touched} - survivors:
        _remove(server, name, aliases)
    _take_back(server, keys, name, refs)
