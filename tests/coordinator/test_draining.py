"""Nodes are emptied, taken back, forgotten and tried again: nothing runs where it may not, and every debt is paid."""

from __future__ import annotations

import pytest

from coordinator.records import JobCompleted, NodeMark, NodeMarked, Returned, TasksReturned, Verdict
from tests.coordinator.playbook import FakeNode, Play, command, document, job, prep, release, tasks
from wire import messages as m


def working(size: int = 6, **options: object) -> tuple[Play, str, FakeNode, FakeNode]:
    """Two nodes with one slot work for a job."""
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=size), preparation=prep(), release=release(), **options))
    n1.prepared(name)
    n2.prepared(name)
    return play, name, n1, n2


def drain(play: Play, node: str = "n1", deadline_s: float = 60.0, **more: object) -> dict[str, object]:
    body: dict[str, object] = play.admin.ask(m.NodeDrain, node=node, deadline_s=deadline_s, **more)
    return body


# ---- drain


def test_a_drained_node_finishes_what_runs_releases_and_gets_nothing_more() -> None:
    play, name, n1, n2 = working()
    assert drain(play, reason="new kernel")["state"] == "draining"
    assert n1.heard(m.ReleaseRound) == []
    n1.end(name)
    assert n1.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "NodeDrained")]
    assert play.node_state("n1") == "draining"
    n1.released(name)
    shown = play.admin.ask(m.NodeShow, "n1")
    assert (shown["state"], shown["reason"]) == ("drained", "drained by uid:1000: new kernel")
    assert [mark.mark for mark in play.kept_of(NodeMarked)] == [NodeMark.DRAIN, NodeMark.DRAINED]
    play.run_out(name)
    assert play.rounds(name) == [("n1", 1, "released"), ("n2", 1, "released")]
    assert play.show(name)["result"] == "success"
    play.submit(job("next"))
    assert {run.job for run in n1.heard(m.Run)} == {name}


def test_a_node_without_debts_is_drained_at_once() -> None:
    play = Play()
    play.node("n1")
    assert drain(play)["state"] == "drained"


def test_what_has_not_started_is_recalled_when_a_drain_begins() -> None:
    play = Play()
    n1 = play.node("n1", slots=3)
    name = play.submit(job("j", tasks(size=3), preparation=prep(), release=release()))
    drain(play)
    [grant] = {grant for grant, _ in n1.running()}
    assert n1.heard(m.Recall) == [m.Recall(grant)]
    n1.give_back()
    assert n1.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "NodeDrained")], "its preparation is stopped by it"
    n1.released(name)
    assert play.node_state("n1") == "drained"
    assert play.show(name)["tasks"]["active"] == 3
    assert play.task(f"{name}/t[0]")["attempts"] == 0


def test_what_runs_at_the_deadline_goes_elsewhere_and_spends_no_retry() -> None:
    play, name, n1, n2 = working(size=2)
    [index] = n1.labels(name)
    n2.end(name)
    drain(play, deadline_s=30.0)
    play.wait(29)
    assert n1.heard(m.ReleaseRound) == []
    play.wait(2)
    assert n1.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "NodeDrained")]
    n1.released(name)
    task = play.task(f"{name}/t[{index}]")
    assert [entry["verdict"] for entry in task["history"]] == [Verdict.DRAINED.value]
    assert play.core.cluster.jobs[name].groups[0].failures == {}
    assert (name, 0, index, 2) not in n1.spawned
    play.run_out(name)
    assert (name, 0, index, 2) in n2.spawned
    assert play.show(name)["result"] == "success"


def test_a_deadline_of_nothing_stops_at_once() -> None:
    play, name, n1, n2 = working()
    drain(play, deadline_s=0.0)
    assert n1.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "NodeDrained")]


