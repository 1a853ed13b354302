"""A plan as it is kept and told: by reference, with times for hours, under an id that means what is to be done. Pure.

Whoever accepts a plan names its id, and the id is a digest of who goes where: a plan that was worked out again and asks
for the same has the same id, and one that asks for anything else has not. Of operations their order in a theatre is in
it; the hours at which they begin, and at which beds become free, are expectations and pass with time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from infra.crypto import DataKey
from infra.kafka import Outgoing
from schemas.envelope import rfc3339
from schemas.signal import message
from schemas.sites import ALERTS, EXPECTED, FORECAST, OF, PLAN, PROPOSED, RAISED, WITHDRAWN
from schemas.topics import SIGNALS
from streams.allocation.forecast import Interval, Point
from streams.allocation.plan import BED, NURSE, THEATRE, Assignment, Plan, Reason
from streams.allocation.signals import Alert, Key, Raised
from streams.allocation.site import Need, Site

if TYPE_CHECKING:
    from streams.allocation.conflict import Conflict  # its solver takes a second to load

Document = dict[str, Any]
Line = dict[str, Any]
LINES = {BED: "bed_assignment", NURSE: "nurse_assignment", THEATRE: "theatre_assignment"}  # signals
DONE = "done"  # state of a line that was carried out
FORECAST_COUNTS = timedelta(hours=2)  # after that it says nothing of the hours to come
_DIGITS = 12  # of an id, hexadecimal: a person may type it


def document(site: Site, plan: Plan, conflict: Conflict | None = None) -> Document:
    """What the index keeps of a proposal. Stays that stay where they are, and cost nothing, are in no line."""
    lines = [_line(plan.at, one) for one in plan.assignments if _says(one)]
    _order(lines)
    needs: list[Need] = [one.need for one in site.stays] + [one.need for one in site.requests]
    patients = {one.ref: one.patient for one in needs}
    staff = {one.ref for one in site.nurses} | {one.surgeon for one in site.requests if one.surgeon}
    for one in lines:
        one["staff_ref" if one["assignment"] == NURSE else "patient_ref"] = (
            one["ref"] if one["assignment"] == NURSE else patients.get(one["ref"], "")
        )
    breaches = [asdict(one) | {"where": "" if one.where in staff else one.where} for one in plan.breaches]
    why = asdict(conflict) if conflict else None
    named = {ref for one in (*breaches, *(why["rules"] if why else ())) for ref in one["refs"]}
    persons = {ref: patients[ref] for ref in sorted(named & patients.keys())}
    members = {one["next_best"] for one in lines if one["assignment"] == NURSE} | named
    return {
        "kind": PLAN,
        "state": PROPOSED,
        "site": site.id,
        "plan": number(site.id, lines),
        "event_time": plan.at,
        "status": plan.status,
        "cost": plan.cost,
        "bound": plan.bound,
        "gap": round(plan.gap, 6),
        "costs": dict(plan.costs),
        "seconds": plan.seconds,
        "waiting": sum(one["to"] is None and one["assignment"] == BED for one in lines),
        "actions": sum(one["action"] for one in lines),
        "lines": lines,
        "breaches": breaches,
        "conflict": why,
        "persons": persons,
        "patient_ref": sorted({one["patient_ref"] for one in lines if one.get("patient_ref")} | {*persons.values()}),
        "staff_ref": sorted({one["staff_ref"] for one in lines if "staff_ref" in one} | (members & staff)),
        "untold": [],
    }


def _says(one: Assignment) -> bool:
    return one.kind == NURSE or one.action or one.to is None or bool(one.reason.costs)


def _line(at: str, one: Assignment) -> Line:
    made: Line = {
        "assignment": one.kind,
        "ref": one.ref,
        "to": one.to,
        "prior": one.prior,
        "action": one.action,
        "at": _time(at, one.at),
        "costs": dict(one.reason.costs),
        "decided": one.reason.decided,
        "next_best": one.reason.next_best,
        "next_cost": one.reason.next_cost,
    }
    return made | ({"until": _time(at, one.until)} if one.until is not None else {})


def _order(lines: Iterable[Line]) -> None:
    """Of each operation, its place in the order of its theatre."""
    operations = sorted((one for one in lines if one["assignment"] == THEATRE), key=lambda one: (one["at"], one["ref"]))
    passed: dict[str, int] = {}
    for one in operations:
        passed[one["to"]] = one["order"] = passed.get(one["to"], 0) + 1


def _time(at: str, hours: float) -> str:
    """To the minute: the same end of a shift is the same in every plan."""
    moment = datetime.fromisoformat(at) + timedelta(hours=hours, seconds=30)
    return rfc3339(moment.replace(second=0, microsecond=0))


def number(site: str, lines: Iterable[Line]) -> str:
    """Id of a plan: of a site, who goes where. When it was worked out, and at what cost, is not in it."""
    done = sorted(_key(one) for one in lines if one["action"])
    return hashlib.sha256(repr((site, done)).encode()).hexdigest()[:_DIGITS]


def _key(one: Line) -> tuple[str, str, str, str]:
    """Of one line, what somebody has to do; of a nurse, in which shift; of an operation, as which of its theatre."""
    more = {NURSE: one.get("until", ""), THEATRE: str(one.get("order", ""))}
    return one["assignment"], one["ref"], one["to"] or "", more.get(one["assignment"], "")


def of_document(said: Mapping[str, Any] | None, at: str) -> list[Assignment]:
    """The assignments of a kept plan, as a plan of this moment would have them."""
    now = datetime.fromisoformat(at)

    def hours(when: str) -> float:
        return max(0.0, (datetime.fromisoformat(when) - now) / timedelta(hours=1))

    return [
        Assignment(
            one["assignment"],
            one["ref"],
            one["to"],
            hours(one["at"]),
            one["prior"],
            hours(one["until"]) if "until" in one else None,
            Reason(one["costs"], one["decided"], one["next_best"], one["next_cost"]),
        )
        for one in (said or {}).get("lines", ())
    ]


def over(accepted: Sequence[Assignment], last: Plan | None, site: Site) -> Plan | None:
    """What the next plan begins from, and is charged for changing: the last one, but for the beds that were accepted,
    of whoever still waits or lies where he or she lay then. None where there is neither."""
    made = last.beds() if last else {}
    lies = {stay.need.ref: stay.bed for stay in site.stays}
    waits = {one.need.ref for one in site.requests}
    for one in accepted:
        if one.kind == BED and one.action and (one.ref in waits or lies.get(one.ref, "") == one.prior):
            made[one.ref] = one
    others = tuple(one for one in (last.assignments if last else ()) if one.kind != BED)
    return Plan(site.id, site.at, (*made.values(), *others), {}) if made or others else None


@dataclass(frozen=True, slots=True)
class Difference:
    """Lines that a plan has and another has not, or has otherwise; and of the latter those that are no more, apart from
    those that were carried out."""

    new: tuple[Line, ...]
    gone: tuple[Line, ...]
    done: tuple[Line, ...] = ()


def difference(
    lines: Sequence[Line], before: Sequence[Line], lies: Mapping[str, str | None] | None = None
) -> Difference:
    """Of what somebody has to do. `lies`: the bed of each patient by now."""
    now = {_key(one): one for one in lines if one["action"]}
    was = {_key(one): one for one in before if one["action"]}
    over_ = [one for key, one in was.items() if key not in now]
    done = [
        one for one in over_ if one["assignment"] == BED and (lies or {}).get(one.get("patient_ref", "")) == one["to"]
    ]
    return Difference(
        tuple(one for key, one in now.items() if key not in was),
        tuple(one for one in over_ if one not in done),
        tuple(done),
    )


def lying(site: Site) -> dict[str, str | None]:
    return {one.need.patient: one.bed for one in site.stays}


# -------------------------------------------------------------------------------------------------------------- signals


def untold(made: Document, before: Document | None, site: Site) -> list[Line]:
    """What a plan makes known: lines that are new, withdrawn or done, each with the plan that it is of."""
    was = before or {"plan": "", "lines": ()}
    apart = difference(made["lines"], was["lines"], lying(site))
    return [
        {"state": state, "plan": plan, "since": made["event_time"]} | dict(line)
        for state, plan, lines in (
            (DONE, was["plan"], apart.done),
            (WITHDRAWN, was["plan"], apart.gone),
            (PROPOSED, made["plan"], apart.new),
        )
        for line in lines
    ]


def person(line: Line) -> str:
    """Whom a line is about."""
    return str(line.get("patient_ref") or line.get("staff_ref", ""))


def tells(made: Document, untold: list[Line]) -> None:
    """Let a document tell these lines: whoever is in a withdrawn one is named too, so that an erasure finds it."""
    made["untold"] = untold
    for name in ("patient_ref", "staff_ref"):
        made[name] = sorted({*made[name], *(line[name] for line in untold if line.get(name))})


def messages(made: Document, lines: Iterable[Line], key_of: Callable[[str], DataKey | None]) -> list[Outgoing]:
    """One for each line, sealed under the key of whom it is about, then one for all, in clear. Without a key a line is
    left out; the same line gives the same id however often it is told."""
    told = []
    for line in lines:
        if (key := key_of(person(line))) is not None:
            said = {"site": made["site"]} | dict(line)
            if line["assignment"] == NURSE:
                said["next_best"] = None  # a colleague's, whose key this is not
            digest = hashlib.sha256(repr((made["site"], line["state"], line["since"], _key(line))).encode()).hexdigest()
            told.append(_outgoing(LINES[line["assignment"]], digest[:32], digest[:32], line["since"], said, key))
    names = ("site", "plan", "state", "event_time", "status", "cost", "bound", "gap", "costs", "waiting", "actions")
    digest = hashlib.sha256(repr([made[name] for name in names[:4]]).encode()).hexdigest()[:32]
    whole = {name: made[name] for name in names} | {"lines": len(told)}
    return [*told, _outgoing(PLAN, digest, digest, made["event_time"], whole, None)] if told else []


def alert(one: Alert) -> Outgoing:
    id = hashlib.sha256(one.id.encode()).hexdigest()[:32]
    return _outgoing(one.signal, id, id, one.at, one.said(), None)


def _outgoing(signal: str, id: str, document: str, at: str, said: Mapping[str, Any], key: DataKey | None) -> Outgoing:
    return Outgoing(SIGNALS.name, *message(signal, OF.name, id, document, at, said, key))


# --------------------------------------------------------------------------------------------------------------- alerts


def raised_document(site: str, raised: Raised, told: Sequence[Alert]) -> Document:
    """What is raised, and what was told last: told again by whoever finds it after the worker was killed."""
    since = [
        {"signal": key.signal, "unit": key.unit, "of": key.of, "since": at} for key, at in sorted(raised.since.items())
    ]
    said = [one.said() for one in told]
    return {"kind": ALERTS, "state": RAISED, "site": site, "event_time": raised.at, "raised": since, "untold": said}


def raised_of(said: Mapping[str, Any] | None) -> tuple[Raised, list[Alert]]:
    if not said:
        return Raised(), []
    since = {Key(one["signal"], one["unit"], one["of"]): one["since"] for one in said["raised"]}
    told = [Alert(**one | {"reasons": tuple(one["reasons"])}) for one in said["untold"]]
    return Raised(said["event_time"], since), told


def forecast_document(site: str, at: str, units: Sequence[Mapping[str, Any]]) -> Document:
    """`units`: a row each as `wardstream forecast` tells it."""
    return {"kind": FORECAST, "state": EXPECTED, "site": site, "event_time": at, "units": list(units)}


def forecasts_of(said: Mapping[str, Any] | None, at: str) -> dict[str, list[Point]] | None:
    """By unit, "" for the site; None where none is kept, or an old one."""
    if not said or datetime.fromisoformat(at) - datetime.fromisoformat(said["event_time"]) > FORECAST_COUNTS:
        return None
    return {
        unit["unit"]: [
            Point(
                one["hours"],
                datetime.fromisoformat(one["at"]),
                one["expected"],
                tuple(Interval(each["level"], each["low"], each["high"]) for each in one["intervals"]),
            )
            for one in unit["forecast"]
        ]
        for unit in said["units"]
    }
