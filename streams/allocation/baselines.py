"""What a plan has to beat: rules of thumb that move nobody, and the bare programme."""

from __future__ import annotations

import time

from streams.allocation.assign import Effort, whole
from streams.allocation.bound import relaxed
from streams.allocation.ground import Ground, Placing
from streams.allocation.plan import Plan
from streams.allocation.report import report
from streams.allocation.site import Site
from streams.allocation.start import insert, keep


def first_come(site: Site) -> Plan:
    """Whoever has waited longest gets the bed that costs least now; of equals the first."""
    return _one_by_one(site, lambda ground, n: (-ground.site.requests[n - ground.stays].waits, n))


def greedy(site: Site) -> Plan:
    """The same by priority, then by waiting."""
    return _one_by_one(
        site,
        lambda ground, n: (
            ground.site.requests[n - ground.stays].priority,
            -ground.site.requests[n - ground.stays].waits,
            n,
        ),
    )


def _one_by_one(site: Site, key) -> Plan:  # type: ignore[no-untyped-def]
    started = time.monotonic()
    ground = Ground(site)
    placing = Placing(ground)
    for n in keep(placing):
        insert(placing, n)
    for n in sorted(range(ground.stays, len(ground.needs)), key=lambda n: key(ground, n)):
        insert(placing, n)
    return report(placing, relaxed(ground)[0], time.monotonic() - started, site, None)


def bare(site: Site, seconds: float, workers: int = 1) -> Plan:
    """The whole as one CP-SAT model, without a hint: everybody nowhere until it finds something."""
    started = time.monotonic()
    ground = Ground(site)
    placing = Placing(ground)
    bound = whole(placing, seconds, Effort(seconds, workers), hinted=False)
    return report(placing, bound, time.monotonic() - started, site, None)
