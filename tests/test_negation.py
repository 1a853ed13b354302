"""How well negation is understood, on sentences that whoever wrote the rules has not read (samples/ehr/negation)."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

SAMPLES = Path(__file__).resolve().parent / "samples" / "ehr" / "negation"
NO = re.compile(r"\b(no|not|without|denie[sd]|negative)\b", re.IGNORECASE)


class Judged(NamedTuple):
    """Of the class "negated"; the interval is of F1, 95%, by bootstrap over sentences."""

    precision: float
    recall: float
    f1: float
    low: float
    high: float


def rows() -> list[dict[str, str]]:
    with (SAMPLES / "negex.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def judge(says_negated: Callable[[str, str], bool]) -> Judged:
    import numpy as np

    given = rows()
    said = np.array([says_negated(row["sentence"], row["concept"]) for row in given])
    true = np.array([row["label"] == "negated" for row in given])

    def figures(said: np.ndarray, true: np.ndarray) -> tuple[float, float, float]:  # type: ignore[type-arg]
        both = int((said & true).sum())
        precision, recall = both / max(1, int(said.sum())), both / max(1, int(true.sum()))
        return precision, recall, 2 * both / max(1, int(said.sum() + true.sum()))

    chance = np.random.default_rng(6)
    drawn = (chance.integers(0, len(given), len(given)) for _ in range(2000))
    low, high = np.quantile([figures(said[at], true[at])[2] for at in drawn], (0.025, 0.975))
    return Judged(*figures(said, true), float(low), float(high))


def any_no(sentence: str, concept: str) -> bool:
    """The baseline: a word of negation anywhere in the sentence."""
    return NO.search(sentence) is not None


def test_the_set_is_what_its_page_says() -> None:
    given = rows()
    assert len(given) == 278
    assert sum(row["label"] == "negated" for row in given) == 66
    assert {row["label"] for row in given} == {"negated", "affirmed"}
    assert all(row["concept"] in row["sentence"] for row in given)
    assert len({(row["sentence"].lower(), row["concept"].lower()) for row in given}) == len(given)
    assert not any(re.search(r"\*\*\w+\[", row["sentence"]) for row in given)


def test_the_measure_by_hand() -> None:
    assert judge(lambda sentence, concept: True)[:3] == pytest.approx((66 / 278, 1, 2 * 66 / (278 + 66)))
    assert judge(lambda sentence, concept: False)[:3] == (0, 0, 0)


def test_negation_on_sentences_that_the_rules_never_met() -> None:
    notes = pytest.importorskip("streams.ehr.notes")
    ours, baseline = judge(lambda *given: notes.assertion(*given) == "negated"), judge(any_no)
    for name, found in (("ours", ours), ("any negating word", baseline)):
        figures = f"precision {found.precision:.3f}, recall {found.recall:.3f}, F1 {found.f1:.3f}"
        print(f"{name}: {figures} ({found.low:.3f} to {found.high:.3f})")
    assert ours.f1 >= 0.9
    assert ours.f1 > baseline.f1
