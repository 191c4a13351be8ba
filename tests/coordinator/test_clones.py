"""F36: one key on two machines. The earlier one is shut out, the later one waits until nothing of it can run any more,
and somebody is told."""

from __future__ import annotations

from coordinator.model import LIVES_KEPT
from tests.coordinator.playbook import FakeNode, Play, job, release, tasks
from tests.coordinator.test_admission import listening, node
from wire import messages as m


def clone(play: Play, of: FakeNode, *, boot: str = "boot of the clone", life: str = "life of the clone") -> FakeNode:
    """Another machine with the same disk."""
    found = FakeNode(play, of.name, of.pool, of.slots, boot)
    found.key, found.expires, found.incarnation, found.life = of.key, of.expires, of.incarnation, life
    play.nodes["the clone"] = found
    return found


def reason(play: Play) -> str | None:
    return play.admin.ask(m.NodeShow, "n1")["reason"]


def test_f36_a_second_machine_with_the_key_shuts_out_the_first_and_alarms() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    epoch = n1.epoch
    other = clone(play, n1)
    assert other.join().joined is False
    assert "another machine came as node `n1`" in n1.heard(m.JoinRefused)[0].reason
    assert n1.epoch is None
    assert epoch in play.discarded
    [alarm] = play.alarms
    assert "with its key" in alarm
    assert other.heard(m.JoinRefused) == [], "it is told to try again, not to end"
    assert "try again" in other.closed[0]


def test_f36_the_newcomer_waits_until_the_first_has_been_silent_for_three_heartbeats() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    other = clone(play, n1)
    other.join()
    play.wait(14)
    assert other.join().joined is False
    play.wait(2)
    assert other.join().joined
    assert play.node_state("n1") == "idle"
    assert "with its key" in (reason(play) or "")
    assert len(play.alarms) == 1


def test_f36_the_newcomer_waits_for_the_lease_where_the_first_may_have_work() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    name = play.submit(job("j"))
    other = clone(play, n1)
    other.join()
    play.wait(60)
    assert other.join().joined is False
    assert "until its lease is over" in other.closed[-1]
    assert play.show(name)["tasks"]["active"] == 0, "nothing of it is given out again before"
    play.wait(900)
    assert other.join().joined
    other.obey()
    play.run_out(name)
    assert [run.attempt for run in other.heard(m.Run)] == [2]


def test_f36_what_the_first_began_and_the_second_knows_nothing_of_is_unreached() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    name = play.submit(job("j", release=release()))
    other = clone(play, n1)
    other.join()
    play.wait(930)
    assert other.join().joined
    assert play.rounds(name)[0] == ("n1", 1, "unreached")
    play.run_out(name)
    assert [state for _, _, state in play.rounds(name)] == ["unreached", "released"]
    assert play.show(name)["result"] == "failure", "a release was owed and not paid"


def test_f36_what_a_machine_holds_that_booted_in_a_hurry_goes_on() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    name = play.submit(job("j", tasks(size=2), release=release()))
    n1.end()
    other = clone(play, n1)  # the same machine, as the coordinator can't know
    other.rounds, other.waits = n1.rounds, n1.waits
    other.join()
    play.wait(930)
    assert other.join().joined
    play.run_out(name)
    assert play.rounds(name) == [("n1", 1, "released")]
    assert play.show(name)["result"] == "success"


def test_f36_the_first_is_refused_for_good_when_it_comes_back() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    other = clone(play, n1)
    other.join()
    play.wait(20)
    assert other.join().joined
    assert n1.join().joined is False
    assert "both have one identity" in n1.heard(m.JoinRefused)[-1].reason
    assert other.epoch is not None, "the later one is not disturbed"
    assert "two agents live by this identity" in play.alarms[-1]
    assert "two agents live by this identity" in (reason(play) or "")


def test_f36_who_comes_back_again_and_again_alarms_once() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    other = clone(play, n1, boot=n1.boot)
    assert other.join().joined
    for _ in range(5):
        n1.join()
    assert len(play.alarms) == 1


def test_f36_a_coordinator_that_restarts_remembers_who_was_superseded() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    n1.drop()
    other = clone(play, n1)
    assert other.join().joined
    play.restart()
    assert other.join().joined
    assert n1.join().joined is False
    assert "both have one identity" in n1.heard(m.JoinRefused)[-1].reason


def test_f36_an_agent_that_starts_again_on_its_machine_takes_over_at_once_and_alarms_nobody() -> None:
    play = listening()
    n1 = node(
        play,
        "n1",
    ).join()
    name = play.submit(job("j", tasks(size=3)))
    again = clone(play, n1, boot=n1.boot, life="second start")
    again.grants, again.rounds, again.waits = n1.grants, n1.rounds, n1.waits
    assert again.join().joined
    assert play.alarms == []
    assert n1.heard(m.JoinRefused) == []
    play.run_out(name)
    assert play.show(name)["result"] == "success"


def test_f36_a_machine_that_was_away_and_booted_comes_back_at_once() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    n1.silent = True
    play.wait(20)
    n1.life = "after the boot"
    n1.reboot("boot-2")
    assert n1.join().joined
    assert play.alarms == []


def test_f36_what_an_older_connection_says_late_does_not_shut_out_a_newer_one() -> None:
    play = listening()
    n1 = node(play, "n1")
    late = clone(play, n1, boot=n1.boot, life="a start that died")
    assert late.connect()
    assert n1.join().joined
    late.say(m.Join(pool="p", node="n1", incarnation=n1.incarnation, boot=n1.boot, slots=1, life=late.life))
    assert "a newer connection" in late.closed[-1]
    assert n1.epoch is not None
    n1.drop()
    assert n1.join().joined, "and it is not taken for superseded"
    assert play.alarms == []


def test_f36_over_the_socket_a_second_root_under_a_name_in_use_is_refused_and_the_first_goes_on() -> None:
    play = listening()
    n1 = play.node("n1")
    other = FakeNode(play, "n1", "p", 1, "boot-1")
    other.incarnation, other.life = "another root", "another start"
    assert other.join().joined is False
    assert "give this one another --name" in other.heard(m.JoinRefused)[0].reason
    assert n1.epoch is not None


def test_f36_a_third_machine_waits_too_and_the_first_to_get_in_stays() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    second, third = clone(play, n1, life="2"), clone(play, n1, boot="boot 3", life="3")
    second.join()
    assert third.join().joined is False
    play.wait(20)
    assert third.join().joined
    assert second.join().joined is False, "it shuts out the third in its turn, and waits"
    assert third.epoch is None


def test_f36_starts_are_remembered_within_bounds() -> None:
    play = listening()
    n1 = node(play, "n1")
    for number in range(LIVES_KEPT + 10):
        n1.life = f"start {number}"
        n1.join()
        n1.drop()
    known = play.core.cluster.nodes["n1"]
    assert len(known.superseded) == LIVES_KEPT
    assert f"start {LIVES_KEPT + 8}" in known.superseded


def test_f36_a_process_that_was_copied_while_it_ran_is_noticed_by_its_takeovers() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    other = clone(play, n1, boot=n1.boot, life=n1.life)
    for _ in range(2):
        other.join()
        n1.join()
    assert play.alarms == []
    other.join()
    [alarm] = play.alarms
    assert "copied while it ran" in alarm


def test_f36_an_agent_whose_connections_break_now_and_then_alarms_nobody() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    for _ in range(30):
        play.wait(20)
        play.links.pop(n1.epoch or 0, None)  # it broke, and the coordinator has not noticed
        n1.join()
    assert play.alarms == []
