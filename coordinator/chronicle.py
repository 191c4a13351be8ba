"""What a durable row tells: record in, events out, the same ones each time it is read. Batches are expanded here alone,
one event at a time, and from any place on, so that nobody holds a million of them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from operator import itemgetter
from typing import Any, Final, assert_never

from coordinator.cuts import Cut, runs_of
from coordinator.identities import TOKEN_ID
from coordinator.model import Job
from coordinator.records import (
    DebtPaid,
    EndCalled,
    Ended,
    Granted,
    GroupSkipped,
    IdentityAdmitted,
    IdentityRevoked,
    JobChanged,
    JobCompleted,
    JobDeleted,
    JobDeleting,
    JobEnding,
    JobMoved,
    JobReopened,
    JobState,
    JobSubmitted,
    NodeJoined,
    NodeLeft,
    NodeMark,
    NodeMarked,
    PoolSet,
    Record,
    ReportTaken,
    RoundMoved,
    RoundOpened,
    RoundVoided,
    ShellClosed,
    ShellOpened,
    StartEnded,
    StartOrdered,
    TaskCancelled,
    TasksDone,
    TasksReturned,
    TasksSkipped,
    TokenMade,
    TokenRevoked,
    Verdict,
)
from coordinator.views import time_text
from wire.messages import Phase, PhaseEnd

Plain = dict[str, Any]

SHORT: Final = 16
"""Letters of a key, as lists of identities show it."""
PLACES: Final = 1 << 27
"""Places of events in one row: more than a job has tasks (`wire.bounds.MAX_TASKS`)."""


class Kind(enum.Enum):
    """What an event is; the text is what people and programs see."""

    GAP = "gap"
    POOL_SET = "pool.set"
    NODE_JOINED = "node.joined"
    NODE_LEFT = "node.left"
    NODE_REVOKED = "node.revoked"
    NODE_DRAINING = "node.draining"
    NODE_DRAINED = "node.drained"
    NODE_ENABLED = "node.enabled"
    NODE_FORGOTTEN = "node.forgotten"
    TOKEN_CREATED = "token.created"
    TOKEN_REVOKED = "token.revoked"
    IDENTITY_ADMITTED = "identity.admitted"
    IDENTITY_REVOKED = "identity.revoked"
    JOB_SUBMITTED = "job.submitted"
    JOB_DISABLING = "job.disabling"
    JOB_DISABLED = "job.disabled"
    JOB_ENABLED = "job.enabled"
    JOB_CHANGED = "job.changed"
    JOB_REOPENED = "job.reopened"
    JOB_TASKS_DONE = "job.tasks_done"
    JOB_ENDED = "job.ended"
    JOB_COMPLETED = "job.completed"
    ON_END_CALLED = "on_end.called"
    ON_END_RETRIED = "on_end.retried"
    ON_END_FAILED = "on_end.failed"
    JOB_DELETING = "job.deleting"
    JOB_DELETED = "job.deleted"
    ROUND_OPENED = "round.opened"
    ROUND_MOVED = "round.moved"
    ROUND_VOIDED = "round.voided"
    ROUND_PAID = "round.paid"
    START_ORDERED = "start.ordered"
    START_ENDED = "start.ended"
    START_RETRIED = "start.retried"
    PREP_ENDED = "prep.ended"
    PREP_RETRIED = "prep.retried"
    RELEASE_ENDED = "release.ended"
    RELEASE_RETRIED = "release.retried"
    SHELL_OPENED = "shell.opened"
    SHELL_CLOSED = "shell.closed"
    TASK_GRANTED = "task.granted"
    TASK_RETURNED = "task.returned"
    TASK_RETRIED = "task.retried"
    TASK_ENDED = "task.ended"


MEANINGS: Final[dict[Kind, str]] = {
    Kind.GAP: "rows from `data.from` to `data.to` were forgotten: of deleted jobs, of tokens and keys that are over, "
    "of a node's start before its latest",
    Kind.POOL_SET: "a pool exists, with these options",
    Kind.NODE_JOINED: "a node joined as something new: first time, other boot, root, slots or agent",
    Kind.NODE_LEFT: "a node that owed nothing went by itself",
    Kind.NODE_REVOKED: "a node's identity was revoked",
    Kind.NODE_DRAINING: "an operator has a node emptied; what runs at `data.until` is stopped then",
    Kind.NODE_DRAINED: "a node that is drained holds no work and owes nothing any more",
    Kind.NODE_ENABLED: "a node may be given work again",
    Kind.NODE_FORGOTTEN: "an operator said that a node's machine is off: what it held and owed is void",
    Kind.TOKEN_CREATED: "a token was created (admins only, as all of tokens and identities)",
    Kind.TOKEN_REVOKED: "a token was revoked",
    Kind.IDENTITY_ADMITTED: "somebody came in by a token, or had the certificate renewed",
    Kind.IDENTITY_REVOKED: "an identity was revoked",
    Kind.JOB_SUBMITTED: "a job was submitted",
    Kind.JOB_DISABLING: "nothing of the job starts any more; `data.how` says what becomes of what runs",
    Kind.JOB_DISABLED: "nothing of the job runs any more, until it is enabled",
    Kind.JOB_ENABLED: "the job goes on",
    Kind.JOB_CHANGED: "somebody set the job's priority, `parallel` or timeout (`data`, milliseconds)",
    Kind.JOB_REOPENED: "a completed job is active again, and so are `data.tasks` tasks of it",
    Kind.JOB_TASKS_DONE: "every task of the job is over",
    Kind.JOB_ENDED: "the job ends, for `data.reason`: what waits is cancelled, releases follow; again if forced",
    Kind.JOB_COMPLETED: "the job is over, releases included",
    Kind.ON_END_CALLED: "what the job's `on_end` names was run, and ended with 0",
    Kind.ON_END_RETRIED: "it failed, and is run again",
    Kind.ON_END_FAILED: "it failed for the last time",
    Kind.JOB_DELETING: "the job is to be deleted",
    Kind.JOB_DELETED: "the job is gone, and so are all its earlier events",
    Kind.ROUND_OPENED: "a node owes the job a release from here on",
    Kind.ROUND_MOVED: "the round is in `data.state` now, for another reason than its node's report",
    Kind.ROUND_VOIDED: "the node never heard of the round: nothing began, nothing is owed",
    Kind.ROUND_PAID: "a node released what it still owed a deleted job",
    Kind.START_ORDERED: "the node was given its pool's start, to run before anything else",
    Kind.START_ENDED: "the node's start ended for good",
    Kind.START_RETRIED: "an attempt of the start ended, another follows",
    Kind.PREP_ENDED: "the preparation ended for good on this node",
    Kind.PREP_RETRIED: "an attempt of the preparation ended, another follows",
    Kind.RELEASE_ENDED: "the release ended for good on this node",
    Kind.RELEASE_RETRIED: "an attempt of the release ended, another follows",
    Kind.SHELL_OPENED: "somebody (`data.by`) opens a shell where the task, or without one the preparation, ran",
    Kind.SHELL_CLOSED: "that shell is over; there is none when the coordinator stopped meanwhile",
    Kind.TASK_GRANTED: "the task was given to a node and runs there when its turn comes",
    Kind.TASK_RETURNED: "the task came back from its node without an end (`data.cause`) and goes elsewhere",
    Kind.TASK_RETRIED: "an attempt of the task ended, another follows (`data.verdict` says why)",
    Kind.TASK_ENDED: "the task is over, with `data.result`: once, unless its job is reopened",
}
"""One line each; the table of docs/operations.md is made of it."""

_PHASES: Final = {
    Phase.START: (Kind.START_ENDED, Kind.START_RETRIED),
    Phase.PREPARATION: (Kind.PREP_ENDED, Kind.PREP_RETRIED),
    Phase.RELEASE: (Kind.RELEASE_ENDED, Kind.RELEASE_RETRIED),
}
_RESULTS: Final = {Verdict.SUCCEEDED: "success", Verdict.FAILED: "failure", Verdict.CANCELLED: "cancelled"}
"""Verdicts that are final."""


@dataclass(slots=True)
class Happening:
    """One event, at `place` in its row."""

    kind: Kind
    place: int = 0
    job: str | None = None
    task: str | None = None
    node: str | None = None
    round: int | None = None
    attempt: int | None = None
    data: Plain = field(default_factory=dict)

    def plain(self, row: int, time: str | None) -> Plain:
        """As it is told."""
        return {
            "id": id_of(row, self.place),
            "time": time,
            "kind": self.kind.value,
            "job": self.job,
            "task": self.task,
            "node": self.node,
            "round": self.round,
            "attempt": self.attempt,
            "data": self.data,
        }


def id_of(row: int, place: int) -> int:
    """Ids grow with the log, and are the same whenever it is read."""
    return row * PLACES + place


def gap(first: int, last: int) -> Plain:
    """What stood from one id to the other is not known any more."""
    return Happening(Kind.GAP, data={"from": first, "to": last}).plain(0, None) | {"id": last}


def happenings(record: Record, job: Job | None, start: int = 0) -> Iterator[Happening]:
    """What the record tells, from place `start` on, in order of their places. `job` is the one that it is of, which
    exists as long as its rows do."""
    return (event for event in _told(record, job, start) if event.place >= start)


def _told(record: Record, job: Job | None, start: int) -> Iterable[Happening]:
    match record:
        case ReportTaken():
            return _report(record, job, start)
        case Granted():
            return _granted(record, job, start)
        case TasksReturned():
            return _returned(record, job)
        case GroupSkipped():
            return _over(job, [(record.group, record.spans)], "skipped", record.reason, start)
        case TasksSkipped():
            runs = (range(first, first + count * step, step) for first, count, step in record.runs)
            spans = ((index, 1) for index in merge(*runs))
            return _over(job, [(record.group, spans)], "skipped", record.reason, start)
        case JobEnding():
            return _ending(record, job, start)
        case TaskCancelled():
            return _over(job, [(record.group, record.spans)], "cancelled", record.reason, start)
        case JobMoved() | JobChanged() | JobReopened():
            return _of_somebody(record)
        case PoolSet() | NodeJoined() | NodeLeft() | NodeMarked():
            return [_of_the_cluster(record)]
        case TokenMade() | TokenRevoked() | IdentityAdmitted() | IdentityRevoked():
            return [_of_an_identity(record)]
        case StartOrdered():
            return [Happening(Kind.START_ORDERED, node=record.node, data={"boot": record.boot})]
        case StartEnded():
            return [_phase_end(None, record.node, record.end, 0)]
        case RoundOpened() | RoundMoved() | RoundVoided() | DebtPaid():
            return [_of_a_round(record)]
        case EndCalled():
            return [_of_a_call(record)]
        case ShellOpened() | ShellClosed():
            return [_of_a_shell(record, job)]
        case JobSubmitted() | TasksDone() | JobCompleted() | JobDeleting() | JobDeleted():
            return [_of_a_job(record)]
        case _:
            assert_never(record)


# ---- one event each


_MARKS: Final = {
    NodeMark.DRAIN: Kind.NODE_DRAINING,
    NodeMark.DRAINED: Kind.NODE_DRAINED,
    NodeMark.ENABLE: Kind.NODE_ENABLED,
    NodeMark.FORGET: Kind.NODE_FORGOTTEN,
}


def _of_the_cluster(record: PoolSet | NodeJoined | NodeLeft | NodeMarked) -> Happening:
    match record:
        case PoolSet(pool, declared):
            return Happening(Kind.POOL_SET, data={"pool": pool.name, "declared": declared})
        case NodeJoined():
            facts = {"pool": record.pool, "boot": record.boot, "slots": record.slots}
            return Happening(Kind.NODE_JOINED, node=record.node, data=facts)
        case NodeLeft():
            return Happening(Kind.NODE_REVOKED if record.revoked else Kind.NODE_LEFT, node=record.node)
        case NodeMarked():
            until = {"until": time_text(record.until.wall)} if record.until is not None else {}
            facts = {"by": record.by, "reason": record.reason, **until}
            return Happening(_MARKS[record.mark], node=record.node, data=facts)


def _of_an_identity(record: TokenMade | TokenRevoked | IdentityAdmitted | IdentityRevoked) -> Happening:
    """Digests and keys are no secrets, but names enough."""
    match record:
        case TokenMade():
            facts = {"token": record.digest[:TOKEN_ID], "role": record.role.value, "uses": record.uses, "by": record.by}
            return Happening(Kind.TOKEN_CREATED, data={**facts, "expires_at": time_text(record.until)})
        case TokenRevoked():
            return Happening(Kind.TOKEN_REVOKED, data={"token": record.digest[:TOKEN_ID]})
        case IdentityAdmitted():
            facts = {"name": record.name, "role": record.role.value, "key": record.key[:SHORT]}
            return Happening(Kind.IDENTITY_ADMITTED, data={**facts, "expires_at": time_text(record.until)})
        case IdentityRevoked():
            return Happening(Kind.IDENTITY_REVOKED, data={"key": record.key[:SHORT], "by": record.by})


def _of_a_round(record: RoundOpened | RoundMoved | RoundVoided | DebtPaid) -> Happening:
    facts: Plain = {}
    match record:
        case RoundOpened():
            kind = Kind.ROUND_OPENED
        case RoundMoved():
            kind, facts = Kind.ROUND_MOVED, {"state": record.state.value, "reason": record.reason}
        case RoundVoided():
            kind = Kind.ROUND_VOIDED
        case DebtPaid():
            kind = Kind.ROUND_PAID
    return Happening(kind, job=record.job, node=record.node, round=record.round, data=facts)


def _of_a_job(record: JobSubmitted | TasksDone | JobCompleted | JobDeleting | JobDeleted) -> Happening:
    facts: Plain = {}
    match record:
        case JobSubmitted():
            kind, facts = Kind.JOB_SUBMITTED, {
                "name": record.spec.name, "pool": record.spec.pool, "owner": record.owner,
            }  # fmt: skip
        case TasksDone():
            kind = Kind.JOB_TASKS_DONE
        case JobCompleted():
            kind = Kind.JOB_COMPLETED
        case JobDeleting():
            kind = Kind.JOB_DELETING
        case JobDeleted():
            kind = Kind.JOB_DELETED
    return Happening(kind, job=record.job, data=facts)


_MOVES: Final = {
    JobState.DISABLING: Kind.JOB_DISABLING,
    JobState.DISABLED: Kind.JOB_DISABLED,
    JobState.ACTIVE: Kind.JOB_ENABLED,
}


def _of_somebody(record: JobMoved | JobChanged | JobReopened) -> Iterator[Happening]:
    """What somebody did to a job; it is never seen being enabled."""
    match record:
        case JobMoved() if record.state in _MOVES:
            how = {} if record.how is None else {"how": record.how.value}
            yield Happening(_MOVES[record.state], job=record.job, data={**how, "by": record.by})
        case JobChanged():
            facts = {"priority": record.priority, "parallel": record.parallel, "timeout_ms": record.timeout_ms}
            yield Happening(Kind.JOB_CHANGED, job=record.job, data={**facts, "by": record.by})
        case JobReopened():
            tasks = sum(count for _, spans in record.tasks for _, count in spans)
            yield Happening(Kind.JOB_REOPENED, job=record.job, data={"tasks": tasks, "by": record.by})


def _of_a_call(record: EndCalled) -> Happening:
    """What it wrote is for those who may read the job's outputs."""
    kind = Kind.ON_END_RETRIED
    if record.final:
        kind = Kind.ON_END_CALLED if record.exit_code == 0 else Kind.ON_END_FAILED
    facts = {"exit_code": record.exit_code, "signal": record.signal, "reason": record.reason}
    return Happening(kind, job=record.job, attempt=record.attempt, data=facts)


