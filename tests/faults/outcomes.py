"""kill -9 at random moments while 20,000 outcomes come, and then every chart beside one of a clean pass.

    python tests/faults/outcomes.py [--outcomes N] [--kills N] [--seed N]

Cases and what became of them go in piece by piece, the last piece before each once more; the worker is killed at a
random moment of each piece. The clean pass reads the same rows, each once, without any server. Exit code 0 only when
each chart in the index has the levels, the signals and the limits of its clean twin, to the last bit, and the signals'
topic tells each signal under one id.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from beds import PATIENCE_SECONDS, ROOT, WARDSTREAM, console, kill, run

from infra.elastic import client
from infra.kafka import Reader, headers, lag
from schemas.outcome_charts import ALIAS, CHART, RAISED
from schemas.registry import DOMAINS
from schemas.signal import SignalEnvelope
from schemas.topics import SIGNALS
from streams.quality.cases import Case, Person, Risk
from streams.quality.units import Key, Units

SITE, MEASURE = "OUTCOMES", "complication"
UNITS = ("CARD", "ORTH", "GI", "NEURO", "LUNG")
PROCEDURES = ("P1", "P2", "P3")
BEGIN = datetime(2026, 1, 5, 8, tzinfo=UTC)
OF = DOMAINS["quality"]
COMPARED = ("cases", "events", "expected", "certain", "upper", "upper_limit", "lower", "lower_limit", "vlad", "raised")
Row = dict[str, Any]


def rows(count: int, seed: int) -> list[tuple[Row, Row]]:
    """Cases with their outcomes, one a minute; one unit is worse than expected in the second half."""
    drawn, made = random.Random(seed), []
    for number in range(count):
        unit, expected = drawn.choice(UNITS), drawn.choice((0.02, 0.05, 0.1, 0.2, 0.4))
        odds = 1.6 if unit == "GI" and number > count // 2 else 1.0
        event = drawn.random() < odds * expected / (1 - expected + odds * expected)
        ended = BEGIN + timedelta(minutes=number)
        at = ended.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        begun = (ended - timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        who = {"site": SITE, "id": f"K{number}", "patient_number": f"KP{number}", "at": at}
        case = {"type": "case", **who, "unit": unit, "procedure": drawn.choice(PROCEDURES), "admitted_at": begun,
                "discharged_at": at, "age": drawn.randint(20, 89)}  # fmt: skip
        made.append((case, {"type": "outcome", **who, "measure": MEASURE, "event": event, "expected_risk": expected}))
    return made


def clean(told: list[tuple[Row, Row]]) -> Units:
    units = Units()
    for case, outcome in told:
        one = Case(
            record=case["id"],
            person=case["id"],
            site=SITE,
            unit=case["unit"],
            procedure=case["procedure"],
            service="",
            begun=case["admitted_at"],
            ended=case["discharged_at"],
            disposition="",
            planned=False,
            known=case["at"],
            told={MEASURE: outcome["event"]},
            expected={MEASURE: Risk(outcome["expected_risk"])},
        )
        units.take((SITE, one.person), Person((one,), "", one.known))
    units.find()
    return units


def wanted(units: Units) -> dict[Key, Row]:
    """What a clean pass says of each chart. Of signals not who raised them: the index knows records by keyed hashes."""
    made = {}
    for key, chart in units.charts().items():
        if key.measure != MEASURE:
            continue
        level, limits = chart.level, chart.spec.limits(chart.level.cases)
        made[key] = {
            "cases": level.cases,
            "events": level.events,
            "expected": round(level.expected, 6),
            "certain": level.certain,
            "upper": round(level.upper, 6),
            "upper_limit": limits.upper,
            "lower": round(level.lower, 6),
            "lower_limit": limits.lower,
            "vlad": round(level.vlad, 6),
            "raised": len(chart.signals),
            "signals": [(one.kind, one.at, round(one.value, 6)) for one in chart.signals[-20:]],
        }
    return made


def kept() -> dict[Key, Row]:
    with client() as server:
        server.indices.refresh(index=ALIAS)
        hits = server.search(index=ALIAS, size=1000, query={"bool": {"filter": [
            {"term": {"kind": CHART}}, {"term": {"site": SITE}}, {"term": {"measure": MEASURE}},
        ]}})["hits"]["hits"]  # fmt: skip
    made = {}
    for one in (hit["_source"] for hit in hits):
        signals = [(line["kind"], line["at"], line["value"]) for line in one["signals"]]
        found = {name: one.get(name) for name in COMPARED} | {"signals": signals}
        made[Key(one["site"], one["scope"], one["name"], one["measure"])] = found
    return made


def told() -> tuple[int, int]:
    """Signals that stand on the topic, by id, and how many messages told of them."""
    reader, standing, messages = Reader(SIGNALS.name), set[str](), 0
    for one in reader.until_end():
        envelope = SignalEnvelope.read(headers(one).items())
        if envelope.domain != OF.name or not envelope.signal.startswith("outcomes_"):
            continue
        said = envelope.opened([], one.value() or b"")
        if said["measure"] == MEASURE:
            messages += 1
            (standing.add if said["state"] == RAISED else standing.discard)(envelope.document)
    reader.close()
    return len(standing), messages


def settle(clean: Mapping[Key, Row]) -> dict[Key, tuple[Row | None, Row]]:
    """What is apart once nothing moves any more, or after a long while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while sum(one.events for one in lag(OF.raw.name).values()):
        if time.monotonic() > deadline:
            raise SystemExit("quality is not taken to its end")
        time.sleep(0.3)
    while True:
        there = kept()
        apart = {key: (there.get(key), one) for key, one in clean.items() if there.get(key) != one}
        if not apart or time.monotonic() > deadline:
            return apart
        time.sleep(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--outcomes", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    chance, folder = random.Random(given.seed), Path(tempfile.mkdtemp(prefix="wardstream-outcomes-"))
    os.environ["WARDSTREAM_HOME"] = str(folder / "home")
    console.print(f"seed {given.seed}, {given.outcomes:,} outcomes, {given.kills} kills", highlight=False)
    try:
        run("up", "--detach")
        every = rows(given.outcomes, given.seed)
        size = -(-len(every) // given.kills)
        for number in range(given.kills):
            begin = max(0, number * size - size // 10)  # a tenth comes again
            some = every[begin : (number + 1) * size]
            path = folder / f"{number}.ndjson"
            path.write_text("".join(json.dumps(one) + "\n" for pair in some for one in pair))
            sending = subprocess.Popen(
                [*WARDSTREAM, "produce", "operations", str(path)], cwd=ROOT, stdout=subprocess.DEVNULL
            )
            kill(chance)
            if sending.wait():
                raise SystemExit("a feed failed")
            console.print(f"{number + 1}/{given.kills} killed", highlight=False)
        twins = wanted(clean(every))
        apart = settle(twins)
        standing, messages = told()
        raised = sum(one["raised"] for one in twins.values())
        said = {
            "outcomes": given.outcomes,
            "kills": given.kills,
            "seed": given.seed,
            "charts": len(twins),
            "charts_apart": len(apart),
            "counted": sum(one["cases"] for key, one in twins.items() if key.scope == "unit"),
            "signals": raised,
            "signals_standing_on_the_topic": standing,
            "signal_messages": messages,
        }
        print(json.dumps(said, indent=2))
        for key, (there, one) in list(apart.items())[:3]:
            console.print(f"{key}: {there} is not {one}", highlight=False)
        return 0 if twins and not apart and standing == raised else 1
    finally:
        run("down")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
