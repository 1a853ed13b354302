"""Charts, funnel, cases and report at the command, of what the real stack has read."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consumers.cases import entities
from infra.audit import events
from infra.elastic import client
from infra.kafka import lag
from schemas.registry import DOMAINS

Run = Callable[..., Any]
SITE, MEASURE = "REPORTHOUSE", "complication"
BEGIN = datetime(2026, 1, 5, 8, tzinfo=UTC)
OF = DOMAINS["quality"]
COUNTS = {"CARD": 160, "ORTH": 120, "ONE": 1}


def said() -> list[dict[str, Any]]:
    """In CARD odds are four times those expected."""
    drawn, made, number = random.Random(11), [], 0
    for unit, count in COUNTS.items():
        for place in range(count):
            number += 1
            begun = BEGIN + timedelta(hours=12 * place)
            at = {"at": f"{begun + timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}"}
            person = {"site": SITE, "id": f"RC{number:04}", "patient_number": f"RP{number:04}"}
            risk = drawn.choice((0.1, 0.2, 0.3))
            odds = (4.0 if unit == "CARD" else 1.0) * risk / (1 - risk)
            event = drawn.random() < odds / (1 + odds)
            made.append({"type": "case", **person, **at, "unit": unit, "procedure": "HIP", "age": 50 + number % 40,
                         "admitted_at": f"{begun:%Y-%m-%dT%H:%M:%SZ}", "discharged_at": at["at"]})  # fmt: skip
            made.append({"type": "outcome", **person, **at, "measure": MEASURE, "event": event, "expected_risk": risk})
            if place < 15:
                score = {"instrument": "EQ-5D-5L", "item": "index", "score": 0.5 + place / 100}
                made.append({"type": "report", **person, **at, "unit": unit, "reporter": "patient", **score})
    for day in range(1, 15):
        shift = {"starts_at": f"2026-02-{day:02}T06:00:00Z", "ends_at": f"2026-02-{day:02}T14:00:00Z"}
        made.append({"type": "staffing", "site": SITE, "at": shift["starts_at"], "unit": "CARD", "staffing": "present",
                     "role": "nurse", **shift, "planned": 6, "present": 4})  # fmt: skip
    return made


@pytest.fixture(scope="module")
def known(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    path = folder / "events.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in said()))
    done = command("produce", "operations", str(path), "--json")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    deadline = time.monotonic() + 90
    while sum(one.events for one in lag(OF.raw.name).values()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    with client() as server:
        server.indices.refresh(index=OF.alias)
    return folder


def asked(command: Run, *arguments: str) -> dict[str, Any]:
    done = command("quality", *arguments, "--site", SITE, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_charts_say_who_is_worse_and_whose_are_too_few(known: Path, command: Run) -> None:
    rows = {row["name"]: row for row in asked(command, "charts", "--measure", MEASURE)["charts"]}
    assert rows["CARD"]["ratio"]["low"] > 1
    assert rows["CARD"]["signals"]["cusum_upper"]
    assert rows["CARD"]["now"]["is"] == "worse"
    assert rows["ONE"]["few"]
    assert rows["ONE"]["cases"] is rows["ONE"]["ratio"] is None
    printed = command("quality", "charts", "--site", SITE).stdout
    assert "too few" in printed


def test_a_chart_is_drawn_and_names_its_records(known: Path, command: Run) -> None:
    out = known / "chart.svg"
    found = asked(command, "chart", "--unit", "CARD", "--measure", MEASURE, "--out", str(out))
    records = {name for name, _ in entities(SITE)}
    assert {one for line in found["signals"] for one in line["drivers"]} <= records
    assert any(line["kind"] == "cusum_upper" and line["drivers"] for line in found["signals"])
    assert out.read_text().startswith("<svg")
    few = command("quality", "chart", "--unit", "ONE", "--measure", MEASURE, "--site", SITE, "--out", str(out))
    assert (few.returncode, "too_few_people" in few.stderr) == (18, True)


def test_a_funnel_leaves_out_who_is_too_small(known: Path, command: Run) -> None:
    found = asked(command, "funnel", "--measure", MEASURE, "--out", str(known / "funnel.png"))
    assert {row["name"] for row in found["points"]} == {"CARD", "ORTH"}
    assert found["not_shown"] == 1
    assert (known / "funnel.png").read_bytes().startswith(b"\x89PNG")


def test_cases_are_counted(known: Path, command: Run) -> None:
    found = asked(command, "cases", "--unit", "CARD", "--measure", MEASURE)
    assert found["all"]["cases"] == COUNTS["CARD"]
    above = asked(command, "cases", "--unit", "CARD", "--measure", MEASURE, "--risk-above", "0.15", "--by", "quarter")
    assert 0.2 <= above["all"]["mean_risk"] <= 0.3
    assert above["all"]["cases"] < COUNTS["CARD"]


def test_a_report_is_a_page_that_tells_of_nobody(known: Path, command: Run) -> None:
    out = known / "report.html"
    answers = asked(command, "report", "--unit", "CARD", "--measure", MEASURE, "--out", str(out))["answers"]
    assert [one["is"] for one in answers] == ["worse"]
    text = out.read_text()
    assert "complication in CARD are above what was expected" in text
    assert "EQ-5D-5L" in text
    assert "67%" in text  # four of six were there
    own = [(name, one) for name, one in entities(SITE) if one["kind"] == "case"]
    names, refs = {name for name, _ in own}, {one["patient_ref"] for _, one in own}
    assert len(names) == len(refs) == sum(COUNTS.values())
    assert not {one for one in names | refs if one in text}
    assert not re.findall(r"R[PC]\d{4}|\d{4}-\d\d-\d\d|\d\d:\d\d", text)
    assert out.stat().st_mode & 0o777 == 0o600
    again = known / "again.html"
    asked(command, "report", "--unit", "CARD", "--measure", MEASURE, "--out", str(again))
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "there"),
    [
        (("charts", "--unit", "NONE"), "CARD"),
        (("cases", "--measure", "none"), MEASURE),
        (("report", "--unit", "CARD", "--measure", "none", "--out", "x.html"), MEASURE),
    ],
)
def test_an_unknown_name(known: Path, command: Run, arguments: tuple[str, ...], there: str) -> None:
    done = command("quality", *arguments, "--site", SITE)
    assert done.returncode == 2
    assert there in done.stderr


def test_every_question_is_audited(known: Path, stack: Path, command: Run) -> None:
    asked(command, "cases")
    assert "outcome_cases" in json.dumps(list(events(stack / "audit" / "audit.jsonl"))[-1])


def test_who_may_not_see_is_refused(known: Path, command: Run) -> None:
    done = command("quality", "charts", "--role", "researcher")
    assert done.returncode == 10
