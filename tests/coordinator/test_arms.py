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
    long, short = {"first_ms": 86_400_000, "cap_ms": 86_400_000}, {"first_ms": 1, "cap_ms": 1}
    play, n1, name = at_work(arm("retry", 75, times=1, backoff=long), retries=9, backoff=short)
    n1.end(exit_code=1)
    play.wait(1)
    assert len(n1.running(name)) == 1
    n1.end(exit_code=75)
    play.wait(1)
    assert n1.running(name) == []
    play.wait(86_400)
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
