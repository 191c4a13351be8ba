"""Who gets which slot: priorities, turns, pack and spread, parallel, wide tasks, grants ahead and their recall."""

from __future__ import annotations

from collections import Counter

import pytest

from coordinator.model import AHEAD_TASKS
from tests.coordinator.playbook import FakeNode, Play, command, job, prep, release, tasks
from wire import messages as m


def shares(node: FakeNode) -> Counter[str]:
    """Open tasks at a node by job."""
    return Counter(held.run.job for held in node.grants.values() for _ in held.open)


def end_shortly(node: FakeNode, *, took_s: float, count: int = 1) -> None:
    """The first open tasks end, after so many seconds."""
    ends = [
        node.task_end(grant, position, started_at=node.play.wall - took_s, ended_at=node.play.wall)
        for grant, position in node.running()[:count]
    ]
    node.report(ends)


# ---- order


def test_a_higher_priority_goes_first() -> None:
    play = Play()
    play.submit(job("low", tasks(size=5)))
    high = play.submit(job("high", tasks(size=5), priority=10))
    n1 = play.node("n1", slots=4)
    assert shares(n1) == {high: 4}


def test_what_a_high_priority_leaves_free_goes_to_the_low() -> None:
    play = Play()
    low = play.submit(job("low", tasks(size=5)))
    high = play.submit(job("high", tasks(size=1), priority=10))
    n1 = play.node("n1", slots=4)
    assert shares(n1) == {high: 1, low: 3}


def test_owners_take_turns_then_their_jobs() -> None:
    play = Play()
    ann, bob = play.person("ann"), play.person("bob")
    first = play.submit(job("first", tasks(size=50)), by=ann)
    second = play.submit(job("second", tasks(size=50)), by=ann)
    other = play.submit(job("other", tasks(size=50)), by=bob)
    n1 = play.node("n1", slots=8)
    assert shares(n1) == {first: 2, second: 2, other: 4}


def test_turns_are_kept_while_slots_come_free() -> None:
    play = Play()
    ann, bob = play.person("ann"), play.person("bob")
    first = play.submit(job("first", tasks(size=500)), by=ann)
    n1 = play.node("n1", slots=4)
    other = play.submit(job("other", tasks(size=500)), by=bob)
    assert shares(n1) == {first: 4}
    for _ in range(6):
        play.t += 5
        n1.end(first, count=1) if shares(n1)[first] > 2 else n1.end(count=1)
    assert abs(shares(n1)[first] - shares(n1)[other]) <= 1


def test_a_newcomer_gets_its_turn_though_short_tasks_queue_ahead_of_every_slot() -> None:
    play = Play()
    n1 = play.node("n1", slots=4)
    play.submit(job("first", tasks(size=100_000)))
    end_shortly(n1, took_s=0.001)
    queued = len(n1.running())
    assert queued > 100
    other = play.submit(job("other", tasks(size=10)), by=play.person("bob"))
    for _ in range(queued + 10):
        end_shortly(n1, took_s=0.001)
    assert play.show(other)["tasks"]["active"] < 10


def test_of_jobs_that_hold_as_little_the_one_served_longest_ago_is_next() -> None:
    play = Play()
    names = [play.submit(job(f"job{number}", tasks(size=50))) for number in range(3)]
    n1 = play.node("n1", slots=1)
    served = []
    for _ in range(9):
        [name] = shares(n1)
        served.append(name)
        n1.end()
    assert served == names * 3


def test_a_wide_task_is_not_starved_by_narrow_ones_of_an_older_job() -> None:
    play = Play()
    n1 = play.node("n1", slots=4)
    narrow = play.submit(job("narrow", tasks(size=100)))
    wide = play.submit(job("wide", tasks(slots=4)), by=play.person("bob"))
    for _ in range(4):
        assert shares(n1)[wide] == 0
        n1.end(narrow)
    assert shares(n1) == {wide: 1}


def test_fifo_serves_the_oldest_job_first() -> None:
    play = Play()
    pool = {"name": "p", "sharing": "fifo"}
    ann, bob = play.person("ann", m.Role.ADMIN), play.person("bob", m.Role.ADMIN)
    first = play.submit(job("first", tasks(size=5)), pools=[pool], by=ann)
    other = play.submit(job("other", tasks(size=50)), by=bob)
    n1 = play.node("n1", slots=8)
    assert shares(n1) == {first: 5, other: 3}


