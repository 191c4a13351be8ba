"""Tasks on a node: first in, first out, never more than the slots, each started once and reported once."""

from __future__ import annotations

from agentd import dispatch
from agentd.desk import FORGET_S, GATHER_S
from agentd.dialogue import ItemsRecalled, ItemStarted
from agentd.events import KeeperDead, KeeperSaid
from agentd.records import Purpose
from tests.agentd.node import Node, group, job_spec, preparation
from wire import messages as m
from wire.messages import Outcome


def joined(slots: int = 2, spec=None) -> Node:
    node = Node()
    node.join(slots=slots)
    node.open(spec or job_spec())
    return node


def test_a_granted_task_runs_and_its_end_is_reported() -> None:
    node = joined()
    node.run(7, 1)
    node.greet()
    assert node.tasks == ["7.0.0.1"]
    node.end(code=3)
    end = node.task_ends()[0]
    assert (end.grant, end.position, end.outcome, end.exit_code) == (7, 0, Outcome.EXITED, 3)
    assert node.keepers["k1"].acked == 1


def test_no_more_tasks_are_at_keepers_than_there_are_slots_while_durations_are_unknown() -> None:
    node = joined(slots=2)
    node.run(1, 10)
    node.greet()
    assert len(node.tasks) == 2
    assert len(node.of(Purpose.TASKS)) == 2


def test_whatever_runs_is_told_however_much_it_is(monkeypatch) -> None:
    monkeypatch.setattr(dispatch, "ANNOUNCED", 2)
    node = joined(slots=5)
    node.run(1, 5)
    node.greet()
    node.tell(*(KeeperSaid(keeper.name, ItemStarted(key=keeper.keys[0], at=1.0)) for keeper in node.keepers.values()))
    told = [message.tasks for message in node.said(m.Started)]
    assert sorted(position for tasks in told for _, position, _ in tasks) == [0, 1, 2, 3, 4]
    assert max(map(len, told)) == 2


def test_short_tasks_are_fed_ahead_and_shared_between_keepers() -> None:
    node = joined(slots=2)
    node.run(1, 40)
    node.greet()
    node.end(seconds=0.001)
    node.end(seconds=0.001)
    counts = sorted(len(keeper.keys) for keeper in node.of(Purpose.TASKS))
    assert sum(counts) > 30
    assert counts[0] > 10


def test_a_task_that_wants_two_slots_waits_for_both_and_keeps_its_place() -> None:
    node = joined(slots=2, spec=job_spec(group(slots=1, name="a"), group(slots=2, name="b")))
    node.run(1, 1)
    node.run(2, 1, group=1)
    node.run(3, 1, first=5)
    node.greet()
    assert node.tasks == ["1.0.0.1"]
    node.end()
    node.greet()
    assert node.tasks == ["2.0.0.2"]
    node.end()
    assert node.tasks == ["3.0.0.1"]


def test_tasks_wait_for_the_preparation_of_their_round() -> None:
    node = joined(spec=job_spec(preparation=preparation()))
    node.hear(m.Prepare("j-1", 1))
    node.run(1, 1)
    node.greet()
    assert node.tasks == []
    node.end("prep.1.1")
    node.greet()
    assert node.tasks == ["1.0.0.1"]


def test_a_recall_gives_back_what_has_not_started_and_only_that() -> None:
    node = joined(slots=1)
    node.run(1, 10)
    node.greet()
    node.end(seconds=0.005)
    assert len(node.tasks) > 1
    node.hear(m.Recall(1))
    assert node.said(m.Recalled) == [m.Recalled(1, [(2, 8)])]
    node.end()
    assert node.tasks == []
    assert node.core.ledger.grants == {}


def test_a_dropped_grant_is_killed_and_not_reported() -> None:
    node = joined(slots=1)
    node.run(1, 3)
    node.greet()
    node.hear(m.Drop([1]))
    assert node.keepers["k1"].stops == ["1.0.0.1"]
    node.end(outcome=Outcome.KILLED)
    assert node.task_ends() == []
    node.run(2, 1)
    assert node.tasks == ["2.0.0.1"]


def test_a_report_is_sent_again_until_it_is_acked() -> None:
    node = joined()
    node.run(1, 1)
    node.greet()
    node.end()
    number = node.said(m.Report)[-1].number
    node.restart()
    node.die("k1")
    node.join()
    assert [report.number for report in node.said(m.Report)] == [number]
    node.hear(m.Ack(number))
    node.wait(FORGET_S)
    node.restart()
    node.join()
    assert node.said(m.Report) == []
    node.run(2, 1)
    node.greet()
    node.end()
    assert [report.number for report in node.said(m.Report)] == [number + 1]


