"""Images through the whole path: stored sealed, described, found, shown, told whole, rebuilt, erased, swept."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elasticsearch.helpers import scan
from PIL import Image as Picture
from pydicom import dcmread

from infra.elastic import client
from infra.kafka import Reader, lag
from infra.keystore import KeyStore
from infra.objects import Objects
from infra.settings import settings
from schemas.registry import DOMAINS
from schemas.signal import SignalEnvelope
from schemas.topics import SIGNALS
from tests import images

Run = Callable[..., Any]
IMAGING = DOMAINS["imaging"]
PATIENT = "STACK77"
WORDS = ("Meridian", f"Paula{PATIENT}", f"IM{PATIENT}", f"A{PATIENT}", images.uid("stack"), "Referrer", "SN-47110815")


def settled() -> None:
    deadline = time.monotonic() + 90
    while waiting := sum(one.events for one in lag(IMAGING.raw.name).values()):
        assert time.monotonic() < deadline, waiting
        time.sleep(0.2)


def found(**terms: Any) -> list[dict[str, Any]]:
    filters = [{"term": {name: value}} for name, value in terms.items()]
    with client() as server:
        server.indices.refresh(index=IMAGING.alias)
        query = {"query": {"bool": {"filter": filters}}}
        return [{"id": hit["_id"], **hit["_source"]} for hit in scan(server, index=IMAGING.alias, query=query)]


def until(look: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return seen


@pytest.fixture(scope="module")
def sent(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """Five slices of one CT, an MR and a chest X-ray of one patient; a hostile one among them."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(1, 6):
        (folder / f"{number}.dcm").write_bytes(images.part10(images.ct(number, PATIENT, "stack", 64)))
    (folder / "mr.dcm").write_bytes(images.part10(images.mr(1, PATIENT, "stack-mr", 64)))
    (folder / "cr.dcm").write_bytes(images.part10(images.cr(1, PATIENT, "stack-cr", 64)))
    lying = images.ct(9, PATIENT, "stack-lying", 64)
    lying.Rows, lying.Columns = 60_000, 60_000
    (folder / "lying.dcm").write_bytes(images.part10(lying))
    out = folder / "out.jsonl"
    done = command("produce", "files", str(folder), "--manifest", str(out), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    settled()
    return [json.loads(line) for line in out.read_text().splitlines()]


def instance(sent: list[dict[str, Any]], name: str) -> str:
    return str(next(row["event_id"] for row in sent if row["file"].endswith(f"/{name}")))


def test_each_is_indexed_under_its_own_kind(sent: list[dict[str, Any]]) -> None:
    assert {row["outcome"] for row in sent} == {"indexed"}
    assert {row["message_type"] for row in sent} == {
        "CTImageStorage", "MRImageStorage", "ComputedRadiographyImageStorage",
    }  # fmt: skip


def test_what_is_found(sent: list[dict[str, Any]], command: Run) -> None:
    query = f"id:IM{PATIENT} modality:CT body_part:CHEST"
    said = json.loads(command("search", query, "--domain", "imaging", "--kind", "instance", "--json").stdout)
    assert said["total"] == 6
    one = said["hits"][0]
    assert (one["rows"], one["kvp"], one["device_model"]) in {(64, 120, "Model CT"), (60_000, 120, "Model CT")}
    whole = f'name:"Meridian Paula{PATIENT} 1961-04-12"'
    assert json.loads(command("search", whole, "--domain", "imaging", "--json").stdout)["total"] >= 8
    by_uid = f"instance_uid:{images.uid('stack', 'CT', 3)}"
    assert json.loads(command("search", by_uid, "--domain", "imaging", "--json").stdout)["total"] == 1


def test_pixels_are_numbers_that_are_found(sent: list[dict[str, Any]], command: Run) -> None:
    seen = {one["processing"] for one in found(kind="image") if one["event_id"] in {row["event_id"] for row in sent}}
    assert "done" in seen
    assert len(seen) == 2, "the one that lies says why it could not be looked at"
    query = f"noise:6..10 sharpness:>0 modality:CT id:IM{PATIENT}"
    assert (
        json.loads(command("search", "noise:6..10 modality:CT", "--domain", "imaging", "--json").stdout)["total"] >= 5
    )
    assert "UsageError" not in command("search", query, "--domain", "imaging", "--json").stderr


def test_the_object_is_what_was_sent_sealed(sent: list[dict[str, Any]], stack: Path) -> None:
    from consumers.access import permit
    from consumers.imaging import stored

    (one,) = stored(permit("image"), [instance(sent, "3.dcm")])
    with Objects.local().open(one.claim) as file:
        data = file.read()
    original = images.part10(images.ct(3, PATIENT, "stack", 64))
    assert data[data.index(b"\x08\x00\x05\x00") :] == original[original.index(b"\x08\x00\x05\x00") :]
    assert data[128:132] == b"DICM"
    on_disk = b"".join(path.read_bytes() for path in (stack / "objects").rglob("*") if path.is_file())
    for word in (*WORDS, "DICM"):
        assert word.encode() not in on_disk


def test_a_picture(sent: list[dict[str, Any]], command: Run, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    event = instance(sent, "2.dcm")
    done = command("image", "show", event, "--window", "40/400", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    assert os.stat(out).st_mode & 0o777 == 0o600
    shown = np.asarray(Picture.open(out))
    assert shown.shape == (64, 64)
    assert shown[40, 32] == pytest.approx(128, abs=60), "water is in the middle of the window"
    assert shown[0, 0] == 0, "air is below it"
    assert command("image", "show", event, "--preview", "--out", str(out)).returncode == 0
    edges = command("image", "show", event, "--step", "equalise", "--step", "edges", "--out", str(out))
    assert edges.returncode == 0, edges.stderr
    assert set(np.unique(np.asarray(Picture.open(out)))) <= {0, 255}
    wrong = command("image", "show", event, "--window", "wide", "--out", str(out))
    assert wrong.returncode == 2
    lying = command("image", "show", instance(sent, "lying.dcm"), "--out", str(tmp_path / "no.png"))
    assert lying.returncode != 0
    assert not (tmp_path / "no.png").exists()
    told = json.loads(command("audit", "patient", f"HOSP|MR|IM{PATIENT}", "--json").stdout)
    assert "pixels" in json.dumps(told), "who looked is in the audit"


def test_a_follow_up_on_its_prior(sent: list[dict[str, Any]], command: Run, tmp_path: Path) -> None:
    out = tmp_path / "both.png"
    pair = instance(sent, "2.dcm"), instance(sent, "3.dcm")
    found = json.loads(command("image", "register", *pair, "--out", str(out), "--json").stdout)
    assert abs(found["angle"]) < 0.5
    assert max(map(abs, found["shift"])) < 0.8, "a pixel: nobody moved"
    assert found["after"]["correlation"] > 0.9
    assert np.asarray(Picture.open(out)).shape == (64, 64, 3)


def test_only_who_may_sees_a_picture(sent: list[dict[str, Any]], command: Run, tmp_path: Path) -> None:
    event = instance(sent, "2.dcm")
    for role in ("bed_manager", "quality_officer", "data_scientist", "operator"):
        out = tmp_path / role
        assert command("image", "show", event, "--out", str(out), "--role", role).returncode == 10
        assert not out.exists()
    shown = command("reveal", event, "--field", "claim", "--purpose", "TREAT", "--domain", "imaging")
    assert shown.returncode == 10, "the key of an object is nobody's to see"


def test_given_away_without_its_patient(sent: list[dict[str, Any]], command: Run, tmp_path: Path) -> None:
    out = tmp_path / "away"
    event = instance(sent, "1.dcm")
    options = ("--option", "modified_dates", "--option", "patient", "--role", "privacy_officer", "--json")
    done = command("image", "export", "--study", study(event), "--out", str(out), "--project", "p", *options)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["images"]
    assert [(row["outcome"], row["clean"]) for row in rows] == [("exported", True)] * 5
    files = [dcmread(row["file"]) for row in rows]
    assert {one.PatientIdentityRemoved for one in files} == {"YES"}
    assert len({one.StudyInstanceUID for one in files}) == len({one.PatientID for one in files}) == 1
    assert {one.PatientSex for one in files} == {"F"}
    for row in rows:
        data = Path(row["file"]).read_bytes()
        assert not [word for word in (*WORDS, "North Hospital", "19610412", "20260301") if word.encode() in data]
        assert os.stat(row["file"]).st_mode & 0o777 == 0o600
    assert command("image", "export", event, "--out", str(out), "--role", "clinician").returncode == 10


def test_similar_images(sent: list[dict[str, Any]], command: Run) -> None:
    event = instance(sent, "2.dcm")
    rows = json.loads(
        command("image", "similar", event, "--k", "4", "--filter", "study=" + study(event), "--json").stdout
    )
    assert [row["modality"] for row in rows["hits"]] == ["CT"] * 4
    assert min(row["cosine"] for row in rows["hits"]) > 0.9


def study(event: str) -> str:
    return str(next(one["study"] for one in found(event_id=event, kind="instance")))


def test_a_study_is_told_whole_once_and_again_when_more_comes(
    sent: list[dict[str, Any]], command: Run, tmp_path: Path
) -> None:
    mine = study(instance(sent, "1.dcm"))
    (one,) = until(lambda: found(kind="study_complete", study=mine))
    assert (one["instance_count"], one["series_count"], one["modalities"]) == (5, 1, ["CT"])
    (entity,) = until(lambda: [each for each in found(kind="study", study=mine) if each["state"] == "complete"])
    assert entity["instance_count"] == 5
    path = tmp_path / "6.dcm"
    path.write_bytes(images.part10(images.ct(6, PATIENT, "stack", 64)))
    assert command("produce", "files", str(path)).returncode == 0
    until(lambda: len(found(kind="study_complete", study=mine)) == 2)
    (entity,) = until(lambda: [each for each in found(kind="study", study=mine) if each["state"] == "complete"])
    assert entity["instance_count"] == 6
    reader = Reader(SIGNALS.name)
    told = [SignalEnvelope.read(message.headers() or ()) for message in reader.until_end()]
    reader.close()
    events = {each["event_id"] for each in found(kind="study_complete", study=mine)}
    assert {one.event_id for one in told if one.signal == "study_complete"} >= events


def test_the_same_again_is_a_duplicate_and_leaves_nothing(
    sent: list[dict[str, Any]], command: Run, tmp_path: Path
) -> None:
    path, before = tmp_path / "3.dcm", set(Objects.local().names())
    path.write_bytes(images.part10(images.ct(3, PATIENT, "stack", 64)))
    done = command("produce", "files", str(path), "--json")
    assert json.loads(done.stdout)["outcomes"] == {"duplicate": 1}
    assert set(Objects.local().names()) == before


def test_rebuilt_equals_live(sent: list[dict[str, Any]], command: Run) -> None:
    settled()
    until(lambda: not [one for one in found(kind="study") if one["state"] == "receiving"])
    settled()

    def opened(index: str) -> dict[str, Any]:
        with client() as server:
            server.indices.refresh(index=index)
            made = {hit["_id"]: hit["_source"] for hit in scan(server, index=index, query={})}
        for one in made.values():
            one["sealed"] = sorted(one.get("sealed", {}))
        return made

    before = opened(IMAGING.alias)
    done = command("replay", "--domain", "imaging", "--into", "imaging-again", "--json")
    assert done.returncode == 0, done.stderr
    after = opened("imaging-again")
    assert before.keys() == after.keys()
    assert [name for name, one in before.items() if after[name] != one] == []


def test_an_erasure_removes_objects_and_previews(sent: list[dict[str, Any]], command: Run, stack: Path) -> None:
    mine = {one["object"] for one in found(kind="instance") if one["event_id"] in {row["event_id"] for row in sent}}
    store = Objects.local()
    assert len(mine) == 8
    assert all(store.size(name) for name in mine)
    previews = [path for path in (stack / "objects").rglob("*-preview") if path.name[:32] in mine]
    assert len(previews) == 7
    done = command("erase", "--patient", f"HOSP|MR|IM{PATIENT}", "--reason", "asked for", "--json")
    assert done.returncode == 0, done.stderr
    assert not [name for name in mine if store.size(name) is not None]
    assert not [path for path in previews if path.exists()]
    _, keys = KeyStore.local()
    refs = keys.refs_of([("HOSP", "MR", f"IM{PATIENT}")])
    assert not [one for ref in refs for one in found(patient_ref=ref)]
    assert settings().home.exists()


def test_what_nothing_names_is_swept_after_a_day(stack: Path, command: Run, manifest: Callable[[Path], Any]) -> None:
    manifest(images.SAMPLES)
    store = Objects.local()
    with store.create() as writer:
        writer.write(b"its receiver was killed before it told of it")
        loose = writer.finish().name
    with store.create() as writer:
        writer.write(b"the same, a moment ago")
        fresh = writer.finish().name
    kept = set(store.names()) - {loose, fresh}
    two_days = time.time() - 2 * 24 * 3600
    for name in {loose, *kept}:
        for path in (stack / "objects" / name[:2]).glob(f"{name}*"):
            os.utime(path, (two_days, two_days))
    done = json.loads(command("retention", "apply", "--json").stdout)
    assert done["swept"] == 1
    assert store.size(loose) is None
    assert store.size(fresh) is not None
    assert all(store.size(name) is not None for name in kept), "what documents and records name stays"
