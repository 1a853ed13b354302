"""From the first byte of an image to a document of its pixels that can be found, at a steady pace."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from pynetdicom import AE

from infra.crypto import keyed_hash
from infra.elastic import async_client
from infra.keyring import Keyring
from schemas.imaging import DOMAIN
from schemas.wire.dicom_elements import EXPLICIT
from tests import images

SIDE = 512
LOOK_SECONDS = 0.05


def searchable(port: int, pace: float, seconds: float, tag: str) -> list[float]:
    """CT slices of 512 x 512 from one association; seconds until each is found with what its pixels are like."""
    sent: dict[str, float] = {}
    count = int(pace * seconds)
    key = Keyring.local().event
    sending = threading.Thread(target=_send, args=(port, pace, count, tag, key, sent))
    sending.start()
    try:
        return asyncio.run(_watch(count, keyed_hash(key, b"study", images.uid(tag).encode())[:16].hex(), sent))
    finally:
        sending.join()


def _send(port: int, pace: float, count: int, tag: str, key: bytes, sent: dict[str, float]) -> None:
    made = [images.ct(number + 1, tag, tag, SIDE) for number in range(min(count, 32))]
    for one in made:
        images.part10(one)
    ae = AE("BENCH")
    ae.add_requested_context(images.CT, EXPLICIT)
    association = ae.associate("127.0.0.1", port, ae_title="WARDSTREAM")
    assert association.is_established
    begun = time.perf_counter()
    for number in range(count):
        ds = made[number % len(made)]
        ds.SOPInstanceUID = images.uid(tag, number)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        time.sleep(max(0.0, begun + number / pace - time.perf_counter()))
        sent[keyed_hash(key, b"instance", ds.SOPInstanceUID.encode())[:16].hex()] = time.perf_counter()
        status: Any = association.send_c_store(ds)
        assert status.Status == 0x0000
    association.release()


async def _watch(count: int, study: str, sent: dict[str, float]) -> list[float]:
    server = async_client()
    seen: dict[str, float] = {}
    deadline = time.perf_counter() + 300
    try:
        while len(seen) < count:
            if time.perf_counter() > deadline:
                raise SystemExit(f"{count - len(seen)} images are not found")
            filters = [{"term": {"study": study}}, {"term": {"kind": "image"}}]
            new = {"bool": {"filter": filters, "must_not": [{"terms": {"instance": list(seen)}}]}}
            found = await server.search(index=DOMAIN, query=new, size=1000, source_includes=["instance"])
            now = time.perf_counter()
            seen |= {hit["_source"]["instance"]: now for hit in found["hits"]["hits"]}
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await server.close()
    return [seen[one] - sent[one] for one in seen]
