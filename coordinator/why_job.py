"""Why a job is as it is: what its first waiting tasks wait for, what its end still owes, and how it came to this."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from coordinator import why, work
from coordinator.ending import ALL_COMPLETE, ELIGIBLE_GRACE_S, NO_NODES, TASK_FAILED
from coordinator.model import Grant, Group, Job, JobState, Node, TaskState
from coordinator.obstacles import held_back
from coordinator.preparation import OPEN, NodeJob
from coordinator.reasons import Cause, Code, Explanation, Told, dominant_first
from coordinator.records import NodeJobState
from coordinator.render import count_of, duration
from coordinator.views import job_result
from coordinator.why import View
from wire import signals
from wire.arms import first_match
from wire.messages import Disabling, Phase
from wire.spec import ExitAction, Finish

MAX_GROUPS: Final = 10
"""Groups of which a waiting task is looked at."""
MAX_LOOKS: Final = 20_000
"""Nodes that are looked at for all of them: nobody else is answered meanwhile."""
MAX_ROUNDS: Final = 100
"""Releases that are told one by one."""


def job(view: View, shown: Job) -> Explanation:
    """Why the job is as it is."""
    found = Explanation(shown.id, [])
    causes: list[Cause] = []
    if shown.deleting:
        causes.append(Cause(Code.DELETING, _deleting(view, shown)))
    if shown.state is JobState.COMPLETED:
        causes += _completed(view, shown)
    elif shown.state is JobState.TERMINATING:
        causes += _ending(view, shown)
    else:
        causes += _active(view, shown, found)
    found.causes = dominant_first(causes)
    found.story = why.latest(list(_story(shown)))
    return found


def _deleting(view: View, shown: Job) -> str:
    if shown.state is not JobState.COMPLETED:
        return "it is deleted as soon as it has ended"
    if shown.owes_call:
        return "it is deleted when its `on_end` was run"
    nodes = [f"`{name}`" for name in sorted(view.desk.removing.get(shown.id, ()))]
    some = f" ({', '.join(nodes[: why.MAX_NAMED])})" if nodes else ""
    return f"it is deleted: {count_of(len(nodes), 'node')}{some} still to remove its directories"


# ---- active


def _active(view: View, shown: Job, found: Explanation) -> Iterator[Cause]:
    if (reason := held_back(shown)) is not None:
        yield _disabled(shown, reason)
    if shown.tasks_over and shown.spec.finish is Finish.MANUAL:
        yield Cause(Code.OPEN, "all its tasks are over, and `finish = manual` keeps it open")
    if shown.ineligible_since is not None:
        left = duration(ELIGIBLE_GRACE_S - view.now.seconds_since(shown.ineligible_since))
        barred = next((name for name, r in shown.current.items() if r.state is NodeJobState.BARRED), None)
        what = "its preparation" if barred is not None else "the pool's start"
        sentence = f"{what} failed on every node that could run it: it ends as {NO_NODES} in {left}"
        yield Cause(Code.INELIGIBLE, sentence, barred)
    if shown.granted:
        yield from _out(view, shown)
    nodes = len(view.cluster.pools[shown.spec.pool].nodes)
    groups = max(1, min(MAX_GROUPS, MAX_LOOKS // max(1, nodes)))
    for group in islice((group for group in shown.groups if group.counts[TaskState.ACTIVE]), groups):
        yield _first_waiting(view, shown, group, found)
    yield from _owed(view, shown)


def _disabled(shown: Job, reason: str) -> Cause:
    """It is, or is about to be: then some of it is still out."""
    if shown.disabled is None or shown.state is not JobState.DISABLING:
        return Cause(Code.DISABLED, reason.replace("its job", "it", 1))
    what = "to run to the end" if shown.disabled.how is Disabling.WAIT else "to be stopped"
    how = f"`job disable --{shown.disabled.how.value}`"
    sentence = f"it is being disabled by {shown.disabled.by}: {count_of(shown.granted, 'task')} of it {what} ({how})"
    return Cause(Code.DISABLING, sentence)


def _out(view: View, shown: Job) -> Iterator[Cause]:
    """What nodes have of it: by how it stands with them, and where one such task is."""
    found: dict[Code, list[Grant]] = {}
    for grant in work.grants_of(view.desk, shown):
        found.setdefault(why.how_out(view, shown, grant), []).append(grant)
    for code, grants in found.items():
        first = grants[0]
        tasks, nodes = sum(grant.open.bit_count() for grant in grants), len({grant.node for grant in grants})
        what = f"{count_of(tasks, 'task')} of it {'is' if tasks == 1 else 'are'} out on {count_of(nodes, 'node')}"
        if said := why.out(view, shown, first, code):
            what += f"{f', `{first.node}` first' if nodes > 1 else ''}: {said}"
        label = shown.groups[first.group].sweep.label(first.index(first.open_positions()[0]))
        yield Cause(code, what, first.node, f"{shown.id}/{label}")


def _first_waiting(view: View, shown: Job, group: Group, found: Explanation) -> Cause:
    """The first task of the group that could run stands for the others; where none could, the first."""
    one = Explanation("", [])
    index = group.state.index(TaskState.ACTIVE)
    if shown.conditions_hold(group) and group.has_ready:
        again = group.ready_again()
        index = group.first_ready() if again is None else again
    why.waiting(view, shown, group, index, one)
    tasks = f"`{group.spec.name}`: {group.counts[TaskState.ACTIVE]:,} of {count_of(group.size, 'task')} wait"
    first = one.causes[0]
    if not found.nodes:
        found.nodes, found.left_out = one.nodes, one.left_out
    if first.code in (Code.DISABLED, Code.DISABLING):  # which is told of the job
        return Cause(first.code, tasks)
    about = first.about or f"{shown.id}/{group.sweep.label(index)}"
    return Cause(first.code, f"{tasks}: {first.reason}", first.node, about)


def _owed(view: View, shown: Job) -> Iterator[Cause]:
    """Releases of nodes that are emptied, or that nobody hopes for, while the job goes on."""
    yield from _late(view, shown)
    due = (r for r in shown.rounds if r.state in OPEN and r.state is not NodeJobState.RELEASING)
    for node_job in islice((r for r in due if _is_emptied(view, shown, r)), MAX_ROUNDS):
        yield _release(view, shown, node_job)
    yield from _debts(view, shown, NodeJobState.UNREACHED)


def _is_emptied(view: View, shown: Job, node_job: NodeJob) -> bool:
    """Whether nothing but its turn, or its node's return, keeps a drained node from being released."""
    node = view.cluster.nodes[node_job.node]
    return node.draining and not any(grant.job == shown.id for grant in node.grants.values())


