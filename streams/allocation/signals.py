"""What a bed manager should hear of a site, each once until it is over: overload, idle beds, a shortage that comes, a
rule that is broken. Pure.

A condition is raised at one level and over only at another, so that a ward with one bed more and less does not call
every minute. Signals go out in clear, since they are about nobody: they name units, beds, rules and counts, and no
patient, not even by reference.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from streams.allocation.forecast import Point
from streams.allocation.site import FREE, USABLE, Bed, Site

OVERLOAD, IDLE, SHORTAGE, BREACH = "overload", "idle", "imminent_shortage", "rule_breach"
SIGNALS = (OVERLOAD, IDLE, SHORTAGE, BREACH)
BEDS, STAFF, WAITING, FORECAST = "beds", "staff", "waiting", "forecast"
RAISED, CLEARED = "raised", "cleared"
FEWEST_BEDS = 4  # of a unit that can be idle, or too full at a share of its beds
_NONE = 0.5  # stands for no bed and no capacity: a share of nothing is no number that JSON knows
SOON = 4.0  # hours within which those who wait need a bed, and those who leave give one

# (signal, of what): where it is raised, and where it is over. Idle falls, the others rise.
LIMITS: Mapping[tuple[str, str], tuple[float, float]] = {
    (OVERLOAD, BEDS): (0.95, 0.90),  # occupied of usable
    (OVERLOAD, STAFF): (1.0, 0.9),  # nursing load of most that the shift takes
    (IDLE, BEDS): (0.40, 0.50),
    (SHORTAGE, WAITING): (1.05, 0.8),  # who waits to beds that are free or soon will be
    (SHORTAGE, FORECAST): (0.5, 0.3),  # chance that more come than there are beds
}


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One thing that can be so or not. `unit` is empty for the whole site; `of` says what, or which rule and where."""

    signal: str
    unit: str
    of: str


