"""Start, preparation and release: attempts, retries, and the order: stop all, empty, release, clean, report.

`advance` takes whatever step is due and may be called at any time; what it waits for is an event or `next_due`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec

from agentd.courses import Course, Courses, command_of, keep_s
from agentd.desk import MAX_REASON, Desk
from agentd.dialogue import ItemEnded, RunItems, StopItem, Template
from agentd.dispatch import Dispatch
from agentd.environment import CommandRefused, below_root, phase_directory, phase_template, refuse_elevation
from agentd.events import JobCleaned, ReadTails, TailsRead
from agentd.keepers import Keeper, Keepers, Stage
from agentd.model import Job, PhaseBook, Round
from agentd.outputs import Outputs
from agentd.records import (
    Allowance,
    AttemptEnded,
    AttemptStarted,
    Purpose,
    ReleaseAsked,
    Released,
    RemovalAsked,
    RoundForgotten,
    Verdict,
)
from wire.arms import first_match, own_retries, unless_named
from wire.messages import (
    NOTHING_WRITTEN,
    START_JOB,
    Cleanliness,
    KeptStream,
    NotHeld,
    Outcome,
    Phase,
    PhaseEnd,
    PhaseStarted,
    RoundState,
)
from wire.retry import wait_s
from wire.spec import Command, ExitAction
from wire.template import TemplateError

TAIL: Final = 64 * 1024
MAX_LEFTOVERS: Final = 20
MAX_LEFTOVER: Final = 200
INTERRUPTED_FIRST_S: Final = 1.0
INTERRUPTED_CAP_S: Final = 60.0
OUTPUTS_S: Final = 5.0
"""For the outputs of failed tasks to be taken before their directories go."""
DELETED: Final = "Deleted"
_WHY_STOPPED: Final = {"NodeDrained": "Its node was drained.", "": "The node's start ended."}
"""By the reason of the release; any other is how the job ended."""
PURPOSES: Final = {
    Phase.START: Purpose.START,
    Phase.PREPARATION: Purpose.PREPARATION,
    Phase.RELEASE: Purpose.RELEASE,
}


@dataclass(frozen=True, slots=True)
class How:
    """How an attempt ended, from whatever told it."""

    outcome: Outcome
    exit_code: int | None = None
    signal: int | None = None
    started_at: float = 0.0
    ended_at: float = 0.0
    reason: str | None = None
    leftovers: bool = False
    stdout: KeptStream = NOTHING_WRITTEN
    stderr: KeptStream = NOTHING_WRITTEN
    refused: bool = False
    """It is not allowed here: to try again is no use."""


class Phases:
    """Invariants: at most one attempt of a phase is live; a release attempt starts only when no process of the job is
    left; nothing of a round starts after its release was asked for but the release; no task and no preparation starts
    before the pool's start has succeeded in this boot, if the node was given one."""

    def __init__(self, desk: Desk, keepers: Keepers, dispatch: Dispatch, outputs: Outputs) -> None:
        self._desk = desk
        self._keepers = keepers
        self._dispatch = dispatch
        self._outputs = outputs
        self.courses = Courses(desk)

    def course(self, job: str) -> Course:
        return self.courses.of(job)

    # ---- orders

    def start_ordered(self, number: int, digest: str, body: bytes) -> None:
        """The pool's start is to run before anything more begins: what keepers have not begun comes back to us."""
        self._desk.order_start(number, digest, body)
        course = self.course(START_JOB)
        course.made = course.emptied = False
        self._dispatch.hold()

    @property
    def started(self) -> bool:
        """Whether the pool's start, if there is one, has succeeded in this boot."""
        start = self._desk.ledger.start
        return start is None or start.state is RoundState.PREPARED or not start.open

    @property
    def start_failed(self) -> bool:
        """Whether it failed for good."""
        start = self._desk.ledger.start
        return start is not None and start.state is RoundState.BARRED

    def end_start(self) -> bool:
        """The node goes: what its start left is ended and removed. Whether nothing is left to do for that."""
        start = self._desk.ledger.start
        if start is not None and start.open:
            self.release_asked(start, "")
        return start is None and not self._keepers.of(START_JOB)

    def release_asked(self, held: Round, reason: str) -> None:
        """The round ends now, whatever state it is in."""
        self._desk.keep(ReleaseAsked(held.job, held.number, reason))
        if reason == DELETED:
            self._desk.keep(RemovalAsked(held.job))
        self._dispatch.return_all(held.job, held.number)
        course = self.course(held.job)
        course.emptied = False

    def reading(self, keeper: Keeper) -> bool:
        """Whether the output of an attempt that this keeper ran is being read."""
        reading = self.course(keeper.job).reading
        return reading is not None and reading[0] == keeper.name

    # ---- answers

    def directory_made(self, job: str, failure: str | None) -> None:
        self.courses.made(job, failed=failure is not None)
        if failure is None:
            return
        self.give_up(job, f"Its directory could not be made: {failure}")

    def give_up(self, job: str, reason: str, allowance: Allowance | None = None) -> None:
        """What waits of this job (for a keeper of this allowance) can't be started here: each attempt fails with the
        reason. Tasks that wait for a preparation do not: they are given back if that one fails for good."""
        if not any(self._is_waited_for(held) for held in self._rounds(job)):
            self._dispatch.fail_waiting(job, reason, allowance)
        for held in self._rounds(job):
            phase = _wanted_phase(held)
            if phase is None or not self._due(held, phase):
                continue
            if allowance in (None, _allowance(self._desk.ledger.jobs[job], phase)):
                self._fail_unstarted(held, phase, reason)

    def _is_waited_for(self, held: Round) -> bool:
        """Whether tasks of the round wait for its preparation."""
        preparation = self._desk.ledger.jobs[held.job].spec.preparation
        waits = preparation is not None and preparation.wait
        return waits and held.open and held.state is not RoundState.PREPARED

    def tails_read(self, event: TailsRead) -> None:
        """The output of an attempt that ended: now its end can be recorded."""
        keeper = self._keepers.all.get(event.keeper)
        if keeper is None:
            return
        course = self.course(keeper.job)
        if course.reading is None or course.reading[0] != keeper.name or course.reading[1].key != event.key:
            return
        said, course.reading = course.reading[1], None
        keeper.items.pop(said.key, None)
        keeper.leftovers = said.leftovers
        self._keepers.recorded(keeper, said.seq)
        found = self._live(keeper.job, said.key)
        if found is not None:
            how = How(
                said.outcome, said.exit_code, said.signal, said.started_at, said.ended_at, said.reason,
                said.leftovers, event.stdout, event.stderr,
            )  # fmt: skip
            self._end_attempt(*found, how)

    def cleaned(self, event: JobCleaned) -> None:
        """The job's directories are gone: a release is over, or what was kept is."""
        all_gone = self.courses.cleaned(event)
        for held in self._rounds(event.job):
            if held.state is RoundState.RELEASING:
                self._release_over(held, _found(event))
        if all_gone:
            self.courses.removed(event.job)

    # ---- what keepers say

    def ended(self, keeper: Keeper, said: ItemEnded) -> None:
        """An attempt of a phase ended: read its output before that is recorded."""
        found = self._live(keeper.job, said.key)
        if found is None:
            keeper.items.pop(said.key, None)
            self._keepers.recorded(keeper, said.seq)
            return
        held, phase = found
        course = self.course(keeper.job)
        if course.reading is None:
            course.reading = (keeper.name, said)
            directory = phase_directory(held.job, phase, held.book(phase).attempts)
            self._desk.ready.chores.append(ReadTails(keeper.name, said.key, below_root(phase, directory)))

    def keeper_dead(self, keeper: Keeper, started: frozenset[str], ends: tuple[ItemEnded, ...], reason: str) -> None:
        """Take what its record file says of the attempt it had. Of a preparation in an earlier boot nothing counts,
        unless it need not run again: whatever it did, the machine went down since."""
        for said in ends:
            found = self._live(keeper.job, said.key)
            if found is None or not self._void_by_reboot(*found):
                self.ended(keeper, said)
        for held in self._rounds(keeper.job):
            for phase in held.phases:
                live = held.book(phase).live
                if live is None or live.keeper != keeper.name:
                    continue
                key = _key(held, phase, live.number)
                course = self.course(keeper.job)
                if course.reading is not None and course.reading[1].key == key:
                    continue
                why = "Its keeper died, so nobody knows how it ended." if key in started else "It never began."
                if live.at.boot != self._desk.ledger.boot:
                    why = "The machine was restarted."
                wall = self._desk.now.wall
                self._end_attempt(held, phase, How(Outcome.LOST, None, None, live.at.wall, wall, reason or why))

    def _void_by_reboot(self, held: Round, phase: Phase) -> bool:
        preparation = self._desk.ledger.jobs[held.job].spec.preparation
        live = held.book(phase).live
        if phase is Phase.RELEASE or preparation is None or live is None:
            return False
        return preparation.rerun_after_reboot and live.at.boot != self._desk.ledger.boot

    def settled(self, keeper: Keeper) -> None:
        """It has said all: an attempt that it was to run and does not know never reached it."""
        for held in self._rounds(keeper.job):
            for phase in held.phases:
                live = held.book(phase).live
                if live is None or live.keeper != keeper.name:
                    continue
                key = _key(held, phase, live.number)
                reading = self.course(keeper.job).reading
                if key not in keeper.items and (reading is None or reading[1].key != key):
                    if keeper.outdated:
                        self._keepers.retire(keeper, 0.0)  # it may not understand it: another will
                    elif held.open or phase is Phase.RELEASE:
                        self._give(keeper, held, phase, live.number)
                    else:
                        wall = self._desk.now.wall
                        self._end_attempt(held, phase, How(Outcome.KILLED, None, None, wall, wall, "It never began."))

    def greeted(self, keeper: Keeper, keys: list[str]) -> None:
        """What it holds, after a restart of ours."""
        for key in keys:
            keeper.items[key] = (0, 0)
            if self._live(keeper.job, key) is None:
                self._desk.say(keeper.name, StopItem(key=key, reason="It is not known any more."))

    def recalled(self, keeper: Keeper, keys: list[str]) -> None:
        """An attempt that never began and never will there."""
        for key in keys:
            keeper.items.pop(key, None)
            found = self._live(keeper.job, key)
            if found is not None:
                wall = self._desk.now.wall
                self._end_attempt(*found, How(Outcome.LOST, None, None, wall, wall, "It never began."))

    def _live(self, job: str, key: str) -> tuple[Round, Phase] | None:
        for held in self._rounds(job):
            for phase in held.phases:
                live = held.book(phase).live
                if live is not None and _key(held, phase, live.number) == key:
                    return held, phase
        return None

    def _rounds(self, job: str) -> list[Round]:
        held = self._desk.ledger.jobs.get(job)
        return [] if held is None else list(held.rounds.values())

    # ---- the end of an attempt

    def _end_attempt(self, held: Round, phase: Phase, how: How) -> None:
        book = held.book(phase)
        job = self._desk.ledger.jobs[held.job]
        arm = first_match(_command(job, phase).arms, how.outcome, how.exit_code, how.signal)
        verdict = self._judge(held, phase, how, arm)
        final = verdict in (Verdict.SUCCEEDED, Verdict.FAILED) or (verdict is Verdict.ABANDONED and not held.open)
        end = PhaseEnd(
            held.job, held.number, phase, book.attempts, final, verdict is Verdict.SUCCEEDED, how.outcome,
            how.exit_code, how.signal, how.started_at, how.ended_at,
            None if how.reason is None else how.reason[:MAX_REASON], how.stdout.tail[-TAIL:],
            how.stderr.tail[-TAIL:], stdout_size=how.stdout.size, stderr_size=how.stderr.size,
        )  # fmt: skip
        retry_at = None
        if verdict in (Verdict.RETRY, Verdict.INTERRUPTED):
            retry_at = self._desk.now.after(self._delay_s(held, phase, verdict, how, arm))
        waits_for_cleaning = phase is Phase.RELEASE and final
        own = arm if own_retries(_command(job, phase), arm)[0] else None
        self._desk.keep(
            AttemptEnded(
                held.job, held.number, phase, book.attempts, verdict, how.exit_code, retry_at, how.leftovers,
                end if waits_for_cleaning else None, own if verdict is Verdict.RETRY else None,
            )
        )  # fmt: skip
        if not waits_for_cleaning:
            self._desk.phase_ended(end)
        if phase is Phase.RELEASE:
            self.course(held.job).emptied = False
        if held.state is RoundState.BARRED:
            preparation = job.spec.preparation
            if held.is_start:
                self._dispatch.return_everything()
            elif preparation is not None and preparation.wait:
                self._dispatch.return_all(held.job, held.number)

    def _judge(self, held: Round, phase: Phase, how: How, arm: int | None) -> Verdict:
        book = held.book(phase)
        command = _command(self._desk.ledger.jobs[held.job], phase)
        action = command.arms[arm].action if arm is not None else unless_named(how.outcome, how.exit_code)
        if action is ExitAction.SUCCEED:
            return Verdict.SUCCEEDED
        if phase is not Phase.RELEASE and not held.open:
            return Verdict.ABANDONED
        if how.outcome in (Outcome.LOST, Outcome.KILLED):
            rebooted = book.live is not None and book.live.at.boot != self._desk.ledger.boot
            return Verdict.ABANDONED if phase is not Phase.RELEASE and rebooted else Verdict.INTERRUPTED
        if action is not ExitAction.RETRY or how.refused:
            return Verdict.FAILED
        spent, limit = _budget(book, command, arm)
        return Verdict.RETRY if limit is None or spent < limit else Verdict.FAILED

    def _delay_s(self, held: Round, phase: Phase, verdict: Verdict, how: How, arm: int | None) -> float:
        book, command = held.book(phase), _command(self._desk.ledger.jobs[held.job], phase)
        if verdict is Verdict.RETRY:
            seed = f"{held.job}/{self._desk.config.node}/{held.number}/{phase.value}"
            backoff = command.arms[arm].backoff if arm is not None else None
            return wait_s(backoff or command.backoff, how.outcome, *_budget(book, command, arm), seed)
        if book.interruptions == 0:
            return 0.0
        return min(INTERRUPTED_CAP_S, INTERRUPTED_FIRST_S * 2.0 ** min(book.interruptions - 1, 10))

    def _fail_unstarted(
        self, held: Round, phase: Phase, reason: str, keeper: str = "", *, refused: bool = False
    ) -> None:
        """An attempt that fails before there is anything to spawn."""
        book = held.book(phase)
        if phase is not Phase.RELEASE:
            self._desk.begin(held.job, held.number)
        self._desk.keep(AttemptStarted(held.job, held.number, phase, book.attempts + 1, keeper, self._desk.now))
        wall = self._desk.now.wall
        self._end_attempt(held, phase, How(Outcome.START_FAILED, None, None, wall, wall, reason, refused=refused))

    # ---- steps

    def advance(self) -> None:
        """Take every step that is due now."""
        for job in list(self._desk.ledger.jobs.values()):
            for held in list(job.rounds.values()):
                if held.state is RoundState.RELEASING:
                    self._advance_release(job, held)
                elif held.open:
                    self._advance_open(job, held)
        self.courses.advance()
        for over in self.courses.forget_over():
            self._dispatch.forget_job(over)

    def _advance_open(self, job: Job, held: Round) -> None:
        phase = held.phases[0]
        if held.state is RoundState.PREPARING:
            if self._may_begin(held):
                self._advance_attempt(job, held, phase)
            return
        for keeper in self._keepers.of(held.job, PURPOSES[phase]):
            if not keeper.leftovers or not held.prep.over:
                self._keepers.retire(keeper, 0.0)
        if not self.course(held.job).made and not held.is_start:
            self.courses.make(job, held)

    def _may_begin(self, held: Round) -> bool:
        """Whether a preparation, or the start, may begin now: the one waits for the other, which first lets end what
        runs, then ends what an earlier start left running."""
        if not held.is_start:
            return self.started
        if held.prep.attempts:
            return True
        if self._is_busy():
            return False
        earlier = [keeper for keeper in self._keepers.of(START_JOB) if keeper.round != held.number]
        for keeper in earlier:
            self._keepers.retire(keeper, _command(self._desk.ledger.jobs[START_JOB], Phase.START).stop_grace_ms / 1000)
        return not earlier and self.courses.empty(START_JOB)

    def _is_busy(self) -> bool:
        """Whether a task or a preparation runs."""
        rounds = (held for job in self._desk.ledger.jobs.values() for held in job.rounds.values())
        return any(not held.is_start and held.prep.live is not None for held in rounds) or any(
            keeper.items for keeper in self._keepers.of_purpose(Purpose.TASKS)
        )

    def _advance_attempt(self, job: Job, held: Round, phase: Phase) -> None:
        """Towards the next attempt of a phase: directory, keeper, then the attempt itself."""
        if not self._due(held, phase):
            return
        try:
            refuse_elevation(self._desk.config, _command(job, phase))
        except CommandRefused as error:
            self._fail_unstarted(held, phase, str(error), refused=True)
            return
        course = self.course(held.job)
        attempt = held.book(phase).attempts + 1
        anew = phase is Phase.PREPARATION and any(spec.fresh for spec in job.spec.dirs)
        anew = (
            anew or held.is_start or _command(job, phase).elevated
        )  # what other commands of the job put in its way goes first
        if not course.made or (anew and course.made_for != (phase, attempt)):
            self.courses.make(job, held)
            return
        keepers = self._keepers.of(held.job, PURPOSES[phase])
        if not keepers:
            if self._keepers.may_start():
                self._keepers.start(held.job, held.number, PURPOSES[phase], _allowance(job, phase))
            return
        keeper = keepers[0]
        if keeper.round != held.number or keeper.leftovers or keeper.outdated:
            self._keepers.retire(keeper, 0.0)
        elif keeper.usable:
            self._start(keeper, held, phase, attempt)

    def _due(self, held: Round, phase: Phase) -> bool:
        """Whether the next attempt may start now."""
        book = held.book(phase)
        if book.live is not None or book.over:
            return False
        return book.retry_at is None or self._desk.now.seconds_until(book.retry_at) <= 0

    def _start(self, keeper: Keeper, held: Round, phase: Phase, attempt: int) -> None:
        command = _command(self._desk.ledger.jobs[held.job], phase)
        if (reason := self.courses.bringing.lacking(held.job, command)) is not None:
            self.courses.try_again(held.job)
            self._desk.keep(AttemptStarted(held.job, held.number, phase, attempt, keeper.name, self._desk.now))
            wall = self._desk.now.wall
            self._end_attempt(held, phase, How(Outcome.INPUT_FAILED, None, None, wall, wall, reason))
            return
        template = self._template(held, phase, attempt)
        if isinstance(template, str):
            self._fail_unstarted(held, phase, template, keeper.name)
            return
        self._desk.keep(AttemptStarted(held.job, held.number, phase, attempt, keeper.name, self._desk.now))
        self._give(keeper, held, phase, attempt, template)

    def _give(self, keeper: Keeper, held: Round, phase: Phase, attempt: int, template: Template | None = None) -> None:
        made = template or self._template(held, phase, attempt)
        if isinstance(made, str):
            wall = self._desk.now.wall
            self._end_attempt(held, phase, How(Outcome.START_FAILED, None, None, wall, wall, made))
            return
        key = _key(held, phase, attempt)
        keeper.items[key] = (0, attempt)
        self._keepers.teach(keeper, made)
        directory = phase_directory(held.job, phase, attempt)
        self._desk.say(keeper.name, RunItems(items=[(key, made.id, [], directory)]))
        self._desk.send(PhaseStarted(held.job, held.number, phase, attempt, self._desk.now.wall))

    def _template(self, held: Round, phase: Phase, attempt: int) -> Template | str:
        """The attempt's texts, or why there are none."""
        job = self._desk.ledger.jobs[held.job]
        running = sum(grant.ran for grant in self._desk.ledger.grants.values() if grant.job == held.job)
        try:
            return phase_template(self._desk.config, job, held, phase, attempt, held.ran + running)
        except CommandRefused as error:
            return str(error)
        except TemplateError as error:
            return f"Its texts have no value: {error}."

    def _advance_release(self, job: Job, held: Round) -> None:
        course = self.course(held.job)
        if self._stop_others(job, held) or course.reading is not None:
            return
        if job.spec.release is not None and held.begun and not held.release.over:
            if self._keepers.of(held.job, Purpose.RELEASE) or self.courses.empty(held.job):
                self._advance_attempt(job, held, Phase.RELEASE)
            return
        keepers = self._keepers.of(held.job, Purpose.RELEASE)
        for keeper in keepers:
            self._keepers.retire(keeper, 0.0)
        if not keepers and self.courses.empty(held.job) and not self._waits_for_outputs(job, held):
            self.courses.clean(held.job, {} if job.removal or held.is_start else keep_s(job))

    def _waits_for_outputs(self, job: Job, held: Round) -> bool:
        """Whether the clean-up would take what the coordinator is just being told: it waits a moment for that."""
        self._desk.flush()
        kept = keep_s(job)
        goes = any(job.spec.groups[group].name not in kept for group, _ in self._outputs.owes(held.job))
        if job.removal or not self._desk.joined or not goes:
            return False
        course = self.course(held.job)
        course.outputs_until = course.outputs_until or self._desk.now.boottime + OUTPUTS_S
        return self._desk.now.boottime < course.outputs_until

    def _stop_others(self, job: Job, held: Round) -> bool:
        """Stop tasks and preparation of the job; whether any keeper of theirs is still there."""
        keepers = self._keepers.of(held.job, Purpose.TASKS, Purpose.PREPARATION, Purpose.START, Purpose.SHELL)
        for keeper in keepers:
            if keeper.stage in (Stage.SURVEYED, Stage.SETTLING):
                continue
            if keeper.items and not keeper.told_to_stop:
                keeper.told_to_stop = True
                why = _WHY_STOPPED.get(held.release_reason, "Its job ended.")
                for key in keeper.items:
                    self._desk.say(keeper.name, StopItem(key=key, reason=why))
            if not keeper.items:
                grace_s = _command(job, Phase.PREPARATION).stop_grace_ms / 1000 if keeper.leftovers else 0.0
                self._keepers.retire(keeper, grace_s)
        if keepers:
            self.course(held.job).emptied = False
        return bool(keepers)

    def _release_over(self, held: Round, clean: Cleanliness) -> None:
        """Cleaned: the release has run to its end, and is told. A round of which nothing ever began was none."""
        if held.is_start:
            self._desk.keep_of_job(RoundForgotten(held.job, held.number))
            return
        if not held.begun:
            self._desk.keep_of_job(RoundForgotten(held.job, held.number))
            self._desk.send(NotHeld(held.job, held.number))
            return
        left = bool(clean.files or clean.processes or clean.cgroups or clean.mounts)
        wall = self._desk.now.wall
        end = held.release_end
        if end is None:
            end = PhaseEnd(
                held.job, held.number, Phase.RELEASE, 1, True, not left, Outcome.EXITED, None, None, wall, wall,
                "Not everything could be removed." if left else None, b"", b"", clean=clean,
            )  # fmt: skip
        else:
            end = msgspec.structs.replace(end, clean=clean)
        self._desk.keep(Released(held.job, held.number, self._desk.phase_ended(end)))

    def next_due(self) -> float | None:
        """Seconds from now until a retry or the end of a retention."""
        due = [
            held.book(phase).retry_at
            for job in self._desk.ledger.jobs.values()
            for held in job.rounds.values()
            for phase in held.phases
            if _wanted_phase(held) is phase and not held.book(phase).over
        ]
        left = [self._desk.now.seconds_until(at) for at in due if at is not None]
        left += [at - self._desk.now.boottime for at in self.courses.next_due()]
        return min((seconds for seconds in left if 0 < seconds < math.inf), default=None)


