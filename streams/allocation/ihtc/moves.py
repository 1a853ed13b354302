"""Compiled: what a change of a solution costs, and the change itself.

`Weights` are numbered as COSTS are. A change gives back the difference of the whole cost, so that no sum is ever made
anew; tests compare it with the judge's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np

from streams.allocation.ihtc.instance import UNSCHEDULED, Ints
from streams.allocation.ihtc.tables import Best, Problem, Random, State

P = ParamSpec("P")
R = TypeVar("R")


# No reference counts: counting those of forty arrays at each call, atomically, took nine tenths of the time. So
# nothing here may make an array. Kept on the disk only where NUMBA_CACHE_DIR says where: numba would not notice that a
# function of another file, copied into this one's, has changed.
KEPT = "NUMBA_CACHE_DIR" in os.environ
OPTIONS: dict[str, Any] = {"cache": KEPT, "nogil": True, "error_model": "numpy", "_nrt": False}
INLINED = OPTIONS | {"forceinline": True, "no_cpython_wrapper": True}


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Without the interpreter's lock, so that threads share the cores; what was compiled is kept in a folder."""
    return cast("Callable[P, R]", numba.njit(**OPTIONS)(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """For compiled code only, copied to where it is called: a call would hand over three hundred words."""
    return cast("Callable[P, R]", numba.njit(**INLINED)(function))


MIXED_AGE, SKILL, CONTINUITY, WORKLOAD, OPEN_THEATRE, TRANSFER, DELAY, OPTIONAL, MANDATORY = range(9)


@inlined
def below(random: Random, bound: int) -> int:
    """A number from 0 to bound - 1, by xorshift64* (Vigna 2016); bound is small beside 2^32."""
    x = random[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    random[0] = x
    high = (x * np.uint64(2685821657736338717)) >> np.uint64(32)
    return int(np.int64((high * np.uint64(bound)) >> np.uint64(32)))


@inlined
def unit(random: Random) -> float:
    """A number above 0, at most 1."""
    return (below(random, 1 << 30) + 1) / float(1 << 30)


@inlined
def spread(ages: Ints) -> int:
    """Oldest age group present less the youngest."""
    low, high = -1, 0
    for age in range(len(ages)):
        if ages[age] > 0:
            if low < 0:
                low = age
            high = age
    return high - low if low >= 0 else 0


@inlined
def price_out(pr: Problem, st: State, person: int) -> int:
    """Put a person out of room and theatre. Gives the difference of the cost."""
    w = pr.weights
    day, room = st.day[person], st.room[person]
    last = min(pr.days, day + pr.stay[person])
    gender, age = pr.gender[person], pr.age_group[person]
    delta = 0
    for d in range(day, last):
        before = spread(st.ages[room, d])
        st.ages[room, d, age] -= 1
        delta += w[MIXED_AGE] * (spread(st.ages[room, d]) - before)
        st.genders[room, d, gender] -= 1
        end = st.persons[room, d] - 1
        st.persons[room, d] = end
        for place in range(end):
            if st.lying[room, d, place] == person:
                st.lying[room, d, place] = st.lying[room, d, end]
                break
    start = day * pr.per_day
    for s in range(start, last * pr.per_day):
        nurse = st.nurse[room, s]
        work = pr.workload[person, s - start]
        over = st.load[nurse, s] - pr.max_load[nurse, s]
        if over > 0:
            delta -= w[WORKLOAD] * min(over, work)
        st.load[nurse, s] -= work
        missing = pr.skill_required[person, s - start] - pr.nurse_skill[nurse]
        if missing > 0:
            delta -= w[SKILL] * missing
        times = st.caring[person, nurse] - 1
        st.caring[person, nurse] = times
        if times == 0:
            delta -= w[CONTINUITY]
    st.day[person] = UNSCHEDULED
    if person < len(pr.surgeon):
        theatre, surgeon = st.theatre[person], pr.surgeon[person]
        st.theatre_left[theatre, day] += pr.minutes[person]
        st.surgeon_left[surgeon, day] += pr.minutes[person]
        st.theatre_count[theatre, day] -= 1
        if st.theatre_count[theatre, day] == 0:
            delta -= w[OPEN_THEATRE]
        st.surgeon_at[surgeon, day, theatre] -= 1
        if st.surgeon_at[surgeon, day, theatre] == 0:
            st.surgeon_theatres[surgeon, day] -= 1
            if st.surgeon_theatres[surgeon, day] > 0:
                delta -= w[TRANSFER]
        delta -= w[DELAY] * (day - pr.release[person])
        delta += w[MANDATORY] if pr.mandatory[person] else w[OPTIONAL]
    return delta


@inlined
def price_in(pr: Problem, st: State, person: int, day: int, room: int, theatre: int) -> int:
    """Put a person who is nowhere into room and theatre. Gives the difference of the cost."""
    w = pr.weights
    last = min(pr.days, day + pr.stay[person])
    gender, age = pr.gender[person], pr.age_group[person]
    delta = 0
    for d in range(day, last):
        before = spread(st.ages[room, d])
        st.ages[room, d, age] += 1
        delta += w[MIXED_AGE] * (spread(st.ages[room, d]) - before)
        st.genders[room, d, gender] += 1
        st.lying[room, d, st.persons[room, d]] = person
        st.persons[room, d] += 1
    start = day * pr.per_day
    for s in range(start, last * pr.per_day):
        nurse = st.nurse[room, s]
        work = pr.workload[person, s - start]
        st.load[nurse, s] += work
        over = st.load[nurse, s] - pr.max_load[nurse, s]
        if over > 0:
            delta += w[WORKLOAD] * min(over, work)
        missing = pr.skill_required[person, s - start] - pr.nurse_skill[nurse]
        if missing > 0:
            delta += w[SKILL] * missing
        times = st.caring[person, nurse]
        st.caring[person, nurse] = times + 1
        if times == 0:
            delta += w[CONTINUITY]
    st.day[person] = day
    st.room[person] = room
    if person < len(pr.surgeon):
        surgeon = pr.surgeon[person]
        st.theatre[person] = theatre
        st.theatre_left[theatre, day] -= pr.minutes[person]
        st.surgeon_left[surgeon, day] -= pr.minutes[person]
        if st.theatre_count[theatre, day] == 0:
            delta += w[OPEN_THEATRE]
        st.theatre_count[theatre, day] += 1
        if st.surgeon_at[surgeon, day, theatre] == 0:
            if st.surgeon_theatres[surgeon, day] > 0:
                delta += w[TRANSFER]
            st.surgeon_theatres[surgeon, day] += 1
        st.surgeon_at[surgeon, day, theatre] += 1
        delta += w[DELAY] * (day - pr.release[person])
        delta -= w[MANDATORY] if pr.mandatory[person] else w[OPTIONAL]
    return delta


@inlined
def room_fits(pr: Problem, st: State, person: int, day: int, room: int, beside: int) -> bool:
    """No bed missing and nobody of the other gender, once the person's own bed and that of `beside` are free."""
    other = 1 - pr.gender[person]
    for d in range(day, min(pr.days, day + pr.stay[person])):
        taken, others = st.persons[room, d], st.genders[room, d, other]
        if taken >= pr.capacity[room] or others > 0:
            if lies(pr, st, person, room, d):
                taken -= 1
            if beside >= 0 and lies(pr, st, beside, room, d):
                taken -= 1
                if pr.gender[beside] == other:
                    others -= 1
            if taken >= pr.capacity[room] or others > 0:
                return False
    return True


@inlined
def lies(pr: Problem, st: State, person: int, room: int, day: int) -> bool:
    admitted = st.day[person]
    return bool(admitted != UNSCHEDULED and st.room[person] == room and admitted <= day < admitted + pr.stay[person])


@inlined
def surgeon_fits(pr: Problem, st: State, patient: int, day: int, beside: int) -> bool:
    surgeon, minutes = pr.surgeon[patient], pr.minutes[patient]
    left = st.surgeon_left[surgeon, day]
    if st.day[patient] == day:
        left += minutes
    if beside >= 0 and st.day[beside] == day and pr.surgeon[beside] == surgeon:
        left += pr.minutes[beside]
    return bool(left >= minutes)


@inlined
def theatre_fits(pr: Problem, st: State, patient: int, day: int, theatre: int, beside: int) -> bool:
    minutes, left = pr.minutes[patient], st.theatre_left[theatre, day]
    if st.day[patient] == day and st.theatre[patient] == theatre:
        left += minutes
    if beside >= 0 and st.day[beside] == day and st.theatre[beside] == theatre:
        left += pr.minutes[beside]
    return bool(left >= minutes)


@inlined
def theatre_for(pr: Problem, st: State, random: Random, patient: int, day: int) -> int:
    """The cheapest theatre with time left, ties broken by chance; -1 if there is none."""
    chosen, lowest, ties = -1, 0, 0
    surgeon = pr.surgeon[patient]
    here = st.theatre[patient] if st.day[patient] == day else -1
    used = st.surgeon_theatres[surgeon, day]
    if here >= 0 and st.surgeon_at[surgeon, day, here] == 1:
        used -= 1
    for theatre in range(st.theatre_left.shape[0]):
        if not theatre_fits(pr, st, patient, day, theatre, -1):
            continue
        own = 1 if theatre == here else 0
        price = 0
        if st.theatre_count[theatre, day] == own:
            price += pr.weights[OPEN_THEATRE]
        if st.surgeon_at[surgeon, day, theatre] == own and used > 0:
            price += pr.weights[TRANSFER]
        if chosen < 0 or price < lowest:
            chosen, lowest, ties = theatre, price, 1
        elif price == lowest:
            ties += 1
            if below(random, ties) == 0:
                chosen = theatre
    return chosen


@inlined
def aim(st: State, number: int, patient: int, day: int, room: int, theatre: int) -> None:
    """The patient that is moved as the `number`th: where to (day UNSCHEDULED: nowhere), and where from."""
    st.target[number, 0], st.target[number, 1], st.target[number, 2] = day, room, theatre
    st.moved[number, 0], st.moved[number, 1] = patient, st.day[patient]
    st.moved[number, 2], st.moved[number, 3] = st.room[patient], st.theatre[patient]


@inlined
def rearrange(pr: Problem, st: State, count: int) -> tuple[bool, int]:
    """All out of their places, then each into the new one while it fits. Gives whether all did, and the difference."""
    delta = 0
    for number in range(count):
        if st.moved[number, 1] != UNSCHEDULED:
            delta += price_out(pr, st, st.moved[number, 0])
    for number in range(count):
        patient, day = st.moved[number, 0], st.target[number, 0]
        if day == UNSCHEDULED:
            continue
        room, theatre = st.target[number, 1], st.target[number, 2]
        if count > 1 and not (
            surgeon_fits(pr, st, patient, day, -1)
            and theatre_fits(pr, st, patient, day, theatre, -1)
            and room_fits(pr, st, patient, day, room, -1)
        ):
            return False, delta
        delta += price_in(pr, st, patient, day, room, theatre)
    return True, delta


@inlined
def restore(pr: Problem, st: State, count: int) -> None:
    """Everybody who was moved back to where he or she was."""
    for number in range(count):
        if st.day[st.moved[number, 0]] != UNSCHEDULED:
            price_out(pr, st, st.moved[number, 0])
    for number in range(count):
        if st.moved[number, 1] != UNSCHEDULED:
            price_in(pr, st, st.moved[number, 0], st.moved[number, 1], st.moved[number, 2], st.moved[number, 3])


@inlined
def give_nurse(pr: Problem, st: State, room: int, shift: int, nurse: int) -> int:
    """Another nurse for a room in a shift. Gives the difference of the cost."""
    w = pr.weights
    old = st.nurse[room, shift]
    day = shift // pr.per_day
    skill, old_skill = pr.nurse_skill[nurse], pr.nurse_skill[old]
    work = 0
    delta = 0
    for place in range(st.persons[room, day]):
        person = st.lying[room, day, place]
        of_stay = shift - st.day[person] * pr.per_day
        work += pr.workload[person, of_stay]
        required = pr.skill_required[person, of_stay]
        delta += w[SKILL] * (max(0, required - skill) - max(0, required - old_skill))
        st.caring[person, old] -= 1
        if st.caring[person, old] == 0:
            delta -= w[CONTINUITY]
        if st.caring[person, nurse] == 0:
            delta += w[CONTINUITY]
        st.caring[person, nurse] += 1
    before = max(0, st.load[old, shift] - pr.max_load[old, shift])
    before += max(0, st.load[nurse, shift] - pr.max_load[nurse, shift])
    st.load[old, shift] -= work
    st.load[nurse, shift] += work
    after = max(0, st.load[old, shift] - pr.max_load[old, shift])
    after += max(0, st.load[nurse, shift] - pr.max_load[nurse, shift])
    st.nurse[room, shift] = nurse
    return int(delta + w[WORKLOAD] * (after - before))


@inlined
def nurse_price(pr: Problem, st: State, room: int, shift: int, nurse: int) -> int:
    """What `give_nurse` would give."""
    w = pr.weights
    old = st.nurse[room, shift]
    day = shift // pr.per_day
    skill, old_skill = pr.nurse_skill[nurse], pr.nurse_skill[old]
    work = 0
    delta = 0
    for place in range(st.persons[room, day]):
        person = st.lying[room, day, place]
        of_stay = shift - st.day[person] * pr.per_day
        work += pr.workload[person, of_stay]
        required = pr.skill_required[person, of_stay]
        delta += w[SKILL] * (max(0, required - skill) - max(0, required - old_skill))
        if st.caring[person, old] == 1:
            delta -= w[CONTINUITY]
        if st.caring[person, nurse] == 0:
            delta += w[CONTINUITY]
    over_old = st.load[old, shift] - pr.max_load[old, shift]
    over_new = st.load[nurse, shift] - pr.max_load[nurse, shift]
    excess = max(0, over_old - work) - max(0, over_old) + max(0, over_new + work) - max(0, over_new)
    return int(delta + w[WORKLOAD] * excess)


@inlined
def copy(source: Ints, target: Ints) -> None:
    for row in range(source.shape[0]):
        for column in range(source.shape[1]):
            target[row, column] = source[row, column]


@compiled
def keep(st: State, best: Best) -> None:
    for person in range(len(st.day)):
        best.day[person] = st.day[person]
        best.room[person] = st.room[person]
    for patient in range(len(st.theatre)):
        best.theatre[patient] = st.theatre[patient]
    copy(st.nurse, best.nurse)
    best.cost[0] = st.cost[0]


@compiled
def fill(pr: Problem, st: State, best: Best) -> None:
    """Put decisions into an empty state and price them."""
    cost = 0
    copy(best.nurse, st.nurse)
    patients = len(pr.surgeon)
    for person in range(len(pr.stay)):
        if person < patients:
            cost += pr.weights[MANDATORY] if pr.mandatory[person] else pr.weights[OPTIONAL]
        if best.day[person] != UNSCHEDULED:
            theatre = best.theatre[person] if person < patients else -1
            cost += price_in(pr, st, person, best.day[person], best.room[person], theatre)
    st.cost[0] = cost
