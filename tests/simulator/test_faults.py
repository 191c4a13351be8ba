"""One scripted scenario a row of the fault table: the fault at its moment, and what the row requires."""

from __future__ import annotations

import pytest

from agentd import events as agent_events
from coordinator.model import NodeState
from coordinator.records import NodeJobState
from tests.simulator.network import Weather
from tests.simulator.scenario import Scenario, job_block
from tests.simulator.workload import Character, Kind

LONG = Character(duration_s=(60.0, 60.0))
SHORT = Character(duration_s=(0.2, 0.2))
FAILS = Character(duration_s=(0.2, 0.2), fail=1.0)
HANGS = Character(hang=1.0)
ALL_WELL = {"g-1": "succeeded"}
JUMPS = (-100_000.0, 100_000.0)


# ---- the coordinator


def test_f1_killed_before_the_commit_nothing_was_acknowledged_and_the_retry_makes_one_job() -> None:
    scenario = Scenario(job_block(), nodes=0)
    assert scenario.sim.coordinator is not None
    scenario.sim.coordinator.points_left = 1
    scenario.until(lambda: not scenario.sim.coordinator.alive)
    assert scenario.jobs() == []
    assert scenario.sim.people.told == {}
    scenario.until(lambda: scenario.sim.people.told)
    assert scenario.jobs() == ["j-1"]


def test_f2_killed_after_the_commit_the_retry_gives_the_same_job() -> None:
    scenario = Scenario(job_block(), nodes=0)
    assert scenario.sim.coordinator is not None
    scenario.sim.coordinator.points_left = 2
    scenario.until(lambda: not scenario.sim.coordinator.alive)
    assert scenario.jobs() == ["j-1"]
    assert scenario.sim.people.told == {}
    scenario.until(lambda: scenario.sim.people.told)
    assert scenario.jobs() == ["j-1"]


def test_f3_ten_minutes_without_a_coordinator_and_what_was_granted_ends_well() -> None:
    scenario = Scenario(job_block(tasks=2, task=LONG), nodes=2, lost_after_s=900.0)
    scenario.until(lambda: len(scenario.alive(Kind.TASK)) == 2)
    scenario.faults.kill_coordinator(None, down_s=600.0)
    scenario.until(lambda: not scenario.alive(Kind.TASK))
    assert [tree.main_exit for tree in scenario.started(Kind.TASK)] == [(0, None)] * 2
    scenario.settle()
    assert scenario.attempts("g-1") == scenario.attempts("g-2") == [1]
    assert scenario.verdicts() == {"g-1": "succeeded", "g-2": "succeeded"}


def test_f4_after_a_power_loss_all_that_was_acknowledged_is_there() -> None:
    for points in range(1, 40, 3):
        scenario = Scenario(job_block(tasks=4), nodes=2)
        scenario.until(lambda s=scenario: s.sim.people.told)
        told = dict(scenario.sim.people.told)
        scenario.faults.kill_coordinator(points, down_s=5.0)
        scenario.until(lambda s=scenario: not s.sim.coordinator.alive)
        scenario.faults.reboot_coordinator(5.0)
        scenario.settle()
        assert told
        assert scenario.jobs() == ["j-1"]
        assert set(scenario.verdicts().values()) == {"succeeded"}
        assert len(scenario.verdicts()) == 4


# ---- the agent and its keepers


def test_f7_a_task_outlives_its_agent_and_its_exit_code_counts() -> None:
    scenario = Scenario(job_block(task=LONG))
    scenario.until(lambda: scenario.alive(Kind.TASK))
    scenario.faults.kill_agent(scenario.node, None, down_s=5.0)
    scenario.settle()
    assert scenario.attempts() == [1]
    assert scenario.verdicts() == ALL_WELL
    assert len(scenario.started(Kind.PREPARATION)) == 1


