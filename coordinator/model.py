"""The cluster's state as the core keeps it: pools, nodes, jobs, groups of tasks, grants.

A task has no object. A group is an index space (`wire.sweep`) with a byte a task; what is exceptional about a task
(a retry, a failure, a later attempt) stands in dicts that hold the exceptional ones only.
"""

from __future__ import annotations

import enum
import hashlib
import heapq
import re
from array import array
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

import msgspec

from coordinator.claims import NOTHING, Claim, labels_of
from coordinator.gates import Gate
from coordinator.preparation import SETTLED, NodeJob
from coordinator.records import EndCalled, Ended, NodeJobState
from coordinator.records import JobState as JobState
from coordinator.startup import NodeStart
from wire.arms import first_match, own_retries
from wire.instant import Instant
from wire.messages import Disabling, Join, Phase, PhaseEnd, RoundState, StartBody, StartHeld
from wire.spec import (
    DEFAULT_LOST_AFTER_MS,
    After,
    Elevation,
    ExitAction,
    GroupSpec,
    JobSpec,
    Placement,
    PoolSpec,
    Preparation,
    Sharing,
    When,
)
from wire.sweep import Axis, Sweep

if TYPE_CHECKING:
    from coordinator.readiness import Link

HEARTBEAT_S: Final = 5.0
MISSED_BEATS: Final = 3
LEASE_MARGIN_S: Final = 10.0
LEASE_DRIFT: Final = 0.001
AHEAD_S: Final = 0.1
"""Grants ahead of free slots keep a node busy for about this long by the group's observed median."""
AHEAD_TASKS: Final = 128
LIVES_KEPT: Final = 32
"""Starts of a node's agent that are known as superseded."""
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


_J = JobState
JOB_TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    _J.ACTIVE: frozenset({_J.DISABLING, _J.TERMINATING}),
    _J.DISABLING: frozenset({_J.DISABLED, _J.ENABLING, _J.TERMINATING}),
    _J.DISABLED: frozenset({_J.ENABLING, _J.TERMINATING}),
    _J.ENABLING: frozenset({_J.ACTIVE, _J.TERMINATING}),
    _J.TERMINATING: frozenset({_J.COMPLETED}),
    _J.COMPLETED: frozenset({_J.ACTIVE, _J.DELETING}),
    _J.DELETING: frozenset(),
}
LIVE: Final = frozenset({_J.ACTIVE, _J.DISABLING, _J.DISABLED, _J.ENABLING})
"""What is not over and does not end yet: it may (again) be given work."""


class NodeState(enum.Enum):
    JOINING = "joining"
    STARTING = "starting"
    START_FAILED = "start_failed"
    IDLE = "idle"
    RUNNING = "running"
    DRAINING = "draining"
    DRAINED = "drained"
    LOST = "lost"
    UNUSABLE = "unusable"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Drain:
    """A node is being emptied, or was. Running tasks are stopped at `until`; `done_at`: it was empty first."""

    by: str
    reason: str
    since: Instant
    until: Instant
    done_at: Instant | None = None


JOINS: Final = 60
"""Joins of one node that say something new, at once: each of them is kept for ever."""
JOIN_AGAIN_S: Final = 10.0
"""For one more."""


@dataclass(slots=True, eq=False)
class Grant:
    """Tasks given to a node. `open` is a bit mask of the positions whose end is not known yet."""

    id: int
    job: str
    node: str
    round: int
    group: int
    first: int
    count: int
    step: int
    attempt: int
    slots: int
    open: int
    recalled: bool = False
    """A Recall is under way (not durable: asked again after a rejoin)."""
    kept_back: int = 0
    """What was open when a Recall was answered by nothing: not asked again before that has changed (not durable)."""
    claim: Claim | None = None
    """What each of its tasks takes of the node beside slots."""
    running: dict[int, float] = field(default_factory=dict)
    """Positions that the node said are running, since when (for people, not durable)."""
    withdrawn: bool = False
    """A Recall of all that had not started was sent in this session of the node (not durable)."""
    stopping: int = 0
    """A bit mask of the positions whose stop was sent in this session of the node (not durable)."""

    def index(self, position: int) -> int:
        """The task's index in its group."""
        return self.first + position * self.step

    def is_open(self, position: int) -> bool:
        """Whether the end of this position is still awaited."""
        return bool(self.open >> position & 1)

    def open_positions(self) -> list[int]:
        """Positions still awaited, in order."""
        mask, found = self.open, []
        while mask:
            low = mask & -mask
            found.append(low.bit_length() - 1)
            mask ^= low
        return found


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


