"""What a node knows for good: the fold of its records, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, assert_never

import msgspec

from agentd.records import (
    Allowance,
    AttemptEnded,
    AttemptStarted,
    BootSeen,
    Counted,
    Dropped,
    Ended,
    GaveBack,
    Granted,
    JobHeld,
    KeeperBegun,
    KeeperOver,
    OutputsOwed,
    Owed,
    PreparationAsked,
    Purpose,
    Record,
    ReleaseAsked,
    Released,
    RemovalAsked,
    Removed,
    Reported,
    Retained,
    RoundBegun,
    RoundForgotten,
    RoundOpened,
    StartOrdered,
    TasksRan,
    Verdict,
)
from wire.instant import Instant
from wire.messages import START_JOB, JobBody, Phase, PhaseEnd, Report, RoundState, StartBody
from wire.spec import JobSpec, Preparation

WORKITEMS: Final = "workitems"
SCRIPTS: Final = "scripts"
HELD: Final = "file."
"""What the names of files begin with that lie with a job's scripts and are brought in by its commands."""
PRIVATE_ELEVATED: Final = "private-elevated"
"""Below a job's directory: root's own home, and what elevated commands see as /tmp, /var/tmp and /dev/shm."""
PREPARATION_DIRECTORY: Final = "jobpreparation"
RELEASE_DIRECTORY: Final = "jobrelease"

STARTUP: Final = "startup"
"""Below the root: where the pool's start runs."""
START_MARK: Final = "BATCH_NODE_START"
"""By this variable what a start left running is found; it has no job's."""

_BODY: Final = msgspec.msgpack.Decoder(JobBody)
_START: Final = msgspec.msgpack.Decoder(StartBody)


class Staging(msgspec.Struct, frozen=True, kw_only=True):
    """How commands' files are brought in here; see `agentd.staging.Plan`. `program`: the argv of what does it."""

    program: tuple[str, ...] = ("staging",)
    timeout_s: float = 3600.0
    patience_s: float = 60.0
    max_bytes: int = 16 << 30
    tries: int = 4
    first_s: float = 1.0
    cap_s: float = 30.0
    proxy: str | None = None
    ca: str | None = None


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What this node is. `incarnation` comes from its root directory; `root` is absolute, as commands see it."""

    pool: str
    node: str
    root: str
    incarnation: str
    slots: int | None = None
    resources: dict[str, float] = {}
    gpus: tuple[str, ...] = ()
    """What tasks call each of its GPUs."""
    labels: dict[str, str] = {}
    elevation: bool = False
    elevation_refused: str = "which this node does not allow (agentd --allow-elevation)"
    """Why, where there is none: the end of a sentence about what asked for it."""
    containment: str = "subreaper"
    users: str = "same"
    limits: tuple[str, ...] = ()
    version: str = ""
    embedded: bool = False
    life: str = ""
    """A random word for this start of the agent."""
    output_head: int = 16 * 1024
    output_tail: int = 64 * 1024
    """Bytes of each output of a failed task that the coordinator keeps, from its beginning and from its end."""
    output_success: int = 0
    """Bytes of the end of each output of one that succeeded."""
    disk_floor: int | None = None
    """Bytes free on the disk of the root without which the node takes no work; None: `health.FLOOR_BYTES` or less."""
    path_additions: tuple[str, ...] = ()
    site_env: dict[str, str] = {}
    staging: Staging = Staging()


def decode_body(body: bytes) -> JobBody:
    """Raises msgspec.MsgspecError, ValueError or RecursionError for what is no JobBody."""
    return _BODY.decode(body)


def decode_start(body: bytes) -> JobBody:
    """A pool's start as the job that stands for it, whose preparation it is: on a node both are run, tried again and
    taken up after a restart in one way. Raises as `decode_body` does."""
    start = _START.decode(body)
    spec = JobSpec(name=START_JOB, pool=start.pool, preparation=Preparation(command=start.command))
    return JobBody(START_JOB, f"pool:{start.pool}", spec)


@dataclass(slots=True)
class LiveAttempt:
    """A phase's attempt that was given to a keeper and whose end is not recorded yet."""

    number: int
    keeper: str
    at: Instant


