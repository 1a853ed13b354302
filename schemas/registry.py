"""The domains: one row each. A row here, a stage in `streams/stages.py` and a folder of samples make a domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas import allocation, ehr, imaging, quality, topics
from schemas.marks import Identifying, Mark
from schemas.record import Part
from schemas.topics import Topic


@dataclass(frozen=True, slots=True)
class Domain:
    name: str
    mapping: Callable[[], dict[str, Any]]
    parts: tuple[type[Part], ...]
    retention_days: int | None = None  # since the event, for its documents and its sealed record; None: kept
    measured: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what says the unit of a number
    ordered_by: str = "patient"  # whose events keep their order
    refresh_seconds: float = 0.5  # until what is indexed can be found; a batch fills for at least a tenth of it

    def marks(self) -> dict[str, Mark]:
        """The privacy mark of every field of any part."""
        return {name: mark for part in self.parts for name, mark in part.marks.items()}

    def has_objects(self) -> bool:
        """Whether its documents name objects in the object store."""
        return "object" in self.marks()

    def sought(self) -> tuple[str, ...]:
        """Sealed fields that are found by their keyed hash."""
        return tuple(name for name, mark in self.marks().items() if isinstance(mark, Identifying) and mark.blind)

    def sought_together(self) -> tuple[str, ...]:
        """Sealed fields that are found by their keyed hash with the date of birth."""
        return tuple(name for name, mark in self.marks().items() if isinstance(mark, Identifying) and mark.together)

    @property
    def index(self) -> str:
        """The index behind the alias; a rebuilt one gets another name and the alias moves."""
        return f"{self.name}-v1"

    @property
    def alias(self) -> str:
        return self.name

    def settings(self) -> dict[str, Any]:
        """Of its index, beside those of all."""
        return {"refresh_interval": f"{int(self.refresh_seconds * 1000)}ms"}

    @property
    def raw(self) -> Topic:
        return topics.raw(self.name, self.ordered_by)

    @property
    def dead_letters(self) -> Topic:
        return topics.dead_letters(self.name)

    @property
    def sealed(self) -> Topic:
        return topics.sealed(self.name, self.ordered_by)


DOMAINS = {
    domain.name: domain
    for domain in (
        Domain("ehr", ehr.mapping, ehr.PARTS, measured=ehr.MEASURED),
        Domain(
            "allocation",
            allocation.mapping,
            allocation.PARTS,
            measured=allocation.MEASURED,
            ordered_by="site",
            refresh_seconds=2,
        ),
        Domain("quality", quality.mapping, quality.PARTS, measured=quality.MEASURED, ordered_by="site"),
        Domain(imaging.DOMAIN, imaging.mapping, imaging.PARTS, measured=imaging.MEASURED),
    )
}

TOPICS: list[Topic] = topics.topics({domain.name: domain.ordered_by for domain in DOMAINS.values()})
