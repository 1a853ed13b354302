"""Survival, Cox and frailty as commands: published figures end to end, rows that cannot be, small groups, refits."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from consumers.curves import Asked, Model, Row, Table, Window, curves, design, follow, moved, of_people
from infra.errors import Inestimable, UsageError, WardstreamError
from schemas.envelope import rfc3339
from streams.quality.cases import Case, Person
from tests.trials import SAMPLES, clustered
from wardstream import app


def asked(*arguments: str | Path) -> Row:
    done = CliRunner().invoke(app, ["quality", *map(str, arguments), "--json"])
    if done.exception is not None:
        raise done.exception
    return dict(json.loads(done.stdout))


def refused(*arguments: str | Path) -> WardstreamError:
    with pytest.raises(WardstreamError) as error:
        asked(*arguments)
    return error.value


def written(path: Path, columns: dict[str, Sequence[Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def rossi() -> tuple[str | Path, ...]:
    return ("cox", "--file", SAMPLES / "rossi.csv", "--time", "week", "--event", "arrest")


def test_survival_of_leukaemia_as_published(tmp_path: Path) -> None:
    """Freireich et al. 1963, as in Kleinbaum and Klein, 2012: medians 23 and 8, log-rank 16.793."""
    file, picture = SAMPLES / "leukaemia.csv", tmp_path / "curve.png"
    columns = ("--time", "weeks", "--event", "relapse", "--by", "treated")
    report = asked("survival", "--file", file, *columns, "--at", "10", "--at", "24", "--out", picture)
    assert [(one["group"], one["n"], one["events"], one["median"]["time"]) for one in report["groups"]] == [
        ("0", 21, 21, 8),
        ("1", 21, 9, 23),
    ]
    assert report["log_rank"]["chi_square"] == pytest.approx(16.793, abs=5e-4)
    at = report["groups"][1]["at"][0]
    assert (at["at_risk"], at["survival"]) == (15, pytest.approx(0.753, abs=5e-4))
    assert at["low"] < 0.753 < at["high"]
    assert report["groups"][0]["at"][1]["survival"] == 0  # all have died by 23
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_mode & 0o777 == 0o600


def test_cox_of_rossi_as_published(tmp_path: Path) -> None:
    """Fox, 2002, and lifelines' documentation."""
    report = asked(*rossi(), "--out", tmp_path / "forest.svg")
    found = {one["name"]: one["coef"] for one in report["coefficients"]}
    assert (found["fin"], found["age"], found["prio"]) == pytest.approx((-0.379422, -0.057438, 0.091497), abs=5e-7)
    assert report["likelihood_ratio"]["chi_square"] == pytest.approx(33.27, abs=5e-3)
    assert report["concordance"] == pytest.approx(0.6403, abs=5e-5)
    assert set(report["proportionality"]) == {*found, "all"}
    assert b"<svg" in (tmp_path / "forest.svg").read_bytes()


def test_words_become_indicators_that_are_tested_together() -> None:
    """scikit-survival's guide, Breslow."""
    file = SAMPLES / "veteran.csv"
    report = asked("cox", "--file", file, "--time", "days", "--event", "death", "--ties", "breslow")
    found = {one["name"]: one["coef"] for one in report["coefficients"]}
    assert found["karnofsky"] == pytest.approx(-0.032622, abs=5e-7)
    assert report["proportionality"]["cell_type"]["df"] == 3
    assert "cell_type is told against adeno" in report["remarks"]


def test_frailty_of_kidney_as_published(tmp_path: Path) -> None:
    """R's survival at a variance of 1: sex -2.00764. One patient drives it: Therneau and Grambsch, 2000, 9.5."""
    of = ("frailty", "--file", SAMPLES / "kidney.csv", "--time", "time", "--event", "status", "--cluster", "id")
    given = asked(*of, "--theta", "1", "--out", tmp_path / "effects.png")
    assert {one["name"]: one["coef"] for one in given["coefficients"]}["sex"] == pytest.approx(-2.00764, abs=1e-4)
    assert given["variance"]["fixed"]
    assert given["likelihood_ratio"] is None
    assert len(given["clusters"]) == 38
    found = asked(*of, "--covariates", "age,sex")
    assert found["variance"]["low"] < 0.412 < found["variance"]["high"]
    assert (found["driver"]["cluster"], found["driver"]["theta"]) == ("21", 0)
    gaussian = asked(*of, "--distribution", "gaussian")
    assert gaussian["variance"]["theta"] == pytest.approx(0.493, abs=1e-2)


