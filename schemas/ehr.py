"""The health record as events tell it: what HL7 v2 messages and FHIR resources say, one part per thing people count.

Fields have HL7 v2's words, and FHIR lands in the same ones (docs/fhir-fields.md); what only FHIR has names its element.

A name has one type wherever it stands, because the index mapping is one and strict. Values left out are empty, not
None, where the type allows. `unit` is the ward (PL.1), `units` the unit of measure.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import NoneType
from typing import Annotated, Any, ClassVar, get_args, get_origin

from schemas.marks import Clinical, Identifying, Open, Staffed
from schemas.record import Part, StaffMember

Coded = Annotated[str, Clinical()]
Codes = Annotated[tuple[str, ...], Clinical()]
Text = Annotated[str, Clinical(text=True)]
Texts = Annotated[tuple[str, ...], Clinical(text=True)]
Word = Annotated[str, Open()]
Words = Annotated[tuple[str, ...], Open()]
Time = Annotated[datetime | None, Clinical()]
Number = Annotated[float | None, Clinical()]
Count = Annotated[int | None, Clinical()]
Flag = Annotated[bool | None, Clinical()]
Secret = Annotated[str, Identifying()]
Secrets = Annotated[tuple[str, ...], Identifying()]
Sought = Annotated[str, Identifying(blind=True)]
Soughts = Annotated[tuple[str, ...], Identifying(blind=True)]
Staff = Annotated[tuple[StaffMember, ...], Staffed()]


class EhrPart(Part):
    """What every part carries for filters: the message it came in, and where its patient was."""

    message_type: Word = ""  # MSH-9.1
    trigger: Word = ""  # MSH-9.2, else EVN-1
    flags: Words = ()  # cancel, merge, correction, future_time, bad_date:FT1-4, ...
    unit: Coded = ""  # PV1-3.1, the ward
    facility: Coded = ""  # PV1-3.4, else MSH-4
    patient_class: Coded = ""  # PV1-2


class Event(EhrPart):
    """What happened to one patient, with all that the message says of the person. One a patient of the message."""

    kind: ClassVar[str] = "event"

    structure: Word = ""  # MSH-9.3
    sending_application: Word = ""  # MSH-3
    sending_facility: Word = ""  # MSH-4
    receiving_application: Word = ""  # MSH-5
    receiving_facility: Word = ""  # MSH-6
    processing_id: Word = ""  # MSH-11.1
    version: Word = ""  # MSH-12.1
    unread_segments: Words = ()  # ZPI:2:314 is name, count and characters; they stay in the sealed message
    nulls: Words = ()  # PID-19 - fields that the sender deletes
    event_reason: Coded = ""  # EVN-4
    planned_at: Time = None  # EVN-3

    sex: Coded = ""  # PID-8
    age: Count = None  # years at the event, from PID-7; 90 stands for all above (45 CFR 164.514)
    race: Codes = ()  # PID-10
    ethnic_group: Codes = ()  # PID-22
    language: Coded = ""  # PID-15
    marital_status: Coded = ""  # PID-16
    multiple_birth: Flag = None  # PID-24
    birth_order: Count = None  # PID-25
    died_at: Time = None  # PID-29
    deceased: Flag = None  # PID-30
    payers: Texts = ()  # IN1-4

    control_id: Sought = ""  # MSH-10
    identifiers: Soughts = ()  # PID-3, PID-2, PID-4: the values
    identifier_details: Secrets = ()  # the same with type and assigner: value^type^authority
    prior_identifiers: Soughts = ()  # MRG-1, MRG-4
    account_number: Sought = ""  # PID-18
    ssn: Sought = ""  # PID-19
    drivers_license: Sought = ""  # PID-20
    name: Annotated[tuple[str, ...], Identifying(together="birth_date")] = ()  # PID-5, PID-9
    prior_names: Secrets = ()  # MRG-7
    birth_date: Secret = ""  # PID-7
    birth_place: Secret = ""  # PID-23
    mothers_maiden_name: Secret = ""  # PID-6
    mothers_identifiers: Soughts = ()  # PID-21
    addresses: Secrets = ()  # PID-11
    phones: Secrets = ()  # PID-13, PID-14
    mails: Secrets = ()  # PID-13, PID-14
    religion: Secret = ""  # PID-17
    citizenship: Secrets = ()  # PID-26
    nationality: Secret = ""  # PID-28
    kin_names: Secrets = ()  # NK1-2, NK1-30
    kin_addresses: Secrets = ()  # NK1-4, NK1-32
    kin_phones: Secrets = ()  # NK1-5, NK1-6, NK1-31
    guarantor_names: Secrets = ()  # GT1-3
    guarantor_addresses: Secrets = ()  # GT1-5
    guarantor_phones: Secrets = ()  # GT1-6, GT1-7
    guarantor_identifiers: Soughts = ()  # GT1-2, GT1-12
    insured_names: Secrets = ()  # IN1-16
    insured_addresses: Secrets = ()  # IN1-19
    insured_identifiers: Soughts = ()  # IN1-36, IN1-49, IN2-1, IN2-2, IN2-61

    operator: Staff = ()  # EVN-5
    primary_care: Staff = ()  # PD1-4
    care_team: Staff = ()  # ROL-4, PRT-5


class Visit(EhrPart):
    """A stay or visit as this one event tells it: PV1, PV2. What it is by now is the entity "encounter"."""

    kind: ClassVar[str] = "visit"

    code: Coded = ""  # Encounter.type
    code_system: Coded = ""
    display: Text = ""
    room: Coded = ""  # PV1-3.2
    bed: Coded = ""  # PV1-3.3
    bed_status: Coded = ""  # PV1-40, else PV1-3.5
    prior_unit: Coded = ""  # PV1-6.1
    prior_room: Coded = ""  # PV1-6.2
    prior_bed: Coded = ""  # PV1-6.3
    pending_unit: Coded = ""  # PV1-42.1, else PV2-1.1
    temporary_unit: Coded = ""  # PV1-11.1
    admission_type: Coded = ""  # PV1-4
    hospital_service: Coded = ""  # PV1-10
    readmission: Coded = ""  # PV1-13
    admit_source: Coded = ""  # PV1-14
    patient_type: Coded = ""  # PV1-18
    financial_class: Coded = ""  # PV1-20.1
    discharge_disposition: Coded = ""  # PV1-36
    discharged_to: Coded = ""  # PV1-37.1
    diet: Text = ""  # PV1-38
    status: Coded = ""  # PV1-41, Encounter.status
    admitted_at: Time = None  # PV1-44
    discharged_at: Time = None  # PV1-45
    expected_admit_at: Time = None  # PV2-8
    expected_discharge_at: Time = None  # PV2-9
    admit_reason: Text = ""  # PV2-3
    mode_of_arrival: Coded = ""  # PV2-38

    visit_number: Sought = ""  # PV1-19
    alternate_visit: Sought = ""  # PV1-50
    preadmit_number: Sought = ""  # PV1-5
    visit_account: Sought = ""  # PID-18

    attending: Staff = ()  # PV1-7
    referring: Staff = ()  # PV1-8
    consulting: Staff = ()  # PV1-9
    admitting: Staff = ()  # PV1-17
    other_provider: Staff = ()  # PV1-52


class Observation(EhrPart):
    """One OBX. Consecutive TX or FT segments of one code are one report and one part."""

    kind: ClassVar[str] = "observation"

    code: Coded = ""  # OBX-3.1
    code_system: Coded = ""  # OBX-3.3
    display: Text = ""  # OBX-3.2
    alternate_code: Coded = ""  # OBX-3.4
    panel: Coded = ""  # OBR-4.1 that it belongs to
    sub_id: Coded = ""  # OBX-4
    value_type: Coded = ""  # OBX-2
    value_number: Number = None  # OBX-5 of NM, SN.2
    value_high: Number = None  # SN.4 of a range or ratio
    comparator: Coded = ""  # SN.1; SN.3 of a range or ratio
    value_code: Coded = ""  # OBX-5.1 of a coded value
    value_text: Text = ""  # OBX-5 of everything else that can be read
    value_time: Time = None  # OBX-5 of DT, TS, DTM
    absent_reason: Coded = ""  # Observation.dataAbsentReason
    units: Coded = ""  # OBX-6.1
    reference_range: Text = ""  # OBX-7
    abnormal_flags: Codes = ()  # OBX-8
    status: Coded = ""  # OBX-11
    observed_at: Time = None  # OBX-14, else OBR-7
    analysed_at: Time = None  # OBX-19
    method: Coded = ""  # OBX-17.1
    body_site: Coded = ""  # OBX-20.1
    specimen: Coded = ""  # SPM-4.1, OBR-15.1
    attachment_type: Coded = ""  # ED.2, RP.3; the content stays in the sealed message
    attachment_subtype: Coded = ""  # ED.3, RP.4
    attachment_encoding: Coded = ""  # ED.4
    attachment_bytes: Count = None  # size of the content

    value_identifying: Secrets = ()  # OBX-5 of XPN, XCN, XAD, XTN, CX and their like

    observer: Staff = ()  # OBX-16
    medical_director: Staff = ()  # OBX-25


class ObservationComponent(Observation):
    """One Observation.component. A kind of its own, so that observations are counted as FHIR counts them."""

    kind: ClassVar[str] = "observation_component"


class Order(EhrPart):
    """An ORC with its OBR, or either alone."""

    kind: ClassVar[str] = "order"

    code: Coded = ""  # OBR-4.1
    code_system: Coded = ""  # OBR-4.3
    display: Text = ""  # OBR-4.2
    alternate_code: Coded = ""  # OBR-4.4
    order_control: Coded = ""  # ORC-1
    order_status: Coded = ""  # ORC-5
    status: Coded = ""  # OBR-25
    priority: Coded = ""  # TQ1-9, OBR-27.6, OBR-5
    do_not_perform: Flag = None  # ServiceRequest.doNotPerform: an order not to
    entered_at: Time = None  # ORC-9
    requested_at: Time = None  # OBR-6, ORC-15
    observed_at: Time = None  # OBR-7
    observed_until: Time = None  # OBR-8
    specimen_received_at: Time = None  # OBR-14
    reported_at: Time = None  # OBR-22
    starts_at: Time = None  # TQ1-7
    ends_at: Time = None  # TQ1-8
    specimen: Coded = ""  # SPM-4.1, OBR-15.1
    diagnostic_section: Coded = ""  # OBR-24
    danger: Text = ""  # OBR-12
    relevant_information: Text = ""  # OBR-13
    reason: Text = ""  # OBR-31, ORC-16

    placer_number: Sought = ""  # ORC-2, OBR-2
    filler_number: Sought = ""  # ORC-3, OBR-3
    group_number: Sought = ""  # ORC-4

    ordering: Staff = ()  # ORC-12, OBR-16
    entered_by: Staff = ()  # ORC-10
    verified_by: Staff = ()  # ORC-11
    collector: Staff = ()  # OBR-10
    interpreter: Staff = ()  # OBR-32
    copies_to: Staff = ()  # OBR-28


class Diagnosis(EhrPart):
    """DG1, or a problem (PRB)."""

    kind: ClassVar[str] = "diagnosis"

    code: Coded = ""  # DG1-3.1, PRB-3.1
    code_system: Coded = ""  # DG1-3.3, PRB-3.3
    display: Text = ""  # DG1-3.2, DG1-4
    diagnosis_type: Coded = ""  # DG1-6: A admitting, W working, F final; "problem" for PRB
    priority: Coded = ""  # DG1-15, PRB-23.1
    status: Coded = ""  # PRB-14.1
    confirmation: Coded = ""  # PRB-13.1
    action: Coded = ""  # DG1-21, PRB-1
    diagnosed_at: Time = None  # DG1-5, PRB-7
    onset_at: Time = None  # PRB-16
    attested_at: Time = None  # DG1-19

    diagnosed_by: Staff = ()  # DG1-16


class Procedure(EhrPart):
    """PR1."""

    kind: ClassVar[str] = "procedure"

    code: Coded = ""  # PR1-3.1
    code_system: Coded = ""  # PR1-3.3
    display: Text = ""  # PR1-3.2, PR1-4
    performed_at: Time = None  # PR1-5
    status: Coded = ""  # Procedure.status
    procedure_type: Coded = ""  # PR1-6
    minutes: Number = None  # PR1-7
    anesthesia: Coded = ""  # PR1-9
    priority: Coded = ""  # PR1-14
    reason_code: Coded = ""  # PR1-15.1
    action: Coded = ""  # PR1-20

    anesthesiologist: Staff = ()  # PR1-8
    surgeon: Staff = ()  # PR1-11
    practitioner: Staff = ()  # PR1-12


class Allergy(EhrPart):
    """AL1, IAM."""

    kind: ClassVar[str] = "allergy"

    code: Coded = ""  # AL1-3.1, IAM-3.1
    code_system: Coded = ""  # AL1-3.3, IAM-3.3
    display: Text = ""  # AL1-3.2, IAM-3.2
    allergen_type: Coded = ""  # AL1-2, IAM-2
    severity: Coded = ""  # AL1-4, IAM-4
    criticality: Coded = ""  # AllergyIntolerance.criticality
    reactions: Texts = ()  # AL1-5, IAM-5
    action: Coded = ""  # IAM-6
    status: Coded = ""  # IAM-17
    confirmation: Coded = ""  # AllergyIntolerance.verificationStatus
    identified_at: Time = None  # AL1-6, IAM-11


class Note(EhrPart):
    """Text that somebody wrote: the NTE segments behind one thing, or a document (TXA) with its OBX text."""

    kind: ClassVar[str] = "note"

    about: Coded = ""  # what it stands behind: patient, order, observation, ...; document for TXA
    code: Coded = ""  # code of what it is about; TXA-2
    code_system: Coded = ""
    display: Text = ""  # name of what it is about; TXA-25
    note_type: Coded = ""  # NTE-4.1
    body: Text = ""  # NTE-3; OBX-5 under TXA
    status: Coded = ""  # TXA-17
    confidentiality: Coded = ""  # TXA-18
    availability: Coded = ""  # TXA-19
    performed_at: Time = None  # TXA-4
    written_at: Time = None  # TXA-6, NTE-6
    edited_at: Time = None  # TXA-8
    attachment_type: Coded = ""  # ED.2, RP.3
    attachment_subtype: Coded = ""  # ED.3, RP.4
    attachment_encoding: Coded = ""  # ED.4
    attachment_bytes: Count = None

    document_number: Sought = ""  # TXA-12
    parent_document: Sought = ""  # TXA-13
    placer_number: Sought = ""  # TXA-14
    filler_number: Sought = ""  # TXA-15

    author: Staff = ()  # TXA-9, NTE-5
    activity_provider: Staff = ()  # TXA-5
    transcriptionist: Staff = ()  # TXA-11
    authenticator: Staff = ()  # TXA-10, TXA-22


class Appointment(EhrPart):
    """SCH with its AIS, AIG, AIL and AIP."""

    kind: ClassVar[str] = "appointment"

    code: Coded = ""  # AIS-3.1, else SCH-7.1
    code_system: Coded = ""
    display: Text = ""  # AIS-3.2, else SCH-7.2
    services: Codes = ()  # AIS-3.1 of all
    resources: Codes = ()  # AIG-3.1
    rooms: Codes = ()  # AIL-3: unit-room
    event_reason: Coded = ""  # SCH-6.1
    reason: Text = ""  # SCH-7
    appointment_type: Coded = ""  # SCH-8.1
    status: Coded = ""  # SCH-25.1
    minutes: Number = None  # SCH-9 by SCH-10, else AIS-7 by AIS-8
    starts_at: Time = None  # TQ1-7, AIS-4, SCH-11.4
    ends_at: Time = None  # TQ1-8, SCH-11.5

    placer_number: Sought = ""  # SCH-1
    filler_number: Sought = ""  # SCH-2

    resource_staff: Staff = ()  # AIP-3
    contact: Staff = ()  # SCH-12, SCH-16
    entered_by: Staff = ()  # SCH-20


class Immunization(EhrPart):
    """RXA of a vaccination update (VXU)."""

    kind: ClassVar[str] = "immunization"

    code: Coded = ""  # RXA-5.1
    code_system: Coded = ""  # RXA-5.3
    display: Text = ""  # RXA-5.2
    alternate_code: Coded = ""  # RXA-5.4
    administered_at: Time = None  # RXA-3
    amount: Number = None  # RXA-6
    units: Coded = ""  # RXA-7.1
    source_of_information: Coded = ""  # RXA-9.1
    lots: Codes = ()  # RXA-15
    manufacturer: Coded = ""  # RXA-17.1
    refusal_reason: Text = ""  # RXA-18
    status: Coded = ""  # RXA-20
    action: Coded = ""  # RXA-21
    route: Coded = ""  # RXR-1.1
    body_site: Coded = ""  # RXR-2.1

    placer_number: Sought = ""  # ORC-2
    filler_number: Sought = ""  # ORC-3

    administered_by: Staff = ()  # RXA-10
    ordering: Staff = ()  # ORC-12


class Medication(EhrPart):
    """A drug ordered (RXO with its RXE), dispensed (RXD), given out (RXG) or administered (RXA)."""

    kind: ClassVar[str] = "medication"

    stage: Word = ""  # ordered, dispensed, given, administered, stated; prohibited: do_not_perform
    code: Coded = ""  # RXE-2.1, RXO-1.1, RXD-2.1, RXG-4.1, RXA-5.1
    code_system: Coded = ""
    display: Text = ""
    alternate_code: Coded = ""
    amount: Number = None  # RXE-3, RXO-2, RXD-4, RXG-5, RXA-6
    amount_high: Number = None  # RXE-4, RXO-3
    units: Coded = ""  # RXE-5.1, RXO-4.1
    dose_form: Coded = ""  # RXE-6.1, RXO-5.1
    strength: Number = None  # RXE-25
    strength_units: Coded = ""  # RXE-26.1
    route: Coded = ""  # RXR-1.1
    body_site: Coded = ""  # RXR-2.1
    directions: Texts = ()  # RXE-7, RXO-7
    components: Texts = ()  # RXC-2
    refills: Number = None  # RXE-12
    do_not_perform: Flag = None  # MedicationRequest.doNotPerform: an order not to
    order_control: Coded = ""  # ORC-1
    order_status: Coded = ""  # ORC-5
    status: Coded = ""  # RXA-20
    priority: Coded = ""  # TQ1-9
    entered_at: Time = None  # ORC-9
    starts_at: Time = None  # TQ1-7
    ends_at: Time = None  # TQ1-8
    dispensed_at: Time = None  # RXD-3
    administered_at: Time = None  # RXA-3

    placer_number: Sought = ""  # ORC-2
    filler_number: Sought = ""  # ORC-3
    prescription_number: Sought = ""  # RXE-15, RXD-7

    ordering: Staff = ()  # ORC-12, RXE-13
    verified_by: Staff = ()  # RXE-14, RXO-15
    dispensed_by: Staff = ()  # RXD-10
    administered_by: Staff = ()  # RXA-10


class Charge(EhrPart):
    """FT1."""

    kind: ClassVar[str] = "charge"

    code: Coded = ""  # FT1-7.1
    code_system: Coded = ""  # FT1-7.3
    display: Text = ""  # FT1-7.2, FT1-8
    transaction_type: Coded = ""  # FT1-6
    transacted_at: Time = None  # FT1-4
    posted_at: Time = None  # FT1-5
    amount: Number = None  # FT1-10
    price: Number = None  # FT1-11, FT1-12
    currency: Coded = ""
    department: Coded = ""  # FT1-13.1
    diagnoses: Codes = ()  # FT1-19.1
    procedure: Coded = ""  # FT1-25.1

    transaction_number: Sought = ""  # FT1-2

    performed_by: Staff = ()  # FT1-20
    ordering: Staff = ()  # FT1-21


class Resource(EhrPart):
    """A FHIR resource that is none of the other kinds: a place, a carer, an organisation, or a type we do not read.

    Of a type that we do not read this much is known to identify nobody; the rest stays in the sealed original.
    """

    kind: ClassVar[str] = "resource"

    resource_type: Word = ""
    title: Annotated[str, Open(text=True)] = ""  # Location.name, Organization.name
    active: Flag = None
    status: Coded = ""
    room: Coded = ""  # of a Location, with `unit` and `facility`; NPU-1.2
    bed: Coded = ""  # NPU-1.3
    bed_status: Coded = ""  # Location.operationalStatus, NPU-2
    code: Coded = ""  # code, type, category, class
    code_system: Coded = ""
    display: Text = ""
    specialties: Codes = ()  # PractitionerRole.specialty, Practitioner.qualification.code
    occurred_at: Time = None
    resource_bytes: Count = None

    practitioner: Staff = ()


class Score(EhrPart):
    """A prediction made of one event, or a published score of it (NEWS2). No sender's: made on the stream."""

    kind: ClassVar[str] = "score"

    model: Word = ""  # department, readmission, length_of_stay, deterioration; news2
    model_version: Word = ""  # of the model store; of a published score its year
    shadow: Annotated[bool, Open()] = False  # of a model that is only watched: not to act upon
    predicted: Coded = ""  # the class, or the band
    probability: Number = None  # of "yes", where that is a class; else of the class that is predicted
    probabilities: Codes = ()  # class=0.123, of all
    points: Count = None
    reasons: Codes = ()  # what weighed most, and by how much


