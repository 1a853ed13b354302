"""The store of trained models: what was altered, moved or is of other types is never loaded; promotion is earned."""

from __future__ import annotations

import io
import json
import math
import multiprocessing
import os
import pickle
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from infra.audit import events, log_of
from infra.errors import ModelAltered, ModelOutdated, ModelTypes, NotBetter, UsageError
from infra.keyring import Keyring
from streams import models
from streams.models import Card, Data, Figure, Models, drift, rules, why_not
from tests.command import wardstream

ROOT = Path(__file__).resolve().parents[1]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ROWS = [{"age": float(20 + n), "text=fever": float(n % 2), "sex": "FM"[n % 3 == 0]} for n in range(60)]
LABELS = [int(n % 2 == 1 and n > 20) for n in range(60)]
CARD = Card(
    algorithm="decision tree",
    target="readmission",
    trained_at="2026-11-25T10:00:00+00:00",
    trained_by="anna",
    data=Data(rows=60, patients=30, first="2024-01-01", last="2025-12-31", classes={"0": 40, "1": 20}),
    metric="auc",
    figures={"auc": Figure(value=0.8, low=0.75, high=0.85)},
    baselines={"logistic": {"auc": Figure(value=0.7, low=0.65, high=0.75)}},
    differences={"logistic": Figure(value=0.1, low=0.05, high=0.15)},
    beats_baseline=True,
)


def tree() -> Any:
    return make_pipeline(DictVectorizer(), DecisionTreeClassifier(max_depth=3, random_state=1)).fit(ROWS, LABELS)


@pytest.fixture
def store(tmp_path: Path) -> Models:
    made = Models(tmp_path / "models", KEY)
    assert [made.add("readmission", tree(), CARD) for _ in range(2)] == ["1", "2"]
    assert made.add("deterioration", tree(), CARD) == "1"
    return made


def probabilities(estimator: Any) -> Any:
    return estimator.predict_proba(ROWS)


