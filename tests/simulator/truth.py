"""What is true, gathered by an observer that asks no core: processes that lived, and records that reached a disk.

Everything here is bookkeeping; `invariants` judges it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

import msgspec

from agentd import records as node_rows
from coordinator import records as rows
from coordinator.cuts import runs_of
from tests.simulator.conditions import End, Stand, stands
from tests.simulator.meaning import Budget, meaning
from tests.simulator.processes import Identity, Tree
from tests.simulator.workload import Kind
from wire.messages import Disabling, Outcome, Phase
from wire.spec import Command, ExitAction, GroupSpec, JobSpec
from wire.sweep import Sweep, axis_from_plain

_ENDS: Final = {
    rows.Verdict.SUCCEEDED: End.SUCCEEDED,
    rows.Verdict.FAILED: End.FAILED,
    rows.Verdict.CANCELLED: End.CANCELLED,
}
FINAL_VERDICTS: Final = frozenset({rows.Verdict.SUCCEEDED, rows.Verdict.FAILED, rows.Verdict.CANCELLED})
Place = tuple[str, str]
"""(job, node)"""
TaskKey = tuple[str, str]
"""(job, task id)"""


@dataclass
class GrantTruth:
    record: rows.Granted
    open: set[int]
    ended: dict[int, rows.Ended] = field(default_factory=dict)


@dataclass
class RoundTruth:
    """A round of a job on a node, from its opening on the coordinator's disk."""

    job: str
    node: str
    round: int
    opened_at: float
    state: rows.NodeJobState = rows.NodeJobState.ABSENT
    attempted: bool = False
    """A keeper was begun to start a preparation or a task of it."""
    trees: list[Tree] = field(default_factory=list)
    refused: list[Kind] = field(default_factory=list)
    """Commands that could not be started at all."""
    releases: int = 0
    released_well: bool = False
    """A release succeeded and its agent holds that durably."""
    prepared_boots: list[str] = field(default_factory=list)
    """Boots in which a preparation succeeded and its agent holds that durably."""
    voided: bool = False
    unreached: bool = False
    settled: bool = False
    """Nothing can pay it any more: its node's root was replaced."""
    incarnation: str = ""
    """Of the node, as the coordinator knew it when the round was opened."""
    keepers: set[str] = field(default_factory=set)
    phases: list[rows.PhaseEnd] = field(default_factory=list)


class JobTruth:
    """A job as it stands on the coordinator's disk."""

    def __init__(self, record: rows.JobSubmitted, at: float) -> None:
        self.id = record.job
        self.owner = record.owner
        self.submission = record.submission
        self.spec: JobSpec = record.spec
        self.submitted_at = at
        self.ending_at: float | None = None
        self.completed_at: float | None = None
        self.disabled = False
        self.how: Disabling | None = None
        """While it is disabled, or about to be."""
        self.cancelled: set[tuple[int, int]] = set()
        """Tasks that were cancelled one by one."""
        self.forgiven: set[tuple[int, int]] = set()
        """Tasks whose failure stops no job: it was of an earlier course of it, or came of its being disabled."""
        self.deleted_at: float | None = None
        self.deleting = False
        self.reason: str | None = None
        self.sweeps = [
            Sweep(group.name, [axis_from_plain(msgspec.structs.asdict(axis)) for axis in group.axes])
            for group in record.spec.groups
        ]
        self._by_task: dict[str, tuple[int, int]] = {}
        for number, sweep in enumerate(self.sweeps):
            for index in range(sweep.size):
                self._by_task[sweep.task_id(index)] = (number, index)
        self.final: dict[tuple[int, int], rows.Verdict] = {}
        self.unrun: dict[tuple[int, int], End] = {}
        """Tasks that were skipped, or cancelled where they waited."""
        self.spent: dict[tuple[int, int, Budget], int] = defaultdict(int)
        """Retries of a task, by what they are counted for."""
        self.stopped = False
        """Some end of it says so."""

    def end_of(self, group: int, index: int) -> End | None:
        """How a task is over, if it is."""
        verdict = self.final.get((group, index))
        return self.unrun.get((group, index)) if verdict is None else _ENDS[verdict]

    def stand(self, group: int, index: int) -> Stand:
        """How the condition of a task stands, by all that is recorded."""
        return stands(self.spec, self.sweeps, group, index, self.end_of)

    def counted_failures(self) -> int:
        return sum(not self.spec.groups[group].optional for group, _ in self._failed())

    def stopping_failures(self) -> int:
        """Those that count for `on_failure`."""
        return sum(not self.spec.groups[group].optional for group, _ in self._failed() - self.forgiven)

    def _failed(self) -> set[tuple[int, int]]:
        return {place for place, verdict in self.final.items() if verdict is rows.Verdict.FAILED}

    def task(self, task_id: str) -> tuple[int, int]:
        """(group, index). Raises KeyError for a task the job does not have."""
        return self._by_task[task_id]

    def task_id(self, group: int, index: int) -> str:
        return self.sweeps[group].task_id(index)

    def group(self, number: int) -> GroupSpec:
        return self.spec.groups[number]

    def command_of(self, who: Identity) -> Command:
        """The spec of a command that was started."""
        if who.task is not None:
            return self.group(self.task(who.task)[0]).command
        phase = self.spec.preparation if who.kind is Kind.PREPARATION else self.spec.release
        assert phase is not None, f"{who.kind.value} of {self.id}, which has none"
        return phase.command

    @property
    def total(self) -> int:
        return len(self._by_task)


