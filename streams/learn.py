"""From labelled rows to trained models and what is known of them: figures with intervals, beside baselines. Pure.

Honest by construction: no patient is in two folds, or in training and hold-out; the hold-out is later than all
training; the choice among algorithms looks at training folds alone. Half of the patients, by a hash of their reference,
are kept for the hold-out for ever: so that a later model can be compared with an earlier one on rows that neither has
seen, and so that who has no later events (the dead, the healthy) is not over-represented in training.
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.naive_bayes import BernoulliNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from infra.errors import Untrainable
from schemas.safe_harbor import SMALLEST
from streams.models import Bin, Calibration, Data, Figure, Subgroup
from streams.rows import MISSING, YES, Features, Row

Floats = NDArray[np.float64]

FOLDS, FEWER_FOLDS = 5, 3
HOLDOUT_TIME = 0.2  # the last fifth of the rows, by time
FEWEST = 5  # patients behind a feature: below it a model would tell of single persons
FEWEST_OF_CLASS = 2 * FOLDS  # patients of a class in training
TERMS = 300  # text terms kept, those of most patients
MOST_ROWS = 30_000  # fitted on; of more, whole patients are left out
RESAMPLES = 400
ROUNDS = 120  # trees of a boosted model
SHUFFLES = 3  # of each feature, for its importance
SEED = 20_170  # of folds, fits and resamples: the same rows give the same card
METRIC = "auc"
OBSERVED = "observed_to_expected"


class Boosted(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Gradient boosted trees of XGBoost (Chen and Guestrin, KDD 2016) or LightGBM (Ke et al., NIPS 2017).

    Kept as the library's own text, and predicts from nothing else: no pickle, no row, no range of a feature.
    """

    def __init__(self, library: str = "xgboost") -> None:
        self.library = library

    def fit(self, x: NDArray[Any], y: NDArray[Any]) -> Boosted:
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.n_features_in_ = x.shape[1]
        self.text_ = _FITTED[self.library](x, codes, len(self.classes_))
        self._booster = None
        return self

    def predict_proba(self, x: NDArray[Any]) -> Floats:
        if getattr(self, "_booster", None) is None:
            self._booster = _READ[self.library](self.text_)
        p = np.asarray(_PREDICTED[self.library](self._booster, x), dtype=float)
        return np.column_stack((1 - p, p)) if p.ndim == 1 else p / p.sum(1, keepdims=True)

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self.classes_[self.predict_proba(x).argmax(1)])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_booster"}


def _xgboost(x: NDArray[Any], codes: NDArray[Any], classes: int) -> str:
    import xgboost  # 0.5 s: not for whoever needs none

    goal = {"objective": "binary:logistic"} if classes == 2 else {"objective": "multi:softprob", "num_class": classes}
    trees = {"max_depth": 4, "eta": 0.05, "min_child_weight": 4, "lambda": 2, "subsample": 0.8, "colsample_bytree": 0.8}
    settings = {**goal, **trees, "tree_method": "hist", "nthread": 1, "seed": SEED, "verbosity": 0}
    made = xgboost.train(settings, xgboost.DMatrix(x, codes, nthread=1), ROUNDS)
    return made.save_raw("json").decode()


def _lightgbm(x: NDArray[Any], codes: NDArray[Any], classes: int) -> str:
    import lightgbm

    goal = {"objective": "binary"} if classes == 2 else {"objective": "multiclass", "num_class": classes}
    trees = {"num_leaves": 12, "learning_rate": 0.05, "min_data_in_leaf": 20, "lambda_l2": 1, "feature_fraction": 0.8}
    same = {"bagging_fraction": 0.8, "bagging_freq": 1, "deterministic": True, "force_row_wise": True, "seed": SEED}
    settings = {**goal, **trees, **same, "num_threads": 1, "verbosity": -1}
    made = lightgbm.train(settings, lightgbm.Dataset(x, codes, params={"verbosity": -1}), ROUNDS)
    # Lowest and highest value of each feature: somebody's, and of no use to a prediction.
    ranges = "feature_infos=" + " ".join(["none"] * x.shape[1])
    return re.sub(r"^feature_infos=.*$", ranges, made.model_to_string(), flags=re.MULTILINE)


