"""Who of a site will leave when, by the model that is promoted (leaves.py): what the planner promises beds by."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from streams.allocation.leaves import TARGET, Asked, Hazards
from streams.allocation.site import Site, Stay
from streams.models import Models

AT_ONCE = 150  # stays of a site that are worked out for one plan: a tenth of a second
MODEL = f"allocation-{TARGET}"
HOUR = timedelta(hours=1)


class Expected:
    """The promoted model's word on who of one site will leave when, in place of the ward's own. Where there is no model
    that is the ward's. Worked out again for a stay that has changed, or each hour; the longest unseen first."""

    def __init__(self) -> None:
        self._version: str | None = None
        self._hazards: Hazards | None = None
        self._told: dict[str, tuple[Asked, datetime, datetime]] = {}  # what was asked, when, and who leaves when

    def of(self, site: Site) -> Site:
        """Raises ModelAltered."""
        self._refresh()
        if self._hazards is None:
            return site
        at = datetime.fromisoformat(site.at)
        asked = {
            one.need.ref: Asked(one.need.service, one.need.age, max(0.0, -one.came), one.due)
            for one in site.stays
            if one.bed is not None
        }
        self._told = {ref: told for ref, told in self._told.items() if ref in asked}
        fresh = [ref for ref, one in asked.items() if self._changed(ref, one, at)]
        fresh.sort(key=lambda ref: self._told[ref][1] if ref in self._told else datetime.min.replace(tzinfo=UTC))
        for ref in fresh[:AT_ONCE]:
            leaving = self._hazards.leaving(asked[ref], at).expected
            self._told[ref] = asked[ref], at, at + timedelta(hours=leaving)
        return replace(site, stays=tuple(self._stay(one, at) for one in site.stays))

    def _refresh(self) -> None:
        models = Models.local()
        if (version := models.promoted(MODEL)) != self._version:
            self._version, self._hazards, self._told = None, None, {}  # whatever becomes of it, the former is over
            self._hazards = Hazards(models.load(MODEL, version)) if version else None
            self._version = version

    def _changed(self, ref: str, asked: Asked, at: datetime) -> bool:
        if ref not in self._told:
            return True
        was, when, _ = self._told[ref]
        passed = (at - when) / HOUR
        due = None if was.due is None else was.due - passed
        estimate = (due is None) != (asked.due is None) or abs((due or 0.0) - (asked.due or 0.0)) > 0.25
        return passed >= 1 or estimate or (was.service, was.age) != (asked.service, asked.age)

    def _stay(self, one: Stay, at: datetime) -> Stay:
        if one.need.ref not in self._told:
            return one
        leaves = (self._told[one.need.ref][2] - at) / HOUR
        return replace(one, need=replace(one.need, leaves=max(leaves, 1.0)))
