"""Sealing and opening fields with their keys looked up, beside the bare cipher and beside Fernet. One thread.

Shaped as what a worker meets: batches of 500 messages of 500 persons, twelve sealed fields each in six documents
(a message of the simulated hospital has twelve in five). One in twenty of the persons was never looked up before:
those keys come from the database. Writer and reader have caches of their own, as two processes have.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.crypto import NONCE_BYTES, open_field, seal_fields
from infra.keyring import Keyring
from infra.keystore import KeyStore, Wanted

BATCHES, MESSAGES, DOCUMENTS, NAMES = 20, 500, 6, ("name", "phones")
WARM, COLD_SHARE = 5000, 0.05
VALUE = "x" * 200
FIELDS = MESSAGES * DOCUMENTS * len(NAMES)  # of a batch


def throughput(folder: Path) -> dict[str, float]:
    """Fields sealed and opened again in a second of one core, by row."""
    lookups = list(_lookups(random.Random(1)))
    tokens, writer, reader = _stores(folder, max(max(some) for some in lookups) + 1)
    cipher, fernet = AESGCM(os.urandom(32)), Fernet(Fernet.generate_key())
    spent: dict[str, float] = defaultdict(float)
    for batch, persons in enumerate(lookups):
        records = {
            tokens[person]: [f"{batch:016x}{person:016x}-{part}" for part in range(DOCUMENTS)] for person in persons
        }
        spent["seal_open_fields"] += _seconds(partial(_ours, writer, reader, records))
        spent["bare_aes_gcm"] += _seconds(partial(_bare, cipher))
        spent["fernet_fields"] += _seconds(partial(_fernet, fernet))
    return {name: BATCHES * FIELDS / seconds for name, seconds in spent.items()}


def _seconds(work: Callable[[], None]) -> float:
    """Of the processor, so that nothing else on the machine counts; and as timeit does, without looking for garbage."""
    gc.disable()
    started = time.process_time()
    work()
    seconds = time.process_time() - started
    gc.enable()
    return seconds


def _lookups(chance: random.Random) -> Iterator[list[int]]:
    """Numbers of the persons in each batch, each batch with its share of persons never seen before."""
    cold = int(MESSAGES * COLD_SHARE)
    for batch in range(BATCHES):
        first = WARM + batch * cold
        yield chance.sample(range(WARM), MESSAGES - cold) + list(range(first, first + cold))


def _stores(folder: Path, persons: int) -> tuple[list[str], KeyStore, KeyStore]:
    """Everybody's token, and two views of their store that know the first WARM of them."""
    keyring, url = Keyring.open(folder / "keyring.json"), f"sqlite:///{folder / 'keystore.sqlite'}"
    keys = KeyStore(url, keyring).resolve([Wanted("patient", (("BENCH", "MR", str(n)),)) for n in range(persons)])
    tokens = [key.token for key in keys if key is not None]
    writer, reader = KeyStore(url, keyring), KeyStore(url, keyring)
    for store in (writer, reader):
        store.of_tokens(tokens[:WARM])
    return tokens, writer, reader


def _ours(writer: KeyStore, reader: KeyStore, records: dict[str, list[str]]) -> None:
    clear = dict.fromkeys(NAMES, VALUE)
    keys = writer.of_tokens(records)
    sealed = [
        (token, made, seal_fields(keys[token], "ehr", made, clear)) for token, some in records.items() for made in some
    ]
    keys = reader.of_tokens(records)
    for token, made, fields in sealed:
        for name, value in fields.items():
            assert open_field(keys[token], "ehr", made, name, value) == VALUE


def _bare(cipher: AESGCM) -> None:
    value = VALUE.encode()
    sealed = []
    for _ in range(FIELDS):
        nonce = os.urandom(NONCE_BYTES)
        sealed.append((nonce, cipher.encrypt(nonce, value, None)))
    for nonce, one in sealed:
        assert cipher.decrypt(nonce, one, None) == value


def _fernet(fernet: Fernet) -> None:
    value = VALUE.encode()
    for one in [fernet.encrypt(value) for _ in range(FIELDS)]:
        assert fernet.decrypt(one) == value
