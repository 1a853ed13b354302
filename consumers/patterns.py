"""`wardstream quality rules`: what stands together in a stay, what follows what, and who has an outcome.

Of the index an item is a factor with its value, the unit, the procedure, or an outcome that can no longer change; a
number is cut into thirds. Everything that fewer than 11 people have in common is left out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from consumers import cases as told
from consumers.access import Caller
from consumers.curves import LEVELS, NO, YES, Row, Window, number, numbers, read_csv
from infra.audit import Audit
from infra.errors import Inestimable, UsageError
from schemas.safe_harbor import SMALLEST
from streams.quality import cases, classify, rules, sequences
from streams.quality.rules import Change, Items, Rule
from streams.quality.sequences import Event

FEW = 5  # numbers of a column that are taken one by one
DAY = 86_400.0
DIED = "death"  # in a chain, at its own time


@dataclass(frozen=True, slots=True)
class Baskets:
    """Transactions: `columns` as text, empty where nobody knows; `items` besides; `at` in days; `who` they are of.

    `due`: outcomes of each that are known, for whoever asks for one of them. `events`: of each, in days.
    """

    columns: dict[str, list[str]]
    words: frozenset[str]
    items: list[Items]
    at: list[float]
    who: list[str]
    due: list[dict[str, bool]]
    events: list[list[Event]]
    refused: Counter[str]
    of_people: bool = False

    def __len__(self) -> int:
        return len(self.who)


# ----------------------------------------------------------------------------------------------------------------- rows


def from_file(path: Path, id_: str = "", item: str = "", time: str = "", outcome: str = "") -> Baskets:
    """A CSV: a row a transaction, whose items are its columns; or, with `item`, a row an item, together by `id_`.

    `time` is a date or a number of days; a row without one it can read is counted. Raises UsageError.
    """
    names, rows = read_csv(path, (id_, item, time, outcome))
    if item and not id_:
        raise UsageError("with --item, --id names the column that a transaction's rows have in common")
    kept, refused = [], Counter[str]()
    for row in rows:
        at = days(row[time]) if time else 0.0
        if at is None:
            refused["bad_time"] += 1
        elif outcome and not item and row[outcome].lower() not in YES | NO:
            refused["bad_event"] += 1
        else:
            kept.append((at, row))
    if item:
        return _long(kept, id_, item, refused)
    others = [name for name in names if name not in (id_, time, outcome)]
    columns = {name: [row[name] for _, row in kept] for name in others}
    due = [{outcome: row[outcome].lower() in YES} if outcome else {} for _, row in kept]
    return Baskets(
        columns,
        frozenset(name for name in others if not numbers(columns[name])),
        [frozenset(name for name, event in one.items() if event) for one in due],
        [at for at, _ in kept],
        [row[id_] if id_ else str(place) for place, (_, row) in enumerate(kept)],
        due,
        [[] for _ in kept],
        refused,
    )


def _long(rows: Iterable[tuple[float, dict[str, str]]], id_: str, item: str, refused: Counter[str]) -> Baskets:
    found: dict[str, list[Event]] = defaultdict(list)
    for at, row in rows:
        if row[item]:
            found[row[id_]].append((at, row[item]))
    each = list(found.values())
    items = [frozenset(name for _, name in some) for some in each]
    last = [max(when for when, _ in some) for some in each]
    return Baskets({}, frozenset(), items, last, list(found), [{} for _ in each], each, refused)


def days(said: str) -> float | None:
    if (value := number(said)) is not None:
        return value
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() / DAY


def from_index(caller: Caller, window: Window) -> Baskets:
    """Stays of everybody whom the caller may learn from. Raises Denied, StackDown."""
    found = told.people(caller, window.site)
    Audit.local().write(caller.act("E", fields=told.TOLD, detail={"use": "rules", "total": str(len(found))}))
    return of_people(found, window)


def of_people(found: Sequence[cases.Person], window: Window) -> Baskets:
    """An outcome counts when it is due at the latest event of all, or at `window.until`."""
    until = window.until or max((case.known for one in found for case in one.cases), default="")
    refused: Counter[str] = Counter()
    rows: list[tuple[cases.Case, dict[str, bool], list[Event]]] = []
    for one in found:
        outcomes: dict[str, list[cases.Measured]] = defaultdict(list)
        for each in cases.measured(one):
            if each.due <= until:
                outcomes[each.record].append(each)
        for case in filter(window.has, one.cases):
            if why := cases.trouble(case, one.died):
                refused[why] += 1
                continue
            known = outcomes[case.record]
            begun = _at(case.begun)
            events = [(begun, f"unit={case.unit}")] + (
                [(begun, f"procedure={case.procedure}")] if case.procedure else []
            )
            events += [
                (_at(each.at), each.measure) for each in known if each.event and each.measure not in cases.DERIVED
            ]
            if one.died and case is one.cases[-1]:
                events.append((_at(one.died), DIED))
            rows.append((case, {each.measure: each.event for each in known}, events))
    columns = {name: [str(case.factors.get(name, "")) for case, *_ in rows] for name in cases.FACTORS}
    columns |= {"unit": [case.unit for case, *_ in rows], "procedure": [case.procedure for case, *_ in rows]}
    return Baskets(
        columns,
        frozenset(("unit", *cases.WORDS)),
        [frozenset(name for name, event in due.items() if event) for _, due, _ in rows],
        [_at(case.begun) for case, *_ in rows],
        [case.person for case, *_ in rows],
        [due for _, due, _ in rows],
        [events for *_, events in rows],
        refused,
        True,
    )


def _at(said: str) -> float:
    return datetime.fromisoformat(said).timestamp() / DAY


def only(of: Baskets, columns: Sequence[str]) -> Baskets:
    """With these columns alone. Raises UsageError."""
    if strange := sorted(set(columns) - set(of.columns)):
        raise UsageError(f"there is no column {strange[0]!r}: there are {', '.join(of.columns) or 'none'}")
    return replace(of, columns={name: of.columns[name] for name in columns})


def transactions(of: Baskets) -> list[Items]:
    """Items of each: `column=word`, a number by its third, and the items it has besides."""
    made = [set(one) for one in of.items]
    for name, column in of.columns.items():
        for items, label in zip(made, _labels(name, column, name in of.words), strict=True):
            if label:
                items.add(label)
    return [frozenset(one) for one in made]


def _labels(name: str, column: Sequence[str], words: bool) -> list[str]:
    if words or len({one for one in column if one}) <= FEW:
        return [f"{name}={one}" if one else "" for one in column]
    known = np.array([float(one) for one in column if one])
    low, high = (float(f"{one:.3g}") for one in np.quantile(known, [1 / 3, 2 / 3]))
    cuts = ((low, f"{name}<={low:g}"), (high, f"{low:g}<{name}<={high:g}"), (math.inf, f"{name}>{high:g}"))
    return ["" if not one else next(said for cut, said in cuts if float(one) <= cut) for one in column]


# ---------------------------------------------------------------------------------------------------------------- rules


def association(of: Baskets, support: float, confidence: float, longest: int, outcome: str = "") -> Row:
    """Rules, and with an `outcome` those that end in it, of the stays that know it. Raises UsageError, Inestimable."""
    held, who = _known(of, outcome)
    found = rules.rules(held, support=support, confidence=confidence, longest=longest)
    wanted = [one for one in found if not outcome or one.consequent == {outcome}]
    shown = [one for one in wanted if not of.of_people or _people(one, held, who) >= SMALLEST]
    row = {"method": "association", "transactions": len(held), "rules": [_row(one) for one in shown]}
    return row | _said(of, len(wanted) - len(shown))


def changed(of: Baskets, window: float, support: float, confidence: float, longest: int, outcome: str = "") -> Row:
    """Rules of the last `window` days beside those of as many days before. Raises UsageError, Inestimable."""
    if len(set(of.at)) < 2:
        raise UsageError("--window needs times: of a --file, --time names their column")
    if window <= 0:
        raise UsageError("--window is a number of days")
    held, who = _known(of, outcome)
    at = [when for when, due in zip(of.at, of.due, strict=True) if not outcome or not of.columns or outcome in due]
    end = max(at)
    ends = [(end - 2 * window, end - window), (end - window, end)]
    parts = [[place for place, when in enumerate(at) if low < when <= high] for low, high in ends]
    if not all(parts):
        raise Inestimable("no_rows", "the window before" if parts[1] else "the last window")
    before, after = ([held[place] for place in part] for part in parts)
    found = rules.changes(before, after, support=support, confidence=confidence, longest=longest)
    wanted = [one for one in found if not outcome or one.consequent == {outcome}]
    shown = [one for one in wanted if not of.of_people or _people(one, held, who) >= SMALLEST]
    row = {"method": "association", "window_days": window, "transactions": [len(before), len(after)]}
    return row | {"changes": [_change(one, of.of_people) for one in shown]} | _said(of, len(wanted) - len(shown))


def _known(of: Baskets, outcome: str) -> tuple[list[Items], list[str]]:
    """Transactions and whose they are; with an outcome, those of whom it is known. Of a file of items all are.

    Other outcomes derived from the same deaths and stays foretell nothing: who dies in hospital is dead within 30 days.
    """
    held = transactions(of)
    if outcome and of.columns:
        keep = [place for place, due in enumerate(of.due) if outcome in due]
        others = frozenset(cases.DERIVED) - {outcome}
        held, who = [held[place] - others for place in keep], [of.who[place] for place in keep]
    else:
        who = of.who
    if not held:
        raise Inestimable("no_rows")
    if of.of_people and len(set(who)) < SMALLEST:
        raise Inestimable("too_few_people")
    return held, who


def _people(one: Rule[Items, Items] | Change, held: Sequence[Items], who: Sequence[str]) -> int:
    items = one.antecedent | one.consequent
    return len({person for has, person in zip(held, who, strict=True) if items <= has})


def following(of: Baskets, support: float, confidence: float, longest: int, gap: float | None = None) -> Row:
    """What follows what in each one's chain, within `gap` days from each to the next. Raises UsageError."""
    chains: dict[str, list[Event]] = defaultdict(list)
    for who, events in zip(of.who, of.events, strict=True):
        chains[who] += events
    if not any(chains.values()):
        raise UsageError("sequences need events: of a --file, --id, --item and --time name their columns")
    if of.of_people and len(chains) < SMALLEST:
        raise Inestimable("too_few_people")
    given = list(chains.values())
    found = sequences.sequence_rules(
        given, support=support, confidence=confidence, longest=longest, most_gap=gap
    )  # fmt: skip
    shown = [one for one in found if not of.of_people or one.count >= SMALLEST]
    row = {"method": "sequence", "sequences": len(given), "rules": [_row(one) for one in shown]}
    return row | _said(of, len(found) - len(shown))


