"""The simulated network: connections that carry chunks of bytes, late, torn apart, twice, out of order, or never.

A chunk is what one end sent at once. A path between two hosts can be cut in one direction or both: what is sent
meanwhile waits (as TCP would send it again) or is gone, and the connection may be found broken afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from tests.simulator.society import HOME, Credentials
from tests.simulator.world import World

CONNECT_TIMEOUT_S: Final = 5.0
RESEND_S: Final = 20.0
"""How long until something is sent again at most."""


class End(Protocol):
    """What owns one end of a connection."""

    def received(self, data: bytes) -> None: ...
    def ended(self) -> None: ...


@dataclass
class Weather:
    """What this network does to chunks. Probabilities are for one chunk."""

    delay_s: tuple[float, float] = (0.0005, 0.02)
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    splitting: float = 0.2
    session_end: float = 0.0
    lost_in_partition: float = 0.3

    def calm(self) -> None:
        self.loss = self.duplication = self.reordering = self.session_end = 0.0


@dataclass(eq=False)
class Connection:
    """Two ends, `0` the one that dialled. Bytes arrive in order unless the weather says otherwise."""

    network: Network
    number: int
    hosts: tuple[str, str]
    credentials: Credentials = HOME
    """How the host that dialled is known to the other."""
    ends: list[End | None] = field(default_factory=lambda: [None, None])
    arrives: list[float] = field(default_factory=lambda: [0.0, 0.0])
    held: list[list[bytes]] = field(default_factory=lambda: [[], []])
    open: list[bool] = field(default_factory=lambda: [True, True])
    orphaned: list[bool] = field(default_factory=lambda: [False, False])
    """This side's machine lost power: nothing of it said goodbye."""
    reads: list[bool] = field(default_factory=lambda: [True, True])
    """Whether each side takes what comes: one that does not leaves it with its peer."""
    unanswered: bool = False
    """Something was sent to an orphaned side, and is sent again until somebody there refuses it."""

    def send(self, side: int, data: bytes) -> None:
        if self.open[side]:
            self.network._send(self, side, data)

    def close(self, side: int) -> None:
        """This end is closed; the other learns of it after what was sent before, if a path is open."""
        if self.open[side]:
            self.open[side] = False
            self.ends[side] = None
            self.network._announce_end(self, side)


