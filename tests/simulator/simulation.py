"""One simulated cluster from a plan: the world, who lives in it, who watches, and what must be true of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from msgspec.structs import replace as replace_fields

from agentd import dialogue, events, records
from agentd.core import AgentCore
from agentd.model import Ledger, NodeConfig
from coordinator import records as rows
from coordinator.core import Core
from coordinator.events import Event
from coordinator.invariants import violations
from coordinator.model import NodeState
from tests.simulator import bounds
from tests.simulator.claims import Claims, fits
from tests.simulator.coordinator import HOST, CoordinatorDaemon, stored
from tests.simulator.disk import Disk, Transaction
from tests.simulator.elsewhere import Elsewhere
from tests.simulator.explained import Explained
from tests.simulator.faults import Faults
from tests.simulator.identities import Wallet
from tests.simulator.invariants import Breach, Invariants, require
from tests.simulator.keepers import KeeperProcess
from tests.simulator.leases import Leases
from tests.simulator.machine import Machine
from tests.simulator.network import Network, Weather
from tests.simulator.operators import Operators
from tests.simulator.people import People
from tests.simulator.processes import Identity, Tree
from tests.simulator.rights import Rights
from tests.simulator.sameness import difference
from tests.simulator.society import POOL, Actor, Society
from tests.simulator.strangers import Strangers
from tests.simulator.stream import Stream
from tests.simulator.truth import JobTruth, Truth
from tests.simulator.users import Users
from tests.simulator.workload import (
    Act,
    Kind,
    Submission,
    among_people,
    document,
    random_workload,
    start_command,
    steering,
)
from tests.simulator.world import Clock, World
from wire import messages as m
from wire.messages import Message, Phase, Role
from wire.spec import Finish, GroupSpec

AMONG_STRANGERS: Final = 2
"""Seeds that leave this when they are divided by five."""
SETTLES_WITHIN_S: Final = 6_000.0
"""Sixty long tasks one after another, each a second time, are no hang."""
EVENTS_MAX: Final = 100_000
"""More than that is no run but a loop."""
COMPARE_EVERY: Final = 8
"""Commits of one log between two comparisons of the live core with what its log gives."""


@dataclass(frozen=True)
class Plan:
    """Everything about a run that is not chance."""

    nodes: int = 2
    slots: int = 2
    jobs: int = 1
    lost_after_s: float = 15.0
    span_s: float = 60.0
    """How long faults and people go on; then the calm begins."""
    fault_every_s: float = 0.0
    nasty: float = 0.0
    drift: float = 0.0
    weather: Weather = field(default_factory=Weather)
    placement: str = "spread"
    strangers: bool = False
    """Nodes and people come over TLS, each with a right of its own, and some keep to no rule."""
    meddling: bool = True
    """Those that keep to no rule are there (in a world of strangers)."""
    twins: bool = False
    """Some machine is copied, and both live."""
    start: float | None = None
    """The pool has a start, as nasty as this."""
    balks: bool = False
    """One machine gives back all that it is given, from some moment on until the calm."""
    operated: bool = False
    """Operators drain nodes and take them back, disks fill up, and processes can't be killed."""

    @staticmethod
    def draw(seed: int, size: str = "short") -> Plan:
        """A plan for a seed. `long` ones have more of everything, `rough` ones a fault every few seconds; `strange`
        ones are as those, among strangers, as is every fifth of the others; in `twins` a machine is copied; `operated`
        ones have people who run the cluster; in `balking` ones a machine gives back all that it is given."""
        if size == "operated":
            rng = random.Random(f"plan {seed}")
            return replace(Plan._rough(rng), operated=True, fault_every_s=rng.choice((0.0, 8.0, 20.0)))
        if size == "balking":
            return replace(Plan._rough(random.Random(f"plan {seed}")), balks=True, fault_every_s=0.0)
        if size == "twins":
            return Plan._twins(random.Random(f"plan {seed}"))
        if size == "starts":
            rough = Plan._rough(random.Random(f"plan {seed}"))
            return replace(rough, start=(0.0, 0.5, 1.0)[seed % 3], strangers=seed % 4 == 0)
        if size == "strange":
            return replace(Plan.draw(5 * seed, ("short", "rough")[seed % 2]), strangers=True)
        return replace(Plan._draw(seed, size), strangers=seed % 5 == AMONG_STRANGERS)

    @staticmethod
    def _draw(seed: int, size: str) -> Plan:
        rng = random.Random(f"plan {seed}")
        if size == "rough":
            return Plan._rough(rng)
        long = size == "long"
        rough = rng.random() < 0.6
        weather = Weather(
            delay_s=rng.choice(((0.0005, 0.02), (0.001, 0.2), (0.01, 1.5))),
            loss=rng.choice((0, 0.002, 0.01)) if rough else 0.0,
            duplication=rng.choice((0, 0.02)) if rough else 0.0,
            reordering=rng.choice((0, 0.01)) if rough else 0.0,
            session_end=rng.choice((0, 0.005)) if rough else 0.0,
            splitting=rng.choice((0, 0.3)),
        )
        span = rng.choice((20.0, 60.0, 90.0)) * (4 if long else 1)
        return Plan(
            nodes=rng.randint(2, 4) if long else rng.choice((1, 2, 2, 3)),
            slots=rng.choice((1, 1, 2, 3)),
            jobs=rng.randint(3, 6) if long else rng.choice((1, 1, 2, 3)),
            lost_after_s=rng.choice((1.0, 5.0, 10.0, 30.0) if weather.delay_s[1] < 0.1 else (8.0, 15.0, 30.0)),
            span_s=span,
            fault_every_s=rng.choice((0.0, span / 4, span / 10, span / 20)),
            nasty=rng.choice((0.0, 0.3, 1.0)),
            drift=rng.choice((0.0, 0.0004)),
            weather=weather,
            placement=rng.choice(("spread", "pack")),
        )

    @staticmethod
    def _rough(rng: random.Random) -> Plan:
        return Plan(
            nodes=rng.choice((2, 3)),
            slots=rng.choice((1, 2)),
            jobs=2,
            lost_after_s=rng.choice((2.0, 5.0, 10.0, 30.0)),
            span_s=100.0,
            fault_every_s=4.0,
            nasty=rng.choice((0.3, 1.0)),
            drift=0.0004,
            weather=Weather(delay_s=(0.0005, 0.02)),
        )

    @staticmethod
    def _twins(rng: random.Random) -> Plan:
        return Plan(
            nodes=rng.choice((1, 2, 3)),
            slots=rng.choice((1, 2)),
            jobs=3,
            lost_after_s=rng.choice((2.0, 5.0, 10.0, 30.0)),
            span_s=100.0,
            nasty=rng.choice((0.0, 0.3)),
            drift=0.0004,
            weather=Weather(delay_s=(0.0005, 0.02)),
            strangers=True,
            meddling=False,
            twins=True,
        )


