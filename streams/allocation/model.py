"""Beds as an integer programme: some rooms, and some of those who lie in them or wait, while all others stay.

Of all rooms and all needs it is the whole problem: the neighbourhoods of a quick plan and the long solve with its bound
are one model. Beds between which nothing tells a difference are one variable with a capacity; a bed in which somebody
lies is two: now, if he moves away, and from the hour he leaves, if he stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from ortools.sat.python import cp_model
from scipy.optimize import linear_sum_assignment

from streams.allocation.ground import CLOSED, EVICTED, MUST, NOWHERE, Ground, Placing
from streams.allocation.rules import HORIZON

_OLDEST = 130  # years: above any age
_EXTREMES = 2  # keepers of a room, at each end of their ages, to whom a newcomer's age is compared in the relaxation


@dataclass(slots=True)
class Model:
    """The programme, and where its variables lie."""

    cp: cp_model.CpModel
    stay: dict[int, cp_model.IntVar] = field(default_factory=dict)  # keeps his bed
    out: dict[int, cp_model.IntVar] = field(default_factory=dict)  # has none
    now: dict[tuple[int, int, int], cp_model.IntVar] = field(default_factory=dict)  # need, room, class
    later: dict[tuple[int, int], cp_model.IntVar] = field(default_factory=dict)  # request, bed
    span: dict[int, cp_model.IntVar] = field(default_factory=dict)  # room: years between oldest and youngest
    costs: list[tuple[int, cp_model.IntVar]] = field(default_factory=list)
    ages: dict[int, tuple[int, int]] = field(default_factory=dict)  # room: youngest and oldest who are taken to stay


@dataclass(frozen=True, slots=True)
class _Member:
    """A way of being in a room: `present` says whether it is taken."""

    n: int
    present: cp_model.IntVar
    start: float
    end: float


def build(ground: Ground, free: Iterable[int], needs: Iterable[int], near: Placing | None = None) -> Model:
    """`needs` holds everybody who lies in a free room, by plan or in truth; nobody else comes near these rooms.

    With a placing, ages are priced one by one against those who stay in each room there, since the years between oldest
    and youngest have no good relaxation: solved fast, and judged exactly by who asked.
    """
    rooms, some = list(free), list(needs)
    model = Model(cp_model.CpModel(), ages=_hulls(ground, rooms, near) if near else {})
    members: dict[int, list[_Member]] = defaultdict(list)
    for n in some:
        _ways(ground, model, n, rooms, members)
    for room in rooms:
        _capacity(ground, model, room, some)
        if len(ground.of_room[room]) > 1:
            _together(ground, model, room, members[room], ages=near is None)
    model.cp.minimize(
        cp_model.LinearExpr.weighted_sum([var for _, var in model.costs], [cost for cost, _ in model.costs])
    )
    return model


def _hulls(ground: Ground, rooms: Iterable[int], near: Placing) -> dict[int, tuple[int, int]]:
    hulls = {}
    for room in rooms:
        lie = [n for bed in ground.of_room[room] for n in ground.lying[bed] if near.place[n] == bed]
        if ages := [age for n in lie if (age := ground.needs[n].age) is not None]:
            hulls[room] = min(ages), max(ages)
    return hulls


def _aged(ground: Ground, model: Model, n: int, room: int) -> int:
    """What a newcomer's age adds to those who are taken to stay."""
    age, hull = ground.needs[n].age, model.ages.get(room)
    return 0 if age is None or hull is None else ground.age_price * max(hull[0] - age, age - hull[1], 0)


