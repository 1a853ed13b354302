"""Cox proportional hazards: what raises the risk of an outcome, by how much, and whether the model holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg, stats

from infra.errors import Inestimable
from streams.quality.concordance import Concordance, concordance
from streams.quality.riskset import Cases, Floats, Hazard, RiskSets, Ties, coded

STEPS = 60
DECREMENT = 1e-12  # twice what the log-likelihood can still gain, relative
VANISHED = 1e-6  # the share of its information at zero below which a direction has none
Transform = Literal["km", "identity", "rank"]


@dataclass(frozen=True, slots=True)
class Test:
    """A chi-square statistic and the probability of a larger one by chance."""

    __test__ = False  # pytest would collect it by its name

    statistic: float
    df: int
    p: float

    @classmethod
    def of(cls, statistic: float, df: int) -> Test:
        return cls(float(statistic), df, float(stats.chi2.sf(statistic, df)))


@dataclass(frozen=True, slots=True, eq=False)
class CoxFit:
    """No row of anybody is in it. `coef`, `se`, `mean` (p,), `cov` (p, p); logarithms of hazard ratios per unit.

    `cov` is the inverse information; `robust` is the sandwich (Lin and Wei, JASA 84, 1989), if it was asked for, and
    then `se` and `wald` are by it.
    """

    names: tuple[str, ...]
    coef: Floats
    se: Floats
    cov: Floats
    robust: Floats | None
    mean: Floats
    loglik_null: float
    loglik: float
    lrt: Test
    wald: Test
    score: Test
    concordance: Concordance | None
    rows: int
    events: int
    steps: int
    ties: Ties

    def p(self) -> Floats:
        """Of each coefficient being zero, by Wald."""
        return np.asarray(2 * stats.norm.sf(np.abs(self.coef / self.se)), dtype=np.float64)

    def interval(self, level: float = 0.95) -> Floats:
        """(p, 2): of the coefficients, by Wald."""
        half = stats.norm.ppf((1 + level) / 2) * self.se
        return np.stack((self.coef - half, self.coef + half), axis=1)


def check_columns(given: Cases) -> None:
    """Raises Inestimable: `no_covariates`, `constant_covariate`, `one_case` (all rows but one are alike)."""
    if not given.names:
        raise Inestimable("no_covariates")
    for number, name in enumerate(given.names):
        column = given.x[:, number]
        odd = int(np.count_nonzero(column != column[0]))
        if not odd:
            raise Inestimable("constant_covariate", name)
        if len(column) > 2 and (odd == 1 or (odd == len(column) - 1 and len(np.unique(column)) == 2)):
            raise Inestimable("one_case", name)


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """Covariates of the rows at risk, of mean 0 and deviation 1, so that no unit matters to a step."""

    x: Floats
    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, given: Cases, sets: RiskSets) -> Scaled:
        x = given.x[sets.rows]
        mean = x.mean(axis=0)
        x = x - mean
        scale = np.sqrt((x * x).mean(axis=0))
        for number, name in enumerate(given.names):
            if scale[number] <= 1e-12 * max(1.0, abs(float(mean[number]))):  # alike among all who matter
                raise Inestimable("constant_covariate", name)
        return cls(x / scale, mean, scale)

    def begin(self, coef: ArrayLike | None) -> Floats | None:
        return None if coef is None else np.asarray(coef, dtype=np.float64) * self.scale


def cholesky(information: Floats, names: Sequence[str]) -> Floats:
    """The lower factor. Raises Inestimable `collinear` with the first column that the ones before it give."""
    size = np.sqrt(np.maximum(np.diag(information), 0.0))
    for number in range(len(names)):
        part = information[: number + 1, : number + 1]
        if size[number] > 0 and number:
            rest = (
                part[number, number]
                - part[number, :number] @ np.linalg.lstsq(part[:number, :number], part[:number, number], rcond=None)[0]
            )
        else:
            rest = part[number, number]
        if not rest > 1e-10 * max(float(size[number]) ** 2, 1e-300):
            raise Inestimable("collinear", names[number])
    return np.asarray(np.linalg.cholesky(information), dtype=np.float64)


def _solve(information: Floats, vector: Floats) -> Floats:
    try:
        return np.asarray(linalg.solve(information, vector, assume_a="pos"), dtype=np.float64)
    except linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(information, vector, rcond=None)[0], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """A maximum of the partial likelihood in scaled units."""

    beta: Floats
    information: Floats
    hazard: Hazard
    means: Floats
    loglik_null: float
    score: float
    steps: int


def maximise(sets: RiskSets, scaled: Scaled, names: Sequence[str], begin: Floats | None = None) -> Solved:
    """Newton's steps, halved while they lose; the first goes to `begin` (p,) where that is likelier than zero.

    Raises Inestimable `monotone_likelihood`, `collinear`, `no_convergence`.

    Where a combination of covariates puts every death first in its risk set, the likelihood rises for ever and the
    information along it dies away while steps stay long: that is reported with the covariates that run away.
    """
    x, counted = scaled.x, sets.counted()
    beta = np.zeros(x.shape[1])
    hazard = sets.hazard(np.zeros(len(x)))
    null, score, before = hazard.loglik, 0.0, np.zeros(0)
    for step in range(STEPS):
        means = sets.means(x, hazard)
        information = sets.information(x, hazard, means)
        gradient = x.T @ (counted - hazard.expected)
        if not step:
            for number, name in enumerate(names):
                if information[number, number] <= 1e-12 * len(sets.step_bin):
                    raise Inestimable("constant_covariate", name)  # alike in each risk set
            cholesky(information, names)
            before = np.diag(information).copy()
        move = _solve(information, gradient)
        gain = float(gradient @ move)
        if not step:
            score = gain
            if begin is not None:
                tried = sets.hazard(x @ begin)
                if np.isfinite(tried.loglik) and tried.loglik > hazard.loglik:
                    beta, hazard = begin, tried
                    continue
        along = float(move @ information @ move) / max(float((move * move) @ before), 1e-300)
        running = float(np.abs(move).max()) > 1e-2
        if running and along < VANISHED:
            far = np.abs(move) > np.abs(move).max() / 100
            raise Inestimable(
                "monotone_likelihood", ", ".join(name for name, one in zip(names, far, strict=True) if one)
            )
        if gain <= DECREMENT * (abs(hazard.loglik) + 1) and not running:
            return Solved(beta, information, hazard, means, null, score, step)
        for _ in range(30):
            tried = sets.hazard(x @ (beta + move))
            if np.isfinite(tried.loglik) and tried.loglik >= hazard.loglik - 1e-10 * (abs(hazard.loglik) + 1):
                break
            move = move / 2
        else:
            raise Inestimable("no_convergence")
        beta, hazard = beta + move, tried
    raise Inestimable("no_convergence")


def fit(
    given: Cases,
    ties: Ties = "efron",
    *,
    robust: bool = False,
    cluster: ArrayLike | None = None,
    with_concordance: bool = True,
    begin: ArrayLike | None = None,
) -> CoxFit:
    """The partial likelihood's maximum. `cluster` (n,): rows of one patient, or of one unit, are summed in `robust`.
    `begin` (p,): coefficients of an earlier fit, from which to look.

    Ties: Efron, JASA 72, 1977, or Breslow. With weights, Efron's deaths of a time have their mean weight, as in R.
    Raises Inestimable: `all_censored`, `no_covariates`, `constant_covariate`, `one_case`, `collinear`,
    `monotone_likelihood`, `no_convergence`.
    """
    check_columns(given)
    sets = RiskSets(given, ties)
    scaled = Scaled.of(given, sets)
    solved = maximise(sets, scaled, given.names, scaled.begin(begin))
    factor = cholesky(solved.information, given.names)
    inner = linalg.cho_solve((factor, True), np.eye(len(factor)))
    cov = inner / np.outer(scaled.scale, scaled.scale)
    coef = solved.beta / scaled.scale
    sandwich = None
    if robust or cluster is not None:
        influence = _influence(sets, scaled, solved) @ inner / scaled.scale
        if cluster is not None:
            codes = coded(cluster, "cluster", len(given))[0][sets.rows]
            influence = np.stack([np.bincount(codes, weights=one) for one in influence.T], axis=1)
        sandwich = influence.T @ influence
    used = cov if sandwich is None else sandwich
    df = len(coef)
    return CoxFit(
        given.names,
        coef,
        np.sqrt(np.diag(used)),
        cov,
        sandwich,
        scaled.mean,
        solved.loglik_null,
        solved.hazard.loglik,
        Test.of(2 * (solved.hazard.loglik - solved.loglik_null), df),
        Test.of(float(coef @ np.linalg.solve(used, coef)), df),
        Test.of(solved.score, df),
        concordance(given, given.x @ coef) if with_concordance else None,
        len(given),
        int(given.event.sum()),
        solved.steps,
        ties,
    )


def _influence(sets: RiskSets, scaled: Scaled, solved: Solved) -> Floats:
    """(n, p): each row's part of the gradient, its weight included."""
    hazard, x = solved.hazard, scaled.x
    made = (sets.counted() - hazard.expected)[:, None] * x + sets.seen_means(hazard, solved.means)
    own = _bin_means(sets, solved.means)[sets.death_bin]
    made[sets.died] -= own if sets.weight is None else own * sets.weight[sets.died][:, None]
    return np.asarray(made, dtype=np.float64)


