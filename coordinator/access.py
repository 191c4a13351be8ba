"""What of the cluster a session may see and touch. A job that it may not look at does not exist for it."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.desk import Desk
from coordinator.model import Job, Node, Pool
from coordinator.sessions import Session


def may_look(desk: Desk, session: Session, job: Job) -> bool:
    """Whether the session may know of the job and how it goes."""
    return session.owner == job.owner or desk.policy.may_look(session.owner, session.role, job.spec.pool)


def may_act(desk: Desk, session: Session, job: Job) -> bool:
    """Whether the session may end and delete the job, and read what its commands wrote."""
    return session.owner == job.owner or may_operate(desk, session, job.spec.pool)


def owns(session: Session, job: Job) -> bool:
    """Whether it is the session's own job: what is typed in its name is not even its operators' right."""
    return session.owner == job.owner


def may_operate(desk: Desk, session: Session, pool: str) -> bool:
    """Whether the session operates the pool: its nodes, and everybody's jobs there."""
    return desk.policy.may_operate(session.owner, session.role, pool)


def jobs(desk: Desk, session: Session) -> Iterator[Job]:
    """All jobs that there are for the session, oldest first."""
    return (job for job in desk.cluster.jobs.values() if may_look(desk, session, job))


def owes(desk: Desk, session: Session, node: Node) -> list[str]:
    """The jobs that a node owes a release, as far as the session may know of them; a deleted job is its operators'."""
    owed = dict.fromkeys(job_id for job_id, _ in node.owes)
    return [job_id for job_id in owed if _is_known(desk, session, job_id, node.pool)]


def pool_jobs(desk: Desk, session: Session, pool: Pool) -> list[str]:
    """The jobs that may still be given work of the pool, as far as the session may know of them."""
    return [job.id for job in pool.jobs.values() if may_look(desk, session, job)]


def _is_known(desk: Desk, session: Session, job_id: str, pool: Pool) -> bool:
    job = desk.cluster.jobs.get(job_id)
    return may_operate(desk, session, pool.name) if job is None else may_look(desk, session, job)
