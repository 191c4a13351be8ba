"""What `exit { … }` says of a task's end is what becomes of the task, and of its job."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.records import JobEnding
from tests.coordinator.playbook import FakeNode, Play, job, phase_end, prep, release, tasks
from wire import messages as m


def arm(action: str, *codes: int, **more: Any) -> dict[str, Any]:
    return {"codes": [[code, code] for code in codes], "action": action, **more}


def at_work(*arms: dict[str, Any], **options: Any) -> tuple[Play, FakeNode, str]:
    play = Play()
    node = play.node("n1")
    return play, node, play.submit(job("j", tasks(arms=list(arms), **options)))


def test_an_exit_that_an_arm_calls_a_success_is_one_and_keeps_its_code() -> None:
    play, n1, name = at_work(arm("succeed", 3), retries=9)
    n1.end(exit_code=3)
    shown = play.task(f"{name}/t")
    assert (shown["result"], shown["exit_code"], shown["attempts"]) == ("success", 3, 1)
    assert [(entry["verdict"], entry["exit_code"]) for entry in shown["history"]] == [("succeeded", 3)]
    play.obey()
    assert play.show(name)["result"] == "success"


def test_an_arm_that_fails_spares_the_retries() -> None:
    play, n1, name = at_work(arm("fail", 4), retries=9)
    n1.end(exit_code=5)
    n1.end(exit_code=4)
    shown = play.task(f"{name}/t")
    assert (shown["result"], shown["attempts"]) == ("failure", 2)


def test_a_zero_that_an_arm_names_is_no_success() -> None:
    play, n1, name = at_work(arm("fail", 0))
    n1.end(exit_code=0)
    shown = play.task(f"{name}/t")
    assert (shown["result"], shown["exit_code"], shown["reason"]) == ("failure", 0, "exit code 0")


def test_an_arm_with_a_number_has_a_budget_of_its_own_beside_the_commands() -> None:
    play, n1, name = at_work(arm("retry", 75, times=2), retries=1)
    for code in (75, 1, 75):
        n1.end(exit_code=code)
    group = play.core.cluster.jobs[name].groups[0]
    assert (group.failures, group.arm_retries) == ({0: 1}, {(0, 0): 2})
    n1.end(exit_code=75)
    shown = play.task(f"{name}/t")
    assert (shown["result"], shown["attempts"]) == ("failure", 4)


def test_a_plain_retry_spends_the_retries_of_the_command() -> None:
    play, n1, name = at_work(arm("retry", 75), retries=1)
    n1.end(exit_code=1)
    n1.end(exit_code=75)
    shown = play.task(f"{name}/t")
    assert (shown["result"], shown["attempts"]) == ("failure", 2)


def test_an_arm_waits_for_its_own_backoff_and_others_for_the_commands() -> None:
    long, short = {"first_ms": 600_000, "cap_ms": 600_000}, {"first_ms": 1, "cap_ms": 1}
    play, n1, name = at_work(arm("retry", 75, times=1, backoff=long), retries=9, backoff=short)
    n1.end(exit_code=1)
    play.wait(1)
    assert len(n1.running(name)) == 1
    n1.end(exit_code=75)
    play.wait(1)
    assert n1.running(name) == []
    play.wait(600)
    assert len(n1.running(name)) == 1


def test_what_was_spent_of_an_arm_is_known_after_a_restart() -> None:
    play, n1, name = at_work(arm("retry", 75, times=1), retries=0)
    n1.end(exit_code=75)
    play.restart()
    n1.join()
    n1.end(exit_code=75)
    assert play.task(f"{name}/t")["result"] == "failure"


def test_a_task_that_stops_ends_its_job_and_the_release_follows() -> None:
    play = Play()
    n1 = play.node("n1")
    stop = arm("stop", 64)
    name = play.submit(job("j", tasks(size=5, arms=[stop], retries=9), preparation=prep(), release=release()))
    n1.prepared(name)
    n1.end(exit_code=1)
    assert play.kept_of(JobEnding) == []
    n1.end(exit_code=64)
    assert [ending.reason for ending in play.kept_of(JobEnding)] == ["TaskFailed"]
    assert n1.heard(m.ReleaseRound) == [m.ReleaseRound(name, 1, "TaskFailed")]
    n1.released(name)
    counts = play.show(name)["tasks"]
    assert (counts["failed"], counts["cancelled"]) == (1, 4)


@pytest.mark.parametrize(("exit_code", "reasons"), [(64, ["TaskFailed"]), (1, [])])
def test_a_preparation_that_stops_ends_its_job(exit_code: int, reasons: list[str]) -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=5), preparation=prep(arms=[arm("stop", 64)]), release=release()))
    n1.rounds[name, 1] = m.RoundState.BARRED
    n1.report(phases=[phase_end(name, 1, m.Phase.PREPARATION, False, exit_code=exit_code)])
    assert [ending.reason for ending in play.kept_of(JobEnding)] == reasons


# ---- on another node


ELSEWHERE = arm("retry", 75, times=5, elsewhere=True)


def two_at_work(*groups: Any, **options: Any) -> tuple[Play, FakeNode, FakeNode, str]:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", *(groups or [tasks(arms=[ELSEWHERE])]), **options))
    return play, n1, n2, name


def test_a_retry_elsewhere_goes_to_the_other_node_and_any_other_retry_where_it_pleases() -> None:
    _, n1, n2, name = two_at_work(tasks(arms=[ELSEWHERE], retries=5))
    n1.end(name, exit_code=1)
    n1.end(name, exit_code=75)
    assert (n1.running(name), len(n2.running(name))) == ([], 1)
    n2.end(name, exit_code=1)
    assert len(n2.running(name)) == 1


def test_a_retry_elsewhere_waits_for_a_node_that_is_busy_and_holds_up_nobody() -> None:
    play, n1, n2, name = two_at_work(tasks(size=4, arms=[ELSEWHERE]))
    assert (n1.labels(name), n2.labels(name)) == ([0], [1])
    n1.end(name, exit_code=75)
    assert n1.labels(name) == [2]
    assert [line["reason"] for line in play.admin.ask(m.Explain, f"{name}/t[0]")["nodes"]] == [
        "1 of 1 slot is taken (1 by `j-1`)", "1 of 1 slot is taken (1 by `j-1`)",
    ]  # fmt: skip
    n1.end(name)
    assert n1.labels(name) == [3]
    n1.end(name)
    assert n1.labels(name) == []
    told = play.admin.ask(m.Explain, f"{name}/t[0]")
    assert told["nodes"][0]["reason"] == "the task failed there and is tried again elsewhere"
    n2.end(name)
    assert n2.labels(name) == [0]


def test_where_it_failed_everywhere_or_no_other_could_take_it_a_task_goes_back() -> None:
    _, n1, n2, name = two_at_work()
    n1.end(name, exit_code=75)
    n2.end(name, exit_code=75)
    assert len(n1.running(name)) + len(n2.running(name)) == 1


@pytest.mark.parametrize("gone", ["lost", "barred", "leaving", "small"])
def test_a_node_that_could_not_take_it_is_not_waited_for(gone: str) -> None:
    play = Play()
    n1, n2 = play.node("n1", slots=2), play.node("n2", slots=1 if gone == "small" else 2)
    name = play.submit(job("j", tasks(arms=[ELSEWHERE], slots=2), preparation=prep()))
    first, other = (n1, n2) if n1.grants else (n2, n1)
    first.prepared(name)
    if gone == "lost":
        other.drop()
    elif gone == "leaving":
        other.say(m.Leaving())
    first.end(name, exit_code=75)
    if gone == "barred":
        assert first.running(name) == []
        other.prepared(name, ok=False)
        other.give_back(name)
    assert len(first.running(name)) == 1


def test_a_task_that_waited_goes_back_when_the_other_node_is_gone() -> None:
    play, n1, n2, name = two_at_work(tasks(size=2, arms=[ELSEWHERE]))
    n1.end(name, exit_code=75)
    assert n1.running(name) == []
    n2.drop()
    play.wait(20)
    assert n1.labels(name) == [0]


def test_where_a_task_failed_is_known_after_a_restart() -> None:
    play, n1, n2, name = two_at_work(tasks(size=2, arms=[ELSEWHERE]))
    n1.end(name, exit_code=75)
    play.restart()
    n2.join()
    n1.join()
    assert n1.running(name) == []
    n2.end(name)
    assert n2.labels(name) == [0]


def test_a_wide_task_that_goes_elsewhere_has_the_other_node_kept_free_for_it() -> None:
    play = Play()
    n1, n2 = play.node("n1", slots=2), play.node("n2", slots=2)
    name = play.submit(job("j", tasks("wide", arms=[ELSEWHERE], slots=2), tasks("thin", size=20)))
    first, other = (n1, n2) if 0 in n1.labels(name) and len(n1.running(name)) == 1 else (n2, n1)
    first.end(name, exit_code=75)
    other.end(name)
    assert len(other.running(name)) == 1
    other.end(name)
    assert [held.run.group for held in other.grants.values()] == [0]
    assert play.show(name)["tasks"]["succeeded"] == 2


def test_many_that_wait_for_another_node_cost_a_pass_little() -> None:
    play = Play(checking=False)
    n1 = play.node("n1", slots=500)
    name = play.submit(job("j", tasks(size=500, arms=[ELSEWHERE])))
    n2 = play.node("n2", slots=1)
    other = play.submit(job("k", tasks(), pool="p", priority=5))
    assert len(n2.running(other)) == 1
    n1.end(name, exit_code=75, count=500)
    assert n1.running(name) == []
    for left in range(499, -1, -1):
        n2.end(exit_code=0)
        assert play.show(name)["tasks"]["active"] == left
