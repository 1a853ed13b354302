"""Every place where anything is kept. A store that is not in this list does not exist: the contract tests walk it.

`kind` says how a test reads it to the last byte and through its own interface: topic, index, sqlite, files, metrics.
Paths are below the home folder. `erased` says what an erasure does to it; it stands in every proof.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas import outcome_charts, similar, sites
from schemas.registry import DOMAINS, TOPICS


@dataclass(frozen=True, slots=True)
class Store:
    name: str
    kind: str
    holds: str
    erased: str


CLOSED = "sealed under the person's keys: closed with them"
NOBODY = "holds nothing of persons"

STORES = (
    *(
        Store(
            topic.name,
            "topic",
            f"{topic.schema}; key: {topic.key}",
            f"{CLOSED}; a tombstone for each record" if topic.cleanup == "compact" else CLOSED,
        )
        for topic in TOPICS
    ),
    *(
        Store(
            domain.alias,
            "index",
            "documents: clinical in clear, identifying sealed",
            "documents deleted, and gone from the segments",
        )
        for domain in DOMAINS.values()
    ),
    Store(
        similar.ALIAS,
        "index",
        "a profile a patient: reference, counts of terms of its documents' clear text and codes, a vector of them",
        "documents deleted, and gone from the segments",
    ),
    Store(
        sites.ALIAS,
        "index",
        "of each site the plan that is proposed, the one accepted, alerts that are raised; persons by reference",
        "documents deleted, and gone from the segments",
    ),
    Store(
        outcome_charts.ALIAS,
        "index",
        "of each unit and procedure the charts of its outcomes; whose drove a signal by keyed hash and reference",
        "documents deleted, and gone from the segments",
    ),
    Store(
        "keys/keystore.sqlite",
        "sqlite",
        "keyed hashes of identifiers, references, wrapped data keys; accounts, hashes of passwords and sessions, failed"
        " logins; consents, holds and emergencies by reference, reasons sealed",
        "keys destroyed and overwritten; references and keyed hashes stay, marked, so that nothing old comes back",
    ),
    Store(
        "objects",
        "files",
        "images as they came and previews of them, each under a random name and a key of its own; WARDSTREAM_OBJECTS"
        " puts them elsewhere",
        "removed; the keys of copies are sealed under the person's keys: closed with them",
    ),
    Store(
        "instances.sqlite",
        "sqlite",
        "keyed hashes of images' UIDs and contents, names of their objects: what was received, what is promised",
        "keyed hashes of images, so that a promise to keep one is not given for what is gone",
    ),
    Store("session", "files", "token of the session that is logged in on this home, mode 0600", NOBODY),
    Store("keys/keyring.json", "files", "root keys, mode 0600", NOBODY),
    Store(
        "seen.sqlite",
        "sqlite",
        "keyed hashes of answered messages and the reason codes of their answers",
        "keyed hashes of messages, for a week",
    ),
    Store(
        "audit",
        "files",
        "who did and was shown what, by reference, in a signed chain",
        "kept: who looked stays told, by reference",
    ),
    Store("anchor", "files", "signed heads of the audit, its public key; WARDSTREAM_ANCHOR puts it elsewhere", NOBODY),
    Store("ledger", "files", "erasures: references and keyed hashes", "tells of the erasure, by reference"),
    Store("proofs", "files", "signed proofs of erasures", "tells of the erasure, by reference"),
    Store(
        "models",
        "files",
        "trained models, signed: weights, trees, terms of at least 5 patients, figures and counts; no row of anybody",
        "stays: what many have taught it, nothing of one person; the next training is without the person",
    ),
    Store("cache", "files", "compiled code of the planner, by its version", NOBODY),
    Store("kafka", "files", "the embedded broker's own files", CLOSED),
    Store("elasticsearch", "files", "the embedded node's own files", "as its indices"),
    Store("logs", "files", "logs of every process", NOBODY),
    Store("supervisor", "files", "configuration of the supervised processes", NOBODY),
    Store("faust", "files", "Faust's data folder: empty, since no table is used", NOBODY),
    Store("stack.json", "files", "ports and process ids", NOBODY),
    Store("metrics", "metrics", "counts and times of every process, in its memory", NOBODY),
)
