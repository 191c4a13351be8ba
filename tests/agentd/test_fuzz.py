"""Seeded coordinators against the agent's core: it trusts the coordinator's certificate, but never its messages' shape.

Orders for jobs that do not exist, for grants without end, before anything was opened: whatever fits the types is
answered, or the connection is hung up, and the node's ledger replays to what it is.
"""

from __future__ import annotations

import typing

import pytest

from agentd.events import Connected, Disconnected
from tests.agentd.node import Node, body, job_spec, preparation, release
from tests.wire.corpus import Dice, damaged
from wire import messages as m
from wire.messages import SENDERS, Role

KINDS = typing.get_args(m.AnyMessage)
EXCLUDED = (m.Goodbye, m.Welcome, m.Authority, m.Enrolled, m.Renewed)
"""What never comes to the core."""
FOR_NODES = [kind for kind in typing.get_args(m.ToNode) if kind not in EXCLUDED]
MESSAGES = 200
NAMES = ["j-1", "j-2", "j-3", "workitems", "workitems/j-1", "shared", "t-1"]


def order(dice: Dice, number: int) -> m.Message:
    """Mostly what an agent does get, with numbers that are small enough to meet each other."""
    chance = dice.random
    job, small = chance.choice(NAMES[:3]), chance.randrange(4)
    spec = job_spec(preparation=preparation(), release=release()) if small else job_spec()
    match chance.randrange(12):
        case 0 | 1:
            content = body(spec, job) if chance.random() < 0.7 else damaged(dice, body(spec, job))
            return m.OpenRound(job=job, round=small, body=content)
        case 2:
            return m.Prepare(job, small)
        case 3 | 4:
            span = {"first": chance.randrange(5), "count": chance.randrange(9), "step": chance.randrange(3)}
            return m.Run(grant=chance.randrange(6), job=job, round=small, group=chance.randrange(2), attempt=1, **span)
        case 5:
            return m.Recall(chance.randrange(6))
        case 6:
            return m.Drop([chance.randrange(6) for _ in range(small)])
        case 7:
            return m.ReleaseRound(job, small, "Deleted")
        case 8:
            return m.RemoveJob(job)
        case _:
            return dice.sound(FOR_NODES)


@pytest.mark.parametrize("seed", range(12))
def test_t6_whatever_a_coordinator_says_is_borne_by_the_agents_core(seed):
    dice = Dice(f"agent {seed}", NAMES)
    chance = dice.random
    node = Node()
    node.join()
    for number in range(MESSAGES):
        if node.left is not None:
            node = Node()
            node.join()
        if node.hung_up or chance.random() < 0.02:
            node.hung_up.clear()
            node.tell(Disconnected("cut"), Connected())
            node.hear(m.Joined(heartbeat_s=5.0, lease_s=900.0, slots=2))
        node.hear(order(dice, number))
        if chance.random() < 0.2:
            node.greet()
        if chance.random() < 0.2 and any(keeper.queue for keeper in node.keepers.values()):
            node.end()
        if chance.random() < 0.1:
            node.wait(chance.choice((0.1, 1.0, 30.0)))
    assert node.sent


def test_every_order_is_one_that_the_coordinator_may_give():
    assert all(Role.COORDINATOR in SENDERS[kind] for kind in FOR_NODES)


def test_two_rounds_of_a_job_are_counted_apart():
    """The first is released and not acked yet while tasks of the second end: a restart knows both counts."""
    node = Node()
    node.join()
    for number in (1, 2):
        node.open(job_spec(), number=number)
        node.run(number, 1, round=number)
        node.greet()
        node.end()
        if number == 1:
            node.hear(m.ReleaseRound("j-1", 1, "Deleted"))
            node.wait(1.0)
    assert [held.ran for held in node.core.ledger.jobs["j-1"].rounds.values()] == [1, 1]
