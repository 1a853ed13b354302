"""Every topic there is: made from this table and from nothing else; printed by `wardstream topics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "hospital."
DAY = 24 * 3600 * 1000
MAX_MESSAGE_BYTES = 12_000_000  # 10 MB of message, its seal and its headers


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    key: str  # what the message key is
    order: str  # whose order a partition keeps
    schema: str
    partitions: int = 6
    retention_ms: int = 7 * DAY  # -1: for ever
    cleanup: str = "delete"  # compact: until a tombstone; `wardstream retention apply` writes those of expired events

    def config(self) -> dict[str, str]:
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(MAX_MESSAGE_BYTES),
        }


KEYS = {"patient": "token of the first patient, else the source", "site": "token of the site"}


def raw(domain: str, order: str) -> Topic:
    """Events as they came, sealed."""
    return Topic(f"{PREFIX}{domain}.v1", KEYS[order], order, "Envelope + body")


def dead_letters(domain: str) -> Topic:
    return Topic(
        f"{PREFIX}{domain}.dlq.v1",
        "event id",
        "none",
        "Envelope + DeadLetter + body",
        partitions=3,
        retention_ms=90 * DAY,
    )


def sealed(domain: str, order: str) -> Topic:
    """Events that were read and indexed, kept: replay and re-index start here. One tombstone removes one event."""
    return Topic(
        f"{PREFIX}{domain}.sealed.v1", "event id", order, "Envelope + body", retention_ms=-1, cleanup="compact"
    )


SIGNALS = Topic(f"{PREFIX}signals.v1", "token of the patient", "patient", "Signal, JSON", retention_ms=30 * DAY)


def topics(domains: Mapping[str, str]) -> list[Topic]:
    """Of domains, each with whose order it keeps."""
    return [
        topic
        for domain, order in domains.items()
        for topic in (raw(domain, order), dead_letters(domain), sealed(domain, order))
    ] + [SIGNALS]
