"""Keys that wrap keys change under running processes; killed anywhere, the next try finishes; old ones go."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from infra import keystore, rotation
from infra.keyring import KekDestroyed, Keyring, KeyringLocked
from infra.keystore import KeyStore, Wanted
from infra.settings import settings

ROOT = Path(__file__).resolve().parents[1]
PEOPLE = [Wanted("patient", (("C", "MR", str(number)),)) for number in range(1200)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(keystore, "CACHE_SECONDS", 0)
    return tmp_path


def opened(folder: Path) -> KeyStore:
    return KeyStore(f"sqlite:///{folder / 'keystore.sqlite'}", Keyring.open(folder / "keyring.json"))


def secrets(store: KeyStore) -> list[bytes]:
    return [key.secret for key in store.resolve(PEOPLE) if key]


def rotate(store: KeyStore) -> int:
    version = rotation.begin(store)
    rotation.rewrap(store, version, lambda _: None)
    return version


def test_a_rotation_changes_what_wraps_and_nothing_else(folder: Path) -> None:
    store, running = opened(folder), opened(folder)
    before = secrets(store)
    assert rotate(store) == 2
    assert {one.version: one.wraps for one in rotation.keks(store)} == {1: 0, 2: 1200}
    assert secrets(opened(folder)) == before
    (new,) = running.resolve([Wanted("patient", (("C", "MR", "new"),))])
    assert new is not None
    assert {one.version: one.wraps for one in rotation.keks(store)} == {1: 0, 2: 1201}, "others wrap by the new one"


def test_an_old_key_is_destroyed_on_schedule_and_closes_old_backups(folder: Path) -> None:
    store = opened(folder)
    secrets(store)
    store.db.forget()
    backup = (folder / "keystore.sqlite").read_bytes()
    rotate(store)
    assert rotation.destroy_superseded(store, days=30) == []
    assert rotation.destroy_superseded(store, days=0) == [1]
    assert rotation.destroy_superseded(store, days=0) == []
    (folder / "old.sqlite").write_bytes(backup)
    old = KeyStore(f"sqlite:///{folder / 'old.sqlite'}", Keyring.open(folder / "keyring.json"))
    with pytest.raises(KekDestroyed):
        old.resolve(PEOPLE[:1])
    assert len(secrets(opened(folder))) == 1200


# Each names what a process does last before it is gone, by kill -9.
KILLS = {
    "after the keyring has the new key": "store.keyring.add('kek.2')",
    "after everybody wraps by it": "rotation.begin(store)",
    "after some are wrapped anew": "rotation.rewrap(store, rotation.begin(store), lambda _: die())",
    "before the old one leaves the database": (
        "rotation.rewrap(store, rotation.begin(store), lambda _: None); store.keyring.drop(['kek.1']); die()"
    ),
}
CHILD = """
import os, signal, sys
from pathlib import Path
from infra import rotation
from infra.keyring import Keyring
from infra.keystore import KeyStore
def die(): os.kill(os.getpid(), signal.SIGKILL)
folder = Path(sys.argv[1])
store = KeyStore(f"sqlite:///{folder / 'keystore.sqlite'}", Keyring.open(folder / "keyring.json"))
exec(sys.argv[2]); die()
"""


@pytest.mark.parametrize("last", KILLS.values(), ids=KILLS)
def test_killed_anywhere_the_next_try_finishes(folder: Path, last: str) -> None:
    before = secrets(opened(folder))
    done = subprocess.run([sys.executable, "-c", CHILD, str(folder), last], cwd=ROOT)
    assert done.returncode == -9
    assert secrets(opened(folder)) == before, "half-way everything opens"
    store = opened(folder)
    if "drop" not in last:
        assert rotate(store) == 2, "the one that was begun, not another"
    assert rotation.destroy_superseded(store, days=0) == [1]
    assert {one.version: one.wraps for one in rotation.keks(store)} == {1: 0, 2: 1200}
    assert secrets(opened(folder)) == before


def test_blind_keys_overlap_and_then_go(folder: Path) -> None:
    store, other = opened(folder), opened(folder)
    assert rotation.add_blind(store) == rotation.add_blind(store) == 2
    other.keyring.refresh()
    assert sorted(other.keyring.blinds) == [1, 2]
    assert rotation.drop_blinds(store) == [1]
    assert rotation.drop_blinds(store) == []
    other.keyring.refresh()
    assert sorted(other.keyring.blinds) == [2]


@pytest.mark.parametrize(
    ("name", "given", "wrong"),
    [
        ("WARDSTREAM_MASTER_KEY", b64encode(b"k" * 32).decode(), b64encode(b"x" * 32).decode()),
        ("WARDSTREAM_PASSPHRASE", "not-a-secret", "another"),
    ],
)
def test_a_sealed_keyring(
    folder: Path, monkeypatch: pytest.MonkeyPatch, home: Path, name: str, given: str, wrong: str
) -> None:
    def environment(value: str) -> None:
        monkeypatch.setenv(name, value)
        settings.cache_clear()

    path = folder / "sealed.json"
    environment(given)
    made = Keyring.open(path)
    assert set(json.loads(path.read_text())) == {"format", "salt", "nonce", "sealed"}
    assert b64encode(made.token).decode() not in path.read_text()
    assert Keyring.open(path).token == made.token
    environment(wrong)
    with pytest.raises(KeyringLocked):
        Keyring.open(path)
    environment("")
    with pytest.raises(KeyringLocked):
        Keyring.open(path)
    monkeypatch.delenv(name)
    settings.cache_clear()


def test_another_keyring_opens_nothing(folder: Path) -> None:
    made = [key for key in opened(folder).resolve(PEOPLE[:1]) if key]
    (folder / "keyring.json").unlink()
    with pytest.raises(KekDestroyed):
        opened(folder).of_ref(made[0].ref)
