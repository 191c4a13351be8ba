"""Where things are on this machine: the user's state directory and the coordinator's socket."""

from __future__ import annotations

import os

from wire.address import SOCKET_NAME


def user_state() -> str:
    """`$XDG_STATE_HOME/poolkeeper`, else `~/.local/state/poolkeeper`."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "poolkeeper")


def state_directory(chosen: str | None = None) -> str:
    """Where `serve` keeps its state: what was asked for, `$BATCH_STATE`, or the user's state directory."""
    return os.path.abspath(chosen or os.environ.get("BATCH_STATE") or user_state())


def coordinator_address(chosen: str | None) -> str:
    """The path of the socket to ask, or `host:port`."""
    address = chosen or os.environ.get("BATCH_COORDINATOR")
    if not address:
        return os.path.join(state_directory(), SOCKET_NAME)
    return address
