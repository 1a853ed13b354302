"""The small SQL database beside the streams: SQLite below home by default, PostgreSQL for several machines.

What needs a lock before it decides (whose number is this? which key is the newest?) runs in `writing`: one writer at a
time, in both databases, so that however many processes race, one of them makes the row and the others find it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sql

from infra.errors import KeyStoreBusy
from infra.settings import settings

BUSY_SECONDS = 5.0  # below what a sender waits for its answer, and a supervisor for an end
WRITER_LOCK = 0x7761_7264  # PostgreSQL's advisory lock of our one writer
_AWAY = ("locked", "busy", "connect", "closed", "reset", "timeout", "terminat", "shut", "starting up")


class Database:
    """An engine whose connections are ours to trust: durable commits, one writer, errors without values."""

    def __init__(self, url: str) -> None:
        self.url = sql.make_url(url)
        self._sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"hide_parameters": True}
        if self._sqlite:
            options["connect_args"] = {"timeout": BUSY_SECONDS}
        else:
            options |= {"connect_args": {"timeout": BUSY_SECONDS}, "pool_pre_ping": True}
        self._engine = sql.create_engine(self.url, **options)
        if self._sqlite:
            sql.event.listen(self._engine, "connect", _configure)
        sql.event.listen(self._engine, "begin", self._begin)
        sql.event.listen(self._engine, "handle_error", _say_busy)
        self._writer = self._engine.execution_options(write=True)

    def create(self, *tables: sql.Table) -> None:
        """Make tables that are missing; safe when several processes do so at once."""
        with self.writing() as db:
            for table in tables:
                table.create(db, checkfirst=True)
        if self._sqlite:
            os.chmod(self.url.database or "", 0o600)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sql.Connection]:
        with self._engine.connect() as db:
            yield db

    @contextlib.contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """A transaction that nobody else writes beside; committed durably at its end, or not at all."""
        with self._writer.begin() as db:
            yield db

    def forget(self) -> None:
        """Let what was deleted or overwritten leave the database's own files.

        SQLite: secure_delete has overwritten it in the database; the write-ahead log still holds older pages until it
        is checkpointed and cut. PostgreSQL: a vacuum takes dead rows; its own log, and copies of it, last as long as
        you keep them (docs/security.md).
        """
        connection = self._engine.raw_connection()
        try:
            driver: Any = connection.driver_connection
            if not self._sqlite:
                driver.rollback()
                driver.autocommit = True
            driver.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)" if self._sqlite else "VACUUM data_key")
        finally:
            if not self._sqlite:
                driver.autocommit = False
            connection.close()

    def close(self) -> None:
        self._engine.dispose()

    def _begin(self, db: sql.Connection) -> None:
        """Writers take the lock before they read: two that upgrade from reading at once would both fail."""
        if db.get_execution_options().get("write"):
            if self._sqlite:
                db.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                db.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")


def url() -> str:
    """Where this installation's database is: as set, else the embedded file, whose folder is made."""
    if given := settings().database.get_secret_value():
        return given
    folder = settings().home / "keys"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return f"sqlite:///{folder / 'keystore.sqlite'}"


def _configure(connection: Any, _: Any) -> None:
    """WAL lets readers and one writer work at once; FULL, because a key lost in a power cut is a person's data lost.

    secure_delete overwrites what is deleted: a destroyed key must not stay in a free page.
    """
    connection.isolation_level = None  # we say BEGIN ourselves, above
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _say_busy(context: Any) -> None:
    """Raises KeyStoreBusy in place of the driver's error, which quotes the statement."""
    said = str(context.original_exception).lower()
    if any(word in said for word in _AWAY):
        raise KeyStoreBusy("the key store is locked by another process, or away") from None