def test_f8_agent_and_keeper_killed_the_attempt_is_lost_and_spends_no_retry() -> None:
    scenario = Scenario(job_block(task=Character(duration_s=(20.0, 20.0), daemon=1.0)))
    scenario.until(lambda: scenario.alive(Kind.TASK))
    (keeper,) = [k for k in scenario.node.keepers.values() if k.alive and scenario.node.processes.children(k.name)]
    keeper.die("killed")
    scenario.faults.kill_agent(scenario.node, None, down_s=3.0)
    (first,) = scenario.started(Kind.TASK)
    scenario.settle()
    assert not first.alive
    assert scenario.attempts() == [1, 2]
    assert scenario.verdicts() == ALL_WELL


def test_f9_a_reboot_in_the_middle_of_a_task_prepares_again() -> None:
    scenario = Scenario(job_block(task=LONG))
    scenario.until(lambda: scenario.alive(Kind.TASK))
    scenario.faults.lose_power(scenario.node, 30.0)
    scenario.settle()
    assert scenario.attempts() == [1, 2]
    assert len(scenario.started(Kind.PREPARATION)) == 2
    assert len(scenario.started(Kind.RELEASE)) == 1
    assert scenario.verdicts() == ALL_WELL


@pytest.mark.parametrize("rerun", [True, False])
def test_f9_a_reboot_prepares_again_only_where_that_is_asked_for(rerun: bool) -> None:
    block = job_block(tasks=2, task=LONG)
    block["preparation"]["rerun_after_reboot"] = rerun
    scenario = Scenario(block)
    scenario.until(lambda: scenario.alive(Kind.TASK))
    scenario.faults.lose_power(scenario.node, 5.0)
    scenario.settle()
    assert len(scenario.started(Kind.PREPARATION)) == (2 if rerun else 1)
    assert len(scenario.started(Kind.RELEASE)) == 1
    assert [found.round for found in scenario.rounds()] == [1]


def test_f9_a_node_with_another_root_prepares_anew_and_its_old_debt_is_unreached() -> None:
    scenario = Scenario(job_block(task=LONG))
    scenario.until(lambda: scenario.alive(Kind.TASK))
    scenario.faults.lose_power(scenario.node, 5.0, new_root=True)
    scenario.settle()
    assert len(scenario.started(Kind.PREPARATION)) == 2
    assert [(found.round, found.state.value) for found in scenario.rounds()] == [(1, "unreached"), (2, "released")]
    assert scenario.verdicts() == ALL_WELL


def test_f10_a_reboot_in_the_middle_of_the_preparation_runs_it_again() -> None:
    scenario = Scenario(job_block(prep=LONG, prep_options={"timeout_ms": 90_000}))
    scenario.until(lambda: scenario.alive(Kind.PREPARATION))
    scenario.faults.lose_power(scenario.node, 30.0)
    scenario.settle()
    assert len(scenario.started(Kind.PREPARATION)) == 2
    assert scenario.verdicts() == ALL_WELL


def test_f11_a_reboot_before_the_release_leaves_it_owed_and_it_is_paid() -> None:
    scenario = Scenario(job_block(release=LONG, release_options={"timeout_ms": 90_000}, release_grace_ms=5_000))
    scenario.until(lambda: scenario.alive(Kind.RELEASE))
    scenario.faults.lose_power(scenario.node, 300.0)
    scenario.until(lambda: scenario.job.completed_at is not None)
    assert [found.state for found in scenario.rounds()] == [NodeJobState.UNREACHED]
    scenario.until(lambda: scenario.node.powered)
    scenario.settle()
    assert [found.state for found in scenario.rounds()] == [NodeJobState.RELEASED]


