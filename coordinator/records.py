"""What the coordinator must not forget: one type a durable fact, with the decision that was taken in it.

`Core.apply` folds them into the state; the store keeps them as rows `(scope, kind, body)` in the order they were made.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from coordinator.cuts import Cut
from wire.instant import Instant
from wire.messages import Disabling, Outcome, PhaseEnd, Role
from wire.spec import JobSpec, PoolSpec


class Verdict(enum.Enum):
    """What the end of an attempt means for its task."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # for good
    RETRY = "retry"  # again, not before `retry_at`; spends a retry
    LOST = "lost"  # again, spends none: the infrastructure failed
    DRAINED = "drained"  # again, spends none: its node was drained, or left
    REQUEUED = "requeued"  # again, spends none: it was stopped because its job was disabled
    CANCELLED = "cancelled"


class Returned(enum.Enum):
    """Why tasks of a grant came back without an end."""

    RECALLED = "recalled"  # never started, and never will: the attempt number was not used
    GONE = "gone"  # the node no longer holds them
    EXPIRED = "expired"  # the node's lease ran out
    ROUND_CLOSED = "round_closed"  # its round ended: cancelled
    DRAINED = "drained"  # its round ended because its node was drained: planned, spends no retry
    FORGOTTEN = "forgotten"  # an operator said that the machine is off


class JobState(enum.Enum):
    ACTIVE = "active"
    DISABLING = "disabling"
    DISABLED = "disabled"
    ENABLING = "enabling"
    TERMINATING = "terminating"
    COMPLETED = "completed"
    DELETING = "deleting"


class NodeJobState(enum.Enum):
    """A round of a job on a node. `ABSENT`: open and owing, but not prepared (in this boot)."""

    ABSENT = "absent"
    PREPARING = "preparing"
    PREPARED = "prepared"
    BARRED = "barred"
    RELEASING = "releasing"
    RELEASED = "released"
    RELEASE_FAILED = "release_failed"
    UNREACHED = "unreached"
    WAIVED = "waived"


class _Record(msgspec.Struct, frozen=True, array_like=True):
    """Base of durable facts."""


class PoolSet(_Record, frozen=True, tag=True):
    """A pool exists, with these options (None: default)."""

    pool: PoolSpec
    declared: bool = True
    """False: an agent named it; the first file that declares it sets its options."""
    at: Instant | None = None


class JobSubmitted(_Record, frozen=True, tag=True):
    job: str
    number: int
    submission: str
    owner: str
    spec: JobSpec
    source: str
    at: Instant


class NodeJoined(_Record, frozen=True, tag=True):
    """A node joined as something new: first time, other boot, other incarnation, other slots, other lease."""

    node: str
    pool: str
    incarnation: str
    boot: str
    slots: int
    at: Instant
    lease_s: float
    """The longest lease that it may count by: durable before it is told a longer one, shortened once it knows."""
    life: str = ""
    """The start of the agent that joined; the one before it is superseded and never comes back."""


class TokenMade(_Record, frozen=True, tag=True):
    """A token is good for `uses` identities until `until` (wall clock). Only the digest of its secret is known here."""

    digest: str
    role: Role
    uses: int
    name: str | None
    pool: str | None
    until: float
    by: str
    at: Instant


class TokenRevoked(_Record, frozen=True, tag=True):
    digest: str
    at: Instant


class IdentityAdmitted(_Record, frozen=True, tag=True):
    """This key is this identity, until `until` (wall clock); again with a later `until` when it was renewed: the
    older row is forgotten then. `token` is the digest of the one that was spent for it, `since` (wall clock) when."""

    key: str
    role: Role
    name: str
    pool: str | None
    token: str | None
    until: float
    since: float
    at: Instant


class IdentityRevoked(_Record, frozen=True, tag=True):
    """This key is nobody any more, whatever its certificate says."""

    key: str
    by: str
    at: Instant


class StartOrdered(_Record, frozen=True, tag=True):
    """The node is to run its pool's start, as number `number`, in this boot; what came of an earlier one is
    forgotten."""

    node: str
    number: int
    digest: str
    incarnation: str
    boot: str
    life: str
    at: Instant


class StartEnded(_Record, frozen=True, tag=True):
    """An attempt of a node's start ended; report `number` said so."""

    node: str
    incarnation: str
    number: int
    end: PhaseEnd
    at: Instant


class NodeLeft(_Record, frozen=True, tag=True):
    """A node that owed nothing went by itself, or its identity was revoked; joining again undoes it."""

    node: str
    at: Instant
    revoked: bool = False


