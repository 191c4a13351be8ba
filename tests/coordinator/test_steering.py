"""Jobs that are disabled, enabled and changed while they live, and tasks that are cancelled one by one."""

from __future__ import annotations

import pytest

from coordinator import steering
from coordinator.model import JOB_TRANSITIONS, JobState
from tests.coordinator.playbook import FakeNode, Play, job, prep, release, tasks
from wire import messages as m

REQUEUE, TERMINATE, WAIT = m.Disabling.REQUEUE, m.Disabling.TERMINATE, m.Disabling.WAIT
HOWS = (REQUEUE, TERMINATE, WAIT)


def running(play: Play, size: int = 4, slots: int = 2, **options: object) -> tuple[FakeNode, str]:
    """A prepared node that runs two of a job's tasks."""
    n1 = play.node("n1", slots=slots)
    name = play.submit(job("j", tasks(size=size, retries=1), preparation=prep(), release=release(), **options))
    n1.prepared(name)
    return n1, name


def disable(play: Play, name: str, how: m.Disabling) -> str:
    state: str = play.admin.ask(m.JobDisable, name, how)["state"]
    return state


def enable(play: Play, name: str) -> str:
    state: str = play.admin.ask(m.JobEnable, name)["state"]
    return state


# ---- disable


def test_requeued_tasks_are_stopped_and_run_again_without_a_retry_spent() -> None:
    play = Play()
    n1, name = running(play)
    assert disable(play, name, REQUEUE) == "disabling"
    assert [(stop.spans, stop.reason) for stop in n1.stops] == [([(0, 2)], "its job was disabled")]
    play.obey()
    assert play.show(name)["state"] == "disabled"
    shown = play.task(f"{name}/t[0]")
    assert (shown["state"], shown["attempts"]) == ("active", 1)
    assert [(entry["verdict"], entry["reason"]) for entry in shown["history"]] == [("requeued", "its job was disabled")]
    assert enable(play, name) == "active"
    assert n1.labels(name) == [0, 1]
    n1.end(name, exit_code=1)
    assert play.task(f"{name}/t[0]")["state"] == "running", "its one retry was left"
    play.run_out(name)
    assert play.show(name)["result"] == "success"
    assert play.rounds(name) == [("n1", 1, "released")]


def test_terminated_tasks_failed_and_do_not_run_again() -> None:
    play = Play()
    n1, name = running(play, stop_after=1)
    disable(play, name, TERMINATE)
    play.obey()
    assert play.show(name)["state"] == "disabled"
    shown = play.task(f"{name}/t[0]")
    assert (shown["result"], shown["reason"]) == ("failure", "its job was disabled")
    enable(play, name)
    assert play.show(name)["state"] == "active", "nobody's tasks failed by themselves"
    play.run_out(name)
    counts = play.show(name)["tasks"]
    assert (counts["failed"], counts["succeeded"]) == (2, 2)


def test_tasks_that_are_waited_for_end_by_themselves_and_nothing_follows_them() -> None:
    play = Play()
    n1, name = running(play)
    assert disable(play, name, WAIT) == "disabling"
    assert n1.stops == []
    n1.end(name)
    assert n1.labels(name) == [1]
    assert play.show(name)["state"] == "disabling"
    n1.end(name, exit_code=1)
    assert play.show(name)["state"] == "disabled"
    assert play.task(f"{name}/t[1]")["state"] == "active", "its retry is for later"
    enable(play, name)
    play.run_out(name)
    assert play.show(name)["result"] == "success"


@pytest.mark.parametrize("how", HOWS)
def test_what_is_queued_ahead_comes_back_before_a_job_is_disabled(how: m.Disabling) -> None:
    play = Play()
    n1, name = running(play, size=400, slots=1)
    for _ in range(3):
        n1.end(name, started_at=play.wall - 0.001)
    assert len(n1.labels(name)) > 1, "some are queued ahead"
    spawned = len(n1.spawned)
    disable(play, name, how)
    play.obey()
    assert play.show(name)["state"] == "disabled"
    assert len(n1.spawned) <= spawned + 1
    assert not n1.running(name)


