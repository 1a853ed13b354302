"""The index of what is worked out of a whole site: plans proposed and accepted, forecasts, what is raised.

One document each a site, overwritten; what they said before is on the signals' topic. Persons are in them by reference
alone, so an erasure deletes such a document whole, and the next plan is without the person.
"""

from __future__ import annotations

import hashlib
from typing import Any

from schemas.registry import DOMAINS

OF = DOMAINS["allocation"]
ALIAS = f"{OF.name}-sites"  # begins as the domain's own indices do: an erasure goes through all of these
INDEX = f"{ALIAS}-1"
PROPOSED, ACCEPTED, WITHDRAWN, RAISED = "proposed", "accepted", "withdrawn", "raised"  # states
EXPECTED = "expected"  # state of a forecast
PLAN, ALERTS, FORECAST = "plan", "alerts", "forecast"  # kinds

_WORD, _NUMBER, _KEPT = {"type": "keyword"}, {"type": "double"}, {"type": "object", "enabled": False}


def number(state: str, site: str) -> str:
    """Id of the document; a hash, since a house may be called anything."""
    return f"{state}-{hashlib.sha256(site.encode()).hexdigest()[:32]}"


def mapping() -> dict[str, Any]:
    """What is only shown is kept as it is (`enabled: false`): a plan has hundreds of lines and is written often."""
    raised = dict.fromkeys(("signal", "unit", "of"), _WORD) | {"since": {"type": "date"}}
    return {
        "dynamic": "strict",
        "properties": {
            "kind": _WORD,
            "state": _WORD,
            "site": _WORD,
            "event_time": {"type": "date"},  # the moment that it is of
            "patient_ref": _WORD,  # everybody who is named
            "staff_ref": _WORD,
            "plan": _WORD,  # id: changes with what is to be done
            "status": _WORD,
            "cost": _NUMBER,
            "bound": _NUMBER,
            "gap": _NUMBER,
            "costs": _KEPT,
            "seconds": _NUMBER,
            "waiting": {"type": "integer"},
            "actions": {"type": "integer"},
            "lines": _KEPT,
            "breaches": _KEPT,
            "conflict": _KEPT,
            "accepted_at": {"type": "date"},
            "accepted_by": _WORD,
            "raised": {"properties": raised},
            "untold": _KEPT,  # what is to be told on the signals' topic: again, by whoever finds it after a kill -9
            "persons": _KEPT,  # patients by the stay or request that a breach or a conflict names
            "units": _KEPT,
        },
    }