def test_f11_a_node_that_is_back_within_the_grace_pays_before_the_job_completes() -> None:
    scenario = Scenario(job_block(release=LONG, release_options={"timeout_ms": 90_000}, release_grace_ms=120_000))
    scenario.until(lambda: scenario.alive(Kind.RELEASE))
    scenario.faults.lose_power(scenario.node, 30.0)
    scenario.settle()
    assert not any(found.unreached for found in scenario.rounds())
    assert [found.state for found in scenario.rounds()] == [NodeJobState.RELEASED]


def test_f12_what_a_forgotten_node_had_goes_elsewhere_at_once_and_its_release_is_waived() -> None:
    scenario = Scenario(job_block(tasks=2, task=LONG), nodes=2, lost_after_s=900.0)
    scenario.until(lambda: len(scenario.alive(Kind.TASK)) == 2)
    (lost,) = [tree for tree in scenario.alive(Kind.TASK) if tree.who.node == "n1"]
    scenario.faults.lose_power(scenario.machine("n1"), None)
    scenario.pass_time(30.0)
    assert lost.who.task is not None
    assert scenario.attempts(lost.who.task) == [1]
    scenario.operators.forget(scenario.machine("n1"))
    scenario.settle()
    assert scenario.attempts(lost.who.task) == [1, 2]
    assert sorted(found.state.value for found in scenario.rounds()) == ["released", "waived"]
    assert set(scenario.verdicts().values()) == {"succeeded"}


def test_f12_a_node_that_is_gone_for_ever_does_not_hold_the_job() -> None:
    scenario = Scenario(job_block(tasks=2, task=LONG), nodes=2)
    scenario.until(lambda: len(scenario.alive(Kind.TASK)) == 2)
    scenario.faults.lose_power(scenario.machine("n1"), None)
    scenario.settle()
    assert sorted(found.state.value for found in scenario.rounds()) == ["released", "unreached"]
    assert set(scenario.verdicts().values()) == {"succeeded"}


# ---- the network


def test_f13_a_partition_shorter_than_the_lease_restarts_nothing() -> None:
    scenario = Scenario(job_block(task=LONG), nodes=2, lost_after_s=40.0)
    scenario.until(lambda: scenario.alive(Kind.TASK))
    scenario.faults.partition(scenario.machine(scenario.alive(Kind.TASK)[0].who.node), 30.0, "both")
    scenario.pass_time(30.0)
    scenario.settle()
    assert scenario.attempts() == [1]
    assert scenario.verdicts() == ALL_WELL


def _cut_for_longer_than_a_lease(ways: str, submit_at: float = 1.0) -> Scenario:
    scenario = Scenario(job_block(task=LONG), nodes=2, submit_at=submit_at)
    scenario.until(lambda: scenario.alive(Kind.TASK))
    (first,) = scenario.alive(Kind.TASK)
    scenario.faults.partition(scenario.machine(first.who.node), 300.0, ways)
    scenario.until(lambda: len(scenario.started(Kind.TASK)) == 2)
    second = scenario.started(Kind.TASK)[1]
    assert first.ended_at is not None
    assert first.ended_at < second.spawned_at
    assert second.who.node != first.who.node
    scenario.settle()
    assert scenario.attempts() == [1, 2]
    assert scenario.verdicts() == ALL_WELL
    return scenario


def test_f14_after_a_long_partition_the_node_has_killed_the_task_before_it_starts_elsewhere() -> None:
    _cut_for_longer_than_a_lease("both")


def test_f14_holds_for_a_lease_that_was_declared_after_the_nodes_had_joined() -> None:
    _cut_for_longer_than_a_lease("both", submit_at=20.0)


@pytest.mark.parametrize("ways", ["in", "out"])
def test_f15_a_partition_of_one_direction_is_like_one_of_both(ways: str) -> None:
    _cut_for_longer_than_a_lease(ways)


def test_f16_doubled_and_reordered_frames_change_nothing() -> None:
    weather = Weather(duplication=0.4, reordering=0.05, splitting=0.5)
    scenario = Scenario(job_block(tasks=12, task=SHORT), nodes=2, slots=2, weather=weather)
    scenario.until(lambda: scenario.jobs() and scenario.job.completed_at is not None, within_s=2000.0)
    scenario.settle()
    assert set(scenario.verdicts().values()) == {"succeeded"}


