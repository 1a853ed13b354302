"""Groups of resources, or of demand, that are alike in kind, place, price and the hours in which they are used. Pure.

K-Means (MacQueen 1967), DBSCAN (Ester et al. 1996) and HDBSCAN (Campello et al. 2013), each with figures that tell
whether to believe it: silhouettes (Rousseeuw, J. Comp. Appl. Math. 20, 1987), and stability. For it the clustering is
made again on subsets, with the same settings, and compared by the adjusted Rand index (Hubert and Arabie 1985) and,
group by group, by the Jaccard index of the group that is most alike (Hennig, Comp. Stat. and Data Analysis 52, 2007).
His rule of thumb: a mean Jaccard of 0.75 and above is a group to rely on, below 0.6 one that is not.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN, HDBSCAN, KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, pairwise_distances, silhouette_samples
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from infra.errors import Untrainable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KMEANS, DBSCAN_, HDBSCAN_ = "kmeans", "dbscan", "hdbscan"
METHODS = (KMEANS, DBSCAN_, HDBSCAN_)
FEWEST = 10  # rows of which groups are made
MOST_GROUPS = 8  # of K-Means
NEIGHBOURS = 5  # within reach of a core point (min_samples); fewer rows together are no group
CLOSE = 0.25  # rows nearer than this are alike (of two kinds they are 2 apart): HDBSCAN finds structure at any scale
SUBSETS, PART = 30, 0.5
STABLE, DOUBTFUL = 0.75, 0.6
SEED = 20_172
NIGHT, MORNING, AFTERNOON, EVENING = "at night", "in the morning", "in the afternoon", "in the evening"
_PARTS = {NIGHT: (22, 23, 0, 1, 2, 3, 4, 5), MORNING: range(6, 12), AFTERNOON: range(12, 17), EVENING: range(17, 22)}
_MOSTLY, _MORE = 0.7, 1.4
# Differences that are none: of price a tenth (in logarithms), of use a twentieth of the time, of place a metre.
_RARE = 0.1  # use below which its hours are chance
_LEAST = {"kind": 1e-9, "place": 1e-9, "price": 0.1, "use": 0.05, "hours": 0.5}


@dataclass(frozen=True, slots=True)
class Profile:
    """A resource, or one service's demand of one unit.

    `hours`: 24 numbers, UTC: of a resource the share of that hour in which it was in use, of demand how many came.
    """

    id: str
    kinds: tuple[str, ...]  # bed, monitor, ... ; of demand the service
    unit: str
    hours: tuple[float, ...]
    price: float = 0.0
    position: tuple[float, float] | None = None  # metres


@dataclass(frozen=True, slots=True)
class Group:
    label: str
    members: tuple[str, ...]
    silhouette: float | None  # mean of its members
    jaccard: float  # mean over subsets

    @property
    def stable(self) -> bool:
        return self.jaccard >= STABLE


@dataclass(frozen=True, slots=True)
class Outlier:
    id: str
    differs_by: str  # kind, place, price, use, hours
    nearest: str  # label of the group that it is least unlike


@dataclass(frozen=True, slots=True)
class Clustering:
    """`ari`: mean over subsets; None for fewer than two groups. `kind_alone`: the adjusted Rand index of the groups and
    a division by kind alone: at 1 they tell nothing that was not known."""

    method: str
    settings: dict[str, float]
    groups: tuple[Group, ...]
    outliers: tuple[Outlier, ...]
    silhouette: float | None
    ari: float | None
    kind_alone: float | None


def cluster(profiles: Sequence[Profile], method: str) -> Clustering:
    """Raises Untrainable (`too_few_rows`)."""
    with threadpool_limits(1):  # of few rows, threads make twenty times the work
        return _cluster(profiles, method)


def _cluster(profiles: Sequence[Profile], method: str) -> Clustering:
    if len(profiles) < FEWEST:
        raise Untrainable("too_few_rows", f"groups are made of {FEWEST} rows at least: there are {len(profiles)}")
    some = sorted(profiles, key=lambda one: one.id)
    x, blocks = vectors(some)
    settings = _settings(x, method)
    labels = _labels(x, method, settings)
    names = [int(name) for name in np.unique(labels) if name >= 0]
    ari, jaccards = _stability(x, labels, method, settings)
    shown = _silhouettes(x, labels)
    texts = _texts(some, labels, names)
    groups = [
        Group(
            texts[name],
            tuple(some[at].id for at in np.flatnonzero(labels == name)),
            None if shown is None else float(shown[labels == name].mean()),
            jaccards[name],
        )
        for name in names
    ]
    grouped = labels >= 0
    kinds = [one.kinds for one in some]
    return Clustering(
        method,
        settings,
        tuple(sorted(groups, key=lambda one: (-len(one.members), one.label))),
        tuple(_outlier(some[at].id, x[at], x, labels, texts, blocks) for at in np.flatnonzero(~grouped))
        if names
        else (),
        None if shown is None else float(shown[grouped].mean()),
        ari,
        float(adjusted_rand_score([str(kinds[at]) for at in np.flatnonzero(grouped)], labels[grouped]))
        if names
        else None,
    )


def use(spans: Iterable[tuple[datetime, datetime]], since: datetime, until: datetime) -> tuple[float, ...]:
    """Of each hour of the day (UTC), the share in which something was in use between two times."""
    used, days = np.zeros(24), (until - since) / timedelta(days=1)
    for begun, ended in spans:
        at = max(begun, since)
        while at < min(ended, until):
            then = min(at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1), ended, until)
            used[at.hour] += (then - at) / timedelta(hours=1)
            at = then
    return tuple(float(one) for one in np.minimum(1.0, used / days))


# -------------------------------------------------------------------------------------------------------------- vectors


def vectors(profiles: Sequence[Profile]) -> tuple[Floats, dict[str, slice]]:
    """Rows in which kind, place, price, how much and when something is used weigh alike: each has a variance of 1 in
    all, or less where there is hardly any difference: what is not there must not be blown up."""
    hours = np.array([one.hours for one in profiles], float)
    use = hours.mean(1, keepdims=True)
    positions = [one.position for one in profiles]
    made = {
        "kind": _one_hot([one.kinds for one in profiles]),
        "place": np.array(positions, float) if all(positions) else _one_hot([(one.unit,) for one in profiles]),
        "price": np.log1p(np.array([[one.price] for one in profiles])),
        "use": use,
        "hours": _smooth((hours + _RARE) / (use + _RARE)),
    }
    blocks: dict[str, slice] = {}
    columns: list[Floats] = []
    for name, block in made.items():
        block = block - block.mean(0)
        if (spread := float(np.sqrt((block**2).sum(1).mean()))) > 1e-9:
            begin = sum(one.shape[1] for one in columns)
            blocks[name] = slice(begin, begin + block.shape[1])
            columns.append(block / max(spread, _LEAST[name]))
    return (np.hstack(columns) if columns else np.zeros((len(profiles), 1))), blocks


def _one_hot(words: Sequence[Iterable[str]]) -> Floats:
    names = sorted({word for some in words for word in some})
    return np.array([[float(name in some) for name in names] for some in (set(one) for one in words)])


def _smooth(hours: Floats) -> Floats:
    """Means of three neighbours around the clock: ten to nine and ten past are the same habit."""
    return np.asarray((np.roll(hours, 1, 1) + hours + np.roll(hours, -1, 1)) / 3)


# -------------------------------------------------------------------------------------------------------------- methods


def _settings(x: Floats, method: str) -> dict[str, float]:
    """Found once, on all rows, and kept on subsets: else stability would be that of the search for them."""
    match method:
        case "kmeans":
            most = min(MOST_GROUPS, len(x) - 1, len(np.unique(x, axis=0)))
            found = {k: _all_silhouettes(x, _kmeans(x, k, NEIGHBOURS)) for k in range(2, most + 1)}
            return {"k": max(found, key=lambda k: found[k], default=1)}
        case "dbscan":
            return {"eps": _reach(x), "min_samples": NEIGHBOURS}
        case "hdbscan":
            size = max(NEIGHBOURS, len(x) // 40)
            return {"min_cluster_size": size, "min_samples": NEIGHBOURS, "least_distance": CLOSE}
    raise ValueError(f"there is no method {method!r}")


def _labels(x: Floats, method: str, settings: dict[str, float], part: float = 1.0) -> Ints:
    """Of each row; -1 is an outlier. Of a part of the rows, groups and neighbourhoods have as much less in them."""
    fewest = max(2, round(NEIGHBOURS * part))
    match method:
        case "kmeans":
            return _kmeans(x, int(settings["k"]), fewest)
        case "dbscan":
            model: Any = DBSCAN(eps=settings["eps"], min_samples=fewest)
        case _:
            size = round(settings["min_cluster_size"] * part)
            model = HDBSCAN(size, min_samples=fewest, metric="precomputed", copy=False)
            x = np.maximum(pairwise_distances(x), settings["least_distance"])
            np.fill_diagonal(x, 0.0)
    return np.asarray(model.fit_predict(x), np.int64)


def _kmeans(x: Floats, k: int, fewest: int) -> Ints:
    """K-Means puts everything somewhere. What it gives a group of its own, or what lies far out in one (Tukey 1977:
    three quartile ranges), is an outlier."""
    rows, made = np.arange(len(x)), np.full(len(x), -1, np.int64)
    while len(rows) > k:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than groups
            labels = KMeans(k, n_init=3, random_state=SEED).fit_predict(x[rows])
        small = np.isin(labels, np.flatnonzero(np.bincount(labels, minlength=k) < fewest))
        if not small.any():
            made[rows] = labels
            break
        rows = rows[~small]
    for name in range(k):
        mine = np.flatnonzero(made == name)
        away = np.linalg.norm(x[mine] - np.median(x[mine], axis=0), axis=1) if len(mine) else np.zeros(0)
        if len(mine) >= NEIGHBOURS:
            low, high = np.quantile(away, (0.25, 0.75))
            made[mine[away > high + 3 * max(high - low, 1e-9)]] = -1
    return made


def _reach(x: Floats) -> float:
    """Of DBSCAN: as far as the fifth neighbour lies from all rows but those where it is far out (Tukey's fence)."""
    away = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(x))).fit(x).kneighbors(x)[0][:, -1]
    low, high = np.quantile(away, (0.25, 0.75))
    return max(float(high + 1.5 * (high - low)), CLOSE)


