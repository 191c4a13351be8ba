"""A keeper's process in the simulated world: the real `KeeperCore` around the machine's process table and its file."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from agentd import keeper as k
from tests.simulator.disk import AppendFile
from tests.simulator.processes import Processes, SpawnRefusedError
from tests.simulator.world import Clock, Timer, World

PACKET_S: Final = (0.00005, 0.0005)
RECONNECT_S: Final = 0.5
TURN_S: Final = 0.00005


class AgentSide(Protocol):
    """What a keeper's packets reach."""

    def keeper_connected(self, keeper: KeeperProcess) -> bool: ...
    def keeper_said(self, keeper: KeeperProcess, packet: bytes) -> None: ...


class House(Protocol):
    """The machine, as its keepers need it."""

    world: World
    name: str
    clock: Clock
    processes: Processes
    incarnation: str
    agent: AgentSide | None
    disk_full: bool

    def before_spawn(self, keeper: KeeperProcess, argv: list[str], directory: str, *, staged: bool) -> None: ...
    def stage(self, keeper: KeeperProcess, spawn: k.Spawn) -> int: ...
    def spawn_refused(self, argv: list[str]) -> None: ...
    def sees(self, argv: list[str], env: dict[bytes, bytes]) -> None: ...
    def signalled(self, keeper: str) -> None: ...
    def keeper_exited(self, keeper: KeeperProcess) -> None: ...


