"""The index of charts of outcomes: one document a unit or procedure and measure, overwritten as outcomes come.

What a chart said before is on the signals' topic. Whose outcomes drove a signal is in a document by reference, so an
erasure deletes it whole, and the next one is without the person.
"""

from __future__ import annotations

import hashlib
from typing import Any

from schemas.registry import DOMAINS

OF = DOMAINS["quality"]
ALIAS = f"{OF.name}-charts"  # begins as the domain's own indices do: an erasure goes through all of these
INDEX = f"{ALIAS}-1"
CHART, FOLLOWED = "chart", "site"  # kinds: a chart; a site that a worker follows
RAISED, WITHDRAWN = "raised", "withdrawn"  # states of a signal

_WORD, _NUMBER, _KEPT = {"type": "keyword"}, {"type": "double"}, {"type": "object", "enabled": False}
_COUNT = {"type": "integer"}


def number(*of: str) -> str:
    """Id of a document; a hash, since units may be called anything."""
    return hashlib.sha256("\x1f".join(of).encode()).hexdigest()[:32]


def mapping() -> dict[str, Any]:
    words = ("kind", "site", "scope", "name", "measure", "patient_ref")
    counts = ("partition", "cases", "events", "certain", "early", "unscored", "raised")
    numbers = (
        ("expected", "ratio", "ratio_low", "ratio_high", "upper", "upper_limit", "lower", "lower_limit")
        + ("vlad", "vlad_low", "vlad_high")
    )  # fmt: skip
    return {
        "dynamic": "strict",
        "properties": dict.fromkeys(words, _WORD)
        | dict.fromkeys(counts, _COUNT)
        | dict.fromkeys(numbers, _NUMBER)
        | {
            "event_time": {"type": "date"},  # of the site, when the chart was drawn
            "since": {"type": "date"},  # from when on outcomes count
            "signalled_at": {"type": "date"},  # the latest signal
            "signals": _KEPT,
            "design": _KEPT,
            "stages": _KEPT,  # limits with the mixes that they were found on
            "untold": _KEPT,  # signals to be told: again, by whoever finds them after a kill -9
        },
    }