def _of_a_shell(record: ShellOpened | ShellClosed, job: Job | None) -> Happening:
    """Nothing of what was typed or written there."""
    facts = {"by": record.by, "shell": record.shell}
    if isinstance(record, ShellClosed):
        return Happening(Kind.SHELL_CLOSED, 0, record.job, None, record.node, record.round, None, facts)
    task = _name(job, record.group, record.index)
    return Happening(Kind.SHELL_OPENED, 0, record.job, task, record.node, record.round, record.attempt, facts)


# ---- many


def _report(record: ReportTaken, job: Job | None, start: int) -> Iterator[Happening]:
    for place in range(start, len(record.tasks)):
        yield _task_end(record, job, record.tasks[place], place)
    for place, end in enumerate(record.phases, len(record.tasks)):
        yield _phase_end(record.job, record.node, end, place)


def _task_end(record: ReportTaken, job: Job | None, end: Ended, place: int) -> Happening:
    result = _RESULTS.get(end.verdict)
    facts: Plain = {"result": result} if result is not None else {"verdict": end.verdict.value}
    facts |= {
        "outcome": end.outcome.value, "exit_code": end.exit_code, "signal": end.signal, "reason": end.reason,
        "started_at": time_text(end.started_at) if end.started_at else None, "ended_at": time_text(end.ended_at),
        "usage": {"cpu_s": end.cpu_s, "max_rss_bytes": end.max_rss_bytes},
    }  # fmt: skip
    if end.retry_at is not None:
        facts["retry_at"] = time_text(end.retry_at.wall)
    kind = Kind.TASK_RETRIED if result is None else Kind.TASK_ENDED
    task = _name(job, end.group, end.index)
    return Happening(kind, place, record.job, task, record.node, None, end.attempt or None, facts)


