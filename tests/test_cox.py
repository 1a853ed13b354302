"""Cox models: published figures, a slow likelihood as the oracle, invariances, rows that no model can be made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from infra.errors import Inestimable
from streams.quality import cox
from streams.quality.concordance import concordance
from streams.quality.riskset import Cases, cases
from tests.trials import drawn, kidney, leukaemia, ovarian, rossi, slow_loglik, veteran


def test_rossi_as_published() -> None:
    """lifelines' documentation; tests and errors: Fox, Cox Proportional-Hazards Regression (2002), R, Efron."""
    fitted = cox.fit(rossi())
    coef = dict(zip(fitted.names, fitted.coef, strict=True))
    assert (coef["fin"], coef["age"], coef["prio"]) == pytest.approx((-0.379422, -0.057438, 0.091497), abs=5e-7)
    assert fitted.loglik == pytest.approx(-658.7477, abs=5e-5)
    assert fitted.concordance is not None
    assert fitted.concordance.value == pytest.approx(0.6403, abs=5e-5)
    assert fitted.se[:3] == pytest.approx([0.1914, 0.0220, 0.3080], abs=5e-5)
    assert [one.statistic for one in (fitted.lrt, fitted.wald, fitted.score)] == pytest.approx(
        [33.27, 32.11, 33.53], abs=5e-3
    )
    assert fitted.lrt.df == 7


def test_leukaemia_as_published() -> None:
    """Kleinbaum and Klein, 2012: 1.572 by Efron, 1.509 by Breslow."""
    data, _ = leukaemia()
    assert cox.fit(data).coef[0] == pytest.approx(1.5721, abs=5e-5)
    assert cox.fit(data, "breslow").coef[0] == pytest.approx(1.5092, abs=5e-5)


def test_veterans_as_published() -> None:
    """scikit-survival's guide, all covariates, which takes Breslow's ties."""
    data = veteran()
    fitted = cox.fit(data, "breslow")
    assert fitted.coef[data.names.index("karnofsky")] == pytest.approx(-0.032622, abs=5e-7)
    assert fitted.concordance is not None
    assert fitted.concordance.value == pytest.approx(0.736256, abs=5e-7)


def test_kidney_without_frailty_as_published() -> None:
    """R's survival, Efron."""
    fitted = cox.fit(kidney()[0])
    coef = dict(zip(fitted.names, fitted.coef, strict=True))
    assert (coef["sex"], coef["PKD"]) == pytest.approx((-1.483137, -1.431108), abs=5e-7)
    assert fitted.lrt.statistic == pytest.approx(17.65, abs=5e-3)


def test_proportionality_of_ovarian_stays_as_it_is() -> None:
    """Our own figures, to be kept: no publication of R's for this model (the example of cox.zph) was found.

    That the test is the right one is shown below, by a hazard ratio that turns.
    """
    data = ovarian()
    tested = cox.proportionality(data, cox.fit(data))
    assert [one.statistic for one in (*tested.terms.values(), tested.whole)] == pytest.approx(
        [0.698, 2.371, 3.633], abs=5e-4
    )
    together = cox.proportionality(data, cox.fit(data), terms={"both": data.names})
    assert together.terms["both"] == together.whole


