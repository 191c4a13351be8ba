"""Who did what: every durable fact that an event caused, and every answer, judged by who sent it (I14, I18, ownership).

The judge knows what was recorded and the society's tables, and asks no core. What a restart of the coordinator lost
never happened: the judge forgets it too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agentd.model import NodeConfig
from coordinator import events
from coordinator import records as rows
from coordinator.core import Core
from tests.simulator.invariants import require
from tests.simulator.processes import Identity
from tests.simulator.society import OPENS, Actor, Society, role_of
from tests.simulator.truth import JobTruth
from tests.simulator.world import World
from wire import messages as m
from wire.messages import Message, Role
from wire.spec import Command, Elevation, JobSpec

EXPIRY_SLACK_S: Final = 1.0
STAYS_S: Final = 5.0
STAYS_LOOKS: Final = 20
"""A session whose certificate ended is there too long when it was seen so often, over so long."""
OPERATORS: Final = frozenset({Role.OPERATOR, Role.ADMIN})
OF_NODES: Final = (
    rows.NodeJoined, rows.NodeLeft, rows.RoundOpened, rows.RoundMoved, rows.RoundVoided, rows.Granted,
    rows.ReportTaken, rows.DebtPaid, rows.StartOrdered, rows.StartEnded,
)  # fmt: skip
FOR_NOBODY: Final = frozenset({m.RefusalCode.UNKNOWN, m.RefusalCode.REFUSED, m.RefusalCode.INVALID})
"""What a job that one may not look at is refused with."""


@dataclass
class Known:
    """What the coordinator's log says of identities, pools and jobs."""

    tokens: dict[str, rows.TokenMade] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    void_tokens: set[str] = field(default_factory=set)
    keys: dict[str, rows.IdentityAdmitted] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    pools: dict[str, rows.PoolSet] = field(default_factory=dict)
    jobs: dict[str, rows.JobSubmitted] = field(default_factory=dict)
    priorities: dict[str, int] = field(default_factory=dict)
    """Of jobs that were changed."""
    grants: dict[int, str] = field(default_factory=dict)
    """The node of each."""
    lives: dict[str, str] = field(default_factory=dict)
    """The start of its agent that each node is now."""
    superseded: dict[str, set[str]] = field(default_factory=dict)
    """And those that it was before."""

    def apply(self, record: rows.Record) -> None:
        match record:
            case rows.TokenMade():
                self.tokens[record.digest] = record
            case rows.TokenRevoked():
                self.void_tokens.add(record.digest)
            case rows.IdentityAdmitted():
                if record.token is not None and record.key not in self.keys:
                    self.spent[record.token] = self.spent.get(record.token, 0) + 1
                self.keys[record.key] = record
            case rows.IdentityRevoked():
                self.revoked.add(record.key)
            case rows.PoolSet():
                self.pools[record.pool.name] = record
            case rows.JobSubmitted():
                self.jobs[record.job] = record
            case rows.JobChanged():
                self.priorities[record.job] = record.priority
            case rows.NodeJoined() if record.life != self.lives.get(record.node):
                before = self.lives.get(record.node)
                self.lives[record.node] = record.life
                if before is not None:
                    self.superseded.setdefault(record.node, set()).add(before)
            case rows.Granted():
                self.grants[record.grant] = record.node
            case _:
                pass