def test_releases_of_drained_nodes_take_turns_as_the_job_says_and_their_time_is_over_all_the_same() -> None:
    play = Play()
    n1, n2, n3 = nodes = [play.node(name) for name in ("n1", "n2", "n3")]
    name = play.submit(job("j", tasks(size=6), preparation=prep(), release=release(parallel=1)))
    for node in nodes:
        node.prepared(name)
    drain(play, "n1", deadline_s=0.0)
    drain(play, "n2", deadline_s=0.0)
    assert (len(n1.heard(m.ReleaseRound)), n2.heard(m.ReleaseRound)) == (1, [])
    [stopped] = n2.heard(m.StopTasks)
    assert stopped.reason == "its node is drained"
    n2.obey()
    assert n2.running() == [], "it waits for its turn with nothing running"
    n1.released(name)
    assert n2.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "NodeDrained")]
    n2.released(name)
    assert (play.node_state("n1"), play.node_state("n2")) == ("drained", "drained")
    assert play.core.cluster.jobs[name].groups[0].failures == {}
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_a_release_that_went_out_of_contact_keeps_no_other_drain_waiting() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=6), preparation=prep(), release=release(parallel=1)))
    n1.prepared(name)
    n2.prepared(name)
    drain(play, "n1", deadline_s=0.0)
    drain(play, "n2", deadline_s=0.0)
    assert n2.heard(m.ReleaseRound) == []
    n1.drop()
    assert n2.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "NodeDrained")]


def test_a_release_that_waits_for_a_process_that_can_not_be_killed_keeps_no_other_drain_waiting() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=2), finish="manual", release=release(parallel=1)))
    n1.end(name)
    n2.end(name)
    for node in (n1, n2):
        play.admin.ask(m.NodeDrain, node=node.name, deadline_s=600.0)
    assert [state for _, _, state in play.rounds(name)] == ["releasing", "prepared"]
    n1.say(m.Health("a process can't be killed", [name]))
    n2.released(name)
    assert play.node_state("n2") == "drained"


@pytest.mark.parametrize("ends", [True, False])
def test_a_node_in_its_start_is_drained_when_that_has_ended_or_the_time_is_over(ends: bool) -> None:
    play = Play()
    play.admin.ask(m.Submit, submission="pools", document=document(pools=[{"name": "p", "start": command()}]))
    n1 = play.node("n1")
    request = play.admin.start(m.NodeDrain, node="n1", deadline_s=600.0, wait=True)
    assert (play.node_state("n1"), request in play.admin.answers) == ("draining", False)
    n1.started(ok=False, final=False)
    assert play.node_state("n1") == "draining", "it is tried again"
    n1.started(attempt=2) if ends else play.wait(601)
    assert (play.node_state("n1"), request in play.admin.answers) == ("drained", True)


def test_a_node_that_was_forgotten_and_came_back_is_drained_when_it_has_released_what_it_held() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j"))
    n1.drop()
    play.wait(60)
    play.admin.ask(m.NodeForget, "n1")
    n1.join()
    play.admin.ask(m.NodeDrain, node="n1", deadline_s=0.0)
    assert play.node_state("n1") == "draining"
    n1.released(name)
    assert play.node_state("n1") == "drained"


def test_a_second_drain_changes_deadline_and_reason() -> None:
    play, name, n1, n2 = working()
    drain(play, deadline_s=3600.0)
    drain(play, deadline_s=5.0, reason="fire")
    play.wait(6)
    assert n1.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "NodeDrained")]
    assert play.admin.ask(m.NodeShow, "n1")["drain"]["reason"] == "fire"


@pytest.mark.parametrize("deadline_s", [-1.0, float("nan"), float("inf"), 1e12])
def test_a_deadline_is_a_number_of_seconds_that_makes_sense(deadline_s: float) -> None:
    play = Play()
    play.node("n1")
    refused = play.admin.refused(m.NodeDrain, node="n1", deadline_s=deadline_s)
    assert refused.code is m.RefusalCode.INVALID
    assert play.node_state("n1") == "idle"


def test_a_drain_outlives_the_coordinator_and_the_agent() -> None:
    play, name, n1, n2 = working()
    drain(play, deadline_s=30.0)
    play.restart()
    n1.join()
    n2.join()
    assert play.node_state("n1") == "draining"
    play.wait(31)
    assert n1.heard(m.ReleaseRound)[-1] == m.ReleaseRound(name, 1, "NodeDrained")
    n1.released(name)
    assert play.node_state("n1") == "drained"
    n1.drop()
    assert play.node_state("n1") == "left"
    play.restart()
    assert play.node_state("n1") == "left"
    n1.reboot("boot-2")
    n1.join()
    assert play.node_state("n1") == "drained"
    assert play.rounds(name) == [("n1", 1, "released"), ("n2", 1, "prepared")]


def test_what_came_to_a_node_just_before_its_agent_was_cut_off_is_recalled_when_it_is_back() -> None:
    play, name, n1, n2 = working()
    n1.drop()
    drain(play)
    n1.recalls.clear()
    n1.join()
    assert len(n1.recalls) == 1


