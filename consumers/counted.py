"""What Elasticsearch counts of a cohort that is too large to be read: the rows of `consumers.cohort`, by aggregation.

Documents are exact. Patients are counted by reference, merges not followed, and above 40,000 estimated (HyperLogLog++);
quantiles are t-digest's; rows say `"exact": false`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from consumers.cohort import NONE, Column, Row
from consumers.figures import LEVELS
from consumers.search import ask
from infra.errors import UsageError
from schemas.registry import Domain

PAGE = 5_000
COUNTED_WELL = 40_000  # Elasticsearch's largest precision_threshold
PATIENTS: Row = {"patients": {"cardinality": {"field": "patient_ref", "precision_threshold": COUNTED_WELL}}}


def total(of: Domain, query: Row) -> int:
    return int(ask(of, query=query, size=0, track_total_hits=True)["hits"]["total"]["value"])


def references(of: Domain, query: Row) -> set[str]:
    """Every reference that stands on a document of a query, however many there are."""
    return {one["key"]["patient_ref"] for one in buckets(of, query, {"patient_ref": "patient_ref"})}


def buckets(of: Domain, query: Row, sources: Mapping[str, str], inner: Row | None = None) -> Iterable[Row]:
    """Every combination of some fields' values, page by page. What a document lacks is None, beside others."""
    terms = [{n: {"terms": {"field": f, "missing_bucket": len(sources) > 1}}} for n, f in sources.items()]
    after: Row = {}
    while True:
        composite = {"size": PAGE, "sources": terms, **({"after": after} if after else {})}
        page = ask(
            of, query=query, size=0, aggs={"all": {"composite": composite, **({"aggs": inner} if inner else {})}}
        )
        found = page["aggregations"]["all"]
        yield from found["buckets"]
        if not (after := found.get("after_key")):
            return


def occurring(of: Domain, queries: Sequence[Row], among: Sequence[Column]) -> list[Column]:
    """The fields that some document has, in every one of the queries."""
    kept = list(among)
    for query in queries:
        aggs = {one.name: {"filter": {"exists": {"field": one.name}}} for one in kept}
        found = ask(of, query=query, size=0, aggs=aggs)["aggregations"] if kept else {}
        kept = [one for one in kept if found[one.name]["doc_count"]]
    return kept


def groups(of: Domain, query: Row, chosen: Sequence[Column], by: Column, top: int) -> list[Row]:
    name = _keyword(of, by.name)
    aggs = {"groups": {"terms": {"field": name, "size": top}, "aggs": PATIENTS}}
    aggs["none"] = {"missing": {"field": name}, "aggs": PATIENTS}
    found = ask(of, query=query, size=0, aggs=aggs)["aggregations"]
    each: list[tuple[str, Row, Row]] = [
        (str(one.get("key_as_string", one["key"])), one, {"term": {name: one["key"]}})
        for one in found["groups"]["buckets"]
    ]
    if found["none"]["doc_count"]:
        each.append((NONE, found["none"], {"bool": {"must_not": {"exists": {"field": name}}}}))
    return [
        {"group": said, **_counted(one), "fields": fields(of, {"bool": {"filter": [query, narrow]}}, chosen, top)}
        for said, one, narrow in each
    ]


def _counted(bucket: Row) -> Row:
    return {"documents": bucket["doc_count"], "patients": bucket["patients"]["value"]}


def fields(of: Domain, query: Row, chosen: Sequence[Column], top: int) -> list[Row]:
    """The rows of `cohort.describe`, as Elasticsearch counts them: patients by reference, quantiles by t-digest."""
    plain = [one for one in chosen if not one.units]
    aggs: Row = {"kinds": {"terms": {"field": "kind", "size": 1000}}}
    for one in plain:
        inner = {**PATIENTS, **_figures(of, one, top), "kinds": aggs["kinds"]}
        aggs[f"of {one.name}"] = {"filter": {"exists": {"field": one.name}}, "aggs": inner}
    found = ask(of, query=query, size=0, aggs=aggs)["aggregations"]
    kinds = _by_kind(found)
    made = []
    for one in plain:
        if (bucket := found[f"of {one.name}"])["doc_count"]:
            row = {"field": one.name, "type": one.type, **_counted(bucket)}
            carrying = sum(kinds.values())
            if one.kinds is not None:
                carrying = sum(count for kind, count in kinds.items() if kind in one.kinds | _by_kind(bucket).keys())
            made.append(row | _missing(carrying - row["documents"], carrying) | _told(bucket, one.type))
    return [*made, *(row for one in chosen if one.units for row in _measured(of, query, one, top))]