def test_proportionality_finds_a_hazard_ratio_that_turns() -> None:
    """Of `a` the effect is gone after time 0.2, of `b` it stays; nothing is found where both stay."""
    random = np.random.default_rng(5)
    x = random.integers(0, 2, (2000, 2)).astype(float)
    early, base = np.exp(1.5 * x[:, 0]), np.exp(0.5 * x[:, 1])
    hazard = random.exponential(1, 2000) / base
    turned = np.where(hazard < 0.2 * early, hazard / early, 0.2 + hazard - 0.2 * early)
    data = cases(turned, np.ones(2000), x, ("a", "b"))
    tested = cox.proportionality(data, cox.fit(data))
    assert tested.terms["a"].p < 1e-6 < 0.01 < tested.terms["b"].p
    kept = cases(random.exponential(1, 2000) / base / early, np.ones(2000), x, ("a", "b"))
    assert cox.proportionality(kept, cox.fit(kept)).whole.p > 0.01


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("entry", [False, True])
@pytest.mark.parametrize("strata", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_fast_likelihood_is_the_slow_one(ties: cox.Ties, entry: bool, strata: int, weighted: bool) -> None:
    data = drawn(11, 90, entry=entry, strata=strata, weighted=weighted)
    fitted = cox.fit(data, ties)

    def loss(beta: np.ndarray) -> float:
        return -slow_loglik(data, data.x @ beta, ties)

    best = optimize.minimize(loss, np.zeros(2), tol=1e-10)
    assert fitted.loglik == pytest.approx(-best.fun, abs=1e-7)
    assert fitted.coef == pytest.approx(best.x, abs=1e-4)
    assert fitted.loglik_null == pytest.approx(-loss(np.zeros(2)))
    step = 1e-3
    at = [[loss(fitted.coef + step * (i * one + j * other)) for i, j in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
          for one in np.eye(2) for other in np.eye(2)]  # fmt: skip
    bend = np.array([(a - b - c + d) / (4 * step**2) for a, b, c, d in at]).reshape(2, 2)
    assert np.linalg.inv(fitted.cov) == pytest.approx(bend, rel=1e-3, abs=1e-2)


def test_a_row_cut_in_two_says_the_same() -> None:
    """A covariate that varies in time is rows (start, stop]; of one that does not, cuts change nothing."""
    data = drawn(21, 80)
    cut = np.floor(data.stop / 2)
    both = cut > 0
    split = cases(
        np.concatenate((data.stop, cut[both])),
        np.concatenate((data.event, np.zeros(both.sum()))),
        np.concatenate((data.x, data.x[both])),
        data.names,
        start=np.concatenate((cut, np.zeros(both.sum()))),
    )
    whole, pieces = cox.fit(data), cox.fit(split)
    assert pieces.coef == pytest.approx(whole.coef)
    assert pieces.cov == pytest.approx(whole.cov)
    assert pieces.concordance is not None
    assert whole.concordance is not None
    assert pieces.concordance.value == pytest.approx(whole.concordance.value)


def test_robust_errors_are_the_infinitesimal_jackknife() -> None:
    """How the coefficients move with a row's weight, squared and summed; a cluster's rows move them together."""
    data, step = drawn(31, 60), 1e-4
    moves = []
    for row in range(60):
        more, less = (np.where(np.arange(60) == row, 1 + one, 1.0) for one in (step, -step))
        ends = [
            cox.fit(cases(data.stop, data.event, data.x, data.names, weights=one), "breslow") for one in (more, less)
        ]
        moves.append((ends[0].coef - ends[1].coef) / (2 * step))
    influence = np.array(moves)
    assert cox.fit(data, "breslow", robust=True).robust == pytest.approx(influence.T @ influence, rel=1e-4)
    cluster = np.arange(60) // 3
    summed = np.add.reduceat(influence, np.arange(0, 60, 3))
    assert cox.fit(data, "breslow", cluster=cluster).robust == pytest.approx(summed.T @ summed, rel=1e-4)


def test_robust_errors_by_efron_are_near_the_jackknife() -> None:
    data = drawn(32, 300)
    fitted = cox.fit(data)
    left_out = np.array([cox.fit(data.take(np.arange(300) != row), with_concordance=False).coef for row in range(300)])
    jackknife = np.sqrt(((left_out - fitted.coef) ** 2).sum(axis=0))
    assert jackknife == pytest.approx(cox.fit(data, robust=True).se, rel=0.1)


def test_the_baseline_expects_as_many_as_died() -> None:
    data = drawn(41, 120, strata=2)
    fitted = cox.fit(data, "breslow")
    curves = cox.baseline(data, fitted)
    assert [one.stratum for one in curves] == [0, 1]
    risk = np.exp((data.x - fitted.mean) @ fitted.coef)
    for number, curve in enumerate(curves):
        mine = data.stratum == number
        at = np.searchsorted(curve.time, data.stop[mine], "right")
        expected = float(risk[mine] @ np.concatenate(([0.0], curve.cumulative))[at])
        assert expected == pytest.approx(float(data.event[mine].sum()))
        assert (np.diff(curve.survival) < 0).all()


def test_the_baseline_by_efron_spares_those_who_die_together() -> None:
    """By hand: at each time the sum over k of 1 / (risk of all - k / d of those who die)."""
    data = drawn(42, 60)
    fitted = cox.fit(data)
    (curve,) = cox.baseline(data, fitted)
    risk, rise = np.exp((data.x - fitted.mean) @ fitted.coef), []
    for time in curve.time:
        died = data.event & (data.stop == time)
        whole, tied, count = risk[data.stop >= time].sum(), risk[died].sum(), int(died.sum())
        rise.append(sum(1 / (whole - number / count * tied) for number in range(count)))
    assert curve.cumulative == pytest.approx(np.cumsum(rise))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1 / 365.25, 24.0, 1e5]), entry=st.booleans())
def test_no_unit_and_no_order_matters(seed: int, scale: float, entry: bool) -> None:
    data = drawn(seed, entry=entry, strata=2)
    order = np.random.default_rng(seed).permutation(len(data))
    other = cases(
        data.stop[order] * scale,
        data.event[order],
        data.x[order] * [scale, 1] + [7, 0],
        data.names,
        start=None if data.start is None else data.start[order] * scale,
        strata=data.stratum[order],
    )
    one, again = cox.fit(data), cox.fit(other)
    assert again.coef * [scale, 1] == pytest.approx(one.coef, rel=1e-6, abs=1e-9)
    assert again.loglik == pytest.approx(one.loglik)
    assert again.score.statistic == pytest.approx(one.score.statistic, rel=1e-6)
    assert again.concordance == one.concordance


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_weight_of_two_is_the_row_twice(seed: int) -> None:
    """By Breslow; Efron's weights are importance, not repeats, as in R."""
    data, times = drawn(seed), np.random.default_rng(seed).integers(1, 4, 60)
    twice = cox.fit(data.take(np.repeat(np.arange(60), times)), "breslow")
    weighted = cox.fit(cases(data.stop, data.event, data.x, data.names, weights=times), "breslow")
    assert weighted.coef == pytest.approx(twice.coef)
    assert weighted.cov == pytest.approx(twice.cov)
    assert weighted.concordance is not None
    assert twice.concordance is not None
    assert weighted.concordance.concordant == pytest.approx(twice.concordance.concordant)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), entry=st.booleans(), strata=st.sampled_from([1, 3]))
