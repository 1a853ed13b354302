"""What each domain does on the stream: pure functions, one row a domain."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.derived import Derived
from schemas.document import Document
from schemas.envelope import Envelope
from schemas.peers import Peers
from schemas.record import Part, Record
from schemas.signal import Signal
from streams import allocation, ehr, imaging, quality
from streams.allocation import features as resources
from streams.ehr import features
from streams.fold import Change

# Of a target: clear documents of one event and patient (or bed, or machine), the history of that, when; None: it is not
# to be scored.
Features = Callable[[str, Sequence[Mapping[str, Any]], Mapping[str, Any], str], Mapping[str, float | str] | None]
# A published score, beside them.
Rules = Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any], str], Part | None]


@dataclass(frozen=True, slots=True)
class Stage:
    """The way of a record: bytes to record (raises BadMessage), to documents, to what it changes and makes known.

    `read` takes the words that are known to give the record's patients away, None where they are not known.
    `targets`: what is predicted of an event, of which `features`; the model of a target is `<domain>-<target>`.
    A domain that predicts nothing leaves these out.
    """

    read: Callable[[bytes, Envelope, Peers, Collection[str] | None], Record]
    document: Callable[[Record], list[Document]]
    analyse: Callable[[Record, Sequence[Document], str], list[Change]]
    derive: Callable[[Record], list[Signal | Derived]]
    targets: tuple[str, ...] = ()
    features: Features = lambda *_: None
    rules: Rules = lambda *_: None
    follows_sites: bool = False  # its entities make a site's board, which a worker keeps in memory
    follows_outcomes: bool = False  # its entities are cases, of which a worker keeps charts
    has_images: bool = False  # a worker looks at their pixels, and waits for the end of their studies


STAGES = {
    "ehr": Stage(
        ehr.read, ehr.document, ehr.analyse, ehr.derive, features.TARGETS, features.features, ehr.early_warning
    ),
    "allocation": Stage(
        allocation.read,
        allocation.document,
        allocation.analyse,
        allocation.derive,
        resources.TARGETS,
        resources.features,
        follows_sites=True,
    ),
    "quality": Stage(quality.read, quality.document, quality.analyse, quality.derive, follows_outcomes=True),
    "imaging": Stage(imaging.read, imaging.document, imaging.analyse, imaging.derive, has_images=True),
}
