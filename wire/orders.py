"""What agents and the coordinator say to each other: joining, orders, and how they ended."""

from __future__ import annotations

from typing import Final

import msgspec

from wire.spec import Command, JobSpec
from wire.vocabulary import Int64, Message, Outcome, Phase, RoundState

__all__ = [
    "NOTHING_WRITTEN", "Ack", "BlobPiece", "BlobWanted", "BodyChunk", "Cleanliness", "CloseShell", "Depart", "Drop",
    "FileContents", "FileListing", "FileRefused", "GrantHeld", "Health", "Heartbeat", "HeartbeatAck", "Inventory",
    "JobBody", "Join", "JoinRefused", "Joined", "KeptStream", "Leaving", "ListFiles", "NotHeld", "OpenRound",
    "OpenShell", "OutputsTaken", "PhaseEnd", "PhaseStarted", "Prepare", "ReadFile", "Recall", "Recalled",
    "ReleaseRound", "RemoveJob", "Removed", "Report", "RoundHeld", "Run", "ShellEnded", "ShellInput", "ShellOpened",
    "ShellOutput", "ShellSize", "ShellTaken", "ShellWritten", "StartBody", "StartHeld", "StartNode", "Started",
    "StopTasks", "TaskEnd", "TaskOutput", "TaskOutputs",
]  # fmt: skip


# ---- agent -> coordinator


class Join(Message, frozen=True, tag=True, kw_only=True):
    """What this node is. `incarnation` is the random id of its root directory, `boot` its boot identity."""

    pool: str
    node: str
    incarnation: str
    boot: str
    slots: Int64 | None
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
    round: Int64
    state: RoundState


class GrantHeld(msgspec.Struct, frozen=True, array_like=True):
    """A grant of which something is queued or alive here: `(first, count)` runs of positions within the grant."""

    grant: Int64
    spans: list[tuple[Int64, Int64]]


class StartHeld(msgspec.Struct, frozen=True, array_like=True):
    """The start that the node was given last: `OPENED` when it has to be given again, as after a reboot."""

    number: Int64
    digest: str
    state: RoundState


class Inventory(Message, frozen=True, tag=True):
    """All that is held on the node, in pieces that fit a frame. Sent once per session, after the unacked reports."""

    rounds: list[RoundHeld]
    grants: list[GrantHeld]
    last: bool
    start: StartHeld | None = None
    """In the last piece."""


class Heartbeat(Message, frozen=True, tag=True):
    """Sent every third of the lease at most; the lease counts from the sending of an acknowledged one."""

    beat: Int64


class Health(Message, frozen=True, tag=True):
    """Whether the node can do work: why not (it takes nothing new, what runs goes on), or None. Said on a change, and
    after a join where there is something to say. `stuck`: jobs of which a process here can't be killed."""

    reason: str | None
    stuck: list[str] = []


class TaskEnd(msgspec.Struct, frozen=True, array_like=True):
    """The end of one attempt of a task. `position` counts within the grant; times are the node's wall clock."""

    grant: Int64
    position: Int64
    outcome: Outcome
    exit_code: Int64 | None
    signal: Int64 | None
    started_at: float
    ended_at: float
    cpu_s: float
    max_rss_bytes: Int64
    reason: str | None = None


class Cleanliness(msgspec.Struct, frozen=True, array_like=True):
    """What was left of a job on a node after its release and the agent's clean-up; all empty: nothing."""

    processes: Int64 = 0
    files: list[str] = []
    """In sentences: what could not be removed, and the job's files in `shared/` that could not be taken over."""
    uid: Int64 | None = None
    """The job's user here, when it may not be given to another job yet (quarantined: something of it is left)."""
    cgroups: list[str] = []
    mounts: list[str] = []


class PhaseEnd(msgspec.Struct, frozen=True, array_like=True):
    """The end of one attempt of a node-bound command. `final`: no further attempt follows by itself.

    Of a start, `round` is the number that StartNode gave it and `job` is `START_JOB`.
    For a release without a block the agent's own clean-up is reported: EXITED with `exit_code` None.
    `clean` stands in the final end of a release: what the clean-up after it left.
    """

    job: str
    round: Int64
    phase: Phase
    attempt: Int64
    final: bool
    succeeded: bool
    outcome: Outcome
    exit_code: Int64 | None
    signal: Int64 | None
    started_at: float
    ended_at: float
    reason: str | None
    stdout_tail: bytes
    stderr_tail: bytes
    leftovers: list[str] = []
    """As `clean.files`, of what agents before version 0.2 reported."""
    clean: Cleanliness | None = None
    stdout_size: Int64 | None = None
    """Bytes of all of it; None: an earlier agent did not say."""
    stderr_size: Int64 | None = None


