"""Why a task is as it is: the dominant reason first, from the predicates that place tasks. Only looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from coordinator.claims import Claim
from coordinator.cluster import Cluster
from coordinator.desk import Desk
from coordinator.fitting import to_come
from coordinator.model import Drain, Grant, Group, Job, JobState, Node, NodeState, Pool, TaskState
from coordinator.obstacles import Obstacle, held_back, needs_preparation, obstacle, room_of, shortage, shuns
from coordinator.placement import Round
from coordinator.preparation import NodeJob
from coordinator.readiness import unmet
from coordinator.reasons import NEVER, OF_OBSTACLE, OF_OUTCOME, Cause, Code, Explanation, NodeLine, Told, dominant_first
from coordinator.records import Ended, Verdict
from coordinator.render import count_of, duration
from coordinator.retry import budget
from coordinator.views import end_sentence, why_drained, why_resting
from coordinator.whereabouts import is_preparing, prepares, with_slot
from wire.arms import written as arm_written
from wire.instant import Instant
from wire.messages import Disabling, Outcome, Phase
from wire.spec import ExitAction, Sharing

MAX_NODES: Final = 100
"""Rows of the node-by-node table."""
MAX_STORY: Final = 20
MAX_NAMED: Final = 3
MAX_COUNTED: Final = 10_000
"""Tasks that run again: of more, those that no longer do are not told apart."""


@dataclass(frozen=True, slots=True)
class View:
    """What is looked at, and of which jobs the names may be told. Of one moment: placement is tried once a pool."""

    desk: Desk
    known: Callable[[Job], bool]
    _rounds: dict[str, Round] = field(default_factory=dict)

    @property
    def cluster(self) -> Cluster:
        return self.desk.cluster

    @property
    def now(self) -> Instant:
        return self.desk.now

    def round(self, pool: Pool) -> Round:
        """After handing out all that it would now: what is kept for whom is known then."""
        found = self._rounds.get(pool.name)
        if found is None:
            found = self._rounds[pool.name] = Round(pool)
            for _ in found.assignments():
                pass
        return found

    def names(self, jobs: list[Job]) -> tuple[str, str]:
        """So many jobs, with the names of some of those that may be told."""
        named = [f"`{job.id}`" for job in jobs if self.known(job)]
        return count_of(len(jobs), "job"), f" ({', '.join(named[:MAX_NAMED])})" if named else ""


def task(view: View, job: Job, group: Group, index: int) -> Explanation:
    """Why the task is as it is."""
    found = Explanation(f"{job.id}/{group.sweep.label(index)}", [])
    state = TaskState(group.state[index])
    if state is TaskState.ACTIVE:
        waiting(view, job, group, index, found)
    elif state is TaskState.GRANTED:
        grant = group.out[index]
        found.causes += _granted(view, job, group, index, grant, grant.position(index))
    else:
        found.causes.append(_over(job, group, index, state))
    found.story = _story(job, group, index)
    return found


# ---- over


def _over(job: Job, group: Group, index: int, state: TaskState) -> Cause:
    attempt, node, end = group.history.get(index, [(1, "", None)])[-1]
    if state is TaskState.SUCCEEDED:
        by = f", as {_arm(group, end)} says" if end is not None and end.arm is not None else ""
        return Cause(Code.SUCCEEDED, "it succeeded" + (f" at attempt {attempt}" if attempt > 1 else "") + by)
    if state is TaskState.SKIPPED:
        return _skipped(job, group, index)
    if state is TaskState.CANCELLED and index in group.cancelled:
        return Cause(Code.CANCELLED, f"it was {group.cancelled[index]}")
    if state is TaskState.CANCELLED:
        return Cause(Code.CANCELLED, f"it was cancelled: its job was ended ({job.end_reason})")
    code = OF_OUTCOME[end.outcome] if end is not None else Code.FAILED
    verdict = f"; {_verdict(group, index, end)}" if end is not None else ""
    return Cause(code, f"it failed for good: {how(end)} at attempt {attempt}{verdict}", node or None)


def _skipped(job: Job, group: Group, index: int) -> Cause:
    missing = next((found for found in unmet(job, group, index) if found.spoilt is not None), None)
    if missing is None:  # what it waited for was tried again since
        return Cause(Code.SKIPPED, f"it was skipped: {group.skip_reason or 'its condition could not come true'}")
    return Cause(
        Code.SKIPPED, f"it was skipped: {missing.sentence}", about=missing.label and f"{job.id}/{missing.label}"
    )


def how(end: Ended | None) -> str:
    """An end in words, as part of a sentence; what a node said may be a whole one."""
    if end is None:
        return "nobody knows how"
    said = (end_sentence(end) or "it succeeded").removesuffix(".")
    return said[0].lower() + said[1:] if said.partition(" ")[0].istitle() else said


def _arm(group: Group, end: Ended) -> str:
    assert end.arm is not None
    return f"`{arm_written(group.spec.command.arms[end.arm])}` of its `exit`"


def _verdict(group: Group, index: int, end: Ended) -> str:
    """Why there is no further attempt."""
    if end.outcome is Outcome.KILLED:
        return "`job disable --terminate` gave it no other"
    if end.outcome is Outcome.LOST:
        return "so often is the task to blame"
    if end.arm is not None and group.spec.command.arms[end.arm].action is not ExitAction.RETRY:
        return f"{_arm(group, end)} says so"
    if end.arm is None and end.outcome is Outcome.INPUT_FAILED:
        return "bringing it in was tried again already"
    spent, limit = budget(group, index, end.arm)
    whose = "its retries" if end.arm is None else f"the retries of {_arm(group, end)}"
    if limit is None or spent < limit:
        return f"it was about to be {group.cancelled.get(index, 'cancelled with its job')}"
    return f"{whose} are spent ({limit})" if limit else "it has no retries"


# ---- a node has it


def _granted(view: View, job: Job, group: Group, index: int, grant: Grant, position: int) -> Iterator[Cause]:
    node = view.cluster.nodes[grant.node]
    if not node.connected:
        yield _lost(view, node, ", which has it,")
    elif (stopped := _stopped(job, group, index)) is not None:
        yield Cause(Code.STOPPING, f"{stopped}: node `{node.name}` is to end it", node.name)
    else:
        yield _held(view, job, grant, position, node)
    if node.connected and node.drain is not None:
        yield Cause(Code.DRAINING, f"node `{node.name}`: {_drained(view, node.drain)}", node.name)


def _lost(view: View, node: Node, has_it: str = "") -> Cause:
    silent = duration(view.now.boottime - node.heard_at)
    left = duration(max(0.0, view.desk.lease_end(node) - view.now.boottime))
    sentence = f"node `{node.name}`{has_it} is out of contact for {silent}: in {left} its tasks go elsewhere"
    return Cause(Code.NODE_LOST, sentence, node.name)


def how_out(view: View, job: Job, grant: Grant) -> Code:
    """How it stands with all of a grant, as far as that is one answer."""
    if not view.cluster.nodes[grant.node].connected:
        return Code.NODE_LOST
    return Code.PREPARING if prepares(job, grant.node) else Code.RUNNING


def out(view: View, job: Job, grant: Grant, code: Code) -> str:
    """The same in words, that it runs aside."""
    node = view.cluster.nodes[grant.node]
    if code is Code.NODE_LOST:
        return _lost(view, node).reason
    return _preparation(view, job.current[grant.node], node).reason if code is Code.PREPARING else ""


def _stopped(job: Job, group: Group, index: int) -> str | None:
    """Why it is to be stopped wherever it runs, or None."""
    if index in group.cancelling:
        return f"it is {group.cancelled[index]}"
    if job.state is JobState.TERMINATING:
        return f"its job ends ({job.end_reason})"
    if job.disabled is not None and job.disabled.how is not Disabling.WAIT:
        return f"its job was disabled by {job.disabled.by} (`--{job.disabled.how.value}`)"
    return None


def _held(view: View, job: Job, grant: Grant, position: int, node: Node) -> Cause:
    held = with_slot(node)
    if not any(other is grant and position in positions for other, positions in held):
        if grant.recalled:
            return Cause(
                Code.RECALLED, f"node `{node.name}` is asked to give it back{_why_recalled(job, node)}", node.name
            )
        tasks = count_of(sum(len(positions) for _, positions in held), "task")
        return Cause(Code.QUEUED, f"it is next on node `{node.name}`, behind {tasks} that it runs", node.name)
    node_job = job.current.get(node.name)
    if node_job is not None and is_preparing(node_job):
        return _preparation(view, node_job, node)
    again = f", attempt {grant.attempt}" if grant.attempt > 1 else ""
    since = grant.running.get(position)
    return Cause(Code.RUNNING, f"it runs on node `{node.name}`{_so_far(view, since)}{again}", node.name)


def _preparation(view: View, node_job: NodeJob, node: Node) -> Cause:
    prep, said = node_job.preparation, ""
    attempt, since = node_job.running.get(Phase.PREPARATION, (1 + (prep.attempts if prep is not None else 0), None))
    if prep is not None and prep.finished and prep.succeeded:
        said = ", again: the node was restarted since it had succeeded"
    elif prep is not None and prep.ends:
        said = f", attempt {attempt}; attempt {prep.attempts} failed: {prep.said}"
    elif attempt > 1:
        said = f", attempt {attempt}"
    sentence = f"the job's preparation runs on node `{node.name}`{_so_far(view, since)}{said}"
    return Cause(Code.PREPARING, sentence, node.name)


def _why_recalled(job: Job, node: Node) -> str:
    if node.draining:
        return ": the node is emptied"
    if node.unusable is not None:
        return ": the node is unusable"
    if job.disabled is not None:
        return f": its job was disabled by {job.disabled.by}"
    return ": another node has room for it, or what goes first needs its place"


def _so_far(view: View, since: float | None) -> str:
    return f" for {duration(view.now.wall - since)}" if since is not None else ""


# ---- it waits


_READY: Final = Cause(Code.READY, "nothing holds it: it is about to be handed out")


def waiting(view: View, job: Job, group: Group, index: int, found: Explanation) -> None:
    """Why no node has a task that is not over: causes, and the table of nodes."""
    causes = list(_of_job(view, job, group, index))
    pool = view.cluster.pools[job.spec.pool]
    round_ = view.round(pool)
    kept_from = shuns(pool, job, group, index)
    full = round_.prepares_no_more(job)
    nodes = {
        node.name: _look(round_, job, group, node, kept_from, full) for node in pool.nodes.values() if not node.left
    }
    shown = islice(nodes.items(), MAX_NODES)
    found.nodes = [_node_line(view, round_, job, group, name, looked) for name, looked in shown]
    found.left_out = len(nodes) - len(found.nodes)
    if not nodes:
        causes.append(Cause(Code.NO_NODE, f"pool `{pool.name}` has no node"))
    elif (missing := to_come(pool.options, len(nodes))) and all(code in NEVER for code, _ in nodes.values()):
        there = f"{len(nodes):,} of the {count_of(len(nodes) + missing, 'node')} of pool `{pool.name}`"
        causes.append(
            Cause(Code.NODES_TO_COME, f"{there} {'has' if len(nodes) == 1 else 'have'} joined, and none is fit")
        )
    elif not causes and (free := next((name for name, (code, _) in nodes.items() if code is None), None)) is not None:
        causes.append(Cause(Code.READY, f"{_READY.reason} to node `{free}`", free))
    causes += _of_nodes(view, round_, job, group, index, nodes)
    found.causes += dominant_first(causes)


def _of_job(view: View, job: Job, group: Group, index: int) -> Iterator[Cause]:
    """What holds it wherever a node is free."""
    if (reason := held_back(job)) is not None:
        yield Cause(Code.DISABLING if job.being_stopped else Code.DISABLED, reason)
    for missing in unmet(job, group, index):
        yield Cause(Code.DEPENDENCY, missing.sentence, about=f"{job.id}/{missing.label}")
    until = group.waiting.get(index)
    if until is not None:
        attempt, _, end = group.history.get(index, [(1, "", None)])[-1]
        left_s = duration(view.now.seconds_until(until))
        retries = _spent(group, index, end)
        yield Cause(Code.BACKOFF, f"it is tried again in {left_s}: attempt {attempt} failed ({how(end)}){retries}")
    if room_of(job) <= 0:
        sentence = (
            f"{count_of(job.granted, 'task')} of the job out, and `parallel = {job.spec.parallel}` allows no more"
        )
        yield Cause(Code.PARALLEL, sentence)


def _spent(group: Group, index: int, end: Ended | None) -> str:
    """How many of the retries that count here are spent."""
    if end is None:
        return ""
    spent, limit = budget(group, index, end.arm)
    of = f"{spent:,} of {limit:,}" if limit is not None else f"{spent:,}"
    whose = "retries" if end.arm is None else f"retries of {_arm(group, end)}"
    return f", {of} {whose} spent"


Looked = tuple[Code | None, Obstacle | None]
"""What keeps a task from a node; None: nothing does. Words are made for those nodes only that are told."""


def _look(round_: Round, job: Job, group: Group, node: Node, kept_from: frozenset[str], full: bool) -> Looked:
    """`full`: as many nodes prepare as the job allows."""
    left = None if group.opening is None else round_.left_on(node)
    free = node.slots - node.used
    reason = obstacle(job, group, node, free, left)
    if reason is not None:
        return OF_OBSTACLE[reason], reason
    if node.name in kept_from:
        return Code.ELSEWHERE, None
    if full and needs_preparation(job, node):
        return Code.PREPARATIONS, None
    return Code.RESERVED if round_.is_kept(job, group, node) else None, None


def _node_line(view: View, round_: Round, job: Job, group: Group, name: str, looked: Looked) -> NodeLine:
    node, (code, reason) = round_.pool.nodes[name], looked
    if reason is not None:
        left = None if group.opening is None else round_.left_on(node)
        return NodeLine(name, node.state.value, code, _detail(view, job, group, node, reason, left))
    match code:
        case Code.ELSEWHERE:
            said = Obstacle.ELSEWHERE.value
        case Code.PREPARATIONS:
            limit = job.preparation.parallel if job.preparation is not None else None
            said = f"{Obstacle.PREPARATIONS.value}: `parallel = {limit}` of `prep`"
        case Code.RESERVED:
            said = "kept free for a task that needs more room"
        case _:
            said = "it could take it"
    return NodeLine(name, node.state.value, code, said)


def _detail(view: View, job: Job, group: Group, node: Node, reason: Obstacle, left: Claim | None) -> str:
    """The obstacle on this node, with its numbers."""
    match reason:
        case Obstacle.NOT_CONNECTED if node.state is NodeState.JOINING:
            return "it is joining, and has not said yet what it holds"
        case Obstacle.NOT_CONNECTED:
            return f"out of contact for {duration(view.now.boottime - node.heard_at)}"
        case Obstacle.DRAINING if node.drain is not None:
            return _drained(view, node.drain)
        case Obstacle.UNUSABLE:
            return f"unusable: {node.unusable}"
        case Obstacle.STARTING | Obstacle.START_FAILED:
            return _start(view, node, reason)
        case Obstacle.UNRELIABLE:
            return why_resting(node, view.now) or str(reason.value)
        case Obstacle.BARRED:
            return _failed_preparation(job, node)
        case Obstacle.RELEASING:
            return "an earlier round of the job is released there first"
        case Obstacle.TOO_SMALL:
            return f"it has {count_of(node.slots, 'slot')}, the task takes {group.spec.slots}"
        case Obstacle.BUSY:
            taken, slots = min(node.used, node.slots), count_of(node.slots, "slot")
            return f"{taken} of {slots} {'is' if taken == 1 else 'are'} taken{_by_whom(view, node)}"
        case _:
            return shortage(job, group, node, left if reason is Obstacle.CLAIMED else None) or str(reason.value)


def _drained(view: View, drain: Drain) -> str:
    """By whom, for what, and how long what runs there may go on."""
    left_s = view.now.seconds_until(drain.until)
    going_on = drain.done_at is None and left_s > 0
    return why_drained(drain) + (f"; what runs there has {duration(left_s)}" if going_on else "")


def _start(view: View, node: Node, reason: Obstacle) -> str:
    start = node.start if node.start_counts else None
    if reason is Obstacle.START_FAILED and start is not None:
        return f"{reason.value}: {start.view.said}, {count_of(start.view.attempts, 'attempt')}"
    if start is None or start.running is None:
        return reason.value
    attempt, since = start.running
    failed = f"; attempt {start.view.attempts} failed: {start.view.said}" if start.view.ends else ""
    return f"the pool's start runs{_so_far(view, since)}, attempt {attempt}{failed}"


def _failed_preparation(job: Job, node: Node) -> str:
    node_job = job.current.get(node.name)
    prep = node_job.preparation if node_job is not None else None
    if prep is None:
        return Obstacle.BARRED.value
    return f"the job's preparation failed there: {prep.said}, {count_of(prep.attempts, 'attempt')}"


def _by_whom(view: View, node: Node) -> str:
    """The jobs that hold the node's slots, as far as they may be named."""
    held: Counter[str] = Counter()
    for grant, positions in with_slot(node):
        job = view.cluster.jobs.get(grant.job)
        name = f"`{grant.job}`" if job is not None and view.known(job) else "others"
        held[name] += len(positions) * grant.slots
    parts = [f"{slots} by {name}" for name, slots in held.most_common(MAX_NAMED)]
    return f" ({', '.join(parts)})" if parts else ""


