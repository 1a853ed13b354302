"""What no plan may do, what a plan costs, and an independent check of both.

Nothing here is shared with the solvers but the constants and the prices of single things: `check` counts a finished
plan patient by patient and room by room, so that a solver's mistake cannot hide in its own arithmetic.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from math import hypot

from streams.allocation.plan import BED, NURSE, THEATRE, Assignment, Breach, Plan, total
from streams.allocation.site import OCCUPIED, USABLE, Bed, Need, Nurse, Request, Site, Stay

HORIZON = 12.0  # hours ahead that beds are promised: a shift; later discharges are guesses
TURNOVER = 1.0  # hours at least until a bed in which somebody lies can have the next
AGEING = 24.0  # hours of waiting that count at most, or a waiting list of months would outrun the emergency department
DAY = 24.0  # hours of operating ahead

RULES: Mapping[str, str] = {
    "placed": "who is in has a bed",
    "due": "who must have a bed by a time within the horizon has it by then",
    "known": "only beds, rooms, nurses, theatres, stays and requests of this site, each stay and request once",
    "one_per_bed": "a bed has one patient at a time",
    "usable": "the bed is not closed, contaminated, or taken by somebody whom no event places",
    "features": "the bed has what the patient needs",
    "sex": "men and women do not share a room",
    "isolation": "patients share a room only with the same kind of isolation, or none",
    "staffed": "a room with patients has a nurse at every hour of the shifts",
    "shift": "a nurse works in his or her own shift and units",
    "theatre_minutes": "operations of a theatre fit into its minutes, one after another",
    "surgeon": "a surgeon is at one table at a time, within his or her shift",
    "operation": "who comes for an operation gets a bed only with a theatre",
}


def urgency(priority: int) -> float:
    """4 - priority; below 3, where that would be nothing, a half, a third and so on."""
    return float(4 - priority) if priority < 4 else 1 / (priority - 2)


def room_of(bed: Bed) -> str:
    return f"{bed.unit}|{bed.room}"


def bed_of(site: Site, name: str | None) -> Bed | None:
    """None of an unknown bed, as of none."""
    return site.beds.get(name) if name is not None else None


def rooms(site: Site) -> dict[str, list[Bed]]:
    """unit|room -> its beds, both in order of name."""
    found: dict[str, list[Bed]] = defaultdict(list)
    for bed in sorted(site.beds.values(), key=lambda one: one.id):
        found[room_of(bed)].append(bed)
    return dict(sorted(found.items()))


def centres(site: Site) -> dict[str, tuple[float, float]]:
    """unit|room -> metres: a move is walked from room to room."""
    return {
        room: (sum(b.position[0] for b in beds) / len(beds), sum(b.position[1] for b in beds) / len(beds))
        for room, beds in rooms(site).items()
    }


def usable(bed: Bed, taken: bool) -> bool:
    """Whether a bed may have a patient. Occupied without anybody whom we know of is somebody else's: never free."""
    return bed.status in USABLE and (taken or bed.status != OCCUPIED)


def free_at(stays: Sequence[Stay]) -> float:
    """Hours from now until a bed with these in it can have the next."""
    return max((max(stay.need.leaves, TURNOVER) for stay in stays), default=0.0)


def alike(one: Need, other: Need) -> str:
    """The rule that two break who lie in one room at once; empty if none."""
    if one.isolation != other.isolation:
        return "isolation"
    if {one.sex, other.sex} == {"M", "F"}:
        return "sex"
    return ""


def cents(cost: float) -> int:
    return round(cost * 100)


def off_service(need: Need, bed: Bed) -> bool:
    return bool(need.service and bed.services and need.service not in bed.services)


def left_out(site: Site, request: Request) -> Iterator[tuple[str, float]]:
    """What it costs that a request gets no bed within the horizon."""
    yield "unplaced", site.weights.unplaced * urgency(request.priority)
    yield "waiting", site.weights.waiting * urgency(request.priority) * min(max(request.waits, 0.0), AGEING)


