"""The DICOM node over real connections: DCMTK, pynetdicom and bare sockets as its peers, a stand-in for the broker."""

from __future__ import annotations

import io
import socket
import sqlite3
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_files
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom import _config as pynetdicom_config

from infra.errors import BadMessage, UsageError
from infra.settings import settings
from producers.feeds import commitment
from producers.feeds.dicom import Clients, storage
from schemas.peers import Peer, Peers
from schemas.wire import dimse
from tests import images
from tests.node import TITLE, Raw, Running, client, has, status, tool

CT = images.CT
dcmtk = pytest.mark.skipif(not has("storescu"), reason="DCMTK is not installed")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path) as running:
        yield running


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets a WARDSTREAM_ variable for one test."""

    def put(name: str, value: str) -> None:
        monkeypatch.setenv(f"WARDSTREAM_{name}", value)
        settings.cache_clear()

    yield put
    monkeypatch.undo()
    settings.cache_clear()


def plain(ds: Dataset) -> bytes:
    """A data set as it goes over the wire, explicit and little endian."""
    whole = images.part10(ds)
    with io.BytesIO(whole) as file:
        pydicom.filereader.read_preamble(file, False)
        pydicom.filereader._read_file_meta_info(file)
        return file.read()


def data_set(file: bytes) -> bytes:
    """What follows the file meta information (PS3.10 7.1)."""
    with io.BytesIO(file) as one:
        pydicom.filereader.read_preamble(one, False)
        pydicom.filereader._read_file_meta_info(one)
        return one.read()


# ------------------------------------------------------------------------------------------------------------ messages


def test_a_command_goes_round() -> None:
    said = dimse.encode({dimse.FIELD: dimse.C_STORE, dimse.MESSAGE: 7, dimse.AFFECTED_CLASS: CT, dimse.STATUS: 0xA900})
    read = dimse.command(said)
    assert (read.field, read.message, read.sop_class, read.number(dimse.STATUS)) == (1, 7, CT, 0xA900)
    for cut in (1, 11, 13, 19, 21, len(said) - 1):  # within an element: its tag, its length, its value
        with pytest.raises(BadMessage, match="bad_command"):
            dimse.command(said[:cut])


def test_fragments_keep_to_what_the_peer_takes() -> None:
    units = list(dimse.fragments(3, b"x" * 1000, dimse.COMMAND, 100))
    assert {len(one) - 6 for one in units[:-1]} == {100}
    assert [one[11] & dimse.LAST for one in units] == [0] * (len(units) - 1) + [dimse.LAST]
    assert b"".join(one[12:] for one in units) == b"x" * 1000


@pytest.mark.parametrize("reason", dimse.REFUSALS)
def test_each_reason_has_a_status_of_its_own(reason: str) -> None:
    same = [one for one, code in dimse.REFUSALS.items() if code == dimse.REFUSALS[reason]]
    assert same == [reason]


# ------------------------------------------------------------------------------------------------------- what is stored


def test_an_instance_is_there_once_answered(node: Running) -> None:
    ds = images.ct(1)
    association = client(node.port, [(CT, [ExplicitVRLittleEndian])])
    assert status(association.send_c_store(_prepared(ds))) == dimse.SUCCESS
    association.release()
    (event,) = node.events()
    assert (event.calling, event.called, event.syntax) == ("MODALITY", TITLE, ExplicitVRLittleEndian)
    assert data_set(node.content(event)) == plain(images.ct(1))
    meta = pydicom.dcmread(io.BytesIO(node.content(event)), stop_before_pixels=True).file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, ds.SOPInstanceUID)
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert node.stored() == {event.claim.name}


def _prepared(ds: Dataset) -> Dataset:
    return pydicom.dcmread(io.BytesIO(images.part10(ds)))


def test_nothing_lies_in_clear(node: Running, tmp_path: Path) -> None:
    ds = images.ct(1)
    with Raw(node.port, CT) as peer:
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
    raw = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    raw += b"".join((one.value or b"") + (one.key or b"") for one in node.broker.sent)
    raw += repr([one.headers for one in node.broker.sent]).encode()
    for said in (ds.PatientID, str(ds.PatientName), ds.SOPInstanceUID, ds.StudyInstanceUID, ds.AccessionNumber):
        assert str(said).encode() not in raw


def test_echo(node: Running) -> None:
    association = client(node.port, [(dimse.VERIFICATION, [ExplicitVRLittleEndian])])
    assert status(association.send_c_echo()) == dimse.SUCCESS
    association.release()


@dcmtk
def test_echoscu(node: Running) -> None:
    assert tool("echoscu", "-aec", TITLE, "127.0.0.1", str(node.port)).returncode == 0
    assert tool("echoscu", "-aec", "OTHER", "127.0.0.1", str(node.port)).returncode != 0


SHORT: frozenset[str] = frozenset()  # of fewer pixels than their header says


# Without a SOP Instance UID there is nothing to announce (PS3.7 9.1.1.1.4).
def _sendable() -> Iterator[Path]:
    for name in get_testdata_files():
        path = Path(name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ds = pydicom.dcmread(path)
                named = ds.get("SOPInstanceUID") and "TransferSyntaxUID" in ds.file_meta
                if named and storage(str(ds.get("SOPClassUID"))):
                    yield path
        except Exception:  # it is no file that pydicom reads
            continue


def test_every_real_file_comes_back_byte_for_byte(node: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that pydicom and pydicom-data have, each in its own syntax, its bytes sent as they are."""
    monkeypatch.setattr(pynetdicom_config, "STORE_SEND_CHUNKED_DATASET", True)
    sent, syntaxes = set(), set()
    for path in _sendable():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path, stop_before_pixels=True)
        syntax = str(ds.file_meta.TransferSyntaxUID)
        association = client(node.port, [(ds.SOPClassUID, [syntax])])
        assert association.is_established, path.name
        got = status(association.send_c_store(path))
        association.release()
        if "truncated" in path.name:
            assert got == dimse.REFUSALS["truncated"], path.name
        elif (
            ds.file_meta.MediaStorageSOPInstanceUID != ds.SOPInstanceUID
        ):  # pynetdicom announces what the file meta says
            assert got == dimse.REFUSALS["other_instance"], path.name
        else:
            assert got in (dimse.SUCCESS, dimse.PIXEL_LENGTH), (path.name, hex(got))
            assert got == dimse.SUCCESS or path.name in SHORT, path.name
            sent.add(data_set(path.read_bytes()))
            syntaxes.add(syntax)
    assert len(sent) > 150
    assert len(syntaxes) >= 12
    stored = [data_set(node.content(event)) for event in node.events()]
    assert sorted(stored) == sorted(sent)