def test_an_enabled_node_opens_the_next_round_with_its_own_preparation() -> None:
    play, name, n1, n2 = working()
    drain(play, deadline_s=0.0)
    n1.released(name)
    assert play.admin.ask(m.NodeEnable, "n1")["state"] == "idle"
    assert n1.heard(m.Prepare) == [m.Prepare(name, 1), m.Prepare(name, 2)]
    play.run_out(name)
    assert play.rounds(name) == [("n1", 1, "released"), ("n2", 1, "released"), ("n1", 2, "released")]


def test_a_node_that_is_enabled_while_it_releases_gets_work_when_that_is_over() -> None:
    play, name, n1, n2 = working()
    drain(play, deadline_s=0.0)
    play.admin.ask(m.NodeEnable, "n1")
    assert n1.heard(m.OpenRound)[-1].round == 1
    n1.released(name)
    assert n1.heard(m.OpenRound)[-1].round == 2
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_who_waits_for_a_drain_is_answered_when_it_is_done() -> None:
    play, name, n1, n2 = working()
    number = play.admin.start(m.NodeDrain, node="n1", deadline_s=0.0, wait=True)
    assert number not in play.admin.answers
    n1.released(name)
    answer = play.admin.answers[number]
    assert isinstance(answer, m.Reply)
    assert answer.body["state"] == "drained"


def test_who_waits_for_a_drain_hears_that_it_was_called_off() -> None:
    play, name, n1, n2 = working()
    number = play.admin.start(m.NodeDrain, node="n1", deadline_s=60.0, wait=True)
    play.admin.ask(m.NodeEnable, "n1")
    answer = play.admin.answers[number]
    assert isinstance(answer, m.Reply)
    assert answer.body["drain"] is None


def test_who_waits_for_a_drain_of_a_lost_node_is_told_when_its_lease_is_over() -> None:
    play, name, n1, n2 = working()
    number = play.admin.start(m.NodeDrain, node="n1", deadline_s=5.0, wait=True)
    n1.drop()
    play.wait(60)
    assert number not in play.admin.answers
    play.wait(900)
    answer = play.admin.answers[number]
    assert isinstance(answer, m.Reply)
    assert (answer.body["state"], answer.body["owes"]) == ("lost", [name])


def test_waiting_for_a_drain_that_nobody_asked_for_is_answered_at_once() -> None:
    play = Play()
    play.node("n1")
    assert play.admin.ask(m.NodeDrain, node="n1", wait=True)["state"] == "idle"
    assert play.admin.refused(m.NodeDrain, node="n1").code is m.RefusalCode.INVALID


def test_a_job_waits_for_drained_nodes_and_ends_when_only_barred_ones_are_left() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    drain(play, "n2")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    n1.prepared(name, ok=False)
    n1.give_back()
    play.wait(60)
    assert play.show(name)["state"] == "active", "the drained node may be enabled again"
    n2.drop()
    play.wait(60)
    assert play.show(name)["end_reason"] == "NoEligibleNodes"


def test_a_job_of_which_every_node_is_drained_waits_and_says_so() -> None:
    play = Play()
    n1 = play.node("n1")
    drain(play)
    name = play.submit(job("j"))
    assert "drained" in play.show(name)["waits"]
    play.admin.ask(m.NodeEnable, "n1")
    play.run_out(name)
    assert play.show(name)["result"] == "success"
    assert n1.spawned


def test_a_terminated_job_is_released_on_a_draining_node_with_its_own_reason() -> None:
    play, name, n1, n2 = working()
    drain(play)
    play.terminate(name)
    assert n1.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "UserTerminate")]


def test_a_barred_node_that_is_drained_and_enabled_prepares_anew() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep(), release=release()))
    n1.prepared(name, ok=False)
    n1.give_back()
    drain(play)
    n1.released(name)
    play.admin.ask(m.NodeEnable, "n1")
    play.run_out(name)
    assert play.rounds(name) == [("n1", 1, "released"), ("n1", 2, "released")]


# ---- forget


def lost() -> tuple[Play, str, FakeNode, FakeNode]:
    play, name, n1, n2 = working()
    n1.drop()
    play.wait(20)
    return play, name, n1, n2


def test_a_forgotten_node_owes_nothing_and_what_it_ran_goes_on_at_once() -> None:
    play, name, n1, n2 = lost()
    [index] = n1.labels(name)
    shown = play.admin.ask(m.NodeForget, "n1")
    assert (shown["state"], shown["reason"], shown["owes"]) == ("left", "forgotten by uid:1000", [])
    assert [entry.cause for entry in play.kept_of(TasksReturned)] == [Returned.FORGOTTEN]
    assert play.rounds(name)[0] == ("n1", 1, "waived")
    play.run_out(name)
    assert (name, 0, index, 2) in n2.spawned
    assert play.show(name)["result"] == "success"


