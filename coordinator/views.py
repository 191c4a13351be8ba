"""What people and programs are shown: the cluster as the plain data of `docs/operations.md`, names fixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from coordinator import readiness
from coordinator.claims import NOTHING, amount_of
from coordinator.cluster import Cluster
from coordinator.model import Drain, Grant, Group, Job, JobState, Node, NodeState, Pool, TaskState
from coordinator.obstacles import why_waiting
from coordinator.preparation import NodeJob, PhaseView
from coordinator.records import Ended, NodeJobState, Verdict
from coordinator.render import duration
from coordinator.whereabouts import Look, is_preparing, with_slot
from wire import signals
from wire.instant import Instant
from wire.messages import Cleanliness, Outcome, Phase
from wire.spec import Elevation

Plain = dict[str, Any]

NODES_LOOKED_AT: Final = 100
_RESULTS = {
    TaskState.SUCCEEDED: "success",
    TaskState.FAILED: "failure",
    TaskState.CANCELLED: "cancelled",
    TaskState.SKIPPED: "skipped",
}


def time_text(wall: float | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    if wall is None:
        return None
    second, part = divmod(wall, 1.0)
    carried, micros = divmod(round(part * 1e6), 1_000_000)
    return f"{_second_text(int(second) + carried)}.{micros // 1000:03}Z"


@lru_cache(maxsize=256)
def _second_text(second: int) -> str:
    """Most of what is told at once happened within a few seconds: their texts are made once."""
    return datetime.fromtimestamp(second, UTC).replace(tzinfo=None).isoformat()


def _at(instant: Instant | None) -> str | None:
    return time_text(instant.wall) if instant is not None else None


# ---- jobs


def job(cluster: Cluster, shown: Job, *, alone: bool = False, look: Look | None = None) -> Plain:
    """What `job show` prints. One of many is not explained where that would mean to look at many nodes for each;
    several of one answer share a `look`."""
    pool = cluster.pools[shown.spec.pool]
    return {
        "id": shown.id,
        "name": shown.spec.name,
        "pool": shown.spec.pool,
        "state": JobState.DELETING.value if shown.deleting else shown.state.value,
        "result": job_result(shown),
        "owner": shown.owner,
        "priority": shown.spec.priority,
        "parallel": shown.spec.parallel,
        "timeout_s": None if shown.spec.timeout_ms is None else shown.spec.timeout_ms / 1000,
        "submitted_at": _at(shown.submitted_at),
        "started_at": _at(shown.started_at),
        "tasks_done_at": _at(shown.tasks_done_at),
        "completed_at": _at(shown.completed_at),
        "end_reason": shown.end_reason,
        "waits": why_waiting(pool, shown) if alone or len(pool.nodes) <= NODES_LOOKED_AT else None,
        "tasks": task_counts(shown, look or Look(cluster)),
        "optional_failed": sum(group.counts[TaskState.FAILED] - group.failed for group in shown.groups),
        "release": release_counts(shown),
    }


def job_result(shown: Job) -> str | None:
    """None until it is completed; success only if all its tasks and all its releases went well."""
    if shown.state is not JobState.COMPLETED:
        return None
    releases = release_counts(shown)
    if any(group.failed for group in shown.groups) or shown.end_reason in (
        "TaskFailed",
        "NoEligibleNodes",
        "MaxWallClockTimeExpiry",
    ):
        return "failure"
    if any(group.counts[TaskState.CANCELLED] for group in shown.groups):
        return "cancelled"
    return "success" if releases["succeeded"] + releases["waived"] == sum(releases.values()) else "failure"


def task_counts(shown: Job, look: Look) -> dict[str, int]:
    """Tasks by state and result. `running` is what has a slot; the rest of what is granted queues and is active."""
    counts = [sum(group.counts[state] for group in shown.groups) for state in TaskState]
    running = preparing = 0
    for name, node_job in shown.current.items() if shown.granted else ():
        out = look.tasks_on(name, shown)
        if is_preparing(node_job):
            preparing += out
        else:
            running += out
    return {
        "total": sum(counts),
        "active": counts[TaskState.ACTIVE] + counts[TaskState.GRANTED] - running - preparing,
        "preparing": preparing,
        "running": running,
        "succeeded": counts[TaskState.SUCCEEDED],
        "failed": counts[TaskState.FAILED],
        "cancelled": counts[TaskState.CANCELLED],
        "skipped": counts[TaskState.SKIPPED],
    }


def release_counts(shown: Job) -> dict[str, int]:
    """Rounds by how their release stands; `owed` is what is still to be paid."""
    by = {"owed": 0, "succeeded": 0, "failed": 0, "unreached": 0, "waived": 0}
    names = {
        NodeJobState.RELEASED: "succeeded",
        NodeJobState.RELEASE_FAILED: "failed",
        NodeJobState.UNREACHED: "unreached",
        NodeJobState.WAIVED: "waived",
    }
    for node_job in shown.rounds:
        by[names.get(node_job.state, "owed")] += 1
    return by


def node_states(shown: Job) -> dict[str, int]:
    """Rounds by their state."""
    return dict(Counter(node_job.state.value for node_job in shown.rounds))


def job_node(node_job: NodeJob, tails: bool = True) -> Plain:
    """A row of what `job nodes` prints; without `tails` the outputs are left empty."""
    return {
        "node": node_job.node,
        "round": node_job.round,
        "boot": node_job.boot,
        "state": node_job.state.value,
        "reason": node_job.reason or node_job.delayed,
        "prep": phase(node_job, Phase.PREPARATION, tails),
        "release": phase(node_job, Phase.RELEASE, tails),
        "tasks_started": node_job.tasks_started,
        "clean": _clean(node_job.release.clean),
    }


def _clean(clean: Cleanliness | None) -> Plain | None:
    """What is left of the job there after its clean-up; None while that is not known."""
    if clean is None:
        return None
    return {
        "processes": clean.processes,
        "files": clean.files,
        "uid": clean.uid,
        "cgroups": clean.cgroups,
        "mounts": clean.mounts,
    }


def phase(node_job: NodeJob, which: Phase, tails: bool = True) -> Plain | None:
    """A PHASE, or None for a preparation the job does not have."""
    view = node_job.preparation if which is Phase.PREPARATION else node_job.release
    if view is None:
        return None
    plain = _phase(view, _phase_state(node_job, view, which), node_job.running.get(which), tails)
    plain["reason"] = view.reason or (node_job.reason if which is Phase.RELEASE else None)
    return plain


def start(shown: Node, tails: bool = True) -> Plain | None:
    """A PHASE: how its pool's start goes on the node in this boot; None where the pool has none."""
    if not shown.pool.start_digest:
        return None
    given = shown.start if shown.start_counts else None
    if given is None:
        return _phase(PhaseView(), "waiting", None, tails)
    over = "succeeded" if given.succeeded else "failed"
    going = "running" if given.running is not None or given.view.attempts else "waiting"
    return _phase(given.view, over if given.view.finished else going, given.running, tails)


