"""What the edge and the stream both need of a DICOM header: of whom it is, and when it happened. Pure.

Functions over pydicom's data sets (PS3.3, PS3.5). A value that cannot be read is as one that is not there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, MutableSequence
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from infra.errors import BadMessage
from schemas.peers import DEFAULT, Peer
from schemas.record import Identifier, StaffMember, Subject

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NO_PATIENT_ID = "no_patient_id"
OURS = "wardstream"  # authority of a patient who is known by one study alone
PATIENT_NUMBER = "MR"  # HL7 table 0203: what a Patient ID is, where nothing else is said
MOST_IDS = 20
# Date and time of each, best first (PS3.3 C.7.6.1, C.7.3.1, C.7.2.1); and DT where there is one.
MOMENTS = (
    ("AcquisitionDateTime", ""),
    ("AcquisitionDate", "AcquisitionTime"),
    ("ContentDate", "ContentTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)
_DATE = re.compile(r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)", re.ASCII)  # with points as in ACR-NEMA
_TIME = re.compile(r"(\d\d):?(\d\d)?:?(\d\d)?(?:\.(\d{1,6}))?", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d\d)(\d\d)", re.ASCII)


def values(ds: Dataset, keyword: str) -> list[Any]:
    """The values of an attribute, decoded; none where it is not there, is empty, or cannot be read."""
    try:
        found = ds.get(keyword)
    except Exception:  # pydicom converts on access and raises what it likes
        return []
    if found is None:
        return []
    some = found if isinstance(found, MutableSequence) else [found]
    return [one for one in some if one is not None and one != ""]


def text(ds: Dataset, keyword: str) -> str:
    """The first value as text, without the padding of PS3.5 6.2."""
    return next((said for one in values(ds, keyword) if (said := clean(one))), "")


def texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(said for one in values(ds, keyword) if (said := clean(one)))


def clean(value: Any) -> str:
    """Nothing that is not printed stands in a name, a number or a description."""
    said = str(value) if not isinstance(value, bytes) else value.decode("latin-1")
    return " ".join("".join(char if char.isprintable() else " " for char in said).split())


def number(ds: Dataset, keyword: str) -> float | None:
    """The first value as a finite number."""
    return next(iter(numbers(ds, keyword)), None)


def numbers(ds: Dataset, keyword: str) -> tuple[float, ...]:
    """All of them; none where one is no finite number."""
    try:
        made = tuple(float(one) for one in values(ds, keyword))
    except (TypeError, ValueError, OverflowError):
        return ()
    return made if all(math.isfinite(one) and abs(one) < 1e300 for one in made) else ()


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence."""
    return [one for one in values(ds, keyword) if hasattr(one, "walk")]


def uid(ds: Dataset, keyword: str) -> str:
    return text(ds, keyword)


def required_uid(ds: Dataset, keyword: str) -> str:
    """Raises BadMessage("missing_uid")."""
    if not (found := uid(ds, keyword)):
        raise BadMessage("missing_uid", keyword)
    return found


