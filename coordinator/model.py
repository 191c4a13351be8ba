"""The cluster's state as the core keeps it: pools, nodes, jobs, grants. A task has no object: see `groups`."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field
from typing import Final

import msgspec

from coordinator.claims import NOTHING, Claim
from coordinator.groups import OVER as OVER
from coordinator.groups import Finished as Finished
from coordinator.groups import Group as Group
from coordinator.groups import TaskState as TaskState
from coordinator.preparation import SETTLED, NodeJob
from coordinator.records import EndCalled
from coordinator.records import JobState as JobState
from coordinator.startup import NodeStart
from wire.arms import first_match
from wire.instant import Instant
from wire.messages import Disabling, Join, Phase, PhaseEnd, RoundState, StartBody, StartHeld
from wire.spec import (
    DEFAULT_LOST_AFTER_MS,
    After,
    Elevation,
    ExitAction,
    JobSpec,
    Placement,
    PoolSpec,
    Preparation,
    Sharing,
)

HEARTBEAT_S: Final = 5.0
MISSED_BEATS: Final = 3
LEASE_MARGIN_S: Final = 10.0
LEASE_DRIFT: Final = 0.001
AHEAD_S: Final = 0.1
"""Grants ahead of free slots keep a node busy for about this long by the group's observed median."""
AHEAD_TASKS: Final = 128
LIVES_KEPT: Final = 32
"""Starts of a node's agent that are known as superseded."""


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
    """A node is being emptied, or was. Running tasks are stopped at `until`; `done_at`: nothing was left there."""

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
    asked: bool = False
    """It was recalled at all: what comes back of it was asked for (not durable)."""
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

    def position(self, index: int) -> int:
        """Where a task that is out in it stands."""
        return (index - self.first) // self.step

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
    steered: int = 0
    """How often somebody disabled, enabled, changed or reopened it: each time is a row, or two."""
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

    @property
    def unsettled(self) -> bool:
        """Whether something is still to be decided about it: it is not over, or it is to be deleted."""
        return self.state is not JobState.COMPLETED or self.deleting

    @property
    def being_stopped(self) -> bool:
        """Whether it is being disabled in a way that nobody takes back before it is."""
        way = None if self.disabled is None else self.disabled.how
        return self.state is JobState.DISABLING and way is not Disabling.WAIT

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
    corrected: bool = False
    """Its last inventory made records: the next join counts as one that says something new."""
    fruitless: int = 0
    """So often in a row what it was given came to nothing by its own doing."""
    counted_to: int = 0
    """The last grant that there was when that was counted last."""
    rests_until: float | None = None
    """It is given nothing before that (boottime)."""

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
    def starts(self) -> bool:
        """Whether it was given its pool's start as it is now, in this boot, and has not ended it."""
        return self.start is not None and self.start_counts and not self.start.view.finished

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
        well = self.unusable is None and self.rests_until is None
        return self.connected and not self.draining and well and not starts

    @property
    def state(self) -> NodeState:
        if self.left:
            return NodeState.LEFT
        if self.session is not None and not self.joined:
            return NodeState.JOINING
        if not self.connected:
            return NodeState.LOST
        if self.draining:
            done = self.drain is not None and self.drain.done_at is not None
            return NodeState.DRAINED if done and self.empty else NodeState.DRAINING
        if self.unusable is not None:
            return NodeState.UNUSABLE
        if (held_back := self.held_back) is not None:
            return held_back
        return NodeState.RUNNING if self.grants else NodeState.IDLE
