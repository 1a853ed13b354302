"""Tables of a cohort: what is counted, what is not pooled, and what no table tells of fewer than eleven patients."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers import figures
from consumers.cohort import Cohort, Column, describe, groups, histogram, shares_persons, shown, start, trend, versus
from infra.errors import UsageError

KINDS = frozenset({"observation"})
VALUE = Column("value_number", "number", ("units",), KINDS)
SEX = Column("sex", "category")
UNIT = Column("unit", "category")
CHOLESTEROL = {"kind": "observation", "code_system": "LN", "code": "2093-3", "units": "mg/dL"}


def cohort(documents: list[dict[str, Any]]) -> Cohort:
    """`patient` is our own number; all other names are fields."""
    names = {name for one in documents for name in one} | {"kind", "code", "code_system", "units", "value_number"}
    persons = np.array([one.get("patient", -1) for one in documents], dtype=np.int64)
    return Cohort(persons, {name: [one.get(name) for one in documents] for name in names - {"patient"}})


def described(documents: list[dict[str, Any]], column: Column = VALUE, limited: bool = False) -> list[dict[str, Any]]:
    made = cohort(documents)
    return describe(made, made.rows(), column, limited=limited, top=20)


def patients(count: int, first: int = 0, **fields: Any) -> list[dict[str, Any]]:
    return [CHOLESTEROL | {"patient": first + n, "value_number": 200.0 + n} | fields for n in range(count)]


# ------------------------------------------------------------------------------------------------------------ counting


def test_units_are_never_pooled() -> None:
    """5.2 mmol/L and 200 mg/dL are one thing in two units: a mean of both is nothing. Nor is one of two codes."""
    rows = described([*patients(3), *patients(2, units="mmol/L", value_number=5.2), *patients(1, code="2345-7")])
    assert [(row["code"], row["units"], row["documents"], row["mean"]) for row in rows] == [
        ("2093-3", "mg/dL", 3, 201.0),
        ("2093-3", "mmol/L", 2, 5.2),
        ("2345-7", "mg/dL", 1, 200.0),
    ]


def test_the_same_code_of_two_systems_is_two() -> None:
    rows = described([*patients(2), *patients(2, code_system="L")])
    assert [row["code_system"] for row in rows] == ["L", "LN"]


def test_missing_is_of_documents_that_could_have_it() -> None:
    """A visit has no result and misses none; of a code, its own documents miss it."""
    visits: list[dict[str, Any]] = [{"kind": "visit", "patient": 1}] * 5
    other = patients(4, code="2345-7", value_number=None)
    (row,) = described([*patients(3), *patients(1, value_number=None), *other, *visits])
    assert (row["documents"], row["missing"], row["missing_share"]) == (3, 1, 0.25)


def test_documents_and_patients_are_told_apart() -> None:
    (row,) = described([CHOLESTEROL | {"patient": 7, "value_number": float(n)} for n in range(4)])
    assert (row["documents"], row["patients"]) == (4, 1)
    assert (row["min"], row["median"], row["max"]) == (0.0, 1.5, 3.0)


def test_categories_and_what_is_beyond_the_top() -> None:
    made = cohort([{"patient": n, "sex": word} for n, word in enumerate("FFFMMU")] + [{"patient": 9}])
    (row,) = describe(made, made.rows(), SEX, limited=False, top=2)
    assert row["values"] == [
        {"value": "F", "documents": 3, "patients": 3, "share": 0.5},
        {"value": "M", "documents": 2, "patients": 2, "share": pytest.approx(1 / 3, abs=1e-4)},
    ]
    assert (row["others"]["documents"], row["distinct"], row["missing"]) == (1, 3, 1)


def test_a_document_of_several_values_is_in_several_cells() -> None:
    (row,) = described(
        [{"patient": 1, "flags": ["H", "A", "H"]}, {"patient": 2, "flags": "A"}], Column("flags", "category")
    )
    assert [(one["value"], one["documents"]) for one in row["values"]] == [("A", 2), ("H", 1)]


def test_groups_and_those_without() -> None:
    found, left = groups(cohort([*patients(3, unit="ICU"), *patients(1, unit=None)]), "unit", False, 20)
    assert ({name: len(rows) for name, rows in found.items()}, left) == ({"ICU": 3, "(none)": 1}, [])


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        ("day", {"2026-03-01": 1, "2026-03-02": 1, "2026-03-03": 0, "2026-03-04": 1}),
        ("week", {"2026-02-23": 1, "2026-03-02": 2}),
        ("month", {"2026-03": 3}),
    ],
)
def test_trend(step: str, wanted: dict[str, int]) -> None:
    """2026-03-01 is a Sunday, and the last day of its week."""
    day, first = 86_400_000, int(np.datetime64("2026-03-01T23:59", "ms").astype(int))
    made = cohort(patients(3))
    found = trend(made, [first, first + day, first + 3 * day], step, (made.rows(), "value_number"))
    assert {row["from"]: row["documents"] for row in found} == wanted
    assert found[-1]["median"] == {"day": 202.0, "week": 201.5, "month": 201.0}[step]
    assert start(0, "week") == "1969-12-29"


def test_a_trend_of_too_many_steps_is_refused() -> None:
    with pytest.raises(UsageError, match="longer steps"):
        trend(cohort(patients(2)), [0, 2001 * 86_400_000], "day", None)


# ---------------------------------------------------------------------------------------------------------- small cells


def test_no_cell_of_ten() -> None:
    rows = described([*patients(40), *patients(10, 40, code="2345-7"), *patients(12, 50, code="718-7")], limited=True)
    assert [(row.get("code"), row["documents"]) for row in rows] == [("2093-3", 40), (None, 20)], "12 and 10 together"


def test_a_cell_is_of_patients_and_not_of_documents() -> None:
    many = [one | {"patient": n % 10} for n, one in enumerate(patients(500, code="2345-7"))]
    rows = described([*patients(40, 10), *patients(30, 50, code="718-7"), *many], limited=True)
    assert "2345-7" not in {row.get("code") for row in rows}


def test_complementary_suppression() -> None:
    """One small cell alone could be had from the total: the smallest of the others goes with it."""
    made = cohort([{"patient": n, "sex": "F" if n < 50 else "M" if n < 80 else "U"} for n in range(83)])
    (row,) = describe(made, made.rows(), SEX, limited=True, top=20)
    assert [(one["value"], one["documents"]) for one in row["values"]] == [("F", 50)]
    assert row["others"]["documents"] == 30
    assert "distinct" not in row


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 6)), max_size=400))
def test_nothing_shown_is_small(pairs: list[tuple[int, int]]) -> None:
    made = cohort([{"patient": person, "cell": cell} for person, cell in pairs])
    cells: dict[int, list[int]] = {}
    for row, (_, cell) in enumerate(pairs):
        cells.setdefault(cell, []).append(row)
    found, left = shown(made, cells)
    assert all(made.distinct(rows) >= 11 for rows in found.values())
    assert not left or made.distinct(left) >= 11 or not found
    assert sorted([*left, *(row for rows in found.values() for row in rows)]) == list(range(len(pairs)))


def test_extremes_are_not_told_nor_a_quantile_beyond_ten_patients() -> None:
    (row,) = described(patients(60), limited=True)
    assert not {"min", "max"} & row.keys()
    assert (row["p5"], row["p95"]) == (None, None), "3 patients are beyond each"
    assert (row["q1"], row["median"], row["q3"]) == (215.0, 230.0, 244.0), "three digits"
    (row,) = described(patients(21), limited=True)
    assert (row["median"], row["mean"]) == (None, 210.0)


def test_no_quantile_is_one_patients_value() -> None:
    """Half of an odd number have 100, the other half 300, and the one in the middle 177: told is a mean of eleven."""
    values = [100.0] * 12 + [177.0] + [300.0] * 12
    rows = [CHOLESTEROL | {"patient": n, "value_number": value} for n, value in enumerate(values)]
    assert described(rows)[0]["median"] == 177.0
    (row,) = described(rows, limited=True)
    assert row["median"] == round((5 * 100 + 177 + 5 * 300) / 11, 0) == 198.0
    moved = described([*rows[:12], rows[12] | {"value_number": 178.0}, *rows[13:]], limited=True)
    assert moved[0]["median"] == 198.0, "what one patient has is rounded away"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80), st.sampled_from(sorted(figures.LEVELS.values())))
def test_a_quantile_over_eleven_lies_among_them_and_changes_with_each_little(values: list[float], share: float) -> None:
    made = figures.quantile_over(np.array(values), share, 11)
    if min(share, 1 - share) * len(values) < 11:
        assert made is None
        return
    order, place = np.sort(values), (len(values) - 1) * share
    about = [order[k - 5 : k + 6] for k in (int(place), int(np.ceil(place)))]
    assert [len(one) for one in about] == [11, 11]
    low, high = (one.mean() for one in about)
    assert min(low, high) - 1e-6 <= made <= max(low, high) + 1e-6


def test_numbers_are_of_one_value_a_patient() -> None:
    """One patient with 500 results does not make the mean."""
    many = [CHOLESTEROL | {"patient": 0, "value_number": 1000.0} for _ in range(500)]
    (row,) = described([*many, *patients(99, 1, value_number=100.0)], limited=True)
    assert row["mean"] == 109.0
    assert row["one_a_patient"]


def test_few_without_it_are_not_told_by_the_count_of_those_with_it() -> None:
    """100 documents, and 97 of them with a value, would tell of three patients: told as none missing would be."""
    with_few = described([*patients(97), *patients(3, 97, value_number=None)], limited=True)[0]
    with_none = described(patients(100), limited=True)[0]
    for name in ("documents", "patients", "missing", "missing_share"):
        assert with_few[name] == with_none[name]
    assert with_few["missing"] == "<11"
    (row,) = described([*patients(50), *patients(20, 50, value_number=None)], limited=True)
    assert (row["missing"], row["missing_share"]) == (20, pytest.approx(20 / 70, abs=1e-4))


def test_ages_above_89_are_90() -> None:
    made = cohort([{"patient": n, "age": "90+" if n < 12 else 40} for n in range(24)])
    (row,) = describe(made, made.rows(), Column("age", "number"), limited=True, top=20)
    assert row["mean"] == 65.0


def test_a_histogram_of_patients_has_no_small_bin_and_no_end() -> None:
    values = np.concatenate([np.random.default_rng(5).normal(100, 10, 300), [400.0]])
    bins = histogram(values, np.arange(301), limited=True)
    assert len(bins) > 3
    assert all(row["count"] >= 10 for row in bins), "11, rounded down"
    assert (bins[0]["from"], bins[-1]["to"]) == (None, None)
    assert max(row["from"] or 0 for row in bins) < 200, "the one at 400 draws no bin of its own"
    assert histogram(values[:10], np.arange(10), limited=True) == []
    assert sum(row["count"] for row in histogram(values, np.arange(301), limited=False)) == 301


def test_a_group_of_ten_is_in_the_others() -> None:
    found, left = groups(
        cohort([*patients(30, unit="ICU"), *patients(10, 30, unit="ED"), *patients(15, 40, unit="MED")]),
        "unit",
        True,
        20,
    )
    assert list(found) == ["ICU"]
    assert len(left) == 25


# ---------------------------------------------------------------------------------------------------------- two cohorts


def test_repeats_of_one_patient_are_one_value() -> None:
    """Forty results of one patient are not forty patients: as values, p would be far below 0.001."""
    low = [CHOLESTEROL | {"patient": n % 2, "value_number": 100.0 + n % 2} for n in range(40)]
    high = [CHOLESTEROL | {"patient": 2 + n % 2, "value_number": 200.0 + n % 2} for n in range(40)]
    row = next(row for row in versus(cohort(low), cohort(high), [VALUE], limited=False) if row["of"] == "numbers")
    assert (row["first"], row["second"]) == ({"patients": 2, "median": 100.5}, {"patients": 2, "median": 200.5})
    assert row["p"] > 0.3
    assert row["size"] == -1


def test_units_are_compared_with_themselves() -> None:
    a = cohort([*patients(5), *patients(5, units="mmol/L", value_number=5.0)])
    rows = versus(a, cohort(patients(5, 5)), [VALUE], limited=False)
    numbers = [row for row in rows if row["of"] == "numbers"]
    assert [(row["units"], row["first"]["patients"], row["second"]["patients"]) for row in numbers] == [
        ("mg/dL", 5, 5),
        ("mmol/L", 5, 0),
    ]
    assert "p" not in numbers[1]
    assert numbers[1]["why"]


def test_several_fields_are_adjusted_together() -> None:
    a = cohort([one | {"sex": "F" if n < 9 else "M"} for n, one in enumerate(patients(10))])
    b = cohort([one | {"sex": "M"} for one in patients(10, 10, value_number=150.0)])
    rows = versus(a, b, [VALUE, SEX], limited=False)
    assert [row["of"] for row in rows] == ["numbers", "categories"]
    assert all(row["q"] >= row["p"] for row in rows)
    json.dumps(rows, allow_nan=False)


def test_who_has_it_at_all() -> None:
    a, b = (
        cohort([*patients(8), *patients(2, 8, value_number=None)]),
        cohort([*patients(4), *patients(6, 4, value_number=None)]),
    )
    row = next(row for row in versus(a, b, [VALUE], limited=False) if row["of"] == "presence")
    assert (row["first"]["share"], row["second"]["share"], row["size"]) == (0.8, 0.4, 2.0)
    assert (row["effect"], row["test"]) == ("risk ratio", "Fisher exact")


def test_patients_of_both() -> None:
    a, b = cohort(patients(5)), cohort(patients(5, 3))
    both = shares_persons(a, b)
    assert both == {3, 4}
    assert b.without(both).persons.tolist() == [5, 6, 7]


def test_no_comparison_of_ten() -> None:
    a, b = cohort(patients(40, sex="F")), cohort(patients(10, 40, sex="M"))
    assert versus(a, b, [VALUE, SEX], limited=True) == []


def test_a_limited_comparison_tells_two_digits_and_pools_small_categories() -> None:
    def side(first: int, words: str) -> Cohort:
        return cohort([one | {"sex": word} for one, word in zip(patients(len(words), first), words, strict=True)])

    rows = versus(
        side(0, "F" * 40 + "M" * 30 + "U" * 5), side(100, "F" * 20 + "M" * 50 + "U" * 5), [VALUE, SEX], limited=True
    )
    assert versus(side(0, "F" * 40 + "U" * 5), side(100, "F" * 20 + "U" * 3), [SEX], limited=True) == []
    numbers, categories = rows
    assert not {"hodges_lehmann", "hodges_lehmann_interval"} & numbers.keys(), "of two patients each"
    assert categories["first"]["values"] == {"(others)": 45, "M": 30}
    for row in rows:
        assert all(float(f"{row[name]:.2g}") == row[name] for name in ("p", "q", "size"))
    assert numbers["first"]["patients"] == 75
