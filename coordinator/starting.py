"""A pool's start on its nodes: given to a node that joins, boots or has run another one, and what came of it.

Until it has succeeded the node takes no work; it holds to that itself. One that failed for good is tried again in
another boot, by another start of the agent, or when an operator enables the node.
"""

from __future__ import annotations

from typing import Final

import msgspec

from coordinator import plausible, work
from coordinator.desk import Desk
from coordinator.model import Node
from coordinator.records import StartEnded, StartOrdered, start_scope
from wire import messages as m

HELD: Final = frozenset({m.RoundState.PREPARING, m.RoundState.PREPARED, m.RoundState.BARRED})
"""States of a start at a node that has it in this boot and has not ended it."""


def order(desk: Desk, node: Node, after: int = 0) -> None:
    """Have the node run its pool's start (again), under a number that follows `after` too; where the pool has none,
    have it end and remove what an earlier one left."""
    digest = node.pool.start_digest
    node.start_held = digest
    if not digest:
        desk.send(node.session, m.StartNode(number=0))
        return
    desk.forget(start_scope(node.name))
    number = 1 + max(after, node.start.number if node.start is not None else 0)
    desk.keep(StartOrdered(node.name, number, digest, node.incarnation, node.boot, node.life, desk.now))
    _send(desk, node, number)
    desk.touch_pool(node.pool)


def _send(desk: Desk, node: Node, number: int) -> None:
    digest, body = node.pool.start_digest, node.pool.start_body
    inline = work.send_ahead(desk, node, digest, body)
    desk.send(node.session, m.StartNode(number=number, digest=digest, body=inline))


def reconcile(desk: Desk, node: Node, held: m.StartHeld | None) -> None:
    """The node has joined and said which start it holds: make that the one that it should."""
    start, digest = node.start, node.pool.start_digest
    node.start_held = "" if held is None else held.digest
    if not digest:
        if held is not None:
            order(desk, node)
        return
    if start is None or not node.start_counts or (start.failed and start.life != node.life):
        order(desk, node, 0 if held is None else held.number)
    elif held is None or held.number != start.number or held.state not in HELD:
        if start.view.finished:  # the node left meanwhile, or has lost what it knew of it
            order(desk, node, 0 if held is None else held.number)
        else:
            _send(desk, node, start.number)
    node.start_held = digest


def pool_changed(desk: Desk) -> None:
    """Give nodes that are here the start of a pool whose options were set: it runs before their next task."""
    for pool in desk.cluster.pools.values():
        if pool.dirty and pool.start_told != pool.start_digest:
            pool.start_told = pool.start_digest
            for node in pool.nodes.values():
                if node.joined and not node.leaving and node.start_held != pool.start_digest:
                    order(desk, node)


def again(desk: Desk, node: Node) -> bool:
    """Try a start that failed for good once more, with all its retries; whether there was one. A node out of contact
    is given it when it has joined."""
    if node.start is None or not node.start_counts or not node.start.failed:
        return False
    order(desk, node)
    return True


def take_ends(desk: Desk, node: Node, report: m.Report) -> None:
    """What a report says of the start; the rest of it, and its ack, are not looked at here."""
    for end in report.phases:
        if end.phase is m.Phase.START:
            _take_end(desk, node, report.number, end)


def _take_end(desk: Desk, node: Node, report: int, end: m.PhaseEnd) -> None:
    """An attempt of the start ended there. Of an earlier number, or said again, it counts for nothing."""
    start = node.start
    if start is None or start.number != end.round or start.view.finished or end.attempt <= start.view.attempts:
        return
    if start.view.ends >= work.MAX_ENDS and not end.final:
        return
    if start.view.ends >= work.MAX_PRINTED and not end.final:
        end = msgspec.structs.replace(end, stdout_tail=b"", stderr_tail=b"")
    desk.keep(StartEnded(node.name, node.incarnation, report, plausible.phase_end(end), desk.now))
    desk.touch_pool(node.pool)


def take_started(desk: Desk, node: Node, message: m.PhaseStarted) -> None:
    """Remember, for people, that an attempt of the start began."""
    if node.start is not None and node.start.number == message.round:
        node.start.running = (plausible.number(message.attempt), plausible.wall(message.at))
        desk.changed()
