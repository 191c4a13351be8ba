"""Emptying a node, because an operator drains it or because its agent wants to go: it gets nothing new, gives back what
has not started, and its rounds are released, each when nothing of it runs there or the time is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from coordinator import resting, work
from coordinator.deadlines import ROUNDING_S
from coordinator.desk import Desk
from coordinator.model import Job, Node
from coordinator.preparation import NodeJob
from coordinator.records import NodeJobState, NodeMark, NodeMarked
from wire import messages as m

STOPPED: Final = "its node is drained"


def drain(desk: Desk, node: Node, by: str, reason: str, deadline_s: float) -> None:
    """Begin to empty the node, or change when and why it is emptied. Its running tasks have `deadline_s` left."""
    until = desk.now.after(deadline_s)
    desk.keep(NodeMarked(node.name, NodeMark.DRAIN, by, desk.now, reason, until))
    desk.arm(("drain", node.name), until)
    _begin(desk, node)
    settle(desk)  # the answer is to say so


def take_leaving(desk: Desk, node: Node) -> None:
    """The node's agent wants to go clean: that is a drain of this session, and its running tasks have no time left."""
    if not node.leaving:
        resting.backed_out(desk, node)
    node.leaving = True
    _begin(desk, node)


def _begin(desk: Desk, node: Node) -> None:
    desk.emptying[node.name] = None
    if not is_over(desk, node):
        recall(desk, node)
    desk.touch_node(node)
    desk.changed()


def enable(desk: Desk, node: Node, by: str) -> None:
    """The node may be given work again; what is left to be released there is released first."""
    if node.drain is not None:
        desk.keep(NodeMarked(node.name, NodeMark.ENABLE, by, desk.now))
        desk.deadlines.clear(("drain", node.name))
        desk.touch_node(node)


def rearm(desk: Desk, node: Node) -> None:
    """After a restart of ours, and when the node has joined: it is still to be emptied."""
    if node.drain is None:
        return
    desk.emptying[node.name] = None
    if not is_over(desk, node):
        desk.arm(("drain", node.name), node.drain.until)


def recall(desk: Desk, node: Node) -> None:
    """Ask back all that has not started there."""
    for grant in node.grants.values():
        if not grant.recalled and node.joined:
            work.ask_back(desk, node, grant)


def is_over(desk: Desk, node: Node) -> bool:
    """Whether what still runs on an emptying node is to be stopped now."""
    return node.leaving or (node.drain is not None and desk.now.seconds_until(node.drain.until) <= ROUNDING_S)


def due(desk: Desk, job: Job) -> Iterator[tuple[NodeJob, Node]]:
    """Rounds of the job that are to be released because their node is emptied."""
    for name in desk.emptying:
        node_job = job.open_round(name)
        if node_job is None or node_job.state is NodeJobState.RELEASING:
            continue
        node = desk.cluster.nodes[name]
        if not node.draining or not node.connected:
            continue
        if is_over(desk, node) or not any(grant.job == job.id for grant in node.grants.values()):
            yield node_job, node


def stop(desk: Desk, job: Job, node: Node) -> None:
    """The time of what the job runs there is over, though its release has to wait for its turn."""
    for grant in node.grants.values():
        if grant.job == job.id:
            work.stop(desk, grant, grant.open, STOPPED)


def settle(desk: Desk) -> None:
    """Note which nodes are emptied by now."""
    for name in list(desk.emptying):
        node = desk.cluster.nodes[name]
        if not node.draining:
            del desk.emptying[name]
        elif node.drain is not None and node.drain.done_at is None and node.joined and _is_quiet(desk, node):
            desk.keep(NodeMarked(name, NodeMark.DRAINED, node.drain.by, desk.now))


def _is_quiet(desk: Desk, node: Node) -> bool:
    """Whether nothing of ours is there any more: no work, no release, be it owed or not; and its start has ended, or
    had the time that the drain gives."""
    return node.empty and not node.clearing and (not node.starts or is_over(desk, node))


def let_go(desk: Desk, node: Node) -> None:
    """Tell a node that wants to leave that it may, once, when it owes nothing any more: only its own words pay."""
    if node.leaving and node.joined and not node.owes and not node.clearing and not node.dismissed:
        node.dismissed = True
        desk.send(node.session, m.Depart())