def _read_xgboost(text: str) -> Any:
    import xgboost

    made = xgboost.Booster({"nthread": 1})
    made.load_model(bytearray(text.encode()))
    return made


def _read_lightgbm(text: str) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=text)


_FITTED: dict[str, Callable[[NDArray[Any], NDArray[Any], int], str]] = {"xgboost": _xgboost, "lightgbm": _lightgbm}
_READ: dict[str, Callable[[str], Any]] = {"xgboost": _read_xgboost, "lightgbm": _read_lightgbm}
_PREDICTED: dict[str, Callable[[Any, NDArray[Any]], Any]] = {
    "xgboost": lambda booster, x: booster.inplace_predict(x),
    "lightgbm": lambda booster, x: booster.predict(x, num_threads=1),
}

# Fixed and not searched for: a search needs a third split that small hospitals cannot spare. LinearSVC and not SVC,
# whose support vectors are patients kept in the artefact.
ESTIMATORS: dict[str, Callable[[], Any]] = {
    "decision_tree": lambda: DecisionTreeClassifier(max_depth=6, min_samples_leaf=20, random_state=SEED),
    "support_vector_machine": lambda: _scaled(LinearSVC(C=0.01, max_iter=5000, random_state=SEED)),
    "random_forest": lambda: RandomForestClassifier(50, max_depth=12, min_samples_leaf=5, random_state=SEED, n_jobs=1),
    # Of words and codes that hold or not, and of numbers that are above their mean or not.
    "naive_bayes": lambda: _scaled(BernoulliNB(binarize=0.0)),
    "xgboost": lambda: Boosted("xgboost"),
    "lightgbm": lambda: Boosted("lightgbm"),
    "logistic_regression": lambda: _scaled(LogisticRegression(C=0.1, max_iter=1000)),
}
LOGISTIC, MAJORITY, NAIVE = "logistic_regression", "majority", "naive_bayes"
# Of patients, unless others are asked for; of outcomes of cases, for whose few numbers trees are worth a trial.
ALGORITHMS = ("decision_tree", "support_vector_machine", "random_forest", LOGISTIC)
OUTCOME_ALGORITHMS = ("decision_tree", "random_forest", "xgboost", "lightgbm", LOGISTIC)


@dataclass(frozen=True, slots=True)
class Split:
    training: list[Row]
    holdout: list[Row]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fitted and calibrated estimator, with its AUC in each fold of the training rows."""

    algorithm: str
    estimator: Pipeline
    folds: tuple[float, ...]

    @property
    def cross_validated(self) -> float:
        return float(np.mean(self.folds))


# ---------------------------------------------------------------------------------------------------------------- rows


def kept_back(patient: str) -> bool:
    """Whether a patient is of the hold-out's half, for every model and for ever."""
    return hashlib.sha256(b"holdout" + patient.encode()).digest()[0] % 2 == 0


def split(rows: Sequence[Row]) -> Split:
    """Training: the first 80% of the time, of half of the patients; hold-out: the rest of the time, of the others.

    Raises Untrainable where there is too little, or one class only.
    """
    classes(rows)
    times = sorted(row.at for row in rows)  # by their number, not their span: one wrong clock would decide it
    cut = times[int(len(times) * (1 - HOLDOUT_TIME))]
    return window(rows, (times[0], max((at for at in times if at < cut), default="")), (cut, times[-1]))


