"""Why a node takes no task: the predicates that place tasks, and that explain why they are not placed. Only looks."""

from __future__ import annotations

import enum
from collections import Counter
from itertools import islice
from typing import Final

from coordinator.claims import CPUS, DISK, GPUS, MEMORY, Claim, counted, missing_label, told
from coordinator.elsewhere import NOWHERE, failed_on, shunned
from coordinator.model import Group, Job, JobState, Node, NodeState, Pool
from coordinator.records import NodeJobState
from coordinator.render import count_of

MAX_LOOKED_AT: Final = 10
"""Groups of a job that it is explained by."""


class Obstacle(enum.Enum):
    """Why a node takes no task of a group just now, as it stands in sentences about several nodes."""

    NOT_CONNECTED = "not connected"
    LEAVING = "leaving"
    DRAINING = "drained, or about to be"
    UNUSABLE = "unusable"
    STARTING = "the pool's start has not ended"
    START_FAILED = "the pool's start failed there"
    UNRELIABLE = "what was given to it came to nothing too often"
    BARRED = "the job's preparation failed there"
    RELEASING = "the job's release runs there"
    TOO_SMALL = "fewer slots than the task needs"
    NOT_ELEVATING = "no elevated commands there"
    TOO_FEW_CPUS = "fewer processors than the task needs"
    TOO_LITTLE_MEMORY = "less memory than the task needs"
    TOO_LITTLE_DISK = "less room on disk than the task and its job's directories need"
    TOO_FEW_GPUS = "fewer GPUs than the task needs"
    TOO_LITTLE = "less of a resource than the task needs"
    NO_LABEL = "without a label that the task needs"
    PREPARATIONS = "as many nodes as allowed are preparing"
    CLAIMED = "what the task needs there is taken"
    BUSY = "slots are taken"
    ELSEWHERE = "the task failed there and is tried again elsewhere"


_TOO_LITTLE: Final = {
    CPUS: Obstacle.TOO_FEW_CPUS,
    MEMORY: Obstacle.TOO_LITTLE_MEMORY,
    DISK: Obstacle.TOO_LITTLE_DISK,
    GPUS: Obstacle.TOO_FEW_GPUS,
}


def unfit(group: Group, node: Node) -> Obstacle | None:
    """Why `node`, as it is, could never take a task of `group`, whatever else it does; or None."""
    if group.spec.slots > node.slots:
        return Obstacle.TOO_SMALL
    if group.elevated and not node.elevates:
        return Obstacle.NOT_ELEVATING
    if group.labels and missing_label(group.labels, node.labels) is not None:
        return Obstacle.NO_LABEL
    if group.opening is not None:
        offer = node.offer
        for name, share in group.opening.items():
            if share > offer.get(name, 0):
                return _TOO_LITTLE.get(name, Obstacle.TOO_LITTLE)
    return None


def shortage(job: Job, group: Group, node: Node, left: Claim | None = None) -> str | None:
    """What of all that the task needs beside slots the node has not, of all it offers or of what is `left`: the clause
    and the numbers, as one would say it of the node."""
    if (label := missing_label(group.labels, node.labels)) is not None:
        return f"it has no label `{label}`"
    claim = claim_there(job, group, node)
    there = node.offer if left is None else left
    for name, share in claim.items() if claim is not None else ():
        if share > there.get(name, 0):
            got = max(0, there.get(name, 0))
            has = told(name, got) if left is None else f"{counted(name, got)} of {told(name, node.offer.get(name, 0))}"
            of_dirs = ", with the directories of its job" if claim is not group.claim and name == DISK else ""
            which = "it has" if left is None else "left there:"
            return f"{which} {has}, the task needs {counted(name, share)}{of_dirs}"
    return None


def claim_there(job: Job, group: Group, node: Node) -> Claim | None:
    """What a next task of the group takes of this node beside slots: a first one of its job brings its directories."""
    if job.reserve is None or job.open_round(node.name) is not None:
        return group.claim
    return group.opening


