"""The one store of trained models, for all domains: artefact, card and signature; which version is promoted.

    models/<name>/<version>/model.skops   the estimator, in the format of skops: never a pickle
    models/<name>/<version>/card.json     {"card": {...}, "signature": "<hex>"}
    models/<name>/state.json              {"said": {...}, "signature": "<hex>"}

A card carries its own name and version and the SHA-256 of its artefact, and is signed (Ed25519, the installation's
signing key): an artefact or a card that was altered, or moved to another name or version, is refused. So is a state
that we have not signed; an old one of ours that somebody puts back cannot be told. Beyond that an artefact may hold
nothing but types of ALLOWED, looked at before any of them is made.

A version is written whole or not at all, and never changed. Names and versions hold no patient's value; a vocabulary in
an artefact holds what its trainer let in: terms of at least five patients.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, FiniteFloat, ValidationError

from infra.errors import ModelAltered, ModelOutdated, ModelTypes, NotBetter, UsageError
from infra.keyring import Keyring
from infra.settings import settings
from schemas.record import Model

ARTEFACT, CARD, STATE = "model.skops", "card.json", "state.json"
CARD_USE, STATE_USE = b"wardstream model card 1\n", b"wardstream model state 1\n"  # signed first: what is signed
BEST, GAP = "best_possible_auc", "gap_to_best_possible_auc"  # by a simulator's truth: not to be measured without it
SAME = 1e-9  # figures that differ by less are one
LIBRARIES = ("scikit-learn", "skops", "numpy")
_NAME, _VERSION = re.compile(r"[a-z][a-z0-9_-]{0,63}"), re.compile(r"[1-9][0-9]{0,8}")

# Ways by which skops makes an object, and what it may make: none of them calls a function that a file names. Nothing
# here keeps the rows it was taught, as SVC (its support vectors) and nearest neighbours do: those rows are people.
LOADERS = frozenset(
    ("DictNode", "ListNode", "TupleNode", "JsonNode", "TypeNode", "ObjectNode", "TreeNode", "NdArrayNode", "DTypeNode")
    + ("FunctionNode", "CachedNode")
)
ALLOWED = frozenset(
    (
        *("builtins.dict", "builtins.list", "builtins.tuple", "builtins.str"),
        *("numpy.ndarray", "numpy.dtype", "numpy.float64", "numpy.float32", "numpy.int64", "numpy.int32"),
        "sklearn.calibration.CalibratedClassifierCV",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.decomposition._truncated_svd.TruncatedSVD",
        "sklearn.dummy.DummyClassifier",
        "sklearn.ensemble._forest.RandomForestClassifier",
        "sklearn.feature_extraction._dict_vectorizer.DictVectorizer",
        "sklearn.feature_extraction.text.CountVectorizer",
        "sklearn.feature_extraction.text.TfidfTransformer",
        "sklearn.feature_extraction.text.TfidfVectorizer",
        "sklearn.feature_selection._univariate_selection.SelectKBest",
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._variance_threshold.VarianceThreshold",
        "sklearn.frozen._frozen.FrozenEstimator",
        "sklearn.impute._base.SimpleImputer",
        "sklearn.isotonic.IsotonicRegression",
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.naive_bayes.BernoulliNB",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.MaxAbsScaler",
        "sklearn.preprocessing._data.Normalizer",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.svm._classes.LinearSVC",
        "sklearn.tree._classes.DecisionTreeClassifier",
        "sklearn.tree._tree.Tree",
        "streams.learn.Boosted",
        "streams.learn.Table",
    )
)


class Figure(Model):
    """A measured value with its 95% interval; a figure that could not be measured is left out of the card."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


class Data(Model):
    """Rows that a model was fitted or judged on. `first` and `last`: RFC 3339, both included."""

    rows: int
    patients: int
    first: str
    last: str
    classes: dict[str, int] = Field({})


class Bin(Model):
    """Predictions that lie together: their mean, and the share of them that came true."""

    predicted: FiniteFloat
    observed: FiniteFloat
    rows: int


