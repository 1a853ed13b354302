"""Who a number belongs to, and the key of that person: the small database without which nothing opens.

Persons are found by keyed hashes of (authority, type, value), never by the values. A data key is stored wrapped by
the key-encryption key, bound to its reference and version. A merge makes one reference the alias of another; nothing
is sealed again. Look-ups come in batches and are cached within a bound; `generation` is raised by whatever makes a
cache wrong, and a cache older than it is thrown away.

An erasure leaves rows behind, on purpose: the keys' rows without their keys, so that "erased" is never a guess, and
when each identifier was last erased, so that an old event of the person that comes late is known for one, while a new
event under the same number (hospitals use numbers again, and patients come back) starts a new person.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sql

from infra import database
from infra.cache import Cache
from infra.crypto import KEY_BYTES, DataKey, context, keyed_hash
from infra.database import Database
from infra.errors import KeyMissing, KeyShredded
from infra.keyring import Keyring, KeyringLocked
from infra.ledger import Erasure, Ledger

_tables = sql.MetaData()
subject = sql.Table(
    "subject",
    _tables,
    sql.Column("ref", sql.String(32), primary_key=True),
    sql.Column("token", sql.String(32), nullable=False, unique=True),
    sql.Column("kind", sql.String(8), nullable=False),  # patient, staff or source
    sql.Column("alias_of", sql.String(32), index=True),
    sql.Column("created_at", sql.Float, nullable=False),
    sql.Column("since", sql.Float, nullable=False),  # events before it were an erased predecessor's; 0: there is none
    sql.Column("erased_at", sql.Float),  # nothing opens from here on, whether or not the keys are destroyed yet
)
identifier = sql.Table(
    "identifier",
    _tables,
    sql.Column("hash", sql.LargeBinary(32), primary_key=True),
    sql.Column("ref", sql.String(32), nullable=False, index=True),
    sql.Column("erased_at", sql.Float),  # when somebody known by it was erased last
)
alias = sql.Table(  # merges as they were told, so that a merge read again does not undo what undid it
    "alias",
    _tables,
    sql.Column("prior", sql.String(32), primary_key=True),
    sql.Column("survivor", sql.String(32), primary_key=True),
    sql.Column("told_at", sql.Float, nullable=False),  # when the message that told it came in
    sql.Column("ended_at", sql.Float),
)
data_key = sql.Table(
    "data_key",
    _tables,
    sql.Column("ref", sql.String(32), primary_key=True),
    sql.Column("version", sql.Integer, primary_key=True),
    sql.Column("kek_version", sql.Integer, nullable=False, index=True),
    sql.Column("wrapped", sql.LargeBinary),  # NULL once destroyed
    sql.Column("messages", sql.BigInteger, nullable=False, server_default="0"),  # sealed under it, as far as counted
)
# One row. `merges` is raised when an identifier leads to somebody else, `epoch` when keys change or go.
generation = sql.Table(
    "generation",
    _tables,
    sql.Column("merges", sql.Integer, nullable=False),
    sql.Column("epoch", sql.Integer, nullable=False),
    sql.Column("kek", sql.Integer, nullable=False),  # the version that wraps new keys
    sql.Column("keyring", sql.String(16), nullable=False),  # keyed hash that tells which keyring this belongs to
)
kek = sql.Table(
    "kek",
    _tables,
    sql.Column("version", sql.Integer, primary_key=True),
    sql.Column("created_at", sql.Float, nullable=False),
    sql.Column("superseded_at", sql.Float),
    sql.Column("destroyed_at", sql.Float),
)
process = sql.Table(  # whose caches an erasure has to wait for
    "process",
    _tables,
    sql.Column("id", sql.String(32), primary_key=True),
    sql.Column("name", sql.String(64), nullable=False),
    sql.Column("beat_at", sql.Float, nullable=False),
    sql.Column("epoch", sql.Integer, nullable=False),  # the one it has seen
)
TABLES = (subject, identifier, alias, data_key, generation, kek, process)

CACHE_ENTRIES = 200_000
CACHE_SECONDS = 0.2  # longest time another process's merge or erasure stays unseen: whoever erases waits it out
QUERY_VALUES = 500
BEAT_SECONDS = 1.0
DEAD_SECONDS = 15.0  # a process that did not beat for so long is gone, or stopped: it drops its caches as it wakes
# NIST SP 800-38D, 8.3: with random 96-bit nonces at most 2^32 messages under one key. We change long before. What a
# process sealed last with a key and did not count, when it ended, is below COUNTED: four million ends away from it.
ROTATE_AT = 1 << 30
COUNTED = 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """A person to find, or to make: identifiers as (authority, type, value), best first; the first known one decides.

    `at` is when the event happened that names the person, in seconds since 1970.
    """

    kind: str
    identifiers: tuple[tuple[str, str, str], ...]
    at: float = field(default=float("inf"), compare=False)


class KeyStore:
    """One process's view of the key store. Thread-safe; every method may block on the disk."""

    def __init__(self, url: str, keyring: Keyring) -> None:
        self.keyring = keyring
        self.db = Database(url)
        self.db.create(*TABLES)
        with self.db.writing() as db:
            mine = keyed_hash(keyring.identity, b"wardstream keyring")[:8].hex()
            row = db.execute(sql.select(generation)).first()
            if row is not None and row.keyring != mine:
                raise KeyringLocked("the key store belongs to another keyring: was the keyring's file moved or lost?")
            if row is None:
                db.execute(generation.insert().values(merges=0, epoch=0, kek=keyring.kek_version, keyring=mine))
                db.execute(kek.insert().values(version=keyring.kek_version, created_at=time.time()))
        self._lock = threading.RLock()
        self._seen = (-1, -1)
        self._fresh_until = 0.0
        self._by_identifier: Cache[bytes, DataKey] = Cache(CACHE_ENTRIES)
        self._by_token: Cache[str, DataKey | None] = Cache(CACHE_ENTRIES)
        self._by_ref: Cache[tuple[str, int | None], DataKey] = Cache(CACHE_ENTRIES)

    @classmethod
    def local(cls) -> tuple[Keyring, KeyStore]:
        """The keyring and key store of this installation, made where there are none.

        The ledger of erasures comes first: whatever database was put here, from a backup or by hand, nobody in the
        ledger opens from it.
        """
        keyring = Keyring.local()
        store = cls(database.url(), keyring)
        store.obey(Ledger.local(keyring).erasures())
        return keyring, store

    # ------------------------------------------------------------------------------------------------------- look-ups

    def resolve(self, wanted: Sequence[Wanted]) -> list[DataKey | None]:
        """The current data key of each person, made where unknown; aliases followed.

        The first identifier that is known decides; the others are then known too, unless they already belong to
        somebody else. None stands for an erased person whose event happened before the erasure: one must not stop a
        batch. An event that happened after it makes a new person.
        """
        with self._lock:
            self._drop_stale()
            hashes = [self._hashes(person) for person in wanted]
            found = [self._cached(of, person.at) for of, person in zip(hashes, wanted, strict=True)]
            missing = [i for i, key in enumerate(found) if key is None]
            if missing:
                refs, shared = self._find_or_make([(wanted[i], hashes[i]) for i in missing])
                keys = self._load({ref for ref in refs if ref is not None})
                for i, ref in zip(missing, refs, strict=True):
                    key = found[i] = keys[ref] if ref is not None else None
                    if key is not None:
                        for one in hashes[i]:
                            if one not in shared:
                                self._by_identifier.keep(one, key)
            return found

    def of_source(self, source: str, at: float) -> DataKey:
        """The key of a source's ISO week: for what has no patient. Destroyed with the week's retention."""
        week = time.strftime("%G-W%V", time.gmtime(at))
        (key,) = self.resolve([Wanted("source", ((source, "week", week),), at)])
        if key is None:
            raise KeyShredded("this source's key of that week was destroyed with its retention")
        return key

    def of_tokens(self, tokens: Iterable[str]) -> dict[str, DataKey | None]:
        """Newest data keys by Kafka token, aliases not followed: what was sealed under a reference opens under it.

        None stands for a person erased on purpose: one must not stop a batch. Raises KeyMissing for a token the store
        has never heard of.
        """
        with self._lock:
            self._drop_stale()
            wanted = set(tokens)
            keys: dict[str, DataKey | None] = {token: self._by_token[token] for token in wanted & self._by_token.keys()}
            rest = wanted - keys.keys()
            if rest:
                refs = self._select(sql.select(subject.c.token, subject.c.ref), subject.c.token, rest)
                if len(refs) != len(rest):
                    raise KeyMissing(f"{len(rest) - len(refs)} subjects are unknown to this key store")
                loaded = self._load(set(refs.values()))
                for token, ref in refs.items():
                    keys[token] = self._by_token.keep(token, loaded[ref])
            return keys

    def at_version(self, key: DataKey, version: int) -> DataKey:
        """The same person's key of an earlier version: what was sealed before a change of keys opens under it."""
        return key if key.version == version else self.of_ref(key.ref, version)

    def of_ref(self, ref: str, version: int | None = None) -> DataKey:
        """The data key of exactly this reference; the newest where no version is said.

        Raises KeyMissing for an unknown one and KeyShredded for one destroyed on purpose.
        """
        with self._lock:
            self._drop_stale()
            key: DataKey | None = self._by_ref.get((ref, version)) or self._load({ref}, version)[ref]
            if key is None:
                raise KeyShredded("this person's keys were destroyed on purpose")
            return self._by_ref.keep((ref, version), key)

    def living(self, ref: str) -> DataKey | None:
        """The newest key of this reference; None of somebody who was erased, or of nobody."""
        try:
            return self.of_ref(ref)
        except (KeyShredded, KeyMissing):
            return None

    def refs_of(self, identifiers: Iterable[tuple[str, str, str]]) -> set[str]:
        """References that these identifiers lead to, with their survivors; empty for unknown ones. Makes nobody."""
        hashes = {self._hash(one) for one in identifiers}
        known = self._select(sql.select(identifier.c.hash, identifier.c.ref), identifier.c.hash, hashes)
        return {self.survivor(ref) for ref in known.values()}

    def survivor(self, ref: str) -> str:
        with self.db.reading() as db:
            return _survivor(db, ref)

    def family(self, ref: str) -> set[str]:
        """A reference with all its aliases, however they are chained: everything that is this person."""
        with self.db.reading() as db:
            return _family(db, ref)

    def merged(self) -> dict[str, str]:
        """Every reference that is an alias, with its survivor; those of erased persons left out."""
        living = sql.select(subject.c.ref, subject.c.alias_of).where(subject.c.erased_at.is_(None))
        with self.db.reading() as db:
            upward = {row.ref: row.alias_of for row in db.execute(living.where(subject.c.alias_of.is_not(None)))}
        return {ref: _top(ref, upward) for ref in upward}

    def merges_of(self, refs: Collection[str]) -> list[tuple[str, str, float]]:
        """The merges that made the families of these references: prior, survivor, and when that came in."""
        up = sql.select(subject.c.ref, subject.c.alias_of).where(subject.c.alias_of.is_not(None))
        held = sql.select(alias.c.prior, alias.c.survivor, alias.c.told_at).where(alias.c.ended_at.is_(None))
        whole: set[str] = set()
        fresh = set(refs)
        with self.db.reading() as db:
            while fresh:
                met = {
                    one
                    for chunk in _chunks(fresh)
                    for column in (subject.c.ref, subject.c.alias_of)
                    for row in db.execute(up.where(column.in_(chunk)))
                    for one in row
                }
                whole, fresh = whole | met, met - whole - fresh
            return [
                (row.prior, row.survivor, row.told_at)
                for chunk in _chunks(whole)
                for row in db.execute(held.where(alias.c.prior.in_(chunk)))
            ]

    def erased(self, refs: Collection[str]) -> set[str]:
        """Which of these are of erased persons, or of nobody, from the first step of the erasure on."""
        with self.db.reading() as db:
            return _erased(db, refs)

    def known(self, ref: str) -> bool:
        """Whether there ever was such a reference."""
        with self.db.reading() as db:
            return db.execute(sql.select(subject.c.ref).where(subject.c.ref == ref)).first() is not None

    def refs_of_tokens(self, tokens: Collection[str]) -> set[str]:
        return set(self._select(sql.select(subject.c.token, subject.c.ref), subject.c.token, tokens).values())

    def token(self, ref: str) -> str:
        """What stands for a reference in Kafka: a keyed hash, 128 bits, that never rotates."""
        return keyed_hash(self.keyring.token, ref.encode())[:16].hex()

    def order(self, place: str) -> bytes:
        """The Kafka key of a site's events: one site has one order."""
        return self.token(f"site {place}").encode()

    # --------------------------------------------------------------------------------------------------------- merges

    def alias(self, prior: str, survivor: str, at: float = 0.0, told_at: float | None = None) -> bool:
        """Make `prior` an alias of `survivor` (merge). Idempotent; a merge that would close a ring is left out.

        So is one that was undone since it happened, `at`: a message that is read again must not undo that. `told_at`
        is when the message came in; None: now.
        """
        told_at = time.time() if told_at is None else told_at
        with self._lock, self.db.writing() as db:
            told = sql.and_(alias.c.prior == prior, alias.c.survivor == survivor)
            before = db.execute(sql.select(alias.c.ended_at).where(told)).first()
            if before is not None and (before.ended_at is None or before.ended_at >= at):
                return False
            top, survivor_top = _survivor(db, prior), _survivor(db, survivor)
            if top == survivor_top or _erased(db, {top, survivor_top}):  # of an erased person nothing is told any more
                return False
            if before is None:
                db.execute(alias.insert().values(prior=prior, survivor=survivor, told_at=told_at))
            else:
                db.execute(alias.update().where(told).values(told_at=told_at, ended_at=None))
            db.execute(subject.update().where(subject.c.ref == top).values(alias_of=survivor_top))
            _raise_generation(db, merges=1)
            return True

    def unalias(self, ref: str) -> bool:
        """Undo a merge: `ref` is a person of its own again. What was sealed meanwhile stays the survivor's."""
        with self._lock, self.db.writing() as db:
            family = _family(db, ref)
            told = sql.and_(alias.c.prior == ref, alias.c.ended_at.is_(None))
            done = db.execute(alias.update().where(told).values(ended_at=time.time()))
            db.execute(subject.update().where(subject.c.ref.in_(family)).values(alias_of=None))
            left = sql.select(alias).where(alias.c.ended_at.is_(None), alias.c.prior.in_(family))
            for row in db.execute(left.order_by(alias.c.told_at)).all():  # who is whose, by the merges that still hold
                top, survivor_top = _survivor(db, row.prior), _survivor(db, row.survivor)
                if top != survivor_top:
                    db.execute(subject.update().where(subject.c.ref == top).values(alias_of=survivor_top))
            _raise_generation(db, merges=1)
            return bool(done.rowcount)

    # ------------------------------------------------------------------------------------------------------- erasures

    def erasing(self, refs: Collection[str], at: float, ledger: Callable[[set[str], set[bytes]], None]) -> None:
        """Erase the person of these references as of now: written by `ledger`, then marked, with no merge between.

        `ledger` gets every reference and the keyed hashes of all identifiers; what it raises leaves all as it was.
        """
        with self._lock, self.db.writing() as db:
            whole = {one for ref in refs for one in _family(db, ref)}
            hashes = identifiers_of(db, whole)
            ledger(whole, hashes)
            _mark(db, whole, hashes, at)

    def mark_erased(self, refs: Collection[str], at: float) -> None:
        """Nothing of these persons opens from here on, and nothing that happened before is taken in. No key goes yet.

        Idempotent.
        """
        with self._lock, self.db.writing() as db:
            hashes = identifiers_of(db, refs)
            _mark(db, refs, hashes, at)

    def destroy(self, refs: Collection[str]) -> int:
        """Destroy every version of these persons' data keys; gives how many there were. Idempotent."""
        with self._lock:
            with self.db.writing() as db:
                done = db.execute(
                    data_key.update().where(data_key.c.ref.in_(refs), data_key.c.wrapped.is_not(None))
                    .values(wrapped=None)
                )  # fmt: skip
                _raise_generation(db, epoch=1)
            self.db.forget()
            self._fresh_until = 0.0
            return done.rowcount

    def obey(self, erasures: Collection[Erasure]) -> None:
        """Do what the ledger says, where this database does not know of it or has not finished it."""
        refs = {ref for one in erasures for ref in one.refs}
        hashes = {one for erasure in erasures for one in erasure.identifiers}
        living = sql.select(data_key.c.ref).where(data_key.c.wrapped.is_not(None))
        marked = sql.select(identifier.c.hash, identifier.c.erased_at).where(identifier.c.erased_at.is_not(None))
        with self.db.reading() as db:
            held = {r[0] for some in _chunks(refs) for r in db.execute(living.where(data_key.c.ref.in_(some)))}
            known: dict[bytes, float] = {
                row.hash: row.erased_at
                for some in _chunks(hashes)
                for row in db.execute(marked.where(identifier.c.hash.in_(some)))
            }
        for erasure in erasures:
            late = any(known.get(one, 0.0) < erasure.at for one in erasure.identifiers)
            if erasure.refs & held or late:
                self._obey(erasure)

    def _obey(self, erasure: Erasure) -> None:
        with self._lock, self.db.writing() as db:
            _mark(db, erasure.refs, erasure.identifiers, erasure.at)
            there = {
                row[0]
                for some in _chunks(erasure.identifiers)
                for row in db.execute(sql.select(identifier.c.hash).where(identifier.c.hash.in_(some)))
            }
            rows = [  # learned after this database was saved
                {"hash": one, "ref": min(erasure.refs), "erased_at": erasure.at} for one in erasure.identifiers - there
            ]
            if rows:
                db.execute(identifier.insert(), rows)
        self.destroy(erasure.refs)

    def shredded(self, refs: Collection[str]) -> bool:
        """Whether every key of these references is gone for good."""
        with self.db.reading() as db:
            left = sql.select(data_key.c.ref).where(data_key.c.ref.in_(refs), data_key.c.wrapped.is_not(None))
            return db.execute(left.limit(1)).first() is None

    def epoch(self) -> int:
        """Raised by every erasure: what was read before may be of somebody who is erased by now."""
        with self.db.reading() as db:
            return int(db.execute(sql.select(generation.c.epoch)).scalar_one())

    # ------------------------------------------------------------------------------------------------------ processes

    def join(self, name: str) -> None:
        """Tell others that this process holds keys in memory, and which erasures it knows of, until it ends."""
        made = os.urandom(16).hex()
        with self.db.writing() as db:
            db.execute(process.delete().where(process.c.beat_at < time.time() - 100 * DEAD_SECONDS))
            db.execute(process.insert().values(id=made, name=name, beat_at=time.time(), epoch=self._dropped()))
        threading.Thread(target=self._beat, args=(made,), name="keystore-beat", daemon=True).start()

    def _beat(self, made: str) -> None:
        beat = time.time()
        seen = self._dropped()
        while True:
            time.sleep(BEAT_SECONDS)
            try:
                now = self._dropped()
                if now == seen and time.time() < beat + DEAD_SECONDS / 3:
                    continue
                with self.db.writing() as db:
                    beat, seen = time.time(), now
                    db.execute(process.update().where(process.c.id == made).values(beat_at=beat, epoch=now))
            except Exception:  # noqa: S112 - locked or away: whoever erases waits, and the next beat tells
                continue

    def _dropped(self) -> int:
        """Drop what is stale, whether or not anybody asks for a key; gives the epoch that is seen then."""
        with self._lock:
            self._fresh_until = 0.0
            self._drop_stale()
            return self._seen[1]

    def alive(self) -> int:
        """How many processes hold keys in memory now."""
        with self.db.reading() as db:
            living = process.c.beat_at > time.time() - DEAD_SECONDS
            return int(db.execute(sql.select(sql.func.count()).select_from(process).where(living)).scalar_one())

    def await_caches(self, patience: float) -> int:
        """Wait until every living process has dropped what it held before now; gives how many there are.

        Raises TimeoutError.
        """
        wanted = self.epoch()
        deadline = time.monotonic() + patience
        while True:
            with self.db.reading() as db:
                alive = process.c.beat_at > time.time() - DEAD_SECONDS
                rows = db.execute(sql.select(process.c.epoch).where(alive)).scalars().all()
            if all(seen >= wanted for seen in rows):
                return len(rows)
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.1)

    # ------------------------------------------------------------------------------------------------------ rotation

    def count(self, keys: Iterable[DataKey]) -> None:
        """Add up how much was sealed under each key, and give a person a new one long before it is too much.

        Call it with the keys of a batch, now and then: a key that has sealed little yet costs a look.
        """
        for key in {(key.ref, key.version): key for key in keys if key.uses >= COUNTED}.values():
            used, key.uses = key.uses, 0
            with self._lock, self.db.writing() as db:
                mine = sql.and_(data_key.c.ref == key.ref, data_key.c.version == key.version)
                db.execute(data_key.update().where(mine).values(messages=data_key.c.messages + used))
                row = db.execute(sql.select(data_key.c.messages, data_key.c.wrapped).where(mine)).one()
                newest = sql.select(sql.func.max(data_key.c.version)).where(data_key.c.ref == key.ref)
                if row.messages >= ROTATE_AT and row.wrapped and db.execute(newest).scalar_one() == key.version:
                    db.execute(data_key.insert().values(**self._new_key(db, key.ref, key.version + 1)))
                    _raise_generation(db, merges=1, epoch=1)
                    self._fresh_until = 0.0

    # --------------------------------------------------------------------------------------------------------- inside

    def _hashes(self, person: Wanted) -> list[bytes]:
        return [self._hash(one, person.kind) for one in person.identifiers]

    def _hash(self, one: tuple[str, str, str], kind: str = "patient") -> bytes:
        """A doctor's number is no patient's, though they may be the same."""
        return keyed_hash(self.keyring.identity, kind.encode(), *(part.strip().casefold().encode() for part in one))

    def _cached(self, hashes: list[bytes], at: float) -> DataKey | None:
        """Only a best identifier that is cached decides; a lesser one must not win over an unread better one."""
        key: DataKey | None = self._by_identifier.get(hashes[0])
        return key if key is None or at > key.since else None

    def _find_or_make(self, persons: list[tuple[Wanted, list[bytes]]]) -> tuple[list[str | None], set[bytes]]:
        """References by identifier hashes, in one write transaction: one reference however many processes race.

        Gives also the identifiers under which somebody was erased: who they lead to hangs on the event's time.
        """
        every = {one for _, hashes in persons for one in hashes}
        refs: list[str | None] = []
        with self.db.writing() as db:
            rows = {
                row.hash: row
                for chunk in _chunks(every)
                for row in db.execute(sql.select(identifier).where(identifier.c.hash.in_(chunk)))
            }
            known = {one: row.ref for one, row in rows.items()}
            erased: dict[bytes, float] = {one: row.erased_at for one, row in rows.items() if row.erased_at is not None}
            gone = _erased(db, {known[one] for one in erased})
            made: dict[str, list[dict[str, Any]]] = {"subject": [], "key": [], "identifier": []}
            fresh: set[str] = set()
            for person, hashes in persons:
                decides = next((one for one in hashes if one in known), None)
                since = erased.get(decides, 0.0) if decides else 0.0
                ref = known[decides] if decides else None
                if decides and since >= person.at:
                    refs.append(None)
                    continue
                if ref is None or ref in gone:
                    again = ref is not None
                    ref = os.urandom(16).hex()
                    fresh.add(ref)
                    made["subject"].append(self._new_subject(ref, person.kind, since))
                    made["key"].append(self._new_key(db, ref, version=1))
                    if again:
                        self._lead(db, [one for one in hashes if known.get(one) in gone], ref, known)
                for one in hashes:
                    if one not in known:
                        known[one] = ref
                        made["identifier"].append({"hash": one, "ref": ref})
                refs.append(ref if ref in fresh else _survivor(db, ref))
            for table, name in ((subject, "subject"), (data_key, "key"), (identifier, "identifier")):
                if made[name]:
                    db.execute(table.insert(), made[name])
        return refs, set(erased)

    def _lead(self, db: sql.Connection, hashes: list[bytes], ref: str, known: dict[bytes, str]) -> None:
        """Let identifiers of an erased person lead to a new one; that they were erased once stays known."""
        db.execute(identifier.update().where(identifier.c.hash.in_(hashes)).values(ref=ref))
        known.update(dict.fromkeys(hashes, ref))

    def _new_subject(self, ref: str, kind: str, since: float) -> dict[str, Any]:
        now = time.time()
        return {"ref": ref, "token": self.token(ref), "kind": kind, "alias_of": None, "created_at": now, "since": since}

    def _new_key(self, db: sql.Connection, ref: str, version: int) -> dict[str, Any]:
        """A row for a new data key, under the key-encryption key that this transaction sees as the present one."""
        if db.execute(sql.select(generation.c.kek)).scalar_one() != self.keyring.kek_version:
            self.keyring.refresh()
        kek_version, wrapped = self.keyring.wrap(bound(ref, version), os.urandom(KEY_BYTES))
        return {"ref": ref, "version": version, "kek_version": kek_version, "wrapped": wrapped, "messages": 0}

    def _load(self, refs: set[str], version: int | None = None) -> dict[str, DataKey | None]:
        """Data keys by reference, None for an erased one. Raises KeyMissing where any has no row at all."""
        keys: dict[str, DataKey | None] = {}
        columns = (*data_key.c, subject.c.since, subject.c.erased_at)
        query = sql.select(*columns).join(subject, subject.c.ref == data_key.c.ref).order_by(data_key.c.version)
        if version is not None:
            query = query.where(data_key.c.version == version)
        with self.db.reading() as db:
            for chunk in _chunks(refs):
                for row in db.execute(query.where(data_key.c.ref.in_(chunk))):
                    gone = row.wrapped is None or row.erased_at is not None
                    keys[row.ref] = None if gone else self._unwrap(row)
        if len(keys) != len(refs):
            raise KeyMissing(f"{len(refs) - len(keys)} keys are unknown to this key store")
        return keys

    def _unwrap(self, row: Any) -> DataKey:
        secret = self.keyring.unwrap(row.kek_version, bound(row.ref, row.version), row.wrapped)
        return DataKey(row.ref, self.token(row.ref), row.version, secret, row.since)

    def _select(self, query: sql.Select[Any], column: Any, values: Iterable[Any]) -> dict[Any, Any]:
        with self.db.reading() as db:
            return {row[0]: row[1] for chunk in _chunks(values) for row in db.execute(query.where(column.in_(chunk)))}

    def _drop_stale(self) -> None:
        if time.monotonic() < self._fresh_until:
            return
        self._fresh_until = time.monotonic() + CACHE_SECONDS
        self.keyring.refresh()
        with self.db.reading() as db:
            now = db.execute(sql.select(generation.c.merges, generation.c.epoch)).one()
        if (now.merges, now.epoch) != self._seen:
            self._by_identifier.clear()
            if now.epoch != self._seen[1]:
                self._by_token.clear()
                self._by_ref.clear()
            self._seen = (now.merges, now.epoch)


