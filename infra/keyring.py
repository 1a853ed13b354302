"""The root keys, in one local file that nobody else may read.

`kek.N` wraps data keys; `token` makes Kafka keys and never rotates; `identity` finds persons in the key store;
`blind` makes searchable hashes; `event` makes event ids. Each has one use, so that leaking one opens one thing.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from base64 import b64decode, b64encode
from pathlib import Path

from infra.errors import WardstreamError

NAMES = ("kek.1", "token", "identity", "blind", "event")


class LoosePermissions(WardstreamError):
    """Others can read a key file."""

    exit_code = 7
    reason = "loose_permissions"


class Keyring:
    def __init__(self, keys: dict[str, bytes]) -> None:
        self._keys = keys
        self.token, self.identity, self.blind, self.event = (keys[name] for name in NAMES[1:])
        self.kek_version = max(int(name.removeprefix("kek.")) for name in keys if name.startswith("kek."))

    def kek(self, version: int) -> bytes:
        """A key-encryption key by version. Raises KeyError for one that was destroyed or never was."""
        return self._keys[f"kek.{version}"]

    @classmethod
    def open(cls, path: Path) -> Keyring:
        """Load the keyring, making it first where there is none; safe when several processes do so at once."""
        if not path.exists():
            _create(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise LoosePermissions(f"{path.name} is readable by others: chmod 600 it, then think who may have read it")
        return cls({name: b64decode(key) for name, key in json.loads(path.read_text()).items()})


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    with os.fdopen(handle, "w") as file:
        json.dump({key: b64encode(os.urandom(32)).decode() for key in NAMES}, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(name, path)  # fails where another process was first: its keys are the ones
    except FileExistsError:
        pass
    finally:
        os.unlink(name)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
