"""Every message that crosses a connection, one type each, and who may send it.

A frame is `[epoch, sequence, message]` (see `wire.connection`): frames of one session arrive in order or the session
ends, so all recovery lives in one place, the reconciliation after a join:

    agent        Join ->                      coordinator
                 <- Joined
                 Report* ->                   what was durable here and not acked yet
                 Inventory+ ->                what is held here; the last one has `last`
                 <- Drop, OpenRound, Prepare, Release ...    whatever differs from the coordinator's ledger

Until the last Inventory was taken a node is `joining` and gets no work. A grant the ledger holds and the inventory
does not is gone: its tasks are lost there and go elsewhere under a new attempt number, which is never used twice.
"""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

from wire.spec import JobSpec

PROTOCOL_VERSION: Final = 1


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


class Outcome(enum.Enum):
    """How an attempt of a command ended, as the node knows it."""

    EXITED = "exited"  # by itself: exit code or signal say how
    TIMED_OUT = "timed_out"  # stopped by its own timeout
    START_FAILED = "start_failed"  # never ran: missing program, not executable, no directory ...
    LOST = "lost"  # its keeper or its machine died; nobody knows the status
    KILLED = "killed"  # stopped for a reason outside the command: its job ended, its lease ran out, it was dropped
    OOM = "oom"  # the kernel killed it for using more memory than it was given


class RoundState(enum.Enum):
    """A round of a node job as the node holds it."""

    OPENED = "opened"
    PREPARING = "preparing"
    PREPARED = "prepared"
    BARRED = "barred"
    RELEASING = "releasing"
    RELEASED = "released"  # ran to its end (well or not), the report is not acked yet


class RefusalCode(enum.Enum):
    """Why a request was refused; commands turn it into their exit status."""

    INVALID = "invalid"  # exit 2
    REFUSED = "refused"  # exit 3
    UNKNOWN = "unknown"  # exit 4: no such job, task, node or pool
    FAILED = "failed"  # exit 1


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of everything that travels; the tag is the class name."""


# ---- opening a connection


class Hello(Message, frozen=True, tag=True):
    """First frame of every connection: the version spoken and the role asked for."""

    version: int
    role: Role


class Welcome(Message, frozen=True, tag=True):
    """The coordinator's answer: the session's epoch, never used before, on every later frame of this connection."""

    version: int
    epoch: int


class Goodbye(Message, frozen=True, tag=True):
    """The last frame before closing, with a reason for people. `error` tells a protocol error from a plain end."""

    reason: str
    error: bool = False


# ---- joining by proof: over TLS, before a peer has a certificate


class AskAuthority(Message, frozen=True, tag=True):
    """Instead of Hello, by a peer that knows only the digest of the authority (a join string holds it). Nothing secret
    may be said on this connection: the peer has not proven itself. Answered by Authority, which ends it."""


class Authority(Message, frozen=True, tag=True):
    """The authority's certificate (DER), public. Its sha256 is what a join string pins."""

    certificate: bytes


class Enroll(Message, frozen=True, tag=True):
    """Instead of Hello, over a connection whose server was verified: the token's secret for a certificate.

    `request` is a signing request (DER) of the key that will be this identity. `name`: the name asked for, of a node;
    people are named by their token. Answered by Enrolled, or by Goodbye; either ends the connection.
    """

    token: str
    request: bytes
    name: str = ""


class Enrolled(Message, frozen=True, tag=True):
    """The identity's certificate (DER), signed by the authority."""

    certificate: bytes
    role: Role
    name: str


class Renew(Message, frozen=True, tag=True):
    """In a session that was opened with a certificate: a new one for the same key, name and role. Answered by Renewed
    or, when the key is another, by Goodbye."""

    request: bytes


class Renewed(Message, frozen=True, tag=True):
    certificate: bytes


# ---- agent -> coordinator


