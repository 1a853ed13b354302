"""What of a chart may be shown to whoever reads a report: nothing that stands for fewer than 11 people. Pure.

SMALLEST is that of the CMS cell size suppression policy, which also asks that no ratio, difference or total leads back
to a suppressed count. So a count of events is shown where 11 people had the event and 11 others had not, and the
expected number, the ratio and the curves only then: each of them would tell the count. A curve is drawn at the end of
blocks of outcomes, and a block is of 11 people at least.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

from schemas.safe_harbor import SMALLEST
from streams.quality.charts import WORSE, Chart, Level, Outcome, Signal, points

MOST_BLOCKS = 60
FEW = f"<{SMALLEST}"
MONTHS = (
    ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November")
    + ("December",)
)  # fmt: skip
QUARTERS = ("first", "second", "third", "fourth")
Owners = Mapping[str, str]  # whose each record is
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Counted:
    """How many people; one of several cases may be both among those `with_event` and among those `without`."""

    people: int
    with_event: int
    without: int

    @property
    def enough(self) -> bool:
        return min(self.with_event, self.without) >= SMALLEST


@dataclass(frozen=True, slots=True)
class Block:
    """Outcomes in their order. `upper`, `lower`: the highest in the block; `vlad` at its end, between `low` and `high`.

    `cases`: of the chart up to its end. `begins`: the VLAD began again in it. `signals`: those raised in it.
    """

    first: str  # day of the first outcome
    cases: int
    upper: float
    lower: float
    limits: tuple[float | None, float | None]
    vlad: float
    vlad_limits: tuple[float, float] | None
    begins: bool
    signals: tuple[Signal, ...]


def counted(outcomes: Iterable[tuple[str, bool]]) -> Counted:
    """Of (whose, event)."""
    held = set(outcomes)
    return Counted(len({who for who, _ in held}), sum(event for _, event in held), sum(not event for _, event in held))


def outcomes(chart: Chart) -> list[Outcome]:
    return [one for day in chart.days for one in day.outcomes if one.event is not None]


def counted_on(chart: Chart, owners: Owners) -> Counted:
    return counted((owners[one.record], bool(one.event)) for one in outcomes(chart))


def hidden(counts: Mapping[K, int]) -> set[K]:
    """Cells that are not shown beside their total: small ones, and the next larger while all hidden ones are few."""
    order = sorted(counts, key=lambda key: counts[key])
    left = [key for key in order if counts[key] < SMALLEST]
    for key in order[len(left) :]:
        if not left or sum(counts[one] for one in left) >= SMALLEST:
            break
        left.append(key)
    return set(left)


def blocks(chart: Chart, owners: Owners) -> list[Block]:
    """A chart in blocks of equal size, MOST_BLOCKS at most; none where there are not 11 people."""
    held = list(points(chart))
    size = max(SMALLEST, math.ceil(len(held) / MOST_BLOCKS))
    parts: list[list[tuple[Outcome, Level]]] = []
    part: list[tuple[Outcome, Level]] = []
    for place, one in enumerate(held):
        part.append(one)
        if len(part) >= size and _begins(held, place + 1, size) and _people(part, owners) >= SMALLEST:
            parts.append(part)
            part = []
    if part and parts and _people(part, owners) < SMALLEST:
        parts[-1] += part
    elif part and _people(part, owners) >= SMALLEST:
        parts.append(part)
    raised: dict[str, list[Signal]] = {}
    for signal in chart.signals:
        raised.setdefault(signal.record, []).append(signal)
    return [_block(chart, part, raised) for part in parts]


def _begins(held: list[tuple[Outcome, Level]], place: int, size: int) -> bool:
    """Whether a block may begin at `place`: never just before the VLAD begins again, or its end would be left out."""
    return not any(level.vlad_cases == 1 for _, level in held[place + 1 : place + size])


def _people(part: list[tuple[Outcome, Level]], owners: Owners) -> int:
    return len({owners[one.record] for one, _ in part})


def _block(chart: Chart, part: list[tuple[Outcome, Level]], raised: Mapping[str, list[Signal]]) -> Block:
    end = part[-1][1]
    limits = chart.spec.limits(end.cases - 1)
    around = None
    if limits.vlad is not None:
        spread = math.sqrt(max(end.vlad_variance, limits.vlad.floor))
        around = -limits.vlad.low * spread, limits.vlad.high * spread
    return Block(
        part[0][0].day,
        end.cases,
        max(level.upper for _, level in part),
        max(level.lower for _, level in part),
        (limits.upper, limits.lower),
        end.vlad,
        around,
        any(level.vlad_cases == 1 for _, level in part),
        tuple(signal for one, _ in part for signal in raised.get(one.record, ())),
    )


def run(chart: Chart) -> tuple[bool, list[Signal]]:
    """Whether the latest signal is for the worse, and the signals since the chart last said otherwise, in order."""
    ordered = sorted(chart.signals, key=lambda one: (one.at, one.record))
    worse = bool(ordered) and ordered[-1].kind in WORSE
    held = list(takewhile(lambda one: (one.kind in WORSE) == worse, reversed(ordered)))
    return worse, held[::-1]


def about(chart: Chart, owners: Owners, day: str) -> str:
    """The month of a day; the quarter or the year where a month has outcomes of fewer than 11 people; else nothing."""
    held = outcomes(chart)
    for name in (month, quarter, year):
        if len({owners[one.record] for one in held if name(one.day) == name(day)}) >= SMALLEST:
            return name(day)
    return ""


def month(day: str) -> str:
    return f"{MONTHS[int(day[5:7]) - 1]} {day[:4]}"


def quarter(day: str) -> str:
    return f"the {QUARTERS[(int(day[5:7]) - 1) // 3]} quarter of {day[:4]}"


def year(day: str) -> str:
    return day[:4]