def _cut_when(scenario: Scenario, kind: str) -> None:
    """Reset every connection in the moment after a frame of this kind was sent, so that it or its answer is lost."""
    scenario.until(lambda: any(kind in what and "-> " in what for _, _, what in scenario.last(3)))
    for connection in list(scenario.sim.network.connections):
        scenario.sim.network.break_off(connection)


@pytest.mark.parametrize("frame", ["Run(", "OpenRound(", "Prepare("])
def test_f17_a_lost_order_is_given_again_and_nothing_starts_twice(frame: str) -> None:
    scenario = Scenario(job_block(task=SHORT))
    _cut_when(scenario, frame)
    scenario.settle()
    assert len(scenario.started(Kind.TASK)) == 1
    assert len(scenario.started(Kind.PREPARATION)) == 1
    assert scenario.verdicts() == ALL_WELL


def test_f17_a_lost_join_is_said_again() -> None:
    scenario = Scenario(job_block(task=SHORT))
    scenario.until(lambda: scenario.node.agent is not None and scenario.node.agent.hears(agent_events.Connected))
    scenario.sim.network.weather.loss = 1.0
    scenario.until(lambda: any("-> Join(" in what for _, _, what in scenario.world.lines))
    scenario.sim.network.weather.loss = 0.0
    scenario.until(lambda: scenario.verdicts() == ALL_WELL)
    scenario.settle()


def test_f18_a_lost_result_is_sent_again_and_counts_once() -> None:
    scenario = Scenario(job_block(task=SHORT))
    _cut_when(scenario, "Report(")
    scenario.settle()
    assert scenario.attempts() == [1]
    assert scenario.verdicts() == ALL_WELL


def test_f19_an_agent_stopped_for_longer_than_its_lease_finds_its_task_dead() -> None:
    scenario = Scenario(job_block(task=LONG), nodes=2)
    scenario.until(lambda: scenario.alive(Kind.TASK))
    (first,) = scenario.alive(Kind.TASK)
    scenario.faults.stop_agent(scenario.machine(first.who.node), 120.0)
    scenario.until(lambda: len(scenario.started(Kind.TASK)) == 2)
    assert first.ended_at is not None
    scenario.settle()
    assert scenario.attempts() == [1, 2]
    assert scenario.verdicts() == ALL_WELL


def test_f20_a_stopped_coordinator_reads_its_inbox_before_it_gives_anybody_up() -> None:
    scenario = Scenario(job_block(tasks=2, task=LONG), nodes=2, lost_after_s=40.0)
    scenario.until(lambda: len(scenario.alive(Kind.TASK)) == 2)
    scenario.faults.stop_coordinator(35.0)
    scenario.settle()
    assert scenario.attempts("g-1") == scenario.attempts("g-2") == [1]


@pytest.mark.parametrize("seconds", JUMPS)
def test_f21_wall_clocks_may_jump(seconds: float) -> None:
    scenario = Scenario(job_block(task=LONG, task_options={"timeout_ms": 90_000}))
    scenario.until(lambda: scenario.alive(Kind.TASK))
    scenario.faults.jump_wall(scenario.node, seconds)
    scenario.faults.jump_wall(None, -seconds)
    scenario.settle()
    assert scenario.attempts() == [1]
    assert scenario.verdicts() == ALL_WELL


def jump_all(scenario: Scenario, seconds: float) -> None:
    """Everybody's wall clock jumps, and the daemons forget what they had in memory."""
    for machine in (*scenario.sim.machines, None):
        scenario.faults.jump_wall(machine, seconds)
    scenario.faults.kill_coordinator()
    scenario.faults.kill_agent(scenario.node)


