"""Every place where anything is kept. A store that is not in this list does not exist: the contract tests walk it.

`kind` says how a test reads it to the last byte and through its own interface: topic, index, sqlite, files.
Paths are below the home folder.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.registry import DOMAINS, TOPICS


@dataclass(frozen=True, slots=True)
class Store:
    name: str
    kind: str
    holds: str


STORES = (
    *(Store(topic.name, "topic", f"{topic.schema}; key: {topic.key}") for topic in TOPICS),
    *(Store(domain.alias, "index", "documents: clinical in clear, identifying sealed") for domain in DOMAINS.values()),
    Store("keys/keystore.sqlite", "sqlite", "keyed hashes of identifiers, references, wrapped data keys"),
    Store("keys/keyring.json", "files", "root keys, mode 0600"),
    Store("seen.sqlite", "sqlite", "keyed hashes of answered messages and the reason codes of their answers"),
    Store("audit", "files", "who did and was shown what, by reference, in a signed chain"),
    Store("anchor", "files", "the audit's signed heads, and its public key; WARDSTREAM_ANCHOR puts it elsewhere"),
    Store("kafka", "files", "the embedded broker's own files"),
    Store("elasticsearch", "files", "the embedded node's own files"),
    Store("logs", "files", "logs of every process"),
    Store("supervisor", "files", "configuration of the supervised processes"),
    Store("faust", "files", "Faust's data folder: empty, since no table is used"),
    Store("stack.json", "files", "ports and process ids"),
)
