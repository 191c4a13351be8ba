"""The node and its coordinator: joining, the inventory, the lease, and what a restart of the agent makes of it all."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from agentd.dialogue import VERSION, KeeperHello, LeaseUntil, RunItems
from agentd.events import (
    Connected,
    Disconnected,
    Interrupted,
    KeeperDead,
    KeeperSaid,
    Leave,
    LifelineCut,
    Received,
    StoreState,
    Terminated,
    Tick,
)
from agentd.inventory import PIECE
from agentd.inventory import inventory as pieces_of
from agentd.model import Job, Ledger, Round, decode_body
from agentd.records import Purpose
from tests.agentd.node import CONFIG, Node, body, group, job_spec, preparation, release
from wire import messages as m
from wire.messages import Outcome, RoundState

EMBEDDED = msgspec.structs.replace(CONFIG, embedded=True)


def running(slots: int = 1, tasks: int = 5, **more: float) -> Node:
    node = Node()
    node.join(slots=slots, **more)
    node.open(job_spec())
    node.run(1, tasks)
    node.greet()
    return node


def inventory(node: Node) -> tuple[dict[tuple[str, int], RoundState], dict[int, list[tuple[int, int]]]]:
    pieces = node.said(m.Inventory)
    assert [piece.last for piece in pieces][-1]
    rounds = {(held.job, held.round): held.state for piece in pieces for held in piece.rounds}
    return rounds, {held.grant: held.spans for piece in pieces for held in piece.grants}


# ---- joining


def test_the_join_says_what_the_node_is_and_the_inventory_what_it_holds() -> None:
    node = running(tasks=5)
    node.end()
    node.tell(Disconnected())
    node.sent.clear()
    node.join()
    join = node.said(m.Join)[0]
    assert (join.node, join.incarnation, join.boot) == ("p-1", "i1", "b1")
    assert inventory(node) == ({("j-1", 1): RoundState.OPENED}, {1: [(1, 4)]})


def test_unacked_reports_come_before_the_inventory() -> None:
    node = running()
    node.end()
    node.tell(Disconnected())
    node.sent.clear()
    node.join()
    kinds = [type(message) for message in node.sent]
    assert kinds.index(m.Report) < kinds.index(m.Inventory)


def test_an_inventory_too_large_for_one_frame_comes_in_pieces() -> None:
    node = Node()
    node.join(slots=1)
    node.open(job_spec(group(1_000_000)))
    for grant in range(1, 2502):
        node.core.handle(
            Received(m.Run(grant=grant, job="j-1", round=1, group=0, first=grant, count=1, step=1, attempt=1)), node.now
        )
    node.tell(Tick())
    node.tell(Disconnected())
    node.sent.clear()
    node.join(slots=1)
    assert len(node.said(m.Inventory)) > 1
    assert len(inventory(node)[1]) == 2501


def test_nothing_but_the_answer_to_the_join_counts_before_it() -> None:
    node = Node()
    node.tell(Connected())
    node.open(job_spec())
    assert node.core.ledger.jobs == {}


def test_a_refused_node_leaves() -> None:
    node = Node()
    node.tell(Connected())
    node.hear(m.JoinRefused("no"))
    assert node.left is Leave.REFUSED


def test_f36_a_life_that_is_fenced_kills_what_it_started_then_leaves() -> None:
    node = running(tasks=3)
    keeper = node.of(Purpose.TASKS)[0].name
    node.hear(m.JoinRefused("another agent lives by this identity"))
    assert (node.killed, node.left) == ([keeper], None)
    handed = list(node.handed)
    node.wait(20)
    node.die(keeper)
    assert node.handed == handed, "nothing is started any more"
    assert node.left is Leave.REFUSED


def test_f36_a_life_that_was_replaced_while_it_was_away_is_fenced_at_its_return() -> None:
    node = running(tasks=3)
    keeper = node.of(Purpose.TASKS)[0].name
    node.tell(Disconnected())
    node.tell(Connected())
    node.hear(m.JoinRefused("another agent lives by this identity"))
    assert node.killed == [keeper]
    node.sent.clear()
    node.tell(Connected())
    assert node.sent == [], "it never asks again"
    node.die(keeper)
    assert node.left is Leave.REFUSED


def test_f36_a_newcomer_that_is_refused_leaves_tasks_of_an_earlier_life_alone() -> None:
    node = running(tasks=1)
    before = node.restart()
    node.attach(before["k1"], running=before["k1"].keys[0])
    node.tell(Connected())
    node.hear(m.JoinRefused("this pool is another's"))
    assert (node.killed, node.left) == ([], Leave.REFUSED)


def test_f36_a_fenced_life_leaves_a_release_to_its_keeper() -> None:
    node = Node()
    node.join(slots=1)
    node.open(job_spec(release=release()))
    node.run(1, 1)
    node.greet()
    node.end()
    node.hear(m.ReleaseRound("j-1", 1, "AllTasksComplete"))
    node.greet()
    assert node.of(Purpose.RELEASE)
    node.hear(m.JoinRefused("another agent lives by this identity"))
    assert (node.killed, node.left) == ([], Leave.REFUSED)


def test_a_join_that_is_not_answered_ends_the_session() -> None:
    node = Node()
    node.tell(Connected())
    node.wait(31)
    assert node.hung_up == ["the coordinator does not answer"]


def test_beats_that_are_not_answered_end_the_session() -> None:
    node = running()
    node.answer_beats = False
    node.wait(60)
    assert node.hung_up == ["the coordinator does not answer"]


def test_messages_for_an_old_session_are_not_for_the_next() -> None:
    node = running()
    key = node.tasks[0]
    node.at += 1
    node.tell(KeeperSaid("k1", node.ended(node.keepers["k1"], key)), Disconnected(), Connected(epoch=9))
    assert isinstance(node.sent[-1], m.Join)
    assert node.said(m.Report) == []


# ---- bodies


def test_a_body_in_pieces_opens_a_round() -> None:
    node = Node()
    node.join()
    whole = body(job_spec())
    digest = hashlib.sha256(whole).hexdigest()
    for offset in range(0, len(whole), 10):
        node.hear(m.BodyChunk(digest, offset, len(whole), whole[offset : offset + 10]))
    node.hear(m.OpenRound(job="j-1", round=1, digest=digest))
    assert ("j-1" in node.core.ledger.jobs, node.hung_up) == (True, [])


@pytest.mark.parametrize(
    "messages",
    [
        [m.BodyChunk("x", 5, 10, b"12345")],
        [m.BodyChunk("x", 0, 3, b"12345")],
        [m.BodyChunk("x", 0, 5, b"12345"), m.OpenRound(job="j-1", round=1, digest="x")],
        [m.OpenRound(job="j-1", round=1, body=b"\xff")],
        [m.OpenRound(job="j-2", round=1, body=body(job_spec(), "j-1"))],
        [m.OpenRound(job="../x", round=1, body=body(job_spec(), "../x"))],
        [m.OpenRound(job="j-1", round=1, body=body(job_spec(group(name="../x"))))],
    ],
    ids=["gap", "too long", "wrong digest", "no body", "another job", "a path", "a path in it"],
)
def test_what_is_no_body_ends_the_session_and_holds_nothing(messages: list[m.Message]) -> None:
    node = Node()
    node.join()
    node.hear(*messages)
    assert len(node.hung_up) == 1
    assert node.core.ledger.jobs == {}


def test_a_round_without_a_body_of_a_job_not_held_is_not_held() -> None:
    node = Node()
    node.join()
    node.hear(m.OpenRound(job="j-1", round=1))
    assert node.said(m.NotHeld) == [m.NotHeld("j-1", 1)]


@pytest.mark.parametrize("more", [{"count": 0}, {"count": 1 << 20}, {"group": 7}, {"first": 1000}, {"step": 0}])
def test_a_grant_of_tasks_that_there_are_not_ends_the_session(more: dict[str, int]) -> None:
    node = Node()
    node.join()
    node.open(job_spec())
    fields = {"group": 0, "first": 0, "count": 1, "step": 1, **more}
    node.hear(m.Run(grant=1, job="j-1", round=1, attempt=1, **fields))
    assert len(node.hung_up) == 1
    assert node.core.ledger.grants == {}


def test_a_grant_of_a_round_that_is_not_open_comes_back() -> None:
    node = Node()
    node.join()
    node.run(1, 3)
    assert node.said(m.Recalled) == [m.Recalled(1, [(0, 3)])]


# ---- the lease


def test_the_lease_counts_from_the_sending_of_the_acked_beat_and_keepers_know_it() -> None:
    node = running(heartbeat_s=5.0, lease_s=60.0)
    told: list[float | None] = []
    node.core.handle(Tick(), node.now)
    node.at += 5
    node.core.handle(Tick(), node.now)
    ready = node.core.take_ready()
    beat = next(message for message in ready.at_once if isinstance(message, m.Heartbeat))
    sent_at = node.at
    node.at += 3
    node.core.handle(Received(m.HeartbeatAck(beat.beat)), node.now)
    ready = node.core.take_ready()
    told += [
        said.until
        for now in ready.at_once
        if isinstance(now, tuple)
        for said in [now[1]]
        if isinstance(said, LeaseUntil)
    ]
    assert told == [sent_at + 60.0]


def test_at_the_end_of_the_lease_what_is_queued_is_dropped_and_the_session_ended() -> None:
    node = running(lease_s=60.0)
    node.answer_beats = False
    node.tell(Disconnected())
    node.wait(61)
    assert node.core.ledger.grants[1].left == 1, "the one that runs is the keeper's to kill"
    node.end(outcome=Outcome.KILLED)
    assert node.core.ledger.grants == {}
    node.sent.clear()
    node.join()
    assert inventory(node)[1] == {}
    assert [end.outcome for end in node.task_ends()] == [Outcome.KILLED]


def test_an_agent_that_slept_past_its_lease_starts_nothing_before_it_joined_again() -> None:
    node = running(slots=1, lease_s=60.0)
    node.at += 1000
    key = node.tasks[0]
    node.keepers["k1"].queue.clear()
    node.tell(KeeperSaid("k1", node.ended(node.keepers["k1"], key)))
    assert node.tasks == []
    assert node.hung_up == ["its lease ran out"]


def test_within_the_lease_the_node_works_on_without_its_coordinator() -> None:
    node = running(slots=1, tasks=3)
    node.tell(Disconnected())
    for _ in range(3):
        node.end()
    node.sent.clear()
    node.join()
    assert sorted(end.position for end in node.task_ends()) == [0, 1, 2]


# ---- a restart of the agent


def test_a_task_outlives_the_agent_and_keeps_its_slot() -> None:
    node = running(slots=1, tasks=3)
    key = node.tasks[0]
    before = node.restart()
    node.attach(before["k1"], running=key)
    node.join(slots=1)
    assert inventory(node)[1] == {1: [(0, 3)]}
    assert node.said(m.Recalled) == [m.Recalled(1, [(1, 2)])], "what never started is not begun by a new life"
    node.run(2, 1, first=10)
    node.greet()
    assert [key for key in node.tasks if key.startswith("2.")] == []
    node.end(key)
    assert node.task_ends()[-1].exit_code == 0
    assert [key for key in node.tasks if key.startswith("2.")] == ["2.0.0.1"]


def test_the_join_waits_until_every_keeper_was_looked_at() -> None:
    node = running(slots=2, tasks=3)
    keys = node.tasks
    before = node.restart()
    node.tell(Connected())
    assert node.said(m.Join) == []
    node.attach(before["k1"], running=keys[0])
    assert node.said(m.Join) == []
    node.die("k2", started=[keys[1]])
    assert len(node.said(m.Join)) == 1


def test_a_start_without_an_end_in_a_dead_keepers_record_is_lost_and_an_end_counts_once() -> None:
    node = running(slots=2, tasks=3)
    first, second = node.tasks
    dead = node.keepers["k1"]
    node.restart()
    end = node.ended(dead, first, 5)
    node.die("k1", ends=[end, end])
    node.die("k2", started=[second])
    node.join()
    ends = {end.position: end for end in node.task_ends()}
    assert (ends[0].exit_code, ends[0].outcome) == (5, Outcome.EXITED)
    assert ends[1].outcome is Outcome.LOST
    assert len(node.task_ends()) == 2
    assert node.forgotten == ["k1", "k2"]


def test_a_keeper_that_does_not_connect_is_killed_and_only_then_given_up() -> None:
    node = running()
    node.restart()
    node.tell(Connected())
    node.wait(21)
    assert node.killed == ["k1"]
    assert node.said(m.Join) == []
    node.tell(KeeperDead("k1"))
    assert len(node.said(m.Join)) == 1


def test_another_boot_loses_what_ran_and_forgets_what_waited() -> None:
    node = running(slots=1, tasks=3)
    key = node.tasks[0]
    node.restart(boot="b2")
    node.die("k1", started=[key])
    node.join()
    assert [(end.position, end.outcome) for end in node.task_ends()] == [(0, Outcome.LOST)]
    assert inventory(node)[1] == {}


def test_a_keeper_that_still_runs_a_dropped_task_is_told_to_stop_it_and_keeps_the_slot_meanwhile() -> None:
    node = running(slots=1, tasks=1)
    key = node.tasks[0]
    node.hear(m.Drop([1]))
    before = node.restart()
    before["k1"].stops.clear()
    node.attach(before["k1"], running=key)
    assert node.keepers["k1"].stops == [key]
    node.join(slots=1)
    node.open(job_spec(), job="k-1")
    node.run(2, 1, job="k-1")
    node.greet()
    assert [key for key in node.tasks if key.startswith("2.")] == []


def test_a_second_hello_of_a_keeper_is_its_end() -> None:
    node = running()
    node.tell(KeeperSaid("k1", KeeperHello(version=VERSION, keeper="k1", pid=1, boot="b", starttime=1)))
    assert node.killed == ["k1"]


def test_a_keeper_that_answers_no_ping_is_killed_and_its_task_lost() -> None:
    node = running()
    key = node.tasks[0]
    del node.keepers["k1"]
    node.wait(20)
    assert node.killed == ["k1"]
    node.die("k1", started=[key])
    assert node.task_ends()[0].outcome is Outcome.LOST


def test_an_agent_that_slept_kills_no_keeper_for_it() -> None:
    node = running(lease_s=100_000.0)
    node.at += 3600
    node.tell(Tick())
    assert node.killed == []


# ---- a full disk


def test_with_a_full_disk_nothing_new_starts_and_beats_go_on() -> None:
    node = Node()
    node.join()
    node.tell(StoreState(full=True))
    node.open(job_spec())
    node.run(1, 2)
    assert node.of(Purpose.TASKS) == []
    node.wait(6)
    assert node.said(m.Heartbeat)
    node.tell(StoreState(full=False))
    node.greet()
    assert len(node.tasks) == 2


# ---- leaving


def test_sigterm_leaves_tasks_to_their_keepers() -> None:
    node = running()
    node.tell(Terminated())
    assert node.left is Leave.STOPPED
    assert node.killed == []
    assert node.keepers["k1"].stops == []


def test_sigint_asks_to_leave_and_goes_when_nothing_is_owed() -> None:
    node = running()
    node.tell(Interrupted())
    assert len(node.said(m.Leaving)) == 1
    assert node.left is None
    node.hear(m.Depart())
    assert node.left is Leave.DEPARTED


def test_a_second_sigint_is_sigterm() -> None:
    node = running()
    node.tell(Interrupted())
    node.tell(Interrupted())
    assert node.left is Leave.STOPPED


def test_leaving_is_said_again_after_a_rejoin() -> None:
    node = running()
    node.tell(Interrupted())
    node.tell(Disconnected())
    node.sent.clear()
    node.join()
    assert len(node.said(m.Leaving)) == 1


def test_an_embedded_agent_whose_coordinator_is_gone_pays_its_debts_and_goes() -> None:
    node = Node(EMBEDDED)
    node.join()
    node.open(job_spec(preparation=preparation(), release=release()))
    node.hear(m.Prepare("j-1", 1))
    node.greet()
    node.end("prep.1.1")
    node.run(1, 3)
    node.greet()
    node.tell(Disconnected())
    node.wait(29)
    assert node.of(Purpose.RELEASE) == []
    node.wait(2)
    for key in node.tasks:
        node.end(key, outcome=Outcome.KILLED)
    node.greet()
    assert node.left is None
    node.end("release.1.1")
    assert node.left is Leave.DEPARTED
    assert node.core.ledger.jobs["j-1"].rounds[1].state is RoundState.RELEASED


def test_an_embedded_agent_whose_run_is_dead_does_not_wait_long() -> None:
    node = Node(EMBEDDED)
    node.join()
    node.open(job_spec(release=release()))
    node.run(1, 1)
    node.greet()
    node.end()
    node.tell(LifelineCut())
    node.wait(100)
    assert node.left is None, "its coordinator ends the jobs"
    node.tell(Disconnected())
    node.wait(6)
    node.greet()
    node.end("release.1.1")
    assert node.left is Leave.DEPARTED


def test_an_agent_that_is_not_embedded_waits_for_its_coordinator() -> None:
    node = running(lease_s=1e9)
    node.tell(Disconnected())
    node.wait(10_000)
    assert node.left is None
    assert len(node.tasks) == 1


def test_what_is_said_to_keepers_is_nothing_before_they_connect() -> None:
    node = Node()
    node.join()
    node.open(job_spec())
    node.core.handle(
        Received(m.Run(grant=1, job="j-1", round=1, group=0, first=0, count=1, step=1, attempt=1)), node.now
    )
    ready = node.core.take_ready()
    assert not [said for _, said in ready.said if isinstance(said, RunItems)]


@pytest.mark.parametrize("rounds", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1])
def test_an_inventory_of_many_rounds_names_each_once(rounds: int) -> None:
    ledger = Ledger()
    held = decode_body(body(job_spec()))
    for number in range(rounds):
        ledger.jobs[f"j-{number}"] = Job(held, {1: Round(f"j-{number}", 1)})
    pieces = list(pieces_of(ledger))
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert max(len(piece.rounds) for piece in pieces) <= PIECE
    assert sorted(known.job for piece in pieces for known in piece.rounds) == sorted(ledger.jobs)
