"""The agent's shell in the simulated world: around the core a session, keepers, and chores on the disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from agentd import dialogue, events, records
from agentd.core import AgentCore
from agentd.keeper import read_record
from agentd.model import NodeConfig
from tests.simulator.coordinator import HOST, brief
from tests.simulator.daemon import Crashed, Daemon
from tests.simulator.disk import Disk, Part, Transaction
from tests.simulator.keepers import KeeperProcess
from tests.simulator.network import Connection, Network
from tests.simulator.society import NODE_S, Certificate, Credentials
from tests.simulator.world import Clock, World
from wire import limits
from wire.codec import ProtocolError
from wire.connection import Connection as Rules
from wire.messages import (
    NOTHING_WRITTEN,
    PROTOCOL_VERSION,
    START_JOB,
    Goodbye,
    Hello,
    Join,
    KeptStream,
    Message,
    Recalled,
    Renew,
    Renewed,
    Role,
    Run,
    Welcome,
)

RECONNECT_S: Final = (0.2, 1.5)
AGE_LOOKED_AT_S: Final = (3.0, 9.0)
CHORE_S: Final = (0.001, 0.02)
KILL_AGAIN_S: Final = 1.0
KEEPER_START_S: Final = (0.01, 0.05)


Order = events.StartKeeper | events.SurveyKeeper | events.KillKeeper | events.ForgetKeeper


class Observer(Protocol):
    """Who is told of an agent's doings."""

    def agent_committed(self, host: str, transaction: Transaction) -> None: ...
    def agent_sent(self, host: str, message: Message) -> None: ...
    def agent_received(self, host: str, message: Message) -> None: ...
    def agent_told(self, host: str, keeper: str, said: Any) -> None: ...
    def agent_rested(self, host: str, core: AgentCore) -> None: ...
    def agent_left(self, host: str, leave: events.Leave, reason: str) -> None: ...


class House(Protocol):
    """The machine, as its agent needs it."""

    keepers: dict[str, KeeperProcess]
    overstates: bool

    def credentials(self) -> Credentials: ...
    def renewed(self, certificate: bytes) -> None: ...
    def not_let_in(self) -> None: ...
    def balks(self) -> bool: ...
    def start_keeper(self, name: str, elevated: bool) -> None: ...
    def forget_keeper(self, name: str) -> None: ...
    def is_empty(self, keepers: list[str]) -> bool: ...
    def resists(self, keepers: list[str], job: str = "") -> str | None: ...
    def kill_left(self, keeper: str) -> None: ...
    def kill_job(self, job: str) -> bool: ...
    def make_job(self, chore: events.MakeJob) -> str | None: ...
    def clean_job(self, chore: events.CleanJob) -> events.JobCleaned: ...
    def take_piece(self, chore: events.TakePiece) -> events.PieceTaken: ...
    def read_outputs(self, chore: events.ReadOutputs) -> events.OutputsRead: ...
    def overdue(self, chore: events.FindOverdue) -> events.OverdueFound: ...
    def discard_tasks(self, chore: events.DiscardTasks) -> None: ...


class Link:
    """The agent's end of a connection to the coordinator: dialled again and again."""

    def __init__(self, daemon: AgentDaemon) -> None:
        self.daemon = daemon
        self.rules = Rules(Role.NODE)
        self.connection: Connection | None = None
        self.welcomed = False
        self._waiting: list[bytes | None] = []

    def dialled(self, connection: Connection | None) -> None:
        if connection is None or not self.daemon.alive:
            if connection is not None:
                connection.close(0)
            self.daemon.link_over(self, "nobody answers")
            return
        self.connection = connection
        connection.ends[0] = self
        if not connection.open[0]:
            self.daemon.link_over(self, "closed at once")
            return
        connection.send(0, self.rules.send(Hello(PROTOCOL_VERSION, Role.NODE)))
        self.daemon.world.after(limits.HANDSHAKE_S, self._welcomed_by_now)

    def _welcomed_by_now(self) -> None:
        if not self.welcomed:
            self.close("no Welcome in time")

    def received(self, data: bytes) -> None:
        self._waiting.append(data)
        self.read()

    def ended(self) -> None:
        self._waiting.append(None)
        self.read()

    def read(self) -> None:
        """Take what the socket holds, unless the process is stopped."""
        while self._waiting and self.daemon.alive and not self.daemon.stopped:
            data = self._waiting.pop(0)
            if data is None:
                self.close("the coordinator closed the connection")
                return
            try:
                self.rules.receive_bytes(data)
                while (message := self.rules.next_event()) is not None:
                    if isinstance(message, Goodbye):
                        self.close(message.reason)
                        return
                    self._take(message)
            except ProtocolError as error:
                self.close(str(error))
                return

    def _take(self, message: Message) -> None:
        if isinstance(message, Welcome):
            self.welcomed = True
            self.daemon.post(events.Connected(message.epoch))
            self.daemon.look_at_age(self)
        elif isinstance(message, Renewed):
            self.daemon.house.renewed(message.certificate)
        elif isinstance(message, Run) and self.daemon.house.balks():
            self.send(Recalled(message.grant, [(0, message.count)]))
        else:
            self.daemon.observer.agent_received(self.daemon.name, message)
            self.daemon.post(events.Received(message))

    def send(self, message: Message) -> None:
        if self.connection is not None and self.connection.open[0]:
            self.connection.send(0, self.rules.send(message))  # type: ignore[arg-type]

    def close(self, reason: str) -> None:
        if self.connection is not None:
            self.connection.close(0)
            self.connection = None
        self.daemon.link_over(self, reason)


