"""An image on the way: the object it lies in, and its header as it came. The body of a sealed event. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from infra.errors import BadMessage
from infra.objects import Claim

CONTENT_TYPE = "application/x-wardstream-dicom"
LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Arrived:
    """One SOP instance that is durable in the object store."""

    claim: Claim
    study: str  # keyed hashes of UIDs, made at the edge
    series: str
    instance: str
    syntax: str  # transfer syntax UID, as received
    header: bytes = field(repr=False)  # data set up to the pixels, in that syntax; of the deflated one as inflated
    left_out: tuple[str, ...] = ()  # tags (GGGGEEEE) of top-level elements that were too large for the header
    calling: str = ""  # AE titles
    called: str = ""
    flags: tuple[str, ...] = ()  # instance_conflict, pixel_length, no_patient_id


def said_of(claim: Claim) -> str:
    """A claim as it is sealed."""
    return orjson.dumps(_listed(claim)).decode()


def claim_of(said: str) -> Claim:
    """Raises BadMessage("bad_body")."""
    try:
        return _claim(orjson.loads(said))
    except (ValueError, TypeError):
        raise BadMessage("bad_body") from None


def _listed(claim: Claim) -> list[str | int]:
    return [claim.name, claim.key.hex(), claim.size, claim.digest]


def _claim(listed: list[Any]) -> Claim:
    name, key, size, digest = listed
    return Claim(str(name), bytes.fromhex(key), int(size), str(digest))


def pack(one: Arrived) -> bytes:
    claim = _listed(one.claim)
    said = [claim, one.study, one.series, one.instance, one.syntax, one.left_out, one.calling, one.called, one.flags]
    meta = orjson.dumps(said)
    return len(meta).to_bytes(LENGTH_BYTES) + meta + one.header


def unpack(body: bytes) -> Arrived:
    """Raises BadMessage("bad_body")."""
    end = LENGTH_BYTES + int.from_bytes(body[:LENGTH_BYTES])
    try:
        claim, study, series, instance, syntax, left_out, calling, called, flags = orjson.loads(body[LENGTH_BYTES:end])
        made = _claim(claim)
    except (ValueError, TypeError):
        raise BadMessage("bad_body") from None
    return Arrived(made, study, series, instance, syntax, body[end:], tuple(left_out), calling, called, tuple(flags))
