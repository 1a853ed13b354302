"""When patients leave: the hazard against a table by hand, a leak-free split, figures beside their baselines."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sklearn.pipeline import Pipeline

from consumers import leaves as learned
from infra.errors import NotBetter, Untrainable
from streams.allocation import leaves
from streams.allocation.leaves import Asked, Course, Hazards
from streams.learn import kept_back, mean_of
from streams.models import ALLOWED, Models
from tests.wards import HOUR, START, stays

END = START + timedelta(days=150)


def courses(*, told: bool = True, days: int = 150, seed: int = 1) -> list[Course]:
    return [
        Course(
            one.patient,
            one.service,
            one.age,
            one.since,
            one.until,
            ((one.since, one.estimate),) if one.estimate else (),
        )
        for one in stays(days, seed, per_day=40, told=told)
    ]


def plain(patient: str, hours: float | None, *, since: float = 0.0, service: str = "MED") -> Course:
    begun = START + since * HOUR
    return Course(patient, service, 50, begun, None if hours is None else begun + hours * HOUR)


@pytest.fixture(scope="module")
def parts() -> leaves.Split:
    return leaves.split(courses(), END)


@pytest.fixture(scope="module")
def model(parts: leaves.Split) -> Pipeline:
    return leaves.fit(parts.training, parts.cut)


@pytest.fixture(scope="module")
def untold() -> leaves.Split:
    """Of a house whose wards say nothing of when somebody will leave."""
    return leaves.split(courses(told=False), END)


@pytest.fixture(scope="module")
def unaware(untold: leaves.Split) -> Pipeline:
    return leaves.fit(untold.training, untold.cut)


@pytest.fixture(scope="module")
def hazards(unaware: Pipeline) -> Hazards:
    return Hazards(unaware)


# ---------------------------------------------------------------------------------------------------------------- split


def test_who_is_judged_is_in_no_training_and_came_later(parts: leaves.Split) -> None:
    assert all(not kept_back(one.patient) for one in parts.training)
    assert all(kept_back(one.patient) for one in parts.holdout)
    assert max(one.since for one in parts.training) < parts.cut <= min(one.since for one in parts.holdout)


def test_training_knows_nothing_of_what_came_after_the_cut(parts: leaves.Split) -> None:
    assert all(one.until is None or one.until <= parts.cut for one in parts.training)
    assert any(one.until is None for one in parts.training)
    assert all(told <= parts.cut for one in parts.training for told, _ in one.estimates)


def test_stays_that_begin_late_are_not_judged(parts: leaves.Split) -> None:
    """Of them only the short ones have ended."""
    assert max(one.since for one in parts.holdout) <= END - leaves.HORIZON


def test_clocks_that_jumped() -> None:
    wrong = [plain("a", -1), plain("b", 10, since=99_999), plain("c", 0)]
    assert leaves.sensible(wrong, END) == []
    (late,) = leaves.sensible([plain("d", 99_999)], END)
    assert late.until is None


def test_too_few() -> None:
    for some in ([], [plain(f"p{n}", 5) for n in range(40)], [plain(f"p{n}", None) for n in range(4000)]):
        with pytest.raises(Untrainable) as caught:
            leaves.split(some, END)
        assert caught.value.reason == "too_few_patients"


# ------------------------------------------------------------------------------------------------------------------ fit


def test_hazard_of_stays_that_know_no_age() -> None:
    """Each hour a twentieth leaves: then the mean is 20 hours, 19.5 by the middle of the hour, the median 13.5."""
    rng = np.random.default_rng(1)
    lengths = rng.geometric(0.05, 3000)
    made = [plain(f"p{n}", hours - 0.5, since=n % 168) for n, hours in enumerate(lengths)]
    hazards = Hazards(leaves.fit(made, END))
    found = hazards.leaving(Asked("MED", 50, 0.0), START)
    assert found.expected == pytest.approx(19.5, rel=0.05)
    assert found.median == pytest.approx(math.log(0.5) / math.log(0.95), rel=0.07)
    assert found.low == pytest.approx(math.log(0.9) / math.log(0.95), rel=0.25)
    assert found.high == pytest.approx(math.log(0.1) / math.log(0.95), rel=0.07)
    later = hazards.leaving(Asked("MED", 50, 30.0), START + 30 * HOUR)
    assert later.expected == pytest.approx(found.expected, rel=0.15)  # no memory


def test_who_is_still_in_counts_for_the_hours_until_now() -> None:
    """Half of them leave after ten hours, the others are in since then: left out, all would seem to stay ten hours."""
    made = [plain(f"p{n}", 9.5 if n % 2 else None, since=n % 168) for n in range(600)]
    found = Hazards(leaves.fit(made, START + 30 * 24 * HOUR)).leaving(Asked("MED", 50, 20.0), START)
    assert found.median > 400


def test_conditional_on_having_stayed_so_long(hazards: Hazards) -> None:
    found = [hazards.leaving(Asked("MED", 70, elapsed), START + timedelta(hours=36)) for elapsed in (0, 48, 480)]
    assert found[0].expected + 0 < 48 + found[1].expected < 480 + found[2].expected
    for one in found:
        assert 0 < one.low < one.median < one.high
        assert one.median < one.expected  # long stays pull the mean


def test_what_the_ward_says_now_counts(model: Pipeline) -> None:
    hazards = Hazards(model)
    said = [hazards.leaving(Asked("MED", 60, 60.0, due), START + 12 * HOUR).median for due in (4.0, 30.0, 120.0, 240.0)]
    assert all(one < other for one, other in pairwise(said))


def test_nobody_leaves_at_night(hazards: Hazards) -> None:
    evening, morning = (hazards.leaving(Asked("CAR", 40, 60.0), START + at * HOUR) for at in (19, 10))
    assert evening.low > 12
    assert morning.low < 6


def test_a_service_that_nobody_has_seen_and_an_age_that_nobody_knows(model: Pipeline) -> None:
    found = Hazards(model).leaving(Asked("NEU", None, 5.0), START)
    assert 0 < found.low < found.high < leaves.AHEAD


def test_what_few_patients_have_is_in_no_model(untold: leaves.Split) -> None:
    few = untold.training[-300:]
    rare = [plain(f"rare{n}", 50, since=n, service="HIV") for n in range(4)]
    names = leaves.fit([*few, *rare], untold.cut)[0].feature_names_
    assert "service=MED" in names
    assert not [name for name in names if "HIV" in name]
    five = [*rare, plain("rare5", 50, service="HIV")]
    assert "service=HIV" in leaves.fit([*few, *five], untold.cut)[0].feature_names_


def test_the_artefact_keeps_no_rows(model: Pipeline) -> None:
    for _, part in model.steps:
        assert f"{type(part).__module__}.{type(part).__name__}" in ALLOWED
    assert sum(value.size for value in vars(model[1]).values() if isinstance(value, np.ndarray)) < 300


# ---------------------------------------------------------------------------------------------------------------- judge


def test_beats_its_baselines_on_the_simulated_hospital(parts: leaves.Split, model: Pipeline) -> None:
    card = leaves.judged(model, parts, END)
    assert card.beats_baseline
    assert set(card.differences) == {"service_median", "service_median_so_far", "ward_estimate"}
    assert card.figures["mae"].value < min(one["mae"].value for one in card.baselines.values())
    assert card.figures["coverage_80"].value == pytest.approx(0.8, abs=0.05)
    assert abs(card.figures["bias"].value) < 0.1 * card.figures["mae"].value * 4


def test_says_so_where_it_does_not_beat_them() -> None:
    """The ward knows the very minute: nothing is better."""
    known = [
        Course(one.patient, one.service, one.age, one.since, one.until, ((one.since, one.until),))
        for one in courses()
        if one.until
    ]
    made = leaves.split(known, END)
    card = leaves.judged(leaves.fit(made.training, made.cut), made, END)
    assert card.baselines["ward_estimate"]["mae"].value < 5  # of the few who are still in when the data ends
    assert not card.beats_baseline


def test_against_the_version_in_force(parts: leaves.Split, model: Pipeline, unaware: Pipeline) -> None:
    same = leaves.judged(model, parts, END, model)
    assert same.differences["incumbent"].value == 0
    assert same.beats_incumbent is False
    assert leaves.judged(model, parts, END, unaware).beats_incumbent is True


def test_a_mean_and_its_interval() -> None:
    """Of two rows a patient, alike: the interval is that of patients, not the narrower one of rows."""
    rng = np.random.default_rng(2)
    one_each = rng.normal(5, 1, 200)
    twice = mean_of(np.repeat(one_each, 2), [f"p{n // 2}" for n in range(400)])
    as_rows = mean_of(np.repeat(one_each, 2), [f"p{n}" for n in range(400)])
    assert twice is not None
    assert as_rows is not None
    assert twice.value == pytest.approx(one_each.mean())
    half = 1.96 * one_each.std() / math.sqrt(200)
    assert (twice.high - twice.low) / 2 == pytest.approx(half, rel=0.15)
    assert (as_rows.high - as_rows.low) < 0.8 * (twice.high - twice.low)
    assert mean_of(np.empty(0), []) is None


def test_five_hundred_patients_in_a_moment(model: Pipeline) -> None:
    """The planner asks for all of them whenever something changes."""
    hazards = Hazards(model)
    begun = time.process_time()
    for number in range(500):
        hazards.leaving(Asked("SUR", 30 + number % 60, number % 200, 24.0), START)
    assert time.process_time() - begun < 2


# ---------------------------------------------------------------------------------------------------------------- store


def test_in_the_store_promoted_and_measured_again(tmp_path: Path) -> None:
    some = courses(days=75)
    end = START + timedelta(days=75)
    store = Models(tmp_path, Ed25519PrivateKey.generate())
    (card,) = learned.train_courses(store, "me", some, end)
    store.promote(learned.NAME, card.version, "me")
    checked = learned.check_courses(store, card.version, some)
    assert len(checked) > 10
    assert [one for one in checked if not one.same] == []
    fewer = [one for one in some if one.patient not in {some[-900].patient, some[-901].patient, some[-902].patient}]
    assert [one for one in learned.check_courses(store, card.version, fewer) if not one.same]
    (second,) = learned.train_courses(store, "me", some, end)
    assert second.incumbent == card.version
    assert second.beats_incumbent is False
    with pytest.raises(NotBetter):
        store.promote(learned.NAME, second.version, "me")
