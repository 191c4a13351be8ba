"""What the parts of the node's core share: the ledger, the `Ready` being made, and the ends waiting to be reported."""

from __future__ import annotations

from typing import Final

from agentd.dialogue import ToKeeper
from agentd.events import Ready
from agentd.model import Grant, Ledger, NodeConfig
from agentd.records import (
    Counted,
    Dropped,
    Ended,
    GaveBack,
    KeeperOver,
    OutputsOwed,
    Owed,
    Record,
    Removed,
    Reported,
    Retained,
    RoundBegun,
    RoundForgotten,
    StartOrdered,
    TasksRan,
    count_scope,
    grant_scope,
    job_scope,
    keeper_scope,
    kept_scope,
    report_scope,
    scope_of,
)
from wire.instant import Instant
from wire.messages import FromNode, Message, Outcome, PhaseEnd, Recalled, Report, TaskEnd

MAX_ENDS: Final = 1000
"""Ends of tasks in one report; with their reasons they must fit a frame."""
MAX_REASON: Final = 300
MAX_PHASES: Final = 4
"""Ends of phases in one report: each brings two tails of 64 KiB."""

GATHER_S: Final = 0.02
"""While ends come quickly, no more than one report in this time: each costs a commit on both sides."""
FORGET_S: Final = 0.5
"""How long an ack waits for a commit that there is anyway."""

Spans = list[tuple[int, int]]
_NEVER_RAN: Final = (Outcome.START_FAILED, Outcome.INPUT_FAILED)


