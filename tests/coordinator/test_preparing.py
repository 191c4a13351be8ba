"""Preparation: lazy, once a round, single-flight; a node barred for one job only; no eligible node."""

from __future__ import annotations

import pytest

from coordinator.ending import ELIGIBLE_GRACE_S
from coordinator.records import NodeJobState, RoundMoved, RoundOpened, RoundVoided
from tests.coordinator.playbook import Play, job, prep, release, tasks
from wire import messages as m


def test_only_the_nodes_that_get_a_task_are_prepared() -> None:
    play = Play()
    nodes = [play.node(f"n{number}") for number in range(4)]
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    play.run_out(name)
    touched = [node.name for node in nodes if node.heard(m.Prepare)]
    assert len(touched) == 2
    assert [node for node, _, _ in play.rounds(name)] == touched
    assert [node.name for node in nodes if node.heard(m.ReleaseRound)] == touched


def test_nothing_is_prepared_before_there_is_a_task_for_the_node() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks("first"), tasks("then", size=2, after=[0]), preparation=prep()))
    assert (len(n1.heard(m.Prepare)), len(n2.heard(m.Prepare))) == (1, 0)
    n1.prepared(name)
    assert n2.heard(m.OpenRound) == []
    n1.end(name)
    assert len(n2.heard(m.Prepare)) == 1


def test_a_node_is_prepared_once_however_many_slots_ask() -> None:
    play = Play()
    n1 = play.node("n1", slots=8)
    name = play.submit(job("j", tasks("a", size=20), tasks("b", size=20), preparation=prep(), release=release()))
    assert len(n1.labels(name)) == 8
    play.run_out(name)
    assert len(n1.heard(m.Prepare)) == 1
    assert len(n1.heard(m.OpenRound)) == 1
    assert len(n1.heard(m.ReleaseRound)) == 1


def test_the_round_is_durable_and_comes_before_the_preparation_and_that_before_the_first_task() -> None:
    play = Play()
    n1 = play.node("n1")
    play.submit(job("j", preparation=prep()))
    kinds = [type(message) for message in n1.received]
    assert kinds[-3:] == [m.OpenRound, m.Prepare, m.Run]
    assert isinstance(play.batches[-1].records[1], RoundOpened)


def test_a_job_without_preparation_owes_a_release_from_its_first_task_on() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j"))
    assert n1.heard(m.Prepare) == []
    assert play.rounds(name) == [("n1", 1, "prepared")]
    row = play.admin.ask(m.JobNodes, name)[0]
    assert row["prep"] is None
    assert row["release"]["state"] == "owed"
    play.run_out(name)
    assert len(n1.heard(m.ReleaseRound)) == 1


def test_a_task_prepares_then_runs_for_people() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep()))
    assert play.task(f"{name}/t")["state"] == "preparing"
    assert play.show(name)["tasks"]["preparing"] == 1
    n1.prepared(name)
    assert play.task(f"{name}/t")["state"] == "running"
    assert play.show(name)["tasks"]["running"] == 1


def test_without_wait_a_task_runs_while_its_node_prepares_and_a_failure_bars_nothing() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), preparation=prep(wait=False)))
    assert play.task(f"{name}/t[0]")["state"] == "running"
    n1.end(name)
    n1.prepared(name, ok=False)
    row = play.admin.ask(m.JobNodes, name)[0]
    assert (row["state"], row["prep"]["state"]) == ("prepared", "failed")
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_no_more_nodes_prepare_at_once_than_the_job_allows() -> None:
    play = Play()
    nodes = [play.node(f"n{number}") for number in range(4)]
    name = play.submit(job("j", tasks(size=40), preparation=prep(parallel=2)))
    assert len([node for node in nodes if node.heard(m.Prepare)]) == 2
    next(node for node in nodes if node.heard(m.Prepare)).prepared(name)
    assert len([node for node in nodes if node.heard(m.Prepare)]) == 3


