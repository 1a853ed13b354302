"""Legal holds: while a law wants a person's record kept, an erasure is refused (GDPR art. 17(3)(b))."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sql

from infra import database
from infra.database import Database

BASES = {
    "retention": "a law's retention period for medical records (GDPR art. 17(3)(b); PIPL art. 47)",
    "public_health": "public interest in public health (GDPR art. 17(3)(c))",
    "archive": "archiving, research or statistics in the public interest (GDPR art. 17(3)(d))",
    "claims": "legal claims (GDPR art. 17(3)(e))",
}

_hold = sql.Table(
    "hold",
    sql.MetaData(),
    sql.Column("id", sql.String(16), primary_key=True),
    sql.Column("ref", sql.String(32), nullable=False, index=True),
    sql.Column("basis", sql.String(16), nullable=False),
    sql.Column("placed_by", sql.String(64), nullable=False),
    sql.Column("placed_at", sql.Float, nullable=False),
    sql.Column("until", sql.Float),  # NULL: until it is released
    sql.Column("released_by", sql.String(64)),
    sql.Column("released_at", sql.Float),
)


@dataclass(frozen=True, slots=True)
class Hold:
    """Times are seconds since 1970."""

    id: str
    ref: str
    basis: str
    placed_by: str
    placed_at: float
    until: float | None
    released_by: str | None
    released_at: float | None

    def holds(self) -> bool:
        return self.released_at is None and (self.until is None or time.time() < self.until)


class Holds:
    def __init__(self, url: str) -> None:
        self._db = Database(url)
        self._db.create(_hold)

    @classmethod
    def local(cls) -> Holds:
        return cls(database.url())

    def place(self, ref: str, basis: str, until: float | None, account: str) -> Hold:
        made = Hold(os.urandom(4).hex(), ref, basis, account, time.time(), until, None, None)
        with self._db.writing() as db:
            row = {name: getattr(made, name) for name in _hold.c.keys()}  # noqa: SIM118 - columns by name
            db.execute(_hold.insert().values(**row))
        return made

    def release(self, id: str, account: str) -> bool:
        """Gives whether there was such a hold in force."""
        open_one = sql.and_(_hold.c.id == id, _hold.c.released_at.is_(None))
        with self._db.writing() as db:
            done = db.execute(_hold.update().where(open_one).values(released_by=account, released_at=time.time()))
            return bool(done.rowcount)

    def of(self, refs: Collection[str] | None = None) -> list[Hold]:
        """Holds of these references, of everybody where none are given; oldest first."""
        query = sql.select(_hold).order_by(_hold.c.placed_at)
        with self._db.reading() as db:
            rows = db.execute(query if refs is None else query.where(_hold.c.ref.in_(refs)))
            return [Hold(*row) for row in rows]
