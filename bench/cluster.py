"""A coordinator and its agents as real processes, started and asked through their commands like any user's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
PATIENCE_S = 60.0
"""How long a daemon may take to come up or to go."""
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
"""Of all that is measured. An interpreter that is told to keep no bytecode would compile every module of ours, and none
of the installed packages that the floors import, anew for each command."""


class BenchFailed(Exception):
    """A benchmark that could not be measured; the text says why."""


def command(name: str) -> list[str]:
    """The installed command beside this interpreter, or the module of the checkout."""
    installed = Path(sys.executable).parent / name
    modules = {"coordinator": "coordinator.cli", "agentd": "agentd"}
    return [str(installed)] if installed.exists() else [sys.executable, "-m", modules[name]]


def memory_of(pid: int, which: str) -> int:
    """Bytes of a process that lives, by the kernel's name of the figure."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{which}:"):
                return int(line.split()[1]) * 1024
    except FileNotFoundError:
        raise BenchFailed(f"process {pid} has ended, its {which} is not known any more") from None
    raise BenchFailed(f"the kernel does not tell {which} of process {pid}")


class Cluster:
    """A live coordinator with its state in `directory`, and the agents that were added to it."""

    def __init__(self, directory: Path, *, tls: bool = False) -> None:
        self.directory = directory
        self.endpoint = ""
        self.state = directory / "state"
        self.log = (directory / "daemons.log").open("ab")
        self.agents: list[subprocess.Popen[bytes]] = []
        directory.joinpath("state").mkdir(mode=0o700)
        listen = ["--listen", "127.0.0.1:0"] if tls else []
        words = ["coordinator", "serve", "--state", str(self.state), *listen]
        self.coordinator = self._start(words, stdout=subprocess.PIPE)
        assert self.coordinator.stdout is not None
        ready = self.coordinator.stdout.readline().decode()  # its one line
        if not ready:
            raise BenchFailed(f"coordinator serve did not start:\n{self.tail()}")
        if tls:
            self.endpoint = re.findall(r"127\.0\.0\.1:\d+", ready)[0]

    def _start(self, words: list[str], stdout: int | IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command(words[0]), *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=self.log,
            cwd=ROOT,
            env=ENVIRONMENT,
        )

    def tail(self) -> str:
        self.log.flush()
        return (self.directory / "daemons.log").read_text(errors="replace")[-2000:]

    def add_agent(self, pool: str, name: str, slots: int, config: str = "") -> None:
        """Start an agent, over TLS if the coordinator listens, and wait until the coordinator shows it idle."""
        words = ["agentd", "--coordinator", self.endpoint or str(self.socket), "--pool", pool, "--name", name]
        words += ["--slots", str(slots), "--root", str(self.directory / name)]
        if config:
            (self.directory / f"{name}.toml").write_text(config)
            words += ["--config", str(self.directory / f"{name}.toml")]
        if self.endpoint:
            (self.directory / f"{name}.token").write_text(self.ask("token", "create", "--role", "node")["token"])
            words += ["--join", f"@{self.directory / f'{name}.token'}"]
        self.agents.append(self._start(words, stdout=self.log))
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:  # each question takes a command's start, so this does not spin
            if any(node["id"] == name and node["state"] == "idle" for node in self.ask("node", "list")):
                return
        raise BenchFailed(f"node {name} did not become idle within {PATIENCE_S:.0f} s:\n{self.tail()}")

    @property
    def socket(self) -> Path:
        return self.state / "coordinator.sock"

    def words(self, *words: str, shape: str = "json") -> list[str]:
        """A whole command line, for who starts the command himself."""
        return [*command("coordinator"), *words, "--coordinator", str(self.socket), "--output", shape]

    def run(self, *words: str) -> tuple[str, float]:
        """What a command printed, and the seconds from its start to its end."""
        begin = time.perf_counter()
        done = subprocess.run(
            self.words(*words), capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, check=False
        )
        seconds = time.perf_counter() - begin
        if done.returncode != 0:
            said = done.stderr.strip() or done.stdout.strip()[-2000:]
            raise BenchFailed(f"coordinator {' '.join(words)}: exit status {done.returncode}\n{said}\n{self.tail()}")
        return done.stdout, seconds

    def ask(self, *words: str) -> Any:
        return json.loads(self.run(*words)[0])

    def anonymous_bytes(self) -> int:
        """Memory of the coordinator that no file backs."""
        return memory_of(self.coordinator.pid, "RssAnon")

    def peak_bytes(self) -> int:
        """The most memory that the coordinator ever had."""
        return memory_of(self.coordinator.pid, "VmHWM")

    def cpu_seconds(self, process: subprocess.Popen[bytes]) -> float:
        """Processor time of a daemon so far, without its children."""
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        for agent in self.agents:
            agent.send_signal(signal.SIGINT)  # leaves the node clean
        for process in [*self.agents, self.coordinator]:
            if process is self.coordinator:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.log.close()


@contextmanager
def cluster(directory: Path, *, tls: bool = False) -> Iterator[Cluster]:
    directory.mkdir()
    started = Cluster(directory, tls=tls)
    try:
        yield started
    finally:
        started.stop()
