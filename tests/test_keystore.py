"""One reference and one key per person, however many processes race for them."""

from __future__ import annotations

import sqlite3
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sql
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra import database, keystore
from infra.cache import Cache
from infra.crypto import field_key_version, open_field, seal_field
from infra.database import Database
from infra.errors import KeyMissing, KeyShredded, KeyStoreBusy, LedgerBroken, LegalHold
from infra.keyring import Keyring, KeyringLocked, LoosePermissions
from infra.keystore import TABLES, KeyStore, Wanted
from infra.ledger import Erasure, Ledger

MARIA = Wanted("patient", (("CITY", "MR", "4711"), ("STATE", "PI", "99")))


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.open(tmp_path / "keyring.json")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'keystore.sqlite'}"
    made: str = request.getfixturevalue("postgres")
    with Database(made).writing() as db:
        TABLES[0].metadata.drop_all(db)
    return made


@pytest.fixture
def store(url: str, keyring: Keyring) -> KeyStore:
    return KeyStore(url, keyring)


def patient(number: str, at: float = float("inf")) -> Wanted:
    return Wanted("patient", (("CITY", "MR", number),), at)


def test_a_person_is_found_again_by_any_identifier(url: str, keyring: Keyring, store: KeyStore) -> None:
    made = store.resolve([MARIA])[0]
    for one in MARIA.identifiers:
        found = KeyStore(url, keyring).resolve([Wanted("patient", (one,))])[0]
        assert (found.ref, found.secret) == (made.ref, made.secret)


def test_the_best_identifier_decides(store: KeyStore) -> None:
    first, second = store.resolve([MARIA, Wanted("patient", (("CITY", "MR", "4712"),))])
    both = Wanted("patient", (("CITY", "MR", "4712"), ("STATE", "PI", "99")))
    assert store.resolve([both])[0].ref == second.ref != first.ref


def test_spelling_of_an_authority_does_not_split_a_person(store: KeyStore) -> None:
    assert store.resolve([MARIA])[0].ref == store.resolve([Wanted("patient", ((" city", "mr", "4711 "),))])[0].ref


def test_the_same_number_of_another_authority_is_another_person(store: KeyStore) -> None:
    assert store.resolve([MARIA])[0].ref != store.resolve([Wanted("patient", (("TOWN", "MR", "4711"),))])[0].ref