@pytest.mark.parametrize(
    "classifier",
    [
        DecisionTreeClassifier(max_depth=3),
        RandomForestClassifier(5),
        LogisticRegression(),
        DummyClassifier(),
        CalibratedClassifierCV(LinearSVC(), cv=3),
        CalibratedClassifierCV(RandomForestClassifier(5), method="isotonic", cv=3),
    ],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("classes", [2, 3])
def test_what_is_kept_predicts_the_same(tmp_path: Path, classifier: Any, classes: int) -> None:
    labels = [f"class {n % classes}" for n in range(60)]
    fitted = make_pipeline(DictVectorizer(), classifier).fit(ROWS, labels)
    store = Models(tmp_path, KEY)
    loaded = store.load("any", store.add("any", fitted, CARD))
    assert np.array_equal(probabilities(loaded), probabilities(fitted))


def test_a_vocabulary_is_kept(tmp_path: Path) -> None:
    store, texts = Models(tmp_path, KEY), ["fever and cough", "no fever"]
    loaded = store.load("terms", store.add("terms", TfidfVectorizer().fit(texts), CARD))
    assert (loaded.transform(texts) != TfidfVectorizer().fit_transform(texts)).nnz == 0


def test_the_card_comes_back_with_what_the_store_adds(store: Models) -> None:
    card = store.card("readmission", "2")
    assert (card.name, card.version, len(card.sha256)) == ("readmission", "2", 64)
    assert card.libraries.keys() == {"scikit-learn", "skops", "numpy"}
    own = {"name": "", "version": "", "sha256": "", "libraries": {}}
    assert card.model_copy(update=own) == CARD


def test_nobody_else_may_read_it(store: Models, tmp_path: Path) -> None:
    store.promote("readmission", "1", by="anna")
    for path in (tmp_path / "models").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_is_a_number(value: float) -> None:
    with pytest.raises(ValidationError):
        Figure(value=value, low=0, high=1)


@pytest.mark.parametrize("name", ["", "../readmission", "a/b", "Readmission", ".partial", "a" * 65, "no\n"])
def test_a_name_is_no_path(store: Models, name: str) -> None:
    for ask in (store.versions, store.promoted, lambda one: store.load(one, "1")):
        with pytest.raises(UsageError):
            ask(name)


@pytest.mark.parametrize("version", ["3", "0", "../1", "01", ""])
def test_a_version_that_is_not_there(store: Models, version: str) -> None:
    with pytest.raises(UsageError):
        store.load("readmission", version)


# ------------------------------------------------------------------------------------------------------------ altered


def flip(path: Path) -> None:
    """One bit in the middle."""
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


def better_figures(folder: Path) -> None:
    path = folder / "card.json"
    path.write_text(path.read_text().replace("0.8,", "0.9,"))


def moved(what: str, source: str) -> Callable[[Path], None]:
    def move(folder: Path) -> None:
        for name in ("model.skops", "card.json") if what == "both" else (what,):
            shutil.copy(folder.parent.parent / source / name, folder / name)

    return move


def signed_by_another(folder: Path) -> None:
    Models(folder.parents[2] / "elsewhere", Ed25519PrivateKey.generate()).add("readmission", tree(), CARD)
    for name in ("model.skops", "card.json"):
        shutil.copy(folder.parents[2] / "elsewhere" / "readmission" / "1" / name, folder / name)


def artefact_of_another(folder: Path) -> None:
    other = make_pipeline(DictVectorizer(), DecisionTreeClassifier(max_depth=1)).fit(ROWS, LABELS[::-1])
    version = Models(folder.parents[1], KEY).add("readmission", other, CARD)
    moved("model.skops", f"readmission/{version}")(folder)


class Planted:
    """Executes when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch planted",)


ALTERED: dict[str, Callable[[Path], Any]] = {
    "a bit of the artefact": lambda folder: flip(folder / "model.skops"),
    "a bit of the card": lambda folder: flip(folder / "card.json"),
    "a figure of the card": better_figures,
    "a pickle in its place": lambda folder: (folder / "model.skops").write_bytes(pickle.dumps(Planted())),
    "the artefact of another version": artefact_of_another,
    "the card of another version": moved("card.json", "readmission/2"),
    "all of another version": moved("both", "readmission/2"),
    "all of another model": moved("both", "deterioration/1"),
    "all of another installation": signed_by_another,
    "no artefact": lambda folder: (folder / "model.skops").unlink(),
    "no card": lambda folder: (folder / "card.json").unlink(),
    "an empty card": lambda folder: (folder / "card.json").write_bytes(b""),
    "a card of another shape": lambda folder: (folder / "card.json").write_bytes(b'[{"card": 1}]'),
    "half a card": lambda folder: os.truncate(folder / "card.json", 200),
}


@pytest.mark.parametrize("what", ALTERED)
def test_what_was_altered_is_refused(store: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.chdir(tmp_path)
    store.load("readmission", "1")
    ALTERED[what](tmp_path / "models" / "readmission" / "1")
    for refused in (store.load, store.card, lambda *which: store.promote(*which, by="anna", force=True)):
        with pytest.raises(ModelAltered) as error:
            refused("readmission", "1")
        assert (error.value.reason, error.value.exit_code) == ("model_altered", 16)
    assert store.promoted("readmission") is None
    assert not (tmp_path / "planted").exists()
    store.load("readmission", "2")


def test_a_state_that_we_have_not_signed_is_refused(store: Models, tmp_path: Path) -> None:
    store.promote("readmission", "1", by="anna")
    store.promote("deterioration", "1", by="anna")
    path = tmp_path / "models" / "readmission" / "state.json"
    good = path.read_bytes()
    for bad in (
        good.replace(b'"1"', b'"2"'),
        (tmp_path / "models" / "deterioration" / "state.json").read_bytes(),
        b"{}",
        b"",
    ):
        path.write_bytes(bad)
        for ask in (store.promoted, store.shadow, store.history, lambda name: store.rollback(name, by="anna")):
            with pytest.raises(ModelAltered):
                ask("readmission")
    path.write_bytes(good)
    assert store.promoted("readmission") == "1"


# -------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    "estimator",
    [
        FunctionTransformer(os.system),
        FunctionTransformer(np.load),
        KNeighborsClassifier().fit(np.zeros((6, 1)), [0, 1] * 3),
        SVC().fit([[0], [1]], [0, 1]),
        {"call": print},
        {"bound": Path("x").unlink},
    ],
    ids=["os.system", "numpy.load", "keeps all rows", "keeps support vectors", "a builtin", "a method"],
)
def test_nothing_else_is_kept(store: Models, estimator: Any) -> None:
    with pytest.raises(ModelTypes) as error:
        store.add("readmission", estimator, CARD)
    assert error.value.reason == "model_types"
    assert store.versions("readmission") == ["1", "2"]


def test_nothing_else_is_made_though_it_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second wall: an artefact with our signature, of what was on no list when it is loaded."""
    store = Models(tmp_path / "models", KEY)
    with monkeypatch.context() as loose:
        loose.setattr(models, "_only_allowed", lambda artefact: None)
        store.add("bad", FunctionTransformer(os.system, kw_args={"command": "touch planted"}), CARD)
        store.add("bad", make_pipeline(FunctionTransformer(), RandomForestClassifier()), CARD)
    for version in ("1", "2"):
        with pytest.raises(ModelTypes, match="FunctionTransformer"):
            store.load("bad", version)


def schema(**node: Any) -> bytes:
    """A file of skops with one node of our making."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("schema.json", json.dumps({"protocol": 2, "_skops_version": "0.16.0", **node}))
    return made.getvalue()


TREE = {"__module__": "sklearn.tree._classes", "__class__": "DecisionTreeClassifier"}
NODES = {
    "a type": {"__class__": "system", "__module__": "posix", "__loader__": "TypeNode"},
    "a loader that calls": {"__class__": "str", "__module__": "builtins", "__loader__": "ConstructorFromReduceNode"},
    "a loader that is none": {"__class__": "str", "__module__": "builtins"},
    "an operator": {"__class__": "methodcaller", "__module__": "operator", "__loader__": "OperatorFuncNode"},
    "deep inside": {
        **TREE,
        "__loader__": "ObjectNode",
        "content": [{"a": {"__class__": "call", "__module__": "subprocess", "__loader__": "FunctionNode"}}],
    },
}


@pytest.mark.parametrize("node", NODES)
def test_the_list_is_of_types_and_of_ways(node: str) -> None:
    with pytest.raises(ModelTypes):
        models._only_allowed(schema(**NODES[node]))
    models._only_allowed(schema(**TREE, __loader__="ObjectNode"))


@pytest.mark.parametrize("artefact", [b"", b"no zip", pickle.dumps(Planted()), schema()[:-30]])
def test_what_is_no_file_of_skops(artefact: bytes) -> None:
    with pytest.raises(ModelTypes):
        models._only_allowed(artefact)


def test_another_series_of_the_library_is_refused(store: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "installed", lambda library: "99.1.0")
    with pytest.raises(ModelOutdated):
        store.load("readmission", "1")
    store.card("readmission", "1")


# ---------------------------------------------------------------------------------------------------------- promotion


def test_promotion_and_rollback(store: Models) -> None:
    assert (store.promoted("readmission"), store.shadow("readmission")) == (None, "2")
    store.promote("readmission", "1", by="anna")
    assert (store.promoted("readmission"), store.shadow("readmission")) == ("1", "2")
    store.add("readmission", tree(), CARD.model_copy(update={"beats_incumbent": True, "incumbent": "1"}))
    assert store.shadow("readmission") == "3", "the newest alone"
    store.promote("readmission", "3", by="bert")
    store.promote("readmission", "3", by="bert")
    assert (store.promoted("readmission"), store.shadow("readmission")) == ("3", None)
    assert store.rollback("readmission", by="anna") == "1"
    assert (store.promoted("readmission"), store.shadow("readmission")) == ("1", None), "it was taken back for a reason"
    assert store.rollback("readmission", by="anna") is None
    assert store.promoted("readmission") is None
    with pytest.raises(UsageError):
        store.rollback("readmission", by="anna")
    assert [(one.did, one.version, one.by) for one in store.history("readmission")] == [
        ("promoted", "1", "anna"),
        ("promoted", "3", "bert"),
        ("rolled_back", "1", "anna"),
        ("rolled_back", None, "anna"),
    ]
    assert store.promoted("deterioration") is None
    assert store.names() == ["deterioration", "readmission"]


REFUSED = {
    "worse than a baseline": ({"beats_baseline": False}, None, "does not beat its baselines"),
    "not compared": ({}, "1", "not compared with version 1"),
    "compared with another": ({"beats_incumbent": True, "incumbent": "2"}, "1", "not compared with version 1"),
    "worse than the incumbent": ({"beats_incumbent": False, "incumbent": "1"}, "1", "does not beat version 1"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_who_is_not_promoted(why: str) -> None:
    said, incumbent, expected = REFUSED[why]
    refusal = why_not(CARD.model_copy(update=said), incumbent)
    assert refusal is not None
    assert expected in refusal
    assert "auc 0.800 (0.750 to 0.850), against logistic +0.100 (+0.050 to +0.150)" in refusal


def test_who_is_promoted() -> None:
    assert why_not(CARD, None) is None
    assert why_not(CARD.model_copy(update={"beats_incumbent": True, "incumbent": "1"}), "1") is None


def test_a_promotion_that_is_refused_changes_nothing_unless_forced(store: Models) -> None:
    version = store.add("readmission", tree(), CARD.model_copy(update={"beats_baseline": False}))
    with pytest.raises(NotBetter) as error:
        store.promote("readmission", version, by="anna")
    assert (error.value.reason, error.value.exit_code) == ("not_better", 17)
    assert (store.promoted("readmission"), store.history("readmission")) == (None, ())
    store.promote("readmission", version, by="anna", force=True)
    assert [step.did for step in store.history("readmission")] == ["forced"]


# ----------------------------------------------------------------------------------------------- crashes and processes


def change(root: Path) -> None:
    store = Models(root, KEY)
    version = store.add("readmission", tree(), CARD)
    store.promote("readmission", version, by="anna", force=True)
    store.rollback("readmission", by="anna")


def killed_at(root: Path, effect: int) -> None:
    """Die at the n-th effect on the disk, as by kill -9: nothing is cleaned up, and a file is written by half."""
    left = [effect]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return real(*arguments)

        return call

    def half(handle: int) -> None:
        os.ftruncate(handle, os.fstat(handle).st_size // 2) if stat.S_ISREG(os.fstat(handle).st_mode) else None

    real = os.fsync
    os.fsync = lambda handle: half(handle) or os._exit(9) if left[0] == 0 else dying(real)(handle)
    os.rename, Path.rename = dying(os.rename), dying(Path.rename)  # type: ignore[method-assign]
    change(root)


def test_a_kill_leaves_the_old_or_the_new(store: Models, tmp_path: Path) -> None:
    root = tmp_path / "models"
    store.promote("readmission", "1", by="anna")
    context, codes = multiprocessing.get_context("fork"), []
    for effect in range(20):
        before = store.versions("readmission"), store.promoted("readmission")
        process = context.Process(target=killed_at, args=(root, effect))
        process.start()
        process.join(60)
        codes.append(process.exitcode)
        versions = store.versions("readmission")
        assert versions[: len(before[0])] == before[0]
        for version in versions:
            store.load("readmission", version)
        assert store.promoted("readmission") in (before[1], versions[-1])
    assert codes[0] == 9
    assert codes[-1] == 0, "all effects were tried"
    change(root)
    assert not list(root.rglob(".partial*"))


def add_some(root: Path, count: int) -> None:
    store = Models(root, KEY)
    for _ in range(count):
        store.promote("readmission", store.add("readmission", tree(), CARD), by="anna", force=True)


def test_two_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add_some, args=(tmp_path, 6)) for _ in range(2)]
    for process in processes:
        process.start()
    store = Models(tmp_path, KEY)
    while any(process.is_alive() for process in processes):
        if (version := store.promoted("readmission")) is not None:
            store.load("readmission", version)
    assert [process.exitcode for process in processes] == [0, 0]
    assert store.versions("readmission") == [str(n) for n in range(1, 13)]
    assert sorted(step.version or "" for step in store.history("readmission")) == sorted(store.versions("readmission"))


# ---------------------------------------------------------------------------------------------------- drift and rules


def test_drift_is_the_stability_index() -> None:
    assert drift([10, 20, 70], [1, 2, 7]) == pytest.approx(0)
    # By hand: (0.3 - 0.5) ln(0.3 / 0.5) + (0.7 - 0.5) ln(0.7 / 0.5)
    assert drift([50, 50], [30, 70]) == pytest.approx(-0.2 * math.log(0.6) + 0.2 * math.log(1.4))
    assert drift([1, 3], [3, 1]) == drift([3, 1], [1, 3])
    assert 0 < drift([100, 0], [100, 1]) < math.inf
    for expected, seen in (([1], [1, 2]), ([], []), ([0, 0], [1, 1]), ([1, 1], [0, 0])):
        with pytest.raises(ValueError, match="bins"):
            drift(expected, seen)


def test_drift_of_one_population_is_what_the_source_says() -> None:
    """Expected value about (bins - 1) (1/n + 1/m): Yurdakul and Naranjo 2020."""
    chance, shares = np.random.default_rng(6), [0.1] * 10
    found = [drift(chance.multinomial(2000, shares), chance.multinomial(500, shares)) for _ in range(400)]
    assert np.mean(found) == pytest.approx(9 * (1 / 2000 + 1 / 500), rel=0.1)


def test_a_tree_is_printed_as_rules() -> None:
    printed = rules(tree())
    assert "|--- text=fever <= 0.50" in printed
    assert "|   |--- age" in printed
    assert "weights" in printed
    frozen = CalibratedClassifierCV(FrozenEstimator(tree())).fit(ROWS, LABELS)
    assert rules(frozen) == printed
    folds = CalibratedClassifierCV(DecisionTreeClassifier(max_depth=2), cv=3)
    several = rules(make_pipeline(DictVectorizer(), folds).fit(ROWS, LABELS))
    assert [line for line in several.splitlines() if line.startswith("tree")] == [f"tree {n} of 3" for n in (1, 2, 3)]
    with pytest.raises(UsageError):
        rules(make_pipeline(DictVectorizer(), RandomForestClassifier(3)).fit(ROWS, LABELS))


# -------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command on a home of its own, without servers, for anna, a data scientist; and for bert, who is none."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WARDSTREAM_")}
    word = "correct horse battery staple"

    def command(*given: str, home: Path = tmp_path, said: str = "") -> subprocess.CompletedProcess[str]:
        environment = clean | {"WARDSTREAM_HOME": str(home)}
        return wardstream(*given, environment=environment, typed=said)

    roles = ("--role", "data_scientist", "--role", "privacy_officer")
    assert command("users", "add", "anna", *roles, "--password-stdin", said=word).returncode == 0
    assert command("login", "anna", "--password-stdin", said=word).returncode == 0
    return command


def test_the_command(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    assert json.loads(run("models", "list", "--json").stdout) == []
    assert run("models", "show", "readmission").returncode == 2
    key = Keyring.open(tmp_path / "keys" / "keyring.json").signing_key()
    store = Models(tmp_path / "models", key)
    store.add("readmission", tree(), CARD)
    store.add("readmission", tree(), CARD.model_copy(update={"beats_baseline": False}))
    refused = run("models", "promote", "readmission", "2")
    assert (refused.returncode, "not_better" in refused.stderr, "0.800" in refused.stderr) == (17, True, True)
    assert json.loads(run("models", "promote", "readmission", "1", "--json").stdout)["state"] == "promoted"
    rows = json.loads(run("models", "list", "--json").stdout)
    assert [(row["version"], row["state"]) for row in rows] == [("1", "promoted"), ("2", "shadow")]
    shown = json.loads(run("models", "show", "readmission", "--json").stdout)
    assert (shown["card"]["version"], shown["history"][0]["by"]) == ("1", "anna")
    assert "0.700 (0.650 to 0.750)" in run("models", "show", "readmission").stdout
    assert "text=fever" in run("models", "show", "readmission", "--rules").stdout
    assert "readmission" in run("models", "list").stdout
    assert json.loads(run("models", "rollback", "readmission", "--json").stdout)["promoted"] is None
    better_figures(tmp_path / "models" / "readmission" / "1")
    listed = run("models", "list", "--json")
    assert listed.returncode == 16
    assert [row["state"] for row in json.loads(listed.stdout)] == ["altered", "shadow"]
    assert run("models", "train", "weather").returncode == 3, "an outcome may be told in any word: the index is asked"
    assert run("models", "train", "readmission").returncode == 3, "there is no index here"
    assert run("models", "check", "readmission", "1").returncode == 16
    assert run("models", "check", "readmission", "2").returncode == 2, "its card has no hold-out"
    assert run("models", "list", "--role", "privacy_officer").returncode == 10
    acts = [one for one in events(log_of(tmp_path)) if one["subtype"][0]["code"] == "model"]
    assert {one["agent"][0]["role"][0]["text"] for one in acts if one["outcome"] == "0"} == {"data_scientist"}
    assert [one["entity"][0]["what"]["identifier"]["value"] for one in acts if one["action"] == "U"] == [
        "readmission/2",
        "readmission/1",
        "readmission",
    ]
    assert acts[-1]["outcome"] == "4"
