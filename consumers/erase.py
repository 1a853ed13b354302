"""Erasing one person everywhere, with a proof; killed at any step, the same command goes on where it was.

    requested   written into the ledger; from here on nothing of the person opens and nothing old of theirs is taken in
    keys        every data key destroyed: raw topics, dead letters, sealed records, signals, backups close with it
    caches      every running process has dropped what it held
    drained     what agents had in hand before is finished, and so is in the index, if anywhere
    objects     images removed from the object store: before the documents that say where they lie
    index       documents deleted from every index of every domain, and gone from its segments
    tombstones  a tombstone for each sealed record, so that compaction removes it
    verified    asked again: no document, no key, no ciphertext that opens
    finished    the proof is signed and stored

Each step looks for what is there now, so doing it twice does no harm, and is written into the ledger when it is done.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from elasticsearch import ApiError, Elasticsearch
from elasticsearch import ConnectionError as ConnectionLost
from elasticsearch.helpers import scan

from consumers.hold import Hold, Holds
from infra.elastic import client
from infra.errors import BadMessage, KeyMissing, LegalHold, StackDown, WardstreamError
from infra.kafka import Outgoing, Producer, headers, lag, read_whole
from infra.keystore import CACHE_SECONDS, KeyStore
from infra.ledger import FINISHED, Erasure, Ledger
from infra.objects import Objects
from infra.settings import settings
from schemas.document import of_persons
from schemas.envelope import Envelope
from schemas.registry import DOMAINS, Domain
from schemas.signal import SignalEnvelope
from schemas.stores import STORES
from schemas.topics import SIGNALS

CACHE_PATIENCE = 60.0
DRAIN_PATIENCE = 120.0
EXPUNGE_PATIENCE = 180.0  # a retention lease moves on every half minute
Told = Callable[[str], None]  # what is being done now, for a person who waits


class NotErased(WardstreamError):
    """The check at the end has found something that should be gone. Nothing is called erased."""

    exit_code = 15
    reason = "not_erased"


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a person: documents by index, records by topic, keys and identifiers by count."""

    documents: dict[str, int]
    records: dict[str, int]
    references: int
    keys: int
    holds: list[Hold] = field(default_factory=list)


def look(refs: frozenset[str], keys: KeyStore) -> Found:
    """What an erasure would find; changes nothing."""
    with client() as server:
        documents = {index: _count(server, index, refs) for index in _indices(server)}
    tokens = {keys.token(ref) for ref in refs}
    records = {topic: sum(1 for _ in _records(topic, tokens)) for topic in _topics()}
    holds = [one for one in Holds.local().of(refs) if one.holds()]
    return Found(documents, records, len(refs), 0 if keys.shredded(refs) else len(refs), holds)


def begun(refs: frozenset[str], keys: KeyStore) -> Erasure | None:
    """The erasure of just this person that the ledger knows, finished or not."""
    for erasure in Ledger.local(keys.keyring).erasures():
        if refs <= erasure.refs:
            return erasure
    return None


def erase(refs: frozenset[str], reason: str, who: str, keys: KeyStore, told: Told) -> Path:
    """Erase a person, or go on with it; gives the file of the signed proof.

    Raises LegalHold, StackDown where a server is away (give the command again), NotErased where the check fails.
    """
    ledger = Ledger.local(keys.keyring)
    erasure = begun(refs, keys)
    if erasure is None:
        _refuse_held(refs, Holds.local())
        erasure = _request(refs, reason, who, keys, ledger, told)
    if erasure.finished:
        return _proof_file(erasure)
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "keys": lambda: _destroy_keys(erasure, keys),
        "caches": lambda: {"processes": _await_caches(keys)},
        "drained": lambda: _drain(),
        "objects": lambda: _remove_objects(erasure, keys),
        "index": lambda: _delete_documents(erasure, told),
        "tombstones": lambda: _write_tombstones(erasure, keys),
        "verified": lambda: _verify(erasure, keys),
    }
    try:
        for name, step in steps.items():
            if name not in erasure.steps:
                told(name)
                ledger.done(erasure, name, step())
    except ConnectionLost:
        raise StackDown("Elasticsearch does not answer: the erasure goes on when you give the command again") from None
    except ApiError as error:
        raise StackDown(f"Elasticsearch answers {error.status_code}: give the command again") from None
    proof = _prove(erasure, keys)
    ledger.done(erasure, FINISHED, {"proof": proof.name})
    return proof


def unfinished(keys: KeyStore) -> list[Erasure]:
    return [one for one in Ledger.local(keys.keyring).erasures() if not one.finished]


# ---------------------------------------------------------------------------------------------------------------- steps


