"""Predictions on the stream: of which version, equal to what training would say, and never in an event's way."""

from __future__ import annotations

import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from elasticsearch.helpers import scan

from consumers.models import train_rows
from infra.elastic import client
from infra.kafka import lag
from infra.local.stack import MARK
from producers.simulate.cohort import Cohort
from schemas.envelope import rfc3339
from schemas.registry import DOMAINS
from streams import learn
from streams.ehr import features, targets
from streams.ehr.news2 import news2
from streams.ehr.targets import Happened
from streams.models import Card, Data, Models
from streams.scoring import Serving

Command = Callable[..., subprocess.CompletedProcess[str]]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOW = datetime.now(UTC)
UNTIL = datetime(2026, 3, 1, tzinfo=UTC)  # cohorts end here: what is in them hangs on the time of day


def card(trained_at: datetime) -> Card:
    data = Data(rows=1, patients=1, first="", last="")
    return Card(algorithm="none", target="t", trained_at=rfc3339(trained_at), trained_by="a", data=data)


def dummy() -> Any:
    from sklearn.dummy import DummyClassifier

    return DummyClassifier().fit([[0], [1]], ["no", "yes"])


def test_a_version_serves_from_its_promotion_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def at(days: int) -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=days)

    models = Models(tmp_path, KEY)
    for day in (1, 4):
        models.add("ehr-t", dummy(), card(at(day)))
    for day, did in ((2, "promote"), (5, "promote"), (6, "rollback")):
        monkeypatch.setattr("streams.models._now", lambda day=day: rfc3339(at(day)))
        if did == "rollback":
            models.rollback("ehr-t", "a")
        else:
            models.promote("ehr-t", "1" if day == 2 else "2", "a", force=True)
    serving = Serving(models, ["ehr-t"])
    serving.refresh()
    told = {day: [(one.version, shadow) for one, shadow in serving.at("ehr-t", at(day))] for day in range(8)}
    assert told == {
        0: [],
        1: [("1", True)],
        2: [("1", False)],
        3: [("1", False)],
        4: [("1", False), ("2", True)],
        5: [("2", False)],
        6: [("1", False)],
        7: [("1", False)],
    }


def test_an_altered_card_serves_for_nothing_and_a_new_version_is_seen(tmp_path: Path) -> None:
    models = Models(tmp_path, KEY)
    models.add("ehr-t", dummy(), card(NOW))
    serving = Serving(models, ["ehr-t"])
    serving.refresh()
    later = NOW + timedelta(days=1)
    assert [one.version for one, _ in serving.at("ehr-t", later)] == ["1"]
    models.add("ehr-t", dummy(), card(NOW))
    altered = tmp_path / "ehr-t" / "2" / "card.json"
    altered.write_bytes(altered.read_bytes().replace(b'"none"', b'"some"'))
    serving.refresh()
    assert [one.version for one, _ in serving.at("ehr-t", later)] == ["1"]


# ---------------------------------------------------------------------------------------------------- with the servers