@dataclass(frozen=True, slots=True)
class Disabled:
    """Nothing of the job starts, since somebody said so."""

    how: Disabling
    by: str
    since: Instant


@dataclass(slots=True, eq=False)
class Job:
    """A submitted job. Everything durable here is changed by `Core.apply` only."""

    id: str
    number: int
    submission: str
    owner: str
    spec: JobSpec
    source: str
    submitted_at: Instant
    groups: list[Group]
    reserve: Claim | None = None
    """What its directories take of each node that it has a round on."""
    state: JobState = JobState.ACTIVE
    started_at: Instant | None = None
    tasks_done_at: Instant | None = None
    ending_at: Instant | None = None
    completed_at: Instant | None = None
    end_reason: str | None = None
    stopped: bool = False
    """A task of it ended in a way that ends the job: `exit { … => stop }`."""
    forced: bool = False
    deleting: bool = False
    rounds: list[NodeJob] = field(default_factory=list)
    """Every round of every node, in order of opening: what `job nodes` lists."""
    current: dict[str, NodeJob] = field(default_factory=dict)
    """The latest round of each node."""
    node_numbers: dict[str, int] = field(default_factory=dict)
    """Nodes by the small number under which finished tasks name them."""
    granted: int = 0
    """Tasks out in grants."""
    used: int = 0
    """Slots they take."""
    last_grant: int = 0
    """When it was served last, in numbers of grants."""
    failed: int = 0
    ineligible_since: Instant | None = None
    end_call: EndCalled | None = None
    """What became of its `on_end` last, since it was completed."""
    disabled: Disabled | None = None
    """While it is disabled, or about to be."""
    excess: int = 0
    """Tasks out beyond `parallel` since it was lowered: none is stopped for that."""
    submitted: JobSpec = field(init=False)
    """As it was asked for; `spec` is what it has become."""
    reopened: int = 0
    """How often."""
    counted_from: Instant = field(init=False)
    """Its timeout counts from its submission, or from when it was reopened last."""
    earlier_reason: str | None = None
    """Why it had ended when it was reopened last."""

    def __post_init__(self) -> None:
        self.submitted, self.counted_from = self.spec, self.submitted_at

    def move(self, state: JobState) -> None:
        """Take the transition; staying is no transition. Raises ValueError for one the table does not have."""
        if state is self.state:
            return
        if state not in JOB_TRANSITIONS[self.state]:
            raise ValueError(f"job {self.id}: {self.state.value} to {state.value}")
        self.state = state

    @property
    def live(self) -> bool:
        return self.state in LIVE

    def count_excess(self) -> None:
        """After tasks went out or came back."""
        if self.excess:
            self.excess = max(0, min(self.excess, self.granted - (self.spec.parallel or 0)))

    @property
    def preparation(self) -> Preparation | None:
        return self.spec.preparation

    def stopped_by(self, end: PhaseEnd) -> bool:
        """Whether a preparation ended for good in a way that ends the job."""
        if self.preparation is None or end.phase is not Phase.PREPARATION or not end.final or end.succeeded:
            return False
        arms = self.preparation.command.arms
        arm = first_match(arms, end.outcome, end.exit_code, end.signal)
        return arm is not None and arms[arm].action is ExitAction.STOP

    @property
    def owes_call(self) -> bool:
        """Whether its `on_end` is to be run (again)."""
        called = self.end_call is not None and self.end_call.final
        return self.state is JobState.COMPLETED and self.spec.on_end is not None and not called

    @property
    def tasks_over(self) -> bool:
        return all(group.over for group in self.groups)

    @property
    def settled(self) -> bool:
        """Whether every round is paid, failed for good, waived or unreached."""
        return all(node_job.state in SETTLED for node_job in self.rounds)

    def open_round(self, node: str) -> NodeJob | None:
        """The node's round that still takes tasks or owes its release, if any."""
        node_job = self.current.get(node)
        return node_job if node_job is not None and node_job.state not in SETTLED else None

    def conditions_hold(self, group: Group) -> bool:
        """Whether all has come true that its `after` says of whole groups; of what it pairs, the group's gate knows."""
        return all(self.groups[after.group].meets(after.when) for after in group.spec.after if not after.axes)

    def failed_condition(self, group: Group) -> After | None:
        """The first that its `after` says of a whole group and that can no longer come true, or None."""
        whole = (after for after in group.spec.after if not after.axes)
        return next((after for after in whole if self.groups[after.group].denies(after.when)), None)

    def releasing_nodes(self) -> int:
        return sum(node_job.state is NodeJobState.RELEASING for node_job in self.current.values())


