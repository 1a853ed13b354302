"""The one envelope around every event of every domain: what stands in Kafka in clear, and what is sealed.

Nothing in it identifies anybody: ids are keyed hashes, times are the feed's. `wardstream topics` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta

from infra.crypto import SealedPayload, keyed_hash
from infra.errors import BadMessage

SCHEMA_VERSION = "1"
Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Envelope:
    """Headers of a message on `hospital.<domain>.v1`; the message's value is the sealed body.

    A dead letter carries the same headers, and those of `DeadLetter` beside them.
    """

    event_id: str  # 128 bits in hex: keyed hash of source, the source's own ids and the body's digest
    source: str  # feed and sender: hl7v2:<MSH-3>|<MSH-4>
    peer: str  # the peer profile it was read with
    content_type: str  # x-application/hl7-v2+er7
    charset: str  # codec the peer profile forces; empty: as the message says
    received_at: str  # RFC 3339, when the last byte came in
    event_time: str  # RFC 3339, the feed's own; empty where the edge could not read one
    trace_id: str  # 128 bits in hex, W3C trace-context's form: one for the whole way of an event
    subjects: tuple[str, ...]  # tokens of the patients, in the message's order; of the source's week where none
    key_versions: tuple[int, ...]  # version of each subject's data key
    flags: tuple[str, ...]  # control_id_reused
    content_key: bytes  # the content key, wrapped by all subjects' data keys together
    object: str = ""  # name of the object that the event is of, in the object store: a random word
    schema_version: str = SCHEMA_VERSION

    def headers(self) -> Headers:
        return [
            (name, value if isinstance(value, bytes) else _text(value).encode())
            for name in NAMES
            if (value := getattr(self, name)) is not None
        ]

    @classmethod
    def read(cls, headers: Iterable[tuple[str, bytes]]) -> Envelope:
        """Raises BadMessage("bad_envelope") where a header is missing or of another version."""
        found = dict(headers)
        try:
            found.setdefault("object", b"")  # events of before there were any
            texts = {name: found[name].decode() for name in NAMES if name != "content_key"}
            if texts["schema_version"] != SCHEMA_VERSION:
                raise BadMessage("bad_envelope", "schema_version")
            return cls(
                **{name: texts[name] for name in _SINGLE},
                subjects=_split(texts["subjects"]),
                key_versions=tuple(int(version) for version in _split(texts["key_versions"])),
                flags=_split(texts["flags"]),
                content_key=found["content_key"],
            )
        except (KeyError, ValueError) as error:
            raise BadMessage("bad_envelope", type(error).__name__) from None

    def sealed(self, body: bytes) -> SealedPayload:
        return SealedPayload(self.content_key, body)

    def received(self) -> datetime:
        return datetime.fromisoformat(self.received_at)


NAMES = tuple(field.name for field in fields(Envelope))
_SINGLE = tuple(name for name in NAMES if name not in ("subjects", "key_versions", "flags", "content_key"))


def event_id(key: bytes, source: str, ids: Iterable[str], body: bytes) -> str:
    """The id of an event: equal for an exact repeat, different for the same control id with another body."""
    return keyed_hash(key, source.encode(), *(part.encode() for part in ids), body)[:16].hex()


def document_id(event: str, part: int) -> str:
    """The `_id` of one part's document."""
    return f"{event}-{part}"


def rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def later(at: str, span: timedelta) -> str:
    """A time in that form, so much later."""
    try:
        return rfc3339(datetime.fromisoformat(at) + span)
    except OverflowError:  # 9999-12-31 stands for "never" in some systems
        return rfc3339(datetime.max.replace(tzinfo=UTC))


def _text(value: object) -> str:
    return ",".join(str(one) for one in value) if isinstance(value, tuple) else str(value)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
