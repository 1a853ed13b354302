"""How long until what came in can be found: measured from outside, by asking the index as a reader would."""

from __future__ import annotations

import statistics
import threading
import time
from datetime import UTC, datetime
from typing import Any

from infra.elastic import client

POLL_SECONDS = 0.1


class Watch:
    """Polls an index while traffic flows; each event's latency is first seen minus received, so a poll too long."""

    def __init__(self, index: str, of: dict[str, Any] | None = None) -> None:
        """`of`: the documents that are waited for; by default each event's first."""
        self._index, self._of = index, of or {"term": {"part": 0}}
        self._latencies: dict[str, float] = {}
        self._started, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._poll, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        with client() as server:
            # Sequence numbers grow as documents are written, so each answer holds only what is new.
            newest = server.search(index=self._index, sort=[{"_seq_no": "desc"}], size=1, source=False)["hits"]["hits"]
            seen = newest[0]["sort"][0] if newest else -1
            self._started.set()
            while not self._stop.wait(POLL_SECONDS):
                answer = server.search(
                    index=self._index,
                    query={"bool": {"filter": [self._of, {"range": {"_seq_no": {"gt": seen}}}]}},
                    sort=["_seq_no"],
                    size=2000,
                    source=False,
                    docvalue_fields=[{"field": "received_at", "format": "strict_date_time"}],
                )
                if hits := answer["hits"]["hits"]:
                    seen = hits[-1]["sort"][0]
                    self._note(hits, time.time())

    def _note(self, hits: list[dict[str, Any]], now: float) -> None:
        for hit in hits:
            if hit["_id"] not in self._latencies:
                received = datetime.fromisoformat(hit["fields"]["received_at"][0]).astimezone(UTC)
                self._latencies[hit["_id"]] = max(0.0, now - received.timestamp())

    @property
    def count(self) -> int:
        return len(self._latencies)

    def quantiles(self) -> tuple[float, float]:
        """Median and 99th percentile in seconds; zeros where nothing was seen."""
        seen = sorted(self._latencies.values())
        if len(seen) < 2:
            return (seen[0], seen[0]) if seen else (0.0, 0.0)
        cuts = statistics.quantiles(seen, n=100)
        return cuts[49], cuts[98]
