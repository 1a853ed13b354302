"""Plans and alerts of the sites that a worker follows: made anew a moment after something has changed.

Changes are gathered: a plan is made once a site has been quiet for a moment, or has changed for long enough; the next
one of a site waits as long as the last one took, so that a storm of events makes a few plans and none of them waits for
one. It is worked out in a process beside the worker, which steps back behind it. While nothing happens a second process
thinks longer; what it finds is where a quick plan begins if events have passed meanwhile, and counts if it is better.

A plan is a proposal: it is told on the signals' topic, each line sealed under the key of whom it is about, and kept in
the index (schemas/sites.py). What was accepted there is where the next plan begins, and changing it has a price.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from infra import metrics
from infra.elastic import CONFLICT, NEW, Index, Place, Write, dump
from infra.errors import KeyStoreBusy, WardstreamError
from infra.kafka import Outgoing
from infra.keystore import KeyStore
from infra.settings import settings
from schemas.document import of_persons
from schemas.sites import ACCEPTED, EXPECTED, OF, PROPOSED, RAISED, number
from streams.allocation import proposal, signals
from streams.allocation.board import Board
from streams.allocation.plan import BED, INFEASIBLE, OPTIMAL, Assignment, Plan
from streams.allocation.proposal import Document
from streams.allocation.rules import check
from streams.allocation.signals import Raised
from streams.allocation.site import Site
from streams.beside import Beside, BesideFailed
from streams.occupancy import MOST_UNITS, Sites

if TYPE_CHECKING:
    from streams.allocation.conflict import Conflict  # its solver takes a second to load

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.05
QUIET_SECONDS = 0.1  # without another change, and a plan is made
LONGEST_SECONDS = 0.5  # that changes one after the other put it off
STALE_SECONDS = 300.0  # after which a site where nothing happens is planned again: time passes
EXPLAIN_SECONDS = (1.0, 4.0)  # of a search for the rules in conflict: after the plan, and once it gets no better
SLICE_SECONDS = 0.2  # of a quick plan that begins with a better one: the next event waits for it
NICE, DEEP_NICE = 5, 15
START_SECONDS, ANSWER_SECONDS = 60.0, 15.0  # for an answer: the first waits for the process and its solver
REST_SECONDS = 2.0, 300.0  # of a site whose plan failed: at first, doubled each time, at most
NOW = frozenset(("placed", "one_per_bed", "usable", "features", "sex", "isolation"))  # rules that beds break by now


class Why(Enum):
    """What a plan is made for."""

    CHANGED = "changed"
    STALE = "stale"
    BETTER = "better"
    EXPLAIN = "explain"


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

    def again(self, since: float, rest: float) -> None:
        """Nothing came of it: the change is still to be planned, after a rest."""
        self.first, self.rest = since, rest


@dataclass(slots=True)
class _State:
    """What is known of one site between two plans."""

    due: Due = field(default_factory=Due)
    board: Board | None = None  # that the last plan is for
    plan: Plan | None = None
    deep: asyncio.Task[None] | None = None  # thinks longer about the last plan
    thought: int = -1  # version of the site that was thought about longer
    found: tuple[int, Plan] | None = None  # of which version, and what
    conflict: Conflict | None = None  # why the last plan is infeasible, once that is worked out
    explained: int = 0  # how often that was tried
    document: Document | None = None  # what the index has
    raised: Raised | None = None  # None: what the index has is not read yet
    places: dict[str, Place] = field(default_factory=dict)
    failures: int = 0  # in a row
    gauges: dict[tuple[str, str], int] = field(default_factory=dict)
    planned: bool = False  # whether gauges of its plan are shown


class Planning:
    """`send` confirms messages; `documents` is the index of sites. One plan at a time: whose change is oldest first."""

    def __init__(
        self, sites: Sites, keys: KeyStore, documents: Index, send: Callable[[Sequence[Outgoing]], Awaitable[None]]
    ) -> None:
        self._sites, self._live, self._keys, self._documents, self._send = sites, sites.live, keys, documents, send
        self._beside, self._deep = Beside(NICE), Beside(DEEP_NICE)
        self._deep_rest = 0.0  # nobody thinks longer before that
        self._states: dict[str, _State] = {}

    async def run(self) -> None:
        try:
            while True:
                if (found := self._next(time.monotonic())) is None:
                    await asyncio.sleep(LOOK_SECONDS)
                else:
                    await self._work(*found)
        finally:
            self._beside.close()
            self._deep.close()

    def _next(self, now: float) -> tuple[str, Why] | None:
        for gone in [site for site in self._states if not self._sites.follows(site)]:
            self._hide(gone, self._states.pop(gone))
        due: list[tuple[float, str, Why]] = []
        for site in self._live:
            state = self._states.setdefault(site, _State())
            state.due.look(self._live.version(site), now)
            if state.due.now(now):
                since = state.due.first
                due.append((now, site, Why.STALE) if since is None else (since, site, Why.CHANGED))
            elif state.due.first is None and (why := _rest(state)) is not None:
                due.append((now + 1, site, why))
        self._think_longer(now)
        _, site, why = min(due, default=(0.0, "", None), key=lambda one: one[:2])
        return (site, why) if why is not None else None

    def _think_longer(self, now: float) -> None:
        """About one site at a time, and half of the time at most; of several the one whose gap costs most."""
        seconds = settings().plan_improve_seconds
        if seconds <= 0 or now < self._deep_rest or any(one.deep is not None for one in self._states.values()):
            return
        some = [
            (state.plan.cost - state.plan.bound, site)
            for site, state in self._states.items()
            if state.plan is not None and state.board is not None and state.due.first is None and not state.failures
            and state.plan.status != OPTIMAL and state.thought != state.due.version and state.found is None
        ]  # fmt: skip
        if some:
            _, site = max(some)
            state = self._states[site]
            state.thought = state.due.version
            state.deep = asyncio.create_task(self._deepen(site, state, seconds))

    async def _deepen(self, site: str, state: _State, seconds: float) -> None:
        began, version, board = time.monotonic(), state.due.version, state.board
        assert board is not None
        try:
            patience = START_SECONDS + 2 * seconds
            found = await self._deep.ask(patience, _think, board.site, state.plan, seconds)
            state.found = version, found
        except BesideFailed as error:
            log.error("no better plan of a site: %s", error)
            metrics.PLANS.labels("failed").inc()
        finally:
            state.deep = None
            now = time.monotonic()
            self._deep_rest = now + (now - began)

    async def _work(self, site: str, why: Why) -> None:
        """One plan of a site, and what it makes known. Whatever fails in making it, the stream goes on."""
        state, began = self._states[site], time.monotonic()
        changed = state.due.first
        state.due.begin()
        try:
            if await self._planned(site, state, why):
                state.failures = 0
            if why is Why.CHANGED and changed is not None and state.plan is not None:
                metrics.PLAN_SECONDS.observe(time.monotonic() - changed)
        except KeyStoreBusy:
            state.due.again(changed or began, time.monotonic() + LONGEST_SECONDS)
            return
        except BesideFailed as error:
            log.error("no plan of a site: %s", error)
            metrics.PLANS.labels("failed").inc()
            state.failures += 1
            rest = min(REST_SECONDS[0] * 2 ** (state.failures - 1), REST_SECONDS[1])
            state.due.again(changed or began, time.monotonic() + rest)
            return
        if why in (Why.CHANGED, Why.STALE):
            state.due.end(began, time.monotonic())

    async def _planned(self, site: str, state: _State, why: Why) -> bool:
        if site not in self._live or not self._live.declared(site):  # of others it is not known which beds are free
            return False
        if not state.planned:
            state.planned = True
            metrics.PLAN_TIME.labels(site).set_to_current_time()  # a plan that never comes is missed
        overtaken = state.found is not None and state.found[0] != self._live.version(site)
        if why in (Why.CHANGED, Why.STALE) or (why is Why.BETTER and overtaken) or state.board is None:
            merged = await asyncio.to_thread(self._keys.merged)
            if site not in self._live:
                return False
            state.board = self._live.board(site, merged=merged)
        board = state.board
        kept = await self._kept(site, state)
        before = proposal.over(proposal.of_document(kept.get(ACCEPTED), board.site.at), state.plan, board.site)
        if why is Why.EXPLAIN:
            state.conflict = await self._ask(_explain, board.site, EXPLAIN_SECONDS[state.explained])
            state.explained += 1
            plan = state.plan if state.conflict else None
        elif why is Why.BETTER and state.found is not None:
            (_, found), state.found = state.found, None
            if overtaken:
                start = proposal.over(proposal.of_document(kept.get(ACCEPTED), board.site.at), found, board.site)
                found = replace(await self._ask(_think, board.site, start, SLICE_SECONDS), bound=0.0)
            plan = await self._ask(_better, board.site, state.plan, found, before)
        else:
            state.conflict, state.explained = None, 0
            plan = await self._ask(_think, board.site, before, settings().plan_seconds)
        if plan is None or site not in self._live:
            return True  # no better, or another worker's by now
        state.plan = plan
        if await self._keep(board.site, state, proposal.document(board.site, plan, state.conflict)):
            self._show(site, plan)
            if why is not Why.EXPLAIN:
                await self._raise(board, state, kept.get(EXPECTED))
        return True

    async def _ask(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self._beside.ask(ANSWER_SECONDS if self._beside.started else START_SECONDS, function, *args)

    async def _kept(self, site: str, state: _State) -> Mapping[str, Document]:
        """What the index has of a site: what was accepted and is expected; at first what was proposed and raised."""
        fresh = state.raised is None
        states = (ACCEPTED, EXPECTED, PROPOSED, RAISED) if fresh else (ACCEPTED, EXPECTED)
        wanted = {one: number(one, site) for one in states}
        found = await self._documents.get(wanted.values())
        kept = {one: found[id][0] for one, id in wanted.items() if id in found}
        if fresh:
            state.places = {id: place for id, (_, place) in found.items()}
            state.document = kept.get(PROPOSED)
            if state.document is not None and state.board is not None:
                at = state.board.site.at
                state.plan = Plan(site, at, tuple(proposal.of_document(state.document, at)), {})
            state.raised, alerts = proposal.raised_of(kept.get(RAISED))
            # who was killed may not have told them
            await self._tell([proposal.alert(one) for one in alerts])
            if state.document is not None:
                await self._tell(await asyncio.to_thread(self._messages, state.document))
        return kept

    async def _keep(self, site: Site, state: _State, made: Document) -> bool:
        """Keep a plan, then tell what is new; False where another worker has kept a later one, or somebody in it was
        erased meanwhile."""
        untold = proposal.untold(made, state.document, site)
        gone = await asyncio.to_thread(self._keys.erased, {proposal.person(line) for line in untold})
        proposal.tells(made, [line for line in untold if proposal.person(line) not in gone])
        named = {*made["patient_ref"], *made["staff_ref"]}
        if await self._erased(named):
            return False
        if not await self._write(state, number(PROPOSED, site.id), made):
            return False
        if await self._erased(named):  # between: the erasure may have looked too early
            return False
        state.document = made
        await self._tell(await asyncio.to_thread(self._messages, made))
        return True

    async def _erased(self, named: set[str]) -> bool:
        """Whether one of them was; then nothing that names them stays, and sites are read anew."""
        if gone := await asyncio.to_thread(self._keys.erased, named):
            await self._documents.remove_of(of_persons(gone))
            self._sites.forget()
            shown = ((site, _State(gauges=one.gauges, planned=one.planned)) for site, one in self._states.items())
            self._states = dict(shown)
        return bool(gone)

    async def _write(self, state: _State, id: str, made: Document) -> bool:
        """In the place of what was read or written last, whoever wrote since, if that was not of a later moment."""
        while True:
            places: dict[str, Place] = {}
            refused = await self._documents.bulk([Write(id, dump(made), state.places.get(id, NEW))], places)
            if not refused:
                state.places |= places
                return True
            if refused[id] != CONFLICT:
                raise BesideFailed(refused[id])
            found = await self._documents.get([id])
            if id in found and found[id][0]["event_time"] > made["event_time"]:
                return False
            state.places |= {id: found[id][1] if id in found else NEW}

    def _messages(self, made: Document) -> list[Outgoing]:
        return proposal.messages(made, made["untold"], self._keys.living)

    async def _tell(self, messages: Sequence[Outgoing]) -> None:
        await self._send(messages)
        for one in messages:
            metrics.SIGNALS.labels(OF.name, dict(one.headers)["signal"].decode()).inc()

    async def _raise(self, board: Board, state: _State, expected: Document | None) -> None:
        """Alerts that begin or end, of declared units. Kept before they are told: told twice, one has the same id."""
        site = replace(board.site, beds={id: bed for id, bed in board.site.beds.items() if bed.unit in board.declared})
        broken = [(one.kind, one.bed) for one in board.conflicts] + _broken(board.site)
        broken = [(rule, where) for rule, where in broken if where.partition("|")[0] in board.declared or not where]
        forecasts = proposal.forecasts_of(expected, site.at)
        raised, told = signals.step(state.raised or Raised(), site, forecasts, broken)
        if told:
            made = proposal.raised_document(site.id, raised, told)
            if not await self._write(state, number(RAISED, site.id), made):
                return
            await self._tell([proposal.alert(one) for one in told])
        state.raised = raised
        active = dict(signals.active(raised)) if len(board.declared) <= MOST_UNITS else {}
        for unit, signal in state.gauges.keys() - active.keys():
            metrics.SITE_SIGNALS.remove(site.id, unit, signal)
        for (unit, signal), count in active.items():
            metrics.SITE_SIGNALS.labels(site.id, unit, signal).set(count)
        state.gauges = active

    def _show(self, site: str, plan: Plan) -> None:
        metrics.PLANS.labels(plan.status).inc()
        metrics.PLAN_GAP.labels(site).set(plan.gap)
        metrics.PLAN_TIME.labels(site).set(datetime.fromisoformat(plan.at).timestamp())
        metrics.PLAN_BEDLESS.labels(site).set(sum(one.rule in ("placed", "due") for one in plan.breaches))

    def _hide(self, site: str, state: _State) -> None:
        """Gauges of a site that is followed no more."""
        for unit, signal in state.gauges:
            metrics.SITE_SIGNALS.remove(site, unit, signal)
        if state.planned:
            for gauge in (metrics.PLAN_GAP, metrics.PLAN_TIME, metrics.PLAN_BEDLESS):
                gauge.remove(site)


def _rest(state: _State) -> Why | None:
    """What is left to do for a site where nothing happens."""
    if state.plan is None or state.board is None or state.failures:
        return None
    if state.found is not None:
        return Why.BETTER
    thinking = state.deep is not None or (state.plan.status != OPTIMAL and state.thought != state.due.version)
    if state.plan.status == INFEASIBLE and state.conflict is None and state.explained < (1 if thinking else 2):
        return Why.EXPLAIN
    return None


def _broken(site: Site) -> list[tuple[str, str]]:
    """Rules that are broken as everybody lies now, and where."""
    lines = tuple(Assignment(BED, one.need.ref, one.bed, 0.0, one.bed) for one in site.stays)
    breaches, _ = check(site, Plan(site.id, site.at, lines, {}))
    return [(one.rule, one.where) for one in breaches if one.rule in NOW]


# ------------------------------------------------------------------------------------------ in the process beside


_expected: dict[str, Any] = {}  # by site


def _think(site: Site, before: Plan | None, seconds: float) -> Plan:
    """A plan, with who leaves when as the promoted model has it."""
    from streams.allocation import planner  # a solver: seconds and 100 MB that the worker is spared

    return planner.plan(_leaving(site), before, seconds)


def _better(site: Site, last: Plan, found: Plan, before: Plan | None) -> Plan | None:
    """What was found, if it breaks fewer rules than the last plan or costs less, both with changes from `before`; else
    the last one, if more of it is proven now; else None."""
    site = _leaving(site)
    (breaches, costs), (broken, paid) = check(site, found, before), check(site, last, before)
    fewer, cost, least = len(breaches) - len(broken), round(sum(costs.values()), 2), round(sum(paid.values()), 2)
    if fewer < 0 or (fewer == 0 and cost < least):
        return replace(found, costs=costs, bound=min(cost, found.bound))
    if fewer == 0 and found.bound > last.bound + 0.01:
        return replace(last, costs=paid, bound=min(least, found.bound))
    return None


def _explain(site: Site, seconds: float) -> Conflict | None:
    from streams.allocation import conflict

    return conflict.explain(_leaving(site), seconds)


def _leaving(site: Site) -> Site:
    from streams.allocation.expected import Expected

    try:
        made: Site = _expected.setdefault(site.id, Expected()).of(site)
    except WardstreamError as error:  # a model that cannot be read; the ward's own word is left
        log.error("stays as wards expect them: %s", error.reason)
        return site
    return made
