"""`wardstream quality survival`, `cox` and `frailty`: rows of a file or of the index, and what their times tell.

What cannot be (a death before its admission, a negative time) is counted under its reason and left out, and so is a row
that does not know a column which is used. Of the index each person counts once, by his or her first case among those
asked for, and no group of fewer than 11 people is told of.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import math
import pickle
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from consumers import cases as told
from consumers.access import Caller
from infra.audit import Audit
from infra.errors import Inestimable, UsageError
from schemas.safe_harbor import SMALLEST
from streams.beside import Beside, BesideFailed
from streams.quality import cases, cox, frailty, survival
from streams.quality.cases import Case
from streams.quality.cox import Test
from streams.quality.riskset import Cases, Ties
from streams.quality.riskset import cases as checked

LEVELS = 20  # of a column of words; with more it is a name, and no factor
FILLED = 0.5  # of the rows know a column that is used unasked
OTHER, NONE = "other", "none"
YES, NO = frozenset(("1", "true", "yes", "dead")), frozenset(("0", "false", "no", "alive"))
Z = 1.959964  # of 95%
PATIENCE = 600.0  # seconds for a fit in the process beside
Row = dict[str, Any]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with their times. `columns`: as text, empty where nobody knows; `words` are those that are no numbers.

    `of_people`: of the index, a row a person. `until`: of the index, how far anything is known.
    """

    stop: list[float]
    event: list[bool]
    columns: dict[str, list[str]]
    words: frozenset[str]
    start: list[float] | None = None
    refused: Counter[str] = field(default_factory=Counter)
    of_people: bool = False
    until: str = ""

    def __len__(self) -> int:
        return len(self.stop)

    def digest(self) -> bytes:
        """The same for the same rows, in whatever order they came."""
        rows = zip(self.stop, self.event, *(self.columns[name] for name in sorted(self.columns)), strict=True)
        return hashlib.sha256(pickle.dumps((sorted(rows), sorted(self.refused.items())))).digest()


@dataclass(frozen=True, slots=True)
class Asked:
    """Columns by what they are for. No `covariates`: all others that can be used."""

    covariates: Sequence[str] = ()
    strata: str = ""
    cluster: str = ""


# ----------------------------------------------------------------------------------------------------------------- rows


