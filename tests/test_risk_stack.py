"""Outcome models at the command, on the index that the real stack has filled with simulated cases."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

from consumers.cases import OF, entities
from infra.elastic import client
from producers.simulate.cases import SITE
from schemas.outcome_charts import ALIAS, CHART, number
from streams.quality.cases import DIED_IN_HOSPITAL, people
from streams.quality.units import UNIT, Key

Command = Callable[..., subprocess.CompletedProcess[str]]


def scored_by(version: str) -> None:
    """Until each stay that is over has a risk by that version, with its reasons, and counts on its unit's chart."""
    key = Key(SITE, UNIT, "CARD", DIED_IN_HOSPITAL)
    deadline = time.monotonic() + 200
    while True:
        with client() as server:
            server.indices.refresh(index=f"{OF.alias},{ALIAS}")
            found = server.options(ignore_status=404).get(index=ALIAS, id=number(CHART, *astuple(key)))
        chart = found.body.get("_source", {})
        if chart.get("cases", 0) > 100 and chart["unscored"] == 0 and chart["upper_limit"] is not None:
            break
        assert time.monotonic() < deadline, chart
        time.sleep(0.5)
    risks = [
        case.expected[DIED_IN_HOSPITAL]
        for person in people(entities(SITE), {}).values()
        for case in person.cases
        if case.ended and DIED_IN_HOSPITAL in case.expected
    ]
    assert len(risks) > 1000
    assert {one.version for one in risks} == {version}
    assert all(0 <= one.risk <= 1 for one in risks)
    assert sum(bool(one.reasons) for one in risks) > len(risks) / 2  # a case that is as most are has none


def test_from_simulated_cases_to_a_model(command: Command, stack: Path, tmp_path: Path) -> None:
    told = tmp_path / "cases.ndjson"
    done = command("simulate", "--cases", "1600", "--out", str(told), "--corrections", "0.02", "--repeats", "0.02")
    assert done.returncode == 0, done.stderr
    done = command("produce", "operations", str(told), "--json")
    assert done.returncode == 0, done.stderr
    said = ("--algorithm", "decision_tree", "--algorithm", "logistic_regression", "--json")
    done = command("models", "train", "death_in_hospital", *said)
    assert done.returncode == 0, done.stderr
    cards = json.loads(done.stdout)
    assert {card["algorithm"] for card in cards} == {"decision_tree", "logistic_regression"}
    best = cards[-1]
    assert best["name"] == "quality-death_in_hospital"
    assert best["figures"]["auc"]["value"] > 0.5, "of a hold-out that is another one each day"
    assert {"unit=CARD", "sex=F"} <= best["subgroups"].keys()
    assert best["holdout"]["first"] > best["data"]["last"]
    checked = command("models", "check", best["name"], best["version"], "--json")
    assert checked.returncode == 0, checked.stderr
    promoted = command("models", "promote", best["name"], best["version"], "--force")  # whether it is better or not
    assert promoted.returncode == 0, promoted.stderr
    scored_by(best["version"])
    wrong = command("models", "train", "wound_infektion", "--json")
    assert wrong.returncode == 2
    assert "wound_infection" in wrong.stderr
