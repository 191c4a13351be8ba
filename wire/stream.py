"""A connection over a trio stream: messages in, a bounded queue out, and a time limit on every wait for the peer.

    async with opened(stream, Connection(Role.NODE)) as session:     Hello and Welcome have passed
        session.send(message)                                        queued; never blocks
        async for message in session: ...                            ends with the connection; then see session.end

Whatever the peer does ends this session and nothing else.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import trio

from wire import codec, limits
from wire.address import short_path
from wire.codec import FrameTooLarge, ProtocolError
from wire.connection import Connection, State
from wire.messages import (
    PROTOCOL_VERSION,
    Ack,
    AnyMessage,
    BlobPiece,
    BodyChunk,
    FileContents,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Role,
    Welcome,
)

_READ: Final = 64 * 1024
_WRITE: Final = 256 * 1024
_CHUNKS: Final = (BlobPiece, BodyChunk, FileContents)
_URGENT: Final = (Heartbeat, HeartbeatAck, Ack, Goodbye)
_ENVELOPE: Final = 32  # bytes an envelope takes at most
_CREDENTIALS: Final = struct.Struct("iII")


@dataclass(frozen=True, slots=True)
class End:
    """How a session ended. `error`: somebody broke the protocol or a limit."""

    reason: str
    error: bool = False


class SessionRefused(Exception):
    """The handshake did not come to a Welcome. The text says why."""


class Unclean(trio.BrokenResourceError):
    """TLS failed. The text says why, of the other side (`it refused our certificate`)."""


def cut(error: trio.BrokenResourceError, when: str = "") -> str:
    """In words, that a connection broke."""
    why = f": {error}" if isinstance(error, Unclean) else ""
    return f"the connection was cut {when}".rstrip() + why


class Outbox:
    """Messages waiting to be sent. Order is kept, but for two things: a chunk of a file is overtaken by everything,
    a chunk of a job's body only by what depends on nothing (heartbeats, acks), for what follows it may need it."""

    def __init__(self) -> None:
        self._first: deque[tuple[AnyMessage, bytes]] = deque()
        self._behind: deque[tuple[AnyMessage, bytes]] = deque()
        self._bodies = 0
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._first or self._behind)

    def put(self, message: AnyMessage) -> None:
        """Raises FrameTooLarge."""
        payload = codec.encode_message(message)
        if len(payload) > limits.MAX_FRAME - _ENVELOPE:
            raise FrameTooLarge(f"a {type(message).__name__} of {len(payload)} bytes fits no frame")
        self.size += len(payload)
        (self._behind if self._waits(message) else self._first).append((message, payload))
        self._bodies += isinstance(message, BodyChunk)

    def _waits(self, message: AnyMessage) -> bool:
        if isinstance(message, Goodbye):
            return bool(self._behind)
        return isinstance(message, _CHUNKS) or (self._bodies > 0 and not isinstance(message, _URGENT))

    def take(self) -> tuple[AnyMessage, bytes]:
        message, payload = (self._first or self._behind).popleft()
        self.size -= len(payload)
        self._bodies -= isinstance(message, BodyChunk)
        return message, payload

    def clear(self) -> None:
        self._first.clear()
        self._behind.clear()
        self._bodies = self.size = 0


