"""What `wire.driver` does around a core, in simulated time, with a crash possible between any two effects.

A daemon's memory is this object: a crash throws it away and a restart makes a new one from the disk.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.simulator.disk import Disk, Fate, Part, RecordLog, Transaction
from tests.simulator.world import Clock, Timer, World
from wire.driver import FULL_PAUSE_S, MAX_EVENTS, OVERSLEPT_S, READ_FIRST_S
from wire.instant import Instant

COMMIT_S: Final = (0.0002, 0.004)
TURN_S: Final = 0.0001


class Crashed(Exception):
    """The daemon died here; nothing after this line of it happened."""


class Daemon:
    """One life of a daemon: its core, its inbox, what is not durable yet."""

    def __init__(self, world: World, name: str, clock: Clock, disk: Disk, log: RecordLog) -> None:
        self.world = world
        self.name = name
        self.clock = clock
        self.disk = disk
        self.log = log
        self.core: Any = None
        self.alive = True
        self.stopped = False
        """SIGSTOP, or its machine is suspended."""
        self.resumed_at = 0.0
        self.points_left: int | None = None
        """Effects until it crashes, when a fault asked for that."""
        self.on_crash: Callable[[], None] | None = None
        self.full = False
        self._inbox: deque[Any] = deque()
        self._pending: list[Any] = []
        """Batches that are not durable yet."""
        self._try_again_at = -math.inf
        self._refused = False
        self._committing = False
        self._timer: Timer | None = None
        self._late = False

    def take(self, event: Any, now: Instant) -> None:
        """One event goes to the core."""
        self.core.handle(event, now)

    # ---- what a concrete daemon says

    def tick(self) -> Any:
        """The event of a deadline that passed."""
        raise NotImplementedError

    def store_state(self, full: bool) -> Any:
        """The event of a disk that filled up, or has room again; None when the core is not told."""
        raise NotImplementedError

    def part(self, batch: Any) -> Part:
        """What must be durable before this batch is delivered."""
        raise NotImplementedError

    def committed(self, transaction: Transaction) -> None:
        """The observer's look at what has just become durable, also when its writer died of it."""
        raise NotImplementedError

    def send_at_once(self, ready: Any) -> None:
        raise NotImplementedError

    def effects(self, ready: Any) -> list[Callable[[], None]]:
        """Everything else, one effect each, in their order."""
        raise NotImplementedError

    def handled(self) -> None:
        """After each turn of the core, its consequences taken: the place to check it."""

    def rested(self) -> None:
        """All that the core decided is durable now: its log must give this very state."""

    def vanish(self) -> None:
        """The operating system closes what a dead process had open."""
        raise NotImplementedError

    # ---- the loop

    def post(self, event: Any) -> None:
        if self.alive:
            self._inbox.append(event)
            self.schedule()

    def hears(self, kind: type) -> bool:
        """Whether an event of this kind waits to be handled."""
        return any(isinstance(event, kind) for event in self._inbox)

    def now(self) -> Instant:
        return self.clock.now()

    def start(self) -> None:
        """What the core made ready at its restart comes first."""
        self._guard(self._settle)

    def schedule(self) -> None:
        """Decide when the loop looks next."""
        if self._late and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.alive or self.stopped or self._committing:
            return
        if self._inbox:
            self._timer = self.world.after(TURN_S, self._guard, self._turn)
            return
        times = [self._try_again_at] if self.full else []
        deadline = self.core.next_deadline()
        if deadline is not None:
            times.append(self.clock.world_time(deadline))
        if times:
            self._timer = self.world.at(min(times), self._guard, self._turn)

    def _guard(self, action: Callable[[], None]) -> None:
        if not self.alive or self.stopped:
            return
        try:
            action()
        except Crashed:
            self.die("crashed between two effects")
        else:
            self.schedule()

    def _turn(self) -> None:
        self._timer = None
        events = [self._inbox.popleft() for _ in range(min(MAX_EVENTS, len(self._inbox)))]
        now = self.clock.now()
        deadline = self.core.next_deadline()
        late = -math.inf if deadline is None else -now.seconds_until(deadline)
        if late > OVERSLEPT_S and not self._late:
            self._late = True
            self._inbox.extendleft(reversed(events))
            self._timer = self.world.after(READ_FIRST_S, self._guard, self._turn)
            return
        if late >= 0 and not self._inbox:
            events.append(self.tick())
        self._late = False
        for event in events:
            self.take(event, now)
        self._settle()

    def _settle(self) -> None:
        ready = self.core.take_ready()
        self.handled()
        self.send_at_once(ready)
        self._pending.append(ready)
        if not self._refused or self.world.now >= self._try_again_at:
            self._make_durable()

    def _make_durable(self) -> None:
        batches, self._pending = self._pending, []
        self._refused = False
        transaction = Transaction([self.part(ready) for ready in batches])
        if transaction.empty and not self.full:
            self._told(full=False)
            self._deliver(batches)
            return
        self.point()
        if self.disk.full:
            self.disk.refusals += 1
            self._pending = batches
            self._refused = True
            self._told(full=True)
            return
        self.log.begin(transaction)
        self._committing = True
        self.world.after(self.world.between(*COMMIT_S), self._guard_commit, batches)

    def _guard_commit(self, batches: Sequence[Any]) -> None:
        if not self.alive:
            return
        if self.stopped:
            self.world.after(0.01, self._guard_commit, batches)  # the writer thread is stopped with its process
            return
        self._committing = False
        writing = self.log.writing
        assert writing is not None
        self.log.commit()
        self.committed(writing)
        if not self._pending:
            self.rested()
        self._guard(lambda: self._durable(batches))

    def _durable(self, batches: Sequence[Any]) -> None:
        self.point()
        self._told(full=self.disk.short)
        self._deliver(batches)

    def _deliver(self, batches: Sequence[Any]) -> None:
        for ready in batches:
            for effect in self.effects(ready):
                effect()
                self.point()

    def _told(self, full: bool) -> None:
        self._try_again_at = self.world.now + FULL_PAUSE_S if full else -math.inf
        if full != self.full:
            self.full = full
            event = self.store_state(full)
            if event is not None:
                self._inbox.append(event)

    # ---- dying

    def point(self) -> None:
        """A place where the process may die."""
        if self.points_left is not None:
            self.points_left -= 1
            if self.points_left <= 0:
                raise Crashed

    def die(self, how: str) -> None:
        """kill -9: memory is gone; a commit that was under way happened or did not."""
        if not self.alive:
            return
        self.alive = False
        if self._timer is not None:
            self._timer.cancel()
        if self._committing:
            fate = Fate.WRITTEN if self.world.chance(0.5) else Fate.TORN
            writing = self.log.writing
            self.log.crash(fate)
            if fate is Fate.WRITTEN and writing is not None:
                self.committed(writing)
        self.world.note(self.name, how)
        self.vanish()
        if self.on_crash is not None:
            self.on_crash()

    # ---- SIGSTOP and SIGCONT

    def stop(self) -> None:
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        self.stopped = False
        self.resumed_at = self.world.now
        self.schedule()
