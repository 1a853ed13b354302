"""`wardstream clusters`: groups of resources, or of demand, as the index tells of them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from consumers import past
from consumers.access import Caller
from infra.audit import Audit
from infra.errors import UsageError
from streams.allocation import clusters
from streams.allocation.clusters import Clustering

OF = (past.RESOURCES, past.DEMAND)
MOST = 4000  # rows: every pair of them is looked at


def groups(caller: Caller, of: str, method: str, site: str) -> Clustering:
    """Raises Untrainable for too few rows, UsageError for too many and for what is none; Denied, StackDown."""
    if of not in OF:
        raise UsageError(f"--of is one of {', '.join(OF)}")
    if method not in clusters.METHODS:
        raise UsageError(f"--method is one of {', '.join(clusters.METHODS)}")
    found = past.profiles(caller, of, site, datetime.now(UTC))
    if len(found) > MOST:
        raise UsageError(f"{len(found)} are more than {MOST}: ask for one --site")
    Audit.local().write(caller.act("E", fields=past.THING_FIELDS, detail={"use": "clusters", "total": str(len(found))}))
    return clusters.cluster(found, method)


def row(found: Clustering) -> dict[str, Any]:
    """For JSON."""
    made = asdict(found)
    for group, one in zip(made["groups"], found.groups, strict=True):
        group["stable"] = one.stable
    return made
