"""A coordinator and its agents as real processes of this machine, which live no longer than this one.

All of them hold the reading end of a pipe. Only this process holds the writing end, so however it dies, they learn of
it: then they terminate the jobs, release the nodes and go.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from coordinator.cli.connection import Connection, NoCoordinator, connect_to
from coordinator.cli.failure import Failure, failed
from coordinator.cli.private import LOGS, NODES, Agent, StateDirectory
from coordinator.render import count_of, duration, plain_lines
from wire.address import SOCKET_NAME

START_S: Final = 60.0
"""From the start of the daemons to the last agent's join."""
STOP_S: Final = 20.0
_TICK_S: Final = 0.02
_LOG_TAIL: Final = 5
_PASSED_ON: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "BATCH_DEBUG", "COVERAGE_PROCESS_START"),
)
Pause = Callable[[float], None]


@dataclass
class Daemon:
    """One process and where it logs to."""

    name: str
    process: subprocess.Popen[bytes]
    log: str

    def last_words(self) -> str:
        """The end of its log, indented, for a sentence that says it died."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                text = file.read().decode("utf-8", "replace")
        except OSError as error:
            return f"  ({self.log}: {error.strerror})"
        return "\n".join(f"  {line}" for line in plain_lines(text)[-_LOG_TAIL:]) or "  (it said nothing)"


class Cluster:
    """The daemons of one state directory."""

    def __init__(self, state: StateDirectory, agents: list[Agent]) -> None:
        self.state = state
        self.agents = agents
        self._lifeline, self._held = os.pipe2(os.O_CLOEXEC)
        self.daemons: list[Daemon] = []

    @property
    def socket(self) -> str:
        return self.state.inside(SOCKET_NAME)

    def start(self) -> None:
        """Start all of them at once; the agents try until the coordinator answers."""
        serve = ["-m", "coordinator.cli", "serve", "--state", self.state.path]
        self._start("coordinator", serve)
        for agent in self.agents:
            root = self.state.inside(NODES, agent.name)
            words = ["-m", "agentd", "--coordinator", self.socket, "--pool", agent.pool, "--name", agent.name]
            slots = [] if agent.slots is None else ["--slots", str(agent.slots)]
            self._start(agent.name, [*words, "--root", root, *slots, "--embedded"])
        os.close(self._lifeline)

    def _start(self, name: str, words: list[str]) -> None:
        log = self.state.inside(LOGS, f"{name}.log")
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", *words, "--lifeline", str(self._lifeline)],
                stdin=subprocess.DEVNULL,
                stdout=fd,
                stderr=fd,
                cwd="/",
                env=_environment(),
                pass_fds=(self._lifeline,),
                start_new_session=True,
            )
        except OSError as error:
            raise failed(f"{name} could not be started: {error.strerror}") from None
        finally:
            os.close(fd)
        self.daemons.append(Daemon(name, process, log))

    def check(self) -> None:
        """Every daemon is alive, or a Failure says which is not and what it said last."""
        for daemon in self.daemons:
            status = daemon.process.poll()
            if status is not None:
                what = f"signal {-status}" if status < 0 else f"status {status}"
                raise failed(f"{daemon.name} ended with {what} while it was needed. Its last lines:\n{daemon.last_words()}")

    def wait_ready(self, pause: Pause) -> Connection:
        """A connection to the coordinator, once every agent has joined."""
        deadline = time.monotonic() + START_S
        connection = self._connected(deadline, pause)
        try:
            self._all_joined(connection, deadline, pause)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connected(self, deadline: float, pause: Pause) -> Connection:
        while True:
            self.check()
            try:
                return connect_to(self.socket)
            except NoCoordinator:
                if time.monotonic() > deadline:
                    raise failed(
                        f"the coordinator did not answer within {duration(START_S)}. "
                        f"Its last lines:\n{self.daemons[0].last_words()}"
                    ) from None
            pause(_TICK_S)

    def _all_joined(self, connection: Connection, deadline: float, pause: Pause) -> None:
        wanted = {agent.name for agent in self.agents}
        while True:
            self.check()
            states = {node["id"]: node["state"] for node in connection.ask("NodeList")}
            missing = sorted(name for name in wanted if states.get(name) in (None, "joining", "starting", "lost"))
            if not missing:
                return
            if time.monotonic() > deadline:
                silent = next(d for d in self.daemons if d.name == missing[0])
                raise failed(
                    f"{count_of(len(missing), 'agent')} did not join within {duration(START_S)}. "
                    f"The last lines of {silent.name}:\n{silent.last_words()}"
                )
            pause(_TICK_S)

    def finish(self, connection: Connection) -> bool:
        """Ask the coordinator to end what is left, release everywhere and stop; then see all of them go."""
        try:
            connection.ask("Finish")
        except Failure:
            pass  # it may be gone before its answer has left; whether it went well its exit status says
        return self.wait_gone(STOP_S)

    def wait_gone(self, seconds: float) -> bool:
        """Whether every daemon ended by itself, and well, within so long; the others are stopped."""
        deadline = time.monotonic() + seconds
        well = True
        for daemon in self.daemons:
            try:
                well &= daemon.process.wait(max(0.0, deadline - time.monotonic())) == 0
            except subprocess.TimeoutExpired:
                well = False
        if not well:
            self.let_go()
            self._stop_rest()
        return well

    def let_go(self) -> None:
        """Close the lifeline: the daemons end the jobs, release and go by themselves."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _stop_rest(self) -> None:
        """Of those that did not go when asked: by their signal for a clean end, at last by force."""
        rest = [daemon for daemon in self.daemons if daemon.process.poll() is None]
        for daemon in rest:
            daemon.process.terminate() if daemon is self.daemons[0] else daemon.process.send_signal(2)
        for daemon in rest:
            try:
                daemon.process.wait(STOP_S / 2)
            except subprocess.TimeoutExpired:
                daemon.process.kill()
                daemon.process.wait()


def _environment() -> dict[str, str]:
    """What the daemons get of ours: built, so that nothing of the caller's session slips in."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.path.basename(home) not in ("site-packages", "dist-packages"):
        environment["PYTHONPATH"] = home  # a checkout that is not installed
    return environment
