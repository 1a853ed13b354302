"""FHIR R4 in JSON: one resource with what it refers to is one event.

The body of an event is itself a FHIR Bundle of type `collection`: `entry[0]` holds the resource that the event is
about, the others its context, each under the reference as a resource writes it (`Patient/123`, `urn:uuid:...`,
`Practitioner?identifier=system|value`). So reading never needs anything but the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson

from infra.errors import BadMessage

CONTENT_TYPE = "application/fhir+json"

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Focus:
    """A resource, and by reference what it and its context refer to. `url` is its own fullUrl, empty for none."""

    resource: Resource = field(repr=False)
    context: Mapping[str, Resource] = field(default_factory=dict, repr=False)
    url: str = ""


def focus(body: bytes) -> Focus:
    """The inverse of `dump`. Decimals come as floats: the bytes hold them as sent. Raises BadMessage("bad_json")."""
    try:
        first, *others = orjson.loads(body)["entry"]
        return Focus(first["resource"], {one["fullUrl"]: one["resource"] for one in others}, first.get("fullUrl", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadMessage("bad_json") from None


def dump(made: Focus) -> bytes:
    """The body of an event: equal resources with equal context give equal bytes."""
    first: Resource = {"fullUrl": made.url} if made.url else {}
    entries = [first | {"resource": made.resource}]
    entries += [{"fullUrl": reference, "resource": made.context[reference]} for reference in sorted(made.context)]
    return canonical({"resourceType": "Bundle", "type": "collection", "entry": entries})


def canonical(value: Any) -> bytes:
    """JSON with sorted keys; a Decimal keeps the digits it came with (FHIR: the precision of a decimal matters)."""
    return orjson.dumps(value, default=_decimal, option=orjson.OPT_SORT_KEYS)


def _decimal(value: Any) -> orjson.Fragment:
    if not isinstance(value, Decimal):
        raise TypeError
    return orjson.Fragment(str(value))
