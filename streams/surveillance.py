"""The charts of outcomes that a worker keeps: beside the stream, from cases that are durable.

A case is scored once its outcome is due, by the version of the model that was promoted when its latest event came in,
else by the first that ever was; so a case that is read again, or an index made anew, gets the risk that it had. The
risk is kept in the case, and charts are a function of cases (streams/quality/units.py): whoever was killed anywhere
begins with what the index has, and ends with the same charts. A chart is kept before its signals are told, and what is
untold is told again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from infra import metrics
from infra.elastic import Index, Write, dump
from infra.errors import KeyStoreBusy
from infra.kafka import Outgoing
from infra.keystore import KeyStore
from infra.settings import settings
from schemas.document import of_persons
from schemas.envelope import rfc3339
from schemas.outcome_charts import CHART, FOLLOWED, OF, number
from schemas.safe_harbor import SMALLEST
from schemas.signal import message
from schemas.topics import SIGNALS
from streams.beside import Beside, BesideFailed
from streams.fold import Entity
from streams.models import Card, Models, bin_of, drift
from streams.process import Ready
from streams.quality import risk, signals
from streams.quality.cases import CASE, DEATH, EXPECTED, KEPT, Case, Measured, people, wanted
from streams.quality.charts import Limits
from streams.quality.signals import Document
from streams.quality.units import Design, Key, Mix, Of, Units, Wanted, find
from streams.rows import YES
from streams.scoring import PATIENCE_SECONDS, Request, Serving, score
from streams.state import Fold, Store, advance

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.05
DRAW_SECONDS = 0.2  # from one drawing of charts to the next; as long as the last took, where that is longer
MOST_SCORED = 100  # persons at once
SCORED_SECONDS = 120.0  # for an answer: on a machine that has better to do, reasons take long
DRIFTED = "model_drifted"  # signal
PSI = 0.25  # above it scores have moved (Siddiqi, Credit Risk Scorecards, 2006)
WATCHED, WATCHED_AT_LEAST = 1000, 200  # outcomes of a model that drift is measured on
MOST_COUNTED = 100  # persons at once
MOST_DRAWN = 50  # charts at once: the worker waits meanwhile
NICE = 5
REST_SECONDS = 5.0  # after scoring or finding limits has failed
MOST_GAUGES = 500  # charts


class Surveillance:
    """`documents` is the index of charts; `send` confirms messages."""

    def __init__(
        self,
        index: Index,
        documents: Index,
        keys: KeyStore,
        models: Models,
        send: Callable[[Sequence[Outgoing]], Awaitable[None]],
    ) -> None:
        self._index, self._documents, self._keys, self._models, self._send = index, documents, keys, models, send
        self._serving = Serving(models, ())
        self._beside, self._finding = Beside(NICE), Beside(NICE)
        self._partitions: dict[str, int] = {}  # of each site that is followed
        self._reading = asyncio.Lock()
        self._written: dict[str, Entity] = {}  # while the index is read: what it answers may be older
        self._epoch = keys.epoch()
        self._behind = ""
        self._begun = 0  # how often all was forgotten
        self._merged: Mapping[str, str] = {}
        self._rest = 0.0  # nothing is scored before that
        self._search: asyncio.Task[None] | None = None  # for limits
        self._failed: Counter[Mix] = Counter()  # how often that failed
        self._watched = Watched()
        self._seen: object = None  # of the model store
        self._assigned: frozenset[int] = frozenset()
        self._shown: set[tuple[str, ...]] = set()  # labels of charts that have gauges
        self._empty()

    def _empty(self) -> None:
        of = settings()
        self._units = Units(Design(of.chart_odds_ratio, of.chart_run_length))
        self._read: set[str] = set()  # sites of which everything is known
        self._held: dict[Of, dict[str, Entity]] = defaultdict(dict)
        self._where: dict[str, Of] = {}  # whose each case is
        self._dirty: set[Of] = set()  # of whom something was written since they were looked at
        self._deaths: dict[str, dict[str, Entity]] = defaultdict(dict)  # by survivor
        self._documented: dict[Key, Document] = {}
        self._due: set[Key] = set()

    # ---------------------------------------------------------------------------------------------------------- sites

    async def follow(self, ready: Sequence[Ready]) -> None:
        """Remember, before anything of it is acknowledged, which sites are this partition's: whoever comes after a
        kill -9 begins with them, whether or not another event comes."""
        new = {
            site: event.incoming.partition
            for event in ready
            for change in event.changes
            if (site := change.clear.get("site")) and site not in self._partitions
        }
        if new:
            made = [Write(number(FOLLOWED, site), dump(_followed(site, place))) for site, place in new.items()]
            if refused := await self._documents.bulk(made):
                log.error("sites cannot be remembered: %s", sorted(set(refused.values())))
            self._partitions |= new

    async def watch(self, partitions: Collection[int]) -> None:
        """Once in a while: follow what is this worker's, and look whether persons were merged."""
        gone = {site for site, place in self._partitions.items() if place not in partitions}
        if gone:
            self._partitions = {site: place for site, place in self._partitions.items() if site not in gone}
            self._hide(gone)
            self.forget()
        if self._assigned != frozenset(partitions):
            self._assigned = frozenset(partitions)
            mine = {"bool": {"filter": [{"term": {"kind": FOLLOWED}}, {"terms": {"partition": sorted(partitions)}}]}}
            found = await self._documents.find(mine)
            self._partitions |= {one["site"]: one["partition"] for one in found.values()}
        behind = await self._index.behind()
        if behind and self._behind not in ("", behind):  # a replay has made the index anew, without what was expected
            self.forget()
        self._behind = behind or self._behind
        try:
            merged, epoch = await asyncio.to_thread(lambda: (self._keys.merged(), self._keys.epoch()))
        except KeyStoreBusy:
            return  # the next look will do
        if epoch != self._epoch:  # somebody was erased; an agent hears of it with the next event alone
            self._epoch = epoch
            self.forget()
        if merged != self._merged:
            self._regroup(merged)

    def forget(self) -> None:
        """Begin again: somebody was erased, and might be among them, or a partition was another worker's."""
        self._begun += 1
        self._empty()

    def lost(self) -> None:
        """Partitions were revoked: nothing is this worker's until it is told again what is."""
        self._partitions, self._assigned = {}, frozenset()
        self.forget()

    def take(self, name: str, entity: Entity) -> None:
        """An entity that was written, or read since somebody else may have written it."""
        if entity.get("kind") not in (CASE, DEATH):
            return
        if self._reading.locked():
            self._written[name] = entity
        if entity["kind"] == DEATH or entity.get("site") in self._read:
            self._take(name, entity)

    def _take(self, name: str, entity: Entity) -> None:
        site, ref = of = self._person(entity)
        kept = {one: entity[one] for one in KEPT if one in entity}
        if entity["kind"] == DEATH:
            self._deaths[ref][name] = kept
            for site in self._read:
                if (site, ref) in self._held:
                    self._dirty.add((site, ref))
        else:
            before = self._where.get(name)
            if before is not None and before != of and before in self._held:  # told of another site by now
                self._held[before].pop(name, None)
                self._dirty.add(before)
            self._where[name] = of
            self._held[of][name] = kept
            self._dirty.add(of)

    def _person(self, entity: Entity) -> Of:
        ref = entity.get("patient_ref", "")
        return entity.get("site", ""), self._merged.get(ref, ref)

    async def _count(self) -> None:
        """Bring charts' people forward, once for all that was written of each: an agent waits for none of it."""
        some, self._dirty = list(self._dirty), set()
        for at in range(0, len(some), MOST_COUNTED):
            for of in some[at : at + MOST_COUNTED]:
                self._tell(of)
            await asyncio.sleep(0)

    def _tell(self, of: Of) -> None:
        known = [*self._held[of].items(), *self._deaths.get(of[1], {}).items()]
        self._units.take(of, people(known, self._merged).get(of))

    def _regroup(self, merged: Mapping[str, str]) -> None:
        """Persons who were joined, or parted, since this was looked at last."""
        apart = {ref for ref in merged.keys() | self._merged.keys() if merged.get(ref) != self._merged.get(ref)}
        moved = apart | {one[ref] for one in (merged, self._merged) for ref in apart if ref in one}
        self._merged = merged
        for of in [of for of in self._held if of[1] in moved]:
            held = self._held.pop(of)
            self._units.take(of, None)
            for name, one in held.items():
                self._where[name] = self._person(one)
                self._held[self._where[name]][name] = one
        deaths, self._deaths = self._deaths, defaultdict(dict)
        for name, one in ((name, one) for some in deaths.values() for name, one in some.items()):
            self._deaths[self._person(one)[1]][name] = one
        for of in [of for of in self._held if of[1] in moved or of[1] in merged.values()]:
            self._tell(of)

    async def _begin(self, site: str) -> None:
        """Everything of a site, as the index has it with what was written since it was asked."""
        async with self._reading:
            self._written, begun = {}, self._begun
            found = await self._index.find(wanted(site))
            charts = [{"term": {"site": site}}, {"term": {"kind": CHART}}]
            kept = await self._documents.find({"bool": {"filter": charts}})
            refs = {one["patient_ref"] for one in found.values() if "patient_ref" in one}
            erased, merged = await asyncio.to_thread(lambda: (self._keys.erased(refs), self._keys.merged()))
            for said in kept.values():
                if said["untold"] and begun == self._begun:  # whoever was killed may not have told them
                    await self._send(await asyncio.to_thread(self._messages, said))
            if begun != self._begun:
                return
            if merged != self._merged:
                self._regroup(merged)
            self._read.add(site)
            for said in kept.values():
                for found_on, limits in signals.limits_of(said):
                    if found_on.design == self._units.design:
                        self._units.found(found_on, limits)
                self._documented[_key(said)] = said
            names = found.keys() | {name for name, one in self._written.items() if one.get("site") in (site, None)}
            for name in names:
                one = self._written.get(name) or found[name]
                if one.get("patient_ref") not in erased:
                    self._take(name, one)
            for key in (_key(said) for said in kept.values()):
                self._units.have(key)  # also one that has no outcome any more

    # ----------------------------------------------------------------------------------------------------------- work

    async def run(self, entities: Store) -> None:
        """Score and draw, for as long as the worker runs. Whatever fails in it, the stream goes on."""
        drawn = 0.0
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                try:
                    for site in [site for site in self._partitions if site not in self._read]:
                        await self._begin(site)
                    await self._count()
                    self._serve()
                    if not self._serving.names:
                        self._units.fresh.clear()
                    if self._units.fresh and time.monotonic() >= self._rest:
                        await self._score(entities)
                    began = time.monotonic()
                    if began >= drawn and (self._units.any_changed or self._due):
                        await self._draw()
                        drawn = time.monotonic() + max(DRAW_SECONDS, time.monotonic() - began)
                except KeyStoreBusy:
                    continue
                except BesideFailed as error:
                    log.error("no expected risks: %s", error)
                    metrics.SCORES.labels(OF.name, "failed").inc()
                    self._rest = time.monotonic() + REST_SECONDS
                except Exception as error:  # its type tells; its text might hold a value
                    log.error("no charts: %s", type(error).__name__)
                    await asyncio.sleep(REST_SECONDS)
                    self.forget()
        finally:
            self._beside.close()
            self._finding.close()

    async def _score(self, entities: Store) -> None:
        """Expected risks of cases that are due and have none by the version that serves, kept in the cases."""
        some = [self._units.fresh.pop() for _ in range(min(MOST_SCORED, len(self._units.fresh)))]
        try:
            requests: dict[tuple[str, str], Request] = {}
            asked: dict[tuple[str, str], list[tuple[Case, Measured, bool]]] = defaultdict(list)
            cards: dict[tuple[str, str], Card] = {}
            for of in some:
                for case, outcome in self._units.outcomes(of):
                    for card, shadow in self._wanted(case, outcome.measure):
                        one = card.name, card.version
                        cards[one] = card
                        requests.setdefault(one, (*one, [], card.feature_means))[2].append(risk.features(case))
                        asked[one].append((case, outcome, shadow))
            if not requests:
                return
            replies = await self._beside.ask(SCORED_SECONDS, score, list(requests.values()))
        except BaseException:
            self._units.fresh.update(some)
            raise
        made: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
        for (name, version), reply in zip(requests, replies, strict=True):
            if isinstance(reply, str):
                log.error("no expected risks by %s/%s: %s", name, version, reply)
                metrics.SCORES.labels(name, "failed").inc(len(asked[name, version]))
                continue
            seen: list[tuple[float, bool]] = []
            for (case, outcome, shadow), (_, probabilities, reasons) in zip(asked[name, version], reply, strict=True):
                measure = outcome.measure
                expected = round(probabilities.get(YES, 0.0), 6)
                metrics.SCORES.labels(name, "shadow" if shadow else "promoted").inc()
                if shadow:
                    made[case.record][measure] |= {"shadow": expected, "shadow_version": version}
                else:
                    why = [f"{feature} {weight:+.3f}" for feature, weight in reasons]
                    said = {"risk": expected, "version": version, "reasons": why, "factors": digest(case)}
                    made[case.record][measure] |= said
                    seen.append((expected, outcome.event))
            await self._make_known(self._watched.look(cards[name, version], seen))
        folds: dict[str, Fold] = {name: partial(_expecting, one) for name, one in made.items()}
        await advance(entities, folds)

    def _serve(self) -> None:
        """Look which models serve; where that is another than before, whose risks are lacking is to be asked again."""
        if (seen := self._models.changed()) == self._seen:
            return
        self._seen = seen
        names = [name for name in self._models.names() if name.startswith(f"{OF.name}-")]
        if names != self._serving.names:
            self._serving = Serving(self._models, names)
        self._serving.refresh()
        self._units.fresh.update(self._units.people)

    def _wanted(self, case: Case, measure: str) -> list[tuple[Card, bool]]:
        """Models by which a case is to be scored: those that have not, of what is known of it by now."""
        if not case.received:
            return []
        name, received = f"{OF.name}-{risk.model_of(measure)}", datetime.fromisoformat(case.received)
        first = self._serving.first(name)
        serving = self._serving.at(name, max(received, first)) if first is not None else []
        if all(shadow for _, shadow in serving):
            return []
        has = case.expected.get(measure)
        if has is None or has.factors != digest(case):
            return serving
        return [one for one in serving if one[0].version != (has.shadow_version if one[1] else has.version)]

    async def _draw(self) -> None:
        """Keep the charts that have changed, then tell what is new in them."""
        if self._units.fresh and self._serving.names and time.monotonic() >= self._rest:
            return  # half of the risks make half a chart: signals would come and go
        self._due |= self._units.changed(MOST_DRAWN)
        lacking = self._units.wanted(self._due)
        if lacking and self._search is None:
            self._search = asyncio.create_task(self._find(lacking))
        ready, self._due = self._due, set()
        begun, units = self._begun, self._units
        made: dict[Key, Document] = {}
        for key in ready:
            made[key] = document = self._document(key)
            before = self._documented.get(key)
            if self._units.wanted([key]):  # what it raises is known once its limits are
                document |= signals.standing(before)
                continue
            document["untold"] = signals.untold(document, before)
            document["patient_ref"] = sorted(
                {*document["patient_ref"], *(ref for line in document["untold"] for _, ref in line["drivers"] if ref)}
            )
        if not made or begun != self._begun:
            return
        try:
            named = {ref for document in made.values() for ref in document["patient_ref"]}
            await self._keep(made)
            if gone := await asyncio.to_thread(self._keys.erased, named):  # the erasure may have looked too early
                await self._documents.remove_of(of_persons(gone))
                self.forget()
                return
            for document in made.values():
                if document["untold"]:
                    await self._make_known(await asyncio.to_thread(self._messages, document))
        except BaseException:
            if units is self._units:
                self._due |= ready
            raise
        if units is self._units:
            self._documented |= made
            self._show(made)

    def _document(self, key: Key) -> Document:
        units = self._units
        known, since, waiting = units.known(key.site), units.since(key.site), units.waiting(key)
        chart, limits = units.chart(key), units.limits(key)
        before = self._documented.get(key)
        return signals.document(key, chart, known, since, waiting, units.design, limits, units.whose, before)

    async def _keep(self, made: Mapping[Key, Document]) -> None:
        writes = [Write(_id(key), dump(document)) for key, document in made.items()]
        if refused := await self._documents.bulk(writes):
            log.error("charts cannot be kept: %s", sorted(set(refused.values())))

    def _messages(self, said: Document) -> list[Outgoing]:
        found = signals.messages(said, said["untold"], self._keys.living)
        return [Outgoing(SIGNALS.name, *one) for one in found]

    async def _make_known(self, messages: Sequence[Outgoing]) -> None:
        await self._send(messages)
        for one in messages:
            metrics.SIGNALS.labels(OF.name, dict(one.headers)["signal"].decode()).inc()

    async def _find(self, lacking: Collection[Wanted]) -> None:
        units = self._units
        try:
            for one in lacking:
                try:
                    limits = await self._finding.ask(PATIENCE_SECONDS, find, one)
                except BesideFailed as error:
                    log.error("no limits of a chart: %s", error)
                    if self._failed[one.mix] < 2:
                        self._failed[one.mix] += 1
                        continue
                    limits = Limits()  # without signals, and without stopping the others
                units.found(one, limits)
        finally:
            self._search = None

    def _show(self, made: Mapping[Key, Document]) -> None:
        for key, said in made.items():
            labels = (key.site, key.scope, key.name, key.measure)
            if said["cases"] < SMALLEST:
                if labels in self._shown:
                    self._remove(labels)
                continue
            if labels not in self._shown and len(self._shown) >= MOST_GAUGES:
                continue
            self._shown.add(labels)
            metrics.OUTCOME_CASES.labels(*labels).set(said["cases"])
            metrics.OUTCOME_RATIO.labels(*labels).set(said.get("ratio", 0.0))
            for side in ("upper", "lower"):
                if limit := said[f"{side}_limit"]:
                    metrics.OUTCOME_CUSUM.labels(*labels, side).set(said[side] / limit)

    def _hide(self, sites: Collection[str]) -> None:
        """Gauges of sites that are another worker's by now."""
        for labels in {one for one in self._shown if one[0] in sites}:
            self._remove(labels)

    def _remove(self, labels: tuple[str, ...]) -> None:
        self._shown.discard(labels)
        for gauge in (metrics.OUTCOME_CASES, metrics.OUTCOME_RATIO):
            gauge.remove(*labels)
        for side in ("upper", "lower"):
            with contextlib.suppress(KeyError):  # a chart without limits has none
                metrics.OUTCOME_CUSUM.remove(*labels, side)