def _ways(ground: Ground, model: Model, n: int, rooms: Sequence[int], members: dict[int, list[_Member]]) -> None:
    cp, price, own = model.cp, ground.price[n], ground.own[n]
    ways = [out := cp.new_bool_var("")]
    model.out[n] = out
    model.costs.append((ground.out[n], out))
    if own != NOWHERE and price[own] < CLOSED:
        ways.append(stay := cp.new_bool_var(""))
        model.stay[n] = stay
        model.costs.append((int(price[own]), stay))
        members[int(ground.room[own])].append(_Member(n, stay, 0.0, ground.end[n]))
    for room in rooms:
        aged = _aged(ground, model, n, room)
        for number, beds in enumerate(ground.classes[room]):
            bed = next((bed for bed in beds if bed != own), NOWHERE)
            if bed == NOWHERE or (cost := int(price[bed]) + aged) >= min(CLOSED, ground.out[n]):
                continue
            ways.append(var := cp.new_bool_var(""))
            model.now[n, room, number] = var
            model.costs.append((cost, var))
            members[room].append(_Member(n, var, 0.0, float("inf")))
            if n < ground.stays:
                continue
            for later in beds:
                if ground.lying[later] and (hour := float(ground.hour[later])) <= HORIZON:
                    total = cost + ground.waits(n, hour)
                    if total < ground.out[n]:
                        ways.append(var := cp.new_bool_var(""))
                        model.later[n, later] = var
                        model.costs.append((total, var))
                        members[room].append(_Member(n, var, hour, float("inf")))
    cp.add_exactly_one(ways)


def _capacity(ground: Ground, model: Model, room: int, some: Sequence[int]) -> None:
    cp = model.cp
    for number, beds in enumerate(ground.classes[room]):
        takes: list[cp_model.LinearExprT] = [var for n in some if (var := model.now.get((n, room, number))) is not None]
        for bed in beds:
            lying = ground.lying[bed]
            if len(lying) == 1:
                n = lying[0]
                remains = model.out[n] if n not in model.stay else model.stay[n] + model.out[n]
                takes.append(remains)
                successors = [var for m in some if (var := model.later.get((m, bed))) is not None]
                if successors:
                    cp.add(sum(successors) <= remains)
            elif lying:
                taken = cp.new_bool_var("")
                for n in lying:
                    cp.add_implication(model.out[n], taken)
                    if n in model.stay:
                        cp.add_implication(model.stay[n], taken)
                cp.add_at_most_one([model.stay[n] for n in lying if n in model.stay])
                takes.append(taken)
        if takes:
            cp.add(sum(takes) <= len(beds))


def _together(ground: Ground, model: Model, room: int, members: Sequence[_Member], ages: bool) -> None:
    """Who shares a room at each hour at which somebody may come in."""
    size = len(ground.of_room[room])
    for hour in sorted({member.start for member in members}):
        there = [member for member in members if member.start <= hour < member.end]
        _sexes(ground, model, there, size)
        _kinds(ground, model, there, size)
    if ages and ground.age_price:
        _ages(ground, model, room, members)


def _sexes(ground: Ground, model: Model, there: Sequence[_Member], size: int) -> None:
    women = [one.present for one in there if ground.needs[one.n].sex == "F"]
    men = [one.present for one in there if ground.needs[one.n].sex == "M"]
    if women and men:
        of_men = model.cp.new_bool_var("")
        model.cp.add(sum(men) <= size * of_men)
        model.cp.add(sum(women) <= size - size * of_men)


def _kinds(ground: Ground, model: Model, there: Sequence[_Member], size: int) -> None:
    kinds: dict[int, list[cp_model.IntVar]] = defaultdict(list)
    for one in there:
        kinds[ground.kind[one.n]].append(one.present)
    if len(kinds) > 1:
        chosen = {kind: model.cp.new_bool_var("") for kind in kinds}
        model.cp.add_exactly_one(chosen.values())
        for kind, present in kinds.items():
            model.cp.add(sum(present) <= size * chosen[kind])


