"""What a node says can't be what breaks the coordinator: absurd times, amounts and spans are kept in bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from coordinator import plausible
from coordinator.records import ReportTaken, TasksReturned
from tests.coordinator.playbook import FakeNode, Play, job, phase_end, prep, tasks
from wire import messages as m

POOL = {"name": "p", "slots": 2}
WORST_TIMES = [math.nan, math.inf, -math.inf, 1e300, -1e300, -1.0]


def running(**options: Any) -> tuple[Play, FakeNode, str]:
    play = Play()
    node = play.node("n0")
    return play, node, play.submit(job("j", tasks(size=4, retries=1), **options), pools=[POOL])


def show_everything(play: Play, job_id: str) -> None:
    for kind in (m.JobShow, m.JobNodes, m.TaskList):
        play.admin.ask(kind, job_id)
    play.admin.ask(m.TaskShow, f"{job_id}/t[0]")
    play.admin.ask(m.Overview)


@pytest.mark.parametrize("exit_code", [0, 1])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("started_at", at) for at in WORST_TIMES),
        *(("ended_at", at) for at in WORST_TIMES),
        *(("cpu_s", at) for at in WORST_TIMES),
        ("max_rss_bytes", -1),
        ("max_rss_bytes", 2**63 - 1),
        ("signal", -(2**63)),
        ("reason", "x" * 100_000),
    ],
)
def test_t3_the_end_of_a_task_is_kept_and_shown_whatever_it_says(field: str, value: Any, exit_code: int) -> None:
    play, node, job_id = running()
    grant, position = node.running()[0]
    node.report([node.task_end(grant, position, exit_code, **{field: value})])
    show_everything(play, job_id)
    assert max(len(body) for _, body in play.rows) < 10_000
    play.restart()
    show_everything(play, job_id)


@pytest.mark.parametrize("at", WORST_TIMES)
def test_t3_the_course_of_a_preparation_is_kept_and_shown_whatever_its_times_are(at: float) -> None:
    play, node, job_id = running(preparation=prep(retries=1))
    node.say(m.PhaseStarted(job_id, 1, m.Phase.PREPARATION, 2**63 - 1, at))
    node.say(m.Started([(*node.running()[0], at)]))
    show_everything(play, job_id)
    tail = b"x" * 200_000
    worst = {"started_at": at, "ended_at": at, "stdout_tail": tail, "leftovers": ["y" * 5000] * 200}
    node.report(phases=[phase_end(job_id, 1, m.Phase.PREPARATION, False, final=False, attempt=-5, **worst)])
    show_everything(play, job_id)
    (row,) = play.admin.ask(m.JobNodes, job_id)
    assert len(row["prep"]["stdout_tail"]) == plausible.MAX_TAIL
    play.restart()
    show_everything(play, job_id)


def test_t3_a_node_reports_nothing_of_rounds_that_it_was_never_given() -> None:
    play, node, job_id = running(parallel=1)
    other = play.node("other")
    assert job_id not in {name for name, _ in other.rounds}
    before = len(play.kept_of(ReportTaken))
    other.report(phases=[phase_end(job_id, 1, m.Phase.RELEASE, True), phase_end("none-1", 1, m.Phase.RELEASE, True)])
    assert len(play.kept_of(ReportTaken)) == before
    assert [(row["node"], row["state"]) for row in play.admin.ask(m.JobNodes, job_id)] == [("n0", "prepared")]


def test_t6_spans_that_name_the_same_tasks_again_and_again_cost_what_they_are_worth() -> None:
    play = Play(checking=False)
    node = play.node("n0", slots=1000)
    job_id = play.submit(job("j", tasks(size=1000)), pools=[{"name": "p", "slots": 1000}])
    (grant,) = [number for number, held in node.grants.items() if held.run.count > 500]
    count = node.grants[grant].run.count
    node.say(m.Recalled(grant, [(0, count), (-1, 5), (count - 1, 2), (5, 0)] + [(0, count - 1)] * 50_000))
    (returned,) = play.kept_of(TasksReturned)
    assert returned.spans == [(0, count)]
    assert play.show(job_id)["tasks"]["total"] == 1000


def test_what_is_plausible_is_left_as_it_is() -> None:
    end = m.TaskEnd(1, 0, m.Outcome.EXITED, 0, None, 1.7e9, 1.7e9 + 5, 0.5, 1 << 20, "fine")
    assert plausible.task_end(end) is end
    assert plausible.wall(1.7e9) == 1.7e9


@pytest.mark.parametrize(
    ("offers", "said"),
    [
        ({"resources": {f"r{n}": 1.0 for n in range(33)}}, "32 resources at most"),
        ({"worn": {f"l{n}": "" for n in range(33)}}, "32 labels"),
        ({"resources": {"\x1b[2J": 1.0}}, "names a resource as no task could"),
        ({"worn": {"zone": "\x1b[2J"}}, "a label that nobody could ask for"),
        ({"worn": {"a b": ""}}, "a label that nobody could ask for"),
    ],
)
def test_a_node_that_offers_what_can_not_be_listed_or_asked_for_may_not_join(offers: dict[str, Any], said: str) -> None:
    play = Play()
    node = FakeNode(play, "n1", "p", 1, "boot-1")
    for field, value in offers.items():
        setattr(node, field, value)
    node.join()
    assert not node.joined
    assert said in node.closed[0]
