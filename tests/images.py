"""Images of nobody, for tests: phantoms with the headers of a CT, an MR, a chest X-ray, an ultrasound, a dose report.

Run as a program it writes tests/samples/imaging anew, byte for byte as it is.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

CT, MR, CR, US = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.6.1",
)
DOSE_SR = "1.2.840.10008.5.1.4.1.1.88.67"
SLICES = range(1, 13)
SAMPLES = Path(__file__).resolve().parent / "samples" / "imaging"


def uid(*said: object) -> str:
    """A UID made of words, always the same: 2.25 and 128 bits (PS3.5 B.2)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(repr(said).encode()).digest()[:16])}"


def header(modality: str, sop_class: str, number: int, patient: str, study: str, **said: Any) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(study), uid(study, modality)
    ds.SOPInstanceUID = uid(study, modality, number)
    ds.StudyDate, ds.StudyTime = "20260301", "081500"
    ds.AcquisitionDate, ds.AcquisitionTime = "20260301", f"0820{number % 60:02}.500000"
    ds.TimezoneOffsetFromUTC = "+0100"
    ds.AccessionNumber = f"A{patient}"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = modality, "Acme Imaging", f"Model {modality}"
    ds.InstitutionName, ds.StationName, ds.DeviceSerialNumber = "North Hospital", f"{modality}1", "SN-47110815"
    ds.ReferringPhysicianName = "Referrer^Rita"
    ds.OperatorsName = "Operator^Olaf"
    ds.StudyDescription, ds.SeriesDescription = f"{modality} study", f"{modality} phantom"
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = f"Meridian^Paula{patient}", f"IM{patient}", "HOSP"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19610412", "F", "064Y"
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "1", 1, number
    for name, value in said.items():
        setattr(ds, name, value)
    return ds


def pixels(ds: Dataset, image: np.ndarray[Any, Any], bits: int = 16, **said: Any) -> Dataset:
    """The image (rows, columns, or with 3 samples) as native pixel data."""
    ds.SamplesPerPixel = 3 if image.ndim == 3 else 1
    ds.PhotometricInterpretation = "RGB" if image.ndim == 3 else "MONOCHROME2"
    if image.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = image.shape[:2]
    ds.BitsAllocated = 8 if bits <= 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(image.dtype.kind == "i")
    for name, value in said.items():
        setattr(ds, name, value)
    ds.PixelData = image.astype("<u1" if bits <= 8 else "<i2" if image.dtype.kind == "i" else "<u2").tobytes()
    return ds


