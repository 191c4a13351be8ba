"""How jobs end: every way enters `terminating`, releases what is owed, and only then completes."""

from __future__ import annotations

from typing import Final

from coordinator import disabling, draining, on_end, readiness, work
from coordinator.bygone import Gone
from coordinator.claims import Claim
from coordinator.deadlines import ROUNDING_S
from coordinator.desk import Desk
from coordinator.model import Job, JobState, Node, NodeState, TaskState
from coordinator.obstacles import unfit
from coordinator.preparation import OPEN, NodeJob
from coordinator.readiness import Link
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
    TasksSkipped,
    deleted_scope,
)
from wire import messages as m
from wire.instant import Instant
from wire.spec import Finish

ELIGIBLE_GRACE_S: Final = 10.0
FORGOTTEN_AT_ONCE: Final = 2
"""Deleted jobs, when one more is: of those that could not be for a while there are more than one."""
MAX_RUNS: Final = 4_096
"""Runs of skipped tasks in one record."""
ALL_COMPLETE: Final = "AllTasksComplete"
USER: Final = "UserTerminate"
TASK_FAILED: Final = "TaskFailed"
TIMED_OUT: Final = "MaxWallClockTimeExpiry"
NO_NODES: Final = "NoEligibleNodes"
DELETED: Final = "Deleted"
DRAINED: Final = "NodeDrained"


def look_at(desk: Desk, job: Job) -> None:
    """Take every consequence that what happened to the job has now."""
    _close_grants(desk, job)
    if job.live:
        _skip(desk, job)
        for node_job, node in draining.due(desk, job):
            if _may_release(desk, job):
                release(desk, job, node_job, node)
            else:
                draining.stop(desk, job, node)
        disabling.look_at(desk, job)
    if job.tasks_over and job.tasks_done_at is None:
        desk.keep(TasksDone(job.id, desk.now))
    if job.live:
        _end_if_due(desk, job)
    if job.state is JobState.TERMINATING:
        _terminate(desk, job)
    if job.state is JobState.COMPLETED:
        on_end.look_at(desk, job)
        if job.deleting and not job.owes_call:
            _remove(desk, job)


def end(desk: Desk, job: Job, reason: str, forced: bool = False) -> None:
    """The job enters `terminating`; its releases follow from that and from nothing else."""
    if job.state is JobState.TERMINATING and (job.forced or not forced):
        return  # it ends already, for the reason that was given first
    if job.state is not JobState.COMPLETED:
        reason = job.end_reason or reason
        cancelled = [(group.number, spans) for group in job.groups if (spans := group.active_cut())]
        desk.keep(JobEnding(job.id, reason, forced, desk.now, cancelled))
        readiness.rebuild(job)  # nobody waits any more: what was kept for that goes
        desk.arm(("grace", job.id), desk.now.after(job.spec.release_grace_ms / 1000))


def rearm(desk: Desk, job: Job) -> None:
    """Arm what runs by the clock, after submission and after a restart."""
    if job.live and job.spec.timeout_ms is None:
        desk.deadlines.clear(("timeout", job.id))
    elif job.live and job.spec.timeout_ms is not None:
        desk.arm(("timeout", job.id), job.counted_from.after(job.spec.timeout_ms / 1000))
    if job.state is JobState.TERMINATING:
        desk.arm(("grace", job.id), desk.now.after(job.spec.release_grace_ms / 1000))


# ---- while it lives


def _skip(desk: Desk, job: Job) -> None:
    """Groups are in file order of definition, conditions may point anywhere: repeat until nothing follows."""
    changed = True
    while changed:
        changed = False
        for group in job.groups:
            if group.over or not group.counts[0]:
                continue
            if job.failed_condition(group) is not None:
                reason = readiness.why_skipped(job, group, group.state.find(TaskState.ACTIVE))
                desk.keep(GroupSkipped(job.id, group.number, reason or "", desk.now, group.active_cut()))
                changed = True
            for link in group.links:
                changed = _skip_paired(desk, job, link) or changed


def _skip_paired(desk: Desk, job: Job, link: Link) -> bool:
    """Those tasks whose own elements keep them from running; whether there were any."""
    runs = link.take_doomed()
    for start in range(0, len(runs), MAX_RUNS):
        some = runs[start : start + MAX_RUNS]
        one = len(some) == 1 and len(some[0]) == 1
        reason = readiness.why_skipped(job, link.target, some[0][0]) if one else None
        reason = reason or f"`after = {readiness.written(link.source, link.after)}` can no longer come true"
        spans = [(run.start, len(run), run.step) for run in some]
        desk.keep(TasksSkipped(job.id, link.target.number, spans, reason, desk.now))
    return bool(runs)


