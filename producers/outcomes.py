"""What became of published events: asked of the index and of the dead letters, as an outsider would ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice

from infra.elastic import client
from infra.errors import StackDown
from infra.kafka import Reader, headers
from schemas.dead_letter import DeadLetter
from schemas.envelope import document_id
from schemas.registry import Domain

POLL_SECONDS = 0.2
FEWEST, MOST = 250, 4000  # events asked for at once


@dataclass(frozen=True, slots=True)
class Outcome:
    """`name`: indexed, dead_lettered, duplicate or refused; `reason` is empty for the good ones."""

    name: str
    reason: str = ""
    where: str = ""


class Outcomes:
    """Of events of any of `domains`. Make it before publishing: it sees the dead letters that come after that."""

    def __init__(self, *domains: Domain) -> None:
        self._domains = domains
        self._letters = [Reader(domain.dead_letters.name, from_end=True) for domain in domains]
        self._index = client()

    def wait(
        self, event_ids: Collection[str], patience: float, on_progress: Callable[[int], None]
    ) -> dict[str, Outcome]:
        """The outcome of every event. Raises StackDown when `patience` seconds pass without a new one."""
        found: dict[str, Outcome] = {}
        waiting = dict.fromkeys(event_ids)
        last = time.monotonic()
        some = FEWEST
        while waiting:
            before = len(found)
            for message in (one for some in self._letters for one in some.poll(POLL_SECONDS / len(self._letters))):
                event_id = headers(message)["event_id"].decode()
                if event_id in waiting:
                    letter = DeadLetter.read(headers(message).items())
                    found[event_id] = Outcome("dead_lettered", letter.reason, letter.where)
            for event in found:
                waiting.pop(event, None)
            asked = self._indexed(list(islice(waiting, some)))
            for event, there in asked:
                del waiting[event]
                if there:
                    found[event] = Outcome("indexed")
                else:
                    waiting[event] = None  # asked again when all others were
            # More when most are there, fewer when few are: whoever waits must not be what the others wait for.
            some = min(2 * some, MOST) if 2 * sum(there for _, there in asked) > some else max(some // 2, FEWEST)
            on_progress(len(found) - before)
            if len(found) > before:
                last = time.monotonic()
            elif time.monotonic() - last > patience:
                raise StackDown(f"{len(waiting)} events have had no outcome for {patience:.0f} s: does a worker run?")
        return found

    def _indexed(self, event_ids: list[str]) -> list[tuple[str, bool]]:
        """Whether each event's first document can be found. The agent writes all of an event at once."""
        there: set[str] = set()
        for domain in self._domains:
            asked = [event for event in event_ids if event not in there]
            if asked:
                answer = self._index.mget(
                    index=domain.alias,
                    ids=[document_id(event, 0) for event in asked],
                    source=False,
                    realtime=False,  # else the log of writes is read, at ten times the price
                    filter_path="docs.found",
                )
                there |= {event for event, doc in zip(asked, answer["docs"], strict=True) if doc.get("found")}
        return [(event, event in there) for event in event_ids]

    def close(self) -> None:
        for letters in self._letters:
            letters.close()
        self._index.close()
