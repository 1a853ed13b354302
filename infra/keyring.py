"""The root keys, and the small interface behind which they may live elsewhere.

`kek.N` wraps data keys; `token` makes Kafka keys and never rotates; `identity` finds persons in the key store;
`blind.N` makes searchable hashes; `event` makes event ids; `signing` signs the audit and the proofs of erasures. Each
has one use, so that leaking one opens one thing.

The embedded provider is one local file that nobody else may read. With a master key or a passphrase in the environment
the file itself is sealed by it. Format 2, JSON: {"format": 2, "keys": {name: base64}} in clear, or
{"format": 2, "salt": ..., "nonce": ..., "sealed": ...} where `sealed` is AES-256-GCM over the same keys, under the
master key, or under Argon2id of the passphrase (RFC 9106, second recommended option: 64 MiB, 3 passes, 4 lanes) and
`salt`; the associated data names the format and the salt.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.crypto import KEY_BYTES, NONCE_BYTES, context
from infra.errors import UsageError, WardstreamError
from infra.settings import settings

NAMES = ("kek.1", "token", "identity", "blind.1", "event", "signing")
SALT_BYTES = 16


class LoosePermissions(WardstreamError):
    """Others can read a key file."""

    exit_code = 7
    reason = "loose_permissions"


class KeyringLocked(WardstreamError):
    """The keyring file is sealed, and the master key or passphrase given does not open it."""

    exit_code = 7
    reason = "keyring_locked"


class KekDestroyed(WardstreamError):
    """A key-encryption key that was destroyed on schedule, or never was here."""

    exit_code = 5
    reason = "kek_destroyed"


class KeyProvider(Protocol):
    """Where root keys live. A vault or a cloud's key service wraps and unwraps without giving a key away."""

    @property
    def kek_version(self) -> int:
        """The key-encryption key that wraps from now on."""
        ...

    def wrap(self, bound: bytes, secret: bytes) -> tuple[int, bytes]:
        """A secret under the present key-encryption key, bound to its context: version and wrapped bytes."""
        ...

    def unwrap(self, version: int, bound: bytes, wrapped: bytes) -> bytes:
        """Raises KekDestroyed for a version that is no more."""
        ...

    def secret(self, name: str) -> bytes:
        """A root key that is used here: token, identity, event, signing. Raises KeyError."""
        ...

    def refresh(self) -> None:
        """See what another process has changed."""
        ...


