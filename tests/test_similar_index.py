"""`wardstream similar` on the embedded servers: questions, merges, a refit under questions, erasure, refusals."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumers import profiles, retention
from consumers import similar as asked
from infra.audit import events
from infra.elastic import SETTINGS, async_client, client
from infra.kafka import Producer
from infra.keystore import KeyStore
from schemas.similar import ALIAS, OF, index, mapping
from streams.ehr import similar
from tests.test_similar import simulated

Run = Callable[..., subprocess.CompletedProcess[str]]
FACILITY = "LIKEHOSP"
HEART = "Crushing chest pain radiating to the left arm. Troponin rising. Aspirin and heparin started."
LUNG = "Productive cough with green sputum and fever. Crackles at the right base. Amoxicillin started."
RARE = "Wombatsign positive."


def message(control: str, number: str, text: str, code: str, at: str = "20260301120000") -> str:
    return (
        f"MSH|^~\\&|LIKE|{FACILITY}|US|X|{at}||ORU^R01|{control}|P|2.5\r"
        f"PID|1||{number}^^^{FACILITY}^MR||Quokkamann^Ilse||19500101|F\r"
        f"PV1|1|I|LIKEWARD^2^1\rDG1|1||{code}^^I10\r"
        f"OBR|1||L1|18842-5^Note^LN\rOBX|1|TX|NOTE||{text}||||||F\r"
    )


def merge(control: str, survivor: str, prior: str) -> str:
    return (
        f"MSH|^~\\&|LIKE|{FACILITY}|US|X|20260302120000||ADT^A40|{control}|P|2.5\r"
        f"PID|1||{survivor}^^^{FACILITY}^MR||Quokkamann^Ilse\rMRG|{prior}^^^{FACILITY}^MR\r"
    )


def ref_of(number: str) -> str:
    (ref,) = KeyStore.local()[1].refs_of([(FACILITY, "MR", number)])
    return ref


def said(number: str) -> str:
    return f"{FACILITY}|MR|{number}"


@pytest.fixture(scope="module")
def produce(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    def made(*messages: str) -> None:
        folder = tmp_path_factory.mktemp("like")
        (folder / "some.hl7").write_text("".join(messages), newline="")
        done = command("produce", "files", str(folder), "--json")
        assert json.loads(done.stdout)["outcomes"] == {"indexed": len(messages)}, done.stdout
        shown()

    return made


def shown() -> None:
    with client() as server:
        server.indices.refresh(index=OF.alias)


@pytest.fixture(scope="module")
def fitted(stack: Path, command: Run, produce: Callable[..., None]) -> dict[str, Any]:
    """Six hearts, six lungs; one word that two of them have. What the fit says."""
    before = command("similar", "--text", "cough", "--json")
    assert (before.returncode, "--fit" in before.stderr) == (2, True), "nothing was fitted yet"
    produce(
        *(message(f"LH{n}", f"HEART{n}", f"{HEART} {RARE * (n < 2)}", "I21.4") for n in range(6)),
        *(message(f"LL{n}", f"LUNG{n}", LUNG, "J18.9") for n in range(6)),
    )
    done = command("similar", "--fit", "--json")
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def ask(command: Run, *arguments: str) -> dict[str, Any]:
    done = command("similar", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refs(rows: list[dict[str, Any]]) -> list[str]:
    return [one["patient_ref"] for one in rows]


def test_like_a_patient(fitted: dict[str, Any], command: Run, stack: Path) -> None:
    found = ask(command, said("HEART0"), "--k", "5", "--why")
    hearts = {ref_of(f"HEART{n}") for n in range(1, 6)}
    assert set(refs(found["similar"])) == set(refs(found["more_like_this"])) == hearts
    assert (found["version"], found["waiting"]) == (fitted["version"], 0)
    first = found["similar"][0]
    assert first["cosine"] == pytest.approx(1.0, abs=1e-6)
    assert (first["sex"], first["age"], first["rank"]) == ("F", 76, 1)
    assert {"troponin", "heparin", "I10|I21.4"} & {one["term"] for one in first["why"]}
    assert all(one["adds"] > 0 for one in first["why"])
    last = list(events(stack / "audit" / "audit.jsonl"))[-1]
    assert ref_of("HEART0") in json.dumps(last)
    assert all(ref in json.dumps(last) for ref in hearts)


def test_like_a_text(fitted: dict[str, Any], command: Run) -> None:
    found = ask(command, "--text", "fever and productive cough", "--k", "6")
    lungs = {ref_of(f"LUNG{n}") for n in range(6)}
    assert set(refs(found["similar"])) == set(refs(found["more_like_this"])) == lungs
    assert "why" not in found["similar"][0]
    table = command("similar", "--text", "fever and productive cough", "--why")
    assert table.returncode == 0
    assert "more like this" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--text", "quollsign"), 2),  # of nobody: not in the vocabulary
        (("--text", ""), 2),
        (("LIKEHOSP|MR|NOBODY",), 2),
        ((), 2),
        (("--fit", "--text", "cough"), 2),
        (("--text", "cough", "--k", "0"), 2),
        (("--text", "cough", "--role", "researcher"), 10),  # Safe Harbor: nobody is shown singly
        (("--text", "cough", "--role", "quality_officer"), 10),  # sees no text
        (("--text", "cough", "--role", "bed_manager"), 10),
        (("--fit", "--role", "clinician"), 10),
    ],
)
def test_refused(fitted: dict[str, Any], command: Run, arguments: tuple[str, ...], code: int) -> None:
    done = command("similar", *arguments, "--json")
    assert (done.returncode, done.stdout) == (code, "")


def test_who_denied_it_is_not_shown(fitted: dict[str, Any], command: Run) -> None:
    assert command("consent", "deny", "--patient", said("LUNG5"), "--purpose", "TREAT").returncode == 0
    try:
        found = ask(command, said("LUNG0"), "--k", "5")
        assert ref_of("LUNG5") not in refs(found["similar"]) + refs(found["more_like_this"])
        assert len(found["similar"]) >= 4
        assert command("similar", said("LUNG5")).returncode == 10
    finally:
        assert command("consent", "permit", "--patient", said("LUNG5"), "--purpose", "TREAT").returncode == 0


def test_a_question_brings_the_index_forward(
    fitted: dict[str, Any], command: Run, produce: Callable[..., None]
) -> None:
    """New patients, and new documents of old ones, without any fit."""
    produce(message("LN1", "NEWHEART", HEART, "I21.4"), message("LN2", "LUNG4", HEART, "I21.4"))
    found = ask(command, said("HEART0"), "--k", "10")
    by = {one["patient_ref"]: one["cosine"] for one in found["similar"]}
    assert by[ref_of("NEWHEART")] > 0.9
    assert 0.3 < by[ref_of("LUNG4")] < by[ref_of("NEWHEART")]


def test_more_than_a_question_takes_waits(
    fitted: dict[str, Any], produce: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(*(message(f"LW{n}", f"WAIT{n}", LUNG, "J18.9") for n in range(5)))
    monkeypatch.setattr(profiles, "AT_ONCE", 2)
    _, keys = KeyStore.local()
    with client() as server:
        name, model = profiles.live(server)
        waits = [profiles.bring_forward(server, keys, name, model) for _ in range(6)]
        assert (waits[0], waits[-1]) == (3, 0)
        assert waits == sorted(waits, reverse=True)
        assert all(server.exists(index=name, id=ref_of(f"WAIT{n}")) for n in range(5))


def test_a_merged_patient_has_one_profile(fitted: dict[str, Any], command: Run, produce: Callable[..., None]) -> None:
    """And two again when it was undone."""
    produce(message("LM1", "MERGEA", HEART, "I21.4"), message("LM2", "MERGEB", LUNG, "J18.9"))
    a, b = ref_of("MERGEA"), ref_of("MERGEB")
    assert {a, b} & set(refs(ask(command, said("LUNG0"), "--k", "30")["similar"]))
    produce(merge("LM3", "MERGEA", "MERGEB"))
    found = ask(command, said("LUNG0"), "--k", "100")
    assert a in refs(found["similar"])
    assert b not in refs(found["similar"]) + refs(found["more_like_this"])
    whole = {one["patient_ref"]: one["cosine"] for one in found["similar"]}[a]
    assert ref_of("MERGEB") == a
    with client() as server:
        assert not server.exists(index=ALIAS, id=b)
        assert server.get(index=ALIAS, id=a)["_source"]["merged"] == sorted([a, b])
    assert command("unmerge", b).returncode == 0
    again = {one["patient_ref"]: one["cosine"] for one in ask(command, said("LUNG0"), "--k", "100")["similar"]}
    assert again[b] > 0.9 > whole > again.get(a, 0.0)


def test_two_versions_while_asked(fitted: dict[str, Any], command: Run) -> None:
    """Questions all the while that vocabularies are fitted and swapped: each is answered, by one or the other."""
    over = threading.Event()
    answers: list[subprocess.CompletedProcess[str]] = []

    def go_on_asking() -> None:
        while not over.is_set():
            answers.append(command("similar", said("HEART0"), "--k", "3", "--json"))

    with client() as server:
        before = set(server.indices.get(index=f"{ALIAS}-*").body)
    asking = threading.Thread(target=go_on_asking)
    asking.start()
    try:
        fits = [command("similar", "--fit", "--json") for _ in range(2)]
    finally:
        over.set()
        asking.join()
    assert [one.returncode for one in fits] == [0] * 2
    assert [(one.returncode, one.stderr) for one in answers if one.returncode] == []
    versions = {json.loads(one.stdout)["version"] for one in answers}
    assert len(answers) >= 3
    assert len(versions) >= 2
    newest = json.loads(fits[-1].stdout)["version"]
    with client() as server:
        assert set(server.indices.get(index=f"{ALIAS}-*").body) == {index(newest)}
        assert before.isdisjoint({index(newest)})
        assert set(server.indices.get_alias(name=ALIAS).body) == {index(newest)}


def test_a_failed_fit_leaves_the_live_one(
    fitted: dict[str, Any], command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, keys = KeyStore.local()

    def fail(*_: object) -> None:
        raise RuntimeError("killed")

    with client() as server:
        live = set(server.indices.get_alias(name=ALIAS).body)
        monkeypatch.setattr(profiles, "_move", fail)
        with pytest.raises(RuntimeError, match="killed"):
            profiles.refit(server, keys, profiles.Persons(True), "tester")
        assert set(server.indices.get(index=f"{ALIAS}-*").body) == live
    assert ask(command, said("HEART0"))["similar"]


def test_an_erased_patient_is_gone(fitted: dict[str, Any], command: Run, produce: Callable[..., None]) -> None:
    """From the live index, its segments and the answers; what was read of the person before is not written after."""
    produce(message("LE1", "ERASELIKE", HEART, "I21.4"))
    ref = ref_of("ERASELIKE")
    assert ref in refs(ask(command, said("HEART0"), "--k", "30")["similar"])
    _, keys = KeyStore.local()
    with client() as server:
        name, model = profiles.live(server)
        kept = server.get(index=name, id=ref)["_source"]
        done = command("erase", "--patient", said("ERASELIKE"), "--reason", "asked for")
        assert done.returncode == 0, done.stderr
        proof = json.loads(next(Path(one) for one in done.stdout.split() if one.endswith(".json")).read_text())
        assert proof["said"]["steps"]["index"]["deleted"][name] == 1
        server.indices.refresh(index=name)
        assert not server.exists(index=name, id=ref)
        assert server.indices.stats(index=name)["_all"]["primaries"]["docs"]["deleted"] == 0
        counts = model.matrix([(kept["terms"]["ids"], kept["terms"]["counts"])])
        profiles._fill(server, keys, name, model, [ref], counts, {}, {}, profiles._now())
        assert not server.exists(index=name, id=ref), "a late writer leaves an erased person out"
        profiles.write(server, name, [kept])
        profiles._take_back(server, keys, name, [ref])
        assert not server.exists(index=name, id=ref), "one that was faster takes it back"
    found = ask(command, said("HEART0"), "--k", "30")
    assert ref not in refs(found["similar"]) + refs(found["more_like_this"])


async def test_expired_documents_take_the_profile_with_them(
    fitted: dict[str, Any], command: Run, produce: Callable[..., None]
) -> None:
    """Until something new comes of the patient, or a fit, which makes it of what is left."""
    produce(message("LO1", "OLDLIKE", HEART, "I21.4", at="19000101120000"), message("LO2", "OLDLIKE", LUNG, "J18.9"))
    ref = ref_of("OLDLIKE")
    assert ref in refs(ask(command, said("HEART0"), "--k", "100")["similar"])
    server, producer = async_client(), Producer()
    try:
        await retention._expire(server, producer, OF, "1901-01-01T00:00:00Z", retention.Applied([]), lambda _: None)
    finally:
        producer.close()
        await server.close()
    assert ref not in refs(ask(command, said("HEART0"), "--k", "100")["similar"])
    assert command("similar", "--fit").returncode == 0
    by = {one["patient_ref"]: one["cosine"] for one in ask(command, said("LUNG0"), "--k", "100")["similar"]}
    assert by[ref] > 0.9


@pytest.fixture(scope="module")
def filled(stack: Path) -> Iterator[tuple[str, similar.Model, Any]]:
    """300 simulated patients in an index of their own: its name, their vocabulary and weights."""
    bags = simulated(300, 5)
    model = similar.fit(bags.terms, bags.counts(), 64)
    counts = model.known(bags.terms, bags.counts())
    name = index("9999")
    with client() as server:
        server.indices.create(index=name, mappings=mapping(model.dimensions), settings=SETTINGS)
        profiles.write(server, name, list(profiles.sources(model, bags.refs, counts, {}, {})))
        server.indices.refresh(index=name)
        yield name, model, model.weights(counts)
        server.indices.delete(index=name)


def test_recall_against_exact_search(filled: tuple[str, similar.Model, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the ten that exact cosine over everybody finds, or ties with, how many the question shows: 0.95 at least.

    With fewer patients, dimensions and candidates than a house has: `make bench` measures those.
    """
    name, model, weights = filled
    monkeypatch.setattr(asked, "CANDIDATES", 100)
    monkeypatch.setattr(asked, "WIDE", 125)
    chosen = np.random.default_rng(3).choice(weights.shape[0], 100, replace=False)
    exact = (weights[chosen] @ weights.T).toarray()
    found = []
    everybody: dict[str, Any] = {"match_all": {}}
    with client() as server:
        for row, one in enumerate(chosen):
            answer = list(islice(asked.nearest(server, name, model, weights[one], everybody), 10))
            tenth = np.sort(exact[row])[-10]
            found.append(sum(cosine >= tenth - 1e-6 for _, cosine, _ in answer) / 10)
        assert len(list(asked.nearest(server, name, model, weights[chosen[0]], everybody))) <= 100
    assert np.mean(found) >= 0.95