def test_a_connected_node_is_not_forgotten() -> None:
    play, name, n1, n2 = working()
    refused = play.admin.refused(m.NodeForget, "n1")
    assert refused.code is m.RefusalCode.FAILED
    assert "connected" in refused.message
    assert play.node_state("n1") == "running"


def test_a_node_whose_heartbeats_stopped_is_forgotten_and_its_connection_cut() -> None:
    play, name, n1, n2 = working()
    n1.silent = True
    play.wait(20)
    play.admin.ask(m.NodeForget, "n1")
    assert n1.closed
    assert play.node_state("n1") == "left"


def test_a_forgotten_node_that_was_not_off_drops_and_releases_before_the_job_comes_back() -> None:
    play, name, n1, n2 = lost()
    grants = list(n1.grants)
    play.admin.ask(m.NodeForget, "n1")
    opened = len(n1.heard(m.OpenRound))
    n1.join()
    assert n1.heard(m.Drop) == [m.Drop(grants)]
    assert n1.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "NodeDrained")], "its job goes on"
    assert len(n1.heard(m.OpenRound)) == opened
    n1.released(name)
    assert n1.heard(m.OpenRound)[-1].round == 2
    play.run_out(name)
    assert play.rounds(name)[0] == ("n1", 1, "waived")
    assert play.show(name)["result"] == "success"


def test_f12_a_forgotten_node_holds_up_no_job_that_ends() -> None:
    play, name, n1, n2 = lost()
    play.terminate(name)
    n2.released(name)
    assert play.kept_of(JobCompleted) == []
    play.admin.ask(m.NodeForget, "n1")
    assert len(play.kept_of(JobCompleted)) == 1


def test_forgetting_waives_what_is_owed_of_a_deleted_job_too() -> None:
    play, name, n1, n2 = lost()
    play.terminate(name, force=True)
    n2.released(name)
    play.admin.start(m.JobDelete, name)
    play.obey()
    assert play.core.cluster.nodes["n1"].owes
    play.admin.ask(m.NodeForget, "n1")
    assert not play.core.cluster.nodes["n1"].owes
    play.restart()
    assert not play.core.cluster.nodes["n1"].owes


# ---- retry-prep


def barred(**options: object) -> tuple[Play, str, FakeNode]:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release(), **options))
    n1.prepared(name, ok=False)
    n1.give_back()
    return play, name, n1


def test_a_barred_node_prepares_once_more_when_it_is_told_to() -> None:
    play, name, n1 = barred()
    row = play.admin.ask(m.NodeRetryPrep, "n1", name)
    assert row["node"] == "n1"
    assert n1.heard(m.Prepare) == [m.Prepare(name, 1), m.Prepare(name, 1)]
    play.run_out(name)
    assert play.rounds(name) == [("n1", 1, "released")]
    assert play.show(name)["result"] == "success"


def test_a_retried_preparation_outlives_a_rejoin_and_a_restart() -> None:
    play, name, n1 = barred()
    n1.drop()
    play.admin.ask(m.NodeRetryPrep, "n1", name)
    play.restart()
    n1.join()
    assert play.rounds(name) == [("n1", 1, "preparing")]
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_a_retried_preparation_that_fails_bars_again() -> None:
    play, name, n1 = barred()
    play.admin.ask(m.NodeRetryPrep, "n1", name)
    n1.prepared(name, ok=False, attempt=2)
    n1.give_back()
    assert play.rounds(name) == [("n1", 1, "barred")]


def test_only_a_barred_node_of_a_live_job_is_tried_again() -> None:
    play, name, n1, n2 = working()
    assert "prepared" in play.admin.refused(m.NodeRetryPrep, "n1", name).message
    assert play.admin.refused(m.NodeRetryPrep, "n9", name).code is m.RefusalCode.UNKNOWN
    play.terminate(name)
    assert "over" in play.admin.refused(m.NodeRetryPrep, "n1", name).message


# ---- unusable


