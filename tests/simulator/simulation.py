"""One simulated cluster from a plan: the world, who lives in it, who watches, and what must be true of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agentd import dialogue, events, records
from agentd.core import AgentCore
from agentd.model import Ledger, NodeConfig
from coordinator import records as rows
from coordinator.core import Core
from coordinator.invariants import violations
from tests.simulator.coordinator import HOST, CoordinatorDaemon, stored
from tests.simulator.disk import Disk, Transaction
from tests.simulator.faults import Faults
from tests.simulator.invariants import Breach, Invariants, require
from tests.simulator.leases import Leases
from tests.simulator.machine import Machine
from tests.simulator.network import Network, Weather
from tests.simulator.people import People
from tests.simulator.processes import Identity, Tree
from tests.simulator.sameness import difference
from tests.simulator.truth import Truth
from tests.simulator.workload import Act, Kind, Submission, random_workload
from tests.simulator.world import Clock, World
from wire import messages as m
from wire.messages import Message
from wire.spec import Finish

POOL: Final = "p"
SETTLES_WITHIN_S: Final = 4_000.0
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

    @staticmethod
    def draw(seed: int, size: str = "short") -> Plan:
        """A plan for a seed. `long` ones have more of everything, `rough` ones a fault every few seconds."""
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


class Simulation:
    """Builds the cluster, watches everything, stops at the first breach."""

    def __init__(
        self, seed: int, plan: Plan, submissions: list[Submission] | None = None, acts: list[Act] | None = None
    ) -> None:
        self.seed = seed
        self.plan = plan
        self.compare_every = COMPARE_EVERY
        self.world = world = World(seed)
        self.network = Network(world, replace(plan.weather))
        self.truth = Truth()
        self.names = tuple(f"n{number}" for number in range(plan.nodes))
        self.invariants = Invariants(self.truth, world, dict.fromkeys(self.names, plan.slots))
        self.leases = Leases(world, self.invariants)
        rng = random.Random(f"clocks {seed}")
        self.coordinator_disk = Disk(HOST)
        self.coordinator_clock = Clock(world, HOST, 1.0 + rng.uniform(-plan.drift, plan.drift))
        self.coordinator: CoordinatorDaemon | None = None
        self.coordinator_down_s = 1.0
        self._ledgers: dict[str, tuple[int, Ledger]] = {}
        self.agent_down_s: dict[str, float] = {}
        self.gone: set[str] = set()
        """Nodes that never come back."""
        self.machines = [self._machine(name, rng) for name in self.names]
        self.by_name = {machine.name: machine for machine in self.machines}
        self.people = People(world, self.network)
        self.faults = Faults(self)
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
        self.people.plan(submissions, acts or [])

    def pool_block(self) -> dict[str, Any]:
        return {
            "name": POOL,
            "slots": self.plan.slots,
            "lost_after_ms": int(self.plan.lost_after_s * 1000),
            "placement": self.plan.placement,
        }

    def _machine(self, name: str, rng: random.Random) -> Machine:
        config = NodeConfig(pool=POOL, node=name, root=f"/{name}", incarnation=f"root-{name}", slots=self.plan.slots)
        clock = Clock(self.world, name, 1.0 + rng.uniform(-self.plan.drift, self.plan.drift), rng.uniform(-30, 30))
        machine = Machine(self.world, self.network, self, config, clock)
        machine.on_agent_gone = self._agent_gone
        return machine

    # ---- starting and restarting

    def start(self) -> None:
        """The daemons come up; who dies is started again by its supervisor."""
        self.start_coordinator()
        for machine in self.machines:
            self.world.after(self.world.between(0.0, 0.5), machine.start_agent)
        self.faults.plague(self.plan.fault_every_s)

    def start_coordinator(self) -> None:
        if self.coordinator is not None and self.coordinator.alive:
            return
        self.world.note(HOST, "starts")
        self.network.appear(HOST)
        daemon = CoordinatorDaemon(self.world, self.coordinator_clock, self.coordinator_disk, self.network, self)
        self.coordinator = daemon
        daemon.on_crash = self._coordinator_gone
        daemon.start()

    def _coordinator_gone(self) -> None:
        self.world.after(max(0.05, self.coordinator_down_s), self.start_coordinator)

    def _agent_gone(self, machine: Machine) -> None:
        if machine.agent_wanted:
            self.world.after(max(0.05, self.agent_down_s.get(machine.name, 1.0)), machine.start_agent)

    def ledger(self, node: str) -> Ledger:
        """What a node's disk says, read anew when something was written."""
        log = self.by_name[node].disk.log("agent")
        known = self._ledgers.get(node)
        if known is None or known[0] != log.version:
            ledger = Ledger()
            for _, body in log.rows:
                ledger.apply(records.decode(body))
            known = self._ledgers[node] = (log.version, ledger)
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
        self.world.after(2.0, self._finish_manual)
        if not self.world.run_until(self.world.now + within_s, self.at_rest, EVENTS_MAX):
            what = f"not at rest {within_s:.0f} s after the faults stopped: {self.unrest()}"
            raise Breach("I15", what, self._restless())
        self.world.run_until(self.world.now + 1.0)
        self.invariants.finally_(self.people)
        for machine in self.machines:
            if machine.name not in self.gone:
                self.invariants.nothing_left(machine.name, sorted(machine.disk.directories))
        assert self.coordinator is not None
        self._compare(self.coordinator.core)
        self.invariants.results(self.coordinator.core.cluster)

    def _finish_manual(self) -> None:
        """Jobs with `finish = manual` are over when somebody says so."""
        for ids in self.people.told.values():
            for job_id in ids:
                job = self.truth.jobs.get(job_id)
                if job is not None and job.spec.finish is Finish.MANUAL and job.ending_at is None:
                    self.people.terminate(job_id)
        self.world.after(20.0, self._finish_manual)

    def at_rest(self) -> bool:
        return not self.unrest(first=True)

    def unrest(self, first: bool = False) -> list[str]:
        """What is still going on. Only the first thing, if that is all one wants to know."""
        jobs = self.truth.jobs.values()
        found = [f"{job.id} is not over" for job in jobs if job.completed_at is None and job.deleted_at is None]
        if self.coordinator is None or not self.coordinator.alive:
            found.append("the coordinator is down")
        if self.people.open:
            found.append(f"{self.people.open} requests wait for an answer")
        for name, machine in self.by_name.items():
            if name in self.gone:
                continue
            if first and found:
                break
            if machine.agent is None or not machine.agent.alive or not machine.agent.core.joined:
                found.append(f"{name} has not joined")
            found += [f"{tree} lives" for tree in machine.processes.trees]
            found += [f"{path} is left on {name}" for path in sorted(machine.disk.directories)[:2]]
            owed = [f"{r.job}/{r.round} on {name} is {r.state.value}" for r in self._owed(name)]
            found += owed
            ledger = self.ledger(name)
            if ledger.jobs or ledger.grants or ledger.outbox:
                held = [*ledger.jobs, *map(str, ledger.grants), *map(str, ledger.outbox)]
                found.append(f"{name} holds {held}")
        return found

    def _owed(self, node: str) -> list[Any]:
        states = (rows.NodeJobState.RELEASED, rows.NodeJobState.RELEASE_FAILED, rows.NodeJobState.WAIVED)
        incarnation = self.by_name[node].incarnation
        return [
            found
            for (_, where), rounds in self.truth.rounds.items()
            if where == node
            for found in rounds
            if not found.voided and found.state not in states and not found.settled and found.incarnation == incarnation
        ]

    def _restless(self) -> str | None:
        for job in self.truth.jobs.values():
            if job.completed_at is None and job.deleted_at is None:
                return job.id
        return None

    # ---- what the coordinator's shell tells

    def coordinator_committed(self, transaction: Transaction) -> None:
        for part in transaction.parts:
            for _, body in part.rows:
                record = rows.decode(body)
                self.world.note("disk", _record_brief(record))
                self.invariants.recording(record)
                if isinstance(record, rows.TasksReturned) and record.cause is rows.Returned.EXPIRED:
                    grant = self.truth.grants[record.grant].record
                    self.leases.expired(grant.node, grant.job)
                self.truth.recorded(record, self.world.now)

    def coordinator_sent(self, message: Message) -> None:
        self.invariants.coordinator_sends(message)

    def coordinator_handled(self, core: Core) -> None:
        for sentence in violations(core.cluster):
            raise Breach("coordinator.invariants", sentence)

    def coordinator_rested(self, core: Core) -> None:
        """Nothing is on its way to the disk: what the core is must be what its log says."""
        if self.coordinator_disk.log("coordinator").commits % self.compare_every == 0:
            self._compare(core)

    def _compare(self, core: Core) -> None:
        replayed = stored(self.coordinator_disk.log("coordinator").rows)
        self._require_same("coordinator", core.cluster, replayed.cluster)

    def _require_same(self, whose: str, live: object, replayed: object) -> None:
        found = difference(live, replayed)
        require(found is None, "I17", f"the log of {whose} gives another state than it has: {found}")

    # ---- what agents' shells tell

    def agent_committed(self, node: str, transaction: Transaction) -> None:
        for part in transaction.parts:
            for _, body in part.rows:
                record = records.decode(body)
                self.world.note(f"disk {node}", _record_brief(record))
                self.truth.node_recorded(node, record)

    def agent_sent(self, node: str, message: Message) -> None:
        self.leases.sent(node, message)
        if isinstance(message, m.Leaving):
            self.truth.leaving[node] = self.world.now

    def agent_received(self, node: str, message: Message) -> None:
        self.leases.received(self.by_name[node], message)

    def agent_told(self, node: str, keeper: str, said: Any) -> None:
        if isinstance(said, dialogue.RunItems):
            self.world.note(node, f"gives {keeper} {' '.join(item[0] for item in said.items)}")

    def agent_rested(self, node: str, core: AgentCore) -> None:
        if self.by_name[node].disk.log("agent").commits % self.compare_every == 0:
            self._require_same(node, core.ledger, self.ledger(node))

    def agent_left(self, node: str, leave: events.Leave, reason: str) -> None:
        self.world.note(node, f"the agent leaves: {leave.value} {reason}")

    # ---- what machines tell

    def spawning(self, who: Identity, boot: str, incarnation: str) -> None:
        self.invariants.spawning(who, boot, incarnation)
        self.leases.spawning(who)
        ledger = self.ledger(who.node)
        held = ledger.jobs.get(who.job)
        require(
            held is not None and bool(held.rounds),
            "promise 3",
            f"{who.kind.value} of {who.job} starts on {who.node}, whose disk owes no release for it",
            who.job,
        )

    def spawn_refused(self, who: Identity) -> None:
        self.truth.refused(who)

    def process(self, what: str, tree: Tree) -> None:
        machine = self.by_name[tree.who.node]
        if what == "spawned":
            machine.spawned(tree)
            self.truth.spawned(tree)
            self._watch_timeout(tree)
            self.world.note(tree.who.node, f"started {tree}")
        elif what == "exited":
            self.world.note(tree.who.node, f"exited {tree.main_exit} {tree}")
        else:
            self.world.note(tree.who.node, f"ended {tree}")
            machine.ended(tree)
            self.truth.ended(tree)

    def _watch_timeout(self, tree: Tree) -> None:
        job = self.truth.jobs[tree.who.job]
        command = job.command_of(tree.who)
        if command.timeout_ms is not None:
            grace = command.stop_grace_ms / 1000
            limit = (command.timeout_ms / 1000 + grace) * (1 + self.plan.drift) + self.invariants.timeout_slack_s
            self.world.after(limit, self._overdue, tree, command.timeout_ms / 1000, grace)

    def _overdue(self, tree: Tree, timeout_s: float, grace_s: float) -> None:
        if not tree.alive or (tree.who.kind is Kind.PREPARATION and tree.succeeded):
            return
        machine = self.by_name[tree.who.node]
        keeper = machine.keepers.get(tree.keeper)
        if (
            keeper is None
            or not keeper.alive
            or keeper.stopped
            or self.invariants.excused(tree.who.node, tree.spawned_at)
        ):
            self.world.after(5.0, self._overdue, tree, timeout_s, grace_s)
            return
        raise Breach("I12", f"{tree} lives longer than {timeout_s} s and {grace_s} s of grace", tree.who.job)

    def signalled(self, trees: list[Tree]) -> None:
        self.truth.signalled.update((tree.who.node, tree.number) for tree in trees)

    def keeper_died(self, node: str, keeper: str, left: list[Tree]) -> None:
        self.truth.dead_keepers.add((node, self.by_name[node].incarnation, keeper))
        self.signalled(left)  # whoever cleans up after it will


def _record_brief(record: Any) -> str:
    text = repr(record)
    return text if len(text) <= 200 else f"{text[:190]} ... {len(text)}"