def test_many_racers_make_one_person(url: str, keyring: Keyring, store: KeyStore) -> None:
    people = [Wanted("patient", (("CITY", "MR", str(number)),)) for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        stores = [KeyStore(url, keyring) for _ in range(8)]
        found = list(pool.map(lambda one: [key.secret for key in one.resolve(people)], stores))
    assert all(secrets == found[0] for secrets in found)
    assert len(set(found[0])) == 20


def test_a_merge_is_followed_everywhere(
    url: str, keyring: Keyring, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keystore, "CACHE_SECONDS", 0)
    other = KeyStore(url, keyring)
    refs = [key.ref for key in store.resolve([Wanted("patient", (("C", "MR", str(n)),)) for n in range(4)])]
    assert other.resolve([Wanted("patient", (("C", "MR", "0"),))])[0].ref == refs[0]
    assert store.alias(refs[0], refs[1])
    assert store.alias(refs[1], refs[2])
    assert not store.alias(refs[0], refs[2]), "a repeated merge changes nothing"
    assert not store.alias(refs[2], refs[0]), "a ring is left out"
    assert other.resolve([Wanted("patient", (("C", "MR", "0"),))])[0].ref == refs[2]
    assert other.survivor(refs[0]) == refs[2]
    assert other.family(refs[1]) == set(refs[:3])
    assert other.of_ref(refs[0]).ref == refs[0], "what was sealed under the prior reference still opens"


def test_tokens_lead_back_to_keys(store: KeyStore) -> None:
    made = store.resolve([MARIA])[0]
    assert store.of_tokens([made.token]) == {made.token: made}
    with pytest.raises(KeyMissing):
        store.of_tokens([made.token, "0" * 32])


def test_an_unknown_key_is_never_taken_for_an_erased_one(
    url: str, keyring: Keyring, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keystore, "CACHE_SECONDS", 0)
    made = store.resolve([MARIA])[0]
    with pytest.raises(KeyMissing):
        store.of_ref("f" * 32)
    store.mark_erased({made.ref}, time.time())
    assert store.destroy({made.ref}) == 1
    fresh = KeyStore(url, keyring)
    assert fresh.of_tokens([made.token]) == {made.token: None}
    with pytest.raises(KeyShredded):
        fresh.of_ref(made.ref)
    other = Wanted("patient", (("CITY", "MR", "4712"),))
    found = fresh.resolve([other, replace(MARIA, at=1000.0), other])
    assert found[1] is None, "erased: nobody else in the batch is kept waiting"
    assert found[0] == found[2] is not None


def test_a_number_of_an_erased_person_starts_a_new_one(
    url: str, keyring: Keyring, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happened before the erasure and comes late is dropped; what happened after it is somebody else's."""
    monkeypatch.setattr(keystore, "CACHE_SECONDS", 0)
    (old,) = store.resolve([patient("4711", at=100.0)])
    assert old is not None
    with store.db.reading() as db:
        assert len(keystore.identifiers_of(db, {old.ref})) == 1
    store.mark_erased({old.ref}, at=200.0)
    for view in (store, KeyStore(url, keyring)):
        with pytest.raises(KeyShredded):
            view.of_ref(old.ref)
    store.destroy({old.ref})
    assert store.shredded({old.ref})
    late, new, later, too_late = store.resolve([patient("4711", at) for at in (150.0, 250.0, 300.0, 199.0)])
    assert (late, too_late) == (None, None)
    assert new is not None
    assert later is not None
    assert new.ref == later.ref != old.ref
    assert new.since == 200.0
    assert KeyStore(url, keyring).resolve([patient("4711", at=260.0)])[0] == new
    assert KeyStore(url, keyring).resolve([patient("4711", at=160.0)]) == [None]
    assert store.refs_of([("CITY", "MR", "4711")]) == {new.ref}


def test_the_ledger_rules_a_database_that_knows_of_no_erasure(url: str, keyring: Keyring, store: KeyStore) -> None:
    """As after a restore: the keys are there again, and one identifier was learned after the backup."""
    (old,) = store.resolve([patient("4711", at=100.0)])
    assert old is not None
    with store.db.reading() as db:
        (known,) = keystore.identifiers_of(db, {old.ref})
    learned = store._hash(("CITY", "MR", "4712"))
    told = Erasure("e1", frozenset({old.ref}), frozenset({known, learned}), 200.0, "", "")
    store.obey([told])
    assert store.shredded({old.ref})
    assert store.resolve([patient("4711", at=150.0), patient("4712", at=150.0)]) == [None, None]
    before = store.epoch()
    store.obey([told])
    assert store.epoch() == before, "what is obeyed already costs nothing"
    (new,) = store.resolve([patient("4712", at=250.0)])
    assert new is not None
    unknown = Erasure("e2", frozenset({"f" * 32}), frozenset({store._hash(("CITY", "MR", "4713"))}), 200.0, "", "")
    store.obey([unknown])
    assert store.resolve([patient("4713", at=150.0)]) == [None], "made and erased since the backup"
    (newer,) = store.resolve([patient("4713", at=250.0)])
    assert newer is not None


def test_a_merge_that_was_undone_stays_undone(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystore, "CACHE_SECONDS", 0)
    one, two = (key.ref for key in store.resolve([patient("1"), patient("2")]) if key)
    assert store.alias(one, two, at=100.0)
    assert store.unalias(one)
    assert not store.unalias(one)
    assert not store.alias(one, two, at=100.0), "the same message, read again"
    assert store.survivor(one) == one
    assert store.family(two) == {two}
    assert store.alias(one, two, at=time.time() + 1), "told anew, it counts"
    assert store.survivor(one) == two


def test_undoing_one_merge_leaves_the_others(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """P into Q, then P into R, which joins Q and R through P: without P they are strangers again."""
    monkeypatch.setattr(keystore, "CACHE_SECONDS", 0)
    p, q, r, s = (key.ref for key in store.resolve([patient(one) for one in "pqrs"]) if key)
    assert store.alias(p, q)
    assert store.alias(p, r)
    assert store.alias(s, q)
    assert store.family(p) == {p, q, r, s}
    assert store.unalias(p)
    assert (store.family(p), store.family(r), store.family(q)) == ({p}, {r}, {q, s})


def test_merges_of_a_family_with_when_they_came_in(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystore, "CACHE_SECONDS", 0)
    p, q, r, s, t = (key.ref for key in store.resolve([patient(one) for one in "pqrst"]) if key)
    assert store.alias(p, q, at=10.0, told_at=20.0)
    assert not store.alias(p, q, at=10.0, told_at=99.0), "read again, it came in when it came in"
    assert store.alias(q, r, told_at=30.0)
    assert store.alias(s, t, told_at=40.0)
    assert sorted(store.merges_of({r})) == sorted([(p, q, 20.0), (q, r, 30.0)])
    assert store.merges_of({p, s}) == store.merges_of({s, p, q})
    assert len(store.merges_of({p, s})) == 3
    assert store.unalias(q)
    assert store.merges_of({p}) == [(p, q, 20.0)]
    assert store.merges_of({r}) == store.merges_of(set()) == []


def test_nobody_is_merged_into_an_erased_person(store: KeyStore) -> None:
    """A batch that was in hand: the living one must not be lost with the other."""
    living, gone = (key.ref for key in store.resolve([patient("1"), patient("2")]) if key)
    store.mark_erased({gone}, time.time())
    assert not store.alias(living, gone)
    assert not store.alias(gone, living)
    assert store.of_ref(living).ref == living


def test_a_merge_while_an_erasure_begins_is_in_it_or_not_at_all(url: str, keyring: Keyring, store: KeyStore) -> None:
    one, two = (key.ref for key in store.resolve([patient("1"), patient("2")]) if key)
    store.alias(one, two)
    told: list[set[str]] = []
    store.erasing({two}, time.time(), lambda refs, hashes: told.append(refs))
    assert told == [{one, two}]

    def refuse(refs: set[str], hashes: set[bytes]) -> None:
        raise LegalHold("kept")

    (other,) = (key.ref for key in store.resolve([patient("3")]) if key)
    with pytest.raises(LegalHold):
        store.erasing({other}, time.time(), refuse)
    assert KeyStore(url, keyring).of_ref(other).ref == other


def test_a_doctor_and_a_patient_with_one_number_are_two(store: KeyStore) -> None:
    number = (("CITY", "", "77"),)
    doctor, sick = store.resolve([Wanted("staff", number), Wanted("patient", number)])
    assert doctor is not None
    assert sick is not None
    assert doctor.ref != sick.ref


def test_another_keyring_is_said_to_be_one(url: str, store: KeyStore, tmp_path: Path) -> None:
    """A mount that is missing must not begin a second life beside the first."""
    with pytest.raises(KeyringLocked):
        KeyStore(url, Keyring.open(tmp_path / "made-anew.json"))


def test_nothing_unsigned_is_obeyed(tmp_path: Path, keyring: Keyring, store: KeyStore) -> None:
    """A line of somebody else's would destroy whom it names."""
    ours, theirs = (Ledger(tmp_path / "ledger", key) for key in (keyring.signing_key(), Ed25519PrivateKey.generate()))
    ours.request(Erasure("e1", frozenset("a"), frozenset(), 1.0, "r", "w"), {})
    assert [one.id for one in ours.erasures()] == ["e1"]
    theirs_line = Ledger(tmp_path / "other", theirs._key)
    theirs_line.request(Erasure("e2", frozenset("b"), frozenset(), 1.0, "r", "w"), {})
    ours.path.write_bytes(theirs_line.path.read_bytes())
    with pytest.raises(LedgerBroken):
        ours.erasures()


def test_a_key_is_not_called_gone_while_somebody_still_reads_it(
    tmp_path: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    store = KeyStore(f"sqlite:///{tmp_path / 'keystore.sqlite'}", keyring)
    (made,) = store.resolve([MARIA])
    assert made is not None
    with sqlite3.connect(tmp_path / "keystore.sqlite", isolation_level=None) as db:
        db.execute("BEGIN")
        db.execute("SELECT * FROM data_key").fetchall()
        with pytest.raises(KeyStoreBusy):
            store.destroy({made.ref})
        db.execute("COMMIT")
    store.destroy({made.ref})


def test_a_key_that_has_sealed_much_gets_a_successor(
    url: str, keyring: Keyring, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keystore, "CACHE_SECONDS", 0)
    monkeypatch.setattr(keystore, "ROTATE_AT", 2 * keystore.COUNTED)
    (first,) = store.resolve([patient("1")])
    assert first is not None
    sealed = seal_field(first, "ehr", "r", "name", "value")
    first.uses = keystore.COUNTED - 1
    store.count([first])
    assert first.uses == keystore.COUNTED - 1, "not worth a write yet"
    for _ in range(2):
        first.uses = keystore.COUNTED
        store.count([first, first])
    (second,) = store.resolve([patient("1")])
    assert second is not None
    assert (second.version, second.ref) == (2, first.ref)
    assert store.of_tokens([first.token])[first.token] == second
    assert open_field(store.of_ref(first.ref, field_key_version(sealed)), "ehr", "r", "name", sealed) == "value"
    assert store.at_version(second, 1) == first
    other = KeyStore(url, keyring)
    stale = other.resolve([patient("1")])[0]
    assert stale is not None
    assert stale.version == 2


def test_an_erasure_waits_for_every_cache(url: str, keyring: Keyring, store: KeyStore) -> None:
    """A process that has joined drops its keys by itself; one that does not answer is waited for, and named."""
    (made,) = store.resolve([patient("1")])
    assert made is not None
    worker = KeyStore(url, keyring)
    worker.join("worker")
    assert worker.of_tokens([made.token])[made.token] == made
    store.mark_erased({made.ref}, time.time())
    store.destroy({made.ref})
    assert store.await_caches(10) == 1
    assert made.token not in worker._by_token
    with store.db.writing() as db:
        db.execute(keystore.process.insert().values(id="silent", name="x", beat_at=time.time() + 60, epoch=0))
    with pytest.raises(TimeoutError):
        store.await_caches(0.5)


def test_a_destroyed_key_has_left_the_files(tmp_path: Path, keyring: Keyring) -> None:
    store = KeyStore(f"sqlite:///{tmp_path / 'keystore.sqlite'}", keyring)
    keys = [key for key in store.resolve([patient(str(n)) for n in range(50)]) if key]
    with store.db.reading() as db:
        wrapped = {row.ref: row.wrapped for row in db.execute(sql.select(keystore.data_key))}

    def held(blob: bytes) -> bool:
        return any(blob in path.read_bytes() for path in tmp_path.glob("keystore.sqlite*"))

    gone = {key.ref for key in keys[::2]}
    assert all(held(blob) for blob in wrapped.values())
    store.mark_erased(gone, time.time())
    store.destroy(gone)
    assert [held(wrapped[key.ref]) for key in keys] == [False, True] * 25


def test_who_waits_for_the_store_waits_for_seconds(
    tmp_path: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    store = KeyStore(f"sqlite:///{tmp_path / 'keystore.sqlite'}", keyring)
    with sqlite3.connect(tmp_path / "keystore.sqlite", isolation_level=None) as db:
        db.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(KeyStoreBusy):
            store.resolve([Wanted("patient", (("CITY", "MR", "new"),))])
        assert time.monotonic() - began < 5
        db.execute("ROLLBACK")
    assert store.resolve([MARIA])[0] is not None


def test_a_source_has_a_key_of_the_week(store: KeyStore) -> None:
    monday = 1_767_571_200.0
    assert store.of_source("x", monday).ref == store.of_source("x", monday + 6 * 86_400).ref
    assert store.of_source("x", monday).ref != store.of_source("x", monday + 7 * 86_400).ref
    assert store.of_source("x", monday).ref != store.of_source("y", monday).ref


def test_no_identifier_is_at_rest(tmp_path: Path, store: KeyStore) -> None:
    store.resolve([Wanted("patient", (("AUTHORITYNAME", "MR", "PLANTED4711"),))])
    for path in tmp_path.iterdir():
        assert b"PLANTED4711" not in path.read_bytes()
        assert b"authorityname" not in path.read_bytes().lower()


def test_the_keyring_is_ours_alone(tmp_path: Path, keyring: Keyring) -> None:
    path = tmp_path / "keyring.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(LoosePermissions):
        Keyring.open(path)


def test_racing_for_a_keyring_gives_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda _: Keyring.open(tmp_path / "new.json").token, range(8)))
    assert len(set(rings)) == 1


def test_the_cache_is_bounded() -> None:
    cache: Cache[int, int] = Cache(2)
    for number in range(3):
        cache.keep(number, number)
        cache.get(0)
    assert sorted(cache) == [0, 2]
