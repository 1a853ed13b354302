"""Other people's DICOM nodes send to ours: DCMTK's tools, its archive, Orthanc; over TLS too."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from schemas.wire import dimse
from tests import images
from tests.certificates import Authority
from tests.node import TITLE, Running, client, has, listens, status, tool
from tests.ports import free_port
from tests.test_dimse import _prepared, _sendable, data_set, eventually, node, setting

__all__ = ["node", "setting"]
dcmtk = pytest.mark.skipif(not has("dcmsend"), reason="DCMTK is not installed")
orthanc = pytest.mark.skipif(not has("Orthanc"), reason="Orthanc is not installed")


@contextmanager
def process(*command: str, cwd: Path, port: int) -> Iterator[None]:
    """A server of somebody else's, once it listens."""
    running = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: running.poll() is not None or listens(port))
        assert running.poll() is None
        yield
    finally:
        running.terminate()
        running.wait(20)


def study(folder: Path, files: int = 5) -> Path:
    folder.mkdir()
    for number in range(files):
        (folder / f"{number}.dcm").write_bytes(images.part10(images.ct(number)))
    (folder / "mr.dcm").write_bytes(images.part10(images.mr(), JPEGLSLossless))  # JPEG-LS
    return folder


@dcmtk
def test_dcmtk_sends_every_file_that_it_can(node: Running, tmp_path: Path) -> None:
    """What it sends to its own node, which keeps every bit, it sends to ours: the same bytes lie in both."""
    source, kept = tmp_path / "in", tmp_path / "kept"
    source.mkdir(), kept.mkdir()
    for number, path in enumerate(_sendable()):
        if (
            b"\x08\x00\x16\x00UN" not in path.read_bytes()
        ):  # it announces such a class as "31", the hex of its first digit
            (source / f"{number:03}").symlink_to(path)
    port = free_port()
    with process("storescp", "+B", "+xa", "+uf", "-od", str(kept), str(port), cwd=tmp_path, port=port):
        send = ("dcmsend", "-dn", "-nh", "-nuc", "+sd")
        for to in (port, node.port):
            tool(*send, "-aec", TITLE, "127.0.0.1", str(to), str(source))
    theirs = [data_set(path.read_bytes()) for path in kept.iterdir()]
    assert len(theirs) > 100
    assert set(theirs) == {data_set(node.content(event)) for event in node.events()}


@dcmtk
def test_an_archive_moves_to_us(node: Running, tmp_path: Path) -> None:
    """dcmqrscp, asked by movescu, is the one that sends."""
    port, archive = free_port(), tmp_path / "archive"
    archive.mkdir()
    config = tmp_path / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nus = ({TITLE}, 127.0.0.1, {node.port})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nARCHIVE {archive} RW (200, 1024mb) ANY\nAETable END\n"
    )
    with process("dcmqrscp", "-c", str(config), str(port), cwd=tmp_path, port=port):
        files = study(tmp_path / "in", 3)
        (files / "mr.dcm").unlink()  # the archive takes no JPEG-LS
        sent = tool("storescu", "-R", "-aec", "ARCHIVE", "+sd", "127.0.0.1", str(port), str(files))
        assert sent.returncode == 0, sent.stderr
        key = f"StudyInstanceUID={images.ct(1).StudyInstanceUID}"
        moved = ("movescu", "-S", "-aec", "ARCHIVE", "-aem", TITLE, "-k", "QueryRetrieveLevel=STUDY", "-k", key)
        assert tool(*moved, "127.0.0.1", str(port)).returncode == 0
    assert len(node.events()) == 3


@orthanc
def test_orthanc_forwards_a_study(node: Running, tmp_path: Path) -> None:
    web, port = free_port(), free_port()
    config = tmp_path / "orthanc.json"
    config.write_text(
        json.dumps(
            {
                "StorageDirectory": str(tmp_path / "orthanc"),
                "IndexDirectory": str(tmp_path / "orthanc"),
                "HttpPort": web,
                "DicomPort": port,
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomModalities": {"us": [TITLE, "127.0.0.1", node.port]},
                "Plugins": [],
            }
        )
    )

    def rest(path: str, data: bytes = b"") -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{web}{path}", data=data or None)
        return json.loads(urllib.request.urlopen(request, timeout=30).read())

    with process("Orthanc", str(config), cwd=tmp_path, port=port):
        for path in sorted(study(tmp_path / "in").iterdir()):
            rest("/instances", path.read_bytes())
        studies = rest("/studies")
        assert len(studies) == 2
        sent = [rest("/modalities/us/store", json.dumps([one]).encode()) for one in studies]
        assert sum(one["InstancesCount"] for one in sent) == 6
        assert not sum(one["FailedInstancesCount"] for one in sent)
    assert len(node.events()) == 6
    want = {data_set(path.read_bytes()) for path in (tmp_path / "in").iterdir()}
    assert {data_set(node.content(event)) for event in node.events()} == want


@pytest.mark.parametrize("who", ["known", "unknown", "nobody", "in_clear"])
def test_tls_lets_in_who_shows_a_certificate(tmp_path: Path, setting: Any, who: str) -> None:
    ours, others = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    certificate, key = ours.sign("server")
    setting("TLS_CERT", str(certificate))
    setting("TLS_KEY", str(key))
    setting("TLS_CLIENT_CA", str(ours.ca))
    context = None
    if who != "in_clear":
        context = ssl.create_default_context(cafile=str(ours.ca))
        if who != "nobody":
            context.load_cert_chain(*(ours if who == "known" else others).sign("client"))
    with Running(tmp_path) as node:
        association = client(node.port, [(images.CT, [ExplicitVRLittleEndian])], tls=context)
        if who == "known":
            assert status(association.send_c_store(_prepared(images.ct(1)))) == dimse.SUCCESS
            association.release()
        else:
            assert not association.is_established
        assert len(node.events()) == (who == "known")
