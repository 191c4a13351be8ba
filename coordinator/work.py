"""Tasks on their way: granted to nodes, reported by them, taken back, tried again."""

from __future__ import annotations

import hashlib
import heapq
from typing import Final

import msgspec

from coordinator import placement, plausible, readiness, resting
from coordinator.desk import Desk
from coordinator.model import Grant, Job, JobState, Node
from coordinator.preparation import NodeJob
from coordinator.records import (
    DebtPaid,
    Ended,
    Granted,
    NodeJobState,
    ReportTaken,
    Returned,
    RoundMoved,
    RoundOpened,
    TasksReturned,
    Verdict,
)
from coordinator.retry import judge
from wire import messages as m

INLINE_BODY: Final = 512 * 1024
CHUNK: Final = 256 * 1024
MAX_PRINTED: Final = 100
"""Ends of one preparation or release on one node that keep what was printed; the final one always does."""
MAX_ENDS: Final = 10_000
"""Ends of it that are kept at all; beyond, only the final one is: the ledger is not a node's to fill."""


# ---- out


def place(desk: Desk, round_: placement.Round) -> None:
    """Grant what placement hands out, opening rounds and starting preparations where a first task comes."""
    for assignment in list(round_.assignments()):
        _grant(desk, assignment)
    for grant_id in placement.recalls(round_):
        grant = desk.cluster.grants[grant_id]
        ask_back(desk, desk.cluster.nodes[grant.node], grant)


def _grant(desk: Desk, assignment: placement.Assignment) -> None:
    job, node, group = assignment.job, assignment.node, assignment.group
    node_job = _round_for(desk, job, node)
    record = Granted(
        desk.cluster.last_grant + 1, job.id, node.name, node_job.round, group.number, assignment.first,
        assignment.count, assignment.step, assignment.attempt, desk.now,
    )  # fmt: skip
    desk.keep(record)
    run = m.Run(
        grant=record.grant, job=job.id, round=node_job.round, group=group.number, first=record.first,
        count=record.count, step=record.step, attempt=record.attempt,
    )  # fmt: skip
    desk.send(node.session, run)


def _round_for(desk: Desk, job: Job, node: Node) -> NodeJob:
    """The open round of the job on the node, opened (and its preparation ordered) if this is the first task."""
    node_job = job.open_round(node.name)
    if node_job is None:
        number = 1 + max((entry.round for entry in job.rounds if entry.node == node.name), default=0)
        desk.keep(RoundOpened(job.id, node.name, number, node.boot, desk.now))
        node_job = job.current[node.name]
        send_round(desk, job, node, number)
    elif node_job.state is NodeJobState.ABSENT:
        state = NodeJobState.PREPARING if job.preparation is not None else NodeJobState.PREPARED
        desk.keep(RoundMoved(job.id, node.name, node_job.round, state, None, desk.now))
    else:
        return node_job
    if job.preparation is not None:
        desk.send(node.session, m.Prepare(job.id, node_job.round))
    return node_job


def send_round(desk: Desk, job: Job, node: Node, number: int) -> None:
    """Open a round on the node, with the body that lets it pay the debt without us."""
    body = desk.bodies.get(job.id)
    if body is None:
        body = msgspec.msgpack.encode(m.JobBody(job.id, job.owner, job.spec))
        desk.bodies[job.id] = body
    digest = None if len(body) <= INLINE_BODY else hashlib.sha256(body).hexdigest()
    inline = body if digest is None else send_ahead(desk, node, digest, body)
    desk.send(node.session, m.OpenRound(job=job.id, round=number, body=inline, digest=digest))


def send_ahead(desk: Desk, node: Node, digest: str, body: bytes) -> bytes | None:
    """What a frame that brings this body is to hold of it: all, or None when it was too long and has been sent."""
    if len(body) <= INLINE_BODY:
        return body
    for offset in range(0, len(body), CHUNK):
        desk.send(node.session, m.BodyChunk(digest, offset, len(body), body[offset : offset + CHUNK]))
    return None


# ---- back


def take_report(desk: Desk, node: Node, report: m.Report) -> None:
    """Judge each end once, keep it, and acknowledge the report with the same commit. A number that was taken already
    stands for a report that was sent again, or for one of a machine whose disk went back in time (a copy, a backup):
    of that, too, an end that is still awaited counts."""
    again = report.number <= node.reported
    ended: dict[str, list[Ended]] = {}
    for end in report.tasks:
        grant = desk.cluster.grants.get(end.grant)
        if grant is not None and grant.node == node.name and end.position >= 0 and grant.is_open(end.position):
            job = desk.cluster.jobs[grant.job]
            judged = judge(job, grant, plausible.task_end(end), desk.now, drained=node.draining)
            ended.setdefault(grant.job, []).append(judged)
            _weigh(desk, node, grant, judged)
    phases: dict[str, list[m.PhaseEnd]] = {}
    for phase in report.phases:
        if phase.phase is m.Phase.RELEASE and phase.final and phase.job in node.clearing:
            node.clearing.discard(phase.job)
            desk.touch_pool(node.pool)
        if _is_its_own(desk, node, phase, again):
            if _is_unasked_release(desk, node, phase):
                resting.wasted(desk, node, desk.cluster.last_grant + 1)
            phases.setdefault(phase.job, []).append(_as_kept(desk, node, phase))
    for job_id in {**ended, **phases}:
        _keep_report(desk, node, report.number, job_id, ended.get(job_id, []), phases.get(job_id, []))
    desk.send(node.session, m.Ack(report.number))


