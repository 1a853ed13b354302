"""Sealing: AES-256-GCM (NIST SP 800-38D) with every ciphertext bound to where it belongs.

Two shapes leave this file.

A sealed **field** (base64 of these bytes) belongs to one person, record and field:

    1 byte   format, 1
    2 bytes  version of the person's data key, big endian
    12 bytes nonce, random
    n bytes  ciphertext and 16-byte tag
    associated data: format, person's reference, domain, record id, field, key version; each length-prefixed

A sealed **payload** has a content key of its own, wrapped by the data keys of all its subjects together, so that
destroying any one of them closes it:

    wrapped key: 1 byte format, 12 bytes nonce, 48 bytes ciphertext and tag of the 32-byte content key
    body:        1 byte format, 12 bytes nonce, ciphertext and tag
    associated data of both: format, purpose, event id; each length-prefixed

Length prefixes, because joined with a separator two different contexts can give the same bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.errors import SealBroken

FORMAT = b"\x01"
VERSION_BYTES = 2
NONCE_BYTES = 12
NONCE_AT = len(FORMAT) + VERSION_BYTES  # in a sealed field
BODY_AT = NONCE_AT + NONCE_BYTES
KEY_BYTES = 32


def context(*parts: bytes) -> bytes:
    """Length-prefixed concatenation: injective, so no two contexts share their bytes."""
    return b"".join([len(part).to_bytes(4) + part for part in parts])


def keyed_hash(key: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA-256 over length-prefixed parts: 32 bytes."""
    return hmac.digest(key, context(*parts), hashlib.sha256)


@dataclass(slots=True)
class DataKey:
    """The key of one person (or of a source's week), with the reference it belongs to."""

    ref: str
    token: str  # keyed hash of ref: what stands in Kafka
    version: int
    secret: bytes = field(repr=False)
    since: float = 0.0  # events before it were of an erased predecessor with the same number; 0: there is none
    uses: int = field(default=0, compare=False)  # messages sealed and not counted yet; see KeyStore.count
    aead: AESGCM = field(init=False, repr=False, compare=False)
    head: bytes = field(init=False, repr=False, compare=False)  # of every field sealed under it: format, version
    first: bytes = field(init=False, repr=False, compare=False)  # parts of every such field's associated data
    last: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        version = self.version.to_bytes(VERSION_BYTES)
        self.aead = AESGCM(self.secret)
        self.head = FORMAT + version
        self.first, self.last = context(FORMAT, self.ref.encode()), context(version)


def seal_fields(key: DataKey, domain: str, record_id: str, clear: Mapping[str, str]) -> dict[str, str]:
    """The fields of one record, each sealed by itself: what they have in common is made once."""
    encrypt, head, last, where = key.aead.encrypt, key.head, key.last, _where(key, domain, record_id)
    nonces = os.urandom(NONCE_BYTES * len(clear))
    key.uses += len(clear)
    sealed: dict[str, str] = {}
    for at, (name, value) in enumerate(clear.items()):
        nonce = nonces[at * NONCE_BYTES : (at + 1) * NONCE_BYTES]
        body = encrypt(nonce, value.encode(), where + _part(name) + last)
        sealed[name] = b2a_base64(head + nonce + body, newline=False).decode()
    return sealed


def seal_field(key: DataKey, domain: str, record_id: str, name: str, value: str) -> str:
    return seal_fields(key, domain, record_id, {name: value})[name]


def open_field(key: DataKey, domain: str, record_id: str, name: str, sealed: str) -> str:
    """The clear value. Raises SealBroken when altered or moved to another person, record, field or key version."""
    try:
        raw = a2b_base64(sealed)
        if not raw.startswith(key.head) or b2a_base64(raw, newline=False).decode() != sealed:
            raise InvalidTag  # decoders ignore what is no base64, and bits that the last character has too many
        bound = _where(key, domain, record_id) + _part(name) + key.last
        return key.aead.decrypt(raw[NONCE_AT:BODY_AT], raw[BODY_AT:], bound).decode()
    except (InvalidTag, ValueError):
        raise SealBroken(f"the sealed field {name} does not open here") from None


def field_key_version(sealed: str) -> int:
    """Version of the data key that a sealed field asks for. Raises SealBroken for what is no sealed field."""
    try:
        head = a2b_base64(sealed[:4], strict_mode=True)  # four characters are three bytes
    except ValueError:
        head = b""
    if len(head) != NONCE_AT or not head.startswith(FORMAT):
        raise SealBroken("this is no sealed field")
    return int.from_bytes(head[len(FORMAT) :])


def _where(key: DataKey, domain: str, record_id: str) -> bytes:
    """Associated data up to the field's name."""
    record = record_id.encode()
    return key.first + _part(domain) + len(record).to_bytes(4) + record


@lru_cache(4096)
def _part(word: str) -> bytes:
    """One part of a context. For domains and names of fields: there are few."""
    return context(word.encode())


@dataclass(frozen=True, slots=True)
class SealedPayload:
    wrapped_key: bytes
    body: bytes


def seal_payload(keys: Sequence[DataKey], event_id: str, body: bytes) -> SealedPayload:
    """Seal a body under a fresh content key that opens only with all of `keys`. Raises ValueError for no key."""
    content = os.urandom(KEY_BYTES)
    for key in keys:
        key.uses += 1
    return SealedPayload(
        _encrypt(AESGCM(_joint_key(keys)), b"key", event_id, content),
        _encrypt(AESGCM(content), b"body", event_id, body),
    )


def open_payload(keys: Sequence[DataKey], event_id: str, sealed: SealedPayload) -> bytes:
    """The clear body. Raises SealBroken when altered, moved to another event, or with a wrong key."""
    content = _decrypt(AESGCM(_joint_key(keys)), b"key", event_id, sealed.wrapped_key)
    return _decrypt(AESGCM(content), b"body", event_id, sealed.body)


def _joint_key(keys: Sequence[DataKey]) -> bytes:
    """A key that cannot be had without every one of `keys`: HMAC chained through them in order of reference."""
    if not keys:
        raise ValueError("a payload needs at least one key")
    joint = FORMAT
    for key in sorted({key.ref: key for key in keys}.values(), key=lambda key: key.ref):
        joint = keyed_hash(key.secret, b"wardstream payload", key.ref.encode(), joint)
    return joint


def _encrypt(aead: AESGCM, purpose: bytes, event_id: str, clear: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return FORMAT + nonce + aead.encrypt(nonce, clear, context(FORMAT, purpose, event_id.encode()))


def _decrypt(aead: AESGCM, purpose: bytes, event_id: str, sealed: bytes) -> bytes:
    nonce, body = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    try:
        return aead.decrypt(nonce, body, context(sealed[:1], purpose, event_id.encode()))
    except (InvalidTag, ValueError):
        raise SealBroken(f"the sealed {purpose.decode()} of an event does not open") from None


BLIND_BYTES = 8  # of ten thousand million different values one look-up meets a wrong one once in 1.8 thousand million


def blind_term(key: bytes, field: str, value: str) -> str:
    """What stands in the index for an identifying value: 64 bits of a keyed hash, for exact look-up.

    Spelling is levelled first (NFKC, case, everything but letters and digits), so that 555-12-3456 finds 555123456.
    Equal values of one field give equal terms: whoever reads the index learns that two documents share a number, not
    which; of two fields nothing is learned.
    """
    level = "".join(one for one in unicodedata.normalize("NFKC", value).casefold() if one.isalnum())
    return keyed_hash(key, b"blind", field.encode(), level.encode())[:BLIND_BYTES].hex()
