"""Project Wycheproof's vectors, decided by the primitives we build on: each as listed, or skipped by name."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

VECTORS = Path(__file__).parent / "samples" / "wycheproof"
NONCE_SIZE = "the library takes nonces of 8 to 128 bytes; our format has 12"
Test = dict[str, Any]


class Skipped(Exception):
    """A vector that the library cannot be asked about."""


def attempt(work: Callable[[], bytes]) -> bytes | None:
    """None: refused."""
    try:
        return work()
    except (InvalidTag, InvalidUnwrap, ValueError):
        return None


def verdict(made: bytes | None, wanted: bytes, opened: bytes | None, clear: bytes) -> str:
    """Valid when both ways are exact, invalid when it does not open; anything else is wrong, however it is listed."""
    if opened is None:
        return "invalid"
    return "valid" if made == wanted and opened == clear else "wrong"


def aead(cipher: Any) -> Callable[[Test, Test], str]:
    def decide(group: Test, test: Test) -> str:
        key, nonce, aad, clear, sealed, tag = (
            bytes.fromhex(test[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
        )
        if cipher is AESGCM and nonce and not 8 <= len(nonce) <= 128:
            with pytest.raises(ValueError, match="Nonce must be between"):
                cipher(key).encrypt(nonce, clear, aad)
            raise Skipped(NONCE_SIZE)
        made = attempt(lambda: cipher(key).encrypt(nonce, clear, aad))
        return verdict(made, sealed + tag, attempt(lambda: cipher(key).decrypt(nonce, sealed + tag, aad)), clear)

    return decide


def key_wrap(group: Test, test: Test) -> str:
    key, clear, sealed = (bytes.fromhex(test[name]) for name in ("key", "msg", "ct"))
    made = attempt(lambda: aes_key_wrap_with_padding(key, clear))
    return verdict(made, sealed, attempt(lambda: aes_key_unwrap_with_padding(key, sealed)), clear)


def hkdf(group: Test, test: Test) -> str:
    key, salt, info, wanted = (bytes.fromhex(test[name]) for name in ("ikm", "salt", "info", "okm"))
    made = attempt(lambda: HKDF(SHA256(), test["size"], salt, info).derive(key))
    return verdict(made, wanted, made, wanted)


def mac(group: Test, test: Test) -> str:
    key, clear, tag = (bytes.fromhex(test[name]) for name in ("key", "msg", "tag"))
    made = hmac.digest(key, clear, hashlib.sha256)[: group["tagSize"] // 8]
    return "valid" if hmac.compare_digest(made, tag) else "invalid"


# File, how it is decided, and what there is: valid, invalid, skipped. None of these vectors is listed "acceptable",
# and no verdict is called so: one that comes with newer files fails until somebody has decided it.
FILES: dict[str, tuple[Callable[[Test, Test], str], Counter[str]]] = {
    "aes_gcm": (aead(AESGCM), Counter(valid=202, invalid=87) + Counter({NONCE_SIZE: 27})),
    "aes_gcm_siv": (aead(AESGCMSIV), Counter(valid=136, invalid=66)),
    "aes_kwp": (key_wrap, Counter(valid=77, invalid=177)),
    "chacha20_poly1305": (aead(ChaCha20Poly1305), Counter(valid=256, invalid=69)),
    "hkdf_sha256": (hkdf, Counter(valid=83, invalid=3)),
    "hmac_sha256": (mac, Counter(valid=66, invalid=108)),
}
FILE = pytest.mark.parametrize("name", FILES)


def vectors_of(name: str) -> Iterator[tuple[Test, Test]]:
    """Every vector with its group's parameters."""
    read = json.loads((VECTORS / f"{name}_test.json").read_text())
    found = [(group, test) for group in read["testGroups"] for test in group["tests"]]
    assert len(found) == read["numberOfTests"]
    yield from found


def decided(name: str, change: Callable[[Test], Test] = dict) -> tuple[Counter[str], list[int]]:
    """How many ended how, and the ids of those that did not end as listed."""
    decide, _ = FILES[name]
    ends: Counter[str] = Counter()
    wrong: list[int] = []
    for group, test in vectors_of(name):
        given = change(test)
        try:
            ends[end := decide(group, given)] += 1
        except Skipped as why:
            ends[str(why)] += 1
            continue
        if end != given["result"]:
            wrong.append(test["tcId"])
    return ends, wrong


@FILE
def test_every_vector_is_decided_as_listed(name: str) -> None:
    assert decided(name) == (FILES[name][1], [])


def test_there_are_no_other_files() -> None:
    assert {path.name for path in VECTORS.glob("*.json")} == {f"{name}_test.json" for name in FILES}


@FILE
def test_a_flipped_expectation_fails(name: str) -> None:
    _, wrong = decided(name, lambda test: test | {"result": "invalid" if test["result"] == "valid" else "valid"})
    ends = FILES[name][1]
    assert len(wrong) == ends["valid"] + ends["invalid"]


@FILE
def test_a_flipped_bit_fails(name: str) -> None:
    """In what a valid vector says comes out. (A bit of an invalid one might be the very bit that makes it so.)"""
    out = {"hkdf_sha256": "okm", "aes_kwp": "ct"}.get(name, "tag")

    def flip(test: Test) -> Test:
        return test if test["result"] != "valid" else test | {out: test[out][:-1] + f"{int(test[out][-1], 16) ^ 1:x}"}

    assert len(decided(name, flip)[1]) == FILES[name][1]["valid"]