@pytest.mark.parametrize("seconds", JUMPS)
def test_f21_leases_and_timeouts_end_when_they_would_have_ended(seconds: float) -> None:
    scenario = Scenario(job_block(task=HANGS, task_options={"timeout_ms": 40_000}), lost_after_s=30.0)
    scenario.until(lambda: scenario.alive(Kind.TASK))
    jump_all(scenario, seconds)
    scenario.settle()
    (tree,) = scenario.started(Kind.TASK)
    assert tree.ended_at is not None
    assert 40.0 <= tree.ended_at - tree.spawned_at < 60.0
    scenario = Scenario(job_block(task=LONG), nodes=2, lost_after_s=20.0)
    scenario.until(lambda: scenario.alive(Kind.TASK))
    (first,) = scenario.alive(Kind.TASK)
    scenario.faults.partition(scenario.machine(first.who.node), 200.0, "both")
    began = scenario.world.now
    jump_all(scenario, seconds)
    scenario.until(lambda: len(scenario.started(Kind.TASK)) == 2)
    assert 15.0 < scenario.world.now - began < 60.0


@pytest.mark.parametrize(
    ("kind", "block"), [(Kind.TASK, "task"), (Kind.PREPARATION, "prep"), (Kind.RELEASE, "release")]
)
def test_f21_a_backoff_lasts_as_long_as_it_would_have(kind: Kind, block: str) -> None:
    def waited_s(seconds: float) -> float:
        once = Character(duration_s=(0.2, 0.2), fail_first=1)
        options = {"retries": 1, "backoff": {"first_ms": 30_000, "cap_ms": 30_000}}
        scenario = Scenario(job_block(**{block: once, f"{block}_options": options}))
        scenario.until(lambda: scenario.started(kind) and not scenario.alive(kind))
        scenario.pass_time(2.0)
        jump_all(scenario, seconds)
        scenario.settle()
        first, second = scenario.started(kind)
        assert first.ended_at is not None
        return second.spawned_at - first.ended_at

    usual = waited_s(0.0)
    assert usual > 5.0
    assert [waited_s(seconds) for seconds in JUMPS] == [pytest.approx(usual, abs=2.0)] * 2


@pytest.mark.parametrize("seconds", JUMPS)
def test_f21_a_job_is_over_when_its_own_timeout_says_so(seconds: float) -> None:
    scenario = Scenario(job_block(task=HANGS, timeout_ms=60_000))
    scenario.until(lambda: scenario.alive(Kind.TASK))
    jump_all(scenario, seconds)
    scenario.until(lambda: scenario.job.ending_at is not None)
    assert 60.0 <= scenario.world.now - scenario.job.submitted_at < 70.0


@pytest.mark.parametrize("seconds", JUMPS)
def test_f21_a_drain_drops_what_runs_at_its_deadline(seconds: float) -> None:
    scenario = Scenario(job_block(task=LONG), nodes=1)
    scenario.until(lambda: scenario.alive(Kind.TASK))
    (tree,) = scenario.alive(Kind.TASK)
    began = scenario.world.now
    scenario.operators.drain("n0", 30.0)
    scenario.until(lambda: scenario.sim.truth.drained)
    jump_all(scenario, seconds)
    scenario.until(lambda: tree.ended_at is not None)
    assert 30.0 <= scenario.world.now - began < 50.0


@pytest.mark.parametrize("seconds", JUMPS)
def test_f21_a_call_for_the_end_of_a_job_is_made_again_when_it_would_have_been(seconds: float) -> None:
    scenario = Scenario(job_block(name="jj", on_end=["tell", ["run", "job.id"]]))
    scenario.until(lambda: scenario.said("disk", "EndCalled"))
    assert scenario.sim.stream.owed, "the first attempt fails"
    began = scenario.world.now
    jump_all(scenario, seconds)
    scenario.until(lambda: not scenario.sim.stream.owed)
    assert 4.0 < scenario.world.now - began < 20.0


