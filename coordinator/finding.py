"""What a request means by a name, or the sentence that answers it: nearest names included."""

from __future__ import annotations

from coordinator.desk import Desk
from coordinator.model import Group, Job, Node
from wire import messages as m
from wire.near import near


class RefusedError(Exception):
    """A request that can't be served: raised with the sentence that answers it."""

    def __init__(
        self, code: m.RefusalCode, message: str, close: list[str] | None = None, way_out: str | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.close, self.way_out = code, message, close or [], way_out


def find_job(desk: Desk, name: str) -> Job:
    """A job by id, or the newest by name. Raises RefusedError with the nearest."""
    job = desk.cluster.jobs.get(name)
    if job is None:
        named = [entry for entry in desk.cluster.jobs.values() if entry.spec.name == name]
        job = max(named, key=lambda entry: entry.number) if named else None
    if job is None:
        names = [*desk.cluster.jobs, *{entry.spec.name for entry in desk.cluster.jobs.values()}]
        raise RefusedError(
            m.RefusalCode.UNKNOWN,
            f"there is no job `{name[:200]}`",
            near(name, names),
            "`coordinator job list` shows those there are",
        )
    return job


def find_task(desk: Desk, name: str) -> tuple[Job, Group, int]:
    """A task by `JOB/price[17,fx]`, `JOB/price-17-fx` or `JOB/price#5`. Raises RefusedError with the nearest."""
    job_name, slash, task_name = name.partition("/")
    if not slash:
        raise RefusedError(m.RefusalCode.UNKNOWN, f"`{name[:200]}` names no task: write JOB/TASK, as `task list` does")
    job = find_job(desk, job_name)
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
