"""FHIR's data types in HL7 v2's words: CodeableConcept as CWE, Quantity as number and units, times as instants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from schemas.wire.fhir import Resource as Json
from streams.ehr import codes
from streams.ehr.fhir_person import each
from streams.ehr.hl7v2 import OLDEST_AGE


def concept(value: Any, *, both: bool = False) -> dict[str, str]:
    """A CodeableConcept or Coding as CWE: code, display, code_system; the next coding's code beside it if `both`."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, str):
        return {"code": value}
    if not isinstance(value, dict):
        return {}
    codings = [one for one in each(value.get("coding", value if "code" in value else None)) if one.get("code")]
    chosen = next((one for one in codings if one.get("userSelected")), codings[0] if codings else {})
    shown = (chosen.get("display"), value.get("text"), *(one.get("display") for one in each(value.get("coding"))))
    named: dict[str, str] = {
        "code": str(chosen.get("code") or ""),
        "display": next(filter(None, shown), ""),
        "code_system": codes.system(chosen.get("system") or ""),
    }
    if both:
        named["alternate_code"] = next((one["code"] for one in codings if one["code"] != chosen["code"]), "")
    return {name: said for name, said in named.items() if said}


def code_of(value: Any) -> str:
    """The code of a CodeableConcept or Coding, empty where it has none."""
    return concept(value).get("code", "") if value else ""


def said_by(value: Any) -> str:
    """What a CodeableConcept says in words; its code where it says nothing."""
    coded = concept(value)
    return coded.get("display") or coded.get("code") or ""


def all_codes(values: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(code_of, values))))


def translated(value: Any, table: Mapping[str, str]) -> str:
    """A code of another table than HL7 v2's; one that is HL7 v2's already stays."""
    coded = concept(value)
    code = coded.get("code", "")
    return code if coded.get("code_system", "").startswith("HL7") else table.get(code, code)


def patient_class(value: Any) -> str:
    return translated(value, codes.PATIENT_CLASS)


def categories(extension: Json | None) -> tuple[str, ...]:
    """Codes of us-core-race and us-core-ethnicity: ombCategory and detailed."""
    inner = each((extension or {}).get("extension"))
    return tuple(code for one in inner if (code := str((one.get("valueCoding") or {}).get("code") or "")))


def coded_within(extension: Json | None, url: str) -> str:
    inner = each((extension or {}).get("extension"))
    return next((code_of(one.get("valueCodeableConcept")) for one in inner if one.get("url") == url), "")


def language(patient: Json) -> str:
    spoken = sorted(each(patient.get("communication")), key=lambda one: not one.get("preferred"))
    return code_of(spoken[0].get("language")) if spoken else ""


def amount(quantity: Json) -> float | None:
    value = quantity.get("value")
    return float(value) if isinstance(value, int | float) else None


def units(quantity: Json) -> str:
    """As sent: the code, else the text."""
    return str(quantity.get("code") or quantity.get("unit") or "")


def reference_range(value: Json) -> str:
    """OBX-7: low-high, <high, >low; the text where there is one."""
    if text := value.get("text"):
        return str(text)
    low, high = (_written((value.get(end) or {}).get("value")) for end in ("low", "high"))
    if low and high:
        return f"{low}-{high}"
    return f"<{high}" if high else f">{low}" if low else ""


def _written(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def at_path(node: Any, path: tuple[str, ...] | list[str]) -> Any:
    for name in path:
        if not isinstance(node, dict):
            return None
        node = node.get(name)
    return node


def instant(text: Any, zone: str) -> datetime | None:
    """A date, dateTime or instant of any precision in UTC, from its beginning; None for what is none."""
    return _parsed(text, zone) if isinstance(text, str) else None


_BEGINNING = {4: "-01-01", 7: "-01"}  # of a year, of a month


@lru_cache(8192)
def _parsed(text: str, zone: str) -> datetime | None:
    try:
        made = datetime.fromisoformat(text + _BEGINNING.get(len(text), ""))
        return (made if made.tzinfo else made.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def age(born: datetime, at: datetime) -> int | None:
    years = at.year - born.year - ((at.month, at.day) < (born.month, born.day))
    return min(years, OLDEST_AGE) if years >= 0 else None
