"""Sealing opens where it was sealed and nowhere else."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from infra.crypto import (
    DataKey,
    SealedPayload,
    _decrypt,
    _encrypt,
    blind_term,
    context,
    field_key_version,
    open_field,
    open_payload,
    seal_field,
    seal_fields,
    seal_payload,
)
from infra.errors import SealBroken


def key(ref: str = "a" * 32, secret: bytes = b"k" * 32, version: int = 1) -> DataKey:
    return DataKey(ref, f"token-{ref}", version, secret)


@given(st.text(), st.text())
def test_a_field_opens_again(name: str, value: str) -> None:
    assert open_field(key(), "ehr", "r1", name, seal_field(key(), "ehr", "r1", name, value)) == value


def opens(work: Callable[[], object]) -> bool:
    """Whether it opens. Any other error than SealBroken is let through, and fails the test."""
    try:
        work()
    except SealBroken:
        return False
    return True


def flipped(sealed: bytes) -> Iterator[bytes]:
    """Every way to change one bit."""
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


PLACE = ("ehr", "r1", "name")


def field_opens(sealed: str, key: DataKey, domain: str, record: str, name: str) -> bool:
    return opens(lambda: open_field(key, domain, record, name, sealed))


@pytest.mark.parametrize("length", range(4))
def test_no_changed_bit_of_a_field_opens(length: int) -> None:
    """Format, key version, nonce, ciphertext and tag; every remainder of three, so every kind of base64's end."""
    sealed = seal_field(key(), *PLACE, "0123456789"[:length])
    assert field_opens(sealed, key(), *PLACE)
    assert not any(field_opens(b64encode(raw).decode(), key(), *PLACE) for raw in flipped(b64decode(sealed)))


@pytest.mark.parametrize("length", range(4))
def test_no_changed_character_of_a_field_opens(length: int) -> None:
    """Changed, put in, left out or added: a decoder is generous with each of them."""
    sealed = seal_field(key(), *PLACE, "0123456789"[:length])
    texts = {sealed[:at] + chr(one) + sealed[at + 1 :] for at in range(len(sealed)) for one in range(256)}
    texts |= {sealed[:at] + one + sealed[at:] for at in range(len(sealed) + 1) for one in "A=\n é"}
    texts |= {sealed[:at] for at in range(len(sealed))} | {sealed + one for one in ("AAAA", "==", "====")}
    assert [one for one in texts - {sealed} if field_opens(one, key(), *PLACE)] == []


def test_a_spare_bit_would_open_under_a_plain_decoder() -> None:
    """Why a field's text is compared with its own encoding."""
    sealed = seal_field(key(), *PLACE, "v")
    last = sealed[-2]
    other = sealed[:-2] + chr(ord(last) + 1) + "="
    assert b64decode(other, validate=True) == b64decode(sealed)
    assert not field_opens(other, key(), *PLACE)


WORDS = st.text(max_size=6)
REFS = st.text("0123456789abcdef", max_size=6)


@given(REFS, WORDS, WORDS, WORDS, st.integers(0, 65_535), st.text(max_size=12), st.data())
def test_no_changed_context_of_a_field_opens(
    ref: str, domain: str, record: str, name: str, version: int, value: str, data: st.DataObject
) -> None:
    """Each part by itself, and a character moved over each border between two: lengths are bound as well."""
    sealed = seal_field(key(ref, version=version), domain, record, name, value)
    parts = [ref, domain, record, name]
    assert field_opens(sealed, key(parts[0], version=version), *parts[1:])
    others: list[list[str]] = []
    for at, part in enumerate(parts):
        others.append([*parts[:at], data.draw(WORDS.filter(lambda one, was=part: one != was)), *parts[at + 1 :]])
    for at in range(3):
        left, right = parts[at : at + 2]
        others += [[*parts[:at], left + right[:1], right[1:], *parts[at + 2 :]]] if right else []
        others += [[*parts[:at], left[:-1], left[-1:] + right, *parts[at + 2 :]]] if left else []
        others += [[*parts[:at], right, left, *parts[at + 2 :]]] if left != right else []
    assert [one for one in others if field_opens(sealed, key(one[0], version=version), *one[1:])] == []
    other = data.draw(st.integers(0, 65_535).filter(lambda one: one != version))
    assert not field_opens(sealed, key(ref, version=other), domain, record, name)
    assert not field_opens(sealed, key(ref, b"x" * 32, version), domain, record, name)


@given(st.text(max_size=40), st.data())
def test_no_changed_bit_of_any_field_opens(value: str, data: st.DataObject) -> None:
    raw = b64decode(seal_field(key(), *PLACE, value))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    changed = raw[: bit // 8] + bytes([raw[bit // 8] ^ 1 << bit % 8]) + raw[bit // 8 + 1 :]
    assert not field_opens(b64encode(changed).decode(), key(), *PLACE)


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda raw: b64encode(raw).decode()))
def test_junk_opens_nothing_and_raises_nothing_else(junk: str) -> None:
    assert not field_opens(junk, key(), *PLACE)
    opens(lambda: field_key_version(junk))


def test_the_fields_of_a_record_are_sealed_each_by_itself() -> None:
    clear = {"name": "a", "phone": "b", "street": "a"}
    sealed = seal_fields(key(), "ehr", "r1", clear)
    assert {name: open_field(key(), "ehr", "r1", name, one) for name, one in sealed.items()} == clear
    assert len({b64decode(one)[3:15] for one in sealed.values()}) == 3, "one nonce must not serve twice"
    assert not field_opens(sealed["name"], key(), "ehr", "r1", "street")
    assert seal_fields(key(), "ehr", "r1", {}) == {}
    counted = key()
    seal_fields(counted, "ehr", "r1", clear)
    assert counted.uses == 3, "each nonce counts"