def _phase_end(job: str | None, node: str, end: PhaseEnd, place: int) -> Happening:
    facts = {
        "succeeded": end.succeeded, "outcome": end.outcome.value, "exit_code": end.exit_code, "signal": end.signal,
        "reason": end.reason, "started_at": time_text(end.started_at), "ended_at": time_text(end.ended_at),
    }  # fmt: skip
    kind = _PHASES[end.phase][0 if end.final else 1]
    return Happening(kind, place, job, None, node, None if job is None else end.round, end.attempt, facts)


def _granted(record: Granted, job: Job | None, start: int) -> Iterator[Happening]:
    for place in range(start, record.count):
        task = _name(job, record.group, record.first + place * record.step)
        yield Happening(Kind.TASK_GRANTED, place, record.job, task, record.node, record.round, record.attempt)


def _returned(record: TasksReturned, job: Job | None) -> Iterator[Happening]:
    facts = {"cause": record.cause.value}
    kind = Kind.TASK_RETURNED
    if record.over:
        kind, facts = Kind.TASK_ENDED, {"result": "cancelled", **facts}
    for first, count in sorted(record.spans):
        for place in range(first, first + count):
            task = _name(job, record.group, record.first + place * record.step)
            yield Happening(kind, place, record.job, task, record.node or None, None, record.attempt or None, facts)


def _ending(record: JobEnding, job: Job | None, start: int) -> Iterator[Happening]:
    yield Happening(Kind.JOB_ENDED, job=record.job, data={"reason": record.reason, "forced": record.forced})
    yield from _over(job, record.cancelled, "cancelled", record.reason, start)


def _over(
    job: Job | None, cut: Iterable[tuple[int, Cut | Iterable[tuple[int, int]]]], result: str, reason: str, start: int
) -> Iterator[Happening]:
    """Tasks that are over without having been anywhere: their place is 1 + their number in the whole job."""
    if job is None:
        return
    for group, spans in sorted(cut, key=itemgetter(0)):
        before = 1 + sum(earlier.size for earlier in job.groups[:group])
        for first, count in runs_of(spans, start - before):
            for index in range(first, first + count):
                facts = {"result": result, "reason": reason}
                yield Happening(Kind.TASK_ENDED, before + index, job.id, _name(job, group, index), data=facts)


def _name(job: Job | None, group: int, index: int) -> str | None:
    """`JOB/price[17,fx]`; None where the row does not say, as rows of the first releases."""
    if job is None or not 0 <= group < len(job.groups):
        return None
    return f"{job.id}/{job.groups[group].sweep.label(index)}"