def test_rows_that_cannot_be_are_counted_by_reason(tmp_path: Path) -> None:
    good = {"start": [0] * 30, "days": range(1, 31), "died": ["yes", "no"] * 15, "age": [40 + i % 7 for i in range(30)]}
    bad = {"start": [0, 5, 0, 0, -1], "days": [-3, 5, "?", 4, 4], "died": [1, 1, 1, 2, 1], "age": [50] * 5}
    lacking = {"start": [0, 0], "days": [3, 4], "died": [1, 0], "age": ["", ""]}
    columns = {name: [*good[name], *bad[name], *lacking[name]] for name in good}
    file = written(tmp_path / "rows.csv", columns)
    report = asked("cox", "--file", file, "--time", "days", "--event", "died", "--start", "start")
    assert report["rows"] == 30
    assert report["refused"] == {
        "negative_time": 2,
        "stop_not_after_start": 1,
        "not_finite": 1,
        "bad_event": 1,
        "unknown:age": 2,
    }


def odd(path: Path, *without: str) -> Path:
    """Whoever is `bad` dies before all others; `one` is constant, `none` empty, `half` mostly, `name` a name."""
    columns = {
        "days": range(1, 21),
        "died": [1] * 20,
        "bad": [int(day < 7) for day in range(20)],
        "noise": [day * 7 % 5 for day in range(20)],
        "word": [f"n{number % 2}" for number in range(20)],
        "one": [3] * 20,
        "none": [""] * 20,
        "half": [3, 1, 4, 1, 5, 9] + [""] * 14,
        "odd": [1] + [0] * 19,
    }
    return written(path, {name: values for name, values in columns.items() if name not in without})


@pytest.mark.parametrize(
    ("reason", "where", "more"),
    [
        ("monotone_likelihood", "bad", ("--covariates", "bad,noise")),
        ("constant_covariate", "one", ("--covariates", "one,noise")),
        ("missing_column", "none", ("--covariates", "none,noise")),
        ("missing_column", "absent", ("--covariates", "absent,noise")),
        ("missing_column", "none", ("--covariates", "noise", "--strata", "none")),
        ("one_case", "odd", ("--covariates", "odd,noise")),
    ],
)
def test_what_cannot_be_estimated_is_said_with_its_column(
    tmp_path: Path, reason: str, where: str, more: tuple[str, ...]
) -> None:
    file = odd(tmp_path / "rows.csv")
    error = refused("cox", "--file", file, "--time", "days", "--event", "died", *more)
    assert isinstance(error, Inestimable)
    assert (error.reason, error.where, error.exit_code) == (reason, where, 18)


@pytest.mark.parametrize("kind", ["survival", "cox", "frailty"])
def test_all_censored(tmp_path: Path, kind: str) -> None:
    columns = {"days": range(1, 21), "died": [0] * 20, "age": range(20), "ward": ["a", "b"] * 10}
    file = written(tmp_path / "rows.csv", columns)
    more = ("--cluster", "ward") if kind == "frailty" else ()
    assert refused(kind, "--file", file, "--time", "days", "--event", "died", *more).reason == "all_censored"


def test_columns_that_tell_nothing_are_left_out_and_named(tmp_path: Path) -> None:
    """Unless somebody asks for one by its name."""
    of = ("cox", "--file", odd(tmp_path / "rows.csv", "bad", "odd"), "--time", "days", "--event", "died")
    report = asked(*of)
    assert [one["name"] for one in report["coefficients"]] == ["noise", "word=n1"]
    assert [one for one in report["remarks"] if "left out" in one] == [
        "one is left out: it has one value",
        "none is left out: nobody has a value of it",
        "half is left out: known of 30% of rows",
    ]
    assert asked(*of, "--covariates", "noise,word")["coefficients"] == report["coefficients"]
    assert asked(*of, "--covariates", "noise,half")["refused"] == {"unknown:half": 14}


def test_a_name_is_no_covariate() -> None:
    many = Table([1.0] * 30, [True] * 30, {"name": [f"n{one}" for one in range(30)]}, frozenset(("name",)))
    assert design(many, Asked()).remarks == ("name is left out: it has 30 words",)
    with pytest.raises(Inestimable, match="too_many_levels: name"):
        design(many, Asked(("name",)))


def test_a_unit_with_one_case(tmp_path: Path) -> None:
    """It has a curve and no part in the test; in a frailty model it is said."""
    data, cluster = clustered(3, 4, 12, 0.5)
    columns = {
        "days": data.stop,
        "died": data.event.astype(int),
        "a": data.x[:, 0],
        "unit": [f"U{one}" for one in cluster],
    }
    columns = {
        name: [*values, extra] for (name, values), extra in zip(columns.items(), (0.5, 1, 0.1, "LONE"), strict=True)
    }
    file = written(tmp_path / "rows.csv", columns)
    of = ("--file", file, "--time", "days", "--event", "died")
    report = asked("survival", *of, "--by", "unit")
    assert {one["group"]: one["n"] for one in report["groups"]}["LONE"] == 1
    assert report["log_rank"]["df"] == 3
    assert "one row each, and so no part of the test: LONE" in report["remarks"]
    shared = asked("frailty", *of, "--cluster", "unit")
    assert "1 clusters of unit have one row" in shared["remarks"]
    assert len(shared["clusters"]) == 5


