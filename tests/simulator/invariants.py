"""The promises, judged from the truth after every event: which processes lived and what stood on which disk.

Each check is named after its row of the list of invariants; a breach says the row, what happened and whom it concerns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from coordinator import records as rows
from coordinator.cluster import Cluster
from coordinator.model import TaskState
from coordinator.records import NodeJobState, Verdict
from coordinator.views import job_result, release_counts
from tests.simulator.conditions import Stand
from tests.simulator.meaning import meaning
from tests.simulator.processes import Identity, Tree
from tests.simulator.truth import FINAL_VERDICTS, JobTruth, RoundTruth, Truth, skipped_by
from tests.simulator.workload import Kind
from tests.simulator.world import World
from wire import messages as m
from wire.messages import Disabling, Message, Outcome, Phase
from wire.spec import Command, ExitAction

if TYPE_CHECKING:
    from tests.simulator.people import People
    from tests.simulator.users import Users

SETTLED: Final = frozenset(
    {NodeJobState.RELEASED, NodeJobState.RELEASE_FAILED, NodeJobState.UNREACHED, NodeJobState.WAIVED}
)
FINAL_STATES: Final = {
    Verdict.SUCCEEDED: {TaskState.SUCCEEDED},
    Verdict.FAILED: {TaskState.FAILED},
    Verdict.CANCELLED: {TaskState.CANCELLED},
}
STOPPED: Final = {
    True: (Verdict.FAILED, Verdict.CANCELLED),
    False: (Verdict.REQUEUED, Verdict.CANCELLED),
}
"""What becomes of a task that was killed while its job was disabled: for good, or to run again with no retry spent."""
UNRUN: Final = {TaskState.CANCELLED, TaskState.SKIPPED}
"""Tasks that nothing final was ever recorded of: their job ended, or their condition could not come true."""
TIMEOUT_SLACK_S: Final = 1.0
WAKE_SLACK_S: Final = 6.0
"""How long after a machine's wake-up what should have ended meanwhile may still be seen alive: its grace."""


class Breach(AssertionError):
    """A promise was broken."""

    def __init__(self, row: str, what: str, job: str | None = None) -> None:
        super().__init__(f"{row}: {what}")
        self.row = row
        self.job = job


def require(holds: bool, row: str, what: str, job: str | None = None) -> None:
    if not holds:
        raise Breach(row, what, job)