def _of_nodes(
    view: View, round_: Round, job: Job, group: Group, index: int, nodes: dict[str, Looked]
) -> Iterator[Cause]:
    """What the nodes say together, and who goes first where something is free sooner or later."""
    codes = Counter(code for code, _ in nodes.values() if code is not None)
    firsts: dict[Code, NodeLine] = {}
    for name, (code, reason) in nodes.items():
        if code is not None and code not in firsts:
            firsts[code] = _node_line(view, round_, job, group, name, (code, reason))
    for code, first in firsts.items():
        where = f"node `{first.node}`" if codes[code] == 1 else f"{count_of(codes[code], 'node')}, `{first.node}` first"
        yield Cause(code, f"{where}: {first.reason}", first.node)
    contested = next((firsts[code] for code in _CONTESTED if code in firsts), None)
    if contested is not None:
        yield from _who_goes_first(view, round_, job, group, round_.pool.nodes[contested.node])
    before = _before(job, group, index)
    if before:
        are = "is" if before == 1 else "are"
        yield Cause(Code.ORDER, f"{count_of(before, 'task')} of its job {are} before it")


_CONTESTED: Final = (Code.RESERVED, Code.BUSY, Code.CLAIMED)
"""On such a node whoever comes first is served first."""


def _who_goes_first(view: View, round_: Round, job: Job, group: Group, node: Node) -> Iterator[Cause]:
    ahead = round_.ahead_of(job, node, group.claim)
    higher = [other for other in ahead if other.spec.priority > job.spec.priority]
    if higher:
        count, named = view.names(higher)
        yield Cause(Code.PRIORITY, f"tasks of {count} of higher priority{named} go first")
    alike = [other for other in ahead if other.spec.priority == job.spec.priority]
    if alike:
        fifo = round_.pool.sharing is Sharing.FIFO
        why = "submitted earlier" if fifo else "their owners, or they, have less in use, or were served longer ago"
        count, named = view.names(alike)
        yield Cause(Code.TURN, f"tasks of {count} of the same priority{named} go first: {why}")