@dataclass(slots=True)
class Holding:
    """What a joining node said that it holds, until the last piece has come."""

    rounds: dict[tuple[str, int], RoundState] = field(default_factory=dict)
    grants: dict[int, int] = field(default_factory=dict)
    """Grant id to the bit mask of positions queued or alive there."""
    start: StartHeld | None = None


@dataclass(slots=True, eq=False)
class Pool:
    name: str
    options: PoolSpec
    declared: bool = True
    """Some file has set its options; else an agent has named it, and the first file that does sets them."""
    nodes: dict[str, Node] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    """Jobs that may still be granted work, in order of submission."""
    dirty: bool = False
    """Something changed that placement should look at."""
    start_body: bytes = b""
    """The pool's start as nodes are given it; empty where there is none."""
    start_digest: str = ""
    start_told: str = ""
    """The one that connected nodes were told of."""

    def pack_start(self) -> None:
        """After its options were set."""
        start = self.options.start
        self.start_body = b"" if start is None else msgspec.msgpack.encode(StartBody(self.name, start))
        self.start_digest = hashlib.sha256(self.start_body).hexdigest() if self.start_body else ""

    @property
    def lost_after_s(self) -> float:
        return (self.options.lost_after_ms or DEFAULT_LOST_AFTER_MS) / 1000

    @property
    def heartbeat_s(self) -> float:
        return min(HEARTBEAT_S, self.lost_after_s / 3)

    @property
    def placement(self) -> Placement:
        return self.options.placement or Placement.SPREAD

    @property
    def sharing(self) -> Sharing:
        return self.options.sharing or Sharing.FAIR