@pytest.mark.parametrize("how", HOWS)
def test_a_disabled_job_is_given_nothing_and_is_so_after_a_restart(how: m.Disabling) -> None:
    play = Play()
    n1, name = running(play)
    disable(play, name, how)
    play.obey()
    play.restart()
    n1.join()
    play.node("n2", slots=4)
    assert play.show(name)["state"] == "disabled"
    assert n1.running() == play.nodes["n2"].running() == []
    enable(play, name)
    play.run_out(name)
    assert play.show(name)["state"] == "completed"


@pytest.mark.parametrize("how", HOWS)
def test_a_node_that_comes_back_is_asked_again(how: m.Disabling) -> None:
    play = Play()
    n1, name = running(play)
    disable(play, name, how)
    n1.drop()
    play.restart()
    n1.join()
    play.obey()
    assert play.show(name)["state"] == "disabled"


def test_a_job_with_work_on_a_lost_node_is_disabled_when_the_lease_is_over() -> None:
    play = Play()
    n1, name = running(play)
    n1.drop()
    assert disable(play, name, REQUEUE) == "disabling"
    play.wait(600)
    assert play.show(name)["state"] == "disabling"
    play.wait(600)
    assert play.show(name)["state"] == "disabled"
    assert play.show(name)["tasks"]["active"] == 4


def test_what_a_lost_node_had_of_a_terminated_job_runs_again_as_nobody_knows_how_far_it_came() -> None:
    play = Play()
    n1, name = running(play)
    n1.drop()
    assert disable(play, name, TERMINATE) == "disabling"
    play.wait(1_200)
    shown = play.show(name)
    assert (shown["state"], shown["tasks"]["active"], shown["tasks"]["failed"]) == ("disabled", 4, 0)
    assert play.task(f"{name}/t[0]")["history"][0]["verdict"] == "lost"


def test_a_timeout_that_is_set_to_what_has_passed_ends_the_job_before_the_answer() -> None:
    play = Play()
    n1, name = running(play)
    play.wait(60)
    assert play.admin.ask(m.JobSet, job=name, timeout_ms=60_000)["state"] == "terminating"
    play.obey()
    assert play.show(name)["end_reason"] == "MaxWallClockTimeExpiry"


def test_a_preparation_that_runs_goes_on_while_its_job_is_disabled() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    disable(play, name, WAIT)
    assert n1.rounds[name, 1] is m.RoundState.PREPARING
    n1.prepared(name)
    n1.give_back(name)
    assert play.show(name)["state"] == "disabled"
    assert play.rounds(name) == [("n1", 1, "prepared")]
    enable(play, name)
    play.run_out(name)
    assert len(n1.heard(m.Prepare)) == 1


def test_a_disabled_job_releases_nothing_and_owes_what_it_owed() -> None:
    play = Play()
    n1, name = running(play)
    disable(play, name, REQUEUE)
    play.obey()
    play.wait(10_000)
    assert play.show(name)["release"]["owed"] == 1
    assert not n1.heard(m.ReleaseRound)


def test_the_timeout_of_a_disabled_job_goes_on() -> None:
    play = Play()
    n1, name = running(play, timeout_ms=60_000)
    disable(play, name, REQUEUE)
    play.obey()
    play.restart()
    n1.join()
    play.wait(61)
    play.obey()
    assert play.show(name)["end_reason"] == "MaxWallClockTimeExpiry"
    assert play.rounds(name) == [("n1", 1, "released")]


def test_a_disabled_job_without_a_node_left_does_not_end_for_that() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    disable(play, name, REQUEUE)
    n1.prepared(name, ok=False)
    play.obey()
    play.wait(60)
    assert play.show(name)["state"] == "disabled"
    enable(play, name)
    play.wait(60)
    play.obey()
    assert play.show(name)["end_reason"] == "NoEligibleNodes"


