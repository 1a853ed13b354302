"""When a patient will leave, given how long he or she has been here: for `Need.leaves` and the board. Pure.

Discrete-time survival (Cox, JRSS B 34, 1972; Singer and Willett, Journal of Educational Statistics 18, 1993): the
chance of leaving within the next hour, for whoever is still in at its beginning, by logistic regression over hours of
stays. So a stay that goes on counts for what it has shown, the shape follows the service, and what changes while
somebody lies (the clock, the ward's own estimate) is taken as it was known at that hour. Hours are counted by what they
have in common before anything is fitted: the model sees tables of many patients and never a person's row.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from infra.errors import Untrainable
from schemas.envelope import rfc3339
from streams.learn import FEWEST, HOLDOUT_TIME, apart, kept_back, kinds, mean_of
from streams.models import Card, Data, Figure

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TARGET, ALGORITHM, METRIC = "leaves", "discrete_hazard", "mae"
HORIZON = timedelta(
    days=14
)  # a stay that begins later than that before the data ends is not judged: else short ones are
FEWEST_STAYS = 50  # that have ended, in training and in the hold-out
SNAPSHOTS = 14  # moments of one stay that are judged: at admission and each day after
LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9
MOST = 60 * 24  # hours of a stay that count
AHEAD = 30 * 24  # hours for which the hazard is worked out; behind them it stays as it was in the last week

# Hours, upper ends excluded. Finer where most leave.
_ELAPSED = (2, 4, 8, 12, 18, 24, 36, 48, 60, 72, 96, 120, 144, 168, 216, 264, 336, 504, 720)
_DUE = (-24, 0, 6, 12, 24, 48, 72, 96, 144, 240)
_PASSED = (0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)  # of the stay as the ward sees it: errors grow with its length
_AGE = (18, 40, 65, 80)
_NEVER = 0  # the code of "nothing told" among ages and estimates
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Course:
    """One stay at one place of care. `estimates`: when it was told, and when it was thought then that the stay would
    end, in the order of telling."""

    patient: str  # reference
    service: str  # PV1-10
    age: int | None
    since: datetime
    until: datetime | None  # None: still in when the data ends
    estimates: tuple[tuple[datetime, datetime], ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A patient who is in. `due`: hours until the end that the ward expects; None: it has said nothing."""

    service: str
    age: int | None
    elapsed: float  # hours
    due: float | None = None


@dataclass(frozen=True, slots=True)
class Leaving:
    """Hours from now: what is expected on average, and the 10th, 50th and 90th percentile."""

    expected: float
    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class Split:
    training: list[Course]  # cut off at `cut`: what came after it is not known there
    holdout: list[Course]
    cut: datetime


# ------------------------------------------------------------------------------------------------------------------ fit


def sensible(courses: Iterable[Course], until: datetime) -> list[Course]:
    """Without those who left before they came or come after the data ends; those who leave later are still in."""
    made = []
    for one in courses:
        ended = one.until if one.until is not None and one.until <= until else None
        if one.since < until and (one.until is None or one.until > one.since):
            told = tuple(each for each in one.estimates if each[0] <= until)
            made.append(Course(one.patient, one.service, one.age, one.since, ended, told))
    return sorted(made, key=lambda one: (one.since, one.patient))


def split(courses: Sequence[Course], until: datetime) -> Split:
    """Training: half of the patients, until four fifths of the admissions; hold-out: the others, admitted later.

    Raises Untrainable (`too_few_patients`).
    """
    ripe = [one.since for one in sensible(courses, until) if one.since <= until - HORIZON]
    if not ripe:
        raise Untrainable("too_few_patients", f"no stay began more than {HORIZON.days} days before the data ends")
    return window(courses, until, ripe[int(len(ripe) * (1 - HOLDOUT_TIME))])


