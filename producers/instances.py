"""What instances are really stored: the truth behind "the same again", "another under its name" and storage commitment.

It holds keyed hashes, names of objects and sizes; requests for commitment that are not answered yet lie in it sealed.
Those are on the disk when a call returns. Notes of instances outlive a killed process, but the last ones no power cut,
which costs no more than that: what it has forgotten it calls not stored, and takes anew when it comes again.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import WardstreamError

BUSY_SECONDS = 5.0
NOT_FSYNCED = "PRAGMA synchronous=NORMAL"
MOST_COMMITMENTS = 10_000  # unanswered ones; a peer that asks on and on pushes out the oldest


@dataclass(frozen=True, slots=True)
class Kept:
    """One content of one SOP instance, and the object it lies in. Without an `event_id` the broker has not confirmed
    it yet, as far as is known here."""

    instance: bytes  # keyed hash of the SOP Instance UID
    digest: bytes  # keyed hash of the content's digest
    name: str
    size: int  # bytes of the content
    sop_class: bytes  # keyed hash of the SOP Class UID
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Commitment:
    """A request that its peer has not been answered (PS3.4 J.3): whom, and what it asked, sealed."""

    number: int
    calling: str
    called: str
    version: int  # of the key-encryption key
    asked: bytes
    tries: int


class InstancesBusy(WardstreamError):
    """Somebody else is writing, or the disk is full: the same may be asked again."""

    exit_code = 3
    reason = "instances_busy"


class Instances:
    """Shared by all threads of a process, and by the processes of a home. Calls block on the disk: use a thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._alone = threading.Lock()  # one connection, several threads
        self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        os.chmod(path, 0o600)
        for statement in (
            "PRAGMA journal_mode=WAL",
            NOT_FSYNCED,
            "CREATE TABLE IF NOT EXISTS kept (instance BLOB, digest BLOB, name TEXT, size INTEGER, sop_class BLOB,"
            " event_id TEXT, at REAL, PRIMARY KEY (instance, digest)) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS commitment (number INTEGER PRIMARY KEY, calling TEXT, called TEXT,"
            " version INTEGER, asked BLOB, tries INTEGER, due REAL)",
        ):
            self._db.execute(statement)

    def of(self, instance: bytes) -> list[Kept]:
        """Every content of an instance, the first that came first."""
        rows = self._ask(
            "SELECT instance, digest, name, size, sop_class, event_id FROM kept WHERE instance = ? ORDER BY at",
            (instance,),
        )
        return [Kept(*row) for row in rows]

    def note(self, one: Kept) -> None:
        """Before its event is published, and again with the event's id once the broker has confirmed."""
        self._ask(
            "INSERT INTO kept VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET name = excluded.name, size = excluded.size, event_id = excluded.event_id",
            (one.instance, one.digest, one.name, one.size, one.sop_class, one.event_id, time.time()),
        )

    def forget(self, one: Kept) -> None:
        """What could not be published, or is no more; another object under its name stays."""
        self._ask(
            "DELETE FROM kept WHERE instance = ? AND digest = ? AND name = ?", (one.instance, one.digest, one.name)
        )

    def ask(self, calling: str, called: str, version: int, asked: bytes, due: float) -> int:
        """Remember a request for commitment until it is answered; gives its number. `due`: not to be tried before."""
        self._ask("PRAGMA synchronous=FULL", ())
        (row,) = self._ask(
            "INSERT INTO commitment (calling, called, version, asked, tries, due) VALUES (?, ?, ?, ?, 0, ?)"
            " RETURNING number",
            (calling, called, version, asked, due),
        )
        self._ask(NOT_FSYNCED, ())
        self._ask("DELETE FROM commitment WHERE number <= ?", (int(row[0]) - MOST_COMMITMENTS,))
        return int(row[0])

    def due(self, at: float) -> list[Commitment]:
        rows = self._ask(
            "SELECT number, calling, called, version, asked, tries FROM commitment WHERE due <= ? ORDER BY due", (at,)
        )
        return [Commitment(*row) for row in rows]

    def later(self, number: int, due: float) -> None:
        """Not answered yet: to be tried again then."""
        self._ask("UPDATE commitment SET tries = tries + 1, due = ? WHERE number = ?", (due, number))

    def answered(self, number: int) -> None:
        self._ask("DELETE FROM commitment WHERE number = ?", (number,))

    def close(self) -> None:
        self._db.close()

    def _ask(self, query: str, values: Iterable[Any]) -> list[Any]:
        """Raises InstancesBusy."""
        with self._alone:
            try:
                return self._db.execute(query, tuple(values)).fetchall()
            except sqlite3.OperationalError:
                raise InstancesBusy("another process holds the list of instances") from None
