"""NEWS2 equals the published chart on every value of it; vital signs come into its units or not at all."""

from __future__ import annotations

import math

import pytest

from streams.ehr.news2 import CODES, VITALS, news2, vital

WELL: dict[str, float | str] = {
    "respiration_rate": 16, "oxygen_saturation": 97, "oxygen": "air", "systolic": 120, "pulse": 70,
    "consciousness": "A", "temperature": 37.0,
}  # fmt: skip

# Royal College of Physicians, NEWS2, London 2017, chart 1, written down row by row: points -> first and last value of
# each of its cells, in the order of the chart (3 2 1 0 1 2 3).
CHART: dict[str, list[tuple[int, float, float]]] = {
    "respiration_rate": [(3, 0, 8), (1, 9, 11), (0, 12, 20), (2, 21, 24), (3, 25, 60)],
    "oxygen_saturation": [(3, 50, 91), (2, 92, 93), (1, 94, 95), (0, 96, 100)],
    "systolic": [(3, 40, 90), (2, 91, 100), (1, 101, 110), (0, 111, 219), (3, 220, 300)],
    "pulse": [(3, 20, 40), (1, 41, 50), (0, 51, 90), (1, 91, 110), (2, 111, 130), (3, 131, 220)],
    "temperature": [(3, 30.0, 35.0), (1, 35.1, 36.0), (0, 36.1, 38.0), (1, 38.1, 39.0), (2, 39.1, 43.0)],
}
SCALE_2 = {
    "air": [(3, 50, 83), (2, 84, 85), (1, 86, 87), (0, 88, 92), (0, 93, 100)],
    "oxygen": [(3, 50, 83), (2, 84, 85), (1, 86, 87), (0, 88, 92), (1, 93, 94), (2, 95, 96), (3, 97, 100)],
}


def part(name: str, scale2: bool = False, **changed: float | str) -> int:
    score = news2(WELL | changed, scale2)
    assert score is not None
    assert score.total == sum(score.parts.values())
    return score.parts[name]


@pytest.mark.parametrize("name", CHART)
def test_every_value_of_the_chart(name: str) -> None:
    """All whole numbers (tenths of a degree) of every cell, its first and its last among them."""
    step = 10 if name == "temperature" else 1
    for points, first, last in CHART[name]:
        for tick in range(round(first * step), round(last * step) + 1):
            assert part(name, **{name: tick / step}) == points, tick / step


@pytest.mark.parametrize("oxygen", SCALE_2)
def test_every_value_of_scale_2(oxygen: str) -> None:
    for points, first, last in SCALE_2[oxygen]:
        for value in range(round(first), round(last) + 1):
            assert part("oxygen_saturation", True, oxygen=oxygen, oxygen_saturation=value) == points, value


def test_air_or_oxygen_and_consciousness() -> None:
    assert (part("oxygen"), part("oxygen", oxygen="oxygen")) == (0, 2)
    assert [part("consciousness", consciousness=state) for state in "ACVPU"] == [0, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("name", "value", "points"),
    [
        ("temperature", 38.04, 0), ("temperature", 38.05, 1), ("temperature", 39.05, 2), ("temperature", 35.05, 1),
        ("temperature", 36.04, 1), ("oxygen_saturation", 91.4, 3), ("oxygen_saturation", 91.5, 2),
        ("respiration_rate", 20.5, 2), ("pulse", 130.49, 2), ("systolic", 219.6, 3),
    ],
)  # fmt: skip
def test_finer_values_are_rounded_half_up(name: str, value: float, points: int) -> None:
    assert part(name, **{name: value}) == points


@pytest.mark.parametrize(
    ("changed", "total", "band"),
    [
        ({}, 0, "low"),
        ({"pulse": 91, "temperature": 38.1, "systolic": 110, "oxygen_saturation": 95}, 4, "low"),
        ({"consciousness": "C"}, 3, "low-medium"),
        ({"respiration_rate": 25, "pulse": 91}, 4, "low-medium"),
        ({"respiration_rate": 21, "pulse": 111, "temperature": 38.1}, 5, "medium"),
        ({"consciousness": "V", "oxygen": "oxygen", "pulse": 110}, 6, "medium"),
        ({"respiration_rate": 24, "pulse": 130, "temperature": 39.1, "systolic": 101}, 7, "high"),
        ({"respiration_rate": 8, "oxygen_saturation": 91, "oxygen": "oxygen", "systolic": 90, "pulse": 131,
          "consciousness": "U", "temperature": 35.0}, 20, "high"),
    ],
)  # fmt: skip
def test_thresholds_of_chart_2(changed: dict[str, float | str], total: int, band: str) -> None:
    score = news2(WELL | changed)
    assert score is not None
    assert (score.total, score.band) == (total, band)
    assert set(score.parts) == set(VITALS)


