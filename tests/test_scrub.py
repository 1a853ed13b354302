"""A record's own identifiers leave its text, however they are spelt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.scrub import REMOVED, Scrubber

SCRUBBER = Scrubber(["O'Brien", "Zoë", "123 Main St", "(555) 010-4567", "00471199", "张伟", "z@example.org", "12", ""])


@pytest.mark.parametrize(
    "text",
    [
        "O'BRIEN",
        "obrien",
        "o brien",
        "zoë",
        "ZOË",
        "123 main st.",
        "123, Main-St",
        "555.010.4567",
        "5550104567",
        "00471199",
        "0047 1199",
        "张伟",
        "患者张伟来诊",
        "Z@EXAMPLE.ORG",
        "Ｏ'Ｂｒｉｅｎ",
    ],
)
def test_found(text: str) -> None:
    cleaned = SCRUBBER.clean(f"seen {text} today")
    assert REMOVED in cleaned
    assert text not in cleaned


@pytest.mark.parametrize("text", ["brienne", "zoological", "dose 12 mg", "10047119900", "main street", "555 010"])
def test_left_alone(text: str) -> None:
    assert SCRUBBER.clean(text) == text


def test_sharp_s() -> None:
    assert Scrubber(["Weißmann"]).clean("WEISSMANN, Weißmann, weissmann") == ", ".join([REMOVED] * 3)


@given(st.text(alphabet=st.characters(categories=["Lu", "Ll", "Lo", "Nd"]), min_size=4, max_size=12))
def test_a_term_never_survives_between_spaces(term: str) -> None:
    assert term not in Scrubber([term]).clean(f"before {term} after").split(" ")


@given(st.text(), st.lists(st.text(), max_size=4))
def test_any_text_any_terms(text: str, terms: list[str]) -> None:
    Scrubber(terms).clean(text)
