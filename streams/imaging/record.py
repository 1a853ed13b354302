"""A DICOM header to the record of its instance. Pure: a table says which attribute is which field.

Of an enhanced multi-frame object (PS3.3 A.8.1) what all frames share, else what the first says. A value that is not
what its VR allows is left out and flagged by its keyword; the header stays sealed as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from schemas.imaging import ImagingPart, Instance
from schemas.peers import Peer
from schemas.record import Record
from schemas.scrub import Scrubber
from schemas.wire import dicom_header as header
from schemas.wire.dicom import Arrived, said_of
from streams.imaging.reports import dose, report

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CLOCK_SKEW = timedelta(minutes=10)
OLDEST_AGE = 90  # stands for all above (45 CFR 164.514(b)(2)(i)(C))
LONGEST = 64  # characters of a code or a word: LO's own bound
LONGEST_TEXT = 10_240  # LT's
MOST = 64  # words of a list
LARGEST_COUNT = 2**31 - 1  # of IS, and of an integer in the index

CODES = {  # CS (PS3.5 6.2): capitals, digits, blank and underscore; anything else is no code
    "modality": "Modality",
    "view_position": "ViewPosition",
    "patient_position": "PatientPosition",
    "burned_in": "BurnedInAnnotation",
    "identity_removed": "PatientIdentityRemoved",
    "photometric": "PhotometricInterpretation",
    "lossy": "LossyImageCompression",
    "sex": "PatientSex",
}
WORDS = {  # typed by somebody once: not taken where the patient's own words stand in them
    "facility": "InstitutionName",
    "department": "InstitutionalDepartmentName",
    "manufacturer": "Manufacturer",
    "device_model": "ManufacturerModelName",
    "kernel": "ConvolutionKernel",
    "station_name": "StationName",
}
LISTS = {
    "software": "SoftwareVersions",
    "image_type": "ImageType",
    "character_sets": "SpecificCharacterSet",
    "scanning_sequence": "ScanningSequence",
}
TEXTS = {
    "study_description": "StudyDescription",
    "series_description": "SeriesDescription",
    "protocol_name": "ProtocolName",
    "requested_procedure": "RequestedProcedureDescription",
    "reason": "ReasonForTheRequestedProcedure",
    "contrast_agent": "ContrastBolusAgent",
}
COUNTS = {
    "series_number": "SeriesNumber",
    "instance_number": "InstanceNumber",
    "rows": "Rows",
    "columns": "Columns",
    "samples": "SamplesPerPixel",
    "bits_stored": "BitsStored",
}
NUMBERS = {
    "weight_kg": "PatientWeight",
    "height_m": "PatientSize",
    "slice_thickness_mm": "SliceThickness",
    "slice_spacing_mm": "SpacingBetweenSlices",
    "slice_location_mm": "SliceLocation",
    "kvp": "KVP",
    "tube_current_ma": "XRayTubeCurrent",
    "exposure_mas": "Exposure",
    "exposure_time_ms": "ExposureTime",
    "ctdi_vol_mgy": "CTDIvol",
    "dose_area_dgycm2": "ImageAndFluoroscopyAreaDoseProduct",
    "entrance_dose_mgy": "EntranceDoseInmGy",
    "field_strength_t": "MagneticFieldStrength",
    "repetition_time_ms": "RepetitionTime",
    "echo_time_ms": "EchoTime",
    "flip_angle": "FlipAngle",
}
SEALED = {
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "instance_uid": "SOPInstanceUID",
    "accession_number": "AccessionNumber",
    "study_id": "StudyID",
    "visit_number": "AdmissionID",
    "birth_date": "PatientBirthDate",
    "device_serial": "DeviceSerialNumber",
}
STAFF = {
    "referring": "ReferringPhysicianName",
    "performing": "PerformingPhysicianName",
    "reading": "NameOfPhysiciansReadingStudy",
    "operators": "OperatorsName",
}
# Functional groups of enhanced objects (PS3.3 C.7.6.16) that say what older objects say at the top.
GROUPS = (
    ("PixelMeasuresSequence", ("SliceThickness", "SpacingBetweenSlices", "PixelSpacing")),
    ("PlanePositionSequence", ("ImagePositionPatient",)),
    ("PlaneOrientationSequence", ("ImageOrientationPatient",)),
    ("FrameAnatomySequence", ("FrameLaterality", "AnatomicRegionSequence")),
    ("CTXRayDetailsSequence", ("KVP",)),
    ("CTExposureSequence", ("CTDIvol", "ExposureInmAs", "XRayTubeCurrentInmA", "ExposureTimeInms")),
    ("CTReconstructionSequence", ("ConvolutionKernel",)),
    ("MRTimingAndRelatedParametersSequence", ("RepetitionTime", "FlipAngle")),
    ("MREchoSequence", ("EffectiveEchoTime",)),
)
IN_COMMON = (
    ("study", "series", "instance", "modality", "body_part", "facility", "manufacturer", "device_model")
)  # fmt: skip
_CODE = re.compile(r"[A-Z0-9_ .-]{1,16}", re.ASCII)
_AGE = re.compile(r"(\d{3})([DWMY])", re.ASCII)
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


def read(arrived: Arrived, ds: Dataset, peer: Peer, received: datetime) -> Record:
    """One patient and one part, and for a structured report one of its dose and one of its text."""
    return _Reading(arrived, ds, peer, received).record()


class _Reading:
    def __init__(self, arrived: Arrived, ds: Dataset, peer: Peer, received: datetime) -> None:
        self.arrived, self.ds, self.peer, self.received = arrived, ds, peer, received
        self.flags: dict[str, None] = dict.fromkeys(arrived.flags)
        self.terms = header.terms(ds)
        self.scrubber = Scrubber(self.terms)
        self.sources = (ds, *_groups(ds))

    def record(self) -> Record:
        at = header.event_time(self.ds, self.peer)
        if at is not None and at > self.received + CLOCK_SKEW:
            at = self.received
            self.flags["future_time"] = None
        if at is None:
            self.flags["no_time"] = None
        subjects = header.subjects(self.ds, self.peer, self.arrived.calling)
        fields = self._fields(at)
        fields["identifiers"] = tuple(
            one.value for subject in subjects for one in subject.identifiers if one.authority != header.OURS
        )
        part = Instance(subject=0, flags=tuple(self.flags), **{name: one for name, one in fields.items() if one})
        shared = common(part)
        said = (dose(self.ds, **shared), report(self.ds, **shared))
        return Record(
            subjects=subjects,
            parts=(part, *(one for one in said if one is not None)),
            terms=self.terms,
            event_time=at,
            told_at=self.received,
            sex=part.sex,
            age=part.age,
        )

    def _fields(self, at: datetime | None) -> dict[str, Any]:
        arrived, ds = self.arrived, self.ds
        made: dict[str, Any] = {name: self._code(keyword) for name, keyword in CODES.items()}
        made |= {name: self._word(keyword) for name, keyword in WORDS.items()}
        made |= {name: self._words(keyword) for name, keyword in LISTS.items()}
        made |= {name: self._text(keyword) for name, keyword in TEXTS.items()}
        made |= {name: self._count(keyword) for name, keyword in COUNTS.items()}
        made |= {name: self._number(keyword) for name, keyword in NUMBERS.items()}
        made |= {name: header.text(ds, keyword) for name, keyword in SEALED.items()}
        made |= {
            name: header.staff(ds, keyword, name, header.text(ds, "InstitutionName") or arrived.calling)
            for name, keyword in STAFF.items()
        }
        made |= self._geometry()
        claim = arrived.claim
        return (
            made
            | {
                "study": arrived.study,
                "series": arrived.series,
                "instance": arrived.instance,
                "object": claim.name,
                "object_bytes": float(claim.size),
                "claim": said_of(claim),
                "calling_ae": self._plain(arrived.calling),
                "called_ae": self._plain(arrived.called),
                "sop_class": header.uid(ds, "SOPClassUID")[:LONGEST],
                "transfer_syntax": arrived.syntax,
                "left_out": arrived.left_out[:MOST],
                "private_creators": sum(1 for tag in ds.keys() if tag.is_private_creator) or None,  # noqa: SIM118 - a data set iterates over elements
                "body_part": self._code("BodyPartExamined") or self._coded("AnatomicRegionSequence"),
                "laterality": self._code("ImageLaterality")
                or self._code("FrameLaterality")
                or self._code("Laterality"),
                "procedure": self._coded("ProcedureCodeSequence") or self._coded("RequestedProcedureCodeSequence"),
                "diagnoses": tuple(
                    said[:LONGEST_TEXT] for said in header.texts(ds, "AdmittingDiagnosesDescription")[:MOST]
                ),
                "frames": self._count("NumberOfFrames") or (1 if made["rows"] else None),
                "study_at": header.at(ds, "StudyDate", "StudyTime", self.peer),
                "acquired_at": None if at is None or "future_time" in self.flags else at,
                "age": self._age(at),
                "name": header.names(ds, "PatientName") + header.names(ds, "OtherPatientNames"),
                "addresses": header.texts(ds, "PatientAddress")[:MOST],
                "phones": header.texts(ds, "PatientTelephoneNumbers")[:MOST],
                "comments": tuple(
                    said for keyword in ("PatientComments", "ImageComments") for said in header.texts(ds, keyword)
                ),
            }
        )

    def _geometry(self) -> dict[str, Any]:
        spacing = self._numbers("PixelSpacing", 2) or self._numbers("ImagerPixelSpacing", 2)
        return {
            "row_spacing_mm": spacing[0] if spacing else None,
            "column_spacing_mm": spacing[1] if spacing else None,
            "position_mm": self._numbers("ImagePositionPatient", 3),
            "orientation": self._numbers("ImageOrientationPatient", 6),
            "exposure_mas": self._number("Exposure") or self._number("ExposureInmAs"),
            "tube_current_ma": self._number("XRayTubeCurrent") or self._number("XRayTubeCurrentInmA"),
            "exposure_time_ms": self._number("ExposureTime") or self._number("ExposureTimeInms"),
            "echo_time_ms": self._number("EchoTime") or self._number("EffectiveEchoTime"),
        }

    def _code(self, keyword: str) -> str:
        said = self._first(keyword).upper()
        if said and not (_CODE.fullmatch(said) and not self.scrubber.holds(said)):
            self.flags[f"not_a_code:{keyword}"] = None
            return ""
        return said

    def _word(self, keyword: str) -> str:
        return self._plain(self._first(keyword), keyword)

    def _plain(self, said: str, keyword: str = "") -> str:
        if said and (len(said) > LONGEST or self.scrubber.holds(said)):
            self.flags[f"not_a_code:{keyword}"] = None
            return ""
        return said

    def _words(self, keyword: str) -> tuple[str, ...]:
        return tuple(one for said in header.texts(self.ds, keyword)[:MOST] if (one := self._plain(said, keyword)))

    def _text(self, keyword: str) -> str:
        return self._first(keyword)[:LONGEST_TEXT]

    def _coded(self, keyword: str) -> str:
        """The code of a code sequence (PS3.3 8.8)."""
        for source in self.sources:
            for item in header.items(source, keyword):
                if said := self._plain(header.text(item, "CodeValue"), keyword):
                    return said
        return ""

    def _count(self, keyword: str) -> int | None:
        found = self._number(keyword)
        return int(found) if found is not None and 0 <= found <= LARGEST_COUNT else None

    def _number(self, keyword: str) -> float | None:
        return next((one for source in self.sources for one in header.numbers(source, keyword)[:1]), None)

    def _numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        """All of just so many; none of another number of them."""
        found = (header.numbers(source, keyword) for source in self.sources)
        return next((some for some in found if len(some) == count), ())

    def _first(self, keyword: str) -> str:
        return next((said for source in self.sources if (said := header.text(source, keyword))), "")

    def _age(self, at: datetime | None) -> int | None:
        born = header.moment(header.text(self.ds, "PatientBirthDate"), "", self.received.tzinfo)
        if born is not None and at is not None:
            years = at.year - born.year - ((at.month, at.day) < (born.month, born.day))
            return min(years, OLDEST_AGE) if years >= 0 else None
        if said := _AGE.fullmatch(header.text(self.ds, "PatientAge")):
            return min(int(int(said.group(1)) * _YEARS[said.group(2)]), OLDEST_AGE)
        return None


def _groups(ds: Dataset) -> Iterator[Dataset]:
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for item in header.items(ds, keyword)[:1]:
            for group, _ in GROUPS:
                yield from header.items(item, group)[:1]


def common(part: ImagingPart) -> dict[str, Any]:
    """What a part has in common with others of its instance."""
    return {name: value for name in IN_COMMON if (value := getattr(part, name))}
