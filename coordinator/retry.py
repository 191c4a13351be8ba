"""The one policy of retries of tasks: what the end of an attempt means for the task."""

from __future__ import annotations

from typing import Final

from coordinator.model import Grant, Group, Job, JobState
from coordinator.records import Ended, Verdict
from wire.instant import Instant
from wire.messages import Outcome, TaskEnd
from wire.retry import delay_s

MAX_LOSSES: Final = 5
"""A task that takes its keeper with it so often has failed: it, and not the node, is what is broken."""


def judge(job: Job, grant: Grant, end: TaskEnd, now: Instant) -> Ended:
    """The verdict on one attempt of a task of `job`."""
    group, index = job.groups[grant.group], grant.index(end.position)
    verdict = _verdict(job, group, index, end)
    retry_at, reason = None, end.reason
    if verdict is Verdict.RETRY:
        seed = f"{job.id}/{group.spec.name}#{index}"
        delay = delay_s(group.spec.command.backoff, group.failures.get(index, 0) + 1, seed)
        retry_at = now.after(delay) if delay > 0 else None
    if verdict is Verdict.FAILED and end.outcome is Outcome.LOST:
        reason = f"it was lost {MAX_LOSSES + 1} times with the process that ran it; last: {end.reason or 'unknown'}"
    return Ended(
        end.grant, end.position, verdict, end.outcome, end.exit_code, end.signal, end.started_at, end.ended_at,
        end.cpu_s, end.max_rss_bytes, reason, retry_at,
    )  # fmt: skip


def _verdict(job: Job, group: Group, index: int, end: TaskEnd) -> Verdict:
    if end.outcome is Outcome.EXITED and end.exit_code == 0:
        return Verdict.SUCCEEDED
    ending = job.state is not JobState.ACTIVE
    if end.outcome in (Outcome.KILLED, Outcome.LOST):
        if ending:
            return Verdict.CANCELLED
        if end.outcome is Outcome.LOST and group.losses.get(index, 0) >= MAX_LOSSES:
            return Verdict.FAILED
        return Verdict.LOST
    retries = group.spec.command.retries
    may_retry = retries is None or group.failures.get(index, 0) < retries
    return Verdict.RETRY if may_retry and not ending else Verdict.FAILED
