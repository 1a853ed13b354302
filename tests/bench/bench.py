"""`make bench`: what the path does in a second, beside a ceiling and peers, measured in turns on one stack.

    python tests/bench/bench.py [--repeats N] [--quick] [--only ROW ...] [--long]
    python tests/bench/bench.py --overload | --replay | --profile

Rounds are interleaved (A B C A B C ...), so that a slow minute of the machine meets all of them. build/bench.json has
medians and spread (range over median), build/bench.svg the picture.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import beds
import dimse
import images
import load
import outcomes
import plan
import seal
import similar
import survival
from elasticsearch.helpers import scan
from peers import group
from rich.console import Console
from rich.table import Table
from world import (
    COMMAND,
    DOMAIN,
    ROOT,
    WORKERS,
    cpu_seconds,
    documents,
    listener,
    machine,
    process,
    run,
    run_json,
    servers,
    skip_to_end,
    stack,
    until_idle,
    waiting,
)

from infra.elastic import Index, Write, async_client, client, create_index, dump
from infra.kafka import Outgoing, Producer
from infra.keyring import Keyring
from infra.visible import Watch
from producers.simulate.cohort import Cohort
from producers.simulate.mllp_client import control_id, send
from schemas.envelope import event_id
from schemas.registry import DOMAINS
from schemas.topics import SIGNALS
from streams.ehr.features import TARGETS

BULK, CEILING = 2000, 60_000
LINES = 200  # connections of the overload
LIVE = 20_000  # messages beside a replay
ALONE = {"plan", "survival"}  # rounds that need no servers
PACE = 500  # messages a second of the paced rounds
console = Console(stderr=True)
Rows = dict[str, list[float]]


class Bench:
    def __init__(self, home: Path, quick: bool) -> None:
        self.home = home
        self.patients = 150 if quick else 2000
        self.sent = 1000 if quick else 6000  # messages of one MLLP round
        self.seconds = 20 if quick else 60  # of steady load
        self.rows: Rows = defaultdict(list)
        self._seed = 0

    def fresh(self, patients: int) -> list[load.Message]:
        self._seed += 1
        return load.hospital(self._seed, patients)

    def end_to_end(self, worker: str) -> None:
        """From the first file read to the last outcome known, with one worker of that kind."""
        name = {"ours": "ehr"}.get(worker, worker)
        skip_to_end(group(worker))
        with process(self.home, worker, WORKERS[worker]) as running:
            self.produce(self.fresh(20))  # the worker has joined, and is warm
            messages = self.fresh(self.patients)
            load.files(self.home / "messages", messages)
            there = servers() | {"worker": running}
            before, cpu = documents(), {role: cpu_seconds(one) for role, one in there.items()}
            mine, started = os.times(), time.perf_counter()
            run("produce", "files", str(self.home / "messages"))
            seconds = time.perf_counter() - started
            if worker == "ours":
                for role, one in there.items():
                    self.rows[f"cpu_{role}"].append((cpu_seconds(one) - cpu[role]) / len(messages) * 1000)
                now = os.times()
                children = now.children_user + now.children_system - mine.children_user - mine.children_system
                self.rows["cpu_publisher"].append(children / len(messages) * 1000)
            self.rows[f"end_to_end_{name}"].append((documents() - before) / seconds)
            self.rows[f"events_{name}"].append(len(messages) / seconds)

    def produce(self, messages: list[load.Message]) -> None:
        load.files(self.home / "messages", messages)
        run("produce", "files", str(self.home / "messages"))

    def ceiling(self) -> None:
        """Documents a second when all that is left to do is to write them: finished ones, read back."""
        parts = {"query": {"range": {"part": {"gte": 0}}}}
        with client() as server:
            found = itertools.islice(scan(server, index=DOMAIN.alias, query=parts), CEILING)
            writes = [Write(hit["_id"], dump(hit["_source"])) for hit in found]
        create_index("ceiling", "ceiling-1", DOMAIN.mapping())
        try:
            self.rows["bulk_ceiling_ehr"].append(asyncio.run(_bulk("ceiling", writes)))
        finally:
            with client() as server:
                server.indices.delete(index="ceiling-1")

    def kafka(self) -> None:
        """Bare confirmed sends of what our sealed messages weigh: as many as go; one at a time on 1 and 50 lanes."""
        given = [(f"header_{number}", os.urandom(24)) for number in range(13)]
        asyncio.run(self._kafka([Outgoing(SIGNALS.name, os.urandom(16), os.urandom(1300), given)] * 20_000))

    async def _kafka(self, sample: list[Outgoing]) -> None:
        producer = Producer()
        started = time.perf_counter()
        await producer.send(sample)
        self.rows["kafka_confirmed_produce"].append(len(sample) / (time.perf_counter() - started))
        for lanes in (1, 50):
            each = [sample[lane::lanes][: max(1, self.sent // 2 // lanes)] for lane in range(lanes)]
            taken: list[float] = []
            await asyncio.gather(*(_one_by_one(producer, some, taken) for some in each))
            self._quantiles(f"kafka_confirm_{lanes}", taken)
        taken = []
        await _paced(producer, sample[: PACE * self.seconds // 3], taken)
        self._quantiles("kafka_paced", taken)
        await asyncio.to_thread(producer.close)

    def mllp(self, connections: int, rate: float, name: str) -> None:
        """How long answers took, without a worker, so that the feed alone is measured; rate 0 is closed loop."""
        made = load.hospital_of(self.sent, 7000 + self._seed)
        messages = [load.Message(one.body, str(number)) for number, one in enumerate(made)]  # over all connections
        self._seed += 50
        with listener(self.home) as (port, _):
            asyncio.run(send(messages[:200], "127.0.0.1", port, rate, connections))
            done = asyncio.run(send(messages[200:], "127.0.0.1", port, rate, connections))
        self.rows[f"mllp_answers_{name}"].append(len(done.latencies) / done.seconds)
        self._quantiles(f"mllp_{name}", done.latencies)

    def visible(self, rate: float = 500) -> None:
        """Wire to searchable at a steady rate on a fixed schedule."""
        messages = load.hospital_of(int(rate * self.seconds), 9000 + self._seed)
        self._seed += 50
        skip_to_end(group("ours"))
        with process(self.home, "ours", WORKERS["ours"]), listener(self.home) as (port, _):
            asyncio.run(send(messages[:1500], "127.0.0.1", port, rate / 2, connections=50))
            until_idle(60)
            with Watch(DOMAIN.alias) as watch:
                done = asyncio.run(send(messages[1500:], "127.0.0.1", port, rate, connections=50))
                until_idle(60)
                time.sleep(1.5)
            p50, p99 = watch.quantiles()
        if watch.count < done.acknowledged:  # slow ones must not be left out of the account
            raise RuntimeError(f"{done.acknowledged} acknowledged, {watch.count} found")
        self.rows["wire_to_searchable_rate"].append(done.sent / done.seconds)
        self.rows["wire_to_searchable_p50"].append(p50)
        self.rows["wire_to_searchable_p99"].append(p99)

    def scored(self) -> None:
        """What scoring adds to an event at a steady rate, every target with a forest, on a hospital's usual traffic and
        on a cohort's, where every second message is a set of vital signs; and how long a score takes to be found."""
        cohort = [load.Message(one.body, one.patient) for one in Cohort(9, 400, datetime.now(UTC)).tell().messages]
        with process(self.home, "ours", WORKERS["ours"]):
            self.produce(cohort[: len(cohort) // 2])
        for target in TARGETS:
            trained = run_json("models", "train", target, "--algorithm", "random_forest", "--json")
            run("models", "promote", trained[-1]["name"], trained[-1]["version"], "--force")
        count = PACE * self.seconds
        usual, vitals = load.hospital_of(2 * count, 8000), cohort[len(cohort) // 2 :]
        for traffic, messages in (("", usual), ("_vitals", vitals)):
            half = min(count, len(messages) // 2)
            for scoring, some in (("false", messages[:half]), ("true", messages[half : 2 * half])):
                self._scored(scoring, some, traffic)

    def _scored(self, scoring: str, messages: list[load.Message], traffic: str) -> None:
        skip_to_end(group("ours"))
        worker = ["env", f"WARDSTREAM_SCORING={scoring}", *WORKERS["ours"]]
        with process(self.home, "ours", worker) as running, listener(self.home) as (port, _):
            warm = len(messages) // 5
            asyncio.run(send(messages[:warm], "127.0.0.1", port, PACE, connections=50))
            until_idle(60)
            there = [*servers().values(), running, *running.children(recursive=True)]
            before = sum(cpu_seconds(one) for one in there)
            with Watch(DOMAIN.alias, {"term": {"kind": "score"}}) as watch:
                asyncio.run(send(messages[warm:], "127.0.0.1", port, PACE, connections=50))
                until_idle(60)
                time.sleep(1.5)
            spent = sum(cpu_seconds(one) for one in there) - before
        name = "scored" if scoring == "true" else "unscored"
        self.rows[f"cpu_{name}{traffic}"].append(spent / (len(messages) - warm) * 1000)
        if scoring == "true":
            p50, p99 = watch.quantiles()
            self.rows[f"scores{traffic}"].append(watch.count / (len(messages) - warm))
            self.rows[f"wire_to_scored{traffic}_p50"].append(p50)
            self.rows[f"wire_to_scored{traffic}_p99"].append(p99)

    def beds(self) -> None:
        """Events of one site into its live state, as fast as they go; then, one at a time, event to plan."""
        self._seed += 1
        site = beds.named(plan.site(200, 80, self._seed), f"BENCH{self._seed}")
        path = self.home / "beds.ndjson"
        with process(self.home, "ours", WORKERS["ours"]), listener(self.home, "operations") as (port, _):
            for some in (list(beds.events(site)), list(beds.changes(site, self.sent))):
                path.write_text("".join(f"{json.dumps(one)}\n" for one in some))
                started = time.perf_counter()
                run("produce", "operations", str(path))
                until_idle(120, DOMAINS["allocation"])
                rate = len(some) / (time.perf_counter() - started)
            self.rows["beds_events"].append(rate)
            time.sleep(15)  # the plan gets better while nothing happens
            self._quantiles("event_to_plan", beds.planned(site, port, 10 if self.seconds < 60 else 40))

    def outcomes(self) -> None:
        """Cases as fast as they go; then what became of each at a steady pace, to the charts that count it."""
        self._seed += 1
        site, count = f"BENCHOUT{self._seed}", PACE * self.seconds
        path = self.home / "cases.ndjson"
        with process(self.home, "ours", WORKERS["ours"]), listener(self.home, "operations") as (port, _):
            path.write_text("".join(f"{json.dumps(one)}\n" for one in outcomes.cases(site, count)))
            started = time.perf_counter()
            run("produce", "operations", str(path))
            until_idle(300, DOMAINS["quality"])
            self.rows["cases_events"].append(count / (time.perf_counter() - started))
            self._quantiles("outcome_to_chart", asyncio.run(outcomes.charted(site, count, PACE, port)))

    def dicom(self, count: int) -> None:
        """Images into our node beside others', and one of 2 GB, without a worker: the feed alone is measured."""
        with tempfile.TemporaryDirectory(dir=self.home) as folder, listener(self.home, "dicom") as (port, running):
            for name, value in (*dimse.rows(Path(folder), port, count), *dimse.large(port, running)):
                self.rows[name].append(value)

    def images(self) -> None:
        """Images at a steady pace, to what their pixels are like."""
        self._seed += 1
        with process(self.home, "ours", WORKERS["ours"]), listener(self.home, "dicom") as (port, _):
            images.searchable(port, 2, 2, f"WARM{self._seed}")  # until the processes have their imports
            self._quantiles("image_searchable", images.searchable(port, 10, self.seconds, f"BENCH{self._seed}"))

    def seal(self) -> None:
        """Fields sealed and opened again, keys looked up, beside the bare cipher; one thread."""
        with tempfile.TemporaryDirectory(dir=self.home) as folder:
            for name, rate in seal.throughput(Path(folder)).items():
                self.rows[name].append(rate)

    def _quantiles(self, name: str, taken: Iterable[float]) -> None:
        cuts = statistics.quantiles(taken, n=100)
        self.rows[f"{name}_p50"].append(cuts[49])
        self.rows[f"{name}_p99"].append(cuts[98])

    def memory(self, count: int) -> None:
        """The worker's resident memory over many messages: how much it grows in the second half."""
        skip_to_end(group("ours"))
        with process(self.home, "ours", WORKERS["ours"]) as running, listener(self.home) as (port, _):
            seen: list[tuple[int, float]] = []
            tag, size = f"M{int(time.time())}", 5000
            for at in range(0, count, size):
                some = list(load.small(size, f"{tag}-{at}-"))
                asyncio.run(send(some, "127.0.0.1", port, connections=50))
                until_idle(120)
                seen.append((at + size, running.memory_info().rss / 2**20))
                console.print(f"  {at + size} messages: worker {seen[-1][1]:.0f} MiB", highlight=False)
        half = [mib for _, mib in seen[len(seen) // 2 :]]
        self.rows["worker_memory"].append(max(mib for _, mib in seen))
        self.rows["worker_memory_growth"].append((half[-1] - half[0]) / max(1, (len(half) - 1) * size) * 100_000)
        (ROOT / "build" / "memory.json").write_text(json.dumps(seen))

    def similar(self, patients: int) -> None:
        for name, value in similar.rows(patients):
            self.rows[name].append(value)

    def plan(self, quick: bool) -> None:
        for name, value in plan.rows(*((plan.QUICK, 1.0) if quick else ())):
            self.rows[name].append(value)

    def survival(self, quick: bool, repeats: int) -> None:
        for name, value in survival.rows(survival.QUICK if quick else survival.SIZES, repeats):
            self.rows[name].append(value)

    def replay(self, count: int) -> dict[str, Any]:
        """Rebuild so many records beside live traffic, while somebody counts all the time: a count may never fall."""
        skip_to_end(group("ours"))
        counts: list[int] = []
        over = threading.Event()

        def watch() -> None:
            with client() as server:
                while not over.wait(0.01):
                    counts.append(server.count(index=DOMAIN.alias, query={"range": {"part": {"gte": 0}}})["count"])

        with process(self.home, "ours", WORKERS["ours"]), listener(self.home) as (port, _):
            asyncio.run(send(load.small(count, f"R{int(time.time())}"), "127.0.0.1", port, connections=50))
            until_idle(600)
            watching = threading.Thread(target=watch)
            watching.start()
            live = threading.Thread(
                target=lambda: asyncio.run(send(load.small(LIVE, f"L{int(time.time())}"), "127.0.0.1", port, 100, 50))
            )
            live.start()
            done = subprocess.run(
                [*COMMAND, "replay", "--into", f"{DOMAIN.name}-rebuilt", "--json"], capture_output=True, text=True
            )
            if done.returncode:
                raise RuntimeError(done.stderr)
            rebuilt_while_live = live.is_alive()
            live.join()
            until_idle(120)
            over.set()
            watching.join()
        fell = sum(later < earlier for earlier, later in itertools.pairwise(counts))
        missing = 2 * (count + LIVE) - documents()  # each has two
        figures = {"searches": len(counts), "fell": fell, "missing": missing, "live_traffic": rebuilt_while_live}
        return json.loads(done.stdout) | figures

    def overload(self, times: float = 3.0, seconds: float = 180.0) -> dict[str, Any]:
        """Three times what one worker can do, for three minutes; then until nothing waits."""
        skip_to_end(group("ours"))
        with process(self.home, "ours", WORKERS["ours"]) as worker, listener(self.home) as (port, feed):
            tag = f"O{int(time.time())}"
            for name, count in (("v", 2000), ("w", 10_000)):  # the second is timed, by workers that have joined
                warm = list(load.panels(count, f"{tag}{name}"))
                started = time.monotonic()
                asyncio.run(send(warm, "127.0.0.1", port, connections=50))
                until_idle(120)
                capacity = count / (time.monotonic() - started)
            rate = times * capacity
            answers: Counter[str] = Counter()
            accepted: set[str] = set()
            peak = {"worker": 0.0, "listener": 0.0}
            key, source = Keyring.open(self.home / "keys" / "keyring.json").event, f"hl7v2:BENCH|{tag}"

            def note(message: load.Message, answer: Any) -> None:
                code = answer.code if answer else "none"
                answers[code if code != "AR" else f"AR {_reason(answer.body)}"] += 1
                if code == "AA":
                    accepted.add(event_id(key, source, ("BENCH", tag, control_id(message.body).decode()), message.body))
                if answers.total() % 2000 == 0:
                    for name, one in (("worker", worker), ("listener", feed)):
                        peak[name] = max(peak[name], one.memory_info().rss / 2**20)

            until = time.monotonic() + seconds
            endless = load.panels(int(10 * rate * seconds), tag)
            some = itertools.takewhile(lambda _: time.monotonic() < until, endless)
            done = asyncio.run(send(some, "127.0.0.1", port, rate, LINES, note, attempts=1))
            waits = waiting()
            behind = until_idle(3600)
        parts: Counter[str] = Counter()
        with client() as server:
            server.indices.refresh(index=DOMAIN.alias)
            of_run = {"query": {"bool": {"filter": [{"term": {"source": source}}, {"range": {"part": {"gte": 0}}}]}}}
            for hit in scan(server, index=DOMAIN.alias, query=of_run, size=5000, _source=["event_id"]):
                parts[hit["_source"]["event_id"]] += 1
        return {
            "capacity": round(capacity),
            "wanted_per_second": round(rate),
            "sent_per_second": round(done.sent / done.seconds),
            "sent": done.sent,
            "answers": dict(answers),
            "waited_at_the_end": waits,
            "lost": sum(parts[event] != load.PANEL_DOCUMENTS for event in accepted),
            "seconds_until_lag_zero": round(behind),
            "peak_mib": {name: round(mib) for name, mib in peak.items()},
        }


def _reason(answer: bytes) -> str:
    """ERR-5, as our listener fills it, of an answer that refuses."""
    line = next((one for one in answer.split(b"\r") if one.startswith(b"ERR|")), b"")
    return (line.split(b"|") + [b""] * 6)[5].decode()


async def _bulk(index: str, writes: list[Write]) -> float:
    server = async_client()
    target = Index(server, index)
    started = time.perf_counter()
    for start in range(0, len(writes), BULK):
        assert not await target.bulk(writes[start : start + BULK])
    seconds = time.perf_counter() - started
    await server.close()
    return len(writes) / seconds


async def _timed(producer: Producer, message: Outgoing, taken: list[float]) -> None:
    started = time.perf_counter()
    await producer.send([message])
    taken.append(time.perf_counter() - started)


async def _paced(producer: Producer, some: list[Outgoing], taken: list[float]) -> None:
    """On a schedule fixed at the start, however long each takes."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, message in enumerate(some):
            await asyncio.sleep(max(0.0, began + number / PACE - time.perf_counter()))
            group.create_task(_timed(producer, message, taken))


async def _one_by_one(producer: Producer, some: list[Outgoing], taken: list[float]) -> None:
    for message in some:
        await _timed(producer, message, taken)


# Name, unit, and the row that it is divided by.
TABLE: tuple[tuple[str, str, str | None], ...] = (
    ("end_to_end_ehr", "documents/s", "bulk_ceiling_ehr"),
    ("bulk_ceiling_ehr", "documents/s", None),
    ("end_to_end_aiokafka", "documents/s", "bulk_ceiling_ehr"),
    ("end_to_end_quix", "documents/s", "bulk_ceiling_ehr"),
    ("end_to_end_ehr_to_aiokafka", "", "end_to_end_aiokafka"),
    ("end_to_end_ehr_to_quix", "", "end_to_end_quix"),
    ("events_ehr", "events/s", None),
    ("events_aiokafka", "events/s", None),
    ("events_quix", "events/s", None),
    ("kafka_confirmed_produce", "events/s", None),
    ("kafka_confirm_1_p50", "s", None),
    ("kafka_confirm_1_p99", "s", None),
    ("kafka_confirm_50_p50", "s", None),
    ("kafka_confirm_50_p99", "s", None),
    ("kafka_paced_p50", "s", None),
    ("kafka_paced_p99", "s", None),
    ("mllp_answers_1", "answers/s", None),
    ("mllp_1_p50", "s", "kafka_confirm_1_p50"),
    ("mllp_1_p99", "s", "kafka_confirm_1_p99"),
    ("mllp_answers_50", "answers/s", None),
    ("mllp_50_p50", "s", "kafka_confirm_50_p50"),
    ("mllp_50_p99", "s", "kafka_confirm_50_p99"),
    ("mllp_paced_p50", "s", "kafka_paced_p50"),
    ("mllp_paced_p99", "s", "kafka_paced_p99"),
    ("wire_to_searchable_rate", "messages/s", None),
    ("wire_to_searchable_p50", "s", None),
    ("wire_to_searchable_p99", "s", None),
    ("cpu_worker", "CPU s per 1,000 events", None),
    ("cpu_publisher", "CPU s per 1,000 events", None),
    ("cpu_kafka", "CPU s per 1,000 events", None),
    ("cpu_elasticsearch", "CPU s per 1,000 events", None),
    *(
        (f"{name}{traffic}", unit, beside and f"{beside}{traffic}")
        for traffic in ("", "_vitals")
        for name, unit, beside in (
            ("cpu_unscored", "CPU s per 1,000 events", None),
            ("cpu_scored", "CPU s per 1,000 events", "cpu_unscored"),
            ("scores", "scores an event", None),
        )
    ),
    *((f"wire_to_scored{traffic}_{cut}", "s", None) for traffic in ("", "_vitals") for cut in ("p50", "p99")),
    ("beds_events", "events/s", None),
    ("event_to_plan_p50", "s", None),
    ("event_to_plan_p99", "s", None),
    ("cases_events", "events/s", None),
    ("outcome_to_chart_p50", "s", None),
    ("outcome_to_chart_p99", "s", None),
    ("seal_open_fields", "fields/s", "bare_aes_gcm"),
    ("bare_aes_gcm", "fields/s", None),
    ("fernet_fields", "fields/s", "bare_aes_gcm"),
    *(
        (f"similar_{name}{kind}", unit, None)
        for kind in ("", "_tail")
        for name, unit in (
            ("recall", "recall"),
            ("recall_hnsw", "recall"),
            ("p50", "s"),
            ("p99", "s"),
            ("fit", "s"),
            ("filled", "patients/s"),
        )
    ),
    *(
        (f"plan_{beds}_{name}", unit, beside and f"plan_{beds}_{beside}")
        for beds in plan.SIZES
        for name, unit, beside in (
            ("first_seconds", "s", None),
            ("first_gap", "gap", None),
            ("p50_seconds", "s", None),
            ("p99_seconds", "s", None),
            ("gap", "gap", None),
            ("greedy_seconds", "s", "first_seconds"),
            ("greedy_gap", "gap", "first_gap"),
            ("first_come_seconds", "s", "first_seconds"),
            ("first_come_gap", "gap", "first_gap"),
            ("bare_seconds", "s", "first_seconds"),
            ("bare_gap", "gap", "first_gap"),
        )
    ),
    *(
        (f"{fit}_{survival.name(size)}", "s", beside and f"{beside}_{survival.name(size)}")
        for size in survival.SIZES
        for fit, beside in (
            ("cox", "lifelines"),
            ("frailty", "lifelines"),
            ("lifelines", None),
            ("lifelines_batch", None),
        )
    ),
    *(
        (f"dicom_{name}_{lines}", "images/s", f"dicom_orthanc_{lines}" if name != "orthanc" else None)
        for lines in dimse.LINES
        for name in ("ours", "orthanc", "orthanc_nodelay", "dcmtk", "dcmtk_nodelay")
    ),
    *((f"dicom_mb_{lines}", "MB/s", None) for lines in dimse.LINES),
    ("image_searchable_p50", "s", None),
    ("image_searchable_p99", "s", None),
    ("dicom_large_mb", "MB/s", None),
    ("dicom_large_memory", "MiB", None),
    ("worker_memory", "MiB", None),
    ("worker_memory_growth", "MiB per 100,000 messages", None),
)


def summary(rows: Rows) -> list[dict[str, Any]]:
    for peer in ("aiokafka", "quix"):
        if rows.get(f"end_to_end_{peer}") and rows.get("end_to_end_ehr"):
            rows[f"end_to_end_ehr_to_{peer}"] = rows["end_to_end_ehr"]
    made = []
    for name, unit, beside in TABLE:
        if not (values := rows.get(name)):
            continue
        median = statistics.median(values)
        ratio = median / statistics.median(rows[beside]) if beside and rows.get(beside) else None
        if name.startswith("end_to_end_ehr_to_"):
            median = ratio or 0.0
        made.append(
            {
                "name": name,
                "value": round(median, 4 if median < 10 else 1),
                "unit": unit or "ratio",
                "ratio": round(ratio, 3) if ratio is not None else None,
                "ratio_to": beside if ratio is not None else None,
                "spread": round((max(values) - min(values)) / abs(statistics.median(values) or 1), 3),
            }
        )
    return made


def table(rows: list[dict[str, Any]]) -> Table:
    made = Table("row", "median", "unit", "ratio", "to", "spread")
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3f}"
        beside, spread = row["ratio_to"] or "", f"{row['spread']:.0%}"
        made.add_row(row["name"], f"{row['value']:,}", row["unit"], ratio, beside, spread)
    return made


def picture(rows: list[dict[str, Any]]) -> str:
    """Bars of everything that is documents a second."""
    bars = [row for row in rows if row["unit"] == "documents/s"]
    top = max((row["value"] for row in bars), default=1)
    size = f'width="760" height="{30 * len(bars) + 20}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">']
    for number, row in enumerate(bars):
        y = 10 + 30 * number
        parts.append(f'<text x="0" y="{y + 15}">{row["name"]}</text>')
        parts.append(f'<rect x="190" y="{y}" width="{480 * row["value"] / top:.0f}" height="20" fill="#3b6ea5"/>')
        parts.append(f'<text x="{195 + 480 * row["value"] / top:.0f}" y="{y + 15}">{row["value"]:,.0f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small rounds: to see that it runs")
    parser.add_argument("--only", nargs="+", help="these rounds and no others")
    parser.add_argument("--long", action="store_true", help="memory over 500,000 messages")
    parser.add_argument("--overload", action="store_true", help="three times the capacity for three minutes; only that")
    parser.add_argument("--replay", action="store_true", help="100,000 records rebuilt beside live traffic; only that")
    parser.add_argument("--profile", action="store_true", help="a flame graph of the worker into docs/; only that")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="wardstream-bench-"))
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    bench = Bench(home, given.quick)
    try:
        with contextlib.nullcontext() if given.only and set(given.only) <= ALONE else stack(home):
            if given.overload:
                found = bench.overload(seconds=20 if given.quick else 180)
                (build / "overload.json").write_text(json.dumps(found, indent=2) + "\n")
                console.print_json(data=found)
                return
            if given.replay:
                found = bench.replay(5000 if given.quick else 100_000)
                (build / "replay.json").write_text(json.dumps(found, indent=2) + "\n")
                console.print_json(data=found)
                return
            if given.profile:
                profile(bench)
                return
            rounds: dict[str, Callable[[], None]] = {
                **{worker: (lambda worker=worker: bench.end_to_end(worker)) for worker in WORKERS},
                "ceiling": bench.ceiling,
                "kafka": bench.kafka,
                "mllp_1": lambda: bench.mllp(1, 0, "1"),
                "mllp_50": lambda: bench.mllp(50, 0, "50"),
                "mllp_paced": lambda: bench.mllp(50, PACE, "paced"),
                "visible": bench.visible,
                "scored": bench.scored,
                "beds": bench.beds,
                "outcomes": bench.outcomes,
                "dicom": lambda: bench.dicom(40 if given.quick else 200),
                "images": bench.images,
                "seal": bench.seal,
            }
            chosen = {name: one for name, one in rounds.items() if not given.only or name in given.only}
            for number in range(given.repeats):
                for name, one in chosen.items():
                    started = time.monotonic()
                    one()
                    seconds = time.monotonic() - started
                    console.print(f"{number + 1}/{given.repeats} {name}: {seconds:.0f} s", highlight=False)
            if not given.only or "similar" in given.only:
                bench.similar(2500 if given.quick else 50_000)
            if not given.only or "plan" in given.only:
                bench.plan(given.quick)
            if not given.only or "survival" in given.only:
                bench.survival(given.quick, given.repeats)
            if not given.only or "memory" in given.only:
                bench.memory(500_000 if given.long else 10_000 if given.quick else 50_000)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    rows = summary(bench.rows)
    (build / "bench.json").write_text(json.dumps(rows, indent=2) + "\n")
    (build / "bench-machine.json").write_text(json.dumps(machine(), indent=2) + "\n")
    (build / "bench.svg").write_text(picture(rows))
    console.print(machine())
    Console().print(table(rows))


def profile(bench: Bench) -> None:
    """Where the worker's time goes, by py-spy, while it is under full load."""
    target = ROOT / "docs" / "flamegraph-worker.svg"
    with process(bench.home, "ours", WORKERS["ours"]) as running:
        bench.produce(bench.fresh(20))
        load.files(bench.home / "messages", bench.fresh(bench.patients))
        spy = subprocess.Popen(
            [str(ROOT / ".venv-bench" / "bin" / "py-spy"), "record", "--pid", str(running.pid), "--duration", "20",
             "--rate", "200", "--output", str(target)],
        )  # fmt: skip
        subprocess.run([*COMMAND, "produce", "files", str(bench.home / "messages")], check=True)
        spy.wait()


if __name__ == "__main__":
    main()
