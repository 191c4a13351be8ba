"""Every way a job can end releases exactly the nodes that opened a round, once, and completes only then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordinator.records import DebtPaid, JobCompleted, JobEnding, TasksReturned
from tests.coordinator.playbook import FakeNode, Play, job, prep, release, tasks
from wire import messages as m


def working(**options: object) -> tuple[Play, str, FakeNode, FakeNode, FakeNode]:
    """Two nodes work for a job, a third one has nothing to do."""
    play = Play()
    n1, n2, n3 = play.node("n1"), play.node("n2"), play.node("n3", pool="elsewhere")
    name = play.submit(job("j", tasks(size=6), preparation=prep(), release=release(), **options))
    n1.prepared(name)
    n2.prepared(name)
    return play, name, n1, n2, n3


def all_done(play: Play, name: str) -> None:
    for _ in range(3):
        play.nodes["n1"].end(name)
        play.nodes["n2"].end(name)


def by_terminate(play: Play, name: str) -> None:
    play.terminate(name)


def by_delete(play: Play, name: str) -> None:
    play.admin.start(m.JobDelete, name)


def by_timeout(play: Play, name: str) -> None:
    play.wait(3600)


def by_failure(play: Play, name: str) -> None:
    play.nodes["n1"].end(name, exit_code=1)
    assert play.show(name)["state"] == "active"
    play.nodes["n2"].end(name, exit_code=1)


def by_finish(play: Play, name: str) -> None:
    play.finish()


WAYS: dict[str, tuple[Callable[[Play, str], None], dict[str, object], str]] = {
    "all done": (all_done, {}, "AllTasksComplete"),
    "terminate": (by_terminate, {}, "UserTerminate"),
    "delete": (by_delete, {}, "Deleted"),
    "timeout": (by_timeout, {"timeout_ms": 3_600_000}, "MaxWallClockTimeExpiry"),
    "on_failure": (by_failure, {"stop_after": 2}, "TaskFailed"),
    "finish": (by_finish, {}, "UserTerminate"),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_however_a_job_ends_each_node_it_touched_is_released_once_and_no_other(way: str) -> None:
    act, options, reason = WAYS[way]
    play, name, n1, n2, n3 = working(**options)
    act(play, name)
    assert [ending.reason for ending in play.kept_of(JobEnding)] == [reason]
    for node in (n1, n2):
        assert node.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, reason)]
    assert play.kept_of(JobCompleted) == []
    n1.released(name)
    assert play.kept_of(JobCompleted) == []
    n2.released(name)
    assert len(play.kept_of(JobCompleted)) == 1
    play.obey()
    play.wait(1_000)
    assert (len(n1.heard(m.ReleaseRound)), len(n2.heard(m.ReleaseRound))) == (1, 1)
    assert n3.heard(m.ReleaseRound) == []
    assert n3.heard(m.OpenRound) == []


@pytest.mark.parametrize("way", ["terminate", "timeout", "finish"])
def test_what_was_not_over_when_its_job_was_ended_is_cancelled(way: str) -> None:
    act, options, _ = WAYS[way]
    play, name, n1, n2, _ = working(**options)
    n1.end(name)
    act(play, name)
    n1.released(name)
    n2.released(name)
    counts = play.show(name)["tasks"]
    assert (counts["succeeded"], counts["cancelled"], counts["active"]) == (1, 5, 0)
    assert play.show(name)["tasks_done_at"] is not None


def test_nothing_new_is_granted_once_a_job_is_ending() -> None:
    play, name, n1, n2, _ = working()
    play.terminate(name)
    before = len(n1.heard(m.Run)) + len(n2.heard(m.Run))
    n1.end(name)
    play.node("n4")
    assert len(n1.heard(m.Run)) + len(n2.heard(m.Run)) == before


def test_a_job_that_is_terminated_twice_is_released_once_and_keeps_its_first_reason() -> None:
    play, name, n1, _, _ = working()
    play.admin.ask(m.JobTerminate, name, "enough")
    play.admin.ask(m.JobTerminate, name, "really")
    assert len(n1.heard(m.ReleaseRound)) == 1
    assert play.show(name)["end_reason"] == "enough"


def test_a_reason_that_says_nothing_is_the_usual_one() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j"))
    play.admin.ask(m.JobTerminate, name, " ", False)
    assert play.show(name)["end_reason"] == n1.reasons[name, 1] == "UserTerminate"


def test_a_job_that_is_over_can_not_be_terminated() -> None:
    play, name, _, _, _ = working()
    play.run_out(name)
    refused = play.admin.refused(m.JobTerminate, name)
    assert (refused.code, refused.message) == (m.RefusalCode.FAILED, "job `j-1` is over already (AllTasksComplete)")


def test_a_job_nothing_of_which_ever_ran_completes_at_once() -> None:
    play = Play()
    name = play.submit(job("j", tasks(size=5), preparation=prep(), release=release()))
    play.terminate(name)
    shown = play.show(name)
    assert (shown["state"], shown["result"], shown["tasks"]["cancelled"]) == ("completed", "cancelled", 5)
    assert play.rounds(name) == []


def test_a_job_without_a_release_block_owes_the_clean_up_of_its_nodes() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j"))
    n1.end()
    assert play.show(name)["state"] == "terminating"
    assert n1.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "AllTasksComplete")]
    n1.released(name)
    assert play.show(name)["state"] == "completed"


def test_a_release_that_failed_is_recorded_and_the_job_completes_as_a_failure() -> None:
    play, name, n1, n2, _ = working()
    all_done(play, name)
    n1.released(name, ok=False, attempt=3)
    n2.released(name)
    shown = play.show(name)
    assert (shown["state"], shown["result"]) == ("completed", "failure")
    assert shown["release"] == {"owed": 0, "succeeded": 1, "failed": 1, "unreached": 0, "waived": 0}
    row = play.admin.ask(m.JobNodes, name)[0]
    assert (row["state"], row["release"]["state"], row["release"]["attempts"]) == ("release_failed", "failed", 3)


def test_a_terminated_preparation_is_released_too() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep(), release=release()))
    play.terminate(name)
    n1.released(name)
    row = play.admin.ask(m.JobNodes, name)[0]
    assert (row["state"], row["prep"]["state"], row["release"]["state"]) == ("released", "interrupted", "succeeded")


def test_no_more_nodes_release_at_once_than_the_job_allows() -> None:
    play = Play()
    nodes = [play.node(f"n{number}") for number in range(4)]
    name = play.submit(job("j", tasks(size=4), release=release(parallel=1)))
    for node in nodes:
        node.end()
    for so_far in range(1, 5):
        ordered = [node for node in nodes if node.heard(m.ReleaseRound)]
        assert len(ordered) == so_far
        ordered[-1].released(name)
    assert play.show(name)["state"] == "completed"


def test_a_node_out_of_contact_in_its_release_holds_up_the_others_for_the_grace_only() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=2), release=release(parallel=1), release_grace_ms=60_000))
    n1.end()
    n2.end()
    n1.drop()
    play.wait(59)
    assert n2.heard(m.ReleaseRound) == []
    play.wait(2)
    n2.released(name)
    assert play.show(name)["state"] == "completed"


# ---- manual


def test_a_manual_job_stays_open_until_it_is_terminated() -> None:
    play, name, n1, n2, _ = working(finish="manual")
    all_done(play, name)
    play.wait(5_000)
    shown = play.show(name)
    assert shown["state"] == "active"
    assert shown["tasks_done_at"] is not None
    assert n1.heard(m.ReleaseRound) == []
    play.terminate(name)
    n1.released(name)
    n2.released(name)
    shown = play.show(name)
    assert (shown["state"], shown["result"], shown["end_reason"]) == ("completed", "success", "UserTerminate")


def test_a_manual_job_ends_by_its_timeout_too() -> None:
    play, name, n1, _, _ = working(finish="manual", timeout_ms=60_000)
    all_done(play, name)
    play.wait(61)
    assert n1.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "MaxWallClockTimeExpiry")]


# ---- timeouts over restarts


def test_the_timeout_of_a_job_counts_from_its_submission_over_restarts() -> None:
    play = Play()
    name = play.submit(job("j", timeout_ms=100_000))
    play.wait(60)
    play.restart()
    play.wait(39)
    assert play.show(name)["state"] == "active"
    play.wait(2)
    assert play.show(name)["end_reason"] == "MaxWallClockTimeExpiry"


def test_a_timeout_that_passed_while_the_coordinator_was_down_ends_the_job_at_its_start() -> None:
    play = Play()
    name = play.submit(job("j", timeout_ms=100_000))
    play.t += 200
    play.restart()
    play.wait(0)
    assert play.show(name)["end_reason"] == "MaxWallClockTimeExpiry"


# ---- unreachable nodes


def test_a_node_out_of_contact_is_waited_for_until_the_grace_is_over() -> None:
    play, name, n1, n2, _ = working(release_grace_ms=100_000)
    n2.drop()
    play.terminate(name)
    n1.released(name)
    play.wait(99)
    assert play.show(name)["state"] == "terminating"
    play.wait(2)
    shown = play.show(name)
    assert (shown["state"], shown["release"]["unreached"]) == ("completed", 1)
    assert play.rounds(name)[1] == ("n2", 1, "unreached")
    assert play.admin.ask(m.NodeShow, "n2")["owes"] == [name]


def test_what_an_unreached_node_was_running_counts_as_cancelled_with_its_attempt() -> None:
    play, name, n1, n2, _ = working(release_grace_ms=1000)
    [index] = n2.labels(name)
    n2.drop()
    play.terminate(name)
    n1.released(name)
    play.wait(60)
    assert [r.cause.value for r in play.kept_of(TasksReturned)] == ["round_closed"]
    shown = play.task(f"{name}/t[{index}]")
    assert (shown["state"], shown["result"], shown["attempts"]) == ("completed", "cancelled", 1)
    assert [entry["verdict"] for entry in shown["history"]] == ["cancelled"]


def test_the_grace_counts_from_the_last_word_of_the_node_when_that_is_later() -> None:
    play, name, n1, n2, _ = working(release_grace_ms=100_000)
    play.terminate(name)
    n1.released(name)
    play.wait(60)
    n2.drop()
    play.wait(90)
    assert play.show(name)["state"] == "terminating"
    play.wait(11)
    assert play.show(name)["state"] == "completed"


def test_a_silent_node_whose_connection_stands_is_not_waited_for_longer() -> None:
    play, name, n1, n2, _ = working(release_grace_ms=100_000)
    n2.silent = True
    play.wait(20)
    play.terminate(name)
    n1.released(name)
    play.wait(120)
    assert play.show(name)["state"] == "completed"
    assert play.rounds(name)[1] == ("n2", 1, "unreached")
    n2.silent = False
    n2.join()
    n2.released(name)
    assert play.rounds(name)[1] == ("n2", 1, "released")


def test_a_forced_end_waits_for_no_node_out_of_contact() -> None:
    play, name, n1, n2, _ = working()
    n2.drop()
    play.terminate(name, force=True)
    assert play.show(name)["state"] == "terminating"
    n1.released(name)
    shown = play.show(name)
    assert (shown["state"], shown["release"]["unreached"], shown["release"]["succeeded"]) == ("completed", 1, 1)


def test_an_end_can_be_forced_later() -> None:
    play, name, n1, n2, _ = working()
    n2.drop()
    play.terminate(name)
    n1.released(name)
    assert play.show(name)["state"] == "terminating"
    play.terminate(name, force=True)
    assert play.show(name)["state"] == "completed"


def test_a_debt_outlives_its_job_and_is_paid_on_return() -> None:
    play, name, n1, n2, _ = working(release_grace_ms=1000)
    n2.drop()
    play.terminate(name)
    n1.released(name)
    play.wait(60)
    completed = play.show(name)["completed_at"]
    n2.join()
    assert n2.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "UserTerminate")]
    assert n2.heard(m.Drop) == [m.Drop([2])]
    n2.released(name)
    shown = play.show(name)
    assert (shown["state"], shown["completed_at"]) == ("completed", completed)
    assert shown["release"] == {"owed": 0, "succeeded": 2, "failed": 0, "unreached": 0, "waived": 0}
    assert play.admin.ask(m.NodeShow, "n2")["owes"] == []
    n2.drop()
    n2.join()
    assert len(n2.heard(m.ReleaseRound)) == 1


def test_a_debt_that_is_being_paid_late_is_asked_for_again_when_the_connection_breaks() -> None:
    play, name, n1, n2, _ = working(release_grace_ms=1000)
    n2.drop()
    play.terminate(name)
    n1.released(name)
    play.wait(60)
    n2.join()
    n2.drop()
    play.restart()
    n2.join()
    assert len(n2.heard(m.ReleaseRound)) == 2
    n2.released(name)
    assert play.admin.ask(m.NodeShow, "n2")["owes"] == []


def test_a_debt_outlives_even_its_jobs_deletion() -> None:
    for restarted in (False, True):
        play, name, n1, n2, _ = working(release_grace_ms=1000)
        n2.drop()
        play.terminate(name)
        n1.released(name)
        play.wait(60)
        request = play.admin.start(m.JobDelete, name)
        n1.obey()
        answer = play.admin.answers[request]
        assert isinstance(answer, m.Reply)
        assert answer.body == {"id": name, "state": "deleted"}
        assert name not in play.core.cluster.jobs
        if restarted:
            play.restart()
        assert play.admin.ask(m.NodeShow, "n2")["owes"] == [name]
        n2.join()
        assert [(r.job, r.round) for r in n2.heard(m.ReleaseRound)] == [(name, 1)]
        n2.released(name)
        assert len(play.kept_of(DebtPaid)) == 1
        assert play.admin.ask(m.NodeShow, "n2")["owes"] == []


def test_a_node_that_paid_on_its_own_says_so_and_is_not_asked() -> None:
    play, name, n1, n2, _ = working(release_grace_ms=1000)
    n2.drop()
    play.terminate(name)
    n1.released(name)
    play.wait(60)
    n2.rounds[name, 1] = m.RoundState.RELEASING
    n2.released(name)
    n2.join()
    assert n2.heard(m.ReleaseRound) == []
    assert play.rounds(name)[1] == ("n2", 1, "released")


def test_a_debt_the_coordinator_knows_nothing_of_is_released_all_the_same() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.drop()
    n1.rounds["ghost-1", 4] = m.RoundState.PREPARED
    n1.join()
    assert [(r.job, r.round) for r in n1.heard(m.ReleaseRound)] == [("ghost-1", 4)]
    n1.released("ghost-1")
    assert n1.outbox == []


def test_a_release_is_ordered_again_after_a_broken_connection_and_counted_once() -> None:
    play, name, n1, n2, _ = working()
    play.terminate(name)
    n1.drop()
    n1.join()
    assert len(n1.heard(m.ReleaseRound)) == 2
    n1.released(name)
    n2.released(name)
    assert play.show(name)["release"]["succeeded"] == 2


def test_terminating_goes_on_after_a_restart() -> None:
    play, name, n1, n2, _ = working(release_grace_ms=100_000)
    play.terminate(name)
    n1.released(name)
    play.restart()
    play.wait(90)
    assert play.show(name)["state"] == "terminating"
    n2.join()
    n2.released(name)
    assert play.show(name)["state"] == "completed"


# ---- deletion


def test_deletion_is_answered_when_the_reachable_nodes_have_removed_everything() -> None:
    play, name, n1, n2, _ = working()
    play.run_out(name)
    request = play.admin.start(m.JobDelete, name)
    assert n1.heard(m.RemoveJob) == [m.RemoveJob(name)]
    n1.say(m.Removed(name))
    assert request not in play.admin.answers
    n2.say(m.Removed(name))
    assert request in play.admin.answers
    assert name not in play.core.cluster.jobs
    assert all(scope != name for scope, _ in play.rows[:-1])


def test_deleting_what_is_over_releases_nothing_again() -> None:
    play, name, n1, n2, _ = working()
    play.run_out(name)
    play.admin.start(m.JobDelete, name)
    play.obey()
    assert (len(n1.heard(m.ReleaseRound)), len(n2.heard(m.ReleaseRound))) == (1, 1)


def test_a_deletion_goes_on_after_a_restart() -> None:
    play, name, n1, n2, _ = working()
    play.run_out(name)
    play.admin.start(m.JobDelete, name)
    n1.say(m.Removed(name))
    play.restart()
    assert play.show(name)["state"] == "deleting"
    n1.join()
    n2.join()
    play.obey()
    assert name not in play.core.cluster.jobs


def test_a_deletion_waits_for_no_node_that_is_lost() -> None:
    play, name, n1, n2, _ = working()
    play.run_out(name)
    n2.drop()
    play.admin.start(m.JobDelete, name)
    n1.say(m.Removed(name))
    assert name in play.core.cluster.jobs
    play.wait(20)
    assert name not in play.core.cluster.jobs


# ---- leaving


def test_a_leaving_node_releases_its_rounds_and_goes_while_its_tasks_go_elsewhere() -> None:
    play, name, n1, n2, _ = working()
    [index] = n1.labels(name)
    n1.say(m.Leaving())
    assert play.node_state("n1") == "draining"
    assert n1.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "NodeDrained")]
    assert n1.heard(m.Depart) == []
    n1.released(name)
    assert n1.heard(m.Depart) == [m.Depart()]
    n1.drop()
    assert play.node_state("n1") == "left"
    play.run_out(name)
    assert (0, index, 2) in [(group, task, attempt) for _, group, task, attempt in n2.spawned]
    assert play.show(name)["result"] == "success"
    assert play.rounds(name) == [("n1", 1, "released"), ("n2", 1, "released")]


def test_a_node_that_owes_nothing_may_go_at_once() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.say(m.Leaving())
    assert n1.departed


def test_a_leaving_node_gets_no_new_work() -> None:
    play = Play()
    n1 = play.node("n1", slots=4)
    first = play.submit(job("first", tasks(size=1)))
    n1.say(m.Leaving())
    play.submit(job("then"))
    assert [run.job for run in n1.heard(m.Run)] == [first]


def test_a_leaving_node_pays_debts_of_deleted_jobs_before_it_goes() -> None:
    play, name, n1, n2, _ = working(release_grace_ms=1000)
    n2.drop()
    play.terminate(name)
    n1.released(name)
    play.wait(60)
    play.admin.start(m.JobDelete, name)
    play.obey()
    assert name not in play.core.cluster.jobs
    n2.join()
    n2.say(m.Leaving())
    assert n2.heard(m.Depart) == []
    n2.released(name)
    assert n2.heard(m.Depart) == [m.Depart()]


def test_a_node_that_left_opens_a_next_round_when_it_returns() -> None:
    play, name, n1, n2, _ = working()
    n1.say(m.Leaving())
    n1.released(name)
    n1.drop()
    n1.join()
    assert play.rounds(name) == [("n1", 1, "released"), ("n2", 1, "prepared"), ("n1", 2, "preparing")]
    play.run_out(name)
    assert play.show(name)["release"]["succeeded"] == 3


def test_a_node_that_left_clean_is_still_shown_so_after_a_restart() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.say(m.Leaving())
    n1.drop()
    assert play.node_state("n1") == "left"
    play.restart()
    assert play.node_state("n1") == "left"
    n1.join()
    assert play.node_state("n1") == "idle"


# ---- finishing


def test_finishing_ends_every_job_and_is_done_when_every_reachable_node_has_paid() -> None:
    play, name, n1, n2, n3 = working()
    other = play.submit(job("other", pool="elsewhere"))
    n2.drop()
    play.finish()
    assert not play.finished
    n1.released(name)
    n3.released(other)
    assert play.finished


def test_finishing_waits_for_no_node_that_has_fallen_silent() -> None:
    play, name, n1, n2, _ = working()
    n2.silent = True
    play.wait(20)
    play.finish()
    n1.released(name)
    assert play.finished


def test_while_it_finishes_the_coordinator_takes_no_jobs() -> None:
    play, _, _, _, _ = working()
    play.admin.ask(m.Finish, "UserTerminate")
    refused = play.admin.refused(m.Submit, submission="late", document={"format": 1, "pools": [], "jobs": []})
    assert refused.code is m.RefusalCode.REFUSED
    assert "finishing" in refused.message


# ---- the last digits of a moment


@pytest.mark.parametrize("seed", range(8))
def test_what_runs_by_the_clock_ends_at_its_deadline_whatever_the_last_digits_are(seed: int) -> None:
    play = Play()
    for number in range(25):
        play.t += 0.1 + seed / 7
        timeout_ms = 700 + 13 * number + seed
        name = play.submit(job("timed", timeout_ms=timeout_ms))
        play.wait(timeout_ms / 1000 + 0.01)
        assert play.show(name)["end_reason"] == "MaxWallClockTimeExpiry", f"{play.t!r}, {timeout_ms}"


@pytest.mark.parametrize("seed", range(8))
def test_the_grace_of_a_release_ends_whatever_the_last_digits_are(seed: int) -> None:
    play = Play()
    n1 = play.node("n1")
    for number in range(5):
        play.t += 0.1 + seed / 7
        n1.drop()
        n1.rounds.clear()
        n1.join()
        name = play.submit(job("j", finish="manual", release_grace_ms=15_700 + 13 * number + seed))
        n1.end_all()
        n1.drop()
        play.wait(0.3)
        play.terminate(name)
        before = len(play.batches)
        play.wait(17)
        assert play.show(name)["state"] == "completed"
        assert len(play.batches) - before < 30


def test_a_job_ends_once_for_the_reason_that_was_given_first_however_often_it_is_terminated() -> None:
    play, name, n1, n2, _ = working()
    for reason in ("enough", "really", "now"):
        play.admin.ask(m.JobTerminate, job=name, reason=reason)
    assert [(kept.reason, kept.forced) for kept in play.kept_of(JobEnding)] == [("enough", False)]
    for reason in ("by force", "by force again"):
        play.admin.ask(m.JobTerminate, job=name, reason=reason, force=True)
    assert [(kept.reason, kept.forced) for kept in play.kept_of(JobEnding)] == [("enough", False), ("enough", True)]
    assert play.show(name)["end_reason"] == "enough"
