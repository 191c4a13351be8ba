"""Why a task is as it is: the dominant reason first, from the predicates that place tasks. Only looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from coordinator.claims import Claim
from coordinator.cluster import Cluster
from coordinator.model import Grant, Group, Job, Node, TaskState
from coordinator.obstacles import Obstacle, held_back, needs_preparation, obstacle, shortage, shuns
from coordinator.placement import Round
from coordinator.readiness import unmet, why_skipped
from coordinator.reasons import OF_OBSTACLE, Cause, Code, Explanation, NodeLine, Told
from coordinator.records import Ended, Verdict
from coordinator.render import count_of, duration
from coordinator.views import end_sentence, why_drained
from coordinator.whereabouts import grant_of, is_preparing, with_slot
from wire.instant import Instant
from wire.messages import Outcome, Phase

MAX_NODES: Final = 100
"""Rows of the node-by-node table."""
MAX_STORY: Final = 20
MAX_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class View:
    """What is looked at, when, and of which jobs the names may be told."""

    cluster: Cluster
    now: Instant
    known: Callable[[Job], bool]


def task(view: View, job: Job, group: Group, index: int) -> Explanation:
    """Why the task is as it is."""
    found = Explanation(f"{job.id}/{group.sweep.label(index)}", [])
    state = TaskState(group.state[index])
    if state is TaskState.ACTIVE:
        waiting(view, job, group, index, found)
    elif state is TaskState.GRANTED:
        grant, position = grant_of(view.cluster, job, group, index)
        found.causes.append(_granted(view, job, group, grant, position) if grant is not None else _READY)
    else:
        found.causes.append(_over(job, group, index, state))
    found.story = _story(job, group, index)
    return found


# ---- over


def _over(job: Job, group: Group, index: int, state: TaskState) -> Cause:
    attempt, node, end = group.history.get(index, [(1, "", None)])[-1]
    if state is TaskState.SUCCEEDED:
        return Cause(Code.SUCCEEDED, "it succeeded" + (f" at attempt {attempt}" if attempt > 1 else ""))
    if state is TaskState.SKIPPED:
        return Cause(Code.SKIPPED, f"it was skipped: {why_skipped(job, group, index) or group.skip_reason}")
    if state is TaskState.CANCELLED and index in group.cancelled:
        return Cause(Code.CANCELLED, f"it was {group.cancelled[index]}")
    if state is TaskState.CANCELLED:
        return Cause(Code.CANCELLED, f"it was cancelled: its job was ended ({job.end_reason})")
    return Cause(Code.FAILED, f"it failed for good: {how(end)} at attempt {attempt}; {_verdict(group, end)}", node)


def how(end: Ended | None) -> str:
    """An end in words."""
    return (end_sentence(end) or "it succeeded") if end is not None else "nobody knows how"


def _verdict(group: Group, end: Ended | None) -> str:
    """Why there is no further attempt."""
    if end is not None and end.outcome is Outcome.KILLED:
        return "`job disable --terminate` gave it no other"
    if end is not None and end.arm is not None:
        return f"arm {end.arm + 1} of its `exit` decided"
    retries = group.spec.command.retries
    return f"its retries are spent ({retries})" if retries else "it has no retries"


# ---- a node has it


def _granted(view: View, job: Job, group: Group, grant: Grant, position: int) -> Cause:
    node = view.cluster.nodes[grant.node]
    if not node.connected:
        silent = duration(view.now.boottime - node.heard_at)
        return Cause(Code.NODE_LOST, f"node `{node.name}`, which has it, is out of contact for {silent}", node.name)
    held = next((positions for other, positions in with_slot(node) if other is grant), [])
    if position not in held:
        ahead = sum(len(positions) for _, positions in with_slot(node))
        tasks = count_of(ahead, "task")
        return Cause(Code.QUEUED, f"it is next on node `{node.name}`, behind {tasks} that it runs", node.name)
    node_job = job.current.get(node.name)
    if node_job is not None and is_preparing(node_job):
        attempt, since = node_job.running.get(Phase.PREPARATION, (1, None))
        so_far = f" for {duration(view.now.wall - since)}" if since is not None else ""
        failed = node_job.preparation is not None and node_job.preparation.ends > 0
        again = f", attempt {attempt}" if attempt > 1 or failed else ""
        return Cause(
            Code.PREPARING, f"the job's preparation runs on node `{node.name}`{so_far}{again}", node.name
        )  # fmt: skip
    since = grant.running.get(position)
    so_far = f" for {duration(view.now.wall - since)}" if since is not None else ""
    again = f", attempt {grant.attempt}" if grant.attempt > 1 else ""
    return Cause(Code.RUNNING, f"it runs on node `{node.name}`{so_far}{again}", node.name)


# ---- it waits


_READY: Final = Cause(Code.READY, "nothing holds it: it is about to be handed out")


def waiting(view: View, job: Job, group: Group, index: int, found: Explanation) -> None:
    """Why no node has a task that is not over: causes, and the table of nodes."""
    found.causes += _of_job(view, job, group, index)
    pool = view.cluster.pools[job.spec.pool]
    round_ = Round(pool)
    for _ in round_.assignments():  # as placement would hand out now: after it, what is kept for whom is known
        pass
    kept_from = shuns(pool, job, group, index)
    lines = [_node_line(view, round_, job, group, node, kept_from) for node in pool.nodes.values() if not node.left]
    found.nodes, found.left_out = lines[:MAX_NODES], max(0, len(lines) - MAX_NODES)
    if not lines:
        found.causes.append(Cause(Code.NO_NODE, f"pool `{pool.name}` has no node"))
    found.causes += _of_nodes(view, round_, job, group, index, lines)
    if not found.causes:
        found.causes.append(_READY)


def _of_job(view: View, job: Job, group: Group, index: int) -> Iterator[Cause]:
    """What holds it wherever a node is free, the strongest first."""
    if (reason := held_back(job)) is not None:
        yield Cause(Code.DISABLED, reason)
    for missing in unmet(job, group, index):
        yield Cause(Code.DEPENDENCY, missing.sentence)
    until = group.waiting.get(index)
    if until is not None:
        attempt, _, end = group.history.get(index, [(1, "", None)])[-1]
        left_s = duration(view.now.seconds_until(until))
        yield Cause(Code.BACKOFF, f"it is tried again in {left_s}: attempt {attempt} failed ({how(end)})")
    if job.spec.parallel is not None and job.granted >= job.spec.parallel:
        yield Cause(Code.PARALLEL, f"{count_of(job.granted, 'task')} of the job run, and `parallel` allows no more")


def _node_line(view: View, round_: Round, job: Job, group: Group, node: Node, kept_from: frozenset[str]) -> NodeLine:
    free = node.slots - node.used
    left = None if group.opening is None else round_.left_on(node)
    reason = obstacle(job, group, node, free, left)
    if reason is not None:
        return NodeLine(node.name, node.state.value, OF_OBSTACLE[reason], _detail(view, job, group, node, reason, left))
    if node.name in kept_from:
        return NodeLine(node.name, node.state.value, Code.ELSEWHERE, Obstacle.ELSEWHERE.value)
    if needs_preparation(job, node) and _as_many_prepare(round_, job):
        return NodeLine(node.name, node.state.value, Code.PREPARATIONS, Obstacle.PREPARATIONS.value)
    if round_.is_kept(job, group, node):
        return NodeLine(node.name, node.state.value, Code.RESERVED, "kept free for a task that needs more room")
    return NodeLine(node.name, node.state.value, None, "it could take it")


def _as_many_prepare(round_: Round, job: Job) -> bool:
    """Whether `prep { parallel }` allows no further node."""
    return any(contender.job is job and contender.preparations <= 0 for contender in round_.contenders)


def _detail(view: View, job: Job, group: Group, node: Node, reason: Obstacle, left: Claim | None) -> str:
    """The obstacle on this node, with its numbers."""
    match reason:
        case Obstacle.NOT_CONNECTED:
            return f"out of contact for {duration(view.now.boottime - node.heard_at)}"
        case Obstacle.DRAINING if node.drain is not None:
            return why_drained(node.drain)
        case Obstacle.UNUSABLE:
            return f"unusable: {node.unusable}"
        case Obstacle.BARRED:
            return _failed_preparation(job, node)
        case Obstacle.TOO_SMALL:
            return f"it has {count_of(node.slots, 'slot')}, the task takes {group.spec.slots}"
        case Obstacle.BUSY:
            return f"{node.used} of {count_of(node.slots, 'slot')} are taken{_by_whom(view, node)}"
        case _:
            return shortage(job, group, node, left if reason is Obstacle.CLAIMED else None) or str(reason.value)


def _failed_preparation(job: Job, node: Node) -> str:
    node_job = job.current.get(node.name)
    prep = node_job.preparation if node_job is not None else None
    if prep is None:
        return Obstacle.BARRED.value
    how = prep.reason or (f"exit code {prep.exit_code}" if prep.exit_code is not None else f"signal {prep.signal}")
    return f"the job's preparation failed there: {how}, {count_of(prep.attempts, 'attempt')}"


def _by_whom(view: View, node: Node) -> str:
    """The jobs that hold the node's slots, as far as they may be named."""
    held: Counter[str] = Counter()
    for grant in node.grants.values():
        job = view.cluster.jobs.get(grant.job)
        name = f"`{grant.job}`" if job is not None and view.known(job) else "others"
        held[name] += grant.open.bit_count() * grant.slots
    parts = [f"{slots} by {name}" for name, slots in held.most_common(MAX_NAMED)]
    return f" ({', '.join(parts)})" if parts else ""


