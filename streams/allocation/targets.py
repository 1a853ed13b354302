"""What a bed or a piece of equipment was one hour after an event: rows for training. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from schemas.envelope import later
from streams.allocation import features as of
from streams.ehr.targets import Happened
from streams.fold import HELD
from streams.rows import Row

HORIZON = timedelta(hours=1)


def rows(thing: str, events: Iterable[Happened], until: str) -> list[Row]:
    """The labelled rows of one thing: of each event that tells its status, which status is in force an hour later.

    An event less than an hour before the data ends has no label yet, whatever comes. Nor has one after which the thing
    is no longer there.
    """
    told = sorted((one for one in events if one.at <= until), key=lambda one: (one.at, one.event_id))
    last = later(until, -HORIZON)
    course: dict[str, Any] = {}
    for one in told:
        of.remember(course, one.documents, one.at)
    times = sorted(course.get(of.STATUSES, {}))
    history: dict[str, Any] = {}
    made: list[Row] = []
    place = 0
    for one in told:
        found = of.features(of.STATUS, one.documents, history, one.at) if one.at <= last else None
        if found is not None:
            then = later(one.at, HORIZON)
            while place + 1 < len(times) and times[place + 1] <= then:
                place += 1
            if label := course[of.STATUSES][times[place]]:
                made.append(Row(found, label, thing, one.at))
        of.remember(history, one.documents, one.at)
        if len(known := history.get(of.STATUSES, {})) > HELD:  # as the fold has it
            del known[min(known)]
    return made
