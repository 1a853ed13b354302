"""Runs the Faust app with all agents in one process, until a signal or a crash."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any, NoReturn

import faust

from infra import metrics
from infra.health import health
from infra.runtime import less_garbage_collection
from schemas.registry import DOMAINS, Domain
from streams import agent
from streams.app import app

SITES_SECONDS = 5  # from one look at the sites' gauges to the next
STOP_SECONDS = 8.0  # longest way to the end: Faust's own waits for a broker that may be away


def run() -> NoReturn:
    """Blocks. A crash of an agent ends the process with a code other than 0: the supervisor starts a new one.

    All but code 8: at the dead-letter limit a person has to look first.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("elastic_transport").setLevel(logging.WARNING)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    less_garbage_collection()
    for domain in DOMAINS.values():
        agent.register(domain)
    app.task(health.watch_loop)
    app.task(_watch_lag)
    app.task(_watch_sites)
    health.watchdog()
    threading.Thread(target=_end_in_time, name="end", daemon=True).start()
    logging.info("metrics and health on port %d; agents: %s", health.serve(), ", ".join(DOMAINS))
    try:
        faust.Worker(app, loglevel="WARNING", redirect_stdouts=False, quiet=True).execute_from_commandline()
    except SystemExit as end:
        if agent.failures:
            raise SystemExit(agent.failures[0].exit_code) from None
        raise SystemExit(end.code) from None


def _end_in_time() -> None:
    """What was not acknowledged is read again, so an end may be abrupt; it may not be late."""
    while not app.should_stop:
        time.sleep(0.2)
    time.sleep(STOP_SECONDS)
    logging.warning("still not ended after %.0f s: ending", STOP_SECONDS)
    os._exit(agent.failures[0].exit_code if agent.failures else int(app._crashed.is_set()))


async def _watch_lag() -> None:
    """Keep the gauges of what waits: on the topics, for this worker's partitions, and in its hands."""
    while True:
        await asyncio.sleep(1)
        for domain in DOMAINS.values():
            if domain.name not in agent.AGENTS:
                continue
            of, wanted = agent.AGENTS[domain.name], agent.GAPLESS[domain.name].wanted
            mine = _mine(domain)
            ends = {place: app.consumer.highwater(place) or 0 for place in mine}
            known = app.consumer._committed_offset  # by partition, once Faust has asked; None is none
            waiting = sum(
                max(0, ends[place] - max(wanted.get(place, 0), known[place] or 0)) for place in mine if place in known
            )
            of.waits_for(waiting)
            metrics.LAG_EVENTS.labels(domain.name).set(waiting)
            metrics.OLDEST_SECONDS.labels(domain.name).set(of.oldest_seconds())


def _mine(domain: Domain) -> list[Any]:
    return [place for place in app.consumer.assignment() if place.topic == domain.raw.name]


async def _watch_sites() -> None:
    """Apart from the lag: it may wait for the index."""
    while True:
        await asyncio.sleep(SITES_SECONDS)
        for domain in DOMAINS.values():
            if domain.name in agent.AGENTS:
                await agent.AGENTS[domain.name].watch_sites({place.partition for place in _mine(domain)})


async def _lost(*_: Any, **__: Any) -> None:
    for of in agent.AGENTS.values():
        of.lost()


app.on_partitions_revoked.connect(_lost)