def window(courses: Sequence[Course], until: datetime, cut: datetime) -> Split:
    """The same by a given time. Raises Untrainable."""
    known = sensible(courses, until)
    training = [one for one in sensible(known, cut) if not kept_back(one.patient)]
    holdout = [one for one in known if cut <= one.since <= until - HORIZON and kept_back(one.patient)]
    for what, some in (("training", training), ("the hold-out", holdout)):
        if (ended := sum(one.until is not None for one in some)) < FEWEST_STAYS:
            raise Untrainable(
                "too_few_patients", f"{what} wants {FEWEST_STAYS} stays that have ended: there are {ended}"
            )
    apart([one.patient for one in training], [one.patient for one in holdout])
    return Split(training, holdout, cut)


def fit(training: Sequence[Course], cut: datetime) -> Pipeline:
    """The hazard of each hour. What fewer than FEWEST patients have in common is left out."""
    services = _services(training)
    tables = [_hours(one, services, cut) for one in training]
    codes = np.concatenate([codes for codes, _ in tables])
    numbers = np.unique([one.patient for one in training], return_inverse=True)[1]
    shared = _shared(codes, np.repeat(numbers, [len(codes) for codes, _ in tables]), services)
    ended = np.concatenate([ended for _, ended in tables])
    kinds_of_hours, of = np.unique(codes, axis=0, return_inverse=True)
    left = np.bincount(of.ravel(), weights=ended, minlength=len(kinds_of_hours))
    all_of = np.bincount(of.ravel(), minlength=len(kinds_of_hours))
    rows = [{name: 1.0 for name in _names(code, services) if name in shared} for code in kinds_of_hours]
    vectoriser = DictVectorizer(dtype=np.float64)
    x = vectoriser.fit_transform([*rows, *rows])
    y = np.array(["yes"] * len(rows) + ["no"] * len(rows))
    weights = np.concatenate((left, all_of - left))
    model = LogisticRegression(C=1.0, max_iter=2000)
    model.fit(x[weights > 0], y[weights > 0], sample_weight=weights[weights > 0])
    return Pipeline([("features", vectoriser), ("model", model)])


def _services(courses: Iterable[Course]) -> list[str]:
    """Services by number; 0 is every other one."""
    patients: dict[str, set[str]] = defaultdict(set)
    for one in courses:
        patients[one.service].add(one.patient)
    return ["", *sorted(name for name, some in patients.items() if name and len(some) >= FEWEST)]


def _hours(one: Course, services: Sequence[str], until: datetime) -> tuple[Ints, Floats]:
    """A row of codes for each hour of a stay until then, and 1 in the hour in which it ended."""
    last = one.until or until
    count = min(MOST, max(1, math.ceil((last - one.since) / _HOUR)))
    due: Floats = np.full(count, np.nan)
    for told, ends in one.estimates:
        begin = max(0, math.ceil((told - one.since) / _HOUR))
        due[begin:] = (ends - one.since) / _HOUR - np.arange(begin, count)
    ended = np.zeros(count)
    ended[-1] = one.until is not None and count < MOST
    return _codes(one.service, one.age, one.since, 0.0, due, services), ended


def _codes(service: str, age: int | None, at: datetime, elapsed: float, due: Floats, services: Sequence[str]) -> Ints:
    """Hours from `at` on, as many as there are of `due`: service, age, elapsed, hour, weekend, due, part passed."""
    count = len(due)
    clock = at.weekday() * 24 + at.hour + np.arange(count)
    silent, passed = np.isnan(due), elapsed + np.arange(count)
    whole = np.maximum(np.nan_to_num(passed + due), 1.0)
    return np.column_stack(
        (
            np.full(count, services.index(service) if service in services else 0),
            np.full(count, _NEVER if age is None else 1 + int(np.searchsorted(_AGE, age, "right"))),
            np.searchsorted(_ELAPSED, passed, "right"),
            clock % 24,
            clock // 24 % 7 >= 5,
            np.where(silent, _NEVER, 1 + np.searchsorted(_DUE, np.nan_to_num(due), "right")),
            np.where(silent, _NEVER, 1 + np.searchsorted(_PASSED, passed / whole, "right")),
        )
    ).astype(np.int64)


def _names(code: Ints, services: Sequence[str]) -> list[str]:
    service, age, elapsed, hour, weekend, due, passed = (int(one) for one in code)
    made = [f"elapsed={elapsed}", f"hour={hour}", f"age={age}", f"due={due}", f"passed={passed}"]
    made += ["weekend"] if weekend else []
    return made + ([f"service={services[service]}", f"stage={services[service]}|{elapsed}"] if service else [])