def _before(job: Job, group: Group, index: int) -> int:
    """Tasks of the job that could run as well, and are handed out before it."""
    found = sum(_could_run(other, other.size) for other in job.groups[: group.number] if job.conditions_hold(other))
    if len(group.again) <= MAX_COUNTED and index in group.again:  # runs again: before what runs first, in order
        return found + sum(at < index for at in set(group.again) if group.state[at] == TaskState.ACTIVE)
    return found + _could_run(group, index)


def _could_run(group: Group, below: int) -> int:
    """Tasks that nothing but a place keeps: those that run again, and those below an index that run first."""
    again = len(group.again)
    if again <= MAX_COUNTED:
        again = sum(group.state[at] == TaskState.ACTIVE and at not in group.waiting for at in set(group.again))
    if group.gate is not None:
        return again + group.gate.waits.count(0, 0, below)
    return again + group.state.count(TaskState.ACTIVE, min(group.cursor, below), below)


# ---- how it came to this


def _story(job: Job, group: Group, index: int) -> list[Told]:
    """The latest moments of the task's life, oldest first."""
    told = [Told(job.submitted_at.wall, "its job was submitted")]
    if job.reopened:
        told.append(reopened(job))
    for attempt, node, end in group.history.get(index, []):
        told.append(Told(end.ended_at, f"attempt {attempt} on `{node}`: {how(end)}{_AFTERWARDS[end.verdict]}"))
    columns = group.finished
    plain = index not in group.history and group.state[index] == TaskState.SUCCEEDED
    if plain and columns is not None and columns.started_at[index]:
        node = list(job.node_numbers)[columns.node[index]]
        told.append(Told(columns.started_at[index] + columns.wall_s[index], f"attempt 1 on `{node}`: it succeeded"))
    return latest(told)


def reopened(job: Job) -> Told:
    """That the job was made to go on, for the last time so far."""
    times = f", for the {job.reopened:,}. time" if job.reopened > 1 else ""
    return Told(job.counted_from.wall, f"its job was reopened{times}: it had ended ({job.earlier_reason})")


def latest(told: list[Told]) -> list[Told]:
    """The first moment and the last ones, in order."""
    told.sort(key=lambda moment: moment.at)
    return told[:1] + told[1:][-(MAX_STORY - 1) :]


_AFTERWARDS: Final = {
    Verdict.SUCCEEDED: "",
    Verdict.FAILED: ", for good",
    Verdict.RETRY: ", tried again",
    Verdict.LOST: "; it costs no retry",
    Verdict.DRAINED: "; it costs no retry",
    Verdict.REQUEUED: "; it costs no retry",
    Verdict.CANCELLED: ", cancelled",
}
