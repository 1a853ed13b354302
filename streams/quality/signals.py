"""A chart as it is kept and told. Pure.

A signal names the records that drove it, each sealed under the key of the person whose case it is, so that an erasure
closes it; the rest is about nobody and is told in clear. Its id is that of the chart and of the record that raised it:
told again it is the same, and one that a correction takes back is withdrawn under the same id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from infra.crypto import DataKey, seal_field
from schemas.outcome_charts import CHART, OF, RAISED, WITHDRAWN
from schemas.signal import Headers, message
from streams.quality import charts
from streams.quality.charts import Chart, Limits, Signal, VladLimits
from streams.quality.funnel import ratio
from streams.quality.units import Design, Key, Mix, Wanted

Document = dict[str, Any]
Line = dict[str, Any]
Message = tuple[bytes, bytes, Headers]  # key, value and headers
NAMES = {True: "outcomes_worse", False: "outcomes_better"}  # signals
TAKEN_BACK = "outcomes_signal_withdrawn"
SAME = ("kind", "at", "record", "since", "value", "limit")  # a signal that has them all is the one it was
MOST_KEPT = 20  # latest signals whose drivers are kept


def document(
    key: Key,
    chart: Chart,
    known: str,
    since: str,
    waiting: tuple[int, int],
    design: Design,
    found: Iterable[tuple[Mix, Limits]],
    person: Callable[[str], str],
    before: Document | None = None,
) -> Document:
    """What the index keeps of a chart. `person` gives whose a record is; `waiting` as Units.waiting. Of signals that
    stand in the document of `before`, who drove them is taken from there."""
    level, signals = chart.level, chart.signals
    limits = chart.spec.limits(level.cases)
    known_lines = {tuple(one[name] for name in SAME): one for one in (before or {}).get("signals", ())}
    named = []
    for one in signals[-MOST_KEPT:]:
        line = _line(one)
        known_line = known_lines.get(tuple(line[name] for name in SAME))
        drivers = known_line["drivers"] if known_line else [[who, person(who)] for who in charts.drivers(chart, one)]
        named.append(line | {"drivers": drivers})
    made: Document = {
        "kind": CHART,
        "site": key.site,
        "scope": key.scope,
        "name": key.name,
        "measure": key.measure,
        "event_time": known or None,
        "since": since or None,
        "cases": level.cases,
        "events": level.events,
        "expected": round(level.expected, 6),
        "certain": level.certain,
        "early": waiting[0],
        "unscored": waiting[1],
        "upper": round(level.upper, 6),
        "upper_limit": limits.upper,
        "lower": round(level.lower, 6),
        "lower_limit": limits.lower,
        "vlad": round(level.vlad, 6),
        "raised": len(signals),
        "signals": named,
        "design": asdict(design),
        "stages": [[[list(one) for one in mix], asdict(limits)] for mix, limits in found],
        "patient_ref": sorted({ref for one in named for _, ref in one["drivers"] if ref}),
        "untold": [],
    }
    if limits.vlad is not None:
        width = max(level.vlad_variance, limits.vlad.floor) ** 0.5
        made |= {"vlad_low": -limits.vlad.low * width, "vlad_high": limits.vlad.high * width}
    if level.expected > 0:
        over = ratio(level.events, level.expected)
        made |= {"ratio": over.ratio, "ratio_low": over.low, "ratio_high": over.high}
    if signals:
        made["signalled_at"] = max(one.at for one in signals)
    return made


def _line(signal: Signal) -> Line:
    return {
        "kind": signal.kind,
        "at": signal.at,
        "record": signal.record,
        "since": signal.since[0],
        "value": round(signal.value, 6),
        "limit": round(signal.limit, 6),
    }


def limits_of(said: Document) -> list[tuple[Wanted, Limits]]:
    """The limits that a kept chart was drawn with, so that nobody need find them again."""
    design, made = Design(**said["design"]), []
    for mix, kept in said["stages"]:
        vlad = VladLimits(**kept["vlad"]) if kept["vlad"] else None
        wanted = Wanted(tuple((step, count) for step, count in mix), design)
        made.append((wanted, Limits(kept["upper"], kept["lower"], vlad)))
    return made


def standing(before: Mapping[str, Any] | None) -> Document:
    """What stands of an earlier chart's signals, which were told, while it cannot be said which the next one has."""
    empty: Document = {"raised": 0, "signals": [], "patient_ref": []}
    return {name: (before or {}).get(name, nothing) for name, nothing in empty.items()}


def untold(made: Document, before: Mapping[str, Any] | None) -> list[Line]:
    """What a chart makes known beside an earlier one of its: signals that are new, and those that are no more.

    With a new year a chart begins elsewhere, which is no news: then signals alone are told that are later than what the
    earlier one knew.
    """
    if before is not None and before.get("since") and before["since"] != made["since"]:
        seen = {(one["kind"], one["record"]) for one in before["signals"]}
        new = (one for one in made["signals"] if (one["kind"], one["record"]) not in seen)
        return [one | {"state": RAISED} for one in new if one["at"] > (before["event_time"] or "")]
    was = {(one["kind"], one["record"]): one for one in (before or {}).get("signals", ())}
    now = {(one["kind"], one["record"]): one for one in made["signals"]}
    oldest = min((one["at"] for one in made["signals"]), default="") if len(now) >= MOST_KEPT else ""
    gone = [one | {"state": WITHDRAWN} for name, one in was.items() if name not in now and one["at"] >= oldest]
    return gone + [one | {"state": RAISED} for name, one in now.items() if name not in was]


def messages(made: Document, lines: Sequence[Line], key_of: Callable[[str], DataKey | None]) -> list[Message]:
    """One for each line. Whoever has no key any more is in none."""
    told: list[Message] = []
    for line in lines:
        of = (made["site"], made["scope"], made["name"], made["measure"], line["kind"], line["record"])
        id = hashlib.sha256("\x1f".join(of).encode()).hexdigest()[:32]
        drivers = []
        for record, ref in line["drivers"]:
            if ref and (key := key_of(ref)) is not None:
                sealed = seal_field(key, OF.name, id, "record", record)
                drivers.append({"subject": key.token, "key_version": key.version, "record": sealed})
        said = {name: made[name] for name in ("site", "scope", "name", "measure", "cases", "events", "expected")}
        said |= {name: line[name] for name in ("state", "value", "limit")}
        said |= {"at": line["at"][:10], "since": line["since"][:10]}  # the day: the moment is one patient's
        said |= {"chart": line["kind"], "odds_ratio": made["design"]["odds_ratio"], "drivers": drivers}
        said |= {"run_length": made["design"]["run_length"]}
        name = TAKEN_BACK if line["state"] == WITHDRAWN else NAMES[line["kind"] in charts.WORSE]
        event = hashlib.sha256(f"{id} {line['state']} {made['event_time']}".encode()).hexdigest()[:32]
        told.append(message(name, OF.name, event, id, f"{line['at'][:10]}T00:00:00.000Z", said, None))
    return told