def _late(view: View, shown: Job) -> Iterator[Cause]:
    """Releases under way that end no job: it goes on, or was completed without them."""
    for node_job in islice((r for r in shown.rounds if r.state is NodeJobState.RELEASING), MAX_ROUNDS):
        yield _release(view, shown, node_job)


# ---- ending


def _ending(view: View, shown: Job) -> Iterator[Cause]:
    for node_job in islice((r for r in shown.rounds if r.state in OPEN), MAX_ROUNDS):
        yield _release(view, shown, node_job)
    out = f": {count_of(shown.granted, 'task')} of it still to come back" if shown.granted else ""
    yield Cause(Code.ENDING, f"it ends ({shown.end_reason}){out}")
    yield from _debts(view, shown, NodeJobState.UNREACHED)


def _release(view: View, shown: Job, node_job: NodeJob) -> Cause:
    node = view.cluster.nodes[node_job.node]
    if not node.connected and shown.state is not JobState.TERMINATING:
        silent = duration(view.now.boottime - node.heard_at)
        sentence = f"node `{node.name}` still owes its release, and is out of contact for {silent}"
        return Cause(Code.RELEASE_OWED, sentence, node.name)
    if not node.connected:
        return Cause(Code.RELEASE_OUT_OF_CONTACT, _grace(view, shown, node), node.name)
    if node_job.state is not NodeJobState.RELEASING:
        limit = shown.spec.release.parallel if shown.spec.release is not None else None
        allowed = f"`release` allows {count_of(limit, 'node')} at once" if limit is not None else "it is next"
        return Cause(Code.RELEASE_WAITS, f"node `{node.name}` owes its release: {allowed}", node.name)
    if node_job.delayed is not None:
        return Cause(Code.RELEASE_STUCK, f"node `{node.name}`: {node_job.delayed}", node.name)
    attempt, since = node_job.running.get(Phase.RELEASE, (node_job.release.attempts + 1, None))
    so_far = f" for {duration(view.now.wall - since)}" if since is not None else ""
    failed = f"; attempt {attempt - 1} failed: {node_job.release.said}" if attempt > 1 else ""
    return Cause(Code.RELEASE_RUNS, f"its release runs on node `{node.name}`{so_far}{failed}", node.name)


