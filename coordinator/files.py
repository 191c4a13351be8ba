"""Files and logs on nodes: a person's request becomes one to the node, and the node's answer the person's.

One piece at a time is asked for, so whoever reads slowly holds nothing up but himself; when either session ends the
relay ends with it.
"""

from __future__ import annotations

from typing import Final

from coordinator import access
from coordinator.desk import Desk
from coordinator.finding import RefusedError, check_own, find_job, find_node, find_own_job, find_task
from coordinator.model import Job, Node, TaskState
from coordinator.preparation import NodeJob
from coordinator.sessions import Relay, Session
from wire import messages as m
from wire.limits import MAX_CHUNK

Plain = dict[str, object]

MAX_RELAYS: Final = 256
"""Requests to nodes under way at once."""
MAX_RELAYS_EACH: Final = 32
"""Of one connection: a node that never answers must not let one person take everybody's."""
MAX_PATH: Final = 4096
MAX_PART: Final = 255
"""Bytes of a path, and of one name in it, as the kernel takes them."""


def read_file(desk: Desk, session: Session, message: m.FilesRead) -> None:
    """`files cat`: a piece of a file below the node's root, for those whom it concerns."""
    node = find_node(desk, message.node)
    path = _permitted(desk, session, node, message.path)
    _ask_read(desk, session, message.request, node, path, message.offset, message.limit, None)


def list_files(desk: Desk, session: Session, message: m.FilesList) -> None:
    """`files ls`."""
    node = find_node(desk, message.node)
    path = _permitted(desk, session, node, message.path)
    relay = _open(desk, session, message.request, node, None)
    if relay is not None:
        desk.send(node.session, m.ListFiles(relay, path))


def _permitted(desk: Desk, session: Session, node: Node, path: str) -> str:
    """The path, written plainly, if the session may read there: a job's tree as its logs, what is shared as who may
    look at the pool's jobs, all else as an operator. Raises RefusedError."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    longest = max((len(part.encode()) for part in parts), default=0)
    if path.startswith("/") or ".." in parts or "\0" in path or longest > MAX_PART or len(path.encode()) > MAX_PATH:
        raise RefusedError(
            m.RefusalCode.INVALID,
            f"{path[:200]!r} is no path on a node: it is relative to the node's root directory and holds no `..`",
        )
    job = desk.cluster.jobs.get(parts[1]) if parts[:1] == ["workitems"] and len(parts) > 1 else None
    pool = node.pool.name
    if job is not None:
        check_own(desk, session, find_job(desk, session, job.id))
    elif not access.may_operate(desk, session, pool):
        if len(parts) > 1 and parts[0] == "workitems":
            find_job(desk, session, parts[1])
        if parts[:1] != ["shared"] or not desk.policy.may_look(session.owner, session.role, pool):
            raise RefusedError(
                m.RefusalCode.REFUSED,
                f"`{'/'.join(parts) or '.'}` on node `{node.name}` is for the operators of pool `{pool}`",
                way_out="`workitems/JOB` of your own jobs and `shared` can be read",
            )
    return "/".join(parts) or "."


def read_log(desk: Desk, session: Session, message: m.LogRead) -> None:
    """`logs`: a piece of a command's output, wherever the node is, or what was kept of it."""
    name = "stderr.txt" if message.stderr else "stdout.txt"
    if message.task is not None:
        node, directory = _task_directory(desk, session, message)
        kept = None
    else:
        node_job, node, directory = _phase_directory(desk, session, message)
        view = node_job.preparation if message.phase is m.Phase.PREPARATION else node_job.release
        tail = (
            (view.stderr_tail if message.stderr else view.stdout_tail) if view is not None and view.finished else None
        )
        kept = _kept(tail, message.offset, message.limit) if tail is not None else None
    _ask_read(desk, session, message.request, node, f"{directory}/{name}", message.offset, message.limit, kept)


def _task_directory(desk: Desk, session: Session, message: m.LogRead) -> tuple[Node, str]:
    job, group, index = find_task(desk, session, message.task or "")
    check_own(desk, session, job)
    where = _attempts(desk, job, group.number, index)
    if not where:
        raise RefusedError(
            m.RefusalCode.FAILED, f"task `{job.id}/{group.sweep.label(index)}` has not started: there is no output yet"
        )
    attempt = message.attempt if message.attempt is not None else max(where)
    if attempt not in where:
        known = ", ".join(str(number) for number in sorted(where))
        raise RefusedError(m.RefusalCode.UNKNOWN, f"there is no attempt {attempt} of it here; there are {known}")
    directory = f"workitems/{job.id}/{group.sweep.task_id(index)}"
    return desk.cluster.nodes[where[attempt]], directory + (f"/attempt-{attempt}" if attempt > 1 else "")


