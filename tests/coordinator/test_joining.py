"""Who may join as what, how the ledger and an inventory are made to agree, and what is no node's to say."""

from __future__ import annotations

import pytest

from coordinator.events import Received, SessionClosed, SessionOpened, Tick
from coordinator.joining import MAX_HELD, MAX_SLOTS
from coordinator.records import NodeJoined, PoolSet
from tests.coordinator.playbook import FakeNode, Play, job, tasks
from wire import messages as m


def said(play: Play, **changed: object) -> list[m.Message]:
    """What a node that joins like this is told, and that its connection was closed."""
    node = FakeNode(play, "n9", "p", 1, "boot-1")
    node.epoch = play.open(m.Role.NODE)
    play.links[node.epoch] = node
    join = {"pool": "p", "node": "n9", "incarnation": "i", "boot": "b", "slots": 1, **changed}
    node.say(m.Join(**join))  # type: ignore[arg-type]
    assert node.epoch is None
    return node.received


def test_a_pool_begins_with_the_first_agent_that_names_it() -> None:
    play = Play()
    play.node("n1", pool="new")
    [record] = play.kept_of(PoolSet)
    assert (record.pool.name, record.declared) == ("new", False)
    assert play.admin.ask(m.PoolShow, "new")["nodes"] == 1


def test_a_node_is_joining_until_its_inventory_is_complete_and_gets_no_work_before() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.drop()
    n1.join(inventory=False)
    play.submit(job("j"))
    assert play.node_state("n1") == "joining"
    n1.say(m.Inventory([], [], False))
    assert play.node_state("n1") == "joining"
    assert n1.heard(m.Run) == []
    n1.say(m.Inventory([], [], True))
    assert play.node_state("n1") == "running"
    assert len(n1.heard(m.Run)) == 1


def test_an_inventory_in_pieces_counts_as_one() -> None:
    play = Play()
    n1 = play.node("n1", slots=4)
    name = play.submit(job("j", tasks(size=4)))
    n1.drop()
    n1.join(inventory=False)
    n1.say(m.Inventory([m.RoundHeld(name, 1, m.RoundState.PREPARED)], [m.GrantHeld(1, [(0, 1)])], False))
    n1.say(m.Inventory([], [m.GrantHeld(1, [(2, 2)])], True))
    again = [(held.run.first, held.run.count, held.run.attempt) for held in n1.grants.values()]
    assert again == [(0, 4, 1), (1, 1, 2)]


def test_what_is_the_same_as_before_is_not_written_again() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.drop()
    n1.join()
    assert len(play.kept_of(NodeJoined)) == 1
    n1.drop()
    n1.boot = "boot-2"
    n1.join()
    n1.drop()
    n1.slots = 3
    n1.join()
    assert [(r.boot, r.slots) for r in play.kept_of(NodeJoined)] == [("boot-1", 1), ("boot-2", 1), ("boot-2", 3)]


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "a b", "x" * 65, "n\n", "-n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    for kind in ("node", "pool"):
        [refused] = said(Play(), **{kind: name})
        assert isinstance(refused, m.JoinRefused)
        assert f"is no name for a {kind}" in refused.reason


@pytest.mark.parametrize("slots", [0, -1, MAX_SLOTS + 1, 2**60])
def test_slots_out_of_range_are_refused(slots: int) -> None:
    assert said(Play(), slots=slots) == [m.JoinRefused(f"a node has 1 to 4096 slots, not {slots}")]


def test_a_second_machine_under_a_connected_nodes_name_is_refused() -> None:
    play = Play()
    n9 = play.node("n9")
    reason = "another machine is connected as node `n9`: give this one another --name"
    assert said(play) == [m.JoinRefused(reason)]
    assert n9.epoch is not None
    assert play.node_state("n9") == "idle"


def test_the_same_machine_takes_over_from_its_older_connection() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2)))
    old = n1.epoch
    assert old is not None
    n1.join()
    assert play.core.sessions.keys() == {n1.epoch, play.admin.epoch}
    play.happen(SessionClosed(old, "the peer is gone"))
    n1.end()
    assert play.show(name)["tasks"]["succeeded"] == 1


def test_what_comes_on_an_older_connection_is_ignored() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2)))
    old = n1.epoch
    assert old is not None
    n1.join()
    play.happen(Received(old, m.Report(1, [n1.task_end(1, 0)], [])))
    assert play.show(name)["tasks"]["succeeded"] == 0


def test_a_node_with_work_of_one_pool_can_not_join_another() -> None:
    play = Play()
    n9 = play.node("n9")
    play.submit(job("j"))
    n9.drop()
    assert said(play, pool="q", incarnation=n9.incarnation) == [m.JoinRefused("node `n9` still has work of pool `p`")]


