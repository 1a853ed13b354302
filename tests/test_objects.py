"""Sealed objects: random access, nothing moved, cut or repeated, nothing left of what was not finished."""

from __future__ import annotations

import hashlib
import io
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import ObjectMissing, SealBroken
from infra.objects import CHUNK, HEAD_BYTES, TAG_BYTES, Claim, Objects, content_bytes

SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 17)


def put(store: Objects, content: bytes, piece: int = 70_000) -> Claim:
    with store.create() as made:
        for at in range(0, len(content), piece):
            made.write(content[at : at + piece])
        return made.finish()


def path_of(folder: Path, claim: Claim) -> Path:
    return folder / claim.name[:2] / claim.name


@pytest.mark.parametrize("size", SIZES)
def test_what_was_written_is_read_whole_and_anywhere(tmp_path: Path, size: int) -> None:
    store, content = Objects(str(tmp_path)), random.Random(size).randbytes(size)
    claim = put(store, content)
    assert (claim.size, claim.digest) == (size, hashlib.sha256(content).hexdigest())
    assert store.size(claim.name) == size
    with store.open(claim) as whole:
        assert io.BufferedReader(whole).read() == content
    with store.open(claim) as reader:
        for at in sorted({0, size // 2, max(0, size - 5), size, size + 9}, reverse=True):
            reader.seek(at)
            assert reader.read(10) == content[at : at + 10][: CHUNK - at % CHUNK]
    assert content[:64] not in path_of(tmp_path, claim).read_bytes() or size < 8
    assert oct(path_of(tmp_path, claim).stat().st_mode)[-3:] == "600"


@given(size=st.integers(0, 5 * CHUNK))
@settings(max_examples=200, deadline=None)
def test_the_size_follows_from_what_is_stored(size: int) -> None:
    stored = HEAD_BYTES + size + TAG_BYTES * max(1, -(-size // CHUNK))
    assert content_bytes(stored) == size
    assert content_bytes(HEAD_BYTES) is None


@pytest.mark.parametrize("harm", ["bit", "cut_chunk", "cut_tail", "swap", "repeat", "format", "salt", "empty"])
def test_an_altered_object_does_not_open(tmp_path: Path, harm: str) -> None:
    store = Objects(str(tmp_path))
    claim = put(store, os.urandom(3 * CHUNK))
    path, sealed = path_of(tmp_path, claim), CHUNK + TAG_BYTES
    raw = bytearray(path.read_bytes())
    head, chunks = raw[:HEAD_BYTES], [raw[HEAD_BYTES + n * sealed :][:sealed] for n in range(3)]
    altered = {
        "bit": bytes(raw[:-1]) + bytes([raw[-1] ^ 1]),
        "cut_chunk": head + chunks[0] + chunks[1],
        "cut_tail": bytes(raw[:-100]),
        "swap": head + chunks[1] + chunks[0] + chunks[2],
        "repeat": head + chunks[0] + chunks[1] + chunks[1] + chunks[2],
        "format": b"\x02" + raw[1:],
        "salt": raw[:1] + bytes(16) + raw[17:],
        "empty": b"",
    }[harm]
    path.write_bytes(altered)
    with pytest.raises(SealBroken):
        io.BufferedReader(store.open(claim)).read()


def test_another_key_and_another_name_open_nothing(tmp_path: Path) -> None:
    store = Objects(str(tmp_path))
    first, second = put(store, b"one"), put(store, b"two")
    with pytest.raises(SealBroken):
        store.open(Claim(first.name, second.key, 3, "")).read()
    path_of(tmp_path, first).replace(path_of(tmp_path, second))
    with pytest.raises(SealBroken):
        store.open(Claim(second.name, first.key, 3, "")).read()


def test_nothing_is_there_before_the_end(tmp_path: Path) -> None:
    store = Objects(str(tmp_path))
    made = store.create()
    made.write(b"x" * 2 * CHUNK)
    assert store.size(made.name) is None
    assert list(store.names()) == [made.name], "a sweep finds what was left by a crash"
    made.abandon()
    made.abandon()
    assert list(store.names()) == []
    with pytest.raises(ZeroDivisionError), store.create() as broken:
        broken.write(bytes(1 // 0))
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


def test_a_companion_is_replaced_under_another_salt_and_removed_with_its_object(tmp_path: Path) -> None:
    store = Objects(str(tmp_path))
    claim = put(store, b"image")
    raw = []
    for _ in range(2):
        with store.create(*claim.companion("preview")) as made:
            made.write(b"small")
            made.finish()
        raw.append((tmp_path / claim.name[:2] / f"{claim.name}-preview").read_bytes())
        assert store.open_companion(claim, "preview").read() == b"small"
    assert raw[0] != raw[1]
    assert list(store.names()) == [claim.name]
    assert store.remove([claim.name]) == 2
    assert store.remove([claim.name]) == 0
    with pytest.raises(ObjectMissing):
        store.open(claim)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a" * 31, "A" * 32, "a" * 32 + "/x", "a" * 32 + "-../x", ""])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    store = Objects(str(tmp_path))
    with pytest.raises(ObjectMissing):
        store.open(Claim(name, bytes(32), 1, ""))
    with pytest.raises(ObjectMissing):
        store.remove([name])
