"""A completed job is reopened: what did not succeed runs again in a next round, and nothing is lost of what was."""

from __future__ import annotations

from typing import Any

import pytest

from tests.coordinator.playbook import FakeNode, Play, job, prep, release, tasks
from wire import messages as m

FAILED, SKIPPED, CANCELLED = m.Unsuccess.FAILED, m.Unsuccess.SKIPPED, m.Unsuccess.CANCELLED


def over(play: Play, **options: Any) -> tuple[FakeNode, str]:
    """A completed job of five tasks: two succeeded, one failed after a retry, what waits for them was skipped."""
    n1 = play.node("n1", slots=3)
    groups = (tasks("a", 3, retries=1), tasks("b", 2, after=[0]))
    name = play.submit(job("j", *groups, preparation=prep(), release=release(), **options))
    n1.prepared(name)
    n1.end(name, exit_code=1)
    n1.end(name, count=2)
    n1.end(name, exit_code=1)
    n1.released(name)
    assert play.show(name)["state"] == "completed"
    counts = play.show(name)["tasks"]
    assert (counts["succeeded"], counts["failed"], counts["skipped"]) == (2, 1, 2)
    return n1, name


def retry(play: Play, name: str, *which: m.Unsuccess, named: tuple[str, ...] = ()) -> dict[str, Any]:
    body: dict[str, Any] = play.admin.ask(m.JobRetry, name, list(which), list(named))
    return body


def test_what_did_not_succeed_runs_again_in_a_next_round() -> None:
    play = Play()
    n1, name = over(play)
    before = play.show(name)
    shown = retry(play, name)
    assert (shown["state"], shown["retried"], shown["result"], shown["end_reason"]) == ("active", 3, None, None)
    assert (shown["tasks_done_at"], shown["completed_at"]) == (None, None)
    assert (shown["submitted_at"], shown["started_at"]) == (before["submitted_at"], before["started_at"])
    assert play.rounds(name) == [("n1", 1, "released"), ("n1", 2, "preparing")]
    assert shown["release"] == {"owed": 0, "succeeded": 1, "failed": 0, "unreached": 0, "waived": 0}
    n1.prepared(name)
    assert n1.labels(name) == [0]
    n1.end(name)
    assert sorted(n1.labels(name)) == [0, 1]
    play.run_out(name)
    shown = play.show(name)
    assert (shown["result"], shown["end_reason"], shown["tasks"]["succeeded"]) == ("success", "AllTasksComplete", 5)
    assert play.rounds(name) == [("n1", 1, "released"), ("n1", 2, "released")]


def test_attempts_go_on_where_they_were_and_retries_begin_anew() -> None:
    play = Play()
    n1, name = over(play)
    retry(play, name)
    n1.prepared(name)
    for attempt in (3, 4):
        assert play.task(f"{name}/a[0]")["attempts"] == attempt
        n1.end(name, exit_code=1)
    shown = play.task(f"{name}/a[0]")
    assert (shown["result"], shown["attempts"]) == ("failure", 4)
    assert [entry["attempt"] for entry in shown["history"]] == [1, 2, 3, 4]
    n1.released(name)
    retry(play, name)
    play.run_out(name)
    assert play.task(f"{name}/a[0]")["attempts"] == 5
    assert [attempt for _, group, index, attempt in n1.spawned if (group, index) == (0, 0)] == [1, 2, 3, 4, 5]
    assert play.rounds(name) == [("n1", number, "released") for number in (1, 2, 3)]


def test_a_reopened_job_is_the_same_after_a_restart_at_any_moment() -> None:
    play = Play()
    n1, name = over(play)
    retry(play, name)
    play.restart()
    n1.join()
    assert play.task(f"{name}/a[0]")["state"] == "preparing"
    play.run_out(name)
    rows = list(play.rows)
    shown = play.show(name)
    play.restart(rows)
    n1.join()
    assert play.show(name) == shown
    assert shown["result"] == "success"


