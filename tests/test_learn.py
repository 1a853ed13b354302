"""Training that can be believed: splits without leaks, figures as scikit-learn has them, honest cards."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from consumers import models
from infra.errors import NotBetter, Untrainable, UsageError
from producers.simulate.cohort import Cohort, Story
from schemas.document import documents
from schemas.envelope import rfc3339
from schemas.peers import Peer
from schemas.wire.hl7v2 import Message
from streams import learn
from streams.ehr import hl7v2, targets
from streams.ehr.features import TARGETS
from streams.ehr.targets import Happened
from streams.learn import Judge
from streams.models import Models, rules
from streams.rows import Features, Row

START = datetime(2026, 1, 1, tzinfo=UTC)


def rows(count: int = 1600, seed: int = 1, *, crossed: bool = False, noise: bool = False) -> list[Row]:
    """A made-up world of two signs: both raise the risk; crossed, either alone does; or nothing tells anything."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        left, right = rng.random() < 0.5, rng.random() < 0.5
        logit = (2.4 * (left != right) if crossed else 1.2 * left + 1.2 * right) - 1.2
        chance = 0.4 if noise else 1 / (1 + math.exp(-logit))
        said: Features = {
            **({"sign=left": 1.0} if left else {}),
            **({"sign=right": 1.0} if right else {}),
            "age": float(rng.randint(20, 90)),
            f"sex={rng.choice('FM')}": 1.0,
        }
        label = "yes" if rng.random() < chance else "no"
        at = rfc3339(START + timedelta(hours=rng.randint(0, 8000)))
        made.append(Row(said, label, f"patient {number // 2}", at, (f"c{number}",)))
    return made


def store(path: Path) -> Models:
    return Models(path, Ed25519PrivateKey.generate())


# -------------------------------------------------------------------------------------------------------------- splits


def test_the_hold_out_is_later_and_of_other_patients() -> None:
    made = learn.split(rows())
    assert max(row.at for row in made.training) < min(row.at for row in made.holdout)
    assert not {row.patient for row in made.training} & {row.patient for row in made.holdout}
    assert all(learn.kept_back(row.patient) for row in made.holdout)


def test_one_wrong_clock_does_not_decide_the_split() -> None:
    wrong = Row({"age": 50.0}, "no", "patient 1", "1970-01-01T00:00:00.000Z")
    usual, with_it = learn.split(rows()), learn.split([*rows(), wrong])
    assert abs(len(with_it.holdout) - len(usual.holdout)) <= 2


def test_the_same_split_by_the_times_of_the_card() -> None:
    made, some = learn.split(rows()), rows()
    random.Random(2).shuffle(some)
    fitted, judged = learn.data(made.training), learn.data(made.holdout)
    assert learn.window(some, (fitted.first, fitted.last), (judged.first, judged.last)) == made


def test_no_patient_is_in_two_folds() -> None:
    training = learn.split(rows()).training
    tested: dict[str, set[int]] = defaultdict(set)
    for number, (_, places) in enumerate(learn.folds(training)):
        for at in places:
            tested[training[at].patient].add(number)
    assert {len(some) for some in tested.values()} == {1}


def test_a_patient_on_both_sides_trips_the_check() -> None:
    learn.apart(["a", "b"], ["c"])
    with pytest.raises(ValueError, match="1 patients are on both sides"):
        learn.apart(["a", "b"], ["b", "c"])


