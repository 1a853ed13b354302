"""How well negation is understood, on sentences that whoever wrote the rules has not read (samples/ehr/negation)."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

SAMPLES = Path(__file__).resolve().parent / "samples" / "ehr" / "negation"
NO = re.compile(r"\b(no|not|without|denie[sd]|negative)\b", re.IGNORECASE)


class Row(NamedTuple):
    row: str
    label: str
    concept: str
    sentence: str


class Judged(NamedTuple):
    """Of the class "negated"; the interval is of F1, 95%, by bootstrap over sentences. `kept` of `affirmed` stay so."""

    precision: float
    recall: float
    f1: float
    low: float
    high: float
    kept: int
    affirmed: int

    def __str__(self) -> str:
        said = f"precision {self.precision:.3f}, recall {self.recall:.3f}, F1 {self.f1:.3f}"
        return f"{said} ({self.low:.3f} to {self.high:.3f}), {self.kept} of {self.affirmed} affirmed ones kept"


def rows(name: str) -> list[Row]:
    with (SAMPLES / name).open(newline="") as file:
        return [Row(*row) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][1:]


DRAWN = rows("negex.tsv")
NEGATING = [row for row in DRAWN if NO.search(row.sentence)] + rows("negex_negating.tsv")


def judge(given: Sequence[Row], says_negated: Callable[[str, str], bool]) -> Judged:
    said = np.array([says_negated(row.sentence, row.concept) for row in given])
    true = np.array([row.label == "negated" for row in given])

    def figures(at: slice | np.ndarray) -> tuple[float, float, float]:
        both, found, there = int((said & true)[at].sum()), int(said[at].sum()), int(true[at].sum())
        return both / max(1, found), both / max(1, there), 2 * both / max(1, found + there)

    chance = np.random.default_rng(6)
    drawn = [figures(chance.integers(0, len(given), len(given)))[2] for _ in range(2000)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Judged(*figures(slice(None)), float(low), float(high), int((~said & ~true).sum()), int((~true).sum()))


def any_no(sentence: str, concept: str) -> bool:
    """The baseline: a word of negation anywhere in the sentence."""
    return NO.search(sentence) is not None


def test_the_sets_are_what_their_page_says() -> None:
    other, page = rows("negex_negating.tsv"), (SAMPLES / "LICENCES.md").read_text()
    assert f"{len(DRAWN)} and {len(other)} of the 2,376" in page
    assert (len(DRAWN), sum(row.label == "negated" for row in DRAWN)) == (277, 66)
    both = DRAWN + other
    assert {row.label for row in both} == {"negated", "affirmed"}
    assert all(row.concept in row.sentence for row in both)
    assert all(NO.search(row.sentence) for row in other)
    assert len({(row.sentence.lower(), row.concept.lower()) for row in both}) == len(both)
    assert not any(re.search(r"\*\*\w+\[|S_O_H", row.sentence) for row in both)


def test_the_measure_by_hand() -> None:
    everything = judge(DRAWN, lambda sentence, concept: True)
    assert everything[:3] == pytest.approx((66 / 277, 1, 2 * 66 / (277 + 66)))
    assert (everything.kept, everything.affirmed) == (0, 211)
    assert judge(DRAWN, lambda sentence, concept: False)[:3] == (0, 0, 0)
    assert judge(NEGATING, any_no).kept == 0


@pytest.mark.parametrize("drawn", [True, False], ids=["as drawn", "with a negating word"])
def test_negation_on_sentences_that_the_rules_never_met(drawn: bool) -> None:
    """As drawn the baseline is good: most sentences with a "no" negate all that is in them. The others tell more."""
    notes = pytest.importorskip("streams.ehr.notes")
    given = DRAWN if drawn else NEGATING
    ours, baseline = judge(given, lambda *of: notes.assertion(*of) == "negated"), judge(given, any_no)
    print(f"\nours: {ours}\nany negating word: {baseline}")
    assert ours.f1 >= 0.9
    assert drawn or ours.f1 > baseline.f1
