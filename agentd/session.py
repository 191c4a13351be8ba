"""The agent's shell: the journal, keepers, chores, and the session with the coordinator around `agentd.core`."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from agentd import events
from agentd.beneath import FilesError
from agentd.chores import Chores
from agentd.containment import Containment
from agentd.core import AgentCore
from agentd.dial import Way
from agentd.events import Chore, Event, Leave, Ready
from agentd.files import PRIVATE_ELEVATED, PRIVATE_JOB, NodeFiles
from agentd.identity import OutcastError
from agentd.journal import open_journal
from agentd.links import KILL_AGAIN_S, Links
from agentd.model import NodeConfig
from agentd.noted import note, noted
from agentd.processes import ContainmentError
from agentd.records import Purpose
from agentd.spawn import Fence, Starter
from agentd.terminals import Terminals
from agentd.uids import Uids, UidsError
from wire.clock import boot_clock
from wire.codec import FrameTooLarge
from wire.driver import Driver
from wire.log import daemon_log
from wire.messages import (
    START_JOB,
    FileContents,
    FileListing,
    FileRefused,
    FromNode,
    Join,
    Joined,
    ListFiles,
    Message,
    ReadFile,
    Renewed,
    Role,
    ShellInput,
    ShellSize,
    ShellTaken,
)
from wire.notify import Supervisor
from wire.retry import delay_s
from wire.stream import Session, SessionRefused, opened

RECONNECT_LEAST_S: Final = 0.01
PART_S: Final = 2.0
"""For the last messages to leave when the agent goes."""
CHORES: Final = 8
"""Threads for work on directories and processes."""
READERS: Final = 8
"""Requests for files served at once."""
FOLLOW_EVERY_S: Final = 0.05
"""Between two looks at a file that somebody follows."""
FOLLOW_PATIENCE_S: Final = 20.0
"""For so long a request waits for more; then whoever follows asks again."""
MAX_FOLLOWED: Final = 64
"""Requests that wait for more at once; others are answered as things are."""
TRASH_PAUSE_S: Final = 0.02
"""Between two steps of emptying the trash: deleting must not slow down what runs."""
TRASH_STEPS: Final = 500
DISK_LOOK_S: Final = 5.0
LOOK_AGAIN_S: Final = 60.0
"""Between two looks at what could not be removed, while nothing else is thrown away."""


@dataclass(frozen=True, slots=True)
class Place:
    """What the agent stands on: its root, its boot, its way of holding processes, and the users of its jobs (None:
    they run as its own)."""

    files: NodeFiles
    boot: str
    containment: Containment
    nofile: tuple[int, int]
    uids: Uids | None = None


async def run_agent(
    config: NodeConfig,
    place: Place,
    way: Way,
    *,
    supervisor: Supervisor,
    lifeline: int | None,
    announce: Callable[[str], None],
) -> tuple[Leave, str]:
    """Run until the node may or must go; why it went. Raises StoreError, OSError (in groups)."""
    clock = boot_clock(place.boot)
    core = AgentCore(config)
    async with open_journal(Path(place.files.agent_directory), among_jobs=not config.embedded) as journal:
        for record in await journal.load():
            core.apply(record)
        jobs = core.ledger.jobs.keys() | core.ledger.retained.keys()
        await trio.to_thread.run_sync(
            hold_to_users, place.files.agent_directory, config.users, sorted(core.ledger.jobs.keys() - {START_JOB})
        )
        core.restarted(clock())
        gc.freeze()  # what was loaded stays: no collection need walk it again
        driver = Driver[Event, Ready](
            core,
            clock=clock,
            tick=events.Tick(),
            commit=journal.commit,
            deliver=lambda ready: agent.deliver(ready),
            send_at_once=lambda ready: agent.send_at_once(ready),
            store_state=events.StoreState,
            short_is_full=False,
        )
        agent = Agent(driver, config, place, way, supervisor, clock=lambda: clock().wall)
        await trio.to_thread.run_sync(agent.chores.restarted, jobs)
        return await agent.run(lifeline, announce)


def hold_to_users(agent_directory: str, users: str, jobs: Sequence[str]) -> None:
    """Raises UidsError when jobs that the node holds began as other users: their directories would be another's."""
    path = Path(agent_directory) / "users"
    before = (noted(path) or b"").decode("ascii", "replace")
    if jobs and before in ("job", "same") and before != users:
        others = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
        raise UidsError(
            f'This node holds {jobs[0]}{others}, begun with mode = "{before}" in [users]: their commands and their '
            f'releases run as the same users to the end. Start the agent with that mode, and with "{users}" when they '
            "are over (SIGINT ends an agent so that its node holds nothing)."
        )
    if not note(path, users.encode()):
        raise UidsError(f"{path} can't be written: the disk is full.")


