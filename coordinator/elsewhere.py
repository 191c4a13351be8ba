"""`retry(elsewhere = true)`: on which nodes a task is not tried again, as long as another could take it."""

from __future__ import annotations

from coordinator.model import Group
from coordinator.records import Verdict

NOWHERE: frozenset[str] = frozenset()


def failed_on(group: Group, index: int) -> frozenset[str]:
    """The nodes on which an attempt of the task ended in a way that asks for another node, as far back as its attempts
    are remembered."""
    if not group.moves or index not in group.history:
        return NOWHERE
    arms = group.spec.command.arms
    return frozenset(
        node
        for _, node, end in group.history[index]
        if end.verdict is Verdict.RETRY and end.arm is not None and arms[end.arm].elsewhere
    )


def shunned(failed: frozenset[str], able: frozenset[str]) -> frozenset[str]:
    """Of the nodes where it failed, those that it keeps away from: all, while one of those that are `able` to take it
    is another; none when there is no other, now that it would wait for nobody."""
    return failed if able - failed else NOWHERE
