"""Leases: when a node is shown lost, when its tasks go elsewhere, and what a late coordinator forgives."""

from __future__ import annotations

import pytest

from coordinator.model import LEASE_DRIFT, LEASE_MARGIN_S, MISSED_BEATS
from coordinator.records import NodeJoined, Returned, TasksReturned
from tests.coordinator.playbook import BEAT_S, WALL, FakeNode, Play, job, prep, release, tasks
from wire import messages as m
from wire.spec import DEFAULT_LOST_AFTER_MS

LEASE_S = DEFAULT_LOST_AFTER_MS / 1000
ELSEWHERE_S = LEASE_S * (1 + LEASE_DRIFT) + LEASE_MARGIN_S


def two_nodes() -> tuple[Play, str, FakeNode, FakeNode]:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2, retries=0)))
    n2 = play.node("n2")
    return play, name, n1, n2


def test_the_numbers_are_those_of_the_design() -> None:
    assert (BEAT_S, MISSED_BEATS, LEASE_MARGIN_S, LEASE_DRIFT, LEASE_S) == (5.0, 3, 10.0, 0.001, 900.0)
    play = Play()
    joined = play.node("n1").said_joined
    assert joined == m.Joined(heartbeat_s=5.0, lease_s=900.0, slots=1)


def test_the_heartbeat_is_a_third_of_a_short_lease() -> None:
    play = Play()
    play.submit(job("j"), pools=[{"name": "p", "lost_after_ms": 3000}])
    assert play.node("n1").said_joined == m.Joined(heartbeat_s=1.0, lease_s=3.0, slots=1)


def test_a_heartbeat_is_answered_at_once() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.heartbeat()
    assert n1.heard(m.HeartbeatAck) == [m.HeartbeatAck(1)]
    assert play.batches[-1].records == []


def test_a_node_is_shown_lost_after_three_missed_heartbeats() -> None:
    play, _, n1, _ = two_nodes()
    n1.silent = True
    play.wait(3 * BEAT_S - 0.1)
    assert play.node_state("n1") == "running"
    play.wait(0.2)
    assert play.node_state("n1") == "lost"
    assert play.admin.ask(m.NodeShow, "n1")["reason"] == "out of contact"


def test_a_silent_node_gets_no_new_work_and_keeps_what_it_has() -> None:
    play, name, n1, n2 = two_nodes()
    n1.silent = True
    play.wait(20)
    play.submit(job("more", tasks(size=5)))
    n2.end_all()
    assert len(n1.running()) == 1
    assert [run.job for run in n1.heard(m.Run)] == [name]


def test_a_silent_node_that_speaks_again_within_its_lease_has_lost_nothing() -> None:
    play, name, n1, n2 = two_nodes()
    n1.silent = True
    play.wait(LEASE_S)
    n1.silent = False
    n1.heartbeat()
    assert play.node_state("n1") == "running"
    n1.end()
    n2.end()
    assert play.show(name)["tasks"]["succeeded"] == 2
    assert play.kept_of(TasksReturned) == []
    n1.silent = True
    play.wait(20)
    assert play.node_state("n1") == "lost"


@pytest.mark.parametrize("way", ["silent", "gone"])
def test_tasks_go_elsewhere_only_when_the_lease_has_certainly_run_out(way: str) -> None:
    play, name, n1, n2 = two_nodes()
    [index] = n1.labels(name)
    n2.end()
    if way == "silent":
        n1.silent = True
    else:
        n1.drop()
    play.wait(ELSEWHERE_S - 0.1)
    assert n2.running() == []
    play.wait(0.2)
    assert n2.labels(name) == [index]
    assert [held.run.attempt for held in n2.grants.values()] == [2]
    assert [record.cause for record in play.kept_of(TasksReturned)] == [Returned.EXPIRED]
    if way == "silent":
        assert n1.closed == ["its lease ran out"]


def test_the_lease_counts_from_the_last_heartbeat_that_came() -> None:
    play, _, n1, n2 = two_nodes()
    n2.end()
    play.wait(500)
    n1.silent = True
    play.wait(ELSEWHERE_S - 0.1)
    assert n2.running() == []
    play.wait(0.2)
    assert len(n2.running()) == 1


def test_what_a_node_says_after_its_lease_counts_for_nothing() -> None:
    play, name, n1, n2 = two_nodes()
    n2.end()
    n1.drop()
    play.wait(ELSEWHERE_S + 1)
    assert len(n2.running()) == 1
    n1.end(exit_code=1)
    n1.join()
    assert n1.outbox == []
    assert play.show(name)["tasks"]["failed"] == 0
    n2.end()
    assert play.show(name)["tasks"]["succeeded"] == 2


