"""Medical images as headers and pixels tell of them: an instance, its pixels, a dose report, a study that is whole.

One event is one SOP instance (PS3.3). Names are DICOM's attributes in our spelling, cited by tag; what has another unit
there says so. UIDs, numbers of devices and times of birth are sealed; `study`, `series` and `instance` are their keyed
hashes in clear, so that what belongs together is found. docs/imaging.md has it all.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from schemas.ehr import (
    COMMON,
    Coded,
    Codes,
    Count,
    Flag,
    Number,
    Secret,
    Secrets,
    Sought,
    Soughts,
    Staff,
    Text,
    Texts,
    Time,
    Word,
    Words,
    properties,
)
from schemas.marks import Clinical, Identifying
from schemas.record import Part

DOMAIN = "imaging"
DIMENSIONS = 128  # of the vector that similar images are found by
Numbers = Annotated[tuple[float, ...], Clinical()]


class ImagingPart(Part):
    """What every part carries: which study it is of, and of what kind of machine."""

    flags: Words = ()  # future_time, bad_date:<keyword>, instance_conflict, no_patient_id, ...
    study: Coded = ""  # keyed hash of (0020,000D)
    series: Coded = ""  # keyed hash of (0020,000E)
    instance: Coded = ""  # keyed hash of (0008,0018)
    modality: Coded = ""  # (0008,0060)
    body_part: Coded = ""  # (0018,0015), else the code of (0008,2218)
    facility: Coded = ""  # (0008,0080)
    manufacturer: Coded = ""  # (0008,0070)
    device_model: Coded = ""  # (0008,1090)


class Instance(ImagingPart):
    """One SOP instance: what its header says."""

    kind: ClassVar[str] = "instance"

    object: Word = ""  # name in the object store
    object_bytes: Number = None
    calling_ae: Word = ""
    called_ae: Word = ""
    sop_class: Word = ""  # (0008,0016)
    transfer_syntax: Word = ""  # (0002,0010), as received
    character_sets: Words = ()  # (0008,0005)
    left_out: Words = ()  # tags too large for the header; they are in the object
    private_creators: Count = None  # how many; the elements are in the object

    department: Coded = ""  # (0008,1040)
    station_name: Coded = ""  # (0008,1010), a place as a room is
    software: Words = ()  # (0018,1020)
    image_type: Words = ()  # (0008,0008)
    study_description: Text = ""  # (0008,1030)
    series_description: Text = ""  # (0008,103E)
    protocol_name: Text = ""  # (0018,1030)
    procedure: Coded = ""  # code of (0008,1032), else of (0032,1064)
    requested_procedure: Text = ""  # (0032,1060)
    reason: Text = ""  # (0040,1002)
    diagnoses: Texts = ()  # (0008,1080)
    contrast_agent: Text = ""  # (0018,0010)
    laterality: Coded = ""  # (0020,0062), else (0020,0060)
    view_position: Coded = ""  # (0018,5101)
    patient_position: Coded = ""  # (0018,5100)
    burned_in: Coded = ""  # (0028,0301)
    identity_removed: Coded = ""  # (0012,0062)
    series_number: Count = None  # (0020,0011)
    instance_number: Count = None  # (0020,0013)
    study_at: Time = None  # (0008,0020), (0008,0030)
    acquired_at: Time = None  # (0008,002A), else date and time of acquisition, content, series

    sex: Coded = ""  # (0010,0040)
    age: Count = None  # years at the event, from (0010,0030), else (0010,1010); 90 stands for all above
    weight_kg: Number = None  # (0010,1030)
    height_m: Number = None  # (0010,1020)

    rows: Count = None  # (0028,0010)
    columns: Count = None  # (0028,0011)
    frames: Count = None  # (0028,0008); 1 where it is left out
    samples: Count = None  # (0028,0002)
    bits_stored: Count = None  # (0028,0101)
    photometric: Word = ""  # (0028,0004)
    lossy: Coded = ""  # (0028,2110)
    row_spacing_mm: Number = None  # (0028,0030)[0], else (0018,1164)[0]
    column_spacing_mm: Number = None
    slice_thickness_mm: Number = None  # (0018,0050)
    slice_spacing_mm: Number = None  # (0018,0088)
    slice_location_mm: Number = None  # (0020,1041)
    position_mm: Numbers = ()  # (0020,0032)
    orientation: Numbers = ()  # (0020,0037)

    kvp: Number = None  # (0018,0060), kV
    tube_current_ma: Number = None  # (0018,1151)
    exposure_mas: Number = None  # (0018,1152)
    exposure_time_ms: Number = None  # (0018,1150)
    ctdi_vol_mgy: Number = None  # (0018,9345)
    dose_area_dgycm2: Number = None  # (0018,115E), dGy cm2
    entrance_dose_mgy: Number = None  # (0040,8302)
    kernel: Coded = ""  # (0018,1210)
    field_strength_t: Number = None  # (0018,0087)
    repetition_time_ms: Number = None  # (0018,0080)
    echo_time_ms: Number = None  # (0018,0081)
    flip_angle: Number = None  # (0018,1314), degrees
    scanning_sequence: Words = ()  # (0018,0020)

    study_uid: Sought = ""  # (0020,000D)
    series_uid: Sought = ""  # (0020,000E)
    instance_uid: Sought = ""  # (0008,0018)
    claim: Secret = ""  # what opens the object: JSON of name, key, size, digest
    accession_number: Sought = ""  # (0008,0050)
    study_id: Secret = ""  # (0020,0010)
    visit_number: Sought = ""  # (0038,0010)
    identifiers: Soughts = ()  # (0010,0020), (0010,1002)
    name: Annotated[tuple[str, ...], Identifying(together="birth_date")] = ()  # (0010,0010), (0010,1001)
    birth_date: Secret = ""  # (0010,0030)
    addresses: Secrets = ()  # (0010,1040)
    phones: Secrets = ()  # (0010,2154)
    comments: Secrets = ()  # (0010,4000), (0020,4000)
    device_serial: Secret = ""  # (0018,1000)

    referring: Staff = ()  # (0008,0090)
    performing: Staff = ()  # (0008,1050)
    reading: Staff = ()  # (0008,1060)
    operators: Staff = ()  # (0008,1070)


class Image(ImagingPart):
    """The pixels of an instance, as numbers; no sender's: made on the stream. Of many frames the middle one."""

    kind: ClassVar[str] = "image"

    object: Word = ""
    processing: Word = (
        ""  # done, no_pixels, or why not: bad_pixels, unknown_syntax, too_large, timed_out, out_of_memory, crashed
    )
    preview: Flag = None  # whether the object has one
    noise: Number = None  # standard deviation of the noise, in units of the modality (CT: HU)
    noise_ratio: Number = None  # the same as a share of the spread of the image
    sharpness: Number = None
    contrast: Number = None
    clipped_low: Number = None  # share of pixels at the lowest value that can be stored
    clipped_high: Number = None  # and at the highest
    motion: Number = None  # hint at ghosts or smear, 0 to 1
    embedding: Numbers = ()  # DIMENSIONS numbers that similar images have similar ones of


