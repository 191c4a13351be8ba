"""Several hosts on this machine: each with an address, a name, processes and files of its own, joined by a switch.

Everything is in private namespaces: nothing of it is seen outside, and it is gone with the test.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.cluster import PATIENCE_S

HOST = Path(__file__).with_name("host.py")
SUBNET = "10.77.0"
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_NAMESPACES = ("--net", "--mount", "--uts", "--pid")


def why_not() -> str | None:
    """Why there can be no hosts here, or None."""
    if os.geteuid() != 0:
        return "needs root, to make hosts of namespaces"
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool, path=PATH) is None:
            return f"needs the program {tool}"
    if "--wdns" not in subprocess.run(["nsenter", "--help"], capture_output=True, text=True, check=False).stdout:
        return "needs an nsenter that knows --wdns (util-linux 2.38)"
    tried = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "ip", "link", "add", "switch", "type", "bridge"],
        capture_output=True,
        check=False,
    )
    if tried.returncode != 0:
        return f"the kernel makes no namespaces with a bridge: {tried.stderr.decode().strip()}"
    with open("/proc/filesystems", encoding="ascii") as known:
        return None if "overlay" in known.read() else "the kernel has no overlay file system"


class Host:
    """A machine, as far as programs can tell."""

    def __init__(self, name: str, address: str, process: subprocess.Popen[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.address = address
        self.environment = dict(environment)
        self._process = process
        self.pid = only_child(process.pid)

    def enter(self, *words: str) -> list[str]:
        """The command line that runs `words` there."""
        return ["nsenter", "--target", str(self.pid), *_NAMESPACES, f"--wdns={self.environment['HOME']}", "--", *words]

    def start(self, *words: str, **kinds: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(self.enter(*words), text=True, env=self.environment, **kinds)

    def run(self, *words: str, status: int | None = 0, said: str | None = None) -> str:
        """Run it there to its end; what it printed."""
        done = subprocess.run(
            self.enter(*words), input=said, capture_output=True, text=True, env=self.environment, timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip
        assert status is None or done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def cut(self) -> None:
        """Pull the cable."""
        self.run("ip", "link", "set", "eth0", "down")

    def heal(self) -> None:
        self.run("ip", "link", "set", "eth0", "up")

    def mute(self, other: Host) -> None:
        """From now on it hears `other` and is not heard: what it sends goes to a network card that nobody has."""
        self.run(
            "ip", "neigh", "replace", other.address, "lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent"
        )

    def unmute(self, other: Host) -> None:
        self.run("ip", "neigh", "del", other.address, "dev", "eth0")

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def outside(self, pid: int) -> int:
        """The number by which a process of this host is known outside. Fails when there is none."""
        space = os.readlink(f"/proc/{self.pid}/ns/pid")
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    inside = next(line for line in (entry / "status").read_text().splitlines() if line[:6] == "NSpid:")
                    if int(inside.split()[-1]) == pid and os.readlink(entry / "ns" / "pid") == space:
                        return int(entry.name)
        raise AssertionError(f"no process {pid} on {self.name}")

    def close(self) -> None:
        """Switch it off: whatever runs there is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()


class Hosts:
    """The hosts of one test and the switch between them."""

    def __init__(self, directory: Path, names: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._made: list[Host] = []
        self._switch = subprocess.Popen(
            ["unshare", "--net", "--kill-child", "--fork", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            self._switch_pid = only_child(self._switch.pid)
            self._in_switch("ip", "link", "add", "switch", "type", "bridge")
            self._in_switch("ip", "link", "set", "switch", "up")
            addresses = {name: f"{SUBNET}.{number}" for number, name in enumerate(names, 1)}
            known = "".join(f"{address} {name}\n" for name, address in addresses.items())
            base = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", **(environment or {})}
            for name, address in addresses.items():
                self._made.append(self._make(directory, name, address, known, base))
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self._made if host.name == name)

    def _make(self, directory: Path, name: str, address: str, known: str, environment: Mapping[str, str]) -> Host:
        layer = directory / f"layer-{name}"
        layer.mkdir()
        process = subprocess.Popen(
            ["unshare", *_NAMESPACES, "--fork", "--kill-child", sys.executable, str(HOST), name, known, str(layer)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        ready = select.select([process.stdout], [], [], PATIENCE_S)[0]
        assert ready, name
        assert process.stdout.readline() == "up\n", name
        host = Host(name, address, process, environment)
        self._in_switch("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "eth0", "netns", str(host.pid))
        self._in_switch("ip", "link", "set", f"to-{name}", "master", "switch", "up")
        host.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        host.run("ip", "link", "set", "lo", "up")
        return host

    def _in_switch(self, *words: str) -> None:
        command = ["nsenter", "--target", str(self._switch_pid), "--net", "--", *words]
        subprocess.run(command, check=True, env={"PATH": PATH})

    def close(self) -> None:
        for host in self._made:
            host.close()
        assert self._switch.stdin is not None
        assert self._switch.stdout is not None
        self._switch.stdin.close()
        self._switch.wait(PATIENCE_S)
        self._switch.stdout.close()


def only_child(pid: int) -> int:
    """The process that `unshare --fork` has started."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
    raise AssertionError("unshare started nothing")