def late(request: Request, at: float) -> bool:
    """Whether a bed at that hour would break "due"; waiting on is at infinity."""
    return request.due is not None and request.due <= HORIZON and at > max(request.due, 0.0)


def promised(before: Plan | None, site: Site) -> dict[str, str]:
    """Stay or request -> unit|room that a plan promised it and where it does not lie yet."""
    lies = {stay.need.ref: stay.bed for stay in site.stays}
    return {
        one.ref: room_of(bed)
        for one in (before.assignments if before else ())
        if one.kind == BED and one.action and (bed := bed_of(site, one.to)) and lies.get(one.ref) != bed.id
    }


def check(site: Site, plan: Plan, before: Plan | None = None) -> tuple[tuple[Breach, ...], dict[str, float]]:
    """(breaches, cost by component) of a plan for this site, where `before` is the plan that is accepted.

    Rooms are looked at for nurses only if the plan has any, requests for operations only if the site has theatres.
    """
    breaches = [*_known(site, plan), *_beds(site, plan), *_staff(site, plan), *_theatres(site, plan)]
    costs = [*_bed_costs(site, plan, before), *_staff_costs(site, plan), *_theatre_costs(site, plan)]
    return tuple(sorted(set(breaches), key=lambda one: (one.rule, one.refs, one.where))), total(costs)


# ---------------------------------------------------------------------------------------------------------------- beds


def _known(site: Site, plan: Plan) -> Iterator[Breach]:
    refs = [stay.need.ref for stay in site.stays] + [request.need.ref for request in site.requests]
    everywhere = {BED: set(site.beds), NURSE: set(rooms(site)), THEATRE: {one.id for one in site.theatres}}
    whom = {BED: set(refs), NURSE: {n.ref for n in site.nurses}, THEATRE: {r.need.ref for r in site.requests}}
    seen: set[tuple[str, str]] = set()
    for one in plan.assignments:
        if one.ref not in whom[one.kind] or (one.to is not None and one.to not in everywhere[one.kind]):
            yield Breach("known", (one.ref,), one.to or "")
        if one.kind != NURSE and (one.kind, one.ref) in seen:
            yield Breach("known", (one.ref,), one.kind)
        seen.add((one.kind, one.ref))


def _lie(site: Site, plan: Plan) -> Iterator[tuple[Need, Bed, float, float]]:
    """(who, bed, from, until) of everybody who has a lawful place; a request stays past any hour that is looked at."""
    given = plan.beds()
    for stay in site.stays:
        one = given.get(stay.need.ref)
        if one and (bed := bed_of(site, one.to)):
            yield stay.need, bed, 0.0, max(stay.need.leaves, TURNOVER) if bed.id == stay.bed else float("inf")
    for request in site.requests:
        one = given.get(request.need.ref)
        if one and (bed := bed_of(site, one.to)):
            yield request.need, bed, one.at, float("inf")


def _beds(site: Site, plan: Plan) -> Iterator[Breach]:
    given = plan.beds()
    nowhere = Assignment(BED, "", None)
    for stay in site.stays:
        if given.get(stay.need.ref, nowhere).to is None:
            yield Breach("placed", (stay.need.ref,), stay.bed or "")
    for request in site.requests:
        one = given.get(request.need.ref, nowhere)
        if late(request, one.at if one.to else float("inf")):
            yield Breach("due", (request.need.ref,))
    taken = Counter(stay.bed for stay in site.stays)
    remain = [s for s in site.stays if s.bed in site.beds and given.get(s.need.ref, nowhere).to is None]
    by_room: dict[str, list[tuple[Need, Bed, float, float]]] = defaultdict(list)
    for need, bed, start, end in _lie(site, plan):
        by_room[room_of(bed)].append((need, bed, start, end))
        if not usable(bed, bed.id in taken):
            yield Breach("usable", (need.ref,), bed.id)
        if start > 0 and taken[bed.id] > 1:  # nobody knows who of the two lies there, and until when
            yield Breach("one_per_bed", (need.ref,), bed.id)
        if not need.needs <= bed.features:
            yield Breach("features", (need.ref,), bed.id)
        for stay in remain:  # against a rule, but there
            if stay.bed == bed.id and stay.need.ref != need.ref and start < max(stay.need.leaves, TURNOVER):
                if next((s.bed for s in site.stays if s.need.ref == need.ref), None) == bed.id:
                    continue  # both were there before: "placed" is the breach
                yield Breach("one_per_bed", tuple(sorted((need.ref, stay.need.ref))), bed.id)
    for room, there in by_room.items():
        for (who, here, start, end), (other, beside, begins, ends) in combinations(there, 2):
            if max(start, begins) < min(end, ends):
                refs = tuple(sorted((who.ref, other.ref)))
                if here.id == beside.id:
                    yield Breach("one_per_bed", refs, here.id)
                elif rule := alike(who, other):
                    yield Breach(rule, refs, room)


