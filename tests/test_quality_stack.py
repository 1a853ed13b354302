"""Outcomes on the real stack: cases and what became of them, to charts and signals."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from consumers.cases import entities
from infra.crypto import open_field
from infra.elastic import client
from infra.kafka import Reader, headers, lag
from infra.keystore import KeyStore
from schemas.outcome_charts import ALIAS, RAISED
from schemas.registry import DOMAINS
from schemas.signal import SignalEnvelope
from schemas.topics import SIGNALS
from streams.quality import signals
from streams.quality.cases import people
from streams.quality.units import UNIT, Key, Units

Run = Callable[..., Any]
SITE, MEASURE = "OUTCOMEHOUSE", "complication"
KEY = Key(SITE, UNIT, "ORTH", MEASURE)
BEGIN = datetime(2026, 1, 5, 8, tzinfo=UTC)
OF = DOMAINS["quality"]
HOME = "WARDSTREAM_HOME"


def cases(count: int, seed: int, odds: float, since: int = 0) -> list[dict[str, Any]]:
    """Stays and whether each had a complication, at `odds` times the odds that the sender expected."""
    drawn, made = random.Random(seed), []
    for number in range(since, since + count):
        begun = BEGIN + timedelta(hours=6 * number)
        ended = begun + timedelta(days=3)
        person = {"site": SITE, "id": f"OC{number}", "patient_number": f"OP{number}"}
        at = {"at": f"{ended:%Y-%m-%dT%H:%M:%SZ}"}
        expected = drawn.choice((0.05, 0.1, 0.2, 0.3))
        event = drawn.random() < odds * expected / (1 - expected + odds * expected)
        made.append({"type": "case", **person, **at, "unit": "ORTH", "procedure": "HIP", "age": 70,
                     "admitted_at": f"{begun:%Y-%m-%dT%H:%M:%SZ}", "discharged_at": at["at"]})  # fmt: skip
        made.append({"type": "outcome", **person, **at, "measure": MEASURE, "event": event, "expected_risk": expected})
    return made


def produce(command: Run, folder: Path, said: list[dict[str, Any]]) -> dict[str, int]:
    path = folder / f"{time.monotonic_ns()}.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in said))
    done = command("produce", "operations", str(path), "--json")
    return json.loads(done.stdout)["outcomes"]  # type: ignore[no-any-return]


def of_index(site: str = SITE) -> Units:
    """All charts of a site, made anew from what the index has of cases."""
    with client() as server:
        server.indices.refresh(index=OF.alias)
    units = Units()
    for of, one in people(entities(site), KeyStore.local()[1].merged()).items():
        units.take(of, one)
    units.find()
    return units


def kept(key: Key = KEY) -> dict[str, Any]:
    terms = [{"term": {name: value}} for name, value in asdict(key).items()]
    with client() as server:
        server.indices.refresh(index=ALIAS)
        hits = server.search(index=ALIAS, query={"bool": {"filter": terms}})["hits"]["hits"]
    return hits[0]["_source"] if hits else {}


def settled(key: Key = KEY) -> tuple[dict[str, Any], Units]:
    """The chart that the worker keeps, once it is the one that all cases make; what differs where it never is."""
    deadline = time.monotonic() + 90
    while True:
        if not sum(one.events for one in lag(OF.raw.name).values()):
            units = of_index(key.site)
            known, since, waiting = units.known(key.site), units.since(key.site), units.waiting(key)
            chart, limits = units.chart(key), units.limits(key)
            wanted = signals.document(key, chart, known, since, waiting, units.design, limits, units.whose)
            wanted = json.loads(json.dumps(wanted))
            found = kept(key)
            named = wanted.keys() - {"untold", "event_time", "patient_ref"}  # who was in what is told too
            apart = {name: (found.get(name), wanted[name]) for name in named if found.get(name) != wanted[name]}
            if not apart:
                return found, units
        assert time.monotonic() < deadline, apart
        time.sleep(0.5)


def told() -> dict[tuple[str, str], dict[str, Any]]:
    """What the signals' topic has of the site, by id and state; told twice it is the same."""
    reader = Reader(SIGNALS.name)
    made: dict[tuple[str, str], dict[str, Any]] = {}
    try:
        for one in reader.until_end():
            envelope = SignalEnvelope.read(headers(one).items())
            if envelope.domain == OF.name and envelope.signal.startswith("outcomes_"):
                said = envelope.opened([], one.value() or b"")
                name = envelope.document, said["state"]
                assert made.setdefault(name, said)["value"] == said["value"]
                made[name] = said
    finally:
        reader.close()
    return {name: said for name, said in made.items() if said["site"] == SITE}


