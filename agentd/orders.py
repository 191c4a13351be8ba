"""What the coordinator orders of jobs on this node: whether it can be meant, and what is kept of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from agentd.bodies import Bodies
from agentd.desk import Desk
from agentd.dispatch import Dispatch
from agentd.environment import TaskTexts
from agentd.model import Ledger, Round
from agentd.phases import Phases
from agentd.records import Granted, JobHeld, PreparationAsked, RoundOpened
from wire import messages as m

MAX_GRANT: Final = 1 << 16
MAX_ROUNDS: Final = 10_000
"""Rounds held at once: more than that is no workload but a mistake."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")


class OrderRefused(Exception):
    """No coordinator of ours would say this: the session ends. The text says why."""


def _named(*names: str) -> None:
    """Raises OrderRefused unless these can be names of directories."""
    if not all(_NAME.match(name) for name in names):
        raise OrderRefused("a name that can't be a directory's")


class Orders:
    """Each call takes one order; raises OrderRefused or BodyRefused where it can't be obeyed."""

    def __init__(
        self, desk: Desk, dispatch: Dispatch, phases: Phases, texts: Callable[[str, int, int], TaskTexts]
    ) -> None:
        self._desk = desk
        self._dispatch = dispatch
        self._phases = phases
        self._texts = texts
        self._bodies = Bodies()

    @property
    def _ledger(self) -> Ledger:
        return self._desk.ledger

    def session_over(self) -> None:
        """Bodies that are not whole never will be."""
        self._bodies.clear()

    def open(self, message: m.BodyChunk | m.OpenRound) -> None:
        """A piece of a job's body, or the round that they were for."""
        if isinstance(message, m.BodyChunk):
            self._bodies.add(message)
            return
        taken = self._bodies.take(message)
        _named(message.job)
        if self._ledger.round(message.job, message.round) is not None:
            return
        job = self._ledger.jobs.get(message.job)
        if job is None and taken is None:
            self._desk.send(m.NotHeld(message.job, message.round))
            return
        rounds = job.rounds.values() if job is not None else ()
        if any(held.state is not m.RoundState.RELEASED for held in rounds):
            raise OrderRefused(f"job {message.job} has a round open here already")
        if len(self._ledger.jobs) >= MAX_ROUNDS:
            raise OrderRefused(f"more than {MAX_ROUNDS} jobs on one node")
        if job is None and taken is not None:
            body, decoded = taken
            spec = decoded.spec
            _named(*(group.name for group in spec.groups), *(known.name for known in spec.dirs))
            self._desk.keep(JobHeld(message.job, body))
        self._desk.keep(RoundOpened(message.job, message.round))
        if message.job in self._ledger.retained:
            self._desk.back.add(message.job)  # what an earlier round left is due while this one is open
        self._phases.course(message.job).made = False

    def start(self, message: m.StartNode) -> None:
        """The start of the pool, a new one, or none any more."""
        held = self._ledger.start
        if not message.digest:
            self._phases.end_start()
        elif held is None or held.number != message.number:
            body = self._bodies.take_start(message)
            self._phases.start_ordered(message.number, message.digest, body)

    def prepare(self, message: m.Prepare) -> None:
        """Once for a round; again where it had failed."""
        held = self._ledger.round(message.job, message.round)
        if held is None:
            self._desk.send(m.NotHeld(message.job, message.round))
            return
        wanted = held.state in (m.RoundState.OPENED, m.RoundState.BARRED)
        if wanted and self._ledger.jobs[held.job].spec.preparation is not None:
            self._desk.keep(PreparationAsked(held.job, held.number))

    def run(self, message: m.Run) -> None:
        """A grant: tasks of one group."""
        if message.grant in self._ledger.grants:
            return
        if not 0 < message.count <= MAX_GRANT:
            raise OrderRefused(f"a grant of {message.count} tasks")
        held = self._ledger.round(message.job, message.round)
        if held is None or not held.open or self._barred(held) or self._phases.start_failed:
            self._desk.send(m.Recalled(message.grant, [(0, message.count)]))
            return
        if not self._within(message):
            raise OrderRefused(f"grant {message.grant} names tasks that job {message.job} does not have")
        self._desk.keep(
            Granted(
                message.grant, message.job, message.round, message.group, message.first, message.count, message.step,
                message.attempt,
            )
        )  # fmt: skip
        self._dispatch.add(message.grant)
        self._phases.courses.try_again(message.job)

    def _within(self, message: m.Run) -> bool:
        groups = self._ledger.jobs[message.job].spec.groups
        if not 0 <= message.group < len(groups) or message.step < 1 or message.attempt < 1 or message.first < 0:
            return False
        size = self._texts(message.job, message.round, message.group).sweep.size
        return message.first + (message.count - 1) * message.step < size

    def release(self, message: m.ReleaseRound) -> None:
        """The job leaves the node."""
        held = self._ledger.round(message.job, message.round)
        if held is None:
            self._desk.send(m.NotHeld(message.job, message.round))
        elif held.open:
            self._phases.release_asked(held, message.reason)

    def remove(self, message: m.RemoveJob) -> None:
        """The job is over everywhere."""
        _named(message.job)
        self._phases.courses.remove(message.job)

    def runnable(self, held: Round) -> bool:
        """Whether tasks of this round may start now."""
        if not held.open or not self._phases.course(held.job).made:
            return False
        return held.state is m.RoundState.PREPARED or not self._waits(held)

    def _waits(self, held: Round) -> bool:
        preparation = self._ledger.jobs[held.job].spec.preparation
        return preparation is not None and preparation.wait

    def _barred(self, held: Round) -> bool:
        return held.state is m.RoundState.BARRED and self._waits(held)
