"""The driver loop: nothing leaves before it is durable, time waits for the inbox, and a full disk passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from wire import driver as driver_module
from wire.driver import FULL_PAUSE_S, INBOX, INBOX_BYTES, MAX_EVENTS, MAX_NAP_S, Driver
from wire.instant import Instant
from wire.ledger import StoreError, StoreFull

TICK = "tick"


@dataclass
class Batch:
    records: list[str] = field(default_factory=list)
    forget: list[str] = field(default_factory=list)
    at_once: list[str] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.records or self.forget or self.frames)


class Echo:
    """A core: what comes in is kept and said; `beat` promises nothing; `ask` is said and not kept."""

    def __init__(self) -> None:
        self.handled: list[tuple[str, float]] = []
        self.deadline: Instant | None = None
        self.on_event: Callable[[str], None] = lambda event: None
        self._ready = Batch()

    def handle(self, event: str, now: Instant) -> None:
        self.handled.append((event, now.boottime))
        if event == TICK:
            self.deadline = None
        if event.startswith("beat"):
            self._ready.at_once.append(event)
        elif event.startswith("ask"):
            self._ready.frames.append(event)
        else:
            self._ready.records.append(event)
            self._ready.frames.append(event)
        self.on_event(event)

    def take_ready(self) -> Batch:
        ready, self._ready = self._ready, Batch()
        return ready

    def next_deadline(self) -> Instant | None:
        return self.deadline


class Bench:
    """A driver whose disk and deliveries are watched. `clock_jump` is what boottime is ahead of trio's clock."""

    def __init__(self) -> None:
        self.core = Echo()
        self.log: list[str] = []
        self.commits: list[list[str]] = []
        self.refusals = 0
        self.short = 0
        self.commit_s = 0.0
        self.failure: Exception | None = None
        self.clock_jump = 0.0
        self.driver: Driver[str, Batch] = Driver(
            self.core,
            clock=self.now,
            tick=TICK,
            commit=self.commit,
            deliver=lambda batch: self.log.extend(batch.frames),
            send_at_once=lambda batch: self.log.extend(batch.at_once),
            store_state=lambda full: "ask full" if full else "ask room",
        )

    def now(self) -> Instant:
        return Instant("boot", trio.current_time() + self.clock_jump, 0.0)

    def at(self, seconds: float) -> Instant:
        return self.now().after(seconds)

    async def commit(self, batches: Sequence[Batch]) -> bool:
        await trio.sleep(self.commit_s)
        if self.failure is not None:
            raise self.failure
        if self.refusals:
            self.refusals -= 1
            self.log.append("refused")
            raise StoreFull("no room")
        self.commits.append([record for batch in batches for record in batch.records])
        if any(batch.records for batch in batches):
            self.log.append("durable " + "+".join(self.commits[-1]))
        if self.short:
            self.short -= 1
            return True
        return False

    def events(self) -> list[str]:
        return [event for event, _ in self.core.handled]


@asynccontextmanager
async def running(bench: Bench):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.driver.run)
        yield
        await trio.testing.wait_all_tasks_blocked()
        bench.driver.stop()


async def test_what_is_kept_is_durable_before_it_is_said(autojump_clock):
    bench = Bench()
    async with running(bench):
        await bench.driver.put("a")
        await trio.sleep(1)
        await bench.driver.put("b")
    assert bench.log == ["durable a", "a", "durable b", "b"]


async def test_what_comes_during_a_commit_shares_the_next_one(autojump_clock):
    bench = Bench()
    bench.commit_s = 0.01
    async with running(bench):
        await bench.driver.put("a")
        await trio.sleep(0.001)
        for event in "bcd":
            await bench.driver.put(event)
        await trio.sleep(1)
    assert [commit for commit in bench.commits if commit] == [["a"], ["b", "c", "d"]]


async def test_one_batch_has_one_now_and_at_most_so_many_events(autojump_clock):
    bench = Bench()
    for number in range(MAX_EVENTS + 10):
        bench.driver.post(f"ask {number}")
    async with running(bench):
        await trio.sleep(1)
    assert len(bench.core.handled) == MAX_EVENTS + 10
    assert len({now for _, now in bench.core.handled[:MAX_EVENTS]}) == 1


async def test_nothing_is_committed_where_nothing_is_kept(autojump_clock):
    bench = Bench()
    async with running(bench):
        await bench.driver.put("ask 1")
        await bench.driver.put("beat 1")
    assert sorted(bench.log) == ["ask 1", "beat 1"]
    assert bench.commits == []


