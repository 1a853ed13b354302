"""The fault harness: each verdict of its checker is shown to trip. The run against real servers is `make faults`."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAULTS = ROOT / "tests" / "faults"
sys.path.append(str(FAULTS))

import cluster  # noqa: E402
import workload  # noqa: E402
from checker import PARTS, VERDICTS, Evidence, judge  # noqa: E402
from proxy import Node, chosen  # noqa: E402
from steps import FAULTS as KNOWN  # noqa: E402
from steps import PAIRS, Done, Look, schedule  # noqa: E402
from workload import Message, Workload  # noqa: E402

from schemas.envelope import document_id  # noqa: E402

REF = "r1"


def message(number: int, kind: str = "move", answer: str = "AA") -> Message:
    return Message(f"F1-{number}", "1", number, kind, b"body%d" % number, f"e{number}", f"T{number}", answer)


def documents(one: Message) -> list[dict[str, Any]]:
    common = {"event_id": one.event_id, "event_time": one.at, "patient_ref": REF}
    parts = [{"kind": "event", "language": f"L{one.number}"}]
    if one.kind == "move":
        parts.append({"kind": "visit", "room": str(one.number)})
    else:
        parts += [{"kind": "order"}, {"kind": "observation", "value_number": float(one.number)}]
    return [{**common, "part": part, **rest} for part, rest in enumerate(parts)]


def signalled(one: Message) -> dict[str, Any]:
    return {
        "signal": "critical_result", "domain": "ehr", "event_id": one.event_id, "patient_ref": REF,
        "document": document_id(one.event_id, 2), "event_time": one.at, "detail": {"code": "2823-3", "flag": "HH"},
    }  # fmt: skip


def entity(kind: str, one: Message, **field: str) -> dict[str, Any]:
    return {"kind": kind, "patient_ref": REF, "event_id": one.event_id, **field}


def audited(document: str, field: str, purpose: str) -> dict[str, Any]:
    return {
        "subtype": [{"code": "reveal"}],
        "purposeOfEvent": [{"coding": [{"code": purpose}]}],
        "entity": [{}, {"what": {"identifier": {"value": document}}, "detail": [{"valueString": field}]}],
    }


@pytest.fixture
def clean() -> Evidence:
    """Two moves and two results of one person; a poisoned message, and one that the edge refused; a person who looked;
    a fault."""
    good = [message(1), message(2), message(3, "result"), message(4, "result")]
    order = [one.event_id for one in good]
    return Evidence(
        [*good, message(5, "poison"), message(6, "refused", "AE")],
        raw=[*order, "e5"],
        sealed=list(order),
        payloads={one.event_id: {one.body} for one in good},
        kept=set(order),
        signals=[signalled(one) for one in good[2:]],
        letters={"e5": ["bad_date"], "e6": ["missing_segment"]},
        documents={one.event_id: documents(one) for one in good},
        entities=[entity("patient", good[3], language="L4"), entity("encounter", good[1], room="2")],
        audit=[audited("e1-0", "name", "TREAT")],
        looks=[Look("e1", "name", "TREAT", ["e1-0"])],
        steps=[Done(1, "index_503", {"index 503": 9})],
    )


def verdicts(seen: Evidence) -> set[str]:
    return {name for name, found in judge(seen).items() if found}


def test_a_clean_run_is_clean(clean: Evidence) -> None:
    assert verdicts(clean) == set()


def poisoned(seen: Evidence) -> None:
    del seen.letters["e5"]


def poison_was_read(seen: Evidence) -> None:
    seen.documents["e5"] = documents(replace(message(5), kind="move"))


def refused(seen: Evidence, *events: str) -> None:
    """The index refused these events, for the reason that we planted: gone, with a letter each."""
    for event in events:
        seen.intruded.add(event)
        seen.letters[event] = ["index_refused"]
        seen.documents.pop(event, None)
        seen.kept.discard(event)


def refused_without_cause(seen: Evidence) -> None:
    refused(seen, "e3")
    seen.intruded.clear()


def refused_and_kept(seen: Evidence) -> None:
    refused(seen, "e3")
    seen.kept.add("e3")


def person_is_two(seen: Evidence) -> None:
    for one in seen.documents["e1"]:
        one["patient_ref"] = "r2"


def persons_are_one(seen: Evidence) -> None:
    for event in ("e3", "e4"):
        at = next(i for i, one in enumerate(seen.messages) if one.event_id == event)
        seen.messages[at] = replace(seen.messages[at], patient="2")


def stays_at_an_earlier_event(kind: str) -> Callable[[Evidence], None]:
    def plant(seen: Evidence) -> None:
        one = next(one for one in seen.entities if one["kind"] == kind)
        one.update(event_id="e1", room="1", language="L1")

    return plant


def ahead(seen: Evidence, flags: tuple[str, ...] = ("future_time",)) -> None:
    """The last message says that it is from the future: it counts as of its arrival, and its documents say so."""
    for document in seen.documents[seen.messages[2].event_id]:
        document |= {"received_at": document["event_time"], "flags": flags}
    seen.messages[2] = replace(seen.messages[2], at="")


PLANTED: list[tuple[str, str, Callable[[Evidence], Any]]] = [
    ("lost", "document", lambda seen: seen.documents.pop("e1")),
    ("lost", "in part", lambda seen: seen.documents["e1"].pop()),
    ("lost", "sealed record", lambda seen: seen.kept.remove("e2")),
    ("lost", "letter", poisoned),
    ("lost", "signal", lambda seen: seen.signals.pop()),
    ("lost", "audit", lambda seen: seen.audit.clear()),
    ("lost", "audit of another purpose", lambda seen: seen.audit.__setitem__(0, audited("e1-0", "name", "BTG"))),
    ("lost", "refused without cause", refused_without_cause),
    ("wrong", "time ahead and not flagged", lambda seen: ahead(seen, ())),
    ("doubled", "document", lambda seen: seen.documents["e1"].append(seen.documents["e1"][0])),
    ("doubled", "control id", lambda seen: seen.messages.append(replace(seen.messages[0], event_id="e1b", answer=""))),
    ("doubled", "patient", lambda seen: seen.entities.append(dict(seen.entities[0]))),
    ("doubled", "encounter", lambda seen: seen.entities.append(dict(seen.entities[1]))),
    ("doubled", "reference", person_is_two),
    ("doubled", "sealed payload", lambda seen: seen.payloads["e1"].add(b"another")),
    ("doubled", "signal of another document", lambda seen: seen.signals.append(seen.signals[1] | {"document": "e4-1"})),
    ("doubled", "signal of another detail", lambda seen: seen.signals.append(seen.signals[1] | {"detail": {}})),
    ("wrong", "sealed", lambda seen: seen.payloads.update(e1={b"otherwise"})),
    ("wrong", "room", lambda seen: seen.documents["e1"][1].update(room="9")),
    ("wrong", "value", lambda seen: seen.documents["e3"][2].update(value_number=9.0)),
    ("wrong", "language", lambda seen: seen.documents["e3"][0].update(language="L9")),
    ("wrong", "event time", lambda seen: seen.documents["e1"][1].update(event_time="T0")),
    ("wrong", "persons", persons_are_one),
    ("wrong", "encounter", stays_at_an_earlier_event("encounter")),
    ("wrong", "encounter's field", lambda seen: seen.entities[1].update(room="1")),
    ("wrong", "patient", stays_at_an_earlier_event("patient")),
    ("wrong", "patient's field", lambda seen: seen.entities[0].update(language="L3")),
    ("wrong", "no patient", lambda seen: seen.entities.pop(0)),
    ("wrong", "no encounter", lambda seen: seen.entities.pop(1)),
    ("wrong", "entity of nobody", lambda seen: seen.entities.append(seen.entities[0] | {"patient_ref": "r2"})),
    ("wrong", "entity of a kind", lambda seen: seen.entities.append(seen.entities[0] | {"kind": "ward"})),
    ("wrong", "letter", lambda seen: seen.letters.update(e1=["bad_date"])),
    ("wrong", "letter without cause", refused_without_cause),
    ("wrong", "letter beside the cause", lambda seen: (refused(seen, "e3"), seen.letters["e3"].append("unexpected"))),
    ("wrong", "poison for another reason", lambda seen: seen.letters.update(e5=["unexpected"])),
    ("wrong", "poison indexed", poison_was_read),
    ("wrong", "poison signalled", lambda seen: seen.signals.append(signalled(message(5)))),
    ("wrong", "refused and kept", refused_and_kept),
    ("wrong", "answer", lambda seen: seen.messages.append(message(7, answer="AE"))),
    ("wrong", "answer to a refused one", lambda seen: seen.messages.append(message(7, "refused", "AA"))),
    ("wrong", "signal", lambda seen: seen.signals[0].update(detail={"code": "2823-3", "flag": "LL"})),
    ("wrong", "signal of another person", lambda seen: seen.signals[0].update(patient_ref="r2")),
    ("wrong", "signal of a move", lambda seen: seen.signals.append(signalled(message(1)))),
    ("wrong", "stranger's letter", lambda seen: seen.letters.update(stranger=["bad_date"])),
    ("wrong", "stranger's record", lambda seen: seen.sealed.append("stranger")),
    ("wrong", "stranger's audit", lambda seen: seen.audit.append(audited("e2-0", "name", "TREAT"))),
    ("wrong", "a step's own finding", lambda seen: seen.wrong.append("poison was drained")),
    ("out_of_order", "raw", lambda seen: seen.raw.reverse()),
    ("out_of_order", "sealed", lambda seen: seen.sealed.reverse()),
    ("out_of_order", "signals", lambda seen: seen.signals.reverse()),
    ("unseen", "", lambda seen: seen.unseen.append("F1-1")),
    ("stuck", "", lambda seen: seen.stuck.append("worker-0")),
    ("clear", "", lambda seen: seen.in_clear.append("worker.log")),
    ("idle", "nothing happened", lambda seen: seen.steps.append(Done(2, "worker_killed", {}))),
    ("idle", "something else happened", lambda seen: seen.steps.append(Done(2, "index_half_open", {"index stall": 3}))),
    ("idle", "counted as none", lambda seen: seen.steps.append(Done(2, "index_read_only", {"index blocked": 0}))),
]


@pytest.mark.parametrize(
    ("verdict", "plant"), [(row[0], row[2]) for row in PLANTED], ids=[" ".join(r[:2]) for r in PLANTED]
)
def test_each_verdict_trips(clean: Evidence, verdict: str, plant: Callable[[Evidence], Any]) -> None:
    plant(clean)
    assert verdict in verdicts(clean)


def test_no_verdict_is_left_out() -> None:
    assert {verdict for verdict, *_ in PLANTED} == set(VERDICTS)


def test_what_is_written_at_least_once_may_come_twice(clean: Evidence) -> None:
    """Read again after a crash: only first occurrences have an order, and a repeat that says the same is none."""
    clean.sealed = ["e1", "e2", "e1", "e2", "e3", "e4"]
    clean.signals.append(dict(clean.signals[0]))
    assert verdicts(clean) == set()


def test_an_unanswered_message_may_be_absent(clean: Evidence) -> None:
    clean.messages.append(message(7, answer=""))
    assert verdicts(clean) == set()


def test_a_planted_refusal_excuses_its_own_event(clean: Evidence) -> None:
    """Whether it was folded before, by another worker, is open; anything but that is not."""
    refused(clean, "e4")
    assert verdicts(clean) == set()
    clean.entities[0].update(event_id="e3", language="L3")
    assert verdicts(clean) == set()
    clean.entities[0].update(event_id="e2", language="L2")
    assert verdicts(clean) == {"wrong"}


def test_a_person_of_whom_all_was_refused_may_have_an_entity(clean: Evidence) -> None:
    one = replace(message(1), patient="2", control="F2-1", event_id="e7")
    clean.messages.append(one)
    refused(clean, "e7")
    assert verdicts(clean) == set()
    clean.entities.append(entity("patient", one) | {"patient_ref": "r2"})
    assert verdicts(clean) == set()


def test_schedule_is_the_seeds() -> None:
    assert schedule(3, 70) == schedule(3, 70) != schedule(4, 70)
    assert {name for names in schedule(3, 64) for name in names} == set(KNOWN)
    assert set(PAIRS) <= set(schedule(3, 64))
    assert {name for pair in PAIRS for name in pair} <= set(KNOWN)


def made(seed: int, *turns: int, poison: float = 0.01) -> list[list[Message]]:
    """What two lanes make when they are asked in turns of so many messages."""
    work = Workload(b"key", seed, [1, 2], 0)
    work.poison = poison
    lanes = [work.made(0), work.made(1)]
    some: list[list[Message]] = [[], []]
    for turn, count in enumerate(turns):
        some[turn % 2] += islice(lanes[turn % 2], count)
    return some


def test_messages_are_the_seeds_however_the_network_times_them() -> None:
    assert made(3, 200, 200) == made(3, 50, 200, 150) != made(4, 200, 200)


def test_what_is_poisoned_changes_nothing_else() -> None:
    (plain, _), (poisoned, _) = made(3, 400), made(3, 400, poison=0.3)
    assert [(one.control, one.at) for one in plain] == [(one.control, one.at) for one in poisoned]
    assert sum(one.kind == "poison" for one in plain) < 20 < sum(one.kind == "poison" for one in poisoned)


def test_new_patients_keep_coming() -> None:
    (some, _) = made(3, 600)
    assert len({one.patient for one in some if int(one.patient) >= workload.PATIENTS}) == 12
    assert {one.kind for one in some} > set(PARTS)


def test_a_refusal_is_planted_in_chosen_events_alone() -> None:
    node = Node(1, 2, 3)
    lines = [b'{"event_id":"%032x","part":0}' % (number << 112) for number in range(1, 81)]
    after = [node._intruded(line) for line in lines]
    assert [line != given for line, given in zip(after, lines, strict=True)] == [n % 40 == 0 for n in range(1, 81)]
    assert len(node.intruded) == node.did["index refuse"] == 2
    assert all(map(chosen, node.intruded))


def test_failures_are_read_off_the_metrics() -> None:
    page = (
        b'wardstream_answered_total{code="AR",feed="mllp",reason="key_store_busy"} 2.0\n'
        b'wardstream_answered_total{code="AA",feed="mllp",reason=""} 99.0\n'
        b'wardstream_answered_created{code="AR",feed="mllp",reason="key_store_busy"} 1.7e+09\n'
        b'wardstream_target_failures_total{reason="key_store_busy",target="keystore"} 1.0\n'
    )
    assert cluster.failures(page, "key_store_busy") == 3
    assert cluster.failures(page, "broker_unavailable") == 0


async def test_who_outlives_a_sigterm_is_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sent it, and whether or not anybody waited for the end."""
    monkeypatch.setattr(cluster, "STUCK_SECONDS", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    program = cluster.Program("worker-0", [sys.executable, "-c", deaf], {}, tmp_path / "log", ours=True)
    program.start()
    while not program.log.read_bytes():
        await asyncio.sleep(0.02)
    program.wanted = False
    program.send(signal.SIGTERM)
    for _ in range(100):
        program.look()
        await asyncio.sleep(0.02)
    assert (program.stuck, program.exits, program.did) == (1, [-signal.SIGKILL], {"worker killed": 1})
    assert not program.running


async def test_a_program_that_is_held_down_stays_down(tmp_path: Path) -> None:
    program = cluster.Program(
        "broker-0", [sys.executable, "-c", "import time; time.sleep(60)"], {}, tmp_path / "log", ours=False
    )
    program.start()
    program.wanted = False
    program.send(signal.SIGKILL)
    for _ in range(20):
        program.look()
        await asyncio.sleep(0.02)
    assert not program.running
    program.start()
    assert not await program.stop()
    assert program.did == {"broker killed": 1, "broker ended": 1}
