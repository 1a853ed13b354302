"""Statistics at the command: counts are those sent, and of a small group nobody with a Safe Harbor view hears."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import consumers.stats
from consumers.access import permit
from consumers.search import Narrow, domain
from consumers.stats import Asked, stats
from infra.audit import events

Run = Callable[..., Any]
HEAD = "MSH|^~\\&|STATS|ER|US|HERE|202603{day:02}120000||ORU^R01|ST{n}|P|2.5\r"
BODY = (
    HEAD + "PID|1||ST{n}^^^HOSP^MR||Nieuwenhuis^Ilse||19{year}0101|{sex}\r"
    "PV1|1|I|{ward}^2^1\r"
    "OBR|1||L1|24331-1^Lipid panel^LN\r"
)
RESULT = "OBX|{k}|NM|{code}^{name}^LN||{value}|{units}|||||F\r"
MERGE = (
    "MSH|^~\\&|STATS|ER|US|HERE|20260328120000||ADT^A40^ADT_A39|STM|P|2.5\rEVN|A40|20260328120000\r"
    "PID|1||ST0^^^HOSP^MR||Nieuwenhuis^Ilse||19500101|F\rMRG|ST1^^^HOSP^MR\r"
)


def sent_values() -> list[dict[str, Any]]:
    """A row a result: 40 patients with cholesterol, one without a value; 15 with glucose; 4 in a ward of their own."""
    made = []
    for n in range(40):
        ward = "STATA" if n < 24 else "STATB" if n < 36 else "STATC"
        patient = {"n": n, "day": 1 + n % 20, "year": 40 + n, "sex": "F" if n % 2 else "M", "ward": ward}
        units, value = ("mmol/L", 5 + n / 100) if n >= 37 else ("mg/dL", 180 + n)
        made.append(
            {**patient, "code": "2093-3", "name": "Cholesterol", "units": units, "value": "" if n == 5 else value}
        )
        if n < 15:
            glucose = {"code": "2345-7", "name": "Glucose", "units": "mg/dL"}
            made += [{**patient, **glucose, "value": 90 + n + k} for k in range(2)]
    return made


VALUES = sent_values()


@pytest.fixture(scope="module")
def sent(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("stats")
    for n in range(40):
        rows = [one for one in VALUES if one["n"] == n]
        results = "".join(RESULT.format(k=k + 1, **one) for k, one in enumerate(rows))
        (folder / f"{n:02}.hl7").write_text(BODY.format(**rows[0]) + results, newline="")
    assert command("produce", "files", str(folder)).returncode == 0
    merge = tmp_path_factory.mktemp("merge")
    (merge / "merge.hl7").write_text(MERGE, newline="")
    assert command("produce", "files", str(merge)).returncode == 0


def told(command: Run, *arguments: str) -> dict[str, Any]:
    done = command("stats", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


OURS = ("unit:STATA", "unit:STATB", "unit:STATC")


def test_figures_are_those_of_what_was_sent(sent: None, command: Run) -> None:
    found = told(command, "unit:STATA code:2093-3", "--field", "value_number")
    wanted = [one["value"] for one in VALUES if one["code"] == "2093-3" and one["ward"] == "STATA" and one["value"]]
    assert found["cohort"] == {"documents": 24, "patients": 23}, "two of the 24 were merged into one"
    (row,) = found["fields"]
    assert (row["documents"], row["missing"], row["units"], row["display"]) == (23, 1, "mg/dL", "Cholesterol")
    assert row["exact"]
    assert row["mean"] == pytest.approx(statistics.mean(wanted))
    assert row["sd"] == pytest.approx(statistics.stdev(wanted))
    assert (row["min"], row["median"], row["max"]) == (min(wanted), statistics.median(wanted), max(wanted))
    assert row["p95"] == pytest.approx(np.quantile(wanted, 0.95))


def test_counts_are_those_of_search(sent: None, command: Run) -> None:
    for query in OURS:
        total = json.loads(command("search", query, "--json", "--size", "0").stdout)["total"]
        assert told(command, query)["cohort"]["documents"] == total


def test_units_stay_apart(sent: None, command: Run) -> None:
    rows = told(command, "code:2093-3 unit:STATC", "--field", "value_number")["fields"]
    assert [(row["units"], row["documents"]) for row in rows] == [("mmol/L", 3), ("mg/dL", 1)]
    said = command("stats", "code:2093-3 unit:STATC", "--field", "value_number").stdout
    assert "are not pooled" in said


def test_read_and_counted_agree(sent: None, command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways to the same figures: of few values a t-digest is nearly exact."""
    caller, ehr = permit("search"), domain("ehr")
    for asked in (
        Asked("unit:STATA", fields=["value_number"]),
        Asked("unit:STATA", fields=["value_number", "unit", "value_type"], by="unit"),
        Asked("message_type:ORU", narrow=Narrow(["version=2.5"]), fields=["sex", "age"]),
    ):
        monkeypatch.setattr(consumers.stats, "EXACT", 200_000)
        read = stats(caller, asked, ehr)
        monkeypatch.setattr(consumers.stats, "EXACT", -1)
        counted = stats(caller, asked, ehr)
        assert read["cohort"] == counted["cohort"]
        ours = read.get("fields") or [row for group in read["groups"] for row in group["fields"]]
        theirs = counted.get("fields") or [row for group in counted["groups"] for row in group["fields"]]
        key = lambda row: (row["field"], row.get("code", ""), row.get("units", ""))  # noqa: E731
        assert sorted(map(key, ours)) == sorted(map(key, theirs))
        for one, other in zip(sorted(ours, key=key), sorted(theirs, key=key), strict=True):
            for name in {"documents", "missing", "mean", "sd", "min", "max", "code", "units"} & one.keys():
                assert one[name] == pytest.approx(other[name]), name
            if "median" in one:
                assert one["median"] == pytest.approx(other["median"], rel=0.02)
                assert not other["exact"]
            if "values" in one:
                assert [row["value"] for row in one["values"]] == [row["value"] for row in other["values"]]


