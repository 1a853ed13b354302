"""What the index tells of the past of a site: how full it was, who stayed how long, how beds and equipment were used.

Read for whoever forecasts, learns or looks for groups: each question once, a page at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from consumers.access import Caller
from consumers.search import answered
from infra import elastic
from infra.keystore import KeyStore
from schemas.envelope import rfc3339
from schemas.registry import DOMAINS
from streams.allocation import clusters, forecast, targets
from streams.allocation.board import STAY, person_of
from streams.allocation.clusters import Profile
from streams.allocation.features import IN_USE, STATUSES, remember, thing, told
from streams.allocation.forecast import Placed, Series
from streams.allocation.leaves import Course
from streams.allocation.placement import steps, way
from streams.ehr.targets import Happened
from streams.fold import HISTORY, Entity
from streams.rows import Row

OF = DOMAINS["allocation"]
PAGE = 5000
THING_FIELDS = (
    ("event_id", "kind", "event_time", "site", "action", "unit", "room", "bed", "bed_status", "features", "price")
    + ("position_x", "position_y", "resource_type", "resource_id", "resource_status")
)  # fmt: skip
STAY_FIELDS = ("site", "state", "patient_ref", "hospital_service", "age")
ESTIMATE_FIELDS = ("patient_ref", "event_time", "expected_discharge_at")
WARM_UP = timedelta(days=7)  # who was in when the events began is told of only when something happens
USED_DAYS = 28  # of use and of demand that groups are made of
Query = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lain:
    """One stay: where, from when until when (None: still). `patient` is the survivor's reference."""

    site: str
    patient: str
    service: str
    age: int | None
    places: tuple[tuple[str, str, datetime, datetime | None], ...]  # unit, unit|room|bed

    @property
    def since(self) -> datetime:
        return self.places[0][2]

    @property
    def until(self) -> datetime | None:
        return self.places[-1][3]


# ---------------------------------------------------------------------------------------------------------------- stays


def stays(site: str = "") -> list[Lain]:
    """Every stay that was not cancelled, whoever's: for counts, which tell of nobody. Raises StackDown."""
    return _stays({"match_all": {}}, site)


def courses(caller: Caller, until: datetime) -> list[Course]:
    """Stays of those whom the caller may learn from, with what the ward expected when. Raises Denied, StackDown."""
    caller.require(OF, "see", (*STAY_FIELDS, *ESTIMATE_FIELDS))
    permitted = caller.persons().clause()
    _, keys = KeyStore.local()
    merged = keys.merged()
    estimates: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)
    wanted = _all({"term": {"kind": "placement_event"}}, {"exists": {"field": "expected_discharge_at"}}, permitted)
    for event in _scan(wanted, ESTIMATE_FIELDS):
        ref = merged.get(event["patient_ref"], event["patient_ref"])
        estimates[ref].append((_time(event["event_time"]), _time(event["expected_discharge_at"])))
    made = []
    for one in _stays(permitted, ""):
        end = one.until or until
        said = tuple(sorted(each for each in estimates[one.patient] if one.since <= each[0] <= end))
        made.append(Course(one.patient, one.service, one.age, one.since, one.until, said))
    return made


def _stays(persons: Query, site: str) -> list[Lain]:
    merged = KeyStore.local()[1].merged()
    wanted = _all({"term": {"kind": "placement"}}, {"term": {"part": -1}}, persons, *_of_site(site))
    told: dict[tuple[str, str], list[Entity]] = defaultdict(list)  # one stay under several references, after a merge
    for number, one in enumerate(_scan(wanted, (*STAY_FIELDS, STAY, "event_time", HISTORY))):
        told[person_of(one, merged), one.get(STAY, str(number))].append(one)
    made = []
    for (person, _), some in told.items():
        moves = {key: step for one in some for key, step in steps(one.get(HISTORY, {})).items()}
        places = tuple(
            (place[0], "|".join(place), _time(since), _time(until) if until else None)
            for place, since, until in way(moves)
        )
        if places:
            last = max(some, key=lambda one: one["event_time"])
            made.append(Lain(last.get("site", ""), person, last.get("hospital_service", ""), last.get("age"), places))
    return made


