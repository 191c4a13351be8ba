"""Keepers that another version of the agent started: what they run is theirs to end; they are given nothing new."""

from __future__ import annotations

import pytest

from agentd import dialogue, keeper
from tests.agentd.node import Node, StandInKeeper, group, job_spec, preparation
from wire import messages as m
from wire.messages import Outcome, RoundState

OTHERS = [dialogue.VERSION - 1, dialogue.VERSION + 1]
"""The version before an upgrade, and the one that was taken back."""


def running(tasks: int = 1) -> tuple[Node, StandInKeeper]:
    """A node on which one task of these is at a keeper; then its agent is another."""
    node = Node()
    node.join(slots=1)
    node.open(job_spec(group()))
    node.run(1, tasks)
    node.greet()
    return node, node.restart()["k1"]


def test_agent_and_keeper_say_the_same_version() -> None:
    assert dialogue.VERSION == keeper.VERSION


@pytest.mark.parametrize("version", OTHERS)
def test_a_task_at_a_keeper_of_another_version_ends_there_and_counts(version: int) -> None:
    node, before = running()
    key = before.keys[0]
    node.attach(before, running=key, version=version)
    node.join(slots=1)
    assert not before.retiring
    node.end(key, 7)
    assert [(end.exit_code, end.outcome) for end in node.task_ends()] == [(7, Outcome.EXITED)]


@pytest.mark.parametrize("version", OTHERS)
def test_a_keeper_of_another_version_gets_no_new_task_and_retires_when_it_is_idle(version: int) -> None:
    node, before = running()
    key = before.keys[0]
    node.attach(before, running=key, version=version)
    node.join(slots=1)
    node.run(2, 1, first=10)
    assert [given for name, given in node.handed if given.startswith("2.")] == []
    node.end(key)
    node.tell()
    assert before.retiring
    node.greet()
    assert [name for name, given in node.handed if given.startswith("2.")] == ["k2"]


@pytest.mark.parametrize("version", OTHERS)
def test_a_preparation_that_never_reached_a_keeper_of_another_version_is_given_to_one_of_ours(version: int) -> None:
    node = Node()
    node.join()
    node.open(job_spec(preparation=preparation()))
    node.hear(m.Prepare("j-1", 1))
    node.greet()
    before = node.restart()["k1"]
    before.queue.clear()
    node.attach(before, version=version)
    assert before.retiring
    assert before.keys == []
    node.join()
    node.die("k1")
    node.at += 60
    node.tell()
    node.greet()
    node.end("prep.1.2")
    assert node.core.ledger.jobs["j-1"].rounds[1].state is RoundState.PREPARED
    assert node.handed[-1][0] == "k2"


@pytest.mark.parametrize("version", [dialogue.VERSION - 2, dialogue.VERSION + 2])
def test_a_keeper_that_is_further_away_is_ended_and_its_record_says_what_became_of_its_task(version: int) -> None:
    node, before = running()
    key = before.keys[0]
    node.attach(before, running=key, version=version)
    assert node.killed == ["k1"]
    node.die("k1", started=[key])
    node.join(slots=1)
    assert [end.outcome for end in node.task_ends()] == [Outcome.LOST]