# -------------------------------------------------------------------------------------------------------------- figures


def _silhouettes(x: Floats, labels: Ints) -> Floats | None:
    """Of each row; outliers are in no group and have none (0 here). None for fewer than two groups."""
    grouped = labels >= 0
    if len(np.unique(labels[grouped])) < 2 or len(np.unique(labels[grouped])) >= grouped.sum():
        return None
    made = np.zeros(len(x))
    made[grouped] = silhouette_samples(x[grouped], labels[grouped])
    return made


def _all_silhouettes(x: Floats, labels: Ints) -> float:
    """Mean over all rows, outliers too, so that nothing is gained by leaving rows out."""
    found = _silhouettes(x, labels)
    return -1.0 if found is None else float(found.mean())


def _stability(
    x: Floats, labels: Ints, method: str, settings: dict[str, float]
) -> tuple[float | None, dict[int, float]]:
    """Mean adjusted Rand index, of rows that are in a group here or there, and mean Jaccard index of each group; of one
    group alone there is no division that could be stable."""
    names = [int(name) for name in np.unique(labels) if name >= 0]
    if not names:
        return None, {}
    rng, indices = np.random.default_rng(SEED), []
    jaccards: dict[int, list[float]] = {name: [] for name in names}
    for _ in range(SUBSETS):
        chosen = np.sort(rng.choice(len(x), int(len(x) * PART), replace=False))
        again, before = _labels(x[chosen], method, settings, PART), labels[chosen]
        either = (again >= 0) | (before >= 0)
        indices.append(float(adjusted_rand_score(before[either], again[either])))
        for name in names:
            mine = before == name
            others = [again == other for other in np.unique(again) if other >= 0]
            alike = (float((mine & other).sum() / (mine | other).sum()) for other in others)
            if mine.any():
                jaccards[name].append(max(alike, default=0.0))
    ari = float(np.mean(indices)) if len(names) > 1 else None
    return ari, {name: float(np.mean(some)) if some else 0.0 for name, some in jaccards.items()}