# ---- preparation


def test_f22_a_failed_preparation_bars_its_node_for_this_job_only() -> None:
    bad = Character(duration_s=(0.2, 0.2), bad_nodes=("n0",))
    blocks = (
        job_block(name="picky", tasks=4, task=SHORT, prep=bad, prep_options={"retries": 2}),
        job_block(name="easy", tasks=20, task=SHORT),
    )
    scenario = Scenario(*blocks, nodes=2)
    scenario.until(lambda: scenario.jobs())
    scenario.settle()
    tries = [tree for tree in scenario.started(Kind.PREPARATION, "n0") if tree.who.job == "picky-1"]
    assert len(tries) in (0, 3)
    tasks = [(tree.who.job, tree.who.node) for tree in scenario.started(Kind.TASK)]
    assert ("picky-1", "n0") not in tasks
    assert ("easy-1", "n0") in tasks
    assert all(set(job.final.values()) == {next(iter(job.final.values()))} for job in scenario.sim.truth.jobs.values())


def test_f23_a_preparation_that_hangs_is_killed_and_counts_as_a_try() -> None:
    options = {"timeout_ms": 3_000, "retries": 1, "stop_grace_ms": 1_000}
    scenario = Scenario(job_block(prep=HANGS, prep_options=options))
    scenario.settle()
    tries = scenario.started(Kind.PREPARATION)
    assert len(tries) == 2
    assert all(tree.ended_at is not None and tree.ended_at - tree.spawned_at < 5.0 for tree in tries)
    assert scenario.job.reason == "NoEligibleNodes"


def test_f24_a_preparation_that_fails_everywhere_ends_the_job_with_the_reason() -> None:
    scenario = Scenario(job_block(prep=FAILS), nodes=2)
    scenario.settle()
    assert scenario.job.reason == "NoEligibleNodes"
    assert scenario.started(Kind.TASK) == []
    assert len(scenario.started(Kind.RELEASE)) == len(scenario.rounds())


def test_f24_a_node_that_died_while_it_joined_is_no_hope() -> None:
    bad = Character(duration_s=(5.0, 5.0), fail=1.0)
    scenario = Scenario(job_block(prep=bad), nodes=2)
    scenario.until(lambda: scenario.alive(Kind.PREPARATION))
    other = scenario.machine("n1" if scenario.alive(Kind.PREPARATION)[0].who.node == "n0" else "n0")
    scenario.faults.kill_agent(other, None, down_s=1.0)
    scenario.until(lambda: any(where == other.name and "-> Join(" in what for _, where, what in scenario.last(2)))
    scenario.faults.lose_power(other, None)
    scenario.settle()
    assert scenario.job.reason == "NoEligibleNodes"


def test_f25_terminated_during_the_preparation_it_is_killed_and_released() -> None:
    scenario = Scenario(job_block(prep=HANGS, prep_options={"timeout_ms": None, "stop_grace_ms": 1_000}))
    scenario.until(lambda: scenario.alive(Kind.PREPARATION))
    scenario.sim.people.terminate("j-1")
    scenario.settle()
    assert [tree.succeeded for tree in scenario.started(Kind.PREPARATION)] == [False]
    assert [tree.succeeded for tree in scenario.started(Kind.RELEASE)] == [True]
    assert scenario.started(Kind.TASK) == []


def test_a_job_that_ended_before_anything_of_it_began_releases_nowhere() -> None:
    scenario = Scenario(job_block(prep=None))
    scenario.until(lambda: scenario.rounds())
    scenario.faults.stop_agent(scenario.node, 5.0)
    scenario.sim.people.terminate("j-1")
    scenario.until(lambda: scenario.job.ending_at is not None)
    scenario.settle()
    assert scenario.started(Kind.TASK) == scenario.started(Kind.RELEASE) == []
    assert [found.voided for found in scenario.rounds()] == [True]


