"""Predictions on the stream: which models an event is to be scored by, and a process beside the worker that scores.

A version serves for the events that were received while it was promoted, so that an event read again, or an index made
anew, gets the score that it had. The one in shadow is scored too, flagged. A score is made of what is durable anyway:
if scoring fails, that is counted and told, and the event goes its way without.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infra import metrics
from infra.elastic import Write
from infra.errors import ModelAltered, UsageError, WardstreamError
from schemas.ehr import Score
from streams.beside import Beside, BesideFailed
from streams.fold import Entity, history_of
from streams.models import Card, Models, bin_of, drift
from streams.process import Processor, Ready
from streams.rows import YES

log = logging.getLogger(__name__)
PATIENCE_SECONDS = 30.0  # for a batch: the first waits for the process to start and to read its models
WATCHED = 2000  # of each model: last scores that drift is measured on
WATCHED_AT_LEAST = 200
Read = Callable[[Collection[str]], Awaitable[Mapping[str, tuple[Entity, Any]]]]
Request = tuple[str, str, list[Mapping[str, float | str]], Mapping[str, float]]  # name, version, rows, typical values
Reply = list[tuple[str, dict[str, float], tuple[tuple[str, float], ...]]] | str  # or the reason of a refusal


class Serving:
    """Which versions of these models serve at which time: the store's, read again whenever a folder of it changes."""

    def __init__(self, models: Models, names: Collection[str]) -> None:
        self._models, self.names = models, names
        self._seen: object = None
        self._steps: dict[str, list[tuple[datetime, str | None]]] = {}
        self._trained: dict[str, list[tuple[datetime, Card]]] = {}
        self._cards: dict[tuple[str, str], Card | None] = {}

    def refresh(self) -> None:
        if (now := self._models.changed()) == self._seen:
            return
        self._seen = now
        for name in self.names:
            try:
                steps = self._models.history(name)
            except ModelAltered as error:
                log.error("no scores by %s: %s", name, error.reason)
                self._steps[name], self._trained[name] = [], []
                continue
            self._steps[name] = [(datetime.fromisoformat(one.at), one.version) for one in steps]
            cards = (self._card(name, version) for version in self._models.versions(name))
            self._trained[name] = [(datetime.fromisoformat(one.trained_at), one) for one in cards if one is not None]

    def _card(self, name: str, version: str) -> Card | None:
        if (name, version) not in self._cards:
            try:
                self._cards[name, version] = self._models.card(name, version)
            except (ModelAltered, UsageError) as error:
                log.error("no scores by %s/%s: %s", name, version, error.reason)
                self._cards[name, version] = None
        return self._cards[name, version]

    def first(self, name: str) -> datetime | None:
        """When a version was promoted for the first time."""
        return next((at for at, version in self._steps.get(name, ()) if version is not None), None)

    def at(self, name: str, when: datetime) -> list[tuple[Card, bool]]:
        """The card of the version that was promoted then, and of the one in shadow (True), where there were any."""
        ever = [version for at, version in self._steps.get(name, ()) if at <= when]
        trained = [card for at, card in self._trained.get(name, ()) if at <= when]
        made = [(card, False) for card in trained if ever and card.version == ever[-1]]
        if trained and trained[-1].version not in ever:
            made.append((trained[-1], True))
        return made


@dataclass(slots=True)
class _Wanted:
    event: Ready
    subject: int | None
    number: int
    target: str
    shadow: bool


