"""What people ask and order: each request is answered once, with facts or with a sentence and the nearest names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from coordinator import (
    access,
    admission,
    ending,
    explain,
    files,
    logs,
    nodes,
    on_end,
    pools,
    readers,
    shells,
    steering,
    submission,
    top,
    views,
)
from coordinator.desk import Desk
from coordinator.finding import RefusedError, find_job, find_node, find_own_job, find_task
from coordinator.model import OVER, Group, Job, JobState, Node, Pool, TaskState
from coordinator.sessions import Session, Until, Waiter
from coordinator.whereabouts import ACTIVE, COMPLETED, PREPARING, RUNNING, Look
from wire import messages as m
from wire.codec import encode_value
from wire.near import near

MAX_PAGE: Final = 10_000
PAGE_BYTES: Final = 200 * 1024
"""Of the rows of one page before the last one; that may be four tails of 64 KiB, and a frame still takes it."""
MAX_WAITS: Final = 100
"""Requests of one connection that wait at once."""
MAX_NAMED: Final = 500
"""Jobs that one waiting request names."""
MAX_ID: Final = 100
"""Letters of a job's id: no job has so many."""
MAX_DRAWN: Final = 200
"""Rows of a kind in an Overview; where there are more there are none."""
SHOWN_STATES: Final = (ACTIVE, PREPARING, RUNNING, COMPLETED)
RESULTS: Final = {
    "succeeded": TaskState.SUCCEEDED,
    "success": TaskState.SUCCEEDED,
    "failed": TaskState.FAILED,
    "failure": TaskState.FAILED,
    "cancelled": TaskState.CANCELLED,
    "skipped": TaskState.SKIPPED,
}


def _one_of(*states: TaskState) -> re.Pattern[bytes]:
    return re.compile(b"[%s]" % bytes(states))


_OVER: Final = {COMPLETED: _one_of(*OVER), **{name: _one_of(state) for name, state in RESULTS.items()}}
"""Bytes of tasks that are over."""


def handle(desk: Desk, session: Session, message: m.Message) -> None:
    """Answer one request of a person's session."""
    answer = _ANSWERS.get(type(message))
    if answer is None:
        desk.close(session.epoch, f"{type(message).__name__} is no request")
        return
    try:
        answer(desk, session, message)
    except RefusedError as refused:
        request: int = message.request  # type: ignore[attr-defined]
        desk.refuse(
            session.epoch, request, refused.code, refused.message, near=refused.close, help=refused.way_out
        )  # fmt: skip


# ---- answers


def _job_list(desk: Desk, session: Session, message: m.JobList) -> None:
    jobs = islice(access.jobs(desk, session), max(0, message.skip), None)
    look = Look(desk.cluster)
    desk.reply(session.epoch, message.request, _fitting(views.job(desk.cluster, job, look=look) for job in jobs))


def _fitting(rows: Iterable[views.Plain]) -> list[views.Plain]:
    """As many as a frame surely takes, one at least."""
    taken: list[views.Plain] = []
    size = 0
    for row in rows:
        taken.append(row)
        size += len(encode_value(row))
        if size >= PAGE_BYTES:
            break
    return taken


def _job_show(desk: Desk, session: Session, message: m.JobShow) -> None:
    job = find_job(desk, session, message.job)
    called = on_end.shown(job, output=access.may_act(desk, session, job))
    shown = views.job(desk.cluster, job, alone=True)
    desk.reply(session.epoch, message.request, shown if called is None else {**shown, "on_end": called})


def _job_nodes(desk: Desk, session: Session, message: m.JobNodes) -> None:
    job = find_job(desk, session, message.job)
    rounds = islice(job.rounds, max(0, message.skip), None)
    tails = access.may_act(desk, session, job)  # what a command wrote is not for all who may look
    desk.reply(session.epoch, message.request, _fitting(views.job_node(node_job, tails) for node_job in rounds))


def _job_wait(desk: Desk, session: Session, message: m.JobWait) -> None:
    job = find_job(desk, session, message.job)
    until = Until.TASKS_OVER if message.tasks else Until.JOB_OVER
    _wait(desk, Waiter(session.epoch, message.request, until, job.id))


def _wait(desk: Desk, waiter: Waiter) -> None:
    if sum(other.session == waiter.session for other in desk.waiters) >= MAX_WAITS:
        raise RefusedError(
            m.RefusalCode.REFUSED, f"{MAX_WAITS} requests of this connection wait already: wait for fewer at once"
        )
    desk.waiters.append(waiter)


def _job_terminate(desk: Desk, session: Session, message: m.JobTerminate) -> None:
    job = find_own_job(desk, session, message.job)
    if job.state is JobState.COMPLETED:
        raise RefusedError(m.RefusalCode.FAILED, f"job `{job.id}` is over already ({job.end_reason})")
    ending.end(desk, job, message.reason.strip()[:1000] or ending.USER, message.force)
    desk.reply(session.epoch, message.request, views.job(desk.cluster, job))