@dataclass(frozen=True, slots=True)
class Level:
    value: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    """One change, for the signals' topic. `since`: when it was raised; `id` is the same however often it is made."""

    site: str
    signal: str
    state: str  # raised, cleared
    unit: str
    of: str
    since: str  # RFC 3339, UTC
    at: str
    value: float
    limit: float
    reasons: tuple[str, ...]

    @property
    def id(self) -> str:
        return "|".join((self.site, self.signal, self.unit, self.of, self.since, self.state))

    def said(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Raised:
    """What is raised at a site: since when. `at`: the moment up to which this is so."""

    at: str = ""
    since: Mapping[Key, str] = field(default_factory=dict)


def step(
    before: Raised,
    site: Site,
    forecasts: Mapping[str, Sequence[Point]] | None = None,
    broken: Iterable[tuple[str, str]] = (),
) -> tuple[Raised, list[Alert]]:
    """What is raised now, and what has changed. `forecasts`: by unit, "" for the site; None: nothing new is known.
    `broken`: rules that are broken and where (unit|room|bed, or less), of a plan's check or the board's conflicts.

    A moment that is not later than the last one changes nothing: a site that comes late, or by a clock that went back,
    would raise what is over.
    """
    if site.at <= before.at:
        return before, []
    found = levels(site, forecasts or {}, broken)
    since, made = dict(before.since), list[Alert]()
    for key in sorted({*found, *since}):
        if forecasts is None and (key.signal, key.of) == (SHORTAGE, FORECAST):
            continue
        level, up = found.get(key), key in since
        begin, end = LIMITS.get((key.signal, key.of), (1.0, 1.0))
        rises = 1 if begin >= end else -1
        holds = level is not None and rises * level.value >= rises * (end if up else begin)
        if holds == up:
            continue
        since[key] = since[key] if up else site.at
        said = level or Level(0.0, ("it is no longer there",))
        limit = end if up else begin
        alert = Alert(
            site.id, key.signal, CLEARED if up else RAISED, key.unit, key.of, since[key], site.at, said.value, limit,
            said.reasons,
        )  # fmt: skip
        made.append(alert)
        if up:
            del since[key]
    return Raised(site.at, since), made


def active(raised: Raised) -> Counter[tuple[str, str]]:
    """How many are raised, by unit and signal: the gauge that alert rules look at."""
    return Counter((key.unit, key.signal) for key in raised.since)


# --------------------------------------------------------------------------------------------------------------- levels


def levels(site: Site, forecasts: Mapping[str, Sequence[Point]], broken: Iterable[tuple[str, str]]) -> dict[Key, Level]:
    """How far each condition is from being raised, of all that can be said of this moment."""
    beds: dict[str, list[Bed]] = defaultdict(list)
    for bed in site.beds.values():
        if bed.status in USABLE:
            beds[bed.unit].append(bed)
    return dict(
        (
            *_beds(site, beds),
            *_staff(site),
            *_waiting(site, beds),
            *_forecast(beds, forecasts),
            *_broken(broken),
        )
    )


def _beds(site: Site, beds: Mapping[str, Sequence[Bed]]) -> Iterator[tuple[Key, Level]]:
    lying = Counter(site.beds[bed].unit for bed in _lain_in(site))
    for unit, some in beds.items():
        if len(some) >= FEWEST_BEDS:
            said = Level(lying[unit] / len(some), (f"{lying[unit]} of {len(some)} usable beds are occupied",))
            yield Key(OVERLOAD, unit, BEDS), said
            yield Key(IDLE, unit, BEDS), said


def _lain_in(site: Site) -> list[str]:
    return [stay.bed for stay in site.stays if stay.bed is not None and stay.bed in site.beds]


def _staff(site: Site) -> Iterator[tuple[Key, Level]]:
    """Units for which nurses are at work now. Who may work in several is taken as spread evenly over them."""
    most: dict[str, float] = defaultdict(float)
    for nurse in site.nurses:
        if nurse.starts <= 0 < nurse.ends:
            units = {room.partition("|")[0] for room in nurse.rooms} or nurse.units
            for unit in units:
                most[unit] += nurse.load / len(units)
    load: dict[str, float] = defaultdict(float)
    for stay in site.stays:
        if stay.bed is not None and stay.bed in site.beds:
            load[site.beds[stay.bed].unit] += stay.need.load
    for unit, limit in most.items():
        yield (
            Key(OVERLOAD, unit, STAFF),
            Level(load[unit] / max(limit, _NONE), (f"load {load[unit]:.1f}, and the shift takes {limit:.1f}",)),
        )


def _waiting(site: Site, beds: Mapping[str, Sequence[Bed]]) -> Iterator[tuple[Key, Level]]:
    """Those who are due soon, or whom nothing lets wait, against beds of the whole site: any service, any sex."""
    due = [one for one in site.requests if one.due is None or one.due <= SOON]
    taken = set(_lain_in(site))
    free = sum(bed.status == FREE and bed.id not in taken for some in beds.values() for bed in some)
    leaving = sum(stay.need.leaves <= SOON for stay in site.stays if stay.bed in site.beds)
    if due:
        said = f"{len(due)} wait for a bed within {SOON:g} h; {free} are free and {leaving} are expected to be"
        yield Key(SHORTAGE, "", WAITING), Level(len(due) / max(free + leaving, _NONE), (said,))


def _forecast(
    beds: Mapping[str, Sequence[Bed]], forecasts: Mapping[str, Sequence[Point]]
) -> Iterator[tuple[Key, Level]]:
    total = sum(len(some) for some in beds.values())
    for unit, points in forecasts.items():
        count = len(beds.get(unit, ())) if unit else total
        if count and points:
            chance, point = max(((one.chance_above(count), one) for one in points), key=lambda one: one[0])
            said = f"in {point.hours} h {point.expected:.1f} patients are expected for {count} usable beds"
            yield Key(SHORTAGE, unit, FORECAST), Level(chance, (said, f"chance of too few beds {chance:.0%}"))


def _broken(broken: Iterable[tuple[str, str]]) -> Iterator[tuple[Key, Level]]:
    counts = Counter(broken)
    for (rule, where), count in counts.items():
        said = f"{rule} is broken" + (f" at {where}" if where else "") + (f", {count} times" if count > 1 else "")
        yield Key(BREACH, where.partition("|")[0], f"{rule} {where}".strip()), Level(float(count), (said,))
