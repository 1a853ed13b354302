"""A data set without its patient: PS3.15 Annex E, Table E.1-1 (January 2025), every row of it, at every depth. Pure.

ps3_15.tsv is the table: a row an attribute (a tag, 50xx and 60xx as the standard has them, or all private ones), its
action in the Basic Profile, and one in each option. Of a compound (X/Z/D) the action is taken that keeps any object
valid, since the Type of an attribute depends on the IOD, and a private SOP class tells of none: a value, empty or a
dummy, is allowed wherever the attribute may as well be left out. A dummy of a sequence is one item of the same shape.

What the table does not list is kept, but (E.1.1, notes 1 and 4):
- dates and times are treated as the listed ones are, names of persons are replaced, and so are UIDs of instances;
- the object's own names and numbers, wherever else they stand, are removed from text, codes, numbers and bytes;
- text is read by `schemas.deidentify` as well, but for short strings (SH) and what a maker says of its machine;
- what neither the table nor the dictionary knows, or cannot be read as what it says it is, is removed.

Not here: the pixels at the top (`pixels_clean` says what became of them) and the sound of a waveform. Overlays go with
their planes, under Clean Graphics too: what is drawn in them nobody has read. So does every image within a sequence,
which no cleaning of frames reaches. What the options keep is what the standard lets them, and may be more than
45 CFR 164.514(b)(2) does: ages over 89, days of calibration under Retain Device Identity.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Iterator, MutableSequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydicom import Dataset
from pydicom.charset import python_encoding
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, empty_value_for_VR
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from infra.crypto import keyed_hash
from infra.errors import BadMessage
from schemas.scrub import Scrubber
from schemas.wire import dicom_header as header

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # its texts quote what a header holds
warnings.filterwarnings("ignore", module="pydicom")


class Option(StrEnum):
    """The options of PS3.15 E.3 that a data set can have; their columns in the table."""

    SAFE_PRIVATE = "safe_private"
    UIDS = "uids"
    DEVICE = "device"
    INSTITUTION = "institution"
    PATIENT = "patient"
    FULL_DATES = "full_dates"
    MODIFIED_DATES = "modified_dates"
    DESCRIPTORS = "descriptors"
    STRUCTURED = "structured"
    GRAPHICS = "graphics"


BASIC, CLEAN_PIXELS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113101", "Clean Pixel Data Option"),
)
CODES: Final = {  # PS3.16 CID 7050, scheme DCM
    Option.GRAPHICS: ("113103", "Clean Graphics Option"),
    Option.STRUCTURED: ("113104", "Clean Structured Content Option"),
    Option.DESCRIPTORS: ("113105", "Clean Descriptors Option"),
    Option.FULL_DATES: ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    Option.MODIFIED_DATES: ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    Option.PATIENT: ("113108", "Retain Patient Characteristics Option"),
    Option.DEVICE: ("113109", "Retain Device Identity Option"),
    Option.UIDS: ("113110", "Retain UIDs Option"),
    Option.SAFE_PRIVATE: ("113111", "Retain Safe Private Option"),
    Option.INSTITUTION: ("113112", "Retain Institution Identity Option"),
}
METHOD = "Wardstream, PS3.15 Annex E, January 2025"  # (0012,0063), LO
DEEPEST = 64  # sequences in sequences; the deepest in use has some twenty
RESOLVED = {"Z/D": "D", "X/Z": "Z", "X/D": "D", "X/Z/D": "D", "X/Z/U*": "U"}
DUMMIES: Final[dict[str, Any]] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(("SL", "SS", "SV", "UL", "US", "UV", "AT"), 0),
    **dict.fromkeys(("FL", "FD"), 0.0),
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), bytes(8)),
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "about:blank",
}
LONGEST = {"AE": 16, "CS": 16, "SH": 16, "LO": 64, "ST": 1024, "LT": 10240}  # characters (PS3.5 6.2)
FREE = {"LO", "LT", "ST", "UC", "UT"}
TEXT = FREE | {"SH"}
MACHINE = {"Manufacturer", "ManufacturerModelName", "SoftwareVersions", "TransducerData"}  # versions look like dates
CODED = {"AE", "CS", "UR"}
TEMPORAL = {"DA", "DT", "TM"}
NUMBERS = {"DS", "IS", "SL", "SS", "SV", "UL", "US", "UV"}
SHAPES = {  # PS3.5 6.2; what is kept has to be what it says it is
    "AS": re.compile(r"\d{3}[DWMY]", re.ASCII),
    "DA": re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)", re.ASCII),
    "DS": re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII),
    "DT": re.compile(r"(\d{4})(?:(\d\d)(?:(\d\d)((?:\d\d){0,3}(?:\.\d{1,6})?)?)?)?([+-]\d{4})?", re.ASCII),
    "IS": re.compile(r"[+-]?\d{1,12}", re.ASCII),
    "TM": re.compile(r"\d\d:?(?:\d\d)?:?(?:\d\d)?(?:\.\d{1,6})?", re.ASCII),
    "UI": re.compile(r"\d+(?:\.\d+)*", re.ASCII),
}
# Values of a dummy that a reader cannot do without (PS3.3 C.17.3, C.10.5): of a closed list, they tell nothing.
STRUCTURE = {
    "ContinuityOfContent": {"SEPARATE", "CONTINUOUS"},
    "RelationshipType": {"CONTAINS", "HAS OBS CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES", "HAS ACQ CONTEXT"}
    | {"INFERRED FROM", "SELECTED FROM"},
    "ValueType": {"TEXT", "NUM", "CODE", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME", "COMPOSITE", "IMAGE"}
    | {"WAVEFORM", "SCOORD", "SCOORD3D", "TCOORD", "CONTAINER", "TABLE"},
    "GraphicType": {"POINT", "POLYLINE", "INTERPOLATED", "CIRCLE", "ELLIPSE", "MULTIPOINT", "POLYGON", "ELLIPSOID"},
    "GraphicAnnotationUnits": {"PIXEL", "DISPLAY", "MATRIX"},
}
# Text items of a report that say who or where, by concept (PS3.16 TID 1003 to 1006, 1020), and what keeps them.
SAYS_WHO: Final[dict[str, Option | None]] = {
    "121009": Option.INSTITUTION,  # Person Observer's Organization Name
    "121013": Option.DEVICE,  # Device Observer Name
    "121016": Option.DEVICE,  # Device Observer Serial Number
    "121017": Option.DEVICE,  # Device Observer Physical Location During Observation
    "121020": None,  # Placer Number
    "121021": None,  # Filler Number
    "121022": None,  # Accession Number
    "121030": None,  # Subject ID
    "113871": None,  # Person ID
    "113873": Option.INSTITUTION,  # Organization Name
    "128774": None,  # Person Observer's Login Name
}
# UIDs of classes, not of instances: of what kind something is. Those of other instances are replaced.
CLASSES = re.compile(
    r".*(SOPClass|TransferSyntax).*|CodingSchemeUID|ContextUID|ContextGroupExtensionCreatorUID|MappingResourceUID"
    r"|CreatorVersionUID"
)
NUMBERED = re.compile(r"(?:\w*(?:IDs?|Numbers?|Identifier|Address|Institution\w*Name|StationName))", re.ASCII)
NOBODY = {"anonymous", "anonymized", "anonymised", "none", "null", "phantom", "removed", "test", "unknown"}
SHORTEST, SHORTEST_NUMBER, SHORTEST_BYTES = 3, 6, 5  # characters of a term: in text, within a word, in bytes
MOST_TERMS = 1_000
OWN_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
PATIENT_ID = 0x00100020
CHARACTER_SET = 0x00080005
TEXT_VALUE = 0x0040A160
PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
IMAGES = PIXELS | {0x7FE00001, 0x7FE00002, 0x7FE00003}  # and what says where its frames lie
DIRECTORY = "1.2.840.10008.1.3.10"
PRIVATE = "private"
SafePrivate = frozenset[
    tuple[str, int, int]
]  # creator, group, last two digits of the element: ("ACME 1.1", 0x0029, 0x10)


@dataclass(frozen=True, slots=True)
class Row:
    """One attribute of the table. `tag` has eight hexadecimal digits, x for any, or is `private`."""

    tag: str
    keyword: str
    basic: str
    options: dict[Option, str]

    def action(self, options: frozenset[Option]) -> str:
        """D, Z, X, K, C or U. An option overrides the profile (E.1.1); of two that differ, cleaning goes first."""
        said = {self.options[one] for one in options & self.options.keys()}
        return "C" if "C" in said else "K" if "K" in said else RESOLVED.get(self.basic, self.basic)


def read_table(text: str) -> tuple[Row, ...]:
    """Of ps3_15.tsv, or one like it."""
    head, *lines = [line.split("\t") for line in text.splitlines()]
    columns = [Option(name) for name in head[3:]]
    return tuple(
        Row(tag, keyword, basic, {option: said for option, said in zip(columns, actions, strict=True) if said})
        for tag, keyword, basic, *actions in lines
    )


TABLE: Final = read_table(Path(__file__).with_name("ps3_15.tsv").read_text())
_ROWS: Final = {row.tag: row for row in TABLE}
_BY_VR: Final = {  # what the table does not list
    **dict.fromkeys(TEMPORAL, Row("", "", "D", {Option.FULL_DATES: "K", Option.MODIFIED_DATES: "C"})),
    "PN": Row("", "", "D", {}),
    "UI": Row("", "", "U", {Option.UIDS: "K"}),
}


def row_of(tag: int) -> Row | None:
    """The row that an attribute is listed in."""
    said = f"{tag:08X}"
    if (tag >> 16) % 2:
        return _ROWS[PRIVATE]
    if found := _ROWS.get(said):
        return found
    if said.startswith("60"):
        return _ROWS.get(f"60xx{said[4:]}")
    return _ROWS["50xxxxxx"] if said.startswith("50") else None


def deidentify(
    ds: Dataset,
    secret: bytes,
    options: frozenset[Option] = frozenset(),
    *,
    pixels_clean: bool = False,
    safe_private: SafePrivate = frozenset(),
) -> Dataset:
    """A new data set, with file meta where there was one; it can be saved in the transfer syntax that `ds` had.

    Under the same `secret` a UID becomes the same UID in every file, a Patient ID the same pseudonym, and the dates of
    a patient move by the same number of days, one to eleven years back: times, order and intervals stay.
    Of the object with `pixels_clean` nothing remains to be cleaned: (0012,0062) says YES then, else NO.
    `safe_private` are the private attributes that Retain Safe Private keeps, cleaned.

    Raises ValueError for options that exclude each other, BadMessage("too_deep"), and BadMessage("directory"): the
    offsets in a DICOMDIR would be wrong.
    """
    if {Option.FULL_DATES, Option.MODIFIED_DATES} <= options:
        raise ValueError("dates are either kept or modified")
    meta = getattr(ds, "file_meta", None) or Dataset()
    if DIRECTORY in (header.uid(meta, "MediaStorageSOPClassUID"), header.uid(ds, "SOPClassUID")):
        raise BadMessage("directory", "MediaStorageSOPClassUID")
    work = _Work(ds, secret, options, safe_private if Option.SAFE_PRIVATE in options else frozenset())
    made = work.dataset(ds)
    _say(made, ds, options, pixels_clean)
    if meta:
        made.file_meta = work.meta(meta, made)
    if None not in ds.original_encoding:
        made.set_original_encoding(*ds.original_encoding)
    return made


def _say(made: Dataset, ds: Dataset, options: frozenset[Option], pixels_clean: bool) -> None:
    """What was done (PS3.3 C.12.1.1.1, C.7.1.1). Nothing of it is taken from the object, whoever wrote it there."""
    codes = [BASIC, *(code for option, code in CODES.items() if option in options)]
    if pixels_clean and any(tag in ds for tag in PIXELS):
        codes.insert(1, CLEAN_PIXELS)
    made.PatientIdentityRemoved = "YES" if pixels_clean else "NO"
    made.DeidentificationMethod = METHOD
    made.DeidentificationMethodCodeSequence = [_code(*code) for code in codes]
    before = header.text(ds, "LongitudinalTemporalInformationModified")
    now = "MODIFIED" if Option.MODIFIED_DATES in options else "REMOVED"
    if Option.FULL_DATES in options:
        now = before if before in ("MODIFIED", "REMOVED") else "UNMODIFIED"
    made.LongitudinalTemporalInformationModified = now


def _code(value: str, meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, "DCM", meaning
    return made


class _Work:
    """One object: whose it is, and what gives that away."""

    def __init__(self, ds: Dataset, secret: bytes, options: frozenset[Option], safe: SafePrivate) -> None:
        self.secret, self.options, self.safe = secret, options, safe
        patient = (header.text(ds, "PatientID") or header.text(ds, "StudyInstanceUID")).encode()
        self.pseudonym = keyed_hash(secret, b"patient", patient).hex()[:16].upper()
        self.days = 365 + int.from_bytes(keyed_hash(secret, b"days", patient)[:8]) % 3653
        self.uids = set() if Option.UIDS in options else {header.uid(ds, keyword) for keyword in OWN_UIDS} - {""}
        terms = _terms(ds, options) | self.uids
        self.scrubber = Scrubber(terms)
        squeezed = {"".join(char for char in term.casefold() if char.isalnum()) for term in terms}
        self.numbers = {one for one in squeezed if len(one) >= SHORTEST_NUMBER and any(map(str.isdigit, one))}
        self.patterns = tuple(_patterns(terms))

    def dataset(self, ds: Dataset, depth: int = 0, *, free: bool = False, dummy: bool = False) -> Dataset:
        """`free`: of what a person typed, and read so. `dummy`: of the same shape, and nothing of its content."""
        if depth > DEEPEST:
            raise BadMessage("too_deep", "SQ")
        made = Dataset()
        concept = next((header.text(one, "CodeValue") for one in header.items(ds, "ConceptNameCodeSequence")), "")
        personal = concept in SAYS_WHO and SAYS_WHO[concept] not in self.options
        for tag in map(int, tuple(ds.keys())):
            private = tag >> 16 & 1
            if private:
                action, kept = "", not dummy and self._safe(ds, tag)
            else:
                action = self._action(tag, depth, dummy or (personal and tag == TEXT_VALUE))
                kept = action != "X"
            if kept and (element := self._element(ds, tag, depth, action, free or bool(private))) is not None:
                made.add(element)
                if private:
                    creator = tag & 0xFFFF0000 | (tag >> 8) & 0xFF
                    made.add(DataElement(creator, "LO", _creator(ds, tag)))
        return made

    def _safe(self, ds: Dataset, tag: int) -> bool:
        return bool(self.safe) and (_creator(ds, tag), tag >> 16, tag & 0xFF) in self.safe

    def _action(self, tag: int, depth: int, dummy: bool) -> str:
        """D, Z, X, K, C or U; empty where the table does not list the attribute."""
        group, row = tag >> 16, row_of(tag)
        if not tag & 0xFFFF or group == 0xFFFE or (group in (0, 2) and (not depth or row is None)):
            return "X"  # lengths of groups are wrong by now; commands and file meta are no part of a data set
        if (tag in IMAGES and depth) or 0x6000 <= group <= 0x60FF:
            return "X"  # the size and the place of an overlay are nothing without it
        if row is None and not _vr(tag):
            return "X"
        action = row.action(self.options) if row else ""
        return "D" if dummy and action in ("K", "C", "") else action

    def _element(self, ds: Dataset, tag: int, depth: int, action: str, free: bool) -> DataElement | None:
        vr = _vr(tag)
        if action == "Z":
            return _made(tag, vr, [])
        if (found := _read(ds, tag)) is None:
            return _made(tag, vr, [DUMMIES[vr]]) if action == "D" and vr in DUMMIES else None
        if not action:
            row = None if CLASSES.fullmatch(keyword_for_tag(tag)) else _BY_VR.get(found.VR)
            action = row.action(self.options) if row else ""
        if action == "D":
            return _made(tag, vr or found.VR, self._dummy(found, vr or found.VR, depth))
        if found.VR == "SQ":
            items = [self.dataset(item, depth + 1, free=free or action == "C") for item in _values(found)]
            return _made(tag, "SQ", items)
        if action == "U":
            return _made(tag, "UI", [self._uid(str(one)) for one in _values(found)])
        if action == "C" and found.VR in TEMPORAL:
            return _made(tag, found.VR, self._moved(found))
        if action == "C" and isinstance(found.value, bytes):
            return _made(tag, found.VR, [DUMMIES.get(found.VR, b"")])
        return self._kept(found, action or ("C" if free else ""))

    def _dummy(self, found: DataElement, vr: str, depth: int) -> list[Any]:
        values, allowed = _values(found), STRUCTURE.get(found.keyword, ())
        if vr == "SQ":
            return [self.dataset(one, depth + 1, dummy=True) for one in values[:1] if isinstance(one, Dataset)]
        if vr == "UI":
            return [self._uid(str(one)) for one in values or [found.keyword]]
        if found.tag == PATIENT_ID:
            return [self.pseudonym]
        return values if values and all(str(one) in allowed for one in values) else [DUMMIES[vr]]

    def _uid(self, said: str) -> str:
        """2.25 and 128 bits (PS3.5 B.2); those of the standard itself stay."""
        said = said.strip(" \0")
        if UID(said, validation_mode=IGNORE).name != said:
            return said
        return f"2.25.{int.from_bytes(keyed_hash(self.secret, b'uid', said.encode())[:16])}"

    def _moved(self, found: DataElement) -> list[str]:
        """Times of day as they are; a dummy where one of them is none."""
        said = [str(one).strip() for one in _values(found)]
        if found.VR == "TM":
            moved = [one if SHAPES["TM"].fullmatch(one) else "" for one in said]
        else:
            moved = [_shifted(one, found.VR, -self.days) for one in said]
        return moved if all(moved) else [DUMMIES[found.VR]]

    def _kept(self, found: DataElement, action: str) -> DataElement | None:
        """Without the record's own names and numbers; None where it is not what its VR allows."""
        tag, vr, values = int(found.tag), str(found.VR), _values(found)
        if tag in PIXELS or not values:
            return found
        if tag == CHARACTER_SET and not all(one in python_encoding for one in values):
            return _made(tag, vr, ["ISO_IR 192"])  # it was read as if nothing had been said
        if vr == "UN" and not found.tag.is_private:
            return None
        if isinstance(found.value, bytes):
            return None if self._leaks(found.value) else found
        if vr in SHAPES and vr != "UI" and not all(SHAPES[vr].fullmatch(str(one).strip(" \0")) for one in values):
            return None
        whole = found.value if isinstance(found.value, MutableSequence) else [found.value]
        made = [one if one in (None, "") else self._value(one, vr, action, found.keyword) for one in whole]
        return found if made == list(whole) else _made(tag, vr, made)

    def _value(self, one: Any, vr: str, action: str, keyword: str) -> Any:
        if vr in TEXT:
            free = action == "C" or (not action and vr in FREE)
            return self._text(str(one), vr, free and keyword not in MACHINE)
        if vr in CODED:
            return DUMMIES[vr] if self._says(str(one), action == "C") else one
        if vr == "UI":
            return self._uid(str(one)) if self._other(str(one)) else one
        if vr == "PN" or (vr in NUMBERS and str(one).strip() in self.numbers):
            return DUMMIES[vr]
        return one

    def _text(self, said: str, vr: str, free: bool) -> str:
        """`free`: read by `schemas.deidentify` as well."""
        cleaned = self.scrubber.clean(said) if free else self.scrubber.clean_own(said)
        if self._within(cleaned):
            return str(DUMMIES[vr])
        return cleaned[: LONGEST.get(vr)] if cleaned != said else said

    def _says(self, said: str, free: bool) -> bool:
        return self.scrubber.holds(said) or self._within(said) or (free and bool(self.scrubber.spans(said)))

    def _within(self, said: str) -> bool:
        """Whether a number of the record's own stands within a longer word, where no text has its ends."""
        squeezed = "".join(char for char in said.casefold() if char.isalnum())
        return any(one in squeezed for one in self.numbers)

    def _other(self, uid: str) -> bool:
        """Of a class or a retained instance: whether it is none, or one of those that are replaced."""
        return not SHAPES["UI"].fullmatch(uid.strip(" \0")) or uid.strip(" \0") in self.uids

    def _leaks(self, value: bytes) -> bool:
        lowered = value.lower()
        return any(one in lowered for one in self.patterns)

    def meta(self, meta: Dataset, made: Dataset) -> FileMetaDataset:
        """Nothing of the old one but the syntax (E.1.1, item 7)."""
        instance = header.uid(meta, "MediaStorageSOPInstanceUID")
        if instance and Option.UIDS not in self.options:
            instance = self._uid(instance)
        new = FileMetaDataset()
        for keyword, said in {
            "MediaStorageSOPClassUID": made.get("SOPClassUID") or header.uid(meta, "MediaStorageSOPClassUID"),
            "MediaStorageSOPInstanceUID": made.get("SOPInstanceUID") or instance,
            "TransferSyntaxUID": header.uid(meta, "TransferSyntaxUID"),
        }.items():
            if said:
                setattr(new, keyword, said)
        return new


