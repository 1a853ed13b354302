"""How we meet a server that fails: jittered waits, a budget for retries, and a circuit breaker, one for each target.

A worker never gives up (the partition waits, nothing is dropped), so what matters is how gently it asks. After
`TRIPS` failures in a row the circuit is open: one caller at a time probes, the others wait for what it finds. The
budget bounds retries to a tenth of what succeeds, so that a server which refuses every second request is not asked
twice as much for it (Google, Site Reliability Engineering, chapter 21).
"""

from __future__ import annotations

import asyncio
import random
import time

from infra import metrics

FIRST_SECONDS, LONGEST_SECONDS = 0.05, 3.0
LOOK_SECONDS = 0.1  # how soon those who wait see that a probe went well
TRIPS = 5  # failures in a row that open the circuit
BUDGET, EARNED = 10.0, 0.1  # retries that may be saved up; what each success adds


class Target:
    """One server as all callers of this process meet it. For the event loop, not for threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._failures = 0
        self.moved = 0.0  # time.monotonic() of its last answer, good or bad
        self._pause = 0.0
        self._probe_at = 0.0
        self._budget = BUDGET
        metrics.CIRCUIT_OPEN.labels(name).set(0)

    @property
    def open(self) -> bool:
        """Whether the target counts as away."""
        return self._failures >= TRIPS

    def admits(self) -> bool:
        """Whether a request may go now. True while the circuit is open is a probe: the next has to wait again."""
        if not self.open:
            return True
        if time.monotonic() < self._probe_at:
            return False
        self._probe_at = time.monotonic() + self._pause
        return True

    async def admitted(self) -> None:
        """Wait until a request may go."""
        while not self.admits():  # noqa: ASYNC110 - a thousand waiters would wake at once
            await asyncio.sleep(LOOK_SECONDS)

    def succeeded(self) -> None:
        if self.open:
            metrics.CIRCUIT_OPEN.labels(self.name).set(0)
        self._failures, self.moved = 0, time.monotonic()
        self._budget = min(BUDGET, self._budget + EARNED)

    def failed(self, reason: str) -> float:
        """Note a failure; gives how many seconds to wait before the next try."""
        metrics.FAILURES.labels(self.name, reason).inc()
        self._failures += 1
        self.moved = time.monotonic()
        self._pause = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self._failures - 1, 16))
        if self._budget < 1:
            self._pause = LONGEST_SECONDS
        self._budget = max(0.0, self._budget - 1)
        self._pause *= random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
        if self.open:
            metrics.CIRCUIT_OPEN.labels(self.name).set(1)
            self._probe_at = time.monotonic() + self._pause
        return self._pause
