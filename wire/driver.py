"""The one loop that both daemons run around their core: events in, records durable, then everything else.

    wait for an event or the deadline; drain what is queued; handle each with one `now`
    take what is ready; send what promises nothing; commit the records; deliver the rest

Nothing of a batch is delivered before its records are durable, and batches are delivered in order. When the disk is
full the same batch is committed again after a pause, while events go on being handled.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import trio

from wire.instant import Instant
from wire.ledger import StoreFull

MAX_EVENTS: Final = 256
"""Events handled before records are committed."""
INBOX: Final = 1024
"""Events that may wait; whoever puts one more waits."""
INBOX_BYTES: Final = 16 * 1024 * 1024
"""As they came: what is made of them here may be twenty times as much."""
MAX_NAP_S: Final = 5.0
"""trio's clock stands still in suspend, deadlines do not: look at them at least this often."""
OVERSLEPT_S: Final = 1.0
"""Later than this for a deadline means that the process was stopped or starved: its inbox comes first."""
READ_FIRST_S: Final = 0.1
"""For so long the inbox must have been quiet, then, before the deadline is looked at."""
MOST_QUIETS: Final = 10
"""So often at most: a peer that never falls silent must not stop time."""
FULL_PAUSE_S: Final = 1.0
"""Between two tries of a commit that the disk had no room for."""


class Ready(Protocol):
    """What a core wants done. The driver looks at no more of it than this, and at its truth value where it has one:
    false is that nothing but `at_once` is in it."""

    @property
    def records(self) -> Sequence[Any]: ...
    @property
    def forget(self) -> Sequence[str]: ...
    @property
    def at_once(self) -> Sequence[Any]: ...


E = TypeVar("E")
R = TypeVar("R", bound=Ready)
E_contra = TypeVar("E_contra", contravariant=True)
R_co = TypeVar("R_co", bound=Ready, covariant=True)


class Core(Protocol[E_contra, R_co]):
    """The shape of every core here (docs/design.md)."""

    def handle(self, event: E_contra, now: Instant) -> None: ...
    def take_ready(self) -> R_co: ...
    def next_deadline(self) -> Instant | None: ...