# --------------------------------------------------------------------------------------------------------- what is not


def refusals() -> dict[str, tuple[str, bytes, str]]:
    """By reason: the instance that is announced, the data set, the class."""
    ds = images.ct(1)
    whole, instance = plain(ds), str(ds.SOPInstanceUID)
    nameless = images.ct(1)
    del nameless.SOPInstanceUID
    return {
        "truncated": (instance, whole[:-100], ""),
        "other_instance": ("1.2.3", whole, ""),
        "bad_uid": ("../../etc/passwd", whole, ""),
        "class_not_supported": (instance, whole, images.MR),
        "missing_uid": (instance, _without(ds, "SOPInstanceUID"), ""),
    }


def _without(ds: Dataset, keyword: str) -> bytes:
    whole = plain(ds)
    element = ds[keyword]
    value = str(element.value).encode()
    value += b"\0" * (len(value) % 2)
    tag = bytes([element.tag.group & 255, element.tag.group >> 8, element.tag.elem & 255, element.tag.elem >> 8])
    raw = tag + b"UI" + len(value).to_bytes(2, "little") + value
    assert whole.count(raw) == 1
    return whole.replace(raw, b"")


@pytest.mark.parametrize("reason", refusals())
def test_each_refusal_has_its_status_and_leaves_nothing(node: Running, reason: str) -> None:
    instance, data, sop_class = refusals()[reason]
    with Raw(node.port, CT) as peer:
        assert peer.store(instance, data, sop_class) == (dimse.REFUSALS[reason], reason)
        good = images.ct(2)
        assert peer.store(good.SOPInstanceUID, plain(good)) == (dimse.SUCCESS, ""), "the association goes on"
    assert {one.claim.name for one in node.events()} == node.stored()
    assert len(node.stored()) == 1