def _of_nodes(view: View, round_: Round, job: Job, group: Group, index: int, lines: list[NodeLine]) -> Iterator[Cause]:
    """What the nodes say together: what passes soonest decides, and before it who goes first there."""
    codes = Counter(line.code for line in lines if line.code is not None)
    order = [code for code in (Code.RESERVED, *OF_OBSTACLE.values()) if code in codes]
    if order and order[0] in (Code.RESERVED, Code.BUSY, Code.CLAIMED) and len(lines) == sum(codes.values()):
        yield from _who_goes_first(view, round_, job)
    for code in order:
        first = next(line for line in lines if line.code is code)
        count = codes[code]
        where = f"node `{first.node}`" if count == 1 else f"{count_of(count, 'node')}, `{first.node}` first"
        yield Cause(code, f"{where}: {first.reason}", first.node)
    before = len(group.again) + index - group.cursor
    if index > group.cursor and before:
        yield Cause(Code.ORDER, f"{count_of(before, 'task')} of `{group.spec.name}` are before it")


def _who_goes_first(view: View, round_: Round, job: Job) -> Iterator[Cause]:
    ahead = [c.job for c in round_.waiting if c.job.spec.priority > job.spec.priority]
    if ahead:
        named = [f"`{other.id}`" for other in ahead if view.known(other)]
        which = f" ({', '.join(named[:MAX_NAMED])})" if named else ""
        yield Cause(Code.PRIORITY, f"tasks of {count_of(len(ahead), 'job')} of higher priority{which} go first")


# ---- how it came to this


def _story(job: Job, group: Group, index: int) -> list[Told]:
    """The latest moments of the task's life, oldest first."""
    told = [Told(job.submitted_at.wall, "its job was submitted")]
    for attempt, node, end in group.history.get(index, []):
        told.append(Told(end.ended_at, f"attempt {attempt} on `{node}`: {how(end)}{_AFTERWARDS[end.verdict]}"))
    return told[:1] + told[1:][-(MAX_STORY - 1) :]


_AFTERWARDS: Final = {
    Verdict.SUCCEEDED: "",
    Verdict.FAILED: ", for good",
    Verdict.RETRY: ", tried again",
    Verdict.LOST: ", which costs it no retry",
    Verdict.DRAINED: ", which costs it no retry",
    Verdict.REQUEUED: ", which costs it no retry",
    Verdict.CANCELLED: ", cancelled",
}
