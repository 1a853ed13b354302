"""HL7 v2 messages to health records: one pass over the segments, each of which adds to the part it belongs to.

What a segment says is written down in tables, `name: field` or `name: (field, component)`, counted as the standard
counts. Segments that are in no table (Z-segments among them) are counted and stay sealed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from infra.errors import BadMessage
from schemas.ehr import (
    Allergy,
    Appointment,
    Charge,
    Diagnosis,
    EhrPart,
    Event,
    Immunization,
    Medication,
    Note,
    Observation,
    Order,
    Procedure,
    Resource,
    Visit,
)
from schemas.peers import Peer
from schemas.record import Merge, Record, Subject
from schemas.wire.hl7v2 import Control, Dialect, Message, Segment, control, parse_ts, pick, values
from streams.ehr import codes, person

CLOCK_SKEW = timedelta(minutes=10)  # an event further ahead of its arrival has a wrong clock
OLDEST_AGE = 90  # stands for all above (45 CFR 164.514(b)(2)(i)(C))

# Message types without any use here when no patient is named.
ABOUT_PATIENTS = frozenset(
    ("ADT", "ORU", "ORM", "OMG", "OML", "OMI", "OMP", "MDM", "VXU", "RDE", "RDS", "RGV", "RAS", "DFT", "BAR", "REF")
)
# Those whose structures hold one PID. Of ADT all but the swap, the links and the merges.
ONE_PATIENT = frozenset(("ADT", "ORM", "OMG", "OML", "OMI", "OMP", "MDM", "VXU", "RDE", "RDS", "RGV", "RAS", "DFT"))
SEVERAL_PATIENTS = frozenset(("A17", "A18", "A24", "A30", "A37", *(f"A{number}" for number in range(34, 52)))) - {"A38"}
CANCELS = {
    "ADT": frozenset(
        ("A11", "A12", "A13", "A23", "A25", "A26", "A27", "A29", "A32", "A33", "A38", "A52", "A53", "A55", "A58")
    ),
    "SIU": frozenset(("S15", "S16", "S17")),
    "MDM": frozenset(("T11",)),
}
CANCELLED_ORDERS = frozenset(("CA", "CR", "OC", "DC", "DR", "OD", "UC"))  # table 0119, ORC-1

Table = Mapping[str, int | tuple[int, int]]
Draft = dict[str, Any]

EVENT_PID: Table = {"sex": 8, "language": 15, "marital_status": 16}
SECRET_PID: Table = {
    "birth_date": 7,
    "mothers_maiden_name": 6,
    "religion": 17,
    "account_number": 18,
    "ssn": 19,
    "drivers_license": 20,
    "birth_place": 23,
    "nationality": 28,
}
VISIT: Table = {
    "room": (3, 2),
    "bed": (3, 3),
    "prior_unit": 6,
    "prior_room": (6, 2),
    "prior_bed": (6, 3),
    "admission_type": 4,
    "preadmit_number": 5,
    "hospital_service": 10,
    "temporary_unit": 11,
    "readmission": 13,
    "admit_source": 14,
    "patient_type": 18,
    "visit_number": 19,
    "financial_class": 20,
    "discharge_disposition": 36,
    "discharged_to": 37,
    "diet": (38, 2),
    "status": 41,
    "pending_unit": 42,
    "alternate_visit": 50,
}
VISIT_STAFF = {"attending": 7, "referring": 8, "consulting": 9, "admitting": 17, "other_provider": 52}
ORDER: Table = {
    "order_control": 1,
    "placer_number": 2,
    "filler_number": 3,
    "group_number": 4,
    "order_status": 5,
}
OBR: Table = {
    "placer_number": 2,
    "filler_number": 3,
    "danger": (12, 2),
    "relevant_information": 13,
    "diagnostic_section": 24,
    "status": 25,
    "reason": (31, 2),
}
OBX: Table = {
    "sub_id": 4,
    "value_type": 2,
    "units": 6,
    "reference_range": 7,
    "status": 11,
    "method": 17,
    "body_site": 20,
}
TXA: Table = {
    "code": 2,
    "document_number": 12,
    "parent_document": 13,
    "placer_number": 14,
    "filler_number": 15,
    "status": 17,
    "confidentiality": 18,
    "availability": 19,
    "display": 25,
}

TEXT_TYPES = frozenset(("", "ST", "TX", "FT", "SI", "TM", "NR"))
LINES = frozenset(("TX", "FT"))  # types whose consecutive segments are the lines of one report
CODED_TYPES = frozenset(("CE", "CWE", "CNE", "CF", "IS", "ID"))
TIME_TYPES = frozenset(("DT", "TS", "DTM"))
ATTACHED_TYPES = frozenset(("ED", "RP"))
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)


def check(message: Message, header: Control, peer: Peer) -> datetime | None:
    """What an edge must know before it accepts: the patients are as the structure wants them, and MSH-7 is a time.

    Gives MSH-7. Raises BadMessage.
    """
    patients = sum(line.startswith("PID") for line in message.lines)
    about_a_bed = (header.message_type, header.trigger) == ("ADT", "A20")
    if not patients and header.message_type in ABOUT_PATIENTS and not about_a_bed:
        raise BadMessage("missing_segment", "PID")
    if patients > 1 and header.message_type in ONE_PATIENT and header.trigger not in SEVERAL_PATIENTS:
        raise BadMessage("repeated_segment", "PID")
    return parse_ts(header.sent_at, peer.zone, "MSH-7") if header.sent_at else None


def read(message: Message, peer: Peer, received_at: datetime) -> Record:
    """The record of a message. Raises BadMessage with the place where a part of it cannot be taken."""
    return _Reading(message, peer, received_at).record()


class _Reading:
    """One message being read: drafts of parts in order, and which of them the next segment adds to."""

    def __init__(self, message: Message, peer: Peer, received_at: datetime) -> None:
        self.message, self.peer = message, peer
        self.header = control(message)
        self.sent_at = check(message, self.header, peer)
        self.occurred_at: datetime | None = None
        self.received_at = received_at
        self.drafts: list[tuple[type[EhrPart], Draft]] = []
        self.flags: list[str] = []
        self.terms: list[str] = []
        self.unread: Counter[str] = Counter()
        self.unread_size: Counter[str] = Counter()
        self.subject: int | None = None
        self.subjects_seen = 0
        self.event_of_message: Draft = {}  # EVN: of every patient
        self.appointment: Draft | None = None  # of all patients
        self.event: Draft
        self._new_patient(None)

    def record(self) -> Record:
        for segment in self.message.segments()[1:]:
            handle = _SEGMENTS.get(segment.name)
            if handle is not None:
                handle(self, segment)
            else:
                self.unread[segment.name] += 1
                self.unread_size[segment.name] += _size(segment)
        subjects, merges = person.subjects(self.message, self.header, self.peer)
        at, drafts = self._event_time(), list(self._ordered())
        parts = tuple(self._finished(kind, draft, at) for kind, draft in drafts)
        return Record(
            subjects=subjects,
            parts=parts,
            versions=tuple(
                _version(part, draft.get("_filler", ""), subjects)
                for (_, draft), part in zip(drafts, parts, strict=True)
            ),
            merges=tuple(Merge(prior=prior, survivor=survivor) for prior, survivor in merges),
            terms=tuple(dict.fromkeys(self.terms)),
            event_time=at,
        )

    def _event_time(self) -> datetime | None:
        at = self.occurred_at or self.sent_at
        if at is not None and at > self.received_at + CLOCK_SKEW:
            self.flags.append("future_time")
            return self.received_at
        return at

    def _ordered(self) -> Iterator[tuple[type[EhrPart], Draft]]:
        """Events first: the first part of every message is one."""
        yield from (draft for draft in self.drafts if draft[0] is Event)
        yield from (draft for draft in self.drafts if draft[0] is not Event)

    def _finished(self, kind: type[EhrPart], draft: Draft, at: datetime | None) -> EhrPart:
        place = draft.pop("_place")
        flags = [*self.flags, *draft.pop("flags", ())]
        if kind is Event:
            draft |= self.event_of_message | self._header_fields()
            born = draft.pop("_born", None)
            if born is not None and at is not None:
                draft["age"] = _age(born, at)
        for text in ("body", "value_text"):
            if isinstance(draft.get(text), list):
                draft[text] = "\n".join(draft[text])
        return kind(
            message_type=self.header.message_type,
            trigger=self.header.trigger or self.event_of_message.get("_trigger", ""),
            flags=tuple(flags),
            **place,
            **{name: value for name, value in draft.items() if name[0] != "_"},
        )

    def _header_fields(self) -> Draft:
        header = self.header
        return {
            "structure": header.structure,
            "sending_application": header.sending_application,
            "sending_facility": header.sending_facility,
            "receiving_application": header.receiving_application,
            "receiving_facility": header.receiving_facility,
            "processing_id": header.processing_id,
            "version": header.version,
            "control_id": header.control_id,
            "unread_segments": tuple(
                f"{name}:{count}:{self.unread_size[name]}" for name, count in sorted(self.unread.items())
            ),
        }

    # ------------------------------------------------------------------------------------------------------ drafting

    def _new(self, kind: type[EhrPart], segment: Segment | None = None, table: Table | None = None) -> Draft:
        draft: Draft = {"subject": self.subject, "_place": self.place}
        if segment is not None and table is not None:
            _take(draft, segment, table)
        self.drafts.append((kind, draft))
        return draft

    def _new_patient(self, subject: int | None) -> None:
        """Nothing of the patient before belongs to this one; what came before the first patient is the first's."""
        first = subject == 0
        self.subject = subject
        self.place: Draft = {"facility": self.header.sending_facility}
        self.visit: Draft | None = None
        self.order: Draft | None = None
        self.medication: Draft | None = None
        self.immunization: Draft | None = None
        self.document: Draft | None = None
        self.observation: Draft | None = None
        self.report_code: tuple[str, ...] = ()  # of the report whose lines are being read
        if first:
            for _, draft in self.drafts:
                draft["subject"] = subject
            self.event["_place"] = self.place
        else:
            self.event = self._new(Event)
        self._at("patient", self.event)

    def _at(self, about: str, draft: Draft) -> None:
        """Notes from here on are about this."""
        self.about: tuple[str, Draft] = (about, draft)
        self.note: Draft | None = None

    def _time(
        self, draft: Draft, name: str, segment: Segment, field: int, component: int = 1, key: bool = False
    ) -> None:
        """A time that cannot be read is flagged; where it decides when something was (`key`) the message is refused."""
        if text := segment.value(field, component):
            place = f"{segment.name}-{field}"
            try:
                draft[name] = parse_ts(text, self.peer.zone, place)
            except BadMessage:
                if key:
                    raise
                draft.setdefault("flags", []).append(f"bad_date:{place}")

    def _number(self, draft: Draft, name: str, segment: Segment, field: int, component: int = 1) -> None:
        if text := segment.value(field, component):
            if _NUMBER.fullmatch(text):
                draft[name] = float(text)
            else:
                draft.setdefault("flags", []).append(f"bad_number:{segment.name}-{field}")

    def _staff(self, draft: Draft, name: str, segment: Segment, *fields: int) -> None:
        for field in fields:
            if not segment.text(field):
                continue
            found, terms = person.staff(segment, field, name, self.header.sending_facility)
            if found:
                draft[name] = tuple(dict.fromkeys((*draft.get(name, ()), *found)))
                self.terms += terms

    def _terms(self, words: Iterator[str]) -> None:
        self.terms += words

    def _add(self, draft: Draft, name: str, values: Iterator[str]) -> None:
        if found := tuple(dict.fromkeys(values)):
            draft[name] = tuple(dict.fromkeys((*draft.get(name, ()), *found)))

    # ------------------------------------------------------------------------------------------------ event, patient

    def evn(self, segment: Segment) -> None:
        draft = self.event_of_message
        _take(draft, segment, {"event_reason": 4, "_trigger": 1})
        self._time(draft, "planned_at", segment, 3)
        when: Draft = {}
        self._time(when, "recorded", segment, 2, key=True)
        self._time(when, "occurred", segment, 6, key=True)
        self.occurred_at = when.get("recorded")
        self._staff(draft, "operator", segment, 5)
        self.flags += draft.pop("flags", ())

    def pid(self, segment: Segment) -> None:
        self._new_patient(self.subjects_seen)
        self.subjects_seen += 1
        draft = self.event
        _take(draft, segment, EVENT_PID)
        _take(draft, segment, SECRET_PID)
        if birth := segment.value(7):
            draft["_born"] = parse_ts(birth, self.peer.zone, "PID-7")
            self._terms(person.date_terms(birth))
        self._add(draft, "race", _codes(segment, 10))
        self._add(draft, "ethnic_group", _codes(segment, 22))
        self._add(draft, "identifiers", person.numbers(segment, 3, 2, 4))
        self._add(draft, "identifier_details", person.number_details(segment, 3, 2, 4))
        self._add(draft, "mothers_identifiers", person.numbers(segment, 21))
        self._add(draft, "name", person.names(segment, 5, 9))
        self._add(draft, "addresses", person.addresses(segment, 11))
        self._add(draft, "phones", person.phones(segment, 13, 14))
        self._add(draft, "mails", person.mails(segment, 13, 14))
        self._add(draft, "citizenship", _codes(segment, 26))
        if (multiple := segment.value(24)) in ("Y", "N"):
            draft["multiple_birth"] = multiple == "Y"
        if (order := segment.value(25)).isascii() and order.isdigit() and len(order) < 3:
            draft["birth_order"] = int(order)
        self._time(draft, "died_at", segment, 29)
        if (dead := segment.value(30)) in ("Y", "N"):
            draft["deceased"] = dead == "Y"
        draft["nulls"] = tuple(f"PID-{field}" for field in range(1, len(segment.fields)) if segment.null(field))
        self._terms(person.name_terms(segment, 5, 6, 9))
        self._terms(person.address_terms(segment, 11))
        self._terms(person.phone_terms(segment, 13, 14))
        self._terms(person.numbers(segment, 2, 3, 4, 18, 19, 20, 21))

    def pd1(self, segment: Segment) -> None:
        self._staff(self.event, "primary_care", segment, 4)

    def rol(self, segment: Segment) -> None:
        self._staff(self.event, "care_team", segment, 4)

    def prt(self, segment: Segment) -> None:
        self._staff(self.event, "care_team", segment, 5)

    def nk1(self, segment: Segment) -> None:
        self._relative(segment, "kin", names=(2, 30), addresses=(4, 32), phones=(5, 6, 31))
        self._terms(person.numbers(segment, 12, 33, 37))

    def gt1(self, segment: Segment) -> None:
        self._relative(segment, "guarantor", names=(3, 4), addresses=(5,), phones=(6, 7))
        self._add(self.event, "guarantor_identifiers", person.numbers(segment, 2, 12))
        self._terms(person.numbers(segment, 2, 12, 19))

    def in1(self, segment: Segment) -> None:
        if payer := segment.value(4):
            self.event["payers"] = tuple(dict.fromkeys((*self.event.get("payers", ()), payer)))
        self._relative(segment, "insured", names=(16,), addresses=(19,), phones=())
        self._add(self.event, "insured_identifiers", person.numbers(segment, 36, 49))
        self._terms(person.numbers(segment, 36, 49))

    def in2(self, segment: Segment) -> None:
        self._add(self.event, "insured_identifiers", person.numbers(segment, 1, 2, 61))
        self._terms(person.numbers(segment, 1, 2, 6, 8, 61))
        self._terms(person.name_terms(segment, 7, 9, 40))

    def _relative(
        self, segment: Segment, who: str, names: tuple[int, ...], addresses: tuple[int, ...], phones: tuple[int, ...]
    ) -> None:
        self._add(self.event, f"{who}_names", person.names(segment, *names))
        self._add(self.event, f"{who}_addresses", person.addresses(segment, *addresses))
        self._terms(person.name_terms(segment, *names))
        self._terms(person.address_terms(segment, *addresses))
        if phones:
            self._add(self.event, f"{who}_phones", person.phones(segment, *phones))
            self._terms(person.phone_terms(segment, *phones))

    def mrg(self, segment: Segment) -> None:
        if any(not person.nobody(number) for number in person.numbers(segment, 1)):
            self.subjects_seen += 1  # as person.subjects counts
        self._add(self.event, "prior_identifiers", person.numbers(segment, 1, 4))
        self._add(self.event, "prior_names", person.names(segment, 7))
        self._terms(person.numbers(segment, 1, 2, 3, 4, 5, 6))
        self._terms(person.name_terms(segment, 7))
        if self.header.trigger in person.MERGES and "merge" not in self.flags:
            self.flags.append("merge")

    # --------------------------------------------------------------------------------------------------------- visit

    def pv1(self, segment: Segment) -> None:
        self.place = {
            "unit": segment.value(3),
            "facility": segment.value(3, 4) or self.header.sending_facility,
            "patient_class": segment.value(2),
        }
        self.event["_place"] = self.place
        if not any(segment.fields[3:]):  # a class alone (PV1|1|N) tells of no visit
            return
        draft = self.visit = self._new(Visit, segment, VISIT)
        if not draft.get("diet") and (diet := segment.value(38)):
            draft["diet"] = diet
        if bed_status := segment.value(40) or segment.value(3, 5):
            draft["bed_status"] = bed_status
        if account := self.event.get("account_number"):
            draft["visit_account"] = account
        self._time(draft, "admitted_at", segment, 44, key=True)
        self._time(draft, "discharged_at", segment, 45, key=True)
        for name, field in VISIT_STAFF.items():
            self._staff(draft, name, segment, field)
        self._terms(person.numbers(segment, 5, 19, 50))
        self._at("visit", draft)

    def pv2(self, segment: Segment) -> None:
        if self.visit is None:
            return
        draft = self.visit
        _take(draft, segment, {"mode_of_arrival": 38})
        if not draft.get("pending_unit") and (pending := segment.value(1)):
            draft["pending_unit"] = pending
        if reason := segment.value(3, 2) or segment.value(3):
            draft["admit_reason"] = reason
        self._time(draft, "expected_admit_at", segment, 8)
        self._time(draft, "expected_discharge_at", segment, 9)

    def npu(self, segment: Segment) -> None:
        """The status of a bed, which is nobody's (ADT^A20): as FHIR tells a Location."""
        draft = self._new(Resource, segment, {"room": (1, 2), "bed": (1, 3), "bed_status": 2})
        draft["resource_type"] = "Location"
        facility = segment.value(1, 4) or self.header.sending_facility
        draft["_place"] = {"unit": segment.value(1), "facility": facility}

    # ------------------------------------------------------------------------------ diagnoses, procedures, allergies

    def dg1(self, segment: Segment) -> None:
        draft = self._new(Diagnosis, segment, {"diagnosis_type": 6, "priority": 15, "action": 21})
        _concept(draft, segment, 3)
        if not draft.get("display") and (said := segment.value(4)):
            draft["display"] = said
        self._time(draft, "diagnosed_at", segment, 5)
        self._time(draft, "attested_at", segment, 19)
        self._staff(draft, "diagnosed_by", segment, 16)
        self._at("diagnosis", draft)

    def prb(self, segment: Segment) -> None:
        table: Table = {"action": 1, "confirmation": 13, "status": 14, "priority": 23}
        draft = self._new(Diagnosis, segment, table)
        draft["diagnosis_type"] = "problem"
        _concept(draft, segment, 3)
        self._time(draft, "diagnosed_at", segment, 7)
        self._time(draft, "onset_at", segment, 16)
        self._at("diagnosis", draft)

    def pr1(self, segment: Segment) -> None:
        table: Table = {"procedure_type": 6, "anesthesia": 9, "priority": 14, "reason_code": 15, "action": 20}
        draft = self._new(Procedure, segment, table)
        _concept(draft, segment, 3)
        if not draft.get("display") and (said := segment.value(4)):
            draft["display"] = said
        self._time(draft, "performed_at", segment, 5)
        self._number(draft, "minutes", segment, 7)
        self._staff(draft, "anesthesiologist", segment, 8)
        self._staff(draft, "surgeon", segment, 11)
        self._staff(draft, "practitioner", segment, 12)
        self._at("procedure", draft)

    def al1(self, segment: Segment) -> None:
        draft = self._new(Allergy, segment, {"allergen_type": 2, "severity": 4})
        _concept(draft, segment, 3)
        self._add(draft, "reactions", _said(segment, 5))
        self._time(draft, "identified_at", segment, 6)
        self._at("allergy", draft)

    def iam(self, segment: Segment) -> None:
        draft = self._new(Allergy, segment, {"allergen_type": 2, "severity": 4, "action": 6, "status": 17})
        _concept(draft, segment, 3)
        self._add(draft, "reactions", _said(segment, 5))
        self._time(draft, "identified_at", segment, 11)
        self._at("allergy", draft)

    # -------------------------------------------------------------------------------------------------------- orders

    def orc(self, segment: Segment) -> None:
        draft = self.order = self._new(Order, segment, ORDER)
        draft["_bare"] = True  # no OBR yet
        self.medication = self.immunization = None
        self.observation, self.report_code = None, ()
        if draft.get("order_control") in CANCELLED_ORDERS:
            draft["flags"] = ["cancel"]
        if reason := segment.value(16, 2) or segment.value(16):
            draft["reason"] = reason
        self._time(draft, "entered_at", segment, 9)
        self._time(draft, "requested_at", segment, 15)
        self._timing(draft, segment, 7)
        self._staff(draft, "entered_by", segment, 10)
        self._staff(draft, "verified_by", segment, 11)
        self._staff(draft, "ordering", segment, 12)
        self._terms(person.numbers(segment, 2, 3, 4))
        self._at("order", draft)

    def _timing(self, draft: Draft, segment: Segment, field: int) -> None:
        """TQ, of versions before 2.5: .4 start, .5 end, .6 priority."""
        if not segment.text(field):
            return
        self._time(draft, "starts_at", segment, field, 4)
        self._time(draft, "ends_at", segment, field, 5)
        if priority := segment.value(field, 6):
            draft["priority"] = priority

    def tq1(self, segment: Segment) -> None:
        target = self.medication or self.order or self.appointment
        if target is None:
            return
        if target is not self.appointment and (priority := segment.value(9)):
            target["priority"] = priority
        self._time(target, "starts_at", segment, 7)
        self._time(target, "ends_at", segment, 8)

    def obr(self, segment: Segment) -> None:
        if self.order is not None and self.order.pop("_bare", False):
            draft = self.order
        else:
            draft = self.order = self._new(Order)
        _take(draft, segment, OBR)
        _concept(draft, segment, 4, both=True)
        self._timing(draft, segment, 27)
        if not draft.get("priority") and (priority := segment.value(5)):
            draft["priority"] = priority
        if specimen := segment.value(15):
            draft["specimen"] = specimen
        if draft.get("status") == "C":
            draft.setdefault("flags", []).append("correction")
        if draft.get("status") == "X":
            draft.setdefault("flags", []).append("cancel")
        self._time(draft, "requested_at", segment, 6)
        self._time(draft, "observed_at", segment, 7, key=True)
        self._time(draft, "observed_until", segment, 8)
        self._time(draft, "specimen_received_at", segment, 14)
        self._time(draft, "reported_at", segment, 22)
        for name, field in (("ordering", 16), ("collector", 10), ("copies_to", 28)):
            self._staff(draft, name, segment, field)
        self._interpreter(draft, segment)
        self._terms(person.numbers(segment, 2, 3))
        self.observation, self.report_code = None, ()
        self._at("order", draft)

    def _interpreter(self, draft: Draft, segment: Segment) -> None:
        """OBR-32 is NDL: the name is one component of it, its parts are subcomponents."""
        for one in segment.repetitions(32):
            dialect = segment.dialect
            number, family, given = (pick(one, dialect, 1, sub) for sub in (1, 2, 3))
            if number or family:
                line = dialect.field.join(("NDL", dialect.component.join(map(dialect.quote, (number, family, given)))))
                self._staff(draft, "interpreter", Segment(line, dialect), 1)

    def spm(self, segment: Segment) -> None:
        if self.order is not None and (specimen := segment.value(4)):
            self.order["specimen"] = specimen

    # -------------------------------------------------------------------------------------------------- observations

    def obx(self, segment: Segment) -> None:
        kind = segment.value(2).upper()
        if self.document is not None and (kind in TEXT_TYPES or kind in ATTACHED_TYPES):
            self._document_content(self.document, segment, kind)
            return
        code = (kind, *(segment.value(3, component) for component in (1, 2, 3)), segment.value(4))
        if self.observation is not None and kind in LINES and code == self.report_code:
            self._text(self.observation, "value_text", segment)
            return
        draft = self.observation = self._new(Observation, segment, OBX)
        self.report_code = code
        _concept(draft, segment, 3, both=True)
        self._add(draft, "abnormal_flags", _codes(segment, 8))
        if draft.get("status") in ("C", "D", "W"):
            draft["flags"] = ["correction"]
        order = self.order
        if order is not None:
            for name, source in (("panel", "code"), ("specimen", "specimen"), ("observed_at", "observed_at")):
                if source in order:
                    draft[name] = order[source]
            draft["_filler"] = order.get("filler_number", "")
        self._time(draft, "observed_at", segment, 14, key=True)
        self._time(draft, "analysed_at", segment, 19)
        self._staff(draft, "observer", segment, 16)
        self._staff(draft, "medical_director", segment, 25)
        self._value(draft, segment, kind)
        self._at("observation", draft)

    def _value(self, draft: Draft, segment: Segment, kind: str) -> None:
        if kind == "NM":
            values = [pick(one, segment.dialect) for one in segment.repetitions(5)]
            if values and _NUMBER.fullmatch(values[0]):
                draft["value_number"] = float(values.pop(0))
            elif values:
                draft.setdefault("flags", []).append("bad_number:OBX-5")
            if values:
                draft["value_text"] = "; ".join(values)
        elif kind == "SN":
            draft["comparator"] = segment.value(5) or segment.value(5, 3)
            self._number(draft, "value_number", segment, 5, 2)
            self._number(draft, "value_high", segment, 5, 4)
        elif kind in CODED_TYPES:
            draft["value_code"] = segment.value(5) or segment.value(5, 4)
            said = draft["value_code"] if kind == "ID" else ""
            draft["value_text"] = codes.YES_NO.get(said) or "; ".join(_said(segment, 5))
        elif kind in TIME_TYPES:
            self._time(draft, "value_time", segment, 5)
        elif kind in ATTACHED_TYPES:
            _attach(draft, segment, kind)
        elif kind in TEXT_TYPES:
            self._text(draft, "value_text", segment)
        else:  # persons, places, devices, and types that we do not know
            self._add(draft, "value_identifying", iter(segment.repetitions(5)))
            self._terms(person.name_terms(segment, 5, first=2 if kind in ("XCN", "CN") else 1))

    def _text(self, draft: Draft, name: str, segment: Segment) -> None:
        lines = draft.setdefault(name, [])
        for one in segment.repetitions(5):
            # TX and FT are one text each: an unescaped `^` in it is a mistake of the sender and no component.
            lines.append(segment.dialect.unescape(one).rstrip())

    def _document_content(self, document: Draft, segment: Segment, kind: str) -> None:
        if kind in ATTACHED_TYPES:
            _attach(document, segment, kind)
        else:
            self._text(document, "body", segment)

    # ---------------------------------------------------------------------------------------------- notes, documents

    def nte(self, segment: Segment) -> None:
        about, target = self.about
        note = self.note
        if note is None:
            note = self.note = self._new(Note, segment, {"note_type": 4})
            note["about"], note["body"] = about, []
            for name in ("code", "code_system", "display"):
                if name in target:
                    note[name] = target[name]
            self._time(note, "written_at", segment, 6)
            self._staff(note, "author", segment, 5)
        for one in segment.repetitions(3):
            note["body"].append(segment.dialect.unescape(one).rstrip())

    def txa(self, segment: Segment) -> None:
        draft = self.document = self._new(Note, segment, TXA)
        draft["about"] = "document"
        self._time(draft, "performed_at", segment, 4, key=True)
        self._time(draft, "written_at", segment, 6, key=True)
        self._time(draft, "edited_at", segment, 8)
        self._staff(draft, "activity_provider", segment, 5)
        self._staff(draft, "author", segment, 9)
        self._staff(draft, "authenticator", segment, 10, 22)
        self._staff(draft, "transcriptionist", segment, 11)
        self._terms(person.numbers(segment, 12, 13, 14, 15))
        self._at("document", draft)

    # -------------------------------------------------------------------------------------------------- appointments

    def sch(self, segment: Segment) -> None:
        table: Table = {
            "placer_number": 1,
            "filler_number": 2,
            "event_reason": 6,
            "appointment_type": 8,
            "status": 25,
        }
        draft = self.appointment = self._new(Appointment, segment, table)
        _concept(draft, segment, 7)
        if reason := segment.value(7, 2) or segment.value(7):
            draft["reason"] = reason
        self._minutes(draft, segment, 9, 10)
        self._time(draft, "starts_at", segment, 11, 4)
        self._time(draft, "ends_at", segment, 11, 5)
        self._staff(draft, "contact", segment, 12, 16)
        self._staff(draft, "entered_by", segment, 20)
        self._terms(person.numbers(segment, 1, 2))
        self._at("appointment", draft)

    def _minutes(self, draft: Draft, segment: Segment, field: int, unit_field: int) -> None:
        seconds = {"": 60, "MIN": 60, "M": 60, "MINUTES": 60, "S": 1, "SEC": 1, "H": 3600, "HR": 3600, "HOURS": 3600}
        per = seconds.get(segment.value(unit_field).upper())
        if per is not None:
            self._number(draft, "minutes", segment, field)
            if "minutes" in draft:
                draft["minutes"] *= per / 60

    def _to_appointment(self, segment: Segment) -> Draft:
        if self.appointment is None:
            self.appointment = self._new(Appointment)
        self._at("appointment", self.appointment)
        return self.appointment

    def ais(self, segment: Segment) -> None:
        draft = self._to_appointment(segment)
        if not draft.get("services"):
            _concept(draft, segment, 3)
        self._add(draft, "services", _codes(segment, 3))
        if "starts_at" not in draft:
            self._time(draft, "starts_at", segment, 4)
        if "minutes" not in draft:
            self._minutes(draft, segment, 7, 8)

    def aig(self, segment: Segment) -> None:
        self._add(self._to_appointment(segment), "resources", _codes(segment, 3))

    def ail(self, segment: Segment) -> None:
        dialect = segment.dialect
        places = (
            "-".join(p for p in (pick(one, dialect, 1), pick(one, dialect, 2)) if p) for one in segment.repetitions(3)
        )
        self._add(self._to_appointment(segment), "rooms", (place for place in places if place))

    def aip(self, segment: Segment) -> None:
        self._staff(self._to_appointment(segment), "resource_staff", segment, 3)

    # -------------------------------------------------------------------------------------------- vaccines and drugs

    def rxa(self, segment: Segment) -> None:
        if self.header.message_type != "VXU":
            draft = self._drug("administered")
            _concept(draft, segment, 5, both=True)
            _take(draft, segment, {"status": 20})
            self._amount(draft, segment, 6, 7)
            self._time(draft, "administered_at", segment, 3)
            self._staff(draft, "administered_by", segment, 10)
            return
        draft = self.immunization = self._new(Immunization)
        self._from_order(draft, Immunization)
        _concept(draft, segment, 5, both=True)
        table: Table = {"source_of_information": 9, "manufacturer": 17, "status": 20, "action": 21}
        _take(draft, segment, table)
        if refusal := segment.value(18, 2) or segment.value(18):
            draft["refusal_reason"] = refusal
        self._add(draft, "lots", _codes(segment, 15))
        self._amount(draft, segment, 6, 7)
        self._time(draft, "administered_at", segment, 3)
        self._staff(draft, "administered_by", segment, 10)
        self.observation, self.report_code = None, ()
        self._at("immunization", draft)

    def rxo(self, segment: Segment) -> None:
        draft = self._drug("ordered")
        _concept(draft, segment, 1, both=True)
        self._amount(draft, segment, 2, 4)
        self._number(draft, "amount_high", segment, 3)
        _take(draft, segment, {"dose_form": 5})
        self._add(draft, "directions", _said(segment, 7))
        self._staff(draft, "verified_by", segment, 15)

    def rxe(self, segment: Segment) -> None:
        draft = self.medication
        if draft is None or draft.get("_encoded"):
            draft = self._drug("ordered")
        draft["_encoded"] = True
        self._timing(draft, segment, 1)
        _concept(draft, segment, 2, both=True)
        self._amount(draft, segment, 3, 5)
        self._number(draft, "amount_high", segment, 4)
        _take(draft, segment, {"dose_form": 6, "prescription_number": 15, "strength_units": 26})
        self._add(draft, "directions", _said(segment, 7))
        self._number(draft, "refills", segment, 12)
        self._number(draft, "strength", segment, 25)
        self._staff(draft, "ordering", segment, 13)
        self._staff(draft, "verified_by", segment, 14)
        self._terms(person.numbers(segment, 15))

    def rxd(self, segment: Segment) -> None:
        draft = self._drug("dispensed")
        _concept(draft, segment, 2, both=True)
        self._amount(draft, segment, 4, 5)
        _take(draft, segment, {"dose_form": 6, "prescription_number": 7})
        self._time(draft, "dispensed_at", segment, 3)
        self._staff(draft, "dispensed_by", segment, 10)
        self._terms(person.numbers(segment, 7))

    def rxg(self, segment: Segment) -> None:
        draft = self._drug("given")
        _concept(draft, segment, 4, both=True)
        self._amount(draft, segment, 5, 7)
        self._number(draft, "amount_high", segment, 6)

    def rxr(self, segment: Segment) -> None:
        target = self.immunization or self.medication
        if target is not None:
            _take(target, segment, {"route": 1, "body_site": 2})

    def rxc(self, segment: Segment) -> None:
        if self.medication is not None:
            self._add(self.medication, "components", _said(segment, 2))

    def _drug(self, stage: str) -> Draft:
        """The drug under the current ORC: ordered, then dispensed is one thing; dispensed twice is two."""
        draft = self.medication
        if draft is None or (draft.get("stage") == stage and stage != "ordered"):
            draft = self.medication = self._new(Medication)
            self._from_order(draft, Medication)
        draft["stage"] = stage
        self.observation, self.report_code = None, ()
        self._at("medication", draft)
        return draft

    def _from_order(self, draft: Draft, kind: type[EhrPart]) -> None:
        """An ORC without OBR is no order of its own, but the head of what follows."""
        order = self.order
        if order is None or "_bare" not in order:
            return
        self.drafts = [one for one in self.drafts if one[1] is not order]
        draft |= {name: value for name, value in order.items() if name in kind.model_fields}

    def _amount(self, draft: Draft, segment: Segment, amount: int, units: int) -> None:
        self._number(draft, "amount", segment, amount)
        _take(draft, segment, {"units": units})

    def ft1(self, segment: Segment) -> None:
        draft = self._new(
            Charge, segment, {"transaction_number": 2, "transaction_type": 6, "department": 13, "procedure": 25}
        )
        _concept(draft, segment, 7)
        if not draft.get("display") and (said := segment.value(8)):
            draft["display"] = said
        self._time(draft, "transacted_at", segment, 4)
        self._time(draft, "posted_at", segment, 5)
        self._number(draft, "amount", segment, 10)
        for field in (12, 11):
            self._number(draft, "price", segment, field)
            if currency := segment.value(field, 1, 2):
                draft["currency"] = currency
        self._add(draft, "diagnoses", _codes(segment, 19))
        self._staff(draft, "performed_by", segment, 20)
        self._staff(draft, "ordering", segment, 21)
        self._terms(person.numbers(segment, 2))
        self._at("charge", draft)