def test_what_would_overwhelm_a_reader(node: Running) -> None:
    """Sequences 240 deep, at which pydicom recurses to its end; 100 KB that inflate to 100 MB."""
    deep = (b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 240
    with Raw(node.port, CT) as peer:
        assert peer.store(images.ct(1).SOPInstanceUID, deep) == (dimse.REFUSALS["too_deep"], "too_deep")
    small = zlib.compressobj(9, wbits=-15)
    bomb = small.compress(b"\x09\x00\x01\x10OB\0\0" + (100_000_000).to_bytes(4, "little") + bytes(100_000_000))
    with Raw(node.port, CT, DeflatedExplicitVRLittleEndian) as peer:
        got = peer.store(images.ct(1).SOPInstanceUID, bomb + small.flush())
        assert got == (dimse.REFUSALS["inflates_too_much"], "inflates_too_much")
    assert not node.stored()


def test_who_was_erased_does_not_come_back(node: Running) -> None:
    ds = images.ct(1)
    with Raw(node.port, CT) as peer:
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
        refs = node.keys.refs_of([(ds.IssuerOfPatientID, "MR", ds.PatientID)])
        assert refs
        node.keys.mark_erased(refs, time.time())
        node.keys.destroy(refs)
        kept = node.stored()
        late = images.ct(2)
        assert peer.store(late.SOPInstanceUID, plain(late)) == (dimse.REFUSALS["erased"], "erased")
        assert node.stored() == kept


def test_a_class_that_is_announced_and_is_not_there(node: Running) -> None:
    ds = images.mr()
    with Raw(node.port, CT) as peer:
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.REFUSALS["other_class"], "other_class")
    assert not node.stored()


def test_pixels_that_are_too_few_are_stored_with_a_warning(node: Running) -> None:
    ds = images.ct(1)
    ds.PixelData = ds.PixelData[:100]
    with Raw(node.port, CT) as peer:
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.PIXEL_LENGTH, "pixel_length")
    (event,) = node.events()
    assert "pixel_length" in event.flags


def test_who_has_no_study_and_no_number_is_taken_under_the_instance(node: Running) -> None:
    ds = images.ct(1)
    del ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID
    with Raw(node.port, CT) as peer:
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
    (event,) = node.events()
    assert set(event.flags) == {"no_patient_id", "no_study_uid"}
    assert event.study


def test_the_broker_is_away(node: Running) -> None:
    node.broker.failures = 1
    ds = images.ct(1)
    with Raw(node.port, CT) as peer:
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (0xA701, "broker_unavailable")
        assert len(node.stored()) == 1, "the broker may have it: what its event names stays"
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
    (event,) = node.events()
    assert node.stored() == {event.claim.name}