# What says the unit of a number: numbers of two units, or of two codes, are never taken together.
MEASURED: dict[str, tuple[str, ...]] = {
    "value_number": ("units",),
    "value_high": ("units",),
    "amount": ("units", "currency"),
    "amount_high": ("units",),
    "strength": ("strength_units",),
    "price": ("currency",),
}

PARTS: tuple[type[EhrPart], ...] = (
    (Event, Visit, Observation, ObservationComponent, Order, Diagnosis, Procedure, Allergy, Note)
    + (Appointment, Immunization, Medication, Charge, Resource, Score)
)  # fmt: skip

KEYWORD = {"type": "keyword", "ignore_above": 1024}
# What the agent puts beside a part's own fields, on every document.
COMMON: dict[str, dict[str, Any]] = {
    "event_id": {"type": "keyword"},
    "part": {"type": "integer"},
    "kind": {"type": "keyword"},
    "event_time": {"type": "date"},
    "received_at": {"type": "date"},
    "source": KEYWORD,
    "peer": KEYWORD,
    "trace_id": {"type": "keyword"},
    "patient_ref": {"type": "keyword"},
    "staff_ref": {"type": "keyword"},
    "version_of": {"type": "keyword"},  # equal for all versions of one resource, of one result: consumers/versions.py
    "told_at": {"type": "date"},  # by the sender, of what has versions: the last one told is the newest
    "sealed_by": {"type": "keyword"},  # whose key closes `sealed`, where that is no patient of the document
    "blind": {"type": "keyword"},
    "sealed": {"type": "object", "enabled": False},
    "folded": {"type": "object", "enabled": False},  # entities: which event gave which field
    "history": {"type": "object", "enabled": False},  # entity "patient": what predictions look back at
    "text": {"type": "text"},  # all free text of a document together
    # What that text affirms of the patient, denies, doubts, or says of relatives, each word in one; streams/ehr/notes.
    "affirmed": {"type": "text"},
    "negated": {"type": "text"},
    "uncertain": {"type": "text"},
    "family": {"type": "text"},
    "sections": {"type": "keyword"},  # headings that a note has
    "state": {"type": "keyword"},  # entity "encounter": FHIR's Encounter.status
}
_TYPES: dict[Any, dict[str, Any]] = {
    str: KEYWORD,
    datetime: {"type": "date"},
    int: {"type": "integer"},
    float: {"type": "double"},
}
_TYPES[bool] = {"type": "boolean"}


def mapping() -> dict[str, Any]:
    """The strict mapping of the one index that holds every kind of part."""
    return {"dynamic": "strict", "properties": dict(_PROPERTIES)}


def properties(parts: Iterable[type[Part]], common: dict[str, Any]) -> dict[str, Any]:
    """Index properties of all clear fields. Raises TypeError where two parts give one name two types."""
    made = dict(common)
    for part in parts:
        for name, mark in part.marks.items():
            if isinstance(mark, Identifying | Staffed):  # only ever under `sealed`
                continue
            wanted = _property(name, part.model_fields[name].annotation, mark.text)
            if made.setdefault(name, wanted) != wanted:
                raise TypeError(f"{part.__name__}.{name} has another type than elsewhere")
    return made


def _property(name: str, annotation: Any, text: bool) -> dict[str, Any]:
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
    found = [one for one in get_args(annotation) or (annotation,) if one is not NoneType]
    if not text:
        return _TYPES[found[0]]
    made: dict[str, Any] = {"type": "text", "copy_to": "text"}
    if name == "display":  # counted and sorted by, beside being searched
        made["fields"] = {"keyword": {"type": "keyword", "ignore_above": 256}}
    return made


_PROPERTIES = properties(PARTS, COMMON)