# ---------------------------------------------------------------------------------------------------------------- words


def _texts(profiles: Sequence[Profile], labels: Ints, names: Sequence[int]) -> dict[int, str]:
    """Plain words for each group, by what most of it shares and others do not; two of the same words are numbered."""
    made: dict[int, str] = {}
    for name in names:
        text = describe([one for one, label in zip(profiles, labels, strict=True) if label == name], profiles)
        same = sum(one == text or one.startswith(f"{text} (") for one in made.values())
        made[name] = f"{text} ({same + 1})" if same else text
    return made


def describe(group: Sequence[Profile], everybody: Sequence[Profile]) -> str:
    """Such as "costly monitor equipment, C, busy at night"."""
    counts = Counter(word for one in group for word in one.kinds)
    shared = [word for word, count in counts.items() if count >= _MOSTLY * len(group)]
    noun = " ".join(sorted(shared, key=lambda word: -_depth(word, group))) or "mixed"
    parts = [f"{_price(group, everybody)}{noun}"]
    units = Counter(one.unit for one in group if one.unit)
    if units:
        unit, count = units.most_common(1)[0]
        parts.append(unit if count >= _MOSTLY * len(group) else f"{len(units)} units")
    return ", ".join([*parts, *_use(group, everybody)])


def _depth(word: str, group: Sequence[Profile]) -> int:
    return max(one.kinds.index(word) for one in group if word in one.kinds)