@pytest.fixture(scope="module")
def charted(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 cases as expected, then 100 at four times the odds."""
    folder = tmp_path_factory.mktemp("outcomes")
    said = cases(200, 5, 1.0) + cases(100, 25, 4.0, since=200)
    assert produce(command, folder, said) == {"indexed": 600}
    return folder


def test_a_unit_that_gets_worse_is_told(charted: Path) -> None:
    document, units = settled()
    chart = units.chart(KEY)
    assert document["cases"] == 300
    assert [one["kind"] for one in document["signals"]] == [one.kind for one in chart.signals]
    worse = [one for one in chart.signals if one.kind == "cusum_upper"]
    assert worse
    assert worse[0].at > f"{BEGIN + timedelta(days=50):%Y-%m-%d}"
    raised = [one for (_, state), one in told().items() if state == RAISED and one["scope"] == UNIT]
    assert {(one["chart"], one["at"]) for one in raised} == {(one.kind, one.at[:10]) for one in chart.signals}
    assert all(one["drivers"] and set(one["drivers"][0]) == {"subject", "key_version", "record"} for one in raised)


def test_who_drove_a_signal_is_sealed_under_each_ones_key(charted: Path) -> None:
    settled()
    _, keys = KeyStore.local()
    (id, _), one = next((name, one) for name, one in told().items() if one["chart"] == "cusum_upper")
    records = {record for record, _ in entities(SITE)}
    for driver in one["drivers"]:
        key = keys.of_tokens([driver["subject"]])[driver["subject"]]
        assert key is not None
        assert open_field(key, OF.name, id, "record", driver["record"]) in records


def test_a_correction_a_month_late_takes_a_signal_back(charted: Path, command: Run) -> None:
    """All complications since the change were none, as somebody found out later; then they were after all."""
    before, _ = settled()
    late = cases(100, 25, 4.0, since=200)[1::2]
    at = f"{BEGIN + timedelta(days=120):%Y-%m-%dT%H:%M:%SZ}"
    assert produce(command, charted, [one | {"at": at, "event": False} for one in late]) == {"indexed": 100}
    without, units = settled()
    assert without["events"] < before["events"]
    assert not [one for one in units.chart(KEY).signals if one.kind == "cusum_upper"]
    assert any(state == "withdrawn" for _, state in told())
    at = f"{BEGIN + timedelta(days=121):%Y-%m-%dT%H:%M:%SZ}"
    assert produce(command, charted, [one | {"at": at} for one in late]) == {"indexed": 100}
    after, _ = settled()
    assert after["signals"] == before["signals"]


def test_kill_9_and_told_again(charted: Path, command: Run) -> None:
    """The worker dies four times while events come; half of them come twice. The chart is that of all cases, once."""
    drawn = random.Random(4)
    key = Key("KILLHOUSE", UNIT, "ORTH", MEASURE)
    said = [one | {"site": "KILLHOUSE"} for one in cases(150, 3, 1.5)]
    for some in (said[:100], said[50:200], said[150:], drawn.sample(said, 100)):
        for one in psutil.process_iter(["cmdline"]):
            if (one.info["cmdline"] or [""])[-1] == "worker" and one.environ().get(HOME) == os.environ[HOME]:
                one.send_signal(signal.SIGKILL)
        assert produce(command, charted, some).keys() <= {"indexed", "duplicate"}
    document, units = settled(key)
    assert document["cases"] == units.chart(key).level.cases == 150


def test_an_erased_person_is_on_no_chart(charted: Path, command: Run) -> None:
    before, _ = settled()
    done = command("erase", "--patient", f"{SITE}|MR|OP7", "--reason", "asked for it", "--json")
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 60
    while (now := kept()).get("cases") != before["cases"] - 1:
        assert time.monotonic() < deadline, now.get("cases")
        time.sleep(0.5)
    settled()
