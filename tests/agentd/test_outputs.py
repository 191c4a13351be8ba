"""What failed tasks wrote is said until it is taken; old directories go while their job lives."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agentd import records
from agentd.events import CleanJob, DiscardTasks, FindOverdue, OutputsRead, OverdueFound, ReadOutputs, TasksDiscarded
from agentd.outputs import MAX_OWED, is_wanted
from agentd.records import OutputsOwed, Owed
from agentd.retention import SLACK_LEAST_S
from tests.agentd.node import Node, group, job_spec
from wire import messages as m
from wire.messages import Outcome, TaskEnd
from wire.spec import Command, ExitAction, ExitArm


def started(command: Command | None = None, *, count: int = 1, **more: Any) -> Node:
    """A node that runs tasks of one group."""
    node = Node()
    for name, value in more.items():
        setattr(node, name, value)
    node.join()
    node.open(job_spec(group(count, command=command or Command(argv=["x"]))))
    node.run(1, count)
    node.greet()
    return node


def ack(node: Node) -> None:
    node.hear(m.Ack(node.said(m.Report)[-1].number))


def rows(node: Node) -> list[Owed]:
    return [row for owed in node.core.ledger.owed.values() for row in owed]


def of_kind(node: Node, kind: type[Any]) -> list[Any]:
    return [chore for chore in node.chores if isinstance(chore, kind)]


# ---- outputs


def test_what_a_failed_task_wrote_is_said_when_its_end_is_acked() -> None:
    node = started()
    node.end(code=1)
    assert of_kind(node, ReadOutputs) == [] and node.said(m.TaskOutputs) == []
    ack(node)
    [said] = node.said(m.TaskOutputs)
    assert [(o.job, o.group, o.index, o.attempt) for o in said.outputs] == [("j-1", 0, 0, 1)]
    assert of_kind(node, ReadOutputs)[0].rows[0].directory == "j-1/t-1"
    assert rows(node), "until it is taken"
    node.hear(m.OutputsTaken(said.number))
    assert rows(node) == []


def test_what_succeeded_costs_nothing() -> None:
    node = started(count=3)
    for _ in range(3):
        node.end()
    ack(node)
    node.wait(1.0)
    assert rows(node) == [] and of_kind(node, ReadOutputs) == []


def test_what_was_on_its_way_is_said_again_in_the_next_session_and_after_a_restart() -> None:
    node = started()
    node.end(code=1)
    ack(node)
    node.tell(*_cut())
    node.join()
    first, second = node.said(m.TaskOutputs)
    node.hear(m.OutputsTaken(first.number))
    assert rows(node), "the answer to another session's"
    for keeper in node.restart().values():
        node.die(keeper.name)
    node.join()
    [third] = node.said(m.TaskOutputs)
    assert third.outputs == second.outputs == first.outputs
    node.hear(m.OutputsTaken(third.number))
    assert rows(node) == []


def _cut() -> list[Any]:
    from agentd.events import Disconnected

    return [Disconnected("cut")]


def test_only_one_message_is_on_its_way_and_what_did_not_fit_follows() -> None:
    node = started(count=3)
    node.answer_chores = False
    node.end(code=1)
    ack(node)
    node.end(code=2)
    ack(node)
    [chore] = of_kind(node, ReadOutputs)
    node.tell(OutputsRead(chore.turn, [], 1))
    [_, second] = of_kind(node, ReadOutputs)
    assert len(second.rows) == 1
    node.tell(OutputsRead(chore.turn, [], 1))
    assert len(of_kind(node, ReadOutputs)) == 2, "an answer to an earlier question is none"


def test_a_clean_up_that_would_take_it_waits_for_it_a_moment() -> None:
    node = started(Command(argv=["x"], keep_ms=0))
    node.end(code=1)
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    assert of_kind(node, CleanJob) == []
    ack(node)
    assert of_kind(node, CleanJob) == []
    node.hear(m.OutputsTaken(node.said(m.TaskOutputs)[-1].number))
    assert len(of_kind(node, CleanJob)) == 1


def test_it_waits_no_longer_than_that_and_not_for_what_is_kept_anyway() -> None:
    node = started(Command(argv=["x"], keep_ms=0))
    node.end(code=1)
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.wait(5.5)
    assert len(of_kind(node, CleanJob)) == 1
    kept = started(Command(argv=["x"], keep_ms=1000))
    kept.end(code=1)
    kept.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    assert len(of_kind(kept, CleanJob)) == 1


END = TaskEnd(1, 0, Outcome.EXITED, 0, None, 0.0, 1.0, 0.0, 0)


@pytest.mark.parametrize(
    ("end", "arms", "success", "wanted"),
    [
        ({}, [], 0, None),
        ({}, [], 9, True),
        ({"exit_code": 3}, [], 0, False),
        ({"exit_code": 3}, [ExitArm(codes=[(3, 3)], action=ExitAction.SUCCEED)], 0, None),
        ({}, [ExitArm(codes=[(0, 0)], action=ExitAction.FAIL)], 0, False),
        ({"outcome": Outcome.TIMED_OUT, "exit_code": None}, [], 0, False),
        ({"outcome": Outcome.LOST, "exit_code": None}, [], 0, False),
        ({"outcome": Outcome.KILLED, "exit_code": None}, [], 0, None),
        ({"outcome": Outcome.START_FAILED, "exit_code": None}, [], 0, None),
    ],
)
def test_whose_output_is_wanted(end: dict[str, Any], arms: list[ExitArm], success: int, wanted: bool | None) -> None:
    config = msgspec.structs.replace(Node().config, output_success=success)
    assert is_wanted(config, Command(arms=arms), msgspec.structs.replace(END, **end)) is wanted


def test_a_node_does_not_owe_without_end() -> None:
    node = started()
    owed = [OutputsOwed(n, [Owed("j-1", 0, 0, 1, "j-1/t-1")] * 500) for n in range(100, 130)]
    node.rows += [(records.scope_of(record), records.encode(record)) for record in owed]
    for keeper in node.restart().values():
        node.die(keeper.name)
    node.wait(1.0)
    assert len(rows(node)) <= MAX_OWED


# ---- directories


def test_a_directory_goes_when_its_keep_has_passed_while_the_job_goes_on() -> None:
    node = started(Command(argv=["x"], keep_ms=0), count=3)
    node.overdue = ["t-1", "t-2", "t-3"]
    node.end()
    node.wait(1.0)
    [chore] = of_kind(node, DiscardTasks)
    assert chore.names == ["t-1"], "the others are open here"
    assert of_kind(node, FindOverdue)[0].keep_s == {"t": 0.0}


def test_nothing_is_looked_for_before_it_may_be_due_and_nothing_at_all_while_nothing_ends() -> None:
    node = started(Command(argv=["x"], keep_ms=100_000), count=3)
    node.wait(500.0)
    assert of_kind(node, FindOverdue) == []
    node.end()
    node.wait(100.0)
    assert of_kind(node, FindOverdue) == []
    node.wait(11.0)
    assert len(of_kind(node, FindOverdue)) == 1


def test_what_an_earlier_life_left_is_looked_for_after_a_restart() -> None:
    node = started(Command(argv=["x"], keep_ms=0), count=2)
    node.end()
    node.overdue = ["t-1"]
    before = node.restart()
    for keeper in before.values():
        node.attach(keeper, running=keeper.keys[0] if keeper.keys else None)
    node.wait(2.0)
    assert [chore.names for chore in of_kind(node, DiscardTasks)] == [["t-1"]]


def test_what_an_earlier_round_left_is_looked_for_when_the_next_one_opens() -> None:
    command = Command(argv=["x"], keep_ms=100_000)
    node = started(command, kept_s=50.0)
    node.end()
    node.hear(m.ReleaseRound("j-1", 1, "NodeDrained"))
    ack(node)
    node.overdue = ["t-1"]
    node.open(job_spec(group(command=command)), number=2)
    node.wait(2.0)
    assert [chore.names for chore in of_kind(node, DiscardTasks)] == [["t-1"]]


def test_a_task_of_which_something_is_still_to_be_read_keeps_its_directory() -> None:
    node = started(Command(argv=["x"], keep_ms=0), count=2)
    node.overdue = ["t-1"]
    node.end(code=1)
    node.wait(3.0)
    assert of_kind(node, DiscardTasks) == []
    ack(node)
    node.hear(m.OutputsTaken(node.said(m.TaskOutputs)[-1].number))
    node.wait(3.0)
    assert [chore.names for chore in of_kind(node, DiscardTasks)] == [["t-1"]]


def test_no_task_begins_again_while_its_directory_may_be_on_its_way_out() -> None:
    node = started(Command(argv=["x"], keep_ms=0), count=2)
    node.answer_chores = False
    node.end()
    node.wait(1.0)
    node.tell(OverdueFound("j-1", ["t-1"], None))
    assert len(of_kind(node, DiscardTasks)) == 1
    node.run(2, 1, attempt=2)
    assert not any(key.startswith("2.") for key in node.tasks)
    node.tell(TasksDiscarded("j-1"))
    assert any(key.startswith("2.") for key in node.tasks)


def test_what_no_grant_tells_of_any_more_may_still_be_alive() -> None:
    node = started(Command(argv=["x"], keep_ms=0), count=2)
    node.overdue = ["t-1", "t-2"]
    node.end()
    node.hear(m.Drop([1]))
    node.wait(3.0)
    assert of_kind(node, DiscardTasks) == []


def test_what_feeds_the_slots_throws_nothing_away() -> None:
    node = started(Command(argv=["x"], keep_ms=0), count=20)
    for _ in range(20):
        node.end()  # and the next one begins in the same step
        ack(node)
    assert not [chore for chore in node.chores if isinstance(chore, FindOverdue | DiscardTasks | CleanJob)]
    node.wait(SLACK_LEAST_S + 0.01)
    assert of_kind(node, FindOverdue), "later, by the clock"
