"""Compiled: simulated annealing (Kirkpatrick, Gelatt, Vecchi 1983) over patients and nurses together.

Every state keeps all hard rules but one: a mandatory patient may be left out, at a high price.
"""

from __future__ import annotations

import numpy as np

from streams.allocation.ihtc.instance import UNSCHEDULED
from streams.allocation.ihtc.moves import (
    aim,
    below,
    compiled,
    give_nurse,
    inlined,
    keep,
    nurse_price,
    price_in,
    price_out,
    rearrange,
    restore,
    room_fits,
    surgeon_fits,
    theatre_fits,
    theatre_for,
    unit,
)
from streams.allocation.ihtc.tables import MOST_MOVED, Best, Longs, Problem, Random, State

NOBODY, OCCUPANT = -1, -2


@inlined
def move_patient(pr: Problem, st: State, random: Random, kind: int) -> int:
    """kind 0: anywhere, or out; 1: another room; 2: another day; 3: another theatre. Gives the number of patients to
    rearrange, 0 where there is nothing to try.
    """
    patient = below(random, len(pr.surgeon))
    if st.day[patient] == UNSCHEDULED:
        kind = 0
    elif kind == 0 and not pr.mandatory[patient] and below(random, 10) == 0:
        aim(st, 0, patient, UNSCHEDULED, 0, 0)
        return 1
    day, room, theatre = st.day[patient], st.room[patient], st.theatre[patient]
    if kind in (0, 2):
        day = pr.release[patient] + below(random, pr.due[patient] - pr.release[patient] + 1)
        if (kind == 2 and day == st.day[patient]) or not surgeon_fits(pr, st, patient, day, -1):
            return 0
    if kind in (0, 1):
        if pr.room_count[patient] == 0:
            return 0
        room = pr.rooms[patient, below(random, pr.room_count[patient])]
        if kind == 1 and room == st.room[patient]:
            return 0
    if kind != 3 and not room_fits(pr, st, patient, day, room, -1):
        return 0
    if kind == 3 or (kind != 1 and below(random, 4) == 0):
        theatre = below(random, st.theatre_left.shape[0])
        if (kind == 3 and theatre == st.theatre[patient]) or not theatre_fits(pr, st, patient, day, theatre, -1):
            return 0
    elif kind != 1:
        theatre = theatre_for(pr, st, random, patient, day)
        if theatre < 0:
            return 0
    aim(st, 0, patient, day, room, theatre)
    return 1


@inlined
def swap_patients(pr: Problem, st: State, random: Random, kind: int) -> int:
    """Two patients change places: 0 day, room and theatre; 1 rooms; 2 days and theatres."""
    patients = len(pr.surgeon)
    one, two = below(random, patients), below(random, patients)
    if one == two or st.day[two] == UNSCHEDULED:
        return 0
    if st.day[one] == UNSCHEDULED:
        if pr.mandatory[two]:
            return 0
        kind = 0
    day, room, theatre = st.day[two], st.room[two], st.theatre[two]
    day_two, room_two, theatre_two = st.day[one], st.room[one], st.theatre[one]
    if kind == 1:
        if room == room_two:
            return 0
        day, theatre, day_two, theatre_two = day_two, theatre_two, day, theatre
    elif kind == 2:
        if day == day_two:
            return 0
        room, room_two = room_two, room
    if not may_swap(pr, st, one, day, room, theatre, two):
        return 0
    if day_two != UNSCHEDULED and not may_swap(pr, st, two, day_two, room_two, theatre_two, one):
        return 0
    aim(st, 0, one, day, room, theatre)
    aim(st, 1, two, day_two, room_two, theatre_two)
    return 2


@inlined
def may_swap(pr: Problem, st: State, patient: int, day: int, room: int, theatre: int, beside: int) -> bool:
    """Whether the place fits once `beside` is out of his or hers."""
    return bool(
        pr.release[patient] <= day <= pr.due[patient]
        and pr.compatible[patient, room]
        and surgeon_fits(pr, st, patient, day, beside)
        and room_fits(pr, st, patient, day, room, beside)
        and theatre_fits(pr, st, patient, day, theatre, beside)
    )