def test_only_what_is_asked_for_runs_again() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    name = play.submit(job("j", tasks("a", 4), tasks("b", 3)))
    n1.end(name, exit_code=1)
    n1.end(name, exit_code=1)
    n1.end(name)
    play.terminate(name)
    play.run_out(name)
    counts = play.show(name)["tasks"]
    assert (counts["failed"], counts["succeeded"], counts["cancelled"]) == (2, 1, 4)
    retry(play, name, FAILED)
    assert sorted(n1.labels(name)) == [0, 1]
    play.run_out(name)
    assert play.show(name)["result"] == "cancelled"
    assert retry(play, name, CANCELLED, named=("b[1]", f"{name}/b[2]"))["retried"] == 2
    play.run_out(name)
    assert play.show(name)["tasks"]["cancelled"] == 2
    assert play.task(f"{name}/b[1]")["result"] == "success"
    assert retry(play, name)["retried"] == 2
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_a_task_that_never_ran_begins_with_its_first_attempt() -> None:
    play = Play()
    n1 = play.node("n1", slots=1)
    name = play.submit(job("j", tasks(size=200)))
    n1.end(name)
    play.terminate(name)
    play.run_out(name)
    assert play.task(f"{name}/t[1]")["attempts"] == 1, "it ran when the job was ended"
    assert play.task(f"{name}/t[2]")["attempts"] == 0
    retry(play, name)
    assert n1.labels(name) == [1]
    play.run_out(name)
    assert [play.task(f"{name}/t[{n}]")["attempts"] for n in (0, 1, 2, 199)] == [1, 2, 1, 1]


def test_skipped_tasks_alone_are_skipped_again_where_nothing_has_changed() -> None:
    play = Play()
    n1, name = over(play)
    assert retry(play, name, SKIPPED)["retried"] == 2
    play.run_out(name)
    assert play.show(name)["tasks"]["skipped"] == 2
    assert "a" in play.task(f"{name}/b[0]")["reason"]


def test_what_waits_for_what_waits_for_a_retried_task_may_run_too() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("c", after=[1]), tasks("b", after=[2]), tasks("a")))
    n1.end(name, exit_code=1)
    play.run_out(name)
    assert play.show(name)["tasks"]["skipped"] == 2
    assert retry(play, name, FAILED)["retried"] == 3
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_a_task_named_is_retried_and_its_like_are_not() -> None:
    play = Play()
    n1 = play.node("n1", slots=3)
    name = play.submit(job("j", tasks("a", 3), tasks("b", after=[0])))
    n1.end(name, exit_code=1, count=3)
    play.run_out(name)
    retry(play, name, named=("a[1]",))
    assert n1.labels(name) == [1]
    play.run_out(name)
    counts = play.show(name)["tasks"]
    assert (counts["succeeded"], counts["failed"], counts["skipped"]) == (1, 2, 1)


@pytest.mark.parametrize(
    ("which", "named", "sentence"),
    [
        ((), ("a[1]",), "task `j-1/a[1]` succeeded: it is not retried"),
        ((FAILED,), ("b[0]",), "task `j-1/b[0]` was skipped: it is not retried"),
        ((CANCELLED,), (), "job `j-1` has no cancelled task: there is nothing to retry"),
        ((), ("k-1/t",), "task `k-1/t` is none of job `j-1`"),
        ((), ("a[7]",), "job `j-1` has no task `a[7]`"),
        ((), ("a[0]",) * 1001, "at most 1000 tasks are named at once"),
    ],
)
def test_what_cannot_be_retried_is_refused(which: Any, named: Any, sentence: str) -> None:
    play = Play()
    n1, name = over(play)
    play.submit(job("k"))
    rows = len(play.kept)
    assert play.admin.refused(m.JobRetry, name, list(which), list(named)).message == sentence
    assert len(play.kept) == rows


def test_a_job_that_succeeded_lives_or_is_deleted_is_not_reopened() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j"))
    assert play.admin.refused(m.JobRetry, name).message == f"job `{name}` is active: only what is completed is reopened"
    play.run_out(name)
    refused = play.admin.refused(m.JobRetry, name)
    assert refused.message == f"job `{name}` has no cancelled or failed or skipped task: there is nothing to retry"
    play.admin.start(m.JobDelete, name)
    assert "is being deleted" in play.admin.refused(m.JobRetry, name).message
    n1.obey()
    assert play.admin.refused(m.JobRetry, name).code is m.RefusalCode.UNKNOWN


def test_the_timeout_of_a_reopened_job_counts_from_then() -> None:
    play = Play()
    n1, name = over(play, timeout_ms=100_000)
    play.wait(5_000)
    retry(play, name)
    play.restart()
    n1.join()
    play.wait(90)
    assert play.show(name)["state"] == "active"
    play.wait(20)
    play.obey()
    assert play.show(name)["end_reason"] == "MaxWallClockTimeExpiry"
    assert retry(play, name)["state"] == "active"


def test_failures_of_before_end_no_reopened_job() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=3), stop_after=1))
    n1.end(name, exit_code=1)
    play.obey()
    assert play.show(name)["end_reason"] == "TaskFailed"
    retry(play, name)
    assert play.show(name)["state"] == "active"
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_a_node_that_was_barred_may_try_again() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    n1.prepared(name, ok=False)
    play.wait(20)
    play.run_out(name)
    assert play.show(name)["end_reason"] == "NoEligibleNodes"
    retry(play, name)
    n1.prepared(name)
    play.run_out(name)
    assert play.show(name)["tasks"]["succeeded"] == 2


