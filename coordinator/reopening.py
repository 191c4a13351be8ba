"""A completed job is reopened: what of it is made anew, and what stays as it was."""

from __future__ import annotations

from coordinator.model import Group, Job, JobState, TaskState
from coordinator.records import JobReopened


def reopen(job: Job, record: JobReopened) -> None:
    """Fold the record in. Its successes stay, so do the rounds of before and what they still owe; what runs again has
    all its retries, and no attempt has a number that an earlier one had."""
    job.move(JobState.ACTIVE)
    job.reopened += 1
    job.counted_from = record.at
    job.earlier_reason, job.end_reason = job.end_reason, None
    job.tasks_done_at = job.ending_at = job.completed_at = None
    job.stopped = job.forced = False
    job.failed = 0
    for number, spans in record.tasks:
        group = job.groups[number]
        for first, count in spans:
            for index in range(first, first + count):
                _take_back(group, index)
        if not group.counts[TaskState.SKIPPED]:
            group.skip_reason = None
        _set_cursor(group)


def _take_back(group: Group, index: int) -> None:
    last = group.history[index][-1][0] if index in group.history else 0
    attempt = max(group.attempts.get(index, 1), last + 1)
    if attempt > 1:
        group.attempts[index] = attempt
    for spent in (group.failures, group.losses, group.cancelled):
        spent.pop(index, None)
    for number in range(len(group.spec.command.arms)) if group.arm_retries else ():
        group.arm_retries.pop((index, number), None)
    if group.finished is not None:
        group.finished.started_at[index] = 0.0
    group.set_state(index, TaskState.ACTIVE)


def _set_cursor(group: Group) -> None:
    """From the cursor on nothing was ever tried."""
    touched = max((index for index in group.attempts if group.attempts[index] > 1), default=-1) + 1
    group.cursor = max(len(group.state.rstrip(b"%c" % TaskState.ACTIVE)), touched)
