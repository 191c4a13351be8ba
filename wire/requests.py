"""What people ask of the coordinator, and its answers: every request is answered by one Reply or Refused with the same
`request`."""

from __future__ import annotations

from typing import Any

from wire.vocabulary import Disabling, Int64, Message, Phase, RefusalCode, Role, Unsuccess

__all__ = [
    "EventsRead", "Explain", "FilesList", "FilesRead", "Finish", "IdentityList", "IdentityRevoke", "JobDelete",
    "JobDisable", "JobEnable", "JobList", "JobNodes", "JobRetry", "JobSet", "JobShow", "JobTerminate", "JobWait",
    "LogRead", "NodeDrain", "NodeEnable", "NodeForget", "NodeList", "NodeRetryPrep", "NodeRevoke", "NodeShow",
    "Overview", "PoolList", "PoolShow", "Refused", "Reply", "ShellClose", "ShellOpen", "ShellRead", "ShellResize",
    "ShellWrite", "Submit", "TaskCancel", "TaskList", "TaskShow", "TokenCreate", "TokenList", "TokenRevoke", "Top",
    "Upload",
]  # fmt: skip


class Upload(Message, frozen=True, tag=True):
    """A piece of a document too large for a frame. The reply's body is `{"held": bytes so far}`; an upload of nothing
    asks only that, so an interrupted one resumes."""

    request: Int64
    digest: str
    offset: Int64
    size: Int64
    content: bytes


class Submit(Message, frozen=True, tag=True, kw_only=True):
    """Submit every job of a document, all or none. Body: `{"jobs": [{"id", "name"}]}`. The same submission id gives
    the same jobs. Exactly one of `document` and `digest` (an uploaded msgpack document) is set.

    `spans` maps `job/NAME`, `job/NAME/task/NAME`, `pool/NAME/OPTION` ... to `[line, column, end_line, end_column]`,
    so that refusals come back as diagnostics.

    `once`: the same submission id gives the same jobs while one of them is kept, each with `existing`; then new ones.
    `update_pool`: pools that live become as their blocks say, where these name an option (for their operators). The
    body has `pools` then: `[{"id", "created", "changed": [option], "removed": [option]}]`. A document may have no jobs:
    that is `pool apply`, and a pool whose block has no `start` there has none from then on."""

    request: Int64
    submission: str
    document: dict[str, Any] | None = None
    digest: str | None = None
    source: str = ""
    spans: dict[str, list[Int64]] = {}
    once: bool = False
    update_pool: bool = False


class JobList(Message, frozen=True, tag=True):
    """A page of all jobs, oldest first, from position `skip` on. Pages are as long as fits; an empty one is the end."""

    request: Int64
    skip: Int64 = 0


class JobShow(Message, frozen=True, tag=True):
    request: Int64
    job: str


class JobWait(Message, frozen=True, tag=True):
    """Answered (with what JobShow gives) when the job is over, or with `tasks` when its tasks are."""

    request: Int64
    job: str
    tasks: bool = False


class JobTerminate(Message, frozen=True, tag=True):
    """`force`: complete without waiting for nodes out of contact."""

    request: Int64
    job: str
    reason: str = "UserTerminate"
    force: bool = False


class JobDelete(Message, frozen=True, tag=True):
    """Answered when reachable nodes have removed the job's directories."""

    request: Int64
    job: str


class JobDisable(Message, frozen=True, tag=True):
    """Nothing of the job starts any more until it is enabled; `how`: what becomes of what runs. Answered at once, as
    JobShow is."""

    request: Int64
    job: str
    how: Disabling


class JobEnable(Message, frozen=True, tag=True):
    request: Int64
    job: str


class JobSet(Message, frozen=True, tag=True, kw_only=True):
    """Change a live job. None: as it is; `parallel` and `timeout_ms` of 0: no limit."""

    request: Int64
    job: str
    priority: Int64 | None = None
    parallel: Int64 | None = None
    timeout_ms: Int64 | None = None


class JobRetry(Message, frozen=True, tag=True):
    """Reopen a completed job: what did not succeed runs again, in a next round on each node. `which`: only what ended
    so (empty: all); `tasks`: only these, by name (empty: all). Skipped tasks that wait for what runs again may run too.
    Answered as JobShow is, with `retried`: how many tasks are active again."""

    request: Int64
    job: str
    which: list[Unsuccess] = []
    tasks: list[str] = []


