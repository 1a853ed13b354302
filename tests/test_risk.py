"""Outcomes of cases as rows; what is missing; calibration that drifts; boosted trees in the store; the way through."""

from __future__ import annotations

import json
import math
import random
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scipy import stats
from scipy.optimize import brentq

from consumers import models
from infra.errors import BadOutcome, Untrainable, UsageError
from producers.simulate import cases as simulated
from schemas.safe_harbor import SMALLEST
from streams import learn
from streams.models import Card, Data, Models
from streams.quality import risk
from streams.quality.cases import Case, Person
from streams.rows import Row
from tests.simulated import people

SINCE = datetime(2024, 1, 1, tzinfo=UTC)
UNTIL = "2026-06-01T00:00:00.000Z"


def case(number: int = 1, begun: str = "2026-01-01T08:00:00.000Z", ended: str = "", **said: object) -> Case:
    made = Case(
        record=f"r{number}", person=f"p{number}", site="EAST", unit="CARD", procedure="", service="", begun=begun,
        ended=ended, disposition="", planned=False, known=UNTIL,
    )  # fmt: skip
    return replace(made, **said)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------- rows


def test_a_factor_that_nobody_has_told_is_missing_and_not_zero() -> None:
    found = risk.features(case(factors={"age": 71.0, "sex": "F", "diabetes": "no"}))
    assert found["age"] == 71.0
    assert {"sex=F", "diabetes=no", "missing=systolic", "missing=smoker"} <= found.keys()
    assert not {"systolic", "missing=age", "missing=sex"} & found.keys()
    assert not any("CARD" in name for name in found)


def test_only_outcomes_that_are_due() -> None:
    old = case(1, ended="2026-01-05T08:00:00.000Z")
    dead = case(2, ended="2026-01-05T08:00:00.000Z", disposition="20")
    lying = case(3)
    young = case(4, begun="2026-05-20T08:00:00.000Z", ended="2026-05-21T08:00:00.000Z", disposition="20")
    some = [Person((one,)) for one in (old, dead, lying, young)]
    labels = {row.patient: row.label for row in risk.rows("death_in_hospital", some, UNTIL)}
    assert labels == {"p1": "no", "p2": "yes"}
    assert {row.patient: row.label for row in risk.rows("death_30d", some, UNTIL)} == {
        "p1": "no",
        "p2": "yes",
        "p3": "no",
    }
    (row,) = risk.rows("readmission_30d", some, UNTIL)
    assert (row.patient, row.at, row.groups) == ("p1", old.begun, ("unit=CARD",))


def test_the_last_days_of_a_silent_site_are_left_out() -> None:
    begun = "2026-01-01T08:00:00.000Z"
    some = [Person((case(1, begun, known="2026-01-20T00:00:00.000Z"),))]
    assert risk.rows("death_30d", some, UNTIL) == []
    assert len(risk.rows("death_30d", [Person((case(1, begun),))], UNTIL)) == 1


def test_a_told_outcome_in_any_word() -> None:
    some = [Person((case(1, told={"Wound infection": True}, ended="2026-01-05T08:00:00.000Z"),))]
    assert [row.label for row in risk.rows("Wound infection", some, UNTIL)] == ["yes"]
    assert risk.told(some) == ["Wound infection"]
    assert models.name_of("wound_infection") == "quality-wound_infection"
    names = {models.name_of(one) for one in ("Wound infection", "wound infection", "感染", "出血")}
    assert len(names) == 4
    assert all(name.isascii() and len(name) <= 64 for name in names)
    with pytest.raises(UsageError, match="or an outcome that is told: Wound infection"):
        models._outcomes("woond", some, UNTIL)


# ------------------------------------------------------------------------------------------------------------- missing


def world(count: int = 800) -> list[Row]:
    rng = random.Random(3)
    made = []
    for number in range(count):
        age, sex = float(rng.randint(30, 90)), rng.choice("FFFM")
        chance = 1 / (1 + math.exp(-(age - 60) / 8 - (sex == "M")))
        label = "yes" if rng.random() < chance else "no"
        made.append(Row({"age": age, f"sex={sex}": 1.0}, label, f"p{number}", "2026-01-01"))
    return made


@pytest.mark.parametrize("algorithm", learn.OUTCOME_ALGORITHMS)
def test_what_vanishes_from_the_feed_counts_as_usual(algorithm: str) -> None:
    """Zero would be a newborn, and the score of every patient would jump."""
    some = world()
    estimator = learn.fit(algorithm, some).estimator
    usual = float(np.mean([float(row.features["age"]) for row in some]))
    gone, mean, newborn = estimator.predict_proba(
        [{"sex=F": 1.0, "missing=age": 1.0}, {"sex=F": 1.0, "age": usual}, {"sex=F": 1.0, "age": 0.0}]
    )[:, 1]
    assert gone == pytest.approx(mean, abs=1e-6)
    assert abs(gone - newborn) > 0.1
    woman, man, unknown = estimator.predict_proba(
        [{"age": 60.0, "sex=F": 1.0}, {"age": 60.0, "sex=M": 1.0}, {"age": 60.0, "missing=sex": 1.0}]
    )[:, 1]
    assert min(woman, man) - 1e-6 <= unknown <= max(woman, man) + 1e-6


