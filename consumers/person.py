"""Whom somebody means by what he or she has typed."""

from __future__ import annotations

import re

from elasticsearch import ApiError
from elasticsearch import ConnectionError as ConnectionLost

from infra.crypto import blind_term
from infra.elastic import client
from infra.errors import KeyMissing, KeyShredded, StackDown, UsageError
from infra.keystore import KeyStore
from schemas.registry import DOMAINS, Domain

OWN = ("identifiers", "ssn")  # numbers of the patient alone: a visit's, an order's, a relative's lead to others
MOST = 1000
_REFERENCE = re.compile(r"[0-9a-f]{32}")


def refs(identifier: str) -> set[str]:
    """Every reference of one person: the survivor with all that were merged into it.

    Takes a reference, `authority|type|value`, or a number alone, which is looked up in the indices by its keyed hash.
    Raises UsageError for nobody, so that an unknown person is never taken for an erased one; for several persons,
    saying how many; and StackDown where a number alone is asked for and no index answers.
    """
    keyring, store = KeyStore.local()
    parts = tuple(part.strip() for part in identifier.split("|"))
    if len(parts) == 3:
        found = store.refs_of([parts])
    elif len(parts) > 1 or not parts[0]:
        raise UsageError("a person is a reference, authority|type|value, or a number")
    elif _REFERENCE.fullmatch(identifier) and _known(store, identifier):
        found = {identifier}
    else:
        found = {ref for of in DOMAINS.values() for ref in _by_number(of, parts[0], list(keyring.blinds.values()))}
    persons = {store.survivor(ref) for ref in found}
    if not persons:
        raise UsageError("nobody is known by this: it is no reference, and no number of a patient")
    if len(persons) > 1:
        raise UsageError(f"{len(persons)} persons have this number: say authority|type|value")
    return store.family(persons.pop())


def _known(store: KeyStore, ref: str) -> bool:
    try:
        store.of_ref(ref)
    except KeyShredded:
        return True
    except KeyMissing:
        return False
    return True


def _by_number(of: Domain, value: str, keys: list[bytes]) -> set[str]:
    terms = [blind_term(key, name, value) for name in OWN if name in of.sought() for key in keys]
    try:
        with client() as server:
            answer = server.search(
                index=of.alias,
                query={"bool": {"filter": [{"terms": {"blind": terms}}]}},
                aggs={"persons": {"terms": {"field": "patient_ref", "size": MOST}}},
                size=0,
            )
    except ConnectionLost:
        raise StackDown("Elasticsearch does not answer: say authority|type|value, or a reference") from None
    except ApiError as error:
        raise StackDown(
            f"Elasticsearch answers {error.status_code}: say authority|type|value, or a reference"
        ) from None
    return {bucket["key"] for bucket in answer["aggregations"]["persons"]["buckets"]}
