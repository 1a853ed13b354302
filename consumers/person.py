"""Whom somebody means: a reference, authority|type|value, or a bare number, to the references of that one person."""

from __future__ import annotations

from elasticsearch import ApiError
from elasticsearch import ConnectionError as ConnectionLost

from infra.crypto import blind_term
from infra.elastic import client
from infra.errors import StackDown, UsageError
from infra.keystore import KeyStore
from schemas.registry import DOMAINS

NUMBERS = ("identifiers", "ssn", "account_number")  # of the patient, and not of an order or a relative


def family(said: str, keys: KeyStore) -> frozenset[str]:
    """Every reference of the person meant, aliases included. Raises UsageError for nobody, and for more than one.

    An unknown person is an error, never "erased". A bare number is looked up in the indices by its keyed hash.
    """
    parts = said.split("|")
    if len(parts) == 3:
        refs = keys.refs_of([(parts[0], parts[1], parts[2])])
    elif keys.known(said):
        refs = {said}
    else:
        refs = _by_number(said, keys)
    persons = {frozenset(keys.family(ref)) for ref in refs}
    if not persons:
        raise UsageError("nobody is known by that: give a reference, authority|type|value, or a number of the patient")
    if len(persons) > 1:
        raise UsageError(f"that number belongs to {len(persons)} persons: say authority|type|value")
    return persons.pop()


def ref(said: str, keys: KeyStore) -> str:
    """The surviving reference of the person meant. Raises UsageError as `family` does."""
    return keys.survivor(next(iter(family(said, keys))))


def _by_number(said: str, keys: KeyStore) -> set[str]:
    found: set[str] = set()
    for domain in DOMAINS.values():
        fields = [name for name in NUMBERS if name in domain.sought()]
        terms = [blind_term(key, name, said) for key in keys.keyring.blinds.values() for name in fields]
        try:
            with client() as server:
                answer = server.search(
                    index=domain.alias,
                    query={"bool": {"filter": [{"terms": {"blind": terms}}, {"exists": {"field": "patient_ref"}}]}},
                    aggs={"persons": {"terms": {"field": "patient_ref", "size": 50}}},
                    size=0,
                )
        except ConnectionLost:
            raise StackDown("Elasticsearch does not answer") from None
        except ApiError as error:
            raise StackDown(f"Elasticsearch answers {error.status_code}") from None
        found |= {bucket["key"] for bucket in answer["aggregations"]["persons"]["buckets"]}
    return found