class Join(Message, frozen=True, tag=True, kw_only=True):
    """What this node is. `incarnation` is the random id of its root directory, `boot` its boot identity."""

    pool: str
    node: str
    incarnation: str
    boot: str
    slots: int | None
    """None: as the pool says."""
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}
    elevation: bool = False
    containment: str = "subreaper"
    """`cgroup` or `subreaper`: what holds a job's processes together."""
    users: str = "same"
    """`job`: every job here runs as an unprivileged user of its own; `same`: as the agent's user."""
    limits: list[str] = []
    """What the kernel enforces of `needs` and against fork bombs: `pids`, `memory`, `cpu`."""
    version: str = ""
    embedded: bool = False
    life: str = ""
    """A random word for each start of the agent's process. One that was superseded never comes back: if it does, two
    agents live by one identity."""


class RoundHeld(msgspec.Struct, frozen=True, array_like=True):
    job: str
    round: int
    state: RoundState


class GrantHeld(msgspec.Struct, frozen=True, array_like=True):
    """A grant of which something is queued or alive here: `(first, count)` runs of positions within the grant."""

    grant: int
    spans: list[tuple[int, int]]


class Inventory(Message, frozen=True, tag=True):
    """All that is held on the node, in pieces that fit a frame. Sent once per session, after the unacked reports."""

    rounds: list[RoundHeld]
    grants: list[GrantHeld]
    last: bool


class Heartbeat(Message, frozen=True, tag=True):
    """Sent every third of the lease at most; the lease counts from the sending of an acknowledged one."""

    beat: int


class TaskEnd(msgspec.Struct, frozen=True, array_like=True):
    """The end of one attempt of a task. `position` counts within the grant; times are the node's wall clock."""

    grant: int
    position: int
    outcome: Outcome
    exit_code: int | None
    signal: int | None
    started_at: float
    ended_at: float
    cpu_s: float
    max_rss_bytes: int
    reason: str | None = None


class Cleanliness(msgspec.Struct, frozen=True, array_like=True):
    """What was left of a job on a node after its release and the agent's clean-up; all empty: nothing."""

    processes: int = 0
    files: list[str] = []
    """In sentences: what could not be removed, and the job's files in `shared/` that could not be taken over."""
    uid: int | None = None
    """The job's user here, when it may not be given to another job yet (quarantined: something of it is left)."""
    cgroups: list[str] = []
    mounts: list[str] = []


class PhaseEnd(msgspec.Struct, frozen=True, array_like=True):
    """The end of one attempt of a node-bound command. `final`: no further attempt follows by itself.

    For a release without a block the agent's own clean-up is reported: EXITED with `exit_code` None.
    `clean` stands in the final end of a release: what the clean-up after it left.
    """

    job: str
    round: int
    phase: Phase
    attempt: int
    final: bool
    succeeded: bool
    outcome: Outcome
    exit_code: int | None
    signal: int | None
    started_at: float
    ended_at: float
    reason: str | None
    stdout_tail: bytes
    stderr_tail: bytes
    leftovers: list[str] = []
    """As `clean.files`, of what agents before version 0.2 reported."""
    clean: Cleanliness | None = None


class Report(Message, frozen=True, tag=True):
    """Ends, durable on the node before they are sent and kept there until acked. `number` increases by one a report
    over all sessions of an incarnation; a number already taken is acked again and otherwise ignored."""

    number: int
    tasks: list[TaskEnd]
    phases: list[PhaseEnd]


class Started(Message, frozen=True, tag=True):
    """What has been running for a while (for people only; short tasks never appear): (grant, position, wall time)."""

    tasks: list[tuple[int, int, float]]


class PhaseStarted(Message, frozen=True, tag=True):
    """An attempt of a node-bound command began (for people only)."""

    job: str
    round: int
    phase: Phase
    attempt: int
    at: float


class Recalled(Message, frozen=True, tag=True):
    """Positions of a grant that never started here and never will: the answer to Recall, or said unasked when a
    preparation failed for good or the grant could not be held. Only this frees them."""

    grant: int
    spans: list[tuple[int, int]]


class NotHeld(Message, frozen=True, tag=True):
    """The answer to Prepare or Release for a round this node never opened: nothing is owed here."""

    job: str
    round: int


class Removed(Message, frozen=True, tag=True):
    """All directories of a deleted job are gone from the node."""

    job: str


class Leaving(Message, frozen=True, tag=True):
    """The node wants to leave clean: no new work, its rounds released; answered by Depart when nothing is owed."""


