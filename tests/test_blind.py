"""A name and a date of birth find a person however either is written; nobody else."""

from __future__ import annotations

import pytest

from schemas.blind import person_keys, split_person
from schemas.marks import Identifying
from schemas.registry import DOMAINS

SAME = [
    ("Anna Meier", "Meier, Anna"),
    ("Jörg Müller", "Joerg Mueller"),
    ("Jörg Müller", "JORG MULLER"),
    ("Søren Åkesson", "Soeren Aakesson"),
    ("Anna Maria Meier", "Meier Anna"),
    ("Dr. John O'Brien Jr.", "OBRIEN JOHN"),
    ("王小明", "Wang Xiaoming"),
    ("王小明", "Xiao Ming Wang"),
    ("王小明", "Wang Xiao-Ming"),
    ("Екатерина Иванова", "Ivanova, Ekaterina"),
    ("Groß Klaus", "Klaus Gross"),
]  # fmt: skip
OTHER = [("Anna Meier", "Anna Mayer"), ("Anna Meier", "Hanna Meier"), ("王小明", "王大明"), ("Anna Meier", "Anna")]


@pytest.mark.parametrize(("written", "sought"), SAME)
def test_the_same_person_however_written(written: str, sought: str) -> None:
    assert set(person_keys(written, "19800102")) & set(person_keys(sought, "1980-01-02"))


@pytest.mark.parametrize(("written", "sought"), OTHER)
def test_another_person(written: str, sought: str) -> None:
    assert not set(person_keys(written, "19800102")) & set(person_keys(sought, "19800102"))


def test_never_a_name_alone() -> None:
    assert person_keys("Anna Meier", "") == person_keys("Anna Meier", "1980") == person_keys("", "19800102") == []
    assert not set(person_keys("Anna Meier", "19800102")) & set(person_keys("Anna Meier", "19800103"))


@pytest.mark.parametrize("said", ["Anna Meier 1980-01-02", "19800102 Anna Meier", "Anna Meier, 1980.01.02"])
def test_what_is_typed(said: str) -> None:
    assert split_person(said) == ("Anna Meier", "1980-01-02")


# Every field that is hashed by itself, said here by hand: numbers that are many and spread. A field that is added to a
# record with `blind=True` fails here until somebody has thought of its frequencies.
NUMBERS = {
    "control_id", "identifiers", "prior_identifiers", "account_number", "ssn", "drivers_license",
    "mothers_identifiers", "guarantor_identifiers", "insured_identifiers", "visit_number", "alternate_visit",
    "preadmit_number", "visit_account", "placer_number", "filler_number", "group_number", "document_number",
    "parent_document", "prescription_number", "transaction_number", "case_number",
    "study_uid", "series_uid", "instance_uid", "accession_number",
}  # fmt: skip


def test_only_numbers_are_hashed_alone() -> None:
    for domain in DOMAINS.values():
        assert set(domain.sought()) <= NUMBERS
        for name in domain.sought_together():
            mark = domain.marks()[name]
            assert isinstance(mark, Identifying)
            assert not mark.blind
