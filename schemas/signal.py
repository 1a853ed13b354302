"""A signal: something on `hospital.signals.v1` that a person should hear of.

Kafka headers say what it is and of whom, by token; the value is what it says, sealed under the patient's key as every
other copy is, so that an erasure closes it. A signal about nobody (an alert of operation) has no subject, and its
value is JSON in clear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from infra.crypto import DataKey, SealedPayload, open_payload, seal_payload
from infra.errors import BadMessage

Headers = list[tuple[str, bytes]]
NAMES = ("signal", "domain", "event_id", "document", "event_time", "subject", "key_version", "content_key")
ERASED_PERSON = "event_of_erased_person"  # it happened before the erasure and came after it: dropped


@dataclass(frozen=True, slots=True)
class Signal:
    """Derived from a record, which knows neither ids nor keys yet."""

    name: str  # critical_result
    subject: int | None  # position of the patient in the record
    part: int  # position of the part it speaks of: with the event id, the document
    detail: dict[str, str]


@dataclass(frozen=True, slots=True)
class SignalEnvelope:
    """Headers of a message on the signals' topic. `subject` and what follows are empty where it is about nobody."""

    signal: str
    domain: str
    event_id: str
    document: str
    event_time: str  # RFC 3339
    subject: str = ""  # token of the patient
    key_version: int = 0
    content_key: bytes = b""

    @classmethod
    def read(cls, headers: Iterable[tuple[str, bytes]]) -> SignalEnvelope:
        """Raises BadMessage("bad_envelope")."""
        found = dict(headers)
        try:
            texts = {name: found[name].decode() for name in NAMES[:6]}
            return cls(**texts, key_version=int(found["key_version"]), content_key=found["content_key"])
        except (KeyError, ValueError) as error:
            raise BadMessage("bad_envelope", type(error).__name__) from None

    def opened(self, keys: Sequence[DataKey], value: bytes) -> dict[str, Any]:
        """What it says. Raises SealBroken."""
        if self.subject:
            value = open_payload(keys, f"signal {self.document}", SealedPayload(self.content_key, value))
        said: dict[str, Any] = orjson.loads(value)
        return said


def message(
    signal: str,
    domain: str,
    event_id: str,
    document: str,
    event_time: str,
    said: Mapping[str, Any],
    key: DataKey | None,
) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers of a message. With a `key` it is about that person."""
    value, content, subject, version = orjson.dumps(dict(said)), b"", "", 0
    if key is not None:
        sealed = seal_payload([key], f"signal {document}", value)
        value, content, subject, version = sealed.body, sealed.wrapped_key, key.token, key.version
    texts = (signal, domain, event_id, document, event_time, subject, str(version))
    headers = [*((name, text.encode()) for name, text in zip(NAMES, texts, strict=False)), ("content_key", content)]
    return (subject or domain).encode(), value, headers
