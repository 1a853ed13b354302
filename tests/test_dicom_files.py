"""DICOM files, folders and DICOMDIRs: what is read, under which names, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from infra.audit import Audit
from infra.errors import BadMessage
from infra.keyring import Keyring
from infra.keystore import KeyStore
from infra.objects import Objects
from producers.feeds import dicom_files, folder
from producers.imaging import Images, Received
from producers.instances import Instances
from producers.publish import Publisher, Receipt
from producers.seen import Seen
from schemas.peers import Peers
from tests import images
from tests.broker import Broker
from tests.node import Raw, Running
from tests.test_dimse import plain


def never(*_: Any) -> Any:
    raise AssertionError("this is no message of another kind")


@contextmanager
def opened(home: Path, publisher: Any = None) -> Iterator[Images]:
    keyring = Keyring.open(home / "keyring.json")
    audit = Audit(home, home / "anchor", keyring.signing_key())
    objects = Objects(str(home / "objects"))
    made = Images(publisher, keyring, Peers(), Instances(home / "instances.sqlite"), objects, audit)
    try:
        yield made
    finally:
        made.close()


def read(home: Path, *paths: Path) -> list[tuple[str, str, Received | str]]:
    """Name, kind, and what was made: or the reason why nothing was."""
    with opened(home) as store:
        found, refused = dicom_files.expand(folder.files(paths))
        readers = folder.Readers(never, never, partial(dicom_files.items, store))
        rows = [*folder.items(found, readers), *refused]
    return [
        (one.file.name, one.kind, one.made.reason if isinstance(one.made, BadMessage) else one.made)  # type: ignore[misc]
        for one in rows
    ]


def written(folder: Path, name: str, ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(images.part10(ds, syntax))
    return path


def test_by_ending_by_prefix_and_by_name(tmp_path: Path) -> None:
    source = tmp_path / "in"
    written(source, "a.dcm", images.ct(1))
    written(source, "1.2.840.7", images.ct(2))
    written(source, "sub/IM0003", images.mr())
    written(source, "b.IMA", images.ct(4))
    (source / "notes.txt").write_text("none of ours")
    rows = read(tmp_path, source)
    assert sorted(row[:2] for row in rows) == [
        ("1.2.840.7", "CTImageStorage"),
        ("IM0003", "MRImageStorage"),
        ("a.dcm", "CTImageStorage"),
        ("b.IMA", "CTImageStorage"),
    ]
    assert all(isinstance(row[2], Received) for row in rows)
    assert [one.name for one in folder.skipped([source])] == ["notes.txt"]


def test_what_cannot_be_read_is_refused_and_leaves_no_object(tmp_path: Path) -> None:
    source = tmp_path / "in"
    whole = images.part10(images.ct(1))
    source.mkdir()
    (source / "cut.dcm").write_bytes(whole[:-1000])
    (source / "none.dcm").write_bytes(b"this is a letter" * 20)
    (source / "empty.dcm").write_bytes(b"")
    (source / "path.dcm").write_bytes(_renamed(whole, "meta"))
    (source / "path2.dcm").write_bytes(_renamed(whole, "data"))
    made = {name: one if isinstance(one, str) else "taken" for name, _, one in read(tmp_path, source)}
    assert made["cut.dcm"] == "truncated"
    assert (made["path.dcm"], made["path2.dcm"]) == ("bad_meta", "bad_uid")
    assert (made["none.dcm"], made["empty.dcm"]) == ("not_dicom", "not_dicom")
    assert "taken" not in made.values()
    assert not [one for one in (tmp_path / "objects").rglob("*") if one.is_file()]


def _renamed(whole: bytes, where: str) -> bytes:
    """With a path in place of the instance's UID: in the meta information, or in the data set."""
    uid = images.ct(1).SOPInstanceUID.encode()
    at = whole.find(uid) if where == "meta" else whole.rfind(uid)
    return whole[:at] + b"/".join([b".."] * len(uid))[: len(uid)] + whole[at + len(uid) :]


def directory(path: Path, *names: tuple[str, ...]) -> Path:
    """A DICOMDIR that names these files, as far as its reader needs one."""
    ds = Dataset()
    ds.FileSetID, ds.DirectoryRecordSequence = "SET", []
    for name in names:
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", list(name)
        ds.DirectoryRecordSequence.append(record)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    ds.file_meta.MediaStorageSOPInstanceUID = images.uid("set")
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("named", ["directory", "folder"])
def test_a_directory_names_its_files(tmp_path: Path, named: str) -> None:
    disc = tmp_path / "disc"
    written(disc, "IMAGES/IM1", images.ct(1))
    written(disc, "images2/im2", images.ct(2))
    listed = directory(disc / "DICOMDIR", ("IMAGES", "IM1"), ("IMAGES2", "IM2"), ("IMAGES", "IM9"))
    rows = read(tmp_path, listed if named == "directory" else disc)
    assert sorted((name, kind) for name, kind, one in rows if isinstance(one, Received)) == [
        ("IM1", "CTImageStorage"),
        ("im2", "CTImageStorage"),
    ]
    assert [(name, one) for name, _, one in rows if isinstance(one, str)] == [("DICOMDIR", "missing_file")]


OUTSIDE = [
    ("..", "secret.dcm"),
    ("..%2Fsecret.dcm",),
    ("/etc", "passwd"),
    ("LINK", "secret.dcm"),
    ("IMAGES", "..", "x"),
]


@pytest.mark.parametrize("name", OUTSIDE, ids=lambda one: "-".join(one).replace("/", "|"))
def test_a_directory_names_nothing_outside_its_folder(tmp_path: Path, name: tuple[str, ...]) -> None:
    written(tmp_path, "secret.dcm", images.ct(1))
    listed = directory(tmp_path / "disc" / "DICOMDIR", name)
    (tmp_path / "disc" / "LINK").symlink_to(tmp_path)
    assert [(one, made) for one, _, made in read(tmp_path, listed)] == [("DICOMDIR", "outside_folder")]


async def _published(home: Path, *paths: Path) -> tuple[list[folder.Published], Broker]:
    keyring, broker = Keyring.open(home / "keyring.json"), Broker(is_open=True)
    keys = KeyStore(f"sqlite:///{home / 'keystore.sqlite'}", keyring)
    async with Publisher(broker, keyring, keys, Seen(home / "seen.sqlite")) as publisher:  # type: ignore[arg-type]
        with opened(home, publisher) as store:
            readers = folder.Readers(never, never, partial(dicom_files.items, store))
            return await folder.publish(store, folder.items(folder.files(paths), readers)), broker


def test_a_file_is_the_same_instance_as_over_the_network(tmp_path: Path) -> None:
    ds = images.ct(1)
    source = tmp_path / "in"
    written(source, "1.dcm", ds)
    written(source, "2.dcm", images.ct(2))
    with Running(tmp_path) as node, Raw(node.port, images.CT) as peer:
        assert peer.store(ds.SOPInstanceUID, plain(ds))[0] == 0
    done, broker = asyncio.run(_published(tmp_path, source))
    assert [isinstance(one.end, Receipt) and one.end.duplicate for one in done] == [True, False]
    assert len(broker.sent) == 1
    assert len([one for one in (tmp_path / "objects").rglob("*") if one.is_file()]) == 2
