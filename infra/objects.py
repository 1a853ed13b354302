"""Objects: what is too large for a message, sealed in chunks, in a folder or an S3-compatible bucket (a claim check).

An object has a content key of its own, which stands in no object and in no index but sealed under the data key of its
patient: destroying that key closes the object wherever a copy of it lies. Format:

    1 byte   format, 1
    16 bytes salt, random
    chunks   of CHUNK bytes of the content, the last one shorter, each followed by its 16-byte tag (AES-256-GCM)

    key of the chunks: HMAC-SHA-256(content key, format, name, salt; length-prefixed)
    nonce of a chunk:  11 bytes its number, 1 byte whether it is the last

So chunks can be neither moved, repeated, left out nor cut off (the STREAM construction of Hoang, Reyhanitabar, Rogaway
and Vizard, 2015), any of them can be read by itself, and memory holds one however large the object is.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self

import fsspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fsspec.implementations.local import LocalFileSystem

from infra.crypto import FORMAT, KEY_BYTES, keyed_hash
from infra.errors import ObjectMissing, ObjectsAway, SealBroken
from infra.settings import settings

CHUNK = 1 << 18
SALT_BYTES = 16
TAG_BYTES = 16
HEAD_BYTES = len(FORMAT) + SALT_BYTES
NAME = re.compile(r"[0-9a-f]{32}(-[a-z]+)?")
PART = ".part"  # of a name, while it is being written to a folder


@dataclass(frozen=True, slots=True)
class Claim:
    """What opens an object. Whoever has it can read it: kept sealed only."""

    name: str
    key: bytes = field(repr=False)
    size: int  # bytes of the content
    digest: str  # SHA-256 of the content, in hex

    def companion(self, what: str) -> tuple[str, bytes]:
        """Name and key of an object that is made of this one, always the same: a preview."""
        return f"{self.name}-{what}", keyed_hash(self.key, b"companion", what.encode())


class Objects:
    """A store of objects. `url` is a folder, or what fsspec knows: s3://bucket/prefix."""

    def __init__(self, url: str, **options: Any) -> None:
        self._files, self._root = fsspec.core.url_to_fs(url, **options)
        self._local = isinstance(self._files, LocalFileSystem)
        if self._local:
            os.makedirs(self._root, mode=0o700, exist_ok=True)

    @classmethod
    def local(cls) -> Objects:
        """The store of this installation."""
        return _of(settings().objects or str(settings().home.absolute() / "objects"))

    def create(self, name: str = "", key: bytes = b"") -> Writer:
        """Begin an object, by default of a new name under a new key. One of the same name is replaced at the end."""
        return Writer(self, name or os.urandom(16).hex(), key or os.urandom(KEY_BYTES))

    def open(self, claim: Claim) -> Reader:
        """Raises ObjectMissing."""
        return Reader(self, claim.name, claim.key)

    def open_companion(self, claim: Claim, what: str) -> Reader:
        return Reader(self, *claim.companion(what))

    def size(self, name: str) -> int | None:
        """Bytes of the content, None where there is no such object: what is really stored."""
        try:
            stored = int(self._files.size(self._path(name)))
        except FileNotFoundError:
            return None
        return content_bytes(stored)

    def remove(self, names: Iterable[str]) -> int:
        """Remove objects with all their companions; gives how many there were. What is not there is not missed.

        Raises ObjectsAway.
        """
        removed = 0
        try:
            for name in names:
                path = self._path(name)
                for one in self._files.glob(f"{path}*"):
                    with suppress(FileNotFoundError):
                        self._files.rm_file(one)
                        removed += 1
        except OSError as error:
            raise ObjectsAway(f"the object store fails: {type(error).__name__}") from None
        return removed

    def names(self, older_seconds: float = 0.0) -> Iterator[str]:
        """Every object that was written so long ago, unfinished ones too; of a companion whose it is."""
        before, told = time.time() - older_seconds, set[str]()
        for path, info in self._files.find(self._root, detail=True).items():
            name = path.rpartition("/")[2].removesuffix(PART)
            at = info.get("mtime") or info.get("LastModified")
            written = at.timestamp() if hasattr(at, "timestamp") else float(at or 0)
            whose = name.partition("-")[0]
            if NAME.fullmatch(name) and written <= before and whose not in told:
                told.add(whose)
                yield whose

    def _path(self, name: str) -> str:
        if not NAME.fullmatch(name):  # it came from outside: it may be a path
            raise ObjectMissing("no name of an object")
        return f"{self._root}/{name[:2]}/{name}"


@cache
def _of(url: str) -> Objects:
    return Objects(url)