def fence_of(uids: Uids | None, order: events.StartKeeper | events.SurveyKeeper) -> Fence:
    """How a keeper is held: as its job's user, or as root for elevated commands, with private places of its own; where
    jobs have no users of their own, as we are. Raises ContainmentError."""
    if uids is None:
        return Fence(needs=order.needs)
    own = f"workitems/{order.job}" if order.purpose is Purpose.START else order.job
    if order.elevated:
        return Fence(0, 0, f"{own}/{PRIVATE_ELEVATED}", order.needs)
    user = uids.of(order.job)
    if user is None:
        raise ContainmentError(f"Job {order.job} has no user here: its directories were not made.")
    return Fence(user, user, f"{own}/{PRIVATE_JOB}", order.needs)


def user_of(uids: Uids | None, job: str, elevated: bool) -> int | None:
    """Whose the terminal of a shell is; None: ours."""
    return None if uids is None or elevated else uids.of(job)


class Agent:
    """Everything around one driver. Invariant: a message goes to the session whose Connected it follows from, or
    nowhere."""

    def __init__(
        self,
        driver: Driver[Event, Ready],
        config: NodeConfig,
        place: Place,
        way: Way,
        supervisor: Supervisor,
        clock: Callable[[], float],
    ) -> None:
        self._driver = driver
        self._config = config
        self._files = place.files
        self._containment = place.containment
        self._way = way
        self._supervisor = supervisor
        self._wall = clock
        self._log: Any = daemon_log("agentd").bind(node=config.node)
        self.chores = Chores(place.files, place.containment, place.uids, clock, self._log)
        starter = Starter(place.files.agent_directory, place.boot, place.containment, nofile=place.nofile, adopts=True)
        self._starter = starter
        self._links = Links(
            starter, place.files.agent_directory, place.files.workitems, place.boot, driver.put, self._log,
            partial(fence_of, place.uids),
        )  # fmt: skip
        self._terminals = Terminals(self._say_now, partial(user_of, place.uids))
        self._session: Session | None = None
        self._session_over = trio.Event()
        self._was_in = False
        """Whether the coordinator let us in over the last session."""
        self._left: tuple[Leave, str] = (Leave.STOPPED, "")
        self._threads = trio.CapacityLimiter(CHORES)
        self._readers = trio.CapacityLimiter(READERS)
        self._followed = 0
        self._trash = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self, lifeline: int | None, announce: Callable[[str], None]) -> tuple[Leave, str]:
        """Until the core says that it is over; why."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self._links.run)
                nursery.start_soon(self._hear_signals, signals)
                if lifeline is not None:
                    nursery.start_soon(self._hold, lifeline)
                nursery.start_soon(self._dial)
                nursery.start_soon(self._empty_trash)
                nursery.start_soon(self._watch_disk)
                announce(f"agentd: node {self._config.node} ready at {self._files.root}")
                self._tell(self._supervisor.ready(f"node {self._config.node}: no session yet"))
                await self._driver.run()
                await self._part()
                nursery.cancel_scope.cancel()
        return self._left

    async def _hear_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            self._log.info("signal", signal=signal.Signals(number).name)
            self._tell(self._supervisor.stopping() if number == signal.SIGTERM else None)
            self._driver.post(events.Terminated() if number == signal.SIGTERM else events.Interrupted())

    def _tell(self, unheard: str | None) -> None:
        if unheard is not None:
            self._log.warning("the service manager does not listen", reason=unheard)

    async def _hold(self, lifeline: int) -> None:
        """Until the pipe that `run` holds breaks."""
        while True:
            await trio.lowlevel.wait_readable(lifeline)
            if not os.read(lifeline, 4096):
                break
        self._log.warning("run is gone")
        self._driver.post(events.LifelineCut())

    async def _part(self) -> None:
        """Let the last messages leave."""
        if self._session is not None:
            self._session.close("the agent stops")
            with trio.move_on_after(PART_S):
                await self._session_over.wait()
        if self._left[0] is Leave.DEPARTED:
            await trio.to_thread.run_sync(self._containment.remove_base)

    # ---- what the core wants done

    def send_at_once(self, ready: Ready) -> None:
        """What promises nothing durable."""
        for now in ready.at_once:
            if isinstance(now, tuple):
                self._links.say([now])
            else:
                self._send(ready.epoch, now)

    def deliver(self, ready: Ready) -> None:
        """Everything else of a batch whose records are durable."""
        for message in ready.messages:
            self._send(ready.epoch, message)
        for order in ready.keepers:
            self._links.order(order)
        if ready.said:
            self._links.say(ready.said)
        for chore in ready.chores:
            assert self._nursery is not None, "the driver runs inside the nursery"
            if isinstance(chore, events.EndTerminal):
                self._terminals.end(chore)
            elif isinstance(chore, events.OpenTerminal):
                self._driver.post(self._terminals.open(chore, self._nursery))
            else:
                self._nursery.start_soon(self._do, chore)
        if ready.hang_up is not None and self._session is not None and self._session.epoch == ready.epoch:
            self._log.warning("hanging up", reason=ready.hang_up)
            self._session.close(ready.hang_up, error=True)
        if ready.leave is not None:
            self._left = (ready.leave, ready.leave_reason)
            self._driver.stop()

    def _say_now(self, message: FromNode) -> None:
        """What belongs to whichever session there is."""
        if self._session is not None:
            self._send(self._session.epoch, message)

    def _send(self, epoch: int, message: Message) -> None:
        session = self._session
        if session is None or session.epoch != epoch:
            return
        if isinstance(message, Join):
            self._log.info("joining", pool=message.pool, session=epoch)
        try:
            session.send(message)  # type: ignore[arg-type]  # every Message of the core is one of AnyMessage
        except FrameTooLarge as error:
            self._log.error("message too large", kind=type(message).__name__, reason=str(error))
            session.close(str(error), error=True)

    # ---- chores

    async def _do(self, chore: Chore) -> None:
        answer = await trio.to_thread.run_sync(self.chores.done, chore, limiter=self._threads)
        while answer is None:
            if isinstance(chore, events.EmptyJob):
                await self._driver.put(events.Unkillable(chore.job))
            await trio.sleep(KILL_AGAIN_S)
            answer = await trio.to_thread.run_sync(self.chores.done, chore, limiter=self._threads)
        if isinstance(chore, events.CleanJob | events.MakeJob | events.MakeStart | events.DiscardTasks):
            self._trash.set()
        await self._driver.put(answer)

    async def _watch_disk(self) -> None:
        """Say how much room there is, now and then, and when it can't be known."""
        complained = ""
        while True:
            try:
                found = await trio.to_thread.run_sync(os.statvfs, self._files.root)
                complained = ""
                seen = events.DiskSeen(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
                await self._driver.put(seen)
            except OSError as error:
                if complained != (complained := error.strerror or str(error)):
                    self._log.error("the room on the disk is not known", reason=complained)
            await trio.sleep(DISK_LOOK_S)

    async def _empty_trash(self) -> None:
        """Delete what was thrown away, in small steps and with pauses; when that is done, look for users of jobs of
        which nothing is left."""
        more = True
        while True:
            if not more:
                with trio.move_on_after(LOOK_AGAIN_S):
                    await self._trash.wait()
            self._trash = trio.Event()
            try:
                more = await trio.to_thread.run_sync(self._files.empty_trash, TRASH_STEPS)
                if not more:
                    more = await trio.to_thread.run_sync(self.chores.look_again)
            except OSError as error:
                self._log.error("the trash can't be emptied", reason=error.strerror)
                more = False
            await trio.sleep(TRASH_PAUSE_S)

    # ---- the coordinator

    async def _dial(self) -> None:
        """Hold a session with the coordinator, again and again."""
        failures = 0
        complained = ""
        while True:
            try:
                async with opened(await self._way.dial(), Role.NODE) as session:
                    complained = ""
                    await self._converse(session)
                if self._was_in:
                    failures = 0
            except (OSError, SessionRefused) as error:
                reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
                if reason != complained:
                    complained = reason
                    self._log.warning("no session with the coordinator", address=self._way.address, reason=reason)
                    self._tell(self._supervisor.status(f"node {self._config.node}: no session: {reason}"))
            except OutcastError as error:
                self._left = (Leave.REFUSED, str(error))
                self._driver.stop()
                return
            failures += 1
            seed = f"{self._config.node}/{self._wall()}"
            await trio.sleep(RECONNECT_LEAST_S + delay_s(self._way.again, failures, seed))

    async def _converse(self, session: Session) -> None:
        """One session, from its welcome to its end."""
        self._session, self._session_over = session, trio.Event()
        self._was_in = False
        try:
            await self._driver.put(events.Connected(session.epoch))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._way.attend, session)
                async for message in session:
                    if isinstance(message, ReadFile | ListFiles):
                        nursery.start_soon(self._serve_files, session, message)
                    elif isinstance(message, ShellInput | ShellSize | ShellTaken):
                        self._terminals.hear(message)
                    elif isinstance(message, Renewed):
                        await self._way.renewed(session, message)
                    else:
                        self._note(message)
                        await self._driver.put(events.Received(message))
                nursery.cancel_scope.cancel()
        finally:
            self._session = None
            self._session_over.set()
            self._terminals.end_all()
            reason = session.end.reason if session.end is not None else "the agent stops"
            self._log.info("session over", session=session.epoch, reason=reason)
            self._driver.post(events.Disconnected(reason))

    def _note(self, message: Message) -> None:
        if isinstance(message, Joined):
            self._was_in = True
            self._tell(self._supervisor.status(f"node {self._config.node}: joined at {self._way.address}"))

    async def _serve_files(self, session: Session, request: ReadFile | ListFiles) -> None:
        answer = await self._look_up(request)
        if isinstance(request, ReadFile) and request.follow:
            answer = await self._more(request, answer)
        session.send(answer)

    async def _look_up(self, request: ReadFile | ListFiles) -> FileContents | FileListing | FileRefused:
        return await trio.to_thread.run_sync(self._looked_up, request, limiter=self._readers)

    async def _more(
        self, request: ReadFile, answer: FileContents | FileListing | FileRefused
    ) -> FileContents | FileListing | FileRefused:
        """When the file has more, or is there at all; as things are, when that does not come."""
        if self._followed < MAX_FOLLOWED:
            self._followed += 1
            try:
                with trio.move_on_after(FOLLOW_PATIENCE_S):
                    while _is_nothing(answer):
                        await trio.sleep(FOLLOW_EVERY_S)
                        answer = await self._look_up(request)
            finally:
                self._followed -= 1
        return FileContents(request.request, b"", 0, True) if _is_nothing(answer) else answer

    def _looked_up(self, request: ReadFile | ListFiles) -> FileContents | FileListing | FileRefused:
        """In a thread."""
        try:
            if isinstance(request, ListFiles):
                listing = self._files.list_directory(request.path, owners=self.chores.owners(request.path))
                return FileListing(request.request, listing.entries, listing.truncated)
            owners = self.chores.owners(request.path)
            piece = self._files.read_piece(request.path, request.offset, request.limit, owners)
            return FileContents(request.request, piece.content, piece.size, piece.end)
        except FilesError as error:
            return FileRefused(request.request, str(error), error.missing)


def _is_nothing(answer: FileContents | FileListing | FileRefused) -> bool:
    """Whether what somebody follows may be still to come."""
    return (isinstance(answer, FileContents) and not answer.content) or (
        isinstance(answer, FileRefused) and answer.missing
    )
