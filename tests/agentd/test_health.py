"""A node says why it can do no work, once, without flapping, and again to whoever has not heard it."""

from __future__ import annotations

import msgspec

from agentd.dialogue import KeeperGone, KeeperStuck
from agentd.events import Disconnected, DiskSeen, EmptyJob, JobEmptied, KeeperSaid, Unkillable
from agentd.health import FLOOR_BYTES, Vitals
from agentd.records import Purpose
from tests.agentd.node import CONFIG, Node, job_spec, preparation, release
from wire import messages as m

GIB = 1 << 30
FLOOR = msgspec.structs.replace(CONFIG, disk_floor=100 << 20)
SIZE = 100 * GIB


def working(config: object = FLOOR) -> Node:
    node = Node(config)  # type: ignore[arg-type]
    node.join()
    node.open(job_spec(release=release()))
    node.run(1, 2)
    node.greet()
    return node


def healths(node: Node) -> list[m.Health]:
    return node.said(m.Health)


# ---- the disk


def test_a_disk_below_its_floor_is_said_once_and_so_is_its_end() -> None:
    node = working()
    node.tell(DiskSeen(50 << 20, SIZE))
    node.tell(DiskSeen(40 << 20, SIZE))
    assert [health.reason for health in healths(node)] == ["the disk of its root has 50 MiB left, less than 100 MiB"]
    node.tell(DiskSeen(200 << 20, SIZE))
    assert [health.reason for health in healths(node)][1:] == [None]


def test_a_node_is_not_back_before_there_is_a_quarter_more_than_the_floor() -> None:
    node = working()
    node.tell(DiskSeen(99 << 20, SIZE))
    node.tell(DiskSeen(101 << 20, SIZE), DiskSeen(124 << 20, SIZE))
    assert [health.reason is None for health in healths(node)] == [False]
    node.tell(DiskSeen(125 << 20, SIZE))
    assert [health.reason is None for health in healths(node)] == [False, True]


def test_a_node_whose_floor_is_most_of_its_disk_comes_back() -> None:
    vitals = Vitals(90 * GIB)
    vitals.disk_seen(89 * GIB, SIZE)
    assert vitals.news() is not None
    vitals.disk_seen(94 * GIB, SIZE)
    assert vitals.news() is None
    vitals.disk_seen(95 * GIB, SIZE)
    assert vitals.news() == m.Health(None)


def test_the_default_floor_is_small_on_a_small_disk() -> None:
    vitals = Vitals(None)
    vitals.disk_seen(FLOOR_BYTES - 1, 10 * GIB)
    assert vitals.news() is None
    vitals.disk_seen(GIB // 4, 10 * GIB)
    assert vitals.news() is not None
    large = Vitals(None)
    large.disk_seen(FLOOR_BYTES - 1, 1000 * GIB)
    assert large.news() is not None


def test_a_floor_of_nothing_is_never_reached() -> None:
    vitals = Vitals(0)
    vitals.disk_seen(0, SIZE)
    assert vitals.news() is None


def test_what_is_wrong_is_said_again_after_a_rejoin_and_nothing_where_all_is_well() -> None:
    node = working()
    node.tell(DiskSeen(50 << 20, SIZE), Disconnected())
    node.sent.clear()
    node.join()
    assert [health.reason is None for health in healths(node)] == [False]
    node.tell(DiskSeen(SIZE, SIZE), Disconnected())
    node.sent.clear()
    node.join()
    assert healths(node) == []


def test_what_runs_goes_on_where_the_disk_is_full() -> None:
    node = working()
    before = node.tasks
    node.tell(DiskSeen(0, SIZE))
    assert node.tasks == before
    assert all(keeper.stops == [] for keeper in node.keepers.values())


# ---- processes


def test_f30_a_process_that_resists_makes_the_node_unusable_until_it_is_dead() -> None:
    node = working()
    key = node.tasks[0]
    keeper = next(k for k in node.of(Purpose.TASKS) if key in k.keys)
    node.tell(KeeperSaid(keeper.name, KeeperStuck(key=key)))
    node.tell(KeeperSaid(keeper.name, KeeperStuck(key=key)))
    assert healths(node) == [m.Health("a process there can't be killed", ["j-1"])]
    node.end(key)
    assert healths(node)[1:] == [m.Health(None)]


def test_f30_a_release_waits_for_the_process_and_the_node_says_so() -> None:
    node = working()
    for key in node.tasks:
        node.end(key)
    node.answer_chores = False
    node.hear(m.ReleaseRound("j-1", 1, "UserTerminate"))
    assert EmptyJob("j-1") in node.chores
    node.tell(Unkillable("j-1"))
    assert healths(node) == [m.Health("a process there can't be killed", ["j-1"])]
    node.wait(60)
    assert node.of(Purpose.RELEASE) == []
    node.answer_chores = True
    node.tell(JobEmptied("j-1"))
    assert healths(node)[-1] == m.Health(None)
    node.greet()
    node.end()
    assert [end.succeeded for end in node.phase_ends()] == [True]


def test_f30_a_keeper_that_goes_and_can_not_end_its_processes_says_so() -> None:
    node = working()
    keeper = node.of(Purpose.TASKS)[0]
    node.tell(KeeperSaid(keeper.name, KeeperGone(survivors=2)))
    assert healths(node)[-1].stuck == ["j-1"]
    node.die(keeper.name)
    assert healths(node)[-1] == m.Health(None)


def test_a_full_disk_and_a_process_are_said_together() -> None:
    vitals = Vitals(100)
    vitals.disk_seen(1, 1000)
    vitals.resists("k1", "j-1")
    news = vitals.news()
    assert news is not None
    assert news.reason is not None
    assert news.reason.startswith("the disk")
    assert news.reason.endswith("a process there can't be killed")


# ---- what is recalled


def test_nothing_of_a_grant_starts_after_its_recall_was_answered_whatever_becomes_of_its_keeper() -> None:
    node = Node()
    node.join(slots=1)
    node.open(job_spec(preparation=preparation(wait=False)))
    node.run(1, 1)
    node.greet()
    [keeper] = node.of(Purpose.TASKS)
    [key] = keeper.keys
    node.hear(m.Recall(1))
    node.wait(1)
    handed = list(node.handed)
    node.die(keeper.name)
    node.greet()
    assert [said.spans for said in node.said(m.Recalled)][-1] == [(0, 1)]
    assert [key for name, key in node.handed[len(handed) :] if name.startswith("k") and key.startswith("1.")] == []
