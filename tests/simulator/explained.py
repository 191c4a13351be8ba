"""What `explain` says at random moments, held against placement and against the truth: it always has a sentence,
leaves nothing that could run, and agrees with what is recorded."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final

from coordinator import explain, why, why_job
from coordinator.core import Core
from coordinator.model import Group, Job
from coordinator.reasons import OF_OUTCOME, Cause, Code, Explanation
from coordinator.records import NodeJobState
from tests.simulator.conditions import End, Stand
from tests.simulator.invariants import Breach, require
from tests.simulator.truth import JobTruth, Truth

LOOK_EVERY: Final = 16
"""Rests of the coordinator between two looks."""
HELD: Final = frozenset(
    {Code.RUNNING, Code.QUEUED, Code.PREPARING, Code.NODE_LOST, Code.STOPPING, Code.RECALLED, Code.DRAINING}
)
"""What may be said of a task that a node has."""
HELD_BACK: Final = frozenset({Code.DISABLED, Code.DISABLING})
"""One of these is said of what waits of a job that is disabled, or about to be."""
OUT: Final = frozenset({Code.RUNNING, Code.PREPARING, Code.NODE_LOST})
"""What is said of a job that nodes have tasks of."""
OWED: Final = frozenset({Code.RELEASE_OWED, Code.RELEASE_RUNS, Code.RELEASE_STUCK})
"""What is said of a completed job that a node still owes a release."""
OVER: Final = {
    End.SUCCEEDED: frozenset({Code.SUCCEEDED}),
    End.FAILED: frozenset(OF_OUTCOME.values()),
    End.CANCELLED: frozenset({Code.CANCELLED}),
    End.SKIPPED: frozenset({Code.SKIPPED}),
}
ENDED: Final = frozenset(Code) - frozenset({*OUT, *HELD_BACK, Code.OPEN, Code.ENDING, Code.RELEASE_OUT_OF_CONTACT})
"""What may be said of a job that is completed."""


class Explained:
    """Looks now and then, at few things, and at the end at all."""

    def __init__(self, seed: int, truth: Truth, slots: dict[str, int]) -> None:
        self.rng = random.Random(f"explain {seed}")
        self.truth = truth
        self.slots = slots
        self.rests = 0

    def rested(self, core: Core) -> None:
        """Nothing is on its way to the disk, and all was handed out that could be."""
        self.rests += 1
        jobs = list(core.cluster.jobs.values())
        if self.rests % LOOK_EVERY or not jobs:
            return
        view = why.View(core, lambda job: True)
        job = self.rng.choice(jobs)
        self.look_at_job(view, job)
        groups = [group for group in job.groups if group.size]
        if groups:
            group = self.rng.choice(groups)
            self.look_at_task(view, job, group, self.rng.randrange(group.size))

    def look_at_all(self, core: Core) -> None:
        view = why.View(core, lambda job: True)
        for job in core.cluster.jobs.values():
            self.look_at_job(view, job)
            for group in job.groups:
                for index in range(group.size):
                    self.look_at_task(view, job, group, index)

    def look_at_job(self, view: why.View, job: Job) -> None:
        found = _said(job, lambda: why_job.job(view, job))
        truth = self.truth.jobs[job.id]
        codes = {cause.code for cause in found.causes}
        if truth.completed_at is not None:
            require(codes <= ENDED, "explain", f"{job.id} is completed, and is said to be {codes}", job.id)
            self._debts(job, truth, found.causes)
        elif truth.ending_at is not None:
            require(Code.ENDING in codes, "explain", f"{job.id} ends, and is said to be {codes}", job.id)
        else:
            require(Code.READY not in codes, "explain", f"{job.id} is left to wait: {found.causes[0]}", job.id)
            out = self._out(job.id)
            require(bool(codes & OUT) == bool(out), "explain", f"{job.id} has {out} out, said {codes}", job.id)

    def _debts(self, job: Job, truth: JobTruth, causes: Iterable[Cause]) -> None:
        told = {cause.node for cause in causes if cause.code in OWED}
        given_up = {cause.node for cause in causes if cause.code is Code.RELEASE_WAIVED}
        late = (NodeJobState.UNREACHED, NodeJobState.RELEASING)
        rounds = (found for (name, _), all_ in self.truth.rounds.items() if name == job.id for found in all_)
        owed = {found.node for found in rounds if found.state in late and not found.voided}
        require(
            told <= owed <= told | given_up, "explain", f"{job.id} is owed releases by {owed}, told: {told}", job.id
        )

    def look_at_task(self, view: why.View, job: Job, group: Group, index: int) -> None:
        found = _said(job, lambda: why.task(view, job, group, index))
        truth, codes = self.truth.jobs[job.id], {cause.code for cause in found.causes}
        what = f"{found.target} is said to be {found.causes[0]}"
        end = truth.end_of(group.number, index)
        node = self._node_of(job.id, group.number, index)
        if end is not None:
            require(codes <= OVER[end], "explain", f"{what}, but it is {end.value}", job.id)
        elif node is not None:
            require(codes <= HELD, "explain", f"{what}, but {node} has it", job.id)
            require(found.causes[0].node == node, "explain", f"{what}, but {node} has it", job.id)
        elif truth.ending_at is not None:
            require(codes == {Code.CANCELLED}, "explain", f"{what}, but its job was ended", job.id)
        else:
            self._waits(job, group, index, found)

    def _waits(self, job: Job, group: Group, index: int, found: Explanation) -> None:
        truth, codes = self.truth.jobs[job.id], {cause.code for cause in found.causes}
        what = f"{found.target} waits, said to be for {found.causes[0]}"
        require(Code.READY not in codes, "explain", f"{what}, and is not handed out", job.id)
        require(not codes & (HELD - {Code.DRAINING}), "explain", f"{what}, but no node has it", job.id)
        stands = truth.stand(group.number, index) is Stand.TRUE
        require(stands != (Code.DEPENDENCY in codes), "explain", f"{what}, its condition is true: {stands}", job.id)
        disabled = truth.how is not None
        require(disabled == bool(codes & HELD_BACK), "explain", f"{what}, disabled: {disabled}", job.id)
        for line in found.nodes:
            used = self._slots_of(line.node)
            slots = group.spec.slots
            if line.code is Code.BUSY:
                full = used + slots > self.slots[line.node]
                require(full, "explain", f"{what}: {line}, where {used} slots are in use", job.id)

    # ---- by the records

    def _out(self, job: str) -> int:
        return sum(len(grant.open) for grant in self.truth.grants.values() if grant.record.job == job)

    def _slots_of(self, node: str) -> int:
        grants = (grant for grant in self.truth.grants.values() if grant.record.node == node and grant.open)
        jobs = self.truth.jobs
        return sum(len(g.open) * jobs[g.record.job].spec.groups[g.record.group].slots for g in grants)

    def _node_of(self, job: str, group: int, index: int) -> str | None:
        for grant in self.truth.grants.values():
            record = grant.record
            if grant.open and (record.job, record.group) == (job, group):
                position, off = divmod(index - record.first, record.step)
                if off == 0 and position in grant.open:
                    return record.node
        return None


def _said(job: Job, ask: Callable[[], Explanation]) -> Explanation:
    """The answer as it is sent; that there is one is promised, too."""
    try:
        found = ask()
        answer = explain.plain(found, job)
    except Exception as error:
        raise Breach("explain", f"{job.id} is not explained: {error!r}", job.id) from error
    require(bool(answer["reason"]) and answer["all"] != [], "explain", f"{job.id} has no reason: {answer}", job.id)
    return found