def test_a_group_where_nothing_happened_has_a_level_curve() -> None:
    table = Table([1, 2, 3, 4], [True, True, False, False], {"ward": ["a", "a", "b", "b"]}, frozenset(("ward",)))
    report = curves(table, "ward", [3])
    assert report["groups"][1]["at"][0]["survival"] == 1
    assert "in group b nothing has happened" in report["remarks"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("survival", "--file", "absent.csv", "--time", "a", "--event", "b"),
        ("survival", "--file", SAMPLES / "rossi.csv", "--time", "weeks", "--event", "arrest"),
        ("survival", "--file", SAMPLES / "rossi.csv", "--event", "arrest"),
        ("survival", "--file", SAMPLES / "rossi.csv", "--time", "week", "--event", "arrest", "--out", "a.pdf"),
        ("survival", "--file", SAMPLES / "rossi.csv", "--time", "week", "--event", "arrest", "--site", "EAST"),
        ("frailty", "--file", SAMPLES / "rossi.csv", "--time", "week", "--event", "arrest"),
        (*rossi(), "--ties", "exact"),
        (*rossi(), "--every", "5"),
        ("cox", "--time", "week"),
    ],
)
def test_wrong_usage(arguments: tuple[str | Path, ...]) -> None:
    assert isinstance(refused(*arguments), UsageError)


# --------------------------------------------------------------------------------------------------------------- people

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def at(day: float) -> str:
    return rfc3339(BEGIN + timedelta(days=day))


def case(number: int, day: float, unit: str = "CARD", person: str = "", **more: Any) -> Case:
    who = person or f"p{number}"
    factors = {"age": 50.0 + number % 30, "sex": "MF"[number % 2]}
    made = Case(
        record=f"r{number}-{day}",
        person=who,
        site="EAST",
        unit=unit,
        procedure="",
        service="",
        begun=at(day),
        ended=at(day + 5),
        disposition="01",
        planned=False,
        known=at(100),
        factors=factors,
    )
    return replace(made, **more)


def persons(count: int, died: Callable[[int], bool] = lambda number: number % 3 == 0) -> list[Person]:
    """Case `number` begins on day `number` % 20; whoever dies does so up to 40 days later."""
    made = []
    for number in range(count):
        begun = number % 20
        when = at(begun + 6 + number * 7 % 34) if died(number) else ""
        made.append(Person((case(number, begun, "CARD" if number % 2 else "ORTH"),), when))
    return made


def test_of_people_each_counts_once_from_the_first_case_asked_for() -> None:
    twice = Person((case(1, 0), case(1, 30, "ORTH")), at(50))
    table = of_people([twice], Window())
    assert (table.stop, table.event, table.columns["unit"]) == ([50.0], [True], ["CARD"])
    table = of_people([twice], Window(unit="ORTH"))
    assert (table.stop, table.event) == ([20.0], [True])
    table = of_people([twice], Window(until=at(40)))
    assert (table.stop, table.event) == ([40.0], [False])
    assert not len(of_people([twice], Window(since=at(31))))


def test_what_cannot_be_of_people_is_counted_by_reason() -> None:
    found = [
        Person((case(1, 10),), at(3)),
        Person((case(2, 10, ended=at(4)),)),
        Person((case(3, 10, unit=""),)),
        Person((case(4, 10), case(4, 40, ended=at(39)))),
    ]
    table = of_people(found, Window())
    assert table.refused == {"death_before_admission": 1, "negative_time": 2, "unknown_unit": 1}
    assert len(table) == 1


def test_no_group_of_fewer_than_eleven_people_is_told_of() -> None:
    some = persons(60)
    few = [Person((case(100 + number, 3, "TINY"),), at(9)) for number in range(10)]
    report = curves(of_people([*some, *few], Window()), "unit")
    assert [one["group"] for one in report["groups"]] == ["CARD", "ORTH"]
    assert "1 groups of fewer than 11 people are not shown" in report["remarks"]
    told = json.dumps(report)
    assert "TINY" not in told
    assert all(one["at_risk"][-1] == "<11" for one in report["groups"])
    shared = Model("frailty", Asked(("age",), cluster="unit")).fit(of_people([*some, *few], Window()))
    assert "TINY" not in json.dumps(shared)
    assert sum("not shown" in one for one in shared["remarks"]) == 1
    for kind in (lambda: curves(of_people(few, Window()), ""), lambda: design(of_people(few, Window()), Asked())):
        with pytest.raises(Inestimable, match="too_few_people"):
            kind()


