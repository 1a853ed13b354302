"""Operations events to the live state of a site, and from one event to the plan that knows of it."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import plan

from infra.elastic import client
from schemas.envelope import rfc3339
from schemas.sites import ALIAS, PROPOSED, number
from streams.allocation.site import Need, Request, Site

Said = dict[str, Any]


def named(site: Site, name: str) -> Site:
    return replace(site, id=name)


def events(site: Site) -> Iterator[Said]:
    """The site as operations events tell it: beds, who lies, who waits."""
    now = datetime.now(UTC)
    for bed in site.beds.values():
        unit, room, number_ = bed.id.split("|")
        yield {
            "type": "location", "site": site.id, "at": rfc3339(now - timedelta(days=30)), "unit": unit, "room": room,
            "bed": number_, "bed_status": bed.status, "services": sorted(bed.services),
            "features": sorted(bed.features),
            "position_x": bed.position[0], "position_y": bed.position[1],
        }  # fmt: skip
    for stay in site.stays:
        unit, room, number_ = (stay.bed or "||").split("|")
        yield _person(site, stay.need) | {
            "type": "placement", "id": f"V-{stay.need.ref}", "trigger": "A01", "unit": unit, "room": room,
            "bed": number_, "at": rfc3339(now + timedelta(hours=stay.since)),
            "expected_discharge_at": rfc3339(now + timedelta(hours=stay.need.leaves)),
        }  # fmt: skip
    for request in site.requests:
        yield asking(site, request, now - timedelta(hours=request.waits))


def asking(site: Site, request: Request, at: datetime) -> Said:
    head = {"type": "request", "id": f"R-{request.need.ref}", "priority": request.priority, "at": rfc3339(at)}
    return _person(site, request.need) | head


def _person(site: Site, need: Need) -> Said:
    return {
        "site": site.id, "patient_number": need.patient, "sex": need.sex, "age": need.age,
        "hospital_service": need.service, "isolation": need.isolation, "needs": sorted(need.needs),
    }  # fmt: skip


def changes(site: Site, count: int, seed: int = 1) -> Iterator[Said]:
    """Beds that are cleaned and closed and opened, and patients who move: what a site sends all day."""
    chance, start = random.Random(seed), datetime.now(UTC) - timedelta(hours=2)
    beds = [bed.id.split("|") for bed in site.beds.values()]
    for done in range(count):
        unit, room, bed = chance.choice(beds)
        at = rfc3339(start + timedelta(milliseconds=done))
        if done % 2:
            yield {"type": "location", "site": site.id, "at": at, "unit": unit, "room": room, "bed": bed,
                   "bed_status": chance.choice("UHK")}  # fmt: skip
        else:
            who = chance.randrange(len(site.stays))
            yield _person(site, site.stays[who].need) | {
                "type": "placement", "id": f"V-{site.stays[who].need.ref}", "trigger": "A02", "at": at, "unit": unit,
                "room": room, "bed": bed,
            }  # fmt: skip


def planned(site: Site, port: int, count: int, pause: float = 2.0) -> Iterator[float]:
    """Seconds from an event's first byte to the plan in the index that has a line for it; one event at a time."""
    line = http.client.HTTPConnection("127.0.0.1", port)
    chance = random.Random(3)
    known = _asked(site)
    for done in range(count):
        one = plan.request(chance, f"late{done}-{site.id}")
        said = json.dumps(asking(site, one, datetime.now(UTC)))
        began = time.perf_counter()
        line.request("POST", "/", said, {"Content-Type": "application/json"})
        answer = line.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"refused: {answer.status}")
        while len(now := _asked(site)) <= len(known):
            if time.perf_counter() - began > 60:
                raise TimeoutError("no plan knows of an event")
            time.sleep(0.01)
        yield time.perf_counter() - began
        known = now
        time.sleep(pause)
    line.close()


def _asked(site: Site) -> set[str]:
    """Who, of all that wait, is in the plan."""
    with client() as server:
        found = server.options(ignore_status=404).get(
            index=ALIAS, id=number(PROPOSED, site.id), source_includes="lines"
        )
    lines = found.body.get("_source", {}).get("lines", ())
    return {one["ref"] for one in lines if one["assignment"] == "bed" and one["prior"] is None}
