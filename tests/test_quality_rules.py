"""Association, sequence and classification rules: published examples, brute force, and what chance alone would give."""

from __future__ import annotations

from itertools import chain, combinations, pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from infra.errors import Untrainable, UsageError
from streams.quality import rules as module
from streams.quality.classify import class_rules
from streams.quality.rules import adjusted, changes, item_sets, rules
from streams.quality.sequences import Event, Pattern, in_order, patterns, sequence_rules

# The example of mlxtend's documentation (rasbt/mlxtend, docs/sources/user_guide/frequent_patterns, BSD-3).
BASKETS = (
    ("Milk", "Onion", "Nutmeg", "Kidney Beans", "Eggs", "Yogurt"),
    ("Dill", "Onion", "Nutmeg", "Kidney Beans", "Eggs", "Yogurt"),
    ("Milk", "Apple", "Kidney Beans", "Eggs"),
    ("Milk", "Unicorn", "Corn", "Kidney Beans", "Yogurt"),
    ("Corn", "Onion", "Onion", "Kidney Beans", "Ice cream", "Eggs"),
)


def test_item_sets_of_the_example() -> None:
    """As mlxtend's fpgrowth has them at 0.6."""
    found = {tuple(sorted(items)): count / 5 for items, count in item_sets(BASKETS, 0.6).items()}
    assert found == {
        ("Eggs",): 0.8,
        ("Kidney Beans",): 1.0,
        ("Milk",): 0.6,
        ("Onion",): 0.6,
        ("Yogurt",): 0.6,
        ("Eggs", "Kidney Beans"): 0.8,
        ("Eggs", "Onion"): 0.6,
        ("Kidney Beans", "Milk"): 0.6,
        ("Kidney Beans", "Onion"): 0.6,
        ("Kidney Beans", "Yogurt"): 0.6,
        ("Eggs", "Kidney Beans", "Onion"): 0.6,
    }


def test_rules_of_the_example() -> None:
    """mlxtend's association_rules: six of lift 1.2 or more, eight of confidence 0.9; Onion -> Eggs has lift 1.25."""
    found = rules(BASKETS, support=0.6, lift=1.2)
    assert len(found) == 6
    (one,) = (one for one in found if one.antecedent == {"Onion"} and one.consequent == {"Eggs"})
    assert (one.support, one.confidence) == (0.6, 1.0)
    assert (one.lift, one.leverage) == (pytest.approx(1.25), pytest.approx(0.12))
    assert one.p == pytest.approx(stats.fisher_exact([[3, 0], [1, 1]], alternative="greater").pvalue)
    assert len(rules(BASKETS, support=0.6, confidence=0.9)) == 8


baskets = st.lists(st.frozensets(st.sampled_from("abcdefg"), max_size=6), min_size=1, max_size=25)


@given(baskets, st.sampled_from((0.05, 0.2, 0.5, 1.0)), st.integers(1, 6))
@settings(deadline=None)
def test_item_sets_are_those_of_brute_force(held: list[frozenset[str]], support: float, longest: int) -> None:
    every = chain.from_iterable(combinations("abcdefg", size) for size in range(1, longest + 1))
    counts = {frozenset(some): sum(one >= set(some) for one in held) for some in every}
    assert item_sets(held, support, longest) == {
        items: count for items, count in counts.items() if count and count >= support * len(held) - 1e-9
    }


def test_rules_of_nothing_but_chance_are_not_sure() -> None:
    """Of 40 tables of independent items one in 20, and no more than three errors above, has a rule of q below 0.05."""
    rng = np.random.default_rng(4)
    names = [f"i{n}" for n in range(8)]
    sure = 0
    for _ in range(40):
        table = rng.random((200, 8)) < 0.4
        found = rules([[n for n, is_in in zip(names, row, strict=True) if is_in] for row in table], support=0.05)
        sure += any(one.q < 0.05 for one in found)
    assert sure <= 6


def test_adjusted_is_benjamini_and_hochberg() -> None:
    """Benjamini and Hochberg (1995), section 4.1: of 15 p-values the four smallest are rejected at 0.05."""
    said = (0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
            0.7590, 1.0)  # fmt: skip
    assert [q <= 0.05 for q in adjusted(said)] == [True] * 4 + [False] * 11
    assert adjusted([]) == []