def test_a_job_whose_last_task_ended_meanwhile_stays_disabled_until_it_is_enabled() -> None:
    play = Play()
    n1, name = running(play, size=2)
    disable(play, name, WAIT)
    n1.end(name, count=2)
    assert play.show(name)["state"] == "disabled"
    play.wait(60)
    assert play.show(name)["state"] == "disabled"
    enable(play, name)
    play.obey()
    assert play.show(name)["result"] == "success"


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("how", HOWS)
def test_a_disabled_job_can_be_terminated_and_deleted(how: m.Disabling, settled: bool) -> None:
    play = Play()
    n1, name = running(play)
    disable(play, name, how)
    if settled:
        play.obey()
    play.terminate(name)
    play.run_out(name)
    assert play.show(name)["end_reason"] == "UserTerminate"
    assert play.rounds(name) == [("n1", 1, "released")]
    play.admin.start(m.JobDelete, name)
    play.obey()
    assert name not in play.core.cluster.jobs


def test_disabling_may_become_more_urgent_and_is_said_twice_for_nothing() -> None:
    play = Play()
    n1, name = running(play)
    disable(play, name, WAIT)
    rows = len(play.kept)
    assert disable(play, name, WAIT) == "disabling"
    assert len(play.kept) == rows
    assert n1.stops == []
    disable(play, name, REQUEUE)
    assert len(n1.stops) == 1
    play.obey()
    rows = len(play.kept)
    assert disable(play, name, TERMINATE) == "disabled"
    assert len(play.kept) == rows


def test_waiting_for_tasks_can_be_taken_back_and_stopping_them_can_not() -> None:
    play = Play()
    n1, name = running(play)
    disable(play, name, WAIT)
    assert enable(play, name) == "active"
    n1.end(name)
    assert len(n1.labels(name)) == 2
    disable(play, name, REQUEUE)
    assert "is being disabled" in play.admin.refused(m.JobEnable, name).message
    assert enable(play, play.submit(job("k"))) == "active", "what goes on goes on"


@pytest.mark.parametrize("kind", [m.JobEnable, m.JobSet, m.JobDisable], ids=lambda kind: kind.__name__)
def test_what_is_over_is_not_changed(kind: type[m.Message]) -> None:
    play = Play()
    n1, name = running(play, size=1)
    play.run_out(name)
    options = {"job": name, **({"how": WAIT} if kind is m.JobDisable else {})}
    refused = play.admin.refused(kind, **options)
    assert refused.code is m.RefusalCode.FAILED
    assert refused.message == f"job `{name}` is completed (AllTasksComplete)"


def test_a_stop_that_a_task_asks_for_ends_a_disabled_job_too() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    name = play.submit(job("j", tasks(size=3), stop_after=1))
    disable(play, name, WAIT)
    n1.end(name, exit_code=1)
    n1.end(name)
    play.obey()
    assert play.show(name)["end_reason"] == "TaskFailed"


def test_others_go_on_while_a_job_is_disabled() -> None:
    play = Play()
    n1, name = running(play)
    other = play.submit(job("k", tasks(size=2), priority=-5))
    disable(play, name, REQUEUE)
    play.obey()
    assert play.show(other)["state"] == "completed"
    assert play.show(name)["state"] == "disabled"


def test_every_state_of_a_job_can_be_reached() -> None:
    assert set().union(*JOB_TRANSITIONS.values()) == set(JobState)


# ---- set