def _grace(view: View, shown: Job, node: Node) -> str:
    silent = view.now.boottime - node.heard_at
    ended = view.now.seconds_since(shown.ending_at) if shown.ending_at is not None else 0.0
    left = max(0.0, shown.spec.release_grace_ms / 1000 - min(silent, ended))
    return (
        f"node `{node.name}` owes its release and is out of contact for {duration(silent)}: "
        f"the job completes without it in {duration(left)}"
    )


# ---- ended


def _completed(view: View, shown: Job) -> Iterator[Cause]:
    """What is still to be done about it, what went wrong in it, and how it ended."""
    yield from _on_end(view, shown)
    yield from _late(view, shown)
    for state in (NodeJobState.UNREACHED, NodeJobState.RELEASE_FAILED, NodeJobState.WAIVED):
        yield from _debts(view, shown, state)
    early = list(_ended_early(shown))
    yield from early
    if failed := sum(group.failed for group in shown.groups):
        yield _failed(shown, failed)
    if cancelled := sum(group.counts[TaskState.CANCELLED] for group in shown.groups):
        yield Cause(Code.TASKS_CANCELLED, f"tasks of it were cancelled: {cancelled:,}")
    skipped = sum(group.counts[TaskState.SKIPPED] for group in shown.groups)
    well = job_result(shown) == "success"
    if skipped and not well:
        yield Cause(Code.TASKS_SKIPPED, f"tasks of it were skipped: {skipped:,}")
    if not early:
        alike = f"; skipped by their own conditions: {skipped:,}" if skipped and well else ""
        yield Cause(Code.COMPLETED, f"it is completed ({shown.end_reason}){alike}")


def _ended_early(shown: Job) -> Iterator[Cause]:
    """What ended it while tasks were left, where that was no failure of tasks that count."""
    if shown.end_reason == NO_NODES or (shown.end_reason == TASK_FAILED and shown.stopped):
        yield from _ended_by(shown)
    elif shown.end_reason not in (ALL_COMPLETE, TASK_FAILED) and _had_tasks_left(shown):
        yield Cause(Code.ENDED_EARLY, f"it was ended before all its tasks were done: {shown.end_reason}")


def _had_tasks_left(shown: Job) -> bool:
    """`finish = manual` keeps a job open when nothing is left of it to do."""
    cancelled = any(group.counts[TaskState.CANCELLED] for group in shown.groups)
    done, ended = shown.tasks_done_at, shown.ending_at
    return cancelled and (done is None or ended is None or ended.seconds_since(done) <= 0)


def _ended_by(shown: Job) -> Iterator[Cause]:
    """Its preparation, or the task that an arm of `exit` lets end it."""
    no_nodes, prep = shown.end_reason == NO_NODES, shown.preparation
    for node_job in reversed(shown.rounds):
        view = node_job.preparation
        if prep is None or view is None or view.outcome is None or view.succeeded or not view.finished:
            continue
        arm = first_match(prep.command.arms, view.outcome, view.exit_code, view.signal)
        stops = arm is not None and prep.command.arms[arm].action is ExitAction.STOP
        if node_job.reopened == shown.reopened and (no_nodes or stops):
            ended = "no node was left for it" if no_nodes else "it was ended, as an arm of `exit` says"
            failed = f"its preparation failed on node `{node_job.node}`: {view.said}"
            yield Cause(Code.PREP_FAILED, f"{ended}: {failed}", node_job.node)
            return
    if no_nodes:
        yield Cause(Code.INELIGIBLE, "no node was left for it: the pool's start failed on every node")
    for group in shown.groups:
        for index, entries in islice(reversed(group.history.items()), MAX_LOOKS):
            if group.state[index] == TaskState.FAILED and group.stops(entries[-1][2].arm):
                label, end = group.sweep.label(index), entries[-1][2]
                told = f"`{label}` ended it, as an arm of its `exit` says: {why.how(end)}"
                yield Cause(Code.TASKS_FAILED, told, about=f"{shown.id}/{label}")
                return


