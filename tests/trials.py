"""Published survival data, and a slow partial likelihood written from the formula, as the oracle for the fast one."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from streams.quality.riskset import Cases, Floats, cases

SAMPLES = Path(__file__).parent / "samples" / "outcomes"
DISEASES = ("GN", "AN", "PKD")


def table(name: str) -> dict[str, list[str]]:
    with (SAMPLES / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {column: [row[column] for row in rows] for column in rows[0]}


def numbers(columns: dict[str, list[str]], *names: str) -> Floats:
    return np.array([[float(one) for one in columns[name]] for name in names]).T


def rossi() -> Cases:
    data = table("rossi")
    names = ("fin", "age", "race", "wexp", "mar", "paro", "prio")
    return cases(*numbers(data, "week", "arrest").T, numbers(data, *names), names)


def leukaemia() -> tuple[Cases, Floats]:
    data = table("leukaemia")
    treated = numbers(data, "treated")
    return cases(*numbers(data, "weeks", "relapse").T, 1 - treated, ("placebo",)), treated[:, 0]


def kidney(*, disease: bool = True) -> tuple[Cases, list[str]]:
    data = table("kidney")
    x, names = numbers(data, "age", "sex"), ["age", "sex"]
    if disease:
        x = np.column_stack([x, *(np.array(data["disease"]) == one for one in DISEASES)])
        names += DISEASES
    return cases(*numbers(data, "time", "status").T, x, names), data["id"]


def veteran() -> Cases:
    """Adenocarcinoma, standard treatment and no prior therapy are what the others are told from."""
    data = table("veteran")
    cells = np.array(data["cell_type"])
    indicators = {name: cells == name for name in ("large", "smallcell", "squamous")}
    indicators["test"] = np.array(data["treatment"]) == "test"
    indicators["prior"] = np.array(data["prior_therapy"]) == "yes"
    x = np.column_stack([numbers(data, "age", "karnofsky", "months"), *indicators.values()])
    return cases(*numbers(data, "days", "death").T, x, ("age", "karnofsky", "months", *indicators))


def ovarian() -> Cases:
    data = table("ovarian")
    return cases(*numbers(data, "days", "death").T, numbers(data, "age", "ecog_ps"), ("age", "ecog_ps"))


def slow_loglik(given: Cases, eta: Floats, ties: str = "efron") -> float:
    """Death by death (Efron 1977, Breslow 1974), with weights as R has them."""
    weight = np.ones(len(given)) if given.weight is None else given.weight
    start = np.full(len(given), -np.inf) if given.start is None else given.start
    total = 0.0
    for stratum in np.unique(given.stratum):
        here = given.stratum == stratum
        for time in np.unique(given.stop[here & given.event]):
            risk = here & (start < time) & (time <= given.stop)
            died = here & given.event & (given.stop == time)
            count, mean = int(died.sum()), weight[died].mean()
            total += float(weight[died] @ eta[died])
            whole, tied = (float(weight[one] @ np.exp(eta[one])) for one in (risk, died))
            for number in range(count):
                spared = number / count * tied if ties == "efron" else 0.0
                total -= mean * np.log(whole - spared)
    return float(total)


def drawn(seed: int, rows: int = 60, *, entry: bool = False, strata: int = 1, weighted: bool = False) -> Cases:
    """Two covariates and many ties."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 2))
    time = np.ceil(random.exponential(8 / np.exp(x @ [0.5, -0.3])))
    censored = np.ceil(random.exponential(12, rows))
    start = random.integers(0, 3, rows).astype(float)
    stop = np.minimum(time, censored) + (start if entry else 0)
    return cases(
        stop,
        time <= censored,
        x,
        ("a", "b"),
        start=start if entry else None,
        strata=random.integers(0, strata, rows) if strata > 1 else None,
        weights=random.uniform(0.5, 2, rows) if weighted else None,
    )


def clustered(seed: int, clusters: int, size: int, theta: float, distribution: str = "gamma") -> tuple[Cases, Floats]:
    """Exponential times; rows of a cluster share a frailty of variance `theta`; about a third are censored."""
    random = np.random.default_rng(seed)
    rows = clusters * size
    log = (
        np.log(random.gamma(1 / theta, theta, clusters))
        if distribution == "gamma"
        else random.normal(0, np.sqrt(theta), clusters)
    )
    cluster = np.repeat(np.arange(clusters), size)
    x = random.normal(size=(rows, 2))
    time = random.exponential(1 / np.exp(x @ [0.5, -0.5] + log[cluster]))
    censored = random.exponential(2.0, rows)
    return cases(np.minimum(time, censored), time <= censored, x, ("a", "b")), cluster