@dataclass(slots=True, eq=False)
class Node:
    """A node that joined once. `session` and what follows it are of this life of the coordinator only."""

    name: str
    pool: Pool
    incarnation: str
    boot: str
    slots: int
    lease_s: float = 0.0
    """The longest lease that it may be counting by."""
    left: bool = False
    """It went by itself, owing nothing, or it was revoked."""
    revoked: bool = False
    """Its identity was revoked, and no other was admitted under its name and joined since."""
    start: NodeStart | None = None
    """The pool's start as it was given it last."""
    start_held: str = ""
    """The digest of the start that it holds in this session, as far as it said and was told."""
    drain: Drain | None = None
    """Until an operator enables it again, whatever becomes of its agent and of us."""
    forgotten_by: str | None = None
    """The operator who said that it is gone; it has not joined since."""
    life: str = ""
    """The start of its agent that joined last."""
    superseded: dict[str, None] = field(default_factory=dict)
    """Earlier starts: one that comes back shows that two agents live by one identity."""
    reported: int = 0
    """The last report number taken from this incarnation."""
    grants: dict[int, Grant] = field(default_factory=dict)
    """Open grants in order: the node runs them in this order."""
    owes: dict[tuple[str, int], Claim | None] = field(default_factory=dict)
    """(job, round) of every debt not paid, those of deleted jobs included; and what its directories take till then."""
    session: int | None = None
    join: Join | None = None
    offer: Claim = field(default_factory=Claim)
    """What it has for those who need it, as it said itself; nothing while that is not known."""
    joins_left: float = JOINS
    joins_at: float = 0.0
    """So many joins that are to be kept it had left then (boottime)."""
    joined: bool = False
    """Its inventory was taken in this session."""
    missing: bool = False
    """Three heartbeats were missed."""
    holding: Holding | None = None
    """What its inventory said so far, until the last piece has come."""
    leaving: bool = False
    """Its agent wants to go: as a drain whose deadline is over, for this session."""
    unusable: str | None = None
    """Why it can do no work just now, as it says itself."""
    stuck: dict[str, float] = field(default_factory=dict)
    """Jobs with a process there that can't be killed, since when (boottime), as it says itself."""
    clearing: set[str] = field(default_factory=set)
    """Jobs of which it releases what it does not owe any more: they do not come there before that is over."""
    dismissed: bool = False
    """It was told that it may go."""
    heard_at: float = 0.0
    """Boottime of the last frame that renewed its lease."""
    used: int = 0
    """Slots of all open grants, those ahead of free slots included: the one owner of the capacity figure."""
    claimed: Claim = field(default_factory=Claim)
    """What the tasks of all open grants take beside slots, those ahead included."""
    last_session: int = 0
    """The session that joined as this node last, whether or not it is over."""
    fenced: bool = False
    """It was shut out because another machine came with its key, which waits until this one is surely over."""
    taken_over: list[float] = field(default_factory=list)
    """When (boottime) a connection that lived was replaced by one of the same start, lately."""
    moved: bool = False
    """Another machine followed one that was shut out, and has not said yet what it holds: what it does not know of may
    have begun on the other."""
    alarm: str | None = None
    """What was seen of this node that an administrator must look at."""

    def live_as(self, life: str) -> None:
        """From now on another start of the agent is this node."""
        if life == self.life:
            return
        if self.life:
            self.superseded[self.life] = None
            for earliest in list(self.superseded)[:-LIVES_KEPT]:
                del self.superseded[earliest]
        self.life = life

    @property
    def reserved(self) -> Claim:
        """What the directories of jobs take of it, until they are removed."""
        total = NOTHING
        for held in self.owes.values():
            if held is not None:
                total = total.plus(held, 1)
        return total

    @property
    def labels(self) -> dict[str, str]:
        return self.join.labels if self.join is not None else {}

    @property
    def elevates(self) -> bool:
        """Whether elevated commands start there: its own policy and its pool, as it is now, both allow it."""
        allowed = self.pool.options.elevation is Elevation.ALLOWED
        return allowed and self.join is not None and self.join.elevation

    @property
    def connected(self) -> bool:
        return self.session is not None and self.joined and not self.missing

    @property
    def draining(self) -> bool:
        """Whether it is to be emptied, and given nothing, be that reached or not."""
        return self.leaving or self.drain is not None

    @property
    def empty(self) -> bool:
        """Whether it holds no work and owes nothing."""
        return not self.grants and not self.owes

    @property
    def start_counts(self) -> bool:
        """Whether the start that it was given is its pool's as it is now, in this boot."""
        if self.start is None:
            return False
        given = (self.start.digest, self.start.incarnation, self.start.boot)
        return given == (self.pool.start_digest, self.incarnation, self.boot)

    @property
    def held_back(self) -> NodeState | None:
        """`STARTING` or `START_FAILED` while its pool's start has not succeeded there in this boot."""
        if not self.pool.start_digest or (self.start is not None and self.start.succeeded and self.start_counts):
            return None
        failed = self.start is not None and self.start.failed and self.start_counts
        return NodeState.START_FAILED if failed else NodeState.STARTING

    @property
    def takes_work(self) -> bool:
        """Whether it may be given work: the only answer to that, and asked of every node whenever work is placed."""
        starts = bool(self.pool.start_digest) and self.held_back is not None
        return self.connected and not self.draining and self.unusable is None and not starts

    @property
    def state(self) -> NodeState:
        if self.left:
            return NodeState.LEFT
        if self.session is not None and not self.joined:
            return NodeState.JOINING
        if not self.connected:
            return NodeState.LOST
        if self.draining:
            return NodeState.DRAINED if self.drain is not None and self.empty else NodeState.DRAINING
        if self.unusable is not None:
            return NodeState.UNUSABLE
        if (held_back := self.held_back) is not None:
            return held_back
        return NodeState.RUNNING if self.grants else NodeState.IDLE