class Driver(Generic[E, R]):
    """Owns a core. `put` and `post` events; `run` until `stop`.

    `commit` is given the batches not yet durable, in order, and makes them so in one transaction; it gives True when
    room is short, raises StoreFull to be asked again, and any other exception ends `run`. `send_at_once` sees a batch
    as soon as it is ready, `deliver` once it is durable. `store_state(full)` is the event that tells the core of a
    disk that filled up or has room again; with `short_is_full` it comes while there is still the ballast's room, which
    is right for who can refuse new work, and wrong for who must go on to get rid of what fills the disk.
    """

    def __init__(
        self,
        core: Core[E, R],
        *,
        clock: Callable[[], Instant],
        tick: E,
        commit: Callable[[Sequence[R]], Awaitable[bool]],
        deliver: Callable[[R], None],
        send_at_once: Callable[[R], None],
        store_state: Callable[[bool], E] | None = None,
        short_is_full: bool = True,
    ) -> None:
        self.core = core
        self.full = False
        self._clock = clock
        self._tick = tick
        self._commit = commit
        self._deliver = deliver
        self._send_at_once = send_at_once
        self._store_state = store_state
        self._short_is_full = short_is_full
        self._events: deque[E] = deque()
        self._sizes: deque[int] = deque()
        self._added = self._taken = 0
        self._turns: deque[tuple[int, trio.Event]] = deque()
        """Who waits until so many events were taken, in order."""
        self._held = 0
        self._woken = trio.Event()
        self._room = trio.Event()
        self._pending: list[R] = []
        self._try_again: Instant | None = None
        self._refused = False
        self._before_tick: int | None = None
        """The deadline has passed; so many events came before it was seen and are handled before the tick."""
        self._stopped = False

    # ---- what others call

    async def put(self, event: E, size: int = 0) -> None:
        """An event from outside, of so many bytes; waits while the inbox is full, which is how a peer is slowed
        down."""
        while len(self._events) >= INBOX or self._held >= INBOX_BYTES:
            await self._room.wait()
        self._add(event, size)

    async def hand_over(self, event: E, size: int = 0) -> None:
        """As `put`, and wait until its turn has come: whoever speaks thus has one event in the inbox at most, so that
        the others are heard however much it says."""
        await self.put(event, size)
        turn = trio.Event()
        self._turns.append((self._added, turn))
        await turn.wait()

    def post(self, event: E) -> None:
        """An event of the daemon itself, never refused: few, and from `deliver` too."""
        self._add(event, 0)

    def _add(self, event: E, size: int) -> None:
        self._events.append(event)
        self._sizes.append(size)
        self._held += size
        self._added += 1
        self._woken.set()

    def stop(self) -> None:
        """End `run` after the batch at hand."""
        self._stopped = True
        self._woken.set()

    # ---- the loop

    async def run(self) -> None:
        """Drive until `stop`. Records of the last batch are durable when it returns, unless the disk is full."""
        await self._settle()  # what the core made ready before it was driven, at its restart
        while not self._stopped:
            events = await self._wait()
            now = self._clock()
            for event in events:
                self.core.handle(event, now)
            await self._settle()
        for _, turn in self._turns:
            turn.set()

    async def _wait(self) -> list[E]:
        """The next events; with a tick behind them when the deadline has passed and all is read that came before."""
        while not self._stopped:
            delay = self._delay_s()
            if delay > 0:
                self._before_tick = None
            elif self._before_tick is None:
                await self._let_readers_in(-delay)
                self._before_tick = len(self._events)
            events = self._drain()
            if self._before_tick is not None:
                self._before_tick -= len(events)
                if self._before_tick <= 0:
                    self._before_tick = None
                    return [*events, self._tick]
            pause = self._pause_s()
            if events or pause <= 0:
                return events
            await self._sleep(min(delay, pause, MAX_NAP_S))
        return []

    def _pause_s(self) -> float:
        """Seconds until a refused commit is tried again, or room is asked for; infinite when there is room."""
        return math.inf if self._try_again is None else self._clock().seconds_until(self._try_again)

    def _delay_s(self) -> float:
        """Seconds until the core's deadline, infinite without one."""
        deadline = self.core.next_deadline()
        return math.inf if deadline is None else self._clock().seconds_until(deadline)

    async def _let_readers_in(self, late_s: float) -> None:
        """The deadline has passed. One that is long past means that we slept, and what came meanwhile may be what
        the deadline waits for: nobody is given up with his message unread."""
        await trio.lowlevel.checkpoint()
        if late_s <= OVERSLEPT_S:
            return
        for _ in range(MOST_QUIETS):
            before = len(self._events)
            await trio.sleep(READ_FIRST_S)
            if len(self._events) == before:
                return

    async def _sleep(self, seconds: float) -> None:
        """Until an event comes or the time is over."""
        with trio.move_on_after(seconds):
            await self._woken.wait()

    def _drain(self) -> list[E]:
        events = [self._events.popleft() for _ in range(min(len(self._events), MAX_EVENTS))]
        self._held -= sum(self._sizes.popleft() for _ in events)
        self._taken += len(events)
        while self._turns and self._turns[0][0] <= self._taken:
            self._turns.popleft()[1].set()
        if not self._events and self._woken.is_set() and not self._stopped:
            self._woken = trio.Event()
        if self._room.statistics().tasks_waiting:
            self._room.set()
            self._room = trio.Event()
        return events

    async def _settle(self) -> None:
        """Take what is ready, make it durable, deliver it."""
        ready = self.core.take_ready()
        if ready.at_once:
            self._send_at_once(ready)
        if ready:
            self._pending.append(ready)
        if not self._refused or self._pause_s() <= 0:
            await self._make_durable()

    async def _make_durable(self) -> None:
        """Commit what is pending and deliver it. While room is short an empty commit now and then asks for it."""
        batches = list(self._pending)
        short = self._refused = False
        if self.full or any(batch.records or batch.forget for batch in batches):
            try:
                short = await self._commit(batches)
            except StoreFull:
                self._refused = True
        self._try_again = self._clock().after(FULL_PAUSE_S) if short or self._refused else None
        self._tell(full=self._refused or (short and self._short_is_full))
        if self._refused:
            return
        del self._pending[: len(batches)]
        for batch in batches:
            self._deliver(batch)

    def _tell(self, *, full: bool) -> None:
        if full != self.full:
            self.full = full
            if self._store_state is not None:
                self.post(self._store_state(full))
