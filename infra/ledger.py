"""The ledger of erasures: who was erased and how far each erasure has come, by references and keyed hashes alone.

It lives outside every backup (`WARDSTREAM_LEDGER`), because a backup brings back what was there when it was made: the
key store obeys the ledger before it opens anything. One JSON line a step, each with the digest of the line before and
an Ed25519 signature over what it says; appended and fsynced before the step counts as done, so that an erasure that
was killed goes on where it was.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.errors import LedgerBroken
from infra.keyring import Keyring
from infra.settings import settings

FILE = "erasures.jsonl"
REQUESTED, FINISHED = "requested", "finished"


@dataclass(slots=True)
class Erasure:
    """One erasure as the ledger tells it."""

    id: str
    refs: frozenset[str]
    identifiers: frozenset[bytes]  # keyed hashes
    at: float  # seconds since 1970: what happened before is dropped, what happens after is somebody new
    reason: str
    who: str
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)  # what each finished step has found

    @property
    def finished(self) -> bool:
        return FINISHED in self.steps


class Ledger:
    def __init__(self, folder: Path, key: Ed25519PrivateKey) -> None:
        self.path = folder / FILE
        self._key = key

    @classmethod
    def local(cls, keyring: Keyring) -> Ledger:
        return cls(settings().ledger or settings().home / "ledger", keyring.signing_key())

    def erasures(self) -> list[Erasure]:
        """All of them, in the order in which they were requested. Raises LedgerBroken."""
        found: dict[str, Erasure] = {}
        for line, _ in self._lines():
            said = line["said"]
            if said["step"] == REQUESTED:
                found[said["erasure"]] = Erasure(
                    said["erasure"],
                    frozenset(said["refs"]),
                    frozenset(bytes.fromhex(one) for one in said["identifiers"]),
                    said["at"],
                    said["reason"],
                    said["who"],
                )
            found[said["erasure"]].steps[said["step"]] = said["found"]
        return list(found.values())

    def request(self, erasure: Erasure, found: dict[str, Any]) -> None:
        """The first line of an erasure: from here on it fails closed, and goes on until it is finished."""
        self._append(
            {
                "erasure": erasure.id,
                "step": REQUESTED,
                "at": erasure.at,
                "refs": sorted(erasure.refs),
                "identifiers": sorted(one.hex() for one in erasure.identifiers),
                "reason": erasure.reason,
                "who": erasure.who,
                "found": found,
            }
        )
        erasure.steps[REQUESTED] = found

    def done(self, erasure: Erasure, step: str, found: dict[str, Any]) -> None:
        self._append({"erasure": erasure.id, "step": step, "found": found})
        erasure.steps[step] = found

    def verify(self) -> int:
        """Check every signature, beside the chain; gives the number of lines. Raises LedgerBroken."""
        public, count = self._key.public_key(), 0
        for count, (line, _) in enumerate(self._lines(), 1):
            try:
                public.verify(bytes.fromhex(line["signature"]), _signed(line["prev"], line["said"]))
            except (InvalidSignature, ValueError):
                raise LedgerBroken(
                    f"line {count} of the ledger of erasures is not signed by this installation"
                ) from None
        return count

    def _lines(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Whole lines with their digests, the chain checked. A torn one is a step that was not recorded: done again."""
        if not self.path.exists():
            return
        prev = ""
        *lines, torn = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                read: dict[str, Any] = orjson.loads(line)
                chained = read["prev"] == prev
            except (orjson.JSONDecodeError, KeyError, TypeError):
                if number < len(lines) or torn:  # closed by a later writer
                    continue
                chained = False
            if not chained:
                raise LedgerBroken(f"line {number} of the ledger of erasures does not follow the one before it")
            prev = hashlib.sha256(line).hexdigest()
            yield read, prev

    def _append(self, said: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(self.path) as handle:
            *_, prev = ["", *(digest for _, digest in self._lines())]
            signature = self._key.sign(_signed(prev, said)).hex()
            line = orjson.dumps({"prev": prev, "said": said, "signature": signature})
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, (b"\n" if torn else b"") + line + b"\n")
            os.fsync(handle)
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def _signed(prev: str, said: dict[str, Any]) -> bytes:
    return b"wardstream ledger 1\n" + prev.encode() + b"\n" + orjson.dumps(said, option=orjson.OPT_SORT_KEYS)


@contextmanager
def _alone(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)
