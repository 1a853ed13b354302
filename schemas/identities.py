"""Who of ours may do what in Kafka: service identities and their least rights, set by `wardstream setup --acls`.

To read or write a topic implies to describe it (Kafka's own rule), and so is not said again. What no row permits is
refused: a broker needs `allow.everyone.if.no.acl.found=false`, its default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.registry import DOMAINS
from schemas.topics import PREFIX, SIGNALS


@dataclass(frozen=True, slots=True)
class Right:
    """In Kafka's words: an operation on a resource, which is TOPIC, GROUP, or BROKER for the whole cluster."""

    operation: str
    resource: str
    name: str
    pattern: str = "LITERAL"  # PREFIXED: every resource whose name begins so


CLUSTER = "kafka-cluster"  # the one name that the cluster has as a resource


def identities(group: str) -> dict[str, tuple[Right, ...]]:
    """Rights by identity; `group` is the workers' consumer group, and begins the name of the readers'."""
    return {
        "edge": tuple(_edge()),
        "worker": (Right("READ", "GROUP", group), *_worker()),
        "reader": (Right("DESCRIBE", "GROUP", group, "PREFIXED"), *_reader()),
        "admin": (
            Right("ALL", "TOPIC", PREFIX, "PREFIXED"),
            Right("ALL", "GROUP", group, "PREFIXED"),
            Right("ALTER", "BROKER", CLUSTER),  # whoever sets rights could give itself any
        ),
    }


def principal(identity: str) -> str:
    """As the broker knows whoever logs in as wardstream-..."""
    return f"User:wardstream-{identity}"


def _edge() -> Iterator[Right]:
    """A listener: it publishes, and reads nothing back."""
    yield Right("WRITE", "TOPIC", SIGNALS.name)
    for domain in DOMAINS.values():
        yield Right("WRITE", "TOPIC", domain.raw.name)
        yield Right("WRITE", "TOPIC", domain.dead_letters.name)


def _worker() -> Iterator[Right]:
    yield Right("WRITE", "TOPIC", SIGNALS.name)
    yield Right("WRITE", "TOPIC", DOMAINS["allocation"].raw.name)  # what follows from records
    for domain in DOMAINS.values():
        yield Right("READ", "TOPIC", domain.raw.name)
        yield Right("WRITE", "TOPIC", domain.dead_letters.name)
        yield Right("WRITE", "TOPIC", domain.sealed.name)


def _reader() -> Iterator[Right]:
    """Commands that look, and replay an index; an emergency access of theirs raises a signal."""
    yield Right("WRITE", "TOPIC", SIGNALS.name)
    for domain in DOMAINS.values():
        yield Right("DESCRIBE", "TOPIC", domain.raw.name)
        yield Right("READ", "TOPIC", domain.dead_letters.name)
        yield Right("READ", "TOPIC", domain.sealed.name)
