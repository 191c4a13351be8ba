"""What a request means by a name, or the sentence that answers it: nearest names included."""

from __future__ import annotations

from coordinator import access
from coordinator.desk import Desk
from coordinator.model import Group, Job, Node
from coordinator.sessions import Session
from wire import messages as m
from wire.near import near


class RefusedError(Exception):
    """A request that can't be served: raised with the sentence that answers it."""

    def __init__(
        self, code: m.RefusalCode, message: str, close: list[str] | None = None, way_out: str | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.close, self.way_out = code, message, close or [], way_out


def find_job(desk: Desk, session: Session, name: str) -> Job:
    """A job that the session may look at, by id, or the newest by name. Raises RefusedError with the nearest."""
    job = desk.cluster.jobs.get(name)
    if job is not None and access.may_look(desk, session, job):
        return job
    known = list(access.jobs(desk, session))
    named = [entry for entry in known if entry.spec.name == name]
    if named:
        return max(named, key=lambda entry: entry.number)
    raise RefusedError(
        m.RefusalCode.UNKNOWN,
        f"there is no job `{name[:200]}`",
        near(name, [*(entry.id for entry in known), *{entry.spec.name for entry in known}]),
        "`coordinator job list` shows those there are",
    )


def find_own_job(desk: Desk, session: Session, name: str) -> Job:
    """As `find_job`, for what only the owner and operators may do."""
    job = find_job(desk, session, name)
    check_own(desk, session, job)
    return job


def check_own(desk: Desk, session: Session, job: Job) -> None:
    """Raises RefusedError for those who may look at the job and no more."""
    if not access.may_act(desk, session, job):
        raise RefusedError(
            m.RefusalCode.REFUSED,
            f"job `{job.id}` belongs to {job.owner}: only {job.owner} and the operators of pool `{job.spec.pool}` may",
        )


def find_task(desk: Desk, session: Session, name: str) -> tuple[Job, Group, int]:
    """A task by `JOB/price[17,fx]`, `JOB/price-17-fx` or `JOB/price#5`. Raises RefusedError with the nearest."""
    job_name, slash, task_name = name.partition("/")
    if not slash:
        raise RefusedError(m.RefusalCode.UNKNOWN, f"`{name[:200]}` names no task: write JOB/TASK, as `task list` does")
    job = find_job(desk, session, job_name)
    for group in sorted(job.groups, key=lambda entry: -len(entry.spec.name)):
        index = group.sweep.find(task_name)
        if index is not None:
            return job, group, index
    close = near(task_name.partition("[")[0], [group.spec.name for group in job.groups])
    shown = [f"{job.id}/{group.sweep.label(0)}" for group in job.groups if group.spec.name in close and group.size]
    raise RefusedError(
        m.RefusalCode.UNKNOWN,
        f"job `{job.id}` has no task `{task_name[:200]}`",
        shown,
        f"`coordinator task list {job.id}` shows them",
    )


def find_node(desk: Desk, name: str) -> Node:
    """A node by name. Raises RefusedError with the nearest."""
    node = desk.cluster.nodes.get(name)
    if node is None:
        raise RefusedError(
            m.RefusalCode.UNKNOWN,
            f"there is no node `{name[:200]}`",
            near(name, desk.cluster.nodes),
            "`coordinator node list` shows those there are",
        )
    return node
