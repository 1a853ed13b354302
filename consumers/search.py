"""Search: a query to a domain's index, ranked by BM25, with the places where it hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from elasticsearch import ApiError
from elasticsearch import ConnectionError as ConnectionLost

from consumers import query as language
from infra.crypto import blind_term
from infra.elastic import client
from infra.errors import StackDown, UsageError
from infra.keyring import Keyring
from schemas.registry import DOMAINS, Domain

MARK = ("«", "»")
LARGEST = 10_000  # Elasticsearch's own bound on from + size


@dataclass(frozen=True, slots=True)
class Hits:
    total: int
    hits: list[dict[str, Any]]


def domain(name: str) -> Domain:
    """Raises UsageError for a domain that is not there."""
    if name not in DOMAINS:
        raise UsageError(f"there is no domain {name!r}: take one of {', '.join(DOMAINS)}")
    return DOMAINS[name]


def search(
    text: str,
    of: Domain,
    *,
    filters: Sequence[str] = (),
    kind: str | None = None,
    since: str | None = None,
    size: int = 20,
    sort: str | None = None,
) -> Hits:
    """Find documents. `filters` are field=value, exact. Newest first among equals; `sort` names a field, -field turns.

    Raises UsageError for what cannot be asked and StackDown where no index answers.
    """
    properties = of.mapping()["properties"]
    if not 0 <= size <= LARGEST:
        raise UsageError(f"--size goes from 0 to {LARGEST}")
    blinds = Keyring.local().blinds.values()
    sought = language.Sought(
        of.sought(), of.sought_together(), lambda name, value: [blind_term(key, name, value) for key in blinds]
    )
    wanted = language.parse(text, properties, sought)
    narrow = [_filter(one, properties) for one in filters]
    if kind is not None:
        narrow.append({"term": {"kind": kind}})
    if since is not None:
        narrow.append({"range": {"event_time": {"gte": language.since(since)}}})
    order: list[Any] = ["_score", {"event_time": "desc"}]
    if sort is not None:
        order = [{language.field(sort.lstrip("-"), properties).name: "desc" if sort[0] == "-" else "asc"}]
    try:
        with client() as server:
            answer = server.search(
                index=of.alias,
                query={"bool": {"must": [wanted], "filter": narrow}},
                sort=order,
                size=size,
                track_total_hits=True,
                source_excludes=["sealed", "folded", "blind"],
                highlight={
                    "pre_tags": [MARK[0]],
                    "post_tags": [MARK[1]],
                    "require_field_match": False,
                    "fields": {name: {} for name, one in properties.items() if one.get("copy_to")},
                },
            )
    except ConnectionLost:
        raise StackDown("Elasticsearch does not answer") from None
    except ApiError as error:
        if error.status_code == 404:
            raise StackDown(f"there is no index {of.alias}: run `wardstream up`") from None
        if error.status_code == 400:
            raise UsageError("Elasticsearch cannot run this query: is a value wrong for its field?") from None
        raise StackDown(f"Elasticsearch answers {error.status_code}") from None
    return Hits(answer["hits"]["total"]["value"], [_hit(one) for one in answer["hits"]["hits"]])


def _filter(text: str, properties: dict[str, Any]) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise UsageError(f"a filter is field=value, and {text!r} is not")
    return language.field_clause(language.field(name, properties), value)


def _hit(one: dict[str, Any]) -> dict[str, Any]:
    made = {"id": one["_id"], "score": one["_score"], **one["_source"]}
    if "highlight" in one:
        made["highlight"] = one["highlight"]
    return made


def line(hit: dict[str, Any]) -> str:
    """What a hit says, on one line: where it hit, else its most telling fields."""
    if found := hit.get("highlight"):
        return " … ".join(piece for name in sorted(found) for piece in found[name])
    value = hit.get("value_number", hit.get("value_text") or hit.get("value_code"))
    parts = (hit.get("display") or hit.get("code"), value, hit.get("units"), hit.get("body"), hit.get("state"))
    return " ".join(str(part) for part in parts if part not in (None, ""))