class Rights:
    """The judge of one world."""

    def __init__(self, society: Society, world: World) -> None:
        self.society = society
        self.world = world
        self.live = Known()
        self.refusals = 0
        """Requests that were refused: in a world of strangers there must be some."""
        self._durable = Known()
        self._asked: dict[tuple[int, int], Message | None] = {}
        """By (session, request); None where a number was used again before it was answered."""
        self._opened: dict[int, tuple[float, float, float]] = {}
        """By session: simulated time at which it was opened, how long its certificate was good for then, and until
        when by the clock on the wall."""
        self._overdue: dict[int, tuple[float, int]] = {}
        """Sessions whose certificates ended: since when that was seen, and how often."""
        self._wall = 0.0

    # ---- the log

    def committed(self, record: rows.Record) -> None:
        self._durable.apply(record)
        self.live.apply(record)

    def restarted(self) -> None:
        """What was not committed is gone."""
        self.live = copy.deepcopy(self._durable)
        self._asked.clear()
        self._opened.clear()
        self._overdue.clear()

    def _late_s(self, session: int) -> float:
        """How long ago the certificate of a session ended. Who sets the clock changes that, so both must say it."""
        opened, good_s, until = self._opened[session]
        return min(self.world.now - opened - good_s, self._wall - until)

    def sessions(self, core: Core, wall: float) -> None:
        """Whoever is nobody any more has no connection left; of expired ones it is seen after a moment."""
        self._wall = wall
        for session in core.sessions.values():
            if session.key is None:
                continue
            void = session.key in self.live.revoked or session.key not in self.live.keys
            require(not void, "I18", f"{session.owner} is still connected, its key is void")
            if self._late_s(session.epoch) <= EXPIRY_SLACK_S:
                continue
            since, looks = self._overdue.get(session.epoch, (self.world.now, 0))
            self._overdue[session.epoch] = (since, looks + 1)
            stays = looks > STAYS_LOOKS and self.world.now - since > STAYS_S
            require(not stays, "I18", f"{session.owner} is still connected, its certificate ended")

    # ---- causes

    def took(self, actor: Actor | None, event: events.Event, wall: float, made: Sequence[rows.Record]) -> None:
        """The coordinator took an event, and this is what it recorded because of it."""
        self._wall = wall
        if isinstance(event, events.SessionOpened) and event.expires is not None:
            self._opened[event.session] = (self.world.now, event.expires - wall, event.expires)
        if isinstance(event, events.Received) and actor is not None and actor.role is not Role.NODE:
            number = event.message.request  # type: ignore[attr-defined]
            twice = (event.session, number) in self._asked
            self._asked[event.session, number] = None if twice else event.message
        for record in made:
            self._judge(actor, event, record)
            if isinstance(record, rows.NodeJoined):
                back = record.life in self.live.superseded.get(record.node, ())
                require(not back, "F36", f"{record.node} was let in as {record.life}, which others followed")
            self.live.apply(record)
            if isinstance(record, rows.IdentityAdmitted) and isinstance(event, events.RenewAsked):
                self._opened[event.session] = (self.world.now, record.until - wall, record.until)

    def _judge(self, actor: Actor | None, event: events.Event, record: rows.Record) -> None:
        kind = type(record).__name__
        if isinstance(event, events.EnrollAsked):
            require(isinstance(record, rows.IdentityAdmitted), "I18", f"an enrolment recorded a {kind}")
            assert isinstance(record, rows.IdentityAdmitted)
            self._enrolled(event, record)
        elif isinstance(event, events.RenewAsked):
            assert actor is not None
            self._alive(actor, event.session, "a renewal")
            self._renewed(actor, record)
        elif isinstance(event, events.Received):
            assert actor is not None
            self._alive(actor, event.session, f"a {kind}")
            cause = f"{actor.role.value} {actor.owner} by a {type(event.message).__name__}"
            allowed = self._may_cause(actor, event.message, record)
            require(allowed, "I18", f"{cause} caused {str(record)[:200]}", getattr(record, "job", None))
        elif isinstance(event, events.SessionClosed):
            left = isinstance(record, rows.NodeLeft) and actor is not None and record.node == actor.owner
            require(left, "I18", f"the end of a session of {actor} caused {str(record)[:200]}")
        else:
            ours = (rows.TokenMade, rows.IdentityAdmitted, rows.IdentityRevoked, rows.JobSubmitted, rows.NodeJoined)
            require(not isinstance(record, ours), "I18", f"nobody asked for this {kind}")

    def _alive(self, actor: Actor, session: int, what: str) -> None:
        """A session that is over, or whose identity is, causes nothing."""
        if actor.key is None:
            return
        identity = self.live.keys.get(actor.key)
        require(identity is not None, "I18", f"a key that nobody admitted ({actor.owner}) caused {what}")
        assert identity is not None
        right = actor.owner == identity.name and actor.role in OPENS[identity.role]
        require(right, "I18", f"{identity.role.value} {identity.name} acts as {actor.role.value} {actor.owner}")
        require(actor.key not in self.live.revoked, "I18", f"{actor.owner}, whose key is revoked, caused {what}")
        late = self._late_s(session)
        over = late > EXPIRY_SLACK_S
        require(not over, "I18", f"{actor.owner}, whose certificate ended {late:.1f} s ago, caused {what}")

    def _enrolled(self, event: events.EnrollAsked, record: rows.IdentityAdmitted) -> None:
        token = self.live.tokens.get(event.token)
        require(token is not None, "I18", f"`{record.name}` was admitted by a token that nobody made")
        assert token is not None
        spent = self.live.spent.get(event.token, 0)
        require(record.key == event.key, "I18", f"another key than asked was admitted for `{record.name}`")
        require(event.token not in self.live.void_tokens, "I18", f"`{record.name}` was admitted by a revoked token")
        require(
            spent < token.uses or record.key in self.live.keys,
            "I18",
            f"`{record.name}` was admitted by a token that was used {spent} times of {token.uses}",
        )
        require(self._wall <= token.until, "I18", f"`{record.name}` was admitted by an expired token")
        same = (record.role, record.pool, record.token) == (token.role, token.pool, token.digest)
        require(same, "I18", f"`{record.name}` was admitted as {record.role.value} of {record.pool}, against its token")
        require(token.name in (None, record.name), "I18", f"the token of `{token.name}` admitted `{record.name}`")
        require(record.key not in self.live.revoked, "I18", f"a revoked key was admitted again as `{record.name}`")
        for other in self.live.keys.values():
            alive = other.key not in self.live.revoked and record.role is Role.NODE
            twin = alive and (other.name, other.role) == (record.name, record.role) and other.key != record.key
            require(not twin, "I18", f"the name `{record.name}` was given to a second key while the first one lives")

    def _renewed(self, actor: Actor, record: rows.Record) -> None:
        kind = type(record).__name__
        require(isinstance(record, rows.IdentityAdmitted), "I18", f"a renewal recorded a {kind}")
        assert isinstance(record, rows.IdentityAdmitted)
        before = self.live.keys.get(record.key)
        require(before is not None and record.key == actor.key, "I18", f"{actor.owner} renewed a key that is not its")
        assert before is not None
        require(record.key not in self.live.revoked, "I18", f"the revoked key of {actor.owner} was renewed")
        same = (before.role, before.name, before.pool) == (record.role, record.name, record.pool)
        require(same, "I18", f"{actor.owner} was renewed as {record.role.value} {record.name}")

    # ---- the table of who may cause what

    def _may_cause(self, actor: Actor, message: Message, record: rows.Record) -> bool:
        match record:
            case rows.TokenMade() | rows.TokenRevoked():
                return actor.role is Role.ADMIN
            case rows.IdentityRevoked():
                by_name = isinstance(message, m.IdentityRevoke) and actor.role is Role.ADMIN
                return by_name or (isinstance(message, m.NodeRevoke) and actor.role in OPERATORS)
            case rows.JobSubmitted():
                return isinstance(message, m.Submit) and self._submits(actor, record)
            case rows.PoolSet(declared=True):
                return isinstance(message, m.Submit) and actor.role in OPERATORS
            case rows.PoolSet():
                return isinstance(message, m.Join)
            case rows.JobEnding() if isinstance(message, m.Finish):
                return actor.role is Role.ADMIN
            case rows.JobEnding() | rows.JobDeleting() if actor.role is not Role.NODE:
                named = isinstance(message, m.JobTerminate | m.JobDelete)
                return named and self._acts(actor, record.job)
            case rows.JobMoved() | rows.JobChanged() | rows.JobReopened() | rows.TaskCancelled():
                steers = isinstance(message, m.JobDisable | m.JobEnable | m.JobSet | m.JobRetry | m.TaskCancel)
                return steers and self._acts(actor, record.job) and self._within_submitted(actor, record)
            case rows.TasksReturned() if actor.role is Role.NODE:
                return self.live.grants.get(record.grant) == actor.owner or record.cause is rows.Returned.ROUND_CLOSED
            case _ if isinstance(message, m.NodeRevoke | m.NodeDrain | m.NodeEnable | m.NodeForget | m.NodeRetryPrep):
                return actor.role in OPERATORS and getattr(record, "node", message.node) == message.node
            case rows.StartOrdered() if isinstance(message, m.Submit):
                return actor.role in OPERATORS
            case _ if isinstance(record, OF_NODES):
                return actor.role is Role.NODE and record.node == actor.owner and self._at_home(actor, record)
            case _:
                return False

    def _at_home(self, actor: Actor, record: rows.Record) -> bool:
        """A node whose token names a pool is of that pool."""
        admitted = self.live.keys.get(actor.key or "")
        pool = None if admitted is None else admitted.pool
        return not isinstance(record, rows.NodeJoined) or pool in (None, record.pool)

    def _submits(self, actor: Actor, record: rows.JobSubmitted) -> bool:
        spec = record.spec
        if record.owner != actor.owner or not self.society.may_submit(actor, spec.pool):
            return False
        if not any(command.elevated for command in commands_of(spec)):
            return True
        pool = self.live.pools.get(spec.pool)
        allowed = pool is not None and pool.pool.elevation is Elevation.ALLOWED
        require(allowed, "I14", f"{record.job} has elevated commands, pool {spec.pool} allows none", record.job)
        may = self.society.may_elevate(actor.owner, actor.role, spec.pool)
        require(may, "I14", f"{record.job} has elevated commands, {actor.owner} may have none", record.job)
        return True

    def _within_submitted(self, actor: Actor, record: rows.Record) -> bool:
        """Nobody but its pool's operators gives a job more priority than it was submitted with, or has."""
        if not isinstance(record, rows.JobChanged):
            return True
        spec = self.live.jobs[record.job].spec
        if self.society.may_act(actor, spec.pool, ""):
            return True
        return record.priority <= max(spec.priority, self.live.priorities.get(record.job, spec.priority))

    def _acts(self, actor: Actor, job: str) -> bool:
        known = self.live.jobs.get(job)
        return known is not None and self.society.may_act(actor, known.spec.pool, known.owner)

    # ---- what starts on nodes

    def spawning(self, config: NodeConfig, elevated: bool, job: JobTruth, who: Identity) -> None:
        """A command starts: with more rights only if all three say so, and never with others than it asked for."""
        asked = job.command_of(who).elevated
        what = f"{who.kind.value} {who.task or ''} on {config.node}"
        if not asked:
            require(not elevated, "I14", f"{what} starts elevated and never asked for it", job.id)
            return
        require(elevated, "I14", f"{what} starts unprivileged, though it is elevated", job.id)
        require(config.elevation, "I14", f"{what} starts elevated, its node's policy forbids it", job.id)
        pool = self.live.pools[job.spec.pool]
        allowed = pool.pool.elevation is Elevation.ALLOWED
        require(allowed, "I14", f"{what} starts elevated, pool {job.spec.pool} forbids it", job.id)
        may = self.society.may_elevate(job.owner, role_of(job.owner), job.spec.pool)
        require(may, "I14", f"{what} starts elevated, {job.owner} may not have that", job.id)

    # ---- answers

    def answered(self, session: int, actor: Actor, message: Message) -> None:
        """A reply tells nobody what is not for them."""
        if not isinstance(message, m.Reply | m.Refused):
            return
        asked = self._asked.pop((session, message.request), None)
        if asked is None or actor.role is Role.ADMIN:
            return
        if isinstance(message, m.Refused):
            self.refusals += 1
            self._refused(actor, asked, message)
            return
        for job in _shown(asked, message.body):
            self._visible(actor, asked, job)
        acted = _acted_on(asked)
        if acted is not None and acted in self.live.jobs:
            what = f"{actor.owner} was answered a {type(asked).__name__} about {acted}"
            require(self._acts(actor, acted), "ownership", what, acted)
        if isinstance(asked, m.FilesRead | m.FilesList) and acted is None and not asked.path.startswith("shared"):
            require(actor.role in OPERATORS, "ownership", f"{actor.owner} was shown {asked.path} of {asked.node}")

    def _visible(self, actor: Actor, asked: Message, job: str) -> None:
        known = self.live.jobs.get(job)
        if known is not None:
            may = self.society.may_look(actor, known.spec.pool, known.owner)
            what = f"{actor.owner} was told of {job} by a {type(asked).__name__}"
            require(may, "ownership", what, job)

    def _refused(self, actor: Actor, asked: Message, refusal: m.Refused) -> None:
        for job in refusal.near:
            self._visible(actor, asked, job)
        named = getattr(asked, "job", None)
        known = self.live.jobs.get(named) if isinstance(named, str) else None
        if known is not None and not self.society.may_look(actor, known.spec.pool, known.owner):
            what = f"{actor.owner} learns that {named} exists: {refusal.code.value}, {refusal.message}"
            require(refusal.code in FOR_NOBODY, "ownership", what, named)


