"""The leases as they truly are: from the frames that an agent sent and was answered, on its own clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tests.simulator.invariants import Invariants, require
from tests.simulator.machine import Machine
from tests.simulator.processes import Identity
from tests.simulator.workload import Kind
from tests.simulator.world import World
from wire import messages as m

GRACE_S: Final = 5.0
"""What a task has, at most, to go when its lease is over."""
SLACK_S: Final = 0.5


@dataclass
class Lease:
    """One node's, in simulated time."""

    asked: dict[int, float] = field(default_factory=dict)
    """By beat (0: the Join): when it was sent."""
    lease_s: float = 0.0
    until: float | None = None


class Leases:
    """All nodes' leases, and what must not happen after their ends."""

    def __init__(self, world: World, invariants: Invariants) -> None:
        self.world = world
        self.invariants = invariants
        self.of: dict[str, Lease] = {}

    def sent(self, node: str, message: m.Message) -> None:
        """An agent sent a frame."""
        lease = self.of.setdefault(node, Lease())
        match message:
            case m.Join():
                lease.asked = {0: self.world.now}
            case m.Heartbeat():
                lease.asked[message.beat] = self.world.now
            case _:
                pass

    def received(self, machine: Machine, message: m.Message) -> None:
        """An agent received a frame."""
        lease = self.of.setdefault(machine.name, Lease())
        match message:
            case m.Joined():
                lease.lease_s = message.lease_s
                lease.until = lease.asked[0] + lease.lease_s / machine.clock.rate
            case m.HeartbeatAck() if message.beat in lease.asked:
                end = lease.asked[message.beat] + lease.lease_s / machine.clock.rate
                lease.until = max(lease.until or 0.0, end)
            case _:
                return
        if lease.until is not None:
            self.world.at(lease.until + GRACE_S + SLACK_S, self._over, machine, lease.until)

    def spawning(self, host: str, who: Identity) -> None:
        """A task starts only while its node holds a lease."""
        if who.kind is Kind.TASK:
            until = self.of[host].until
            held = until is not None and self.world.now <= until + SLACK_S
            require(held, "lease", f"{who.task} starts on {host}, whose lease ended at {until}", who.job)

    def expired(self, node: str, job: str) -> None:
        """The coordinator gives up what a silent node holds: only when the node has given it up too."""
        until = self.of.setdefault(node, Lease()).until
        over = until is None or until <= self.world.now
        require(over, "lease", f"{job}'s tasks on {node} are given up, its lease goes on until {until}", job)

    def _over(self, machine: Machine, end: float) -> None:
        """A lease that was not renewed is over: no task that a keeper minds is alive."""
        if self.of[machine.name].until != end:
            return
        for tree in machine.processes.trees:
            keeper = machine.keepers.get(tree.keeper)
            minded = keeper is not None and keeper.alive and not keeper.stopped
            if (
                tree.who.kind is Kind.TASK
                and minded
                and not tree.stuck
                and not self.invariants.excused(machine.name, tree.spawned_at)
            ):
                require(False, "lease", f"{tree} lives after its lease", tree.who.job)
