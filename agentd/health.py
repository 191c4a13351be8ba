"""Whether this node can do work: room on the disk of its root, and no process that can't be killed. Pure."""

from __future__ import annotations

from typing import Final

from wire.messages import Health

FLOOR_BYTES: Final = 1 << 30
FLOOR_SHARE: Final = 0.05
"""The default floor is the smaller of the two: below it a task that writes as tasks do fills the disk for everybody,
its job's release included, before anybody can look; small disks have their floor in proportion."""
BACK_AT: Final = 1.25
"""Times the floor must be free before the node is back: what one task frees and the next one fills is no change."""
MAX_STUCK: Final = 1_000
"""Jobs that are named at once."""


def floor_of(said: int | None, size: int) -> int:
    """The bytes that stay free on a disk of so many, by what was said of it: None is the default, 0 is none."""
    return min(FLOOR_BYTES, int(size * FLOOR_SHARE)) if said is None else said


class Vitals:
    """What is known of it, and what the coordinator was told. `floor` in bytes: None is the default, 0 is none."""

    def __init__(self, floor: int | None) -> None:
        self._floor = floor
        self._short: str | None = None
        self._alive: dict[str, str] = {}
        """By whoever tries to kill: the job of the process that resists."""
        self._told = Health(None)

    def disk_seen(self, free: int, size: int) -> None:
        """So many bytes are free for the root, of so many."""
        floor = floor_of(self._floor, size)
        if free < floor and self._short is None:
            self._short = f"the disk of its root has {_mib(free)} left, less than {_mib(floor)}"
        elif free >= min(floor * BACK_AT, (floor + size) / 2):  # a floor may be most of the disk
            self._short = None

    def resists(self, who: str, job: str) -> None:
        """A process of the job is alive after it was killed; `who` tries on, and will say when it is over."""
        self._alive[who] = job

    def over(self, who: str) -> None:
        """What `who` tried to kill is dead."""
        self._alive.pop(who, None)

    def joined(self) -> Health | None:
        """What is to be said first in a session: nothing, if all is well."""
        self._told = Health(None)
        return self.news()

    def news(self) -> Health | None:
        """What the coordinator does not know yet, to be sent now; None where it knows all."""
        stuck = sorted(set(self._alive.values()))[:MAX_STUCK]
        reasons = [self._short] if self._short is not None else []
        if stuck:
            reasons.append("a process there can't be killed")
        now = Health("; ".join(reasons) or None, stuck)
        if now == self._told:
            return None
        self._told = now
        return now


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
