"""What happens to the coordinator's core, and what it wants done: `Event` in, `Ready` out."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.records import Record
from wire.messages import Message, Role


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A connection finished its handshake. `session` is its epoch: never used before in this state directory."""

    session: int
    role: Role
    owner: str
    """The person behind it: a user name, or `uid:N`."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message the peer was entitled to send. An uploaded document arrives as a Submit that holds it."""

    session: int
    message: Message


@dataclass(frozen=True, slots=True)
class SessionClosed:
    session: int
    reason: str


@dataclass(frozen=True, slots=True)
class FinishAsked:
    """End every job, release everywhere, then say `finished` (the lifeline of `run` broke, or `Finish` was sent)."""

    reason: str


@dataclass(frozen=True, slots=True)
class StoreState:
    """The disk refused commits (`full`) or takes them again: meanwhile submissions are refused."""

    full: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline passed, or just time."""


Event = SessionOpened | Received | SessionClosed | FinishAsked | StoreState | Tick


@dataclass(slots=True)
class Ready:
    """All that the shell must do, in this order."""

    records: list[Record] = field(default_factory=list)
    """Committed in one transaction BEFORE anything below (but `at_once`) is done."""
    forget: list[str] = field(default_factory=list)
    """Scopes whose older rows go in the same transaction, before the new ones are added (`records.scope_of`)."""
    frames: list[tuple[int, Message]] = field(default_factory=list)
    """(session, message), to be sent in this order."""
    at_once: list[tuple[int, Message]] = field(default_factory=list)
    """Frames that promise nothing durable (heartbeats): sent even while the disk refuses commits."""
    close: list[tuple[int, str]] = field(default_factory=list)
    """Sessions to close after the frames, with the reason."""
    finished: bool = False
    """Asked to finish, and every job is over and every reachable node released: the daemon may stop."""

    def __bool__(self) -> bool:
        """Whether anything is left to do once `at_once` is sent."""
        return bool(self.records or self.forget or self.frames or self.close or self.finished)