@dataclass(slots=True)
class PhaseBook:
    """What is known of a phase of a round: its attempts, spent retries and how it ended, if it did."""

    attempts: int = 0
    live: LiveAttempt | None = None
    failures: int = 0
    arm_retries: dict[int, int] = field(default_factory=dict)
    """Retries spent of arms of `exit` that have a number of their own."""
    interruptions: int = 0
    retry_at: Instant | None = None
    verdict: Verdict | None = None
    exit_code: int | None = None

    @property
    def over(self) -> bool:
        return self.verdict in (Verdict.SUCCEEDED, Verdict.FAILED)

    def begin_anew(self) -> None:
        """A fresh budget; attempt numbers go on."""
        self.failures = self.interruptions = 0
        self.arm_retries.clear()
        self.retry_at = None
        self.verdict = None

    def started(self, record: AttemptStarted) -> None:
        self.attempts = record.attempt
        self.live = LiveAttempt(record.attempt, record.keeper, record.at)
        self.retry_at = None

    def ended(self, record: AttemptEnded) -> None:
        self.live = None
        self.verdict = record.verdict
        self.exit_code = record.exit_code
        self.retry_at = record.retry_at
        if record.arm is None:
            self.failures += record.verdict in (Verdict.RETRY, Verdict.FAILED)
        else:
            self.arm_retries[record.arm] = self.arm_retries.get(record.arm, 0) + 1
        self.interruptions += record.verdict is Verdict.INTERRUPTED


_AFTER_PREPARATION: Final = {
    Verdict.SUCCEEDED: RoundState.PREPARED,
    Verdict.FAILED: RoundState.BARRED,
    Verdict.RETRY: RoundState.PREPARING,
    Verdict.INTERRUPTED: RoundState.PREPARING,
    Verdict.ABANDONED: RoundState.OPENED,
}


