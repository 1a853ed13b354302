"""Showing a sealed field in clear: to a person with a purpose, written into the audit first."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from elasticsearch import ConnectionError as ConnectionLost

from consumers.access import Caller
from infra import metrics
from infra.audit import Audit
from infra.crypto import field_key_version, open_field
from infra.elastic import away, client
from infra.errors import UsageError
from infra.keystore import KeyStore
from schemas.registry import Domain

PARTS_READ = 1000


@dataclass(frozen=True, slots=True)
class Revealed:
    document: str
    kind: str
    field: str
    values: list[str] = dataclasses.field(repr=False)


def reveal(caller: Caller, of: Domain, wanted: str, name: str) -> list[Revealed]:
    """The clear values of a field, of a document or of all documents of an event.

    Raises UsageError for an unknown id or field, Denied where the policy or the patient does not permit it,
    KeyShredded for an erased person, and SealBroken for a ciphertext that was altered or moved. The audit is written
    before anything is opened.
    """
    marks = of.marks()
    if name in marks:
        caller.require(of, "reveal", [name])
    documents = _documents(of, wanted)
    having = [one for one in documents if name in marks and name in one["_source"].get("sealed", {})]
    if not having:  # what has no mark is nobody's to see: the words that are removed from texts
        names = sorted({sealed for one in documents for sealed in one["_source"].get("sealed", {}) if sealed in marks})
        raise UsageError(f"nothing is sealed there as {name!r}; there is: {', '.join(names) or 'nothing'}")
    caller.require_persons([one["_source"].get("patient_ref") for one in having], fields=(name,))
    _, keys = KeyStore.local()
    audit = Audit.local()
    for one in having:
        patient = one["_source"].get("patient_ref")
        patients = (patient,) if patient else ()
        audit.write(caller.act("R", patients=patients, entities=(one["_id"],), fields=(name,)))
    metrics.REVEALS.labels(of.name, caller.purpose).inc(len(having))
    return [_open(keys, of, one, name) for one in having]


def _documents(of: Domain, wanted: str) -> list[dict[str, Any]]:
    """The document of that id, or all of the event of that id."""
    try:
        with client() as server:
            answer = server.search(
                index=of.alias,
                query={"bool": {"should": [{"ids": {"values": [wanted]}}, {"term": {"event_id": wanted}}]}},
                sort=[{"part": "asc"}],
                size=PARTS_READ,
                source_includes=["sealed", "sealed_by", "patient_ref", "kind", "part"],
            )
    except ConnectionLost as error:
        raise away(error) from None
    found: list[dict[str, Any]] = answer["hits"]["hits"]
    exact = [one for one in found if one["_id"] == wanted]
    found = exact or [one for one in found if one["_source"]["part"] >= 0]  # entities are named by their own id
    if not found:
        raise UsageError(f"there is no event or document {wanted!r} in {of.name}")
    return found


def _open(keys: KeyStore, of: Domain, document: dict[str, Any], name: str) -> Revealed:
    source, made = document["_source"], document["_id"]
    sealed = source["sealed"][name]
    if isinstance(sealed, list):  # members of staff, each under his or her own key
        values = [_clear(keys, of, made, name, one["ref"], one["seal"]) for one in sealed]
    else:
        values = [_clear(keys, of, made, name, source.get("patient_ref") or source["sealed_by"], sealed)]
    return Revealed(made, source["kind"], name, values)


def _clear(keys: KeyStore, of: Domain, made: str, name: str, ref: str, sealed: str) -> str:
    return open_field(keys.of_ref(ref, field_key_version(sealed)), of.name, made, name, sealed)
