"""Scenarios of many machines, each named after its row of the fault table: a thousand that come at once, peers that do
not read, other releases, and two machines with one key."""

from __future__ import annotations

import pytest

from coordinator.records import NodeJobState, Returned, TasksReturned
from coordinator.records import decode as decode_row
from tests.simulator.chatter import mangled
from tests.simulator.coordinator import HOST
from tests.simulator.machine import Machine
from tests.simulator.network import Connection
from tests.simulator.scenario import Scenario, job_block
from tests.simulator.society import HOME
from tests.simulator.workload import Character, Kind
from wire import limits
from wire import messages as m
from wire.codec import encode_message, frame
from wire.connection import Connection as Rules
from wire.messages import PROTOCOL_VERSION, Goodbye, Hello, Message, Role, Welcome

LONG = Character(duration_s=(60.0, 60.0))
LONGER = Character(duration_s=(90.0, 90.0))
SHORT = Character(duration_s=(0.2, 0.2))
CROWD = 1_000
EVENTS_EACH = 60
"""Events of the simulated world for one agent to come back and go on for a while, about."""


# ---- F20, F13 to F15 with certificates


def test_f20_a_stopped_coordinator_gives_nobody_up_among_strangers_either() -> None:
    scenario = Scenario(job_block(tasks=2, task=LONG), nodes=2, lost_after_s=40.0, strangers=True, submit_at=8.0)
    scenario.until(lambda: len(scenario.alive(Kind.TASK)) == 2)
    scenario.faults.stop_coordinator(35.0)
    scenario.settle()
    assert scenario.attempts("g-1") == scenario.attempts("g-2") == [1]
    assert not scenario.sim.alarms


def test_f20_a_certificate_that_ended_while_the_coordinator_was_stopped_does_nothing_more() -> None:
    """What waits in its inbox is read before anything expires, but not taken from those who are nobody by then."""
    scenario = Scenario(nodes=0, strangers=True, submit_at=8.0)
    wallet = scenario.sim.strangers.wallets["alice"]
    scenario.until(lambda: wallet.certificate is not None)
    caller = Caller(scenario, wallet.certificate)
    scenario.until(lambda: caller.welcomed)
    assert wallet.certificate is not None
    left = wallet.certificate.until - scenario.sim.coordinator_clock.wall()
    scenario.pass_time(left - 5.0)
    scenario.faults.stop_coordinator(20.0)
    scenario.pass_time(10.0)
    caller.say(m.JobList(request=1))
    scenario.pass_time(15.0)
    assert not any(isinstance(heard, m.Reply) for heard in caller.heard)
    assert caller.over


@pytest.mark.parametrize("seconds", [30.0, 300.0], ids=["f13-shorter", "f14-longer"])
def test_f13_f14_partitions_among_strangers(seconds: float) -> None:
    scenario = Scenario(job_block(task=LONGER), nodes=2, lost_after_s=40.0, strangers=True, submit_at=8.0)
    scenario.until(lambda: scenario.alive(Kind.TASK))
    scenario.faults.partition(scenario.machine(scenario.alive(Kind.TASK)[0].who.node), seconds, "both")
    scenario.pass_time(seconds)
    scenario.settle()
    assert scenario.attempts() == ([1] if seconds < 40.0 else [1, 2])
    assert scenario.verdicts() == {"g-1": "succeeded"}
    assert not scenario.sim.alarms


# ---- F32


def test_f32_a_thousand_agents_come_back_at_once_and_no_lease_is_lost() -> None:
    scenario = Scenario(
        job_block(tasks=CROWD, task=LONG, prep=None, release=None), nodes=CROWD, lost_after_s=15.0, submit_at=5.0
    )
    sim = scenario.sim
    sim.judge_every = sim.compare_every = CROWD  # each look is as long as there are nodes
    scenario.until(lambda: sim.world.events % 500 == 0 and len(sim.truth.attempts) == CROWD, within_s=30.0)
    sim.faults.kill_coordinator(None, down_s=2.0)
    scenario.until(lambda: sim.coordinator is not None and sim.coordinator.alive)
    before, began = sim.world.events, sim.world.now
    scenario.until(lambda: sim.world.events % 500 == 0 and all(_has_joined(x) for x in sim.machines), within_s=10.0)
    assert sim.world.now - began < 5.0, "all of them are back within seconds"
    assert sim.world.events - before < CROWD * EVENTS_EACH
    scenario.pass_time(8.0)
    records = [decode_row(body) for _, body in sim.coordinator_disk.log("coordinator").rows]
    assert not [r for r in records if isinstance(r, TasksReturned) and r.cause is Returned.EXPIRED]
    assert all(sorted(attempts) == [1] for attempts in sim.truth.attempts.values())


