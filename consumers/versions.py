"""A resource or a result that was told again counts once: the newest version stands, the others are left out.

Events are never changed, so an index holds every version. `version_of` is equal for all of one resource (FHIR: its id
on its server) or of one result (HL7 v2: OBR-3, OBX-3, OBX-4 and its time, of one patient); the newest is what was told
last. It is asked of the whole index: a value that was corrected is not found by what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from consumers.search import ask
from infra.elastic import scan
from schemas.envelope import document_id
from schemas.registry import Domain
from streams.ehr.fhir import SOURCE

AT_ONCE = 10_000  # below index.max_terms_count and search.max_buckets, both 65,536
TOLD = ("version_of", "told_at", "received_at", "event_id", "part", "source")
Row = dict[str, Any]


def newest(of: Domain, query: Row) -> Row:
    """The query, without documents of which a newer version is in the index. Costs time by what the query finds."""
    events: set[str] = set()
    documents: set[str] = set()
    for some in _chunks(sorted(_things(of, query))):
        for versions in _several(of, some):
            stands = max((one["told_at"], one["received_at"], one["event_id"]) for one in versions)[2]
            for one in versions:
                if one["event_id"] == stands:
                    continue
                if one["source"].startswith(SOURCE):  # a resource with all its parts
                    events.add(one["event_id"])
                else:
                    documents.add(document_id(one["event_id"], one["part"]))
    older: list[Row] = [{"terms": {"event_id": some}} for some in _chunks(sorted(events))]
    older = [{"bool": {"filter": [one, {"range": {"part": {"gte": 0}}}]}} for one in older]  # no entity has versions
    older += [{"ids": {"values": some}} for some in _chunks(sorted(documents))]
    return {"bool": {"must": [query], "must_not": older}} if older else query


def _things(of: Domain, query: Row) -> set[str]:
    """All that the query finds and that has versions; of a resource its first document says so, and is asked for."""
    found: set[str] = set()
    unsaid: set[str] = set()
    for page in scan(of.alias, query, ("version_of", "event_id", "source")):
        found.update(one["version_of"] for one in page if "version_of" in one)
        unsaid.update(
            one["event_id"] for one in page if "version_of" not in one and one.get("source", "").startswith(SOURCE)
        )
    for some in _chunks(sorted(unsaid)):
        first = {"bool": {"filter": [{"ids": {"values": [document_id(one, 0) for one in some]}}]}}
        for page in scan(of.alias, first, ("version_of",)):
            found.update(one["version_of"] for one in page if "version_of" in one)
    return found


def _several(of: Domain, things: Sequence[str]) -> Iterator[list[Row]]:
    """All documents that say what they are a version of, of each thing that has more than one."""
    among: Row = {"terms": {"version_of": things}}
    aggs = {"things": {"terms": {"field": "version_of", "size": len(things), "min_doc_count": 2}}}
    buckets = ask(of, query=among, size=0, aggs=aggs)["aggregations"]["things"]["buckets"]
    told: dict[str, list[Row]] = {one["key"]: [] for one in buckets}
    if told:
        for page in scan(of.alias, {"terms": {"version_of": sorted(told)}}, TOLD):
            for one in page:
                told[one["version_of"]].append(one)
    yield from told.values()


def _chunks(values: Sequence[str]) -> Iterator[list[str]]:
    return (list(values[at : at + AT_ONCE]) for at in range(0, len(values), AT_ONCE))
