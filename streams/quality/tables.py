"""Any table of cases to rows that a model learns from: which column is a number, a word, or nothing of use. Pure.

A table comes as text, from systems we know nothing of. Each column is typed by its values, and whatever cannot be
learned from is left out under a reason: numbers of patients, constants, dates, free text, and leaks. A leak is a column
that all but gives the outcome away alone, or by being empty: the cause of death, the ward that is called mortuary.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sklearn.metrics import roc_auc_score

from infra.errors import Untrainable, UsageError
from schemas.envelope import rfc3339
from schemas.safe_harbor import SMALLEST
from streams.learn import FEWEST
from streams.quality.risk import NO
from streams.rows import MISSING, YES, Row

NUMBER, WORD, FLAG = "number", "word", "yes or no"
FEWEST_ROWS, FEWEST_OF_CLASS = 100, 20
NUMBERS_AT_LEAST = 0.95  # of a column of numbers: what else is in it counts as missing
MOST_WORDS = 50  # of one column, those of most rows
LEAK, SUSPECT = 0.99, 0.95  # AUC of a column alone: left out, and told of
LARGEST = 1e15
EMPTY = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "nil", "?", "-", ".", "missing"))
TRUE = frozenset(("yes", "y", "true", "t", "1", "1.0", "positive", "died", "dead", "deceased", "ja", "oui", "sí"))
FALSE = frozenset(("no", "n", "false", "f", "0", "0.0", "negative", "survived", "alive", "nein", "non"))
_ID = re.compile(r"(^|[^a-z])(id|ids|mrn|uuid|guid|index|nr|no|number|record|case|visit|encounter|unnamed)([^a-z]|$)")
_ID_END = re.compile(r"[a-z](ID|Id)$")
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T]\d{1,2}:\d{2}.*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([ T]\d.*)?")
_PRESSURE = re.compile(r"(\d{2,3}) ?/ ?(\d{2,3})")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")


@dataclass(frozen=True, slots=True)
class Column:
    """What became of a column. `dropped`: why nothing is learned from it. `missing`: share of rows without a value."""

    name: str
    kind: str
    missing: float
    dropped: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A table as rows; `yes` is the value that counts as the outcome. `timed`: rows have times."""

    rows: list[Row] = field(repr=False)
    columns: list[Column]
    yes: str
    timed: bool
    remarks: list[str]


def read(text: str) -> tuple[list[str], list[list[str]]]:
    """Names and rows of a CSV, whatever parts its values. Raises UsageError."""
    text = text.removeprefix("\ufeff")
    head = text.partition("\n")[0]
    mark = max(",;\t|", key=head.count)
    try:
        lines = [
            line for line in csv.reader(io.StringIO(text), delimiter=mark, strict=True) if any(map(str.strip, line))
        ]
    except csv.Error:
        raise UsageError("this is no CSV") from None
    if len(lines) < 2:
        raise UsageError("the file has no rows below its head")
    names = [name.strip() or f"column {at}" for at, name in enumerate(lines[0], 1)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"the file has two columns {twice[0]!r}")
    if any(len(line) != len(names) for line in lines):
        wrong = next(at for at, line in enumerate(lines, 1) if len(line) != len(names))
        raise UsageError(f"row {wrong} has {len(lines[wrong - 1])} values and the head {len(names)}")
    return names, [[value.strip() for value in line] for line in lines[1:]]


def prepared(
    names: Sequence[str],
    lines: Sequence[Sequence[str]],
    outcome: str,
    patient: str = "",
    time: str = "",
    positive: Collection[str] = (),
    without: Collection[str] = (),
) -> Prepared:
    """Rows of a table. `patient`: the column that says whose a row is; `time`: when; `positive`: values of the outcome
    that count as yes; `without`: columns to leave out.

    Raises UsageError for columns that are not there, Untrainable for a table that no model can be judged on.
    """
    for name in (outcome, *filter(None, (patient, time)), *without):
        if name not in names:
            raise UsageError(f"there is no column {name!r}: there are {', '.join(names)}")
    at = {name: place for place, name in enumerate(names)}
    remarks = []
    known = [line for line in lines if not _empty(line[at[outcome]])]
    if left := len(lines) - len(known):
        remarks.append(f"{left} rows without an outcome are left out")
    labels, yes = _labels([line[at[outcome]].lower() for line in known], {one.lower() for one in positive})
    times = [_time(line[at[time]]) if time else "" for line in known]
    if time and (left := times.count("")):
        remarks.append(f"{left} rows without a time are left out")
        kept = [place for place, one in enumerate(times) if one]
        known, labels = [known[place] for place in kept], [labels[place] for place in kept]
        times = [times[place] for place in kept]
    whose = [line[at[patient]] if patient else "" for line in known]
    # Rows that are the same all through may be one case twice: on both sides of a split they would be known by heart.
    people = [one or _digest(line) for one, line in zip(whose, known, strict=True)]
    if not patient and (twice := len(people) - len(set(people))):
        remarks.append(f"{twice} rows repeat another one and stay on its side of every split")
    _enough(labels, people)
    columns, features = [], [dict[str, float | str]() for _ in known]
    for name in names:
        if name in (outcome, patient, time):
            continue
        if name in without:
            columns.append(Column(name, "", 0, "as asked"))
            continue
        for part, values in _parts(name, [line[at[name]].lower() for line in known]):
            column, told = _column(part, values, labels)
            columns.append(column)
            for row, one in zip(features, told, strict=False):
                row.update(one)
    if not any(not one.dropped for one in columns):
        raise Untrainable("no_features", "no column is left to learn from")
    rows = [Row(*each) for each in zip(features, labels, people, times, strict=True)]
    return Prepared(_grouped(rows, columns), columns, yes, bool(time), remarks)


