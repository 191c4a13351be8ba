"""Output of commands: whose it is, which node has it, and how the attempt that writes it stands.

Who follows is answered when there is more: the node waits for it, and is asked anew when the attempt has ended or the
node is back. What the node has no more comes from what was kept.
"""

from __future__ import annotations

from typing import Final

import msgspec

from coordinator import access, plausible
from coordinator.desk import Desk
from coordinator.files import Plain, ask_read, check_room, in_contact
from coordinator.finding import RefusedError, check_own, find_node, find_own_job, find_task
from coordinator.model import OVER, Group, Job, Node, TaskState
from coordinator.plausible import MAX_TAIL
from coordinator.preparation import NodeJob, PhaseView
from coordinator.records import NodeJobState
from coordinator.sessions import Follow, Instead, KeptOutput, Lookup, OutputsSaid, Session
from wire import messages as m
from wire.limits import MAX_CHUNK

MAX_OUTPUTS: Final = 1000
"""In one message of a node."""


class Source(msgspec.Struct, frozen=True):
    """One attempt's output. `over`: nothing more is written; `last`: no other attempt follows, as far as is known."""

    node: str
    directory: str
    attempt: int
    over: bool
    last: bool
    task: tuple[str, int, int] | None = None
    """(job, group, index)"""
    kept: m.KeptStream | None = None
    """What was kept of a phase's output."""


def read_log(desk: Desk, session: Session, message: m.LogRead) -> None:
    """`logs`: a piece of a command's output, wherever the node is, or what was kept of it."""
    if message.follow:
        check_room(desk, session.epoch)
        follow = Follow(session.epoch, message)
        desk.follows.append(follow)
        _advance(desk, session, follow)
        return
    source = _source(desk, session, message)
    if source is None:
        name = _name_of(desk, session, message)
        raise RefusedError(m.RefusalCode.FAILED, f"{name} has not started: there is no output yet")
    _read(desk, session.epoch, message, source)


def _name_of(desk: Desk, session: Session, message: m.LogRead) -> str:
    if message.task is None:
        return f"the start of node `{message.node}`"
    job, group, index = find_task(desk, session, message.task or "")
    return f"task `{job.id}/{group.sweep.label(index)}`"


# ---- whose output


def _source(desk: Desk, session: Session, message: m.LogRead) -> Source | None:
    """Where the output is; None: what it is of has not begun. Raises RefusedError."""
    if message.task is not None:
        return _of_task(desk, session, message)
    if message.phase is m.Phase.START:
        return _of_start(desk, session, message)
    return _of_phase(desk, session, message)


def _of_task(desk: Desk, session: Session, message: m.LogRead) -> Source | None:
    job, group, index = find_task(desk, session, message.task or "")
    check_own(desk, session, job)
    where = attempts_of(job, group, index)
    over = group.state[index] in OVER
    attempt = message.attempt if message.attempt is not None else max(where, default=0)
    if attempt not in where:
        comes = not over and attempt > max(where, default=0)
        if not where and (message.attempt is None or comes):
            if over and message.follow:
                raise RefusedError(
                    m.RefusalCode.FAILED, f"task `{job.id}/{group.sweep.label(index)}` is over and never started"
                )
            return None
        if comes and message.follow:
            return None
        known = ", ".join(str(number) for number in sorted(where))
        raise RefusedError(m.RefusalCode.UNKNOWN, f"there is no attempt {attempt} of it here; there are {known}")
    directory = f"workitems/{job.id}/{group.sweep.task_id(index)}"
    return Source(
        where[attempt],
        directory + (f"/attempt-{attempt}" if attempt > 1 else ""),
        attempt,
        over=not _is_out(group, index, attempt),
        last=over and attempt == max(where),
        task=(job.id, group.number, index),
    )


def _is_out(group: Group, index: int, attempt: int) -> bool:
    """Whether this very attempt is granted and not over."""
    return group.state[index] == TaskState.GRANTED and group.attempts.get(index, 1) == attempt


def attempts_of(job: Job, group: Group, index: int) -> dict[int, str]:
    """Attempt numbers of a task with their nodes, as far as they are remembered."""
    where = {attempt: node for attempt, node, _ in group.history.get(index, [])}
    if (grant := group.out.get(index)) is not None:
        where[grant.attempt] = grant.node
    elif group.finished is not None and group.finished.started_at[index]:
        where[group.attempts.get(index, 1)] = list(job.node_numbers)[group.finished.node[index]]
    return where