def _weigh(desk: Desk, node: Node, grant: Grant, end: Ended) -> None:
    """An attempt that was killed and that nobody had stopped came to nothing; one that was lost proves nothing, as a
    task may take its keeper with it; any other is work that was done."""
    if end.outcome is not m.Outcome.KILLED:
        if end.outcome is not m.Outcome.LOST:
            resting.forgiven(desk, node)
    elif end.verdict is Verdict.LOST and _is_to_run(desk, grant, 1 << end.position):
        resting.wasted(desk, node, grant.id)


def _is_unasked_release(desk: Desk, node: Node, end: m.PhaseEnd) -> bool:
    """Whether it says that it has released what it was not told to: the next task there opens the next round."""
    job = desk.cluster.jobs.get(end.job)
    held = None if job is None else job.open_round(node.name)
    if held is None or held.round != end.round or end.phase is not m.Phase.RELEASE or not end.final:
        return False
    return held.state is not NodeJobState.RELEASING


def _is_its_own(desk: Desk, node: Node, end: m.PhaseEnd, again: bool) -> bool:
    """Whether the node was ever given this round: of others its word is worth nothing, not even a row. `again`: and
    whether it says more of it than is known."""
    job = desk.cluster.jobs.get(end.job)
    if job is None:
        return (end.job, end.round) in node.owes
    entry = job.current.get(node.name)
    if entry is None or entry.round != end.round:
        entry = next((entry for entry in job.rounds if (entry.node, entry.round) == (node.name, end.round)), None)
    view = None if entry is None else entry.view(end.phase)
    if view is not None and view.ends >= MAX_ENDS and (view.finished or not end.final):
        return False
    if entry is None or not again:
        return entry is not None
    return view is not None and (end.attempt > view.attempts or (end.final and not view.finished))


def _as_kept(desk: Desk, node: Node, end: m.PhaseEnd) -> m.PhaseEnd:
    """Of what is tried again and again only the first attempts and the last keep what they printed."""
    job = desk.cluster.jobs.get(end.job)
    entry = None if job is None else job.current.get(node.name)
    view = None if entry is None else entry.view(end.phase)
    if view is not None and view.ends >= MAX_PRINTED and not end.final:
        end = msgspec.structs.replace(end, stdout_tail=b"", stderr_tail=b"")
    return plausible.phase_end(end)


def _keep_report(
    desk: Desk, node: Node, number: int, job_id: str, ended: list[Ended], phases: list[m.PhaseEnd]
) -> None:
    job = desk.cluster.jobs.get(job_id)
    if job is None:
        for phase in phases:
            if phase.phase is m.Phase.RELEASE and phase.final and (job_id, phase.round) in node.owes:
                desk.keep(DebtPaid(job_id, node.name, phase.round, desk.now))
        return
    where = [(end, desk.cluster.grants[end.grant]) for end in ended if end.retry_at is not None]
    backoffs = [(end, grant.group, grant.index(end.position)) for end, grant in where]
    desk.keep(ReportTaken(job_id, node.name, node.incarnation, number, ended, phases, desk.now))
    for end, group, index in backoffs:
        _wait(desk, job, group, index, end)


def take_recalled(desk: Desk, node: Node, message: m.Recalled) -> None:
    """What never started comes back and keeps its attempt number."""
    grant = desk.cluster.grants.get(message.grant)
    if grant is None or grant.node != node.name:
        return
    grant.recalled = False
    kept = grant.open & ~mask_of(message.spans, grant.count)
    if kept != grant.open:
        if not grant.asked and _is_to_run(desk, grant, grant.open & ~kept):
            resting.wasted(desk, node, grant.id)
        return_all(desk, grant, Returned.RECALLED, keep_mask=kept)
    else:
        grant.kept_back = grant.open
    desk.touch(grant.job)


def _is_to_run(desk: Desk, grant: Grant, positions: int) -> bool:
    """Whether some of these positions (a bit mask) are to run at their node: they were not stopped, and their round
    takes tasks."""
    held = desk.cluster.jobs[grant.job].open_round(grant.node)
    runs = held is not None and held.state in (NodeJobState.PREPARING, NodeJobState.PREPARED)
    return runs and bool(positions & ~grant.stopping)


def grants_of(desk: Desk, job: Job) -> list[Grant]:
    """What of the job is out, node by node in the order in which it runs there."""
    nodes = (desk.cluster.nodes[name] for name in job.current)
    return [grant for node in nodes for grant in node.grants.values() if grant.job == job.id]