class FileContents(Message, frozen=True, tag=True):
    """The answer to ReadFile: bytes from the asked offset; `end` when the file has no more just now."""

    request: int
    content: bytes
    size: int
    end: bool


class FileListing(Message, frozen=True, tag=True):
    """The answer to ListFiles: (name, is_directory, size, wall time of change), names sorted."""

    request: int
    entries: list[tuple[str, bool, int, float]]
    truncated: bool = False


class FileRefused(Message, frozen=True, tag=True):
    """The answer to ReadFile or ListFiles that could not be served, in words."""

    request: int
    reason: str
    missing: bool = False


# ---- coordinator -> agent


class Joined(Message, frozen=True, tag=True, kw_only=True):
    """The node is known. `lease_s` from the sending of an acknowledged heartbeat (the Join counts as the first)."""

    heartbeat_s: float
    lease_s: float
    slots: int


class JoinRefused(Message, frozen=True, tag=True):
    """This node may not join as it is; the agent says why and ends. `revoked`: what it needs is a new token."""

    reason: str
    revoked: bool = False


class HeartbeatAck(Message, frozen=True, tag=True):
    beat: int


class Ack(Message, frozen=True, tag=True):
    """All reports up to `number` are durable here; the node may forget them."""

    number: int


class JobBody(msgspec.Struct, frozen=True):
    """All that a node needs of a job: durable there with the round, so that the debt can be paid without us."""

    job: str
    owner: str
    spec: JobSpec


class BodyChunk(Message, frozen=True, tag=True):
    """A piece of a JobBody (msgpack) too large for OpenRound, sent before it, in order; `digest`: its sha256 in hex."""

    digest: str
    offset: int
    size: int
    content: bytes


class OpenRound(Message, frozen=True, tag=True, kw_only=True):
    """A round of this job begins here: record the debt. Exactly one of `body` and `digest` unless the job is held."""

    job: str
    round: int
    body: bytes | None = None
    digest: str | None = None


class Prepare(Message, frozen=True, tag=True):
    """Run the job's preparation, with its retries, unless it runs or has succeeded in this boot. Single-flight."""

    job: str
    round: int


class Run(Message, frozen=True, tag=True, kw_only=True):
    """A grant: run tasks `first, first+step, ...` (`count` of them) of group `group`, all as attempt `attempt`.

    Runs in order of arrival as slots come free; not before the round's preparation succeeded, if the job waits for
    it; dropped and answered by Recalled if that fails for good. `ahead`: beyond the slots that were free.
    """

    grant: int
    job: str
    round: int
    group: int
    first: int
    count: int
    step: int
    attempt: int


class Recall(Message, frozen=True, tag=True):
    """Give back what of this grant has not started; answered by Recalled, also when that is nothing."""

    grant: int


class Drop(Message, frozen=True, tag=True):
    """These grants are void: kill what runs of them, forget the rest, report nothing."""

    grants: list[int]


class ReleaseRound(Message, frozen=True, tag=True):
    """The round ends: kill all of the job here, then run its release with its retries, then clean up and report."""

    job: str
    round: int
    reason: str


class RemoveJob(Message, frozen=True, tag=True):
    """Remove all that is kept of a deleted job, now; answered by Removed (after the release, if one is owed)."""

    job: str


class Depart(Message, frozen=True, tag=True):
    """Nothing is owed by this node; it may end."""


class ReadFile(Message, frozen=True, tag=True):
    """Read at most `limit` bytes of a regular file below the root; one request at a time is the credit."""

    request: int
    path: str
    offset: int
    limit: int
    """A negative offset counts from the end."""


class ListFiles(Message, frozen=True, tag=True):
    request: int
    path: str


# ---- clients -> coordinator. Every request is answered by one Reply or Refused with the same `request`.


class Upload(Message, frozen=True, tag=True):
    """A piece of a document too large for a frame. The reply's body is `{"held": bytes so far}`; an upload of nothing
    asks only that, so an interrupted one resumes."""

    request: int
    digest: str
    offset: int
    size: int
    content: bytes


