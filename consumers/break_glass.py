"""Breaking the glass: one account sees one patient in an emergency, for a while, and somebody asks about it afterwards.

A grant never waits for anything but the database and the audit: with Kafka away it holds all the same, and its signal
is sent when the review list is next read. The reason is sealed under the patient's key, since it may name the patient;
with the patient erased it is gone as well, and the rest of the row stays.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import sqlalchemy as sql

from infra import database
from infra.crypto import field_key_version, open_field, seal_field
from infra.database import Database
from infra.errors import KeyShredded, UsageError
from infra.kafka import Outgoing, Producer
from infra.keystore import KeyStore
from schemas.envelope import rfc3339
from schemas.signal import message as signal_message
from schemas.topics import SIGNALS

DOMAIN = "access"

_grant = sql.Table(
    "break_glass",
    sql.MetaData(),
    sql.Column("id", sql.String(16), primary_key=True),
    sql.Column("account", sql.String(64), nullable=False, index=True),
    sql.Column("role", sql.String(32), nullable=False),
    sql.Column("ref", sql.String(32), nullable=False),
    sql.Column("reason", sql.Text, nullable=False),  # sealed
    sql.Column("at", sql.Float, nullable=False),
    sql.Column("expires_at", sql.Float, nullable=False),
    sql.Column("signalled_at", sql.Float),
    sql.Column("closed_at", sql.Float),
    sql.Column("closed_by", sql.String(64)),
)


@dataclass(frozen=True, slots=True)
class Grant:
    id: str
    account: str
    role: str
    ref: str
    at: float
    expires_at: float
    closed_at: float | None
    closed_by: str | None
    sealed: str = field(repr=False)


class Grants:
    def __init__(self, url: str, keys: KeyStore) -> None:
        self._keys = keys
        self._db = Database(url)
        self._db.create(_grant)

    @classmethod
    def local(cls, keys: KeyStore) -> Grants:
        return cls(database.url(), keys)

    def grant(self, account: str, role: str, ref: str, reason: str, minutes: int) -> Grant:
        """Open a person to an account for a while. Raises KeyShredded for an erased one: there is nothing to see."""
        made, now = os.urandom(8).hex(), time.time()
        sealed = seal_field(self._keys.of_ref(ref), DOMAIN, made, "reason", reason)
        row = {"id": made, "account": account, "role": role, "ref": ref, "reason": sealed, "at": now}
        with self._db.writing() as db:
            db.execute(_grant.insert().values(**row, expires_at=now + 60 * minutes))
        return Grant(made, account, role, ref, now, now + 60 * minutes, None, None, sealed)

    def open_to(self, account: str) -> frozenset[str]:
        """References, with all aliases, of the persons whom an account may see now."""
        live = sql.select(_grant.c.ref).where(_grant.c.account == account, _grant.c.expires_at > time.time())
        with self._db.reading() as db:
            refs = {row.ref for row in db.execute(live)}
        return frozenset(one for ref in refs for one in self._keys.family(ref))

    def all(self) -> list[Grant]:
        """Every grant, newest first."""
        with self._db.reading() as db:
            rows = db.execute(sql.select(_grant).order_by(_grant.c.at.desc()))
            return [_made(row) for row in rows]

    def reason(self, grant: Grant) -> str | None:
        """In clear; None once the patient is erased. Whoever asks writes the audit first."""
        try:
            key = self._keys.of_ref(grant.ref, field_key_version(grant.sealed))
        except KeyShredded:
            return None
        return open_field(key, DOMAIN, grant.id, "reason", grant.sealed)

    def close(self, wanted: str, account: str) -> None:
        """Note that somebody has looked into it. Raises UsageError for a grant that is not there, or is one's own."""
        mine = _grant.c.account == account
        with self._db.writing() as db:
            if db.execute(sql.select(_grant.c.id).where(_grant.c.id == wanted, mine)).first() is not None:
                raise UsageError("nobody reviews a grant of his or her own")
            values = {"closed_at": time.time(), "closed_by": account}
            if not db.execute(_grant.update().where(_grant.c.id == wanted).values(**values)).rowcount:
                raise UsageError("there is no such grant: `wardstream breakglass review` lists them")

    def _signal(self, grant: Grant) -> Outgoing:
        """Sealed under the patient's key as every signal is, in clear once that is gone; the reason is not in it."""
        key = self._keys.of_tokens([self._keys.token(grant.ref)])[self._keys.token(grant.ref)]
        said = {"patient_ref": grant.ref, "detail": {"account": grant.account, "role": grant.role}}
        at = rfc3339(datetime.fromtimestamp(grant.at, UTC))
        return Outgoing(SIGNALS.name, *signal_message("break_glass", DOMAIN, grant.id, grant.id, at, said, key))

    def signal(self) -> None:
        """Send the signals that are owed. Raises PublishFailed, or StackDown where there is no Kafka."""
        with self._db.reading() as db:
            owed = [_made(row) for row in db.execute(sql.select(_grant).where(_grant.c.signalled_at.is_(None)))]
        if not owed:
            return
        producer = Producer()
        try:
            producer.send_now(self._signal(one) for one in owed)
        finally:
            producer.close()
        sent = _grant.update().where(_grant.c.id.in_([one.id for one in owed]))
        with self._db.writing() as db:
            db.execute(sent.values(signalled_at=time.time()))


def _made(row: sql.Row[tuple[object, ...]]) -> Grant:
    return Grant(
        row.id, row.account, row.role, row.ref, row.at, row.expires_at, row.closed_at, row.closed_by, row.reason
    )
