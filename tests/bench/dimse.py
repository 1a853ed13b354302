"""C-STORE of 512 x 512 CT images by DCMTK's storescu, to our node and to others; and one image of 2 GB.

    python tests/bench/dimse.py [--images N] [--port P]    # peers, and a node that runs at P

The client is the same and cheap: it makes up a new SOP Instance UID for every image that it sends, so that nobody has
seen one before. Ours answers once the object is sealed and on the disk, and the broker has confirmed the event. Orthanc
fsyncs its files too, DCMTK's storescp does not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil

from schemas.wire import dimse
from tests import images
from tests.node import Raw, listens
from tests.ports import free_port

SIDE = 512
FRAME = 2048  # rows and columns of the large one: 8 MiB a frame
FRAMES = 256
LINES = (1, 8)  # associations
# DCMTK, and so Orthanc, waits 40 ms with each answer for more to send (Nagle's algorithm) unless it is told not to. Our
# client is told; the others' nodes are measured as they come, and at their best (`_nodelay`).
QUICK = os.environ | {"TCP_NODELAY": "1"}
CLIENT = ("storescu", "-R", "-pdu", "131072", "+II", "+sd")


def folder_of(folder: Path, count: int) -> int:
    """CT images of noise, as hard to compress as an image can be; gives the bytes of one."""
    chance = np.random.default_rng(1)
    for number in range(count):
        ds = images.header("CT", images.CT, number, "4711", f"bench{number % 4}")
        images.pixels(ds, chance.integers(-1000, 3000, (SIDE, SIDE)).astype("int16"), 16)
        (folder / f"{number:04}.dcm").write_bytes(images.part10(ds))
    return (folder / "0000.dcm").stat().st_size


def rate(port: int, title: str, folder: Path, associations: int) -> float:
    """Images a second. Raises RuntimeError where one was not taken."""
    count = len(list(folder.iterdir()))
    command = [*CLIENT, "-aec", title, "127.0.0.1", str(port), str(folder)]
    started = time.perf_counter()
    sending = [
        subprocess.Popen(command, env=QUICK, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(associations)
    ]
    said = [one.communicate()[1] for one in sending]
    seconds = time.perf_counter() - started
    if any(one.returncode for one in sending) or any(b"E: " in one for one in said):
        raise RuntimeError(f"{title}: an image was not taken")
    return count * associations / seconds


@contextmanager
def server(command: list[str], port: int, folder: Path, quick: bool) -> Iterator[None]:
    silent, environment = subprocess.DEVNULL, QUICK if quick else None
    running = subprocess.Popen(command, cwd=folder, env=environment, stdout=silent, stderr=silent)
    try:
        deadline = time.monotonic() + 30
        while not listens(port):
            if running.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not listen")
            time.sleep(0.1)
        yield
    finally:
        running.terminate()
        running.wait(20)


@contextmanager
def peers(folder: Path) -> Iterator[dict[str, int]]:
    """Ports of others' nodes, as far as they are installed."""
    with ExitStack() as stack:
        found = {}
        for command, name in ((_storescp, "dcmtk"), (_orthanc, "orthanc")):
            for quick in (False, True):
                place, port = folder / f"{name}{quick}", free_port()
                place.mkdir()
                said = command(place, port)
                if shutil.which(said[0]):
                    stack.enter_context(server(said, port, place, quick))
                    found[name + "_nodelay" * quick] = port
        yield found


def _storescp(folder: Path, port: int) -> list[str]:
    return ["storescp", "--fork", "-pdu", "131072", "-od", str(folder), str(port)]


def _orthanc(folder: Path, port: int) -> list[str]:
    config = folder / "orthanc.json"
    said = {
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "HttpPort": free_port(),
        "DicomPort": port,
        "DicomThreadsCount": 8,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [],
    }
    config.write_text(json.dumps(said))
    return ["Orthanc", str(config)]


def rows(folder: Path, ours: int, count: int = 200) -> Iterator[tuple[str, float]]:
    """Images a second of every node, in turns; MB a second of ours."""
    source = folder / "images"
    source.mkdir()
    size = folder_of(source, count)
    with peers(folder) as others:
        for lines in LINES:
            for name, port in {"ours": ours, **others}.items():
                title = {"ours": "WARDSTREAM"}.get(name, "ANY")
                rate(port, title, source, 1)  # warm
                found = rate(port, title, source, lines)
                yield f"dicom_{name}_{lines}", found
                if name == "ours":
                    yield f"dicom_mb_{lines}", found * size / 1e6
    shutil.rmtree(source)


def large(port: int, node: psutil.Process) -> Iterator[tuple[str, float]]:
    """One image of 2 GB that its sender makes as it sends: what it adds to the node's resident memory, and its rate."""
    frame = np.random.default_rng(1).integers(0, 4096, (FRAME, FRAME), dtype=np.uint16).tobytes()
    ds = images.header("XA", "1.2.840.10008.5.1.4.1.1.12.1", time.time_ns(), "4711", "large")
    images.pixels(ds, np.zeros((2, 2), np.uint16), 12, NumberOfFrames=FRAMES, Rows=FRAME, Columns=FRAME)
    ds.Rows = ds.Columns = FRAME
    head = images.part10(ds)
    head = head[head.index(b"\x08\x00\x05\x00CS") : head.index(b"\xe0\x7f\x10\x00OW") + 8]
    head += (len(frame) * FRAMES).to_bytes(4, "little")
    with _resident(node) as most, Raw(port, ds.SOPClassUID) as peer:
        before = node.memory_info().rss
        started = time.perf_counter()
        peer.announce(ds.SOPInstanceUID)
        peer.fragment(head, 0)
        step = 1 << 16
        for number in range(FRAMES):
            for at in range(0, len(frame), step):
                last = number == FRAMES - 1 and at + step >= len(frame)
                peer.fragment(frame[at : at + step], dimse.LAST if last else 0)
        status, reason = peer.answer()
        seconds = time.perf_counter() - started
        if status:
            raise RuntimeError(f"the large image was refused: {reason}")
        yield "dicom_large_mb", len(frame) * FRAMES / 1e6 / seconds
        yield "dicom_large_memory", (most() - before) / 2**20


@contextmanager
def _resident(process: psutil.Process) -> Iterator[Callable[[], int]]:
    """The most resident memory that the process was seen with."""
    seen, over = [process.memory_info().rss], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            seen.append(process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield lambda: max(seen)
    finally:
        over.set()
        watching.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--port", type=int, required=True, help="of a node of ours")
    parser.add_argument("--pid", type=int, help="its process: then the image of 2 GB too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, value in rows(Path(folder), given.port, given.images):
            print(f"{name} {value:.1f}", flush=True)
    if given.pid:
        for name, value in large(given.port, psutil.Process(given.pid)):
            print(f"{name} {value:.1f}", flush=True)


if __name__ == "__main__":
    main()
