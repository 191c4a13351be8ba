"""The cluster as it is durable: `apply` folds records into it and is the only code that changes it.

Counterpart: `coordinator.core` decides which records to make. Nothing here sends, asks or knows what time it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from msgspec import structs

from coordinator.bygone import Bygone, Gone
from coordinator.claims import Claim
from coordinator.identities import Identities
from coordinator.model import Disabled, Drain, Grant, Group, Job, JobState, Node, Pool, TaskState
from coordinator.preparation import NodeJob, PhaseView
from coordinator.records import (
    DebtPaid,
    EndCalled,
    Ended,
    Granted,
    GroupSkipped,
    IdentityAdmitted,
    IdentityRevoked,
    JobChanged,
    JobCompleted,
    JobDeleted,
    JobDeleting,
    JobEnding,
    JobMoved,
    JobReopened,
    JobSubmitted,
    NodeJobState,
    NodeJoined,
    NodeLeft,
    NodeMark,
    NodeMarked,
    PoolSet,
    Record,
    ReportTaken,
    Returned,
    RoundMoved,
    RoundOpened,
    RoundVoided,
    ShellClosed,
    ShellOpened,
    StartEnded,
    StartOrdered,
    TaskCancelled,
    TasksDone,
    TasksReturned,
    TasksSkipped,
    TokenMade,
    TokenRevoked,
    Verdict,
)
from coordinator.reopening import reopen
from coordinator.startup import NodeStart
from wire.messages import Outcome, PhaseEnd

_FINAL = {
    Verdict.SUCCEEDED: TaskState.SUCCEEDED,
    Verdict.FAILED: TaskState.FAILED,
    Verdict.CANCELLED: TaskState.CANCELLED,
}
_UNHEARD = {
    Returned.GONE: "the node no longer holds it",
    Returned.EXPIRED: "the node was out of contact for longer than its lease",
    Returned.ROUND_CLOSED: "its round on the node ended before its end was heard of",
    Returned.DRAINED: "its node was drained",
    Returned.FORGOTTEN: "its node was forgotten: the machine is off",
}


def _unheard(job: Job, grant: Grant, position: int, returned: TasksReturned) -> Ended:
    """The end of an attempt of which none was reported; when it began is not known (0)."""
    again = Verdict.DRAINED if returned.cause is Returned.DRAINED else Verdict.LOST
    verdict = Verdict.CANCELLED if job.state is JobState.TERMINATING else again
    return Ended(
        grant.id, position, verdict, Outcome.LOST, None, None, 0.0, returned.at.wall, 0.0, 0,
        _UNHEARD.get(returned.cause), None,
    )  # fmt: skip


class Cluster:
    """Pools, nodes, jobs, grants and identities. Invariant: equal logs give equal clusters."""

    def __init__(self) -> None:
        self.pools: dict[str, Pool] = {}
        self.nodes: dict[str, Node] = {}
        self.jobs: dict[str, Job] = {}
        self.grants: dict[int, Grant] = {}
        self.identities = Identities()
        self.submissions: dict[tuple[str, str], list[str]] = {}
        """Jobs by owner and submission id: one person's ids are nothing to another."""
        self.bygone = Bygone()
        """Deleted jobs, and the last number given per name: ids are never reused, not even after deletion."""
        self.last_grant = 0

    def apply(self, record: Record) -> None:
        """Take one durable fact. Replaying a log gives the state it left behind."""
        match record:
            case ReportTaken():
                self._report_taken(record)
            case Granted():
                self._granted(record)
            case TasksReturned():
                self._returned(record)
            case RoundOpened():
                self._round_opened(record)
            case RoundMoved():
                self._round_moved(record)
            case RoundVoided():
                self._round_voided(record)
            case JobSubmitted():
                self._submitted(record)
            case NodeJoined():
                self._joined(record)
            case StartOrdered() | StartEnded() | NodeLeft() | NodeMarked():
                self._of_a_node(record)
            case PoolSet():
                self._pool_set(record)
            case GroupSkipped() | TasksSkipped():
                self._skipped(record)
            case JobEnding():
                self._ending(record)
            case TasksDone() | JobCompleted() | EndCalled() | JobDeleting():
                self._came_further(record)
            case JobMoved() | JobChanged() | JobReopened() | TaskCancelled():
                self._steered(record)
            case JobDeleted():
                self._deleted(record)
            case DebtPaid():
                self.nodes[record.node].owes.pop((record.job, record.round), None)
            case TokenMade() | TokenRevoked() | IdentityAdmitted() | IdentityRevoked():
                self.identities.apply(record)
            case ShellOpened() | ShellClosed():
                pass  # who was where is for those who read the log
            case _:
                assert_never(record)

    def forget(self, scope: str) -> None:
        """The store forgets the rows of a scope: of a token or a key nothing is left; a job's records said so."""
        self.identities.forget(scope)

    def forget_deleted(self, owner: str, gone: Gone) -> None:
        """The store forgets that this person had this job."""
        self.bygone.forget(owner, gone.job)
        if not self.bygone.knows(owner, gone.submission):
            self.submissions.pop((owner, gone.submission), None)

    # ---- pools, nodes, jobs

    def _pool_set(self, record: PoolSet) -> None:
        pool = self.pools.get(record.pool.name)
        if pool is None:
            self.pools[record.pool.name] = Pool(record.pool.name, record.pool, record.declared)
        else:
            pool.options, pool.declared = record.pool, record.declared
        self.pools[record.pool.name].pack_start()

    def _of_a_node(self, record: StartOrdered | StartEnded | NodeLeft | NodeMarked) -> None:
        match record:
            case StartOrdered():
                self._start_ordered(record)
            case StartEnded():
                self._start_ended(record)
            case NodeLeft():
                self.nodes[record.node].left, self.nodes[record.node].revoked = True, record.revoked
            case NodeMarked():
                self._marked(record)

    def _start_ordered(self, record: StartOrdered) -> None:
        node = self.nodes[record.node]
        node.start = NodeStart(record.number, record.digest, record.incarnation, record.boot, record.life)

    def _start_ended(self, record: StartEnded) -> None:
        node = self.nodes[record.node]
        if node.incarnation == record.incarnation:
            node.reported = max(node.reported, record.number)
        if node.start is not None and node.start.number == record.end.round:
            node.start.running = None
            node.start.view.take(record.end)

    def _joined(self, record: NodeJoined) -> None:
        pool = self.pools[record.pool]
        node = self.nodes.get(record.node)
        if node is None:
            node = Node(record.node, pool, record.incarnation, record.boot, record.slots)
            self.nodes[record.node] = node
        if node.incarnation != record.incarnation:
            node.reported = 0
        node.pool.nodes.pop(node.name, None)
        node.pool, node.incarnation, node.boot, node.slots = pool, record.incarnation, record.boot, record.slots
        node.lease_s, node.left, node.revoked, node.forgotten_by = record.lease_s, False, False, None
        node.live_as(record.life)
        pool.nodes[node.name] = node

    def _marked(self, record: NodeMarked) -> None:
        node = self.nodes[record.node]
        match record.mark:
            case NodeMark.DRAIN:
                node.drain = Drain(record.by, record.reason, record.at, record.until or record.at)
            case NodeMark.DRAINED:
                node.drain = node.drain and replace(node.drain, done_at=record.at)
            case NodeMark.ENABLE:
                node.drain = None
            case NodeMark.FORGET:
                node.drain, node.left, node.forgotten_by = None, True, record.by
            case _:
                assert_never(record.mark)

    def _submitted(self, record: JobSubmitted) -> None:
        phases = (record.spec.preparation, record.spec.release)
        elevated = any(phase is not None and phase.command.elevated for phase in phases)
        reserve = Claim.of_dirs(record.spec.dirs)
        groups = [
            Group(number, spec, elevated=elevated, reserve=reserve) for number, spec in enumerate(record.spec.groups)
        ]
        job = Job(
            record.job, record.number, record.submission, record.owner, record.spec, record.source, record.at, groups,
            reserve,
        )  # fmt: skip
        self.jobs[job.id] = job
        self.bygone.submitted(job.spec.name, record.number)
        given = self.submissions.get((record.owner, record.submission), [])  # with `once` also earlier ones, deleted
        self.submissions[record.owner, record.submission] = [name for name in given if name in self.jobs] + [job.id]
        self.pools[job.spec.pool].jobs[job.id] = job

    def _ending(self, record: JobEnding) -> None:
        job = self.jobs[record.job]
        job.forced = job.forced or record.forced
        if job.state is JobState.TERMINATING:
            return
        job.move(JobState.TERMINATING)
        job.disabled = None
        job.ending_at, job.end_reason = record.at, record.reason
        for group in job.groups:
            group.replace_active(TaskState.CANCELLED)
        self.pools[job.spec.pool].jobs.pop(job.id, None)

    def _steered(self, record: JobMoved | JobChanged | JobReopened | TaskCancelled) -> None:
        job = self.jobs[record.job]
        job.steered += not isinstance(record, TaskCancelled)  # as many of those as there are tasks
        match record:
            case JobMoved():
                job.move(record.state)
                if record.how is not None:
                    job.disabled = Disabled(record.how, record.by, record.at)
                if record.state is JobState.ACTIVE:
                    job.disabled = None
            case JobChanged():
                job.spec = structs.replace(
                    job.spec, priority=record.priority, parallel=record.parallel, timeout_ms=record.timeout_ms
                )
                job.excess = job.granted if record.parallel is not None else 0
                job.count_excess()
            case JobReopened():
                reopen(job, record)
                self.pools[job.spec.pool].jobs[job.id] = job
            case TaskCancelled():
                for first, count in [*record.spans, *record.out]:
                    for index in range(first, first + count):
                        job.groups[record.group].cancel(index, record.reason)

    def _came_further(self, record: TasksDone | JobCompleted | EndCalled | JobDeleting) -> None:
        job = self.jobs[record.job]
        match record:
            case TasksDone():
                job.tasks_done_at = record.at
            case JobCompleted():
                job.move(JobState.COMPLETED)
                job.completed_at, job.end_call = record.at, None
            case EndCalled():
                job.end_call = record
            case JobDeleting():
                job.deleting = True

    def _deleted(self, record: JobDeleted) -> None:
        self.bygone.take(record, new=record.job not in self.jobs)
        self.submissions[record.owner, record.submission] = list(record.siblings)
        self.last_grant = max(self.last_grant, record.last_grant)
        self.jobs.pop(record.job, None)
        for node, number in record.debts:
            if node in self.nodes:
                self.nodes[node].owes[(record.job, number)] = None

    def _skipped(self, record: GroupSkipped | TasksSkipped) -> None:
        group = self.jobs[record.job].groups[record.group]
        if isinstance(record, TasksSkipped):
            for first, count, step in record.runs:
                group.settle(range(first, first + count * step, step), TaskState.SKIPPED)
        elif group.replace_active(TaskState.SKIPPED):
            group.skip_reason = record.reason

    # ---- rounds

    def _round_opened(self, record: RoundOpened) -> None:
        job = self.jobs[record.job]
        prepares = job.preparation is not None
        node_job = NodeJob(
            record.job,
            record.node,
            record.round,
            record.boot,
            NodeJobState.PREPARING if prepares else NodeJobState.PREPARED,
            PhaseView() if prepares else None,
            waits=job.preparation is None or job.preparation.wait,
            reopened=job.reopened,
        )
        job.rounds.append(node_job)
        job.current[record.node] = node_job
        job.node_numbers.setdefault(record.node, len(job.node_numbers))
        job.started_at = job.started_at or record.at
        self.nodes[record.node].owes[(record.job, record.round)] = self.jobs[record.job].reserve

    def _find_round(self, job: str, node: str, number: int) -> NodeJob | None:
        known = self.jobs.get(job)
        if known is None:
            return None
        current = known.current.get(node)
        if current is not None and current.round == number:
            return current
        return next((entry for entry in known.rounds if entry.node == node and entry.round == number), None)

    def _round_moved(self, record: RoundMoved) -> None:
        node_job = self._find_round(record.job, record.node, record.round)
        if node_job is None:
            return
        node_job.move(record.state)
        node_job.reason = record.reason
        if record.state in (NodeJobState.ABSENT, NodeJobState.PREPARING):
            node_job.boot = self.nodes[record.node].boot
        if record.state is NodeJobState.RELEASING:  # also what was given up, of a node that came back by another key
            self.nodes[record.node].owes[(record.job, record.round)] = self.jobs[record.job].reserve
            self.jobs[record.job].current.setdefault(record.node, node_job)
        if record.unpayable:
            self.nodes[record.node].owes.pop((record.job, record.round), None)
            if self.jobs[record.job].current.get(record.node) is node_job:
                del self.jobs[record.job].current[record.node]
        self._settle_debt(node_job)

    def _settle_debt(self, node_job: NodeJob) -> None:
        if not node_job.owes_release:
            self.nodes[node_job.node].owes.pop((node_job.job, node_job.round), None)

    def _round_voided(self, record: RoundVoided) -> None:
        job = self.jobs[record.job]
        job.rounds = [r for r in job.rounds if not (r.node == record.node and r.round == record.round)]
        owes = self.nodes[record.node].owes
        owes.pop((record.job, record.round), None)
        earlier = [r for r in job.rounds if r.node == record.node]
        if earlier and (not earlier[-1].owes_release or (record.job, earlier[-1].round) in owes):
            job.current[record.node] = earlier[-1]
        else:
            job.current.pop(record.node, None)  # an earlier one there was on another root

    # ---- grants and their ends

    def _granted(self, record: Granted) -> None:
        job = self.jobs[record.job]
        group, node = job.groups[record.group], self.nodes[record.node]
        grant = Grant(
            record.grant, record.job, record.node, record.round, record.group, record.first, record.count,
            record.step, record.attempt, group.spec.slots, (1 << record.count) - 1, claim=group.claim,
        )  # fmt: skip
        self.last_grant = max(self.last_grant, record.grant)
        self.grants[grant.id] = node.grants[grant.id] = grant
        job.last_grant = grant.id
        for position in range(record.count):
            index = grant.index(position)
            group.set_state(index, TaskState.GRANTED)
            group.out[index] = grant
            group.waiting.pop(index, None)
        group.cursor = group.next_active(max(group.cursor, grant.index(record.count - 1) + 1))
        self._count(job, node, grant, record.count)
        if record.node in job.current:
            job.current[record.node].tasks_started += record.count

    def _count(self, job: Job, node: Node, grant: Grant, tasks: int) -> None:
        job.granted += tasks
        job.used += tasks * grant.slots
        job.count_excess()
        node.used += tasks * grant.slots
        if grant.claim is not None:
            node.claimed = node.claimed.plus(grant.claim, tasks)

    def _close(self, grant: Grant, position: int) -> None:
        """One position of a grant is no longer awaited; the grant goes with its last."""
        grant.open &= ~(1 << position)
        grant.running.pop(position, None)
        job, node = self.jobs[grant.job], self.nodes[grant.node]
        del job.groups[grant.group].out[grant.index(position)]
        self._count(job, node, grant, -1)
        if not grant.open:
            del self.grants[grant.id]
            del node.grants[grant.id]

    def _report_taken(self, record: ReportTaken) -> None:
        node = self.nodes[record.node]
        if node.incarnation == record.incarnation:
            node.reported = max(node.reported, record.number)
        for end in record.tasks:
            grant = self.grants.get(end.grant)
            if grant is not None and grant.node == record.node and grant.is_open(end.position):
                self._ended(grant, end)
        for phase in record.phases:
            self._phase_ended(record.node, phase)

    def _phase_ended(self, node: str, end: PhaseEnd) -> None:
        node_job = self._find_round(end.job, node, end.round)
        if node_job is not None and node_job.round == end.round:
            node_job.take(end)
            self._settle_debt(node_job)
            job = self.jobs[end.job]
            job.stopped = job.stopped or job.stopped_by(end)

    def _ended(self, grant: Grant, end: Ended) -> None:
        job = self.jobs[grant.job]
        group, index = job.groups[grant.group], grant.index(end.position)
        self._close(grant, end.position)
        node_job = self._find_round(grant.job, grant.node, grant.round)
        if node_job is not None:
            node_job.tasks_ended += 1
        group.durations.append(max(0.0, end.ended_at - end.started_at))
        final = _FINAL.get(end.verdict)
        if final is not TaskState.SUCCEEDED or grant.attempt > 1 or end.exit_code != 0:
            group.remember(index, grant.attempt, grant.node, end)
        if final is None:
            if end.verdict is Verdict.RETRY:
                group.spend_retry(index, end.arm)
            elif end.outcome is Outcome.LOST:
                group.losses[index] = group.losses.get(index, 0) + 1
            self._again(job, group, index, grant.attempt + 1, end)
            return
        group.set_state(index, final)
        group.cancelling.discard(index)
        group.finish(index, job.node_numbers[grant.node], end)
        if grant.attempt > 1:
            group.attempts[index] = grant.attempt
        counts = not group.spec.optional and end.outcome is not Outcome.KILLED
        job.failed += final is TaskState.FAILED and counts
        job.stopped = job.stopped or (final is TaskState.FAILED and group.stops(end.arm))

    def _again(self, job: Job, group: Group, index: int, attempt: int, end: Ended | None) -> None:
        """An ended or lost attempt is followed by another, unless the job is ending."""
        if job.state is JobState.TERMINATING or index in group.cancelling:
            group.set_state(index, TaskState.CANCELLED)
            group.cancelling.discard(index)
            if attempt > 1:
                group.attempts[index] = attempt
        else:
            group.back(index, attempt, end.retry_at if end else None)

    def _returned(self, record: TasksReturned) -> None:
        grant = self.grants.get(record.grant)
        if grant is None:
            return
        job = self.jobs[grant.job]
        group, started = job.groups[grant.group], record.cause is not Returned.RECALLED
        node_job = self._find_round(grant.job, grant.node, grant.round)
        for first, count in record.spans:
            for position in range(first, first + count):
                if not grant.is_open(position):
                    continue
                self._close(grant, position)
                index = grant.index(position)
                if started:
                    group.remember(index, grant.attempt, grant.node, _unheard(job, grant, position, record))
                elif node_job is not None:
                    node_job.tasks_started -= 1
                self._again(job, group, index, grant.attempt + started, None)