def _terms(ds: Dataset, options: frozenset[Option]) -> set[str]:
    """What gives away whose an object is, as long as it may not be kept: names of everybody, numbers, places."""
    found = list(header.terms(ds))
    waiting = [ds]
    while waiting and len(found) < MOST_TERMS:
        one = waiting.pop()
        for tag in map(int, tuple(one.keys())):
            vr, row = one.get_item(tag).VR or _vr(tag), row_of(tag)
            if vr == "SQ" and (element := _read(one, tag)):
                waiting += [item for item in _values(element) if isinstance(item, Dataset)]
            elif vr == "PN" and (element := _read(one, tag)):
                found += [word for name in _names(element) for word in (name, *name.split())]
            elif row and vr in TEXT and NUMBERED.fullmatch(row.keyword) and row.action(options) != "K":
                found += [header.clean(value) for value in _values(_read(one, tag))]
    terms = dict.fromkeys(term for term in found if len(term) >= SHORTEST and term.casefold() not in NOBODY)
    return set(list(terms)[:MOST_TERMS])


def _names(element: DataElement) -> Iterator[str]:
    for value in _values(element):
        for group in header.clean(value).split("="):
            yield " ".join(part.strip() for part in group.split("^") if part.strip())


def _patterns(terms: Iterable[str]) -> Iterator[bytes]:
    """How terms are written in bytes that nobody reads as text."""
    for term in terms:
        for one in {term, term.replace(" ", "^")}:
            for encoded in (one.encode(), one.encode("latin-1", "ignore"), one.encode("utf-16-le")):
                if len(one) >= SHORTEST_BYTES and len(encoded) >= SHORTEST_BYTES:
                    yield encoded.lower()


