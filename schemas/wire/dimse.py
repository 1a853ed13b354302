"""The messages of DICOM's network as a node that takes images in speaks them (PS3.7, PS3.8). Pure: bytes in, bytes out.

Our own, since pynetdicom holds a protocol data unit whole, looks for the next one a thousand times a second and shares
one interpreter's lock among all its threads: bound to a handler that does nothing it took 260 images of 512 x 512 a
second from one association and 277 from eight, Orthanc took 433 from eight and kept them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from infra.errors import BadMessage

# Protocol data units (PS3.8 9.3).
ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
HEAD = struct.Struct(">BxI")
FRAGMENT = struct.Struct(">IBB")  # length, context, message control header (PS3.8 9.3.5.1, E.2)
COMMAND, LAST = 1, 2
CONTEXT_NAME = "1.2.840.10008.3.1.1.1"
MOST_PDU = 1 << 17  # what we ask for; DCMTK's most. Fragments are not held, so a longer one does no harm
MOST_REQUEST = 1 << 20  # of an A-ASSOCIATE-RQ: 128 contexts of a hundred syntaxes each
MOST_COMMAND = 1 << 16

# Transfer syntaxes, and abstract syntaxes that are no image's.
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"

# Command fields (PS3.7 E.1); an answer has the highest bit set.
C_STORE, C_ECHO, C_CANCEL, N_EVENT_REPORT, N_ACTION = 0x0001, 0x0030, 0x0FFF, 0x0100, 0x0130
ANSWER = 0x8000
NO_DATA = 0x0101

# Command elements (0000,eeee).
AFFECTED_CLASS, REQUESTED_CLASS, FIELD, MESSAGE, ANSWERED, DATA, STATUS = 0x2, 0x3, 0x100, 0x110, 0x120, 0x800, 0x900
COMMENT, AFFECTED_INSTANCE, REQUESTED_INSTANCE, EVENT_TYPE, ACTION_TYPE = 0x902, 0x1000, 0x1001, 0x1002, 0x1008

SUCCESS: Final = 0x0000
PIXEL_LENGTH: Final = 0xB007  # warning: the data set does not match the SOP class, and is stored (PS3.4 B.2.3)
OUT_OF_RESOURCES: Final = 0xA7FF
CANNOT_UNDERSTAND: Final = 0xC000
UNRECOGNISED: Final = 0x0211
NO_SUCH_ACTION: Final = 0x0123
NO_SUCH_INSTANCE: Final = 0x0112
INVALID_ARGUMENT: Final = 0x0115
# A refused instance stays with its sender. PS3.4 B.2.3, PS3.7 C: A7xx it may come again as it is, A9xx it is not what
# was announced, Cxxx it cannot be understood; what is not here is a fault of ours.
REFUSALS: Final[Mapping[str, int]] = {
    "overloaded": 0xA700,
    "broker_unavailable": 0xA701,
    "key_store_busy": 0xA702,
    "stack_down": 0xA703,
    "audit_unavailable": 0xA704,
    "out_of_storage": 0xA705,
    "other_class": 0xA900,
    "other_instance": 0xA901,
    "missing_uid": 0xC001,
    "truncated": 0xC002,
    "too_deep": 0xC003,
    "bad_sequence": 0xC004,
    "inflates_too_much": 0xC005,
    "too_many_elements": 0xC006,
    "bad_deflate": 0xC007,
    "bad_header": 0xC008,
    "bad_length": 0xC009,
    "bad_fragment": 0xC00A,
    "empty": 0xC00B,
    "erased": 0xC0E0,
    "duplicate_instance": 0x0111,
    "bad_uid": 0x0117,
    "class_not_supported": 0x0122,
    "not_authorised": 0x0124,
    "internal_error": 0x0110,
}
# Why an association is refused: result, source, reason (PS3.8 9.3.4).
REJECTIONS: Final[Mapping[str, tuple[int, int, int]]] = {
    "application_context": (1, 1, 2),
    "calling_ae": (1, 1, 3),
    "called_ae": (1, 1, 7),
    "protocol_version": (1, 2, 2),
    "congestion": (2, 3, 1),
}
ACCEPTED, NO_REASON, NO_ABSTRACT_SYNTAX, NO_TRANSFER_SYNTAX = 0, 2, 3, 4  # of a context (PS3.8 9.3.3.2)


def refusal(reason: str, ours: bool = False) -> int:
    """The status of a reason. What the table does not know is ours, and it may come again, or cannot be understood."""
    return REFUSALS.get(reason, OUT_OF_RESOURCES if ours else CANNOT_UNDERSTAND)


# -------------------------------------------------------------------------------------------------------- associations


@dataclass(frozen=True, slots=True)
class Context:
    """A presentation context as proposed."""

    number: int
    abstract: str
    syntaxes: tuple[str, ...]  # as the proposer prefers them


@dataclass(frozen=True, slots=True)
class Request:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2)."""

    called: str
    calling: str
    version: int
    application: str
    contexts: tuple[Context, ...]
    most_pdu: int  # that the peer takes; 0: as long as we like
    titles: bytes  # as they were sent, for the answer