def test_what_a_node_still_holds_after_its_lease_is_dropped_when_it_returns() -> None:
    play, _, n1, n2 = two_nodes()
    n2.end()
    n1.drop()
    [grant] = n1.grants
    play.wait(ELSEWHERE_S + 1)
    n1.join()
    assert n1.heard(m.Drop) == [m.Drop([grant])]


def test_a_restarted_coordinator_counts_every_lease_anew() -> None:
    play, name, n1, n2 = two_nodes()
    n2.end()
    n1.drop()
    play.wait(ELSEWHERE_S - 10)
    play.restart()
    n2.join()
    play.wait(ELSEWHERE_S - 1)
    assert n2.running() == []
    play.wait(2)
    assert n2.labels(name) == [0]


def test_a_coordinator_that_slept_forgives_those_it_did_not_hear() -> None:
    play, _, n1, n2 = two_nodes()
    n2.end()
    play.sleep(5000)
    assert play.node_state("n1") == "running"
    assert play.kept_of(TasksReturned) == []
    n1.drop()
    play.wait(ELSEWHERE_S - 1)
    assert n2.running() == []
    play.wait(2)
    assert len(n2.running()) == 1


def test_a_coordinator_that_slept_forgives_before_it_handles_what_came_meanwhile() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=2), release=release(), release_grace_ms=60_000))
    n1.drop()
    play.terminate(name)
    n2.released(name)
    play.t += 5000
    play.submit(job("other"))
    n2.drop()
    assert play.show(name)["state"] == "terminating"
    n1.join()
    n1.released(name)
    assert play.show(name)["release"]["succeeded"] == 2


def test_a_lease_is_counted_by_boottime_whatever_the_wall_clock_does() -> None:
    play, _, n1, n2 = two_nodes()
    n2.end()
    play.wall_offset += 1_000_000
    play.wait(100)
    assert play.node_state("n1") == "running"
    play.wall_offset -= 5_000_000
    n1.drop()
    play.wait(ELSEWHERE_S - 101)
    assert n2.running() == []


def test_a_node_back_with_another_boot_has_lost_what_it_ran() -> None:
    play, name, n1, _ = two_nodes()
    n1.reboot("boot-2")
    n1.join()
    assert [record.cause for record in play.kept_of(TasksReturned)] == [Returned.GONE]
    assert n1.labels(name) == [0]
    assert [held.run.attempt for held in n1.grants.values()] == [2]


def test_a_silent_node_without_work_is_closed_with_its_lease_and_watched_again_after_it_joins() -> None:
    play = Play()
    n1 = play.node("n1")
    n1.silent = True
    play.wait(ELSEWHERE_S + 1)
    assert n1.closed == ["its lease ran out"]
    n1.silent = False
    n1.join()
    assert play.node_state("n1") == "idle"
    n1.silent = True
    play.wait(16)
    assert play.node_state("n1") == "lost"


def test_a_preparation_outlives_the_lease() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", preparation=prep()))
    n1.drop()
    play.wait(ELSEWHERE_S + 1)
    n1.grants.clear()
    n1.join()
    assert len(n1.heard(m.Prepare)) == 1
    n1.prepared(name)
    play.run_out(name)
    assert [attempt for _, _, _, attempt in n1.spawned] == [2]


# ---- a lease that changes


def test_nodes_join_again_when_a_file_sets_the_lease_of_their_pool() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j"), pools=[{"name": "p", "lost_after_ms": 3000, "slots": 1}])
    assert n1.closed == ["the options of the pool were set: join again"]
    n1.join()
    assert n1.said_joined == m.Joined(heartbeat_s=1.0, lease_s=3.0, slots=1)
    assert n1.labels(name) == [0]
    assert play.kept_of(NodeJoined)[-1].lease_s == 3.0


def test_a_longer_lease_that_was_told_counts_until_the_node_knows_the_shorter_one() -> None:
    play = Play()
    n1 = play.node("n1")
    n2 = play.node("n2")
    name = play.submit(job("j", tasks(size=2)))
    n2.end()
    play.submit(job("k"), pools=[{"name": "p", "lost_after_ms": 3000}])
    assert n1.epoch is None
    n2.join()
    play.wait(60)
    assert [run.job for run in n2.heard(m.Run)] == [name, "k-1"]
    n1.join(inventory=False)
    n1.drop()
    play.wait(600)
    n2.end_all()
    assert n2.running() == []
    play.wait(400)
    assert n2.labels(name) == [0]


def test_times_are_told_in_utc_to_the_millisecond() -> None:
    play = Play()
    assert play.wall == WALL + 1000
    play.node("n1")
    name = play.submit(job("j"))
    assert play.show(name)["submitted_at"] == "2027-01-15T08:16:40.000Z"
