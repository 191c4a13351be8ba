"""The one policy of retries of tasks: what the end of an attempt means for the task."""

from __future__ import annotations

from typing import Final

from coordinator.model import Grant, Group, Job, JobState
from coordinator.records import Ended, Verdict
from wire.arms import first_match, own_retries, unless_named
from wire.instant import Instant
from wire.messages import Disabling, Outcome, TaskEnd
from wire.retry import wait_s
from wire.spec import ExitAction

MAX_LOSSES: Final = 5
"""A task that takes its keeper with it so often has failed: it, and not the node, is what is broken."""


def judge(job: Job, grant: Grant, end: TaskEnd, now: Instant, *, drained: bool = False) -> Ended:
    """The verdict on one attempt of a task of `job`; `drained`: its node is being emptied, and may have killed it."""
    group, index = job.groups[grant.group], grant.index(end.position)
    arm = first_match(group.spec.command.arms, end.outcome, end.exit_code, end.signal)
    verdict = _verdict(job, group, index, end, arm)
    if drained and verdict is Verdict.LOST and end.outcome is Outcome.KILLED:
        verdict = Verdict.DRAINED
    retry_at, reason = None, end.reason
    if verdict is Verdict.RETRY:
        retry_at = _retry_at(job, group, index, end, arm, now)
    if verdict is Verdict.FAILED and end.outcome is Outcome.LOST:
        reason = f"it was lost {MAX_LOSSES + 1} times with the process that ran it; last: {end.reason or 'unknown'}"
    return Ended(
        end.grant, end.position, verdict, end.outcome, end.exit_code, end.signal, end.started_at, end.ended_at,
        end.cpu_s, end.max_rss_bytes, reason, retry_at, arm, grant.group, index, grant.attempt,
    )  # fmt: skip


def _verdict(job: Job, group: Group, index: int, end: TaskEnd, arm: int | None) -> Verdict:
    ending = job.state is JobState.TERMINATING or index in group.cancelling
    if end.outcome in (Outcome.KILLED, Outcome.LOST):
        if ending:
            return Verdict.CANCELLED
        if end.outcome is Outcome.KILLED and job.disabled is not None:
            return Verdict.FAILED if job.disabled.how is Disabling.TERMINATE else Verdict.REQUEUED
        if end.outcome is Outcome.LOST and group.losses.get(index, 0) >= MAX_LOSSES:
            return Verdict.FAILED
        return Verdict.LOST
    action = _action(group, end, arm)
    if action is ExitAction.SUCCEED:
        return Verdict.SUCCEEDED
    if action is not ExitAction.RETRY or ending:
        return Verdict.FAILED
    spent, limit = budget(group, index, arm)
    return Verdict.RETRY if limit is None or spent < limit else Verdict.FAILED


def _action(group: Group, end: TaskEnd, arm: int | None) -> ExitAction:
    """What its arm says, or what is so where none does."""
    if arm is not None:
        return group.spec.command.arms[arm].action
    return unless_named(end.outcome, end.exit_code)


def budget(group: Group, index: int, arm: int | None) -> tuple[int, int | None]:
    """Retries spent, and how many there are (None: no limit)."""
    own, limit = own_retries(group.spec.command, arm)
    if arm is not None and own:
        return group.arm_retries.get((index, arm), 0), limit
    return group.failures.get(index, 0), limit


def _retry_at(job: Job, group: Group, index: int, end: TaskEnd, arm: int | None, now: Instant) -> Instant | None:
    """Not before when; None: at once."""
    command = group.spec.command
    backoff = command.arms[arm].backoff if arm is not None else None
    seed = f"{job.id}/{group.spec.name}#{index}"
    delay = wait_s(backoff or command.backoff, end.outcome, *budget(group, index, arm), seed)
    return now.after(delay) if delay > 0 else None
