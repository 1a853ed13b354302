"""Rules as a command: what was put into the data comes out, in files of both forms and of people."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from consumers.curves import Window
from consumers.patterns import association, changed, classes, days, following, of_people, transactions
from infra.errors import Inestimable, Untrainable, UsageError, WardstreamError
from streams.quality.cases import Person
from tests.test_quality_curves import at, case
from wardstream import app


def asked(*arguments: str | Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["quality", "rules", *map(str, arguments), "--json"])
    if done.exception is not None:
        raise done.exception
    return dict(json.loads(done.stdout))


def written(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def wide(path: Path, count: int = 400) -> Path:
    """Of smokers over 60 most have the outcome, of others few."""
    random = np.random.default_rng(3)
    rows = []
    for number in range(count):
        age, smoker = int(random.integers(30, 90)), random.integers(0, 2)
        hit = random.random() < (0.8 if smoker and age > 60 else 0.1)
        rows.append((number, f"2026-01-{1 + number * 30 // count:02}", age, ("no", "yes")[smoker], int(hit)))
    return written(path, ("id", "day", "age", "smoker", "died"), rows)


def test_association_in_a_file_of_columns(tmp_path: Path) -> None:
    file = wide(tmp_path / "rows.csv")
    report = asked("--file", file, "--id", "id", "--time", "day", "--outcome", "died")
    best = report["rules"][0]
    assert best["then"] == ["died"]
    assert "smoker=yes" in best["if"]
    assert best["q"] < 1e-6
    share = best["support"] / best["confidence"]
    assert best["support"] - best["leverage"] == pytest.approx(share * best["confidence"] / best["lift"])
    only = asked("--file", file, "--outcome", "died", "--columns", "smoker")
    assert [(one["if"], one["then"]) for one in only["rules"]] == [(["smoker=yes"], ["died"])]


def test_classes_in_a_file_of_columns(tmp_path: Path) -> None:
    of = ("--file", wide(tmp_path / "rows.csv"), "--id", "id", "--time", "day", "--method", "class")
    report = asked(*of, "--outcome", "died")
    best = report["rules"][0]
    assert "smoker=yes" in best["if"] or "not smoker=no" in best["if"]
    assert best["low"] < 0.8 < best["high"]
    assert sum(one["count"] for one in report["rules"]) == 200  # half has made them


def test_rules_that_came_and_went_between_two_windows(tmp_path: Path) -> None:
    """In the first ten days `a` brings `b`, in the last ten it brings `c`."""
    random, rows = np.random.default_rng(5), []
    for number in range(400):
        day = number // 20
        follows = "b" if day < 10 else "c"
        rows += [(number, day, "a"), (number, day, follows if random.random() < 0.9 else "d")]
        rows += [(f"x{number}", day, one) for one in ("b", "c", "d")[: random.integers(1, 4)]]
    file = written(tmp_path / "rows.csv", ("id", "day", "what"), rows)
    report = asked("--file", file, "--id", "id", "--item", "what", "--time", "day", "--window", "10")
    kinds = {(tuple(one["if"]), tuple(one["then"])): (one["kind"], one["q"] < 0.01) for one in report["changes"]}
    assert report["transactions"] == [400, 400]
    assert kinds[("a",), ("b",)] == ("vanished", True)
    assert kinds[("a",), ("c",)] == ("appeared", True)


def test_sequences_with_a_gap(tmp_path: Path) -> None:
    """Theatre to ICU within two days, except in the third person; ICU to theatre never."""
    rows = [(who, day, what) for who, gap in ((1, 1), (2, 2), (3, 9)) for day, what in ((1, "OR"), (1 + gap, "ICU"))]
    file = written(tmp_path / "rows.csv", ("id", "day", "what"), rows)
    of = ("--file", file, "--method", "sequence", "--id", "id", "--item", "what", "--time", "day")
    counts = {(tuple(one["if"]), one["then"][0]): one["count"] for one in asked(*of)["rules"]}
    assert counts == {(("OR",), "ICU"): 3}
    (rule,) = asked(*of, "--gap", "2")["rules"]
    assert (rule["count"], rule["support"], rule["confidence"]) == (2, pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_times_are_dates_or_days_and_others_are_counted(tmp_path: Path) -> None:
    assert days("2.5") == 2.5
    assert days("2026-01-02T12:00:00Z") - days("2026-01-01") == 1.5  # type: ignore[operator]
    file = written(tmp_path / "rows.csv", ("id", "day", "a"), [(1, 1, "x"), (2, "soon", "x"), (3, 2, "x")])
    assert asked("--file", file, "--id", "id", "--time", "day")["refused"] == {"bad_time": 1}


@pytest.mark.parametrize(
    ("error", "more"),
    [
        (UsageError, ("--method", "magic")),
        (UsageError, ("--method", "class")),
        (UsageError, ("--method", "sequence")),
        (UsageError, ("--method", "sequence", "--window", "3")),
        (UsageError, ("--window", "3")),
        (UsageError, ("--item", "smoker")),
        (UsageError, ("--columns", "height")),
        (UsageError, ("--outcome", "height")),
        (UsageError, ("--support", "0")),
        (UsageError, ("--site", "EAST")),
        (Inestimable, ("--time", "day", "--window", "3000")),
    ],
)
def test_wrong_usage(tmp_path: Path, error: type[WardstreamError], more: tuple[str, ...]) -> None:
    with pytest.raises(error):
        asked("--file", wide(tmp_path / "rows.csv", 40), *more)


def test_too_few_outcomes_for_a_tree(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.csv", ("a", "died"), [(number, int(number < 19)) for number in range(100)])
    with pytest.raises(Untrainable, match="too_few_events"):
        asked("--file", file, "--method", "class", "--outcome", "died")


def people(count: int = 120) -> list[Person]:
    """Four are admitted a day. Of smokers every second dies 20 days later, of others few; ten were at SMALL."""
    made = []
    for number in range(count):
        one = case(number, number / 4, "SMALL" if number < 10 else "CARD")
        one = replace(one, factors={**one.factors, "smoker": "yes" if number % 4 > 1 else "no"})
        dies = number % 8 in (2, 7) or number % 12 == 0
        made.append(Person((one,), at(number / 4 + 20) if dies else ""))
    return made


def test_of_people_an_outcome_is_an_item_once_it_is_due() -> None:
    of = of_people(people(), Window())
    held = transactions(of)
    assert "death_30d" in held[2]
    assert "smoker=yes" in held[2]
    assert any("age" in item for item in held[2])
    early = of_people(people(), Window(until=at(31)))  # thirty days of the first day's four admissions are over
    assert sum("death_30d" in due for due in early.due) == 4


def test_of_people_rules_tell_of_no_fewer_than_eleven() -> None:
    of = of_people(people(), Window())
    report = association(of, 0.05, 0.3, 2, "death_30d")
    best = report["rules"][0]
    assert (best["if"], best["confidence"]) == (["smoker=yes"], pytest.approx(0.5))
    told = json.dumps([report, following(of, 0.05, 0.1, 2), classes(of, "death_30d", 2)])
    assert "SMALL" not in told
    assert any("fewer than 11 people" in one for one in association(of, 0.02, 0.1, 2)["remarks"])
    with pytest.raises(Inestimable, match="too_few_people"):
        association(of_people(people(10), Window()), 0.05, 0.3, 2)


def test_stays_of_one_person_are_one_person() -> None:
    """Thirty stays of three people are a rule of three."""
    some = [Person(tuple(case(who, 3 * day, "CARD", procedure="CABG") for day in range(10))) for who in range(3)]
    others = [Person((case(10 + number, 0, "ORTH"),)) for number in range(20)]
    report = association(of_people([*some, *others], Window()), 0.3, 0.5, 2)
    assert not any("procedure=CABG" in one["if"] + one["then"] for one in report["rules"])
    assert report["remarks"]


def test_windows_of_people_hide_small_counts() -> None:
    report = changed(of_people(people(), Window()), 15, 0.05, 0.3, 2, "death_30d")
    counts = [n for one in report["changes"] for side in ("before", "after") for n in one[side].values()]
    assert counts
    assert all(n == "<11" or n == 0 or n >= 11 for n in counts)


def test_what_follows_what_in_peoples_chains() -> None:
    report = following(of_people(people(), Window()), 0.05, 0.1, 2)
    found = {(tuple(one["if"]), one["then"][0]): one["count"] for one in report["rules"]}
    assert found[("unit=CARD",), "death"] >= 11
