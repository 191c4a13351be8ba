"""A moment, told so that it still means something after a restart."""

from __future__ import annotations

import msgspec


class Instant(msgspec.Struct, frozen=True, array_like=True):
    """One reading of the clocks, in seconds.

    `boottime` counts suspend and never jumps, but only within one `boot`; `wall` survives a boot and may jump.
    """

    boot: str
    boottime: float
    wall: float

    def seconds_since(self, earlier: Instant) -> float:
        """Seconds from `earlier` to here, never negative: by boottime within a boot, by wall clock across boots."""
        if self.boot == earlier.boot:
            return max(0.0, self.boottime - earlier.boottime)
        return max(0.0, self.wall - earlier.wall)

    def after(self, delay_s: float) -> Instant:
        """The moment `delay_s` seconds from here on both clocks."""
        return Instant(self.boot, self.boottime + delay_s, self.wall + delay_s)

    def seconds_until(self, later: Instant) -> float:
        """Seconds left until `later`, negative when it has passed."""
        if self.boot == later.boot:
            return later.boottime - self.boottime
        return later.wall - self.wall
