"""What equipment will be in an hour: features that see no future, labels that are whole, models beside baselines."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sklearn.naive_bayes import BernoulliNB

from consumers import models
from infra.errors import NotBetter, Untrainable
from schemas.ehr import Score
from schemas.envelope import rfc3339
from schemas.record import Record
from schemas.registry import DOMAINS
from schemas.wire import operations as events
from streams import fold, learn
from streams.allocation import features as of
from streams.allocation import targets
from streams.ehr.targets import Happened
from streams.fold import HELD
from streams.models import Card, Models, rules
from streams.process import WHERE
from streams.rows import Row
from streams.stages import STAGES
from tests.wards import START, machines


def at(hours: float) -> str:
    return rfc3339(START + timedelta(hours=hours))


def told(status: str, hours: float, **more: Any) -> Happened:
    said = {"kind": "resource_event", "site": "GH", "action": "set", "resource_type": "equipment", "resource_id": "M1"}
    return Happened(f"e{hours}", at(hours), [said | {"resource_status": status, "unit": "A"} | more])


def features_of(events: list[Happened], place: int) -> of.Features:
    history: dict[str, Any] = {}
    for one in events[:place]:
        of.remember(history, one.documents, one.at)
    found = of.features(of.STATUS, events[place].documents, history, events[place].at)
    assert found is not None
    return found


# ------------------------------------------------------------------------------------------------------------- features


def test_features_of_an_event() -> None:
    found = features_of([told("in-use", 26.5, price=20.0, features=["monitor"], position_x=3)], 0)
    assert found == {
        "type=equipment": 1.0,
        "now=in-use": 1.0,
        "now_of=equipment|in-use": 1.0,
        "now_of=monitor|in-use": 1.0,
        "hour=2": 1.0,
        "weekday=tue": 1.0,
        "unit=A": 1.0,
        "feature=monitor": 1.0,
        "price": 20.0,
        "position_x": 3.0,
        "position_y": 0.0,
        "missing=position_y": 1.0,
        "missing=before": 1.0,
        "used": 0.0,
        "changes": 0.0,
        "hours_before": 0.0,
    }


def test_what_a_thing_is_called_is_no_feature() -> None:
    assert not [name for name in features_of([told("in-use", 1)], 0) if "M1" in name or "GH" in name]


def test_use_of_the_last_day_by_hand() -> None:
    """In use from 2 to 8 and from 20 to 26; asked at 30: of the last 24 hours (from 6 on) it was used 2 + 6."""
    times = (("available", 0), ("in-use", 2), ("available", 8), ("in-use", 20), ("available", 26), ("in-use", 30))
    found = features_of([told(status, hours) for status, hours in times], 5)
    assert found["used"] == pytest.approx(8 / 24)
    assert found["changes"] == 3.0  # at 8, 20 and 26; what the event itself tells is no change yet
    assert found["before=available"] == 1.0
    assert found["hours_before"] == pytest.approx(4.0)


def test_it_does_not_matter_whether_history_was_folded_before_or_after() -> None:
    events = [told(random.Random(n).choice(("in-use", "available")), n * 1.7) for n in range(40)]
    history: dict[str, Any] = {}
    for one in events:
        of.remember(history, one.documents, one.at)
    for place, one in enumerate(events):
        assert of.features(of.STATUS, one.documents, history, one.at) == features_of(events, place)


def test_a_bed_is_a_thing_and_a_ward_is_none() -> None:
    bed = {"kind": "location_event", "site": "GH", "unit": "A", "room": "1", "bed": "2", "bed_status": "H"}
    found = of.features(of.STATUS, [bed], {}, at(0))
    assert found is not None
    assert found["type=bed"] == found["now=H"] == 1.0
    assert of.thing(bed) == "bed|GH|A|1|2"
    assert of.features(of.STATUS, [bed | {"bed": ""}], {}, at(0)) is None
    assert of.features(of.STATUS, [{"kind": "price_event"}], {}, at(0)) is None
    assert of.features(of.STATUS, [bed | {"bed_status": ""}], {}, at(0)) is None
    assert of.features(of.STATUS, [bed | {"action": "delete"}], {}, at(0)) is None


def test_the_stage_gives_the_history_that_training_has() -> None:
    """From events as they come over the wire, folded as a worker does."""
    stage = STAGES["allocation"]
    told_of = [
        told(status, hours) for status, hours in (("available", 0), ("in-use", 2), ("available", 3), ("in-use", 9))
    ]
    entity: dict[str, Any] | None = None
    for number, one in enumerate(told_of):
        wire = {name: value for name, value in one.documents[0].items() if name not in ("kind", "resource_id")}
        event = events.read(wire | {"type": "resource", "id": "M1", "at": one.at}, "operations")
        record = Record(subjects=(), parts=(event.part,), event_time=event.at)
        made = stage.document(record)
        (change,) = stage.analyse(record, made, one.at)
        entity = fold.fold(entity, change, fold.position(one.at, one.event_id), {}, lambda name, value: value)
        said = [{"kind": document.kind, **document.clear} for document in made]
        assert stage.features(of.STATUS, said, entity[fold.HISTORY], one.at) == features_of(told_of, number)


def test_a_score_has_a_place_in_the_index() -> None:
    properties = DOMAINS["allocation"].mapping()["properties"]
    assert set(Score.marks) <= set(properties)
    assert set(WHERE) - {"facility", "patient_class"} <= set(properties)


def test_a_target_that_is_none() -> None:
    with pytest.raises(ValueError, match="no target"):
        of.features("price", [], {}, at(0))


# --------------------------------------------------------------------------------------------------------------- labels


def test_the_label_is_what_is_in_force_an_hour_later() -> None:
    events = [told("available", 0), told("in-use", 0.5), told("available", 1.2), told("in-use", 9)]
    made = targets.rows("M1", events, at(24))
    assert [row.label for row in made] == ["in-use", "available", "available", "in-use"]
    assert {row.patient for row in made} == {"M1"}
    assert [row.label for row in targets.rows("M1", reversed(events), at(24))] == [row.label for row in made]


def test_no_label_before_its_hour_has_passed() -> None:
    events = [told("available", 0), told("in-use", 9)]
    assert len(targets.rows("M1", events, at(9.9))) == 1
    assert len(targets.rows("M1", events, at(10))) == 2


def test_what_is_no_longer_there_has_no_label() -> None:
    events = [told("available", 0), told("", 0.5, action="delete"), told("available", 20)]
    assert [row.at for row in targets.rows("M1", events, at(40))] == [at(20)]


def test_training_remembers_no_more_than_the_fold() -> None:
    events = [told(("in-use", "available")[n % 2], n / 100) for n in range(HELD + 300)]
    last = targets.rows("M1", events, at(HELD))[-1]
    history = {of.STATUSES: {one.at: one.documents[0]["resource_status"] for one in events[-HELD - 1 : -1]}}
    assert last.features == of.features(of.STATUS, events[-1].documents, history, events[-1].at)


# --------------------------------------------------------------------------------------------------------------- models


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row for name, some in machines(40) for row in targets.rows(name, some, at(40 * 24))]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"), Ed25519PrivateKey.generate())


@pytest.fixture(scope="module")
def cards(rows: list[Row], store: Models) -> dict[str, Card]:
    made = models.train_rows(store, "me", "status", rows, models.algorithms_for("status"), {})
    return {card.algorithm: card for card in made}


def test_all_three_beat_the_majority_and_are_calibrated(cards: dict[str, Card]) -> None:
    assert set(cards) == {"logistic_regression", "decision_tree", "naive_bayes"}
    for card in cards.values():
        assert card.of == "resources"
        assert card.differences["majority"].low > 0.2
        assert card.figures["log_loss"].value < card.baselines["majority"]["log_loss"].value
        assert card.calibration is not None
        off = sum(one.rows * abs(one.predicted - one.observed) for one in card.calibration.bins)
        assert off / sum(one.rows for one in card.calibration.bins) < 0.07
        assert {"last_status", "majority"} <= set(card.baselines)


def test_the_best_knows_more_than_the_last_status(cards: dict[str, Card], store: Models) -> None:
    """That a ventilator stays in use longer than a pump, and that nights are long."""
    best = list(cards.values())[-1]  # by cross-validation, as they are added
    assert best.differences["last_status"].low > 0
    assert best.beats_baseline
    store.promote(best.name, best.version, "me")
    assert store.promoted("allocation-status") == best.version


def test_one_that_beats_not_all_is_not_promoted(rows: list[Row], tmp_path: Path) -> None:
    """Labels that the last status alone decides: nothing else can be learned."""
    rng = random.Random(6)
    shares = {True: (3, 1), False: (1, 3)}
    flat = [
        Row(
            row.features,
            rng.choices(("available", "in-use"), shares["now=in-use" in row.features])[0],
            row.patient,
            row.at,
        )
        for row in rows[::4]
    ]
    here = Models(tmp_path, Ed25519PrivateKey.generate())
    for card in models.train_rows(here, "me", "status", flat, ("decision_tree",), {}):
        assert card.differences["last_status"].low <= 0
        with pytest.raises(NotBetter, match="does not beat its baselines"):
            here.promote(card.name, card.version, "me")


def test_no_thing_is_on_both_sides(rows: list[Row]) -> None:
    split = learn.split(rows)
    assert not {row.patient for row in split.training} & {row.patient for row in split.holdout}


def test_every_figure_is_measured_again(cards: dict[str, Card], rows: list[Row], store: Models) -> None:
    card = cards["naive_bayes"]  # it has every baseline beside it
    found = models.check_rows(card, store.load(card.name, card.version), rows)
    assert len(found) > 20
    assert [one for one in found if not one.same] == []


def test_naive_bayes_is_scikit_learns_on_signs(rows: list[Row]) -> None:
    """The estimator itself, before its calibration: a sign is a word that holds, or a number above its mean."""
    x = np.array([[1.0, 5.0], [1.0, 1.0], [0.0, 4.0], [0.0, 0.0]] * 10)
    y = np.array(["a", "a", "b", "b"] * 10)
    ours = learn.ESTIMATORS["naive_bayes"]().fit(x, y)
    theirs = BernoulliNB().fit(x > x.mean(0), y)
    assert ours.predict_proba(x) == pytest.approx(theirs.predict_proba(x > x.mean(0)))


def test_no_estimator_keeps_rows(cards: dict[str, Card], rows: list[Row], store: Models) -> None:
    count = cards["naive_bayes"].data.rows
    for card in cards.values():
        inner = store.load(card.name, card.version)[1].calibrated_classifiers_[0].estimator
        for part in [step for _, step in inner.steps] if hasattr(inner, "steps") else [inner]:
            arrays = [value for value in vars(part).values() if isinstance(value, np.ndarray)]
            assert all(count not in array.shape for array in arrays)


def test_a_tree_of_things_prints_its_rules(cards: dict[str, Card], store: Models) -> None:
    card = cards["decision_tree"]
    assert "now=" in rules(store.load(card.name, card.version))


def test_scores_with_reasons(cards: dict[str, Card], rows: list[Row], store: Models) -> None:
    card = cards["logistic_regression"]
    scored = learn.score(store.load(card.name, card.version), [row.features for row in rows[:50]], card.feature_means)
    for one in scored:
        assert sum(one.probabilities.values()) == pytest.approx(1.0)
        assert one.reasons


def test_subgroups_by_kind(cards: dict[str, Card]) -> None:
    assert "type=equipment" in cards["naive_bayes"].subgroups


def test_one_class_and_no_history(tmp_path: Path) -> None:
    idle = [row for n in range(40) for row in targets.rows(f"x{n}", [told("available", n)], at(99))]
    for some in (idle, []):
        with pytest.raises(Untrainable) as caught:
            models.train_rows(
                Models(tmp_path, Ed25519PrivateKey.generate()), "me", "status", some, ("naive_bayes",), {}
            )
        assert caught.value.reason == "one_class"


def test_by_one_word_by_hand() -> None:
    """Three a, one b after x: with one of each added 4/6 and 2/6; a word that was not seen: even."""
    training = [Row({"now=x": 1.0}, label, "p", "") for label in "aaab"]
    p, names = learn.by_one(training, [training[0], Row({"now=y": 1.0}, "a", "q", "")], "now=")
    assert names.tolist() == ["a", "b"]
    assert p.tolist() == [pytest.approx([4 / 6, 2 / 6]), [0.5, 0.5]]
