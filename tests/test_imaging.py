"""From a header to a record: whose, when, what; nothing of a person in clear; and no header that breaks it."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_files
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from infra.objects import Claim
from schemas.document import Document, documents
from schemas.imaging import Instance
from schemas.marks import Identifying
from schemas.peers import DEFAULT, Peer
from schemas.record import Identifier, Record
from schemas.wire import dicom, dicom_header
from schemas.wire.dicom import Arrived
from streams.imaging import record
from tests import images

RECEIVED = datetime(2026, 3, 2, tzinfo=UTC)
CLAIM = Claim("0123456789abcdef" * 2, b"k" * 32, 4096, "00ff" * 16)


def read(ds: Dataset, peer: Peer = DEFAULT, **said: Any) -> Record:
    arrived = Arrived(CLAIM, "study", "series", "instance", "1.2.840.10008.1.2.1", b"", **said)
    return record.read(arrived, ds, peer, RECEIVED)


def part(ds: Dataset, peer: Peer = DEFAULT, **said: Any) -> Instance:
    (one,) = read(ds, peer, **said).parts
    assert isinstance(one, Instance)
    return one


def document(ds: Dataset, **said: Any) -> Document:
    return documents(read(ds, **said))[0]


def test_ct() -> None:
    one = part(images.ct(2), calling="CT_SCANNER")
    said = {"modality": "CT", "body_part": "CHEST", "kvp": 120, "exposure_mas": 100, "ctdi_vol_mgy": 7.5, "rows": 32}
    said |= {"row_spacing_mm": 0.8, "slice_thickness_mm": 5, "position_mm": (-25, -25, 10), "frames": 1, "age": 64}
    said |= {"manufacturer": "Acme Imaging", "device_model": "Model CT", "station_name": "CT1", "sex": "F"}
    said |= {"calling_ae": "CT_SCANNER", "object": CLAIM.name, "object_bytes": 4096, "series_number": 1}
    assert {name: getattr(one, name) for name in said} == said
    assert one.acquired_at == datetime(2026, 3, 1, 7, 20, 2, 500_000, UTC), "the zone of (0008,0201)"
    assert dicom.claim_of(one.claim) == CLAIM


def test_whose() -> None:
    ds = images.ct()
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = "77-12", "CLINIC"
    other.IssuerOfPatientIDQualifiersSequence = Sequence([Dataset()])
    other.IssuerOfPatientIDQualifiersSequence[0].IdentifierTypeCode = "PI"
    ds.OtherPatientIDsSequence = Sequence([other])
    (subject,) = read(ds).subjects
    assert subject.identifiers == (
        Identifier(authority="HOSP", type="MR", value="IM4711"),
        Identifier(authority="CLINIC", type="PI", value="77-12"),
    )
    del ds.IssuerOfPatientID, ds.OtherPatientIDsSequence
    known = Peer(match="CT_SCANNER|*", authority="HOSP")
    assert read(ds, known).subjects[0].identifiers[0].authority == "HOSP"
    assert read(ds).subjects[0].identifiers[0].authority == "North Hospital"
    del ds.InstitutionName
    assert read(ds, calling="CT_SCANNER").subjects[0].identifiers[0].authority == "CT_SCANNER"


def test_without_a_patient_id_the_study_is_one_person() -> None:
    ds, same, other = images.ct(1), images.ct(2), images.ct(1, study="another")
    for one in (ds, same, other):
        one.PatientID = ""
    assert read(ds).subjects == read(same).subjects != read(other).subjects
    assert part(ds).identifiers == ()


def test_nothing_of_a_person_in_clear() -> None:
    ds = images.ct()
    ds.StudyDescription = "Chest of Paula4711 Meridian, see IM4711, born 1961-04-12"
    ds.SeriesDescription, ds.ProtocolName = "Meridian axial", "PAULA4711"
    ds.ManufacturerModelName, ds.StationName = "for Paula4711", "IM4711"
    ds.BodyPartExamined, ds.ImageType = "IM4711", ["ORIGINAL", "MERIDIAN"]
    ds.PatientAddress, ds.PatientTelephoneNumbers = "Elm Street 7", "0301234567"
    ds.PatientComments = "the aunt of Paula4711"
    made = document(ds)
    clear = orjson.dumps(made.clear).decode().lower()
    for word in ("paula", "meridian", "im4711", "elm street", "1961", "030123", "referrer", "operator", "aunt"):
        assert word not in clear, word
    assert {"not_a_code:ManufacturerModelName", "not_a_code:StationName"} <= set(made.clear["flags"])
    assert made.staff["referring"][0].name == "Referrer Rita"


def test_names_of_all_groups() -> None:
    ds = images.ct()
    ds.SpecificCharacterSet, ds.PatientName = "ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert part(ds).name == ("Yamada Tarou", "山田 太郎", "やまだ たろう")
    assert {"Yamada", "山田", "太郎"} <= set(read(ds).terms)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"AcquisitionDateTime": "20260228120000.25-0500"}, datetime(2026, 2, 28, 17, 0, 0, 250_000, UTC)),
        ({"AcquisitionDate": "", "ContentDate": "20260227", "ContentTime": "02"}, datetime(2026, 2, 27, 1, tzinfo=UTC)),
        ({"AcquisitionDate": "2026.02.26", "AcquisitionTime": "01:02:03"}, datetime(2026, 2, 26, 0, 2, 3, tzinfo=UTC)),
        ({"AcquisitionDate": "20260230"}, datetime(2026, 3, 1, 7, 15, tzinfo=UTC)),
        ({"AcquisitionTime": "235960"}, datetime(2026, 3, 1, 22, 59, 59, tzinfo=UTC)),
        ({"AcquisitionTime": "noon"}, datetime(2026, 2, 28, 23, 0, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_when(said: dict[str, str], expected: datetime) -> None:
    ds = images.ct()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in said.items():
            setattr(ds, name, value)
        assert read(ds).event_time == expected


def test_a_clock_ahead_is_capped_and_none_is_flagged() -> None:
    ds = images.ct()
    ds.AcquisitionDate = "20270101"
    assert read(ds).event_time == RECEIVED
    assert part(ds).flags == ("future_time",)
    for name in ("AcquisitionDate", "StudyDate"):
        setattr(ds, name, "")
    assert read(ds).event_time is None
    assert part(ds).flags == ("no_time",)


def test_the_peers_zone_where_the_header_has_none() -> None:
    ds = images.ct()
    del ds.TimezoneOffsetFromUTC
    assert dicom_header.event_time(ds, Peer(zone="America/New_York")) == datetime(2026, 3, 1, 13, 20, 1, 500_000, UTC)


def test_of_an_enhanced_object_what_all_frames_share() -> None:
    ds = images.ct()
    for name in ("PixelSpacing", "SliceThickness", "ImagePositionPatient", "CTDIvol", "Exposure"):
        delattr(ds, name)
    measures, exposure, plane, shared, frame = (Dataset() for _ in range(5))
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.6], 1.25
    exposure.CTDIvol, exposure.ExposureInmAs = 3.5, 80
    plane.ImagePositionPatient = [1, 2, 3]
    shared.PixelMeasuresSequence, shared.CTExposureSequence = Sequence([measures]), Sequence([exposure])
    frame.PlanePositionSequence = Sequence([plane])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence([frame, Dataset()])
    ds.NumberOfFrames = 2
    one = part(ds)
    assert (one.row_spacing_mm, one.column_spacing_mm, one.slice_thickness_mm) == (0.5, 0.6, 1.25)
    assert (one.ctdi_vol_mgy, one.exposure_mas, one.position_mm, one.frames) == (3.5, 80, (1, 2, 3), 2)


@pytest.mark.parametrize("value", ["1e999", "NaN", "abc", "1\\2\\3\\4\\5\\6\\7", "-1e400", ""])
def test_numbers_that_are_none(value: str) -> None:
    ds = images.ct()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.add_new("KVP", "LO", value)
        ds.add_new("PixelSpacing", "LO", value)
        one = part(ds)
    assert one.kvp is None or value.startswith("1\\")
    assert one.row_spacing_mm is None


def test_every_real_header_is_read() -> None:
    """All of pydicom's own files: no header that pydicom opens is too much, and what they say is of the right kind."""
    read_, modalities = 0, set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in get_testdata_files():
            try:
                ds = dcmread(path, stop_before_pixels=True, force=True)
            except Exception:  # broken on purpose
                continue
            if "SOPInstanceUID" in ds:
                made = document(ds)
                modalities.add(made.clear.get("modality"))
                read_ += 1
                sealed = {name for name, mark in Instance.marks.items() if isinstance(mark, Identifying)}
                assert not sealed & made.clear.keys()
    assert read_ > 150
    assert {"CT", "MR", "US", "CR", "NM", "SR", "SEG"} <= modalities


def test_a_body_is_what_was_packed() -> None:
    arrived = Arrived(CLAIM, "s", "e", "i", "1.2", b"\x08\x00", ("00081234",), "A", "B", ("pixel_length",))
    assert dicom.unpack(dicom.pack(arrived)) == arrived
    for broken in (b"", b"\0\0\0\2{}", b"\0\0\xff\xff[]", dicom.pack(arrived)[4:]):
        with pytest.raises(Exception, match="bad_body"):
            dicom.unpack(broken)


def test_a_dose_report_has_its_sums_and_its_text() -> None:
    first, dose, report = documents(read(images.dose_report()))
    assert (first.clear["modality"], dose.kind, report.kind) == ("SR", "dose", "report")
    assert (dose.clear["dose_length_mgycm"], dose.clear["ctdi_vol_mgy"], dose.clear["irradiations"]) == (312.5, 7.5, 1)
    assert {one.clear["study"] for one in (first, dose, report)} == {"study"}