def _on_end(view: View, shown: Job) -> Iterator[Cause]:
    """Its `on_end`, while that is not over, and when it failed."""
    last = shown.end_call
    failed = None if last is None else last.reason or (
        signals.told(last.signal) if last.signal is not None else f"exit code {last.exit_code}"
    )  # fmt: skip
    if not shown.owes_call:
        if last is not None and last.exit_code != 0:
            attempts = count_of(last.attempt, "attempt")
            yield Cause(Code.ON_END_FAILED, f"its `on_end` failed: {failed}, {attempts}")
    elif last is None or last.retry_at is None:
        yield Cause(Code.ON_END, "its `on_end` runs")
    else:
        left_s = max(0.0, view.now.seconds_until(last.retry_at))
        again = f"it is tried again in {duration(left_s)}" if left_s else "it runs again"
        yield Cause(Code.ON_END, f"its `on_end` failed at attempt {last.attempt} ({failed}): {again}")


def _debts(view: View, shown: Job, state: NodeJobState) -> Iterator[Cause]:
    """Rounds that were not paid, paid badly, or given up."""
    for node_job in islice((r for r in shown.rounds if r.state is state), MAX_ROUNDS):
        where, node = f"node `{node_job.node}`", view.cluster.nodes[node_job.node]
        unpayable = (shown.id, node_job.round) not in node.owes
        if state is NodeJobState.RELEASE_FAILED:
            yield Cause(Code.RELEASE_FAILED, f"its release failed on {where}: {node_job.release.said}", node_job.node)
        elif state is NodeJobState.WAIVED or unpayable:
            reason = node_job.reason or "it was given up"
            yield Cause(Code.RELEASE_WAIVED, f"{where} never released it: {reason}", node_job.node)
        else:
            code = Code.RELEASE_STUCK if node.connected and shown.id in node.stuck else Code.RELEASE_OWED
            sentence = f"{where} still owes its release: {node_job.reason or 'it was not reached'}"
            yield Cause(code, sentence, node_job.node)


def _failed(shown: Job, count: int) -> Cause:
    group = next(group for group in shown.groups if group.failed)
    index = group.state.index(TaskState.FAILED)
    end = group.history[index][-1][2] if index in group.history else None
    label = group.sweep.label(index)
    sentence = f"{count_of(count, 'task')} failed for good, first in order `{label}`: {why.how(end)}"
    return Cause(Code.TASKS_FAILED, sentence, about=f"{shown.id}/{label}")


# ---- how it came to this


def _story(shown: Job) -> Iterator[Told]:
    yield Told(shown.submitted_at.wall, "it was submitted")
    if shown.started_at is not None:
        yield Told(shown.started_at.wall, "its first task was handed out")
    if shown.reopened:
        yield why.reopened(shown)
    if shown.disabled is not None:
        yield Told(shown.disabled.since.wall, f"{shown.disabled.by} disabled it (`--{shown.disabled.how.value}`)")
    for node_job in shown.rounds:
        yield from _of_phases(node_job)
    if shown.tasks_done_at is not None:
        yield Told(shown.tasks_done_at.wall, "its tasks were over")
    if shown.ending_at is not None:
        yield Told(shown.ending_at.wall, f"it was ended: {shown.end_reason}")
    if shown.completed_at is not None:
        yield Told(shown.completed_at.wall, "it was completed")


def _of_phases(node_job: NodeJob) -> Iterator[Told]:
    for name, seen in (("preparation", node_job.preparation), ("release", node_job.release)):
        if seen is not None and seen.ended_at is not None:
            how = "succeeded" if seen.succeeded else f"failed: {seen.said}"
            again = "" if node_job.round == 1 else f" (round {node_job.round})"
            yield Told(seen.ended_at, f"its {name} on `{node_job.node}`{again} {how}")
