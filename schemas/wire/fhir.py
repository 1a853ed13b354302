"""FHIR R4 in JSON: one resource with what it refers to is one event.

The body of an event is itself a FHIR Bundle of type `collection`: `entry[0]` holds the resource that the event is
about, the others its context, each under the reference as a resource writes it (`Patient/123`, `urn:uuid:...`,
`Practitioner?identifier=system|value`). So reading never needs anything but the body.

    bytes -> load: bounded JSON -> validate: R4, by the models of fhir.resources -> Focus -> dump: body of an event
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from infra.errors import BadMessage

CONTENT_TYPE = "application/fhir+json"
MAX_DEPTH = 64  # of objects and arrays in each other; the deepest published example has 14
MAX_WIDTH = 100_000  # of one object or array
MAX_VALUES = 1_000_000  # in one resource

# Why a resource is refused: HTTP status (http.html#create) and issue type (value set issue-type). 4xx: the sender must
# mend it. 429 and 5xx: it is we who cannot take it now.
REFUSALS: dict[str, tuple[int, str]] = {
    "bad_json": (400, "structure"),
    "bad_charset": (400, "structure"),  # JSON between systems is UTF-8 (RFC 8259, 8.1)
    "json_too_deep": (400, "too-costly"),
    "json_too_wide": (400, "too-costly"),
    "too_large": (413, "too-long"),
    "unknown_resource": (400, "structure"),
    "fhir_version": (400, "not-supported"),  # R5 or STU3 that R4 cannot read
    "bad_resource": (400, "invalid"),
    "bad_reference": (400, "not-found"),
    "too_many_patients": (400, "too-costly"),
    "no_resource": (400, "required"),
    "no_such_path": (404, "not-found"),
    "not_supported": (405, "not-supported"),
    "not_acceptable": (406, "not-supported"),  # Accept
    "slow_body": (408, "timeout"),
    "bad_media_type": (415, "not-supported"),  # Content-Type, Content-Encoding
    "erased": (422, "deleted"),  # nothing of it was kept, and it must not come again
    "overloaded": (429, "throttled"),
    "internal_error": (500, "exception"),
}
_OTHER = (503, "transient")  # a reason that is not the resource's: send it again, unchanged

Resource = dict[str, Any]
_ELEMENT = re.compile(r"_?[a-z][A-Za-z0-9]{0,50}")
_FAMILIES = ("fhir.resources.R4B", "fhir.resources", "fhir.resources.STU3")  # R4, R5, STU3


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


def refusal(reason: str) -> tuple[int, str]:
    return REFUSALS.get(reason, _OTHER)


# ------------------------------------------------------------------------------------------------------- bounded JSON


def load(raw: bytes) -> Resource:
    """One JSON object, within bounds; decimals as sent. Bytes are bounded by whoever read them.

    Raises BadMessage: bad_charset, bad_json (NaN, a key twice, a number beyond a double, a lone surrogate, no object),
    json_too_deep, json_too_wide.
    """
    raw = raw.removeprefix(b"\xef\xbb\xbf")  # RFC 8259, 8.1: a reader may ignore it
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "depth" in error.msg:  # orjson's own bound: 1,024
            raise BadMessage("json_too_deep") from None
        try:
            raw.decode()
        except UnicodeDecodeError:
            raise BadMessage("bad_charset") from None
        raise BadMessage("bad_json") from None
    if not isinstance(value, dict):
        raise BadMessage("bad_json")
    _measure(value)
    try:
        loaded: Resource = json.loads(raw, object_pairs_hook=_unique, parse_float=Decimal)
        canonical(loaded)
    except (ValueError, TypeError):  # a key twice; a number of more than 64 bits
        raise BadMessage("bad_json") from None
    return loaded


def _measure(value: Resource) -> None:
    level: list[Any] = [value]
    values = depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise BadMessage("json_too_deep")
        below: list[Any] = []
        for one in level:
            values += len(one)
            if len(one) > MAX_WIDTH or values > MAX_VALUES:
                raise BadMessage("json_too_wide")
            below += [v for v in (one.values() if type(one) is dict else one) if type(v) is dict or type(v) is list]
        level = below


def _unique(pairs: list[tuple[str, Any]]) -> Resource:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError
    return made


# --------------------------------------------------------------------------------------------------------- validation


def validate(resource: Resource) -> None:
    """Refuse what is not R4: another structure, type or version. Codes are not checked: an unknown one is kept.

    An element that R4 does not know is refused too (http://hl7.org/fhir/R4/validation.html: structure); it is another
    version's or a typing error, and kept unread it would be lost quietly. Raises BadMessage with the element's path
    in `where`; the sender's own name of an unknown element is left out of it, since it may be anything.
    """
    kind = resource.get("resourceType")
    if not isinstance(kind, str):
        raise BadMessage("unknown_resource")
    model, *others = (_model(family, kind) for family in _FAMILIES)
    try:
        if model is None:
            raise BadMessage("unknown_resource")
        model.model_validate(resource)
        return
    except ValidationError as error:
        problem = BadMessage("bad_resource", _path(kind, error))
    except BadMessage as bad:
        problem = bad
    if any(_takes(other, resource) for other in others):
        raise BadMessage("fhir_version", problem.where)
    raise problem


@lru_cache(1024)
def known(kind: str) -> bool:
    """Whether R4 has such a type of resource."""
    return _model(_FAMILIES[0], kind) is not None


def _takes(model: type[BaseModel] | None, resource: Resource) -> bool:
    try:
        return model is not None and model.model_validate(resource) is not None
    except ValueError:
        return False


@cache
def _base(family: str) -> type:
    made: type = import_module(f"{family}.resource").Resource
    return made


def _model(family: str, kind: str) -> type[BaseModel] | None:
    """The model of a type of resource; never of a data type. Names come from outside: none that fails is kept."""
    if not kind.isascii() or not kind.isalpha() or len(kind) > 50:
        return None
    try:
        model: type[BaseModel] = import_module(family).get_fhir_model_class(kind)
    except (ValueError, LookupError, ImportError, AttributeError):
        return None
    return model if issubclass(model, _base(family)) and kind not in ("Resource", "DomainResource") else None


def _path(kind: str, error: ValidationError) -> str:
    """Observation.component[2].code, in FHIRPath's words."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    steps = list(first["loc"][:-1] if first["type"] == "extra_forbidden" else first["loc"])
    path = kind
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif _ELEMENT.fullmatch(step) and step != "root":
            path += f".{step}"
    return path


# --------------------------------------------------------------------------------------------------------- references


def references(value: Any) -> Iterator[str]:
    """Every Reference.reference in a resource, in no order."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if type(one) is dict:
            if type(said := one.get("reference")) is str:
                yield said
            waiting += one.values()
        elif type(one) is list:
            waiting += one