def _shared(codes: Ints, patients: Ints, services: Sequence[str]) -> set[str]:
    """Names of features that at least FEWEST patients have."""
    alike, of = np.unique(codes, axis=0, return_inverse=True)
    of_whom: dict[str, set[int]] = defaultdict(set)
    for at, patient in np.unique(np.column_stack((of.ravel(), patients)), axis=0):
        for name in _names(alike[at], services):
            of_whom[name].add(int(patient))
    return {name for name, some in of_whom.items() if len(some) >= FEWEST}


# -------------------------------------------------------------------------------------------------------------- predict


class Hazards:
    """A fitted model as tables of its weights: a thousand patients in a second."""

    def __init__(self, model: Pipeline) -> None:
        names, weights = model[0].feature_names_, model[1].coef_[0]
        by_name = dict(zip(names, (float(one) for one in weights), strict=True))
        self._services = ["", *sorted(name.partition("=")[2] for name in names if name.startswith("service="))]
        self._constant, self._weekend = float(model[1].intercept_[0]), by_name.get("weekend", 0.0)
        counts = {
            "elapsed": len(_ELAPSED) + 1,
            "hour": 24,
            "age": len(_AGE) + 2,
            "due": len(_DUE) + 2,
            "passed": len(_PASSED) + 2,
        }
        self._of = {of: np.array([by_name.get(f"{of}={at}", 0.0) for at in range(n)]) for of, n in counts.items()}
        stages = range(len(_ELAPSED) + 1)
        self._stage = np.array(
            [
                [by_name.get(f"service={one}", 0.0) + by_name.get(f"stage={one}|{at}", 0.0) for at in stages]
                for one in self._services
            ]
        )

    def leaving(self, asked: Asked, at: datetime) -> Leaving:
        """Of somebody who is in at that time."""
        due = (math.nan if asked.due is None else asked.due) - np.arange(float(AHEAD))
        codes = _codes(asked.service, asked.age, at, asked.elapsed, due, self._services)
        service, age, elapsed, hour, weekend, told, passed = codes.T
        odds = self._constant + self._stage[service, elapsed] + self._weekend * weekend
        odds = odds + self._of["elapsed"][elapsed] + self._of["hour"][hour]
        odds = odds + self._of["age"][age] + self._of["due"][told] + self._of["passed"][passed]
        hazard = 1 / (1 + np.exp(-odds))
        staying = np.cumprod(1 - hazard)  # until the end of each hour
        later = max(float(hazard[-168:].mean()), 1e-4)
        expected = 0.5 + float(staying[:-1].sum()) + float(staying[-1]) / later
        low, median, high = (_quantile(staying, later, one) for one in (LOW, MIDDLE, HIGH))
        return Leaving(expected, low, median, high)


def _quantile(staying: Floats, later: float, share: float) -> float:
    """After how many hours that share has left; within an hour they leave evenly."""
    place = int(np.searchsorted(-staying, share - 1))
    if place == len(staying):
        return place + math.log((1 - share) / float(staying[-1])) / math.log(1 - later)
    before = float(staying[place - 1]) if place else 1.0
    return place + (before - (1 - share)) / (before - float(staying[place]))


# ---------------------------------------------------------------------------------------------------------------- judge


@dataclass(frozen=True, slots=True)
class _Moment:
    course: Course
    at: datetime
    left: float  # hours, known afterwards
    estimate: float | None  # hours, as told until then

    @property
    def elapsed(self) -> float:
        return (self.at - self.course.since) / _HOUR


