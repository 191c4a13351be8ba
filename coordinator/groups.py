"""A group of tasks: an index space (`wire.sweep`) with a byte a task.

What is exceptional about a task (a retry, a failure, a later attempt) stands in dicts that hold the exceptional ones
only.
"""

from __future__ import annotations

import enum
import heapq
import re
from array import array
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from coordinator.claims import NOTHING, Claim, labels_of
from coordinator.cuts import Cut, cut_of
from coordinator.gates import Gate
from coordinator.records import Ended
from wire.arms import own_retries
from wire.instant import Instant
from wire.spec import ExitAction, GroupSpec, When
from wire.sweep import Axis, Sweep

if TYPE_CHECKING:
    from coordinator.model import Grant
    from coordinator.pairing import Pairing
    from coordinator.readiness import Link

HISTORY_KEPT: Final = 20
"""Attempts of one task that are remembered one by one."""


class TaskState(enum.IntEnum):
    """The byte of a task. `ACTIVE` covers what waits for a dependency, a slot or its backoff."""

    ACTIVE = 0
    GRANTED = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4
    SKIPPED = 5


_ACTIVE: Final = re.compile(b"%c+" % TaskState.ACTIVE)
OVER: Final = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.SKIPPED})


@dataclass(slots=True, eq=False)
class Finished:
    """Columns about finished tasks of a group, made when the first one ends (22 bytes a task)."""

    started_at: array[float]
    wall_s: array[float]
    cpu_s: array[float]
    max_rss_kib: array[int]
    node: array[int]

    @classmethod
    def for_size(cls, size: int) -> Finished:
        return cls(
            array("d", bytes(8 * size)),
            array("f", bytes(4 * size)),
            array("f", bytes(4 * size)),
            array("I", bytes(4 * size)),
            array("H", bytes(2 * size)),
        )


