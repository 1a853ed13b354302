"""What was answered before, so that an exact repeat gets the same answer and is not published again.

A memory and not the truth: should it be lost, a repeat is published once more and the index, which writes by event
id, stays as it is. So it may skip fsync. It holds keyed hashes and reason codes only.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPEN_SECONDS, BUSY_SECONDS = 5.0, 0.2  # patience with a lock: at the start, and while senders wait
RETENTION_SECONDS = 7 * 24 * 3600  # as long as the raw topic keeps what a repeat would repeat


@dataclass(frozen=True, slots=True)
class Answer:
    """The first answer to an event: accepted where `reason` is empty, else refused with AE under it."""

    event_id: str
    control: str  # keyed hash of the sender's own message id, or of the thing that it tells of
    reason: str = ""
    where: str = ""


class Seen:
    """Shared by all listeners of one machine. Calls block on the disk for a moment: use a thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._writing = threading.Lock()  # one connection, several threads: their transactions must not mix
        try:
            self._open(path)
        except sqlite3.OperationalError:  # locked
            raise
        except sqlite3.DatabaseError:  # a power cut broke it: begin a new memory
            self._db.close()
            for end in ("", "-wal", "-shm"):
                path.with_name(path.name + end).unlink(missing_ok=True)
            self._open(path)

    def _open(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=OPEN_SECONDS, isolation_level=None, check_same_thread=False)
        os.chmod(path, 0o600)
        for statement in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=OFF",
            "CREATE TABLE IF NOT EXISTS answer"
            " (event_id TEXT PRIMARY KEY, control TEXT, reason TEXT, place TEXT, at REAL) WITHOUT ROWID",
            "CREATE INDEX IF NOT EXISTS answer_control ON answer (control)",
            "CREATE INDEX IF NOT EXISTS answer_at ON answer (at)",
        ):
            self._db.execute(statement)
        self._db.execute("DELETE FROM answer WHERE at < ?", (time.time() - RETENTION_SECONDS,))
        self._db.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")

    def before(self, event_id: str) -> Answer | None:
        """The first answer to exactly this event, as far as is remembered."""
        row = self._ask("SELECT event_id, control, reason, place FROM answer WHERE event_id = ?", event_id)
        return Answer(*row) if row else None

    def reused(self, control: str) -> bool:
        """Whether the sender has used this message id before; ask only for an event that is new."""
        return self._ask("SELECT 1 FROM answer WHERE control = ? LIMIT 1", control) is not None

    def latest(self, control: str) -> str:
        """The event that was answered last under this id; empty where none is remembered."""
        row = self._ask("SELECT event_id FROM answer WHERE control = ? ORDER BY at DESC LIMIT 1", control)
        return row[0] if row else ""

    def note(self, answers: Iterable[Answer]) -> None:
        """Remember. What cannot be written is forgotten: its event is durable, and a repeat does no harm."""
        now = time.time()
        rows = [(one.event_id, one.control, one.reason, one.where, now + n / 1e6) for n, one in enumerate(answers)]
        with self._writing, contextlib.suppress(sqlite3.DatabaseError):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                again = "ON CONFLICT (event_id) DO UPDATE SET at = excluded.at"
                self._db.executemany(f"INSERT INTO answer VALUES (?, ?, ?, ?, ?) {again}", rows)  # noqa: S608
                self._db.execute("COMMIT")
            except sqlite3.DatabaseError:
                self._db.execute("ROLLBACK")

    def _ask(self, query: str, value: str) -> Any:
        with contextlib.suppress(sqlite3.DatabaseError):
            return self._db.execute(query, (value,)).fetchone()
        return None

    def close(self) -> None:
        self._db.close()
