"""Changing the keys that wrap keys, while everything runs and however often it is killed.

A rotation makes key-encryption key N+1, has everybody wrap with it, and wraps what N has wrapped anew. What a step has
done is seen in the keyring and in the rows, so a rotation that was killed is finished by giving the command again. A
superseded key-encryption key is destroyed on schedule: an older backup of the key store opens with it until then, and
never again after.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sql

from infra.keystore import KeyStore, bound, data_key, generation, kek

BATCH = 500
DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Kek:
    """A key-encryption key as the key store knows it. Times are seconds since 1970."""

    version: int
    created_at: float
    superseded_at: float | None
    destroyed_at: float | None
    wraps: int  # data keys under it


def keks(store: KeyStore) -> list[Kek]:
    with store.db.reading() as db:
        counted = sql.select(data_key.c.kek_version, sql.func.count()).where(data_key.c.wrapped.is_not(None))
        wraps = {row[0]: row[1] for row in db.execute(counted.group_by(data_key.c.kek_version))}
        rows = db.execute(sql.select(kek).order_by(kek.c.version)).all()
    return [
        Kek(row.version, row.created_at, row.superseded_at, row.destroyed_at, wraps.get(row.version, 0)) for row in rows
    ]


def begin(store: KeyStore) -> int:
    """Have new data keys wrapped by a new key-encryption key; gives its version. Goes on with one that was begun."""
    with store.db.reading() as db:
        present = int(db.execute(sql.select(generation.c.kek)).scalar_one())
    store.keyring.refresh()
    if store.keyring.kek_version == present:
        if _left(store, present):
            return present
        store.keyring.add(f"kek.{present + 1}")
    version = store.keyring.kek_version
    with store.db.writing() as db:
        now = time.time()
        if db.execute(sql.select(kek.c.version).where(kek.c.version == version)).first() is None:
            db.execute(kek.insert().values(version=version, created_at=now))
        older = sql.and_(kek.c.version < version, kek.c.superseded_at.is_(None))
        db.execute(kek.update().where(older).values(superseded_at=now))
        db.execute(generation.update().values(kek=version))
    return version


def rewrap(store: KeyStore, version: int, on_progress: Callable[[int], None]) -> int:
    """Wrap every data key that an older key wraps by the present one; gives how many. The data keys stay the same."""
    count = 0
    while rows := _some(store, version):
        with store.db.writing() as db:
            for ref, number, old in rows:
                mine = sql.and_(data_key.c.ref == ref, data_key.c.version == number, data_key.c.kek_version == old)
                row = db.execute(sql.select(data_key.c.wrapped).where(mine)).first()
                if row is None or row.wrapped is None:  # erased meanwhile
                    continue
                secret = store.keyring.unwrap(old, bound(ref, number), row.wrapped)
                new, wrapped = store.keyring.wrap(bound(ref, number), secret)
                db.execute(data_key.update().where(mine).values(kek_version=new, wrapped=wrapped))
                count += 1
        on_progress(len(rows))
    return count


def destroy_superseded(store: KeyStore, days: float) -> list[int]:
    """Destroy the key-encryption keys that were superseded `days` ago and wrap nothing any more. Gives versions."""
    due = [
        one.version
        for one in keks(store)
        if one.superseded_at is not None
        and one.superseded_at <= time.time() - days * DAY_SECONDS
        and not one.wraps
        and (one.destroyed_at is None or one.version in store.keyring.kek_versions)
    ]
    if due:
        store.db.forget()  # no page may hold what they have wrapped
        store.keyring.drop(f"kek.{version}" for version in due)
        with store.db.writing() as db:
            db.execute(kek.update().where(kek.c.version.in_(due)).values(destroyed_at=time.time()))
    return due


def add_blind(store: KeyStore) -> int:
    """Have documents carry the terms of a new blind key beside the old one's; gives its version.

    The old one is dropped once the index was rebuilt (`replay`): `drop_blinds`.
    """
    store.keyring.refresh()
    if len(store.keyring.blinds) == 1:
        version = max(store.keyring.blinds) + 1
        store.keyring.add(f"blind.{version}")
    return max(store.keyring.blinds)


def drop_blinds(store: KeyStore) -> list[int]:
    """Destroy every blind key but the newest; gives the versions that went."""
    old = sorted(store.keyring.blinds)[:-1]
    if old:
        store.keyring.drop(f"blind.{version}" for version in old)
    return old


def _left(store: KeyStore, version: int) -> bool:
    return bool(_some(store, version, 1))


def _some(store: KeyStore, version: int, limit: int = BATCH) -> list[tuple[str, int, int]]:
    with store.db.reading() as db:
        older = sql.and_(data_key.c.kek_version < version, data_key.c.wrapped.is_not(None))
        query = sql.select(data_key.c.ref, data_key.c.version, data_key.c.kek_version).where(older).limit(limit)
        return [(row.ref, row.version, row.kek_version) for row in db.execute(query)]