def _bed_costs(site: Site, plan: Plan, before: Plan | None) -> Iterator[tuple[str, float]]:
    given, weights, where = plan.beds(), site.weights, centres(site)
    promises = promised(before, site)
    for stay in site.stays:
        one = given.get(stay.need.ref)
        if one is None or not (bed := bed_of(site, one.to)):
            continue
        if bed.id != stay.bed:
            yield "move", weights.move
            if lay := bed_of(site, stay.bed):
                (x, y), (u, v) = where[room_of(lay)], where[room_of(bed)]
                yield "metre", weights.metre * hypot(x - u, y - v)
        if off_service(stay.need, bed):
            yield "service", weights.service
    for request in site.requests:
        one = given.get(request.need.ref)
        if one is None or not (bed := bed_of(site, one.to)):
            yield from left_out(site, request)
            continue
        yield "waiting", weights.waiting * urgency(request.priority) * one.at
        if off_service(request.need, bed):
            yield "service", weights.service
    for ref, room in promises.items():
        one = given.get(ref)
        if one and ((bed := bed_of(site, one.to)) is None or room_of(bed) != room):
            yield "change", weights.change
    by_room: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for need, bed, start, end in _lie(site, plan):
        if need.age is not None:
            by_room[room_of(bed)].append((need.age, start, end))
    for there in by_room.values():
        apart = (
            abs(one - other)
            for (one, start, end), (other, begins, ends) in combinations(there, 2)
            if max(start, begins) < min(end, ends)
        )
        yield "age_mix", cents(weights.age_mix) * max(apart, default=0) / 100  # of whole hundredths a year


# --------------------------------------------------------------------------------------------------------------- staff


def present(site: Site, plan: Plan, start: float, end: float) -> dict[str, list[Need]]:
    """unit|room -> who lies there at any time between two hours, as planned."""
    found: dict[str, list[Need]] = defaultdict(list)
    for need, bed, begins, ends in _lie(site, plan):
        if begins < end and start < ends:
            found[room_of(bed)].append(need)
    given = plan.beds()
    for stay in site.stays:
        one = given.get(stay.need.ref)
        if (held := bed_of(site, stay.bed)) and (one is None or one.to is None):
            found[room_of(held)].append(stay.need)
    return dict(sorted(found.items()))


def segments(nurses: Sequence[Nurse]) -> list[tuple[float, float]]:
    """The hours ahead, cut wherever a shift begins or ends, as far as anybody works."""
    cuts = sorted({max(hour, 0.0) for nurse in nurses for hour in (nurse.starts, nurse.ends) if nurse.ends > 0})
    return [(a, b) for a, b in pairwise(cuts) if any(nurse.starts <= a and b <= nurse.ends for nurse in nurses)]


def may_work(nurse: Nurse, room: str) -> bool:
    return not nurse.units or room.split("|", 1)[0] in nurse.units


def nurse_costs(site: Site, nurse: Nurse, there: Sequence[Need]) -> float:
    """Levels of skill that a nurse lacks, over the patients of a room."""
    return site.weights.skill * sum(max(0, need.skill - nurse.skill) for need in there)


