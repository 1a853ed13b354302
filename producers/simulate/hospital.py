"""A hospital as a seeded discrete-event model: what happens on its wards, told in the messages its systems send.

Nothing here does I/O or looks at a clock: the same arguments give the same bytes. The hospital has a main house and a
sister house that writes Chinese. Beds are real: one is free, held by one stay, or being cleaned, and whoever finds none
free waits. What goes wrong in real traffic goes wrong here at known places, each message saying so in its `fate`:
repeated sendings, messages held up for hours, cancelled moves, double registrations, corrected results.

The simulated time ends at `now`. Stays still running then stay open, as in any hospital at any moment.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any, Literal

from infra.errors import UsageError
from producers.simulate import medicine, segments
from producers.simulate.medicine import Condition, Panel, Who
from producers.simulate.people import Person, Staff, make_person, make_staff, misspelt
from producers.simulate.segments import System

Fate = Literal["new", "repeat", "late", "cancel", "merge", "correct"]

PATIENTS_PER_DAY = 60  # what the beds can take; more patients make a longer simulated time, not a fuller house
_BEDS = {"ED": 26, "ICU": 12, "MED": 36, "SUR": 28, "CARD": 18, "PED": 14}
_BEDS_SISTER = {"ED": 8, "ICU": 4, "MED": 10, "SUR": 8, "CARD": 6, "PED": 4}

_CHINESE = 0.14
_EMERGENCY, _ELECTIVE = 0.62, 0.2  # the rest goes to a clinic
_DUPLICATE = 0.06  # of emergencies: registered twice, merged later
_REPEATED = 0.02  # of messages
_LATE = 0.03  # of those that may be
_CORRECTED = 0.03  # of laboratory results
_ADMISSION_CANCELLED, _TRANSFER_CANCELLED, _DISCHARGE_CANCELLED = 0.06, 0.12, 0.06
_CLEANING = (25, 60)  # minutes; every cancellation comes before the shortest, so that the old bed is still there
_MAY_BE_LATE = frozenset({"ADT^A02", "ADT^A08", "ORU^R01", "MDM^T02", "ORM^O01"})
# kind of note -> TXA-2 (HL7 table 0270) and OBX-3
_DOCUMENTS = {
    "emergency": ("EN", "34111-5^Emergency department Note^LN"),
    "first": ("HP", "34117-2^History and physical note^LN"),
    "daily": ("PN", "11506-3^Progress note^LN"),
    "leave": ("DS", "18842-5^Discharge summary^LN"),
}
_WHY = {"S12": "ROUTINE", "S13": "RESCHEDULED", "S15": "CANCELLED"}  # SCH-6


@dataclass(frozen=True, slots=True)
class SimulatedMessage:
    """One message to send.

    `at` is the time the message tells (MSH-7), `sent` when it leaves: they differ for late and repeated ones. `body`
    has no MLLP frame. Every message but a "repeat" is distinct; a repeat is an earlier one, byte for byte. Messages
    with the same `patient` must keep their order.
    """

    at: datetime
    sent: datetime
    message_type: str
    body: bytes
    fate: Fate
    patient: str


@dataclass(frozen=True, slots=True)
class Hospital:
    """The arguments of a simulation. Raises UsageError where they make no hospital.

    `now` (with a zone) is where simulated time ends; `start` where it begins, by default as far back as so many
    patients need at PATIENTS_PER_DAY, a day at least. `facility` and `sister` are the houses' names in MSH-4.
    """

    seed: int
    patients: int
    now: datetime
    start: datetime | None = None
    facility: str = "HARBOUR"
    sister: str = "JADE"

    def __post_init__(self) -> None:
        if self.patients < 1:
            raise UsageError("a hospital needs at least one patient")
        if self.now.tzinfo is None or (self.start is not None and self.start.tzinfo is None):
            raise UsageError("simulated times need a zone")
        if self.start is not None and self.start >= self.now:
            raise UsageError("a simulation must start before it ends")
        if self.facility == self.sister or not all(
            re.fullmatch(r"[A-Z0-9]{1,20}", f) for f in (self.facility, self.sister)
        ):
            raise UsageError("facility and sister need two different names of capital letters and digits")

    def begin(self) -> datetime:
        return self.start or self.now - timedelta(days=max(1.0, self.patients / PATIENTS_PER_DAY))

    def events(self) -> Iterator[SimulatedMessage]:
        """All messages in sending order; each call tells the same story from its beginning."""
        return _Run(self).play()


@dataclass(slots=True, eq=False)
class _Bed:
    """`turn` counts who had it: a cleaning that was overtaken by a cancellation finds another turn and does nothing."""

    unit: str
    place: str  # PL: unit^room^bed^facility
    turn: int = 0


@dataclass(slots=True, eq=False)
class _Ward:
    free: deque[_Bed]
    waiting: deque[tuple[_Visit, Callable[[datetime, _Visit, _Bed], None]]] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class _Visit:
    person: Person
    number: str
    condition: Condition
    patient_class: str  # HL7 table 0004: E, I, O, P
    attending: Staff
    arrived: datetime
    place: str
    bed: _Bed | None = None
    active: bool = True


class _Run:
    """One telling: a heap of things to come, and the messages that the last of them caused."""

    def __init__(self, hospital: Hospital) -> None:
        self._hospital = hospital
        self._now = hospital.now.replace(microsecond=0)
        self._begin = hospital.begin().replace(microsecond=0)
        self._rng = Random(f"wardstream events {hospital.seed}")  # noqa: S311 - a model, no secret
        self._systems = segments.systems(hospital.facility, hospital.sister)
        # Two runs with other arguments must not use the same message ids for different bodies.
        story = f"{hospital.seed}|{hospital.patients}|{self._begin.timestamp()}|{self._now.timestamp()}"
        self._tag = hashlib.sha256(story.encode()).hexdigest()[:8].upper()
        self._count = 0
        self._sequence = 0
        self._agenda: list[tuple[datetime, int, Callable[..., None], tuple[Any, ...]]] = []
        self._outbox: list[SimulatedMessage] = []
        self._wards = {
            (chinese, unit): _Ward(deque(_beds(unit, count, self._house(chinese))))
            for chinese, beds in ((False, _BEDS), (True, _BEDS_SISTER))
            for unit, count in beds.items()
        }

    def play(self) -> Iterator[SimulatedMessage]:
        self._people()
        while self._agenda:
            at, _, action, arguments = heapq.heappop(self._agenda)
            action(at, *arguments)
            yield from self._outbox
            self._outbox.clear()

    # --- time ---------------------------------------------------------------------------------------------------

    def _after(self, at: datetime, low: float, high: float, action: Callable[..., None], *arguments: Any) -> None:
        """Do something `low` to `high` minutes later."""
        self._when(at + timedelta(seconds=round(self._rng.uniform(low, high) * 60)), action, *arguments)

    def _when(self, at: datetime, action: Callable[..., None], *arguments: Any) -> None:
        if at <= self._now:
            self._sequence += 1
            heapq.heappush(self._agenda, (at, self._sequence, action, arguments))

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    # --- sending ------------------------------------------------------------------------------------------------

    def _system(self, role: str, person: Person) -> System:
        return self._systems[person.chinese, role]

    def _house(self, chinese: bool) -> str:
        return self._hospital.sister if chinese else self._hospital.facility

    def _number(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._tag[:6]}{self._count:07d}"

    def _emit(self, at: datetime, role: str, kind: str, person: Person, body: list[str], fate: Fate = "new") -> None:
        system = self._system(role, person)
        head = segments.msh(system, kind, self._number(""), at, self._hospital.facility)
        message = SimulatedMessage(at, at, kind, system.body([head, *body]), fate, person.key)
        sent = at
        if fate == "new" and kind in _MAY_BE_LATE and self._chance(_LATE) and at + timedelta(hours=2) <= self._now:
            sent = min(self._now, at + timedelta(minutes=self._rng.randint(120, 900)))
            self._when(sent, self._deliver, replace(message, sent=sent, fate="late"))
        else:
            self._outbox.append(message)
        if self._chance(_REPEATED):
            again = min(self._now, sent + timedelta(seconds=self._rng.randint(1, 600)))
            self._when(again, self._deliver, replace(message, sent=again, fate="repeat"))

    def _deliver(self, _at: datetime, message: SimulatedMessage) -> None:
        self._outbox.append(message)

    # --- who comes ----------------------------------------------------------------------------------------------

    def _people(self) -> None:
        """Everybody and when they come. People depend on the seed alone: another `now` brings the same ones again."""
        rng = Random(f"wardstream people {self._hospital.seed}")  # noqa: S311
        self._staff = {chinese: make_staff(rng, 30, chinese) for chinese in (False, True)}
        numbers: set[str] = set()

        def record_number() -> str:
            while (number := str(rng.randint(10_000_000, 99_999_999))) in numbers:
                pass
            numbers.add(number)
            return number

        seconds = (self._now - self._begin).total_seconds()
        for index in range(self._hospital.patients):
            way = rng.random()
            choices = medicine.CLINICS
            if way < _EMERGENCY:
                choices = medicine.EMERGENCIES
            elif way < _EMERGENCY + _ELECTIVE:
                choices = medicine.ELECTIVES
            condition = rng.choices(choices, [one.weight for one in choices])[0]
            person = make_person(
                rng, index, record_number(), self._begin.date(), condition.child, rng.random() < _CHINESE
            )
            at = self._begin + timedelta(seconds=round(self._rng.random() * seconds))
            if choices is not medicine.EMERGENCIES:
                self._book(at, person, condition, elective=choices is medicine.ELECTIVES)
            elif rng.random() < _DUPLICATE:
                twin = misspelt(rng, person, record_number())
                self._when(at, self._clinic, person, medicine.CLINICS[2])
                self._after(at, 180, 600, self._emergency, twin, condition, person)
            else:
                self._when(at, self._emergency, person, condition, None)

    def _visit(self, at: datetime, person: Person, condition: Condition, patient_class: str, place: str) -> _Visit:
        staff = self._rng.choice(self._staff[person.chinese])
        return _Visit(person, self._number("V"), condition, patient_class, staff, at, place)

    # --- the registration desk ----------------------------------------------------------------------------------

    def _adt(self, at: datetime, event: str, visit: _Visit, *more: str, prior: str = "", fate: Fate = "new") -> None:
        system = self._system("adt", visit.person)
        self._emit(
            at,
            "adt",
            f"ADT^{event}",
            visit.person,
            [segments.evn(system, event, at), segments.pid(system, visit.person, visit.number),
             self._pv1(system, visit, prior), *more],
            fate,
        )  # fmt: skip

    def _register(self, at: datetime, event: str, visit: _Visit) -> None:
        """A04, A05, A01, A08: the long form, with next of kin, diagnosis and guarantor."""
        system, person = self._system("adt", visit.person), visit.person
        body = [
            segments.evn(system, event, at),
            segments.pid(system, person, visit.number),
            segments.nk1(system, person),
            self._pv1(system, visit),
            segments.dg1(system, visit.condition, at, "W" if event == "A08" else "A"),
            segments.gt1(system, person),
        ]
        self._emit(at, "adt", f"ADT^{event}", person, body)

    def _cancel(self, at: datetime, event: str, visit: _Visit, occurred: datetime) -> None:
        system = self._system("adt", visit.person)
        body = [
            segments.evn(system, event, at, occurred),
            segments.pid(system, visit.person, visit.number),
            self._pv1(system, visit),
        ]
        self._emit(at, "adt", f"ADT^{event}", visit.person, body, "cancel")

    def _pv1(self, system: System, visit: _Visit, prior: str = "", discharged: datetime | None = None) -> str:
        return segments.pv1(
            system, visit.patient_class, visit.place, prior, visit.attending, visit.condition.unit, visit.number,
            visit.arrived, discharged,
        )  # fmt: skip

    def _merge(self, at: datetime, visit: _Visit, survivor: Person) -> None:
        """A40: the double registration `visit.person` ends in the one that was there before."""
        twin, visit.person = visit.person, survivor
        system = self._system("adt", survivor)
        body = [
            segments.evn(system, "A40", at),
            segments.pid(system, survivor, visit.number),
            segments.mrg(system, twin),
        ]
        self._emit(at, "adt", "ADT^A40", survivor, body, "merge")

    # --- the emergency department -------------------------------------------------------------------------------

    def _emergency(self, at: datetime, person: Person, condition: Condition, survivor: Person | None) -> None:
        visit = self._visit(at, person, condition, "E", f"ED^WAIT^^{self._house(person.chinese)}")
        ward = self._wards[person.chinese, "ED"]
        if ward.free:
            self._take(visit, ward.free.popleft())
        self._register(at, "A04", visit)
        self._after(at, 3, 12, self._vitals, visit)
        for panel in condition.panels:
            self._after(at, 8, 35, self._order, visit, medicine.PANELS[panel])
        if "TROP" in condition.panels:
            self._after(at, 150, 200, self._order, visit, medicine.PANELS["TROP"])
        if condition.study is not None:
            self._after(at, 15, 50, self._order_study, visit)
        self._after(at, 40, 110, self._write, visit, "first")
        self._after(at, 60, 150, self._update, visit)
        if survivor is not None:
            self._after(at, 45, 240, self._merge, visit, survivor)
        self._after(at, 150, 330, self._decide, visit)

    def _decide(self, at: datetime, visit: _Visit) -> None:
        """Home or upstairs."""
        condition = visit.condition
        if not self._chance(condition.admitted):
            self._vitals(at, visit)
            self._discharge(at, visit)
        else:
            unit = "ICU" if self._chance(condition.intensive) else condition.unit
            self._want(at, visit, unit, self._admit)

    # --- beds ---------------------------------------------------------------------------------------------------

    def _want(self, at: datetime, visit: _Visit, unit: str, move: Callable[[datetime, _Visit, _Bed], None]) -> None:
        ward = self._wards[visit.person.chinese, unit]
        if not visit.active:
            return
        if ward.free:
            move(at, visit, ward.free.popleft())
        else:
            ward.waiting.append((visit, move))

    def _take(self, visit: _Visit, bed: _Bed) -> None:
        bed.turn += 1
        visit.bed, visit.place = bed, bed.place

    def _leave(self, at: datetime, visit: _Visit) -> tuple[_Bed, int] | None:
        """Give the bed to the cleaners. Answers the bed and its turn, by which a cancellation knows it again."""
        bed = visit.bed
        if bed is None:
            return None
        bed.turn += 1
        visit.bed = None
        self._after(at, *_CLEANING, self._cleaned, visit.person.chinese, bed, bed.turn)
        return bed, bed.turn

    def _cleaned(self, at: datetime, chinese: bool, bed: _Bed, turn: int) -> None:
        if bed.turn != turn:
            return
        ward = self._wards[chinese, bed.unit]
        while ward.waiting:
            visit, move = ward.waiting.popleft()
            if visit.active:
                move(at, visit, bed)
                return
        ward.free.append(bed)

    # --- the wards ----------------------------------------------------------------------------------------------

    def _admit(self, at: datetime, visit: _Visit, bed: _Bed) -> None:
        from_emergency = visit.patient_class == "E"
        self._leave(at, visit)
        self._take(visit, bed)
        visit.patient_class = "I"
        self._register(at, "A01", visit)
        if self._chance(_ADMISSION_CANCELLED):
            self._after(at, 4, 20, self._cancel_admission, visit, at, from_emergency)
        else:
            self._stay(at, visit)

    def _cancel_admission(self, at: datetime, visit: _Visit, admitted: datetime, back: bool) -> None:
        """A11: back to the waiting room and home, or, for a planned stay, not come at all."""
        self._cancel(at, "A11", visit, admitted)
        self._leave(at, visit)
        visit.active = back
        if back:
            visit.patient_class, visit.place = "E", f"ED^WAIT^^{self._house(visit.person.chinese)}"
            self._after(at, 30, 120, self._discharge, visit)

    def _stay(self, at: datetime, visit: _Visit) -> None:
        hours = 14 + min(200.0, self._rng.expovariate(1 / 34))
        if visit.bed is not None and visit.bed.unit == "ICU":
            intensive = self._rng.uniform(10, 34)
            hours += intensive
            self._after(
                at, intensive * 60, intensive * 60 + 30, self._want, visit, visit.condition.unit, self._transfer
            )
        elif self._chance(0.25):
            self._after(at, 120, 900, self._want, visit, visit.condition.unit, self._transfer)
        self._after(at, 20, 90, self._round, visit)
        self._after(at, 600, 1100, self._day, visit)
        if visit.condition in medicine.ELECTIVES and visit.condition.study is not None:
            self._after(at, 60, 300, self._order_study, visit)
        self._after(at, hours * 60, hours * 60 + 60, self._discharge, visit)

    def _transfer(self, at: datetime, visit: _Visit, bed: _Bed) -> None:
        prior = visit.place
        left = self._leave(at, visit)
        self._take(visit, bed)
        self._adt(at, "A02", visit, prior=prior)
        if left is not None and self._chance(_TRANSFER_CANCELLED):
            self._after(at, 3, 15, self._cancel_transfer, visit, at, bed, *left)

    def _cancel_transfer(self, at: datetime, visit: _Visit, moved: datetime, bed: _Bed, prior: _Bed, turn: int) -> None:
        if visit.active and visit.bed is bed and prior.turn == turn:
            self._leave(at, visit)
            self._take(visit, prior)
            self._cancel(at, "A12", visit, moved)

    def _discharge(self, at: datetime, visit: _Visit, final: bool = False) -> None:
        if not visit.active:
            return
        system, inpatient = self._system("adt", visit.person), visit.patient_class == "I"
        body = [
            segments.evn(system, "A03", at),
            segments.pid(system, visit.person, visit.number),
            self._pv1(system, visit, discharged=at),
            segments.dg1(system, visit.condition, at, "F"),
        ]
        self._emit(at, "adt", "ADT^A03", visit.person, body)
        left = self._leave(at, visit)
        visit.active = False
        if inpatient and left is not None and not final and self._chance(_DISCHARGE_CANCELLED):
            self._after(at, 4, 20, self._cancel_discharge, visit, at, *left)
        elif inpatient:
            self._after(at, 20, 150, self._write, visit, "leave")

    def _cancel_discharge(self, at: datetime, visit: _Visit, discharged: datetime, bed: _Bed, turn: int) -> None:
        if bed.turn == turn:
            self._take(visit, bed)
            visit.active = True
            self._cancel(at, "A13", visit, discharged)
            self._after(at, 120, 600, self._discharge, visit, True)

    def _round(self, at: datetime, visit: _Visit) -> None:
        """Vital signs, oftener in intensive care, where blood gas and glucose go along."""
        if not visit.active:
            return
        self._vitals(at, visit)
        intensive = visit.bed is not None and visit.bed.unit == "ICU"
        if intensive and self._chance(0.5):
            self._order(at, visit, medicine.PANELS["ABG"])
        elif "POC" in visit.condition.panels or intensive:
            self._report(at, visit, medicine.PANELS["POC"])
        self._after(at, *((220, 260) if intensive else (420, 560)), self._round, visit)

    def _day(self, at: datetime, visit: _Visit) -> None:
        """Once a day: blood tests, a note, and now and then a change of the record."""
        if not visit.active:
            return
        for panel in visit.condition.panels[:2]:
            self._order(at, visit, medicine.PANELS[panel])
        self._after(at, 60, 240, self._write, visit, "daily")
        if self._chance(0.35):
            self._after(at, 30, 300, self._update, visit)
        self._after(at, 1380, 1500, self._day, visit)

    def _update(self, at: datetime, visit: _Visit) -> None:
        if visit.active:
            if self._chance(0.3):
                visit.attending = self._rng.choice(self._staff[visit.person.chinese])
            self._register(at, "A08", visit)

    # --- clinics and planned stays ------------------------------------------------------------------------------

    def _book(self, at: datetime, person: Person, condition: Condition, elective: bool) -> None:
        booked = max(self._begin, at - timedelta(minutes=self._rng.randint(240, 2400)))
        number = self._number("A")
        self._when(booked, self._appointment, "S12", person, condition, number, at)
        change = self._rng.random()
        if change < 0.12:
            self._when(booked + (at - booked) / 3, self._appointment, "S15", person, condition, number, at)
            return
        if change < 0.3:
            first, at = at, at + timedelta(minutes=self._rng.choice((30, 60, 120, 240)))
            self._when(booked + (first - booked) / 3, self._appointment, "S13", person, condition, number, at)
        if elective:
            self._when(booked + (at - booked) / 2, self._preadmit, person, condition, at)
        else:
            self._when(at, self._clinic, person, condition)

    def _appointment(
        self, at: datetime, event: str, person: Person, condition: Condition, number: str, start: datetime
    ) -> None:
        at = at.replace(microsecond=0)
        system = self._system("slots", person)
        by = self._staff[person.chinese][0]
        status = "Cancelled" if event == "S15" else "Booked"
        place = f"{condition.unit}^^^{self._house(person.chinese)}"
        body = [
            segments.sch(system, number, _WHY[event], status, condition, start, start + timedelta(minutes=30), by),
            segments.pid(system, person, ""),
            *segments.resources(system, condition, start, place),
        ]
        self._emit(at, "slots", f"SIU^{event}", person, body, "cancel" if event == "S15" else "new")

    def _preadmit(self, at: datetime, person: Person, condition: Condition, arrival: datetime) -> None:
        """A05, and then the stay itself."""
        at = at.replace(microsecond=0)
        visit = self._visit(at, person, condition, "P", f"{condition.unit}^^^{self._house(person.chinese)}")
        self._register(at, "A05", visit)
        self._when(arrival, self._arrive, visit)

    def _arrive(self, at: datetime, visit: _Visit) -> None:
        visit.arrived = at
        unit = "ICU" if self._chance(visit.condition.intensive) else visit.condition.unit
        self._after(at, 10, 40, self._write, visit, "first")
        self._want(at, visit, unit, self._admit)

    def _clinic(self, at: datetime, person: Person, condition: Condition) -> None:
        visit = self._visit(
            at, person, condition, "O", f"CLIN^{self._rng.randint(1, 9)}^^{self._house(person.chinese)}"
        )
        self._register(at, "A04", visit)
        self._after(at, 4, 15, self._vitals, visit)
        for panel in condition.panels:
            self._after(at, 8, 25, self._order, visit, medicine.PANELS[panel])
        self._after(at, 20, 50, self._write, visit, "first")
        self._after(at, 55, 120, self._discharge, visit)

    # --- orders, results, texts ---------------------------------------------------------------------------------

    def _order(self, at: datetime, visit: _Visit, panel: Panel) -> None:
        placer = self._order_message(at, visit, f"{panel.code}^{panel.name}^{panel.system}")
        self._after(at, 20, 75, self._report, visit, panel, placer)

    def _order_study(self, at: datetime, visit: _Visit) -> None:
        if visit.condition.study is not None:
            placer = self._order_message(at, visit, segments.study_code(visit.condition.study))
            self._after(at, 30, 140, self._read, visit, placer)

    def _order_message(self, at: datetime, visit: _Visit, service: str) -> str:
        system, placer = self._system("orders", visit.person), self._number("O")
        body = [
            segments.pid(system, visit.person, visit.number),
            self._pv1(system, visit),
            segments.orc(system, "NW", placer, "", at, visit.attending),
            segments.obr(system, placer, "", service, at, visit.attending),
        ]
        self._emit(at, "orders", "ORM^O01", visit.person, body)
        return placer

    def _vitals(self, at: datetime, visit: _Visit) -> None:
        self._report(at, visit, medicine.PANELS["VITALS"], role="vitals")

    def _report(
        self,
        at: datetime,
        visit: _Visit,
        panel: Panel,
        placer: str = "",
        role: str = "lab",
        filler: str = "",
        drawn: datetime | None = None,
    ) -> None:
        """ORU^R01 of one panel; given a `filler` number, the correction of what was reported under it."""
        system, person = self._system(role, visit.person), visit.person
        status: Literal["C", "F"] = "C" if filler else "F"
        filler = filler or self._number("F")
        drawn = drawn or (at if role == "vitals" else at - timedelta(minutes=self._rng.randint(5, 18)))
        service, section = f"{panel.code}^{panel.name}^{panel.system}", "" if role == "vitals" else "LAB"
        hours = (at - visit.arrived).total_seconds() / 3600
        values = medicine.measure(
            self._rng, panel, visit.condition, max(0.15, 1 - hours / 60), self._age(visit, at) < 16
        )
        body = [
            segments.pid(system, person, visit.number),
            self._pv1(system, visit),
            segments.orc(system, "RE", placer, filler, at, visit.attending),
            segments.obr(system, placer, filler, service, drawn, visit.attending, section, at, status),
            *(
                segments.obx_number(system, index, analyte, value, drawn, status)
                for index, (analyte, value) in enumerate(values, 1)
            ),
        ]
        self._emit(at, role, "ORU^R01", person, body, "correct" if status == "C" else "new")
        if role == "lab" and status == "F" and self._chance(_CORRECTED):
            self._after(at, 30, 180, self._report, visit, panel, placer, role, filler, drawn)

    def _read(self, at: datetime, visit: _Visit, placer: str) -> None:
        """ORU^R01 of a picture, as one FT value or as one TX a line."""
        study, system = visit.condition.study, self._system("rad", visit.person)
        if study is None:
            return
        code, filler = segments.study_code(study), self._number("R")
        lines = medicine.read_picture(
            self._rng, study, visit.condition, self._who(system, visit, at), visit.person.chinese
        )
        texts = [("FT", lines)] if self._chance(0.5) else [("TX", [line]) for line in lines]
        body = [
            segments.pid(system, visit.person, visit.number),
            self._pv1(system, visit),
            segments.orc(system, "RE", placer, filler, at, visit.attending),
            segments.obr(system, placer, filler, code, at, visit.attending, "RAD", at, "F"),
            *(segments.obx_text(system, index, kind, code, part, at) for index, (kind, part) in enumerate(texts, 1)),
        ]
        self._emit(at, "rad", "ORU^R01", visit.person, body)

    def _write(self, at: datetime, visit: _Visit, kind: str) -> None:
        system = self._system("notes", visit.person)
        lines = medicine.note(self._rng, kind, visit.condition, self._who(system, visit, at), visit.person.chinese)
        document_type, code = _DOCUMENTS["emergency" if kind == "first" and visit.patient_class == "E" else kind]
        body = [
            segments.evn(system, "T02", at),
            segments.pid(system, visit.person, visit.number),
            self._pv1(system, visit),
            segments.txa(system, self._number("T"), document_type, at, visit.attending),
            segments.obx_text(system, 1, "FT", code, lines, at),
        ]
        self._emit(at, "notes", "MDM^T02", visit.person, body)

    def _who(self, system: System, visit: _Visit, at: datetime) -> Who:
        person = visit.person
        phone = f"{person.contact.area}-555-{person.contact.line:04d}" if self._chance(0.5) else person.contact.phone()
        return Who(system.spell(person.name.spoken()), person.mrn, phone, self._age(visit, at), person.sex)

    @staticmethod
    def _age(visit: _Visit, at: datetime) -> int:
        return max(0, (at.date() - visit.person.born).days // 365)


def _beds(unit: str, count: int, house: str) -> list[_Bed]:
    """Two beds a room."""
    return [_Bed(unit, f"{unit}^{101 + index // 2}^{'AB'[index % 2]}^{house}") for index in range(count)]