def test_a_lower_parallel_takes_back_what_has_not_started_and_stops_nothing() -> None:
    play = Play()
    n1, name = running(play, size=9, slots=3)
    assert play.admin.ask(m.JobSet, job=name, parallel=1)["parallel"] == 1
    assert (n1.stops, len(n1.recalls)) == ([], 1)
    n1.recalled(n1.recalls.pop(), [])
    assert len(n1.labels(name)) == 3
    play.restart()
    n1.join()
    n1.end(name)
    n1.end(name)
    assert n1.labels(name) == [2]
    n1.end(name)
    assert n1.labels(name) == [3]
    play.admin.ask(m.JobSet, job=name, parallel=0)
    assert n1.labels(name) == [3, 4, 5]
    assert play.show(name)["parallel"] is None


def test_a_timeout_is_set_anew_and_counts_from_submission() -> None:
    play = Play()
    n1, name = running(play, timeout_ms=360_000)
    play.wait(100)
    play.admin.ask(m.JobSet, job=name, timeout_ms=0)
    play.wait(1_000)
    assert play.show(name)["state"] == "active"
    assert play.admin.ask(m.JobSet, job=name, timeout_ms=2_000_000)["timeout_s"] == 2_000
    play.restart()
    n1.join()
    play.wait(800)
    assert play.show(name)["state"] == "active"
    play.wait(200)
    assert play.show(name)["end_reason"] == "MaxWallClockTimeExpiry"


def test_a_timeout_that_has_passed_already_ends_the_job_at_once() -> None:
    play = Play()
    n1, name = running(play)
    play.wait(100)
    play.admin.ask(m.JobSet, job=name, timeout_ms=1_000)
    assert play.show(name)["end_reason"] == "MaxWallClockTimeExpiry"


def test_a_higher_priority_goes_first_from_then_on() -> None:
    play = Play()
    n1 = play.node("n1")
    first = play.submit(job("first", tasks(size=2)))
    second = play.submit(job("second", tasks(size=2)))
    play.admin.ask(m.JobSet, job=second, priority=5)
    n1.end(first)
    assert (n1.labels(first), n1.labels(second)) == ([], [0])
    play.admin.ask(m.JobSet, job=second, priority=-5)
    n1.end(second)
    assert (n1.labels(first), n1.labels(second)) == ([1], [])


def test_whoever_owns_a_job_holds_it_back_and_gives_himself_no_more_than_he_asked_for() -> None:
    play = Play()
    play.node("n1")
    ann = play.person("ann")
    name = play.submit(job("j", tasks(size=3), priority=10, timeout_ms=60_000), by=ann)
    ann.ask(m.JobSet, job=name, priority=-5, timeout_ms=10_000, parallel=1)
    ann.ask(m.JobSet, job=name, priority=10, timeout_ms=60_000, parallel=0)
    refused = ann.refused(m.JobSet, job=name, priority=11)
    assert (refused.code, refused.help) == (m.RefusalCode.REFUSED, "ask one of them")
    assert refused.message == "only the operators of pool `p` may set its priority above 10"
    for timeout_ms in (0, 60_001):
        assert "beyond the 60s" in ann.refused(m.JobSet, job=name, timeout_ms=timeout_ms).message
    play.person("olga", m.Role.OPERATOR).ask(m.JobSet, job=name, priority=50, timeout_ms=90_000)
    assert ann.ask(m.JobSet, job=name, parallel=7)["priority"] == 50
    assert ann.ask(m.JobSet, job=name, priority=40, timeout_ms=80_000)["timeout_s"] == 80


@pytest.mark.parametrize(
    "change", [{"priority": 1001}, {"priority": -1001}, {"parallel": -1}, {"timeout_ms": -1}, {"timeout_ms": 2**62}]
)
def test_a_change_out_of_bounds_is_refused(change: dict[str, int]) -> None:
    play = Play()
    name = play.submit(job("j"))
    assert play.admin.refused(m.JobSet, job=name, **change).code is m.RefusalCode.INVALID


def test_what_changes_nothing_keeps_no_row() -> None:
    play = Play()
    name = play.submit(job("j", priority=3))
    rows = len(play.kept)
    play.admin.ask(m.JobSet, job=name, priority=3)
    assert len(play.kept) == rows