async def test_what_promises_nothing_does_not_wait_for_the_disk(autojump_clock):
    bench = Bench()
    bench.commit_s = 5.0
    async with running(bench):
        bench.driver.post("a")
        bench.driver.post("beat 1")
        await trio.sleep(1)
        assert bench.log == ["beat 1"]
        await trio.sleep(5)
    assert bench.log == ["beat 1", "durable a", "a"]


async def test_a_full_inbox_makes_the_sender_wait(autojump_clock):
    bench = Bench()
    for number in range(INBOX):
        bench.driver.post(f"ask {number}")
    with trio.move_on_after(10) as patience:
        await bench.driver.put("ask last")
    assert patience.cancelled_caught
    async with running(bench):
        await bench.driver.put("ask last")
        await trio.sleep(1)
    assert bench.events()[-1] == "ask last"


# ---- deadlines


async def test_a_deadline_gives_one_tick(autojump_clock):
    bench = Bench()
    bench.core.deadline = bench.at(60)
    async with running(bench):
        await trio.sleep(59)
        assert bench.events() == []
        await trio.sleep(2)
    assert bench.events() == [TICK]
    assert bench.core.handled[0][1] == pytest.approx(bench.now().boottime - 1, abs=0.1)


async def test_a_deadline_set_by_an_event_is_met(autojump_clock):
    bench = Bench()
    due = bench.at(8)
    bench.core.on_event = lambda event: setattr(bench.core, "deadline", due) if event == "a" else None
    async with running(bench):
        await trio.sleep(1)
        await bench.driver.put("a")
        await trio.sleep(10)
    assert bench.events() == ["a", TICK]


async def test_what_is_queued_when_the_deadline_passes_is_handled_before_it(autojump_clock):
    bench = Bench()
    bench.core.deadline = bench.at(-0.5)
    for number in range(MAX_EVENTS * 2):
        bench.driver.post(f"ask {number}")
    async with running(bench):
        await trio.sleep(1)
    assert bench.events() == [*(f"ask {number}" for number in range(MAX_EVENTS * 2)), TICK]


async def test_events_without_end_do_not_hold_up_time(autojump_clock):
    bench = Bench()
    bench.core.deadline = bench.at(-0.5)
    handled = 0

    def again(event: str) -> None:
        nonlocal handled
        handled += 1
        if event != TICK and handled < 50 * MAX_EVENTS:
            bench.driver.post(event)

    bench.core.on_event = again
    for _ in range(MAX_EVENTS):
        bench.driver.post("ask")
    async with running(bench):
        await trio.sleep(1)
    assert TICK in bench.events()[: 3 * MAX_EVENTS]