def withdraw(desk: Desk, job: Job) -> None:
    """Ask back all of the job that has not started, once in each session of a node."""
    for grant in grants_of(desk, job):
        node = desk.cluster.nodes[grant.node]
        if node.joined and not grant.withdrawn:
            grant.withdrawn = True
            if not grant.recalled:
                ask_back(desk, node, grant)


def ask_back(desk: Desk, node: Node, grant: Grant) -> None:
    """Have the node give back what of the grant has not started."""
    grant.recalled = grant.asked = True
    desk.send(node.session, m.Recall(grant.id))


def stop(desk: Desk, grant: Grant, wanted: int, reason: str) -> None:
    """Have a node in contact end these positions (a bit mask) of a grant, once in each of its sessions."""
    node = desk.cluster.nodes[grant.node]
    asked = grant.open & wanted & ~grant.stopping
    if asked and node.joined:
        grant.stopping |= asked
        desk.send(node.session, m.StopTasks(grant.id, spans_of(asked), reason))


def spans_of(mask: int) -> list[tuple[int, int]]:
    """The positions of a bit mask as runs (first, count)."""
    spans: list[tuple[int, int]] = []
    while mask:
        first = (mask & -mask).bit_length() - 1
        run = ((mask >> first) + 1 & ~(mask >> first)).bit_length() - 1
        spans.append((first, run))
        mask &= ~(((1 << run) - 1) << first)
    return spans


def mask_of(spans: list[tuple[int, int]], size: int) -> int:
    """The positions below `size` in these runs, as a bit mask. However often they are named, it costs little."""
    mask, whole = 0, (1 << size) - 1
    for first, count in spans:
        if first >= 0 and 0 < count <= size - first:
            mask |= ((1 << count) - 1) << first
            if mask == whole:
                break
    return mask


def take_started(desk: Desk, node: Node, message: m.Started) -> None:
    """Remember, for people, what has been running for a while."""
    for grant_id, position, at in message.tasks:
        grant = desk.cluster.grants.get(grant_id)
        if grant is not None and grant.node == node.name and position >= 0 and grant.is_open(position):
            grant.running[position] = plausible.wall(at)
    desk.changed()


def take_phase_started(desk: Desk, node: Node, message: m.PhaseStarted) -> None:
    """Remember, for people, that an attempt of a preparation or release began."""
    job = desk.cluster.jobs.get(message.job)
    node_job = job.current.get(node.name) if job is not None else None
    if node_job is not None and node_job.round == message.round:
        node_job.running[message.phase] = (plausible.number(message.attempt), plausible.wall(message.at))
        desk.changed()


def return_all(desk: Desk, grant: Grant, cause: Returned, keep_mask: int = 0) -> None:
    """Take back all of a grant that is open and not in `keep_mask`."""
    job = desk.cluster.jobs[grant.job]
    back = grant.open & ~keep_mask
    cancelling = job.groups[grant.group].cancelling
    ended = sum(1 << n for n in grant.open_positions() if grant.index(n) in cancelling) & back if cancelling else 0
    if job.state is JobState.TERMINATING:
        ended = back
    if back and cause is Returned.GONE:
        resting.wasted(desk, desk.cluster.nodes[grant.node], grant.id)
    for mask, over in ((ended, True), (back & ~ended, False)):
        if mask:
            desk.keep(
                TasksReturned(
                    grant.job, grant.id, spans_of(mask), cause, desk.now, grant.node, grant.group, grant.first,
                    grant.step, grant.attempt, over,
                )
            )  # fmt: skip


# ---- again


def _wait(desk: Desk, job: Job, group: int, index: int, end: Ended) -> None:
    if end.retry_at is None or index not in job.groups[group].waiting:
        return
    heap = desk.backoffs.setdefault((job.id, group), [])
    heapq.heappush(heap, (desk.now.boottime + desk.now.seconds_until(end.retry_at), index))
    desk.deadlines.set(("retry", job.id, str(group)), heap[0][0])


def backoff_over(desk: Desk, job_id: str, group_number: int) -> None:
    """Tasks whose backoff is over may run again."""
    job = desk.cluster.jobs.get(job_id)
    heap = desk.backoffs.get((job_id, group_number), [])
    while heap and heap[0][0] <= desk.now.boottime:
        index = heapq.heappop(heap)[1]
        if job is not None:
            job.groups[group_number].due(index)
    if heap and job is not None:
        desk.deadlines.set(("retry", job_id, str(group_number)), heap[0][0])
    else:
        desk.backoffs.pop((job_id, group_number), None)
    desk.touch(job_id)


def rearm(desk: Desk, job: Job) -> None:
    """After a restart, or after tasks that were over became active: backoffs go on where they were, and everything
    that ran and whose conditions hold is ready again."""
    readiness.rebuild(job)
    for group in job.groups:
        desk.backoffs.pop((job.id, group.number), None)  # of before its end
        heap = [
            (desk.now.boottime + max(0.0, desk.now.seconds_until(until)), index)
            for index, until in group.waiting.items()
        ]
        if heap:
            heapq.heapify(heap)
            desk.backoffs[(job.id, group.number)] = heap
            desk.deadlines.set(("retry", job.id, str(group.number)), heap[0][0])