class KeeperProcess:
    """One keeper, from its start to its death."""

    def __init__(self, house: House, name: str, file: AppendFile, pid: int, elevated: bool = False) -> None:
        self.house = house
        self.elevated = elevated
        self.world = house.world
        self.name = name
        self.file = file
        self.pid = pid
        self.boot = house.clock.boot
        self.core = k.KeeperCore(name, pid, int(house.clock.boottime() * 100), self.boot)
        self.alive = True
        self.stopped = False
        self.connected = False
        self.points_left: int | None = None
        self._main: int | None = None
        self._stages = False
        self._inbox: deque[Any] = deque()
        self._timer: Timer | None = None
        self._packets: deque[bytes] = deque()
        self._coming: deque[bytes] = deque()
        house.processes.on_exit[name] = self._child_died
        self._connect()

    # ---- the link with the agent

    def _connect(self) -> None:
        """Dial the agent's socket until somebody listens there."""
        if not self.alive or self.connected:
            return
        if self.stopped or self.house.agent is None or not self.house.agent.keeper_connected(self):
            self.world.after(RECONNECT_S, self._connect)
            return
        self.connected = True
        self.post(k.Connected())

    def disconnect(self) -> None:
        """The agent is gone, or closed its end."""
        if self.connected:
            self.connected = False
            self._packets.clear()
            self._coming.clear()
            self.post(k.Disconnected())
            self.world.after(RECONNECT_S, self._connect)

    def sent(self, data: bytes) -> None:
        """The agent sent a packet."""
        if self.connected:
            self._coming.append(data)
            self.world.after(self.world.between(*PACKET_S), self._receive)

    def _receive(self) -> None:
        if self.alive and self._coming:
            self.post(k.Arrived(k.decode(self._coming.popleft().decode())))

    # ---- the loop

    def post(self, event: Any) -> None:
        if self.alive:
            self._inbox.append(event)
            self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.alive or self.stopped:
            return
        if self._inbox:
            self._timer = self.world.after(TURN_S, self._turn)
            return
        deadline = self.core.next_deadline()
        if deadline is not None:
            now = self.house.clock.now()
            due = now.after(deadline - now.boottime)
            self._timer = self.world.at(self.house.clock.world_time(due), self._turn)

    def _turn(self) -> None:
        self._timer = None
        if not self.alive or self.stopped:
            return
        boottime, wall = self.house.clock.boottime(), self.house.clock.wall()
        if self._inbox:
            self._handle(self._inbox.popleft(), boottime, wall)
        else:
            deadline = self.core.next_deadline()
            if deadline is not None and boottime >= deadline:
                self._handle(k.Tick(), boottime, wall)
        self._schedule()

    def _handle(self, event: Any, boottime: float, wall: float) -> None:
        self.core.handle(event, boottime, wall)
        while self.alive and (ready := self.core.take_ready()) is not None:
            for effect in self._effects(ready):
                if not self.alive:
                    return
                effect()
                self._point()

    def _effects(self, ready: k.Ready) -> list[Callable[[], None]]:
        effects: list[Callable[[], None]] = []
        if ready.rewrite is not None:
            content = list(ready.rewrite)
            effects.append(partial(self._rewrite, content))
        effects += [partial(self._write, line) for line in ready.lines]
        if (spawn := ready.spawn) is not None:
            effects.append(partial(self._spawn, spawn))
        if (number := ready.signal) is not None:
            effects.append(partial(self._signal, number))
        if (tree := ready.tree) is not None:
            effects.append(partial(self._sweep, tree))
        effects += [partial(self._say, text) for text in ready.messages]
        if ready.exit:
            effects.append(partial(self.die, "exits"))
        return effects

    def _point(self) -> None:
        if self.points_left is not None and self.alive:
            self.points_left -= 1
            if self.points_left <= 0:
                self.die("killed between two effects")

    # ---- effects

    def _rewrite(self, content: list[str]) -> None:
        self.file.rewrite([line.encode() for line in content])

    def _write(self, line: str) -> None:
        """A line that a full disk refuses is gone: the keeper knows the end, its file does not."""
        if not self.house.disk_full:
            self.file.append(line.encode())

    def _spawn(self, spawn: k.Spawn) -> None:
        if spawn.step == k.STAGING:
            self._stage(spawn)
            return
        argv = [part.decode() for part in spawn.argv]
        house = self.house
        house.sees(argv, spawn.env)
        try:
            if house.disk_full:
                raise SpawnRefusedError(28, "no space left on device")
            house.before_spawn(self, argv, spawn.directory, staged=spawn.step == k.STAGED)
            self._main = house.processes.spawn(self.name, argv, house.incarnation, self.boot, house.clock.boottime())
        except SpawnRefusedError as error:
            house.spawn_refused(argv)
            self.post(k.SpawnFailed(f"{argv[0]} could not be started: {error.strerror}."))

    def _stage(self, spawn: k.Spawn) -> None:
        if self.house.disk_full:
            self.post(k.SpawnFailed("There is no room for its directory."))
            return
        self._main = self.house.stage(self, spawn)
        self._stages = True

    def _child_died(self, pid: int, code: int | None, by_signal: int | None) -> None:
        if pid == self._main:
            self._main = None
            alone = not self.house.processes.children(self.name)
            said = "DownloadFailed: simulated." if self._stages and code else ""
            self._stages = False
            self.post(k.Exited(code, by_signal, 0.01, 1 << 20, alone, said=said))

    def _signal(self, number: int) -> None:
        self.house.signalled(self.name)
        for pid in self.house.processes.children(self.name):
            self.house.processes.kill(pid, number)

    def _sweep(self, tree: int) -> None:
        if tree == k.KILL:
            self.house.signalled(self.name)
            for pid in self.house.processes.children(self.name):
                self.house.processes.kill(pid, signal.SIGKILL)
        self.post(k.Swept(len(self.house.processes.children(self.name))))

    def _say(self, text: str) -> None:
        agent = self.house.agent
        if self.connected and agent is not None:
            self._packets.append(text.encode())
            self.world.after(self.world.between(*PACKET_S), self._arrive)

    def _arrive(self) -> None:
        """The oldest packet reaches the agent; what was sent before a death still arrives."""
        if self._packets and self.house.agent is not None:
            self.house.agent.keeper_said(self, self._packets.popleft())

    def drain(self) -> None:
        """All that lies in the socket, at once (its sender is dead)."""
        while self._packets:
            self._arrive()

    # ---- dying and stopping

    def die(self, how: str) -> None:
        """The process ends; what it had started stays in its leaf."""
        if not self.alive:
            return
        self.alive = False
        if self._timer is not None:
            self._timer.cancel()
        self.world.note(f"{self.house.name}/{self.name}", how)
        self.house.processes.on_exit.pop(self.name, None)
        self.house.keeper_exited(self)

    def stop(self) -> None:
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        self.stopped = False
        self._schedule()