class Report(Message, frozen=True, tag=True):
    """Ends, durable on the node before they are sent and kept there until acked. `number` increases by one a report
    over all sessions of an incarnation; a number already taken is acked again and otherwise ignored."""

    number: Int64
    tasks: list[TaskEnd]
    phases: list[PhaseEnd]


class KeptStream(msgspec.Struct, frozen=True, array_like=True):
    """The beginning and the end of one output; `size` is all of it, so what is between is known too."""

    size: Int64
    head: bytes
    tail: bytes


NOTHING_WRITTEN: Final = KeptStream(0, b"", b"")


class TaskOutput(msgspec.Struct, frozen=True, array_like=True):
    """Of one attempt of a task that ended on the node that says so."""

    job: str
    group: Int64
    index: Int64
    attempt: Int64
    stdout: KeptStream
    stderr: KeptStream


class TaskOutputs(Message, frozen=True, tag=True):
    """What failed tasks wrote (and succeeded ones, if the node is to), after the report of their ends was acked, to be
    kept. Answered by OutputsTaken; one at a time, and said again in the next session if that did not come."""

    number: Int64
    outputs: list[TaskOutput]


class Started(Message, frozen=True, tag=True):
    """What has been running for a while (for people only; short tasks never appear): (grant, position, wall time)."""

    tasks: list[tuple[Int64, Int64, float]]


class PhaseStarted(Message, frozen=True, tag=True):
    """An attempt of a node-bound command began (for people only)."""

    job: str
    round: Int64
    phase: Phase
    attempt: Int64
    at: float


class Recalled(Message, frozen=True, tag=True):
    """Positions of a grant that never started here and never will: the answer to Recall, or said unasked when a
    preparation failed for good or the grant could not be held. Only this frees them."""

    grant: Int64
    spans: list[tuple[Int64, Int64]]


class NotHeld(Message, frozen=True, tag=True):
    """The answer to Prepare or Release for a round this node never opened: nothing is owed here."""

    job: str
    round: Int64


class Removed(Message, frozen=True, tag=True):
    """All directories of a deleted job are gone from the node."""

    job: str


class Leaving(Message, frozen=True, tag=True):
    """The node wants to leave clean: no new work, its rounds released; answered by Depart when nothing is owed."""


class FileContents(Message, frozen=True, tag=True):
    """The answer to ReadFile: bytes from the asked offset; `end` when the file has no more just now."""

    request: Int64
    content: bytes
    size: Int64
    end: bool


class FileListing(Message, frozen=True, tag=True):
    """The answer to ListFiles: (name, is_directory, size, wall time of change), names sorted."""

    request: Int64
    entries: list[tuple[str, bool, Int64, float]]
    truncated: bool = False


class FileRefused(Message, frozen=True, tag=True):
    """The answer to ReadFile or ListFiles that could not be served, in words."""

    request: Int64
    reason: str
    missing: bool = False


class BlobWanted(Message, frozen=True, tag=True):
    """The next piece of a file that commands of this job bring in, from `offset` on; answered by BlobPiece. A node
    asks for one at a time, and goes on where it was after a break."""

    job: str
    digest: str
    offset: Int64


class ShellOpened(Message, frozen=True, tag=True):
    """The shell runs, in this directory."""

    shell: Int64
    directory: str


class ShellOutput(Message, frozen=True, tag=True):
    """What a shell wrote, in order; no more than was taken before plus 64 KiB is ever on its way."""

    shell: Int64
    content: bytes


class ShellWritten(Message, frozen=True, tag=True):
    """So many bytes of input have reached a shell's terminal: as many more may come. 0: it has the size it was told."""

    shell: Int64
    count: Int64


class ShellEnded(Message, frozen=True, tag=True):
    """The shell is over, or never was; all that it wrote has been sent. `reason`: why, if it did not end by itself."""

    shell: Int64
    exit_code: Int64 | None = None
    signal: Int64 | None = None
    reason: str | None = None


# ---- coordinator -> agent


class Joined(Message, frozen=True, tag=True, kw_only=True):
    """The node is known. `lease_s` from the sending of an acknowledged heartbeat (the Join counts as the first)."""

    heartbeat_s: float
    lease_s: float
    slots: Int64


class JoinRefused(Message, frozen=True, tag=True):
    """This node may not join as it is; the agent says why and ends. `revoked`: what it needs is a new token."""

    reason: str
    revoked: bool = False


class HeartbeatAck(Message, frozen=True, tag=True):
    beat: Int64


class Ack(Message, frozen=True, tag=True):
    """All reports up to `number` are durable here; the node may forget them."""

    number: Int64


class OutputsTaken(Message, frozen=True, tag=True):
    """What TaskOutputs of this number said is kept, as far as it is to be."""

    number: Int64


