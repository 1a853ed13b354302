"""What figures of a unit show: charts in blocks, the funnel, survival. Each point stands for 11 people or more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from consumers.plots import Band, Line, Marks, Plot
from streams.quality import cases, funnel
from streams.quality.funnel import LEVELS, Funnel, Point
from streams.quality.shown import Block
from streams.quality.survival import Curve
from streams.quality.units import Key

WORDS = {
    cases.DIED_IN_HOSPITAL: "deaths in hospital",
    cases.DIED_30D: "deaths within 30 days of admission",
    cases.READMITTED_30D: "unplanned readmissions within 30 days of discharge",
}
MOST_TICKS = 9
DAYS = (0, 1, 2, 3, 5, 7, 10, 14, 21, 30, 45, 60, 90, 120, 150, 180, 270, 365)  # of a survival curve


def words(measure: str) -> str:
    return WORDS.get(measure, measure.replace("_", " "))


def cusum(key: Key, blocks: Sequence[Block]) -> Plot:
    x = [0, *(one.cases for one in blocks)]
    upper, lower = ([0.0, *values] for values in ([one.upper for one in blocks], [-one.lower for one in blocks]))
    limits = [one.limits for one in (*blocks, blocks[-1])]  # each holds from the beginning of its block
    marks = [
        _marks(blocks, "cusum_upper", upper[1:], "worse"),
        _marks(blocks, "cusum_lower", lower[1:], "better"),
    ]
    return Plot(
        f"CUSUM of {words(key.measure)}, {key.name}",
        "Two lines that begin at 0. The upper one rises while there are more events than expected, the lower one falls "
        f"while there are fewer. {_told(marks)}",
        "outcomes in their order, by quarter",
        "evidence of a change",
        [
            Line(x, upper, "main", "more than expected"),
            Line(x, lower, "second", "fewer than expected"),
            Line(x, [_or_nan(one) for one, _ in limits], "limit", "limit", step=True),
            Line(x, [-_or_nan(one) for _, one in limits], "limit", step=True),
        ],
        marks=[one for one in marks if one.x],
        ticks=_quarters(blocks),
        level=0.0,
    )


def vlad(key: Key, blocks: Sequence[Block]) -> Plot:
    x: list[float] = []
    y: list[float] = []
    low: list[float] = []
    high: list[float] = []
    before = 0
    for one in blocks:
        if one.begins:  # from 0 again
            x += [before, before]
            y += [math.nan, 0.0]
            low += [math.nan, math.nan]
            high += [math.nan, math.nan]
        x.append(one.cases)
        y.append(one.vlad)
        around = one.vlad_limits or (math.nan, math.nan)
        low.append(around[0])
        high.append(around[1])
        before = one.cases
    at = [one.vlad for one in blocks]
    marks = [_marks(blocks, "vlad_low", at, "worse"), _marks(blocks, "vlad_high", at, "better")]
    return Plot(
        f"VLAD of {words(key.measure)}, {key.name}",
        "Events expected less observed, added up and begun again after each period. Below 0: more than expected. "
        f"{_told(marks)}",
        "outcomes in their order, by quarter",
        "expected less observed",
        [
            Line(x, y, "main", "expected less observed"),
            Line(x, low, "limit", "limit"),
            Line(x, high, "limit"),
        ],
        marks=[one for one in marks if one.x],
        ticks=_quarters(blocks),
        level=0.0,
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _marks(blocks: Sequence[Block], kind: str, at: Sequence[float], style: Literal["worse", "better"]) -> Marks:
    hit = [place for place, one in enumerate(blocks) if any(each.kind == kind for each in one.signals)]
    return Marks([blocks[place].cases for place in hit], [at[place] for place in hit], style, f"signal: {style}")


def _told(marks: Sequence[Marks]) -> str:
    said = [f"{len(one.x)} (it got {one.style})" for one in marks if one.x]
    return f"Signals: {', '.join(said)}." if said else "No signal."


def _quarters(blocks: Sequence[Block]) -> list[tuple[float, str]]:
    """Where quarters begin, to the block."""
    made: list[tuple[float, str]] = []
    before, was = 0, ""
    for one in blocks:
        name = f"Q{(int(one.first[5:7]) + 2) // 3} {one.first[:4]}"
        if name != was:
            made.append((before, name))
        before, was = one.cases, name
    return made[:: max(1, math.ceil(len(made) / MOST_TICKS))]


def funnel_plot(
    made: Funnel, points: Sequence[tuple[Key, Point]], measure: str, mine: str = "", left_out: int = 0
) -> Plot:
    most = max((one.ratio.expected for _, one in points), default=1.0) * 1.1
    least = min((one.ratio.expected for _, one in points), default=1.0) * 0.7
    along = np.geomspace(max(least, 0.5), most, 300)
    limits, x = funnel.lines(made, along), along.tolist()
    inner, outer = ([side.tolist() for side in limits[level]] for level in LEVELS)
    beyond = [key.name for key, one in points if one.beyond]
    others = sorted(((key, one) for key, one in points if key.name != mine), key=lambda one: -one[1].ratio.ratio)
    own = [(key, one) for key, one in points if key.name == mine]
    step = made.adjusted == "none"
    few = f" Too few events to be shown: {left_out}." if left_out else ""
    return Plot(
        f"Funnel of {words(measure)}",
        f"Observed over expected events, {len(points)} points, against the expected number, between limits of 95% and "
        f"99.8%. Beyond a limit: {', '.join(beyond) or 'none'}.{few}",
        "expected events",
        "observed over expected",
        [
            *(Line(x, side, "limit", "95%" if not n else "", step) for n, side in enumerate(inner)),
            *(Line(x, side, "far", "99.8%" if not n else "", step) for n, side in enumerate(outer)),
        ],
        marks=[
            Marks(
                [one.ratio.expected for _, one in others],
                [one.ratio.ratio for _, one in others],
                "dot",
                "others" if mine else "",
                [key.name if one.beyond or not mine else "" for key, one in others],
            ),
            *(Marks([one.ratio.expected], [one.ratio.ratio], "mine", key.name, [key.name]) for key, one in own),
        ],
        level=1.0,
        include=(0.0,),
    )


def at_days(curve: Curve, until: float) -> list[tuple[int, float, float, float]]:
    """Day, share alive and its interval, on the days of DAYS up to `until`."""
    made = [(0, 1.0, 1.0, 1.0)]
    for day in (one for one in DAYS if 0 < one <= until):
        place = int(np.searchsorted(curve.time, day, "right")) - 1
        if place < 0:
            made.append((day, 1.0, 1.0, 1.0))
        else:
            made.append((day, float(curve.survival[place]), float(curve.low[place]), float(curve.high[place])))
    return made


def survival(
    name: str, mine: Sequence[tuple[int, float, float, float]], others: Sequence[tuple[int, float, float, float]]
) -> Plot:
    least = min(low for some in (mine, others) for *_, low, _ in some)
    return Plot(
        f"Share alive after the beginning of a case, {name} and all others",
        "Two falling curves with their 95% intervals.",
        "days from the beginning of the case",
        "alive",
        [
            Line([one[0] for one in mine], [one[1] for one in mine], "main", name),
            Line([one[0] for one in others], [one[1] for one in others], "plain", "all others"),
        ],
        [
            Band([one[0] for one in mine], [one[2] for one in mine], [one[3] for one in mine], "main", "95% interval"),
            Band([one[0] for one in others], [one[2] for one in others], [one[3] for one in others], "plain"),
        ],
        percent=True,
        include=(math.floor(least * 20) / 20, 1.0),
    )
