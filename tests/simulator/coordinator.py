"""The coordinator's shell in the simulated world: sessions by the real codec around the real core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from coordinator import events, records
from coordinator.core import Core
from tests.simulator.daemon import Crashed, Daemon
from tests.simulator.disk import Disk, Part, Transaction
from tests.simulator.network import Connection, Network
from tests.simulator.world import Clock, World
from wire import limits
from wire.codec import ProtocolError
from wire.connection import Connection as Rules
from wire.connection import State
from wire.messages import PROTOCOL_VERSION, Goodbye, Hello, Message, Role, Welcome

HOST: Final = "coordinator"
OWNER: Final = "uid:1000"


class Observer(Protocol):
    """Who is told of the coordinator's doings."""

    def coordinator_committed(self, transaction: Transaction) -> None: ...
    def coordinator_sent(self, message: Message) -> None: ...
    def coordinator_handled(self, core: Core) -> None: ...
    def coordinator_rested(self, core: Core) -> None: ...


def brief(message: Message) -> str:
    """A message in one line of the trace."""
    text = repr(message)
    return text if len(text) <= 160 else f"{text[:150]} ... {len(text)}"


class Session:
    """One accepted connection."""

    def __init__(self, daemon: CoordinatorDaemon, connection: Connection) -> None:
        self.daemon = daemon
        self.connection = connection
        self.rules = Rules(Role.COORDINATOR, allowed=frozenset({Role.NODE, Role.ADMIN}))
        self.epoch: int | None = None
        self._waiting: list[bytes | None] = []
        daemon.world.after(limits.HANDSHAKE_S, self._greeted_by_now)

    def _greeted_by_now(self) -> None:
        if self.rules.state is not State.OPEN and self.connection.open[1]:
            self.hang_up("no Hello in time")

    # ---- the network's side

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
                self._over("the peer is gone")
                return
            try:
                self.rules.receive_bytes(data)
                while (message := self.rules.next_event()) is not None:
                    self._take(message)
            except ProtocolError as error:
                self.daemon.world.note(HOST, f"protocol error: {error}")
                self.hang_up(str(error))
                return

    def _take(self, message: Message) -> None:
        if isinstance(message, Hello):
            self.epoch = self.daemon.log.next_number()
            self.connection.send(1, self.rules.send(Welcome(PROTOCOL_VERSION, self.epoch)))
            self.daemon.sessions[self.epoch] = self
            self.daemon.post(events.SessionOpened(self.epoch, message.role, OWNER))
        elif isinstance(message, Goodbye):
            self._over(message.reason)
        elif self.epoch is not None:
            self.daemon.post(events.Received(self.epoch, message))

    # ---- the daemon's side

    def send(self, message: Message) -> None:
        if self.connection.open[1] and self.rules.state is State.OPEN:
            self.connection.send(1, self.rules.send(message))

    def hang_up(self, reason: str) -> None:
        if self.connection.open[1]:
            self.connection.send(1, self.rules.farewell(reason))
            self.connection.close(1)
        self._over(reason)

    def _over(self, reason: str) -> None:
        self.connection.close(1)
        if self.epoch is not None and self.daemon.sessions.pop(self.epoch, None) is not None:
            self.daemon.post(events.SessionClosed(self.epoch, reason))


class CoordinatorDaemon(Daemon):
    """One life of the coordinator."""

    def __init__(self, world: World, clock: Clock, disk: Disk, network: Network, observer: Observer) -> None:
        super().__init__(world, HOST, clock, disk, disk.log("coordinator"))
        self.network = network
        self.observer = observer
        self.sessions: dict[int, Session] = {}
        self._accepted: list[Session] = []
        self.finished = False
        self.core: Core = Core()
        for _, body in self.log.rows:
            self.core.apply(records.decode(body))
        self.core.restarted(self.now())
        network.listen(HOST, self._accept)

    def _accept(self, connection: Connection) -> Session | None:
        session = Session(self, connection)
        self._accepted = [old for old in self._accepted if old.connection.open[1]]
        self._accepted.append(session)
        return session

    # ---- what the loop needs

    def tick(self) -> Any:
        return events.Tick()

    def store_state(self, full: bool) -> Any:
        return events.StoreState(full)

    def part(self, batch: events.Ready) -> Part:
        rows = [(records.scope_of(record), records.encode(record)) for record in batch.records]
        return Part(rows, frozenset(batch.forget))

    def committed(self, transaction: Transaction) -> None:
        self.observer.coordinator_committed(transaction)

    def send_at_once(self, ready: events.Ready) -> None:
        for epoch, message in ready.at_once:
            self._send(epoch, message)

    def effects(self, ready: events.Ready) -> list[Callable[[], None]]:
        effects: list[Callable[[], None]] = []
        effects += [partial(self._send, epoch, message) for epoch, message in ready.frames]
        effects += [partial(self._close, epoch, reason) for epoch, reason in ready.close]
        if ready.finished:
            effects.append(self._finish)
        return effects

    def _send(self, epoch: int, message: Message) -> None:
        session = self.sessions.get(epoch)
        if session is not None:
            self.world.note(HOST, f"-> {epoch} {brief(message)}")
            self.observer.coordinator_sent(message)
            session.send(message)

    def _close(self, epoch: int, reason: str) -> None:
        session = self.sessions.pop(epoch, None)
        if session is not None:
            self.world.note(HOST, f"closes {epoch}: {reason}")
            session.hang_up(reason)

    def _finish(self) -> None:
        self.finished = True
        raise Crashed

    def handled(self) -> None:
        self.observer.coordinator_handled(self.core)

    def rested(self) -> None:
        self.observer.coordinator_rested(self.core)

    # ---- dying and stopping

    def vanish(self) -> None:
        self.network.unlisten(HOST)
        for session in self._accepted:
            session.connection.close(1)
        self.sessions.clear()

    def resume(self) -> None:
        super().resume()
        for session in list(self._accepted):
            session.read()


def stored(rows: Sequence[tuple[str, bytes]]) -> Core:
    """A core as the log makes it, without a restart."""
    core = Core()
    for _, body in rows:
        core.apply(records.decode(body))
    return core
