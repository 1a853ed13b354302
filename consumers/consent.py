"""What patients have decided about the use of their data: of a person and a purpose the latest decision holds.

FHIR's Consent with a provision of type permit or deny, a purpose, and a period that may end. A decision that has ended
counts no more, and the one before it does again. Decisions follow a person through merges, under whichever reference
they were made. Rows are added and never changed, so that what held on a day can be told later.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from infra import database
from infra.database import Database
from infra.keystore import KeyStore

TERMS = 60_000  # Elasticsearch takes 65,536 in one clause (index.max_terms_count)

_consent = sql.Table(
    "consent",
    sql.MetaData(),
    sql.Column("id", sql.Integer, primary_key=True, autoincrement=True),  # later decisions have higher ones
    sql.Column("ref", sql.String(32), nullable=False, index=True),
    sql.Column("purpose", sql.String(16), nullable=False),
    sql.Column("permit", sql.Boolean, nullable=False),
    sql.Column("at", sql.Float, nullable=False),
    sql.Column("until", sql.Float),  # NULL: until another decision
    sql.Column("account", sql.String(64), nullable=False),  # who wrote it down
)


@dataclass(frozen=True, slots=True)
class Persons:
    """Which persons may be looked at: all but `differing`, or none but them. With every alias, so that it is exact."""

    otherwise: bool
    differing: frozenset[str] = frozenset()

    def permits(self, ref: str | None) -> bool:
        """Of a document without a patient (None) nobody has decided."""
        return (ref in self.differing) != self.otherwise

    def clause(self) -> dict[str, Any]:
        """The same as a filter of the index."""
        refs = sorted(self.differing)
        terms = [{"terms": {"patient_ref": refs[at : at + TERMS]}} for at in range(0, max(len(refs), 1), TERMS)]
        return {"bool": {"must_not" if self.otherwise else "should": terms}}


@dataclass(frozen=True, slots=True)
class Decision:
    ref: str
    purpose: str
    permit: bool
    at: float
    until: float | None
    account: str

    def holds(self, now: float) -> bool:
        return self.until is None or now < self.until


class Consents:
    def __init__(self, url: str, keys: KeyStore) -> None:
        self._keys = keys
        self._db = Database(url)
        self._db.create(_consent)

    @classmethod
    def local(cls, keys: KeyStore) -> Consents:
        return cls(database.url(), keys)

    def decide(self, ref: str, purpose: str, permit: bool, until: float | None, account: str) -> None:
        row = {"ref": ref, "purpose": purpose, "permit": permit, "until": until, "account": account}
        with self._db.writing() as db:
            db.execute(_consent.insert().values(**row, at=time.time()))

    def of_person(self, ref: str) -> list[Decision]:
        """Every decision of a person, oldest first."""
        return self._read(_consent.c.ref.in_(self._keys.family(ref)))

    def persons(self, purpose: str, silence: bool) -> Persons:
        """Who may be looked at for a purpose, where `silence` says what holds for those who decided nothing."""
        now = time.time()
        families: dict[str, frozenset[str]] = {}
        latest: dict[frozenset[str], bool] = {}
        for one in self._read(_consent.c.purpose == purpose):
            if one.holds(now):
                if one.ref not in families:
                    families[one.ref] = frozenset(self._keys.family(one.ref))
                latest[families[one.ref]] = one.permit
        return Persons(
            silence, frozenset(ref for family, permit in latest.items() if permit != silence for ref in family)
        )

    def _read(self, which: sql.ColumnElement[bool]) -> list[Decision]:
        with self._db.reading() as db:
            rows = db.execute(sql.select(_consent).where(which).order_by(_consent.c.id))
            return [Decision(row.ref, row.purpose, row.permit, row.at, row.until, row.account) for row in rows]
