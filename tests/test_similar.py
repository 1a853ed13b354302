"""Profiles, vocabulary, cosine and reasons, in memory; the canary's words never reach a vocabulary."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from consumers import similar as ask
from consumers.profiles import FIELDS, _card, sources
from infra.errors import UsageError
from producers.simulate.hospital import Hospital
from schemas.document import documents
from schemas.peers import DEFAULT
from schemas.similar import ALIAS, OF, mapping
from schemas.wire.hl7v2 import Message
from streams.ehr import hl7v2, similar
from streams.models import Models
from tests.test_promises import CANARIES, MESSAGE

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def read(body: bytes) -> list[dict[str, Any]]:
    """The clear documents of a message."""
    return [one.clear for one in documents(hl7v2.read(Message.read(body, None), DEFAULT, NOW))]


def simulated(patients: int, seed: int) -> similar.Bags:
    bags = similar.Bags(FIELDS)
    for message in Hospital(seed, patients, NOW).events():
        if message.fate != "repeat":
            for document in read(message.body):
                bags.add(message.patient, document)
    return bags


@pytest.fixture(scope="module")
def hospital() -> similar.Bags:
    return simulated(300, 11)


def told(*texts: str) -> similar.Bags:
    bags = similar.Bags(("body",))
    for number, text in enumerate(texts):
        bags.add(f"p{number}", {"body": text})
    return bags


def fitted(bags: similar.Bags) -> similar.Model:
    return similar.fit(bags.terms, bags.counts())


# ---------------------------------------------------------------------------------------------------------------- terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Chest pain, 8/10; no CHEST wall pain.", ["chest", "pain", "no", "chest", "wall", "pain"]),
        ("HbA1c 7.2 %, T12 fracture, 4711 and MRN90417733", ["hba1c", "t12", "fracture", "and"]),
        ("seen by [removed] on the ward", ["seen", "by", "on", "the", "ward"]),
        ("患者胸痛3天", ["患者", "者胸", "胸痛", "天"]),
        ("Ａｓｔｈｍａ Übelkeit œdème", ["asthma", "übelkeit", "œdème"]),
        ("x" * 41, []),
        ("", []),
    ],
)
def test_words(text: str, terms: list[str]) -> None:
    assert list(similar.words(text)) == terms


@pytest.mark.parametrize(
    ("document", "term"),
    [
        ({"code": "2093-3", "code_system": "LN"}, "LN|2093-3"),
        ({"code": "GLU"}, "|GLU"),
        ({"code": "90417733"}, None),  # no system, and may be somebody's number
        ({"code": "x" * 100, "code_system": "L"}, None),
        ({"unit": "ICU"}, None),
    ],
)
def test_codes(document: dict[str, Any], term: str | None) -> None:
    assert list(similar.bag(document, FIELDS)) == ([term] if term else [])


def test_a_profile_is_of_clinical_text() -> None:
    assert {"body", "value_text", "display", "admit_reason", "reactions"} <= set(FIELDS)
    assert not {"payers", "unit", "name"} & set(FIELDS)
    assert set(FIELDS) <= OF.mapping()["properties"].keys()


# ----------------------------------------------------------------------------------------------------------- vocabulary


@pytest.mark.parametrize(("patients", "kept"), [(4, False), (5, True)])
def test_a_term_of_four_patients_is_never_kept(patients: int, kept: bool) -> None:
    """However often the four have it."""
    common = ["cough fever sputum"] * 8
    bags = told(*(f"{text} {'wombatsign ' * 9 * (number < patients)}" for number, text in enumerate(common)))
    assert ("wombatsign" in fitted(bags).terms) is kept


def test_every_term_has_five_patients(hospital: similar.Bags) -> None:
    model, counts = fitted(hospital), hospital.counts().toarray()
    having = dict(zip(hospital.terms, (counts > 0).sum(axis=0), strict=True))
    assert len(model.terms) > 300
    assert min(having[term] for term in model.terms) >= similar.SMALLEST
    assert not [term for term in model.terms if term.isdigit()]


@pytest.mark.parametrize("texts", [[], ["cough fever"] * 4, ["cough fever"] * 20])
def test_too_few_are_refused(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="too few"):
        fitted(told(*texts))


def test_no_canary_in_a_vocabulary_or_its_file(tmp_path: Path) -> None:
    """Twenty patients whose notes all name the same persons: enough for any vocabulary, and still none has a name."""
    bags = similar.Bags(FIELDS)
    for number in range(20):
        for document in read(MESSAGE.replace("CANARY1", f"CANARY{number}").encode()):
            bags.add(f"p{number}", document)
        bags.add(f"p{number}", {"body": "cough fever sputum"})
    assert {"cough", "husband", "phone"} <= set(bags.terms), "the notes were read"
    model = fitted(bags)
    store = Models(tmp_path, Ed25519PrivateKey.generate())
    store.add(ALIAS, model.kept(), _card(model, ["2026-03-01T12:00:00Z"] * 20, "tester"))
    wanted = [word.lower() for word in CANARIES.values()]
    assert not [term for term in model.terms for word in wanted if word in term or (len(term) > 3 and term in word)]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            held = path.read_bytes().lower()
            for word in wanted:
                assert word.encode() not in held
                assert word.encode("utf-32-le") not in held  # as numpy keeps text


def test_a_vocabulary_survives_the_store(hospital: similar.Bags, tmp_path: Path) -> None:
    model = fitted(hospital)
    store = Models(tmp_path, Ed25519PrivateKey.generate())
    made = store.add(ALIAS, model.kept(), _card(model, ["2026-03-01T12:00:00Z"], "tester"))
    again = similar.Model.of(store.load(ALIAS, made))
    weights = model.weights(model.known(hospital.terms, hospital.counts())[:20])
    assert again.terms == model.terms
    assert again.vectors(weights) == model.vectors(weights)
    assert skops.io.get_untrusted_types(data=skops.io.dumps(model.kept())) == []


# --------------------------------------------------------------------------------------------------------------- cosine


def test_cosine_equals_scikit_learns(hospital: similar.Bags) -> None:
    """On the same matrix: their transformer with its defaults, and their cosine, made here anew."""
    model, counts = fitted(hospital), hospital.counts()
    chosen = counts[:, [hospital.terms.index(term) for term in model.terms]]
    theirs = cosine_similarity(TfidfTransformer().fit_transform(chosen))
    ours = model.weights(model.known(hospital.terms, counts))
    assert (
        max(
            abs(value - other)
            for row in range(0, 300, 7)
            for value, other in zip(similar.cosines(ours[row], ours), theirs[row], strict=True)
        )
        < 1e-6
    )


def test_cosine_from_text_to_figure() -> None:
    """The whole way, beside their vectorizer on the same texts and beside the formula by hand."""
    texts = ["cough fever cough", "cough sputum", "fever sputum rash", "cough fever sputum sputum"] * 3
    bags = told(*texts)
    model = fitted(bags)
    ours = model.weights(model.known(bags.terms, bags.counts()))
    theirs = TfidfVectorizer(min_df=similar.SMALLEST)
    expected = cosine_similarity(theirs.fit_transform(texts))
    assert model.terms == tuple(theirs.get_feature_names_out()) == ("cough", "fever", "sputum")
    assert np.allclose([similar.cosines(row, ours) for row in ours], expected, atol=1e-6, rtol=0)

    idf = math.log((1 + 12) / (1 + 9)) + 1  # each of the three is in nine of twelve
    first, second = (2 * idf, idf, 0.0), (idf, 0.0, idf)
    by_hand = sum(map(float.__mul__, first, second)) / (math.hypot(*first) * math.hypot(*second))
    assert similar.cosines(ours[0], ours)[1] == pytest.approx(by_hand, abs=1e-6)


def test_reasons_add_up_to_the_cosine(hospital: similar.Bags) -> None:
    model = fitted(hospital)
    weights = model.weights(model.known(hospital.terms, hospital.counts()))
    for one, other in ((0, 1), (5, 9), (40, 200)):
        reasons = similar.why(weights[one], weights[other], model.terms, most=10_000)
        (cosine,) = similar.cosines(weights[one], weights[other])
        assert math.isclose(sum(adds for _, adds in reasons), cosine, abs_tol=1e-9)
        assert [adds for _, adds in reasons] == sorted((adds for _, adds in reasons), reverse=True)


def test_what_is_stored_gives_the_weights_back(hospital: similar.Bags) -> None:
    model = fitted(hospital)
    counts = model.known(hospital.terms, hospital.counts())
    kept = json.loads(json.dumps(list(sources(model, hospital.refs, counts, {}, {}))))
    again = model.matrix([(one["terms"]["ids"], one["terms"]["counts"]) for one in kept])
    assert (again != counts).nnz == 0
    assert {len(one["vector"]) for one in kept} == {model.dimensions}
    assert set(kept[0]) <= mapping(model.dimensions)["properties"].keys()


def test_a_profile_without_known_terms_has_no_vector(hospital: similar.Bags) -> None:
    """The index takes no vector of length 0 for a cosine."""
    model, strange = fitted(hospital), told("wombatsign")
    weights = model.weights(model.known(strange.terms, strange.counts()))
    assert weights.nnz == 0
    assert model.vectors(weights) == [None]


def test_the_reduction_finds_what_the_cosine_ranks(hospital: similar.Bags) -> None:
    """Candidates by the reduced vector, then exact: recall@10 of exact search, on patients of the simulator."""
    model = similar.fit(hospital.terms, hospital.counts(), 64)
    weights = model.weights(model.known(hospital.terms, hospital.counts()))
    exact = (weights @ weights.T).toarray()
    reduced = np.array(model.vectors(weights))
    near = reduced @ reduced.T
    for some in (exact, near):
        np.fill_diagonal(some, -1)
    found = [
        np.sort(exact[row][np.argsort(-near[row])[:50]])[-10:] >= np.sort(exact[row])[-10] - 1e-9
        for row in range(len(exact))
    ]
    assert np.mean(found) >= 0.95
    assert ask.CANDIDATES >= 50
