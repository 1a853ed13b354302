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
from streams.quality.cases import KEPT, Person

OF = DOMAINS["quality"]
TOLD = tuple(name for name in KEPT if name not in MACHINERY)
Query = dict[str, Any]
Of = tuple[str, str]  # site and reference


def people(caller: Caller, site: str = "") -> list[Person]:
    """Everybody whom the caller may learn from, with all of his or her cases. Raises Denied, StackDown."""
    return list(by_reference(caller, site).values())


def by_reference(caller: Caller, site: str = "") -> dict[Of, Person]:
    """As `people`, by site and reference."""
    caller.require(OF, "see", TOLD)
    _, keys = KeyStore.local()
    return cases.people(entities(site, caller.persons().clause()), keys.merged())


def entities(site: str = "", persons: Query | None = None) -> Iterator[tuple[str, Entity]]:
    """Cases and deaths by name, as last refreshed. Raises StackDown."""
    query = {"bool": {"filter": [cases.wanted(site), *([persons] if persons else [])]}}
    with answered(OF):
        for page in elastic.scan(OF.alias, query, KEPT):
            for one in page:
                yield one.pop("_id"), one
