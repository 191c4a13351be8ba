"""The words of `explain`: a code for each situation, what would help in it, and the shape of an answer."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from coordinator.obstacles import Obstacle
from wire.messages import Outcome


class Code(enum.Enum):
    """Why something is as it is. The value stands in `explain -o json`. Of several reasons the one that stands first
    here is told first: what a person can do something about or what lasts longest of what all must pass, and of the
    nodes, of which one is enough, what passes soonest."""

    # a task that is over
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    INPUT_FAILED = "input_failed"
    NOT_STARTED = "not_started"
    KEEPER_LOST = "keeper_lost"
    KILLED = "killed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    # a task that a node has
    NODE_LOST = "node_lost"
    STOPPING = "stopping"
    RECALLED = "recalled"
    QUEUED = "queued"
    # a job that does not end
    DELETING = "deleting"
    DISABLING = "disabling"
    DISABLED = "disabled"
    OPEN = "open"
    INELIGIBLE = "ineligible"
    RUNNING = "running"
    PREPARING = "preparing"
    # a task that no node has, because of its job
    DEPENDENCY = "dependency"
    BACKOFF = "backoff"
    PARALLEL = "parallel"
    # because of the nodes
    READY = "ready"
    NO_NODE = "no_node"
    PRIORITY = "priority"
    RESERVED = "reserved"
    PREPARATIONS = "preparations"
    ELSEWHERE = "elsewhere"
    BUSY = "busy"
    CLAIMED = "claimed"
    RELEASING = "releasing"
    STARTING = "starting"
    UNRELIABLE = "unreliable"
    NOT_CONNECTED = "not_connected"
    LEAVING = "leaving"
    UNUSABLE = "unusable"
    DRAINING = "draining"
    START_FAILED = "start_failed"
    BARRED = "barred"
    NODES_TO_COME = "nodes_to_come"
    TOO_LITTLE_MEMORY = "too_little_memory"
    TOO_FEW_CPUS = "too_few_cpus"
    TOO_LITTLE_DISK = "too_little_disk"
    TOO_FEW_GPUS = "too_few_gpus"
    TOO_LITTLE = "too_little"
    NO_LABEL = "no_label"
    NOT_ELEVATING = "not_elevating"
    TOO_SMALL = "too_small"
    # because of others
    TURN = "turn"
    ORDER = "order"
    # releases
    RELEASE_STUCK = "release_stuck"
    RELEASE_OUT_OF_CONTACT = "release_out_of_contact"
    RELEASE_RUNS = "release_runs"
    RELEASE_WAITS = "release_waits"
    ENDING = "ending"
    # a job that has ended
    ON_END = "on_end"
    RELEASE_OWED = "release_owed"
    PREP_FAILED = "prep_failed"
    ENDED_EARLY = "ended_early"
    TASKS_FAILED = "tasks_failed"
    RELEASE_FAILED = "release_failed"
    ON_END_FAILED = "on_end_failed"
    RELEASE_WAIVED = "release_waived"
    TASKS_CANCELLED = "tasks_cancelled"
    TASKS_SKIPPED = "tasks_skipped"
    COMPLETED = "completed"


OF_OBSTACLE: Final = {reason: Code(reason.name.lower()) for reason in Obstacle}
"""The code that stands for each obstacle of placement."""

NEVER: Final = frozenset(
    {
        Code.TOO_LITTLE_MEMORY, Code.TOO_FEW_CPUS, Code.TOO_LITTLE_DISK, Code.TOO_FEW_GPUS, Code.TOO_LITTLE,
        Code.NO_LABEL, Code.NOT_ELEVATING, Code.TOO_SMALL,
    }
)  # fmt: skip
"""What does not pass while the node is as it is."""

OF_OUTCOME: Final = {
    Outcome.EXITED: Code.FAILED,
    Outcome.TIMED_OUT: Code.TIMED_OUT,
    Outcome.OOM: Code.OUT_OF_MEMORY,
    Outcome.INPUT_FAILED: Code.INPUT_FAILED,
    Outcome.START_FAILED: Code.NOT_STARTED,
    Outcome.LOST: Code.KEEPER_LOST,
    Outcome.KILLED: Code.KILLED,
}
"""A task that failed for good, by how its last attempt ended."""

MEANING: Final[dict[Code, str]] = {
    Code.SUCCEEDED: "the task succeeded",
    Code.FAILED: "its command failed for good",
    Code.TIMED_OUT: "its timeout stopped it, for good",
    Code.OUT_OF_MEMORY: "it was killed for its use of memory, for good",
    Code.INPUT_FAILED: "a file of it could not be brought in",
    Code.NOT_STARTED: "its command could not be started: a program is missing, say",
    Code.KEEPER_LOST: "it was lost too often with the process that ran it",
    Code.KILLED: "it was stopped for good, as its job was disabled",
    Code.CANCELLED: "it was cancelled, alone or with its job",
    Code.SKIPPED: "what its `after` asks for can no longer come true",
    Code.NODE_LOST: "the node that has it is out of contact",
    Code.STOPPING: "its node is told to stop it",
    Code.RECALLED: "its node is asked to give it back",
    Code.QUEUED: "a node has it, and runs others first",
    Code.DELETING: "the job is being deleted",
    Code.DISABLING: "the job is being disabled: some of it is still out",
    Code.DISABLED: "the job is disabled",
    Code.OPEN: "`finish = manual` keeps the job open",
    Code.INELIGIBLE: "no node of the pool is left for the job",
    Code.RUNNING: "it runs",
    Code.PREPARING: "the preparation runs on its node",
    Code.DEPENDENCY: "its `after` has not come true",
    Code.BACKOFF: "it failed, and its backoff is not over",
    Code.PARALLEL: "`parallel` of the job allows no more",
    Code.READY: "nothing holds it: it is about to be handed out",
    Code.NO_NODE: "the pool has no node",
    Code.PRIORITY: "a job of higher priority goes first",
    Code.RESERVED: "a node is kept free for a task that needs more room",
    Code.PREPARATIONS: "`parallel` of `prep` allows no further node",
    Code.ELSEWHERE: "`retry(elsewhere = true)` keeps it from a node",
    Code.BUSY: "the slots are taken",
    Code.CLAIMED: "what it needs beside slots is taken",
    Code.RELEASING: "an earlier round of the job is being released there",
    Code.STARTING: "the pool's start has not ended there",
    Code.UNRELIABLE: "what the node was given came to nothing too often in a row: it has to rest",
    Code.NOT_CONNECTED: "the node is out of contact",
    Code.LEAVING: "the node's agent wants to go",
    Code.UNUSABLE: "the node says that it can do no work",
    Code.DRAINING: "the node is drained, or being drained",
    Code.START_FAILED: "the pool's start failed there",
    Code.BARRED: "the job's preparation failed there",
    Code.NODES_TO_COME: "no node that has joined is fit for it, and the pool declares more",
    Code.TOO_LITTLE_MEMORY: "the node has less memory than it needs",
    Code.TOO_FEW_CPUS: "the node has fewer processors than it needs",
    Code.TOO_LITTLE_DISK: "the node has less room on disk than it needs",
    Code.TOO_FEW_GPUS: "the node has fewer GPUs than it needs",
    Code.TOO_LITTLE: "the node declares less of a resource than it needs",
    Code.NO_LABEL: "the node has no such label",
    Code.NOT_ELEVATING: "the node runs no elevated commands",
    Code.TOO_SMALL: "the node has fewer slots than it takes",
    Code.TURN: "it is the turn of other jobs of the same priority",
    Code.ORDER: "other tasks of its job come first",
    Code.RELEASE_STUCK: "a process of the job can't be killed: its release waits",
    Code.RELEASE_OUT_OF_CONTACT: "a node that owes a release is out of contact",
    Code.RELEASE_RUNS: "a release runs",
    Code.RELEASE_WAITS: "a release waits for its turn",
    Code.ENDING: "the job ends, and what is out of it comes back",
    Code.ON_END: "the job's `on_end` runs, or is tried again",
    Code.RELEASE_OWED: "a node still owes a release, and the job does not wait for it",
    Code.PREP_FAILED: "the job's preparation failed, and that ended it",
    Code.ENDED_EARLY: "the job was ended from outside, or by a rule of its own",
    Code.TASKS_FAILED: "tasks failed for good",
    Code.RELEASE_FAILED: "a release failed for good",
    Code.ON_END_FAILED: "the job's `on_end` failed for good",
    Code.RELEASE_WAIVED: "a release will never run: its node, or what it knew, was given up",
    Code.TASKS_CANCELLED: "tasks were cancelled",
    Code.TASKS_SKIPPED: "tasks were skipped",
    Code.COMPLETED: "the job is over, and all of it went well",
}
"""What the codes say, for those who write programs by them."""

_LARGER: Final = "add a larger machine to pool `{pool}`, or ask for less"
_WAIT: Final = "wait, or add a node to pool `{pool}`"
_PREP_LOG: Final = "`coordinator logs {job} --node {node} --phase prep`"
_RELEASE_LOG: Final = "`coordinator logs {job} --node {node} --phase release`"

NEXT: Final[dict[Code, str]] = {
    Code.FAILED: "`coordinator logs {about}` shows what it printed",
    Code.TIMED_OUT: "`coordinator logs {about}` shows how far it came; give it a longer `timeout`",
    Code.OUT_OF_MEMORY: "ask for more `memory` in its `needs`",
    Code.INPUT_FAILED: "mend its `file`; when the job is over, `coordinator job retry {job} --failed` tries it again",
    Code.NOT_STARTED: "mend its command, or install what it needs on node `{node}`",
    Code.KEEPER_LOST: "`coordinator logs {about}` shows what it printed: it may take down what runs it",
    Code.KILLED: "`coordinator job retry {job} --failed` runs it again when the job is over",
    Code.CANCELLED: "`coordinator job retry {job} --cancelled` runs it again when the job is over",
    Code.SKIPPED: "`coordinator explain {about}`",
    Code.PREPARING: _PREP_LOG + " shows how far it is",
    Code.RUNNING: "`coordinator logs {about} -f` shows what it prints",
    Code.NODE_LOST: "bring the node back, or wait: its tasks go elsewhere when its lease is over; if its machine is "
    "off, `coordinator node forget {node}`",
    Code.DISABLING: "wait; when it is disabled, `coordinator job enable {job}` lets it go on",
    Code.DISABLED: "`coordinator job enable {job}`",
    Code.DEPENDENCY: "`coordinator explain {about}`",
    Code.PARALLEL: "wait, or `coordinator job set {job} --parallel N` with a larger number",
    Code.NO_NODE: "start `agentd --pool {pool}` on a machine",
    Code.NOT_CONNECTED: "look at `agentd` on these nodes, or start one on another machine",
    Code.DRAINING: "`coordinator node enable {node}`",
    Code.STARTING: "`coordinator logs --node {node} --phase start` shows how far it is",
    Code.UNRELIABLE: "look at `agentd` on node `{node}`; when that is mended, `coordinator node enable {node}`",
    Code.START_FAILED: "`coordinator logs --node {node} --phase start` shows why; when that is mended, "
    "`coordinator node enable {node}`",
    Code.UNUSABLE: "`coordinator node show {node}` says why",
    Code.LEAVING: "start `agentd --pool {pool}` on another machine",
    Code.BARRED: _PREP_LOG + " shows why; when that is mended, `coordinator node retry-prep {node} --job {job}`",
    Code.NODES_TO_COME: "start `agentd --pool {pool}` on a machine that has what it needs",
    Code.TOO_SMALL: "start an agent with more `--slots`, or ask for fewer",
    Code.NOT_ELEVATING: "start an agent with `--allow-elevation`, or leave `elevated` out",
    Code.TOO_FEW_CPUS: _LARGER,
    Code.TOO_LITTLE_MEMORY: _LARGER,
    Code.TOO_LITTLE_DISK: _LARGER,
    Code.TOO_FEW_GPUS: "start an agent with more of `--resource gpus=N` in pool `{pool}`, or ask for fewer",
    Code.TOO_LITTLE: "start an agent in pool `{pool}` that declares it: `--resource NAME=N`",
    Code.NO_LABEL: "start an agent with this `--label` in pool `{pool}`, or leave it out",
    Code.ELSEWHERE: _WAIT,
    Code.BUSY: _WAIT,
    Code.CLAIMED: _WAIT,
    Code.RESERVED: _WAIT,
    Code.RELEASING: _RELEASE_LOG + " shows how far it is",
    Code.PREPARATIONS: "wait, or raise `parallel` of `prep`",
    Code.PRIORITY: "wait, or `coordinator job set {job} --priority N` with a larger number",
    Code.OPEN: "`coordinator job terminate {job}`",
    Code.INELIGIBLE: "`coordinator job nodes {job}` shows what failed where",
    Code.RELEASE_STUCK: "`coordinator node show {node}`; restarting the machine ends the process",
    Code.RELEASE_RUNS: _RELEASE_LOG + " shows how far it is",
    Code.RELEASE_WAITS: "`coordinator job nodes {job}` shows how far the others are",
    Code.RELEASE_OUT_OF_CONTACT: "bring the node back, or `coordinator job terminate {job} --force`",
    Code.RELEASE_OWED: "bring the node back: it releases as soon as it is in contact; if it is gone for good, "
    "`coordinator node forget {node}`",
    Code.RELEASE_FAILED: _RELEASE_LOG + " shows why",
    Code.PREP_FAILED: _PREP_LOG + " shows why; when that is mended, `coordinator job retry {job}` runs the rest",
    Code.ENDED_EARLY: "`coordinator job nodes {job}` shows what happened where; "
    "`coordinator job retry {job}` runs what is left",
    Code.TASKS_FAILED: "`coordinator logs {job} --failed` shows what they printed",
    Code.ON_END_FAILED: "`coordinator job show {job} -o json` shows what it wrote",
}
"""What would help, where something would. The names in braces are those of the explained."""

_RANK: Final = {code: rank for rank, code in enumerate(Code)}


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason, in a sentence; `node` where it is of one."""

    code: Code
    reason: str
    node: str | None = None
    about: str | None = None
    """The task that is to be looked at next, where it is another than the explained."""


def dominant_first(causes: Iterable[Cause]) -> list[Cause]:
    """In the order in which they are told; of one code as they came."""
    return sorted(causes, key=lambda cause: _RANK[cause.code])


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A row of the node-by-node table; without a code the node could take the task."""

    node: str
    state: str
    code: Code | None
    reason: str


@dataclass(frozen=True, slots=True)
class Told:
    """One moment of how it came to this."""

    at: float
    """Wall clock."""
    text: str


@dataclass(slots=True)
class Explanation:
    """The answer: the dominant reason first. Invariant: there is always one."""

    target: str
    causes: list[Cause]
    nodes: list[NodeLine] = field(default_factory=list)
    left_out: int = 0
    """Nodes beyond those in the table."""
    story: list[Told] = field(default_factory=list)
