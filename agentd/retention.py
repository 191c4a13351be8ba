"""Directories of tasks that ended longer ago than their `keep`, while their job lives: looked for now and then, thrown
away in two steps, so that what is open here stays. Nothing of it is durable: the directories say themselves when their
commands ended, and after a restart every job is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agentd.desk import Desk
from agentd.dispatch import Dispatch
from agentd.environment import TaskTexts
from agentd.events import DiscardTasks, FindOverdue, OverdueFound
from agentd.keepers import Keepers
from agentd.model import Job, Round
from agentd.outputs import Outputs
from agentd.records import Purpose

AT_ONCE: Final = 5000
"""Directories looked at closer, and thrown away, in one step: more than run on any node, which are among them."""
AGAIN_S: Final = 10.0
"""Between two looks at what seems overdue and is open here."""
SLACK: Final = 0.1
SLACK_LEAST_S: Final = 0.5
SLACK_MOST_S: Final = 3600.0
"""A look costs a walk over all of a job's directories: it may be late by this part of the shortest `keep`."""


class Retention:
    """Invariant: at most one look, or one throwing away, is under way."""

    def __init__(
        self,
        desk: Desk,
        keepers: Keepers,
        dispatch: Dispatch,
        outputs: Outputs,
        texts: Callable[[str, int, int], TaskTexts],
    ) -> None:
        self._desk = desk
        self._keepers = keepers
        self._dispatch = dispatch
        self._outputs = outputs
        self._texts = texts
        self._due: dict[str, float] = {}
        """The boottime of the next look at a job."""
        self._busy: str | None = None

    def restarted(self) -> None:
        """What ended before is not known here."""
        self._due = dict.fromkeys(self._desk.ledger.jobs, self._desk.now.boottime + SLACK_LEAST_S)

    def advance(self) -> None:
        """Look at the next job of which something may be overdue."""
        now, ended, back = self._desk.now.boottime, self._desk.ended_in, self._desk.back
        for job in back:
            self._look_by(job, now + SLACK_LEAST_S)
        back.clear()
        for job in ended:
            held = self._desk.ledger.jobs.get(job)
            if held is not None:
                self._look_by(job, now + _shortest_s(held) + _slack_s(held))
        ended.clear()
        if self._busy is not None:
            return
        for job in [job for job, due in self._due.items() if due <= now]:
            del self._due[job]
            held = self._desk.ledger.jobs.get(job)
            if held is not None and held.spec.groups and _open_round(held) is not None:  # else the clean-up sees to it
                self._busy = job
                self._desk.ready.chores.append(FindOverdue(job, _keep_s(held), AT_ONCE))
                return

    def _look_by(self, job: str, due: float) -> None:
        self._due[job] = min(due, self._due.get(job, due))

    def found(self, event: OverdueFound) -> None:
        """These are overdue, if nothing of their tasks is open or owed here."""
        held = self._desk.ledger.jobs.get(event.job)
        opened = None if held is None else _open_round(held)
        if held is None or opened is None:
            self._busy = None
            return
        names = [name for name in event.names if self._is_over(held, opened, name)]
        later = [] if event.next_s is None else [event.next_s + _slack_s(held)]
        unclear = self._is_unclear(event.job)
        if unclear or len(names) < len(event.names):
            later.append(AGAIN_S)
        if later:
            self._look_by(event.job, self._desk.now.boottime + min(later))
        if not names or unclear:
            self._busy = None
            return
        self._dispatch.no_retry_of = event.job
        self._desk.ready.chores.append(DiscardTasks(event.job, names))

    def discarded(self) -> None:
        """They are gone."""
        self._busy = self._dispatch.no_retry_of = None

    def _is_unclear(self, job: str) -> bool:
        """Whether something runs that no grant tells of any more: it is being killed."""
        grants = self._desk.ledger.grants
        keepers = self._keepers.of(job, Purpose.TASKS)
        return any(grant not in grants for keeper in keepers for grant, _ in keeper.items.values())

    def _is_over(self, held: Job, opened: Round, name: str) -> bool:
        prefix = name.split("-", 1)[0]
        number = next((n for n, group in enumerate(held.spec.groups) if group.name == prefix), None)
        if number is None:
            return False
        index = self._texts(opened.job, opened.number, number).sweep.find(name)
        if index is None or (number, index) in self._outputs.owes(opened.job):
            return False
        for grant in self._desk.ledger.grants.values():
            position, off = divmod(index - grant.first, grant.step)
            mine = grant.job == opened.job and grant.group == number and off == 0
            if mine and 0 <= position < grant.count and grant.open[position]:
                return False
        return True

    def next_due(self) -> float | None:
        """The boottime of the next look. What is due and could not be done (the disk is full) waits for an event."""
        if self._busy is not None:
            return None
        return min((due for due in self._due.values() if due > self._desk.now.boottime), default=None)


def _open_round(held: Job) -> Round | None:
    return next((each for each in held.rounds.values() if each.open), None)


def _keep_s(held: Job) -> dict[str, float]:
    return {group.name: group.command.keep_ms / 1000 for group in held.spec.groups}


def _shortest_s(held: Job) -> float:
    return min(_keep_s(held).values(), default=0.0)


def _slack_s(held: Job) -> float:
    return min(max(SLACK * _shortest_s(held), SLACK_LEAST_S), SLACK_MOST_S)
