"""A plan as it is kept and told: by reference, with times for hours, under an id that means what is to be done. Pure.

Whoever accepts a plan names its id, and the id is a digest of who goes where: a plan that was worked out again and asks
for the same has the same id, and one that asks for anything else has not.
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
from schemas.sites import ALERTS, EXPECTED, FORECAST, OF, PLAN, PROPOSED, RAISED
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
FORECAST_COUNTS = timedelta(hours=2)  # after that it says nothing of the hours to come
_DIGITS = 12  # of an id, hexadecimal: a person may type it


def document(site: Site, plan: Plan, conflict: Conflict | None = None) -> Document:
    """What the index keeps of a proposal. Stays that stay where they are, and cost nothing, are in no line."""
    lines = [_line(site, plan.at, one) for one in plan.assignments if _says(one)]
    _name(site, lines)
    named = {name: sorted({one[name] for one in lines if one.get(name)}) for name in ("patient_ref", "staff_ref")}
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
        "breaches": [asdict(one) for one in plan.breaches],
        "conflict": asdict(conflict) if conflict else None,
        **named,
    }


def _says(one: Assignment) -> bool:
    return one.kind == NURSE or one.action or one.to is None or bool(one.reason.costs)


def _line(site: Site, at: str, one: Assignment) -> Line:
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


def _name(site: Site, lines: Iterable[Line]) -> None:
    """Whom a line is about: a patient, or a member of staff."""
    needs: list[Need] = [one.need for one in site.stays] + [one.need for one in site.requests]
    patients = {one.ref: one.patient for one in needs}
    for one in lines:
        if one["assignment"] == NURSE:
            one["staff_ref"] = one["ref"]
        else:
            one["patient_ref"] = patients.get(one["ref"], "")


def _time(at: str, hours: float) -> str:
    """To the minute: the same end of a shift is the same in every plan."""
    moment = datetime.fromisoformat(at) + timedelta(hours=hours, seconds=30)
    return rfc3339(moment.replace(second=0, microsecond=0))


def number(site: str, lines: Iterable[Line]) -> str:
    """Id of a plan: of a site, who goes where. When it was worked out, and at what cost, is not in it."""
    done = sorted(_key(one) for one in lines if one["action"])
    return hashlib.sha256(repr((site, done)).encode()).hexdigest()[:_DIGITS]


def _key(one: Line) -> tuple[str, str, str, str]:
    """Of one line, what somebody has to do; of a nurse, in which shift."""
    return one["assignment"], one["ref"], one["to"] or "", one.get("until", "") if one["assignment"] == NURSE else ""


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
    """The beds that the next plan begins from, and is charged for changing: those of the last one, but for what was
    accepted and is not done yet. None where there is neither."""
    made = last.beds() if last else {}
    lies = {stay.need.ref: stay.bed for stay in site.stays}
    made |= {one.ref: one for one in accepted if one.kind == BED and one.action and lies.get(one.ref) != one.to}
    return Plan(site.id, site.at, tuple(made.values()), {}) if made else None


@dataclass(frozen=True, slots=True)
class Difference:
    """Lines that a plan has and another has not, or has otherwise; and of the latter those that are no more."""

    new: tuple[Line, ...]
    gone: tuple[Line, ...]


def difference(lines: Sequence[Line], before: Sequence[Line]) -> Difference:
    """Of what somebody has to do."""
    now = {_key(one): one for one in lines if one["action"]}
    was = {_key(one): one for one in before if one["action"]}
    return Difference(
        tuple(one for key, one in now.items() if key not in was),
        tuple(one for key, one in was.items() if key not in now),
    )


# -------------------------------------------------------------------------------------------------------------- signals


def messages(
    made: Document, state: str, lines: Iterable[Line], key_of: Callable[[str], DataKey | None]
) -> list[Outgoing]:
    """One for each line, sealed under the key of whom it is about (without a key it is left out), and one in clear."""
    head = {"site": made["site"], "plan": made["plan"], "state": state}
    told, at = [], made["event_time"]
    for line in lines:
        if (key := key_of(line.get("patient_ref") or line.get("staff_ref", ""))) is not None:
            document = f"{made['plan']}|{state}|{line['ref']}|{line['to']}"
            told.append(_outgoing(LINES[line["assignment"]], made["plan"], document, at, head | dict(line), key))
    names = ("event_time", "status", "cost", "bound", "gap", "costs", "waiting", "actions")
    said = head | {name: made[name] for name in names} | {"lines": len(told)}
    return [*told, _outgoing(PLAN, made["plan"], f"{made['plan']}|{state}", at, said, None)]


def alert(one: Alert) -> Outgoing:
    id = hashlib.sha256(one.id.encode()).hexdigest()[:32]
    return _outgoing(one.signal, id, "", one.at, one.said(), None)


def _outgoing(signal: str, id: str, document: str, at: str, said: Mapping[str, Any], key: DataKey | None) -> Outgoing:
    return Outgoing(SIGNALS.name, *message(signal, OF.name, id, document, at, said, key))


# --------------------------------------------------------------------------------------------------------------- alerts


def raised_document(site: str, raised: Raised, told: Sequence[Alert]) -> Document:
    """What is raised, and what was told last: told again by whoever finds it after the worker was killed."""
    since = [
        {"signal": key.signal, "unit": key.unit, "of": key.of, "since": at} for key, at in sorted(raised.since.items())
    ]
    said = [one.said() for one in told]
    return {"kind": ALERTS, "state": RAISED, "site": site, "event_time": raised.at, "raised": since, "told": said}


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


def raised_of(said: Mapping[str, Any] | None) -> tuple[Raised, list[Alert]]:
    if not said:
        return Raised(), []
    since = {Key(one["signal"], one["unit"], one["of"]): one["since"] for one in said["raised"]}
    told = [Alert(**one | {"reasons": tuple(one["reasons"])}) for one in said["told"]]
    return Raised(said["event_time"], since), told