def window(rows: Sequence[Row], training: tuple[str, str], holdout: tuple[str, str]) -> Split:
    """The same by given times, first and last: so that what a card says can be measured again. Raises Untrainable."""
    some = sorted(rows, key=lambda row: (row.at, row.patient))
    fitted = _whole_patients([r for r in some if training[0] <= r.at <= training[1] and not kept_back(r.patient)])
    judged = [r for r in some if holdout[0] <= r.at <= holdout[1] and kept_back(r.patient)]
    usual = _usual(fitted)
    made = Split([row for row in fitted if row.label in usual], [row for row in judged if row.label in usual])
    classes(made.training)
    classes(made.holdout)
    apart([row.patient for row in made.training], [row.patient for row in made.holdout])
    return made


def classes(rows: Iterable[Row]) -> tuple[str, ...]:
    """Raises Untrainable (`one_class`) for fewer than two: such a model would be right for ever, and know nothing."""
    found = tuple(sorted({row.label for row in rows}))
    if len(found) < 2:
        said = f"every row is {found[0]!r}" if found else "there are no rows"
        raise Untrainable("one_class", f"{said}: a model needs two classes at least, in training and in the hold-out")
    return found


def apart(some: Iterable[str], others: Iterable[str]) -> None:
    """Raises ValueError where a patient is on both sides: every figure from there would be too good."""
    if both := len(set(some) & set(others)):
        raise ValueError(f"{both} patients are on both sides of a split")


