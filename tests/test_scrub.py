"""A record's own identifiers leave its text, however they are spelt."""

from __future__ import annotations

from random import Random

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


@pytest.mark.parametrize(
    ("terms", "text", "left"),
    [
        (["Meier", "Anna"], "Meier, Anna", "[removed]"),
        (["Meier", "Anna"], "A. Meier and Meier, A.", "[removed] and [removed]"),
        (["Meier"], "Mei-\ner, M E I E R, mei er, Meiers", "[removed], [removed], [removed], [removed]"),
        (["Meier"], "患者Meier来诊", "患者[removed]来诊"),
        (["Müller"], "MUELLER Muller müller", "[removed] [removed] [removed]"),
        (["Newman"], "it is new. Man and wife", "it is new. Man and wife"),
        (["Ana"], "Na 130, a Na of 130", "Na 130, a Na of 130"),
        (["Ana"], "A-N-A, A n a", "[removed], [removed]"),
        (["19470501"], "on 1947-05-01", "on [removed]"),
    ],
)
def test_spellings(terms: list[str], text: str, left: str) -> None:
    assert Scrubber(terms).clean(text) == left


NAMES = st.text(alphabet=st.characters(min_codepoint=97, max_codepoint=255, categories=["Ll"]), min_size=5, max_size=12)


@given(NAMES, NAMES, st.sampled_from([" ", "-", "\n", " - ", "\u00ad", "/"]), st.integers(1, 4), st.randoms())
def test_a_name_in_any_case_order_and_pieces(one: str, two: str, gap: str, place: int, chance: Random) -> None:
    """Each name whole or cut in two, in either order, letters in any case."""
    written = [name[:place] + gap + name[place:] if chance.random() < 0.5 else name for name in (one, two)]
    chance.shuffle(written)
    said = "".join(chance.choice((char.upper(), char)) for char in f"{written[0]}, {written[1]}")
    left = Scrubber([one, two]).clean(f"before {said} after")
    assert left in (f"before {REMOVED}, {REMOVED} after", f"before {REMOVED} after")


@given(st.text(), st.lists(st.text(), max_size=4))
def test_any_text_any_terms(text: str, terms: list[str]) -> None:
    Scrubber(terms).clean(text)