async def test_a_process_that_slept_reads_its_inbox_before_it_expires_anyone(autojump_clock):
    bench = Bench()
    bench.core.deadline = bench.at(20)
    async with running(bench):
        await trio.sleep(1)
        bench.clock_jump = 100.0  # stopped, or suspended: what peers sent meanwhile is still in the sockets

        async def reader() -> None:
            await trio.sleep(MAX_NAP_S - 1 + driver_module.READ_FIRST_S / 2)
            for number in range(3):
                await bench.driver.put(f"ask {number}")
                await trio.sleep(driver_module.READ_FIRST_S / 2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
        await trio.sleep(5)
    assert bench.events() == ["ask 0", "ask 1", "ask 2", TICK]


async def test_a_deadline_that_passed_in_suspend_is_noticed_though_nobody_speaks(autojump_clock):
    bench = Bench()
    bench.core.deadline = bench.at(3600)
    async with running(bench):
        await trio.sleep(1)
        bench.clock_jump = 4000.0  # boottime went on, the clock that trio sleeps by did not
        await trio.sleep(MAX_NAP_S + 1)
        assert bench.events() == [TICK]


async def test_a_peer_that_never_falls_silent_does_not_stop_time_after_sleep(autojump_clock):
    bench = Bench()
    bench.core.deadline = bench.at(-50)
    async with running(bench):
        for number in range(60):
            await bench.driver.put(f"ask {number}")
            await trio.sleep(driver_module.READ_FIRST_S / 2)
    assert TICK in bench.events()


# ---- the disk


async def test_a_full_disk_is_tried_again_in_order_and_nothing_of_it_is_said(autojump_clock):
    bench = Bench()
    bench.refusals = 3
    async with running(bench):
        await bench.driver.put("a")
        await trio.sleep(0.1)
        await bench.driver.put("b")
        await bench.driver.put("ask c")
        await bench.driver.put("beat 1")
        await trio.sleep(FULL_PAUSE_S * 2 - 0.2)
        assert bench.driver.full
        assert bench.log == ["refused", "beat 1", "refused"]
        assert bench.events() == ["a", "ask full", "b", "ask c", "beat 1"]
        await trio.sleep(FULL_PAUSE_S * 3)
        assert not bench.driver.full
    assert bench.log == [
        "refused",
        "beat 1",
        "refused",
        "refused",
        "durable a+b",
        "a",
        "ask full",
        "b",
        "ask c",
        "ask room",
    ]


async def test_a_disk_with_little_room_takes_commits_at_once_and_is_asked_until_there_is_more(autojump_clock):
    bench = Bench()
    bench.short = 5
    async with running(bench):
        await bench.driver.put("a")
        await trio.sleep(0.1)
        assert bench.driver.full
        await bench.driver.put("b")
        await trio.sleep(0.1)
        assert bench.log == ["durable a", "a", "ask full", "durable b", "b"]
        await trio.sleep(FULL_PAUSE_S * 10)
        assert not bench.driver.full
    assert bench.log[-1] == "ask room"


async def test_any_other_failure_of_the_disk_ends_the_loop_with_nothing_said(autojump_clock):
    bench = Bench()
    bench.failure = StoreError("disk I/O error")
    bench.driver.post("a")
    with pytest.raises(StoreError):
        await bench.driver.run()
    assert bench.log == []


async def test_heartbeats_pile_nothing_up_while_the_disk_is_full(autojump_clock):
    bench = Bench()
    bench.refusals = 10_000
    async with running(bench):
        await bench.driver.put("a")
        for number in range(500):
            await bench.driver.put(f"beat {number}")
            await trio.sleep(0.5)
        assert len(bench.driver._pending) == 2  # the batch that was refused, and what the core said when it learnt so
    assert bench.log.count("refused") > 100
    assert "beat 499" in bench.log


async def test_deadlines_are_met_while_the_disk_is_full(autojump_clock):
    bench = Bench()
    bench.refusals = 1000
    bench.core.deadline = bench.at(30)
    async with running(bench):
        await bench.driver.put("a")
        await trio.sleep(31)
        assert TICK in bench.events()


async def test_stopping_makes_the_batch_at_hand_durable(autojump_clock):
    bench = Bench()
    bench.core.on_event = lambda event: bench.driver.stop()
    bench.driver.post("a")
    await bench.driver.run()
    assert bench.log == ["durable a", "a"]


async def test_what_a_restarted_core_has_ready_goes_first(autojump_clock):
    bench = Bench()
    bench.core.handle("restart", bench.now())
    async with running(bench):
        await bench.driver.put("a")
    assert bench.log == ["durable restart", "restart", "durable a", "a"]


# ---- who floods


async def test_large_events_fill_the_inbox_before_many_do(autojump_clock):
    bench = Bench()
    for number in range(4):
        await bench.driver.put(f"ask {number}", INBOX_BYTES // 4)
    with trio.move_on_after(10) as patience:
        await bench.driver.put("ask 4", 1)
    assert patience.cancelled_caught
    async with running(bench):
        await bench.driver.put("ask 5", INBOX_BYTES)
        await bench.driver.put("ask 6", 1)
    assert bench.events() == [f"ask {number}" for number in (0, 1, 2, 3, 5, 6)]


async def test_f33_who_hands_over_is_heard_once_a_batch_however_much_it_says(autojump_clock):
    """One says a thousand things, the other one says one, later: it is heard in the next batch."""
    bench = Bench()
    bench.commit_s = 0.01

    async def talk() -> None:
        for number in range(1000):
            await bench.driver.hand_over(f"much {number}")

    async with running(bench), trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        await trio.sleep(1.0)
        said = len(bench.core.handled)
        await bench.driver.hand_over("little")
        assert bench.events().index("little") <= said + 2
        assert 10 < said < 900
        nursery.cancel_scope.cancel()


async def test_who_hands_over_is_let_go_when_the_driver_stops(autojump_clock):
    bench = Bench()
    bench.commit_s = 1.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.driver.run)
        nursery.start_soon(bench.driver.hand_over, "a")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(bench.driver.hand_over, "b")
        await trio.testing.wait_all_tasks_blocked()
        bench.driver.stop()
    assert bench.events() == ["a"]