def judged(model: Pipeline, parts: Split, until: datetime, incumbent: Pipeline | None = None) -> Card:
    """Figures at admission and each day after of every stay of the hold-out, beside three baselines: the service's
    median stay less what has passed; the median of what was left for those of the service who had stayed as long; and
    the ward's own estimate, where there is one."""
    moments = [one for course in parts.holdout for one in _moments(course, until)]
    patients = [one.course.patient for one in moments]
    left = np.array([one.left for one in moments])
    found = _said(model, moments)
    medians = np.array([one.median for one in found])
    errors = np.abs(medians - left)
    within = np.array([one.low <= truth <= one.high for one, truth in zip(found, left, strict=True)], float)
    bias = np.array([one.expected for one in found]) - left
    others = {name: np.abs(said - left) for name, said in _baselines(parts, moments).items()}
    if incumbent is not None:
        others["incumbent"] = np.abs(np.array([one.median for one in _said(incumbent, moments)]) - left)
    differences = {}
    for name, theirs in others.items():
        known = np.isfinite(theirs)
        of = [one for one, yes in zip(patients, known, strict=True) if yes]
        if (one := mean_of((errors - theirs)[known], of)) is not None:
            differences[name] = one
    mine = {name: one for name, one in differences.items() if name != "incumbent"}
    open_still = sum(one.until is None for one in parts.holdout)
    return Card(
        algorithm=ALGORITHM,
        target=TARGET,
        trained_at="",
        trained_by="",
        data=_data(parts.training, parts.cut),
        holdout=_data(parts.holdout, max(one.since for one in parts.holdout)),
        features=kinds(model),
        metric=METRIC,
        figures=_figures({METRIC: errors, "coverage_80": within, "bias": bias}, patients),
        baselines={name: _figures({METRIC: others[name]}, patients) for name in mine},
        differences=differences,
        beats_baseline=all(one.high < 0 for one in mine.values()),
        beats_incumbent=None if incumbent is None else differences["incumbent"].high < 0,
        notes=(
            f"hours; the median is judged on {len(moments)} moments: at admission, and each day after",
            "coverage_80: how often the stay ended between the 10th and the 90th percentile; bias: of the expectation",
            f"{open_still} stays of the hold-out had not ended: taken as if they had, when the data ends",
            "differences below 0 are better",
        ),
    )


def _moments(course: Course, until: datetime) -> Iterable[_Moment]:
    ended = course.until or until
    for day in range(SNAPSHOTS):
        at = course.since + timedelta(days=day)
        if at < ended:
            told = [ends for said, ends in course.estimates if said <= at]
            yield _Moment(course, at, (ended - at) / _HOUR, (told[-1] - at) / _HOUR if told else None)


def _said(model: Pipeline, moments: Iterable[_Moment]) -> list[Leaving]:
    hazards = Hazards(model)
    return [
        hazards.leaving(Asked(one.course.service, one.course.age, one.elapsed, one.estimate), one.at) for one in moments
    ]


def _baselines(parts: Split, moments: Sequence[_Moment]) -> Mapping[str, Floats]:
    lengths: dict[str, list[float]] = defaultdict(list)
    for one in parts.training:
        if one.until is not None:
            lengths[one.service].append((one.until - one.since) / _HOUR)
    everybody = np.sort(np.concatenate([np.array(some) for some in lengths.values()]))
    by_service = {name: np.sort(np.array(some)) for name, some in lengths.items()}

    def each(said: Callable[[Floats, _Moment], float]) -> Floats:
        return np.array([said(by_service.get(one.course.service, everybody), one) for one in moments])

    def as_long(some: Floats, one: _Moment) -> float:
        stayed = some[some > one.elapsed]
        return float(np.median(stayed)) - one.elapsed if len(stayed) else 0.0

    return {
        "service_median": each(lambda some, one: max(0.0, float(np.median(some)) - one.elapsed)),
        "service_median_so_far": each(as_long),
        "ward_estimate": each(lambda _, one: math.nan if one.estimate is None else max(0.0, one.estimate)),
    }


def _figures(values: Mapping[str, Floats], patients: Sequence[str]) -> dict[str, Figure]:
    made = {}
    for name, some in values.items():
        known = np.isfinite(some)
        of = [one for one, yes in zip(patients, known, strict=True) if yes]
        if (figure := mean_of(some[known], of)) is not None:
            made[name] = figure
    return made


def _data(courses: Sequence[Course], last: datetime) -> Data:
    patients = len({one.patient for one in courses})
    return Data(rows=len(courses), patients=patients, first=rfc3339(courses[0].since), last=rfc3339(last))
