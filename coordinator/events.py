"""What happens to the coordinator's core, and what it wants done: `Event` in, `Ready` out."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.records import Record
from coordinator.sessions import Lookup, OutputsSaid
from wire.messages import Message, Role


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A connection finished its handshake. `session` is its epoch: never used before in this state directory."""

    session: int
    role: Role
    owner: str
    """The person behind it: a user name, or `uid:N`; the name in the certificate of one that came over TLS."""
    key: str | None = None
    """The sha256 (hex) of the public key that it proved to hold (DER, SubjectPublicKeyInfo); None: the unix socket."""
    expires: float | None = None
    """When its certificate ends (wall clock): the session ends with it."""


@dataclass(frozen=True, slots=True)
class EnrollAsked:
    """A peer without a certificate wants one, for a token. Answered by `Ready.admitted` or `Ready.rejected`."""

    connection: int
    """A number of the shell's, for the answer; below zero, as no session's is."""
    token: str
    """The sha256 of the token's secret in hex; the secret itself goes no further than the shell."""
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class RenewAsked:
    """A session with a certificate wants its next one, of the same key (the shell has compared). Answered as
    EnrollAsked is, `connection` being the session."""

    session: int


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
class Stored:
    """A row of the log. The body of a JobSubmitted is not brought."""

    number: int
    scope: str
    kind: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class PageAsked:
    """Rows from number `first` on are to be read: of one job and the cluster, or of all."""

    reader: int
    first: int
    job: str | None


@dataclass(frozen=True, slots=True)
class PageRead:
    """What `PageAsked` found, or why it could not. `last` is the highest number that any row ever had."""

    reader: int
    rows: list[Stored]
    end: bool
    last: int
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class EndCall:
    """A job's `on_end` is to be run on this machine."""

    job: str
    attempt: int
    argv: list[str]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class EndCallOver:
    """What `EndCall` asked for was run. `output` is the end of what it wrote."""

    job: str
    exit_code: int | None
    signal: int | None
    reason: str | None
    output: bytes


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline passed, or just time."""


Event = (
    SessionOpened | Received | SessionClosed | EnrollAsked | RenewAsked | FinishAsked | StoreState | PageRead
    | EndCallOver | Tick
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Admitted:
    """Sign a certificate for this key, and send it: `Enrolled` and the end of a connection, `Renewed` in a session."""

    connection: int
    role: Role
    name: str
    key: str
    until: float
    """Wall clock."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Send a piece of an uploaded file to this session, as `BlobPiece`; or why there is none."""

    session: int
    job: str
    digest: str
    offset: int


@dataclass(slots=True)
class Ready:
    """All that the shell must do, in this order."""

    records: list[Record] = field(default_factory=list)
    """Committed in one transaction BEFORE anything below (but `at_once`) is done."""
    forget: list[str] = field(default_factory=list)
    """Scopes whose older rows go in the same transaction, before the new ones are added (`records.scope_of`)."""
    discard: list[int] = field(default_factory=list)
    """Sessions that may no longer hear what is on its way to them: it is dropped before the frames."""
    frames: list[tuple[int, Message]] = field(default_factory=list)
    """(session, message), to be sent in this order."""
    pieces: list[Serving] = field(default_factory=list)
    at_once: list[tuple[int, Message]] = field(default_factory=list)
    """Frames that promise nothing durable (heartbeats): sent even while the disk refuses commits."""
    admitted: list[Admitted] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    """Connections that asked to be enrolled, and why not, however often they ask."""
    postponed: list[tuple[int, str]] = field(default_factory=list)
    """Connections that asked to be enrolled and may ask again, and why not now."""
    pages: list[PageAsked] = field(default_factory=list)
    """Rows to be read for those who follow the events, with the records of this batch."""
    outputs: list[OutputsSaid] = field(default_factory=list)
    """To be kept beside the log; the node is answered by OutputsTaken then."""
    lookups: list[Lookup] = field(default_factory=list)
    """Requests to be answered from what was kept of outputs."""
    calls: list[EndCall] = field(default_factory=list)
    """Commands to be run on this machine, each answered by `EndCallOver`."""
    alarms: list[str] = field(default_factory=list)
    """What an administrator must see, in sentences: logged as errors."""
    close: list[tuple[int, str]] = field(default_factory=list)
    """Sessions to close after the frames, with the reason."""
    finished: bool = False
    """Asked to finish, and every job is over and every reachable node released: the daemon may stop."""

    def __bool__(self) -> bool:
        """Whether anything is left to do once `at_once` is sent."""
        return bool(
            self.records or self.forget or self.discard or self.frames or self.pieces or self.admitted or self.rejected
            or self.postponed or self.outputs or self.lookups or self.pages or self.calls or self.alarms or self.close
            or self.finished
        )  # fmt: skip
