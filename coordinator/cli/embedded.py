"""A coordinator and its agents as real processes of this machine, which live no longer than this one.

All of them hold the reading end of a pipe. Only this process holds the writing end, so however it dies, they learn of
it: then they terminate the jobs, release the nodes and go.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from coordinator.cli import output
from coordinator.cli.connection import Connection, NoCoordinator, connect_to
from coordinator.cli.failure import failed
from coordinator.cli.private import LOGS, NODES, Agent, StateDirectory
from coordinator.render import count_of, duration, plain_lines
from wire import signals
from wire.address import SOCKET_NAME

START_S: Final = 60.0
"""From the start of the daemons to the last agent's join; a machine with many agents takes a second more for each."""
STOP_S: Final = 20.0
"""For the daemons to go after the jobs are over."""
RELEASE_S: Final = 60.0
"""For the daemons to end the jobs, release and go; what takes longer goes on without us."""
MAX_RESTARTS: Final = 3
_LOG_TAIL: Final = 5
_NOT_YET: Final = (None, "joining", "starting", "lost")
"""States of a node that has not joined."""
_PASSED_ON: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "BATCH_DEBUG"),
)


class Daemon:
    """One process that is started again, a few times, when something kills it."""

    def __init__(self, name: str, words: list[str], log: str, lifeline: int, said: int | None = None) -> None:
        """`said`: where its stdout goes, until it is started again; else to its log."""
        self.name = name
        self._words = words
        self._log = log
        self._lifeline = lifeline
        self._restarts = 0
        self._handle = 0, -1
        """A process id, and a descriptor of that process."""
        self.process = self._spawned(said)

    def _spawned(self, said: int | None = None) -> subprocess.Popen[bytes]:
        fd = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return subprocess.Popen(
                [sys.executable, "-P", *self._words, "--lifeline", str(self._lifeline)],
                stdin=subprocess.DEVNULL,
                stdout=fd if said is None else said,
                stderr=fd,
                cwd="/",
                env=_environment(),
                pass_fds=(self._lifeline,),
                start_new_session=True,
            )
        except OSError as error:
            raise failed(f"{self.name} could not be started: {error.strerror}") from None
        finally:
            os.close(fd)

    def ended(self) -> int:
        """A descriptor that can be read once it has ended."""
        if self._handle[0] != self.process.pid:
            self.forget()
            self._handle = self.process.pid, os.pidfd_open(self.process.pid)
        return self._handle[1]

    def forget(self) -> None:
        """Close that descriptor."""
        if self._handle[1] >= 0:
            os.close(self._handle[1])
        self._handle = 0, -1

    def check(self, *, restart: bool) -> None:
        """It is alive; or, if it was killed and may be started again, it is again. Raises Failure."""
        status = self.process.poll()
        if status is None:
            return
        what = f"was killed by {signals.told(-status)}" if status < 0 else f"ended with status {status}"
        if not restart or status >= 0 or self._restarts >= MAX_RESTARTS:
            raise failed(f"{self.name} {what} while it was needed. Its last lines:\n{self.last_words()}")
        self._restarts += 1
        output.warn(f"{self.name} {what}; started again")
        self.process = self._spawned()

    def last_words(self) -> str:
        """The end of its log, indented, for a sentence that says it died."""
        try:
            with open(self._log, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                text = file.read().decode("utf-8", "replace")
        except OSError as error:
            return f"  ({self._log}: {error.strerror})"
        return "\n".join(f"  {line}" for line in plain_lines(text)[-_LOG_TAIL:]) or "  (it said nothing)"


class Cluster:
    """The daemons of one state directory. Invariant: the coordinator, if it was started, comes first."""

    def __init__(self, state: StateDirectory, agents: list[Agent]) -> None:
        self.state = state
        self.agents = agents
        self.daemons: list[Daemon] = []
        self.gone = True
        """Whether no daemon lives and all ended well: nothing is owed then."""
        self.used = False
        """Whether jobs were submitted: from then on they must be ended and released before the daemons may go."""
        self._lifeline, self._held = os.pipe2(os.O_CLOEXEC)
        self._ready = -1
        """Can be read when the coordinator has said that it serves, or has ended."""

    @property
    def socket(self) -> str:
        return self.state.inside(SOCKET_NAME)

    def start(self) -> None:
        """Start all of them at once; the agents try until the coordinator answers."""
        self._ready, said = os.pipe2(os.O_CLOEXEC)
        try:
            self._start("coordinator", ["-m", "coordinator.cli", "serve", "--state", self.state.path], said)
        finally:
            os.close(said)
        self.start_agents()

    def start_agents(self) -> None:
        """Start the agents alone."""
        for agent in self.agents:
            root = self.state.inside(NODES, agent.name)
            words = ["-m", "agentd", "--coordinator", self.socket, "--pool", agent.pool, "--name", agent.name]
            slots = [] if agent.slots is None else ["--slots", str(agent.slots)]
            elevation = ["--allow-elevation"] if os.geteuid() == 0 else []  # commands run as the caller, who is root
            self._start(agent.name, [*words, "--root", root, *slots, *elevation, "--embedded"])

    def _start(self, name: str, words: list[str], said: int | None = None) -> None:
        self.gone = False
        self.daemons.append(Daemon(name, words, self.state.inside(LOGS, f"{name}.log"), self._lifeline, said))

    def check(self) -> None:
        """Every daemon is alive (again), or a Failure says which is not and what it said last."""
        for daemon in self.daemons:
            daemon.check(restart=True)

    def wakes(self) -> list[int]:
        """Descriptors that can be read when there is something for `check`."""
        return [daemon.ended() for daemon in self.daemons]

    def _check_start(self) -> None:
        for daemon in self.daemons:
            daemon.check(restart=False)

    def wait_ready(self, wake: int, check: Callable[[], None]) -> Connection:
        """A connection to the coordinator, once every agent has joined. `check` is called when the descriptor `wake`
        can be read, and may raise. Raises Failure."""
        patience = START_S + len(self.agents)
        deadline = time.monotonic() + patience

        def look() -> None:
            check()
            self._check_start()

        connection = self._connected(deadline, patience, wake, look)
        try:
            connection.endure(look)
            self._all_joined(connection, deadline, patience, wake, look)
            connection.endure(None)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connected(self, deadline: float, patience: float, wake: int, look: Callable[[], None]) -> Connection:
        said = False
        while not said:
            look()
            ready, _, _ = select.select(
                [wake, *self.wakes(), *self._unheard()], [], [], max(0.0, deadline - time.monotonic())
            )
            if not ready:
                raise failed(
                    f"the coordinator did not answer within {duration(patience)}. "
                    f"Its last lines:\n{self.daemons[0].last_words()}"
                )
            if self._ready in ready:
                said = bool(os.read(self._ready, 4096))
                self._hear_no_more()
        return connect_to(self.socket)

    def _unheard(self) -> list[int]:
        return [self._ready] if self._ready >= 0 else []

    def _hear_no_more(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1

    def _all_joined(
        self, connection: Connection, deadline: float, patience: float, wake: int, look: Callable[[], None]
    ) -> None:
        missing = sorted(agent.name for agent in self.agents)
        changed = -1
        while missing:
            look()
            left = deadline - time.monotonic()
            if left <= 0:
                silent = next(d for d in self.daemons if d.name == missing[0])
                raise failed(
                    f"{count_of(len(missing), 'agent')} did not join within {duration(patience)}. "
                    f"The last lines of {silent.name}:\n{silent.last_words()}"
                )
            now = connection.ask_or_wake("Overview", (wake, *self.wakes()), left, jobs=[], changed=changed)
            if now is not None:
                changed = now["changed"]
                states = {node["id"]: node["state"] for node in connection.rows("NodeList")}
                missing = [name for name in missing if states.get(name) in _NOT_YET]

    def finish(self, connection: Connection) -> None:
        """When the jobs are over: the agents leave clean, as long as the coordinator is there; then it goes too."""
        for daemon in self.daemons[1:]:
            daemon.process.send_signal(signal.SIGINT)
        agents_left = _ended_within(self.daemons[1:], STOP_S)
        with suppress(NoCoordinator):  # it may be gone before its answer has left; its exit status says how it went
            connection.ask("Finish")
        self.gone = _ended_within(self.daemons[:1], STOP_S + RELEASE_S) and agents_left  # `on_end` may take a while

    def stop(self, seconds: float = RELEASE_S) -> None:
        """Whatever state they are in: let them go, and see whether they have gone within so long."""
        self.let_go()
        if not self.gone:
            if self.used and any(daemon.process.poll() is None for daemon in self.daemons):
                output.remark("ending what is left and releasing the nodes …")
            self.gone = _ended_within(self.daemons, seconds) if self.used else self._abandoned()
        for daemon in self.daemons:
            daemon.forget()
        self._hear_no_more()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _abandoned(self) -> bool:
        """Nothing was submitted, so nothing can be owed: they go at once, however far they have come."""
        for number, seconds in ((signal.SIGINT, STOP_S), (signal.SIGKILL, STOP_S)):
            for daemon in self.daemons:
                daemon.process.send_signal(number)
            _ended_within(self.daemons, seconds)
        return all(daemon.process.poll() is not None for daemon in self.daemons)

    def let_go(self) -> None:
        """Close the lifeline: the daemons end the jobs, release and go by themselves, whether we live or not."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


def _ended_within(daemons: list[Daemon], seconds: float) -> bool:
    """Whether these end by themselves, and well, within so long."""
    deadline = time.monotonic() + seconds
    well = True
    for daemon in daemons:
        try:
            well &= daemon.process.wait(max(0.0, deadline - time.monotonic())) == 0
        except subprocess.TimeoutExpired:
            well = False
    return well


def _environment() -> dict[str, str]:
    """What the daemons get of ours: built, so that nothing of the caller's session slips in."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.path.basename(home) not in ("site-packages", "dist-packages"):
        environment["PYTHONPATH"] = home  # a checkout that is not installed
    return environment
