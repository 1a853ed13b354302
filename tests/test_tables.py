"""Any table of cases: columns, junk and leaks; and whether trees beat logistic regression where the truth is known."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.errors import Untrainable, UsageError
from streams.quality import candidates, tables
from streams.quality.tables import Prepared
from wardstream import app

Table = list[list[object]]
HEAD = ["patient_id", "age", "gender", "diabetes", "systolic", "pressure", "smoker", "ward", "admitted", "note", "died"]


def table(n: int = 700, seed: int = 1, *, bent: bool = False, rare: bool = False) -> Table:
    rng = random.Random(seed)
    made: Table = [list(HEAD)]
    for number in range(n):
        age, sex, diabetes, s = rng.randint(25, 90), rng.choice(["Male", "female"]), rng.random() < 0.3, rng.gauss(0, 1)
        logit = (2.2 * min(s * s, 4) - 2.6 + (1.5 if diabetes == (age > 60) else -1.0)) if bent else (
            0.06 * (age - 60) + 0.8 * diabetes + 0.9 * s - 0.8
        )  # fmt: skip
        died = rng.random() < 1 / (1 + math.exp(-logit + 3 * rare))
        made.append(
            [
                100 + number, age, sex, int(diabetes), round(134 + 24 * s, 1) if rng.random() > 0.1 else "NA",
                f"{rng.randint(90, 180)}/{rng.randint(50, 100)}", rng.choice(["yes", "No", ""]), "A",
                f"2025-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}", f"seen by {rng.random()}", int(died),
            ]
        )  # fmt: skip
    return made


def text(rows: Table, mark: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=mark).writerows(rows)
    return out.getvalue()


def prepared(rows: Table, **said: object) -> Prepared:
    names, lines = tables.read(text(rows))
    return tables.prepared(names, lines, str(said.pop("outcome", "died")), **said)  # type: ignore[arg-type]


def dropped(found: Prepared) -> dict[str, str]:
    return {one.name: one.dropped.partition(":")[0] for one in found.columns if one.dropped}


# ------------------------------------------------------------------------------------------------------------- columns


def test_columns_are_typed_and_junk_is_named() -> None:
    found = prepared(table())
    assert {one.name: one.kind for one in found.columns if not one.dropped} == {
        "age": "number",
        "gender": "yes or no",
        "diabetes": "yes or no",
        "systolic": "number",
        "pressure systolic": "number",
        "pressure diastolic": "number",
        "smoker": "yes or no",
    }
    assert dropped(found) == {
        "patient_id": "identifier",
        "ward": "constant",
        "admitted": "dates",
        "note": "identifier or free text",
    }
    share = next(one.missing for one in found.columns if one.name == "systolic")
    assert 0.05 < share < 0.15
    row = found.rows[0]
    assert {"age", "diabetes=0" if "diabetes=0" in row.features else "diabetes=1"} <= row.features.keys()
    assert ("systolic" in row.features) != ("missing=systolic" in row.features)
    assert any(name in row.features for name in ("sex=male", "sex=female"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("died_too", lambda died: "x" if died else "y"),
        ("cause_of_death", lambda died: f"cause {died}" if died else ""),
        ("death_date", lambda died: "2025-03-01" if died else ""),
        ("days_alive", lambda died: 3 + random.Random(died).random() if died else 400),
        ("against", lambda died: 0.1 if died else 0.9),
    ],
)
def test_leaks_are_named_and_left_out(name: str, value: object) -> None:
    rows = table(300)
    rows = [[*rows[0], name], *([*row, value(row[-1])] for row in rows[1:])]  # type: ignore[operator]
    found = prepared(rows)
    assert dropped(found)[name] == "leak"


def test_what_almost_tells_is_kept_and_said() -> None:
    rng, rows = random.Random(1), table(400)
    rows = [
        [*rows[0], "hint"],
        *([*row, row[-1] if rng.random() < 0.97 else 1 - int(str(row[-1]))] for row in rows[1:]),
    ]
    (hint,) = [one for one in prepared(rows).columns if one.name == "hint"]
    assert not hint.dropped
    assert hint.remark.startswith("suspicious: alone it has an AUC of 0.9")


def test_other_marks_decimals_and_a_byte_order_mark() -> None:
    rows = [[str(value).replace(".", ",") for value in row] for row in table(200)]
    names, lines = tables.read("\ufeff" + text(rows, ";"))
    found = tables.prepared(names, lines, "died")
    assert next(one for one in found.columns if one.name == "systolic").kind == "number"


@pytest.mark.parametrize(
    ("said", "reason"),
    [("a,b\n1\n", "row 2 has 1 values"), ("a,a\n1,2\n", "two columns 'a'"), ("a,b\n", "no rows"), ("", "no rows")],
)
def test_what_is_no_table(said: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        tables.read(said)


def test_the_outcome_in_other_words() -> None:
    def labels(yes: object, no: object, **said: object) -> tuple[str, float]:
        rows = table(300)
        found = prepared([rows[0], *([*row[:-1], yes if row[-1] else no] for row in rows[1:])], **said)
        return found.yes, sum(row.label == "yes" for row in found.rows)

    events = sum(int(str(row[-1])) for row in table(300)[1:])
    for yes, no in (("Yes", "no"), ("dead", "alive"), (2, 1), (True, False)):
        assert labels(yes, no) == (str(yes).lower(), events)
    assert labels("b", "a", positive=["A"]) == ("a", 300 - events)


def test_rows_that_repeat_stay_together() -> None:
    rows = table(300)
    found = prepared([*rows, *rows[1:51]])
    assert any("50 rows repeat another one" in one for one in found.remarks)
    assert len({row.patient for row in found.rows}) == 300


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (table(60), "too_few_rows"),
        ([row if at == 0 else [*row[:-1], 0] for at, row in enumerate(table(200))], "one_class"),
        ([row if at == 0 else [*row[:-1], int(at < 8)] for at, row in enumerate(table(200))], "too_few_patients"),
        ([row if at == 0 else [*row[:-1], at % 3] for at, row in enumerate(table(200))], "not_two_classes"),
        ([row if at == 0 else [*row[:-1], ""] for at, row in enumerate(table(200))], "one_class"),
        ([[row[0], row[-1]] for row in table(200)], "no_features"),
    ],
)
def test_refusals_with_a_reason(rows: Table, reason: str) -> None:
    with pytest.raises(Untrainable) as caught:
        prepared(rows)
    assert caught.value.reason == reason


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no column 'dead': there are patient_id"):
        prepared(table(200), outcome="dead")


# ----------------------------------------------------------------------------------------------------------- the truth

TRIED = ("xgboost", "lightgbm", "logistic_regression")


def test_trees_beat_logistic_regression_where_the_truth_is_bent() -> None:
    found = candidates.compared(prepared(table(bent=True)).rows, False, algorithms=TRIED)
    assert set(found.better) == {"xgboost", "lightgbm"}
    assert found.proposed in found.better
    assert found.verdict.startswith("beat logistic regression in AUC: ")
    assert found.figures["xgboost"]["brier"].value < found.figures["logistic_regression"]["brier"].value


def test_they_do_not_where_it_is_straight() -> None:
    done: list[int] = []
    found = candidates.compared(prepared(table()).rows, False, lambda: done.append(1), TRIED)
    assert (found.better, found.proposed) == ((), "logistic_regression")
    assert found.verdict.startswith("no candidate is shown to beat logistic regression: the nearest, ")
    assert found.calibration["logistic_regression"].slope == pytest.approx(1, abs=0.25)
    assert len(done) == candidates.steps(False, TRIED)
    assert {"sex=male", "diabetes=1", "age=18-64"} <= found.subgroups.keys()


def test_a_rare_outcome_and_the_last_fifth_of_the_time() -> None:
    made = prepared(table(2000, rare=True), time="admitted", patient="patient_id")
    found = candidates.compared(made.rows, made.timed, algorithms=("decision_tree", "logistic_regression"))
    assert found.events < 0.2 * found.rows
    assert found.judged.startswith("the last fifth of the time")
    assert found.proposed == "logistic_regression"


def test_where_nothing_tells_anything() -> None:
    rng, rows = random.Random(3), table(400)
    rows = [rows[0], *([*row[:-1], rng.randint(0, 1)] for row in rows[1:])]
    found = candidates.compared(prepared(rows).rows, False, algorithms=("decision_tree", "logistic_regression"))
    assert "no better than chance" in found.verdict


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(text(table(150)))
    done = CliRunner().invoke(app, ["models", "try", "--file", str(path), "--outcome", "died", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["proposed"] == "logistic_regression"
    assert set(said["figures"]) == {*candidates.learn.OUTCOME_ALGORITHMS, "majority"}
    assert "seen by" not in done.stdout
