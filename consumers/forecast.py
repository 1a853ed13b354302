"""`wardstream forecast`: how full units will be, with what is known of how good such forecasts were."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from consumers import allocation, past
from consumers.access import Caller
from consumers.search import answered
from infra.audit import Audit
from infra.elastic import client
from infra.errors import Untrainable, UsageError
from schemas.envelope import rfc3339
from schemas.sites import ALIAS, EXPECTED, number
from streams.allocation import forecast, proposal
from streams.allocation.forecast import Judged, Point, Series
from streams.allocation.site import USABLE

FIELDS = ("site", "unit", "room", "bed", "bed_status")
LONGEST = 168  # hours ahead
Row = dict[str, Any]


def forecasts(caller: Caller, site: str, unit: str, horizons: Sequence[int]) -> list[Row]:
    """One row a site, and in it one a unit, the whole site first. Counts alone, of everybody.

    Raises UsageError for a horizon that is none, or a site or unit of which nothing is known; Denied, StackDown.
    """
    if not horizons or not all(1 <= one <= LONGEST for one in horizons):
        raise UsageError(f"--hours is from 1 to {LONGEST}")
    caller.require(past.OF, "see", FIELDS)
    now = datetime.now(UTC)
    by_site: dict[str, list[past.Lain]] = defaultdict(list)
    for one in past.stays(site):
        by_site[one.site].append(one)
    beds = {board.site.id: board.site.beds.values() for board in allocation.read(site, now, "location")}
    made = []
    for of, some in sorted(by_site.items()):
        series = past.census(some, now)
        wanted = [name for name in sorted(series) if not unit or name == unit]
        usable = [bed.unit for bed in beds.get(of, ()) if bed.status in USABLE]
        rows = [_unit(name, series[name], usable.count(name) if name else len(usable), horizons) for name in wanted]
        made.append({"site": of, "units": rows})
    if not any(one["units"] for one in made):
        raise UsageError("no stay is known there: nothing can be forecast")
    Audit.local().write(caller.act("E", fields=FIELDS, detail={"use": "forecast", "total": str(len(made))}))
    return made


def keep(caller: Caller, rows: Sequence[Row]) -> None:
    """Let workers know what is expected: shortages ahead are raised by it, for two hours. Raises StackDown."""
    at = rfc3339(datetime.now(UTC))
    named = tuple(str(one["site"]) for one in rows)
    Audit.local().write(caller.act("U", entities=named, detail={"use": "forecast"}))
    with answered(past.OF), client() as server:
        for one in rows:
            made = proposal.forecast_document(one["site"], at, one["units"])
            server.index(index=ALIAS, id=number(EXPECTED, one["site"]), document=made)


def _unit(name: str, series: Series, beds: int, horizons: Sequence[int]) -> Row:
    row: Row = {"unit": name, "beds": beds or None, "forecast": [], "figures": [], "remarks": []}
    try:
        points = forecast.forecast(series, forecast.fit(series, horizons))
    except Untrainable as error:
        return row | {"remarks": [str(error)]}
    row["forecast"] = [_point(one, beds) for one in points]
    try:
        judged = forecast.judge(series, horizons)
    except Untrainable:
        return row | {"remarks": ["too little history to tell how good this is"]}
    short = [str(one.hours) for one in judged if not one.beats]
    said = f"does not beat the seasonal naive for {', '.join(short)} h" if short else ""
    return row | {"figures": [_figures(one) for one in judged], "remarks": [said] if said else []}


def _point(one: Point, beds: int) -> Row:
    intervals = [
        {"level": each.level, "low": round(each.low, 1), "high": round(each.high, 1)} for each in one.intervals
    ]
    chance = round(one.chance_above(beds), 3) if beds else None
    expected = round(one.expected, 1)
    return {"hours": one.hours, "at": rfc3339(one.at), "expected": expected, "intervals": intervals, "too_few": chance}


def _figures(one: Judged) -> Row:
    value, low, high = (_number(each) for each in one.gain)
    return {
        "hours": one.hours,
        "origins": one.origins,
        "mae": _number(one.mae),
        "mase": _number(one.mase),
        "naive": {str(season): _number(each) for season, each in one.naive.items()},
        "season": one.season,
        "gain": {"value": value, "low": low, "high": high},
        "beats": one.beats,
        "coverage": {f"{level:.0%}": _number(each) for level, each in one.coverage.items()},
        "width": {f"{level:.0%}": _number(each) for level, each in one.width.items()},
    }


def _number(one: float) -> float | None:
    return None if math.isnan(one) else round(one, 4)