def _staff(site: Site, plan: Plan) -> Iterator[Breach]:
    lines = [one for one in plan.assignments if one.kind == NURSE]
    if not lines:
        return
    shifts = {(nurse.ref, max(nurse.starts, 0.0)): nurse for nurse in site.nurses}
    for one in lines:
        nurse = shifts.get((one.ref, one.at))
        if nurse is None or one.until != nurse.ends or (one.to and not may_work(nurse, one.to)):
            yield Breach("shift", (one.ref,), one.to or "")
    for start, end in segments(site.nurses):
        covered = {one.to for one in lines if one.at <= start and end <= (one.until or 0.0)}
        for room in present(site, plan, start, end):
            if room not in covered:
                yield Breach("staffed", (), room)


def _staff_costs(site: Site, plan: Plan) -> Iterator[tuple[str, float]]:
    lines = [one for one in plan.assignments if one.kind == NURSE]
    if not lines:
        return
    for nurse in site.nurses:
        if nurse.ends <= 0:
            continue
        there = present(site, plan, max(nurse.starts, 0.0), nurse.ends)
        mine = {one.to for one in lines if one.to and one.ref == nurse.ref and one.at == max(nurse.starts, 0.0)}
        load = sum(need.load for room in mine for need in there.get(room, ()))
        yield "overload", site.weights.overload * max(0.0, load - nurse.load)
        for room in sorted(mine & set(there)):
            yield "skill", nurse_costs(site, nurse, there[room])
        for _ in (nurse.rooms & set(there)) - mine:
            yield "continuity", site.weights.continuity


# ------------------------------------------------------------------------------------------------------------ theatres


def surgeon_hours(site: Site, surgeon: str) -> list[tuple[float, float]]:
    """Hours of the day ahead in which a surgeon works; one without a shift here works whenever a theatre is open."""
    shifts = [(max(n.starts, 0.0), min(n.ends, DAY)) for n in site.nurses if n.ref == surgeon and n.ends > 0]
    return sorted(shifts) or [(0.0, DAY)]


def _theatres(site: Site, plan: Plan) -> Iterator[Breach]:
    lines = [one for one in plan.assignments if one.kind == THEATRE and one.to is not None]
    requests = {request.need.ref: request for request in site.requests}
    if site.theatres and any(one.kind == THEATRE for one in plan.assignments):
        operated, given = {one.ref for one in lines}, plan.beds()
        for request in site.requests:
            line = given.get(request.need.ref)
            if request.minutes and line and line.to and request.need.ref not in operated:
                yield Breach("operation", (request.need.ref,), line.to)
    minutes = {one.id: one.minutes for one in site.theatres}
    for one in lines:
        asked, end = requests.get(one.ref), one.until or 0.0
        if asked is None:
            continue  # "known" has said so
        if abs((end - one.at) * 60 - asked.minutes) > 0.01 or end * 60 > minutes.get(one.to or "", 0) + 0.01:
            yield Breach("theatre_minutes", (one.ref,), one.to or "")
        hours = surgeon_hours(site, asked.surgeon)
        if asked.surgeon and not any(a <= one.at + 1e-6 and end <= b + 1e-6 for a, b in hours):
            yield Breach("surgeon", (one.ref,), asked.surgeon)
    for one, other in combinations(lines, 2):
        if max(one.at, other.at) + 1e-6 < min(one.until or 0.0, other.until or 0.0):
            refs = tuple(sorted((one.ref, other.ref)))
            if one.to == other.to:
                yield Breach("theatre_minutes", refs, one.to or "")
            first, second = requests.get(one.ref), requests.get(other.ref)
            if first and second and first.surgeon and first.surgeon == second.surgeon:
                yield Breach("surgeon", refs, first.surgeon)


def _theatre_costs(site: Site, plan: Plan) -> Iterator[tuple[str, float]]:
    opened = {one.to for one in plan.assignments if one.kind == THEATRE and one.to is not None}
    for theatre in site.theatres:
        if theatre.id in opened:
            yield "theatre", theatre.price