def test_what_was_published_keeps_its_object_whatever_fails_then(node: Running) -> None:
    ds = images.ct(1)
    with Raw(node.port, CT) as peer:
        node.hold(True)
        peer.socket.settimeout(60)
        answers: list[tuple[int, str]] = []
        asking = threading.Thread(target=lambda: answers.append(peer.store(ds.SOPInstanceUID, plain(ds))))
        asking.start()
        while not node.stored():
            time.sleep(0.05)
        time.sleep(0.5)
        with sqlite3.connect(node.home / "instances.sqlite", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            node.hold(False)
            asking.join(60)
            other.execute("ROLLBACK")
        assert answers == [(dimse.OUT_OF_RESOURCES, "instances_busy")]
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
    (event,) = node.events()
    assert node.stored() == {event.claim.name}


def test_another_content_is_none_beside_what_was_erased(node: Running, setting: Any) -> None:
    setting("DICOM_CONFLICT", "refuse")
    ds = images.ct(1)
    with Raw(node.port, CT) as peer:
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
        node.objects.remove([one.claim.name for one in node.events()])
        ds.SeriesDescription = "again"
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
        ds.SeriesDescription = "once more"
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (0x0111, "duplicate_instance")


def test_the_disk_is_full(node: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = images.ct(1)
    with Raw(node.port, CT) as peer:
        folder = node.home / "objects"
        folder.rename(node.home / "elsewhere")
        folder.write_bytes(b"")  # no folder: nothing can be made in it
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (0xA705, "out_of_storage")
        folder.unlink()
        (node.home / "elsewhere").rename(folder)
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")


# -------------------------------------------------------------------------------------------------- the same, and other


def test_the_same_again_is_a_success_and_no_event(node: Running) -> None:
    ds = images.ct(1)
    with Raw(node.port, CT, calling="ONE") as peer:
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
    with Raw(node.port, CT, calling="TWO") as peer:
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
    assert len(node.events()) == len(node.stored()) == 1


def test_the_same_at_the_same_time_is_one_event(node: Running) -> None:
    ds = images.ct(1)
    data, start = plain(ds), threading.Barrier(8)

    def send() -> tuple[int, str]:
        with Raw(node.port, CT) as peer:
            start.wait()
            return peer.store(ds.SOPInstanceUID, data)

    with ThreadPoolExecutor(8) as pool:
        ends = [one.result() for one in [pool.submit(send) for _ in range(8)]]
    assert set(ends) == {(dimse.SUCCESS, "")}
    assert len(node.events()) == len(node.stored()) == 1


def other(ds: Dataset) -> Dataset:
    made = images.ct(1)
    made.SOPInstanceUID = ds.SOPInstanceUID
    made.PatientName = "Somebody^Else"
    return made


@pytest.mark.parametrize("policy", ["refuse", "keep"])
def test_another_content_under_the_same_name(node: Running, setting: Any, policy: str) -> None:
    setting("DICOM_CONFLICT", policy)
    ds = images.ct(1)
    with Raw(node.port, CT) as peer:
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
        end = peer.store(ds.SOPInstanceUID, plain(other(ds)))
    assert end == ((0x0111, "duplicate_instance") if policy == "refuse" else (dimse.SUCCESS, ""))
    assert node.audited() == [("image", "instance_conflict")]
    events = node.events()
    assert len(events) == len(node.stored()) == (1 if policy == "refuse" else 2)
    assert ("instance_conflict" in events[-1].flags) == (policy == "keep")


def test_an_object_that_is_lost_is_stored_anew(node: Running) -> None:
    ds = images.ct(1)
    with Raw(node.port, CT) as peer:
        peer.store(ds.SOPInstanceUID, plain(ds))
        (first,) = node.stored()
        node.objects.remove([first])
        assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
    (left,) = node.stored()
    assert left == node.events()[-1].claim.name != first


def test_what_a_dead_process_had_published_is_found(tmp_path: Path) -> None:
    """It was killed between the broker's word and its own note: the event stands, and names the first object."""
    ds = images.ct(1)
    with Running(tmp_path) as node, Raw(node.port, CT) as peer:
        peer.store(ds.SOPInstanceUID, plain(ds))
        (first,) = node.stored()
        node.images.instances._ask("UPDATE kept SET event_id = ''", ())
    with Running(tmp_path) as node:
        with Raw(node.port, CT) as peer:
            assert peer.store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
        assert node.stored() == {first}
        assert not node.events(), "published by the first"
        (kept,) = node.images.instances._ask("SELECT event_id FROM kept", ())
        assert kept[0]


# -------------------------------------------------------------------------------------------------------- associations


def test_whoever_breaks_off_leaves_nothing(node: Running) -> None:
    ds = images.ct(1)
    data = plain(ds)
    for end in ("close", "abort", "junk"):
        with Raw(node.port, CT) as peer:
            peer.announce(ds.SOPInstanceUID)
            peer.fragment(data[: len(data) // 2], 0)
            if end == "abort":
                peer.socket.sendall(dimse.abort())
            elif end == "junk":
                peer.socket.sendall(b"\xff" * 64)
                assert peer.unit()[0] in (dimse.ABORT, 0)
    with Raw(node.port, CT) as peer:
        assert peer.store(ds.SOPInstanceUID, data) == (dimse.SUCCESS, "")
    eventually(lambda: node.stored() == {one.claim.name for one in node.events()})
    assert len(node.events()) == 1


def eventually(so: Any) -> None:
    """The node notices the end of a connection a moment after its peer."""
    deadline = time.monotonic() + 20
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_flood_is_told_to_come_later(node: Running, setting: Any) -> None:
    setting("DICOM_ASSOCIATIONS", "2")
    peers = [Raw(node.port, CT) for _ in range(5)]
    assert [one.kind for one in peers] == [dimse.ASSOCIATE_AC] * 2 + [dimse.ASSOCIATE_RJ] * 3
    assert {one.body[1:] for one in peers[2:]} == {bytes((2, 3, 1))}
    ds = images.ct(1)
    assert peers[0].store(ds.SOPInstanceUID, plain(ds)) == (dimse.SUCCESS, "")
    peers[1].close()

    def admitted() -> bool:
        with Raw(node.port, CT) as one:
            return one.kind == dimse.ASSOCIATE_AC

    eventually(admitted)
    for one in peers:
        one.close()


def test_who_asks_for_nothing_is_left(node: Running, setting: Any) -> None:
    setting("DICOM_ACSE_SECONDS", "0.2")
    setting("DICOM_IDLE_SECONDS", "0.2")
    setting("DICOM_MESSAGE_SECONDS", "0.2")
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as silent:
        silent.sendall(b"\x01\x00\x00")
        assert silent.recv(100)[:1] == bytes([dimse.ABORT])
    with Raw(node.port, CT) as idle:
        assert idle.unit()[0] == dimse.ABORT
    with Raw(node.port, CT) as slow:
        slow.announce("1.2.3")
        slow.fragment(b"\x08\x00", 0)
        assert slow.unit()[0] == dimse.ABORT
    eventually(lambda: not node.stored())


REJECTED = {
    "called_ae": (("RAW", "NOBODY", 1), (1, 1, 7)),
    "calling_ae": (("STRANGER", TITLE, 1), (1, 1, 3)),
    "protocol_version": (("RAW", TITLE, 2), (1, 2, 2)),
}


@pytest.mark.parametrize("reason", REJECTED)
def test_rejections_are_answered_and_audited_once(tmp_path: Path, reason: str) -> None:
    (calling, called, version), wanted = REJECTED[reason]
    with Running(tmp_path, clients=("RAW@127.0.0.0/8",)) as node:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", node.port), timeout=20) as one:
                one.sendall(Raw.request([(1, CT, [ExplicitVRLittleEndian])], calling, called, version))
                assert one.recv(100) == dimse.pdu(dimse.ASSOCIATE_RJ, bytes((0, *wanted)))
        eventually(lambda: node.audited() == [("association", reason)])


def test_clients() -> None:
    clients = Clients.of(["CT1@10.0.0.7", "MR*@10.1.0.0/16", "*@::1"], "0.0.0.0")
    assert clients.admit("CT1", "10.0.0.7")
    assert clients.admit("MR7", "10.1.2.3")
    assert clients.admit("ANY", "::1")
    assert not clients.admit("CT1", "10.0.0.8")
    assert not clients.admit("CT", "10.0.0.7")
    assert not clients.admit("MR7", "10.2.0.1")
    assert Clients.of([], "127.0.0.1").admit("ANY", "127.0.0.1")
    for said, host in ((["CT1"], "127.0.0.1"), (["@10.0.0.1"], "127.0.0.1"), ([], "0.0.0.0")):
        with pytest.raises(UsageError):
            Clients.of(said, host)


def test_contexts_are_judged_one_by_one(node: Running) -> None:
    j2k = "1.2.840.10008.1.2.4.90"
    asked = [
        (1, CT, [j2k, ExplicitVRLittleEndian]),  # the first of the peer's
        (3, CT, ["1.2.3.4.5"]),
        (5, "1.2.840.10008.5.1.4.1.2.1.1", [ExplicitVRLittleEndian]),  # query: none of ours
        (7, "1.2.826.0.1.3680043.9.1", [ExplicitVRLittleEndian]),  # a vendor's own class
        (9, CT, ["1.2.3.4.5", j2k]),
    ]
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as one:
        one.sendall(Raw.request(asked, "RAW", TITLE))
        body = one.recv(10_000)
    found = {}
    at = 74
    while at < len(body):
        size = int.from_bytes(body[at + 2 : at + 4])
        if body[at] == 0x21:
            found[body[at + 4]] = (body[at + 6], body[at + 12 : at + 4 + size].decode())
        at += 4 + size
    assert found[1] == (0, j2k)
    assert found[3][0] == 4
    assert found[5][0] == 3
    assert found[7] == (0, ExplicitVRLittleEndian)
    assert found[9] == (0, j2k)


HOSTILE = {
    "nothing": b"",
    "a_web_request": b"GET / HTTP/1.0\r\n\r\n",
    "a_unit_of_4_gb": b"\x01\x00\xff\xff\xff\xff" + bytes(100),
    "data_before_an_association": dimse.pdu(dimse.P_DATA, b"\x00\x00\x00\x02\x01\x03"),
    "an_item_that_runs_over": dimse.pdu(dimse.ASSOCIATE_RQ, b"\x00\x01\x00\x00" + b"A" * 64 + b"\x10\x00\xff\xff1.2"),
    "a_short_request": dimse.pdu(dimse.ASSOCIATE_RQ, b"\x00\x01"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_association(node: Running, name: str) -> None:
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as one:
        one.sendall(HOSTILE[name])
        one.shutdown(socket.SHUT_WR)
        assert one.recv(100)[:1] in (b"", bytes([dimse.ABORT]))
    with Raw(node.port, CT) as peer:
        assert peer.kind == dimse.ASSOCIATE_AC


FRAGMENTS = {
    "of_another_context": lambda peer: peer.fragment(b"", dimse.COMMAND | dimse.LAST, context=99),
    "that_runs_over": lambda peer: peer.socket.sendall(dimse.pdu(dimse.P_DATA, b"\x00\x00\xff\xff\x01\x03abc")),
    "without_an_end": lambda peer: [peer.fragment(bytes(60_000), dimse.COMMAND) for _ in range(3)],
    "of_data_first": lambda peer: peer.fragment(b"x", dimse.LAST),
    "of_no_command": lambda peer: peer.fragment(b"\xff" * 40, dimse.COMMAND | dimse.LAST),
    "a_second_request": lambda peer: peer.socket.sendall(Raw.request([(1, CT, ["1.2"])], "A", TITLE)),
}


@pytest.mark.parametrize("name", FRAGMENTS)
def test_bad_fragments_end_in_an_abort(node: Running, name: str) -> None:
    with Raw(node.port, CT) as peer:
        FRAGMENTS[name](peer)
        assert peer.unit()[0] in (dimse.ABORT, 0)
    with Raw(node.port, CT) as peer:
        assert peer.kind == dimse.ASSOCIATE_AC


# -------------------------------------------------------------------------------------------------- storage commitment


def action(*instances: tuple[str, str]) -> Dataset:
    made = Dataset()
    made.TransactionUID = images.uid("transaction")
    made.ReferencedSOPSequence = []
    for sop_class, instance in instances:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = sop_class, instance
        made.ReferencedSOPSequence.append(one)
    return made


class Reports:
    """Takes N-EVENT-REPORTs, and keeps them: event type, stored instances, failed ones with their reasons."""

    def __init__(self, answer: int = 0) -> None:
        self.came = threading.Event()
        self.got: list[tuple[int, set[str], dict[str, int]]] = []
        self.answer = answer
        self.handlers = [(evt.EVT_N_EVENT_REPORT, self._take)]

    def _take(self, event: Any) -> tuple[int, Any]:
        said = event.event_information
        assert said.TransactionUID == images.uid("transaction")
        stored = {str(one.ReferencedSOPInstanceUID) for one in said.get("ReferencedSOPSequence", [])}
        refused = said.get("FailedSOPSequence", [])
        failed = {str(one.ReferencedSOPInstanceUID): int(one.FailureReason) for one in refused}
        self.got.append((int(event.event_type), stored, failed))
        self.came.set()
        return self.answer, None


COMMITMENT = [(CT, [ExplicitVRLittleEndian]), (dimse.COMMITMENT, [ExplicitVRLittleEndian])]


def test_commitment_of_what_is_stored_and_what_is_not(node: Running) -> None:
    ds, gone, absent = images.ct(1), images.ct(2), images.uid("absent")
    reports = Reports()
    association = client(node.port, COMMITMENT, handlers=reports.handlers)
    for one in (ds, gone):
        assert status(association.send_c_store(_prepared(one))) == dimse.SUCCESS
    said, _ = association.send_n_action(action((CT, ds.SOPInstanceUID)), 1, dimse.COMMITMENT, dimse.COMMITMENT_INSTANCE)
    assert status(said) == dimse.SUCCESS
    assert reports.came.wait(20)
    assert reports.got.pop() == (1, {ds.SOPInstanceUID}, {})
    reports.came.clear()
    hashed = node.images.hashed("instance", gone.SOPInstanceUID)[:16].hex()
    lost = next(one for one in node.events() if one.instance == hashed)
    node.objects.remove([lost.claim.name])
    asked = action((CT, ds.SOPInstanceUID), (CT, gone.SOPInstanceUID), (CT, absent), (images.MR, ds.SOPInstanceUID))
    association.send_n_action(asked, 1, dimse.COMMITMENT, dimse.COMMITMENT_INSTANCE)
    assert reports.came.wait(20)
    event, stored, failed = reports.got.pop()
    assert (event, stored) == (2, {ds.SOPInstanceUID})
    assert failed == {gone.SOPInstanceUID: 0x0112, absent: 0x0112, ds.SOPInstanceUID: 0x0119}
    association.release()
    eventually(lambda: not node.images.instances.due(time.time() + 1e6))


def test_commitment_that_cannot_be_read(node: Running) -> None:
    association = client(node.port, COMMITMENT)
    empty, path = action(), action((CT, "1.2/../3"))
    for said, kind, instance, wanted in (
        (empty, 1, dimse.COMMITMENT_INSTANCE, 0x0115),
        (path, 1, dimse.COMMITMENT_INSTANCE, 0x0115),
        (action((CT, "1.2")), 2, dimse.COMMITMENT_INSTANCE, 0x0123),
        (action((CT, "1.2")), 1, "1.2.3", 0x0112),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got, _ = association.send_n_action(said, kind, dimse.COMMITMENT, instance)
        assert status(got) == wanted
    association.release()


def test_a_report_follows_to_the_address_of_its_peer(tmp_path: Path) -> None:
    """The peer has gone, and the node was restarted: over an association of the node's own."""
    reports = Reports()
    scp = AE("MODALITY")
    scp.add_supported_context(dimse.COMMITMENT, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
    ds = images.ct(1)
    with Running(tmp_path) as node, Raw(node.port, CT, calling="MODALITY") as peer:
        peer.store(ds.SOPInstanceUID, plain(ds))
        asked = commitment.Asked(images.uid("transaction"), ((CT, ds.SOPInstanceUID),))
        commitment.remember(asked, node.images, "MODALITY", TITLE)
        for one in node.images.instances.due(time.time() + 1e6):
            node.images.instances.later(one.number, 0.0)
            assert ds.SOPInstanceUID.encode() not in one.asked
        node.images.instances._ask("UPDATE commitment SET due = ?", (time.time() + 5,))
    server = scp.start_server(("127.0.0.1", 0), block=False, evt_handlers=reports.handlers)
    peers = Peers((Peer.model_validate({"match": "MODALITY|*", "address": f"127.0.0.1:{server.server_address[1]}"}),))
    try:
        with Running(tmp_path, peers=peers) as node:
            node.images.instances._ask("UPDATE commitment SET due = 0", ())
            assert reports.came.wait(20)
            assert reports.got == [(1, {ds.SOPInstanceUID}, {})]
            eventually(lambda: not node.images.instances.due(time.time() + 1e6))
    finally:
        server.shutdown()
