"""The event that a study is whole: nothing of it has come for the quiet period. Pure.

DICOM has no end of a study (PS3.4 B.2): whoever waits for one waits for silence. Another instance makes it incomplete
again, and whole again later, with another count and so another id.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from infra.errors import BadMessage
from schemas.envelope import Envelope, rfc3339
from schemas.imaging import StudyComplete
from schemas.record import Record, Subject

SOURCE = "dicom"


def body(whole: StudyComplete) -> bytes:
    """As it is sealed."""
    said: dict[str, Any] = {
        name: rfc3339(value) if isinstance(value, datetime) else value for name, _, value in whole.fields()
    }
    return orjson.dumps(said)


def read(said: bytes, envelope: Envelope) -> Record:
    """Known by the seal, and not by a number. Raises BadMessage."""
    try:
        part = StudyComplete.model_validate(orjson.loads(said) | {"subject": 0})
    except (ValueError, TypeError):
        raise BadMessage("bad_body") from None
    return Record(
        subjects=(Subject(identifiers=()),), parts=(part,), event_time=part.last_at, told_at=envelope.received()
    )
