"""Plans of sites as a person asks for them: what is proposed, how that differs from what was accepted, and accepting.

A plan is a proposal of the worker's (streams/planning.py), which goes on making better ones. So whoever accepts names
the plan that was read: if another is proposed by then, nothing is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from elasticsearch import ConflictError, Elasticsearch, NotFoundError

from consumers import allocation
from consumers.access import Caller
from consumers.search import answered
from infra.audit import Audit
from infra.elastic import client
from infra.errors import PlanChanged, UsageError
from infra.kafka import Producer
from infra.keystore import KeyStore
from schemas.envelope import rfc3339
from schemas.sites import ACCEPTED, ALIAS, OF, PLAN, PROPOSED, WITHDRAWN, number
from streams.allocation import divide as division
from streams.allocation import proposal
from streams.allocation.divide import Demand, Division
from streams.allocation.proposal import Document, Line

FIELDS = ("unit", "room", "bed", "patient_ref", "staff_ref", "hospital_service", "isolation", "sex", "age")
MOST_SITES = 1000
STILL_COUNTS = timedelta(minutes=15)
_OF_THE_INDEX = frozenset(("kind", "patient_ref", "staff_ref", "untold", "persons"))
_CLOSED = ("assignment", "to", "prior", "action", "at", "until")  # of a line about somebody whom the caller may not see


def show(caller: Caller, site: str, accepted: bool = False) -> list[Document]:
    """The plan of one site, or of all: as proposed, or as accepted last. Raises UsageError, Denied, StackDown."""
    permits = caller.persons().permits
    made = [_seen(one, permits) for one in _plans(caller, site, ACCEPTED if accepted else PROPOSED)]
    _looked(caller, made)
    return [{name: value for name, value in one.items() if name not in _OF_THE_INDEX} for one in made]


def diff(caller: Caller, site: str) -> list[Document]:
    """Of each site what its proposal asks for beside the plan that was accepted, and what of that it asks for no more;
    what was carried out is neither."""
    accepted = {one["site"]: one for one in _plans(caller, site, ACCEPTED, needed=False)}
    permits, made = caller.persons().permits, []
    for one in _plans(caller, site, PROPOSED):
        before = accepted.get(one["site"])
        lies = _lying(one["site"]) if before else {}
        apart = proposal.difference(one["lines"], before["lines"] if before else (), lies)
        row = {name: one[name] for name in ("site", "plan", "event_time", "cost")}
        row |= {"accepted_plan": before["plan"] if before else None, "new": apart.new, "gone": apart.gone}
        made.append(_seen(row, permits))
    _looked(caller, made)
    return made


def _lying(site: str) -> dict[str, str | None]:
    (board,) = allocation.read(site, datetime.now(UTC), "location", "placement", "request")
    return proposal.lying(board.site)


def accept(caller: Caller, site: str, plan: str) -> Document:
    """Accept a plan by its id: from now on the site's next plans begin with its beds, and leave them at a price.

    Accepted twice is accepted once, and told again. Raises PlanChanged where another one is proposed by now, somebody
    in it was erased, or it is of a quarter of an hour ago, so that no worker plans; UsageError where none is.
    """
    caller.require(OF, "see", FIELDS)
    _, keys = KeyStore.local()
    with answered(OF), client() as server:
        before, place = _get(server, ACCEPTED, site)
        if before is not None and before["plan"] == plan:
            _tell(before, keys)
            return _said(before)
        made, _ = _get(server, PROPOSED, site)
        if made is None:
            raise UsageError(f"there is no plan of a site {site!r}")
        _refuse_other(made, plan)
        named = {*made["patient_ref"], *made["staff_ref"]}
        if keys.erased(named):
            raise PlanChanged("somebody in this plan was erased: another one comes")
        said = {"cost": f"{made['cost']:.2f}", "actions": str(made["actions"])}
        patients = tuple(made["patient_ref"])
        Audit.local().write(caller.act("U", patients=patients, entities=(site, plan), detail=said))
        made |= {"state": ACCEPTED, "accepted_at": rfc3339(datetime.now(UTC)), "accepted_by": caller.account}
        made["untold"] = _acts(made, ACCEPTED, made["accepted_at"])
        try:
            server.index(index=ALIAS, id=number(ACCEPTED, site), document=made, refresh=True, **place)
        except ConflictError:
            raise PlanChanged(f"somebody else has accepted a plan of {site} just now") from None
        if keys.erased(named):  # between: the erasure may have looked too early
            server.options(ignore_status=404).delete(index=ALIAS, id=number(ACCEPTED, site), refresh=True)
            raise PlanChanged("somebody in this plan was erased: another one comes")
    _tell(made, keys)
    return _said(made)


def withdraw(caller: Caller, site: str) -> str:
    """Take the acceptance of a site's plan back; gives the plan's id. Raises UsageError where none was accepted."""
    caller.require(OF, "see", FIELDS)
    with answered(OF), client() as server:
        before, _ = _get(server, ACCEPTED, site)
        if before is None:
            raise UsageError(f"no plan of a site {site!r} is accepted")
        patients = tuple(before["patient_ref"])
        Audit.local().write(caller.act("D", patients=patients, entities=(site, before["plan"])))
        server.options(ignore_status=404).delete(index=ALIAS, id=number(ACCEPTED, site), refresh=True)
    gone = {"state": WITHDRAWN, "untold": _acts(before, WITHDRAWN, rfc3339(datetime.now(UTC)))}
    _tell(before | gone, KeyStore.local()[1])
    return str(before["plan"])


def _acts(made: Document, state: str, since: str) -> list[Line]:
    """What a plan asks for, to be told."""
    return [one | {"state": state, "plan": made["plan"], "since": since} for one in made["lines"] if one["action"]]


def _get(server: Elasticsearch, state: str, site: str) -> tuple[Document | None, dict[str, Any]]:
    """A document, and what a write in its place has to say, so that of several one wins."""
    try:
        held = server.get(index=ALIAS, id=number(state, site))
    except NotFoundError:
        return None, {"op_type": "create"}
    return held["_source"], {"if_seq_no": held["_seq_no"], "if_primary_term": held["_primary_term"]}


def _refuse_other(made: Document, plan: str) -> None:
    site = made["site"]
    if made["plan"] != plan:
        raise PlanChanged(f"the plan of {site} is {made['plan']} by now: `wardstream plan diff --site` shows it")
    if datetime.now(UTC) - datetime.fromisoformat(made["event_time"]) > STILL_COUNTS:
        raise PlanChanged(
            f"the plan of {site} is of {made['event_time']}, and no worker makes another: is one running?"
        )


def _said(made: Document) -> Document:
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


def _tell(made: Document, keys: KeyStore) -> None:
    """Each line, and what became of the plan, on the signals' topic."""

    producer = Producer()
    try:
        producer.send_now(proposal.messages(made, made["untold"], keys.living))
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