# ---- cancel a task


def test_a_waiting_task_is_cancelled_at_once() -> None:
    play = Play()
    n1, name = running(play)
    shown = play.admin.ask(m.TaskCancel, f"{name}/t[3]")
    assert (shown["result"], shown["reason"], shown["attempts"]) == ("cancelled", "cancelled by uid:1000", 0)
    play.run_out(name)
    assert play.show(name)["tasks"]["cancelled"] == 1
    assert play.show(name)["result"] == "cancelled"
    assert (name, 0, 3, 1) not in n1.spawned


def test_a_hole_in_the_middle_of_what_waits_is_stepped_over() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=9)))
    for index in (1, 2, 5, 8):
        play.admin.ask(m.TaskCancel, f"{name}/t[{index}]")
    play.restart()
    n1.join()
    n1.slots = 9
    play.run_out(name)
    assert sorted(index for _, _, index, _ in n1.spawned) == [0, 3, 4, 6, 7]


def test_a_running_task_is_stopped_and_then_cancelled() -> None:
    play = Play()
    n1, name = running(play)
    assert play.admin.ask(m.TaskCancel, f"{name}/t[1]")["state"] == "running"
    assert [(stop.spans, stop.reason) for stop in n1.stops] == [([(1, 1)], "cancelled by uid:1000")]
    play.admin.ask(m.TaskCancel, f"{name}/t[1]")
    assert len(n1.stops) == 1
    n1.stopped()
    shown = play.task(f"{name}/t[1]")
    assert (shown["result"], shown["reason"], shown["attempts"]) == ("cancelled", "cancelled by uid:1000", 1)
    play.run_out(name)
    assert play.show(name)["tasks"]["succeeded"] == 3


def test_a_task_that_ends_well_before_its_stop_arrives_has_succeeded() -> None:
    play = Play()
    n1, name = running(play)
    play.admin.ask(m.TaskCancel, f"{name}/t[0]")
    n1.end(name)
    assert play.task(f"{name}/t[0]")["result"] == "success"


def test_a_cancelled_task_that_fails_meanwhile_is_not_tried_again() -> None:
    play = Play()
    n1, name = running(play)
    play.admin.ask(m.TaskCancel, f"{name}/t[0]")
    n1.end(name, exit_code=1)
    assert play.task(f"{name}/t[0]")["result"] == "failure"


@pytest.mark.parametrize("how", ["lost", "given back", "asked again"])
def test_a_cancelled_task_never_runs_again_whatever_becomes_of_its_node(how: str) -> None:
    play = Play()
    n1, name = running(play)
    play.admin.ask(m.TaskCancel, f"{name}/t[0]")
    if how == "given back":
        n1.recalled(n1.running()[0][0], [0])
    else:
        n1.drop()
        play.restart()
        if how == "asked again":
            n1.join()
            assert len(n1.stops) == 1
            n1.stopped()
        else:
            play.wait(2_000)
    assert play.task(f"{name}/t[0]")["result"] == "cancelled"


def test_a_task_in_backoff_is_cancelled_for_good() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=1, retries=3, backoff={"first_ms": 60_000, "cap_ms": 60_000})))
    n1.end(name, exit_code=1)
    play.admin.ask(m.TaskCancel, f"{name}/t[0]")
    play.wait(100)
    play.obey()
    assert play.show(name)["state"] == "completed"
    assert play.task(f"{name}/t[0]")["attempts"] == 1


def test_what_waits_for_a_cancelled_task_is_skipped_and_says_why() -> None:
    play = Play()
    play.node("n1")
    name = play.submit(job("j", tasks("a", 2), tasks("b", 2, after=[0])))
    play.admin.ask(m.TaskCancel, f"{name}/a[1]")
    shown = play.task(f"{name}/b[0]")
    assert shown["result"] == "skipped"
    assert "a" in shown["reason"]


