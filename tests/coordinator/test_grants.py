"""Tasks on their way: attempts are numbered once, results count once, failures and losses are counted apart."""

from __future__ import annotations

import pytest

from coordinator.records import Granted, ReportTaken, Returned, TasksReturned, Verdict
from coordinator.resting import LONGEST_S
from coordinator.retry import MAX_LOSSES
from tests.coordinator.playbook import FakeNode, Play, job, prep, release, task_end, tasks
from wire import messages as m


def attempts_given(play: Play, name: str) -> dict[int, list[int]]:
    """The attempt numbers under which each task of the first group was granted."""
    found: dict[int, list[int]] = {}
    for record in play.kept_of(Granted):
        if record.job == name and record.group == 0:
            for position in range(record.count):
                found.setdefault(record.first + position * record.step, []).append(record.attempt)
    return found


# ---- results


def test_a_job_of_many_tasks_ends_with_every_result_counted_once() -> None:
    play = Play()
    play.node("n1", slots=3)
    play.node("n2", slots=2)
    name = play.submit(job("j", tasks(size=500), preparation=prep(), release=release()))
    play.run_out(name)
    shown = play.show(name)
    assert (shown["result"], shown["tasks"]["succeeded"], shown["tasks"]["total"]) == ("success", 500, 500)
    spawned = [entry for node in play.nodes.values() for entry in node.spawned]
    assert len(spawned) == len(set(spawned)) == 500


def test_a_report_that_comes_twice_counts_once_and_is_acknowledged_twice() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=3, retries=9)))
    report = n1.report([n1.task_end(1, 0, 1)])
    before = len(play.kept)
    n1.say(report)
    assert n1.heard(m.Ack) == [m.Ack(1), m.Ack(1)]
    assert len(play.kept) == before
    assert play.task(f"{name}/t[0]")["attempts"] == 2


def test_a_report_is_taken_only_once_over_a_restart_of_the_coordinator() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=3, retries=9)))
    report = n1.report([n1.task_end(1, 0, 1)])
    play.restart()
    n1.outbox = [report]
    n1.join()
    assert n1.outbox == []
    assert len([r for r in play.kept_of(ReportTaken) if r.number == 1]) == 1
    assert play.core.cluster.jobs[name].groups[0].failures == {0: 1}


@pytest.mark.parametrize("position", [-1, 3, 64, 2**31, 2**63 - 1])
def test_a_result_for_a_position_that_is_none_is_ignored(position: int) -> None:
    play = Play()
    n1 = play.node("n1", slots=3)
    name = play.submit(job("j", tasks(size=3)))
    n1.report([task_end(1, position)])
    assert n1.outbox == []
    assert play.show(name)["tasks"]["succeeded"] == 0


def test_a_result_for_a_grant_of_another_node_is_ignored() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=2)))
    [(grant, position)] = n1.running()
    n2.report([task_end(grant, position)])
    assert play.show(name)["tasks"]["succeeded"] == 0
    n1.end()
    assert play.show(name)["tasks"]["succeeded"] == 1


def test_a_result_for_a_grant_that_is_over_is_ignored() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2)))
    n1.end()
    n1.report([task_end(1, 0, 1), task_end(99, 0, 1)])
    shown = play.show(name)["tasks"]
    assert (shown["succeeded"], shown["failed"]) == (1, 0)


def test_a_task_that_is_named_twice_in_one_report_ends_once() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2, retries=3)))
    n1.report([task_end(1, 0, 1), task_end(1, 0, 1), task_end(1, 0, 0)])
    assert play.core.cluster.jobs[name].groups[0].failures == {0: 1}
    assert play.show(name)["tasks"]["succeeded"] == 0


def test_an_end_is_durable_before_its_report_is_acknowledged() -> None:
    play = Play()
    n1 = play.node("n1")
    play.submit(job("j"))
    n1.end()
    batch = play.batches[-1]
    assert isinstance(batch.records[0], ReportTaken)
    assert n1.heard(m.Ack) == [m.Ack(1)]


def test_a_grant_is_durable_in_the_batch_that_sends_it() -> None:
    play = Play()
    n1 = play.node("n1")
    play.submit(job("j"))
    assert [record.grant for record in play.batches[-1].records if isinstance(record, Granted)] == [
        run.grant for run in n1.heard(m.Run)
    ]


# ---- retries


def test_a_task_is_tried_again_as_often_as_it_says_and_then_has_failed() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=2)))
    for _ in range(3):
        assert play.show(name)["tasks"]["failed"] == 0
        n1.end(exit_code=7)
    shown = play.task(f"{name}/t")
    assert (shown["result"], shown["exit_code"], shown["attempts"], shown["reason"]) == ("failure", 7, 3, "exit code 7")
    assert attempts_given(play, name) == {0: [1, 2, 3]}
    assert [entry["verdict"] for entry in play.task(f"{name}/t")["history"]] == ["retry", "retry", "failed"]
    play.obey()
    assert play.show(name)["result"] == "failure"