def _has_joined(machine: Machine) -> bool:
    return machine.agent is not None and machine.agent.core.joined


# ---- F33


class Caller:
    """Somebody who holds a connection and does with it what the test says."""

    def __init__(self, scenario: Scenario, shown: object = HOME, role: Role = Role.USER, version: int = 0) -> None:
        self.rules = Rules(role)
        self.version = version or PROTOCOL_VERSION
        self.role = role
        self.heard: list[Message] = []
        self.over = False
        self.connection: Connection | None = None
        scenario.sim.network.dial("somewhere", HOST, self._dialled, shown)  # type: ignore[arg-type]

    @property
    def welcomed(self) -> bool:
        return any(isinstance(heard, Welcome) for heard in self.heard)

    def _dialled(self, connection: Connection | None) -> None:
        assert connection is not None
        connection.ends[0], self.connection = self, connection
        connection.send(0, self.rules.send(Hello(self.version, self.role)))

    def say(self, message: Message) -> None:
        assert self.connection is not None
        self.connection.send(0, self.rules.send(message))  # type: ignore[arg-type]

    def received(self, data: bytes) -> None:
        self.rules.receive_bytes(data)
        while (message := self.rules.next_event()) is not None:
            self.heard.append(message)
            self.over = self.over or isinstance(message, Goodbye)

    def ended(self) -> None:
        self.over = True


def test_f33_who_does_not_read_is_cut_with_a_bounded_queue_and_nobody_else_notices() -> None:
    scenario = Scenario(job_block(tasks=400, task=SHORT, prep=None), nodes=2, slots=4, submit_at=3.0)
    slow = Caller(scenario, role=Role.ADMIN)
    scenario.until(lambda: slow.welcomed and scenario.jobs() and scenario.job.final)
    assert slow.connection is not None
    slow.connection.reads[0] = False
    largest = request = 0
    assert scenario.sim.coordinator is not None
    sessions = scenario.sim.coordinator.sessions
    epoch = slow.rules.epoch
    while epoch in sessions and request < 200_000:
        request += 1
        slow.say(m.TaskList(request=request, job="j-1", limit=10_000))
        if request % 20 == 0:
            scenario.pass_time(0.05)
            largest = max(largest, sessions[epoch].outbox.size if epoch in sessions else 0)
    assert epoch not in sessions, "it is cut"
    assert limits.MAX_QUEUED_REPLIES / 2 < largest <= limits.MAX_QUEUED_REPLIES
    assert not scenario.sim.coordinator.core.waiters
    scenario.settle()
    assert set(scenario.verdicts().values()) == {"succeeded"}
    assert all(sorted(attempts) == [1] for attempts in scenario.sim.truth.attempts.values())


def test_f33_what_waited_for_a_slow_reader_comes_in_order_once_it_reads() -> None:
    scenario = Scenario(nodes=0)
    slow = Caller(scenario, role=Role.ADMIN)
    scenario.until(lambda: slow.welcomed)
    assert slow.connection is not None
    slow.connection.reads[0] = False
    for request in range(1, 30):
        slow.say(m.PoolList(request=request))
    scenario.pass_time(3.0)
    assert len(slow.heard) == 1
    slow.connection.reads[0] = True
    slow.say(m.PoolList(request=30))
    scenario.until(lambda: len(slow.heard) == 31)
    assert [heard.request for heard in slow.heard[1:] if isinstance(heard, m.Reply)] == list(range(1, 31))


# ---- F34


@pytest.mark.parametrize("role", [Role.NODE, Role.ADMIN])
def test_f34_who_speaks_another_version_is_refused_with_both_versions_named(role: Role) -> None:
    scenario = Scenario(job_block(task=SHORT))
    scenario.until(lambda: scenario.jobs())
    stranger = Caller(scenario, role=role, version=PROTOCOL_VERSION + 1)
    scenario.until(lambda: stranger.over)
    (farewell,) = stranger.heard
    assert isinstance(farewell, Goodbye)
    assert f"version {PROTOCOL_VERSION + 1}" in farewell.reason
    assert f"version {PROTOCOL_VERSION}" in farewell.reason
    assert "install the same release" in farewell.reason
    scenario.settle()
    assert scenario.verdicts() == {"g-1": "succeeded"}


