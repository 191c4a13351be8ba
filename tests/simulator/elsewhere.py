"""`retry(elsewhere = true)`, judged from the records of ends: which nodes a task keeps away from, and when not."""

from __future__ import annotations

from collections import defaultdict

from coordinator import records as rows
from coordinator.core import Core
from coordinator.model import Job, Node
from coordinator.records import NodeJobState
from tests.simulator.claims import fits
from tests.simulator.invariants import require
from tests.simulator.meaning import moves
from tests.simulator.truth import Truth
from wire.spec import GroupSpec

NOT_THERE = frozenset({NodeJobState.BARRED, NodeJobState.RELEASING, NodeJobState.UNREACHED})
"""States of a round in which its node takes nothing of its job."""
Task = tuple[str, int, int]
"""(job, group, index)"""


class Elsewhere:
    """The judge of one world."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.failed: dict[Task, set[str]] = defaultdict(set)
        """Nodes where an attempt ended in a way that asks for another one."""
        self.anew: set[Task] = set()
        """Tasks that somebody had run anew, and that have not ended since: they begin where they may."""
        self._last = 0
        self._able: dict[int, frozenset[str]] = {}
        """By grant that was decided and is on its way to the disk: who could have taken it."""

    def handled(self, core: Core) -> None:
        """After a turn of the coordinator: for what it has just handed out, who could take it at that moment."""
        cluster = core.cluster
        if cluster.last_grant == self._last:
            return
        before, self._last = min(self._last, cluster.last_grant - 1), cluster.last_grant
        for node in cluster.nodes.values():
            for grant in node.grants.values():
                if grant.id > before:
                    job = cluster.jobs[grant.job]
                    spec = job.groups[grant.group].spec
                    if any(arm.elsewhere for arm in spec.command.arms):
                        pool = cluster.pools[job.spec.pool].nodes.values()
                        self._able[grant.id] = frozenset(each.name for each in pool if _could_take(each, job, spec))

    def recorded(self, record: rows.Record) -> None:
        """After a record of the coordinator was taken into the truth."""
        match record:
            case rows.Granted():
                self._granted(record)
            case rows.ReportTaken():
                for end in record.tasks:
                    self._ended(record.node, end)
            case rows.JobReopened():
                for group, spans in record.tasks:
                    for first, count in spans:
                        self.anew.update((record.job, group, index) for index in range(first, first + count))
            case _:
                pass

    def _ended(self, node: str, end: rows.Ended) -> None:
        grant = self.truth.grants[end.grant].record
        task = (grant.job, grant.group, grant.first + end.position * grant.step)
        self.anew.discard(task)
        command = self.truth.jobs[grant.job].group(grant.group).command
        if end.verdict is rows.Verdict.RETRY and moves(command, end.outcome, end.exit_code, end.signal):
            self.failed[task].add(node)

    def _granted(self, record: rows.Granted) -> None:
        able = self._able.pop(record.grant, frozenset())
        for position in range(record.count):
            index = record.first + position * record.step
            task = (record.job, record.group, index)
            failed = self.failed.get(task, set())
            if record.node in failed and task not in self.anew:
                name = self.truth.jobs[record.job].task_id(record.group, index)
                others = sorted(able - failed)
                require(not others, "elsewhere", f"{name} goes back to {record.node}, not to {others}", record.job)


def _could_take(node: Node, job: Job, spec: GroupSpec) -> bool:
    """Whether the node could take a task of the group, were nothing else there."""
    held = job.current.get(node.name)
    barred = (held is not None and held.state in NOT_THERE) or job.id in node.clearing
    away = not node.connected or node.leaving or node.drain is not None or node.unusable is not None
    away = away or node.rests_until is not None or node.held_back is not None
    if barred or away or node.join is None or spec.slots > node.slots:
        return False
    phases = (phase.command for phase in (job.spec.preparation, job.spec.release) if phase is not None)
    elevated = any(command.elevated for command in (spec.command, *phases))
    opened = held is not None and held.state not in (NodeJobState.RELEASED, NodeJobState.RELEASE_FAILED)
    dirs = 0 if opened else sum(each.size_bytes or 0 for each in job.spec.dirs)
    return fits(spec, dirs, node.join) and (node.join.elevation or not elevated)