def folds(rows: Sequence[Row], number: int = FOLDS) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Folds of the training rows, stratified by label; no patient is in two."""
    labels, patients = [row.label for row in rows], np.array([row.patient for row in rows])
    splitter = StratifiedGroupKFold(number, shuffle=True, random_state=SEED)
    made = list(splitter.split(np.zeros((len(rows), 1)), labels, patients))
    for fitted, tested in made:
        apart(patients[fitted], patients[tested])
        if len({labels[at] for at in fitted}) < len(set(labels)):
            raise Untrainable("too_few_patients", "a class has too few patients for the folds")
    return made


def _usual(training: Sequence[Row]) -> set[str]:
    """Classes of enough patients for the folds: rows of rarer ones are left out. Raises Untrainable."""
    patients: dict[str, set[str]] = defaultdict(set)
    for row in training:
        patients[row.label].add(row.patient)
    usual = {label for label, some in patients.items() if len(some) >= FEWEST_OF_CLASS}
    if len(usual) < 2 <= len(patients):
        counts = ", ".join(f"{label} {len(some)}" for label, some in sorted(patients.items()))
        raise Untrainable("too_few_patients", f"two classes want {FEWEST_OF_CLASS} patients each: there are {counts}")
    return usual or set(patients)


def _whole_patients(training: list[Row]) -> list[Row]:
    counts = Counter(row.patient for row in training)
    if counts.total() <= MOST_ROWS:
        return training
    chosen: set[str] = set()
    room = MOST_ROWS
    for patient in sorted(counts, key=lambda one: hashlib.sha256(one.encode()).digest()):
        if (room := room - counts[patient]) < 0:
            break
        chosen.add(patient)
    return [row for row in training if row.patient in chosen]


def _known(rows: Sequence[Row]) -> set[str]:
    """Names of features that at least FEWEST patients have, and of text no more than TERMS."""
    patients: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for name in row.features:
            patients[name].add(row.patient)
    enough = {name: len(some) for name, some in patients.items() if len(some) >= FEWEST}
    terms = sorted((name for name in enough if name.startswith("text=")), key=lambda name: (-enough[name], name))
    return set(enough) - set(terms[TERMS:])


# ----------------------------------------------------------------------------------------------------------------- fit


class Table(DictVectorizer):  # type: ignore[misc]
    """Rows to columns; what a row says is `missing=` and does not tell counts as usual, whoever the estimator is.

    The usual number is the mean of the training rows, the usual word the shares of all words there: so a feature that
    vanishes from a feed moves a score to what it would be on average, and no further.
    """

    @classmethod
    def of(cls, rows: Sequence[Features], known: Collection[str]) -> Table:
        made = cls(dtype=np.float32, sparse=False)
        made.fit([{name: value for name, value in row.items() if name in known} for row in rows])
        x = DictVectorizer.transform(made, rows)
        there = np.full(x.shape[1], len(rows))
        for _, columns in made._gaps(rows):
            there[columns] -= 1
        made.usual_ = (x.sum(0) / np.maximum(there, 1)).astype(np.float32)
        return made

    def transform(self, rows: Sequence[Features]) -> NDArray[Any]:
        x: NDArray[Any] = super().transform(rows)
        for at, columns in self._gaps(rows):
            x[at, columns] = self.usual_[columns]
        return x

    def _gaps(self, rows: Sequence[Features]) -> Iterator[tuple[int, list[int]]]:
        """Rows, with the columns of something that they say is missing and for which they give no stand-in."""
        columns: dict[str, list[int]] = defaultdict(list)
        for name, at in self.vocabulary_.items():
            columns[name.partition("=")[0]].append(at)
        for at, row in enumerate(rows):
            for name in row:
                if name.startswith(MISSING) and (of := name.removeprefix(MISSING)) in columns and of not in row:
                    yield at, columns[of]


@dataclass(frozen=True, slots=True)
class Ready:
    """Training rows as every algorithm takes them, with the folds of all."""

    vectoriser: Table
    x: NDArray[Any] = field(repr=False)
    y: NDArray[Any] = field(repr=False)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = field(repr=False)


def ready(rows: Sequence[Row], number: int = FOLDS) -> Ready:
    """Raises Untrainable."""
    classes(rows)
    if not (known := _known(rows)):
        raise Untrainable("too_few_patients", f"there is nothing that {FEWEST} patients have in common")
    told = [row.features for row in rows]
    vectoriser = Table.of(told, known)
    return Ready(vectoriser, vectoriser.transform(told), np.array([row.label for row in rows]), folds(rows, number))


def fit(algorithm: str, rows: Sequence[Row]) -> Candidate:
    """One algorithm on the training rows. Raises Untrainable."""
    return fitted(algorithm, ready(rows))


def fitted(algorithm: str, of: Ready, crossed: bool = True) -> Candidate:
    """An algorithm, calibrated by Platt's sigmoid on folds of patients it was not fitted on; `crossed`: with its AUC in
    each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a figure of the card shows what it is worth all the same
        scores = tuple(_fold_auc(ESTIMATORS[algorithm](), of.x, of.y, *part) for part in of.parts) if crossed else ()
        model = CalibratedClassifierCV(ESTIMATORS[algorithm](), method="sigmoid", cv=of.parts, ensemble=False)
        model.fit(of.x, of.y)
    model.cv = None  # whose row was in which fold is nobody's business once it is fitted
    return Candidate(algorithm, Pipeline([("features", of.vectoriser), ("model", model)]), scores)


def _fold_auc(
    estimator: Any, x: NDArray[Any], y: NDArray[Any], fitted: NDArray[np.int64], tested: NDArray[np.int64]
) -> float:
    model = clone(estimator).fit(x[fitted], y[fitted])
    scores = model.predict_proba(x[tested]) if hasattr(model, "predict_proba") else model.decision_function(x[tested])
    if scores.ndim == 1:
        scores = np.column_stack((-scores, scores))
    return float(_auc(scores, y[tested], model.classes_, np.ones((1, len(tested))))[0])


def majority(rows: Sequence[Row]) -> Pipeline:
    """The baseline that knows the shares of the classes and nothing else."""
    model = Pipeline([("features", DictVectorizer()), ("model", DummyClassifier(strategy="prior"))])
    return model.fit([{} for _ in rows], [row.label for row in rows])


