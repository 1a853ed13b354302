"""FHIR R4 resources to health records: one resource is one event, and lands in the fields that HL7 v2 fills.

A handler a resource type makes drafts of parts; what is the same for all (whose it is, where the patient was, when it
happened, which words give somebody away) stands once in `_Reading`. What no handler takes is indexed as a `Resource`:
its type, status, code and time. docs/fhir-fields.md has the mapping.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import Any

from schemas import ehr
from schemas.ehr import EhrPart
from schemas.marks import Clinical
from schemas.peers import Peer
from schemas.record import Merge, Record
from schemas.scrub import Scrubber
from schemas.wire.attachment import NotRead, Unreadable, text_of
from schemas.wire.fhir import Focus, canonical, focus
from schemas.wire.fhir import Resource as Json
from streams.ehr import codes, fhir_person, person
from streams.ehr.fhir_person import each, resolved, type_of
from streams.ehr.fhir_types import (
    age,
    all_codes,
    amount,
    at_path,
    categories,
    code_of,
    coded_within,
    concept,
    instant,
    language,
    patient_class,
    reference_range,
    said_by,
    translated,
    units,
)
from streams.ehr.hl7v2 import CLOCK_SKEW

SOURCE = "fhir:"  # an envelope's source is this and the name of the sender

Draft = dict[str, Any]

# When a resource of any type happened: the first of these elements that it has. What happens later than it is told of
# (an appointment, an order) has the time at which it was told.
TIMES = (
    "effectiveDateTime", "effectivePeriod.start", "effectiveInstant", "authoredOn", "recordedDate",
    "occurrenceDateTime", "occurrencePeriod.start", "performedDateTime", "performedPeriod.start",
    "whenHandedOver", "started", "created", "authored", "date", "dateTime", "dateWritten", "recorded",
    "occurredDateTime", "occurredPeriod.start", "createdDateTime", "collection.collectedDateTime",
    "collection.collectedPeriod.start", "receivedTime", "period.start", "billablePeriod.start", "issued",
    "sent", "timestamp", "onsetDateTime", "identifiedDateTime", "statusDate", "start",
)  # fmt: skip
_TIMES = tuple(tuple(path.split(".")) for path in TIMES)
RACE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
ETHNICITY = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-ethnicity"
BIRTH_PLACE = "http://hl7.org/fhir/StructureDefinition/patient-birthPlace"
RELIGION = "http://hl7.org/fhir/StructureDefinition/patient-religion"
NATIONALITY = "http://hl7.org/fhir/StructureDefinition/patient-nationality"
CITIZENSHIP = "http://hl7.org/fhir/StructureDefinition/patient-citizenship"
CANCELLED = frozenset(("cancelled", "revoked", "entered-in-error"))
CORRECTED = frozenset(("amended", "corrected", "appended", "entered-in-error"))
PLACES = {"bd": "bed", "ro": "room", "wa": "unit", "si": "facility", "bu": "facility"}  # location-physical-type
LONGEST_CHAIN = 8  # of places within places


def read(body: bytes, peer: Peer, received_at: datetime, source: str, known: Collection[str] | None = None) -> Record:
    """The record of one event. `known`: words that give its patients away, where they are known from elsewhere.

    Raises BadMessage where the body is no resource, or of too many patients.
    """
    return _Reading(focus(body), peer, received_at, source).record(known)


def occurred(resource: Json, peer: Peer) -> datetime | None:
    """When a resource happened by its own words, else when it was last updated; None where it says neither."""
    kind = resource.get("resourceType")
    if kind == "Encounter":
        for text in _of_encounter(resource):
            if made := instant(text, peer.zone):
                return made
    elif kind != "Patient":
        for path in _TIMES:
            if path[0] in resource and (made := instant(at_path(resource, path), peer.zone)):
                return made
    return instant(at_path(resource, ("meta", "lastUpdated")), peer.zone)


def _of_encounter(resource: Json) -> Iterator[Any]:
    """The end of one that has ended; of one that goes on its last move, else its beginning."""
    period = resource.get("period") or {}
    if resource.get("status") == "finished":
        yield period.get("end")
    moves = [one["period"]["start"] for one in each(resource.get("location")) if (one.get("period") or {}).get("start")]
    yield max(moves, default=None)
    yield period.get("start")


UNNAMED = "names_unknown"
NAMED_PLACES = frozenset(
    ("unit", "facility", "room", "bed", "rooms", "discharged_to", "prior_unit", "hospital_service")
)
# Fields without mark `text` that no Coding fills: places have their own rule, organisations have names.
_NO_CODES = NAMED_PLACES | {"manufacturer", "about"}
_UNITS = frozenset(("units",))  # "beats per minute" is a unit
_OURS = frozenset(("status",))  # words of HL7 tables, such as Booked
_TEXT_OF = {"code": "display", "value_code": "value_text"}
_LETTERS = re.compile(r"[^\W\d_]{2}")
_NAMELIKE = re.compile(r"[^\W\d_a-z][^\W\d_A-Z]{2,}(?:[-'’ ][^\W\d_]+)*")
_MEDIA_TYPE = re.compile(r"(?:application|audio|image|multipart|text|video)/[a-z0-9][a-z0-9.+-]{0,60}")


def _not_read(media_type: str) -> str:
    """The flag; a type that is none may be anything, even a name."""
    return f"attachment_not_read:{media_type if _MEDIA_TYPE.fullmatch(media_type) else 'unknown'}"


class _Reading:
    """One resource being read."""

    def __init__(self, made: Focus, peer: Peer, received_at: datetime, source: str) -> None:
        self.focus, self.resource = made, made.resource
        self.peer, self.received_at, self.source = peer, received_at, source
        self.type: str = str(made.resource.get("resourceType", ""))
        self.drafts: list[tuple[type[EhrPart], Draft]] = []
        self.place: Draft = {}
        self.names: list[str] = []  # that only a document inside it tells

    def record(self, known: Collection[str] | None) -> Record:
        subjects, merges = fhir_person.subjects(self.focus, self.source, self.peer)
        at = occurred(self.resource, self.peer)
        flags: list[str] = []
        if at is not None and at > self.received_at + CLOCK_SKEW:
            at = self.received_at
            flags.append("future_time")
        self.encounter()
        _TYPES.get(self.type, _Reading.other)(self)
        terms = tuple(dict.fromkeys((*fhir_person.terms(self.focus), *self.names, *(known or ()))))
        scrubber = Scrubber(terms)
        unnamed = bool(subjects) and known is None and not self._named(len(subjects))
        self._codes(EhrPart, self.place, scrubber, unnamed)
        self.place.pop("flags", None)
        doubted = [self._codes(kind, draft, scrubber, unnamed) for kind, draft in self.drafts]
        self._withhold(EhrPart, self.place, scrubber, unnamed)
        held = [self._withhold(kind, draft, scrubber, unnamed) for kind, draft in self.drafts]
        whose: list[int | None] = [0] if self.type == "Patient" else list(range(len(subjects))) or [None]
        told = instant(at_path(self.resource, ("meta", "lastUpdated")), self.peer.zone)
        sex, years = self._whose(at) if self.type == "Encounter" and len(subjects) == 1 else ("", None)
        return Record(
            subjects=subjects,
            parts=tuple(self._finished(*draft, subject, flags) for subject in whose for draft in self.drafts),
            merges=tuple(Merge(prior=prior, survivor=survivor) for prior, survivor in merges),
            terms=terms,
            event_time=at,
            told_at=min(told or self.received_at, self.received_at),
            unnamed=any(held) or any(doubted),
            sex=sex,
            age=years,
            versions=(f"{self.type}/{id}",) if (id := self.resource.get("id")) else (),
        )

    def _whose(self, at: datetime | None) -> tuple[str, int | None]:
        """Sex (table 0001) and age of the patient of an Encounter, where the event holds the Patient."""
        patient = resolved(self.resource.get("subject") or {}, self.focus) or {}
        if patient.get("resourceType") != "Patient":
            return "", None
        born = instant(str(patient.get("birthDate") or ""), self.peer.zone)
        now = min(at or self.received_at, self.received_at)
        return codes.SEX.get(patient.get("gender") or "", ""), age(born, now) if born else None

    def _codes(self, kind: type[EhrPart], draft: Draft, scrubber: Scrubber, unnamed: bool) -> bool:
        """Take out what stands where a code should and may name somebody; gives whether a name that nobody knows might.

        A code is one word, or words of which one at most is of letters (FHIR's type `code` allows blanks, so names
        too). Words of a thing that has no other go to its text, which is scrubbed. None of the persons whom the event
        names, or who are known, may stand in it; and where nobody is known, it is no word that begins as names do,
        unless a system that we know stands beside it.
        """
        doubted = False
        for name in sorted(draft.keys() & kind.marks.keys() - _NO_CODES):
            mark, said = kind.marks[name], draft[name]
            if not isinstance(mark, Clinical) or mark.text or not isinstance(said, str | tuple):
                continue
            kept = []
            for one in (said,) if isinstance(said, str) else said:
                if name not in _UNITS and sum(_LETTERS.search(word) is not None for word in one.split()) > 1:
                    text = _TEXT_OF.get(name, "")
                    if text in kind.marks and not draft.get(text):
                        draft[text] = one
                elif (
                    unnamed
                    and name not in _OURS
                    and _NAMELIKE.fullmatch(one)
                    and not codes.known(draft.get("code_system") or "")
                ):
                    doubted = True
                elif not scrubber.holds(one):
                    kept.append(one)
            if len(kept) < (1 if isinstance(said, str) else len(said)):
                draft[name] = (kept or [""])[0] if isinstance(said, str) else tuple(kept)
                draft["flags"] = [*draft.get("flags", ()), f"not_a_code:{name}"]
        return doubted

    def _named(self, subjects: int) -> bool:
        """Whether the event says what its patients are called."""
        every = (self.resource, *self.focus.context.values())
        named = sum(one.get("resourceType") == "Patient" and bool(each(one.get("name"))) for one in every)
        told = any(at_path(self.resource, (name, "display")) for name in ("subject", "patient"))
        return self.type == "Patient" or named >= subjects or (told and subjects == 1)

    def _withhold(self, kind: type[EhrPart], draft: Draft, scrubber: Scrubber, unnamed: bool) -> bool:
        """Leave to the sealed original what may name somebody; gives whether text was.

        Free text whose patient's name is not known here (a resource sent alone), since nothing could be removed from
        it; and places whose names hold one: "Home of ...".
        """
        for name in NAMED_PLACES & draft.keys():
            said = draft[name] if isinstance(draft[name], tuple) else (draft[name],)
            if any(one and scrubber.clean(one) != one for one in said):
                del draft[name]
        if unnamed:
            held = [name for name, mark in kind.marks.items() if getattr(mark, "text", False) and draft.get(name)]
            if held := [name for name in held if name != "display" or not draft.get("code_system")]:
                for name in held:
                    del draft[name]
                draft["flags"] = [*draft.get("flags", ()), UNNAMED]
                return True
        return False

    def _finished(self, kind: type[EhrPart], draft: Draft, subject: int | None, flags: list[str]) -> EhrPart:
        said = {name: value for name, value in draft.items() if value not in (None, "", ()) and name != "flags"}
        every = tuple(dict.fromkeys((*flags, *draft.get("flags", ()))))
        return kind(subject=subject, message_type=self.type, flags=every, **(self.place | said))

    # ------------------------------------------------------------------------------------------------------ drafting

    def new(self, kind: type[EhrPart], **said: Any) -> Draft:
        draft: Draft = {**said, "flags": list(said.get("flags", ()))}
        status = self.resource.get("status")
        if status in CANCELLED:
            draft["flags"].append("cancel")
        if status in CORRECTED:
            draft["flags"].append("correction")
        self.drafts.append((kind, draft))
        return draft

    def time(self, draft: Draft, name: str, *paths: str) -> None:
        """The first of these elements that is there. A time that cannot be read is flagged, and so is one that is
        only known to the year or month: it counts from its beginning."""
        for path in paths:
            text = at_path(self.resource, path.split("."))
            if text is None:
                continue
            if (made := instant(text, self.peer.zone)) is None:
                draft["flags"].append(f"bad_date:{path}")
            else:
                draft[name] = made
                if len(text) < 10:
                    draft["flags"].append(f"partial_date:{path}")
                return

    def staff(self, draft: Draft, name: str, references: Any) -> None:
        found = fhir_person.staff(name, references, self.focus, self.source, self.peer)
        if found:
            draft[name] = tuple(dict.fromkeys((*draft.get(name, ()), *found)))

    def number(self, *types: str, first: bool = False) -> str:
        """The value of the resource's identifier of one of these types (table 0203); the first of any if `first`."""
        given = [one for one in each(self.resource.get("identifier")) if one.get("value")]
        for one in given:
            if any(coding.get("code") in types for coding in each((one.get("type") or {}).get("coding"))):
                return str(one["value"])
        return str(given[0]["value"]) if first and given else ""

    def notes(self, about: str, draft: Draft, *texts: Any) -> None:
        """`note` of a resource (Annotation), and other texts about it, as NTE stands behind a segment."""
        said = [one for one in texts if isinstance(one, str) and one]
        annotations = each(self.resource.get("note"))
        for annotation in [*({"text": one} for one in said), *annotations]:
            if text := annotation.get("text"):
                self._note(about, draft, text, annotation)

    def _note(self, about: str, draft: Draft, text: str, annotation: Json) -> None:
        named = {name: draft.get(name) for name in ("code", "code_system", "display")}
        note = self.new(ehr.Note, about=about, body=text, **named)
        note["written_at"] = instant(annotation.get("time"), self.peer.zone)
        author = annotation.get("authorReference") or (
            {"display": annotation["authorString"]} if annotation.get("authorString") else None
        )
        self.staff(note, "author", author)

    # ------------------------------------------------------------------------------------------ where and during what

    def encounter(self) -> None:
        """Where the patient was, by the Encounter that the resource names and the event holds."""
        resource = self.resource
        if self.type != "Encounter":
            context = resource.get("context")
            references = each(resource.get("encounter"))
            if isinstance(context, dict):  # of drugs it is the encounter itself; of documents it holds it
                references += each(context.get("encounter", context))
            found = (resolved(one, self.focus) for one in references)
            resource = next((one for one in found if one and one.get("resourceType") == "Encounter"), {})
        if resource:
            places = self.places(resource)
            provider = self.named(resource.get("serviceProvider"))
            unit = places.get("unit", "")
            self.place = {
                "unit": unit if unit != provider else "",  # a place of no stated type may be the whole house
                "facility": places.get("facility", "") or provider,
                "patient_class": patient_class(resource.get("class")),
            }

    def places(self, encounter: Json, status: tuple[str, ...] = ("active", "")) -> Draft:
        """unit, room, bed and facility of an Encounter's last place: PL.1 to PL.4 of V2-to-FHIR."""
        given = [one for one in each(encounter.get("location")) if one.get("location")]
        wanted = [one for one in given if one.get("status", "") in status]
        if not wanted and "active" in status:
            wanted = [one for one in given if one.get("status") == "completed"]
        if not wanted:
            return {}
        last = max(enumerate(wanted), key=lambda one: ((one[1].get("period") or {}).get("start", ""), one[0]))[1]
        return self.within(last["location"])

    def within(self, reference: Json) -> Draft:
        """The place of a reference and the places it is part of, each under what it is."""
        found: Draft = {}
        for _ in range(LONGEST_CHAIN):
            there = resolved(reference, self.focus) or {}
            physical = code_of(there.get("physicalType"))
            if name := self.named(reference):
                found.setdefault(PLACES.get(physical, "unit"), name)
            if not (reference := there.get("partOf") or {}):
                break
        return found

    def named(self, reference: Json | None) -> str:
        """What a place or an organisation is called: its short code, else its name, as far as the event tells."""
        if not reference:
            return ""
        return self._called(resolved(reference, self.focus) or {}) or str(reference.get("display") or "")

    def _called(self, there: Json) -> str:
        for one in each(there.get("identifier")):
            if 0 < len(value := str(one.get("value") or "")) <= 20:  # ICU, and not a UUID: V2-to-FHIR, PL
                return value
        return str(there.get("name") or "")

    # ------------------------------------------------------------------------------------------------------- patient

    def patient(self) -> None:
        resource, draft = self.resource, self.new(ehr.Event)
        numbers = fhir_person.identifiers(resource, self.source, self.peer)
        of_type = {one.type: one.value for one in reversed(numbers)}
        if any(one.get("type") in fhir_person.MERGES for one in each(resource.get("link"))):
            draft["flags"].append("merge")
        extensions = {one.get("url"): one for one in each(resource.get("extension"))}
        birth = str(resource.get("birthDate") or "")
        draft |= {
            "sending_application": self.source.removeprefix(SOURCE),
            "version": "4.0",
            "control_id": f"Patient/{resource['id']}" if resource.get("id") else "",
            "sex": codes.SEX.get(resource.get("gender") or "", ""),
            "race": categories(extensions.get(RACE)),
            "ethnic_group": categories(extensions.get(ETHNICITY)),
            "language": language(resource),
            "marital_status": translated(resource.get("maritalStatus"), codes.MARITAL_STATUS),
            "multiple_birth": resource.get("multipleBirthBoolean"),
            "identifiers": tuple(dict.fromkeys(one.value for one in numbers)),
            "identifier_details": tuple(f"{one.value}^{one.type}^{one.authority}" for one in numbers),
            "account_number": of_type.get("AN"),
            "ssn": of_type.get("SS"),
            "drivers_license": of_type.get("DL"),
            "name": tuple(dict.fromkeys(fhir_person.names(resource.get("name")))),
            "birth_date": birth.replace("-", ""),
            "birth_place": next(fhir_person.addresses((extensions.get(BIRTH_PLACE) or {}).get("valueAddress")), ""),
            "mothers_maiden_name": (extensions.get(fhir_person.MAIDEN_NAME) or {}).get("valueString"),
            "addresses": tuple(dict.fromkeys(fhir_person.addresses(resource.get("address")))),
            "phones": tuple(dict.fromkeys(fhir_person.phones(resource.get("telecom")))),
            "mails": tuple(dict.fromkeys(fhir_person.mails(resource.get("telecom")))),
            "religion": code_of((extensions.get(RELIGION) or {}).get("valueCodeableConcept")),
            "nationality": coded_within(extensions.get(NATIONALITY), "code"),
            "citizenship": tuple(filter(None, [coded_within(extensions.get(CITIZENSHIP), "code")])),
        }
        if isinstance(order := resource.get("multipleBirthInteger"), int) and order < 100:
            draft |= {"multiple_birth": True, "birth_order": order}
        self.time(draft, "died_at", "deceasedDateTime")
        draft["deceased"] = True if "deceasedDateTime" in resource else resource.get("deceasedBoolean")
        if birth and (born := instant(birth, self.peer.zone)):
            at = min(occurred(resource, self.peer) or self.received_at, self.received_at)
            draft["age"] = age(born, min(at, draft.get("died_at") or at))
            if len(birth) < 10:
                draft["flags"].append("partial_date:birthDate")
        contacts = each(resource.get("contact"))
        for name, reader, element in (
            ("kin_names", fhir_person.names, "name"),
            ("kin_addresses", fhir_person.addresses, "address"),
            ("kin_phones", fhir_person.phones, "telecom"),
        ):
            draft[name] = tuple(dict.fromkeys(said for one in contacts for said in reader(one.get(element))))
        self.staff(draft, "primary_care", resource.get("generalPractitioner"))

    # --------------------------------------------------------------------------------------------------------- visit

    def visit(self) -> None:
        resource, draft = self.resource, self.new(ehr.Visit)
        here, stay = self.places(resource), resource.get("hospitalization") or {}
        draft |= {name: here[name] for name in ("room", "bed") if name in here}
        planned = self.places(resource, ("planned", "reserved"))
        draft["pending_unit"] = planned.get("unit")
        self._before(draft)
        for one in each(resource.get("type")):
            coded = concept(one)
            if coded.get("code_system") == "HL70007":
                draft["admission_type"] = coded["code"]
            elif "code" not in draft:
                draft |= coded
        draft |= {
            "status": resource.get("status"),
            "hospital_service": code_of(resource.get("serviceType")),
            "readmission": code_of(stay.get("reAdmission")),
            "admit_source": code_of(stay.get("admitSource")),
            "discharge_disposition": code_of(stay.get("dischargeDisposition")),
            "discharged_to": self.named(stay.get("destination")),
            "diet": "; ".join(filter(None, map(said_by, each(stay.get("dietPreference"))))),
            "admit_reason": "; ".join(filter(None, map(said_by, each(resource.get("reasonCode"))))),
            "visit_number": self.number("VN", first=True) or str(resource.get("id") or ""),
            "preadmit_number": str((stay.get("preAdmissionIdentifier") or {}).get("value") or ""),
        }
        self.time(draft, "admitted_at", "period.start")
        if resource.get("status") in ("finished", "cancelled"):
            self.time(draft, "discharged_at", "period.end")
        for one in each(resource.get("participant")):
            roles = [code_of(kind) for kind in each(one.get("type"))]
            name = next((PARTICIPANTS[role] for role in roles if role in PARTICIPANTS), "other_provider")
            self.staff(draft, name, one.get("individual"))

    def _before(self, draft: Draft) -> None:
        """Where the patient was before: the last place but one, which is left."""
        left = [one for one in each(self.resource.get("location")) if one.get("status") == "completed"]
        if any(one.get("status") == "active" for one in each(self.resource.get("location"))) and left:
            was = self.within(max(left, key=lambda one: (one.get("period") or {}).get("start", ""))["location"])
            draft |= {f"prior_{name}": was[name] for name in ("unit", "room", "bed") if name in was}

    # -------------------------------------------------------------------------------------------------- observations

    def observation(self) -> None:
        resource = self.resource
        draft = self._observed(ehr.Observation, resource)
        self.time(draft, "observed_at", "effectiveDateTime", "effectivePeriod.start", "effectiveInstant")
        self.staff(draft, "observer", resource.get("performer"))
        draft["method"] = code_of(resource.get("method"))
        draft["body_site"] = code_of(resource.get("bodySite"))
        draft["specimen"] = self._specimen(resource.get("specimen"))
        parts = [self._observed(ehr.ObservationComponent, one) for one in each(resource.get("component"))]
        for number, part in enumerate(parts, 1):
            shared = ("observed_at", "observer", "method", "body_site", "specimen")
            part |= {name: draft[name] for name in shared if name in draft}
            part |= {"panel": draft.get("code"), "sub_id": f"component-{number}"}
        self.notes("observation", draft)

    def _observed(self, kind: type[EhrPart], node: Json) -> Draft:
        status = self.resource.get("status") or ""
        draft = self.new(kind, **concept(node.get("code"), both=True))
        draft["status"] = codes.OBSERVATION_STATUS.get(status, status)
        draft["abnormal_flags"] = tuple(
            dict.fromkeys(code for one in each(node.get("interpretation")) if (code := code_of(one)))
        )
        draft["absent_reason"] = code_of(node.get("dataAbsentReason"))
        draft["reference_range"] = "; ".join(filter(None, map(reference_range, each(node.get("referenceRange")))))
        for name, value in node.items():
            if name.startswith("value") and (reader := VALUES.get(name)) is not None:
                reader(self, draft, value)
        return draft

    def _specimen(self, reference: Any) -> str:
        there = resolved(reference, self.focus) if isinstance(reference, dict) else None
        return code_of(there.get("type")) if there else ""

    def value_quantity(self, draft: Draft, value: Json) -> None:
        draft |= {"value_type": "NM", "value_number": amount(value), "units": units(value)}
        if comparator := value.get("comparator"):
            draft |= {"value_type": "SN", "comparator": comparator}

    def value_concept(self, draft: Draft, value: Json) -> None:
        coded = concept(value)
        draft |= {"value_type": "CWE", "value_code": coded.get("code"), "value_text": said_by(value)}

    def value_string(self, draft: Draft, value: str) -> None:
        draft |= {"value_type": "ST", "value_text": value}

    def value_boolean(self, draft: Draft, value: bool) -> None:
        said = "Y" if value else "N"
        draft |= {"value_type": "ID", "value_code": said, "value_text": codes.YES_NO[said]}

    def value_integer(self, draft: Draft, value: int) -> None:
        draft |= {"value_type": "NM", "value_number": float(value)}

    def value_range(self, draft: Draft, value: Json) -> None:
        low, high = value.get("low") or {}, value.get("high") or {}
        if low and high:
            draft |= {"comparator": "-", "value_number": amount(low), "value_high": amount(high)}
        else:  # its ends belong to it
            draft |= {"comparator": ">=" if low else "<=", "value_number": amount(low or high)}
        draft |= {"value_type": "SN", "units": units(low) or units(high)}

    def value_ratio(self, draft: Draft, value: Json) -> None:
        first, second = value.get("numerator") or {}, value.get("denominator") or {}
        draft |= {"value_type": "SN", "comparator": ":", "value_number": amount(first), "value_high": amount(second)}
        draft["units"] = "/".join(filter(None, (units(first), units(second))))

    def value_samples(self, draft: Draft, value: Json) -> None:
        """A waveform: NA as HL7 v2 has it. Its samples stay in the sealed original."""
        draft |= {"value_type": "NA", "units": units(value.get("origin") or {})}

    def value_time_of_day(self, draft: Draft, value: str) -> None:
        draft |= {"value_type": "TM", "value_text": value}

    def value_time(self, draft: Draft, value: str, element: str = "valueDateTime") -> None:
        draft["value_type"] = "DTM"
        if (made := instant(value, self.peer.zone)) is None:
            draft["flags"].append(f"bad_date:{element}")
            return
        draft["value_time"] = made
        if len(value) < 10:
            draft["flags"].append(f"partial_date:{element}")

    def value_period(self, draft: Draft, value: Json) -> None:
        """Its beginning; of one without, its end."""
        self.value_time(draft, value.get("start") or value.get("end") or "", "valuePeriod")
        draft["value_type"] = "DR"

    # ------------------------------------------------------------------------------ diagnoses, procedures, allergies

    def condition(self) -> None:
        resource = self.resource
        draft = self.new(ehr.Diagnosis, **concept(resource.get("code")))
        draft["status"] = code_of(resource.get("clinicalStatus"))
        draft["confirmation"] = code_of(resource.get("verificationStatus"))
        if draft["confirmation"] == "entered-in-error":
            draft["flags"].append("cancel")
        categories = [code_of(one) for one in each(resource.get("category"))]
        draft["diagnosis_type"] = "problem" if "problem-list-item" in categories else next(iter(categories), "")
        self._of_encounter(draft)
        self.time(draft, "diagnosed_at", "recordedDate", "onsetDateTime", "onsetPeriod.start")
        self.time(draft, "onset_at", "onsetDateTime", "onsetPeriod.start")
        self.time(draft, "attested_at", "recordedDate")
        self.staff(draft, "diagnosed_by", resource.get("asserter") or resource.get("recorder"))
        self.notes("diagnosis", draft)

    def _of_encounter(self, draft: Draft) -> None:
        """DG1-6 and DG1-15, which FHIR keeps with the Encounter: diagnosis.use and diagnosis.rank."""
        encounter = resolved(self.resource.get("encounter") or {}, self.focus) or {}
        mine = {f"Condition/{self.resource.get('id')}", self.focus.url}
        for one in each(encounter.get("diagnosis")):
            if (one.get("condition") or {}).get("reference") in mine:
                use, rank = code_of(one.get("use")), one.get("rank")
                draft["diagnosis_type"] = codes.DIAGNOSIS_TYPE.get(use, use) or draft["diagnosis_type"]
                draft["priority"] = str(rank) if rank else None

    def procedure(self) -> None:
        resource = self.resource
        draft = self.new(ehr.Procedure, **concept(resource.get("code")))
        draft |= {
            "status": resource.get("status"),
            "procedure_type": code_of(resource.get("category")),
            "reason_code": next(filter(None, map(code_of, each(resource.get("reasonCode")))), ""),
            "minutes": self._minutes("performedPeriod"),
        }
        self.time(draft, "performed_at", "performedDateTime", "performedPeriod.start")
        self.staff(draft, "practitioner", [one.get("actor") for one in each(resource.get("performer"))])
        self.notes("procedure", draft)

    def _minutes(self, element: str) -> float | None:
        start, end = (instant(at_path(self.resource, (element, name)), self.peer.zone) for name in ("start", "end"))
        return (end - start) / timedelta(minutes=1) if start and end and end >= start else None

    def allergy(self) -> None:
        resource = self.resource
        draft = self.new(ehr.Allergy, **concept(resource.get("code")))
        reactions = each(resource.get("reaction"))
        severities = {one.get("severity") for one in reactions}
        category = next(iter(resource.get("category") or ()), "") or ""
        clinical, verified = code_of(resource.get("clinicalStatus")), code_of(resource.get("verificationStatus"))
        draft |= {
            "allergen_type": codes.ALLERGEN_TYPE.get(category, category),
            "severity": next((code for severity, code in codes.SEVERITY.items() if severity in severities), ""),
            "criticality": resource.get("criticality"),
            "reactions": tuple(
                said
                for one in reactions
                for said in (*map(said_by, each(one.get("manifestation"))), one.get("description") or "")
                if said
            ),
            "status": codes.ALLERGY_STATUS.get(verified, verified) or clinical,
            "confirmation": verified,
        }
        if clinical in ("inactive", "resolved") and draft["status"] in ("C", clinical):
            draft["status"] = "I"  # confirmed but inactive
        if verified == "entered-in-error":
            draft["flags"].append("cancel")
        self.time(draft, "identified_at", "onsetDateTime", "onsetPeriod.start", "recordedDate")
        self.notes("allergy", draft)

    # -------------------------------------------------------------------------------------------------------- orders

    def report(self) -> None:
        resource, status = self.resource, self.resource.get("status") or ""
        draft = self.new(ehr.Order, **concept(resource.get("code"), both=True))
        draft |= {
            "status": codes.REPORT_STATUS.get(status, status),
            "diagnostic_section": next(filter(None, map(code_of, each(resource.get("category")))), ""),
            "specimen": next(filter(None, map(self._specimen, each(resource.get("specimen")))), ""),
            "placer_number": self.number("PLAC"),
            "filler_number": self.number("FILL", first=True),
        }
        self.time(draft, "observed_at", "effectiveDateTime", "effectivePeriod.start")
        self.time(draft, "observed_until", "effectivePeriod.end")
        self.time(draft, "reported_at", "issued")
        self.staff(draft, "interpreter", resource.get("resultsInterpreter") or resource.get("performer"))
        said = [one for one in map(said_by, each(resource.get("conclusionCode"))) if one]
        self.notes("order", draft, "\n".join(filter(None, (resource.get("conclusion"), *said))))
        for reference in each(resource.get("result")):
            if (reference.get("reference") or "").startswith("#") and (there := resolved(reference, self.focus)):
                self._contained(there, draft)
        for form in each(resource.get("presentedForm")):
            note = self.new(ehr.Note, about="document", **{n: draft.get(n) for n in ("code", "code_system", "display")})
            note |= {"status": draft["status"], "written_at": draft.get("reported_at") or draft.get("observed_at")}
            self.staff(note, "author", resource.get("performer"))
            self.attach(note, form, "presentedForm")

    def _contained(self, observation: Json, report: Draft) -> None:
        """A result inside its report is read as one that stands alone: nowhere else will it come."""
        alone = {**observation, "contained": self.resource.get("contained")}
        inner = _Reading(Focus(alone, self.focus.context), self.peer, self.received_at, self.source)
        inner.observation()
        for kind, draft in inner.drafts:
            self.drafts.append((kind, {"panel": report.get("code"), **draft}))

    def service_request(self) -> None:
        resource = self.resource
        draft = self.new(ehr.Order, **concept(resource.get("code"), both=True))
        self._ordered(draft)
        draft["diagnostic_section"] = next(filter(None, map(code_of, each(resource.get("category")))), "")
        draft["specimen"] = next(filter(None, map(self._specimen, each(resource.get("specimen")))), "")
        draft["reason"] = "; ".join(filter(None, map(said_by, each(resource.get("reasonCode")))))
        draft["group_number"] = str((resource.get("requisition") or {}).get("value") or "")
        self.time(draft, "requested_at", "occurrenceDateTime", "occurrencePeriod.start")
        self.time(draft, "ends_at", "occurrencePeriod.end")
        self.notes("order", draft, resource.get("patientInstruction"))

    def _ordered(self, draft: Draft) -> None:
        """What requests have in common: ORC."""
        draft["do_not_perform"] = self.resource.get("doNotPerform") or None
        status, priority = self.resource.get("status") or "", self.resource.get("priority") or ""
        draft |= {
            "order_status": codes.ORDER_STATUS.get(status, status),
            "priority": codes.PRIORITY.get(priority, priority),
            "placer_number": self.number("PLAC", first=True),
            "filler_number": self.number("FILL"),
        }
        self.time(draft, "entered_at", "authoredOn")
        self.staff(draft, "ordering", self.resource.get("requester"))

    # ------------------------------------------------------------------------------------------------- drugs, vaccines

    def medication_request(self) -> None:
        draft = self._drug("prohibited" if self.resource.get("doNotPerform") else "ordered")
        self._ordered(draft)
        supply = self.resource.get("dispenseRequest") or {}
        refills = supply.get("numberOfRepeatsAllowed")
        draft["refills"] = float(refills) if isinstance(refills, int) else None
        self._dosage(draft, each(self.resource.get("dosageInstruction")))
        if "starts_at" not in draft:
            self.time(draft, "starts_at", "dispenseRequest.validityPeriod.start")
            self.time(draft, "ends_at", "dispenseRequest.validityPeriod.end")
        self.notes("medication", draft)

    def medication_administration(self) -> None:
        draft, status = self._drug("administered"), self.resource.get("status") or ""
        draft["status"] = codes.COMPLETION_STATUS.get(status, status)
        draft["filler_number"] = self.number("FILL", first=True)
        self._dosage(draft, each(self.resource.get("dosage")))
        self.time(draft, "administered_at", "effectiveDateTime", "effectivePeriod.start")
        self.time(draft, "ends_at", "effectivePeriod.end")
        self.staff(draft, "administered_by", [one.get("actor") for one in each(self.resource.get("performer"))])
        self.notes("medication", draft)

    def medication_dispense(self) -> None:
        draft, quantity = self._drug("dispensed"), self.resource.get("quantity") or {}
        draft["status"] = self.resource.get("status")
        draft["prescription_number"] = self.number(first=True)
        self._dosage(draft, each(self.resource.get("dosageInstruction")))
        draft |= {"amount": amount(quantity), "units": units(quantity)}
        self.time(draft, "dispensed_at", "whenHandedOver", "whenPrepared")
        self.staff(draft, "dispensed_by", [one.get("actor") for one in each(self.resource.get("performer"))])
        self.notes("medication", draft)

    def medication_statement(self) -> None:
        draft = self._drug("stated")
        draft["status"] = self.resource.get("status")
        self._dosage(draft, each(self.resource.get("dosage")))
        self.time(draft, "starts_at", "effectiveDateTime", "effectivePeriod.start")
        self.time(draft, "ends_at", "effectivePeriod.end")
        self.notes("medication", draft)

    def _drug(self, stage: str) -> Draft:
        reference = self.resource.get("medicationReference") or {}
        there = resolved(reference, self.focus) or {}
        coded = concept(self.resource.get("medicationCodeableConcept") or there.get("code"), both=True)
        draft = self.new(ehr.Medication, stage=stage, **(coded or {"display": str(reference.get("display") or "")}))
        draft["dose_form"] = code_of(there.get("form"))
        draft["components"] = tuple(
            said for one in each(there.get("ingredient")) if (said := said_by(one.get("itemCodeableConcept")))
        )
        return draft

    def _dosage(self, draft: Draft, dosages: list[Json]) -> None:
        draft["directions"] = tuple(
            said for one in dosages if (said := one.get("text") or one.get("patientInstruction"))
        )
        for one in dosages[:1]:
            dose = next(iter(each(one.get("doseAndRate"))), one)
            quantity = dose.get("doseQuantity") or one.get("dose") or (dose.get("doseRange") or {}).get("low") or {}
            high = (dose.get("doseRange") or {}).get("high") or {}
            draft |= {
                "amount": amount(quantity),
                "amount_high": amount(high),
                "units": units(quantity) or units(high),
                "route": code_of(one.get("route")),
                "body_site": code_of(one.get("site")),
            }
            bounds = ((one.get("timing") or {}).get("repeat") or {}).get("boundsPeriod") or {}
            for name, text in (("starts_at", bounds.get("start")), ("ends_at", bounds.get("end"))):
                if made := instant(text, self.peer.zone):
                    draft[name] = made

    def immunization(self) -> None:
        resource, status = self.resource, self.resource.get("status") or ""
        draft = self.new(ehr.Immunization, **concept(resource.get("vaccineCode"), both=True))
        dose, refused = resource.get("doseQuantity") or {}, status == "not-done"
        draft |= {
            "status": codes.COMPLETION_STATUS.get(status, status),
            "amount": amount(dose),
            "units": units(dose),
            "lots": tuple(filter(None, [resource.get("lotNumber")])),
            "manufacturer": self.named(resource.get("manufacturer")),
            "source_of_information": code_of(resource.get("reportOrigin")),
            "refusal_reason": said_by(resource.get("statusReason")) if refused else "",
            "route": code_of(resource.get("route")),
            "body_site": code_of(resource.get("site")),
            "placer_number": self.number("PLAC"),
            "filler_number": self.number("FILL", first=True),
        }
        self.time(draft, "administered_at", "occurrenceDateTime")
        for one in each(resource.get("performer")):
            ordered = code_of(one.get("function")) == "OP"  # table 0443
            self.staff(draft, "ordering" if ordered else "administered_by", one.get("actor"))
        self.notes("immunization", draft)

    # --------------------------------------------------------------------------------------------- notes and documents

    def document(self) -> None:
        resource = self.resource
        context = resource.get("context") or {}
        master = str((resource.get("masterIdentifier") or {}).get("value") or "")
        for content in each(resource.get("content")) or [{}]:
            note = self.new(ehr.Note, about="document", **concept(resource.get("type")))
            status = resource.get("docStatus") or ""
            label = next(iter(each(resource.get("securityLabel"))), None)
            note |= {
                "status": codes.DOCUMENT_STATUS.get(status, status),
                "availability": codes.AVAILABILITY.get(resource.get("status") or "", ""),
                "confidentiality": code_of(label),
                "document_number": master or self.number(first=True),
            }
            if not note.get("display"):
                note["display"] = resource.get("description")
            note["performed_at"] = instant((context.get("period") or {}).get("start"), self.peer.zone)
            self.time(note, "written_at", "date")
            self.staff(note, "author", resource.get("author"))
            self.staff(note, "authenticator", resource.get("authenticator"))
            self.attach(note, content.get("attachment") or {}, "content.attachment")

    def attach(self, note: Draft, attachment: Json, where: str) -> None:
        """The text of an attachment, where it is one that reads as text; of all others what they are and their size.

        What is there and was not read is flagged, also where it lies elsewhere (`url`), so that nobody takes the
        document for empty. Whom a document's own header names is nobody's to find in its text.
        """
        kind, _, parameters = str(attachment.get("contentType") or "").partition(";")
        first, _, second = kind.strip().lower().partition("/")
        data = attachment.get("data")
        note |= {"attachment_type": first, "attachment_subtype": second}
        if isinstance(size := attachment.get("size"), int) and size < 2**31:
            note["attachment_bytes"] = size
        said = f"{first}/{second}"
        not_read = _not_read(said)
        if not isinstance(data, str) or not data:
            if attachment.get("url"):
                note["flags"].append(not_read)
            return
        note |= {"attachment_encoding": "Base64", "attachment_bytes": len(data) * 3 // 4 - data[-2:].count("=")}
        try:
            read = text_of(data, said, parameters)
        except NotRead:
            note["flags"].append(not_read)
        except Unreadable as unreadable:
            note["flags"].append(f"{unreadable}:{where}")
        else:
            note["body"] = read.text
            self.names += [term for name in read.names for term in person.spoken_terms(name)]
            self.names += [term for street in read.streets for term in person.place_words(street)]
            self.names += [term for number in read.numbers for term in (number, *person.phone_words(number))]

    def composition(self) -> None:
        """One note for the document and one a section: titles and codes. Their narrative may name the patient in any
        way and stays in the sealed original."""
        resource, status = self.resource, self.resource.get("status") or ""
        document = self._section(resource, status)
        document["display"] = resource.get("title") or document.get("display")
        stack = each(resource.get("section"))[::-1]
        while stack:
            section = stack.pop()
            note = self._section(section, status)
            note["display"] = section.get("title") or note.get("display")
            note["document_number"] = document["document_number"]
            stack += each(section.get("section"))[::-1]

    def _section(self, node: Json, status: str) -> Draft:
        note = self.new(ehr.Note, about="document", **concept(node.get("type") or node.get("code")))
        note |= {
            "status": codes.DOCUMENT_STATUS.get(status, status),
            "document_number": str((self.resource.get("identifier") or {}).get("value") or ""),
        }
        self.time(note, "written_at", "date")
        self.staff(note, "author", self.resource.get("author"))
        return note

    # -------------------------------------------------------------------------------------------------- appointments

    def appointment(self) -> None:
        resource, status = self.resource, self.resource.get("status") or ""
        services = each(resource.get("serviceType"))
        draft = self.new(ehr.Appointment, **concept(next(iter(services), None)))
        reasons = [one for one in map(said_by, each(resource.get("reasonCode"))) if one]
        minutes = resource.get("minutesDuration")
        draft |= {
            "services": tuple(filter(None, map(code_of, services))),
            "appointment_type": code_of(resource.get("appointmentType")),
            "status": codes.APPOINTMENT_STATUS.get(status, status),
            "reason": "; ".join(reasons) or resource.get("description"),
            "event_reason": code_of(resource.get("cancelationReason")),
            "placer_number": self.number("PLAC", first=True),
            "filler_number": self.number("FILL"),
        }
        self.time(draft, "starts_at", "start", "requestedPeriod.start")
        self.time(draft, "ends_at", "end", "requestedPeriod.end")
        start, end = draft.get("starts_at"), draft.get("ends_at")
        if isinstance(minutes, int):
            draft["minutes"] = float(minutes)
        elif "start" in resource and start and end:
            draft["minutes"] = (end - start) / timedelta(minutes=1)
        actors = [one["actor"] for one in each(resource.get("participant")) if one.get("actor")]
        draft["rooms"] = tuple(self.named(one) for one in actors if type_of(one, self.focus) == "Location")
        self.staff(draft, "resource_staff", [one for one in actors if type_of(one, self.focus) in fhir_person.CARERS])
        self.notes("appointment", draft, resource.get("comment"))

    # --------------------------------------------------------------------------------------------------- other types

    def other(self) -> None:
        """Type, status, code, time and size: what can be told of a resource that nobody has read."""
        resource = self.resource
        said = next((found for name in ("code", "type", "category", "class") if (found := resource.get(name))), None)
        draft = self.new(ehr.Resource, **concept(said))
        status, active = resource.get("status"), resource.get("active")
        draft |= {
            "resource_type": self.type,
            "status": status if isinstance(status, str) else "",
            "active": active if isinstance(active, bool) else None,
            "occurred_at": occurred(resource, self.peer),
            "resource_bytes": len(canonical(resource)),
        }
        if self.type == "Binary" and (resource.get("data") or resource.get("contentType")):
            said = str(resource.get("contentType") or "").partition(";")[0].strip().lower()
            draft["flags"].append(_not_read(said))
        if self.type in ("Location", "Organization"):
            draft["title"] = resource.get("name")
        if self.type == "Location":
            self._located(draft)
        elif self.type == "Practitioner":
            draft["practitioner"] = fhir_person.practitioner(resource, self.focus.url, self.source, self.peer)
            draft["specialties"] = all_codes(one.get("code") for one in each(resource.get("qualification")))
        elif self.type == "PractitionerRole":
            self.staff(draft, "practitioner", resource.get("practitioner"))
            draft["specialties"] = all_codes(each(resource.get("specialty")))

    def _located(self, draft: Draft) -> None:
        """Where a Location is, and how: a bed with its room and ward, as far as the event tells what they are."""
        resource = self.resource
        physical = PLACES.get(code_of(resource.get("physicalType")))
        if physical is None:
            return
        where = self.within(resource.get("partOf") or {}) | {physical: self._called(resource)}
        where["facility"] = where.get("facility") or self.named(resource.get("managingOrganization"))
        draft |= {name: where[name] for name in ("unit", "room", "bed", "facility") if where.get(name)}
        draft["bed_status"] = (resource.get("operationalStatus") or {}).get("code")


_TYPES: dict[str, Callable[[_Reading], None]] = {
    "Patient": _Reading.patient,
    "Encounter": _Reading.visit,
    "Observation": _Reading.observation,
    "Condition": _Reading.condition,
    "Procedure": _Reading.procedure,
    "AllergyIntolerance": _Reading.allergy,
    "DiagnosticReport": _Reading.report,
    "ServiceRequest": _Reading.service_request,
    "MedicationRequest": _Reading.medication_request,
    "MedicationAdministration": _Reading.medication_administration,
    "MedicationDispense": _Reading.medication_dispense,
    "MedicationStatement": _Reading.medication_statement,
    "Immunization": _Reading.immunization,
    "DocumentReference": _Reading.document,
    "Composition": _Reading.composition,
    "Appointment": _Reading.appointment,
}
VALUES: dict[str, Callable[[_Reading, Draft, Any], None]] = {
    "valueQuantity": _Reading.value_quantity,
    "valueCodeableConcept": _Reading.value_concept,
    "valueString": _Reading.value_string,
    "valueBoolean": _Reading.value_boolean,
    "valueInteger": _Reading.value_integer,
    "valueRange": _Reading.value_range,
    "valueRatio": _Reading.value_ratio,
    "valueSampledData": _Reading.value_samples,
    "valueTime": _Reading.value_time_of_day,
    "valueDateTime": _Reading.value_time,
    "valuePeriod": _Reading.value_period,
}
# v3-ParticipationType: PV1-7, 8, 9 and 17 in V2-to-FHIR.
PARTICIPANTS = {"ATND": "attending", "PPRF": "attending", "REF": "referring", "CON": "consulting", "ADM": "admitting"}
