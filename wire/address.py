"""Where a coordinator listens: a socket path of any length, opened below its directory, or `host:port`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SOCKET_NAME: Final = "coordinator.sock"
_LONGEST: Final = 100  # of the 108 bytes that a socket address has


def is_host_and_port(address: str) -> bool:
    """Whether this names a TCP endpoint and no path."""
    host, colon, port = address.rpartition(":")
    return bool(colon and host) and port.isdecimal() and "/" not in address


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of `host:port`, of `1.2.3.4:port` or of `[::1]:port`. Raises ValueError, with a sentence."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address}: an IPv6 address stands in brackets, as in [::1]:8443")
    if not is_host_and_port(address) or not host or any(not c.isprintable() or c.isspace() for c in host):
        raise ValueError(f"{address!r} is no address: write HOST:PORT")
    if not (port.isascii() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError(f"{address}: a port is 1 to 65535")
    return host, int(port)


def host_and_port_to_listen(text: str) -> tuple[str, int]:
    """As `host_and_port`, and port 0 is any: nobody can connect to it, but listen there. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if port and not port.strip("0"):
        return host_and_port(f"{host}:1")[0], 0
    return host_and_port(text)


@contextmanager
def short_path(path: str) -> Iterator[str]:
    """A name for `path` that fits a socket address, valid within the context. Raises OSError."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield path
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def absence(path: str, error: OSError) -> str:
    """In words, why no coordinator could be reached at `path`, and what to do."""
    if isinstance(error, PermissionError):
        return f"you may not use the coordinator at {path}: it serves the user who started it"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"no coordinator runs at {path}: start one with `coordinator serve`, or name another with --coordinator"
    if isinstance(error, ConnectionRefusedError):
        return f"the coordinator at {path} has ended: start it again with `coordinator serve`"
    return f"the coordinator at {path} can't be reached: {error.strerror or error}"


def unreachable(address: str, error: OSError) -> str:
    """In words, why no connection to `host:port` came about."""
    if isinstance(error, TimeoutError):
        return f"{address} does not answer: is that the right address, and no firewall between?"
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens at {address}: start the coordinator with `coordinator serve --listen`, or name another"
    return f"{address} can't be reached: {error.strerror or error}"


def not_logged_in(address: str) -> str:
    """In words, that there is no identity for the coordinator at `host:port`."""
    return f"you are not logged in at {address}: get a token from its administrator, then `coordinator login {address}`"
