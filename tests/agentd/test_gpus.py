"""GPUs are one task's at a time: given where it is dispatched, known again after a restart, hidden from all others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agentd.environment import GPUS_VARIABLE
from agentd.records import Purpose
from tests.agentd.node import CONFIG, Node, StandInKeeper, group, job_spec, preparation
from wire import messages as m
from wire.messages import Outcome
from wire.spec import AxisSpec, Command, GroupSpec, Needs


def with_gpus(*gpus: str, **more: Any) -> Any:
    return msgspec.structs.replace(CONFIG, resources={"gpus": float(len(gpus))}, gpus=gpus, **more)


def one_gpu(**more: Any) -> GroupSpec:
    return group(needs=Needs(gpus=1), **more)


def joined(*groups: GroupSpec, gpus: tuple[str, ...] = ("0", "1"), slots: int = 8, **more: Any) -> Node:
    node = Node(with_gpus(*gpus))
    node.join(slots=slots)
    node.open(job_spec(*groups, **more))
    return node


def for_tasks(node: Node) -> list[StandInKeeper]:
    return [keeper for keeper in node.of(Purpose.TASKS) if keeper.queue]


def seen(node: Node) -> dict[str, str | None]:
    """What each task at a keeper sees of GPUs, by its key."""
    found: dict[str, str | None] = {}
    for keeper in for_tasks(node):
        for key, template, values, _ in keeper.queue:
            text = keeper.templates[template].env.get(GPUS_VARIABLE)
            found[key] = values[text] if isinstance(text, int) else text
    return found


def test_no_gpu_is_given_to_two_tasks() -> None:
    node = joined(one_gpu())
    node.run(1, 8)
    node.greet()
    assert sorted(seen(node).values()) == ["0", "1"]
    node.end(seconds=10.0)
    assert sorted(seen(node).values()) == ["0", "1"]


def test_a_task_may_have_several_and_waits_until_so_many_are_free() -> None:
    node = joined(one_gpu(name="a"), group(name="b", needs=Needs(gpus=2)), gpus=("0", "1", "2"))
    node.run(1, 2)
    node.greet()
    node.run(2, 1, group=1)
    node.greet()
    assert sorted(seen(node).values()) == ["0", "1"]
    node.end(seconds=10.0)
    node.greet()
    assert sorted(str(text) for text in seen(node).values()) == ["0,2", "1"]


def test_ids_are_told_as_they_were_listed() -> None:
    node = joined(group(needs=Needs(gpus=2)), gpus=("GPU-6d7e", "MIG-1/0"))
    node.run(1, 1)
    node.greet()
    assert seen(node) == {"1.0.0.1.GPU-6d7e,MIG-1/0": "GPU-6d7e,MIG-1/0"}


def test_what_queues_behind_a_task_gets_its_gpu_and_no_other() -> None:
    node = joined(one_gpu(), gpus=("7",), slots=1)
    node.run(1, 50)
    node.greet()
    node.end(seconds=0.001)
    assert len(seen(node)) > 5
    assert set(seen(node).values()) == {"7"}


def test_who_claimed_none_sees_none_where_there_are_some() -> None:
    node = joined(group(), preparation=preparation())
    node.hear(m.Prepare("j-1", 1))
    node.greet()
    (prep,) = node.of(Purpose.PREPARATION)
    assert [template.env[GPUS_VARIABLE] for template in prep.templates.values()] == [""]
    node.end("prep.1.1")
    node.run(1, 1)
    node.greet()
    assert seen(node) == {"1.0.0.1": ""}


def test_a_node_without_gpus_says_nothing_of_them() -> None:
    node = joined(group(), gpus=())
    node.run(1, 1)
    node.greet()
    assert seen(node) == {"1.0.0.1": None}


def test_nobody_chooses_a_gpu_for_himself() -> None:
    wish = {GPUS_VARIABLE: "0,1"}
    claims = GroupSpec(name="a", axes=[AxisSpec(["n"], (1, 9, 1))], command=Command(argv=["x", ["axis", 0]], env=wish))
    node = joined(msgspec.structs.replace(claims, needs=Needs(gpus=1)), msgspec.structs.replace(claims, name="b"))
    node.run(1, 1)
    node.run(2, 1, group=1)
    node.greet()
    node.greet()
    assert sorted(map(str, seen(node).values())) == ["", "0"]


def test_more_gpus_than_there_are_is_a_start_that_failed_with_the_reason() -> None:
    node = joined(group(needs=Needs(gpus=3)))
    node.run(1, 1)
    (end,) = node.task_ends()
    assert end.outcome is Outcome.START_FAILED
    assert end.reason == "It needs 3 GPUs, of 2 that this node declares."


@pytest.mark.parametrize("gpus", [("0", "1"), ("1", "2"), ("1", "0"), ("1",)], ids=str)
def test_gpus_of_tasks_that_outlived_the_agent_are_known_again_however_they_are_declared_now(
    gpus: tuple[str, ...],
) -> None:
    node = joined(one_gpu())
    node.run(1, 2)
    node.greet()
    node.end("1.0.0.1.0", seconds=10.0)
    (held,) = for_tasks(node)
    assert held.keys == ["1.1.1.1.1"]
    node.config = with_gpus(*gpus)
    before = node.restart()
    for keeper in before.values():
        node.attach(keeper, running=held.keys[0] if keeper.name == held.name else None)
    node.join(slots=8)
    node.run(2, 8)
    node.greet()
    given = seen(node)
    assert given.pop("1.1.1.1.1") == "1"
    assert sorted(given.values()) == sorted(gpu for gpu in gpus if gpu != "1")
