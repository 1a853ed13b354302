"""kill -9 of receiver and worker at random moments while 2,000 images come, and then every confirmed one looked for.

    python tests/faults/images.py [--images N] [--kills N] [--seed N]

A sender sends each image until it is answered 0x0000, over a new association after each break, some again though they
were confirmed. Exit code 0 only when each confirmed image has just one document, whose object opens and holds the data
set that was sent, and when nothing is left of an event that nobody read.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from beds import PATIENCE_SECONDS, ROOT, WARDSTREAM, console, kill, run
from elasticsearch.helpers import scan
from pydicom.dataset import Dataset
from pynetdicom import AE

from consumers.access import permit
from consumers.imaging import Stored, stored
from infra.elastic import client
from infra.kafka import lag
from infra.objects import Objects
from schemas.registry import DOMAINS
from schemas.wire.dicom_elements import EXPLICIT, part10
from tests import images
from tests.ports import free_port

OF = DOMAINS["imaging"]
AT_ONCE, AGAIN = 3, 0.1  # associations; share of confirmed images that are sent once more
AHEAD_SECONDS = 120
PACE_SECONDS = 0.12  # from one image of an association to the next: all kills shall meet some


class Receiver:
    """`produce dicom` on one port, started again whenever it was killed."""

    def __init__(self, port: int) -> None:
        self.port, self.killed = port, 0
        self._start()

    def _start(self) -> None:
        command = [*WARDSTREAM, "produce", "dicom", "--port", str(self.port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.killed += 1
        self._start()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)


def made(number: int) -> Dataset:
    """Ten slices a study, three studies a patient."""
    return images.ct(number % 10 + 1, f"F{number // 30}", f"faults {number // 10}", 64)


def digest(ds: Dataset) -> str:
    data = images.part10(ds)
    return hashlib.sha256(data[part10(io.BytesIO(data)).offset :]).hexdigest()


def send(port: int, numbers: list[int], chance: random.Random, confirmed: set[int], broken: Counter[str]) -> None:
    """Until each is answered 0x0000."""
    waiting = list(numbers)
    deadline = time.monotonic() + PATIENCE_SECONDS + AHEAD_SECONDS
    while waiting:
        if time.monotonic() > deadline:
            raise SystemExit("images are not taken")
        ae = AE("FAULTS")
        ae.add_requested_context(images.CT, EXPLICIT)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
        association = ae.associate("127.0.0.1", port, ae_title="WARDSTREAM")
        if not association.is_established:
            broken["no association"] += 1
            time.sleep(0.3)
            continue
        while waiting and association.is_established:
            ds = made(waiting[0])
            images.part10(ds)
            time.sleep(PACE_SECONDS)
            try:
                status = association.send_c_store(ds)
            except RuntimeError:
                break
            if getattr(status, "Status", None) != 0x0000:
                broken[f"{getattr(status, 'Status', 0xFFFFF):04X}"] += 1
                break
            number = waiting.pop(0)
            confirmed.add(number)
            if chance.random() < AGAIN:
                waiting.insert(chance.randrange(len(waiting) + 1), number)
        if association.is_established:
            association.release()


def settle() -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while sum(one.events for one in lag(OF.raw.name).values()):
        if time.monotonic() > deadline:
            raise SystemExit("imaging is not taken to its end")
        time.sleep(0.3)


def documents(kind: str) -> Counter[str]:
    with client() as server:
        server.indices.refresh(index=OF.alias)
        found = scan(server, index=OF.alias, query={"query": {"term": {"kind": kind}}}, _source=["event_id"])
        return Counter(hit["_source"]["event_id"] for hit in found)


def opened(one: Stored) -> str:
    with Objects.local().open(one.claim) as file:
        data = file.read()
    return hashlib.sha256(data[part10(io.BytesIO(data)).offset :]).hexdigest()


def check(count: int) -> dict[str, Any]:
    events, looked = documents("instance"), documents("image")
    digests = Counter(opened(one) for one in stored(permit("image"), sorted(events)))
    wanted = Counter(digest(made(number)) for number in range(count))
    names = set(Objects.local().names())
    named = set()
    with client() as server:
        for hit in scan(server, index=OF.alias, query={"query": {"term": {"kind": "instance"}}}, _source=["object"]):
            named.add(hit["_source"]["object"])
    return {
        "documents": sum(events.values()),
        "documents_of_pixels": sum(looked.values()),
        "twice": sum(one > 1 for one in events.values()),
        "missing": sum((wanted - digests).values()),
        "too_many": sum((digests - wanted).values()),
        "objects": len(names),
        "objects_missing": len(named - names),
        "objects_of_the_killed": len(names - named),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=12, help="of each, the receiver and the worker")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    chance, folder = random.Random(given.seed), Path(tempfile.mkdtemp(prefix="wardstream-images-"))
    os.environ["WARDSTREAM_HOME"] = str(folder / "home")
    os.environ["WARDSTREAM_STUDY_QUIET_SECONDS"] = "2"
    console.print(f"seed {given.seed}, {given.images:,} images, {given.kills} kills of each", highlight=False)
    receiver = None
    try:
        run("up", "--detach")
        receiver = Receiver(free_port())
        confirmed, broken = set[int](), Counter[str]()
        shares = [list(range(begin, given.images, AT_ONCE)) for begin in range(AT_ONCE)]
        senders = [
            threading.Thread(target=send, args=(receiver.port, share, random.Random(given.seed + n), confirmed, broken))
            for n, share in enumerate(shares)
        ]
        for sender in senders:
            sender.start()
        for number in range(given.kills):
            aim = (number + chance.random()) * given.images / given.kills
            while len(confirmed) < aim and any(sender.is_alive() for sender in senders):
                time.sleep(0.05)
            receiver.kill()
            kill(chance)
            console.print(f"{number + 1}/{given.kills} killed, {len(confirmed):,} confirmed", highlight=False)
        for sender in senders:
            sender.join()
        settle()
        found = check(given.images)
        said = {"images": given.images, "kills": given.kills, "seed": given.seed, "confirmed": len(confirmed)}
        said |= {"answers_that_were_none": sum(broken.values())} | found
        print(json.dumps(said, indent=2))
        good = len(confirmed) == given.images == found["documents"] == found["documents_of_pixels"]
        return (
            0
            if good and not (found["twice"] or found["missing"] or found["too_many"] or found["objects_missing"])
            else 1
        )
    finally:
        if receiver is not None:
            receiver.stop()
        run("down")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