class JobNodes(Message, frozen=True, tag=True):
    """A page, as JobList's."""

    request: Int64
    job: str
    skip: Int64 = 0


class TaskList(Message, frozen=True, tag=True):
    """A page of tasks in group and index order, after the task named `after`; an empty one is the end."""

    request: Int64
    job: str
    state: str | None = None
    group: str | None = None
    limit: Int64 = 1000
    after: str | None = None


class TaskShow(Message, frozen=True, tag=True):
    request: Int64
    task: str


class TaskCancel(Message, frozen=True, tag=True):
    """End one task as cancelled; a running one is stopped first. Answered at once, as TaskShow is."""

    request: Int64
    task: str


class Explain(Message, frozen=True, tag=True):
    """Why a task (`target` is JOB/TASK) or a job is as it is. Body: `{"id", "reason", "code", "all", "next", "nodes",
    "nodes_left_out", "story"}`."""

    request: Int64
    target: str


class NodeList(Message, frozen=True, tag=True):
    """A page, as JobList's."""

    request: Int64
    skip: Int64 = 0


class NodeShow(Message, frozen=True, tag=True):
    request: Int64
    node: str


class NodeDrain(Message, frozen=True, tag=True, kw_only=True):
    """Empty a node: it gets nothing new, gives back what has not started, and what still runs when `deadline_s` have
    passed is stopped and goes elsewhere. With `wait` answered when it is drained, or can't be just now; else at once.
    Without `deadline_s` an earlier drain goes on as it was. Body: as NodeShow's."""

    request: Int64
    node: str
    deadline_s: float | None = None
    reason: str = ""
    wait: bool = False


class NodeEnable(Message, frozen=True, tag=True):
    """The node may be given work again. Body: as NodeShow's."""

    request: Int64
    node: str


class NodeForget(Message, frozen=True, tag=True):
    """The machine of a lost node is off: what it held goes elsewhere at once, what it owes is waived. Body: as
    NodeShow's."""

    request: Int64
    node: str


class NodeRetryPrep(Message, frozen=True, tag=True):
    """A node that is barred for the job may prepare for it again. Body: a row of JobNodes'."""

    request: Int64
    node: str
    job: str


class PoolList(Message, frozen=True, tag=True):
    request: Int64


class PoolShow(Message, frozen=True, tag=True):
    request: Int64
    pool: str


class LogRead(Message, frozen=True, tag=True, kw_only=True):
    """A piece of a command's output: of a task (`task`), or of a phase (`job` or `node`, with `phase`).
    Body: `{"content": bytes, "size": Int64, "end": bool, "attempt", "node", "over", "last"}`: `over` when the attempt
    has ended, so that with `end` too this is all of it; `last` when no other attempt follows it. What comes from what
    was kept has `kept` and `why`, and where something was left out before `content`, `skipped` bytes.

    `follow`: answered when there is something from `offset` on, or the attempt has ended; now and then with nothing."""

    request: Int64
    task: str | None = None
    job: str | None = None
    node: str | None = None
    phase: Phase | None = None
    attempt: Int64 | None = None
    stderr: bool = False
    offset: Int64 = 0
    limit: Int64 = 262_144
    follow: bool = False


class FilesRead(Message, frozen=True, tag=True):
    """Body as LogRead's."""

    request: Int64
    node: str
    path: str
    offset: Int64 = 0
    limit: Int64 = 262_144


class FilesList(Message, frozen=True, tag=True):
    """Body: `{"entries": [{"name", "directory", "size", "changed_at"}], "truncated"}`."""

    request: Int64
    node: str
    path: str


class ShellOpen(Message, frozen=True, tag=True, kw_only=True):
    """A terminal where an attempt of a task ran (`task`), or the job's preparation on a node (`job`, `node`, `phase`):
    for the job's owner alone. Answered once it is there: `{"shell", "node", "directory"}`. It ends with this session,
    with the job's round on the node, and when nothing was typed for long."""

    request: Int64
    task: str | None = None
    job: str | None = None
    node: str | None = None
    phase: Phase | None = None
    attempt: Int64 | None = None
    columns: Int64 = 80
    rows: Int64 = 24
    term: str = "dumb"


class ShellRead(Message, frozen=True, tag=True):
    """Answered when the shell wrote something, or is over: `{"content": bytes, "ended": None | {"exit_code", "signal",
    "reason"}}`. With `ended` the shell is gone, and this was the last of it."""

    request: Int64
    shell: Int64