def by_one(training: Sequence[Row], rows: Sequence[Row], feature: str) -> tuple[Floats, NDArray[np.str_]]:
    """The baseline that looks at one word alone: shares of the classes among the training rows that have the same one,
    with one row of each class added."""
    names = np.array(classes(training))
    at = {str(name): place for place, name in enumerate(names)}
    counts: dict[str, Floats] = defaultdict(lambda: np.ones(len(names)))
    for row in training:
        counts[_word_of(row, feature)][at[row.label]] += 1
    told = np.array([counts[_word_of(row, feature)] for row in rows])
    return told / told.sum(1, keepdims=True), names


def _word_of(row: Row, feature: str) -> str:
    return next((name for name in row.features if name.startswith(feature)), "")


def _scaled(estimator: Any) -> Pipeline:
    return Pipeline([("scale", StandardScaler()), ("model", estimator)])


# ------------------------------------------------------------------------------------------------------------- figures


class Judge:
    """Everything that is measured on one hold-out, by the same resamples of its patients: so differences are paired.

    Intervals are the 2.5th and 97.5th percentile over resamples of patients, all rows of a patient together: they are
    alike, and an interval by rows would be too narrow (Field and Welsh, JRSS B 69, 2007).
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self._y = np.array([row.label for row in rows])
        self._counts, self._of = _resamples([row.patient for row in rows])

    def probabilities(self, estimator: Any) -> tuple[Floats, NDArray[np.str_]]:
        return estimator.predict_proba([row.features for row in self.rows]).astype(float), estimator.classes_

    def figures(self, p: Floats, names: NDArray[np.str_], which: NDArray[np.bool_] | None = None) -> dict[str, Figure]:
        """AUC (for several classes the mean of each against the rest), average precision, log loss, Brier, accuracy."""
        of = np.ones(len(self.rows), bool) if which is None else which
        p, y, weights = p[of], self._y[of], self._weights(of)
        hot = (y[:, None] == names[None, :]).astype(float)
        brier = ((p - hot) ** 2).sum(1) / (2 if len(names) == 2 else 1)
        losses = {
            "log_loss": -np.log(np.clip((p * hot).sum(1), 1e-15, 1)),
            "brier": brier,
            "accuracy": (names[p.argmax(1)] == y).astype(float),
        }
        made = {
            METRIC: _auc(p, y, names, weights),
            "average_precision": _average_precision(p, y, names, weights),
            **{name: weights @ loss / weights.sum(1) for name, loss in losses.items()},
        }
        return {name: one for name, values in made.items() if (one := _figure(values)) is not None}

    def ranking(self, scores: Floats, which: NDArray[np.bool_]) -> dict[str, Figure]:
        """The figures of a score that is no probability, such as NEWS2, where it is known."""
        p = np.column_stack((-scores, scores))[which]
        y, weights, names = self._y[which], self._weights(which), np.array(["no", YES])
        made = {METRIC: _auc(p, y, names, weights), "average_precision": _average_precision(p, y, names, weights)}
        return {name: one for name, values in made.items() if (one := _figure(values)) is not None}

    def difference(
        self,
        one: Floats,
        other: Floats,
        names: NDArray[np.str_],
        which: NDArray[np.bool_] | None = None,
        tests: int = 1,
    ) -> Figure | None:
        """AUC of one less that of the other, on the same rows and resamples. The interval is for one of so many `tests`
        (Bonferroni)."""
        of = np.ones(len(self.rows), bool) if which is None else which
        y, weights = self._y[of], self._weights(of)
        return _figure(_auc(one[of], y, names, weights) - _auc(other[of], y, names, weights), tests)

    def calibration(self, p: Floats, names: NDArray[np.str_], bins: int = 10) -> Calibration:
        """Of the probability of `yes`; with several classes of the most probable one. Bins of equally many rows.

        Slope and intercept of the logistic recalibration (Cox, Biometrika 45, 1958), by Newton's method.
        """
        binary = len(names) == 2
        said = p[:, list(names).index(YES)] if binary and YES in names else p.max(1)
        came = (self._y == (YES if binary and YES in names else names[p.argmax(1)])).astype(float)
        order = np.argsort(said, kind="stable")
        made = [
            Bin(predicted=float(said[part].mean()), observed=float(came[part].mean()), rows=len(part))
            for part in np.array_split(order, min(bins, max(1, len(order) // SMALLEST)))
        ]
        line = _recalibrated(said, came)
        brier = self.figures(p, names)["brier"].value
        return Calibration(brier=brier, slope=line and line[0], intercept=line and line[1], bins=tuple(made))

    def subgroups(self, p: Floats, names: NDArray[np.str_]) -> dict[str, Subgroup]:
        """Sexes, bands of age and what rows name, those of at least SMALLEST patients and with two classes."""
        groups: dict[str, list[int]] = defaultdict(list)
        for at, row in enumerate(self.rows):
            for name in (*_groups(row.features), *row.groups):
                groups[name].append(at)
        made: dict[str, Subgroup] = {}
        for name, places in sorted(groups.items()):
            which = np.zeros(len(self.rows), bool)
            which[places] = True
            patients = len(set(self._of[which]))
            if patients >= SMALLEST and len(set(self._y[which])) > 1:
                figures = self.figures(p, names, which) | self._observed(p, names, which)
                made[name] = Subgroup(rows=len(places), patients=patients, figures=figures)
        return made

    def importance(self, estimator: Pipeline, p: Floats, names: NDArray[np.str_]) -> dict[str, float]:
        """By feature, how much AUC is lost where its values are dealt out anew among the rows (Breiman, Machine
        Learning 45, 2001). Of two that tell the same neither seems important."""
        x, rng = estimator[0].transform([row.features for row in self.rows]), np.random.default_rng(SEED)
        columns: dict[str, list[int]] = defaultdict(list)
        for at, name in enumerate(estimator[0].feature_names_):
            columns[name.removeprefix(MISSING).partition("=")[0]].append(at)
        once = np.ones((1, len(self.rows)))
        now, made = _auc(p, self._y, names, once)[0], {}
        for name, some in columns.items():
            if not np.ptp(x[:, some], axis=0).any():
                continue
            lost = []
            for _ in range(SHUFFLES):
                dealt = x.copy()
                dealt[:, some] = x[rng.permutation(len(x))][:, some]
                lost.append(now - _auc(estimator[1].predict_proba(dealt), self._y, names, once)[0])
            made[name] = float(np.mean(lost))
        return dict(sorted(made.items(), key=lambda one: (-round(one[1], 4), one[0])))

    def _observed(self, p: Floats, names: NDArray[np.str_], which: NDArray[np.bool_]) -> dict[str, Figure]:
        """How many had it, to how many were expected to: 1 where risks are neither too high nor too low."""
        if len(names) != 2 or YES not in names:
            return {}
        weights, said = self._weights(which), p[which, list(names).index(YES)]
        found = _figure((weights @ (self._y[which] == YES)) / (weights @ said))
        return {} if found is None else {OBSERVED: found}

    def _weights(self, which: NDArray[np.bool_]) -> Floats:
        return self._counts[:, self._of[which]].astype(float)


def mean_of(values: Floats, patients: Sequence[str]) -> Figure | None:
    """The mean over rows, with its interval over resamples of patients; None where there are no rows."""
    if not len(values):
        return None
    counts, of = _resamples(patients)
    weights = counts[:, of]
    return _figure(weights @ values / weights.sum(1))


def _resamples(patients: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often each patient is in each resample, the first being as they are; and whose each row is."""
    names, of = np.unique(patients, return_inverse=True)
    drawn = np.random.default_rng(SEED).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    return np.vstack((np.ones((1, len(names)), drawn.dtype), drawn)), of