class AgentDaemon(Daemon):
    """One life of an agent."""

    def __init__(
        self,
        world: World,
        clock: Clock,
        disk: Disk,
        network: Network,
        house: House,
        observer: Observer,
        config: NodeConfig,
        host: str,
    ) -> None:
        super().__init__(world, host, clock, disk, disk.log("agent"))
        self.host = host
        self.network = network
        self.house = house
        self.observer = observer
        self.config = config
        self.born = world.now
        self._link: Link | None = None
        self._dying: set[str] = set()
        self.core: AgentCore = AgentCore(config)
        for _, body in self.log.rows:
            self.core.apply(records.decode(body))
        self.core.restarted(self.now())
        world.after(world.between(*RECONNECT_S), self._dial)

    # ---- the coordinator

    def _dial(self) -> None:
        if not self.alive or self._link is not None:
            return
        if self.stopped:
            self.world.after(1.0, self._dial)
            return
        shown = self.house.credentials()
        if shown is None:
            self.house.not_let_in()
            self.world.after(self.world.between(*RECONNECT_S), self._dial)
            return
        self._link = Link(self)
        self.network.dial(self.host, HOST, self._link.dialled, shown)

    def look_at_age(self, link: Link) -> None:
        """A certificate of which half is gone is renewed in the session that it opened."""
        shown = self.house.credentials()
        if self._link is not link or not self.alive or not isinstance(shown, Certificate):
            return
        if not self.stopped and shown.until - self.clock.wall() < NODE_S / 2:
            link.send(Renew(shown.key.encode()))
        self.world.after(self.world.between(*AGE_LOOKED_AT_S), self.look_at_age, link)

    def link_over(self, link: Link, reason: str) -> None:
        if self._link is not link:
            return
        self._link = None
        if link.welcomed:
            self.post(events.Disconnected(reason))
        self.house.not_let_in()
        if self.alive:
            self.world.after(self.world.between(*RECONNECT_S), self._dial)

    # ---- keepers

    def keeper_connected(self, keeper: KeeperProcess) -> bool:
        return self.alive and not self.stopped and keeper.name not in self._dying

    def keeper_said(self, keeper: KeeperProcess, packet: bytes) -> None:
        if self.alive and self.house.keepers.get(keeper.name) is keeper:
            try:
                said = dialogue.decode(packet)
            except msgspec.DecodeError as error:
                self.world.note(self.name, f"{keeper.name} said something unknown: {error}")
                return
            self.post(events.KeeperSaid(keeper.name, said))

    def keeper_died(self, name: str) -> None:
        """Its pidfd became readable: end what it left, read what it wrote, tell the core."""
        if not self.alive or name in self._dying:
            return
        self._dying.add(name)
        self._bury(name)

    def _bury(self, name: str) -> None:
        if not self.alive:
            return
        self.house.kill_left(name)
        if self.stopped or not self.house.is_empty([name]):
            job = self.house.resists([name])
            if job is not None and not self.stopped:
                self.post(events.Unkillable(job, name))
            self.world.after(0.01 if job is None else KILL_AGAIN_S, self._bury, name)
            return
        self._dying.discard(name)
        ends, started = self._record_of(name)
        self.post(events.KeeperDead(name, frozenset(started), tuple(ends), ""))

    def _record_of(self, name: str) -> tuple[list[dialogue.ItemEnded], list[str]]:
        file = self.disk.file(f"keeper-{name}")
        ended, started = read_record(file.content())
        return [dialogue.ended_from_plain(_without_op(plain)) for plain in ended], [started] if started else []

    def _start_keeper(self, effect: events.StartKeeper) -> None:
        if self.disk.full:
            self.post(events.KeeperDead(effect.keeper, reason="no space left on device"))
            return
        self.world.after(self.world.between(*KEEPER_START_S), self._started, effect)

    def _started(self, effect: events.StartKeeper) -> None:
        if self.alive:
            self.house.start_keeper(effect.keeper, effect.elevated)

    def _survey(self, effect: events.SurveyKeeper) -> None:
        keeper = self.house.keepers.get(effect.keeper)
        if keeper is None or not keeper.alive:
            self.keeper_died(effect.keeper)

    def _kill_keeper(self, effect: events.KillKeeper) -> None:
        keeper = self.house.keepers.get(effect.keeper)
        if keeper is not None and keeper.alive:
            keeper.die("killed by its agent")
        else:
            self.keeper_died(effect.keeper)

    # ---- chores

    def _begin(self, chore: events.Chore) -> None:
        self.world.after(self.world.between(*CHORE_S), self._do, chore)

    def _do(self, chore: events.Chore) -> None:
        if not self.alive:
            return
        if self.stopped:
            self.world.after(0.05, self._do, chore)
            return
        match chore:
            case events.EmptyJob():
                if self.house.kill_job(chore.job):
                    self.post(events.JobEmptied(chore.job))
                else:
                    held = self.house.resists([], chore.job)
                    if held is not None:
                        self.post(events.Unkillable(chore.job))
                    self.world.after(0.01 if held is None else KILL_AGAIN_S, self._do, chore)
            case events.MakeJob():
                self.post(events.JobDirectoryMade(chore.job, self.house.make_job(chore)))
            case events.MakeStart():
                self.post(events.JobDirectoryMade(START_JOB, self.house.make_start(chore)))
            case events.CleanJob():
                self.post(self.house.clean_job(chore))
            case events.TakePiece():
                self.post(self.house.take_piece(chore))
            case events.ReadOutputs():
                self.post(self.house.read_outputs(chore))
            case events.FindOverdue():
                self.post(self.house.overdue(chore))
            case events.DiscardTasks():
                self.house.discard_tasks(chore)
                self.post(events.TasksDiscarded(chore.job))
            case events.ReadTails():
                self.post(events.TailsRead(chore.keeper, chore.key, KeptStream(3, b"", b"out"), NOTHING_WRITTEN))
            case _:
                raise AssertionError(f"an unknown chore: {chore!r}")

    # ---- what the loop needs

    def tick(self) -> Any:
        return events.Tick()

    def store_state(self, full: bool) -> Any:
        return events.StoreState(full)

    def part(self, batch: events.Ready) -> Part:
        rows = [(records.scope_of(record), records.encode(record)) for record in batch.records]
        return Part(rows, frozenset(batch.forget))

    def committed(self, transaction: Transaction) -> None:
        self.observer.agent_committed(self.name, transaction)

    def send_at_once(self, ready: events.Ready) -> None:
        for promise in ready.at_once:
            if isinstance(promise, tuple):
                self._say(*promise)
            else:
                self._send(ready.epoch, promise)

    def effects(self, ready: events.Ready) -> list[Callable[[], None]]:
        effects: list[Callable[[], None]] = []
        effects += [partial(self._send, ready.epoch, message) for message in ready.messages]
        effects += [partial(self._order, order) for order in ready.keepers]
        effects += [partial(self._say, keeper, said) for keeper, said in ready.said]
        effects += [partial(self._begin, chore) for chore in ready.chores]
        if (reason := ready.hang_up) is not None:
            effects.append(partial(self._hang_up, ready.epoch, reason))
        if (leave := ready.leave) is not None:
            effects.append(partial(self._leave, leave, ready.leave_reason))
        return effects

    def _order(self, order: Order) -> None:
        self.world.note(self.name, repr(order))
        match order:
            case events.StartKeeper():
                self._start_keeper(order)
            case events.SurveyKeeper():
                self._survey(order)
            case events.KillKeeper():
                self._kill_keeper(order)
            case events.ForgetKeeper():
                self.house.forget_keeper(order.keeper)

    def _linked(self, epoch: int) -> Link | None:
        """The connection of this session, if it is still there."""
        link = self._link
        return link if link is not None and link.welcomed and link.rules.epoch == epoch else None

    def _send(self, epoch: int, message: Message) -> None:
        link = self._linked(epoch)
        if link is not None:
            if isinstance(message, Join) and self.house.overstates:
                message = msgspec.structs.replace(message, elevation=True)
            self.world.note(self.name, f"-> {brief(message)}")
            self.observer.agent_sent(self.name, message)
            link.send(message)

    def _say(self, keeper: str, said: dialogue.ToKeeper) -> None:
        process = self.house.keepers.get(keeper)
        if process is not None and process.alive:
            self.observer.agent_told(self.name, keeper, said)
            process.sent(dialogue.encode(said))

    def _hang_up(self, epoch: int, reason: str) -> None:
        link = self._linked(epoch)
        if link is not None:
            link.close(reason)

    def _leave(self, leave: events.Leave, reason: str) -> None:
        self.observer.agent_left(self.name, leave, reason)
        raise Crashed

    def rested(self) -> None:
        self.observer.agent_rested(self.name, self.core)

    # ---- dying and stopping

    def vanish(self) -> None:
        link, self._link = self._link, None
        if link is not None and link.connection is not None:
            link.connection.close(0)
        for keeper in self.house.keepers.values():
            keeper.disconnect()

    def resume(self) -> None:
        super().resume()
        if self._link is not None:
            self._link.read()


def _without_op(plain: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if name != "op"}
