"""How many of the ten nearest an approximate question finds, beside exact search over everybody, and how long it takes.

Profiles are of simulated patients, from the clear documents of all their messages. The simulator's notes have some
900 different terms, far fewer than real ones, so that the same is measured again with a tail: words of a vocabulary of
20,000, drawn for each patient by Zipf's law and without any sense. That is the worst case for a reduction, which keeps
what terms have in common.

`hnsw`: of the ten nearest by reduced vector, how many the index finds. `similar`: of the ten with the highest exact
cosine on the whole TF-IDF vectors, how many the question shows; whoever ties with the tenth is as good.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
from scipy import sparse

from consumers import profiles
from consumers import similar as ask
from infra.elastic import SETTINGS, client
from producers.simulate.hospital import Hospital
from schemas.document import documents
from schemas.peers import DEFAULT
from schemas.similar import index, mapping
from schemas.wire.hl7v2 import Message
from streams.ehr import hl7v2, similar

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUSE = 2500  # patients simulated at a time
TAIL, TAIL_WORDS = 20_000, 20
ASKED, NEAREST = 200, 10
EVERYBODY: dict[str, Any] = {"match_all": {}}


def rows(patients: int) -> Iterator[tuple[str, float]]:
    """Rows of the bench, on the node that is up."""
    bags = _simulated(patients)
    yield from _measured("", bags.terms, bags.counts())
    yield from _measured("_tail", *_with_tail(bags.terms, bags.counts()))


def _simulated(patients: int) -> similar.Bags:
    whole = similar.Bags(profiles.FIELDS)
    sizes = [min(HOUSE, patients - at) for at in range(0, patients, HOUSE)]
    with ProcessPoolExecutor(2) as pool:
        for house, found in enumerate(pool.map(_house, range(len(sizes)), sizes)):
            for patient, terms in found.items():
                whole.add_bag(f"{house}-{patient}", terms)
    return whole


def _house(seed: int, patients: int) -> dict[str, similar.Bag]:
    found: dict[str, similar.Bag] = {}
    for message in Hospital(seed, patients, NOW).events():
        if message.fate == "repeat":
            continue
        for document in documents(hl7v2.read(Message.read(message.body, None), DEFAULT, NOW)):
            found.setdefault(message.patient, similar.Bag()).update(similar.bag(document.clear, profiles.FIELDS))
    return found


def _with_tail(terms: list[str], counts: Any) -> tuple[list[str], Any]:
    shares = 1 / np.arange(1, TAIL + 1)
    shape = (counts.shape[0], TAIL_WORDS)
    words = np.random.default_rng(9).choice(TAIL, size=shape, p=shares / shares.sum())
    ends = np.arange(0, words.size + 1, TAIL_WORDS)
    ones = np.ones(words.size, np.int32)
    tail = sparse.csr_matrix((ones, words.ravel(), ends), shape=(shape[0], TAIL))
    tail.sum_duplicates()
    return [*terms, *(f"tail{number:x}" for number in range(TAIL))], sparse.hstack([counts, tail], format="csr")


def _measured(kind: str, terms: list[str], counts: Any) -> Iterator[tuple[str, float]]:
    started = time.perf_counter()
    model = similar.fit(terms, counts)
    yield f"similar_fit{kind}", time.perf_counter() - started
    known = model.known(terms, counts)
    weights = model.weights(known)
    name = index("9999")
    with client() as server:
        server.indices.create(index=name, mappings=mapping(model.dimensions), settings=SETTINGS)
        try:
            started = time.perf_counter()
            refs = [str(row) for row in range(counts.shape[0])]
            for at in range(0, len(refs), profiles.WRITTEN_AT_ONCE):
                some = slice(at, at + profiles.WRITTEN_AT_ONCE)
                profiles.write(server, name, list(profiles.sources(model, refs[some], known[some], {}, {})))
            server.indices.refresh(index=name)
            yield f"similar_filled{kind}", len(refs) / (time.perf_counter() - started)
            yield from _asked(kind, server, name, model, weights)
        finally:
            server.indices.delete(index=name)


def _asked(kind: str, server: Any, name: str, model: similar.Model, weights: Any) -> Iterator[tuple[str, float]]:
    asked = np.random.default_rng(3).choice(weights.shape[0], min(ASKED, weights.shape[0]), replace=False)
    reduced = np.array([one or [0.0] * model.dimensions for one in model.vectors(weights)], np.float32)
    hnsw, whole, taken = [], [], []
    for one in asked:
        exact = similar.cosines(weights[one], weights)
        near = reduced @ reduced[one]
        knn = {"field": "vector", "query_vector": reduced[one].tolist(), "k": NEAREST, "num_candidates": ask.WIDE}
        found = server.search(index=name, knn=knn, size=NEAREST, source=False)["hits"]["hits"]
        tenth = np.sort(near)[-NEAREST]
        hnsw.append(sum(near[int(hit["_id"])] >= tenth - 1e-6 for hit in found) / NEAREST)
        started = time.perf_counter()
        answer = list(islice(ask.nearest(server, name, model, weights[one], EVERYBODY), NEAREST))
        taken.append(time.perf_counter() - started)
        tenth = np.sort(exact)[-NEAREST]
        whole.append(sum(cosine >= tenth - 1e-6 for _, cosine, _ in answer) / NEAREST)
    yield f"similar_recall_hnsw{kind}", statistics.mean(hnsw)
    yield f"similar_recall{kind}", statistics.mean(whole)
    yield f"similar_p50{kind}", statistics.median(taken)
    yield f"similar_p99{kind}", statistics.quantiles(taken, n=100)[98]
