"""The same code by HL7 v2 and by FHIR: code systems as HL7 table 0396 names them, FHIR's codes as v2 has them.

The tables are the concept maps of "HL7 Version 2 to FHIR" 1.0.0 (hl7.org/fhir/uv/v2mappings) read backwards. Where
several v2 codes become one FHIR code, the one that means most plainly the same is taken; what has no v2 code stays as
FHIR writes it.
"""

from __future__ import annotations

from functools import lru_cache

# FHIR R4, terminologies-systems.html: URIs and OIDs; HL7 table 0396.
_SYSTEMS = {
    "http://loinc.org": "LN",
    "2.16.840.1.113883.6.1": "LN",
    "http://snomed.info/sct": "SCT",
    "2.16.840.1.113883.6.96": "SCT",
    "http://hl7.org/fhir/sid/icd-10": "I10",
    "2.16.840.1.113883.6.3": "I10",
    "http://hl7.org/fhir/sid/icd-10-cm": "I10C",
    "2.16.840.1.113883.6.90": "I10C",
    "http://www.cms.gov/Medicare/Coding/ICD10": "I10P",
    "2.16.840.1.113883.6.4": "I10P",
    "http://hl7.org/fhir/sid/icd-9-cm": "I9C",
    "2.16.840.1.113883.6.103": "I9C",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "RXNORM",
    "2.16.840.1.113883.6.88": "RXNORM",
    "http://hl7.org/fhir/sid/cvx": "CVX",
    "2.16.840.1.113883.12.292": "CVX",
    "http://hl7.org/fhir/sid/mvx": "MVX",
    "http://terminology.hl7.org/CodeSystem/MVX": "MVX",
    "2.16.840.1.113883.12.227": "MVX",
    "http://hl7.org/fhir/sid/ndc": "NDC",
    "2.16.840.1.113883.6.69": "NDC",
    "http://unitsofmeasure.org": "UCUM",
    "2.16.840.1.113883.6.8": "UCUM",
    "http://www.ama-assn.org/go/cpt": "C4",
    "2.16.840.1.113883.6.12": "C4",
    "http://www.whocc.no/atc": "ATC",
    "2.16.840.1.113883.6.73": "ATC",
    "http://fdasis.nlm.nih.gov": "UNII",
    "2.16.840.1.113883.4.9": "UNII",
    "http://dicom.nema.org/resources/ontology/DCM": "DCM",
    "1.2.840.10008.2.16.4": "DCM",
}
_NAMES = frozenset(_SYSTEMS.values())
# What senders of HL7 v2 write in place of the code of table 0396, levelled: capitals, no separators.
_SYNONYMS = {
    "LOINC": "LN",
    "SNOMED": "SCT",
    "SNOMEDCT": "SCT",
    "ICD10": "I10",
    "ICD10CM": "I10C",
    "ICD10PCS": "I10P",
    "ICD9CM": "I9C",
    "RXNORM": "RXNORM",
    "CPT": "C4",
    "CPT4": "C4",
}
_LEVELLED = str.maketrans("", "", "-_ ")
_V2_TABLES = ("http://terminology.hl7.org/CodeSystem/v2-", "http://hl7.org/fhir/v2/", "urn:oid:2.16.840.1.113883.12.")


@lru_cache(4096)
def system(name: str) -> str:
    """A code system as HL7 table 0396 calls it, whichever of its names was sent; one that is not known as it came."""
    bare = name.removeprefix("urn:oid:")
    if known := _SYSTEMS.get(bare) or _SYNONYMS.get(bare.upper().translate(_LEVELLED)):
        return known
    for start in _V2_TABLES:
        if name.startswith(start) and (number := name[len(start) :]).isdigit():
            return f"HL7{number:0>4}"
    return name


@lru_cache(4096)
def known(name: str) -> bool:
    """Whether a code system is one of those, a table of HL7's, or a code system that HL7 publishes."""
    return name in _NAMES or name.startswith(("HL7", "http://terminology.hl7.org/", "http://hl7.org/", "urn:ietf:"))


SEX = {"male": "M", "female": "F", "other": "O", "unknown": "U"}  # table 0001
PATIENT_CLASS = {"EMER": "E", "IMP": "I", "ACUTE": "I", "NONAC": "I", "AMB": "O", "PRENC": "P"}  # table 0004
MARITAL_STATUS = {"A": "N", "L": "E", "T": "P", "U": "B", "P": "O", "UNK": "U"}  # table 0002, where v3's letters differ
OBSERVATION_STATUS = {  # table 0085
    "registered": "I",
    "preliminary": "P",
    "final": "F",
    "amended": "C",
    "corrected": "C",
    "cancelled": "X",
    "entered-in-error": "W",
}
REPORT_STATUS = {  # table 0123
    "registered": "I",
    "partial": "A",
    "preliminary": "P",
    "final": "F",
    "amended": "C",
    "corrected": "C",
    "appended": "C",
    "cancelled": "X",
    "entered-in-error": "X",
}
ORDER_STATUS = {  # table 0038
    "active": "IP",
    "in-progress": "IP",
    "on-hold": "HD",
    "completed": "CM",
    "cancelled": "CA",
    "revoked": "CA",
    "stopped": "DC",
    "entered-in-error": "ER",
}
COMPLETION_STATUS = {"completed": "CP", "not-done": "NA", "stopped": "PA"}  # table 0322
PRIORITY = {"routine": "R", "asap": "A", "stat": "S"}  # table 0485
ALLERGEN_TYPE = {"food": "FA", "medication": "DA", "environment": "EA"}  # table 0127
SEVERITY = {"severe": "SV", "moderate": "MO", "mild": "MI"}  # table 0128, worst first
ALLERGY_STATUS = {
    "confirmed": "C",
    "unconfirmed": "U",
    "presumed": "S",
    "refuted": "D",
    "entered-in-error": "E",
}  # 0438
APPOINTMENT_STATUS = {  # table 0278
    "pending": "Pending",
    "booked": "Booked",
    "arrived": "Started",
    "fulfilled": "Complete",
    "cancelled": "Cancelled",
    "noshow": "Noshow",
    "waitlist": "Waitlist",
    "entered-in-error": "Deleted",
}
YES_NO = {"Y": "yes", "N": "no"}  # table 0136, in words
DIAGNOSIS_TYPE = {"AD": "A", "DD": "F"}  # table 0052
DOCUMENT_STATUS = {"preliminary": "IP", "final": "LA", "amended": "LA"}  # table 0271
AVAILABILITY = {"current": "AV", "superseded": "OB"}  # table 0273
