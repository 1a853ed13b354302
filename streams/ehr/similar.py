"""Patients like this one: what is told of each as a bag of terms, weighed by TF-IDF and compared by the cosine.

A profile is the words and codes of all documents of one patient, from the fields that are in clear: their text has had
what identifies somebody removed (`schemas.scrub`). Weights and cosines are those of scikit-learn's TfidfTransformer.
For an approximate search in an index the weights are reduced by a truncated singular value decomposition (latent
semantic analysis: Deerwester et al. 1990); what is found there is ranked again by the exact cosine. Pure.

A vocabulary outlives its patients, so it may tell of none of them: a term is kept only where SMALLEST patients have it,
and never where it looks like a number of somebody.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from infra.errors import UsageError
from schemas.marks import Clinical, Mark
from schemas.span import REMOVED

SMALLEST = 5  # patients that must have a term before the vocabulary does
DIMENSIONS = 256  # of the reduced vector; docs/similar.md has what was measured
SEED = 1
ADMINISTRATIVE = frozenset(("payers", "reference_range"))  # text that tells nothing of the patient's health
FAINT = 1e-6  # a reduced vector shorter than this has no direction

_HAN = r"\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_HAN}]+|[^\W_{_HAN}]+")
_LONGEST = 40
_LONGEST_CODE = 80
_DIGITS = 3  # in a word: hba1c, v4 and t12 are words, 4711 and mrn123 are numbers of something
_CODE_DIGITS = 5  # in a code that names no system

Bag = Counter[str]


def text_fields(marks: Mapping[str, Mark]) -> tuple[str, ...]:
    """The clear text of a domain that tells of a patient's health."""
    told = (name for name, mark in marks.items() if isinstance(mark, Clinical) and mark.text)
    return tuple(sorted(set(told) - ADMINISTRATIVE))


def bag(document: Mapping[str, Any], fields: Iterable[str]) -> Bag:
    """The terms of one document: words of its text, and its code as `system|code`."""
    found: Bag = Counter()
    for name in fields:
        value = document.get(name)
        for text in [value] if isinstance(value, str) else value or ():
            found.update(words(text))
    if code := document.get("code"):
        system = document.get("code_system", "")
        if len(term := f"{system}|{code}") <= _LONGEST_CODE and (system or _digits(code) < _CODE_DIGITS):
            found[term] += 1
    return found


def words(text: str) -> Iterator[str]:
    """Words in lower case; of Chinese, which puts no space between them, every two characters that are neighbours."""
    for token in _TOKEN.findall(unicodedata.normalize("NFKC", text.replace(REMOVED, " ")).lower()):
        if "\u3400" <= token[0] <= "\u9fff" or "\uf900" <= token[0] <= "\ufaff":
            yield from (token[at : at + 2] for at in range(max(1, len(token) - 1)))
        elif 1 < len(token) <= _LONGEST and not token.isdigit() and _digits(token) < _DIGITS:
            yield token


def _digits(term: str) -> int:
    return sum(map(str.isdigit, term))


class Bags:
    """The profiles of many patients as they are read, document by document, in any order."""

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = fields
        self._rows: dict[str, int] = {}
        self._columns: dict[str, int] = {}
        self._row, self._column, self._count = array("i"), array("i"), array("i")

    def add(self, ref: str, document: Mapping[str, Any]) -> None:
        self.add_bag(ref, bag(document, self._fields))

    def add_bag(self, ref: str, found: Bag) -> None:
        row, columns = self._rows.setdefault(ref, len(self._rows)), self._columns
        for term, count in found.items():
            self._row.append(row)
            self._column.append(columns.setdefault(term, len(columns)))
            self._count.append(count)

    @property
    def refs(self) -> list[str]:
        """Patients in the order of the rows."""
        return list(self._rows)

    @property
    def terms(self) -> list[str]:
        """Terms in the order of the columns."""
        return list(self._columns)

    def counts(self) -> Any:
        """Patients x terms, how often each has each: a sparse matrix of integers."""
        count, row, column = (np.array(one, np.int32) for one in (self._count, self._row, self._column))
        shape = (len(self._rows), len(self._columns))
        return sparse.csr_matrix((count, (row, column)), shape=shape)


