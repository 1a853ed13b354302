"""What the simulated hospital tells of itself while it runs: ADT as its registration desk sends it, and operations
events (docs/operations.md) for what ADT does not say: beds, shifts, theatres, prices, bed requests, needs.

The same arguments tell the same story. Nothing here does I/O or looks at a clock.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

from producers.simulate import segments
from producers.simulate.demand import Demand
from producers.simulate.hospital import SimulatedMessage
from producers.simulate.people import Person, Staff, make_person
from producers.simulate.wards import (
    CURRENCY,
    EQUIPMENT,
    SETTLED_DAYS,
    TRANSPORTS,
    Member,
    Premises,
    bed_price,
    premises,
)
from streams.allocation.demand import Arrival
from streams.allocation.history import Happening, Policy, Run
from streams.allocation.site import FREE, HOUSEKEEPING, Bed, Need, Nurse

_ROSTER_AHEAD = 12  # hours before its day that a day's roster is told
_ROUND = 10  # o'clock at which expected discharges are looked at again
_REVISED = 12.0  # hours by which one must change before anybody says so
_WAITING = "ED^WAIT^"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operations event: an object of docs/operations.md, and when it is told."""

    at: datetime
    body: dict[str, Any] = field(repr=False)


Told = SimulatedMessage | Operation


@dataclass(frozen=True, slots=True)
class Days:
    """The arguments of a story: `days` of the hospital called `name`, until midnight (UTC) before `end`."""

    name: str
    seed: int
    days: int
    end: date
    facility: str = "HARBOUR"

    def tell(self, policy: Policy) -> Iterator[Told]:
        """In order of time; patients go where `policy` puts them. Raises UsageError where there is no such hospital."""
        where = premises(self.name, -SETTLED_DAYS, self.days + 1, self.facility)
        return _Telling(self, where).tell(policy)


@dataclass(slots=True, eq=False)
class _Visit:
    """A patient as the desk knows him or her."""

    arrival: Arrival
    need: Need
    person: Person
    number: str
    attending: Staff
    came: datetime
    bed: str = ""
    placed: float = 0.0
    expected: float = 0.0  # end of the stay, hours of the story

    @property
    def waiting_as(self) -> str:
        return "P" if self.arrival.elective else "E"


