"""Scores explained: the weights of Elasticsearch's explanation, and BM25 worked out by hand beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consumers.explain import Weight, weights
from infra.elastic import client
from schemas.registry import DOMAINS

Run = Callable[..., Any]
K1, B = 1.2, 0.75  # Elasticsearch's defaults


def node(value: float, description: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"value": value, "description": description, "details": list(details)}


def weight(value: float, field: str, term: str, *figures: dict[str, Any]) -> dict[str, Any]:
    said = f"weight({field}:{term} in 5) [PerFieldSimilarity], result of:"
    return node(value, said, node(value, "score(freq=2.0), computed as boost * idf * tf from:", *figures))


def idf(value: float, n: int, of: int) -> dict[str, Any]:
    said = "idf, computed as log(1 + (N - n + 0.5) / (n + 0.5)) from:"
    parts = node(n, "n, number of documents containing term"), node(of, "N, total number of documents with field")
    return node(value, said, *parts)


TF = node(
    0.5,
    "tf, computed as freq / (freq + k1 * (1 - b + b * dl / avgdl)) from:",
    node(2.0, "phraseFreq=2.0"),
    node(1.2, "k1, term saturation parameter"),
    node(0.75, "b, length normalization parameter"),
    node(11.0, "dl, length of field (approximate)"),
    node(5.5, "avgdl, average length of field"),
)


def test_of_fields_the_best_counts_and_filters_add_nothing() -> None:
    made = weights(
        node(
            2.0,
            "sum of:",
            node(1.25, "max of:", weight(1.25, "display", "chest"), weight(0.9, "text", "chest")),
            weight(0.75, "text", "pain"),
            node(0.0, "match on required clause, product of:", node(0.0, "# clause"), node(1.0, "patient_ref:abc")),
        )
    )
    assert [(one.field, one.term, one.score) for one in made] == [("display", "chest", 1.25), ("text", "pain", 0.75)]


def test_a_phrase_has_the_idf_of_its_words_together() -> None:
    (made,) = weights(
        weight(
            1.5,
            "text",
            '"chest pain"',
            node(2.2, "boost"),
            node(1.3, "idf, sum of:", idf(0.7, 3, 6), idf(0.6, 4, 6)),
            TF,
        )
    )
    assert made == Weight("text", 1.5, "chest pain", 2.2, 1.3, (3, 4), 6, 0.5, 2.0, 11.0, 5.5)
    assert "in 3 and 4 of 6 documents" in made.line()


@pytest.mark.parametrize("said", ["ConstantScore(blind:9f2c)^10.0", "blind:(9f2c 77aa)^10.0"])
def test_a_number_that_was_looked_up_shows_no_hash(said: str) -> None:
    (made,) = weights(node(10.0, said))
    assert made.line() == "10.0000 blind: the same for all hits"
    assert made.row() == {"field": "blind", "score": 10.0}


def test_everything() -> None:
    assert weights(node(1.0, "*:*"))[0].line() == "1.0000 everything: the same for all hits"


# ---------------------------------------------------------------------------------------------------------- the index

BODY = (
    "MSH|^~\\&|WHY|ER|US|HERE|20260301120000||ORU^R01|WHY{number}|P|2.5\r"
    "PID|1||WY700{number}^^^HOSP^MR||Zelentropp^Ilse||19800101|F\r"
    "OBR|1||L1|X^Report^L\r"
    "OBX|1|TX|NOTE^Note^L||{text}||||||F\r"
)
PADDING = "the heart has a regular rhythm and the lungs are clear on both sides of the chest "
TEXTS = (
    "Zumbrella pain in the chest, zumbrella pain after exercise",
    "no zumbrella pain",
    "possible zumbrella pain, HTN",
    "Mother had zumbrella pain.",
    "患者胸痛三天，无发热",
    "患者胸部皮疹，腹痛三天",
    ("zumbrella " + PADDING * 6).strip(),
)


@pytest.fixture(scope="module")
def sent(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    for number, text in enumerate(TEXTS):
        body = BODY.format(number=number, text=text).replace("|P|2.5\r", "|P|2.5||||||GB18030\r")
        (folder / f"{number}.hl7").write_bytes(body.encode("gb18030"))
    command("produce", "files", str(folder), "--manifest", str(folder / "out.jsonl"))
    outcomes = [json.loads(line)["outcome"] for line in (folder / "out.jsonl").read_text().splitlines()]
    assert outcomes == ["indexed"] * len(TEXTS)
    return stack


def searched(command: Run, *arguments: str) -> list[dict[str, Any]]:
    done = command("search", *arguments, "--kind", "observation", "--filter", "message_type=ORU", "--json")
    assert done.returncode == 0, done.stderr
    hits: list[dict[str, Any]] = json.loads(done.stdout)["hits"]
    return hits


def texts(command: Run, query: str) -> set[int]:
    """Which of TEXTS a query finds."""
    return {TEXTS.index(hit["value_text"]) for hit in searched(command, query)}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('"zumbrella pain"', {0, 1, 2, 3}),
        ('has:"zumbrella pain"', {0, 1, 2, 3}),
        ('has:"zumbrella pain" -negated', {0, 2, 3}),
        ('has:"zumbrella pain" -negated -family', {0, 2}),
        ('has:"zumbrella pain" -negated -uncertain -family', {0}),
        ('negated:"zumbrella pain"', {1}),
        ('affirmed:"zumbrella pain"', {0}),
        ("family:zumbrella", {3}),
        ("zumbrella has:HTN", {2}),
        ("zumbrella has:hypertension", {2}),
        ('zumbrella -has:"zumbrella pain"', {6}),
        ("胸痛", {4}),
        ("has:胸痛", {4}),
        ("affirmed:胸痛", {4}),
        ("negated:发热 胸痛", {4}),
    ],
)
def test_search(sent: Path, command: Run, query: str, found: set[int]) -> None:
    """Who has no chest pain is not among those who have it, when asked so; Chinese words are found as words."""
    assert texts(command, query) == found


def encoded(length: int) -> int:
    """A field's length as Lucene keeps it in a byte (SmallFloat.intToByte4): exact below 40, then four bits of it."""
    free = 24  # 255 - the byte that the greatest int would take
    if length < free:
        return length
    shift = max(0, (length - free).bit_length() - 4)
    return ((length - free) >> shift << shift) + free


