"""Candidates beside logistic regression on rows that none of them was fitted on: does any of them earn its trees? Pure.

With times, on the last fifth of them, of patients that are in no training (streams.learn.split). Without, in five folds
by patient: each row is judged by models that saw neither it nor its patient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from streams import learn
from streams.learn import LOGISTIC, MAJORITY, METRIC, Floats, Judge, Split
from streams.models import Calibration, Figure, Subgroup
from streams.quality.risk import NO
from streams.rows import YES, Row


@dataclass(frozen=True, slots=True)
class Comparison:
    """Figures by candidate. `differences`: AUC less that of logistic regression, with intervals that hold for all
    candidates together; `better`: those whose interval lies above 0. `subgroups` are of what is proposed."""

    rows: int
    patients: int
    events: int
    judged: str
    figures: dict[str, dict[str, Figure]]
    calibration: dict[str, Calibration]
    differences: dict[str, Figure]
    better: tuple[str, ...]
    proposed: str
    subgroups: dict[str, Subgroup]

    @property
    def verdict(self) -> str:
        trees = {name: one for name, one in self.differences.items() if name != MAJORITY}
        said = {name: f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})" for name, one in trees.items()}
        plain = self.figures[LOGISTIC][METRIC]
        if self.better:
            others = ", ".join(f"{name} {said[name]}" for name in self.better)
            return f"beat logistic regression in AUC: {others}; {self.proposed} is proposed"
        if plain.low <= 0.5:
            return "nothing here is shown to predict the outcome: logistic regression is no better than chance"
        nearest = max(trees, key=lambda name: trees[name].value)
        told = f"no candidate is shown to beat logistic regression: the nearest, {nearest}, {said[nearest]} in AUC"
        return f"{told}; {LOGISTIC} is proposed"


def steps(timed: bool, algorithms: Sequence[str] = learn.OUTCOME_ALGORITHMS) -> int:
    return len(algorithms) * (1 if timed else learn.FOLDS)


def compared(
    rows: Sequence[Row],
    timed: bool,
    done: Callable[[], None] = lambda: None,
    algorithms: Sequence[str] = learn.OUTCOME_ALGORITHMS,
) -> Comparison:
    """`done` is called after each fit, `steps` times in all. Raises Untrainable."""
    parts = [learn.split(rows)] if timed else _folds(rows)
    names, risks = np.array([NO, YES]), dict[str, list[Floats]]()
    for part in parts:
        told = [row.features for row in part.holdout]
        ready = learn.ready(part.training, learn.FEWER_FOLDS)
        for algorithm in algorithms:
            estimator = learn.fitted(algorithm, ready, crossed=False).estimator
            risks.setdefault(algorithm, []).append(estimator.predict_proba(told))
            done()
        risks.setdefault(MAJORITY, []).append(learn.majority(part.training if timed else rows).predict_proba(told))
    judge = Judge([row for part in parts for row in part.holdout])
    said = {name: np.vstack(some).astype(float) for name, some in risks.items()}
    tests = len(algorithms) - 1
    differences = {
        name: one
        for name, p in said.items()
        if name != LOGISTIC and (one := judge.difference(p, said[LOGISTIC], names, tests=tests))
    }
    better = [name for name, one in differences.items() if one.low > 0 and name != MAJORITY]
    better.sort(key=lambda name: -differences[name].value)
    proposed = better[0] if better else LOGISTIC
    return Comparison(
        rows=len(rows),
        patients=len({row.patient for row in rows}),
        events=sum(row.label == YES for row in rows),
        judged=f"the last fifth of the time: {len(judge.rows)} rows" if timed else f"each row, in {learn.FOLDS} folds",
        figures={name: judge.figures(p, names) for name, p in said.items()},
        calibration={name: judge.calibration(p, names) for name, p in said.items()},
        differences=differences,
        better=tuple(better),
        proposed=proposed,
        subgroups=judge.subgroups(said[proposed], names),
    )


def _folds(rows: Sequence[Row]) -> list[Split]:
    return [Split([rows[at] for at in fitted], [rows[at] for at in tested]) for fitted, tested in learn.folds(rows)]
