from __future__ import annotations

from typing import Any

import pytest

from consumers.query import Sought, asked, field, parse, since
from infra.errors import UsageError
from schemas.registry import DOMAINS

PROPERTIES = DOMAINS["ehr"].mapping()["properties"]


def parsed(query: str) -> dict[str, Any]:
    return parse(query, PROPERTIES, Sought(("mrn", "ssn"), ("name",), lambda name, value: [f"{name}<{value}>"]))


def must(query: str) -> list[dict[str, Any]]:
    clauses: list[dict[str, Any]] = parsed(query)["bool"]["must"]
    return clauses


def test_everything() -> None:
    assert parsed("*") == {"match_all": {}}


def test_every_word_is_wanted() -> None:
    assert [one["multi_match"]["query"] for one in must("chest pain")] == ["chest", "pain"]


def test_phrase() -> None:
    (clause,) = must('"chest pain"')
    assert clause["multi_match"]["type"] == "phrase"


def test_identifier_is_blinded() -> None:
    assert must("id:0047-11") == [{"terms": {"blind": ["mrn<0047-11>", "ssn<0047-11>"], "boost": 10}}]
    assert must("ssn:0047-11") == [{"terms": {"blind": ["ssn<0047-11>"], "boost": 10}}]


def test_a_name_is_sought_with_the_date_of_birth_alone() -> None:
    assert must('name:"Meier Anna 1980-01-02"') == [{"terms": {"blind": ["name<ana meier 19800102>"], "boost": 10}}]
    for wrong in ("name:Meier", "name:1980-01-02"):
        with pytest.raises(UsageError, match="date of birth"):
            parsed(wrong)


def test_a_word_with_digits_may_be_a_number() -> None:
    (clause,) = must("471199")
    assert {"terms": {"blind": ["mrn<471199>", "ssn<471199>"], "boost": 10}} in clause["bool"]["should"]


def test_without() -> None:
    found = parsed("pain -unit:ED")["bool"]
    assert found["must_not"] == [{"term": {"unit": {"value": "ED"}}}]
    assert parsed("-unit:ED")["bool"]["must"] == {"match_all": {}}


@pytest.mark.parametrize(
    ("query", "limits"),
    [
        ("value_number:>=5", {"gte": 5.0}),
        ("value_number:<5.5", {"lt": 5.5}),
        ("value_number:3..4", {"gte": 3.0, "lte": 4.0}),
        ("value_number:-3..-1", {"gte": -3.0, "lte": -1.0}),
    ],
)
def test_number_range(query: str, limits: dict[str, float]) -> None:
    assert must(query) == [{"range": {"value_number": limits}}]


def test_a_day_is_all_of_it() -> None:
    assert must("event_time:2026-03-01") == [{"range": {"event_time": {"gte": "2026-03-01", "lte": "2026-03-01"}}}]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "empty"),
        ('"chest', "character 1"),
        ('""', "quotes"),
        ("unti:ICU", "do you mean unit"),
        ("value_nmber:4711", "value_number"),
        ("mnr:4711", "do you mean mrn"),
        ("Zzz:4711", "--fields"),
        ("value-number:5", "value_number"),
        ("phones:Smith", "no searchable field"),
        ("sealed:x", "no searchable field"),
        ("value_number:high", "number"),
        ("value_number:nan", "number"),
        ("value_number:5..3", "turned round: value_number:3..5"),
        ("event_time:yesterday", "time"),
        ("event_time:2024-02-30", "there is no 2024-02-30"),
        ("event_time:>=2024-13", "there is no 2024-13"),
        ("event_time:2024-01-01..2024-02-30", "there is no 2024-02-30"),
        ("event_time:2024-01-01T25:00", "there is no 2024-01-01T25:00"),
        ("event_time:0000", "there is no 0000"),
        ("event_time:2024-01-01T", "is a time"),
        ("event_time:2024-03-02..2024-03-01", "turned round: event_time:2024-03-01..2024-03-02"),
        ("event_time:2024-04..2024-03", "turned round"),
        ("event_time:2024-03-01T09:00Z..2024-03-01T10:00+02:00", "turned round"),
        ("event_time:now-1d..now-7d", "turned round"),
        ("unit:A..B", "no number"),
        ("unit:>=5", "no number"),
        ("deceased:maybe", "true or false"),
        ("unit:", "unit: has no value"),
        ("unit: code:2823-3", "unit: has no value"),
        ("has:", "has: has no value"),
        ("has:-fever", "-has:fever"),
        ("has: –fever", "-has:fever"),
        ("display:-pain", "-display:pain"),
        ("unit:-ED", "-unit:ED"),
        ("pain OR fever", "OR is no operator"),
        ("pain AND fever", "AND is no operator"),
        ("NOT pain", "-word"),
        ("pain & fever", "neither letter nor digit"),
        ("pain - fever", "right before"),
        ("-(pain fever)", "brackets"),
        ("diab*", "wildcards"),
        ("unit=ICU", "unit:ICU"),
        ("value_number≥5", "value_number:>=5"),
        ("has:fever -negatd", "-negated"),
        ("has:fever -Uncertian", "-uncertain"),
        ("“chest “pain”", "character 1"),
    ],
)
def test_bad_query_says_what_is_wrong(query: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parsed(query)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("unit: ICU", "unit:ICU"),
        ("Unit:ICU", "unit:ICU"),
        ("unit：ICU", "unit:ICU"),
        ("pain -unit: ICU fever", "pain -unit:ICU fever"),
        ("ID: 0047-11", "id:0047-11"),
        ("“chest pain”", '"chest pain"'),
        ("„chest pain“", '"chest pain"'),
        ("«chest pain»", '"chest pain"'),
        ('“chest pain"', '"chest pain"'),
        ("display:“chest pain” fever", 'display:"chest pain" fever'),
        ("pain –fever", "pain -fever"),
        ("pain —unit:ED", "pain -unit:ED"),
        ("pain −“chest wall”", 'pain -"chest wall"'),
        ("value_number:–3..–1", "value_number:-3..-1"),
        ("value_number:3…4", "value_number:3..4"),
        ("value_number: ≥5", "value_number:>=5"),
        ("deceased:True", "deceased:true"),
        ("HAS: fever –Negated -FAMILY", "has:fever -negated -family"),
        ("Affirmed: fever", "affirmed:fever"),
    ],
)
def test_what_is_typed_otherwise_means_the_same(typed: str, meant: str) -> None:
    assert parsed(typed) == parsed(meant)
    assert asked(typed) == asked(meant)