def read_csv(path: Path, wanted: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Names of columns, and rows. Raises UsageError for a file that is none, or has not every column `wanted`."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or ())
            rows = [{name: (row[name] or "").strip() for name in names} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path.name} cannot be read as CSV: {type(error).__name__}") from None
    if strange := [one for one in wanted if one and one not in names]:
        raise UsageError(f"the file has no column {strange[0]!r}: it has {', '.join(names)}")
    return names, rows


def from_file(path: Path, time: str, event: str, start: str = "", words: Sequence[str] = ()) -> Table:
    """A CSV's rows. An event is 0 or 1, yes or no. Raises UsageError."""
    if not time or not event:
        raise UsageError("of a --file, --time and --event name two columns")
    names, rows = read_csv(path, (time, event, start, *words))
    kept, refused = [], Counter[str]()
    for row in rows:
        if why := _impossible(row[time], row[event], row[start] if start else None):
            refused[why] += 1
        else:
            kept.append(row)
    others = [name for name in names if name not in (time, event, start)]
    columns = {name: [row[name] for row in kept] for name in others}
    return Table(
        [float(row[time]) for row in kept],
        [row[event].lower() in YES for row in kept],
        columns,
        frozenset(name for name in others if name in words or not numbers(columns[name])),
        [float(row[start]) for row in kept] if start else None,
        refused,
    )


def _impossible(time: str, event: str, start: str | None) -> str:
    """Why a row cannot be, by the reasons of `riskset.cases`; empty for one that can."""
    stop, begin = number(time), 0.0 if start is None else number(start)
    if stop is None or begin is None:
        return "not_finite"
    if event.lower() not in YES | NO:
        return "bad_event"
    if stop < 0 or begin < 0:
        return cases.NEGATIVE
    return "stop_not_after_start" if start is not None and stop <= begin else ""


def number(said: str) -> float | None:
    try:
        return value if math.isfinite(value := float(said)) else None
    except ValueError:
        return None


def numbers(column: Sequence[str]) -> bool:
    return all(one == "" or number(one) is not None for one in column)


@dataclass(frozen=True, slots=True)
class Window:
    """Which cases: empty for any. Begun from `since` on and before `until` (RFC 3339), where follow-up ends."""

    site: str = ""
    unit: str = ""
    procedure: str = ""
    since: str = ""
    until: str = ""

    def has(self, one: Case) -> bool:
        return (
            (not self.unit or one.unit == self.unit)
            and (not self.procedure or one.procedure == self.procedure)
            and self.since <= one.begun
            and (not self.until or one.begun < self.until)
        )


def from_index(caller: Caller, window: Window, use: str) -> Table:
    """Days from the beginning of a case to death, one row a person. Raises Denied, StackDown."""
    found = told.people(caller, window.site)
    Audit.local().write(caller.act("E", fields=told.TOLD, detail={"use": use, "total": str(len(found))}))
    return of_people(found, window)


def of_people(found: Sequence[cases.Person], window: Window) -> Table:
    """Who is not known to have died lives until the latest event of his or her site, or until `window.until`."""
    known: dict[str, str] = {}
    for one in found:
        for case in one.cases:
            known[case.site] = max(known.get(case.site, ""), one.known, case.known, case.begun)
    first: dict[str, tuple[Case, float, bool]] = {}
    refused: Counter[str] = Counter()
    for one in found:
        for case in filter(window.has, one.cases):
            if why := cases.trouble(case, one.died):
                refused[why] += 1
                continue
            lived = cases.follow_up(case, one.died, window.until or known[case.site])
            held = first.get(case.person)
            if lived is not None and (held is None or case.begun < held[0].begun):
                first[case.person] = (case, *lived)
    rows = list(first.values())
    columns = {name: [str(case.factors.get(name, "")) for case, *_ in rows] for name in cases.FACTORS}
    columns |= {"unit": [case.unit for case, *_ in rows], "site": [case.site for case, *_ in rows]}
    columns["procedure"] = [case.procedure or NONE for case, *_ in rows]
    until = window.until or max(known.values(), default="")
    stop, event = [days for _, days, _ in rows], [died for *_, died in rows]
    return Table(stop, event, columns, frozenset(("unit", "site", *cases.WORDS)), None, refused, True, until)


# --------------------------------------------------------------------------------------------------------------- design


@dataclass(frozen=True, slots=True)
class Design:
    """What a model is fitted on. `terms`: columns of each covariate, which are tested together."""

    given: Cases
    terms: Mapping[str, tuple[str, ...]]
    cluster: list[str] | None
    refused: Counter[str]
    remarks: tuple[str, ...]
    of_people: bool


def design(table: Table, asked: Asked) -> Design:
    """Numbers as they are, words as indicators against their first level.

    A covariate that is empty, constant or a name is left out, and said; asked for by name it is an error.
    Raises Inestimable: `missing_column`, `constant_covariate`, `too_many_levels`, `no_rows`, `too_few_people`.
    """
    keys = [name for name in (asked.strata, asked.cluster) if name]
    others = {*keys, "unit", "site"} if table.of_people else set(keys)
    usual = [name for name in table.columns if name not in others]
    remarks: list[str] = []
    chosen: list[str] = []
    for name in asked.covariates or usual:
        if not (why := _unusable(table, name, bool(asked.covariates))):
            chosen.append(name)
        elif asked.covariates:
            raise Inestimable(why[0], name)
        else:
            remarks.append(f"{name} is left out: {why[1]}")
    for name in keys:
        if not any(table.columns.get(name, ())):
            raise Inestimable("missing_column", name)
    keep = np.ones(len(table), np.bool_)
    refused = table.refused.copy()
    for name in (*chosen, *keys):
        without = keep & np.array([not one for one in table.columns[name]], np.bool_)
        if count := int(without.sum()):
            refused[f"unknown:{name}"] += count
            keep &= ~without
    keep = _enough(table, keep, [name for name in chosen if name in table.words], refused)
    x, names, terms = _columns(table, keep, chosen, asked, remarks)
    rows = np.flatnonzero(keep)
    given = checked(
        np.array(table.stop)[rows],
        np.array(table.event)[rows],
        x,
        names,
        start=None if table.start is None else np.array(table.start)[rows],
        strata=_of(table.columns[asked.strata], rows) if asked.strata else None,
    )
    cluster = _of(table.columns[asked.cluster], rows) if asked.cluster else None
    for what, name in (("strata", asked.strata), ("clusters", asked.cluster)):
        lone = sum(count == 1 for count in Counter(_of(table.columns[name], rows)).values()) if name else 0
        if lone:
            remarks.append(f"{lone} {what} of {name} have one row")
    return Design(given, terms, cluster, refused, tuple(remarks), table.of_people)


def _of(column: Sequence[str], rows: NDArray[Any]) -> list[str]:
    return [column[row] for row in rows]


def _unusable(table: Table, name: str, by_name: bool) -> tuple[str, str] | None:
    """Reason and words for why a column is no covariate."""
    column = table.columns.get(name, ())
    known = [one for one in column if one]
    if not known:
        return "missing_column", "nobody has a value of it"
    if len(set(known)) == 1 and len(known) > 1:
        return "constant_covariate", "it has one value"
    if name in table.words and len(set(known)) > LEVELS:
        return "too_many_levels", f"it has {len(set(known))} words"
    if not by_name and len(known) < FILLED * len(column):
        return "missing_column", f"known of {len(known) / len(column):.0%} of rows"
    return None


def _enough(table: Table, keep: Mask, words: Sequence[str], refused: Counter[str]) -> Mask:
    """Of people, levels of few become one, and where all of them together are few they are left out."""
    if table.of_people:
        for name in words:
            column = table.columns[name]
            few = {level for level, count in _counts(column, keep).items() if count < SMALLEST}
            rare = keep & np.array([one in few for one in column], np.bool_)
            if 0 < (count := int(rare.sum())) < SMALLEST:
                refused[f"small_group:{name}"] += count
                keep = keep & ~rare
        if keep.sum() < SMALLEST:
            raise Inestimable("too_few_people")
    if not keep.any():
        raise Inestimable("no_rows")
    return keep


def _counts(column: Sequence[str], keep: Mask) -> Counter[str]:
    return Counter(one for one, kept in zip(column, keep, strict=True) if kept)


def _columns(
    table: Table, keep: Mask, chosen: Sequence[str], asked: Asked, remarks: list[str]
) -> tuple[NDArray[np.float64], tuple[str, ...], dict[str, tuple[str, ...]]]:
    made: dict[str, list[float]] = {}
    terms: dict[str, tuple[str, ...]] = {}
    for name in chosen:
        column = [one for one, kept in zip(table.columns[name], keep, strict=True) if kept]
        if len(set(column)) == 1:
            if asked.covariates:
                raise Inestimable("constant_covariate", name)
            remarks.append(f"{name} is left out: it has one value where all else is known")
            continue
        if name not in table.words:
            made[name], terms[name] = [float(one) for one in column], (name,)
            continue
        if table.of_people:
            counts = Counter(column)
            column = [one if counts[one] >= SMALLEST else OTHER for one in column]
        first, *others = sorted(set(column), key=lambda one: (one == OTHER, one))
        terms[name] = tuple(f"{name}={level}" for level in others)
        for level in others:
            made[f"{name}={level}"] = [float(one == level) for one in column]
        remarks.append(f"{name} is told against {first}")
    x = np.array(list(made.values()), dtype=np.float64).T if made else np.zeros((int(keep.sum()), 0))
    return x, tuple(made), terms


# -------------------------------------------------------------------------------------------------------------- figures


def curves(table: Table, by: str, at: Sequence[float] = ()) -> Row:
    """Kaplan-Meier by group, and the log-rank test between them. Raises Inestimable, `all_censored` too."""
    if by and not any(table.columns.get(by, ())):
        raise Inestimable("missing_column", by)
    labels = np.array(table.columns[by] if by else ["all"] * len(table), dtype=object)
    refused, remarks = table.refused.copy(), list[str]()
    if unknown := int((labels == "").sum()):
        refused[f"unknown:{by}"] += unknown
    sizes = Counter(one for one in labels if one)
    if not by and table.of_people and len(table) < SMALLEST:
        raise Inestimable("too_few_people")
    shown = [one for one in sorted(sizes) if not table.of_people or sizes[one] >= SMALLEST]
    if few := len(sizes) - len(shown):
        remarks.append(f"{few} groups of fewer than {SMALLEST} people are not shown")
    rows = np.flatnonzero(np.isin(labels, shown))
    if not len(rows):
        raise Inestimable("too_few_people" if few else "no_rows")
    start = None if table.start is None else np.array(table.start)[rows]
    given, labels = checked(np.array(table.stop)[rows], np.array(table.event)[rows], start=start), labels[rows]
    if not given.event.any():
        raise Inestimable("all_censored")
    marks = _ticks(float(given.stop.max()))
    groups = [_group(given.take(labels == one), one, at or marks[1:-1], marks, table.of_people) for one in shown]
    remarks += [f"in group {one['group']} nothing has happened" for one in groups if not one["events"]]
    if lone := [one for one in shown if sizes[one] == 1]:
        remarks.append(f"one row each, and so no part of the test: {', '.join(lone)}")
    compared = np.isin(labels, [one for one in shown if sizes[one] > 1])
    report: Row = {"by": by, "rows": len(given), "events": int(given.event.sum()), "ticks": marks, "groups": groups}
    report["log_rank"] = None
    if by and len(shown) - len(lone) > 1:
        try:
            report["log_rank"] = _test(survival.log_rank(given.take(compared), labels[compared].astype(str)).test)
        except Inestimable as error:
            remarks.append(f"there is no log-rank test: {error}")
    return report | {"refused": dict(refused), "remarks": remarks, "until": table.until}


def _group(given: Cases, label: str, at: Sequence[float], marks: Sequence[float], of_people: bool) -> Row:
    if given.event.any():
        curve = survival.kaplan_meier(given)
        steps = np.column_stack((curve.time, curve.survival, curve.low, curve.high))
        if of_people:  # where few are left, a step is a person
            steps = steps[curve.at_risk >= SMALLEST]
        median = curve.median
    else:
        steps, median = np.zeros((0, 4)), survival.Median(None, None, None)
    times = np.sort(given.stop)
    return {
        "group": label,
        "n": len(given),
        "shown_until": float(times[-SMALLEST if of_people else -1]),
        "events": int(given.event.sum()),
        "median": {"time": median.time, "low": median.low, "high": median.high},
        "at": [_at(given, steps, time, of_people) for time in at],
        "at_risk": [_hidden(_at_risk(given, time), of_people) for time in marks],
        "steps": [[_maybe(one) for one in step] for step in steps.tolist()],
    }


def _at(given: Cases, steps: NDArray[np.float64], time: float, of_people: bool) -> Row:
    """Beyond the last row nothing is known, and of people nothing is told where few are left."""
    left = _at_risk(given, time)
    row: Row = {"time": time, "at_risk": _hidden(left, of_people), "survival": None, "low": None, "high": None}
    ended = time > float(given.stop.max()) and not (len(steps) and steps[-1, 1] == 0)
    if ended or (of_people and left < SMALLEST):
        return row
    place = int(np.searchsorted(steps[:, 0], time, "right")) - 1
    share = steps[place, 1:].tolist() if place >= 0 else [1.0, 1.0, 1.0]
    return row | dict(zip(("survival", "low", "high"), map(_maybe, share), strict=True))


def _at_risk(given: Cases, time: float) -> int:
    there = given.stop >= time
    return int((there if given.start is None else there & (given.start < max(time, 1e-300))).sum())


def _hidden(count: int, of_people: bool) -> int | str:
    return f"<{SMALLEST}" if of_people and count < SMALLEST else count


def _maybe(one: float) -> float | None:
    return None if math.isnan(one) else one


def _ticks(longest: float) -> list[float]:
    """From 0 to the last time, in about five steps of 1, 2 or 5 times a power of ten."""
    if longest <= 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(longest / 5))
    step = next(one * power for one in (1, 2, 5, 10) if one * power >= longest / 5 * 0.999)
    return [round(number * step, 10) for number in range(math.ceil(longest / step) + 1)]


