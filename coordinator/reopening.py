"""A completed job is reopened: what of it is made anew, and what stays as it was."""

from __future__ import annotations

from array import array

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
            _take_back(group, first, count)
        _begin_anew(group)
        if not group.counts[TaskState.SKIPPED]:
            group.skip_reason = None
        _set_cursor(group)


def _take_back(group: Group, first: int, count: int) -> None:
    """At once: it may be a million tasks."""
    before = group.state[first : first + count]
    for state in TaskState:
        group.counts[state] -= before.count(state)
    group.counts[TaskState.ACTIVE] += count
    group.state[first : first + count] = bytes([TaskState.ACTIVE]) * count
    if group.finished is not None:
        group.finished.started_at[first : first + count] = array("d", bytes(8 * count))


def _begin_anew(group: Group) -> None:
    """Of those that something is remembered of. What is active now was taken back: nothing else was."""
    for index in [index for index in {**group.attempts, **group.history} if not group.state[index]]:
        last = group.history[index][-1][0] if index in group.history else 0
        attempt = max(group.attempts.get(index, 1), last + 1)
        if attempt > 1:
            group.attempts[index] = attempt
    for spent in (group.failures, group.losses, group.cancelled):
        for index in [index for index in spent if not group.state[index]]:
            del spent[index]
    for index, arm in [key for key in group.arm_retries if not group.state[key[0]]]:
        del group.arm_retries[index, arm]


def _set_cursor(group: Group) -> None:
    """From the cursor on nothing was ever tried."""
    touched = max((index for index in group.attempts if group.attempts[index] > 1), default=-1) + 1
    group.cursor = max(len(group.state.rstrip(b"%c" % TaskState.ACTIVE)), touched)