# ---- release


def test_f26_terminated_during_the_release_it_goes_on_and_starts_once() -> None:
    scenario = Scenario(job_block(task=SHORT, release=Character(duration_s=(10.0, 10.0))))
    scenario.until(lambda: scenario.alive(Kind.RELEASE))
    scenario.sim.people.terminate("j-1")
    scenario.pass_time(1.0)
    scenario.sim.people.terminate("j-1")
    scenario.settle()
    assert [tree.succeeded for tree in scenario.started(Kind.RELEASE)] == [True]


def test_f27_deleted_after_it_was_terminated_it_is_released_once() -> None:
    scenario = Scenario(job_block(task=LONG))
    scenario.until(lambda: scenario.alive(Kind.TASK))
    scenario.sim.people.terminate("j-1")
    scenario.until(lambda: scenario.job.completed_at is not None)
    scenario.sim.people.delete("j-1")
    scenario.settle()
    assert scenario.job.deleted_at is not None
    assert [tree.succeeded for tree in scenario.started(Kind.RELEASE)] == [True]


@pytest.mark.parametrize("release", [FAILS, HANGS], ids=["fails", "hangs"])
def test_f28_a_release_that_fails_or_hangs_is_bounded_and_recorded_and_the_directories_go(release: Character) -> None:
    options = {"retries": 1, "timeout_ms": 2_000, "stop_grace_ms": 1_000}
    scenario = Scenario(job_block(task=SHORT, release=release, release_options=options))
    scenario.settle()
    assert len(scenario.started(Kind.RELEASE)) == 2
    assert [found.state for found in scenario.rounds()] == [NodeJobState.RELEASE_FAILED]
    assert scenario.job.completed_at is not None
    assert scenario.node.disk.directories == {}


def test_a_node_that_returns_after_the_job_was_deleted_pays_its_debt() -> None:
    scenario = Scenario(job_block(tasks=2, task=LONG, release_grace_ms=2_000), nodes=2)
    scenario.until(lambda: len(scenario.alive(Kind.TASK)) == 2)
    scenario.faults.lose_power(scenario.machine("n1"), 400.0)
    scenario.sim.people.delete("j-1")
    scenario.until(lambda: scenario.job.deleted_at is not None)
    assert scenario.started(Kind.RELEASE, "n1") == []
    scenario.until(lambda: scenario.machine("n1").powered, within_s=500.0)
    scenario.settle()
    assert [tree.succeeded for tree in scenario.started(Kind.RELEASE, "n1")] == [True]


# ---- a process that can't be killed


def test_f30_a_node_with_a_process_that_can_not_be_killed_takes_no_task_and_pays_when_it_is_over() -> None:
    block = job_block(name="stuck", task=HANGS, task_options={"timeout_ms": 3_000}, release_grace_ms=30_000)
    scenario = Scenario(block, nodes=2)
    scenario.until(lambda: scenario.alive(Kind.TASK))
    (held,) = scenario.alive(Kind.TASK)
    machine = scenario.machine(held.who.node)
    machine.processes.stick(held)
    assert scenario.sim.coordinator is not None
    nodes = scenario.sim.coordinator.core.cluster.nodes
    scenario.until(lambda: nodes[machine.name].state is NodeState.UNUSABLE)
    scenario.sim.people.terminate("stuck-1")
    scenario.until(lambda: scenario.job.completed_at is not None)
    assert [found.state for found in scenario.rounds()] == [NodeJobState.UNREACHED]
    assert held.alive
    assert scenario.started(Kind.RELEASE) == []
    machine.processes.unstick(held)
    scenario.settle()
    assert [tree.succeeded for tree in scenario.started(Kind.RELEASE)] == [True]
    assert [found.state for found in scenario.rounds()] == [NodeJobState.RELEASED]
    assert nodes[machine.name].state is NodeState.IDLE