def test_groups_go_in_file_order() -> None:
    play = Play()
    play.submit(job("j", tasks("a", size=3), tasks("b", size=3)))
    n1 = play.node("n1", slots=4)
    assert [(run.group, run.count) for run in n1.heard(m.Run)] == [(0, 3), (1, 1)]


# ---- where


def test_spread_takes_the_emptiest_node() -> None:
    play = Play()
    nodes = [play.node(f"n{number}", slots=4) for number in range(3)]
    play.submit(job("j", tasks(size=6)))
    assert [len(node.running()) for node in nodes] == [2, 2, 2]


def test_pack_fills_one_node_before_the_next() -> None:
    play = Play()
    nodes = [play.node(f"n{number}", slots=4) for number in range(3)]
    name = play.submit(job("j", tasks(size=6), preparation=prep()), pools=[{"name": "p", "placement": "pack"}])
    assert [len(node.running()) for node in nodes] == [4, 2, 0]
    assert [node for node, _, _ in play.rounds(name)] == ["n0", "n1"]


def test_pack_prefers_the_node_the_job_has_opened_already() -> None:
    play = Play()
    n0, n1 = play.node("n0", slots=4), play.node("n1", slots=4)
    first = play.submit(job("first", tasks(size=3)), pools=[{"name": "p", "placement": "pack"}])
    other = play.submit(job("other", tasks(size=2)))
    assert (shares(n0), shares(n1)) == ({first: 3, other: 1}, {other: 1})
    n0.end(first, count=3)
    third = play.submit(job("third", tasks(size=1)))
    assert shares(n1)[third] + shares(n0)[third] == 1


# ---- parallel


def test_no_more_tasks_of_a_job_are_out_than_it_allows() -> None:
    play = Play()
    n1 = play.node("n1", slots=8)
    name = play.submit(job("j", tasks(size=20), parallel=3))
    assert len(n1.running()) == 3
    for _ in range(5):
        end_shortly(n1, took_s=0.001)
        assert len(n1.running()) == 3
    play.run_out(name)


# ---- wide tasks


def test_a_wide_task_is_not_starved_by_narrow_ones() -> None:
    play = Play()
    nodes = [play.node("n1", slots=4), play.node("n2", slots=4)]
    narrow = play.submit(job("narrow", tasks(size=1000)))
    wide = play.submit(job("wide", tasks(size=1, slots=4)))
    for step in range(40):
        if any(shares(node)[wide] for node in nodes):
            break
        play.t += 60
        busiest = nodes[step % 2]
        if shares(busiest)[narrow]:
            end_shortly(busiest, took_s=60)
    assert any(shares(node)[wide] for node in nodes)
    assert step <= 12


def test_one_node_at_a_time_is_kept_for_a_wide_task_the_others_go_on() -> None:
    play = Play()
    n1, n2 = play.node("n1", slots=2), play.node("n2", slots=2)
    narrow = play.submit(job("narrow", tasks(size=1000)))
    play.submit(job("wide", tasks(size=1, slots=2)))
    play.t += 60
    end_shortly(n1, took_s=60)
    end_shortly(n2, took_s=60)
    assert sorted([len(n1.running()), len(n2.running())]) == [1, 2]
    assert shares(n1) + shares(n2) == {narrow: 3}


def test_no_slot_is_kept_for_a_wide_task_that_queues_at_another_node_by_now() -> None:
    play = Play()
    n1, n2 = play.node("n1", slots=2), play.node("n2", slots=2)
    long = play.submit(job("long", tasks(size=3)))
    n1.end(long)
    n1.end(long)
    wide = play.submit(job("wide", tasks(size=3, slots=2), tasks("narrow", size=1)))
    assert (shares(n1), shares(n2)) == ({wide: 1}, {long: 1})
    end_shortly(n1, took_s=0.001)
    assert (shares(n1), shares(n2)) == ({wide: 2}, {long: 1, wide: 1})


def test_a_wide_task_takes_its_slots_and_no_more_fit_beside_it() -> None:
    play = Play()
    n1 = play.node("n1", slots=5)
    play.submit(job("j", tasks(size=9, slots=2)))
    assert len(n1.running()) == 2
    assert play.admin.ask(m.NodeShow, "n1")["slots_used"] == 4


def test_long_wide_tasks_are_not_queued_behind_a_slot_too_few() -> None:
    play = Play()
    nodes = [play.node("n1", slots=3), play.node("n2", slots=3)]
    play.submit(job("j", tasks(size=9, slots=2)))
    play.t += 3600
    end_shortly(nodes[0], took_s=3600)
    assert [len(node.running()) for node in nodes] == [1, 1]