class Invariants:
    """All checks over one truth."""

    def __init__(self, truth: Truth, world: World, slots: dict[str, int]) -> None:
        self.truth = truth
        self.world = world
        self.slots = slots
        self.timeout_slack_s = TIMEOUT_SLACK_S
        self.unminded: set[tuple[str, int]] = set()
        """(host, number) of trees whose keeper was killed while no agent was there, or the other way round: nobody on
        that machine could end them when their lease did."""
        self._excuses: dict[str, list[tuple[float, float]]] = {}
        self.starts = False
        """Whether the pool has a start."""

    # ---- what nobody could have prevented

    def excuse(self, node: str, until: float | None) -> None:
        """The node's processes can't act (suspended, a keeper stopped) from now on; `until` ends that."""
        spans = self._excuses.setdefault(node, [])
        if until is None:
            spans.append((self.world.now, math.inf))
        elif spans:
            spans[-1] = (spans[-1][0], until + WAKE_SLACK_S)

    def excused(self, node: str, since: float) -> bool:
        """Whether the node could not act at some time from `since` on."""
        return any(end >= since for _, end in self._excuses.get(node, ()))

    # ---- when something starts

    def spawning(self, host: str, who: Identity, boot: str, incarnation: str) -> None:
        """Just before a command starts on a node, all of what must be true for that."""
        starting = [tree for tree in self.truth.starts[host] if tree.alive and tree.main_exit is None]
        beside = starting if who.kind is not Kind.RELEASE else []
        require(not beside, "start", f"{who.kind.value} of {who.job} starts while {beside and beside[0]} lives")
        job = self.truth.jobs.get(who.job)
        require(job is not None, "I5", f"a command of {who.job} starts, which no disk knows", who.job)
        assert job is not None
        if who.node in self.truth.copied:
            self._starts_on_a_copy(job, host, who)  # its rounds are two machines'
            return
        current = self.truth.round_at(who.job, who.node)
        require(
            current is not None, "promise 3", f"{who.kind.value} starts on {who.node} without a durable round", who.job
        )
        assert current is not None
        match who.kind:
            case Kind.PREPARATION:
                self._preparation_starts(job, current, host, who, boot)
            case Kind.TASK:
                self._task_starts(job, current, host, who, boot, incarnation)
            case Kind.RELEASE:
                self._release_starts(job, current, host, who)

    def beginning(self, host: str, what: str, boot: str, incarnation: str) -> None:
        """Just before a task or a preparation begins: it starts, or files begin to come for it."""
        if self.starts:
            done = [t for t in self.truth.starts[host][self.truth.starts_from[host] :] if t.succeeded]
            good = any((tree.boot, tree.incarnation) == (boot, incarnation) for tree in done)
            require(good, "start", f"{what} begins on {host} before the start in {boot}")

    def start_begins(self, host: str, boot: str) -> None:
        """One attempt of it at a time, none beside tasks and preparations, none once it has succeeded."""
        live = [tree for tree in self.truth.live[host] if tree.who.kind is not Kind.RELEASE]
        beside = [tree for tree in live if tree.who.kind is Kind.START or tree.main_exit is None]
        require(not beside, "start", f"the start begins on {host} while {beside and beside[0]} lives")
        again = (host, boot) in self.truth.start_done
        require(not again, "start", f"the start begins again on {host} after it succeeded in {boot}")

    def _starts_on_a_copy(self, job: JobTruth, host: str, who: Identity) -> None:
        """Two machines live by one identity: still no task runs twice, and a phase is alone on its machine."""
        live = [tree for tree in self.truth.live[host] if tree.who.job == job.id]
        if who.kind is Kind.RELEASE:
            require(not live, "I3", f"release starts on {host} while {live and live[0]} lives", job.id)
        elif who.kind is Kind.PREPARATION:
            twice = [tree for tree in live if tree.who.kind is Kind.PREPARATION]
            require(not twice, "I2", f"a second preparation on {host} while {twice and twice[0]} lives", job.id)
        else:
            self._attempt_starts(job, who)

    def _preparation_starts(self, job: JobTruth, current: RoundTruth, host: str, who: Identity, boot: str) -> None:
        live = [t for t in self.truth.live[host] if t.who.job == job.id and t.who.kind is Kind.PREPARATION]
        require(not live, "I2", f"a second preparation on {who.node} while {live and live[0]} lives", job.id)
        self._before_release("I3", job, current, who)
        assert job.spec.preparation is not None
        again = job.spec.preparation.rerun_after_reboot
        done = [old for old in current.prepared_boots if old == boot or not again]
        require(not done, "I2", f"preparation starts again on {who.node} after it succeeded in {done}", job.id)

    def _before_release(self, row: str, job: JobTruth, current: RoundTruth, who: Identity) -> None:
        require(
            current.releases == 0,
            row,
            f"{who.kind.value} {who.task or ''} starts on {who.node} after round {current.round} began its release",
            job.id,
        )

    def _task_starts(
        self, job: JobTruth, current: RoundTruth, host: str, who: Identity, boot: str, incarnation: str
    ) -> None:
        assert who.task is not None
        assert who.attempt is not None
        group, index = job.task(who.task)
        stopped = not job.disabled or self.excused(host, 0.0)
        require(stopped, "disabled", f"{who.task} starts on {who.node} while its job is disabled", job.id)
        require(index == who.index, "templates", f"{who.task} has index {index}, its argv says {who.index}", job.id)
        self._before_release("I3", job, current, who)
        preparation = job.spec.preparation
        if preparation is not None and preparation.wait:
            good = any(
                tree.who.kind is Kind.PREPARATION
                and tree.succeeded
                and tree.incarnation == incarnation
                and (tree.boot == boot or not preparation.rerun_after_reboot)
                for tree in current.trees
            )
            require(good, "I1", f"{who.task} starts on {who.node} where nothing was prepared in {boot}", job.id)
        self._attempt_starts(job, who)
        grant = self.truth.grant_of(job.id, who.node, group, index, who.attempt)
        back = grant is not None and (who.node, *grant) in self.truth.gave_back
        back = back and not job.command_of(who).files  # it began when they began to come
        require(not back, "recall", f"{who.task} starts on {who.node}, which gave back {grant}", job.id)
        self._task_counts(job, current, host, who, group, index)

    def _attempt_starts(self, job: JobTruth, who: Identity) -> None:
        assert who.task is not None
        assert who.attempt is not None
        earlier = self.truth.attempts[job.id, who.task]
        require(who.attempt not in earlier, "I7", f"{who.task} attempt {who.attempt} starts twice", job.id)
        require(
            all(number < who.attempt for number in earlier),
            "I7",
            f"{who.task} attempt {who.attempt} starts after attempt {max(earlier, default=0)}",
            job.id,
        )
        for number, tree in earlier.items():
            lives = tree is not None and tree.alive and not tree.stuck and (tree.host, tree.number) not in self.unminded
            if tree is not None and lives and not self.excused(tree.host, tree.spawned_at):
                raise Breach(
                    "I8", f"{who.task} attempt {who.attempt} starts while attempt {number} lives: {tree}", job.id
                )

    def _task_counts(
        self, job: JobTruth, current: RoundTruth, host: str, who: Identity, group: int, index: int
    ) -> None:
        spec, final = job.group(group), job.final.get((group, index))
        untold = final is Verdict.CANCELLED and current.unreached  # its node was given up, and has not heard of that
        require(final is None or untold, "I9", f"{who.task} starts after it was over ({final})", job.id)
        used = self.truth.slots_used(host) + spec.slots
        require(used <= self.slots[who.node], "I13", f"{used} slots are in use on {host} with {who.task}", job.id)
        stand = job.stand(group, index)
        require(stand is Stand.TRUE, "after", f"{who.task} starts while its condition is {stand.value}", job.id)

    def _release_starts(self, job: JobTruth, current: RoundTruth, host: str, who: Identity) -> None:
        leaving = who.node in self.truth.leaving or who.node in self.truth.ever_drained
        leaving = leaving or who.node in self.truth.forgotten
        given_up = current.unreached  # its node was revoked, and has come back by another key
        require(
            job.ending_at is not None or leaving or given_up,
            "I3",
            f"release starts on {who.node} while {job.id} goes on",
            job.id,
        )
        require(current.attempted, "I3", f"release starts on {who.node} where nothing of {job.id} ever started", job.id)
        live = [tree for tree in self.truth.live[host] if tree.who.job == job.id]
        require(not live, "I3", f"release starts on {who.node} while {live and live[0]} lives", job.id)
        require(not current.released_well, "I4", f"release starts again on {who.node} after it succeeded", job.id)
        waived = current.state is NodeJobState.WAIVED and who.node in self.truth.forgotten
        late = job.completed_at is not None and not current.unreached and not waived
        require(not late, "I4", f"release starts on {who.node} after {job.id} completed", job.id)
        require(
            waived or current.state not in (NodeJobState.RELEASED, NodeJobState.RELEASE_FAILED, NodeJobState.WAIVED),
            "I4",
            f"release starts on {who.node} after its outcome was {current.state.value}",
            job.id,
        )

    # ---- when something is recorded

    def recording(self, record: rows.Record) -> None:
        """Just before a record of the coordinator is taken into the truth."""
        match record:
            case rows.ReportTaken():
                for end in record.tasks:
                    self._end_recorded(record.node, end)
                for phase in record.phases:
                    self._phase_recorded(record.node, phase)
            case rows.StartOrdered():
                self._start_ordered(record)
            case rows.StartEnded():
                self._start_recorded(record)
            case rows.Granted():
                self._granted(record)
            case rows.GroupSkipped() | rows.TasksSkipped():
                self._skipped(record)
            case rows.JobEnding():
                self._ends(record)
            case rows.JobCompleted():
                self._completed(self.truth.jobs[record.job])
            case rows.JobSubmitted():
                self._submitted(record)
            case rows.RoundOpened():
                self._not_drained(record.job, record.node, "a round is opened")
            case rows.NodeMarked(mark=rows.NodeMark.DRAINED):
                self._emptied(record.node)
            case rows.JobMoved(state=rows.JobState.DISABLED):
                self._disabled(self.truth.jobs[record.job])
            case rows.JobReopened():
                self._reopened(self.truth.jobs[record.job], record)
            case _:
                pass

    def _not_drained(self, job: str, node: str, what: str) -> None:
        require(node not in self.truth.drained, "drain", f"{what} on {node}, which is drained", job)

    def _emptied(self, node: str) -> None:
        """A node is drained: it holds nothing of anybody, and what it held was released, once."""
        for (job_id, where), rounds in self.truth.rounds.items():
            for found in rounds if where == node else ():
                if found.voided or found.settled or found.state is NodeJobState.WAIVED:
                    continue
                done = found.state in (NodeJobState.RELEASED, NodeJobState.RELEASE_FAILED)
                require(done, "drain", f"{node} is drained, round {found.round} is {found.state.value}", job_id)
                job = self.truth.jobs[job_id]
                well = sum(t.who.kind is Kind.RELEASE and t.succeeded for t in found.trees)
                if found.state is NodeJobState.RELEASED and job.spec.release is not None and found.attempted:
                    require(well > 0, "drain", f"{node} is drained, round {found.round} was not released", job_id)
        known = (grant for grant in self.truth.grants.values() if self.truth.jobs[grant.record.job].deleted_at is None)
        held = [grant for grant in known if grant.record.node == node and grant.open]
        require(not held, "drain", f"{node} is drained and has {held and held[0].record}")

    def _start_ordered(self, record: rows.StartOrdered) -> None:
        """Not once more where it has succeeded, and its agent holds that durably."""
        last = self.truth.start_orders.get(record.node)
        same = last is not None and (last.digest, last.boot) == (record.digest, record.boot)
        done = (record.node, record.boot) in self.truth.start_done and record.node not in self.truth.copied
        require(not (same and done), "start", f"the start is ordered again on {record.node}, where it has succeeded")

    def _start_recorded(self, record: rows.StartEnded) -> None:
        trees = [t for host in self.truth.starts.values() for t in host if t.who.node == record.node]
        exits = [tree.main_exit for tree in trees]
        end = record.end
        if end.outcome is Outcome.EXITED:
            require((end.exit_code, end.signal) in exits, "I11", f"the end of a start on {record.node} is invented")
        if end.succeeded:
            require((0, None) in exits, "I11", f"success of a start on {record.node} is invented")

    def _submitted(self, record: rows.JobSubmitted) -> None:
        require(record.job not in self.truth.jobs, "I6", f"the job id {record.job} is used twice", record.job)
        twins = [
            job.id
            for job in self.truth.jobs.values()
            if (job.owner, job.submission, job.spec.name) == (record.owner, record.submission, record.spec.name)
        ]
        require(not twins, "I6", f"{record.submission} made {twins and twins[0]} and again {record.job}", record.job)

    def _disabled(self, job: JobTruth) -> None:
        """Nothing of it is out any more, neither by the records nor truly."""
        out = [number for number, grant in self.truth.grants.items() if grant.open and grant.record.job == job.id]
        require(not out, "disabled", f"{job.id} is disabled with the grants {out} out", job.id)
        for host, trees in self.truth.live.items():
            for tree in trees:
                mine = tree.who.job == job.id and tree.who.kind is Kind.TASK and tree.who.node not in self.truth.copied
                minded = (tree.host, tree.number) not in self.unminded and not self.excused(host, tree.spawned_at)
                minded = minded and not tree.stuck
                require(not (mine and minded), "disabled", f"{job.id} is disabled while {tree} lives", job.id)

    def _reopened(self, job: JobTruth, record: rows.JobReopened) -> None:
        require(job.completed_at is not None, "retry", f"{job.id} is reopened before it completed", job.id)
        for group, spans in record.tasks:
            for index in (index for first, count in spans for index in range(first, first + count)):
                well = job.final.get((group, index)) is Verdict.SUCCEEDED
                require(not well, "retry", f"{job.task_id(group, index)} succeeded and is to run again", job.id)

    def _granted(self, record: rows.Granted) -> None:
        job = self.truth.jobs[record.job]
        require(not job.disabled, "disabled", f"{job.id} is granted work while it is disabled", job.id)
        for position in range(record.count):
            index = record.first + position * record.step
            require(
                (record.group, index) not in job.final,
                "I9",
                f"{job.task_id(record.group, index)} is granted again after it was over",
                job.id,
            )
        require(job.ending_at is None, "I9", f"{job.id} is granted work after it began to end", job.id)
        self._not_drained(job.id, record.node, f"grant {record.grant} is given")
        require(record.grant not in self.truth.grants, "I7", f"grant {record.grant} is used twice", job.id)

    def _end_recorded(self, node: str, end: rows.Ended) -> None:
        job, task, attempt, tree = self.truth.tree_of(end)
        grant = self.truth.grants[end.grant]
        place = (grant.record.group, grant.record.first + end.position * grant.record.step)
        require(
            grant.record.node == node, "I9", f"{node} reports {task}, which {grant.record.node} was granted", job.id
        )
        require(
            end.position in grant.open,
            "I9",
            f"the end of {task} attempt {attempt} counts though it was not awaited",
            job.id,
        )
        require(place not in job.final or end.verdict not in FINAL_VERDICTS, "I9", f"{task} ends twice", job.id)
        if end.outcome is Outcome.KILLED and job.how is not None and job.ending_at is None:
            verdicts = STOPPED[job.how is Disabling.TERMINATE]
            what = f"{task}, stopped by {job.how.value}, is {end.verdict.value}"
            require(end.verdict in verdicts, "disabled", what, job.id)
        command = job.group(place[0]).command
        if end.verdict is Verdict.SUCCEEDED and end.outcome is not Outcome.INPUT_FAILED:
            well = tree is not None and tree.main_exit is not None
            well = well and meaning(command, Outcome.EXITED, *tree.main_exit)[0] is ExitAction.SUCCEED
            require(well, "I11", f"success of {task} attempt {attempt} is invented", job.id)
        if end.outcome not in (Outcome.LOST, Outcome.KILLED):
            self._meant(job, command, f"{task} attempt {attempt}", place, end)
        self._status(f"{task} attempt {attempt}", job, end.outcome, end.exit_code, end.signal, tree)

    def _meant(self, job: JobTruth, command: Command, what: str, place: tuple[int, int], end: rows.Ended) -> None:
        """Its verdict is what `exit` says of it, and retries are spent where they belong."""
        action, budget, limit = meaning(command, end.outcome, end.exit_code, end.signal)
        spent = job.spent[*place, budget]
        left = limit is None or spent < limit
        if action is ExitAction.RETRY:
            again = left and job.ending_at is None and place not in job.cancelled
            verdicts = {Verdict.RETRY} if again else {Verdict.FAILED}
        else:
            verdicts = {Verdict.SUCCEEDED if action is ExitAction.SUCCEED else Verdict.FAILED}
        meant = f"{action.value}, {spent} of {limit} retries spent"
        row = "I10" if action is ExitAction.RETRY else "exits"
        require(end.verdict in verdicts, row, f"{what} is {end.verdict.value}, its end means {meant}", job.id)

    def _skipped(self, record: rows.GroupSkipped | rows.TasksSkipped) -> None:
        job = self.truth.jobs[record.job]
        for index in skipped_by(record):
            task, stand = job.task_id(record.group, index), job.stand(record.group, index)
            require(stand is Stand.NEVER, "after", f"{task} is skipped while its condition is {stand.value}", job.id)
            require(job.end_of(record.group, index) is None, "I9", f"{task} is skipped after it was over", job.id)

    def _ends(self, record: rows.JobEnding) -> None:
        job = self.truth.jobs[record.job]
        if record.reason == "TaskFailed" and job.ending_at is None:
            limit, failed = job.spec.stop_after, job.stopping_failures()
            enough = job.stopped or (limit is not None and failed >= limit)
            require(enough, "stop", f"{job.id} is stopped by {failed} failures that count, {limit} are allowed", job.id)

    def _status(
        self, what: str, job: JobTruth, outcome: Outcome, code: int | None, by: int | None, tree: Tree | None
    ) -> None:
        match outcome:
            case Outcome.EXITED:
                truth = None if tree is None else tree.main_exit
                require((code, by) == truth, "I11", f"{what} exited with {(code, by)} on record, truly {truth}", job.id)
            case Outcome.TIMED_OUT:
                require(tree is not None, "I11", f"{what} timed out and never ran", job.id)
                assert tree is not None
                self._truly_timed_out(what, job, tree)
            case Outcome.START_FAILED:
                require(tree is None, "I11", f"{what} ran and is recorded as one that could not start", job.id)
            case Outcome.INPUT_FAILED:
                require(tree is None, "I11", f"{what} ran and is recorded as one whose files did not come", job.id)
            case Outcome.KILLED:
                signalled = tree is None or (tree.host, tree.number) in self.truth.signalled
                require(signalled, "I11", f"{what} is recorded as killed and nobody killed it", job.id)
            case Outcome.LOST:
                lost = tree is None or (tree.host, tree.incarnation, tree.keeper) in self.truth.dead_keepers
                lost = lost or (tree is not None and tree.who.node in self.truth.copied)  # its copy knows no better
                require(lost, "I11", f"{what} is recorded as lost and its keeper lives", job.id)

    def _truly_timed_out(self, what: str, job: JobTruth, tree: Tree) -> None:
        timeout_ms = job.command_of(tree.who).timeout_ms
        require(timeout_ms is not None, "I11", f"{what} timed out without a timeout", job.id)
        assert timeout_ms is not None
        lived = (self.world.now if tree.exited_at is None else tree.exited_at) - tree.spawned_at
        require(lived >= timeout_ms / 1000 * 0.999, "I11", f"{what} timed out after {lived:.3f} s", job.id)

    def _phase_recorded(self, node: str, end: rows.PhaseEnd) -> None:
        if end.phase is Phase.START:
            return
        found = self.truth.find_round(end.job, node, end.round)
        job = self.truth.jobs[end.job]
        if found is None or (end.phase is Phase.RELEASE and job.spec.release is None) or node in self.truth.copied:
            return
        kind = Kind.PREPARATION if end.phase is Phase.PREPARATION else Kind.RELEASE
        exits = [tree.main_exit for tree in found.trees if tree.who.kind is kind]
        if end.outcome is Outcome.EXITED:
            truth = (end.exit_code, end.signal)
            require(
                truth in exits, "I11", f"{kind.value} on {node} exited with {truth} on record, truly {exits}", job.id
            )
        if end.succeeded:
            require((0, None) in exits, "I11", f"success of {kind.value} on {node} is invented", job.id)
        if kind is Kind.RELEASE and end.final and not end.succeeded:
            assert job.spec.release is not None
            retries = job.spec.release.command.retries
            tries = sum(t.who.kind is kind for t in found.trees) + found.refused.count(kind)
            unasked = job.spec.release.command.elevated and end.outcome is Outcome.START_FAILED
            unasked = unasked or end.outcome is Outcome.INPUT_FAILED
            full = end.outcome is Outcome.START_FAILED and retries is not None and end.attempt > retries
            unasked = unasked or full  # no directory could be made for it: an attempt without a process
            require(
                unasked or (retries is not None and tries > retries),
                "I4",
                f"release on {node} gave up after {tries} attempts",
                job.id,
            )

    def _completed(self, job: JobTruth) -> None:
        require(job.ending_at is not None, "I4", f"{job.id} completed without ending", job.id)
        for (owner, node), rounds in self.truth.rounds.items():
            if owner != job.id:
                continue
            for found in rounds:
                if found.voided:
                    continue
                require(
                    found.state in SETTLED,
                    "I4",
                    f"{job.id} completed while round {found.round} on {node} is {found.state.value}",
                    job.id,
                )
                if found.state is NodeJobState.RELEASED and job.spec.release is not None:
                    well = any(t.who.kind is Kind.RELEASE and t.succeeded for t in found.trees)
                    require(
                        well or not found.attempted or node in self.truth.copied,
                        "I4",
                        f"release of {job.id} on {node} is recorded and never ran",
                        job.id,
                    )

    # ---- when something is sent

    def coordinator_sends(self, message: Message) -> None:
        """A frame of the coordinator promises only what stands on its disk."""
        match message:
            case m.Run():
                require(message.grant in self.truth.grants, "promise 5", f"grant {message.grant} is sent, not stored")
            case m.OpenRound():
                stored = any(
                    found.round == message.round
                    for (job, _), rounds in self.truth.rounds.items()
                    if job == message.job
                    for found in rounds
                )
                require(stored, "promise 3", f"round {message.round} of {message.job} is sent, not stored", message.job)
            case _:
                pass

    # ---- at the end

    def finally_(self, people: People) -> None:
        """After everything came to rest: nothing that was acknowledged is missing, nothing is owed."""
        require(not people.lies, "I6", "; ".join(people.lies))
        for text, ids in people.told.items():
            for job_id in ids:
                require(job_id in self.truth.jobs, "I5", f"{job_id} of {text} was acknowledged and is gone", job_id)
        for job in self.truth.jobs.values():
            if job.deleted_at is None:
                require(job.completed_at is not None, "I15", f"{job.id} never completed", job.id)

    def results(self, cluster: Cluster) -> None:
        """What people are shown of every task is what was recorded of it, and that is true (I11)."""
        for job in cluster.jobs.values():
            truth = self.truth.jobs[job.id]
            spoilt = truth.counted_failures() or truth.reason == "TaskFailed"
            what = f"{job.id} is shown {job_result(job)}, with {truth.counted_failures()} failures that count"
            well = release_counts(job)["succeeded"] == len(job.rounds) and truth.reason == "AllTasksComplete"
            require(not spoilt or job_result(job) == "failure", "result", what, job.id)
            require(spoilt or not well or job_result(job) != "failure", "result", what, job.id)
            for number, group in enumerate(job.groups):
                for index in range(group.size):
                    shown = TaskState(group.state[index])
                    recorded = truth.final.get((number, index))
                    expected = FINAL_STATES[recorded] if recorded is not None else UNRUN
                    what = f"{truth.task_id(number, index)} is shown {shown.name}, recorded as {recorded}"
                    require(shown in expected, "I9", what, job.id)

    def no_user_left(self, node: str, users: Users) -> None:
        """I16 for the users of jobs: one that is still somebody's is quarantined, and its release said so."""
        for job, uid in users.leases.items():
            if job == m.START_JOB:
                continue  # the start has it while the node lives
            require(job in users.quarantined, "I16", f"{job} still has the user {uid} on {node}", job)
            ends = [end for found in self.truth.rounds.get((job, node), ()) for end in found.phases]
            told = any(end.clean is not None and end.clean.uid == uid for end in ends)
            known = self.truth.jobs[job].deleted_at is None
            heard = any(end.phase is Phase.RELEASE and end.final for end in ends)
            require(told or not known or not heard, "I16", f"nobody was told that {job} keeps {uid} on {node}", job)

    def nothing_left(self, host: str, directories: list[str]) -> None:
        """I16 for a node that was reached after all jobs were over."""
        live = [tree for tree in self.truth.live[host] if tree.who.kind is not Kind.START]
        require(not live, "I16", f"{live and live[0]} is left on {host}", live[0].who.job if live else None)
        require(not directories, "I16", f"directories are left on {host}: {directories[:3]}", None)