@dataclass(slots=True)
class Round:
    """A round of a job on this node. Invariant: exists from the moment a release is owed until its end is acked."""

    job: str
    number: int
    state: RoundState = RoundState.OPENED
    prep: PhaseBook = field(default_factory=PhaseBook)
    release: PhaseBook = field(default_factory=PhaseBook)
    begun: bool = False
    """Something of it may have started."""
    rebooted: bool = False
    ran: int = 0
    """Tasks started in grants that are over."""
    release_reason: str = ""
    release_end: PhaseEnd | None = None
    """How the release ended, while the clean-up is still to be done and reported with it."""
    final_report: int = 0

    @property
    def open(self) -> bool:
        """Whether anything but the release may still start."""
        return self.state not in (RoundState.RELEASING, RoundState.RELEASED)

    @property
    def is_start(self) -> bool:
        """Whether it stands for the pool's start."""
        return self.job == START_JOB

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What is run in it, beside tasks."""
        return (Phase.START,) if self.is_start else (Phase.PREPARATION, Phase.RELEASE)

    def book(self, phase: Phase) -> PhaseBook:
        return self.release if phase is Phase.RELEASE else self.prep

    def boot_changed(self, rerun: bool) -> None:
        if self.state is RoundState.PREPARED and rerun:
            self.state, self.rebooted = RoundState.OPENED, True
        elif self.state is RoundState.PREPARING:
            self.rebooted = True
            if self.prep.live is None:
                self.state = RoundState.OPENED


@dataclass(slots=True)
class Job:
    """A job of which this node holds something: an open round, or a report to be acked."""

    body: JobBody
    rounds: dict[int, Round] = field(default_factory=dict)
    removal: bool = False
    digest: str = ""
    """Of a start: what it is known by."""

    @property
    def spec(self) -> JobSpec:
        return self.body.spec

    @property
    def idle(self) -> bool:
        """Nothing is left to be known of it."""
        return not self.rounds and not self.removal


@dataclass(slots=True)
class Grant:
    """A grant of which something may still be queued or alive here. Invariant: `left` positions of `open` are 1."""

    grant: int
    job: str
    round: int
    group: int
    first: int
    count: int
    step: int
    attempt: int
    open: bytearray
    left: int
    ran: int = 0
    stale: bool = False
    """Given in an earlier boot: nothing of it may be started."""

    def close(self, position: int) -> None:
        if self.open[position]:
            self.open[position] = 0
            self.left -= 1

    def index(self, position: int) -> int:
        return self.first + position * self.step


@dataclass(slots=True)
class Kept:
    """Directories of a job that outlive its release: the first of them is due at `until`."""

    until: Instant
    keep_s: dict[str, float]


@dataclass(slots=True)
class KeeperRow:
    job: str
    round: int
    purpose: Purpose
    allowance: Allowance = field(default_factory=Allowance)


@dataclass(slots=True)
class Ledger:
    """The node's durable state. `apply` is the only code that changes it."""

    boot: str = ""
    jobs: dict[str, Job] = field(default_factory=dict)
    retained: dict[str, Kept] = field(default_factory=dict)
    grants: dict[int, Grant] = field(default_factory=dict)
    outbox: dict[int, Report] = field(default_factory=dict)
    owed: dict[int, list[Owed]] = field(default_factory=dict)
    """Outputs that the coordinator is to have, by the report of their ends."""
    keepers: dict[str, KeeperRow] = field(default_factory=dict)
    reports: int = 0
    acked: int = 0
    keepers_begun: int = 0

    def round(self, job: str, number: int) -> Round | None:
        held = self.jobs.get(job)
        return held.rounds.get(number) if held is not None else None

    @property
    def start(self) -> Round | None:
        """The pool's start, if the node was given one."""
        held = self.jobs.get(START_JOB)
        return None if held is None else next(iter(held.rounds.values()))

    def apply(self, record: Record) -> None:
        """Fold one record. Records name only what earlier ones made; a row that does not fit is a broken journal."""
        match record:
            case Ended() | Granted() | GaveBack() | Dropped():
                self._apply_grant(record)
            case Reported():
                self.reports = max(self.reports, record.number)
                self.outbox[record.number] = Report(record.number, record.tasks, record.phases)
            case Counted():
                self._count(record)
            case OutputsOwed():
                self.owed[record.report] = record.rows
                if not record.rows:
                    del self.owed[record.report]
            case Retained():
                if record.until is None:
                    self.retained.pop(record.job, None)
                else:
                    self.retained[record.job] = Kept(record.until, record.keep_s)
            case KeeperBegun():
                allowance = Allowance(record.elevated, record.needs)
                self.keepers[record.keeper] = KeeperRow(record.job, record.round, record.purpose, allowance)
                self.keepers_begun = max(self.keepers_begun, int(record.keeper[1:]))
            case KeeperOver():
                del self.keepers[record.keeper]
            case BootSeen():
                self._boot_seen(record.boot)
            case StartOrdered():
                self.jobs.pop(START_JOB, None)  # its place is that of this row
                self.jobs[START_JOB] = Job(decode_start(record.body), digest=record.digest)
                held = Round(START_JOB, record.number, RoundState.PREPARING)
                self.jobs[START_JOB].rounds[record.number] = held
            case _:
                self._apply_job(record)

    def _count(self, record: Counted) -> None:
        self.reports = max(self.reports, record.report)
        self.keepers_begun = max(self.keepers_begun, record.keeper)
        self.acked = max(self.acked, record.acked)
        for number in [number for number in self.outbox if number <= self.acked]:
            del self.outbox[number]

    def _boot_seen(self, boot: str) -> None:
        self.boot = boot
        for grant in self.grants.values():
            grant.stale = True
        for job in self.jobs.values():
            preparation = job.spec.preparation
            for held in job.rounds.values():
                held.boot_changed(preparation is not None and preparation.rerun_after_reboot)

    def _apply_grant(self, record: Granted | Ended | GaveBack | Dropped) -> None:
        if isinstance(record, Granted):
            fields = msgspec.structs.asdict(record)
            self.grants[record.grant] = Grant(**fields, open=bytearray(b"\1") * record.count, left=record.count)
            return
        grant = self.grants[record.grant]
        match record:
            case Ended():
                for position in record.positions:
                    grant.close(position)
                grant.ran += record.ran
            case GaveBack():
                for first, count in record.spans:
                    grant.left -= sum(grant.open[first : first + count])
                    grant.open[first : first + count] = bytes(count)
            case Dropped():
                grant.left = 0
            case _ as unreachable:
                assert_never(unreachable)
        if grant.left == 0:
            del self.grants[record.grant]

    def _apply_job(
        self,
        record: JobHeld
        | RoundOpened
        | RoundBegun
        | PreparationAsked
        | ReleaseAsked
        | AttemptStarted
        | AttemptEnded
        | Released
        | RoundForgotten
        | RemovalAsked
        | Removed
        | TasksRan,
    ) -> None:
        if isinstance(record, JobHeld):
            self.jobs.setdefault(record.job, Job(decode_body(record.body)))
            return
        job = self.jobs[record.job]
        match record:
            case RoundOpened():
                job.rounds[record.round] = Round(record.job, record.round)
            case RoundForgotten():
                del job.rounds[record.round]
            case RemovalAsked():
                job.removal = True
            case Removed():
                job.removal = False
            case _:
                _apply_round(job.rounds[record.round], record)
        if job.idle and not isinstance(record, RoundOpened):
            del self.jobs[record.job]


def _apply_round(
    held: Round,
    record: RoundBegun | PreparationAsked | ReleaseAsked | AttemptStarted | AttemptEnded | Released | TasksRan,
) -> None:
    match record:
        case RoundBegun():
            held.begun = True
        case PreparationAsked():
            held.state = RoundState.PREPARING
            held.prep.begin_anew()
        case ReleaseAsked():
            held.state, held.release_reason = RoundState.RELEASING, record.reason
        case AttemptStarted():
            held.book(record.phase).started(record)
        case AttemptEnded():
            held.book(record.phase).ended(record)
            if record.phase is not Phase.RELEASE and held.open:
                held.state = _AFTER_PREPARATION[record.verdict]
            if record.phase is Phase.RELEASE:
                held.release_end = record.end
        case Released():
            held.state, held.release_end, held.final_report = RoundState.RELEASED, None, record.report
        case TasksRan():
            held.ran = record.total
        case _ as unreachable:
            assert_never(unreachable)
