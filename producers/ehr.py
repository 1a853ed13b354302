"""Health records at the edge: enough of an HL7 v2 message to know its sender, its patients, whether to take it."""

from __future__ import annotations

from datetime import datetime

from infra.errors import BadMessage
from producers.publish import Arrival
from schemas.peers import Peers
from schemas.record import Subject
from schemas.wire.hl7v2 import Message, control, refusal
from streams.ehr import hl7v2, person

DOMAIN = "ehr"
LONGEST_NAME = 64
CONTENT_TYPE = "x-application/hl7-v2+er7"


def arrival(raw: bytes, peers: Peers, received_at: datetime, refused: BadMessage | None = None) -> Arrival:
    """What the publisher needs to know of a message.

    Raises BadMessage for what stays with the sender (AR: not HL7 v2 that we process, or too large). What reads but
    cannot be accepted (AE), or what the feed has `refused` already, becomes a dead letter.
    """
    application, facility, control_id = sender(raw)
    peer = peers.of(application, facility)
    charset = peer.charset
    subjects: tuple[Subject, ...] = ()
    event_time: datetime | None = None
    try:
        message = Message.read(raw, charset)
        msh = message.header().value
        application, facility, control_id = msh(3) or msh(3, 2), msh(4) or msh(4, 2), msh(10)
        peer = peers.of(application, facility)
        header = control(message)
        subjects, _ = person.subjects(message, header, peer)
        event_time = hl7v2.check(message, header, peer)
    except BadMessage as bad:
        if refused is None and refusal(bad.reason)[0] == "AR":
            raise
        refused = refused or bad
    if refused is not None and refused.reason == "truncated_frame":
        control_id = ""  # the whole message will come under it
    return Arrival(
        domain=DOMAIN,
        source=f"hl7v2:{application[:LONGEST_NAME]}|{facility[:LONGEST_NAME]}",
        peer=peer.match,
        content_type=CONTENT_TYPE,
        charset=charset or "",
        ids=(application, facility, control_id) if control_id else (),
        body=raw,
        received_at=received_at,
        event_time=event_time,
        subjects=subjects,
        refused=refused,
    )


def sender(raw: bytes) -> tuple[str, str, str]:
    """MSH-3, MSH-4 and MSH-10 as far as they can be made out of bytes that nobody has decoded; empty otherwise."""
    line = raw.lstrip(b"\x0b\r\n\t ")[:4096].split(b"\r", 1)[0]
    if not line.startswith(b"MSH") or len(line) < 5:
        return "", "", ""
    fields = line.split(line[3:4], 11)
    component = line[4:5]

    def first(number: int) -> str:
        return fields[number - 1].split(component)[0].decode("ascii", "ignore") if len(fields) >= number else ""

    return first(3), first(4), first(10)
