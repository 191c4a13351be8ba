"""What goes wrong: faults drawn by chance, each with its end, all of them over when the calm begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from agentd import events as agent_events
from tests.simulator.coordinator import HOST
from tests.simulator.disk import Disk
from tests.simulator.machine import Machine

if TYPE_CHECKING:
    from tests.simulator.simulation import Simulation


class Faults:
    """Everything that can be done to a simulation, by name; `plague` does it at random."""

    def __init__(self, simulation: Simulation) -> None:
        self.sim = simulation
        self.world = simulation.world
        self.calm = False

    # ---- at random

    def plague(self, mean_s: float) -> None:
        """A fault now and then until the calm."""
        if mean_s > 0:
            self.world.after(self.world.random.expovariate(1 / mean_s), self._strike, mean_s)

    def _strike(self, mean_s: float) -> None:
        if self.calm:
            return
        rng = self.world.random
        names = list(FAULTS)
        name = rng.choices(names, weights=[FAULTS[name][0] for name in names])[0]
        FAULTS[name][1](self)
        self.plague(mean_s)

    def _node(self) -> Machine:
        return self.world.random.choice(self.sim.machines)

    def _pause(self) -> float:
        """Mostly short, sometimes longer than a lease."""
        lease = self.sim.plan.lost_after_s
        return self.world.random.choice(
            (self.world.between(0.0, 2.0), self.world.between(0.0, lease), self.world.between(lease, 2 * lease + 20))
        )

    def _points(self) -> int | None:
        return self.world.random.choice((None, self.world.random.randint(1, 12)))

    # ---- the coordinator

    def kill_coordinator(self, after_points: int | None = None, down_s: float = 1.0) -> None:
        """kill -9, now or between two of its next effects; started again after `down_s`."""
        daemon = self.sim.coordinator
        self.sim.coordinator_down_s = down_s
        if daemon is None or not daemon.alive:
            return
        self.world.note("fault", f"kill the coordinator {after_points or 'now'}")
        if after_points is None:
            daemon.die("killed")
        else:
            daemon.points_left = after_points

    def stop_coordinator(self, seconds: float) -> None:
        daemon = self.sim.coordinator
        if daemon is not None and daemon.alive and not daemon.stopped:
            self.world.note("fault", f"SIGSTOP the coordinator for {seconds:.1f} s")
            daemon.stop()
            self.world.after(seconds, daemon.resume)

    def reboot_coordinator(self, down_s: float) -> None:
        """Power loss of its machine."""
        self.world.note("fault", "the coordinator's machine loses power")
        self.sim.network.vanish(HOST)
        self.sim.coordinator_clock.reboot()
        self.kill_coordinator(None, down_s)

    def fill_coordinator_disk(self, seconds: float) -> None:
        self.world.note("fault", f"the coordinator's disk is full for {seconds:.1f} s")
        self._fill(self.sim.coordinator_disk, seconds)

    def _fill(self, disk: Disk, seconds: float) -> None:
        """First short of room, then without any, then both are over."""
        disk.short = True
        self.world.after(self.world.between(0.0, seconds), self._full, disk)
        self.world.after(seconds, self._emptied, disk)

    def _full(self, disk: Disk) -> None:
        disk.full = disk.short

    def _emptied(self, disk: Disk) -> None:
        disk.full = disk.short = False

    # ---- agents

    def kill_agent(self, machine: Machine, after_points: int | None = None, down_s: float = 1.0) -> None:
        self.sim.agent_down_s[machine.name] = down_s
        if machine.agent is None or not machine.agent.alive:
            return
        self.world.note("fault", f"kill the agent of {machine.name} {after_points or 'now'}")
        if after_points is None:
            machine.kill_agent()
        else:
            machine.agent.points_left = after_points

    def stop_agent(self, machine: Machine, seconds: float) -> None:
        agent = machine.agent
        if agent is not None and agent.alive and not agent.stopped:
            self.world.note("fault", f"SIGSTOP the agent of {machine.name} for {seconds:.1f} s")
            agent.stop()
            self.world.after(seconds, self._continue_agent, machine, agent)

    def _continue_agent(self, machine: Machine, agent: object) -> None:
        if machine.agent is agent and not machine.suspended:
            machine.agent.resume()

    def tell_agent(self, machine: Machine, event: agent_events.Event) -> None:
        """SIGTERM or SIGINT; its supervisor starts it again later."""
        self.sim.agent_down_s[machine.name] = self._pause()
        if machine.agent is not None and machine.agent.alive:
            self.world.note("fault", f"{type(event).__name__} to the agent of {machine.name}")
            if isinstance(event, agent_events.Interrupted):
                self.sim.truth.leaving[machine.name] = self.world.now
            machine.agent.post(event)

    def fill_disk(self, machine: Machine, seconds: float) -> None:
        self.world.note("fault", f"the disk of {machine.name} is full for {seconds:.1f} s")
        self._fill(machine.disk, seconds)

    # ---- keepers

    def kill_keeper(self, machine: Machine, after_points: int | None = None) -> None:
        alive = [keeper for keeper in machine.keepers.values() if keeper.alive]
        if alive:
            keeper = self.world.random.choice(alive)
            self.world.note("fault", f"kill keeper {keeper.name} of {machine.name} {after_points or 'now'}")
            if after_points is None:
                keeper.die("killed")
            else:
                keeper.points_left = after_points

    def stop_keeper(self, machine: Machine, seconds: float | None) -> None:
        alive = [keeper for keeper in machine.keepers.values() if keeper.alive and not keeper.stopped]
        if alive:
            keeper = self.world.random.choice(alive)
            self.world.note("fault", f"SIGSTOP keeper {keeper.name} of {machine.name} for {seconds} s")
            keeper.stop()
            self.sim.invariants.excuse(machine.name, None)
            if seconds is not None:
                self.world.after(seconds, self._continue_keeper, machine, keeper.name)

    def _continue_keeper(self, machine: Machine, name: str) -> None:
        keeper = machine.keepers.get(name)
        if keeper is not None and keeper.alive and not machine.suspended:
            keeper.resume()
        self.sim.invariants.excuse(machine.name, self.world.now)

    # ---- machines

    def lose_power(self, machine: Machine, down_s: float | None, new_root: bool = False) -> None:
        """`down_s` None: for ever."""
        if not machine.powered:
            return
        machine.lose_power()
        if new_root:
            machine.replace_root(f"root-{machine.name}-{self.world.events}")
        if down_s is None:
            self.sim.gone.add(machine.name)
        else:
            self.world.after(down_s, machine.boot)

    def suspend(self, machine: Machine, seconds: float) -> None:
        machine.suspend()
        self.sim.invariants.excuse(machine.name, None)
        self.world.after(seconds, self._wake, machine)

    def _wake(self, machine: Machine) -> None:
        machine.wake()
        self.sim.invariants.excuse(machine.name, self.world.now)

    def jump_wall(self, machine: Machine | None, seconds: float) -> None:
        clock = self.sim.coordinator_clock if machine is None else machine.clock
        self.world.note("fault", f"wall clock of {machine.name if machine else HOST} jumps {seconds:.0f} s")
        clock.wall_error_s += seconds

    # ---- the network

    def partition(self, machine: Machine, seconds: float, ways: str) -> None:
        source, target = (machine.name, HOST) if ways != "in" else (HOST, machine.name)
        self.sim.network.partition(source, target, both_ways=ways == "both")
        self.world.after(seconds, self.sim.network.heal, machine.name, HOST)

    def cut_session(self) -> None:
        if self.sim.network.connections:
            self.sim.network.break_off(self.world.random.choice(self.sim.network.connections))

    # ---- the calm

    def stop(self) -> None:
        """All that can be repaired is repaired; who is gone for ever stays away."""
        self.world.note("fault", "the calm begins")
        self.calm = True
        sim = self.sim
        sim.network.weather.calm()
        self._emptied(sim.coordinator_disk)
        for machine in sim.machines:
            sim.network.heal(machine.name, HOST)
            self._emptied(machine.disk)
            if machine.name in sim.gone:
                continue
            if machine.suspended:
                self._wake(machine)
            machine.boot()
            for keeper in machine.keepers.values():
                keeper.points_left = None
                if keeper.alive and keeper.stopped:
                    keeper.resume()
            if machine.agent is not None and machine.agent.alive:
                machine.agent.points_left = None
                machine.agent.resume()
            sim.agent_down_s[machine.name] = 1.0
            if machine.agent_wanted:
                machine.start_agent()
        sim.coordinator_down_s = 0.5
        self.world.after(0.5, sim.start_coordinator)
        if sim.coordinator is not None and sim.coordinator.alive:
            sim.coordinator.points_left = None
            sim.coordinator.resume()


Fault = Callable[[Faults], None]


def _two_way(faults: Faults) -> None:
    faults.partition(faults._node(), faults._pause(), "both")


def _one_way(faults: Faults) -> None:
    faults.partition(faults._node(), faults._pause(), faults.world.random.choice(("in", "out")))


def _agent_and_keeper(faults: Faults) -> None:
    machine = faults._node()
    faults.kill_keeper(machine)
    faults.kill_agent(machine, None, faults._pause())


def _power(faults: Faults) -> None:
    faults.lose_power(faults._node(), faults._pause())


def _new_root(faults: Faults) -> None:
    faults.lose_power(faults._node(), faults._pause(), new_root=True)


def _gone(faults: Faults) -> None:
    machine = faults._node()
    if machine is not faults.sim.machines[0]:
        faults.lose_power(machine, None)


def _stop_keeper(faults: Faults) -> None:
    faults.stop_keeper(faults._node(), faults.world.random.choice((None, faults._pause(), faults._pause())))


FAULTS: Final[dict[str, tuple[float, Fault]]] = {
    "kill coordinator": (4, lambda f: f.kill_coordinator(f._points(), f._pause())),
    "stop coordinator": (1, lambda f: f.stop_coordinator(f._pause())),
    "reboot coordinator": (1, lambda f: f.reboot_coordinator(f._pause())),
    "fill coordinator": (1, lambda f: f.fill_coordinator_disk(f._pause())),
    "kill agent": (5, lambda f: f.kill_agent(f._node(), f._points(), f._pause())),
    "stop agent": (1.5, lambda f: f.stop_agent(f._node(), f._pause())),
    "terminate agent": (0.7, lambda f: f.tell_agent(f._node(), agent_events.Terminated())),
    "interrupt agent": (0.7, lambda f: f.tell_agent(f._node(), agent_events.Interrupted())),
    "fill node": (1, lambda f: f.fill_disk(f._node(), f._pause())),
    "kill keeper": (3, lambda f: f.kill_keeper(f._node(), f._points())),
    "stop keeper": (1, _stop_keeper),
    "kill agent and keeper": (1, _agent_and_keeper),
    "power": (2, _power),
    "new root": (0.3, _new_root),
    "gone": (0.4, _gone),
    "suspend": (1, lambda f: f.suspend(f._node(), f._pause())),
    "jump": (1, lambda f: f.jump_wall(f._node(), f.world.between(-4000, 4000))),
    "jump coordinator": (0.5, lambda f: f.jump_wall(None, f.world.between(-4000, 4000))),
    "partition": (4, _two_way),
    "one way": (2.5, _one_way),
    "cut session": (2, lambda f: f.cut_session()),
}
"""By name: how often, against the others, and what."""