def publish(command: Command, folder: Path, seed: int, patients: int, *, only: bytes = b"") -> None:
    """Messages of a cohort, or those alone that have these bytes in their first segment."""
    told = Cohort(seed, patients, UNTIL, facility=f"SCORED{seed}").tell().messages
    bodies = [one.body for one in told if only in one.body.partition(b"\r")[0]]
    folder.mkdir()
    (folder / "cohort.hl7").write_bytes(b"\r".join(bodies))
    done = command("produce", "files", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 60  # scores come behind what `produce` waits for
    while sum(one.events for one in lag(DOMAINS["ehr"].raw.name).values()):
        assert time.monotonic() < deadline
        time.sleep(0.3)


def events(seed: int) -> dict[str, list[tuple[Happened, list[dict[str, Any]]]]]:
    """Each patient's events with their scores, as the index has them."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    with client() as server:
        server.indices.refresh(index="ehr")
        parts = {"range": {"part": {"gte": 0}}}
        query = {"bool": {"filter": [{"term": {"facility": f"SCORED{seed}"}}, parts]}}
        said = [hit["_source"] for hit in scan(server, index="ehr", query={"query": query}, size=2000)]
        ids = {one["event_id"] for one in said}
        persons = {"terms": {"patient_ref": sorted({one["patient_ref"] for one in said if "patient_ref" in one})}}
        query = {"bool": {"filter": [persons, parts]}}  # scores name no facility
        for hit in scan(server, index="ehr", query={"query": query}, size=2000):
            one = hit["_source"]
            if one["event_id"] in ids:
                found[one["patient_ref"]][one["event_id"]].append(one)
    made: dict[str, list[tuple[Happened, list[dict[str, Any]]]]] = {}
    for patient, theirs in found.items():
        made[patient] = []
        for event, documents in theirs.items():
            documents.sort(key=lambda one: one["part"])
            scores = [one for one in documents if one["kind"] == "score"]
            said = [one for one in documents if one["kind"] != "score"]
            made[patient].append((Happened(event, said[0]["event_time"], said), scores))
        made[patient].sort(key=lambda one: (one[0].at, one[0].event_id))
    return made


@pytest.fixture(scope="module")
def trained(command: Command, stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A forest for each of two targets, promoted, whatever it is worth: of where patients were, and of no sign."""
    publish(command, tmp_path_factory.mktemp("scored") / "first", 1, 160, only=b"|ADT^")
    store, told = Models.local(), events(1)
    for target in ("department", "length_of_stay"):
        # Of these patients alone: the last rows of the whole index, which judge a model, may all be one test's.
        of = [targets.rows(target, ref, [one for one, _ in theirs], rfc3339(NOW)) for ref, theirs in told.items()]
        (made,) = train_rows(store, "tests", target, [row for rows in of for row in rows], ["random_forest"], {})
        assert command("models", "promote", f"ehr-{target}", made.version, "--force").returncode == 0
    return store


def test_the_stream_scores_as_training_would(command: Command, trained: Models, tmp_path: Path) -> None:
    """Every score of every event, made anew from the index, with the history made anew in the order of time."""
    publish(command, tmp_path / "second", 2, 20)
    loaded = {}
    for target in ("department", "length_of_stay"):
        name = f"ehr-{target}"
        version = trained.promoted(name) or ""
        loaded[target] = (version, trained.load(name, version), trained.card(name, version).feature_means)
    counts: dict[str, int] = defaultdict(int)
    for told in events(2).values():
        history: dict[str, Any] = {}
        for event, scores in told:
            features.remember(history, event.documents, event.at)
            made = {one["model"]: one for one in scores}
            known = features.vital_signs(event.documents, history, event.at)
            expected = news2(known) if known is not None else None
            assert (made.get("news2", {}).get("points")) == (expected and expected.total)
            counts["news2"] += expected is not None
            for target, (version, estimator, means) in loaded.items():
                row = features.features(target, event.documents, history, event.at)
                assert (row is None) == (target not in made), (target, event.event_id)
                if row is None:
                    continue
                (right,) = learn.score(estimator, [row], means)
                one = made[target]
                assert (one["model_version"], one["shadow"], one["predicted"]) == (version, False, right.label)
                p = right.probabilities.get("yes", right.probabilities[right.label])
                assert one["probability"] == pytest.approx(p, abs=1e-6)
                assert one.get("reasons", []) == [f"{name} {weight:+.3f}" for name, weight in right.reasons]
                counts[target] += 1
    assert min(counts[name] for name in ("news2", *loaded)) > 10, counts


SIGNS = {
    "8867-4": "118|/min",
    "9279-1": "22|/min",
    "59408-5": "93|%",
    "8480-6": "105|mm[Hg]",
    "8310-5": "38.5|Cel",
    "3151-8": "2|L/min",
}


def signs(control: str, number: str, minute: int, some: dict[str, str]) -> str:
    head = f"MSH|^~\\&|MERGED|HERE|US|X|2026030100{minute:02}00+0000||ORU^R01|{control}|P|2.5\r"
    results = "".join(f"OBX|{n}|NM|{code}^x^LN||{value}|||||F\r" for n, (code, value) in enumerate(some.items(), 1))
    return f"{head}PID|1||{number}^^^HOSP^MR||Oyelaran^Ife||19500101|F\rPV1|1|I|W1\rOBR|1||L|P\r{results}"


def merged_scores(index: str) -> dict[str, int | None]:
    """NEWS2 of each event of the two numbers, by the minute of the event."""
    with client() as server:
        server.indices.refresh(index=index)
        query = {"bool": {"filter": [{"term": {"source": "hl7v2:MERGED|HERE"}}, {"range": {"part": {"gte": 0}}}]}}
        hits = [one["_source"] for one in scan(server, index=index, query={"query": query})]
    points = {one["event_time"]: one["points"] for one in hits if one["kind"] == "score" and one["model"] == "news2"}
    return {at[14:16]: points.get(at) for at in sorted({one["event_time"] for one in hits})}


def test_a_merged_patient_is_scored_with_both_histories(command: Command, stack: Path, tmp_path: Path) -> None:
    """Six signs under the prior's number and one under the survivor's, before the merge and after; and made anew."""
    alert = {"80288-4": "Alert"}
    merge = (
        "MSH|^~\\&|MERGED|HERE|US|X|20260301002000+0000||ADT^A40^ADT_A39|MG4|P|2.5\rEVN|A40|20260301002000+0000\r"
        "PID|1||MG-S^^^HOSP^MR||Oyelaran^Ife||19500101|F\rMRG|MG-P^^^HOSP^MR\r"
    )
    since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
    parts = [signs("MG1", "MG-P", 0, SIGNS), signs("MG2", "MG-S", 10, alert), merge, signs("MG5", "MG-S", 30, alert)]
    for n, part in enumerate(parts):
        (tmp_path / f"{n}.hl7").write_text(part.replace("|NM|80288-4", "|ST|80288-4"), newline="")
        assert command("produce", "files", str(tmp_path / f"{n}.hl7")).returncode == 0
    deadline = time.monotonic() + 60
    while (found := merged_scores("ehr")).get("30") is None:
        assert time.monotonic() < deadline, found
        time.sleep(0.3)
    assert found["00"] is found["10"] is None, "six signs, one sign"
    assert command("replay", "--into", "ehr-merged", "--from", since, "--json").returncode == 0
    assert merged_scores("ehr-merged") == found, "what came before the merge has no score then either"


def test_a_model_altered_on_the_disk_scores_nothing_and_stops_nothing(
    command: Command, stack: Path, trained: Models, tmp_path: Path
) -> None:
    """The worker's process has the old one loaded: so it is ended, and its successor refuses."""
    version = trained.promoted("ehr-department")
    artefact = stack / "models" / "ehr-department" / str(version) / "model.skops"
    right = artefact.read_bytes()
    artefact.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    try:
        worker = kill_worker(stack)
        assert not any(psutil.pid_exists(one) for one in worker), "an orphan"
        publish(command, tmp_path / "third", 3, 5)
        found = [one for told in events(3).values() for event in told for one in event[1]]
        assert {one["model"] for one in found} >= {"news2"}
        assert "department" not in {one["model"] for one in found}
    finally:
        artefact.write_bytes(right)
        kill_worker(stack)


def kill_worker(stack: Path) -> list[int]:
    """Kill the worker; gives the processes that it had beside it, once they had time to end."""
    (worker,) = (
        one for one in psutil.process_iter() if _ours(one, stack) and "worker" in one.cmdline() and one.ppid() != 1
    )
    beside = [one.pid for one in worker.children(recursive=True)]
    worker.kill()
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(one) for one in beside) and time.monotonic() < deadline:
        time.sleep(0.1)
    return beside


def _ours(one: psutil.Process, stack: Path) -> bool:
    try:
        return one.environ().get(MARK) == str(stack) and one.pid != os.getpid()
    except psutil.Error:
        return False
