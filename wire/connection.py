"""One connection's rules, without a socket: bytes in, messages out, and what may be sent when.

    connection = Connection(Role.NODE)                      the opening side, in its role
    connection = Connection(Role.COORDINATOR, allowed=...)  the accepting side, and the roles this peer may take
    connection = Connection(Role.COORDINATOR, stranger=True)  ... a peer without an identity: one question, one answer

    socket.write(connection.send(Hello(PROTOCOL_VERSION, Role.NODE)))
    connection.receive_bytes(socket.read())
    while (message := connection.next_event()) is not None: ...

A ProtocolError from `next_event` is the end: say `farewell(reason)` and close.
"""

from __future__ import annotations

import enum
from typing import Final

from wire import codec, limits
from wire.codec import ProtocolError
from wire.messages import (
    PROTOCOL_VERSION,
    SENDERS,
    AnyMessage,
    AskAuthority,
    Authority,
    Enroll,
    Enrolled,
    Goodbye,
    Hello,
    Message,
    Role,
    Welcome,
)


class State(enum.Enum):
    """Where a connection is in its life."""

    SILENT = "silent"  # nothing was said
    GREETED = "greeted"  # Hello has passed, Welcome has not
    OPEN = "open"
    ASKING = "asking"  # AskAuthority has passed, Authority has not
    ENROLLING = "enrolling"  # Enroll has passed, Enrolled has not
    CLOSED = "closed"


class Way(enum.Enum):
    SENT = "sent"
    RECEIVED = "received"


Step = tuple[State, Way, type[Message]]

_OPENER: Final[dict[Step, State]] = {
    (State.SILENT, Way.SENT, Hello): State.GREETED,
    (State.SILENT, Way.SENT, Goodbye): State.CLOSED,
    (State.SILENT, Way.RECEIVED, Goodbye): State.CLOSED,
    (State.GREETED, Way.RECEIVED, Welcome): State.OPEN,
    (State.GREETED, Way.RECEIVED, Goodbye): State.CLOSED,
    (State.GREETED, Way.SENT, Goodbye): State.CLOSED,
    (State.OPEN, Way.SENT, Message): State.OPEN,
    (State.OPEN, Way.RECEIVED, Message): State.OPEN,
    (State.OPEN, Way.SENT, Goodbye): State.CLOSED,
    (State.OPEN, Way.RECEIVED, Goodbye): State.CLOSED,
    (State.SILENT, Way.SENT, AskAuthority): State.ASKING,
    (State.ASKING, Way.RECEIVED, Authority): State.CLOSED,
    (State.ASKING, Way.RECEIVED, Goodbye): State.CLOSED,
    (State.ASKING, Way.SENT, Goodbye): State.CLOSED,
    (State.SILENT, Way.SENT, Enroll): State.ENROLLING,
    (State.ENROLLING, Way.RECEIVED, Enrolled): State.CLOSED,
    (State.ENROLLING, Way.RECEIVED, Goodbye): State.CLOSED,
    (State.ENROLLING, Way.SENT, Goodbye): State.CLOSED,
}
_ACCEPTER: Final[dict[Step, State]] = {
    (State.SILENT, Way.RECEIVED, Hello): State.GREETED,
    (State.SILENT, Way.RECEIVED, Goodbye): State.CLOSED,
    (State.SILENT, Way.SENT, Goodbye): State.CLOSED,
    (State.GREETED, Way.SENT, Welcome): State.OPEN,
    (State.GREETED, Way.SENT, Goodbye): State.CLOSED,
    (State.GREETED, Way.RECEIVED, Goodbye): State.CLOSED,
    (State.OPEN, Way.SENT, Message): State.OPEN,
    (State.OPEN, Way.RECEIVED, Message): State.OPEN,
    (State.OPEN, Way.SENT, Goodbye): State.CLOSED,
    (State.OPEN, Way.RECEIVED, Goodbye): State.CLOSED,
    (State.SILENT, Way.RECEIVED, AskAuthority): State.ASKING,
    (State.ASKING, Way.SENT, Authority): State.CLOSED,
    (State.ASKING, Way.SENT, Goodbye): State.CLOSED,
    (State.ASKING, Way.RECEIVED, Goodbye): State.CLOSED,
    (State.SILENT, Way.RECEIVED, Enroll): State.ENROLLING,
    (State.ENROLLING, Way.SENT, Enrolled): State.CLOSED,
    (State.ENROLLING, Way.SENT, Goodbye): State.CLOSED,
    (State.ENROLLING, Way.RECEIVED, Goodbye): State.CLOSED,
}
TRANSITIONS: Final[dict[bool, dict[Step, State]]] = {True: _OPENER, False: _ACCEPTER}
"""By "is the opening side". `Message` stands for every kind that is not one of the opening's own."""

_QUESTIONS: Final = (AskAuthority, Enroll)
_OWN_ROW: Final = (Hello, Welcome, Goodbye, AskAuthority, Authority, Enroll, Enrolled)


_NO_IDENTITY: Final = (
    "this coordinator serves only those who prove who they are, and no certificate was shown: join or log in with a "
    "token first"
)
_NO_QUESTION: Final = (
    "a connection begins with Hello; certificates are asked for over TLS only, by those who have shown none"
)


class WrongSend(RuntimeError):
    """A mistake of this side: the message may not be sent now, or not in this role."""


