"""The de-identifier against PS3.15 Table E.1-1: every row, in every option, at the top and within a sequence."""

from __future__ import annotations

import io
import itertools
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
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
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
        return "MERIDIAN" if action == "C" else "ZEBRA"
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
        return action == "X" or (action == "C" and vr_of(tag) == "OB")
    judge = {"Z": emptied, "D": replaced, "U": renumbered, "K": kept, "C": cleaned}.get(action)
    return judge is not None and element.VR == vr_of(tag) and judge(element, options)


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
    item = element.value[0]
    return (
        item.CodeMeaning == "Zebra lesion"
        and item.ReferencedSOPClassUID == images.CT
        and (item.ReferencedSOPInstanceUID == UID) == (Option.UIDS in options)
        and 0x00291010 not in item
    )


def cleaned(element: DataElement, _: frozenset[Option]) -> bool:
    if element.VR == "TM":
        return bool(element.value == TEMPORAL["TM"])
    if element.VR in TEMPORAL:
        before, after = TEMPORAL[element.VR], element.value
        return after[:8] < "20260101" and after[8:] == before[8:]
    if element.VR in ("AE", "CS"):
        return bool(element.value == "REMOVED")
    said = element.value[0].CodeMeaning if element.VR == "SQ" else element.value
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
        **{"X": 384, "D": 92, "U": 54, "Z": 42, "X/D": 22, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U*": 2}
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
        *("DeviceSettingDescription", "MakerNote"),  # bytes cannot be cleaned: removed either way
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
    **{"LO": f"{NAME} {PATIENT} {PHONE}", "SH": PATIENT, "PN": NAME, "AE": "MERIDIAN", "CS": "PAULA"},
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), f"{NAME}\0{PATIENT} {DOCTOR}".ljust(64).encode()),
    **{"DA": SEEN, "DT": f"{SEEN}0815", "TM": "081500", "UI": UID, "UR": f"https://pacs.example/{PATIENT}/x"},
    **{"DS": BORN, "IS": BORN, "AS": "064Y", "UV": int(BORN), "UL": int(BORN), "SV": int(BORN), "SL": int(BORN)},
}


def everything() -> Dataset:
    """Every attribute that the dictionary knows, with what gives the patient away in it, where its VR can hold it."""
    ds = Dataset()
    for tag, (vrs, *_) in DicomDictionary.items():
        vr = vrs.partition(" or ")[0]
        if tag >> 16 > 2 and vr in PLANTS and tag not in (0x00080005, 0x00280103):
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
    return item


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
@pytest.mark.parametrize("options", CHOICES, ids=named)
def test_nothing_of_the_patient_remains(options: frozenset[Option], syntax: str) -> None:
    ds = read_back(giveaway(), syntax)
    made = encoded(deidentify(ds, SECRET, options, safe_private=SAFE), syntax).lower()
    markers = [*EVERYWHERE, ds.StudyInstanceUID] if Option.UIDS not in options else [*EVERYWHERE]
    markers += [] if Option.DEVICE in options else [SERIAL]
    markers += [] if Option.INSTITUTION in options else [HOUSE]
    markers += [] if Option.FULL_DATES in options else [SEEN]
    assert [one for one in markers if one.lower().encode() in made] == []
    assert [one for one in markers if one.lower().encode("utf-16-le") in made] == []
    for one in (int(BORN).to_bytes(width, "little") for width in (4, 8)):
        assert one not in made


def read_back(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """As it comes from a file: every value raw."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    return dcmread(io.BytesIO(encoded(ds)), force=True)
