"""Outcomes for the tests of service quality: made up, and the cardiac data where they are."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from streams.quality.charts import Outcome

Floats = NDArray[np.float64]
SHARED = Path(os.environ.get("SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CARDIAC = SHARED / "outcomes" / "cardiacsurgery.csv"


def at(day: int, second: int = 0) -> str:
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return f"{date(2026, 1, 1) + timedelta(days=day)}T{clock}.000Z"


def outcome(
    record: str, day: int, risk: float, event: bool | None, told: int = 0, *, second: int = 0, unit: str = "ICU"
) -> Outcome:
    return Outcome(record, unit, at(day, second), f"{at(day)}|{told:06}", risk, event)


def case_mix(count: int = 2000, seed: int = 5) -> Floats:
    """Risks as skewed as those of heart surgery: most low, a few high."""
    score = np.random.default_rng(seed).gamma(1.2, 7.5, count)
    return 1 / (1 + np.exp(3.68 - 0.077 * np.minimum(score, 60)))


@dataclass(frozen=True)
class Cardiac:
    """5,595 operations at a British centre, 1992 to 1998 (Steiner et al. 2000; R package spcadjust, GPL-2: read where
    it lies). `first`: whose day is before 730, phase I."""

    day: Floats
    score: Floats
    died: NDArray[np.bool_]  # within 30 days
    surgeon: list[str]

    @property
    def first(self) -> NDArray[np.bool_]:
        return np.asarray(self.day < 730)

    def model(self) -> tuple[float, float]:
        fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        fitted.fit(self.score[self.first, None], self.died[self.first])
        return float(fitted.intercept_[0]), float(fitted.coef_[0, 0])

    def risks(self) -> Floats:
        intercept, slope = self.model()
        return np.asarray(1 / (1 + np.exp(-intercept - slope * self.score)))

    def outcomes(self) -> list[Outcome]:
        rows = enumerate(zip(self.day, self.risks(), self.died, strict=True))
        return [outcome(f"{n:05}", int(day) - 1, float(risk), bool(died)) for n, (day, risk, died) in rows]


def cardiac() -> Cardiac:
    if not CARDIAC.exists():
        pytest.skip("the cardiac data (spcadjust, GPL-2) are not beside the repository, nor where SHARED_DATA says")
    with CARDIAC.open() as file:
        rows = list(csv.DictReader(file))
    time, status = (np.array([float(row[name]) for row in rows]) for name in ("time", "status"))
    score, day = (np.array([float(row[name]) for row in rows]) for name in ("Parsonnet", "date"))
    return Cardiac(day, score, (time <= 30) & (status == 1), [row["surgeon"] for row in rows])