def obstacle(job: Job, group: Group, node: Node, free: int, left: Claim | None = None) -> Obstacle | None:
    """The first reason why `node`, with `free` slots and `left` of what else it offers (None: all), can take no task
    of `group`, or None."""
    if not node.connected:
        return Obstacle.NOT_CONNECTED
    if node.leaving:
        return Obstacle.LEAVING
    if node.drain is not None:
        return Obstacle.DRAINING
    if node.unusable is not None:
        return Obstacle.UNUSABLE
    if (held_back := node.held_back) is not None:
        return Obstacle.START_FAILED if held_back is NodeState.START_FAILED else Obstacle.STARTING
    if node.rests_until is not None:
        return Obstacle.UNRELIABLE
    node_job = job.current.get(node.name)
    if node_job is not None and node_job.state is NodeJobState.BARRED:
        return Obstacle.BARRED
    if job.id in node.clearing:
        return Obstacle.RELEASING
    if node_job is not None and node_job.state in (NodeJobState.RELEASING, NodeJobState.UNREACHED):
        return Obstacle.RELEASING
    if group.spec.slots > node.slots:
        return Obstacle.TOO_SMALL
    if group.demands:
        if (reason := unfit(group, node)) is not None:
            return reason
        if left is not None:
            claim = claim_there(job, group, node)
            if claim is not None and claim.times_in(left) < 1:
                return Obstacle.CLAIMED
    return Obstacle.BUSY if free < group.spec.slots else None


def able(pool: Pool, job: Job, group: Group) -> frozenset[str]:
    """The nodes that could take a task of the group, were all that they have free."""
    return frozenset(
        node.name for node in pool.nodes.values() if not node.left and obstacle(job, group, node, node.slots) is None
    )


def shuns(pool: Pool, job: Job, group: Group, index: int) -> frozenset[str]:
    """The nodes that a task keeps away from just now, as it failed there: it waits for another one that is busy, and
    goes back when there is none that could take it."""
    failed = failed_on(group, index)
    return shunned(failed, able(pool, job, group)) if failed else NOWHERE


def why_nowhere(pool: Pool, job: Job, group: Group) -> str | None:
    """Why no node of the pool could take a task of `group`, were all its slots free; None when one could."""
    reasons: Counter[Obstacle] = Counter()
    for node in pool.nodes.values():
        if node.left:
            continue
        reason = obstacle(job, group, node, node.slots)
        if reason is None:
            return None
        reasons[reason] += 1
    if not reasons:
        return f"pool `{pool.name}` has no node"
    each = ", ".join(f"{reason.value} ({count_of(count, 'node')})" for reason, count in reasons.items())
    return f"no node of pool `{pool.name}` can take it: {each}"


def why_waiting(pool: Pool, job: Job) -> str | None:
    """Why a job of which something could run, and of which nothing is handed out, gets no node; None where not so."""
    if job.disabled is not None:
        return held_back(job)
    if job.state is not JobState.ACTIVE or job.granted:
        return None
    ready = (group for group in job.groups if group.has_ready and job.conditions_hold(group))
    reasons = [why_nowhere(pool, job, group) for group in islice(ready, MAX_LOOKED_AT)]
    return reasons[0] if reasons and all(reasons) else None


def held_back(job: Job) -> str | None:
    """Why nothing of the job may start anywhere just now, or None."""
    if job.disabled is not None and job.being_stopped:
        return f"its job is being disabled by {job.disabled.by}: what runs of it is being stopped"
    if job.disabled is not None:
        return f"its job was disabled by {job.disabled.by}: `coordinator job enable {job.id}` lets it go on"
    return None if job.state is JobState.ACTIVE else f"its job is {job.state.value}"


def room_of(job: Job) -> int:
    """Tasks that may still go out beside those that are, as its `parallel` says."""
    return job.spec.parallel - job.granted if job.spec.parallel is not None else 1 << 62


def needs_preparation(job: Job, node: Node) -> bool:
    """Whether a task of `job` on `node` would start a preparation now."""
    if job.preparation is None:
        return False
    node_job = job.open_round(node.name)
    return node_job is None or node_job.state is NodeJobState.ABSENT
