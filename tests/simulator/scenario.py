"""A scripted simulation: a cluster, one job described in a few words, and steps that wait for what they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulator.machine import Machine
from tests.simulator.operators import Operators
from tests.simulator.processes import Tree
from tests.simulator.simulation import POOL, Plan, Simulation
from tests.simulator.truth import JobTruth, RoundTruth
from tests.simulator.workload import Character, Kind, Submission, command, document

STEADY = Character(duration_s=(1.0, 1.0))


def job_block(
    *,
    name: str = "j",
    tasks: int = 1,
    task: Character = STEADY,
    prep: Character | None = STEADY,
    release: Character | None = STEADY,
    **options: Any,
) -> dict[str, Any]:
    """A job's spec. `task_options`, `prep_options` and `release_options` go to the commands."""
    task_options = {"retries": 0, **options.pop("task_options", {})}
    prep_options = {"retries": 0, "timeout_ms": 60_000, **options.pop("prep_options", {})}
    release_options = {"retries": 0, "timeout_ms": 60_000, **options.pop("release_options", {})}
    block: dict[str, Any] = {
        "name": name,
        "pool": POOL,
        "groups": [
            {
                "name": "g",
                "axes": [{"names": ["i"], "range": (1, tasks, 1)}],
                "command": command(Kind.TASK, task, **task_options),
            }
        ],
        **options,
    }
    if prep is not None:
        block["preparation"] = {"command": command(Kind.PREPARATION, prep, **prep_options)}
    if release is not None:
        block["release"] = {"command": command(Kind.RELEASE, release, **release_options)}
    return block


class Scenario:
    """A cluster without chance faults. Every invariant is checked all the time, as in any simulation."""

    def __init__(self, *blocks: dict[str, Any], seed: int = 1, submit_at: float = 1.0, **plan: Any) -> None:
        options = {"nodes": 1, "slots": 1, "lost_after_s": 15.0, "meddling": False, **plan}
        self.sim = Simulation(seed, Plan(**options), submissions=[], acts=[])
        pool = self.sim.pool_block()
        self.sim.people.plan([Submission(submit_at, "s", document(*blocks, pools=(pool,)))], [])
        self.world = self.sim.world
        self.faults = self.sim.faults
        self.operators = Operators(self.sim)
        self.sim.start()

    # ---- going on

    def until(self, what: Callable[[], Any], within_s: float = 300.0) -> None:
        """Go on until `what` is so; it must become so."""
        reached = self.world.run_until(self.world.now + within_s, lambda: bool(what()))
        assert reached, f"not within {within_s} s: {self.sim.unrest()}"

    def pass_time(self, seconds: float) -> None:
        self.world.run_until(self.world.now + seconds)

    def settle(self) -> None:
        """No more faults: everything comes to its end, and the final invariants hold."""
        self.sim.settle()

    # ---- looking

    def last(self, count: int) -> list[tuple[float, str, str]]:
        """The last lines of the trace."""
        lines = self.world.lines
        return [lines[n] for n in range(max(0, len(lines) - count), len(lines))]

    @property
    def node(self) -> Machine:
        return self.sim.machines[0]

    def machine(self, name: str) -> Machine:
        return self.sim.by_name[name]

    def said(self, where: str, what: str) -> bool:
        """Whether the trace has such a line."""
        return any(place == where and what in line for _, place, line in self.world.lines)

    @property
    def job(self) -> JobTruth:
        (job,) = self.sim.truth.jobs.values()
        return job

    def jobs(self) -> list[str]:
        return list(self.sim.truth.jobs)

    def rounds(self) -> list[RoundTruth]:
        return [found for rounds in self.sim.truth.rounds.values() for found in rounds]

    def started(self, kind: Kind, node: str | None = None) -> list[Tree]:
        """Every command of a kind that was ever started, in order."""
        trees = [tree for found in self.rounds() for tree in found.trees]
        chosen = [tree for tree in trees if tree.who.kind is kind and node in (None, tree.who.node)]
        return sorted(chosen, key=lambda tree: tree.spawned_at)

    def alive(self, kind: Kind) -> list[Tree]:
        return [tree for tree in self.started(kind) if tree.alive]

    def attempts(self, task: str = "g-1") -> list[int]:
        (job,) = self.sim.truth.jobs
        return sorted(self.sim.truth.attempts[job, task])

    def verdicts(self) -> dict[str, str]:
        """By task: how it ended for good, as it stands on the coordinator's disk."""
        return {self.job.task_id(*place): verdict.value for place, verdict in self.job.final.items()}