def test_shares_of_the_missing_and_their_drift() -> None:
    some = [risk.features(case(factors={"age": 70.0} if number % 4 else {})) for number in range(200)]
    known = learn.missing([Row(one, "no", "p", "") for one in some])
    assert known["age"] == 0.25
    assert set(risk.missing_drift(known, some).values()) == {0.0}
    found = risk.missing_drift(known, [risk.features(case()) for _ in range(50)])
    assert found["missing:age"] > 0.25
    assert found["missing:sex"] == 0.0
    with pytest.raises(ValueError, match="something in them"):
        risk.missing_drift(known, [])


# --------------------------------------------------------------------------------------------------------------- drift


def test_calibration_of_equal_risks_has_wilsons_interval() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, score method 0.2553 to 0.3662."""
    found = risk.calibration_drift([0.25] * 263, [True] * 81 + [False] * 182)
    assert (found.low, found.high) == (pytest.approx(0.2553 / 0.25, abs=2e-4), pytest.approx(0.3662 / 0.25, abs=2e-4))
    assert found.z == pytest.approx((81 - 65.75) / math.sqrt(263 * 0.25 * 0.75))
    assert found.state == "warning"


def test_the_interval_holds_what_the_test_lets_stand() -> None:
    rng = np.random.default_rng(1)
    risks = rng.beta(1, 9, 400)
    events = rng.random(400) < risks

    def z(ratio: float) -> float:
        return (events.sum() - ratio * risks.sum()) / math.sqrt((ratio * risks - (ratio * risks) ** 2).sum())

    found = risk.calibration_drift(list(risks), list(events))
    assert found.low == pytest.approx(brentq(lambda one: z(one) - stats.norm.ppf(0.975), 0.1, 1.5), abs=1e-5)
    assert found.high == pytest.approx(brentq(lambda one: z(one) + stats.norm.ppf(0.975), 0.5, 3.0), abs=1e-5)


def test_how_often_chance_alone_warns() -> None:
    """The limits are of 1 in 20 and 1 in 500."""
    rng = np.random.default_rng(5)
    states = []
    for _ in range(2000):
        risks = rng.beta(2, 8, 300)
        states.append(risk.calibration_drift(list(risks), list(rng.random(300) < risks)).state)
    assert states.count("drifted") <= 12
    assert 60 <= states.count("warning") + states.count("drifted") <= 140


def test_a_ward_that_got_worse() -> None:
    rng = np.random.default_rng(2)
    risks = rng.beta(2, 18, 500)
    odds = 2.5 * risks / (1 - risks)
    found = risk.calibration_drift(list(risks), list(rng.random(500) < odds / (1 + odds)))
    assert (found.state, found.ratio is not None and found.ratio > 1.5) == ("drifted", True)


@pytest.mark.parametrize(
    ("risks", "events"), [([], []), ([0.1] * 20, [False] * 20), ([0.0] * 9, [False] * 9), ([1.0] * 9, [True] * 9)]
)
def test_too_few_to_say(risks: list[float], events: list[bool]) -> None:
    assert risk.calibration_drift(risks, events).state == "too_few"


@pytest.mark.parametrize("bad", [1.01, -0.1, math.nan])
def test_a_risk_that_is_none(bad: float) -> None:
    with pytest.raises(BadOutcome, match="bad_risk"):
        risk.calibration_drift([0.5, bad], [True, False])
    with pytest.raises(ValueError, match="a risk for each outcome"):
        risk.calibration_drift([0.5], [])


# ------------------------------------------------------------------------------------------------------- boosted trees


@pytest.mark.parametrize("algorithm", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("classes", [2, 3])
def test_boosted_trees_come_back_from_the_store(algorithm: str, classes: int, tmp_path: Path) -> None:
    labels = ("yes", "no", "maybe")
    some = [replace(row, label=labels[n % 3] if classes == 3 else row.label) for n, row in enumerate(world(500))]
    made = learn.fit(algorithm, some).estimator
    again = learn.fit(algorithm, some).estimator
    store = Models(tmp_path, Ed25519PrivateKey.generate())
    data = Data(rows=1, patients=1, first="", last="")
    card = Card(algorithm=algorithm, target="t", trained_at="", trained_by="", data=data)
    version = store.add("any", made, card)
    told = [row.features for row in some]
    expected = made.predict_proba(told)
    assert np.array_equal(store.load("any", version).predict_proba(told), expected)
    assert np.array_equal(again.predict_proba(told), expected)  # seeded
    assert np.ptp(expected[:, -1]) > 0.01
    with zipfile.ZipFile(tmp_path / "any" / version / "model.skops") as file:
        schema = file.read("schema.json").decode()
    assert "[30:90]" not in schema  # the lowest and highest age of somebody, as LightGBM would keep it
    assert "MethodNode" not in schema


# ------------------------------------------------------------------------------------------------------------- the way


@pytest.fixture(scope="module")
def drawn() -> list[simulated.Drawn]:
    return simulated.draw(2600, 4, simulated.UNITS, SINCE)


def test_from_events_to_a_card(drawn: list[simulated.Drawn], tmp_path: Path) -> None:
    some = risk.rows("death_in_hospital", people(simulated.in_order(drawn)), "2027-01-01T00:00:00.000Z")
    store = Models(tmp_path, Ed25519PrivateKey.generate())
    steps: list[str] = []
    cards = models.train_rows(
        store, "me", "death_in_hospital", some, ("xgboost", "logistic_regression"), {}, steps.append
    )
    assert steps == ["xgboost", "logistic_regression"]
    best = cards[-1]
    assert best.name == "quality-death_in_hospital"
    assert best.figures["auc"].value > 0.7
    assert {"unit=CARD", "diabetes=yes", "sex=F", "age=80+"} <= best.subgroups.keys()
    assert all(one.patients >= SMALLEST for one in best.subgroups.values())
    assert "observed_to_expected" in best.subgroups["sex=F"].figures
    assert best.importance["age"] > 0.02
    assert "creatinine" not in best.importance  # nobody has told it
    assert best.missing["creatinine"] == 1.0
    assert 0.01 < best.missing["bmi"] < 0.1
    over = next(card for card in cards if card.algorithm == "xgboost").differences["logistic_regression"]
    wins = over.low > 0
    assert best.algorithm == ("xgboost" if wins else "logistic_regression")
    said = "xgboost is proposed" if wins else "no candidate is shown to beat logistic regression, which is proposed"
    assert said in best.notes
    checked = models.check_rows(best, store.load(best.name, best.version), some)
    assert all(one.same for one in checked)


def test_a_hold_out_of_a_handful_is_no_hold_out(tmp_path: Path) -> None:
    few = [replace(row, at=f"2026-01-{1 + n % 28:02}", label="yes" if n % 40 == 0 else "no")
           for n, row in enumerate(world(1600))]  # fmt: skip
    with pytest.raises(Untrainable, match=r"the hold-out has \d patients of 'yes'"):
        models.train_rows(
            Models(tmp_path, Ed25519PrivateKey.generate()), "me", "death_30d", few, ("logistic_regression",), {}
        )


# ----------------------------------------------------------------------------------------------------------- simulator


def test_the_same_seed_tells_the_same_story(drawn: list[simulated.Drawn]) -> None:
    again = simulated.cases(2600, 4, simulated.UNITS, SINCE)
    assert json.dumps(list(again)) == json.dumps(list(simulated.in_order(drawn)))


@pytest.mark.parametrize("measure", [*risk.TARGETS, simulated.INFECTION])
def test_as_many_outcomes_as_their_truth_says(drawn: list[simulated.Drawn], measure: str) -> None:
    """As the stream reads them: the mean chance, within three and a half standard errors; but for the last 60 days."""
    rows = risk.rows(measure, people(simulated.in_order(drawn)), "2027-01-01T00:00:00.000Z")
    chances = [one.truth[measure] for one in drawn if measure in one.truth]
    assert len(rows) == pytest.approx(len(chances), rel=0.06)
    came, share = sum(row.label == "yes" for row in rows), len(rows) / len(chances)
    spread = math.sqrt(math.fsum(p * (1 - p) for p in chances))
    assert abs(came - share * math.fsum(chances)) < 3.5 * spread


def test_a_unit_gets_worse_from_a_day_on(drawn: list[simulated.Drawn]) -> None:
    worse = simulated.Worse("CARD", datetime(2025, 1, 1, tzinfo=UTC), 3.0)
    made = simulated.draw(2600, 4, simulated.UNITS, SINCE, worse=worse)
    first, other = ({one.events[0]["patient_number"]: one for one in some[::-1]} for some in (drawn, made))
    changed = 0
    for patient in first.keys() & other.keys():
        p, q = (one[patient].truth["death_in_hospital"] for one in (first, other))
        said = other[patient].events[0]
        late = said["unit"] == "CARD" and said["at"] >= "2025-01-01"
        assert q / (1 - q) == pytest.approx((3.0 if late else 1.0) * p / (1 - p))
        changed += late
    assert changed > 200


def test_corrections_and_repeats_change_no_end(drawn: list[simulated.Drawn]) -> None:
    odd = list(simulated.cases(400, 9, ("ORTH", "MED"), SINCE, corrections=0.3, repeats=0.2))
    once = list({json.dumps(one): one for one in odd}.values())
    assert len(odd) > len(once) + 100
    corrected = {json.dumps(one) for one in once if one["type"] == "case" and set(one) >= {"age"} and "unit" not in one}
    assert corrected
    ends = [sorted(people(some), key=lambda one: one.cases[0].record) for some in (odd, once)]
    assert [_facts(one) for one in ends[0]] == [_facts(one) for one in ends[1]]


def _facts(one: Person) -> object:
    return [(case.record, dict(case.factors), dict(case.told), case.ended) for case in one.cases], one.died
