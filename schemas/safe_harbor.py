"""The view that 45 CFR 164.514(b)(2) calls de-identified: eighteen classes of identifiers, and what becomes of each.

An allow-list: a field is in the view only when its mark says code, number or time, and no class below names it. What is
sealed or typed is never in it, whoever asks. Pure.

What is left is Safe Harbor as written, which is not anonymity: a rare combination of codes may still point at one
person whom the reader knows. Hence the limit on small groups, and the audit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.deidentify import identifiers
from schemas.marks import Clinical, Mark, Open


@dataclass(frozen=True, slots=True)
class Identifiers:
    """One class, in the words of the regulation; `clear` are fields that would be in clear and are left out for it."""

    words: str
    fate: str
    clear: tuple[str, ...] = ()


SEALED = "sealed wherever it stands, and removed from text that knows it; text is never in the view"

CLASSES = {
    "A": Identifiers("Names", SEALED),
    "B": Identifiers(
        "All geographic subdivisions smaller than a State",
        "addresses are sealed; sites, where somebody was discharged to, rooms and beds are left out; a ward is a part"
        " of a site that is not named and no subdivision of a State, and stays unless it reads like a place or names"
        " its site; of a postal code `zip3` stays",
        ("facility", "sending_facility", "receiving_facility", "sending_application", "receiving_application")
        + ("discharged_to", "room", "bed", "prior_room", "prior_bed", "rooms", "resources"),
    ),
    "C": Identifiers(
        "All elements of dates (except year) directly related to an individual; and all ages over 89",
        "of a time the year stays, in a value too; 90 and above is 90+, and a year that would tell such an age is left"
        " out; an age that was observed as a result stops at 90, and so does every other span of time",
    ),
    "D": Identifiers("Telephone numbers", SEALED),
    "E": Identifiers("Fax numbers", SEALED),
    "F": Identifiers("Electronic mail addresses", SEALED),
    "G": Identifiers("Social security numbers", SEALED),
    "H": Identifiers("Medical record numbers", SEALED),
    "I": Identifiers("Health plan beneficiary numbers", SEALED),
    "J": Identifiers("Account numbers", SEALED),
    "K": Identifiers("Certificate/license numbers", SEALED),
    "L": Identifiers("Vehicle identifiers and serial numbers, including license plate numbers", SEALED),
    "M": Identifiers(
        "Device identifiers and serial numbers",
        "lots and the numbers of appliances are left out",
        ("lots", "method"),
    ),
    "N": Identifiers("Web Universal Resource Locators (URLs)", "a value that reads like one is left out"),
    "O": Identifiers("Internet Protocol (IP) address numbers", "a value that reads like one is left out"),
    "P": Identifiers("Biometric identifiers, including finger and voice prints", "attachments are never indexed"),
    "Q": Identifiers("Full face photographic images and any comparable images", "attachments are never indexed"),
    "R": Identifiers(
        "Any other unique identifying number, characteristic, or code",
        "event ids, being hashes of content, traces and references of staff are left out; the patient's random"
        " reference becomes a pseudonym (164.514(c))",
        ("event_id", "part", "trace_id", "source", "peer", "staff_ref", "sub_id", "unread_segments", "processing_id")
        + ("reasons", "probabilities"),  # of a score: words of a note, names of wards
    ),
}
LEFT_OUT = frozenset(name for one in CLASSES.values() for name in one.clear)
BESIDE = frozenset(("kind", "state", "event_time", "patient_ref"))  # of what the agent puts beside a part's fields

# ZIP codes whose first three digits stand for 20,000 people or fewer: the 17 of HHS' guidance on de-identification
# (26 November 2012, from the census of 2000), and the 18 that the same rule gives with the census of 2010. The union,
# because the guidance wants current data and a document may be older than it.
OF_2000 = "036 059 063 102 203 556 692 790 821 823 830 831 878 879 884 890 893"
OF_2010 = "036 059 102 202 203 204 205 369 556 692 753 772 821 823 878 879 884 893"
RESTRICTED = frozenset(f"{OF_2000} {OF_2010}".split())

OLDEST = 89
SMALLEST = 11  # CMS cell size suppression policy: no cell of 1 to 10 persons is shown, nor one that lets it be derived
STEP = 5

WARDS = frozenset(
    ("unit", "prior_unit", "pending_unit", "temporary_unit", "department", "hospital_service", "predicted")
)
VALUES = frozenset(("value_code", "value_number", "value_high"))  # of an observation: a sender may put anything there
# Observations whose result is an age: HL7's LOINCObservationActContextAgeType, OID 2.16.840.1.113883.1.11.19758, and
# the age at death of HL7's guide to Vital Records Death Reporting.
AGES = frozenset(("21611-9", "21612-7", "29553-5", "30525-0", "30972-4", "39016-1"))
# The same by name, where there is neither such a code nor a unit.
AGED = ("age", "alter", "\u5e74\u9f84", "\u5e74\u9f61")
# Units of time, as UCUM and as people write them, in small letters.
IN_A_YEAR = {
    **dict.fromkeys(("a", "a_j", "a_g", "y", "yr", "yrs", "year", "years", "jahr", "jahre", "\u5c81", "\u6b72"), 1.0),
    **dict.fromkeys(("mo", "mo_j", "mo_g", "mon", "month", "months", "monate"), 12.0),
    **dict.fromkeys(("wk", "week", "weeks"), 365.25 / 7),
    **dict.fromkeys(("d", "day", "days", "tage"), 365.25),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 365.25 * 24),
}
# What the view looks at beside a field itself; whoever asks for a view reads these too.
BESIDES = frozenset(
    ("code", "alternate_code", "display", "units", "event_time", "facility", "sending_facility", "patient_ref")
)
# Words that sites have in common: a ward with one of them does not name its site.
COMMON_TO_SITES = frozenset(
    ("hospital", "hosp", "clinic", "klinik", "klinikum", "medical", "center", "centre", "general", "university")
    + ("health", "healthcare", "care", "saint", "the", "and", "for", "of", "main", "here")
)

_TIME = re.compile(r"(\d{4})-\d\d(-\d\d([T ].*)?)?")
_COMPACT = re.compile(  # HL7's DT and TS, and a number that reads so
    r"((?:18|19|20)\d\d)(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{2,6}(?:\.\d+)?(?:[+-]\d{4})?)?"
)
# 3/1/2026, 01.03.26, 2026/03/01
_DAY = re.compile(r"\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d\d)|\d{4}([./])\d{1,2}\2\d{1,2}")
_WORDS = re.compile(r"[^\W_]+")
_ROOM = re.compile(r"\b(?:room|rm|bed)\b", re.I)
_ADDRESS = re.compile(
    r"://|\bwww\.|@|(?<![\d.])\d{1,3}(\.\d{1,3}){3}(?![\d.])|\b[0-9a-f]{0,4}(:[0-9a-f]{0,4}){3,7}\b", re.I
)
_ZIP = re.compile(r"(\d{3})\d\d(-?\d{4})?")


def zip3(code: str) -> str:
    """The first three digits of a ZIP code, 000 for the thinly settled; empty for what is no ZIP code."""
    found = _ZIP.fullmatch(code.strip())
    if found is None:
        return ""
    return "000" if found[1] in RESTRICTED else found[1]


def age(years: int) -> int | str:
    return years if years <= OLDEST else f"{OLDEST + 1}+"


def kept(marks: Mapping[str, Mark]) -> frozenset[str]:
    """The fields that may be in the view of a domain."""
    coded = {name for name, mark in marks.items() if isinstance(mark, Clinical | Open) and not mark.text}
    return frozenset(coded - LEFT_OUT) | BESIDE


def view(document: Mapping[str, Any], marks: Mapping[str, Mark], pseudonym: Callable[[str], str]) -> dict[str, Any]:
    """What of a document is de-identified. `pseudonym` gives what stands for a reference.

    164.514(c): a code may stand for a person where it is not derived from information about that person and its
    making is not disclosed. References are random, and the pseudonym is a keyed hash of one.
    """
    may = kept(marks)
    latest = max((int(found[1]) for value in document.values() for found in _times(value)), default=0)
    units = str(document.get("units", "")).strip().lower()
    aged = _aged(document, units)
    sites = [str(document.get(name, "")) for name in ("facility", "sending_facility")]
    made: dict[str, Any] = {}
    for name, value in document.items():
        if name not in may:
            continue
        if name in VALUES:
            value = _observed(value, units, aged)
        if name == "patient_ref":
            made[name] = pseudonym(value)
        elif name in WARDS and isinstance(value, str) and (placed(value) or _names(value, sites)):
            continue
        elif (clean := _clean(name, value, latest)) is not None:
            made[name] = clean
    return made


def _aged(document: Mapping[str, Any], units: str) -> bool:
    """Whether a result is an age, by its code; where it has no unit, by its name too."""
    if {document.get("code"), document.get("alternate_code")} & AGES:
        return True
    said = f"{document.get('code', '')} {document.get('display', '')}".lower()
    return not units and any(re.search(rf"\b{one}\b" if one.isascii() else one, said) for one in AGED)


def _clean(name: str, value: Any, latest: int) -> Any:
    """A value as it may stand; None where nothing of it may."""
    if isinstance(value, list):
        return [clean for one in value if (clean := _clean(name, one, latest)) is not None] or None
    if name == "age" and isinstance(value, int):
        return age(value)
    if not isinstance(value, str):
        return value
    if found := _TIME.fullmatch(value):
        year = int(found[1])
        return year if latest - year <= OLDEST else None  # a year of birth, say, of one who is older
    return None if _ADDRESS.search(value) else value


def _observed(value: Any, units: str, aged: bool) -> Any:
    """A result as it may stand: a span of 90 years or more is one of 90, a date is cut to its year as others are.

    Any span, since an age by a code that we do not know has nothing else to tell it by, and nothing else in a record
    lasts so long. A number is taken for a date only where it has no unit. An age in a code or in an unknown unit is
    left out.
    """
    in_a_year = IN_A_YEAR.get(units) or (1.0 if aged and not units else None)
    if isinstance(value, int | float) and in_a_year is not None and (aged or units):
        return value if value < (OLDEST + 1) * in_a_year else (OLDEST + 1) * in_a_year
    if aged:
        return value if isinstance(value, int | float) and value <= OLDEST else None
    if isinstance(value, str):
        found = _COMPACT.fullmatch(value)
        if _DAY.fullmatch(value.strip()):
            return None
    else:
        found = None if units or value is None or value != int(value) else _COMPACT.fullmatch(str(int(value)))
    return f"{found[1]}-01" if found else value


def placed(ward: str) -> bool:
    """Whether a ward reads like a place, a person or a room: senders write addresses there, or a ZIP code."""
    return bool(_ZIP.fullmatch(ward.strip()) or _ROOM.search(ward) or identifiers(ward))


def _names(ward: str, sites: Iterable[str]) -> bool:
    """Whether a ward has a word of its own site's name: `MERCY-ICU` of Mercy Hospital."""
    words = {word for site in sites for word in _WORDS.findall(site.lower()) if len(word) > 2} - COMMON_TO_SITES
    return not words.isdisjoint(_WORDS.findall(ward.lower()))


def _times(value: Any) -> Iterable[re.Match[str]]:
    texts = value if isinstance(value, list) else [value]
    return (found for one in texts if isinstance(one, str) and (found := _TIME.fullmatch(one)))


def total(documents: int, persons: int) -> int | str:
    """A count as it may be told: none of fewer than 11 persons, else rounded down to a multiple of 5.

    Rounded, because two exact counts of groups that differ by one person tell of that person. Many questions about
    one group still tell more than each: that is what the audit of queries is for.
    """
    return f"<{SMALLEST}" if min(documents, persons) < SMALLEST else documents - documents % STEP