def _grouped(rows: list[Row], columns: Sequence[Column]) -> list[Row]:
    """Subgroups to judge apart: columns of two words, such as sex and diabetes; age as elsewhere."""
    two = {_key(one.name) for one in columns if not one.dropped and one.kind == FLAG} - {"sex", "type"}
    told = [tuple(name for name in row.features if name.partition("=")[0] in two) for row in rows]
    return [replace(row, groups=groups) for row, groups in zip(rows, told, strict=True)]


# ------------------------------------------------------------------------------------------------------------- outcome


def _labels(values: Sequence[str], positive: Collection[str]) -> tuple[list[str], str]:
    """yes or no, and which value is yes. Raises Untrainable, UsageError."""
    counts = Counter(values)
    if positive:
        if strange := [one for one in positive if one not in counts]:
            raise UsageError(f"the outcome is never {strange[0]!r}")
        return [YES if value in positive else NO for value in values], ", ".join(sorted(positive))
    if len(counts) < 2:
        raise Untrainable("one_class", "the outcome has one value in every row" if counts else "no row has an outcome")
    if len(counts) > 2:
        said = f"the outcome has {len(counts)} values: say which of them are yes, with --positive"
        raise Untrainable("not_two_classes", said)
    one, other = sorted(counts)
    if (first := _number(one)) is not None and (second := _number(other)) is not None:
        yes = one if first > second else other
    elif (one in TRUE) != (other in TRUE):
        yes = one if one in TRUE else other
    else:  # a word that says no is the other one's yes; else the rarer
        yes = min((one, other), key=lambda value: (value in FALSE, counts[value], value))
    return [YES if value == yes else NO for value in values], yes


def _enough(labels: Sequence[str], people: Sequence[str]) -> None:
    """Raises Untrainable with what is there and what it wants."""
    if len(set(labels)) == 1:
        raise Untrainable("one_class", f"every row is {labels[0]!r}: a model needs two classes")
    if len(labels) < FEWEST_ROWS:
        said = f"{len(labels)} rows: of fewer than {FEWEST_ROWS} any figure would be chance"
        raise Untrainable("too_few_rows", said)
    for label in (YES, NO):
        if (few := len({who for who, one in zip(people, labels, strict=True) if one == label})) < FEWEST_OF_CLASS:
            raise Untrainable("too_few_patients", f"{few} patients are {label!r}, and it wants {FEWEST_OF_CLASS}")


# ------------------------------------------------------------------------------------------------------------- columns


def _parts(name: str, values: list[str]) -> list[tuple[str, list[str]]]:
    """A column, or the two of a blood pressure such as 120/80."""
    there = [value for value in values if not _empty(value)]
    both = [_PRESSURE.fullmatch(value) for value in values]
    if not there or sum(map(bool, both)) < NUMBERS_AT_LEAST * len(there):
        return [(name, values)]
    return [
        (f"{name} {which}", [one.group(at) if one else "" for one in both])
        for at, which in ((1, "systolic"), (2, "diastolic"))
    ]


def _column(name: str, values: Sequence[str], labels: Sequence[str]) -> tuple[Column, list[Mapping[str, float | str]]]:
    """What a column is, and what it adds to each row."""
    there = [value for value in values if not _empty(value)]
    gaps = 1 - len(there) / len(values)
    different = set(there)
    numbers = [_number(value) for value in values]
    known = [one for one in numbers if one is not None]
    kind = NUMBER if there and len(known) >= NUMBERS_AT_LEAST * len(there) else WORD
    if len(different) == 2 and (kind == WORD or set(known) <= {0.0, 1.0}):
        kind = FLAG
    alone = _alone(kind, numbers, values, labels)
    if alone >= LEAK:
        return Column(name, kind, gaps, f"leak: alone it predicts the outcome (AUC {alone:.3f})"), []
    if reason := _useless(name, kind, there, known, gaps):
        return Column(name, kind, gaps, reason), []
    told = _numbers(name, numbers) if kind == NUMBER else _words(name, values)
    remarks = [f"suspicious: alone it has an AUC of {alone:.3f}"] if alone >= SUSPECT else []
    if kind == NUMBER and len(known) < len(there):
        remarks.append(f"{len(there) - len(known)} values are no numbers and count as missing")
        gaps = 1 - len(known) / len(values)
    return Column(name, kind, gaps, remark="; ".join(remarks)), told


