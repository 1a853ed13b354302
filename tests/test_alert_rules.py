"""Alert rules speak of metrics that exist, and do what they say: Prometheus' own promtool checks and runs them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from infra import metrics
from streams.allocation.signals import SIGNALS

FOLDER = Path(__file__).resolve().parents[1] / "infra" / "deploy" / "prometheus"
RULES = sorted(FOLDER.glob("*.rules.yml"))


def expressions(path: Path) -> list[str]:
    return re.findall(r"^\s+expr: (.+)$", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_every_rule_speaks_of_metrics_and_labels_that_exist(path: Path) -> None:
    known = {next(iter(one.describe())).name: set(one._labelnames) for one in metrics.CATALOGUE}
    assert expressions(path)
    for expression in expressions(path):
        names = set(re.findall(r"\bwardstream_\w+", expression))
        assert names, expression
        for name in names:
            labels = set(re.findall(r"(\w+)=", expression))
            for grouped in re.findall(r"by \(([^)]*)\)", expression):
                labels |= set(grouped.split(", "))
            assert labels <= known[name.removesuffix("_total")], expression


def test_every_signal_has_an_alert() -> None:
    told = "".join(one for path in RULES for one in expressions(path))
    assert set(re.findall(r'signal="(\w+)"', told)) == set(SIGNALS)


@pytest.mark.parametrize(("does", "file"), [("check", "allocation.rules.yml"), ("test", "allocation.tests.yml")])
def test_promtool(does: str, file: str) -> None:
    if (tool := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed: it comes with Debian's package prometheus")
    done = subprocess.run([tool, does, "rules", file], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