def _job_delete(desk: Desk, session: Session, message: m.JobDelete) -> None:
    job = find_own_job(desk, session, message.job)
    _wait(desk, Waiter(session.epoch, message.request, Until.JOB_GONE, job.id))
    ending.delete(desk, job)


def _task_list(desk: Desk, session: Session, message: m.TaskList) -> None:
    job = find_job(desk, session, message.job)
    if message.state is not None and message.state not in SHOWN_STATES and message.state not in RESULTS:
        states = [*SHOWN_STATES, "succeeded", "failed", "cancelled", "skipped"]
        raise RefusedError(
            m.RefusalCode.INVALID,
            f"`{message.state[:80]}` is no state of a task: {', '.join(states)}",
            near(message.state, states),
        )
    groups = job.groups
    if message.group is not None:
        groups = [group for group in job.groups if group.spec.name == message.group]
        if not groups:
            names = [group.spec.name for group in job.groups]
            raise RefusedError(
                m.RefusalCode.UNKNOWN,
                f"job `{job.id}` has no task group `{message.group[:80]}`",
                near(message.group, names),
            )
    start = (-1, -1)
    if message.after is not None:
        name = message.after if "/" in message.after else f"{job.id}/{message.after}"
        _, group, index = find_task(desk, session, name)
        start = (group.number, index)
    limit = max(1, min(message.limit, MAX_PAGE))
    desk.reply(session.epoch, message.request, _fitting(islice(_found(desk, job, groups, message, start), limit)))


def _found(
    desk: Desk, job: Job, groups: list[Group], message: m.TaskList, start: tuple[int, int]
) -> Iterator[views.Plain]:
    look = Look(desk.cluster)
    for group in groups:
        if group.number < start[0]:
            continue
        first = start[1] + 1 if group.number == start[0] else 0
        for index in _indices(look, job, group, first, message.state):
            yield views.task(look, job, group, index)


def _indices(look: Look, job: Job, group: Group, first: int, state: str | None) -> Iterable[int]:
    """Of the tasks in the state asked for, from `first` on: found among millions without looking at each."""
    if state is None:
        return range(first, group.size)
    if (over := _OVER.get(state)) is None:
        return look.tasks(job, group, state, first)
    return (found.start() for found in over.finditer(group.state, first))


def _task_show(desk: Desk, session: Session, message: m.TaskShow) -> None:
    job, group, index = find_task(desk, session, message.task)
    shown = views.task(Look(desk.cluster), job, group, index, history=True)
    if shown["reason"] is None and group.state[index] == TaskState.ACTIVE:
        shown["reason"] = explain.reason(desk, session, job, group, index)
    desk.reply(session.epoch, message.request, shown)


def _node_list(desk: Desk, session: Session, message: m.NodeList) -> None:
    page = islice(desk.cluster.nodes.values(), max(0, message.skip), None)
    desk.reply(session.epoch, message.request, _fitting(_node(desk, session, node) for node in page))


def _node(desk: Desk, session: Session, node: Node) -> views.Plain:
    return views.node(node, desk.now, access.owes(desk, session, node))


def _node_with_tails(desk: Desk, session: Session, node: Node) -> views.Plain:
    """What a start wrote is its pool's operators' to read."""
    operates = access.may_operate(desk, session, node.pool.name)
    return views.node(node, desk.now, access.owes(desk, session, node), tails=operates)


def _pool(desk: Desk, session: Session, pool: Pool, alone: bool = False) -> views.Plain:
    """One of many is told without what its start runs: that may be long. It is its operators' to read."""
    texts = alone and access.may_operate(desk, session, pool.name)
    return {**views.pool(pool, access.pool_jobs(desk, session, pool)), "start": pools.start_shown(pool, texts)}


def _node_show(desk: Desk, session: Session, message: m.NodeShow) -> None:
    node = find_node(desk, message.node)
    quarantined = views.quarantined(desk.cluster, node, lambda job: access.may_look(desk, session, job))
    desk.reply(session.epoch, message.request, {**_node_with_tails(desk, session, node), "quarantined": quarantined})


def _node_drain(desk: Desk, session: Session, message: m.NodeDrain) -> None:
    node = nodes.drain(desk, session, message)
    if message.wait:
        _wait(desk, Waiter(session.epoch, message.request, Until.NODE_DRAINED, node=node.name))
    else:
        nodes.reply(desk, session, message.request, node)


def _pool_list(desk: Desk, session: Session, message: m.PoolList) -> None:
    desk.reply(session.epoch, message.request, [_pool(desk, session, pool) for pool in desk.cluster.pools.values()])