class _Telling:
    def __init__(self, days: Days, where: Premises) -> None:
        self._days, self._premises = days, where
        self._demand = Demand(where, days.seed, days.days, days.end - timedelta(days=days.days))
        self._begin = datetime.combine(self._demand.begin, datetime.min.time(), UTC)
        self._system = segments.systems(days.facility, "JADE")[False, "adt"]
        self._tag = hashlib.sha256(repr(days).encode()).hexdigest()[:8].upper()
        self._count = 0
        self._index = {arrival.ref: index for index, arrival in enumerate(self._demand.arrivals())}
        self._beds = {bed.id: bed for bed in where.house.beds}
        self._members = {member.ref: member for member in where.staff}
        self._surgeons = [member.person for member in where.staff if member.role == "surgeon"]
        self._visits: dict[str, _Visit] = {}

    def tell(self, policy: Policy) -> Iterator[Told]:
        yield from heapq.merge(self._standing(), self._rosters(), self._stays(policy), key=lambda one: one.at)

    # --- what stands --------------------------------------------------------------------------------------------

    def _standing(self) -> Iterator[Operation]:
        for bed in self._premises.house.beds:
            x, y = bed.position
            yield self._location(
                0.0, bed, bed_status=FREE, services=sorted(bed.services), features=sorted(bed.features), position_x=x,
                position_y=y, price=bed.price, currency=CURRENCY,
            )  # fmt: skip
        for theatre in self._premises.house.theatres:
            yield self._say(
                0.0, "resource", theatre.id, resource_type="theatre", resource_status="available", display=theatre.id,
                minutes=theatre.minutes, price=theatre.price, currency=CURRENCY,
            )  # fmt: skip
        for name, share, price in EQUIPMENT:
            for number in range(1, round(share * len(self._beds)) + 1):
                home = self._premises.house.beds[number * 7 % len(self._beds)]
                yield self._say(
                    0.0, "resource", f"{name.upper().replace(' ', '-')}-{number:03d}", resource_type="equipment",
                    resource_status="available", display=name, unit=home.unit, room=home.room,
                    position_x=home.position[0], position_y=home.position[1], price=price, currency=CURRENCY,
                )  # fmt: skip
        porters = sum(member.role == "porter" for member in self._premises.staff)
        for name, price in TRANSPORTS:
            yield self._say(
                0.0, "resource", name.upper().replace(" ", "-"), resource_type="transport",
                resource_status="available", display=name, minutes=480 * porters, price=price, currency=CURRENCY,
            )  # fmt: skip
        year = self._begin.year
        for service in self._premises.services:
            for source, payer, share in (("government", "TARIFF", 0.9), ("insurer", "MUTUAL", 1.1)):
                yield self._say(
                    0.0, "price", f"{payer}-{service}", code=f"BED-{service}", display=f"bed day, {service}",
                    amount=round(bed_price(service) * share, 2), currency=CURRENCY, payer=payer, price_source=source,
                    valid_from=f"{year}-01-01", valid_to=f"{year + 1}-12-31",
                )  # fmt: skip

    def _rosters(self) -> Iterator[Operation]:
        for nurse in self._premises.house.nurses:
            day = math.floor(nurse.starts / 24)
            if 0 <= day < self._days.days:
                yield self._shift(max(0.0, day * 24.0 - _ROSTER_AHEAD), nurse)

    def _shift(self, at: float, nurse: Nurse) -> Operation:
        member = self._members[nurse.ref]
        return self._say(
            at, "shift", f"{nurse.ref}-{self._time(nurse.starts):%Y%m%d%H}", role=member.role, unit=member.unit,
            skill=nurse.skill, load=nurse.load, starts_at=self._stamp(nurse.starts), ends_at=self._stamp(nurse.ends),
            **self._staff("staff", member),
        )  # fmt: skip

    # --- patients -----------------------------------------------------------------------------------------------

    def _stays(self, policy: Policy) -> Iterator[Told]:
        run = Run(self._premises.house, self._demand.arrivals(), policy, self._days.days * 24.0)
        begun, round_at = False, float(_ROUND)
        for one in run.play():
            if one.at < 0:
                self._note(one)
                continue
            if not begun:
                begun = True
                yield from self._found()
            while round_at < one.at:
                yield from self._revise(round_at)
                round_at += 24
            self._note(one)
            yield from self._happened(one)

    def _note(self, one: Happening) -> None:
        """Keep what the desk must know later on."""
        ref = one.arrival.ref
        if one.what == "arrived":
            self._visits[ref] = self._visit(one)
        elif one.what == "left" and one.at < 0:
            del self._visits[ref]
        elif one.what in ("placed", "moved"):
            visit = self._visits[ref]
            visit.bed, visit.need = one.bed, one.need
            if one.what == "placed":
                visit.placed, visit.expected = one.at, one.at + one.need.leaves
        elif one.what == "changed":
            self._visits[ref].need = one.need

    def _found(self) -> Iterator[Told]:
        """Who is there when the story begins: admitted before, told now."""
        for visit in self._visits.values():
            if visit.bed:
                yield self._adt(0.0, "A01", visit)
                yield self._needs(0.0, visit)
            else:
                yield from self._comes(0.0, visit)

    def _happened(self, one: Happening) -> Iterator[Told]:
        visit = self._visits.get(one.arrival.ref)
        if one.what == "cleaned":
            yield self._location(one.at, self._beds[one.bed], bed_status=FREE)
        elif visit is None:
            return
        elif one.what == "arrived":
            yield from self._comes(one.at, visit)
        elif one.what == "placed":
            yield self._adt(one.at, "A01", visit)
            yield self._request(one.at, visit, action="cancel")
            yield self._needs(one.at, visit)
        elif one.what == "moved":
            yield self._adt(one.at, "A02", visit, prior=one.prior)
            yield self._location(one.at, self._beds[one.prior], bed_status=HOUSEKEEPING)
        elif one.what == "changed":
            yield self._adt(one.at, "A08", visit)
            yield self._needs(one.at, visit)
        elif one.what == "left":
            yield self._adt(one.at, "A03", visit)
            yield self._location(one.at, self._beds[one.bed], bed_status=HOUSEKEEPING)
            del self._visits[one.arrival.ref]

    def _comes(self, at: float, visit: _Visit) -> Iterator[Told]:
        yield self._adt(at, "A05" if visit.arrival.elective else "A04", visit)
        arrival, need = visit.arrival, visit.need
        said: dict[str, Any] = {
            "hospital_service": need.service, "sex": need.sex, "age": need.age, "isolation": need.isolation,
            "needs": sorted(need.needs), "load": need.load, "skill": need.skill, "priority": arrival.priority,
            "stay_hours": round(arrival.expected[0], 1),
        }  # fmt: skip
        if arrival.due is not None:
            said["due_at"] = self._stamp(arrival.at + arrival.due)
        if arrival.minutes:
            said |= {"minutes": arrival.minutes, **self._staff("surgeon", self._members[arrival.surgeon])}
        yield self._request(at, visit, **said)

    def _revise(self, at: float) -> Iterator[Told]:
        """The morning's round: somebody stays longer, or less long, than was expected."""
        for visit in self._visits.values():
            if visit.bed:
                expected = visit.arrival.expected
                day = min(int((at - visit.placed) / 24), len(expected) - 1)
                end = max(at + 1, visit.placed + expected[day])
                if abs(end - visit.expected) >= _REVISED:
                    visit.expected = end
                    yield self._adt(at, "A08", visit)

    def _visit(self, one: Happening) -> _Visit:
        index = self._index[one.arrival.ref]
        rng = Random(f"wardstream hospital {self._days.seed} {one.arrival.ref}")  # noqa: S311 - a model, no secret
        # A prime step through all numbers of eight digits: no two patients of a seed share one.
        number = str(10_000_000 + (index * 1_299_709 + self._days.seed * 7_919) % 90_000_000)
        age = one.arrival.age or 0
        today = self._time(one.at).date()
        person = make_person(rng, index, number, today, child=False, chinese=False)
        while person.sex != one.arrival.sex:
            person = make_person(rng, index, number, today, child=False, chinese=False)
        born = today - timedelta(days=round((age + 0.5) * 365.25))
        return _Visit(
            one.arrival, one.need, replace(person, born=born), f"V{self._tag[:6]}{index:07d}",
            rng.choice(self._surgeons), self._time(one.at),
        )  # fmt: skip

    # --- how it is told -----------------------------------------------------------------------------------------

    def _adt(self, at: float, event: str, visit: _Visit, prior: str = "") -> SimulatedMessage:
        system, when = self._system, self._time(at)
        self._count += 1
        inside = bool(visit.bed)
        place = f"{self._place(visit.bed)}^{self._days.facility}" if inside else f"{_WAITING}^{self._days.facility}"
        kind = f"ADT^{event}"
        body = [
            segments.msh(system, kind, f"H{self._tag[:6]}{self._count:08d}", when, self._days.facility),
            segments.evn(system, event, when),
            segments.pid(system, visit.person, visit.number),
            segments.pv1(
                system, "I" if inside else visit.waiting_as, place,
                f"{self._place(prior)}^{self._days.facility}" if prior else "", visit.attending, visit.need.service,
                visit.number, visit.came, when if event == "A03" else None,
                kind="R" if visit.arrival.elective else "E",
            ),
        ]  # fmt: skip
        if inside and event != "A03":
            body.append(segments.pv2(system, self._time(visit.expected)))
        return SimulatedMessage(when, when, kind, system.body(body), "new", visit.person.key)

    def _needs(self, at: float, visit: _Visit) -> Operation:
        """What the desk's messages have no field for."""
        need = visit.need
        return self._say(
            at, "placement", visit.number, trigger="A08", patient_number=visit.person.mrn,
            isolation=need.isolation or None, needs=sorted(need.needs) or None, load=need.load,
            skill=need.skill, priority=visit.arrival.priority, hospital_service=need.service,
        )  # fmt: skip

    def _request(self, at: float, visit: _Visit, action: str = "set", **said: Any) -> Operation:
        return self._say(at, "request", f"R{visit.number}", action=action, patient_number=visit.person.mrn, **said)

    def _location(self, at: float, bed: Bed, **said: Any) -> Operation:
        unit, room, letter = bed.id.split("|")
        return self._say(at, "location", bed.id, unit=unit, room=room, bed=letter, **said)

    def _staff(self, name: str, member: Member) -> dict[str, str]:
        return {f"{name}_number": member.person.number, f"{name}_name": member.person.name.spoken()}

    def _say(self, at: float, kind: str, number: str, action: str = "set", **said: Any) -> Operation:
        """Empty words and lists are left out; None says that what was there is there no longer."""
        kept = {name: value for name, value in said.items() if value not in ("", [])}
        head = {"type": kind, "id": number, "site": self._days.facility, "at": self._stamp(at), "action": action}
        return Operation(self._time(at), head | kept)

    def _place(self, bed: str) -> str:
        return bed.replace("|", "^")

    def _time(self, hours: float) -> datetime:
        return self._begin + timedelta(seconds=round(hours * 3600))

    def _stamp(self, hours: float) -> str:
        return f"{self._time(hours):%Y-%m-%dT%H:%M:%SZ}"
