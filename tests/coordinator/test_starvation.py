"""Nobody starves: whatever the pool's placement and sharing, what waits for room gets it while others go on."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from tests.coordinator.playbook import FakeNode, Play, job, prep, tasks

POLICIES = list(product(("spread", "pack"), ("fair", "fifo")))
PATIENCE = 300
"""Ends of tasks that somebody may have to wait for."""


def pool_of(placement: str, sharing: str) -> dict[str, Any]:
    return {"name": "p", "placement": placement, "sharing": sharing}


def cluster(placement: str, sharing: str) -> tuple[Play, list[FakeNode]]:
    """Two nodes that are alike and one that has something else, all of them full."""
    play = Play(checking=False)
    nodes = [play.node(f"n{n}", slots=4, resources={"cpus": 4, "disk": 10}) for n in (1, 2)]
    nodes.append(play.node("n3", slots=4, resources={"cpus": 4, "gpus": 1, "disk": 10}, labels={"fast": ""}))
    with_gpu, others = ({**tasks(name, size), "needs": needs} for name, size, needs in (
        ("a", 1, {"gpus": 1, "cpus": 1}), ("b", 11, {"cpus": 1})
    ))  # fmt: skip
    play.submit(job("first", with_gpu, others), pools=[pool_of(placement, sharing)])
    assert [len(node.running()) for node in nodes] == [4, 4, 4]
    return play, nodes


def crowd(play: Play, priority: int = 0) -> None:
    """Others, who go on and on: plain tasks, and tasks that need processors or a GPU."""
    ann, bob = play.person("ann"), play.person("bob")
    play.submit(job("plain", tasks(size=5_000), priority=priority), by=ann)
    play.submit(job("cpus", {**tasks(size=5_000), "needs": {"cpus": 1}}, priority=priority), by=bob)
    play.submit(job("gpus", {**tasks(size=5_000), "needs": {"gpus": 1, "cpus": 1}}, priority=priority), by=bob)


def goes_on(play: Play, nodes: list[FakeNode], took_s: float, name: str, wanted: int = 1) -> bool:
    """Whether so many tasks of the job are started before patience ends, while tasks of the others end one by one."""
    for _ in range(PATIENCE):
        play.t += took_s
        for node in nodes:
            while node.recalls:
                node.obey()
            node.report(
                [
                    node.task_end(grant, position, started_at=play.wall - took_s, ended_at=play.wall)
                    for grant, position in node.running()[:1]
                    if wanted > 1 or node.grants[grant].run.job != name
                ]
            )
        shown = play.show(name)["tasks"]
        if shown["running"] + shown["succeeded"] >= wanted:
            return True
    return False


SCARCE = {
    "wide": tasks(slots=4),
    "all processors": {**tasks(), "needs": {"cpus": 4}},
    "wide and needy": {**tasks(slots=3), "needs": {"cpus": 3}},
    "the only GPU": {**tasks(), "needs": {"gpus": 1}},
    "the only GPU and all processors": {**tasks(), "needs": {"gpus": 1, "cpus": 4}},
    "the only node of its kind": {**tasks(slots=4), "needs": {"labels": ["fast"]}},
}


@pytest.mark.parametrize("took_s", [0.001, 3.0])
@pytest.mark.parametrize("group", SCARCE.values(), ids=SCARCE)
@pytest.mark.parametrize(("placement", "sharing"), POLICIES)
def test_a_task_for_which_there_is_too_little_everywhere_gets_its_room(
    placement: str, sharing: str, group: Any, took_s: float
) -> None:
    play, nodes = cluster(placement, sharing)
    if sharing == "fair":
        crowd(play)
    waits = play.submit(job("waits", group), by=play.person("zoe"))
    crowd(play)  # in fifo: those who come later
    assert goes_on(play, nodes, took_s, waits)


@pytest.mark.parametrize(("placement", "sharing"), POLICIES)
def test_a_job_whose_directories_find_no_room_gets_it_when_others_release_theirs(placement: str, sharing: str) -> None:
    play, nodes = cluster(placement, sharing)
    dirs = [{"name": "d", "size_bytes": 7}]
    holds = play.submit(job("holds", {**tasks(), "needs": {"labels": ["fast"]}}, dirs=dirs))
    assert goes_on(play, nodes, 3.0, holds)
    waits = play.submit(job("waits", {**tasks(), "needs": {"labels": ["fast"]}}, dirs=dirs), by=play.person("zoe"))
    crowd(play)
    assert play.show(waits)["tasks"]["running"] == 0
    play.terminate(holds)
    nodes[2].give_back(holds)
    nodes[2].released(holds)
    assert goes_on(play, nodes, 3.0, waits)


@pytest.mark.parametrize("took_s", [0.001, 3.0])
@pytest.mark.parametrize(("placement", "sharing"), POLICIES)
def test_an_owner_of_much_is_served_as_others_of_his_priority_are(placement: str, sharing: str, took_s: float) -> None:
    play, nodes = cluster(placement, sharing)
    zoe = play.person("zoe")
    low = play.submit(job("low", tasks(size=60)), by=zoe)
    play.submit(job("mine", tasks(size=5_000)), by=zoe)
    crowd(play)
    assert goes_on(play, nodes, took_s, low, wanted=20)


@pytest.mark.parametrize("took_s", [0.001, 3.0])
@pytest.mark.parametrize(("placement", "sharing"), POLICIES)
def test_a_low_priority_goes_on_where_the_high_one_leaves_room(placement: str, sharing: str, took_s: float) -> None:
    play, nodes = cluster(placement, sharing)
    low = play.submit(job("low", tasks(size=1_000), priority=-5), by=play.person("zoe"))
    high = {**tasks(size=5_000), "needs": {"gpus": 1}}
    play.submit(job("high", high, priority=5), by=play.person("ann"))
    assert goes_on(play, nodes, took_s, low, wanted=100)


@pytest.mark.parametrize("priority", [0, 1])
@pytest.mark.parametrize("placement", ["spread", "pack"])
def test_what_queues_ahead_with_a_claim_makes_way_for_who_needs_more_of_it(placement: str, priority: int) -> None:
    play = Play(checking=False)
    n1 = play.node("n1", slots=2, resources={"cpus": 2})
    short = {**tasks(size=5_000), "needs": {"cpus": 1}}
    play.submit(job("short", short), pools=[pool_of(placement, "fair")])
    n1.end(started_at=play.wall - 0.001, ended_at=play.wall)
    assert len(n1.running()) > 50
    waits = play.submit(job("waits", {**tasks(), "needs": {"cpus": 2}}, priority=priority), by=play.person("zoe"))
    assert goes_on(play, [n1], 0.001, waits)


@pytest.mark.parametrize(
    ("wide", "one"), [({"slots": 2}, {}), ({"slots": 2}, {"gpus": 1}), ({}, {"gpus": 1})], ids=["slots", "both", "gpus"]
)
def test_nothing_is_kept_free_for_a_task_that_may_not_prepare_there_yet(wide: Any, one: Any) -> None:
    play = Play()
    needs = {"needs": {"gpus": 2}} if one else {}
    nodes = [play.node(name, slots=2, resources={"gpus": 2}) for name in ("n1", "n2")]
    play.submit(job("long", {**tasks(), "needs": one}))
    prepares = play.submit(
        job("prepares", {**tasks(size=2, **wide), **needs}, priority=10, preparation=prep(parallel=1))
    )
    more = play.submit(job("more", {**tasks(), "needs": one}))
    assert [node.labels(prepares) for node in nodes] == [[], [0]]
    assert nodes[0].labels(more) == [0], "it may take as long as it likes to prepare"