@dataclass(frozen=True)
class Model:
    """A fitted vocabulary: its terms in order, and scikit-learn's weights and reduction of them."""

    terms: tuple[str, ...]
    tfidf: TfidfTransformer
    svd: TruncatedSVD

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Model:
        return cls(tuple(kept["terms"].tolist()), kept["tfidf"], kept["svd"])

    def kept(self) -> dict[str, Any]:
        """What a model store keeps: an array and estimators, since a file of many thousand single strings is slow."""
        return {"terms": np.array(self.terms), "tfidf": self.tfidf, "svd": self.svd}

    @cached_property
    def columns(self) -> dict[str, int]:
        return {term: column for column, term in enumerate(self.terms)}

    @property
    def dimensions(self) -> int:
        return int(self.svd.components_.shape[0])

    def matrix(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Any:
        """Profiles x vocabulary, from the numbers of each one's terms and their counts."""
        ends = np.cumsum([0, *(len(ids) for ids, _ in rows)])
        ids = np.fromiter((one for some, _ in rows for one in some), np.int32)
        counts = np.fromiter((one for _, some in rows for one in some), np.int32)
        return sparse.csr_matrix((counts, ids, ends), shape=(len(rows), len(self.terms)))

    def known(self, terms: Sequence[str], counts: Any) -> Any:
        """Profiles x any terms as profiles x vocabulary: what the vocabulary has not is left out."""
        found = [(self.columns[term], column) for column, term in enumerate(terms) if term in self.columns]
        shape = (len(terms), len(self.terms))
        to, at = zip(*found, strict=True) if found else ((), ())
        made = counts @ sparse.csr_matrix((np.ones(len(found), np.int32), (at, to)), shape=shape)
        made.sort_indices()
        return made

    def weights(self, counts: Any) -> Any:
        """TF-IDF of counts in the vocabulary, each row of length 1: so that a product of two is their cosine."""
        return self.tfidf.transform(counts)

    def vectors(self, weights: Any) -> list[list[float] | None]:
        """The reduced vectors, of length 1; None for a profile that has no direction there."""
        reduced = self.svd.transform(weights)
        lengths = np.linalg.norm(reduced, axis=1)
        return [
            (row / length).astype(np.float32).tolist() if length > FAINT else None
            for row, length in zip(reduced, lengths, strict=True)
        ]


def fit(terms: Sequence[str], counts: Any, dimensions: int = DIMENSIONS) -> Model:
    """Fit vocabulary, weights and reduction on profiles x terms. Raises UsageError for too few patients."""
    patients = np.bincount(counts.indices[counts.data > 0], minlength=len(terms))
    kept = sorted((term, column) for column, term in enumerate(terms) if patients[column] >= SMALLEST)
    dimensions = min(dimensions, len(kept) - 1, counts.shape[0] - 1)
    if dimensions < 2:
        raise UsageError(f"too few patients: no three terms are shared by {SMALLEST} of them")
    tfidf, svd = TfidfTransformer(), TruncatedSVD(dimensions, random_state=SEED)
    svd.fit(tfidf.fit_transform(counts.tocsc()[:, [column for _, column in kept]].tocsr()))
    svd.components_ = svd.components_.astype(np.float32)
    return Model(tuple(term for term, _ in kept), tfidf, svd)


def cosines(query: Any, rows: Any) -> list[float]:
    """The exact cosine of one row of weights with each of others."""
    found: list[float] = (rows @ query.T).toarray().ravel().tolist()
    return found


def why(query: Any, row: Any, terms: Sequence[str], most: int) -> list[tuple[str, float]]:
    """The terms that two rows of weights share, by what each adds to their cosine; they add up to it."""
    shared = query.multiply(row).tocsr()
    order = np.argsort(-shared.data, kind="stable")[:most]
    return [(terms[shared.indices[at]], float(shared.data[at])) for at in order]