def _request(refs: frozenset[str], reason: str, who: str, keys: KeyStore, ledger: Ledger, told: Told) -> Erasure:
    """The ledger first: a database that is put back later knows of nothing else."""
    told("looking")
    found, holds, at = look(refs, keys), Holds.local(), time.time()
    made: list[Erasure] = []

    def write(whole: set[str], hashes: set[bytes]) -> None:
        _refuse_held(whole, holds)  # again: looking takes its time
        made.append(Erasure(os.urandom(8).hex(), frozenset(whole), frozenset(hashes), at, reason, who))
        counts = {"documents": found.documents, "records": found.records, "identifiers": len(hashes)}
        ledger.request(made[0], counts)

    keys.erasing(refs, at, write)
    return made[0]


def _refuse_held(refs: Collection[str], holds: Holds) -> None:
    if some := [one for one in holds.of(refs) if one.holds()]:
        raise LegalHold(f"a legal hold keeps this record: {', '.join(one.basis for one in some)}")


def _destroy_keys(erasure: Erasure, keys: KeyStore) -> dict[str, Any]:
    keys.mark_erased(erasure.refs, erasure.at)
    return {"destroyed": keys.destroy(erasure.refs), "references": len(erasure.refs)}


def _await_caches(keys: KeyStore) -> int:
    time.sleep(CACHE_SECONDS)
    try:
        return keys.await_caches(CACHE_PATIENCE)
    except TimeoutError:
        raise StackDown("a process does not drop its keys: is it stopped? Give the command again") from None


def _drain() -> dict[str, Any]:
    """Wait until agents have acknowledged what was on their topics: whatever they read with a living key is written.

    Where no worker runs nothing is in hand, and nothing moves; what is read later finds no key.
    """
    ends = {name: {number: one.end for number, one in lag(name).items()} for name in _raw()}
    deadline = time.monotonic() + DRAIN_PATIENCE
    last, moved = ends, time.monotonic()
    while True:
        now = {name: {number: one.committed for number, one in lag(name).items()} for name in _raw()}
        waiting = sum(max(0, end - now[name][number]) for name, some in ends.items() for number, end in some.items())
        if now != last:
            last, moved = now, time.monotonic()
        if not waiting or time.monotonic() - moved > DRAIN_PATIENCE / 4:
            return {"drained": not waiting, "waiting": waiting}
        if time.monotonic() > deadline:
            raise StackDown("the workers do not keep up: give the command again when they have")
        time.sleep(0.5)


def _remove_objects(erasure: Erasure, keys: KeyStore) -> dict[str, Any]:
    """What documents and records of the person name: either alone is enough to find an object."""
    tokens = {keys.token(ref) for ref in erasure.refs}
    topics = (one.name for of in DOMAINS.values() if of.has_objects() for one in (of.raw, of.dead_letters, of.sealed))
    names = {_object(message) for topic in topics for message in _records(topic, tokens)}
    with client() as server:
        for index in _indices(server):
            server.indices.refresh(index=index)
            query = {"query": {"bool": {"filter": [of_persons(erasure.refs), {"exists": {"field": "object"}}]}}}
            names |= {hit["_source"]["object"] for hit in scan(server, index=index, query=query, _source=["object"])}
    found, store = names - {""}, Objects.local()
    removed = store.remove(found)
    if left := [name for name in found if store.size(name) is not None]:
        raise NotErased(f"still there: {len(left)} objects")
    return {"objects": len(found), "removed": removed}


def _delete_documents(erasure: Erasure, told: Told) -> dict[str, Any]:
    """From every index, those that a replay has left behind too; then out of the segments."""
    gone: dict[str, int] = {}
    with client() as server:
        indices = _indices(server)
        for index in indices:
            gone[index] = _delete(server, index, erasure.refs)
        for index in indices:
            told(f"index: {index} gives its disk back")
            _expunge(server, index)
    return {"deleted": gone}


def _delete(server: Elasticsearch, index: str, refs: frozenset[str]) -> int:
    blocked = server.indices.get_settings(index=index, name="index.blocks.write").body
    lifted = bool(blocked.get(index, {}).get("settings"))
    if lifted and server.indices.get_alias(index=index).body[index]["aliases"]:
        raise StackDown(f"{index} is blocked by a replay: give the command again when that is done")
    if lifted:
        server.indices.put_settings(index=index, settings={"index.blocks.write": None})
    count = 0
    try:
        server.indices.refresh(index=index)
        query = {"query": of_persons(refs)}
        ids = [hit["_id"] for hit in scan(server, index=index, query=query, _source=False)]
        for some in (ids[at : at + 1000] for at in range(0, len(ids), 1000)):
            answer = server.bulk(index=index, operations=[{"delete": {"_id": one}} for one in some])
            count += sum(item["delete"]["status"] == 200 for item in answer["items"])
        server.indices.refresh(index=index)
    finally:
        if lifted:
            server.indices.add_block(index=index, block="write")
    return count