class Group:
    """One group of tasks. Invariant: `counts[s]` is the number of bytes `s` in `state`."""

    def __init__(self, number: int, spec: GroupSpec, *, elevated: bool = False, reserve: Claim | None = None) -> None:
        self.number = number
        self.spec = spec
        self.elevated = elevated or spec.command.elevated
        """Its tasks, or what its job runs before or after them, need a node that elevates."""
        self.claim = Claim.of(spec.needs)
        self.opening = self.claim if reserve is None else reserve.plus(self.claim or NOTHING, 1)
        """What a first task of its job takes of a node: the job's directories are made there too."""
        self.labels = labels_of(spec.needs)
        self.demands = self.elevated or self.opening is not None or bool(self.labels)
        self.moves = any(arm.elsewhere for arm in spec.command.arms)
        """Some ends of its tasks ask for another node."""
        self.sweep = Sweep(spec.name, [_axis(axis.names, axis.range, axis.values) for axis in spec.axes])
        self.state = bytearray(self.sweep.size)
        self.counts = [self.sweep.size, 0, 0, 0, 0, 0]
        self.cursor = 0
        self.out: dict[int, Grant] = {}
        """The grants that its GRANTED tasks are out in, by index."""
        self.again: list[int] = []
        """Heap of indices below the cursor that may run; an entry counts if its task is ACTIVE and not waiting."""
        self.waiting: dict[int, Instant] = {}
        """Indices in backoff, until when."""
        self.attempts: dict[int, int] = {}
        """The attempt number the task would run as next, where that is not 1."""
        self.failures: dict[int, int] = {}
        """Retries spent, where any."""
        self.arm_retries: dict[tuple[int, int], int] = {}
        """(index, arm) → retries spent of an arm of `exit` that counts by itself, where any."""
        self.losses: dict[int, int] = {}
        """How often the task took its keeper with it, where ever."""
        self.history: dict[int, list[tuple[int, str, Ended]]] = {}
        """(attempt, node, end) of everything that was not a success at the first attempt."""
        self.cancelled: dict[int, str] = {}
        """Tasks that were cancelled one by one, with the reason."""
        self.cancelling: set[int] = set()
        """Those of them that a node still has."""
        self.skip_reason: str | None = None
        self.gate: Gate | None = None
        """Where its `after` pairs tasks by value: what may run of it (not durable, nor are the two below)."""
        self.links: list[Link] = []
        """Those elements of its `after`."""
        self.followers: list[Link] = []
        """Those elements of others' that ask for its tasks, one by one."""
        self.pairings: dict[int, Pairing] = {}
        """How elements of its `after` pair, by their place: made when that is first told of a job that has no links."""
        self.finished: Finished | None = None
        self.durations: deque[float] = deque(maxlen=32)

    @property
    def size(self) -> int:
        return self.sweep.size

    @property
    def over(self) -> bool:
        """Whether every task of the group is over."""
        return self.counts[TaskState.ACTIVE] == 0 and self.counts[TaskState.GRANTED] == 0

    @property
    def failed(self) -> int:
        """Failures for good that count: those of what is optional do nowhere."""
        return 0 if self.spec.optional else self.counts[TaskState.FAILED]

    @property
    def can_all_succeed(self) -> bool:
        return not (self.failed or self.counts[TaskState.CANCELLED] or self.counts[TaskState.SKIPPED])

    def meets(self, when: When) -> bool:
        """Whether `after` this group, all of it, has come true."""
        match when:
            case When.SUCCEEDED:
                return self.over and self.can_all_succeed
            case When.DONE:
                return self.over
            case When.FAILED:
                return self.counts[TaskState.FAILED] > 0

    def denies(self, when: When) -> bool:
        """Whether `after` this group, all of it, can no longer come true."""
        match when:
            case When.SUCCEEDED:
                return not self.can_all_succeed
            case When.DONE:
                return False
            case When.FAILED:
                return self.over and not self.counts[TaskState.FAILED]

    def set_state(self, index: int, state: TaskState) -> None:
        """Change one task's byte and the counts with it."""
        self.counts[self.state[index]] -= 1
        self.counts[state] += 1
        self.state[index] = state
        if self.gate is not None and state is not TaskState.ACTIVE:
            self.gate.close(range(index, index + 1))
        if self.followers and state in OVER:
            for link in self.followers:
                link.ended(index, state)

    def settle(self, run: range, state: TaskState) -> None:
        """Every ACTIVE task of the run is over, as `state`: at once where all of them were."""
        tasks = self.state[run.start : run.stop : run.step]
        if tasks.count(TaskState.ACTIVE) < len(run):
            for index in run:
                if self.state[index] == TaskState.ACTIVE:
                    self.waiting.pop(index, None)
                    self.set_state(index, state)
            return
        self.state[run.start : run.stop : run.step] = bytes([state]) * len(run)
        self.counts[TaskState.ACTIVE] -= len(run)
        self.counts[state] += len(run)
        if self.gate is not None:
            self.gate.close(run)
        for link in self.followers:
            link.ended_runs([run], state)

    def active_spans(self) -> list[tuple[int, int]]:
        """Runs (first, count) of the indices that are ACTIVE."""
        if not self.counts[TaskState.ACTIVE]:
            return []
        return [(run.start(), run.end() - run.start()) for run in _ACTIVE.finditer(self.state)]

    def active_cut(self) -> Cut:
        """Those that are ACTIVE, as a record has them."""
        return cut_of(self.state, TaskState.ACTIVE) if self.counts[TaskState.ACTIVE] else []

    def replace_active(self, state: TaskState) -> int:
        """Every ACTIVE task becomes `state`, at once; how many there were."""
        changed = self.counts[TaskState.ACTIVE]
        spans = self.active_spans() if self.followers and state is not TaskState.CANCELLED else []
        if changed:
            self.state = self.state.replace(b"\x00", bytes([state]))
            self.counts[TaskState.ACTIVE] = 0
            self.counts[state] += changed
        for link in self.followers if spans else ():  # what is cancelled as a whole ends with its job: nobody waits
            link.ended_runs([range(first, first + count) for first, count in spans], state)
        self.again.clear()
        self.waiting.clear()
        self.cursor = self.size
        return changed

    def spans_in(self, states: set[TaskState]) -> list[tuple[int, int]]:
        """Runs (first, count) of the indices whose byte is one of these."""
        runs = re.finditer(b"[%s]+" % bytes(sorted(states)), self.state)
        return [(run.start(), run.end() - run.start()) for run in runs]

    def cancel(self, index: int, reason: str) -> None:
        """A task that is not over is cancelled, when its node has let go of it at the latest."""
        self.cancelled[index] = reason
        if self.state[index] == TaskState.GRANTED:
            self.cancelling.add(index)
        else:
            self.waiting.pop(index, None)
            self.set_state(index, TaskState.CANCELLED)
            if index == self.cursor:
                self.cursor = self.next_active(index)

    def next_active(self, index: int) -> int:
        """The first ACTIVE task from `index` on, or the size of the group."""
        found = self.state.find(TaskState.ACTIVE, index)
        return self.size if found < 0 else found

    def actives_at(self, index: int, limit: int) -> int:
        """How many tasks from `index` on are ACTIVE without a gap, at most `limit`."""
        tasks = self.state[index : index + limit]
        return len(tasks) - len(tasks.lstrip(b"%c" % TaskState.ACTIVE))

    def ready_again(self) -> int | None:
        """The first index that may run again, or None; drops stale entries on the way."""
        while self.again:
            index = self.again[0]
            if self.state[index] == TaskState.ACTIVE and index not in self.waiting:
                return index
            heapq.heappop(self.again)
        return None

    @property
    def has_ready(self) -> bool:
        """Whether some task could be granted, conditions and slots aside."""
        return self.ready_again() is not None or self.first_ready() < self.size

    def first_ready(self) -> int:
        """The first task that may run and never did, or the size of the group."""
        return self.cursor if self.gate is None else self.gate.first()

    def next_ready(self, index: int) -> int:
        """The same from `index` on."""
        return self.next_active(index) if self.gate is None else self.gate.next(index)

    def readies_at(self, index: int, limit: int) -> int:
        """How many of them stand from `index` on without a gap, at most `limit`."""
        return self.actives_at(index, limit) if self.gate is None else self.gate.opens_at(index, limit)

    @property
    def has_hope(self) -> bool:
        """Whether some task runs, or may without another's end."""
        return self.gate is None or self.has_ready or bool(self.counts[TaskState.GRANTED] or self.waiting)

    def back(self, index: int, attempt: int, retry_at: Instant | None = None) -> None:
        """A granted task is active again, to run as `attempt`, not before `retry_at`."""
        self.set_state(index, TaskState.ACTIVE)
        if attempt > 1:
            self.attempts[index] = attempt
        if retry_at is None:
            heapq.heappush(self.again, index)
        else:
            self.waiting[index] = retry_at

    def due(self, index: int) -> None:
        """A task's backoff is over."""
        if self.waiting.pop(index, None) is not None:
            heapq.heappush(self.again, index)

    def rebuild_again(self) -> None:
        """After a replay: whatever is ACTIVE below the cursor and not in backoff may run again."""
        self.again = []
        if (gate := self.gate) is not None:
            tried = sorted(index for index in self.attempts if gate.is_open(index))
            self.again = [index for index in tried if index not in self.waiting]
            for index in tried:
                gate.close(range(index, index + 1))
            return
        index = self.state.find(TaskState.ACTIVE, 0, self.cursor)
        while index >= 0:
            if index not in self.waiting:
                self.again.append(index)
            index = self.state.find(TaskState.ACTIVE, index + 1, self.cursor)

    def remember(self, index: int, attempt: int, node: str, end: Ended) -> None:
        """Keep an end that was no plain success."""
        entries = self.history.setdefault(index, [])
        entries.append((attempt, node, end))
        del entries[:-HISTORY_KEPT]

    def finish(self, index: int, node_number: int, end: Ended) -> None:
        """Fill the columns of a finished task."""
        if self.finished is None:
            self.finished = Finished.for_size(self.size)
        columns = self.finished
        columns.started_at[index] = end.started_at
        columns.wall_s[index] = max(0.0, end.ended_at - end.started_at)
        columns.cpu_s[index] = end.cpu_s
        columns.max_rss_kib[index] = min(end.max_rss_bytes >> 10, 0xFFFFFFFF)
        if node_number > 0xFFFF and columns.node.typecode == "H":
            columns.node = array("I", columns.node)  # two bytes a task are enough for nearly all jobs
        columns.node[index] = node_number

    def spend_retry(self, index: int, arm: int | None) -> None:
        """Count a retry where it belongs: to the arm that counts by itself, else to the command."""
        if arm is None or not own_retries(self.spec.command, arm)[0]:
            self.failures[index] = self.failures.get(index, 0) + 1
        else:
            self.arm_retries[index, arm] = self.arm_retries.get((index, arm), 0) + 1

    def stops(self, arm: int | None) -> bool:
        """Whether a task that ended by this arm ends its job."""
        return arm is not None and self.spec.command.arms[arm].action is ExitAction.STOP

    def typical_s(self) -> float | None:
        """The observed median run time, or None before a first task has ended."""
        return median(self.durations) if self.durations else None


def _axis(names: list[str], span: tuple[int, int, int] | None, values: list[object] | None) -> Axis:
    if span is not None:
        first, last, step = span
        return Axis(tuple(names), range(first, last + (1 if step > 0 else -1), step))
    return Axis(tuple(names), values or [])
