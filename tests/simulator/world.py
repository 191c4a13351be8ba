"""Simulated time: one heap of events, one random source, one clock a machine, and a trace that is hashed.

Everything in a simulation happens in `World.step`, one event at a time; two runs with one seed differ in nothing.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from wire.instant import Instant

WALL_AT_START: Final = 1_790_000_000.0
TIMER_SLACK_S: Final = 0.001
"""Timers of an operating system fire a little late, never early."""
LINES_KEPT: Final = 100_000


class Timer:
    """One entry of the heap. Cancelling leaves it there, to be skipped."""

    __slots__ = ("action", "arguments", "cancelled")

    def __init__(self, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.action = action
        self.arguments = arguments
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class World:
    """The heap of what is going to happen, and the log of what did."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        self.events = 0
        self.after_event: Callable[[], None] | None = None
        self.lines: deque[tuple[float, str, str]] = deque(maxlen=LINES_KEPT)
        self.echo = False
        self._heap: list[tuple[float, int, Timer]] = []
        self._entries = 0
        self._hash = hashlib.sha256()

    # ---- what is going to happen

    def at(self, time: float, action: Callable[..., None], *arguments: Any) -> Timer:
        timer = Timer(action, arguments)
        self._entries += 1
        heapq.heappush(self._heap, (max(time, self.now), self._entries, timer))
        return timer

    def after(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> Timer:
        return self.at(self.now + delay_s, action, *arguments)

    def step(self) -> bool:
        """Let the next event happen. False when there is none."""
        while self._heap:
            time, _, timer = heapq.heappop(self._heap)
            if timer.cancelled:
                continue
            self.now = time
            self.events += 1
            timer.action(*timer.arguments)
            if self.after_event is not None:
                self.after_event()
            return True
        return False

    def run_until(self, time: float, done: Callable[[], bool] | None = None, events_max: int | None = None) -> bool:
        """Let things happen until `time`, or until `done` says so (then True)."""
        last = None if events_max is None else self.events + events_max
        while self._heap and self._heap[0][0] <= time:
            if done is not None and done():
                return True
            if last is not None and self.events >= last:
                return False
            self.step()
        if done is not None and done():
            return True
        self.now = max(self.now, time)
        return False

    # ---- what did happen

    def note(self, where: str, what: str) -> None:
        """One line of the trace. `what` is the same in every process: no ids of objects, no sets in their order."""
        self.lines.append((self.now, where, what))
        if self.echo:
            print(f"{self.now:10.3f} {where:<14} {what}")
        self._hash.update(f"{self.now:.6f} {where} {what}\n".encode())

    @property
    def trace_hash(self) -> str:
        return self._hash.hexdigest()

    # ---- chance

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random.random()


class Clock:
    """A machine's clocks: boottime at a rate of its own, a wall clock that somebody sets, a boot identity."""

    def __init__(self, world: World, machine: str, rate: float = 1.0, wall_error_s: float = 0.0) -> None:
        self._world = world
        self._machine = machine
        self.rate = rate
        self.wall_error_s = wall_error_s
        self.boots = 0
        self.boot = ""
        self._booted_at = 0.0
        self.reboot()

    def reboot(self) -> None:
        self.boots += 1
        self.boot = f"boot-{self._machine}-{self.boots}"
        self._booted_at = self._world.now

    def boottime(self) -> float:
        """Goes on while the machine is suspended."""
        return (self._world.now - self._booted_at) * self.rate

    def now(self) -> Instant:
        return Instant(self.boot, self.boottime(), self.wall())

    def wall(self) -> float:
        return WALL_AT_START + self._world.now + self.wall_error_s

    def world_time(self, deadline: Instant) -> float:
        """When, in simulated time, this machine's clocks show `deadline`."""
        left = self.now().seconds_until(deadline)
        return self._world.now + max(0.0, left) / self.rate + TIMER_SLACK_S
