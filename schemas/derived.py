"""An event of one domain that follows from an event of another: a bed is taken because an admission says so.

It is sealed under the same patient's key, or the same source's of the week, and goes out before the event that it
follows from is acknowledged. Its id is made of that event's, so the event read again makes the same one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CONTENT_TYPE = "application/x-wardstream-derived+json"


@dataclass(frozen=True, slots=True)
class Derived:
    """Made of a record, which knows neither ids nor keys yet."""

    domain: str
    subject: int | None  # position of the patient in the record; None: about nobody
    site: str  # whose order it keeps there; empty: the source's
    body: dict[str, Any] = field(repr=False)