def _pool_show(desk: Desk, session: Session, message: m.PoolShow) -> None:
    pool = desk.cluster.pools.get(message.pool)
    if pool is None:
        raise RefusedError(
            m.RefusalCode.UNKNOWN,
            f"there is no pool `{message.pool[:200]}`",
            near(message.pool, desk.cluster.pools),
            "`coordinator pool list` shows those there are",
        )
    desk.reply(session.epoch, message.request, _pool(desk, session, pool, alone=True))


def _overview(desk: Desk, session: Session, message: m.Overview) -> None:
    if len(message.jobs) > MAX_NAMED:
        raise RefusedError(m.RefusalCode.INVALID, f"an overview is of {MAX_NAMED} jobs at most, or of all")
    waiter = Waiter(session.epoch, message.request, Until.CHANGED)
    waiter.jobs, waiter.seen = [name[:MAX_ID] for name in message.jobs], message.changed
    _wait(desk, waiter)


def _finish(desk: Desk, session: Session, message: m.Finish) -> None:
    ending.finish_all(desk, message.reason[:1000])
    desk.reply(session.epoch, message.request, {})


def _submit(desk: Desk, session: Session, message: m.Submit) -> None:
    submission.submit(desk, session, message)


_ANSWERS: Final[dict[type[m.Message], Callable[..., None]]] = {
    m.Submit: _submit,
    m.JobList: _job_list,
    m.JobShow: _job_show,
    m.JobNodes: _job_nodes,
    m.JobWait: _job_wait,
    m.JobTerminate: _job_terminate,
    m.JobDelete: _job_delete,
    m.TaskList: _task_list,
    m.TaskShow: _task_show,
    m.Explain: explain.answer,
    m.NodeList: _node_list,
    m.NodeShow: _node_show,
    m.NodeDrain: _node_drain,
    m.PoolList: _pool_list,
    m.PoolShow: _pool_show,
    m.LogRead: logs.read_log,
    m.FilesRead: files.read_file,
    m.FilesList: files.list_files,
    m.EventsRead: readers.read,
    m.Overview: _overview,
    m.Top: top.answer,
    m.Finish: _finish,
    **admission.ANSWERS,
    **nodes.ANSWERS,
    **shells.ANSWERS,
    **steering.ANSWERS,
}
"""`Upload` never gets here: the shell keeps blobs, and a Submit that names one arrives with its document."""


# ---- those who wait


def answer_waiters(desk: Desk) -> None:
    """Answer every request whose wait is over."""
    if not desk.waiters:
        return
    still: list[Waiter] = []
    for waiter in desk.waiters:
        body = _awaited(desk, waiter)
        if body is None:
            still.append(waiter)
        else:
            desk.reply(waiter.session, waiter.request, body)
    desk.waiters = still


def _awaited(desk: Desk, waiter: Waiter) -> Any:
    """What the waiter gets, or None while it waits."""
    if waiter.until is Until.NODE_DRAINED:
        node = desk.cluster.nodes[waiter.node]
        return _node(desk, desk.sessions[waiter.session], node) if nodes.is_drained(desk, node) else None
    if waiter.until is Until.CHANGED:
        return _overview_body(desk, waiter) if waiter.seen != desk.version else None
    job = desk.cluster.jobs.get(waiter.job)
    if job is None:
        return {"id": waiter.job, "state": "deleted"}
    over = job.state is JobState.COMPLETED
    if waiter.until is Until.TASKS_OVER:
        over = over or job.tasks_done_at is not None
    if waiter.until is Until.JOB_GONE:
        over = False
    return views.job(desk.cluster, job) if over else None


def _overview_body(desk: Desk, waiter: Waiter) -> views.Plain:
    session = desk.sessions[waiter.session]
    desk.account(session.owner)
    named = (desk.cluster.jobs[name] for name in waiter.jobs if name in desk.cluster.jobs)
    jobs = [job for job in named if access.may_look(desk, session, job)]
    if not waiter.jobs:
        jobs = list(access.jobs(desk, session))
    known = desk.cluster.nodes.values()
    rows, look = sum(len(job.rounds) for job in jobs) <= MAX_DRAWN, Look(desk.cluster)
    body = {
        "changed": desk.version,
        "jobs": [_overview_of(look, desk, job, rows) for job in jobs] if len(jobs) <= MAX_DRAWN else [],
        "nodes": [_node(desk, session, node) for node in known] if len(known) <= MAX_DRAWN else [],
    }
    desk.account(None)
    return body


def _overview_of(look: Look, desk: Desk, job: Job, rows: bool) -> views.Plain:
    """A job to be drawn again and again: its nodes without their outputs, and only counted where they are many."""
    drawn = [views.job_node(node_job, tails=False) for node_job in job.rounds] if rows else []
    return {**views.job(desk.cluster, job, look=look), "nodes": drawn, "node_states": views.node_states(job)}