class Calibration(Model):
    """How far predicted probabilities can be taken at their word. Slope 1 and intercept 0 are perfect."""

    brier: FiniteFloat
    slope: FiniteFloat | None = None
    intercept: FiniteFloat | None = None
    bins: tuple[Bin, ...] = ()


class Subgroup(Model):
    rows: int
    patients: int
    figures: dict[str, Figure]


class Card(Model):
    """What there is to know of a model before it is believed; after Mitchell et al., Model Cards (FAT* 2019).

    `figures`, `baselines`, `calibration` and `subgroups` are of `holdout`. `differences` are paired on its rows, this
    model's `metric` less the other's: by baseline, and "incumbent" for the version that was promoted when it was
    trained. The last four are written by the store.
    """

    algorithm: str
    target: str
    of: str = "patients"  # what rows belong to, and no two folds share: patients, resources
    trained_at: str  # RFC 3339
    trained_by: str  # account
    data: Data
    holdout: Data | None = None
    features: dict[str, int] = Field({})  # how many of each kind
    metric: str = ""  # which of the figures decides
    figures: dict[str, Figure] = Field({})
    baselines: dict[str, dict[str, Figure]] = Field({})
    differences: dict[str, Figure] = Field({})
    calibration: Calibration | None = None
    subgroups: dict[str, Subgroup] = Field({})
    beats_baseline: bool = False
    beats_incumbent: bool | None = None  # None: there was none
    incumbent: str | None = None  # its version
    notes: tuple[str, ...] = ()
    scores: dict[str, tuple[FiniteFloat, ...]] = Field({})  # by class: shares of its probabilities, equal bins, 0 to 1
    feature_means: dict[str, FiniteFloat] = Field({})
    missing: dict[str, FiniteFloat] = Field({})  # by feature: share of the training rows that lack it
    importance: dict[str, FiniteFloat] = Field({})  # by feature: AUC that is lost without it
    name: str = ""
    version: str = ""
    sha256: str = ""
    libraries: dict[str, str] = Field({})


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure of a card, what it is on the same hold-out of today's index, and whether the two are one."""

    figure: str
    card: float | None
    now: float | None

    @property
    def same(self) -> bool:
        return self.card is not None and self.now is not None and abs(self.card - self.now) <= SAME


class Step(Model):
    """One change of which version is promoted. `version` None: none is."""

    at: str
    by: str
    did: str  # promoted, forced, rolled_back
    version: str | None


class State(Model):
    name: str
    line: tuple[str, ...] = ()  # versions promoted one after the other; the last is in force, a rollback takes it away
    history: tuple[Step, ...] = ()


