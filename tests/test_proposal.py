"""What is kept and told of a plan, and when the next one is due. Without servers; on the stack: test_plan_stack.py."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.crypto import DataKey
from infra.elastic import Write
from schemas.signal import SignalEnvelope
from schemas.sites import PROPOSED, mapping, number
from streams.allocation import proposal
from streams.allocation.conflict import Conflict
from streams.allocation.plan import BED, NURSE, THEATRE, Assignment, Breach, Plan, Reason
from streams.allocation.planner import plan
from streams.allocation.signals import OVERLOAD, RAISED, Alert, Key, Raised
from streams.allocation.site import Bed, Need, Nurse, Request, Site, Stay
from streams.planning import LONGEST_SECONDS, QUIET_SECONDS, STALE_SECONDS, Due

AT = "2026-03-01T08:00:00.000Z"
BEDS = {f"W|{room}|{bed}": Bed(f"W|{room}|{bed}", "W", f"{room}") for room in (1, 2) for bed in (1, 2)}
SITE = Site(
    "NORTH",
    AT,
    BEDS,
    stays=(Stay(Need("stay-1", "anna", sex="F", leaves=30), "W|1|1"),),
    requests=(Request(Need("ask-1", "bert", sex="M"), 1), Request(Need("ask-2", "cora", sex="F"), 2)),
    nurses=(Nurse("nora", -1.0, 7.0),),
)
KEYS = {ref: DataKey(ref, f"t-{ref}", 1, ref.encode() * 8) for ref in ("bert", "cora", "nora")}


def made(site: Site = SITE) -> proposal.Document:
    return proposal.document(site, plan(site, seconds=0.3))


def test_a_document_says_who_goes_where_and_why() -> None:
    said = made()
    beds = {one["ref"]: one for one in said["lines"] if one["assignment"] == BED}
    assert beds.keys() == {"ask-1", "ask-2"}  # who stays, and costs nothing, is in no line
    assert beds["ask-1"]["to"] in ("W|2|1", "W|2|2")
    assert beds["ask-2"]["to"] == "W|1|2"
    assert (beds["ask-1"]["patient_ref"], beds["ask-1"]["decided"]) == ("bert", "unplaced")
    assert said["patient_ref"] == ["bert", "cora"]
    assert said["staff_ref"] == ["nora"]
    assert {one["to"] for one in said["lines"] if one["assignment"] == NURSE} == {"W|1", "W|2"}
    assert all(one["until"] == "2026-03-01T15:00:00.000Z" for one in said["lines"] if one["assignment"] == NURSE)
    assert said.keys() <= mapping()["properties"].keys()


def test_a_plan_has_one_id_for_what_is_to_be_done() -> None:
    first, later = made(), made(replace(SITE, at="2026-03-01T08:00:20.000Z"))
    assert first["plan"] == later["plan"]
    assert made(replace(SITE, requests=SITE.requests[:1]))["plan"] != first["plan"]
    assert made(replace(SITE, id="SOUTH"))["plan"] != first["plan"]


def test_a_kept_plan_is_read_again() -> None:
    whole = plan(SITE, seconds=0.3)
    again = proposal.of_document(proposal.document(SITE, whole), AT)
    acts = {(one.kind, one.ref, one.to) for one in whole.assignments if one.action}
    assert {(one.kind, one.ref, one.to) for one in again if one.action} == acts
    assert proposal.of_document(None, AT) == []


def test_what_was_accepted_comes_before_the_last_plan_until_it_is_done() -> None:
    accepted = [Assignment(BED, "ask-1", "W|1|2"), Assignment(BED, "stay-1", "W|2|1", prior="W|1|1")]
    last = Plan("NORTH", AT, (Assignment(BED, "ask-1", "W|2|1"), Assignment(BED, "ask-2", "W|2|2")), {})
    before = proposal.over(accepted, last, SITE)
    assert before is not None
    assert {ref: one.to for ref, one in before.beds().items()} == {
        "ask-1": "W|1|2", "ask-2": "W|2|2", "stay-1": "W|2|1",
    }  # fmt: skip
    moved = replace(SITE, stays=(replace(SITE.stays[0], bed="W|2|1"),))
    done = proposal.over(accepted, last, moved)
    assert done is not None
    assert "stay-1" not in done.beds()
    assert proposal.over([], None, SITE) is None


def test_a_bed_that_events_have_overruled_is_owed_no_more() -> None:
    """Accepted from W|1|1 to W|2|1, done, and then moved on: the plan does not draw the patient back."""
    accepted = [Assignment(BED, "stay-1", "W|2|1", prior="W|1|1")]
    elsewhere = replace(SITE, stays=(replace(SITE.stays[0], bed="W|2|2"),))
    assert proposal.over(accepted, None, SITE) is not None
    assert proposal.over(accepted, None, elsewhere) is None


def test_what_was_carried_out_is_done_and_not_withdrawn() -> None:
    before = made()
    (man,) = [one for one in before["lines"] if one.get("patient_ref") == "bert"]
    lies = Stay(Need("stay-2", "bert", sex="M", leaves=30), man["to"])
    later = replace(SITE, stays=(*SITE.stays, lies), requests=SITE.requests[1:])
    told = [one for one in proposal.untold(made(later), before, later) if one.get("patient_ref") == "bert"]
    assert [(one["state"], one["plan"]) for one in told] == [("done", before["plan"])]
    gone = proposal.untold(made(replace(SITE, requests=SITE.requests[1:])), before, SITE)
    assert [one["state"] for one in gone if one.get("patient_ref") == "bert"] == ["withdrawn"]


def test_an_operation_is_known_by_its_place_in_the_order_of_its_theatre() -> None:
    def of(*starts: float) -> str:
        lines = tuple(Assignment(THEATRE, f"ask-{one}", "T1", at, None, at + 1) for one, at in enumerate(starts, 1))
        return str(proposal.document(SITE, Plan("NORTH", AT, lines, {}))["plan"])

    assert of(0, 2) == of(0.25, 2.5)
    assert of(0, 2) != of(2, 0)


def test_everybody_whom_a_plan_names_is_among_the_named() -> None:
    """In a breach, in a conflict, as the next best: an erasure has to find the document by them."""
    surgeon = replace(SITE.requests[0], surgeon="sven", minutes=30)
    site = replace(SITE, requests=(surgeon,), nurses=(Nurse("nora", -1.0, 7.0), Nurse("nils", -1.0, 7.0)))
    lines = (Assignment(NURSE, "nora", "W|1", 0.0, None, 7.0, Reason({}, "overload", "nils", 3.0)),)
    breaches = (Breach("surgeon", ("ask-1",), "sven"), Breach("placed", ("stay-1",), "W|1|1"))
    why = Conflict((Breach("sex", ("stay-1",), "W|1"),))
    said = proposal.document(site, Plan("NORTH", AT, lines, {}, breaches=breaches), why)
    assert said["patient_ref"] == ["anna", "bert"]
    assert said["staff_ref"] == ["nils", "nora"]
    assert said["persons"] == {"ask-1": "bert", "stay-1": "anna"}
    assert "sven" not in str(said["breaches"])
    told = proposal.messages(said, proposal.untold(said, None, site), KEYS.get)
    opened = SignalEnvelope.read(told[0].headers).opened([KEYS["nora"]], told[0].value or b"")
    assert (opened["ref"], opened["next_best"], opened["next_cost"]) == ("nora", None, 3.0)


def test_a_difference_is_of_what_is_to_be_done() -> None:
    lines = [
        {"assignment": BED, "ref": "a", "to": "1", "action": True, "at": AT},
        {"assignment": BED, "ref": "b", "to": "2", "action": True, "at": AT},
        {"assignment": BED, "ref": "c", "to": None, "action": False, "at": AT},
    ]
    later = [lines[0] | {"at": "2026-03-01T09:00:00.000Z"}, lines[1] | {"to": "3"}]
    apart = proposal.difference(later, lines)
    assert [(one["ref"], one["to"]) for one in apart.new] == [("b", "3")]
    assert [(one["ref"], one["to"]) for one in apart.gone] == [("b", "2")]


def test_each_line_is_told_under_the_key_of_whom_it_is_about() -> None:
    said = made()
    lines = proposal.untold(said, None, SITE)
    assert {one["state"] for one in lines} == {PROPOSED}
    assert len(lines) == said["actions"] > 2
    told = proposal.messages(said, lines, KEYS.get)
    assert len(told) == len(lines) + 1
    for line, one in zip(lines, told, strict=False):
        assert one.value is not None
        head = SignalEnvelope.read(one.headers)
        ref = line.get("patient_ref") or line["staff_ref"]
        assert head.subject == f"t-{ref}"
        assert head.opened([KEYS[ref]], one.value)["to"] == line["to"]
        assert line["to"].encode() not in one.value
    whole = SignalEnvelope.read(told[-1].headers)
    assert (whole.signal, whole.subject) == ("plan", "")
    assert not any(ref.encode() in (told[-1].value or b"") for ref in ("bert", "cora", "nora", "ask-", "stay-"))
    assert len({SignalEnvelope.read(one.headers).document for one in told}) == len(told)
    again = proposal.messages(said, lines, KEYS.get)
    assert [one.headers[2] for one in again] == [one.headers[2] for one in told]  # told twice, it has the same id


def test_who_was_erased_is_told_of_no_more() -> None:
    said = made()
    lines = proposal.untold(said, None, SITE)
    told = proposal.messages(said, lines, lambda ref: None if ref == "bert" else KEYS.get(ref))
    assert "t-bert" not in {SignalEnvelope.read(one.headers).subject for one in told}
    assert len(told) == len(lines)  # one less, and the one for all
    assert proposal.messages(said, lines, lambda _: None) == []


def test_what_is_raised_is_kept() -> None:
    raised = Raised(AT, {Key(OVERLOAD, "W", "beds"): AT})
    alert = Alert("NORTH", OVERLOAD, RAISED, "W", "beds", AT, AT, 1.0, 0.95, ("4 of 4",))
    assert proposal.raised_of(proposal.raised_document("NORTH", raised, [alert])) == (raised, [alert])
    assert proposal.raised_of(None) == (Raised(), [])
    assert proposal.alert(alert).headers == proposal.alert(alert).headers


def test_a_forecast_counts_for_two_hours() -> None:
    point = {"hours": 4, "at": AT, "expected": 9.0, "intervals": [{"level": 0.8, "low": 7.0, "high": 11.0}]}
    said = proposal.forecast_document("NORTH", AT, [{"unit": "W", "beds": 4, "forecast": [point]}])
    assert said.keys() <= mapping()["properties"].keys()
    found = proposal.forecasts_of(said, "2026-03-01T09:59:00.000Z")
    assert found is not None
    assert found["W"][0].chance_above(4) > 0.99
    assert proposal.forecasts_of(said, "2026-03-01T10:01:00.000Z") is None
    assert proposal.forecasts_of(None, AT) is None


def test_a_breach_and_a_reason_are_in_the_document() -> None:
    lines = (Assignment(BED, "ask-1", None, reason=Reason({"unplaced": 1200.0}, "sex", "W|1|1", 3.0)),)
    said = proposal.document(
        SITE, Plan("NORTH", AT, lines, {"unplaced": 1200.0}, breaches=(Breach("due", ("ask-1",)),))
    )
    assert (said["waiting"], said["actions"], said["cost"]) == (1, 0, 1200.0)
    assert said["breaches"] == [{"rule": "due", "refs": ("ask-1",), "where": ""}]


def test_a_house_may_be_called_anything() -> None:
    for name in ('St "Anna"', "A\\b", 'X","_index":"ehr","require_alias":"false', "[/B]"):
        (action, _) = Write(number(PROPOSED, name), b"{}").lines().splitlines()
        assert orjson.loads(action)["index"].keys() == {"_id", "version", "version_type"}


# --- when the next plan is due


def test_a_change_is_planned_once_it_is_quiet() -> None:
    due = Due()
    due.look(1, 10.0)
    assert not due.now(10.0)
    assert due.now(10.01 + QUIET_SECONDS)


def test_changes_one_after_the_other_put_it_off_only_so_long() -> None:
    due, version = Due(), 0
    now = 10.0
    while not due.now(now):
        version += 1
        due.look(version, now)
        now += QUIET_SECONDS / 2
        assert now < 20
    assert now - 10.0 == pytest.approx(LONGEST_SECONDS, abs=QUIET_SECONDS)


def test_the_next_plan_waits_as_long_as_the_last_one_took() -> None:
    due = Due()
    due.look(1, 10.0)
    due.begin()
    due.end(10.2, 11.2)
    due.look(2, 11.3)
    assert not due.now(11.5)
    assert due.now(12.3)


def test_a_quiet_site_is_planned_again_after_a_while() -> None:
    due = Due()
    due.look(1, 10.0)
    due.begin()
    due.end(10.0, 10.5)
    due.look(1, 100.0)
    assert not due.now(100.0)
    assert due.now(10.5 + STALE_SECONDS)


@given(st.integers(0, 10_000), st.floats(0.05, 2.0))
def test_a_storm_makes_few_plans(seed: int, takes: float) -> None:
    """However events come, planning has at most half of the time, and no change waits for ever."""
    chance, due, now, plans, busy, until = Random(seed), Due(), 0.0, 0, 0.0, 0.0
    for version in range(1000):
        now += chance.uniform(0.001, 0.2)
        due.look(version, now)
        if now >= until and due.now(now):
            due.begin()
            plans += 1
            busy += takes
            until = now + takes
            due.end(now, until)
    assert busy <= now / 2 + 2 * takes
    assert plans >= int(now / (2 * takes + LONGEST_SECONDS + QUIET_SECONDS + 0.4))
