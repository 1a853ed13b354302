"""Cases and what became of them, as the index has them: for curves, rules, models, charts and reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from consumers.access import Caller
from consumers.search import answered
from infra import elastic
from infra.keystore import KeyStore
from schemas.policy import MACHINERY
from schemas.registry import DOMAINS
from streams.fold import Entity
from streams.quality import cases
from streams.quality.cases import CASE, DEATH, KEPT, Person

OF = DOMAINS["quality"]
TOLD = tuple(name for name in KEPT if name not in MACHINERY)
Query = dict[str, Any]


def people(caller: Caller, site: str = "") -> list[Person]:
    """Everybody whom the caller may learn from, with all of his or her cases. Raises Denied, StackDown."""
    caller.require(OF, "see", TOLD)
    _, keys = KeyStore.local()
    found = entities(site, caller.persons().clause())
    return list(cases.people(found, keys.merged()).values())


def entities(site: str = "", persons: Query | None = None) -> Iterator[tuple[str, Entity]]:
    """Cases and deaths by name, as last refreshed. Raises StackDown."""
    wanted = [{"term": {"part": -1}}, {"terms": {"kind": [CASE, DEATH]}}]
    query = {"bool": {"filter": wanted + ([persons] if persons else []) + ([{"term": {"site": site}}] if site else [])}}
    with answered(OF):
        for page in elastic.scan(OF.alias, query, KEPT):
            for one in page:
                yield one.pop("_id"), one
