"""The command that a job's `on_end` names, run on this machine when the job is over: at least once, and again a few
times when it fails. That it ended is a record, so what a crash cut off is run again.
"""

from __future__ import annotations

from typing import Final

from coordinator.desk import Desk
from coordinator.events import EndCall, EndCallOver
from coordinator.model import Job
from coordinator.records import EndCalled
from coordinator.views import job_result
from wire import template
from wire.instant import Instant

ATTEMPTS: Final = 3
RETRY_S: Final = (5.0, 30.0)
"""After the first attempt that failed, and after the second."""
MAX_OUTPUT: Final = 4096
"""Bytes of the end of what it wrote that are kept."""
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_ALLOWED: Final = "the coordinator's configuration does not allow it any more"


def look_at(desk: Desk, job: Job) -> None:
    """The job may be one whose `on_end` is due."""
    if not job.owes_call or job.id in desk.calls or job.id in desk.calls_due:
        return
    last = job.end_call
    if last is not None and last.retry_at is not None and desk.now.seconds_until(last.retry_at) > 0:
        desk.arm(("call", job.id), last.retry_at)
        return
    desk.calls_due[job.id] = None
    _start(desk)


def take_over(desk: Desk, over: EndCallOver) -> None:
    """It was run, and ended."""
    completed_at = desk.calls.pop(over.job, None)
    job = desk.cluster.jobs.get(over.job)
    if job is not None and job.owes_call and job.completed_at == completed_at:  # else it went on meanwhile
        _keep(desk, job, over)
    _start(desk)
    desk.touch(over.job)


def shown(job: Job, *, output: bool) -> dict[str, object] | None:
    """How it stands with it, for `job show`; None: there is none. `output`: what it wrote may be seen."""
    if job.spec.on_end is None:
        return None
    last = job.end_call
    if last is None:
        return {"state": "owed" if job.owes_call else "waiting", "attempts": 0}
    state = "owed" if not last.final else "succeeded" if last.exit_code == 0 else "failed"
    said = last.output.decode("utf-8", "replace") if output else ""
    return {
        "state": state, "attempts": last.attempt, "exit_code": last.exit_code, "signal": last.signal,
        "reason": last.reason, "output": said,
    }  # fmt: skip


def _start(desk: Desk) -> None:
    while desk.calls_due and len(desk.calls) < desk.policy.end_calls.at_once:
        job_id = next(iter(desk.calls_due))
        del desk.calls_due[job_id]
        job = desk.cluster.jobs.get(job_id)
        if job is not None and job.owes_call:
            _call(desk, job)


def _call(desk: Desk, job: Job) -> None:
    attempt = _attempt(job)
    try:
        argv = _rendered(job)
    except template.TemplateError as error:
        _keep(desk, job, EndCallOver(job.id, None, None, f"its arguments have no value: {error}", b""), final=True)
        return
    if not desk.policy.end_calls.allowed:
        _keep(desk, job, EndCallOver(job.id, None, None, NOT_ALLOWED, b""), final=True)
        return
    desk.calls[job.id] = job.completed_at
    desk.ready.calls.append(EndCall(job.id, attempt, argv, _environment(job, attempt)))


def _attempt(job: Job) -> int:
    return 1 if job.end_call is None else job.end_call.attempt + 1


def _rendered(job: Job) -> list[str]:
    scope = template.Scope([], {"job.id": job.id, "job.name": job.spec.name}, {})
    return [template.render(word, scope).replace("\0", "") for word in job.spec.on_end or []]


def _environment(job: Job, attempt: int) -> dict[str, str]:
    """Built from nothing."""
    told = {
        "BATCH_JOB_ID": job.id, "BATCH_JOB_NAME": job.spec.name, "BATCH_POOL_ID": job.spec.pool,
        "BATCH_RESULT": job_result(job) or "", "BATCH_END_REASON": job.end_reason or "", "BATCH_ATTEMPT": str(attempt),
    }  # fmt: skip
    return {"PATH": PATH, "HOME": "/", "LANG": "C.UTF-8"} | {k: v.replace("\0", "") for k, v in told.items()}


def _keep(desk: Desk, job: Job, over: EndCallOver, *, final: bool = False) -> None:
    attempt = _attempt(job)
    final = final or over.exit_code == 0 or attempt >= ATTEMPTS or desk.finishing is not None
    retry_at: Instant | None = None if final else desk.now.after(RETRY_S[min(attempt, len(RETRY_S)) - 1])
    output = over.output[-MAX_OUTPUT:]
    desk.keep(EndCalled(job.id, attempt, final, over.exit_code, over.signal, over.reason, output, desk.now, retry_at))