def test_a_node_without_work_may_move_to_another_pool_and_still_pays_what_it_owes() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", finish="manual"))
    n1.end()
    n1.drop()
    n1.pool = "q"
    n1.join()
    assert play.admin.ask(m.PoolShow, "p")["nodes"] == 0
    play.terminate(name)
    n1.released(name)
    assert play.show(name)["state"] == "completed"


def test_a_debt_of_another_pools_job_is_asked_for_when_the_node_returns_there() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", finish="manual"))
    n1.end()
    n1.drop()
    play.terminate(name)
    n1.pool = "q"
    n1.join()
    n1.released(name)
    assert play.show(name)["state"] == "completed"


def test_who_does_not_say_join_first_is_cut() -> None:
    play = Play()
    epoch = play.open(m.Role.NODE)
    before = len(play.kept)
    play.happen(Received(epoch, m.Leaving()))
    assert epoch not in play.core.sessions
    assert len(play.kept) == before


def test_who_joins_twice_on_one_connection_is_refused_and_cut() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.say(m.Join(pool="p", node="n1", incarnation=n1.incarnation, boot="boot-1", slots=1))
    assert n1.closed == ["this connection has joined already"]


def test_an_inventory_without_end_is_cut() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.drop()
    n1.join(inventory=False)
    piece = [m.GrantHeld(number, []) for number in range(MAX_HELD // 2 + 1)]
    n1.say(m.Inventory([], piece, False))
    n1.say(m.Inventory([], [m.GrantHeld(-number - 1, []) for number in range(MAX_HELD // 2 + 1)], False))
    assert n1.closed == ["an inventory is sent once a session, and not without end"]


def test_a_second_inventory_is_cut() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.inventory()
    assert n1.closed == ["an inventory is sent once a session, and not without end"]


def test_an_inventory_can_not_claim_positions_that_are_none() -> None:
    play = Play()
    n1 = play.node("n1")
    play.submit(job("j", tasks(size=1)))
    n1.drop()
    n1.join(inventory=False)
    spans = [(-5, 3), (0, 0), (0, -1), (2**40, 1), (1, 2**62), (5000, 1)]
    n1.say(m.Inventory([m.RoundHeld("j-1", 1, m.RoundState.PREPARED)], [m.GrantHeld(1, spans)], True))
    assert [held.run.attempt for held in n1.grants.values()][-1] == 2


def test_a_message_no_coordinator_takes_closes_the_connection() -> None:
    play = Play()
    n1 = play.node("n1")
    assert n1.epoch is not None
    play.happen(Received(n1.epoch, m.Depart()))
    assert n1.closed == ["a Depart may not be sent by node"]


def test_words_about_rounds_and_grants_that_do_not_exist_change_nothing() -> None:
    play = Play()
    n1 = play.node("n1")
    before = len(play.kept)
    n1.say(m.NotHeld("ghost-1", 3))
    n1.say(m.Recalled(99, [(0, 1)]))
    n1.say(m.Removed("ghost-1"))
    n1.say(m.PhaseStarted("ghost-1", 1, m.Phase.RELEASE, 1, 0.0))
    n1.say(m.Started([(99, 0, 0.0)]))
    assert len(play.kept) == before
    play.happen(SessionOpened(999, m.Role.NODE, "uid:1"))
    play.happen(Tick())


def moved_to_another_pool(play: Play, finish: str) -> tuple[FakeNode, str]:
    """A node that ran a job of its first pool and now belongs to another; what it owes there, it owes still."""
    play.node("other", pool="q")
    n1 = play.node("n1")
    name = play.submit(job("j", finish=finish))
    n1.end(name)
    n1.drop()
    n1.pool = "q"
    n1.join()
    return n1, name


def test_a_node_of_another_pool_by_now_holds_up_no_job_for_ever_when_it_falls_silent_in_its_release() -> None:
    play = Play()
    n1, name = moved_to_another_pool(play, "when_done")
    play.wait(1000)  # its grace passes while it releases
    n1.drop()
    play.wait(1000)
    assert play.rounds(name) == [("n1", 1, "unreached")]
    assert play.show(name)["state"] == "completed"


def test_a_node_of_another_pool_by_now_is_drained_of_what_it_owes_in_its_first() -> None:
    play = Play()
    n1, name = moved_to_another_pool(play, "manual")
    play.admin.ask(m.NodeDrain, node="n1", deadline_s=60.0)
    n1.released(name)
    assert (play.node_state("n1"), play.rounds(name)) == ("drained", [("n1", 1, "released")])