class Session:
    """An open connection. Invariant: `end` is set once; from then on nothing is taken or yielded."""

    def __init__(self, stream: trio.abc.Stream, connection: Connection) -> None:
        self.connection = connection
        self.end: End | None = None
        self._stream = stream
        self._outbox = Outbox()
        self._more = trio.Event()
        self._written = trio.Event()
        self._room = trio.Event()
        self._writing = trio.CancelScope()
        self._cut = False
        people = connection.peer not in (Role.NODE, Role.COORDINATOR)
        self._most = limits.MAX_QUEUED_REPLIES if people else limits.MAX_QUEUED

    # ---- for its owner

    @property
    def epoch(self) -> int:
        return self.connection.epoch

    @property
    def peer(self) -> Role:
        assert self.connection.peer is not None, "a session begins after the handshake"
        return self.connection.peer

    def send(self, message: AnyMessage) -> None:
        """Queue the message. On an ended session it is dropped (the next join reconciles). Raises FrameTooLarge."""
        if self.end is not None:
            return
        self._outbox.put(message)
        self._more.set()
        if self._outbox.size > self._most:
            self._end(End(f"the peer does not read: {self._outbox.size} bytes wait for it", error=True))

    def discard(self) -> None:
        """Drop what is queued: it is no longer for this peer."""
        self._outbox.clear()

    async def has_room(self) -> None:
        """Wait until the peer has taken most of what waits for it, or the session is over."""
        while self.end is None and self._outbox.size > limits.MAX_AHEAD:
            self._room = trio.Event()
            await self._room.wait()

    def close(self, reason: str, *, error: bool = False) -> None:
        """Say goodbye after what is queued, and end."""
        if self.end is None:
            self._outbox.put(Goodbye(reason[:1000], error))
            self.end = End(reason, error)
            self._more.set()
            self._room.set()

    async def __aiter__(self) -> AsyncIterator[AnyMessage]:
        while (message := await self.receive()) is not None:
            yield message

    async def receive(self) -> AnyMessage | None:
        """The next message, or None at the end (`end` says how it came)."""
        try:
            message = await self._next_message()
        except ProtocolError as error:
            self._outbox.clear()
            self.close(str(error), error=True)
            return None
        if isinstance(message, Goodbye):
            self._end(End(message.reason or "the peer ended it and said no reason", message.error))
            return None
        return message if self.end is None else None

    # ---- the socket

    async def _next_message(self) -> AnyMessage | None:
        """The next message, or None when the connection ended. Silence between frames is the owner's to judge;
        a frame that has begun must be complete in time."""
        while self.end is None:
            message = self.connection.next_event()
            if message is not None:
                return message
            if not self.connection.in_frame:
                await self._read()
                continue
            with trio.move_on_after(limits.FRAME_S) as patience:
                message = await self._rest_of_frame()
            if patience.cancelled_caught:
                raise ProtocolError(f"a frame took longer than {limits.FRAME_S:g} s to arrive")
            if message is not None:
                return message
        return None

    async def _rest_of_frame(self) -> AnyMessage | None:
        while self.end is None and self.connection.in_frame:
            await self._read()
            message = self.connection.next_event()
            if message is not None:
                return message
        return None

    async def _read(self) -> None:
        try:
            content = await self._stream.receive_some(_READ)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            content = b""
        if content:
            self.connection.receive_bytes(content)
        else:
            inside = " in the middle of a frame" if self.connection.in_frame else ""
            self._end(End(f"the connection was cut{inside}", error=bool(inside)))

    def _end(self, end: End) -> None:
        """End without a goodbye: the peer is gone, or would not read it."""
        if self.end is None:
            self.end = end
        self._outbox.clear()
        self._cut = True
        self._writing.cancel()
        self._more.set()
        self._room.set()

    async def _write(self) -> None:
        """Send what is queued until the session ends, then close the stream, which wakes the reader."""
        try:
            while not self._cut:
                if self._outbox:
                    await self._send_some()
                elif self.end is not None:
                    break
                else:
                    self._more = trio.Event()
                    await self._more.wait()
        finally:
            self._written.set()
            await trio.aclose_forcefully(self._stream)

    async def _send_some(self) -> None:
        """One write of as much as is queued, within reason."""
        frames: list[bytes] = []
        size = 0
        while self._outbox and size < _WRITE and self.connection.state is not State.CLOSED:
            frames.append(self.connection.send_encoded(*self._outbox.take()))
            size += len(frames[-1])
        if not frames:  # a goodbye has passed: nothing may follow it
            self._end(End("closed"))
            return
        self._writing = trio.CancelScope()
        with trio.move_on_after(limits.SEND_S) as patience, self._writing:
            try:
                await self._stream.send_all(b"".join(frames))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._end(End("the connection was cut"))
        self._room.set()
        if patience.cancelled_caught:
            self._end(End(f"the peer took nothing for {limits.SEND_S:g} s", error=True))

    async def _leave(self) -> None:
        """The owner is done: what is queued and a goodbye may still leave."""
        self.close("done")
        with trio.move_on_after(limits.GOODBYE_S):
            await self._written.wait()


@asynccontextmanager
async def opened(stream: trio.abc.Stream, role: Role) -> AsyncIterator[Session]:
    """The opening side's session. Raises SessionRefused when the coordinator does not welcome us."""
    connection = Connection(role)
    async with _closing(stream):
        await _within(limits.WELCOME_S, _greet(stream, connection, role), "the coordinator did not welcome us")
        async with _running(Session(stream, connection)) as session:
            yield session


