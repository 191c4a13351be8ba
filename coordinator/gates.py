"""Which tasks of a group wait for some of another's elements, and for how many conditions: a byte a task.

A gate holds only what placement asks it; who opens it is decided in `coordinator.readiness`. It is of this life of the
coordinator: made anew from the bytes of the tasks whenever that is easier than to follow them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

CLOSED: Final = 255
"""The task was handed out, or is over: nothing opens it any more."""
_UP: Final = bytes(min(value + 1, CLOSED) for value in range(256))
_DOWN: Final = bytes(value if value in (0, CLOSED) else value - 1 for value in range(256))
LOOKED_AT: Final = 1 << 16
"""Tasks that are looked at to see how many are open: more is not needed to share them out."""


class Gate:
    """Invariant: no task below `low` is open."""

    def __init__(self, size: int) -> None:
        self.waits = bytearray(size)
        """Conditions by value that the task still waits for."""
        self.low = 0

    def raise_(self, runs: Iterable[range]) -> None:
        """One condition more for each of these."""
        for run in runs:
            at = _slice(run)
            self.waits[at] = self.waits[at].translate(_UP)

    def lower(self, runs: Iterable[range]) -> None:
        """One condition of each of these has come true."""
        for run in runs:
            if len(run) == 1:
                self.waits[run[0]] = _DOWN[self.waits[run[0]]]
            else:
                at = _slice(run)
                self.waits[at] = self.waits[at].translate(_DOWN)
            self.low = min(self.low, run.start)

    def close(self, run: range) -> None:
        """These were handed out, or are over."""
        self.waits[_slice(run)] = b"\xff" * len(run)

    def is_open(self, index: int) -> bool:
        return self.waits[index] == 0

    def first(self) -> int:
        """The first open task, or the size of the group."""
        self.low = self.next(self.low)
        return self.low

    def next(self, index: int) -> int:
        """The first open task from `index` on, or the size of the group."""
        found = self.waits.find(0, index)
        return len(self.waits) if found < 0 else found

    def opens_at(self, index: int, limit: int) -> int:
        """How many tasks from `index` on are open without a gap, at most `limit`."""
        waits = self.waits[index : index + limit]
        return len(waits) - len(waits.lstrip(b"\0"))

    def open_from(self, index: int) -> int:
        """How many are open from `index` on, as far as that is looked at."""
        return self.waits.count(0, index, index + LOOKED_AT)


def _slice(run: range) -> slice:
    return slice(run.start, run.stop, run.step)