class Models:
    """The store below one folder. Several processes may use it at once: who writes takes the lock of the name."""

    def __init__(self, root: Path, key: Ed25519PrivateKey) -> None:
        self._root, self._key = root, key

    @classmethod
    def local(cls) -> Models:
        """The store of this home."""
        return cls(settings().home / "models", Keyring.local().signing_key())

    def names(self) -> list[str]:
        return sorted(path.name for path in self._root.glob("*") if _NAME.fullmatch(path.name))

    def changed(self) -> tuple[tuple[str, int], ...]:
        """Something that differs once a version was added, promoted or rolled back: what changes a name's folder."""
        return tuple((name, (self._root / name).stat().st_mtime_ns) for name in self.names())

    def versions(self, name: str) -> list[str]:
        """Oldest first."""
        folder = self._folder(name)
        return sorted((path.name for path in folder.glob("*") if _VERSION.fullmatch(path.name)), key=int)

    def add(self, name: str, estimator: Any, card: Card) -> str:
        """Keep a trained model; gives its version. It is scored in shadow until it is promoted or a newer one comes.

        Raises ModelTypes for an estimator made of anything that `load` would refuse.
        """
        import skops.io  # with scikit-learn 1.5 s: here, so that no command waits for it that makes no model

        artefact = skops.io.dumps(estimator)
        _only_allowed(artefact)
        with self._alone(name) as folder:
            version = str(1 + max(map(int, (*self.versions(name), *self._state(name).line)), default=0))
            said = {
                "name": name,
                "version": version,
                "sha256": hashlib.sha256(artefact).hexdigest(),
                "libraries": {library: installed(library) for library in LIBRARIES},
            }
            made = card.model_copy(update=said).model_dump(mode="json")
            for path in folder.glob(".partial*"):  # of a process that was killed
                shutil.rmtree(path)
            partial = Path(tempfile.mkdtemp(dir=folder, prefix=".partial"))  # mode 0700
            _write(partial / ARTEFACT, artefact)
            _write(partial / CARD, _signed(self._key, CARD_USE, "card", made))
            partial.rename(folder / version)
            _sync(folder)
        return version

    def card(self, name: str, version: str) -> Card:
        """The card of an artefact that is there and unaltered. Raises ModelAltered, UsageError."""
        return self._checked(name, version)[0]

    def load(self, name: str, version: str) -> Any:
        """The estimator. Raises ModelAltered, ModelTypes, ModelOutdated, UsageError; nothing of it is made then."""
        card, artefact = self._checked(name, version)
        of = "scikit-learn"
        if _series(card.libraries[of]) != _series(installed(of)):
            raise ModelOutdated(f"{name}/{version} was trained with {of} {card.libraries[of]}: train it again")
        _only_allowed(artefact)
        import skops.io

        return skops.io.loads(artefact, trusted=sorted(ALLOWED))

    def promoted(self, name: str) -> str | None:
        """The version whose scores count."""
        return next(reversed(self._state(name).line), None)

    def shadow(self, name: str) -> str | None:
        """The version that is scored beside it, for nobody to act upon: the newest, unless it ever was promoted."""
        newest = next(reversed(self.versions(name)), None)
        return None if newest in {step.version for step in self.history(name)} else newest

    def history(self, name: str) -> tuple[Step, ...]:
        """Every promotion and rollback, oldest first."""
        return self._state(name).history

    def promote(self, name: str, version: str, by: str, force: bool = False) -> None:
        """Have a version's scores count from now on. Raises NotBetter, unless forced; ModelAltered, UsageError."""
        with self._alone(name):
            card, _ = self._checked(name, version)
            state = self._state(name)
            incumbent = next(reversed(state.line), None)
            if incumbent == version:
                return
            refusal = why_not(card, incumbent)
            if refusal and not force:
                raise NotBetter(f"{name}/{version} is not promoted: {refusal}")
            step = Step(at=_now(), by=by, did="forced" if refusal else "promoted", version=version)
            self._keep(State(name=name, line=(*state.line, version), history=(*state.history, step)))

    def rollback(self, name: str, by: str) -> str | None:
        """Go back to the version that was promoted before, or to none; gives it. Raises ModelAltered, UsageError."""
        with self._alone(name):
            state = self._state(name)
            if not state.line:
                raise UsageError(f"no version of {name} is promoted")
            before = next(reversed(state.line[:-1]), None)
            if before is not None:
                self._checked(name, before)
            step = Step(at=_now(), by=by, did="rolled_back", version=before)
            self._keep(State(name=name, line=state.line[:-1], history=(*state.history, step)))
        return before

    # ------------------------------------------------------------------------------------------------------- files

    def _folder(self, name: str, version: str | None = None) -> Path:
        """Never a path that a name leads elsewhere. Raises UsageError where there is no such model."""
        if not _NAME.fullmatch(name):
            raise UsageError("a model's name is of small letters, digits, - and _")
        folder = self._root / name
        if version is None:
            return folder
        if not _VERSION.fullmatch(version) or not (folder / version).is_dir():
            raise UsageError(f"there is no version {version} of {name}: there are {', '.join(self.versions(name))}")
        return folder / version

    def _checked(self, name: str, version: str) -> tuple[Card, bytes]:
        """Card and artefact that belong together, of bytes that were read once."""
        folder = self._folder(name, version)
        try:
            card = Card.model_validate(self._read(folder / CARD, CARD_USE, "card"))
        except ValidationError:
            raise ModelAltered(f"the card of {name}/{version} is of another version of this program") from None
        if (card.name, card.version) != (name, version):
            raise ModelAltered(f"the card of {name}/{version} belongs to another model")
        try:
            artefact = (folder / ARTEFACT).read_bytes()
        except OSError:
            raise ModelAltered(f"the artefact of {name}/{version} is not there") from None
        if hashlib.sha256(artefact).hexdigest() != card.sha256:
            raise ModelAltered(f"the artefact of {name}/{version} is not the one that was trained")
        return card, artefact

    def _state(self, name: str) -> State:
        path = self._folder(name) / STATE
        if not path.exists():
            return State(name=name)
        try:
            state = State.model_validate(self._read(path, STATE_USE, "said"))
        except ValidationError:
            raise ModelAltered(f"the state of {name} is of another version of this program") from None
        if state.name != name:
            raise ModelAltered(f"the state of {name} belongs to another model")
        return state

    def _keep(self, state: State) -> None:
        folder = self._folder(state.name)
        handle, partial = tempfile.mkstemp(dir=folder, prefix=".state")  # mode 0600
        os.close(handle)
        _write(Path(partial), _signed(self._key, STATE_USE, "said", state.model_dump(mode="json")))
        os.rename(partial, folder / STATE)
        _sync(folder)

    def _read(self, path: Path, use: bytes, name: str) -> Any:
        where = "/".join(path.relative_to(self._root).parts)
        try:
            held = orjson.loads(path.read_bytes())
            signature, said = bytes.fromhex(held["signature"]), held[name]
            self._key.public_key().verify(signature, use + orjson.dumps(said, option=orjson.OPT_SORT_KEYS))
        except (OSError, InvalidSignature, KeyError, TypeError, ValueError):
            raise ModelAltered(f"{where} is not what this installation has signed") from None
        return said

    @contextmanager
    def _alone(self, name: str) -> Iterator[Path]:
        folder = self._folder(name)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(handle)


