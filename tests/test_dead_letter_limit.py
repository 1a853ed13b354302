"""What counts towards the limit at which a worker stays down: refusals, but not of what we derived ourselves."""

from __future__ import annotations

import pytest

from infra.errors import BadMessage
from schemas import derived
from streams.process import Batch, Incoming, letter


@pytest.mark.parametrize(("content_type", "counted"), [("x-application/hl7-v2+er7", 3), (derived.CONTENT_TYPE, 0)])
def test_what_counts(content_type: str, counted: int) -> None:
    headers = [("content_type", content_type.encode())]
    some = [Incoming("hospital.ehr.v1", 0, offset, None, b"", headers) for offset in range(3)]
    batch = Batch(letters=[(one, letter(one, BadMessage("unknown_field"))) for one in some])
    assert batch.refusals() == [True] * counted
