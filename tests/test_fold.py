"""Any order, any repetition of an entity's changes gives the state of one clean pass."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.fold import Change, Entity, family_at, fold, history_of, position, without

names = st.sampled_from(["unit", "bed", "status"])
changes = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.dictionaries(names, st.one_of(st.none(), st.text(max_size=3)), max_size=3),
        st.dictionaries(st.sampled_from(["name", "phone"]), st.one_of(st.none(), st.text(max_size=3)), max_size=2),
        st.dictionaries(
            st.tuples(st.sampled_from(["admissions", "vitals"]), st.sampled_from("abcd")),
            st.one_of(st.none(), st.integers(0, 9)),
            max_size=4,
        ),
    ),
    max_size=8,
)


def run(order: list[tuple[Any, ...]]) -> Entity:
    state: Entity = {}
    for at, clear, identifying, *entries in order:
        change = Change("patient", "", 0, clear, identifying, *entries)
        common = {"patient_ref": "r", "source": at[-1]}  # senders differ
        state = fold(state, change, at, common, lambda name, value: f"sealed:{name}:{value}")
    return state


@pytest.mark.parametrize("held", [2, 200])
@given(made=changes, random=st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(held: int, made: list[tuple[int, Any, Any, Any]], random: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.fold.HELD", held)
        _check_order(made, random)


def _check_order(made: list[tuple[int, Any, Any, Any]], random: Any) -> None:
    events = [(position(f"2026-01-01T00:0{minute}", f"e{n}"), *said) for n, (minute, *said) in enumerate(made)]
    clean = run(sorted(events, key=lambda event: event[0]))
    mixed = events + [random.choice(events) for _ in range(4 if events else 0)]
    random.shuffle(mixed)
    assert run(mixed) == clean


def test_a_field_not_carried_stays() -> None:
    state = run([("1|a", {"unit": "ICU"}, {"name": "n"}), ("2|b", {"bed": "3"}, {})])
    assert (state["unit"], state["bed"], state["sealed"]) == ("ICU", "3", {"name": "sealed:name:n"})


def test_an_explicit_null_clears() -> None:
    assert "unit" not in run([("1|a", {"unit": "ICU"}, {}), ("2|b", {"unit": None}, {})])


def test_a_late_event_does_not_win() -> None:
    assert run([("2|b", {"unit": "MED"}, {}), ("1|a", {"unit": "ED"}, {})])["unit"] == "MED"


def test_histories_keep_their_latest_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.fold.HELD", 2)
    state = run([(f"{n}|e", {}, {}, {("vitals", name): n}) for n, name in enumerate("abc", 1)])
    assert state["history"] == {"vitals": {"b": 2, "c": 3}}
    gone = run([("1|e", {}, {}, {("vitals", "a"): 1}), ("2|e", {}, {}, {("vitals", "a"): None})])
    assert gone.get("history", {}) == {}, "said not to be so"


@given(values=st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), random=st.randoms(use_true_random=False))
def test_the_least_value_of_all_events_stays(values: list[str], random: Any) -> None:
    events = [(f"{n}|e", value) for n, value in enumerate(values)]
    events += random.sample(events, len(events) // 2)
    random.shuffle(events)
    state = None
    for place, value in events:
        state = fold(state, Change("request", "r", 0, {}, least={"since": value}), place, {}, str)
    assert state is not None
    assert state["since"] == min(values)
    assert fold(state, Change("request", "r", 0, {}, least={"since": values[0]}), "0|e", {}, str) is state


def test_an_event_read_again_changes_no_history() -> None:
    again = ("1|a", {}, {}, {("admissions", "t"): ""})
    state = run([again])
    assert fold(state, Change("patient", "", 0, {}, {}, again[3]), "1|a", {}, str) is state


# ------------------------------------------------------------------------------------- one person, several references


def test_a_family_is_what_was_joined_by_then() -> None:
    merges = [("a", "b", 1.0), ("c", "b", 2.0), ("x", "y", 1.0), ("d", "c", 3.0)]
    assert [family_at("a", merges, when) for when in (0.5, 1.0, 2.0, 3.0)] == [
        {"a"},
        {"a", "b"},
        {"a", "b", "c"},
        {"a", "b", "c", "d"},
    ]
    assert family_at("d", merges, 9.0) == family_at("a", merges, 9.0)
    assert family_at("z", merges, 9.0) == {"z"}


@given(made=changes, owners=st.lists(st.booleans(), min_size=8, max_size=8), until=st.integers(0, 8))
def test_histories_of_two_references_are_the_one_that_both_would_have_made(
    made: list[tuple[int, Any, Any, Any]], owners: list[bool], until: int
) -> None:
    """Own and other up to an event, the other folded further: as if all of it had been told of one reference."""
    events = sorted((position(f"2026-01-01T00:0{minute}", f"e{n}"), *said) for n, (minute, *said) in enumerate(made))
    before = events[:until]
    at = before[-1][0] if before else ""
    own = run([event for event, mine in zip(events, owners, strict=False) if mine and event in before])
    other = run([event for event, mine in zip(before, owners, strict=False) if not mine])
    assert history_of(own, [other], at) == run(before).get("history", {})
    assert history_of(own, [], at) == own.get("history", {})


def test_of_another_reference_nothing_counts_that_came_later() -> None:
    own = run([("2|b", {}, {}, {("vitals", "pulse"): 80})])
    other = run([("1|a", {}, {}, {("diagnoses", "I50"): True}), ("3|c", {}, {}, {("person", "age"): 90})])
    assert history_of(own, [other], "2|b") == {"vitals": {"pulse": 80}, "diagnoses": {"I50": True}}
    withdrawn = run([("1|a", {}, {}, {("vitals", "pulse"): 70}), ("1|z", {}, {}, {("vitals", "pulse"): None})])
    assert history_of(run([("1|b", {}, {}, {("vitals", "pulse"): 80})]), [withdrawn], "2|b") == {}


@given(made=changes, gone=st.integers(0, 8))
def test_without_the_oldest_events_a_history_is_what_the_others_make(
    made: list[tuple[int, Any, Any, Any]], gone: int
) -> None:
    events = sorted((position(f"2026-01-01T00:0{minute}", f"e{n}"), *said) for n, (minute, *said) in enumerate(made))
    state, names = run(events), {at.split("|")[1] for at, *_ in events[:gone]}
    left = without(state, names) or state
    assert left.get("history", {}) == run(events[gone:]).get("history", {})
    assert left.get("sealed") == state.get("sealed")
    assert without(left, names) is None
    assert without(None, names) is None
