"""`make bench`: events a second through the whole path, beside the ceiling of the same finished documents in bulk.

Both run on one stack, one after the other, `REPEATS` times; `build/bench.json` has the medians and the spread.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from infra.elastic import Index, Write, async_client, client, create_index, dump
from infra.settings import settings
from schemas.registry import DOMAINS

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(ROOT / "wardstream.py")]
PATIENTS, REPEATS, BULK = 700, 3, 2000
WARM_UP = 100  # patients of a first round that is not counted: a server just started is slow at everything
DOMAIN = DOMAINS["ehr"]
console = Console()


def run(*arguments: str) -> None:
    subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)


def documents() -> int:
    with client() as server:
        server.indices.refresh(index=DOMAIN.alias)
        return int(server.count(index=DOMAIN.alias, query={"range": {"part": {"gte": 0}}})["count"])


def events_per_second(folder: Path, seed: int, patients: int) -> tuple[float, float]:
    """From the first file read to the last outcome known: everything that `produce files` does.

    Gives events and documents a second.
    """
    from producers.simulate.hospital import Hospital

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    story = {one.body for one in Hospital(seed, patients, datetime.now(UTC)).events()}
    for number, body in enumerate(story):
        (folder / f"{number:06}.hl7").write_bytes(body)
    before, started = documents(), time.perf_counter()
    run("produce", "files", str(folder))  # ends when each message has its outcome
    seconds = time.perf_counter() - started
    return len(story) / seconds, (documents() - before) / seconds


async def _bulk(index: str, writes: list[Write]) -> float:
    server = async_client()
    target = Index(server, index)
    started = time.perf_counter()
    for start in range(0, len(writes), BULK):
        refused = await target.bulk(writes[start : start + BULK])
        assert not refused
    seconds = time.perf_counter() - started
    await server.close()
    return len(writes) / seconds


def ceiling(number: int) -> float:
    """Documents a second when all that is left to do is to write them: finished ones, read back from the index."""
    writes: list[Write] = []
    after = None
    with client() as server:
        while len(writes) < 20_000:
            page = server.search(
                index=DOMAIN.alias, size=5000, sort=["event_id", "part"], search_after=after,
                query={"range": {"part": {"gte": 0}}},
            )["hits"]["hits"]  # fmt: skip
            if not page:
                break
            writes += [Write(hit["_id"], dump(hit["_source"])) for hit in page]
            after = page[-1]["sort"]
    create_index(f"ceiling-{number}", f"ceiling-{number}-v1", DOMAIN.mapping())
    try:
        return asyncio.run(_bulk(f"ceiling-{number}", writes))
    finally:
        with client() as server:
            server.indices.delete(index=f"ceiling-{number}-v1")


def spread(values: list[float]) -> float:
    """Range over median."""
    return (max(values) - min(values)) / statistics.median(values)


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="wardstream-bench-"))
    os.environ["WARDSTREAM_HOME"] = str(home)
    settings.cache_clear()
    events, docs, ceilings = [], [], []
    try:
        run("up", "--detach")
        events_per_second(home / "messages", REPEATS, WARM_UP)
        for number in range(REPEATS):
            one, made = events_per_second(home / "messages", number, PATIENTS)
            top = ceiling(number)
            console.print(f"{number + 1}/{REPEATS}: {one:.0f} events/s, {made:.0f} documents/s; ceiling {top:.0f}")
            events.append(one)
            docs.append(made)
            ceilings.append(top)
    finally:
        run("down")
        shutil.rmtree(home, ignore_errors=True)
    top = statistics.median(ceilings)
    rows = [
        {
            "name": "end_to_end_ehr",
            "value": round(statistics.median(docs), 1),
            "unit": "documents/s",
            "ratio": round(statistics.median(docs) / top, 3),
            "ratio_to": "bulk_ceiling_ehr",
            "spread": round(spread(docs), 3),
        },
        {
            "name": "events_ehr",
            "value": round(statistics.median(events), 1),
            "unit": "events/s",
            "ratio": None,
            "ratio_to": None,
            "spread": round(spread(events), 3),
        },
        {
            "name": "bulk_ceiling_ehr",
            "value": round(top, 1),
            "unit": "documents/s",
            "ratio": 1.0,
            "ratio_to": "bulk_ceiling_ehr",
            "spread": round(spread(ceilings), 3),
        },
    ]
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "bench.json").write_text(json.dumps(rows, indent=2) + "\n")
    console.print_json(data=rows)


if __name__ == "__main__":
    main()