def _useless(name: str, kind: str, there: Sequence[str], known: Sequence[float], gaps: float) -> str:
    different = len(set(there))
    if len(there) < FEWEST:
        return "empty"
    if different == 1 and not gaps:
        return "constant"
    dates = sum(_DATE.fullmatch(value) is not None for value in there)
    if dates > len(there) / 2:
        return "dates: name one of them as the time, or give a span in days"
    called = bool(_ID.search(name.lower()) or _ID_END.search(name) or name.startswith("column "))
    if kind == NUMBER:
        whole = all(one == int(one) for one in known)
        if whole and len(set(known)) == len(known) >= FEWEST_ROWS:
            return "identifier: another number in each row"
        if whole and called and len(set(known)) > 0.3 * len(known):
            return "identifier: it is called one; name it as the patient if it is"
        return ""
    if different > len(there) / 2 or (called and different > 0.3 * len(there)):
        return "identifier or free text: hardly a value comes twice"
    if kind == WORD and not any(count >= FEWEST for count in Counter(there).values()):
        return f"no word of it stands in {FEWEST} rows"
    return ""


def _numbers(name: str, numbers: Sequence[float | None]) -> list[Mapping[str, float | str]]:
    key = _key(name)
    return [{f"{MISSING}{key}": 1.0} if one is None else {key: one} for one in numbers]


def _words(name: str, values: Sequence[str]) -> list[Mapping[str, float | str]]:
    key = _key(name)
    usual = {value for value, _ in Counter(value for value in values if not _empty(value)).most_common(MOST_WORDS)}
    made: list[Mapping[str, float | str]] = []
    for value in values:
        if _empty(value):
            made.append({f"{MISSING}{key}": 1.0})
        else:
            made.append({f"{key}={value if value in usual else 'other'}": 1.0})
    return made


def _alone(kind: str, numbers: Sequence[float | None], values: Sequence[str], labels: Sequence[str]) -> float:
    """AUC of a column by itself: of its order, of the shares of its words, or of whether it is empty; the highest."""
    hot = [label == YES for label in labels]
    empty = _auc([float(_empty(value)) for value in values], hot)
    if kind == NUMBER:
        known = [(one, event) for one, event in zip(numbers, hot, strict=True) if one is not None]
        order = _auc([one for one, _ in known], [event for _, event in known])
        # Enough of both, or a column that is told of few would be one by chance.
        counts = Counter(event for _, event in known)
        return max(_sides(empty), _sides(order) if min(counts[True], counts[False]) >= SMALLEST else 0.5)
    events: dict[str, list[bool]] = defaultdict(list)
    for value, event in zip(values, hot, strict=True):
        events[value].append(event)
    rare = [event for some in events.values() if len(some) < FEWEST for event in some]
    share = {value: sum(some) / len(some) for value, some in events.items() if len(some) >= FEWEST}
    rest = sum(rare) / len(rare) if rare else 0.0
    return max(_sides(empty), _auc([share.get(value, rest) for value in values], hot))


def _sides(auc: float) -> float:
    return max(auc, 1 - auc)


def _auc(scores: Sequence[float], hot: Sequence[bool]) -> float:
    """The share of pairs in order, ties a half; 0.5 where there are none."""
    return float(roc_auc_score(hot, scores)) if 0 < sum(hot) < len(hot) else 0.5


# -------------------------------------------------------------------------------------------------------------- values


def _key(name: str) -> str:
    """The name of a feature: `=` parts it from its word."""
    plain = name.replace("=", "_")
    return {"gender": "sex", "sex": "sex", "age": "age"}.get(plain.lower(), plain)


def _empty(value: str) -> bool:
    return value.lower() in EMPTY


def _number(value: str) -> float | None:
    if _DECIMAL_COMMA.fullmatch(value):
        value = value.replace(",", ".")
    try:
        made = float(value)
    except ValueError:
        return None
    return made if math.isfinite(made) and abs(made) < LARGEST and "_" not in value else None


def _time(value: str) -> str:
    """RFC 3339 of a date or a time; of a bare number, one that has its order. Empty for what is none."""
    try:
        made = datetime.fromisoformat(value)
    except ValueError:
        number = _number(value)
        return "" if number is None or number < 0 else f"{number:020.6f}"
    return rfc3339(made if made.tzinfo else made.replace(tzinfo=UTC))


def _digest(line: Sequence[str]) -> str:
    return hashlib.sha256("\x1f".join(line).encode()).hexdigest()