def _expunge(server: Elasticsearch, index: str) -> None:
    """Merge until no segment holds a deleted document: it stays there while a retention lease might want it again.

    Raises StackDown where the lease does not move.
    """
    deadline = time.monotonic() + EXPUNGE_PATIENCE
    while True:
        server.indices.flush(index=index, force=True)
        server.indices.forcemerge(index=index, only_expunge_deletes=True)
        server.indices.flush(index=index, force=True)
        shards = server.indices.stats(index=index, level="shards")["indices"][index]["shards"]
        if not any(copy["docs"]["deleted"] for copies in shards.values() for copy in copies):
            return
        if time.monotonic() > deadline:
            raise StackDown(f"deleted documents do not leave {index}: give the command again")
        time.sleep(1)


def _write_tombstones(erasure: Erasure, keys: KeyStore) -> dict[str, Any]:
    tokens = {keys.token(ref) for ref in erasure.refs}
    written: dict[str, int] = {}
    producer = Producer()
    try:
        for domain in DOMAINS.values():
            some = {message.key(): message for message in _records(domain.sealed.name, tokens)}
            producer.send_now(
                Outgoing(domain.sealed.name, key, None, [("event_id", key)], message.partition())
                for key, message in some.items()
            )
            written[domain.sealed.name] = len(some)
    finally:
        producer.close()
    return {"written": written}


def _verify(erasure: Erasure, keys: KeyStore) -> dict[str, Any]:
    """Ask every store again. Raises NotErased with what is left and where."""
    left: Counter[str] = Counter()
    closed: Counter[str] = Counter()
    with client() as server:
        for index in _indices(server):
            server.indices.refresh(index=index)
            left[index] += _count(server, index, erasure.refs)
    if not keys.shredded(erasure.refs):
        left["key store"] += 1
    tokens = {keys.token(ref) for ref in erasure.refs}
    for topic in _topics():
        for message in _records(topic, tokens):
            try:
                opens = all(keys.of_tokens(_tokens(message)).values())
            except KeyMissing:
                opens = False
            (left if opens else closed)[topic] += 1
    if left := +left:
        raise NotErased(f"still there: {', '.join(f'{name} {count}' for name, count in sorted(left.items()))}")
    return {"documents": 0, "keys": 0, "closed": dict(closed)}


# ---------------------------------------------------------------------------------------------------------------- proof


def _prove(erasure: Erasure, keys: KeyStore) -> Path:
    """Write what was found, removed and verified, and where, signed with the installation's key."""
    said = {
        "erasure": erasure.id,
        "references": sorted(erasure.refs),
        "reason": erasure.reason,
        "requested_by": erasure.who,
        "requested_at": erasure.at,
        "finished_at": time.time(),
        "steps": erasure.steps,
        "stores": {store.name: store.erased for store in STORES},
    }
    body = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    signer = keys.keyring.signing_key()
    signature = signer.sign(b"wardstream proof 1\n" + body).hex()
    public = signer.public_key().public_bytes_raw().hex()
    made = orjson.dumps({"said": said, "signature": signature, "public_key": public}, option=orjson.OPT_INDENT_2)
    path = _proof_file(erasure)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path.with_suffix(".partial"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(handle, made)
    os.fsync(handle)
    os.close(handle)
    path.with_suffix(".partial").rename(path)
    return path


def _proof_file(erasure: Erasure) -> Path:
    return settings().home / "proofs" / f"{erasure.id}.json"


# --------------------------------------------------------------------------------------------------------------- places


def _raw() -> list[str]:
    return [domain.raw.name for domain in DOMAINS.values()]


def _topics() -> list[str]:
    """Every topic with records of persons."""
    of_domain = (one.name for d in DOMAINS.values() for one in (d.raw, d.dead_letters, d.sealed))
    return [*of_domain, SIGNALS.name]


def _indices(server: Elasticsearch) -> list[str]:
    """Every index of every domain, the live ones and those that a replay has replaced."""
    return [index for domain in DOMAINS.values() for index in _of_domain(server, domain)]


def _of_domain(server: Elasticsearch, domain: Domain) -> list[str]:
    return sorted(server.indices.get(index=f"{domain.name}-*", filter_path="*.aliases").body)


def _count(server: Elasticsearch, index: str, refs: frozenset[str]) -> int:
    return int(server.count(index=index, query=of_persons(refs))["count"])


def _records(topic: str, tokens: set[str]) -> Iterator[Any]:
    """Messages of a topic that are about these persons, tombstones left out."""
    for message in read_whole(topic):
        if message.value() is not None and tokens & set(_tokens(message)):
            yield message


def _object(message: Any) -> str:
    """The name of the object that a record is of; empty for most."""
    return headers(message).get("object", b"").decode()


def _tokens(message: Any) -> tuple[str, ...]:
    given = headers(message)
    try:
        if "signal" in given:
            return (SignalEnvelope.read(given.items()).subject,)
        return Envelope.read(given.items()).subjects
    except BadMessage:
        return ()
