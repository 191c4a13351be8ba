"""What people ask of the coordinator, and its answers: every request is answered by one Reply or Refused with the same
`request`."""

from __future__ import annotations

from typing import Any

from wire.vocabulary import Message, Phase, RefusalCode, Role

__all__ = [
    "FilesList", "FilesRead", "Finish", "IdentityList", "IdentityRevoke", "JobDelete", "JobList", "JobNodes",
    "JobShow", "JobTerminate", "JobWait", "LogRead", "NodeList", "NodeRevoke", "NodeShow", "Overview", "PoolList",
    "PoolShow", "Refused", "Reply", "Submit", "TaskList", "TaskShow", "TokenCreate", "TokenList", "TokenRevoke",
    "Upload",
]  # fmt: skip


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