def test_ends_that_come_quickly_are_gathered_and_acked_only_when_they_are_durable() -> None:
    node = joined(slots=1)
    node.run(1, 30)
    node.greet()
    node.end(seconds=0.001)
    keeper = node.keepers["k1"]
    first, second = keeper.keys[:2]
    del keeper.queue[:2]
    before = len(node.said(m.Report))
    node.tell(KeeperSaid("k1", node.ended(keeper, first)))
    node.tell(KeeperSaid("k1", node.ended(keeper, second)))
    assert len(node.said(m.Report)) == before
    assert keeper.acked == 1
    node.wait(GATHER_S)
    assert len(node.said(m.Report)) == before + 1
    assert keeper.acked == 3


def test_keepers_do_not_run_dry_where_one_grant_ends_and_the_next_begins() -> None:
    node = joined(slots=1)
    node.run(1, 60)
    node.greet()
    node.end(seconds=0.001)
    node.run(2, 60, first=60)
    while node.tasks[0].startswith("1."):
        node.end(seconds=0.001)
        assert len(node.tasks) > 10


def test_tasks_for_which_no_keeper_can_be_started_fail_with_the_reason() -> None:
    node = joined(slots=1)
    node.run(1, 2)
    for number in (1, 2, 3):
        assert node.task_ends() == []
        node.keepers.pop(f"k{number}")
        node.tell(KeeperDead(f"k{number}", reason="there is no room for it"))
        node.wait(1.1)
    assert [end.outcome for end in node.task_ends()] == [Outcome.START_FAILED] * 2
    assert "there is no room for it" in (node.task_ends()[0].reason or "")
    node.run(2, 1)
    node.greet()
    assert node.tasks == ["2.0.0.1"]


def test_a_preparation_for_which_no_keeper_can_be_started_fails_with_the_reason() -> None:
    node = joined(spec=job_spec(preparation=preparation()))
    node.hear(m.Prepare("j-1", 1))
    for number in (1, 2, 3):
        node.keepers.pop(f"k{number}")
        node.tell(KeeperDead(f"k{number}", reason="there is no room for it"))
        node.wait(1.1)
    assert [(end.outcome, end.final) for end in node.phase_ends()] == [(Outcome.START_FAILED, True)]


# ---- stopped one by one


def test_what_is_stopped_is_killed_where_it_runs_and_given_back_where_it_waits() -> None:
    node = joined(slots=1)
    node.run(1, 5)
    node.greet()
    assert node.tasks == ["1.0.0.1"]
    node.hear(m.StopTasks(1, [(0, 1), (2, 2)], "its job was disabled"))
    assert node.keepers["k1"].stops == ["1.0.0.1"]
    assert node.said(m.Recalled) == [m.Recalled(1, [(2, 2)])]
    node.end(outcome=Outcome.KILLED)
    assert [(end.position, end.outcome) for end in node.task_ends()] == [(0, Outcome.KILLED)]
    assert node.tasks == ["1.1.0.1"]
    node.end()
    assert node.tasks == ["1.4.0.1"]
    node.end()
    assert node.core.ledger.grants == {}


def test_what_a_keeper_had_not_begun_when_it_was_stopped_never_starts() -> None:
    node = joined(slots=1)
    node.run(1, 10)
    node.greet()
    node.end(seconds=0.005)
    assert len(node.tasks) > 2
    behind = node.tasks[1]
    node.hear(m.StopTasks(1, [(2, 1)], "cancelled"))
    assert node.keepers["k1"].stops == [behind]
    keeper = node.keepers["k1"]
    keeper.queue = [item for item in keeper.queue if item[0] != behind]
    node.tell(KeeperSaid("k1", ItemsRecalled(keys=[behind])))
    assert node.said(m.Recalled)[-1] == m.Recalled(1, [(2, 1)])
    while node.tasks:
        assert behind not in node.tasks
        node.end()
    assert node.core.ledger.grants == {}


def test_a_stop_of_what_is_not_held_changes_nothing() -> None:
    node = joined()
    node.run(1, 2)
    rows = list(node.rows)
    node.hear(m.StopTasks(7, [(0, 1)], "gone"), m.StopTasks(1, [(-5, 2), (9, 99), (1, -1), (2, 2**60)], "nonsense"))
    assert node.rows == rows
    assert not node.hung_up
