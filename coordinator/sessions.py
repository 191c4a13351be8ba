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


@dataclass(frozen=True, slots=True)
class Relay:
    """A request of `session` that waits for `node`; `kept` is the answer when the node has none."""

    session: int
    request: int
    node: str
    node_session: int
    kept: dict[str, object] | None = None
