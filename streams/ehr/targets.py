"""What became of patients, as labels: one patient's events in order to rows for training. Pure.

An event is labelled only where its whole horizon had passed when the data ends, whatever its label: else those whose
outcome came early would be kept and the others lost, near the end of every data set.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from schemas.envelope import later
from streams.ehr import features as of
from streams.ehr.features import Document
from streams.fold import Merge, family_at
from streams.rows import Row

YES, NO = "yes", "no"
BANDS = ((3.0, "0-2"), (8.0, "3-7"), (float("inf"), "8+"))  # full days, below

# How long after an event its outcome is known.
HORIZON = {
    of.DEPARTMENT: timedelta(0),
    of.READMISSION: timedelta(days=30),
    of.STAY: timedelta(days=8),
    of.DETERIORATION: timedelta(hours=24),
}


@dataclass(frozen=True, slots=True)
class Happened:
    """One event of a patient: its clear documents, and keyed hashes that link it with a generator's truth."""

    event_id: str
    at: str  # RFC 3339 in UTC with milliseconds: text order is time order
    documents: Sequence[Document] = field(repr=False)
    blind: tuple[str, ...] = ()
    ref: str = ""  # whose it is, before any merge
    received: float = 0.0  # when it came in, seconds since 1970


def rows(target: str, patient: str, events: Iterable[Happened], until: str, merges: Sequence[Merge] = ()) -> list[Row]:
    """The labelled rows of one patient. `until`: where the data ends; what is later is not looked at.

    `merges` are those that joined the patient's references. An event knows, as on the stream, the histories that were
    joined by the time it came in; what became of the patient is told by all events.
    """
    told = sorted((one for one in events if one.at <= until), key=lambda one: (one.at, one.event_id))
    course = _course(told)
    last = later(until, -HORIZON[target])
    past = _Past(merges)
    stays: set[str] = set()  # a stay's length is asked for once, where it begins: later tellings know that it went on
    made: list[Row] = []
    for one in told:
        history = past.at(one)
        found = of.features(target, one.documents, history, one.at) if one.at <= last else None
        if found is not None and target == of.STAY:
            begun = next((d["admitted_at"] for d in one.documents if d.get("admitted_at")), one.at)
            found = None if begun in stays else found
            stays.add(begun)
        if found is not None and (label := _label(target, one, course)) is not None:
            made.append(Row(found, label, patient, one.at, one.blind))
        past.add(one)
    return made


class _Past:
    """Histories, brought forward event by event: one for each group of references that were joined at some event."""

    def __init__(self, merges: Sequence[Merge]) -> None:
        self._merges = merges
        self._seen: list[Happened] = []
        self._held: dict[frozenset[str], dict[str, Any]] = {}

    def at(self, event: Happened) -> dict[str, Any]:
        """What was known when the event came in."""
        family = frozenset(family_at(event.ref, self._merges, event.received))
        if family not in self._held:
            made = self._held[family] = dict[str, Any]()
            for one in self._seen:
                if one.ref in family:
                    of.remember(made, one.documents, one.at)
        return self._held[family]

    def add(self, event: Happened) -> None:
        self._seen.append(event)
        for family, history in self._held.items():
            if event.ref in family:
                of.remember(history, event.documents, event.at)


@dataclass(slots=True)
class _Course:
    """All of a patient's stays, transfers to intensive care and, where it came, death."""

    admissions: dict[str, str] = field(default_factory=dict)
    intensive: list[str] = field(default_factory=list)
    died: str = ""


def _course(told: Sequence[Happened]) -> _Course:
    course, history = _Course(), dict[str, Any]()
    was: bool | None = None  # None: it is not known where the patient lay before, in this stay
    for event in told:
        of.remember(history, event.documents, event.at)
        for one in event.documents:
            if one.get("kind") == "event" and not course.died and (one.get("died_at") or one.get("deceased")):
                course.died = one.get("died_at") or event.at
            if one.get("kind") == "visit" and one.get("message_type") in ("ADT", "Encounter"):
                if one.get("discharge_disposition") in of.GONE and not course.died:
                    course.died = one.get("discharged_at") or event.at
                if one.get("trigger") == "A03" or one.get("status") in of.FINISHED:
                    was = None
                elif unit := one.get("unit"):
                    lies = of.intensive(unit)
                    if lies and (was is False or (was is None and one.get("trigger") == "A02")):  # not admitted there
                        course.intensive.append(event.at)
                    was = lies
    course.admissions = of.stays(history)
    return course


def _label(target: str, event: Happened, course: _Course) -> str | None:
    visit = next((one for one in event.documents if one.get("kind") == "visit"), {})
    match target:
        case of.DEPARTMENT:
            return visit.get("hospital_service") or visit.get("unit") or None
        case of.STAY:
            begun = visit.get("admitted_at") or event.at
            if begun not in course.admissions:  # cancelled
                return None
            ended = course.admissions[begun]
            days = (_time(ended) - _time(begun)) / timedelta(days=1) if ended else float("inf")
            return next(name for below, name in BANDS if int(days) < below) if ended else BANDS[-1][1]
        case of.READMISSION:
            ended = visit.get("discharged_at") or event.at
            if ended not in course.admissions.values():  # cancelled, or told again
                return None
            within = later(ended, HORIZON[target])
            again = next((one for one in course.admissions if ended <= one <= within), "")
            if course.died and course.died <= within and not again:
                return None
            return YES if again else NO
        case of.DETERIORATION:
            if course.died and course.died <= event.at:
                return None
            within = later(event.at, HORIZON[target])
            place = bisect_right(course.intensive, event.at)
            moved = place < len(course.intensive) and course.intensive[place] <= within
            return YES if moved or (course.died and course.died <= within) else NO
    raise ValueError(f"there is no target {target!r}")


def _time(said: str) -> datetime:
    return datetime.fromisoformat(said)
