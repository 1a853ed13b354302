"""What each domain does on the stream: pure functions, one row a domain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from schemas.document import Document
from schemas.envelope import Envelope
from schemas.peers import Peers
from schemas.record import Record
from schemas.signal import Signal
from streams import ehr
from streams.fold import Change


@dataclass(frozen=True, slots=True)
class Stage:
    """The way of a record: bytes to record (raises BadMessage), to documents, to what it changes and makes known."""

    read: Callable[[bytes, Envelope, Peers], Record]
    document: Callable[[Record], list[Document]]
    analyse: Callable[[Record], list[Change]]
    derive: Callable[[Record], list[Signal]]


STAGES = {"ehr": Stage(ehr.read, ehr.document, ehr.analyse, ehr.derive)}