class ShellWrite(Message, frozen=True, tag=True):
    """What was typed. Body: `{"taken"}`, how many bytes of it were; the rest is to be sent again, later."""

    request: Int64
    shell: Int64
    content: bytes


class ShellResize(Message, frozen=True, tag=True):
    request: Int64
    shell: Int64
    columns: Int64
    rows: Int64


class ShellClose(Message, frozen=True, tag=True):
    """Nobody looks any more: what runs in it is killed."""

    request: Int64
    shell: Int64


class EventsRead(Message, frozen=True, tag=True):
    """The events after id `since`, in order, of all that may be looked at or of one job. Body: `{"events": [{"id",
    "time", "kind", "job", "task", "node", "round", "attempt", "data"}], "next", "end"}`: ask again with `since = next`;
    `end` is that nothing follows now. With `wait` an answer has an event at least, whenever it comes, unless the job
    was deleted."""

    request: Int64
    since: Int64 = 0
    job: str | None = None
    wait: bool = False


class Overview(Message, frozen=True, tag=True):
    """What `run` draws, in one answer: `{"changed", "jobs", "nodes"}`, of the jobs named (all if none). Each job has
    `node_states` (how many of its rounds are in each state) and `nodes`, without tails, empty like the other lists
    where there are more than 200. `changed` is the version last seen: answered at once if it differs from now, else
    on the next change."""

    request: Int64
    jobs: list[str] = []
    changed: Int64 = -1


class Top(Message, frozen=True, tag=True):
    """What `top` draws: `{"pools", "jobs": {"total", "live"}, "tasks", "nodes", "slots", "slots_used", "owed",
    "top_jobs", "top_nodes", "releases"}`, at most `rows` in each of the last three, those first that matter."""

    request: Int64
    rows: Int64 = 50


class Finish(Message, frozen=True, tag=True):
    """Terminate every job, release everywhere, then stop the coordinator (what `run` asks on Ctrl-C, and its
    daemons do by themselves when it dies). Admin only."""

    request: Int64
    reason: str = "UserTerminate"


class TokenCreate(Message, frozen=True, tag=True, kw_only=True):
    """A new token. The client makes the secret and keeps it: only `digest`, its sha256 in hex, travels and is stored.

    `name`: whom the identity will be (without it, a person is named after the token, a node names itself).
    `pool`: the only pool that a node with it may join. Body: `{"id", "role", "uses", "expires_at", "authority"}`, the
    last one the sha256 of the authority's certificate in hex. Refused where nothing listens on TLS."""

    request: Int64
    digest: str
    role: Role
    uses: Int64 = 1
    lifetime_s: float = 86_400.0
    name: str | None = None
    pool: str | None = None


class TokenList(Message, frozen=True, tag=True):
    """A page, as JobList's, of `{"id", "role", "name", "pool", "uses", "used", "created_by", "created_at",
    "expires_at", "state"}`, states `open used expired revoked`."""

    request: Int64
    skip: Int64 = 0


class TokenRevoke(Message, frozen=True, tag=True):
    """No further use; identities that it gave live on."""

    request: Int64
    token: str


class IdentityList(Message, frozen=True, tag=True):
    """A page, as JobList's, of `{"name", "role", "key", "pool", "since", "expires_at", "state"}`, states
    `valid expired revoked`."""

    request: Int64
    skip: Int64 = 0


class IdentityRevoke(Message, frozen=True, tag=True):
    """A person's certificates are void from now on, and so are their live connections. Body: `{"name", "keys",
    "tokens"}`, the last one the ids of the open tokens that admitted them and could admit more."""

    request: Int64
    name: str


class NodeRevoke(Message, frozen=True, tag=True):
    """The node's certificate is void and its connection cut; it is `left` at once, with the reason `revoked`. Body as
    IdentityRevoke's."""

    request: Int64
    node: str


# ---- coordinator -> client


class Reply(Message, frozen=True, tag=True):
    request: Int64
    body: Any


class Refused(Message, frozen=True, tag=True, kw_only=True):
    """Why not, in a sentence with a way out; `near` names the nearest that exist; `diagnostics` as `check` prints."""

    request: Int64
    code: RefusalCode
    message: str
    help: str | None = None
    near: list[str] = []
    diagnostics: list[dict[str, Any]] = []