class Submit(Message, frozen=True, tag=True, kw_only=True):
    """Submit every job of a document, all or none. Body: `{"jobs": [{"id", "name"}]}`. The same submission id gives
    the same jobs. Exactly one of `document` and `digest` (an uploaded msgpack document) is set.

    `spans` maps `job/NAME`, `job/NAME/task/NAME`, `pool/NAME/OPTION` ... to `[line, column, end_line, end_column]`,
    so that refusals come back as diagnostics."""

    request: int
    submission: str
    document: dict[str, Any] | None = None
    digest: str | None = None
    source: str = ""
    spans: dict[str, list[int]] = {}


class JobList(Message, frozen=True, tag=True):
    """A page of all jobs, oldest first, from position `skip` on. Pages are as long as fits; an empty one is the end."""

    request: int
    skip: int = 0


class JobShow(Message, frozen=True, tag=True):
    request: int
    job: str


class JobWait(Message, frozen=True, tag=True):
    """Answered (with what JobShow gives) when the job is over, or with `tasks` when its tasks are."""

    request: int
    job: str
    tasks: bool = False


class JobTerminate(Message, frozen=True, tag=True):
    """`force`: complete without waiting for nodes out of contact."""

    request: int
    job: str
    reason: str = "UserTerminate"
    force: bool = False


class JobDelete(Message, frozen=True, tag=True):
    """Answered when reachable nodes have removed the job's directories."""

    request: int
    job: str


class JobNodes(Message, frozen=True, tag=True):
    """A page, as JobList's."""

    request: int
    job: str
    skip: int = 0


class TaskList(Message, frozen=True, tag=True):
    """A page of tasks in group and index order, after the task named `after`; an empty one is the end."""

    request: int
    job: str
    state: str | None = None
    group: str | None = None
    limit: int = 1000
    after: str | None = None


class TaskShow(Message, frozen=True, tag=True):
    request: int
    task: str


class NodeList(Message, frozen=True, tag=True):
    """A page, as JobList's."""

    request: int
    skip: int = 0


class NodeShow(Message, frozen=True, tag=True):
    request: int
    node: str


class PoolList(Message, frozen=True, tag=True):
    request: int


class PoolShow(Message, frozen=True, tag=True):
    request: int
    pool: str


class LogRead(Message, frozen=True, tag=True, kw_only=True):
    """A piece of a command's output: of a task (`task`), or of a phase (`job` or `node`, with `phase`).
    Body: `{"content": bytes, "size": int, "end": bool}`."""

    request: int
    task: str | None = None
    job: str | None = None
    node: str | None = None
    phase: Phase | None = None
    attempt: int | None = None
    stderr: bool = False
    offset: int = 0
    limit: int = 262_144


class FilesRead(Message, frozen=True, tag=True):
    """Body as LogRead's."""

    request: int
    node: str
    path: str
    offset: int = 0
    limit: int = 262_144


class FilesList(Message, frozen=True, tag=True):
    """Body: `{"entries": [{"name", "directory", "size", "changed_at"}], "truncated"}`."""

    request: int
    node: str
    path: str


class Overview(Message, frozen=True, tag=True):
    """What `run` draws, in one answer: `{"changed", "jobs", "nodes"}`, of the jobs named (all if none). Each job has
    `node_states` (how many of its rounds are in each state) and `nodes`, without tails, empty like the other lists
    where there are more than 200. `changed` is the version last seen: answered at once if it differs from now, else
    on the next change."""

    request: int
    jobs: list[str] = []
    changed: int = -1


class Finish(Message, frozen=True, tag=True):
    """Terminate every job, release everywhere, then stop the coordinator (what `run` asks on Ctrl-C, and its
    daemons do by themselves when it dies). Admin only."""

    request: int
    reason: str = "UserTerminate"


class TokenCreate(Message, frozen=True, tag=True, kw_only=True):
    """A new token. The client makes the secret and keeps it: only `digest`, its sha256 in hex, travels and is stored.

    `name`: whom the identity will be (without it, a person is named after the token, a node names itself).
    `pool`: the only pool that a node with it may join. Body: `{"id", "role", "uses", "expires_at", "authority"}`, the
    last one the sha256 of the authority's certificate in hex. Refused where nothing listens on TLS."""

    request: int
    digest: str
    role: Role
    uses: int = 1
    lifetime_s: float = 86_400.0
    name: str | None = None
    pool: str | None = None