def commands_of(spec: JobSpec) -> Iterator[Command]:
    """Every command of a job."""
    if spec.preparation is not None:
        yield spec.preparation.command
    if spec.release is not None:
        yield spec.release.command
    for group in spec.groups:
        yield group.command


def _shown(asked: Message, body: Any) -> Iterator[str]:
    """Every job that an answer tells of."""
    match asked:
        case m.JobList():
            yield from (row["id"] for row in body)
        case m.JobShow() | m.JobWait() | m.JobTerminate() | m.JobDelete():
            yield body["id"]
        case m.JobDisable() | m.JobEnable() | m.JobSet() | m.JobRetry():
            yield body["id"]
        case m.TaskList():
            yield from (row["job"] for row in body)
        case m.TaskShow() | m.TaskCancel():
            yield body["job"]
        case m.Explain():
            yield body["id"].partition("/")[0]
        case m.Top():
            yield from (row["id"] for row in body["top_jobs"])
            yield from (row["job"] for row in body["releases"])
        case m.Overview() | m.Submit():
            yield from (row["id"] for row in body["jobs"])
        case m.JobNodes() if body:
            yield asked.job
        case _:
            pass


def _acted_on(asked: Message) -> str | None:
    """The job that a request changes, or whose output it reads, by its id."""
    match asked:
        case m.JobTerminate() | m.JobDelete() | m.JobDisable() | m.JobEnable() | m.JobSet() | m.JobRetry():
            return asked.job
        case m.TaskCancel():
            return asked.task.partition("/")[0]
        case m.LogRead():
            return asked.task.partition("/")[0] if asked.task is not None else asked.job
        case m.FilesRead() | m.FilesList() if asked.path.startswith("workitems/"):
            return asked.path.split("/")[1]
        case _:
            return None
