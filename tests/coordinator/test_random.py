"""Random jobs, random answers of nodes, connections that break, machines that restart: the invariants hold after each
event, no attempt starts twice, and once the faults stop every job ends and every debt is paid."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator import records
from coordinator.cluster import Cluster
from coordinator.model import OVER, JobState
from coordinator.whereabouts import ACTIVE, COMPLETED, PREPARING, RUNNING, Look, is_preparing, with_slot
from tests.coordinator.playbook import FakeNode, Play, job, phase_end, prep, release, task_end, tasks
from tests.simulator.sameness import difference
from wire import messages as m

BACKOFF = {"first_ms": 2000, "cap_ms": 10_000}
JOBS: list[dict[str, Any]] = [
    job("plain", tasks(size=7)),
    job("both", tasks("a", size=5, retries=1), tasks("b", size=3, after=[0]), preparation=prep(), release=release()),
    job("eager", tasks(size=6, retries=None), preparation=prep(wait=False), release=release(parallel=1)),
    job("narrow", tasks(size=9, retries=2, backoff=BACKOFF), preparation=prep(parallel=1), parallel=2),
    job("hasty", tasks(size=8), release=release(), stop_after=1, priority=5),
    job("wide", tasks(size=3, slots=2), preparation=prep(), release_grace_ms=20_000),
    job("kept", tasks(size=2), finish="manual", release=release()),
    job("timed", tasks(size=30), preparation=prep(), timeout_ms=40_000, priority=-5),
    job("many", tasks(size=300, retries=1), priority=-1),
]
ENDS: list[dict[str, Any]] = [
    {},
    {},
    {"exit_code": 1},
    {"exit_code": None, "outcome": m.Outcome.LOST},
    {"exit_code": None, "outcome": m.Outcome.KILLED, "signal": 9},
]
WAITS = (0.1, 3.0, 16.0, 40.0, 1000.0)


class Chaos:
    """A play in which anything may happen, a step at a time."""

    def __init__(self, slots: list[int]) -> None:
        self.play = Play()
        self.play.admin.ask(
            m.Submit, submission="pools", document={"format": 1, "pools": [{"name": "p", "slots": 2}], "jobs": []}
        )
        for number, count in enumerate(slots):
            self.play.node(f"n{number}", slots=count if number else max(2, count))
        self.submitted: list[str] = []

    def step(self, what: str, a: int, b: int) -> None:
        node = list(self.play.nodes.values())[a % len(self.play.nodes)]
        getattr(self, what)(node, b)

    # ---- people

    def submit(self, node: FakeNode, b: int) -> None:
        if len(self.submitted) < 5:
            self.submitted.append(self.play.submit(JOBS[b % len(JOBS)]))

    def terminate(self, node: FakeNode, b: int) -> None:
        if self.submitted:
            self.play.admin.start(m.JobTerminate, self.submitted[b % len(self.submitted)], "enough", b % 2 == 0)

    def delete(self, node: FakeNode, b: int) -> None:
        if self.submitted:
            self.play.admin.start(m.JobDelete, self.submitted[b % len(self.submitted)])

    # ---- nodes

    def obey(self, node: FakeNode, b: int) -> None:
        node.obey()

    def end(self, node: FakeNode, b: int) -> None:
        runnable = node.runnable()
        if runnable:
            grant, position = runnable[b % len(runnable)]
            took = 0.001 if b % 2 else 5.0
            end = {
                "exit_code": 0,
                "started_at": self.play.wall - took,
                "ended_at": self.play.wall,
                **ENDS[b % len(ENDS)],
            }
            node.report([node.task_end(grant, position, **end)])

    def prepare(self, node: FakeNode, b: int) -> None:
        for (name, _), state in list(node.rounds.items()):
            if state is m.RoundState.PREPARING:
                node.prepared(name, ok=b % 3 != 0, final=b % 4 != 3 or b % 3 != 0)
                return

    def give_back(self, node: FakeNode, b: int) -> None:
        if node.joined and node.grants:
            number, held = list(node.grants.items())[-1]
            node.recalled(number, sorted(held.open - held.started)[b % 2 :])

    def repeat(self, node: FakeNode, b: int) -> None:
        """A report it sent before comes again."""
        if node.joined and node.number:
            node.say(m.Report(max(1, node.number - b % 3), [], []))

    def break_off(self, node: FakeNode, b: int) -> None:
        node.drop()

    def come_back(self, node: FakeNode, b: int) -> None:
        if node.deaf:
            node.drop()
            node.deaf = False
        if not node.joined:
            node.join()

    def reboot(self, node: FakeNode, b: int) -> None:
        node.reboot(f"boot-{self.play.last_epoch}")
        if b % 2:
            node.join()

    def wipe(self, node: FakeNode, b: int) -> None:
        node.wiped()

    def deafen(self, node: FakeNode, b: int) -> None:
        """From now on what it is told is lost, until the connection has broken."""
        node.deaf = True

    def silence(self, node: FakeNode, b: int) -> None:
        node.silent = not node.silent

    def leave(self, node: FakeNode, b: int) -> None:
        if node.joined:
            node.say(m.Leaving())

    # ---- those who may not

    def forge(self, node: FakeNode, b: int) -> None:
        """A node speaks of work that others were given: nothing of it is recorded, and nobody's work changes."""
        theirs = [number for other in self.play.nodes.values() if other is not node for number in other.grants]
        held = [number for number in theirs if number in self.play.core.cluster.grants]
        if not node.joined or not held:
            return
        grant = held[b % len(held)]
        run = self.play.core.cluster.grants[grant]
        before = list(self.play.rows)
        forged: list[m.Message] = [
            m.Recalled(grant, [(0, run.count)]),
            m.Report(node.number + 1, [task_end(grant, 0)], []),
            m.Started([(grant, 0, 1.0)]),
            m.Report(node.number + 1, [], [phase_end(run.job, 77, m.Phase.RELEASE, True)]),
            m.NotHeld(run.job, 77),
        ]
        node.say(forged[b % len(forged)])
        assert self.play.rows == before, "a forged message was recorded"

    def meddle(self, node: FakeNode, b: int) -> None:
        """A user with no right to them would end, delete and read other people's jobs."""
        if not self.submitted:
            return
        mallory = self.play.person("mallory")
        job_id = self.submitted[b % len(self.submitted)]
        before = list(self.play.rows)
        asked = [(m.JobTerminate, job_id), (m.JobDelete, job_id), (m.FilesRead, "n0", f"workitems/{job_id}/home/x")]
        mallory.refused(*asked[b % len(asked)])
        assert self.play.rows == before, "a refused request was recorded"
        mallory.drop()

    # ---- the coordinator and time

    def wait(self, node: FakeNode, b: int) -> None:
        self.play.wait(WAITS[b % len(WAITS)])

    def sleep(self, node: FakeNode, b: int) -> None:
        self.play.sleep(WAITS[b % len(WAITS)])

    def restart(self, node: FakeNode, b: int) -> None:
        self.play.restart()

    # ---- the end

    def calm_down(self) -> None:
        """The faults stop; whoever is there does what it is told."""
        for node in self.play.nodes.values():
            node.drop()
            node.deaf = node.silent = False
            node.join()
        for name in list(self.play.core.cluster.jobs):
            found = self.play.core.cluster.jobs.get(name)
            if found is not None and found.spec.finish.value == "manual" and found.state is JobState.ACTIVE:
                self.play.terminate(name)
        for _ in range(300):
            self.play.obey()
            for node in self.play.nodes.values():
                if node.epoch is None:
                    node.join()
            jobs = self.play.core.cluster.jobs.values()
            owing = any(node.owes for node in self.play.core.cluster.nodes.values())
            if not owing and all(found.state is JobState.COMPLETED and not found.deleting for found in jobs):
                return
            self.play.wait(20)
        raise AssertionError(f"not over: {[(found.id, found.state) for found in jobs]}, owing: {owing}")


