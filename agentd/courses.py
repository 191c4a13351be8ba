"""What the shell is asked for a job's sake: directories made, cleaned and kept for a while, the last process killed.

None of it is durable but what is kept: after a restart it is asked for again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from agentd.bringing import Bringing
from agentd.desk import Desk
from agentd.dialogue import ItemEnded
from agentd.environment import elevated_of, phase_directory, scripts_of
from agentd.events import CleanJob, EmptyJob, JobCleaned, MakeJob, MakeStart
from agentd.model import PREPARATION_DIRECTORY, RELEASE_DIRECTORY, Job, Round
from agentd.records import RemovalAsked, Removed
from wire.messages import Phase, RoundState
from wire.messages import Removed as RemovedMessage
from wire.spec import Command

MAKE_AGAIN_S: Final = 1.0
KEPT_TOGETHER_S: Final = 60.0
"""At least so long between two looks for kept directories that are due: many may be."""


@dataclass(slots=True)
class Course:
    """Where a job stands on this node for now."""

    making: bool = False
    made: bool = False
    made_for: tuple[Phase, int] | None = None
    """The attempt of a phase for which directories were looked at last, and the `fresh` ones emptied."""
    make_after: float = 0.0
    """The boottime before which a directory that could not be made is not tried again."""
    outputs_until: float = 0.0
    """The boottime until which the clean-up waits for what failed tasks wrote to be taken."""
    emptying: bool = False
    emptied: bool = False
    cleaning: dict[str, float] | None = None
    """What the clean-up under way is to keep."""
    reading: tuple[str, ItemEnded] | None = None
    """(keeper, end) of an attempt whose output is being read."""


class Courses:
    """Invariant: of one job directories are never made and cleaned at the same time, nor cleaned twice at once."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.bringing = Bringing(desk)
        self._courses: dict[str, Course] = {}
        self._removals: set[str] = set()
        self._kept_due: float | None = None
        """The boottime at which the first of what is kept is due; None: to be found out."""

    def of(self, job: str) -> Course:
        return self._courses.setdefault(job, Course())

    # ---- directories

    def make(self, job: Job, held: Round) -> None:
        """Ask for the job's directories, unless they are coming."""
        course = self.of(held.job)
        if course.making or course.cleaning is not None or self._desk.now.boottime < course.make_after:
            return
        course.making, course.made = True, False
        attempts = held.prep.attempts
        if held.is_start:
            course.made_for = (Phase.START, attempts + 1)
            directory = phase_directory(held.job, Phase.START, attempts + 1)
            self._desk.ready.chores.append(MakeStart(directory, scripts_of(job), bool(elevated_of(job))))
            return
        began = attempts or held.release.attempts or held.ran or held.state is RoundState.RELEASING
        fresh: tuple[str, ...] = ()
        if held.state is RoundState.PREPARING and held.prep.live is None:
            fresh = tuple(spec.name for spec in job.spec.dirs if spec.fresh)
            course.made_for = (Phase.PREPARATION, attempts + 1)
        elif held.state is RoundState.RELEASING:
            course.made_for = (Phase.RELEASE, held.release.attempts + 1)
        discard = () if began else (PREPARATION_DIRECTORY, RELEASE_DIRECTORY)
        dirs = tuple(spec.name for spec in job.spec.dirs)
        self._desk.ready.chores.append(MakeJob(held.job, dirs, scripts_of(job), discard, fresh, elevated_of(job)))

    def made(self, job: str, *, failed: bool) -> None:
        """Its directories are there, or could not be made. With its files it is made."""
        course = self.of(job)
        held = self._desk.ledger.jobs.get(job)
        if not failed and course.making and held is not None and self.bringing.begin(held):
            return
        course.making, course.made = False, not failed
        if failed:
            course.made_for = None
            course.make_after = self._desk.now.boottime + MAKE_AGAIN_S

    def brought(self, job: str | None) -> None:
        """All files of this job are here, or known to be missing."""
        if job is not None:
            course = self.of(job)
            course.making, course.made = False, True

    def try_again(self, job: str) -> None:
        """Something new of the job is to start: what could not be brought here before is asked for again."""
        course = self.of(job)
        if course.made and self.bringing.misses(job):
            course.made = False

    def _bring(self, job: str, held: Round) -> None:
        """Nothing comes for a round that ends: what is left of it is done without."""
        if held.state is not RoundState.RELEASING or not self.bringing.under_way(job):
            return
        if not held.begun:
            self.bringing.forget(job)
            self.of(job).making = False
        elif self.bringing.give_up(job):
            self.brought(job)

    def clean(self, job: str, keep_s: dict[str, float]) -> None:
        """Ask for the removal of the job's directories but those to be kept, unless it is under way."""
        course = self.of(job)
        if course.cleaning is None and not course.making:
            self.bringing.forget(job)
            course.cleaning = keep_s
            self._desk.ready.chores.append(CleanJob(job, keep_s))

    def cleaned(self, event: JobCleaned) -> bool:
        """What is kept is noted; whether nothing of the job was to be kept."""
        course = self.of(event.job)
        keep_s, course.cleaning = course.cleaning or {}, None
        course.made = course.emptied = False
        course.outputs_until = 0.0
        self._desk.retain(event.job, None if event.kept_s is None else self._desk.now.after(event.kept_s), keep_s)
        self._kept_due = None
        return not keep_s

    # ---- processes

    def empty(self, job: str) -> bool:
        """Whether no process of the job is left; asks for it if that is not known."""
        course = self.of(job)
        if not course.emptied and not course.emptying:
            course.emptying = True
            self._desk.ready.chores.append(EmptyJob(job))
        return course.emptied

    def emptied(self, job: str) -> None:
        course = self.of(job)
        course.emptying, course.emptied = False, True

    # ---- removal of what is kept

    def remove(self, job: str) -> None:
        """Nothing of the job is kept any more, and that is said when it is done."""
        held = self._desk.ledger.jobs.get(job)
        if held is not None and not held.removal:
            self._desk.keep(RemovalAsked(job))
        self._removals.add(job)

    def removed(self, job: str) -> None:
        """All of it is gone."""
        held = self._desk.ledger.jobs.get(job)
        if held is not None and held.removal:
            self._desk.keep_of_job(Removed(job))
        if job in self._removals:
            self._removals.discard(job)
            self._desk.send(RemovedMessage(job))

    def advance(self) -> None:
        """Ask for what is to come, remove what is not to be kept any more."""
        for job in list(self._desk.ledger.jobs.values()):
            for held in job.rounds.values():
                self._bring(job.body.job, held)
        self.bringing.advance()
        for job in list(self._desk.ledger.jobs.values()):
            if job.removal and all(held.state is RoundState.RELEASED for held in job.rounds.values()):
                self.clean(job.body.job, {})
        for name in sorted(self._removals - self._desk.ledger.jobs.keys()):
            self.clean(name, {})
        self._remove_due()

    def _remove_due(self) -> None:
        """What was kept long enough goes, but not below a job that is back."""
        if self._kept_due is None:
            left = [self._desk.now.seconds_until(kept.until) for kept in self._desk.ledger.retained.values()]
            self._kept_due = self._desk.now.boottime + min(left, default=math.inf)
        if self._desk.now.boottime < self._kept_due:
            return
        self._kept_due = self._desk.now.boottime + KEPT_TOGETHER_S
        for name, kept in self._desk.ledger.retained.items():
            held = self._desk.ledger.jobs.get(name)
            back = held is not None and any(r.state is not RoundState.RELEASED for r in held.rounds.values())
            if not back and self._desk.now.seconds_until(kept.until) <= 0:
                self.clean(name, kept.keep_s)

    def forget_over(self) -> list[str]:
        """Jobs of which nothing is held any more leave nothing here; their names."""
        held = self._desk.ledger.jobs
        over = [
            name
            for name, course in self._courses.items()
            if name not in held and name not in self._removals and course.cleaning is None
        ]
        for name in over:
            del self._courses[name]
        return over

    def next_due(self) -> list[float]:
        """The boottimes at which something may be tried again, or is kept no longer."""
        due = [course.make_after for course in self._courses.values() if course.make_after] + self.bringing.next_due()
        due += [course.outputs_until for course in self._courses.values() if course.outputs_until]
        return due if self._kept_due is None else [*due, self._kept_due]


def command_of(job: Job, *, release: bool) -> Command:
    """The command of the job's release or preparation; an empty one if it has none."""
    block = job.spec.release if release else job.spec.preparation
    return block.command if block is not None else Command()


def keep_s(job: Job) -> dict[str, float]:
    """How long each kind of the job's directories stays after its command ended."""
    kept = {group.name: group.command.keep_ms / 1000 for group in job.spec.groups}
    kept[PREPARATION_DIRECTORY] = command_of(job, release=False).keep_ms / 1000
    kept[RELEASE_DIRECTORY] = command_of(job, release=True).keep_ms / 1000
    return {name: seconds for name, seconds in kept.items() if seconds > 0}