def names(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """Person names as people write them, family name first, of every group (PS3.5 6.2.1): Yamada Tarou, 山田 太郎."""
    found: dict[str, None] = {}
    for one in values(ds, keyword):
        for group in clean(one).split("="):
            if said := " ".join(part.strip() for part in group.split("^") if part.strip()):
                found[said] = None
    return tuple(found)


def staff(ds: Dataset, keyword: str, role: str, authority: str) -> tuple[StaffMember, ...]:
    """Members of staff, by the number of their identification sequence where there is one (PS3.3 10.1)."""
    sequences = {
        "ReferringPhysicianName": "ReferringPhysicianIdentificationSequence",
        "PerformingPhysicianName": "PerformingPhysicianIdentificationSequence",
        "NameOfPhysiciansReadingStudy": "PhysiciansReadingStudyIdentificationSequence",
        "OperatorsName": "OperatorIdentificationSequence",
    }
    codes = [
        text(code, "CodeValue")
        for one in items(ds, sequences[keyword])
        for code in items(one, "PersonIdentificationCodeSequence")[:1]
    ]
    members = []
    for place, one in enumerate(values(ds, keyword)[:MOST_IDS]):
        if not (said := " ".join(part for part in clean(one).split("=")[0].split("^") if part.strip())):
            continue
        known = codes[place] if place < len(codes) else ""
        identifier = Identifier(authority=authority, type="", value=known) if known else None
        members.append(StaffMember(role=role, identifier=identifier, name=said))
    return tuple(members)


def subjects(ds: Dataset, peer: Peer, calling: str) -> tuple[Subject, ...]:
    """The one patient, or animal, of an instance. Without a Patient ID it is whoever the study is of.

    The authority is the issuer, else the peer's profile's, else the institution, else the calling AE title: say it in
    the profile where the patient is to be the same as in HL7 v2.
    """
    usual = peer.authority or text(ds, "InstitutionName") or calling or OURS
    found = list(_identifiers(ds, usual))
    if not found:
        return (Subject(identifiers=(Identifier(authority=OURS, type="study", value=uid(ds, "StudyInstanceUID")),)),)
    found.sort(key=lambda one: peer.rank(one.type))
    return (Subject(identifiers=tuple(dict.fromkeys(found))),)


def _identifiers(ds: Dataset, usual: str) -> Iterator[Identifier]:
    for one in (ds, *items(ds, "OtherPatientIDsSequence")[:MOST_IDS]):
        if not (said := text(one, "PatientID")):
            continue
        qualifiers = next(iter(items(one, "IssuerOfPatientIDQualifiersSequence")), one)
        issuer = text(one, "IssuerOfPatientID") or text(qualifiers, "UniversalEntityID") or usual
        kind = text(qualifiers, "IdentifierTypeCode").upper() or PATIENT_NUMBER
        yield Identifier(authority=issuer, type=kind, value=said)


def event_time(ds: Dataset, peer: Peer) -> datetime | None:
    """When it was acquired; None where nothing says it."""
    zone = _zone(text(ds, "TimezoneOffsetFromUTC"), peer)
    for date, time in MOMENTS:
        if found := moment(text(ds, date), text(ds, time) if time else "", zone):
            return found
    return None


def at(ds: Dataset, date: str, time: str, peer: Peer) -> datetime | None:
    """A date and a time of the header; None where there is no date, or no such day."""
    return moment(text(ds, date), text(ds, time), _zone(text(ds, "TimezoneOffsetFromUTC"), peer))


def moment(date: str, time: str, zone: Any) -> datetime | None:
    """DA and TM, or DT in `date` alone (PS3.5 6.2), in UTC."""
    if not (day := _DATE.match(date)):
        return None
    rest = date[day.end() :]
    if offset := _OFFSET.search(rest):
        zone, rest = _zone(offset.group(), DEFAULT), rest[: offset.start()]
    hour = _TIME.match(time or rest)
    hours, minutes, seconds, parts = (hour.groups() if hour else None) or ("0", "0", "0", "0")
    try:
        year, month, month_day = map(int, day.groups())
        micros = int((parts or "0").ljust(6, "0"))
        clock = int(hours), int(minutes or 0), min(int(seconds or 0), 59), micros  # a leap second is said as 60
        made = datetime(year, month, month_day, *clock, tzinfo=zone)
        return made.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _zone(offset: str, peer: Peer) -> Any:
    if found := _OFFSET.fullmatch(offset):
        sign, hours, minutes = found.groups()
        span = timedelta(hours=int(hours), minutes=int(minutes))
        if span < timedelta(hours=24):
            return timezone(-span if sign == "-" else span)
    return ZoneInfo(peer.zone)


def terms(ds: Dataset) -> tuple[str, ...]:
    """The words that give the patient away: names, numbers, the day of birth, streets and telephones."""
    found: list[str] = []
    for keyword in (
        "PatientName",
        "OtherPatientNames",
        "PatientBirthName",
        "PatientMotherBirthName",
        "ResponsiblePerson",
    ):
        for name in names(ds, keyword):
            found += [name, *name.split()]
    for keyword in ("PatientID", "AccessionNumber", "AdmissionID", "MilitaryRank", "MedicalRecordLocator"):
        found += texts(ds, keyword)
    found += [text(one, "PatientID") for one in items(ds, "OtherPatientIDsSequence")[:MOST_IDS]]
    found += [*texts(ds, "OtherPatientIDs"), *texts(ds, "PatientTelephoneNumbers")]
    for said in (*texts(ds, "PatientAddress"), *texts(ds, "CountryOfResidence"), *texts(ds, "RegionOfResidence")):
        found += [part.strip() for part in re.split(r"[,^\\]", said)]
    if born := _DATE.match(text(ds, "PatientBirthDate")):
        year, month, day = born.groups()
        found += [f"{year}{month}{day}", f"{day}{month}{year}", f"{month}{day}{year}"]
    return tuple(dict.fromkeys(one for one in found if len(one) > 1))