_SEGMENTS: dict[str, Callable[[_Reading, Segment], None]] = {
    name: getattr(_Reading, name.lower())
    for name in (
        ("EVN", "PID", "PD1", "ROL", "PRT", "NK1", "GT1", "IN1", "IN2", "MRG", "PV1", "PV2", "NPU")
        + ("DG1", "PRB", "PR1", "AL1", "IAM", "ORC", "TQ1", "OBR", "SPM", "OBX", "NTE", "TXA")
        + ("SCH", "AIS", "AIG", "AIL", "AIP", "RXA", "RXO", "RXE", "RXD", "RXG", "RXR", "RXC", "FT1")
    )
}


def _version(part: EhrPart, filler: str, subjects: tuple[Subject, ...]) -> str:
    """What a result that is told again (preliminary, final, corrected) has in common with itself: the order that was
    filled, of whom, what was measured, and when. Without the filler's number nothing says so."""
    if (
        not filler
        or not isinstance(part, Observation)
        or part.subject is None
        or not subjects[part.subject].identifiers
    ):
        return ""
    who, code = subjects[part.subject].identifiers[0], part.code or part.display
    when = part.observed_at.isoformat() if part.observed_at else ""
    return "\x1f".join((who.authority, who.type, who.value, filler, part.code_system, code, part.sub_id, when))