# ---- ahead


def test_nothing_is_granted_ahead_before_a_first_task_has_ended() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    play.submit(job("j", tasks(size=1000)))
    assert len(n1.running()) == 2


def test_short_tasks_queue_at_their_node_as_deep_as_a_tenth_of_a_second_of_work() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    play.submit(job("j", tasks(size=1000)))
    for _ in range(4):
        end_shortly(n1, took_s=0.004)
        assert 2 + 25 <= len(n1.running()) <= 2 + 2 * 25


def test_however_short_tasks_are_only_so_many_queue() -> None:
    play = Play()
    n1 = play.node("n1", slots=1)
    play.submit(job("j", tasks(size=1000)))
    end_shortly(n1, took_s=0)
    assert len(n1.running()) == 1 + AHEAD_TASKS


def test_long_tasks_never_queue() -> None:
    play = Play()
    n1 = play.node("n1", slots=2)
    play.submit(job("j", tasks(size=1000)))
    end_shortly(n1, took_s=1)
    assert len(n1.running()) == 2


def test_nothing_queues_at_a_node_that_is_not_prepared() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=1000), preparation=prep()))
    n1.prepared(name)
    end_shortly(n1, took_s=0.001)
    n2 = play.node("n2")
    assert len(n2.running()) == 1
    n2.prepared(name)
    assert len(n2.running()) > 1


def queued(play: Play, size: int = 40) -> tuple[FakeNode, str]:
    """A node with one slot and short tasks queued at it, of which it knows that they take 1 ms."""
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=size), preparation=prep(), release=release()))
    n1.prepared(name)
    end_shortly(n1, took_s=0.001)
    assert len(n1.running()) == size - 1
    return n1, name


def test_queued_tasks_are_asked_back_for_a_prepared_node_with_nothing_to_do() -> None:
    play = Play()
    n1 = play.node("n1")
    n2 = play.node("n2")
    name = play.submit(job("j", tasks(size=42), preparation=prep()))
    n1.prepared(name)
    n2.prepared(name)
    end_shortly(n1, took_s=0.001)
    assert len(n1.running()) == 39 + 1
    assert n1.heard(m.Recall) == []
    n2.end(count=len(n2.running()))
    grant = list(n1.grants)[-1]
    assert n1.heard(m.Recall) == [m.Recall(grant)]
    n1.recalled(grant, sorted(n1.grants[grant].open)[1:])
    assert len(n2.running()) > 0
    play.run_out(name)
    assert play.show(name)["tasks"]["succeeded"] == 42


def test_nothing_is_asked_back_for_a_node_that_would_have_to_be_prepared_first() -> None:
    play = Play()
    n1, _ = queued(play)
    n2 = play.node("n2")
    assert n1.heard(m.Recall) == []
    assert n2.heard(m.OpenRound) == []


def test_queued_tasks_are_asked_back_for_work_of_a_higher_priority() -> None:
    play = Play()
    n1, name = queued(play)
    urgent = play.submit(job("urgent", priority=5))
    [recall] = n1.heard(m.Recall)
    n1.recalled(recall.grant, list(n1.grants[recall.grant].open))
    n1.end_all(name)
    assert shares(n1)[urgent] == 1


def test_what_was_asked_back_for_a_higher_priority_is_not_queued_there_again() -> None:
    play = Play()
    n1, name = queued(play)
    urgent = play.submit(job("urgent", tasks(size=3), priority=5))
    for _ in range(5):
        for recall in n1.heard(m.Recall)[-1:]:
            held = n1.grants.get(recall.grant)
            n1.recalled(recall.grant, sorted(held.open)[1:] if held is not None else [])
    assert len(n1.heard(m.Recall)) == 1
    assert shares(n1) == {name: 1}
    end_shortly(n1, took_s=0.001)
    assert shares(n1) == {urgent: 1}
    play.run_out(name)
    play.run_out(urgent)


def test_nothing_is_asked_back_for_work_that_is_too_wide_for_the_node() -> None:
    play = Play()
    n1, name = queued(play)
    n2 = play.node("n2", slots=2)
    play.submit(job("busy", tasks(size=2), priority=9))
    assert len(n2.running()) == 2
    play.submit(job("urgent", tasks(size=3, slots=2), priority=5))
    assert n1.heard(m.Recall) == []
    end_shortly(n1, took_s=0.001)
    assert n1.heard(m.Recall) == []