def check_lists(play: Play) -> None:
    """Tasks listed by state are those that a walk over all nodes, grants and slots finds, and those only."""
    cluster, look = play.core.cluster, Look(play.core.cluster)
    with_slots = {
        (grant.job, grant.group, grant.index(position)): grant.node
        for node in cluster.nodes.values()
        for grant, positions in with_slot(node)
        for position in positions
    }
    for found in cluster.jobs.values():
        for group in found.groups:
            walked: dict[str, list[int]] = {ACTIVE: [], PREPARING: [], RUNNING: [], COMPLETED: []}
            for index, state in enumerate(group.state):
                node = with_slots.get((found.id, group.number, index))
                if node is not None:
                    walked[PREPARING if is_preparing(found.current[node]) else RUNNING].append(index)
                else:
                    walked[COMPLETED if state in OVER else ACTIVE].append(index)
            for shown in (ACTIVE, PREPARING, RUNNING):
                assert list(look.tasks(found, group, shown, 0)) == walked[shown]
                assert list(look.tasks(found, group, shown, 3)) == [index for index in walked[shown] if index >= 3]
            for shown, indices in walked.items():
                assert all(look.state(found, group, index) == shown for index in indices)


STEPS = {
    "submit": 6, "terminate": 1, "delete": 1, "obey": 10, "end": 12, "prepare": 6, "give_back": 3, "repeat": 1,
    "break_off": 2, "come_back": 6, "reboot": 1, "wipe": 1, "deafen": 1, "silence": 2, "leave": 1, "wait": 5,
    "sleep": 1, "restart": 1, "forge": 2, "meddle": 1,
}  # fmt: skip
A_STEP = st.tuples(
    st.sampled_from([name for name, weight in STEPS.items() for _ in range(weight)]),
    st.integers(0, 5),
    st.integers(0, 59),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.lists(A_STEP, min_size=5, max_size=70))
def test_whatever_happens_the_invariants_hold_and_every_job_ends(
    slots: list[int], steps: list[tuple[str, int, int]]
) -> None:
    chaos = Chaos(slots)
    chaos.submit(chaos.play.nodes["n0"], steps[0][2])
    for what, a, b in steps:
        chaos.step(what, a, b)
        check_lists(chaos.play)
    chaos.calm_down()
    play = chaos.play
    spawned = [entry for node in play.nodes.values() for entry in node.spawned]
    assert len(spawned) == len(set(spawned)), "an attempt started twice"
    for name in play.core.cluster.jobs:
        counts = play.show(name)["tasks"]
        over = counts["succeeded"] + counts["failed"] + counts["cancelled"] + counts["skipped"]
        assert over == counts["total"]
        assert play.show(name)["release"]["owed"] == 0
    replayed = Cluster()
    for _, body in play.rows:
        replayed.apply(records.decode(body))
    found = difference(play.core.cluster, replayed)
    assert found is None, found
