"""Storage commitment, push model (PS3.4 J): what a peer asks about is told from what is really stored by then.

A request is on the disk, sealed, before it is answered with 0000H. Its report goes over the same association where that
is still open, else to the address that the peer's profile has, again and again until the peer has taken it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import orjson
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.dsutils import encode
from pynetdicom.presentation import build_role

from infra import metrics, tls
from infra.errors import BadMessage, WardstreamError
from infra.settings import settings
from producers.imaging import Images
from producers.instances import Commitment, InstancesBusy, Kept
from schemas.wire import dicom_header
from schemas.wire.dicom_elements import Elements, dataset, uid
from schemas.wire.dimse import COMMITMENT, COMMITMENT_INSTANCE, EXPLICIT, IMPLICIT, NO_SUCH_INSTANCE

logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)  # it says what a peer has sent
FEED = "dicom"
MOST_BYTES = 1 << 22  # of a request: some 25,000 instances
ASSOCIATION_SECONDS = 60.0  # a report over the peer's own association is waited for so long
LOOK_SECONDS = 1.0
SEND_SECONDS = 5.0  # for each step of an association of our own: the node may have to end meanwhile
LONGEST_WAIT = 3600.0
MOST_TRIES = 40  # with that wait a day and a half
SEALED = b"storage commitment"

ALL_STORED, SOME_FAILED = 1, 2  # event types (PS3.4 J.3.3)
OTHER_CLASS = 0x0119  # (0008,1197)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a peer wants to be sure of: SOP class and instance of each."""

    transaction: str = field(repr=False)
    instances: tuple[tuple[str, str], ...] = field(repr=False)


def read(data: bytes, syntax: str) -> Asked:
    """Raises BadMessage."""
    elements = Elements(syntax)  # pydicom recurses: it is walked first
    elements.feed(data)
    elements.finish()
    ds = dataset(data, syntax)
    transaction = dicom_header.uid(ds, "TransactionUID")
    found = tuple(
        (dicom_header.uid(one, "ReferencedSOPClassUID"), dicom_header.uid(one, "ReferencedSOPInstanceUID"))
        for one in dicom_header.items(ds, "ReferencedSOPSequence")
    )
    if not (found and all(map(uid, (transaction, *(said for one in found for said in one))))):
        raise BadMessage("missing_uid")
    return Asked(transaction, found)


def remember(asked: Asked, images: Images, calling: str, called: str) -> int:
    """On the disk when this returns its number."""
    said = orjson.dumps([asked.transaction, asked.instances])
    version, sealed = images.keyring.wrap(SEALED, said)
    return images.instances.ask(calling, called, version, sealed, time.time() + ASSOCIATION_SECONDS)


def report(asked: Asked, images: Images) -> tuple[int, Dataset]:
    """Event type and event information (PS3.4 J.3.3), as things are now."""
    stored: list[Dataset] = []
    failed: list[Dataset] = []
    for sop_class, instance in asked.instances:
        said = Dataset()
        said.ReferencedSOPClassUID, said.ReferencedSOPInstanceUID = sop_class, instance
        if reason := _failure(images, sop_class, images.instances.of(images.hashed("instance", instance))):
            said.FailureReason = reason
        (failed if reason else stored).append(said)
    made = Dataset()
    made.TransactionUID = asked.transaction
    if stored:
        made.ReferencedSOPSequence = stored
    if failed:
        made.FailedSOPSequence = failed
    return SOME_FAILED if failed else ALL_STORED, made


def _failure(images: Images, sop_class: str, known: Iterable[Kept]) -> int:
    """0: it is stored."""
    durable = [one for one in known if one.event_id and images.stored(one)]
    if not durable:
        return NO_SUCH_INSTANCE
    wanted = images.hashed("class", sop_class)
    return 0 if any(one.sop_class == wanted for one in durable) else OTHER_CLASS


def encoded(ds: Dataset, syntax: str) -> bytes:
    """In the transfer syntax of a context, which is one of the uncompressed little endian ones."""
    made = encode(ds, syntax == IMPLICIT, True)
    assert made is not None
    return made


async def deliver(images: Images, stop: asyncio.Event) -> None:
    """Bring the reports that no association took to their peers, until `stop`."""
    while not stop.is_set():
        with suppress(InstancesBusy):
            for one in await images.aside(images.instances.due, time.time()):
                if stop.is_set():
                    return
                await images.aside(_try, images, one)
        try:
            await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
        except TimeoutError:
            continue


def _try(images: Images, one: Commitment) -> None:
    """One attempt; whatever comes of it is noted. A peer without an address may ask again."""
    address = images.peers.of(one.calling, "").address
    try:
        transaction, found = orjson.loads(images.keyring.unwrap(one.version, SEALED, one.asked))
        asked = Asked(transaction, tuple((sop_class, instance) for sop_class, instance in found))
        taken = bool(address) and _send(address, one, *report(asked, images))
    except (WardstreamError, OSError, ValueError):  # the store is away, or the peer's name is none
        taken = False
    metrics.ANSWERED.labels(FEED, "N-EVENT-REPORT", "" if taken else "not_taken").inc()
    if taken or not address or one.tries >= MOST_TRIES:
        images.instances.answered(one.number)
    else:
        images.instances.later(one.number, time.time() + min(LONGEST_WAIT, 2.0**one.tries))


def _send(address: str, one: Commitment, event: int, said: Dataset) -> bool:
    """Over an association of our own, in which we stay the provider (PS3.4 J.3.3, PS3.7 D.3.3.4)."""
    host, _, port = address.rpartition(":")
    of = settings()
    context = tls.client_context(of.tls_client_ca, of.tls_cert, of.tls_key) if of.tls_cert else None
    entity = AE(one.called)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = SEND_SECONDS
    entity.add_requested_context(COMMITMENT, [EXPLICIT, IMPLICIT])
    role = build_role(COMMITMENT, scu_role=False, scp_role=True)
    association = entity.associate(
        host, int(port), ae_title=one.calling, ext_neg=[role], tls_args=(context, host) if context else None
    )
    if not association.is_established:
        return False
    try:
        status, _ = association.send_n_event_report(said, event, COMMITMENT, COMMITMENT_INSTANCE)
    finally:
        association.release()
    return bool("Status" in status and status.Status == 0)