V = TypeVar("V")


def bound(ref: str, version: int) -> bytes:
    """What a wrapped data key is bound to: associated data of the wrapping."""
    return context(b"wardstream data key", ref.encode(), version.to_bytes(4))


def identifiers_of(db: sql.Connection, refs: Collection[str]) -> set[bytes]:
    """The keyed hashes of everything that these references are known by."""
    query = sql.select(identifier.c.hash)
    return {row[0] for some in _chunks(sorted(refs)) for row in db.execute(query.where(identifier.c.ref.in_(some)))}


def _mark(db: sql.Connection, refs: Collection[str], hashes: Collection[bytes], at: float) -> None:
    for some in _chunks(sorted(refs)):
        db.execute(subject.update().where(subject.c.ref.in_(some), subject.c.erased_at.is_(None)).values(erased_at=at))
    for few in _chunks(sorted(hashes)):
        earlier = sql.or_(identifier.c.erased_at.is_(None), identifier.c.erased_at < at)
        db.execute(identifier.update().where(identifier.c.hash.in_(few), earlier).values(erased_at=at))
    _raise_generation(db, merges=1, epoch=1)


def _erased(db: sql.Connection, refs: Collection[str]) -> set[str]:
    """Which of these are erased, or known to the ledger alone: asked only of identifiers that say so."""
    query = sql.select(subject.c.ref).where(subject.c.erased_at.is_(None))
    return set(refs) - {row[0] for chunk in _chunks(refs) for row in db.execute(query.where(subject.c.ref.in_(chunk)))}


def _survivor(db: sql.Connection, ref: str) -> str:
    while True:
        row = db.execute(sql.select(subject.c.alias_of).where(subject.c.ref == ref)).first()
        if row is None or row[0] is None:
            return ref
        ref = row[0]


def _top(ref: str, upward: dict[str, str]) -> str:
    while ref in upward:  # `alias` closes no ring
        ref = upward[ref]
    return ref


def _family(db: sql.Connection, ref: str) -> set[str]:
    family = fresh = {_survivor(db, ref)}
    while fresh:
        rows = db.execute(sql.select(subject.c.ref).where(subject.c.alias_of.in_(fresh)))
        fresh = {row[0] for row in rows} - family
        family = family | fresh
    return family


def _raise_generation(db: sql.Connection, merges: int = 0, epoch: int = 0) -> None:
    of = generation.c
    db.execute(generation.update().values(merges=of.merges + merges, epoch=of.epoch + epoch))


def _chunks(values: Iterable[V]) -> Iterator[list[V]]:
    rest = iter(values)
    while chunk := list(islice(rest, QUERY_VALUES)):
        yield chunk
