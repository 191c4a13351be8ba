"""A cluster of real processes for one test: a coordinator, agents, and the command as a user calls it.

Nothing here sleeps: the coordinator's Overview answers when something changed, and commands of a test say through a
named pipe how far they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wire import thin

Plain = dict[str, Any]
PATIENCE_S = 60.0


class Cluster:
    """Daemons under one directory, ended and reaped together."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.socket = self.state / "coordinator.sock"
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.lines: dict[str, str] = {}
        """What each daemon said when it was ready."""
        self.files = 0
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "XDG_STATE_HOME": str(directory / "xdg"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }

    # ---- daemons

    def serve(self) -> subprocess.Popen[str]:
        """Start the coordinator, again after its death too; it is ready when this returns."""
        return self._start("coordinator", [*COORDINATOR, "serve", "--state", str(self.state)])

    def agent(self, name: str, *options: str, pool: str = "p", slots: int = 1) -> subprocess.Popen[str]:
        """Start an agent (again); it has joined when this returns."""
        process = self.agent_unawaited(name, *options, pool=pool, slots=slots)
        self.until(lambda now: node_of(now, name)["state"] in ("idle", "running"))
        return process

    def agent_unawaited(self, name: str, *options: str, pool: str = "p", slots: int = 1) -> subprocess.Popen[str]:
        """Start an agent; its process runs when this returns, no more."""
        command = [*AGENTD, "--coordinator", str(self.socket), "--pool", pool, "--name", name]
        if "--config" not in options:
            options = (*options, "--config", str(self.config(name)))
        command += ["--root", str(self.root(name)), "--slots", str(slots), *options]
        return self._start(name, command)

    def config(self, name: str, text: str = '[users]\nmode = "same"\n') -> Path:
        """A configuration for an agent. Unless a test asks for it, jobs have no users of their own: what they do is
        to be seen in the test's own directory."""
        path = self.directory / f"{name}.toml"
        path.write_text(text)
        return path

    def root(self, name: str) -> Path:
        """The node's root directory."""
        return self.directory / "nodes" / name

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[str]:
        log = (self.directory / f"{name}.log").open("a")
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment, start_new_session=True
        )
        log.close()
        self.processes[name] = process
        assert process.stdout is not None
        ready = select.select([process.stdout], [], [], PATIENCE_S)[0]
        self.lines[name] = process.stdout.readline() if ready else ""
        if not self.lines[name]:
            raise AssertionError(f"{name} did not start: {self.log(name)}")
        return process

    def log(self, name: str) -> str:
        """What a daemon said on stderr, its end."""
        return (self.directory / f"{name}.log").read_text()[-4000:]

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Signal a daemon; wait for its end if the signal ends it."""
        process = self.processes[name]
        process.send_signal(number)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            process.wait(PATIENCE_S)
            if process.stdout is not None:
                process.stdout.close()
            del self.processes[name]

    def power_off(self, name: str) -> None:
        """Kill every process of a node, as when its machine goes down."""
        for pid in self.survivors(str(self.root(name))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.processes.pop(name).communicate(timeout=PATIENCE_S)

    def close(self) -> None:
        """End everything that the test left: agents by SIGTERM first, so that their keepers are found and killed."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(PATIENCE_S)
            if process.stdout is not None:
                process.stdout.close()
        for pid in self.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def survivors(self, path: str = "") -> list[int]:
        """Processes that were given this cluster's directory (or one in it), by argument, environment or open
        directory."""
        mark = (path or str(self.directory)).encode()
        return [pid for pid, text in _processes() if mark in text and pid != os.getpid()]

    # ---- the command

    def command(self, *words: str, status: int = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `coordinator WORDS` as a user would; its exit status is what the test expects."""
        address = {} if words[0] in ("run", "check") else {"BATCH_COORDINATOR": str(self.socket)}
        done = subprocess.run(
            [*COORDINATOR, *words], capture_output=True, text=True, timeout=2 * PATIENCE_S, input=stdin,
            env={**self.environment, **address}, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def ask(self, *words: str, status: int = 0) -> Any:
        """The JSON that `coordinator WORDS -o json` prints."""
        return json.loads(self.command(*words, "-o", "json", status=status).stdout)

    def file(self, text: str) -> Path:
        """A .batch file with this text."""
        self.files += 1
        path = self.directory / f"file-{self.files}.batch"
        path.write_text(text)
        return path

    def submit(self, text: str) -> str:
        """Submit a file with one job; the job's id."""
        return str(self.ask("submit", str(self.file(text)))["jobs"][0]["id"])

    def job(self, job: str) -> Plain:
        """`job show`."""
        shown: Plain = self.ask("job", "show", job)
        return shown

    def wait(self, job: str) -> Plain:
        """Wait for the job's end, whatever it is; the job."""
        return self.until(lambda now: job_of(now, job)["state"] == "completed", lambda now: job_of(now, job))

    def nodes_of(self, job: str) -> dict[str, Plain]:
        """`job nodes`, by node."""
        return {row["node"]: row for row in self.ask("job", "nodes", job)}

    def until(self, holds: Callable[[Plain], Any], give: Callable[[Plain], Any] = lambda now: now) -> Any:
        """Wait until something holds of the coordinator's overview; what `give` makes of it then."""
        deadline = time.monotonic() + PATIENCE_S
        with thin.connect(str(self.socket)) as coordinator:
            changed = -1
            while True:
                now = coordinator.call("Overview", jobs=[], changed=changed)
                with contextlib.suppress(KeyError):
                    if holds(now):
                        return give(now)
                changed = now["changed"]
                assert time.monotonic() < deadline, f"this never came: {json.dumps(now, indent=1, default=str)[-6000:]}"

    # ---- what commands of a test say

    def pipe(self, name: str) -> Pipe:
        """A named pipe that commands write lines to and the test reads."""
        return Pipe(self.directory / f"{name}.pipe")


class Pipe:
    """Lines that commands wrote, in the order they did."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o666)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._held = b""

    def line(self, within_s: float = PATIENCE_S) -> str:
        """The next line. Fails when none comes in time."""
        deadline = time.monotonic() + within_s
        while b"\n" not in self._held:
            ready = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"nobody wrote to {self.path.name}"
            self._held += os.read(self._fd, 65536)
        line, _, self._held = self._held.partition(b"\n")
        return line.decode()

    def silent(self) -> bool:
        """Whether nothing was written that was not read."""
        return not self._held and not select.select([self._fd], [], [], 0)[0]

    def lines(self, count: int) -> list[str]:
        """The next `count` lines."""
        return [self.line() for _ in range(count)]


def job_of(now: Plain, job: str) -> Plain:
    """The job in an overview. Raises KeyError."""
    return {entry["id"]: entry for entry in now["jobs"]}[job]


def node_of(now: Plain, node: str) -> Plain:
    """The node in an overview. Raises KeyError."""
    return {entry["id"]: entry for entry in now["nodes"]}[node]


def round_of(now: Plain, job: str, node: str) -> Plain:
    """The job's latest round on the node. Raises KeyError."""
    return {entry["node"]: entry for entry in job_of(now, job)["nodes"]}[node]


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int, within_s: float = PATIENCE_S) -> bool:
    """Wait for a process's end; False when it outlives the patience."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


def _processes() -> Iterator[tuple[int, bytes]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            text = b""
            for part in ("cmdline", "environ"):  # a keeper shows the first only
                with contextlib.suppress(OSError):
                    text += (entry / part).read_bytes()
            yield int(entry.name), text


COORDINATOR = [sys.executable, "-m", "coordinator.cli"]
AGENTD = [sys.executable, "-m", "agentd"]
