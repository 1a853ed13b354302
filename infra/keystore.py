"""Who a number belongs to, and the key of that person: the small database without which nothing opens.

Persons are found by keyed hashes of (authority, type, value), never by the values. A data key is stored wrapped by
the key-encryption key, bound to its reference and version. A merge makes one reference the alias of another; nothing
is sealed again. Look-ups come in batches and are cached within a bound; `generation` is raised by every merge or
erasure, and a cache older than it is thrown away.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sql

from infra import database
from infra.cache import Cache
from infra.crypto import KEY_BYTES, DataKey, context, keyed_hash
from infra.database import Database
from infra.errors import KeyMissing, KeyShredded
from infra.keyring import Keyring

_tables = sql.MetaData()
_subject = sql.Table(
    "subject",
    _tables,
    sql.Column("ref", sql.String(32), primary_key=True),
    sql.Column("token", sql.String(32), nullable=False, unique=True),
    sql.Column("kind", sql.String(8), nullable=False),  # patient, staff or source
    sql.Column("alias_of", sql.String(32), index=True),
    sql.Column("created_at", sql.Float, nullable=False),
)
_identifier = sql.Table(
    "identifier",
    _tables,
    sql.Column("hash", sql.LargeBinary(32), primary_key=True),
    sql.Column("ref", sql.String(32), nullable=False, index=True),
)
_data_key = sql.Table(
    "data_key",
    _tables,
    sql.Column("ref", sql.String(32), primary_key=True),
    sql.Column("version", sql.Integer, primary_key=True),
    sql.Column("kek_version", sql.Integer, nullable=False),
    sql.Column("wrapped", sql.LargeBinary),  # NULL once shredded: the row stays, so that "erased" is never a guess
)
# Raised by whatever makes caches wrong: a merge changes who an identifier leads to, an erasure which keys there are.
_generation = sql.Table(
    "generation",
    _tables,
    sql.Column("merges", sql.Integer, nullable=False),
    sql.Column("erasures", sql.Integer, nullable=False),
)

_TABLES = (_subject, _identifier, _data_key, _generation)

CACHE_ENTRIES = 200_000
CACHE_SECONDS = 0.2  # longest time another process's merge or erasure stays unseen: whoever erases waits it out
QUERY_VALUES = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """A person to find, or to make: identifiers as (authority, type, value), best first; any known one decides."""

    kind: str
    identifiers: tuple[tuple[str, str, str], ...]


class KeyStore:
    """One process's view of the key store. Thread-safe; every method may block on the disk."""

    def __init__(self, url: str, keyring: Keyring) -> None:
        self._keyring = keyring
        self._db = Database(url)
        self._db.create(*_TABLES)
        with self._db.writing() as db:
            if db.execute(sql.select(_generation)).first() is None:
                db.execute(_generation.insert().values(merges=0, erasures=0))
        self._lock = threading.RLock()
        self._seen_generation = (-1, -1)
        self._fresh_until = 0.0
        self._by_identifier: Cache[bytes, DataKey] = Cache(CACHE_ENTRIES)
        self._by_token: Cache[str, DataKey | None] = Cache(CACHE_ENTRIES)
        self._by_ref: Cache[tuple[str, int | None], DataKey] = Cache(CACHE_ENTRIES)

    @classmethod
    def local(cls) -> tuple[Keyring, KeyStore]:
        """The keyring and key store of this home, made where there are none."""
        keyring = Keyring.local()
        return keyring, cls(database.url(), keyring)

    def resolve(self, wanted: Sequence[Wanted]) -> list[DataKey | None]:
        """The current data key of each person, made where unknown; aliases followed.

        The first identifier that is known decides; the others are then known too, unless they already belong to
        somebody else. None stands for an erased person: one must not stop a batch.
        """
        with self._lock:
            self._drop_stale()
            hashes = [self._hashes(person) for person in wanted]
            found = [self._cached(of) for of in hashes]
            missing = [i for i, key in enumerate(found) if key is None]
            if missing:
                refs = self._find_or_make([(wanted[i].kind, hashes[i]) for i in missing])
                keys = self._load(set(refs))
                for i, ref in zip(missing, refs, strict=True):
                    key = found[i] = keys[ref]
                    if key is not None:
                        for one in hashes[i]:
                            self._by_identifier.keep(one, key)
            return found

    def of_source(self, source: str, at: float) -> DataKey:
        """The key of a source's ISO week: for what has no patient. Destroyed with the week's retention."""
        week = time.strftime("%G-W%V", time.gmtime(at))
        (key,) = self.resolve([Wanted("source", ((source, "week", week),))])
        if key is None:
            raise KeyShredded("this source's key of that week was destroyed with its retention")
        return key

    def of_tokens(self, tokens: Iterable[str]) -> dict[str, DataKey | None]:
        """Data keys by Kafka token, aliases not followed: what was sealed under a reference opens under it.

        None stands for a key destroyed on purpose: one erased person must not stop a batch. Raises KeyMissing for a
        token the store has never heard of.
        """
        with self._lock:
            self._drop_stale()
            wanted = set(tokens)
            keys: dict[str, DataKey | None] = {token: self._by_token[token] for token in wanted & self._by_token.keys()}
            rest = wanted - keys.keys()
            if rest:
                refs = self._select(sql.select(_subject.c.token, _subject.c.ref), _subject.c.token, rest)
                if len(refs) != len(rest):
                    raise KeyMissing(f"{len(rest) - len(refs)} subjects are unknown to this key store")
                loaded = self._load(set(refs.values()))
                for token, ref in refs.items():
                    keys[token] = self._by_token.keep(token, loaded[ref])
            return keys

    def of_ref(self, ref: str, version: int | None = None) -> DataKey:
        """The data key of exactly this reference; the newest where no version is said.

        Raises KeyMissing for an unknown one and KeyShredded for one destroyed on purpose.
        """
        with self._lock:
            self._drop_stale()
            return self._of_ref(ref, version)

    def refs_of(self, identifiers: Iterable[tuple[str, str, str]]) -> set[str]:
        """References that these identifiers lead to, with their survivors; empty for unknown ones. Makes nobody."""
        hashes = {self._hash(one) for one in identifiers}
        known = self._select(sql.select(_identifier.c.hash, _identifier.c.ref), _identifier.c.hash, hashes)
        return {self.survivor(ref) for ref in known.values()}

    def alias(self, prior: str, survivor: str) -> bool:
        """Make `prior` an alias of `survivor` (merge). Idempotent; a merge that would close a ring is left out."""
        with self._lock, self._db.writing() as db:
            prior, survivor = self._survivor(db, prior), self._survivor(db, survivor)
            if prior == survivor:
                return False
            db.execute(_subject.update().where(_subject.c.ref == prior).values(alias_of=survivor))
            db.execute(_generation.update().values(merges=_generation.c.merges + 1))
            return True

    def survivor(self, ref: str) -> str:
        with self._db.reading() as db:
            return self._survivor(db, ref)

    def family(self, ref: str) -> set[str]:
        """A reference with all its aliases, however they are chained: everything that is this person."""
        with self._db.reading() as db:
            family = fresh = {self._survivor(db, ref)}
            while fresh:
                rows = db.execute(sql.select(_subject.c.ref).where(_subject.c.alias_of.in_(fresh)))
                fresh = {row[0] for row in rows} - family
                family = family | fresh
            return family

    def _of_ref(self, ref: str, version: int | None = None) -> DataKey:
        key: DataKey | None = self._by_ref.get((ref, version)) or self._load({ref}, version)[ref]
        if key is None:
            raise KeyShredded("this person's keys were destroyed on purpose")
        return self._by_ref.keep((ref, version), key)

    def _hashes(self, person: Wanted) -> list[bytes]:
        return [self._hash(identifier) for identifier in person.identifiers]

    def _hash(self, identifier: tuple[str, str, str]) -> bytes:
        return keyed_hash(self._keyring.identity, *(part.strip().casefold().encode() for part in identifier))

    def _cached(self, hashes: list[bytes]) -> DataKey | None:
        """Only a best identifier that is cached decides; a lesser one must not win over an unread better one."""
        key: DataKey | None = self._by_identifier.get(hashes[0])
        return key

    def _find_or_make(self, persons: list[tuple[str, list[bytes]]]) -> list[str]:
        """References by identifier hashes, in one write transaction: one reference however many processes race."""
        every = {one for _, hashes in persons for one in hashes}
        refs: list[str] = []
        with self._db.writing() as db:
            known = _pairs(db, sql.select(_identifier.c.hash, _identifier.c.ref), _identifier.c.hash, every)
            subjects: list[dict[str, Any]] = []
            keys: list[dict[str, Any]] = []
            identifiers: list[dict[str, Any]] = []
            made: set[str] = set()
            for kind, hashes in persons:
                ref = next((known[one] for one in hashes if one in known), None)
                if ref is None:
                    ref = os.urandom(16).hex()
                    made.add(ref)
                    token, now = self.token(ref), time.time()
                    subjects.append({"ref": ref, "token": token, "kind": kind, "alias_of": None, "created_at": now})
                    keys.append(self._new_key(ref, version=1))
                for one in hashes:
                    if one not in known:
                        known[one] = ref
                        identifiers.append({"hash": one, "ref": ref})
                refs.append(ref if ref in made else self._survivor(db, ref))
            for table, rows in ((_subject, subjects), (_data_key, keys), (_identifier, identifiers)):
                if rows:
                    db.execute(table.insert(), rows)
        return refs

    def token(self, ref: str) -> str:
        """What stands for a reference in Kafka: a keyed hash, 128 bits, that never rotates."""
        return keyed_hash(self._keyring.token, ref.encode())[:16].hex()

    def _new_key(self, ref: str, version: int) -> dict[str, Any]:
        kek, wrapped = self._keyring.wrap(_bound(ref, version), os.urandom(KEY_BYTES))
        return {"ref": ref, "version": version, "kek_version": kek, "wrapped": wrapped}

    def _load(self, refs: set[str], version: int | None = None) -> dict[str, DataKey | None]:
        """Data keys by reference, None for a shredded one. Raises KeyMissing where any has no row at all."""
        keys: dict[str, DataKey | None] = {}
        query = sql.select(_data_key).order_by(_data_key.c.version)
        if version is not None:
            query = query.where(_data_key.c.version == version)
        with self._db.reading() as db:
            for chunk in _chunks(refs):
                for row in db.execute(query.where(_data_key.c.ref.in_(chunk))):
                    keys[row.ref] = self._unwrap(row) if row.wrapped is not None else None
        if len(keys) != len(refs):
            raise KeyMissing(f"{len(refs) - len(keys)} keys are unknown to this key store")
        return keys

    def _unwrap(self, row: Any) -> DataKey:
        secret = self._keyring.unwrap(row.kek_version, _bound(row.ref, row.version), row.wrapped)
        return DataKey(row.ref, self.token(row.ref), row.version, secret)

    def _select(self, query: sql.Select[Any], column: Any, values: Iterable[Any]) -> dict[Any, Any]:
        with self._db.reading() as db:
            return _pairs(db, query, column, values)

    def _survivor(self, db: sql.Connection, ref: str) -> str:
        while True:
            row = db.execute(sql.select(_subject.c.alias_of).where(_subject.c.ref == ref)).first()
            if row is None or row[0] is None:
                return ref
            ref = row[0]

    def _drop_stale(self) -> None:
        if time.monotonic() < self._fresh_until:
            return
        self._fresh_until = time.monotonic() + CACHE_SECONDS
        with self._db.reading() as db:
            now = db.execute(sql.select(_generation.c.merges, _generation.c.erasures)).one()
        if now != self._seen_generation:
            self._by_identifier.clear()
            if now.erasures != self._seen_generation[1]:
                self._by_token.clear()
                self._by_ref.clear()
            self._seen_generation = (now.merges, now.erasures)


V = TypeVar("V")


def _bound(ref: str, version: int) -> bytes:
    return context(b"wardstream data key", ref.encode(), version.to_bytes(4))


def _chunks(values: Iterable[V]) -> Iterator[list[V]]:
    rest = iter(values)
    while chunk := list(islice(rest, QUERY_VALUES)):
        yield chunk


def _pairs(db: sql.Connection, query: sql.Select[Any], column: Any, values: Iterable[Any]) -> dict[Any, Any]:
    return {row[0]: row[1] for chunk in _chunks(values) for row in db.execute(query.where(column.in_(chunk)))}