@asynccontextmanager
async def accepted(
    stream: trio.abc.Stream, allowed: frozenset[Role], next_epoch: Callable[[], Awaitable[int]]
) -> AsyncIterator[Session]:
    """The accepting side's session, for a peer that may take these roles. Raises SessionRefused."""
    connection = Connection(Role.COORDINATOR, allowed=allowed)
    async with _closing(stream):
        await _within(limits.HANDSHAKE_S, _welcome(stream, connection, next_epoch), "the peer did not greet")
        async with _running(Session(stream, connection)) as session:
            yield session


async def refuse(stream: trio.abc.Stream, reason: str, *, for_good: bool = False) -> None:
    """Turn a peer away before it has said anything: another time it may be let in, unless it is `for_good`."""
    async with _closing(stream):
        with trio.move_on_after(limits.GOODBYE_S), suppress(trio.BrokenResourceError):
            await stream.send_all(Connection(Role.COORDINATOR).farewell(reason, error=for_good))


@asynccontextmanager
async def _closing(stream: trio.abc.Stream) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def _running(session: Session) -> AsyncIterator[Session]:
    """The session with its writer. An exception of the body leaves as itself and not in a group of one."""
    raised: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session._write)
        try:
            yield session
        except Exception as error:
            raised = error
        await session._leave()
        nursery.cancel_scope.cancel()
    if raised is not None:
        raise raised


# ---- the handshake


async def _within(seconds: float, handshake: Awaitable[None], otherwise: str) -> None:
    with trio.move_on_after(seconds) as patience:
        await handshake
    if patience.cancelled_caught:
        raise SessionRefused(f"{otherwise} within {seconds:g} s")


async def _greet(stream: trio.abc.Stream, connection: Connection, role: Role) -> None:
    with suppress(trio.BrokenResourceError):  # why: a goodbye that is still to be read says
        await stream.send_all(connection.send(Hello(PROTOCOL_VERSION, role)))
    try:
        answer = await hear(stream, connection)
    except ProtocolError as error:
        await say(stream, connection.farewell(str(error)))
        raise SessionRefused(str(error)) from None
    if isinstance(answer, Goodbye):
        raise SessionRefused(answer.reason)


async def _welcome(stream: trio.abc.Stream, connection: Connection, next_epoch: Callable[[], Awaitable[int]]) -> None:
    try:
        greeting = await hear(stream, connection)
    except ProtocolError as error:
        await say(stream, connection.farewell(str(error)))
        raise SessionRefused(str(error)) from None
    if isinstance(greeting, Goodbye):
        raise SessionRefused(greeting.reason)
    await say(stream, connection.send(Welcome(PROTOCOL_VERSION, await next_epoch())))


async def hear(stream: trio.abc.Stream, connection: Connection) -> AnyMessage:
    """The next message. Raises ProtocolError, SessionRefused."""
    while (message := connection.next_event()) is None:
        try:
            content = await stream.receive_some(_READ)
        except trio.BrokenResourceError as error:
            raise SessionRefused(cut(error, "during the handshake")) from None
        if not content:
            raise SessionRefused("the connection was cut during the handshake")
        connection.receive_bytes(content)
    return message


async def say(stream: trio.abc.Stream, content: bytes) -> None:
    try:
        await stream.send_all(content)
    except trio.BrokenResourceError as error:
        raise SessionRefused(cut(error, "during the handshake")) from None


# ---- unix sockets


async def connect_unix(path: str) -> trio.SocketStream:
    """A stream to the coordinator that listens at `path`. Raises OSError (`wire.address.absence` words it)."""
    made = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(path) as name:
            await made.connect(name)
    except BaseException:
        made.close()
        raise
    return trio.SocketStream(made)


def listen_unix(path: str) -> trio.SocketListener:
    """A listener at `path`, for this uid alone; a socket file left by a dead process is replaced. Raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        with short_path(path) as name:
            made.bind(name)
        os.chmod(path, 0o600)  # nobody can connect before `listen`
        made.listen(1024)
    except BaseException:
        made.close()
        raise
    made.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(made))


def peer_uid(stream: trio.SocketStream) -> int:
    """Who connected, as the kernel knows it."""
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(credentials)[1]
    return uid