def request(body: bytes) -> Request:
    """Raises BadMessage("bad_request")."""
    if len(body) < 68:
        raise BadMessage("bad_request")
    application, most_pdu = "", 0
    contexts: dict[int, Context] = {}
    for kind, value in _items(body[68:]):
        if kind == 0x10:
            application = _uid(value)
        elif kind == 0x20 and len(value) >= 4:
            parts = list(_items(value[4:]))
            abstract = next((_uid(said) for part, said in parts if part == 0x30), "")
            syntaxes = tuple(_uid(said) for part, said in parts if part == 0x40)
            contexts.setdefault(value[0], Context(value[0], abstract, syntaxes))
        elif kind == 0x50:
            for part, said in _items(value):
                if part == 0x51 and len(said) == 4:
                    most_pdu = int.from_bytes(said)
    return Request(
        called=_title(body[4:20]),
        calling=_title(body[20:36]),
        version=int.from_bytes(body[:2]),
        application=application,
        contexts=tuple(contexts.values()),
        most_pdu=most_pdu,
        titles=bytes(body[4:68]),
    )


def accept(asked: Request, answers: Sequence[tuple[int, int, str]], implementation: str, version: str) -> bytes:
    """An A-ASSOCIATE-AC. An answer is a context's number, its result, and the transfer syntax that it will have."""
    items = _item(0x10, CONTEXT_NAME.encode())
    for number, result, syntax in answers:
        items += _item(0x21, bytes([number, 0, result, 0]) + _item(0x40, syntax.encode()))
    said = _item(0x51, MOST_PDU.to_bytes(4)) + _item(0x52, implementation.encode()) + _item(0x55, version.encode())
    return pdu(ASSOCIATE_AC, b"\0\1\0\0" + asked.titles + items + _item(0x50, said))


def reject(reason: str) -> bytes:
    return pdu(ASSOCIATE_RJ, bytes([0, *REJECTIONS[reason]]))


def abort(reason: int = 0) -> bytes:
    """By the provider (PS3.8 9.3.8): 0 not specified, 1 unrecognised, 2 unexpected, 6 invalid."""
    return pdu(ABORT, bytes([0, 0, 2, reason]))


def pdu(kind: int, body: bytes) -> bytes:
    return HEAD.pack(kind, len(body)) + body


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if len(data) < at + 4:
            raise BadMessage("bad_request")
        end = at + 4 + int.from_bytes(data[at + 2 : at + 4])
        if end > len(data):
            raise BadMessage("bad_request")
        yield data[at], data[at + 4 : end]
        at = end


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _title(raw: bytes) -> str:
    """An AE title without its padding; what is not printed ASCII cannot be on any list."""
    return raw.decode("ascii", "replace").strip(" \0")


