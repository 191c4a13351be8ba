"""A wire between an agent and its coordinator that a test can cut, in one direction or both, and heal."""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path


class Relay:
    """Listens on a socket path and carries bytes to another; what is cut is held, as a network would hold it."""

    def __init__(self, path: Path, target: Path) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen()
        self.path = path
        self._begin(listener, lambda: _connected(socket.AF_UNIX, str(target)))

    def _begin(self, listener: socket.socket, dial: Callable[[], socket.socket]) -> None:
        self._dial = dial
        self._cut = {"out": False, "back": False}
        self._late: set[socket.socket] = set()
        """Connections of which nothing passes for now, while others do."""
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = listener
        self._wake, self._woken = socket.socketpair()
        self._ended = False
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def cut(self, out: bool = True, back: bool = True) -> None:
        """Hold back what the agent says (`out`), what it is told (`back`), or both."""
        self._cut = {"out": out, "back": back}
        self._wake.send(b"x")

    def heal(self) -> None:
        """Let everything through again, what was held first."""
        self.cut(False, False)

    def altered(self, piece: bytes) -> bytes:
        """What is carried instead; for a test that lies."""
        return piece

    def delay(self) -> None:
        """Hold back what the connections there are carry; new ones pass."""
        self._late = {end for pair in self._pairs for end in pair}
        self._wake.send(b"x")

    def holds_something(self, within_s: float) -> bool:
        """Wait until something is held back on a connection that is delayed."""
        return bool(select.select(list(self._late), [], [], within_s)[0])

    def deliver(self) -> None:
        """Let what was delayed arrive."""
        self._late = set()
        self._wake.send(b"x")

    def close(self) -> None:
        """End the relay and every connection through it."""
        self._ended = True
        self._wake.send(b"x")
        self._thread.join()
        for near, far in self._pairs:
            near.close()
            far.close()
        for end in (self._listener, self._wake, self._woken):
            end.close()

    def _carry(self) -> None:
        while not self._ended:
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ, None)
                if not self._cut["out"]:
                    selector.register(self._listener, selectors.EVENT_READ, "accept")
                for near, far in self._pairs:
                    if near in self._late:
                        continue
                    if not self._cut["out"]:
                        selector.register(near, selectors.EVENT_READ, (near, far))
                    if not self._cut["back"]:
                        selector.register(far, selectors.EVENT_READ, (far, near))
                for key, _ in selector.select():
                    self._step(key.fileobj, key.data)

    def _step(self, ready: object, route: object) -> None:
        if route is None:
            self._woken.recv(64)
        elif route == "accept":
            near = self._listener.accept()[0]
            try:
                far = self._dial()
            except OSError:
                near.close()
                return
            self._pairs.append((near, far))
        elif isinstance(route, tuple) and any(route[0] in pair for pair in self._pairs):
            self._pass_on(*route)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            piece = source.recv(65536)
            if piece:
                sink.sendall(self.altered(piece))
                return
        except OSError:
            pass
        for pair in list(self._pairs):
            if source in pair:
                self._pairs.remove(pair)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.close()


class TcpRelay(Relay):
    """The same between TCP endpoints: `address` is where it listens, and what it carries is none of its business."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self._begin(listener, lambda: _connected(socket.AF_INET, (host, int(port))))


def _connected(family: socket.AddressFamily, target: str | tuple[str, int]) -> socket.socket:
    far = socket.socket(family, socket.SOCK_STREAM)
    try:
        far.connect(target)
    except OSError:
        far.close()
        raise
    return far
