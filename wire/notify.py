"""What a service manager is told over `$NOTIFY_SOCKET`: that a daemon is ready, what it does, and that it stops.

The variable is taken once, at a daemon's start, and never passed on. Without it nothing is said.
"""

from __future__ import annotations

import os
import socket
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"
_LONGEST_STATUS: Final = 200
_PATIENCE_S: Final = 1.0


class Supervisor:
    """Invariant: a service manager that does not listen, or no longer, costs its sentence and nothing else."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._status = ""

    def ready(self, status: str) -> str | None:
        """The daemon serves. What is given back, here and below, is why nobody was told, or None."""
        self._status = _in_one_line(status)
        return self._say(f"READY=1\nSTATUS={self._status}")

    def status(self, status: str) -> str | None:
        """What it does now; said once, however often it is repeated."""
        worded = _in_one_line(status)
        if worded == self._status:
            return None
        self._status = worded
        return self._say(f"STATUS={worded}")

    def stopping(self) -> str | None:
        return self._say("STOPPING=1\nSTATUS=stopping")

    def _say(self, text: str) -> str | None:
        if self._address is None:
            return None
        # A name that begins with @ stands in no directory: the kernel wants a NUL there.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as said:
            said.settimeout(_PATIENCE_S)
            try:
                said.connect(address)
                said.send(text.encode("utf-8", "replace"))
            except OSError as error:
                return f"{self._address}: {error.strerror or error}"
        return None


def _in_one_line(status: str) -> str:
    """A second line would be another variable."""
    return " ".join(status.split())[:_LONGEST_STATUS]


def own_supervisor() -> Supervisor:
    """Of this process, from its environment, where the variable is not left for others to find."""
    return Supervisor(os.environ.pop(VARIABLE, None) or None)
