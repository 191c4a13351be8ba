"""A node that lets come to nothing what it is given, again and again, is given nothing for a while, each time for
longer: so what it costs in rows of the log and in tasks that wait for it is bounded, whatever is wrong with it.

Counted is what is of its own doing: it gives back what nobody asked for, no longer knows of it, says that it was
killed, releases a round unasked, or wants to do no work as soon as it has some. One task that ends there makes up for
all of it. All this is of this life of the coordinator only.
"""

from __future__ import annotations

from typing import Final

from coordinator.desk import Desk
from coordinator.model import Node

PATIENCE: Final = 5
"""Times in a row before it has to rest."""
FIRST_S: Final = 1.0
LONGEST_S: Final = 300.0
_DOUBLED: Final = 30
"""Times at most: numbers stay small."""


def wasted(desk: Desk, node: Node, grant: int) -> None:
    """This grant came to nothing. All that the node held when one was counted last counts with that one, so what
    breaks a node once counts once."""
    if grant <= node.counted_to:
        return
    node.counted_to = desk.cluster.last_grant
    node.fruitless += 1
    if node.fruitless >= PATIENCE:
        rest_s = min(LONGEST_S, FIRST_S * 2 ** min(node.fruitless - PATIENCE, _DOUBLED))
        node.rests_until = desk.now.boottime + rest_s
        desk.deadlines.set(("rest", node.name), node.rests_until)
        desk.touch_pool(node.pool)
        desk.changed()


def backed_out(desk: Desk, node: Node) -> None:
    """It wants to do no work: that is one time, where it was given some since the last one."""
    wasted(desk, node, max(node.grants, default=0))


def rested(desk: Desk, node: Node) -> None:
    """It may be given work again, to see."""
    if node.rests_until is not None:
        node.rests_until = None
        desk.deadlines.clear(("rest", node.name))
        desk.touch_pool(node.pool)
        desk.changed()


def forgiven(desk: Desk, node: Node) -> None:
    """A task has ended there, or an operator vouches for it: nothing is held against it."""
    node.fruitless = 0
    rested(desk, node)
