"""Persons in FHIR resources: whose a resource is, how names and addresses read, and which words give them away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from infra.errors import BadMessage
from schemas.lexicon import words
from schemas.peers import Peer
from schemas.record import SHARED, Identifier, StaffMember, Subject
from schemas.wire.fhir import Focus, Resource
from streams.ehr import person

MOST_PATIENTS = 1000  # of one resource: each has a key, and all of them close it together
LOGICAL = "FHIR"  # the type of an identifier that is a resource's own id on its server

# Elements whose reference, where it is to a patient, says whose the resource is.
WHOSE = ("subject", "patient", "for", "beneficiary", "individual", "candidate", "subscriber", "policyHolder")
# Those that name a patient among others: path of two elements, or one.
AMONG = (
    ("participant", "actor"),  # Appointment
    ("actor", ""),  # Schedule, AppointmentResponse
    ("member", "entity"),  # Group
    ("link", "target"),  # Person
    ("target", ""),  # Provenance
    ("entity", "what"),  # AuditEvent
)
# Elements that name a person, in R4B's definitions: their `display` is a name wherever the reference does not tell.
PEOPLE = words(
    """
    actor asserter assessor authenticator author authorReference beneficiary candidate careManager collector
    contributor deliverTo enterer expressedBy generalPractitioner individual informationSource interpreter member
    observer onBehalfOf operator orderer owner participant party patient payee performer person policyHolder
    practitioner prescriber principalInvestigator recipient recorder referrer reportedReference reporter requester
    requestor responsible responsibleParty resultsInterpreter sender sourcePatientInfo subject submitter subscriber
    verifiedWith who
    """
)
PERSONS = frozenset(("Patient", "Practitioner", "PractitionerRole", "RelatedPerson", "Person"))
CARERS = frozenset(("Practitioner", "PractitionerRole"))
MERGES = ("replaced-by", "replaces")  # of Patient.link.type; `refer` and `seealso` join nobody
NPI = "http://hl7.org/fhir/sid/us-npi"
SSN = "http://hl7.org/fhir/sid/us-ssn"
_NAMING = frozenset(("reference", "identifier", "display"))
_TYPES = ("v2-0203", "v2/0203")  # the code system of identifier types, now and in older versions
_TELECOM = frozenset(("phone", "fax", "pager", "sms", "other", "email"))
_LITERAL = re.compile(r"(?:\A|/)([A-Z][A-Za-z]{1,40})/([A-Za-z0-9.-]{1,64})(?:/_history/[^/]*)?\Z")
_CONDITIONAL = re.compile(r"(?:\A|/)([A-Z][A-Za-z]{1,40})\?")


# ---------------------------------------------------------------------------------------------------------- references


def resolved(reference: Resource, focus: Focus) -> Resource | None:
    """What a Reference points at, where the event holds it: in `contained`, or in the context."""
    text = reference.get("reference")
    if not text:
        return None
    if text[0] == "#":
        contained = focus.resource.get("contained") or ()
        return next((one for one in contained if one.get("id") == text[1:]), None)
    return focus.context.get(text)


def type_of(reference: Resource, focus: Focus) -> str:
    """The resource type that a Reference points at; empty where nothing tells."""
    text = reference.get("reference") or ""
    if found := _LITERAL.search(text) or _CONDITIONAL.search(text):
        return found[1]
    if (there := resolved(reference, focus)) is not None:
        return str(there.get("resourceType", ""))
    return str(reference.get("type") or "")


def each(value: Any) -> list[Resource]:
    """The objects of an element that may be one, several or none."""
    if isinstance(value, dict):
        return [value]
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


# ------------------------------------------------------------------------------------------------------------ identity


def subjects(focus: Focus, source: str, peer: Peer) -> tuple[tuple[Subject, ...], list[tuple[int, int]]]:
    """Every patient that a resource is about, and pairs (prior, survivor) of positions where it joins two.

    The same function serves the edge, which seals under their keys, and the agent, which reads. A Patient is there
    twice, with all identifiers and by logical id alone, and joined: what came before it may know the id alone.
    Raises BadMessage("too_many_patients").
    """
    resource = focus.resource
    if resource.get("resourceType") == "Patient":
        return _of_patient(focus, source, peer)
    found: dict[Any, Subject] = {}
    for reference, surely in _patients(focus):
        subject = _named(reference, focus, source, peer)
        if subject.identifiers or surely:
            found.setdefault(subject.identifiers[-1:], subject)
    if len(found) > 1:
        found.pop((), None)
    if len(found) > MOST_PATIENTS:
        raise BadMessage("too_many_patients", str(resource.get("resourceType", "")))
    return tuple(found.values()), []


def _of_patient(focus: Focus, source: str, peer: Peer) -> tuple[tuple[Subject, ...], list[tuple[int, int]]]:
    patient = focus.resource
    logical = _logical(patient, focus.url, source)
    found = [Subject(identifiers=identifiers(patient, source, peer) + logical)]
    merges: list[tuple[int, int]] = []
    if logical and found[0].identifiers != logical:
        merges.append((len(found), 0))
        found.append(Subject(identifiers=logical))
    for link in each(patient.get("link")):
        other, kind = link.get("other") or {}, link.get("type")
        if kind not in MERGES or type_of(other, focus) not in ("Patient", ""):
            continue
        subject = _named(other, focus, source, peer)
        if subject.identifiers and subject not in found:
            merges.append((0, len(found)) if kind == "replaced-by" else (len(found), 0))
            found.append(subject)
    if len(found) > MOST_PATIENTS:
        raise BadMessage("too_many_patients", "Patient")
    return tuple(found), merges


def _patients(focus: Focus) -> Iterator[tuple[Resource, bool]]:
    """References to patients, and whether each is to one for sure, so that it counts without any identifier."""
    resource = focus.resource
    for name in WHOSE:
        for reference in each(resource.get(name)):
            if type_of(reference, focus) in ("Patient", "") and reference.keys() & _NAMING:
                yield reference, True
    for outer, inner in AMONG:
        for one in each(resource.get(outer)):
            for reference in each(one.get(inner)) if inner else [one]:
                if type_of(reference, focus) == "Patient":
                    yield reference, False


def _named(reference: Resource, focus: Focus, source: str, peer: Peer) -> Subject:
    """The patient of a Reference: all that the event has of them, else the id or the identifier it names."""
    text = reference.get("reference") or ""
    there = resolved(reference, focus)
    if there is not None:
        return Subject(identifiers=identifiers(there, source, peer) + _logical(there, text, source))
    sought = _conditional(text) or each(reference.get("identifier"))
    numbers = _ranked(sought, source, peer)
    if text and text[0] != "#" and not _CONDITIONAL.search(text):
        numbers += (Identifier(authority=source, type=LOGICAL, value=_plain(text)),)
    return Subject(identifiers=numbers)


def _logical(patient: Resource, url: str, source: str) -> tuple[Identifier, ...]:
    """The patient's own id on the server that `source` stands for, last of all identifiers.

    `Patient/123`, and before it the whole address where there is one: another server's patient 123 is somebody else.
    """
    id = patient.get("id")
    values = [_plain(url)] if url.startswith(("http:", "https:")) and "?" not in url else []
    if url[:1] == "#":
        return ()
    if id:
        values.append(f"Patient/{id}")
    elif url.startswith("urn:"):
        values.append(url)
    return tuple(Identifier(authority=source, type=LOGICAL, value=value) for value in values)


def _plain(reference: str) -> str:
    """A literal reference without the version it names."""
    return reference.split("/_history/", 1)[0]


def _conditional(text: str) -> list[Resource]:
    """`Patient?identifier=system|value` as an Identifier."""
    for parameter in text.partition("?")[2].split("&"):
        name, _, said = parameter.partition("=")
        if name == "identifier" and said:
            system, bar, value = unquote(said).rpartition("|")
            return [{"system": system, "value": value} if bar and system else {"value": value}]
    return []


def identifiers(resource: Resource, source: str, peer: Peer) -> tuple[Identifier, ...]:
    """`identifier` of a resource, best type first; numbers that stand for nobody left out."""
    return _ranked(each(resource.get("identifier")), source, peer)


def _ranked(given: list[Resource], source: str, peer: Peer) -> tuple[Identifier, ...]:
    found = [made for one in given if (made := identifier(one, source, peer)) is not None]
    return tuple(sorted(dict.fromkeys(found), key=lambda one: peer.rank(one.type)))


def identifier(one: Resource, source: str, peer: Peer) -> Identifier | None:
    """An Identifier as HL7 v2 would name it: the assigner that its system stands for, and its type of table 0203."""
    value, system = one.get("value"), one.get("system") or ""
    if not isinstance(value, str) or person.nobody(value):
        return None
    kind = ""
    for coding in each((one.get("type") or {}).get("coding")):
        if str(coding.get("system", "")).endswith(_TYPES) and coding.get("code"):
            kind = coding["code"].upper()
            break
    if said := peer.systems.get(system):
        authority, _, usual = said.partition("^")
    elif system == NPI:  # as HL7 v2 writes it: XCN-9 and XCN-13 are NPI
        authority, usual = "NPI", "NPI"
    else:
        authority = system.removeprefix("urn:oid:") or (one.get("assigner") or {}).get("display") or source
        usual = "SS" if system == SSN else ""
    return Identifier(authority=authority, type=kind or usual, value=value)


# --------------------------------------------------------------------------------------------------------------- staff


def staff(role: str, references: Any, focus: Focus, source: str, peer: Peer) -> tuple[StaffMember, ...]:
    """References to those who care, as members of staff. Organisations, devices and relatives are none."""
    found = [_member(role, one, focus, source, peer) for one in each(references)]
    return tuple(dict.fromkeys(one for one in found if one is not None))


def _member(role: str, reference: Resource, focus: Focus, source: str, peer: Peer) -> StaffMember | None:
    kind = type_of(reference, focus)
    if kind and kind not in CARERS:
        return None
    there, display = resolved(reference, focus), reference.get("display") or ""
    if there is not None and there.get("resourceType") == "PractitionerRole":
        inner = there.get("practitioner") or {}
        display = display or inner.get("display") or ""
        reference, there = (inner, resolved(inner, focus)) if inner else (reference, None)
    return _carer(role, reference, there, display, source, peer)


def _carer(
    role: str, reference: Resource, there: Resource | None, display: str, source: str, peer: Peer
) -> StaffMember | None:
    text = reference.get("reference") or ""
    given = each(there.get("identifier")) if there is not None else []
    given = given or _conditional(text) or each(reference.get("identifier"))
    numbers = _ranked(sorted(given, key=lambda one: one.get("system") != NPI), source, peer)
    numbers = tuple(one for one in numbers if one.type not in SHARED)
    number = next((one for one in numbers if one.type == "NPI"), next(iter(numbers), None))
    if number is None and text and text[0] != "#" and "?" not in text:
        number = Identifier(authority=source, type=LOGICAL, value=_plain(text))
    name = next(names((there or {}).get("name")), "") or person.untitled(display)
    return StaffMember(role=role, identifier=number, name=name) if number or name else None


def practitioner(resource: Resource, url: str, source: str, peer: Peer) -> tuple[StaffMember, ...]:
    """A Practitioner resource as the member of staff it tells of."""
    id = resource.get("id")
    reference = {"reference": f"Practitioner/{id}" if id else url}
    made = _carer("practitioner", reference, resource, "", source, peer)
    return (made,) if made else ()


# ---------------------------------------------------------------------------------------- names, addresses and phones


def names(given: Any) -> Iterator[str]:
    """HumanName as people say it, in the order that HL7 v2 gives it."""
    for one in each(given):
        first = [word for word in one.get("given") or () if word]
        family = one.get("family") or ""
        if family or first:
            suffix = " ".join(word for word in one.get("suffix") or () if word)
            yield person.spoken(family, " ".join(first[:1]), " ".join(first[1:]), suffix)
        elif one.get("text"):
            yield person.untitled(one["text"])


def addresses(given: Any) -> Iterator[str]:
    """Address on one line, in the order of XAD."""
    for one in each(given):
        lines = [line for line in one.get("line") or () if line]
        parts = [*lines, one.get("city"), one.get("state"), one.get("postalCode"), one.get("country")]
        if written := ", ".join(part for part in parts if part) or one.get("text") or "":
            yield written


def phones(given: Any) -> Iterator[str]:
    return (one["value"] for one in each(given) if one.get("value") and one.get("system") not in ("email", "url"))


def mails(given: Any) -> Iterator[str]:
    return (one["value"] for one in each(given) if one.get("value") and one.get("system") == "email")


# ------------------------------------------------------------------------------------------- words that give them away


def terms(focus: Focus) -> list[str]:
    """The identifying words of everybody whom the event names: removed from its texts, then forgotten.

    Found by shape, wherever they stand, so that an element or an extension that nobody foresaw hides no name.
    """
    found: list[str] = []
    for resource in (focus.resource, *focus.context.values()):
        stack: list[tuple[str, Any]] = [("", resource)]
        while stack:
            name, node = stack.pop()
            if type(node) is list:
                stack += [(name, one) for one in node]
            elif type(node) is dict and name not in _SILENT:
                if not _TELLING.isdisjoint(node):
                    found += _telling(name, node, focus)
                stack += node.items()
    return found


_TELLING = words("family given text line postalCode city value display birthDate authorString valueString")
_SILENT = frozenset(("coding", "meta", "text"))  # texts are scrubbed themselves where they are shown at all


def _telling(name: str, node: Resource, focus: Focus) -> Iterator[str]:
    if "family" in node or "given" in node:
        given = [word for word in node.get("given") or () if word]
        yield from person.words(str(node.get("family") or ""), *given)
    if name in ("name", "valueHumanName") and isinstance(said := node.get("text"), str):
        yield from person.spoken_terms(said)
    if name in ("address", "valueAddress") and isinstance(said := node.get("text"), str):
        yield from (part for part in (one.strip() for one in said.split(",")) if len(part) > 2)
    if "line" in node or "postalCode" in node or "city" in node:
        first, *others = [line for line in node.get("line") or () if line] or [""]
        yield from person.place_words(first, *others, str(node.get("city") or ""), str(node.get("postalCode") or ""))
    elif isinstance(value := node.get("value"), str):
        if node.get("system") == "email":
            yield value
        elif name == "telecom" or node.get("system") in _TELECOM:
            yield from person.phone_words(value)
        elif name == "identifier" and len(value) > 3 and any(one.isdigit() for one in value):
            yield value
    elif isinstance(said := node.get("display"), str) and not node.keys() & {"code", "system"}:
        kind = type_of(node, focus)
        if kind in PERSONS or (not kind and name in PEOPLE):
            yield from person.spoken_terms(said)
    if isinstance(born := node.get("birthDate"), str):
        yield from person.date_terms(born.replace("-", ""))
    if isinstance(said := node.get("authorString"), str):
        yield from person.spoken_terms(said)
    if node.get("url") == MAIDEN_NAME and isinstance(said := node.get("valueString"), str):
        yield from person.spoken_terms(said)


MAIDEN_NAME = "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName"