class Network:
    """All hosts, all connections, and which directions are cut."""

    def __init__(self, world: World, weather: Weather) -> None:
        self.world = world
        self.weather = weather
        self.cut: set[tuple[str, str]] = set()
        self.down: set[str] = set()
        """Hosts without power."""
        self.connections: list[Connection] = []
        self._listeners: dict[str, Callable[[Connection], End | None]] = {}
        self._dialled = 0

    # ---- connecting

    def listen(self, host: str, accept: Callable[[Connection], End | None]) -> None:
        self._listeners[host] = accept

    def unlisten(self, host: str) -> None:
        self._listeners.pop(host, None)

    def dial(
        self, source: str, target: str, done: Callable[[Connection | None], None], credentials: Credentials = HOME
    ) -> None:
        """Connect, or answer None: at once when nobody listens, after the time-out when there is no path."""
        if target in self.down or self._is_cut(source, target) or self._is_cut(target, source):
            self.world.after(CONNECT_TIMEOUT_S, done, None)
            return
        self.world.after(self._delay(), self._arrive_dial, source, target, done, credentials)

    def _arrive_dial(
        self, source: str, target: str, done: Callable[[Connection | None], None], credentials: Credentials
    ) -> None:
        accept = self._listeners.get(target)
        if accept is None:
            self.world.after(self._delay(), done, None)
            return
        self._dialled += 1
        connection = Connection(self, self._dialled, (source, target), credentials)
        end = accept(connection)
        if end is None:
            self.world.after(self._delay(), done, None)
            return
        connection.ends[1] = end
        self.connections.append(connection)
        self.world.after(self._delay(), done, connection)

    # ---- sending

    def _delay(self) -> float:
        return self.world.between(*self.weather.delay_s)

    def _is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self.cut

    def _path(self, connection: Connection, side: int) -> tuple[str, str]:
        return connection.hosts[side], connection.hosts[1 - side]

    def _send(self, connection: Connection, side: int, data: bytes) -> None:
        world, weather = self.world, self.weather
        if self._is_cut(*self._path(connection, side)):
            connection.held[side].append(data)
            return
        if world.chance(weather.session_end):
            self.break_off(connection)
            return
        if world.chance(weather.loss):
            world.note("network", f"chunk of {connection.number} lost")
            return
        copies = 2 if world.chance(weather.duplication) else 1
        for _ in range(copies):
            late = world.chance(weather.reordering)
            self._schedule(connection, side, data, in_order=not late)

    def _schedule(self, connection: Connection, side: int, data: bytes, in_order: bool) -> None:
        time = self.world.now + self._delay()
        if in_order:
            time = max(time, connection.arrives[side])
            connection.arrives[side] = time
        self.world.at(time, self._arrive, connection, side, data)

    def _arrive(self, connection: Connection, side: int, data: bytes) -> None:
        receiver = connection.ends[1 - side]
        if connection.orphaned[1 - side]:
            self._send_again(connection, side)
        if receiver is None or not connection.open[1 - side]:
            return
        if self._is_cut(*self._path(connection, side)):
            connection.held[side].append(data)
            return
        if len(data) > 1 and self.world.chance(self.weather.splitting):
            place = self.world.random.randint(1, len(data) - 1)
            receiver.received(data[:place])
            if (receiver := connection.ends[1 - side]) is not None and connection.open[1 - side]:
                receiver.received(data[place:])
            return
        receiver.received(data)

    # ---- ending

    def _announce_end(self, connection: Connection, side: int) -> None:
        if self._is_cut(*self._path(connection, side)):
            connection.held[side].append(b"")
            return
        time = max(self.world.now + self._delay(), connection.arrives[side])
        self.world.at(time, self._arrive_end, connection, side)

    def _arrive_end(self, connection: Connection, side: int) -> None:
        other = 1 - side
        end = connection.ends[other]
        if not connection.open[other]:
            self._forget(connection)
            return
        connection.open[other] = False
        connection.ends[other] = None
        self._forget(connection)
        if end is not None:
            end.ended()

    def _send_again(self, connection: Connection, side: int) -> None:
        """The peer's machine lost power: once it is up, it refuses what is sent again, and that ends this side."""
        if connection.unanswered or not connection.open[side]:
            return
        connection.unanswered = True
        self.world.after(self.world.between(0.2, RESEND_S), self._refused, connection, side)

    def _refused(self, connection: Connection, side: int) -> None:
        connection.unanswered = False
        source, target = self._path(connection, side)
        if target in self.down or self._is_cut(source, target) or self._is_cut(target, source):
            self._send_again(connection, side)
        else:
            self._arrive_end(connection, 1 - side)

    def _forget(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)

    def break_off(self, connection: Connection) -> None:
        """The connection is reset: both ends learn of it, each when it can."""
        self.world.note("network", f"connection {connection.number} reset")
        for side in (0, 1):
            if connection.open[side]:
                self.world.after(self._delay(), self._arrive_end, connection, 1 - side)

    def vanish(self, host: str) -> None:
        """The machine lost power: nothing of it says goodbye; peers find out when they send or time out."""
        self.down.add(host)
        for connection in list(self.connections):
            for side in (0, 1):
                if connection.hosts[side] == host:
                    connection.orphaned[side] = True
                    connection.open[side] = False
                    connection.ends[side] = None

    def appear(self, host: str) -> None:
        """The machine is up again."""
        self.down.discard(host)

    # ---- partitions

    def partition(self, source: str, target: str, both_ways: bool = True) -> None:
        self.cut.add((source, target))
        if both_ways:
            self.cut.add((target, source))
        self.world.note("network", f"cut {source} {'<->' if both_ways else '->'} {target}")

    def heal(self, source: str, target: str) -> None:
        self.cut.discard((source, target))
        self.cut.discard((target, source))
        self.world.note("network", f"heal {source} <-> {target}")
        for connection in list(self.connections):
            if set(connection.hosts) == {source, target}:
                self._resume(connection)

    def _resume(self, connection: Connection) -> None:
        """After a cut: what waited is sent again, or the connection turns out to be broken."""
        waiting = [list(held) for held in connection.held]
        for held in connection.held:
            held.clear()
        if any(waiting) and self.world.chance(self.weather.lost_in_partition):
            self.break_off(connection)
            return
        for side in (0, 1):
            for data in waiting[side]:
                if data:
                    self._schedule(connection, side, data, in_order=True)
                else:
                    self._announce_end(connection, side)
