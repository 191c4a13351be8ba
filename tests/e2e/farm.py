"""A cluster over several hosts: the coordinator on `head`, an agent on each of the others, TLS between them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.cluster import PATIENCE_S, is_alive
from tests.e2e.hosts import PATH, Host, Hosts, only_child
from tests.e2e.secure import SecureCluster

PORT = 7070


class Farm(SecureCluster):
    """Every daemon is named after its host; the coordinator's is `head`."""

    def __init__(self, directory: Path, nodes: Sequence[str]) -> None:
        super().__init__(directory)
        self.hosts = Hosts(directory, ["head", *nodes], {**self.environment, "PATH": PATH})
        self.address = f"head:{PORT}"

    def host(self, daemon: str) -> Host:
        return self.hosts["head" if daemon == "coordinator" else daemon]

    def serve(self) -> subprocess.Popen[str]:
        """As the plain one, on the host `head`."""
        self.address = f"0.0.0.0:{PORT}"
        try:
            return super().serve()
        finally:
            self.address = f"head:{PORT}"

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[str]:
        return super()._start(name, self.host(name).enter(*command))

    def pid(self, daemon: str) -> int:
        """Of the daemon itself, as it is known outside its host."""
        return only_child(self.processes[daemon].pid)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        process = self.processes[name]
        os.kill(self.pid(name), number)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            process.wait(PATIENCE_S)
            assert process.stdout is not None
            process.stdout.close()
            del self.processes[name]

    def close(self) -> None:
        for process in self.processes.values():
            assert process.stdout is not None
            process.stdout.close()
        self.hosts.close()
        for process in self.processes.values():
            process.wait(PATIENCE_S)
        super().close()

    def ended(self, pid: int) -> bool:
        """Wait for the end of a process that is known by its outside number."""
        if not is_alive(pid):
            return True
        handle = os.pidfd_open(pid)
        try:
            return bool(select.select([handle], [], [], PATIENCE_S)[0])
        finally:
            os.close(handle)
