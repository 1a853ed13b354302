"""Structured reports: what a radiation dose report adds up to, and the text of any (PS3.3 A.35, PS3.16). Pure.

    dose(ds)      schemas.imaging.Dose, None where it is no dose report
    report(ds)    schemas.imaging.Report, None where it is no structured report

`ds` is a data set that was parsed already; what both parts have in common with their instance is given as `common`.
The tree of content items (PS3.3 C.17.3) is walked without recursion, and no further than ITEMS.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from schemas.imaging import Dose, Report
from schemas.wire.dicom_header import items, number, text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

ITEMS = 20_000  # content items of one report; a dose report of a long intervention has some thousands
LONGEST = 64  # characters of a code
LONGEST_DISPLAY = 1_024
LONGEST_NOTE = 1 << 18  # characters of text
NO_TEXT = {"121016", "121030", "121036", "128774"}  # device's serial number, subject's ID and name, observer's login

DOSE_REPORT = "113701"  # X-Ray Radiation Dose Report, the root of TID 10001 and TID 10011
EVENTS = {"113706", "113819"}  # Irradiation Event X-Ray Data (TID 10003), CT Acquisition (TID 10013)
ACCUMULATED = {"113702", "113811"}  # Accumulated X-Ray Dose Data (TID 10002), CT Accumulated Dose Data (TID 10012)
PLANE, ALL_PLANES = "113764", "113890"  # of a machine with two tubes each has its sums, or both have one (CID 10003)
CTDI_VOL = "113830"  # Mean CTDIvol (TID 10013)
_GRAY = {"Gy": 1e3, "dGy": 1e2, "cGy": 1e1, "mGy": 1.0, "uGy": 1e-3}  # in mGy
# Field, and what one of each unit (UCUM) is in the field's; without its dots, since some write mGycm.
SUMS = {
    "113813": ("dose_length_mgycm", {f"{unit}cm": factor for unit, factor in _GRAY.items()}),
    "113722": (
        "dose_area_dgycm2",
        {
            f"{unit}{area}": factor * square
            for unit, factor in _GRAY.items()
            for area, square in (("cm2", 1e-2), ("m2", 1e2))
        },
    ),
    "113725": ("entrance_dose_mgy", _GRAY),
}


def dose(ds: Dataset, **common: Any) -> Dose | None:
    """The sums that the report itself gives, over all planes, and how often there was radiation.

    A sum in a unit that is none of its kind is left out and flagged by its concept: 40 of something is no dose.
    """
    if _concept(ds) != DOSE_REPORT:
        return None
    flags, events, sums = dict.fromkeys(common.pop("flags", ())), 0, []
    ctdi: list[float] = []
    for item in _content(ds, flags):
        concept = _concept(item)
        events += concept in EVENTS
        if concept in ACCUMULATED:
            sums.append(item)
        if concept == CTDI_VOL and (found := _measured(item, _GRAY, flags)) is not None:
            ctdi.append(found)
    said: dict[str, Any] = {"irradiations": events}
    if ctdi:
        said["ctdi_vol_mgy"] = max(ctdi)
    for item in [one for one in sums if _plane(one) == ALL_PLANES] or sums:
        for child in items(item, "ContentSequence")[:ITEMS]:
            field, units = SUMS.get(_concept(child), ("", {}))
            if field and (found := _measured(child, units, flags)) is not None:
                said[field] = said.get(field, 0.0) + found
    return Dose(subject=0, flags=tuple(flags), **common, **said)


def report(ds: Dataset, **common: Any) -> Report | None:
    """Its text, a line an item: `Finding: Mass`, `Diameter: 12 mm`. Persons, UIDs and dates stand in no line."""
    if text(ds, "ValueType") != "CONTAINER":
        return None
    flags, lines, size = dict.fromkeys(common.pop("flags", ())), [], 0
    for item in _content(ds, flags):
        if line := _line(item):
            size += len(line) + 1
            if size > LONGEST_NOTE:
                flags["too_long"] = None
                break
            lines.append(line)
    said = {
        "title": _code(ds)[:LONGEST],
        "display": _meaning(ds)[:LONGEST_DISPLAY],
        "note": "\n".join(lines),
        "completion": text(ds, "CompletionFlag")[:LONGEST],
        "verification": text(ds, "VerificationFlag")[:LONGEST],
    }
    return Report(subject=0, flags=tuple(flags), **common, **{name: one for name, one in said.items() if one})


def _content(ds: Dataset, flags: dict[str, None]) -> Iterator[Dataset]:
    """Every content item below the root, in the order that a reader meets them."""
    waiting = [iter(items(ds, "ContentSequence"))]
    seen = 0
    while waiting:
        if (item := next(waiting[-1], None)) is None:
            waiting.pop()
            continue
        if (seen := seen + 1) > ITEMS:
            flags["too_long"] = None
            return
        yield item
        waiting.append(iter(items(item, "ContentSequence")))


def _line(item: Dataset) -> str:
    if _concept(item) in NO_TEXT:
        return ""
    kind, said = text(item, "ValueType"), ""
    if kind == "TEXT":
        said = text(item, "TextValue")
    elif kind == "CODE":
        said = _meaning(item, "ConceptCodeSequence")
    elif kind == "NUM":
        for value in items(item, "MeasuredValueSequence")[:1]:
            unit = text(next(iter(items(value, "MeasurementUnitsCodeSequence")), value), "CodeValue")
            said = f"{text(value, 'NumericValue')} {unit if unit != '1' else ''}".strip()  # 1: no units (UCUM)
    name = _meaning(item)
    return f"{name}: {said}" if said and name else said


def _measured(item: Dataset, units: dict[str, float], flags: dict[str, None]) -> float | None:
    """The number of a NUM item in the field's unit; None where there is none."""
    for value in items(item, "MeasuredValueSequence")[:1]:
        found = number(value, "NumericValue")
        if found is None or found < 0:
            return None
        unit = text(next(iter(items(value, "MeasurementUnitsCodeSequence")), value), "CodeValue")
        if factor := units.get(unit.translate({ord(one): None for one in ".*· "})):
            return found * factor
        flags[f"unknown_unit:{_concept(item)}"] = None
    return None


def _plane(accumulated: Dataset) -> str:
    for child in items(accumulated, "ContentSequence"):
        if _concept(child) == PLANE:
            return _dcm(child, "ConceptCodeSequence")
    return ""


def _concept(item: Dataset) -> str:
    return _dcm(item, "ConceptNameCodeSequence")


def _dcm(item: Dataset, keyword: str) -> str:
    """A code of PS3.16's own (DCM); none of another scheme, which may have the same number for something else."""
    for one in items(item, keyword)[:1]:
        if text(one, "CodingSchemeDesignator") == "DCM":
            return text(one, "CodeValue")
    return ""


def _code(item: Dataset) -> str:
    return text(next(iter(items(item, "ConceptNameCodeSequence")), item), "CodeValue")


def _meaning(item: Dataset, keyword: str = "ConceptNameCodeSequence") -> str:
    found = items(item, keyword)
    return text(found[0], "CodeMeaning") if found else ""