def test_a_lost_node_does_not_keep_others_from_preparing() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=4), preparation=prep(parallel=1)))
    assert n2.heard(m.Prepare) == []
    n1.drop()
    play.wait(10)
    assert n2.heard(m.Prepare) == []
    play.wait(10)
    assert len(n2.heard(m.Prepare)) == 1
    n2.prepared(name)


# ---- barred


def test_a_node_whose_preparation_failed_is_barred_for_this_job_alone() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=4), preparation=prep(), release=release()))
    n1.prepared(name, ok=False)
    n1.give_back(name)
    other = play.submit(job("other"))
    assert n1.labels(other) == [0]
    assert n1.labels(name) == []
    play.run_out(name)
    play.run_out(other)
    assert {job_id for job_id, _, _, _ in n1.spawned} == {other}
    assert len([entry for entry in n2.spawned if entry[0] == name]) == 4
    shown = play.show(name)
    assert (shown["result"], shown["tasks"]["succeeded"]) == ("success", 4)


def test_a_task_sent_away_by_a_failed_preparation_has_not_used_its_attempt() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=0), preparation=prep()))
    n1.prepared(name, ok=False)
    n1.give_back(name)
    n2 = play.node("n2")
    assert [held.run.attempt for held in n2.grants.values()] == [1]
    assert play.task(f"{name}/t")["attempts"] == 1


def test_a_barred_node_is_released_too() -> None:
    play = Play()
    n1 = play.node("n1")
    play.node("n2")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    n1.prepared(name, ok=False)
    n1.give_back(name)
    play.run_out(name)
    assert play.rounds(name) == [("n1", 1, "released"), ("n2", 1, "released")]
    row = play.admin.ask(m.JobNodes, name)[0]
    assert (row["prep"]["state"], row["prep"]["exit_code"], row["release"]["state"]) == ("failed", 1, "succeeded")
    assert row["tasks_started"] == 0


# ---- no eligible node


def barred_everywhere(play: Play) -> str:
    nodes = [play.node("n1"), play.node("n2")]
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    for node in nodes:
        node.prepared(name, ok=False)
        node.give_back(name)
    return name


def test_a_job_whose_nodes_are_all_barred_ends_after_the_grace_and_releases_them() -> None:
    play = Play()
    name = barred_everywhere(play)
    play.wait(ELIGIBLE_GRACE_S - 0.1)
    assert play.show(name)["state"] == "active"
    play.wait(0.2)
    assert play.show(name)["end_reason"] == "NoEligibleNodes"
    play.run_out(name)
    shown = play.show(name)
    assert (shown["result"], shown["tasks"]["cancelled"], shown["release"]["succeeded"]) == ("failure", 2, 2)


def test_a_node_that_joins_within_the_grace_saves_the_job() -> None:
    play = Play()
    name = barred_everywhere(play)
    play.wait(ELIGIBLE_GRACE_S - 1)
    n3 = play.node("n3")
    play.wait(100)
    assert play.show(name)["state"] == "active"
    n3.prepared(name)
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_the_grace_begins_anew_when_the_hope_is_gone_again() -> None:
    play = Play()
    name = barred_everywhere(play)
    play.wait(ELIGIBLE_GRACE_S - 1)
    n3 = play.node("n3")
    n3.prepared(name, ok=False)
    n3.give_back(name)
    play.wait(ELIGIBLE_GRACE_S - 1)
    assert play.show(name)["state"] == "active"
    play.wait(2)
    assert play.show(name)["end_reason"] == "NoEligibleNodes"


def test_the_grace_does_not_pass_while_the_job_is_disabled() -> None:
    play = Play()
    name = barred_everywhere(play)
    play.wait(ELIGIBLE_GRACE_S - 1)
    play.admin.ask(m.JobDisable, name, m.Disabling.WAIT)
    play.wait(1000)
    play.admin.ask(m.JobEnable, name)
    assert play.show(name)["state"] == "active", "there is time to let a node try again"
    play.wait(ELIGIBLE_GRACE_S + 1)
    assert play.show(name)["end_reason"] == "NoEligibleNodes"