@inlined
def make_way(pr: Problem, st: State, random: Random) -> tuple[int, bool, int]:
    """A patient takes a place that does not fit; whoever is in the way goes elsewhere, or out. Gives the number of
    patients moved, whether it went, and the difference of the cost.
    """
    patient = below(random, len(pr.surgeon))
    if pr.room_count[patient] == 0:
        return 0, False, 0
    day = pr.release[patient] + below(random, pr.due[patient] - pr.release[patient] + 1)
    room = pr.rooms[patient, below(random, pr.room_count[patient])]
    theatre = theatre_for(pr, st, random, patient, day) if below(random, 2) == 0 else -1
    if theatre < 0:
        theatre = below(random, st.theatre_left.shape[0])
    count, delta, leaving = 0, 0, patient
    while leaving >= 0:
        if count == MOST_MOVED:
            return count, False, 0
        aim(st, count, leaving, UNSCHEDULED, 0, 0)
        count += 1
        if st.day[leaving] != UNSCHEDULED:
            delta += price_out(pr, st, leaving)
        leaving = in_the_way(pr, st, random, patient, day, room, theatre)
    if leaving != NOBODY:
        return count, False, 0
    st.target[0, 0], st.target[0, 1], st.target[0, 2] = day, room, theatre
    for number in range(count):
        if number > 0:
            settle(pr, st, random, number)
        if st.target[number, 0] != UNSCHEDULED:
            to = st.target[number]
            delta += price_in(pr, st, st.moved[number, 0], to[0], to[1], to[2])
    return count, True, delta


@inlined
def in_the_way(pr: Problem, st: State, random: Random, patient: int, day: int, room: int, theatre: int) -> int:
    """One of the patients who must leave; NOBODY: the place fits; OCCUPANT: it never will."""
    chosen, seen = NOBODY, 0
    for d in range(day, min(pr.days, day + pr.stay[patient])):
        others = st.genders[room, d, 1 - pr.gender[patient]] > 0
        if others or st.persons[room, d] >= pr.capacity[room]:
            for place in range(st.persons[room, d]):
                person = st.lying[room, d, place]
                if person < len(pr.surgeon) and (not others or pr.gender[person] != pr.gender[patient]):
                    seen += 1
                    if below(random, seen) == 0:
                        chosen = person
            return chosen if seen > 0 else OCCUPANT
    if not theatre_fits(pr, st, patient, day, theatre, -1):
        surgeon = -1
    elif not surgeon_fits(pr, st, patient, day, -1):
        surgeon, theatre = pr.surgeon[patient], -1
    else:
        return NOBODY
    for other in range(len(pr.surgeon)):
        if st.day[other] == day and (st.theatre[other] == theatre or pr.surgeon[other] == surgeon):
            seen += 1
            if below(random, seen) == 0:
                chosen = other
    return chosen if seen > 0 else OCCUPANT


@inlined
def settle(pr: Problem, st: State, random: Random, number: int) -> None:
    """Aim whoever had to leave at the first of some places drawn by chance that fits; else he or she stays out."""
    patient = st.moved[number, 0]
    for _ in range(12):
        day = pr.release[patient] + below(random, pr.due[patient] - pr.release[patient] + 1)
        room = pr.rooms[patient, below(random, pr.room_count[patient])]
        if surgeon_fits(pr, st, patient, day, -1) and room_fits(pr, st, patient, day, room, -1):
            theatre = theatre_for(pr, st, random, patient, day)
            if theatre >= 0:
                st.target[number, 0], st.target[number, 1], st.target[number, 2] = day, room, theatre
                return


