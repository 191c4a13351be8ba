"""What `coordinator top` shows, in one answer of bounded size: sums over everything, jobs and nodes that matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from coordinator import access, views
from coordinator.desk import Desk
from coordinator.model import Job, JobState, Node, NodeState, TaskState
from coordinator.preparation import OPEN
from coordinator.records import NodeJobState
from coordinator.sessions import Session
from coordinator.whereabouts import Look
from wire import messages as m

Plain = dict[str, Any]

MAX_ROWS: Final = 200
_TROUBLED: Final = frozenset(
    {NodeState.LOST, NodeState.UNUSABLE, NodeState.START_FAILED, NodeState.DRAINING, NodeState.JOINING}
)


def answer(desk: Desk, session: Session, message: m.Top) -> None:
    """Sums, and at most `rows` jobs, nodes and releases owed, those first that a person would look for."""
    rows = max(0, min(message.rows, MAX_ROWS))
    jobs = list(access.jobs(desk, session))
    nodes = [node for node in desk.cluster.nodes.values() if not node.left]
    look = Look(desk.cluster)
    body = {
        "pools": len(desk.cluster.pools),
        "jobs": {"total": len(jobs), "live": sum(job.state is not JobState.COMPLETED for job in jobs)},
        "tasks": _tasks(jobs),
        "nodes": dict(Counter(node.state.value for node in nodes)),
        "slots": sum(node.slots for node in nodes),
        "slots_used": sum(min(node.used, node.slots) for node in nodes),
        "owed": sum(len(access.owes(desk, session, node)) for node in desk.cluster.nodes.values()),
        "top_jobs": [_job(look, desk, job) for job in sorted(jobs, key=_of_interest)[:rows]],
        "top_nodes": [_node(desk, session, node) for node in sorted(nodes, key=_of_concern)[:rows]],
        "releases": list(islice(_releases(jobs), rows)),
    }
    desk.reply(session.epoch, message.request, body)


def _tasks(jobs: Iterable[Job]) -> dict[str, int]:
    """Of all jobs that may be looked at. `out` is what nodes have, running or about to."""
    counts = [0] * len(TaskState)
    for job in jobs:
        for group in job.groups:
            for state, count in enumerate(group.counts):
                counts[state] += count
    return {
        "waiting": counts[TaskState.ACTIVE],
        "out": counts[TaskState.GRANTED],
        "succeeded": counts[TaskState.SUCCEEDED],
        "failed": counts[TaskState.FAILED],
        "cancelled": counts[TaskState.CANCELLED],
        "skipped": counts[TaskState.SKIPPED],
    }


def _of_interest(job: Job) -> tuple[bool, int, int, float]:
    """Those that run first, by slots; then those that wait; then what ended last."""
    over = job.state is JobState.COMPLETED
    ended = job.completed_at.wall if job.completed_at is not None else 0.0
    return (over, -job.used, -job.spec.priority, -ended if over else job.submitted_at.wall)


def _of_concern(node: Node) -> tuple[bool, int, str]:
    """Those with a trouble first, then the busiest."""
    return (node.state not in _TROUBLED, -node.used, node.name)


def _job(look: Look, desk: Desk, job: Job) -> Plain:
    states = views.node_states(job) if len(job.rounds) <= MAX_ROWS else {}
    return {**views.job(desk.cluster, job, look=look), "node_states": states}


def _node(desk: Desk, session: Session, node: Node) -> Plain:
    return views.node(node, desk.now, access.owes(desk, session, node))


def _releases(jobs: Iterable[Job]) -> Iterator[Plain]:
    """Of jobs that end, or ended without a node: what is still to be paid."""
    for job in jobs:
        if job.state not in (JobState.TERMINATING, JobState.COMPLETED):
            continue
        for node_job in job.rounds:
            if node_job.state in OPEN or node_job.state is NodeJobState.UNREACHED:
                yield {"job": job.id, **views.job_node(node_job, tails=False)}
