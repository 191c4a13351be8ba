"""A set of deadlines: a heap with lazy deletion, one deadline a key."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

Key = tuple[str, ...]
ROUNDING_S: Final = 1e-3
"""A deadline and a difference of times may disagree in their last digits by less."""


class Deadlines:
    """Keys with the boottime (seconds) at which each is due. Setting a key again moves it."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []

    def set(self, key: Key, due: float) -> None:
        """`key` is due at `due`, instead of when it was due before."""
        if self._due.get(key) == due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._due):
            self._heap = [(when, name) for name, when in self._due.items()]
            heapq.heapify(self._heap)

    def clear(self, key: Key) -> None:
        """`key` is no longer due."""
        self._due.pop(key, None)

    def next(self) -> float | None:
        """When the first key is due, or None."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def expire(self, now: float) -> Iterator[Key]:
        """Take out, in order, the keys that are due at `now`."""
        while (due := self.next()) is not None and due <= now:
            key = heapq.heappop(self._heap)[1]
            del self._due[key]
            yield key
