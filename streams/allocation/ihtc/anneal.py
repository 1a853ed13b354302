"""Compiled: simulated annealing (Kirkpatrick, Gelatt, Vecchi 1983) over patients and nurses together.

Every state keeps all hard rules but one: a mandatory patient may be left out, at a high price.
"""

from __future__ import annotations

import numpy as np

from streams.allocation.ihtc.instance import UNSCHEDULED
from streams.allocation.ihtc.moves import (
    below,
    compiled,
    inlined,
    exchange,
    give_nurse,
    keep,
    nurse_price,
    price_in,
    price_out,
    relocate,
    room_fits,
    surgeon_fits,
    theatre_fits,
    theatre_for,
    unit,
)
from streams.allocation.ihtc.tables import MOST_MOVED, Best, Longs, Problem, Random, State


@inlined
def move_patient(pr: Problem, st: State, random: Random, kind: int, limit: float) -> bool:
    """kind 0: anywhere, or out; 1: another room; 2: another day; 3: another theatre."""
    patients = len(pr.surgeon)
    patient = below(random, patients)
    admitted = st.day[patient] != UNSCHEDULED
    if not admitted:
        kind = 0
    elif kind == 0 and not pr.mandatory[patient] and below(random, 10) == 0:
        return relocate(pr, st, patient, UNSCHEDULED, 0, 0, limit)
    day, room, theatre = st.day[patient], st.room[patient], st.theatre[patient]
    if kind in (0, 2):
        day = pr.release[patient] + below(random, pr.due[patient] - pr.release[patient] + 1)
    if kind in (0, 1):
        if pr.room_count[patient] == 0:
            return False
        room = pr.rooms[patient, below(random, pr.room_count[patient])]
    if kind == 1 and room == st.room[patient]:
        return False
    if kind == 2 and day == st.day[patient]:
        return False
    if kind in (0, 2) and not surgeon_fits(pr, st, patient, day, -1):
        return False
    if kind != 3 and not room_fits(pr, st, patient, day, room, -1):
        return False
    if kind == 3 or (kind != 1 and below(random, 4) == 0):
        theatre = below(random, st.theatre_left.shape[0])
        if not theatre_fits(pr, st, patient, day, theatre, -1):
            return False
        if kind == 3 and theatre == st.theatre[patient]:
            return False
    elif kind != 1:
        theatre = theatre_for(pr, st, random, patient, day)
        if theatre < 0:
            return False
    return relocate(pr, st, patient, day, room, theatre, limit)


@inlined
def swap_patients(pr: Problem, st: State, random: Random, kind: int, limit: float) -> bool:
    """Two patients change places: 0 day, room and theatre; 1 rooms; 2 days and theatres."""
    patients = len(pr.surgeon)
    one, two = below(random, patients), below(random, patients)
    if one == two or st.day[two] == UNSCHEDULED:
        return False
    if st.day[one] == UNSCHEDULED:
        if pr.mandatory[two]:
            return False
        kind = 0
    day, room, theatre = st.day[two], st.room[two], st.theatre[two]
    day_two, room_two, theatre_two = st.day[one], st.room[one], st.theatre[one]
    if kind == 1:
        if room == room_two:
            return False
        day, theatre, day_two, theatre_two = day_two, theatre_two, day, theatre
    elif kind == 2:
        if day == day_two:
            return False
        room, room_two = room_two, room
    if not (pr.release[one] <= day <= pr.due[one] and pr.compatible[one, room]):
        return False
    if day_two != UNSCHEDULED and not (
        pr.release[two] <= day_two <= pr.due[two] and pr.compatible[two, room_two]
    ):
        return False
    if not (
        room_fits(pr, st, one, day, room, two)
        and surgeon_fits(pr, st, one, day, two)
        and theatre_fits(pr, st, one, day, theatre, two)
    ):
        return False
    if day_two != UNSCHEDULED and not (
        room_fits(pr, st, two, day_two, room_two, one)
        and surgeon_fits(pr, st, two, day_two, one)
        and theatre_fits(pr, st, two, day_two, theatre_two, one)
    ):
        return False
    return exchange(pr, st, one, day, room, theatre, two, day_two, room_two, theatre_two, limit)


