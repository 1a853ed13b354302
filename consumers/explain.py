"""Why a hit has its score: Elasticsearch's explanation, term by term, in fewer and plainer words. Pure.

A score is the sum over the terms of boost * idf * tf (BM25: Robertson and Zaragoza 2009, as Lucene's
BM25Similarity has it). The boost of a plain term is k1 + 1 = 2.2; a name of a thing counts twice, 4.4. The length of a
field is kept in one byte: exact below 40 words, above rounded down by less than an eighth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

_WEIGHT = re.compile(r"weight\((?P<field>[\w.]+):(?P<term>.*) in \d+\)", re.DOTALL)
_CONSTANT = re.compile(r"\W*(?:ConstantScore\()?\W*(?P<field>[a-z_]+(?:\.keyword)?):")
# How the explanation names what it multiplies, and how we do.
_FIGURES = {
    "boost": "boost",
    "idf": "idf",
    "tf": "tf",
    "N": "of",
    "freq": "times",
    "phraseFreq": "times",
    "dl": "length",
    "avgdl": "average_length",
}


@dataclass(frozen=True, slots=True)
class Weight:
    """What one term, phrase or condition adds. A condition without weights (a range, a number) has its score alone."""

    field: str
    score: float
    term: str = ""
    boost: float = 0.0
    idf: float = 0.0
    documents: tuple[int, ...] = ()  # that have the term; of a phrase, each of its terms
    of: int = 0  # documents with the field
    tf: float = 0.0
    times: float = 0.0
    length: float = 0.0  # of the field, in terms
    average_length: float = 0.0

    def line(self) -> str:
        if not self.term:
            return f"{self.score:.4f} {self.field or 'everything'}: the same for all hits"
        having = " and ".join(str(one) for one in self.documents)
        return (
            f'{self.score:.4f} "{self.term}" in {self.field} = boost {self.boost:.4g}'
            f" * idf {self.idf:.4f} (in {having} of {self.of} documents)"
            f" * tf {self.tf:.4f} ({self.times:g} times in {self.length:g} words, on average {self.average_length:.4g})"
        )

    def row(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value}


def weights(explanation: dict[str, Any]) -> list[Weight]:
    """The weights whose sum is the score, largest first. Of fields that a word was looked for in, the best counts."""
    return sorted(_weights(explanation), key=lambda one: one.score, reverse=True)


def _weights(node: dict[str, Any]) -> Iterator[Weight]:
    said, score, parts = node["description"], node["value"], node.get("details", [])
    if not score:  # a filter
        return
    if said.startswith("max of") and parts:
        yield from _weights(max(parts, key=lambda part: float(part["value"])))
    elif found := _WEIGHT.match(said):
        yield _weight(found["field"], found["term"].strip('"'), score, parts)
    elif said.startswith("sum of"):
        for part in parts:
            yield from _weights(part)
    else:
        constant = _CONSTANT.match(said)
        yield Weight(constant["field"] if constant else "", score)


def _weight(field: str, term: str, score: float, parts: list[dict[str, Any]]) -> Weight:
    figures: dict[str, Any] = {}
    documents: list[int] = []
    for part in _below(parts):
        name = re.split(r"[,=\s]", part["description"], maxsplit=1)[0]
        if name == "n":
            documents.append(int(part["value"]))
        elif name in _FIGURES:
            figures[_FIGURES[name]] = part["value"]
    return Weight(field, score, term, documents=tuple(documents), **figures)


def _below(parts: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Everything below, what is nearer the top later: the idf of a phrase is the sum of those of its terms."""
    for part in parts:
        yield from _below(part.get("details", []))
        yield part
