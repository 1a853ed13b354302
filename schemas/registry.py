"""The domains: one row each. A row here, a stage in `streams/stages.py` and a folder of samples make a domain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas import ehr, topics
from schemas.topics import Topic


@dataclass(frozen=True, slots=True)
class Domain:
    name: str
    mapping: Callable[[], dict[str, Any]]

    @property
    def index(self) -> str:
        """The index behind the alias; a rebuilt one gets another name and the alias moves."""
        return f"{self.name}-v1"

    @property
    def alias(self) -> str:
        return self.name

    @property
    def raw(self) -> Topic:
        return topics.raw(self.name)

    @property
    def dead_letters(self) -> Topic:
        return topics.dead_letters(self.name)

    @property
    def sealed(self) -> Topic:
        return topics.sealed(self.name)


DOMAINS = {domain.name: domain for domain in (Domain("ehr", ehr.mapping),)}

TOPICS: list[Topic] = topics.topics(list(DOMAINS))
