"""Where granted tasks are just now: which grant holds a task, and which of a node's grants have a slot."""

from __future__ import annotations

from coordinator.cluster import Cluster
from coordinator.model import Grant, Group, Job, Node
from coordinator.preparation import NodeJob
from coordinator.records import NodeJobState


def grant_of(cluster: Cluster, shown: Job, group: Group, index: int) -> tuple[Grant | None, int]:
    """The grant that a task is out in, and its position there."""
    for name in shown.current:
        for grant in cluster.nodes[name].grants.values():
            position, off = divmod(index - grant.first, grant.step)
            mine = grant.job == shown.id and grant.group == group.number
            if mine and off == 0 and 0 <= position < grant.count and grant.is_open(position):
                return grant, position
    return None, 0


def with_slot(node: Node) -> list[tuple[Grant, list[int]]]:
    """What runs on a node, as far as order tells: it runs its grants in order while slots last."""
    slots, left, found = node.slots, node.offer.plus(node.reserved, -1), []
    for grant in node.grants.values():
        fits = max(0, slots // grant.slots)
        if grant.claim is not None and node.join is not None:
            fits = max(0, min(fits, grant.claim.times_in(left)))
        if fits == 0:
            break
        positions = grant.open_positions()[:fits]
        slots -= len(positions) * grant.slots
        if grant.claim is not None:
            left = left.plus(grant.claim, -len(positions))
        found.append((grant, positions))
    return found


def is_preparing(node_job: NodeJob) -> bool:
    """Whether what was granted there waits for the job's preparation."""
    return node_job.waits and node_job.state in (NodeJobState.PREPARING, NodeJobState.ABSENT)
