"""What of a job is to come back from its nodes: all of it when it is disabled, what is too much when `parallel` was
lowered, tasks that were cancelled one by one."""

from __future__ import annotations

from typing import Final

from coordinator import work
from coordinator.desk import Desk
from coordinator.model import Job, JobState
from coordinator.records import JobMoved
from wire import messages as m

STOPPED: Final = "its job was disabled"


def look_at(desk: Desk, job: Job) -> None:
    """Take every consequence that being disabled, a lower `parallel` and cancelled tasks have now."""
    if job.state is JobState.DISABLING:
        _disable(desk, job)
    elif job.excess:
        work.withdraw(desk, job)
    if any(group.cancelling for group in job.groups):
        _stop_cancelled(desk, job)


def _disable(desk: Desk, job: Job) -> None:
    """It is disabled when nothing of it is out. What was given to a node out of contact is out until its lease ends."""
    assert job.disabled is not None
    if job.granted == 0:
        desk.keep(JobMoved(job.id, JobState.DISABLED, None, job.disabled.by, desk.now))
    elif job.disabled.how is m.Disabling.WAIT:
        work.withdraw(desk, job)
    else:
        for grant in work.grants_of(desk, job):
            work.stop(desk, grant, grant.open, STOPPED)


def _stop_cancelled(desk: Desk, job: Job) -> None:
    for grant in work.grants_of(desk, job):
        group = job.groups[grant.group]
        for position in grant.open_positions() if group.cancelling else ():
            index = grant.index(position)
            if index in group.cancelling:
                work.stop(desk, grant, 1 << position, group.cancelled[index])
