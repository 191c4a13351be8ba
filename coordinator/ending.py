"""How jobs end: every way enters `terminating`, releases what is owed, and only then completes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator import work
from coordinator.model import Job, JobState, Node
from coordinator.preparation import OPEN, NodeJob
from coordinator.records import (
    GroupSkipped,
    JobCompleted,
    JobDeleted,
    JobDeleting,
    JobEnding,
    NodeJobState,
    Returned,
    RoundMoved,
    TasksDone,
)
from wire import messages as m
from wire.instant import Instant
from wire.spec import Finish

if TYPE_CHECKING:
    from coordinator.core import Core

ELIGIBLE_GRACE_S: Final = 10.0
ALL_COMPLETE: Final = "AllTasksComplete"
TASK_FAILED: Final = "TaskFailed"
TIMED_OUT: Final = "MaxWallClockTimeExpiry"
NO_NODES: Final = "NoEligibleNodes"
DELETED: Final = "Deleted"
DRAINED: Final = "NodeDrained"


def look_at(core: Core, job: Job) -> None:
    """Take every consequence that what happened to the job has now."""
    _close_grants(core, job)
    if job.state is JobState.ACTIVE:
        _skip(core, job)
        _drain_leaving(core, job)
    if job.tasks_over and job.tasks_done_at is None:
        core.keep(TasksDone(job.id, core.now))
    if job.state is JobState.ACTIVE:
        _end_if_due(core, job)
    if job.state is JobState.TERMINATING:
        _terminate(core, job)
    if job.state is JobState.COMPLETED and job.deleting:
        _remove(core, job)


def end(core: Core, job: Job, reason: str, forced: bool = False) -> None:
    """The job enters `terminating`; its releases follow from that and from nothing else."""
    if job.state is not JobState.COMPLETED:
        core.keep(JobEnding(job.id, reason, forced, core.now))
        core.arm(("grace", job.id), core.now.after(job.spec.release_grace_ms / 1000))


def rearm(core: Core, job: Job) -> None:
    """Arm what runs by the clock, after submission and after a restart."""
    if job.state is JobState.ACTIVE and job.spec.timeout_ms is not None:
        core.arm(("timeout", job.id), job.submitted_at.after(job.spec.timeout_ms / 1000))
    if job.state is JobState.TERMINATING:
        core.arm(("grace", job.id), core.now.after(job.spec.release_grace_ms / 1000))


# ---- while it is active


def _skip(core: Core, job: Job) -> None:
    """Groups are in file order of definition, conditions may point anywhere: repeat until nothing follows."""
    changed = True
    while changed:
        changed = False
        for group in job.groups:
            if group.over or not group.counts[0]:
                continue
            failed = job.failed_condition(group)
            if failed is not None:
                reason = f"`after = {failed}` can no longer come true: not every task of `{failed}` succeeded"
                core.keep(GroupSkipped(job.id, group.number, reason, core.now))
                changed = True


def _end_if_due(core: Core, job: Job) -> None:
    spec = job.spec
    if spec.timeout_ms is not None and core.now.seconds_since(job.submitted_at) >= spec.timeout_ms / 1000:
        end(core, job, TIMED_OUT)
    elif spec.stop_after is not None and job.failed >= spec.stop_after:
        end(core, job, TASK_FAILED)
    elif job.tasks_over:
        if spec.finish is Finish.WHEN_DONE:
            end(core, job, ALL_COMPLETE)
    elif _no_node_is_eligible(core, job):
        end(core, job, NO_NODES)


def _no_node_is_eligible(core: Core, job: Job) -> bool:
    """One node at least is barred, and for the whole grace none joined, was joining, or was connected and unbarred."""
    pool = core.cluster.pools[job.spec.pool]
    barred = {name for name, r in job.current.items() if r.state is NodeJobState.BARRED}
    hopeful = any(
        (node.session is not None and not node.joined and not node.missing)
        or (node.takes_work and node.name not in barred)
        for node in pool.nodes.values()
    )
    if hopeful or not barred:
        job.ineligible_since = None
        core.deadlines.clear(("eligible", job.id))
        return False
    if job.ineligible_since is None:
        job.ineligible_since = core.now
        core.arm(("eligible", job.id), core.now.after(ELIGIBLE_GRACE_S))
    return core.now.seconds_since(job.ineligible_since) >= ELIGIBLE_GRACE_S


# ---- releases


def release(core: Core, job: Job, node_job: NodeJob, node: Node) -> None:
    """Order the release of a round from a node that is in contact (again)."""
    reason = job.end_reason or DRAINED
    if node_job.state is not NodeJobState.RELEASING:
        core.keep(RoundMoved(job.id, node.name, node_job.round, NodeJobState.RELEASING, None, core.now))
    core.send(node.session, m.ReleaseRound(job.id, node_job.round, reason))


def _terminate(core: Core, job: Job) -> None:
    limit = job.spec.release.parallel if job.spec.release is not None else None
    for node_job in job.rounds:
        if node_job.state not in OPEN:
            continue
        node = core.cluster.nodes[node_job.node]
        if node.connected:
            if node_job.state is not NodeJobState.RELEASING and (limit is None or job.releasing_nodes() < limit):
                release(core, job, node_job, node)
        elif job.forced or _grace_is_over(core, job, node):
            reason = "out of contact when the job ended"
            core.keep(RoundMoved(job.id, node.name, node_job.round, NodeJobState.UNREACHED, reason, core.now))
            if node.missing and node.session is not None:
                core.close(node.session, "it was silent for longer than its release may wait: join again")
    _close_grants(core, job)
    if job.tasks_over and job.tasks_done_at is None:
        core.keep(TasksDone(job.id, core.now))
    if job.settled and job.tasks_over:
        core.keep(JobCompleted(job.id, core.now))


def _grace_is_over(core: Core, job: Job, node: Node) -> bool:
    """`release_grace` counts from the job's end or from the last word of the node, whichever is later."""
    grace = job.spec.release_grace_ms / 1000
    since_end = core.now.seconds_since(job.ending_at) if job.ending_at else 0.0
    silent = core.now.boottime - node.heard_at
    if since_end >= grace and silent >= grace:
        return True
    due = Instant(core.now.boot, core.now.boottime + grace - min(since_end, silent), core.now.wall)
    core.deadlines.set(("grace", job.id), due.boottime)
    return False


