"""A cohort in memory, a row a document, and its tables: by field, by group, over time, against another. Pure.

`limited` is for roles with a Safe Harbor view: then no cell stands for fewer than 11 patients, none can be had by
taking the others from the total, numbers are of one value a patient and rounded, and extremes are not told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from consumers import figures
from consumers.figures import Compared, Values
from infra.errors import UsageError
from schemas import safe_harbor
from schemas.safe_harbor import OLDEST, SMALLEST
from streams.quality.rules import adjusted

Row = dict[str, Any]
Rows = Sequence[int]
K = TypeVar("K", bound=Hashable)
FEW = f"<{SMALLEST}"
NONE = "(none)"
OF_PAIRS = ("hodges_lehmann", "hodges_lehmann_interval")  # each the difference of two patients' values
STEPS = ("day", "week", "month")
MOST_STEPS = 2000
_DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class Column:
    """A field as it is counted. `kinds` are the documents that can carry it, None for all; without it they miss it."""

    name: str
    type: str  # number, category, time, text
    units: tuple[str, ...] = ()  # fields that say the unit, where the number means nothing without
    kinds: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Cohort:
    """`persons` are numbers of our own, -1 for a document of no patient; `values` has None where there is none."""

    persons: NDArray[np.int64]
    values: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(self.persons)

    def rows(self) -> Rows:
        return range(len(self))

    def distinct(self, rows: Rows) -> int:
        found = np.unique(self.persons[np.asarray(rows, dtype=np.int64)])
        return int((found >= 0).sum())

    def without(self, persons: Collection[int]) -> Cohort:
        kept = np.flatnonzero(~np.isin(self.persons, list(persons))).tolist()
        return Cohort(self.persons[kept], {name: [one[i] for i in kept] for name, one in self.values.items()})


# ------------------------------------------------------------------------------------------------------------- cells


def counted(cohort: Cohort, rows: Rows, limited: bool) -> Row:
    """How many documents, and of how many patients: never the one for the other."""
    persons = cohort.distinct(rows)
    if limited:
        return {"documents": safe_harbor.total(len(rows), persons), "patients": safe_harbor.total(persons, persons)}
    return {"documents": len(rows), "patients": persons}


def shown(cohort: Cohort, cells: Mapping[K, Rows]) -> tuple[dict[K, Rows], Rows]:
    """The cells of at least 11 patients, largest first, and the rows of all others together.

    The others are no cell that can be had from the total: where they are fewer than 11 patients, the smallest of the
    shown cells goes to them (complementary suppression).
    """
    persons = {key: cohort.distinct(rows) for key, rows in cells.items()}
    kept = sorted((key for key in cells if persons[key] >= SMALLEST), key=lambda key: (-len(cells[key]), str(key)))
    left = sorted({row for key in cells if persons[key] < SMALLEST for row in cells[key]})
    while left and kept and cohort.distinct(left) < SMALLEST:
        left = sorted({*left, *cells[min(kept, key=lambda key: persons[key])]})
        kept.remove(min(kept, key=lambda key: persons[key]))
    return {key: cells[key] for key in kept}, left


def cells_of(cohort: Cohort, rows: Rows, name: str) -> dict[str, Rows]:
    """Rows by value; a document with several values is in several cells, one without is in none."""
    found: dict[str, list[int]] = defaultdict(list)
    values = cohort.values[name]
    for row in rows:
        for value in dict.fromkeys(_several(values[row])):
            found[_word(value)].append(row)
    return dict(found)


def groups(cohort: Cohort, name: str, limited: bool, top: int) -> tuple[dict[str, Rows], Rows]:
    """The groups of a field, largest first, and the rows of those that are not shown."""
    cells = cells_of(cohort, cohort.rows(), name)
    if without := [row for row in cohort.rows() if cohort.values[name][row] is None]:
        cells[NONE] = without
    left: Rows = []
    if limited:
        cells, left = shown(cohort, cells)
    order = sorted(cells, key=lambda key: (-len(cells[key]), key))
    beyond = {row for key in order[top:] for row in cells[key]}
    return {key: cells[key] for key in order[:top]}, sorted({*left, *beyond})


# ------------------------------------------------------------------------------------------------------------- fields


def describe(cohort: Cohort, rows: Rows, column: Column, *, limited: bool, top: int) -> list[Row]:
    """A row a field; of a number that has units, a row a code and unit, since 5 mmol/L and 90 mg/dL have no mean."""
    values = cohort.values[column.name]
    present = [row for row in rows if values[row] is not None]
    carriers = _carriers(cohort, rows, present, column)
    if not present:
        return []
    if not column.units:
        return [_described(cohort, present, carriers, column, limited=limited, top=top)]
    by_code: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in carriers:
        by_code[_code(cohort, row)].append(row)
    cells: Mapping[tuple[str, str, str], Rows] = measured(cohort, present, column)
    left: Rows = []
    if limited:
        cells, left = shown(cohort, cells)
    order = sorted(cells, key=lambda key: (-len(cells[key]), key))
    made = []
    for system, code, units in order[:top]:
        one = _described(cohort, cells[system, code, units], by_code[system, code], column, limited=limited, top=top)
        one |= {"code_system": system, "code": code, "units": units}
        if name := _display(cohort, cells[system, code, units]):
            one["display"] = name
        made.append(one)
    left = sorted({*left, *(row for key in order[top:] for row in cells[key])})
    if left:
        made.append({"field": column.name, "type": "others", **counted(cohort, left, limited)})
    return made


def measured(cohort: Cohort, rows: Rows, column: Column) -> dict[tuple[str, str, str], Rows]:
    """Rows by code system, code and unit, as they were sent: nothing is converted."""
    found: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row in rows:
        units = next((said for name in column.units if (said := cohort.values[name][row])), "")
        found[*_code(cohort, row), units].append(row)
    return dict(found)


def numbers_of(cohort: Cohort, rows: Rows, name: str) -> tuple[Values, NDArray[np.int64]]:
    """Every number of these rows, and whose it is. "90+" of a Safe Harbor view is 90."""
    pairs = [
        (OLDEST + 1 if isinstance(one, str) else one, cohort.persons[row])
        for row in rows
        for one in _several(cohort.values[name][row])
    ]
    return np.array([one for one, _ in pairs], dtype=np.float64), np.array([who for _, who in pairs], dtype=np.int64)


def _described(cohort: Cohort, rows: Rows, carriers: Rows, column: Column, *, limited: bool, top: int) -> Row:
    missing = sorted(set(carriers) - {row for row in carriers if cohort.values[column.name][row] is not None})
    made: Row = {"field": column.name, "type": column.type, **counted(cohort, rows, limited)}
    if not limited:
        made |= {"missing": len(missing), "missing_share": len(missing) / len(carriers) if carriers else 0.0}
    elif cohort.distinct(missing) < SMALLEST:  # nor may the count of those that have it tell
        made |= {"missing": FEW, "missing_share": None}
        if len(rows) + len(missing) == len(carriers) and isinstance(made["documents"], int):
            made |= counted(cohort, carriers, limited)
    else:
        told = counted(cohort, missing, limited)["documents"]
        made |= {"missing": told, "missing_share": _share(told, counted(cohort, carriers, limited)["documents"])}
    if limited and cohort.distinct(rows) < SMALLEST:
        return made
    match column.type:
        case "number":
            made |= figures_of(*numbers_of(cohort, rows, column.name), limited)
        case "category":
            made |= _categories(cohort, rows, column.name, limited=limited, top=top)
        case "time" if not limited:  # a first and a last are one patient's
            times = [one for row in rows for one in _several(cohort.values[column.name][row])]
            made |= {"first": min(times), "last": max(times)}
    return made


def figures_of(values: Values, persons: NDArray[np.int64], limited: bool) -> Row:
    """What is told of numbers. Limited: of one value a patient, no extremes, and each quantile over 11 patients."""
    if not limited:
        found = figures.numbers(values)
        ends = {"min": found.minimum, "max": found.maximum}
        return {"exact": True, "mean": found.mean, "sd": found.sd, **ends, **found.quantiles}
    values, _ = figures.medians(values, persons)
    found = figures.numbers(values)
    made: Row = {"exact": True, "one_a_patient": True, "mean": figures.significant(found.mean)}
    made["sd"] = None if found.sd is None else figures.significant(found.sd)
    for level, share in figures.LEVELS.items():
        value = figures.quantile_over(values, share, SMALLEST)
        made[level] = None if value is None else figures.significant(value)
    return made


def _categories(cohort: Cohort, rows: Rows, name: str, *, limited: bool, top: int) -> Row:
    cells: Mapping[str, Rows] = cells_of(cohort, rows, name)
    distinct = len(cells)
    left: Rows = []
    if limited:
        cells, left = shown(cohort, cells)
    order = sorted(cells, key=lambda key: (-len(cells[key]), key))
    whole = counted(cohort, rows, limited)["documents"]
    values = []
    for key in order[:top]:
        one = counted(cohort, cells[key], limited)
        values.append({"value": key, **one, "share": _share(one["documents"], whole)})
    left = sorted({*left, *(row for key in order[top:] for row in cells[key])})
    made: Row = {"values": values}
    if left:
        one = counted(cohort, left, limited)
        made["others"] = {**one, "share": _share(one["documents"], whole)}
    if not limited:
        made["distinct"] = distinct
    return made


def _carriers(cohort: Cohort, rows: Rows, present: Rows, column: Column) -> Rows:
    if column.kinds is None:
        return rows
    kinds = cohort.values["kind"]
    wanted = column.kinds | {kinds[row] for row in present}
    return [row for row in rows if kinds[row] in wanted]


# ------------------------------------------------------------------------------------------------------- time, shape


def trend(cohort: Cohort, times: Sequence[int], step: str, number: tuple[Rows, str] | None) -> list[Row]:
    """Documents, patients and the median of a number by day, week from Monday, or month, UTC; empty ones too.

    `times` are milliseconds since 1970, a row each. Raises UsageError where it would be more than 2,000 steps.
    """
    if not len(times):
        return []
    at = [_step(time, step) for time in times]
    rows: dict[int, list[int]] = defaultdict(list)
    for row, bucket in enumerate(at):
        rows[bucket].append(row)
    first, last = min(at), max(at)
    if last - first >= MOST_STEPS:
        raise UsageError(f"that is {last - first + 1} {step}s: take longer steps, or --since")
    medians: dict[int, list[float]] = defaultdict(list)
    for row in number[0] if number else ():
        medians[at[row]] += _several(cohort.values[number[1]][row]) if number else ()
    return [
        {"from": start(bucket, step), **counted(cohort, rows.get(bucket, ()), False)}
        | ({"median": float(np.median(found)) if (found := medians.get(bucket)) else None} if number else {})
        for bucket in range(first, last + 1)
    ]


def _step(time: int, step: str) -> int:
    """The number of a step: days, weeks or months since 1970."""
    day = time // _DAY
    if step == "day":
        return day
    if step == "week":
        return (day + 3) // 7  # 1970-01-01 was a Thursday
    return int(np.datetime64(day, "D").astype("datetime64[M]").astype(int))


def start(bucket: int, step: str) -> str:
    if step == "month":
        return str(np.datetime64(bucket, "M"))
    return str(np.datetime64(bucket * 7 - 3 if step == "week" else bucket, "D"))


def histogram(values: Values, persons: NDArray[np.int64], limited: bool) -> list[Row]:
    """Bins with how many values; limited, with how many patients, of one value each.

    Then edges are round numbers, bins of fewer than 11 patients go to the next, and the outer ones are open: an edge
    would be somebody's extreme.
    """
    if not limited:
        at = figures.edges(values)
        return [
            {"from": float(low), "to": float(high), "count": int(count)}
            for low, high, count in zip(at, at[1:], figures.counts(values, at), strict=False)
        ]
    values, _ = figures.medians(values, persons)
    if len(values) < SMALLEST:
        return []
    at = _round_edges(figures.edges(values))
    bins: list[list[float]] = []  # low, high, count
    for low, high, count in zip(at, at[1:], figures.counts(values, at), strict=False):
        if bins and bins[-1][2] < SMALLEST:
            bins[-1] = [bins[-1][0], high, bins[-1][2] + count]
        else:
            bins.append([low, high, int(count)])
    if len(bins) > 1 and bins[-1][2] < SMALLEST:
        _, high, count = bins.pop()
        bins[-1] = [bins[-1][0], high, bins[-1][2] + count]
    last = len(bins) - 1
    return [
        {
            "from": None if i == 0 else float(low),
            "to": None if i == last else float(high),
            "count": safe_harbor.total(int(count), int(count)),
        }
        for i, (low, high, count) in enumerate(bins)
    ]


def _round_edges(at: Values) -> Values:
    """Edges at multiples of 1, 2 or 5 times a power of ten, no closer than these, around the same span."""
    width = float(at[1] - at[0])
    ten = 10 ** np.floor(np.log10(width))
    step = float(next(m * ten for m in (1, 2, 5, 10) if m * ten >= width * (1 - 1e-9)))
    low, high = np.floor(at[0] / step), np.floor(at[-1] / step) + 1
    return np.asarray(np.arange(low, high + 1) * step, dtype=np.float64)


# -------------------------------------------------------------------------------------------------------- two cohorts


def versus(a: Cohort, b: Cohort, columns: Iterable[Column], *, limited: bool) -> list[Row]:
    """Every field that both can be told of, compared by one value a patient: median, or most frequent value.

    A row says what was compared, the test, its p, and q: p adjusted over all rows (Benjamini and Hochberg).
    """
    made: list[Row] = []
    for column in columns:
        if column.type == "number":
            made += _versus_numbers(a, b, column, limited)
        elif column.type == "category":
            made += _versus_categories(a, b, column, limited)
        made += _versus_presence(a, b, column, limited)
    tested = [row for row in made if "p" in row]
    for row, q in zip(tested, adjusted([row["p"] for row in tested]), strict=True):
        row["q"] = q
    return [_rounded(row) for row in made] if limited else made


def _versus_numbers(a: Cohort, b: Cohort, column: Column, limited: bool) -> list[Row]:
    sides = []
    for one in (a, b):
        present = [row for row in one.rows() if one.values[column.name][row] is not None]
        sides.append(measured(one, present, column) if column.units else {("", "", ""): present})
    made = []
    for key in sorted({*sides[0], *sides[1]}):
        values = [
            figures.medians(*numbers_of(one, side.get(key, ()), column.name))[0]
            for one, side in zip((a, b), sides, strict=True)
        ]
        first, second = values
        if limited and min(map(len, values)) < SMALLEST:
            continue
        said: Row = {"field": column.name, "of": "numbers"}
        if column.units:
            said |= dict(zip(("code_system", "code", "units"), key, strict=True))
        for name, those in (("first", first), ("second", second)):
            said[name] = {"patients": _told(len(those), limited), "median": _median(those, limited)}
        if min(map(len, values)) >= 2:
            tested = _tested(figures.compare_numbers(first, second))
            said |= {name: one for name, one in tested.items() if not (limited and name in OF_PAIRS)}
        else:
            said["why"] = "fewer than two patients on a side"
        made.append(said)
    return made


def _median(values: Values, limited: bool) -> float | None:
    if limited:
        return figures.quantile_over(values, 0.5, SMALLEST)
    return float(np.median(values)) if len(values) else None


def _versus_categories(a: Cohort, b: Cohort, column: Column, limited: bool) -> list[Row]:
    sides = []
    for one in (a, b):
        values = one.values[column.name]
        pairs = ((int(one.persons[row]), _word(value)) for row in one.rows() for value in _several(values[row]))
        sides.append(Counter(figures.modes(pairs).values()))
    if limited:
        sides = _both_large(*sides)
    if not all(sides):
        return []
    found = figures.compare_categories(*sides)
    if found is None:
        return []
    said = [
        {
            "patients": _told(sum(side.values()), limited),
            "values": {k: _told(n, limited) for k, n in side.most_common()},
        }
        for side in sides
    ]
    return [{"field": column.name, "of": "categories", "first": said[0], "second": said[1], **_tested(found)}]


def _both_large(a: Counter[str], b: Counter[str]) -> list[Counter[str]]:
    """Categories of 11 patients on both sides; the others together, with the smallest while they are too few."""
    kept = sorted((key for key in {*a, *b} if min(a[key], b[key]) >= SMALLEST), key=lambda key: (-a[key] - b[key], key))
    left = {*a, *b} - set(kept)
    while left and kept and min(sum(side[key] for key in left) for side in (a, b)) < SMALLEST:
        left.add(kept.pop())
    rest = [Counter({"(others)": sum(side[key] for key in left)}) if left else Counter[str]() for side in (a, b)]
    if left and not kept:
        return [Counter(), Counter()]
    return [Counter({key: side[key] for key in kept}) + other for side, other in zip((a, b), rest, strict=True)]


def _versus_presence(a: Cohort, b: Cohort, column: Column, limited: bool) -> list[Row]:
    having, of = [], []
    for one in (a, b):
        values = one.values[column.name]
        having.append(one.distinct([row for row in one.rows() if values[row] is not None]))
        of.append(one.distinct(one.rows()))
    if limited and min(*having, of[0] - having[0], of[1] - having[1]) < SMALLEST:
        return []
    found = figures.compare_shares(having[0], of[0], having[1], of[1])
    if found is None:
        return []
    said = [
        {"patients": _told(whole, limited), "having": _told(have, limited), "share": have / whole}
        for have, whole in zip(having, of, strict=True)
    ]
    return [{"field": column.name, "of": "presence", "first": said[0], "second": said[1], **_tested(found)}]


def _tested(found: Compared) -> Row:
    made: Row = {"test": found.test, "p": found.p, "effect": found.effect, "size": found.size}
    made |= {"interval": found.interval, **found.beside}
    return {name: _finite(value) for name, value in made.items()}


def _finite(value: Any) -> Any:
    """JSON has no infinity: an odds ratio of a table with an empty cell is null."""
    if isinstance(value, tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _rounded(row: Row) -> Row:
    """Two digits of everything computed: a p-value as it is would tell the table that it was computed from."""
    made: Row = {}
    for name, value in row.items():
        if isinstance(value, float):
            made[name] = figures.significant(value, 2)
        elif isinstance(value, list):
            made[name] = [one if one is None else figures.significant(one, 2) for one in value]
        else:
            made[name] = _rounded(value) if isinstance(value, dict) else value
    return made


# ---------------------------------------------------------------------------------------------------------------------


def _told(count: int, limited: bool) -> int | str:
    return safe_harbor.total(count, count) if limited else count


def _share(part: int | str, whole: int | str) -> float | None:
    if isinstance(part, str) or isinstance(whole, str) or not whole:
        return None
    return round(min(part / whole, 1.0), 4)


def _several(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _code(cohort: Cohort, row: int) -> tuple[str, str]:
    system, code = (cohort.values[name][row] for name in ("code_system", "code"))
    return system or "", code or ""


def _display(cohort: Cohort, rows: Rows) -> str:
    """What most documents call it, where the caller may see that."""
    found = (
        Counter(name for row in rows if (name := cohort.values["display"][row])) if "display" in cohort.values else {}
    )
    return min(found, key=lambda name: (-found[name], name)) if found else ""


def shares_persons(a: Cohort, b: Cohort) -> set[int]:
    return set(np.intersect1d(a.persons, b.persons).tolist()) - {-1}