def _test(one: Test) -> Row:
    return {"chi_square": one.statistic, "df": one.df, "p": one.p}


def hazards(of: Design, ties: Ties = "efron", begin: Mapping[str, float] | None = None) -> Row:
    """Cox. With clusters, errors are robust to what rows of one have in common. Raises Inestimable."""
    started = None if begin is None else [begin.get(name, 0.0) for name in of.given.names]
    fitted = cox.fit(of.given, ties, cluster=of.cluster, begin=started)
    tested = cox.proportionality(of.given, fitted, terms=of.terms)
    assert fitted.concordance is not None
    return _fitted(of, ties) | {
        "coefficients": _coefficients(fitted.names, fitted.coef, fitted.se),
        "robust": fitted.robust is not None,
        "loglik": fitted.loglik,
        "loglik_null": fitted.loglik_null,
        "likelihood_ratio": _test(fitted.lrt),
        "wald": _test(fitted.wald),
        "score": _test(fitted.score),
        "concordance": fitted.concordance.value,
        "proportionality": {name: _test(one) for name, one in tested.terms.items()} | {"all": _test(tested.whole)},
        "steps": fitted.steps,
    }


def shared(
    of: Design,
    distribution: frailty.Distribution = "gamma",
    theta: float | None = None,
    ties: Ties = "efron",
    begin: Mapping[str, float] | None = None,
    near: float | None = None,
) -> Row:
    """A frailty shared by the rows of a cluster. Raises Inestimable."""
    assert of.cluster is not None
    started = None if begin is None else [begin.get(name, 0.0) for name in of.given.names]
    fitted = frailty.fit(of.given, of.cluster, distribution, theta, ties, begin=started, near=near)
    sizes, died = Counter(of.cluster), Counter(np.array(of.cluster, dtype=object)[of.given.event].tolist())
    shown: list[Row] = [
        {"cluster": label, "n": sizes[label], "events": died[label], "hazard_ratio": math.exp(effect)}
        for label, effect in zip(fitted.clusters, fitted.log_frailty.tolist(), strict=True)
        if not of.of_people or sizes[label] >= SMALLEST
    ]
    interval = None if fitted.interval is None else {"low": fitted.interval[0], "high": _finite(fitted.interval[1])}
    ratio = {"chi_square": 2 * max(0.0, fitted.loglik - fitted.loglik_zero), "p": fitted.p}
    variance: Row = {"theta": fitted.theta, "fixed": theta is not None, "at_zero": fitted.at_zero} | (interval or {})
    report = _fitted(of, ties) | {
        "coefficients": _coefficients(fitted.names, fitted.coef, fitted.se),
        "distribution": distribution,
        "variance": variance,
        "loglik": fitted.loglik,
        "loglik_without": fitted.loglik_zero,
        "likelihood_ratio": ratio if fitted.p is not None else None,
        "clusters": sorted(shown, key=lambda one: -float(one["hazard_ratio"])),
        "driver": _driver(fitted, sizes, of.of_people),
        "evaluations": fitted.evaluations,
    }
    if few := len(sizes) - len(shown):
        report["remarks"].append(f"{few} clusters of fewer than {SMALLEST} people are in the fit and not shown")
    if fitted.at_zero:
        report["remarks"].append("the variance is zero: clusters differ by no more than chance, and this is plain Cox")
    return report