class NodeMark(enum.Enum):
    """What an operator did to a node, and what came of it."""

    DRAIN = "drain"
    DRAINED = "drained"  # it holds nothing and owes nothing any more
    ENABLE = "enable"
    FORGET = "forget"  # the machine is off: what it held and owed is void


class NodeMarked(_Record, frozen=True, tag=True):
    """A node is to be emptied, was, may be given work again, or is forgotten. It outlives every session of the node."""

    node: str
    mark: NodeMark
    by: str
    at: Instant
    reason: str = ""
    until: Instant | None = None
    """For a drain: running tasks are stopped then."""


class RoundOpened(_Record, frozen=True, tag=True):
    """The node owes a release from here on; durable before the first frame that could cause it."""

    job: str
    node: str
    round: int
    boot: str
    at: Instant


class RoundMoved(_Record, frozen=True, tag=True):
    """A round's state changed for a reason other than a report."""

    job: str
    node: str
    round: int
    state: NodeJobState
    reason: str | None
    at: Instant
    unpayable: bool = False
    """The node's root was replaced: nothing there can pay this debt any more."""


class RoundVoided(_Record, frozen=True, tag=True):
    """The node never heard of this round: nothing was started, nothing is owed."""

    job: str
    node: str
    round: int
    at: Instant | None = None


class Granted(_Record, frozen=True, tag=True):
    """Tasks `first, first+step, ...` of a group were given to a node as attempt `attempt`; durable before the frame."""

    grant: int
    job: str
    node: str
    round: int
    group: int
    first: int
    count: int
    step: int
    attempt: int
    at: Instant


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """One attempt's end as it was judged."""

    grant: int
    position: int
    verdict: Verdict
    outcome: Outcome
    exit_code: int | None
    signal: int | None
    started_at: float
    ended_at: float
    cpu_s: float
    max_rss_bytes: int
    reason: str | None
    retry_at: Instant | None
    arm: int | None = None
    """The number of the arm of `exit` that decided, if one did."""
    group: int = -1
    """The task that it was, and its attempt, for those who read the log later: its grant may be long gone then."""
    index: int = -1
    attempt: int = 0


class ReportTaken(_Record, frozen=True, tag=True):
    """What a node's report says of one job, judged. Durable before its ack."""

    job: str
    node: str
    incarnation: str
    number: int
    tasks: list[Ended]
    phases: list[PhaseEnd]
    at: Instant


class TasksReturned(_Record, frozen=True, tag=True):
    job: str
    grant: int
    spans: list[tuple[int, int]]
    cause: Returned
    at: Instant
    node: str = ""
    """What the grant was, for those who read the log later: position `n` is task `first + n * step` of the group."""
    group: int = -1
    first: int = 0
    step: int = 1
    attempt: int = 0
    over: bool = False
    """Their job is ending: they are cancelled."""


class GroupSkipped(_Record, frozen=True, tag=True):
    """All tasks of a group whose condition can no longer come true."""

    job: str
    group: int
    reason: str
    at: Instant
    spans: Cut = []
    """Which those are, for those who read the log later."""


class JobMoved(_Record, frozen=True, tag=True):
    """The job is being disabled (`how`), is disabled, or goes on again."""

    job: str
    state: JobState
    how: Disabling | None
    by: str
    at: Instant


class JobChanged(_Record, frozen=True, tag=True):
    """What may be changed of a live job is this from now on."""

    job: str
    priority: int
    parallel: int | None
    timeout_ms: int | None
    by: str
    at: Instant


class TaskCancelled(_Record, frozen=True, tag=True):
    """Tasks `(first, count)` of a group are cancelled: `spans` at once, those `out` at a node when it lets them go."""

    job: str
    group: int
    spans: list[tuple[int, int]]
    out: list[tuple[int, int]]
    reason: str
    at: Instant


class JobReopened(_Record, frozen=True, tag=True):
    """A completed job is active again, and so are these tasks of it: (group, runs of (first, count))."""

    job: str
    tasks: list[tuple[int, list[tuple[int, int]]]]
    by: str
    at: Instant


class TasksSkipped(_Record, frozen=True, tag=True):
    """Tasks of a group whose own elements of another keep their condition from coming true: runs (first, count,
    step)."""

    job: str
    group: int
    runs: list[tuple[int, int, int]]
    reason: str
    at: Instant


class TasksDone(_Record, frozen=True, tag=True):
    """Every task of the job is over."""

    job: str
    at: Instant


class JobEnding(_Record, frozen=True, tag=True):
    """The job enters `terminating`; what was not over and not running is cancelled."""

    job: str
    reason: str
    forced: bool
    at: Instant
    cancelled: list[tuple[int, Cut]] = []
    """Which those are, for those who read the log later, by group."""