def skipped_by(record: rows.GroupSkipped | rows.TasksSkipped) -> list[int]:
    """The tasks of `record.group` that a record skips."""
    if isinstance(record, rows.GroupSkipped):
        return [index for first, count in runs_of(record.spans) for index in range(first, first + count)]
    return [first + step * at for first, count, step in record.runs for at in range(count)]


class Truth:
    """All that happened, by what it happened to."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobTruth] = {}
        self.rounds: dict[Place, list[RoundTruth]] = defaultdict(list)
        self.grants: dict[int, GrantTruth] = {}
        self.attempts: dict[TaskKey, dict[int, Tree | None]] = defaultdict(dict)
        """By attempt number; None: the spawn was refused."""
        self.live: dict[str, list[Tree]] = defaultdict(list)
        """By host, in order of birth."""
        self.starts: dict[str, list[Tree]] = defaultdict(list)
        """By host: every attempt of its pool's start."""
        self.starts_from: dict[str, int] = defaultdict(int)
        """By host: the first of them that counts."""
        self.start_orders: dict[str, rows.StartOrdered] = {}
        """By node: the last one."""
        self.start_wanted: dict[str, bool] = {}
        """By host: whether it was ordered, and not ended since."""
        self.start_done: set[tuple[str, str]] = set()
        """(host, boot): it has succeeded there, and the agent holds that durably."""
        self.signalled: set[tuple[str, int]] = set()
        """(host, number) of trees that somebody sent a signal."""
        self.acknowledged: dict[str, list[str]] = {}
        """By submission: the job ids a client was told."""
        self.drained: dict[str, bool] = {}
        """Nodes that were drained and not enabled since, as the coordinator's disk has it; whether they were empty."""
        self.drain_marks: dict[str, float] = {}
        """When each was last told to drain."""
        self.ever_drained: set[str] = set()
        self.forgotten: set[str] = set()
        """Nodes that were ever forgotten."""
        self.gave_back: set[tuple[str, int, int]] = set()
        """(node, grant, position) of which the node said that nothing more of it will start."""
        self.leaving: dict[str, float] = {}
        """Nodes that asked to leave, when."""
        self.incarnations: dict[str, str] = {}
        """Of nodes, as the coordinator's disk has it."""
        self.copied: dict[str, set[str]] = {}
        """Nodes of which there are two machines; by node, those of them that were shut out."""
        self.dead_keepers: set[tuple[str, str, str]] = set()
        """(host, incarnation, keeper)"""
        self._keepers: dict[tuple[str, str], node_rows.KeeperBegun] = {}
        self._boots: dict[tuple[str, str, int, Phase], str] = {}
        """The boot in which the last attempt of a phase was started."""

    # ---- processes

    def spawned(self, tree: Tree) -> None:
        self.live[tree.host].append(tree)
        if tree.who.kind is Kind.START:
            self.starts[tree.host].append(tree)
        current = self.round_at(tree.who.job, tree.who.node)
        if current is not None:
            current.trees.append(tree)
            current.releases += tree.who.kind is Kind.RELEASE
        if tree.who.task is not None and tree.who.attempt is not None:
            self.attempts[tree.who.job, tree.who.task][tree.who.attempt] = tree

    def refused(self, who: Identity) -> None:
        """A command could not be started at all."""
        current = self.round_at(who.job, who.node)
        if current is not None:
            current.refused.append(who.kind)
        if who.task is not None and who.attempt is not None:
            self.attempts[who.job, who.task].setdefault(who.attempt, None)

    def ended(self, tree: Tree) -> None:
        self.live[tree.host].remove(tree)

    def round_at(self, job: str, node: str) -> RoundTruth | None:
        """The latest round that was opened and not voided."""
        for candidate in reversed(self.rounds.get((job, node), ())):
            if not candidate.voided:
                return candidate
        return None

    def find_round(self, job: str, node: str, number: int) -> RoundTruth | None:
        for candidate in self.rounds.get((job, node), ()):
            if candidate.round == number and not candidate.voided:
                return candidate
        return None

    # ---- the coordinator's disk

    def recorded(self, record: rows.Record, now: float) -> None:
        """A record was committed by the coordinator."""
        match record:
            case rows.JobSubmitted():
                self.jobs[record.job] = JobTruth(record, now)
            case rows.RoundOpened():
                opened = RoundTruth(record.job, record.node, record.round, now)
                opened.incarnation = self.incarnations[record.node]
                self.rounds[record.job, record.node].append(opened)
            case rows.NodeMarked():
                self._marked(record, now)
            case rows.StartOrdered():
                self.start_orders[record.node] = record
            case rows.NodeJoined():
                self.incarnations[record.node] = record.incarnation
            case rows.RoundVoided() | rows.RoundMoved() | rows.DebtPaid():
                self._of_a_round(record)
            case rows.Granted():
                self.grants[record.grant] = GrantTruth(record, set(range(record.count)))
            case rows.ReportTaken():
                self._report(record)
            case rows.TasksReturned():
                self._returned(record)
            case rows.GroupSkipped() | rows.TasksSkipped():
                for index in skipped_by(record):
                    self.jobs[record.job].unrun[record.group, index] = End.SKIPPED
            case rows.JobEnding():
                self._ending(self.jobs[record.job], record.reason, now)
            case rows.JobCompleted():
                self.jobs[record.job].completed_at = now
            case rows.JobMoved() | rows.JobReopened() | rows.TaskCancelled():
                self._steered(self.jobs[record.job], record)
            case rows.JobDeleting():
                self.jobs[record.job].deleting = True
            case rows.JobDeleted():
                self.jobs[record.job].deleted_at = now
                for (job, node), opened in self.rounds.items():
                    for found in opened if job == record.job else ():
                        found.settled = found.settled or (node, found.round) not in record.debts
            case _:
                pass

    def _of_a_round(self, record: rows.RoundVoided | rows.RoundMoved | rows.DebtPaid) -> None:
        found = self.find_round(record.job, record.node, record.round)
        if found is None:
            return
        match record:
            case rows.RoundVoided():
                found.voided = True
            case rows.RoundMoved():
                found.state = record.state
                found.unreached = found.unreached or record.state is rows.NodeJobState.UNREACHED
                found.settled = found.settled or record.unpayable
            case rows.DebtPaid():
                found.settled = True

    def _report(self, record: rows.ReportTaken) -> None:
        for end in record.tasks:
            grant = self.grants[end.grant]
            grant.open.discard(end.position)
            grant.ended[end.position] = end
            job = self.jobs[grant.record.job]
            task = (grant.record.group, grant.record.first + end.position * grant.record.step)
            if end.verdict in FINAL_VERDICTS:
                job.final[task] = end.verdict
            if end.verdict is rows.Verdict.FAILED and end.outcome is Outcome.KILLED:
                job.forgiven.add(task)
            means, budget, _ = meaning(job.group(task[0]).command, end.outcome, end.exit_code, end.signal)
            if end.verdict is rows.Verdict.RETRY:
                job.spent[*task, budget] += 1
            job.stopped = job.stopped or (means is ExitAction.STOP and end.verdict is rows.Verdict.FAILED)
        for phase in record.phases:
            found = self.find_round(phase.job, record.node, phase.round)
            if found is not None:
                found.phases.append(phase)
                if phase.final and phase.phase is Phase.RELEASE:
                    well = phase.succeeded
                    found.state = rows.NodeJobState.RELEASED if well else rows.NodeJobState.RELEASE_FAILED

    def _returned(self, record: rows.TasksReturned) -> None:
        grant = self.grants[record.grant]
        for first, count in record.spans:
            grant.open.difference_update(range(first, first + count))
            if record.over and self.jobs[record.job].ending_at is None:
                for position in range(first, first + count):
                    place = (grant.record.group, grant.record.first + position * grant.record.step)
                    self.jobs[record.job].unrun[place] = End.CANCELLED
        if record.cause in (rows.Returned.ROUND_CLOSED, rows.Returned.DRAINED):
            job = self.jobs[grant.record.job]
            if job.ending_at is None:
                return  # its node drained: the job goes on elsewhere
            for first, count in record.spans:
                for position in range(first, first + count):
                    index = grant.record.first + position * grant.record.step
                    job.final[grant.record.group, index] = rows.Verdict.CANCELLED

    def _marked(self, record: rows.NodeMarked, now: float) -> None:
        match record.mark:
            case rows.NodeMark.DRAIN:
                self.drained[record.node] = False
                self.drain_marks[record.node] = now
                self.ever_drained.add(record.node)
            case rows.NodeMark.DRAINED:
                self.drained[record.node] = True
            case rows.NodeMark.ENABLE:
                self.drained.pop(record.node, None)
            case rows.NodeMark.FORGET:
                self.drained.pop(record.node, None)
                self.forgotten.add(record.node)

    def grant_of(self, job: str, node: str, group: int, index: int, attempt: int) -> tuple[int, int] | None:
        """The last (grant, position) by which the node was given this attempt."""
        for grant in reversed(self.grants.values()):
            record = grant.record
            position, off = divmod(index - record.first, record.step)
            mine = (record.job, record.node, record.group, record.attempt) == (job, node, group, attempt)
            if mine and off == 0 and 0 <= position < record.count:
                return record.grant, position
        return None

    def _steered(self, job: JobTruth, record: rows.JobMoved | rows.JobReopened | rows.TaskCancelled) -> None:
        match record:
            case rows.JobMoved():
                job.disabled = record.state is rows.JobState.DISABLED
                if record.how is not None or record.state is rows.JobState.ACTIVE:
                    job.how = record.how
            case rows.JobReopened():
                self._reopened(job, record)
            case rows.TaskCancelled():
                for first, count in record.spans:
                    job.unrun.update({(record.group, index): End.CANCELLED for index in range(first, first + count)})
                for first, count in record.out:
                    job.cancelled.update((record.group, index) for index in range(first, first + count))

    def _reopened(self, job: JobTruth, record: rows.JobReopened) -> None:
        job.ending_at = job.completed_at = job.reason = None
        job.stopped = False
        for group, spans in record.tasks:
            for first, count in spans:
                for index in range(first, first + count):
                    job.final.pop((group, index), None)
                    job.unrun.pop((group, index), None)
                    job.cancelled.discard((group, index))
                    for key in [key for key in job.spent if key[:2] == (group, index)]:
                        del job.spent[key]
        job.forgiven = {place for place, verdict in job.final.items() if verdict is rows.Verdict.FAILED}

    def _ending(self, job: JobTruth, reason: str, now: float) -> None:
        job.disabled, job.how = False, None
        if job.ending_at is None:
            job.ending_at, job.reason = now, reason

    # ---- the nodes' disks

    def node_recorded(self, host: str, node: str, record: node_rows.Record) -> None:
        """A record was committed by an agent."""
        match record:
            case node_rows.KeeperBegun():
                self._keepers[host, record.keeper] = record
                found = self.find_round(record.job, node, record.round)
                if found is not None and record.purpose is not node_rows.Purpose.RELEASE:
                    found.attempted = True
            case node_rows.RoundBegun():  # also what is told to have failed before anything could be spawned
                found = self.find_round(record.job, node, record.round)
                if found is not None:
                    found.attempted = True
            case node_rows.AttemptStarted():
                self._boots[host, record.job, record.round, record.phase] = record.at.boot
            case node_rows.StartOrdered() | node_rows.ReleaseAsked(job="startup"):  # another one, or the node leaves
                self.start_done = {done for done in self.start_done if done[0] != host}
                self.starts_from[host] = len(self.starts[host])
                self.start_wanted[host] = isinstance(record, node_rows.StartOrdered)
            case node_rows.AttemptEnded(phase=Phase.START) if not self.start_wanted.get(host):
                pass  # its node leaves
            case node_rows.AttemptEnded(phase=Phase.START, verdict=node_rows.Verdict.SUCCEEDED):
                self.start_done.add((host, self._boots[host, record.job, record.round, record.phase]))
            case node_rows.AttemptEnded(verdict=node_rows.Verdict.SUCCEEDED):
                found = self.find_round(record.job, node, record.round)
                if found is not None and record.phase is Phase.PREPARATION:
                    found.prepared_boots.append(self._boots[host, record.job, record.round, record.phase])
                elif found is not None:
                    found.released_well = True
            case _:
                pass

    # ---- questions

    def assigned(self, job: str, node: str) -> bool:
        """Whether some task of the job is granted to the node and its end is not known yet."""
        return any(g.open and g.record.job == job and g.record.node == node for g in self.grants.values())

    def slots_used(self, host: str) -> int:
        """Slots of the live task attempts on a machine, by their groups' specs."""
        used = 0
        for tree in self.live[host]:
            if tree.who.kind is Kind.TASK and tree.who.task is not None:
                job = self.jobs[tree.who.job]
                used += job.group(job.task(tree.who.task)[0]).slots
        return used

    def tree_of(self, end: rows.Ended) -> tuple[JobTruth, str, int, Tree | None]:
        """What was alive for an end that was reported: (job, task, attempt, tree)."""
        grant = self.grants[end.grant].record
        job = self.jobs[grant.job]
        task = job.task_id(grant.group, grant.first + end.position * grant.step)
        return job, task, grant.attempt, self.attempts[job.id, task].get(grant.attempt)