class Writer:
    """Seals what is written, chunk by chunk. `finish` makes it durable; without it nothing is there."""

    def __init__(self, store: Objects, name: str, key: bytes) -> None:
        self._store, self.name, self.key = store, name, key
        self._path = store._path(name)
        salt = os.urandom(SALT_BYTES)
        self._aead = AESGCM(_chunk_key(key, name, salt))
        self._buffer = bytearray()
        self._hash, self.size, self._number = hashlib.sha256(), 0, 0
        if store._local:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            self._file: Any = open(self._path + PART, "wb", buffering=0, opener=_private)  # noqa: SIM115
        else:
            self._file = store._files.open(self._path, "wb")
        self._file.write(FORMAT + salt)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self._hash.update(data)
        self.size += len(data)
        self._buffer += data
        if len(self._buffer) > CHUNK:  # the last chunk is known for one at the end only
            whole = (len(self._buffer) - 1) // CHUNK
            with memoryview(self._buffer) as view:
                for one in range(whole):
                    self._seal(view[one * CHUNK : (one + 1) * CHUNK], last=False)
            del self._buffer[: whole * CHUNK]
        return len(data)

    def finish(self) -> Claim:
        """Durable when this returns: a folder's file is on the disk, and so is its name."""
        self._seal(self._buffer, last=True)
        if self._store._local:
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._path + PART, self._path)
            _sync_folder(os.path.dirname(self._path))
        else:
            self._file.close()  # a multipart upload is there whole, or not at all
        return Claim(self.name, self.key, self.size, self._hash.hexdigest())

    def abandon(self) -> None:
        """Leave nothing behind. May be called at any time, more than once."""
        if self._store._local:
            self._file.close()
            with suppress(FileNotFoundError):
                os.remove(self._path + PART)
        elif not self._file.closed:
            self._file.discard()
            self._file.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.abandon()

    def _seal(self, chunk: bytes | bytearray | memoryview, *, last: bool) -> None:
        self._file.write(self._aead.encrypt(_nonce(self._number, last), bytes(chunk), None))
        self._number += 1


class Reader(io.RawIOBase):
    """The content of an object, anywhere in it. Raises SealBroken where it is not what was written."""

    def __init__(self, store: Objects, name: str, key: bytes) -> None:
        path = store._path(name)
        try:
            stored = int(store._files.size(path))
            self._file: Any = open(path, "rb", buffering=0) if store._local else store._files.open(path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            raise ObjectMissing("an object is not in the store") from None
        size, head = content_bytes(stored), self._file.read(HEAD_BYTES)
        if size is None or not head.startswith(FORMAT):
            self._file.close()
            raise SealBroken("this is no sealed object")
        self.size = size
        self._last = max(0, size - 1) // CHUNK
        self._aead = AESGCM(_chunk_key(key, name, head[len(FORMAT) :]))
        self._at, self._number, self._chunk = 0, -1, b""
        self._lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError("before the beginning")
        self._at = start + offset
        return self._at

    def readinto(self, into: Any) -> int:
        with self._lock:
            if self._at >= self.size:
                if self._number < 0:  # an empty object is one chunk with nothing in it: sealed all the same
                    self._load(self._last)
                return 0
            number, skip = divmod(self._at, CHUNK)
            if number != self._number:
                self._load(number)
            piece = self._chunk[skip : skip + len(into)]
            into[: len(piece)] = piece
            self._at += len(piece)
            return len(piece)

    def _load(self, number: int) -> None:
        self._file.seek(HEAD_BYTES + number * (CHUNK + TAG_BYTES))
        sealed = b""
        wanted = min(CHUNK, self.size - number * CHUNK) + TAG_BYTES
        while len(sealed) < wanted and (more := self._file.read(wanted - len(sealed))):
            sealed += more
        try:
            self._chunk = self._aead.decrypt(_nonce(number, number == self._last), sealed, None)
        except (InvalidTag, ValueError):
            raise SealBroken("a chunk of an object does not open") from None
        self._number = number

    def close(self) -> None:
        self._file.close()
        super().close()


def content_bytes(stored: int) -> int | None:
    """Bytes of content in an object of so many stored bytes; None where no object has so many."""
    chunks = stored - HEAD_BYTES
    whole, rest = divmod(chunks, CHUNK + TAG_BYTES)
    if chunks < TAG_BYTES or (0 < rest <= TAG_BYTES and whole):
        return None
    return whole * CHUNK + max(0, rest - TAG_BYTES)


def _chunk_key(key: bytes, name: str, salt: bytes) -> bytes:
    return keyed_hash(key, FORMAT, name.encode(), salt)


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11) + bytes([last])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
