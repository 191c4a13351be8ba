"""Why a job is as it is: what its first waiting tasks wait for, what its end still owes, and how it came to this."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from coordinator import why
from coordinator.ending import ALL_COMPLETE, ELIGIBLE_GRACE_S, NO_NODES, TASK_FAILED
from coordinator.model import Group, Job, JobState, Node, TaskState
from coordinator.preparation import OPEN, NodeJob
from coordinator.reasons import Cause, Code, Explanation, Told
from coordinator.records import NodeJobState
from coordinator.render import count_of, duration
from coordinator.why import MAX_STORY, View
from wire.messages import Phase
from wire.spec import Finish

MAX_GROUPS: Final = 10
"""Groups of which a waiting task is looked at."""
MAX_ROUNDS: Final = 100
"""Releases that are told one by one."""


def job(view: View, shown: Job) -> Explanation:
    """Why the job is as it is."""
    found = Explanation(shown.id, [])
    if shown.deleting:
        found.causes.append(Cause(Code.DELETING, "it is deleted: its nodes remove its directories"))
    if shown.state is JobState.COMPLETED:
        found.causes += _completed(shown)
    elif shown.state is JobState.TERMINATING:
        found.causes += _ending(view, shown)
    else:
        _active(view, shown, found)
    found.story = _story(shown)
    return found


# ---- active


def _active(view: View, shown: Job, found: Explanation) -> None:
    if shown.state is not JobState.ACTIVE:
        found.causes.append(Cause(Code.DISABLED, f"it is {shown.state.value}: nothing of it is handed out"))
    if shown.tasks_over and shown.spec.finish is Finish.MANUAL:
        found.causes.append(Cause(Code.OPEN, "all its tasks are over, and `finish = manual` keeps it open"))
    if shown.ineligible_since is not None:
        left = duration(ELIGIBLE_GRACE_S - view.now.seconds_since(shown.ineligible_since))
        sentence = f"its preparation failed on every node that could run it: it ends as {NO_NODES} in {left}"
        barred = next(name for name, r in shown.current.items() if r.state is NodeJobState.BARRED)
        found.causes.append(Cause(Code.INELIGIBLE, sentence, barred))
    if shown.granted:
        out = count_of(shown.granted, "task")
        nodes = count_of(len({r.node for r in shown.rounds if r.state in OPEN}), "node")
        found.causes.append(Cause(Code.RUNNING, f"{out} of it are out on {nodes}"))
    for group in islice(_waiting_groups(shown), MAX_GROUPS):
        _first_waiting(view, shown, group, found)


def _waiting_groups(shown: Job) -> Iterator[Group]:
    return (group for group in shown.groups if group.counts[TaskState.ACTIVE])


def _first_waiting(view: View, shown: Job, group: Group, found: Explanation) -> None:
    """The first task of the group that no node has stands for the others."""
    one = Explanation("", [])
    why.waiting(view, shown, group, group.state.index(TaskState.ACTIVE), one)
    tasks = f"`{group.spec.name}`: {group.counts[TaskState.ACTIVE]:,} of {count_of(group.size, 'task')} wait"
    first = one.causes[0]
    found.causes.append(Cause(first.code, f"{tasks}: {first.reason}", first.node))
    if not found.nodes:
        found.nodes, found.left_out = one.nodes, one.left_out


# ---- ending


def _ending(view: View, shown: Job) -> Iterator[Cause]:
    owed = [node_job for node_job in shown.rounds if node_job.state in OPEN]
    causes = [_release(view, shown, node_job) for node_job in owed[:MAX_ROUNDS]]
    for code in (Code.RELEASE_RUNS, Code.RELEASE_OUT_OF_CONTACT, Code.RELEASE_WAITS):
        yield from (cause for cause in causes if cause.code is code)


def _release(view: View, shown: Job, node_job: NodeJob) -> Cause:
    node = view.cluster.nodes[node_job.node]
    if not node.connected:
        return Cause(Code.RELEASE_OUT_OF_CONTACT, _grace(view, shown, node), node.name)
    if node_job.state is not NodeJobState.RELEASING:
        limit = shown.spec.release.parallel if shown.spec.release is not None else None
        allowed = f"`release` allows {count_of(limit, 'node')} at once" if limit is not None else "it is next"
        return Cause(Code.RELEASE_WAITS, f"node `{node.name}` owes its release: {allowed}", node.name)
    attempt, since = node_job.running.get(Phase.RELEASE, (node_job.release.attempts + 1, None))
    so_far = f" for {duration(view.now.wall - since)}" if since is not None else ""
    failed = f"; attempt {attempt - 1} failed: {node_job.release.reason or _status(node_job)}" if attempt > 1 else ""
    return Cause(Code.RELEASE_RUNS, f"its release runs on node `{node.name}`{so_far}{failed}", node.name)


def _status(node_job: NodeJob) -> str:
    code = node_job.release.exit_code
    return f"exit code {code}" if code is not None else f"signal {node_job.release.signal}"


def _grace(view: View, shown: Job, node: Node) -> str:
    silent = view.now.boottime - node.heard_at
    ended = view.now.seconds_since(shown.ending_at) if shown.ending_at is not None else 0.0
    left = max(0.0, shown.spec.release_grace_ms / 1000 - min(silent, ended))
    return (
        f"node `{node.name}` owes its release and is out of contact for {duration(silent)}: "
        f"the job completes without it in {duration(left)}"
    )


# ---- ended


def _completed(shown: Job) -> Iterator[Cause]:
    """What is still to be done about it, what went wrong in it, and how it ended, in this order."""
    yield from _debts(shown, NodeJobState.UNREACHED)
    early = shown.end_reason not in (ALL_COMPLETE, TASK_FAILED)
    if early:
        yield Cause(Code.ENDED_EARLY, f"it was ended before all its tasks were done: {shown.end_reason}")
    failed = sum(group.failed for group in shown.groups)
    if failed:
        yield Cause(Code.TASKS_FAILED, _failed(shown, failed))
    yield from _debts(shown, NodeJobState.RELEASE_FAILED)
    cancelled = sum(group.counts[TaskState.CANCELLED] for group in shown.groups)
    if cancelled:
        yield Cause(Code.TASKS_CANCELLED, f"tasks of it were cancelled: {cancelled:,}")
    if not early:
        yield Cause(Code.COMPLETED, f"it is completed ({shown.end_reason})")


def _debts(shown: Job, state: NodeJobState) -> Iterator[Cause]:
    """Rounds that were not paid, or paid badly."""
    for node_job in islice((r for r in shown.rounds if r.state is state), MAX_ROUNDS):
        where = f"node `{node_job.node}`"
        if state is NodeJobState.RELEASE_FAILED:
            reason = node_job.release.reason or _status(node_job)
            yield Cause(Code.RELEASE_FAILED, f"its release failed on {where}: {reason}", node_job.node)
        else:
            sentence = f"{where} still owes its release: {node_job.reason or 'it was not reached'}"
            yield Cause(Code.RELEASE_OWED, sentence, node_job.node)


def _failed(shown: Job, count: int) -> str:
    group = next(group for group in shown.groups if group.failed)
    index = group.state.index(TaskState.FAILED)
    end = group.history[index][-1][2] if index in group.history else None
    first = f"`{group.sweep.label(index)}`: {why.how(end)}"
    return f"{count_of(count, 'task')} failed for good, first in order {first}"


# ---- how it came to this


def _story(shown: Job) -> list[Told]:
    told = [Told(shown.submitted_at.wall, "it was submitted")]
    if shown.started_at is not None:
        told.append(Told(shown.started_at.wall, "its first task was handed out"))
    for node_job in shown.rounds:
        told += _of_phases(node_job)
    if shown.tasks_done_at is not None:
        told.append(Told(shown.tasks_done_at.wall, "its tasks were over"))
    if shown.ending_at is not None:
        told.append(Told(shown.ending_at.wall, f"it was ended: {shown.end_reason}"))
    if shown.completed_at is not None:
        told.append(Told(shown.completed_at.wall, "it was completed"))
    told.sort(key=lambda moment: moment.at)
    return told[:1] + told[1:][-(MAX_STORY - 1) :]


def _of_phases(node_job: NodeJob) -> Iterator[Told]:
    for name, seen in (("preparation", node_job.preparation), ("release", node_job.release)):
        if seen is not None and seen.ended_at is not None:
            how = "succeeded" if seen.succeeded else f"failed: {seen.reason or f'exit code {seen.exit_code}'}"
            yield Told(seen.ended_at, f"its {name} on `{node_job.node}` {how}")