class Scorer:
    """Scores batches of events that were folded. `close` ends its process.

    `read` gets entities by id, as last written: of a patient who was merged the history is kept under several.
    """

    def __init__(self, processor: Processor, models: Models, read: Read) -> None:
        self._processor, self._read = processor, read
        self._serving = Serving(models, [f"{processor.domain.name}-{target}" for target in processor.stage.targets])
        self._beside = Beside()
        self.failed = 0  # scores that could not be made
        self._watched: dict[tuple[str, str], deque[tuple[str, int]]] = {}

    async def writes(self, ready: Sequence[Ready]) -> list[Write]:
        """Documents of all scores of a batch, the published ones and those of models. Raises KeyStoreBusy."""
        stage, domain = self._processor.stage, self._processor.domain.name
        self._serving.refresh()
        made: list[Write] = []
        asked: dict[tuple[str, str], list[tuple[_Wanted, Mapping[str, float | str]]]] = defaultdict(list)
        cards: dict[tuple[str, str], Card] = {}
        others = await self._relatives(ready)
        for event in ready:
            for subject, (entity, position) in event.folded.items():
                history = history_of(entity, others.get((event.envelope.event_id, subject), ()), position)
                said = [{"kind": one.kind, **one.clear} for one in event.documents if one.subject == subject]
                first = (subject or 0) * (2 * len(stage.targets) + 1)
                try:
                    published = stage.rules(said, history, event.event_time)
                    rows = self._rows(event, said, history)
                except Exception as error:  # its type tells; its text might hold a value
                    log.error("an event cannot be scored: %s", type(error).__name__)
                    metrics.SCORES.labels(domain, "failed").inc()
                    self.failed += 1
                    continue
                if published is not None:
                    made.append(self._processor.scored(event, first, subject, published))
                for place, target, found, serving in rows:
                    for card, shadow in serving:
                        one = f"{domain}-{target}", card.version
                        wanted = _Wanted(event, subject, first + 1 + 2 * place + shadow, target, shadow)
                        asked[one].append((wanted, found))
                        cards[one] = card
        if asked:
            requests: list[Request] = [
                (*one, [found for _, found in some], cards[one].feature_means) for one, some in asked.items()
            ]
            for (one, some), reply in zip(asked.items(), await self._ask(requests), strict=True):
                made += self._replied(one, [wanted for wanted, _ in some], reply, cards[one])
        return made

    async def _relatives(self, ready: Sequence[Ready]) -> dict[tuple[str, int | None], list[Entity]]:
        """What is kept of the same persons under other references; most batches have none."""
        ids = await asyncio.to_thread(self._processor.relatives, ready)
        wanted = {one for some in ids.values() for one in some}
        held = await self._read(wanted) if wanted else {}
        return {event: [held[one][0] for one in sorted(some) if one in held] for event, some in ids.items()}

    def _rows(
        self, event: Ready, said: list[dict[str, Any]], history: Mapping[str, Any]
    ) -> list[tuple[int, str, Mapping[str, float | str], list[tuple[Card, bool]]]]:
        """Of each target that a model serves for: its place, name, the features, and the models."""
        stage, domain, received = self._processor.stage, self._processor.domain.name, event.envelope.received()
        return [
            (place, target, found, serving)
            for place, target in enumerate(stage.targets)
            if (serving := self._serving.at(f"{domain}-{target}", received))
            and (found := stage.features(target, said, history, event.event_time)) is not None
        ]

    async def _ask(self, requests: list[Request]) -> list[Reply]:
        """The process's replies; one that has died gets a successor, once."""
        metrics.SCORING_ROWS.set(sum(len(rows) for _, _, rows, _ in requests))
        try:
            for _ in range(2):
                try:
                    return await self._beside.ask(PATIENCE_SECONDS, score, requests)
                except BesideFailed as error:
                    log.error("scoring failed: %s", error)
            return ["scoring_failed"] * len(requests)
        finally:
            metrics.SCORING_ROWS.set(0)

    def _replied(self, one: tuple[str, str], some: list[_Wanted], reply: Reply, card: Card) -> list[Write]:
        name, version = one
        if isinstance(reply, str):
            log.error("no scores by %s/%s: %s", name, version, reply)
            metrics.SCORES.labels(name, "failed").inc(len(some))
            self.failed += len(some)
            return []
        made = []
        for wanted, (predicted, probabilities, reasons) in zip(some, reply, strict=True):
            score = Score(
                model=wanted.target,
                model_version=version,
                shadow=wanted.shadow,
                predicted=predicted,
                probability=round(probabilities[YES if YES in probabilities else predicted], 6),
                probabilities=tuple(f"{label}={p:.3f}" for label, p in probabilities.items()),
                reasons=tuple(f"{feature} {weight:+.3f}" for feature, weight in reasons),
            )
            made.append(self._processor.scored(wanted.event, wanted.number, wanted.subject, score))
            metrics.SCORES.labels(name, "shadow" if wanted.shadow else "promoted").inc()
        if not some[0].shadow:
            self._watch(one, [p for _, p, _ in reply], card)
        return made

    def _watch(self, one: tuple[str, str], probabilities: list[dict[str, float]], card: Card) -> None:
        """Drift of the last scores of a promoted version against its card's: the class that has parted most."""
        bins = {label: len(shares) for label, shares in card.scores.items()}
        watched = self._watched.setdefault(one, deque(maxlen=WATCHED * max(1, len(bins))))
        for row in probabilities:
            watched.extend((label, bin_of(row[label], n)) for label, n in bins.items() if label in row)
        if bins and len(watched) >= WATCHED_AT_LEAST * len(bins):
            seen = Counter(watched)
            parted = [
                drift(shares, [seen[label, at] for at in range(len(shares))]) for label, shares in card.scores.items()
            ]
            metrics.MODEL_DRIFT.labels(one[0]).set(max(parted))

    def close(self) -> None:
        self._beside.close()


# ------------------------------------------------------------------------------------------ in the process beside


_loaded: dict[tuple[str, str], Any] = {}


def score(requests: list[Request]) -> list[Reply]:
    """What each model of the local store says of its rows; for a process beside a worker."""
    from streams import learn  # scikit-learn: a second and 100 MB that the worker is spared

    replies: list[Reply] = []
    for name, version, rows, typical in requests:
        try:
            if (name, version) not in _loaded:
                _loaded[name, version] = Models.local().load(name, version)
            found = learn.score(_loaded[name, version], rows, typical)
            replies.append([(one.label, one.probabilities, one.reasons) for one in found])
        except WardstreamError as error:
            replies.append(error.reason)
        except Exception as error:  # its type tells; its text might hold a value
            replies.append(f"unexpected_{type(error).__name__}")
    return replies