@inlined
def nurse_near(pr: Problem, st: State, random: Random, room: int, shift: int) -> int:
    """Somebody on duty, as often as not one who cares for a person of the room in another shift."""
    day = shift // pr.per_day
    if st.persons[room, day] > 0 and below(random, 4) > 0:
        person = st.lying[room, day, below(random, st.persons[room, day])]
        start = st.day[person]
        length = min(pr.days, start + pr.stay[person]) - start
        other = st.nurse[room, start * pr.per_day + below(random, length * pr.per_day)]
        if pr.max_load[other, shift] >= 0:
            return int(other)
    return int(pr.on_duty[shift, below(random, pr.duty_count[shift])])


@inlined
def change_nurse(pr: Problem, st: State, random: Random, limit: float) -> bool:
    room, shift = below(random, st.nurse.shape[0]), below(random, pr.shifts)
    if st.persons[room, shift // pr.per_day] == 0:
        return False
    nurse = nurse_near(pr, st, random, room, shift)
    if nurse == st.nurse[room, shift]:
        return False
    delta = nurse_price(pr, st, room, shift, nurse)
    if delta > limit:
        return False
    st.cost[0] += give_nurse(pr, st, room, shift, nurse)
    return True


@inlined
def swap_nurses(pr: Problem, st: State, random: Random, limit: float) -> bool:
    """Two rooms change their nurses in a shift."""
    rooms = st.nurse.shape[0]
    one, two, shift = below(random, rooms), below(random, rooms), below(random, pr.shifts)
    nurse, other = st.nurse[one, shift], st.nurse[two, shift]
    if nurse == other:
        return False
    delta = give_nurse(pr, st, one, shift, other)
    delta += give_nurse(pr, st, two, shift, nurse)
    if delta <= limit:
        st.cost[0] += delta
        return True
    give_nurse(pr, st, one, shift, nurse)
    give_nurse(pr, st, two, shift, other)
    return False


@inlined
def nurse_stretch(pr: Problem, st: State, random: Random, limit: float) -> bool:
    """A nurse takes a room over in all of her or his shifts among the next few days."""
    room, shift = below(random, st.nurse.shape[0]), below(random, pr.shifts)
    nurse = nurse_near(pr, st, random, room, shift)
    last = min(pr.shifts, shift + pr.per_day * (1 + below(random, 7)))
    old = st.old
    delta = 0
    for s in range(shift, last):
        old[s - shift] = -1
        if pr.max_load[nurse, s] >= 0 and st.nurse[room, s] != nurse:
            old[s - shift] = st.nurse[room, s]
            delta += give_nurse(pr, st, room, s, nurse)
    if delta <= limit:
        st.cost[0] += delta
        return True
    for s in range(shift, last):
        if old[s - shift] >= 0:
            give_nurse(pr, st, room, s, old[s - shift])
    return False


@compiled
def anneal(
    pr: Problem,
    st: State,
    best: Best,
    random: Random,
    shares: Longs,
    hot: float,
    cold: float,
    steps: int,
    tally: Longs,
) -> None:
    """Try `steps` moves, cooling geometrically from hot to cold. `shares` (11,) cumulative chances of the moves in
    thousandths; `tally` (11, 2) counts what was tried and taken.
    """
    temperature = hot
    every = 256
    factor = (cold / hot) ** (every / max(steps, every))
    for step in range(steps):
        if step % every == 0 and step:
            temperature *= factor
        limit = -temperature * np.log(unit(random))
        draw = below(random, 1000)
        kind = 0
        while draw >= shares[kind]:
            kind += 1
        if kind < 8:
            if kind == 7:
                count, fits, delta = make_way(pr, st, random)
            else:
                count = move_patient(pr, st, random, kind) if kind < 4 else swap_patients(pr, st, random, kind - 4)
                fits, delta = rearrange(pr, st, count)
            taken = count > 0 and fits and delta <= limit
            if taken:
                st.cost[0] += delta
            else:
                restore(pr, st, count)
        elif kind == 8:
            taken = change_nurse(pr, st, random, limit)
        elif kind == 9:
            taken = swap_nurses(pr, st, random, limit)
        else:
            taken = nurse_stretch(pr, st, random, limit)
        tally[kind, 0] += 1
        if taken:
            tally[kind, 1] += 1
            if st.cost[0] < best.cost[0]:
                keep(st, best)