def _uid(raw: bytes) -> str:
    return raw.decode("ascii", "replace").strip(" \0")


# ------------------------------------------------------------------------------------------------------------ commands


@dataclass(frozen=True, slots=True)
class Command:
    """A command set (PS3.7 6.3): always implicit VR, little endian."""

    elements: Mapping[int, bytes]

    @property
    def field(self) -> int:
        return self.number(FIELD)

    @property
    def message(self) -> int:
        return self.number(MESSAGE)

    @property
    def has_data(self) -> bool:
        return self.number(DATA, NO_DATA) != NO_DATA

    @property
    def sop_class(self) -> str:
        return self.text(AFFECTED_CLASS) or self.text(REQUESTED_CLASS)

    @property
    def sop_instance(self) -> str:
        return self.text(AFFECTED_INSTANCE) or self.text(REQUESTED_INSTANCE)

    def number(self, element: int, default: int = 0) -> int:
        return int.from_bytes(self.elements[element][:2], "little") if self.elements.get(element) else default

    def text(self, element: int) -> str:
        return _uid(self.elements.get(element, b""))


def command(data: bytes) -> Command:
    """Raises BadMessage("bad_command")."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if len(data) < at + 8:
            raise BadMessage("bad_command")
        group, element, size = struct.unpack_from("<HHI", data, at)
        end = at + 8 + size
        if group or end > len(data):
            raise BadMessage("bad_command")
        found[element] = data[at + 8 : end]
        at = end
    if FIELD not in found:
        raise BadMessage("bad_command")
    return Command(found)


def encode(elements: Mapping[int, int | str]) -> bytes:
    """A command set; its length first (0000,0000). Numbers are US, texts are padded to an even length."""
    made = b""
    for element, value in sorted(elements.items()):
        if isinstance(value, int):
            raw = value.to_bytes(2, "little")
        else:
            raw = value.encode("ascii", "replace")
            raw += (b"\0" if element != COMMENT else b" ") * (len(raw) % 2)
        made += struct.pack("<HHI", 0, element, len(raw)) + raw
    return struct.pack("<HHII", 0, 0, 4, len(made)) + made


def answer(to: Command, status: int, comment: str = "") -> bytes:
    """The answer to a request, with its class and instance; `comment` (0000,0902) is a word of ours."""
    said: dict[int, int | str] = {FIELD: to.field | ANSWER, ANSWERED: to.message, DATA: NO_DATA, STATUS: status}
    if to.sop_class:
        said[AFFECTED_CLASS] = to.sop_class[:64]
    if to.sop_instance:
        said[AFFECTED_INSTANCE] = to.sop_instance[:64]
    if to.field == N_ACTION:
        said[ACTION_TYPE] = to.number(ACTION_TYPE)
    if comment:
        said[COMMENT] = comment[:64]
    return encode(said)


def event_report(message: int, event: int) -> bytes:
    """The command of an N-EVENT-REPORT-RQ of storage commitment (PS3.4 J.3.3)."""
    said: dict[int, int | str] = {
        AFFECTED_CLASS: COMMITMENT,
        FIELD: N_EVENT_REPORT,
        MESSAGE: message,
        DATA: 1,
        AFFECTED_INSTANCE: COMMITMENT_INSTANCE,
        EVENT_TYPE: event,
    }
    return encode(said)


def fragments(context: int, payload: bytes, kind: int, most_pdu: int) -> Iterator[bytes]:
    """P-DATA-TF units of one command or data set; `kind` is COMMAND or 0."""
    room = (min(most_pdu, MOST_PDU) if most_pdu else MOST_PDU) - FRAGMENT.size
    if room < 1:
        raise BadMessage("bad_request")
    for at in range(0, max(1, len(payload)), room):
        piece = payload[at : at + room]
        last = LAST if at + room >= len(payload) else 0
        yield pdu(P_DATA, FRAGMENT.pack(len(piece) + 2, context, kind | last) + piece)