def _phase(view: PhaseView, state: str, running: tuple[int, float] | None, tails: bool) -> Plain:
    attempt, since = running or (view.attempts, view.started_at)
    return {
        "state": state,
        "attempts": max(view.attempts, attempt),
        "exit_code": view.exit_code,
        "signal": view.signal,
        "started_at": time_text(since),
        "ended_at": time_text(view.ended_at) if running is None else None,
        "reason": view.reason,
        "stdout_tail": view.stdout_tail.decode("utf-8", "replace") if tails else "",
        "stderr_tail": view.stderr_tail.decode("utf-8", "replace") if tails else "",
        "stdout_size": view.stdout_size,
        "stderr_size": view.stderr_size,
        "leftovers": view.leftovers,
    }


def _phase_state(node_job: NodeJob, view: PhaseView, which: Phase) -> str:
    again = which is Phase.PREPARATION and node_job.state is NodeJobState.PREPARING  # after a reboot
    if view.finished and not again:
        cut = which is Phase.PREPARATION and view.outcome in (Outcome.KILLED, Outcome.LOST)
        return "succeeded" if view.succeeded else "interrupted" if cut else "failed"
    if which is Phase.RELEASE:
        if node_job.state in (NodeJobState.UNREACHED, NodeJobState.WAIVED):
            return str(node_job.state.value)
        return "running" if node_job.state is NodeJobState.RELEASING else "owed"
    if node_job.state is NodeJobState.PREPARING or which in node_job.running:
        return "running"
    return "interrupted" if view.attempts or node_job.state is not NodeJobState.ABSENT else "waiting"


# ---- tasks