def _end_if_due(desk: Desk, job: Job) -> None:
    spec = job.spec
    if spec.timeout_ms is not None and _is_over(desk.now.seconds_since(job.counted_from), spec.timeout_ms / 1000):
        end(desk, job, TIMED_OUT)
    elif job.stopped or (spec.stop_after is not None and job.failed >= spec.stop_after):
        end(desk, job, TASK_FAILED)
    elif job.state is not JobState.ACTIVE:
        _hope_again(desk, job)  # nothing of it is to run just now: that is no end of it
    elif job.tasks_over:
        if spec.finish is Finish.WHEN_DONE:
            end(desk, job, ALL_COMPLETE)
    elif _no_node_is_eligible(desk, job):
        end(desk, job, NO_NODES)


def _no_node_is_eligible(desk: Desk, job: Job) -> bool:
    """One node at least is barred, and for the whole grace there was no hope for another."""
    barred = {name for name, r in job.current.items() if r.state is NodeJobState.BARRED}
    barred |= {node.name for node in desk.cluster.pools[job.spec.pool].nodes.values() if _never_starts(node)}
    if not barred or _has_hope(desk, job, barred):
        _hope_again(desk, job)
        return False
    if job.ineligible_since is None:
        job.ineligible_since = desk.now
        desk.arm(("eligible", job.id), desk.now.after(ELIGIBLE_GRACE_S))
    return _is_over(desk.now.seconds_since(job.ineligible_since), ELIGIBLE_GRACE_S)


def _hope_again(desk: Desk, job: Job) -> None:
    """The grace begins anew when there is no hope once more."""
    job.ineligible_since = None
    desk.deadlines.clear(("eligible", job.id))


def _never_starts(node: Node) -> bool:
    """Whether its start failed and nobody will enable it again: the nodes of `run` have no operator."""
    return node.join is not None and node.join.embedded and node.held_back is NodeState.START_FAILED


def _has_hope(desk: Desk, job: Job, barred: set[str]) -> bool:
    """Whether a node is joining, or connected, not barred, and fit for something that could run now. One that is
    drained or unusable will be back; one whose agent goes will not."""
    groups = [group for group in job.groups if not group.over and job.conditions_hold(group) and group.has_hope]
    return any(
        (node.session is not None and not node.joined and not node.missing)
        or (
            node.connected
            and not node.leaving
            and node.name not in barred
            and (not groups or any(unfit(group, node) is None for group in groups))
        )
        for node in desk.cluster.pools[job.spec.pool].nodes.values()
    )


def _is_over(passed_s: float, limit_s: float) -> bool:
    """Whether so much time has passed: a deadline and a difference may disagree in their last digits."""
    return passed_s >= limit_s - ROUNDING_S


# ---- releases


def release(desk: Desk, job: Job, node_job: NodeJob, node: Node) -> None:
    """Order the release of a round from a node that is in contact (again)."""
    reason = (job.end_reason if node_job.reopened == job.reopened else job.earlier_reason) or DRAINED
    if node_job.state is not NodeJobState.RELEASING:
        desk.keep(RoundMoved(job.id, node.name, node_job.round, NodeJobState.RELEASING, None, desk.now))
    desk.send(node.session, m.ReleaseRound(job.id, node_job.round, reason))


def _may_release(desk: Desk, job: Job) -> bool:
    """Whether `release { parallel }` allows one more node now. While the job lives nobody waits for one that is out of
    contact, or where a process can't be killed: that may be for ever."""
    limit = job.spec.release.parallel if job.spec.release is not None else None
    if limit is None:
        return True
    nodes = desk.cluster.nodes
    releasing = (nodes[name] for name, held in job.current.items() if held.state is NodeJobState.RELEASING)
    return sum(not job.live or (node.connected and job.id not in node.stuck) for node in releasing) < limit


def _terminate(desk: Desk, job: Job) -> None:
    for node_job in job.rounds:
        if node_job.state not in OPEN:
            continue
        node = desk.cluster.nodes[node_job.node]
        if node.connected:
            if node_job.state is NodeJobState.RELEASING and _is_stuck_for_good(desk, job, node):
                reason = "a process of the job can't be killed there"
                desk.keep(RoundMoved(job.id, node.name, node_job.round, NodeJobState.UNREACHED, reason, desk.now))
            elif node_job.state is not NodeJobState.RELEASING and _may_release(desk, job):
                release(desk, job, node_job, node)
        elif job.forced or _grace_is_over(desk, job, node):
            reason = "out of contact when the job ended"
            desk.keep(RoundMoved(job.id, node.name, node_job.round, NodeJobState.UNREACHED, reason, desk.now))
            if node.missing and node.session is not None:
                desk.close(node.session, "it was silent for longer than its release may wait: join again")
    _close_grants(desk, job)
    if job.tasks_over and job.tasks_done_at is None:
        desk.keep(TasksDone(job.id, desk.now))
    if job.settled and job.tasks_over:
        desk.keep(JobCompleted(job.id, desk.now))
        desk.bodies.pop(job.id, None)  # nothing opens a round any more


