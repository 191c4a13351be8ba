"""What a node must not forget: one type a durable fact, with the decision that was taken in it.

`model.Ledger.apply` folds them; the journal keeps them as rows `(scope, kind, body)` in the order they were made and
forgets a scope's rows together when the core says so.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from wire.instant import Instant
from wire.messages import START_JOB, Phase, PhaseEnd, TaskEnd
from wire.spec import Needs


class Verdict(enum.Enum):
    """What the end of an attempt means for its phase."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # for good
    RETRY = "retry"  # again, not before `retry_at`; spends a retry
    INTERRUPTED = "interrupted"  # its keeper died: again, spends nothing
    ABANDONED = "abandoned"  # stopped, or its machine went down: not again by itself


class Purpose(enum.Enum):
    """What a keeper is for; one of each phase, several for tasks."""

    START = "start"
    TASKS = "tasks"
    PREPARATION = "prep"
    RELEASE = "release"
    SHELL = "shell"


class Allowance(msgspec.Struct, frozen=True):
    """With which rights and within which limits a keeper's commands run; a keeper has one for its whole life."""

    elevated: bool = False
    needs: Needs = Needs()


class _Record(msgspec.Struct, frozen=True, array_like=True):
    """Base of durable facts."""


class Counted(_Record, frozen=True, tag=True):
    """Where the counters stand, never to go back: the last report, the last acked one, the last keeper."""

    report: int
    acked: int
    keeper: int


class BootSeen(_Record, frozen=True, tag=True):
    """The agent came up in this boot of the machine: nothing that ran in another one is alive."""

    boot: str


class StartOrdered(_Record, frozen=True, tag=True):
    """The pool's start (a StartBody, as msgpack) is to run: nothing else begins before it has succeeded. It stands for
    all earlier ones."""

    number: int
    digest: str
    body: bytes


class JobHeld(_Record, frozen=True, tag=True):
    """A JobBody, as msgpack: all that is needed to run and to release the job without a coordinator."""

    job: str
    body: bytes


class RoundOpened(_Record, frozen=True, tag=True):
    """From here on the node owes the job's release."""

    job: str
    round: int


class RoundBegun(_Record, frozen=True, tag=True):
    """Something of the round may have started from here on: its release is to be run, not only its clean-up."""

    job: str
    round: int


class PreparationAsked(_Record, frozen=True, tag=True):
    job: str
    round: int


class ReleaseAsked(_Record, frozen=True, tag=True):
    """The round ends; nothing of it starts any more but the release."""

    job: str
    round: int
    reason: str


class AttemptStarted(_Record, frozen=True, tag=True):
    """Durable before the command may be spawned."""

    job: str
    round: int
    phase: Phase
    attempt: int
    keeper: str
    at: Instant


class AttemptEnded(_Record, frozen=True, tag=True):
    """`end` is kept only for the final attempt of a release: it is reported after the clean-up."""

    job: str
    round: int
    phase: Phase
    attempt: int
    verdict: Verdict
    exit_code: int | None
    retry_at: Instant | None
    leftovers: bool
    end: PhaseEnd | None = None
    arm: int | None = None
    """The arm of `exit` whose own number of retries this one was spent of; None: the command's."""


class Released(_Record, frozen=True, tag=True):
    """The release ran to its end and the job's directories are gone; report `report` says so."""

    job: str
    round: int
    report: int


class RoundForgotten(_Record, frozen=True, tag=True):
    """The coordinator knows how the round ended."""

    job: str
    round: int


class Retained(_Record, frozen=True, tag=True):
    """Directories of the job outlive its release, the first of them until then, as `keep_s` says (see CleanJob);
    None: no more. It outlives what else is known of the job."""

    job: str
    until: Instant | None
    keep_s: dict[str, float]


class RemovalAsked(_Record, frozen=True, tag=True):
    """The job was deleted: nothing of it is kept."""

    job: str