class Simulation:
    """Builds the cluster, watches everything, stops at the first breach."""

    def __init__(
        self, seed: int, plan: Plan, submissions: list[Submission] | None = None, acts: list[Act] | None = None
    ) -> None:
        self.seed = seed
        self.plan = plan
        self.compare_every = COMPARE_EVERY
        self.judge_every = 1
        """Turns of the coordinator between two looks at all of its state."""
        self._turns = 0
        self.alarms: list[str] = []
        self.world = world = World(seed)
        self.network = Network(world, replace(plan.weather))
        self.truth = Truth()
        self.stream = Stream()
        self.society = Society.draw(random.Random(f"society {seed}")) if plan.strangers else None
        self.rights = None if self.society is None else Rights(self.society, world)
        self.names = tuple(f"n{number}" for number in range(plan.nodes))
        self.claims = Claims(self.truth)
        self.invariants = Invariants(self.truth, world, dict.fromkeys(self.names, plan.slots))
        self.invariants.starts = plan.start is not None
        self.explained = Explained(seed, self.truth, self.invariants.slots)
        self.leases = Leases(world, self.invariants)
        self.elsewhere = Elsewhere(self.truth)
        rng = random.Random(f"clocks {seed}")
        self.coordinator_disk = Disk(HOST)
        self.coordinator_clock = Clock(world, HOST, 1.0 + rng.uniform(-plan.drift, plan.drift))
        self.coordinator: CoordinatorDaemon | None = None
        self.coordinator_down_s = 1.0
        self._ledgers: dict[str, tuple[int, Ledger]] = {}
        self.agent_down_s: dict[str, float] = {}
        self.gone: set[str] = set()
        """Nodes that never come back."""
        self.copied = self.truth.copied
        self.machines = [self._machine(name, rng) for name in self.names]
        self.by_name = {machine.name: machine for machine in self.machines}
        self.people = People(world, self.network)
        self.faults = Faults(self)
        self.strangers = None if self.society is None else Strangers(self)
        self.operators = Operators(self) if plan.operated else None
        self.held_off: set[str] = set()
        """Machines that are off, and stay so until the coordinator was told."""
        if submissions is None:
            submissions, acts = random_workload(
                random.Random(f"work {seed}"),
                self.pool_block(),
                self.names,
                plan.slots,
                plan.jobs,
                plan.nasty,
                plan.span_s,
            )
            acts += steering(random.Random(f"steering {seed}"), submissions, plan.span_s)
            if plan.strangers:
                submissions, acts = among_people(random.Random(f"people {seed}"), submissions, acts, plan.span_s)
        self.people.plan(submissions, acts or [])
        if plan.balks:
            self.world.at(random.Random(f"balk {seed}").uniform(0.0, 10.0), self._balk, True)
            self.world.at(plan.span_s, self._balk, False)
        if plan.start is not None and submissions:
            for part in (0.5, 0.7):
                self.world.at(part * plan.span_s, self._change_start, part)

    def pool_block(self) -> dict[str, Any]:
        block = {
            "name": POOL,
            "slots": self.plan.slots,
            "lost_after_ms": int(self.plan.lost_after_s * 1000),
            "placement": self.plan.placement,
            "start": None if self.plan.start is None else start_command(self.plan.start),
        }
        return block if self.society is None else {**block, "elevation": self.society.elevation.value}

    def _balk(self, balking: bool) -> None:
        self.machines[0].balking = balking

    def _change_start(self, part: float) -> None:
        """An operator changes what the pool's nodes start with."""
        start = {**start_command(self.plan.start or 0.0), "env": {"PART": str(part)}}
        self.people.update(f"start-{part}", document(pools=({**self.pool_block(), "start": start},)))

    def _machine(self, name: str, rng: random.Random) -> Machine:
        config = NodeConfig(pool=POOL, node=name, root=f"/{name}", incarnation=f"root-{name}", slots=self.plan.slots)
        if self.society is not None:
            config = replace_fields(config, **self.society.offers(name), users="job")
        clock = Clock(self.world, name, 1.0 + rng.uniform(-self.plan.drift, self.plan.drift), rng.uniform(-30, 30))
        machine = Machine(self.world, self.network, self, config, clock)
        machine.on_agent_gone = self._agent_gone
        if self.society is not None:
            machine.wallet = Wallet(name, Role.NODE, name, POOL)
            machine.users = Users()
        return machine

    def copy(self, machine: Machine) -> Machine:
        """Another machine with a copy of all that lies on this one's disk, its key included; no power yet."""
        clock = Clock(self.world, f"{machine.name}-copy", machine.clock.rate, machine.clock.wall_error_s)
        twin = Machine(self.world, self.network, self, machine.config, clock, f"{machine.name}-copy")
        twin.on_agent_gone = self._agent_gone
        twin.incarnation = machine.incarnation
        twin.disk = machine.disk.copy(twin.name)
        if machine.wallet is not None:
            twin.wallet = replace(machine.wallet, host=twin.name, filled=None)
        self.machines.append(twin)
        self.by_name[twin.name] = twin
        self.copied.setdefault(machine.node, set())
        return twin

    # ---- starting and restarting

    def start(self) -> None:
        """The daemons come up; who dies is started again by its supervisor."""
        self.start_coordinator()
        if self.strangers is not None:
            self.strangers.start()
        for machine in self.machines:
            self.world.after(self.world.between(0.0, 0.5), machine.start_agent)
        self.faults.plague(self.plan.fault_every_s)
        if self.operators is not None:
            self.operators.start()

    def start_coordinator(self) -> None:
        if self.coordinator is not None and self.coordinator.alive:
            return
        self.world.note(HOST, "starts")
        self.stream.look(self.coordinator_disk.log("coordinator"))
        if self.rights is not None:
            self.rights.restarted()
        self.network.appear(HOST)
        daemon = CoordinatorDaemon(
            self.world, self.coordinator_clock, self.coordinator_disk, self.network, self, self.society
        )
        self.coordinator = daemon
        daemon.on_crash = self._coordinator_gone
        daemon.start()

    def _coordinator_gone(self) -> None:
        self.world.after(max(0.05, self.coordinator_down_s), self.start_coordinator)

    def _agent_gone(self, machine: Machine) -> None:
        dead = [tree for tree in machine.processes.trees if not _minds(machine.keepers.get(tree.keeper))]
        self.invariants.unminded.update((tree.host, tree.number) for tree in dead)
        if machine.agent_wanted:
            self.world.after(max(0.05, self.agent_down_s.get(machine.name, 1.0)), machine.start_agent)

    def ledger(self, host: str) -> Ledger:
        """What a machine's disk says, read anew when something was written."""
        log = self.by_name[host].disk.log("agent")
        known = self._ledgers.get(host)
        if known is None or known[0] != log.version:
            ledger = Ledger()
            for _, body in log.rows:
                ledger.apply(records.decode(body))
            known = self._ledgers[host] = (log.version, ledger)
        return known[1]

    # ---- running

    def run(self) -> None:
        """The whole course: trouble, calm, rest. Raises Breach."""
        self.start()
        self.world.run_until(self.plan.span_s, events_max=EVENTS_MAX)
        require(self.world.now >= self.plan.span_s, "I15", f"{EVENTS_MAX} events and no end")
        self.settle()

    def settle(self, within_s: float = SETTLES_WITHIN_S) -> None:
        """The calm: everything that was begun must come to its end."""
        self.faults.stop()
        if self.operators is not None:
            self.operators.stop()
        self.people.calm = True
        if self.strangers is not None:
            self.strangers.stop()
        self.world.after(2.0, self._finish_manual)
        if not self.world.run_until(self.world.now + within_s, self.at_rest, EVENTS_MAX):
            what = f"not at rest {within_s:.0f} s after the faults stopped: {self.unrest()}"
            raise Breach("I15", what, self._restless())
        self.world.run_until(self.world.now + 1.0)
        self.invariants.finally_(self.people)
        for machine in self.machines:
            if machine.name not in self.gone and machine.name not in self.copied.get(machine.node, ()):
                self.invariants.nothing_left(machine.name, _of_jobs(machine))
                if machine.users is not None and machine.node not in self.copied:
                    self.invariants.no_user_left(machine.node, machine.users)
        assert self.coordinator is not None
        self._compare(self.coordinator.core)
        self.invariants.results(self.coordinator.core.cluster)
        self.explained.look_at_all(self.coordinator.core)
        self.stream.check(self.coordinator_disk.log("coordinator"), self.truth)

    def _finish_manual(self) -> None:
        """Jobs with `finish = manual` are over when somebody says so."""
        for ids in self.people.told.values():
            for job_id in ids:
                job = self.truth.jobs.get(job_id)
                if job is None or job.ending_at is not None:
                    continue
                self.people.enable(job_id)
                if job.spec.finish is Finish.MANUAL or not self._has_a_place(job):
                    self.people.terminate(job_id)
        for node in self.coordinator.core.cluster.nodes.values() if self.coordinator is not None else ():
            if node.held_back is NodeState.START_FAILED:
                self.people.enable_node(node.name)
        self.world.after(20.0, self._finish_manual)

    def _has_a_place(self, job: JobTruth) -> bool:
        """Whether each of its groups fits some node, as nodes are configured; what fits none waits for ever."""
        if self.society is None:
            return True
        nodes = [machine.config for machine in self.machines if machine.name not in self.gone]
        phases = (job.spec.preparation, job.spec.release)
        elevated = any(phase is not None and phase.command.elevated for phase in phases)
        dirs = sum(spec.size_bytes or 0 for spec in job.spec.dirs)
        return all(any(_fits(group, dirs, node, elevated) for node in nodes) for group in job.spec.groups)

    def at_rest(self) -> bool:
        return not self.unrest(first=True)

    def unrest(self, first: bool = False) -> list[str]:
        """What is still going on. Only the first thing, if that is all one wants to know."""
        jobs = self.truth.jobs.values()
        found = [f"{job.id} is not over" for job in jobs if job.completed_at is None and job.deleted_at is None]
        if self.coordinator is None or not self.coordinator.alive:
            found.append("the coordinator is down")
        found += [f"nobody was told of the end of {job}" for job in self.stream.owed]
        if self.people.open:
            found.append(f"{self.people.open} requests wait for an answer")
        if self.operators is not None and self.coordinator is not None:
            nodes = self.coordinator.core.cluster.nodes.values()
            found += [
                f"{node.name} is {node.state.value}"
                for node in nodes
                if node.drain or (node.connected and node.unusable)
            ]
            found += self.operators.unrest()
        for name, machine in self.by_name.items():
            if name in self.gone or name in self.copied.get(machine.node, ()):
                continue
            if first and found:
                break
            if machine.agent is None or not machine.agent.alive or not machine.agent.core.joined:
                found.append(f"{name} has not joined")
            found += [f"{tree} lives" for tree in machine.processes.trees if tree.who.kind is not Kind.START]
            found += [f"{path} is left on {name}" for path in _of_jobs(machine)[:2]]
            owed = [f"{r.job}/{r.round} on {name} is {r.state.value}" for r in self._owed(machine)]
            found += owed
            ledger = self.ledger(name)
            jobs = ledger.jobs.keys() - {m.START_JOB}
            if jobs or ledger.grants or ledger.outbox or ledger.owed:
                held = [*jobs, *map(str, (*ledger.grants, *ledger.outbox, *ledger.owed))]
                found.append(f"{name} holds {held}")
        return found

    def _owed(self, machine: Machine) -> list[Any]:
        states = (rows.NodeJobState.RELEASED, rows.NodeJobState.RELEASE_FAILED, rows.NodeJobState.WAIVED)
        incarnation = machine.incarnation
        return [
            found
            for (_, where), rounds in self.truth.rounds.items()
            if where == machine.node
            for found in rounds
            if not found.voided and found.state not in states and not found.settled and found.incarnation == incarnation
        ]

    def _restless(self) -> str | None:
        for job in self.truth.jobs.values():
            if job.completed_at is None and job.deleted_at is None:
                return job.id
        return None

    # ---- what the coordinator's shell tells

    def coordinator_called(self, job: str) -> None:
        self.stream.call_over(job)

    def coordinator_committed(self, transaction: Transaction) -> None:
        self.stream.committed(transaction)
        for part in transaction.parts:
            for _, body in part.rows:
                record = rows.decode(body)
                self.world.note("disk", _record_brief(record))
                self.invariants.recording(record)
                if self.rights is not None:
                    self.rights.committed(record)
                if isinstance(record, rows.TasksReturned) and record.cause is rows.Returned.EXPIRED:
                    grant = self.truth.grants[record.grant].record
                    for machine in self.machines:
                        if machine.node == grant.node:
                            self.leases.expired(machine.name, grant.job)
                self.truth.recorded(record, self.world.now)
                self.elsewhere.recorded(record)

    def coordinator_took(self, actor: Actor | None, event: Event, made: Sequence[rows.Record]) -> None:
        assert self.rights is not None
        self.rights.took(actor, event, self.coordinator_clock.wall(), made)

    def coordinator_sent(self, epoch: int, actor: Actor, message: Message) -> None:
        self.invariants.coordinator_sends(message)
        if self.rights is not None:
            self.rights.answered(epoch, actor, message)

    def coordinator_alarmed(self, sentence: str) -> None:
        self.world.note("alarm", sentence)
        self.alarms.append(sentence)

    def coordinator_handled(self, core: Core) -> None:
        self._turns += 1
        self.elsewhere.handled(core)
        if self._turns % self.judge_every:
            return
        if self.rights is not None:
            bounds.check(core)
            self.rights.sessions(core, self.coordinator_clock.wall())
        for sentence in violations(core.cluster):
            raise Breach("coordinator.invariants", sentence)

    def coordinator_rested(self, core: Core) -> None:
        """Nothing is on its way to the disk: what the core is must be what its log says."""
        if self.coordinator_disk.log("coordinator").commits % self.compare_every == 0:
            self._compare(core)
        self.explained.rested(core)

    def _compare(self, core: Core) -> None:
        replayed = stored(self.coordinator_disk.log("coordinator").rows)
        self._require_same("coordinator", core.cluster, replayed.cluster)

    def _require_same(self, whose: str, live: object, replayed: object) -> None:
        found = difference(live, replayed)
        require(found is None, "I17", f"the log of {whose} gives another state than it has: {found}")

    # ---- what agents' shells tell

    def agent_committed(self, host: str, transaction: Transaction) -> None:
        for part in transaction.parts:
            for _, body in part.rows:
                record = records.decode(body)
                self.world.note(f"disk {host}", _record_brief(record))
                self.truth.node_recorded(host, self.by_name[host].node, record)

    def agent_sent(self, host: str, message: Message) -> None:
        self.leases.sent(host, message)
        if isinstance(message, m.Recalled):
            node = self.by_name[host].node
            back = (at for first, count in message.spans for at in range(first, first + count))
            self.truth.gave_back.update((node, message.grant, position) for position in back)
        if isinstance(message, m.Leaving):
            self.truth.leaving[self.by_name[host].node] = self.world.now

    def agent_received(self, host: str, message: Message) -> None:
        if isinstance(message, m.OutputsTaken):
            self.by_name[host].spare()
        self.leases.received(self.by_name[host], message)

    def agent_told(self, host: str, keeper: str, said: Any) -> None:
        if isinstance(said, dialogue.RunItems):
            self.world.note(host, f"gives {keeper} {' '.join(item[0] for item in said.items)}")

    def agent_rested(self, host: str, core: AgentCore) -> None:
        if self.by_name[host].disk.log("agent").commits % self.compare_every == 0:
            self._require_same(host, core.ledger, self.ledger(host))
        machine = self.by_name[host]
        if machine.node not in self.copied and not self.invariants.excused(machine.node, self.world.now - 120.0):
            machine.spare()
            late = machine.kept_too_long()
            require(not late, "keep", f"{late[:3]} is still on {host}")

    def agent_left(self, host: str, leave: events.Leave, reason: str) -> None:
        self.world.note(host, f"the agent leaves: {leave.value} {reason}")
        local = self.society is None and self.by_name[host].node not in self.copied
        if leave in (events.Leave.REFUSED, events.Leave.REVOKED) and not local:
            self._shut_out(self.by_name[host], leave, reason)

    def _shut_out(self, machine: Machine, leave: events.Leave, reason: str) -> None:
        """Refused for good, so no supervisor tries again. Whoever runs the cluster finds out why, and has it come again
        by a new token if it is nobody any more."""
        machine.agent_wanted = False
        if machine.node in self.copied:
            self.copied[machine.node].add(machine.name)
            return
        revoked = leave is events.Leave.REVOKED or "revoked" in reason  # by now it may have another certificate
        nobody = self.strangers is not None and self.strangers.is_nobody(machine, revoked)
        require(nobody, "F36", f"{machine.name} is shut out for nothing: {reason}")
        self.world.after(self.world.between(2.0, 8.0), self._come_again, machine)

    def _come_again(self, machine: Machine) -> None:
        if self.strangers is not None and machine.wallet is not None and self.strangers.is_nobody(machine, False):
            machine.wallet.filled = machine.supervise
            self.strangers.look_after(machine)
        else:
            machine.supervise()

    # ---- what machines tell

    def not_let_in(self, machine: Machine) -> None:
        """A dial of its agent came to nothing. Whoever runs the cluster looks whether it is somebody still."""
        if self.strangers is not None:
            self.strangers.look_after(machine)

    def is_held_off(self, machine: Machine) -> bool:
        return machine.name in self.held_off

    def spawning(self, machine: Machine, keeper: KeeperProcess, who: Identity, staged: bool) -> None:
        require(who.node == machine.node, "templates", f"{who.kind.value} of {who.node} starts on {machine.name}")
        if who.kind is Kind.START:
            self.invariants.start_begins(machine.name, machine.clock.boot)
            return
        if who.kind is not Kind.RELEASE and not staged:
            what = f"{who.kind.value} of {who.job}"
            self.invariants.beginning(machine.name, what, machine.clock.boot, machine.incarnation)
        self.invariants.spawning(machine.name, who, machine.clock.boot, machine.incarnation)
        brings = bool(self.truth.jobs[who.job].command_of(who).files)
        require(brings == staged, "files", f"{who.kind.value} of {who.job} starts without its files", who.job)
        if who.kind is Kind.TASK:
            self.claims.starts(machine.name, machine.config, who)
        self.leases.spawning(machine.name, who)
        if self.rights is not None:
            self.rights.spawning(machine.config, keeper.elevated, self.truth.jobs[who.job], who)
        ledger = self.ledger(machine.name)
        held = ledger.jobs.get(who.job)
        require(
            held is not None and bool(held.rounds),
            "promise 3",
            f"{who.kind.value} of {who.job} starts on {machine.name}, whose disk owes no release for it",
            who.job,
        )

    def sees(self, machine: Machine, who: Identity, gpus: str | None) -> None:
        self.claims.sees(machine.name, machine.config.gpus, who, gpus)

    def staging(self, machine: Machine, key: str) -> None:
        """Files begin to come for a command: it has begun."""
        grant, position = key.split(".")[:2]
        if grant != Phase.RELEASE.value:
            self.invariants.beginning(machine.name, key, machine.clock.boot, machine.incarnation)
        back = grant.isdecimal() and (machine.node, int(grant), int(position)) in self.truth.gave_back
        require(not back, "recall", f"files come for {key} on {machine.name}, which gave that task back")

    def spawn_refused(self, who: Identity) -> None:
        self.truth.refused(who)

    def process(self, what: str, tree: Tree) -> None:
        machine = self.by_name[tree.host]
        if what == "spawned":
            machine.spawned(tree)
            self.truth.spawned(tree)
            self._watch_timeout(tree)
            self.world.note(tree.host, f"started {tree}")
        elif what == "exited":
            self.world.note(tree.host, f"exited {tree.main_exit} {tree}")
        else:
            self.world.note(tree.host, f"ended {tree}")
            machine.ended(tree)
            self.truth.ended(tree)

    def _watch_timeout(self, tree: Tree) -> None:
        if tree.who.kind is Kind.START:
            return  # whoever starts it anew waits until all of it is dead
        job = self.truth.jobs[tree.who.job]
        command = job.command_of(tree.who)
        if command.timeout_ms is not None:
            grace = command.stop_grace_ms / 1000
            limit = (command.timeout_ms / 1000 + grace) * (1 + self.plan.drift) + self.invariants.timeout_slack_s
            self.world.after(limit, self._overdue, tree, command.timeout_ms / 1000, grace)

    def _overdue(self, tree: Tree, timeout_s: float, grace_s: float) -> None:
        if not tree.alive or tree.stuck or (tree.who.kind is Kind.PREPARATION and tree.succeeded):
            return
        machine = self.by_name[tree.host]
        keeper = machine.keepers.get(tree.keeper)
        if keeper is None or not keeper.alive or keeper.stopped or self.invariants.excused(tree.host, tree.spawned_at):
            self.world.after(5.0, self._overdue, tree, timeout_s, grace_s)
            return
        raise Breach("I12", f"{tree} lives longer than {timeout_s} s and {grace_s} s of grace", tree.who.job)

    def signalled(self, trees: list[Tree]) -> None:
        self.truth.signalled.update((tree.host, tree.number) for tree in trees)

    def keeper_died(self, host: str, keeper: str, left: list[Tree]) -> None:
        self.truth.dead_keepers.add((host, self.by_name[host].incarnation, keeper))
        self.signalled(left)  # whoever cleans up after it will
        agent = self.by_name[host].agent
        if agent is None or not agent.alive:
            self.invariants.unminded.update((tree.host, tree.number) for tree in left)


def _of_jobs(machine: Machine) -> list[str]:
    """What lies on its disk, but for what the pool's start has there while the node lives."""
    return sorted(path for path in machine.disk.directories if path.split("/")[0] != m.START_JOB)


def _minds(keeper: KeeperProcess | None) -> bool:
    return keeper is not None and keeper.alive


def _fits(group: GroupSpec, dirs: int, node: NodeConfig, elevated: bool) -> bool:
    return fits(group, dirs, node) and (node.elevation or not (elevated or group.command.elevated))


def _record_brief(record: Any) -> str:
    text = repr(record)
    return text if len(text) <= 200 else f"{text[:190]} ... {len(text)}"
