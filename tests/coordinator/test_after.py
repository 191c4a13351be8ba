"""`after` in all its forms: what runs when, what is skipped and why, before and after a restart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator import readiness, records
from coordinator.cluster import Cluster
from coordinator.model import OVER, TaskState
from coordinator.records import GroupSkipped, TasksSkipped
from tests.coordinator.playbook import FakeNode, Play, job, tasks
from tests.coordinator.sweeping import groups
from tests.simulator.conditions import End, Stand, stands
from tests.simulator.sameness import difference
from wire import messages as m

ENDS = {
    TaskState.SUCCEEDED: End.SUCCEEDED,
    TaskState.FAILED: End.FAILED,
    TaskState.CANCELLED: End.CANCELLED,
    TaskState.SKIPPED: End.SKIPPED,
}
DESKS = {"names": ["desk"], "values": ["fx", "rates"]}
DAYS = {"names": ["day"], "range": [1, 3, 1]}


def swept(name: str, *axes: Any, after: Any = (), optional: bool = False, **options: Any) -> dict[str, Any]:
    return {**tasks(name, after=after, **options), "axes": list(axes), "optional": optional}


def on(group: int, *axes: str, when: str = "succeeded") -> dict[str, Any]:
    return {"group": group, "when": when, "axes": list(axes)}


def playing(*found: Any, slots: int = 50, **options: Any) -> tuple[Play, FakeNode, str]:
    play = Play()
    node = play.node("n1", slots=slots)
    return play, node, play.submit(job("j", *found, **options))


def end(play: Play, name: str, task: str, exit_code: int = 0) -> None:
    """A task that runs ends."""
    group = next(g for g in play.core.cluster.jobs[name].groups if task.split("[")[0] == g.spec.name)
    index = group.sweep.find(task)
    for node in play.nodes.values():
        for grant, position in node.running(name):
            if node.grants[grant].run.group == group.number and node.index(grant, position) == index:
                node.report([node.task_end(grant, position, exit_code)])
                return
    raise AssertionError(f"{task} does not run: {running(play, name)}")


def running(play: Play, name: str) -> list[str]:
    return labels(play, name, TaskState.GRANTED)


def labels(play: Play, name: str, state: TaskState) -> list[str]:
    found = play.core.cluster.jobs[name].groups
    return [g.sweep.label(index) for g in found for index in range(g.size) if g.state[index] == state]


# ---- line by line of what the language says


def test_a_task_waits_for_all_of_another() -> None:
    play, _, name = playing(swept("a", DESKS), swept("b", after=[on(0)]))
    end(play, name, "a[fx]")
    assert running(play, name) == ["a[rates]"]
    end(play, name, "a[rates]")
    assert running(play, name) == ["b"]


def test_a_task_is_skipped_at_once_when_one_of_those_failed() -> None:
    play, _, name = playing(swept("a", DESKS), swept("b", after=[on(0)]))
    end(play, name, "a[rates]", 1)
    assert running(play, name) == ["a[fx]"]
    assert labels(play, name, TaskState.SKIPPED) == ["b"]
    assert play.task(f"{name}/b")["reason"] == (
        "`after = a` can no longer come true: not every task of `a` succeeded"
    )  # fmt: skip


def test_done_waits_for_every_end_however_it_was() -> None:
    play, _, name = playing(swept("a", DESKS), swept("b", after=[on(0, when="done")]))
    end(play, name, "a[rates]", 1)
    assert running(play, name) == ["a[fx]"]
    end(play, name, "a[fx]")
    assert running(play, name) == ["b"]


def test_done_is_true_too_when_all_was_skipped() -> None:
    play, _, name = playing(swept("a"), swept("b", after=[on(0)]), swept("c", after=[on(1, when="done")]))
    end(play, name, "a", 1)
    assert running(play, name) == ["c"]


def test_failed_is_true_at_the_first_failure_for_good() -> None:
    play, _, name = playing(swept("a", DAYS, retries=1), swept("b", after=[on(0, when="failed")]))
    end(play, name, "a[2]", 1)
    assert "b" not in running(play, name)
    end(play, name, "a[2]", 1)
    assert running(play, name) == ["a[1]", "a[3]", "b"]


def test_what_waits_for_a_failure_is_skipped_when_there_was_none() -> None:
    play, n1, name = playing(swept("a", DESKS), swept("b", after=[on(0, when="failed")]))
    n1.end_all(name)
    assert labels(play, name, TaskState.SKIPPED) == ["b"]
    assert play.task(f"{name}/b")["reason"] == (
        "`after = a.failed` can no longer come true: all of `a` that it asks for are over, and none failed"
    )
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_by_value_each_waits_for_its_own_only() -> None:
    play, _, name = playing(swept("a", DESKS), swept("b", DAYS, DESKS, after=[on(0, "desk")]))
    end(play, name, "a[rates]")
    assert running(play, name) == ["a[fx]", "b[1,rates]", "b[2,rates]", "b[3,rates]"]


def test_by_value_each_is_skipped_for_its_own_only_and_says_whose_fault_it_is() -> None:
    play, _, name = playing(swept("a", DESKS), swept("b", DAYS, DESKS, after=[on(0, "desk")]))
    end(play, name, "a[fx]", 1)
    assert labels(play, name, TaskState.SKIPPED) == ["b[1,fx]", "b[2,fx]", "b[3,fx]"]
    reason = "`after = a[desk]` can no longer come true: `a[fx]` failed"
    assert play.task(f"{name}/b[2,fx]")["reason"] == reason
    assert [task["reason"] for task in play.admin.ask(m.TaskList, job=name, state="skipped")] == [reason] * 3
    assert play.task(f"{name}/b[2,rates]")["reason"] == (
        "it waits for `a[desk=rates]`: 1 of 1 task did not succeed yet"
    )  # fmt: skip


def test_an_axis_that_is_left_out_means_all_of_it() -> None:
    play, _, name = playing(swept("a", DESKS, DAYS), swept("b", DESKS, after=[on(0, "desk")]))
    for day in (1, 2):
        end(play, name, f"a[fx,{day}]")
    assert "b[fx]" not in running(play, name)
    end(play, name, "a[fx,3]")
    assert "b[fx]" in running(play, name)
    assert "b[rates]" not in running(play, name)


def test_by_value_with_done_and_with_failed() -> None:
    after = (
        swept("d", DESKS, after=[on(0, "desk", when="done")]),
        swept("f", DESKS, after=[on(0, "desk", when="failed")]),
    )
    play, _, name = playing(swept("a", DESKS, DAYS), *after)
    end(play, name, "a[fx,2]", 1)
    assert [task for task in running(play, name) if task[0] in "df"] == ["f[fx]"]
    for task in ("a[fx,1]", "a[fx,3]", "a[rates,1]", "a[rates,2]", "a[rates,3]"):
        end(play, name, task)
    assert running(play, name) == ["d[fx]", "d[rates]", "f[fx]"]
    assert labels(play, name, TaskState.SKIPPED) == ["f[rates]"]


def test_several_axes_are_matched_in_whatever_order_they_stand() -> None:
    play, _, name = playing(swept("a", DESKS, DAYS), swept("b", DAYS, DESKS, after=[on(0, "day", "desk")]))
    end(play, name, "a[rates,2]")
    assert [task for task in running(play, name) if task[0] == "b"] == ["b[2,rates]"]


def test_a_list_means_all_of_them() -> None:
    play, _, name = playing(
        swept("a", DESKS), swept("b"), swept("c", DESKS, after=[on(0, "desk"), on(1), on(0, "desk", when="done")])
    )
    end(play, name, "a[fx]")
    assert "c[fx]" not in running(play, name)
    end(play, name, "b")
    assert running(play, name) == ["a[rates]", "c[fx]"]


def test_values_that_one_side_lacks() -> None:
    """All of nothing is true at once; a failure among nothing never comes."""
    some = {"names": ["desk"], "values": ["fx", "oil", "gold"]}
    play, _, name = playing(
        swept("a", DESKS),
        swept("b", some, after=[on(0, "desk")]),
        swept("c", some, after=[on(0, "desk", when="done")]),
        swept("d", some, after=[on(0, "desk", when="failed")]),
    )
    assert running(play, name) == ["a[fx]", "a[rates]", "b[oil]", "b[gold]", "c[oil]", "c[gold]"]
    assert labels(play, name, TaskState.SKIPPED) == ["d[oil]", "d[gold]"]


def test_values_are_the_same_when_commands_see_the_same() -> None:
    numbers, texts = {"names": ["n"], "range": [1, 3, 1]}, {"names": ["n"], "values": ["3", "1", "x"]}
    play, _, name = playing(swept("a", numbers), swept("b", texts, after=[on(0, "n")]))
    end(play, name, "a[3]")
    assert running(play, name) == ["a[1]", "a[2]", "b[3]", "b[x]"]


def test_skips_go_on_by_value() -> None:
    play, _, name = playing(
        swept("a", DESKS),
        swept("b", DAYS, DESKS, after=[on(0, "desk")]),
        swept("c", DAYS, DESKS, after=[on(1, "day", "desk")]),
        swept("e", DESKS, after=[on(2, "desk")]),
    )
    end(play, name, "a[fx]", 1)
    assert labels(play, name, TaskState.SKIPPED) == [
        *(f"b[{day},fx]" for day in (1, 2, 3)), *(f"c[{day},fx]" for day in (1, 2, 3)), "e[fx]",
    ]  # fmt: skip
    assert play.task(f"{name}/e[fx]")["reason"] == (
        "`after = c[desk]` can no longer come true: `c[1,fx]` was skipped"
    )  # fmt: skip
    assert len(play.kept_of(TasksSkipped)) == 3
    play.run_out(name)
    assert play.show(name)["tasks"]["succeeded"] == 8


def test_ready_tasks_go_out_in_order_and_as_ranges() -> None:
    big = {"names": ["i"], "range": [0, 99, 1]}
    play, n1, name = playing(swept("a", big), swept("b", big, after=[on(0, "i")]), slots=100)
    for first in (50, 10):
        n1.report(
            [n1.task_end(grant, at) for grant, at in n1.running(name) if first <= n1.index(grant, at) < first + 20]
        )
    runs = [(run.first, run.count, run.step) for run in n1.heard(m.Run) if run.group == 1]
    assert runs == [(50, 20, 1), (10, 20, 1)]


def test_every_second_task_goes_out_as_one_range() -> None:
    big = {"names": ["i"], "range": [0, 49, 1]}
    play, n1, name = playing(swept("a", DESKS), swept("b", big, DESKS, after=[on(0, "desk")]), slots=100)
    end(play, name, "a[rates]")
    assert [(run.first, run.count, run.step) for run in n1.heard(m.Run) if run.group == 1] == [(1, 50, 2)]


# ---- optional


def test_a_failure_that_is_optional_holds_up_nobody_and_spoils_nothing() -> None:
    play, _, name = playing(
        swept("a", DESKS, optional=True), swept("b", after=[on(0)]), swept("c", DESKS, after=[on(0, "desk")]),
        stop_after=1,
    )  # fmt: skip
    end(play, name, "a[fx]", 1)
    assert running(play, name) == ["a[rates]", "c[fx]"]
    end(play, name, "a[rates]", 1)
    assert running(play, name) == ["b", "c[fx]", "c[rates]"]
    play.run_out(name)
    shown = play.show(name)
    assert (shown["result"], shown["tasks"]["failed"], shown["optional_failed"]) == ("success", 2, 2)
    assert play.task(f"{name}/a[fx]")["result"] == "failure"


def test_a_skip_of_what_is_optional_goes_on_to_who_waits_for_it() -> None:
    play, _, name = playing(swept("a"), swept("b", after=[on(0)], optional=True), swept("c", after=[on(1)]))
    end(play, name, "a", 1)
    assert labels(play, name, TaskState.SKIPPED) == ["b", "c"]
    play.run_out(name)
    assert play.show(name)["result"] == "failure"


def test_a_stop_of_what_is_optional_is_one_still() -> None:
    arm = {"codes": [[9, 9]], "action": "stop"}
    play, _, name = playing(swept("a", optional=True, arms=[arm]), swept("b", DAYS), slots=1)
    end(play, name, "a", 9)
    assert play.show(name)["end_reason"] == "TaskFailed"


# ---- restarts


def test_what_was_ready_or_not_is_known_after_a_restart() -> None:
    play, n1, name = playing(
        swept("a", DESKS), swept("b", DAYS, DESKS, after=[on(0, "desk")]), swept("c", DESKS, after=[on(1, "desk")]),
        slots=2,
    )  # fmt: skip
    end(play, name, "a[rates]")
    end(play, name, "b[1,rates]", 1)
    before = list(play.core.cluster.jobs[name].groups[1].state)
    play.restart()
    n1.join()
    assert list(play.core.cluster.jobs[name].groups[1].state) == before
    assert labels(play, name, TaskState.SKIPPED) == ["c[rates]"]
    play.run_out(name)
    counts = play.show(name)["tasks"]
    assert (counts["succeeded"], counts["failed"], counts["skipped"]) == (8, 1, 1)


def test_a_retry_of_one_by_value_comes_back_after_a_restart_with_its_number() -> None:
    play, n1, name = playing(swept("a", DESKS), swept("b", DESKS, after=[on(0, "desk")], retries=1), slots=2)
    end(play, name, "a[rates]")
    end(play, name, "b[rates]", 1)
    n1.give_back(name)
    play.restart()
    n1.join()
    assert n1.grants[max(n1.grants)].run.attempt == 2 or 2 in {held.run.attempt for held in n1.grants.values()}
    end(play, name, "b[rates]", 1)
    assert labels(play, name, TaskState.FAILED) == ["b[rates]"]


def test_a_log_of_an_earlier_version_is_replayed_to_the_same_state() -> None:
    play, _, name = playing(swept("a", DESKS), swept("b", after=[on(0)]))
    end(play, name, "a[fx]")
    rows = []
    for scope, body in play.rows:
        assert isinstance(records.decode(body), records.Record)
        rows.append((scope, body.replace(b"\x83\xa5group\x00\xa4when\xa9succeeded\xa4axes\x90", b"\x00")))
    assert rows != play.rows
    play.restart(rows)
    assert labels(play, name, TaskState.SUCCEEDED) == ["a[fx]"]
    play.nodes["n1"].join()
    end(play, name, "a[rates]")
    assert running(play, name) == ["b"]


def test_what_a_retried_job_waited_for_by_value_is_waited_for_again() -> None:
    play, _, name = playing(swept("a", DESKS), swept("b", DAYS, DESKS, after=[on(0, "desk")]))
    end(play, name, "a[fx]", 1)
    play.run_out(name)
    assert play.core.cluster.jobs[name].groups[1].gate is None, "nothing is kept for what nobody waits for"
    assert retry(play, name)
    assert running(play, name) == ["a[fx]"]
    assert play.task(f"{name}/b[2,fx]")["reason"] == "it waits for `a[desk=fx]`: 1 of 1 task did not succeed yet"
    end(play, name, "a[fx]")
    assert running(play, name) == ["b[1,fx]", "b[2,fx]", "b[3,fx]"]
    play.run_out(name)
    assert (play.show(name)["result"], play.show(name)["tasks"]["succeeded"]) == ("success", 8)


def test_who_waits_for_a_cancelled_task_by_value_is_skipped() -> None:
    play, _, name = playing(swept("a", DESKS), swept("b", DESKS, after=[on(0, "desk")]), slots=1)
    assert running(play, name) == ["a[fx]"]
    play.admin.ask(m.TaskCancel, f"{name}/a[rates]")
    assert labels(play, name, TaskState.SKIPPED) == ["b[rates]"]
    assert play.task(f"{name}/b[rates]")["reason"] == (
        "`after = a[desk]` can no longer come true: `a[rates]` was cancelled"
    )


# ---- against every pair asked one by one

STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), max_size=40)


def cancel(play: Play, name: str, which: int) -> None:
    """Some task of it is cancelled, unless it is over."""
    found = [(group, index) for group in play.core.cluster.jobs[name].groups for index in range(group.size)]
    group, index = found[which % len(found)]
    task = f"{group.spec.name}#{index}" if group.sweep.axes else group.spec.name
    play.admin.start(m.TaskCancel, f"{name}/{task}")


def retry(play: Play, name: str) -> bool:
    """What did not succeed of a job runs again; whether there is any."""
    return isinstance(play.admin.answers[play.admin.start(m.JobRetry, name, [], [])], m.Reply)


def judge(play: Play, name: str, *, again: bool = False) -> None:
    """With room for all, what runs is what may run, and what is skipped is what never will. `again`: what was over when
    its job was reopened may have been so for reasons that no longer hold."""
    found = play.core.cluster.jobs[name]
    sweeps = [group.sweep for group in found.groups]

    def end_of(group: int, index: int) -> End | None:
        return ENDS.get(TaskState(found.groups[group].state[index]))

    for group in found.groups:
        for index in range(group.size):
            stand = stands(found.spec, sweeps, group.number, index, end_of)
            state = TaskState(group.state[index])
            what = f"{group.sweep.label(index)} is {state.name}, its condition {stand.value}"
            missing = list(readiness.unmet(found, group, index))
            assert bool(missing) == (stand is not Stand.TRUE), what
            assert any(each.spoilt for each in missing) == (stand is Stand.NEVER), what
            if state is TaskState.CANCELLED or (again and state in OVER):
                continue
            if stand is Stand.TRUE:
                assert state not in (TaskState.ACTIVE, TaskState.SKIPPED), what
            elif stand is Stand.NEVER:
                assert state is TaskState.SKIPPED, what
            else:
                assert state is TaskState.ACTIVE, what


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(groups(), STEPS)
def test_what_runs_is_what_may_whatever_the_sweeps_and_conditions(found: list[Any], steps: list[Any]) -> None:
    play = Play()
    n1 = play.node("n1", slots=4000)
    name = play.submit(job("j", *found, finish="manual"))
    judge(play, name)
    for what, which in steps:
        runs = n1.running(name)
        if what == 0:
            play.restart()
            n1.join()
        elif what == 1:
            n1.give_back(name)
        elif what == 2 and which < 20:
            cancel(play, name, which)
            while n1.stopped():
                pass
        elif runs:
            some = runs[which % len(runs) :][: 1 + which % 5]
            n1.report([n1.task_end(grant, at, 1 if what < 5 else 0) for grant, at in some])
        judge(play, name)
    n1.end_all(name)
    play.obey()
    judge(play, name)
    assert play.core.cluster.jobs[name].tasks_over
    play.terminate(name)
    play.obey()
    if retry(play, name):
        judge(play, name, again=True)
        play.restart()
        n1.join()
        judge(play, name, again=True)
        for code in (1, 0):
            n1.end_all(name, code)
            judge(play, name, again=True)
        play.obey()
        assert play.core.cluster.jobs[name].tasks_over
    replayed = Cluster()
    for _, body in play.rows:
        replayed.apply(records.decode(body))
    assert difference(play.core.cluster, replayed) is None


@pytest.mark.parametrize("kind", [GroupSkipped, TasksSkipped])
def test_skipped_tasks_are_told_once_each(kind: type[Any]) -> None:
    axes = () if kind is GroupSkipped else ("desk",)
    play, _, name = playing(swept("a", DESKS), swept("b", DESKS, after=[on(0, *axes), on(0, *axes, when="failed")]))
    end(play, name, "a[fx]", 1)
    end(play, name, "a[rates]", 1)
    kept = play.kept_of(kind)
    assert len(kept) == (1 if kind is GroupSkipped else 2)