def by_hand(freq: float, length: int, average: float, idf: float, boost: float = 1.0) -> float:
    return boost * (K1 + 1) * idf * freq / (freq + K1 * (1 - B + B * encoded(length) / average))


@pytest.mark.parametrize("term", ["zumbrella", "pain", "chest"])
def test_bm25_is_the_hand_formula_and_the_explanation(sent: Path, command: Run, term: str) -> None:
    """From term vectors, which know frequencies and lengths but no score. Lucene works in single precision."""
    hits = searched(command, f"affirmed:{term}", "--explain", "--size", "10000")
    ours = [hit for hit in hits if "zumbrella" in hit["value_text"].lower()]
    exact = set()
    for hit in ours:
        with client() as server:
            vector = server.termvectors(
                index=DOMAINS["ehr"].alias,
                id=hit["id"],
                fields=["affirmed"],
                field_statistics=True,
                term_statistics=True,
            )["term_vectors"]["affirmed"]
        field, one = vector["field_statistics"], vector["terms"][term]
        length = sum(each["term_freq"] for each in vector["terms"].values())
        exact.add(encoded(length) == length)
        of, n = field["doc_count"], one["doc_freq"]
        idf = math.log(1 + (of - n + 0.5) / (n + 0.5))
        wanted = by_hand(one["term_freq"], length, field["sum_ttf"] / of, idf)
        assert hit["score"] == pytest.approx(wanted, rel=1e-5)
        (row,) = hit["explanation"]
        assert row["score"] == pytest.approx(hit["score"], rel=1e-6)
        assert row["boost"] * row["idf"] * row["tf"] == pytest.approx(wanted, rel=1e-5)
        assert (row["documents"], row["of"], row["times"]) == ([n], of, one["term_freq"])
        assert row["length"] == encoded(length)
    assert exact == ({True} if term == "pain" else {True, False})


@pytest.mark.parametrize(
    "query", ["zumbrella pain", '"zumbrella pain"', "has:zumbrella unit:none zumbrella", "id:WY7000", "*"]
)
def test_the_weights_sum_to_the_score(sent: Path, command: Run, query: str) -> None:
    for hit in searched(command, query, "--explain"):
        assert sum(row["score"] for row in hit["explanation"]) == pytest.approx(hit["score"], rel=1e-5)
        assert "patient_ref" not in {row["field"] for row in hit["explanation"] if "field" in row}


def test_explained_for_people(sent: Path, command: Run) -> None:
    done = command("search", 'affirmed:"zumbrella pain"', "--explain")
    assert '"zumbrella pain" in affirmed = boost 2.2 * idf' in done.stdout


def test_an_explanation_counts_others_and_is_in_no_safe_harbor_view(sent: Path, command: Run) -> None:
    done = command("search", "code:NOTE", "--explain", "--role", "researcher")
    assert done.returncode == 10
    assert "explanation" in done.stderr


@pytest.mark.parametrize("query", ["has:fever", "affirmed:fever", "negated:fever", "sections:plan"])
def test_who_may_not_search_text_may_not_search_what_it_says(sent: Path, command: Run, query: str) -> None:
    for role in ("researcher", "quality_officer", "bed_manager"):
        assert command("search", query, "--role", role).returncode == 10
