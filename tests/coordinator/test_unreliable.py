"""A node that lets come to nothing what it is given, in whichever way and however often: it fills no ledger, keeps no
task from other nodes, and is given work again when it has rested. Who is asked to give back is not blamed for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordinator.records import Granted
from coordinator.resting import LONGEST_S, PATIENCE
from tests.coordinator.playbook import FakeNode, Play, job, phase_end, prep, tasks
from wire import messages as m

Way = Callable[[FakeNode], None]
HOUR_S = 3_600.0


def gives_back(node: FakeNode) -> None:
    node.give_back()


def gives_back_one_by_one(node: FakeNode) -> None:
    for grant, position in node.running():
        node.recalled(grant, [position])


def knows_nothing_of_it(node: FakeNode) -> None:
    for key in list(node.rounds):
        del node.rounds[key]
        node.grants.clear()
        node.say(m.NotHeld(*key))


def began_and_knows_nothing_of_it(node: FakeNode) -> None:
    for name, number in list(node.rounds):
        node.say(m.PhaseStarted(name, number, m.Phase.PREPARATION, 1, 1.0))
    knows_nothing_of_it(node)


def comes_again_with_nothing(node: FakeNode) -> None:
    node.drop()
    node.grants.clear()
    node.rounds.clear()
    node.join()


def says_that_it_was_killed(node: FakeNode) -> None:
    node.report([node.task_end(*at, None, outcome=m.Outcome.KILLED, signal=9) for at in node.running()])


def releases_unasked(node: FakeNode) -> None:
    for name, number in list(node.rounds):
        node.grants.clear()
        del node.rounds[name, number]
        node.report(phases=[phase_end(name, number, m.Phase.RELEASE, True)])


def fails_to_prepare_and_releases_unasked(node: FakeNode) -> None:
    for name, number in list(node.rounds):
        node.report(phases=[phase_end(name, number, m.Phase.PREPARATION, False)])
        node.give_back()
        del node.rounds[name, number]
        node.report(phases=[phase_end(name, number, m.Phase.RELEASE, True)])


def is_unusable_and_well_again(node: FakeNode) -> None:
    node.say(m.Health("its disk is full"))
    node.give_back()
    node.say(m.Health(None))


def is_unusable_and_well_before_it_answers(node: FakeNode) -> None:
    node.say(m.Health("its disk is full"))
    node.say(m.Health(None))
    node.give_back()


def leaves_and_comes_again(node: FakeNode) -> None:
    node.say(m.Leaving())
    node.give_back()
    node.drop()
    node.join()
    node.recalls.clear()
    for name, number in list(node.rounds):
        if node.rounds[name, number] is m.RoundState.RELEASING:
            node.released(name, number=number)


WAYS: tuple[Way, ...] = (
    gives_back,
    gives_back_one_by_one,
    knows_nothing_of_it,
    began_and_knows_nothing_of_it,
    comes_again_with_nothing,
    says_that_it_was_killed,
    releases_unasked,
    fails_to_prepare_and_releases_unasked,
    is_unusable_and_well_again,
    is_unusable_and_well_before_it_answers,
    leaves_and_comes_again,
)


def waste(node: FakeNode, way: Way, turns: int = 300) -> int:
    """It does so as often as it is given something; how often that was."""
    for turn in range(turns):
        if not node.joined or not node.grants:
            return turn
        way(node)
    return turns


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_t6_a_node_that_wastes_what_it_is_given_fills_no_ledger(way: Way) -> None:
    play = Play()
    node = play.node("n1", slots=3)
    play.submit(job("j", tasks(size=3), preparation=prep()))
    assert waste(node, way) <= PATIENCE
    kept = len(play.kept)
    assert kept < 100
    for _ in range(int(HOUR_S)):
        play.wait(1.0)
        waste(node, way)
        if not node.joined:
            node.join()
    turns = HOUR_S / LONGEST_S + 10
    assert len(play.kept) - kept < 12 * turns, "an hour later it is asked now and then, and no more"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_tasks_of_a_node_that_wastes_them_are_done_by_another(way: Way) -> None:
    play = Play()
    bad, good = play.node("bad", slots=8), play.node("good", slots=1)
    name = play.submit(job("j", tasks(size=20), preparation=prep()))
    for _ in range(200):
        waste(bad, way, turns=1)
        good.obey()
        play.wait(0.1)
    assert play.show(name)["tasks"]["succeeded"] == 20


def test_a_rest_is_longer_each_time_up_to_a_bound_and_over_with_the_first_task_that_ends() -> None:
    play = Play()
    node = play.node("n1")
    play.submit(job("j", tasks(size=100)))
    waste(node, gives_back)
    pauses = []
    for _ in range(12):
        since = play.t
        while not node.grants:
            play.wait(0.5)
        pauses.append(play.t - since)
        gives_back(node)
    assert pauses == [min(2.0**n, LONGEST_S) for n in range(12)]
    while not node.grants:
        play.wait(0.5)
    node.end()
    assert waste(node, gives_back) == PATIENCE, "all is forgiven"


def test_what_is_given_back_at_once_counts_once_however_much_it_is() -> None:
    play = Play()
    node = play.node("n1", slots=50)
    play.submit(*[job(f"j{number}") for number in range(50)])
    assert len(node.grants) == 50
    held = list(node.grants)
    for grant in held:
        node.recalled(grant, [0])
    assert set(node.grants) - set(held), "the node is given work again"
    assert play.core.cluster.nodes["n1"].fruitless < PATIENCE


def test_a_node_that_is_asked_to_give_back_is_not_blamed_for_it() -> None:
    play = Play()
    node = play.node("n1", slots=2)
    name = play.submit(job("j", tasks(size=4)))
    for _ in range(3 * PATIENCE):
        play.admin.ask(m.JobDisable, name, m.Disabling.REQUEUE)
        play.obey()
        play.admin.ask(m.JobEnable, name)
        assert node.grants
    assert play.core.cluster.nodes["n1"].fruitless == 0


def test_what_is_stopped_for_a_drain_is_not_the_nodes_fault_though_it_is_enabled_before_it_says_so() -> None:
    play = Play()
    node = play.node("n1", slots=2)
    play.submit(job("j", tasks(size=4)))
    for _ in range(3 * PATIENCE):
        play.admin.ask(m.NodeDrain, node="n1", deadline_s=0.0, reason="")
        play.admin.ask(m.NodeEnable, "n1")
        assert m.RoundState.RELEASING in node.rounds.values()
        for name, number in list(node.rounds):
            node.released(name, number=number)
    assert play.core.cluster.nodes["n1"].fruitless == 0


def test_preparations_that_fail_are_their_jobs_fault_and_not_the_nodes() -> None:
    play = Play()
    node = play.node("n1", slots=2)
    play.node("n2", slots=1)
    for number in range(3 * PATIENCE):
        name = play.submit(job(f"j{number}", tasks(size=2), preparation=prep()))
        if (name, 1) in node.rounds:
            node.prepared(name, ok=False)
            node.give_back(name)
        play.terminate(name)
        play.obey()
    assert play.core.cluster.nodes["n1"].fruitless == 0


def test_explain_and_node_show_say_how_long_it_rests_and_an_operator_ends_it() -> None:
    play = Play()
    node = play.node("n1")
    name = play.submit(job("j"))
    assert waste(node, gives_back) == PATIENCE
    said = f"what it was given came to nothing {PATIENCE} times in a row: it is given nothing for another 1.0s"
    shown = play.admin.ask(m.NodeShow, "n1")
    assert (shown["state"], shown["reason"]) == ("idle", said)
    assert play.admin.ask(m.PoolShow, "p")["nodes_ready"] == 0
    body = play.admin.ask(m.Explain, f"{name}/t")
    assert (body["code"], body["reason"]) == ("unreliable", f"node `n1`: {said}")
    before = len(play.kept)
    play.admin.ask(m.NodeEnable, "n1")
    assert [type(record) for record in play.kept[before:]] == [Granted]
    assert play.admin.ask(m.NodeShow, "n1")["reason"] is None
    node.end()
    play.run_out(name)


def test_a_rest_is_of_this_life_of_the_coordinator_only() -> None:
    play = Play()
    node = play.node("n1")
    play.submit(job("j"))
    waste(node, gives_back)
    play.restart()
    node.join()
    assert node.grants


def test_t6_a_node_that_says_of_a_round_now_this_and_now_that_fills_no_ledger() -> None:
    """Each join compares what it holds with the ledger; what it corrects there is kept."""
    play = Play()
    node = play.node("n1")
    name = play.submit(job("j", preparation=prep()))
    for turn in range(500):
        node.drop()
        node.rounds[name, 1] = m.RoundState.OPENED if turn % 2 else m.RoundState.PREPARED
        if not node.join().joined:
            break
    assert len(play.kept) < 200
    assert "joins again and again" in node.closed[-1]


def test_a_node_that_comes_again_and_again_with_nothing_new_is_let_in() -> None:
    play = Play()
    node = play.node("n1")
    play.submit(job("j"))
    for _ in range(500):
        node.drop()
        assert node.join().joined