def test_every_field_a_line(sent: None, command: Run) -> None:
    found = told(command, "unit:STATB")
    names = {row["field"] for row in found["fields"]}
    assert {"kind", "unit", "value_number", "code", "event_time"} <= names
    assert not {"sealed", "blind", "event_id", "patient_ref", "text"} & names
    done = command("stats", "unit:STATB")
    assert "documents of 12 patients" in done.stdout


def test_groups(sent: None, command: Run) -> None:
    found = told(command, "code:2093-3 message_type:ORU", "--by", "unit", "--field", "value_number")
    sizes = {one["group"]: (one["documents"], one["patients"]) for one in found["groups"]}
    assert sizes.items() >= {"STATA": (24, 23), "STATB": (12, 12), "STATC": (4, 4)}.items()


def test_over_time_and_in_a_picture(sent: None, command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = ("unit:STATA code:2093-3", "--field", "value_number", "--over", "week")
    steps = told(command, *query)["over"]["steps"]
    assert sum(row["documents"] for row in steps) == 24
    assert steps[0]["from"] == "2026-02-23"
    monkeypatch.setattr(consumers.stats, "EXACT", -1)
    counted = stats(
        permit("search"), Asked("unit:STATA code:2093-3", fields=["value_number"], over="week"), domain("ehr")
    )
    assert [(row["from"], row["documents"]) for row in counted["over"]["steps"]] == [
        (row["from"], row["documents"]) for row in steps
    ]
    for drawn in (query, ("unit:STATA code:2093-3", "--field", "value_number", "--histogram")):
        picture = tmp_path / "one.png"
        done = command("stats", *drawn, "--png", str(picture))
        assert done.returncode == 0, done.stderr
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_mode & 0o777 == 0o600
        assert "\u2588" in done.stdout
        picture.unlink()


def test_documents_of_the_patients_found(sent: None, command: Run) -> None:
    """Cholesterol of those who have glucose, through a merge: 14 persons of 15 numbers."""
    found = told(command, "code:2345-7", "--measure", "code:2093-3 unit:STATA", "--field", "value_number")
    assert found["cohort"] == {"documents": 15, "patients": 14}


def test_two_cohorts(sent: None, command: Run) -> None:
    found = told(command, "unit:STATA code:2093-3", "--versus", "unit:STATB code:2093-3", "--field", "value_number")
    assert (found["cohort"]["patients"], found["second"]["patients"], found["both"]["patients"]) == (23, 12, 0)
    (row,) = [one for one in found["compared"] if one["of"] == "numbers"]
    assert row["size"] == -1, "all of the second are higher"
    assert row["p"] < 1e-4
    same = told(command, "unit:STATA code:2093-3", "--versus", "unit:STATA code:2345-7", "--field", "value_number")
    assert (same["second"]["patients"], same["both"]) == (0, {"patients": 14, "left_out_of_second": True})
    every = told(command, "unit:STATA", "--versus", "unit:STATB")
    assert len({row["field"] for row in every["compared"]}) > 1
    assert command("stats", "unit:STATA", "--versus", "unit:STATB").returncode == 0


# ----------------------------------------------------------------------------------------------------------- research

RESEARCH = ("--role", "researcher", "--purpose", "HRESCH")


def test_research_is_told_of_no_small_group(sent: None, command: Run) -> None:
    found = told(
        command, "code:2093-3 message_type:ORU units:mg/dL", "--by", "unit", "--field", "value_number", *RESEARCH
    )
    groups = {one["group"]: one for one in found["groups"]}
    assert "STATC" not in groups
    for one in found["groups"]:
        assert one["documents"] % 5 == 0
        for row in one["fields"]:
            assert not {"min", "max", "display"} & row.keys()
    assert told(command, "unit:STATC", *RESEARCH)["cohort"] == {"documents": "<11", "patients": "<11"}
    assert told(command, "unit:NOWHERE", *RESEARCH) == told(command, "unit:STATC", *RESEARCH)
    every = told(command, "unit:STATA", *RESEARCH)
    assert not {"event_time", "observed_at", "facility", "room"} & {row["field"] for row in every["fields"]}
    few = told(command, "unit:STATA code:2093-3", "--versus", "unit:STATC code:2093-3", *RESEARCH)
    assert (few["second"]["patients"], few["compared"]) == ("<11", [])
    assert told(command, "unit:STATA", "--versus", "unit:STATB", *RESEARCH)["compared"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("*", "--over", "week"),
        ("*", "--since", "2w"),
        ("*", "--by", "facility"),
        ("*", "--field", "patient_ref"),
        ("observed_at:2026-03-01",),
        ("*", "--measure", "observed_at:2026-03-01"),
        ("*", "--versus", "observed_at:2026-03-01"),
    ],
)
def test_what_search_refuses_is_refused_here(sent: None, command: Run, stack: Path, arguments: tuple[str, ...]) -> None:
    done = command("stats", *arguments, *RESEARCH, "--json")
    assert (done.returncode, done.stdout) == (10, "")
    assert list(events(stack / "audit" / "audit.jsonl"))[-1]["outcome"] == "4"