def _price(group: Sequence[Profile], everybody: Sequence[Profile]) -> str:
    prices = np.array([one.price for one in everybody])
    low, high = np.quantile(prices, (1 / 3, 2 / 3))
    mine = float(np.median([one.price for one in group]))
    if mine > high and mine > 1.25 * float(np.median(prices)):
        return "costly "
    return "cheap " if mine < low and mine < 0.8 * float(np.median(prices)) else ""


def _use(group: Sequence[Profile], everybody: Sequence[Profile]) -> list[str]:
    hours = np.array([one.hours for one in group], float).mean(0)
    if hours.sum() <= 0:
        return ["never used"]
    usual = float(np.array([one.hours for one in everybody], float).mean())
    parts = {name: float(hours[list(some)].mean() / hours.mean()) for name, some in _PARTS.items()}
    when = [name for name, much in parts.items() if much > _MORE]
    level = "busy" if hours.mean() > _MORE * usual else "quiet" if hours.mean() < usual / _MORE else ""
    if when:
        return [f"{level}, most {' and '.join(when)}" if level == "quiet" else f"busy {' and '.join(when)}"]
    return [f"{level} all day"] if level else []


def _outlier(id: str, row: Floats, x: Floats, labels: Ints, texts: dict[int, str], blocks: dict[str, slice]) -> Outlier:
    """The group that is nearest, and by what it differs most from that group's middle."""
    middles = {name: np.median(x[labels == name], axis=0) for name in texts}
    nearest = min(middles, key=lambda name: float(np.linalg.norm(row - middles[name])))
    away = (row - middles[nearest]) ** 2
    return Outlier(id, max(blocks, key=lambda name: float(away[blocks[name]].sum())), texts[nearest])
