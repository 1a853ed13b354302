"""The node on the real stack: a sender that resends after every kill, and what then lies in the index and the store."""

from __future__ import annotations

import itertools
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.elastic import client
from infra.kafka import lag
from infra.objects import Objects
from schemas.registry import DOMAINS
from schemas.wire import dimse
from tests import images
from tests.conftest import ROOT, WARDSTREAM
from tests.node import Raw, has, listens, tool
from tests.ports import free_port
from tests.test_dimse import plain

IMAGES = 300
KILLS = 5
INSTANCES = DOMAINS["imaging"]


def wait(so: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Receiver:
    """`wardstream produce dicom` as its own process, which can be killed and started again at its port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        command = [*WARDSTREAM, "produce", "dicom", "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        wait(lambda: listens(self.port))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0


@contextmanager
def receiving() -> Iterator[Receiver]:
    made = Receiver()
    try:
        yield made
        made.stop()
    finally:
        made.process.kill()


def documents(facility: str) -> list[dict[str, Any]]:
    """The instances of a house, once all that was published has been indexed."""
    wait(lambda: not any(one.events for one in lag(INSTANCES.raw.name).values()))
    with client() as server:
        server.indices.refresh(index=INSTANCES.alias)
        query = {"bool": {"filter": [{"term": {"kind": "instance"}}, {"term": {"facility": facility}}]}}
        found = server.search(index=INSTANCES.alias, query=query, size=10_000)
        return [hit["_source"] for hit in found["hits"]["hits"]]


def test_a_killed_receiver_loses_nothing_and_doubles_nothing(stack: Path) -> None:
    """Whatever was answered with 0000H is there, once, however often the process was killed in between."""
    todo = {one.SOPInstanceUID: plain(one) for one in (_slice(number) for number in range(IMAGES))}
    confirmed: set[str] = set()
    with receiving() as receiver:
        for kill in range(KILLS + 1):
            left = [name for name in todo if name not in confirmed]
            enough = IMAGES if kill == KILLS else len(left) // 3
            try:
                with Raw(receiver.port, images.CT) as peer:
                    for name, number in zip(left, itertools.count(1), strict=False):
                        if kill < KILLS and number == enough:  # while one is on its way
                            peer.announce(name)
                            peer.fragment(todo[name], dimse.LAST)
                            receiver.kill()
                            break
                        assert peer.store(name, todo[name]) == (dimse.SUCCESS, "")
                        confirmed.add(name)
            finally:
                if kill < KILLS:
                    receiver.start()
        assert confirmed == set(todo)
        again = list(todo)[:20]
        with Raw(receiver.port, images.CT) as peer:
            assert {peer.store(name, todo[name]) for name in again} == {(dimse.SUCCESS, "")}
    found = documents("Killed")
    assert len(found) == len({one["instance"] for one in found}) == IMAGES
    objects = Objects(str(stack / "objects"))
    assert all(objects.size(one["object"]) == one["object_bytes"] for one in found)


def _slice(number: int) -> Any:
    ds = images.ct(number + 1000)
    ds.StudyInstanceUID, ds.InstitutionName = images.uid("killed"), "Killed"
    return ds


@pytest.mark.skipif(not has("storescu"), reason="DCMTK is not installed")
def test_dcmtk_to_the_index(stack: Path, tmp_path: Path) -> None:
    for number in range(5):
        ds = images.ct(number + 5000)
        ds.StudyInstanceUID, ds.InstitutionName = images.uid("by dcmtk"), "Bydcmtk"
        (tmp_path / f"{number}.dcm").write_bytes(images.part10(ds))
    with receiving() as receiver:
        sent = tool("storescu", "-R", "-aec", "WARDSTREAM", "+sd", "127.0.0.1", str(receiver.port), str(tmp_path))
        assert sent.returncode == 0, sent.stderr
    found = documents("Bydcmtk")
    assert len(found) == 5
    for one in found:
        assert (one["called_ae"], one["calling_ae"]) == ("WARDSTREAM", "STORESCU")


def test_files_end_in_a_manifest(manifest: Callable[[Path], list[dict[str, Any]]], stack: Path, tmp_path: Path) -> None:
    source = tmp_path / "discs"
    source.mkdir()
    ds = images.ct(6000)
    ds.InstitutionName = "Fromdisc"
    (source / "IM1").write_bytes(images.part10(ds))
    (source / "cut.dcm").write_bytes(images.part10(ds)[:-500])
    rows = {row["file"]: row for row in manifest(source)}
    assert (rows["IM1"]["outcome"], rows["IM1"]["message_type"]) == ("indexed", "CTImageStorage")
    assert (rows["cut.dcm"]["outcome"], rows["cut.dcm"]["reason"]) == ("refused", "truncated")
