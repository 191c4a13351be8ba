"""What must hold in the coordinator after every event; the simulator asks, and so may a test."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.claims import NOTHING
from coordinator.cluster import Cluster
from coordinator.model import Grant, Group, Job, JobState, Node, TaskState
from coordinator.preparation import OPEN, PAID
from coordinator.records import NodeJobState
from wire.arms import own_retries


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
    if job.spec.parallel is not None and job.granted > job.spec.parallel + job.excess:
        yield f"job {job.id} has {job.granted} tasks out, {job.spec.parallel} are allowed"
    for group in job.groups:
        yield from _of_group(job, group, [grant for grant in granted if grant.group == group.number])
    yield from _of_rounds(cluster, job)
    late = OPEN - {NodeJobState.RELEASING}  # a node that returned after the job's end pays its debt then
    if job.state is JobState.COMPLETED and (not job.tasks_over or any(entry.state in late for entry in job.rounds)):
        yield f"job {job.id} is completed with something open"
    if job.state is JobState.DISABLED and job.granted:
        yield f"job {job.id} is disabled with {job.granted} tasks out"
    if (job.disabled is not None) != (job.state in (JobState.DISABLING, JobState.DISABLED, JobState.ENABLING)):
        yield f"job {job.id} is {job.state.value}, and {job.disabled}"
    if job.live != (job.id in cluster.pools[job.spec.pool].jobs):
        yield f"job {job.id} is {job.state.value}, its pool thinks otherwise"


def _of_rounds(cluster: Cluster, job: Job) -> Iterator[str]:
    keys = [(entry.node, entry.round) for entry in job.rounds]
    if len(keys) != len(set(keys)):
        yield f"job {job.id} has a round twice"
    opened = [entry.node for entry in job.rounds if entry.state in OPEN]
    if len(opened) != len(set(opened)):
        yield f"job {job.id} has two rounds open on one node: {opened}"
    for name, entry in job.current.items() if job.state is JobState.ACTIVE else ():
        if entry.state is NodeJobState.UNREACHED and entry.reopened == job.reopened:
            yield f"job {job.id} is active, and nothing of it may run on {name} any more"
    for entry in job.rounds:
        if entry.state in OPEN and (job.id, entry.round) not in cluster.nodes[entry.node].owes:
            yield f"round {entry.round} of {job.id} is {entry.state.value}, its node {entry.node} owes nothing"
        if entry.tasks_started < 0:
            yield f"round {entry.round} of {job.id} on {entry.node} counts {entry.tasks_started} tasks"


def _of_group(job: Job, group: Group, grants: list[Grant]) -> Iterator[str]:
    walked = {grant.index(position): grant for grant in grants for position in grant.open_positions()}
    if group.out != walked:
        yield f"group {group.spec.name} of {job.id} has {sorted(group.out)} out, its grants hold {sorted(walked)}"
    out = [(grant.index(position), grant.attempt) for grant in grants for position in grant.open_positions()]
    if len({index for index, _ in out}) != len(out) or len(out) != group.counts[TaskState.GRANTED]:
        yield f"group {group.spec.name} of {job.id} counts {group.counts} and has {sorted(out)} out"
    for index, attempt in out:
        if group.state[index] != TaskState.GRANTED or attempt != group.attempts.get(index, 1):
            yield f"task {index} of {group.spec.name} of {job.id} is out as attempt {attempt}, its state says otherwise"
    if any(group.state[index] != TaskState.GRANTED for index in group.cancelling):
        yield f"group {group.spec.name} of {job.id} has tasks to be cancelled that are at no node"
    if any(group.state[index] != TaskState.ACTIVE for index in group.waiting):
        yield f"group {group.spec.name} of {job.id} has tasks in backoff that are not active"
    counted = [group.state.count(state) for state in TaskState]
    if counted != group.counts:
        yield f"group {group.spec.name} of {job.id} counts {group.counts}, its bytes say {counted}"
    retries = group.spec.command.retries
    spent = max(group.failures.values(), default=0)
    if retries is not None and spent > retries:
        yield f"a task of {group.spec.name} of {job.id} spent {spent} retries of {retries}"
    for (_, number), count in group.arm_retries.items():
        own, times = own_retries(group.spec.command, number)
        if not own or (times is not None and count > times):
            yield f"a task of {group.spec.name} of {job.id} spent {count} retries of the {times} of arm {number}"


def _of_node(cluster: Cluster, node: Node) -> Iterator[str]:
    used = sum(grant.open.bit_count() * grant.slots for grant in node.grants.values())
    if used != node.used:
        yield f"node {node.name} counts {node.used} slots out, its grants hold {used}"
    claimed = NOTHING
    for grant in node.grants.values():
        if grant.claim is not None:
            claimed = claimed.plus(grant.claim, grant.open.bit_count())
    if claimed != node.claimed:
        yield f"node {node.name} counts {node.claimed} claimed, its grants claim {claimed}"
    for grant in node.grants.values():
        if cluster.grants.get(grant.id) is not grant or grant.node != node.name:
            yield f"grant {grant.id} of {node.name} is not the cluster's"
        job = cluster.jobs.get(grant.job)
        rounds = [r for r in job.rounds if (r.node, r.round) == (node.name, grant.round)] if job is not None else []
        if not rounds or rounds[0].state not in OPEN:
            yield f"grant {grant.id} of {node.name} belongs to no open round"
    for job_id, number in node.owes:
        job = cluster.jobs.get(job_id)
        if job is None:
            continue
        states = [entry.state for entry in job.rounds if entry.node == node.name and entry.round == number]
        if not states or states[0] in PAID:
            yield f"node {node.name} owes round {number} of {job_id}, the job says {states}"
