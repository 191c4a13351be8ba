"""The users of jobs on one machine: a uid for each job, leased before its directories are made, and nobody else's until
nothing of the job is left. What the shell of an agent keeps in a locked file, the simulated one keeps here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tests.simulator.invariants import require

FIRST: Final = 70_000
COUNT: Final = 6
"""Few, so that they come round again."""


@dataclass
class Users:
    """The leases of one machine."""

    leases: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)
    """Jobs of which something is left, and what."""
    _next: int = 0

    def lease(self, job: str) -> str | None:
        """The job has a uid from now on; why not, if there is none."""
        self.quarantined.pop(job, None)
        if job in self.leases:
            return None
        taken = set(self.leases.values())
        for step in range(COUNT):
            uid = FIRST + (self._next + step) % COUNT
            if uid not in taken:
                self.leases[job], self._next = uid, uid - FIRST + 1
                return None
        return f"All {COUNT} users for jobs are taken on this machine."

    def of(self, job: str, host: str) -> int:
        """The uid that a command of the job starts with."""
        require(job in self.leases, "I16", f"a command of {job} starts on {host}, where the job has no user", job)
        uid = self.leases[job]
        twins = [other for other, same in self.leases.items() if same == uid and other != job]
        require(not twins, "I16", f"{job} and {twins} have one user on {host}", job)
        return uid
