"""The keepers of a node: started, greeted, pinged, retired, killed when they hang; whatever they are for."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from agentd.desk import Desk
from agentd.dialogue import VERSION, AckReports, LeaseUntil, Ping, Retire, Template
from agentd.events import ForgetKeeper, KillKeeper, StartKeeper, SurveyKeeper
from agentd.records import Allowance, KeeperBegun, Purpose

HELLO_S: Final = 20.0
"""For a keeper to connect after it was started, or after the agent was."""
PING_S: Final = 5.0
"""Between two pings; a keeper that missed two of them is stuck."""
LATE_S: Final = 2.0
"""Pings looked at later than this prove nothing: it was the agent that slept."""
IDLE_S: Final = 5.0
"""How long a keeper for tasks waits for more of its job."""
RETIRE_S: Final = 30.0
"""Beyond the grace it was given, for a keeper to finish before it is killed."""
RESPAWN_S: Final = 1.0
"""Before a keeper that could not be started is tried again."""
MAX_STARTS: Final = 3
"""Tries to start a keeper of a job before what waits for it fails with the reason."""


class Stage(enum.Enum):
    STARTING = "starting"  # asked for; no hello yet
    SURVEYED = "surveyed"  # of an earlier life of the agent; no hello yet
    SETTLING = "settling"  # said hello; its unacked reports are coming
    UP = "up"
    RETIRING = "retiring"  # told to finish
    KILLING = "killing"
    DEAD = "dead"  # what its last command wrote is still being read


@dataclass(slots=True)
class Keeper:
    """A keeper that is not known to be dead. `items` is what it was given and did not answer for, in order."""

    name: str
    job: str
    round: int
    purpose: Purpose
    stage: Stage
    since: float
    allowance: Allowance = field(default_factory=Allowance)
    version: int = VERSION
    """As it said; one of another version may have been started by an agent before an upgrade."""
    items: dict[str, tuple[int, int]] = field(default_factory=dict)
    templates: set[str] = field(default_factory=set)
    slots: tuple[int, ...] = ()
    """The numbers of the slots it holds while it has work."""
    gpus: tuple[str, ...] = ()
    """The GPUs that it holds as long."""
    started: dict[str, float] = field(default_factory=dict)
    leftovers: bool = False
    ack: int = 0
    acked: int = 0
    pinged: int = 0
    answered: int = 0
    kill_at: float | None = None
    told_to_stop: bool = False

    def rest(self) -> None:
        """It has no work: what it held is free."""
        self.slots = self.gpus = ()

    @property
    def usable(self) -> bool:
        """Whether it may be given something new: it understands all that we say."""
        return self.stage is Stage.UP and self.version == VERSION

    @property
    def outdated(self) -> bool:
        """Whether another is to take its place as soon as it is idle."""
        return self.version != VERSION

    @property
    def idle_until(self) -> float | None:
        """When it retires, if it runs tasks and has none."""
        if self.purpose is not Purpose.TASKS or self.stage is not Stage.UP or self.items:
            return None
        return self.since if self.outdated else self.since + IDLE_S


class Keepers:
    """Invariant: a keeper is here exactly while its KeeperBegun is in the ledger and no KeeperOver is."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.all: dict[str, Keeper] = {}
        self._by_job: dict[str, dict[str, Keeper]] = {}
        self._pings = 0
        self._ping_due: float | None = None
        self._respawn_at = 0.0
        self._start_failures: dict[tuple[str, Allowance], int] = {}
        self._lease: float | None = None
        self._unacked: set[str] = set()

    # ---- lookups

    def for_tasks(self, job: str, allowance: Allowance) -> list[Keeper]:
        """The job's keepers for tasks of this allowance."""
        return [keeper for keeper in self.of(job, Purpose.TASKS) if keeper.allowance == allowance]

    def of(self, job: str, *purposes: Purpose) -> list[Keeper]:
        """The job's keepers for these purposes, or for any."""
        return [keeper for keeper in self._by_job.get(job, {}).values() if not purposes or keeper.purpose in purposes]

    def of_purpose(self, purpose: Purpose) -> list[Keeper]:
        return [keeper for keeper in self.all.values() if keeper.purpose is purpose]

    def surveying(self) -> bool:
        """Whether it is still unknown what became of a keeper of an earlier life."""
        return any(keeper.stage is Stage.SURVEYED or keeper.stage is Stage.SETTLING for keeper in self.all.values())

    def may_start(self) -> bool:
        return self._desk.now.boottime >= self._respawn_at

    # ---- life

    def _add(self, name: str, job: str, number: int, purpose: Purpose, stage: Stage, allowance: Allowance) -> Keeper:
        keeper = Keeper(name, job, number, purpose, stage, self._desk.now.boottime, allowance)
        self.all[name] = keeper
        self._by_job.setdefault(job, {})[name] = keeper
        return keeper

    def start(self, job: str, number: int, purpose: Purpose, allowance: Allowance) -> Keeper:
        """Start one. Its record is durable before its process is."""
        name = f"k{self._desk.ledger.keepers_begun + 1}"
        if purpose is not Purpose.RELEASE:
            self._desk.begin(job, number)
        terms = (allowance.elevated, allowance.needs)
        self._desk.keep(KeeperBegun(name, job, number, purpose, *terms))
        self._desk.ready.keepers.append(StartKeeper(name, job, purpose, *terms))
        return self._add(name, job, number, purpose, Stage.STARTING, allowance)

    def survey(self) -> None:
        """After a restart: look for every keeper that may be alive."""
        for name, row in self._desk.ledger.keepers.items():
            self._add(name, row.job, row.round, row.purpose, Stage.SURVEYED, row.allowance)
            terms = (row.allowance.elevated, row.allowance.needs)
            self._desk.ready.keepers.append(SurveyKeeper(name, row.job, row.purpose, *terms))

    def greeted(self, keeper: Keeper, *, leftovers: bool, version: int) -> None:
        """It said hello (again). What it did not get acked comes now; the pong says when that was all."""
        keeper.leftovers = leftovers
        keeper.version = version
        keeper.templates.clear()
        self._start_failures.pop((keeper.job, keeper.allowance), None)
        if keeper.stage in (Stage.STARTING, Stage.SURVEYED):
            keeper.stage = Stage.SETTLING
            keeper.kill_at = None
        if keeper.purpose is Purpose.TASKS and self._lease is not None:
            self._desk.say_at_once(keeper.name, LeaseUntil(until=self._lease))
        if keeper.stage is Stage.RETIRING:
            self._desk.say(keeper.name, Retire(grace_s=0.0))
        self.ping(keeper)

    def ping(self, keeper: Keeper) -> int:
        """Ask for an answer behind all that it was told and has said; the number to wait for."""
        self._pings += 1
        keeper.pinged = self._pings
        self._desk.say_at_once(keeper.name, Ping(n=self._pings))
        return self._pings

    def barrier(self, keeper: Keeper) -> int:
        """A ping that keeps its place behind what was said before it."""
        self._pings += 1
        keeper.pinged = self._pings
        self._desk.say(keeper.name, Ping(n=self._pings))
        return self._pings

    def ponged(self, keeper: Keeper, number: int) -> bool:
        """Whether it has settled by this answer."""
        keeper.answered = max(keeper.answered, number)
        if keeper.answered >= keeper.pinged and keeper.stage in (Stage.SETTLING, Stage.UP):
            keeper.kill_at = None
        if keeper.stage is Stage.SETTLING and keeper.answered >= keeper.pinged:
            keeper.stage = Stage.UP
            keeper.since = self._desk.now.boottime
            return True
        return False

    def retire(self, keeper: Keeper, grace_s: float) -> None:
        """Have it kill what is left of its own and go."""
        if keeper.stage in (Stage.RETIRING, Stage.KILLING, Stage.DEAD):
            return
        if keeper.stage is Stage.STARTING:
            self.kill(keeper)  # nothing was given to it
            return
        keeper.stage = Stage.RETIRING
        keeper.kill_at = self._desk.now.boottime + grace_s + RETIRE_S
        self._desk.say(keeper.name, Retire(grace_s=grace_s))

    def kill(self, keeper: Keeper) -> None:
        if keeper.stage not in (Stage.KILLING, Stage.DEAD):
            keeper.stage = Stage.KILLING
            self._desk.ready.keepers.append(KillKeeper(keeper.name, keeper.job))

    def died(self, keeper: Keeper) -> bool:
        """It and all it started are dead. Whether so many of its job and kind died before their hello that what waits
        for one is to be given up."""
        given_up = False
        if keeper.stage is Stage.STARTING:
            self._respawn_at = self._desk.now.boottime + RESPAWN_S
            kind = (keeper.job, keeper.allowance)
            failures = self._start_failures.get(kind, 0) + 1
            given_up = failures >= MAX_STARTS
            self._start_failures[kind] = 0 if given_up else failures
        keeper.stage = Stage.DEAD
        return given_up

    def bury(self, keeper: Keeper) -> None:
        """What it knew was taken."""
        del self.all[keeper.name]
        siblings = self._by_job[keeper.job]
        del siblings[keeper.name]
        if not siblings:
            del self._by_job[keeper.job]
            if keeper.job not in self._desk.ledger.jobs:
                for kind in [kind for kind in self._start_failures if kind[0] == keeper.job]:
                    del self._start_failures[kind]
        self._unacked.discard(keeper.name)
        self._desk.keeper_over(keeper.name)
        self._desk.ready.keepers.append(ForgetKeeper(keeper.name))

    # ---- what all are told

    def recorded(self, keeper: Keeper, seq: int) -> None:
        """Its report `seq` is kept: ack it once that is durable."""
        if seq > keeper.acked:
            keeper.ack = max(keeper.ack, seq)
            self._unacked.add(keeper.name)

    def send_acks(self) -> None:
        for name in self._unacked:
            keeper = self.all[name]
            keeper.acked = keeper.ack
            self._desk.say(name, AckReports(seq=keeper.ack))
        self._unacked.clear()

    def lease(self, until: float) -> None:
        """The lease's new end, for all that run tasks."""
        self._lease = until
        for keeper in self.all.values():
            if keeper.purpose is Purpose.TASKS and keeper.stage in (Stage.UP, Stage.SETTLING, Stage.RETIRING):
                self._desk.say_at_once(keeper.name, LeaseUntil(until=until))

    def teach(self, keeper: Keeper, template: Template) -> None:
        """Make sure that it knows the template."""
        if template.id not in keeper.templates:
            keeper.templates.add(template.id)
            self._desk.say(keeper.name, template)

    # ---- time

    def pass_time(self) -> None:
        """Ping who has something to do, kill who does not answer, retire who has nothing to do."""
        now = self._desk.now.boottime
        for keeper in list(self.all.values()):
            if keeper.stage in (Stage.KILLING, Stage.DEAD):
                continue
            if keeper.kill_at is None and keeper.stage in (Stage.STARTING, Stage.SURVEYED):
                keeper.kill_at = keeper.since + HELLO_S
            if keeper.kill_at is not None and now >= keeper.kill_at:
                if now > keeper.kill_at + LATE_S:
                    keeper.kill_at = now + PING_S
                else:
                    self.kill(keeper)
            elif keeper.idle_until is not None and now >= keeper.idle_until:
                self.retire(keeper, 0.0)
        if self._ping_due is None or now >= self._ping_due:
            self._ping_all(late=self._ping_due is not None and now > self._ping_due + LATE_S)
            self._ping_due = now + PING_S if self.all else None

    def _ping_all(self, *, late: bool) -> None:
        for keeper in list(self.all.values()):
            if keeper.stage not in (Stage.UP, Stage.SETTLING):
                continue
            if keeper.answered < keeper.pinged and not late:
                keeper.kill_at = keeper.kill_at or self._desk.now.boottime + PING_S
            elif keeper.answered >= keeper.pinged:
                keeper.kill_at = None
                self.ping(keeper)

    def next_due(self) -> float | None:
        """The boottime at which `pass_time` has something to do."""
        due = [self._ping_due] if self._ping_due is not None and self.all else []
        if self._respawn_at > self._desk.now.boottime:
            due.append(self._respawn_at)
        for keeper in self.all.values():
            if keeper.stage in (Stage.KILLING, Stage.DEAD):
                continue
            if keeper.kill_at is not None:
                due.append(keeper.kill_at)
            elif keeper.stage in (Stage.STARTING, Stage.SURVEYED):
                due.append(keeper.since + HELLO_S)
            elif keeper.idle_until is not None:
                due.append(keeper.idle_until)
        return min(due, default=None)