def test_a_curve_of_people_ends_where_few_are_left() -> None:
    report = curves(of_people(persons(40, lambda number: number < 36), Window()), "")
    (group,) = report["groups"]
    assert group["events"] == 36
    assert len(group["steps"]) <= 30
    beyond = curves(of_people(persons(40, lambda number: number < 36), Window()), "", [39])["groups"][0]["at"][0]
    assert (beyond["at_risk"], beyond["survival"]) == ("<11", None)


def operated(usual: int) -> Table:
    """Of 60 people so many had a bypass, the others four other operations."""
    names = ["CABG" if place < usual else f"P{place % 4}" for place in range(60)]
    some = [
        replace(one, cases=(replace(one.cases[0], procedure=name),))
        for one, name in zip(persons(60), names, strict=True)
    ]
    return of_people(some, Window())


def test_levels_of_few_people_become_one() -> None:
    made = design(operated(usual=30), Asked(("procedure",)))
    assert made.terms == {"procedure": ("procedure=other",)}
    assert made.given.x.sum() == 30


def test_where_all_others_are_few_they_are_left_out() -> None:
    with pytest.raises(Inestimable, match="constant_covariate: procedure"):
        design(operated(usual=50), Asked(("procedure",)))
    made = design(operated(usual=50), Asked(("age", "sex")))
    assert (len(made.given), made.refused) == (60, {})


# --------------------------------------------------------------------------------------------------------------- refits


class Over(Exception):
    pass


def simulated(seed: int, size: int = 30, **more: Sequence[str]) -> Table:
    data, cluster = clustered(seed, 12, size, 0.6)
    columns = {"a": [str(one) for one in data.x[:, 0]], "b": [str(one) for one in data.x[:, 1]]}
    columns["unit"] = [f"U{one}" for one in cluster]
    return Table(
        data.stop.tolist(), data.event.tolist(), columns | {k: list(v) for k, v in more.items()}, frozenset(("unit",))
    )


def followed(model: Model, tables: Sequence[Table]) -> list[tuple[Row, Row | None]]:
    left, said = list(tables), list[tuple[Row, Row | None]]()

    def read() -> Table:
        if not left:
            raise Over
        return left.pop(0)

    with pytest.raises(Over):
        asyncio.run(follow(read, model, 0.01, lambda report, last: said.append((report, last))))
    return said


def test_a_refit_begins_where_the_last_one_ended_and_only_when_rows_have_changed() -> None:
    """In a process of its own. What cannot be estimated is said and forgotten; a column that vanishes is named."""
    one = simulated(1)
    turned = np.random.default_rng(1).permutation(len(one))
    same = Table(
        [one.stop[row] for row in turned],
        [one.event[row] for row in turned],
        {name: [column[row] for row in turned] for name, column in one.columns.items()},
        one.words,
    )
    more = Table([*one.stop, 0.3], [*one.event, True], {n: [*c, c[0]] for n, c in one.columns.items()}, one.words)
    none = replace(more, event=[False] * len(more))
    gone = replace(more, columns=more.columns | {"b": [""] * len(more)})
    model = Model("cox", Asked(cluster="unit"))
    said = followed(model, [one, same, more, none, gone])
    assert len(said) == 4
    (first, before), (second, last), (third, _), (fourth, latest) = said
    assert before is None
    assert last == first
    assert second["rows"] == first["rows"] + 1
    assert model.fit(one, first)["steps"] == 1 < first["steps"]
    cold = model.fit(more)
    assert [row["coef"] for row in second["coefficients"]] == pytest.approx([r["coef"] for r in cold["coefficients"]])
    assert third == {"error": "all_censored", "where": ""}
    assert latest == second
    assert [row["name"] for row in fourth["coefficients"]] == ["a"]
    assert any(remark.startswith("b is left out") for remark in fourth["remarks"])
    assert moved(second, first)[0]["errors"] < 1
    assert {row["name"]: row["now"] for row in moved(fourth, second)}["b"] is None
    by_name = followed(Model("cox", Asked(("a", "b"))), [gone])
    assert by_name[0][0] == {"error": "missing_column", "where": "b"}


def test_frailty_refits_agree_with_cold_fits() -> None:
    one, model = simulated(2, 15), Model("frailty", Asked(cluster="unit"))
    last = model.fit(one)
    more = Table([*one.stop, 0.3], [*one.event, True], {n: [*c, c[0]] for n, c in one.columns.items()}, one.words)
    warm, cold = model.fit(more, last), model.fit(more)
    assert warm["evaluations"] < cold["evaluations"]
    assert warm["variance"]["theta"] == pytest.approx(cold["variance"]["theta"], rel=1e-4)
    assert [row["coef"] for row in warm["coefficients"]] == pytest.approx(
        [r["coef"] for r in cold["coefficients"]], abs=1e-5
    )
