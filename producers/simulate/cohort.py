"""Adults over two years: long illnesses, stays, vital signs, notes and outcomes, and the truth that they were drawn by.

Where the hospital of `hospital.py` is about wards and wires, this one is about what comes of patients, to train and to
judge models by. Nothing here does I/O or looks at a clock: the same arguments give the same bytes, and the first
patients of a large cohort are those of a small one. Every message is new and in time; `hospital.py` has the others.

A stay is told from its end: its length is drawn at admission, nobody goes to intensive care in its last day, and
whoever dies does so at its end. So each outcome keeps the chance that `risks.py` gives it, exactly.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from random import Random

from infra.errors import UsageError
from producers.simulate import medicine, risks, segments
from producers.simulate.complaints import (
    CHRONIC,
    ELECTIVES,
    EMERGENCIES,
    HOMES,
    INHERITED,
    KIDNEY,
    RELATIVES,
    VAGUE,
    Chronic,
    Code,
    Complaint,
)
from producers.simulate.hospital import SimulatedMessage
from producers.simulate.people import Person, Staff, make_person, make_staff
from producers.simulate.risks import Signs
from streams.ehr.news2 import news2

DAYS = 730
_DAY, _HOUR, _MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
_MONTH = timedelta(days=30)
_STEP = timedelta(hours=risks.STEP_HOURS)
_GAP_DAYS = 900.0  # mean time between stays of somebody without a long illness, beyond the 30 days
_ELECTIVE, _VAGUE, _NAMED = 0.22, 0.15, 0.2
_VITALS = (
    ("respiration_rate", medicine.ANALYTES["rr"]),
    ("oxygen_saturation", medicine.ANALYTES["spo2"]),
    ("flow", medicine.Analyte("3151-8", "Inhaled oxygen flow rate", "L/min", 0, 15, -1, 60)),
    ("systolic", medicine.ANALYTES["sbp"]),
    ("pulse", medicine.ANALYTES["hr"]),
    ("temperature", medicine.ANALYTES["temp"]),
)
_CONSCIOUSNESS = "80288-4^Level of consciousness AVPU score^LN"
_STATES = {"A": "Alert", "C": "New confusion", "V": "Responds to voice", "P": "Responds to pain", "U": "Unresponsive"}
_COMPLAINT, _HOME = "8661-1^Chief complaint - Reported^LN", "29762-2^Social history Narrative^LN"
_DOCUMENTS = {  # TXA-2 (HL7 table 0270) and OBX-3
    "admission": ("HP", "34117-2^History and physical note^LN"),
    "progress": ("PN", "11506-3^Progress note^LN"),
    "discharge": ("DS", "18842-5^Discharge summary^LN"),
}


@dataclass(frozen=True, slots=True)
class Truth:
    """What a perfect model would say of one event: the chance that its outcome was drawn with, and the outcome.

    `control_id` is MSH-10 of the event to be scored. `target` is department (A04, A05, A01 of an emergency or a stay),
    length_of_stay (A01), readmission (A03 of a stay that ends alive) or deterioration (ORU of vital signs on a ward;
    those in the emergency department and in intensive care have none). `probability` is one of "yes", or one of each
    class. `outcome` is None where simulated time ends before it is known.
    """

    control_id: str
    target: str
    probability: float | dict[str, float]
    outcome: bool | str | None

    def line(self) -> dict[str, object]:
        return {"control_id": self.control_id, "target": self.target, "probability": self.probability}


@dataclass(frozen=True, slots=True)
class Story:
    """Messages in sending order, and the truth of those that a model is to score."""

    messages: list[SimulatedMessage]
    truths: list[Truth]


@dataclass(frozen=True, slots=True)
class Cohort:
    """The arguments of a cohort. `now` (with a zone) is where simulated time ends. Raises UsageError."""

    seed: int
    patients: int
    now: datetime
    days: int = DAYS
    facility: str = "HARBOUR"

    def __post_init__(self) -> None:
        if not 1 <= self.patients <= 100_000:
            raise UsageError("a cohort has 1 to 100,000 patients")
        if self.now.tzinfo is None:
            raise UsageError("simulated times need a zone")
        if self.days < 60:
            raise UsageError("a cohort takes 60 days at least: a readmission shows after 30")
        if not re.fullmatch(r"[A-Z0-9]{1,20}", self.facility):
            raise UsageError("a facility is named in capital letters and digits")

    def tell(self) -> Story:
        now = self.now.replace(microsecond=0)
        # Another end of time or another hospital must not use the same message ids for other bodies.
        story = f"{self.seed}|{now.timestamp()}|{self.days}|{self.facility}"
        tag = hashlib.sha256(story.encode()).hexdigest()[:6].upper()
        staff = make_staff(Random(f"wardstream cohort staff {self.seed}"), 40, chinese=False)  # noqa: S311
        messages: list[SimulatedMessage] = []
        truths: list[Truth] = []
        for index in range(self.patients):
            life = _Life(self, now, index, staff, tag)
            life.live()
            messages += life.messages
            truths += life.truths
        messages.sort(key=lambda one: one.at)  # stable: a patient's own order stays
        return Story(messages, truths)


@dataclass(slots=True)
class _Visit:
    """One visit; `code` is what the desk writes for the complaint, `at` when it was admitted (PV1-44)."""

    number: str
    complaint: Complaint
    code: Code
    words: str
    service: str
    planned: bool
    doctor: Staff
    patient_class: str
    place: str
    at: datetime


class _Life:
    """One patient, told by a random generator of its own."""

    def __init__(self, cohort: Cohort, now: datetime, index: int, staff: tuple[Staff, ...], tag: str) -> None:
        self.messages: list[SimulatedMessage] = []
        self.truths: list[Truth] = []
        self._rng = rng = Random(f"wardstream cohort {cohort.seed} {index}")  # noqa: S311 - a model, no secret
        self._now, self._begin = now, now - timedelta(days=cohort.days)
        self._facility, self._staff = cohort.facility, staff
        self._systems = segments.systems(cohort.facility, "JADE")
        self._prefix, self._count = f"C{tag}{index:05d}", 0
        # A prime step through all numbers of eight digits: no two patients of a seed share one.
        number = str(10_000_000 + (index * 1_299_709 + cohort.seed * 7_919) % 90_000_000)
        self._person: Person = make_person(rng, index, number, self._begin.date(), child=False, chinese=False)
        age = self._age(self._begin)
        self._chronic: tuple[Chronic, ...] = tuple(one for one in CHRONIC if rng.random() < risks.has(one, age))
        self._codes = frozenset(one.diagnosis.code for one in self._chronic)
        self._ended: list[datetime] = []  # stays
        self._last: Complaint | None = None
        self._burden = risks.burden(age, self._codes)

    def live(self) -> None:
        rng = self._rng
        mean = _GAP_DAYS / (1 + 0.5 * len(self._chronic))
        end: datetime | None = self._begin
        since = self._begin
        admitted = self._begin + _days(rng.expovariate(1 / mean))
        while end is not None and admitted < self._now:
            planned = rng.random() < _ELECTIVE and end + _MONTH < admitted
            self._between(since, admitted - 2 * _DAY)
            end, soon = self._stay(admitted, planned)
            if end is not None:
                since = end + _DAY
                gap = rng.uniform(1.5, 29.5) if soon else 31 + rng.expovariate(1 / mean)
                admitted = end + _days(gap)
        if end is not None:
            self._between(since, self._now)
        self.messages.sort(key=lambda one: one.at)

    # --- time and chance ----------------------------------------------------------------------------------------

    def _age(self, at: datetime) -> int:
        return min(90, _age(self._person.born, at.date()))

    def _draw(self, chances: Mapping[str, float]) -> str:
        return self._rng.choices(list(chances), list(chances.values()))[0]

    def _later(self, at: datetime, low: float, high: float) -> datetime:
        """`low` to `high` minutes later."""
        return at + timedelta(seconds=round(self._rng.uniform(low, high) * 60))

    # --- sending ------------------------------------------------------------------------------------------------

    def _number(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count:05d}"

    def _emit(self, at: datetime, role: str, kind: str, body: Iterable[str]) -> str:
        """Send, unless simulated time is over; gives the control id."""
        control = self._number()
        if at <= self._now:
            system = self._systems[False, role]
            head = segments.msh(system, kind, control, at, self._facility)
            self.messages.append(SimulatedMessage(at, at, kind, system.body([head, *body]), "new", self._person.key))
        return control

    def _true(
        self, at: datetime, control: str, target: str, chance: float | dict[str, float], outcome: bool | str | None
    ) -> None:
        if at <= self._now:
            self.truths.append(Truth(control, target, chance, outcome))

    def _visit(
        self, at: datetime, complaint: Complaint, service: str, planned: bool, patient_class: str, place: str
    ) -> _Visit:
        rng = self._rng
        code = VAGUE if not planned and rng.random() < _VAGUE else complaint.reason
        words = rng.choice(complaint.words)
        return _Visit(
            self._number(), complaint, code, words, service, planned, rng.choice(self._staff), patient_class, place, at
        )

    def _place(self, unit: str) -> str:
        return f"{unit}^{self._rng.randint(101, 140)}^{self._rng.choice('AB')}^{self._facility}"

    def _pid_pv1(
        self,
        role: str,
        visit: _Visit,
        prior: str = "",
        discharged: datetime | None = None,
        disposition: str = "",
    ) -> list[str]:
        system = self._systems[False, role]
        kind = "" if visit.patient_class == "O" else "C" if visit.planned else "E"
        source = "" if visit.patient_class == "O" else "1" if visit.planned else "7"  # table 0023: referral, emergency
        died = discharged if disposition == "20" else None
        return [
            segments.pid(system, self._person, visit.number, died),
            segments.pv1(
                system, visit.patient_class, visit.place, prior, visit.doctor, visit.service, visit.number, visit.at,
                discharged, kind=kind, source=source, disposition=disposition,
            ),
        ]  # fmt: skip

    def _diagnoses(self, at: datetime, first: Code, kind: str) -> Iterator[str]:
        """The reason or the final diagnosis, then every long illness."""
        system = self._systems[False, "adt"]
        yield segments.dg1(system, first, at, kind)
        for index, one in enumerate((one for one in self._chronic if one.diagnosis.code != first.code), 2):
            yield segments.dg1(system, one.diagnosis, at, kind, index)

    def _register(self, at: datetime, event: str, visit: _Visit) -> str:
        system = self._systems[False, "adt"]
        body = [segments.evn(system, event, at), *self._pid_pv1("adt", visit)]
        if visit.patient_class != "O":
            body.append(segments.obx_text(system, 1, "TX", _COMPLAINT, [visit.words], at))
        return self._emit(at, "adt", f"ADT^{event}", [*body, *self._diagnoses(at, visit.code, "A")])

    def _move(self, at: datetime, visit: _Visit, unit: str) -> None:
        prior, visit.place = visit.place, self._place(unit)
        self._emit(
            at, "adt", "ADT^A02",
            [segments.evn(self._systems[False, "adt"], "A02", at), *self._pid_pv1("adt", visit, prior)],
        )  # fmt: skip

    def _discharge(self, at: datetime, visit: _Visit, final: Code, disposition: str, home: str = "") -> str:
        system = self._systems[False, "adt"]
        body = [
            segments.evn(system, "A03", at),
            *self._pid_pv1("adt", visit, discharged=at, disposition=disposition),
            *self._diagnoses(at, final, "F"),
        ]
        if home:
            body.append(segments.obx_text(system, 1, "TX", _HOME, [home], at))
        return self._emit(at, "adt", "ADT^A03", body)

    def _report_signs(self, at: datetime, visit: _Visit, shown: Signs) -> str:
        """ORU^R01 of all seven vital signs of NEWS2."""
        system = self._systems[False, "vitals"]
        body = [*self._pid_pv1("vitals", visit), *self._head(at, at, "vitals", visit, medicine.PANELS["VITALS"])]
        for index, (name, analyte) in enumerate(_VITALS, 1):
            body.append(segments.obx_number(system, index, analyte, analyte.text(getattr(shown, name)), at, "F"))
        state = shown.consciousness
        body.append(segments.obx_coded(system, len(_VITALS) + 1, _CONSCIOUSNESS, f"{state}^{_STATES[state]}^L", at))
        return self._emit(at, "vitals", "ORU^R01", body)

    def _report_blood(self, at: datetime, visit: _Visit, panel: str, level: int) -> None:
        system, chosen = self._systems[False, "lab"], medicine.PANELS[panel]
        shift = {"creat": (2.0, 0.4), "bun": (34.0, 7.0)} if KIDNEY in self._codes else {}
        if level > 1:
            shift |= {"wbc": (9.0 + 2.5 * level, 3.0), "glu": (120.0 + 12 * level, 30.0)}
        illness = medicine.Condition("", "", "", "", visit.service, 0.0, shift=shift)
        drawn = at - timedelta(minutes=self._rng.randint(20, 50))
        body = [*self._pid_pv1("lab", visit), *self._head(at, drawn, "lab", visit, chosen)]
        for index, (analyte, value) in enumerate(medicine.measure(self._rng, chosen, illness, 1.0, child=False), 1):
            body.append(segments.obx_number(system, index, analyte, value, drawn, "F"))
        self._emit(at, "lab", "ORU^R01", body)

    def _head(self, at: datetime, drawn: datetime, role: str, visit: _Visit, panel: medicine.Panel) -> list[str]:
        system, filler, service = self._systems[False, role], self._number(), f"{panel.code}^{panel.name}^LN"
        section = "LAB" if role == "lab" else ""
        return [
            segments.orc(system, "RE", "", filler, at, visit.doctor),
            segments.obr(system, "", filler, service, drawn, visit.doctor, section, at, "F"),
        ]

    def _write(self, at: datetime, visit: _Visit, kind: str, lines: list[str]) -> None:
        system = self._systems[False, "notes"]
        if self._rng.random() < _NAMED:  # as real notes do: what the text hides must be found by its words
            person = self._person
            lines.insert(1, f"{person.name.spoken()} (MRN {person.mrn}) can be reached on {person.contact.phone()}.")
        document_type, code = _DOCUMENTS[kind]
        body = [
            segments.evn(system, "T02", at),
            *self._pid_pv1("notes", visit),
            segments.txa(system, self._number(), document_type, at, visit.doctor),
            segments.obx_text(system, 1, "FT", code, lines, at),
        ]
        self._emit(at, "notes", "MDM^T02", body)

    # --- what happens -------------------------------------------------------------------------------------------

    def _between(self, start: datetime, stop: datetime) -> None:
        """Between stays: reviews of long illnesses, and now and then the emergency department and home again."""
        rng = self._rng
        at = start + _days(rng.expovariate(1 / 260))
        while self._chronic and at < stop:
            self._review(at)
            at += _days(rng.uniform(120, 400))
        at = start + _days(rng.expovariate(1 / 900))
        while at + _DAY < stop:
            self._emergency(at, rng.choices(EMERGENCIES, [one.weight for one in EMERGENCIES])[0], home=True)
            at += _days(30 + rng.expovariate(1 / 900))

    def _review(self, at: datetime) -> None:
        at = at.replace(microsecond=0)
        chronic = self._rng.choice(self._chronic)
        review = Complaint(chronic.diagnosis, (f"review of {chronic.words}",), {})
        visit = self._visit(at, review, "CLIN", True, "O", f"CLIN^{self._rng.randint(1, 9)}^^{self._facility}")
        self._register(at, "A04", visit)
        self._report_blood(self._later(at, 20, 40), visit, "BMP", 0)
        lines = [f"Clinic review, {chronic.words}.", f"Denies {self._symptom()}.", "Medicines continued unchanged."]
        self._write(self._later(at, 45, 55), visit, "progress", lines)
        self._discharge(self._later(at, 60, 90), visit, chronic.diagnosis, "01")

    def _symptom(self) -> str:
        return self._rng.choice(self._rng.choice(EMERGENCIES).absent)

    def _emergency(self, at: datetime, complaint: Complaint, home: bool) -> tuple[_Visit, int, int]:
        """Registration and first signs; gives the visit, its level of illness and its NEWS2."""
        rng, at = self._rng, at.replace(microsecond=0)
        chances = risks.department(complaint, self._age(at), self._codes)
        service = self._draw(chances)
        visit = self._visit(at, complaint, service, False, "E", f"ED^{rng.randint(1, 26)}^^{self._facility}")
        self._true(at, self._register(at, "A04", visit), "department", chances, service)
        weights = (60, 30, 10, 0, 0) if home else complaint.levels
        level = rng.choices(range(risks.LEVELS), weights)[0]
        shown = risks.signs(rng, level, self._codes)
        self._report_signs(self._later(at, 8, 20), visit, shown)
        self._report_blood(self._later(at, 60, 110), visit, "CBC", level)
        if home:
            leaves = self._later(at, 150, 300)
            self._write(leaves - 20 * _MINUTE, visit, "admission", self._assessment(visit, leaves))
            self._discharge(leaves, visit, self._final(visit), "01")
        score = news2(shown.vitals())
        assert score is not None
        return visit, level, score.total

    def _final(self, visit: _Visit) -> Code:
        return visit.complaint.finals.get(visit.service, visit.complaint.reason)

    def _stay(self, admitted: datetime, planned: bool) -> tuple[datetime | None, bool]:
        """One inpatient stay. Gives its end, None for a death, and whether another one follows within 30 days."""
        rng, admitted = self._rng, admitted.replace(microsecond=0)
        choices = ELECTIVES if planned else EMERGENCIES
        complaint = rng.choices(choices, [one.weight for one in choices])[0]
        if not planned and self._last is not None and rng.random() < 0.4:
            complaint = self._last
        self._last = self._last if planned else complaint
        if planned:
            visit, level, score = self._preadmit(admitted, complaint)
        else:
            visit, level, score = self._emergency(self._later(admitted, -420, -180), complaint, home=False)
        age = self._age(admitted)
        bands = risks.length_of_stay(visit.service, planned, score, age, self._codes)
        band = self._draw(bands)
        days = {"0-2": rng.choice((1, 1, 2, 2, 2)), "3-7": rng.randint(3, 7)}.get(band, 8)
        days += min(30, math.floor(rng.expovariate(1 / 5))) if band == "8+" else 0
        end = _end(rng, admitted, days)
        visit.patient_class, visit.at, visit.place = "I", admitted, self._place(visit.service)
        control = self._register(admitted, "A01", visit)
        chances = risks.department(complaint, age, self._codes)
        self._true(admitted, control, "department", chances, visit.service)
        self._true(admitted, control, "length_of_stay", bands, band if end <= self._now else None)
        written = self._later(admitted, 40, 100)
        self._write(written, visit, "admission", self._assessment(visit, written))
        died = self._ward(admitted, end, visit, level)
        return self._leave(end, visit, age, days, died)

    def _preadmit(self, admitted: datetime, complaint: Complaint) -> tuple[_Visit, int, int]:
        """A05 some days before a planned stay."""
        at = self._later(admitted, -14 * 1440, -3 * 1440)
        chances = risks.department(complaint, self._age(at), self._codes)
        service = self._draw(chances)
        visit = self._visit(at, complaint, service, True, "P", f"{service}^^^{self._facility}")
        if at >= self._begin:
            self._true(at, self._register(at, "A05", visit), "department", chances, service)
        return visit, self._rng.choices(range(risks.LEVELS), complaint.levels)[0], 0

    def _ward(self, admitted: datetime, end: datetime, visit: _Visit, level: int) -> bool:
        """The days on the ward, three sets of vital signs each; True for a death in intensive care at the end."""
        rng, quiet = self._rng, end - _DAY
        at, number = self._later(admitted, 20, 40), 0
        sets: list[tuple[str, datetime, float]] = []
        intensive: list[datetime] = []
        died = False
        while at < end - _HOUR and not died:
            if at >= quiet:  # who is to go home is well
                level = min(level, 1) if rng.random() < 0.7 else 0
            shown = risks.signs(rng, level, self._codes)
            # Minutes that add up to nothing: a day must hold three steps, for the chances are those of steps.
            control = self._report_signs(measured := self._later(at, -3, 3), visit, shown)
            steps = min(risks.STEPS_A_DAY, math.ceil((quiet - at) / _STEP)) if at < quiet else 0
            now = risks.hazard(shown, self._codes, self._burden)
            sets.append((control, measured, risks.within_a_day(level, now, steps, self._burden)))
            if number % 6 == 0:
                self._report_blood(self._later(at, 90, 150), visit, "BMP", level)
            number += 1
            if steps and rng.random() < now:
                moved = self._later(at, 15, risks.STEP_HOURS * 60 - 15)
                intensive.append(moved)
                at, died = self._intensive(moved, end, visit)
                level = rng.choice((1, 2))
            else:
                at, level = at + _STEP, risks.step(rng, level)
        for control, measured, chance in sets:
            came = any(measured < moved <= measured + _DAY for moved in intensive)
            known = came or measured + _DAY <= self._now
            self._true(measured, control, "deterioration", chance, came if known else None)
        return died

    def _intensive(self, moved: datetime, end: datetime, visit: _Visit) -> tuple[datetime, bool]:
        """Intensive care until it is better, or until death at the end: when the ward goes on, and True for a death."""
        rng = self._rng
        self._move(moved, visit, "ICU")
        self._write(self._later(moved, 20, 60), visit, "progress", [
            f"Called to see the patient on {visit.service}: worsening observations.",
            f"No {rng.choice(visit.complaint.absent)}. Possible sepsis.",
            "Transferred to intensive care.",
        ])  # fmt: skip
        died = rng.random() < risks.dying(self._age(moved), self._burden)
        leaves = end if died else min(moved + _HOUR * rng.uniform(16, 72), end - 6 * _HOUR)
        at, level = self._later(moved, 40, 60), 3
        while at < leaves - _HOUR:
            self._report_signs(at, visit, risks.signs(rng, level, self._codes))
            level = min(4, level + 1) if died else max(1, level - (rng.random() < 0.6))
            at += _STEP
        if died:
            return end, True
        leaves = leaves.replace(microsecond=0)
        self._move(leaves, visit, visit.service)
        return self._later(leaves, 20, 40), False

    def _leave(self, end: datetime, visit: _Visit, age: int, days: int, died: bool) -> tuple[datetime | None, bool]:
        rng, final = self._rng, self._final(visit)
        if died:
            self._discharge(end, visit, final, "20")
            return None, False
        frail = age >= 75 and days >= 5
        disposition = self._draw({"01": 4.0, "06": 0.7, "03": 2.0 if frail else 0.25, "07": 0.15})
        home = rng.choices(HOMES, [one.weight for one in HOMES])[0]
        lines = [
            f"Discharge summary. Diagnosis: {final.name}.",
            f"HOSPITAL COURSE: Admitted with {rng.choice(visit.complaint.findings)}, treated on {visit.service}.",
            f"No {rng.choice(visit.complaint.absent)} at discharge.",
            f"PAST HISTORY: {self._past()}",
            f"SOCIAL: {home.words}",
        ]
        self._write(end - 30 * _MINUTE, visit, "discharge", lines)
        control = self._discharge(end, visit, final, disposition, home.words)
        before = sum(end - timedelta(days=365) <= one < end for one in self._ended)
        chance = risks.readmission(age, self._codes, before, days, disposition, home.risk)
        soon = rng.random() < chance
        self._true(end, control, "readmission", chance, soon if end + _MONTH <= self._now else None)
        self._ended.append(end)
        return end, soon

    def _past(self) -> str:
        return f"{', '.join(one.words for one in self._chronic) or 'nothing of note'}.".capitalize()

    def _assessment(self, visit: _Visit, at: datetime) -> list[str]:
        """History and physical: findings, what is absent, what only runs in the family, what is only suspected."""
        rng, complaint = self._rng, visit.complaint
        noun = "woman" if self._person.sex == "F" else "man"
        absent = rng.sample(complaint.absent, 2)
        suspected = rng.choice([*complaint.finals.values(), complaint.reason])
        return [
            f"HISTORY: {_age(self._person.born, at.date())}-year-old {noun}, {visit.words}.",
            f"Reports {complaint.findings[0]}. Denies {absent[0]} or {absent[1]}.",
            f"PAST HISTORY: {self._past()}",
            f"FAMILY HISTORY: {rng.choice(RELATIVES)} with {rng.choice(INHERITED)}.",
            f"EXAM: {complaint.findings[-1].capitalize()} noted. No {rng.choice(complaint.absent)}.",
            f"ASSESSMENT: Possible {suspected.name[0].lower()}{suspected.name[1:]}.",
        ]


def _days(days: float) -> timedelta:
    return timedelta(seconds=round(days * 86_400))


def _age(born: date, at: date) -> int:
    return at.year - born.year - ((at.month, at.day) < (born.month, born.day))


def _end(rng: Random, admitted: datetime, days: int) -> datetime:
    """So many whole days later, by the clock and by nights alike: on that day, not before the admission's hour."""
    day = admitted + timedelta(days=days)
    left = (day.replace(hour=23, minute=55, second=0) - day) / _MINUTE
    wished = (day.replace(hour=rng.randint(9, 16), minute=rng.randint(0, 59), second=0) - day) / _MINUTE
    return day + timedelta(minutes=max(0, wished, min(left, rng.randint(5, 120))))
