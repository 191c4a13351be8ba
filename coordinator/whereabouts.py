"""Where granted tasks are just now: which grant holds a task, and which of a node's grants have a slot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from coordinator.cluster import Cluster
from coordinator.model import Grant, Group, Job, Node, TaskState
from coordinator.preparation import NodeJob
from coordinator.records import NodeJobState

ACTIVE: Final = "active"
"""Also what was granted and has no slot yet."""
PREPARING: Final = "preparing"
RUNNING: Final = "running"
COMPLETED: Final = "completed"
_OPEN: Final = re.compile(b"[%c%c]{1,1000}" % (TaskState.ACTIVE, TaskState.GRANTED))
_OUT: Final = re.compile(b"%c{1,1000}" % TaskState.GRANTED)
"""Runs of tasks, a page of them at most: who asks for one does not have a million looked through."""


def with_slot(node: Node) -> list[tuple[Grant, list[int]]]:
    """What runs on a node: what it said has begun, whatever its slots are by now; and as far as order tells, as it runs
    its grants in order while slots last."""
    slots, left, found, full = node.slots, node.offer.plus(node.reserved, -1), [], False
    for grant in node.grants.values():
        fits = 0 if full else max(0, slots // grant.slots)
        if grant.claim is not None and node.join is not None:
            fits = max(0, min(fits, grant.claim.times_in(left)))
        full = fits == 0
        positions = _first(grant, fits)
        if not positions:
            continue
        slots -= len(positions) * grant.slots
        if grant.claim is not None:
            left = left.plus(grant.claim, -len(positions))
        found.append((grant, positions))
    return found


def _first(grant: Grant, fits: int) -> list[int]:
    """So many positions of a grant, and those that are known to have begun at least."""
    if not grant.running:
        return grant.open_positions()[:fits] if fits else []
    behind = [position for position in grant.open_positions() if position not in grant.running]
    return sorted([*grant.running, *behind[: max(0, fits - len(grant.running))]])


class Look:
    """One look at the cluster, for one answer: what runs on a node is found once, whatever is told of it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._held: dict[str, dict[int, frozenset[int]]] = {}
        """By node and grant: the positions that have a slot."""
        self._tasks: dict[str, dict[str, int]] = {}
        """By node and job: tasks that have a slot."""

    def state(self, job: Job, group: Group, index: int) -> str:
        """A task's state as people are told it."""
        if (grant := group.out.get(index)) is None:
            return ACTIVE if group.state[index] == TaskState.ACTIVE else COMPLETED
        if not self._has_slot(grant, index):
            return ACTIVE
        return PREPARING if prepares(job, grant.node) else RUNNING

    def tasks(self, job: Job, group: Group, state: str, first: int) -> Iterator[int]:
        """Indices from `first` on of tasks that are `ACTIVE`, `PREPARING` or `RUNNING`; what is in another of these is
        passed over by a look at its grant."""
        nodes = {name for name in job.current if prepares(job, name) == (state == PREPARING)}
        if state != ACTIVE and not nodes:
            return
        for run in (_OPEN if state == ACTIVE else _OUT).finditer(group.state, first):
            for index in range(run.start(), run.end()):
                grant = group.out.get(index)
                if state == ACTIVE:
                    if grant is None or not self._has_slot(grant, index):
                        yield index
                elif grant is not None and grant.node in nodes and self._has_slot(grant, index):
                    yield index

    def _has_slot(self, grant: Grant, index: int) -> bool:
        held = self._held.get(grant.node)
        if held is None:
            found = with_slot(self._cluster.nodes[grant.node])
            held = self._held[grant.node] = {each.id: frozenset(positions) for each, positions in found}
        return grant.position(index) in held.get(grant.id, ())

    def tasks_on(self, node: str, job: Job) -> int:
        """How many tasks of the job have a slot there."""
        tasks = self._tasks.get(node)
        if tasks is None:
            tasks = self._tasks[node] = {}
            for grant, positions in with_slot(self._cluster.nodes[node]):
                tasks[grant.job] = tasks.get(grant.job, 0) + len(positions)
        return tasks.get(job.id, 0)


def prepares(job: Job, node: str) -> bool:
    """Whether what the job was granted there waits for its preparation."""
    node_job = job.current.get(node)
    return node_job is not None and is_preparing(node_job)


def is_preparing(node_job: NodeJob) -> bool:
    """Whether what was granted there waits for the job's preparation."""
    return node_job.waits and node_job.state in (NodeJobState.PREPARING, NodeJobState.ABSENT)