def census(some: list[Lain], until: datetime) -> dict[str, Series]:
    """How many lay in each unit of one site, and in all (""), hour by hour; empty where nothing is known."""
    if not some:
        return {}
    placed = [Placed(unit, since, ended) for one in some for unit, _, since, ended in one.places]
    times = sorted({when for one in placed for when in (one.since, one.until) if when is not None and when <= until})
    if not times:
        return {}
    return forecast.occupancy(placed, times[0] + WARM_UP, until, forecast.silences([*times, until]))


# --------------------------------------------------------------------------------------------------------------- things


def rows(caller: Caller, until: str) -> list[Row]:
    """Labelled rows of every bed and piece of equipment. Raises Denied and StackDown."""
    caller.require(OF, "see", THING_FIELDS)
    return [row for name, events in things(until) for row in targets.rows(name, events, until)]


def things(until: str, site: str = "") -> Iterator[tuple[str, list[Happened]]]:
    """Each bed or piece of equipment with the events that tell of it, in the order of their times."""
    found: dict[str, list[Happened]] = defaultdict(list)
    kinds = {"terms": {"kind": ["resource_event", "location_event"]}}
    for one in _scan(_all(kinds, {"range": {"event_time": {"lte": until}}}, *_of_site(site)), THING_FIELDS):
        if told([one]) is not None:
            found[thing(one)].append(Happened(one["event_id"], one["event_time"], [one]))
    for name in sorted(found):
        yield name, sorted(found[name], key=lambda one: (one.at, one.event_id))


def profiles(caller: Caller, of: str, site: str, until: datetime) -> list[Profile]:
    """What groups are made of. Raises Denied and StackDown."""
    caller.require(OF, "see", (*THING_FIELDS, "hospital_service"))
    since = until - timedelta(days=USED_DAYS)
    return _demand(stays(site), since, until) if of == DEMAND else _resources(site, since, until)


RESOURCES, DEMAND = "resources", "demand"


def _resources(site: str, since: datetime, until: datetime) -> list[Profile]:
    lain: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)
    for one in stays(site):
        for _, bed, begun, ended in one.places:
            lain[f"bed|{one.site}|{bed}"].append((begun, ended or until))
    made = []
    for name, events in things(rfc3339(until), site):
        now: dict[str, Any] = {}
        history: dict[str, Any] = {}
        for event in events:
            now |= event.documents[0]
            remember(history, event.documents, event.at)
        statuses = sorted(history.get(STATUSES, {}).items())
        if statuses and not statuses[-1][1] and now.get("action") != "set":
            continue  # it is no longer there
        spans = [
            (_time(begun), _time(ended))
            for (begun, status), (ended, _) in pairwise([*statuses, (rfc3339(until), "")])
            if status in IN_USE
        ]
        bed = now["kind"] == "location_event"
        hours = clusters.use(lain[name] if bed else spans, since, until)
        kinds = ("bed" if bed else now["resource_type"], *now.get("features", ()))
        x, y = now.get("position_x"), now.get("position_y")
        position = None if x is None or y is None else (float(x), float(y))
        made.append(Profile(name, kinds, now.get("unit", ""), hours, float(now.get("price") or 0.0), position))
    return made


def _demand(some: list[Lain], since: datetime, until: datetime) -> list[Profile]:
    """Of each unit and service: how many came a day, by hour."""
    came: dict[tuple[str, str, str], list[datetime]] = defaultdict(list)
    for one in some:
        for unit, _, begun, _ in one.places:
            if since <= begun <= until:
                came[one.site, unit, one.service].append(begun)
    days = (until - since) / timedelta(days=1)
    made = []
    for (of, unit, service), times in sorted(came.items()):
        hours = tuple(sum(at.hour == hour for at in times) / days for hour in range(24))
        made.append(Profile(f"{of}|{unit}|{service}", (service or "any service",), unit, hours))
    return made


# ----------------------------------------------------------------------------------------------------------------- read


def _scan(query: Query, fields: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    with answered(OF):
        for page in elastic.scan(OF.alias, query, fields):
            yield from page


def _all(*some: Query) -> Query:
    return {"bool": {"filter": list(some)}}


def _of_site(site: str) -> list[Query]:
    return [{"term": {"site": site}}] if site else []


def _time(said: str) -> datetime:
    return datetime.fromisoformat(said).astimezone(UTC)