def _measured(of: Domain, query: Row, one: Column, top: int) -> list[Row]:
    """A row a code and unit."""
    query = {"bool": {"filter": [query, {"terms": {"kind": sorted(one.kinds or ())}}]}}
    sources = {"code_system": "code_system", "code": "code", **{name: name for name in one.units}}
    name = (
        {"name": {"terms": {"field": "display.keyword", "size": 1}}} if "display" in of.mapping()["properties"] else {}
    )
    inner = {"has": {"filter": {"exists": {"field": one.name}}, "aggs": {**PATIENTS, **_figures(of, one, top), **name}}}
    carrying: dict[tuple[Any, Any], int] = defaultdict(int)
    having: dict[tuple[Any, Any], int] = defaultdict(int)
    rows = []
    for bucket in buckets(of, query, sources, inner):
        key, has = bucket["key"], bucket["has"]
        code = key["code_system"], key["code"]
        carrying[code] += bucket["doc_count"]
        having[code] += has["doc_count"]
        if has["doc_count"]:
            units = next((key[unit] for unit in one.units if key[unit]), "")
            said = {"code_system": key["code_system"] or "", "code": key["code"] or "", "units": units}
            if name and (names := has["name"]["buckets"]):
                said["display"] = names[0]["key"]
            rows.append((code, {"field": one.name, "type": one.type, **_counted(has), **_told(has, one.type), **said}))
    rows.sort(key=lambda row: -row[1]["documents"])
    made = [row | _missing(carrying[code] - having[code], carrying[code]) for code, row in rows[:top]]
    if beyond := rows[top:]:
        others = sum(row["documents"] for _, row in beyond)
        made.append({"field": one.name, "type": "others", "documents": others, "codes": len(beyond)})
    return made


def _figures(of: Domain, one: Column, top: int) -> Row:
    name = _keyword(of, one.name)
    match one.type:
        case "number":
            percents = [100 * share for share in LEVELS.values()]
            return {
                "stats": {"extended_stats": {"field": name}},
                "levels": {"percentiles": {"field": name, "percents": percents, "keyed": False}},
            }
        case "category":
            return {
                "top": {"terms": {"field": name, "size": top}, "aggs": PATIENTS},
                "distinct": {"cardinality": {"field": name, "precision_threshold": COUNTED_WELL}},
            }
        case "time":
            return {"first": {"min": {"field": name}}, "last": {"max": {"field": name}}}
    return {}


def _told(bucket: Row, kind: str) -> Row:
    if kind == "number":
        found, whole = bucket["stats"], bucket["stats"]["count"]
        sd = found["std_deviation_sampling"] if whole > 1 else None
        made: Row = {"exact": False, "mean": found["avg"], "sd": sd, "min": found["min"], "max": found["max"]}
        return made | dict(zip(LEVELS, (one["value"] for one in bucket["levels"]["values"]), strict=True))
    if kind == "category":
        whole = bucket["doc_count"]
        values = [
            {
                "value": str(one.get("key_as_string", one["key"])),
                **_counted(one),
                "share": round(one["doc_count"] / whole, 4),
            }
            for one in bucket["top"]["buckets"]
        ]
        others = bucket["top"]["sum_other_doc_count"]
        made = {"values": values, "distinct": bucket["distinct"]["value"]}
        return made | ({"others": {"documents": others, "share": round(others / whole, 4)}} if others else {})
    if kind == "time":
        return {"first": bucket["first"]["value_as_string"], "last": bucket["last"]["value_as_string"]}
    return {}


def trend(of: Domain, query: Row, chosen: Sequence[Column], step: str) -> list[Row]:
    number = chosen[0] if chosen and chosen[0].type == "number" else None
    inner = dict(PATIENTS)
    if number is not None:
        inner["median"] = {"percentiles": {"field": number.name, "percents": [50], "keyed": False}}
        if number.units and len(_measured(of, query, number, 2)) > 1:
            raise UsageError(f"{number.name} is here of several codes or units: choose one, code:... units:...")
    over = {"date_histogram": {"field": "event_time", "calendar_interval": step, "format": "yyyy-MM-dd"}, "aggs": inner}
    made = []
    for one in ask(of, query=query, size=0, aggs={"over": over})["aggregations"]["over"]["buckets"]:
        row = {"from": one["key_as_string"][: 7 if step == "month" else 10], **_counted(one)}
        made.append(row | ({"median": one["median"]["values"][0]["value"]} if number is not None else {}))
    return made


def _missing(missing: int, carrying: int) -> Row:
    return {"missing": missing, "missing_share": missing / carrying if carrying else 0.0}


def _by_kind(bucket: Row) -> dict[str, int]:
    return {one["key"]: one["doc_count"] for one in bucket["kinds"]["buckets"]}


def _keyword(of: Domain, name: str) -> str:
    return f"{name}.keyword" if of.mapping()["properties"][name].get("fields") else name