def test_an_unusable_node_gets_nothing_new_and_is_back_when_it_says_so() -> None:
    play, name, n1, n2 = working()
    n1.say(m.Health("its disk is full"))
    shown = play.admin.ask(m.NodeShow, "n1")
    assert (shown["state"], shown["reason"]) == ("unusable", "its disk is full")
    n1.end(name)
    runs = len(n1.heard(m.Run))
    play.wait(10)
    assert len(n1.heard(m.Run)) == runs
    assert n1.heard(m.ReleaseRound) == []
    n1.say(m.Health(None))
    assert play.node_state("n1") == "running"
    play.run_out(name)
    assert play.rounds(name) == [("n1", 1, "released"), ("n2", 1, "released")]


def test_what_queues_at_an_unusable_node_is_recalled_and_what_runs_goes_on() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    name = play.submit(job("j", tasks(size=2)))
    n1.say(m.Health("its disk is full"))
    assert len(n1.recalls) == 1
    play.obey()
    assert play.show(name)["result"] == "success"


def test_a_node_that_joins_again_is_usable_until_it_says_otherwise() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.say(m.Health("its disk is full"))
    n1.drop()
    n1.join()
    assert play.node_state("n1") == "idle"


def test_a_job_with_unusable_nodes_only_waits_and_says_so() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.say(m.Health("its disk is full"))
    name = play.submit(job("j"))
    assert "unusable" in play.show(name)["waits"]
    play.wait(3600)
    assert play.show(name)["state"] == "active"


# ---- a process that can't be killed


def test_f30_a_release_that_waits_for_a_process_is_flagged_and_given_up_after_its_grace() -> None:
    play, name, n1, n2 = working(release_grace_ms=60_000)
    play.terminate(name)
    n2.released(name)
    n1.say(m.Health("a process can't be killed", [name]))
    row = play.admin.ask(m.JobNodes, name)[0]
    assert "can't be killed" in row["reason"]
    play.wait(30)
    assert play.show(name)["state"] == "terminating"
    play.wait(40)
    assert play.rounds(name)[0] == ("n1", 1, "unreached")
    assert play.show(name)["result"] == "cancelled"
    assert play.admin.ask(m.NodeShow, "n1")["owes"] == [name]
    n1.say(m.Health(None))
    n1.released(name)
    assert play.rounds(name)[0] == ("n1", 1, "released")
    assert play.node_state("n1") == "idle"


def test_f30_a_release_that_waited_and_went_on_in_time_is_no_failure() -> None:
    play, name, n1, n2 = working(release_grace_ms=60_000)
    play.terminate(name)
    n2.released(name)
    n1.say(m.Health("a process can't be killed", [name]))
    play.wait(30)
    n1.say(m.Health(None))
    play.wait(60)
    assert play.show(name)["state"] == "terminating"
    n1.released(name)
    assert play.rounds(name)[0] == ("n1", 1, "released")


def test_f30_a_forced_end_waits_for_no_process_that_can_not_be_killed() -> None:
    play, name, n1, n2 = working()
    play.terminate(name)
    n2.released(name)
    n1.say(m.Health("a process can't be killed", [name]))
    play.terminate(name, force=True)
    assert play.rounds(name)[0] == ("n1", 1, "unreached")


def test_f30_a_node_is_told_to_release_before_it_is_given_up() -> None:
    play, name, n1, n2 = working()
    n1.say(m.Health("a process can't be killed", [name]))
    play.wait(600)
    play.terminate(name, force=True)
    assert n1.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "UserTerminate")]
    assert play.rounds(name)[0] == ("n1", 1, "unreached")
    n1.released(name)
    assert play.rounds(name)[0] == ("n1", 1, "released")


def test_a_node_names_no_job_as_stuck_that_it_does_not_owe() -> None:
    play, name, n1, n2 = working()
    play.node("n3", pool="elsewhere").say(m.Health("a process can't be killed", [name, "other-1"]))
    assert play.core.cluster.nodes["n3"].stuck == {}


# ---- what is shown


def test_quarantined_users_are_shown_with_their_node() -> None:
    play, name, n1, n2 = working()
    play.terminate(name)
    n1.rounds[name, 1] = m.RoundState.RELEASED
    clean = m.Cleanliness(processes=1, uid=1879048200)
    n1.report(phases=[m.PhaseEnd(
        name, 1, m.Phase.RELEASE, 1, True, True, m.Outcome.EXITED, 0, None, 0.0, 0.0, None, b"", b"", clean=clean,
    )])  # fmt: skip
    assert play.admin.ask(m.NodeShow, "n1")["quarantined"] == [{"uid": 1879048200, "job": name, "round": 1}]
    assert play.admin.ask(m.NodeShow, "n2")["quarantined"] == []