def test_f34_a_message_of_a_later_release_is_refused_and_never_misread() -> None:
    scenario = Scenario(job_block(task=SHORT))
    scenario.until(lambda: scenario.jobs())
    rows = len(scenario.sim.coordinator_disk.log("coordinator").rows)
    for later in ({"kind": "JobForecast", "request": 1}, {"kind": "JobShow", "request": 1, "job": "j-1", "deep": True}):
        caller = Caller(scenario, role=Role.ADMIN)
        scenario.until(lambda caller=caller: caller.welcomed)
        assert caller.connection is not None
        payload = encode_message(later)  # type: ignore[arg-type]
        caller.connection.send(0, frame(caller.rules.epoch, 1, payload))
        scenario.until(lambda caller=caller: caller.over)
        assert not any(isinstance(heard, m.Reply) for heard in caller.heard)
    del rows
    scenario.settle()
    assert scenario.verdicts() == {"g-1": "succeeded"}


def test_f34_frames_that_are_torn_or_made_up_end_their_own_connection_only() -> None:
    scenario = Scenario(job_block(tasks=4, task=SHORT), nodes=2)
    for number in range(60):
        caller = Caller(scenario, role=Role.ADMIN)
        scenario.until(lambda caller=caller: caller.welcomed or caller.over)
        assert caller.connection is not None
        good = caller.rules.send(m.JobTerminate(number + 1, "nothing-1"))
        caller.connection.send(0, mangled(scenario.world.random, good))
        scenario.pass_time(0.1)
        caller.connection.close(0)
    scenario.settle()
    assert set(scenario.verdicts().values()) == {"succeeded"}


# ---- F36


def _with_a_copy(**options: object) -> tuple[Scenario, Machine, Machine]:
    """A task runs on a node, and another machine comes up with a copy of its disk, key and all."""
    plan = {"strangers": True, "submit_at": 8.0, **options}
    scenario = Scenario(job_block(task=LONG), **plan)  # type: ignore[arg-type]
    scenario.until(lambda: scenario.alive(Kind.TASK))
    first = scenario.node
    return scenario, first, scenario.sim.copy(first)


def _is_in(scenario: Scenario, machine: Machine) -> bool:
    return machine.agent is not None and machine.agent.alive and machine.agent.core.joined


def test_f36_a_copied_node_shuts_out_the_first_with_an_alarm_and_no_task_runs_twice_at_once() -> None:
    scenario, first, twin = _with_a_copy()
    (running,) = scenario.alive(Kind.TASK)
    twin.start_agent()
    scenario.until(lambda: not running.alive)
    assert not scenario.sim.truth.live[twin.name], "the copy starts nothing before the first has stopped"
    scenario.until(lambda: _is_in(scenario, twin), within_s=200.0)
    assert first.agent is not None
    assert not first.agent.alive
    (alarm,) = scenario.sim.alarms
    assert "another machine came with its key" in alarm
    scenario.settle()
    assert scenario.attempts() == [1, 2]
    assert scenario.verdicts() == {"g-1": "succeeded"}
    second = scenario.started(Kind.TASK)[1]
    assert second.host == twin.name
    assert running.ended_at is not None
    assert second.spawned_at > running.ended_at


def test_f36_the_first_that_missed_everything_is_refused_when_it_is_back() -> None:
    scenario, first, twin = _with_a_copy()
    scenario.faults.partition(first, 120.0, "both")
    scenario.until(lambda: not scenario.alive(Kind.TASK))
    scenario.pass_time(30.0)
    twin.start_agent()
    scenario.until(lambda: _is_in(scenario, twin))
    scenario.until(lambda: scenario.sim.alarms, within_s=500.0)
    assert "an agent that was superseded came back" in scenario.sim.alarms[0]
    scenario.until(lambda: first.agent is not None and not first.agent.alive)
    scenario.settle()
    assert _is_in(scenario, twin)
    assert scenario.verdicts() == {"g-1": "succeeded"}


def test_f36_a_coordinator_that_restarts_in_the_middle_still_runs_nothing_twice() -> None:
    for seed in range(12):
        scenario, _, twin = _with_a_copy(seed=seed)
        twin.start_agent()
        scenario.pass_time(0.3 * seed)
        scenario.faults.kill_coordinator(None, down_s=1.0)
        scenario.settle()
        assert scenario.verdicts() == {"g-1": "succeeded"}


def test_f36_two_copies_that_are_started_again_and_again_run_nothing_twice_and_end_when_one_is_gone() -> None:
    scenario, first, twin = _with_a_copy()
    for _ in range(4):
        for machine in (twin, first):
            machine.supervise()
            scenario.pass_time(25.0)
    assert len(scenario.sim.alarms) >= 1
    first.lose_power()
    scenario.sim.copied[first.node] = {first.name}
    twin.supervise()
    scenario.settle()
    assert scenario.verdicts() == {"g-1": "succeeded"}
    states = {found.state for found in scenario.rounds() if not found.voided}
    assert states <= {NodeJobState.RELEASED, NodeJobState.UNREACHED}
