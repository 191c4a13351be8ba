"""All that a short command needs of the wire: a blocking socket and msgpack, no typed messages, nothing heavy.

with connect(path) as coordinator:          a socket's path, or `host:port` where one is logged in
    job = coordinator.call("JobShow", job="daily")
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Protocol, Self

import msgpack

from wire import limits
from wire.address import absence, is_host_and_port, short_path

PROTOCOL_VERSION: Final = 1  # as in wire.messages, which is too heavy to import here; a test compares
REPLY_S: Final = 60.0
_ROLES: Final = ("admin", "operator", "user")
_HEARD: Final[dict[str, tuple[tuple[str, type], ...]]] = {
    "Welcome": (("version", int), ("epoch", int)),
    "Goodbye": (("reason", str),),
    "Reply": (("request", int),),
    "Refused": (("request", int), ("code", str), ("message", str)),
    "Renewed": (("certificate", bytes),),
}
"""What a command is told, with the fields that are looked at."""
_LENGTH: Final = struct.Struct(">I")
_INLINE: Final = limits.MAX_CHUNK
"""A document up to this many bytes travels in its Submit; a larger one is uploaded before."""


class ThinError(Exception):
    """A request was refused. `code` is `invalid`, `refused`, `unknown` or `failed` (wire.messages.RefusalCode)."""

    def __init__(
        self,
        code: str,
        message: str,
        help: str | None = None,  # noqa: A002 - the field's name on the wire
        near: list[str] | None = None,
        diagnostics: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = help
        self.near = near or []
        self.diagnostics = diagnostics or []


class NoCoordinator(ThinError):
    """Nobody listens there, or the connection was lost."""

    def __init__(self, message: str) -> None:
        super().__init__("refused", message)


class NoAnswer(ThinError):
    """The coordinator did not answer in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__("failed", f"the coordinator did not answer within {seconds:g} s")
        self.seconds = seconds


class Woken(ThinError):
    """Something else than the answer came first; the question stays open."""

    def __init__(self) -> None:
        super().__init__("failed", "the wait for the coordinator's answer was broken off")


class TurnedAway(NoCoordinator):
    """The coordinator refused the session, and said why; `for_good` when trying again comes to the same."""

    def __init__(self, message: str, *, for_good: bool) -> None:
        super().__init__(message)
        self.for_good = for_good