def why_not(card: Card, incumbent: str | None) -> str | None:
    """Why a model is not to be promoted over `incumbent`, with the figures; None where it may be."""
    if not card.beats_baseline:
        said = "it does not beat its baselines"
    elif incumbent is None or (card.beats_incumbent and card.incumbent == incumbent):
        return None
    elif card.incumbent != incumbent:
        said = f"it was not compared with version {incumbent}, which is promoted now: train it again"
    else:
        said = f"it does not beat version {incumbent}"
    figures = [f"{card.metric} {_in_words(card.figures[card.metric])}"] if card.metric in card.figures else []
    figures += [f"against {other} {_in_words(figure, '+')}" for other, figure in card.differences.items()]
    return f"{said} ({', '.join(figures)})" if figures else said


def compare(card: Card, now: Card) -> list[Compared]:
    """Every figure of a card that can be measured again beside that of another measurement of the same hold-out."""
    known, found = _flat(card), _flat(now)
    return [Compared(one, known.get(one), found.get(one)) for one in known]


def _flat(card: Card) -> dict[str, float]:
    """Every figure of a card that can be measured again, under a name, with counts."""
    mine = {name: one for name, one in card.figures.items() if name not in (BEST, GAP)}  # of a truth that is elsewhere
    made = {name: one.value for name, one in mine.items()}
    made |= {f"{name}.low": one.low for name, one in mine.items()}
    made |= {f"{name}.high": one.high for name, one in mine.items()}
    made |= {f"{other} {name}": one.value for other, some in card.baselines.items() for name, one in some.items()}
    made |= {f"over {other}": one.value for other, one in card.differences.items() if other != "incumbent"}
    for group, some in card.subgroups.items():
        made |= {f"{group} {name}": one.value for name, one in some.figures.items()}
    if card.holdout:
        made |= {"holdout rows": float(card.holdout.rows), "holdout patients": float(card.holdout.patients)}
    return made


