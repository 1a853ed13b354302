"""Forecasts, groups and models of a site at the command, on what the real stack has read of two months of events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.kafka import lag
from schemas.registry import DOMAINS
from tests.wards import START, UNITS, machines, stays

Command = Callable[..., Any]
SITE, DAYS = "FORECASTHOUSE", 60


def events() -> list[dict[str, Any]]:
    """The made-up hospital, so that its last midnight is that of today."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    later = today - (START + timedelta(days=DAYS))
    made: list[dict[str, Any]] = []
    begin = (START + later).isoformat()
    for number in range(90):
        place = {"unit": "ABC"[number % 3], "room": str(number // 6), "bed": str(number)}
        made.append({"type": "location", "at": begin, **place, "bed_status": "U", "price": 100 + number % 3 * 50})
    for number, one in enumerate(stays(DAYS, per_day=20)):
        assert one.estimate is not None
        person = {"type": "placement", "id": f"V{number}", "patient_number": f"FC{number}"}
        place = {"unit": UNITS[one.service], "room": str(number % 90 // 6), "bed": str(number % 90)}
        told = {"age": one.age, "hospital_service": one.service, "patient_class": "I"}
        told["expected_discharge_at"] = (one.estimate + later).isoformat()
        made.append({**person, **place, **told, "trigger": "A01", "at": (one.since + later).isoformat()})
        if one.until + later < today:
            made.append({**person, **place, "trigger": "A03", "at": (one.until + later).isoformat()})
    for _, told_of in machines(20, each=12):
        for event in told_of:
            said = dict(event.documents[0])
            said["id"] = said.pop("resource_id")
            for name in ("kind", "site"):
                del said[name]
            at = datetime.fromisoformat(event.at) + later + timedelta(days=DAYS - 20)
            made.append({"type": "resource", "at": at.isoformat(), "currency": "EUR", **said})
    return sorted(made, key=lambda one: datetime.fromisoformat(one["at"]))


@pytest.fixture(scope="module")
def known(stack: Path, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("operations") / "events.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in events()))
    done = command("produce", "operations", str(path), "--site", SITE, "--json")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    deadline = time.monotonic() + 90
    while sum(one.events for one in lag(DOMAINS["allocation"].raw.name).values()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return path


def asked(command: Command, *said: str) -> Any:
    done = command(*said, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_forecast(command: Command, known: Path) -> None:
    (site,) = asked(command, "forecast", "--site", SITE)["sites"]
    units = {one["unit"]: one for one in site["units"]}
    assert set(units) == {"", "A", "B", "C"}
    assert units[""]["beds"] == 90
    assert units["A"]["beds"] == 30
    for one in units.values():
        assert [point["hours"] for point in one["forecast"]] == [1, 4, 24, 72]
        for point in one["forecast"]:
            (narrow, wide) = point["intervals"]
            assert wide["low"] <= narrow["low"] <= narrow["high"] <= wide["high"]
            assert 0 <= point["too_few"] <= 1
        assert [each["hours"] for each in one["figures"]] == [1, 4, 24, 72]
        assert one["figures"][0]["beats"]
        short = [str(each["hours"]) for each in one["figures"] if not each["beats"]]
        assert [said.endswith(f"for {', '.join(short)} h") for said in one["remarks"]] == ([True] if short else [])


def test_forecast_of_one_unit_and_hour(command: Command, known: Path) -> None:
    (site,) = asked(command, "forecast", "--site", SITE, "--unit", "B", "--hours", "12")["sites"]
    (unit,) = site["units"]
    assert [point["hours"] for point in unit["forecast"]] == [12]
    printed = command("forecast", "--site", SITE, "--unit", "B", "--hours", "12")
    assert "12 h" in printed.stdout
    for wrong in (("--hours", "0"), ("--hours", "999"), ("--unit", "Z")):
        assert command("forecast", "--site", SITE, *wrong).returncode == 2
    assert command("forecast", "--site", "NOWHERE").returncode == 2


@pytest.mark.parametrize("method", ["kmeans", "dbscan", "hdbscan"])
def test_clusters(command: Command, known: Path, method: str) -> None:
    found = asked(command, "clusters", "--site", SITE, "--method", method)
    grouped = [one for group in found["groups"] for one in group["members"]]
    assert len(grouped) + len(found["outliers"]) == 90 + 36
    assert len(set(grouped)) == len(grouped)
    for group in found["groups"]:
        assert 0 <= group["jaccard"] <= 1
    assert not [one for one in grouped if "FC" in one]


def test_clusters_of_demand_are_too_few_here(command: Command, known: Path) -> None:
    done = command("clusters", "--site", SITE, "--of", "demand")
    assert done.returncode == 18
    assert "too_few_rows: groups are made of 10 rows at least: there are 3" in done.stderr
    assert command("clusters", "--of", "patients").returncode == 2
    assert command("clusters", "--method", "spectral").returncode == 2


def test_status_is_trained_and_checked(command: Command, known: Path) -> None:
    cards = asked(command, "models", "train", "status")
    assert {card["algorithm"] for card in cards} == {"decision_tree", "naive_bayes", "logistic_regression"}
    assert all(card["of"] == "resources" for card in cards)
    assert all(card["differences"]["majority"]["low"] > 0 for card in cards)
    best = cards[-1]
    assert best["name"] == "allocation-status"
    checked = asked(command, "models", "check", best["name"], best["version"])
    assert [one for one in checked["figures"] if not one["same"]] == []
    shown = command("models", "show", best["name"], best["version"])
    assert "resources" in shown.stdout


def test_status_is_scored_on_the_stream(command: Command, known: Path, tmp_path: Path) -> None:
    """The event that comes after the promotion has a score beside it, of the promoted version."""
    best = asked(command, "models", "train", "status", "--algorithm", "logistic_regression")[-1]
    done = command("models", "promote", best["name"], best["version"], "--force")
    assert done.returncode == 0, done.stderr
    said = {"type": "resource", "id": "scored-1", "resource_type": "equipment", "resource_status": "in-use"}
    said |= {"at": datetime.now(UTC).isoformat(), "unit": "A", "features": "monitor"}
    path = tmp_path / "one.ndjson"
    path.write_text(json.dumps(said) + "\n")
    assert command("produce", "operations", str(path), "--site", SITE, "--json").returncode == 0
    deadline = time.monotonic() + 60
    while True:
        asks = ("search", "model:status shadow:false", "--domain", "allocation", "--kind", "score")
        hits = [one for one in asked(command, *asks)["hits"] if one.get("resource_id") == "scored-1"]
        if hits:
            break
        assert time.monotonic() < deadline
        time.sleep(0.5)
    (hit,) = hits
    assert hit["model_version"] == best["version"]
    assert hit["site"] == SITE
    assert hit["predicted"] in ("available", "in-use", "unavailable")
    assert hit["reasons"]


def test_leaves_are_trained_and_checked(command: Command, known: Path) -> None:
    (card,) = asked(command, "models", "train", "leaves")
    assert card["name"] == "allocation-leaves"
    assert set(card["baselines"]) == {"service_median", "service_median_so_far", "ward_estimate"}
    assert card["figures"]["mae"]["value"] < card["baselines"]["service_median"]["mae"]["value"]
    assert 0.6 < card["figures"]["coverage_80"]["value"] < 0.95
    checked = asked(command, "models", "check", card["name"], card["version"])
    assert [one for one in checked["figures"] if not one["same"]] == []
    for wrong in (("--algorithm", "decision_tree"), ("--truth", "x")):
        assert command("models", "train", "leaves", *wrong).returncode == 2


def test_who_may_not(command: Command, known: Path) -> None:
    """Of a role that may not see beds nothing is forecast, and the audit has the refusal."""
    assert command("forecast", "--role", "operator").returncode == 10
    assert command("clusters", "--role", "researcher").returncode == 10
