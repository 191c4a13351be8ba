"""The words of `explain`: a code for each situation, what would help in it, and the shape of an answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from coordinator.obstacles import Obstacle


class Code(enum.Enum):
    """Why something is as it is. The value stands in `explain -o json`."""

    # a task that is over
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    # a task that a node has
    RUNNING = "running"
    PREPARING = "preparing"
    QUEUED = "queued"
    NODE_LOST = "node_lost"
    # a task that no node has, because of its job
    DISABLED = "disabled"
    BACKOFF = "backoff"
    DEPENDENCY = "dependency"
    PARALLEL = "parallel"
    # because of the nodes
    NO_NODE = "no_node"
    NOT_CONNECTED = "not_connected"
    LEAVING = "leaving"
    DRAINING = "draining"
    UNUSABLE = "unusable"
    BARRED = "barred"
    RELEASING = "releasing"
    TOO_SMALL = "too_small"
    NOT_ELEVATING = "not_elevating"
    TOO_FEW_CPUS = "too_few_cpus"
    TOO_LITTLE_MEMORY = "too_little_memory"
    TOO_LITTLE_DISK = "too_little_disk"
    TOO_FEW_GPUS = "too_few_gpus"
    TOO_LITTLE = "too_little"
    NO_LABEL = "no_label"
    PREPARATIONS = "preparations"
    CLAIMED = "claimed"
    BUSY = "busy"
    ELSEWHERE = "elsewhere"
    RESERVED = "reserved"
    # because of others
    PRIORITY = "priority"
    ORDER = "order"
    READY = "ready"
    # a job that does not end
    OPEN = "open"
    INELIGIBLE = "ineligible"
    RELEASE_RUNS = "release_runs"
    RELEASE_WAITS = "release_waits"
    RELEASE_OUT_OF_CONTACT = "release_out_of_contact"
    DELETING = "deleting"
    # a job that has ended
    COMPLETED = "completed"
    TASKS_FAILED = "tasks_failed"
    TASKS_CANCELLED = "tasks_cancelled"
    RELEASE_FAILED = "release_failed"
    RELEASE_OWED = "release_owed"
    ENDED_EARLY = "ended_early"


OF_OBSTACLE: Final = {
    Obstacle.PREPARATIONS: Code.PREPARATIONS,
    Obstacle.ELSEWHERE: Code.ELSEWHERE,
    Obstacle.BUSY: Code.BUSY,
    Obstacle.CLAIMED: Code.CLAIMED,
    Obstacle.RELEASING: Code.RELEASING,
    Obstacle.NOT_CONNECTED: Code.NOT_CONNECTED,
    Obstacle.LEAVING: Code.LEAVING,
    Obstacle.UNUSABLE: Code.UNUSABLE,
    Obstacle.DRAINING: Code.DRAINING,
    Obstacle.BARRED: Code.BARRED,
    Obstacle.TOO_LITTLE_MEMORY: Code.TOO_LITTLE_MEMORY,
    Obstacle.TOO_FEW_CPUS: Code.TOO_FEW_CPUS,
    Obstacle.TOO_LITTLE_DISK: Code.TOO_LITTLE_DISK,
    Obstacle.TOO_FEW_GPUS: Code.TOO_FEW_GPUS,
    Obstacle.TOO_LITTLE: Code.TOO_LITTLE,
    Obstacle.NO_LABEL: Code.NO_LABEL,
    Obstacle.NOT_ELEVATING: Code.NOT_ELEVATING,
    Obstacle.TOO_SMALL: Code.TOO_SMALL,
}
"""From what passes by itself to what never does: of several nodes, the first of these that one has is told first."""

NEXT: Final[dict[Code, str]] = {
    Code.FAILED: "`coordinator logs {task}` shows what it printed",
    Code.PREPARING: "`coordinator logs {job} --node {node} --phase prep` shows how far it is",
    Code.RUNNING: "`coordinator logs {task} -f` shows what it prints",
    Code.NODE_LOST: "bring the node back, or wait: its tasks go elsewhere when its lease is over",
    Code.DISABLED: "`coordinator job enable {job}`",
    Code.PARALLEL: "raise `parallel` of the job, or wait for a task of it to end",
    Code.NO_NODE: "start `agentd --pool {pool}` on a machine",
    Code.NOT_CONNECTED: "look at `agentd` on these nodes, or start one on another machine",
    Code.DRAINING: "`coordinator node enable {node}`",
    Code.UNUSABLE: "`coordinator node show {node}` says why",
    Code.LEAVING: "start `agentd --pool {pool}` on another machine",
    Code.BARRED: "`coordinator logs {job} --node {node} --phase prep` shows why; when that is mended, "
    "`coordinator node retry-prep {node} --job {job}`",
    Code.TOO_SMALL: "start an agent with more `--slots`, or ask for fewer",
    Code.NOT_ELEVATING: "start an agent with `--allow-elevation`, or leave `elevated` out",
    Code.TOO_FEW_CPUS: "add a larger machine to pool `{pool}`, or ask for less",
    Code.TOO_LITTLE_MEMORY: "add a larger machine to pool `{pool}`, or ask for less",
    Code.TOO_LITTLE_DISK: "add a larger machine to pool `{pool}`, or ask for less",
    Code.TOO_FEW_GPUS: "start an agent with more of `--resource gpus=N` in pool `{pool}`, or ask for fewer",
    Code.TOO_LITTLE: "start an agent in pool `{pool}` that declares it: `--resource NAME=N`",
    Code.NO_LABEL: "start an agent with this `--label` in pool `{pool}`, or leave it out",
    Code.ELSEWHERE: "wait, or add a node to pool `{pool}`",
    Code.BUSY: "wait, or add a node to pool `{pool}`",
    Code.CLAIMED: "wait, or add a node to pool `{pool}`",
    Code.PREPARATIONS: "wait, or raise `parallel` of `prep`",
    Code.PRIORITY: "wait, or raise the priority of the job",
    Code.OPEN: "`coordinator job terminate {job}`",
    Code.INELIGIBLE: "mend the preparation: `coordinator logs {job} --node {node} --phase prep` shows why it failed",
    Code.RELEASE_RUNS: "`coordinator logs {job} --node {node} --phase release` shows how far it is",
    Code.RELEASE_OUT_OF_CONTACT: "bring the node back, or `coordinator job terminate --force {job}`",
    Code.RELEASE_OWED: "bring the node back: it releases as soon as it is in contact",
    Code.RELEASE_FAILED: "`coordinator logs {job} --node {node} --phase release` shows why",
    Code.TASKS_FAILED: "`coordinator task list {job} --with-state failed` lists them",
}
"""What would help, where something would. The names in braces are those of the explained."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason, in a sentence; `node` where it is of one."""

    code: Code
    reason: str
    node: str | None = None


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
