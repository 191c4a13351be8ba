"""Live connections and requests that wait, as the core knows them: of this life only, never durable."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from coordinator.model import Node
from wire import messages as m


@dataclass(slots=True, eq=False)
class Session:
    """A live connection, as the core knows it."""

    epoch: int
    role: m.Role
    owner: str
    key: str | None = None
    """Of its certificate; None: it came over the unix socket."""
    expires: float | None = None
    """When its certificate ends (wall clock)."""
    node: Node | None = None


@dataclass(slots=True)
class Reader:
    """A request for events: all up to the id `since` was looked at."""

    session: int
    request: int
    job: str | None
    since: int
    wait: bool
    recorded: int = 0
    """So many records there were when its page was asked for: one more since then may be for it."""
    waiting: bool = False
    """For the next record; else for a page."""


class Until(enum.Enum):
    """What a waiting request waits for."""

    JOB_OVER = "job over"
    TASKS_OVER = "tasks over"
    JOB_GONE = "job gone"
    CHANGED = "changed"
    NODE_DRAINED = "node drained"


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that is answered later."""

    session: int
    request: int
    until: Until
    job: str = ""
    jobs: list[str] = field(default_factory=list)
    seen: int = -1
    node: str = ""


@dataclass(slots=True, eq=False)
class Follow:
    """A request for output that is answered when there is more. `relay`: the node that waits for it, if one does;
    `stands`: how the attempt stood when that was last looked at (None: look again)."""

    session: int
    message: m.LogRead
    relay: int | None = None
    stands: object = None


@dataclass(frozen=True, slots=True)
class Lookup:
    """A piece of an attempt's output, from what the coordinator kept of it."""

    job: str
    group: int
    index: int
    attempt: int
    stderr: bool
    offset: int
    limit: int
    said: dict[str, object]
    follow: bool
    """Who follows goes on with the next attempt, if this one's output is nowhere."""
    session: int = 0
    request: int = 0
    code: m.RefusalCode = m.RefusalCode.FAILED
    sentence: str = ""
    """Why it does not come from the node; the answer when nothing was kept."""


@dataclass(frozen=True, slots=True)
class KeptOutput:
    """What is to be kept of one attempt's output, of whose job."""

    job: str
    owner: str
    group: int
    index: int
    attempt: int
    stdout: m.KeptStream
    stderr: m.KeptStream


@dataclass(frozen=True, slots=True)
class OutputsSaid:
    """What a node said in this session: to be kept, then taken note of there."""

    session: int
    number: int
    outputs: list[KeptOutput]


@dataclass(slots=True, eq=False)
class Shell:
    """A debugging shell: a person's session on one side, a node's on the other."""

    number: int
    session: int
    by: str
    node: str
    node_session: int
    job: str
    round: int
    opening: int | None
    """The request that waits until it is open."""
    typed_at: float
    """When (boottime) it was opened, or something was typed last."""
    reading: int | None = None
    """The request that waits for output."""
    output: bytearray = field(default_factory=bytearray)
    coming: int = 0
    """Bytes of input on their way to its terminal."""
    size: tuple[int, int] = (0, 0)
    resized: tuple[int, int] | None = None
    """The size that the node was told, until it says that it has it."""
    ended: dict[str, object] | None = None
    """How, as the person is told."""
    watched: bool = True
    """The person has not been told its end, and has not left."""
    held: bool = True
    """The node has not said that it is over there."""
    closed: bool = False
    """The node was told to end it."""


Instead = dict[str, object] | Lookup
"""What is answered when the node can not: this, or what is found."""


@dataclass(frozen=True, slots=True)
class Relay:
    """A request of `session` that waits for `node`, for `limit` bytes at most; `said` goes into its answer."""

    session: int
    request: int
    node: str
    node_session: int
    limit: int
    said: dict[str, object] = field(default_factory=dict)
    instead: Instead | None = None
    follow: Follow | None = None