class Connection:
    """The rules of one connection. Invariant: within an epoch every message is yielded once, in order."""

    def __init__(self, here: Role, *, allowed: frozenset[Role] = frozenset(), stranger: bool = False) -> None:
        """`stranger`: this peer has shown no certificate; whatever it may become, it is nobody yet."""
        self.here = here
        self.opener = here is not Role.COORDINATOR
        self.state = State.SILENT
        self.peer: Role | None = Role.COORDINATOR if self.opener else None
        self.epoch = 0
        self.stale = 0
        """Frames refused because they belong to another epoch: the first one ends the connection."""
        self.doubled = 0
        """Frames dropped because their sequence number was seen."""
        self.frame_size = 0
        """Bytes of the frame that the last message came in."""
        self._stranger = stranger
        self._allowed = frozenset() if stranger else allowed - {Role.COORDINATOR}
        self._table = TRANSITIONS[self.opener]
        self._sent = 0
        self._received = 0
        self._buffer = bytearray()

    # ---- in

    def receive_bytes(self, content: bytes | bytearray) -> None:
        """What the socket gave; follow it by `next_event` until that is None."""
        self._buffer += content

    def next_event(self) -> AnyMessage | None:
        """The next message, or None when more bytes are needed. Raises ProtocolError."""
        while (body := self._next_body()) is not None:
            message = self.receive_frame(body)
            if message is not None:
                return message
        return None

    @property
    def in_frame(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer)

    def _next_body(self) -> bytes | None:
        if self.state is State.CLOSED or len(self._buffer) < codec.HEADER.size:
            return None
        length = codec.body_length(bytes(self._buffer[: codec.HEADER.size]), self._limit)
        end = codec.HEADER.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[codec.HEADER.size : end])
        del self._buffer[:end]
        return body

    @property
    def _limit(self) -> int:
        return limits.MAX_FRAME if self.state is State.OPEN else limits.MAX_OPENING_FRAME

    def receive_frame(self, body: bytes) -> AnyMessage | None:
        """One whole frame's body: its message, or None when it was dropped. Raises ProtocolError."""
        if self.state is State.CLOSED:
            return None
        if len(body) > self._limit:
            raise ProtocolError(f"a frame of {len(body)} bytes is over the limit of {self._limit}")
        epoch, sequence, message = codec.decode_body(body)
        if sequence < self._received and epoch in (self.epoch, 0):
            self.doubled += 1
            return None
        if epoch != self.epoch:
            self.stale += 1
            raise ProtocolError(f"a frame of session {epoch} came in session {self.epoch}")
        if sequence > self._received:
            raise ProtocolError(f"frame {sequence} came where {self._received} was due")
        self._check_sender(message)
        following = self._step(Way.RECEIVED, message)
        if following is None:
            raise ProtocolError(f"a {type(message).__name__} may not come while the connection is {self.state.value}")
        self._received += 1
        self.frame_size = len(body)
        self._learn(message)
        self.state = following
        return message

    def _check_sender(self, message: AnyMessage) -> None:
        """By SENDERS: before Hello the peer may be any role that its identity allows."""
        peers = self._allowed if self.peer is None else {self.peer}
        if isinstance(message, Goodbye):
            return
        if not self.opener and self.state is State.SILENT and self._stranger is not isinstance(message, _QUESTIONS):
            raise ProtocolError(_NO_IDENTITY if self._stranger else _NO_QUESTION)
        if self._stranger:
            return
        if isinstance(message, Hello) and not self.opener:
            if message.version != PROTOCOL_VERSION:
                raise ProtocolError(
                    f"the peer speaks version {message.version} of the protocol, this coordinator version "
                    f"{PROTOCOL_VERSION}: install the same release on both sides"
                )
            if message.role not in self._allowed:
                raise ProtocolError(f"this identity may not act as {message.role.value} here")
            return
        if isinstance(message, Welcome) and self.opener and message.version != PROTOCOL_VERSION:
            raise ProtocolError(
                f"the coordinator speaks version {message.version} of the protocol, this program version "
                f"{PROTOCOL_VERSION}: install the same release on both sides"
            )
        if not SENDERS[type(message)] & peers:
            who = self.peer.value if self.peer else "this identity"
            raise ProtocolError(f"a {type(message).__name__} may not be sent by {who}")

    def _learn(self, message: AnyMessage) -> None:
        if isinstance(message, Hello):
            self.peer = message.role
        elif isinstance(message, Welcome):
            self.epoch = message.epoch

    # ---- out

    def send(self, message: AnyMessage) -> bytes:
        """The message as bytes for the socket. Raises WrongSend, FrameTooLarge."""
        return self.send_encoded(message, codec.encode_message(message))

    def send_encoded(self, message: AnyMessage, payload: bytes) -> bytes:
        """As `send`, of a message that was encoded before (a queue counts its bytes)."""
        if self.here not in SENDERS[type(message)]:
            raise WrongSend(f"a {type(message).__name__} may not be sent by {self.here.value}")
        following = self._step(Way.SENT, message)
        if following is None:
            raise WrongSend(f"a {type(message).__name__} may not be sent while the connection is {self.state.value}")
        content = codec.frame(self.epoch, self._sent, payload, self._limit)
        self._sent += 1
        if isinstance(message, Welcome):
            self.epoch = message.epoch
        self.state = following
        return content

    def farewell(self, reason: str, *, error: bool = True) -> bytes:
        """The last frame, or nothing when the connection is closed already."""
        if self.state is State.CLOSED:
            return b""
        return self.send(Goodbye(reason[:1000], error))

    def _step(self, way: Way, message: AnyMessage) -> State | None:
        kind = type(message) if isinstance(message, _OWN_ROW) else Message
        return self._table.get((self.state, way, kind))