@pytest.mark.parametrize("name", WELL)
def test_six_of_seven_are_no_score(name: str) -> None:
    assert set(VITALS) == set(WELL)
    assert news2({key: value for key, value in WELL.items() if key != name}) is None
    assert news2(WELL | {name: "?"}) is None


def test_codes_have_their_check_digit() -> None:
    """LOINC numbers end in a modulus 10 check digit (LOINC Users' Guide, appendix): a slip of the pen is seen."""
    for code in CODES:
        number, _, check = code.partition("-")
        doubled = int("".join(reversed(number))[::2][::-1]) * 2
        others = "".join(reversed(number))[1::2]
        assert -sum(map(int, f"{doubled}{others}")) % 10 == int(check), code


@pytest.mark.parametrize(
    ("code", "value", "units", "found"),
    [
        ("8867-4", 88, "/min", ("pulse", 88)),
        ("8867-4", "88", "{beats}/min", ("pulse", 88)),
        ("9279-1", 18, "breaths/min", ("respiration_rate", 18)),
        ("59408-5", 96, "%", ("oxygen_saturation", 96)),
        ("2708-6", 96.4, "%", ("oxygen_saturation", 96.4)),
        ("8480-6", 121, "mm[Hg]", ("systolic", 121)),
        ("8480-6", 121, "mmHg", ("systolic", 121)),
        ("8480-6", 16, "kPa", ("systolic", 120.01)),  # 1 kPa = 7.50062 mmHg
        ("8310-5", 36.6, "Cel", ("temperature", 36.6)),
        ("8310-5", 36.6, "degC", ("temperature", 36.6)),
        ("8310-5", 100.4, "[degF]", ("temperature", 38.0)),
        ("8310-5", 95, "F", ("temperature", 35.0)),
        ("3151-8", 0, "L/min", ("oxygen", "air")),
        ("3151-8", 2, "L/min", ("oxygen", "oxygen")),
        ("3150-0", 21, "%", ("oxygen", "air")),
        ("3150-0", 28, "%", ("oxygen", "oxygen")),
        ("3151-8", "Room air", "", ("oxygen", "air")),
        ("80288-4", "A", "", ("consciousness", "A")),
        ("67775-7", "LA6560-2", "", ("consciousness", "C")),
        ("67775-7", "Responds to pain", "", ("consciousness", "P")),
        ("80288-4", "422768004", "", ("consciousness", "U")),
    ],
)
def test_units_and_words_come_into_the_chart(code: str, value: float | str, units: str, found: object) -> None:
    assert vital(code, value, units) == found


@pytest.mark.parametrize(
    ("code", "value", "units"),
    [
        ("2345-7", 100, "mg/dL"),  # glucose
        ("", 88, "/min"),
        ("8310-5", 98.6, ""),  # Celsius or Fahrenheit?
        ("8310-5", 98.6, "Cel"),  # nobody lives
        ("8310-5", 310, "K"),
        ("8480-6", 120, "cm[H2O]"),
        ("8480-6", 12, "mm[Hg]"),
        ("59408-5", 0.97, "%"),
        ("59408-5", 101, "%"),
        ("59408-5", 97, "mm[Hg]"),
        ("8867-4", 1.2, "Hz"),
        ("8867-4", -1, "/min"),
        ("8867-4", math.nan, "/min"),
        ("9279-1", math.inf, "/min"),
        ("9279-1", "fast", "/min"),
        ("3151-8", 2, "mL/h"),
        ("3150-0", 0.28, "%"),
        ("3151-8", "mask", ""),
        ("80288-4", "GCS 15", ""),
        ("80288-4", 1.0, ""),
    ],
)
def test_what_does_not_convert_is_no_vital_sign(code: str, value: float | str, units: str) -> None:
    assert vital(code, value, units) is None