def test_nothing_is_asked_back_for_work_whose_node_is_barred() -> None:
    play = Play()
    n1 = play.node("n1")
    urgent = play.submit(job("urgent", tasks(size=3), preparation=prep(), priority=5))
    n1.prepared(urgent, ok=False)
    n1.give_back(urgent)
    low = play.submit(job("low", tasks(size=40)))
    for _ in range(3):
        end_shortly(n1, took_s=0.001)
    assert shares(n1)[low] > 1
    assert n1.heard(m.Recall) == []


def test_nothing_is_asked_back_for_a_slot_that_is_kept_for_a_wide_task() -> None:
    play = Play()
    n2 = play.node("n2", slots=2)
    play.submit(job("long", tasks(size=2)))
    wide = play.submit(job("wide", tasks(size=1, slots=2)))
    n1 = play.node("n1")
    low = play.submit(job("low", tasks(size=40)))
    end_shortly(n1, took_s=0.001)
    assert shares(n1)[low] > 1
    n2.end()
    assert n1.heard(m.Recall) == []
    n2.end()
    assert shares(n2) == {wide: 1}


@pytest.mark.parametrize("answers", [1, 20])
def test_a_node_that_has_nothing_to_give_back_is_not_asked_again_and_again(answers: int) -> None:
    play = Play()
    n1, name = queued(play)
    play.submit(job("urgent", priority=5))
    for _ in range(answers):
        n1.say(m.Recalled(list(n1.grants)[-1], []))
    assert len(n1.heard(m.Recall)) == 1
    n1.end(name, count=2)
    assert len(n1.heard(m.Recall)) == 2


def test_a_recall_that_was_lost_with_its_connection_is_asked_again() -> None:
    play = Play()
    n1, _ = queued(play)
    n1.deaf = True
    play.submit(job("urgent", priority=5))
    n1.drop()
    n1.deaf = False
    assert n1.heard(m.Recall) == []
    n1.join()
    assert len(n1.heard(m.Recall)) == 1


def test_a_node_that_came_back_with_fewer_slots_finishes_what_it_has() -> None:
    play = Play()
    n1 = play.node("n1", slots=4)
    name = play.submit(job("j", tasks(size=4)))
    n2 = play.node("n2", slots=4)
    n1.drop()
    n1.slots = 1
    n1.join()
    for _ in range(3):
        for recall in n1.heard(m.Recall)[-1:]:
            n1.say(m.Recalled(recall.grant, []))
    assert len(n1.heard(m.Recall)) <= 1
    n1.end(count=4)
    assert n2.running() == []
    play.run_out(name)
    assert play.show(name)["tasks"]["succeeded"] == 4


# ---- what no node can run


def test_tasks_of_more_slots_than_any_node_has_are_refused_with_the_reason_and_the_place() -> None:
    play = Play()
    play.node("n1", slots=4)
    play.node("n2", slots=2)
    spans = {"job/j": [3, 1, 3, 8], "job/j/task/wide/slots": [7, 5, 7, 14]}
    refused = play.admin.refused(
        m.Submit, submission="s", source="wide.batch", spans=spans,
        document={"format": 1, "pools": [], "jobs": [job("j", {**tasks("wide"), "slots": 5})]},
    )  # fmt: skip
    assert refused.code is m.RefusalCode.INVALID
    assert refused.message == "`wide` takes 5 slots, but no node of pool `p` has more than 4"
    [diagnostic] = refused.diagnostics
    assert diagnostic["span"] == {
        "file": "wide.batch",
        "start": {"line": 7, "column": 5},
        "end": {"line": 7, "column": 14},
    }
    assert play.core.cluster.jobs == {}


def test_what_the_pool_will_have_counts_too() -> None:
    play = Play()
    play.node("n1", slots=4)
    name = play.submit(job("j", tasks(slots=8)), pools=[{"name": "p", "slots": 8}])
    assert play.show(name)["tasks"]["active"] == 1
    n2 = play.node("n2", slots=None)
    assert len(n2.running()) == 1


def test_a_node_that_is_too_small_is_passed_by() -> None:
    play = Play()
    n1, n2 = play.node("n1", slots=1), play.node("n2", slots=4)
    play.submit(job("j", {**tasks(size=2), "slots": 2, "command": command()}))
    assert (len(n1.running()), len(n2.running())) == (0, 2)
