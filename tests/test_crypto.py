"""Sealing opens where it was sealed and nowhere else."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.crypto import (
    DataKey,
    blind_term,
    context,
    field_key_version,
    open_field,
    open_payload,
    seal_field,
    seal_payload,
)
from infra.errors import SealBroken


def key(ref: str = "a" * 32, secret: bytes = b"k" * 32, version: int = 1) -> DataKey:
    return DataKey(ref, f"token-{ref}", version, secret)


@given(st.text(), st.text())
def test_a_field_opens_again(name: str, value: str) -> None:
    assert open_field(key(), "ehr", "r1", name, seal_field(key(), "ehr", "r1", name, value)) == value


@pytest.mark.parametrize(
    ("other", "domain", "record", "name"),
    [
        (key("b" * 32), "ehr", "r1", "name"),
        (key(), "imaging", "r1", "name"),
        (key(), "ehr", "r2", "name"),
        (key(), "ehr", "r1", "phone"),
        (key(secret=b"x" * 32), "ehr", "r1", "name"),
    ],
    ids=["person", "domain", "record", "field", "secret"],
)
def test_a_moved_field_does_not_open(other: DataKey, domain: str, record: str, name: str) -> None:
    sealed = seal_field(key(), "ehr", "r1", "name", "value")
    with pytest.raises(SealBroken):
        open_field(other, domain, record, name, sealed)


@given(st.integers(0, 8 * 40 - 1))
def test_no_changed_bit_opens(bit: int) -> None:
    raw = bytearray(b64decode(seal_field(key(), "ehr", "r1", "name", "0123456789")))
    bit %= 8 * len(raw)
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBroken):
        open_field(key(), "ehr", "r1", "name", b64encode(raw).decode())


def test_the_key_version_travels() -> None:
    assert field_key_version(seal_field(key(version=513), "ehr", "r", "n", "v")) == 513


@pytest.mark.parametrize("junk", ["", "AA==", "not base64!", "A" * 40])
def test_junk_does_not_open(junk: str) -> None:
    with pytest.raises(SealBroken):
        open_field(key(), "ehr", "r1", "name", junk)


@given(st.lists(st.binary(), max_size=4), st.lists(st.binary(), max_size=4))
def test_contexts_never_collide(left: list[bytes], right: list[bytes]) -> None:
    assert (context(*left) == context(*right)) == (left == right)


PEOPLE = [key("a" * 32, b"1" * 32), key("b" * 32, b"2" * 32), key("c" * 32, b"3" * 32)]


def test_a_payload_opens_with_all_its_keys_in_any_order() -> None:
    sealed = seal_payload(PEOPLE, "e1", b"body")
    assert open_payload(PEOPLE[::-1], "e1", sealed) == b"body"
    assert open_payload([*PEOPLE, PEOPLE[0]], "e1", sealed) == b"body"


@pytest.mark.parametrize("without", range(3))
def test_a_payload_is_closed_without_any_one_of_its_keys(without: int) -> None:
    sealed = seal_payload(PEOPLE, "e1", b"body")
    with pytest.raises(SealBroken):
        open_payload([one for at, one in enumerate(PEOPLE) if at != without], "e1", sealed)


def test_a_payload_opens_for_its_event_only() -> None:
    sealed = seal_payload(PEOPLE, "e1", b"body")
    with pytest.raises(SealBroken):
        open_payload(PEOPLE, "e2", sealed)
    other = seal_payload(PEOPLE, "e1", b"other")
    with pytest.raises(SealBroken):
        open_payload(PEOPLE, "e1", replace(sealed, body=other.body))


def test_a_payload_needs_a_key() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        seal_payload([], "e1", b"body")


def test_a_blind_term_levels_spelling() -> None:
    written = ("555-12-3456", " 555123456 ", "５５５１２３４５６")
    assert len({blind_term(b"k", "ssn", one) for one in written}) == 1
    assert blind_term(b"k", "ssn", "A1") == blind_term(b"k", "ssn", "a1")
    other = {blind_term(b"k", "ssn", "a1"), blind_term(b"k", "ssn", "a2"), blind_term(b"l", "ssn", "a1")}
    assert len(other | {blind_term(b"k", "mrn", "a1")}) == 4
