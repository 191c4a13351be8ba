"""The pool's start on a node: before anything else in each boot, once, retried, taken up again, ended with the node."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from agentd.events import CleanJob, Connected, EmptyJob, Interrupted, Leave, MakeStart
from agentd.model import NodeConfig
from agentd.records import Purpose
from tests.agentd.node import CONFIG, Node, group, job_spec, preparation, release
from wire import messages as m
from wire.messages import Outcome, Phase, RoundState
from wire.spec import Command, ExitAction, ExitArm


def ordered(node: Node, number: int = 1, **command: Any) -> str:
    """The node is given a start; its digest."""
    body = msgspec.msgpack.encode(m.StartBody("p", Command(**{"argv": ["begin"], **command})))
    digest = hashlib.sha256(body).hexdigest()
    node.hear(m.StartNode(number=number, digest=digest, body=body))
    return digest


def starting(config: NodeConfig = CONFIG, **command: Any) -> Node:
    """A node whose start was given to its keeper."""
    node = Node(config)
    node.join()
    ordered(node, **command)
    node.greet()
    return node


def with_a_task(node: Node, *, prepare: bool = False, count: int = 1) -> None:
    node.open(job_spec(preparation=preparation() if prepare else None, release=release()))
    if prepare:
        node.hear(m.Prepare("j-1", 1))
    node.run(1, count)
    node.greet()


def handed(node: Node) -> list[str]:
    return [key for _, key in node.handed]


def state(node: Node) -> RoundState | None:
    held = node.core.ledger.start
    return None if held is None else held.state


def told(node: Node) -> m.StartHeld | None:
    """What the last inventory says of the start."""
    return node.said(m.Inventory)[-1].start


# ---- before anything else


def test_no_task_and_no_preparation_begins_before_the_start_has_succeeded() -> None:
    node = starting()
    with_a_task(node, prepare=True)
    assert handed(node) == ["start.1.1"]
    node.end("start.1.1")
    node.greet()
    assert handed(node)[1] == "prep.1.1"
    node.end("prep.1.1")
    node.greet()
    assert handed(node)[2:] == ["1.0.0.1"]


def test_a_start_runs_once_however_often_it_is_ordered() -> None:
    node = starting()
    ordered(node)
    node.end("start.1.1")
    ordered(node)
    assert handed(node) == ["start.1.1"]
    (end,) = node.phase_ends()
    assert (end.job, end.round, end.phase, end.final, end.succeeded) == (m.START_JOB, 1, Phase.START, True, True)
    assert node.of(Purpose.START) == [], "a keeper that left nothing running has gone"


def test_a_failed_start_is_tried_again_as_often_as_it_may_then_gives_everything_back() -> None:
    node = starting(retries=1)
    with_a_task(node, count=3)
    node.end("start.1.1", code=1)
    node.end("start.1.2", code=7)
    ends = [(end.attempt, end.final, end.succeeded, end.exit_code) for end in node.phase_ends()]
    assert ends == [(1, False, False, 1), (2, True, False, 7)]
    assert state(node) is RoundState.BARRED
    assert node.said(m.Recalled) == [m.Recalled(1, [(0, 3)])]
    node.run(2, 1)
    assert node.said(m.Recalled)[-1] == m.Recalled(2, [(0, 1)]), "what comes now goes back too"
    assert handed(node) == ["start.1.1", "start.1.2"]


def test_a_start_that_failed_runs_again_under_another_number_with_all_its_retries() -> None:
    node = starting(retries=1)
    for attempt in (1, 2):
        node.end(f"start.1.{attempt}", code=1)
    ordered(node, 2, retries=1)
    node.greet()
    node.end("start.2.1", code=1)
    node.end("start.2.2")
    assert state(node) is RoundState.PREPARED


def test_the_arms_of_a_start_say_what_its_ends_mean() -> None:
    arms = [ExitArm(codes=[(3, 3)], action=ExitAction.SUCCEED), ExitArm(codes=[(4, 4)], action=ExitAction.FAIL)]
    node = starting(arms=arms, retries=9)
    node.end("start.1.1", code=3)
    assert state(node) is RoundState.PREPARED
    other = starting(arms=arms, retries=9)
    other.end("start.1.1", code=4)
    assert state(other) is RoundState.BARRED


def test_elevation_that_the_node_does_not_allow_fails_the_start_at_once() -> None:
    node = starting(elevated=True, retries=None)
    (end,) = node.phase_ends()
    assert (end.outcome, end.final) == (Outcome.START_FAILED, True)
    assert "asks for elevation" in (end.reason or "")
    assert handed(node) == []


# ---- what it sees and where it runs


def test_a_start_runs_in_startup_and_knows_of_no_job() -> None:
    node = starting(retries=1, timeout_ms=5000)
    keeper = node.of(Purpose.START)[0]
    assert [item[3] for item in keeper.queue] == ["startup"]
    template = keeper.templates["start.1"]
    assert (template.leave_running, template.leased, template.timeout_s) == (True, False, 5.0)
    assert template.env["BATCH_NODE_STARTUP_DIR"] == template.env["AZ_BATCH_TASK_DIR"] == "/node/startup"
    assert template.env["BATCH_TASK_WORKING_DIR"] == "/node/startup/wd"
    assert template.env["HOME"] == "/node/workitems/startup/home"
    hidden = ("_JOB_ID", "_JOB_PREP_DIR", "_JOB_NAME", "_TASK_ID", "_REBOOTED")
    assert [name for name in template.env if name.endswith(hidden)] == []
    node.end("start.1.1", code=1)
    assert [item[3] for item in keeper.queue] == ["startup/attempt-2"]
    assert [chore.directory for chore in node.chores if isinstance(chore, MakeStart)] == [
        "startup", "startup/attempt-2",
    ]  # fmt: skip


def test_what_a_start_left_running_lives_until_another_is_ordered() -> None:
    node = starting()
    keeper = node.of(Purpose.START)[0]
    node.end("start.1.1", leftovers=True)
    node.wait(600)
    assert not keeper.retiring
    ordered(node, 2, argv=["begin", "again"])
    assert keeper.retiring
    assert isinstance(next(chore for chore in reversed(node.chores) if not isinstance(chore, MakeStart)), EmptyJob)
    node.greet()
    assert handed(node) == ["start.1.1", "start.2.1"]


def test_another_start_begins_when_what_runs_has_ended_and_before_anything_more_does() -> None:
    node = starting()
    node.end("start.1.1")
    with_a_task(node, count=4)
    assert len(node.tasks) == 2
    ordered(node, 2, argv=["other"])
    assert node.of(Purpose.START) == []
    node.end()
    node.end()
    node.greet()
    assert node.tasks == []
    node.end("start.2.1")
    assert len(node.tasks) == 2


# ---- restarts


def test_a_restarted_agent_takes_up_the_start_that_runs() -> None:
    node = starting()
    (keeper,) = node.restart().values()
    node.attach(keeper, running="start.1.1")
    node.join()
    assert told(node) == m.StartHeld(1, node.core.ledger.jobs[m.START_JOB].digest, RoundState.PREPARING)
    node.end("start.1.1")
    assert state(node) is RoundState.PREPARED
    assert handed(node) == ["start.1.1"]


def test_a_start_whose_keeper_died_with_the_agent_is_repeated_and_spends_nothing() -> None:
    node = starting()
    node.restart()
    node.die("k1", started=["start.1.1"])
    node.join()
    node.greet()
    assert handed(node) == ["start.1.1", "start.1.2"]
    assert [(end.outcome, end.final) for end in node.phase_ends()] == [(Outcome.LOST, False)]


def test_a_restart_of_the_agent_is_no_reboot() -> None:
    node = starting()
    node.end("start.1.1")
    node.restart()
    node.join()
    with_a_task(node)
    assert handed(node)[1:] == ["1.0.0.1"]
    assert told(node) == m.StartHeld(1, node.core.ledger.jobs[m.START_JOB].digest, RoundState.PREPARED)


@pytest.mark.parametrize("ran", [True, False], ids=["it had succeeded", "it was running"])
def test_f10_after_a_reboot_nothing_begins_before_the_start_was_given_again_and_succeeded(ran: bool) -> None:
    node = starting()
    if ran:
        node.end("start.1.1")
    node.restart(boot="b2")
    if not ran:
        node.die("k1", started=["start.1.1"])
    node.join()
    assert told(node) == m.StartHeld(1, node.core.ledger.jobs[m.START_JOB].digest, RoundState.OPENED)
    with_a_task(node, prepare=True)
    assert handed(node) == ["start.1.1"]
    ordered(node, 2)
    node.greet()
    node.end("start.2.1")
    node.greet()
    assert handed(node)[1:] == ["start.2.1", "prep.1.1"]


# ---- it goes


def test_a_pool_without_a_start_any_more_holds_nothing_back_and_leaves_nothing() -> None:
    node = starting()
    node.end("start.1.1", code=1)
    assert state(node) is RoundState.BARRED
    node.hear(m.StartNode(number=0))
    assert state(node) is None
    assert node.chores[-1] == CleanJob(m.START_JOB, {})
    assert node.said(m.NotHeld) == []
    with_a_task(node)
    assert handed(node)[1:] == ["1.0.0.1"]


def test_a_node_that_leaves_ends_what_its_start_left_running_first() -> None:
    node = starting()
    keeper = node.of(Purpose.START)[0]
    node.end("start.1.1", leftovers=True)
    node.answer_chores = False
    node.tell(Interrupted())
    assert not keeper.retiring, "releases may need it"
    node.hear(m.Depart())
    assert keeper.retiring
    assert node.left is None
    node.tell(node.answer(EmptyJob(m.START_JOB)))
    assert node.left is None
    node.tell(node.answer(CleanJob(m.START_JOB, {})))
    assert node.left is Leave.DEPARTED


# ---- what is no start


def test_a_body_that_is_not_what_was_announced_ends_the_session() -> None:
    node = Node()
    node.join()
    node.hear(m.StartNode(number=1, digest="0" * 64, body=b"\x80"))
    assert node.hung_up == ["a pool's start is not what was announced"]
    node.tell(Connected())
    node.hear(m.Joined(heartbeat_s=5.0, lease_s=900.0, slots=1))
    node.hear(m.StartNode(number=1, digest=hashlib.sha256(b"\x80").hexdigest(), body=b"\x80"))
    assert "does not fit" in node.hung_up[-1]


def test_a_long_start_comes_in_pieces() -> None:
    node = Node()
    node.join()
    body = msgspec.msgpack.encode(m.StartBody("p", Command(script="x" * 700_000)))
    digest = hashlib.sha256(body).hexdigest()
    for offset in range(0, len(body), 300_000):
        node.hear(m.BodyChunk(digest, offset, len(body), body[offset : offset + 300_000]))
    node.hear(m.StartNode(number=1, digest=digest))
    node.greet()
    assert handed(node) == ["start.1.1"]


def test_no_job_is_called_as_the_start() -> None:
    node = starting()
    node.hear(m.ReleaseRound(m.START_JOB, 1, "x"))
    assert node.hung_up == ["no job is called startup"]
    assert state(node) is RoundState.PREPARING


def test_tasks_that_wait_at_keepers_come_back_when_a_start_is_ordered() -> None:
    node = Node()
    node.join(slots=1)
    node.open(job_spec(group(20)))
    node.run(1, 20)
    node.greet()
    node.end(seconds=0.001)
    (keeper,) = node.of(Purpose.TASKS)
    assert len(keeper.queue) > 1
    ordered(node)
    assert len(keeper.queue) == 1
    node.end()
    node.greet()
    assert handed(node)[-1] == "start.1.1"