class JobCompleted(_Record, frozen=True, tag=True):
    job: str
    at: Instant


class EndCalled(_Record, frozen=True, tag=True):
    """What the job's `on_end` names was run, and ended so. `final`: it is not run again for this end of the job."""

    job: str
    attempt: int
    final: bool
    exit_code: int | None
    signal: int | None
    reason: str | None
    output: bytes
    """The end of what it wrote."""
    at: Instant
    retry_at: Instant | None = None


class ShellOpened(_Record, frozen=True, tag=True):
    """Somebody is let into a command's directory on a node; durable before the node is asked. `group` and `index` are
    of a task, below zero for the job's preparation. For those who read the log only."""

    job: str
    node: str
    round: int
    group: int
    index: int
    attempt: int
    shell: int
    by: str
    at: Instant


class ShellClosed(_Record, frozen=True, tag=True):
    """That shell is over. Without this the coordinator stopped before it was."""

    job: str
    node: str
    round: int
    shell: int
    by: str
    at: Instant


class JobDeleting(_Record, frozen=True, tag=True):
    job: str
    at: Instant


class JobDeleted(_Record, frozen=True, tag=True):
    """The job is gone; its rows go with it, but for what must outlive them: `debts`, (node, round) still owed by nodes
    out of contact, every job of its submission in order, and the last grant id given, which is never given again."""

    job: str
    name: str
    number: int
    submission: str
    debts: list[tuple[str, int]]
    siblings: list[str]
    last_grant: int
    owner: str = ""
    pool: str = ""
    at: Instant | None = None
    floor: int = 0
    """No job of a name that nothing else is known of had a higher number: what older records of this kind said, which
    this one takes the place of."""


class DebtPaid(_Record, frozen=True, tag=True):
    """A node settled a round of a deleted job."""

    job: str
    node: str
    round: int
    at: Instant | None = None


Record = (
    StartOrdered | StartEnded
    | PoolSet | TokenMade | TokenRevoked | IdentityAdmitted | IdentityRevoked | JobSubmitted | NodeJoined | NodeLeft
    | RoundOpened | RoundMoved | RoundVoided | Granted | ReportTaken | TasksReturned | GroupSkipped
    | TasksSkipped | TasksDone
    | JobEnding | JobCompleted | JobDeleting | JobDeleted | DebtPaid | NodeMarked
    | JobMoved | JobChanged | JobReopened | TaskCancelled | EndCalled
    | ShellOpened | ShellClosed
)  # fmt: skip

_DECODER: Final = msgspec.msgpack.Decoder(Record)
_ENCODER: Final = msgspec.msgpack.Encoder()
CLUSTER_SCOPE: Final = ""


def token_scope(digest: str) -> str:
    """The scope of a token's rows; no job has a name with a space."""
    return f"token {digest}"


def identity_scope(key: str) -> str:
    """The scope of a key's rows."""
    return f"key {key}"


def is_of_an_identity(scope: str) -> bool:
    """Whether these are a token's rows, or a key's."""
    return scope.startswith(("token ", "key "))


def is_of_a_job(scope: str) -> bool:
    """Whether these are a job's rows."""
    return scope != CLUSTER_SCOPE and " " not in scope


def deleted_scope(job: str) -> str:
    """The scope of what is remembered of a deleted job."""
    return f"deleted {job}"


def scopes_about(job: str) -> tuple[str, ...]:
    """Where rows about a job stand."""
    return (CLUSTER_SCOPE, job, deleted_scope(job))


def start_scope(node: str) -> str:
    """The scope of the rows of a node's start."""
    return f"start {node}"


def scope_of(record: Record) -> str:
    """What this row is forgotten with: its job, token or key, or the cluster (never)."""
    if isinstance(record, JobDeleted):
        return deleted_scope(record.job)
    if isinstance(record, DebtPaid):
        return CLUSTER_SCOPE
    if isinstance(record, StartOrdered | StartEnded):
        return start_scope(record.node)
    if isinstance(record, TokenMade | TokenRevoked):
        return token_scope(record.digest)
    if isinstance(record, IdentityAdmitted | IdentityRevoked):
        return identity_scope(record.key)
    return getattr(record, "job", CLUSTER_SCOPE)


def encode(record: Record) -> bytes:
    """The row's body."""
    return _ENCODER.encode(record)


def decode(body: bytes) -> Record:
    """Raises msgspec.DecodeError (or ValidationError) for what was never a record."""
    record: Record = _DECODER.decode(body)
    return record
