"""The catalogue is the whole of our metrics, documented, in base units, with bounded labels."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from infra import metrics

ROOT = Path(__file__).resolve().parents[1]
LABELS = {"feed", "domain", "code", "reason", "outcome", "signal", "purpose", "target", "model", "mode"}
LABELS |= {"processing"}  # how a look at an image ended
LABELS |= {"site", "unit", "status", "priority", "kind"}  # of declared beds alone
LABELS |= {"scope", "name", "measure", "side"}  # of charts of 11 cases or more: what so many have is nobody's name


def test_every_metric_is_in_the_catalogue() -> None:
    made = [value for value in vars(metrics).values() if isinstance(value, Counter | Gauge | Histogram)]
    assert {id(one) for one in made} == {id(one) for one in metrics.CATALOGUE}


def test_every_metric_is_documented() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    for metric in metrics.CATALOGUE:
        described = next(iter(metric.describe()))
        name = described.name + ("_total" if isinstance(metric, Counter) else "")
        assert re.fullmatch(r"wardstream_[a-z_]+", name)
        assert described.documentation.endswith(".")
        assert f"`{name}`" in page, f"{name} is missing in ARCHITECTURE.md"
        assert set(metric._labelnames) <= LABELS


def test_nobody_else_makes_metrics() -> None:
    for package in ("schemas", "streams", "producers", "consumers", "infra"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "metrics.py":
                assert "prometheus_client" not in path.read_text(), path