def data(rows: Sequence[Row]) -> Data:
    counts = Counter(row.label for row in rows)
    times = [row.at for row in rows]
    patients = len({row.patient for row in rows})
    return Data(
        rows=len(rows), patients=patients, first=min(times), last=max(times), classes=dict(sorted(counts.items()))
    )


def shares(p: Floats, names: NDArray[np.str_], bins: int = 10) -> dict[str, tuple[float, ...]]:
    """By class, how probabilities spread over equal bins: what the stream's own are compared with (drift)."""
    made = {}
    for at, name in enumerate(names):
        counts, _ = np.histogram(p[:, at], bins, (0.0, 1.0))
        made[str(name)] = tuple(float(one) for one in counts / counts.sum())
    return made


def means(estimator: Pipeline, rows: Sequence[Row]) -> dict[str, float]:
    vectoriser = estimator[0]
    x = vectoriser.transform([row.features for row in rows])
    return {name: float(one) for name, one in zip(vectoriser.feature_names_, x.mean(0), strict=True)}


def missing(rows: Sequence[Row]) -> dict[str, float]:
    """The share of rows that lack a feature, for those that any row lacks."""
    counts = Counter(name.removeprefix(MISSING) for row in rows for name in row.features if name.startswith(MISSING))
    return {name: count / len(rows) for name, count in sorted(counts.items())}


