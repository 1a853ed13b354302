"""Plans and alerts of the sites that a worker follows: made anew a moment after something has changed.

Changes are gathered: a plan is made once a site has been quiet for a moment, or has changed for long enough; the next
one of a site waits as long as the last one took, so that a storm of events makes a few plans and none of them waits for
one. It is worked out in a process beside the worker, which steps back behind it. While nothing happens the plan goes on
getting better.

A plan is a proposal: it is told on the signals' topic, each line sealed under the key of whom it is about, and kept in
the index (schemas/sites.py). What was accepted there is where the next plan begins, and changing it has a price.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from infra import metrics
from infra.crypto import DataKey
from infra.elastic import CONFLICT, NEW, Index, Place, Write, dump
from infra.errors import KeyMissing, KeyShredded, KeyStoreBusy, ModelAltered, WardstreamError
from infra.kafka import Outgoing
from infra.keystore import KeyStore
from infra.settings import settings
from schemas.sites import ACCEPTED, EXPECTED, OF, PROPOSED, RAISED, WITHDRAWN, number
from streams.allocation import proposal, signals
from streams.allocation.board import Board
from streams.allocation.plan import BED, INFEASIBLE, OPTIMAL, Assignment, Plan
from streams.allocation.proposal import Document, Line
from streams.allocation.rules import check
from streams.allocation.signals import Raised
from streams.allocation.site import Site
from streams.beside import Beside, BesideFailed
from streams.occupancy import Sites

if TYPE_CHECKING:
    from streams.allocation.conflict import Conflict  # its solver takes a second to load

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.05
QUIET_SECONDS = 0.1  # without another change, and a plan is made
LONGEST_SECONDS = 0.5  # that changes one after the other put it off
STALE_SECONDS = 300.0  # after which a site where nothing happens is planned again: time passes
NICE = 5
SLICE_SECONDS = 0.2  # of a plan that gets better: the next event waits for it
PATIENCE_SECONDS = 60.0  # the first plan waits for the process to start and to load its solver
NOW = frozenset(("placed", "one_per_bed", "usable", "features", "sex", "isolation"))  # rules that beds break by now


@dataclass(slots=True)
class Due:
    """When a site is to be planned again. Times are those of one clock, in seconds."""

    version: int = -1  # of the site, as last seen
    first: float | None = None  # when the first change since the last plan was seen
    last: float = 0.0
    rest: float = 0.0  # no plan before that
    planned: float = 0.0

    def look(self, version: int, now: float) -> None:
        if version != self.version:
            self.version, self.last = version, now
            self.first = now if self.first is None else self.first

    def now(self, now: float) -> bool:
        if now < self.rest:
            return False
        if self.first is None:
            return now - self.planned >= STALE_SECONDS
        return now - self.last >= QUIET_SECONDS or now - self.first >= LONGEST_SECONDS

    def begin(self) -> None:
        self.first = None

    def end(self, began: float, now: float) -> None:
        self.planned, self.rest = now, now + (now - began)


@dataclass(slots=True)
class _State:
    """What is known of one site between two plans."""

    due: Due = field(default_factory=Due)
    plan: Plan | None = None
    lines: Sequence[Line] = ()  # of the last proposal, as told
    conflict: Conflict | None = None  # why the last plan is infeasible, once that is worked out
    kept: tuple[str, float, float] | None = None  # id, cost and bound of what is in the index
    raised: Raised | None = None  # None: what the index has is not read yet
    places: dict[str, Place] = field(default_factory=dict)
    thought: float = 0.0  # seconds spent on the plan since the last change
    pause: float = 0.0  # it gets no better before that
    seed: int = 0
    gauges: dict[tuple[str, str], int] = field(default_factory=dict)


class Planning:
    """`send` confirms messages; `documents` is the index of sites. One plan at a time: whose change is oldest first."""

    def __init__(
        self, sites: Sites, keys: KeyStore, documents: Index, send: Callable[[Sequence[Outgoing]], Awaitable[None]]
    ) -> None:
        self._sites, self._live, self._keys, self._documents, self._send = sites, sites.live, keys, documents, send
        self._beside = Beside(NICE)
        self._states: dict[str, _State] = {}

    async def run(self) -> None:
        try:
            while True:
                if (site := self._next(time.monotonic())) is None:
                    await asyncio.sleep(LOOK_SECONDS)
                else:
                    await self._work(site)
        finally:
            self._beside.close()

    def _next(self, now: float) -> str | None:
        for gone in self._states.keys() - set(self._live):
            self._show(gone, self._states.pop(gone), {})
        due: list[tuple[float, str]] = []
        better: list[tuple[float, str]] = []
        for site in self._live:
            state = self._states.setdefault(site, _State())
            state.due.look(self._live.version(site), now)
            if state.due.now(now):
                due.append((now if state.due.first is None else state.due.first, site))
            elif state.due.first is None and now >= state.pause and self._may_improve(state):
                better.append((state.thought, site))
        return min(due or better, default=(0.0, None))[1]

    def _may_improve(self, state: _State) -> bool:
        plan = state.plan
        return plan is not None and plan.status != OPTIMAL and state.thought < settings().plan_improve_seconds

    async def _work(self, site: str) -> None:
        """One plan of a site, and what it makes known."""
        state, began = self._states[site], time.monotonic()
        changed = state.due.first
        state.due.begin()
        try:
            merged = await asyncio.to_thread(self._keys.merged)
            if site not in self._live:
                return
            board = self._live.board(site, merged=merged)
            if not board.declared:  # beds that nobody has told of: which are free is not known
                return
            kept = await self._kept(site, state)
            await self._planned(board, state, kept, changed)
        except KeyStoreBusy:
            state.due.first = changed or began
        except BesideFailed as error:
            state.due.first = changed or began
            log.error("no plan of a site: %s", error)
            metrics.PLANS.labels("failed").inc()
        finally:
            now = time.monotonic()
            state.pause = now + (now - began)
            if changed is None:
                state.due.planned = now
            else:
                state.due.end(began, now)

    async def _kept(self, site: str, state: _State) -> Mapping[str, Document]:
        """What the index has of a site: what was accepted and is expected; at first what was proposed and raised."""
        fresh = state.raised is None
        wanted = {
            one: number(one, site)
            for one in ((ACCEPTED, EXPECTED, PROPOSED, RAISED) if fresh else (ACCEPTED, EXPECTED))
        }
        found = await self._documents.get(wanted.values())
        kept = {one: found[id][0] for one, id in wanted.items() if id in found}
        if fresh:
            state.places = {id: place for id, (_, place) in found.items()}
            state.lines = kept.get(PROPOSED, {}).get("lines", ())
            state.raised, told = proposal.raised_of(kept.get(RAISED))
            await self._tell([proposal.alert(one) for one in told])  # who was killed may not have told them
        return kept

    async def _planned(self, board: Board, state: _State, kept: Mapping[str, Document], changed: float | None) -> None:
        site, of = board.site, settings()
        last = state.plan or _plan_of(site, kept.get(PROPOSED))
        before = proposal.over(proposal.of_document(kept.get(ACCEPTED), site.at), last, site)
        better = changed is None and state.plan is not None
        seconds = SLICE_SECONDS if better else of.plan_seconds
        state.thought, state.seed = (state.thought + seconds, state.seed + 1) if better else (0.0, 1)
        if not better:
            state.conflict = None
        explain = better and state.conflict is None and last is not None and last.status == INFEASIBLE
        plan, conflict = await self._beside.ask(PATIENCE_SECONDS, _think, site, before, seconds, state.seed, explain)
        state.plan, state.conflict = plan, (conflict or state.conflict) if plan.status == INFEASIBLE else None
        made = proposal.document(site, plan, state.conflict)
        now = made["plan"], plan.cost, plan.bound
        if better and state.kept == now and conflict is None:
            return
        if await self._keep(site, state, made):
            state.kept = now
            await self._raise(board, state, kept.get(EXPECTED))
            metrics.PLANS.labels(plan.status).inc()
            metrics.PLAN_GAP.labels(site.id).set(plan.gap)
            metrics.PLAN_TIME.labels(site.id).set(datetime.fromisoformat(plan.at).timestamp())
            if changed is not None:
                metrics.PLAN_SECONDS.observe(time.monotonic() - changed)

    async def _keep(self, site: Site, state: _State, made: Document) -> bool:
        """Tell what is new and keep the whole; False where somebody in it was erased meanwhile.

        Told first: whoever is killed between the two tells it again.
        """
        named = {*made["patient_ref"], *made["staff_ref"]}
        if await asyncio.to_thread(self._keys.erased, named):
            self._sites.forget()
            return False
        await self._tell(await asyncio.to_thread(self._told, made, state.lines))
        state.lines = made["lines"]
        await self._write(state, number(PROPOSED, site.id), made)
        if await asyncio.to_thread(self._keys.erased, named):  # between: the erasure may have looked too early
            await self._documents.remove_of({"term": {"site": site.id}})
            self._sites.forget()
            return False
        return True

    async def _tell(self, messages: Sequence[Outgoing]) -> None:
        await self._send(messages)
        for one in messages:
            metrics.SIGNALS.labels(OF.name, dict(one.headers)["signal"].decode()).inc()

    async def _write(self, state: _State, id: str, made: Document) -> None:
        """In the place of what was read or written last; of another worker's, or an erasure's, once that is known."""
        while True:
            places: dict[str, Place] = {}
            refused = await self._documents.bulk([Write(id, dump(made), state.places.get(id, NEW))], places)
            if not refused:
                state.places |= places
                return
            if refused[id] != CONFLICT:
                raise WardstreamError(f"the index refuses what is kept of a site: {refused[id]}")
            found = await self._documents.get([id])
            state.places |= {id: found[id][1] if id in found else NEW}

    def _told(self, made: Document, before: Sequence[Line]) -> list[Outgoing]:
        """What is new in a plan, and what is no more."""
        apart = proposal.difference(made["lines"], before)
        if not apart.new and not apart.gone:
            return []
        told = proposal.messages(made, PROPOSED, apart.new, self._key)
        return [*proposal.messages(made, WITHDRAWN, apart.gone, self._key)[:-1], *told]

    def _key(self, ref: str) -> DataKey | None:
        """None of somebody who was erased."""
        try:
            return self._keys.of_ref(ref)
        except (KeyShredded, KeyMissing):
            return None

    async def _raise(self, board: Board, state: _State, expected: Document | None) -> None:
        """Alerts that begin or end. Kept before they are told, so that one that is told twice has the same id."""
        forecasts = proposal.forecasts_of(expected, board.site.at)
        broken = [(one.kind, one.bed) for one in board.conflicts] + _broken(board.site)
        state.raised, told = signals.step(state.raised or Raised(), board.site, forecasts, broken)
        self._show(board.site.id, state, signals.active(state.raised))
        if told:
            made = proposal.raised_document(board.site.id, state.raised, told)
            await self._write(state, number(RAISED, board.site.id), made)
            await self._tell([proposal.alert(one) for one in told])

    def _show(self, site: str, state: _State, raised: Mapping[tuple[str, str], int]) -> None:
        """Gauges of what is raised; of a site that is followed no more, none at all."""
        for unit, signal in state.gauges.keys() - raised.keys():
            metrics.SITE_SIGNALS.remove(site, unit, signal)
        for (unit, signal), count in raised.items():
            metrics.SITE_SIGNALS.labels(site, unit, signal).set(count)
        state.gauges = dict(raised)
        if not raised and site not in self._live and state.plan is not None:
            metrics.PLAN_GAP.remove(site)
            metrics.PLAN_TIME.remove(site)


def _plan_of(site: Site, said: Document | None) -> Plan | None:
    return Plan(site.id, site.at, tuple(proposal.of_document(said, site.at)), {}) if said else None


def _broken(site: Site) -> list[tuple[str, str]]:
    """Rules that are broken as everybody lies now, and where."""
    lines = tuple(Assignment(BED, one.need.ref, one.bed, 0.0, one.bed) for one in site.stays)
    breaches, _ = check(site, Plan(site.id, site.at, lines, {}))
    return [(one.rule, one.where) for one in breaches if one.rule in NOW]


# ------------------------------------------------------------------------------------------ in the process beside


_expected: dict[str, Any] = {}  # by site


def _think(site: Site, before: Plan | None, seconds: float, seed: int, explain: bool) -> tuple[Plan, Any]:
    """A plan, and why nobody could do better where somebody has no lawful bed."""
    from streams.allocation import conflict, planner  # a solver: seconds and 100 MB that the worker is spared
    from streams.allocation.leaves import Expected

    try:
        site = _expected.setdefault(site.id, Expected()).of(site)
    except ModelAltered as error:
        log.error("stays as wards expect them: %s", error.reason)
    made = planner.plan(site, before, seconds, seed=seed)
    return made, conflict.explain(site) if explain else None