class Removed(_Record, frozen=True, tag=True):
    job: str


class Granted(_Record, frozen=True, tag=True):
    """A grant is held: see `wire.messages.Run`."""

    grant: int
    job: str
    round: int
    group: int
    first: int
    count: int
    step: int
    attempt: int


class Ended(_Record, frozen=True, tag=True):
    """These positions of a grant ended, `ran` of them after having been started; their ends are in a Reported of the
    same transaction."""

    grant: int
    positions: list[int]
    ran: int


class GaveBack(_Record, frozen=True, tag=True):
    """These positions never started here and never will."""

    grant: int
    spans: list[tuple[int, int]]


class Dropped(_Record, frozen=True, tag=True):
    """The grant is void: whatever of it still runs is killed and not reported."""

    grant: int


class TasksRan(_Record, frozen=True, tag=True):
    """How many tasks of the round were started, in the grants that are over; the latest one counts."""

    job: str
    round: int
    total: int


class Reported(_Record, frozen=True, tag=True):
    """A report, kept until it is acked."""

    number: int
    tasks: list[TaskEnd]
    phases: list[PhaseEnd]


class Owed(msgspec.Struct, frozen=True, array_like=True):
    """An attempt of a task whose output the coordinator is to have; `directory` is below workitems."""

    job: str
    group: int
    index: int
    attempt: int
    directory: str
    succeeded: bool = False


class OutputsOwed(_Record, frozen=True, tag=True):
    """The outputs of ends in report `report`, until they are taken (then: none)."""

    report: int
    rows: list[Owed]


class KeeperBegun(_Record, frozen=True, tag=True):
    """Durable before the keeper is started, so that it is looked for after a crash."""

    keeper: str
    job: str
    round: int
    purpose: Purpose
    elevated: bool = False
    needs: Needs = Needs()


class KeeperOver(_Record, frozen=True, tag=True):
    """The keeper and all it started are dead, and what it knew is taken."""

    keeper: str


Record = (
    Counted | BootSeen | StartOrdered | JobHeld | RoundOpened | RoundBegun | PreparationAsked | ReleaseAsked
    | AttemptStarted | AttemptEnded | Released | RoundForgotten | Retained | RemovalAsked | Removed | Granted
    | Ended | GaveBack | Dropped | TasksRan | Reported | OutputsOwed | KeeperBegun | KeeperOver
)  # fmt: skip

COUNTERS: Final = "counters"
BOOT: Final = "boot"
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Record]] = msgspec.msgpack.Decoder(Record)


def scope_of(record: Record) -> str:
    """What this row is forgotten with."""
    match record:
        case Counted():
            return COUNTERS
        case BootSeen():
            return BOOT
        case StartOrdered():
            return job_scope(START_JOB)
        case Granted() | Ended() | GaveBack() | Dropped():
            return grant_scope(record.grant)
        case TasksRan():
            return count_scope(record.job, record.round)
        case Retained():
            return kept_scope(record.job)
        case Reported():
            return report_scope(record.number)
        case OutputsOwed():
            return f"outputs {record.report}"
        case KeeperBegun() | KeeperOver():
            return keeper_scope(record.keeper)
        case _:
            return job_scope(record.job)


def job_scope(job: str) -> str:
    return f"job {job}"


def kept_scope(job: str) -> str:
    return f"kept {job}"


def count_scope(job: str, number: int) -> str:
    return f"count {job} {number}"


def grant_scope(grant: int) -> str:
    return f"grant {grant}"


def report_scope(number: int) -> str:
    return f"report {number}"


def keeper_scope(keeper: str) -> str:
    return f"keeper {keeper}"


def encode(record: Record) -> bytes:
    """The row's body."""
    return _ENCODER.encode(record)


def decode(body: bytes) -> Record:
    """Raises msgspec.DecodeError (or ValidationError) for what was never a record."""
    return _DECODER.decode(body)
