"""What a model is taught and scores: rows of features. Apart from streams/learn.py, which takes a second to load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Features = Mapping[str, float | str]
YES = "yes"
MISSING = "missing="  # missing=<name> holds where a number or a word of that name is not known


@dataclass(frozen=True, slots=True)
class Row:
    """One event with what became of it. `blind`: keyed hashes that link it with a generator's truth. `groups`: such as
    `unit=CARD`, to be judged apart beside sex and age, and not learned from."""

    features: Features = field(repr=False)
    label: str
    patient: str  # reference
    at: str  # RFC 3339, UTC
    blind: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