def _seen(one: Document, permits: Callable[[str | None], bool]) -> Document:
    """What the caller may see of a plan: of a patient who has denied the purpose, the bed and the hour alone."""
    hidden = {ref for ref, patient in one.get("persons", {}).items() if not permits(patient)}

    def line(said: Line) -> Line:
        if said.get("patient_ref") and not permits(said["patient_ref"]):
            closed = {name: said[name] for name in _CLOSED if name in said}
            return closed | {"ref": "", "patient_ref": "", "costs": {}, "decided": ""}
        return said

    def rule(said: Line) -> Line:
        return said | {"refs": [ref for ref in said["refs"] if ref not in hidden]}

    made = one | {name: [line(said) for said in one[name]] for name in ("lines", "new", "gone") if name in one}
    if "breaches" in one:
        made["breaches"] = [rule(said) for said in one["breaches"]]
        made["persons"] = {ref: patient for ref, patient in one["persons"].items() if ref not in hidden}
    if one.get("conflict"):
        made["conflict"] = one["conflict"] | {"rules": [rule(said) for said in one["conflict"]["rules"]]}
    return made


def _looked(caller: Caller, made: list[Document]) -> None:
    lines = (line for one in made for name in ("lines", "new", "gone") for line in one.get(name, ()))
    refs = {line["patient_ref"] for line in lines if line.get("patient_ref")}
    refs |= {patient for one in made for patient in one.get("persons", {}).values()}
    sites = tuple(one["site"] for one in made)
    Audit.local().write(caller.act("E", patients=tuple(sorted(refs)), entities=sites, fields=FIELDS))
