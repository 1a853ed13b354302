"""Sequence rules: what follows what within a stay, by PrefixSpan with gaps. Pure.

PrefixSpan (Pei et al., IEEE TKDE 16, 2004) lengthens each frequent pattern by whatever is frequent behind it. Without
a limit on gaps the first place where a pattern can end is enough to know; with one (Antunes and Oliveira, MLDM 2003) a
later end may go on where the first cannot, so every end is kept. A pattern counts once a sequence. With such a limit
a pattern's beginnings are as frequent as the pattern; what is left when one in the middle is taken out need not be.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from infra.errors import UsageError
from streams.quality.rules import MOST_SETS, Rule, least_count, told

Pattern = tuple[str, ...]
Event = tuple[float, str]  # when, in any unit, and what; at one time nothing is behind anything

LONGEST = 5


def in_order(names: Sequence[str]) -> list[Event]:
    """Events without times: gaps are then counted in events, 1 from each to the next."""
    return [(float(place), name) for place, name in enumerate(names)]


def patterns(
    sequences: Sequence[Sequence[Event]],
    support: float,
    *,
    longest: int = LONGEST,
    least_gap: float = 0.0,
    most_gap: float | None = None,
) -> dict[Pattern, int]:
    """Every pattern of up to `longest` events in a share of `support` of the sequences, with their count.

    From each event of a pattern to its next there is more than no time, `least_gap` at least and `most_gap` at most.
    Raises UsageError, for more than MOST_SETS patterns too.
    """
    if least_gap < 0 or (most_gap is not None and most_gap < least_gap):
        raise UsageError("gaps are 0 or more, the least one no longer than the most")
    held = [sorted(one) for one in sequences]
    least = least_count(support, len(held))
    times = [[when for when, _ in one] for one in held]
    starts = {number: list(range(len(one))) for number, one in enumerate(held)}

    def behind(number: int, end: int) -> range:
        when = times[number][end]
        first = bisect_right(times[number], when)
        if least_gap:
            first = max(first, bisect_left(times[number], when + least_gap))
        return range(
            first, bisect_right(times[number], when + most_gap) if most_gap is not None else len(times[number])
        )

    def grow(prefix: Pattern, reach: dict[int, list[int]]) -> Iterator[tuple[Pattern, int]]:
        """`reach`: by sequence, the places at which the next event may stand."""
        ends: dict[str, dict[int, list[int]]] = {}
        for number, places in reach.items():
            for place in places:
                ends.setdefault(held[number][place][1], {}).setdefault(number, []).append(place)
        for name in sorted(ends):
            if len(ends[name]) < least:
                continue
            pattern = (*prefix, name)
            yield pattern, len(ends[name])
            if len(pattern) < longest:
                yield from grow(pattern, {number: onward(number, some) for number, some in ends[name].items()})

    def onward(number: int, places: list[int]) -> list[int]:
        if most_gap is None:
            return list(behind(number, places[0]))
        return sorted({place for end in places for place in behind(number, end)})

    found: dict[Pattern, int] = {}
    for pattern, count in grow((), starts):
        found[pattern] = count
        if len(found) > MOST_SETS:
            raise UsageError("too many patterns: ask for a higher support")
    return found


def sequence_rules(
    sequences: Sequence[Sequence[Event]],
    *,
    support: float,
    confidence: float = 0.0,
    longest: int = LONGEST,
    least_gap: float = 0.0,
    most_gap: float | None = None,
) -> list[Rule[Pattern, str]]:
    """Rules of frequent patterns: behind the antecedent, within the gaps, comes the consequent; the surest first.

    Lift and leverage compare with sequences that have the consequent anywhere, and p is that of as many having both in
    any order: both say less than is so, never more. q is over all of them. Raises UsageError.
    """
    n = len(sequences)
    found = patterns(sequences, support, longest=longest, least_gap=least_gap, most_gap=most_gap)
    made = told(
        [
            (one[:-1], one[-1], (count, found[one[:-1]], found[one[-1:]], n))
            for one, count in found.items()
            if len(one) > 1
        ]
    )
    kept = (one for one in made if one.confidence >= confidence - 1e-12)
    return sorted(kept, key=lambda one: (one.q, one.p, -one.lift, one.antecedent, one.consequent))
