"""Structured reports: doses in our units, text without persons, and trees that are too large or too deep."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_files
from pydicom.dataset import Dataset

from schemas.imaging import Dose, Report
from streams.imaging import reports
from streams.imaging.reports import dose, report
from tests import images
from tests.images import code, item, measured


def again(ds: Dataset) -> Dataset:
    """As it is read from a file."""
    return dcmread(io.BytesIO(images.part10(ds)))


def container(value: str, meaning: str, *content: Dataset) -> Dataset:
    ds = item("CONTAINER", value, meaning)
    ds.ContentSequence = list(content)
    return ds


def plane(value: str) -> Dataset:
    ds = item("CODE", "113764", "Acquisition Plane")
    ds.ConceptCodeSequence = [code(value, "DCM", "plane")]
    return ds


def accumulated(which: str, area: float, point: float, *, area_unit: str = "Gy.m2", unit: str = "Gy") -> Dataset:
    return container(
        "113702",
        "Accumulated X-Ray Dose Data",
        plane(which),
        measured("113722", "Dose Area Product Total", area, area_unit),
        measured("113725", "Dose (RP) Total", point, unit),
    )


def angiography(*content: Dataset) -> Dataset:
    """TID 10001 of a machine with one or two planes, and three irradiation events."""
    ds = images.dose_report()
    events = [container("113706", "Irradiation Event X-Ray Data", measured("122130", "DAP", 1e-5, "Gy.m2"))] * 3
    ds.ContentSequence = [*content, *events]
    return again(ds)


def found(ds: Dataset, **common: Any) -> Dose:
    one = dose(ds, **common)
    assert one is not None
    return one


def told(ds: Dataset) -> Report:
    one = report(ds)
    assert one is not None
    return one


def test_ct() -> None:
    one = found(again(images.dose_report()), modality="SR", flags=("no_time",))
    assert (one.dose_length_mgycm, one.ctdi_vol_mgy, one.irradiations) == (312.5, 7.5, 1)
    assert (one.modality, one.flags, one.subject) == ("SR", ("no_time",), 0)
    assert one.dose_area_dgycm2 is None


def test_the_largest_ctdi_of_all() -> None:
    ds = images.dose_report()
    for amount in (21.5, 3):
        ds.ContentSequence.append(
            container("113819", "CT Acquisition", measured("113830", "Mean CTDIvol", amount, "mGy"))
        )
    one = found(again(ds))
    assert (one.ctdi_vol_mgy, one.irradiations) == (21.5, 3)


def test_planes_add_up() -> None:
    one = found(angiography(accumulated("113620", 0.0021, 0.5), accumulated("113621", 0.0009, 0.25)))
    assert one.dose_area_dgycm2 == pytest.approx(300)  # 0.003 Gy m2
    assert one.entrance_dose_mgy == pytest.approx(750)
    assert one.irradiations == 3


def test_what_all_planes_have_together_is_not_added_to_its_parts() -> None:
    parts = accumulated("113620", 0.0021, 0.5), accumulated("113621", 0.0009, 0.25), accumulated("113890", 0.003, 0.75)
    assert found(angiography(*parts)).dose_area_dgycm2 == pytest.approx(300)


@pytest.mark.parametrize(
    ("area", "unit", "expected"),
    [
        (1, "Gy.m2", 1e5),
        (1, "dGy.cm2", 1),
        (1, "Gy.cm2", 10),
        (1, "uGy.m2", 0.1),
        (1, "mGy.cm2", 0.01),
        (1, "cGycm2", 0.1),
    ],
)
def test_units(area: float, unit: str, expected: float) -> None:
    one = found(angiography(accumulated("113622", area, 40, area_unit=unit, unit="mGy")))
    assert one.dose_area_dgycm2 == pytest.approx(expected)
    assert one.entrance_dose_mgy == 40


def test_what_is_no_dose_is_left_out() -> None:
    one = found(angiography(accumulated("113622", 40, -1, area_unit="mm")))
    assert (one.dose_area_dgycm2, one.entrance_dose_mgy) == (None, None)
    assert one.flags == ("unknown_unit:113722",)


def test_another_schemes_number_is_not_ours() -> None:
    ds = images.dose_report()
    ds.ContentSequence[0].ContentSequence[1].ConceptNameCodeSequence[0].CodingSchemeDesignator = "99ACME"
    assert found(again(ds)).dose_length_mgycm is None


def test_text() -> None:
    ds = images.dose_report()
    finding, size, person, subject = (
        item("TEXT", "121071", "Finding"),
        measured("103355008", "Width", 12.5, "mm"),
        item("PNAME", "121008", "Person Observer Name"),
        item("TEXT", "121030", "Subject ID"),
    )
    side = item("CODE", "272741003", "Laterality")
    side.ConceptCodeSequence = [code("7771000", "SCT", "Left")]
    finding.TextValue, finding.ContentSequence = "Round mass,\r\nsmooth", [side, size]
    person.PersonName, subject.TextValue = "Reader^Ruth", "IM4711"
    ds.ConceptNameCodeSequence = [code("18782-3", "LN", "Radiology Study observation")]
    ds.ContentSequence = [container("121070", "Findings", person, subject, finding)]
    one = told(again(ds))
    assert one.note.splitlines() == ["Finding: Round mass, smooth", "Laterality: Left", "Width: 12.5 mm"]
    assert (one.title, one.display) == ("18782-3", "Radiology Study observation")
    assert (one.completion, one.verification) == ("COMPLETE", "UNVERIFIED")
    assert dose(again(ds)) is None


FILES = [path for name in ("test-SR.dcm", "reportsi*.dcm") for path in get_testdata_files(name)]


@pytest.mark.parametrize("path", FILES, ids=[path.rpartition("/")[2] for path in FILES])
def test_reports_of_others(path: str) -> None:
    ds = dcmread(path)
    one = told(ds)
    persons = [str(element.value) for element in ds.iterall() if element.VR == "PN" and element.value]
    assert len(one.note.splitlines()) > 3
    assert persons
    assert not [name for name in persons if name in one.note and name != "Enter text"]


def test_an_image_is_no_report() -> None:
    assert report(images.ct()) is None
    assert dose(images.ct()) is None


def test_a_tree_that_is_too_large() -> None:
    ds = images.dose_report()
    ds.ContentSequence = [item("CODE", "1", "x")] * (reports.ITEMS + 1)
    assert told(ds).flags == ("too_long",)
    ds.ContentSequence = [item("CODE", "1", "x")] * reports.ITEMS
    assert told(ds).flags == ()


def test_a_text_that_is_too_long() -> None:
    ds = images.dose_report()
    long = item("TEXT", "121071", "Finding")
    long.TextValue = "x" * (reports.LONGEST_NOTE // 2)
    ds.ContentSequence = [long, long]
    one = told(ds)
    assert one.flags == ("too_long",)
    assert len(one.note) <= reports.LONGEST_NOTE


def test_a_tree_that_is_too_deep_to_recurse_in() -> None:
    ds = images.dose_report()
    deepest = item("TEXT", "121071", "Finding")
    deepest.TextValue = "at the bottom"
    for _ in range(3000):
        deepest = container("121070", "Findings", deepest)
    ds.ContentSequence = [deepest]
    assert told(ds).note == "Finding: at the bottom"