def _of_start(desk: Desk, session: Session, message: m.LogRead) -> Source | None:
    """A node's start belongs to its pool: its operators read what it wrote."""
    if message.node is None or message.job is not None:
        raise RefusedError(m.RefusalCode.INVALID, "a start is a node's: `logs --node NODE --phase start`")
    node = find_node(desk, message.node)
    if not access.may_operate(desk, session, node.pool.name):
        raise RefusedError(
            m.RefusalCode.REFUSED, f"what the start of node `{node.name}` wrote is for the operators of its pool"
        )
    if not node.pool.start_digest:
        raise RefusedError(m.RefusalCode.FAILED, f"pool `{node.pool.name}` of node `{node.name}` has no start")
    if node.start is None or not node.start_counts:
        return None
    view, running = node.start.view, node.start.running
    attempt = message.attempt or max(1, view.attempts, 0 if running is None else running[0])
    return Source(
        node.name,
        "startup" + (f"/attempt-{attempt}" if attempt > 1 else ""),
        attempt,
        over=attempt <= view.attempts,
        last=view.finished and attempt >= view.attempts,
        kept=view.kept(message.stderr) if view.ends and attempt == view.attempts else None,
    )


def _of_phase(desk: Desk, session: Session, message: m.LogRead) -> Source | None:
    job, node_job, view = _phase(desk, session, message)
    if view is None:
        raise RefusedError(m.RefusalCode.FAILED, f"job `{job.id}` has no preparation")
    phase = message.phase or m.Phase.PREPARATION
    running = node_job.running.get(phase, (0, 0.0))[0]
    again = message.follow and view.finished and node_job.state is NodeJobState.PREPARING  # its node was restarted
    attempt = message.attempt or max(1, view.attempts + again, running)
    over = attempt <= view.attempts or (not node_job.owes_release and view.finished)
    last = view.finished and attempt >= view.attempts
    directory = f"workitems/{job.id}/{'jobpreparation' if phase is m.Phase.PREPARATION else 'jobrelease'}"
    return Source(
        node_job.node,
        directory + (f"/attempt-{attempt}" if attempt > 1 else ""),
        attempt,
        over=over,
        last=last or not node_job.owes_release,
        kept=view.kept(message.stderr) if view.ends and attempt == view.attempts else None,
    )


def _phase(desk: Desk, session: Session, message: m.LogRead) -> tuple[Job, NodeJob, PhaseView | None]:
    if message.job is None or message.node is None or message.phase not in (m.Phase.PREPARATION, m.Phase.RELEASE):
        raise RefusedError(m.RefusalCode.INVALID, "name a task, or a job with --node NODE and --phase prep or release")
    job = find_own_job(desk, session, message.job)
    node_job = job.current.get(message.node)
    node_job = node_job or next((entry for entry in reversed(job.rounds) if entry.node == message.node), None)
    if node_job is None:
        find_node(desk, message.node)
        touched = list(job.node_numbers)
        raise RefusedError(m.RefusalCode.UNKNOWN, f"job `{job.id}` started nothing on `{message.node}`", touched)
    return job, node_job, node_job.view(message.phase)


# ---- what is kept


def take_outputs(desk: Desk, node: Node, message: m.TaskOutputs) -> None:
    """Have what a node says of attempts that ended there kept; of others its word is worth nothing."""
    if node.session is None:
        return
    kept = []
    for output in message.outputs[:MAX_OUTPUTS]:
        job = desk.cluster.jobs.get(output.job)
        if job is None or not 0 <= output.group < len(job.groups):
            continue
        group = job.groups[output.group]
        if 0 <= output.index < group.size and _ended_on(job, group, output.index, output.attempt, node):
            streams = plausible.kept_stream(output.stdout), plausible.kept_stream(output.stderr)
            kept.append(KeptOutput(job.id, job.owner, group.number, output.index, output.attempt, *streams))
    desk.ready.outputs.append(OutputsSaid(node.session, message.number, kept))


def _ended_on(job: Job, group: Group, index: int, attempt: int, node: Node) -> bool:
    """Whether this attempt ended there. As `attempts_of` says it, of what has ended: asked a thousand times at once."""
    if any((number, name) == (attempt, node.name) for number, name, _ in group.history.get(index, [])):
        return True
    columns = group.finished
    if group.state[index] not in OVER or columns is None or not columns.started_at[index]:
        return False
    last = group.attempts.get(index, 1) == attempt
    return last and job.node_numbers.get(node.name) == columns.node[index]


# ---- from where


