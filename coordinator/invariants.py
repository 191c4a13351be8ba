"""What must hold in the coordinator after every event; the simulator asks, and so may a test."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.cluster import Cluster
from coordinator.model import Group, Job, JobState, Node, TaskState
from coordinator.preparation import OPEN, PAID
from coordinator.records import NodeJobState


def violations(cluster: Cluster) -> Iterator[str]:
    """A sentence for each invariant that does not hold."""
    for job in cluster.jobs.values():
        yield from _of_job(cluster, job)
    for node in cluster.nodes.values():
        yield from _of_node(cluster, node)
    for grant in cluster.grants.values():
        if not grant.open or grant.open >> grant.count:
            yield f"grant {grant.id} is kept with positions {grant.open:b}"


def _of_job(cluster: Cluster, job: Job) -> Iterator[str]:
    granted = [g for node in cluster.nodes.values() for g in node.grants.values() if g.job == job.id]
    tasks = sum(g.open.bit_count() for g in granted)
    if job.granted != tasks or job.used != sum(g.open.bit_count() * g.slots for g in granted):
        yield f"job {job.id} counts {job.granted} tasks out, its grants hold {tasks}"
    if job.spec.parallel is not None and job.granted > job.spec.parallel:
        yield f"job {job.id} has {job.granted} tasks out, {job.spec.parallel} are allowed"
    for group in job.groups:
        yield from _of_group(job, group)
    late = OPEN - {NodeJobState.RELEASING}  # a node that returned after the job's end pays its debt then
    if job.state is JobState.COMPLETED and (not job.tasks_over or any(entry.state in late for entry in job.rounds)):
        yield f"job {job.id} is completed with something open"
    if (job.state is JobState.ACTIVE) != (job.id in cluster.pools[job.spec.pool].jobs):
        yield f"job {job.id} is {job.state.value}, its pool thinks otherwise"
    keys = [(entry.node, entry.round) for entry in job.rounds]
    if len(keys) != len(set(keys)):
        yield f"job {job.id} has a round twice"


def _of_group(job: Job, group: Group) -> Iterator[str]:
    counted = [group.state.count(state) for state in TaskState]
    if counted != group.counts:
        yield f"group {group.spec.name} of {job.id} counts {group.counts}, its bytes say {counted}"
    retries = group.spec.command.retries
    spent = max(group.failures.values(), default=0)
    if retries is not None and spent > retries:
        yield f"a task of {group.spec.name} of {job.id} spent {spent} retries of {retries}"


def _of_node(cluster: Cluster, node: Node) -> Iterator[str]:
    used = sum(grant.open.bit_count() * grant.slots for grant in node.grants.values())
    if used != node.used:
        yield f"node {node.name} counts {node.used} slots out, its grants hold {used}"
    for grant in node.grants.values():
        if cluster.grants.get(grant.id) is not grant or grant.node != node.name:
            yield f"grant {grant.id} of {node.name} is not the cluster's"
        job = cluster.jobs.get(grant.job)
        if job is None or not any(r.node == node.name and r.round == grant.round for r in job.rounds):
            yield f"grant {grant.id} of {node.name} belongs to no round"
    for job_id, number in node.owes:
        job = cluster.jobs.get(job_id)
        if job is None:
            continue
        states = [entry.state for entry in job.rounds if entry.node == node.name and entry.round == number]
        if not states or states[0] in PAID:
            yield f"node {node.name} owes round {number} of {job_id}, the job says {states}"
