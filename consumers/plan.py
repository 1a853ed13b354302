"""Plans of sites as a person asks for them: what is proposed, how that differs from what was accepted, and accepting.

A plan is a proposal of the worker's (streams/planning.py), which goes on making better ones. So whoever accepts names
the plan that was read: if another is proposed by then, nothing is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elasticsearch import ConflictError, NotFoundError

from consumers import allocation
from consumers.access import Caller
from consumers.search import answered
from infra.audit import Audit
from infra.crypto import DataKey
from infra.elastic import client
from infra.errors import KeyMissing, KeyShredded, PlanChanged, StackDown, UsageError
from infra.kafka import Producer
from infra.keystore import KeyStore
from schemas.envelope import rfc3339
from schemas.sites import ACCEPTED, ALIAS, OF, PLAN, PROPOSED, number
from streams.allocation import divide as division
from streams.allocation import proposal
from streams.allocation.divide import Demand, Division
from streams.allocation.proposal import Document, Line

FIELDS = ("unit", "room", "bed", "patient_ref", "staff_ref", "hospital_service", "isolation", "sex", "age")
MOST_SITES = 1000
Permits = Callable[[str | None], bool]
_CLOSED = ("assignment", "to", "prior", "action", "at", "until")  # of a line about somebody whom the caller may not see


def show(caller: Caller, site: str, accepted: bool = False) -> list[Document]:
    """The plan of one site, or of all: as proposed, or as accepted last. Raises UsageError, Denied, StackDown."""
    found = _plans(caller, site, ACCEPTED if accepted else PROPOSED)
    permits = caller.persons().permits
    made = [one | {"lines": [_seen(line, permits) for line in one["lines"]]} for one in found]
    _looked(caller, made)
    return [_without_names(one) for one in made]


def diff(caller: Caller, site: str) -> list[Document]:
    """Of each site what its proposal asks for beside the plan that was accepted, and what it asks for no more."""
    accepted = {one["site"]: one for one in _plans(caller, site, ACCEPTED, needed=False)}
    permits = caller.persons().permits
    made = []
    for one in _plans(caller, site, PROPOSED):
        before = accepted.get(one["site"])
        apart = proposal.difference(one["lines"], before["lines"] if before else ())
        made.append(
            {
                "site": one["site"],
                "plan": one["plan"],
                "event_time": one["event_time"],
                "cost": one["cost"],
                "accepted_plan": before["plan"] if before else None,
                "new": [_seen(line, permits) for line in apart.new],
                "gone": [_seen(line, permits) for line in apart.gone],
            }
        )
    _looked(caller, made)
    return made


def accept(caller: Caller, site: str, plan: str) -> Document:
    """Accept a plan by its id: from now on the site's next plans begin there, and leave it at a price.

    Raises PlanChanged where another one is proposed by now, UsageError where none is. Accepted twice is accepted once.
    """
    caller.require(OF, "see", FIELDS)
    with answered(OF), client() as server:
        try:
            held = server.get(index=ALIAS, id=number(PROPOSED, site))
        except NotFoundError:
            raise UsageError(f"there is no plan of a site {site!r}") from None
        made: Document = held["_source"]
        if made["plan"] != plan:
            now = f"the plan of {site} is {made['plan']} by now"
            raise PlanChanged(f"{now}: `wardstream plan diff --site {site}` shows it")
        patients = tuple(made["patient_ref"])
        said = {"cost": f"{made['cost']:.2f}", "actions": str(made["actions"])}
        Audit.local().write(caller.act("U", patients=patients, entities=(site, plan), detail=said))
        made |= {"state": ACCEPTED, "accepted_at": rfc3339(datetime.now(UTC)), "accepted_by": caller.account}
        try:
            server.index(index=ALIAS, id=number(ACCEPTED, site), document=made, refresh=True)
        except ConflictError:
            raise StackDown("the index is busy with this site: give the command again") from None
    _tell(made)
    return {name: made[name] for name in ("site", "plan", "accepted_at", "accepted_by", "cost", "actions")}


def divide(caller: Caller, site: str, path: Path) -> Division:
    """Grant demands, from a file of JSON, what a site's divisible resources have: the quantity of each, or its minutes.

    Raises UsageError for a file that is not that, or where a resource that is used is none of the site's.
    """
    demands = _demands(path)
    rows = allocation.resources(caller, site, allocation.Wanted())
    supply = {str(one["resource_id"]): float(one["quantity"]) for one in rows if "quantity" in one}
    supply |= {str(one["resource_id"]): float(one["minutes"]) for one in rows if "minutes" in one}
    used = {name for one in demands for name in one.uses}
    if unknown := used - supply.keys():
        raise UsageError(f"{site} has no resource with an amount called {', '.join(sorted(unknown))}")
    return division.divide({name: supply[name] for name in used}, demands)


def _demands(path: Path) -> list[Demand]:
    try:
        said = json.loads(path.read_bytes())
        return [
            Demand(
                str(one["ref"]),
                float(one["value"]),
                float(one["most"]),
                {str(name): float(units) for name, units in one["uses"].items()},
                float(one.get("least", 0.0)),
            )
            for one in said
        ]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        wanted = '[{"ref": ..., "value": ..., "most": ..., "least": ..., "uses": {"resource id": units}}]'
        raise UsageError(f"demands are JSON: {wanted}") from None


def _tell(made: Document) -> None:
    """Each line, and that the plan is accepted, on the signals' topic."""
    _, keys = KeyStore.local()

    def key(ref: str) -> DataKey | None:
        try:
            return keys.of_ref(ref)
        except (KeyShredded, KeyMissing):
            return None

    producer = Producer()
    try:
        producer.send_now(proposal.messages(made, ACCEPTED, (one for one in made["lines"] if one["action"]), key))
    finally:
        producer.close()


def _plans(caller: Caller, site: str, state: str, needed: bool = True) -> list[Document]:
    caller.require(OF, "see", FIELDS)
    terms = {"kind": PLAN, "state": state} | ({"site": site} if site else {})
    query = {"bool": {"filter": [{"term": {name: value}} for name, value in terms.items()]}}
    with answered(OF), client() as server:
        server.indices.refresh(index=ALIAS)
        hits = server.search(index=ALIAS, query=query, size=MOST_SITES)["hits"]["hits"]
    if site and needed and not hits:
        raise UsageError(f"there is no plan of a site {site!r}{' that was accepted' if state == ACCEPTED else ''}")
    return sorted((hit["_source"] for hit in hits), key=lambda one: str(one["site"]))


def _seen(line: Line, permits: Permits) -> Line:
    if line.get("patient_ref") and not permits(line["patient_ref"]):
        return {name: line[name] for name in _CLOSED if name in line} | {"ref": "", "patient_ref": "", "costs": {}}
    return line


def _lines(made: Iterable[Mapping[str, Any]]) -> Iterable[Line]:
    return (line for one in made for name in ("lines", "new", "gone") for line in one.get(name, ()))


def _looked(caller: Caller, made: list[Document]) -> None:
    refs = sorted({one["patient_ref"] for one in _lines(made) if one.get("patient_ref")})
    Audit.local().write(
        caller.act("E", patients=tuple(refs), entities=tuple(one["site"] for one in made), fields=FIELDS)
    )


def _without_names(one: Document) -> Document:
    """What only the index needs."""
    return {name: value for name, value in one.items() if name not in ("kind", "patient_ref", "staff_ref")}