def stays(count: int, seed: int, *, falls: float) -> list[set[str]]:
    """Stays with sedation, after which a share `falls`; others fall in one of 20."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        stay = {name for name in ("diabetes", "catheter", "surgery") if rng.random() < 0.3}
        sedated = rng.random() < 0.3
        stay |= {"sedation"} if sedated else set()
        stay |= {"fall"} if rng.random() < (falls if sedated else 0.05) else set()
        made.append(stay)
    return made


def test_a_rule_that_appeared_and_one_that_vanished() -> None:
    quiet, falling = stays(600, 1, falls=0.05), stays(600, 2, falls=0.4)
    for before, after, kind in ((quiet, falling, "appeared"), (falling, quiet, "vanished")):
        found = changes(before, after, support=0.05, confidence=0.3)
        surest = found[0]
        assert surest.kind == kind
        assert "fall" in surest.antecedent | surest.consequent
        (one,) = (one for one in found if (one.antecedent, one.consequent) == ({"sedation"}, {"fall"}))
        assert one.kind == kind
        assert one.q < 1e-6
        assert one.counts[0][2] == one.counts[1][2] == 600


def test_of_two_windows_alike_no_change_is_sure() -> None:
    """Thirty pairs of windows of the same wards: rules come and go at their thresholds, and none of them surely."""
    sure = named = 0
    for seed in range(30):
        pair = (stays(300, 100 + seed, falls=0.2), stays(300, 200 + seed, falls=0.2))
        found = changes(*pair, support=0.06, confidence=0.2)
        named += any(one.kind != "stayed" for one in found)
        sure += any(one.q < 0.05 for one in found)
    assert named > 10
    assert sure <= 4


def test_supports_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError):
        item_sets(BASKETS, 0.0)
    with pytest.raises(UsageError):
        patterns([in_order("ab")], 1.1)
    with pytest.raises(UsageError):
        patterns([in_order("ab")], 0.5, least_gap=3, most_gap=2)
    assert rules([], support=0.1) == []
    assert sequence_rules([], support=0.1) == []
    assert changes([], BASKETS, support=0.6, confidence=0.9)[0].kind == "appeared"
    monkeypatch.setattr(module, "MOST_SETS", 15)
    with pytest.raises(UsageError, match="too many rules"):
        rules(BASKETS, support=0.6)
    monkeypatch.setattr(module, "MOST_SETS", 5)
    with pytest.raises(UsageError, match="higher support"):
        item_sets(BASKETS, 0.6)


# The example of the Python package prefixspan (chuanconggao/PrefixSpan-py, README, MIT).
SEQUENCES = ([0, 1, 2, 3, 4], [1, 1, 1, 3, 4], [2, 1, 2, 2, 0], [1, 1, 1, 2, 2])


def test_patterns_of_the_example() -> None:
    """Its patterns of two sequences or more, as the package multiprefixspan 0.0.2 prints them in its description."""
    found = patterns([in_order([str(one) for one in row]) for row in SEQUENCES], 2 / 4)
    assert {"".join(pattern): count for pattern, count in found.items()} == {
        "0": 2, "1": 4, "12": 3, "122": 2, "13": 2, "134": 2, "14": 2, "11": 2, "111": 2, "2": 3, "22": 2, "3": 2,
        "34": 2, "4": 2,
    }  # fmt: skip


def occurs(pattern: Pattern, events: list[Event], least: float, most: float | None) -> bool:
    """By trying every choice of places."""
    for places in combinations(range(len(events)), len(pattern)):
        if all(events[place][1] == name for place, name in zip(places, pattern, strict=True)):
            gaps = [events[b][0] - events[a][0] for a, b in pairwise(places)]
            if all(gap > 0 and gap >= least and (most is None or gap <= most) for gap in gaps):
                return True
    return False


events = st.lists(st.tuples(st.integers(0, 8).map(float), st.sampled_from("abc")), max_size=7)


@given(
    st.lists(events, min_size=1, max_size=6),
    st.sampled_from((0.1, 0.4, 0.7)),
    st.sampled_from((0.0, 2.0)),
    st.sampled_from((None, 2.0, 3.0)),
)
@settings(max_examples=150, deadline=None)
def test_patterns_are_those_of_brute_force(
    held: list[list[Event]], support: float, least: float, most: float | None
) -> None:
    found = patterns(held, support, longest=3, least_gap=least, most_gap=most)
    counts = {}
    for size in (1, 2, 3):
        for pattern in product("abc", repeat=size):
            counts[pattern] = sum(occurs(pattern, sorted(one), least, most) for one in held)
    assert found == {
        pattern: count for pattern, count in counts.items() if count and count >= support * len(held) - 1e-9
    }


def test_a_later_beginning_may_be_the_one_that_goes_on() -> None:
    """a at 0 and 5, b at 6: within two hours b follows the second a alone."""
    held: list[list[Event]] = [[(0.0, "a"), (5.0, "a"), (6.0, "b")], [(0.0, "a"), (6.0, "b")]]
    assert patterns(held, 0.5, most_gap=2)[("a", "b")] == 1
    assert patterns(held, 0.5)[("a", "b")] == 2


def test_sequence_rules() -> None:
    """100 stays: 30 of 40 with a late antibiotic go on to sepsis, 6 of the others have sepsis without it."""
    late, other = "late antibiotic", "visit"
    held = [in_order([late, other, "sepsis"])] * 30 + [in_order([late, other])] * 10
    held += [in_order([other, "sepsis"])] * 6 + [in_order([other])] * 54
    (one,) = (x for x in sequence_rules(held, support=0.1) if (x.antecedent, x.consequent) == ((late,), "sepsis"))
    assert (one.count, one.of, one.support, one.confidence) == (30, 100, 0.3, 0.75)
    assert one.lift == pytest.approx(0.3 / (0.4 * 0.36))
    assert one.leverage == pytest.approx(0.3 - 0.4 * 0.36)
    assert one.p == pytest.approx(stats.fisher_exact([[30, 10], [6, 54]], alternative="greater").pvalue)
    assert one.q < 1e-6
    assert all(x.consequent != late for x in sequence_rules(held, support=0.1))


def patients(count: int, seed: int) -> tuple[Any, Any]:
    """Death in half of those above 70 with a systolic pressure below 100, in one of 20 of all others."""
    rng = np.random.default_rng(seed)
    age, pressure, noise = rng.uniform(20, 95, count), rng.normal(120, 25, count), rng.random(count)
    risk = np.where((age > 70) & (pressure < 100), 0.5, 0.05)
    return np.column_stack((age, pressure, noise)), rng.random(count) < risk


FIELDS = ("age", "systolic", "noise")


def test_the_planted_rule_is_said() -> None:
    rows, died = patients(4000, 1)
    found = class_rules(rows, died, FIELDS)
    first = found[0]
    bounds = {one.field: (one.low, one.high) for one in first.conditions}
    assert bounds["age"][0] == pytest.approx(70, abs=3)
    assert bounds["systolic"][1] == pytest.approx(100, abs=5)
    assert first.low < 0.5 < first.high
    assert first.q < 1e-9
    assert first.lift > 3
    assert str(first).startswith("age > ") or str(first).startswith("systolic <= ")
    assert sum(one.count for one in found) == 2000


def test_figures_are_of_rows_that_no_rule_was_made_of() -> None:
    """Of noise alone nothing is sure, whatever the tree made of its own half."""
    rng = np.random.default_rng(3)
    sure = 0
    for seed in range(15):
        rows, died = rng.random((400, 3)), rng.random(400) < 0.3
        sure += any(one.q < 0.05 for one in class_rules(rows, died, FIELDS, seed=seed))
    assert sure <= 3


def test_rows_that_make_no_rules() -> None:
    rows, died = patients(400, 2)
    with pytest.raises(Untrainable, match=r"^one_class"):
        class_rules(rows, np.zeros(400), FIELDS)
    few = np.zeros(400)
    few[:5] = 1
    with pytest.raises(Untrainable, match=r"^too_few_events"):
        class_rules(rows, few, FIELDS)
    with pytest.raises(UsageError):
        class_rules(rows, died, FIELDS[:2])


def test_a_constant_field_and_a_missing_one() -> None:
    rows, died = patients(2000, 4)
    rows[:, 2] = 1.0
    rows[::7, 1] = np.nan
    found = class_rules(rows, died, FIELDS)
    assert {condition.field for one in found for condition in one.conditions} <= {"age", "systolic"}
    (everybody,) = class_rules(np.ones((2000, 1)), died, ("constant",))
    assert everybody.conditions == ()
    assert str(everybody).startswith("everybody: ")
