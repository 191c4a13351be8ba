"""Each invariant of the coordinator's state can fail: a state broken by hand is found, a sound one is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordinator.invariants import violations
from coordinator.model import Grant, Group, Job, JobState, Node, TaskState
from coordinator.records import NodeJobState
from tests.coordinator.playbook import Play, job, prep, tasks
from wire.instant import Instant


class Scene:
    """A job with two tasks out on one node, of which a third one waits for its backoff."""

    def __init__(self) -> None:
        self.play = Play()
        n1 = self.play.node("n1", slots=3)
        backoff = {"first_ms": 60_000, "cap_ms": 60_000}
        spec = job("j", tasks(size=3, retries=1, backoff=backoff), preparation=prep(), parallel=3)
        name = self.play.submit(spec)
        n1.prepared(name)
        n1.end(exit_code=1)
        self.cluster = self.play.core.cluster
        self.job: Job = self.cluster.jobs[name]
        self.group: Group = self.job.groups[0]
        self.node: Node = self.cluster.nodes["n1"]
        self.grant: Grant = self.cluster.grants[1]


def another_round(scene: Scene) -> None:
    scene.job.rounds.append(scene.job.rounds[0])


def wrong_backoff(scene: Scene) -> None:
    scene.group.waiting[1] = Instant("machine", 5.0, 5.0)


def wrong_attempt(scene: Scene) -> None:
    scene.group.attempts[1] = 7


def an_empty_grant(scene: Scene) -> None:
    scene.cluster.grants[9] = Grant(9, "j-1", "n1", 1, 0, 0, 1, 1, 1, 1, 0)


BREAKS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "job counts": (lambda s: setattr(s.job, "granted", 5), "counts 5 tasks out"),
    "node counts": (lambda s: setattr(s.node, "used", 5), "counts 5 slots out"),
    "group counts": (lambda s: s.group.counts.__setitem__(0, 9), "its bytes say"),
    "a byte": (lambda s: s.group.set_state(1, TaskState.SUCCEEDED), "out"),
    "where a task is": (lambda s: s.group.out.pop(1), "its grants hold [1, 2]"),
    "parallel": (lambda s: setattr(s.grant, "open", 0b11110), "3 are allowed"),
    "retries": (lambda s: s.group.failures.__setitem__(0, 2), "spent 2 retries of 1"),
    "a round twice": (another_round, "has a round twice"),
    "backoff": (wrong_backoff, "in backoff that are not active"),
    "attempt": (wrong_attempt, "as attempt 1, its state says otherwise"),
    "debt forgotten": (lambda s: s.node.owes.clear(), "its node n1 owes nothing"),
    "debt invented": (lambda s: s.node.owes.__setitem__(("j-1", 4), None), "owes round 4 of j-1"),
    "round closed": (lambda s: setattr(s.job.rounds[0], "state", NodeJobState.RELEASED), "belongs to no open round"),
    "round given up": (lambda s: setattr(s.job.rounds[0], "state", NodeJobState.UNREACHED), "may run on n1 any more"),
    "state": (lambda s: setattr(s.job, "state", JobState.COMPLETED), "is completed with something open"),
    "pool": (lambda s: s.cluster.pools["p"].jobs.clear(), "its pool thinks otherwise"),
    "tasks started": (lambda s: setattr(s.job.rounds[0], "tasks_started", -1), "counts -1 tasks"),
    "empty grant": (an_empty_grant, "grant 9 is kept with positions 0"),
    "grant lost": (lambda s: s.cluster.grants.clear(), "is not the cluster's"),
}


def test_a_sound_state_breaks_none() -> None:
    assert list(violations(Scene().cluster)) == []


@pytest.mark.parametrize("name", list(BREAKS))
def test_a_broken_state_is_found(name: str) -> None:
    act, sentence = BREAKS[name]
    scene = Scene()
    if name == "parallel":
        scene.grant.count = 5
        scene.job.granted, scene.job.used = 4, 4
    act(scene)
    assert any(sentence in found for found in violations(scene.cluster)), list(violations(scene.cluster))
