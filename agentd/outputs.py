"""What failed tasks wrote, on its way to the coordinator: read when their ends have been acked, said until it is taken.

What is owed is durable, the bytes are not: they are read again from the task's directory. So nothing of this is in the
way of a task, and one that succeeded costs nothing unless the node is told to keep what those write too.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from agentd.desk import Desk
from agentd.events import OutputsRead, ReadOutputs
from agentd.model import NodeConfig
from wire.arms import first_match
from wire.messages import Outcome, TaskEnd, TaskOutputs
from wire.spec import Command, ExitAction

ROWS: Final = 64
"""Outputs in one message, as far as they fit it."""
MAX_OWED: Final = 10_000
"""Outputs that a node owes; beyond, the oldest are let go."""
_OF_NO_USE: Final = frozenset({Outcome.START_FAILED, Outcome.INPUT_FAILED, Outcome.KILLED})
"""It never ran, or it was ended from outside, which is no failure of its own."""


def is_wanted(config: NodeConfig, command: Command, end: TaskEnd) -> bool | None:
    """Whether what this attempt wrote is to be kept; True: it succeeded, and is by the node's own wish."""
    if end.outcome in _OF_NO_USE:
        return None
    succeeded = end.outcome is Outcome.EXITED and end.exit_code == 0
    if command.arms:
        arm = first_match(command.arms, end.outcome, end.exit_code, end.signal)
        succeeded = succeeded if arm is None else command.arms[arm].action is ExitAction.SUCCEED
    if succeeded:
        return True if config.output_success else None
    return False if config.output_head or config.output_tail else None


class Outputs:
    """Invariant: at most one message is on its way, or being read."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._turn = 0
        self._busy = False
        self._number = 0
        self._done = 0
        """Outputs of the report `_number` that were taken."""
        self._on_way = 0

    def session_over(self) -> None:
        """What was on its way is said again in the next one."""
        self._turn += 1
        self._busy = False

    def advance(self) -> None:
        """Have the next ones read, if there are any and they may be said."""
        owed = self._desk.ledger.owed
        while sum(map(len, owed.values())) > MAX_OWED and len(owed) > 1:
            self._desk.owe_no_more(next(number for number in owed if not (self._busy and number == self._number)))
        if self._busy or not self._desk.joined or not owed:
            return
        number = next(iter(owed))
        if number > self._desk.last_acked:
            return  # where it was is asked for by that report
        if number != self._number:
            self._number, self._done = number, 0
        rows = list(islice(owed[number], self._done, self._done + ROWS))
        self._turn += 1
        self._busy = True
        config = self._desk.config
        bounds = (config.output_head, config.output_tail, config.output_success)
        self._desk.ready.chores.append(ReadOutputs(self._turn, rows, *bounds))

    def read(self, event: OutputsRead) -> None:
        """They are here: say them."""
        if event.turn != self._turn or not self._busy:
            return
        self._on_way = max(1, event.taken)
        if event.outputs:
            self._desk.send(TaskOutputs(self._turn, event.outputs))
        else:
            self._taken()

    def taken(self, number: int) -> None:
        """The coordinator has kept them."""
        if number == self._turn and self._busy:
            self._taken()

    def _taken(self) -> None:
        self._busy = False
        self._done += self._on_way
        rows = self._desk.ledger.owed[self._number]
        self._desk.ended_in.update(row.job for row in rows[self._done - self._on_way : self._done])
        if self._done >= len(rows):
            self._desk.owe_no_more(self._number)

    def owes(self, job: str) -> set[tuple[int, int]]:
        """(group, index) of the job's tasks of which something is still to be read."""
        return {(row.group, row.index) for rows in self._desk.ledger.owed.values() for row in rows if row.job == job}
