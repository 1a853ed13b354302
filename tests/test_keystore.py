"""One reference and one key per person, however many processes race for them."""

from __future__ import annotations

import sqlite3
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra import database, keystore
from infra.cache import Cache
from infra.errors import KeyMissing, KeyShredded, KeyStoreBusy
from infra.keyring import Keyring, LoosePermissions
from infra.keystore import KeyStore, Wanted

MARIA = Wanted("patient", (("CITY", "MR", "4711"), ("STATE", "PI", "99")))


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.open(tmp_path / "keyring.json")


@pytest.fixture
def store(tmp_path: Path, keyring: Keyring) -> KeyStore:
    return KeyStore(f"sqlite:///{tmp_path / 'keystore.sqlite'}", keyring)


def again(tmp_path: Path, keyring: Keyring) -> KeyStore:
    return KeyStore(f"sqlite:///{tmp_path / 'keystore.sqlite'}", keyring)


def test_a_person_is_found_again_by_any_identifier(tmp_path: Path, keyring: Keyring, store: KeyStore) -> None:
    made = store.resolve([MARIA])[0]
    for one in MARIA.identifiers:
        found = again(tmp_path, keyring).resolve([Wanted("patient", (one,))])[0]
        assert (found.ref, found.secret) == (made.ref, made.secret)


def test_the_best_identifier_decides(store: KeyStore) -> None:
    first, second = store.resolve([MARIA, Wanted("patient", (("CITY", "MR", "4712"),))])
    both = Wanted("patient", (("CITY", "MR", "4712"), ("STATE", "PI", "99")))
    assert store.resolve([both])[0].ref == second.ref != first.ref


def test_spelling_of_an_authority_does_not_split_a_person(store: KeyStore) -> None:
    assert store.resolve([MARIA])[0].ref == store.resolve([Wanted("patient", ((" city", "mr", "4711 "),))])[0].ref


def test_the_same_number_of_another_authority_is_another_person(store: KeyStore) -> None:
    assert store.resolve([MARIA])[0].ref != store.resolve([Wanted("patient", (("TOWN", "MR", "4711"),))])[0].ref


def test_many_racers_make_one_person(tmp_path: Path, keyring: Keyring, store: KeyStore) -> None:
    people = [Wanted("patient", (("CITY", "MR", str(number)),)) for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        stores = [again(tmp_path, keyring) for _ in range(8)]
        found = list(pool.map(lambda one: [key.secret for key in one.resolve(people)], stores))
    assert all(secrets == found[0] for secrets in found)
    assert len(set(found[0])) == 20


def test_a_merge_is_followed_everywhere(
    tmp_path: Path, keyring: Keyring, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keystore, "CACHE_SECONDS", 0)
    other = again(tmp_path, keyring)
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
    tmp_path: Path, keyring: Keyring, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keystore, "CACHE_SECONDS", 0)
    made = store.resolve([MARIA])[0]
    with pytest.raises(KeyMissing):
        store.of_ref("f" * 32)
    with sqlite3.connect(tmp_path / "keystore.sqlite") as db:
        db.execute("UPDATE data_key SET wrapped = NULL WHERE ref = ?", (made.ref,))
    fresh = again(tmp_path, keyring)
    assert fresh.of_tokens([made.token]) == {made.token: None}
    with pytest.raises(KeyShredded):
        fresh.of_ref(made.ref)
    other = Wanted("patient", (("CITY", "MR", "4712"),))
    found = fresh.resolve([other, MARIA, other])
    assert found[1] is None, "erased: nobody else in the batch is kept waiting"
    assert found[0] == found[2] is not None


def test_who_waits_for_the_store_waits_for_seconds(
    tmp_path: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    store = again(tmp_path, keyring)
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
