"""The National Early Warning Score as published: Royal College of Physicians, "National Early Warning Score (NEWS) 2",
London 2017, charts 1 (the scoring system) and 2 (thresholds and triggers).

For adults of 16 years and more who are not pregnant; whether somebody is one is for the caller to know. SpO2 scale 2
is for hypercapnic respiratory failure and only on a clinician's decision (target 88-92%), so it is never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Band = Literal["low", "low-medium", "medium", "high"]

# Vital sign -> (upper bound, points) in rising order: the first bound that the value does not exceed gives the points.
_CHART: dict[str, tuple[tuple[float, int], ...]] = {
    "respiration_rate": ((8, 3), (11, 1), (20, 0), (24, 2), (math.inf, 3)),  # per minute
    "oxygen_saturation": ((91, 3), (93, 2), (95, 1), (math.inf, 0)),  # SpO2 scale 1, %
    "systolic": ((90, 3), (100, 2), (110, 1), (219, 0), (math.inf, 3)),  # mmHg
    "pulse": ((40, 3), (50, 1), (90, 0), (110, 1), (130, 2), (math.inf, 3)),  # per minute
    "temperature": ((35.0, 3), (36.0, 1), (38.0, 0), (39.0, 1), (math.inf, 2)),  # degrees Celsius
}
_SCALE_2_AIR = ((83, 3), (85, 2), (87, 1), (math.inf, 0))
_SCALE_2_OXYGEN = ((83, 3), (85, 2), (87, 1), (92, 0), (94, 1), (96, 2), (math.inf, 3))
_CONSCIOUSNESS = {"A": 0, "C": 3, "V": 3, "P": 3, "U": 3}
_OXYGEN = {"air": 0, "oxygen": 2}
VITALS = (*_CHART, "oxygen", "consciousness")


@dataclass(frozen=True, slots=True)
class News2:
    """Points in all and by vital sign, and the clinical risk. A single 3 lifts a low total to low-medium."""

    total: int
    parts: dict[str, int]
    band: Band


def news2(vitals: Mapping[str, float | str], scale2: bool = False) -> News2 | None:
    """The score of one set of vital signs, in the names and units that `vital` gives; None where one is missing.

    The chart has whole numbers, and tenths of a degree, and no value falls between two of its rows: a finer one is
    rounded half up first.
    """
    measured = {name: value for name in _CHART if isinstance(value := vitals.get(name), int | float)}
    oxygen = _OXYGEN.get(str(vitals.get("oxygen")))
    consciousness = _CONSCIOUSNESS.get(str(vitals.get("consciousness")))
    if len(measured) < len(_CHART) or oxygen is None or consciousness is None:
        return None
    parts = {name: _points(_CHART[name], value, 1 if name == "temperature" else 0) for name, value in measured.items()}
    if scale2:
        parts["oxygen_saturation"] = _points(
            _SCALE_2_OXYGEN if oxygen else _SCALE_2_AIR, measured["oxygen_saturation"], 0
        )
    parts |= {"oxygen": oxygen, "consciousness": consciousness}
    total = sum(parts.values())
    return News2(total, parts, _band(total, 3 in parts.values()))


def _points(rows: tuple[tuple[float, int], ...], value: float, decimals: int) -> int:
    scale = 10**decimals
    rounded = math.floor(value * scale + 0.5 + 1e-9) / scale  # 38.05 * 10 is a little less than 380.5
    return next(points for bound, points in rows if rounded <= bound)


def _band(total: int, three: bool) -> Band:
    if total >= 7:
        return "high"
    if total >= 5:
        return "medium"
    return "low-medium" if three else "low"


# ------------------------------------------------------------------------------------------- what feeds call the same


Units = dict[str, Callable[[float], float]]


def _fahrenheit(value: float) -> float:
    return (value - 32) / 1.8


def _kilopascal(value: float) -> float:
    return value * 7.50062  # mmHg


def _same(value: float) -> float:
    return value


_PER_MINUTE: Units = dict.fromkeys(
    ("/min", "1/min", "min-1", "{beats}/min", "{breaths}/min", "{resp}/min", "beats/min", "breaths/min", "beats/minute",
     "breaths/minute", "bpm"),
    _same,
)  # fmt: skip
_PERCENT: Units = {"%": _same}
_PRESSURE: Units = {"mm[hg]": _same, "mmhg": _same, "mm hg": _same, "kpa": _kilopascal}
_DEGREES: Units = {
    **dict.fromkeys(("cel", "degc", "deg c", "°c", "c"), _same),
    **dict.fromkeys(("[degf]", "degf", "deg f", "°f", "f"), _fahrenheit),
}
_FLOW = dict.fromkeys(("l/min", "lpm"), _same)

# LOINC -> vital sign; the codes of the FHIR vital signs profiles first, then those that older feeds send.
CODES = {
    "9279-1": "respiration_rate",
    "59408-5": "oxygen_saturation",  # by pulse oximetry
    "2708-6": "oxygen_saturation",
    "8480-6": "systolic",
    "8867-4": "pulse",
    "8310-5": "temperature",
    "8331-1": "temperature",  # oral
    "3151-8": "oxygen",  # inhaled oxygen flow rate, L/min
    "3150-0": "oxygen",  # inhaled oxygen concentration, %
    "80288-4": "consciousness",  # level of consciousness AVPU score
    "67775-7": "consciousness",  # level of responsiveness
}
# Vital sign -> units with their conversion, and what a living adult can show: beyond it is another unit, or an error.
_MEASURED: dict[str, tuple[Units, float, float]] = {
    "respiration_rate": (_PER_MINUTE, 0.0, 120.0),
    "oxygen_saturation": (_PERCENT, 10.0, 100.0),
    "systolic": (_PRESSURE, 20.0, 350.0),
    "pulse": (_PER_MINUTE, 0.0, 350.0),
    "temperature": (_DEGREES, 20.0, 46.0),
}
# Words, SNOMED CT findings (UK Core ACVPU value set) and LOINC answers of the same five states.
_STATES = {
    **dict.fromkeys(("a", "alert", "mentally alert", "248234008", "la9340-6"), "A"),
    **dict.fromkeys(("c", "confused", "confusion", "new confusion", "acute confusion", "130987000", "la6560-2"), "C"),
    **dict.fromkeys(("v", "voice", "verbal", "responds to voice", "300202002", "la17108-4"), "V"),
    **dict.fromkeys(("p", "pain", "painful", "responds to pain", "450847001", "la17107-6"), "P"),
    **dict.fromkeys(("u", "unresponsive", "422768004", "la9343-0"), "U"),
}
_BREATHES = {
    **dict.fromkeys(("air", "room air", "ra", "breathing room air", "722742002"), "air"),
    **dict.fromkeys(("oxygen", "o2", "supplemental oxygen", "patient on oxygen", "371825009"), "oxygen"),
}


def vital(code: str, value: float | str, units: str) -> tuple[str, float | str] | None:
    """The vital sign that an observation is, under its name here and in the chart's unit.

    None for what is none, for a unit that does not convert, a missing unit (98 may be Fahrenheit), and a value that no
    living adult has: a score must not be made of guesses.
    """
    name = CODES.get(code)
    if name is None:
        return None
    if name == "consciousness":
        state = _STATES.get(str(value).strip().lower())
        return (name, state) if state else None
    if isinstance(value, str) and name == "oxygen" and (breathes := _BREATHES.get(value.strip().lower())):
        return name, breathes
    try:
        number = float(value)
    except ValueError:
        return None
    units = units.strip().lower()
    if name == "oxygen":
        return _inhaled(code, number, units)
    table, low, high = _MEASURED[name]
    convert = table.get(units)
    if convert is None or not low <= (converted := convert(number)) <= high:
        return None
    return name, round(converted, 2)


def _inhaled(code: str, number: float, units: str) -> tuple[str, str] | None:
    """Oxygen beyond air: any flow, or more than the 21% of air."""
    flow = code == "3151-8"
    if not ((flow and units in _FLOW and 0 <= number <= 100) or (not flow and units == "%" and 20 <= number <= 100)):
        return None
    return "oxygen", "oxygen" if number > (0 if flow else 21) else "air"