def _ages(ground: Ground, model: Model, room: int, members: Sequence[_Member]) -> None:
    ages = {one.n: age for one in members if (age := ground.needs[one.n].age) is not None}
    if len(set(ages.values())) < 2:
        return
    cp = model.cp
    most = max(ages.values()) - min(ages.values())
    span = cp.new_int_var(0, most, "")
    model.span[room] = span
    model.costs.append((ground.age_price, span))
    for hour in sorted({member.start for member in members}):
        there = [one for one in members if one.start <= hour < one.end and one.n in ages]
        if len({ages[one.n] for one in there}) < 2:
            continue
        low, high = cp.new_int_var(0, _OLDEST, ""), cp.new_int_var(0, _OLDEST, "")
        cp.add(span >= high - low)
        lie = sorted(
            (one for one in there if one.n in model.stay and one.start == 0.0 and one.end < float("inf")),
            key=lambda one: ages[one.n],
        )
        for one in there:
            cp.add(high >= ages[one.n] * one.present)
            cp.add(low <= _OLDEST - (_OLDEST - ages[one.n]) * one.present)
            for old in lie[-_EXTREMES:]:  # cuts: implied, but not by their relaxation
                if ages[one.n] > ages[old.n]:
                    cp.add(high >= ages[old.n] * old.present + (ages[one.n] - ages[old.n]) * one.present)
            for young in lie[:_EXTREMES]:
                if ages[one.n] < ages[young.n]:
                    low_with = (_OLDEST - ages[young.n]) * young.present + (ages[young.n] - ages[one.n]) * one.present
                    cp.add(low <= _OLDEST - low_with)


def hint(ground: Ground, model: Model, placing: Placing) -> None:
    """Begin from a placing."""
    place = placing.place
    for n, var in model.out.items():
        model.cp.add_hint(var, place[n] == NOWHERE)
    for n, var in model.stay.items():
        model.cp.add_hint(var, place[n] == ground.own[n])
    later = {n: placing.hour(n) > 0 for n in model.out if place[n] != NOWHERE}
    for (n, room, number), var in model.now.items():
        here = place[n] != ground.own[n] and place[n] in ground.classes[room][number] and not later[n]
        model.cp.add_hint(var, here)
    for (n, bed), var in model.later.items():
        model.cp.add_hint(var, place[n] == bed and later[n])
    for room, var in model.span.items():
        model.cp.add_hint(var, int(placing.span[room]))


def read(ground: Ground, model: Model, solver: cp_model.CpSolver, place: list[int]) -> list[int]:
    """A placing from a solution: beds of a class are given to who had them in `place`, then in order."""
    found = _certain(ground, model, solver, place)
    comes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for (n, room, number), var in model.now.items():
        if solver.boolean_value(var):
            comes[room, number].append(n)
    return _bedded(ground, found, comes, place)


def _certain(ground: Ground, model: Model, solver: cp_model.CpSolver, place: list[int]) -> list[int]:
    """Who has no bed, keeps his own, or comes when it is left; others as in `place`."""
    found = list(place)
    for n, var in model.out.items():
        if solver.boolean_value(var):
            found[n] = NOWHERE
    for n, var in model.stay.items():
        if solver.boolean_value(var):
            found[n] = ground.own[n]
    for (n, bed), var in model.later.items():
        if solver.boolean_value(var):
            found[n] = bed
    return found


def _bedded(ground: Ground, found: list[int], comes: dict[tuple[int, int], list[int]], place: list[int]) -> list[int]:
    """`comes`: who comes into which class of which room."""
    for some in comes.values():
        for n in some:
            found[n] = NOWHERE - 1
    for (room, number), some in comes.items():
        beds = ground.classes[room][number]
        empty = [b for b in beds if not any(found[m] in (b, NOWHERE) for m in ground.lying[b])]
        for n in some:
            if place[n] in empty and place[n] != ground.own[n]:
                found[n] = place[n]
                empty.remove(place[n])
        for n in some:
            if found[n] < NOWHERE:
                found[n] = next((bed for bed in empty if bed != ground.own[n]), empty[0])
                empty.remove(found[n])
    return found


