"""What operators do with a node: drain it, enable it, forget it, let it prepare for a job once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from coordinator import access, draining, resting, starting, views, work
from coordinator.desk import Desk
from coordinator.finding import RefusedError, find_node, find_own_job
from coordinator.model import JobState, Node, NodeState
from coordinator.records import DebtPaid, NodeJobState, NodeMark, NodeMarked, Returned, RoundMoved
from coordinator.sessions import Session
from wire import messages as m

MAX_DEADLINE_S: Final = 366 * 86_400.0
MAX_REASON: Final = 1_000
STUCK: Final = "a process of the job can't be killed there: its release waits for that"
MAX_STUCK: Final = 1_000
"""Jobs that one node may name as stuck."""


def find_own_node(desk: Desk, session: Session, name: str) -> Node:
    """A node that the session operates. Raises RefusedError."""
    node = find_node(desk, name)
    if not access.may_operate(desk, session, node.pool.name):
        raise RefusedError(
            m.RefusalCode.REFUSED, f"node `{node.name}` is in pool `{node.pool.name}`: only its operators may"
        )
    return node


def reply(desk: Desk, session: Session, request: int, node: Node) -> None:
    """Answer with what `node show` prints."""
    desk.reply(session.epoch, request, views.node(node, desk.now, access.owes(desk, session, node)))


def drain(desk: Desk, session: Session, message: m.NodeDrain) -> Node:
    """Begin to empty a node, or only find it for who waits. Raises RefusedError."""
    node = find_own_node(desk, session, message.node)
    if message.deadline_s is not None:
        if not 0 <= message.deadline_s <= MAX_DEADLINE_S:
            raise RefusedError(m.RefusalCode.INVALID, "a drain's deadline is between 0 and 366 days")
        draining.drain(desk, node, session.owner, message.reason[:MAX_REASON], message.deadline_s)
    elif node.drain is None and not message.wait:
        raise RefusedError(m.RefusalCode.INVALID, f"node `{node.name}` is not being drained: say a deadline")
    return node


def is_drained(desk: Desk, node: Node) -> bool:
    """Whether whoever waits for a drain waits no longer: it is done, or called off, or the node is out of contact and
    what it ran may go on elsewhere; the answer shows which."""
    silent = desk.now.boottime >= desk.lease_end(node)
    over = node.drain is None or node.left or (not node.connected and silent)
    return over or node.state is NodeState.DRAINED


def node_enable(desk: Desk, session: Session, message: m.NodeEnable) -> None:
    node = find_own_node(desk, session, message.node)
    draining.enable(desk, node, session.owner)
    starting.again(desk, node)
    resting.forgiven(desk, node)
    reply(desk, session, message.request, node)


def node_forget(desk: Desk, session: Session, message: m.NodeForget) -> None:
    """What a lost node held goes elsewhere at once, and what it owes is waived: whoever asks knows that it is off."""
    node = find_own_node(desk, session, message.node)
    if node.session is not None and not node.missing:
        raise RefusedError(
            m.RefusalCode.FAILED,
            f"node `{node.name}` is connected: only a node that is lost can be forgotten",
            way_out=f"`coordinator node drain {node.name}` empties it",
        )
    if node.session is not None:
        desk.close(node.session, "an operator has forgotten this node: join again")
    forget(desk, node, session.owner)
    reply(desk, session, message.request, node)


def forget(desk: Desk, node: Node, by: str) -> None:
    """Void all that the node holds and owes. If it was not off after all and joins again, it is told to drop what it
    runs and to release what it holds, before the same job comes there again."""
    for grant in list(node.grants.values()):
        work.return_all(desk, grant, Returned.FORGOTTEN)
    for job_id, number in list(node.owes):
        if job_id in desk.cluster.jobs:
            reason = f"its node was forgotten by {by}"
            desk.keep(RoundMoved(job_id, node.name, number, NodeJobState.WAIVED, reason, desk.now))
        else:
            desk.keep(DebtPaid(job_id, node.name, number))
    desk.keep(NodeMarked(node.name, NodeMark.FORGET, by, desk.now))
    desk.touch_node(node)


def node_retry_prep(desk: Desk, session: Session, message: m.NodeRetryPrep) -> None:
    """A node that is barred for a job may be tried again: by the job's next task there, with all its retries."""
    job, node = find_own_job(desk, session, message.job), find_node(desk, message.node)
    node_job = job.current.get(node.name)
    if job.state in (JobState.TERMINATING, JobState.COMPLETED):
        raise RefusedError(m.RefusalCode.FAILED, f"job `{job.id}` is over ({job.end_reason}): it prepares nothing more")
    if node_job is None or node_job.state is not NodeJobState.BARRED:
        state = NodeJobState.ABSENT if node_job is None else node_job.state
        raise RefusedError(
            m.RefusalCode.FAILED,
            f"node `{node.name}` is not barred for job `{job.id}`: it is {state.value} there",
            way_out=f"`coordinator job nodes {job.id}` shows its nodes",
        )
    desk.keep(RoundMoved(job.id, node.name, node_job.round, NodeJobState.ABSENT, None, desk.now))
    tails = access.may_act(desk, session, job)
    desk.reply(session.epoch, message.request, views.job_node(node_job, tails))


def healthy(desk: Desk, node: Node) -> None:
    """Nothing is known against the node."""
    _judged(desk, node, None, [])


def take_health(desk: Desk, node: Node, message: m.Health) -> None:
    """The node says why it can do no work, or that it can again; of its queue it takes nothing meanwhile."""
    before = node.unusable, set(node.stuck)
    _judged(desk, node, message.reason, message.stuck[:MAX_STUCK])
    if before == (node.unusable, set(node.stuck)):
        return  # said again: it is no reason to look at everything
    if node.unusable is not None:
        if before[0] is None:
            resting.backed_out(desk, node)
        draining.recall(desk, node)
    desk.touch_node(node)
    desk.changed()


def _judged(desk: Desk, node: Node, reason: str | None, stuck: list[str]) -> None:
    node.unusable = None if reason is None else reason[:MAX_REASON]
    owing = {job_id for job_id, _ in node.owes}
    node.stuck = {job_id: node.stuck.get(job_id, desk.now.boottime) for job_id in stuck if job_id in owing}
    for job_id in owing:
        job = desk.cluster.jobs.get(job_id)
        if job is not None and (node_job := job.current.get(node.name)) is not None:
            node_job.delayed = STUCK if job_id in node.stuck else None


ANSWERS: Final[dict[type[m.Message], Callable[..., None]]] = {
    m.NodeEnable: node_enable,
    m.NodeForget: node_forget,
    m.NodeRetryPrep: node_retry_prep,
}