def _driver(fitted: frailty.FrailtyFit, sizes: Mapping[str, int], of_people: bool) -> Row | None:
    """The cluster that drives the fit, and what comes out without it. `coefficients`: those that it moved far."""
    if (one := fitted.driver) is None:
        return None
    label = one.cluster if not of_people or sizes[one.cluster] >= SMALLEST else f"of fewer than {SMALLEST} people"
    far = {name: value for name, value in zip(fitted.names, one.coef.tolist(), strict=True) if name in one.why}
    return {"cluster": label, "why": list(one.why), "theta": one.theta, "p": one.p, "coefficients": far}


def _fitted(of: Design, ties: Ties) -> Row:
    given = of.given
    rows: Row = {"rows": len(given), "events": int(given.event.sum()), "ties": ties, "strata": len(given.strata)}
    return rows | {"refused": dict(of.refused), "remarks": list(of.remarks)}


def _coefficients(names: Sequence[str], coef: NDArray[np.float64], se: NDArray[np.float64]) -> list[Row]:
    made = []
    for name, value, error in zip(names, coef.tolist(), se.tolist(), strict=True):
        p = Test.of((value / error) ** 2, 1).p
        low, high = (math.exp(min(value + side * Z * error, 700.0)) for side in (-1, 1))
        row = {"name": name, "coef": value, "exp": math.exp(value), "se": error, "z": value / error, "p": p}
        made.append(row | {"low": low, "high": high})
    return made