class Watched:
    """The last outcomes of each model, beside what it said of them; begun anew by each worker."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], deque[tuple[float, bool]]] = {}
        self._drifted: set[tuple[str, str, str]] = set()

    def look(self, card: Card, seen: Sequence[tuple[float, bool]]) -> list[Outgoing]:
        """What is to be told: that a model has begun to drift, by its calibration or by its scores."""
        if not seen:
            return []
        last = self._last.setdefault((card.name, card.version), deque(maxlen=WATCHED))
        last.extend(seen)
        if len(last) < WATCHED_AT_LEAST:
            return []
        found = risk.calibration_drift([one for one, _ in last], [event for _, event in last])
        if found.ratio is not None:
            metrics.MODEL_CALIBRATION.labels(card.name).set(found.ratio)
        bins, parted = card.scores.get(YES, ()), 0.0
        if bins:
            counts = Counter(bin_of(one, len(bins)) for one, _ in last)
            parted = drift(bins, [counts[at] for at in range(len(bins))])
            metrics.MODEL_DRIFT.labels(card.name).set(parted)
        said = {"calibration": (found.state == risk.DRIFTED, found.ratio), "scores": (parted > PSI, round(parted, 4))}
        made = []
        for kind, (drifted, value) in said.items():
            one = card.name, card.version, kind
            if drifted and one not in self._drifted:
                made.append(_drift_signal(card, kind, value, found.z, len(last)))
            (self._drifted.add if drifted else self._drifted.discard)(one)
        return made


def _drift_signal(card: Card, kind: str, value: float | None, z: float | None, outcomes: int) -> Outgoing:
    at = datetime.now(UTC)
    said = {"model": card.name, "version": card.version, "drift": kind, "value": value, "z": z, "outcomes": outcomes}
    id = hashlib.sha256(f"{card.name} {card.version} {kind} {at:%Y-%m-%d}".encode()).hexdigest()[:32]
    return Outgoing(SIGNALS.name, *message(DRIFTED, OF.name, id, id, rfc3339(at), said, None))


def digest(case: Case) -> str:
    """Of all that the risk of a case hangs on."""
    return hashlib.sha256(repr(sorted(case.factors.items())).encode()).hexdigest()[:16]


def _expecting(found: Mapping[str, Mapping[str, Any]], old: Entity | None) -> Entity | None:
    """An entity with these risks; nothing where it is gone, as of somebody who was erased meanwhile."""
    if old is None:
        return None
    before = old.get(EXPECTED, {})
    now = before | {measure: before.get(measure, {}) | dict(one) for measure, one in found.items()}
    return {**old, EXPECTED: now} if now != before else None


def _followed(site: str, partition: int) -> Document:
    return {"kind": FOLLOWED, "site": site, "partition": partition}


def _key(said: Mapping[str, Any]) -> Key:
    return Key(said["site"], said["scope"], said["name"], said["measure"])


def _id(key: Key) -> str:
    return number(CHART, key.site, key.scope, key.name, key.measure)