def _take(draft: Draft, segment: Segment, table: Table) -> None:
    """Copy what is there. What is absent leaves an earlier segment's value alone."""
    fields = segment.fields
    for name, place in table.items():
        field, component = place if isinstance(place, tuple) else (place, 1)
        if field < len(fields) and fields[field] and (value := segment.value(field, component)):
            draft[name] = value


def _concept(draft: Draft, segment: Segment, field: int, *, both: bool = False) -> None:
    """A CE, CWE or CNE: code, text, system; the alternate where the first has no code, and beside it if `both`."""
    if text := segment.text(field):
        draft |= _coded(text, segment.dialect)
        if not both:
            draft.pop("alternate_code", None)


@lru_cache(8192)  # a laboratory has some hundred tests, and sends each a thousand times a day
def _coded(text: str, dialect: Dialect) -> dict[str, str]:
    code, display, system, alternate, other_display, other_system, *_, original = values(
        text.split(dialect.repetition, 1)[0], dialect, 9
    )
    if not code:
        code, system, alternate = alternate, other_system, ""
    named = {
        "code": code,
        "display": display or other_display or original,
        "code_system": codes.system(system),
        "alternate_code": alternate,
    }
    return {name: value for name, value in named.items() if value}


def _codes(segment: Segment, field: int) -> Iterator[str]:
    for one in segment.repetitions(field):
        if code := pick(one, segment.dialect, 1) or pick(one, segment.dialect, 4):
            yield code


def _said(segment: Segment, field: int) -> Iterator[str]:
    """What coded values say in words, and their code where they say nothing."""
    for one in segment.repetitions(field):
        for component in (2, 9, 5, 1):
            if said := pick(one, segment.dialect, component):
                yield said
                break


def _attach(draft: Draft, segment: Segment, kind: str) -> None:
    """ED is source^type^subtype^encoding^data; RP is pointer^application^type^subtype. Content stays sealed."""
    first = 2 if kind == "ED" else 3
    for name, component in (("attachment_type", first), ("attachment_subtype", first + 1)):
        if value := segment.value(5, component):
            draft[name] = value
    if kind == "ED" and (encoding := segment.value(5, 4)):
        draft["attachment_encoding"] = encoding
    draft["attachment_bytes"] = draft.get("attachment_bytes", 0) + len(segment.text(5).encode())


def _size(segment: Segment) -> int:
    return sum(map(len, segment.fields)) + len(segment.fields) - 1


def _age(born: datetime, at: datetime) -> int | None:
    years = at.year - born.year - ((at.month, at.day) < (born.month, born.day))
    return min(years, OLDEST_AGE) if years >= 0 else None