def _finite(one: float) -> float | None:
    return one if math.isfinite(one) else None


# --------------------------------------------------------------------------------------------------------------- refits


@dataclass(frozen=True, slots=True)
class Model:
    """A model as it was asked for, so that it can be fitted again in another process."""

    kind: Literal["cox", "frailty"]
    asked: Asked
    ties: Ties = "efron"
    distribution: frailty.Distribution = "gamma"
    theta: float | None = None

    def fit(self, table: Table, last: Row | None = None) -> Row:
        """From the coefficients of the `last` report on, by their names. Raises Inestimable."""
        of = design(table, self.asked)
        begin = None if last is None else {one["name"]: one["coef"] for one in last["coefficients"]}
        if self.kind == "cox":
            return hazards(of, self.ties, begin)
        near = None if last is None or self.theta is not None else float(last["variance"]["theta"])
        return shared(of, self.distribution, self.theta, self.ties, begin, near)


def refit(model: Model, table: Table, last: Row | None) -> Row:
    """Of what cannot be estimated, the reason: an error would lose it on its way from the other process."""
    try:
        return model.fit(table, last)
    except Inestimable as error:
        return {"error": error.reason, "where": error.where}


async def follow(read: Callable[[], Table], model: Model, every: float, say: Callable[[Row, Row | None], None]) -> None:
    """Fit again, in a process of its own, when what was read has changed: for ever. Raises what `read` does."""
    beside, last, seen = Beside(nice=5), None, b""
    try:
        while True:
            table = await asyncio.to_thread(read)
            if (now := table.digest()) != seen:
                seen = now
                try:
                    report = await beside.ask(PATIENCE, refit, model, table, last)
                except BesideFailed as error:
                    report = {"error": "fit_failed", "where": str(error)}
                say(report, last)
                last = last if "error" in report else report
            await asyncio.sleep(every)
    finally:
        beside.close()


def moved(now: Row, before: Row) -> list[Row]:
    """Coefficients of two reports that differ, or that one alone has; those that moved most of their error first."""
    old, new = ({one["name"]: one for one in report["coefficients"]} for report in (before, now))
    made = []
    for name in old.keys() | new.keys():
        was, is_ = (one[name]["coef"] if name in one else None for one in (old, new))
        by = math.inf if was is None or is_ is None else abs(is_ - was) / new[name]["se"]
        if by > 1e-4:
            made.append({"name": name, "before": was, "now": is_, "errors": _finite(by)})
    return sorted(made, key=lambda one: (-(one["errors"] or math.inf), one["name"]))