def test_a_node_that_still_owes_the_round_before_pays_it_first() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release(), release_grace_ms=5_000))
    n1.prepared(name)
    n1.end(name, exit_code=1)
    n1.drop()
    play.terminate(name)
    play.wait(2_000)
    assert play.show(name)["state"] == "completed"
    retry(play, name)
    assert play.rounds(name) == [("n1", 1, "unreached")]
    n1.join()
    assert n1.reasons[name, 1] == "UserTerminate"
    assert n1.running(name) == []
    n1.released(name, number=1)
    assert play.rounds(name) == [("n1", 1, "released"), ("n1", 2, "preparing")]
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_a_reopened_job_can_be_steered_like_any_other() -> None:
    play = Play()
    n1, name = over(play)
    retry(play, name)
    n1.prepared(name)
    play.admin.ask(m.JobDisable, name, m.Disabling.REQUEUE)
    play.obey()
    assert play.show(name)["state"] == "disabled"
    play.admin.ask(m.JobEnable, name)
    play.admin.ask(m.TaskCancel, f"{name}/a[0]")
    play.run_out(name)
    assert play.task(f"{name}/a[0]")["result"] == "cancelled"
    assert play.rounds(name)[-1] == ("n1", 2, "released")


def test_who_waits_for_a_reopened_job_waits_for_its_new_end() -> None:
    play = Play()
    n1, name = over(play)
    retry(play, name)
    waits = play.admin.start(m.JobWait, name)
    assert waits not in play.admin.answers
    play.run_out(name)
    answer = play.admin.answers[waits]
    assert isinstance(answer, m.Reply)
    assert answer.body["result"] == "success"


def test_what_is_paired_by_value_with_a_retried_task_runs_after_it_and_the_rest_stays() -> None:
    play = Play()
    n1 = play.node("n1", slots=4)
    paired = [{"group": 0, "axes": ["i"]}]
    name = play.submit(job("j", tasks("a", 4), tasks("b", 4, after=paired), tasks("c", 4, after=[1])))
    n1.end(name, exit_code=1, count=2)
    play.run_out(name)
    assert [play.task(f"{name}/b[{n}]")["result"] for n in range(4)] == ["skipped", "skipped", "success", "success"]
    assert retry(play, name, named=("a[1]",))["retried"] == 1 + 2 + 4
    play.restart()
    n1.join()
    assert n1.labels(name) == [1]
    play.run_out(name)
    assert [play.task(f"{name}/b[{n}]")["result"] for n in range(4)] == ["skipped", "success", "success", "success"]
    assert play.show(name)["tasks"]["skipped"] == 1 + 4
    retry(play, name)
    play.run_out(name)
    assert play.show(name)["result"] == "success"
    assert [attempt for _, group, index, attempt in n1.spawned if (group, index) == (0, 0)] == [1, 2]
    assert len([1 for _, group, _, _ in n1.spawned if group == 1]) == 4


def test_what_waits_for_a_failure_is_told_again_of_the_one_that_was_retried() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("a"), tasks("b", after=[{"group": 0, "when": "failed"}])))
    n1.end(name)
    play.run_out(name)
    assert play.task(f"{name}/b")["result"] == "skipped"
    assert retry(play, name)["retried"] == 1
    play.run_out(name)
    assert play.task(f"{name}/b")["result"] == "skipped"


def test_nothing_is_reopened_where_nothing_new_may_be_submitted() -> None:
    play = Play()
    _, name = over(play)
    play.disk_full(True)
    assert "disk is full" in play.admin.refused(m.JobRetry, name, [], []).message
    play.disk_full(False)
    play.finish()
    assert "is finishing" in play.admin.refused(m.JobRetry, name, [], []).message
    assert play.finished


def test_a_backoff_that_the_end_of_its_job_cut_short_shortens_none_of_the_next_round() -> None:
    play = Play()
    n1 = play.node("n1")
    backoff = {"first_ms": 1_000_000, "cap_ms": 1_000_000}
    name = play.submit(job("j", tasks(retries=1, backoff=backoff)))
    n1.end(name, exit_code=1)
    [until] = play.core.cluster.jobs[name].groups[0].waiting.values()
    play.terminate(name)
    n1.released(name)
    retry(play, name)
    play.wait(play.now.seconds_until(until) - 1)
    n1.end(name, exit_code=1)
    play.wait(2)
    assert n1.running(name) == [], "it has just failed, and waits as long as it did before"
