"""The stream of events, read from the store through the real code and held against a history of its own: what was
committed, under which number, and what was forgotten."""

from __future__ import annotations

from typing import Any, Final

from coordinator import records as rows
from coordinator.chronicle import PLACES
from coordinator.core import Core
from coordinator.events import Ready, Received, SessionOpened
from tests.coordinator.pages import page_of
from tests.simulator.conditions import End
from tests.simulator.disk import RecordLog, Transaction
from tests.simulator.invariants import require
from tests.simulator.truth import JobTruth, Truth
from wire.instant import Instant
from wire.messages import EventsRead, Reply, Role

ROWS_AT_ONCE: Final = 7
RESULTS: Final = {
    End.SUCCEEDED: "success", End.FAILED: "failure", End.CANCELLED: "cancelled", End.SKIPPED: "skipped",
}  # fmt: skip
Event = dict[str, Any]


class Stream:
    """What the events must tell. Told of every commit, and of every command that was run for a job's end."""

    def __init__(self) -> None:
        self.last = 0
        self.scopes: dict[int, str] = {}
        """Of the rows that stand in the store, by number."""
        self.reopened: set[str] = set()
        self.owed: dict[str, None] = {}
        """Jobs whose end was not told yet to whom their `on_end` says."""
        self.called: set[str] = set()
        """Jobs for which it was run since they were completed."""
        self._on_end: set[str] = set()
        self._before: list[Event] = []

    def committed(self, transaction: Transaction) -> None:
        for part in transaction.parts:
            if part.forget:
                self.scopes = {n: scope for n, scope in self.scopes.items() if scope not in part.forget}
            for scope, body in part.rows:
                self.last += 1
                self.scopes[self.last] = scope
                self._recorded(rows.decode(body))

    def _recorded(self, record: rows.Record) -> None:
        match record:
            case rows.JobSubmitted():
                self._on_end |= {record.job} if record.spec.on_end is not None else set()
            case rows.JobReopened():
                self.reopened.add(record.job)
                self.owed.pop(record.job, None)
            case rows.JobCompleted() if record.job in self._on_end:
                self.owed[record.job] = None
                self.called.discard(record.job)
            case rows.EndCalled(final=True):
                require(record.job in self.called, "on_end", f"it is recorded and was never run for {record.job}")
                self.owed.pop(record.job, None)
            case rows.JobDeleted():
                told = record.job not in self.owed or record.job in self.called
                require(told, "on_end", f"{record.job} was deleted and nobody told of its end")
                self.owed.pop(record.job, None)
                self._on_end.discard(record.job)
            case _:
                return

    def call_over(self, job: str) -> None:
        """What its `on_end` names was run; one that was on its way may outlive what it was for."""
        gone = job in self.reopened or job not in self._on_end
        require(gone or job in self.owed, "on_end", f"the end of {job} is told again after it was told for good")
        self.called.add(job)

    def look(self, log: RecordLog) -> list[Event]:
        """Read all of it: in order, with every gap said, and what was read before unchanged."""
        told = _read(log)
        ids = [event["id"] for event in told]
        require(ids == sorted(set(ids)), "events", "ids do not grow")
        gone = set(range(1, self.last + 1)) - self.scopes.keys()
        said: set[int] = set()
        for event in told:
            if event["kind"] == "gap":
                said |= set(range(-(-event["data"]["from"] // PLACES), event["data"]["to"] // PLACES + 1))
        require(said == gone, "events", f"rows {sorted(gone ^ said)[:5]} are gone or not, and the gaps say otherwise")
        real = [event for event in told if event["kind"] != "gap"]
        before = [event for event in self._before if event["id"] // PLACES in self.scopes]
        require(real[: len(before)] == before, "events", "what was read before is told otherwise now")
        self._before = real
        return real

    def check(self, log: RecordLog, truth: Truth) -> None:
        """At the end: every task's end is told, once, as it was."""
        ends: dict[str, list[str]] = {}
        for event in self.look(log):
            if event["kind"] == "task.ended":
                ends.setdefault(event["task"], []).append(event["data"]["result"])
        for job in truth.jobs.values():
            if job.deleted_at is None:
                self._ends_of(job, ends)

    def _ends_of(self, job: JobTruth, ends: dict[str, list[str]]) -> None:
        for group, sweep in enumerate(job.sweeps):
            for index in range(sweep.size):
                name = f"{job.id}/{sweep.label(index)}"
                end, told = job.end_of(group, index), ends.get(name, [])
                if end is None and job.completed_at is not None:
                    end = End.CANCELLED  # nothing was recorded of it alone: it was cancelled with its job
                expected = [] if end is None else [RESULTS[end]]
                again = job.id in self.reopened
                what = f"{name} ended as {expected} and is told as {told}"
                require((told[-1:] if again else told) == expected or (again and end is None), "events", what, job.id)


def _read(log: RecordLog) -> list[Event]:
    """As an admin reads it from a coordinator that has just loaded this log."""
    core = Core()
    for _, body in log.rows:
        core.apply(rows.decode(body))
    now = Instant("", 0.0, 0.0)
    core.handle(SessionOpened(1, Role.ADMIN, "reader"), now)
    numbered = [(number, scope, body) for number, (scope, body) in zip(log.row_numbers, log.rows, strict=True)]
    told: list[Event] = []
    since, end = 0, False
    while not end:
        core.handle(Received(1, EventsRead(1, since)), now)
        replies: list[Any] = []
        while not replies:
            ready, core.ready = core.ready, Ready()
            for asked in ready.pages:
                core.handle(page_of(numbered, log.last_row, asked, ROWS_AT_ONCE), now)
            replies = [message for _, message in ready.frames]
            require(bool(replies or ready.pages), "events", "a reader is forgotten")
        [reply] = replies
        require(isinstance(reply, Reply), "events", f"reading is refused: {reply}")
        require(reply.body["next"] >= since, "events", "reading goes back")
        require(reply.body["next"] > since or reply.body["end"], "events", "reading does not go on")
        told += reply.body["events"]
        since, end = reply.body["next"], reply.body["end"]
    return told