def test_a_task_that_is_over_is_not_cancelled() -> None:
    play = Play()
    n1, name = running(play)
    n1.end(name)
    refused = play.admin.refused(m.TaskCancel, f"{name}/t[0]")
    assert refused.code is m.RefusalCode.FAILED
    assert refused.message == f"task `{name}/t[0]` is over already: success"


# ---- why


def why(play: Play, name: str) -> tuple[str, str]:
    told = play.admin.ask(m.Explain, name)
    return told["code"], told["reason"]


def test_explain_names_who_disabled_a_job_and_what_became_of_its_tasks() -> None:
    play = Play()
    n1, name = running(play)
    disable(play, name, REQUEUE)
    play.obey()
    code, reason = why(play, f"{name}/t[0]")
    assert (code, reason) == (
        "disabled", f"its job was disabled by uid:1000: `coordinator job enable {name}` lets it go on",
    )  # fmt: skip
    assert why(play, name)[0] == "disabled"
    assert play.show(name)["waits"] == reason
    enable(play, name)
    disable(play, name, TERMINATE)
    play.obey()
    assert why(play, f"{name}/t[0]") == (
        "killed", "it failed for good: its job was disabled at attempt 2; `job disable --terminate` gave it no other",
    )  # fmt: skip
    play.admin.ask(m.TaskCancel, f"{name}/t[3]")
    assert why(play, f"{name}/t[3]") == ("cancelled", "it was cancelled by uid:1000")


@pytest.mark.parametrize("how", HOWS)
def test_enable_is_advised_only_where_it_is_not_refused(how: m.Disabling) -> None:
    play = Play()
    _, name = running(play)
    assert disable(play, name, how) == "disabling"
    told = play.admin.ask(m.Explain, f"{name}/t[3]")
    if how is WAIT:
        assert (told["code"], told["next"]) == ("disabled", f"`coordinator job enable {name}`")
    else:
        later = f"wait; when it is disabled, `coordinator job enable {name}` lets it go on"
        assert (told["code"], told["next"]) == ("disabling", later)
        reason = "its job is being disabled by uid:1000: what runs of it is being stopped"
        assert told["reason"] == play.show(name)["waits"] == reason
        assert play.admin.refused(m.JobEnable, name)
        play.obey()
    assert enable(play, name) == "active"


def test_nobody_fills_the_ledger_by_changing_a_job_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "MAX_STEERED", 10)
    play = Play()
    name = play.submit(job("j"))
    for number in range(3):
        play.admin.ask(m.JobSet, job=name, priority=number + 1)
    play.admin.ask(m.JobDisable, name, m.Disabling.WAIT)
    play.admin.ask(m.JobEnable, name)
    play.admin.ask(m.JobDisable, name, m.Disabling.WAIT)
    play.admin.ask(m.JobSet, job=name, priority=7)
    play.restart()
    admin = play.person("uid:0", m.Role.ADMIN)
    refused = admin.refused(m.JobSet, job=name, priority=9)
    assert (refused.code, refused.help) == (m.RefusalCode.REFUSED, "submit it anew")
    admin.ask(m.JobEnable, name)
    assert admin.refused(m.JobDisable, name, m.Disabling.WAIT).code is m.RefusalCode.REFUSED
    play.node("n1")
    play.run_out(name)
    assert play.show(name)["result"] == "success"
    assert admin.refused(m.JobRetry, name).code is m.RefusalCode.REFUSED


def test_what_is_over_is_reopened_now_and_what_ends_when_it_is_over() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", release=release()))
    play.terminate(name)
    ends = play.admin.refused(m.JobSet, job=name, priority=1)
    assert ends.help == f"`coordinator job retry {name}` reopens it, once it is completed"
    n1.released(name)
    play.run_out(name)
    assert play.admin.refused(m.JobSet, job=name, priority=1).help == f"`coordinator job retry {name}` reopens it"