class Dose(ImagingPart):
    """What a radiation dose report (PS3.3 A.35.8, TID 10001, 10011) adds up to."""

    kind: ClassVar[str] = "dose"

    dose_length_mgycm: Number = None  # 113813 CT Dose Length Product Total
    ctdi_vol_mgy: Number = None  # 113830 Mean CTDIvol, the largest of all
    dose_area_dgycm2: Number = None  # 113722 Dose Area Product Total, as dGy cm2
    entrance_dose_mgy: Number = None  # 113725 Dose (RP) Total, as mGy
    irradiations: Count = None  # 113706, 113819


class Report(ImagingPart):
    """The text of a structured report (PS3.3 A.35), as far as it is text."""

    kind: ClassVar[str] = "report"

    title: Coded = ""  # code of the root
    display: Text = ""
    note: Text = ""
    completion: Coded = ""  # (0040,A491)
    verification: Coded = ""  # (0040,A493)


class StudyComplete(ImagingPart):
    """No instance of a study has come for the quiet period; told again when one does."""

    kind: ClassVar[str] = "study_complete"

    series_count: Count = None
    instance_count: Count = None
    study_bytes: Number = None
    modalities: Codes = ()
    first_at: Time = None  # when the first instance came in
    last_at: Time = None


PARTS: tuple[type[ImagingPart], ...] = (Instance, Image, Dose, Report, StudyComplete)
MEASURED: dict[str, tuple[str, ...]] = {"noise": ("modality",)}


def mapping() -> dict[str, Any]:
    """The strict mapping of the one index that holds every kind of part, and the entities."""
    return {"dynamic": "strict", "properties": dict(_PROPERTIES)}


_VECTOR = {"type": "dense_vector", "dims": DIMENSIONS, "index": True, "similarity": "cosine"}
_PROPERTIES = properties(PARTS, COMMON) | {"embedding": _VECTOR}
