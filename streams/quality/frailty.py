"""Shared frailty: rows of one cluster (a patient's repeats, a unit's patients) share a risk that nobody measured. Pure.

The frailties are penalised coefficients of a Cox model (Therneau, Grambsch and Pankratz, JCGS 12, 2003): for the gamma
distribution the penalised maximum at a given variance is where the EM algorithm ends. The variance is then found by
the marginal likelihood (gamma), or by the REML-type equation of Ripatti and Palmgren, Biometrics 56, 2000 (Gaussian).

The frailties' block of the Hessian is diagonal less one outer product for each death (the clusters' shares of the risk
set). The diagonal alone, as R takes it, needs hundreds of steps where clusters are large. Deaths that follow one
another have nearly the same shares, so they are put together in a few groups, each with its mean share: diagonal plus
low rank, solved by Woodbury's formula in O(clusters), and a step that is nearly Newton's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg, optimize, sparse, special, stats

from infra.errors import Inestimable
from streams.quality import cox
from streams.quality.riskset import Cases, Floats, Hazard, Ints, RiskSets, Ties, coded

Distribution = Literal["gamma", "gaussian"]
Trace = Literal["diagonal", "full"]
GROUPS = 64
CELLS = 2_000_000  # groups times clusters: what the low rank may take
STEPS = 200
FINE, COARSE = 1e-9, 1e-5  # what the penalised likelihood may still gain: at the end, and while looking
LEAST, MOST = 1e-4, 1e3  # of the variance; below the least it is zero
GRID = (0.5, 0.05, 1e-3, 4.0)
BESIDE = 1.5  # an earlier variance serves while the best one is within this factor of it
ALPHA = 0.05
SMALL = 20_000  # up to so many rows a fit looks for a cluster that drives it


@dataclass(frozen=True, slots=True, eq=False)
class Driver:
    """A cluster that drives the fit, and what comes out without it: `theta`, `p`, and `coef` (p,).

    Without it the variance is outside of its interval, or no longer differs from zero at 0.05 (or only then), or a
    coefficient is further away than its standard error; `why` has the words `variance`, `p` or the covariates' names.
    """

    cluster: Any
    theta: float
    p: float
    coef: Floats
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class FrailtyFit:
    """`theta`: variance of the frailties, of mean 1 if gamma, of their logarithms if Gaussian.

    `coef`, `se` (p,), `cov` (p, p) at that variance; `log_frailty` (clusters,). `interval` is where twice the profile
    of the marginal log-likelihood (Laplace's for Gaussian) is within 3.84 of its top; None if `theta` was given.
    `loglik` is the marginal one, `loglik_zero` that of the Cox model without frailty, on the same scale. `p` is that of
    no frailty at all, half of chi-square's since a variance is never negative (Self and Liang, JASA 82, 1987).
    """

    names: tuple[str, ...]
    coef: Floats
    se: Floats
    cov: Floats
    theta: float
    interval: tuple[float, float] | None
    at_zero: bool
    p: float | None
    clusters: tuple[Any, ...]
    log_frailty: Floats
    partial_loglik: float
    loglik: float
    loglik_zero: float
    driver: Driver | None
    distribution: Distribution
    ties: Ties
    evaluations: int


@dataclass(slots=True, eq=False)
class _Point:
    """The penalised maximum at one variance, in scaled units."""

    theta: float
    beta: Floats
    omega: Floats
    hazard: Hazard
    inverse: Floats  # (p, p) of the whole Hessian, covariates' block
    trace: float  # of the frailties' block of the inverse
    logdet: float  # of the whole Hessian
    tangent: tuple[Floats, Floats]  # of beta and omega by the logarithm of the variance
    curvature: _Curvature
    likelihood: float = 0.0  # marginal
    slope: float = 0.0  # its sign says which way the variance should go


class _Model:
    """One data set, at any variance. Starts each time from the nearest that it knows."""

    def __init__(
        self,
        given: Cases,
        cluster: Ints,
        count: int,
        distribution: Distribution,
        ties: Ties,
        trace: Trace,
        begin: ArrayLike | None = None,
    ) -> None:
        self.gamma, self.trace = distribution == "gamma", trace
        self.sets = sets = RiskSets(given, ties)
        self.names = given.names
        self.scaled = cox.Scaled.of(given, sets) if given.names else cox.Scaled(given.x[sets.rows], *np.zeros((2, 0)))
        self.count = count
        self.cluster = cluster[sets.rows]
        self.deaths = np.bincount(self.cluster[sets.died], minlength=count).astype(np.float64)
        self.counted = sets.counted()
        order = np.argsort(self.cluster, kind="stable")
        starts = np.searchsorted(self.cluster[order], np.arange(count + 1))
        self.by_cluster = sparse.csr_matrix((np.ones(len(order)), order, starts), shape=(count, len(order)))
        self._group()
        self.exact = len(sets.rows) <= SMALL
        self.coarse = FINE if self.exact else COARSE
        if given.names:
            self.plain = cox.maximise(sets, self.scaled, given.names, self.scaled.begin(begin))
            beta, hazard = self.plain.beta, self.plain.hazard
        else:
            beta, hazard = np.zeros(0), sets.hazard(np.zeros(len(sets.rows)))
        self.zero = hazard
        self.known: dict[float, _Point] = {}
        self.start = (beta, np.zeros(count), hazard)

    def _group(self) -> None:
        sets = self.sets
        groups = max(1, min(GROUPS, CELLS // self.count, sets.bins))
        weight = np.cumsum(np.bincount(sets.step_bin, minlength=sets.bins))
        group = np.minimum((weight - 1) * groups // weight[-1], groups - 1)
        group = np.unique(group, return_inverse=True)[1]
        self.groups = int(group[-1]) + 1
        self.ends = np.searchsorted(group, np.arange(self.groups + 1))  # bins of group g: ends[g] to ends[g + 1]
        self.leaves = group[sets.last - 1] * self.count + self.cluster
        self.comes = group[sets.first] * self.count + self.cluster if sets.first.any() else None
        self.group_weight = np.bincount(group[sets.step_bin], weights=sets.step_weight, minlength=self.groups)

    def shares(self, hazard: Hazard) -> Floats:
        """(groups, clusters): deaths of a group of bins that were to be expected in each cluster."""
        sets, shape = self.sets, (self.groups, self.count)
        running = np.concatenate(([0.0], np.cumsum(hazard.increment)))
        ends = running[self.ends]
        rise = np.diff(ends)[:, None]

        def until(flat: Ints, bins: Ints, spared: Floats | None) -> Floats:
            lived = running[bins] - ends[:-1][flat // self.count]
            if spared is not None:
                lived = lived - spared
            whole = np.bincount(flat, weights=hazard.relative, minlength=self.groups * self.count).reshape(shape)
            part = np.bincount(flat, weights=hazard.relative * lived, minlength=self.groups * self.count)
            later = np.cumsum(whole[::-1], axis=0)[::-1] - whole
            made: Floats = part.reshape(shape) + rise * later
            return made

        spared = None
        if hazard.tied is not None:
            spared = np.zeros(len(sets.rows))
            spared[sets.died] = hazard.tied[sets.death_bin]
        made = until(self.leaves, sets.last, spared)
        if self.comes is not None:
            made -= until(self.comes, sets.first, None)
        return made

    def _penalty(self, omega: Floats, theta: float) -> tuple[float, Floats, Floats]:
        """Its value, slope and curvature."""
        if self.gamma:
            risen = np.expm1(omega)
            return float((risen - omega).sum()) / theta, risen / theta, (risen + 1) / theta
        return float(omega @ omega) / (2 * theta), omega / theta, np.full(self.count, 1 / theta)

    def _centred(self, omega: Floats) -> Floats:
        """The partial likelihood knows no level: the best one for the penalty."""
        top = float(omega.max())
        level = top + math.log(float(np.exp(omega - top).mean())) if self.gamma else float(omega.mean())
        return np.asarray(omega - level, dtype=np.float64)

    def _begin(self, theta: float) -> tuple[Floats, Floats, Hazard, _Curvature | None]:
        """From the nearest variance that is known, along the tangent of the solutions there."""
        beta, omega, hazard = self.start
        if not self.known:
            return beta, omega, hazard, None
        near = self.known[min(self.known, key=lambda one: abs(math.log(one / theta)))]
        way = math.log(theta / near.theta)
        omega = self._centred(near.omega + way * near.tangent[1])
        beta = near.beta + way * near.tangent[0]
        hazard = self.sets.hazard(self.scaled.x @ beta + omega[self.cluster])
        here, there = (
            hazard.loglik - self._penalty(omega, theta)[0],
            near.hazard.loglik - self._penalty(near.omega, theta)[0],
        )
        if not here > there:
            return near.beta, near.omega, near.hazard, near.curvature
        return beta, omega, hazard, near.curvature

    def at(self, theta: float, tolerance: float | None = None) -> _Point:
        """The penalised maximum. A curvature serves until a step gains less than a tenth of what it should save.

        Raises Inestimable `no_convergence`.
        """
        if tolerance is None and (known := self.known.get(theta)) is not None:
            return known
        wanted = tolerance or self.coarse
        beta, omega, hazard, curvature = self._begin(theta)
        x, value = self.scaled.x, hazard.loglik - self._penalty(omega, theta)[0]
        fresh, last = False, math.inf
        system: _System | None = None
        for _ in range(STEPS):
            _, push, bend = self._penalty(omega, theta)
            if curvature is None:
                curvature, fresh, system = _Curvature(self, hazard), True, None
            if system is None:
                system = _System(curvature, bend)
            residual = self.counted - hazard.expected
            down, slope = x.T @ residual, self.by_cluster @ residual - push
            step_beta, step_omega = system.solve(down, slope)
            gain = float(down @ step_beta + slope @ step_omega)
            if gain <= wanted:
                break
            if not fresh and gain > last / 10:
                curvature, last = None, math.inf
                continue
            fresh, last = False, gain
            for _ in range(30):
                tried_omega = self._centred(omega + step_omega)
                tried = self.sets.hazard(x @ (beta + step_beta) + tried_omega[self.cluster])
                better = tried.loglik - self._penalty(tried_omega, theta)[0]
                if np.isfinite(better) and better >= value - 1e-9:
                    break
                step_beta, step_omega = step_beta / 2, step_omega / 2
            else:
                raise Inestimable("no_convergence")
            beta, omega, hazard, value = beta + step_beta, tried_omega, tried, better
        else:
            raise Inestimable("no_convergence")
        _, push, bend = self._penalty(omega, theta)
        if tolerance is not None or self.exact:
            curvature = _Curvature(self, hazard)
        system = _System(curvature, bend)
        tangent = system.solve(np.zeros(len(beta)), push)
        trace = 0.0 if self.gamma else system.trace(self.trace)
        point = _Point(theta, beta, omega, hazard, system.inverse, trace, system.logdet, tangent, curvature)
        self._judge(point, value)
        self.known[theta] = point
        return point

    def _judge(self, point: _Point, value: float) -> None:
        """The marginal likelihood, and which way the variance should go."""
        theta, omega = point.theta, point.omega
        if self.gamma:
            nu, deaths = 1 / theta, self.deaths
            running = np.concatenate(([0.0], np.cumsum(np.log1p(np.arange(int(deaths.max())) * theta))))
            point.likelihood = value + float(
                (running[deaths.astype(np.int64)] + deaths - (nu + deaths) * np.log1p(deaths * theta)).sum()
            )
            by_nu = omega - np.log1p(deaths * theta) + special.digamma(nu + deaths) - special.digamma(nu)
            point.slope = -float(by_nu.sum())
        else:
            point.likelihood = value - (self.count * math.log(theta) + point.logdet) / 2
            if self.names:
                point.likelihood += float(np.linalg.slogdet(self.plain.information)[1]) / 2
            point.slope = (float(omega @ omega) + point.trace) / self.count / theta - 1


class _Curvature:
    """[[A, B], [B', E - L' W^-1 L]], the partial likelihood's own, `E` diagonal: what costs a pass over the rows."""

    def __init__(self, model: _Model, hazard: Hazard) -> None:
        sets, x = model.sets, model.scaled.x
        means = sets.means(x, hazard)
        self.shares = model.shares(hazard)
        self.weight = model.group_weight
        self.covariates = sets.information(x, hazard, means)
        self.cross: Floats = (model.by_cluster @ (hazard.expected[:, None] * x - sets.seen_means(hazard, means))).T


class _System:
    """The curvature with the penalty's on its diagonal, factored."""

    def __init__(self, curvature: _Curvature, penalty: Floats) -> None:
        self.shares = shares = curvature.shares
        self.weight, self.covariates, self.cross = curvature.weight, curvature.covariates, curvature.cross
        self.diagonal = shares.sum(axis=0) + penalty
        self.low = shares / self.diagonal  # L D^-1
        inner = np.diag(curvature.weight) - self.low @ shares.T
        self.inner = linalg.cho_factor((inner + inner.T) / 2, lower=True)
        self.across = self._frailties(self.cross.T)  # (clusters, p)
        schur = curvature.covariates - self.cross @ self.across
        self.inverse: Floats = np.asarray(np.linalg.inv(schur), dtype=np.float64)
        self.logdet = (
            float(np.log(self.diagonal).sum())
            + 2 * float(np.log(np.diag(self.inner[0])).sum())
            - float(np.log(curvature.weight).sum())
            + float(np.linalg.slogdet(schur)[1])
        )

    def _frailties(self, vector: Floats) -> Floats:
        """The inverse of the frailties' block times (clusters,) or (clusters, p)."""
        scaled: Floats = (vector.T / self.diagonal).T
        made: Floats = scaled + self.low.T @ linalg.cho_solve(self.inner, self.low @ vector)
        return made

    def solve(self, beta: Floats, omega: Floats) -> tuple[Floats, Floats]:
        frailties = self._frailties(omega)
        step = self.inverse @ (beta - self.cross @ frailties)
        return step, frailties - self.across @ step

    def trace(self, kind: Trace) -> float:
        """Of the frailties' block of the inverse; `diagonal`: as if that block had nothing beside its diagonal."""
        if kind == "diagonal":
            diagonal = self.diagonal - np.sum(self.shares * self.shares / self.weight[:, None], axis=0)
            across = self.cross / diagonal
            inverse = np.linalg.inv(self.covariates - across @ self.cross.T)
            return float((1 / diagonal).sum() + np.sum((inverse @ across) * across))
        half = linalg.solve_triangular(self.inner[0], self.low, lower=True)
        return float(
            (1 / self.diagonal).sum() + (half * half).sum() + np.sum((self.across @ self.inverse) * self.across)
        )


def fit(
    given: Cases,
    cluster: ArrayLike,
    distribution: Distribution = "gamma",
    theta: float | None = None,
    ties: Ties = "efron",
    *,
    trace: Trace = "diagonal",
    level: float = 0.95,
    look_for_driver: bool | None = None,
    begin: ArrayLike | None = None,
    near: float | None = None,
) -> FrailtyFit:
    """`cluster` (n,): who shares. With `theta` the variance is that; else it is estimated, with its interval.

    `begin` (p,), `near`: coefficients and variance of an earlier fit, from which to look. Where the likelihood has two
    tops, the one beside `near` is found.

    `trace`: of the Gaussian equation, by the diagonal of the frailties' Hessian as R does, or by the whole, which
    counts the common level too and gives about clusters / (clusters - 1) times as much.
    `look_for_driver` fits again without each of the three clusters that stand out most; by default up to 20,000 rows.
    Raises Inestimable: what `cox.fit` raises, `one_cluster`, `bad_theta` (not above 0), `weighted` (not known here).
    """
    codes, labels = coded(cluster, "cluster", len(given))
    if len(labels) < 2:
        raise Inestimable("one_cluster", "cluster")
    if theta is not None and not (math.isfinite(theta) and theta > 0):
        raise Inestimable("bad_theta")
    if given.weight is not None:
        raise Inestimable("weighted")
    if given.names:
        cox.check_columns(given)
    model = _Model(given, codes, len(labels), distribution, ties, trace, begin)
    best = _estimate(model, near) if theta is None else theta
    found = _end(model, best)
    zero = model.zero.loglik
    interval = _interval(model, best, found.likelihood, level) if theta is None else None
    fitted = FrailtyFit(
        given.names,
        found.coef,
        np.sqrt(np.diag(found.cov)),
        found.cov,
        best,
        interval,
        best == 0.0,
        found.p if theta is None else None,
        labels,
        found.omega,
        found.partial,
        found.likelihood,
        zero,
        None,
        distribution,
        ties,
        len(model.known),
    )
    look = len(given) <= SMALL if look_for_driver is None else look_for_driver
    if look and interval is not None and len(labels) > 3:
        return replace(fitted, driver=_driver(given, codes, model, fitted))
    return fitted


@dataclass(frozen=True, slots=True, eq=False)
class _End:
    """What a model says at a variance, which may be zero, in the covariates' own units."""

    coef: Floats
    cov: Floats
    omega: Floats
    partial: float
    likelihood: float
    p: float


def _end(model: _Model, theta: float) -> _End:
    scale, zero = model.scaled.scale, model.zero.loglik
    inner: Floats
    if theta:
        point = model.at(theta, FINE)
        inner, beta, omega, partial, top = (
            point.inverse,
            point.beta,
            point.omega,
            point.hazard.loglik,
            point.likelihood,
        )
    else:
        inner = np.zeros((0, 0))
        if model.names:
            inner = np.asarray(np.linalg.inv(model.plain.information), dtype=np.float64)
        beta, omega, partial, top = model.start[0], np.zeros(model.count), zero, zero
    p = float(stats.chi2.sf(2 * (top - zero), 1) / 2) if top > zero else 1.0
    return _End(beta / scale, inner / np.outer(scale, scale), omega, partial, top, p)


def _estimate(model: _Model, near: float | None = None) -> float:
    """The best variance; 0 where none above it is likelier than none at all."""
    if near is not None and LEAST * BESIDE < near < MOST / BESIDE:
        low, high = near / BESIDE, near * BESIDE
        if model.at(low).slope > 0 > model.at(high).slope:
            return _root(model, low, high)
    for one in GRID:
        model.at(one)
    known = sorted(GRID)
    best = max(range(len(known)), key=lambda one: model.at(known[one]).likelihood)
    low = known[best - 1] if best else LEAST
    high = known[best + 1] if best + 1 < len(known) else MOST
    middle = model.at(known[best]).slope
    if middle > 0:
        low = known[best]
    elif middle < 0:
        high = known[best]
    ends = (model.at(low).slope, model.at(high).slope)
    if not best and ends[0] <= 0:
        return 0.0
    if ends[0] > 0 > ends[1]:
        return _root(model, low, high)
    return low if ends[0] <= 0 else high


def _root(model: _Model, low: float, high: float) -> float:
    """Where the likelihood is level, between variances at which it rises and falls."""
    close = 1e-7 if model.exact else 1e-4
    ends = math.log(low), math.log(high)
    return math.exp(optimize.brentq(lambda one: model.at(math.exp(one)).slope, *ends, xtol=close))


def _interval(model: _Model, best: float, top: float, level: float) -> tuple[float, float]:
    wanted = top - float(stats.chi2.ppf(level, 1)) / 2

    def above(log_theta: float) -> float:
        return model.at(math.exp(log_theta)).likelihood - wanted

    def crossing(inside: float, outside: float) -> float:
        return math.exp(optimize.brentq(above, math.log(inside), math.log(outside), xtol=1e-3))

    low = 0.0
    if best > 0 and model.zero.loglik < wanted:
        low = crossing(best, _outside(above, best, 0.25, LEAST))
    start = max(best, LEAST)
    high = _outside(above, start, 4.0, MOST)
    return low, math.inf if above(math.log(high)) > 0 else crossing(start, high)


def _outside(above: Callable[[float], float], start: float, factor: float, limit: float) -> float:
    """The first of `start` times powers of `factor` at which the likelihood is too low, or the limit."""
    value = start
    while True:
        value = max(value * factor, limit) if factor < 1 else min(value * factor, limit)
        if value == limit or above(math.log(value)) < 0:
            return value


def _driver(given: Cases, codes: Ints, model: _Model, fitted: FrailtyFit) -> Driver | None:
    """Of the three clusters with the largest sums of martingale residuals, the one that changes most, if any does."""
    stands_out = np.abs(model.by_cluster @ (model.counted - model.zero.expected))
    found: list[Driver] = []
    low, high = fitted.interval or (0.0, math.inf)
    for number in np.argsort(-stands_out, kind="stable")[:3]:
        keep = codes != number
        try:
            rest, names = coded(codes[keep], "cluster", int(keep.sum()))
            other = _Model(given.take(keep), rest, len(names), fitted.distribution, fitted.ties, model.trace)
            theta = _estimate(other)
            end = _end(other, theta)
        except Inestimable:  # the rest alone tells nothing: not the same as another answer
            continue
        moved = np.abs(end.coef - fitted.coef) > fitted.se
        why = ["variance"] if not low <= theta <= high else []
        if fitted.p is not None and (fitted.p < ALPHA) != (end.p < ALPHA):
            why.append("p")
        why += [name for name, far in zip(fitted.names, moved, strict=True) if far]
        if why:
            found.append(Driver(fitted.clusters[number], theta, end.p, end.coef, tuple(why)))
    return max(found, key=lambda one: (abs(one.theta - fitted.theta), len(one.why)), default=None)