def test_a_node_that_is_just_joining_is_hope() -> None:
    play = Play()
    name = barred_everywhere(play)
    n3 = play.node("n3")
    n3.drop()
    n3.join(inventory=False)
    play.wait(ELIGIBLE_GRACE_S * 1.4)
    assert play.show(name)["state"] == "active"


def test_a_lost_node_is_no_hope() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    n1.prepared(name, ok=False)
    n1.give_back(name)
    n2.drop()
    play.wait(ELIGIBLE_GRACE_S + 1)
    assert play.show(name)["end_reason"] == "NoEligibleNodes"


def test_a_node_too_small_for_what_is_left_is_no_hope() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    n2 = play.node("n2", slots=1)
    groups = [tasks("wide", size=2, slots=2), tasks("narrow", size=1), tasks("then", after=[0])]
    name = play.submit(job("j", *groups, preparation=prep(), release=release()))
    assert len(n1.running()) == 1
    n1.prepared(name, ok=False)
    n1.give_back(name)
    play.wait(ELIGIBLE_GRACE_S * 2)
    assert play.show(name)["state"] == "active"
    n2.prepared(name)
    n2.end(name)
    play.wait(ELIGIBLE_GRACE_S + 1)
    shown = play.show(name)
    assert (shown["end_reason"], shown["tasks"]["succeeded"]) == ("NoEligibleNodes", 1)


def test_an_empty_pool_waits() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.drop()
    name = play.submit(job("j", preparation=prep()))
    play.wait(2_000)
    assert play.show(name)["state"] == "active"


def test_a_job_whose_tasks_are_over_does_not_end_for_want_of_nodes() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=1), preparation=prep(), release=release(), finish="manual"))
    n1.prepared(name)
    n1.end(name)
    n1.drop()
    play.wait(1000)
    assert play.show(name)["state"] == "active"


# ---- reboots


def test_a_reboot_prepares_again_within_the_round_and_adds_no_debt() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=3), preparation=prep(), release=release()))
    n1.prepared(name)
    n1.end(name)
    n1.reboot("boot-2")
    n1.join()
    assert len(n1.heard(m.Prepare)) == 2
    assert len(n1.heard(m.OpenRound)) == 1
    row = play.admin.ask(m.JobNodes, name)[0]
    assert (row["state"], row["prep"]["state"], row["boot"]) == ("preparing", "running", "boot-2")
    play.run_out(name)
    assert play.rounds(name) == [("n1", 1, "released")]
    assert len(n1.heard(m.ReleaseRound)) == 1
    attempts = [(index, attempt) for _, _, index, attempt in n1.spawned]
    assert attempts == [(0, 1), (1, 2), (2, 1)]


def test_a_reboot_that_needs_no_second_preparation_goes_straight_on() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=3), preparation={**prep(), "rerun_after_reboot": False}))
    n1.prepared(name)
    n1.reboot("boot-2", prepared=True)
    n1.join()
    assert len(n1.heard(m.Prepare)) == 1
    assert len(n1.labels(name)) == 1
    play.run_out(name)


def test_a_preparation_cut_short_by_a_reboot_is_ordered_again() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=3), preparation=prep()))
    n1.say(m.PhaseStarted(name, 1, m.Phase.PREPARATION, 1, play.wall))
    n1.reboot("boot-2")
    n1.join()
    assert len(n1.heard(m.Prepare)) == 2
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_a_rebooted_node_is_prepared_again_only_when_a_task_comes() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep(), release=release(), finish="manual"))
    n1.prepared(name)
    n1.end(name)
    n1.reboot("boot-2")
    n1.join()
    assert len(n1.heard(m.Prepare)) == 1
    row = play.admin.ask(m.JobNodes, name)[0]
    assert (row["state"], row["prep"]["state"]) == ("absent", "succeeded")
    play.terminate(name)
    play.obey()
    assert play.rounds(name) == [("n1", 1, "released")]


def test_an_agent_that_only_started_again_prepares_nothing_again() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=3), preparation=prep()))
    n1.prepared(name)
    n1.drop()
    n1.join()
    assert len(n1.heard(m.Prepare)) == 1
    assert len(n1.heard(m.Run)) == 1
    play.run_out(name)
    assert [attempt for _, _, _, attempt in n1.spawned] == [1, 1, 1]