def test_concordance_is_that_of_all_pairs(seed: int, entry: bool, strata: int) -> None:
    data = drawn(seed, 40, entry=entry, strata=strata, weighted=True)
    risk = np.random.default_rng(seed).integers(0, 6, 40).astype(float)
    counts = np.zeros(3)
    assert data.weight is not None
    for one in np.flatnonzero(data.event):
        for other in range(40):
            beyond = data.stop[other] > data.stop[one] or (data.stop[other] == data.stop[one] and not data.event[other])
            there = data.start is None or data.start[other] < data.stop[one]
            if beyond and there and data.stratum[one] == data.stratum[other]:
                kind = 0 if risk[one] > risk[other] else 1 if risk[one] < risk[other] else 2
                counts[kind] += data.weight[one] * data.weight[other]
    found = concordance(data, risk)
    assert (found.concordant, found.discordant, found.tied) == pytest.approx(counts)


@pytest.mark.parametrize("begin", [[0.4, -0.2], [3.0, 3.0], [500.0, -500.0]])
@pytest.mark.parametrize("entry", [False, True])
def test_a_warm_fit_is_the_cold_one(begin: list[float], entry: bool) -> None:
    """Also from a beginning that is worse than none, or from which no hazard can be worked out."""
    data = drawn(71, 300, entry=entry, strata=2)
    cold, warm = cox.fit(data), cox.fit(data, begin=begin)
    assert warm.coef == pytest.approx(cold.coef, abs=1e-6)
    assert warm.cov == pytest.approx(cold.cov, rel=1e-5)
    assert (warm.loglik, warm.loglik_null, warm.score.statistic) == pytest.approx(
        (cold.loglik, cold.loglik_null, cold.score.statistic)
    )


def test_a_warm_fit_of_nearly_the_same_rows_takes_fewer_steps() -> None:
    data = drawn(72, 2000)
    fewer = cox.fit(data.take(np.arange(1990)))
    assert cox.fit(data, begin=fewer.coef).steps < cox.fit(data).steps


def separated() -> Cases:
    """Whoever has `bad` dies before anybody else: its coefficient has no end."""
    return cases(
        np.arange(1, 21), np.ones(20), np.column_stack([np.arange(20) < 6, np.sin(np.arange(20))]), ("bad", "b")
    )


def never_died() -> Cases:
    data = drawn(51, 80)
    safe = np.arange(80) % 4 == 0
    return cases(data.stop, data.event & ~safe, np.column_stack([data.x[:, 0], safe]), ("a", "safe"))


def columns(*made: object) -> Cases:
    data = drawn(61, 60)
    x = np.column_stack([data.x[:, 0], *made])
    return cases(data.stop, data.event, x, ("a", "b", "c")[: x.shape[1]])


@pytest.mark.parametrize(
    ("reason", "where", "data"),
    [
        ("monotone_likelihood", "bad", separated()),
        ("monotone_likelihood", "safe", never_died()),
        ("constant_covariate", "b", columns(np.ones(60))),
        ("one_case", "b", columns(np.arange(60) == 7)),
        ("collinear", "c", columns(np.arange(60) % 7, np.arange(60) % 7 * 2 + 1)),
        ("all_censored", "", cases([1, 2, 3], [0, 0, 0], [[1], [2], [4]], ("a",))),
        ("no_covariates", "", cases([1, 2, 3], [1, 1, 0])),
        ("constant_covariate", "late", cases([1, 2, 3, 4], [0, 1, 1, 0], [[0], [1], [1], [1]], ("late",)).take(
            np.array([0, 0, 1, 2, 3]))),
    ],
)  # fmt: skip
def test_what_no_model_can_be_made_of(reason: str, where: str, data: Cases) -> None:
    with pytest.raises(Inestimable) as error:
        cox.fit(data)
    assert (error.value.reason, error.value.where) == (reason, where)


def test_a_strong_effect_is_no_separation() -> None:
    random = np.random.default_rng(8)
    x = random.normal(size=(500, 1))
    data = cases(random.exponential(1 / np.exp(6 * x[:, 0])), np.ones(500), x, ("a",))
    assert cox.fit(data).coef[0] == pytest.approx(6, abs=0.6)
