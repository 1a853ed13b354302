"""Privacy marks: what may be in clear, said beside every field of every record model.

`Identifying` leaves the process only sealed (or as a keyed blind index). `Clinical` and `Open` are searchable in
clear; text among them has the record's own identifiers removed first (`schemas.scrub`). A field without a mark is an
error at import time, so that a new field cannot slip out by being forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identifying:
    """Sealed under the key of the part's patient.

    `blind`: also kept as a keyed hash for exact look-up; never for a field with few possible values, whose hashes
    would tell by their frequencies. `together`: the same for two fields at once, where one alone has too few.
    """

    blind: bool = False
    together: str = ""  # the other field, of the same part: names are hashed with the date of birth


@dataclass(frozen=True, slots=True)
class Staffed:
    """Members of staff: persons with references and keys of their own, each sealed under his or hers."""


@dataclass(frozen=True, slots=True)
class Clinical:
    """Searchable health data. `text`: a sender may have typed it, so the record's identifiers are removed first."""

    text: bool = False


@dataclass(frozen=True, slots=True)
class Open:
    """Neither personal nor clinical: message types, units, sources. `text` as for Clinical."""

    text: bool = False


Mark = Identifying | Staffed | Clinical | Open