# ---- rounds that never arrived, roots that were replaced


@pytest.mark.parametrize("with_preparation", [True, False])
def test_a_round_that_never_arrived_is_as_if_it_had_not_been(with_preparation: bool) -> None:
    play = Play()
    n1 = play.node("n1")
    n1.deaf = True
    name = play.submit(job("j", preparation=prep() if with_preparation else None, release=release()))
    n1.drop()
    n1.deaf = False
    n1.join()
    assert len(play.kept_of(RoundVoided)) == 1
    assert play.kept_of(RoundMoved) == []
    assert len(n1.heard(m.OpenRound)) == 1
    play.run_out(name)
    assert [state for _, _, state in play.rounds(name)] == ["released"]
    assert play.show(name)["release"] == {"owed": 0, "succeeded": 1, "failed": 0, "unreached": 0, "waived": 0}


def test_a_round_that_never_arrived_is_not_opened_again_for_a_job_that_is_over() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.deaf = True
    name = play.submit(job("j", preparation=prep(), release=release()))
    n1.drop()
    n1.deaf = False
    play.terminate(name)
    n1.join()
    assert play.rounds(name) == []
    assert n1.heard(m.OpenRound) == []
    shown = play.show(name)
    assert (shown["state"], shown["tasks"]["cancelled"], sum(shown["release"].values())) == ("completed", 1, 0)


def test_an_order_for_a_round_the_node_never_opened_voids_it() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep(), release=release()))
    n1.rounds.clear()
    n1.say(m.NotHeld(name, 1))
    assert len(play.kept_of(RoundVoided)) == 1
    assert n1.heard(m.Drop) == [m.Drop([1])]
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_what_a_node_did_for_a_round_is_not_forgotten_because_it_no_longer_knows_of_it() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    n1.prepared(name)
    n1.drop()
    n1.rounds.clear()
    n1.grants.clear()
    n1.join()
    assert play.rounds(name)[0] == ("n1", 1, "waived")
    assert [round_ for _, round_, _ in play.rounds(name)] == [1, 2]


def test_another_root_has_nothing_prepared_and_can_pay_no_old_debt() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    n1.prepared(name)
    n1.end(name)
    n1.wiped()
    n1.join()
    assert play.rounds(name) == [("n1", 1, "unreached"), ("n1", 2, "preparing")]
    assert play.admin.ask(m.NodeShow, "n1")["owes"] == [name]
    assert len(n1.heard(m.Prepare)) == 2
    play.run_out(name)
    assert play.rounds(name) == [("n1", 1, "unreached"), ("n1", 2, "released")]
    assert play.admin.ask(m.NodeShow, "n1")["owes"] == []
    reasons = [row["reason"] for row in play.admin.ask(m.JobNodes, name)]
    assert reasons == ["its root directory was replaced", None]


def test_a_round_on_another_root_that_never_arrived_is_opened_again_there() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    n1.prepared(name)
    n1.wiped()
    n1.join(inventory=False)
    n1.deaf = True
    n1.inventory()
    n1.drop()
    n1.deaf = False
    n1.join()
    assert len(play.kept_of(RoundVoided)) == 1
    assert play.rounds(name) == [("n1", 1, "unreached"), ("n1", 2, "preparing")]
    play.run_out(name)
    assert play.show(name)["tasks"]["succeeded"] == 2


def test_another_root_reports_from_one_again() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=3), preparation=prep()))
    n1.prepared(name)
    n1.end(name)
    n1.end(name)
    n1.wiped()
    n1.join()
    n1.prepared(name)
    assert n1.number == 1
    assert play.rounds(name)[-1] == ("n1", 2, "prepared")


def test_a_replaced_root_frees_a_barred_node() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep()))
    n1.prepared(name, ok=False)
    n1.give_back(name)
    n1.wiped()
    n1.join()
    assert play.core.cluster.jobs[name].current["n1"].state is NodeJobState.PREPARING
    play.run_out(name)
    assert play.show(name)["tasks"]["succeeded"] == 1