class JobBody(msgspec.Struct, frozen=True):
    """All that a node needs of a job: durable there with the round, so that the debt can be paid without us."""

    job: str
    owner: str
    spec: JobSpec


class BodyChunk(Message, frozen=True, tag=True):
    """A piece of a JobBody (msgpack) too large for OpenRound, sent before it, in order; `digest`: its sha256 in hex."""

    digest: str
    offset: Int64
    size: Int64
    content: bytes


class StartBody(msgspec.Struct, frozen=True):
    """A pool's start, as nodes are given it."""

    pool: str
    command: Command


class StartNode(Message, frozen=True, tag=True, kw_only=True):
    """Run the pool's start, with its retries, before anything else begins here: the StartBody (msgpack) whose sha256
    in hex is `digest`, sent before in pieces if `body` is None. Single-flight by `number`. Without a digest the pool
    has no start any more: what an earlier one left is ended and removed."""

    number: Int64
    digest: str = ""
    body: bytes | None = None


class BlobPiece(Message, frozen=True, tag=True, kw_only=True):
    """A piece of a job's file, or `refused`: why there is none to be had here."""

    job: str
    digest: str
    offset: Int64
    content: bytes = b""
    refused: str | None = None


class OpenRound(Message, frozen=True, tag=True, kw_only=True):
    """A round of this job begins here: record the debt. Exactly one of `body` and `digest` unless the job is held."""

    job: str
    round: Int64
    body: bytes | None = None
    digest: str | None = None


class Prepare(Message, frozen=True, tag=True):
    """Run the job's preparation, with its retries, unless it runs or has succeeded in this boot. Single-flight."""

    job: str
    round: Int64


class Run(Message, frozen=True, tag=True, kw_only=True):
    """A grant: run tasks `first, first+step, ...` (`count` of them) of group `group`, all as attempt `attempt`.

    Runs in order of arrival as slots come free; not before the round's preparation succeeded, if the job waits for
    it; dropped and answered by Recalled if that fails for good. `ahead`: beyond the slots that were free.
    """

    grant: Int64
    job: str
    round: Int64
    group: Int64
    first: Int64
    count: Int64
    step: Int64
    attempt: Int64


class Recall(Message, frozen=True, tag=True):
    """Give back what of this grant has not started; answered by Recalled, also when that is nothing."""

    grant: Int64


class StopTasks(Message, frozen=True, tag=True):
    """End these positions of a grant: what runs is stopped as its command says and reported as killed, with the
    reason; what has not started is given back by Recalled and never starts."""

    grant: Int64
    spans: list[tuple[Int64, Int64]]
    reason: str


class Drop(Message, frozen=True, tag=True):
    """These grants are void: kill what runs of them, forget the rest, report nothing."""

    grants: list[Int64]


class ReleaseRound(Message, frozen=True, tag=True):
    """The round ends: kill all of the job here, then run its release with its retries, then clean up and report."""

    job: str
    round: Int64
    reason: str


class RemoveJob(Message, frozen=True, tag=True):
    """Remove all that is kept of a deleted job, now; answered by Removed (after the release, if one is owed)."""

    job: str


class Depart(Message, frozen=True, tag=True):
    """Nothing is owed by this node; it may end."""


class ReadFile(Message, frozen=True, tag=True):
    """Read at most `limit` bytes of a regular file below the root; one request at a time is the credit."""

    request: Int64
    path: str
    offset: Int64
    limit: Int64
    """A negative offset counts from the end."""
    follow: bool = False
    """Answered when there is something from `offset` on, also in a file that is to come; after a while with nothing."""


class ListFiles(Message, frozen=True, tag=True):
    request: Int64
    path: str


class OpenShell(Message, frozen=True, tag=True, kw_only=True):
    """Open a shell in the work directory of a task's attempt (`group`, `index`) or of the job's preparation (`phase`),
    as its user, with its environment and limits, on a terminal of this size."""

    shell: Int64
    job: str
    round: Int64
    group: Int64 = 0
    index: Int64 = 0
    phase: Phase | None = None
    attempt: Int64 = 1
    columns: Int64 = 80
    rows: Int64 = 24
    term: str = "dumb"


class ShellInput(Message, frozen=True, tag=True):
    """Keys that were pressed."""

    shell: Int64
    content: bytes


class ShellSize(Message, frozen=True, tag=True):
    """The terminal of whoever looks has another size."""

    shell: Int64
    columns: Int64
    rows: Int64


class ShellTaken(Message, frozen=True, tag=True):
    """So many bytes of its output have arrived where they are looked at: as many more may come."""

    shell: Int64
    count: Int64


class CloseShell(Message, frozen=True, tag=True):
    """Nobody looks any more: end it."""

    shell: Int64