def test_a_task_without_limit_is_tried_until_it_succeeds() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=None)))
    for attempt in range(1, 101):
        n1.end(exit_code=1)
        assert (n1.labels(name) == [0]) == (attempt <= 10), "ten times at once, and then slower and slower"
        play.wait(60 if attempt > 10 else 0)
    n1.end()
    shown = play.task(f"{name}/t")
    assert (shown["result"], shown["attempts"]) == ("success", 101)
    assert len(shown["history"]) == 20


@pytest.mark.parametrize("outcome", [m.Outcome.TIMED_OUT, m.Outcome.START_FAILED])
def test_a_timeout_and_a_failed_start_spend_a_retry(outcome: m.Outcome) -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=1)))
    n1.end(exit_code=None, outcome=outcome)
    n1.end(exit_code=None, outcome=outcome, reason="no such program: `true`")
    shown = play.task(f"{name}/t")
    assert (shown["result"], shown["reason"]) == ("failure", "no such program: `true`")


def test_a_task_killed_by_a_signal_has_failed_and_says_which() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j"))
    n1.end(exit_code=None, signal=11)
    shown = play.task(f"{name}/t")
    assert (shown["result"], shown["signal"], shown["reason"]) == ("failure", 11, "killed by SIGSEGV")


def test_a_retry_waits_for_its_backoff_and_then_runs() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=5, backoff={"first_ms": 8000, "cap_ms": 8000})))
    n1.end(exit_code=1)
    assert n1.running() == []
    play.wait(8)
    assert n1.labels(name) == [0]
    assert attempts_given(play, name) == {0: [1, 2]}


def test_a_backoff_goes_on_over_a_restart_and_over_a_reboot_of_the_coordinator() -> None:
    for boot in (None, "another boot"):
        play = Play()
        n1 = play.node("n1")
        name = play.submit(job("j", tasks(retries=5, backoff={"first_ms": 3_600_000, "cap_ms": 3_600_000})))
        n1.end(exit_code=1)
        [until] = play.core.cluster.jobs[name].groups[0].waiting.values()
        left = play.now.seconds_until(until)
        assert left > 60
        play.t += 30
        if boot is not None:
            play.wall_offset += play.t - 5
            play.t = 5.0
        play.restart(boot=boot)
        n1.join()
        assert n1.running() == []
        play.wait(left - 31)
        assert n1.running() == []
        play.wait(2)
        assert n1.labels(name) == [0]


def test_a_retry_runs_before_what_was_never_tried() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=100, retries=1)))
    n1.end(exit_code=1)
    assert n1.labels(name)[0] == 0


def test_many_retries_come_as_ranges() -> None:
    play = Play()
    n1 = play.node("n1", slots=64)
    name = play.submit(job("j", tasks(size=64, retries=1)))
    n1.end_all(exit_code=1)
    again = [record for record in play.kept_of(Granted) if record.attempt == 2]
    assert [(record.first, record.count) for record in again] == [(0, 64)]
    play.run_out(name)


# ---- losses


def test_a_loss_spends_no_retry() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=0)))
    for _ in range(MAX_LOSSES):
        n1.end(exit_code=None, outcome=m.Outcome.LOST)
    n1.end()
    shown = play.task(f"{name}/t")
    assert (shown["result"], shown["attempts"]) == ("success", MAX_LOSSES + 1)


def test_a_task_that_is_lost_again_and_again_has_failed_and_says_why() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=None)))
    for _ in range(MAX_LOSSES + 1):
        n1.end(exit_code=None, outcome=m.Outcome.LOST, reason="its keeper died")
    shown = play.task(f"{name}/t")
    assert shown["result"] == "failure"
    assert shown["reason"] == "it was lost 6 times with the process that ran it; last: its keeper died"


def test_a_task_killed_for_a_reason_of_the_node_runs_again_without_spending_anything() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=0)))
    for _ in range(MAX_LOSSES * 3):
        n1.end(exit_code=None, outcome=m.Outcome.KILLED, signal=9)
        play.wait(LONGEST_S)  # it rests, after some of them
    n1.end()
    assert play.task(f"{name}/t")["result"] == "success"


# ---- grants that end without results


def test_what_never_started_keeps_its_attempt_number() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=1)))
    n1.recalled(1, [0])
    assert attempts_given(play, name) == {0: [1, 1]}
    assert play.task(f"{name}/t[0]")["attempts"] == 1


def test_what_is_gone_from_a_node_runs_again_under_a_new_number() -> None:
    play = Play()
    n1 = play.node("n1", slots=3)
    name = play.submit(job("j", tasks(size=3)))
    n1.drop()
    n1.grants[1].open.discard(1)
    n1.join()
    [returned] = play.kept_of(TasksReturned)
    assert (returned.spans, returned.cause) == ([(1, 1)], Returned.GONE)
    assert attempts_given(play, name) == {0: [1], 1: [1, 2], 2: [1]}