def _bin_means(sets: RiskSets, means: Floats) -> Floats:
    """(bins, p): over the steps of a bin."""
    return sets.by_bin(means) / np.bincount(sets.step_bin, minlength=sets.bins)[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """Of one stratum: at each time of death, the hazard accumulated by somebody with mean covariates."""

    stratum: Any
    time: Floats
    cumulative: Floats
    survival: Floats


def baseline(given: Cases, fitted: CoxFit) -> list[Baseline]:
    """Breslow's or Efron's cumulative hazard at `fitted.mean`, by stratum. `given`: the rows it was fitted on."""
    sets = RiskSets(given, fitted.ties)
    hazard = sets.hazard((given.x[sets.rows] - fitted.mean) @ fitted.coef)
    increment = hazard.increment * np.exp(-hazard.shift)
    made = []
    for number, label in enumerate(given.strata):
        here = sets.stratum == number
        cumulative = np.cumsum(increment[here])
        made.append(Baseline(label, sets.time[here], cumulative, np.exp(-cumulative)))
    return made


@dataclass(frozen=True, slots=True, eq=False)
class Proportionality:
    """Whether hazard ratios stay the same over time: a score test by term, and of all.

    `time` and `residuals` (events, p): scaled Schoenfeld residuals, whose drift over time is the coefficient's own.
    """

    terms: Mapping[str, Test]
    whole: Test
    time: Floats
    residuals: Floats


def proportionality(
    given: Cases, fitted: CoxFit, transform: Transform = "km", terms: Mapping[str, Sequence[str]] | None = None
) -> Proportionality:
    """The score test for covariates times g(time), as R's cox.zph since survival 3.0.

    `transform`: g is 1 - Kaplan-Meier just before the time (of all strata together), the time, or its rank. `terms`:
    columns that are tested together. Source: Grambsch and Therneau, Biometrika 81, 1994.
    """
    sets = RiskSets(given, fitted.ties)
    scaled = Scaled.of(given, sets)
    hazard = sets.hazard(scaled.x @ (fitted.coef * scaled.scale))
    means = sets.means(scaled.x, hazard)
    g = _time_scale(given, sets, transform)
    deaths = np.bincount(sets.death_bin, minlength=sets.bins)
    g = g - (g @ deaths) / deaths.sum()
    own = _bin_means(sets, means)
    residuals = scaled.x[sets.died] - own[sets.death_bin]
    weighted = residuals if sets.weight is None else residuals * sets.weight[sets.died][:, None]
    drift = weighted.T @ g[sets.death_bin]
    one, p = np.ones(sets.bins), len(fitted.coef)
    blocks = [sets.information(scaled.x, hazard, means, by) for by in (one, g, g * g)]
    whole = np.block([[blocks[0], blocks[1]], [blocks[1], blocks[2]]])
    vector = np.concatenate((np.zeros(p), drift))

    def tested(columns: Sequence[int]) -> Test:
        chosen = [*range(p), *(p + number for number in columns)]
        part = vector[chosen]
        return Test.of(float(part @ _solve(whole[np.ix_(chosen, chosen)], part)), len(columns))

    groups = terms or {name: (name,) for name in fitted.names}
    at = {name: number for number, name in enumerate(fitted.names)}
    scaled_residuals = fitted.coef + len(residuals) * (residuals / scaled.scale) @ fitted.cov
    return Proportionality(
        {name: tested([at[one] for one in columns]) for name, columns in groups.items()},
        tested(range(p)),
        sets.time[sets.death_bin],
        np.asarray(scaled_residuals, dtype=np.float64),
    )


def _time_scale(given: Cases, sets: RiskSets, transform: Transform) -> Floats:
    """(bins,): g of the times of death."""
    if transform == "identity":
        return sets.time
    if transform == "rank":
        times = given.stop[given.event]
        return np.asarray(stats.rankdata(times)[np.argsort(times)], dtype=np.float64)[
            np.searchsorted(np.sort(times), sets.time)
        ]
    together = Cases(
        given.stop, given.event, given.x[:, :0], (), given.start, np.zeros(len(given), np.int64), (None,), given.weight
    )
    all_sets = RiskSets(together, "breslow")
    weight = np.ones(len(all_sets.rows)) if all_sets.weight is None else all_sets.weight
    survival = np.cumprod(1 - all_sets.deaths(weight) / all_sets.at_risk(weight))
    before = np.concatenate(([1.0], survival))
    return 1 - before[np.searchsorted(all_sets.time, sets.time)]