def _attempts(desk: Desk, job: Job, group_number: int, index: int) -> dict[int, str]:
    """Attempt numbers of a task with their nodes, as far as they are remembered."""
    group = job.groups[group_number]
    where = {attempt: node for attempt, node, _ in group.history.get(index, [])}
    if group.state[index] == TaskState.GRANTED:
        for node in desk.cluster.nodes.values():
            for grant in node.grants.values():
                position, off = divmod(index - grant.first, grant.step)
                mine = grant.job == job.id and grant.group == group_number
                if mine and off == 0 and 0 <= position < grant.count and grant.is_open(position):
                    where[grant.attempt] = node.name
    elif group.finished is not None and group.finished.started_at[index]:
        where[group.attempts.get(index, 1)] = list(job.node_numbers)[group.finished.node[index]]
    return where


def _phase_directory(desk: Desk, session: Session, message: m.LogRead) -> tuple[NodeJob, Node, str]:
    if message.job is None or message.node is None or message.phase not in (m.Phase.PREPARATION, m.Phase.RELEASE):
        raise RefusedError(m.RefusalCode.INVALID, "name a task, or a job with --node NODE and --phase prep or release")
    job = find_own_job(desk, session, message.job)
    node_job = job.current.get(message.node)
    node_job = node_job or next((entry for entry in reversed(job.rounds) if entry.node == message.node), None)
    if node_job is None:
        find_node(desk, message.node)
        touched = list(job.node_numbers)
        raise RefusedError(m.RefusalCode.UNKNOWN, f"job `{job.id}` started nothing on `{message.node}`", touched)
    view = node_job.preparation if message.phase is m.Phase.PREPARATION else node_job.release
    if view is None:
        raise RefusedError(m.RefusalCode.FAILED, f"job `{job.id}` has no preparation")
    attempt = message.attempt or max(1, node_job.running.get(message.phase, (view.attempts, 0.0))[0])
    directory = f"workitems/{job.id}/{'jobpreparation' if message.phase is m.Phase.PREPARATION else 'jobrelease'}"
    return node_job, desk.cluster.nodes[message.node], directory + (f"/attempt-{attempt}" if attempt > 1 else "")


# ---- the relay


def _ask_read(
    desk: Desk, session: Session, request: int, node: Node, path: str, offset: int, limit: int, kept: Plain | None
) -> None:
    relay = _open(desk, session, request, node, kept)
    if relay is not None:
        desk.send(node.session, m.ReadFile(relay, path, offset, max(0, min(limit, MAX_CHUNK))))


def _open(desk: Desk, session: Session, request: int, node: Node, kept: Plain | None) -> int | None:
    if node.session is None or not node.joined:
        if kept is None:
            raise RefusedError(
                m.RefusalCode.FAILED, f"node `{node.name}` is out of contact: its files can't be read now"
            )
        desk.send(session.epoch, m.Reply(request, kept))
        return None
    mine = sum(relay.session == session.epoch for relay in desk.relays.values())
    if len(desk.relays) >= MAX_RELAYS or mine >= MAX_RELAYS_EACH:
        raise RefusedError(m.RefusalCode.REFUSED, "too many files are being read just now: try again")
    desk.last_relay += 1
    desk.relays[desk.last_relay] = Relay(session.epoch, request, node.name, node.session, kept)
    return desk.last_relay


def _kept(tail: bytes, offset: int, limit: int) -> Plain:
    """The piece asked for, as if what was kept of the output were all of it."""
    first = min(len(tail), offset) if offset >= 0 else max(0, len(tail) + offset)
    content = tail[first : first + max(0, min(limit, MAX_CHUNK))]
    return {"content": content, "size": len(tail), "end": first + len(content) == len(tail), "kept": True}


def answer(desk: Desk, node: Node, message: m.FileContents | m.FileListing | m.FileRefused) -> None:
    """A node answered: if it is the one that was asked, whoever asked is told."""
    relay = desk.relays.get(message.request)
    if relay is None or relay.node_session != node.session:
        return
    del desk.relays[message.request]
    match message:
        case m.FileContents(_, content, size, end):
            desk.send(relay.session, m.Reply(relay.request, {"content": content, "size": size, "end": end}))
        case m.FileListing(_, entries, truncated):
            listed = [
                {"name": name, "directory": directory, "size": size, "changed_at": changed}
                for name, directory, size, changed in entries
            ]
            desk.send(relay.session, m.Reply(relay.request, {"entries": listed, "truncated": truncated}))
        case m.FileRefused(_, reason, missing):
            if relay.kept is not None:
                desk.send(relay.session, m.Reply(relay.request, relay.kept))
                return
            code = m.RefusalCode.UNKNOWN if missing else m.RefusalCode.FAILED
            desk.refuse(relay.session, relay.request, code, f"{relay.node}: {reason}")
