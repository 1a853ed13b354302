"""Backups that an erasure closes: the key store and the sealed records, and nothing that could be read without keys.

No index is in a backup, since `replay` rebuilds it from the sealed records; nor the keyring, without which a backup
opens nothing; nor the ledger of erasures, which a restore obeys before anything opens. Until the key-encryption key of
its time is destroyed (`keys rotate`), a backup of the key store together with the keyring opens by other ways than
ours what it could open then: that is the window that remains.
"""

from __future__ import annotations

import shutil
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sql

from infra import database
from infra.errors import KeyMissing, UsageError
from infra.kafka import Outgoing, Producer, read_whole
from infra.keyring import Keyring
from infra.keystore import KeyStore
from infra.ledger import Ledger
from schemas.envelope import Envelope
from schemas.registry import DOMAINS

KEY_STORE = "keystore.sqlite"
AT_ONCE = 500


def save(folder: Path, on_progress: Callable[[int], None]) -> dict[str, int]:
    """Write a backup into an empty folder; gives the records by topic. Raises UsageError."""
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("a backup goes into an empty folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with closing(sqlite3.connect(_key_store())) as live, closing(sqlite3.connect(folder / KEY_STORE)) as copy:
        live.backup(copy)
    (folder / KEY_STORE).chmod(0o600)
    counts: dict[str, int] = {}
    for domain in DOMAINS.values():
        topic = domain.sealed.name
        latest = {message.key(): message for message in read_whole(topic)}
        with (folder / f"{topic}.jsonl").open("wb") as file:
            for message in latest.values():
                if message.value() is not None:
                    file.write(orjson.dumps(_row(message), option=orjson.OPT_APPEND_NEWLINE))
                    counts[topic] = counts.get(topic, 0) + 1
                    on_progress(1)
    return counts


def restore(folder: Path, replace: bool, without_ledger: bool, on_progress: Callable[[int], None]) -> dict[str, int]:
    """Put the key store in place, obey the ledger, then bring back sealed records of everybody who is not erased.

    Workers and feeds must be down. Gives how many records came back, were there, or were left out as erased.
    """
    place = _key_store()
    if not (folder / KEY_STORE).exists():
        raise UsageError("there is no backup in that folder")
    if place.exists() and not replace:
        raise UsageError("there is a key store here: --replace puts the backup's in its place")
    if place.exists() and (alive := KeyStore(database.url(), Keyring.local()).alive()):
        raise UsageError(f"{alive} processes still use the key store here: stop workers and feeds, and wait 15 s")
    keyring = Keyring.local()
    if not Ledger.local(keyring).path.exists() and not without_ledger:
        raise UsageError(
            "there is no ledger of erasures here (WARDSTREAM_LEDGER): without it whoever was erased since the backup"
            " would be back. Bring it, or say --without-ledger where nobody ever was erased"
        )
    partial = place.with_suffix(".restoring")
    shutil.copyfile(folder / KEY_STORE, partial)
    partial.chmod(0o600)
    _obey(partial, keyring)
    for end in ("-wal", "-shm"):
        place.with_name(place.name + end).unlink(missing_ok=True)
    partial.rename(place)
    _, keys = KeyStore.local()
    counts = {"restored": 0, "there": 0, "erased": 0}
    producer = Producer()
    try:
        for domain in DOMAINS.values():
            _bring_back(domain.sealed.name, folder, keys, producer, counts, on_progress)
    finally:
        producer.close()
    return counts


def _obey(path: Path, keyring: Keyring) -> None:
    """Before the file has the name under which anything would open it."""
    store = KeyStore(f"sqlite:///{path}", keyring)
    store.obey(Ledger.local(keyring).erasures())
    store.db.forget()
    store.db.close()
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def _bring_back(
    topic: str,
    folder: Path,
    keys: KeyStore,
    producer: Producer,
    counts: dict[str, int],
    on_progress: Callable[[int], None],
) -> None:
    there = {message.key() for message in read_whole(topic)}  # tombstones too: what was removed stays so
    with (folder / f"{topic}.jsonl").open("rb") as file:
        while lines := list(islice(file, AT_ONCE)):
            batch = []
            for row in map(orjson.loads, lines):
                message = _message(topic, row)
                if message.key in there:
                    counts["there"] += 1
                elif not _alive(message, keys):
                    counts["erased"] += 1
                else:
                    batch.append(message)
            producer.send_now(batch)
            counts["restored"] += len(batch)
            on_progress(len(lines))


def _alive(message: Outgoing, keys: KeyStore) -> bool:
    try:
        return all(keys.of_tokens(Envelope.read(message.headers).subjects).values())
    except KeyMissing:
        return False


def _key_store() -> Path:
    url = sql.make_url(database.url())
    if url.get_backend_name() != "sqlite":
        raise UsageError("the key store is not a file of ours: back it up with its own tools (docs/security.md)")
    return Path(url.database or "")


def _row(message: Any) -> dict[str, Any]:
    given = [[name, b64encode(value or b"").decode()] for name, value in message.headers() or ()]
    texts = {"key": b64encode(message.key()).decode(), "value": b64encode(message.value()).decode()}
    return texts | {"headers": given, "partition": message.partition()}


def _message(topic: str, row: dict[str, Any]) -> Outgoing:
    given = [(name, b64decode(value)) for name, value in row["headers"]]
    return Outgoing(topic, b64decode(row["key"]), b64decode(row["value"]), given, row["partition"])
