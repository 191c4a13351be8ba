"""What its owner and operators do to a job that lives: disable and enable it, change it, cancel tasks of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from coordinator import access, disabling, ending, views, work
from coordinator.desk import Desk
from coordinator.finding import RefusedError, check_own, find_own_job, find_task
from coordinator.model import OVER, Group, Job, JobState, TaskState
from coordinator.records import JobChanged, JobMoved, JobReopened, TaskCancelled
from coordinator.sessions import Session
from coordinator.whereabouts import Look
from wire import bounds
from wire import messages as m

Chosen = dict[int, list[tuple[int, int]]]
"""Tasks by their groups' numbers, as runs (first, count)."""

_STATES: Final = {
    m.Unsuccess.FAILED: TaskState.FAILED,
    m.Unsuccess.SKIPPED: TaskState.SKIPPED,
    m.Unsuccess.CANCELLED: TaskState.CANCELLED,
}
_HOW: Final = {
    TaskState.SUCCEEDED: "succeeded",
    TaskState.FAILED: "failed",
    TaskState.SKIPPED: "was skipped",
    TaskState.CANCELLED: "was cancelled",
}
MAX_NAMED: Final = 1_000
"""Tasks that one request names."""
MAX_STEERED: Final = 20_000
"""Rows of one job about what people did to it; those who let it go on, cancel tasks or end it are always heard."""
NO_LIMIT: Final = 0
"""As a request says it of `parallel` and `timeout`."""


def _find_live(desk: Desk, session: Session, name: str) -> Job:
    job = find_own_job(desk, session, name)
    if not job.live or job.deleting:
        what = "is being deleted" if job.deleting else f"is {job.state.value} ({job.end_reason})"
        when = "" if job.state is JobState.COMPLETED else ", once it is completed"
        way_out = None if job.deleting else f"`coordinator job retry {job.id}` reopens it{when}"
        raise RefusedError(m.RefusalCode.FAILED, f"job `{job.id}` {what}", way_out=way_out)
    return job


def _check_steered(job: Job) -> None:
    """The ledger is nobody's to fill. Raises RefusedError."""
    if job.steered >= MAX_STEERED:
        raise RefusedError(
            m.RefusalCode.REFUSED,
            f"job `{job.id}` was disabled, changed or reopened {MAX_STEERED:,} times already",
            way_out="submit it anew",
        )


def _job_disable(desk: Desk, session: Session, message: m.JobDisable) -> None:
    job = _find_live(desk, session, message.job)
    again = job.disabled is not None and (job.state is JobState.DISABLED or job.disabled.how is message.how)
    if not again:
        _check_steered(job)
        desk.keep(JobMoved(job.id, JobState.DISABLING, message.how, session.owner, desk.now))
        disabling.look_at(desk, job)
    desk.reply(session.epoch, message.request, views.job(desk.cluster, job))


def _job_enable(desk: Desk, session: Session, message: m.JobEnable) -> None:
    job = _find_live(desk, session, message.job)
    if job.disabled is not None:
        if job.being_stopped:
            raise RefusedError(
                m.RefusalCode.FAILED,
                f"job `{job.id}` is being disabled: what runs of it is being stopped",
                way_out=f"enable it when `coordinator job show {job.id}` says `disabled`",
            )
        for state in (JobState.ENABLING, JobState.ACTIVE):
            desk.keep(JobMoved(job.id, state, None, session.owner, desk.now))
    desk.reply(session.epoch, message.request, views.job(desk.cluster, job))


def _job_set(desk: Desk, session: Session, message: m.JobSet) -> None:
    job = _find_live(desk, session, message.job)
    _check_bounds(message)
    spec = job.spec
    priority = spec.priority if message.priority is None else message.priority
    parallel = spec.parallel if message.parallel is None else message.parallel or None
    timeout_ms = spec.timeout_ms if message.timeout_ms is None else message.timeout_ms or None
    if not access.may_operate(desk, session, spec.pool):
        _check_within_submitted(job, priority, timeout_ms)
    if (priority, parallel, timeout_ms) != (spec.priority, spec.parallel, spec.timeout_ms):
        _check_steered(job)
        desk.keep(JobChanged(job.id, priority, parallel, timeout_ms, session.owner, desk.now))
        ending.rearm(desk, job)
        ending.look_at(desk, job)  # a timeout that has passed ends it, and the answer says so
    desk.reply(session.epoch, message.request, views.job(desk.cluster, job))


def _check_bounds(message: m.JobSet) -> None:
    allowed = (
        ("priority", message.priority, -bounds.MAX_PRIORITY, bounds.MAX_PRIORITY),
        ("parallel", message.parallel, NO_LIMIT, bounds.MAX_TASKS),
        ("timeout", message.timeout_ms, NO_LIMIT, bounds.MAX_DURATION_MS),
    )
    for option, value, least, most in allowed:
        if value is not None and not least <= value <= most:
            raise RefusedError(m.RefusalCode.INVALID, f"{option} is {least} to {most}, found {value}")