def kinds(estimator: Pipeline) -> dict[str, int]:
    """How many features of each kind: text, diagnosis, number ..."""
    names = estimator[0].feature_names_
    return dict(sorted(Counter(name.partition("=")[0] if "=" in name else "number" for name in names).items()))


def _groups(features: Features) -> list[str]:
    made = [name for name in features if name.startswith(("sex=", "type="))]
    if "missing=age" not in features and isinstance(age := features.get("age"), float):
        made.append(next(f"age={name}" for below, name in _AGES if age < below))
    return made


_AGES = ((18.0, "0-17"), (65.0, "18-64"), (80.0, "65-79"), (math.inf, "80+"))


def _figure(values: Floats, tests: int = 1) -> Figure | None:
    """The first value, with the interval of the others; None where it is none."""
    if not np.isfinite(values[0]) or not np.isfinite(values[1:]).any():
        return None
    low, high = np.nanpercentile(values[1:], (2.5 / tests, 100 - 2.5 / tests))
    return Figure(value=float(values[0]), low=float(low), high=float(high))


def _auc(p: Floats, y: NDArray[Any], names: Sequence[str] | NDArray[Any], weights: Floats) -> Floats:
    """For each row of weights: the share of pairs in order, ties a half; over classes that are there and not alone."""
    return _of_classes(p, y, names, weights, _one_auc)


def _average_precision(p: Floats, y: NDArray[Any], names: Sequence[str] | NDArray[Any], weights: Floats) -> Floats:
    return _of_classes(p, y, names, weights, _one_average_precision)