def _creator(ds: Dataset, tag: int) -> str:
    """Who defines a private element (PS3.5 7.8.1); empty for the creators themselves."""
    block = tag >> 8 & 0xFF
    return header.clean(next(iter(_values(_read(ds, tag & 0xFFFF0000 | block))), "")) if block >= 0x10 else ""


@cache
def _vr(tag: int) -> str:
    """What the dictionary says, the first where it leaves a choice; empty where it knows no such attribute."""
    try:
        return str(dictionary_VR(tag)).partition(" or ")[0]
    except KeyError:
        return ""


def _read(ds: Dataset, tag: int) -> DataElement | None:
    try:
        return ds[tag]
    except Exception:  # pydicom converts on access and raises what it likes
        return None


def _values(element: DataElement | None) -> list[Any]:
    value = None if element is None else element.value
    some = list(value) if isinstance(value, MutableSequence) else [value]
    return [one for one in some if one is not None and one != "" and one != b""]


def _made(tag: int, vr: str, values: list[Any]) -> DataElement:
    if vr == "SQ":
        return DataElement(tag, vr, Sequence(values))
    value = values if len(values) > 1 else values[0] if values else empty_value_for_VR(vr)
    return DataElement(tag, vr, value, validation_mode=IGNORE)


def _shifted(said: str, vr: str, days: int) -> str:
    """A DA, or a DT of any precision, so many days later; empty where it is none."""
    if not (found := SHAPES[vr].fullmatch(said)):
        return ""
    year, month, day, *rest = found.groups()
    try:
        moved = date(int(year), int(month or 1), int(day or 1)) + timedelta(days=days)
    except (ValueError, OverflowError):
        return ""
    whole = f"{moved.year:04}{moved.month:02}{moved.day:02}"
    return whole[: 8 if day else 6 if month else 4] + "".join(one for one in rest if one)