def build_musts(ground: Ground) -> tuple[Model, list[list[int]]]:
    """Only who must have a bed, and the fewest moves: the whole site in a second. (programme, groups): those of one
    group no rule tells apart, so that how many of a group come into a class of beds is one number, under the first of
    them in `now`."""
    model = Model(cp_model.CpModel())
    members: dict[int, list[_Member]] = defaultdict(list)
    groups: dict[tuple[str, int, frozenset[str]], list[int]] = defaultdict(list)
    comes: dict[int, cp_model.LinearExprT] = {}
    musts = [n for n in range(len(ground.needs)) if ground.must(n)]
    for n in musts:
        own = ground.own[n]
        model.out[n] = out = model.cp.new_bool_var("")
        model.costs.append((EVICTED if n < ground.stays else MUST, out))
        if ground.price[n].min(initial=CLOSED) >= CLOSED:
            model.cp.add(out == 1)
            continue
        ways = [out]
        if own != NOWHERE and ground.price[n, own] < CLOSED:
            model.stay[n] = stay = model.cp.new_bool_var("")
            ways.append(stay)
            members[int(ground.room[own])].append(_Member(n, stay, 0.0, ground.end[n]))
        for bed in np.flatnonzero((ground.price[n] < CLOSED) & (ground.hour > 0) & (ground.hour <= ground.due[n])):
            if n >= ground.stays and ground.hour[bed] <= HORIZON:
                model.later[n, int(bed)] = var = model.cp.new_bool_var("")
                ways.append(var)
                members[int(ground.room[bed])].append(_Member(n, var, float(ground.hour[bed]), float("inf")))
        comes[n] = 1 - sum(ways)
        model.cp.add_at_most_one(ways)
        need = ground.needs[n]
        groups[need.sex, ground.kind[n], need.needs].append(n)
    for group in groups.values():
        first, slots = group[0], []
        for room, classes in enumerate(ground.classes):
            for number, beds in enumerate(classes):
                if ground.price[first, beds[0]] < CLOSED:
                    var = model.cp.new_int_var(0, min(len(group), len(beds)), "")
                    model.now[first, room, number] = var
                    model.costs.append((1, var))
                    members[room].append(_Member(first, var, 0.0, float("inf")))
                    slots.append(var)
        model.cp.add(sum(slots) == sum(comes[n] for n in group))
    some = sorted({*(group[0] for group in groups.values()), *(n for n in musts if n >= ground.stays)})
    for room, beds in enumerate(ground.of_room):
        _capacity(ground, model, room, some)
        if len(beds) > 1:
            _together(ground, model, room, members[room], ages=False)
    model.cp.minimize(
        cp_model.LinearExpr.weighted_sum([var for _, var in model.costs], [cost for cost, _ in model.costs])
    )
    return model, list(groups.values())


def read_musts(
    ground: Ground, model: Model, groups: list[list[int]], solver: cp_model.CpSolver, place: list[int]
) -> list[int]:
    """A placing of those who must have a bed, of each group where it costs least together; nobody else has one."""
    bare = [bed if ground.must(n) else NOWHERE for n, bed in enumerate(place)]
    found = _certain(ground, model, solver, bare)
    certain = {n for n, var in [*model.out.items(), *model.stay.items()] if solver.boolean_value(var)}
    certain |= {n for (n, _), var in model.later.items() if solver.boolean_value(var)}
    comes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for group in groups:
        slots = [
            (room, number)
            for (n, room, number), var in model.now.items()
            if n == group[0]
            for _ in range(solver.value(var))
        ]
        some = [n for n in group if n not in certain]
        if slots:
            costs = ground.price[np.ix_(some, [ground.classes[room][number][0] for room, number in slots])]
            for row, column in zip(*linear_sum_assignment(costs), strict=True):
                comes[slots[column]].append(some[row])
    return _bedded(ground, found, comes, bare)