def classes(of: Baskets, outcome: str, depth: int) -> Row:
    """Who has the outcome, each person by the first stay that knows it. Raises UsageError, Untrainable."""
    first: dict[str, int] = {}
    for place in sorted(range(len(of)), key=lambda place: of.at[place]):
        if outcome in of.due[place]:
            first.setdefault(of.who[place], place)
    if not first:
        known = sorted({name for due in of.due for name in due})
        raise UsageError(f"nobody has an outcome {outcome!r}: known are {', '.join(known) or 'none'}")
    places = sorted(first.values())
    fields: dict[str, list[float]] = {}
    remarks = []
    for name, whole in of.columns.items():
        column = [whole[place] for place in places]
        levels = sorted({one for one in column if one})
        if name not in of.words:
            if levels:
                fields[name] = [float(one or "nan") for one in column]
        elif len(levels) > LEVELS:
            remarks.append(f"{name} is left out: it has {len(levels)} words")
        else:
            for level in levels[: 1 if len(levels) == 2 else None]:
                fields[f"{name}={level}"] = [float(one == level) if one else math.nan for one in column]
    x = np.array(list(fields.values())).T
    found = classify.class_rules(x, [of.due[place][outcome] for place in places], list(fields), depth=depth)
    shown = [one for one in found if not of.of_people or one.count >= SMALLEST]
    made: Row = {"method": "class", "outcome": outcome, "rows": len(places), "rules": [_class(one) for one in shown]}
    made |= _said(of, len(found) - len(shown))
    made["remarks"] = remarks + made["remarks"]
    return made


