"""Health records at the edge in FHIR: from a resource with its context to what the publisher needs to know."""

from __future__ import annotations

import hashlib
from datetime import datetime

from infra.errors import BadMessage
from infra.settings import settings
from producers.publish import Arrival
from schemas.peers import Peers
from schemas.wire.fhir import CONTENT_TYPE, Focus, canonical, dump
from streams.ehr import fhir, fhir_person

DOMAIN = "ehr"


def arrival(focus: Focus, name: str, peers: Peers, received_at: datetime) -> Arrival:
    """`name` stands for the sending system. Raises BadMessage for what stays with the sender.

    What makes it one event is the resource alone: in another bundle, with other context, it is a repeat.
    """
    source, peer, resource = f"fhir:{name}", peers.of(name, ""), focus.resource
    subjects, _ = fhir_person.subjects(focus, source, peer)
    body = dump(focus)
    if len(body) > settings().mllp_max_bytes:
        raise BadMessage("too_large")
    meta = resource.get("meta", {})
    version = meta.get("versionId") or meta.get("lastUpdated")
    id = resource.get("id")
    return Arrival(
        domain=DOMAIN,
        source=source,
        peer=peer.match,
        content_type=CONTENT_TYPE,
        charset="",
        ids=(resource["resourceType"], id, version) if id and version else (),  # else each content is its own version
        body=body,
        received_at=received_at,
        event_time=fhir.occurred(resource, peer),
        subjects=subjects,
        told=hashlib.sha256(canonical(resource)).digest(),
    )


def location(resource: dict[str, object], event_id: str) -> str:
    """Where the resource would be read, as http.html#create words it: the event is its version."""
    return f"{resource['resourceType']}/{resource.get('id', event_id)}/_history/{event_id}"
