"""The de-identifier against PS3.15 Table E.1-1: every row, in every option, at the top and within a sequence."""

from __future__ import annotations

import io
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.config import IGNORE
from pydicom.data import get_testdata_files
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from infra.errors import BadMessage
from streams.imaging import deidentify as under_test
from streams.imaging.deidentify import CODES, DEEPEST, Option, deidentify
from tests import images

SECRET = b"of this project".ljust(32, b".")
SHARED = Path(os.environ.get("SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
PUBLISHED = SHARED / "dicom" / "ps3.15_table_e.1-1.json"
TSV = Path(under_test.__file__).with_name("ps3_15.tsv").read_text().splitlines()
HEAD, *LINES = [dict(zip(TSV[0].split("\t"), line.split("\t"), strict=True)) for line in TSV]
COLUMNS = {  # of the published table
    "safe_private": "rtnSafePrivOpt",
    "uids": "rtnUIDsOpt",
    "device": "rtnDevIdOpt",
    "institution": "rtnInstIdOpt",
    "patient": "rtnPatCharsOpt",
    "full_dates": "rtnLongFullDatesOpt",
    "modified_dates": "rtnLongModifDatesOpt",
    "descriptors": "cleanDescOpt",
    "structured": "cleanStructContOpt",
    "graphics": "cleanGraphOpt",
}
NOTHING: frozenset[Option] = frozenset()
CHOICES = [
    NOTHING,
    *(frozenset({option}) for option in Option),
    frozenset(Option) - {Option.FULL_DATES},
    frozenset(Option) - {Option.MODIFIED_DATES},
]
SAFE = frozenset({("ACME 1.1", 0x0029, 0x10)})
TAKEN = {"Z/D": "D", "X/Z": "Z", "X/D": "D", "X/Z/D": "D", "X/Z/U*": "U"}  # any object is valid with it
TEMPORAL = {"DA": "20260301", "DT": "20260301081500.5+0100", "TM": "081500"}
NUMBERS: dict[str, Any] = {"DS": "4.5", "IS": "7", "US": 7, "FD": 4.5}
UID = "1.2.826.0.1.3680043.8.498.4711"
PLACES = ("top", "sequence")


def named(options: frozenset[Option]) -> str:
    return "+".join(sorted(options)) if len(options) < 3 else "all but " + min(set(Option) - options)


def expected(line: dict[str, str], options: frozenset[Option]) -> str:
    said = {line[option] for option in options} - {""}
    return "C" if "C" in said else "K" if "K" in said else TAKEN.get(line["basic"], line["basic"])


def tag_of(line: dict[str, str]) -> int:
    patterns = {"private": 0x00291010, "50xxxxxx": 0x50020022, "60xx3000": 0x60023000, "60xx4000": 0x60024000}
    return patterns.get(line["tag"]) or int(line["tag"], 16)


def vr_of(tag: int) -> str:
    return {0x00291010: "LO", 0x50020022: "LO"}.get(tag) or dictionary_VR(tag).partition(" or ")[0]


def value_of(vr: str, action: str) -> Any:
    """With the patient's name where it has to be cleaned of it."""
    if vr == "SQ":
        item = Dataset()
        item.CodeMeaning = "Meridian lesion" if action == "C" else "Zebra lesion"
        item.ReferencedSOPInstanceUID = UID
        item.ReferencedSOPClassUID = images.CT
        item.add_new(0x00290010, "LO", "OTHER")
        item.add_new(0x00291010, "LO", "Zebra private")
        return Sequence([item])
    if vr in ("AE", "CS"):
        return ["MERIDIAN", "ZEBRA"] if action == "C" else "ZEBRA"
    if vr in ("OB", "OW", "UN"):
        return b"Zebra123"
    return (
        TEMPORAL.get(vr)
        or NUMBERS.get(vr)
        or {"AS": "064Y", "UI": UID, "UR": "http://zebra/lesion"}.get(
            vr, "Meridian lesion" if action == "C" else "Zebra lesion"
        )
    )


def planted(line: dict[str, str], action: str, place: str) -> Dataset:
    tag = tag_of(line)
    ds = Dataset()
    ds.PatientName, ds.PatientID = "Meridian^Paula", "IM4711"
    into = ds
    if place == "sequence":
        into = Dataset()
        middle = Dataset()
        middle.PlanePositionSequence = [into]
        ds.SharedFunctionalGroupsSequence = [middle]
    if line["tag"] == "private":
        into.add_new(0x00290010, "LO", "ACME 1.1")
    into.add(DataElement(tag, vr_of(tag), value_of(vr_of(tag), action), validation_mode=IGNORE))
    return ds


def found(ds: Dataset, tag: int, place: str) -> DataElement | None:
    if place == "sequence":
        ds = ds.SharedFunctionalGroupsSequence[0].PlanePositionSequence[0]
    return ds.get(tag)


def agrees(line: dict[str, str], options: frozenset[Option], place: str) -> bool:
    """Whether what becomes of a planted attribute is the action that the table asks for."""
    action, tag = expected(line, options), tag_of(line)
    made = deidentify(planted(line, action, place), SECRET, options, safe_private=SAFE)
    encoded(made, ExplicitVRLittleEndian)
    element = found(made, tag, place)
    if line["tag"].startswith("60"):
        action = "X"  # what is drawn in an overlay nobody has read
    if place == "top" and tag >> 16 in (0, 2):
        action = "X"  # such elements are no part of a data set
    if element is None:
        return action == "X"
    judge = {"Z": emptied, "D": replaced, "U": renumbered, "K": kept, "C": cleaned}.get(action)
    return judge is not None and vr_of(tag) == element.VR and judge(element, options)


def emptied(element: DataElement, _: frozenset[Option]) -> bool:
    return element.is_empty


def replaced(element: DataElement, _: frozenset[Option]) -> bool:
    if element.VR == "SQ":
        return len(element.value) == 1 and "lesion" not in str(element) and UID not in str(element)
    return not element.is_empty and element.value != value_of(element.VR, "D")


def renumbered(element: DataElement, options: frozenset[Option]) -> bool:
    if element.VR == "SQ":
        return kept(element, options - {Option.UIDS})
    return bool(re.fullmatch(r"2\.25\.\d{1,39}", element.value))


def kept(element: DataElement, options: frozenset[Option]) -> bool:
    """A sequence by its items: the profile is applied to each (E.1.1)."""
    if element.VR != "SQ":
        return bool(element.value == value_of(element.VR, "K"))
    item = next(iter(element.value), Dataset())
    return (
        item.get("CodeMeaning") == "Zebra lesion"
        and item.ReferencedSOPClassUID == images.CT
        and (item.ReferencedSOPInstanceUID == UID) == (Option.UIDS in options)
        and 0x00291010 not in item
    )


def cleaned(element: DataElement, _: frozenset[Option]) -> bool:
    if element.VR == "TM":
        return bool(element.value == TEMPORAL["TM"])
    if element.VR in TEMPORAL:
        before, after = TEMPORAL[element.VR], element.value
        return "2014" < after[:8] < "2026" and after[8:] == before[8:]
    if element.VR in ("AE", "CS"):
        return bool(element.value == ["REMOVED", "ZEBRA"])
    if isinstance(element.value, bytes):
        return not any(element.value)
    said = "".join(one.CodeMeaning for one in element.value) if element.VR == "SQ" else element.value
    return "eridian" not in said and "lesion" in said


def encoded(ds: Dataset, syntax: str = "") -> bytes:
    out = io.BytesIO()
    if syntax:
        ds.save_as(out, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    else:
        ds.save_as(out)
    return out.getvalue()


# -------------------------------------------------------------------------------------------------------- the table


def test_the_table_is_the_published_one() -> None:
    if not PUBLISHED.exists():
        pytest.skip("the shared data folder is not beside this repository")
    names = {"ggggeeee-where-gggg-is-odd": "private"}
    published = {
        names.get(row["id"]) or row["id"].upper().replace("X", "x"): (
            row["basicProfile"],
            *(row.get(column, "") for column in COLUMNS.values()),
        )
        for row in json.loads(PUBLISHED.read_text())
    }
    assert {line["tag"]: (line["basic"], *(line[option] for option in COLUMNS)) for line in LINES} == published


def test_the_table_is_whole() -> None:
    assert list(COLUMNS) == [*HEAD][3:] == [option.value for option in Option]
    assert len({line["tag"] for line in LINES}) == len(LINES) == 621
    assert Counter(line["basic"] for line in LINES) == {
        "X": 384,
        "D": 92,
        "U": 54,
        "Z": 42,
        "X/D": 22,
        "X/Z": 11,
        "X/Z/D": 8,
        "Z/D": 6,
        "X/Z/U*": 2,
    }
    for line in LINES:
        if re.fullmatch(r"[0-9A-F]{8}", line["tag"]):
            assert keyword_for_tag(int(line["tag"], 16)) == line["keyword"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("options", CHOICES, ids=named)
def test_every_attribute_has_its_action(options: frozenset[Option], place: str) -> None:
    assert [line["keyword"] for line in LINES if not agrees(line, options, place)] == []


def test_a_wrong_row_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    unseen = []
    for line in LINES:
        wrong = "K" if line["basic"] == "X" else "X"
        row = under_test.Row(line["tag"], line["keyword"], wrong, {})
        with monkeypatch.context() as changed:
            changed.setitem(under_test._ROWS, line["tag"], row)
            if agrees(line, NOTHING, "sequence"):
                unseen.append(line["keyword"])
    assert unseen == ["OverlayData", "OverlayComments", "PrivateAttributes"]  # these go by rules of their own


def test_a_wrong_option_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [(line, option) for line in LINES for option in Option if line[option]]
    unseen = []
    for line, option in cells:
        row = under_test.Row(line["tag"], line["keyword"], line["basic"], {})
        with monkeypatch.context() as changed:
            changed.setitem(under_test._ROWS, line["tag"], row)
            if agrees(line, frozenset({option}), "sequence"):
                unseen.append((line["keyword"], option.value))
    assert len(cells) > 600
    assert {keyword for keyword, _ in unseen} <= {
        *("OverlayData", "OverlayComments", "PrivateAttributes"),
        "FrameOriginTimestamp",  # C or D: bytes cannot be cleaned
        *("SourceImageSequence", "ReferencedImageSequence"),  # U or K: their UIDs stay either way
    }


@pytest.mark.parametrize("options", [NOTHING, frozenset({Option.UIDS})], ids=named)
def test_the_file_meta_is_ours(options: frozenset[Option]) -> None:
    ds = images.ct()
    images.part10(ds)
    ds.file_meta.SourceApplicationEntityTitle = "MERIDIAN"
    ds.preamble = b"Meridian".ljust(128)
    made = deidentify(ds, SECRET, options)
    assert sorted(made.file_meta.keys()) == [0x00020002, 0x00020003, 0x00020010]
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    assert (made.SOPInstanceUID == ds.SOPInstanceUID) == bool(options)
    assert b"eridian" not in encoded(made)


# --------------------------------------------------------------------------------------------- nothing of it remains

NAME, PATIENT, ACCESSION, DOCTOR, SERIAL = "Meridian^Paula", "IM471199", "ACC-2026-88", "Referrer^Rita", "SN-47110815"
BORN, SEEN, HOUSE, PHONE = "19610412", "20260301", "Kestrel Hospital", "+49 30 90188271"
EVERYWHERE = ("meridian", "paula", "im471199", "88271", "acc-2026", "referrer", BORN)
TEXTS = f"{NAME} {PATIENT} {ACCESSION} {DOCTOR} {PHONE} {BORN}"
PLANTS: dict[str, Any] = {
    **dict.fromkeys(("LT", "ST", "UC", "UT"), TEXTS),
    "LO": f"{NAME} {PATIENT} {PHONE}",
    "SH": PATIENT,
    "PN": NAME,
    "AE": "MERIDIAN",
    "CS": "PAULA",
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), f"{NAME}\0{PATIENT} {DOCTOR}".ljust(64).encode()),
    "DA": SEEN,
    "DT": f"{SEEN}0815",
    "TM": "081500",
    "UI": UID,
    "UR": f"https://pacs.example/{PATIENT}/x",
    "DS": BORN,
    "IS": BORN,
    "AS": "064Y",
    "UV": int(BORN),
    "UL": int(BORN),
    "SV": int(BORN),
    "SL": int(BORN),
}


def everything() -> Dataset:
    """Every attribute that the dictionary knows, with what gives the patient away in it, where its VR can hold it.

    But for pixels at the top: they are not the de-identifier's.
    """
    ds = Dataset()
    for tag, (vrs, *_) in DicomDictionary.items():
        vr = vrs.partition(" or ")[0]
        if 2 < tag >> 16 < 0x7FE0 and vr in PLANTS and tag not in (0x00080005, 0x00280103):
            ds.add(DataElement(tag, vr, PLANTS[vr], validation_mode=IGNORE))
    return ds


def giveaway() -> Dataset:
    ds = images.ct(PatientComments=TEXTS)
    ds.update({element.tag: element for element in everything() if element.tag not in ds})
    ds.PatientName, ds.PatientID, ds.AccessionNumber, ds.PatientBirthDate = NAME, PATIENT, ACCESSION, BORN
    ds.ReferringPhysicianName, ds.InstitutionName, ds.DeviceSerialNumber = DOCTOR, HOUSE, SERIAL
    ds.PatientTelephoneNumbers, ds.StudyDate = PHONE, SEEN
    ds.PixelData = images.ct().PixelData
    for into in (ds, deep := Dataset()):
        into.add_new(0x00290010, "LO", "ACME 1.1")
        into.add_new(0x00291010, "LO", TEXTS[:60])
        into.add_new(0x00291011, "UN", PLANTS["UN"])
        into.add_new(0x00291012, "SQ", [everything()])
        into.add_new(0x30303030, "LO", NAME)  # in no dictionary
        into.add_new(0x60003000, "OW", PLANTS["OW"])
        into.add_new(0x60001500, "LO", NAME)
        into.add_new(0x50000022, "LO", NAME)
        into.add_new(0x00080000, "UL", 4711)
    deep.update(everything())
    ds.SharedFunctionalGroupsSequence = [deep]
    ds.add_new(0x0040A730, "SQ", [report_item()])
    ds.AcquisitionContextSequence = [report_item()]
    return ds


def report_item() -> Dataset:
    item = images.item("TEXT", "121071", "Finding")
    item.TextValue = TEXTS
    item.ContentSequence = [everything()]
    item.add_new(0x7FE00010, "OB", PLANTS["OB"])
    return item


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
@pytest.mark.parametrize("options", CHOICES, ids=named)
def test_nothing_of_the_patient_remains(options: frozenset[Option], syntax: str) -> None:
    ds = read_back(giveaway(), syntax)
    made = encoded(deidentify(ds, SECRET, options, safe_private=SAFE), syntax).lower()
    markers = [*EVERYWHERE, ds.StudyInstanceUID] if Option.UIDS not in options else [*EVERYWHERE]
    markers += [] if Option.DEVICE in options else [SERIAL]
    markers += [] if Option.INSTITUTION in options else [HOUSE]
    if Option.FULL_DATES not in options and options != {Option.DEVICE}:  # which keeps days of calibration
        markers.append(SEEN)
    assert [one for one in markers if one.lower().encode() in made] == []
    assert [one for one in markers if one.lower().encode("utf-16-le") in made] == []
    for one in (int(BORN).to_bytes(width, "little") for width in (4, 8)):
        assert one not in made


def read_back(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """As it comes from a file: every value raw."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    return dcmread(io.BytesIO(encoded(ds)), force=True)


def test_what_is_planted_would_be_found() -> None:
    """The search above can fail: each marker is in the object as it came."""
    said = encoded(read_back(giveaway())).lower()
    assert [one for one in (*EVERYWHERE, SERIAL, HOUSE, SEEN) if one.lower().encode() not in said] == []


# ------------------------------------------------------------------------------------------------------- consistency


def test_what_belongs_together_stays_together() -> None:
    first, second, other = (deidentify(images.ct(n, patient), SECRET) for n, patient in ((1, "1"), (2, "1"), (1, "2")))
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SOPInstanceUID == other.SOPInstanceUID  # the same UID under the same secret
    assert first.PatientID == second.PatientID != other.PatientID
    again = deidentify(images.ct(), b"another".ljust(32, b"."))
    assert {again.StudyInstanceUID, again.PatientID}.isdisjoint({first.StudyInstanceUID, first.PatientID})


def test_references_point_at_what_they_pointed_at() -> None:
    image, report = images.ct(), images.dose_report()
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    report.ReferencedRawDataSequence = [reference]
    made = deidentify(report, SECRET).ReferencedRawDataSequence[0]
    assert made.ReferencedSOPInstanceUID == deidentify(image, SECRET).SOPInstanceUID
    assert made.ReferencedSOPClassUID == images.CT


def test_uids_of_the_standard_stay() -> None:
    ds = images.ct(FrameOfReferenceUID="1.2.840.10008.1.4.1.1")  # Talairach Brain Atlas
    made = deidentify(ds, SECRET)
    assert (made.FrameOfReferenceUID, made.SOPClassUID) == ("1.2.840.10008.1.4.1.1", images.CT)
    ds.FrameOfReferenceUID = "1.2.840.10008.1.4.1.1.19610412"  # looks like one of it
    assert deidentify(ds, SECRET).FrameOfReferenceUID.startswith("2.25.")


MODIFIED = frozenset({Option.MODIFIED_DATES})


@given(st.lists(st.dates(date(1920, 1, 1), date(2100, 1, 1)), min_size=2, max_size=5), st.integers(0, 9999))
def test_dates_move_together(days: list[date], patient: int) -> None:
    def moved(day: date) -> tuple[date, date]:
        said = day.strftime("%Y%m%d")
        ds = Dataset()
        ds.PatientID, ds.StudyDate, ds.StudyTime = str(patient), said, "235959.123456"
        ds.AcquisitionDateTime = f"{said}235959.5-0500"
        made = deidentify(ds, SECRET, MODIFIED)
        assert made.StudyTime == "235959.123456"
        assert made.AcquisitionDateTime == f"{made.StudyDate}235959.5-0500"
        return day, date.fromisoformat(made.StudyDate)

    shifts = {before - after for before, after in map(moved, days)}
    assert len(shifts) == 1
    assert timedelta(365) <= shifts.pop() <= timedelta(365 + 3653)


def test_patients_move_each_by_their_own() -> None:
    made = {deidentify(images.ct(patient=str(n)), SECRET, MODIFIED).StudyDate for n in range(50)}
    assert len(made) > 40


@pytest.mark.parametrize(
    ("vr", "keyword", "said", "length"),
    [
        ("DA", "StudyDate", "2026.03.01", 8),
        ("DT", "AcquisitionDateTime", "2026", 4),
        ("DT", "AcquisitionDateTime", "202603", 6),
    ],
)
def test_dates_of_other_shapes(vr: str, keyword: str, said: str, length: int) -> None:
    ds = Dataset()
    ds.add(DataElement(keyword, vr, said, validation_mode=IGNORE))
    made = str(deidentify(ds, SECRET, MODIFIED)[keyword].value)
    assert len(made) == length
    assert made < "2026"


@pytest.mark.parametrize("said", ["Meridian", "20261301", "00010101", "20260301-20260401"])
def test_what_is_no_date_is_not_kept(said: str) -> None:
    ds = Dataset()
    ds.add(DataElement("StudyDate", "DA", said, validation_mode=IGNORE))
    assert deidentify(ds, SECRET, MODIFIED).StudyDate == "19000101"


# ------------------------------------------------------------------------------------------------- what is said of it


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("options", CHOICES, ids=named)
def test_it_says_what_was_done(options: frozenset[Option], clean: bool) -> None:
    ds = images.ct()
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "by Meridian"
    ds.DeidentificationMethodCodeSequence = [images.code("113102", "DCM", "Clean Recognizable Visual Features Option")]
    made = deidentify(ds, SECRET, options, pixels_clean=clean)
    for one in (made, deidentify(made, SECRET, options, pixels_clean=clean)):
        assert one.PatientIdentityRemoved == ("YES" if clean else "NO")
        assert "Meridian" not in one.DeidentificationMethod
        codes = [(code.CodeValue, code.CodingSchemeDesignator) for code in one.DeidentificationMethodCodeSequence]
        wanted = {"113100"} | ({"113101"} if clean else set()) | {CODES[option][0] for option in options}
        assert sorted(codes) == sorted((code, "DCM") for code in wanted)
        now = (
            "UNMODIFIED"
            if Option.FULL_DATES in options
            else "MODIFIED"
            if Option.MODIFIED_DATES in options
            else "REMOVED"
        )
        assert one.LongitudinalTemporalInformationModified == now


def test_dates_once_modified_are_not_called_unmodified() -> None:
    made = deidentify(images.ct(), SECRET, MODIFIED)
    again = deidentify(made, SECRET, frozenset({Option.FULL_DATES}))
    assert again.StudyDate == made.StudyDate
    assert again.LongitudinalTemporalInformationModified == "MODIFIED"


def test_an_object_without_pixels_has_none_cleaned() -> None:
    codes = deidentify(images.dose_report(), SECRET, pixels_clean=True).DeidentificationMethodCodeSequence
    assert "113101" not in {code.CodeValue for code in codes}


def test_a_dummy_of_a_report_is_a_report() -> None:
    """Basic Profile: D. A reader finds an item of the kind that was there, and nothing of its content."""
    made = deidentify(images.dose_report(), SECRET)
    assert len(made.ContentSequence) == 1
    assert (made.ContentSequence[0].ValueType, made.ContentSequence[0].RelationshipType) == ("CONTAINER", "CONTAINS")
    assert "312.5" not in str(made)


def test_a_report_keeps_what_it_found() -> None:
    ds = images.dose_report()
    serial = images.item("TEXT", "121016", "Device Observer Serial Number")
    serial.TextValue = "4711X"
    observer = images.item("PNAME", "121008", "Person Observer Name")
    observer.PersonName = "Auditor^Otto"
    finding = images.item("TEXT", "121071", "Finding")
    finding.TextValue = "Dr. Auditor told Mrs. Meridian of a lesion on 2026-03-01"
    ds.ContentSequence = [*ds.ContentSequence, serial, observer, finding]
    made = deidentify(ds, SECRET, frozenset({Option.STRUCTURED}))
    assert "312.5" in str(made.ContentSequence)
    assert made.ContentSequence[2].TextValue == made.ContentSequence[3].PersonName == "REMOVED"
    assert "lesion" in made.ContentSequence[4].TextValue
    assert not re.search("Auditor|Meridian|03-01", made.ContentSequence[4].TextValue)
    device = deidentify(ds, SECRET, frozenset({Option.STRUCTURED, Option.DEVICE}))
    assert device.ContentSequence[2].TextValue == "4711X"


def test_private_attributes_that_are_safe_stay_with_their_creators() -> None:
    ds = images.ct()
    block = ds.private_block(0x0029, "ACME 1.1", create=True)
    block.add_new(0x10, "LO", "seen by Meridian, lesion")
    block.add_new(0x11, "LO", "not listed")
    ds.private_block(0x0029, "OTHER", create=True).add_new(0x10, "LO", "another's")
    ds.private_block(0x002B, "ACME 1.1", create=True).add_new(0x10, "DA", "20260301")
    safe = SAFE | {("ACME 1.1", 0x002B, 0x10)}
    made = deidentify(ds, SECRET, frozenset({Option.SAFE_PRIVATE}), safe_private=safe)
    assert [int(element.tag) for element in made if element.tag.is_private] == [
        0x00290010,
        0x00291010,
        0x002B0010,
        0x002B1010,
    ]
    assert made[0x00291010].value == "seen by [removed], lesion"
    assert made[0x002B1010].value == "19000101"
    assert not [element for element in deidentify(ds, SECRET, safe_private=safe) if element.tag.is_private]


def test_what_an_option_keeps_is_kept_as_it_is() -> None:
    """An address is one that `schemas.deidentify` would find."""
    ds = images.ct(InstitutionAddress="12 High Street, Springfield, IL 62704", StationName="10.1.2.3")
    ds.InstitutionName = "St Mary's Hospital"
    made = deidentify(ds, SECRET, frozenset({Option.INSTITUTION, Option.DEVICE}))
    for keyword in ("InstitutionAddress", "InstitutionName", "StationName", "DeviceSerialNumber"):
        assert made[keyword].value == ds[keyword].value
    assert "InstitutionAddress" not in deidentify(ds, SECRET)


def test_values_keep_their_places() -> None:
    ds = images.ct()
    ds.ImageType = ["DERIVED", "", "PAULA4711", "AXIAL"]
    assert deidentify(ds, SECRET).ImageType == ["DERIVED", "", "REMOVED", "AXIAL"]


@pytest.mark.parametrize(
    ("keyword", "said", "wanted"),
    [
        ("ContrastBolusRoute", "as Paula4711 asked", "as [removed] asked"),
        ("ContrastBolusRoute", "tell Dr. John Smith, 555-123-4567", "tell Dr. [removed], [removed]"),
        ("SequenceName", "IM4711", "[removed]"),
        ("SequenceName", "xAIM4711b", "REMOVED"),
        ("ScanningSequence", "IM4711", "REMOVED"),
        ("SoftwareVersions", "2.6.3.6", "2.6.3.6"),
        ("ConvolutionKernel", "B30f", "B30f"),
    ],
)
def test_text_that_the_table_does_not_list(keyword: str, said: str, wanted: str) -> None:
    made = deidentify(images.ct(**{keyword: said}), SECRET)
    assert made[keyword].value == wanted


# ---------------------------------------------------------------------------------------------------------- bad input


def test_both_kinds_of_dates_are_refused() -> None:
    with pytest.raises(ValueError, match="dates"):
        deidentify(images.ct(), SECRET, frozenset({Option.FULL_DATES, Option.MODIFIED_DATES}))


def test_too_deep() -> None:
    ds = Dataset()
    for _ in range(DEEPEST + 1):
        outer = Dataset()
        outer.PlanePositionSequence = [ds]
        ds = outer
    with pytest.raises(BadMessage, match="too_deep"):
        deidentify(ds, SECRET)
    assert len(deidentify(ds.PlanePositionSequence[0], SECRET).PlanePositionSequence) == 1


def test_a_directory_is_refused() -> None:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    with pytest.raises(BadMessage, match="directory"):
        deidentify(ds, SECRET)


@pytest.mark.parametrize(
    ("keyword", "vr", "said"),
    [
        ("Rows", "LT", b"seen by Meridian"),
        ("KVP", "PN", b"Meridian^Paula"),
        ("SliceThickness", "DS", b"Meridian"),
        ("InstanceNumber", "IS", b"4711-Meridian"),
        ("PatientName", "OB", b"Meridian"),
        ("StudyDate", "LO", b"Meridian"),
        ("SOPClassUID", "UI", b"1.2.Meridian"),
        ("SOPInstanceUID", "UI", b"../../Meridian"),
        ("SpecificCharacterSet", "CS", b"MERIDIAN"),
        ("SharedFunctionalGroupsSequence", "LT", b"Meridian"),
        ("PatientComments", "SQ", [images.code("Meridian", "DCM", "Meridian")]),
    ],
)
@pytest.mark.parametrize("options", CHOICES[:1] + CHOICES[-2:], ids=named)
def test_a_vr_that_lies(keyword: str, vr: str, said: Any, options: frozenset[Option]) -> None:
    ds = images.ct()
    tag = Tag(keyword)
    ds[tag] = DataElement(tag, vr, said) if vr == "SQ" else RawDataElement(tag, vr, len(said), said, 0, False, True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = read_back(ds)
        made = encoded(deidentify(ds, SECRET, options))
    assert b"MERIDIAN" not in made.upper()


def real_files() -> Iterator[Path]:
    for path in sorted({Path(name) for name in get_testdata_files()}):
        if path.is_file() and path.suffix not in (".json", ".txt", ".zip", ".tar", ".py"):
            yield path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [NOTHING, frozenset(Option) - {Option.FULL_DATES, Option.UIDS}], ids=named)
def test_other_peoples_files(options: frozenset[Option]) -> None:
    """They can be written, read again, have their pixels; and say no more whose they were."""
    seen: Counter[str] = Counter()
    for path in real_files():
        try:
            ds = dcmread(path, force=True)
            ds.decode()
        except Exception:
            seen["unreadable"] += 1
            continue
        if "DirectoryRecordSequence" in ds or "TransferSyntaxUID" not in ds.file_meta:
            continue
        made = deidentify(ds, SECRET, options)
        said = encoded(made)
        back = dcmread(io.BytesIO(said), force=True)
        assert back.get("PixelData") == ds.get("PixelData"), path.name
        assert list(back.keys()) == sorted(made.keys()), path.name
        whose = {str(ds.get(one, "")) for one in ("PatientName", "PatientID", "StudyInstanceUID", "SOPInstanceUID")}
        assert [path.name for one in whose if len(one) > 5 and one.encode() in said] == []
        seen["made"] += 1
    assert seen["made"] > 150
    assert seen["unreadable"] < 25