def _said(of: Baskets, few: int) -> Row:
    said = [f"{few} rules of fewer than {SMALLEST} people are not shown"] if few else []
    return {"refused": dict(of.refused), "remarks": said}


def _row(one: Rule[Any, Any]) -> Row:
    names = ("count", "of", "support", "confidence", "lift", "leverage", "p", "q")
    return {"if": _names(one.antecedent), "then": _names(one.consequent)} | {name: getattr(one, name) for name in names}


def _names(said: Collection[str] | str) -> list[str]:
    if isinstance(said, str):
        return [said]
    return sorted(said) if isinstance(said, frozenset) else list(said)


def _change(one: Change, of_people: bool) -> Row:
    made: Row = {"kind": one.kind, "if": _names(one.antecedent), "then": _names(one.consequent)}
    for name, counts in zip(("before", "after"), one.counts, strict=True):
        made[name] = dict(zip(("both", "antecedent", "transactions"), counts, strict=True))
        if of_people:
            made[name] = {key: f"<{SMALLEST}" if 0 < n < SMALLEST else n for key, n in made[name].items()}
    return made | {"p": one.p, "q": one.q}


def _class(one: classify.ClassRule) -> Row:
    names = ("count", "events", "support", "confidence", "low", "high", "lift", "leverage", "p", "q")
    return {"if": [_said_of(each) for each in one.conditions]} | {name: getattr(one, name) for name in names}


def _said_of(one: classify.Condition) -> str:
    """Of an indicator, whether it is so."""
    if "=" in one.field:
        return one.field if one.low is not None else f"not {one.field}"
    return str(one)