def test_folds_that_leak_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A splitter that knows of no patients, as the commonest mistake has it."""
    from sklearn.model_selection import StratifiedKFold

    monkeypatch.setattr(learn, "StratifiedGroupKFold", StratifiedKFold)
    with pytest.raises(ValueError, match="on both sides"):
        learn.folds(learn.split(rows()).training)


@pytest.mark.parametrize("label", ["yes", "no"])
def test_one_class(label: str, tmp_path: Path) -> None:
    some = [Row(row.features, label, row.patient, row.at) for row in rows(200)]
    with pytest.raises(Untrainable, match="one_class") as caught:
        models.train_rows(store(tmp_path), "me", "readmission", some, learn.ALGORITHMS, {})
    assert caught.value.reason == "one_class"
    assert Models(tmp_path, Ed25519PrivateKey.generate()).names() == []


def test_one_class_in_the_hold_out_alone() -> None:
    made = learn.split(rows())
    since = made.holdout[0].at
    some = [Row(row.features, "no" if row.at >= since else row.label, row.patient, row.at) for row in rows()]
    with pytest.raises(Untrainable, match="one_class"):
        learn.split(some)


def test_no_rows_at_all() -> None:
    with pytest.raises(Untrainable, match="no rows"):
        learn.split([])


def test_too_few_patients_for_folds() -> None:
    some = [Row({"age": 1.0}, "yes" if number < 1 else "no", f"p{number}", "") for number in range(60)]
    with pytest.raises(Untrainable, match="too_few_patients"):
        learn.fit("decision_tree", some)
    with pytest.raises(Untrainable, match="nothing that 5 patients have"):
        learn.fit("decision_tree", [*some[:2], *some[-2:]])


def test_classes_of_few_patients_are_left_out_and_of_one_other_too_few() -> None:
    some = rows()
    third = [Row(row.features, "maybe", f"few{n % 9}", row.at) for n, row in enumerate(some[:300])]
    assert {row.label for row in learn.split([*some, *third]).training} == {"no", "yes"}
    same = [Row(row.features, "no", row.patient, row.at) for row in some]
    with pytest.raises(Untrainable, match="too_few_patients: two classes want 10 patients each"):
        learn.split([*same, *third])


def test_what_fewer_than_five_patients_have_is_in_no_model() -> None:
    some = rows(800)
    rare = [Row({**row.features, "text=porphyria": 1.0}, row.label, "same", row.at) for row in some[:40]]
    four = [Row({**row.features, "text=kuru": 1.0}, row.label, f"p{n}", row.at) for n, row in enumerate(some[40:44])]
    five = [Row({**row.features, "text=gout": 1.0}, row.label, f"p{n}", row.at) for n, row in enumerate(some[44:49])]
    for algorithm in learn.ALGORITHMS:
        names = learn.fit(algorithm, [*rare, *four, *five, *some[49:]]).estimator[0].feature_names_
        assert [name for name in names if name.startswith("text=")] == ["text=gout"]


# ------------------------------------------------------------------------------------------------------------- figures


def test_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    some = [Row({}, str(rng.choice(["no", "yes"])), f"p{n // 3}", "") for n in range(300)]
    one = np.clip(np.round(rng.random(300), 1), 0.05, 0.95)  # with ties
    p, y = np.column_stack((1 - one, one)), np.array([row.label == "yes" for row in some])
    made = Judge(some).figures(p, np.array(["no", "yes"]))
    assert made["auc"].value == pytest.approx(roc_auc_score(y, one))
    assert made["average_precision"].value == pytest.approx(average_precision_score(y, one))
    assert made["brier"].value == pytest.approx(brier_score_loss(y, one))
    assert made["log_loss"].value == pytest.approx(log_loss(y, one))
    assert made["accuracy"].value == pytest.approx(np.mean((one > 0.5) == y))


def test_figures_of_several_classes_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    names = np.array(["CARD", "MED", "SUR"])
    some = [Row({}, str(rng.choice(names)), f"p{n // 3}", "") for n in range(300)]
    p = rng.dirichlet((1, 1, 1), 300)
    y = np.array([row.label for row in some])
    made = Judge(some).figures(p, names)
    assert made["auc"].value == pytest.approx(roc_auc_score(y, p, multi_class="ovr", average="macro", labels=names))
    assert made["log_loss"].value == pytest.approx(log_loss(y, p, labels=names))


def test_intervals_are_by_patient() -> None:
    """Thirty rows of each of forty patients tell no more than one row of each: the interval must not shrink."""
    rng = np.random.default_rng(0)
    one = rng.random(40)
    labels = ["yes" if rng.random() < p else "no" for p in one]
    once = [Row({}, label, f"p{n}", "") for n, label in enumerate(labels)]
    often = [row for row in once for _ in range(30)]
    names = np.array(["no", "yes"])
    few = Judge(once).figures(np.column_stack((1 - one, one)), names)["auc"]
    many = np.repeat(one, 30)
    more = Judge(often).figures(np.column_stack((1 - many, many)), names)["auc"]
    assert (more.value, more.low, more.high) == pytest.approx((few.value, few.low, few.high))


def test_an_interval_holds_what_is_true() -> None:
    """Of 60 samples of a score whose AUC is known, the interval of 95% misses a few, and no more."""
    true, missed = 0.760, 0  # two normals a standard deviation apart: Phi(1 / sqrt 2)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        y = rng.random(200) < 0.5
        scores = rng.normal(y.astype(float))
        some = [Row({}, "yes" if one else "no", f"p{n}", "") for n, one in enumerate(y)]
        found = Judge(some).ranking(scores, np.ones(200, bool))["auc"]
        missed += not found.low <= true <= found.high
    assert missed <= 8


@pytest.mark.parametrize("algorithm", learn.ALGORITHMS)
def test_probabilities_are_calibrated(algorithm: str) -> None:
    made = learn.split(rows(6000))
    judge = Judge(made.holdout)
    found = judge.calibration(*judge.probabilities(learn.fit(algorithm, made.training).estimator))
    assert found.slope == pytest.approx(1, abs=0.25)
    assert found.intercept == pytest.approx(0, abs=0.2)
    assert sum(one.rows for one in found.bins) == len(made.holdout)


def test_who_says_too_much_is_told_by_the_slope() -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 1.5, 4000)
    came = rng.random(4000) < 1 / (1 + np.exp(-odds))
    some = [Row({}, "yes" if one else "no", f"p{n}", "") for n, one in enumerate(came)]
    loud = 1 / (1 + np.exp(-2 * odds))
    found = Judge(some).calibration(np.column_stack((1 - loud, loud)), np.array(["no", "yes"]))
    assert found.slope == pytest.approx(0.5, abs=0.06)


def test_subgroups_of_few_are_not_shown() -> None:
    some = rows(1200)
    few = [
        Row({**row.features, "sex=O": 1.0, "age": 95.0}, row.label, f"few{n % 10}", row.at)
        for n, row in enumerate(some)
    ]
    judge = Judge([*some, *few[:40]])
    p, names = np.full((1240, 2), 0.5), np.array(["no", "yes"])
    assert set(judge.subgroups(p, names)) == {"age=18-64", "age=65-79", "age=80+", "sex=F", "sex=M"}
    assert set(Judge(some[:15]).subgroups(p[:15], names)) <= {"age=18-64"}


# -------------------------------------------------------------------------------------------------------------- models


def test_a_model_that_does_not_beat_its_baseline_says_so_and_is_not_promoted(tmp_path: Path) -> None:
    kept = store(tmp_path)
    cards = models.train_rows(kept, "me", "readmission", rows(3000, 3, noise=True), learn.ALGORITHMS, {})
    assert len(cards) == 4
    for card in cards:
        assert not card.beats_baseline
        assert any(note.startswith("does not beat its baselines: majority") for note in card.notes)
        with pytest.raises(NotBetter, match="against majority"):
            kept.promote(card.name, card.version, "me")
    assert kept.promoted("ehr-readmission") is None


def test_where_signs_add_up_nothing_beats_logistic_regression(tmp_path: Path) -> None:
    cards = {
        card.algorithm: card
        for card in models.train_rows(store(tmp_path), "me", "readmission", rows(3000), learn.ALGORITHMS, {})
    }
    assert {name for name, card in cards.items() if card.beats_baseline} == {"logistic_regression"}
    assert set(cards["logistic_regression"].baselines) == {"majority"}
    assert set(cards["decision_tree"].baselines) == {"majority", "logistic_regression"}


def test_where_signs_cross_trees_do(tmp_path: Path) -> None:
    kept = store(tmp_path)
    cards = models.train_rows(kept, "me", "readmission", rows(3000, crossed=True), learn.ALGORITHMS, {})
    better = {card.algorithm: card for card in cards if card.beats_baseline}
    assert set(better) == {"decision_tree", "random_forest"}
    assert cards[-1].algorithm in better  # the best by cross-validation comes last, and is the shadow
    assert kept.shadow("ehr-readmission") == cards[-1].version
    kept.promote("ehr-readmission", cards[-1].version, "me")
    printed = rules(kept.load("ehr-readmission", better["decision_tree"].version))
    assert "sign=left <= 0.50" in printed
    assert "sign=right <= 0.50" in printed
    again = models.train_rows(kept, "me", "readmission", rows(3000, crossed=True), ["random_forest"], {})
    assert (again[0].incumbent, again[0].beats_incumbent) == (cards[-1].version, False)
    assert "incumbent" in again[0].differences


def test_the_same_rows_give_the_same_card_and_check_says_so(tmp_path: Path) -> None:
    kept, some = store(tmp_path), rows()
    (card,) = models.train_rows(kept, "me", "readmission", some, ["decision_tree"], {})
    estimator = kept.load(card.name, card.version)
    found = models.check_rows(card, estimator, some[::-1])
    assert len(found) > 30
    assert all(one.same for one in found)
    gone = next(row.patient for row in learn.split(some).holdout)
    changed = models.check_rows(card, estimator, [row for row in some if row.patient != gone])
    assert {"holdout patients", "auc"} <= {one.figure for one in changed if not one.same}


def test_check_finds_a_card_that_says_too_much(tmp_path: Path) -> None:
    kept, some = store(tmp_path), rows()
    (card,) = models.train_rows(kept, "me", "readmission", some, ["decision_tree"], {})
    better = card.figures["auc"].model_copy(update={"value": 0.99})
    boasting = card.model_copy(update={"figures": card.figures | {"auc": better}})
    found = models.check_rows(boasting, kept.load(card.name, card.version), some)
    assert [one.figure for one in found if not one.same] == ["auc"]


def test_the_gap_to_the_best_possible(tmp_path: Path) -> None:
    some = rows(3000)
    truth = {}
    for row in some:
        chance = 1 / (1 + math.exp(1.2 - 1.2 * ("sign=left" in row.features) - 1.2 * ("sign=right" in row.features)))
        truth[row.blind[0]] = {"yes": chance, "no": 1 - chance}
    (card,) = models.train_rows(store(tmp_path), "me", "readmission", some, ["decision_tree"], truth)
    best, gap = card.figures["best_possible_auc"], card.figures["gap_to_best_possible_auc"]
    assert best.value - card.figures["auc"].value == pytest.approx(gap.value)
    assert 0 <= gap.value < 0.05


def test_news2_is_a_baseline_of_deterioration(tmp_path: Path) -> None:
    some = []
    rng = random.Random(4)
    for row in rows(2000, noise=True):
        score = float(rng.randint(0, 12))
        known = {"news2": score} if rng.random() < 0.8 else {"news2": 0.0, "missing=news2": 1.0}
        label = "yes" if rng.random() < score / 14 else "no"
        some.append(Row({**row.features, **known}, label, row.patient, row.at))
    (card,) = models.train_rows(store(tmp_path), "me", "deterioration", some, ["decision_tree"], {})
    assert set(card.baselines) == {"majority", "logistic_regression", "news2"}
    assert set(card.baselines["news2"]) == {"auc", "average_precision"}
    assert card.baselines["news2"]["auc"].value > 0.75
    known_rows = sum("missing=news2" not in row.features for row in learn.split(some).holdout)
    assert any(f"on the {known_rows} rows" in note for note in card.notes)


def test_no_such_algorithm_or_target() -> None:
    with pytest.raises(UsageError, match="no algorithm 'oracle'"):
        models._known(["oracle"])
    with pytest.raises(UsageError, match="no target 'luck'"):
        models._outcomes("luck", [], "2026-01-01T00:00:00.000Z")


# --------------------------------------------------------------------------------------------------------------- score


def test_scores_are_the_models_own_and_say_what_weighed() -> None:
    made = learn.split(rows(3000, crossed=True))
    estimator = learn.fit("random_forest", made.training).estimator
    typical = learn.means(estimator, made.training)
    said: list[Features] = [
        {"sign=left": 1.0, "age": 50.0, "sex=F": 1.0},
        {"age": 50.0, "sex=F": 1.0, "text=never-seen": 1.0},
    ]
    first, second = learn.score(estimator, said, typical)
    assert first.probabilities["yes"] == pytest.approx(estimator.predict_proba(said)[0][1])
    assert (first.label, second.label) == ("yes", "no")
    assert first.reasons[0][0] == "sign=left"
    without = estimator.predict_proba([{"age": 50.0, "sex=F": 1.0}])[0][1]
    assert first.reasons[0][1] == pytest.approx(first.probabilities["yes"] - without)
    assert len(first.reasons) <= 3
    assert "text=never-seen" not in dict(second.reasons)


def test_a_number_that_nobody_measured_is_no_reason_but_its_lack_may_be() -> None:
    some = [
        Row({**row.features, "age": 60.0, "missing=age": 1.0} if row.label == "yes" else row.features, *_rest(row))
        for row in rows(1600, noise=True)
    ]
    training = learn.split(some).training
    estimator = learn.fit("decision_tree", training).estimator
    (one,) = learn.score(estimator, [{"age": 60.0, "missing=age": 1.0}], learn.means(estimator, training))
    assert [name for name, _ in one.reasons] == ["missing=age"]


def _rest(row: Row) -> tuple[str, str, str]:
    return row.label, row.patient, row.at


def test_nothing_to_score() -> None:
    estimator = learn.fit("decision_tree", learn.split(rows()).training).estimator
    assert learn.score(estimator, [], {}) == []
    (one,) = learn.score(estimator, [{}], {})
    assert one.reasons == ()
    assert sum(one.probabilities.values()) == pytest.approx(1)


def test_scores_survive_the_store(tmp_path: Path) -> None:
    kept, some = store(tmp_path), rows()
    for card in models.train_rows(kept, "me", "readmission", some, learn.ALGORITHMS, {}):
        estimator = kept.load(card.name, card.version)
        scored = learn.score(estimator, [row.features for row in some[:50]], card.feature_means)
        expected = estimator.predict_proba([row.features for row in some[:50]])
        assert np.allclose([one.probabilities["yes"] for one in scored], expected[:, 1])


# ----------------------------------------------------------------------------------------------------------- simulator


@pytest.fixture(scope="module")
def told() -> tuple[Story, dict[str, list[Happened]]]:
    """A cohort, read by the stages of the stream. The control id stands in for its keyed hash."""
    story = Cohort(11, 220, datetime(2026, 3, 1, tzinfo=UTC)).tell()
    people: dict[str, list[Happened]] = defaultdict(list)
    peer = Peer.model_validate({})
    for number, message in enumerate(story.messages):
        record = hl7v2.read(Message.read(message.body), peer, message.at)
        made = documents(record)
        assert record.event_time is not None
        controls = tuple(value for one in made for name, value in one.blind if name == "control_id")
        clear = [{"kind": one.kind, **one.clear} for one in made]
        people[message.patient].append(Happened(f"e{number:06}", rfc3339(record.event_time), clear, controls))
    return story, people


@pytest.mark.parametrize("target", TARGETS)
def test_labels_are_what_the_generator_drew(target: str, told: tuple[Story, dict[str, list[Happened]]]) -> None:
    """Also deaths: they come at the end of a stay in intensive care."""
    story, people = told
    until = max(one.at for some in people.values() for one in some)
    found = {row.blind[0]: row.label for p, some in people.items() for row in targets.rows(target, p, some, until)}
    drawn = {one.control_id: one.outcome for one in story.truths if one.target == target and one.outcome is not None}
    said = {name: {True: "yes", False: "no"}.get(outcome, outcome) for name, outcome in drawn.items()}
    both = found.keys() & said.keys()
    assert len(both) > 0.9 * len(said)
    assert sum(found[one] != said[one] for one in both) <= 0.001 * len(both)


def test_deterioration_of_a_cohort(told: tuple[Story, dict[str, list[Happened]]], tmp_path: Path) -> None:
    story, people = told
    until = max(one.at for some in people.values() for one in some)
    some = [row for p, events in people.items() for row in targets.rows("deterioration", p, events, until)]
    truth = {
        one.control_id: {"yes": one.probability, "no": 1 - one.probability}
        for one in story.truths
        if one.target == "deterioration" and isinstance(one.probability, float)
    }
    (card,) = models.train_rows(store(tmp_path), "me", "deterioration", some, ["logistic_regression"], truth)
    assert card.baselines["news2"]["auc"].value > 0.6
    assert card.figures["auc"].value > 0.6
    assert card.figures["gap_to_best_possible_auc"].value > -0.05
    assert card.holdout is not None
    assert card.holdout.first > card.data.last