@inlined
def make_way(pr: Problem, st: State, random: Random, limit: float) -> bool:
    """A patient takes a place that does not fit; whoever is in the way goes elsewhere, or out."""
    patients = len(pr.surgeon)
    patient = below(random, patients)
    if pr.room_count[patient] == 0:
        return False
    day = pr.release[patient] + below(random, pr.due[patient] - pr.release[patient] + 1)
    room = pr.rooms[patient, below(random, pr.room_count[patient])]
    theatre = below(random, st.theatre_left.shape[0])
    if pr.minutes[patient] > st.theatre_left[theatre, day] and below(random, 2) == 0:
        cheap = theatre_for(pr, st, random, patient, day)
        theatre = cheap if cheap >= 0 else theatre
    st.way[0] = 0
    delta = step_out(pr, st, patient) if st.day[patient] != UNSCHEDULED else step_aside(st, patient)
    fits = True
    for d in range(day, min(pr.days, day + pr.stay[patient])):
        while fits and st.genders[room, d, 1 - pr.gender[patient]] > 0:
            victim = lying_there(pr, st, random, room, d, 1 - pr.gender[patient])
            fits = victim >= 0 and st.way[0] < MOST_MOVED
            if fits:
                delta += step_out(pr, st, victim)
        while fits and st.count[room, d] >= pr.capacity[room]:
            victim = lying_there(pr, st, random, room, d, pr.gender[patient])
            fits = victim >= 0 and st.way[0] < MOST_MOVED
            if fits:
                delta += step_out(pr, st, victim)
        if not fits:
            break
    while fits and not theatre_fits(pr, st, patient, day, theatre, -1):
        victim = operated_then(pr, st, random, day, theatre, -1)
        fits = victim >= 0 and st.way[0] < MOST_MOVED
        if fits:
            delta += step_out(pr, st, victim)
    while fits and not surgeon_fits(pr, st, patient, day, -1):
        victim = operated_then(pr, st, random, day, -1, pr.surgeon[patient])
        fits = victim >= 0 and st.way[0] < MOST_MOVED
        if fits:
            delta += step_out(pr, st, victim)
    if fits:
        delta += price_in(pr, st, patient, day, room, theatre)
        for number in range(1, st.way[0]):
            delta += settle(pr, st, random, st.moved[number, 0])
        if delta <= limit:
            st.cost[0] += delta
            return True
    for number in range(st.way[0]):
        if st.day[st.moved[number, 0]] != UNSCHEDULED:
            price_out(pr, st, st.moved[number, 0])
    for number in range(st.way[0]):
        if st.moved[number, 1] != UNSCHEDULED:
            price_in(pr, st, st.moved[number, 0], st.moved[number, 1], st.moved[number, 2], st.moved[number, 3])
    return False


@inlined
def step_aside(st: State, patient: int) -> int:
    """Note where a patient is, for the way back."""
    number = st.way[0]
    st.moved[number, 0] = patient
    st.moved[number, 1] = st.day[patient]
    st.moved[number, 2] = st.room[patient]
    st.moved[number, 3] = st.theatre[patient]
    st.way[0] = number + 1
    return 0


@inlined
def step_out(pr: Problem, st: State, patient: int) -> int:
    step_aside(st, patient)
    return price_out(pr, st, patient)


@inlined
def lying_there(pr: Problem, st: State, random: Random, room: int, day: int, gender: int) -> int:
    """A patient of the gender in the room, no occupant; -1 where there is none."""
    chosen, seen = -1, 0
    for place in range(st.count[room, day]):
        person = st.lying[room, day, place]
        if person < len(pr.surgeon) and pr.gender[person] == gender:
            seen += 1
            if below(random, seen) == 0:
                chosen = person
    return chosen


@inlined
def operated_then(pr: Problem, st: State, random: Random, day: int, theatre: int, surgeon: int) -> int:
    """A patient operated on that day in a theatre, or by a surgeon; -1 where there is none."""
    chosen, seen = -1, 0
    for patient in range(len(pr.surgeon)):
        if st.day[patient] == day and (st.theatre[patient] == theatre if theatre >= 0 else pr.surgeon[patient] == surgeon):
            seen += 1
            if below(random, seen) == 0:
                chosen = patient
    return chosen


@inlined
def settle(pr: Problem, st: State, random: Random, patient: int) -> int:
    """The first of some places drawn by chance that fits; else the patient stays out."""
    for _ in range(12):
        day = pr.release[patient] + below(random, pr.due[patient] - pr.release[patient] + 1)
        room = pr.rooms[patient, below(random, pr.room_count[patient])]
        if surgeon_fits(pr, st, patient, day, -1) and room_fits(pr, st, patient, day, room, -1):
            theatre = theatre_for(pr, st, random, patient, day)
            if theatre >= 0:
                return price_in(pr, st, patient, day, room, theatre)
    return 0


@inlined
def nurse_near(pr: Problem, st: State, random: Random, room: int, shift: int) -> int:
    """Somebody on duty, as often as not one who cares for a person of the room in another shift."""
    day = shift // pr.per_day
    if st.count[room, day] > 0 and below(random, 4) > 0:
        person = st.lying[room, day, below(random, st.count[room, day])]
        start = st.day[person]
        length = min(pr.days, start + pr.stay[person]) - start
        other = st.nurse[room, start * pr.per_day + below(random, length * pr.per_day)]
        if pr.max_load[other, shift] >= 0:
            return int(other)
    return int(pr.on_duty[shift, below(random, pr.duty_count[shift])])


@inlined
def change_nurse(pr: Problem, st: State, random: Random, limit: float) -> bool:
    room, shift = below(random, st.nurse.shape[0]), below(random, pr.shifts)
    if st.count[room, shift // pr.per_day] == 0:
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
        if kind < 4:
            taken = move_patient(pr, st, random, kind, limit)
        elif kind < 7:
            taken = swap_patients(pr, st, random, kind - 4, limit)
        elif kind == 7:
            taken = change_nurse(pr, st, random, limit)
        elif kind == 8:
            taken = swap_nurses(pr, st, random, limit)
        elif kind == 10:
            taken = make_way(pr, st, random, limit)
        else:
            taken = nurse_stretch(pr, st, random, limit)
        tally[kind, 0] += 1
        if taken:
            tally[kind, 1] += 1
            if st.cost[0] < best.cost[0]:
                keep(st, best)