class Desk:
    """Invariant: the ledger changes by `keep` and its kin alone, and every record kept is in `ready` or forgotten."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.ledger = Ledger()
        self.ready = Ready()
        self.now = Instant("", 0.0, 0.0)
        self.joined = False
        self.ended_in: set[str] = set()
        """Jobs of which tasks have ended since somebody looked."""
        self.back: set[str] = set()
        """Jobs that have a next round here, beside what an earlier one left, since somebody looked."""
        self._tasks: list[TaskEnd] = []
        self._phases: list[PhaseEnd] = []
        self._ending: dict[int, dict[int, bool]] = {}
        self._scopes: set[str] = set()
        self._flushed_at = 0.0
        self._owed: list[Owed] = []
        self._acked = 0
        self._forget_due: float | None = None

    def take_ready(self) -> Ready:
        ready, self.ready = self.ready, Ready()
        self._scopes = set()
        return ready

    # ---- records

    def keep(self, record: Record) -> None:
        """Durable before anything that is made ready from here on."""
        self.ledger.apply(record)
        self.ready.records.append(record)
        self._scopes.add(scope_of(record))

    def _keep_latest(self, record: Record) -> None:
        """A record that stands for all earlier ones of its scope."""
        self._forget(scope_of(record))
        self.keep(record)

    def _forget(self, scope: str) -> None:
        if scope in self._scopes:
            self.ready.records = [record for record in self.ready.records if scope_of(record) != scope]
        self.ready.forget.append(scope)

    def order_start(self, number: int, digest: str, body: bytes) -> None:
        """The pool's start is to run (again); what was known of an earlier one is forgotten."""
        self._keep_latest(StartOrdered(number, digest, body))

    def keep_of_grant(self, record: Ended | GaveBack | Dropped) -> None:
        """A fact of a grant; with its last open position the grant is over and leaves nothing but its count."""
        grant = self.ledger.grants[record.grant]
        self.keep(record)
        if record.grant not in self.ledger.grants:
            held = self.ledger.round(grant.job, grant.round)
            if held is not None and grant.ran:
                self._keep_latest(TasksRan(grant.job, grant.round, held.ran + grant.ran))
            self._forget(grant_scope(record.grant))

    def keep_of_job(self, record: RoundForgotten | Removed) -> None:
        """A fact that may be the last one of its job, which then is forgotten."""
        before = self._rounds(record.job)
        self.keep(record)
        if record.job not in self.ledger.jobs:
            self._forget(job_scope(record.job))
        for number in before - self._rounds(record.job):
            self._forget(count_scope(record.job, number))

    def _rounds(self, job: str) -> set[int]:
        held = self.ledger.jobs.get(job)
        return set() if held is None else set(held.rounds)

    def begin(self, job: str, number: int) -> None:
        """Something of the round is about to start, or is told to have failed to: its release will be run."""
        held = self.ledger.round(job, number)
        if held is not None and not held.begun:
            self.keep(RoundBegun(job, number))

    def retain(self, job: str, until: Instant | None, keep_s: dict[str, float]) -> None:
        """What is kept of a job beyond its release, if anything."""
        if until is not None:
            self._keep_latest(Retained(job, until, keep_s))
        elif job in self.ledger.retained:
            self.ledger.apply(Retained(job, None, {}))
            self._forget(kept_scope(job))

    def keeper_over(self, keeper: str) -> None:
        self.keep(KeeperOver(keeper))
        self._forget(keeper_scope(keeper))
        self._count(self.ledger.acked)

    def acked(self, number: int) -> None:
        """The coordinator has all reports up to `number`; noted with the next commit, as forgetting is not urgent."""
        number = min(number, self.ledger.reports)
        if number > self.ledger.acked:
            self._acked = max(self._acked, number)
            if self._forget_due is None:
                self._forget_due = self.now.boottime + FORGET_S

    def forget_acked(self) -> None:
        """Note what was acked, if there is a commit to note it with, or it is time, or a round ends with it."""
        if self._forget_due is None:
            return
        ends_round = any(
            0 < held.final_report <= self._acked for job in self.ledger.jobs.values() for held in job.rounds.values()
        )
        if self.ready.records or ends_round or self.now.boottime >= self._forget_due:
            self.forget_now()

    def forget_now(self) -> None:
        """Note what was acked."""
        number, self._forget_due = self._acked, None
        if number <= self.ledger.acked:
            return
        for known in [known for known in self.ledger.outbox if known <= number]:
            self._forget(report_scope(known))
        self._count(number)
        over = [
            RoundForgotten(held.job, held.number)
            for job in self.ledger.jobs.values()
            for held in job.rounds.values()
            if 0 < held.final_report <= number
        ]
        for record in over:
            self.keep_of_job(record)

    @property
    def last_acked(self) -> int:
        """The last report that the coordinator has."""
        return max(self._acked, self.ledger.acked)

    def owe_no_more(self, report: int) -> None:
        """The outputs of that report are taken, or let go."""
        done = OutputsOwed(report, [])
        self.ledger.apply(done)
        self._forget(scope_of(done))

    def _count(self, acked: int) -> None:
        self._keep_latest(Counted(self.ledger.reports, acked, self.ledger.keepers_begun))

    # ---- ends

    def is_open(self, grant: int, position: int) -> Grant | None:
        """The grant, if this position of it is still to end."""
        held = self.ledger.grants.get(grant)
        if held is None or not 0 <= position < held.count or not held.open[position]:
            return None
        return None if position in self._ending.get(grant, ()) else held

    def task_ended(self, end: TaskEnd, owed: Owed | None = None) -> None:
        """`owed`: what it wrote is to be kept by the coordinator."""
        self._tasks.append(end)
        if owed is not None:
            self._owed.append(owed)
        self._ending.setdefault(end.grant, {})[end.position] = end.outcome not in _NEVER_RAN
        if len(self._tasks) >= MAX_ENDS:
            self.flush()

    def phase_ended(self, end: PhaseEnd) -> int:
        """The number of the report that will say so."""
        self._phases.append(end)
        if len(self._phases) >= MAX_PHASES:
            self.flush()
            return self.ledger.reports
        return self.ledger.reports + 1

    @property
    def unflushed(self) -> bool:
        """Whether something has ended that is not recorded."""
        return bool(self._tasks or self._phases)

    def next_due(self) -> float | None:
        """The boottime by which what has ended is to be flushed, or what was acked to be forgotten."""
        if self.unflushed:
            return self._flushed_at + GATHER_S
        return self._forget_due

    def flush_if_due(self) -> None:
        """At once after a pause; else when enough time has passed since the last report."""
        if self._phases or (self._tasks and self.now.boottime >= self._flushed_at + GATHER_S):
            self.flush()

    def flush(self) -> None:
        """Make what has ended a report: durable, then sent."""
        if not self._tasks and not self._phases:
            return
        self._flushed_at = self.now.boottime
        report = Reported(self.ledger.reports + 1, self._tasks, self._phases)
        ending = self._ending
        self._tasks, self._phases, self._ending = [], [], {}
        self.keep(report)
        if self._owed:
            self.keep(OutputsOwed(report.number, self._owed))
            self._owed = []
        for grant, positions in ending.items():
            self.ended_in.add(self.ledger.grants[grant].job)
            self.keep_of_grant(Ended(grant, list(positions), sum(positions.values())))
        if self.joined:
            self.send(Report(report.number, report.tasks, report.phases))

    def give_back(self, grant: int, spans: Spans, *, say: bool = True) -> None:
        """These positions never started here and never will."""
        self.flush()
        if spans:
            self.keep_of_grant(GaveBack(grant, spans))
        if say:
            self.send(Recalled(grant, spans))

    # ---- what the shell does

    def send(self, message: FromNode) -> None:
        """To the coordinator, if there is a joined session; else the next inventory tells."""
        if self.joined:
            self.ready.messages.append(message)

    def send_at_once(self, message: Message) -> None:
        self.ready.at_once.append(message)

    def say(self, keeper: str, said: ToKeeper) -> None:
        self.ready.said.append((keeper, said))

    def say_at_once(self, keeper: str, said: ToKeeper) -> None:
        self.ready.at_once.append((keeper, said))


def spans_of(positions: list[int]) -> Spans:
    """Runs `(first, count)` of sorted positions."""
    spans: Spans = []
    for position in positions:
        if spans and sum(spans[-1]) == position:
            spans[-1] = (spans[-1][0], spans[-1][1] + 1)
        else:
            spans.append((position, 1))
    return spans