def test_consent_holds(sent: None, command: Run) -> None:
    query = ("unit:STATB", "--field", "value_number", "--role", "quality_officer", "--purpose", "HOPERAT")
    before = told(command, *query)["cohort"]["patients"]
    assert command("consent", "deny", "--patient", "HOSP|MR|ST30", "--purpose", "HOPERAT").returncode == 0
    assert told(command, *query)["cohort"]["patients"] == before - 1


def test_a_question_is_audited(sent: None, command: Run, stack: Path) -> None:
    told(command, "unit:STATA", "--field", "sex", "--by", "unit")
    line = list(events(stack / "audit" / "audit.jsonl"))[-1]
    assert (line["subtype"][0]["code"], line["action"], line["outcome"]) == ("search", "E", "0")
    assert "statistics" in json.dumps(line)
    assert "STATA" not in json.dumps(line)


@pytest.mark.parametrize(
    "arguments",
    [
        ("*", "--field", "value_numbr"),
        ("*", "--over", "year"),
        ("*", "--histogram"),
        ("*", "--histogram", "--field", "unit"),
        ("*", "--by", "value_number"),
        ("*", "--by", "unit", "--over", "week"),
        ("*", "--versus", "x", "--by", "unit"),
        ("*", "--png", "x.png"),
        ("*", "--top", "0"),
        ("unit:STATA", "--field", "value_number", "--over", "week"),  # of two codes
    ],
)
def test_what_means_nothing_is_usage(sent: None, command: Run, arguments: tuple[str, ...]) -> None:
    done = command("stats", *arguments)
    assert done.returncode == 2, done.stdout
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
