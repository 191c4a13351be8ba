"""Replaying any prefix of the records gives the cluster the live core had there, and a restarted core goes on."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest

from coordinator import records
from coordinator.cluster import Cluster
from coordinator.model import JobState
from coordinator.records import Record
from tests.coordinator.playbook import FakeNode, Play, job, prep, release, tasks
from tests.simulator.sameness import difference
from wire import messages as m
from wire.spec import Finish

Scene = Callable[[Play], str]


def plain(play: Play) -> str:
    """All goes well on two nodes."""
    play.node("n1", slots=2)
    play.node("n2", slots=2)
    name = play.submit(
        job("j", tasks("a", size=9), tasks("b", size=3, after=[0]), preparation=prep(), release=release())
    )
    play.run_out(name)
    return name


def failing(play: Play) -> str:
    """Retries, backoff, failures, skips; a preparation that fails on one node."""
    n1, n2 = play.node("n1", slots=2), play.node("n2", slots=2)
    a = tasks("a", size=4, retries=1, backoff={"first_ms": 4000, "cap_ms": 9000})
    name = play.submit(job("j", a, tasks("b", after=[0]), preparation=prep(retries=1), release=release()))
    n1.prepared(name, ok=False, final=False)
    n1.prepared(name, ok=False, attempt=2)
    n1.give_back(name)
    n2.prepared(name)
    n2.end(exit_code=1)
    n2.end(exit_code=None, outcome=m.Outcome.LOST)
    n2.end(exit_code=3)
    play.wait(20)
    n2.end(exit_code=1)
    play.run_out(name)
    return name


def coming_and_going(play: Play) -> str:
    """Connections break, a node reboots, another leaves, a third is wiped, one is lost for good."""
    n1, n2, n3, n4 = (play.node(f"n{number}", slots=2) for number in (1, 2, 3, 4))
    name = play.submit(job("j", tasks(size=40), preparation=prep(), release=release(), release_grace_ms=60_000))
    for node in (n1, n2, n3, n4):
        node.prepared(name)
        node.end(count=1)
    n1.drop()
    n1.end(count=1)
    n1.join()
    n2.reboot("boot-2")
    n2.join()
    n3.say(m.Leaving())
    n3.released(name)
    n3.drop()
    n4.drop()
    play.wait(920)
    n2.wiped()
    n2.join()
    play.run_out(name)
    n4.join()
    play.obey()
    return name


def deaf(play: Play) -> str:
    """A round never arrives; a recall; a job of higher priority; a termination."""
    n1 = play.node("n1")
    n1.deaf = True
    name = play.submit(job("j", tasks(size=60), preparation=prep(), release=release()))
    n1.drop()
    n1.deaf = False
    n1.join()
    n1.prepared(name)
    n1.report([n1.task_end(*n1.running()[0], started_at=0.0, ended_at=0.001)])
    play.submit(job("urgent", priority=9))
    last = list(n1.grants)[-1]
    n1.recalled(last, sorted(n1.grants[last].open))
    play.terminate(name)
    play.run_out(name)
    return name


def deleted(play: Play) -> str:
    """Three jobs of one name; one deleted while it runs, one after its end with a debt left behind."""
    n1, n2 = play.node("n1"), play.node("n2")
    first = play.submit(job("j", tasks(size=4), preparation=prep(), release=release()))
    play.admin.start(m.JobDelete, first)
    play.obey()
    second = play.submit(job("j", tasks(size=4), preparation=prep(), release=release(), release_grace_ms=1000))
    n1.prepared(second)
    n2.prepared(second)
    n2.drop()
    play.terminate(second)
    n1.released(second)
    play.wait(30)
    play.admin.start(m.JobDelete, second)
    play.obey()
    third = play.submit(job("j"))
    n2.join()
    play.run_out(third)
    return third


def manual(play: Play) -> str:
    """A manual job, a coordinator that restarts in the middle, a job without preparation, a timeout."""
    play.node("n1", slots=3)
    name = play.submit(job("j", tasks(size=5), finish="manual", timeout_ms=3_600_000))
    play.obey()
    play.restart()
    play.nodes["n1"].join()
    play.wait(3_600)
    play.run_out(name)
    return name


def by_arms(play: Play) -> str:
    """Retries on budgets of their own, a success by an arm, and one that ends the job."""
    n1 = play.node("n1")
    arms = [
        {"codes": [[75, 75]], "action": "retry", "times": 2, "backoff": {"first_ms": 4000, "cap_ms": 9000}},
        {"codes": [[3, 3]], "action": "succeed"},
        {"causes": ["else"], "action": "stop"},
    ]
    name = play.submit(job("j", tasks(size=6, arms=arms), preparation=prep(), release=release()))
    n1.prepared(name)
    for exit_code in (75, 3, 75, 0):
        n1.end(exit_code=exit_code)
        play.wait(20)
    n1.end(exit_code=1)
    play.run_out(name)
    return name


SCENES: dict[str, Scene] = {
    scene.__name__: scene for scene in (plain, failing, coming_and_going, deaf, deleted, manual, by_arms)
}


class Recording(Play):
    """Remembers what the live cluster was after each batch."""

    def __init__(self) -> None:
        self.snapshots: list[tuple[int, Cluster]] = []
        super().__init__()

    def settle(self) -> None:
        super().settle()
        if self.batches[-1].records:
            self.snapshots.append((len(self.kept), deepcopy(self.core.cluster)))


def replayed(log: list[Record]) -> Cluster:
    cluster = Cluster()
    for record in log:
        cluster.apply(records.decode(records.encode(record)))
    return cluster


@pytest.mark.parametrize("scene", list(SCENES))
def test_every_prefix_of_the_records_replays_to_what_the_live_core_had_there(scene: str) -> None:
    play = Recording()
    SCENES[scene](play)
    assert len(play.snapshots) > 4
    for count, live in play.snapshots:
        found = difference(live, replayed(play.kept[:count]))
        assert found is None, f"after {count} records: {found}"


@pytest.mark.parametrize("scene", list(SCENES))
def test_every_single_record_can_be_the_last_one(scene: str) -> None:
    play = Play()
    SCENES[scene](play)
    cluster = Cluster()
    for count, record in enumerate(play.kept):
        cluster.apply(record)
        assert difference(cluster, replayed(play.kept[: count + 1])) is None


@pytest.mark.parametrize("scene", list(SCENES))
def test_what_the_store_holds_after_rows_were_forgotten_replays_to_the_same(scene: str) -> None:
    play = Play()
    SCENES[scene](play)
    stored = replayed([records.decode(body) for _, body in play.rows])
    assert difference(play.core.cluster, stored) is None


@pytest.mark.parametrize("scene", list(SCENES))
def test_a_core_restarted_from_any_point_goes_on_to_the_end_of_every_job(scene: str) -> None:
    whole = Play()
    SCENES[scene](whole)
    rows: list[tuple[str, bytes]] = []
    for batch in whole.batches:
        rows = [row for row in rows if row[0] not in batch.forget]
        rows += [(records.scope_of(record), records.encode(record)) for record in batch.records]
        if batch.records:
            _goes_on(list(rows))


def _goes_on(rows: list[tuple[str, bytes]]) -> None:
    """The coordinator starts from these rows; its nodes have lost all (another root): every job ends all the same."""
    play = Play()
    play.restart(rows)
    for name, known in play.core.cluster.nodes.items():
        node = play.nodes.setdefault(name, _node_of(play, name, known.pool.name, known.slots))
        node.join()
    for name in list(play.core.cluster.jobs):
        found = play.core.cluster.jobs.get(name)
        if found is not None and found.spec.finish is Finish.MANUAL and found.state is JobState.ACTIVE:
            play.terminate(name)
        if play.core.cluster.nodes:
            play.run_out(name)
    for found in play.core.cluster.jobs.values():
        if play.core.cluster.nodes:
            assert found.completed_at is not None


def _node_of(play: Play, name: str, pool: str, slots: int) -> FakeNode:
    node = FakeNode(play, name, pool, slots, "boot-9")
    node.incarnation = "a new root"
    return node


def test_a_difference_is_found() -> None:
    play = Play()
    plain(play)
    other = replayed(play.kept[:-1])
    assert difference(play.core.cluster, other) is not None
