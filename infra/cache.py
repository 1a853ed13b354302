"""A dictionary with a bound: least recently used entries leave first, so that a busy year does not grow a process."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Cache(OrderedDict[K, V]):
    def __init__(self, entries: int) -> None:
        super().__init__()
        self._entries = entries

    def get(self, key: K, default: Any = None) -> Any:
        value = super().get(key, default)
        if value is not default:
            self.move_to_end(key)
        return value

    def keep(self, key: K, value: V) -> V:
        """Store and give back, pushing out the oldest beyond the bound."""
        self[key] = value
        if len(self) > self._entries:
            self.popitem(last=False)
        return value