def _budget(book: PhaseBook, command: Command, arm: int | None) -> tuple[int, int | None]:
    """Retries spent, and how many there are (None: no limit), of the arm that decides if it counts by itself."""
    own, limit = own_retries(command, arm)
    if arm is not None and own:
        return book.arm_retries.get(arm, 0), limit
    return book.failures, limit


def _wanted_phase(held: Round) -> Phase | None:
    """The phase whose attempts are this round's business now."""
    if held.state is RoundState.PREPARING:
        return held.phases[0]
    return Phase.RELEASE if held.state is RoundState.RELEASING else None


def _found(event: JobCleaned) -> Cleanliness:
    """What the clean-up left, short enough to be reported."""
    clean = event.clean or Cleanliness(files=list(event.leftovers))
    return msgspec.structs.replace(
        clean, files=_short(clean.files), cgroups=_short(clean.cgroups), mounts=_short(clean.mounts)
    )


def _short(texts: list[str]) -> list[str]:
    return [text[:MAX_LEFTOVER] for text in texts[:MAX_LEFTOVERS]]


def _key(held: Round, phase: Phase, attempt: int) -> str:
    return f"{phase.value}.{held.number}.{attempt}"


def _command(job: Job, phase: Phase) -> Command:
    return command_of(job, release=phase is Phase.RELEASE)


def _allowance(job: Job, phase: Phase) -> Allowance:
    return Allowance(_command(job, phase).elevated)