class TokenList(Message, frozen=True, tag=True):
    """A page, as JobList's, of `{"id", "role", "name", "pool", "uses", "used", "created_by", "created_at",
    "expires_at", "state"}`, states `open used expired revoked`."""

    request: int
    skip: int = 0


class TokenRevoke(Message, frozen=True, tag=True):
    """No further use; identities that it gave live on."""

    request: int
    token: str


class IdentityList(Message, frozen=True, tag=True):
    """A page, as JobList's, of `{"name", "role", "key", "pool", "since", "expires_at", "state"}`, states
    `valid expired revoked`."""

    request: int
    skip: int = 0


class IdentityRevoke(Message, frozen=True, tag=True):
    """A person's certificates are void from now on, and so are their live connections. Body: `{"name", "keys",
    "tokens"}`, the last one the ids of the open tokens that admitted them and could admit more."""

    request: int
    name: str


class NodeRevoke(Message, frozen=True, tag=True):
    """The node's certificate is void and its connection cut; it is `left` at once, with the reason `revoked`. Body as
    IdentityRevoke's."""

    request: int
    node: str


# ---- coordinator -> client


class Reply(Message, frozen=True, tag=True):
    request: int
    body: Any


class Refused(Message, frozen=True, tag=True, kw_only=True):
    """Why not, in a sentence with a way out; `near` names the nearest that exist; `diagnostics` as `check` prints."""

    request: int
    code: RefusalCode
    message: str
    help: str | None = None
    near: list[str] = []
    diagnostics: list[dict[str, Any]] = []


FromNode = (
    Join | Inventory | Heartbeat | Report | Started | PhaseStarted | Recalled | NotHeld | Removed | Leaving
    | FileContents | FileListing | FileRefused
)  # fmt: skip
Enrolling = AskAuthority | Authority | Enroll | Enrolled
Renewal = Renew | Renewed
ToNode = (
    Joined | JoinRefused | HeartbeatAck | Ack | BodyChunk | OpenRound | Prepare | Run | Recall | Drop | ReleaseRound
    | RemoveJob | Depart | ReadFile | ListFiles
)  # fmt: skip
FromClient = (
    Upload | Submit | JobList | JobShow | JobWait | JobTerminate | JobDelete | JobNodes | TaskList | TaskShow
    | NodeList | NodeShow | PoolList | PoolShow | LogRead | FilesRead | FilesList | Overview | Finish
    | TokenCreate | TokenList | TokenRevoke | IdentityList | IdentityRevoke | NodeRevoke
)  # fmt: skip
ToClient = Reply | Refused
Opening = Hello | Welcome | Goodbye
AnyMessage = FromNode | ToNode | FromClient | ToClient | Opening | Enrolling | Renewal

_NODE: Final = frozenset({Role.NODE})
_PEOPLE: Final = frozenset({Role.USER, Role.OPERATOR, Role.ADMIN})
_OPERATORS: Final = frozenset({Role.OPERATOR, Role.ADMIN})
_ADMIN: Final = frozenset({Role.ADMIN})
_COORDINATOR: Final = frozenset({Role.COORDINATOR})
_ANYONE: Final = frozenset(Role)

SENDERS: Final[dict[type[Message], frozenset[Role]]] = {
    **dict.fromkeys(FromNode.__args__, _NODE),
    **dict.fromkeys(ToNode.__args__, _COORDINATOR),
    **dict.fromkeys(FromClient.__args__, _PEOPLE),
    **dict.fromkeys(ToClient.__args__, _COORDINATOR),
    **dict.fromkeys((Finish, TokenCreate, TokenList, TokenRevoke, IdentityList, IdentityRevoke), _ADMIN),
    NodeRevoke: _OPERATORS,
    **dict.fromkeys((AskAuthority, Enroll, Renew), _ANYONE - _COORDINATOR),
    **dict.fromkeys((Authority, Enrolled, Renewed), _COORDINATOR),
    Hello: _ANYONE - _COORDINATOR,
    Welcome: _COORDINATOR,
    Goodbye: _ANYONE,
}
"""The closed table of who may send what; `wire.connection` refuses the rest (tests go through every pair)."""