def task(look: Look, shown: Job, group: Group, index: int, history: bool = False) -> Plain:
    """What `task list` and, with `history`, `task show` print."""
    state = TaskState(group.state[index])
    grant = group.out.get(index)
    last = group.history.get(index, [(0, "", None)])[-1]
    end: Ended | None = last[2] if state is not TaskState.SUCCEEDED or group.finished is None else None
    result = _RESULTS.get(state)
    plain: Plain = {
        "id": f"{shown.id}/{group.sweep.label(index)}",
        "job": shown.id,
        "group": group.spec.name,
        "index": index,
        "params": dict(zip(group.sweep.names, group.sweep.values(index), strict=True)),
        "state": look.state(shown, group, index),
        "result": result,
        "exit_code": _exit_code(state, last[2]),
        "signal": end.signal if end else None,
        "attempts": _attempts(group, index, state, grant),
        "node": grant.node if grant else (last[1] or None),
        "created_at": _at(shown.submitted_at),
        "started_at": time_text(grant.running.get(grant.position(index))) if grant else None,
        "ended_at": None,
        "reason": _task_reason(shown, group, index, state, end),
        "usage": None,
    }
    if state in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED) and group.finished is not None:
        _fill_finished(shown, group, index, plain)
    if history:
        plain["history"] = _history(shown, group, index, plain)
    return plain


def _attempts(group: Group, index: int, state: TaskState, grant: Grant | None) -> int:
    if grant is not None:
        return grant.attempt
    attempt = group.attempts.get(index, 1)
    if state in (TaskState.SUCCEEDED, TaskState.FAILED):
        return attempt
    if state is TaskState.CANCELLED and group.finished is not None and group.finished.started_at[index]:
        return attempt
    return attempt - 1


def _fill_finished(shown: Job, group: Group, index: int, plain: Plain) -> None:
    columns = group.finished
    if columns is None or not columns.started_at[index]:
        return
    started, wall = columns.started_at[index], round(columns.wall_s[index], 6)
    names = list(shown.node_numbers)
    plain["node"] = names[columns.node[index]]
    plain["started_at"], plain["ended_at"] = time_text(started), time_text(started + wall)
    plain["usage"] = {
        "cpu_s": round(columns.cpu_s[index], 6),
        "max_rss_bytes": columns.max_rss_kib[index] << 10,
        "wall_s": wall,
    }


def _exit_code(state: TaskState, last: Ended | None) -> int | None:
    """Of the last end. A success that is not remembered was a plain one."""
    if last is None:
        return 0 if state is TaskState.SUCCEEDED else None
    return last.exit_code


def _task_reason(shown: Job, group: Group, index: int, state: TaskState, end: Ended | None) -> str | None:
    if state is TaskState.SKIPPED:
        return readiness.why_skipped(shown, group, index) or group.skip_reason
    if state is TaskState.CANCELLED and index in group.cancelled:
        return group.cancelled[index]
    if end is None:
        return "its job was ended" if state is TaskState.CANCELLED else None
    return end_sentence(end)


def end_sentence(end: Ended) -> str | None:
    """How an attempt ended, in words; None for a success."""
    if end.outcome is Outcome.EXITED:
        if end.signal is not None:
            return end.reason or f"killed by {signals.told(end.signal)}"
        if end.exit_code == 0 and end.verdict is Verdict.SUCCEEDED:
            return None
        return end.reason or f"exit code {end.exit_code}"
    return end.reason or {
        Outcome.TIMED_OUT: "stopped by its timeout",
        Outcome.START_FAILED: "could not be started",
        Outcome.LOST: "lost with the process that ran it",
        Outcome.KILLED: "killed with its job",
        Outcome.OOM: "killed for using more memory than it was given",
        Outcome.INPUT_FAILED: "its files could not be brought in",
    }.get(end.outcome)


def _history(shown: Job, group: Group, index: int, plain: Plain) -> list[Plain]:
    entries = [
        {
            "attempt": attempt,
            "node": node,
            "outcome": end.outcome.value,
            "verdict": end.verdict.value,
            "exit_code": end.exit_code,
            "signal": end.signal,
            "started_at": time_text(end.started_at or None),
            "ended_at": time_text(end.ended_at),
            "reason": end_sentence(end),
        }
        for attempt, node, end in group.history.get(index, [])
    ]
    if not entries and plain["result"] == "success":
        entries.append(
            {
                "attempt": 1,
                "node": plain["node"],
                "outcome": Outcome.EXITED.value,
                "verdict": "succeeded",
                "exit_code": 0,
                "signal": None,
                "started_at": plain["started_at"],
                "ended_at": plain["ended_at"],
                "reason": None,
            }
        )
    return entries


# ---- nodes and pools


