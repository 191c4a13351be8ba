"""The words that messages are made of: who speaks, what for, how things ended; and what every message is."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

__all__ = [
    "PROTOCOL_VERSION",
    "START_JOB",
    "Disabling",
    "Int64",
    "Message",
    "Outcome",
    "Phase",
    "RefusalCode",
    "Role",
    "RoundState",
    "Unsuccess",
]  # fmt: skip

PROTOCOL_VERSION: Final = 1

Int64 = Annotated[int, msgspec.Meta(le=2**63 - 1)]
"""Every number that travels: one of 64 bits without a sign is more than indices, seeks and databases take."""


class Role(enum.Enum):
    """Who stands at the other end. `COORDINATOR` is the daemon itself, seen from an agent or a client."""

    NODE = "node"
    USER = "user"
    OPERATOR = "operator"
    ADMIN = "admin"
    COORDINATOR = "coordinator"


class Phase(enum.Enum):
    START = "start"
    PREPARATION = "prep"
    RELEASE = "release"


START_JOB: Final = "startup"
"""What stands for the job in all that is said of a pool's start: no job is called so, as each has a number."""


class Outcome(enum.Enum):
    """How an attempt of a command ended, as the node knows it."""

    EXITED = "exited"  # by itself: exit code or signal say how
    TIMED_OUT = "timed_out"  # stopped by its own timeout
    START_FAILED = "start_failed"  # never ran: missing program, not executable, no directory ...
    LOST = "lost"  # its keeper or its machine died; nobody knows the status
    KILLED = "killed"  # stopped for a reason outside the command: its job ended, its lease ran out, it was dropped
    OOM = "oom"  # the kernel killed it for using more memory than it was given
    INPUT_FAILED = "input_failed"  # never ran: a file of its own could not be brought in


class RoundState(enum.Enum):
    """A round of a node job as the node holds it."""

    OPENED = "opened"
    PREPARING = "preparing"
    PREPARED = "prepared"
    BARRED = "barred"
    RELEASING = "releasing"
    RELEASED = "released"  # ran to its end (well or not), the report is not acked yet


class Unsuccess(enum.Enum):
    """How tasks ended that may be tried again when their job is over."""

    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class Disabling(enum.Enum):
    """What becomes of the running tasks of a job that is disabled."""

    REQUEUE = "requeue"  # stopped, and active again; spends no retry
    TERMINATE = "terminate"  # stopped: they failed
    WAIT = "wait"  # they run to their end


class RefusalCode(enum.Enum):
    """Why a request was refused; commands turn it into their exit status."""

    INVALID = "invalid"  # exit 2
    REFUSED = "refused"  # exit 3
    UNKNOWN = "unknown"  # exit 4: no such job, task, node or pool
    FAILED = "failed"  # exit 1


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of everything that travels; the tag is the class name."""