def body(size: int = 32, noise: float = 8.0, seed: int = 1) -> np.ndarray[Any, Any]:
    """An ellipse of water with an insert of bone and one of air, in HU."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    image = np.full((size, size), -1000.0)
    image[(x / 0.42) ** 2 + (y / 0.34) ** 2 < 1] = 40
    image[(x - 0.15) ** 2 + (y + 0.05) ** 2 < 0.006] = 900
    image[(x + 0.18) ** 2 + (y - 0.02) ** 2 < 0.01] = -850
    return image + np.random.default_rng(seed).normal(0, noise, image.shape)


def ct(number: int = 1, patient: str = "4711", study: str = "ct", size: int = 32, **said: Any) -> Dataset:
    ds = header("CT", CT, number, patient, study, BodyPartExamined="CHEST", PatientPosition="HFS", KVP=120, **said)
    ds.ImageType, ds.SliceThickness, ds.PixelSpacing = ["ORIGINAL", "PRIMARY", "AXIAL"], 5, [0.8, 0.8]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-25, -25, 5 * number], [1, 0, 0, 0, 1, 0]
    ds.XRayTubeCurrent, ds.ExposureTime, ds.Exposure, ds.CTDIvol = 200, 500, 100, 7.5
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.WindowCenter, ds.WindowWidth = [40, -600], [400, 1500]
    image = np.clip(body(size, seed=number).round() + 1024, 0, 4095).astype("u2")
    return pixels(ds, image, 12)


def mr(number: int = 1, patient: str = "4712", study: str = "mr", size: int = 32) -> Dataset:
    ds = header("MR", MR, number, patient, study, BodyPartExamined="BRAIN", MagneticFieldStrength=1.5)
    ds.RepetitionTime, ds.EchoTime, ds.FlipAngle, ds.ScanningSequence = 500, 12, 90, "SE"
    ds.SliceThickness, ds.PixelSpacing = 5, [1, 1]
    ds.AcquisitionTime = "091011"
    return pixels(ds, np.clip(body(size, 20, number) + 1000, 0, 4000).astype("u2"), 12)


def cr(number: int = 1, patient: str = "4711", study: str = "cr", size: int = 32) -> Dataset:
    ds = header("CR", CR, number, patient, study, BodyPartExamined="CHEST", ViewPosition="PA")
    ds.ImagerPixelSpacing, ds.ImageAndFluoroscopyAreaDoseProduct = [0.2, 0.2], 1.2
    image = np.clip(1023 - (body(size, 5, number) + 1000) / 2, 0, 1023).astype("u2")
    return pixels(ds, image, 10, PhotometricInterpretation="MONOCHROME1")


def us(number: int = 1, patient: str = "4713", study: str = "us", size: int = 32) -> Dataset:
    ds = header("US", US, number, patient, study, BodyPartExamined="ABDOMEN")
    grey = np.clip((body(size, 60, number) + 1000) / 8, 0, 255).astype("u1")
    return pixels(ds, np.dstack([grey, grey, np.full_like(grey, 20)]), 8)


def dose_report(patient: str = "4711", study: str = "ct") -> Dataset:
    """A CT radiation dose report (TID 10011), as short as one may be."""
    ds = header("SR", DOSE_SR, 1, patient, study)
    ds.SeriesDescription, ds.ValueType, ds.ContinuityOfContent = "Dose report", "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = [code("113701", "DCM", "X-Ray Radiation Dose Report")]
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    totals = item("CONTAINER", "113811", "CT Accumulated Dose Data")
    totals.ContentSequence = [
        measured("113812", "Total Number of Irradiation Events", 1, "{events}"),
        measured("113813", "CT Dose Length Product Total", 312.5, "mGy.cm"),
    ]
    acquisition = item("CONTAINER", "113819", "CT Acquisition")
    dose = item("CONTAINER", "113829", "CT Dose")
    dose.ContentSequence = [measured("113830", "Mean CTDIvol", 7.5, "mGy"), measured("113838", "DLP", 312.5, "mGy.cm")]
    acquisition.ContentSequence = [dose]
    ds.ContentSequence = [totals, acquisition]
    return ds


def code(value: str, scheme: str, meaning: str) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def item(kind: str, value: str, meaning: str) -> Dataset:
    ds = Dataset()
    ds.RelationshipType, ds.ValueType = "CONTAINS", kind
    ds.ConceptNameCodeSequence = Sequence([code(value, "DCM", meaning)])
    return ds


def measured(value: str, meaning: str, amount: float, units: str) -> Dataset:
    ds = item("NUM", value, meaning)
    number = Dataset()
    number.NumericValue = amount
    number.MeasurementUnitsCodeSequence = Sequence([code(units, "UCUM", units)])
    ds.MeasuredValueSequence = Sequence([number])
    return ds


def part10(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """As a file (PS3.10)."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax in (JPEGLSLossless, RLELossless) else syntax
    ds.file_meta.ImplementationClassUID = uid("phantoms")
    if syntax in (JPEGLSLossless, RLELossless):
        ds.compress(syntax, generate_instance_uid=False)
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return out.getvalue()


def samples() -> dict[str, bytes]:
    whole = part10(ct(3))
    return {
        **{f"ct/{n}.dcm": part10(ct(n), ImplicitVRLittleEndian if n % 2 else ExplicitVRLittleEndian) for n in SLICES},
        "ct/dose.dcm": part10(dose_report()),
        **{f"mr/{n}.dcm": part10(mr(n), JPEGLSLossless) for n in SLICES},
        "chest": part10(cr(), RLELossless),
        "us.dcm": part10(us()),
        "broken-off.dcm": whole[: len(whole) * 2 // 3],
    }


def write() -> None:
    for name, data in samples().items():
        path = SAMPLES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    write()