def test_what_an_earlier_version_sealed_opens() -> None:
    """Kept bytes: the format has not changed."""
    first, other = key("a" * 32, b"k" * 32, 513), key("b" * 32, b"l" * 32)
    assert open_field(first, "ehr", "e1-0", "name", "AQIBvg7hGmAAcwdbHDHcHwfl8cgCm+8jEux+RmizNUKK6Bs=") == "Zoë"
    kept = SealedPayload(
        bytes.fromhex(
            "01e68c2f2c1744c1c16e98fca94efb9aa48d4b8e9e920ec615130a49ec37"
            "cbdb6e98f8cd765d83619836b82dd63cbf2f03b617a9bd70fbefbf77c3dca8"
        ),
        bytes.fromhex("01f1ebac1db2dbb8cefaccd6c5981512a29425ca6170fbc4a1b70e01371b84f090"),
    )
    assert open_payload([first, other], "e1", kept) == b"body"


def test_the_key_version_travels() -> None:
    assert field_key_version(seal_field(key(version=513), "ehr", "r", "n", "v")) == 513


@pytest.mark.parametrize("junk", ["", "A", "AA", "AA==", "AA=A", "not base64!", "ééé", "A" * 40, "AgAB"])
def test_junk_is_no_sealed_field(junk: str) -> None:
    """Of the last two, zeros and the next format: not ours to guess at."""
    assert not field_opens(junk, key(version=0), *PLACE)
    with pytest.raises(SealBroken):
        field_key_version(junk)


@given(st.lists(st.binary(), max_size=4), st.lists(st.binary(), max_size=4))
def test_contexts_never_collide(left: list[bytes], right: list[bytes]) -> None:
    assert (context(*left) == context(*right)) == (left == right)


def test_no_separator_makes_contexts_collide() -> None:
    """Every list of up to three parts made of what could be taken for a border."""
    pieces = (b"", b"|", b"||", b"\0", b"\0\0\0\1", b"\0\0\0\1|", b"\0\0\0\0")
    lists = [some for count in range(4) for some in product(pieces, repeat=count)]
    assert len({context(*some) for some in lists}) == len(lists) == 400


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


def payload_opens(sealed: SealedPayload, event: str = "e1", keys: Sequence[DataKey] = PEOPLE) -> bool:
    return opens(lambda: open_payload(keys, event, sealed))


@pytest.mark.parametrize("people", range(1, 4))
def test_no_changed_bit_of_a_payload_opens(people: int) -> None:
    keys = PEOPLE[:people]
    sealed = seal_payload(keys, "e1", b"body")
    assert payload_opens(sealed, keys=keys)
    changed = [replace(sealed, wrapped_key=one) for one in flipped(sealed.wrapped_key)]
    changed += [replace(sealed, body=one) for one in flipped(sealed.body)]
    for part in ("wrapped_key", "body"):  # cut and lengthened
        whole = getattr(sealed, part)
        changed += [replace(sealed, **{part: whole[:at]}) for at in range(len(whole))]
        changed += [replace(sealed, **{part: one}) for one in (whole + b"\0", b"\0" + whole)]
    assert not any(payload_opens(one, keys=keys) for one in changed)


@given(WORDS, st.binary(max_size=40), st.data())
def test_no_changed_context_of_a_payload_opens(event: str, body: bytes, data: st.DataObject) -> None:
    sealed, again = (seal_payload(PEOPLE, event, body) for _ in range(2))
    assert payload_opens(sealed, event)
    assert not payload_opens(sealed, data.draw(WORDS.filter(lambda one: one != event)))
    assert not payload_opens(replace(sealed, body=again.body), event), "the body of another payload"
    assert not payload_opens(SealedPayload(sealed.body, sealed.wrapped_key), event)
    for at, one in enumerate(PEOPLE):
        for other in (replace(one, ref="d" * 32), replace(one, secret=b"x" * 32)):
            assert not payload_opens(sealed, event, [*PEOPLE[:at], other, *PEOPLE[at + 1 :]])


def test_a_payload_is_bound_to_its_purpose() -> None:
    """A body's ciphertext cannot pass for a wrapped key, even under one and the same key."""
    cipher = AESGCM(b"k" * 32)
    sealed = _encrypt(cipher, b"body", "e1", b"content")
    assert _decrypt(cipher, b"body", "e1", sealed) == b"content"
    assert not opens(lambda: _decrypt(cipher, b"key", "e1", sealed))
    assert not opens(lambda: _decrypt(cipher, b"bodye", "1", sealed))


def test_a_payload_needs_a_key() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        seal_payload([], "e1", b"body")


def test_a_blind_term_levels_spelling() -> None:
    written = ("555-12-3456", " 555123456 ", "５５５１２３４５６")
    assert len({blind_term(b"k", "ssn", one) for one in written}) == 1
    assert blind_term(b"k", "ssn", "A1") == blind_term(b"k", "ssn", "a1")
    other = {blind_term(b"k", "ssn", "a1"), blind_term(b"k", "ssn", "a2"), blind_term(b"l", "ssn", "a1")}
    assert len(other | {blind_term(b"k", "mrn", "a1")}) == 4