@pytest.mark.parametrize(
    "query",
    [
        "event_time:2024-02-29",
        "event_time:2026-03..2026-03-01",
        "event_time:2026-03-02T00:30+02:00..2026-03-01",
        "event_time:2026..2026",
        "event_time:now/d..now",
        "event_time:now-7d..now-1d",
        "event_time:2026-01-01..now",
        "value_number:3..3",
    ],
)
def test_a_range_that_can_hold_something(query: str) -> None:
    assert "range" in must(query)[0]


def test_in_quotes_all_of_it_is_text() -> None:
    for text in ("OR", "diab*", "unit=ICU", "follow–up", "10:30"):
        assert must(f'"{text}"')[0]["multi_match"] == {
            "query": text,
            "fields": ["text", "display^2"],
            "type": "phrase",
            "operator": "and",
        }
    assert must('unit:"-ED"') == [{"term": {"unit": {"value": "-ED"}}}]
    assert must("10:30 comparator:>=")[1] == {"term": {"comparator": {"value": ">="}}}


def test_has_of_a_phrase_denied_and_of_words_that_nobody_uses() -> None:
    assert has("has:“chest pain” -negated")["query"] == "chest pain"
    found = parsed('unit:ED -has:"chest pain" -negated')["bool"]
    (denied,) = found["must_not"]
    assert (denied["multi_match"]["query"], "negated" in denied["multi_match"]["fields"]) == ("chest pain", False)
    assert len(found["must"]) == 1
    assert has("has:xyzzy")["query"] == "xyzzy"
    assert parsed("has:fever -negative")["bool"]["must_not"][0]["multi_match"]["query"] == "negative"


def test_sub_field() -> None:
    assert field("display.keyword", PROPERTIES).type == "keyword"
    with pytest.raises(UsageError):
        field("display.other", PROPERTIES)


def test_since() -> None:
    assert since("24h") == "now-24h"
    with pytest.raises(UsageError):
        since("yesterday")


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("*", set()),
        ("chest pain", {"text", "display"}),
        ('"chest pain" -unit:ICU', {"text", "display", "unit"}),
        ("value_number:>=5 display.keyword:x", {"value_number", "display"}),
        ("id:4711 -visit_number:4711", {"id", "visit_number"}),
        ('name:"Anna Meier 1980-01-02"', {"name"}),
    ],
)
def test_fields_that_a_query_asks_about(query: str, wanted: set[str]) -> None:
    assert asked(query) == wanted


def has(query: str) -> dict[str, Any]:
    (clause,) = must(query)
    found: dict[str, Any] = clause["multi_match"]
    return found


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("has:fever", {"affirmed", "negated", "uncertain", "family"}),
        ("has:fever -negated", {"affirmed", "uncertain", "family"}),
        ("-negated has:fever -uncertain -family", {"affirmed"}),
        ("has:fever -affirmed", {"negated", "uncertain", "family"}),
    ],
)
def test_has_looks_where_the_modifiers_leave_it(query: str, fields: set[str]) -> None:
    assert set(has(query)["fields"]) == asked(query) == fields
    assert has(query)["type"] == "phrase"


def test_modifiers_of_has_are_words_without_it() -> None:
    assert parsed("fever -negated")["bool"]["must_not"][0]["multi_match"]["query"] == "negated"
    assert parsed('has:fever -"negated"')["bool"]["must_not"][0]["multi_match"]["query"] == "negated"
    assert parsed("has:fever -negated -unit:ED")["bool"]["must_not"] == [{"term": {"unit": {"value": "ED"}}}]
    assert parsed("pain -has:fever")["bool"]["must_not"][0]["multi_match"]["query"] == "fever"


def test_has_of_nothing_left() -> None:
    with pytest.raises(UsageError, match="taken away"):
        parsed("has:fever -affirmed -negated -uncertain -family")


@pytest.mark.parametrize(("query", "long"), [("has:HTN", "hypertension"), ("has:mi", "myocardial infarction")])
def test_abbreviations_of_a_query_are_written_out_as_in_the_index(query: str, long: str) -> None:
    assert has(query)["query"] == long


def test_an_assertion_is_a_field() -> None:
    assert must("negated:fever") == [{"match": {"negated": {"query": "fever"}}}]
    assert must('affirmed:"chest pain"') == [{"match_phrase": {"affirmed": {"query": "chest pain"}}}]
    assert must("affirmed:COPD") == [{"match_phrase": {"affirmed": {"query": "chronic obstructive pulmonary disease"}}}]
    assert must("body:HTN") == [{"match": {"body": {"query": "HTN"}}}]
    assert asked("negated:fever") == {"negated"}


def test_words_of_chinese_are_a_phrase() -> None:
    """The index makes a token of each character: as a bag they would find any text that has all of them."""
    (clause,) = must("胸痛")
    assert clause["multi_match"]["type"] == "phrase"
    assert must("body:胸痛") == [{"match_phrase": {"body": {"query": "胸痛"}}}]