def _check_within_submitted(job: Job, priority: int, timeout_ms: int | None) -> None:
    """As in other clusters: whoever owns a job may hold it back and let it go again, but not give himself more."""
    asked = job.submitted
    raised = []
    if priority > max(asked.priority, job.spec.priority):
        raised.append(f"its priority above {max(asked.priority, job.spec.priority)}")
    if asked.timeout_ms is not None and (timeout_ms is None or timeout_ms > asked.timeout_ms):
        now_ms = job.spec.timeout_ms
        if now_ms is not None and (timeout_ms is None or timeout_ms > now_ms):
            raised.append(f"its timeout beyond the {asked.timeout_ms / 1000:g}s that it was submitted with")
    if raised:
        raise RefusedError(
            m.RefusalCode.REFUSED,
            f"only the operators of pool `{job.spec.pool}` may set {' or '.join(raised)}",
            way_out="ask one of them",
        )


def _job_retry(desk: Desk, session: Session, message: m.JobRetry) -> None:
    job = find_own_job(desk, session, message.job)
    if job.state is not JobState.COMPLETED or job.deleting:
        now = "is being deleted" if job.deleting else f"is {job.state.value}"
        raise RefusedError(m.RefusalCode.FAILED, f"job `{job.id}` {now}: only what is completed is reopened")
    if (refusal := desk.why_nothing_new()) is not None:
        raise RefusedError(m.RefusalCode.REFUSED, refusal)
    _check_steered(job)
    states = {_STATES[ended] for ended in message.which} or set(_STATES.values())
    chosen = _chosen_by_name(desk, session, job, message.tasks, states) if message.tasks else _chosen(job, states)
    if not any(chosen.values()):
        ended = " or ".join(sorted(state.name.lower() for state in states))
        raise RefusedError(m.RefusalCode.FAILED, f"job `{job.id}` has no {ended} task: there is nothing to retry")
    _add_skipped_dependents(job, chosen, set() if message.tasks else states)
    tasks = [(number, spans) for number, spans in sorted(chosen.items()) if spans]
    desk.keep(JobReopened(job.id, tasks, session.owner, desk.now))
    work.rearm(desk, job)
    ending.rearm(desk, job)
    retried = sum(count for _, spans in tasks for _, count in spans)
    desk.reply(session.epoch, message.request, {**views.job(desk.cluster, job), "retried": retried})


def _chosen(job: Job, states: set[TaskState]) -> Chosen:
    return {group.number: group.spans_in(states) for group in job.groups}


def _chosen_by_name(desk: Desk, session: Session, job: Job, names: list[str], states: set[TaskState]) -> Chosen:
    if len(names) > MAX_NAMED:
        raise RefusedError(m.RefusalCode.INVALID, f"at most {MAX_NAMED} tasks are named at once")
    indices: dict[int, set[int]] = {}
    for name in names:
        found, group, index = find_task(desk, session, name if "/" in name else f"{job.id}/{name}")
        label = f"{found.id}/{group.sweep.label(index)}"
        if found is not job:
            raise RefusedError(m.RefusalCode.INVALID, f"task `{label}` is none of job `{job.id}`")
        state = TaskState(group.state[index])
        if state not in states:
            raise RefusedError(m.RefusalCode.FAILED, f"task `{label}` {_HOW[state]}: it is not retried")
        indices.setdefault(group.number, set()).add(index)
    return {number: [(index, 1) for index in sorted(some)] for number, some in indices.items()}


def _add_skipped_dependents(job: Job, chosen: Chosen, states: set[TaskState]) -> None:
    """What was skipped because of what runs again may run as well; what still can not is skipped once more."""
    again = {number for number, spans in chosen.items() if spans}
    grew = True
    while grew:
        grew = False
        for group in job.groups:
            if group.number not in again and group.counts[TaskState.SKIPPED] and again.intersection(_sources(group)):
                again.add(group.number)
                grew = True
    for number in again:
        group = job.groups[number]
        if group.counts[TaskState.SKIPPED] and again.intersection(_sources(group)):
            named = (
                [] if states else [run for run in chosen.get(number, []) if group.state[run[0]] != TaskState.SKIPPED]
            )
            chosen[number] = sorted(group.spans_in(states | {TaskState.SKIPPED}) + named)


def _sources(group: Group) -> set[int]:
    """The groups that it waits for."""
    return {after.group for after in group.spec.after}


def _task_cancel(desk: Desk, session: Session, message: m.TaskCancel) -> None:
    job, group, index = find_task(desk, session, message.task)
    check_own(desk, session, job)
    name = f"{job.id}/{group.sweep.label(index)}"
    if TaskState(group.state[index]) in OVER:
        shown = views.task(Look(desk.cluster), job, group, index)
        raise RefusedError(m.RefusalCode.FAILED, f"task `{name}` is over already: {shown['result']}")
    _cancel(desk, job, group, index, f"cancelled by {session.owner}")
    desk.reply(session.epoch, message.request, views.task(Look(desk.cluster), job, group, index))


def _cancel(desk: Desk, job: Job, group: Group, index: int, reason: str) -> None:
    if index not in group.cancelling:
        span = [(index, 1)]
        out = group.state[index] == TaskState.GRANTED
        desk.keep(TaskCancelled(job.id, group.number, [] if out else span, span if out else [], reason, desk.now))
        disabling.look_at(desk, job)


ANSWERS: Final[dict[type[m.Message], Callable[..., None]]] = {
    m.JobDisable: _job_disable,
    m.JobEnable: _job_enable,
    m.JobSet: _job_set,
    m.JobRetry: _job_retry,
    m.TaskCancel: _task_cancel,
}