def drift(expected: Sequence[float], seen: Sequence[float]) -> float:
    """Population stability index of counts or shares in the same bins: 0 where they are alike, growing as they part.

    Sum of (s - e) ln(s / e) over the bins' shares (Siddiqi, Credit Risk Scorecards, 2006): the symmetric divergence of
    Kullback and Leibler. Rule of thumb there: below 0.1 little has changed, above 0.25 much. Few rows alone make some:
    of one population about (bins - 1) (1/n + 1/m) (Yurdakul and Naranjo, Journal of Risk Model Validation 14, 2020).
    A bin that is empty on one side counts as a share of 0.0001. Raises ValueError for bins that differ, or hold none.
    """
    total_expected, total_seen = math.fsum(expected), math.fsum(seen)
    if len(expected) != len(seen) or not total_expected > 0 or not total_seen > 0:
        raise ValueError("drift wants the same bins twice, with something in them")
    shares = [(max(e / total_expected, 1e-4), max(s / total_seen, 1e-4)) for e, s in zip(expected, seen, strict=True)]
    return math.fsum((s - e) * math.log(s / e) for e, s in shares)


def bin_of(probability: float, bins: int) -> int:
    """Which of so many equal bins from 0 to 1 a probability is in."""
    return min(int(probability * bins), bins - 1)


def rules(estimator: Any) -> str:
    """A decision tree as rules in the names of its features, one tree after another where a calibration fitted several.

    Raises UsageError for a model that is not made of single trees.
    """
    from sklearn.tree import export_text

    trees = list(_trees(estimator, ()))
    if not trees:
        raise UsageError("only a decision tree has rules to print")
    texts = [export_text(tree, feature_names=list(names), show_weights=True, max_depth=100) for tree, names in trees]
    heads = [f"tree {number} of {len(texts)}\n" if len(texts) > 1 else "" for number in range(1, len(texts) + 1)]
    return "\n".join(head + text for head, text in zip(heads, texts, strict=True))


def _trees(estimator: Any, names: Iterable[str]) -> Iterator[tuple[Any, Iterable[str]]]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.pipeline import Pipeline
    from sklearn.tree import DecisionTreeClassifier

    match estimator:
        case Pipeline():
            yield from _trees(estimator[-1], estimator[:-1].get_feature_names_out())
        case CalibratedClassifierCV():
            for one in estimator.calibrated_classifiers_:
                yield from _trees(one.estimator, names)
        case FrozenEstimator():
            yield from _trees(estimator.estimator, names)
        case DecisionTreeClassifier():
            yield estimator, names


def _only_allowed(artefact: bytes) -> None:
    """Raises ModelTypes for anything but our types, made in our ways. Reads JSON, and makes and imports nothing."""
    try:
        with zipfile.ZipFile(io.BytesIO(artefact)) as file:
            schema = json.loads(file.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, ValueError):
        raise ModelTypes("this is no file of skops") from None
    used = set(_used(schema))
    if strange := {kind for _, kind in used} - ALLOWED or {loader for loader, _ in used} - LOADERS:
        raise ModelTypes(f"a model may not hold {', '.join(sorted(strange))}")


def _used(schema: Any) -> Iterator[tuple[str, str]]:
    """Loader and type of every node of skops' tree."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            if "__class__" in node or "__loader__" in node:
                yield str(node.get("__loader__")), f"{node.get('__module__')}.{node.get('__class__')}"
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _signed(key: Ed25519PrivateKey, use: bytes, name: str, said: Mapping[str, Any]) -> bytes:
    signature = key.sign(use + orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hex()
    return orjson.dumps({name: said, "signature": signature}, option=orjson.OPT_INDENT_2)


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _series(version: str) -> list[str]:
    return version.split(".")[:2]


def _in_words(figure: Figure, sign: str = "") -> str:
    return f"{figure.value:{sign}.3f} ({figure.low:{sign}.3f} to {figure.high:{sign}.3f})"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