class Connected(Protocol):
    """What is asked of a socket here."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, content: bytes, /) -> None: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


def connect(address: str, role: str | None = None) -> Coordinator:
    """A session with the coordinator at this socket path, in the highest role that it grants us (or in `role`); or
    at `host:port`, in the role of our certificate. Raises NoCoordinator, ThinError."""
    if is_host_and_port(address):
        from wire.dial import dial  # TLS is loaded by who needs it

        connected, own = dial(address)
        return Coordinator(connected, address, role or own)
    path = os.path.abspath(address)
    *higher, last = _ROLES if role is None else (role,)
    for candidate in higher:
        with suppress(TurnedAway):
            return _connect(path, candidate)
    return _connect(path, last)


def _connect(path: str, role: str) -> Coordinator:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(limits.WELCOME_S)
    try:
        with short_path(path) as name:
            made.connect(name)
        return Coordinator(made, path, role)
    except OSError as error:
        made.close()
        raise NoCoordinator(absence(path, error)) from None
    except BaseException:
        made.close()
        raise


def _read_frame(body: bytes) -> tuple[int, int, dict[str, Any]]:
    """Epoch, sequence and message. Raises ValueError, TypeError, KeyError for what no coordinator says."""
    epoch, sequence, message = msgpack.unpackb(body, max_ext_len=0)
    fields = {"epoch": epoch, "sequence": sequence, **message}
    for name, kind in (("epoch", int), ("sequence", int), *_HEARD[message["kind"]]):
        if not isinstance(fields[name], kind):
            raise TypeError(name)
    return epoch, sequence, message


class Coordinator:
    """One session, one request at a time."""

    def __init__(self, connected: Connected, path: str, role: str) -> None:
        self._socket = connected
        self._path = path
        self._epoch = 0
        self._sent = 0
        self._received = 0
        self._request = 0
        self._open: dict[int, dict[str, Any] | None] = {}
        """Requests that were not given up, with their answers where those have come."""
        self._buffer = bytearray()
        try:
            self._send({"kind": "Hello", "version": PROTOCOL_VERSION, "role": role})
            welcome = self._receive(limits.WELCOME_S)
            if welcome["kind"] != "Welcome" or welcome["version"] != PROTOCOL_VERSION:
                raise NoCoordinator(f"what listens at {path} is no coordinator of this release")
            self._epoch = welcome["epoch"]
        except BaseException:
            connected.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session; never fails."""
        self._socket.close()

    def call(self, kind: str, *, timeout_s: float | None = REPLY_S, **fields: Any) -> Any:
        """Send one request, return its reply's body. `timeout_s` None waits for ever. Raises ThinError."""
        request = self.ask(kind, **fields)
        try:
            return self._answer(request, timeout_s)
        finally:
            self._open.pop(request, None)

    def ask(self, kind: str, **fields: Any) -> int:
        """Send one request, and don't wait: `answer` does, as often as need be. Raises ThinError."""
        self._request += 1
        self._send({"kind": kind, "request": self._request, **fields})
        self._open[self._request] = None
        return self._request

    def answer(self, request: int, *, within_s: float | None = None, unless: Sequence[int] = ()) -> Any:
        """The body of the reply to `ask`. Raises NoAnswer and Woken, after which it may be called again: when the time
        is over, or one of the descriptors `unless` can be read, before the reply comes; ThinError."""
        if self._open.get(request) is None and not self._is_readable(within_s, unless):
            raise NoAnswer(within_s or 0.0)
        return self._answer(request, REPLY_S)

    def next_answered(self) -> int | None:
        """One of the requests of `ask` whose reply is here, to be taken by `answer`; None when there is none yet: the
        session's descriptor can be read before there is. Raises ThinError."""
        while True:
            for request, message in self._open.items():
                if message is not None:
                    return request
            if not self._is_readable(0.0):
                return None
            self._set_aside(self._receive(REPLY_S))

    def fileno(self) -> int:
        """To be waited for, once `next_answered` gave nothing."""
        return self._socket.fileno()

    def _answer(self, request: int, timeout_s: float | None) -> Any:
        while True:
            message = self._open.get(request) or self._receive(timeout_s)
            if message.get("request") != request:
                self._set_aside(message)
                continue
            self._open.pop(request, None)
            if message["kind"] == "Reply":
                return message.get("body")
            raise ThinError(
                message["code"],
                message["message"],
                message.get("help"),
                message.get("near"),
                message.get("diagnostics"),
            )

    def _set_aside(self, message: dict[str, Any]) -> None:
        """The answer to a request that waits for its turn; one to a request that was given up is dropped."""
        if message.get("request") in self._open:
            self._open[message["request"]] = message

    def _is_readable(self, within_s: float | None, unless: Sequence[int] = ()) -> bool:
        """Whether something came, or comes within so long. Raises Woken."""
        if self._buffer or getattr(self._socket, "pending", int)():
            return True
        waiting = select.poll()
        for descriptor in (self._socket.fileno(), *unless):
            waiting.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _ in waiting.poll(None if within_s is None else within_s * 1000)]
        if ready and self._socket.fileno() not in ready:
            raise Woken
        return bool(ready)

    def renew(self, request: bytes) -> bytes:
        """The next certificate (DER) of the identity we came in with, for a signing request (DER) of its key.
        Raises ThinError."""
        self._send({"kind": "Renew", "request": request})
        while True:
            message = self._receive(limits.ENROLL_S)
            if message["kind"] == "Renewed":
                certificate: bytes = message["certificate"]
                return certificate

    def submit(
        self,
        document: dict[str, Any],
        submission: str,
        *,
        source: str = "",
        spans: dict[str, list[int]] | None = None,
        once: bool = False,
        update_pool: bool = False,
        timeout_s: float | None = REPLY_S,
    ) -> Any:
        """Submit a document of any size. The same `submission` gives the same jobs. Raises ThinError."""
        packed = msgpack.packb(document)
        fields: dict[str, Any] = {"submission": submission, "source": source, "spans": spans or {}}
        fields |= {"once": once, "update_pool": update_pool}
        if len(packed) <= _INLINE:
            fields["document"] = document
        else:
            fields["digest"] = self.upload(packed, timeout_s=timeout_s)
        return self.call("Submit", timeout_s=timeout_s, **fields)

    def upload(self, content: bytes, *, timeout_s: float | None = REPLY_S) -> str:
        """Bring a blob there, from where an earlier try was interrupted; its digest. Raises ThinError."""
        import hashlib  # only here: most commands upload nothing

        digest = hashlib.sha256(content).hexdigest()
        self.upload_from(lambda at, count: content[at : at + count], digest, len(content), timeout_s=timeout_s)
        return digest

    def upload_from(
        self, read: Callable[[int, int], bytes], digest: str, size: int, *, timeout_s: float | None = REPLY_S
    ) -> None:
        """As `upload`, of what `read(offset, count)` gives. Raises ThinError, OSError."""
        held = self._upload_piece(digest, 0, size, b"", timeout_s)
        while held < size:
            piece = read(held, min(limits.MAX_CHUNK, size - held))
            if not piece:
                raise ThinError("failed", "it became shorter while it was uploaded")
            held = self._upload_piece(digest, held, size, piece, timeout_s)

    def _upload_piece(self, digest: str, offset: int, size: int, piece: bytes, timeout_s: float | None) -> int:
        body = self.call("Upload", timeout_s=timeout_s, digest=digest, offset=offset, size=size, content=piece)
        held: int = body["held"]
        if piece and held <= offset:
            raise ThinError("failed", "the coordinator does not take the upload: it holds no more than before")
        return held

    # ---- frames

    def _send(self, message: dict[str, Any]) -> None:
        body = msgpack.packb([self._epoch, self._sent, message])
        limit = limits.MAX_FRAME if self._epoch else limits.MAX_OPENING_FRAME
        if len(body) > limit:
            raise ThinError("invalid", f"the {message['kind']} request is too large: {len(body)} of {limit} bytes")
        self._sent += 1
        with self._cut_told():
            self._socket.settimeout(limits.SEND_S)
            with suppress(BrokenPipeError, ConnectionResetError):  # why: a goodbye that is still to be read says
                self._socket.sendall(_LENGTH.pack(len(body)) + body)

    def _receive(self, timeout_s: float | None) -> dict[str, Any]:
        """The next message of this session. A Goodbye is raised as what it says."""
        while True:
            length: int = _LENGTH.unpack(self._take(_LENGTH.size, timeout_s))[0]
            if length > limits.MAX_FRAME:
                raise NoCoordinator(f"what listens at {self._path} is no coordinator of this release")
            try:
                epoch, sequence, message = _read_frame(self._take(length, timeout_s))
            except (ValueError, TypeError, KeyError):
                raise NoCoordinator(f"what listens at {self._path} is no coordinator of this release") from None
            if epoch != self._epoch or sequence < self._received:
                continue
            self._received += 1
            if message["kind"] == "Goodbye":
                reason = f"the coordinator closed the connection: {message['reason']}"
                for_good = bool(message.get("error"))
                if self._epoch and not for_good:
                    raise NoCoordinator(reason)
                raise TurnedAway(reason, for_good=for_good)
            return message

    def _take(self, size: int, timeout_s: float | None) -> bytes:
        with self._cut_told():
            self._socket.settimeout(timeout_s)
            while len(self._buffer) < size:
                try:
                    piece = self._socket.recv(262_144)
                except TimeoutError:
                    raise NoAnswer(timeout_s or 0.0) from None
                if not piece:
                    raise NoCoordinator(f"the coordinator at {self._path} ended the connection")
                self._buffer += piece
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    @contextmanager
    def _cut_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NoCoordinator(f"the connection to the coordinator at {self._path} was lost: {error}") from None