def _read(desk: Desk, session: int, message: m.LogRead, source: Source, follow: Follow | None = None) -> None:
    """Ask the node, or answer with what was kept. Raises RefusedError."""
    node = desk.cluster.nodes[source.node]
    path = f"{source.directory}/{'stderr.txt' if message.stderr else 'stdout.txt'}"
    said: Plain = {"attempt": source.attempt, "over": source.over, "last": source.last, "node": source.node}
    instead = _instead(message, source, said)
    if not in_contact(node) and instead is not None:
        desk.answer_kept(
            session, message.request, instead, m.RefusalCode.FAILED, f"node `{node.name}` is out of contact"
        )
        return
    relay = ask_read(
        desk, session, message.request, node, path, message.offset, message.limit,
        said=said, instead=instead, follow=follow,
    )  # fmt: skip
    if follow is not None:
        follow.relay = relay


def _instead(message: m.LogRead, source: Source, said: Plain) -> Instead | None:
    if source.task is not None and source.over:
        limit = max(0, min(message.limit, MAX_CHUNK))
        return Lookup(*source.task, source.attempt, message.stderr, message.offset, limit, said, message.follow)
    if source.kept is None:
        return None
    limit = max(0, min(message.limit, MAX_CHUNK))
    return {**piece(source.kept, message.offset, limit), "kept": words(source.kept), **said}


def piece(stream: m.KeptStream, offset: int, limit: int) -> Plain:
    """The piece asked for of a file of which the middle may be missing: `skipped` bytes before the content."""
    size = max(stream.size, len(stream.head) + len(stream.tail))
    begins = size - len(stream.tail)
    asked = min(size, offset) if offset >= 0 else max(0, size + offset)
    start = asked if asked < len(stream.head) or asked >= begins else begins
    if start < len(stream.head):
        content = stream.head[start : start + limit]
        if start + len(content) == len(stream.head) == begins:
            content = (content + stream.tail)[:limit]
    else:
        content = stream.tail[start - begins : start - begins + limit]
    body: Plain = {"content": content, "size": size, "end": start + len(content) >= size}
    return {**body, "skipped": start - asked} if start > asked else body


def words(stream: m.KeptStream) -> str:
    """What of it was kept."""
    if stream.size < 0 and len(stream.tail) >= MAX_TAIL:
        return f"the last {_bytes(len(stream.tail))}"
    if stream.size <= len(stream.head) + len(stream.tail):
        return "all of it"
    ends = {"first": stream.head, "last": stream.tail}
    parts = [f"the {which} {_bytes(len(end))}" for which, end in ends.items() if end]
    return f"{' and '.join(parts) or 'nothing'} of {_bytes(stream.size)}"


def _bytes(size: int) -> str:
    return f"{size // 1024:,} KiB" if size >= 1024 and size % 1024 == 0 else f"{size:,} bytes"


# ---- following


def advance_follows(desk: Desk) -> None:
    """Whoever follows something that stands otherwise now hears of it."""
    for follow in list(desk.follows):
        session = desk.sessions.get(follow.session)
        if session is None or follow.stands == _stands(desk, session, follow.message):
            continue
        try:
            _advance(desk, session, follow)
        except RefusedError as refused:
            _end(desk, follow)
            desk.refuse(
                session.epoch, follow.message.request, refused.code, refused.message, near=refused.close,
                help=refused.way_out,
            )  # fmt: skip


def _advance(desk: Desk, session: Session, follow: Follow) -> None:
    """Ask the node that has it now, or go on waiting. Raises RefusedError."""
    follow.stands = _stands(desk, session, follow.message)
    try:
        source = _source(desk, session, follow.message)
    except RefusedError:
        _end(desk, follow)
        raise
    if source is None:
        return
    if source.over:
        _end(desk, follow)
        _read(desk, session.epoch, follow.message, source)
    elif follow.relay is None and in_contact(desk.cluster.nodes[source.node]):
        _read(desk, session.epoch, follow.message, source, follow)


def _end(desk: Desk, follow: Follow) -> None:
    if follow.relay is not None:
        desk.close_relay(follow.relay)
    desk.follows = [other for other in desk.follows if other is not follow]


def _stands(desk: Desk, session: Session, message: m.LogRead) -> object:
    """What tells, cheaply, whether a following request is to be looked at again."""
    try:
        if message.task is not None:
            _, group, index = find_task(desk, session, message.task)
            return group.state[index], group.attempts.get(index, 1), group.state[index] not in OVER and desk.contacts
        if message.phase is m.Phase.START:
            node = find_node(desk, message.node or "")
            given = node.start
            how = None if given is None else (given.number, given.running, given.view.ends, given.view.finished)
            return how, node.start_counts, in_contact(node)
        _, node_job, view = _phase(desk, session, message)
    except RefusedError:
        return None
    node = desk.cluster.nodes[node_job.node]
    ended = (view.ends, view.finished) if view is not None else None
    running = node_job.running.get(message.phase or m.Phase.PREPARATION)
    return node_job.round, node_job.state, running, ended, in_contact(node)
