"""Who calls: local accounts with a password, and the sessions that a login opens.

A session is a random token of 256 bits. The caller keeps it in `<home>/session` (mode 0600), or in WARDSTREAM_TOKEN;
the database has its SHA-256 alone, which opens nothing. Passwords are hashed with Argon2id (RFC 9106, second
recommended option: 64 MiB, 3 passes, 4 lanes), once at login and never again until the session ends.

Failures are counted by a hash of the name that was typed, whether there is such an account or not, and each costs a
hash and a write: neither the answer nor its time tells which names exist. After five the name waits, twice as long
after each, a quarter of an hour at most (NIST SP 800-63B 3.2.2 wants a limit): guessing gets some hundred tries a day,
and nobody can lock somebody else out for longer.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import sqlalchemy as sql
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from argon2.profiles import RFC_9106_LOW_MEMORY

from infra import database
from infra.database import Database
from infra.errors import Denied, UsageError
from infra.settings import settings

SESSION_SECONDS = 12 * 3600
FREE_FAILURES = 5
LONGEST_WAIT = 900.0
REMEMBERED_SECONDS = 24 * 3600  # failures; forgotten sooner, a pause would buy new free ones
SHORTEST_PASSWORD, LONGEST_PASSWORD = 15, 256  # NIST SP 800-63B-4: 15 where the password is the only factor

_NAME = re.compile(r"[A-Za-z0-9][\w.@-]{0,63}")
_REFUSED = "the name or the password is wrong, or there were too many attempts: wait a quarter of an hour"

_tables = sql.MetaData()
_account = sql.Table(
    "account",
    _tables,
    sql.Column("name", sql.String(64), primary_key=True),
    sql.Column("roles", sql.String(256), nullable=False),  # by comma, the default first
    sql.Column("password", sql.String(256)),  # NULL: whoever owns the home; `up` opens the session
    sql.Column("disabled", sql.Boolean, nullable=False),
    sql.Column("created_at", sql.Float, nullable=False),
)
_session = sql.Table(
    "session",
    _tables,
    sql.Column("hash", sql.LargeBinary(32), primary_key=True),
    sql.Column("account", sql.String(64), nullable=False, index=True),
    sql.Column("expires_at", sql.Float, nullable=False),
)
_failure = sql.Table(
    "login_failure",
    _tables,
    sql.Column("name_hash", sql.LargeBinary(32), primary_key=True),
    sql.Column("tries", sql.Integer, nullable=False),
    sql.Column("at", sql.Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    roles: tuple[str, ...]  # the default first
    disabled: bool
    has_password: bool


class Accounts:
    def __init__(self, url: str) -> None:
        self._db = Database(url)
        self._db.create(_account, _session, _failure)

    @classmethod
    def local(cls) -> Accounts:
        return cls(database.url())

    def all(self) -> list[Account]:
        with self._db.reading() as db:
            return [_made(row) for row in db.execute(sql.select(_account).order_by(_account.c.name))]

    def named(self, name: str) -> Account:
        """Raises UsageError for an account that is not there."""
        with self._db.reading() as db:
            row = db.execute(sql.select(_account).where(_account.c.name == name)).first()
        if row is None:
            raise UsageError("there is no such account")
        return _made(row)

    def any(self) -> bool:
        with self._db.reading() as db:
            return db.execute(sql.select(_account.c.name).limit(1)).first() is not None

    def add(self, name: str, roles: Sequence[str], password: str | None, *, only_first: bool = False) -> None:
        """Make an account; without a password it is `up`'s. Raises UsageError where the name is taken or unusable.

        `only_first`: Denied once there is any other account, decided under the lock, so that two cannot be first.
        """
        if not _NAME.fullmatch(name):
            raise UsageError("a name has letters, digits and . _ @ -, at most 64 of them")
        made = {"name": name, "roles": ",".join(roles), "disabled": False, "created_at": time.time()}
        hashed = None if password is None else self._hashed(password)
        with self._db.writing() as db:
            if only_first and db.execute(sql.select(_account.c.name).limit(1)).first() is not None:
                raise Denied("there is an account already: log in first")
            if db.execute(sql.select(_account.c.name).where(_account.c.name == name)).first() is not None:
                raise UsageError("there is an account of that name already")
            db.execute(_account.insert().values(**made, password=hashed))

    def change_roles(self, name: str, roles: Sequence[str]) -> None:
        """They hold from the next command on: sessions know the account, not its roles. Raises UsageError."""
        self._change(name, roles=",".join(roles))

    def change_password(self, name: str, password: str) -> None:
        """Ends all sessions of the account: whoever knew the old one is out. Raises UsageError."""
        self._change(name, end_sessions=True, password=self._hashed(password))

    def disable(self, name: str) -> None:
        """Nobody can log in to it again, and nobody is; it stays, since the audit names it. Raises UsageError."""
        self._change(name, end_sessions=True, disabled=True)

    def _change(self, name: str, *, end_sessions: bool = False, **values: object) -> None:
        with self._db.writing() as db:
            if not db.execute(_account.update().where(_account.c.name == name).values(**values)).rowcount:
                raise UsageError("there is no such account")
            if end_sessions:
                db.execute(_session.delete().where(_session.c.account == name))

    def login(self, name: str, password: str) -> str:
        """The token of a new session. Raises Denied, in the same words and time whatever is wrong.

        The attempt is counted before the password is looked at, so that many at once are no more than as many in turn.
        """
        now, key = time.time(), _hash(name)
        with self._db.writing() as db:
            db.execute(_failure.delete().where(_failure.c.at < now - REMEMBERED_SECONDS))
            failed = db.execute(sql.select(_failure).where(_failure.c.name_hash == key)).first()
            waiting = failed is not None and now < failed.at + _wait(failed.tries)
            if failed is None:
                db.execute(_failure.insert().values(name_hash=key, tries=1, at=now))
            elif not waiting:
                db.execute(_failure.update().where(_failure.c.name_hash == key).values(tries=failed.tries + 1, at=now))
            row = db.execute(sql.select(_account).where(_account.c.name == name)).first()
        usable = row is not None and row.password is not None and not row.disabled
        right = self._verified(row.password if row is not None and usable else self._nobody, password)
        if waiting or not usable or not right:
            raise Denied(_REFUSED)
        with self._db.writing() as db:
            db.execute(_failure.delete().where(_failure.c.name_hash == key))
        return self.open(name)

    def open(self, name: str) -> str:
        """The token of a new session, without a password: for `login` above, and for the owner of the home."""
        token, now = secrets.token_urlsafe(32), time.time()
        with self._db.writing() as db:
            db.execute(_session.delete().where(_session.c.expires_at < now - SESSION_SECONDS))
            db.execute(_session.insert().values(hash=_hash(token), account=name, expires_at=now + SESSION_SECONDS))
        return token

    def of_session(self, token: str, *, expired: bool = False) -> Account | None:
        """Whose session it is: one look-up by key. None for one that is unknown or over, or whose account is disabled.

        `expired` finds one that is over as well.
        """
        query = sql.select(_account).join(_session, _session.c.account == _account.c.name)
        query = query.where(_session.c.hash == _hash(token), _account.c.disabled.is_(False))
        if not expired:
            query = query.where(_session.c.expires_at > time.time())
        with self._db.reading() as db:
            row = db.execute(query).first()
        return None if row is None else _made(row)

    def close(self, token: str) -> None:
        with self._db.writing() as db:
            db.execute(_session.delete().where(_session.c.hash == _hash(token)))

    @cached_property
    def _hasher(self) -> PasswordHasher:
        return PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)

    @property
    def _nobody(self) -> str:
        """A hash that no password has: what an unknown name is compared with, at the same cost."""
        return "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRvZm5vYm9keQ$" + "A" * 43

    def _hashed(self, password: str) -> str:
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise UsageError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
        return self._hasher.hash(password)

    def _verified(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password[:LONGEST_PASSWORD])
        except VerifyMismatchError:
            return False


def token() -> str:
    """The caller's session: as WARDSTREAM_TOKEN has it, else the home's; empty where there is none."""
    if given := settings().token.get_secret_value():
        return given
    try:
        return (settings().home / "session").read_text().strip()
    except FileNotFoundError:
        return ""


def keep(token: str) -> None:
    """Make a session the home's."""
    settings().home.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = settings().home / "session.partial"
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token)
    partial.rename(settings().home / "session")


def forget() -> None:
    (settings().home / "session").unlink(missing_ok=True)


def os_user() -> str:
    """Who runs this process, as a name that an account can have."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = ""
    return name if _NAME.fullmatch(name) else f"uid-{os.getuid()}"


def _made(row: sql.Row[tuple[object, ...]]) -> Account:
    return Account(row.name, tuple(row.roles.split(",")), row.disabled, row.password is not None)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _wait(tries: int) -> float:
    """Seconds until a name that failed so often may try again."""
    return min(2.0 ** (tries - FREE_FAILURES), LONGEST_WAIT) if tries >= FREE_FAILURES else 0.0