def _of_classes(
    p: Floats,
    y: NDArray[Any],
    names: Sequence[str] | NDArray[Any],
    weights: Floats,
    measure: Callable[[Floats, Floats], Floats],
) -> Floats:
    order = [str(name) for name in names]
    wanted = [order.index(YES)] if len(order) == 2 and YES in order else [*range(len(order))]
    made = []
    for at in wanted:
        hot = y == order[at]
        if 0 < hot.sum() < len(hot):
            made.append(_in_groups(p[:, at], hot, weights, measure))
    if not made:
        return np.full(len(weights), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample without any of a class
        return np.asarray(np.nanmean(made, axis=0))


def _in_groups(
    scores: Floats, hot: NDArray[np.bool_], weights: Floats, measure: Callable[[Floats, Floats], Floats]
) -> Floats:
    """`measure` of the weights of hits and misses at each distinct score, rising; some resamples at a time."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)
    sorted_hot = hot[order]
    made = []
    for at in range(0, len(weights), 50):
        some = weights[at : at + 50][:, order]
        hits = np.add.reduceat(some * sorted_hot, starts, axis=1)
        made.append(measure(hits, np.add.reduceat(some * ~sorted_hot, starts, axis=1)))
    return np.concatenate(made)


def _one_auc(hits: Floats, misses: Floats) -> Floats:
    below = np.cumsum(misses, axis=1) - misses
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((hits * (below + misses / 2)).sum(1) / (hits.sum(1) * misses.sum(1)))


def _one_average_precision(hits: Floats, misses: Floats) -> Floats:
    hits, misses = hits[:, ::-1], misses[:, ::-1]
    found = np.cumsum(hits, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = found / (found + np.cumsum(misses, axis=1))
        return np.asarray(np.nansum(hits * precision, axis=1) / hits.sum(1))


def _recalibrated(said: Floats, came: Floats) -> tuple[float, float] | None:
    """Slope and intercept of log odds of what came on log odds of what was said; None where they have none."""
    odds = np.clip(said, 1e-6, 1 - 1e-6)
    x = np.column_stack((np.ones(len(odds)), np.log(odds / (1 - odds))))
    if len(set(came)) < 2 or np.ptp(x[:, 1]) < 1e-9:
        return None
    at = np.array([0.0, 1.0])
    for _ in range(50):
        now = 1 / (1 + np.exp(-np.clip(x @ at, -30, 30)))
        step = np.linalg.lstsq(x.T @ (x * (now * (1 - now))[:, None]), x.T @ (came - now), rcond=None)[0]
        at = at + step
        if np.abs(step).max() < 1e-10:
            break
    return (float(at[1]), float(at[0])) if np.isfinite(at).all() else None


# --------------------------------------------------------------------------------------------------------------- score


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model says of one event. `reasons`: the features that weighed most, and by how much probability."""

    label: str
    probabilities: dict[str, float]
    reasons: tuple[tuple[str, float], ...]


def _rank(reason: tuple[str, float]) -> tuple[float, str]:
    """The heaviest first, to the digits that are shown: those behind depend on what else was in the batch, and an event
    that is scored again has to have the same reasons in the same order."""
    name, weight = reason
    return -round(abs(weight), 3), name


def score(
    estimator: Pipeline, rows: Sequence[Features], typical: Mapping[str, float], reasons: int = 3
) -> list[Scored]:
    """Score events. `typical` are the card's feature means.

    A reason's weight is by occlusion: the probability (of `yes`, else of the class that is told) less what it would be
    without the word or code, or with the usual number. All of a batch is predicted at once. A number and its
    `missing=` are one.
    """
    if not rows:
        return []
    vectoriser, model = estimator[0], estimator[1]
    x = vectoriser.transform(rows)
    p, names = model.predict_proba(x), [str(one) for one in model.classes_]
    told = p.argmax(1)
    of = np.full(len(rows), names.index(YES)) if YES in names else told
    column, usual = vectoriser.vocabulary_, np.array([typical.get(one, 0.0) for one in vectoriser.feature_names_])
    asked = [(at, name) for at, row in enumerate(rows) for name in row if _may_weigh(name, row, column)]
    changed = x[[at for at, _ in asked]]
    for place, (_, name) in enumerate(asked):
        changed[place, column[name]] = 0.0 if "=" in name else usual[column[name]]
        if name.startswith("missing=") and (number := name.removeprefix("missing=")) in column:
            changed[place, column[number]] = usual[column[number]]
    weights: list[list[tuple[str, float]]] = [[] for _ in rows]
    if asked:
        without = model.predict_proba(changed)
        for place, (at, name) in enumerate(asked):
            weights[at].append((name, float(p[at, of[at]] - without[place, of[at]])))
    return [
        Scored(
            names[told[at]],
            {name: float(one) for name, one in zip(names, p[at], strict=True)},
            tuple(sorted((one for one in weights[at] if one[1]), key=_rank)[:reasons]),
        )
        for at in range(len(rows))
    ]


def _may_weigh(name: str, row: Features, column: Mapping[str, int]) -> bool:
    return name in column and ("=" in name or f"missing={name}" not in row)