def test_an_attempt_that_is_gone_stands_in_the_history_of_its_task() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(retries=0)))
    n1.reboot("boot-2")
    n1.join()
    n1.end()
    history = play.task(f"{name}/t")["history"]
    assert [(entry["attempt"], entry["node"], entry["verdict"]) for entry in history] == [
        (1, "n1", "lost"),
        (2, "n1", "succeeded"),
    ]
    assert history[0]["reason"] == "the node no longer holds it"
    assert history[0]["started_at"] is None


def test_attempt_numbers_of_a_task_only_grow_whatever_happens_to_it() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=1, retries=9)))
    n1.end(exit_code=1)
    n1.end(exit_code=None, outcome=m.Outcome.LOST)
    n1.drop()
    play.wait(1000)
    assert n2.labels(name) == [0]
    n2.reboot("boot-2")
    n2.join()
    play.restart()
    n2.join()
    n2.end()
    given = attempts_given(play, name)[0]
    assert given == sorted(set(given)) == [1, 2, 3, 4, 5]
    assert play.task(f"{name}/t[0]")["attempts"] == 5


def test_a_grant_the_coordinator_does_not_hold_is_dropped() -> None:
    play = Play()
    n1 = play.node("n1")
    play.submit(job("j"))
    n1.drop()
    n1.grants[77] = n1.grants[1]
    n1.join()
    assert n1.heard(m.Drop) == [m.Drop([77])]


def test_positions_out_of_range_are_not_given_back() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    play.submit(job("j", tasks(size=2)))
    before = len(play.kept)
    for span in [(-1, 1), (0, 3), (1, 2), (2, 1), (0, 0), (0, -1), (2**40, 1), (0, 2**40)]:
        n1.say(m.Recalled(1, [span]))
    assert len(play.kept) == before


def test_another_node_can_not_give_back_what_it_does_not_hold() -> None:
    play = Play()
    play.node("n1")
    n2 = play.node("n2")
    play.submit(job("j"))
    n2.say(m.Recalled(1, [(0, 1)]))
    assert play.kept_of(TasksReturned) == []


def test_grant_numbers_are_never_used_again_not_even_after_deletion_and_restart() -> None:
    play = Play()
    play.node("n1")
    first = play.submit(job("j"))
    play.run_out(first)
    play.admin.start(m.JobDelete, first)
    play.obey()
    assert first not in play.core.cluster.jobs
    play.restart()
    play.nodes["n1"].join()
    play.submit(job("k"))
    assert [record.grant for record in play.kept_of(Granted)] == [1, 2]


def test_the_verdict_on_what_was_running_when_its_job_was_ended_is_cancelled() -> None:
    play = Play()
    n1 = play.node("n1", slots=3)
    name = play.submit(job("j", tasks(size=9, retries=5), release=release()))
    play.terminate(name)
    n1.report([n1.task_end(1, 0), n1.task_end(1, 1, 3)])
    n1.released(name)
    [last] = [record for record in play.kept_of(ReportTaken) if record.number == 2]
    assert [end.verdict for end in last.tasks] == [Verdict.CANCELLED]
    counts = play.show(name)["tasks"]
    assert (counts["succeeded"], counts["failed"], counts["cancelled"]) == (1, 1, 7)


# ---- order among groups


def test_a_group_waits_until_all_of_what_it_comes_after_has_succeeded() -> None:
    play = Play()
    n1 = play.node("n1", slots=4)
    name = play.submit(job("j", tasks("a", size=2), tasks("b", size=2), tasks("c", after=[0, 1])))
    assert len(n1.running()) == 4
    n1.end(count=3)
    assert play.task(f"{name}/c")["state"] == "active"
    n1.end()
    assert [run.group for run in n1.heard(m.Run)][-1] == 2


def test_skips_go_through_the_whole_chain_at_once_and_say_why() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(
        job("j", tasks("last", after=[2]), tasks("a"), tasks("mid", size=100, after=[1]), tasks("free", size=1))
    )
    assert [run.group for run in n1.heard(m.Run)] == [1]
    n1.end(exit_code=1)
    counts = play.show(name)["tasks"]
    assert (counts["failed"], counts["skipped"]) == (1, 101)
    assert play.task(f"{name}/last")["reason"] == (
        "`after = mid` can no longer come true: not every task of `mid` succeeded"
    )
    n1.end()
    assert play.show(name)["end_reason"] == "AllTasksComplete"


def test_nothing_is_skipped_while_a_failed_task_may_still_succeed() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("a", retries=1), tasks("b", after=[0])))
    n1.end(exit_code=1)
    assert play.show(name)["tasks"]["skipped"] == 0
    n1.end()
    n1.end()
    assert play.show(name)["tasks"]["succeeded"] == 2


def test_started_tasks_are_shown_with_their_time() -> None:
    play = Play()
    n1: FakeNode = play.node("n1")
    name = play.submit(job("j"))
    n1.say(m.Started([(1, 0, play.wall), (1, 5, 0.0), (9, 0, 0.0), (1, -1, 0.0)]))
    assert play.task(f"{name}/t")["started_at"] == "2027-01-15T08:16:40.000Z"
