"""Who runs the cluster: drains nodes and takes them back, forgets dead ones, lets barred ones try again; and what they
are there for: disks that fill up, and processes that can't be killed. All by a chance of their own."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from coordinator.records import NodeJobState
from tests.simulator.drains import DEADLINES_S, Drains
from tests.simulator.machine import Machine
from wire import messages as m
from wire.messages import Message

if TYPE_CHECKING:
    from tests.simulator.simulation import Simulation

MEAN_S: Final = 4.0
AGAIN_S: Final = 5.0


class Operators:
    """One who acts now and then until the calm, and then takes everything back into service."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.world = sim.world
        self.rng = random.Random(f"operators {sim.seed}")
        self.calm = False
        self.drains: Drains | None = None
        """The drain in the calm."""

    def start(self) -> None:
        self.world.after(self.rng.expovariate(1 / MEAN_S), self._act)

    def _act(self) -> None:
        if self.calm:
            return
        machine = self.rng.choice(self.sim.machines)
        match self.rng.choices(range(6), weights=(4, 3, 1, 2, 2, 2))[0]:
            case 0:
                self.drain(machine.node, self.rng.choice(DEADLINES_S), wait=self.rng.random() < 0.3)
            case 1:
                self.enable(machine.node)
            case 2:
                self.forget(machine)
            case 3:
                self.retry_preparation()
            case 4:
                self.fill(machine, self.rng.uniform(1.0, 30.0))
            case _:
                self.stick(machine, self.rng.uniform(1.0, 60.0))
        self.world.after(self.rng.expovariate(1 / MEAN_S), self._act)

    def stop(self) -> None:
        """The calm: disks have room, what could not be killed can, and every node is taken back when it is empty."""
        self.calm = True
        for machine in self.sim.machines:
            machine.set_room(None)
            for tree in list(machine.processes.trees):
                machine.processes.unstick(tree)
        self.drains = Drains(self)
        self._take_back()

    def _take_back(self) -> None:
        """What was asked long ago may still come to be heard."""
        assert self.drains is not None
        self.drains.begun_before()
        for node, empty in self.sim.truth.drained.items():
            gone = all(machine.name in self.sim.gone for machine in self.sim.machines if machine.node == node)
            if (empty or gone) and node != self.drains.holds:
                self.enable(node)
        self.world.after(AGAIN_S, self._take_back)

    def unrest(self) -> list[str]:
        """What of the drains is still going on."""
        return [] if self.drains is None else self.drains.unrest()

    # ---- what operators do

    def drain(self, node: str, deadline_s: float, wait: bool = False) -> None:
        self.world.note("operators", f"drain {node} within {deadline_s:g} s")
        self._ask(lambda request: m.NodeDrain(request=request, node=node, deadline_s=deadline_s), f"drain {node}")
        if wait:
            self._ask(lambda request: m.NodeDrain(request=request, node=node, wait=True), f"waiting for {node}")

    def enable(self, node: str) -> None:
        self._ask(lambda request: m.NodeEnable(request, node), f"enable {node}")

    def forget(self, machine: Machine) -> None:
        """Only what is off is forgotten; it stays off until that was said, whatever becomes of the answer."""
        if machine.powered or machine.name in self.sim.held_off:
            return
        self.sim.held_off.add(machine.name)
        self._ask(lambda request: m.NodeForget(request, machine.node), f"forget {machine.node}", machine)

    def retry_preparation(self) -> None:
        barred = [
            (job, node)
            for (job, node), rounds in self.sim.truth.rounds.items()
            if any(found.phases and not found.voided and found.state is not NodeJobState.WAIVED for found in rounds)
        ]
        if barred:
            job, node = self.rng.choice(barred)
            self._ask(lambda request: m.NodeRetryPrep(request, node, job), f"retry the preparation of {job} on {node}")

    def _ask(self, make: Any, what: str, held_off: Machine | None = None) -> None:
        def answered(answer: Message) -> None:
            outcome = answer.message if isinstance(answer, m.Refused) else "done"
            self.world.note("operators", f"{what}: {outcome}")
            if held_off is not None:
                self.sim.held_off.discard(held_off.name)

        self.sim.people.ask(make, answered)

    # ---- what goes wrong

    def fill(self, machine: Machine, seconds: float) -> None:
        """Its disk has less room than its floor for a while."""
        self.world.note("fault", f"the disk of {machine.name} is below its floor for {seconds:.1f} s")
        machine.set_room(0)
        self.world.after(seconds, machine.set_room, None)

    def stick(self, machine: Machine, seconds: float) -> None:
        """A process waits for something that can't be interrupted."""
        if machine.processes.trees:
            tree = self.rng.choice(machine.processes.trees)
            self.world.note("fault", f"{tree} can't be killed for {seconds:.1f} s")
            machine.processes.stick(tree)
            self.world.after(seconds, machine.processes.unstick, tree)
