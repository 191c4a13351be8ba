"""What keeps the hot path cheap, counted and not timed: records, frames and objects, never seconds."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from coordinator import records
from coordinator.events import PageAsked, Ready, Received
from coordinator.groups import TaskState
from coordinator.placement import MAX_GRANT
from coordinator.readers import PAGE
from coordinator.records import Granted, JobDeleting, JobSubmitted, PoolSet, ReportTaken
from coordinator.store import open_store
from tests.coordinator.playbook import FakeNode, Play, job, tasks
from wire import messages as m

MILLISECOND = 0.001


def run_short(play: Play, node: FakeNode, batch: int) -> None:
    """The node ends its tasks in reports of so many, each after a millisecond, until there are none."""
    while node.grants:
        ends = [
            node.task_end(grant, position, started_at=play.wall - MILLISECOND, ended_at=play.wall)
            for grant, position in node.running()[:batch]
        ]
        node.report(ends)


def test_twenty_thousand_short_tasks_cost_few_records_and_frames() -> None:
    play = Play(checking=False)
    n1 = play.node("n1", slots=2)
    name = play.submit(job("j", tasks(size=20_000)))
    before = len(play.kept)
    run_short(play, n1, batch=16)
    assert play.show(name)["tasks"]["succeeded"] == 20_000
    grants = len(play.kept_of(Granted))
    assert grants <= 20_000 // 40
    assert len(n1.heard(m.Run)) == grants
    assert len(n1.heard(m.Ack)) == len(play.kept_of(ReportTaken)) <= 20_000 // 16 + 2
    assert len(play.kept) - before <= 20_000 // 10
    assert n1.heard(m.Recall) == []


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_submission_is_one_record_and_no_object_a_task_however_many_there_are(size: int) -> None:
    play = Play(checking=False)
    play.submit(job("warm", tasks(size=10)))
    gc.collect()
    before = len(gc.get_objects())
    name = play.submit(job("j", tasks("a", size=size), tasks("b", size=size, after=[0])))
    gc.collect()
    assert len(gc.get_objects()) - before < 300
    batch = play.batches[-1].records
    assert [type(record) for record in batch if not isinstance(record, PoolSet)] == [JobSubmitted]
    assert sum(len(records.encode(record)) for record in batch) < 2_000
    assert play.show(name)["tasks"]["total"] == 2 * size


def test_a_queued_task_is_a_byte() -> None:
    play = Play(checking=False)
    name = play.submit(job("j", tasks(size=1_000_000)))
    group = play.core.cluster.jobs[name].groups[0]
    assert sys.getsizeof(group.state) < 1_000_100
    held: list[Any] = [group.again, group.waiting, group.attempts, group.failures, group.losses, group.history]
    assert not any(held)


def test_a_finished_task_is_three_and_twenty_bytes() -> None:
    play = Play(checking=False)
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=100_000)))
    n1.end()
    group = play.core.cluster.jobs[name].groups[0]
    assert group.finished is not None
    columns = [getattr(group.finished, column) for column in type(group.finished).__slots__]
    assert sum(len(column) * column.itemsize for column in columns) + len(group.state) <= 24 * 100_000
    assert not group.history


def test_a_million_tasks_are_skipped_and_cancelled_by_one_record() -> None:
    play = Play(checking=False)
    n1 = play.node("n1")
    name = play.submit(job("j", tasks("a"), tasks("b", size=1_000_000, after=[0]), tasks("c", size=1_000_000)))
    n1.end(exit_code=1)
    play.terminate(name)
    counts = play.show(name)["tasks"]
    assert (counts["skipped"], counts["failed"]) == (1_000_000, 1)
    assert counts["cancelled"] >= 999_999
    assert len(play.kept) < 20


def test_the_body_of_a_job_that_is_over_is_not_kept_in_memory() -> None:
    play = Play()
    play.node("n1")
    name = play.submit(job("j", values={"text": "x" * 100_000}))
    assert len(play.core.bodies[name]) > 100_000
    play.run_out(name)
    assert play.core.bodies == {}


def test_a_range_of_work_is_bounded_and_one_frame() -> None:
    play = Play(checking=False)
    n1 = play.node("n1", slots=4096)
    play.submit(job("j", tasks(size=5_000)))
    assert [run.count for run in n1.heard(m.Run)] == [MAX_GRANT] * 4
    assert [run.first for run in n1.heard(m.Run)] == [0, 1024, 2048, 3072]


def calls_of_a_report(nodes: int) -> int:
    """Functions called for one report of one of so many busy nodes, short tasks queued at each."""
    play = Play(checking=False)
    for number in range(nodes):
        play.node(f"n{number}", slots=2)
    play.submit(job("j", tasks(size=1_000_000)))
    for node in play.nodes.values():
        node.report([node.task_end(*node.running()[0], started_at=play.wall - MILLISECOND, ended_at=play.wall)])
    node = play.nodes["n0"]
    ends = [node.task_end(grant, position) for grant, position in node.running()[:20]]
    report = Received(node.epoch or 0, m.Report(node.number + 1, ends, []))
    count = 0

    def counted(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(counted)
    play.core.handle(report, play.now)
    play.core.take_ready()
    sys.setprofile(None)
    return count


def test_the_work_for_a_report_grows_no_faster_than_the_cluster() -> None:
    assert calls_of_a_report(80) < 5 * calls_of_a_report(20)


def calls_of(play: Play, epoch: int | None, message: m.Message, *, built_in: bool = False) -> int:
    """Functions called for one message; with `built_in` those of the interpreter too."""
    count = 0

    def counted(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call" or (built_in and event == "c_call")

    received = Received(epoch or 0, message)
    sys.setprofile(counted)
    play.core.handle(received, play.now)
    play.core.take_ready()
    sys.setprofile(None)
    return count


def busy(nodes: int, *groups: dict[str, Any]) -> tuple[Play, str]:
    play = Play(checking=False)
    for number in range(nodes):
        play.node(f"n{number}", slots=2)
    return play, play.submit(job("j", *(groups or [tasks(size=1_000_000)])))


def test_words_are_made_of_those_nodes_only_that_are_told() -> None:
    play, name = busy(400, *(tasks(f"g{number}", size=10_000) for number in range(10)))
    assert calls_of(play, play.admin.epoch, m.Explain(1, name)) < 100_000


@pytest.mark.parametrize("state", ["preparing", "running", None])
def test_a_page_of_tasks_costs_what_it_shows_however_many_others_are_out(state: str | None) -> None:
    play, name = busy(200)
    ask = m.TaskList(request=1, job=name, state=state, limit=20, after=f"{name}/t[300]")
    assert play.show(name)["tasks"]["running"] == 400
    assert calls_of(play, play.admin.epoch, ask) < 2_000


def test_a_list_of_jobs_looks_at_a_node_once_and_at_none_for_what_is_over() -> None:
    play, name = busy(50, tasks(size=100))
    play.run_out(name)
    for number in range(10):
        play.run_out(play.submit(job(f"k{number}", tasks(size=100))))
    play.submit(job("waits", tasks(size=50)))
    play.submit(job("too", tasks(size=50)))
    assert play.show("too")["tasks"]["running"] == 50
    assert calls_of(play, play.admin.epoch, m.JobList(request=1)) < 3_000


def test_who_follows_an_output_costs_the_same_however_many_nodes_a_job_has() -> None:
    counts = []
    for nodes in (20, 80):
        play, name = busy(nodes)
        for _ in range(20):
            play.admin.start(m.LogRead, task=f"{name}/t[999999]", follow=True)
        node = play.nodes["n0"]
        counts.append(calls_of(play, node.epoch, m.Started([])))
    assert counts[1] < 1.5 * counts[0]


@pytest.mark.parametrize(("state", "shown"), [(None, 200), ("running", 200), ("preparing", 0)])
def test_a_page_of_tasks_goes_through_the_nodes_once_and_not_once_a_task(state: str | None, shown: int) -> None:
    play, name = busy(400)
    after = f"{name}/t[{400 * 2 - 201}]"
    assert len(play.admin.ask(m.TaskList, job=name, state=state, limit=200, after=after)) == shown
    asked = m.TaskList(0, name, state, limit=200, after=after)
    assert calls_of(play, play.admin.epoch, asked, built_in=True) < 30_000


def test_outputs_of_what_still_runs_are_not_looked_for_at_every_node() -> None:
    play, name = busy(80)
    none = m.KeptStream(0, b"", b"")
    said = m.TaskOutputs(1, [m.TaskOutput(name, 0, 100, 7, none, none)] * 1000)
    assert calls_of(play, play.nodes["n0"].epoch, said) < 10_000


def test_readers_of_another_job_are_not_asked_of_each_record() -> None:
    play, name = busy(1, tasks(size=1))
    last: dict[str, Any] = {"next": 0, "end": False}
    while not last["end"]:
        last = play.admin.ask(m.EventsRead, since=last["next"], job=name)
    for number in range(20):
        person = play.person(f"reader-{number}", m.Role.ADMIN)
        for _ in range(4):
            person.start(m.EventsRead, since=last["next"], job=name, wait=True)
    play.core.ready.records += [JobDeleting("k-1", play.now)] * 1000
    calls = calls_of(play, play.nodes["n0"].epoch, m.Started([]))
    assert len(play.core.readers) == 80
    assert calls < 5_000


async def test_what_is_read_of_the_log_for_one_answer_is_a_few_times_what_it_tells(tmp_path: Path) -> None:
    play = Play(checking=False)
    n1 = play.node("n1", slots=2)
    play.submit(job("j", tasks(size=8_000)))
    run_short(play, n1, batch=16)
    async with open_store(tmp_path) as store:
        await store.commit([Ready(records=play.kept_of(ReportTaken))])
        page = await store.page(PageAsked(1, 1, None))
    ends = sum(len(records.decode(row.body or b"").tasks) for row in page.rows)
    assert PAGE < ends < 6 * PAGE


def test_a_node_that_says_again_how_it_is_wakes_nobody() -> None:
    play = Play()
    n1 = play.node("n1")
    play.submit(job("j"))
    n1.say(m.Health("the disk is full"))
    version = play.core.version
    for _ in range(10):
        n1.say(m.Health("the disk is full"))
    assert play.core.version == version
    assert play.node_state("n1") == "unusable"


def test_a_heartbeat_costs_no_record_and_wakes_nobody() -> None:
    play = Play()
    n1 = play.node("n1")
    play.submit(job("j"))
    before = len(play.kept)
    version = play.core.version
    for _ in range(50):
        n1.heartbeat()
    assert (len(play.kept), play.core.version) == (before, version)


# ---- after, by value

MANY = {"names": ["i"], "range": [1, 1_000_000, 1]}
FEW = {"names": ["desk"], "values": ["fx", "rates"]}
SOME = {"names": ["s"], "range": [1, 500_000, 1]}
FEW_MORE = {"names": ["s"], "range": [1, 100, 1]}


def over(name: str, *axes: Any, **after: Any) -> dict[str, Any]:
    return {**tasks(name, after=[after] if after else []), "axes": list(axes)}


@pytest.mark.parametrize(
    ("first", "then", "bytes_each"),
    [
        (over("a", MANY), over("b", MANY, group=0, axes=["i"]), 1),
        (over("a", FEW), over("b", SOME, FEW, group=0, axes=["desk"]), 1),
        (over("a", SOME, FEW), over("b", FEW, SOME, group=0, axes=["desk", "s"]), 1),
        (over("a", SOME, FEW), over("b", SOME, group=0, axes=["s"]), 2),
    ],
)
def test_a_million_tasks_are_paired_without_an_object_a_pair(first: Any, then: Any, bytes_each: int) -> None:
    play = Play(checking=False)
    play.submit(job("warm", tasks("a", size=2), over("b", FEW)))
    gc.collect()
    before, calls = len(gc.get_objects()), 0

    def counted(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(counted)
    name = play.submit(job("j", first, then))
    sys.setprofile(None)
    gc.collect()
    assert len(gc.get_objects()) - before < 400
    assert calls < 10_000
    [link] = play.core.cluster.jobs[name].groups[1].links
    counters = link.seen.itemsize * len(link.seen) if link.seen is not None else 0
    assert len(link.gate.waits) + counters <= bytes_each * link.target.size


def test_half_a_million_tasks_are_skipped_by_value_and_those_behind_them_by_three_records() -> None:
    play = Play(checking=False)
    n1 = play.node("n1", slots=2)
    name = play.submit(
        job(
            "j", over("a", FEW), over("b", SOME, FEW, group=0, axes=["desk"]),
            over("c", SOME, FEW, group=1, axes=["s", "desk"]), over("d", FEW, group=2, axes=["desk"], when="done"),
        )
    )  # fmt: skip
    before, calls = len(play.kept), 0

    def counted(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    report = Received(n1.epoch or 0, m.Report(1, [n1.task_end(*n1.running()[0], exit_code=1)], []))
    sys.setprofile(counted)
    play.core.handle(report, play.now)
    ready = play.core.take_ready()
    sys.setprofile(None)
    assert play.show(name)["tasks"]["skipped"] == 1_000_000
    assert len(ready.records) <= 5
    assert sum(len(records.encode(record)) for record in ready.records) < 2_000
    assert len(play.kept) == before
    assert calls < 5_000


def test_a_page_of_skipped_tasks_is_told_without_pairing_all_of_them_for_each() -> None:
    play = Play(checking=False)
    desks = {"names": ["desk"], "values": [f"d{number}" for number in range(1_000)]}
    name = play.submit(job("j", over("a", desks), over("b", desks, FEW_MORE, group=0, axes=["desk"])))
    play.terminate(name)
    first, then = play.core.cluster.jobs[name].groups
    first.state[:] = bytes([TaskState.FAILED]) * first.size
    then.state[:] = bytes([TaskState.SKIPPED]) * then.size
    calls = calls_of(play, play.admin.epoch, m.TaskList(request=1, job=name, state="skipped", limit=200))
    assert 200 < calls < 40_000