class Keyring:
    """The embedded KeyProvider: one file. Thread-safe: its keys are replaced as a whole."""

    def __init__(self, keys: dict[str, bytes], path: Path | None = None) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._take(keys)

    def _take(self, keys: dict[str, bytes]) -> None:
        self._keys = keys
        self.token, self.identity, self.event = (keys[name] for name in ("token", "identity", "event"))
        self.blinds = {version: keys[f"blind.{version}"] for version in sorted(_versions(keys, "blind"), reverse=True)}
        self._keks = {version: AESGCM(keys[f"kek.{version}"]) for version in _versions(keys, "kek")}

    @property
    def kek_version(self) -> int:
        return max(self._keks)

    @property
    def kek_versions(self) -> list[int]:
        return sorted(self._keks)

    def secret(self, name: str) -> bytes:
        return self._keys[name]

    def signing_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self._keys["signing"])

    def wrap(self, bound: bytes, secret: bytes) -> tuple[int, bytes]:
        """12 bytes nonce, then ciphertext and tag of AES-256-GCM; `bound` is the associated data."""
        version, nonce = self.kek_version, os.urandom(NONCE_BYTES)
        return version, nonce + self._keks[version].encrypt(nonce, secret, bound)

    def unwrap(self, version: int, bound: bytes, wrapped: bytes) -> bytes:
        if version not in self._keks:
            self.refresh()
        if version not in self._keks:
            raise KekDestroyed(f"key-encryption key {version} was destroyed, or belongs to another keyring")
        try:
            return self._keks[version].decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound)
        except InvalidTag:
            raise KekDestroyed(f"key-encryption key {version} of this keyring did not wrap this key") from None

    @classmethod
    def local(cls) -> Keyring:
        """The keyring of this home, made where there is none."""
        return cls.open(settings().home / "keys" / "keyring.json")

    @classmethod
    def open(cls, path: Path) -> Keyring:
        """Load the keyring, making it first where there is none; safe when several processes do so at once.

        Raises LoosePermissions, and KeyringLocked where it is sealed and the environment does not open it.
        """
        if not path.exists():
            with _alone(path):
                if not path.exists():
                    _write(path, {name: os.urandom(KEY_BYTES) for name in NAMES})
        made = cls(_read(path), path)
        made._stamp = _stamp(path)
        return made

    def refresh(self) -> None:
        """Read the file again if another process has changed it."""
        if self._path is not None and self._stamp != (stamp := _stamp(self._path)):
            self._take(_read(self._path))
            self._stamp = stamp

    def add(self, name: str) -> None:
        """Make a new root key, unless it is there."""
        self._change(lambda keys: {name: os.urandom(KEY_BYTES)} | keys)

    def drop(self, names: Iterable[str]) -> None:
        """Destroy root keys."""
        gone = set(names)
        self._change(lambda keys: {name: key for name, key in keys.items() if name not in gone})

    def _change(self, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
        """Rewrite the file under a lock, as a whole and durably; other processes see it when they refresh."""
        assert self._path is not None
        with _alone(self._path):
            keys = change(_read(self._path))
            _write(self._path, keys)
            self._take(keys)
            self._stamp = _stamp(self._path)


def _versions(keys: dict[str, bytes], kind: str) -> list[int]:
    return [int(name.removeprefix(f"{kind}.")) for name in keys if name.startswith(f"{kind}.")]


def _stamp(path: Path) -> tuple[int, int]:
    now = path.stat()
    return now.st_mtime_ns, now.st_ino


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> dict[str, bytes]:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise LoosePermissions(f"{path.name} is readable by others: chmod 600 it, then think who may have read it")
    held: dict[str, Any] = json.loads(path.read_text())
    if held.get("format") != 2:
        raise UsageError(f"{path.name} is no keyring of this version")
    return _decoded(_unsealed(held, path.name) if "sealed" in held else held["keys"])


def _write(path: Path, keys: dict[str, bytes]) -> None:
    plain = {name: b64encode(key).decode() for name, key in sorted(keys.items())}
    salt = os.urandom(SALT_BYTES)
    made: dict[str, Any] = {"format": 2, "keys": plain}
    if (master := _master(salt)) is not None:
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(master).encrypt(nonce, json.dumps(plain).encode(), context(b"wardstream keyring 2", salt))
        made = {"format": 2, **_encoded({"salt": salt, "nonce": nonce, "sealed": sealed})}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".keyring")  # mode 0600
    with os.fdopen(handle, "w") as file:
        json.dump(made, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(name, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _unsealed(held: dict[str, str], name: str) -> dict[str, str]:
    parts = _decoded({part: held[part] for part in ("salt", "nonce", "sealed")})
    master = _master(parts["salt"])
    if master is None:
        raise KeyringLocked(f"{name} is sealed: set WARDSTREAM_MASTER_KEY or WARDSTREAM_PASSPHRASE")
    try:
        bound = context(b"wardstream keyring 2", parts["salt"])
        found: dict[str, str] = json.loads(AESGCM(master).decrypt(parts["nonce"], parts["sealed"], bound))
        return found
    except InvalidTag:
        raise KeyringLocked(f"{name} does not open with the master key or passphrase given") from None


def _master(salt: bytes) -> bytes | None:
    """The key that seals the file, None where the environment gives none."""
    of = settings()
    if given := of.master_key.get_secret_value():
        try:
            key = b64decode(given, validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise UsageError("WARDSTREAM_MASTER_KEY is 32 bytes in base64")
        return key
    if spoken := of.passphrase.get_secret_value():
        return hash_secret_raw(spoken.encode(), salt, 3, 65_536, 4, KEY_BYTES, Type.ID)
    return None


def _decoded(texts: dict[str, str]) -> dict[str, bytes]:
    return {name: b64decode(text) for name, text in texts.items()}


def _encoded(parts: dict[str, bytes]) -> dict[str, str]:
    return {name: b64encode(part).decode() for name, part in parts.items()}