def node(shown: Node, now: Instant, owes: list[str], tails: bool = False) -> Plain:
    """What `node show` prints; `owes` as far as whoever asks may know. `tails`: with what its start wrote last."""
    join = shown.join
    return {
        "id": shown.name,
        "pool": shown.pool.name,
        "state": shown.state.value,
        "reason": _node_reason(shown, now),
        "boot": shown.boot,
        "slots": shown.slots,
        "slots_used": min(shown.used, shown.slots),
        "resources": _resources(shown),
        "labels": dict(join.labels) if join else {},
        "elevation": bool(join and join.elevation),
        "containment": join.containment if join else None,
        "limits": list(join.limits) if join else [],
        "users": join.users if join else None,
        "version": join.version if join else None,
        "last_seen_s": round(max(0.0, now.boottime - shown.heard_at), 1),
        "start": start(shown, tails),
        "drain": _drain(shown.drain),
        "owes": owes,
    }


def _drain(drain: Drain | None) -> Plain | None:
    if drain is None:
        return None
    return {
        "by": drain.by,
        "reason": drain.reason or None,
        "since": _at(drain.since),
        "deadline": _at(drain.until),
        "drained_at": _at(drain.done_at),
    }


def quarantined(cluster: Cluster, shown: Node, known: Callable[[Job], bool]) -> list[Plain]:
    """Users of jobs that are nobody's on the node until nothing of their jobs is left, as their releases reported."""
    held = [job for job in cluster.jobs.values() if shown.name in job.node_numbers and known(job)]
    rounds = [(job, entry) for job in held for entry in job.rounds if entry.node == shown.name]
    return [
        {"uid": clean.uid, "job": job.id, "round": entry.round}
        for job, entry in rounds
        if (clean := entry.release.clean) is not None and clean.uid is not None
    ]


def _resources(shown: Node) -> Plain:
    """What the node offers beside slots, and how much of it running tasks hold."""
    held = NOTHING
    for grant, positions in with_slot(shown) if shown.claimed != NOTHING else ():
        held = held.plus(grant.claim or NOTHING, len(positions))
    held = held.plus(shown.reserved, 1)
    offered = shown.join.resources if shown.join is not None else {}
    return {name: {"total": total, "used": amount_of(name, held.get(name, 0))} for name, total in offered.items()}


def _node_reason(shown: Node, now: Instant) -> str | None:
    """What to know of its state; what an administrator must look at comes before what operators did."""
    if shown.left:
        return _why_left(shown)
    parts = [
        "out of contact" if shown.state is NodeState.LOST else None,
        shown.alarm if shown.state is not NodeState.LOST else None,
        "it is leaving" if shown.leaving else None,
        why_drained(shown.drain) if shown.drain is not None else None,
        shown.unusable,
        _why_held_back(shown),
        why_resting(shown, now),
    ]
    return "; ".join(part for part in parts if part is not None) or None


def _why_held_back(shown: Node) -> str | None:
    if shown.held_back is NodeState.START_FAILED and shown.start is not None:
        return f"its pool's start failed: {shown.start.view.said}"
    return None


def why_resting(shown: Node, now: Instant) -> str | None:
    """That it is given nothing for a while, or None."""
    if shown.rests_until is None:
        return None
    left_s = duration(max(0.0, shown.rests_until - now.boottime))
    times = f"{shown.fruitless} times in a row"
    return f"what it was given came to nothing {times}: it is given nothing for another {left_s}"


def _why_left(shown: Node) -> str:
    if shown.revoked:
        return "revoked"
    if shown.forgotten_by is not None:
        return f"forgotten by {shown.forgotten_by}"
    return "it left clean" if shown.drain is None else f"it left clean; {why_drained(shown.drain)}"


def why_drained(drain: Drain) -> str:
    """By whom, and for what."""
    return f"drained by {drain.by}" + (f": {drain.reason}" if drain.reason else "")


def pool(shown: Pool, jobs: list[str]) -> Plain:
    """What `pool show` prints; `jobs` as far as whoever asks may know."""
    options = shown.options
    live = [entry for entry in shown.nodes.values() if not entry.left]
    return {
        "id": shown.name,
        "nodes": len(live),
        "nodes_ready": sum(entry.takes_work for entry in live),
        "nodes_wanted": options.nodes,
        "slots": sum(entry.slots for entry in live),
        "slots_used": sum(min(entry.used, entry.slots) for entry in live),
        "slots_per_node": options.slots or 1,
        "placement": shown.placement.value,
        "sharing": shown.sharing.value,
        "elevation": (options.elevation or Elevation.FORBIDDEN).value,
        "lost_after_s": shown.lost_after_s,
        "jobs": jobs,
    }
