"""Medical images on the stream: `read` makes a record of a header, `document` its documents, `analyse` tells what
studies and series become by it, `derive` what somebody should hear of. Pure; pixels are looked at beside the worker
(streams/pixels.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from schemas import derived
from schemas.derived import Derived
from schemas.document import Document, documents
from schemas.envelope import Envelope, rfc3339
from schemas.imaging import Instance, StudyComplete
from schemas.peers import Peers
from schemas.record import Record
from schemas.signal import Signal
from schemas.wire import dicom, dicom_header
from streams.ehr import notes
from streams.fold import Change
from streams.imaging import complete, record

COMPLETE = "study_complete"
STUDY = ("study", "study_description", "facility", "body_part", "study_at", "procedure", "requested_procedure")
SERIES = (
    ("study", "series", "series_description", "series_number", "modality", "body_part", "protocol_name", "laterality")
    + ("manufacturer", "device_model", "facility")
)  # fmt: skip
WHOLE = ("study", "series_count", "instance_count", "study_bytes", "modalities", "first_at", "last_at")


def read(body: bytes, envelope: Envelope, peers: Peers, known: Collection[str] | None) -> Record:
    """Raises BadMessage. A header names its patient, so nobody's words need be `known`."""
    if envelope.content_type == derived.CONTENT_TYPE:
        return complete.read(body, envelope)
    from schemas.wire.dicom_elements import dataset  # pydicom: a third of a second that commands are spared

    arrived = dicom.unpack(body)
    ds = dataset(arrived.header, arrived.syntax)
    peer = peers.of(arrived.calling, dicom_header.text(ds, "InstitutionName"))
    return record.read(arrived, ds, peer, envelope.received())


def document(record: Record) -> list[Document]:
    """One document a part; of a report's text with what it affirms, denies and doubts."""
    made = documents(record)
    for one in made:
        notes.tell(one)
    return made


def analyse(record: Record, made: Sequence[Document], at: str) -> list[Change]:
    """What a study and a series are by now: of all that was received, the last holds, whenever it was acquired."""
    changes: list[Change] = []
    told = rfc3339(record.told_at) if record.told_at else ""
    for part, one in zip(record.parts, made, strict=True):
        if isinstance(part, Instance):
            sealed: dict[str, str | None] = {
                name: said for name in ("study_uid", "accession_number") if (said := getattr(part, name))
            }
            changes.append(
                Change("study", part.study, 0, _said(one.clear, STUDY) | {"state": "receiving"}, sealed, at=told)
            )
            clear = _said(one.clear, SERIES)
            changes.append(Change("series", part.series, 0, clear, {"series_uid": part.series_uid}, at=told))
        elif isinstance(part, StudyComplete):
            changes.append(Change("study", part.study, 0, _said(one.clear, WHOLE) | {"state": "complete"}, at=told))
    return changes


def derive(record: Record) -> list[Signal | Derived]:
    return [
        Signal(COMPLETE, part.subject, place, {"study": part.study, "instances": str(part.instance_count or 0)})
        for place, part in enumerate(record.parts)
        if isinstance(part, StudyComplete)
    ]


def _said(clear: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: clear[name] for name in names if name in clear}
