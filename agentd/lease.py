"""The lease: how long this node may go on with what it holds, counted from the sending of what was acknowledged."""

from __future__ import annotations

from typing import Final

from wire.instant import Instant

JOIN_S: Final = 30.0
"""For the coordinator to answer a Join."""
MISSED: Final = 4
"""Beats without any answer."""


class Lease:
    """Invariant: `until` is at most `lease_s` after the sending of a beat (or of the Join) that was answered."""

    def __init__(self) -> None:
        self.until: float | None = None
        """Boottime; None: nothing is granted here that could run out."""
        self._heartbeat_s = 0.0
        self._lease_s = 0.0
        self._beat = 0
        self._sent: dict[int, float] = {}
        self._join_sent = 0.0
        self._answer_due: float | None = None
        self._beat_due: float | None = None

    def join_sent(self, now: Instant) -> None:
        self._join_sent = now.boottime
        self._answer_due = now.boottime + JOIN_S
        self._sent.clear()

    def joined(self, heartbeat_s: float, lease_s: float) -> None:
        """The Join counts as the first beat. The lease may have become shorter: then what is left of it did too."""
        self._heartbeat_s, self._lease_s = heartbeat_s, lease_s
        self.until = self._join_sent + lease_s
        self._beat_due = self._join_sent + heartbeat_s
        self._answer_due = None

    def disconnected(self) -> None:
        """No more beats; what was acknowledged still counts."""
        self._beat_due = self._answer_due = None
        self._sent.clear()

    def unanswered(self, now: Instant) -> bool:
        """Whether the Join, or a beat, was not answered in time: the connection is dead and does not show it."""
        return self._answer_due is not None and now.boottime >= self._answer_due

    def beat(self, now: Instant) -> int | None:
        """The beat to send now, if one is due."""
        if self._beat_due is None or now.boottime < self._beat_due:
            return None
        self._beat += 1
        self._sent[self._beat] = now.boottime
        if self._answer_due is None:
            self._answer_due = now.boottime + max(JOIN_S, MISSED * self._heartbeat_s)
        self._beat_due = now.boottime + self._heartbeat_s
        return self._beat

    def acked(self, beat: int) -> bool:
        """Whether the lease was extended by this."""
        sent = self._sent.get(beat)
        self._answer_due = None
        for older in [older for older in self._sent if older <= beat]:
            del self._sent[older]
        if sent is None or (self.until is not None and sent + self._lease_s <= self.until):
            return False
        self.until = sent + self._lease_s
        return True

    def valid(self, now: Instant) -> bool:
        return self.until is not None and now.boottime < self.until

    def ran_out(self, now: Instant) -> bool:
        """Once, when it has: from then on there is none."""
        if self.until is None or now.boottime < self.until:
            return False
        self.until = None
        return True

    def next_due(self) -> float | None:
        return min((due for due in (self.until, self._beat_due, self._answer_due) if due is not None), default=None)