def _close_grants(core: Core, job: Job) -> None:
    """A settled round runs nothing any more: what it still held comes back (or is cancelled with its job)."""
    if not job.granted:
        return
    for node_job in job.rounds:
        if node_job.state in OPEN:
            continue
        for grant in list(core.cluster.nodes[node_job.node].grants.values()):
            if grant.job == job.id and grant.round == node_job.round:
                work.return_all(core, grant, Returned.ROUND_CLOSED)


def _drain_leaving(core: Core, job: Job) -> None:
    for name in list(job.current):
        node, node_job = core.cluster.nodes[name], job.open_round(name)
        if node.leaving and node.joined and node_job is not None and node_job.state is not NodeJobState.RELEASING:
            release(core, job, node_job, node)


def take_leaving(core: Core, node: Node) -> None:
    """The node wants to go clean: it gets no new work and releases every round it owes."""
    node.leaving = True
    core.touch_pool(node.pool)
    core.changed()


def let_go(core: Core, node: Node) -> None:
    """Tell a node that wants to leave that it may, once, when it owes nothing any more: only its own words pay."""
    if node.leaving and node.joined and not node.owes and not node.dismissed:
        node.dismissed = True
        core.send(node.session, m.Depart())


# ---- deletion and the end of everything


def delete(core: Core, job: Job) -> None:
    """End the job if it is not over; remove it when it is."""
    end_first = job.state is not JobState.COMPLETED
    if not job.deleting:
        core.keep(JobDeleting(job.id, core.now))
    if end_first and job.state is not JobState.TERMINATING:
        end(core, job, DELETED)


def ask_removal(core: Core, job: Job, node: Node) -> None:
    """Have a node in contact remove what is kept of the job there."""
    if job.state is JobState.COMPLETED:
        core.removing.setdefault(job.id, set()).add(node.name)
        core.send(node.session, m.RemoveJob(job.id))


def take_removed(core: Core, node: Node, job_id: str) -> None:
    """The node has removed a deleted job's directories."""
    core.removing.get(job_id, set()).discard(node.name)
    core.touch(job_id)


def _remove(core: Core, job: Job) -> None:
    if job.id not in core.removing:
        core.removing[job.id] = set()
        for name in job.node_numbers:
            node = core.cluster.nodes[name]
            if node.session is not None and node.joined:
                ask_removal(core, job, node)
            elif not node.missing and not node.left:
                core.removing[job.id].add(name)
    awaited = core.removing[job.id]
    awaited -= {name for name in awaited if core.cluster.nodes[name].missing or core.cluster.nodes[name].left}
    if awaited:
        return
    debts = [(r.node, r.round) for r in job.rounds if r.owes_release and (job.id, r.round) in _owes(core, r.node)]
    core.forget(job.id)
    siblings = core.cluster.submissions[job.submission]
    core.keep(JobDeleted(job.id, job.spec.name, job.number, job.submission, debts, siblings, core.cluster.last_grant))
    core.removing.pop(job.id)
    core.bodies.pop(job.id, None)


def _owes(core: Core, node: str) -> dict[tuple[str, int], None]:
    return core.cluster.nodes[node].owes


def finish_all(core: Core, reason: str) -> None:
    """End every job; nodes out of contact are not waited for."""
    core.finishing = reason
    for job in core.cluster.jobs.values():
        if job.state is not JobState.COMPLETED:
            end(core, job, reason, forced=True)
            core.touch(job.id)


def all_over(core: Core) -> bool:
    """Whether every job is over and no node in contact owes anything."""
    return all(job.state is JobState.COMPLETED for job in core.cluster.jobs.values()) and not any(
        node.owes for node in core.cluster.nodes.values() if node.session is not None
    )