def _grace_is_over(desk: Desk, job: Job, node: Node) -> bool:
    """`release_grace` counts from the job's end or from the last word of the node, whichever is later."""
    grace = job.spec.release_grace_ms / 1000
    since_end = desk.now.seconds_since(job.ending_at) if job.ending_at else 0.0
    silent = desk.now.boottime - node.heard_at
    if _is_over(min(since_end, silent), grace):
        return True
    due = Instant(desk.now.boot, desk.now.boottime + grace - min(since_end, silent), desk.now.wall)
    desk.deadlines.set(("grace", job.id), due.boottime)
    return False


def _is_stuck_for_good(desk: Desk, job: Job, node: Node) -> bool:
    """A release waits for the last process of its job: for one that can't be killed no longer than `release_grace`.
    What is owed is paid when that process is gone after all."""
    since = node.stuck.get(job.id)
    if since is None:
        return False
    since_end = desk.now.seconds_since(job.ending_at) if job.ending_at else 0.0
    left_s = job.spec.release_grace_ms / 1000 - min(since_end, desk.now.boottime - since)
    if job.forced or left_s <= ROUNDING_S:
        return True
    desk.deadlines.set(("stuck", job.id), desk.now.boottime + left_s)
    return False


def _close_grants(desk: Desk, job: Job) -> None:
    """A settled round runs nothing any more: what it still held comes back (or is cancelled with its job)."""
    if not job.granted:
        return
    for node_job in job.rounds:
        if node_job.state in OPEN:
            continue
        node = desk.cluster.nodes[node_job.node]
        cause = Returned.DRAINED if node.draining else Returned.ROUND_CLOSED
        for grant in list(node.grants.values()):
            if grant.job == job.id and grant.round == node_job.round:
                work.return_all(desk, grant, cause)


# ---- deletion and the end of everything


def delete(desk: Desk, job: Job) -> None:
    """End the job if it is not over; remove it when it is."""
    end_first = job.state is not JobState.COMPLETED
    if not job.deleting:
        desk.keep(JobDeleting(job.id, desk.now))
    if end_first and job.state is not JobState.TERMINATING:
        end(desk, job, DELETED)


def ask_removal(desk: Desk, job: Job, node: Node) -> None:
    """Have a node in contact remove what is kept of the job there."""
    if job.state is JobState.COMPLETED:
        desk.removing.setdefault(job.id, set()).add(node.name)
        desk.send(node.session, m.RemoveJob(job.id))


def take_removed(desk: Desk, node: Node, job_id: str) -> None:
    """The node has removed a deleted job's directories."""
    desk.removing.get(job_id, set()).discard(node.name)
    desk.touch(job_id)


def _remove(desk: Desk, job: Job) -> None:
    if job.id not in desk.removing:
        desk.removing[job.id] = set()
        for name in job.node_numbers:
            node = desk.cluster.nodes[name]
            if node.session is not None and node.joined:
                ask_removal(desk, job, node)
            elif not node.missing and not node.left:
                desk.removing[job.id].add(name)
    awaited = desk.removing[job.id]
    awaited -= {name for name in awaited if desk.cluster.nodes[name].missing or desk.cluster.nodes[name].left}
    if awaited:
        return
    debts = [(r.node, r.round) for r in job.rounds if r.owes_release and (job.id, r.round) in _owes(desk, r.node)]
    desk.forget(job.id)
    siblings = desk.cluster.submissions[job.owner, job.submission]
    _forget_earlier(desk, job.owner)
    desk.keep(
        JobDeleted(
            job.id, job.spec.name, job.number, job.submission, debts, siblings, desk.cluster.last_grant, job.owner,
            job.spec.pool, desk.now, desk.cluster.bygone.floor,
        )
    )  # fmt: skip
    desk.removing.pop(job.id)
    desk.bodies.pop(job.id, None)


def _forget_earlier(desk: Desk, owner: str) -> None:
    """Make room for one more deleted job of this person, whose record is to say what must stay of those before."""

    def settled(gone: Gone) -> bool:
        there = desk.cluster.submissions.get((owner, gone.submission), [])
        owed = any((gone.job, number) in _owes(desk, node) for node, number in gone.debts)
        return not owed and not any(name in desk.cluster.jobs for name in there)

    for _ in range(FORGOTTEN_AT_ONCE):
        if (gone := desk.cluster.bygone.overdue(owner, settled)) is not None:
            desk.forget(deleted_scope(gone.job))
            desk.cluster.forget_deleted(owner, gone)


def _owes(desk: Desk, node: str) -> dict[tuple[str, int], Claim | None]:
    return desk.cluster.nodes[node].owes


def finish_all(desk: Desk, reason: str) -> None:
    """End every job; nodes out of contact are not waited for."""
    desk.finishing = reason
    for job in desk.cluster.jobs.values():
        if job.state is not JobState.COMPLETED:
            end(desk, job, reason, forced=True)
            desk.touch(job.id)


def all_over(desk: Desk) -> bool:
    """Whether every job is over, its end was told, and no node in contact owes anything."""
    jobs = desk.cluster.jobs.values()
    return all(job.state is JobState.COMPLETED and not job.owes_call for job in jobs) and not any(
        node.owes for node in desk.cluster.nodes.values() if node.session is not None
    )
